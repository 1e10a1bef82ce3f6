//! [`Export`]: a disk that this program gives to other guests.

use fata_device::Block;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

/// A way to serve a disk to other guests: blkback, for storage domains.
///
/// On Xen, every guest whose configuration names this one as a disk's backend
/// (`disk = ["backend=NAME, …"]`) reads and writes the disk that is served. Other targets have no
/// guests beside them, and their wiring refuses the device.
pub struct Export {
    server: Box<dyn Server>,
}

/// How a target serves disks.
pub(crate) trait Server: Send {
    /// Serves `disk` until the host closes down.
    fn serve(
        self: Box<Self>,
        disk: Arc<dyn Block>,
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;
}

impl Export {
    #[cfg_attr(not(fata_target = "xen"), expect(dead_code, reason = "only Xen has blkback"))]
    pub(crate) fn new(server: impl Server + 'static) -> Self {
        Export { server: Box::new(server) }
    }

    /// Serves `disk` to every guest that asks, at the same time.
    ///
    /// # Errors
    /// When the guests can be watched no longer; the text says why. What one guest does wrong ends
    /// that guest's disk, not this.
    pub async fn serve(self, disk: impl Block) -> io::Result<()> {
        self.server.serve(Arc::new(disk)).await
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Export")
    }
}
