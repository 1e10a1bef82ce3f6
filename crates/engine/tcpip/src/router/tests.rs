//! A router with two subnets, 10.1.0.0/24 and 10.2.0.0/24, seen from its links.

use super::*;
use crate::wire::icmpv4;
use crate::wire::ipv4::{Header, PROTOCOL_ICMP, PROTOCOL_UDP, Packet};
use crate::wire::udp;
use core::time::Duration;
use proptest::prelude::*;

const ROUTER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 2, 0, 1)];
const HOST: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 2, 0, 2)];
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const ROUTER_MAC: [MacAddress; 2] =
    [MacAddress([2, 0, 0, 0, 1, 1]), MacAddress([2, 0, 0, 0, 2, 1])];
const HOST_MAC: [MacAddress; 2] = [MacAddress([2, 0, 0, 0, 1, 2]), MacAddress([2, 0, 0, 0, 2, 2])];

struct World {
    router: Router,
    now: Instant,
}

fn port(which: usize) -> PortConfig {
    PortConfig { mac: ROUTER_MAC[which], mtu: 1500, address: ROUTER[which], prefix_len: 24 }
}

impl World {
    /// A router that knows nobody yet.
    fn new() -> World {
        let now = Instant::from_millis(1000);
        let mut router = Router::new(Limits::default(), [3; 32], now);
        for which in 0..2 {
            assert_eq!(router.attach(port(which)), Ok(which));
        }
        let mut world = World { router, now };
        for which in 0..2 {
            let announced = world.own(which);
            assert_eq!(announced.len(), 1, "its address");
        }
        world
    }

    /// A router that knows the host on each link.
    fn acquainted() -> World {
        let mut world = World::new();
        for which in 0..2 {
            world.receive(which, &arp(which, Operation::Request));
            assert_eq!(world.own(which).len(), 1, "it answers");
        }
        world
    }

    /// Lets the router have a frame; what it passes on is returned, with the port.
    fn receive(&mut self, port: usize, frame: &[u8]) -> Option<(usize, Vec<u8>)> {
        self.receive_with(port, frame, Undone::default())
    }

    fn receive_with(
        &mut self,
        port: usize,
        frame: &[u8],
        undone: Undone,
    ) -> Option<(usize, Vec<u8>)> {
        let mut frame = frame.to_vec();
        match self.router.handle_frame(self.now, port, &mut frame, undone) {
            Verdict::Consumed => None,
            Verdict::Forward { port, len } => {
                frame.truncate(len);
                Some((port, frame))
            }
        }
    }

    /// The frames of its own that the router has for a port.
    fn own(&mut self, port: usize) -> Vec<OwnFrame> {
        core::iter::from_fn(|| self.router.poll_frame(port)).collect()
    }

    /// The only frame of its own for a port, an ICMP message: kind, code, word and body.
    fn icmp(&mut self, port: usize) -> (u8, u8, [u8; 4], Vec<u8>) {
        let own = self.own(port);
        let [frame] = &own[..] else { panic!("{} frames", own.len()) };
        assert_eq!(frame.bytes[..6], HOST_MAC[port].0);
        let packet = Packet::parse(&frame.bytes[14..]).unwrap();
        assert!(packet.checksum_is_valid());
        assert_eq!((packet.source(), packet.destination()), (ROUTER[port], HOST[port]));
        let message = icmpv4::Message::parse(packet.payload()).unwrap();
        assert!(message.checksum_is_valid());
        (message.kind, message.code, message.word, message.body.to_vec())
    }

    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(deadline) = self.router.poll_timeout().filter(|&deadline| deadline <= end) {
            self.now = self.now.max(deadline);
            self.router.handle_timeout(self.now);
            assert!(self.router.poll_timeout().is_none_or(|next| next > self.now));
        }
        self.now = end;
    }
}

fn arp(which: usize, operation: Operation) -> Vec<u8> {
    let packet = arp::Packet {
        operation,
        sender_mac: HOST_MAC[which],
        sender: HOST[which],
        target_mac: ROUTER_MAC[which],
        target: ROUTER[which],
    };
    let mut frame =
        ethernet::header(MacAddress::BROADCAST, HOST_MAC[which], ethernet::TYPE_ARP).to_vec();
    frame.extend(packet.to_bytes());
    frame
}

/// A frame of the host on link `which`.
fn ip(which: usize, header: Header, payload: &[u8]) -> Vec<u8> {
    let mut frame =
        ethernet::header(ROUTER_MAC[which], HOST_MAC[which], ethernet::TYPE_IPV4).to_vec();
    frame.extend(header.to_bytes(payload.len()));
    frame.extend(payload);
    frame
}

fn header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Header {
    Header {
        source,
        destination,
        protocol,
        time_to_live: 64,
        identification: 77,
        dont_fragment: false,
    }
}

fn datagram(source: Ipv4Addr, destination: Ipv4Addr, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|at| (at / 5) as u8).collect();
    udp::to_bytes((source, 9), (destination, 33434), &payload)
}

/// A datagram from the host on link 0.
fn to(destination: Ipv4Addr, len: usize) -> Vec<u8> {
    let header = header(HOST[0], destination, PROTOCOL_UDP);
    ip(0, header, &datagram(HOST[0], destination, len))
}

#[test]
fn a_packet_is_passed_on_with_one_less_to_live() {
    let mut world = World::acquainted();
    let mut frame = to(HOST[1], 5);
    let len = frame.len();
    frame.extend([0; 13]);
    let (port, out) = world.receive(0, &frame).unwrap();
    assert_eq!((port, out.len()), (1, len), "the padding stays behind");
    assert_eq!((&out[..6], &out[6..12]), (&HOST_MAC[1].0[..], &ROUTER_MAC[1].0[..]));
    let packet = Packet::parse(&out[14..]).unwrap();
    assert!(packet.checksum_is_valid());
    assert_eq!(packet.header()[8], 63);
    assert_eq!((packet.source(), packet.destination()), (HOST[0], HOST[1]));
    assert_eq!(packet.payload(), &frame[34..len]);
    assert!(world.own(0).is_empty() && world.own(1).is_empty());
    assert_eq!(world.router.counters().forwarded_packets, 1);
}

#[test]
fn a_packet_waits_for_its_neighbour() {
    let mut world = World::new();
    let undone = Undone { is_checksum_blank: true, mss: None };
    assert_eq!(world.receive_with(0, &to(HOST[1], 100), undone), None);
    let asked = world.own(1);
    assert_eq!(asked.len(), 1);
    let request = arp::Packet::parse(&asked[0].bytes[14..]).unwrap();
    assert_eq!((request.operation, request.target), (Operation::Request, HOST[1]));
    assert_eq!((request.sender, request.sender_mac), (ROUTER[1], ROUTER_MAC[1]));
    world.receive(1, &arp(1, Operation::Reply));
    let sent = world.own(1);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].bytes[..6], HOST_MAC[1].0);
    assert_eq!(sent[0].undone, undone, "what was undone is still");
    assert_eq!(world.router.counters().forwarded_packets, 1);
    assert!(world.receive(0, &to(HOST[1], 100)).is_some(), "the next one does not");
}

#[test]
fn a_neighbour_that_does_not_answer_is_told_of() {
    let mut world = World::new();
    world.receive(0, &arp(0, Operation::Request));
    world.own(0);
    let frame = to(HOST[1], 100);
    world.receive(0, &frame);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.own(1).len(), 3, "asked three times");
    let (kind, code, _, body) = world.icmp(0);
    assert_eq!((kind, code), (3, 1));
    assert_eq!(body[12..], frame[26..], "quoted, as it was passed on");
    assert_eq!(world.router.counters().neighbour_failures, 1);
}

#[test]
fn a_packet_at_the_end_of_its_life_is_answered() {
    let mut world = World::acquainted();
    for time_to_live in [0, 1] {
        let header = Header { time_to_live, ..header(HOST[0], HOST[1], PROTOCOL_UDP) };
        let frame = ip(0, header, &datagram(HOST[0], HOST[1], 20));
        assert_eq!(world.receive(0, &frame), None);
        let (kind, code, _, body) = world.icmp(0);
        assert_eq!((kind, code), (11, 0));
        assert_eq!(body, frame[14..], "quoted as it came");
    }
    assert_eq!(world.router.counters().dropped_forward_ttl, 2);
}

#[test]
fn routes_lead_by_the_longest_prefix() {
    let mut world = World::acquainted();
    assert_eq!(world.receive(0, &to(ELSEWHERE, 10)), None);
    let (kind, code, ..) = world.icmp(0);
    assert_eq!((kind, code), (3, 0));
    assert_eq!(world.router.counters().dropped_forward_no_route, 1);

    let any = Ipv4Addr::UNSPECIFIED;
    world.router.add_route(any, 0, HOST[1]).unwrap();
    assert_eq!(world.receive(0, &to(ELSEWHERE, 10)).unwrap().0, 1);
    // More precise, but its gateway is on no link: it does not count.
    let lost = Ipv4Addr::new(10, 9, 0, 1);
    world.router.add_route(Ipv4Addr::new(192, 0, 2, 0), 25, lost).unwrap();
    assert_eq!(world.receive(0, &to(ELSEWHERE, 10)).unwrap().0, 1);
    world.router.add_route(Ipv4Addr::new(192, 0, 2, 0), 24, HOST[0]).unwrap();
    let (port, frame) = world.receive(0, &to(ELSEWHERE, 10)).unwrap();
    assert_eq!((port, &frame[..6]), (0, &HOST_MAC[0].0[..]), "back to where it came from");
    assert!(world.router.remove_route(Ipv4Addr::new(192, 0, 2, 0), 24));
    assert!(!world.router.remove_route(Ipv4Addr::new(192, 0, 2, 0), 24));
    assert_eq!(world.receive(0, &to(ELSEWHERE, 10)).unwrap().0, 1);

    let refused = |world: &mut World, a, prefix, gateway| {
        world.router.add_route(a, prefix, gateway).unwrap_err().to_string()
    };
    assert!(refused(&mut world, ELSEWHERE, 24, HOST[0]).contains("192.0.2.7/24"));
    assert!(refused(&mut world, ELSEWHERE, 33, HOST[0]).contains("no network"));
    assert!(refused(&mut world, any, 0, ROUTER[0]).contains("gateway"));
    assert!(refused(&mut world, any, 0, Ipv4Addr::LOCALHOST).contains("gateway"));
    for number in 0..routes::ROUTES_MAX as u32 - 2 {
        world.router.add_route(Ipv4Addr::from_bits(number << 8), 24, HOST[1]).unwrap();
    }
    assert_eq!(world.router.add_route(ELSEWHERE, 32, HOST[1]), Err(RouterError::TooManyRoutes));
}

#[test]
fn what_is_too_big_is_cut_or_answered() {
    let mut world = World::new();
    world.router.detach(1);
    assert_eq!(world.router.attach(PortConfig { mtu: 576, ..port(1) }), Ok(1));
    for which in 0..2 {
        world.receive(which, &arp(which, Operation::Request));
        world.own(which);
    }
    let fixed = Header { dont_fragment: true, ..header(HOST[0], HOST[1], PROTOCOL_UDP) };
    let large = datagram(HOST[0], HOST[1], 1400);
    assert_eq!(world.receive(0, &ip(0, fixed, &large)), None);
    let (kind, code, word, _) = world.icmp(0);
    assert_eq!((kind, code, word), (3, 4, [0, 0, 2, 64]));

    assert_eq!(world.receive(0, &to(HOST[1], 1400)), None);
    let mut whole: Vec<u8> = Vec::new();
    for frame in world.own(1) {
        assert!(frame.bytes.len() <= 14 + 576);
        assert_eq!(frame.bytes[..6], HOST_MAC[1].0);
        let packet = Packet::parse(&frame.bytes[14..]).unwrap();
        assert!(packet.checksum_is_valid());
        assert_eq!((packet.identification(), packet.header()[8]), (77, 63));
        assert_eq!(packet.fragment_offset(), whole.len());
        whole.extend(packet.payload());
        assert_eq!(packet.more_fragments(), whole.len() < large.len());
    }
    assert_eq!(whole, large);

    // A fragment is cut further, and keeps its place.
    let mut frame = ip(0, header(HOST[0], HOST[1], PROTOCOL_UDP), &[5; 800]);
    let fragment = header(HOST[0], HOST[1], PROTOCOL_UDP).to_fragment_bytes(800, 8000, true);
    frame[14..34].copy_from_slice(&fragment);
    assert_eq!(world.receive(0, &frame), None);
    let places: Vec<(usize, usize, bool)> = world
        .own(1)
        .iter()
        .map(|frame| {
            let packet = Packet::parse(&frame.bytes[14..]).unwrap();
            (packet.fragment_offset(), packet.payload().len(), packet.more_fragments())
        })
        .collect();
    assert_eq!(places, [(8000, 552, true), (8552, 248, true)]);
    // One that ends beyond the largest datagram is none.
    let beyond = header(HOST[0], HOST[1], PROTOCOL_UDP).to_fragment_bytes(800, 65_528, true);
    frame[14..34].copy_from_slice(&beyond);
    assert_eq!(world.receive(0, &frame), None);
    assert!(world.own(1).is_empty());
    assert_eq!(world.router.counters().dropped_fragment_malformed, 1);
}

#[test]
fn several_segments_in_one_may_be_as_long_as_they_like_if_each_is_short() {
    let mut world = World::acquainted();
    let mut segment = vec![0, 80, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0];
    segment.extend([7; 20_000]);
    let header = Header { dont_fragment: true, ..header(HOST[0], HOST[1], 6) };
    let frame = ip(0, header, &segment);
    let undone = |mss| Undone { is_checksum_blank: true, mss: NonZeroU16::new(mss) };
    let (port, out) = world.receive_with(0, &frame, undone(1460)).unwrap();
    assert_eq!((port, out.len()), (1, frame.len()));
    assert_eq!(world.receive_with(0, &frame, undone(1461)), None);
    let (kind, code, word, _) = world.icmp(0);
    assert_eq!((kind, code, word), (3, 4, [0, 0, 5, 220]));
    let datagram = to(HOST[1], 2000);
    assert_eq!(world.receive_with(0, &datagram, undone(1000)), None, "UDP has no segments");
    assert_eq!(world.router.counters().dropped_ipv4_malformed, 1);
}

#[test]
fn nobody_lies_about_where_he_is() {
    let mut world = World::acquainted();
    let from =
        |source| ip(0, header(source, HOST[1], PROTOCOL_UDP), &datagram(source, HOST[1], 10));
    // Another link's, an unknown one's; with a default route to the other side, too.
    for _ in 0..2 {
        for source in [HOST[1], ELSEWHERE] {
            assert_eq!(world.receive(0, &from(source)), None);
        }
        world.router.add_route(Ipv4Addr::UNSPECIFIED, 0, HOST[1]).unwrap();
    }
    assert_eq!(world.router.counters().dropped_forward_source, 4);
    for source in [
        ROUTER[0],
        ROUTER[1],
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::new(10, 1, 0, 255),
        Ipv4Addr::new(224, 0, 0, 1),
    ] {
        assert_eq!(world.receive(0, &from(source)), None);
    }
    for destination in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::BROADCAST] {
        assert_eq!(world.receive(0, &to(destination, 10)), None);
    }
    assert_eq!(world.router.counters().dropped_ipv4_martian, 9);
    assert_eq!(world.receive(0, &to(Ipv4Addr::new(10, 2, 0, 255), 10)), None, "RFC 2644");
    assert!(world.own(0).is_empty() && world.own(1).is_empty(), "and nobody is answered");
}

#[test]
fn frames_for_others_and_for_all_are_not_passed_on() {
    let mut world = World::acquainted();
    let mut frame = to(HOST[1], 10);
    for destination in [MacAddress::BROADCAST, HOST_MAC[1], MacAddress([1, 0, 0x5e, 0, 0, 1])] {
        frame[..6].copy_from_slice(&destination.0);
        assert_eq!(world.receive(0, &frame), None);
    }
    let mut ipv6 = to(HOST[1], 10);
    ipv6[12..14].copy_from_slice(&[0x86, 0xdd]);
    assert_eq!(world.receive(0, &ipv6), None);
    let counters = world.router.counters();
    assert_eq!((counters.dropped_ipv4_not_ours, counters.dropped_ethernet_address), (2, 1));
    assert_eq!(counters.dropped_ethernet_type, 1);
}

#[test]
fn the_router_itself_answers_pings_and_traceroute() {
    let mut world = World::acquainted();
    // On the other link's address too.
    for (destination, answered) in [(ROUTER[0], true), (ROUTER[1], true)] {
        let ping = icmpv4::to_bytes(icmpv4::ECHO_REQUEST, 0, [1, 2, 3, 4], b"abc");
        world.receive(0, &ip(0, header(HOST[0], destination, PROTOCOL_ICMP), &ping));
        let own = world.own(0);
        assert_eq!(own.len() == 1, answered);
        let packet = Packet::parse(&own[0].bytes[14..]).unwrap();
        assert_eq!((packet.source(), packet.destination()), (destination, HOST[0]));
        let reply = icmpv4::Message::parse(packet.payload()).unwrap();
        assert!(reply.checksum_is_valid());
        assert_eq!((reply.kind, reply.word, reply.body), (0, [1, 2, 3, 4], &b"abc"[..]));
    }
    world.receive(0, &to(ROUTER[0], 10));
    let (kind, code, ..) = world.icmp(0);
    assert_eq!((kind, code), (3, 3));
}

#[test]
fn no_error_is_answered_with_an_error() {
    let mut world = World::acquainted();
    for kind in [3, 4, 5, 11, 12, 200] {
        let message = icmpv4::to_bytes(kind, 0, [0; 4], &[0x45; 28]);
        let header = Header { time_to_live: 1, ..header(HOST[0], HOST[1], PROTOCOL_ICMP) };
        world.receive(0, &ip(0, header, &message));
    }
    let later = header(HOST[0], HOST[1], PROTOCOL_UDP).to_fragment_bytes(16, 800, false);
    let mut frame = to(HOST[1], 8);
    frame[14..34].copy_from_slice(&later);
    frame[22] = 1;
    frame[24..26].fill(0);
    let sum = crate::wire::checksum::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    world.receive(0, &frame);
    assert_eq!(world.router.counters().dropped_forward_ttl, 7);
    assert!(world.own(0).is_empty());
}

#[test]
fn ports_come_and_go() {
    let mut world = World::acquainted();
    let other = |address: [u8; 4], prefix_len| PortConfig {
        address: address.into(),
        prefix_len,
        ..port(0)
    };
    let attach =
        |world: &mut World, address, prefix_len| world.router.attach(other(address, prefix_len));
    assert_eq!(attach(&mut world, [10, 1, 0, 77], 24), Err(RouterError::Overlap(ROUTER[0])));
    assert_eq!(attach(&mut world, [10, 0, 0, 1], 8), Err(RouterError::Overlap(ROUTER[0])));
    let broadcast = attach(&mut world, [10, 3, 0, 255], 24).unwrap_err();
    assert!(broadcast.to_string().contains("10.3.0.255"), "{broadcast}");
    assert!(matches!(
        world.router.attach(PortConfig { mtu: 60, ..other([10, 3, 0, 1], 24) }),
        Err(RouterError::Config(ConfigError::Mtu(60)))
    ));
    assert_eq!(attach(&mut world, [10, 3, 0, 1], 24), Ok(2));
    world.router.detach(1);
    assert_eq!(world.router.port(1), None);
    assert_eq!(world.receive(0, &to(HOST[1], 10)), None, "nobody is there any more");
    let (kind, code, ..) = world.icmp(0);
    assert_eq!((kind, code), (3, 0));
    assert_eq!(world.receive(1, &to(HOST[1], 10)), None);
    assert_eq!(world.router.attach(port(1)), Ok(1), "the number is free");
    for number in 3..PORTS_MAX {
        assert_eq!(attach(&mut world, [10, 100, number as u8, 1], 24), Ok(number));
    }
    assert_eq!(attach(&mut world, [10, 4, 0, 1], 24), Err(RouterError::TooManyPorts));
}

/// A scan of a subnet, and a device that takes nothing: memory and ARP stay within their limits.
#[test]
fn a_scan_costs_what_the_limits_say() {
    let mut world = World::acquainted();
    let limits = Limits::default();
    for round in 0..20 {
        for last in 2..=254 {
            world.receive(0, &to(Ipv4Addr::new(10, 2, 0, last), 1000));
        }
        let counters = world.router.counters();
        assert!(counters.neighbours <= limits.neighbours as u64);
        assert!(counters.neighbour_parked_bytes <= limits.neighbour_parked_bytes as u64);
        assert!(counters.arp_requests_sent <= 2 + 64 * (round + 1) * 2, "{counters:?}");
        world.pass(Duration::from_millis(500));
    }
    for number in 0..10_000u32 {
        world.now = world.now + Duration::from_millis(10);
        world.receive(1, &arp((number % 2) as usize, Operation::Request));
        let ping = icmpv4::to_bytes(icmpv4::ECHO_REQUEST, 0, [0; 4], &[0; 1000]);
        world.receive(1, &ip(1, header(HOST[1], ROUTER[1], PROTOCOL_ICMP), &ping));
    }
    let waiting: usize = world.own(1).iter().map(|frame| frame.bytes.len()).sum();
    assert!((OWN_BYTES_MAX - 2000..=OWN_BYTES_MAX).contains(&waiting), "{waiting}");
    assert!(world.router.counters().dropped_reply_queue > 1000);
}

proptest! {
    /// Whatever arrives, on any port, with whatever is said of it.
    #[test]
    fn nothing_that_arrives_panics(
        frames in proptest::collection::vec((
            proptest::collection::vec(any::<u8>(), 0..100),
            0usize..3, 0u16..200, any::<bool>(), any::<bool>(), any::<bool>(),
        ), 1..20),
    ) {
        let mut world = World::acquainted();
        for (mut bytes, port, mss, is_checksum_blank, is_for_us, is_sound) in frames {
            if is_for_us && bytes.len() > 34 {
                let which = port % 2;
                bytes[..6].copy_from_slice(&ROUTER_MAC[which].0);
                bytes[6..12].copy_from_slice(&HOST_MAC[which].0);
                let is_arp = bytes[14] & 7 == 0;
                bytes[12..14].copy_from_slice(&[8, if is_arp { 6 } else { 0 }]);
                bytes[26..30].copy_from_slice(&HOST[which].octets());
                if is_sound {
                    let len = bytes.len() - 14;
                    let protocol = [1, 6, 17][usize::from(bytes[15]) % 3];
                    let head = Header {
                        time_to_live: bytes[22],
                        ..header(HOST[which], HOST[1 - which], protocol)
                    };
                    bytes[14..34].copy_from_slice(&head.to_bytes(len - 20));
                }
            }
            let undone = Undone { is_checksum_blank, mss: NonZeroU16::new(mss) };
            if let Some((out, frame)) = world.receive_with(port, &bytes, undone) {
                prop_assert!(out < 2 && frame.len() <= bytes.len());
            }
            for port in 0..3 {
                let _ = world.own(port);
            }
            world.pass(Duration::from_secs(1));
        }
    }
}
