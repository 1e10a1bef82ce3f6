//! What a backend has done so far.

use core::sync::atomic::{AtomicU64, Ordering};

/// What a backend has done so far, for all its frontends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlkbackCounters {
    /// Frontends that were connected.
    pub frontends: u64,
    /// Frontends that were disconnected because they broke the rules of their ring.
    pub faults: u64,
    /// Requests that were taken.
    pub requests: u64,
    /// Requests that were answered with an error: wrong ones, and those that the disk refused.
    pub refused: u64,
    /// Bytes that were read from the disk.
    pub bytes_read: u64,
    /// Bytes that were written to it.
    pub bytes_written: u64,
    /// Copies between our memory and a frontend's.
    pub copies: u64,
    /// Event notifications sent.
    pub notifications: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(super) frontends: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) bytes_read: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) copies: AtomicU64,
    pub(super) notifications: AtomicU64,
}

impl Counts {
    pub(super) fn add(&self, which: &AtomicU64, by: usize) {
        which.fetch_add(by as u64, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> BlkbackCounters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        BlkbackCounters {
            frontends: read(&self.frontends),
            faults: read(&self.faults),
            requests: read(&self.requests),
            refused: read(&self.refused),
            bytes_read: read(&self.bytes_read),
            bytes_written: read(&self.bytes_written),
            copies: read(&self.copies),
            notifications: read(&self.notifications),
        }
    }
}
