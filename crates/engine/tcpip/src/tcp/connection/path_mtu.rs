//! The largest segment that a path takes: less than the link's if a router says so (RFC 1191, RFC
//! 8201) or, where routers say nothing, if full segments get lost again and again (RFC 2923 §2.1).
//!
//! After a while the first size is tried again: paths change, and the loss may have been an outage.

use super::Connection;
use crate::path_mtu;
use crate::tcp::Shared;
use crate::tcp::timers::NEVER;
use crate::time::Instant;
use crate::wire::ipv6;
use core::time::Duration;

/// What a path takes that swallows full segments in silence: what nearly every tunnel takes.
const PATH_MTU_OF_TUNNELS: u16 = 1280;

/// Expiries in a row of the retransmission timer for a full segment that mean its size: after the
/// second, smaller ones go (pitfall P04).
const TIMEOUTS_FOR_SMALLER: u8 = 2;

/// And after so many, the smallest.
const TIMEOUTS_FOR_SMALLEST: u8 = 4;

/// If those get lost as well, this many in all, there was another reason.
const TIMEOUTS_FOR_OUTAGE: u8 = 6;

/// How long a smaller size holds (RFC 1191 §6.3, RFC 8201 §5.3: ten minutes).
const HOLDS: Duration = Duration::from_secs(600);

/// A path that takes less than its link. Boxed, because most take all.
pub(super) struct Narrow {
    /// The largest segment before.
    mss_full: u16,
    lowered_at: Instant,
}

impl Connection {
    const fn ip_and_tcp_headers(&self) -> u16 {
        if self.tuple.remote.is_ipv4() { 40 } else { 60 }
    }

    const fn path_mtu_min(&self) -> u16 {
        // RFC 8201 §4: below it, IPv6 itself must not go.
        let least = if self.tuple.remote.is_ipv4() { path_mtu::IPV4_MIN } else { ipv6::MTU_MIN };
        least as u16
    }

    /// A router says that a packet in flight is larger than a link's `mtu` (RFC 1191 §3.1, RFC 5927
    /// §7.2).
    pub(super) fn on_too_big(&mut self, now: Instant, mtu: u16, shared: &mut Shared) {
        // A router of before RFC 1191 names no size; 576 always was the next plateau for us.
        let mtu = if mtu == 0 { 576 } else { mtu }.max(self.path_mtu_min());
        if self.lower_mss(now, mtu, shared) && self.is_open() {
            // What is in flight was lost to size, not to congestion: send it again at once (RFC 8201
            // §5.4).
            if self.has_sack {
                self.lose_all();
            } else {
                self.next = self.una;
                self.retransmit_due = true;
            }
            self.timed_at = NEVER;
        }
    }

    /// Sends no larger packets than `mtu`; false if it sends none anyway.
    fn lower_mss(&mut self, now: Instant, mtu: u16, shared: &mut Shared) -> bool {
        let mss = mtu - self.ip_and_tcp_headers();
        if mss >= self.mss {
            return false;
        }
        let mss_full = self.narrow.as_ref().map_or(self.mss, |narrow| narrow.mss_full);
        self.narrow = Some(Box::new(Narrow { mss_full, lowered_at: now }));
        self.mss = mss;
        shared.counters.tcp_path_mtu_lowered += 1;
        true
    }

    /// The retransmission timer has expired, for the same data once more than it was backed off.
    pub(super) fn suspect_size(&mut self, now: Instant, shared: &mut Shared) {
        let timeouts = self.rtt.backoff().saturating_add(1);
        if timeouts >= TIMEOUTS_FOR_OUTAGE {
            if let Some(narrow) = self.narrow.take() {
                self.mss = narrow.mss_full;
            }
            return;
        }
        let is_full = self.data_end().since(self.una) >= self.payload_max();
        let mtu = match timeouts {
            TIMEOUTS_FOR_SMALLER => PATH_MTU_OF_TUNNELS,
            TIMEOUTS_FOR_SMALLEST => self.path_mtu_min(),
            _ => return,
        };
        if is_full && self.lower_mss(now, mtu, shared) {
            shared.counters.tcp_black_holes += 1;
        }
    }

    /// Tries the first size again, if the smaller one has held for long.
    pub(super) fn retry_size(&mut self, now: Instant) {
        if let Some(narrow) = &self.narrow
            && now.saturating_since(narrow.lowered_at) >= HOLDS
        {
            self.mss = narrow.mss_full;
            self.narrow = None;
        }
    }
}
