//! The heap: every page of RAM that nothing else uses, under one allocator.
//!
//! talc keeps free memory in size classes, merges neighbours and grows in place; it takes several
//! regions, so memory below 1 MiB and above 4 GiB serves like any other. There is one flow of control
//! (see `cell`), so there is no lock.

use crate::memory_map::Region;
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};
use talc::DefaultBinning;
use talc::cell::TalcCell;
use talc::source::Manual;

struct Heap(TalcCell<Manual, DefaultBinning>);

// SAFETY: there is one flow of control, and interrupt handlers do not allocate (see `traps`).
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap(TalcCell::new(Manual));

/// The bytes of the allocation that failed last, if none has succeeded since: how `abort` knows that
/// it was called for want of memory.
static FAILED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Gives a region of RAM to the heap, for good.
///
/// # Safety
/// The region must be mapped, writable, and used by nobody else from now on.
pub(crate) unsafe fn claim(region: Region) {
    // SAFETY: the caller's promise is talc's condition. A region too small for a chunk is left.
    let _ = unsafe { HEAP.0.claim(region.start as *mut u8, region.len() as usize) };
}

/// Bytes that are free, in pieces of whatever size.
pub(crate) fn free_bytes() -> usize {
    HEAP.0.counters().available_bytes
}

/// How many allocations are alive.
pub(crate) fn allocations() -> usize {
    HEAP.0.counters().allocation_count
}

/// The size of the allocation that failed last, if it was the heap's last act.
pub(crate) fn failed_bytes() -> Option<usize> {
    Some(FAILED_BYTES.load(Ordering::Relaxed)).filter(|&bytes| bytes > 0)
}

fn noted(pointer: *mut u8, bytes: usize) -> *mut u8 {
    FAILED_BYTES.store(if pointer.is_null() { bytes } else { 0 }, Ordering::Relaxed);
    pointer
}

// SAFETY: talc's cell keeps GlobalAlloc's contract; a failure is null, as the contract says, and
// becomes either an `Err` of a `try_` function or `abort`, never a hang.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps GlobalAlloc's contract.
        noted(unsafe { self.0.alloc(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as in `alloc`.
        noted(unsafe { self.0.realloc(pointer, layout, bytes) }, bytes)
    }
}
