//! The device traits of Fata and their contracts.
//!
//! A trait here says what a driver promises and what a service may rely on, and nothing else:
//! there is no implementation, and above all **no constructor**. A program that is generic over
//! [`Nic`] or [`Block`] can use a device that it was given, and cannot open one; only the wiring
//! of a target (which `#[derive(fata::Devices)]` writes) or a test introduces a driver to a
//! service.
//!
//! | trait | what it is | who implements it | who uses it |
//! |---|---|---|---|
//! | [`Nic`] | a network interface: Ethernet frames in and out | virtio-net, TAP | the stack in `fata-net` |
//! | [`Block`] | a disk: sectors | virtio-blk, a file | programs |
//! | [`Sockets`] | a TCP and UDP service that exists already | the Unix host | `fata-net`, in place of the stack |
//!
//! Each contract's test suite sits beside it, in [`contract`]: one test per sentence of the
//! contract, run on every backend.
#![forbid(unsafe_code)]

pub mod block;
pub mod contract;
pub mod nic;
pub mod sockets;

pub use block::{Block, BlockError, Geometry, SectorBuffer};
pub use nic::{
    Checksum, IpFamily, MacAddress, Nic, NicError, Offloads, PartialChecksum, Received,
    Segmentation, Transmit,
};
pub use sockets::{ByteStream, DatagramSocket, Keepalive, Listener, Sockets};

use core::future::Future;
use core::pin::Pin;

/// A future on the heap, so that the traits here can be used as trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
