//! What two Xen domains say to each other, as state machines.
//!
//! A device on Xen is two drivers in two domains: the *frontend* in the guest that uses it and the
//! *backend* in the domain that has it. They find each other through XenStore, a small tree of keys
//! with watches; they agree there on pages and an event channel; then they talk through rings in
//! those pages. Three rooms, in that order:
//!
//! - [`store`]: XenStore's wire format and a client;
//! - [`handshake`]: the states that both ends go through, for each kind of device;
//! - [`ring`]: the rings themselves, and [`vchan`], a byte stream over two of them.
//!
//! Nothing here does I/O or knows a clock. The other end is not believed: each of its words is read
//! once, checked, and copied, and one that breaks the rules is an error that says which.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod handshake;
pub mod ring;
pub mod store;
pub mod vchan;

/// A point in time: nanoseconds since some beginning that the caller chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The instant `nanos` nanoseconds later; the end of time instead of an overflow.
    pub const fn after_nanos(self, nanos: u64) -> Self {
        Instant(self.0.saturating_add(nanos))
    }
}

/// Memory that is shared with another domain, which may change it at any moment. Every load and
/// store happens exactly once, little-endian, and in the order of the calls as far as the compiler
/// is concerned.
///
/// Offsets are the caller's own and never the other end's: an offset outside the memory may panic.
pub trait Memory {
    /// Size in bytes.
    fn len(&self) -> usize;
    /// True if there is no memory.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Loads a byte.
    fn load_u8(&self, offset: usize) -> u8;
    /// Loads two bytes; `offset` is a multiple of 2.
    fn load_u16(&self, offset: usize) -> u16;
    /// Loads four bytes; `offset` is a multiple of 4.
    fn load_u32(&self, offset: usize) -> u32;
    /// Loads eight bytes; `offset` is a multiple of 8.
    fn load_u64(&self, offset: usize) -> u64;
    /// Stores a byte.
    fn store_u8(&self, offset: usize, value: u8);
    /// Stores two bytes; `offset` is a multiple of 2.
    fn store_u16(&self, offset: usize, value: u16);
    /// Stores four bytes; `offset` is a multiple of 4.
    fn store_u32(&self, offset: usize, value: u32);
    /// Stores eight bytes; `offset` is a multiple of 8.
    fn store_u64(&self, offset: usize, value: u64);
    /// Copies out of the memory.
    fn copy_out(&self, offset: usize, into: &mut [u8]);
    /// Copies into the memory.
    fn copy_in(&self, offset: usize, bytes: &[u8]);
    /// Sets bits of a byte that the other end changes too, in one step that nothing of its comes
    /// between; returns the byte as it was. A full barrier, as [`barrier`](Memory::barrier).
    fn fetch_or_u8(&self, offset: usize, bits: u8) -> u8;
    /// Keeps only `bits` of a byte that the other end changes too, in one step that nothing of its
    /// comes between; returns the byte as it was. A full barrier, as [`barrier`](Memory::barrier).
    fn fetch_and_u8(&self, offset: usize, bits: u8) -> u8;
    /// All that was stored before is visible to the other end before anything stored or loaded
    /// after (Xen's `xen_mb`).
    fn barrier(&self);
}
