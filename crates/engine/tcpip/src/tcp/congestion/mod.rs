//! How much may be in flight: congestion control.
//!
//! [`Congestion`] is one connection's window and what loss recovery and output need of it; it does
//! itself what all algorithms have in common: the initial window (RFC 6928), slow start with
//! appropriate byte counting (RFC 3465) and HyStart++ (RFC 9406), the rule that a window must be
//! used to grow (RFC 7661), and the way down. Where they differ is [`Avoidance`]: NewReno (RFC 5681)
//! and CUBIC (RFC 9438). The algorithm decides only how large the window is; *what* is lost and when
//! it is sent again is decided in `connection/`, and how the window gets down within a recovery in
//! `reduction.rs`; so that another algorithm, or another way to find losses, can come without
//! touching the other.
//!
//! Room is left for ECN (an echo is one more caller of [`Congestion::on_loss`]), and for algorithms
//! that pace (BBR): they would be one more [`Algorithm`], with a rate beside the window.

mod cubic;
mod newreno;
mod reduction;
mod slow_start;

pub(crate) use reduction::Reduction;

use crate::config::CongestionControl;
use crate::tcp::Seq;
use crate::time::Instant;
use core::time::Duration;
use cubic::Cubic;
use newreno::NewReno;
use slow_start::SlowStart;

/// What an algorithm does above the threshold. Sizes are bytes.
trait Avoidance {
    /// The window after an ACK.
    fn grow(&mut self, window: u32, ack: &Ack) -> u32;

    /// Something was lost while `flight` bytes were in flight: the new threshold, not below two
    /// segments.
    fn reduce(&mut self, window: u32, flight: u32, mss: u32) -> u32;

    /// The window was not used for a while, or became what it is by other means: time so far does
    /// not count.
    fn pause(&mut self);
}

/// An ACK of something new, outside of recovery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub(crate) now: Instant,
    /// Bytes that it covers.
    pub(crate) acked: u32,
    /// Most bytes that were in flight during the last round trip.
    pub(crate) flight_peak: u32,
    /// Payload of a full segment.
    pub(crate) mss: u32,
    /// SND.UNA and SND.NXT.
    pub(crate) una: Seq,
    pub(crate) max: Seq,
    /// The round-trip time of what it covers, if it was measured.
    pub(crate) round_trip: Option<Duration>,
    /// SRTT.
    pub(crate) smoothed: Duration,
}

/// The initial window (RFC 6928 §2).
pub(crate) fn initial_window(mss: u32) -> u32 {
    (10 * mss).min(14_600.max(2 * mss))
}

/// How many segments one ACK may add in slow start. RFC 3465 §2.2 says two; receivers that take
/// segments in batches acknowledge many at once since, and RFC 9406 §4.2 says eight.
const BURST_SEGMENTS: u32 = 8;

/// No window gets larger: far above any buffer, far below overflow.
const WINDOW_MAX: u32 = 1 << 30;

/// The algorithm of a connection.
#[derive(Clone, Copy, Debug)]
enum Algorithm {
    NewReno(NewReno),
    Cubic(Cubic),
}

impl Algorithm {
    fn as_avoidance(&mut self) -> &mut dyn Avoidance {
        match self {
            Algorithm::NewReno(newreno) => newreno,
            Algorithm::Cubic(cubic) => cubic,
        }
    }
}

/// See the module. Sizes are bytes; `mss` is the payload of a full segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Congestion {
    /// cwnd.
    window: u32,
    /// ssthresh: below it slow start, above it congestion avoidance.
    threshold: u32,
    slow_start: SlowStart,
    algorithm: Algorithm,
}

impl Congestion {
    pub(crate) fn new(control: CongestionControl, mss: u32) -> Self {
        Congestion {
            window: initial_window(mss),
            threshold: WINDOW_MAX,
            slow_start: SlowStart::default(),
            algorithm: match control {
                CongestionControl::NewReno => Algorithm::NewReno(NewReno::default()),
                CongestionControl::Cubic => Algorithm::Cubic(Cubic::default()),
            },
        }
    }

    /// The congestion window.
    pub(crate) const fn window(&self) -> u32 {
        self.window
    }

    /// The window that a recovery ends with.
    pub(crate) const fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Sets the window, within a recovery or at its end; not below a segment.
    pub(crate) fn set_window(&mut self, window: u32, mss: u32) {
        self.window = window.clamp(mss, WINDOW_MAX);
    }

    /// Something new was acknowledged outside of recovery. The window does not grow if the program,
    /// not the network, kept low what was in flight (RFC 7661 §1).
    pub(crate) fn on_ack(&mut self, ack: &Ack) {
        if self.window < self.threshold {
            // A slow start that used at least half of the window has earned the other half.
            let is_used = ack.flight_peak.saturating_mul(2) > self.window;
            let growth = self.slow_start.growth(ack.acked.min(BURST_SEGMENTS * ack.mss), ack);
            if is_used {
                self.window = self.window.saturating_add(growth).min(WINDOW_MAX);
            }
            if self.slow_start.is_over() && self.threshold == WINDOW_MAX {
                self.threshold = self.window;
            }
        } else if ack.flight_peak.saturating_add(ack.mss) > self.window {
            let window = self.algorithm.as_avoidance().grow(self.window, ack);
            self.window = window.min(WINDOW_MAX);
        } else {
            self.algorithm.as_avoidance().pause();
        }
    }

    /// A loss was found while `flight` bytes were in flight: sets the threshold. The window follows
    /// in the course of the recovery.
    pub(crate) fn on_loss(&mut self, flight: u32, mss: u32) {
        self.slow_start.end();
        self.threshold = self.algorithm.as_avoidance().reduce(self.window, flight, mss);
    }

    /// Three duplicate ACKs told of a loss while `flight` bytes were in flight; the peer does not
    /// tell what has arrived, but three segments have (RFC 6582 §3.2).
    pub(crate) fn on_fast_retransmit(&mut self, flight: u32, mss: u32) {
        self.on_loss(flight, mss);
        self.window = self.threshold.saturating_add(3 * mss);
    }

    /// One more duplicate ACK: a segment has left the network.
    pub(crate) fn on_duplicate_ack(&mut self, mss: u32) {
        self.window = self.window.saturating_add(mss).min(WINDOW_MAX);
    }

    /// An ACK in recovery covered `acked` bytes, but not all that was in flight when it began (RFC
    /// 6582 §3.2 step 5, "partial window deflation").
    pub(crate) fn on_partial_ack(&mut self, acked: u32, mss: u32) {
        self.window = self.window.saturating_sub(acked).max(mss);
        if acked >= mss {
            self.window += mss;
        }
    }

    /// Such a recovery is over; `flight` bytes are in flight.
    pub(crate) fn on_recovered(&mut self, flight: u32, mss: u32) {
        // RFC 6582 §3.2 step 3, option 1: no burst.
        self.window = self.threshold.min(flight.max(mss) + mss);
    }

    /// The retransmission timer expired while `flight` bytes were in flight; `again` if the window
    /// was reduced for the same data before.
    pub(crate) fn on_timeout(&mut self, flight: u32, mss: u32, again: bool) {
        // RFC 5681 §3.1: ssthresh "is held constant" when the same data is lost again.
        if !again {
            self.on_loss(flight, mss);
        }
        self.window = mss;
        self.algorithm.as_avoidance().pause();
    }

    /// Nothing was sent for longer than the RTO (RFC 5681 §4.1).
    pub(crate) fn on_idle(&mut self, mss: u32) {
        self.window = self.window.min(initial_window(mss));
        self.algorithm.as_avoidance().pause();
    }

    /// The SYN or the SYN-ACK was lost (RFC 5681 §3.1).
    pub(crate) fn on_syn_loss(&mut self, mss: u32) {
        // The threshold stays: one lost SYN says nothing about the path's capacity.
        self.window = mss;
    }

    /// What looked like a loss was none: everything as it was `before`, but for what was learnt
    /// since.
    pub(crate) fn undo(&mut self, before: &Congestion) {
        let window = self.window.max(before.window);
        *self = Congestion { window, ..*before };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    fn ack(acked: u32, flight_peak: u32) -> Ack {
        Ack {
            now: Instant::from_millis(1000),
            acked,
            flight_peak,
            mss: MSS,
            una: Seq(1),
            max: Seq(1),
            round_trip: None,
            smoothed: Duration::from_millis(100),
        }
    }

    fn both() -> [Congestion; 2] {
        [CongestionControl::NewReno, CongestionControl::Cubic].map(|c| Congestion::new(c, MSS))
    }

    /// Pitfall Q12.
    #[test]
    fn initial_window_is_ten_segments() {
        for (mss, window) in
            [(100, 1000), (536, 5360), (1448, 14_480), (1460, 14_600), (9000, 18_000)]
        {
            assert_eq!(initial_window(mss), window);
        }
    }

    /// Pitfall Q11.
    #[test]
    fn slow_start_counts_bytes_not_acks() {
        for mut one_ack in both() {
            let mut divided = one_ack;
            let mut stretched = one_ack;
            one_ack.on_ack(&ack(MSS, 10 * MSS));
            (0..1000).for_each(|_| divided.on_ack(&ack(1, 10 * MSS)));
            assert_eq!((one_ack.window(), divided.window()), (11 * MSS, 11 * MSS));
            stretched.on_ack(&ack(10 * MSS, 10 * MSS));
            assert_eq!(stretched.window(), 18 * MSS);
        }
    }

    /// Pitfall Q13.
    #[test]
    fn window_that_was_not_used_does_not_grow() {
        for mut congestion in both() {
            (0..1000).for_each(|_| congestion.on_ack(&ack(MSS, 5 * MSS)));
            assert_eq!(congestion.window(), 10 * MSS);
            congestion.on_loss(10 * MSS, MSS);
            congestion.set_window(congestion.threshold(), MSS);
            let reduced = congestion.window();
            assert!(reduced == 5 * MSS || reduced == 7 * MSS);
            (0..1000).for_each(|_| congestion.on_ack(&ack(MSS, 2 * MSS)));
            assert_eq!(congestion.window(), reduced);
        }
    }

    /// Pitfall Q14.
    #[test]
    fn three_timeouts_of_the_same_data_reduce_once() {
        for mut congestion in both() {
            congestion.on_timeout(10 * MSS, MSS, false);
            let threshold = congestion.threshold();
            congestion.on_timeout(MSS, MSS, true);
            congestion.on_timeout(MSS, MSS, true);
            assert_eq!((congestion.window(), congestion.threshold()), (MSS, threshold));
            assert!(threshold == 5 * MSS || threshold == 7 * MSS);
        }
    }

    #[test]
    fn a_reduction_that_was_undone_leaves_no_trace() {
        for mut congestion in both() {
            congestion.on_loss(10 * MSS, MSS);
            congestion.set_window(7 * MSS, MSS);
            let before = congestion;
            congestion.on_timeout(7 * MSS, MSS, false);
            congestion.on_ack(&ack(MSS, MSS));
            congestion.undo(&before);
            assert_eq!(format!("{congestion:?}"), format!("{before:?}"));
        }
    }

    #[test]
    fn extreme_sizes_do_not_overflow() {
        for mut congestion in both() {
            for round in 0..3 {
                for _ in 0..10_000 {
                    congestion.on_ack(&Ack { mss: 65_495, ..ack(u32::MAX, u32::MAX) });
                    congestion.on_duplicate_ack(65_495);
                }
                let late = Instant::from_nanos(u64::MAX / (3 - round));
                congestion.on_ack(&Ack { mss: 65_495, now: late, ..ack(u32::MAX, u32::MAX) });
                congestion.on_fast_retransmit(u32::MAX, 65_495);
                congestion.on_partial_ack(u32::MAX, 65_495);
                assert!(congestion.window() <= WINDOW_MAX + 65_495);
                congestion.on_recovered(u32::MAX / 2, 65_495);
            }
        }
    }
}
