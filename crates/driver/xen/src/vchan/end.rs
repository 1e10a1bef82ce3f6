//! [`Shared`]: what a channel's user and its handshake share, and the two who may sleep on it.

use super::VchanCounters;
use crate::memory::Shared as Pages;
use core::task::{Context, Poll, Waker};
use fata_hypercall::{EventChannel, Granted, Mapped};
use fata_xenbus::vchan::{Endpoint, Progress, VchanError};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Wake;

/// Our end of the rings: pages that we granted, or that we map.
#[derive(Debug)]
pub(super) enum End {
    Server(Endpoint<Pages<Granted>, Pages<Granted>>),
    Client(Endpoint<Pages<Mapped>, Pages<Mapped>>),
}

macro_rules! either {
    ($end:expr, $it:ident => $act:expr) => {
        match $end {
            End::Server($it) => $act,
            End::Client($it) => $act,
        }
    };
}

impl End {
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<Progress, VchanError> {
        either!(self, end => end.read(into))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<Progress, VchanError> {
        either!(self, end => end.write(bytes))
    }

    fn leave(&mut self) {
        either!(self, end => end.leave());
    }

    fn has_met(&self) -> bool {
        either!(self, end => end.has_met())
    }
}

/// Who wants to go on: each may sleep on its own, in a task of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Read,
    Write,
}

impl Turn {
    const fn other(self) -> Turn {
        match self {
            Turn::Read => Turn::Write,
            Turn::Write => Turn::Read,
        }
    }
}

/// What a channel's user did, as the handshake must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UserEvent {
    /// The other side broke this rule.
    Fault(String),
    /// The channel was dropped.
    Abandoned,
}

/// A channel.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Not in the state: notifying another domain may run its code, in a test, which must not find
    /// us locked.
    channel: OnceLock<EventChannel>,
    /// Wakes both sleepers: see [`Both`].
    both: Waker,
}

struct State {
    /// `None` before the channel is open and after its end.
    end: Option<End>,
    /// We have left: nothing can be written any more.
    has_left: bool,
    /// The other domain is gone, without a word.
    is_peer_dead: bool,
    /// The rule that the other side broke.
    broken: Option<VchanError>,
    readers: Option<Waker>,
    writers: Option<Waker>,
    fault: Option<String>,
    is_abandoned: bool,
    keeper: Option<Waker>,
    counters: VchanCounters,
}

impl State {
    fn sleeper(&mut self, turn: Turn) -> &mut Option<Waker> {
        match turn {
            Turn::Read => &mut self.readers,
            Turn::Write => &mut self.writers,
        }
    }

    /// Everybody who sleeps, to be woken when the lock is released.
    fn take_all(&mut self) -> [Option<Waker>; 3] {
        [self.readers.take(), self.writers.take(), self.keeper.take()]
    }

    fn count(&mut self, turn: Turn, progress: Progress) {
        let counters = &mut self.counters;
        match (turn, progress) {
            (Turn::Read, Progress::Bytes { count, .. }) => counters.bytes_read += count as u64,
            (Turn::Write, Progress::Bytes { count, .. }) => counters.bytes_written += count as u64,
            (Turn::Read, Progress::Wait) => counters.empty += 1,
            (Turn::Write, Progress::Wait) => counters.full += 1,
            (_, Progress::Gone) => {}
        }
        if matches!(progress, Progress::Bytes { notify: true, .. }) {
            counters.notifications += 1;
        }
    }
}

/// One event is for both: who sleeps on it is not known from it.
struct Both(Weak<Shared>);

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Some(shared) = self.0.upgrade() else { return };
        let woken = {
            let mut state = shared.lock();
            [state.readers.take(), state.writers.take()]
        };
        woken.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        let state = State {
            end: None,
            has_left: false,
            is_peer_dead: false,
            broken: None,
            readers: None,
            writers: None,
            fault: None,
            is_abandoned: false,
            keeper: None,
            counters: VchanCounters::default(),
        };
        Arc::new_cyclic(|shared| Shared {
            state: Mutex::new(state),
            channel: OnceLock::new(),
            both: Waker::from(Arc::new(Both(shared.clone()))),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics on outside input.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        if let Some(channel) = self.channel.get() {
            channel.notify();
        }
    }

    /// The rings are there. A client has just come, and says so.
    pub(super) fn open(&self, end: End, channel: EventChannel) {
        let is_client = matches!(end, End::Client(_));
        // A channel is opened once: after its end there is another one.
        let _ = self.channel.set(channel);
        self.lock().end = Some(end);
        if is_client {
            self.notify();
        }
    }

    /// Reads or writes, whatever `act` does, or sleeps until that may succeed.
    pub(super) fn poll(
        &self,
        turn: Turn,
        cx: &mut Context<'_>,
        mut act: impl FnMut(&mut End) -> Result<Progress, VchanError>,
    ) -> Poll<io::Result<Progress>> {
        let mut state = self.lock();
        let progress = loop {
            if let Some(error) = &state.broken {
                let error = io::Error::new(io::ErrorKind::InvalidData, *error);
                return Poll::Ready(Err(error));
            }
            if turn == Turn::Write && (state.has_left || state.is_peer_dead) {
                return Poll::Ready(Ok(Progress::Gone));
            }
            let Some(end) = &mut state.end else {
                return Poll::Ready(Ok(Progress::Gone));
            };
            let progress = match act(end) {
                Ok(progress) => progress,
                Err(error) => {
                    state.broken = Some(error);
                    state.fault = Some(error.to_string());
                    let woken = state.take_all();
                    drop(state);
                    woken.into_iter().flatten().for_each(Waker::wake);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
            };
            state.count(turn, progress);
            if progress != Progress::Wait {
                break progress;
            }
            if state.is_peer_dead {
                break Progress::Gone;
            }
            *state.sleeper(turn) = Some(cx.waker().clone());
            let Some(channel) = self.channel.get() else { return Poll::Pending };
            if channel.line().poll_fired(&mut Context::from_waker(&self.both)).is_pending() {
                return Poll::Pending;
            }
            // The event was perhaps for the other one, who will not see it any more.
            if let Some(other) = state.sleeper(turn.other()).take() {
                drop(state);
                other.wake();
                state = self.lock();
            }
        };
        drop(state);
        if matches!(progress, Progress::Bytes { notify: true, .. }) {
            self.notify();
        }
        Poll::Ready(Ok(progress))
    }

    /// `Ready` once the other side has come.
    pub(super) fn poll_met(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        loop {
            match &state.end {
                Some(end) if end.has_met() => return Poll::Ready(Ok(())),
                Some(_) => {}
                None => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            }
            state.readers = Some(cx.waker().clone());
            let Some(channel) = self.channel.get() else { return Poll::Pending };
            if channel.line().poll_fired(&mut Context::from_waker(&self.both)).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// We write nothing more, and the other side may know.
    pub(super) fn leave(&self) {
        {
            let mut state = self.lock();
            if state.has_left {
                return;
            }
            state.has_left = true;
            let Some(end) = &mut state.end else { return };
            end.leave();
            state.counters.notifications += 1;
        }
        self.notify();
    }

    /// The channel was dropped.
    pub(super) fn abandon(&self) {
        self.leave();
        let keeper = {
            let mut state = self.lock();
            state.is_abandoned = true;
            state.keeper.take()
        };
        keeper.into_iter().for_each(Waker::wake);
    }

    /// The rings, to be given up; nobody reads or writes any more.
    pub(super) fn end(&self) -> Option<End> {
        self.leave();
        let (end, woken) = {
            let mut state = self.lock();
            (state.end.take(), state.take_all())
        };
        woken.into_iter().flatten().for_each(Waker::wake);
        end
    }

    /// Whether the other side came and its domain is gone since. One hypercall.
    pub(super) fn look_after_peer(&self) {
        let woken = {
            let mut state = self.lock();
            let has_met = state.end.as_ref().is_some_and(End::has_met);
            let is_connected = self.channel.get().is_none_or(EventChannel::is_connected);
            if !has_met || is_connected || state.is_peer_dead {
                return;
            }
            state.is_peer_dead = true;
            [state.readers.take(), state.writers.take()]
        };
        woken.into_iter().flatten().for_each(Waker::wake);
    }

    pub(super) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<UserEvent> {
        let mut state = self.lock();
        if let Some(rule) = state.fault.take() {
            return Poll::Ready(UserEvent::Fault(rule));
        }
        if core::mem::take(&mut state.is_abandoned) {
            return Poll::Ready(UserEvent::Abandoned);
        }
        state.keeper = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn counters(&self) -> VchanCounters {
        self.lock().counters
    }
}
