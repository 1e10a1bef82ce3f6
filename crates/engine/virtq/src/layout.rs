//! Where the parts of a queue lie in its memory (virtio 1.2, sections 2.7.5, 2.7.6 and 2.7.8).

/// The largest number of descriptors in a queue (virtio 1.2, section 2.7).
pub const SIZE_MAX: u16 = 32768;

/// The memory of one queue, as the queue needs it: loads and stores that happen exactly once, in
/// program order, little-endian. Offsets are in bytes, within the length that [`Layout::len`]
/// gives, and aligned to the width of the access.
pub trait RingMemory {
    /// What says to the device where a buffer is. The queue only passes it on.
    type Address: Copy;

    /// Loads two bytes.
    fn load_u16(&self, offset: usize) -> u16;
    /// Loads four bytes.
    fn load_u32(&self, offset: usize) -> u32;
    /// Stores two bytes.
    fn store_u16(&self, offset: usize, value: u16);
    /// Stores four bytes.
    fn store_u32(&self, offset: usize, value: u32);
    /// Stores the eight bytes by which the device knows `address`.
    fn store_address(&self, offset: usize, address: Self::Address);
}

/// Where the three parts of a queue of a given size lie, counted from the start of its memory,
/// which must be zeroed and aligned to 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    size: u16,
}

impl Layout {
    /// The layout of a queue with `size` descriptors: a power of two, 1 to [`SIZE_MAX`].
    pub const fn new(size: u16) -> Option<Self> {
        if size.is_power_of_two() && size <= SIZE_MAX { Some(Layout { size }) } else { None }
    }

    /// Number of descriptors.
    pub const fn size(self) -> u16 {
        self.size
    }

    /// Length of the whole in bytes.
    pub const fn len(self) -> usize {
        self.avail_event() + 2
    }

    /// Never true; here because `len` is.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Start of the descriptor table: `{ address: u64, len: u32, flags: u16, next: u16 }` each.
    pub const fn descriptors(self) -> usize {
        0
    }

    /// Start of the available ring: `{ flags: u16, idx: u16, ring: [u16; size], used_event: u16 }`.
    pub const fn available(self) -> usize {
        16 * self.size as usize
    }

    /// Start of the used ring:
    /// `{ flags: u16, idx: u16, ring: [{ id: u32, len: u32 }; size], avail_event: u16 }`.
    pub const fn used(self) -> usize {
        // Behind the available ring, on the next multiple of 4.
        (self.available() + 6 + 2 * self.size as usize).next_multiple_of(4)
    }

    pub(crate) const fn descriptor(self, index: u16) -> usize {
        16 * index as usize
    }

    pub(crate) const fn available_flags(self) -> usize {
        self.available()
    }

    pub(crate) const fn available_idx(self) -> usize {
        self.available() + 2
    }

    pub(crate) const fn available_element(self, position: u16) -> usize {
        self.available() + 4 + 2 * (position & (self.size - 1)) as usize
    }

    pub(crate) const fn used_event(self) -> usize {
        self.available() + 4 + 2 * self.size as usize
    }

    pub(crate) const fn used_flags(self) -> usize {
        self.used()
    }

    pub(crate) const fn used_idx(self) -> usize {
        self.used() + 2
    }

    pub(crate) const fn used_element(self, position: u16) -> usize {
        self.used() + 4 + 8 * (position & (self.size - 1)) as usize
    }

    pub(crate) const fn avail_event(self) -> usize {
        self.used() + 4 + 8 * self.size as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes and alignments of the table in virtio 1.2, section 2.7.
    #[test]
    fn parts_have_the_sizes_and_alignments_of_the_specification() {
        for size in (0..=15).map(|power| 1u16 << power) {
            let layout = Layout::new(size).unwrap();
            let n = usize::from(size);
            assert!(layout.available() - layout.descriptors() >= 16 * n);
            assert!(layout.used() - layout.available() >= 6 + 2 * n);
            assert_eq!(layout.len() - layout.used(), 6 + 8 * n);
            assert_eq!((layout.available() % 2, layout.used() % 4), (0, 0));
        }
    }

    #[test]
    fn a_size_that_is_no_power_of_two_is_refused() {
        for size in [0, 3, 255, 32769, u16::MAX] {
            assert_eq!(Layout::new(size), None);
        }
    }
}
