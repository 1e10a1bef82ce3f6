//! Sending: windows, silly window avoidance, Nagle, the persist timer.

use super::script::*;
use crate::config::Limits;
use crate::error::TcpError;
use crate::event::Event;
use crate::socket::{Keepalive, TcpStatus};
use crate::tcp::connection::State;
use core::time::Duration;

#[test]
fn segments_are_full_and_the_last_has_push() {
    with_isns(|mut host| {
        host.established().write_stream(0, 3000);
        host.expect(seg(".").seq(1).ack(1).stream(0, 1460));
        host.expect(seg(".").seq(1461).ack(1).stream(1460, 1460)).nothing();
        host.rx(seg(".").seq(1).ack(2921)).expect(seg("P.").seq(2921).ack(1).stream(2920, 80));
        host.nothing();
    });
}

/// W07.
#[test]
fn nagle_holds_small_segments_while_data_is_in_flight() {
    with_isns(|mut host| {
        host.established().write(b"a").expect(seg("P.").seq(1).ack(1).data(b"a"));
        host.write(b"b").write(b"c").nothing();
        host.rx(seg(".").seq(1).ack(2)).expect(seg("P.").seq(2).ack(1).data(b"bc")).nothing();
    });
    with_isns(|mut host| {
        host.established().nodelay().write(b"a").expect(seg("P.").seq(1).ack(1).data(b"a"));
        host.write(b"b").expect(seg("P.").seq(2).ack(1).data(b"b")).nothing();
    });
    // Switching it off lets go what it held back.
    with_isns(|mut host| {
        host.established().write(b"a").expect(seg("P.").seq(1).ack(1).data(b"a"));
        host.write(b"b").nothing().nodelay().expect(seg("P.").seq(2).ack(1).data(b"b")).nothing();
    });
}

/// W07: the last data goes with FIN, and what is sent again is not held.
#[test]
fn nagle_holds_neither_fin_nor_retransmission() {
    with_isns(|mut host| {
        host.established().write(b"a").expect(seg("P.").seq(1).ack(1).data(b"a"));
        host.write(b"b").nothing().shutdown().expect(seg("FP.").seq(2).ack(1).data(b"b"));
        host.after(200).expect(seg("FP.").seq(1).ack(1).data(b"ab")).nothing();
    });
}

/// T05, W09.
#[test]
fn window_is_unsigned_and_never_exceeded() {
    for window in [1u16, 100, 1460, 0x7fff, 0x8000, 0xffff] {
        with_isns(|mut host| {
            host.established().rx(seg(".").seq(1).ack(1).win(window)).nothing();
            host.nodelay().write_stream(0, 100_000);
            if host.out.is_empty() {
                // The peer has had more room: silly window avoidance waits for it a while.
                host.pass(200);
            }
            let mut right = 0;
            for sent in host.out.drain(..) {
                let first = sent.header.sequence.since(host.host_isn.unwrap_or_default());
                right = first + sent.payload.len() as u32;
            }
            assert!(right > 1 && right <= 1 + u32::from(window), "{window}");
        });
    }
}

/// W01.
#[test]
fn older_segment_does_not_overwrite_the_window() {
    with_isns(|mut host| {
        host.established().write(b"x").expect(seg("P.").seq(1).ack(1).data(b"x"));
        host.rx(seg(".").seq(2).ack(2).win(5000).data(b"b")).expect(seg(".").seq(2).ack(1));
        host.rx(seg(".").seq(1).ack(1).win(0).data(b"a"));
        host.out.clear();
        host.write_stream(0, 3000).expect(seg(".").seq(2).ack(3).stream(0, 1460));
    });
}

/// W02.
#[test]
fn window_that_shrinks_below_what_is_in_flight_is_survived() {
    with_isns(|mut host| {
        host.established().write(b"abcdef").expect(seg("P.").seq(1).ack(1).data(b"abcdef"));
        host.rx(seg(".").seq(1).ack(4).win(0)).nothing();
        // What was sent is sent again, window or not; the peer answers that.
        host.after(200).expect(seg("P.").seq(4).ack(1).data(b"def"));
        host.rx(seg(".").seq(1).ack(4).win(0)).nothing();
        host.rx(seg(".").seq(1).ack(4).win(256)).nothing();
        host.after(400).expect(seg("P.").seq(4).ack(1).data(b"def"));
        host.rx(seg(".").seq(1).ack(7).win(256)).nothing().after(100_000).nothing();
    });
}

/// W03, W04.
#[test]
fn closed_window_is_probed_for_ever_while_the_peer_answers() {
    with_isns(|mut host| {
        host.established().rx(seg(".").seq(1).ack(1).win(0)).write(b"data").nothing();
        let mut gap = 200;
        let mut elapsed = 0;
        while elapsed < 2 * 3600 * 1000 {
            host.after(gap).expect(seg(".").seq(0).ack(1)).nothing();
            host.rx(seg(".").seq(1).ack(1).win(0)).nothing();
            elapsed += gap;
            gap = (gap * 2).min(60_000);
        }
        assert_eq!(host.state(), State::Established);
        host.rx(seg(".").seq(1).ack(1).win(100)).expect(seg("P.").seq(1).ack(1).data(b"data"));
        host.rx(seg(".").seq(1).ack(5).win(100)).nothing().after(1_000_000).nothing();
    });
}

/// Q04, W03.
#[test]
fn unanswered_probes_end_the_connection() {
    with_isns(|mut host| {
        host.established().rx(seg(".").seq(1).ack(1).win(0)).write(b"data").nothing();
        host.pass(299_999);
        assert_eq!(host.status(), TcpStatus::Open { readable: false, writable: true });
        host.out.clear();
        host.pass(1);
        assert_eq!(host.status(), TcpStatus::Failed(TcpError::TimedOut));
        host.expect(seg("R.").seq(1).ack(1)).release().is_empty();
    });
}

/// W08: a peer that keeps its window closed for ever may do so to a program that waits for it, not
/// to one that has gone.
#[test]
fn released_connection_does_not_wait_for_a_closed_window() {
    with_isns(|mut host| {
        host.established().rx(seg(".").seq(1).ack(1).win(0)).write(b"data").release();
        let mut elapsed = 0;
        while elapsed < 299_000 {
            host.pass(1000).out.clear();
            host.rx(seg(".").seq(1).ack(1).win(0));
            elapsed += 1000;
        }
        host.pass(2000);
        assert_eq!(host.counters().tcp_connections, 0);
        assert!(host.out.pop_back().expect("a RST").header.flags.0 & 4 != 0);
    });
}

/// W06.
#[test]
fn window_below_a_segment_still_lets_everything_through() {
    with_isns(|mut host| {
        // The peer never had more than 100 bytes of room.
        host.established_with(seg("S").mss(1460).win(100));
        host.rx(seg(".").seq(1).ack(1).win(100)).write_stream(0, 1000);
        let mut sent = 0;
        for _ in 0..40 {
            while let Some(segment) = host.out.pop_front() {
                assert_eq!(segment.payload, stream(sent, segment.payload.len()));
                sent += segment.payload.len();
                if sent == 1000 {
                    return;
                }
            }
            host.rx(seg(".").seq(1).ack(1 + sent as u32).win(100)).pass(200);
        }
        panic!("stuck after {sent} bytes");
    });
}

/// W06: a remainder of the window that is too small is used when the override timer says so.
#[test]
fn override_timer_sends_what_the_window_allows() {
    with_isns(|mut host| {
        host.established().rx(seg(".").seq(1).ack(1).win(3)).write_stream(0, 1000).nothing();
        host.after(200).expect(seg(".").seq(1).ack(1).stream(0, 3)).nothing();
        host.rx(seg(".").seq(1).ack(4).win(3)).nothing();
        host.after(200).expect(seg(".").seq(4).ack(1).stream(3, 3)).nothing();
    });
}

/// packetdrill `blocking`: the writer is woken when there is room worth it.
#[test]
fn writer_is_woken_when_half_of_the_buffer_is_free() {
    let mut host = Host::with_limits(Limits { tcp_send_bytes: 8000, ..Limits::default() });
    host.established();
    let id = host.id();
    host.had_event(Event::TcpWritable(id));
    assert_eq!(host.tcp.write(host.now, id, &stream(0, 9000)), Ok(Some(8000)));
    assert_eq!(host.tcp.write(host.now, id, b"x"), Ok(None));
    host.drain();
    host.rx(seg(".").seq(1).ack(2921));
    assert!(!host.had_event(Event::TcpWritable(id)));
    host.rx(seg(".").seq(1).ack(4381));
    assert!(host.had_event(Event::TcpWritable(id)));
    host.rx(seg(".").seq(1).ack(7301)).rx(seg(".").seq(1).ack(8001));
    assert!(host.had_event(Event::TcpWritable(id)), "all is acknowledged");
    assert!(host.tcp.is_flushed(id));
}

/// Z01, Q05: what is written after the peer's FIN is sent, and sent again.
#[test]
fn writing_after_the_peers_fin_goes_on() {
    with_isns(|mut host| {
        host.in_state(State::CloseWait)
            .write(b"late")
            .expect(seg("P.").seq(1).ack(2).data(b"late"));
        host.after(200).expect(seg("P.").seq(1).ack(2).data(b"late"));
        host.rx(seg(".").seq(2).ack(5)).shutdown().expect(seg("F.").seq(5).ack(2));
    });
}

/// K01.
#[test]
fn keepalive_is_off_by_default_and_probes_when_asked() {
    let config =
        Keepalive { idle: Duration::from_secs(10), interval: Duration::from_secs(2), probes: 3 };
    with_isns(|mut host| {
        host.established().after(1_000_000_000).nothing();
        host.tcp.set_keepalive(host.now, host.id(), Some(config));
        host.after(10_000).expect(seg(".").seq(0).ack(1)).nothing();
        // An answer starts the silence anew, and so does data.
        host.after(1000).rx(seg(".").seq(1).ack(1)).nothing();
        host.after(9000).rx(seg("P.").seq(1).ack(1).data(b"x"));
        host.after(40).expect(seg(".").seq(1).ack(2));
        host.after(9960).expect(seg(".").seq(0).ack(2));
        host.after(2000).expect(seg(".").seq(0).ack(2));
        host.after(2000).expect(seg(".").seq(0).ack(2)).nothing();
        assert_eq!(host.status(), TcpStatus::Open { readable: true, writable: true });
        host.after(2000).expect(seg("R.").seq(1).ack(2)).nothing();
        assert_eq!(host.status(), TcpStatus::Failed(TcpError::TimedOut));
        host.release().is_empty();
    });
    // Switched off again, and gone with the connection.
    with_isns(|mut host| {
        host.established();
        host.tcp.set_keepalive(host.now, host.id(), Some(config));
        host.tcp.set_keepalive(host.now, host.id(), None);
        host.after(1_000_000).nothing();
        host.tcp.set_keepalive(host.now, host.id(), Some(config));
        host.abort().expect(seg("R.").seq(1).ack(1)).is_empty();
    });
}

/// X02: months of silence change nothing.
#[test]
fn idle_connection_works_after_four_hundred_days() {
    for days in [30u64, 60, 400] {
        let mut host = Host::new();
        host.established_with(seg("S").mss(1460).shift(7).ts(1000, 0));
        host.after(days * 24 * 3600 * 1000).nothing();
        host.rx(seg("P.")
            .seq(1)
            .ack(1)
            .ts(1000u32.wrapping_add((days as u32).wrapping_mul(86_400_000)), 0)
            .data(b"ping"));
        host.read(b"ping").write(b"pong").expect(seg("P.").seq(1).ack(5).data(b"pong")).nothing();
    }
}
