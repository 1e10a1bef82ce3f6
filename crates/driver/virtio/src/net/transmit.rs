//! [`Buffers`]: what frames to transmit are written into.
//!
//! Without segmentation there is one size, a frame's. With it the sender must be given 64 KiB each
//! time, though most frames are small; so there are a few large buffers, and what turns out to be
//! small is moved to a small one: a copy of at most a frame, against memory for a hundred large
//! buffers or a transmit queue that a few acknowledgements fill.

use super::header::HEADER_LEN;
use super::{BUFFERS_MAX, BUFFERS_MIN, ETHERNET_HEADER_LEN, IP_BYTES_MAX, count_within};
use fata_shared::dma::DmaBuffer;

/// Large buffers: as many as a connection has large frames in flight (a quarter of its window each).
const LARGE: usize = 4;
/// The same where all of them can be of 64 KiB: half of them are filled while the device has the others,
/// which is worth a fifth of a stream.
const LARGE_MAX: usize = 8;

/// Transmit buffers that the device does not have; the one used last is on top, warm.
pub(super) struct Buffers {
    small: Vec<DmaBuffer>,
    large: Vec<DmaBuffer>,
    small_len: usize,
    /// 0 if there are none.
    large_len: usize,
}

/// How many buffers of which size a budget allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) small: u16,
    small_len: usize,
    pub(super) large: u16,
    large_len: usize,
}

impl Plan {
    /// Half of `budget` bytes is for large buffers if the device cuts, up to 64 KiB each. If that
    /// is not worth it, because they would hold fewer than four frames, there are none.
    pub(super) fn new(budget: usize, mtu: usize, cuts: bool) -> Plan {
        let whole = HEADER_LEN + ETHERNET_HEADER_LEN + mtu;
        let most = HEADER_LEN + ETHERNET_HEADER_LEN + IP_BYTES_MAX;
        let count = if budget / 2 / LARGE_MAX >= 64 * 1024 { LARGE_MAX } else { LARGE };
        let large_len = if cuts { (budget / 2 / count).min(most) } else { 0 };
        if large_len < 4 * whole {
            let small = count_within(budget, whole);
            return Plan { small, small_len: whole, large: 0, large_len: 0 };
        }
        let large = count as u16;
        let small = count_within(budget - count * large_len, whole).min(BUFFERS_MAX - large);
        Plan { small, small_len: whole, large, large_len }
    }

    /// Buffers in all.
    pub(super) fn count(&self) -> u16 {
        self.small + self.large
    }

    /// Makes them, as many as fit into a queue of `size`.
    pub(super) fn make(mut self, size: u16) -> Buffers {
        if size < self.large + BUFFERS_MIN {
            (self.large, self.large_len) = (0, 0);
        }
        let small = self.small.min(size - self.large);
        Buffers {
            small: (0..small).map(|_| DmaBuffer::zeroed(self.small_len)).collect(),
            large: (0..self.large).map(|_| DmaBuffer::zeroed(self.large_len)).collect(),
            small_len: self.small_len,
            large_len: self.large_len,
        }
    }
}

impl Buffers {
    /// Length of the longest frame that is to be cut; 0 if none can be.
    pub(super) fn segmented_frame_bytes_max(&self) -> usize {
        self.large_len.saturating_sub(HEADER_LEN)
    }

    /// A buffer for whatever the sender has.
    pub(super) fn take(&mut self) -> Option<DmaBuffer> {
        if self.large_len > 0 { self.large.pop() } else { self.small.pop() }
    }

    /// The buffer to give to the device for the first `len` bytes of `buffer`: a small one if they
    /// fit and there is one.
    pub(super) fn settle(&mut self, buffer: DmaBuffer, len: usize) -> DmaBuffer {
        if buffer.len() == self.small_len || len > self.small_len {
            return buffer;
        }
        let Some(mut small) = self.small.pop() else { return buffer };
        small[..len].copy_from_slice(&buffer[..len]);
        self.large.push(buffer);
        small
    }

    /// Frees those that are here.
    pub(super) fn clear(&mut self) {
        self.small = Vec::new();
        self.large = Vec::new();
    }

    /// Takes a buffer back.
    pub(super) fn put(&mut self, buffer: DmaBuffer) {
        if buffer.len() == self.small_len {
            self.small.push(buffer);
        } else {
            self.large.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shared_between_large_and_small() {
        let most = Plan::new(1024 * 1024, 1500, true);
        assert_eq!((most.large, most.large_len), (8, 64 * 1024));
        assert_eq!(most.small, 248);
        let half = Plan::new(512 * 1024, 1500, true);
        assert_eq!((half.large, half.large_len), (4, 64 * 1024));
        assert_eq!(half.small, 171);
        // An eighth of a mebibyte, which a machine of 8 MiB gives.
        let little = Plan::new(128 * 1024, 1500, true);
        assert_eq!((little.large, little.large_len, little.small), (4, 16 * 1024, 42));
        // Too little: as without segmentation.
        assert_eq!(Plan::new(32 * 1024, 1500, true), Plan::new(32 * 1024, 1500, false));
        assert_eq!(Plan::new(0, 1500, true).count(), BUFFERS_MIN);
        let jumbo = Plan::new(512 * 1024, 65_535, true);
        assert_eq!((jumbo.large, jumbo.small), (0, 7), "nothing is larger than a frame");
        assert_eq!(Plan::new(usize::MAX, 1500, true).count(), BUFFERS_MAX);
    }

    #[test]
    fn a_short_queue_has_small_buffers_only() {
        let plan = Plan::new(512 * 1024, 1500, true);
        assert_eq!(plan.make(4).segmented_frame_bytes_max(), 0);
        assert_eq!(plan.make(4).small.len(), 4);
        let buffers = plan.make(16);
        assert_eq!((buffers.small.len(), buffers.large.len()), (12, 4));
    }

    #[test]
    fn what_is_small_goes_in_a_small_buffer_while_there_is_one() {
        let mut buffers = Plan::new(128 * 1024, 1500, true).make(256);
        let small = buffers.small.len();
        let mut out = Vec::new();
        for number in 0..small + 2 {
            let mut buffer = buffers.take().unwrap();
            assert!(buffer.len() > 10_000);
            buffer[..3].fill(number as u8);
            let settled = buffers.settle(buffer, 1526);
            assert_eq!(settled[..3], [number as u8; 3]);
            assert_eq!(settled.len() == 1526, number < small);
            out.push(settled);
        }
        assert_eq!(buffers.large.len(), 2);
        out.into_iter().for_each(|buffer| buffers.put(buffer));
        assert_eq!((buffers.small.len(), buffers.large.len()), (small, 4));
        let large = buffers.take().unwrap();
        assert!(buffers.settle(large, 1527).len() > 10_000);
    }
}
