//! Where text goes: the port that the machine has from the start, and whatever console a driver
//! attaches.

use super::board::port;
use super::cell::OneCpu;
use alloc::boxed::Box;
use core::fmt;

/// A console of a driver's: takes bytes, says whether it could.
pub type Sink = Box<dyn Fn(&[u8]) -> bool + Send>;

static SINK: OneCpu<Option<Sink>> = OneCpu::new(None);

/// Writes a program's bytes to the console.
pub fn write(bytes: &[u8]) {
    // A sink that itself writes to the console is not called again.
    let to_sink =
        || SINK.try_with(|sink| sink.as_ref().is_some_and(|sink| sink(bytes))) == Some(true);
    port::write_program(bytes, to_sink);
}

/// Sends everything that is written from now on to `sink` too, for example a virtio console. Where
/// the driver's console is the same as the port's, as on Xen, to `sink` alone.
pub fn attach(sink: Sink) {
    SINK.with(|place| *place = Some(sink));
}

/// Writes to the port alone: the way of a crash report, which trusts nothing else.
pub(crate) fn write_port(bytes: &[u8]) {
    port::write(bytes);
}

/// Formats to the port without the heap.
pub(crate) struct Port;

impl fmt::Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_port(text.as_bytes());
        Ok(())
    }
}

/// One line on the port, in the machine's name.
macro_rules! say {
    ($($text:tt)*) => {{
        use core::fmt::Write;
        let _ = writeln!($crate::image::console::Port, "fata: {}", format_args!($($text)*));
    }};
}
pub(crate) use say;
