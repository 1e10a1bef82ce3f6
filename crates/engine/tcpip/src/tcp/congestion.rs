//! How much may be in flight: congestion control.
//!
//! [`Congestion`] is what loss recovery and output need of an algorithm; [`NewReno`] is the one of
//! RFC 5681 with appropriate byte counting (RFC 3465) and an initial window of ten segments (RFC
//! 6928). The algorithm decides only how large the window is; *what* is lost and when to send it
//! again is decided in `input.rs`, so that another algorithm, or another way to find losses, can
//! come without touching the other.

/// A congestion control algorithm. Sizes are bytes; `mss` is the payload of a full segment.
pub(crate) trait Congestion {
    /// The congestion window.
    fn window(&self) -> u32;

    /// `acked` new bytes were acknowledged outside of recovery; `flight_peak` bytes were in flight
    /// at most during the last round trip. The window must not grow if the program, not the
    /// network, kept that low (RFC 7661 §1).
    fn on_ack(&mut self, acked: u32, flight_peak: u32, mss: u32);

    /// Three duplicate ACKs told of a loss while `flight` bytes were in flight.
    fn on_fast_retransmit(&mut self, flight: u32, mss: u32);

    /// One more duplicate ACK: a segment has left the network.
    fn on_duplicate_ack(&mut self, mss: u32);

    /// An ACK in recovery covered `acked` bytes, but not all that was in flight when it began.
    fn on_partial_ack(&mut self, acked: u32, mss: u32);

    /// Recovery is over; `flight` bytes are in flight.
    fn on_recovered(&mut self, flight: u32, mss: u32);

    /// The retransmission timer expired while `flight` bytes were in flight; `again` if it had
    /// expired for the same data before.
    fn on_timeout(&mut self, flight: u32, mss: u32, again: bool);

    /// Nothing was sent for longer than the RTO (RFC 5681 §4.1).
    fn on_idle(&mut self, mss: u32);

    /// The SYN or the SYN-ACK was lost (RFC 5681 §3.1).
    fn on_syn_loss(&mut self, mss: u32);
}

/// The initial window (RFC 6928 §2).
pub(crate) fn initial_window(mss: u32) -> u32 {
    (10 * mss).min(14_600.max(2 * mss))
}

/// How many segments one ACK may add in slow start. RFC 3465 §2.2 says two; receivers that take
/// segments in batches acknowledge many at once since, and RFC 9406 §4.2 says eight.
const BURST_SEGMENTS: u32 = 8;

/// RFC 5681 and, for recovery, RFC 6582.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewReno {
    /// cwnd.
    window: u32,
    /// ssthresh: below it slow start, above it congestion avoidance.
    threshold: u32,
    /// Bytes acknowledged since the window last grew in congestion avoidance.
    counted: u32,
}

/// No window gets larger: far above any buffer, far below overflow.
const WINDOW_MAX: u32 = 1 << 30;

impl NewReno {
    pub(crate) fn new(mss: u32) -> Self {
        NewReno { window: initial_window(mss), threshold: WINDOW_MAX, counted: 0 }
    }

    const fn is_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// RFC 5681 §3.1, equation 4.
    fn halve(flight: u32, mss: u32) -> u32 {
        (flight / 2).max(2 * mss)
    }
}

impl Congestion for NewReno {
    fn window(&self) -> u32 {
        self.window
    }

    fn on_ack(&mut self, acked: u32, flight_peak: u32, mss: u32) {
        if self.is_slow_start() {
            // A slow start that used at least half of the window has earned the other half.
            if flight_peak.saturating_mul(2) > self.window {
                let grown = self.window.saturating_add(acked.min(BURST_SEGMENTS * mss));
                self.window = grown.min(WINDOW_MAX);
            }
        } else if flight_peak.saturating_add(mss) > self.window {
            self.counted = self.counted.saturating_add(acked);
            if self.counted >= self.window {
                self.counted -= self.window;
                self.window = self.window.saturating_add(mss).min(WINDOW_MAX);
            }
        }
    }

    fn on_fast_retransmit(&mut self, flight: u32, mss: u32) {
        self.threshold = Self::halve(flight, mss);
        self.window = self.threshold.saturating_add(3 * mss);
        self.counted = 0;
    }

    fn on_duplicate_ack(&mut self, mss: u32) {
        self.window = self.window.saturating_add(mss).min(WINDOW_MAX);
    }

    fn on_partial_ack(&mut self, acked: u32, mss: u32) {
        // RFC 6582 §3.2 step 5, "partial window deflation".
        self.window = self.window.saturating_sub(acked).max(mss);
        if acked >= mss {
            self.window += mss;
        }
    }

    fn on_recovered(&mut self, flight: u32, mss: u32) {
        // RFC 6582 §3.2 step 3, option 1: no burst.
        self.window = self.threshold.min(flight.max(mss) + mss);
        self.counted = 0;
    }

    fn on_timeout(&mut self, flight: u32, mss: u32, again: bool) {
        // RFC 5681 §3.1: ssthresh "is held constant" when the same data is lost again.
        if !again {
            self.threshold = Self::halve(flight, mss);
        }
        self.window = mss;
        self.counted = 0;
    }

    fn on_idle(&mut self, mss: u32) {
        self.window = self.window.min(initial_window(mss));
    }

    fn on_syn_loss(&mut self, mss: u32) {
        // The threshold stays: one lost SYN says nothing about the path's capacity.
        self.window = mss;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    /// Q12.
    #[test]
    fn initial_window_is_ten_segments() {
        for (mss, window) in
            [(100, 1000), (536, 5360), (1448, 14_480), (1460, 14_600), (9000, 18_000)]
        {
            assert_eq!(initial_window(mss), window);
        }
    }

    /// Q11.
    #[test]
    fn slow_start_counts_bytes_not_acks() {
        let mut one_ack = NewReno::new(MSS);
        one_ack.on_ack(MSS, 10 * MSS, MSS);
        let mut divided = NewReno::new(MSS);
        (0..1000).for_each(|_| divided.on_ack(1, 10 * MSS, MSS));
        assert_eq!((one_ack.window(), divided.window()), (11 * MSS, 11 * MSS));
        let mut stretched = NewReno::new(MSS);
        stretched.on_ack(10 * MSS, 10 * MSS, MSS);
        assert_eq!(stretched.window(), 18 * MSS);
    }

    /// Q13.
    #[test]
    fn window_that_was_not_used_does_not_grow() {
        let mut newreno = NewReno::new(MSS);
        (0..1000).for_each(|_| newreno.on_ack(MSS, 5 * MSS, MSS));
        assert_eq!(newreno.window(), 10 * MSS);
        newreno.on_fast_retransmit(10 * MSS, MSS);
        newreno.on_recovered(10 * MSS, MSS);
        assert_eq!(newreno.window(), 5 * MSS);
        (0..1000).for_each(|_| newreno.on_ack(MSS, 2 * MSS, MSS));
        assert_eq!(newreno.window(), 5 * MSS);
    }

    #[test]
    fn avoidance_adds_one_segment_per_window() {
        let mut newreno = NewReno::new(MSS);
        newreno.on_fast_retransmit(20 * MSS, MSS);
        newreno.on_recovered(20 * MSS, MSS);
        (0..9).for_each(|_| newreno.on_ack(MSS, 10 * MSS, MSS));
        assert_eq!(newreno.window(), 10 * MSS);
        newreno.on_ack(MSS, 10 * MSS, MSS);
        assert_eq!(newreno.window(), 11 * MSS);
    }

    /// Q14.
    #[test]
    fn three_timeouts_of_the_same_data_halve_once() {
        let mut newreno = NewReno::new(MSS);
        newreno.on_timeout(40 * MSS, MSS, false);
        newreno.on_timeout(MSS, MSS, true);
        newreno.on_timeout(MSS, MSS, true);
        assert_eq!((newreno.window, newreno.threshold), (MSS, 20 * MSS));
    }

    #[test]
    fn extreme_sizes_do_not_overflow() {
        let mut newreno = NewReno::new(65_495);
        for _ in 0..100_000 {
            newreno.on_ack(u32::MAX, u32::MAX, 65_495);
            newreno.on_duplicate_ack(65_495);
        }
        newreno.on_fast_retransmit(u32::MAX, 65_495);
        newreno.on_partial_ack(u32::MAX, 65_495);
        assert!(newreno.window() <= WINDOW_MAX + 65_495);
    }
}
