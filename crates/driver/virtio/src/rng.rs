//! [`VirtioRng`]: virtio's entropy device (virtio 1.2, section 5.4).
//!
//! The bytes seed a generator, once at start and now and then later; so one small request at a
//! time is enough. [`fill_polling`](VirtioRng::fill_polling) works before there are tasks.

use crate::control::{Control, Illness};
use crate::error::ProbeError;
use crate::queue::VirtQueue;
use crate::transport::Transport;
use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll};
use fata_shared::dma::{DmaBuffer, LentBuffer};
use fata_virtq::Segment;

/// Bytes asked for at once: what a generator is seeded with, twice. A host may meter its entropy.
const REQUEST_LEN: usize = 64;

/// Why there is no entropy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RngError {
    /// The device did not answer in time. It may later.
    TimedOut,
    /// The device broke the rules of its interface (the text says which) and was closed.
    Misbehaved(String),
    /// The device is gone.
    Disconnected,
}

impl fmt::Display for RngError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RngError::TimedOut => write!(f, "the entropy device did not answer in time"),
            RngError::Misbehaved(rule) => {
                write!(f, "the entropy device broke its contract: {rule}")
            }
            RngError::Disconnected => write!(f, "the entropy device is gone"),
        }
    }
}

impl std::error::Error for RngError {}

/// A virtio entropy device.
pub struct VirtioRng {
    control: Control,
    state: Result<VirtQueue<LentBuffer>, RngError>,
    /// Bytes that the device gave and nobody has had yet, from the end of this.
    ready: Vec<u8>,
}

impl VirtioRng {
    pub(crate) fn start(transport: Box<dyn Transport>) -> Result<Self, ProbeError> {
        let mut control = Control::start(transport, 0, 1)?;
        let size = control.queue_size(0, 1, 1)?;
        let queue = control.queue(0, size)?;
        control.run();
        Ok(VirtioRng { control, state: Ok(queue), ready: Vec::with_capacity(REQUEST_LEN) })
    }

    /// Fills `out` with entropy, asking the device again and again whether it is done. `go_on` is
    /// asked between two looks; when it says no, the wait ends.
    ///
    /// # Errors
    /// [`RngError::TimedOut`] when `go_on` said no; `out` may be filled in part then. The others
    /// are final.
    pub fn fill_polling(
        &mut self,
        out: &mut [u8],
        mut go_on: impl FnMut() -> bool,
    ) -> Result<(), RngError> {
        let mut filled = 0;
        while filled < out.len() {
            filled += self.drain(&mut out[filled..]);
            if filled == out.len() {
                break;
            }
            if !self.request()? {
                if !go_on() {
                    return Err(RngError::TimedOut);
                }
                core::hint::spin_loop();
            }
        }
        Ok(())
    }

    /// Fills `out` with entropy. If the future is dropped, bytes that came are kept for the next.
    ///
    /// # Errors
    /// [`RngError::Misbehaved`] and [`RngError::Disconnected`], finally.
    pub async fn fill(&mut self, out: &mut [u8]) -> Result<(), RngError> {
        let mut filled = 0;
        while filled < out.len() {
            filled += poll_fn(|cx| self.poll_fill(cx, &mut out[filled..])).await?;
        }
        Ok(())
    }

    /// Writes entropy into `out`, at least a byte unless `out` is empty, and says how many.
    ///
    /// # Errors
    /// As [`fill`](VirtioRng::fill).
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<Result<usize, RngError>> {
        // Two rounds: to ask, and to find that the answer came while the interrupt was set up.
        for _ in 0..3 {
            let count = self.drain(out);
            if count > 0 || out.is_empty() {
                return Poll::Ready(Ok(count));
            }
            match self.request() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if let Ok(queue) = &mut self.state
                && queue.may_sleep(cx.waker(), 1)
            {
                return match self.check_health() {
                    Ok(()) => Poll::Pending,
                    Err(error) => Poll::Ready(Err(error)),
                };
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves ready bytes to `out`; each is given once.
    fn drain(&mut self, out: &mut [u8]) -> usize {
        let count = out.len().min(self.ready.len());
        let rest = self.ready.len() - count;
        out[..count].copy_from_slice(&self.ready[rest..]);
        self.ready[rest..].fill(0);
        self.ready.truncate(rest);
        count
    }

    /// Looks for an answer, or asks if nothing was asked. True if bytes came.
    fn request(&mut self) -> Result<bool, RngError> {
        let queue = match &mut self.state {
            Ok(queue) => queue,
            Err(error) => return Err(error.clone()),
        };
        let mut buffer = match queue.take_used() {
            // Section 5.4.6.2: at least a byte. Taking nothing for an answer could go on for ever.
            Ok(Some(used)) if used.written == 0 => {
                drop(used.token.take_back());
                return Err(self.close_for("it gave no bytes"));
            }
            Ok(Some(used)) => {
                let mut buffer = used.token.take_back();
                self.ready.extend_from_slice(&buffer[..used.written as usize]);
                buffer.fill(0);
                return Ok(true);
            }
            Ok(None) if queue.outstanding() > 0 => return Ok(false),
            Ok(None) => DmaBuffer::zeroed(REQUEST_LEN),
            Err(rule) => return Err(self.close_for(rule)),
        };
        buffer.fill(0);
        let lent = buffer.lend();
        let segment = Segment { address: lent.address(), len: REQUEST_LEN as u32 };
        match queue.add(&[], &[segment], lent) {
            Ok(()) => {
                queue.notify();
                Ok(false)
            }
            Err(error) => {
                drop(error.token.take_back());
                Err(self.close_for("the queue is closed"))
            }
        }
    }

    fn check_health(&mut self) -> Result<(), RngError> {
        if !self.control.interrupts().take_attention() {
            return Ok(());
        }
        match self.control.illness() {
            None => Ok(()),
            Some(Illness::Gone) => Err(self.close(RngError::Disconnected)),
            Some(illness) => Err(self.close_for(illness.describe())),
        }
    }

    fn close_for(&mut self, rule: impl ToString) -> RngError {
        self.close(RngError::Misbehaved(rule.to_string()))
    }

    fn close(&mut self, why: RngError) -> RngError {
        if let Ok(queue) = core::mem::replace(&mut self.state, Err(why.clone())) {
            let quiet = self.control.reset();
            for lent in queue.dismantle(quiet) {
                if quiet {
                    drop(lent.take_back());
                }
            }
        }
        why
    }
}

impl Drop for VirtioRng {
    fn drop(&mut self) {
        self.close(RngError::Disconnected);
    }
}

impl fmt::Debug for VirtioRng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioRng")
            .field("closed", &self.state.as_ref().err())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
