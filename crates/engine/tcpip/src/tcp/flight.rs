//! What a sender knows of the bytes between SND.UNA and SND.NXT: when each was last sent, and
//! whether it is on its way, has arrived ahead of a gap, or is lost (RFC 6675 §2, RFC 8985 §6.1).
//!
//! Neighbours with the same history are one range, so that a window that was sent in bursts is a
//! handful of ranges. The ranges follow each other without a gap and are found by binary search.
//! Nothing that a peer says makes more of them than [`RANGES_MAX`] and [`SACKED_RANGES_MAX`] allow.

use crate::tcp::Seq;
use crate::tcp::receive_buffer::Range;
use crate::time::Instant;
use std::collections::VecDeque;

/// Ranges of one connection, before what is sent joins its neighbour whatever its time; SACK blocks
/// can add two for each of [`SACKED_RANGES_MAX`]. A window of 1.5 MB of full segments, each sent at
/// its own time; or, at 24 bytes each, as much memory as seventeen such segments.
const RANGES_MAX: usize = 1024;

/// Ranges that have arrived ahead of a gap. Past it, blocks that would make one more are ignored,
/// as if the ACK had been lost: every receiver repeats them, and there are more holes than losses
/// in any window of this size.
const SACKED_RANGES_MAX: usize = 256;

/// Ranges whose memory is kept for the next flight.
const SPARE_RANGES_MAX: usize = 64;

/// What is known of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// On its way, for all we know.
    Out,
    /// Arrived ahead of a gap. The peer may still throw it away (RFC 2018 §8).
    Sacked,
    /// Lost, and not sent again yet.
    Lost,
}

/// Bytes with one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) start: Seq,
    pub(crate) end: Seq,
    /// When it was last sent.
    pub(crate) at: Instant,
    pub(crate) fate: Fate,
    /// It was sent more than once.
    pub(crate) again: bool,
}

impl Sent {
    const fn len(&self) -> u32 {
        self.end.since(self.start)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    ranges: VecDeque<Sent>,
    /// Bytes that have arrived ahead of a gap.
    sacked: u32,
    /// Bytes that are lost and were not sent again.
    lost: u32,
    /// Ranges that have arrived ahead of a gap.
    sacked_ranges: u16,
}

impl Flight {
    /// Forgets everything, but for some memory.
    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
        if self.ranges.capacity() > SPARE_RANGES_MAX {
            self.ranges.shrink_to(SPARE_RANGES_MAX);
        }
        (self.sacked, self.lost, self.sacked_ranges) = (0, 0, 0);
    }

    /// Bytes that have arrived ahead of a gap.
    pub(crate) const fn sacked(&self) -> u32 {
        self.sacked
    }

    /// Bytes that are lost and were not sent again.
    pub(crate) const fn lost(&self) -> u32 {
        self.lost
    }

    /// Ranges that have arrived ahead of a gap.
    pub(crate) const fn sacked_ranges(&self) -> u16 {
        self.sacked_ranges
    }

    /// Whether everything is on its way, for all we know.
    pub(crate) const fn is_plain(&self) -> bool {
        self.sacked == 0 && self.lost == 0
    }

    /// The range that is first lost and was not sent again.
    pub(crate) fn first_lost(&self) -> Option<Range> {
        if self.lost == 0 {
            return None;
        }
        let lost = self.ranges.iter().find(|range| range.fate == Fate::Lost);
        lost.map(|range| (range.start, range.end))
    }

    /// Whether the peer has said of SND.UNA that it arrived, and yet does not acknowledge it.
    pub(crate) fn is_first_sacked(&self) -> bool {
        self.ranges.front().is_some_and(|range| range.fate == Fate::Sacked)
    }

    /// New bytes from `start` on, the end of all before, leave at `now`.
    pub(crate) fn send(&mut self, now: Instant, start: Seq, end: Seq) {
        let is_full = self.ranges.len() >= RANGES_MAX;
        if let Some(last) = self.ranges.back_mut()
            && last.fate == Fate::Out
            && !last.again
            && (last.at == now || is_full)
        {
            debug_assert_eq!(last.end, start);
            // Older ones seem to have left later: their loss is noticed later.
            (last.end, last.at) = (end, now);
            return;
        }
        self.ranges.push_back(Sent { start, end, at: now, fate: Fate::Out, again: false });
    }

    /// Bytes that were sent before leave again at `now`.
    pub(crate) fn send_again(&mut self, now: Instant, start: Seq, end: Seq) {
        let is_full = self.ranges.len() >= RANGES_MAX;
        let mut index = self.split(start);
        let after = self.split(end);
        for range in self.ranges.range_mut(index..after) {
            match range.fate {
                Fate::Out => {}
                Fate::Lost => self.lost -= range.len(),
                Fate::Sacked => {
                    self.sacked -= range.len();
                    self.sacked_ranges -= 1;
                }
            }
            (range.at, range.fate, range.again) = (now, Fate::Out, true);
        }
        self.join(index + 1, after);
        if let Some(before) = index.checked_sub(1).map(|before| self.ranges[before])
            && before.fate == Fate::Out
            && before.again
            && (before.at == now || is_full)
        {
            index -= 1;
            self.ranges[index].at = now;
            self.join(index + 1, index + 2);
        }
    }

    /// Everything before `una` is acknowledged. Gives `delivered` each range, or the part of it,
    /// that had not arrived for all we knew; returns how many bytes these are.
    pub(crate) fn acknowledge(&mut self, una: Seq, mut delivered: impl FnMut(&Sent)) -> u32 {
        let mut bytes = 0;
        while let Some(first) = self.ranges.front_mut() {
            if una.at_or_before(first.start) {
                break;
            }
            let mut done = *first;
            done.end = done.end.min(una);
            let is_whole = done.end == first.end;
            first.start = done.end;
            match done.fate {
                Fate::Sacked => {
                    self.sacked -= done.len();
                    self.sacked_ranges -= u16::from(is_whole);
                }
                Fate::Lost => self.lost -= done.len(),
                Fate::Out => {}
            }
            if done.fate != Fate::Sacked {
                bytes += done.len();
                delivered(&done);
            }
            if is_whole {
                self.ranges.pop_front();
            }
        }
        bytes
    }

    /// [`start`, `end`), which lies in the flight, has arrived. Gives `delivered` each part of it
    /// that had not for all we knew; returns how many bytes these are, or `None` if there are too
    /// many ranges to remember it.
    pub(crate) fn sack(
        &mut self,
        (start, end): Range,
        mut delivered: impl FnMut(&Sent),
    ) -> Option<u32> {
        let first = self.ranges.partition_point(|range| range.end.at_or_before(start));
        let whole = self.ranges.get(first)?;
        if whole.fate == Fate::Sacked && whole.end.at_or_after(end) {
            return Some(0);
        }
        let touches_before = whole.start == start
            && first.checked_sub(1).is_some_and(|at| self.ranges[at].fate == Fate::Sacked);
        let touches = touches_before
            || self
                .ranges
                .range(first..)
                .take_while(|r| r.start.at_or_before(end))
                .any(|range| range.fate == Fate::Sacked);
        if !touches && usize::from(self.sacked_ranges) >= SACKED_RANGES_MAX {
            return None;
        }
        // A block that begins or ends inside of one that is known does not cut it.
        let mut index = if whole.fate == Fate::Sacked { first } else { self.split(start) };
        let begin = index;
        let mut bytes = 0;
        while let Some(range) = self.ranges.get(index).copied()
            && range.start.before(end)
        {
            if range.fate != Fate::Sacked {
                if range.end.after(end) {
                    self.split(end);
                }
                let range = &mut self.ranges[index];
                delivered(range);
                if range.fate == Fate::Lost {
                    self.lost -= range.len();
                }
                range.fate = Fate::Sacked;
                bytes += range.len();
                self.sacked += range.len();
                self.sacked_ranges += 1;
            }
            index += 1;
        }
        // With the neighbours on both sides, if they have arrived.
        let from = begin.saturating_sub(1);
        let is_sacked = |at: usize| self.ranges.get(at).is_some_and(|r| r.fate == Fate::Sacked);
        let from = if is_sacked(from) { from } else { begin };
        let to = if is_sacked(index) { index + 1 } else { index };
        self.sacked_ranges -= (to - from).saturating_sub(1) as u16;
        self.join(from + 1, to);
        Some(bytes)
    }

    /// Declares everything on its way lost of which `is_lost` says so; returns how many bytes.
    pub(crate) fn lose(&mut self, mut is_lost: impl FnMut(&Sent) -> bool) -> u32 {
        let mut bytes = 0;
        for range in &mut self.ranges {
            if range.fate == Fate::Out && is_lost(range) {
                range.fate = Fate::Lost;
                bytes += range.len();
            }
        }
        self.lost += bytes;
        bytes
    }

    /// The peer has thrown away what had arrived (RFC 2018 §8): all of it is lost.
    pub(crate) fn renege(&mut self) {
        for range in &mut self.ranges {
            if range.fate == Fate::Sacked {
                // When its parts were sent is forgotten: long ago.
                (range.at, range.fate, range.again) = (Instant::ZERO, Fate::Lost, true);
                self.lost += range.len();
            }
        }
        (self.sacked, self.sacked_ranges) = (0, 0);
    }

    /// Nothing was lost after all.
    pub(crate) fn find_lost(&mut self) {
        for range in self.ranges.iter_mut().filter(|range| range.fate == Fate::Lost) {
            range.fate = Fate::Out;
        }
        self.lost = 0;
    }

    /// Makes `at` the start of a range, if it is inside of one; returns the index of the range that
    /// starts there.
    fn split(&mut self, at: Seq) -> usize {
        let index = self.ranges.partition_point(|range| range.end.at_or_before(at));
        if let Some(range) = self.ranges.get_mut(index)
            && range.start.before(at)
        {
            let mut second = *range;
            range.end = at;
            second.start = at;
            let is_sacked = second.fate == Fate::Sacked;
            self.sacked_ranges += u16::from(is_sacked);
            self.ranges.insert(index + 1, second);
            return index + 1;
        }
        index
    }

    /// Makes the ranges `from..to` one with the range before them.
    fn join(&mut self, from: usize, to: usize) {
        if from == 0 || from >= to {
            return;
        }
        self.ranges[from - 1].end = self.ranges[to - 1].end;
        if to == from + 1 {
            self.ranges.remove(from);
        } else {
            self.ranges.drain(from..to);
        }
    }

    /// Asserts what always holds of what is in flight from `una` up to `max`.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn check(&self, una: Seq, max: Seq) {
        let mut at = una;
        let (mut sacked, mut lost, mut sacked_ranges) = (0, 0, 0);
        for range in &self.ranges {
            assert!(range.start == at && range.end.after(at), "a gap, or an empty range");
            at = range.end;
            match range.fate {
                Fate::Out => {}
                Fate::Sacked => (sacked, sacked_ranges) = (sacked + range.len(), sacked_ranges + 1),
                Fate::Lost => lost += range.len(),
            }
        }
        assert_eq!(at, max, "what is in flight is not all there");
        assert_eq!((self.sacked, self.lost, self.sacked_ranges), (sacked, lost, sacked_ranges));
        assert!(usize::from(sacked_ranges) <= SACKED_RANGES_MAX);
        assert!(self.ranges.len() <= RANGES_MAX + 2 * SACKED_RANGES_MAX + 2);
    }

    /// Number of ranges.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEN: u32 = 400;

    /// What is known of one byte: when it was last sent, its fate, and whether it was sent again.
    type Byte = (u64, Fate, bool);

    #[derive(Clone, Debug)]
    enum Step {
        Send(u32),
        Again(u32, u32),
        Acknowledge(u32),
        Sack(u32, u32),
        Lose(u64),
        Renege,
        Find,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1..60u32).prop_map(Step::Send),
            (0..LEN, 1..60u32).prop_map(|(start, len)| Step::Again(start, len)),
            (0..60u32).prop_map(Step::Acknowledge),
            (0..LEN, 1..60u32).prop_map(|(start, len)| Step::Sack(start, len)),
            (0..LEN, 1..60u32).prop_map(|(start, len)| Step::Sack(start, len)),
            (0..50u64).prop_map(Step::Lose),
            Just(Step::Renege),
            Just(Step::Find),
        ];
        proptest::collection::vec(step, 1..120)
    }

    proptest! {
        /// Pitfall Q08: whatever is sent, acknowledged, reported and lost, in any order: for each
        /// byte the ranges say what a list of bytes says.
        #[test]
        fn ranges_agree_with_a_list_of_bytes(base: u32, steps in steps()) {
            let mut flight = Flight::default();
            let mut bytes: Vec<Byte> = Vec::new();
            let mut una = Seq(base);
            for (number, step) in steps.into_iter().enumerate() {
                let (now, len) = (number as u64 / 3, bytes.len() as u32);
                let at = Instant::from_nanos(now);
                let cut = |start: u32, size: u32| (start.min(len), (start + size).min(len));
                match step {
                    Step::Send(size) if len < LEN => {
                        flight.send(at, una + len, una + len + size);
                        bytes.resize((len + size) as usize, (now, Fate::Out, false));
                    }
                    Step::Send(_) => {}
                    Step::Again(start, size) => {
                        let (start, end) = cut(start, size);
                        if start < end {
                            flight.send_again(at, una + start, una + end);
                            bytes[start as usize..end as usize].fill((now, Fate::Out, true));
                        }
                    }
                    Step::Acknowledge(count) => {
                        let count = count.min(len);
                        let mut given = 0;
                        let told = flight.acknowledge(una + count, |sent| given += sent.len());
                        let gone = bytes.drain(..count as usize);
                        let expected = gone.filter(|byte| byte.1 != Fate::Sacked).count() as u32;
                        prop_assert_eq!((told, given), (expected, expected));
                        una += count;
                    }
                    Step::Sack(start, size) => {
                        let (start, end) = cut(start, size);
                        if start < end {
                            let mut given = 0;
                            let told = flight.sack((una + start, una + end), |s| given += s.len());
                            let mut expected = 0;
                            for byte in &mut bytes[start as usize..end as usize] {
                                expected += u32::from(byte.1 != Fate::Sacked);
                                byte.1 = Fate::Sacked;
                            }
                            prop_assert_eq!((told, given), (Some(expected), expected));
                        }
                    }
                    Step::Lose(before) => {
                        flight.lose(|sent| sent.at < Instant::from_nanos(before));
                        let out = bytes.iter_mut().filter(|b| b.1 == Fate::Out && b.0 < before);
                        out.for_each(|byte| byte.1 = Fate::Lost);
                    }
                    Step::Renege => {
                        flight.renege();
                        let sacked = bytes.iter_mut().filter(|byte| byte.1 == Fate::Sacked);
                        sacked.for_each(|byte| *byte = (0, Fate::Lost, true));
                    }
                    Step::Find => {
                        flight.find_lost();
                        let lost = bytes.iter_mut().filter(|byte| byte.1 == Fate::Lost);
                        lost.for_each(|byte| byte.1 = Fate::Out);
                    }
                }
                flight.check(una, una + bytes.len() as u32);
                for (index, byte) in bytes.iter().enumerate() {
                    let seq = una + index as u32;
                    let holds = |sent: &&Sent| sent.start.at_or_before(seq) && sent.end.after(seq);
                    let sent = flight.ranges.iter().find(holds).expect("every byte is in one");
                    prop_assert_eq!(sent.fate, byte.1, "fate of {}", index);
                    // Of what has arrived nobody asks when it was sent.
                    if byte.1 != Fate::Sacked {
                        prop_assert_eq!((sent.at.as_nanos(), sent.again), (byte.0, byte.2));
                    }
                }
                let first = bytes.iter().position(|byte| byte.1 == Fate::Lost);
                prop_assert_eq!(flight.first_lost().map(|r| r.0), first.map(|at| una + at as u32));
            }
        }
    }

    /// Pitfall Q08: a peer that reports every second byte, however many there are.
    #[test]
    fn islands_of_one_byte_are_bounded() {
        let mut flight = Flight::default();
        flight.send(Instant::ZERO, Seq(0), Seq(1 << 20));
        let blocks = (0..1 << 17).map(|at| (Seq(8 * at + 1), Seq(8 * at + 2)));
        let taken = blocks.filter(|&block| flight.sack(block, |_| {}).is_some()).count();
        assert_eq!((taken, flight.sacked_ranges()), (SACKED_RANGES_MAX, 256));
        assert!(flight.len() <= 2 * SACKED_RANGES_MAX + 1);
        // One that joins others is always taken.
        assert_eq!(flight.sack((Seq(2), Seq(9)), |_| {}), Some(7));
        assert_eq!(flight.sacked_ranges(), 255);
        flight.check(Seq(0), Seq(1 << 20));
    }

    /// A window of tiny segments, each sent at its own time, and again at another.
    #[test]
    fn times_are_bounded() {
        let mut flight = Flight::default();
        for at in 0..100_000u32 {
            flight.send(Instant::from_nanos(at.into()), Seq(at), Seq(at + 1));
        }
        assert_eq!(flight.len(), RANGES_MAX);
        flight.lose(|_| true);
        for at in 0..100_000u32 {
            flight.send_again(Instant::from_nanos(1_000_000 + u64::from(at)), Seq(at), Seq(at + 1));
            assert!(flight.len() <= RANGES_MAX + 2);
        }
        flight.check(Seq(0), Seq(100_000));
        assert_eq!(flight.lost(), 0);
    }
}
