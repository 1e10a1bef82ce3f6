//! IPv4 addresses, headers and options.

use super::*;

use crate::error::{BindError, ConnectError, ListenError, SendError};

/// Pitfall I01.
#[test]
fn packets_from_addresses_that_no_host_has_are_dropped() {
    let mut host = Host::new();
    for source in [
        Ipv4Addr::new(127, 0, 0, 1),
        Ipv4Addr::new(0, 0, 0, 0),
        Ipv4Addr::new(0, 1, 2, 3),
        Ipv4Addr::new(240, 0, 0, 1),
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::new(239, 1, 2, 3),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(10, 0, 0, 255),
        Ipv4Addr::new(10, 0, 0, 0),
        H,
    ] {
        let before = host.counters().dropped_ipv4_martian;
        for frame in one_of_each(source, H) {
            host.receive(&frame);
        }
        assert!(host.is_silent(), "{source}");
        assert_eq!(host.counters().dropped_ipv4_martian, before + 3, "{source}");
    }
}

#[test]
fn packets_to_others_to_groups_and_to_the_loopback_network_are_dropped() {
    let mut host = Host::new();
    for destination in [
        P,
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::new(127, 0, 0, 1),
        Ipv4Addr::new(10, 0, 0, 0),
        Ipv4Addr::UNSPECIFIED,
    ] {
        for frame in one_of_each(P, destination) {
            host.receive(&frame);
        }
        assert!(host.is_silent(), "{destination}");
    }
    assert_eq!(host.counters().dropped_ipv4_not_ours, 12);
    assert_eq!(host.counters().dropped_ipv4_martian, 3);
}

/// Pitfall I02.
#[test]
fn what_is_sent_to_ourselves_never_leaves_and_arrives() {
    for address in [H, Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 9, 8, 7)] {
        let mut host = Host::new();
        let socket = host.bind(9);
        host.udp_send(socket, address, b"to myself");
        assert!(host.advance(ms(0)).is_empty());
        let mut buffer = [0; 100];
        let datagram = host.engine.udp_receive(socket, &mut buffer).unwrap();
        assert_eq!(&buffer[..datagram.len], b"to myself");
        assert_eq!(*v4(datagram.destination).ip(), address);
        assert_eq!(host.counters().loopback_packets, 1);
    }
}

#[test]
fn the_loopback_network_works_without_an_address_and_its_queue_is_bounded() {
    let mut config = Config { address: AddressConfig::Dhcp { hostname: None }, ..config() };
    config.limits.loopback_bytes = 10_000;
    let mut host = Host::just_started(config);
    let socket = host.bind(9);
    for _ in 0..20 {
        host.udp_send(socket, Ipv4Addr::LOCALHOST, &[0; 1000]);
    }
    host.sent();
    assert_eq!(host.counters().dropped_loopback_queue, 11);
    host.advance(ms(0));
    assert_eq!(core::iter::from_fn(|| host.datagram(socket)).count(), 9);
    let remote = SocketAddr::from((P, 80));
    assert_eq!(host.engine.tcp_connect(host.now, remote), Err(ConnectError::NoAddress));
    let sent = host.engine.udp_send(host.now, socket, remote, b"x");
    assert_eq!(sent, Err(SendError::NoAddress));
}

/// Pitfall I03.
#[test]
fn every_pair_of_header_and_total_length_is_survived() {
    let mut host = Host::new();
    host.introduce(P, P_MAC);
    let good = ping(P, H, &[0xa5; 32]);
    for first in 0..=255u8 {
        for total_len in 0..=70u16 {
            let mut frame = good.clone();
            frame[14] = first;
            frame[16..18].copy_from_slice(&total_len.to_be_bytes());
            // The right checksum for that many words of header, so that only the lengths are wrong.
            let header_len = (usize::from(first & 15) * 4).min(frame.len() - 14);
            frame[24..26].copy_from_slice(&[0, 0]);
            let sum = checksum::checksum(&frame[14..14 + header_len]);
            if header_len >= 12 {
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            host.receive(&frame);
            let is_whole = first == 0x45 && total_len == 60;
            assert_eq!(!host.is_silent(), is_whole, "{first:#x} {total_len}");
        }
    }
}

/// Pitfall I15.
#[test]
fn source_routes_are_dropped_and_other_options_ignored() {
    let with_options = |options: &[u8]| {
        let mut packet = ping(P, H, b"x")[14..].to_vec();
        packet[0] = 0x40 | (5 + options.len() as u8 / 4);
        packet.splice(20..20, options.iter().copied());
        let total_len = packet.len() as u16;
        packet[2..4].copy_from_slice(&total_len.to_be_bytes());
        packet[10..12].copy_from_slice(&[0, 0]);
        let sum = checksum::checksum(&packet[..20 + options.len()]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        eth(H_MAC, P_MAC, ethernet::TYPE_IPV4, &packet)
    };
    let mut host = Host::new();
    host.introduce(P, P_MAC);
    for kind in [131, 137] {
        host.receive(&with_options(&[kind, 7, 4, 10, 0, 0, 9, 0]));
        assert!(host.is_silent());
    }
    assert_eq!(host.counters().dropped_ipv4_source_route, 2);
    host.receive(&with_options(&[7, 0, 0, 0]));
    assert_eq!(host.counters().dropped_ipv4_malformed, 1);
    // Record route, router alert, nothing.
    host.receive(&with_options(&[7, 7, 4, 0, 0, 0, 0, 1]));
    host.receive(&with_options(&[148, 4, 0, 0]));
    assert_eq!(host.sent().len(), 2);
}

/// Pitfall I12.
#[test]
fn a_wrong_gateway_or_address_is_refused_at_the_start() {
    let with = |address: [u8; 4], prefix_len, gateway: Option<[u8; 4]>| {
        let address = AddressConfig::Static {
            address: address.into(),
            prefix_len,
            gateway: gateway.map(Ipv4Addr::from),
            dns: vec![],
        };
        Engine::new(Config { address, ..config() }, Instant::ZERO).err()
    };
    let bad_gateway = |gateway: [u8; 4]| Some(ConfigError::Gateway(gateway.into()));
    let bad_address = |address: [u8; 4]| Some(ConfigError::Address(address.into()));
    assert_eq!(with([10, 0, 0, 1], 24, None), None);
    assert_eq!(with([10, 0, 0, 1], 31, Some([10, 0, 0, 0])), None);
    assert_eq!(with([10, 0, 0, 1], 32, Some([10, 9, 9, 9])), None);
    for gateway in [[10, 0, 1, 1], [10, 0, 0, 1], [10, 0, 0, 255], [10, 0, 0, 0], [0; 4]] {
        assert_eq!(with([10, 0, 0, 1], 24, Some(gateway)), bad_gateway(gateway));
    }
    for address in
        [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4], [10, 0, 0, 0], [10, 0, 0, 255]]
    {
        assert_eq!(with(address, 24, None), bad_address(address));
    }
    assert_eq!(with([10, 0, 0, 1], 0, None), Some(ConfigError::PrefixLen(0)));
    assert_eq!(with([10, 0, 0, 1], 33, None), Some(ConfigError::PrefixLen(33)));
    let group = MacAddress([1, 0, 0x5e, 0, 0, 1]);
    let refused = Engine::new(Config { mac: group, ..config() }, Instant::ZERO).err();
    assert_eq!(refused, Some(ConfigError::MacNotUnicast(group)));
    let mut limited = config();
    limited.limits.neighbours = 1;
    assert!(matches!(Engine::new(limited, Instant::ZERO).err(), Some(ConfigError::Limit(_))));
    for hostname in ["", "under_score", &"x".repeat(64)] {
        let address = AddressConfig::Dhcp { hostname: Some(hostname.into()) };
        let refused = Engine::new(Config { address, ..config() }, Instant::ZERO).err();
        assert_eq!(refused, Some(ConfigError::Hostname(hostname.into())));
    }
}

#[test]
fn a_connection_that_cannot_be_is_refused_at_the_call() {
    let mut isolated = config();
    isolated.address =
        AddressConfig::Static { address: H, prefix_len: 24, gateway: None, dns: vec![] };
    let mut host = Host::with(isolated);
    let mut connect = |remote: SocketAddr| host.engine.tcp_connect(host.now, remote).err();
    for address in
        ["0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80", "10.0.0.255:80", "10.0.0.2:0"]
    {
        let remote = address.parse().unwrap();
        assert_eq!(connect(remote), Some(ConnectError::BadAddress(remote)));
    }
    let outside = "192.0.2.1:80".parse().unwrap();
    assert_eq!(connect(outside), Some(ConnectError::NoRoute(outside)));
    let v6 = "[2001:db8::1]:80".parse().unwrap();
    assert_eq!(connect(v6), Some(ConnectError::NoRoute(v6)), "there is no IPv6");
    assert!(host.is_silent());
}

#[test]
fn sockets_bind_to_our_addresses_only() {
    let mut host = Host::new();
    let stranger = SocketAddr::from((P, 80));
    assert_eq!(host.engine.udp_bind(stranger), Err(BindError::NotOurs(stranger)));
    assert!(host.engine.tcp_listen(stranger, 1).is_err());
    let v6 = "[2001:db8::1]:80".parse().unwrap();
    assert_eq!(host.engine.udp_bind(v6), Err(BindError::NotOurs(v6)));
    assert!(host.engine.udp_bind(SocketAddr::from((H, 80))).is_ok());
    assert!(host.engine.udp_bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 80))).is_ok());
    // Both ways to say "every address" say the same.
    let (every_v4, every_v6): (SocketAddr, SocketAddr) =
        ("0.0.0.0:81".parse().unwrap(), "[::]:81".parse().unwrap());
    assert!(host.engine.udp_bind(every_v6).is_ok());
    assert_eq!(host.engine.udp_bind(every_v4), Err(BindError::InUse(every_v4)));
    assert!(host.engine.tcp_listen(every_v4, 1).is_ok());
    assert_eq!(host.engine.tcp_listen(every_v6, 1), Err(ListenError::InUse(every_v6)));
}
