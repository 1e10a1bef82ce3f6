//! The round-trip time and the retransmission timeout (RFC 6298).

use core::time::Duration;

/// RTO before the first measurement (RFC 6298 §2.1).
const RTO_INITIAL_US: u32 = 1_000_000;

/// RTO for data if the timer of the SYN expired (RFC 6298 §5.7).
const RTO_AFTER_SYN_LOSS_US: u32 = 3_000_000;

/// The least that is added to SRTT. RFC 6298 §2.4 asks for an RTO of at least 1 s; like every stack
/// in use we go lower, because with timestamps and delayed ACKs below 200 ms a spurious timeout is
/// rare and a late one is dear. It bounds the margin and not the sum: on a long path that is steady
/// RTTVAR goes to zero, and one delayed ACK would be a timeout.
const MARGIN_MIN_US: u32 = 200_000;

/// The greatest RTO, with backoff (RFC 6298 §2.4: at least 60 s).
const RTO_MAX_US: u32 = 60_000_000;

/// What is known of one path's round-trip time. Microseconds in 32 bits: 71 minutes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    /// SRTT; nothing before the first measurement.
    smoothed_us: u32,
    /// RTTVAR.
    variation_us: u32,
    /// RTO without backoff.
    timeout_us: u32,
    /// How often the timer expired since the last valid measurement.
    backoff: u8,
    is_measured: bool,
}

impl Rtt {
    pub(crate) const fn new() -> Self {
        Rtt {
            smoothed_us: 0,
            variation_us: 0,
            timeout_us: RTO_INITIAL_US,
            backoff: 0,
            is_measured: false,
        }
    }

    /// RTO with backoff.
    pub(crate) fn timeout(&self) -> Duration {
        // Ten doublings of 200 ms exceed the greatest RTO.
        let timeout_us = u64::from(self.timeout_us) << self.backoff.min(10);
        Duration::from_micros(timeout_us.min(u64::from(RTO_MAX_US)))
    }

    /// SRTT, if anything was measured.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.is_measured.then(|| Duration::from_micros(self.smoothed_us.into()))
    }

    /// How often the timer expired since the last valid measurement.
    pub(crate) const fn backoff(&self) -> u8 {
        self.backoff
    }

    /// The timer expired (RFC 6298 §5.5).
    pub(crate) const fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// The timer of the SYN expired, and now data begins (RFC 6298 §5.7).
    pub(crate) const fn syn_was_lost(&mut self) {
        self.backoff = 0;
        if !self.is_measured {
            self.timeout_us = RTO_AFTER_SYN_LOSS_US;
        }
    }

    /// A measurement of something that was sent once, or whose timestamp came back (Karn's
    /// algorithm, RFC 6298 §3).
    pub(crate) fn measure(&mut self, sample: Duration) {
        let sample_us = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX).min(RTO_MAX_US * 2);
        if !self.is_measured {
            self.is_measured = true;
            // RFC 6298 §2.2.
            self.smoothed_us = sample_us;
            self.variation_us = sample_us / 2;
        } else {
            // RFC 6298 §2.3, with beta 1/4 and alpha 1/8.
            let error_us = self.smoothed_us.abs_diff(sample_us);
            self.variation_us = self.variation_us - self.variation_us / 4 + error_us / 4;
            self.smoothed_us = self.smoothed_us - self.smoothed_us / 8 + sample_us / 8;
        }
        let margin_us = self.variation_us.saturating_mul(4).max(MARGIN_MIN_US);
        self.timeout_us = self.smoothed_us.saturating_add(margin_us).min(RTO_MAX_US);
        self.backoff = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Q02.
    #[test]
    fn backs_off_from_one_second_to_sixty() {
        let mut rtt = Rtt::new();
        let mut timeouts = Vec::new();
        for _ in 0..9 {
            timeouts.push(rtt.timeout().as_secs());
            rtt.back_off();
        }
        assert_eq!(timeouts, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        (0..1000).for_each(|_| rtt.back_off());
        assert_eq!(rtt.timeout(), ms(60_000));
    }

    #[test]
    fn first_measurement_gives_three_times_itself_or_a_margin() {
        for (sample, timeout) in [
            (0, 200),
            (1, 201),
            (10, 210),
            (100, 300),
            (200, 600),
            (5000, 15_000),
            (90_000, 60_000),
        ] {
            let mut rtt = Rtt::new();
            rtt.back_off();
            rtt.measure(ms(sample));
            assert_eq!(rtt.timeout(), ms(timeout), "RTT {sample} ms");
        }
    }

    #[test]
    fn steady_path_converges_to_its_round_trip() {
        let mut rtt = Rtt::new();
        (0..200).for_each(|_| rtt.measure(ms(500)));
        assert!(rtt.timeout() < ms(701) && rtt.timeout() > ms(699), "{:?}", rtt.timeout());
    }

    #[test]
    fn lost_syn_gives_three_seconds_for_data() {
        let mut rtt = Rtt::new();
        rtt.back_off();
        rtt.syn_was_lost();
        assert_eq!(rtt.timeout(), ms(3000));
    }
}
