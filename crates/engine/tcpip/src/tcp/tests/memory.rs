//! What all connections share, and peers who hold it without need: whoever is honest gets his part.

use super::script::*;
use crate::config::Limits;
use crate::error::TcpError;
use crate::socket::{TcpId, TcpStatus};

/// Peers on the ports from 1 on who have asked for more than they take, each with a window of a byte.
struct Drippers {
    ids: Vec<TcpId>,
    /// Numbers that each has acknowledged.
    acked: Vec<u32>,
}

impl Drippers {
    fn connect(host: &mut Host, count: u16, wanted: usize) -> Drippers {
        let ids = (1..=count).map(|port| {
            host.rx(seg("S").port(port).mss(1460));
            host.rx(seg(".").port(port).seq(1).ack(1).win(1));
            let id = host.try_accept().expect("a connection itself is small");
            let mut written = 0;
            while written < wanted
                && let Ok(Some(count)) = host.tcp.write(host.now, id, &stream(0, 16_384))
            {
                written += count;
            }
            host.pass(1).out.clear();
            id
        });
        Drippers { ids: ids.collect(), acked: vec![1; count.into()] }
    }

    /// The peer on `port` takes `count` bytes, and opens its window for as many.
    fn take(&mut self, host: &mut Host, port: u16, count: u16) {
        let acked = &mut self.acked[usize::from(port) - 1];
        *acked += u32::from(count);
        host.rx_quietly(PEER, seg(".").port(port).seq(1).ack(*acked).win(count));
    }
}

/// W08, sockstress: peers that take a byte every five seconds hold no memory for which others wait;
/// one that takes forty bytes a second keeps its own.
#[test]
fn a_byte_now_and_then_keeps_nobody_out() {
    let limits = Limits { tcp_total_bytes: 64 * 1024, ..Limits::default() };
    let mut host = Host::with_limits(limits);
    host.listen();
    let mut drippers = Drippers::connect(&mut host, 4, 16_384);
    let slow = drippers.ids[0];
    host.rx(seg(".").port(1).seq(1).ack(1).win(200));
    // While nobody else wants any, everybody keeps what he has.
    let mut step = |host: &mut Host| {
        host.pass(5000).out.clear();
        drippers.take(host, 1, 200);
        (2..=4).for_each(|port| drippers.take(host, port, 1));
        host.drain();
        host.out.clear();
    };
    for _ in 0..30 {
        step(&mut host);
    }
    assert_eq!((host.counters().tcp_reset_for_memory, host.counters().tcp_connections), (0, 4));
    host.rx(seg("S").port(99).mss(1460)).rx(seg(".").port(99).seq(1).ack(1));
    let id = host.try_accept().expect("a connection itself is small");
    let mut rounds = 0;
    while host.tcp.write(host.now, id, &stream(0, 2048)) != Ok(Some(2048)) {
        step(&mut host);
        rounds += 1;
        assert!(rounds <= 4, "twenty seconds later the new client has not been served");
    }
    assert!(host.counters().tcp_reset_for_memory > 0);
    assert!(matches!(host.tcp.status(slow), TcpStatus::Open { .. }), "slow, but honest");
}

/// The same with the default limits, where three hundred of them have taken everything.
#[test]
fn hundreds_who_take_a_byte_now_and_then_keep_nobody_out() {
    let mut host = Host::new();
    host.listen_with(1000);
    let mut drippers = Drippers::connect(&mut host, 300, 1 << 20);
    let held = host.counters().tcp_buffered_bytes;
    assert!(held > (15 << 20), "{held}");
    host.rx(seg("S").port(999).mss(1460)).rx(seg(".").port(999).seq(1).ack(1));
    let id = host.try_accept().expect("a connection itself is small");
    let mut rounds = 0;
    while host.tcp.write(host.now, id, &stream(0, 10_000)) != Ok(Some(10_000)) {
        host.pass(5000).out.clear();
        (1..=300).for_each(|port| drippers.take(&mut host, port, 1));
        host.drain();
        host.out.clear();
        rounds += 1;
        assert!(rounds <= 6, "half a minute later the new client has not been served");
    }
    let failed = |id: &&TcpId| host.tcp.status(**id) == TcpStatus::Failed(TcpError::OutOfMemory);
    let reset = drippers.ids.iter().filter(failed).count() as u64;
    assert_eq!(reset, host.counters().tcp_reset_for_memory, "and the programs are told why");
}

/// Somebody waits for memory before those who hold it have been stalled for long: he is served when
/// they have, though he asks but once.
#[test]
fn who_waits_is_served_without_asking_again() {
    let limits = Limits { tcp_total_bytes: 64 * 1024, ..Limits::default() };
    let mut host = Host::with_limits(limits);
    host.listen();
    Drippers::connect(&mut host, 4, 16_384);
    host.rx(seg("S").port(99).mss(1460)).rx(seg(".").port(99).seq(1).ack(1));
    let id = host.try_accept().expect("a connection itself is small");
    assert_eq!(host.tcp.write(host.now, id, &stream(0, 2048)), Ok(None));
    host.events.clear();
    host.pass(20_000);
    assert!(host.had_event(crate::event::Event::TcpWritable(id)));
    assert_eq!(host.tcp.write(host.now, id, &stream(0, 2048)), Ok(Some(2048)));
}

/// Connects a peer on `port`, quietly.
fn connect_quietly(host: &mut Host, port: u16) {
    host.rx_quietly(PEER, seg("S").port(port).seq(0).mss(1460).sack_ok());
    if host.host_isn.is_none() {
        host.drain();
    }
    host.rx_quietly(PEER, seg(".").port(port).seq(1).ack(1));
    host.try_accept().expect("a connection itself is small");
}

/// Peers who hold crumbs of one byte, as many as they can have and for ever, do not take selective
/// acknowledgment from who has lost a segment.
#[test]
fn hoarders_of_crumbs_leave_room_for_the_segments_of_others() {
    let mut host = Host::new();
    host.listen();
    for port in 1..=60u16 {
        connect_quietly(&mut host, port);
        for crumb in 1..=256u32 {
            let data = seg(".").port(port).seq(1 + crumb * 2).ack(1);
            host.rx_quietly(PEER, data.stream(crumb as usize * 2, 1));
        }
        host.drain();
        host.out.clear();
    }
    let held = host.counters().tcp_out_of_order_ranges;
    assert!((8000..=8192 + 60).contains(&held), "{held}");
    host.pass(86_400_000).out.clear();
    // Every second segment of eighty is lost. What is refused is sent again, as SACK asks for.
    host.rx(seg("S").port(999).seq(0).mss(1460).sack_ok()).rx(seg(".").port(999).seq(1).ack(1));
    let id = host.try_accept().expect("a connection itself is small");
    let segment = |number: u32| {
        let at = number * 500;
        seg(".").port(999).seq(1 + at).ack(1).stream(at as usize, 500)
    };
    for round in 0..4 {
        let before = host.counters().dropped_tcp_no_room;
        for number in (1..80).step_by(2) {
            host.rx(segment(number)).out.clear();
        }
        let refused = host.counters().dropped_tcp_no_room - before;
        assert!(round < 3 || refused == 0, "{refused} in round {round}");
        host.pass(1000);
    }
    for number in (0..80).step_by(2) {
        host.rx(segment(number)).out.clear();
    }
    let mut buffer = vec![0; 40_000];
    assert_eq!(
        host.tcp.read(host.now, id, &mut buffer),
        Ok(Some(40_000)),
        "nothing was sent twice"
    );
    assert_eq!(buffer, stream(0, 40_000));
    assert!(host.counters().tcp_out_of_order_shed > 0);
    assert_eq!(host.counters().tcp_connections, 61, "and nobody was reset");
}

/// The first range is everybody's: what thousands hold is bounded by their number.
#[test]
fn who_has_no_range_gets_one_however_many_have() {
    // So much that bytes are not what is short.
    let mut host = Host::with_limits(Limits { tcp_total_bytes: 64 << 20, ..Limits::default() });
    host.listen();
    for port in 1..=9000u16 {
        connect_quietly(&mut host, port);
        for crumb in 1..=2u32 {
            let data = seg(".").port(port).seq(1 + crumb * 2).ack(1);
            host.rx_quietly(PEER, data.stream(crumb as usize * 2, 1));
        }
    }
    let held = host.counters().tcp_out_of_order_ranges;
    assert!((9000..9000 + 8192).contains(&held), "{held}");
    assert!(host.counters().dropped_tcp_no_room > 0);
    host.rx(seg("S").port(9999).seq(0).mss(1460).sack_ok()).rx(seg(".").port(9999).seq(1).ack(1));
    host.try_accept().expect("a connection itself is small");
    host.out.clear();
    host.rx(seg(".").port(9999).seq(1001).ack(1).stream(1000, 1000));
    host.rx(seg(".").port(9999).seq(1).ack(1).stream(0, 1000));
    assert_eq!(host.out.back().map(|sent| sent.header.acknowledgment), Some(host.peer_isn + 2001));
}
