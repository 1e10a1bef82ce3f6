//! How much memory there is, and how much of it is in use.

use super::cell::OneCpu;
use super::heap;
use crate::memory_map::MemoryMap;
#[cfg(fata_target = "virtio")]
use crate::memory_map::Region;

static RAM: OneCpu<MemoryMap> = OneCpu::new(MemoryMap::new());

/// Notes the map of RAM.
pub(crate) fn set_ram(ram: &MemoryMap) {
    RAM.with(|place| place.clone_from(ram));
}

/// Whether any page of RAM is in `region`.
#[cfg(fata_target = "virtio")]
pub(crate) fn touches_ram(region: Region) -> bool {
    RAM.with(|ram| ram.regions().iter().any(|ram| ram.start < region.end && region.start < ram.end))
}

/// The end of the highest RAM.
#[cfg(fata_target = "xen")]
pub(crate) fn end() -> u64 {
    RAM.with(|ram| ram.regions().last().map_or(0, |region| region.end))
}

/// Bytes of RAM that the loader reported as usable.
pub fn total_bytes() -> u64 {
    RAM.with(|ram| ram.total_bytes())
}

/// Bytes that the heap has free, in pieces of whatever size.
pub fn free_bytes() -> u64 {
    heap::free_bytes() as u64
}

/// Bytes that are not free: the image, stacks, page tables, and what the program has allocated.
pub fn used_bytes() -> u64 {
    total_bytes().saturating_sub(free_bytes())
}

/// How many allocations are alive.
pub fn allocations() -> u64 {
    heap::allocations() as u64
}
