//! Xen's clock and its timer.
//!
//! Xen says how the time-stamp counter runs, whether it is the processor's own or one that Xen
//! emulates, so nothing is measured. The timer is Xen's one-shot timer and not the local APIC's:
//! it is set by one call, where an emulated APIC takes two exits (setting it, and the end of the
//! interrupt), and fires an event like all others.

use super::super::cpu;
use crate::pvclock::{self, PvClock};
use core::sync::atomic::{AtomicI64, Ordering};
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

/// By how much Xen's timers are ahead of [`system_nanos`].
static TIMER_LEAD_NANOS: AtomicI64 = AtomicI64::new(0);

/// Xen's system time, in nanoseconds; 0 before it is known.
fn system_nanos() -> u64 {
    line().map_or(0, |line| line.nanos(cpu::ticks()))
}

/// The time that Xen's timers go by, in nanoseconds; `None` before it is known.
pub(super) fn timer_nanos() -> Option<u64> {
    let now = line()?.nanos(cpu::ticks());
    Some(now.saturating_add_signed(TIMER_LEAD_NANOS.load(Ordering::Relaxed)))
}

/// How often a question is asked again that took too long to mean something.
const QUESTIONS_MAX: usize = 20;

/// Whether Xen's timers are past the guest's time plus `lead`.
fn has_passed(lead: i64) -> bool {
    for _ in 0..QUESTIONS_MAX {
        let asked = system_nanos();
        if !image::has_passed(asked.saturating_add_signed(lead)) {
            return false;
        }
        // A yes may only say that somebody else had the processor meanwhile.
        let took = system_nanos().saturating_sub(asked);
        if took < pvclock::LEAD_IGNORED_NANOS.unsigned_abs() {
            return true;
        }
    }
    true
}

impl Clocks {
    /// Asks Xen, and sets the timer for the first time, to see that it can be set.
    pub(super) fn find() -> Result<Clocks, &'static str> {
        let line = line().ok_or("Xen says nothing about time")?;
        let tsc_hertz = line.tsc_hertz().ok_or("Xen says that time stands still")?;
        image::arm_timer(0).map_err(|_| "Xen has no timer for this domain")?;
        Ok(Clocks { tsc_hertz })
    }

    /// The same in a domain that was restored, where timers go by another time.
    pub(super) fn find_again() -> Result<Clocks, &'static str> {
        let clocks = Clocks::find()?;
        // A wrong answer would be a timer that never fires: it is asked for a confirmation.
        let found = (0..QUESTIONS_MAX).map(|_| pvclock::timer_lead(has_passed)).find(|&lead| {
            let ignored = pvclock::LEAD_IGNORED_NANOS;
            has_passed(lead.saturating_sub(ignored)) && !has_passed(lead.saturating_add(ignored))
        });
        TIMER_LEAD_NANOS.store(found.unwrap_or(0), Ordering::Relaxed);
        image::arm_timer(0).map_err(|_| "Xen has no timer for this domain")?;
        Ok(clocks)
    }

    /// The wall clock now: nanoseconds since 1970. Xen keeps what it was at system time 0.
    pub(crate) fn wall_nanos(&self) -> Option<u64> {
        Some(image::wall_clock_nanos()?.saturating_add(system_nanos()))
    }

    /// Asks for an event `nanos` from now, or earlier.
    pub(crate) fn arm(&self, _deadline_ticks: u64, nanos: u64) {
        // It could be set at the start, so it can now.
        let now = timer_nanos().unwrap_or(0);
        let _ = image::arm_timer(now.saturating_add(nanos));
    }
}
