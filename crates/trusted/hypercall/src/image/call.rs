//! The instruction that calls the hypervisor, and the calls that are made with it.
//!
//! Xen offers a page of code for this, which hides that Intel's processors have one instruction and
//! AMD's another. The page would have to be written while it can be executed, or mapped twice; two
//! instructions and a look at the processor's vendor are less, and Linux does the same since 6.13.
//!
//! Numbers and structures: public/xen.h, event_channel.h, grant_table.h, memory.h, sched.h, vcpu.h,
//! hvm/hvm_op.h, hvm/params.h; the calling convention: arch-x86/xen-x86_64.h.

use crate::HypercallError;
use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const MEMORY_OP: u64 = 12;
const GRANT_TABLE_OP: u64 = 20;
const VCPU_OP: u64 = 24;
const SCHED_OP: u64 = 29;
const EVENT_CHANNEL_OP: u64 = 32;
const HVM_OP: u64 = 34;

/// "The domain that calls".
pub(super) const SELF: u16 = crate::DomainId::SELF.0;

/// True on processors whose instruction is `vmmcall`: AMD's and Hygon's.
static IS_VMMCALL: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicU64 = AtomicU64::new(0);

/// Finds out which instruction the processor has. To be called before the first call.
pub(super) fn init() {
    let leaf = __cpuid(0);
    let vendor = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    let is_vmmcall = matches!(vendor.as_flattened(), b"AuthenticAMD" | b"HygonGenuine");
    IS_VMMCALL.store(is_vmmcall, Ordering::Relaxed);
}

/// How many calls there were.
pub(super) fn count() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// Calls Xen.
///
/// # Safety
/// What the call does with memory and the machine must be sound, and [`init`] have run.
unsafe fn call(number: u64, first: u64, second: u64, third: u64) -> i64 {
    // One flow of control: an increment need not be one instruction.
    CALLS.store(CALLS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    let result;
    // SAFETY: the caller answers for what Xen does. It changes rax and the arguments' registers; to
    // the compiler it may change any memory.
    unsafe {
        if IS_VMMCALL.load(Ordering::Relaxed) {
            asm!("vmmcall", inlateout("rax") number => result, inlateout("rdi") first => _,
                inlateout("rsi") second => _, inlateout("rdx") third => _, options(nostack));
        } else {
            asm!("vmcall", inlateout("rax") number => result, inlateout("rdi") first => _,
                inlateout("rsi") second => _, inlateout("rdx") third => _, options(nostack));
        }
    }
    result
}

fn result(operation: &'static str, result: i64) -> Result<i64, HypercallError> {
    if result >= 0 {
        return Ok(result);
    }
    let errno = i32::try_from(-result).unwrap_or(i32::MAX);
    Err(HypercallError::new(operation, errno))
}

/// A structure that is an operation's argument and, for some, holds its answer.
///
/// # Safety
/// `NUMBER` of the hypercall `CALL` must take a pointer to a structure of exactly this layout, and
/// touch no other memory of the program's because of it, whatever its fields hold.
pub(super) unsafe trait Operation: Sized {
    /// The hypercall.
    const CALL: u64;
    /// The operation, which is its first argument.
    const NUMBER: u64;
    /// Its name in Xen's headers.
    const NAME: &'static str;

    /// Does it.
    fn run(&mut self) -> Result<i64, HypercallError> {
        let place = core::ptr::from_mut(self).expose_provenance() as u64;
        // SAFETY: the implementation's promise.
        let answer = unsafe { call(Self::CALL, Self::NUMBER, place, 0) };
        result(Self::NAME, answer)
    }
}

macro_rules! operations {
    ($($call:ident $number:literal $name:literal, $(#[$doc:meta])* struct $type:ident {
        $($field:ident: $kind:ty,)*
    } of $bytes:literal;)*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Default)]
        pub(super) struct $type {
            $(pub(super) $field: $kind,)*
        }
        const _: () = assert!(size_of::<$type>() == $bytes);
        // SAFETY: number and layout are those of Xen's headers. None of the structures has an address
        // of the program's memory in it, but for `gpfn`, see `AddToPhysmap`.
        unsafe impl Operation for $type {
            const CALL: u64 = $call;
            const NUMBER: u64 = $number;
            const NAME: &'static str = $name;
        }
    )*};
}

operations! {
    EVENT_CHANNEL_OP 0 "EVTCHNOP_bind_interdomain",
    struct BindInterdomain { remote: u16, pad: u16, remote_port: u32, port: u32, } of 12;

    EVENT_CHANNEL_OP 1 "EVTCHNOP_bind_virq",
    struct BindVirq { virq: u32, vcpu: u32, port: u32, } of 12;

    EVENT_CHANNEL_OP 3 "EVTCHNOP_close",
    struct Close { port: u32, } of 4;

    EVENT_CHANNEL_OP 4 "EVTCHNOP_send",
    struct Send { port: u32, } of 4;

    EVENT_CHANNEL_OP 5 "EVTCHNOP_status",
    struct Status {
        domain: u16, pad: u16, port: u32, status: u32, vcpu: u32, remote: u16, pad_2: u16,
        remote_port: u32,
    } of 24;

    EVENT_CHANNEL_OP 6 "EVTCHNOP_alloc_unbound",
    struct AllocUnbound { domain: u16, remote: u16, port: u32, } of 8;

    EVENT_CHANNEL_OP 9 "EVTCHNOP_unmask",
    struct Unmask { port: u32, } of 4;

    SCHED_OP 2 "SCHEDOP_shutdown",
    struct Shutdown { reason: u32, } of 4;

    VCPU_OP 8 "VCPUOP_set_singleshot_timer",
    /// Has another shape of call, see [`set_timer`].
    struct SingleShot { system_nanos: u64, flags: u32, pad: u32, } of 16;

    HVM_OP 0 "HVMOP_set_param",
    struct SetParam { domain: u16, pad: u16, index: u32, value: u64, } of 16;

    HVM_OP 1 "HVMOP_get_param",
    struct GetParam { domain: u16, pad: u16, index: u32, value: u64, } of 16;

    MEMORY_OP 3 "XENMEM_current_reservation",
    struct CurrentReservation { domain: u16, } of 2;

    MEMORY_OP 4 "XENMEM_maximum_reservation",
    struct MaximumReservation { domain: u16, } of 2;

    MEMORY_OP 7 "XENMEM_add_to_physmap",
    /// Puts one of Xen's own pages at a guest frame. What was there is gone: the frames of the
    /// window, where nothing is, are the only ones that this crate names.
    struct AddToPhysmap { domain: u16, size: u16, space: u32, index: u64, gpfn: u64, } of 24;
}

/// Sets the one-shot timer of the processor, which fires `VIRQ_TIMER`; at once if the time has passed.
pub(super) fn set_timer(system_nanos: u64) -> Result<(), HypercallError> {
    let mut argument = SingleShot { system_nanos, ..SingleShot::default() };
    let place = core::ptr::from_mut(&mut argument).expose_provenance() as u64;
    // SAFETY: the operation reads the structure. vcpu_op's second argument is the processor: 0.
    let answer = unsafe { call(VCPU_OP, SingleShot::NUMBER, 0, place) };
    result(SingleShot::NAME, answer).map(|_| ())
}

/// Stops the timer (`VCPUOP_stop_singleshot_timer`).
pub(super) fn stop_timer() {
    // SAFETY: the operation has no argument but the processor, and changes no memory.
    unsafe { call(VCPU_OP, 9, 0, 0) };
}

/// Gives the processor to whoever wants it (`SCHEDOP_yield`).
pub(super) fn yield_now() {
    // SAFETY: the operation has no argument and changes no memory.
    unsafe { call(SCHED_OP, 0, 0, 0) };
}

/// Gives the processor away until a time, or an event (`SCHEDOP_poll` without ports).
pub(super) fn pause(until_system_nanos: u64) {
    /// `sched_poll`: no ports, a time.
    #[repr(C)]
    struct Poll {
        ports: u64,
        count: u32,
        timeout: u64,
    }
    let mut argument = Poll { ports: 0, count: 0, timeout: until_system_nanos };
    let place = core::ptr::from_mut(&mut argument).expose_provenance() as u64;
    // SAFETY: the operation reads the structure, and no port as there is none.
    unsafe { call(SCHED_OP, 3, place, 0) };
}

/// A parameter of the domain, which the tools or we set (public/hvm/params.h).
pub(super) fn parameter(index: u32) -> Result<u64, HypercallError> {
    let mut argument = GetParam { domain: SELF, index, ..GetParam::default() };
    argument.run()?;
    Ok(argument.value)
}

/// `gnttab_map_grant_ref`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct MapGrant {
    pub(super) host_address: u64,
    pub(super) flags: u32,
    pub(super) grant: u32,
    pub(super) domain: u16,
    pub(super) status: i16,
    pub(super) handle: u32,
    pub(super) device_address: u64,
}
const _: () = assert!(size_of::<MapGrant>() == 32);

/// `gnttab_unmap_grant_ref`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct UnmapGrant {
    pub(super) host_address: u64,
    pub(super) device_address: u64,
    pub(super) handle: u32,
    pub(super) status: i16,
}
const _: () = assert!(size_of::<UnmapGrant>() == 24);

/// A side of `gnttab_copy`: a grant in the low half of `place`, or a guest frame of our own.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct CopySide {
    pub(super) place: u64,
    pub(super) domain: u16,
    pub(super) offset: u16,
}

/// `gnttab_copy`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct CopyGrant {
    pub(super) source: CopySide,
    pub(super) target: CopySide,
    pub(super) len: u16,
    pub(super) flags: u16,
    pub(super) status: i16,
}
const _: () = assert!(size_of::<CopyGrant>() == 40);

/// `gnttab_query_size`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct QuerySize {
    pub(super) domain: u16,
    pub(super) frames: u32,
    pub(super) frames_max: u32,
    pub(super) status: i16,
}
const _: () = assert!(size_of::<QuerySize>() == 16);

/// An operation on grants, done on a list of structures.
///
/// # Safety
/// As for [`Operation`]. Whoever calls [`run_all`] answers for the memory that the fields name.
pub(super) unsafe trait GrantOperation {
    /// The operation's number.
    const NUMBER: u64;
    /// Its name in Xen's headers.
    const NAME: &'static str;
}

// SAFETY: numbers and layouts of public/grant_table.h.
unsafe impl GrantOperation for MapGrant {
    const NUMBER: u64 = 0;
    const NAME: &'static str = "GNTTABOP_map_grant_ref";
}
// SAFETY: as above.
unsafe impl GrantOperation for UnmapGrant {
    const NUMBER: u64 = 1;
    const NAME: &'static str = "GNTTABOP_unmap_grant_ref";
}
// SAFETY: as above.
unsafe impl GrantOperation for CopyGrant {
    const NUMBER: u64 = 5;
    const NAME: &'static str = "GNTTABOP_copy";
}
// SAFETY: as above.
unsafe impl GrantOperation for QuerySize {
    const NUMBER: u64 = 6;
    const NAME: &'static str = "GNTTABOP_query_size";
}

/// Does all `operations` in one call; each has its status.
///
/// # Safety
/// The memory that the operations name must be the caller's to have mapped, unmapped or copied to.
pub(super) unsafe fn run_all<T: GrantOperation>(
    operations: &mut [T],
) -> Result<(), HypercallError> {
    let (count, place) = (operations.len() as u64, operations.as_mut_ptr().expose_provenance());
    // SAFETY: the implementation's promise, and the caller's.
    let answer = unsafe { call(GRANT_TABLE_OP, T::NUMBER, place as u64, count) };
    result(T::NAME, answer).map(|_| ())
}
