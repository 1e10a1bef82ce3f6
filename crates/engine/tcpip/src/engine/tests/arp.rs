//! ARP and the table of neighbours.

use super::*;

const D: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
const D_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 77]);

/// Pitfall A01.
#[test]
fn a_dead_neighbour_does_not_delay_a_live_one() {
    let mut host = Host::new();
    let socket = host.bind(7);
    host.udp_send(socket, D, b"dead");
    host.udp_send(socket, P, b"live");
    assert_eq!(arp_targets(&host.sent()), [D, P]);
}

/// Pitfall A01.
#[test]
fn one_neighbour_is_asked_for_once_a_second_however_much_is_sent() {
    let mut host = Host::new();
    let socket = host.bind(7);
    let mut requests = 0;
    for _ in 0..100 {
        host.udp_send(socket, D, b"x");
        let frames = host.advance(ms(100));
        requests += frames.iter().filter(|(_, frame)| sent_arp(frame).is_some()).count();
    }
    assert!((9..=11).contains(&requests), "{requests} in ten seconds");
    assert!(host.counters().neighbour_failures >= 3);
}

/// Pitfall A02.
#[test]
fn the_newest_packets_of_each_neighbour_wait_for_it() {
    let mut host = Host::new();
    let socket = host.bind(7);
    for number in 0..100u8 {
        host.udp_send(socket, P, &[number]);
        host.udp_send(socket, D, &[number]);
        host.sent();
    }
    assert_eq!(host.counters().dropped_neighbour_parked, 194);
    for (address, mac) in [(P, P_MAC), (D, D_MAC)] {
        host.receive(&arp_reply((mac, address)));
        let packets: Vec<_> = host.sent().iter().filter_map(|frame| sent_packet(frame)).collect();
        let numbers: Vec<u8> = packets.iter().map(|packet| packet.payload[8]).collect();
        assert_eq!(numbers, [97, 98, 99]);
        assert!(packets.iter().all(|packet| packet.to == mac && packet.destination == address));
    }
    assert_eq!(host.counters().neighbour_parked_bytes, 0);
}

/// Pitfall A02.
#[test]
fn the_first_ping_is_answered_although_its_sender_must_be_asked_for() {
    let mut host = Host::new();
    host.receive(&ping(P, H, b"first"));
    assert_eq!(arp_targets(&host.sent()), [P]);
    host.receive(&arp_reply((P_MAC, P)));
    let reply = sent_packet(&host.sent()[0]).unwrap();
    assert_eq!((reply.to, reply.destination), (P_MAC, P));
    assert_eq!(reply.payload[8..], *b"first");
}

#[test]
fn the_bytes_that_wait_are_bounded_and_each_neighbour_keeps_its_newest_packet() {
    let mut host = Host::new();
    let socket = host.bind(7);
    let neighbour = |last| Ipv4Addr::new(10, 0, 0, last);
    for round in 0..3 {
        for last in 100..160 {
            host.udp_send(socket, neighbour(last), &[round; 1400]);
            host.sent();
            host.check();
        }
    }
    for last in 100..160 {
        host.receive(&arp_reply((MacAddress([2, 0, 0, 0, 1, last]), neighbour(last))));
        let newest = host.sent().iter().filter_map(|frame| sent_packet(frame)).next_back();
        assert_eq!(newest.expect("one is left").payload[8], 2);
    }
}

/// Pitfall A03.
#[test]
fn an_entry_in_use_is_confirmed_by_unicast_without_a_pause() {
    let mut host = Host::new();
    host.introduce(P, P_MAC);
    let socket = host.bind(7);
    let mut unicast_requests = 0;
    for _ in 0..2000 {
        host.udp_send(socket, P, b"x");
        let frames = host.sent();
        let packets = frames.iter().filter(|frame| sent_packet(frame).is_some()).count();
        assert_eq!(packets, 1, "at {:?}", host.now);
        for (to, request) in frames.iter().filter_map(|frame| sent_arp(frame)) {
            assert_eq!((to, request.target, request.sender), (P_MAC, P, H));
            unicast_requests += 1;
            host.receive(&arp_reply((P_MAC, P)));
        }
        host.advance(ms(100));
    }
    assert!((5..=7).contains(&unicast_requests), "{unicast_requests} in 200 s");
}

#[test]
fn a_neighbour_that_falls_silent_is_given_up_and_one_that_nobody_uses_is_not_asked_for() {
    let mut host = Host::new();
    host.introduce(P, P_MAC);
    let socket = host.bind(7);
    assert!(host.advance(secs(400)).is_empty());
    host.udp_send(socket, P, b"x");
    let frames = host.advance(secs(20));
    // Still sent with the old address, while it is confirmed three times alone, then by all.
    assert!(frames.iter().any(|(_, frame)| sent_packet(frame).is_some()));
    let to: Vec<_> = frames.iter().filter_map(|(_, frame)| sent_arp(frame)).map(|a| a.0).collect();
    let all = MacAddress::BROADCAST;
    assert_eq!(to, [P_MAC, P_MAC, P_MAC, all, all, all]);
    assert_eq!(host.counters().neighbours, 0);
    assert_eq!(host.counters().neighbour_failures, 1);
}

#[test]
fn an_address_that_was_not_used_for_long_is_asked_for_anew() {
    let mut host = Host::new();
    host.introduce(P, P_MAC);
    let socket = host.bind(7);
    host.advance(secs(700));
    host.udp_send(socket, P, b"x");
    let frames = host.sent();
    assert!(frames.iter().all(|frame| sent_packet(frame).is_none()));
    assert_eq!(arp_targets(&frames), [P]);
}

/// Pitfall A04.
#[test]
fn a_flood_of_strangers_neither_grows_the_table_nor_evicts_who_is_in_use() {
    let mut config = config();
    config.address =
        AddressConfig::Static { address: H, prefix_len: 8, gateway: None, dns: vec![] };
    let mut host = Host::with(config);
    host.introduce(P, P_MAC);
    let socket = host.bind(7);
    for number in 0..10_000u32 {
        let stranger = Ipv4Addr::from_bits(0x0a01_0000 + number);
        host.receive(&arp_request((MacAddress([2, 9, 9, 9, 9, 9]), stranger), H));
        host.sent();
        if number % 100 == 0 {
            host.udp_send(socket, P, b"x");
            assert!(sent_packet(&host.sent()[0]).is_some(), "P is still known");
        }
    }
    assert_eq!(host.counters().neighbours, 256);
    // Gossip between others adds nobody.
    let known = host.counters().neighbours;
    host.receive(&arp_request((D_MAC, Ipv4Addr::new(10, 200, 0, 1)), P));
    assert_eq!(host.counters().neighbours, known);
    assert_eq!(host.counters().dropped_arp_unsolicited, 1);
}

#[test]
fn a_scan_ends_at_the_limit_of_unanswered_neighbours() {
    let mut config = config();
    config.address =
        AddressConfig::Static { address: H, prefix_len: 8, gateway: None, dns: vec![] };
    let mut host = Host::with(config);
    host.introduce(P, P_MAC);
    let socket = host.bind(7);
    let mut requests = 0;
    for number in 0..10_000u32 {
        host.udp_send(socket, Ipv4Addr::from_bits(0x0a01_0000 + number), b"x");
        requests += arp_targets(&host.sent()).len();
        host.advance(ms(1));
    }
    assert!(requests <= 64 * 11, "{requests} requests in ten seconds");
    assert!(host.counters().dropped_neighbour_table_full > 9000);
    host.udp_send(socket, P, b"x");
    assert!(sent_packet(&host.sent()[0]).is_some(), "P is still known");
}

/// Pitfall A05.
#[test]
fn impossible_senders_are_ignored() {
    let mut host = Host::new();
    for (mac, address) in [
        (MacAddress::BROADCAST, P),
        (MacAddress([3, 0, 0, 0, 0, 2]), P),
        (H_MAC, P),
        (P_MAC, Ipv4Addr::new(224, 0, 0, 1)),
        (P_MAC, Ipv4Addr::new(127, 0, 0, 1)),
        (P_MAC, Ipv4Addr::new(10, 0, 0, 255)),
        (P_MAC, Ipv4Addr::BROADCAST),
    ] {
        for operation in [Operation::Request, Operation::Reply] {
            let mut frame = arp(operation, (mac, address), H);
            frame[6..12].copy_from_slice(&P_MAC.0);
            host.receive(&frame);
            assert!(host.is_silent(), "{mac} {address}");
        }
    }
    assert_eq!(host.counters().neighbours, 0);
    assert_eq!(host.counters().dropped_arp_martian, 14);
}

/// Pitfall A05.
#[test]
fn our_address_is_defended_at_most_once_in_ten_seconds() {
    let mut host = Host::new();
    let mut announcements = Vec::new();
    for _ in 0..250 {
        host.receive(&arp_request((P_MAC, H), H));
        announcements.extend(host.advance(ms(100)));
    }
    assert_eq!(announcements.len(), 3, "in 25 s");
    for (_, frame) in announcements {
        let (to, packet) = sent_arp(&frame).unwrap();
        assert_eq!((to, packet.sender, packet.target), (MacAddress::BROADCAST, H, H));
    }
    assert_eq!(host.counters().arp_conflicts, 250);
    assert_eq!(host.counters().neighbours, 0);
}

/// Pitfall A06.
#[test]
fn a_probe_for_our_address_is_answered_and_teaches_nothing() {
    let mut host = Host::new();
    host.receive(&arp_request((P_MAC, Ipv4Addr::UNSPECIFIED), H));
    let (to, reply) = sent_arp(&host.sent()[0]).unwrap();
    assert_eq!((to, reply.operation), (P_MAC, Operation::Reply));
    assert_eq!((reply.sender_mac, reply.sender), (H_MAC, H));
    assert_eq!(host.counters().neighbours, 0);
    host.receive(&arp_request((P_MAC, Ipv4Addr::UNSPECIFIED), P));
    assert!(host.is_silent());
}

/// Pitfall A07.
#[test]
fn traffic_follows_a_router_that_announces_another_hardware_address() {
    let mut host = Host::new();
    let socket = host.bind(7);
    let outside = Ipv4Addr::new(192, 0, 2, 1);
    host.udp_send(socket, outside, b"x");
    assert_eq!(arp_targets(&host.sent()), [GATEWAY]);
    host.receive(&arp_reply((P_MAC, GATEWAY)));
    let packet = sent_packet(&host.sent()[0]).unwrap();
    assert_eq!((packet.to, packet.destination), (P_MAC, outside));
    host.receive(&arp_request((D_MAC, GATEWAY), GATEWAY));
    host.udp_send(socket, outside, b"x");
    assert_eq!(sent_packet(&host.sent()[0]).unwrap().to, D_MAC);
}

/// Pitfall A08.
#[test]
fn a_new_address_is_probed_then_announced_twice() {
    let mut host = Host::just_started(config());
    let frames = host.advance(secs(60));
    let at: Vec<_> = frames.iter().map(|(at, _)| *at - Instant::from_millis(1000)).collect();
    assert_eq!(at, [secs(0), secs(1), secs(3)]);
    let senders: Vec<_> =
        frames.iter().map(|(_, frame)| sent_arp(frame).unwrap().1.sender).collect();
    assert_eq!(senders, [Ipv4Addr::UNSPECIFIED, H, H]);
}

#[test]
fn a_flood_of_requests_is_answered_up_to_the_queue_and_leaves_room_for_our_own() {
    let mut host = Host::new();
    let socket = host.bind(7);
    for _ in 0..1000 {
        host.receive(&arp_request((P_MAC, P), H));
    }
    host.udp_send(socket, D, b"x");
    let frames = host.sent();
    assert_eq!(frames.len(), 64 + 1);
    assert_eq!(arp_targets(&frames), [D]);
    assert_eq!(host.counters().dropped_reply_queue, 1000 - 64);
}
