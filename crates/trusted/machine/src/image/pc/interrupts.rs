//! The interrupts of a PC: a bit for each vector, which the handler sets and nothing else.

use super::super::traps::INTERRUPT_STACK;
use core::arch::global_asm;
use core::sync::atomic::AtomicU64;

/// A bit for each vector whose interrupt came and was not delivered to its line yet.
pub(super) static PENDING: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// The address of the local APIC's end-of-interrupt register; 0 when it is an MSR (x2APIC).
pub(super) static END_OF_INTERRUPT: AtomicU64 = AtomicU64::new(0);

global_asm!(
    include_str!("interrupts.s"),
    pending = sym PENDING,
    end_of_interrupt = sym END_OF_INTERRUPT,
);

unsafe extern "C" {
    static fata_interrupt_stubs: u8;
    static fata_spurious_stub: u8;
}

/// Bytes of a stub in `interrupts.s`.
const STUB_BYTES: u64 = 16;
/// The vector for interrupts that went away.
pub(super) const SPURIOUS_VECTOR: u8 = 255;

/// Where the handler of a vector starts, and the number of its stack.
pub(crate) fn interrupt_handler(vector: u8) -> Option<(u64, u8)> {
    let stubs = &raw const fata_interrupt_stubs as u64;
    let handler = match vector {
        SPURIOUS_VECTOR => &raw const fata_spurious_stub as u64,
        32.. => stubs + u64::from(vector - 32) * STUB_BYTES,
        _ => return None,
    };
    Some((handler, INTERRUPT_STACK))
}
