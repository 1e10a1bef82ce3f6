//! Where text goes: the first serial port, and whatever console a driver attaches.

use super::cell::OneCpu;
use super::cpu::{in_u8, out_u8};
use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

/// COM1 of a PC.
const PORT: u16 = 0x3f8;
/// Bytes that a 16550's FIFO takes once it says that it is empty.
const FIFO_BYTES: usize = 16;
/// How often an unready port is asked before the text is given up: under emulation this is about
/// 20 ms, after which losing text is better than losing the machine.
const READY_POLLS_MAX: u32 = 20_000;

static PRESENT: AtomicBool = AtomicBool::new(false);

/// A console of a driver's: takes bytes, says whether it could.
pub type Sink = Box<dyn Fn(&[u8]) -> bool + Send>;

static SINK: OneCpu<Option<Sink>> = OneCpu::new(None);

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

/// Writes bytes to the serial port and to the console that is attached.
pub fn write(bytes: &[u8]) {
    write_serial(bytes);
    // A sink that itself writes to the console is not called again.
    let _ = SINK.try_with(|sink| sink.as_ref().is_some_and(|sink| sink(bytes)));
}

/// Sends everything that is written from now on to `sink` too, for example a virtio console.
pub fn attach(sink: Sink) {
    SINK.with(|place| *place = Some(sink));
}

/// Writes to the serial port alone: the way of a crash report, which trusts nothing else.
pub(crate) fn write_serial(bytes: &[u8]) {
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

/// Formats to the serial port without the heap.
pub(crate) struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_serial(text.as_bytes());
        Ok(())
    }
}

/// One line on the serial port, in the machine's name.
macro_rules! say {
    ($($text:tt)*) => {{
        use core::fmt::Write;
        let _ = writeln!($crate::image::console::Serial, "fata: {}", format_args!($($text)*));
    }};
}
pub(crate) use say;
