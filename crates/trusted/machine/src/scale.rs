//! From ticks of a counter to nanoseconds and back, exactly enough and never backwards.

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A straight line from a counter's ticks to nanoseconds: `nanos = base_nanos + (ticks - base_ticks)
/// × nanos per tick`, the slope in 32.32 fixed point. Rounding costs less than a part in 10⁹ at any
/// frequency above 100 MHz, far below what a calibration is good to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    base_ticks: u64,
    base_nanos: u64,
    nanos_per_tick: u64,
    ticks_per_nano: u64,
}

impl Scale {
    /// The line through `(base_ticks, base_nanos)` for a counter of `hertz` ticks per second.
    /// `None` when the frequency is not one that a processor's counter has: 1 MHz to 100 GHz.
    pub const fn new(base_ticks: u64, base_nanos: u64, hertz: u64) -> Option<Self> {
        if hertz < 1_000_000 || hertz > 100_000_000_000 {
            return None;
        }
        let nanos_per_tick = (((NANOS_PER_SECOND as u128) << 32) / hertz as u128) as u64;
        let ticks_per_nano = (((hertz as u128) << 32) / NANOS_PER_SECOND as u128) as u64;
        Some(Scale { base_ticks, base_nanos, nanos_per_tick, ticks_per_nano })
    }

    /// The time at which the counter stands at `ticks`; the base's time for anything before it, so
    /// that a counter that steps back a little cannot make time wrap.
    pub const fn nanos(&self, ticks: u64) -> u64 {
        let elapsed = ticks.saturating_sub(self.base_ticks) as u128 * self.nanos_per_tick as u128;
        let elapsed = elapsed >> 32;
        if elapsed > u64::MAX as u128 {
            return u64::MAX; // after 584 years
        }
        self.base_nanos.saturating_add(elapsed as u64)
    }

    /// Where the counter stands at the time `nanos`, rounded up so that a timer is never early.
    pub const fn ticks(&self, nanos: u64) -> u64 {
        let ahead = nanos.saturating_sub(self.base_nanos) as u128 * self.ticks_per_nano as u128;
        let ahead = (ahead >> 32) + 1;
        if ahead > u64::MAX as u128 {
            return u64::MAX;
        }
        self.base_ticks.saturating_add(ahead as u64)
    }

    /// The same time now, and from `ticks` on the slope of `hertz`: how a better measurement takes
    /// over without a jump.
    pub const fn rebased(&self, ticks: u64, hertz: u64) -> Option<Self> {
        Scale::new(ticks, self.nanos(ticks), hertz)
    }

    /// Ticks per second, as the slope has it.
    pub const fn hertz(&self) -> u64 {
        ((self.ticks_per_nano as u128 * NANOS_PER_SECOND as u128) >> 32) as u64
    }
}

/// A counter read between two reads of the TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bracket {
    /// The TSC before.
    pub before: u64,
    /// The reference counter.
    pub reference: u64,
    /// The TSC after.
    pub after: u64,
}

impl Bracket {
    /// The tightest of several brackets: the one that was disturbed least.
    pub fn tightest(brackets: impl Iterator<Item = Bracket>) -> Option<Bracket> {
        brackets.min_by_key(|bracket| bracket.after.saturating_sub(bracket.before))
    }

    fn middle(self) -> u64 {
        self.before + self.after.saturating_sub(self.before) / 2
    }
}

/// The TSC's frequency from two brackets of a reference counter that counts up at `reference_hertz`.
pub fn frequency(first: Bracket, last: Bracket, reference_hertz: u64) -> Option<u64> {
    let ticks = last.middle().checked_sub(first.middle())?;
    let reference = last.reference.checked_sub(first.reference).filter(|&elapsed| elapsed > 0)?;
    let hertz = u128::from(ticks) * u128::from(reference_hertz) / u128::from(reference);
    hertz.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_day_at_2_7_ghz_is_a_day() {
        let scale = Scale::new(1000, 5, 2_700_000_000).unwrap();
        let day = 86_400 * NANOS_PER_SECOND;
        let error = scale.nanos(1000 + 86_400 * 2_700_000_000).abs_diff(day + 5);
        assert!(error < 86_400, "{error} ns in a day");
        assert_eq!(scale.nanos(0), 5);
    }

    #[test]
    fn impossible_frequencies_are_refused() {
        assert_eq!(Scale::new(0, 0, 0), None);
        assert_eq!(Scale::new(0, 0, 999_999), None);
        assert_eq!(Scale::new(0, 0, u64::MAX), None);
    }

    #[test]
    fn a_better_slope_takes_over_without_a_jump() {
        let scale = Scale::new(0, 0, 1_000_000_000).unwrap();
        let better = scale.rebased(5_000_000_000, 1_000_100_000).unwrap();
        assert_eq!(better.nanos(5_000_000_000), scale.nanos(5_000_000_000));
        assert!(better.nanos(6_000_000_000) < scale.nanos(6_000_000_000));
    }

    #[test]
    fn frequency_comes_from_the_middles_of_the_brackets() {
        let first = Bracket { before: 100, reference: 10, after: 120 };
        let last = Bracket { before: 2100, reference: 1010, after: 2120 };
        assert_eq!(frequency(first, last, 1_000_000_000), Some(2_000_000_000));
        assert_eq!(frequency(last, first, 1_000_000_000), None);
        assert_eq!(frequency(first, first, 1_000_000_000), None);
        assert_eq!(
            Bracket::tightest([first, Bracket { after: 101, ..first }].into_iter()),
            Some(Bracket { after: 101, ..first })
        );
    }

    proptest! {
        #[test]
        fn a_timer_set_for_a_time_is_not_early(
            hertz in 1_000_000u64..10_000_000_000, base: u32, nanos in 0u64..1 << 50,
        ) {
            let scale = Scale::new(base.into(), 7, hertz).unwrap();
            let wake = scale.nanos(scale.ticks(nanos));
            // The two slopes are rounded apart: by at most a part in 2^32 × frequency.
            prop_assert!(wake + nanos / 1_000_000 + 2 >= nanos, "{wake} before {nanos}");
        }

        #[test]
        fn time_never_goes_back(hertz in 1_000_000u64..10_000_000_000, a: u64, b: u64) {
            let scale = Scale::new(1 << 40, 7, hertz).unwrap();
            prop_assert!(scale.nanos(a.min(b)) <= scale.nanos(a.max(b)));
        }
    }
}
