//! The clock that Xen invented and KVM took over: a line from the time-stamp counter to the
//! hypervisor's time.
//!
//! `vcpu_time_info` (Xen, public/xen.h) and `pvclock_vcpu_time_info` (Linux,
//! Documentation/virt/kvm/x86/msr.rst) are the same structure. The hypervisor writes its numbers, and
//! they are not believed more than any others: no value of them makes the arithmetic here overflow.

use crate::scale::NANOS_PER_SECOND;

/// The line at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PvClock {
    /// The counter at the line's origin.
    pub tsc_timestamp: u64,
    /// The hypervisor's time there, in nanoseconds.
    pub system_time: u64,
    /// Nanoseconds per tick, in 1/2³², of ticks that were shifted.
    pub tsc_to_system_mul: u32,
    /// By how many bits ticks are shifted to the left before; to the right if it is negative.
    pub tsc_shift: i8,
}

impl PvClock {
    /// The hypervisor's time when the counter stands at `ticks`, in nanoseconds: the origin's for
    /// anything before it, the end of time for what does not fit.
    pub const fn nanos(&self, ticks: u64) -> u64 {
        let elapsed = ticks.saturating_sub(self.tsc_timestamp) as u128;
        // 64 bits of ticks and 31 of shift fit in 128 with 32 of multiplier.
        let shifted = match self.tsc_shift {
            shift @ 0.. => elapsed << if shift > 31 { 31 } else { shift },
            shift => elapsed >> if shift < -64 { 64 } else { shift.unsigned_abs() },
        };
        let nanos = (shifted * self.tsc_to_system_mul as u128) >> 32;
        if nanos > u64::MAX as u128 {
            return u64::MAX;
        }
        self.system_time.saturating_add(nanos as u64)
    }

    /// The counter's frequency, if the line goes up.
    pub const fn tsc_hertz(&self) -> Option<u64> {
        if self.tsc_to_system_mul == 0 {
            return None;
        }
        // nanos = (ticks << shift) × mul / 2³², so hertz = 10⁹ × 2³² / mul >> shift.
        let hertz = ((NANOS_PER_SECOND as u128) << 32) / self.tsc_to_system_mul as u128;
        let hertz = match self.tsc_shift {
            shift @ 0.. => hertz >> if shift > 63 { 63 } else { shift },
            shift => hertz << if shift < -40 { 40 } else { shift.unsigned_abs() },
        };
        if hertz > u64::MAX as u128 { None } else { Some(hertz as u64) }
    }
}

/// What is small enough to be the time that the question takes, in nanoseconds.
pub const LEAD_IGNORED_NANOS: i64 = 1_000_000;
/// Half a century: more than Xen's time of any machine.
const LEAD_NANOS_MAX: i64 = 1 << 60;

/// By how much the time that Xen's timers go by is ahead of the time that it tells the guest, in
/// nanoseconds; negative if it is behind.
///
/// The two are the same until a domain is restored: Xen then shifts the time that it tells, so that
/// time went on while the domain was away, and does not shift timers. There is no call that tells
/// the other time, but one that tells whether a moment has passed: `has_passed(lead)` asks it for the
/// guest's time plus `lead`. Two questions when the times agree, else some sixty.
pub fn timer_lead(mut has_passed: impl FnMut(i64) -> bool) -> i64 {
    if has_passed(-LEAD_IGNORED_NANOS) && !has_passed(LEAD_IGNORED_NANOS) {
        return 0;
    }
    let (mut passed, mut coming) = (-LEAD_NANOS_MAX, LEAD_NANOS_MAX);
    while coming - passed > LEAD_IGNORED_NANOS / 1000 {
        let middle = passed + (coming - passed) / 2;
        if has_passed(middle) {
            passed = middle;
        } else {
            coming = middle;
        }
    }
    coming
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a hypervisor writes for a counter of `hertz`: as `set_time_scale` of Xen does.
    fn line(hertz: u64) -> PvClock {
        let (mut ticks, mut shift) = (hertz, 0);
        while ticks > 2 * NANOS_PER_SECOND {
            ticks >>= 1;
            shift -= 1;
        }
        let mut ticks = ticks as u32;
        while u64::from(ticks) <= NANOS_PER_SECOND {
            ticks <<= 1;
            shift += 1;
        }
        let mul = ((NANOS_PER_SECOND << 32) / u64::from(ticks)) as u32;
        PvClock { tsc_timestamp: 1000, system_time: 5, tsc_to_system_mul: mul, tsc_shift: shift }
    }

    #[test]
    fn a_second_is_a_second_at_any_frequency() {
        for hertz in [25_000_000, 1_000_000_000, 1_999_999_999, 2_100_000_000, 4_700_000_000] {
            let line = line(hertz);
            let second = line.nanos(1000 + hertz);
            assert!(second.abs_diff(NANOS_PER_SECOND + 5) < 5, "{hertz} Hz: {second} ns");
            let read = line.tsc_hertz().unwrap();
            assert!(read.abs_diff(hertz) <= 1 + hertz / 100_000_000, "{hertz} Hz read as {read}");
        }
    }

    #[test]
    fn before_the_origin_time_stands_and_a_flat_line_has_no_frequency() {
        assert_eq!(line(1_000_000_000).nanos(0), 5);
        let flat = PvClock { tsc_to_system_mul: 0, ..line(1_000_000_000) };
        assert_eq!(flat.tsc_hertz(), None);
        let shifted_out = PvClock { tsc_shift: i8::MIN, ..line(1_000_000_000) };
        assert_eq!(shifted_out.nanos(u64::MAX), 5);
    }

    #[test]
    fn times_that_agree_take_two_questions() {
        let mut questions = 0;
        let lead = timer_lead(|lead| {
            questions += 1;
            lead < 40_000
        });
        assert_eq!((lead, questions), (0, 2));
    }

    proptest! {
        #[test]
        fn the_lead_is_found_to_a_microsecond(lead in -1i64 << 59..1 << 59) {
            let mut questions = 0;
            let found = timer_lead(|asked| {
                questions += 1;
                asked < lead
            });
            let is_ignored = found == 0 && lead.abs() <= LEAD_IGNORED_NANOS;
            prop_assert!(is_ignored || found.abs_diff(lead) <= 1000, "{found} for {lead}");
            prop_assert!(questions < 70);
        }

        #[test]
        fn no_line_overflows_or_runs_backwards(
            tsc_timestamp: u64, system_time: u64, tsc_to_system_mul: u32, tsc_shift: i8, a: u64, b: u64,
        ) {
            let line = PvClock { tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift };
            prop_assert!(line.nanos(a.min(b)) <= line.nanos(a.max(b)));
            line.tsc_hertz();
        }
    }
}
