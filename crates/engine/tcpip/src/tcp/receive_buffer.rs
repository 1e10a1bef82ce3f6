//! Bytes that arrived: those in order that the program has not read, and those ahead of a gap.
//!
//! Everything lies in one ring at its final place, so a byte is copied in once whatever the order
//! of arrival. Which places ahead of the gap are filled is a short sorted list of ranges. The first
//! copy of a byte wins: what was acknowledged or checked before cannot be changed by a later
//! segment that claims the same sequence numbers.

use crate::tcp::Seq;
use crate::tcp::memory::{Memory, Ring};
use crate::wire::tcp::SackBlocks;

/// Sequence numbers from the first up to, not including, the second.
pub(crate) type Range = (Seq, Seq);

/// Ranges whose order of arrival is remembered: three SACK blocks fit beside timestamps, and a
/// fourth without.
const RECENT_MAX: usize = 4;

/// See the module.
pub(crate) struct ReceiveBuffer {
    ring: Ring,
    /// In order and unread. The ring's head is the oldest of them.
    unread: u32,
    /// The first sequence number that has not arrived; FIN does not count.
    next: Seq,
    /// What arrived after `next`: not empty, not adjacent, in order.
    ranges: Vec<Range>,
    /// A number in each of the ranges that last changed, the newest first (RFC 2018 §4).
    recent: [Seq; RECENT_MAX],
    recent_len: u8,
    /// The first part of the last segment that had arrived before, until an ACK tells (RFC 2883).
    duplicate: Option<Range>,
    /// The sequence number of the peer's FIN. Nothing is after it.
    fin: Option<Seq>,
}

/// What became of a segment's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// `next` moved.
    InOrder,
    /// Kept, ahead of a gap; or had arrived before.
    OutOfOrder,
    /// There was no room: no memory, or too many ranges.
    Refused,
}

impl ReceiveBuffer {
    /// An empty buffer that waits for `next`.
    pub(crate) const fn new(next: Seq, ring: Ring) -> Self {
        ReceiveBuffer {
            ring,
            unread: 0,
            next,
            ranges: Vec::new(),
            recent: [next; RECENT_MAX],
            recent_len: 0,
            duplicate: None,
            fin: None,
        }
    }

    /// Bytes that can be read.
    pub(crate) const fn unread(&self) -> u32 {
        self.unread
    }

    /// RCV.NXT: what the next ACK acknowledges, FIN included.
    pub(crate) fn acknowledge(&self) -> Seq {
        if self.is_finished() { self.next + 1 } else { self.next }
    }

    /// The peer's FIN and everything before it has arrived.
    pub(crate) fn is_finished(&self) -> bool {
        self.fin == Some(self.next)
    }

    /// Something is missing before something that has arrived.
    pub(crate) fn has_gap(&self) -> bool {
        !self.ranges.is_empty() || self.fin.is_some_and(|fin| fin != self.next)
    }

    /// Nothing has arrived ahead of a gap, nor the FIN.
    pub(crate) fn is_plain(&self) -> bool {
        self.ranges.is_empty() && self.fin.is_none()
    }

    /// Takes the next bytes, while the buffer is [plain](Self::is_plain); `bytes_max` is the largest
    /// size of the ring. False if there is no memory for all of them: then none is taken.
    pub(crate) fn append(&mut self, payload: &[u8], bytes_max: usize, memory: &mut Memory) -> bool {
        debug_assert!(self.is_plain());
        let offset = self.unread as usize;
        let needed = offset + payload.len();
        if self.ring.reserve(memory, needed, offset, bytes_max) < needed {
            return false;
        }
        self.ring.write_at(offset, payload);
        self.advance(self.next + payload.len() as u32);
        true
    }

    /// Notes that [`start`, `end`) arrived again, for the next ACK to tell.
    pub(crate) fn note_duplicate(&mut self, start: Seq, end: Seq) {
        if start.before(end) {
            self.duplicate = Some((start, end));
        }
    }

    /// How many blocks [`take_sack`](Self::take_sack) gives of at most `max`.
    pub(crate) fn sack_count(&self, max: usize) -> usize {
        (usize::from(self.duplicate.is_some()) + self.ranges.len()).min(max)
    }

    /// The blocks of the next ACK, at most `max`: first what arrived twice (RFC 2883 §4), then the
    /// ranges ahead of a gap, those that changed last first (RFC 2018 §4), then those nearest to
    /// the gap.
    pub(crate) fn take_sack(&mut self, max: usize) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        if max == 0 {
            return blocks;
        }
        if let Some(duplicate) = self.duplicate.take() {
            blocks.push(duplicate);
        }
        let max = max.saturating_sub(blocks.as_slice().len());
        if max == 0 || self.ranges.is_empty() {
            return blocks;
        }
        let mut named: [usize; RECENT_MAX] = [usize::MAX; RECENT_MAX];
        let mut count = 0;
        let recent = self.recent[..self.recent_len.into()].iter();
        let recent = recent.filter_map(|&number| self.range_of(number));
        for index in recent.chain(0..self.ranges.len().min(2 * RECENT_MAX)) {
            if count == max.min(RECENT_MAX) {
                break;
            }
            if !named[..count].contains(&index) {
                named[count] = index;
                count += 1;
                blocks.push(self.ranges[index]);
            }
        }
        blocks
    }

    /// Which range `number` lies in, if any.
    fn range_of(&self, number: Seq) -> Option<usize> {
        let index = self.ranges.partition_point(|&(_, end)| end.at_or_before(number));
        self.ranges
            .get(index)
            .is_some_and(|&(start, _)| start.at_or_before(number))
            .then_some(index)
    }

    /// The range that begins at `start` and ends at `end` has changed last.
    fn note_recent(&mut self, (start, end): Range) {
        let mut recent = [start; RECENT_MAX];
        let mut count = 1;
        for &number in &self.recent[..self.recent_len.into()] {
            let is_same = number.at_or_after(start) && number.before(end);
            if !is_same && number.at_or_after(self.next) && count < RECENT_MAX {
                recent[count] = number;
                count += 1;
            }
        }
        (self.recent, self.recent_len) = (recent, count as u8);
    }

    /// Bytes of memory held.
    pub(crate) const fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// Forgets the farther half of what has arrived ahead of a gap, which the peer must send again
    /// (RFC 2018 §8 allows it); returns how many ranges these were.
    pub(crate) fn shed(&mut self, memory: &mut Memory) -> usize {
        let (before, kept) = (self.ranges.len(), self.ranges.len() / 2);
        self.ranges.truncate(kept);
        memory.count_ranges(before, kept);
        before - kept
    }

    /// Ranges ahead of a gap.
    pub(crate) const fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// Takes a payload that starts at or after `next` and ends inside the window. `bytes_max` is
    /// the largest size of the ring, `ranges_max` that of the list.
    pub(crate) fn insert(
        &mut self,
        start: Seq,
        mut payload: &[u8],
        bytes_max: usize,
        ranges_max: usize,
        memory: &mut Memory,
    ) -> Arrival {
        // Nothing is after the FIN.
        if let Some(fin) = self.fin {
            payload = &payload[..payload.len().min(fin.since(start) as usize)];
        }
        let offset = (self.unread + start.since(self.next)) as usize;
        let used = (self.unread + self.farthest().since(self.next)) as usize;
        let room = self.ring.reserve(memory, offset + payload.len(), used, bytes_max);
        payload = &payload[..payload.len().min(room.saturating_sub(offset))];
        if payload.is_empty() {
            return Arrival::Refused;
        }
        let end = start + payload.len() as u32;
        if start == self.next && self.ranges.is_empty() {
            self.ring.write_at(offset, payload);
            self.advance(end);
            return Arrival::InOrder;
        }
        let before = self.ranges.len();
        let arrival = self.merge(start, end, payload, ranges_max, memory);
        memory.count_ranges(before, self.ranges.len());
        arrival
    }

    /// The end of all that has arrived.
    fn farthest(&self) -> Seq {
        self.ranges.last().map_or(self.next, |&(_, end)| end)
    }

    /// Moves `next`; the bytes up to there are in the ring.
    fn advance(&mut self, next: Seq) {
        self.unread += next.since(self.next);
        self.next = next;
    }

    fn merge(
        &mut self,
        start: Seq,
        end: Seq,
        payload: &[u8],
        ranges_max: usize,
        memory: &mut Memory,
    ) -> Arrival {
        // All ranges that overlap or touch [start, end) are first..last.
        let first = self.ranges.partition_point(|&(_, range_end)| range_end.before(start));
        let touching = |&(range_start, _): &Range| range_start.at_or_before(end);
        let last = first + self.ranges[first..].partition_point(touching);
        if first == last && start != self.next {
            // A new range. If there is no room for one more, the farthest goes: what is nearer to
            // the gap is needed earlier.
            if self.ranges.len() >= ranges_max || !memory.take_range(self.ranges.len()) {
                if first == self.ranges.len() {
                    return Arrival::Refused;
                }
                self.ranges.pop();
            }
            self.copy_in(start, payload, start, end);
            self.ranges.insert(first, (start, end));
            self.note_recent((start, end));
            return Arrival::OutOfOrder;
        }
        // What had arrived before, if anything: its first part.
        if let Some(&(range_start, range_end)) =
            self.ranges[first..last].iter().find(|range| range.1.after(start))
        {
            self.note_duplicate(range_start.max(start), range_end.min(end));
        }
        // Fill what the ranges in between leave open: the first copy wins.
        let mut at = start;
        for index in first..last {
            let (range_start, range_end) = self.ranges[index];
            self.copy_in(start, payload, at, range_start.min(end));
            at = at.max(range_end);
        }
        self.copy_in(start, payload, at, end);
        let merged_start =
            self.ranges.get(first).filter(|_| first < last).map_or(start, |r| r.0.min(start));
        let merged_end = if first < last { self.ranges[last - 1].1.max(end) } else { end };
        if start == self.next {
            self.ranges.drain(first..last);
            self.advance(merged_end);
            if self.ranges.is_empty() {
                self.ranges = Vec::new();
            }
            return Arrival::InOrder;
        }
        self.ranges[first] = (merged_start, merged_end);
        self.ranges.drain(first + 1..last);
        self.note_recent((merged_start, merged_end));
        Arrival::OutOfOrder
    }

    /// Copies the part [from, to) of a payload that starts at `start`; nothing if it is empty.
    fn copy_in(&mut self, start: Seq, payload: &[u8], from: Seq, to: Seq) {
        if to.at_or_before(from) {
            return;
        }
        let (skip, len) = (from.since(start) as usize, to.since(from) as usize);
        let offset = (self.unread + from.since(self.next)) as usize;
        self.ring.write_at(offset, &payload[skip..skip + len]);
    }

    /// Remembers the peer's FIN at `fin`, which is `next` or after it and inside the window or at
    /// its edge. Only the first counts; data that arrived beyond it is forgotten.
    pub(crate) fn set_fin(&mut self, fin: Seq, memory: &mut Memory) {
        if self.fin.is_some() {
            return;
        }
        self.fin = Some(fin);
        let before = self.ranges.len();
        self.ranges.retain(|range| range.0.before(fin));
        if let Some(last) = self.ranges.last_mut() {
            last.1 = last.1.min(fin);
        }
        memory.count_ranges(before, self.ranges.len());
    }

    /// Lends at most `max` unread bytes to `sink`, in order, and forgets them; returns how many.
    /// Gives the memory back when nothing is held.
    pub(crate) fn read(
        &mut self,
        max: usize,
        sink: &mut dyn FnMut(&[u8]),
        memory: &mut Memory,
    ) -> usize {
        let count = max.min(self.unread as usize);
        for slice in self.ring.slices(0, count) {
            if !slice.is_empty() {
                sink(slice);
            }
        }
        self.unread -= count as u32;
        if self.unread == 0 && self.ranges.is_empty() {
            self.ring.release(memory);
        } else {
            self.ring.advance(count);
        }
        count
    }

    /// Forgets everything that was not read.
    pub(crate) fn clear(&mut self, memory: &mut Memory) {
        memory.count_ranges(self.ranges.len(), 0);
        self.ranges = Vec::new();
        self.unread = 0;
        self.ring.release(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 4096;

    fn buffer(next: u32) -> ReceiveBuffer {
        ReceiveBuffer::new(Seq(next), Ring::default())
    }

    fn memory() -> Memory {
        Memory::new(1 << 20)
    }

    fn read_all(buffer: &mut ReceiveBuffer, memory: &mut Memory) -> Vec<u8> {
        let mut bytes = Vec::new();
        buffer.read(usize::MAX, &mut |slice| bytes.extend_from_slice(slice), memory);
        bytes
    }

    proptest! {
        /// R08, R10: any segments, in any order, with any overlap, at any place of the circle: what
        /// is read is, byte by byte, what arrived first.
        #[test]
        fn reassembly_agrees_with_a_map_of_first_copies(
            base: u32,
            segments in proptest::collection::vec((0u32..600, 1usize..120, any::<u8>()), 1..120),
            reads in proptest::collection::vec(any::<bool>(), 120),
        ) {
            let (mut memory, mut buffer) = (memory(), buffer(base));
            let mut first: Vec<Option<u8>> = vec![None; 800];
            let (mut next, mut delivered) = (0u32, Vec::new());
            for ((start, len, byte), read) in segments.into_iter().zip(reads) {
                let end = start + len as u32;
                if end <= next {
                    continue;
                }
                let start = start.max(next);
                let payload = vec![byte; (end - start) as usize];
                let arrival = buffer.insert(Seq(base) + start, &payload, MAX, 256, &mut memory);
                prop_assert_ne!(arrival, Arrival::Refused);
                for place in &mut first[start as usize..end as usize] {
                    place.get_or_insert(byte);
                }
                let old = next;
                while first[next as usize].is_some() {
                    next += 1;
                }
                prop_assert_eq!(arrival == Arrival::InOrder, next > old);
                prop_assert_eq!(buffer.acknowledge(), Seq(base) + next);
                let beyond = first[next as usize..].windows(2);
                let ranges = beyond.filter(|pair| pair[0].is_none() && pair[1].is_some()).count();
                prop_assert_eq!(buffer.range_count(), ranges);
                prop_assert_eq!((memory.ranges(), buffer.has_gap()), (ranges, ranges > 0));
                if read {
                    delivered.extend(read_all(&mut buffer, &mut memory));
                }
            }
            delivered.extend(read_all(&mut buffer, &mut memory));
            let expected: Vec<u8> = first[..next as usize].iter().map(|b| b.expect("before next")).collect();
            prop_assert_eq!(delivered, expected);
            buffer.clear(&mut memory);
            prop_assert_eq!((memory.bytes(), memory.ranges()), (0, 0));
        }
    }

    /// R09.
    #[test]
    fn full_list_takes_the_head_and_drops_the_farthest() {
        let (mut memory, mut buffer) = (memory(), buffer(0));
        for island in (2..=8).step_by(2) {
            assert_eq!(buffer.insert(Seq(island), b"x", MAX, 4, &mut memory), Arrival::OutOfOrder);
        }
        assert_eq!(buffer.insert(Seq(20), b"x", MAX, 4, &mut memory), Arrival::Refused);
        assert_eq!(buffer.insert(Seq(10), b"x", MAX, 4, &mut memory), Arrival::Refused);
        assert_eq!(buffer.insert(Seq(0), b"ab", MAX, 4, &mut memory), Arrival::InOrder);
        assert_eq!(buffer.insert(Seq(20), b"x", MAX, 4, &mut memory), Arrival::OutOfOrder);
        assert_eq!(buffer.insert(Seq(12), b"x", MAX, 4, &mut memory), Arrival::OutOfOrder);
        assert_eq!(buffer.range_count(), 4);
        assert_eq!(buffer.ranges.last(), Some(&(Seq(12), Seq(13))), "20 gave way");
    }

    /// R07.
    #[test]
    fn fin_is_remembered_and_ends_the_stream() {
        let (mut memory, mut buffer) = (memory(), buffer(u32::MAX - 2));
        let start = Seq(u32::MAX - 2);
        buffer.insert(start + 3, b"defgh", MAX, 4, &mut memory);
        buffer.set_fin(start + 5, &mut memory);
        assert!(buffer.has_gap() && !buffer.is_finished());
        buffer.set_fin(start + 4, &mut memory);
        buffer.insert(start + 5, b"zz", MAX, 4, &mut memory);
        assert_eq!(buffer.insert(start, b"abc", MAX, 4, &mut memory), Arrival::InOrder);
        assert!(buffer.is_finished() && !buffer.has_gap());
        assert_eq!(buffer.acknowledge(), start + 6);
        assert_eq!(read_all(&mut buffer, &mut memory), b"abcde");
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn memory_that_is_refused_cuts_the_payload() {
        let (mut memory, mut buffer) = (Memory::new(4096), buffer(0));
        assert_eq!(buffer.insert(Seq(0), &[1; 3000], 65_536, 4, &mut memory), Arrival::InOrder);
        assert_eq!(buffer.insert(Seq(3000), &[2; 3000], 65_536, 4, &mut memory), Arrival::InOrder);
        assert_eq!(buffer.unread(), 4096);
        assert_eq!(buffer.insert(Seq(4096), &[2; 10], 65_536, 4, &mut memory), Arrival::Refused);
    }
}
