//! Which interrupt vector belongs to which line.

use super::super::cell::OneCpu;
use super::super::thread_locals;
use super::apic::{self, TIMER_VECTOR};
use super::interrupts::{PENDING, SPURIOUS_VECTOR};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use fata_shared::interrupt::Line;

/// The first vector for devices.
const FIRST: u8 = TIMER_VECTOR + 1;
/// How many there are: more than a machine of ours has queues. Past it, `OutOfVectors`.
const COUNT_MAX: usize = (SPURIOUS_VECTOR - FIRST) as usize;

static LINES: OneCpu<Vec<Line>> = OneCpu::new(Vec::new());

/// `count` vectors in a row, each with a new line; `None` when there are not so many left.
pub(crate) fn allocate(count: usize) -> Option<(u8, Vec<Line>)> {
    LINES.with(|lines| {
        let first = lines.len();
        if count > COUNT_MAX - first {
            return None;
        }
        let new: Vec<Line> = (0..count).map(|_| Line::new()).collect();
        lines.extend(new.iter().cloned());
        Some((FIRST + first as u8, new))
    })
}

/// Fires the lines whose interrupts came, as a thread of its own. Says whether there were any.
pub(crate) fn deliver() -> bool {
    if PENDING.iter().all(|pending| pending.load(Ordering::Relaxed) == 0) {
        return false;
    }
    thread_locals::as_delivery(fire_pending);
    true
}

extern "C" fn fire_pending() {
    for (word, pending) in PENDING.iter().enumerate() {
        let mut bits = pending.swap(0, Ordering::Acquire);
        while bits != 0 {
            let vector = word * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            if vector == usize::from(TIMER_VECTOR) {
                apic::note_timer();
            }
            // Cloned, so that no borrow is held while the waker, which is anybody's code, runs.
            let line = vector
                .checked_sub(usize::from(FIRST))
                .and_then(|index| LINES.with(|lines| lines.get(index).cloned()));
            if let Some(line) = line {
                line.fire();
            }
        }
    }
}
