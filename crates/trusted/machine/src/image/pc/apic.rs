//! The local APIC: takes interrupts in, and is the timer.
//!
//! Two ways to reach its registers, xAPIC (memory) and x2APIC (MSRs); two timers, one that counts
//! down from a number and one that compares with the TSC. Intel SDM volume 3, chapter 11.

use super::super::cell::OneCpu;
use super::super::{cpu, tables};
use super::interrupts::{END_OF_INTERRUPT, SPURIOUS_VECTOR};
use core::sync::atomic::{AtomicU64, Ordering};

const APIC_BASE_MSR: u32 = 0x1b;
const TSC_DEADLINE_MSR: u32 = 0x6e0;
const X2APIC_MSR: u32 = 0x800;

const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const END: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;

const MASKED: u32 = 1 << 16;
const TSC_DEADLINE_MODE: u32 = 0b10 << 17;
const DIVIDE_BY_1: u32 = 0b1011;

/// The timer's vector: the lowest that is free, as nothing waits for it by name.
pub(crate) const TIMER_VECTOR: u8 = 32;

#[derive(Clone, Copy)]
enum Access {
    Memory(*mut u32),
    Msr,
}

// SAFETY: the pointer is to registers of the one processor.
unsafe impl Send for Access {}

static ACCESS: OneCpu<Option<Access>> = OneCpu::new(None);

fn read(register: u32) -> u32 {
    match ACCESS.with(|access| *access) {
        // SAFETY: `init` mapped the page of registers, and `register` is one of them.
        Some(Access::Memory(base)) => unsafe { base.byte_add(register as usize).read_volatile() },
        // SAFETY: x2APIC mode is on, and maps register r to MSR 0x800 + r / 16 (11.12.1.2).
        Some(Access::Msr) => unsafe { cpu::read_msr(X2APIC_MSR + (register >> 4)) as u32 },
        None => 0,
    }
}

fn write(register: u32, value: u32) {
    match ACCESS.with(|access| *access) {
        // SAFETY: as in `read`.
        Some(Access::Memory(base)) => unsafe {
            base.byte_add(register as usize).write_volatile(value);
        },
        // SAFETY: as in `read`.
        Some(Access::Msr) => unsafe {
            cpu::write_msr(X2APIC_MSR + (register >> 4), u64::from(value));
        },
        None => {}
    }
}

/// Switches the APIC on, with every local source masked.
pub(crate) fn init() -> Result<(), &'static str> {
    let features = cpu::cpuid(1);
    if features.edx & 1 << 9 == 0 {
        return Err("the processor has no local APIC");
    }
    // SAFETY: a processor with an APIC has the register; enabling changes nothing by itself.
    let base = unsafe { cpu::read_msr(APIC_BASE_MSR) };
    let has_x2apic = features.ecx & 1 << 21 != 0;
    let mode = if has_x2apic { 0b11 << 10 } else { 0b10 << 10 };
    // SAFETY: as above. Once in x2APIC mode (a loader may have left it so) the bits stay.
    unsafe { cpu::write_msr(APIC_BASE_MSR, base | mode) };
    let access = if has_x2apic {
        Access::Msr
    } else {
        let registers = tables::map_device(base & 0x000f_ffff_ffff_f000, 4096)
            .ok_or("the local APIC's registers cannot be mapped")?;
        END_OF_INTERRUPT.store(registers as u64 + u64::from(END), Ordering::Relaxed);
        Access::Memory(registers.cast())
    };
    ACCESS.with(|place| *place = Some(access));
    for register in [LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR] {
        write(register, MASKED);
    }
    write(TASK_PRIORITY, 0);
    write(SPURIOUS, 1 << 8 | u32::from(SPURIOUS_VECTOR));
    Ok(())
}

/// This processor's APIC id: where I/O APICs and devices send their interrupts.
pub(crate) fn id() -> u32 {
    let id = read(ID);
    if matches!(ACCESS.with(|access| *access), Some(Access::Msr)) { id } else { id >> 24 }
}

/// Starts the counter at its highest, silent, for a calibration: one tick is one of the bus's.
pub(crate) fn start_counter() {
    write(LVT_TIMER, MASKED);
    write(DIVIDE, DIVIDE_BY_1);
    write(INITIAL_COUNT, u32::MAX);
}

/// How far the counter has come since [`start_counter`].
pub(crate) fn counted() -> u32 {
    u32::MAX - read(CURRENT_COUNT)
}

/// How the timer is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// It compares with the TSC.
    TscDeadline,
    /// It counts down, so many ticks a second.
    Count {
        /// Ticks per second.
        hertz: u64,
    },
}

/// Whether the timer can compare with the TSC.
pub(crate) fn has_tsc_deadline() -> bool {
    cpu::cpuid(1).ecx & 1 << 24 != 0
}

/// Makes the timer ready for [`arm`].
pub(crate) fn init_timer(timer: Timer) {
    let mode = match timer {
        Timer::TscDeadline => TSC_DEADLINE_MODE,
        Timer::Count { .. } => 0,
    };
    write(DIVIDE, DIVIDE_BY_1);
    write(INITIAL_COUNT, 0);
    write(LVT_TIMER, mode | u32::from(TIMER_VECTOR));
    // 11.5.4.1: the mode must be seen before the deadline.
    core::sync::atomic::fence(Ordering::SeqCst);
}

/// The TSC at which the timer fires; 0 when it is not set, or has fired.
static ARMED_TICKS: AtomicU64 = AtomicU64::new(0);

/// Notes that the timer's interrupt came.
pub(super) fn note_timer() {
    ARMED_TICKS.store(0, Ordering::Relaxed);
}

/// Asks for an interrupt at TSC `deadline`, which is `nanos` from now: one of the two is used. An
/// interval that the counter cannot hold is cut; the one who sleeps looks at the clock anyway. So a
/// timer that is set to an earlier time stays, and most sleeps, which end before their deadline, cost no
/// exit.
pub(crate) fn arm(timer: Timer, deadline_ticks: u64, nanos: u64) {
    let armed = ARMED_TICKS.load(Ordering::Relaxed);
    if armed != 0 && armed <= deadline_ticks {
        return;
    }
    ARMED_TICKS.store(deadline_ticks.max(1), Ordering::Relaxed);
    match timer {
        // SAFETY: `init_timer` has chosen this mode, so the processor has the register. A deadline
        // of 0 would disarm.
        Timer::TscDeadline => unsafe { cpu::write_msr(TSC_DEADLINE_MSR, deadline_ticks.max(1)) },
        Timer::Count { hertz } => {
            let count = u128::from(nanos) * u128::from(hertz) / 1_000_000_000 + 1;
            write(INITIAL_COUNT, u32::try_from(count).unwrap_or(u32::MAX));
        }
    }
}
