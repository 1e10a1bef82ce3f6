//! [`Block`]: a disk that is read and written in whole sectors.

use crate::BoxFuture;
use core::fmt;
use core::ops::{Deref, DerefMut, Range};

/// Size and abilities of a disk. Does not change while the device lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size of a sector in bytes: a power of two, at least 512.
    pub sector_bytes: usize,
    /// Number of sectors.
    pub sector_count: u64,
    /// Writes, flushes and discards are refused with [`BlockError::ReadOnly`].
    pub read_only: bool,
    /// [`Block::discard`] does something.
    pub discard: bool,
}

/// Bytes whose first one lies at an address that is a multiple of 512: what a disk reads into and
/// writes from. Owned, because a device may use the memory after the future that asked for it was
/// dropped.
pub struct SectorBuffer {
    storage: Vec<u8>,
    start: usize,
    len: usize,
}

impl SectorBuffer {
    /// Alignment of the first byte.
    pub const ALIGNMENT: usize = 512;

    /// A buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let storage = vec![0; len + Self::ALIGNMENT - 1];
        let start = storage.as_ptr().align_offset(Self::ALIGNMENT).min(Self::ALIGNMENT - 1);
        SectorBuffer { storage, start, len }
    }

    /// The memory that the bytes lie in, and which of its bytes they are: for a driver that hands
    /// them to a device.
    pub fn into_vec(self) -> (Vec<u8>, Range<usize>) {
        (self.storage, self.start..self.start + self.len)
    }

    /// The way back from [`into_vec`](SectorBuffer::into_vec); `None` if `part` is not inside
    /// `storage` or does not begin at a multiple of [`ALIGNMENT`](SectorBuffer::ALIGNMENT).
    pub fn from_vec(storage: Vec<u8>, part: Range<usize>) -> Option<Self> {
        let bytes = storage.get(part.clone())?;
        if !bytes.as_ptr().addr().is_multiple_of(Self::ALIGNMENT) {
            return None;
        }
        Some(SectorBuffer { start: part.start, len: part.len(), storage })
    }

    /// A buffer that holds a copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }
}

impl Deref for SectorBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl DerefMut for SectorBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

impl fmt::Debug for SectorBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SectorBuffer({} bytes)", self.len)
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockError {
    /// The caller's fault: the sectors are not all on the disk. Nothing was read or written.
    OutOfRange {
        /// First sector that was asked for.
        start: u64,
        /// How many sectors were asked for.
        count: u64,
        /// How many the disk has.
        sector_count: u64,
    },
    /// The caller's fault: the length is zero or no whole number of sectors. Nothing was written.
    Unaligned {
        /// Length that was given, in bytes.
        len: usize,
        /// Size of a sector in bytes.
        sector_bytes: usize,
    },
    /// The disk is read-only. Nothing was written.
    ReadOnly,
    /// The disk cannot do this; the text says what.
    Unsupported(&'static str),
    /// The disk reports that the request failed. Each sector of a failed write holds old data, new
    /// data or neither.
    Medium,
    /// The device broke the rules of its interface (the text says which) and was closed; every
    /// later request fails too.
    Misbehaved(String),
    /// The device is gone; every later request fails too.
    Disconnected,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockError::OutOfRange { start, count, sector_count } => write!(
                f,
                "{count} sectors from sector {start} on are not all on the disk, which has {sector_count}"
            ),
            BlockError::Unaligned { len, sector_bytes } => {
                write!(
                    f,
                    "{len} bytes are no whole, positive number of {sector_bytes}-byte sectors"
                )
            }
            BlockError::ReadOnly => write!(f, "the disk is read-only"),
            BlockError::Unsupported(what) => write!(f, "the disk does not support {what}"),
            BlockError::Medium => write!(f, "the disk reports an error of its medium"),
            BlockError::Misbehaved(rule) => write!(f, "the disk broke its contract: {rule}"),
            BlockError::Disconnected => write!(f, "the disk is gone"),
        }
    }
}

impl std::error::Error for BlockError {}

/// A disk: a row of sectors that are read and written whole.
///
/// **Order.** Requests in flight together may take effect in any order; one that was awaited takes
/// effect before one that is made afterwards. A read that overlaps a write in flight returns, for
/// each byte, the old data or the new: not for each sector, since a disk that is a file of its host
/// is read and written through the host's page cache, which may be caught in the middle of one.
///
/// **Durability.** A write whose future returned `Ok` is seen by later reads. It survives a loss of
/// power only once a [`flush`](Block::flush) that was called after it has returned `Ok`. A loss of
/// power during a write leaves each of its sectors with old data, new data or neither.
///
/// **Cancellation.** Dropping a future does not cancel the request: the device keeps the buffer
/// until it is done, which is why buffers are owned.
///
/// **After an error** of the caller's or of the medium the disk is as usable as before. After
/// [`BlockError::Misbehaved`] or [`BlockError::Disconnected`] every later request fails.
pub trait Block: Send + Sync + 'static {
    /// Size and abilities.
    fn geometry(&self) -> Geometry;

    /// Reads `count` sectors from sector `start` on; `count` is at least 1.
    ///
    /// # Errors
    /// [`BlockError::OutOfRange`], [`BlockError::Unaligned`] if `count` is 0,
    /// [`BlockError::Medium`], and the two that end the device.
    fn read(&self, start: u64, count: usize) -> BoxFuture<'_, Result<SectorBuffer, BlockError>>;

    /// Writes `data`, a whole positive number of sectors, from sector `start` on.
    ///
    /// # Errors
    /// [`BlockError::OutOfRange`], [`BlockError::Unaligned`], [`BlockError::ReadOnly`]: nothing was
    /// written. [`BlockError::Medium`], and the two that end the device.
    fn write(&self, start: u64, data: SectorBuffer) -> BoxFuture<'_, Result<(), BlockError>>;

    /// Makes all writes that returned `Ok` before this call survive a loss of power.
    ///
    /// # Errors
    /// [`BlockError::Medium`]: nothing is known about the writes since the last flush. And the two
    /// that end the device. A read-only disk has nothing to flush and returns `Ok`.
    fn flush(&self) -> BoxFuture<'_, Result<(), BlockError>>;

    /// Tells the disk that `count` sectors from `start` on hold nothing of value. What they read
    /// as afterwards is not defined.
    ///
    /// # Errors
    /// [`BlockError::Unsupported`] without [`Geometry::discard`], and those of
    /// [`write`](Block::write).
    fn discard(&self, start: u64, count: u64) -> BoxFuture<'_, Result<(), BlockError>>;
}

/// Checks a request against a disk's geometry, as every backend must before it asks the device.
/// `len` is in bytes.
///
/// # Errors
/// [`BlockError::Unaligned`] and [`BlockError::OutOfRange`].
pub fn check_request(geometry: &Geometry, start: u64, len: usize) -> Result<(), BlockError> {
    if len == 0 || !len.is_multiple_of(geometry.sector_bytes) {
        return Err(BlockError::Unaligned { len, sector_bytes: geometry.sector_bytes });
    }
    check_range(geometry, start, (len / geometry.sector_bytes) as u64)
}

/// Checks that `count` sectors from `start` on lie on the disk.
///
/// # Errors
/// [`BlockError::OutOfRange`].
pub fn check_range(geometry: &Geometry, start: u64, count: u64) -> Result<(), BlockError> {
    match start.checked_add(count) {
        Some(end) if end <= geometry.sector_count => Ok(()),
        _ => Err(BlockError::OutOfRange { start, count, sector_count: geometry.sector_count }),
    }
}
