//! Xen's hypercalls, event channels and grant tables as a safe interface.
//!
//! A guest reaches Xen and the other domains in three ways, and this crate is the only one that
//! uses them: it *calls* the hypervisor; it *notifies* another domain, and is notified, through an
//! event channel ([`EventChannel`]); and it *shares pages* with another domain, by granting its own
//! ([`Granted`]) or by mapping or copying what was granted to it ([`Mapped`], [`CopyOperation`]).
//! Everything starts at a [`Hypervisor`].
//!
//! What another domain may change at any moment is seen through a [`Window`] alone: volatile loads
//! and stores that are checked against its size, never a reference.
//!
//! # Two halves
//! The types of this interface say what is owned, counted and given back; how it is done is said in
//! the private trait `half::Half`, and there are two of it:
//!
//! | half | where | what |
//! |---|---|---|
//! | `image` | `fata_target = "xen"` | the real hypercalls; made by the machine with `image::start` |
//! | `simulation` | every other build | `simulation::World`: several domains in one process, with memory that they really share, for tests of drivers against each other |
//!
//! `SOUNDNESS.md` argues why this is sound. Names and numbers are those of Xen's public headers
//! (`xen/include/public`), which the types' documentation cites.
#![cfg_attr(not(test), no_std)]

extern crate alloc;
#[cfg(all(not(test), not(any(fata_target = "virtio", fata_target = "xen"))))]
extern crate std;

mod copy;
#[cfg(any(test, fata_target = "xen"))]
#[cfg_attr(test, allow(dead_code, reason = "the table itself is only in an image"))]
mod entry;
mod error;
mod event;
mod grant;
mod half;
mod hypervisor;
mod lock;
#[cfg(any(test, fata_target = "xen"))]
mod runs;
mod types;
mod window;

#[cfg(fata_target = "xen")]
pub mod image;
#[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
pub mod simulation;

pub use copy::{CopyData, CopyOperation};
pub use error::{HypercallError, grant_status_words};
pub use event::EventChannel;
pub use grant::{Granted, Mapped, SpecialPage};
pub use hypervisor::Hypervisor;
pub use types::{
    Access, Counters, DomainId, GrantRef, Port, Reservation, ShutdownReason, Suspended,
};
pub use window::{PAGE_BYTES, Window};
