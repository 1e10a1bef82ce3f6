//! Memory that a device reads and writes by itself.
//!
//! Two kinds, for two uses:
//!
//! - [`DmaRegion`] is shared for as long as it lives (rings, request headers). Both sides may touch
//!   it at any moment, so there is never a Rust reference into it: only volatile loads and stores.
//! - [`DmaBuffer`] changes hands (frames, sectors). It is the processor's, an ordinary `&mut [u8]`,
//!   until [`lend`](DmaBuffer::lend) turns it into a [`LentBuffer`], which has an address for the
//!   device and no bytes for anybody else, until [`take_back`](LentBuffer::take_back).
//!
//! **Freed only when it is surely safe.** Dropping a lent buffer, or a region whose address was
//! asked for, does not free its memory: a device may still write there. The memory is
//! *quarantined*, lost until the machine is powered off, and counted in [`quarantined_bytes`]. To free it, a
//! driver says so: [`LentBuffer::take_back`] when the device returned the buffer or was reset,
//! [`DmaRegion::reclaim`] when it was reset.
//!
//! In an image, memory is identity-mapped and physically contiguous: a device address is the
//! virtual address.

use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use alloc::vec::Vec;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Alignment and granularity of a [`DmaRegion`] in bytes.
pub const PAGE_BYTES: usize = 4096;

static QUARANTINED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Memory that cannot be freed, because a device may still write there: in bytes.
pub fn quarantined_bytes() -> usize {
    QUARANTINED_BYTES.load(Ordering::Relaxed)
}

/// Where a device finds shared memory. Only [`DmaRegion`] and [`LentBuffer`] produce one, so what
/// a driver can write into a descriptor is memory that was shared.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceAddress(u64);

impl DeviceAddress {
    /// The address as the device's registers and descriptors hold it.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    fn of(pointer: *mut u8) -> Self {
        // Exposed: from here on somebody else may write there.
        DeviceAddress(pointer.expose_provenance() as u64)
    }
}

impl fmt::Debug for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceAddress({:#x})", self.0)
    }
}

/// Zeroed, page-aligned memory that is shared with a device while it lives.
///
/// Offsets are in bytes. An access outside the region or not aligned to its width is a bug of the
/// driver, never of the device, and panics.
pub struct DmaRegion {
    base: NonNull<u8>,
    len: usize,
    /// A device may know the address.
    shared: core::cell::Cell<bool>,
}

// SAFETY: the region owns its memory, and nothing in it is tied to a thread. (It is not `Sync`: two
// threads could store to one place at once.)
unsafe impl Send for DmaRegion {}

macro_rules! region_accessors {
    ($($load:ident $store:ident $type:ty, $words:literal;)*) => {$(
        #[doc = concat!("Loads ", $words, ", once.")]
        pub fn $load(&self, offset: usize) -> $type {
            let from = self.place(offset, size_of::<$type>(), align_of::<$type>());
            // SAFETY: `place` checked that these bytes are in the region and aligned; no reference
            // to them exists, ever. The device may write them meanwhile: hence volatile.
            <$type>::from_le(unsafe { from.cast::<$type>().read_volatile() })
        }

        #[doc = concat!("Stores ", $words, ", once.")]
        pub fn $store(&self, offset: usize, value: $type) {
            let to = self.place(offset, size_of::<$type>(), align_of::<$type>());
            // SAFETY: as for loading.
            unsafe { to.cast::<$type>().write_volatile(value.to_le()) };
        }
    )*};
}

impl DmaRegion {
    /// A region of `len` bytes, rounded up to whole pages. If there is no memory the program ends
    /// as it does for any other allocation.
    pub fn new(len: usize) -> Self {
        let layout = Self::layout(len.max(1));
        // SAFETY: the layout's size is not zero.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
        crate::simulation::share(base.as_ptr(), layout.size());
        DmaRegion { base, len: layout.size(), shared: core::cell::Cell::new(false) }
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, PAGE_BYTES)
            .and_then(|layout| Layout::from_size_align(layout.pad_to_align().size(), PAGE_BYTES))
            .unwrap_or_else(|_| panic!("a DMA region of {len} bytes is larger than memory"))
    }

    /// Size in bytes: a multiple of [`PAGE_BYTES`].
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true; here because `len` is.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Where a device finds the byte at `offset`, which may be one past the end. From now on the
    /// memory is quarantined when the region is dropped.
    pub fn address(&self, offset: usize) -> DeviceAddress {
        assert!(offset <= self.len, "offset {offset} is outside a region of {} bytes", self.len);
        self.shared.set(true);
        // SAFETY: the offset is in the region, or one past it.
        DeviceAddress::of(unsafe { self.base.as_ptr().add(offset) })
    }

    region_accessors! {
        load_u8 store_u8 u8, "a byte";
        load_u16 store_u16 u16, "two bytes, little-endian";
        load_u32 store_u32 u32, "four bytes, little-endian";
        load_u64 store_u64 u64, "eight bytes, little-endian";
    }

    /// Copies bytes out of the region, each loaded once.
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) {
        let from = self.place(offset, into.len(), 1);
        for (at, byte) in into.iter_mut().enumerate() {
            // SAFETY: `place` checked the whole range; the device may write it: hence volatile.
            *byte = unsafe { from.add(at).read_volatile() };
        }
    }

    /// Copies bytes into the region.
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let to = self.place(offset, bytes.len(), 1);
        for (at, byte) in bytes.iter().enumerate() {
            // SAFETY: as in `copy_out`.
            unsafe { to.add(at).write_volatile(*byte) };
        }
    }

    /// Frees the memory. To be called only when no device can write there any more: none was given
    /// the address, or the device that was has been reset and its status register read 0 since
    /// (virtio 1.2, section 2.4: the device does not touch memory after that).
    pub fn reclaim(self) {
        self.shared.set(false);
    }

    fn place(&self, offset: usize, width: usize, alignment: usize) -> *mut u8 {
        let fits = offset.checked_add(width).is_some_and(|end| end <= self.len);
        assert!(
            fits && offset.is_multiple_of(alignment),
            "{width} bytes at {offset} are outside a region of {} bytes, or not aligned",
            self.len
        );
        // SAFETY: in the region, as just checked.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

impl Drop for DmaRegion {
    fn drop(&mut self) {
        if self.shared.get() {
            QUARANTINED_BYTES.fetch_add(self.len, Ordering::Relaxed);
            return;
        }
        #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
        crate::simulation::unshare(self.base.as_ptr(), self.len);
        // SAFETY: allocated in `new` with this very layout, and freed only here. No device writes
        // there: its address was never asked for, or `reclaim` was called.
        unsafe { dealloc(self.base.as_ptr(), Self::layout(self.len)) };
    }
}

impl fmt::Debug for DmaRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaRegion({} bytes)", self.len)
    }
}

/// Bytes that can be lent to a device; at the moment they are the processor's.
///
/// It is a part of a `Vec<u8>`, the whole unless said otherwise, so that storage which came from
/// elsewhere (sectors to write) reaches the device without a copy.
pub struct DmaBuffer {
    storage: Vec<u8>,
    /// Invariant: inside `storage`.
    part: Range<usize>,
}

impl DmaBuffer {
    /// A buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        Self::from_vec(alloc::vec![0; len])
    }

    /// A buffer of all bytes of `storage`.
    pub fn from_vec(storage: Vec<u8>) -> Self {
        let part = 0..storage.len();
        DmaBuffer { storage, part }
    }

    /// A buffer of `part` of the bytes of `storage`; `None` if they are not all in it.
    pub fn from_part(storage: Vec<u8>, part: Range<usize>) -> Option<Self> {
        storage.get(part.clone())?;
        Some(DmaBuffer { storage, part })
    }

    /// The storage and which part of it this buffer was.
    pub fn into_parts(self) -> (Vec<u8>, Range<usize>) {
        (self.storage, self.part)
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.part.end - self.part.start
    }

    /// True if the buffer has no bytes.
    pub fn is_empty(&self) -> bool {
        self.part.is_empty()
    }

    /// Hands the bytes to a device. Nobody can look at them until they are taken back.
    pub fn lend(self) -> LentBuffer {
        let mut storage = ManuallyDrop::new(self.storage);
        let (base, len, capacity) = (storage.as_mut_ptr(), storage.len(), storage.capacity());
        #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
        crate::simulation::share(base.wrapping_add(self.part.start), self.part.len());
        LentBuffer { base, len, capacity, part: self.part }
    }
}

impl core::ops::Deref for DmaBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.storage[self.part.clone()]
    }
}

impl core::ops::DerefMut for DmaBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.part.clone()]
    }
}

impl fmt::Debug for DmaBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaBuffer({} bytes)", self.len())
    }
}

/// A [`DmaBuffer`] that a device has. Dropping it quarantines the memory.
#[must_use = "dropping a lent buffer quarantines its memory"]
pub struct LentBuffer {
    /// The three parts of the `Vec<u8>` that the buffer was made of. Kept apart, for as long as a
    /// device may write no `Vec` (and no reference) to the bytes may exist.
    base: *mut u8,
    len: usize,
    capacity: usize,
    part: Range<usize>,
}

// SAFETY: it owns its memory as the `Vec<u8>` that it was did, and a `Vec<u8>` is `Send`.
unsafe impl Send for LentBuffer {}
// SAFETY: nothing can be reached through a shared reference but numbers.
unsafe impl Sync for LentBuffer {}

impl LentBuffer {
    /// Where the device finds the first byte.
    pub fn address(&self) -> DeviceAddress {
        DeviceAddress::of(self.base.wrapping_add(self.part.start))
    }

    /// Where the device finds the byte at `offset`; `None` if the buffer has no such byte.
    pub fn address_at(&self, offset: usize) -> Option<DeviceAddress> {
        (offset < self.len()).then(|| {
            DeviceAddress::of(self.base.wrapping_add(self.part.start).wrapping_add(offset))
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.part.end - self.part.start
    }

    /// True if the buffer has no bytes.
    pub fn is_empty(&self) -> bool {
        self.part.is_empty()
    }

    /// Makes the bytes the processor's again. To be called only when the device returned the
    /// buffer, was never told of it, or has been reset and its status register read 0 since.
    pub fn take_back(self) -> DmaBuffer {
        let this = ManuallyDrop::new(self);
        #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
        crate::simulation::unshare(this.base.wrapping_add(this.part.start), this.part.len());
        // SAFETY: these are the parts of the `Vec<u8>` that `lend` took apart, and `self` (which
        // is not dropped) was their only owner. All `len` bytes are initialised: a device writes
        // bytes, and every byte is a valid `u8`.
        let storage = unsafe { Vec::from_raw_parts(this.base, this.len, this.capacity) };
        DmaBuffer { storage, part: this.part.clone() }
    }
}

impl Drop for LentBuffer {
    fn drop(&mut self) {
        QUARANTINED_BYTES.fetch_add(self.capacity, Ordering::Relaxed);
    }
}

impl fmt::Debug for LentBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LentBuffer({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests;
