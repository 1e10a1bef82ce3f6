//! CUBIC (RFC 9438): the window is a function of the time since the last loss, not of the number of
//! round trips; first up to where the loss was, then carefully beyond it.
//!
//! All in whole numbers: images have no mathematics library, and the same input must give the same
//! window everywhere. Time is in milliseconds: W_cubic moves by less than a segment in one, for any
//! window below 10 GB.

use super::{Ack, Avoidance};
use crate::time::Instant;

/// beta_cubic, 0.7 (RFC 9438 §4.6).
const BETA_NUM: u64 = 7;
const BETA_DEN: u64 = 10;

/// C, 0.4 segments per cubic second (RFC 9438 §5.1): 4 segments per this many cubic milliseconds.
const C_SEGMENTS: u64 = 4;
const C_MS3: u64 = 10_000_000_000;

/// alpha_cubic, 3 (1 - beta) / (1 + beta) = 9/17 (RFC 9438 §4.3).
const ALPHA_NUM: u64 = 9;
const ALPHA_DEN: u64 = 17;

/// See the module. Sizes are bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cubic {
    /// W_max: the window before the last reduction.
    w_max: u32,
    /// cwnd_prior: up to there, the estimate grows slower than Reno, because it was cut less.
    prior: u32,
    /// When this epoch of congestion avoidance began; no epoch before its first ACK.
    epoch: Option<Instant>,
    /// K in milliseconds: when W_cubic reaches W_max.
    k_ms: u32,
    /// W_est: what Reno would have.
    estimate: u32,
    /// What is left of divisions by the window: of the estimate's growth and of the window's.
    estimate_rest: u64,
    window_rest: u64,
}

/// The greatest whole number whose cube is at most `value`.
fn cube_root(value: u64) -> u64 {
    // Digit by digit, in base 8: 22 turns.
    let (mut rest, mut root) = (value, 0u64);
    for shift in (0..=63).rev().step_by(3) {
        root *= 2;
        let digit = (3 * root * (root + 1) + 1) as u128;
        if (rest >> shift) as u128 >= digit {
            rest -= (digit << shift) as u64;
            root += 1;
        }
    }
    root
}

impl Cubic {
    /// W_cubic so many milliseconds after the epoch's begin (RFC 9438 §4.2, figure 1).
    fn at(&self, ms: u64, mss: u32) -> u32 {
        let from_k = ms.abs_diff(u64::from(self.k_ms)).min(10_000_000);
        let cube = u128::from(from_k).pow(3);
        let change = cube * u128::from(C_SEGMENTS * u64::from(mss)) / u128::from(C_MS3);
        let change = u32::try_from(change).unwrap_or(u32::MAX);
        if ms < u64::from(self.k_ms) {
            self.w_max.saturating_sub(change)
        } else {
            self.w_max.saturating_add(change)
        }
    }

    /// Congestion avoidance begins at `now` with `window`.
    fn begin(&mut self, now: Instant, window: u32, mss: u32) {
        self.epoch = Some(now);
        self.estimate = window;
        (self.estimate_rest, self.window_rest) = (0, 0);
        let below = self.w_max.saturating_sub(window);
        // RFC 9438 §4.2, figure 2.
        let k3 = u64::from(below) * (C_MS3 / C_SEGMENTS) / u64::from(mss.max(1));
        self.k_ms = cube_root(k3) as u32;
        // Where slow start ended without a loss, or beyond where one was.
        self.w_max = self.w_max.max(window);
    }
}

impl Avoidance for Cubic {
    fn grow(&mut self, window: u32, ack: &Ack) -> u32 {
        if self.epoch.is_none() {
            self.begin(ack.now, window, ack.mss);
        }
        let Some(epoch) = self.epoch else { return window };
        let (width, acked) = (u64::from(window.max(1)), u64::from(ack.acked.min(window)));
        // RFC 9438 §4.3, figure 4.
        let is_below_prior = self.estimate < self.prior;
        let (num, den) = if is_below_prior { (ALPHA_NUM, ALPHA_DEN) } else { (1, 1) };
        self.estimate_rest += num * acked * u64::from(ack.mss);
        let grown = self.estimate_rest / (den * width);
        self.estimate_rest %= den * width;
        self.estimate = self.estimate.saturating_add(grown as u32);
        let elapsed_ms = ack.now.saturating_since(epoch).as_millis() as u64;
        if self.at(elapsed_ms, ack.mss) < self.estimate {
            return self.estimate.max(window);
        }
        // RFC 9438 §4.4 and §4.5.
        let ahead_ms = elapsed_ms + ack.smoothed.as_millis() as u64;
        let most = width + width / 2;
        let target = u64::from(self.at(ahead_ms, ack.mss)).clamp(width, most);
        self.window_rest += (target - width) * acked;
        let grown = self.window_rest / width;
        self.window_rest %= width;
        window.saturating_add(grown as u32)
    }

    /// RFC 9438 §4.6, and §4.7 on fast convergence.
    fn reduce(&mut self, window: u32, flight: u32, mss: u32) -> u32 {
        let size = u64::from(window);
        self.w_max = if window < self.w_max {
            (size * (BETA_DEN + BETA_NUM) / (2 * BETA_DEN)) as u32
        } else {
            window
        };
        self.prior = window;
        self.epoch = None;
        let threshold = u64::from(flight.min(window.max(mss))) * BETA_NUM / BETA_DEN;
        (threshold as u32).max(2 * mss)
    }

    fn pause(&mut self) {
        // The next ACK of a window that is used begins another epoch, from the window of then: the
        // time in between gives no credit (RFC 9438 §4.2, §5.8).
        self.epoch = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::Seq;
    use core::time::Duration;
    use proptest::prelude::*;

    const MSS: u32 = 1448;

    proptest! {
        #[test]
        fn cube_roots_are_exact(value: u64) {
            for value in [value, value >> 20, value >> 40, value >> 60] {
                let root = u128::from(cube_root(value));
                prop_assert!(root.pow(3) <= value.into() && (root + 1).pow(3) > value.into());
            }
        }
    }

    fn ack(at_ms: u64, acked: u32, rtt_ms: u64) -> Ack {
        Ack {
            now: Instant::from_millis(at_ms),
            acked,
            flight_peak: 1 << 30,
            mss: MSS,
            una: Seq(0),
            max: Seq(0),
            round_trip: None,
            smoothed: Duration::from_millis(rtt_ms),
        }
    }

    /// The window in segments for each second after a loss at `w_max` segments, by the closed form.
    fn closed_form(w_max: f64, seconds: f64) -> f64 {
        let k = (w_max * 0.3 / 0.4).cbrt();
        0.4 * (seconds - k).powi(3) + w_max
    }

    /// Pitfall Q15: the window follows the closed form to one per cent, concave and convex.
    #[test]
    fn window_follows_the_closed_form() {
        for segments in [200u32, 1000, 5000] {
            for rtt_ms in [50, 100, 200] {
                let mut cubic = Cubic::default();
                let lost_at = segments * MSS;
                let mut window = cubic.reduce(lost_at, lost_at, MSS);
                assert_eq!(window, lost_at / 10 * 7);
                let start = 5_000_000;
                for round in 0..20_000 / rtt_ms {
                    let at = round * rtt_ms;
                    // One ACK for each segment, all in this round trip.
                    let count = window / MSS;
                    for _ in 0..count {
                        window = cubic.grow(window, &ack(start + at, MSS, rtt_ms));
                    }
                    // Each ACK aims a round trip ahead, and gets there in the course of it.
                    let at_s = |ms: u64| closed_form(segments.into(), ms as f64 / 1000.0);
                    let (low, high) = (at_s(at) * 0.99, at_s(at + rtt_ms) * 1.01);
                    // Where Reno is faster, that counts.
                    if low > 1.02 * f64::from(cubic.estimate) / f64::from(MSS) && round > 0 {
                        let got = f64::from(window) / f64::from(MSS);
                        assert!(
                            (low..high).contains(&got),
                            "{segments} {at} ms: {got} {low} {high}"
                        );
                    }
                }
            }
        }
    }

    /// RFC 9438 §4.3: at small windows and short paths it is Reno that counts, with 9/17 of a
    /// segment for each window up to the old one and a whole segment beyond.
    #[test]
    fn short_paths_get_what_reno_gets() {
        let mut cubic = Cubic::default();
        let mut window = cubic.reduce(20 * MSS, 20 * MSS, MSS);
        assert_eq!(window, 14 * MSS);
        for round in 0..10u64 {
            let before = window;
            let count = window / MSS;
            for _ in 0..count {
                window = cubic.grow(window, &ack(1000 + round, MSS, 1));
            }
            let grown = window - before;
            assert!((MSS * 9 / 17 - 60..=MSS * 9 / 17 + 1).contains(&grown), "{grown}");
        }
    }

    /// RFC 9438 §4.7.
    #[test]
    fn a_loss_below_the_last_makes_room_for_others() {
        let mut cubic = Cubic::default();
        cubic.reduce(100 * MSS, 100 * MSS, MSS);
        cubic.reduce(80 * MSS, 80 * MSS, MSS);
        assert_eq!(cubic.w_max, 80 * MSS / 20 * 17);
        cubic.reduce(90 * MSS, 90 * MSS, MSS);
        assert_eq!(cubic.w_max, 90 * MSS);
    }

    /// Pitfall Q15: an hour of silence gives no credit.
    #[test]
    fn idle_time_does_not_count() {
        let mut cubic = Cubic::default();
        let mut window = cubic.reduce(100 * MSS, 100 * MSS, MSS);
        window = cubic.grow(window, &ack(1000, MSS, 100));
        let before = window;
        cubic.pause();
        for _ in 0..window / MSS {
            window = cubic.grow(window, &ack(3_600_000, MSS, 100));
        }
        assert!(window - before < 10 * MSS, "{}", window - before);
    }
}
