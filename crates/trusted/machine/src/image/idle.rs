//! Doing nothing, well: the processor halts until an interrupt or a deadline.
//!
//! The program sleeps when its only thread waits for a futex word to change (tokio's park point, a
//! `thread::sleep`, a contended lock). Only the waker of a device's line can then change it, so the
//! loop here is: deliver interrupts, look at the word, look at the clock, sleep. Interrupts are off
//! between the look and the sleep, and `sti; hlt` lets none slip through between them, so no wake-up
//! is lost; and whatever woke the processor, the word and the clock decide.

use super::cell::OneCpu;
use super::{apic, cpu, time, vectors};
use core::future::poll_fn;
use core::sync::atomic::{AtomicU64, Ordering};
use fata_shared::interrupt::Line;

static TIMES_IDLE: AtomicU64 = AtomicU64::new(0);

/// Fires when the machine leaves idleness; none before somebody asks.
static BUSY: OneCpu<Option<Line>> = OneCpu::new(None);

/// Takes the interrupts that are pending and wakes the lines that they belong to. True if there were
/// any. Cheap when there are none: a few instructions, no exit to the hypervisor.
pub fn deliver_interrupts() -> bool {
    cpu::take_pending_interrupts();
    vectors::deliver()
}

/// How often the machine has gone to sleep since it started.
pub fn times_idle() -> u64 {
    TIMES_IDLE.load(Ordering::Relaxed)
}

/// Waits until the machine has slept and goes to work again. For the one task that then looks after
/// interrupts while the program keeps the processor busy; the last caller is the one that is woken.
pub async fn until_busy() {
    let line = BUSY.with(|busy| busy.get_or_insert_with(Line::new).clone());
    poll_fn(|cx| line.poll_fired(cx)).await;
}

/// Why [`sleep_while`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The condition holds no longer.
    Changed,
    /// Interrupts were delivered; whether that changed anything, the caller must find out.
    Interrupted,
    /// The deadline has passed.
    Deadline,
}

/// Sleeps as long as `unchanged` says so, until interrupts were delivered, and at most until the
/// monotonic time `deadline_nanos`. Without any of these the machine sleeps for ever, as a program
/// does that waits for nothing.
///
/// It must return when interrupts were delivered: a task that is woken from here, on the runtime's
/// own thread, is put into the queue of runnable tasks without a change to the word that the runtime
/// sleeps on. A futex may end its wait for no reason at all, so this is no lie.
pub(crate) fn sleep_while(unchanged: impl Fn() -> bool, deadline_nanos: Option<u64>) -> Woken {
    let before = times_idle();
    let woken = sleep_until_changed(unchanged, deadline_nanos);
    if times_idle() != before {
        // Cloned, so that no borrow is held while the waker runs.
        if let Some(line) = BUSY.with(|busy| busy.clone()) {
            line.fire();
        }
    }
    woken
}

/// Sleeps until the monotonic time `deadline_nanos`, whatever comes between.
pub(crate) fn sleep_until(deadline_nanos: u64) {
    while sleep_while(|| true, Some(deadline_nanos)) != Woken::Deadline {}
}

fn sleep_until_changed(unchanged: impl Fn() -> bool, deadline_nanos: Option<u64>) -> Woken {
    loop {
        let interrupted = deliver_interrupts();
        if !unchanged() {
            return Woken::Changed;
        }
        if interrupted {
            return Woken::Interrupted;
        }
        let armed = match deadline_nanos {
            Some(deadline) if time::monotonic_nanos() >= deadline => return Woken::Deadline,
            Some(deadline) => Some(time::arm(deadline)),
            None => None,
        };
        TIMES_IDLE.fetch_add(1, Ordering::Relaxed);
        cpu::sleep_until_interrupt();
        if let Some(timer) = armed {
            apic::disarm(timer);
        }
    }
}
