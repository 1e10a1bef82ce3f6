//! [`Blkfront`]: a disk that another domain has, as a [`Block`].
//!
//! The handshake runs in a task of its own. It makes a ring, gives it to the disk when the backend
//! is connected, and takes it back when the backend goes away: requests then wait for the next
//! backend, or fail when there will be none. The data needs no task, see [`disk`].

pub(super) mod disk;
mod job;
mod keeper;
pub(super) mod link;

pub use disk::BlkfrontCounters;

use disk::{Disk, Submission};
use fata_device::block::{check_range, check_request};
use fata_device::{Block, BlockError, BoxFuture, Geometry, SectorBuffer};
use fata_xenbus::handshake::block as handshake;
use fata_xenbus::ring::block::{Operation, SECTOR_BYTES};
use job::{Job, Kind};
use link::{DiscardSteps, Features};
use std::sync::Arc;

/// What a disk may take of memory and of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlkfrontOptions {
    /// How many requests of the program's may be at the backend at once; more wait. 32: as deep as
    /// disks gain by it.
    pub requests_max: u16,
    /// Pages that data goes through, granted once. 260 (1 MiB and a little): four pieces of the size
    /// below with the pages that list their pages, or 32 small requests with room to spare. No more
    /// than 1056, which is how many a Linux backend keeps mapped.
    pub pool_pages: u16,
    /// The longest piece, in pages, in which a long read or write is asked of the backend, if it
    /// can do more than eleven pages at all; at most 512. 64 (256 KiB): long enough that a
    /// request's own cost does not count, short enough for four at once.
    pub segments_max: u16,
    /// The ring has up to `1 << ring_page_order_max` pages, 32 requests each, if the backend takes
    /// that; at most 4. 0: 32 requests are as many as the pool fills.
    pub ring_page_order_max: u32,
    /// How long the backend may take to connect, in nanoseconds. 60 s, see
    /// [`Joining`](fata_xenbus::handshake::Joining).
    pub connect_nanos: u64,
}

impl Default for BlkfrontOptions {
    fn default() -> Self {
        BlkfrontOptions {
            requests_max: 32,
            pool_pages: 260,
            segments_max: 64,
            ring_page_order_max: 0,
            connect_nanos: 60_000_000_000,
        }
    }
}

/// A disk that another domain has. Clones are the same disk; it is closed when the last is dropped.
#[derive(Clone)]
pub struct Blkfront {
    held: Arc<Held>,
}

struct Held {
    disk: Arc<Disk>,
    geometry: Geometry,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.abandon();
    }
}

impl Blkfront {
    fn new(disk: Arc<Disk>, geometry: Geometry) -> Self {
        Blkfront { held: Arc::new(Held { disk, geometry }) }
    }

    /// What the disk has done so far.
    pub fn counters(&self) -> BlkfrontCounters {
        self.held.disk.counters()
    }

    /// Makes a request, waits for its end and gives its buffer back. `start` counts the disk's own
    /// sectors.
    async fn request(
        &self,
        kind: Kind,
        start: u64,
        data: Option<SectorBuffer>,
    ) -> Result<Option<SectorBuffer>, BlockError> {
        let job = Job::new(kind, self.small_sectors(start), data);
        Submission::new(&self.held.disk, job).await
    }

    /// `count` of the disk's sectors, in those of 512 bytes that requests count. It was checked, so
    /// it fits.
    fn small_sectors(&self, count: u64) -> u64 {
        count * (self.held.geometry.sector_bytes as u64 / SECTOR_BYTES)
    }

    fn check_writable(&self) -> Result<(), BlockError> {
        if self.held.geometry.read_only { Err(BlockError::ReadOnly) } else { Ok(()) }
    }
}

impl Block for Blkfront {
    fn geometry(&self) -> Geometry {
        self.held.geometry
    }

    fn read(&self, start: u64, count: usize) -> BoxFuture<'_, Result<SectorBuffer, BlockError>> {
        Box::pin(async move {
            let geometry = &self.held.geometry;
            if count == 0 {
                let sector_bytes = geometry.sector_bytes;
                return Err(BlockError::Unaligned { len: 0, sector_bytes });
            }
            // Before the buffer is made: nobody asks for more memory than the disk has sectors.
            check_range(geometry, start, count as u64)?;
            let buffer = SectorBuffer::zeroed(count * geometry.sector_bytes);
            let read = self.request(Kind::Read, start, Some(buffer)).await?;
            read.ok_or(BlockError::Disconnected)
        })
    }

    fn write(&self, start: u64, data: SectorBuffer) -> BoxFuture<'_, Result<(), BlockError>> {
        Box::pin(async move {
            check_request(&self.held.geometry, start, data.len())?;
            self.check_writable()?;
            self.request(Kind::Write, start, Some(data)).await.map(drop)
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), BlockError>> {
        Box::pin(async move {
            if self.held.geometry.read_only {
                return self.held.disk.check();
            }
            // Whether the backend has anything to flush is known where the ring is.
            self.request(Kind::Flush, 0, None).await.map(drop)
        })
    }

    fn discard(&self, start: u64, count: u64) -> BoxFuture<'_, Result<(), BlockError>> {
        Box::pin(async move {
            let geometry = &self.held.geometry;
            if count == 0 {
                let sector_bytes = geometry.sector_bytes;
                return Err(BlockError::Unaligned { len: 0, sector_bytes });
            }
            check_range(geometry, start, count)?;
            self.check_writable()?;
            if !geometry.discard {
                return Err(BlockError::Unsupported("discard"));
            }
            let sectors = self.small_sectors(count);
            self.request(Kind::Discard { sectors }, start, None).await.map(drop)
        })
    }
}

impl core::fmt::Debug for Blkfront {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Blkfront").field("geometry", &self.held.geometry).finish_non_exhaustive()
    }
}

/// What the handshake found out, as a program sees the disk.
fn geometry_of(settings: &handshake::Settings) -> Geometry {
    let handshake::Geometry { sectors, sector_bytes, read_only, .. } = settings.geometry;
    Geometry {
        sector_bytes: sector_bytes as usize,
        // A last sector that is not whole is none.
        sector_count: sectors / (u64::from(sector_bytes) / SECTOR_BYTES),
        read_only,
        discard: settings.discard.is_some() && !read_only,
    }
}

fn features_of(settings: &handshake::Settings) -> Features {
    let flush = match (settings.flush, settings.barrier) {
        (true, _) => Some(Operation::FlushDiskcache),
        (false, true) => Some(Operation::WriteBarrier),
        (false, false) => None,
    };
    let discard = settings.discard.map(|discard| {
        let sector_bytes = settings.geometry.sector_bytes;
        // A step that is no whole number of sectors is rounded to one.
        let sectors = |bytes: u32| u64::from(bytes).div_ceil(SECTOR_BYTES);
        let granularity = sectors(discard.granularity_bytes.max(sector_bytes));
        let alignment = sectors(discard.alignment_bytes) % granularity;
        DiscardSteps { granularity, alignment }
    });
    Features { indirect_segments_max: settings.indirect_segments_max as usize, flush, discard }
}

#[cfg(test)]
mod tests;
