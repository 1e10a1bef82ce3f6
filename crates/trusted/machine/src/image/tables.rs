//! The page tables in use.

use super::cell::OneCpu;
use super::cpu;
use super::layout::{self, Layout};
use crate::elf::{PF_W, PF_X, PT_LOAD};
use crate::memory_map::{MemoryMap, PAGE_SIZE, Region};
#[cfg(fata_target = "virtio")]
use crate::paging::LARGE_PAGE_SIZE;
use crate::paging::{Frames, MapError, PageTables, Rights};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

static TABLES: OneCpu<Option<PageTables>> = OneCpu::new(None);

/// Takes tables from the start of a region, before there is a heap.
struct Bump(Region);

impl Frames for Bump {
    fn allocate(&mut self) -> Option<u64> {
        let address = self.0.start;
        if self.0.len() < PAGE_SIZE {
            return None;
        }
        self.0.start += PAGE_SIZE;
        // SAFETY: the region is RAM that nothing else uses (see `Layout`), mapped one to one.
        unsafe { core::ptr::write_bytes(address as *mut u8, 0, PAGE_SIZE as usize) };
        Some(address)
    }

    fn table(&mut self, address: u64) -> &mut [u64; 512] {
        // SAFETY: `allocate` gave this page away for a table, and `&mut self` makes the reference
        // the only one.
        unsafe { &mut *(address as *mut [u64; 512]) }
    }
}

/// Takes tables from the heap.
struct FromHeap;

impl Frames for FromHeap {
    fn allocate(&mut self) -> Option<u64> {
        let layout = core::alloc::Layout::from_size_align(PAGE_SIZE as usize, PAGE_SIZE as usize);
        // SAFETY: the layout has a size.
        let page = unsafe { alloc::alloc::alloc_zeroed(layout.ok()?) };
        (!page.is_null()).then_some(page as u64)
    }

    fn table(&mut self, address: u64) -> &mut [u64; 512] {
        // SAFETY: tables are never freed; `&mut self` and `OneCpu` make the reference the only one.
        unsafe { &mut *(address as *mut [u64; 512]) }
    }
}

/// Builds the tables for the plan, with the pages `others` as data beside RAM, and switches to them.
/// What is left of `layout.rest` is returned.
pub(crate) fn init(
    ram: &MemoryMap,
    layout: &Layout,
    others: &[Region],
) -> Result<Region, MapError> {
    let has_1_gib_pages = cpu::cpuid(0x8000_0001).edx & 1 << 26 != 0;
    let mut frames = Bump(layout.rest);
    let tables = PageTables::new(&mut frames, has_1_gib_pages)?;
    for header in layout::program_headers().iter().filter(|header| header.kind == PT_LOAD) {
        let rights = match header.flags {
            flags if flags & PF_X != 0 => Rights::Code,
            flags if flags & PF_W != 0 => Rights::Data,
            _ => Rights::Constants,
        };
        let segment = Region::new(header.address, header.address + header.memory_bytes);
        tables.map(&mut frames, segment.pages_touched(), rights)?;
    }
    let mut data = ram.clone();
    data.remove(Region::new(0, PAGE_SIZE));
    data.remove(layout::image());
    for stack in layout.stacks() {
        data.remove(stack.guard);
    }
    for &region in data.regions().iter().chain(others) {
        tables.map(&mut frames, region, Rights::Data)?;
    }
    // SAFETY: the tables map everything that is in use where it is (code, data, stacks, themselves)
    // with the rights that its use needs. NXE comes first: without it the NX bit is reserved.
    unsafe {
        const EFER: u32 = 0xc000_0080;
        cpu::write_msr(EFER, cpu::read_msr(EFER) | 1 << 11);
        asm!("mov cr3, {}", in(reg) tables.root(), options(nostack, preserves_flags));
    }
    TABLES.with(|place| *place = Some(tables));
    Ok(frames.0)
}

/// How often an emulated TLB is refreshed, at most, in nanoseconds: QEMU looks back so far (its
/// `tlb_mmu_resize_locked`).
const TLB_REFRESH_NANOS: u64 = 100_000_000;

/// Empties the TLB, if it is one of QEMU's emulation and has not been emptied for a while. Such a one
/// starts with 256 entries and grows, to what a program needs, only when it is emptied. A kernel with
/// processes does that all the time; we would never, and a stream spends a tenth of its time in misses.
pub(super) fn refresh_emulated_tlb(now_nanos: u64) {
    static REFRESHED_NANOS: AtomicU64 = AtomicU64::new(0);
    let elapsed = now_nanos.wrapping_sub(REFRESHED_NANOS.load(Ordering::Relaxed));
    if elapsed < TLB_REFRESH_NANOS || !cpu::IS_EMULATED.load(Ordering::Relaxed) {
        return;
    }
    REFRESHED_NANOS.store(now_nanos, Ordering::Relaxed);
    // SAFETY: the same tables again.
    unsafe {
        asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags));
    }
}

/// Maps pages outside RAM as data; whether they are mapped now.
#[cfg(fata_target = "xen")]
pub(crate) fn map_data(region: Region) -> bool {
    // Nothing has to be flushed, see `map_device`.
    TABLES.with(|tables| {
        tables.as_ref().is_some_and(|it| it.map(&mut FromHeap, region, Rights::Data).is_ok())
    })
}

/// Maps a device's registers one to one, uncached, and gives their address. Pages that are mapped
/// as a device's already are shared; anything that is RAM is refused.
#[cfg(fata_target = "virtio")]
pub(crate) fn map_device(address: u64, bytes: u64) -> Option<*mut u8> {
    let end = address.checked_add(bytes).filter(|_| bytes > 0)?;
    let window = Region::new(address, end);
    let exact = window.pages_touched();
    let wide = Region::new(
        window.start & !(LARGE_PAGE_SIZE - 1),
        window.end.checked_next_multiple_of(LARGE_PAGE_SIZE)?,
    );
    // Big pages need no table of their own; but they must not cover RAM, which `init` mapped.
    let mapped = TABLES.with(|tables| {
        let tables = tables.as_ref()?;
        if !super::memory::touches_ram(wide)
            && tables.map(&mut FromHeap, wide, Rights::Device).is_ok()
        {
            return Some(());
        }
        if super::memory::touches_ram(exact) {
            return None;
        }
        tables.map(&mut FromHeap, exact, Rights::Device).ok()
    });
    // Nothing was mapped there before, and absent entries are not cached (Intel SDM volume 3,
    // 4.10.2.3), so nothing has to be flushed.
    mapped.map(|()| address as *mut u8)
}
