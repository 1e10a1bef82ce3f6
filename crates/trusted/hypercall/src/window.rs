//! Memory that another domain may change at any moment.
//!
//! Nobody ever has a reference to it. What is loaded is loaded once, what is stored is stored once,
//! little-endian, by accesses that the compiler neither repeats nor leaves out nor tears; long
//! copies are assembly, which says nothing to the compiler about the bytes but that they may change.

use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

/// Bytes of a page: what grants and mappings are counted in.
pub const PAGE_BYTES: usize = 4096;

/// A window on memory that is shared with another domain.
///
/// Offsets are in bytes and the caller's own, never the other domain's: one outside the window, or
/// not a multiple of the access's width, is a mistake of the caller's and panics.
///
/// x86 keeps loads in order and stores in order, and so does the compiler for these. A store
/// followed by a load of another place may be seen the other way round: where a protocol needs that
/// order (the look at the other's event index after one's own was published), put a
/// [`fence(SeqCst)`](core::sync::atomic::fence) between.
pub trait Window {
    /// Size in bytes.
    fn len(&self) -> usize;
    /// True if the window has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Loads a byte, once.
    fn load_u8(&self, offset: usize) -> u8;
    /// Loads two bytes, once.
    fn load_u16(&self, offset: usize) -> u16;
    /// Loads four bytes, once.
    fn load_u32(&self, offset: usize) -> u32;
    /// Loads eight bytes, once.
    fn load_u64(&self, offset: usize) -> u64;
    /// Stores a byte, once.
    fn store_u8(&self, offset: usize, value: u8);
    /// Stores two bytes, once.
    fn store_u16(&self, offset: usize, value: u16);
    /// Stores four bytes, once.
    fn store_u32(&self, offset: usize, value: u32);
    /// Stores eight bytes, once.
    fn store_u64(&self, offset: usize, value: u64);
    /// Sets bits of a byte that the other domain changes too, in one step (`lock or`); returns the
    /// byte as it was. A full barrier.
    fn fetch_or_u8(&self, offset: usize, bits: u8) -> u8;
    /// Keeps only `bits` of a byte that the other domain changes too, in one step (`lock and`);
    /// returns the byte as it was. A full barrier.
    fn fetch_and_u8(&self, offset: usize, bits: u8) -> u8;
    /// Copies out of the window; fast.
    fn copy_out(&self, offset: usize, into: &mut [u8]);
    /// Copies into the window; fast.
    fn copy_in(&self, offset: usize, bytes: &[u8]);
}

/// Pages that are shared, whoever has them: what the public windows are made of.
#[derive(Debug)]
pub(crate) struct Memory {
    pages: Pages,
    len: usize,
}

#[derive(Debug)]
enum Pages {
    /// One after the other.
    Contiguous(NonNull<u8>),
    /// Each on its own: how a test's process maps another domain's pages.
    #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
    Scattered {
        pages: alloc::vec::Vec<NonNull<u8>>,
        /// Storing would be a page fault on a real Xen; in a test's process it would succeed.
        writable: bool,
    },
}

// SAFETY: nothing in it is tied to a thread; whoever made it answers for the pages (see `new`).
unsafe impl Send for Memory {}
// SAFETY: every access is one volatile load or store, or assembly: two at once may mix, which is
// what memory that another domain writes does anyway, and never make a reference or a Rust value
// that is not plain bytes.
unsafe impl Sync for Memory {}

macro_rules! accessors {
    ($($load:ident $store:ident $type:ty;)*) => {$(
        #[inline]
        pub(crate) fn $load(&self, offset: usize) -> $type {
            let from = self.place(offset, size_of::<$type>());
            // SAFETY: `place` checked that the bytes are in the pages and aligned. No reference to
            // them exists (`new`), another domain may write them: hence volatile.
            <$type>::from_le(unsafe { from.cast::<$type>().read_volatile() })
        }

        #[inline]
        pub(crate) fn $store(&self, offset: usize, value: $type) {
            self.assert_writable();
            let to = self.place(offset, size_of::<$type>());
            // SAFETY: as for loading.
            unsafe { to.cast::<$type>().write_volatile(value.to_le()) };
        }
    )*};
}

impl Memory {
    /// `len` bytes of whole pages from `base` on.
    ///
    /// # Safety
    /// While the value lives, the bytes must be mapped for reading and writing (for reading alone if
    /// the window is used for that alone), `base` be page-aligned, and no Rust reference to any of
    /// them exist while a method of the value runs.
    pub(crate) unsafe fn contiguous(base: NonNull<u8>, len: usize) -> Self {
        Memory { pages: Pages::Contiguous(base), len }
    }

    /// Pages that lie wherever they lie.
    ///
    /// # Safety
    /// As for [`Memory::contiguous`], for [`PAGE_BYTES`] from each pointer on.
    #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
    pub(crate) unsafe fn scattered(pages: alloc::vec::Vec<NonNull<u8>>, writable: bool) -> Self {
        let len = pages.len() * PAGE_BYTES;
        Memory { pages: Pages::Scattered { pages, writable }, len }
    }

    /// Panics where an image would fault.
    #[inline]
    fn assert_writable(&self) {
        #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
        assert!(
            !matches!(self.pages, Pages::Scattered { writable: false, .. }),
            "a store to pages that were mapped to be read"
        );
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        match &self.pages {
            Pages::Contiguous(base) => *base,
            #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
            Pages::Scattered { pages, .. } => pages[0],
        }
    }

    accessors! {
        load_u8 store_u8 u8;
        load_u16 store_u16 u16;
        load_u32 store_u32 u32;
        load_u64 store_u64 u64;
    }

    #[inline]
    pub(crate) fn fetch_or_u8(&self, offset: usize, bits: u8) -> u8 {
        self.atomic(offset, |byte| byte.fetch_or(bits, Ordering::SeqCst))
    }

    #[inline]
    pub(crate) fn fetch_and_u8(&self, offset: usize, bits: u8) -> u8 {
        self.atomic(offset, |byte| byte.fetch_and(bits, Ordering::SeqCst))
    }

    #[inline]
    fn atomic(&self, offset: usize, act: impl FnOnce(&AtomicU8) -> u8) -> u8 {
        self.assert_writable();
        // SAFETY: `place` checked that the byte is in the pages, which stay while `self` does. The
        // other domain changes it in the same way; that it might also store plainly is what every
        // access to the window lives with.
        act(unsafe { AtomicU8::from_ptr(self.place(offset, 1)) })
    }

    #[inline]
    pub(crate) fn copy_out(&self, offset: usize, into: &mut [u8]) {
        self.runs(offset, into.len(), |from, at, count| {
            // SAFETY: `runs` gives places in the pages; `into` has `count` bytes from `at` on.
            unsafe { copy(from, into.as_mut_ptr().add(at), count) };
        });
    }

    #[inline]
    pub(crate) fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.assert_writable();
        self.runs(offset, bytes.len(), |to, at, count| {
            // SAFETY: as in `copy_out`.
            unsafe { copy(bytes.as_ptr().add(at), to, count) };
        });
    }

    /// Calls `each(place, done so far, bytes)` for every contiguous run of `len` bytes at `offset`.
    #[inline]
    fn runs(&self, offset: usize, len: usize, mut each: impl FnMut(*mut u8, usize, usize)) {
        self.check(offset, len);
        match &self.pages {
            // SAFETY: in the pages, as just checked.
            Pages::Contiguous(base) => each(unsafe { base.as_ptr().add(offset) }, 0, len),
            #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
            Pages::Scattered { .. } => {
                let mut done = 0;
                while done < len {
                    let at = offset + done;
                    let count = (PAGE_BYTES - at % PAGE_BYTES).min(len - done);
                    each(self.place(at, 1), done, count);
                    done += count;
                }
            }
        }
    }

    #[inline]
    fn place(&self, offset: usize, width: usize) -> *mut u8 {
        self.check(offset, width);
        assert!(
            offset.is_multiple_of(width),
            "an access of {width} bytes at {offset} is not aligned"
        );
        match &self.pages {
            // SAFETY: in the pages, as just checked.
            Pages::Contiguous(base) => unsafe { base.as_ptr().add(offset) },
            #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
            // SAFETY: an aligned access does not cross the end of its page.
            Pages::Scattered { pages, .. } => unsafe {
                pages[offset / PAGE_BYTES].as_ptr().add(offset % PAGE_BYTES)
            },
        }
    }

    #[inline]
    fn check(&self, offset: usize, width: usize) {
        let fits = offset.checked_add(width).is_some_and(|end| end <= self.len);
        assert!(fits, "{width} bytes at {offset} are outside a window of {} bytes", self.len);
    }
}

/// Copies `count` bytes.
///
/// Sixteen bytes at a time: `rep movsb` is as fast on processors, but three times slower to start,
/// and byte by byte under emulation.
///
/// # Safety
/// Both sides must be mapped for `count` bytes, for what is done to them, and not overlap.
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: the caller's promise; every access is within `count` bytes of its pointer. Assembly
    // may touch memory that others change meanwhile: to the compiler the bytes are unknown.
    unsafe {
        asm!(
            "sub {left}, 64",
            "jb 3f",
            "2:",
            "movups {a}, [{from}]",
            "movups {b}, [{from} + 16]",
            "movups {c}, [{from} + 32]",
            "movups {d}, [{from} + 48]",
            "movups [{to}], {a}",
            "movups [{to} + 16], {b}",
            "movups [{to} + 32], {c}",
            "movups [{to} + 48], {d}",
            "add {from}, 64",
            "add {to}, 64",
            "sub {left}, 64",
            "jae 2b",
            "3:",
            "add {left}, 56",
            "js 5f",
            "4:",
            "mov {word}, [{from}]",
            "mov [{to}], {word}",
            "add {from}, 8",
            "add {to}, 8",
            "sub {left}, 8",
            "jns 4b",
            "5:",
            "add {left}, 8",
            "jz 7f",
            "6:",
            "mov {word:l}, byte ptr [{from}]",
            "mov byte ptr [{to}], {word:l}",
            "inc {from}",
            "inc {to}",
            "dec {left}",
            "jnz 6b",
            "7:",
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            left = inout(reg) count => _,
            word = out(reg) _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack),
        );
    }
}

/// Implements [`Window`] for a type with a `memory: Memory`.
macro_rules! window {
    ($type:ty) => {
        impl $crate::Window for $type {
            fn len(&self) -> usize {
                self.memory().len()
            }
            $crate::window::window! { @load self
                load_u8 store_u8 u8;
                load_u16 store_u16 u16;
                load_u32 store_u32 u32;
                load_u64 store_u64 u64;
            }
            #[inline]
            fn fetch_or_u8(&self, offset: usize, bits: u8) -> u8 {
                self.memory().fetch_or_u8(offset, bits)
            }
            #[inline]
            fn fetch_and_u8(&self, offset: usize, bits: u8) -> u8 {
                self.memory().fetch_and_u8(offset, bits)
            }
            #[inline]
            fn copy_out(&self, offset: usize, into: &mut [u8]) {
                self.memory().copy_out(offset, into);
            }
            #[inline]
            fn copy_in(&self, offset: usize, bytes: &[u8]) {
                self.memory().copy_in(offset, bytes);
            }
        }
    };
    (@load $self:ident $($load:ident $store:ident $int:ty;)*) => {$(
        #[inline]
        fn $load(&self, offset: usize) -> $int {
            self.memory().$load(offset)
        }
        #[inline]
        fn $store(&self, offset: usize, value: $int) {
            self.memory().$store(offset, value);
        }
    )*};
}
pub(crate) use window;

#[cfg(test)]
mod tests;
