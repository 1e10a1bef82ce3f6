//! What the fuzz targets in `fuzz/` need and programs do not: the codecs, which are private, and the
//! engine's invariants.
//!
//! A codec is one function here, and one line in [`CODECS`]: it takes any bytes, and panics if what
//! it read is not what it would write, or if a field lies outside of the bytes.

use crate::config::{Limits, MacAddress};
use crate::engine::Engine;
use crate::icmp::IcmpError;
use crate::wire::{arp, checksum, dhcp, ethernet, icmpv4, icmpv6, ipv4, ipv6, ndp, tcp, udp};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A codec's check, and a valid message to begin with.
#[derive(Debug)]
pub struct Codec {
    /// For seeds and reports.
    pub name: &'static str,
    /// Panics if the codec contradicts itself about these bytes.
    pub check: fn(&[u8]),
    /// Bytes that the codec wrote.
    pub seed: fn() -> Vec<u8>,
}

/// Every codec. An input chooses by its first byte, so a new one goes to the end.
pub const CODECS: &[Codec] = &[
    Codec { name: "ethernet", check: check_ethernet, seed: seed_ethernet },
    Codec { name: "arp", check: check_arp, seed: seed_arp },
    Codec { name: "ipv4", check: check_ipv4, seed: seed_ipv4 },
    Codec { name: "icmpv4", check: check_icmpv4, seed: seed_icmpv4 },
    Codec { name: "udp", check: check_udp, seed: seed_udp },
    Codec { name: "tcp", check: check_tcp, seed: seed_tcp },
    Codec { name: "dhcp_reply", check: check_dhcp_reply, seed: seed_dhcp_reply },
    Codec { name: "dhcp_request", check: check_dhcp_request, seed: seed_dhcp_request },
    Codec { name: "checksum", check: check_checksum, seed: seed_udp },
    Codec { name: "ipv6", check: check_ipv6, seed: seed_ipv6 },
    Codec { name: "icmpv6", check: check_icmpv6, seed: seed_icmpv6 },
    Codec { name: "ndp_neighbour", check: check_ndp, seed: seed_ndp_neighbour },
    Codec { name: "ndp_router", check: check_ndp, seed: seed_ndp_router },
];

/// Asserts the engine's invariants, and that what it holds is within `limits`, those that it was
/// made with.
pub fn check_engine(engine: &Engine, limits: &Limits) {
    engine.check(limits);
}

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// True if `part` lies in `whole`, and at its end or before.
fn lies_in(whole: &[u8], part: &[u8]) -> bool {
    let (whole, part) = (whole.as_ptr_range(), part.as_ptr_range());
    whole.start <= part.start && part.end <= whole.end
}

fn check_ethernet(bytes: &[u8]) {
    let Some(frame) = ethernet::Frame::parse(bytes) else {
        return assert!(bytes.len() < ethernet::HEADER_LEN);
    };
    let header = ethernet::header(frame.destination, frame.source, frame.ethertype);
    assert_eq!([&header[..], frame.payload].concat(), bytes);
}

fn seed_ethernet() -> Vec<u8> {
    let mut frame = ethernet::header(MacAddress::BROADCAST, MAC, ethernet::TYPE_ARP).to_vec();
    frame.extend(seed_arp());
    frame
}

fn check_arp(bytes: &[u8]) {
    if let Some(packet) = arp::Packet::parse(bytes) {
        assert_eq!(packet.to_bytes(), bytes[..arp::LEN]);
    }
}

fn seed_arp() -> Vec<u8> {
    let operation = arp::Operation::Request;
    let target_mac = MacAddress([0; 6]);
    let packet = arp::Packet { operation, sender_mac: MAC, sender: A, target_mac, target: B };
    packet.to_bytes().to_vec()
}

fn check_ipv4(bytes: &[u8]) {
    let quoted = ipv4::Packet::parse_quoted(bytes);
    let Some(packet) = ipv4::Packet::parse(bytes) else {
        // Cut short, which a quotation may be.
        return assert!(quoted.is_none_or(|quoted| lies_in(bytes, quoted.payload())));
    };
    let quoted = quoted.expect("what is whole can be quoted");
    assert_eq!((packet.header(), packet.payload()), (quoted.header(), quoted.payload()));
    assert!(lies_in(bytes, packet.payload()) && (20..=60).contains(&packet.header().len()));
    // What we do not write: options, type of service, the reserved bit, a wrong checksum.
    let header = packet.header();
    let is_ours = header.len() == ipv4::HEADER_LEN && header[1] == 0 && header[6] & 0x80 == 0;
    assert!(packet.fragment_offset() <= 65_528);
    if packet.options() == ipv4::Options::Harmless && is_ours && packet.checksum_is_valid() {
        let again = ipv4::Header {
            source: packet.source(),
            destination: packet.destination(),
            protocol: packet.protocol(),
            time_to_live: header[8],
            identification: packet.identification(),
            dont_fragment: header[6] & 0x40 != 0,
        };
        let (len, offset) = (packet.payload().len(), packet.fragment_offset());
        let written = again.to_fragment_bytes(len, offset, packet.more_fragments());
        assert_eq!(written[..10], header[..10]);
        assert_eq!(written[12..], header[12..]);
        assert!(
            ipv4::Packet::parse(&[&written[..], packet.payload()].concat())
                .is_some_and(|packet| packet.checksum_is_valid())
        );
    }
}

fn seed_ipv4() -> Vec<u8> {
    ipv4_of(ipv4::PROTOCOL_UDP, &seed_udp())
}

fn ipv4_of(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv4::Header {
        source: A,
        destination: B,
        protocol,
        time_to_live: 64,
        identification: 1,
        dont_fragment: true,
    };
    [&header.to_bytes(payload.len())[..], payload].concat()
}

fn check_icmpv4(bytes: &[u8]) {
    let Some(message) = icmpv4::Message::parse(bytes) else {
        return assert!(bytes.len() < icmpv4::HEADER_LEN);
    };
    let _ = (IcmpError::from_message(&message), message.next_hop_mtu());
    let written = icmpv4::to_bytes(message.kind, message.code, message.word, message.body);
    let again = icmpv4::Message::parse(&written).expect("what was written can be read");
    assert!(again.checksum_is_valid());
    let fields = |message: &icmpv4::Message<'_>| (message.kind, message.code, message.word);
    assert_eq!((fields(&message), message.body), (fields(&again), again.body));
}

fn seed_icmpv4() -> Vec<u8> {
    let quote = ipv4_of(ipv4::PROTOCOL_TCP, &seed_tcp());
    icmpv4::to_bytes(icmpv4::DESTINATION_UNREACHABLE, 4, [0, 0, 5, 0], &quote)
}

fn check_udp(bytes: &[u8]) {
    let Some(datagram) = udp::Datagram::parse(bytes) else { return };
    assert!(lies_in(bytes, datagram.payload));
    let _ = datagram.checksum_is_valid(A, B);
    let ports = (datagram.source_port, datagram.destination_port);
    let written = udp::to_bytes((A, ports.0), (B, ports.1), datagram.payload);
    let again = udp::Datagram::parse(&written).expect("what was written can be read");
    assert!(again.checksum_is_valid(A, B) && written[udp::CHECKSUM_OFFSET..][..2] != [0, 0]);
    assert_eq!((again.source_port, again.destination_port), ports);
    assert_eq!(again.payload, datagram.payload);
}

fn seed_udp() -> Vec<u8> {
    udp::to_bytes((A, 9), (B, 7), b"echo")
}

fn check_tcp(bytes: &[u8]) {
    let _ = tcp::Quote::parse(bytes);
    let Ok(segment) = tcp::Segment::parse(bytes) else { return };
    assert!(lies_in(bytes, segment.payload));
    assert!(segment.sequence_len() as usize <= bytes.len() + 2 && segment.count() == 1);
    let mut written = [0xcc; 60];
    let len = segment.header.emit(&mut written);
    assert_eq!(len, segment.header.len());
    let again = tcp::Segment::parse(&written[..len]).expect("what was written can be read");
    let mut expected = segment.header;
    if !expected.flags.has(tcp::Flags::ACK) {
        expected.acknowledgment = crate::tcp::Seq(0);
    }
    assert_eq!((again.header, again.payload), (expected, &[][..]));
}

#[allow(clippy::needless_update, reason = "an option more is no business of this")]
fn seed_tcp() -> Vec<u8> {
    let header = tcp::Header {
        source_port: 1024,
        destination_port: 80,
        sequence: crate::tcp::Seq(1000),
        acknowledgment: crate::tcp::Seq(2000),
        flags: tcp::Flags::SYN | tcp::Flags::ACK,
        window: 65_535,
        options: tcp::Options {
            mss: Some(1460),
            window_shift: Some(7),
            sack_permitted: true,
            timestamps: Some(tcp::Timestamps { value: 1, echo: 2 }),
            ..Default::default()
        },
    };
    let mut bytes = vec![0; header.len()];
    header.emit(&mut bytes);
    bytes
}

fn check_dhcp_reply(bytes: &[u8]) {
    if let Some(reply) = dhcp::Reply::parse(bytes) {
        assert!(reply.routers.len() <= 4 && reply.name_servers.len() <= 4);
        assert_eq!(reply.client.0, bytes[28..34]);
    }
}

fn seed_dhcp_reply() -> Vec<u8> {
    let options: [(u8, &[u8]); 6] = [
        (53, &[2]),
        (54, &[10, 0, 0, 254]),
        (1, &[255, 255, 255, 0]),
        (3, &[10, 0, 0, 254]),
        (6, &[10, 0, 0, 253, 10, 0, 0, 252]),
        (51, &[0, 0, 14, 16]),
    ];
    dhcp::test_reply(7, MAC, A, &options)
}

/// The bytes say what a client wants to say.
fn check_dhcp_request(bytes: &[u8]) {
    let Some((fixed, name)) = bytes.split_first_chunk::<18>() else { return };
    let &[kind, t0, t1, t2, t3, s0, s1, which, ref rest @ ..] = fixed;
    let address = |at: usize| Ipv4Addr::from([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
    let kinds =
        [dhcp::MessageType::Discover, dhcp::MessageType::Request, dhcp::MessageType::Decline];
    let message_type = kinds[usize::from(kind) % kinds.len()];
    let host_name = str::from_utf8(name).ok().filter(|name| (1..=63).contains(&name.len()));
    let request = dhcp::Request {
        message_type,
        transaction: u32::from_be_bytes([t0, t1, t2, t3]),
        seconds: u16::from_be_bytes([s0, s1]),
        client: MAC,
        address: (which & 1 != 0).then(|| address(0)),
        requested: (which & 2 != 0).then(|| address(2)),
        server: (which & 4 != 0).then(|| address(4)),
        host_name,
        message_len_max: 576 | u16::from_be_bytes([rest[8], rest[9]]),
    };
    let written = request.to_bytes();
    assert!((300..=576).contains(&written.len()));
    assert_eq!(dhcp::Reply::parse(&written), None, "a request is no reply");
    let again = dhcp::Request::parse_for_test(&written).expect("what was written can be read");
    assert_eq!(again.message_type, message_type as u8);
    assert_eq!((again.transaction, again.seconds), (request.transaction, request.seconds));
    assert_eq!(again.address, request.address.unwrap_or(Ipv4Addr::UNSPECIFIED));
    assert_eq!((again.requested, again.server), (request.requested, request.server));
    let is_named = message_type != dhcp::MessageType::Decline;
    let host_name = host_name.filter(|_| is_named).unwrap_or_default();
    assert_eq!(again.host_name, host_name.as_bytes());
}

fn seed_dhcp_request() -> Vec<u8> {
    b"\x01\x00\x00\x00\x07\x00\x01\x07\x0a\x00\x00\x07\x0a\x00\x00\xfe\x02\x40fata".to_vec()
}

/// In two pieces as in one, and as the sum of RFC 1071 word by word.
fn check_checksum(bytes: &[u8]) {
    let Some((&at, bytes)) = bytes.split_first() else { return };
    let (head, tail) = bytes.split_at(usize::from(at).min(bytes.len()));
    let sum = checksum::checksum(bytes);
    assert_eq!(checksum::Sum::default().then(head).then(tail).finish(), sum);
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    let mut slow: u64 = bytes.chunks(2).map(word).sum();
    while slow > 0xffff {
        slow = (slow >> 16) + (slow & 0xffff);
    }
    assert_eq!(sum, !(slow as u16));
}

fn check_ipv6(bytes: &[u8]) {
    let quoted = ipv6::Packet::parse_quoted(bytes);
    let Some(packet) = ipv6::Packet::parse(bytes) else {
        // Cut short, which a quotation may be.
        return assert!(quoted.is_none_or(|quoted| lies_in(bytes, quoted.bytes())));
    };
    assert_eq!(quoted.expect("what is whole can be quoted").bytes(), packet.bytes());
    let whole = packet.bytes();
    assert!(lies_in(bytes, whole));
    match packet.walk() {
        ipv6::Walk::Upper { protocol, field, start } => {
            assert!(field < start && start <= whole.len() && whole[field] == protocol);
        }
        ipv6::Walk::Fragment { field, start } => {
            assert!(field < start && start <= whole.len() && whole[field] == ipv6::FRAGMENT);
            let Some(fragment) = ipv6::Fragment::parse(packet.from(start)) else { return };
            let written = fragment.to_bytes();
            assert_eq!(ipv6::Fragment::parse(&written), Some(fragment));
            // What is reserved is written as nought.
            let of = |bytes: &[u8]| [&bytes[..1], &bytes[2..3], &bytes[4..8]].concat();
            assert_eq!(of(&written), of(packet.from(start)));
            let behind = start + ipv6::FRAGMENT_HEADER_LEN;
            let _ = packet.walk_from(fragment.next_header, start, behind);
        }
        ipv6::Walk::Problem { pointer, .. } => assert!(pointer < whole.len()),
        ipv6::Walk::Silent | ipv6::Walk::Malformed | ipv6::Walk::Excessive => {}
    }
    let payload_len = whole.len() - ipv6::HEADER_LEN;
    let (source, destination) = (packet.source(), packet.destination());
    let written = ipv6::header(source, destination, whole[6], whole[7], payload_len);
    // All but the traffic class and the flow label, which we do not write.
    assert_eq!(written[4..], whole[4..ipv6::HEADER_LEN]);
}

fn seed_ipv6() -> Vec<u8> {
    let options = [ipv6::FRAGMENT, 0, ipv6::OPTION_ROUTER_ALERT, 2, 0, 0, 1, 0];
    let fragment = ipv6::Fragment {
        next_header: ipv4::PROTOCOL_UDP,
        offset: 0,
        more_fragments: true,
        identification: 7,
    };
    let payload = [&options[..], &fragment.to_bytes(), &seed_udp()].concat();
    [&ipv6::header(A6, B6, ipv6::HOP_BY_HOP, 64, payload.len())[..], &payload].concat()
}

fn check_icmpv6(bytes: &[u8]) {
    let Some(message) = icmpv6::Message::parse(bytes) else {
        return assert!(bytes.len() < icmpv6::HEADER_LEN);
    };
    let _ = (IcmpError::from_message_v6(&message), message.mtu());
    let kind = (message.kind, message.code);
    let written = icmpv6::to_bytes(A6, B6, kind, message.word, message.body);
    let again = icmpv6::Message::parse(&written).expect("what was written can be read");
    assert!(again.checksum_is_valid(A6, B6));
    assert_eq!((again.kind, again.code), kind);
    assert_eq!((again.word, again.body), (message.word, message.body));
}

fn seed_icmpv6() -> Vec<u8> {
    let kind = (icmpv6::PACKET_TOO_BIG, 0);
    icmpv6::to_bytes(A6, B6, kind, [0, 0, 5, 0], &seed_ipv6())
}

/// What the bytes say as each of Neighbour Discovery's messages, and as a query of MLD.
fn check_ndp(bytes: &[u8]) {
    let Some(message) = icmpv6::Message::parse(bytes) else { return };
    let _ = ndp::mld_response_delay(&message);
    let limits = |options: &ndp::Options| {
        assert!(options.prefixes.len() * 32 <= bytes.len());
        assert!(options.dns.len() * 24 <= bytes.len());
        assert!(options.dns.iter().all(|(_, servers)| !servers.is_empty()));
    };
    if let Some(router) = ndp::RouterAdvertisement::parse(&message) {
        limits(&router.options);
        assert!((-1..=1).contains(&router.preference));
    }
    let Some(neighbour) = ndp::Neighbour::parse(&message) else { return };
    limits(&neighbour.options);
    let ndp::Options { source_link_layer, target_link_layer, nonce, .. } = neighbour.options;
    let target = neighbour.target;
    let body = ndp::neighbour_body(target, source_link_layer, target_link_layer, nonce);
    let kind = (icmpv6::NEIGHBOUR_ADVERTISEMENT, 0);
    let written = icmpv6::to_bytes(A6, B6, kind, message.word, &body);
    let again = icmpv6::Message::parse(&written).expect("what was written can be read");
    let again = ndp::Neighbour::parse(&again).expect("what was written can be read");
    let options =
        ndp::Options { source_link_layer, target_link_layer, nonce, ..Default::default() };
    assert_eq!(again, ndp::Neighbour { flags: neighbour.flags, target, options });
}

fn seed_ndp_neighbour() -> Vec<u8> {
    let body = ndp::neighbour_body(A6, Some(MAC), Some(MAC), Some([7; 6]));
    let kind = (icmpv6::NEIGHBOUR_ADVERTISEMENT, 0);
    icmpv6::to_bytes(A6, B6, kind, [ndp::FLAG_SOLICITED | ndp::FLAG_ROUTER, 0, 0, 0], &body)
}

/// A router with an MTU, a prefix and a name server.
fn seed_ndp_router() -> Vec<u8> {
    let times = [0, 0, 0x75, 0x30, 0, 0, 3, 0xe8];
    let mtu = [5, 1, 0, 0, 0, 0, 5, 0];
    let prefix = [3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 7, 8, 0, 0, 0, 0];
    let server = [25, 3, 0, 0, 0, 0, 14, 16];
    let address = A6.octets();
    let parts: [&[u8]; 6] = [&times, &mtu, &prefix, &address, &server, &address];
    let kind = (icmpv6::ROUTER_ADVERTISEMENT, 0);
    icmpv6::to_bytes(A6, B6, kind, [64, 8, 7, 8], &parts.concat())
}
