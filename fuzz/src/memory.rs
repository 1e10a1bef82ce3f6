//! [`Shared`]: pages in which an adversary writes at any moment.

use std::cell::RefCell;
use std::rc::Rc;

/// Memory that its clones share.
///
/// The adversary may also set a [trap](Shared::trap): a write that happens between two loads of the
/// victim's. So a victim that loads a word twice, and checks only one of the two, is found.
#[derive(Clone, Debug)]
pub struct Shared(Rc<RefCell<Pages>>);

#[derive(Debug)]
struct Pages {
    bytes: Vec<u8>,
    /// How many loads from now, where, and what.
    traps: Vec<(u32, usize, u32)>,
}

impl Shared {
    /// So many bytes, full of what must not be read before it was written.
    pub fn new(bytes: usize) -> Self {
        Shared(Rc::new(RefCell::new(Pages { bytes: vec![0xa5; bytes], traps: Vec::new() })))
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.0.borrow().bytes.len()
    }

    /// Loads `N` bytes; afterwards, traps that were set for this load happen.
    pub fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        assert_eq!(offset % N, 0, "{offset} is not aligned to {N}");
        let mut word = [0; N];
        self.read(offset, &mut word);
        word
    }

    /// Stores `N` bytes.
    pub fn set<const N: usize>(&self, offset: usize, word: [u8; N]) {
        assert_eq!(offset % N, 0, "{offset} is not aligned to {N}");
        self.write(offset, &word);
    }

    /// Copies out.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let pages = &mut *self.0.borrow_mut();
        into.copy_from_slice(&pages.bytes[offset..offset + into.len()]);
        pages.traps.retain_mut(|(loads, offset, word)| {
            *loads -= 1;
            if *loads == 0 {
                pages.bytes[*offset..*offset + 4].copy_from_slice(&word.to_le_bytes());
            }
            *loads > 0
        });
    }

    /// Copies in.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.0.borrow_mut().bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// The adversary's store, anywhere: the offset is cut to what there is.
    pub fn scribble(&self, offset: usize, word: u32) {
        self.set(self.place(offset), word.to_le_bytes());
    }

    /// As [`scribble`](Shared::scribble), but behind the load that comes as the `loads`th, at least
    /// the first.
    pub fn trap(&self, loads: u32, offset: usize, word: u32) {
        let place = self.place(offset);
        let traps = &mut self.0.borrow_mut().traps;
        if traps.len() < 16 {
            traps.push((loads.max(1), place, word));
        }
    }

    fn place(&self, offset: usize) -> usize {
        (offset % (self.size() - 3)) & !3
    }
}

impl fata_xenbus::Memory for Shared {
    fn len(&self) -> usize {
        self.size()
    }
    fn load_u8(&self, offset: usize) -> u8 {
        u8::from_le_bytes(self.get(offset))
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
        self.set(offset, value.to_le_bytes());
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
        self.read(offset, into);
    }
    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.write(offset, bytes);
    }
    fn fetch_or_u8(&self, offset: usize, bits: u8) -> u8 {
        let [before] = self.get(offset);
        self.set(offset, [before | bits]);
        before
    }
    fn fetch_and_u8(&self, offset: usize, bits: u8) -> u8 {
        let [before] = self.get(offset);
        self.set(offset, [before & bits]);
        before
    }
    fn barrier(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_changes_what_the_second_load_sees() {
        let memory = Shared::new(16);
        memory.set(4, 1u32.to_le_bytes());
        memory.trap(2, 4, 9);
        let load = || u32::from_le_bytes(memory.get(4));
        assert_eq!([load(), load(), load(), load()], [1, 1, 9, 9]);
    }

    #[test]
    fn scribbles_stay_inside() {
        let memory = Shared::new(10);
        (0..100).for_each(|offset| memory.scribble(offset, u32::MAX));
        assert_eq!(memory.get(0), [0xff; 8]);
        assert_eq!(memory.get(8), [0xa5, 0xa5]);
    }
}
