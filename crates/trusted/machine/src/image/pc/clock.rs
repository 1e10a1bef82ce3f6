//! The PC's clocks: who knows how fast the time-stamp counter runs, the APIC's timer, the date.

use super::super::cpu;
use super::apic::{self, Timer};
use super::hypervisor;
use crate::acpi::Platform;
use crate::rtc;
use crate::scale::{self, Bracket, NANOS_PER_SECOND};

/// How long a measurement takes when the reference is a clock of nanoseconds: both ends are read to
/// well under 0.1 µs, so a millisecond gives under 100 ppm (30 were seen).
const FAST_CALIBRATION_NANOS: u64 = 1_000_000;
/// How long it takes with the slow clocks of a PC, whose ticks are 0.3 and 0.8 µs.
const SLOW_CALIBRATION_NANOS: u64 = 8_000_000;
/// How often each end is read, to keep the reading that was disturbed least.
const READINGS: usize = 4;
/// The frequency of QEMU's and KVM's emulated APIC timer: a tick is a nanosecond.
pub(super) const EMULATED_APIC_HERTZ: u64 = 1_000_000_000;
/// ACPI 6.5, section 4.8.3.3.
const PM_TIMER_HERTZ: u64 = 3_579_545;
/// The 8254's, a twelfth of the NTSC colour carrier's quadruple.
const PIT_HERTZ: u64 = 1_193_182;

/// What is known once the clocks have been looked at.
pub(crate) struct Clocks {
    /// The time-stamp counter's frequency.
    pub(crate) tsc_hertz: u64,
    timer: Timer,
}

impl Clocks {
    /// Finds out how fast the counters run, and makes the timer ready.
    pub(super) fn find(platform: &Platform) -> Result<Clocks, &'static str> {
        let (tsc_hertz, apic_hertz) = frequencies(platform)?;
        let timer = match apic_hertz {
            _ if apic::has_tsc_deadline() => Timer::TscDeadline,
            Some(hertz) => Timer::Count { hertz },
            None => return Err("the APIC timer's frequency is unknown"),
        };
        apic::init_timer(timer);
        Ok(Clocks { tsc_hertz, timer })
    }

    /// The wall clock now: nanoseconds since 1970.
    pub(crate) fn wall_nanos(&self) -> Option<u64> {
        hypervisor::kvm_wall_nanos()
            .or_else(|| read_rtc().map(|seconds| seconds * NANOS_PER_SECOND))
    }

    /// Asks for an interrupt at TSC `deadline_ticks`, which is `nanos` from now.
    pub(crate) fn arm(&self, deadline_ticks: u64, nanos: u64) {
        apic::arm(self.timer, deadline_ticks, nanos);
    }
}

/// The TSC's frequency, and the APIC timer's when it is known or measured on the way.
fn frequencies(platform: &Platform) -> Result<(u64, Option<u64>), &'static str> {
    let apic_hertz = hypervisor::apic_hertz();
    if let Some(hertz) = hypervisor::tsc_hertz().or_else(processor_tsc_hertz)
        && (apic_hertz.is_some() || apic::has_tsc_deadline())
    {
        return Ok((hertz, apic_hertz));
    }
    // A clock that is known, and the APIC's counter beside it in case it is not.
    let mut apic_span = (0, 0);
    let (reference_hertz, first, last) = if let Some(hertz) = apic_hertz {
        apic::start_counter();
        let (first, last) =
            measure(hertz, FAST_CALIBRATION_NANOS, || u64::from(apic::counted()), &mut apic_span)?;
        (hertz, first, last)
    } else if let Some(port) = platform.pm_timer_port.filter(|&port| pm_timer_runs(port)) {
        apic::start_counter();
        let mut read = widen(PM_TIMER_BITS, move || read_pm_timer(port));
        let (first, last) =
            measure(PM_TIMER_HERTZ, SLOW_CALIBRATION_NANOS, &mut read, &mut apic_span)?;
        (PM_TIMER_HERTZ, first, last)
    } else {
        start_pit();
        apic::start_counter();
        let mut read = widen(16, || u64::from(!read_pit()));
        let (first, last) = measure(PIT_HERTZ, SLOW_CALIBRATION_NANOS, &mut read, &mut apic_span)?;
        (PIT_HERTZ, first, last)
    };
    let tsc_hertz =
        scale::frequency(first, last, reference_hertz).ok_or("the reference clock stands still")?;
    let apic_hertz = apic_hertz.or_else(|| {
        let counted = u128::from(apic_span.1 - apic_span.0);
        let elapsed = u128::from(last.reference - first.reference);
        u64::try_from(counted * u128::from(reference_hertz) / elapsed).ok()
    });
    Ok((tsc_hertz, apic_hertz))
}

/// Brackets of a reference clock at the ends of an interval, and the APIC's count there.
fn measure(
    hertz: u64,
    nanos: u64,
    mut read: impl FnMut() -> u64,
    apic_span: &mut (u32, u32),
) -> Result<(Bracket, Bracket), &'static str> {
    // A TSC faster than 10 GHz is not to be had: 100 times the interval without progress is a
    // reference that stands still.
    let ticks_max = nanos * 10 * 100;
    // Under emulation code is slow the first time it runs: a rehearsal, then the first reading.
    let _ = bracket(&mut read);
    let first = bracket(&mut read);
    apic_span.0 = apic::counted();
    let until = first.reference + hertz * nanos / NANOS_PER_SECOND;
    while read() < until {
        if cpu::ticks().wrapping_sub(first.before) > ticks_max {
            return Err("the reference clock stands still");
        }
        core::hint::spin_loop();
    }
    apic_span.1 = apic::counted();
    Ok((first, bracket(&mut read)))
}

fn bracket(read: &mut impl FnMut() -> u64) -> Bracket {
    let readings = (0..READINGS).map(|_| {
        let before = cpu::ticks();
        Bracket { before, reference: read(), after: cpu::ticks() }
    });
    Bracket::tightest(readings).expect("there is at least one reading")
}

/// A counter of `bits` bits that wraps, made one that does not, if read often enough.
fn widen(bits: u32, mut read: impl FnMut() -> u64) -> impl FnMut() -> u64 {
    let mask = (1 << bits) - 1;
    let mut last = read() & mask;
    let mut total = last;
    move || {
        let now = read() & mask;
        total += now.wrapping_sub(last) & mask;
        last = now;
        total
    }
}

/// The PM timer has at least 24 bits; which are enough for 4.6 s.
const PM_TIMER_BITS: u32 = 24;

fn read_pm_timer(port: u16) -> u64 {
    // SAFETY: ACPI says that the timer is there; reading it has no effect.
    u64::from(unsafe { cpu::in_u32(port) })
}

fn pm_timer_runs(port: u16) -> bool {
    let first = read_pm_timer(port);
    (0..100).any(|_| read_pm_timer(port) != first)
}

/// Sets channel 2 of the 8254 counting down from its highest, without the speaker.
fn start_pit() {
    // SAFETY: ports of the PC's timer and its gate; no memory is touched, and no interrupt comes
    // from channel 2.
    unsafe {
        cpu::out_u8(0x61, cpu::in_u8(0x61) & !2 | 1);
        cpu::out_u8(0x43, 0b1011_0100);
        cpu::out_u8(0x42, 0xff);
        cpu::out_u8(0x42, 0xff);
    }
}

fn read_pit() -> u16 {
    // SAFETY: as in `start_pit`. Latch channel 2, then read low and high.
    unsafe {
        cpu::out_u8(0x43, 0b1000_0000);
        let low = cpu::in_u8(0x42);
        u16::from_le_bytes([low, cpu::in_u8(0x42)])
    }
}

/// CPUID 0x15: the TSC's frequency as a ratio of a crystal's, when the processor tells both.
fn processor_tsc_hertz() -> Option<u64> {
    if cpu::cpuid(0).eax < 0x15 {
        return None;
    }
    let ratio = cpu::cpuid(0x15);
    if ratio.eax == 0 || ratio.ebx == 0 || ratio.ecx == 0 {
        return None;
    }
    Some(u64::from(ratio.ecx) * u64::from(ratio.ebx) / u64::from(ratio.eax))
}

/// The date from CMOS memory; `None` when there is none.
fn read_rtc() -> Option<u64> {
    let register = |index: u8| {
        // SAFETY: the two ports of the CMOS memory. Bit 7 of the index keeps NMIs off meanwhile.
        unsafe {
            cpu::out_u8(0x70, index | 0x80);
            cpu::in_u8(0x71)
        }
    };
    let read = || rtc::Reading {
        second: register(0),
        minute: register(2),
        hour: register(4),
        day: register(7),
        month: register(8),
        year: register(9),
        century: register(0x32),
        status_b: register(0xb),
    };
    // A date that reads the same twice, with no update in progress (status A, bit 7), is whole.
    // An update takes 2 ms and comes once a second, so a hundred tries are plenty.
    for _ in 0..100 {
        if register(0xa) & 0x80 != 0 {
            core::hint::spin_loop();
            continue;
        }
        let first = read();
        if first == read() {
            return first.unix_seconds();
        }
    }
    None
}
