//! CLOSED and LISTEN (RFC 9293 §3.10.7.1 and §3.10.7.2).

use super::script::*;
use crate::error::ListenError;
use crate::event::Event;
use core::net::{Ipv4Addr, SocketAddr};

/// C01.
#[test]
fn closed_port_answers_with_reset_that_fits_the_segment() {
    with_isns(|mut host| {
        // Without ACK: sequence number 0, and an ACK of all that came.
        host.rx(seg("S").seq(7)).expect(seg("R.").seq(0).ack(8));
        host.rx(seg("SF").seq(7).data(b"abc")).expect(seg("R.").seq(0).ack(12));
        host.rx(seg("F").seq(7)).expect(seg("R.").seq(0).ack(8));
        host.rx(seg("").seq(7).data(b"x")).expect(seg("R.").seq(0).ack(8));
        // With ACK: the number that the peer expects.
        host.rx(seg("S.").seq(7).ack(99)).expect(seg("R").seq(99));
        host.rx(seg(".").seq(7).ack(99)).expect(seg("R").seq(99));
        host.rx(seg("F.").seq(7).ack(99).data(b"abc")).expect(seg("R").seq(99));
        // Never a RST for a RST.
        host.rx(seg("R").seq(7)).rx(seg("R.").seq(7).ack(99)).rx(seg("RSF.").seq(7)).is_empty();
    });
}

#[test]
fn listener_answers_what_opens_nothing() {
    with_isns(|mut host| {
        host.listen();
        host.rx(seg(".").seq(7).ack(99)).expect(seg("R").seq(99));
        host.rx(seg("F.").seq(7).ack(99)).expect(seg("R").seq(99));
        host.rx(seg("S.").seq(7).ack(99)).expect(seg("R").seq(99));
        host.rx(seg("F").seq(7)).rx(seg("R").seq(7)).rx(seg("R.").seq(7)).rx(seg("")).nothing();
        host.rx(seg("SF").seq(7)).is_empty();
        assert_eq!(host.counters().dropped_tcp_flags, 3);
    });
}

#[test]
fn handshake_and_a_first_exchange() {
    with_isns(|mut host| {
        host.listen();
        host.rx(seg("S").seq(0).mss(1000));
        host.expect(seg("S.").seq(0).ack(1).win(65_535).mss(1460)).nothing();
        host.rx(seg(".").seq(1).ack(1)).nothing();
        let listener = host.listener.expect("listening");
        assert!(host.had_event(Event::Acceptable(listener)));
        host.accept().would_block();
        host.rx(seg("P.").seq(1).ack(1).data(b"hello"));
        let id = host.id();
        assert!(host.had_event(Event::TcpReadable(id)));
        host.read(b"hello").write(b"world");
        host.expect(seg("P.").seq(1).ack(6).data(b"world")).nothing();
        host.rx(seg(".").seq(6).ack(6)).nothing();
        assert!(host.tcp.is_flushed(id));
    });
}

/// C04.
#[test]
fn duplicate_syn_gets_the_same_answer_from_the_same_entry() {
    with_isns(|mut host| {
        host.listen();
        for _ in 0..5 {
            host.rx(seg("S").seq(0).mss(1000)).expect(seg("S.").seq(0).ack(1).mss(1460)).nothing();
            assert_eq!(host.counters().tcp_half_open, 1);
        }
    });
}

/// T03, T02.
#[test]
fn segment_size_of_a_peer_that_says_none_or_nonsense() {
    for (said, used) in
        [(None, 536), (Some(0), 216), (Some(47), 216), (Some(1000), 1000), (Some(9000), 1460)]
    {
        let mut host = Host::new();
        let mut syn = seg("S");
        syn.mss = said;
        host.established_with(syn).nodelay();
        host.write_stream(0, 10_000);
        let mut sent = 0;
        while sent < 10_000 {
            while let Some(segment) = host.out.pop_front() {
                assert!(segment.payload.len() <= used, "MSS {said:?}");
                sent += segment.payload.len();
            }
            host.rx(seg(".").seq(1).ack(1 + sent as u32));
        }
        assert!(host.counters().tcp_segments_sent <= 10_000 / used as u64 + 3);
    }
}

#[test]
fn more_specific_listener_wins_and_a_port_is_used_once() {
    let mut host = Host::new();
    host.listen();
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
    assert_eq!(host.tcp.listen(any, 1), Err(ListenError::InUse(any)));
    let specific = host.tcp.listen(SocketAddr::new(HOST, PORT), 1).expect("another address");
    host.rx(seg("S")).expect(seg("S.").seq(0).ack(1)).rx(seg(".").seq(1).ack(1));
    assert!(host.try_accept().is_none());
    assert!(host.tcp.accept(host.now, specific).is_some());
}

#[test]
fn port_zero_picks_a_free_port() {
    let mut host = Host::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let id = host.tcp.listen(any, 1).expect("a port is free");
        let port = host.tcp.listener_addr(id).expect("it listens").port();
        assert!(port >= 1024 && seen.insert(port));
    }
}

/// C06.
#[test]
fn closing_a_listener_resets_its_children() {
    with_isns(|mut host| {
        host.listen();
        host.rx(seg("S")).expect(seg("S.").seq(0).ack(1)).rx(seg(".").seq(1).ack(1)).nothing();
        let listener = host.listener.expect("listening");
        host.tcp.close_listener(host.now, listener);
        host.drain();
        host.expect(seg("R.").seq(1).ack(1)).is_empty();
        assert_eq!(host.tcp.accept(host.now, listener), None);
    });
    with_isns(|mut host| {
        host.listen();
        host.rx(seg("S")).expect(seg("S.").seq(0).ack(1));
        let listener = host.listener.expect("listening");
        host.tcp.close_listener(host.now, listener);
        host.drain();
        host.expect(seg("R.").seq(1).ack(1)).is_empty();
    });
}

/// C05.
#[test]
fn full_accept_queue_leaves_the_client_in_its_handshake() {
    let mut host = Host::new();
    host.listen_with(1);
    for port in [1001, 1002, 1003] {
        host.rx(seg("S").port(port)).expect(seg("S.").port(port).seq(0).ack(1));
        host.rx(seg(".").port(port).seq(1).ack(1)).nothing();
    }
    assert_eq!(host.counters().tcp_accept_queue_full, 2);
    // The two that wait are asked again; their data is not acknowledged before there is room.
    host.rx(seg("P.").port(1002).seq(1).ack(1).data(b"x")).nothing();
    assert!(host.try_accept().is_some() && host.try_accept().is_none());
    host.after(1000);
    host.expect(seg("S.").port(1002).seq(0).ack(1));
    host.expect(seg("S.").port(1003).seq(0).ack(1));
    host.rx(seg(".").port(1002).seq(2).ack(1)).rx(seg("P.").port(1002).seq(1).ack(1).data(b"x"));
    host.conn = host.try_accept();
    host.read(b"x");
    host.out.clear();
    host.rx(seg(".").port(1003).seq(1).ack(1));
    assert!(host.try_accept().is_some());
}

/// S08.
#[test]
fn reset_connection_leaves_the_accept_queue() {
    let mut host = Host::new();
    host.listen();
    host.rx(seg("S")).expect(seg("S.").seq(0).ack(1)).rx(seg(".").seq(1).ack(1));
    host.rx(seg("R").seq(1));
    assert!(host.try_accept().is_none());
    host.is_empty();
}
