//! What goes to the wire: routing, neighbours, checksums, frames.
//!
//! The order is what keeps the stack alive when the device is slow: ARP and NDP first, because all
//! waits for it; then what has been waiting; then replies, which are limited in rate; then TCP and
//! UDP in turns.

use super::run::Run;
use super::{Engine, Fragmenting, PartialChecksum, Transmit};
use crate::config::{Lease, MacAddress};
use crate::dhcp::Message;
use crate::output::{Header, Packet, TIME_TO_LIVE, ip_header_len, payload_start};
use crate::time::Instant;
use crate::wire::checksum::Sum;
use crate::wire::ipv4::{PROTOCOL_TCP, PROTOCOL_UDP};
use crate::wire::{dhcp, ethernet, ndp, udp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where TCP's checksum stands in its header (RFC 9293 §3.1).
pub(super) const TCP_CHECKSUM_OFFSET: usize = 16;

/// A checksum `offset` bytes into a transport's header, left to the device.
const fn partial_checksum(destination: IpAddr, offset: usize) -> PartialChecksum {
    PartialChecksum { start: payload_start(destination) as u16, offset: offset as u16 }
}

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To ourselves; never to the wire (RFC 1122 §3.2.1.3(g)).
    Loopback,
    /// To everybody, or a group, on the link.
    Group(MacAddress),
    /// To this neighbour: the destination, or the router.
    Neighbour(IpAddr),
    /// Nowhere.
    None,
}

/// The group address of an IPv4 multicast address (RFC 1112 §6.4).
fn multicast_mac(address: Ipv4Addr) -> MacAddress {
    let [_, b, c, d] = address.octets();
    MacAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d])
}

/// Where a packet to `destination` goes next, if it is not said by a configured route.
fn route(lease: Option<&Lease>, destination: Ipv4Addr) -> Route {
    if destination.is_loopback() {
        return Route::Loopback;
    }
    if destination.is_broadcast() {
        return Route::Group(MacAddress::BROADCAST);
    }
    let Some(lease) = lease else { return Route::None };
    if destination == lease.address {
        Route::Loopback
    } else if lease.broadcast() == Some(destination) {
        Route::Group(MacAddress::BROADCAST)
    } else if destination.is_multicast() {
        Route::Group(multicast_mac(destination))
    } else if lease.is_on_link(destination) {
        Route::Neighbour(destination.into())
    } else {
        lease.gateway.map_or(Route::None, |gateway| Route::Neighbour(gateway.into()))
    }
}

impl Engine {
    /// Where a packet to `destination` goes next.
    pub(super) fn route(&self, now: Instant, destination: IpAddr) -> Route {
        match destination {
            IpAddr::V4(address) => {
                let lease = self.lease.as_ref();
                let is_on_link = |lease: &Lease| {
                    address.is_multicast() || address.is_broadcast() || lease.is_on_link(address)
                };
                match (lease, route(lease, address)) {
                    // What goes to a router goes to the one of the longest prefix.
                    (Some(lease), Route::Neighbour(_) | Route::None)
                        if !is_on_link(lease) && !address.is_loopback() =>
                    {
                        let can_reach = |gateway| match gateway {
                            IpAddr::V4(gateway) => {
                                lease.is_on_link(gateway) && gateway != lease.address
                            }
                            IpAddr::V6(_) => false,
                        };
                        let default = lease.gateway.map(IpAddr::V4);
                        let found = self.routes.lookup(now, destination, default, can_reach);
                        found.map_or(Route::None, Route::Neighbour)
                    }
                    (_, route) => route,
                }
            }
            IpAddr::V6(address) => self.route_v6(now, address),
        }
    }

    /// Conceptual sending (RFC 4861 §5.2).
    fn route_v6(&self, now: Instant, destination: Ipv6Addr) -> Route {
        if destination.is_loopback() {
            return Route::Loopback;
        }
        let Some(ipv6) = &self.ipv6 else { return Route::None };
        if destination.is_multicast() {
            return Route::Group(ndp::group_mac(destination));
        }
        if ipv6.addresses.is_ours(destination) {
            return Route::Loopback;
        }
        if ipv6.is_on_link(now, destination) {
            return Route::Neighbour(destination.into());
        }
        let default = ipv6.routers.default_router(now).map(IpAddr::V6);
        let can_reach = |gateway| match gateway {
            IpAddr::V6(gateway) => ipv6.is_on_link(now, gateway),
            IpAddr::V4(_) => false,
        };
        let found = self.routes.lookup(now, destination.into(), default, can_reach);
        found.map_or(Route::None, Route::Neighbour)
    }

    /// The largest packet of `destination`'s family on the link, in bytes.
    pub(super) fn link_mtu(&self, destination: IpAddr) -> usize {
        match (destination, &self.ipv6) {
            (IpAddr::V6(_), Some(ipv6)) => ipv6.mtu(),
            _ => self.mtu,
        }
    }

    /// Time to live, or hop limit, of what we send.
    pub(super) fn hop_limit(&self, destination: IpAddr) -> u8 {
        match (destination, &self.ipv6) {
            (IpAddr::V6(_), Some(ipv6)) => ipv6.hop_limit(),
            _ => TIME_TO_LIVE,
        }
    }

    /// The hardware address of a neighbour, if it is known.
    fn lookup(&mut self, now: Instant, neighbour: IpAddr) -> Option<MacAddress> {
        match neighbour {
            IpAddr::V4(address) => self.neighbours.lookup(now, address),
            IpAddr::V6(address) => self.ipv6.as_mut()?.neighbours.lookup(now, address),
        }
    }

    /// Keeps a packet until `neighbour` has said its hardware address.
    fn park(&mut self, now: Instant, neighbour: IpAddr, packet: Packet) {
        match neighbour {
            IpAddr::V4(address) => {
                self.neighbours.park(now, address, packet, &mut self.counters);
            }
            IpAddr::V6(address) => {
                if let Some(ipv6) = &mut self.ipv6 {
                    ipv6.neighbours.park(now, address, packet, &mut self.counters);
                }
            }
        }
        self.report_failed_neighbours(now);
    }

    /// True if the device finishes checksums of `address`'s family.
    fn has_checksum_offload(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.transmit_checksum_offload,
            IpAddr::V6(_) => self.transmit_checksum_offload_ipv6,
        }
    }

    /// Writes the next frame into `buffer`, which must have at least `14 + mtu` bytes and
    /// [`Config::segmented_frame_bytes_max`](crate::Config::segmented_frame_bytes_max) (with fewer
    /// there is none). The frame counts as sent.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        let most = (ethernet::HEADER_LEN + self.mtu).max(self.segmented_frame_bytes);
        let buffer = buffer.get_mut(..most)?;
        let transmit = self.transmit(now, buffer)?;
        self.counters.frames_sent += 1;
        self.counters.bytes_sent += transmit.len as u64;
        Some(transmit)
    }

    fn transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        if let Some(transmit) = self.transmit_run(now, buffer) {
            return Some(transmit);
        }
        if let Some(transmit) = self.transmit_discovery(now, buffer) {
            return Some(transmit);
        }
        if let Some(fragmenting) = self.fragmenting.take() {
            return Some(self.write_from(fragmenting, buffer));
        }
        let ready = self.neighbours.take_ready();
        let ready = ready.or_else(|| self.ipv6.as_mut().and_then(|v6| v6.neighbours.take_ready()));
        if let Some((to, packet)) = ready {
            return Some(self.write(now, to, packet, buffer));
        }
        while let Some(packet) = self.replies.pop() {
            if let Some(transmit) = self.send(now, packet, buffer) {
                return Some(transmit);
            }
        }
        if let Some(packet) = self.next_dhcp(now)
            && let Some(transmit) = self.send(now, packet, buffer)
        {
            return Some(transmit);
        }
        loop {
            // Whoever has nothing to send, or whose packet did not become a frame, leaves the turn
            // to the other.
            self.is_udps_turn = !self.is_udps_turn;
            let outcome = match self.transmit_socket(now, self.is_udps_turn, buffer) {
                Some(outcome) => outcome,
                None => self.transmit_socket(now, !self.is_udps_turn, buffer)?,
            };
            if outcome.is_some() {
                return outcome;
            }
            // A packet may have gone to a neighbour that must be asked for first.
            if let Some(transmit) = self.transmit_discovery(now, buffer) {
                return Some(transmit);
            }
        }
    }

    /// Writes the next frame with which neighbours find each other.
    fn transmit_discovery(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        if let Some(transmit) = self.transmit_arp(buffer) {
            return Some(transmit);
        }
        let (to, packet) = self.ipv6.as_mut()?.poll_transmit(now, &mut self.counters)?;
        let (len, _) = packet.write(self.mac, to, self.mtu, 0, buffer);
        Some(Transmit { is_ipv6: true, ..Transmit::complete(len) })
    }

    /// Takes a packet from UDP or TCP. `None`: there is none; `Some(None)`: it waits for a
    /// neighbour, or went to ourselves.
    fn transmit_socket(
        &mut self,
        now: Instant,
        from_udp: bool,
        buffer: &mut [u8],
    ) -> Option<Option<Transmit>> {
        if from_udp { self.transmit_udp(now, buffer) } else { self.transmit_tcp(now, buffer) }
    }

    fn transmit_udp(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Option<Transmit>> {
        let mut packet = self.udp.take_outgoing(&mut self.events)?;
        let Header { source, destination, protocol, .. } = packet.header;
        packet.header.identification = self.identifications.next(source, destination, protocol);
        self.counters.udp_sent += 1;
        let len = packet.payload.len();
        let mtu = self.mtu_of(now, &packet);
        let is_one_frame = ip_header_len(destination) + len <= mtu;
        if self.has_checksum_offload(destination) && is_one_frame {
            let to = match self.route(now, destination) {
                Route::Group(mac) => Some(mac),
                Route::Neighbour(next) => self.lookup(now, next),
                Route::Loopback | Route::None => None,
            };
            if let Some(to) = to {
                let sum = Sum::of_pseudo_header(source, destination, PROTOCOL_UDP, len).partial();
                let field = udp::CHECKSUM_OFFSET..udp::HEADER_LEN;
                packet.payload[field].copy_from_slice(&sum.to_be_bytes());
                let mut transmit = self.write(now, to, packet, buffer);
                transmit.partial_checksum =
                    Some(partial_checksum(destination, udp::CHECKSUM_OFFSET));
                return Some(Some(transmit));
            }
        }
        let sum = udp::checksum(source, destination, &packet.payload);
        packet.payload[udp::CHECKSUM_OFFSET..udp::HEADER_LEN].copy_from_slice(&sum.to_be_bytes());
        Some(self.send(now, packet, buffer))
    }

    fn transmit_tcp(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Option<Transmit>> {
        let out = self.tcp.poll_transmit_behind(now, buffer, payload_start)?;
        let (source, destination) = (out.source, out.destination);
        let start = payload_start(destination);
        let segment = &mut buffer[start..start + out.len];
        let header = Header {
            source,
            destination,
            protocol: PROTOCOL_TCP,
            hop_limit: self.hop_limit(destination),
            // Atomic: never fragmented, so that it needs no identification (RFC 6864 §4.1).
            identification: 0,
            dont_fragment: true,
        };
        let to = match self.route(now, destination) {
            Route::Neighbour(next) => match self.lookup(now, next) {
                Some(to) => to,
                None => {
                    if out.mss.is_some() {
                        leave_tcp_checksum(source, destination, segment);
                    } else {
                        fill_tcp_checksum(source, destination, segment);
                    }
                    let packet = Packet { header, payload: segment.to_vec(), mss: out.mss };
                    self.park(now, next, packet);
                    return Some(None);
                }
            },
            Route::Loopback => {
                self.loop_back(Packet { header, payload: segment.to_vec(), mss: out.mss });
                return Some(None);
            }
            Route::Group(_) | Route::None => {
                self.counters.dropped_ip_no_route += 1;
                return Some(None);
            }
        };
        let partial_checksum = if self.has_checksum_offload(destination) {
            leave_tcp_checksum(source, destination, segment);
            Some(partial_checksum(destination, TCP_CHECKSUM_OFFSET))
        } else {
            fill_tcp_checksum(source, destination, segment);
            None
        };
        header.write(self.mac, to, out.len, 0, false, buffer);
        self.counters.tcp_large_frames_sent += u64::from(out.mss.is_some());
        let (len, is_ipv6) = (start + out.len, destination.is_ipv6());
        let transmit = Transmit { len, partial_checksum, mss: out.mss, is_ipv6 };
        self.run = out.run.and_then(|run| {
            let sum = Sum::of_pseudo_header(source, destination, PROTOCOL_TCP, out.len);
            Run::new(run, &buffer[..len], start, sum, transmit)
        });
        Some(Some(transmit))
    }

    fn next_dhcp(&mut self, now: Instant) -> Option<Packet> {
        let Message { source, destination, payload } =
            self.dhcp.as_mut()?.poll_transmit(now, &mut self.counters)?;
        let payload =
            udp::to_bytes((source, dhcp::CLIENT_PORT), (destination, dhcp::SERVER_PORT), &payload);
        let header = Header {
            source: source.into(),
            destination: destination.into(),
            protocol: PROTOCOL_UDP,
            hop_limit: TIME_TO_LIVE,
            identification: self.identifications.next(source, destination, PROTOCOL_UDP),
            dont_fragment: false,
        };
        Some(Packet::new(header, payload))
    }

    /// Sends a packet on its way; `None` if no frame comes of it now.
    fn send(&mut self, now: Instant, packet: Packet, buffer: &mut [u8]) -> Option<Transmit> {
        let to = match self.route(now, packet.header.destination) {
            Route::Group(to) => to,
            Route::Neighbour(next) => match self.lookup(now, next) {
                Some(to) => to,
                None => {
                    self.park(now, next, packet);
                    return self.transmit_discovery(now, buffer);
                }
            },
            Route::Loopback => {
                self.loop_back(packet);
                return None;
            }
            Route::None => {
                self.counters.dropped_ip_no_route += 1;
                return None;
            }
        };
        Some(self.write(now, to, packet, buffer))
    }

    fn loop_back(&mut self, packet: Packet) {
        if self.loopback.push(packet) {
            self.counters.loopback_packets += 1;
        } else {
            self.counters.dropped_loopback_queue += 1;
        }
    }

    /// The most bytes of `packet`'s frames, without Ethernet's header: those of the path, unless it
    /// is never to be fragmented.
    fn mtu_of(&self, now: Instant, packet: &Packet) -> usize {
        let destination = packet.header.destination;
        let link_mtu = self.link_mtu(destination);
        if packet.header.dont_fragment {
            return link_mtu;
        }
        self.tcp.path_mtus().get(now, destination, link_mtu)
    }

    /// Writes a packet, or the first fragment of it, as a frame.
    fn write(
        &mut self,
        now: Instant,
        to: MacAddress,
        packet: Packet,
        buffer: &mut [u8],
    ) -> Transmit {
        let mtu = self.mtu_of(now, &packet);
        self.write_from(Fragmenting { to, packet, mtu, offset: 0 }, buffer)
    }

    /// Writes a packet, or the next fragment of it, as a frame.
    fn write_from(&mut self, fragmenting: Fragmenting, buffer: &mut [u8]) -> Transmit {
        let Fragmenting { to, packet, mtu, offset } = fragmenting;
        let (len, next) = packet.write(self.mac, to, mtu, offset, buffer);
        if next.is_some() || offset > 0 {
            self.counters.fragments_sent += 1;
        }
        let mss = packet.mss;
        let destination = packet.header.destination;
        let partial_checksum = mss.map(|_| partial_checksum(destination, TCP_CHECKSUM_OFFSET));
        self.counters.tcp_large_frames_sent += u64::from(mss.is_some());
        self.fragmenting = next.map(|offset| Fragmenting { to, packet, mtu, offset });
        Transmit { len, partial_checksum, mss, is_ipv6: destination.is_ipv6() }
    }
}

/// Leaves the checksum of a segment whose field is zero to the device.
fn leave_tcp_checksum(source: IpAddr, destination: IpAddr, segment: &mut [u8]) {
    let sum = Sum::of_pseudo_header(source, destination, PROTOCOL_TCP, segment.len()).partial();
    if let Some(field) = segment.get_mut(TCP_CHECKSUM_OFFSET..TCP_CHECKSUM_OFFSET + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// Fills in the checksum of a segment whose field is zero.
fn fill_tcp_checksum(source: IpAddr, destination: IpAddr, segment: &mut [u8]) {
    let sum = Sum::of_pseudo_header(source, destination, PROTOCOL_TCP, segment.len())
        .then(segment)
        .finish();
    if let Some(field) = segment.get_mut(TCP_CHECKSUM_OFFSET..TCP_CHECKSUM_OFFSET + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_follow_the_subnet_the_gateway_and_the_loopback_rule() {
        let lease = Lease {
            address: Ipv4Addr::new(10, 0, 0, 5),
            prefix_len: 24,
            gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
            dns: vec![],
        };
        let of = |a, b, c, d| route(Some(&lease), Ipv4Addr::new(a, b, c, d));
        assert_eq!(of(10, 0, 0, 9), Route::Neighbour(Ipv4Addr::new(10, 0, 0, 9).into()));
        assert_eq!(of(10, 0, 1, 9), Route::Neighbour(Ipv4Addr::new(10, 0, 0, 1).into()));
        assert_eq!(of(10, 0, 0, 255), Route::Group(MacAddress::BROADCAST));
        assert_eq!(of(255, 255, 255, 255), Route::Group(MacAddress::BROADCAST));
        assert_eq!(of(239, 129, 2, 3), Route::Group(MacAddress([0x01, 0x00, 0x5e, 0x01, 2, 3])));
        assert_eq!(of(10, 0, 0, 5), Route::Loopback);
        assert_eq!(of(127, 3, 2, 1), Route::Loopback);
        assert_eq!(route(None, Ipv4Addr::new(10, 0, 0, 9)), Route::None);
        let isolated = Lease { gateway: None, ..lease };
        assert_eq!(route(Some(&isolated), Ipv4Addr::new(10, 0, 1, 9)), Route::None);
    }
}
