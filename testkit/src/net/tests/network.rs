//! The switch.

use super::super::*;
use core::net::Ipv4Addr;
use core::time::Duration;

const BROADCAST: [u8; 6] = [0xff; 6];

fn station(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [2, 0, 0, 1, high, low]
}

fn frame(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    [&to[..], &from, &[0x88, 0xb5], &[0; 46]].concat()
}

/// A network of so many ports without impairments.
fn network(ports: usize) -> (Network, Vec<PortId>) {
    let mut network = Network::new(1);
    let ports =
        (0..ports).map(|port| network.attach(&format!("port {port}"), Link::default())).collect();
    (network, ports)
}

/// The ports at which something arrives now.
fn reached(network: &mut Network) -> Vec<usize> {
    core::iter::from_fn(|| network.poll_delivery()).map(|(port, _)| port.0).collect()
}

#[test]
fn it_floods_until_it_has_learned() {
    let (mut network, ports) = network(4);
    let now = Duration::ZERO;
    network.send(now, ports[0], &frame(station(1), station(0)));
    assert_eq!(reached(&mut network), [1, 2, 3], "nobody knows where station 1 is");
    network.send(now, ports[1], &frame(station(0), station(1)));
    assert_eq!(reached(&mut network), [0], "station 0 was heard");
    network.send(now, ports[0], &frame(station(1), station(0)));
    assert_eq!(reached(&mut network), [1]);
    network.send(now, ports[2], &frame(BROADCAST, station(2)));
    assert_eq!(reached(&mut network), [0, 1, 3]);
    // Two stations at one port need no switch.
    network.send(now, ports[0], &frame(station(9), station(8)));
    reached(&mut network);
    network.send(now, ports[0], &frame(station(8), station(9)));
    assert_eq!(reached(&mut network), []);
    // A station that moves is found again.
    network.send(now, ports[3], &frame(BROADCAST, station(1)));
    reached(&mut network);
    network.send(now, ports[0], &frame(station(1), station(0)));
    assert_eq!(reached(&mut network), [3]);
    let counters = network.counters();
    assert_eq!((counters.flooded, counters.forwarded, counters.filtered), (4, 3, 1));
    assert_eq!(counters.learned, 6);
}

#[test]
fn a_group_is_no_station_and_a_silent_one_is_forgotten() {
    let (mut network, ports) = network(3);
    network.send(Duration::ZERO, ports[0], &frame(station(1), BROADCAST));
    reached(&mut network);
    network.send(Duration::ZERO, ports[1], &frame(BROADCAST, station(1)));
    assert_eq!(reached(&mut network), [0, 2], "a group that is heard is not a port's");
    let almost = Duration::from_secs(299);
    network.send(almost, ports[0], &frame(station(1), station(0)));
    assert_eq!(reached(&mut network), [1]);
    network.send(almost + Duration::from_secs(1), ports[0], &frame(station(1), station(0)));
    assert_eq!(reached(&mut network), [1, 2], "after 300 s of silence");
}

#[test]
fn its_table_is_bounded_and_frames_go_on_without_it() {
    let (mut network, ports) = network(3);
    for number in 0..9000 {
        network.send(Duration::ZERO, ports[0], &frame(BROADCAST, station(number)));
    }
    reached(&mut network);
    let counters = network.counters();
    assert_eq!((counters.learned, counters.table_full), (8192, 9000 - 8192));
    network.send(Duration::ZERO, ports[1], &frame(station(8999), station(8999)));
    assert_eq!(reached(&mut network), [0, 2], "flooded");
    // Those that are silent make room.
    let later = Duration::from_secs(301);
    network.send(later, ports[1], &frame(BROADCAST, station(8999)));
    assert_eq!(network.counters().learned, 8193);
}

#[test]
fn frames_without_a_header_are_counted() {
    let (mut network, ports) = network(2);
    network.send(Duration::ZERO, ports[0], &[0; 13]);
    assert_eq!(reached(&mut network), []);
    assert_eq!(network.counters().malformed, 1);
}

#[test]
fn a_torn_network_keeps_its_parts_apart() {
    let (mut network, ports) = network(5);
    network.partition(&[&ports[0..2], &ports[2..3]]);
    let mut reach = |port: usize| {
        network.send(Duration::ZERO, ports[port], &frame(BROADCAST, station(port as u16)));
        reached(&mut network)
    };
    assert_eq!((reach(0), reach(2), reach(3)), (vec![1], vec![], vec![4]));
    assert_eq!(network.counters().lost_partition, 3 + 4 + 3);
    network.heal();
    network.send(Duration::ZERO, ports[2], &frame(BROADCAST, station(2)));
    assert_eq!(reached(&mut network), [0, 1, 3, 4]);
}

#[test]
fn links_are_turned_off_and_on_at_their_times() {
    let (mut network, ports) = network(2);
    let ms = Duration::from_millis;
    network.set_up_at(ms(10), ports[1], false);
    network.set_up_at(ms(20), ports[1], true);
    let mut arrives = |at: u64| {
        network.send(ms(at), ports[0], &frame(BROADCAST, station(0)));
        reached(&mut network).len()
    };
    assert_eq!([9, 10, 19, 20].map(&mut arrives), [1, 0, 0, 1]);
    assert_eq!(network.poll_timeout(), None);
    assert_eq!(network.link_counters(ports[1])[1].lost_link_down, 2);
}

#[test]
fn a_router_answers_what_is_too_large_and_its_answers_are_not_answered() {
    let mut network = Network::new(1);
    let small = Impairments { mtu: Some(100), ..Default::default() };
    let host = network.attach("host", Link::default());
    let far = network.attach("far", Link { from_network: small, ..Link::default() });
    let router = Ipv4Addr::new(192, 0, 2, 254);
    network.set_mtu_answer(Some(Box::new(move |frame, mtu| {
        fragmentation_needed(frame, mtu, station(99), router)
    })));
    network.send(Duration::ZERO, far, &frame(BROADCAST, station(1)));
    reached(&mut network);

    let mut packet = frame(station(1), station(0));
    packet.truncate(14);
    packet[12..14].copy_from_slice(&[8, 0]);
    let header = [0x45, 0, 0, 200, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    packet.extend_from_slice(&header);
    packet.resize(14 + 200, 7);
    network.send(Duration::ZERO, host, &packet);
    let (port, answer) = network.poll_delivery().unwrap();
    assert_eq!(port, host);
    assert_eq!(answer[..12], [station(0), station(99)].concat());
    assert_eq!(answer[14 + 20..14 + 22], [3, 4], "fragmentation needed");
    assert_eq!(answer[14 + 26..14 + 28], [0, 100], "the link's MTU");
    assert_eq!(answer[14 + 28..14 + 48], header, "the packet that it answers");
    assert_eq!(network.poll_delivery(), None);

    // What may be fragmented has no such answer, nor has an answer.
    packet[20] = 0;
    network.send(Duration::ZERO, host, &packet);
    assert_eq!(network.poll_delivery(), None);
    assert_eq!(fragmentation_needed(&answer, 40, station(99), router), None);
    assert_eq!(network.link_counters(far)[1].lost_mtu, 2);

    // A router that answers everything does not answer itself.
    network.set_mtu_answer(Some(Box::new(|_, _| Some([&station(1)[..], &[0; 500]].concat()))));
    network.send(Duration::ZERO, host, &packet);
    assert_eq!(network.link_counters(far)[1].lost_mtu, 4);
}
