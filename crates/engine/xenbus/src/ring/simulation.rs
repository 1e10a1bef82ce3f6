//! Pages that two ends of a test share.

use crate::Memory;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

/// Memory that its clones share.
#[derive(Clone, Debug)]
pub(crate) struct SharedMemory(Rc<RefCell<Vec<u8>>>);

impl SharedMemory {
    /// Full of what must not be read before it was written.
    pub(crate) fn new(bytes: usize) -> Self {
        SharedMemory(Rc::new(RefCell::new(vec![0xa5; bytes])))
    }

    fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        assert_eq!(offset % N, 0, "{offset} is not aligned to {N}");
        self.0.borrow()[offset..offset + N].try_into().unwrap()
    }

    fn set<const N: usize>(&self, offset: usize, bytes: [u8; N]) {
        assert_eq!(offset % N, 0, "{offset} is not aligned to {N}");
        self.copy_in(offset, &bytes);
    }
}

impl Memory for SharedMemory {
    fn len(&self) -> usize {
        self.0.borrow().len()
    }
    fn load_u8(&self, offset: usize) -> u8 {
        self.0.borrow()[offset]
    }
    fn load_u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.get(offset))
    }
    fn load_u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.get(offset))
    }
    fn load_u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.get(offset))
    }
    fn store_u8(&self, offset: usize, value: u8) {
        self.set(offset, [value]);
    }
    fn store_u16(&self, offset: usize, value: u16) {
        self.set(offset, value.to_le_bytes());
    }
    fn store_u32(&self, offset: usize, value: u32) {
        self.set(offset, value.to_le_bytes());
    }
    fn store_u64(&self, offset: usize, value: u64) {
        self.set(offset, value.to_le_bytes());
    }
    fn copy_out(&self, offset: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.0.borrow()[offset..offset + into.len()]);
    }
    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.0.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    fn fetch_or_u8(&self, offset: usize, bits: u8) -> u8 {
        let before = self.load_u8(offset);
        self.store_u8(offset, before | bits);
        before
    }
    fn fetch_and_u8(&self, offset: usize, bits: u8) -> u8 {
        let before = self.load_u8(offset);
        self.store_u8(offset, before & bits);
        before
    }
    fn barrier(&self) {}
}
