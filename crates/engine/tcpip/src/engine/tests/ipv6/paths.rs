//! Paths that take less than the link, and whole connections over IPv6.

use super::*;
use crate::engine::tests::pair::Node;
use crate::simulation::{Faults, Pair};

/// A router says that `packet` of ours is too big.
fn too_big(packet: &[u8], mtu: u32) -> Vec<u8> {
    too_big_for(packet, mtu.to_be_bytes())
}

fn largest(frames: &[Vec<u8>]) -> usize {
    frames.iter().map(|frame| frame.len() - 14).max().unwrap_or(0)
}

/// Pitfalls P01, P02, P05, TAHI 4.1.
#[test]
fn datagrams_follow_the_path_down_and_after_ten_minutes_up_again() {
    let mut host = host6();
    let socket = host.bind(9);
    host.receive(&Ra::new().frame());
    host.receive(&advertisement(R_MAC, R6, H6, ndp::FLAG_SOLICITED | ndp::FLAG_ROUTER));
    let send = |host: &mut Host, to| {
        host.sent();
        host.udp_send6(socket, to, &[7; 3000]);
        host.sent()
    };
    let whole = send(&mut host, FAR);
    assert_eq!(largest(&whole), 1496);
    host.receive(&too_big(&whole[0][14..], 1400));
    let cut = send(&mut host, FAR);
    assert!(largest(&cut) <= 1400 && largest(&cut) > 1390);
    // Impossible sizes, larger ones, and ones about what we have not sent.
    for mtu in [0, 1, 67, 1279] {
        host.receive(&too_big(&whole[0][14..], mtu));
    }
    assert_eq!(host.counters().dropped_path_mtu, 4);
    host.receive(&too_big(&whole[0][14..], 9000));
    host.receive(&too_big(&packet6(P6, FAR, 17, 64, &[0; 20]), 1300));
    host.receive(&too_big(&packet6(H6, FAR, 17, 64, &[0; 20]), 1300));
    assert_eq!(largest(&send(&mut host, FAR)), largest(&cut));
    let other = Ipv6Addr::from_bits(FAR.to_bits() + 1);
    assert_eq!(largest(&send(&mut host, other)), 1496, "another path");
    assert_eq!(host.counters().path_mtus, 1);
    host.now = host.now + secs(601);
    host.receive(&Ra::new().frame());
    assert_eq!(largest(&send(&mut host, FAR)), 1496);
}

/// Pitfall P01, for IPv4: datagrams may be fragmented by us as by routers.
#[test]
fn datagrams_over_ipv4_follow_the_path_too() {
    let mut host = Host::new();
    let socket = host.bind(9);
    host.introduce(P, P_MAC);
    host.udp_send(socket, P, &[7; 1400]);
    let sent = host.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0][14 + 6] & 0x40, 0, "routers may cut it");
    let word = [0, 0, 0x02, 0x58];
    let message = icmpv4::to_bytes(icmpv4::DESTINATION_UNREACHABLE, 4, word, &sent[0][14..42]);
    host.receive(&ip(GATEWAY, H, PROTOCOL_ICMP, &message));
    host.udp_send(socket, P, &[7; 1400]);
    let cut = host.sent();
    assert_eq!(cut.len(), 3);
    assert!(largest(&cut) <= 600);
}

fn pair6(faults: Faults, configs: [Config; 2], to_send: [usize; 2]) -> Pair<Node> {
    let [host, peer] = configs;
    let mut ends = [Node::new(host, to_send[0]), Node::new(peer, to_send[1])];
    ends[1].listener = Some(ends[1].engine.tcp_listen("[::]:80".parse().unwrap(), 8).unwrap());
    let mut pair = Pair::new(ends, faults, 1);
    pair.run(secs(3));
    let now = pair.now;
    let remote = SocketAddr::from((P6, 80));
    pair.ends[0].connection = Some(pair.ends[0].engine.tcp_connect(now, remote).unwrap());
    pair
}

fn peer_config6() -> Config {
    let address = AddressConfig::Off;
    let ipv6 = Ipv6Config { addresses: vec![(P6, 64)], ..Ipv6Config::default() };
    Config { mac: P_MAC, address, secret: [9; 32], ipv6, ..config() }
}

#[test]
fn a_megabyte_each_way_arrives_whole_over_ipv6() {
    for (offload, large) in [(false, 65_549), (true, 0), (true, 5000), (true, 65_549)] {
        let mut host = config6();
        host.ipv6.transmit_checksum_offload = offload;
        host.ipv6.segmented_frame_bytes_max = large;
        let faults = Faults::none(ms(10));
        let mut pair = pair6(faults, [host, peer_config6()], [1_000_000, 1_000_000]);
        pair.run(secs(60));
        assert!(pair.ends[0].has_all(1_000_000) && pair.ends[1].has_all(1_000_000));
        let counters = pair.ends[0].engine.counters();
        assert_eq!(counters.tcp_large_frames_sent > 0, offload && large > 0);
        // Asked once; progress did the rest (pitfall N07).
        assert!(counters.ndp_solicitations_sent <= 5, "{}", counters.ndp_solicitations_sent);
        assert_eq!(counters.dropped_ipv6_malformed + counters.dropped_tcp_checksum, 0);
    }
}

/// Pitfalls X03, L01.
#[test]
fn a_bad_link_changes_no_byte_over_ipv6() {
    let faults = Faults { delay: ms(20), loss: 3, duplication: 2, reordering: 10, jitter: ms(30) };
    let mut pair = pair6(Faults::none(ms(20)), [config6(), peer_config6()], [200_000, 100_000]);
    pair.faults = faults;
    for end in &mut pair.ends {
        end.corruption = 20;
    }
    pair.run(secs(600));
    assert!(pair.ends[0].has_all(100_000) && pair.ends[1].has_all(200_000));
}

/// Pitfalls P01, P03.
#[test]
fn a_connection_over_ipv6_fits_a_narrow_path_after_the_first_error() {
    let mut pair = pair6(Faults::none(ms(10)), [config6(), peer_config6()], [300_000, 0]);
    pair.ends[1].narrow = Some(1300);
    pair.run(secs(60));
    assert!(pair.ends[1].has_all(300_000), "{}", pair.ends[1].received.len());
    assert!(pair.ends[1].largest_seen <= 1300);
    let counters = pair.ends[0].engine.counters();
    assert!(counters.tcp_path_mtu_lowered >= 1 && counters.path_mtus == 1);
    assert_eq!(counters.tcp_retransmit_timeouts, 0, "size is no congestion");
    // The next connection knows.
    let now = pair.now;
    let remote = SocketAddr::from((P6, 80));
    let before = counters.tcp_path_mtu_lowered;
    let node = &mut pair.ends[0];
    (node.connection, node.sent, node.is_shut) = (None, 0, false);
    node.connection = node.engine.tcp_connect(now, remote).ok();
    pair.ends[1].connection = None;
    (pair.ends[1].received, pair.ends[1].saw_end) = (Vec::new(), false);
    pair.run(secs(60));
    assert!(pair.ends[1].has_all(300_000));
    assert_eq!(pair.ends[0].engine.counters().tcp_path_mtu_lowered, before);
}
