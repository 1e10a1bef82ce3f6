//! NewReno: one segment more for each window that is acknowledged (RFC 5681 §3.1).

use super::{Ack, Avoidance};

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NewReno {
    /// Bytes acknowledged since the window last grew.
    counted: u32,
}

impl Avoidance for NewReno {
    fn grow(&mut self, window: u32, ack: &Ack) -> u32 {
        self.counted = self.counted.saturating_add(ack.acked);
        if self.counted < window {
            return window;
        }
        self.counted -= window;
        window.saturating_add(ack.mss)
    }

    /// RFC 5681 §3.1, equation 4.
    fn reduce(&mut self, _window: u32, flight: u32, mss: u32) -> u32 {
        self.counted = 0;
        (flight / 2).max(2 * mss)
    }

    fn pause(&mut self) {
        self.counted = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::Seq;
    use crate::time::Instant;
    use core::time::Duration;

    #[test]
    fn adds_one_segment_per_window() {
        let ack = Ack {
            now: Instant::ZERO,
            acked: 1000,
            flight_peak: 10_000,
            mss: 1000,
            una: Seq(0),
            max: Seq(0),
            round_trip: None,
            smoothed: Duration::ZERO,
        };
        let mut newreno = NewReno::default();
        assert_eq!(newreno.reduce(20_000, 20_000, 1000), 10_000);
        let mut window = 10_000;
        (0..9).for_each(|_| window = newreno.grow(window, &ack));
        assert_eq!(window, 10_000);
        window = newreno.grow(window, &ack);
        assert_eq!(window, 11_000);
    }
}
