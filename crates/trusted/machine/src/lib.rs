//! The machine under a Fata image: an x86-64 processor with nothing between it and the program.
//!
//! An image is an ordinary Rust program, compiled for the host's Linux target and linked without a
//! libc. Somebody has to do what the kernel and the libc do elsewhere: enter from the boot loader,
//! lay out memory, take interrupts, tell the time, give random numbers, sleep when there is nothing
//! to do, and answer the few C symbols that `std` is built on (`docs/symbols.md` lists them). That is
//! this crate, and nearly all of Fata's `unsafe` is here; `SOUNDNESS.md` argues why it is sound.
//!
//! What can be computed without a machine is in modules that also compile, and are tested, on the
//! host. What cannot is in `image`, which exists only when the build is for an image
//! (`--cfg fata_target="virtio"` or `"xen"`).
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod acpi;
pub mod command_line;
pub mod elf;
pub mod exit_code;
pub mod memory_map;
pub mod paging;
pub mod pci_config;
pub mod pvclock;
pub mod rtc;
pub mod scale;

#[cfg(any(fata_target = "virtio", fata_target = "xen"))]
mod image;
#[cfg(fata_target = "virtio")]
pub use image::devices;
#[cfg(fata_target = "xen")]
pub use image::xen;
#[cfg(any(fata_target = "virtio", fata_target = "xen"))]
pub use image::{backtrace, build_id, console, entropy, idle, memory, power, time};
