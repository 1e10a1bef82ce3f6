//! [`NetCounters`]: what a network device did.

use core::sync::atomic::{AtomicU64, Ordering};

/// What a network device did since it was started. Each only grows.
#[derive(Debug, Default)]
pub struct NetCounters {
    /// Frames given to the stack.
    pub received: AtomicU64,
    /// Of those: frames that spanned several buffers and were joined.
    pub joined: AtomicU64,
    /// Frames dropped because they are no longer than an Ethernet header, longer than the MTU
    /// allows, or several segments of a kind that was not asked for.
    pub receive_unfit: AtomicU64,
    /// Of those given to the stack: frames of several TCP segments.
    pub received_segmented: AtomicU64,
    /// Frames queued for transmission.
    pub transmitted: AtomicU64,
    /// Of those: frames of TCP for the device to cut into segments.
    pub transmitted_segmented: AtomicU64,
    /// How often a frame had to wait because the device had all buffers.
    pub transmit_waits: AtomicU64,
}

impl NetCounters {
    /// One thread writes (the driver's); others may read. So no locked instruction is needed.
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }
}
