//! XenStore, the tree of keys through which domains find each other's devices.
//!
//! `xenstored` serves it to every guest over a page with two byte rings of 1024 bytes. Guests read
//! and write small values, list, watch, and group changes into transactions. Terms and numbers are
//! those of Xen's public headers `io/xs_wire.h` and of `docs/misc/xenstore.txt`.
//!
//! - [`path`]: what a path may be;
//! - [`wire`]: messages and how they are cut out of a stream of bytes;
//! - [`request`]: what is inside of them, for the one that asks and the one that answers;
//! - [`client`]: which answer belongs to whom, and which watches have fired.
//!
//! `xenstored` is trusted with what it stores and with nothing else: its lengths, types and names
//! are checked, and a watch that fires without end costs one bit.

pub mod client;
mod error;
pub mod path;
pub mod request;
pub mod wire;

pub use client::{Client, Event, Limits, RequestId, WatchToken};
pub use error::{Errno, Misbehaved, StoreError};
pub use request::{Access, Permission, Reply, Request};
pub use wire::{Kind, Message, TransactionId};

#[cfg(test)]
mod tests;
