//! The first serial port of a PC: where text goes before there is a driver, and always.

use super::super::cpu::{in_u8, out_u8};
use core::sync::atomic::{AtomicBool, Ordering};

/// COM1 of a PC.
const PORT: u16 = 0x3f8;
/// Bytes that a 16550's FIFO takes once it says that it is empty.
const FIFO_BYTES: usize = 16;
/// How often an unready port is asked before the text is given up: under emulation this is about
/// 20 ms, after which losing text is better than losing the machine.
const READY_POLLS_MAX: u32 = 20_000;

static PRESENT: AtomicBool = AtomicBool::new(false);

/// Sets up the serial port, if there is one: 115,200 baud, 8 bits, FIFO on, no interrupts.
pub(crate) fn init() {
    // SAFETY: these are a 16550's own registers; it does no DMA. Where there is none, nobody answers.
    unsafe {
        out_u8(PORT + 7, 0x5a);
        if in_u8(PORT + 7) != 0x5a {
            return;
        }
        for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
            out_u8(PORT + register, value);
        }
    }
    PRESENT.store(true, Ordering::Relaxed);
}

/// Writes to the port; nowhere if there is none.
pub(crate) fn write(bytes: &[u8]) {
    if !PRESENT.load(Ordering::Relaxed) {
        return;
    }
    for chunk in bytes.chunks(FIFO_BYTES) {
        // SAFETY: as in `init`. Bit 5 of the line status says that the FIFO is empty.
        let is_ready = || unsafe { in_u8(PORT + 5) } & 0x20 != 0;
        if !(0..READY_POLLS_MAX).any(|_| is_ready()) {
            return;
        }
        for &byte in chunk {
            // SAFETY: as in `init`.
            unsafe { out_u8(PORT, byte) }
        }
    }
}

/// Writes a program's bytes: to the port, and to the console of a driver's.
pub(crate) fn write_program(bytes: &[u8], to_sink: impl FnOnce() -> bool) {
    write(bytes);
    to_sink();
}
