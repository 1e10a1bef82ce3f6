//! [`Disk`]: jobs in slots, the queue of those that have something to send, and those who wait.
//!
//! ```text
//!            submit                 the last piece landed            the future looks
//!   Free ────────────► Flying ────────────────────────────► Done ─────────────────────────► Free
//!                        │ future dropped                     │ future dropped
//!                        ▼                                    ▼
//!                     Orphan ──── the last piece ──────────► Free
//! ```
//!
//! Nobody needs to be spawned for the data: the interrupt itself takes answers from the ring, sends
//! what waited for room, and wakes those whose jobs are over. When the backend goes away the jobs
//! stay, and begin again with the next backend.

use super::job::{Job, Kind};
use super::link::{Launch, Link, refusal};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use fata_device::{BlockError, SectorBuffer};
use fata_xenbus::ring::block::FrontError;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Wake;

type Outcome = Result<Option<SectorBuffer>, BlockError>;

/// What a disk has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlkfrontCounters {
    /// Requests of the program's that ended, one way or the other.
    pub requests: u64,
    /// Requests on the ring that were answered.
    pub pieces: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// Event notifications sent.
    pub notifications: u64,
    /// How often something had to wait because the ring or its pages were full.
    pub ring_full: u64,
    /// How often the disk was connected to a backend.
    pub connections: u64,
    /// Requests that the backend refused.
    pub refused: u64,
}

/// What happened to a disk, as the handshake must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskEvent {
    /// The backend broke a rule of the ring, and the disk is closed.
    Fault(FrontError),
    /// Nobody has the disk any more.
    Abandoned,
}

/// A disk and all that is asked of it at the moment.
pub(crate) struct Disk {
    state: Mutex<State>,
    /// Wakes this disk itself: see [`Drain`].
    drain: Waker,
}

enum Phase {
    /// To be used, with this ring.
    Live(Box<Link>),
    /// There is no backend now, and there may be one again.
    Away,
    /// For ever.
    Over(BlockError),
}

struct State {
    phase: Phase,
    slots: Vec<Slot>,
    /// Slots whose jobs have something to send, the next first.
    unsent: VecDeque<u16>,
    /// Who waits for a free slot.
    waiting: Vec<Waker>,
    /// Who is to be woken as soon as the lock is released: a waker is arbitrary code.
    woken: Vec<Waker>,
    /// What the backend did wrong, for who keeps the handshake.
    fault: Option<FrontError>,
    /// Nobody has the disk any more.
    is_abandoned: bool,
    /// Who keeps the handshake.
    keeper: Option<Waker>,
    /// Writes were answered since the last flush.
    is_unflushed: bool,
    /// A backend went away with writes that were answered and not flushed.
    has_lost: bool,
    counters: BlkfrontCounters,
}

enum Slot {
    Free,
    Flying { job: Job, waker: Option<Waker> },
    Orphan { job: Job },
    Done(Outcome),
}

/// Takes answers from the ring when the event comes. So the data needs no task.
struct Drain(Weak<Disk>);

impl Wake for Drain {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(disk) = self.0.upgrade() {
            disk.with(|state| state.drain(&disk.drain));
        }
    }
}

impl Disk {
    /// A disk without a backend, for up to `requests_max` requests at once.
    pub(crate) fn new(requests_max: u16) -> Arc<Self> {
        let state = State {
            phase: Phase::Away,
            slots: (0..requests_max.max(1)).map(|_| Slot::Free).collect(),
            unsent: VecDeque::new(),
            waiting: Vec::new(),
            woken: Vec::new(),
            fault: None,
            is_abandoned: false,
            keeper: None,
            is_unflushed: false,
            has_lost: false,
            counters: BlkfrontCounters::default(),
        };
        Arc::new_cyclic(|disk| Disk {
            state: Mutex::new(state),
            drain: Waker::from(Arc::new(Drain(disk.clone()))),
        })
    }

    /// The backend is there.
    pub(crate) fn connect(&self, link: Link) {
        self.with(|state| {
            if matches!(state.phase, Phase::Away) {
                state.counters.connections += 1;
                state.phase = Phase::Live(Box::new(link));
                state.drain(&self.drain);
            }
        });
    }

    /// The backend is gone. Jobs wait for the next one. Returns the ring, to be given up when the
    /// handshake says so.
    pub(super) fn disconnect(&self) -> Option<Box<Link>> {
        self.with(State::disconnect)
    }

    /// There will be no backend any more. Every request fails with `why`, those in flight too.
    pub(super) fn end(&self, why: BlockError) -> Option<Box<Link>> {
        self.with(|state| {
            let link = state.disconnect();
            state.end(why);
            link
        })
    }

    /// What the one who keeps the handshake must know.
    pub(super) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<DiskEvent> {
        self.with(|state| {
            if let Some(fault) = state.fault.take() {
                return Poll::Ready(DiskEvent::Fault(fault));
            }
            if core::mem::take(&mut state.is_abandoned) {
                return Poll::Ready(DiskEvent::Abandoned);
            }
            state.keeper = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// Nobody has the disk any more. Its ring stays until the handshake has closed the device, so
    /// that what is under way takes effect.
    pub(super) fn abandon(&self) {
        self.with(|state| {
            state.is_abandoned = true;
            state.woken.extend(state.keeper.take());
        });
    }

    /// The error that ended the disk, if one did.
    pub(super) fn check(&self) -> Result<(), BlockError> {
        self.with(|state| match &state.phase {
            Phase::Over(error) => Err(error.clone()),
            Phase::Live(_) | Phase::Away => Ok(()),
        })
    }

    pub(super) fn counters(&self) -> BlkfrontCounters {
        self.with(|state| state.counters)
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // Nothing in here panics on outside input; if a bug did, the books would still be whole,
        // since no invariant spans two of their entries.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut state);
        let woken = core::mem::take(&mut state.woken);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        result
    }
}

/// What became of a job that was to be submitted.
enum Submitted {
    InSlot(u16),
    MustWait(Job),
    Refused(BlockError),
}

impl State {
    /// Puts a job into a free slot and sends what can be sent of it, or lets `waker` wait for one.
    fn submit(&mut self, job: Job, waker: &Waker) -> Submitted {
        if let Phase::Over(error) = &self.phase {
            return Submitted::Refused(error.clone());
        }
        if job.kind == Kind::Flush && core::mem::take(&mut self.has_lost) {
            // Those writes were answered by a backend that is no more, and may be with it.
            return Submitted::Refused(BlockError::Medium);
        }
        let Some(free) = self.slots.iter().position(|slot| matches!(slot, Slot::Free)) else {
            if !self.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
                self.waiting.push(waker.clone());
            }
            return Submitted::MustWait(job);
        };
        self.slots[free] = Slot::Flying { job, waker: None };
        self.unsent.push_back(free as u16);
        self.pump();
        Submitted::InSlot(free as u16)
    }

    /// Sends pieces while there is room, from each job in turn, so that a long one does not keep
    /// the others waiting.
    fn pump(&mut self) {
        let Phase::Live(link) = &mut self.phase else { return };
        let mut over = Vec::new();
        while let Some(&number) = self.unsent.front() {
            let (Slot::Flying { job, .. } | Slot::Orphan { job }) =
                &mut self.slots[usize::from(number)]
            else {
                self.unsent.pop_front();
                continue;
            };
            match link.launch(number, job) {
                Launch::Full => {
                    self.counters.ring_full += 1;
                    break;
                }
                Launch::Sent | Launch::Nothing => {
                    self.unsent.pop_front();
                    if !job.is_launched() {
                        self.unsent.push_back(number);
                    } else if job.is_over() {
                        over.push(number);
                    }
                }
            }
        }
        self.counters.notifications += u64::from(link.publish());
        for number in over {
            self.finish(number);
        }
    }

    /// Takes all answers from the ring and sends what waits, until an event is set for the next.
    fn drain(&mut self, drain: &Waker) {
        // Each round takes something that was asked for; a backend that answers at once could keep
        // long jobs here, so there is an end, and the rest comes with the next look.
        for _ in 0..4 * self.slots.len() + 1 {
            if let Err(fault) = self.land_all() {
                return self.misbehaved(fault);
            }
            self.pump();
            let Phase::Live(link) = &mut self.phase else { return };
            match link.may_sleep() {
                Ok(true) => {}
                Ok(false) => continue,
                Err(fault) => return self.misbehaved(fault),
            }
            let cx = &mut Context::from_waker(drain);
            if link.channel().line().poll_fired(cx).is_pending() {
                return;
            }
        }
        for slot in &mut self.slots {
            if let Slot::Flying { waker, .. } = slot {
                self.woken.extend(waker.take());
            }
        }
    }

    fn land_all(&mut self) -> Result<(), FrontError> {
        loop {
            let Phase::Live(link) = &mut self.phase else { return Ok(()) };
            let Some(landed) = link.land()? else { return Ok(()) };
            self.counters.pieces += 1;
            let number = landed.job;
            let status = landed.status;
            let job = match &mut self.slots[usize::from(number)] {
                Slot::Flying { job, .. } | Slot::Orphan { job } => Some(job),
                Slot::Free | Slot::Done(_) => None,
            };
            let Some(job) = job else {
                link.unload(landed, None);
                continue;
            };
            link.unload(landed, Some(job));
            let refused = refusal(job.kind, status);
            self.counters.refused += u64::from(refused.is_some());
            job.landed(refused);
            if job.is_over() {
                self.finish(number);
            }
        }
    }

    /// The job in slot `number` is over.
    fn finish(&mut self, number: u16) {
        self.counters.requests += 1;
        // One that was refused may have had more to send, and the slot may soon be another job's.
        self.unsent.retain(|unsent| *unsent != number);
        let place = &mut self.slots[usize::from(number)];
        match core::mem::replace(place, Slot::Free) {
            Slot::Flying { job, waker } => {
                let (kind, len) = (job.kind, job.len() as u64);
                let outcome = job.into_outcome();
                if outcome.is_ok() {
                    self.note_success(kind, len);
                }
                self.slots[usize::from(number)] = Slot::Done(outcome);
                self.woken.extend(waker);
            }
            Slot::Orphan { job } => {
                self.note_success(job.kind, job.len() as u64);
                self.wake_waiting();
            }
            other @ (Slot::Free | Slot::Done(_)) => *place = other,
        }
    }

    fn note_success(&mut self, kind: Kind, len: u64) {
        let can_flush = matches!(&self.phase, Phase::Live(link) if link.features().flush.is_some());
        match kind {
            Kind::Read => self.counters.bytes_read += len,
            Kind::Write => {
                self.counters.bytes_written += len;
                self.is_unflushed |= can_flush;
            }
            Kind::Flush => self.is_unflushed = false,
            Kind::Discard { .. } => {}
        }
    }

    fn wake_waiting(&mut self) {
        // All: one of them may have been dropped, and then the slot would be nobody's.
        self.woken.append(&mut self.waiting);
    }

    /// The backend broke a rule: nothing more is taken from it.
    fn misbehaved(&mut self, fault: FrontError) {
        self.fault = Some(fault);
        self.woken.extend(self.keeper.take());
        self.end(BlockError::Misbehaved(fault.to_string()));
    }

    fn disconnect(&mut self) -> Option<Box<Link>> {
        if matches!(self.phase, Phase::Over(_)) {
            return None;
        }
        let Phase::Live(link) = core::mem::replace(&mut self.phase, Phase::Away) else {
            return None;
        };
        self.has_lost |= core::mem::take(&mut self.is_unflushed);
        self.unsent.clear();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            match slot {
                Slot::Flying { job, .. } => {
                    job.begin_again();
                    self.unsent.push_back(number as u16);
                }
                // Nobody waits for it: it took effect or it did not.
                Slot::Orphan { .. } => *slot = Slot::Free,
                Slot::Free | Slot::Done(_) => {}
            }
        }
        self.wake_waiting();
        Some(link)
    }

    fn end(&mut self, why: BlockError) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        self.phase = Phase::Over(why.clone());
        self.unsent.clear();
        for slot in &mut self.slots {
            match core::mem::replace(slot, Slot::Free) {
                Slot::Flying { waker, .. } => {
                    *slot = Slot::Done(Err(why.clone()));
                    self.woken.extend(waker);
                }
                done @ Slot::Done(_) => *slot = done,
                Slot::Orphan { .. } | Slot::Free => {}
            }
        }
        self.wake_waiting();
    }
}

/// A job from its submission to its outcome.
pub(super) struct Submission<'a> {
    disk: &'a Arc<Disk>,
    stage: Stage,
}

enum Stage {
    /// Not submitted; waits for a slot.
    Ready(Job),
    /// In this slot.
    Submitted(u16),
    /// The outcome was given.
    Over,
}

impl<'a> Submission<'a> {
    pub(super) fn new(disk: &'a Arc<Disk>, job: Job) -> Self {
        Submission { disk, stage: Stage::Ready(job) }
    }
}

impl Future for Submission<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let disk = self.disk;
        disk.with(|state| {
            let stage = core::mem::replace(&mut self.stage, Stage::Over);
            let slot = match stage {
                Stage::Ready(job) => match state.submit(job, cx.waker()) {
                    Submitted::InSlot(slot) => slot,
                    Submitted::MustWait(job) => {
                        self.stage = Stage::Ready(job);
                        return Poll::Pending;
                    }
                    Submitted::Refused(error) => return Poll::Ready(Err(error)),
                },
                Stage::Submitted(slot) => slot,
                Stage::Over => return Poll::Ready(Err(BlockError::Disconnected)),
            };
            if let Slot::Flying { waker, .. } = &mut state.slots[usize::from(slot)] {
                *waker = Some(cx.waker().clone());
                state.drain(&disk.drain);
            }
            match core::mem::replace(&mut state.slots[usize::from(slot)], Slot::Free) {
                Slot::Done(outcome) => {
                    state.wake_waiting();
                    Poll::Ready(outcome)
                }
                flying => {
                    state.slots[usize::from(slot)] = flying;
                    self.stage = Stage::Submitted(slot);
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for Submission<'_> {
    fn drop(&mut self) {
        if let Stage::Submitted(slot) = core::mem::replace(&mut self.stage, Stage::Over) {
            self.disk.with(|state| {
                let place = &mut state.slots[usize::from(slot)];
                match core::mem::replace(place, Slot::Free) {
                    Slot::Flying { job, .. } => *place = Slot::Orphan { job },
                    other => {
                        drop(other);
                        state.wake_waiting();
                    }
                }
            });
        }
    }
}
