//! [`PortCounters`]: what went through one port of a forwarder or router.

use core::sync::atomic::{AtomicU64, Ordering};

/// What went in and out of one port, since it was attached. Each only grows. *In* is what the
/// interface received.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Frames in.
    pub frames_in: AtomicU64,
    /// Bytes of those frames.
    pub bytes_in: AtomicU64,
    /// Of the frames in: several TCP segments in one.
    pub large_in: AtomicU64,
    /// Frames out. One that was cut here counts as what it was cut into.
    pub frames_out: AtomicU64,
    /// Bytes of those frames.
    pub bytes_out: AtomicU64,
    /// Of the frames out: several TCP segments, for the device to cut.
    pub large_out: AtomicU64,
    /// Frames that were cut here, because the device does not.
    pub cut: AtomicU64,
    /// Checksums that were finished here, because the device does not. Those of segments that were
    /// cut here are not counted.
    pub checksums_finished: AtomicU64,
    /// Frames that had to wait because the device had all buffers.
    pub waited: AtomicU64,
    /// Frames dropped because too many waited already.
    pub dropped_backlog: AtomicU64,
    /// Frames dropped because they, or the segments in them, are longer than the way out allows.
    pub dropped_too_long: AtomicU64,
    /// Frames dropped because they are no frames, or cannot be what was said of them.
    pub dropped_malformed: AtomicU64,
}

impl PortCounters {
    /// One thread writes (the forwarder's); others may read. So no locked instruction is needed.
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        let sum = counter.load(Ordering::Relaxed).wrapping_add(count as u64);
        counter.store(sum, Ordering::Relaxed);
    }
}
