//! [`Forwarder`]: a bridge of exactly two ports.
//!
//! It neither learns addresses nor looks at them: what one interface receives, the other sends.
//! What it does look at is what the receiving device left undone (a blank checksum, several TCP
//! segments in one frame), because the other device may not do it either.

mod backlog;
mod counters;
mod port;
#[cfg(test)]
mod tests;

pub use counters::PortCounters;
pub(crate) use port::Port;

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use fata_device::{Nic, NicError};
use std::future::Future;
use std::sync::Arc;

/// Frames that one poll takes from each interface; see [`Driver`](crate::Driver).
pub(crate) const BATCH_FRAMES: usize = 64;

/// The longest frame that a device may hand over: an IP packet and the Ethernet header.
pub(crate) const FRAME_BYTES_MAX: usize = 14 + 65_535;

/// Moves frames between two interfaces, both ways, until one of them fails: a future to spawn.
///
/// An interface whose way out is full is not read from: frames then wait in its device, where its
/// sender sees them, and none is dropped here. Nothing is allocated per frame.
#[must_use = "a future does nothing until it is spawned or awaited"]
pub struct Forwarder {
    ports: [Port; 2],
}

/// Why a [`Forwarder`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardError {
    /// Which interface failed: 0 or 1, in the order in which they were given.
    pub port: usize,
    /// Why.
    pub error: NicError,
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}: {}", self.port, self.error)
    }
}

impl std::error::Error for ForwardError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forwarder({}, {})", self.ports[0].mac(), self.ports[1].mac())
    }
}

impl Forwarder {
    /// A bridge between two interfaces.
    pub fn new(one: impl Nic, other: impl Nic) -> Self {
        // Room for the one frame that was received before its way out was found full.
        Forwarder {
            ports: [
                Port::new(Box::new(one), FRAME_BYTES_MAX),
                Port::new(Box::new(other), FRAME_BYTES_MAX),
            ],
        }
    }

    /// What both ports counted so far; they go on counting while the forwarder runs.
    pub fn counters(&self) -> [Arc<PortCounters>; 2] {
        self.ports.each_ref().map(|port| Arc::clone(port.counters()))
    }

    /// Moves a batch from port `from` to the other. True if a frame was moved.
    fn turn(&mut self, cx: &mut Context<'_>, from: usize) -> Result<bool, ForwardError> {
        let to = 1 - from;
        let fail = |port: usize| move |error| ForwardError { port, error };
        let [zero, one] = &mut self.ports;
        let (way_in, way_out) = if from == 0 { (zero, one) } else { (one, zero) };
        // The closure that sends needs a context of its own while the other receives.
        let waker = cx.waker().clone();
        let mut progress = false;
        for _ in 0..BATCH_FRAMES {
            match way_out.poll_drain(cx).map_err(fail(to))? {
                Poll::Ready(()) => {}
                Poll::Pending => break,
            }
            let mut sent = Ok(());
            let received = way_in.poll_receive(cx, &mut |frame, said| {
                sent = way_out.send(&mut Context::from_waker(&waker), frame, said);
            });
            sent.map_err(fail(to))?;
            match received.map_err(fail(from))? {
                Poll::Ready(()) => progress = true,
                Poll::Pending => break,
            }
        }
        Ok(progress)
    }
}

impl Future for Forwarder {
    type Output = ForwardError;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ForwardError> {
        let mut turns = || -> Result<bool, ForwardError> {
            let progress = self.turn(cx, 0)? | self.turn(cx, 1)?;
            for (port, one) in self.ports.iter_mut().enumerate() {
                one.flush().map_err(|error| ForwardError { port, error })?;
            }
            Ok(progress)
        };
        match turns() {
            Ok(true) => {
                // Again, behind the tasks that are runnable: frames that came meanwhile need no
                // interrupt.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }
}
