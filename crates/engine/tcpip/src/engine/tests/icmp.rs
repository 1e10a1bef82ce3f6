//! Echo, and errors in both directions.

use super::*;

/// H, who knows P.
fn host() -> Host {
    let mut host = Host::new();
    host.introduce(P, P_MAC);
    host
}

/// The ICMP messages in `frames`, as type and code.
fn messages(frames: &[Vec<u8>]) -> Vec<(u8, u8)> {
    frames
        .iter()
        .filter_map(|frame| sent_packet(frame))
        .filter(|packet| packet.protocol == PROTOCOL_ICMP)
        .map(|packet| (packet.payload[0], packet.payload[1]))
        .collect()
}

#[test]
fn a_ping_is_answered_with_what_it_carries() {
    let mut host = host();
    host.receive(&ping(P, H, b"some bytes"));
    let reply = sent_packet(&host.sent()[0]).unwrap();
    assert_eq!((reply.source, reply.destination), (H, P));
    assert_eq!(reply.payload[..2], [icmpv4::ECHO_REPLY, 0]);
    assert_eq!(reply.payload[4..], *b"\x01\x02\x03\x04some bytes");
}

/// Pitfall I10.
#[test]
fn broadcast_pings_are_not_answered() {
    let mut host = host();
    for destination in [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 0, 0, 255)] {
        let mut frame = ping(P, destination, b"x");
        frame[..6].copy_from_slice(&[0xff; 6]);
        host.receive(&frame);
    }
    assert!(host.is_silent());
    assert_eq!(host.counters().dropped_icmp_broadcast, 2);
}

#[test]
fn a_closed_port_and_an_unknown_protocol_are_reported_with_a_quote() {
    let mut host = host();
    let asked = udp(P, H, 7, b"anybody?");
    host.receive(&asked);
    let error = sent_packet(&host.sent()[0]).unwrap();
    assert_eq!(error.payload[..2], [icmpv4::DESTINATION_UNREACHABLE, 3]);
    assert_eq!(error.payload[8..], asked[14..]);
    host.receive(&ip(P, H, 132, &[0; 2000 - 600]));
    let error = sent_packet(&host.sent()[0]).unwrap();
    assert_eq!(error.payload[..2], [icmpv4::DESTINATION_UNREACHABLE, 2]);
    assert_eq!(error.payload.len() + 20, 576);
}

/// Pitfall I04.
#[test]
fn no_error_answers_an_error_a_broadcast_a_later_fragment_or_an_impossible_source() {
    let mut host = host();
    // An ICMP error, about something that we did not send.
    let quote = &udp(H, P, 7, b"x")[14..];
    let error = icmpv4::to_bytes(icmpv4::DESTINATION_UNREACHABLE, 3, [0; 4], quote);
    host.receive(&ip(P, H, PROTOCOL_ICMP, &error));
    // A broadcast, by packet and by frame.
    let mut frame = udp(P, Ipv4Addr::BROADCAST, 7, b"x");
    frame[..6].copy_from_slice(&[0xff; 6]);
    host.receive(&frame);
    let mut frame = udp(P, H, 7, b"x");
    frame[..6].copy_from_slice(&[0xff; 6]);
    host.receive(&frame);
    // A multicast.
    let mut frame = udp(P, Ipv4Addr::new(224, 0, 0, 251), 5353, b"x");
    frame[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 251]);
    host.receive(&frame);
    // A later fragment.
    let mut packet = header(P, H, PROTOCOL_UDP).to_fragment_bytes(8, 8, true).to_vec();
    packet.extend([0; 8]);
    host.receive(&eth(H_MAC, P_MAC, ethernet::TYPE_IPV4, &packet));
    // No unicast source.
    host.receive(&udp(Ipv4Addr::new(224, 0, 0, 1), H, 7, b"x"));
    assert!(host.is_silent());
    assert!(
        messages(&host.advance(secs(200)).into_iter().map(|f| f.1).collect::<Vec<_>>()).is_empty()
    );
}

/// Pitfall I05.
#[test]
fn errors_are_limited_in_all_and_per_destination() {
    let mut host = host();
    for _ in 0..10_000 {
        host.receive(&udp(P, H, 7, b"x"));
        host.now = host.now + Duration::from_micros(100);
    }
    let sent = messages(&host.sent()).len();
    assert!((5..=25).contains(&sent), "{sent} in one second to one host");
    assert_eq!(host.counters().icmp_errors_limited + sent as u64, 10_000);

    // What one host has spent leaves another its own.
    let other = Ipv4Addr::new(10, 0, 0, 3);
    host.introduce(other, P_MAC);
    host.receive(&udp(other, H, 7, b"x"));
    assert_eq!(messages(&host.sent()), [(3, 3)]);

    for number in 0..10_000u32 {
        host.receive(&udp(Ipv4Addr::from_bits(0xc000_0200 + number), H, 7, b"x"));
        host.now = host.now + Duration::from_micros(100);
    }
    assert!(host.counters().icmp_errors_sent <= 200, "{:?}", host.counters());
}

#[test]
fn echo_replies_are_limited() {
    let mut host = host();
    for _ in 0..10_000 {
        host.receive(&ping(P, H, b"x"));
        host.now = host.now + Duration::from_micros(100);
        host.sent();
    }
    let sent = host.counters().icmp_echo_replies_sent;
    assert!((300..=1000).contains(&sent), "{sent}");
    assert_eq!(host.counters().icmp_echo_replies_limited, 10_000 - sent);
}

#[test]
fn replies_that_the_device_does_not_take_are_bounded() {
    let mut host = host();
    for _ in 0..200 {
        host.receive(&ping(P, H, &[0; 1400]));
    }
    assert!(host.counters().dropped_reply_queue > 0);
    let bytes: usize = host.sent().iter().map(Vec::len).sum();
    assert!(bytes <= host.limits.reply_queue_bytes);
}

/// Pitfall I06.
#[test]
fn errors_about_what_is_not_ours_are_counted_and_ignored() {
    let mut host = host();
    let socket = host.bind(7);
    let error = |quote: &[u8]| {
        let message = icmpv4::to_bytes(icmpv4::DESTINATION_UNREACHABLE, 3, [0; 4], quote);
        ip(P, H, PROTOCOL_ICMP, &message)
    };
    let ours = udp_wire::to_bytes((H, 7), (P, 9), b"x");
    let quoted = |source, offset| {
        let mut packet =
            header(source, P, PROTOCOL_UDP).to_fragment_bytes(9, offset, false).to_vec();
        packet.extend(&ours);
        packet
    };
    // Another's, a later fragment's, cut short in the header and in the transport, and nothing.
    host.receive(&error(&quoted(P, 0)));
    host.receive(&error(&quoted(H, 64)));
    host.receive(&error(&quoted(H, 0)[..19]));
    host.receive(&error(&quoted(H, 0)[..27]));
    host.receive(&error(&[]));
    // An echo request of ours there is none.
    host.receive(&error(&ping(H, P, b"x")[14..]));
    assert_eq!(host.counters().dropped_icmp_unmatched, 6);
    // One that quotes our socket's datagram fails no receive (RFC 1122 §4.1.3.3).
    host.receive(&error(&quoted(H, 0)));
    assert_eq!(host.counters().icmp_errors_received, 1);
    assert_eq!(host.datagram(socket), None);
    assert!(host.events().iter().all(|event| !matches!(event, Event::UdpReadable(_))));
    assert!(host.is_silent());
}

/// Pitfalls I08, I16.
#[test]
fn source_quench_redirects_and_unknown_messages_are_ignored() {
    let mut host = host();
    let socket = host.bind(7);
    let quote = &udp(H, P, 7, b"x")[14..];
    for (kind, code) in
        [(4, 0), (5, 0), (5, 1), (3, 99), (9, 0), (10, 0), (13, 0), (17, 0), (255, 255)]
    {
        let message = icmpv4::to_bytes(kind, code, [10, 0, 0, 66], quote);
        host.receive(&ip(P, H, PROTOCOL_ICMP, &message));
    }
    assert_eq!(host.counters().dropped_icmp_type, 9);
    assert!(host.is_silent());
    host.udp_send(socket, P, b"x");
    assert_eq!(sent_packet(&host.sent()[0]).unwrap().to, P_MAC, "no redirect was obeyed");
}

/// Pitfall I09.
#[test]
fn errors_that_quote_errors_are_read_one_deep() {
    let mut host = host();
    let mut quote = udp(H, P, 7, b"x")[14..].to_vec();
    for _ in 0..20 {
        let message = icmpv4::to_bytes(icmpv4::DESTINATION_UNREACHABLE, 3, [0; 4], &quote);
        quote = ip(H, P, PROTOCOL_ICMP, &message)[14..].to_vec();
    }
    let message = icmpv4::to_bytes(icmpv4::DESTINATION_UNREACHABLE, 3, [0; 4], &quote);
    host.receive(&ip(P, H, PROTOCOL_ICMP, &message));
    assert_eq!(host.counters().dropped_icmp_unmatched, 1);
    assert!(host.is_silent());
}
