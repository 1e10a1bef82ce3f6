//! Page tables: what may be read, written and executed.
//!
//! Virtual addresses equal physical ones, so that a device's address of a buffer is the buffer's
//! address. What the tables add is rights: code is executed and never written, data is written and
//! never executed, page zero and the guards under the stacks are not there at all. The biggest page
//! that fits is used (1 GiB where the processor has it, else 2 MiB, else 4 KiB), so that the tables
//! of a machine with little memory are a few pages, and those of a big one are quickly written.
//!
//! The walk is over [`Frames`], so that it runs on the host in tests. Formats: Intel SDM volume 3,
//! 4.5 "4-level paging".

use crate::memory_map::{PAGE_SIZE, Region};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
/// Set by the processor when a page is used: they say nothing about what it was mapped as.
const ACCESSED_AND_DIRTY: u64 = 1 << 5 | 1 << 6;
const HUGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bytes mapped by one entry at each level, from the page table (0) to the PML4 (3).
const SPAN: [u64; 4] = [PAGE_SIZE, PAGE_SIZE << 9, PAGE_SIZE << 18, PAGE_SIZE << 27];

/// Bytes in a page of the middle size.
pub const LARGE_PAGE_SIZE: u64 = SPAN[1];

/// What a page is for, and with that what may be done to it. There is no way to ask for a page that
/// is both writable and executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read only, never executed.
    Constants,
    /// Read and executed, never written.
    Code,
    /// Read and written, never executed.
    Data,
    /// Registers of a device: read and written, never executed, never cached.
    Device,
}

impl Rights {
    const fn bits(self) -> u64 {
        PRESENT
            | match self {
                Rights::Constants => NO_EXECUTE,
                Rights::Code => 0,
                Rights::Data => WRITABLE | NO_EXECUTE,
                Rights::Device => WRITABLE | NO_EXECUTE | CACHE_DISABLE | WRITE_THROUGH,
            }
    }
}

/// Why a range could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No page is left for another table.
    OutOfFrames,
    /// A page of the range is mapped already, with other rights.
    Overlap,
    /// The range is not made of whole pages below [`crate::memory_map::ADDRESS_LIMIT`].
    Unaligned,
}

/// Where tables come from and how they are reached.
pub trait Frames {
    /// A zeroed page for a table.
    fn allocate(&mut self) -> Option<u64>;
    /// The table at `address`, which [`Frames::allocate`] gave.
    fn table(&mut self, address: u64) -> &mut [u64; 512];
}

/// A tree of page tables.
#[derive(Clone, Copy, Debug)]
pub struct PageTables {
    root: u64,
    /// Whether leaves of 1 GiB are allowed (CPUID 0x8000_0001 EDX bit 26).
    has_1_gib_pages: bool,
}

impl PageTables {
    /// An empty tree: nothing is mapped.
    ///
    /// # Errors
    /// [`MapError::OutOfFrames`] when there is no page for the root.
    pub fn new(frames: &mut impl Frames, has_1_gib_pages: bool) -> Result<Self, MapError> {
        let root = frames.allocate().ok_or(MapError::OutOfFrames)?;
        Ok(PageTables { root, has_1_gib_pages })
    }

    /// The physical address of the root, for CR3.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Maps `region` one to one. Pages that are mapped with the same rights already are left alone.
    ///
    /// # Errors
    /// See [`MapError`]; what was mapped before the error stays.
    pub fn map(
        &self,
        frames: &mut impl Frames,
        region: Region,
        rights: Rights,
    ) -> Result<(), MapError> {
        if region.pages_within() != region || region.end > crate::memory_map::ADDRESS_LIMIT {
            return Err(MapError::Unaligned);
        }
        let mut address = region.start;
        while address < region.end {
            let level = self.largest_level(address, region.end);
            address = self.map_leaf(frames, address, level, rights)?;
        }
        Ok(())
    }

    /// The rights bits of the page that holds `address`, for a report: `(writable, executable)`.
    pub fn lookup(&self, frames: &mut impl Frames, address: u64) -> Option<(bool, bool)> {
        let mut table = self.root;
        for level in (0..4).rev() {
            let entry = frames.table(table)[index(address, level)];
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 0 || entry & HUGE != 0 {
                return Some((entry & WRITABLE != 0, entry & NO_EXECUTE == 0));
            }
            table = entry & ADDRESS;
        }
        None
    }

    fn largest_level(&self, address: u64, end: u64) -> usize {
        let largest = if self.has_1_gib_pages { 2 } else { 1 };
        (1..=largest)
            .rev()
            .find(|&level| address.is_multiple_of(SPAN[level]) && end - address >= SPAN[level])
            .unwrap_or(0)
    }

    /// Maps one page; the address after it.
    fn map_leaf(
        &self,
        frames: &mut impl Frames,
        address: u64,
        leaf_level: usize,
        rights: Rights,
    ) -> Result<u64, MapError> {
        let mut table = self.root;
        for level in (leaf_level + 1..4).rev() {
            let mut entry = frames.table(table)[index(address, level)];
            if entry & PRESENT == 0 {
                // Rights are the leaves': above them everything is allowed.
                entry = frames.allocate().ok_or(MapError::OutOfFrames)? | PRESENT | WRITABLE;
                frames.table(table)[index(address, level)] = entry;
            } else if entry & HUGE != 0 {
                let same = entry & !ADDRESS & !ACCESSED_AND_DIRTY == rights.bits() | HUGE;
                return same.then_some(address + SPAN[leaf_level]).ok_or(MapError::Overlap);
            }
            table = entry & ADDRESS;
        }
        let huge = if leaf_level > 0 { HUGE } else { 0 };
        let new = address | rights.bits() | huge;
        let entry = &mut frames.table(table)[index(address, leaf_level)];
        if *entry & PRESENT == 0 {
            *entry = new;
        } else if *entry & !ACCESSED_AND_DIRTY != new {
            return Err(MapError::Overlap);
        }
        Ok(address + SPAN[leaf_level])
    }
}

fn index(address: u64, level: usize) -> usize {
    (address / SPAN[level] % 512) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Arena(Vec<Box<[u64; 512]>>, usize);

    impl Frames for Arena {
        fn allocate(&mut self) -> Option<u64> {
            (self.0.len() < self.1).then(|| {
                self.0.push(Box::new([0; 512]));
                self.0.len() as u64 * PAGE_SIZE
            })
        }
        fn table(&mut self, address: u64) -> &mut [u64; 512] {
            &mut self.0[(address / PAGE_SIZE) as usize - 1]
        }
    }

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn eight_mib_need_four_tables_and_a_tebibyte_with_1_gib_pages_six() {
        let mut frames = Arena(Vec::new(), 100);
        let tables = PageTables::new(&mut frames, true).unwrap();
        tables.map(&mut frames, Region::new(0x1000, 8 * MIB), Rights::Data).unwrap();
        assert_eq!(frames.0.len(), 4);
        tables.map(&mut frames, Region::new(4 * GIB, 1024 * GIB), Rights::Data).unwrap();
        assert_eq!(frames.0.len(), 4 + 1);
    }

    #[test]
    fn rights_follow_the_page_and_page_zero_is_absent() {
        let mut frames = Arena(Vec::new(), 100);
        let tables = PageTables::new(&mut frames, false).unwrap();
        tables.map(&mut frames, Region::new(0x1000, 0x3000), Rights::Constants).unwrap();
        tables.map(&mut frames, Region::new(0x3000, 0x4000), Rights::Code).unwrap();
        tables.map(&mut frames, Region::new(0x5000, 4 * MIB), Rights::Data).unwrap();
        assert_eq!(tables.lookup(&mut frames, 0), None);
        assert_eq!(tables.lookup(&mut frames, 0x2fff), Some((false, false)));
        assert_eq!(tables.lookup(&mut frames, 0x3000), Some((false, true)));
        assert_eq!(tables.lookup(&mut frames, 0x4000), None);
        assert_eq!(tables.lookup(&mut frames, 0x5000), Some((true, false)));
        assert_eq!(tables.lookup(&mut frames, 4 * MIB - 1), Some((true, false)));
        assert_eq!(tables.lookup(&mut frames, 4 * MIB), None);
    }

    #[test]
    fn a_second_mapping_must_agree_with_the_first() {
        let mut frames = Arena(Vec::new(), 100);
        let tables = PageTables::new(&mut frames, true).unwrap();
        let window = Region::new(0xfec0_0000, 0xfee0_0000);
        tables.map(&mut frames, window, Rights::Device).unwrap();
        // The processor marks what it uses, and that is no difference.
        for table in &mut frames.0 {
            table.iter_mut().filter(|entry| **entry != 0).for_each(|entry| *entry |= 0x60);
        }
        tables.map(&mut frames, window, Rights::Device).unwrap();
        let part = Region::new(0xfec0_0000, 0xfec0_1000);
        assert_eq!(tables.map(&mut frames, part, Rights::Device), Ok(()));
        assert_eq!(tables.map(&mut frames, part, Rights::Code), Err(MapError::Overlap));
        assert_eq!(tables.map(&mut frames, window, Rights::Data), Err(MapError::Overlap));
    }

    #[test]
    fn no_frames_and_crooked_ranges_are_errors() {
        let mut frames = Arena(Vec::new(), 2);
        let tables = PageTables::new(&mut frames, true).unwrap();
        let page = Region::new(0x1000, 0x2000);
        assert_eq!(tables.map(&mut frames, page, Rights::Data), Err(MapError::OutOfFrames));
        let crooked = Region::new(0x1800, 0x3000);
        assert_eq!(tables.map(&mut frames, crooked, Rights::Data), Err(MapError::Unaligned));
        let beyond = Region::new(1 << 47, (1 << 47) + 0x1000);
        assert_eq!(tables.map(&mut frames, beyond, Rights::Data), Err(MapError::Unaligned));
    }

    proptest! {
        #[test]
        fn exactly_the_asked_pages_are_mapped(
            start in 0u64..2000, len in 1u64..2000, one_gib in any::<bool>(), probe in 0u64..4200,
        ) {
            let mut frames = Arena(Vec::new(), 1000);
            let tables = PageTables::new(&mut frames, one_gib).unwrap();
            let region = Region::new(start * PAGE_SIZE, (start + len) * PAGE_SIZE);
            tables.map(&mut frames, region, Rights::Data).unwrap();
            let probe = probe * PAGE_SIZE;
            prop_assert_eq!(tables.lookup(&mut frames, probe).is_some(), region.contains(probe));
        }
    }
}
