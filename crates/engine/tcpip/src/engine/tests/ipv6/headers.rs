//! Headers, errors, echoes.

use super::*;

fn error_of(frames: &[Vec<u8>]) -> Option<(u8, u8, u32, Sent6)> {
    let sent: Vec<Sent6> = frames.iter().filter_map(|frame| sent6(frame)).collect();
    let error =
        sent.iter().find(|sent| sent.protocol == PROTOCOL_ICMPV6 && sent.payload[0] < 128)?;
    let message = Message::parse(&error.payload).unwrap();
    Some((message.kind, message.code, message.mtu(), error.clone()))
}

fn host() -> Host {
    let mut host = host6();
    host.introduce6(P6, P_MAC);
    host
}

#[test]
fn a_ping_is_answered_with_what_it_brought() {
    let mut host = host();
    host.receive(&ping6(P6, H6, b"hello"));
    let replies = messages(&host.sent(), icmpv6::ECHO_REPLY);
    assert_eq!(replies.len(), 1);
    assert_eq!((replies[0].source, replies[0].destination), (H6, P6));
    assert_eq!(&replies[0].payload[4..], b"\x01\x02\x03\x04hello");
    assert_eq!(replies[0].hop_limit, 64);
    // All nodes: from the address that suits the asker.
    host.receive(&ping6(P6, ndp::ALL_NODES, b"all"));
    assert_eq!(messages(&host.sent(), icmpv6::ECHO_REPLY)[0].source, H6);
}

/// Pitfall V01, TAHI 1.1.4, 1.1.6, 1.2.2, 1.2.3.
#[test]
fn unknown_headers_are_named_and_no_next_header_is_silent() {
    let mut host = host();
    host.receive(&ip6(P6, H6, 59, b"whatever"));
    assert!(host.is_silent());
    host.receive(&ip6(P6, H6, 60, &[59, 0, 1, 4, 0, 0, 0, 0]));
    assert!(host.is_silent());
    for unknown in [138, 200, 252] {
        host.receive(&ip6(P6, H6, unknown, &[0; 8]));
        let (kind, code, pointer, _) = error_of(&host.sent()).unwrap();
        assert_eq!((kind, code, pointer), (icmpv6::PARAMETER_PROBLEM, 1, 6));
        host.receive(&ip6(P6, H6, 60, &[unknown, 0, 1, 4, 0, 0, 0, 0]));
        let (kind, code, pointer, _) = error_of(&host.sent()).unwrap();
        assert_eq!((kind, code, pointer), (icmpv6::PARAMETER_PROBLEM, 1, 40));
        host.advance(secs(1));
    }
    // A hop-by-hop header that is not first.
    let twice = [[0, 0, 1, 4, 0, 0, 0, 0], [59, 0, 1, 4, 0, 0, 0, 0]].concat();
    host.receive(&ip6(P6, H6, 60, &twice));
    let (kind, code, pointer, _) = error_of(&host.sent()).unwrap();
    assert_eq!((kind, code, pointer), (icmpv6::PARAMETER_PROBLEM, 1, 40));
    // Traffic class, flow label and a hop limit of 0 are nobody's business here.
    let mut odd = ping6(P6, H6, b"odd");
    (odd[14], odd[15], odd[21]) = (0x6f, 0xff, 0);
    host.receive(&odd);
    assert_eq!(messages(&host.sent(), icmpv6::ECHO_REPLY).len(), 1);
}

/// Pitfall V02.
#[test]
fn options_are_skipped_dropped_or_answered_as_they_ask() {
    let mut host = host();
    for next in [0, 60] {
        for (option, to_group, answered, problem) in [
            (0x1e, false, true, false),
            (0x5e, false, false, false),
            (0x9e, false, false, true),
            (0xde, false, false, true),
            (0x1e, true, true, false),
            (0x5e, true, false, false),
            (0x9e, true, false, true),
            (0xde, true, false, false),
        ] {
            let destination = if to_group { ndp::ALL_NODES } else { H6 };
            let options = [PROTOCOL_ICMPV6, 0, 1, 0, option, 2, 0, 0];
            let payload = [&options[..], &ping_bytes(P6, destination, b"x")].concat();
            host.receive(&advertisement(P_MAC, P6, H6, ndp::FLAG_SOLICITED));
            host.receive(&ip6(P6, destination, next, &payload));
            let frames = host.sent();
            let name = format!("{next} {option:x} {to_group}");
            assert_eq!(!messages(&frames, icmpv6::ECHO_REPLY).is_empty(), answered, "{name}");
            let error = error_of(&frames);
            assert_eq!(error.is_some(), problem, "{name}");
            if let Some((kind, code, pointer, sent)) = error {
                assert_eq!((kind, code, pointer), (icmpv6::PARAMETER_PROBLEM, 2, 44), "{name}");
                assert_eq!(sent.source, H6);
            }
            host.advance(secs(1));
        }
    }
}

/// Pitfalls V03, V04.
#[test]
fn long_chains_are_dropped_and_routing_headers_not_obeyed() {
    let mut host = host();
    host.receive(&ip6(P6, H6, 60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(60)));
    let mut pads = vec![PROTOCOL_ICMPV6, 124];
    pads.resize(1000, 0);
    host.receive(&ip6(P6, H6, 60, &pads));
    assert!(host.is_silent());
    assert_eq!(host.counters().dropped_ipv6_extension_limit, 2);
    for kind in [0, 2, 4] {
        let routing = |left| [PROTOCOL_ICMPV6, 0, kind, left, 0, 0, 0, 0];
        let ping = ping_bytes(P6, H6, b"x");
        host.receive(&ip6(P6, H6, 43, &[&routing(0)[..], &ping].concat()));
        assert_eq!(messages(&host.sent(), icmpv6::ECHO_REPLY).len(), 1);
        host.receive(&ip6(P6, H6, 43, &[&routing(1)[..], &ping].concat()));
        let (kind, code, pointer, _) = error_of(&host.sent()).unwrap();
        assert_eq!((kind, code, pointer), (icmpv6::PARAMETER_PROBLEM, 0, 42));
        host.advance(secs(1));
    }
}

/// Pitfall V05.
#[test]
fn errors_fit_every_link_and_answer_no_error_and_no_group() {
    let mut host = host();
    host.receive(&udp6(P6, H6, 7, &[0; 1400]));
    let (kind, code, _, sent) = error_of(&host.sent()).unwrap();
    assert_eq!((kind, code), (icmpv6::DESTINATION_UNREACHABLE, 4));
    assert_eq!(sent.payload.len() + 40, 1280);
    let datagram = udp_wire::to_bytes((P6, 9), (ndp::ALL_NODES, 7), b"x");
    host.receive(&ip6(P6, ndp::ALL_NODES, PROTOCOL_UDP, &datagram));
    // Whole in a frame for a group.
    let mut frame = udp6(P6, H6, 7, b"x");
    frame[..6].copy_from_slice(&MacAddress::BROADCAST.0);
    host.receive(&frame);
    // About errors, known and unknown, and redirects: as the payload of something unknown.
    for kind in [1, 2, 3, 4, 100, 127] {
        let error = icmpv6::to_bytes(P6, H6, (kind, 0), [0; 4], &packet6(H6, P6, 17, 64, &[0; 8]));
        host.receive(&ip6(P6, H6, PROTOCOL_ICMPV6, &error));
        // In a header with an option that asks for an answer.
        let options = [PROTOCOL_ICMPV6, 0, 1, 0, 0x9e, 2, 0, 0];
        host.receive(&ip6(P6, H6, 60, &[&options[..], &error].concat()));
    }
    assert!(host.is_silent());
    // An unknown message that is no error is dropped.
    let strange = icmpv6::to_bytes(P6, H6, (200, 0), [0; 4], b"");
    host.receive(&ip6(P6, H6, PROTOCOL_ICMPV6, &strange));
    assert!(host.is_silent());
    assert!(host.counters().dropped_icmp_type > 0);
}

/// Pitfalls I01, I02, L09.
#[test]
fn packets_from_impossible_addresses_are_dropped_silently() {
    let mut host = host();
    let mapped = "::ffff:10.0.0.2".parse().unwrap();
    let before = host.counters();
    for source in [H6, Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, ndp::ALL_NODES, mapped] {
        host.receive(&ping6(source, H6, b"x"));
        host.receive(&udp6(source, H6, 7, b"x"));
        host.receive(&udp6(source, ndp::ALL_NODES, 7, b"x"));
    }
    host.receive(&ping6(P6, Ipv6Addr::LOCALHOST, b"x"));
    host.receive(&ping6(P6, Ipv6Addr::UNSPECIFIED, b"x"));
    let mut in_group_frame = ping6(P6, H6, b"x");
    in_group_frame[..6].copy_from_slice(&ndp::group_mac(ndp::ALL_NODES).0);
    host.receive(&in_group_frame);
    assert!(host.is_silent());
    assert_eq!(host.counters().dropped_ipv6_martian - before.dropped_ipv6_martian, 18);
    // Not ours, and a group that we are not of.
    host.receive(&ping6(P6, FAR, b"x"));
    host.receive(&ping6(P6, "ff02::fb".parse().unwrap(), b"x"));
    assert!(host.is_silent());
    assert_eq!(host.counters().dropped_ipv6_not_ours - before.dropped_ipv6_not_ours, 2);
}

/// Pitfall I02.
#[test]
fn packets_to_ourselves_stay_inside() {
    let mut host = host();
    let socket = host.bind(9);
    for to in [H6, Ipv6Addr::LOCALHOST] {
        host.udp_send6(socket, to, b"inside");
        assert!(host.advance(ms(1)).is_empty());
        assert_eq!(host.datagram(socket).unwrap(), b"inside");
    }
}

/// Pitfall L01.
#[test]
fn a_flipped_bit_of_what_a_checksum_covers_is_never_answered() {
    let mut host = host();
    let socket = host.bind(7);
    for frame in [ping6(P6, H6, b"payload"), udp6(P6, H6, 7, b"payload"), udp6(P6, H6, 8, b"x")] {
        // Source and destination are in the pseudo-header.
        for bit in 22 * 8..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            host.receive(&flipped);
            assert!(host.is_silent(), "bit {bit}");
            assert_eq!(host.datagram(socket), None, "bit {bit}");
        }
    }
}

/// Pitfall L03.
#[test]
fn a_datagram_without_checksum_is_dropped_even_if_the_device_vouches_for_it() {
    let mut host = host();
    let socket = host.bind(7);
    let mut frame = udp6(P6, H6, 7, b"x");
    frame[14 + 40 + 6..14 + 40 + 8].fill(0);
    host.receive(&frame);
    host.receive_with(&frame, FrameChecksum::Verified);
    assert_eq!(host.datagram(socket), None);
    assert_eq!(host.counters().dropped_udp_checksum, 2);
    // Blank: it never left this host, and carries the pseudo-header's sum.
    host.receive_with(&frame, FrameChecksum::Blank);
    assert_eq!(host.datagram(socket).unwrap(), b"x");
}

/// Pitfall L07.
#[test]
fn padding_behind_the_payload_length_is_no_data() {
    let mut host = host();
    let socket = host.bind(7);
    let mut frame = udp6(P6, H6, 7, b"x");
    frame.extend([0xaa; 30]);
    host.receive(&frame);
    assert_eq!(host.datagram(socket).unwrap(), b"x");
}

/// Pitfall I05.
#[test]
fn a_flood_is_answered_at_a_limited_rate() {
    let mut host = host();
    let mut answers = 0;
    for number in 0..10_000u32 {
        host.now = host.now + Duration::from_micros(100);
        let source = Ipv6Addr::from_bits(P6.to_bits() + u128::from(number % 100));
        host.receive(&udp6(source, H6, 7, b"x"));
        let frames = host.sent();
        answers += messages(&frames, icmpv6::DESTINATION_UNREACHABLE).len();
    }
    assert!(answers <= 100, "{answers}");
    assert!(host.counters().icmp_errors_limited > 9_000);
}

/// Pitfall U04.
#[test]
fn a_forged_error_changes_nothing_for_a_socket() {
    let mut host = host();
    let socket = host.bind(9);
    let quoted = packet6(H6, P6, 17, 64, &udp_wire::to_bytes((H6, 9), (P6, 9), b"x"));
    for (kind, code) in [(1, 0), (1, 4), (3, 0), (4, 1)] {
        let error = icmpv6::to_bytes(P6, H6, (kind, code), [0; 4], &quoted);
        host.receive(&ip6(P6, H6, PROTOCOL_ICMPV6, &error));
    }
    assert_eq!(host.datagram(socket), None);
    assert!(host.sends_to(socket, P6).is_some());
}

/// Pitfall L04.
#[test]
fn a_checksum_is_left_to_the_device_only_where_it_can_fill_it_in() {
    let mut config = config6();
    config.ipv6.transmit_checksum_offload = true;
    let mut host = Host::with(config);
    host.introduce6(P6, P_MAC);
    let socket = host.bind(7);
    host.udp_send6(socket, P6, &[1; 100]);
    host.udp_send6(socket, P6, &[1; 3000]);
    let mut partial = Vec::new();
    let mut buffer = vec![0; 1514];
    while let Some(transmit) = host.engine.poll_transmit(host.now, &mut buffer) {
        assert!(transmit.is_ipv6);
        partial.push(transmit.partial_checksum);
    }
    let of_udp = PartialChecksum { start: 54, offset: 6 };
    assert_eq!(partial, [Some(of_udp), None, None, None], "fragments are finished here");
}

/// Pitfall X03: every kind of message, bent a little, its checksum mended, at any time.
#[test]
fn bent_messages_never_panic_and_hold_no_more_than_the_limits() {
    let ra = Ra::new().prefix(PREFIX, 64, 0xc0, 3600, 3600).mtu(1400).frame();
    let fragment = |offset: usize, more_fragments| {
        let header = wire::Fragment { next_header: 17, offset, more_fragments, identification: 5 };
        ip6(P6, H6, wire::FRAGMENT, &[&header.to_bytes()[..], &[7; 64]].concat())
    };
    let query = icmpv6::to_bytes(R6, ndp::ALL_NODES, (icmpv6::MLD_QUERY, 0), [0; 4], &[0; 20]);
    let quoted = packet6(H6, P6, 17, 64, &udp_wire::to_bytes((H6, 9), (P6, 9), b"x"));
    let too_big = icmpv6::to_bytes(P6, H6, (icmpv6::PACKET_TOO_BIG, 0), [0, 0, 5, 0], &quoted);
    let options = [PROTOCOL_ICMPV6, 0, 1, 0, 0x9e, 2, 0, 0];
    let behind = [&options[..], &ping_bytes(P6, H6, b"x")].concat();
    let seeds = [
        ping6(P6, H6, b"x"),
        udp6(P6, H6, 9, b"x"),
        ra,
        solicitation(P6, P_MAC, H6),
        solicitation(Ipv6Addr::UNSPECIFIED, P_MAC, H6),
        advertisement(P_MAC, P6, H6, 0xe0),
        fragment(0, true),
        fragment(64, false),
        frame6(R_MAC, &packet6(R6, ndp::ALL_NODES, PROTOCOL_ICMPV6, 1, &query)),
        ip6(P6, H6, PROTOCOL_ICMPV6, &too_big),
        ip6(P6, H6, 60, &behind),
        ip6(P6, H6, 0, &behind),
    ];
    for seed in 0..4 {
        let mut dice = crate::simulation::Dice(seed);
        let mut host = host();
        let socket = host.bind(9);
        host.engine.tcp_listen("[::]:80".parse().unwrap(), 8).unwrap();
        for _ in 0..3_000 {
            let mut frame = seeds[dice.below(seeds.len() as u64) as usize].clone();
            for _ in 0..dice.below(4) {
                let at = 14 + dice.below(frame.len() as u64 - 14) as usize;
                frame[at] = dice.roll() as u8;
            }
            if dice.percent(10) {
                frame.truncate(14 + dice.below(frame.len() as u64 - 13) as usize);
            }
            if dice.percent(80) {
                mend(&mut frame);
            }
            host.receive(&frame);
            if dice.percent(10) {
                let _ = host.engine.udp_send(host.now, socket, (P6, 9).into(), &[0; 3000]);
            }
            match dice.below(20) {
                0 => drop(host.advance(secs(dice.below(100)))),
                1..4 => drop(host.advance(ms(dice.below(1000)))),
                _ => drop(host.sent()),
            }
        }
        assert!(host.counters().ndp_router_advertisements > 0, "seed {seed}");
    }
}

/// Makes the checksum of a message of ICMPv6 right again, if it can be found.
fn mend(frame: &mut [u8]) {
    let Some(packet) = wire::Packet::parse(&frame[14..]) else { return };
    let wire::Walk::Upper { protocol: PROTOCOL_ICMPV6, start, .. } = packet.walk() else { return };
    let (len, end) = (packet.bytes().len() - start, 14 + packet.bytes().len());
    if len < 4 {
        return;
    }
    let sum = checksum::Sum::of_pseudo_header(
        packet.source(),
        packet.destination(),
        PROTOCOL_ICMPV6,
        len,
    );
    let at = 14 + start + 2;
    frame[at..at + 2].fill(0);
    let sum = sum.then(&frame[14 + start..end]).finish();
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}
