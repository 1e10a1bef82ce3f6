//! [`Block`]: a disk as programs hold it.

use fata_device::{BlockError, BoxFuture, Geometry, SectorBuffer};
use std::fmt;
use std::sync::Arc;

/// A disk that the wiring opened. Cheap to clone; all clones are the same disk.
///
/// Its methods are those of the trait [`fata_device::Block`], which says what holds after an error,
/// a dropped future or a loss of power.
#[derive(Clone)]
pub struct Block {
    backend: Arc<dyn fata_device::Block>,
}

impl Block {
    /// Wraps a backend; for wirings and tests, which are who can have one.
    pub fn new(backend: impl fata_device::Block) -> Self {
        Block { backend: Arc::new(backend) }
    }

    /// Size and abilities.
    pub fn geometry(&self) -> Geometry {
        self.backend.geometry()
    }

    /// Reads `count` sectors from sector `start` on.
    ///
    /// # Errors
    /// See [`fata_device::Block::read`].
    pub async fn read(&self, start: u64, count: usize) -> Result<SectorBuffer, BlockError> {
        self.backend.read(start, count).await
    }

    /// Writes `data` from sector `start` on. It survives a loss of power after the next
    /// [`flush`](Block::flush).
    ///
    /// # Errors
    /// See [`fata_device::Block::write`].
    pub async fn write(&self, start: u64, data: SectorBuffer) -> Result<(), BlockError> {
        self.backend.write(start, data).await
    }

    /// Makes all that was written survive a loss of power.
    ///
    /// # Errors
    /// See [`fata_device::Block::flush`].
    pub async fn flush(&self) -> Result<(), BlockError> {
        self.backend.flush().await
    }

    /// Tells the disk that `count` sectors from `start` on hold nothing of value.
    ///
    /// # Errors
    /// See [`fata_device::Block::discard`].
    pub async fn discard(&self, start: u64, count: u64) -> Result<(), BlockError> {
        self.backend.discard(start, count).await
    }
}

impl fata_device::Block for Block {
    fn geometry(&self) -> Geometry {
        self.backend.geometry()
    }

    fn read(&self, start: u64, count: usize) -> BoxFuture<'_, Result<SectorBuffer, BlockError>> {
        self.backend.read(start, count)
    }

    fn write(&self, start: u64, data: SectorBuffer) -> BoxFuture<'_, Result<(), BlockError>> {
        self.backend.write(start, data)
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), BlockError>> {
        self.backend.flush()
    }

    fn discard(&self, start: u64, count: u64) -> BoxFuture<'_, Result<(), BlockError>> {
        self.backend.discard(start, count)
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("geometry", &self.geometry()).finish()
    }
}
