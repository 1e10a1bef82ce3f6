//! Every ceiling is reached, holds, and is counted; and honest peers still get through.

use super::script::*;
use crate::config::Limits;
use crate::error::{ConnectError, ListenError, TcpError};
use crate::event::Event;
use crate::socket::TcpStatus;
use crate::tcp::connection::{Connection, State};
use crate::tcp::half_open::HalfOpen;
use crate::wire::tcp::{Flags, Header};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Another peer.
fn stranger(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + number))
}

/// C02: a million SYNs from everywhere in ten seconds.
#[test]
fn flood_of_syns_is_bounded_and_an_honest_client_gets_in() {
    let mut host = Host::with_limits(Limits { tcp_half_open: 64, ..Limits::default() });
    host.listen();
    // A hundred times a hundred milliseconds.
    let check_often = 10_000;
    for number in 0..1_000_000u32 {
        let syn = seg("S").seq(number).mss(1460).ts(number, 0).shift(7);
        if number % check_often == 0 {
            host.rx_from(stranger(number), syn).pass(100);
            assert!(host.counters().tcp_half_open <= 64);
        } else {
            host.rx_quietly(stranger(number), syn);
        }
        host.out.clear();
    }
    assert!(host.counters().tcp_cookies_sent > 990_000);
    assert_eq!(host.counters().tcp_connections, 0);
    host.drain();
    host.out.clear();
    // Server-first or client-first: the client is in with its ACK, on the first try.
    host.rx(seg("S").mss(1460).ts(5, 0).shift(7));
    let syn_ack = host.next_sent().header;
    let echo = syn_ack.options.timestamps.expect("agreed on").value;
    host.rx(seg(".").seq(1).ack(1).ts(6, echo).win(512)).nothing().accept();
    host.write(b"hello");
    assert_eq!(host.next_sent().payload, b"hello");
    host.pass(200_000);
    assert_eq!(host.counters().tcp_half_open, 0);
}

/// A host whose table of handshakes is full.
fn crowded(peer_isn: u32) -> Host {
    let limits = Limits { tcp_half_open: 2, ..Limits::default() };
    let mut host = Host::with(limits, MTU, peer_isn, 9);
    host.listen().rx_from(stranger(1), seg("S")).out.clear();
    host
}

/// What the SYN-ACK with a cookie says, and the ACK of it.
fn cookie(host: &mut Host, syn: Seg) -> (Header, Seg) {
    let ts = syn.ts.map(|(value, _)| value);
    host.rx(syn);
    let header = host.next_sent().header;
    assert_eq!(header.flags, Flags::SYN | Flags::ACK);
    let mut ack = seg(".").seq(1).ack(1);
    ack.ts = ts.zip(header.options.timestamps).map(|(value, ours)| (value, ours.value));
    (header, ack)
}

/// C03.
#[test]
fn cookie_keeps_the_options_in_the_timestamp() {
    for isn in ISNS {
        let mut host = crowded(isn);
        let (header, ack) = cookie(&mut host, seg("S").mss(1400).shift(4).ts(100, 0));
        assert_eq!(header.options.window_shift, Some(7));
        assert_eq!(host.counters().tcp_half_open, 1, "nothing is remembered");
        host.rx(ack.win(100)).nothing().accept();
        // A window of 1600, segments of 1400 with the option.
        host.write_stream(0, 3000);
        assert_eq!(host.next_sent().payload.len(), 1388);
    }
}

/// C03.
#[test]
fn cookie_without_timestamps_has_neither_shift_nor_clock() {
    let mut host = crowded(5);
    let (header, ack) = cookie(&mut host, seg("S").mss(1000).shift(4));
    assert_eq!((header.options.window_shift, header.options.timestamps), (None, None));
    host.rx(ack.win(500)).nothing().accept().write_stream(0, 3000).nodelay();
    assert_eq!(host.next_sent().payload.len(), 500, "536, the next lower, in a window of 500");
    host.nothing();
}

/// C03, gVisor's table: ACK with PSH, FIN or data completes; with SYN or RST it does not.
#[test]
fn what_completes_a_cookie() {
    for (flags, completes) in [
        (".", true),
        ("P.", true),
        ("F.", true),
        ("FP.", true),
        ("S.", false),
        ("R.", false),
        ("SF.", false),
    ] {
        let mut host = crowded(5);
        let (_, ack) = cookie(&mut host, seg("S").mss(1000));
        host.rx(Seg { flags: seg(flags).flags, data: b"x".to_vec(), ..ack });
        assert_eq!(host.try_accept().is_some(), completes, "{flags}");
    }
}

/// C03: the third segment was lost, the client's data completes the handshake.
#[test]
fn data_completes_a_cookie_whose_ack_was_lost() {
    let mut host = crowded(u32::MAX);
    let (_, ack) = cookie(&mut host, seg("S").mss(1000));
    host.pass(5000).out.clear();
    host.rx(ack.data(b"GET /")).accept().read(b"GET /");
}

/// C03, C02.
#[test]
fn stale_forged_and_unasked_cookies_get_a_reset() {
    let mut host = crowded(5);
    let (_, ack) = cookie(&mut host, seg("S").mss(1000));
    host.pass(128_000).out.clear();
    host.rx(ack.clone()).expect(seg("R").seq(1)).nothing();
    let mut host = crowded(5);
    cookie(&mut host, seg("S").mss(1000));
    for ack_number in 2..1000 {
        host.rx(ack.clone().ack(ack_number));
    }
    assert!(host.out.drain(..).all(|sent| sent.header.flags == Flags::RST));
    assert_eq!(host.counters().tcp_connections, 0);
    // While the table has room no cookie was made, and none is believed.
    let mut host = Host::with_limits(Limits { tcp_half_open: 2, ..Limits::default() });
    host.listen().rx(ack).nothing_but_resets();
}

/// A flood of one listener leaves another its half of the table.
#[test]
fn one_listener_cannot_take_the_whole_table() {
    let mut host = Host::with_limits(Limits { tcp_half_open: 10, ..Limits::default() });
    host.listen();
    host.tcp.listen(SocketAddr::new(HOST, 81), 8).expect("another port");
    for number in 0..100 {
        host.rx_from(stranger(number), seg("S"));
    }
    assert_eq!(host.counters().tcp_half_open, 5);
    host.port = 81;
    for number in 0..100 {
        host.rx_from(stranger(number), seg("S"));
    }
    assert_eq!(host.counters().tcp_half_open, 10);
}

#[test]
fn connections_are_bounded() {
    let mut host = Host::with_limits(Limits { tcp_connections: 3, ..Limits::default() });
    host.listen();
    for port in 1..=5u16 {
        host.rx(seg("S").port(port)).rx(seg(".").port(port).seq(1).ack(1));
    }
    assert_eq!(host.counters().tcp_connections, 3);
    let remote = SocketAddr::new(PEER, 9999);
    assert_eq!(host.tcp.connect(host.now, HOST, remote), Err(ConnectError::TooMany));
    assert_eq!(host.counters().tcp_connections_refused, 3);
    // When one goes, the next gets in.
    host.accept().abort().out.clear();
    host.rx(seg("S").port(6)).rx(seg(".").port(6).seq(1).ack(1));
    assert_eq!(host.counters().tcp_connections, 3);
}

#[test]
fn listeners_and_backlogs_are_bounded() {
    let limits = Limits { tcp_listeners: 2, tcp_accept_backlog: 3, ..Limits::default() };
    let mut host = Host::with_limits(limits);
    host.listen_with(1_000_000);
    host.tcp.listen(SocketAddr::new(HOST, 81), 0).expect("the second");
    let third = host.tcp.listen(SocketAddr::new(HOST, 82), 1);
    assert_eq!(third, Err(ListenError::TooMany));
    for port in 1..=5u16 {
        host.rx(seg("S").port(port)).rx(seg(".").port(port).seq(1).ack(1));
    }
    assert_eq!(host.counters().tcp_connections, 3);
    assert_eq!(host.counters().tcp_accept_queue_full, 2);
}

/// I05 for RSTs.
#[test]
fn resets_out_of_nowhere_are_limited_in_rate() {
    let mut host = Host::new();
    (0..10_000u32).for_each(|seq| host.rx_quietly(PEER, seg(".").seq(seq)));
    host.drain();
    assert_eq!(host.out.len(), 200);
    assert_eq!(host.counters().tcp_replies_limited, 9_800);
    host.out.clear();
    host.pass(1000);
    (0..10_000u32).for_each(|seq| host.rx_quietly(PEER, seg(".").seq(seq)));
    host.drain();
    assert_eq!(host.out.len(), 200);
}

/// A device that takes nothing: replies wait in a short queue.
#[test]
fn replies_that_nobody_takes_are_bounded() {
    let mut host = Host::with_limits(Limits { tcp_half_open: 2, ..Limits::default() });
    host.listen();
    (0..10_000u32).for_each(|number| host.rx_quietly(stranger(number), seg("S")));
    host.drain();
    assert_eq!(host.out.len(), 1024);
    assert_eq!(host.counters().dropped_tcp_reply_queue, 10_000 - 1024);
}

/// X10: what all connections hold together.
#[test]
fn bytes_of_all_connections_are_bounded_and_writers_are_woken() {
    let limits = Limits { tcp_total_bytes: 64 * 1024, ..Limits::default() };
    let mut host = Host::with_limits(limits);
    host.listen();
    let mut ids = Vec::new();
    for port in 1..=8u16 {
        host.rx(seg("S").port(port).mss(1460)).rx(seg(".").port(port).seq(1).ack(1));
        ids.extend(host.try_accept());
    }
    host.out.clear();
    let mut refused = Vec::new();
    for &id in &ids {
        match host.tcp.write(host.now, id, &stream(0, 16_384)) {
            Ok(None) => refused.push(id),
            other => assert!(matches!(other, Ok(Some(_)))),
        }
    }
    host.drain();
    assert!(refused.len() >= 3, "{}", refused.len());
    assert!(host.counters().tcp_buffered_bytes <= 64 * 1024);
    // Their windows stay closed to more than is left; what comes is dropped and counted.
    for port in 1..=8u16 {
        host.rx(seg(".").port(port).seq(1).ack(1).stream(0, 1460));
    }
    assert!(host.counters().dropped_tcp_no_room > 0);
    host.events.clear();
    // One gives its memory back: all who wait are told.
    host.tcp.abort(host.now, ids[0]);
    host.drain();
    for &id in &refused {
        assert!(host.had_event(Event::TcpWritable(id)));
    }
    assert!(matches!(host.tcp.write(host.now, refused[0], &stream(0, 2048)), Ok(Some(_))));
}

/// W08: peers that never take their data do not keep a new client out.
#[test]
fn stalled_connection_goes_when_memory_is_short() {
    let limits = Limits { tcp_total_bytes: 64 * 1024, ..Limits::default() };
    let mut host = Host::with_limits(limits);
    host.listen();
    let mut ids = Vec::new();
    for port in 1..=4u16 {
        host.rx(seg("S").port(port).mss(1460));
        host.rx(seg(".").port(port).seq(1).ack(1).win(0));
        ids.extend(host.try_accept());
        let id = *ids.last().expect("accepted");
        let _ = host.tcp.write(host.now, id, &stream(0, 16_384));
        host.pass(1);
    }
    host.pass(20_000).out.clear();
    host.rx(seg("S").port(99).mss(1460)).rx(seg(".").port(99).seq(1).ack(1));
    let id = host.try_accept().expect("a connection itself is small");
    assert_eq!(host.tcp.write(host.now, id, &stream(0, 2048)), Ok(None));
    host.drain();
    assert!(host.had_event(Event::TcpWritable(id)));
    assert_eq!(host.tcp.write(host.now, id, &stream(0, 2048)), Ok(Some(2048)));
    assert_eq!(host.tcp.status(ids[0]), TcpStatus::Failed(TcpError::OutOfMemory));
    assert_eq!(host.counters().tcp_reset_for_memory, 1);
}

/// Three quarters of the memory are what a few peers who take nothing can get: the next connection has
/// an initial window all the same, at once.
#[test]
fn closed_windows_leave_the_next_connection_an_initial_window() {
    let limits =
        Limits { tcp_total_bytes: 256 * 1024, tcp_send_bytes: 64 * 1024, ..Limits::default() };
    let mut host = Host::with_limits(limits);
    host.listen();
    for port in 1..=6u16 {
        host.rx(seg("S").port(port).mss(1460)).rx(seg(".").port(port).seq(1).ack(1).win(0));
        let id = host.try_accept().expect("a connection itself is small");
        let expected = if port <= 3 { 65_536 } else { 16_384 };
        assert_eq!(host.tcp.write(host.now, id, &stream(0, 65_536)), Ok(Some(expected)));
    }
    host.rx(seg("S").port(99).mss(1460)).rx(seg(".").port(99).seq(1).ack(1));
    let id = host.try_accept().expect("a connection itself is small");
    assert_eq!(host.tcp.write(host.now, id, &stream(0, 65_536)), Ok(Some(16_384)));
}

/// Under pressure windows stop opening, but never shrink.
#[test]
fn windows_open_less_while_memory_is_short() {
    let limits = Limits {
        tcp_total_bytes: 64 * 1024,
        tcp_receive_bytes: 32 * 1024,
        tcp_send_bytes: 48 * 1024,
        ..Limits::default()
    };
    let mut host = Host::with_limits(limits);
    host.established();
    let writer = host.id();
    assert_eq!(host.tcp.write(host.now, writer, &stream(0, 60_000)), Ok(Some(49_152)));
    host.drain();
    host.out.clear();
    host.rx(seg("S").port(2).mss(1460)).rx(seg(".").port(2).seq(1).ack(1));
    let offered = u32::from(host.next_sent().header.window);
    assert_eq!(offered, 32 * 1024, "the SYN-ACK promises what there is at best");
    let other = host.try_accept().expect("accepted");
    host.conn = Some(other);
    host.rx(seg("P.").port(2).seq(1).ack(1).data(b"x")).rx(seg("P.")
        .port(2)
        .seq(2)
        .ack(1)
        .data(b"y"));
    let window = u32::from(host.next_sent().header.window);
    assert_eq!(window + 2, offered, "promised is promised");
}

/// The numbers that the documentation states.
#[test]
fn sizes_are_what_the_documentation_says() {
    assert!(size_of::<HalfOpen>() <= 104, "{}", size_of::<HalfOpen>());
    assert!(size_of::<Connection>() <= 616, "{}", size_of::<Connection>());
}

/// The timeouts are the ones that were asked for.
#[test]
fn timeouts_can_be_set() {
    let seconds = core::time::Duration::from_secs;
    let limits = Limits {
        tcp_connect_timeout: seconds(5),
        tcp_user_timeout: seconds(7),
        tcp_fin_wait_2_timeout: seconds(9),
        tcp_time_wait_duration: seconds(11),
        ..Limits::default()
    };
    let mut host = Host::with_limits(limits.clone());
    host.in_state(State::SynSent).pass(4999);
    assert_eq!(host.status(), TcpStatus::Connecting);
    host.pass(1);
    assert_eq!(host.status(), TcpStatus::Failed(TcpError::TimedOut));
    let mut host = Host::with_limits(limits.clone());
    host.established().write(b"x").pass(6999);
    assert!(matches!(host.status(), TcpStatus::Open { .. }));
    host.pass(1);
    assert_eq!(host.status(), TcpStatus::Failed(TcpError::TimedOut));
    let mut host = Host::with_limits(limits.clone());
    host.in_state(State::FinWait2).release().after(9000).is_empty();
    let mut host = Host::with_limits(limits);
    host.in_state(State::TimeWait).release().after(11_000).is_empty();
}

/// packetdrill `user_timeout`: a connection's own, set before or while something is in flight.
#[test]
fn a_connection_has_a_user_timeout_of_its_own() {
    let three = Some(core::time::Duration::from_secs(3));
    with_isns(|mut host| {
        host.established();
        host.tcp.set_user_timeout(host.now, host.id(), three);
        host.write(b"x").pass(2999);
        assert!(matches!(host.status(), TcpStatus::Open { .. }));
        host.pass(1);
        assert_eq!(host.status(), TcpStatus::Failed(TcpError::TimedOut));
        assert!(host.out.drain(..).next_back().is_some_and(|sent| sent.header.flags.0 & 4 != 0));
        // What comes later is answered by RST: the block is gone.
        host.release().rx(seg(".").seq(1).ack(2)).expect(seg("R").seq(2)).is_empty();
    });
    with_isns(|mut host| {
        host.established().write(b"x").pass(100_000);
        host.tcp.set_user_timeout(host.now, host.id(), three);
        host.pass(1);
        assert_eq!(host.status(), TcpStatus::Failed(TcpError::TimedOut));
    });
    // And none of its own again; and none for a window that is closed, as long as probes are answered.
    with_isns(|mut host| {
        host.established();
        host.tcp.set_user_timeout(host.now, host.id(), three);
        host.tcp.set_user_timeout(host.now, host.id(), None);
        host.write(b"x").pass(200_000);
        assert!(matches!(host.status(), TcpStatus::Open { .. }));
    });
}

/// Connections with output take turns, segment by segment, and replies get theirs.
#[test]
fn ready_connections_take_turns() {
    let mut host = Host::new();
    host.listen();
    let mut ids = Vec::new();
    for port in 1..=3u16 {
        host.rx(seg("S").port(port).mss(1000)).rx(seg(".").port(port).seq(1).ack(1));
        ids.extend(host.try_accept());
    }
    host.out.clear();
    for &id in &ids {
        assert_eq!(host.tcp.write(host.now, id, &stream(0, 4000)), Ok(Some(4000)));
    }
    (0..6u32).for_each(|seq| host.rx_quietly(stranger(1), seg(".").seq(seq)));
    host.drain();
    let order: Vec<u16> = host.out.drain(..).map(|sent| sent.header.destination_port).collect();
    let data: Vec<u16> = order.iter().copied().filter(|&port| port != PEER_PORT).collect();
    assert_eq!(data, [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]);
    let first_half = order[..12].iter().filter(|&&port| port == PEER_PORT).count();
    assert_eq!(first_half, 6, "every other one");
}

/// An idle connection holds its control block and no buffer.
#[test]
fn idle_connection_has_no_buffers() {
    let mut host = Host::new();
    host.established().rx(seg("P.").seq(1).ack(1).stream(0, 1000)).read(&stream(0, 1000));
    host.write_stream(0, 1000).rx(seg(".").seq(1001).ack(1001));
    assert_eq!(host.counters().tcp_buffered_bytes, 0);
    assert_eq!(host.state(), State::Established);
}
