//! [`NetCounters`]: what a network interface did.

use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// What a network interface did since it was started, whichever end it is. Each only grows.
        #[derive(Debug, Default)]
        pub struct NetCounters {
            $($(#[doc = $doc])+ pub $name: AtomicU64,)*
        }

        impl NetCounters {
            /// All, with their names.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Frames given to the stack.
    received,
    /// Their bytes.
    received_bytes,
    /// Of those frames: with a blank checksum.
    received_blank,
    /// Of those frames: several segments in one.
    received_segmented,
    /// Frames passed over: shorter than an Ethernet header, longer than the MTU allows, marked as
    /// failed by the other end, or with what was not agreed.
    receive_unfit,
    /// Frames queued for transmission.
    transmitted,
    /// Their bytes.
    transmitted_bytes,
    /// Of those frames: with a checksum that the other end is to finish.
    transmitted_blank,
    /// Of those frames: several segments in one.
    transmitted_segmented,
    /// How often a frame had to wait because the ring or the buffers were full.
    transmit_waits,
    /// Frames that the other end did not take: it said so, or its page could not be written.
    transmit_failed,
    /// Frames dropped because the other end lends no pages, and has not for a while. (Netback.)
    transmit_stalled,
    /// Notifications sent.
    notifications,
    /// Batches that needed no notification, because the other end was awake.
    notifications_spared,
    /// Calls of the hypervisor that copied a batch. (Netback.)
    copy_batches,
    /// Pieces of frames in those batches. (Netback.)
    copies,
    /// How often the interface was connected.
    connections,
}

impl NetCounters {
    /// One thread writes (the driver's); others may read. So no locked instruction is needed.
    pub(super) fn add(counter: &AtomicU64, count: usize) {
        counter
            .store(counter.load(Ordering::Relaxed).wrapping_add(count as u64), Ordering::Relaxed);
    }
}
