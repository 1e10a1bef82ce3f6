//! The driver's side of the virtio split virtqueue (virtio 1.2, section 2.7) as a state machine.
//!
//! A virtqueue is three arrays in memory that both sides can write at any moment: descriptors say
//! where buffers are, the *available* ring lists those offered, the *used* ring those given back.
//! The device is not believed:
//!
//! - **A private shadow** holds all that was written: how descriptors are chained, which are free,
//!   which chains are outstanding, how much of each the device may write, where the indices stand.
//!   Nothing that this side wrote is ever read back, so a device that scribbles over the rings
//!   confuses only itself.
//! - **Each allegation is read once** and checked against the shadow: the used index, and an id and
//!   a length per element. One that is wrong is a [`DeviceMisbehaved`], named and final.
//! - **A buffer is its token.** Whoever adds a chain gives it an owned token (the buffer itself);
//!   it comes back exactly once: with the used element, or from [`Queue::dismantle`].
//!
//! This crate does no I/O, knows no clock, and reaches memory only through [`RingMemory`].
//!
//! ```text
//!   add ──► outstanding ──► take_used           needs_notification: after a batch of adds
//!              │                                enable_interrupts:  before going to sleep
//!              └──► dismantle (after a reset)   disable_interrupts: while polling
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod layout;
mod queue;

pub use layout::{Layout, RingMemory, SIZE_MAX};
pub use queue::{AddError, DeviceMisbehaved, Queue, Rejected, Segment, Used};

#[cfg(test)]
mod tests;
