//! Reassembly and fragmentation.

use super::*;
use crate::output::Packet;
use proptest::prelude::*;

/// A frame with the piece of a datagram of `id` that begins at `offset`.
fn piece(source: Ipv4Addr, id: u16, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    let header = Header { identification: id, ..header(source, H, PROTOCOL_UDP) };
    let mut packet = header.to_fragment_bytes(bytes.len(), offset, more).to_vec();
    packet.extend(bytes);
    eth(H_MAC, P_MAC, ethernet::TYPE_IPV4, &packet)
}

/// A datagram to port 7 as it is cut by a link with an MTU of `mtu`.
fn pieces(source: Ipv4Addr, id: u16, payload: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let datagram = udp_wire::to_bytes((source, 9), (H, 7), payload);
    let header = output_header(source, H, PROTOCOL_UDP, id.into());
    let packet = Packet::new(header, datagram);
    let (mut frames, mut offset) = (Vec::new(), Some(0));
    while let Some(at) = offset {
        let mut buffer = vec![0; 14 + mtu];
        let (len, next) = packet.write(P_MAC, H_MAC, mtu, at, &mut buffer);
        buffer.truncate(len);
        frames.push(buffer);
        offset = next;
    }
    frames
}

/// H with a socket on port 7; it knows P.
fn host() -> (Host, UdpId) {
    let mut host = Host::new();
    host.introduce(P, P_MAC);
    let socket = host.bind(7);
    (host, socket)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 256) as u8 ^ at as u8).collect()
}

/// Pitfall F03.
#[test]
fn the_largest_datagram_arrives_in_pieces_of_any_size_and_order() {
    for mtu in [1500, 576, 68, 28] {
        let (mut host, socket) = host();
        let payload = bytes(65_507);
        let mut frames = pieces(P, 1, &payload, mtu);
        assert!(frames.len() >= 45);
        // An order that is neither forwards nor backwards.
        let count = frames.len();
        let order: Vec<usize> = (0..count).map(|at| at * 7919 % count).collect();
        assert_eq!(order.iter().collect::<std::collections::HashSet<_>>().len(), count);
        for at in order {
            host.receive(&core::mem::take(&mut frames[at]));
        }
        assert!(host.datagram(socket).unwrap() == payload, "MTU {mtu}");
        assert_eq!(host.counters().reassembly_bytes, 0);
    }
}

/// Pitfall F01.
#[test]
fn overlapping_pieces_drop_the_datagram_with_what_comes_later() {
    // Start and end, in units of 8 bytes, of a piece that collides with 4..8.
    for (start, end) in [(3, 7), (5, 9), (5, 7), (3, 9), (4, 8)] {
        let (mut host, socket) = host();
        let datagram = udp_wire::to_bytes((P, 9), (H, 7), &bytes(120));
        host.receive(&piece(P, 1, 32, true, &datagram[32..64]));
        host.receive(&piece(P, 1, start * 8, true, &vec![0xee; (end - start) * 8]));
        host.receive(&piece(P, 1, 0, true, &datagram[..32]));
        host.receive(&piece(P, 1, 32, true, &datagram[32..64]));
        host.receive(&piece(P, 1, 64, false, &datagram[64..]));
        assert_eq!(host.datagram(socket), None, "{start}..{end}");
        assert!(host.counters().dropped_fragment_overlap > 0);
        // Gone after its time, without a word.
        assert!(host.advance(secs(61)).iter().all(|(_, frame)| sent_packet(frame).is_none()));
        assert_eq!(host.counters().reassembly_datagrams, 0);
    }
}

/// Pitfall F05.
#[test]
fn a_piece_that_comes_twice_is_ignored_and_completes_nothing() {
    let (mut host, socket) = host();
    let payload = bytes(92);
    let datagram = udp_wire::to_bytes((P, 9), (H, 7), &payload);
    for _ in 0..3 {
        host.receive(&piece(P, 1, 0, true, &datagram[..32]));
        host.receive(&piece(P, 1, 64, false, &datagram[64..]));
    }
    assert_eq!(host.datagram(socket), None);
    assert_eq!(host.counters().dropped_fragment_duplicate, 4);
    host.receive(&piece(P, 1, 32, true, &datagram[32..64]));
    assert_eq!(host.datagram(socket).unwrap(), payload);
}

#[test]
fn pieces_that_disagree_about_the_end_drop_the_datagram() {
    for (offset, more, len) in [(96, true, 8), (64, false, 16), (40, false, 8), (96, false, 8)] {
        let (mut host, socket) = host();
        let datagram = udp_wire::to_bytes((P, 9), (H, 7), &bytes(88));
        host.receive(&piece(P, 1, 48, false, &datagram[48..]));
        host.receive(&piece(P, 1, offset, more, &vec![0; len]));
        host.receive(&piece(P, 1, 0, true, &datagram[..48]));
        assert_eq!(host.datagram(socket), None, "{offset} {more}");
    }
}

/// Pitfalls F04, F08.
#[test]
fn impossible_pieces_are_dropped() {
    let (mut host, _) = host();
    host.receive(&piece(P, 1, 8191 * 8, false, &[0; 9]));
    host.receive(&piece(P, 2, 8, true, &[0; 13]));
    host.receive(&piece(P, 3, 8, false, &[]));
    host.receive(&piece(P, 4, 65_512, true, &[0; 8]));
    // First pieces too short for their transport's header (RFC 1858).
    let mut tcp = piece(P, 5, 0, true, &[0; 16]);
    tcp[14 + 9] = PROTOCOL_TCP;
    tcp[14 + 10..14 + 12].copy_from_slice(&[0, 0]);
    let sum = checksum::checksum(&tcp[14..34]);
    tcp[14 + 10..14 + 12].copy_from_slice(&sum.to_be_bytes());
    host.receive(&tcp);
    assert_eq!(host.counters().dropped_fragment_malformed, 5);
    assert_eq!(host.counters().reassembly_datagrams, 0);
}

/// Pitfall F06.
#[test]
fn the_header_is_the_first_pieces_whichever_came_last() {
    let (mut host, _) = host();
    // To a closed port, so that the error quotes the header that was used.
    let datagram = udp_wire::to_bytes((P, 9), (H, 70), &bytes(56));
    let mut last = piece(P, 1, 32, false, &datagram[32..]);
    last[14 + 8] = 3;
    last[14 + 10..14 + 12].copy_from_slice(&[0, 0]);
    let sum = checksum::checksum(&last[14..34]);
    last[14 + 10..14 + 12].copy_from_slice(&sum.to_be_bytes());
    host.receive(&last);
    host.receive(&piece(P, 1, 0, true, &datagram[..32]));
    let error = sent_packet(&host.sent()[0]).unwrap();
    let quote = &error.payload[8..];
    assert_eq!(quote[8], 64, "time to live");
    assert_eq!(quote[2..4], (20 + 64u16).to_be_bytes(), "length of the whole");
    assert_eq!(quote[20..], datagram);
}

/// Pitfall F07.
#[test]
fn the_time_runs_from_the_first_piece_and_ends_with_an_error_if_the_beginning_came() {
    let (mut host, _) = host();
    let datagram = udp_wire::to_bytes((P, 9), (H, 7), &bytes(1000));
    host.receive(&piece(P, 1, 0, true, &datagram[..32]));
    host.receive(&piece(P, 2, 32, true, &datagram[32..64]));
    assert!(host.advance(secs(55)).iter().all(|(_, frame)| sent_packet(frame).is_none()));
    host.receive(&piece(P, 1, 64, true, &datagram[64..96]));
    assert_eq!(host.counters().reassembly_datagrams, 2);
    let errors: Vec<_> = host
        .advance(secs(5))
        .iter()
        .filter_map(|(at, frame)| Some((*at, sent_packet(frame)?)))
        .collect();
    assert_eq!(errors.len(), 1);
    let (_, error) = &errors[0];
    assert_eq!(error.payload[..2], [icmpv4::TIME_EXCEEDED, icmpv4::CODE_REASSEMBLY]);
    assert_eq!(error.payload[8 + 20..], datagram[..32]);
    assert_eq!(host.counters().reassembly_timeouts, 2);
    assert_eq!(host.counters().reassembly_bytes, 0);
}

/// Pitfall F09.
#[test]
fn a_datagram_in_one_piece_is_not_mixed_up_with_a_waiting_one_of_its_identification() {
    let (mut host, socket) = host();
    let frames = pieces(P, 99, &bytes(2000), 1500);
    host.receive(&frames[0]);
    host.receive(&udp(P, H, 7, b"atomic"));
    assert_eq!(host.datagram(socket).unwrap(), b"atomic");
    host.receive(&frames[1]);
    assert_eq!(host.datagram(socket).unwrap(), bytes(2000));
}

/// Pitfall F02.
#[test]
fn a_flood_of_first_pieces_does_not_stop_the_datagrams_of_others() {
    let (mut host, socket) = host();
    let payload = bytes(4000);
    let honest = pieces(P, 1, &payload, 1500);
    let mut completed = 0;
    for number in 0..20_000u32 {
        let stranger = Ipv4Addr::from_bits(0xc000_0200 + number % 50_000);
        // Some of them claim the far end of a datagram, which costs most.
        let offset = if number % 3 == 0 { 60_000 } else { 0 };
        host.receive(&piece(stranger, number as u16, offset, true, &[0; 1400]));
        if number % 1000 < 3 {
            host.receive(&honest[(number % 1000) as usize]);
            completed += u32::from(host.datagram(socket).is_some());
        }
        host.now = host.now + Duration::from_micros(100);
    }
    assert_eq!(completed, 20);
    assert!(host.counters().dropped_fragment_limit > 19_000);
}

#[test]
fn one_source_holds_at_most_its_share() {
    let (mut host, _) = host();
    for id in 0..100 {
        host.receive(&piece(P, id, 8, true, &[0; 8]));
    }
    assert_eq!(host.counters().reassembly_datagrams, 8);
    assert_eq!(host.counters().dropped_fragment_limit, 92);
}

/// Pitfall F11.
#[test]
fn a_large_ping_is_answered_in_fragments() {
    let (mut host, _) = host();
    let body = bytes(20_000);
    let message = icmpv4::to_bytes(icmpv4::ECHO_REQUEST, 0, [1, 2, 3, 4], &body);
    let packet = Packet::new(output_header(P, H, PROTOCOL_ICMP, 99), message);
    let mut offset = Some(0);
    while let Some(at) = offset {
        let mut buffer = vec![0; 1514];
        let (len, next) = packet.write(P_MAC, H_MAC, 1500, at, &mut buffer);
        host.receive(&buffer[..len]);
        offset = next;
    }
    let frames = host.sent();
    assert_eq!(frames.len(), 14);
    let reply: Vec<u8> =
        frames.iter().flat_map(|frame| sent_packet(frame).unwrap().payload).collect();
    assert!(checksum::Sum::default().then(&reply).is_valid());
    assert!(reply[8..] == body);
    assert_eq!(host.counters().fragments_sent, 14);
}

/// Pitfall F13.
#[test]
fn one_lost_fragment_in_a_hundred_corrupts_nothing_when_identifications_wrap() {
    let (mut host, socket) = host();
    let mut lost = 0u32;
    for number in 0..70_000u32 {
        let payload = [number.to_be_bytes(); 20].concat();
        for (at, frame) in pieces(P, number as u16, &payload, 68).iter().enumerate() {
            if (number * 3 + at as u32).wrapping_mul(2_654_435_761).is_multiple_of(100) {
                lost += 1;
            } else {
                host.engine.handle_frame(host.now, frame, FrameChecksum::Verified);
            }
        }
        if let Some(received) = host.datagram(socket) {
            assert!(received == payload);
        }
        host.now = host.now + Duration::from_micros(10);
        if number % 1000 == 0 {
            host.engine.handle_timeout(host.now);
        }
    }
    assert!(lost > 500);
}

proptest! {
    /// Against a model that keeps every byte: what is delivered is what was sent.
    #[test]
    fn pieces_in_any_order_with_repetitions_give_the_bytes_back(
        len in 0usize..3000, mtu in 28usize..600, seed: u64, repeats in 0usize..5,
    ) {
        let (mut host, socket) = host();
        let payload = bytes(len);
        let frames = pieces(P, 1, &payload, mtu);
        let mut order: Vec<usize> = (0..frames.len()).collect();
        let mut random = seed;
        for at in (1..order.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            order.swap(at, (random >> 33) as usize % (at + 1));
        }
        // Repetitions of what came before, while the datagram is incomplete.
        for repeat in 0..repeats.min(order.len().saturating_sub(1)) {
            order.insert(repeat + 1, order[repeat]);
        }
        for at in order {
            host.receive(&frames[at]);
        }
        prop_assert_eq!(host.datagram(socket), Some(payload));
    }
}
