//! The page that Xen and the domain share from the domain's first moment on: which events are
//! pending, and what time it is (`shared_info`, public/xen.h, in its 64-bit layout).

use super::call::{AddToPhysmap, Operation as _, SELF};
use crate::{HypercallError, PAGE_BYTES};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// Where the page is mapped; 0 before it is. The interrupt's handler reads it.
pub static SHARED_INFO: AtomicUsize = AtomicUsize::new(0);

/// `vcpu_info[0].evtchn_upcall_pending`: while it is not 0, Xen interrupts whenever it may.
const UPCALL_PENDING: usize = 0;
/// `vcpu_info[0].evtchn_pending_sel`: a bit for each word of the next that is worth a look.
const PENDING_SELECTOR: usize = 8;
/// `vcpu_info[0].time`.
const TIME: usize = 32;
/// `evtchn_pending`: a bit for each port.
const PENDING: usize = 2048;
/// `evtchn_mask`: a bit for each port, which keeps it from the selector.
const MASK: usize = PENDING + PORT_WORDS * 8;
/// `wc_version`, `wc_sec`, `wc_nsec`, `wc_sec_hi`.
const WALL_CLOCK: usize = MASK + PORT_WORDS * 8;

/// Words of ports.
pub(super) const PORT_WORDS: usize = 64;
/// How many ports there are in the two-level ABI: one more is `ENOSPC` from Xen.
pub(super) const PORTS_MAX: usize = PORT_WORDS * 64;

/// `XENMAPSPACE_shared_info`.
const SPACE: u32 = 0;

/// Maps the page at `address`.
///
/// # Safety
/// `address` must be that of a page where there is no memory, mapped as data and used by nobody.
pub(super) unsafe fn map(address: usize) -> Result<(), HypercallError> {
    let gpfn = (address / PAGE_BYTES) as u64;
    AddToPhysmap { domain: SELF, space: SPACE, gpfn, ..AddToPhysmap::default() }.run()?;
    SHARED_INFO.store(address, Ordering::Relaxed);
    for word in 0..PORT_WORDS {
        mask_word(word).store(u64::MAX, Ordering::Relaxed);
    }
    Ok(())
}

fn place(offset: usize) -> usize {
    let base = SHARED_INFO.load(Ordering::Relaxed);
    assert!(base != 0, "the page that is shared with Xen is not mapped yet");
    base + offset
}

fn word64(offset: usize) -> &'static AtomicU64 {
    // SAFETY: the page is mapped for as long as the domain runs, `offset` is a field's, aligned to
    // 8, and everybody touches it by atomic operations, or as Xen does, which is the same.
    unsafe { AtomicU64::from_ptr(core::ptr::with_exposed_provenance_mut(place(offset))) }
}

fn word32(offset: usize) -> &'static AtomicU32 {
    // SAFETY: as in `word64`.
    unsafe { AtomicU32::from_ptr(core::ptr::with_exposed_provenance_mut(place(offset))) }
}

fn upcall_pending() -> &'static AtomicU8 {
    // SAFETY: as in `word64`.
    unsafe { AtomicU8::from_ptr(core::ptr::with_exposed_provenance_mut(place(UPCALL_PENDING))) }
}

/// The word of pending bits of ports `64 * word` on.
pub(super) fn pending_word(word: usize) -> &'static AtomicU64 {
    assert!(word < PORT_WORDS);
    word64(PENDING + word * 8)
}

/// The word of mask bits of ports `64 * word` on.
pub(super) fn mask_word(word: usize) -> &'static AtomicU64 {
    assert!(word < PORT_WORDS);
    word64(MASK + word * 8)
}

/// Whether an event is pending that nobody has looked at: one load.
pub(super) fn is_event_pending() -> bool {
    SHARED_INFO.load(Ordering::Relaxed) != 0
        && word64(PENDING_SELECTOR).load(Ordering::Relaxed) != 0
}

/// Takes the selector. The interrupt is acknowledged first: an event that comes in between sets
/// both again, and costs an interrupt too many, not a wake-up.
pub(super) fn take_selector() -> u64 {
    upcall_pending().store(0, Ordering::Relaxed);
    // An exchange is a full barrier on x86: the acknowledgement is seen before.
    word64(PENDING_SELECTOR).swap(0, Ordering::SeqCst)
}

/// `vcpu_time_info`: a line from the time-stamp counter to Xen's system time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuTime {
    /// The counter at the line's origin.
    pub tsc_timestamp: u64,
    /// System time there, in nanoseconds since Xen started.
    pub system_time: u64,
    /// The slope: nanoseconds per 2³² of the shifted ticks.
    pub tsc_to_system_mul: u32,
    /// How far ticks are shifted to the left before; to the right if negative.
    pub tsc_shift: i8,
}

/// How often a reading that Xen was just changing is tried again. Xen changes it while the processor
/// runs Xen, so once is enough; this is a bound for a Xen that is broken.
const TRIES: usize = 1000;

/// Reads what Xen says about this processor's time. `None` before the page is mapped.
pub fn vcpu_time() -> Option<VcpuTime> {
    if SHARED_INFO.load(Ordering::Relaxed) == 0 {
        return None;
    }
    consistent(TIME, || {
        let shift = word32(TIME + 28).load(Ordering::Relaxed);
        VcpuTime {
            tsc_timestamp: word64(TIME + 8).load(Ordering::Relaxed),
            system_time: word64(TIME + 16).load(Ordering::Relaxed),
            tsc_to_system_mul: word32(TIME + 24).load(Ordering::Relaxed),
            tsc_shift: shift as u8 as i8,
        }
    })
}

/// Wall-clock time at system time 0: nanoseconds since 1970.
pub fn wall_clock_nanos() -> Option<u64> {
    if SHARED_INFO.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let (seconds, nanos) = consistent(WALL_CLOCK, || {
        let low = word32(WALL_CLOCK + 4).load(Ordering::Relaxed);
        let nanos = word32(WALL_CLOCK + 8).load(Ordering::Relaxed);
        let high = word32(WALL_CLOCK + 12).load(Ordering::Relaxed);
        (u64::from(high) << 32 | u64::from(low), u64::from(nanos))
    })?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// Reads fields behind a version: it is odd while they change, and another one afterwards.
fn consistent<T>(version: usize, read: impl Fn() -> T) -> Option<T> {
    (0..TRIES).find_map(|_| {
        let before = word32(version).load(Ordering::Acquire);
        let value = read();
        fence(Ordering::Acquire);
        let after = word32(version).load(Ordering::Relaxed);
        (before & 1 == 0 && before == after).then_some(value)
    })
}
