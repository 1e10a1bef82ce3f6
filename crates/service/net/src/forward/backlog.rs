//! [`Backlog`]: frames that wait for their way out, in memory that is allocated once.

use fata_device::{PartialChecksum, Segmentation, Transmit};
use std::collections::VecDeque;

/// How a frame leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it is, with what the device does to it.
    Whole(Transmit),
    /// Cut into segments here, their checksums finished here or by the device.
    Cut { segmentation: Segmentation, is_checksum_left: bool },
}

impl Manner {
    /// As it is, complete but for a checksum that the device may finish.
    pub(crate) fn whole(len: usize, partial_checksum: Option<PartialChecksum>) -> Self {
        Manner::Whole(Transmit { partial_checksum, ..Transmit::complete(len) })
    }
}

#[derive(Clone, Copy, Debug)]
struct Record {
    at: usize,
    len: usize,
    manner: Manner,
}

/// Frames in the order of their arrival, each in one piece: a ring of bytes whose end stays empty
/// where a frame does not fit.
pub(crate) struct Backlog {
    bytes: Box<[u8]>,
    records: VecDeque<Record>,
    records_max: usize,
    /// First byte after the newest frame.
    end: usize,
}

/// A frame is at least so long in the ring's books: minimal Ethernet.
const FRAME_BYTES_MIN: usize = 60;

impl Backlog {
    /// Room for frames of `bytes` in all.
    pub(crate) fn new(bytes: usize) -> Self {
        // So that their number is bounded, and the list never grows.
        let records_max = (bytes / FRAME_BYTES_MIN).max(1);
        Backlog {
            bytes: vec![0; bytes].into(),
            records: VecDeque::with_capacity(records_max),
            records_max,
            end: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Where `len` bytes fit.
    fn place(&self, len: usize) -> Option<usize> {
        if self.records.len() >= self.records_max {
            return None;
        }
        match self.records.front() {
            None => (len <= self.bytes.len()).then_some(0),
            // The newest frame is behind the oldest.
            Some(oldest) if self.end > oldest.at => {
                if len <= self.bytes.len() - self.end {
                    Some(self.end)
                } else {
                    (len <= oldest.at).then_some(0)
                }
            }
            Some(oldest) => (len <= oldest.at - self.end).then_some(self.end),
        }
    }

    /// Adds a frame; false if there is no room for it.
    #[must_use]
    pub(crate) fn push(&mut self, frame: &[u8], manner: Manner) -> bool {
        let Some(at) = self.place(frame.len()) else { return false };
        self.bytes[at..at + frame.len()].copy_from_slice(frame);
        self.end = at + frame.len();
        self.records.push_back(Record { at, len: frame.len(), manner });
        true
    }

    /// The oldest frame.
    pub(crate) fn front(&self) -> Option<(&[u8], Manner)> {
        let record = self.records.front()?;
        Some((&self.bytes[record.at..record.at + record.len], record.manner))
    }

    /// Forgets the oldest frame.
    pub(crate) fn pop(&mut self) {
        self.records.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain list: whatever the lengths, frames come out as they went in, and a frame is
    /// refused only if as much is really in use or lost at the end.
    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut state: u32 = 7;
        let mut roll = move |bound: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % bound
        };
        let mut backlog = Backlog::new(4096);
        let mut expected: VecDeque<Vec<u8>> = VecDeque::new();
        let mut refused = 0;
        for number in 0..20_000u32 {
            if roll(100) < 55 {
                let len = 14 + roll(1500) as usize;
                let frame = vec![number as u8; len];
                if backlog.push(&frame, Manner::whole(len, None)) {
                    expected.push_back(frame);
                } else {
                    refused += 1;
                    let held: usize = expected.iter().map(Vec::len).sum();
                    assert!(held + 2 * 1514 > 4096, "{len} refused with {held} held");
                }
            } else if let Some(frame) = expected.pop_front() {
                let (bytes, manner) = backlog.front().unwrap();
                assert_eq!((bytes, manner), (&frame[..], Manner::whole(frame.len(), None)));
                backlog.pop();
            }
            assert_eq!(backlog.is_empty(), expected.is_empty());
        }
        assert!(refused > 100);
        assert_eq!(backlog.records.capacity(), Backlog::new(4096).records.capacity());
    }

    #[test]
    fn a_frame_that_is_longer_than_all_is_refused() {
        let mut backlog = Backlog::new(100);
        assert!(!backlog.push(&[0; 101], Manner::whole(101, None)));
        assert!(backlog.push(&[0; 100], Manner::whole(100, None)));
        assert!(!backlog.push(&[], Manner::whole(0, None)), "as many as there are records");
    }
}
