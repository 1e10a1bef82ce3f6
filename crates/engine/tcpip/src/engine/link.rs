//! What a program knows of its link that no protocol has told us.

use super::Engine;
use super::transmit::Route;
use crate::config::MacAddress;
use crate::time::Instant;
use crate::wire::{dhcp, ipv4, udp};
use std::net::{IpAddr, SocketAddr};

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
        self.run = None;
        mac.is_unicast()
            && mac != self.mac
            && self.route(now, address.into()) == Route::Neighbour(address.into())
            && self.neighbours.learn(now, address, mac, true)
    }

    /// True for what a host without an address says to everybody, if somebody here listens to it:
    /// DHCP's messages to servers, the one thing that RFC 1122 §3.2.1.3(a) lets it send.
    pub(super) fn is_from_host_without_address(&self, packet: &ipv4::Packet<'_>) -> bool {
        let is_candidate = packet.source().is_unspecified()
            && packet.destination().is_broadcast()
            && packet.protocol() == ipv4::PROTOCOL_UDP
            && !packet.is_fragment();
        is_candidate
            && udp::Datagram::parse(packet.payload()).is_some_and(|datagram| {
                datagram.destination_port == dhcp::SERVER_PORT
                    && self
                        .udp
                        .has_receiver(SocketAddr::from((packet.destination(), dhcp::SERVER_PORT)))
            })
    }
}
