//! The grant table, mappings of other domains' pages, and copies.
//!
//! The table is Xen's memory, mapped frame by frame at guest frames of the window as it grows (512
//! grants a frame). Mappings are put at guest frames of the window, where no memory is: nothing of
//! ours has to be given up for them, and the page tables map the whole window from the start.

use super::call::{
    self, AddToPhysmap, CopyGrant, CopySide, MapGrant, Operation as _, QuerySize, SELF, UnmapGrant,
};
use crate::copy::CopyData;
use crate::lock::Lock;
use crate::runs::Runs;
use crate::window::Memory;
use crate::{Access, CopyOperation, DomainId, GrantRef, HypercallError, PAGE_BYTES, entry};
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

/// Frames of the grant table at most: 131,072 grants, with which half a gigabyte can be shared. Xen
/// itself allows 64 by default (`gnttab_max_frames`).
pub(super) const FRAMES_MAX: usize = 256;
/// Entries in a frame.
const FRAME_ENTRIES: usize = PAGE_BYTES / entry::BYTES;
/// `XENMAPSPACE_grant_table`.
const SPACE: u32 = 1;

/// `GNTMAP_host_map`: into the domain's memory.
const MAP_HOST: u32 = 1 << 1;
/// `GNTMAP_readonly`.
const MAP_READ_ONLY: u32 = 1 << 2;
/// `GNTCOPY_source_gref`.
const COPY_FROM_GRANT: u16 = 1 << 0;
/// `GNTCOPY_dest_gref`.
const COPY_TO_GRANT: u16 = 1 << 1;

/// `GNTST_eagain`: the other domain's page is being moved by whoever manages its memory.
const STATUS_AGAIN: i16 = -12;
/// How often such an operation is tried again, others running between: the page comes from a disk of
/// domain 0's, or it does not come back soon.
const AGAIN_TRIES: usize = 1000;

static TABLE: Lock<Option<Table>> = Lock::new(None);

struct Table {
    /// Where the first frame of the table is mapped; the others follow.
    base: usize,
    frames: usize,
    frames_max: usize,
    /// Grants that are free, the one that was freed last on top.
    free: Vec<u32>,
    /// The window's places for mappings, as page numbers.
    places: Runs,
}

/// The window that `start` was given, beyond what the shared page takes.
pub(super) struct Places {
    /// Where the table goes: room for [`FRAMES_MAX`].
    pub(super) table: usize,
    /// Page numbers for mappings.
    pub(super) mappings: core::ops::Range<usize>,
}

/// Maps the table as far as it is in use.
///
/// # Safety
/// The places must be free guest frames that the page tables map as data.
pub(super) unsafe fn init(places: Places) -> Result<(), HypercallError> {
    let mut size = [QuerySize { domain: SELF, ..QuerySize::default() }];
    // SAFETY: the operation names no memory.
    unsafe { call::run_all(&mut size)? };
    let frames_max = FRAMES_MAX.min(size[0].frames_max as usize);
    let mut table = Table {
        base: places.table,
        frames: 0,
        frames_max,
        free: Vec::new(),
        places: Runs::new(places.mappings),
    };
    table.grow()?;
    TABLE.with(|place| *place = Some(table));
    Ok(())
}

fn with_table<R>(use_it: impl FnOnce(&mut Table) -> R) -> R {
    TABLE.with(|table| use_it(table.as_mut().expect("grants are used after `init`")))
}

impl Table {
    /// Adds a frame.
    fn grow(&mut self) -> Result<(), HypercallError> {
        if self.frames == self.frames_max {
            return Err(HypercallError::new(
                "another frame of the grant table",
                HypercallError::NO_MEMORY,
            ));
        }
        self.map_frame(self.frames)?;
        let first = (self.frames * FRAME_ENTRIES) as u32;
        let last = first + FRAME_ENTRIES as u32;
        self.frames += 1;
        // Turned, so that the lowest are given out first.
        self.free.extend((first.max(entry::RESERVED)..last).rev());
        Ok(())
    }

    fn map_frame(&self, index: usize) -> Result<(), HypercallError> {
        let gpfn = (self.base / PAGE_BYTES + index) as u64;
        let index = index as u64;
        AddToPhysmap { domain: SELF, space: SPACE, index, gpfn, ..AddToPhysmap::default() }
            .run()
            .map(|_| ())
    }

    /// An entry's flags, domain and frame.
    fn entry(&self, grant: u32) -> (&AtomicU16, &AtomicU16, &AtomicU32) {
        let index = grant as usize;
        assert!(index < self.frames * FRAME_ENTRIES, "grant {grant} is outside the table");
        let place = self.base + index * entry::BYTES;
        let at = core::ptr::with_exposed_provenance_mut::<u8>;
        // SAFETY: the table's mapped frames hold the entry, aligned to 8, for as long as the domain
        // runs; Xen too reads and writes it by operations that are atomic.
        unsafe {
            (
                AtomicU16::from_ptr(at(place).cast()),
                AtomicU16::from_ptr(at(place + 2).cast()),
                AtomicU32::from_ptr(at(place + 4).cast()),
            )
        }
    }
}

pub(super) fn grant_page(
    remote: DomainId,
    page: NonNull<u8>,
    access: Access,
) -> Result<GrantRef, HypercallError> {
    // Virtual addresses are physical ones. Version 1 has 32 bits for a frame: 16 TiB.
    let frame = page.as_ptr().expose_provenance() / PAGE_BYTES;
    let frame = u32::try_from(frame)
        .map_err(|_| HypercallError::new("a grant above 16 TiB", HypercallError::INVALID))?;
    with_table(|table| {
        if table.free.is_empty() {
            table.grow()?;
        }
        let grant = table.free.pop().expect("the table has just grown");
        let (flags, domain, place) = table.entry(grant);
        domain.store(remote.0, Ordering::Relaxed);
        place.store(frame, Ordering::Relaxed);
        // Last: from here on the entry is believed.
        flags.store(entry::flags(access), Ordering::Release);
        Ok(GrantRef(grant))
    })
}

pub(super) fn end_access(grant: GrantRef) -> bool {
    with_table(|table| {
        let ended = entry::end(table.entry(grant.0).0);
        if ended {
            table.free.push(grant.0);
        }
        ended
    })
}

/// A run of pages that are mapped.
pub(crate) struct Mapping {
    /// Page number of the first.
    first: usize,
    /// Xen's name of each mapping.
    handles: Vec<u32>,
}

impl Mapping {
    pub(super) fn pages(&self) -> usize {
        self.handles.len()
    }

    fn address(&self, index: usize) -> u64 {
        ((self.first + index) * PAGE_BYTES) as u64
    }
}

pub(super) fn map(
    remote: DomainId,
    refs: &[GrantRef],
    access: Access,
) -> Result<(Memory, Mapping), HypercallError> {
    let refused = |errno| HypercallError::new("GNTTABOP_map_grant_ref", errno);
    let first = with_table(|table| table.places.take(refs.len()))
        .ok_or(refused(HypercallError::NO_MEMORY))?;
    let flags = MAP_HOST | if access == Access::ReadOnly { MAP_READ_ONLY } else { 0 };
    let mut operations: Vec<MapGrant> = (refs.iter().enumerate())
        .map(|(index, grant)| MapGrant {
            host_address: ((first + index) * PAGE_BYTES) as u64,
            flags,
            grant: grant.0,
            domain: remote.0,
            status: 1,
            ..MapGrant::default()
        })
        .collect();
    // SAFETY: the places are free guest frames of the window, and no reference to them exists.
    let called = unsafe { run_again(&mut operations, |operation| operation.status) };
    let done: Vec<_> = operations.iter().map(|operation| operation.status == 0).collect();
    if called.is_ok() && done.iter().all(|done| *done) {
        let handles = operations.iter().map(|operation| operation.handle).collect();
        let mapping = Mapping { first, handles };
        let base = core::ptr::with_exposed_provenance_mut(first * PAGE_BYTES);
        let base = NonNull::new(base).expect("the window is not at 0");
        // SAFETY: the pages are mapped until `unmap`, which the owner of this memory calls last;
        // nothing else is ever there. (A write to a page that is mapped for reading is refused by
        // the processor; drivers that map so do not write.)
        let memory = unsafe { Memory::contiguous(base, refs.len() * PAGE_BYTES) };
        return Ok((memory, mapping));
    }
    // All or none.
    let mut undo: Vec<UnmapGrant> = (operations.iter())
        .filter(|operation| operation.status == 0)
        .map(|operation| UnmapGrant {
            host_address: operation.host_address,
            handle: operation.handle,
            ..UnmapGrant::default()
        })
        .collect();
    // SAFETY: what was just mapped, and nobody knows of.
    if unsafe { unmap_all(&mut undo) } {
        with_table(|table| table.places.give(first..first + refs.len()));
    }
    let failed = operations.iter().find(|operation| operation.status != 0);
    Err(called.err().unwrap_or(refused(failed.map_or(0, |failed| failed.status.into()))))
}

pub(super) fn unmap(mapping: Mapping) {
    let mut operations: Vec<UnmapGrant> = (mapping.handles.iter().enumerate())
        .map(|(index, &handle)| UnmapGrant {
            host_address: mapping.address(index),
            handle,
            ..UnmapGrant::default()
        })
        .collect();
    // SAFETY: the mapping's owner is gone, so nobody uses the pages.
    if unsafe { unmap_all(&mut operations) } {
        let places = mapping.first..mapping.first + mapping.handles.len();
        with_table(|table| table.places.give(places));
    }
}

/// Unmaps; whether all is unmapped. What is not stays taken for ever: an address where another
/// domain's page might still be is never used for something else.
///
/// # Safety
/// Nobody may use the pages.
unsafe fn unmap_all(operations: &mut [UnmapGrant]) -> bool {
    if operations.is_empty() {
        return true;
    }
    // SAFETY: the caller's promise.
    unsafe { call::run_all(operations) }.is_ok()
        && operations.iter().all(|operation| operation.status == 0)
}

/// Does the operations, and those again that Xen wants again.
///
/// # Safety
/// As for [`call::run_all`].
unsafe fn run_again<T: call::GrantOperation>(
    operations: &mut [T],
    status: impl Fn(&T) -> i16,
) -> Result<(), HypercallError> {
    // SAFETY: the caller's promise.
    unsafe { call::run_all(operations)? };
    for operation in operations.iter_mut() {
        for _ in 0..AGAIN_TRIES {
            if status(operation) != STATUS_AGAIN {
                break;
            }
            call::yield_now();
            // SAFETY: the caller's promise.
            unsafe { call::run_all(core::slice::from_mut(operation))? };
        }
    }
    Ok(())
}

/// Where the parts of a call are gathered: kept, so that a call for every frame does not allocate.
static COPIES: Lock<Vec<CopyGrant>> = Lock::new(Vec::new());

pub(super) fn copy(operations: &mut [CopyOperation<'_>]) -> Result<(), HypercallError> {
    COPIES.with(|parts| {
        parts.clear();
        for operation in operations.iter_mut() {
            split(operation, parts);
        }
        // SAFETY: our sides are the bytes of slices that the operations hold, mutably where Xen
        // writes; memory is contiguous and its address physical.
        unsafe { run_again(parts, |part| part.status)? };
        let mut parts = parts.iter();
        for operation in operations.iter_mut() {
            operation.status = 0;
            let mut left = operation.data.len();
            while left > 0 {
                let part = parts.next().expect("`split` made them");
                left -= usize::from(part.len);
                if part.status != 0 && operation.status == 0 {
                    operation.status = part.status;
                }
            }
        }
        Ok(())
    })
}

/// Appends the one or two parts of an operation: Xen wants each side within a page, and our side may
/// cross the end of one.
fn split(operation: &mut CopyOperation<'_>, parts: &mut Vec<CopyGrant>) {
    let len = operation.data.len();
    let (address, into) = match &mut operation.data {
        CopyData::Into(bytes) => (bytes.as_mut_ptr().expose_provenance(), true),
        CopyData::From(bytes) => (bytes.as_ptr().expose_provenance(), false),
    };
    let mut done = 0;
    while done < len {
        let at = address + done;
        let count = (PAGE_BYTES - at % PAGE_BYTES).min(len - done);
        let ours = CopySide {
            place: (at / PAGE_BYTES) as u64,
            domain: SELF,
            offset: (at % PAGE_BYTES) as u16,
        };
        let theirs = CopySide {
            place: operation.grant.0.into(),
            domain: operation.remote.0,
            // In the page, with all that is copied: see `Hypervisor::copy`.
            offset: operation.offset + done as u16,
        };
        let (source, target, flags) =
            if into { (theirs, ours, COPY_FROM_GRANT) } else { (ours, theirs, COPY_TO_GRANT) };
        parts.push(CopyGrant { source, target, len: count as u16, flags, status: 1 });
        done += count;
    }
}

/// What the table says, to be written into another one after a suspension.
pub(super) fn save() -> Vec<[u32; 2]> {
    with_table(|table| {
        (entry::RESERVED..(table.frames * FRAME_ENTRIES) as u32)
            .map(|grant| {
                let (flags, domain, frame) = table.entry(grant);
                let flags = entry::without_use(flags.load(Ordering::Relaxed));
                let domain = domain.load(Ordering::Relaxed);
                [u32::from(domain) << 16 | u32::from(flags), frame.load(Ordering::Relaxed)]
            })
            .collect()
    })
}

/// Maps the table of a resumed domain, and grants again what was granted, so that every grant that
/// somebody owns is what it was: nobody else's.
pub(super) fn restore(entries: &[[u32; 2]]) -> Result<(), HypercallError> {
    with_table(|table| {
        (0..table.frames).try_for_each(|frame| table.map_frame(frame))?;
        for (grant, [domain_and_flags, frame]) in (entry::RESERVED..).zip(entries) {
            let (flags, domain, place) = table.entry(grant);
            domain.store((domain_and_flags >> 16) as u16, Ordering::Relaxed);
            place.store(*frame, Ordering::Relaxed);
            fence(Ordering::Release);
            flags.store(*domain_and_flags as u16, Ordering::Relaxed);
        }
        Ok(())
    })
}
