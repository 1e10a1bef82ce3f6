//! DHCP from end to end: as the wire and the sockets see it.

use super::*;
use crate::error::BindError;
use crate::wire::dhcp::{Request, TestRequest, test_reply};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

fn unbound() -> Host {
    let address = AddressConfig::Dhcp { hostname: Some("web".into()) };
    let mut host = Host::just_started(Config { address, ..config() });
    host.engine.handle_timeout(host.now);
    host
}

/// The DHCP message in a frame that H sent.
fn request(frame: &[u8]) -> Option<(SentPacket, TestRequest)> {
    let packet = sent_packet(frame)?;
    let is_dhcp = packet.protocol == PROTOCOL_UDP && packet.payload[..4] == [0, 68, 0, 67];
    let request = Request::parse_for_test(packet.payload.get(8..)?)?;
    is_dhcp.then_some((packet, request))
}

/// A frame with a server's message to `destination`.
fn reply(kind: u8, transaction: u32, destination: Ipv4Addr, lease: u32) -> Vec<u8> {
    let message = test_reply(
        transaction,
        H_MAC,
        H,
        &[
            (53, &[kind]),
            (54, &SERVER.octets()),
            (1, &[255, 255, 255, 0]),
            (3, &SERVER.octets()),
            (51, &lease.to_be_bytes()),
        ],
    );
    let datagram = udp_wire::to_bytes((SERVER, 67), (destination, 68), &message);
    let mut frame = ip(SERVER, destination, PROTOCOL_UDP, &datagram);
    if destination.is_broadcast() {
        frame[..6].copy_from_slice(&[0xff; 6]);
    }
    frame
}

/// H with the address that the server gave it, at once.
fn bound(lease: u32) -> Host {
    let mut host = unbound();
    for (kind, destination) in [(2, H), (5, Ipv4Addr::BROADCAST)] {
        let frames = host.sent();
        let (packet, request) = request(&frames[0]).unwrap();
        assert_eq!((packet.to, packet.source), (MacAddress::BROADCAST, Ipv4Addr::UNSPECIFIED));
        host.receive(&reply(kind, request.transaction, destination, lease));
    }
    host
}

#[test]
fn offers_are_taken_by_unicast_and_broadcast_and_the_address_is_used() {
    for destination in [H, Ipv4Addr::BROADCAST] {
        let mut host = unbound();
        assert_eq!(host.engine.lease(), None);
        let (_, discover) = request(&host.sent()[0]).unwrap();
        host.receive(&reply(2, discover.transaction, destination, 3600));
        let (_, second) = request(&host.sent()[0]).unwrap();
        assert_eq!(second.requested, Some(H));
        host.receive(&reply(5, second.transaction, destination, 3600));
        assert_eq!(host.events(), [Event::AddressChanged]);
        let lease = host.engine.lease().unwrap();
        assert_eq!((lease.address, lease.prefix_len, lease.gateway), (H, 24, Some(SERVER)));
        let probe = sent_arp(&host.sent()[0]).unwrap().1;
        assert_eq!((probe.sender, probe.target), (Ipv4Addr::UNSPECIFIED, H));
        host.introduce(P, P_MAC);
        host.receive(&ping(P, H, b"x"));
        assert_eq!(host.sent().len(), 1);
    }
}

#[test]
fn before_there_is_an_address_nothing_else_is_answered() {
    let mut host = unbound();
    host.sent();
    for frame in one_of_each(P, H).into_iter().chain(one_of_each(P, Ipv4Addr::BROADCAST)) {
        host.receive(&frame);
    }
    host.receive(&arp_request((P_MAC, P), H));
    host.receive(&arp_request((P_MAC, P), Ipv4Addr::UNSPECIFIED));
    assert!(host.is_silent());
}

#[test]
fn a_message_with_a_wrong_checksum_is_not_taken() {
    let mut host = unbound();
    let (_, discover) = request(&host.sent()[0]).unwrap();
    let mut frame = reply(2, discover.transaction, H, 3600);
    let last = frame.len() - 20;
    frame[last] ^= 1;
    host.receive(&frame);
    assert!(host.is_silent());
    assert_eq!(host.counters().dropped_udp_checksum, 1);
}

#[test]
fn the_clients_port_is_taken() {
    let mut host = unbound();
    let local = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68));
    assert_eq!(host.engine.udp_bind(local), Err(BindError::InUse(local)));
}

#[test]
fn renewal_goes_to_the_server_itself_and_keeps_the_address() {
    let mut host = bound(600);
    host.introduce(SERVER, P_MAC);
    let frames = host.advance(secs(301));
    let (packet, renewal) = frames.iter().find_map(|(_, frame)| request(frame)).expect("a renewal");
    assert_eq!((packet.to, packet.source, packet.destination), (P_MAC, H, SERVER));
    host.receive(&reply(5, renewal.transaction, H, 600));
    host.events();
    host.advance(secs(299));
    assert!(host.engine.lease().is_some());
    assert!(host.events().is_empty());
}

#[test]
fn at_the_leases_end_the_address_and_what_was_bound_to_it_are_gone() {
    let mut host = bound(600);
    host.introduce(P, P_MAC);
    let socket = host.engine.udp_bind(SocketAddr::from((H, 7))).unwrap();
    host.events();
    host.advance(secs(599));
    assert!(host.events().is_empty());
    host.advance(secs(2));
    assert_eq!(host.engine.lease(), None);
    assert!(host.events().contains(&Event::AddressChanged));
    let to = SocketAddr::from((P, 9));
    assert!(host.engine.udp_send(host.now, socket, to, b"x").is_err());
    host.receive(&ping(P, H, b"x"));
    assert!(host.sent().iter().all(|frame| request(frame).is_some()));
    assert_eq!(host.counters().neighbours, 0);
    assert_eq!(host.counters().dhcp_leases_expired, 1);
}

#[test]
fn an_address_that_another_host_defends_is_given_up_and_declined() {
    let mut host = bound(600);
    host.sent();
    host.receive(&arp_reply((P_MAC, H)));
    assert_eq!(host.engine.lease(), None);
    let (_, decline) = request(&host.sent()[0]).unwrap();
    assert_eq!((decline.message_type, decline.requested), (4, Some(H)));
    assert_eq!(host.counters().dhcp_declined, 1);
    // Later, a claim is answered with a defence instead.
    let mut host = bound(600);
    host.advance(secs(5));
    host.receive(&arp_reply((P_MAC, H)));
    assert!(host.engine.lease().is_some());
    assert_eq!(arp_targets(&host.sent()), [H]);
}

#[test]
fn a_small_mtu_gets_its_address_too() {
    let address = AddressConfig::Dhcp { hostname: None };
    let mut host = Host::just_started(Config { mtu: 68, address, ..config() });
    let frames = host.advance(ms(0));
    assert!(frames.len() > 5);
    assert!(frames.iter().all(|(_, frame)| frame.len() <= 14 + 68));
}
