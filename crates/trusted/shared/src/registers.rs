//! [`Registers`]: a window on device registers.

use core::fmt;
use core::ptr::NonNull;
#[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
use {crate::simulation::RegisterModel, alloc::sync::Arc};

/// A window on the registers of one device. Clones look at the same registers.
///
/// Every access is volatile, of exactly its width, and little-endian as PCI and virtio are.
///
/// **Outside the window** (or not aligned to its width) an access is refused the way a bus refuses
/// an address at which nobody answers: a read gives all ones, a write is lost. So a driver that
/// follows an offset which a device made up reads nonsense and nothing more; whoever needs to know
/// compares with [`len`](Registers::len) or uses [`subwindow`](Registers::subwindow).
#[derive(Clone)]
pub struct Registers {
    window: Window,
    len: usize,
}

#[derive(Clone)]
enum Window {
    /// Mapped device memory. Invariant: `len` bytes from here on stay mapped, uncached, and belong
    /// to no Rust object, for as long as the program runs.
    Mapped(NonNull<u8>),
    /// A device model of a test, and where in its registers this window begins.
    #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
    Model(Arc<dyn RegisterModel>, usize),
}

// SAFETY: the pointer is to device memory that belongs to no thread, and every access through it is
// volatile; a race between two processors is a race of two bus accesses, whose outcome is a value.
unsafe impl Send for Registers {}
// SAFETY: as above.
unsafe impl Sync for Registers {}

macro_rules! accessors {
    ($($read:ident $write:ident $type:ty, $words:literal;)*) => {$(
        #[doc = concat!("Reads ", $words, " at `offset` bytes into the window.")]
        pub fn $read(&self, offset: usize) -> $type {
            const WIDTH: usize = size_of::<$type>();
            if !self.holds(offset, WIDTH) {
                return <$type>::MAX;
            }
            match &self.window {
                Window::Mapped(base) => {
                    // SAFETY: `holds` says that `WIDTH` bytes at `offset` are in the window and
                    // aligned; the window is mapped and no Rust object (invariant of `Window`).
                    let raw = unsafe { base.as_ptr().add(offset).cast::<$type>().read_volatile() };
                    <$type>::from_le(raw)
                }
                #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
                Window::Model(model, start) => model.read(start + offset, WIDTH) as $type,
            }
        }

        #[doc = concat!("Writes ", $words, " at `offset` bytes into the window.")]
        pub fn $write(&self, offset: usize, value: $type) {
            const WIDTH: usize = size_of::<$type>();
            if !self.holds(offset, WIDTH) {
                return;
            }
            match &self.window {
                Window::Mapped(base) => {
                    let raw = value.to_le();
                    // SAFETY: as for reading.
                    unsafe { base.as_ptr().add(offset).cast::<$type>().write_volatile(raw) };
                }
                #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
                Window::Model(model, start) => {
                    model.write(start + offset, WIDTH, u64::from(value));
                }
            }
        }
    )*};
}

impl Registers {
    /// A window of `len` bytes of device registers from `base` on. A null `base` or one that is
    /// not a multiple of 8 makes an empty window.
    ///
    /// # Safety
    /// For as long as the program runs, `len` bytes from `base` on must be mapped for reading and
    /// writing, belong to no Rust object, and be registers of a device: whoever holds the window
    /// may write anything to them. In particular they must not be registers that could hand the
    /// device other memory than its driver's without the driver naming it (see `SOUNDNESS.md`).
    pub unsafe fn new(base: *mut u8, len: usize) -> Self {
        match NonNull::new(base) {
            Some(base) if base.as_ptr().addr().is_multiple_of(8) => {
                Registers { window: Window::Mapped(base), len }
            }
            _ => Registers { window: Window::Mapped(NonNull::dangling()), len: 0 },
        }
    }

    /// A window on the registers of a device model: for tests of drivers.
    #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
    pub fn simulated(model: Arc<dyn RegisterModel>, len: usize) -> Self {
        Registers { window: Window::Model(model, 0), len }
    }

    /// Size of the window in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if the window has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The window on `len` bytes from `offset` on, if all of them are in this one and `offset` is
    /// a multiple of 4, the alignment of every structure that PCI and virtio define.
    pub fn subwindow(&self, offset: usize, len: usize) -> Option<Registers> {
        let end = offset.checked_add(len)?;
        if end > self.len || !offset.is_multiple_of(4) {
            return None;
        }
        let window = match &self.window {
            // SAFETY: `offset` is at most `self.len`, so the sum is in the window or one past it.
            Window::Mapped(base) => Window::Mapped(unsafe { base.add(offset) }),
            #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
            Window::Model(model, start) => Window::Model(model.clone(), start + offset),
        };
        Some(Registers { window, len })
    }

    accessors! {
        read_u8 write_u8 u8, "a byte";
        read_u16 write_u16 u16, "two bytes";
        read_u32 write_u32 u32, "four bytes";
        read_u64 write_u64 u64, "eight bytes";
    }

    /// True if `width` bytes at `offset` are in the window and aligned.
    fn holds(&self, offset: usize, width: usize) -> bool {
        let start = match &self.window {
            Window::Mapped(base) => base.as_ptr().addr(),
            #[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
            Window::Model(_, start) => *start,
        };
        offset.checked_add(width).is_some_and(|end| end <= self.len)
            && start.wrapping_add(offset).is_multiple_of(width)
    }
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registers({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(8))]
    struct Aligned([u8; 32]);

    fn window(memory: &mut Aligned) -> Registers {
        // SAFETY: the test's memory outlives the window and is not looked at meanwhile.
        unsafe { Registers::new(memory.0.as_mut_ptr(), memory.0.len()) }
    }

    #[test]
    fn accesses_are_little_endian_and_of_their_width() {
        let mut memory = Aligned([0; 32]);
        let registers = window(&mut memory);
        registers.write_u32(4, 0x0403_0201);
        assert_eq!(registers.read_u8(4), 1);
        assert_eq!(registers.read_u16(6), 0x0403);
        assert_eq!(registers.read_u64(0), 0x0403_0201_0000_0000);
    }

    #[test]
    fn outside_the_window_nobody_answers() {
        let mut memory = Aligned([0; 32]);
        let registers = window(&mut memory);
        assert_eq!(registers.read_u32(32), u32::MAX);
        assert_eq!(registers.read_u64(28), u64::MAX);
        assert_eq!(registers.read_u32(usize::MAX - 1), u32::MAX);
        assert_eq!(registers.read_u32(2), u32::MAX, "not aligned");
        registers.write_u64(usize::MAX, 1);
        registers.write_u32(30, 1);
        assert!((0..32).all(|at| registers.read_u8(at) == 0));
    }

    #[test]
    fn a_subwindow_never_reaches_past_its_parent() {
        let mut memory = Aligned([0; 32]);
        let registers = window(&mut memory);
        let inner = registers.subwindow(16, 8).unwrap();
        inner.write_u32(4, 7);
        assert_eq!(registers.read_u32(20), 7);
        assert_eq!(inner.read_u32(8), u32::MAX);
        assert!(registers.subwindow(16, 17).is_none());
        assert!(registers.subwindow(usize::MAX - 3, 8).is_none());
        assert!(registers.subwindow(2, 4).is_none());
        assert!(registers.subwindow(32, 0).unwrap().is_empty());
    }
}
