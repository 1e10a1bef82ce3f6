//! HyStart++ (RFC 9406): the first slow start ends when the round-trip time grows, before a queue
//! overflows and a window's worth of segments is lost.

use super::Ack;
use crate::tcp::Seq;

/// MIN_RTT_THRESH and MAX_RTT_THRESH (RFC 9406 §4.3).
const THRESHOLD_MIN_US: u32 = 4_000;
const THRESHOLD_MAX_US: u32 = 16_000;

/// MIN_RTT_DIVISOR.
const DIVISOR: u32 = 8;

/// N_RTT_SAMPLE.
const SAMPLES_MIN: u8 = 8;

/// CSS_GROWTH_DIVISOR.
const CONSERVATIVE_DIVISOR: u32 = 4;

/// CSS_ROUNDS.
const CONSERVATIVE_ROUNDS: u8 = 5;

/// No measurement.
const NONE_US: u32 = u32::MAX;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowStart {
    /// The end of the round: what was in flight when it began.
    round_end: Option<Seq>,
    /// lastRoundMinRTT and currentRoundMinRTT.
    last_us: u32,
    current_us: u32,
    /// rttSampleCount.
    samples: u8,
    /// cssBaselineMinRtt, in conservative slow start.
    baseline_us: u32,
    /// Rounds that conservative slow start lasts yet.
    rounds_left: u8,
    is_over: bool,
}

impl Default for SlowStart {
    fn default() -> Self {
        SlowStart {
            round_end: None,
            last_us: NONE_US,
            current_us: NONE_US,
            samples: 0,
            baseline_us: NONE_US,
            rounds_left: 0,
            is_over: false,
        }
    }
}

impl SlowStart {
    /// Whether the first slow start is over. Later ones end at the threshold that a loss has set.
    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// A loss ends it.
    pub(super) const fn end(&mut self) {
        self.is_over = true;
    }

    /// By how much the window grows for an ACK by which it may grow by `most` bytes.
    pub(super) fn growth(&mut self, most: u32, ack: &Ack) -> u32 {
        if self.is_over {
            return most;
        }
        if self.round_end.is_none_or(|end| ack.una.at_or_after(end)) {
            self.round_end = Some(ack.max);
            (self.last_us, self.current_us) = (self.current_us, NONE_US);
            self.samples = 0;
            if self.is_conservative() {
                self.rounds_left -= 1;
                self.is_over = self.rounds_left == 0;
            }
        }
        if let Some(round_trip) = ack.round_trip {
            let sample_us = u32::try_from(round_trip.as_micros()).unwrap_or(NONE_US - 1);
            self.current_us = self.current_us.min(sample_us);
            self.samples = self.samples.saturating_add(1);
            self.judge();
        }
        if self.is_conservative() { most / CONSERVATIVE_DIVISOR } else { most }
    }

    const fn is_conservative(&self) -> bool {
        self.rounds_left > 0
    }

    fn judge(&mut self) {
        if self.samples < SAMPLES_MIN {
            return;
        }
        if self.is_conservative() {
            if self.current_us < self.baseline_us {
                // It was jitter.
                (self.baseline_us, self.rounds_left) = (NONE_US, 0);
            }
        } else if self.last_us != NONE_US {
            let threshold_us = (self.last_us / DIVISOR).clamp(THRESHOLD_MIN_US, THRESHOLD_MAX_US);
            if self.current_us >= self.last_us.saturating_add(threshold_us) {
                self.baseline_us = self.current_us;
                self.rounds_left = CONSERVATIVE_ROUNDS;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;
    use core::time::Duration;

    /// A round of twenty ACKs with these round-trip times in milliseconds; what the window grew by.
    fn round(slow_start: &mut SlowStart, number: u32, rtt_ms: impl Fn(u32) -> u64) -> u32 {
        let segment = |at| Ack {
            now: Instant::ZERO,
            acked: 1000,
            flight_peak: 20_000,
            mss: 1000,
            una: Seq(number * 20_000 + at * 1000),
            max: Seq((number + 1) * 20_000 + at * 1000),
            round_trip: Some(Duration::from_millis(rtt_ms(at))),
            smoothed: Duration::ZERO,
        };
        (0..20).map(|at| slow_start.growth(1000, &segment(at))).sum()
    }

    #[test]
    fn a_steady_path_is_left_alone() {
        let mut slow_start = SlowStart::default();
        for number in 0..30 {
            assert_eq!(round(&mut slow_start, number, |_| 100), 20_000);
        }
        // Jitter, with some as fast as ever.
        for number in 30..60 {
            let jitter = |at| if at % 5 == 0 { 100 } else { 180 };
            assert_eq!(round(&mut slow_start, number, jitter), 20_000);
        }
        assert!(!slow_start.is_over());
    }

    /// packetdrill `cubic`: the eighth sample that is late by an eighth begins the end.
    #[test]
    fn a_path_that_fills_ends_slow_start_after_five_slower_rounds() {
        let mut slow_start = SlowStart::default();
        round(&mut slow_start, 0, |_| 100);
        assert_eq!(round(&mut slow_start, 1, |_| 112), 20_000, "by less than an eighth");
        assert_eq!(round(&mut slow_start, 2, |_| 127), 7 * 1000 + 13 * 250);
        for number in 3..7 {
            assert_eq!(round(&mut slow_start, number, |_| 130), 5000);
            assert!(!slow_start.is_over());
        }
        round(&mut slow_start, 7, |_| 130);
        assert!(slow_start.is_over());
    }

    #[test]
    fn a_path_that_empties_again_goes_on() {
        let mut slow_start = SlowStart::default();
        round(&mut slow_start, 0, |_| 100);
        round(&mut slow_start, 1, |_| 120);
        assert!(slow_start.is_conservative());
        assert_eq!(round(&mut slow_start, 2, |_| 105), 7 * 250 + 13_000);
        assert_eq!(round(&mut slow_start, 3, |_| 105), 20_000);
    }
}
