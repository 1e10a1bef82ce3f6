//! Shared rings: how a frontend and a backend pass requests and responses to each other.
//!
//! [`core`] is the ring itself (Xen's `io/ring.h`), both ends; beside it stand the entries of each
//! protocol, which are plain codecs, and what a sequence of entries may say.
//!
//! - Network: [`net`] (Xen's `io/netif.h`), [`net_transmit`], [`net_receive`].

pub mod block;
pub mod bytes;
pub mod core;
pub mod net;
pub mod net_receive;
pub mod net_transmit;

#[cfg(test)]
pub(crate) mod simulation;
