//! A timer that is finer than tokio's, which counts in milliseconds.

use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// Linux's `timerfd`, which wakes to within some microseconds of its time.
pub(crate) struct Timer {
    file: AsyncFd<OwnedFd>,
}

impl Timer {
    /// To be called inside a runtime whose I/O is enabled.
    pub(crate) fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let file = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for descriptors that are not owned"
        )]
        let file = AsyncFd::new(file)?;
        Ok(Timer { file })
    }

    /// Wakes the task after `wait`; ready if that has passed already, or the timer does not work,
    /// where trying again at once is all that is left.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, wait: Duration) -> Poll<()> {
        // Nought would turn it off.
        let wait = wait.max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(wait.subsec_nanos()),
            },
        };
        if timerfd_settime(self.file.get_ref(), TimerfdTimerFlags::empty(), &once).is_err() {
            return Poll::Ready(());
        }
        loop {
            let Ok(mut guard) = ready!(self.file.poll_read_ready(cx)) else {
                return Poll::Ready(());
            };
            let mut count = [0; 8];
            // Whoever sets it again has made it unreadable: then readiness is old news.
            if rustix::io::read(self.file.get_ref(), &mut count).is_ok() {
                return Poll::Ready(());
            }
            guard.clear_ready();
        }
    }
}
