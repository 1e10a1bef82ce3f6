//! [`Channel`]: an event channel that two sleepers wait for.

use super::NetCounters;
use core::task::{Context, Waker};
use fata_hypercall::EventChannel;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;

/// Which of an interface's two sleepers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleeper {
    Receive,
    Transmit,
}

/// The wakers of both directions, the last of each: an interface without split event channels has
/// one channel for them.
#[derive(Debug, Default)]
pub(super) struct Sleepers(Mutex<[Option<Waker>; 2]>);

impl Sleepers {
    pub(super) fn store(&self, sleeper: Sleeper, waker: &Waker) {
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut wakers[sleeper as usize] {
            Some(stored) => stored.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    pub(super) fn wake_all(&self) {
        let wakers = core::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Wake for Sleepers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

/// An event channel, and who is woken by it.
#[derive(Debug)]
pub(super) struct Channel {
    event: EventChannel,
    sleepers: Arc<Sleepers>,
    /// Wakes the sleepers.
    waker: Waker,
}

impl Channel {
    pub(super) fn new(event: EventChannel, sleepers: &Arc<Sleepers>) -> Self {
        Channel { event, sleepers: sleepers.clone(), waker: Waker::from(sleepers.clone()) }
    }

    pub(super) fn event(&self) -> &EventChannel {
        &self.event
    }

    /// Wakes the task at the next event. What has come before is forgotten: whoever asks looks at
    /// the ring afterwards.
    pub(super) fn wake_on_event(&self, sleeper: Sleeper, cx: &Context<'_>) {
        self.sleepers.store(sleeper, cx.waker());
        let mut cx = Context::from_waker(&self.waker);
        let line = self.event.line();
        if line.poll_fired(&mut cx).is_ready() && line.poll_fired(&mut cx).is_ready() {
            // Another already; so the sleepers do not sleep.
            self.waker.wake_by_ref();
        }
    }

    /// Notifies the other end if it `sleeps`, and counts what was done or spared.
    pub(super) fn notify_if(&self, sleeps: bool, counters: &NetCounters) {
        if sleeps {
            self.event.notify();
            NetCounters::add(&counters.notifications, 1);
        } else {
            NetCounters::add(&counters.notifications_spared, 1);
        }
    }
}
