//! IPv6 as a black box. `H6` is the host under test's configured address, `P6` its peer's on the
//! same link, `R6` a router's.

mod addresses;
mod attacks;
mod fragments;
mod headers;
mod neighbours;
mod paths;
mod routers;

use super::*;
use crate::config::Ipv6Config;
use crate::wire::icmpv6::{self, Message};
use crate::wire::ipv6::{self as wire, PROTOCOL_ICMPV6};
use crate::wire::ndp;
use std::net::Ipv6Addr;

const H6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const P6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// Not on the link.
const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 9);
const R6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff);
const R_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xff]);
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 0);

fn config6() -> Config {
    Config { ipv6: Ipv6Config { addresses: vec![(H6, 64)], ..Ipv6Config::default() }, ..config() }
}

fn host6() -> Host {
    Host::with(config6())
}

/// A frame for whoever `destination` is on the link.
fn frame6(from: MacAddress, packet: &[u8]) -> Vec<u8> {
    let destination = wire::Packet::parse(packet).unwrap().destination();
    let to = if destination.is_multicast() { ndp::group_mac(destination) } else { H_MAC };
    eth(to, from, ethernet::TYPE_IPV6, packet)
}

fn packet6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next: u8,
    limit: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = wire::header(source, destination, next, limit, payload.len()).to_vec();
    packet.extend(payload);
    packet
}

/// A frame from P with a packet.
fn ip6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    frame6(P_MAC, &packet6(source, destination, next, 64, payload))
}

fn udp6(source: Ipv6Addr, destination: Ipv6Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let datagram = udp_wire::to_bytes((source, 9), (destination, port), payload);
    ip6(source, destination, PROTOCOL_UDP, &datagram)
}

fn ping_bytes(source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> Vec<u8> {
    let kind = (icmpv6::ECHO_REQUEST, 0);
    icmpv6::to_bytes(source, destination, kind, [1, 2, 3, 4], body)
}

fn ping6(source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> Vec<u8> {
    ip6(source, destination, PROTOCOL_ICMPV6, &ping_bytes(source, destination, body))
}

/// A message of Neighbour Discovery from `from`.
fn nd(
    from: MacAddress,
    (source, destination): (Ipv6Addr, Ipv6Addr),
    kind: u8,
    word: [u8; 4],
    body: &[u8],
) -> Vec<u8> {
    let bytes = icmpv6::to_bytes(source, destination, (kind, 0), word, body);
    frame6(from, &packet6(source, destination, PROTOCOL_ICMPV6, 255, &bytes))
}

/// P asks for `target`'s hardware address.
fn solicitation(source: Ipv6Addr, mac: MacAddress, target: Ipv6Addr) -> Vec<u8> {
    let body = ndp::neighbour_body(target, Some(mac), None, None);
    let to = ndp::solicited_node(target);
    nd(mac, (source, to), icmpv6::NEIGHBOUR_SOLICITATION, [0; 4], &body)
}

/// `mac` says that it has `target`.
fn advertisement(mac: MacAddress, target: Ipv6Addr, to: Ipv6Addr, flags: u8) -> Vec<u8> {
    let body = ndp::neighbour_body(target, None, Some(mac), None);
    nd(mac, (target, to), icmpv6::NEIGHBOUR_ADVERTISEMENT, [flags, 0, 0, 0], &body)
}

/// What a router says.
#[derive(Clone)]
struct Ra {
    router: Ipv6Addr,
    mac: MacAddress,
    hop_limit: u8,
    lifetime: u16,
    options: Vec<u8>,
}

impl Ra {
    fn new() -> Ra {
        let options = [&[1, 1][..], &R_MAC.0].concat();
        Ra { router: R6, mac: R_MAC, hop_limit: 0, lifetime: 1800, options }
    }

    fn from(last: u16) -> Ra {
        let mac = MacAddress([2, 0, 0, 0, 9, last as u8]);
        let options = [&[1, 1][..], &mac.0].concat();
        let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 9, last);
        Ra { router, mac, options, ..Ra::new() }
    }

    /// With a prefix of 64 bits. `flags`: 0x80 on the link, 0x40 for addresses.
    fn prefix(mut self, prefix: Ipv6Addr, len: u8, flags: u8, valid: u32, preferred: u32) -> Ra {
        self.options.extend([3, 4, len, flags]);
        self.options.extend(valid.to_be_bytes());
        self.options.extend(preferred.to_be_bytes());
        self.options.extend([0; 4]);
        self.options.extend(prefix.octets());
        self
    }

    fn mtu(mut self, mtu: u32) -> Ra {
        self.options.extend([5, 1, 0, 0]);
        self.options.extend(mtu.to_be_bytes());
        self
    }

    fn body(&self) -> Vec<u8> {
        [&[0; 8][..], &self.options].concat()
    }

    fn word(&self) -> [u8; 4] {
        let [high, low] = self.lifetime.to_be_bytes();
        [self.hop_limit, 0, high, low]
    }

    fn frame(&self) -> Vec<u8> {
        let addresses = (self.router, ndp::ALL_NODES);
        nd(self.mac, addresses, icmpv6::ROUTER_ADVERTISEMENT, self.word(), &self.body())
    }
}

/// What a router says to H about a packet that is larger than the `mtu` behind it.
pub(super) fn too_big_for(packet: &[u8], mtu: [u8; 4]) -> Vec<u8> {
    let quote = &packet[..packet.len().min(1232)];
    let kind = (icmpv6::PACKET_TOO_BIG, 0);
    let message = icmpv6::to_bytes(R6, H6, kind, mtu, quote);
    frame6(R_MAC, &packet6(R6, H6, PROTOCOL_ICMPV6, 255, &message))
}

/// A packet that H sent, its transport's checksum verified.
#[derive(Clone, Debug)]
struct Sent6 {
    to: MacAddress,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: u8,
    hop_limit: u8,
    payload: Vec<u8>,
}

fn sent6(frame: &[u8]) -> Option<Sent6> {
    let frame = Frame::parse(frame)?;
    assert_eq!(frame.source, H_MAC);
    if frame.ethertype != ethernet::TYPE_IPV6 {
        return None;
    }
    let packet = wire::Packet::parse(frame.payload).unwrap();
    let (source, destination) = (packet.source(), packet.destination());
    let (protocol, start) = match packet.walk() {
        wire::Walk::Upper { protocol, start, .. } => {
            let payload = packet.from(start);
            let sum = checksum::Sum::of_pseudo_header(source, destination, protocol, payload.len());
            assert!(sum.then(payload).is_valid(), "{protocol}");
            (protocol, start)
        }
        wire::Walk::Fragment { start, .. } => (wire::FRAGMENT, start),
        other => panic!("{other:?}"),
    };
    Some(Sent6 {
        to: frame.destination,
        source,
        destination,
        protocol,
        hop_limit: packet.bytes()[7],
        payload: packet.from(start).to_vec(),
    })
}

/// The messages of ICMPv6 of one kind among frames, with the packets that they are.
fn messages(frames: &[Vec<u8>], kind: u8) -> Vec<Sent6> {
    let sent = frames.iter().filter_map(|frame| sent6(frame));
    sent.filter(|sent| sent.protocol == PROTOCOL_ICMPV6 && sent.payload[0] == kind).collect()
}

fn target_of(sent: &Sent6) -> Ipv6Addr {
    ndp::Neighbour::parse(&Message::parse(&sent.payload).unwrap()).unwrap().target
}

fn frames(timed: Vec<(Instant, Vec<u8>)>) -> Vec<Vec<u8>> {
    timed.into_iter().map(|(_, frame)| frame).collect()
}

impl Host {
    /// Lets H learn a neighbour's hardware address: it asks for H's.
    fn introduce6(&mut self, address: Ipv6Addr, mac: MacAddress) {
        self.sent();
        self.receive(&solicitation(address, mac, H6));
        let answers = messages(&self.sent(), icmpv6::NEIGHBOUR_ADVERTISEMENT);
        assert_eq!(answers.len(), 1, "H answers");
    }

    fn udp_send6(&mut self, id: UdpId, to: Ipv6Addr, payload: &[u8]) {
        let to = SocketAddr::from((to, 9));
        assert_eq!(self.engine.udp_send(self.now, id, to, payload), Ok(true));
    }

    /// What H sends to `to`'s port 9, if it does at once.
    fn sends_to(&mut self, id: UdpId, to: Ipv6Addr) -> Option<Sent6> {
        self.sent();
        self.udp_send6(id, to, b"x");
        let sent = self.sent();
        let mut sent = sent.iter().filter_map(|frame| sent6(frame));
        sent.find(|sent| sent.protocol == PROTOCOL_UDP)
    }

    fn has_address(&self, address: Ipv6Addr) -> bool {
        self.engine.ipv6_addresses().iter().any(|(ours, _)| *ours == address)
    }

    /// The address that was made of `prefix`.
    fn address_in(&self, prefix: Ipv6Addr) -> Option<Ipv6Addr> {
        let addresses = self.engine.ipv6_addresses();
        let found = addresses.iter().find(|(ours, _)| crate::ipv6::is_in(*ours, prefix, 64));
        found.map(|(ours, _)| *ours)
    }
}
