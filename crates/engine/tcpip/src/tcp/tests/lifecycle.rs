//! Thousands of connections that come and go in every way: afterwards every table, timer and
//! buffer is back at zero (Z10).

use super::model::{ADDRESSES, Node};
use super::script::*;
use crate::config::Limits;
use crate::error::ConnectError;
use crate::simulation::{Dice, Faults, Pair};
use crate::socket::TcpId;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

/// Two hosts, a hundred connections at a time, losses; every end is another: shutdown, release,
/// abort, by either side, at any moment, with data or without.
#[test]
fn a_hundred_thousand_lifecycles_leave_nothing() {
    for (seed, loss) in [(1, 0), (2, 3), (3, 15)] {
        lifecycles(seed, loss, 33_334);
    }
}

fn lifecycles(seed: u64, loss: u64, count: usize) {
    let limits = || Limits { tcp_accept_backlog: 50, tcp_time_wait: 300, ..Limits::default() };
    let nodes = [0, 1].map(|which| {
        let mut node = Node::new(which, limits(), 1500, seed);
        node.tcp.origins.fixed = None;
        node.is_manual = true;
        node
    });
    let faults = Faults { loss, ..Faults::none(Duration::from_millis(5)) };
    let mut pair = Pair::new(nodes, faults, seed);
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 80);
    let listener = pair.ends[1].tcp.listen(any, 50).expect("free");
    let mut dice = Dice(seed);
    let mut open: [Vec<TcpId>; 2] = [Vec::new(), Vec::new()];
    let mut opened = 0;
    while opened < count {
        let now = pair.now;
        for _ in 0..1 + dice.below(10) {
            let remote = SocketAddr::new(ADDRESSES[1], 80);
            open[0].extend(pair.ends[0].tcp.connect(now, ADDRESSES[0], remote).ok());
            opened += 1;
        }
        // Now and then nobody accepts for a while.
        while dice.percent(90) {
            let Some(accepted) = pair.ends[1].tcp.accept(now, listener) else { break };
            open[1].push(accepted.connection);
        }
        for (side, ids) in open.iter_mut().enumerate() {
            let tcp = &mut pair.ends[side].tcp;
            ids.retain(|&id| {
                match dice.below(12) {
                    0 => tcp.abort(now, id),
                    1..=2 => tcp.release(now, id),
                    3..=4 => {
                        let _ = tcp.shutdown(now, id);
                        return true;
                    }
                    5..=6 => {
                        let _ = tcp.write(now, id, &stream(0, dice.below(5000) as usize));
                        return true;
                    }
                    7 => {
                        let _ = tcp.read(now, id, &mut [0; 4000]);
                        return true;
                    }
                    _ => return true,
                }
                assert_eq!(tcp.status(id), crate::socket::TcpStatus::Released);
                false
            });
            while tcp.poll_event().is_some() {}
        }
        pair.run(Duration::from_millis(dice.below(40)));
    }
    let now = pair.now;
    for (side, ids) in open.iter().enumerate() {
        ids.iter().for_each(|&id| pair.ends[side].tcp.release(now, id));
    }
    pair.ends[1].tcp.close_listener(now, listener);
    pair.run(Duration::from_secs(3600));
    pair.ends.iter().for_each(|node| assert_empty(&node.tcp));
}

/// C08: as many connections to one destination as there are ports, one after the other and at once.
#[test]
fn ports_are_given_out_once_and_come_back() {
    let limits = Limits { tcp_connections: 100_000, ..Limits::default() };
    let mut host = Host::with_limits(limits);
    let remote = SocketAddr::new(PEER, 80);
    let mut buffer = [0; 1480];
    let mut ids = Vec::new();
    let mut ports = std::collections::HashSet::new();
    loop {
        match host.tcp.connect(host.now, HOST, remote) {
            Ok(id) => {
                let (local, _) = host.tcp.addresses(id).expect("it exists");
                assert!(ports.insert(local.port()), "used twice");
                ids.push(id);
            }
            Err(error) => {
                assert_eq!(error, ConnectError::NoFreePort);
                break;
            }
        }
        while host.tcp.poll_transmit(host.now, &mut buffer).is_some() {}
    }
    assert_eq!(ids.len(), 65_536 - 1024);
    // Another destination has all its ports still.
    let other = host.tcp.connect(host.now, HOST, SocketAddr::new(PEER, 81)).expect("free");
    host.tcp.release(host.now, other);
    ids.drain(..).for_each(|id| host.tcp.release(host.now, id));
    for _ in 0..100_000 {
        let id = host.tcp.connect(host.now, HOST, remote).expect("they came back");
        host.tcp.release(host.now, id);
    }
    host.drain();
    host.out.clear();
    host.is_empty();
}

/// C08: a listener's port is not given out.
#[test]
fn listening_ports_are_not_used_for_connections() {
    let mut host = Host::new();
    let remote = SocketAddr::new(PEER, 80);
    let first = host.tcp.connect(host.now, HOST, remote).expect("free");
    let (local, _) = host.tcp.addresses(first).expect("it exists");
    let next = local.port() + 1;
    host.tcp.listen(SocketAddr::new(HOST, next), 1).expect("free");
    let second = host.tcp.connect(host.now, HOST, remote).expect("free");
    let (local, _) = host.tcp.addresses(second).expect("it exists");
    assert_ne!(local.port(), next);
}

/// X09: the cost of a segment does not grow with the number of connections; here, that none of the
/// work is done for those that are idle.
#[test]
fn ten_thousand_idle_connections_have_no_timers_and_no_turns() {
    let mut host = Host::with_limits(Limits::default());
    host.listen_with(1024);
    for port in 1..=10_000u16 {
        host.rx_quietly(PEER, seg("S").port(port));
        let mut buffer = [0; 1480];
        while host.tcp.poll_transmit(host.now, &mut buffer).is_some() {}
        let syn_ack = crate::wire::tcp::Segment::parse(&buffer[..24]).expect("well formed");
        host.host_isn = Some(syn_ack.header.sequence);
        host.rx_quietly(PEER, seg(".").port(port).seq(1).ack(1));
        host.conn = host.try_accept();
    }
    host.drain();
    host.nothing();
    assert_eq!(host.counters().tcp_connections, 10_000);
    assert_eq!(host.tcp.poll_timeout(), None);
    assert_eq!(host.counters().tcp_buffered_bytes, 0);
    assert!(host.tcp.ready.is_empty());
}

/// X08.
#[test]
fn losing_the_address_ends_everything_that_is_bound_to_it() {
    use crate::error::TcpError;
    use crate::socket::TcpStatus;
    let mut host = Host::new();
    host.established().write(b"x");
    host.rx(seg("S").port(7)).out.clear();
    host.tcp.handle_address_lost(host.now, HOST);
    host.drain();
    assert_eq!(host.status(), TcpStatus::Failed(TcpError::AddressLost));
    host.release().is_empty();
}

/// X03, T07: a peer that sends anything, near every edge, to a program that does anything, at any
/// time. The invariants hold at each step, and in the end nothing is left.
#[test]
fn arbitrary_segments_and_calls_never_break_an_invariant() {
    for seed in 0..1500u64 {
        let mut dice = Dice(seed);
        let isn = |dice: &mut Dice| ISNS[dice.below(5) as usize];
        let limits = Limits {
            tcp_receive_bytes: [2048, 5000, 262_144][dice.below(3) as usize],
            tcp_send_bytes: [2048, 262_144][dice.below(2) as usize],
            tcp_total_bytes: [4096, 1 << 24][dice.below(2) as usize],
            tcp_out_of_order_ranges: 1 + dice.below(8) as usize,
            tcp_half_open: dice.below(3) as usize,
            ..Limits::default()
        };
        let (peer_isn, host_isn) = (isn(&mut dice), isn(&mut dice));
        let mut host = Host::with(limits, [576, 1500][dice.below(2) as usize], peer_isn, host_isn);
        let has_timestamps = dice.percent(50);
        let mut syn = seg("S").mss(dice.below(2000) as u16);
        syn.shift = dice.percent(50).then(|| dice.below(20) as u8);
        syn.ts = has_timestamps.then_some((1, 0));
        if dice.percent(80) {
            host.established_with(syn);
        } else {
            host.connect();
        }
        host.out.clear();
        let (mut ahead, mut acked) = (1u32, 1u32);
        for step in 0..60 {
            match dice.below(10) {
                0..=5 => {
                    let flags = [0x10, 0x10, 0x10, 0x10, 0x18, 0x11, 0x12, 0x14, 0x02, 0x04];
                    let near = |dice: &mut Dice, at: u32| match dice.below(6) {
                        0 => at.wrapping_sub(dice.below(3000) as u32),
                        1 => at.wrapping_add(dice.below(70_000) as u32),
                        _ => at,
                    };
                    let data = stream(ahead as usize, dice.below(1600) as usize);
                    let segment = Seg {
                        flags: flags[dice.below(if step < 40 { 6 } else { 10 }) as usize],
                        seq: near(&mut dice, ahead),
                        ack: Some(near(&mut dice, acked)),
                        window: Some([0, 1, 100, 5000, 65_535][dice.below(5) as usize]),
                        ts: has_timestamps.then(|| (dice.below(100) as u32 + step, 0)),
                        data,
                        ..Seg::default()
                    };
                    host.rx(segment);
                }
                6 => {
                    let _ =
                        host.tcp.write(host.now, host.id(), &stream(0, dice.below(9000) as usize));
                    host.drain();
                }
                7 => {
                    let _ =
                        host.tcp.read(host.now, host.id(), &mut vec![0; dice.below(5000) as usize]);
                    host.drain();
                }
                8 => {
                    host.pass([1, 40, 300, 5000, 100_000][dice.below(5) as usize]);
                }
                _ if step > 30 => match dice.below(4) {
                    0 => {
                        let _ = host.tcp.shutdown(host.now, host.id());
                    }
                    1 => host.tcp.release(host.now, host.id()),
                    2 => host.tcp.set_nodelay(host.id(), dice.percent(50)),
                    _ => {
                        use crate::icmp::IcmpError;
                        let mtu = dice.below(2000) as u16;
                        host.rx_icmp(IcmpError::FragmentationNeeded { mtu }, acked);
                    }
                },
                _ => {}
            }
            host.drain();
            for sent in host.out.drain(..) {
                ahead = sent.header.acknowledgment.0.wrapping_sub(host.peer_isn.0);
                let end = sent.header.sequence + sent.payload.len() as u32;
                acked = end.0.wrapping_sub(host.host_isn.unwrap_or_default().0);
            }
        }
        host.tcp.abort(host.now, host.id());
        host.drain();
        host.pass(200_000);
        host.out.clear();
        assert!(host.counters().tcp_connections <= 8, "only what waits to be accepted");
        if let Some(listener) = host.listener {
            host.tcp.close_listener(host.now, listener);
        }
        host.drain();
        host.out.clear();
        host.pass(600_000);
        host.out.clear();
        host.is_empty();
    }
}
