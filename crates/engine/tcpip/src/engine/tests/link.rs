//! Ethernet, checksums and offloads.

use super::*;
use crate::config::ConfigError;

/// Pitfall L01.
#[test]
fn one_flipped_bit_silences_every_kind_of_frame_and_is_counted() {
    for frame in [udp(P, H, 7, b"seven"), ping(P, H, b"hello"), syn(P, H)] {
        // Before byte 12 are hardware addresses, which nothing protects but the FCS.
        for bit in 12 * 8..frame.len() * 8 {
            let mut host = Host::new();
            host.introduce(P, P_MAC);
            let socket = host.bind(7);
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let before = dropped(&host.counters());
            host.receive(&bad);
            assert!(host.is_silent(), "bit {bit}");
            assert_eq!(host.datagram(socket), None, "bit {bit}");
            assert_eq!(dropped(&host.counters()), before + 1, "bit {bit}");
        }
    }
}

fn dropped(counters: &Counters) -> u64 {
    counters.iter().filter(|(name, _)| name.starts_with("dropped_")).map(|(_, value)| value).sum()
}

/// Pitfall L07.
#[test]
fn padding_is_not_data() {
    let mut host = Host::new();
    let socket = host.bind(7);
    let mut frame = udp(P, H, 7, b"x");
    frame.resize(60, 0xaa);
    host.receive(&frame);
    assert_eq!(host.datagram(socket).unwrap(), b"x");
}

/// Pitfall L09.
#[test]
fn frames_for_others_from_groups_and_from_ourselves_are_dropped() {
    let mut host = Host::new();
    host.introduce(P, P_MAC);
    for frame in one_of_each(P, H) {
        for (at, mac) in [
            (0, MacAddress([2, 0, 0, 0, 0, 3])),
            (6, MacAddress([3, 0, 0, 0, 0, 2])),
            (6, MacAddress::BROADCAST),
            (6, H_MAC),
            (6, MacAddress([0; 6])),
        ] {
            let mut bad = frame.clone();
            bad[at..at + 6].copy_from_slice(&mac.0);
            host.receive(&bad);
            assert!(host.is_silent());
        }
    }
    assert_eq!(host.counters().dropped_ethernet_address, 15);
}

/// Pitfall L09.
#[test]
fn a_unicast_packet_in_a_broadcast_or_multicast_frame_is_dropped() {
    let mut host = Host::new();
    host.introduce(P, P_MAC);
    for frame in one_of_each(P, H) {
        for mac in [MacAddress::BROADCAST, MacAddress([1, 0, 0x5e, 0, 0, 1])] {
            let mut bad = frame.clone();
            bad[..6].copy_from_slice(&mac.0);
            host.receive(&bad);
            assert!(host.is_silent());
        }
    }
    assert_eq!(host.counters().dropped_ipv4_martian, 6);
}

#[test]
fn short_frames_and_unknown_types_are_counted() {
    let mut host = Host::new();
    host.receive(&[0; 13]);
    host.receive(&eth(H_MAC, P_MAC, 0x86dd, &[0; 40]));
    host.receive(&eth(H_MAC, P_MAC, ethernet::TYPE_IPV4, &[]));
    let counters = host.counters();
    assert_eq!(counters.dropped_ethernet_malformed, 1);
    assert_eq!(counters.dropped_ethernet_type, 1);
    assert_eq!(counters.dropped_ipv4_malformed, 1);
    assert!(host.is_silent());
}

/// A datagram to port 7 whose checksum is wrong.
fn wrong_sum() -> Vec<u8> {
    let mut frame = udp(P, H, 7, b"data");
    frame[14 + 20 + 6] ^= 0xff;
    frame
}

/// Pitfall L06.
#[test]
fn a_checksum_is_believed_as_the_device_says_of_each_frame() {
    for (checksum, is_taken) in [
        (FrameChecksum::Unverified, false),
        (FrameChecksum::Verified, true),
        (FrameChecksum::Blank, true),
    ] {
        let mut host = Host::new();
        let socket = host.bind(7);
        host.receive_with(&wrong_sum(), checksum);
        assert_eq!(host.datagram(socket).is_some(), is_taken, "{checksum:?}");
        assert_eq!(host.counters().dropped_udp_checksum, u64::from(!is_taken));
    }
}

/// Pitfall L01.
#[test]
fn no_flag_vouches_for_icmp_or_an_ip_header() {
    let mut host = Host::new();
    let mut frame = ping(P, H, b"x");
    frame[14 + 20 + 2] ^= 1;
    host.receive_with(&frame, FrameChecksum::Verified);
    let mut frame = ping(P, H, b"x");
    frame[14 + 8] ^= 1;
    host.receive_with(&frame, FrameChecksum::Blank);
    assert_eq!(host.counters().dropped_icmp_checksum, 1);
    assert_eq!(host.counters().dropped_ipv4_checksum, 1);
    assert!(host.is_silent());
}

/// Pitfall L05.
#[test]
fn the_flags_of_fragments_do_not_vouch_for_the_datagram() {
    for checksum in [FrameChecksum::Verified, FrameChecksum::Blank] {
        let mut host = Host::new();
        let socket = host.bind(7);
        let mut datagram = udp_wire::to_bytes((P, 9), (H, 7), &[5; 100]);
        datagram[6] ^= 0xff;
        for (range, more) in [(0..64, true), (64..108, false)] {
            let piece = &datagram[range.clone()];
            let header = header(P, H, PROTOCOL_UDP);
            let mut packet = header.to_fragment_bytes(piece.len(), range.start, more).to_vec();
            packet.extend(piece);
            host.receive_with(&eth(H_MAC, P_MAC, ethernet::TYPE_IPV4, &packet), checksum);
        }
        assert_eq!(host.counters().datagrams_reassembled, 1);
        assert_eq!(host.counters().dropped_udp_checksum, 1);
        assert_eq!(host.datagram(socket), None);
    }
}

/// Pitfall L04.
#[test]
fn the_device_finishes_only_the_sums_that_it_can() {
    let mut host = Host::with(Config { transmit_checksum_offload: true, ..config() });
    let socket = host.bind(7);
    host.introduce(P, P_MAC);

    // One frame: left to the device.
    host.udp_send(socket, P, &[1; 1000]);
    let mut buffer = vec![0; 1514];
    let transmit = host.engine.poll_transmit(host.now, &mut buffer).unwrap();
    assert_eq!(transmit.partial_checksum, Some(PartialChecksum { start: 34, offset: 6 }));
    let pseudo = checksum::Sum::of_pseudo_header(H, P, PROTOCOL_UDP, 1008).partial();
    assert_eq!(buffer[40..42], pseudo.to_be_bytes());

    // Fragments and ICMP: not.
    host.udp_send(socket, P, &[1; 3000]);
    host.receive(&ping(P, H, b"x"));
    let mut count = 0;
    let mut whole = Vec::new();
    while let Some(transmit) = host.engine.poll_transmit(host.now, &mut buffer) {
        assert_eq!(transmit.partial_checksum, None);
        let packet = sent_packet(&buffer[..transmit.len]).unwrap();
        if packet.protocol == PROTOCOL_UDP {
            whole.extend(packet.payload);
        }
        count += 1;
    }
    assert_eq!(count, 4);
    assert!(transport_checksum_is_valid(H, P, PROTOCOL_UDP, &whole));

    // A packet to ourselves never sees the device, yet arrives.
    host.udp_send(socket, H, b"self");
    host.advance(ms(0));
    let other = host.bind(9);
    host.udp_send(socket, H, b"self");
    host.advance(ms(0));
    assert_eq!(host.datagram(other).unwrap(), b"self");
}

/// Pitfall L08.
#[test]
fn an_mtu_outside_of_ipv4s_range_is_refused_and_every_one_inside_works() {
    for mtu in [0, 1, 20, 60, 67, 65_536, usize::MAX] {
        let refused = Engine::new(Config { mtu, ..config() }, Instant::ZERO).err();
        assert_eq!(refused, Some(ConfigError::Mtu(mtu)));
    }
    for mtu in (68..=200).chain([575, 576, 1279, 1280, 9000, 65_535]) {
        let mut host = Host::with(Config { mtu, ..config() });
        host.introduce(P, P_MAC);
        let socket = host.bind(7);
        host.udp_send(socket, P, &[3; 2000]);
        let frames = host.sent();
        assert!(frames.iter().all(|frame| frame.len() <= 14 + mtu));
        let bytes: usize = frames.iter().map(|frame| frame.len() - 34).sum();
        assert_eq!(bytes, 2008);
    }
}

#[test]
fn a_buffer_that_is_too_small_gets_no_frame_and_loses_none() {
    let mut host = Host::new();
    host.receive(&arp_request((P_MAC, P), H));
    assert_eq!(host.engine.poll_transmit(host.now, &mut [0; 1513]), None);
    assert_eq!(host.sent().len(), 1);
}

/// A frame of several segments may be longer than the MTU, and is one arrival.
#[test]
fn a_frame_of_several_segments_is_taken_whole() {
    let mut host = Host::new();
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
    let listener = host.engine.tcp_listen(any, 8).unwrap();
    host.introduce(P, P_MAC);
    host.receive(&syn(P, H));
    let syn_ack = sent_packet(&host.sent()[0]).unwrap();
    let mut segment = vec![0x12, 0x34, 0, 80, 0, 0, 0, 1];
    let sequence = u32::from_be_bytes(syn_ack.payload[4..8].try_into().unwrap());
    segment.extend((sequence + 1).to_be_bytes());
    segment.extend([0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    host.receive(&ip(P, H, PROTOCOL_TCP, &{
        let mut ack = segment.clone();
        let sum = checksum::Sum::of_pseudo_header(P, H, PROTOCOL_TCP, 20).then(&ack).finish();
        ack[16..18].copy_from_slice(&sum.to_be_bytes());
        ack
    }));
    let id = host.engine.tcp_accept(host.now, listener).unwrap().connection;
    segment.extend([7; 20_000]);
    let frame = ip(P, H, PROTOCOL_TCP, &segment);
    let mss = core::num::NonZeroU16::new(536);
    host.engine.handle_large_frame(host.now, &frame, FrameChecksum::Blank, mss);
    let mut buffer = vec![0; 65_536];
    assert_eq!(host.engine.tcp_read(host.now, id, &mut buffer), Ok(Some(20_000)));
    assert_eq!(host.counters().tcp_large_frames_received, 1);
    assert_eq!(host.counters().tcp_segments_received, 2 + 38);
}
