//! [`VirtioBlock`]: virtio's block device (virtio 1.2, section 5.2) as a [`Block`].
//!
//! Several requests are in flight at once, each in a slot of its own that owns all the memory the
//! device may use for it. A future only looks at its slot: one that is dropped leaves the slot to
//! the device until the request is done. Nobody needs to be spawned: the interrupt itself takes
//! finished requests from the ring and wakes those who wait for them.

mod config;
mod request;
mod slots;

use crate::control::Control;
use crate::error::ProbeError;
use crate::transport::Transport;
use config::Limits;
use fata_device::block::{check_range, check_request};
use fata_device::{Block, BlockError, BoxFuture, Geometry, SectorBuffer};
use request::{Kind, Request};
use slots::Disk;
use std::sync::Arc;

/// Length of a disk's serial number (section 5.2.6, `VIRTIO_BLK_T_GET_ID`).
const SERIAL_LEN: usize = 20;

/// How much memory and time requests may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockOptions {
    /// How many requests may be in flight at once (1 to 256); more wait. Each costs 64 bytes and
    /// three descriptors.
    pub requests_max: u16,
    /// The longest piece, in bytes, in which a long read or write is asked of the device; at least
    /// a sector. A longer one takes several requests, one after the other.
    pub piece_bytes_max: u32,
}

impl Default for BlockOptions {
    /// 32 requests: as deep as disks gain by it. 8 MiB: long enough that the cost of a request does
    /// not count, short enough that another one gets its turn.
    fn default() -> Self {
        BlockOptions { requests_max: 32, piece_bytes_max: 8 * 1024 * 1024 }
    }
}

/// A virtio disk. Clones are the same disk.
#[derive(Clone)]
pub struct VirtioBlock {
    disk: Arc<Disk>,
    geometry: Geometry,
    limits: Limits,
}

impl VirtioBlock {
    pub(crate) fn start(
        transport: Box<dyn Transport>,
        options: &BlockOptions,
    ) -> Result<Self, ProbeError> {
        let mut control = Control::start(transport, config::WANTED, 1)?;
        let (geometry, limits) = config::read(&control, options)?;

        // So many slots that a request in a slot always finds its descriptors.
        let per_request = 2 + limits.segments_max;
        let wanted = options.requests_max.clamp(1, 256).saturating_mul(per_request);
        let size = control.queue_size(0, per_request.next_power_of_two(), wanted)?;
        let queue = control.queue(0, size)?;
        let slots = (size / per_request).min(options.requests_max.clamp(1, 256));
        control.run();
        Ok(VirtioBlock { disk: Disk::new(control, queue, slots), geometry, limits })
    }

    /// The disk's serial number, by which a manifest's name finds its disk: up to 20 bytes, those
    /// from the first NUL on left away, others that are no ASCII shown as `?`.
    ///
    /// # Errors
    /// [`BlockError::Unsupported`] and [`BlockError::Medium`] if the disk does not say, and the two
    /// that end the device.
    pub async fn serial(&self) -> Result<String, BlockError> {
        let buffer = SectorBuffer::zeroed(SERIAL_LEN);
        let serial = self.request(Kind::Identify, 0, Some(buffer)).await?;
        let bytes = serial.as_deref().unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let shown = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' };
        Ok(bytes[..end].iter().map(shown).collect())
    }

    /// Makes a request, waits for its end and gives its buffer back. `sector` counts 512 bytes.
    async fn request(
        &self,
        kind: Kind,
        sector: u64,
        data: Option<SectorBuffer>,
    ) -> Result<Option<SectorBuffer>, BlockError> {
        let request = Request::new(kind, sector, data, &self.limits);
        slots::Submission::new(&self.disk, request).await
    }

    /// `count` of the disk's sectors, in sectors of 512 bytes. The request was checked, so it fits.
    fn to_virtio_sectors(&self, count: u64) -> u64 {
        count * (self.geometry.sector_bytes as u64 / config::SECTOR_BYTES)
    }

    fn check_writable(&self) -> Result<(), BlockError> {
        if self.geometry.read_only { Err(BlockError::ReadOnly) } else { Ok(()) }
    }
}

impl Block for VirtioBlock {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&self, start: u64, count: usize) -> BoxFuture<'_, Result<SectorBuffer, BlockError>> {
        Box::pin(async move {
            let sector_bytes = self.geometry.sector_bytes;
            if count == 0 {
                return Err(BlockError::Unaligned { len: 0, sector_bytes });
            }
            // Before the buffer is made: nobody asks for more memory than the disk has sectors.
            check_range(&self.geometry, start, count as u64)?;
            let buffer = SectorBuffer::zeroed(count * sector_bytes);
            let sector = self.to_virtio_sectors(start);
            match self.request(Kind::Read, sector, Some(buffer)).await? {
                Some(buffer) => Ok(buffer),
                None => Err(BlockError::Disconnected),
            }
        })
    }

    fn write(&self, start: u64, data: SectorBuffer) -> BoxFuture<'_, Result<(), BlockError>> {
        Box::pin(async move {
            check_request(&self.geometry, start, data.len())?;
            self.check_writable()?;
            let sector = self.to_virtio_sectors(start);
            self.request(Kind::Write, sector, Some(data)).await.map(drop)
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), BlockError>> {
        Box::pin(async move {
            // Section 5.2.6.2: without the feature each write is stable when it is done.
            if self.geometry.read_only || !self.limits.can_flush {
                return self.disk.check();
            }
            self.request(Kind::Flush, 0, None).await.map(drop)
        })
    }

    fn discard(&self, start: u64, count: u64) -> BoxFuture<'_, Result<(), BlockError>> {
        Box::pin(async move {
            let sector_bytes = self.geometry.sector_bytes;
            if count == 0 {
                return Err(BlockError::Unaligned { len: 0, sector_bytes });
            }
            check_range(&self.geometry, start, count)?;
            self.check_writable()?;
            if !self.geometry.discard {
                return Err(BlockError::Unsupported("discard"));
            }
            let sector = self.to_virtio_sectors(start);
            let kind = Kind::Discard { sectors: self.to_virtio_sectors(count) };
            self.request(kind, sector, None).await.map(drop)
        })
    }
}

impl core::fmt::Debug for VirtioBlock {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VirtioBlock")
            .field("geometry", &self.geometry)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
