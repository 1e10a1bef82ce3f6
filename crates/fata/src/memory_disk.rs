//! [`MemoryDisk`]: a disk that is forgotten when the machine ends.
//!
//! For storage domains that lend memory to their neighbours, and for tests of whatever takes a disk.

use fata_device::block::{check_range, check_request};
use fata_device::{Block, BlockError, BoxFuture, Geometry, SectorBuffer};
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Size of a sector in bytes: what every guest can read and write.
const SECTOR_BYTES: usize = 512;

/// Memory is taken and given back in pieces of this many bytes: large enough that a disk of a
/// gibibyte is a list of 16384, small enough that a file here and there costs little.
const PIECE_BYTES: usize = 64 * 1024;

/// A disk in memory. It reads as zeros where nothing was written.
///
/// It takes memory when a part of it is written for the first time, and gives it back when the
/// whole part is discarded; so it may be made larger than the machine, and it is then up to its
/// user not to fill it.
pub struct MemoryDisk {
    sector_count: u64,
    read_only: bool,
    /// `None`: nothing but zeros.
    pieces: Mutex<Vec<Option<Box<[u8]>>>>,
}

impl MemoryDisk {
    /// A disk of so many sectors of 512 bytes, all zeros.
    pub fn new(sector_count: u64) -> Self {
        let bytes = sector_count.saturating_mul(SECTOR_BYTES as u64);
        let pieces = usize::try_from(bytes.div_ceil(PIECE_BYTES as u64)).unwrap_or(usize::MAX);
        let pieces = Mutex::new((0..pieces).map(|_| None).collect());
        MemoryDisk { sector_count, read_only: false, pieces }
    }

    /// A disk that holds `bytes`, filled up with zeros to a whole sector.
    pub fn holding(bytes: &[u8]) -> Self {
        let disk = Self::new(bytes.len().div_ceil(SECTOR_BYTES) as u64);
        put(&mut disk.pieces(), 0, bytes);
        disk
    }

    /// The same disk, which takes no more writes.
    #[must_use]
    pub fn into_read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// How many bytes of memory the disk takes at the moment.
    pub fn bytes_in_use(&self) -> usize {
        self.pieces().iter().flatten().map(|piece| piece.len()).sum()
    }

    fn pieces(&self) -> MutexGuard<'_, Vec<Option<Box<[u8]>>>> {
        // A panic in here would leave bytes half-written, as a disk's may be anyway.
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_writable(&self) -> Result<(), BlockError> {
        if self.read_only { Err(BlockError::ReadOnly) } else { Ok(()) }
    }
}

/// The pieces that `len` bytes from `start` on lie in, with their part of each, one after the other.
fn parts(start: usize, len: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let end = start + len;
    let mut at = start;
    core::iter::from_fn(move || {
        let piece = at / PIECE_BYTES;
        let from = at % PIECE_BYTES;
        let until = PIECE_BYTES.min(from + (end - at));
        (at < end).then(|| {
            at += until - from;
            (piece, from..until)
        })
    })
}

fn put(pieces: &mut [Option<Box<[u8]>>], start: usize, mut bytes: &[u8]) {
    for (piece, part) in parts(start, bytes.len()) {
        let (now, rest) = bytes.split_at(part.len());
        let piece = pieces[piece].get_or_insert_with(|| vec![0; PIECE_BYTES].into());
        piece[part].copy_from_slice(now);
        bytes = rest;
    }
}

impl Block for MemoryDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            sector_bytes: SECTOR_BYTES,
            sector_count: self.sector_count,
            read_only: self.read_only,
            discard: !self.read_only,
        }
    }

    fn read(&self, start: u64, count: usize) -> BoxFuture<'_, Result<SectorBuffer, BlockError>> {
        let read = || {
            if count == 0 {
                return Err(BlockError::Unaligned { len: 0, sector_bytes: SECTOR_BYTES });
            }
            check_range(&self.geometry(), start, count as u64)?;
            let mut buffer = SectorBuffer::zeroed(count * SECTOR_BYTES);
            let pieces = self.pieces();
            let mut rest = &mut buffer[..];
            for (piece, part) in parts(start as usize * SECTOR_BYTES, rest.len()) {
                let (now, behind) = rest.split_at_mut(part.len());
                if let Some(piece) = &pieces[piece] {
                    now.copy_from_slice(&piece[part]);
                }
                rest = behind;
            }
            Ok(buffer)
        };
        Box::pin(core::future::ready(read()))
    }

    fn write(&self, start: u64, data: SectorBuffer) -> BoxFuture<'_, Result<(), BlockError>> {
        let write = || {
            check_request(&self.geometry(), start, data.len())?;
            self.check_writable()?;
            put(&mut self.pieces(), start as usize * SECTOR_BYTES, &data);
            Ok(())
        };
        Box::pin(core::future::ready(write()))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), BlockError>> {
        // There is no medium that could lose less.
        Box::pin(core::future::ready(Ok(())))
    }

    fn discard(&self, start: u64, count: u64) -> BoxFuture<'_, Result<(), BlockError>> {
        let discard = || {
            if count == 0 {
                return Err(BlockError::Unaligned { len: 0, sector_bytes: SECTOR_BYTES });
            }
            check_range(&self.geometry(), start, count)?;
            self.check_writable()?;
            let mut pieces = self.pieces();
            let bytes = (start as usize * SECTOR_BYTES, count as usize * SECTOR_BYTES);
            for (piece, part) in parts(bytes.0, bytes.1) {
                if part.len() == PIECE_BYTES {
                    pieces[piece] = None;
                } else if let Some(piece) = &mut pieces[piece] {
                    piece[part].fill(0);
                }
            }
            Ok(())
        };
        Box::pin(core::future::ready(discard()))
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryDisk({} sectors)", self.sector_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("memory never keeps anybody waiting"),
        }
    }

    #[test]
    fn fulfils_the_contract() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        // One disk that ends inside a piece, and one with many pieces.
        for sectors in [64, 300, 1 << 17] {
            runtime.block_on(fata_device::contract::block(async || MemoryDisk::new(sectors)));
        }
        let read_only = async || MemoryDisk::holding(&[7; 64 * 512]).into_read_only();
        runtime.block_on(fata_device::contract::block_read_only(read_only));
    }

    #[test]
    fn takes_memory_only_for_what_was_written_and_gives_it_back() {
        let disk = MemoryDisk::new(1 << 24);
        let far = (1 << 24) - 1;
        assert_eq!(now(disk.read(far, 1)).expect("on the disk")[..], [0; 512]);
        assert_eq!(disk.bytes_in_use(), 0);
        now(disk.write(far, SectorBuffer::copy_of(&[9; 512]))).expect("on the disk");
        assert_eq!(disk.bytes_in_use(), PIECE_BYTES);
        now(disk.discard(far, 1)).expect("on the disk");
        assert_eq!(disk.bytes_in_use(), PIECE_BYTES, "the rest of the piece may be of value");
        assert_eq!(now(disk.read(far, 1)).expect("on the disk")[..], [0; 512]);
        now(disk.discard(0, 1 << 24)).expect("on the disk");
        assert_eq!(disk.bytes_in_use(), 0);
    }

    #[test]
    fn holds_what_it_was_given() {
        let disk = MemoryDisk::holding(b"hello");
        let read = now(disk.read(0, 1)).expect("a sector");
        assert_eq!(&read[..6], b"hello\0");
        assert_eq!(disk.geometry().sector_count, 1);
    }
}
