//! What time it is.
//!
//! The monotonic clock is the time-stamp counter, scaled. Its frequency comes from whoever knows it
//! best: the hypervisor (kvmclock, Xen's or VMware's leaf), the processor (CPUID 0x15), or a
//! measurement against a clock whose frequency is known, for a few milliseconds. The wall clock is
//! read once, at boot, and runs with the monotonic one from there.

use super::board::Clocks;
use super::cell::OneCpu;
use super::cpu;
use crate::scale::Scale;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

/// The TSC when the loader jumped to us; `boot.s` stores it.
pub(crate) static ENTRY_TICKS: AtomicU64 = AtomicU64::new(0);

struct Clock {
    scale: Scale,
    clocks: Clocks,
    /// What to add to monotonic time for wall time; `None` without a wall clock.
    wall_offset_nanos: Option<u64>,
}

static CLOCK: OneCpu<Option<Clock>> = OneCpu::new(None);

/// Starts time at the moment of entry, by the machine's clocks.
pub(crate) fn init(clocks: Clocks) -> Result<(), &'static str> {
    let entry = ENTRY_TICKS.load(Ordering::Relaxed);
    let scale = Scale::new(entry, 0, clocks.tsc_hertz);
    let scale = scale.ok_or("the TSC's frequency makes no sense")?;
    let now = scale.nanos(cpu::ticks());
    let wall_offset_nanos = clocks.wall_nanos().map(|wall| wall.saturating_sub(now));
    CLOCK.with(|place| *place = Some(Clock { scale, clocks, wall_offset_nanos }));
    Ok(())
}

/// Goes on at `nanos` by other clocks: the domain is somewhere else now.
#[cfg(fata_target = "xen")]
pub(crate) fn resume(clocks: Clocks, nanos: u64) {
    let Some(scale) = Scale::new(cpu::ticks(), nanos, clocks.tsc_hertz) else { return };
    let wall_offset_nanos = clocks.wall_nanos().map(|wall| wall.saturating_sub(nanos));
    CLOCK.with(|place| *place = Some(Clock { scale, clocks, wall_offset_nanos }));
}

/// Nanoseconds since entry, never going back. 0 before the clock is set up.
pub fn monotonic_nanos() -> u64 {
    CLOCK.with(|clock| clock.as_ref().map_or(0, |clock| clock.scale.nanos(cpu::ticks())))
}

/// Nanoseconds since the loader jumped to the image.
pub fn since_entry_nanos() -> u64 {
    monotonic_nanos()
}

/// Time since 1970-01-01 UTC; `None` when the platform has no wall clock.
pub fn wall() -> Option<Duration> {
    let offset = CLOCK.with(|clock| clock.as_ref().and_then(|clock| clock.wall_offset_nanos))?;
    Some(Duration::from_nanos(offset.saturating_add(monotonic_nanos())))
}

/// The time-stamp counter's frequency in hertz, as far as it is known.
pub fn tsc_hertz() -> u64 {
    CLOCK.with(|clock| clock.as_ref().map_or(0, |clock| clock.scale.hertz()))
}

/// Asks for an interrupt when monotonic time reaches `deadline_nanos`, or earlier.
pub(crate) fn arm(deadline_nanos: u64) {
    CLOCK.with(|clock| {
        let clock = clock.as_ref().expect("the clock is set up before anything sleeps");
        let left = deadline_nanos.saturating_sub(clock.scale.nanos(cpu::ticks()));
        clock.clocks.arm(clock.scale.ticks(deadline_nanos), left);
    });
}
