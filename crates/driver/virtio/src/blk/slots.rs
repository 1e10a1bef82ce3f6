//! [`Disk`]: requests in flight, each in a slot, and those who wait.
//!
//! ```text
//!            submit                 the last piece came back            the future looks
//!   Free ────────────► Flying ────────────────────────────► Done ─────────────────────────► Free
//!                        │ future dropped                     │ future dropped
//!                        ▼                                    ▼
//!                     Orphan ──── the last piece ──────────► Free
//! ```

use super::request::{CELL_LEN, Chain, Request};
use crate::control::{Control, Illness};
use crate::queue::VirtQueue;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use fata_device::{BlockError, SectorBuffer};
use fata_shared::dma::DmaRegion;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Wake;

type Outcome = Result<Option<SectorBuffer>, BlockError>;

/// A disk and all that is asked of it at the moment.
pub(super) struct Disk {
    state: Mutex<State>,
    /// Wakes this disk itself: see [`Drain`].
    drain: Waker,
}

struct State {
    control: Control,
    /// The queue with its cells, or why the disk was closed. The queue's tokens are slots.
    running: Result<Running, BlockError>,
    slots: Vec<Slot>,
    /// Who waits for a free slot.
    waiting: Vec<Waker>,
    /// Who is to be woken as soon as the lock is released: a waker is arbitrary code.
    woken: Vec<Waker>,
}

struct Running {
    queue: VirtQueue<u16>,
    /// A cell per slot: what of a request is neither the caller's nor the queue's.
    cells: DmaRegion,
}

enum Slot {
    Free,
    Flying { request: Request, waker: Option<Waker> },
    Orphan { request: Request },
    Done(Outcome),
}

/// Takes finished requests from the ring when the interrupt comes. So the driver needs no task.
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
    pub(super) fn new(control: Control, queue: VirtQueue<u16>, slots: u16) -> Arc<Self> {
        let cells = DmaRegion::new(usize::from(slots) * CELL_LEN);
        let state = State {
            control,
            running: Ok(Running { queue, cells }),
            slots: (0..slots).map(|_| Slot::Free).collect(),
            waiting: Vec::new(),
            woken: Vec::new(),
        };
        Arc::new_cyclic(|disk| Disk {
            state: Mutex::new(state),
            drain: Waker::from(Arc::new(Drain(disk.clone()))),
        })
    }

    /// The error that ended the disk, if one did.
    pub(super) fn check(&self) -> Result<(), BlockError> {
        self.with(|state| match &state.running {
            Ok(_) => Ok(()),
            Err(error) => Err(error.clone()),
        })
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

/// What became of a request that was to be submitted.
enum Submitted {
    InSlot(u16),
    MustWait(Request),
    Refused(BlockError),
}

impl State {
    /// Puts a request into a free slot and offers it to the device, or lets `waker` wait for one.
    fn submit(&mut self, request: Request, waker: &Waker) -> Submitted {
        if let Err(error) = &self.running {
            // The device never had it.
            drop(request.into_buffer());
            return Submitted::Refused(error.clone());
        }
        let Some(free) = self.slots.iter().position(|slot| matches!(slot, Slot::Free)) else {
            if !self.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
                self.waiting.push(waker.clone());
            }
            return Submitted::MustWait(request);
        };
        self.slots[free] = Slot::Flying { request, waker: None };
        let slot = free as u16;
        if let Err(error) = self.launch(slot) {
            self.close(error);
        }
        Submitted::InSlot(slot)
    }

    /// Offers the next piece of the request in `slot` to the device.
    fn launch(&mut self, slot: u16) -> Result<(), BlockError> {
        let running = match &mut self.running {
            Ok(running) => running,
            Err(error) => return Err(error.clone()),
        };
        let (Slot::Flying { request, .. } | Slot::Orphan { request }) =
            &mut self.slots[usize::from(slot)]
        else {
            return Ok(());
        };
        let Chain { readable, writable } =
            request.prepare(&running.cells, usize::from(slot) * CELL_LEN);
        match running.queue.add(&readable, &writable, slot) {
            Ok(()) => {
                running.queue.notify();
                Ok(())
            }
            // Each slot has its descriptors, so only a queue that failed refuses.
            Err(_) => Err(BlockError::Misbehaved("the queue is closed".into())),
        }
    }

    /// Takes all finished pieces from the ring until there are no more and an interrupt is set for
    /// the next. Closes the disk if it breaks a rule.
    fn drain(&mut self, drain: &Waker) {
        // Each round takes something that was asked for; a device that answers at once could keep
        // long requests here, so there is an end, and the rest comes with the next look.
        for _ in 0..4 * self.slots.len() + 1 {
            let Ok(running) = &mut self.running else { return };
            match running.queue.take_used() {
                Ok(Some(used)) => {
                    if let Err(error) = self.land(used.token, used.written) {
                        return self.close(error);
                    }
                }
                Ok(None) => {
                    // Also when nothing is in flight: the line must be listened to for its health.
                    if running.queue.may_sleep(drain, 1) {
                        return self.check_health();
                    }
                }
                Err(rule) => return self.close(BlockError::Misbehaved(rule.to_string())),
            }
        }
        for slot in &mut self.slots {
            if let Slot::Flying { waker, .. } = slot {
                self.woken.extend(waker.take());
            }
        }
    }

    /// A piece of the request in `slot` came back.
    fn land(&mut self, slot: u16, written: u32) -> Result<(), BlockError> {
        let Ok(running) = &self.running else { return Ok(()) };
        let place = &mut self.slots[usize::from(slot)];
        let (Slot::Flying { request, .. } | Slot::Orphan { request }) = place else {
            return Ok(());
        };
        let cell = usize::from(slot) * CELL_LEN;
        let outcome = match request.finish_piece(&running.cells, cell, written) {
            Ok(false) => return self.launch(slot),
            Ok(true) => Ok(()),
            Err(error @ BlockError::Misbehaved(_)) => return Err(error),
            Err(error) => Err(error),
        };
        match core::mem::replace(place, Slot::Free) {
            Slot::Flying { request, waker } => {
                // The device has given the last piece back, so the buffer is ours again.
                let buffer = request.into_buffer();
                *place = Slot::Done(outcome.map(|()| buffer));
                self.woken.extend(waker);
            }
            Slot::Orphan { request } => {
                drop(request.into_buffer());
                self.wake_waiting();
            }
            Slot::Free | Slot::Done(_) => {}
        }
        Ok(())
    }

    fn wake_waiting(&mut self) {
        // All: one of them may have been dropped, and then the slot would be nobody's.
        self.woken.append(&mut self.waiting);
    }

    fn check_health(&mut self) {
        if !self.control.interrupts().take_attention() {
            return;
        }
        match self.control.illness() {
            None => {}
            Some(Illness::Gone) => self.close(BlockError::Disconnected),
            Some(illness) => self.close(BlockError::Misbehaved(illness.describe().into())),
        }
    }

    /// Closes the disk for good. Buffers that the device may still have are quarantined unless it
    /// confirms its reset.
    fn close(&mut self, why: BlockError) {
        let Ok(Running { queue, cells }) = core::mem::replace(&mut self.running, Err(why.clone()))
        else {
            return;
        };
        let quiet = self.control.reset();
        queue.dismantle(quiet);
        if quiet {
            cells.reclaim();
        }
        for slot in &mut self.slots {
            match core::mem::replace(slot, Slot::Free) {
                Slot::Flying { request, waker } => {
                    if quiet {
                        drop(request.into_buffer());
                    }
                    *slot = Slot::Done(Err(why.clone()));
                    self.woken.extend(waker);
                }
                Slot::Orphan { request } => {
                    if quiet {
                        drop(request.into_buffer());
                    }
                }
                done @ Slot::Done(_) => *slot = done,
                Slot::Free => {}
            }
        }
        self.wake_waiting();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.close(BlockError::Disconnected);
    }
}

/// A request from its submission to its outcome.
pub(super) struct Submission<'a> {
    disk: &'a Arc<Disk>,
    stage: Stage,
}

enum Stage {
    /// Not submitted; waits for a slot.
    Ready(Request),
    /// In this slot.
    Submitted(u16),
    /// The outcome was given.
    Over,
}

impl<'a> Submission<'a> {
    pub(super) fn new(disk: &'a Arc<Disk>, request: Request) -> Self {
        Submission { disk, stage: Stage::Ready(request) }
    }
}

impl Future for Submission<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let disk = self.disk;
        disk.with(|state| {
            let stage = core::mem::replace(&mut self.stage, Stage::Over);
            let slot = match stage {
                Stage::Ready(request) => match state.submit(request, cx.waker()) {
                    Submitted::InSlot(slot) => slot,
                    Submitted::MustWait(request) => {
                        self.stage = Stage::Ready(request);
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
        match core::mem::replace(&mut self.stage, Stage::Over) {
            // Lent when it was made, and never told to the device.
            Stage::Ready(request) => drop(request.into_buffer()),
            Stage::Submitted(slot) => self.disk.with(|state| {
                let place = &mut state.slots[usize::from(slot)];
                match core::mem::replace(place, Slot::Free) {
                    Slot::Flying { request, .. } => *place = Slot::Orphan { request },
                    other => {
                        drop(other);
                        state.wake_waiting();
                    }
                }
            }),
            Stage::Over => {}
        }
    }
}
