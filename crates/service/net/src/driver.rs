//! [`Driver`]: the task that moves frames between the engine and the interface.

use crate::shared::{Shared, State};
use core::fmt;
use core::num::NonZeroU16;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use fata_device::{Checksum, IpFamily, Nic, NicError, PartialChecksum, Segmentation, Transmit};
use fata_tcpip::{FrameChecksum, Instant};
use std::future::Future;
use std::sync::Arc;
use tokio::time::Sleep;

/// Frames that one poll takes from the interface, and frames that it gives to it. Enough that a
/// device is notified seldom; few enough (about 100 µs of work) that the other tasks' turn comes
/// soon.
const BATCH_FRAMES: usize = 64;
/// Bytes after which one poll takes no more frames, where several segments come in one: what a
/// processor's cache keeps until the program reads it, which is copied faster than what it does not.
const BATCH_BYTES: usize = 512 * 1024;

/// The task of a stack over a network interface: a future that whoever made the stack must spawn.
/// Ends only when the interface does; all sockets of the stack then fail with the same error, as
/// they do when this future is dropped.
#[must_use = "a stack without its driver sends and receives nothing"]
pub struct Driver {
    shared: Arc<Shared>,
    nic: Box<dyn Nic>,
    /// Wakes the task at the engine's deadline, or earlier.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Scratch space of one poll: tasks to wake after the lock is released.
    woken: Vec<Waker>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Driver({})", self.nic.mac())
    }
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, nic: Box<dyn Nic>) -> Self {
        Driver { shared, nic, alarm: None, woken: Vec::new() }
    }

    /// Fails all sockets, now and for ever.
    fn stop(&mut self, error: NicError) -> NicError {
        let error = {
            let mut state = self.shared.lock();
            state.take_everybody(&mut self.woken);
            state.driver = None;
            state.stopped.get_or_insert(error).clone()
        };
        self.wake();
        error
    }

    fn wake(&mut self) {
        for waker in self.woken.drain(..) {
            waker.wake();
        }
    }
}

/// One turn: takes a batch from the interface, does what is due, gives it a batch. True if anything
/// was done.
fn turn(
    state: &mut State,
    nic: &mut dyn Nic,
    cx: &mut Context<'_>,
    now: Instant,
) -> Result<bool, NicError> {
    if let Some(error) = &state.stopped {
        return Err(error.clone());
    }
    let engine = &mut state.engine;
    let mut progress = false;
    // Frames before timers: an acknowledgement that is here already spares a retransmission.
    let mut bytes = 0;
    for _ in 0..BATCH_FRAMES {
        let received = nic.poll_receive(cx, &mut |frame, received| {
            bytes += frame.len();
            let mss = received.segmentation.and_then(|cut| NonZeroU16::new(cut.mss));
            engine.handle_large_frame(now, frame, frame_checksum(received.checksum), mss);
        })?;
        if received.is_pending() {
            break;
        }
        progress = true;
        if bytes >= BATCH_BYTES {
            break;
        }
    }
    if engine.poll_timeout().is_some_and(|deadline| deadline <= now) {
        engine.handle_timeout(now);
        progress = true;
    }
    for _ in 0..BATCH_FRAMES {
        let sent = nic.poll_transmit(cx, &mut |buffer| {
            engine.poll_transmit(now, buffer).map(|transmit| Transmit {
                len: transmit.len,
                segmentation: transmit.mss.map(|mss| Segmentation {
                    family: if transmit.is_ipv6 { IpFamily::V6 } else { IpFamily::V4 },
                    mss: mss.get(),
                }),
                partial_checksum: transmit.partial_checksum.map(partial_checksum),
            })
        })?;
        if sent != Poll::Ready(true) {
            break;
        }
        progress = true;
    }
    nic.flush()?;
    Ok(progress)
}

/// What the engine leaves to a device, in the device's words.
pub(crate) fn partial_checksum(sum: fata_tcpip::PartialChecksum) -> PartialChecksum {
    PartialChecksum { start: sum.start, offset: sum.offset }
}

pub(crate) fn frame_checksum(checksum: Checksum) -> FrameChecksum {
    match checksum {
        Checksum::Unverified => FrameChecksum::Unverified,
        Checksum::Verified => FrameChecksum::Verified,
        Checksum::Blank => FrameChecksum::Blank,
    }
}

impl Future for Driver {
    type Output = NicError;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<NicError> {
        let driver = &mut *self;
        let now = driver.shared.now();
        let mut state = driver.shared.lock();
        // Whoever acts from here on need not wake us. A waker that is left, because it was the
        // interface or the alarm that woke us, is dropped outside the lock.
        let _last = state.driver.take();
        let turned = turn(&mut state, driver.nic.as_mut(), cx, now);
        state.take_events(&mut driver.woken);
        let deadline = match turned {
            Ok(true) => {
                drop(state);
                driver.wake();
                // Again, behind the tasks that were woken: what they write goes out in one batch,
                // and frames that came meanwhile need no interrupt. The scheduler looks at
                // interrupts rarely while tasks are runnable.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Ok(false) => {
                state.driver = Some(cx.waker().clone());
                let deadline = state.engine.poll_timeout();
                drop(state);
                deadline
            }
            Err(error) => {
                drop(state);
                return Poll::Ready(driver.stop(error));
            }
        };
        driver.wake();
        if let Some(deadline) = deadline {
            let deadline = driver.shared.runtime_instant(deadline);
            let alarm =
                driver.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            // Deadlines mostly move away (an acknowledgement came). An alarm that is early costs
            // one idle turn; moving it each time would cost more.
            if alarm.is_elapsed() || deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            if alarm.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop(NicError::Disconnected("the task that drives it was stopped".into()));
    }
}
