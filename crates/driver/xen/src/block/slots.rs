//! The disks that this guest was given, before they are started.

use super::{Blkfront, BlkfrontOptions, DiskName};
use crate::{Xen, XenError};
use core::fmt;

/// How many disks are looked at. More than any guest has: Xen's old names end after 16, its hosts
/// give a guest some dozens.
const DISKS_MAX: usize = 256;

/// A disk that this guest was given and that was not started.
#[derive(Clone)]
pub struct BlockSlot {
    xen: Xen,
    name: DiskName,
}

impl BlockSlot {
    /// What the disk is called; see [`select`](super::select).
    pub fn name(&self) -> &DiskName {
        &self.name
    }

    /// Connects to the disk's backend. To be called in a tokio runtime, where the device's task
    /// stays.
    ///
    /// # Errors
    /// [`XenError::Handshake`], with the state that a backend that does not come is in.
    pub async fn start(&self, options: &BlkfrontOptions) -> Result<Blkfront, XenError> {
        let path = format!("device/vbd/{}", self.name.vdev);
        Blkfront::start(&self.xen, path, self.name.vdev, options).await
    }
}

impl AsRef<DiskName> for BlockSlot {
    fn as_ref(&self) -> &DiskName {
        &self.name
    }
}

impl fmt::Debug for BlockSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockSlot({})", self.name)
    }
}

impl Xen {
    /// The disks that the toolstack gave this guest (`device/vbd`), by number.
    ///
    /// # Errors
    /// XenStore's. A key that holds nonsense is passed over.
    pub async fn block_frontends(&self) -> Result<Vec<BlockSlot>, XenError> {
        let names = self.store().list("device/vbd").await?;
        let mut vdevs: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        vdevs.sort_unstable();
        vdevs.dedup();
        vdevs.truncate(DISKS_MAX);
        let mut slots = Vec::with_capacity(vdevs.len());
        for vdev in vdevs {
            let params = self.params_of(vdev).await?;
            slots.push(BlockSlot { xen: self.clone(), name: DiskName { vdev, params } });
        }
        Ok(slots)
    }

    /// What is behind a disk, as its backend says, if it says.
    async fn params_of(&self, vdev: u32) -> Result<Option<String>, XenError> {
        let backend = self.store().read(&format!("device/vbd/{vdev}/backend")).await?;
        let Some(backend) = backend.and_then(|path| String::from_utf8(path).ok()) else {
            return Ok(None);
        };
        // The backend's directory may be missing, or not be ours to read.
        let params = self.store().read(&format!("{backend}/params")).await;
        let params = match params {
            Err(XenError::Store { .. }) => None,
            params => params?,
        };
        let params = params.and_then(|params| String::from_utf8(params).ok());
        Ok(params.filter(|params| !params.is_empty()))
    }
}
