//! How much a connection may buffer: what its path and its program can use, within the ceilings.
//!
//! Buffers hold memory only while there is something in them; what grows here is what they may hold.
//! Nothing grows while memory for all connections is short.

use super::Connection;
use crate::tcp::{Settings, Shared};
use crate::time::Instant;
use core::time::Duration;

/// The round trip of a path that was not measured.
const ROUND_TRIP_UNKNOWN: Duration = Duration::from_millis(100);

/// No round trip is shorter for this purpose: a program that reads in bursts reads at their rate.
const ROUND_TRIP_MIN: Duration = Duration::from_millis(1);

impl Connection {
    /// Bytes that the program may have written and the peer not acknowledged: twice the congestion
    /// window, so that the next round trip's data is there when this one's is acknowledged.
    pub(crate) fn send_limit(&self, shared: &Shared) -> usize {
        if shared.memory.is_short() {
            shared.settings.send_bytes_initial
        } else {
            self.send_limit_unless_short(&shared.settings)
        }
    }

    /// As [`send_limit`](Self::send_limit), for what only needs its order of magnitude.
    pub(super) fn send_limit_unless_short(&self, settings: &Settings) -> usize {
        let window = self.congestion.window().min(self.window_max) as usize;
        (2 * window).clamp(settings.send_bytes_initial, settings.send_bytes)
    }

    /// The program has read `count` bytes: the window must hold twice what it reads in a round
    /// trip, or the window, not the path, sets the rate; and a sender in slow start doubles it.
    pub(super) fn tune_receive_window(&mut self, now: Instant, count: usize, shared: &Shared) {
        self.read_since = self.read_since.saturating_add(count as u32);
        let round_trip = self.rtt.smoothed().unwrap_or(ROUND_TRIP_UNKNOWN).max(ROUND_TRIP_MIN);
        let elapsed = now.saturating_since(self.tuned_at);
        if elapsed < round_trip {
            return;
        }
        let most = shared.settings.receive_bytes as u32;
        // What was read in more than a round trip is no measure of what is read in one.
        if elapsed < 2 * round_trip && !shared.memory.is_short() {
            let wanted = self.read_since.saturating_mul(2).min(most);
            self.receive_limit = self.receive_limit.max(wanted);
        }
        (self.read_since, self.tuned_at) = (0, now);
    }
}
