//! The bytes that all connections hold together, and the rings that hold them.
//!
//! Buffers grow when data comes and go when it has gone: an idle connection has none. Every byte of
//! every buffer is counted against one ceiling, so that ten thousand peers that each send a little,
//! or read nothing, cannot take the machine's memory. Small rings that were given back are kept for
//! the next connection, so that a request does not cost a trip to the allocator.

/// The smallest ring, in bytes: a full Ethernet segment fits.
const RING_MIN: usize = 2048;

/// Bytes of spare rings that are kept, beyond those held by connections: at least this, and at most
/// a quarter of the ceiling. A stream empties and fills its rings many times a second.
const SPARE_BYTES_MIN: usize = 256 * 1024;

/// Spare rings are kept in classes by size: 2 KiB, 4 KiB … 4 MiB, which is the largest by default.
const SPARE_CLASSES: usize = 12;

/// The last quarter of the ceiling goes to rings of at most so many bytes, an initial window (RFC 6928):
/// so that a few peers who take nothing of what is sent to them do not stop everybody else. With the
/// default ceiling twelve of them would have taken three quarters; for the rest it takes 256.
const LAST_RING_MAX: usize = 16 * 1024;

/// Ranges of out-of-order data that all connections hold together, at eight bytes each; beside the
/// first of each connection, which is never refused.
const RANGES_MAX: usize = 8192;

/// The ceiling and what is held under it.
pub(crate) struct Memory {
    bytes_max: usize,
    /// Bytes of all rings that connections hold.
    bytes: usize,
    /// Ranges of out-of-order data that connections hold.
    ranges: usize,
    /// A range was refused since this was last asked.
    range_refused: bool,
    spare: [Vec<Box<[u8]>>; SPARE_CLASSES],
    spare_bytes: usize,
    /// Something was refused since this was last asked.
    refused: bool,
    /// Something was given back since this was last asked.
    released: bool,
}

impl Memory {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Memory {
            bytes_max,
            bytes: 0,
            ranges: 0,
            range_refused: false,
            spare: Default::default(),
            spare_bytes: 0,
            refused: false,
            released: false,
        }
    }

    /// Bytes that connections hold.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Ranges of out-of-order data that connections hold.
    pub(crate) const fn ranges(&self) -> usize {
        self.ranges
    }

    /// Whether so much is held that windows should stop opening: three quarters of the ceiling.
    pub(crate) const fn is_short(&self) -> bool {
        self.bytes > self.short_at()
    }

    const fn short_at(&self) -> usize {
        self.bytes_max / 4 * 3
    }

    /// Whether something was refused since the last call.
    pub(crate) fn take_refused(&mut self) -> bool {
        core::mem::take(&mut self.refused)
    }

    /// Whether something was given back since the last call.
    pub(crate) fn take_released(&mut self) -> bool {
        core::mem::take(&mut self.released)
    }

    /// Whether a connection that has `held` ranges may have one more: as long as there are more left
    /// than it has. So the more hold some, the less each gets, and there is always something left for
    /// who has none (the dynamic threshold of switches that share a buffer, Choudhury and Hahne 1998).
    /// Loss is nobody's fault: the first is free.
    pub(crate) const fn take_range(&mut self, held: usize) -> bool {
        let has_room = held == 0 || held < RANGES_MAX.saturating_sub(self.ranges);
        self.range_refused |= !has_room;
        has_room
    }

    /// Whether a range was refused since the last call.
    pub(crate) const fn take_range_refused(&mut self) -> bool {
        core::mem::replace(&mut self.range_refused, false)
    }

    /// A connection that had `before` ranges has `after` now.
    pub(crate) const fn count_ranges(&mut self, before: usize, after: usize) {
        self.ranges = self.ranges + after - before;
    }

    fn spare_bytes_max(&self) -> usize {
        (self.bytes_max / 4).max(SPARE_BYTES_MIN)
    }

    fn class(len: usize) -> Option<usize> {
        let class = (len / RING_MIN).checked_ilog2()? as usize;
        (class < SPARE_CLASSES && len == RING_MIN << class).then_some(class)
    }

    fn allocate(&mut self, len: usize, in_place_of: usize) -> Option<Box<[u8]>> {
        let is_small = len <= LAST_RING_MAX;
        let bytes_max = if is_small { self.bytes_max } else { self.short_at() };
        if self.bytes - in_place_of + len > bytes_max {
            self.refused = true;
            return None;
        }
        self.bytes += len;
        if let Some(bytes) = Self::class(len).and_then(|class| self.spare[class].pop()) {
            self.spare_bytes -= len;
            return Some(bytes);
        }
        Some(vec![0; len].into_boxed_slice())
    }

    fn free(&mut self, bytes: Box<[u8]>) {
        self.bytes -= bytes.len();
        self.released = true;
        if let Some(class) = Self::class(bytes.len())
            && self.make_room_for_spare(class, bytes.len())
        {
            self.spare_bytes += bytes.len();
            self.spare[class].push(bytes);
        }
    }

    /// Whether a spare ring can be kept; larger ones give way to it: what was used last is asked for
    /// next.
    fn make_room_for_spare(&mut self, class: usize, len: usize) -> bool {
        let max = self.spare_bytes_max();
        while self.spare_bytes + len > max
            && let Some(larger) = self.spare[class + 1..].iter_mut().rev().find_map(Vec::pop)
        {
            self.spare_bytes -= larger.len();
        }
        self.spare_bytes + len <= max
    }
}

/// Bytes in a circle that grows as far as it is allowed to. Offsets count from its head.
#[derive(Default)]
pub(crate) struct Ring {
    bytes: Box<[u8]>,
    head: u32,
    /// Bytes that were needed at once since it was last given memory: with so many it starts when it
    /// is next needed, so that a stream does not grow its ring, copy by copy, after each pause.
    peak: u32,
}

impl Ring {
    /// Bytes allocated.
    pub(crate) const fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Makes room for `needed` bytes from the head on, keeping the first `used`, but never more
    /// than `max`. Returns how many of `needed` there is room for.
    pub(crate) fn reserve(
        &mut self,
        memory: &mut Memory,
        needed: usize,
        used: usize,
        max: usize,
    ) -> usize {
        let capacity = self.capacity();
        if needed <= capacity {
            self.peak = self.peak.max(needed as u32);
            return needed;
        }
        let wanted = needed.max(self.peak as usize).max(RING_MIN).next_power_of_two().min(max);
        let least = needed.next_power_of_two().min(max);
        let allocated = memory
            .allocate(wanted, capacity)
            .or_else(|| (least < wanted).then(|| memory.allocate(least, capacity)).flatten())
            .or_else(|| {
                let may_grow = capacity < LAST_RING_MAX && LAST_RING_MAX < least;
                may_grow.then(|| memory.allocate(LAST_RING_MAX, capacity)).flatten()
            });
        if let Some(mut larger) = allocated {
            self.read_at(0, &mut larger[..used]);
            memory.free(core::mem::replace(&mut self.bytes, larger));
            self.head = 0;
            self.peak = needed.min(self.capacity()) as u32;
        }
        needed.min(self.capacity())
    }

    /// The two runs that `len` bytes at `offset` lie in: start of the first, its length.
    const fn locate(&self, offset: usize, len: usize) -> (usize, usize) {
        let capacity = self.capacity();
        let mut start = self.head as usize + offset;
        if start >= capacity {
            start -= capacity;
        }
        let first = if len < capacity - start { len } else { capacity - start };
        (start, first)
    }

    /// Copies `data` in at `offset`. There is room: `offset + data.len() <= capacity`.
    pub(crate) fn write_at(&mut self, offset: usize, data: &[u8]) {
        debug_assert!(offset + data.len() <= self.capacity());
        if data.is_empty() {
            return;
        }
        let (start, first) = self.locate(offset, data.len());
        self.bytes[start..start + first].copy_from_slice(&data[..first]);
        self.bytes[..data.len() - first].copy_from_slice(&data[first..]);
    }

    /// Copies bytes out at `offset`: `offset + out.len() <= capacity`.
    pub(crate) fn read_at(&self, offset: usize, out: &mut [u8]) {
        debug_assert!(offset + out.len() <= self.capacity());
        if out.is_empty() {
            return;
        }
        let (start, first) = self.locate(offset, out.len());
        let (head, tail) = out.split_at_mut(first);
        head.copy_from_slice(&self.bytes[start..start + first]);
        tail.copy_from_slice(&self.bytes[..tail.len()]);
    }

    /// The bytes at `offset`, `offset + len <= capacity`: those up to the end of the memory, and
    /// those that go on at its start.
    pub(crate) fn slices(&self, offset: usize, len: usize) -> [&[u8]; 2] {
        debug_assert!(offset + len <= self.capacity());
        if len == 0 {
            return [&[], &[]];
        }
        let (start, first) = self.locate(offset, len);
        [&self.bytes[start..start + first], &self.bytes[..len - first]]
    }

    /// Moves the head over `count` bytes.
    pub(crate) const fn advance(&mut self, count: usize) {
        if count > 0 {
            self.head = self.locate(count, 0).0 as u32;
        }
    }

    /// Gives the memory back: nothing is held any more.
    pub(crate) fn release(&mut self, memory: &mut Memory) {
        if self.capacity() > 0 {
            self.head = 0;
            memory.free(core::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_wraps_grows_and_keeps_its_bytes() {
        let mut memory = Memory::new(1 << 20);
        let mut ring = Ring::default();
        assert_eq!(ring.reserve(&mut memory, 2048, 0, 8192), 2048);
        ring.write_at(0, &[1; 2048]);
        ring.advance(2000);
        ring.write_at(48, &[2; 1000]);
        assert_eq!(ring.reserve(&mut memory, 5000, 1048, 8192), 5000);
        assert_eq!((ring.capacity(), memory.bytes()), (8192, 8192));
        let mut bytes = [0; 1048];
        ring.read_at(0, &mut bytes);
        assert!(bytes[..48].iter().all(|&byte| byte == 1));
        assert!(bytes[48..].iter().all(|&byte| byte == 2));
        assert_eq!(ring.reserve(&mut memory, 10_000, 1048, 8192), 8192);
        ring.release(&mut memory);
        assert_eq!((ring.capacity(), memory.bytes()), (0, 0));
        assert!(memory.take_released());
    }

    #[test]
    fn the_ceiling_holds_and_is_reported() {
        let mut memory = Memory::new(10_000);
        let mut rings = [const { None }; 4].map(|_: Option<()>| Ring::default());
        let got = rings.each_mut().map(|ring| ring.reserve(&mut memory, 3000, 0, 65_536));
        assert_eq!(got, [3000, 3000, 0, 0]);
        assert!(memory.take_refused() && memory.is_short() && memory.bytes() <= 10_000);
        rings[0].release(&mut memory);
        assert_eq!(rings[3].reserve(&mut memory, 100, 0, 65_536), 100);
    }

    #[test]
    fn the_last_quarter_goes_in_small_pieces() {
        let mut memory = Memory::new(1 << 18);
        let mut rings = [const { None }; 8].map(|_: Option<()>| Ring::default());
        let got = rings.each_mut().map(|ring| ring.reserve(&mut memory, 65_536, 0, 65_536));
        assert_eq!(got[..3], [65_536; 3]);
        assert_eq!(got[3..7], [LAST_RING_MAX; 4]);
        assert_eq!((got[7], memory.bytes()), (0, 1 << 18));
        // It keeps what it holds, and grows when there is room again.
        rings[3].write_at(0, &[7; LAST_RING_MAX]);
        assert_eq!(rings[3].reserve(&mut memory, 20_000, LAST_RING_MAX, 65_536), LAST_RING_MAX);
        rings[..2].iter_mut().for_each(|ring| ring.release(&mut memory));
        assert_eq!(rings[3].reserve(&mut memory, 20_000, LAST_RING_MAX, 65_536), 20_000);
        let mut bytes = [0; LAST_RING_MAX];
        rings[3].read_at(0, &mut bytes);
        assert_eq!(bytes, [7; LAST_RING_MAX]);
    }

    /// A stream of half a mebibyte at a time: 64 times through the allocator before this was kept.
    #[test]
    fn a_ring_starts_with_what_it_needed_last() {
        let mut memory = Memory::new(1 << 24);
        let mut ring = Ring::default();
        for needed in (0..=300_000).step_by(1000) {
            ring.reserve(&mut memory, needed, 0, 1 << 20);
        }
        ring.release(&mut memory);
        assert_eq!(ring.reserve(&mut memory, 1000, 0, 1 << 20), 1000);
        assert_eq!(ring.capacity(), 1 << 19);
        // And with less, when that was more than enough.
        ring.release(&mut memory);
        ring.reserve(&mut memory, 10, 0, 1 << 20);
        assert_eq!(ring.capacity(), 2048);
    }

    #[test]
    fn a_large_spare_ring_gives_way_to_one_that_is_used() {
        let mut memory = Memory::new(1 << 24);
        let mut ring = Ring::default();
        for needed in [4 << 20, 1 << 20] {
            let mut larger = Ring::default();
            larger.reserve(&mut memory, needed, 0, 4 << 20);
            larger.release(&mut memory);
        }
        assert_eq!(memory.spare_bytes, 1 << 20);
        ring.reserve(&mut memory, 1 << 20, 0, 4 << 20);
        assert_eq!(memory.spare_bytes, 0, "it was taken");
    }

    #[test]
    fn spare_rings_are_bounded() {
        let mut memory = Memory::new(1 << 22);
        let mut rings: Vec<Ring> = (0..1000).map(|_| Ring::default()).collect();
        rings.iter_mut().for_each(|ring| {
            ring.reserve(&mut memory, 1, 0, 65_536);
        });
        rings.iter_mut().for_each(|ring| ring.release(&mut memory));
        assert_eq!((memory.spare_bytes, memory.bytes()), (1 << 20, 0));
    }
}
