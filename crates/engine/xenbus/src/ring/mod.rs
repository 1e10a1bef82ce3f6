//! Shared rings: how a frontend and a backend pass requests and responses to each other.
//!
//! [`core`] is the ring itself (Xen's `io/ring.h`), both ends; beside it stand the entries of each
//! protocol, which are plain codecs, and what a sequence of entries may say.

pub mod block;
pub mod bytes;
pub mod core;

#[cfg(test)]
pub(crate) mod simulation;
