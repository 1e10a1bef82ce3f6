//! Xen's clock and its timer.
//!
//! Xen says how the time-stamp counter runs, whether it is the processor's own or one that Xen
//! emulates, so nothing is measured. The timer is Xen's one-shot timer and not the local APIC's:
//! it is set by one call, where an emulated APIC takes two exits (setting it, and the end of the
//! interrupt), and fires an event like all others.

use super::super::cpu;
use crate::pvclock::PvClock;
use fata_hypercall::image;

/// What is known of the clocks.
pub(crate) struct Clocks {
    /// The time-stamp counter's frequency.
    pub(crate) tsc_hertz: u64,
}

/// Xen's line of this processor.
fn line() -> Option<PvClock> {
    let time = image::vcpu_time()?;
    Some(PvClock {
        tsc_timestamp: time.tsc_timestamp,
        system_time: time.system_time,
        tsc_to_system_mul: time.tsc_to_system_mul,
        tsc_shift: time.tsc_shift,
    })
}

/// Xen's system time, in nanoseconds; 0 before it is known.
pub(super) fn system_nanos() -> u64 {
    line().map_or(0, |line| line.nanos(cpu::ticks()))
}

impl Clocks {
    /// Asks Xen, and sets the timer for the first time, to see that it can be set.
    pub(super) fn find() -> Result<Clocks, &'static str> {
        let line = line().ok_or("Xen says nothing about time")?;
        let tsc_hertz = line.tsc_hertz().ok_or("Xen says that time stands still")?;
        image::arm_timer(line.nanos(cpu::ticks()))
            .map_err(|_| "Xen has no timer for this domain")?;
        Ok(Clocks { tsc_hertz })
    }

    /// The wall clock now: nanoseconds since 1970. Xen keeps what it was at system time 0.
    pub(crate) fn wall_nanos(&self) -> Option<u64> {
        Some(image::wall_clock_nanos()?.saturating_add(system_nanos()))
    }

    /// Asks for an event `nanos` from now, or earlier.
    pub(crate) fn arm(&self, _deadline_ticks: u64, nanos: u64) {
        // It could be set at the start, so it can now.
        let _ = image::arm_timer(system_nanos().saturating_add(nanos));
    }

    /// Nothing: an event too many is cheaper than a call.
    pub(crate) fn disarm(&self) {}
}
