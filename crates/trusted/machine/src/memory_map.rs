//! Which physical memory is ordinary RAM that nobody else uses.
//!
//! A boot loader's memory map is input from outside: entries may overlap, be unsorted, unaligned or
//! wrap around the address space. [`MemoryMap`] keeps only whole pages that some entry calls RAM and
//! no entry calls anything else, sorted and merged. It needs no heap, because the heap is made from it.

/// Bytes in the smallest page of x86-64, the unit of everything here.
pub const PAGE_SIZE: u64 = 4096;

/// The end of what the machine can map one to one: the lower half of a 48-bit address space
/// (Intel SDM volume 1, 3.3.7.1, canonical addresses).
pub const ADDRESS_LIMIT: u64 = 1 << 47;

/// How many separate ranges are kept. QEMU gives about eight entries, real firmware under a hundred,
/// most of them adjacent; what does not fit is counted in [`MemoryMap::dropped_bytes`] and not used.
pub const REGIONS_MAX: usize = 64;

/// A half-open range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Region {
    /// The first address.
    pub start: u64,
    /// One past the last address; never below `start`.
    pub end: u64,
}

impl Region {
    /// The range from `start` to before `end`; empty when `end` is not above `start`.
    pub const fn new(start: u64, end: u64) -> Self {
        Region { start, end: if end > start { end } else { start } }
    }

    /// Bytes in the range.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether the range holds nothing.
    pub const fn is_empty(self) -> bool {
        self.end == self.start
    }

    /// Whether `address` lies in the range.
    pub const fn contains(self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    /// The whole pages inside the range.
    pub const fn pages_within(self) -> Self {
        let start = self.start.saturating_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
        Region::new(start, self.end & !(PAGE_SIZE - 1))
    }

    /// The pages that the range touches.
    pub const fn pages_touched(self) -> Self {
        let end = self.end.saturating_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
        Region::new(self.start & !(PAGE_SIZE - 1), end)
    }
}

/// Sorted, disjoint, non-adjacent ranges of whole pages.
#[derive(Clone, Debug)]
pub struct MemoryMap {
    regions: [Region; REGIONS_MAX],
    len: usize,
    dropped_bytes: u64,
}

impl Default for MemoryMap {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryMap {
    /// No memory.
    pub const fn new() -> Self {
        MemoryMap { regions: [Region { start: 0, end: 0 }; REGIONS_MAX], len: 0, dropped_bytes: 0 }
    }

    /// The usable RAM of a loader's map, given as `(start, bytes, is_ram)`: every page that lies
    /// wholly in RAM, less every page that any other entry touches.
    pub fn from_entries(entries: impl Iterator<Item = (u64, u64, bool)> + Clone) -> Self {
        let mut map = MemoryMap::new();
        for (start, bytes, _) in entries.clone().filter(|&(_, _, is_ram)| is_ram) {
            map.add(Region::new(start, start.saturating_add(bytes)));
        }
        for (start, bytes, _) in entries.filter(|&(_, _, is_ram)| !is_ram) {
            map.remove(Region::new(start, start.saturating_add(bytes)));
        }
        map
    }

    /// The ranges, lowest first.
    pub fn regions(&self) -> &[Region] {
        &self.regions[..self.len]
    }

    /// Bytes in all ranges together.
    pub fn total_bytes(&self) -> u64 {
        self.regions().iter().map(|region| region.len()).sum()
    }

    /// Bytes of RAM that are not used because there were more than [`REGIONS_MAX`] ranges.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// The range that holds `address`.
    pub fn region_of(&self, address: u64) -> Option<Region> {
        self.regions().iter().copied().find(|region| region.contains(address))
    }

    /// Adds the whole pages inside `region`, merging it with what it overlaps or touches.
    pub fn add(&mut self, region: Region) {
        let mut new = Region::new(region.start, region.end.min(ADDRESS_LIMIT)).pages_within();
        if new.is_empty() {
            return;
        }
        let first = self.regions().iter().position(|old| old.end >= new.start).unwrap_or(self.len);
        let mut after = first;
        while after < self.len && self.regions[after].start <= new.end {
            new.start = new.start.min(self.regions[after].start);
            new.end = new.end.max(self.regions[after].end);
            after += 1;
        }
        self.replace(first, after, [new, Region::default()]);
    }

    /// Takes away every page that `region` touches.
    pub fn remove(&mut self, region: Region) {
        if region.is_empty() {
            return;
        }
        let hole = region.pages_touched();
        let mut index = 0;
        while index < self.len {
            let old = self.regions[index];
            if old.end <= hole.start || hole.end <= old.start {
                index += 1;
                continue;
            }
            let left = Region::new(old.start, hole.start.clamp(old.start, old.end));
            let right = Region::new(hole.end.clamp(old.start, old.end), old.end);
            index += self.replace(index, index + 1, [left, right]);
        }
    }

    /// Puts the non-empty ones of `new` in the place of `first..after`; says how many those are.
    fn replace(&mut self, first: usize, after: usize, new: [Region; 2]) -> usize {
        let mut kept = new;
        let mut count = 0;
        for region in new {
            if !region.is_empty() {
                kept[count] = region;
                count += 1;
            }
        }
        let removed = after - first;
        while self.len - removed + count > REGIONS_MAX {
            count -= 1;
            self.dropped_bytes += kept[count].len();
        }
        self.regions.copy_within(after..self.len, first + count);
        self.regions[first..first + count].copy_from_slice(&kept[..count]);
        self.len = self.len - removed + count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(entries: &[(u64, u64, bool)]) -> Vec<(u64, u64)> {
        let map = MemoryMap::from_entries(entries.iter().copied());
        map.regions().iter().map(|region| (region.start, region.end)).collect()
    }

    #[test]
    fn a_pc_map_keeps_low_memory_and_what_is_above_4_gib() {
        let entries = [
            (0, 0x9fc00, true),
            (0x9fc00, 0x400, false),
            (0xf0000, 0x10000, false),
            (0x100000, 0xbfee0000, true),
            (0xbffe0000, 0x20000, false),
            (0x1_0000_0000, 0x4000_0000, true),
        ];
        assert_eq!(
            map(&entries),
            [(0, 0x9f000), (0x100000, 0xbffe0000), (0x1_0000_0000, 0x1_4000_0000)]
        );
    }

    #[test]
    fn overlapping_unsorted_entries_merge_and_reserved_ones_win() {
        let entries = [
            (0x5000, 0x3000, true),
            (0x3000, 1, false),
            (0x1000, 0x5000, true),
            (0x6fff, 1, false),
        ];
        assert_eq!(map(&entries), [(0x1000, 0x3000), (0x4000, 0x6000), (0x7000, 0x8000)]);
    }

    #[test]
    fn ranges_that_wrap_or_hold_no_whole_page_are_harmless() {
        assert_eq!(map(&[(u64::MAX - 10, 100, true), (0x1001, 0x1ffe, true)]), []);
        assert_eq!(map(&[(0x1000, u64::MAX, true)]), [(0x1000, ADDRESS_LIMIT)]);
        assert_eq!(map(&[(0x1000, 0x4000, true), (0x2000, u64::MAX, false)]), [(0x1000, 0x2000)]);
    }

    #[test]
    fn too_many_ranges_are_counted_not_kept() {
        let mut map = MemoryMap::new();
        for n in 0..REGIONS_MAX as u64 + 3 {
            map.add(Region::new(n * 0x2000, n * 0x2000 + 0x1000));
        }
        assert_eq!(map.regions().len(), REGIONS_MAX);
        assert_eq!(map.dropped_bytes(), 3 * PAGE_SIZE);
        // Splitting a range when all places are taken gives up its upper part.
        map.add(Region::new(0x1000, 0x3000 - 0x1000));
        map.add(Region::new(0, 0x6000));
        map.remove(Region::new(0x1000, 0x2000));
        assert!(map.regions().len() <= REGIONS_MAX);
    }

    proptest! {
        /// Against a bitmap of pages, the simplest thing that could be right.
        #[test]
        fn a_page_is_kept_exactly_when_some_entry_is_ram_and_none_is_not(
            entries in prop::collection::vec((0u64..0x40_000, 0u64..0x8000, any::<bool>()), 0..12)
        ) {
            let mut ram = [false; 0x80];
            for &(start, len, is_ram) in &entries {
                if is_ram {
                    let pages = Region::new(start, start + len).pages_within();
                    (pages.start / PAGE_SIZE..pages.end / PAGE_SIZE)
                        .for_each(|page| ram[page as usize] = true);
                }
            }
            for &(start, len, is_ram) in &entries {
                if !is_ram && len > 0 {
                    let pages = Region::new(start, start + len).pages_touched();
                    (pages.start / PAGE_SIZE..pages.end / PAGE_SIZE)
                        .for_each(|page| ram[page as usize] = false);
                }
            }
            let map = MemoryMap::from_entries(entries.iter().copied());
            for (page, &expected) in ram.iter().enumerate() {
                prop_assert_eq!(map.region_of(page as u64 * PAGE_SIZE).is_some(), expected);
            }
            for pair in map.regions().windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
        }
    }
}
