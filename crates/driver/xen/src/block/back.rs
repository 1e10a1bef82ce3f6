//! [`BlockBackends`]: lends a disk of ours to other guests.
//!
//! The toolstack writes a directory `backend/vbd/<guest>/<vdev>` for each disk that a guest was
//! given from here; each is a handshake in a task of its own, which also serves the ring while
//! there is one. What one guest does wrong closes its ring, and it may come again.

pub(super) mod counters;
mod keeper;
pub(super) mod server;

pub use counters::BlkbackCounters;

use crate::xenbus;
use crate::{Xen, XenError};
use core::fmt;
use core::future::{Future, poll_fn};
use core::task::Poll;
use counters::Counts;
use fata_device::Block;
use fata_xenbus::handshake::block as handshake;
use fata_xenbus::handshake::{Ending, Serving};
use keeper::Keeper;
use server::ServeLimits;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Where the toolstack writes who is to be served.
const DIRECTORY: &str = "backend/vbd";

/// What lending a disk may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlkbackOptions {
    /// How many disks of guests are served at once; others wait until one ends. 64: the greatest of
    /// each below makes 80 MiB, and few do much at once.
    pub frontends_max: usize,
    /// Requests of one frontend's at the disk at once; others wait in the ring. 32: a ring of a page.
    pub requests_max: usize,
    /// Bytes of one frontend's requests at the disk at once, beyond which no more are taken; the
    /// last taken may go over it. 1 MiB: four of the longest requests.
    pub bytes_max: usize,
    /// Pages of the longest request that is offered, at most 4096. 64 (256 KiB).
    pub indirect_segments_max: u16,
    /// A frontend's ring has up to `1 << ring_page_order_max` pages, at most 4. 2: 128 requests,
    /// of which more than `requests_max` wait.
    pub ring_page_order_max: u32,
    /// Guests may only read, whatever the toolstack allows.
    pub read_only: bool,
}

impl Default for BlkbackOptions {
    fn default() -> Self {
        BlkbackOptions {
            frontends_max: 64,
            requests_max: 32,
            bytes_max: 1 << 20,
            indirect_segments_max: 64,
            ring_page_order_max: 2,
            read_only: false,
        }
    }
}

/// A disk of ours that is lent to other guests, while [`serve`](BlockBackends::serve) runs.
pub struct BlockBackends {
    xen: Xen,
    disk: Arc<dyn Block>,
    options: BlkbackOptions,
    counts: Arc<Counts>,
}

impl Xen {
    /// Lends `disk` to every guest that the toolstack gave a disk from this one.
    pub fn block_backends(&self, disk: Arc<dyn Block>, options: BlkbackOptions) -> BlockBackends {
        BlockBackends { xen: self.clone(), disk, options, counts: Arc::default() }
    }
}

/// A disk of a guest's: the names in its directory.
type Name = (u16, u32);

impl BlockBackends {
    /// What was done so far.
    pub fn counters(&self) -> BlkbackCounters {
        self.counts.read()
    }

    /// Serves until XenStore is lost. To be called in a tokio runtime. Dropping the future ends all
    /// that is served at once, without a word to the guests.
    ///
    /// # Errors
    /// XenStore's end.
    pub async fn serve(&self) -> Result<(), XenError> {
        let mut watch = self.xen.store().watch(DIRECTORY).await?;
        let mut known = BTreeSet::new();
        let mut failed = Vec::new();
        let mut tasks = JoinSet::new();
        loop {
            let happened = poll_fn(|cx| {
                if let Poll::Ready(Some(ended)) = tasks.poll_join_next(cx) {
                    return Poll::Ready(Ok(Some(ended)));
                }
                watch.poll_next(cx).map(|fired| fired.map(|()| None))
            });
            match happened.await? {
                None => failed.drain(..).for_each(|name| {
                    known.remove(&name);
                }),
                Some(Ok((_, Err(lost)))) if self.xen.store().broken().is_some() => {
                    return Err(lost);
                }
                // Its directory is no good. It is looked at again when something has changed.
                Some(Ok((name, Err(_)))) => failed.push(name),
                // The toolstack took it away, and may have made it anew meanwhile.
                Some(Ok((name, Ok(_)))) => {
                    known.remove(&name);
                }
                Some(Err(lost)) => {
                    return Err(XenError::Device(format!("a task of blkback ended: {lost}")));
                }
            }
            self.admit(&mut known, &mut tasks).await?;
        }
    }

    /// Begins to serve what is there and is not served.
    async fn admit(
        &self,
        known: &mut BTreeSet<Name>,
        tasks: &mut JoinSet<(Name, Result<Ending, XenError>)>,
    ) -> Result<(), XenError> {
        for guest in self.numbers(DIRECTORY).await? {
            for vdev in self.numbers(&format!("{DIRECTORY}/{guest}")).await? {
                if tasks.len() >= self.options.frontends_max {
                    return Ok(());
                }
                if known.insert((guest, vdev)) {
                    let task = self.one(guest, vdev).await?;
                    tasks.spawn(async move { ((guest, vdev), task.await) });
                }
            }
        }
        Ok(())
    }

    /// The names in a directory that are numbers.
    async fn numbers<N: core::str::FromStr>(&self, path: &str) -> Result<Vec<N>, XenError> {
        let names = self.xen.store().list(path).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// One guest's disk, from its handshake to its end.
    async fn one(
        &self,
        guest: u16,
        vdev: u32,
    ) -> Result<impl Future<Output = Result<Ending, XenError>> + Send + use<>, XenError> {
        let path = format!("{DIRECTORY}/{guest}/{vdev}");
        let store = self.xen.store().clone();
        let mode = store.read(&format!("{path}/mode")).await?;
        let lent = self.disk.geometry();
        let read_only = lent.read_only
            || self.options.read_only
            || mode.is_some_and(|mode| mode.starts_with(b"r"));
        let limits = ServeLimits {
            requests_max: self.options.requests_max.max(1),
            bytes_max: self.options.bytes_max,
            indirect_segments_max: self.options.indirect_segments_max.into(),
            read_only,
        };
        let sector_bytes = lent.sector_bytes as u32;
        let discard = handshake::Discard {
            granularity_bytes: sector_bytes,
            alignment_bytes: 0,
            secure: false,
        };
        let offer = handshake::BackendOptions {
            ring_page_order_max: self.options.ring_page_order_max,
            // Xen copies for us, and nothing stays mapped.
            persistent: false,
            indirect_segments_max: limits.indirect_segments_max as u32,
            geometry: handshake::Geometry {
                sectors: lent.sector_count * (lent.sector_bytes as u64 / 512),
                sector_bytes,
                physical_sector_bytes: sector_bytes,
                read_only,
                cdrom: false,
                removable: false,
            },
            flush: true,
            barrier: true,
            discard: (lent.discard && !read_only).then_some(discard),
        };
        let keeper = Keeper::new(
            self.xen.hypervisor().clone(),
            self.disk.clone(),
            limits,
            self.counts.clone(),
        );
        let serving = Serving::new(path.clone());
        let machine = |now| handshake::Backend::new(serving, offer, now);
        Ok(xenbus::serve(store, path, machine, keeper))
    }
}

impl fmt::Debug for BlockBackends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockBackends").field("options", &self.options).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
