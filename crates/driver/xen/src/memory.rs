//! [`Shared`]: pages that two domains share, as the engines see memory.

use core::sync::atomic::{Ordering, fence};
use fata_hypercall::Window;
use fata_xenbus::Memory;

/// A [`Window`] of the hypervisor's as the [`Memory`] of a ring.
#[derive(Debug)]
pub struct Shared<W>(pub W);

impl<W: Window> Memory for Shared<W> {
    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }
    #[inline]
    fn load_u8(&self, offset: usize) -> u8 {
        self.0.load_u8(offset)
    }
    #[inline]
    fn load_u16(&self, offset: usize) -> u16 {
        self.0.load_u16(offset)
    }
    #[inline]
    fn load_u32(&self, offset: usize) -> u32 {
        self.0.load_u32(offset)
    }
    #[inline]
    fn load_u64(&self, offset: usize) -> u64 {
        self.0.load_u64(offset)
    }
    #[inline]
    fn store_u8(&self, offset: usize, value: u8) {
        self.0.store_u8(offset, value);
    }
    #[inline]
    fn store_u16(&self, offset: usize, value: u16) {
        self.0.store_u16(offset, value);
    }
    #[inline]
    fn store_u32(&self, offset: usize, value: u32) {
        self.0.store_u32(offset, value);
    }
    #[inline]
    fn store_u64(&self, offset: usize, value: u64) {
        self.0.store_u64(offset, value);
    }
    #[inline]
    fn copy_out(&self, offset: usize, into: &mut [u8]) {
        self.0.copy_out(offset, into);
    }
    #[inline]
    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.0.copy_in(offset, bytes);
    }
    #[inline]
    fn fetch_or_u8(&self, offset: usize, bits: u8) -> u8 {
        self.0.fetch_or_u8(offset, bits)
    }
    #[inline]
    fn fetch_and_u8(&self, offset: usize, bits: u8) -> u8 {
        self.0.fetch_and_u8(offset, bits)
    }
    #[inline]
    fn barrier(&self) {
        fence(Ordering::SeqCst);
    }
}
