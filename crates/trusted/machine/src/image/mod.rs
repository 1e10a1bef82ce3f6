//! What exists only on the machine itself.
//!
//! Rooms, from the bottom up: [`cpu`] (instructions), [`cell`] (statics on one processor),
//! [`console`], [`entry`] (the way from the loader to `main`), [`layout`] (where everything lies),
//! [`tables`] (page tables in use), [`traps`] (exceptions), [`heap`], [`thread_locals`], [`time`],
//! [`entropy`], [`idle`], [`backtrace`], [`power`], [`symbols`] (what std calls).
//!
//! What differs between targets is behind one name, [`board`]: `pc` for virtio (serial port, APICs,
//! PCI, the PC's clocks), `xen` for Xen (console ring, event channels, Xen's clock).

pub mod backtrace;
mod cell;
pub mod console;
mod cpu;
pub mod entropy;
mod entry;
mod heap;
pub mod idle;
mod layout;
pub mod memory;
pub mod power;
mod symbols;
mod tables;
mod thread_locals;
pub mod time;
mod traps;

// What the machine consists of apart from a processor and memory. Each of these offers the same to
// the rooms above: `Board`, `Clocks`, `port`, `power`, `interrupt_handler`, `deliver_interrupts`,
// `sleep_until_interrupt`.
#[cfg(fata_target = "virtio")]
mod pc;
#[cfg(fata_target = "xen")]
pub mod xen;
#[cfg(fata_target = "virtio")]
use pc as board;
#[cfg(fata_target = "xen")]
use xen as board;

pub use layout::build_id;
pub(crate) use layout::main_stack;
#[cfg(fata_target = "virtio")]
pub use pc::devices;
