//! The half for an image: real hypercalls.
//!
//! [`call`] makes them; [`shared_info`] is the page that says what is pending and what time it is;
//! [`events`] and [`grants`] keep the tables. The machine calls [`start`] once, fires lines with
//! [`deliver`] and sets the [timer](arm_timer); drivers get the [`Hypervisor`](crate::Hypervisor).
//!
//! State is in statics, behind locks that nobody ever waits for: there is one flow of control.

mod call;
mod events;
mod grants;
mod shared_info;
mod timer;

use crate::half::{Half, Special};
use crate::lock::Lock;
use crate::window::Memory;
use crate::{
    Access, CopyOperation, DomainId, GrantRef, HypercallError, Hypervisor, PAGE_BYTES, Port,
    Reservation, ShutdownReason, Suspended,
};
use call::{CurrentReservation, MaximumReservation, Operation as _, SELF, SetParam, Shutdown};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use fata_shared::interrupt::Line;

pub use events::{deliver, is_pending};
pub use shared_info::{SHARED_INFO, VcpuTime, vcpu_time, wall_clock_nanos};
pub use timer::{arm_timer, has_passed};

// public/hvm/params.h.
const CALLBACK: u32 = 0;
const STORE_FRAME: u32 = 1;
const STORE_PORT: u32 = 2;
const CONSOLE_FRAME: u32 = 17;
const CONSOLE_PORT: u32 = 18;
/// `HVM_PARAM_CALLBACK_TYPE_VECTOR`, in the highest byte: the number is an interrupt vector.
const CALLBACK_IS_VECTOR: u64 = 2 << 56;

/// `SHUTDOWN_suspend`.
const SUSPEND: u32 = 2;
/// `EBUSY`.
const BUSY: i32 = 16;

/// Pages of the window that [`start`] needs before the first for mappings.
const FIXED_PAGES: usize = 1 + grants::FRAMES_MAX;

/// Pages of other domains that can be mapped at one time: 256 MiB of addresses, which is a frontend's
/// every persistent page (1,056 for a disk) some sixty times over. One more is `ENOMEM`.
pub const MAPPINGS_MAX: usize = 65_536;

/// Pages of the window of guest frames that [`start`] wants.
pub const WINDOW_PAGES: usize = FIXED_PAGES + MAPPINGS_MAX;

static DOMAIN: AtomicU32 = AtomicU32::new(0);
static VECTOR: AtomicU8 = AtomicU8::new(0);
static STORE_TAKEN: AtomicBool = AtomicBool::new(false);
static CONSOLE_TAKEN: AtomicBool = AtomicBool::new(false);
static MAPPED_PAGES: AtomicU64 = AtomicU64::new(0);
/// What the machine does around a suspension: it calls what it is given, which says whether the
/// domain is a new one.
pub type AroundSuspension = fn(&mut dyn FnMut() -> bool);

static AROUND_SUSPENSION: Lock<Option<AroundSuspension>> = Lock::new(None);
static WINDOW: AtomicUsize = AtomicUsize::new(0);

/// A page and a port that the tools made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialPlace {
    /// Physical address of the page.
    pub address: u64,
    /// Our port to who is behind it.
    pub port: Port,
}

/// Looks at the processor for the instruction that calls Xen. To be called first; the machine must
/// have seen that it runs on Xen.
pub fn init_calls() {
    call::init();
}

fn special(frame: u32, port: u32) -> Option<SpecialPlace> {
    let (frame, port) = (call::parameter(frame).ok()?, call::parameter(port).ok()?);
    let address = frame.checked_mul(PAGE_BYTES as u64)?;
    let port = Port(u32::try_from(port).ok()?);
    (frame > 0 && port.0 > 0).then_some(SpecialPlace { address, port })
}

/// Where XenStore's page is, if there is one.
pub fn store_place() -> Option<SpecialPlace> {
    special(STORE_FRAME, STORE_PORT)
}

/// Where the console's page is, if there is one.
pub fn console_place() -> Option<SpecialPlace> {
    special(CONSOLE_FRAME, CONSOLE_PORT)
}

/// Notifies the other end of a port: for the machine's own use of the console.
pub fn notify(port: Port) {
    events::notify(port);
}

/// Sets everything up: the shared page, upcalls, the timer, the grant table.
///
/// # Errors
/// Xen's refusal.
///
/// # Safety
/// - From `window` on, [`WINDOW_PAGES`] pages must be guest frames without memory or devices, mapped
///   one to one as data for as long as the machine runs, and used by nobody else.
/// - `vector` must have a handler that stores 0 to the byte at [`SHARED_INFO`], and does not signal
///   an end of interrupt.
/// - The pages of [`store_place`] and [`console_place`] must be mapped one to one as data and not be
///   the heap's.
/// - All memory that Rust has references to is mapped one to one.
/// - There is one flow of control, and it is called once.
pub unsafe fn start(
    window: usize,
    vector: u8,
    around_suspension: AroundSuspension,
) -> Result<Hypervisor, HypercallError> {
    AROUND_SUSPENSION.with(|place| *place = Some(around_suspension));
    WINDOW.store(window, Ordering::Relaxed);
    VECTOR.store(vector, Ordering::Relaxed);
    // SAFETY: the caller's promise.
    unsafe { connect()? };
    let first = window / PAGE_BYTES;
    let places = grants::Places {
        table: window + PAGE_BYTES,
        mappings: first + FIXED_PAGES..first + WINDOW_PAGES,
    };
    // SAFETY: the caller's promise.
    unsafe { grants::init(places)? };
    Ok(Hypervisor::new(Domain))
}

/// What must be done in a new domain, be it the first or one that was resumed.
///
/// # Safety
/// As for [`start`].
unsafe fn connect() -> Result<(), HypercallError> {
    // The callback before the shared page: setting it tells Xen that the domain is a 64-bit one, and
    // with that how the page is laid out.
    let vector = u64::from(VECTOR.load(Ordering::Relaxed));
    SetParam { domain: SELF, index: CALLBACK, value: CALLBACK_IS_VECTOR | vector, pad: 0 }.run()?;
    // SAFETY: the first page of the window.
    unsafe { shared_info::map(WINDOW.load(Ordering::Relaxed))? };
    timer::bind()?;
    DOMAIN.store(own_id()?.into(), Ordering::Relaxed);
    Ok(())
}

/// Our number. Xen has no call that says it; but a port that one may bind oneself says for whom it is.
fn own_id() -> Result<u16, HypercallError> {
    let (port, _line) = events::allocate_unbound(DomainId(SELF))?;
    let status = events::status(port);
    events::close(port);
    Ok(status?.remote)
}

/// Lets others have the processor until Xen's system time reaches `system_nanos`, or an event comes.
pub fn pause_until(system_nanos: u64) {
    call::pause(system_nanos);
}

/// Lets others have the processor, if somebody wants it.
pub fn yield_now() {
    call::yield_now();
}

/// Ends the domain, in the middle of whatever.
pub fn shutdown(reason: ShutdownReason) -> ! {
    loop {
        let _ = Shutdown { reason: reason.to_bits() }.run();
    }
}

/// The half.
#[derive(Clone, Copy)]
pub(crate) struct Domain;

impl Half for Domain {
    type Mapping = grants::Mapping;

    fn domain_id(&self) -> DomainId {
        DomainId(DOMAIN.load(Ordering::Relaxed) as u16)
    }

    fn allocate_unbound(&self, remote: DomainId) -> Result<(Port, Line), HypercallError> {
        events::allocate_unbound(remote)
    }

    fn bind_interdomain(
        &self,
        remote: DomainId,
        port: Port,
    ) -> Result<(Port, Line), HypercallError> {
        events::bind_interdomain(remote, port)
    }

    fn notify(&self, port: Port) {
        events::notify(port);
    }

    fn is_connected(&self, port: Port) -> bool {
        events::is_connected(port)
    }

    fn close(&self, port: Port) {
        events::close(port);
    }

    fn grant_page(
        &self,
        remote: DomainId,
        page: NonNull<u8>,
        access: Access,
    ) -> Result<GrantRef, HypercallError> {
        grants::grant_page(remote, page, access)
    }

    fn end_access(&self, grant: GrantRef) -> bool {
        grants::end_access(grant)
    }

    fn map(
        &self,
        remote: DomainId,
        refs: &[GrantRef],
        access: Access,
    ) -> Result<(Memory, grants::Mapping), HypercallError> {
        let mapped = grants::map(remote, refs, access)?;
        MAPPED_PAGES.fetch_add(refs.len() as u64, Ordering::Relaxed);
        Ok(mapped)
    }

    fn unmap(&self, mapping: grants::Mapping) {
        MAPPED_PAGES.fetch_sub(mapping.pages() as u64, Ordering::Relaxed);
        grants::unmap(mapping);
    }

    fn copy(&self, operations: &mut [CopyOperation<'_>]) -> Result<(), HypercallError> {
        grants::copy(operations)
    }

    fn store_page(&self) -> Option<Special> {
        take(&STORE_TAKEN, store_place())
    }

    fn console_page(&self) -> Option<Special> {
        take(&CONSOLE_TAKEN, console_place())
    }

    fn reservation(&self) -> Reservation {
        let pages = |answer: Result<i64, _>| answer.map_or(0, |pages| pages as u64);
        Reservation {
            current_pages: pages(CurrentReservation { domain: SELF }.run()),
            maximum_pages: pages(MaximumReservation { domain: SELF }.run()),
        }
    }

    fn shutdown(&self, reason: ShutdownReason) -> ! {
        shutdown(reason)
    }

    fn suspend(&self) -> Result<Suspended, HypercallError> {
        suspend()
    }

    fn hypercalls(&self) -> u64 {
        call::count()
    }

    fn upcalls(&self) -> u64 {
        events::upcalls()
    }
}

/// Opens a special page, once.
fn take(taken: &AtomicBool, place: Option<SpecialPlace>) -> Option<Special> {
    let place = place?;
    if taken.swap(true, Ordering::Relaxed) {
        return None;
    }
    let base = NonNull::new(core::ptr::with_exposed_provenance_mut(place.address as usize))?;
    let (port, line) = events::open(place.port).ok()?;
    // Who is behind it may have spoken before.
    line.fire();
    // SAFETY: `start`'s caller promised that the page is mapped and nobody's; it is given out once.
    // (The machine's crash report writes to the console's page too, by volatile stores.)
    let memory = unsafe { Memory::contiguous(base, PAGE_BYTES) };
    Some((memory, port, line))
}

/// Suspends. Only when no event channel but the special ones is open and nothing is mapped: their
/// numbers would be somebody else's in the domain that resumes. Grants survive, see
/// [`grants::restore`].
fn suspend() -> Result<Suspended, HypercallError> {
    let special =
        [&STORE_TAKEN, &CONSOLE_TAKEN].into_iter().filter(|taken| taken.load(Ordering::Relaxed));
    if events::open_ports() > special.count() || MAPPED_PAGES.load(Ordering::Relaxed) > 0 {
        return Err(HypercallError::new("a suspension with devices connected", BUSY));
    }
    let mut outcome = Err(HypercallError::new("a suspension", HypercallError::INVALID));
    let mut act = || {
        outcome = leave_and_return();
        outcome == Ok(Suspended::Resumed)
    };
    match AROUND_SUSPENSION.with(|around| *around) {
        Some(around) => around(&mut act),
        None => _ = act(),
    }
    outcome
}

fn leave_and_return() -> Result<Suspended, HypercallError> {
    let grants = grants::save();
    let is_cancelled = Shutdown { reason: SUSPEND }.run()? == 1;
    if is_cancelled {
        return Ok(Suspended::Cancelled);
    }
    events::forget_all();
    // SAFETY: the same window as at the start, where a new domain has no memory either.
    unsafe { connect()? };
    grants::restore(&grants)?;
    for taken in [&STORE_TAKEN, &CONSOLE_TAKEN] {
        taken.store(false, Ordering::Relaxed);
    }
    Ok(Suspended::Resumed)
}
