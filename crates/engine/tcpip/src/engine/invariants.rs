//! What always holds between two calls; the tests and the fuzz targets ask after every step.

use super::Engine;
use crate::config::Limits;

impl Engine {
    /// Asserts that all that is held is within `limits`, those that the engine was made with, and
    /// that TCP's tables agree with each other.
    pub(crate) fn check(&self, limits: &Limits) {
        let counters = self.counters();
        let is_within = |value: u64, limit: usize| value <= limit as u64;
        let ipv6 = self.ipv6.as_ref();
        let families = [Some(self.neighbours.gauges()), ipv6.map(|ipv6| ipv6.neighbours.gauges())];
        for (neighbours, parked_bytes) in families.into_iter().flatten() {
            assert!(neighbours <= limits.neighbours);
            assert!(parked_bytes <= limits.neighbour_parked_bytes);
        }
        assert!(is_within(counters.ipv6_routers, limits.ipv6_routers));
        assert!(is_within(counters.ipv6_prefixes, limits.ipv6_prefixes));
        assert!(is_within(counters.ipv6_addresses, limits.ipv6_addresses));
        assert!(is_within(counters.path_mtus, limits.path_mtus));
        assert!(is_within(counters.reassembly_bytes, limits.reassembly_bytes));
        assert!(is_within(counters.reassembly_datagrams, limits.reassembly_datagrams));
        // A datagram is taken whole; and what closed sockets had taken is as much as one may hold.
        let send_bytes = limits.udp_send_bytes.max(66_000);
        let udp =
            counters.udp_sockets as usize * (limits.udp_receive_bytes + send_bytes) + send_bytes;
        assert!(is_within(counters.udp_queued_bytes, udp));
        assert!(is_within(counters.tcp_connections, limits.tcp_connections));
        assert!(is_within(counters.tcp_half_open, limits.tcp_half_open));
        assert!(is_within(counters.tcp_time_wait, limits.tcp_time_wait));
        assert!(is_within(counters.tcp_buffered_bytes, limits.tcp_total_bytes));
        self.replies.check();
        self.loopback.check();
        self.tcp.check(limits);
    }
}
