//! What a program knows of its link that no protocol has told us.

use super::Engine;
use super::transmit::Route;
use crate::config::MacAddress;
use crate::time::Instant;
use std::net::{IpAddr, Ipv4Addr};

impl Engine {
    /// Notes that `address`, a neighbour's, is at `mac`, as if it had told us, so that datagrams go
    /// there without being asked for: for a DHCP server, whose clients do not answer for the address
    /// that they are being given (RFC 2131 §4.1). Overwrites what was known. What the neighbour
    /// itself says later counts for more; and the entry grows old like any other.
    ///
    /// False if it cannot be a neighbour's: not on the link, our own, IPv6; or the table is full of
    /// neighbours in use.
    pub fn set_neighbour(&mut self, now: Instant, address: IpAddr, mac: MacAddress) -> bool {
        let IpAddr::V4(address) = address else { return false };
        mac.is_unicast()
            && mac != self.mac
            && self.route(address) == Route::Neighbour(address)
            && self.neighbours.learn(now, address, mac, true)
    }

    /// True for what a host without an address sends to everybody, and somebody here listens to:
    /// BOOTP and DHCP, the one protocol that RFC 1122 §3.2.1.3(a) lets it speak.
    pub(super) fn is_from_host_without_address(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
    ) -> bool {
        source.is_unspecified()
            && destination.is_broadcast()
            && self.udp.has_receiver(std::net::SocketAddrV4::new(
                destination,
                crate::wire::dhcp::SERVER_PORT,
            ))
    }
}
