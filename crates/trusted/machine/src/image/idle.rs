//! Doing nothing, well: the processor halts until an interrupt or a deadline.
//!
//! The program sleeps when its only thread waits for a futex word to change (tokio's park point, a
//! `thread::sleep`, a contended lock). Only the waker of a device's line can then change it, so the
//! loop here is: deliver interrupts (wake their lines), look at the word, look at the clock, sleep.
//! Interrupts are off between the look and the sleep, and `sti; hlt` lets none slip through between
//! them, so no wake-up is lost; and whatever woke the processor, the word and the clock decide.
//!
//! Wakers are called as a thread of their own (see `thread_locals`). Called as the program's,
//! they would be taken for the parked thread waking itself, which runtimes leave out as impossible.

use super::console::say;
use super::{backtrace, board, power, tables, thread_locals, time};
use crate::exit_code;
use core::sync::atomic::{AtomicU64, Ordering};

static TIMES_IDLE: AtomicU64 = AtomicU64::new(0);

/// Takes the interrupts that are pending and wakes the lines that they belong to. True if there were
/// any. Cheap when there are none: a few instructions, no exit to the hypervisor.
///
/// Not to be called while holding a lock that a waker may want.
pub fn deliver_interrupts() -> bool {
    board::deliver_interrupts()
}

/// How often the machine has gone to sleep since it started.
pub fn times_idle() -> u64 {
    TIMES_IDLE.load(Ordering::Relaxed)
}

/// Why [`sleep_while`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The condition holds no longer.
    Changed,
    /// The deadline has passed.
    Deadline,
}

/// Sleeps as long as `unchanged` says so, and at most until the monotonic time `deadline_nanos`.
/// Without either end the machine sleeps for ever, as a program does that waits for nothing.
///
/// A waker that itself waits, for a lock that the program holds while it sleeps, would wait for ever:
/// the program cannot go on before the waker is done. That ends the machine, in words.
pub(crate) fn sleep_while(unchanged: impl Fn() -> bool, deadline_nanos: Option<u64>) -> Woken {
    if deadline_nanos.is_none() && thread_locals::is_delivering() && unchanged() {
        say!("a waker waits for a lock that the program holds while it sleeps: neither can go on");
        backtrace::print();
        power::die(exit_code::EXCEPTION);
    }
    loop {
        deliver_interrupts();
        if !unchanged() {
            return Woken::Changed;
        }
        match deadline_nanos {
            Some(deadline) if time::monotonic_nanos() >= deadline => return Woken::Deadline,
            Some(deadline) => time::arm(deadline),
            None => {}
        }
        TIMES_IDLE.fetch_add(1, Ordering::Relaxed);
        tables::refresh_emulated_tlb(time::monotonic_nanos());
        board::sleep_until_interrupt();
    }
}
