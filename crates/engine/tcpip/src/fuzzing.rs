//! What the fuzz targets in `fuzz/` need and programs do not: the codecs, which are private, and the
//! engine's invariants.
//!
//! A codec is one function here, and one line in [`CODECS`]: it takes any bytes, and panics if what
//! it read is not what it would write, or if a field lies outside of the bytes.

use crate::config::{Limits, MacAddress};
use crate::engine::Engine;
use crate::icmp::IcmpError;
use crate::wire::{arp, checksum, dhcp, ethernet, icmpv4, ipv4, tcp, udp};
use std::net::Ipv4Addr;

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
];

/// Asserts the engine's invariants, and that what it holds is within `limits`, those that it was
/// made with.
pub fn check_engine(engine: &Engine, limits: &Limits) {
    engine.check(limits);
}

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
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
