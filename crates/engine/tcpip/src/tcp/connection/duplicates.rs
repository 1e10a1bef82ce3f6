//! Loss recovery by counting duplicate ACKs, for peers without SACK: NewReno's way (RFC 5681 §3.2,
//! RFC 6582).

use super::Connection;
use crate::tcp::Shared;
use crate::tcp::congestion::Ack;
use crate::tcp::timers::NEVER;
use crate::time::Instant;

/// Duplicate ACKs that mean a loss (RFC 5681 §3.2).
const DUPLICATES_FOR_LOSS: u8 = 3;

impl Connection {
    /// Lets the congestion window follow, and the timer (RFC 6298 §5.2 and §5.3, RFC 6582 §3.2).
    pub(super) fn recover_or_grow(
        &mut self,
        now: Instant,
        acked: u32,
        in_flight: u32,
        shared: &mut Shared,
    ) {
        let mss = self.payload_max();
        let mut restarts_timer = true;
        if !self.is_recovering {
            self.duplicate_acks = 0;
            self.congestion.on_ack(&Ack {
                now,
                acked,
                flight_peak: self.flight_peak.max(in_flight),
                mss,
                una: self.una,
                max: self.max,
                round_trip: None,
                smoothed: self.rtt.smoothed().unwrap_or_default(),
            });
            self.follow_recover();
        } else if self.una.at_or_after(self.recover) {
            self.is_recovering = false;
            self.duplicate_acks = 0;
            self.congestion.on_recovered(self.flight(), mss);
        } else {
            // A partial ACK: what follows it is lost as well. Only the first restarts the timer, so
            // that a window with many losses is given up for a timeout (RFC 6582 §4, "Impatient").
            restarts_timer = !core::mem::replace(&mut self.had_partial_ack, true);
            self.retransmit_due = true;
            self.congestion.on_partial_ack(acked, mss);
            shared.counters.tcp_partial_acks += 1;
        }
        if self.una == self.max {
            self.retransmit_at = NEVER;
        } else if restarts_timer {
            self.arm_retransmit(now, shared);
        }
    }

    /// A duplicate ACK: a segment has left the network, and an earlier one may be lost.
    pub(super) fn on_duplicate_ack(&mut self, shared: &mut Shared) {
        self.duplicate_acks = self.duplicate_acks.saturating_add(1);
        let mss = self.payload_max();
        if self.is_recovering {
            self.congestion.on_duplicate_ack(mss);
        } else if self.duplicate_acks == DUPLICATES_FOR_LOSS && self.una.after(self.recover) {
            self.is_recovering = true;
            self.had_partial_ack = false;
            self.recover = self.max;
            self.retransmit_due = true;
            self.congestion.on_fast_retransmit(self.flight(), mss);
            shared.counters.tcp_fast_retransmits += 1;
        }
    }
}
