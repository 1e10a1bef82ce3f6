//! What the adversary says over IPv6.

use super::{H_MAC, OTHERS, PORTS, Segment, World, mac_of};
use crate::Input;
use crate::frames::{self, Ip6, Ipv6, Mac};
use core::time::Duration;
use fata_tcpip::{FrameChecksum, Ipv6Config};
use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

const fn address(a: u16, b: u16, c: u16, last: u16) -> Ipv6 {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last).octets()
}

/// H's, if it is given one.
const H6: Ipv6 = address(0x2001, 0xdb8, 0, 1);
const ALL_NODES: Ipv6 = address(0xff02, 0, 0, 1);
const UNSPECIFIED: Ipv6 = [0; 16];

/// [`OTHERS`] over IPv6. The router and one neighbour are known by their link-local addresses.
const OTHERS_6: [Ipv6; OTHERS.len()] = [
    address(0xfe80, 0, 0, 2),
    address(0x2001, 0xdb8, 0, 3),
    address(0x2001, 0xdb8, 0, 4),
    address(0xfe80, 0, 0, 0xfe),
    address(0x2001, 0xdb8, 9, 7),
];
const ROUTER: usize = 3;

/// Addresses of H's that the adversary remembers.
const OWN_MAX: usize = 12;

const ECHO_REQUEST: u8 = 128;
const MLD_QUERY: u8 = 130;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;
/// A Router Alert and padding, of which a header of hop-by-hop options is full (RFC 2711).
const ROUTER_ALERT: &[u8] = &[5, 2, 0, 0, 1, 0];
/// Padding of which a header of options is full.
const PADDING: &[u8] = &[1, 4, 0, 0, 0, 0];

/// Steps of [`World::step_6`].
pub(super) const KINDS: usize = 18;
const SYN: usize = 0;
const DATAGRAM: usize = 2;
const ECHO_OR_ERROR: usize = 3;
const PIECE: usize = 5;
const SOLICITATION: usize = 7;
const ADVERTISEMENT: usize = 8;
const ROUTER_SAYS: usize = 10;
const GROUP: usize = 12;
const CHAIN: usize = 13;
const ANYTHING: usize = 14;
const CALL: usize = 15;
const WAIT: usize = 17;

/// How H speaks IPv6, by the script's first byte.
pub(super) fn config(which: u8) -> Ipv6Config {
    let is_autoconfigured = which & 4 == 0;
    let addresses = if which & 8 == 0 { vec![(H6.into(), 64)] } else { Vec::new() };
    Ipv6Config { is_autoconfigured, addresses, ..Ipv6Config::default() }
}

/// A packet's header from `other` to H.
pub(super) const fn from(other: usize, local: Ipv6, protocol: u8) -> Ip6<'static> {
    Ip6::new(OTHERS_6[other], local, protocol)
}

fn slice(frame: &[u8], at: usize) -> Option<Ipv6> {
    frame.get(at..at + 16)?.try_into().ok()
}

/// Which of the others a packet of H's is for, and its source.
pub(super) fn ends(frame: &[u8]) -> (Option<usize>, Option<Ipv6>) {
    let to = slice(frame, 38);
    (OTHERS_6.iter().position(|other| to == Some(*other)), slice(frame, 22))
}

/// Who solicits, and whom, if that is what a frame is.
fn solicits(frame: &[u8]) -> Option<(Ipv6, Ipv6)> {
    let parts = frames::parts(frame).filter(|parts| !parts.is_ipv4 && !parts.is_fragment)?;
    let kind = frame.get(parts.transport)?;
    let is_solicitation = (parts.protocol, *kind) == (frames::ICMPV6, NEIGHBOUR_SOLICITATION);
    is_solicitation.then_some((slice(frame, 22)?, slice(frame, parts.transport + 8)?))
}

/// Who solicits, and whom, to send a packet there.
pub(super) fn asks_for(frame: &[u8]) -> Option<(Ipv6, Ipv6)> {
    solicits(frame).filter(|(source, _)| *source != UNSPECIFIED)
}

/// An option of Neighbour Discovery with a hardware address.
fn link_layer(option: u8, mac: Mac) -> Vec<u8> {
    [&[option, 1][..], &mac].concat()
}

impl World {
    /// Two others solicit H, so that it knows where they are.
    pub(super) fn greet_6(&mut self) {
        for (other, address) in OTHERS_6.into_iter().enumerate().take(2) {
            for target in self.own.clone() {
                let body = [&target[..], &link_layer(OPTION_SOURCE, mac_of(other))].concat();
                let message = frames::icmp(NEIGHBOUR_SOLICITATION, 0, [0; 4], &body);
                let group = frames::solicited_node(target);
                self.discovery(other, (address, group), &message);
            }
        }
    }

    /// Learns the addresses that H asks for because it wants to have them (RFC 4862 §5.4.2).
    pub(super) fn look_at_6(&mut self, frame: &[u8]) {
        let Some((UNSPECIFIED, target)) = solicits(frame) else { return };
        if !self.own.contains(&target) {
            self.own.truncate(OWN_MAX - 1);
            self.own.push(target);
        }
    }

    /// A neighbour that H asks for says where it is.
    pub(super) fn answer_6(&mut self, asker: Ipv6, target: Ipv6) {
        let who = OTHERS_6[..=ROUTER].iter().position(|other| *other == target);
        let Some(other) = who.filter(|_| self.answers) else { return };
        let flags = if other == ROUTER { 0xe0 } else { 0x60 };
        let body = [&target[..], &link_layer(OPTION_TARGET, mac_of(other))].concat();
        let message = frames::icmp(NEIGHBOUR_ADVERTISEMENT, 0, [flags, 0, 0, 0], &body);
        self.discovery(other, (target, asker), &message);
    }

    /// A message of Neighbour Discovery from `other`, as it should be.
    fn discovery(&mut self, other: usize, (source, destination): (Ipv6, Ipv6), message: &[u8]) {
        let ip = Ip6 { hop_limit: 255, ..Ip6::new(source, destination, frames::ICMPV6) };
        self.receive_6(other, &ip, message);
    }

    fn receive_6(&mut self, other: usize, ip: &Ip6<'_>, payload: &[u8]) {
        let to = if ip.destination[0] == 0xff { frames::group_mac(ip.destination) } else { H_MAC };
        let packet = ip.packet(payload);
        let mut frame = frames::ethernet(to, mac_of(other), frames::TYPE_IPV6, &packet);
        frames::repair(&mut frame);
        self.receive(&frame);
    }

    /// One of H's addresses.
    fn own(&self, input: &mut Input<'_>) -> Ipv6 {
        let at = input.below(self.own.len().clamp(1, 256));
        self.own.get(at).copied().unwrap_or(H6)
    }

    pub(super) fn step_6(&mut self, input: &mut Input<'_>, kind: usize) {
        match kind {
            SYN..DATAGRAM => {
                let local = self.own(input);
                self.syn_to(input, Some(local));
            }
            DATAGRAM => self.datagram_6(input),
            ECHO_OR_ERROR..PIECE => self.echo_or_error_6(input),
            PIECE..SOLICITATION => self.piece(input),
            SOLICITATION => self.solicitation(input),
            ADVERTISEMENT..ROUTER_SAYS => self.advertisement(input),
            ROUTER_SAYS..GROUP => self.router_says(input),
            GROUP => self.group(input),
            CHAIN => self.chain(input),
            ANYTHING => self.anything_6(input),
            CALL..WAIT => self.call_6(input),
            _ => self.wait(Duration::from_secs(input.u8().into())),
        }
    }

    fn datagram_6(&mut self, input: &mut Input<'_>) {
        let other = input.below(OTHERS_6.len());
        let own = self.own(input);
        let loopback = Ipv6Addr::LOCALHOST.octets();
        let destination = [own, ALL_NODES, frames::solicited_node(own), loopback][input.below(4)];
        let port = PORTS[input.below(PORTS.len())];
        let payload = vec![input.u8(); input.len(9000)];
        let ip = from(other, destination, frames::UDP);
        self.receive_6(other, &ip, &frames::udp(9, port, &payload));
    }

    /// An echo request, or an error about what H has sent.
    fn echo_or_error_6(&mut self, input: &mut Input<'_>) {
        let other = input.below(OTHERS_6.len());
        let is_ipv6 = |frame: &&Vec<u8>| frame[12..14] == frames::TYPE_IPV6.to_be_bytes();
        let about: Vec<_> = self.sent.iter().filter(is_ipv6).collect();
        if input.below(4) == 0 || about.is_empty() {
            let own = self.own(input);
            let destination = if input.below(4) == 3 { ALL_NODES } else { own };
            let message = frames::icmp(ECHO_REQUEST, 0, [1, 2, 3, 4], &vec![7; input.len(9000)]);
            return self.receive_6(other, &from(other, destination, frames::ICMPV6), &message);
        }
        // The latest first.
        let about = about[about.len() - 1 - input.below(about.len())];
        let local = slice(about, 22).unwrap_or(H6);
        let mut quote = about[14..about.len().min(14 + 40 + usize::from(input.u8()))].to_vec();
        if input.flag() {
            let at = input.below(quote.len().min(256));
            quote[at] = input.u8();
        }
        let kind = [1, 1, 2, 2, 3, 4, 100][input.below(7)];
        let word = match input.below(4) {
            0 => 1280,
            1 => 1300,
            2 => u32::from(input.u16()),
            _ => input.u32(),
        };
        let message = frames::icmp(kind, input.u8() % 8, word.to_be_bytes(), &quote);
        self.receive_6(other, &from(other, local, frames::ICMPV6), &message);
    }

    /// A piece of a datagram, whose sum is right if the others are of the same.
    fn piece(&mut self, input: &mut Input<'_>) {
        let (other, own) = (input.below(3), self.own(input));
        let protocol = [frames::UDP, frames::ICMPV6, frames::TCP][input.below(3)];
        let body = vec![7; input.len(4000)];
        let message = match protocol {
            frames::UDP => frames::udp(9, PORTS[1], &body),
            frames::ICMPV6 => frames::icmp(ECHO_REQUEST, 0, [1, 2, 3, 4], &body),
            _ => {
                let (source, destination, payload) = (9, PORTS[0], &body[..]);
                Segment { source, destination, payload, ..Segment::default() }.bytes()
            }
        };
        let whole = super::frame_to(other, Some(own), protocol, &message);
        let message = &whole[frames::ETHERNET_BYTES + 40..];
        let count = 1 + input.below(4);
        let size = message.len().div_ceil(count).next_multiple_of(8);
        let start = (input.below(4).min(count - 1) * size).min(message.len());
        let end = (start + size).min(message.len());
        let mut field = start as u16 | u16::from(end < message.len());
        match input.below(8) {
            6 => field ^= 8,
            7 => field = input.u16(),
            _ => {}
        }
        let fragment = [&field.to_be_bytes()[..], &[0, 0, 0, input.u8() % 4]].concat();
        let extensions: [(u8, &[u8]); 2] =
            [(frames::DESTINATION_OPTIONS, PADDING), (frames::FRAGMENT, &fragment)];
        let first = usize::from(input.below(4) != 3);
        let ip = Ip6 { extensions: &extensions[first..], ..from(other, own, protocol) };
        self.receive_6(other, &ip, &message[start..end]);
    }

    /// The options of a message about neighbours.
    fn options(input: &mut Input<'_>, option: u8, other: usize) -> Vec<u8> {
        match input.below(8) {
            7 => input.blob().to_vec(),
            6 => link_layer(3 - option, mac_of(other)),
            5 => link_layer(option, [3; 6]),
            4 => link_layer(option, [2; 6]),
            3 => Vec::new(),
            _ => link_layer(option, mac_of(other)),
        }
    }

    /// Neighbour Discovery from `source`, with a hop limit or a code that is wrong now and then.
    fn nearly_discovery(
        &mut self,
        input: &mut Input<'_>,
        other: usize,
        ends: (Ipv6, Ipv6),
        mut message: Vec<u8>,
    ) {
        let hop_limit = if input.below(16) == 15 { input.u8() } else { 255 };
        message[1] = u8::from(input.below(16) == 15);
        let ip = Ip6 { hop_limit, ..Ip6::new(ends.0, ends.1, frames::ICMPV6) };
        self.receive_6(other, &ip, &message);
    }

    fn solicitation(&mut self, input: &mut Input<'_>) {
        let other = input.below(OTHERS_6.len());
        let own = self.own(input);
        let target = match input.below(8) {
            6 => OTHERS_6[other],
            7 => address(0xfe80, 0, 0, input.u8().into()),
            _ => own,
        };
        let is_probe = input.below(4) == 3;
        let source = if is_probe { UNSPECIFIED } else { OTHERS_6[other] };
        let destination = [frames::solicited_node(target), own, ALL_NODES][input.below(3)];
        let options = if is_probe && input.below(4) < 3 {
            Vec::new()
        } else {
            Self::options(input, OPTION_SOURCE, other)
        };
        let body = [&target[..], &options].concat();
        let message = frames::icmp(NEIGHBOUR_SOLICITATION, 0, [0; 4], &body);
        self.nearly_discovery(input, other, (source, destination), message);
    }

    fn advertisement(&mut self, input: &mut Input<'_>) {
        let other = input.below(OTHERS_6.len());
        let own = self.own(input);
        let target = match input.below(8) {
            6 => own,
            7 => address(0xfe80, 0, 0, input.u8().into()),
            _ => OTHERS_6[other],
        };
        let destination = if input.below(4) == 3 { ALL_NODES } else { own };
        let body = [&target[..], &Self::options(input, OPTION_TARGET, other)].concat();
        let message = frames::icmp(NEIGHBOUR_ADVERTISEMENT, 0, [input.u8(), 0, 0, 0], &body);
        self.nearly_discovery(input, other, (OTHERS_6[other], destination), message);
    }

    fn router_says(&mut self, input: &mut Input<'_>) {
        let (other, router) = match input.below(8) {
            7 => (0, address(0xfe80, 0, 0, input.u8().into())),
            6 => (1, OTHERS_6[1]),
            5 => (0, OTHERS_6[0]),
            _ => (ROUTER, OTHERS_6[ROUTER]),
        };
        let seconds = |input: &mut Input<'_>| match input.below(8) {
            5 => input.u32(),
            6 => u32::MAX,
            7 => 0,
            _ => u32::from(input.u16()),
        };
        let [_, _, high, low] = seconds(input).to_be_bytes();
        let word = [input.u8(), input.u8(), high, low];
        let mut body = Vec::new();
        for _ in 0..2 {
            let milliseconds = if input.below(8) == 7 { input.u32() } else { input.u8().into() };
            body.extend(milliseconds.to_be_bytes());
        }
        let which = input.u8();
        if which & 1 == 0 {
            body.extend(link_layer(OPTION_SOURCE, mac_of(other)));
        }
        if which & 2 != 0 {
            let mtu = [1280, 1300, 1500, u32::from(input.u16())][input.below(4)];
            body.extend([5, 1, 0, 0]);
            body.extend(mtu.to_be_bytes());
        }
        for _ in 0..which >> 2 & 3 {
            let prefix_len = if input.below(8) == 7 { input.u8() } else { 64 };
            let flags = if input.below(4) == 3 { input.u8() } else { 0xc0 };
            body.extend([3, 4, prefix_len, flags]);
            body.extend(seconds(input).to_be_bytes());
            body.extend(seconds(input).to_be_bytes());
            body.extend([0; 4]);
            let prefix = address(0x2001, 0xdb8, u16::from(input.u8() % 12), 0);
            body.extend(if input.below(16) == 15 { OTHERS_6[0] } else { prefix });
        }
        if which & 16 != 0 {
            body.extend([25, 3, 0, 0]);
            body.extend(seconds(input).to_be_bytes());
            body.extend(address(0x2001, 0xdb8, 0, input.u8().into()));
        }
        if which & 32 != 0 {
            body.extend(input.blob());
        }
        let destination = if input.flag() { self.own(input) } else { ALL_NODES };
        let message = frames::icmp(ROUTER_ADVERTISEMENT, 0, word, &body);
        self.nearly_discovery(input, other, (router, destination), message);
    }

    /// What is for groups: a query, a solicitation of routers, a redirect.
    fn group(&mut self, input: &mut Input<'_>) {
        let other = if input.below(4) == 3 { 1 } else { ROUTER };
        let own = self.own(input);
        match input.below(3) {
            0 => {
                let [high, low] = input.u16().to_be_bytes();
                let group = if input.flag() { frames::solicited_node(own) } else { UNSPECIFIED };
                let body = [&group[..], &[0; 4][..input.below(5)]].concat();
                let extensions: [(u8, &[u8]); 1] = [(frames::HOP_BY_HOP, ROUTER_ALERT)];
                let ip = Ip6 {
                    hop_limit: 1,
                    extensions: &extensions,
                    ..from(other, ALL_NODES, frames::ICMPV6)
                };
                self.receive_6(other, &ip, &frames::icmp(MLD_QUERY, 0, [high, low, 0, 0], &body));
            }
            1 => {
                let body = Self::options(input, OPTION_SOURCE, other);
                let message = frames::icmp(ROUTER_SOLICITATION, 0, [0; 4], &body);
                self.nearly_discovery(input, other, (OTHERS_6[other], own), message);
            }
            _ => {
                let body = [&OTHERS_6[0][..], &OTHERS_6[4]].concat();
                let message = frames::icmp(REDIRECT, 0, [0; 4], &body);
                self.nearly_discovery(input, other, (OTHERS_6[other], own), message);
            }
        }
    }

    /// Extension headers, and something ordinary or unknown behind them.
    fn chain(&mut self, input: &mut Input<'_>) {
        let (other, own) = (input.below(OTHERS_6.len()), self.own(input));
        let count = input.below(11);
        let mut bodies = Vec::new();
        for at in 0..count {
            let kind = match input.below(8) {
                7 => input.u8(),
                6 => frames::FRAGMENT,
                5 => frames::ROUTING,
                4 => frames::HOP_BY_HOP,
                _ if at == 0 => frames::HOP_BY_HOP,
                _ => frames::DESTINATION_OPTIONS,
            };
            let body = match input.below(8) {
                7 => input.bytes(32).to_vec(),
                6 => vec![1, 0, input.u8(), 2, 0, 0],
                5 => vec![input.u8(), 2, 0, 0, 1, 0],
                _ if kind == frames::FRAGMENT || kind == frames::ROUTING => vec![0; 6],
                _ => PADDING.to_vec(),
            };
            bodies.push((kind, body));
        }
        let extensions: Vec<_> = bodies.iter().map(|(kind, body)| (*kind, &body[..])).collect();
        let (protocol, message) = match input.below(8) {
            7 => (input.u8(), input.bytes(24).to_vec()),
            6 => (59, vec![0; 8]),
            5 => (200, vec![0; 8]),
            3 | 4 => (frames::UDP, frames::udp(9, PORTS[input.below(PORTS.len())], b"udp")),
            _ => (frames::ICMPV6, frames::icmp(ECHO_REQUEST, 0, [1, 2, 3, 4], b"echo")),
        };
        let destination = if input.below(4) == 3 { ALL_NODES } else { own };
        let ip = Ip6 { extensions: &extensions, ..from(other, destination, protocol) };
        self.receive_6(other, &ip, &message);
    }

    /// Any bytes behind a header.
    fn anything_6(&mut self, input: &mut Input<'_>) {
        let own = self.own(input);
        let menu = [
            frames::HOP_BY_HOP,
            frames::ROUTING,
            frames::FRAGMENT,
            frames::DESTINATION_OPTIONS,
            frames::ICMPV6,
            frames::TCP,
            frames::UDP,
        ];
        let which = input.below(menu.len() + 1);
        let protocol = menu.get(which).copied().unwrap_or_else(|| input.u8());
        let hop_limit = if input.flag() { 255 } else { 1 };
        let packet = Ip6 { hop_limit, ..from(0, own, protocol) }.packet(input.blob());
        let mut frame = frames::ethernet(H_MAC, mac_of(0), frames::TYPE_IPV6, &packet);
        frames::repair(&mut frame);
        let checksums = [FrameChecksum::Unverified, FrameChecksum::Verified, FrameChecksum::Blank];
        let checksum = checksums[input.below(3)];
        self.receive_as(&frame, checksum, NonZeroU16::new(u16::from(input.u8())));
    }

    /// The program calls, or sends a datagram.
    fn call_6(&mut self, input: &mut Input<'_>) {
        let own = self.own(input);
        let to = match input.below(8) {
            5 => Ipv6Addr::LOCALHOST.octets(),
            6 => own,
            7 => address(0x2001, 0xdb8, 0, input.u8().into()),
            other => OTHERS_6[other],
        };
        if input.flag() {
            let remote = SocketAddr::from((to, PORTS[input.below(2) * 3]));
            self.connections.extend(self.engine.tcp_connect(self.now, remote));
        } else if let Some(socket) = self.sockets.first() {
            let payload = vec![3; input.len(65_535)];
            let to = SocketAddr::from((to, PORTS[input.below(2)]));
            let _ = self.engine.udp_send(self.now, *socket, to, &payload);
        }
    }

    /// Whatever came: each address that H still has is one that it answers for, and at.
    pub(super) fn end_6(&mut self) {
        let (stranger, mac) = (address(0xfe80, 0, 0, 200), [2, 0, 0, 0, 0, 200]);
        for (own, _) in self.engine.ipv6_addresses() {
            let own = own.octets();
            let to_h = |destination: Ipv6, message: &[u8]| {
                let ip = Ip6::new(stranger, destination, frames::ICMPV6);
                let packet = Ip6 { hop_limit: 255, ..ip }.packet(message);
                let to = if destination == own { H_MAC } else { frames::group_mac(destination) };
                let mut frame = frames::ethernet(to, mac, frames::TYPE_IPV6, &packet);
                frames::repair(&mut frame);
                frame
            };
            self.sent.clear();
            let body = [&own[..], &link_layer(OPTION_SOURCE, mac)].concat();
            let question = frames::icmp(NEIGHBOUR_SOLICITATION, 0, [0; 4], &body);
            self.receive(&to_h(frames::solicited_node(own), &question));
            self.receive(&to_h(own, &frames::icmp(ECHO_REQUEST, 0, [0; 4], b"?")));
            for kind in [NEIGHBOUR_ADVERTISEMENT, ECHO_REQUEST + 1] {
                let is_reply = |frame: &Vec<u8>| {
                    slice(frame, 22) == Some(own)
                        && slice(frame, 38) == Some(stranger)
                        && frame.get(54) == Some(&kind)
                };
                assert!(self.sent.iter().any(is_reply), "H does not answer with {kind} any more");
            }
        }
    }
}

/// The number of a step over IPv6.
const fn step(kind: usize) -> u8 {
    (super::KINDS + kind) as u8
}

/// H with all there is, on an ordinary device.
const BEGIN: &[u8] = &[2, 0, 0, 0];

/// A router that advertises itself, an MTU, a prefix and a name server, for long.
const ADVERTISED: &[u8] = &[
    step(ROUTER_SAYS),
    0,
    0,
    0x08,
    0x07,
    64,
    0,
    0,
    0,
    0,
    0,
    0x16,
    0,
    0,
    1, // MTU
    0,
    0,
    6,
    6,
    5,
    0, // prefix
    6,
    53, // name server
    0,
    0,
    0,
];

/// Scripts to begin with, one for each thing that hosts say over IPv6: its name, what comes after
/// [`BEGIN`], and the counters that it moves.
type Seed = (&'static str, &'static [&'static [u8]], &'static [&'static str]);
const SEEDS: &[Seed] = &[
    ("solicitation", &[&[step(SOLICITATION), 0, 1]], &["ndp_advertisements_sent"]),
    ("probe", &[&[step(SOLICITATION), 0, 1, 0, 3, 0, 0]], &["ndp_advertisements_sent"]),
    (
        "solicitation_through_a_router",
        &[&[step(SOLICITATION), 0, 1, 0, 0, 0, 0, 15, 64]],
        &["dropped_ndp_invalid"],
    ),
    (
        "advertisement_of_an_address_of_ours",
        &[&[step(ADVERTISEMENT), 0, 1, 6, 0, 0, 0x20]],
        &["ndp_conflicts"],
    ),
    (
        "advertisement_of_an_address_that_is_tentative",
        &[ADVERTISED, &[14, 125], &[step(ADVERTISEMENT), 0, 2, 6, 3, 0, 0x20]],
        &["ndp_duplicates"],
    ),
    (
        "router",
        &[ADVERTISED],
        &["ndp_router_advertisements", "ipv6_routers", "ipv6_prefixes", "ipv6_addresses"],
    ),
    (
        "router_with_more_prefixes_than_there_is_room_for",
        &[
            &[step(ROUTER_SAYS), 0, 0, 0x08, 0x07, 64, 0, 0, 0, 0, 0, 12],
            &[0, 0, 6, 6, 5, 0],
            &[0, 0, 6, 6, 6, 0],
            &[0, 0, 6, 6, 7, 0],
        ],
        &["dropped_ra_limit"],
    ),
    ("query", &[&[step(GROUP), 0, 0, 0, 0xe8, 3, 0, 4]], &["mld_reports_sent"]),
    ("redirect", &[&[step(GROUP), 0, 1, 2]], &["dropped_ndp_redirect"]),
    (
        "neighbour_that_is_silent",
        &[&[16, 1], &[step(CALL), 1, 2, 1, 0], &[step(WAIT), 10]],
        &["ndp_solicitations_sent", "neighbour_failures"],
    ),
    ("echo", &[&[step(ECHO_OR_ERROR), 1, 0, 1, 0, 50]], &["icmp_echo_replies_sent"]),
    ("echo_behind_extension_headers", &[&[step(CHAIN), 1, 1, 2]], &["icmp_echo_replies_sent"]),
    (
        "more_extension_headers_than_anybody_needs",
        &[&[step(CHAIN), 1, 1, 10]],
        &["dropped_ipv6_extension_limit"],
    ),
    (
        "option_that_is_not_known",
        &[&[step(CHAIN), 1, 1, 1, 0, 6, 0x9e]],
        &["dropped_ipv6_header", "icmp_errors_sent"],
    ),
    (
        "routing_header_with_segments_left",
        &[&[step(CHAIN), 1, 1, 1, 5, 5, 0]],
        &["dropped_ipv6_header", "icmp_errors_sent"],
    ),
    ("protocol_that_is_not_known", &[&[step(CHAIN), 1, 1, 0, 5]], &["icmp_errors_sent"]),
    (
        "echo_in_two_pieces",
        &[&[step(PIECE), 1, 1, 1, 200, 1, 0, 0, 1, 0], &[step(PIECE), 1, 1, 1, 200, 1, 1, 0, 1, 0]],
        &["datagrams_reassembled", "icmp_echo_replies_sent", "fragments_sent"],
    ),
    (
        "pieces_that_overlap",
        &[&[step(PIECE), 1, 1, 1, 200, 1, 0, 0, 1, 0], &[step(PIECE), 1, 1, 1, 200, 1, 0, 6, 1, 0]],
        &["dropped_fragment_overlap"],
    ),
    (
        "piece_without_the_others",
        &[&[step(PIECE), 1, 1, 0, 200, 1, 0, 0, 1, 0], &[step(WAIT), 200]],
        &["reassembly_timeouts", "icmp_errors_sent"],
    ),
    ("datagram", &[&[step(DATAGRAM), 1, 1, 0, 1, 5, 100]], &["udp_received"]),
    (
        "datagram_to_a_port_without_a_socket",
        &[&[step(DATAGRAM), 1, 1, 0, 3, 5, 100]],
        &["dropped_udp_no_port", "icmp_errors_sent"],
    ),
    (
        "datagram_to_the_loopback_address",
        &[&[step(DATAGRAM), 1, 1, 3, 1, 5, 100]],
        &["dropped_ipv6_martian"],
    ),
    (
        "unreachable",
        &[&[step(CALL), 1, 1, 0, 50, 0], &[step(ECHO_OR_ERROR), 1, 1, 0, 100, 0, 0, 0, 4]],
        &["udp_sent", "icmp_errors_received"],
    ),
    (
        "packet_too_big",
        &[&[step(CALL), 1, 1, 1, 0], &[step(ECHO_OR_ERROR), 1, 1, 0, 100, 0, 2, 0, 0]],
        &["icmp_errors_received", "path_mtu_lowered"],
    ),
    (
        "connection_from_a_client",
        &[
            &[step(SYN), 1, 1, 15, 0xa0, 5, 7, 0, 0, 1, 2, 3, 4, 0, 16],
            &[0, 0, 0, 8, 8, 0, 0, 8, 5, 100, 0, 0],
            &[19, 2],
        ],
        &["tcp_opened_passive"],
    ),
    (
        "connection_to_a_server",
        &[&[step(CALL), 1, 1, 1, 0], &[0, 0, 4, 8, 8, 0, 0, 8]],
        &["tcp_opened_active"],
    ),
    ("connection_to_ourselves", &[&[step(CALL), 1, 5, 1, 0]], &["loopback_packets"]),
];

fn script(seed: &Seed) -> Vec<u8> {
    [BEGIN, &seed.1.concat()].concat()
}

/// Scripts to begin with.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    SEEDS.iter().map(|seed| (format!("ipv6_{}", seed.0), script(seed))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::engine::play;
    use std::collections::HashMap;

    #[test]
    fn each_script_reaches_what_it_is_for() {
        let count =
            |bytes: &[u8]| -> HashMap<_, _> { play(&mut Input::new(bytes)).iter().collect() };
        let before = count(BEGIN);
        let mut failed = Vec::new();
        for seed in SEEDS {
            let after = count(&script(seed));
            let still = seed.2.iter().filter(|name| after[*name] <= before[*name]);
            failed.extend(still.map(|name| format!("{} does not move {name}", seed.0)));
        }
        assert!(failed.is_empty(), "{failed:#?}");
    }
}
