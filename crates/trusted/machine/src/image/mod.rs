//! What exists only on the machine itself.
//!
//! Rooms, from the bottom up: [`cpu`] (instructions), [`cell`] (statics on one processor),
//! [`console`], [`entry`] (the way from the loader to `main`), [`layout`] (where everything lies),
//! [`tables`] (page tables in use), [`traps`] (exceptions and interrupts), [`apic`], [`io_apic`],
//! [`vectors`] (who owns which interrupt), [`heap`], [`thread_locals`], [`time`], [`entropy`],
//! [`idle`], [`pci`], [`devices`], [`backtrace`], [`power`], [`symbols`] (what std calls).

mod apic;
pub mod backtrace;
mod cell;
pub mod console;
mod cpu;
pub mod devices;
pub mod entropy;
mod entry;
mod heap;
pub mod idle;
mod io_apic;
mod layout;
pub mod memory;
mod pci;
pub mod power;
mod symbols;
mod tables;
mod thread_locals;
pub mod time;
mod traps;
mod vectors;

pub use layout::build_id;
pub(crate) use layout::main_stack;
