//! UDP sockets.

use super::*;
use crate::error::{BindError, SendError};

/// Pitfall U05.
#[test]
fn a_datagram_goes_both_ways_and_an_empty_one_is_one() {
    let mut host = Host::new();
    host.introduce(P, P_MAC);
    let socket = host.bind(7);
    for payload in [&b"hello"[..], b""] {
        host.receive(&udp(P, H, 7, payload));
        assert_eq!(host.events().last(), Some(&Event::UdpReadable(socket)));
        let mut buffer = [0; 100];
        let datagram = host.engine.udp_receive(socket, &mut buffer).unwrap();
        assert_eq!(&buffer[..datagram.len], payload);
        assert_eq!(datagram.source, SocketAddr::from((P, 9)));
        assert_eq!(datagram.destination, SocketAddr::from((H, 7)));
        assert_eq!(host.datagram(socket), None);

        host.udp_send(socket, P, payload);
        let packet = sent_packet(&host.sent()[0]).unwrap();
        assert_eq!(packet.payload[8..], *payload);
    }
}

#[test]
fn what_does_not_fit_into_the_buffer_is_lost_and_said() {
    let mut host = Host::new();
    let socket = host.bind(7);
    host.receive(&udp(P, H, 7, b"hello"));
    let mut buffer = [0; 3];
    let datagram = host.engine.udp_receive(socket, &mut buffer).unwrap();
    assert_eq!((datagram.len, datagram.truncated, &buffer), (3, true, b"hel"));
}

/// Pitfall U02.
#[test]
fn lengths_that_cannot_be_are_dropped() {
    let mut host = Host::new();
    let socket = host.bind(7);
    let datagram = udp_wire::to_bytes((P, 9), (H, 7), b"four");
    for len in (0..12u16).chain([13, 14, 65_535]) {
        let mut bad = datagram.clone();
        bad[4..6].copy_from_slice(&len.to_be_bytes());
        // Without a checksum, so that only the length is wrong.
        bad[6..8].copy_from_slice(&[0, 0]);
        host.receive(&ip(P, H, PROTOCOL_UDP, &bad));
        let is_possible = (8..=12).contains(&len);
        assert_eq!(host.datagram(socket).is_some(), is_possible, "{len}");
    }
    assert_eq!(host.counters().dropped_udp_malformed, 8 + 3);
}

/// Pitfall U03.
#[test]
fn a_queue_is_bounded_in_bytes_and_one_socket_does_not_starve_another() {
    let mut host = Host::new();
    let flooded = host.bind(7);
    let other = host.bind(8);
    for size in [0, 1, 1400] {
        for _ in 0..10_000 {
            host.receive(&udp(P, H, 7, &vec![0; size]));
        }
    }
    assert!(host.counters().dropped_udp_queue > 20_000);
    host.receive(&udp(P, H, 8, b"other"));
    assert_eq!(host.datagram(other).unwrap(), b"other");
    assert_eq!(host.datagram(flooded).unwrap(), b"", "the newest are dropped");
    host.receive(&ping(P, H, b"x"));
    assert_eq!(host.counters().icmp_echo_replies_sent, 1);
}

#[test]
fn a_full_send_queue_says_so_and_tells_when_there_is_room() {
    let mut host = Host::new();
    host.introduce(P, P_MAC);
    let socket = host.bind(7);
    let to = SocketAddr::from((P, 9));
    let mut queued = 0;
    while host.engine.udp_send(host.now, socket, to, &[1; 1000]).unwrap() {
        queued += 1;
    }
    assert!((200..=262).contains(&queued), "{queued}");
    host.events();
    host.check();
    assert_eq!(host.sent().len(), queued);
    assert_eq!(host.events(), [Event::UdpWritable(socket)]);
    assert_eq!(host.engine.udp_send(host.now, socket, to, b"x"), Ok(true));
}

/// Pitfall U01.
#[test]
fn a_datagram_that_cannot_be_sent_is_an_error() {
    let mut host = Host::new();
    let socket = host.bind(7);
    let mut send = |to: &str, len: usize| {
        host.engine.udp_send(host.now, socket, to.parse().unwrap(), &vec![0; len])
    };
    assert_eq!(send("10.0.0.2:9", 65_508), Err(SendError::TooLong { len: 65_508 }));
    assert_eq!(send("10.0.0.2:9", 65_507), Ok(true));
    for to in ["0.0.0.0:9", "240.0.0.1:9", "10.0.0.2:0"] {
        assert_eq!(send(to, 1), Err(SendError::BadAddress(to.parse().unwrap())));
    }
    for to in ["[::]:9", "[::ffff:240.0.0.1]:9", "[2001:db8::1]:0"] {
        assert!(matches!(send(to, 1), Err(SendError::BadAddress(_))), "{to}");
    }
    let v6 = "[2001:db8::1]:9";
    assert_eq!(send(v6, 1), Err(SendError::NoRoute(v6.parse().unwrap())));
    host.engine.udp_close(socket);
    let closed = host.engine.udp_send(host.now, socket, "10.0.0.2:9".parse().unwrap(), b"x");
    assert_eq!(closed, Err(SendError::Closed));
}

#[test]
fn a_dead_id_gives_nothing_and_its_successor_gets_nothing_of_it() {
    let mut host = Host::new();
    let socket = host.bind(7);
    host.receive(&udp(P, H, 7, b"old"));
    host.engine.udp_close(socket);
    host.engine.udp_close(socket);
    let successor = host.bind(7);
    assert_eq!(successor.index(), socket.index());
    assert_eq!(host.datagram(socket), None);
    assert_eq!(host.datagram(successor), None);
    assert_eq!(host.engine.udp_addr(socket), None);
    assert_eq!(host.engine.udp_addr(successor), Some(SocketAddr::from(([0, 0, 0, 0], 7))));
}

#[test]
fn ports_are_found_free_and_run_out_with_an_error() {
    let mut config = config();
    config.limits.udp_sockets = 100_000;
    let mut host = Host::with(config);
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let mut ports = std::collections::HashSet::new();
    for _ in 0..300 {
        let id = host.engine.udp_bind(any).unwrap();
        assert!(ports.insert(host.engine.udp_addr(id).unwrap().port()));
    }
    assert!(ports.iter().max().unwrap() - ports.iter().min().unwrap() > 10_000, "not in a row");
    let taken = SocketAddr::from((H, *ports.iter().next().unwrap()));
    assert_eq!(host.engine.udp_bind(taken), Err(BindError::InUse(taken)));
}

#[test]
fn sockets_are_limited_in_number() {
    let mut config = config();
    config.limits.udp_sockets = 10;
    let mut host = Host::with(config);
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let ids: Vec<_> = (0..10).map(|_| host.engine.udp_bind(any).unwrap()).collect();
    assert_eq!(host.engine.udp_bind(any), Err(BindError::TooMany));
    host.engine.udp_close(ids[3]);
    assert!(host.engine.udp_bind(any).is_ok());
}

/// Pitfall U06.
#[test]
fn a_broadcast_is_sent_received_and_named_as_such() {
    let mut host = Host::new();
    let socket = host.bind(7);
    for address in [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 0, 0, 255)] {
        host.udp_send(socket, address, b"all");
        assert_eq!(sent_packet(&host.sent()[0]).unwrap().to, MacAddress::BROADCAST);
        let mut frame = udp(P, address, 7, b"all");
        frame[..6].copy_from_slice(&[0xff; 6]);
        host.receive(&frame);
        let datagram = host.engine.udp_receive(socket, &mut [0; 9]).unwrap();
        assert_eq!(*v4(datagram.destination).ip(), address);
    }
    // To a group, with a time to live of one.
    host.udp_send(socket, Ipv4Addr::new(224, 0, 0, 251), b"group");
    let frame = &host.sent()[0];
    assert_eq!(frame[..6], [1, 0, 0x5e, 0, 0, 251]);
    assert_eq!(frame[14 + 8], 1);
}

#[test]
fn a_specific_address_takes_precedence_over_the_unspecified_one_on_other_ports() {
    let mut host = Host::new();
    let specific = host.engine.udp_bind(SocketAddr::from((H, 7))).unwrap();
    host.receive(&udp(P, H, 7, b"x"));
    assert!(host.datagram(specific).is_some());
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7));
    assert_eq!(host.engine.udp_bind(any), Err(BindError::InUse(any)));
    // A broadcast is for nobody's specific address.
    let mut frame = udp(P, Ipv4Addr::BROADCAST, 7, b"all");
    frame[..6].copy_from_slice(&[0xff; 6]);
    host.receive(&frame);
    assert_eq!(host.datagram(specific), None);
}

#[test]
fn a_dhcp_server_hears_hosts_without_an_address_and_nobody_else_does() {
    let nobody = Ipv4Addr::UNSPECIFIED;
    let broadcast = |port: u16, protocol| {
        let datagram = udp_wire::to_bytes((nobody, 68), (Ipv4Addr::BROADCAST, port), b"discover");
        let packet = ip(nobody, Ipv4Addr::BROADCAST, protocol, &datagram);
        [&[0xff; 6][..], &packet[6..]].concat()
    };
    let mut host = Host::new();
    // Nobody listens, so the address is a mistake.
    host.receive(&broadcast(67, PROTOCOL_UDP));
    assert_eq!(host.counters().dropped_ipv4_martian, 1);
    let (server, other) = (host.bind(67), host.bind(7));
    host.receive(&broadcast(67, PROTOCOL_UDP));
    let mut buffer = [0; 100];
    let datagram = host.engine.udp_receive(server, &mut buffer).unwrap();
    assert_eq!(datagram.source, SocketAddr::from((nobody, 68)));
    assert_eq!(datagram.destination, SocketAddr::from((Ipv4Addr::BROADCAST, 67)));
    assert_eq!(&buffer[..datagram.len], b"discover");
    // Another port, another protocol, a broken sum, one address of ours.
    host.receive(&broadcast(7, PROTOCOL_UDP));
    host.receive(&broadcast(67, PROTOCOL_TCP));
    let mut broken = broadcast(67, PROTOCOL_UDP);
    *broken.last_mut().unwrap() ^= 1;
    host.receive(&broken);
    host.receive(&ip(nobody, H, PROTOCOL_UDP, &udp_wire::to_bytes((nobody, 68), (H, 67), b"x")));
    assert_eq!((host.datagram(server), host.datagram(other)), (None, None));
    assert_eq!(host.counters().dropped_ipv4_martian, 4);
    assert_eq!(host.counters().dropped_udp_checksum, 1);
    assert!(host.is_silent(), "nobody is answered with an error");
}

#[test]
fn a_datagram_goes_to_a_neighbour_that_was_given_by_hand_and_to_everybody() {
    let mut host = Host::new();
    let socket = host.bind(67);
    let new = Ipv4Addr::new(10, 0, 0, 77);
    let mac = MacAddress([2, 0, 0, 0, 0, 77]);
    assert!(host.engine.set_neighbour(host.now, new.into(), mac));
    host.udp_send(socket, new, b"offer");
    let frames = host.sent();
    assert_eq!(frames.len(), 1, "it is not asked for");
    assert_eq!(Frame::parse(&frames[0]).unwrap().destination, mac);
    host.udp_send(socket, Ipv4Addr::BROADCAST, b"offer");
    let frames = host.sent();
    assert_eq!(Frame::parse(&frames[0]).unwrap().destination, MacAddress::BROADCAST);
    // Given to another card, it goes there.
    let other = MacAddress([2, 0, 0, 0, 0, 78]);
    assert!(host.engine.set_neighbour(host.now, new.into(), other));
    host.udp_send(socket, new, b"offer");
    assert_eq!(Frame::parse(&host.sent()[0]).unwrap().destination, other);
    // What cannot be a neighbour.
    for (address, mac) in [
        (H, mac),
        (Ipv4Addr::new(10, 0, 1, 1), mac),
        (Ipv4Addr::BROADCAST, mac),
        (Ipv4Addr::LOCALHOST, mac),
        (Ipv4Addr::UNSPECIFIED, mac),
        (new, MacAddress::BROADCAST),
        (new, MacAddress([0; 6])),
        (new, H_MAC),
    ] {
        assert!(!host.engine.set_neighbour(host.now, address.into(), mac), "{address} {mac}");
    }
    assert!(!host.engine.set_neighbour(host.now, "fe80::1".parse().unwrap(), mac));
}

#[test]
fn neighbours_given_by_hand_stay_within_the_tables_limit() {
    let mut host = Host::with(Config {
        address: AddressConfig::Static { address: H, prefix_len: 8, gateway: None, dns: vec![] },
        ..config()
    });
    for number in 0..5000_u32 {
        let address = Ipv4Addr::from_bits(H.to_bits() + 1000 + number);
        let [_, a, b, c] = number.to_be_bytes();
        assert!(host.engine.set_neighbour(
            host.now,
            address.into(),
            MacAddress([6, 0, 0, a, b, c])
        ));
        host.check();
    }
    assert_eq!(host.counters().neighbours, host.limits.neighbours as u64);
}

/// Send and close is what one-shot programs do: the datagram was taken, and goes.
#[test]
fn what_a_socket_has_taken_is_sent_after_it_is_closed() {
    let mut host = Host::new();
    host.introduce(P, P_MAC);
    let socket = host.bind(7);
    host.udp_send(socket, P, b"one");
    host.udp_send(socket, P, b"two");
    host.engine.udp_close(socket);
    let successor = host.bind(7);
    host.udp_send(successor, P, b"three");
    let sent = host.sent();
    let payloads: Vec<_> = sent
        .iter()
        .filter_map(|frame| sent_packet(frame))
        .map(|sent| sent.payload[8..].to_vec())
        .collect();
    assert_eq!(payloads.len(), 3);
    assert!(payloads.iter().any(|payload| payload == b"three"), "the next one has its turn");
    let of_closed = payloads.iter().filter(|payload| *payload != b"three");
    assert_eq!(of_closed.map(Vec::as_slice).collect::<Vec<_>>(), [&b"one"[..], b"two"], "in order");
    assert_eq!(host.counters().udp_queued_bytes, 0);
}

/// Closing is no way around the limit: what closed sockets leave is as much as one may hold.
#[test]
fn what_closed_sockets_leave_is_bounded_and_counted() {
    let mut config = config();
    config.limits.udp_send_bytes = 10_000;
    let mut host = Host::with(config);
    host.introduce(P, P_MAC);
    let to = SocketAddr::from((P, 9));
    let mut taken = 0;
    for _ in 0..20 {
        let socket = host.bind(7);
        while host.engine.udp_send(host.now, socket, to, &[0; 1000]) == Ok(true) {
            taken += 1;
        }
        host.engine.udp_close(socket);
        assert!(host.counters().udp_queued_bytes <= 10_000);
    }
    let dropped = host.counters().dropped_udp_orphan;
    assert!(dropped > 100, "{dropped}");
    assert_eq!(host.sent().len() as u64, taken - dropped);
    assert_eq!(host.counters().udp_queued_bytes, 0);
}
