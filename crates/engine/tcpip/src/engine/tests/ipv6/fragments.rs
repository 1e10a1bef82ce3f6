//! Fragments of IPv6, both ways.

use super::*;

/// The pieces of a packet with `payload` behind the fragment headers.
fn pieces(next: u8, id: u32, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let count = payload.len().div_ceil(size);
    payload
        .chunks(size)
        .enumerate()
        .map(|(at, bytes)| piece(next, id, at * size, at + 1 < count, bytes))
        .collect()
}

fn piece(next_header: u8, identification: u32, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    let header =
        wire::Fragment { next_header, offset, more_fragments: more, identification }.to_bytes();
    ip6(P6, H6, wire::FRAGMENT, &[&header[..], bytes].concat())
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn host() -> (Host, UdpId) {
    let mut host = host6();
    host.introduce6(P6, P_MAC);
    let socket = host.bind(7);
    (host, socket)
}

fn datagram(payload: &[u8]) -> Vec<u8> {
    udp_wire::to_bytes((P6, 9), (H6, 7), payload)
}

/// Pitfalls F03, F06, F11.
#[test]
fn a_datagram_in_pieces_arrives_in_any_order() {
    let (mut host, socket) = host();
    let payload = bytes(65_000);
    let whole = datagram(&payload);
    for (size, reverse) in [(1448, false), (1448, true), (4000, false)] {
        let mut pieces = pieces(PROTOCOL_UDP, size as u32 + u32::from(reverse), &whole, size);
        if reverse {
            pieces.reverse();
        }
        pieces.iter().for_each(|piece| host.receive(piece));
        assert_eq!(host.datagram(socket).unwrap(), payload);
    }
    assert_eq!(host.counters().datagrams_reassembled, 3);
    assert_eq!(host.counters().reassembly_bytes, 0);
}

/// Pitfall F01.
#[test]
fn an_overlap_drops_the_datagram_and_what_comes_of_it_later() {
    for (offset, len) in [(0, 16), (8, 8), (8, 24), (16, 8), (0, 40)] {
        let (mut host, socket) = host();
        let whole = datagram(&bytes(100));
        let at = |offset: usize, len: usize| {
            piece(PROTOCOL_UDP, 5, offset, true, &whole[offset..offset + len])
        };
        host.receive(&at(0, 24));
        let mut other = whole[offset..offset + len].to_vec();
        other[0] ^= 1;
        host.receive(&piece(PROTOCOL_UDP, 5, offset, true, &other));
        host.receive(&at(24, 24));
        host.receive(&piece(PROTOCOL_UDP, 5, 48, false, &whole[48..]));
        assert_eq!(host.datagram(socket), None, "{offset} {len}");
        assert!(host.counters().dropped_fragment_overlap > 0);
        assert!(host.is_silent());
    }
    // The same piece again is none (RFC 8200 §4.5 leaves it to us).
    let (mut host, socket) = host();
    let whole = datagram(&bytes(100));
    let first = piece(PROTOCOL_UDP, 5, 0, true, &whole[..24]);
    host.receive(&first);
    host.receive(&first);
    host.receive(&piece(PROTOCOL_UDP, 5, 24, false, &whole[24..]));
    assert_eq!(host.datagram(socket).unwrap(), bytes(100));
}

/// Pitfalls F02, X05.
#[test]
fn a_flood_of_pieces_leaves_room_for_the_next_honest_datagram() {
    let (mut host, socket) = host();
    for number in 0..10_000u32 {
        host.now = host.now + Duration::from_micros(100);
        let source = Ipv6Addr::from_bits(P6.to_bits() + 1000 + u128::from(number % 5000));
        let header = wire::Fragment {
            next_header: PROTOCOL_UDP,
            offset: 0,
            more_fragments: true,
            identification: number,
        };
        let payload = [&header.to_bytes()[..], &[0; 1200]].concat();
        host.receive(&ip6(source, H6, wire::FRAGMENT, &payload));
        if number % 1000 == 999 {
            let whole = datagram(&bytes(4000));
            pieces(PROTOCOL_UDP, number, &whole, 1448).iter().for_each(|piece| host.receive(piece));
            assert_eq!(host.datagram(socket).unwrap(), bytes(4000));
        }
    }
    assert!(host.counters().dropped_fragment_limit > 9_000);
}

/// Pitfall F04.
#[test]
fn impossible_pieces_are_named_to_their_sender() {
    let (mut host, _) = host();
    let problem = |host: &mut Host| {
        let problems = messages(&host.sent(), icmpv6::PARAMETER_PROBLEM);
        assert_eq!(problems.len(), 1);
        let message = Message::parse(&problems[0].payload).unwrap();
        (message.code, message.mtu())
    };
    host.receive(&piece(PROTOCOL_UDP, 5, 0, true, &[0; 13]));
    assert_eq!(problem(&mut host), (0, 4), "the payload length");
    host.receive(&piece(PROTOCOL_UDP, 5, 65_528, false, &[0; 9]));
    assert_eq!(problem(&mut host), (0, 42), "the offset");
    assert_eq!(host.counters().reassembly_datagrams, 0);
}

/// Pitfall F05.
#[test]
fn a_missing_piece_is_not_made_up_for_by_another_that_comes_twice() {
    let (mut host, socket) = host();
    let whole = datagram(&bytes(64));
    host.receive(&piece(PROTOCOL_UDP, 5, 0, true, &whole[..24]));
    for _ in 0..5 {
        host.receive(&piece(PROTOCOL_UDP, 5, 48, false, &whole[48..]));
    }
    assert_eq!(host.datagram(socket), None);
    host.receive(&piece(PROTOCOL_UDP, 5, 24, true, &whole[24..48]));
    assert_eq!(host.datagram(socket).unwrap(), bytes(64));
}

/// Pitfall F07.
#[test]
fn the_time_runs_from_the_first_piece_and_its_end_is_told_if_the_beginning_came() {
    for has_beginning in [true, false] {
        let (mut host, socket) = host();
        let whole = datagram(&bytes(64));
        let first = if has_beginning { 0 } else { 24 };
        host.receive(&piece(PROTOCOL_UDP, 5, first, true, &whole[first..first + 24]));
        host.advance(secs(55));
        host.introduce6(P6, P_MAC);
        host.receive(&piece(PROTOCOL_UDP, 5, 48, false, &whole[48..]));
        let told = messages(&frames(host.advance(secs(6))), icmpv6::TIME_EXCEEDED);
        assert_eq!(told.len(), usize::from(has_beginning));
        assert!(told.iter().all(|told| told.payload[1] == 1));
        assert_eq!(host.counters().reassembly_datagrams, 0);
        assert_eq!(host.datagram(socket), None);
    }
}

/// Pitfall F08.
#[test]
fn a_first_piece_without_all_headers_is_dropped() {
    let (mut host, _) = host();
    host.receive(&piece(PROTOCOL_TCP, 5, 0, true, &[0; 8]));
    // Options that go on in the next piece.
    host.receive(&piece(60, 6, 0, true, &[PROTOCOL_UDP, 1, 1, 4, 0, 0, 0, 0]));
    assert_eq!(host.counters().reassembly_datagrams, 0);
    assert_eq!(host.counters().dropped_fragment_malformed, 2);
}

/// Pitfall F09.
#[test]
fn an_atomic_fragment_is_whole_by_itself() {
    let (mut host, socket) = host();
    let whole = datagram(&bytes(64));
    host.receive(&piece(PROTOCOL_UDP, 5, 0, true, &whole[..24]));
    let ping = ping_bytes(P6, H6, b"atomic");
    host.receive(&piece(PROTOCOL_ICMPV6, 5, 0, false, &ping));
    assert_eq!(messages(&host.sent(), icmpv6::ECHO_REPLY).len(), 1);
    host.receive(&piece(PROTOCOL_UDP, 5, 24, false, &whole[24..]));
    assert_eq!(host.datagram(socket).unwrap(), bytes(64));
}

/// Pitfall F12.
#[test]
fn neighbour_discovery_in_fragments_is_ignored() {
    let (mut host, _) = host();
    let ra = Ra::new().prefix(PREFIX, 64, 0xc0, 3600, 3600);
    let kind = (icmpv6::ROUTER_ADVERTISEMENT, 0);
    let message = icmpv6::to_bytes(R6, H6, kind, ra.word(), &ra.body());
    let fragment = |offset: usize, more_fragments, bytes: &[u8]| {
        let next_header = PROTOCOL_ICMPV6;
        let header = wire::Fragment { next_header, offset, more_fragments, identification: 1 };
        let payload = [&header.to_bytes()[..], bytes].concat();
        frame6(R_MAC, &packet6(R6, H6, wire::FRAGMENT, 255, &payload))
    };
    host.receive(&fragment(0, true, &message[..24]));
    host.receive(&fragment(24, false, &message[24..]));
    host.receive(&fragment(0, false, &message));
    assert_eq!(host.counters().ipv6_routers, 0);
    assert_eq!(host.counters().dropped_ndp_invalid, 2);
}

/// Pitfall L05.
#[test]
fn what_a_device_says_of_pieces_says_nothing_of_the_whole() {
    let (mut host, socket) = host();
    let mut whole = datagram(&bytes(64));
    whole[20] ^= 1;
    for piece in pieces(PROTOCOL_UDP, 5, &whole, 40) {
        host.receive_with(&piece, FrameChecksum::Verified);
    }
    assert_eq!(host.datagram(socket), None);
    assert_eq!(host.counters().dropped_udp_checksum, 1);
}

/// Pitfalls F10, U01: the peer is this stack's own reader, whose tests are above.
#[test]
fn a_large_datagram_leaves_in_fragments_and_one_that_is_too_large_is_an_error() {
    let (mut host, socket) = host();
    for len in [1452, 1453, 2000, 9000, 65_507] {
        let payload = bytes(len);
        host.udp_send6(socket, P6, &payload);
        let (mut whole, mut ids) = (Vec::new(), Vec::new());
        for frame in host.sent() {
            assert!(frame.len() <= 14 + 1500);
            let sent = sent6(&frame).unwrap();
            if sent.protocol == PROTOCOL_UDP {
                whole.extend(&sent.payload);
                continue;
            }
            let fragment = wire::Fragment::parse(&sent.payload).unwrap();
            assert_eq!(fragment.offset, whole.len());
            assert_eq!(fragment.next_header, PROTOCOL_UDP);
            whole.extend(&sent.payload[8..]);
            ids.push((fragment.identification, fragment.more_fragments));
        }
        assert_eq!(ids.is_empty(), len <= 1452);
        assert!(ids.iter().all(|(id, _)| *id == ids[0].0));
        assert_eq!(ids.iter().filter(|(_, more)| !more).count(), usize::from(len > 1452));
        assert_eq!(&whole[8..], &payload);
        let sum = checksum::Sum::of_pseudo_header(H6, P6, PROTOCOL_UDP, whole.len());
        assert!(sum.then(&whole).is_valid());
    }
    let to = SocketAddr::from((P6, 9));
    let result = host.engine.udp_send(host.now, socket, to, &vec![0; 65_508]);
    assert!(result.is_err());
}
