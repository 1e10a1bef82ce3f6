//! Devices that run in the process of a test, on host builds only.
//!
//! A device model stands behind [`Registers::simulated`](crate::registers::Registers::simulated)
//! and reaches memory through [`read()`] and [`write()`], which know every byte that is shared at the
//! moment and refuse all others. So a driver that gives a device the wrong address, or one that it
//! has taken back already, fails its test instead of passing by luck.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The registers of a device model.
pub trait RegisterModel: Send + Sync {
    /// The driver reads `width` bytes (1, 2, 4 or 8) at `offset`; upper bytes of the answer are
    /// ignored.
    fn read(&self, offset: usize, width: usize) -> u64;
    /// The driver writes `width` bytes at `offset`.
    fn write(&self, offset: usize, width: usize, value: u64);
}

/// The model touched memory that is not shared with any device at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotShared {
    /// First byte of the access.
    pub address: u64,
    /// Length of the access in bytes.
    pub len: usize,
}

impl fmt::Display for NotShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x} are not shared with a device", self.len, self.address)
    }
}

impl core::error::Error for NotShared {}

/// What is shared now: address of the first byte, and length.
static SHARED: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

fn shared() -> MutexGuard<'static, BTreeMap<usize, usize>> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn share(pointer: *mut u8, len: usize) {
    if len > 0 {
        shared().insert(pointer.expose_provenance(), len);
    }
}

pub(crate) fn unshare(pointer: *mut u8, len: usize) {
    if len > 0 {
        shared().remove(&pointer.addr());
    }
}

/// The pointer to `len` shared bytes at `address`, or an error.
fn locate(shared: &BTreeMap<usize, usize>, address: u64, len: usize) -> Result<*mut u8, NotShared> {
    let refused = NotShared { address, len };
    let start = usize::try_from(address).map_err(|_| refused)?;
    let end = start.checked_add(len).ok_or(refused)?;
    match shared.range(..=start).next_back() {
        Some((&first, &size)) if end <= first + size => {
            Ok(core::ptr::with_exposed_provenance_mut(start))
        }
        _ => Err(refused),
    }
}

/// The device reads shared memory.
///
/// # Errors
/// [`NotShared`] unless all bytes lie in one region or buffer that is shared at the moment.
pub fn read(address: u64, into: &mut [u8]) -> Result<(), NotShared> {
    let shared = shared();
    let from = locate(&shared, address, into.len())?;
    for (at, byte) in into.iter_mut().enumerate() {
        // SAFETY: the bytes are shared, hence allocated and without any Rust reference; they stay
        // so while the table is locked. Their provenance was exposed when they were shared.
        *byte = unsafe { from.add(at).read_volatile() };
    }
    Ok(())
}

/// The device writes shared memory.
///
/// # Errors
/// As [`read`]; nothing is written then.
pub fn write(address: u64, bytes: &[u8]) -> Result<(), NotShared> {
    let shared = shared();
    let to = locate(&shared, address, bytes.len())?;
    for (at, byte) in bytes.iter().enumerate() {
        // SAFETY: as in `read`.
        unsafe { to.add(at).write_volatile(*byte) };
    }
    Ok(())
}
