//! The windows that Fata's safe drivers look through.
//!
//! Memory that a device may write at any moment, device registers, and interrupt lines, each as a
//! type whose methods do not break Rust's rules whatever the other side does. Everything here is
//! made by the machine (or a test) and used by drivers.
//!
//! | module | what it gives | what it keeps a driver from |
//! |---|---|---|
//! | [`dma`] | memory shared with a device | looking at, or freeing, bytes that a device still owns |
//! | [`registers`] | a window on device registers | reaching past the window |
//! | [`interrupt`] | a line that a device fires | losing a wake-up |
//! | [`pci`] | what a driver may ask of a PCI function | touching another function |
//!
//! On a host build (no `fata_target`) the same types can be backed by a device model that runs in
//! the test's process, see [`simulation`]: the real drivers run over it unchanged.
//!
//! See `SOUNDNESS.md` for the argument.
#![no_std]

extern crate alloc;
#[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
extern crate std;

pub mod dma;
pub mod interrupt;
pub mod note;
pub mod pci;
pub mod registers;
#[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
pub mod simulation;
