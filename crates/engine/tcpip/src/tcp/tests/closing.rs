//! Closing: half-close, simultaneous close, release, abort, TIME-WAIT.

use super::script::*;
use crate::config::Limits;
use crate::error::TcpError;
use crate::event::Event;
use crate::socket::TcpStatus;
use crate::tcp::Seq;
use crate::tcp::connection::State;
use crate::wire::tcp::Flags;
use core::net::{IpAddr, Ipv4Addr};

#[test]
fn active_close_ends_in_time_wait_of_sixty_seconds() {
    with_isns(|mut host| {
        host.in_state(State::TimeWait);
        let id = host.id();
        assert!(host.had_event(Event::TcpClosed(id)));
        assert_eq!(host.status(), TcpStatus::Closed);
        host.read_end().release();
        assert_eq!((host.counters().tcp_connections, host.counters().tcp_time_wait), (0, 1));
        host.after(59_999);
        assert_eq!(host.counters().tcp_time_wait, 1);
        host.after(1).is_empty();
    });
}

#[test]
fn passive_close_leaves_nothing() {
    with_isns(|mut host| {
        host.in_state(State::LastAck);
        // Z03: an ACK of what came before the FIN ends nothing.
        host.rx(seg(".").seq(2).ack(1)).nothing();
        assert_eq!(host.state(), State::LastAck);
        host.rx(seg(".").seq(2).ack(2)).nothing();
        assert_eq!(host.status(), TcpStatus::Closed);
        host.release().is_empty();
        // packetdrill `close`: the block is gone, so what comes now gets a RST.
        host.rx(seg(".").seq(2).ack(2)).expect(seg("R").seq(2));
    });
}

/// Z02.
#[test]
fn simultaneous_close_ends_on_both_ways() {
    with_isns(|mut host| {
        host.in_state(State::Closing).rx(seg(".").seq(2).ack(2)).nothing();
        assert_eq!(host.state(), State::TimeWait);
        host.release().after(60_000).is_empty();
    });
    // The peer's FIN acknowledges ours already.
    with_isns(|mut host| {
        host.in_state(State::FinWait1).rx(seg("F.").seq(1).ack(2)).expect(seg(".").seq(2).ack(2));
        assert_eq!(host.state(), State::TimeWait);
    });
}

/// Z01.
#[test]
fn half_closed_connection_goes_on_receiving() {
    for state in [State::FinWait1, State::FinWait2] {
        with_isns(|mut host| {
            host.in_state(state);
            let fin_acked = u32::from(state == State::FinWait2) + 1;
            host.rx(seg(".").seq(1).ack(fin_acked).stream(0, 1460)).nothing();
            host.rx(seg(".").seq(1461).ack(fin_acked).stream(1460, 1460))
                .expect(seg(".").seq(2).ack(2921));
            // A day of silence is not too long for a program that waits.
            if state == State::FinWait2 {
                host.after(24 * 3600 * 1000).nothing();
            }
            host.read(&stream(0, 2920));
            host.out.clear();
            host.rx(seg("F.").seq(2921).ack(2)).expect(seg(".").seq(2).ack(2922)).read_end();
        });
    }
}

/// K: `fin_wait2_timeout`, Z04.
#[test]
fn released_connection_waits_a_minute_for_the_peers_fin() {
    with_isns(|mut host| {
        host.established().release().expect(seg("F.").seq(1).ack(1)).nothing();
        host.rx(seg(".").seq(1).ack(2)).nothing();
        host.after(59_999);
        assert_eq!(host.counters().tcp_connections, 1);
        host.after(1).is_empty();
    });
}

/// Z09.
#[test]
fn fin_with_an_old_ack_is_taken_in_fin_wait_2() {
    with_isns(|mut host| {
        host.in_state(State::FinWait2).rx(seg("F.").seq(1).ack(1)).expect(seg(".").seq(2).ack(2));
        assert_eq!(host.state(), State::TimeWait);
    });
}

/// Z05.
#[test]
fn release_resets_only_if_data_was_not_read() {
    with_isns(|mut host| {
        host.established().rx(seg("P.").seq(1).ack(1).data(b"unread")).nothing();
        host.release().expect(seg("R.").seq(1).ack(7)).is_empty();
    });
    with_isns(|mut host| {
        host.established().rx(seg("P.").seq(1).ack(1).data(b"read")).read(b"read");
        host.release().expect(seg("F.").seq(1).ack(5)).nothing();
    });
    // Also after the peer's FIN, and also when FIN has gone out.
    with_isns(|mut host| {
        host.established()
            .rx(seg("FP.").seq(1).ack(1).data(b"unread"))
            .expect(seg(".").seq(1).ack(8));
        host.release().expect(seg("R.").seq(1).ack(8)).is_empty();
    });
    with_isns(|mut host| {
        host.in_state(State::FinWait2).rx(seg("P.").seq(1).ack(2).data(b"unread")).nothing();
        host.release().expect(seg("R.").seq(2).ack(7)).is_empty();
    });
}

/// RFC 1122 §4.2.2.13.
#[test]
fn data_after_release_is_reset() {
    with_isns(|mut host| {
        host.established().release().expect(seg("F.").seq(1).ack(1));
        host.rx(seg("P.").seq(1).ack(2).data(b"x")).expect(seg("R.").seq(2).ack(1)).is_empty();
        assert_eq!(host.counters().tcp_data_after_release, 1);
    });
}

#[test]
fn released_connection_still_delivers_what_was_written() {
    with_isns(|mut host| {
        host.established().write_stream(0, 2000).release();
        host.expect(seg(".").seq(1).ack(1).stream(0, 1460));
        host.expect(seg("FP.").seq(1461).ack(1).stream(1460, 540)).nothing();
        host.after(200).expect(seg(".").seq(1).ack(1).stream(0, 1460)).nothing();
        host.rx(seg("F.").seq(1).ack(2002)).expect(seg(".").seq(2002).ack(2)).nothing();
        host.after(60_000).is_empty();
    });
}

#[test]
fn abort_resets_in_every_state() {
    for state in SYNCHRONIZED {
        with_isns(|mut host| {
            host.in_state(state).abort();
            let reset = host.next_sent().header;
            assert_eq!(reset.flags.0, 0x14);
            host.is_empty();
            // A dead id is an error, and nothing else.
            host.read_error(TcpError::Released);
            assert_eq!(host.status(), TcpStatus::Released);
            host.abort().release().is_empty();
        });
    }
}

/// Z06: the end and an error look different, and what arrived can be read until it is.
#[test]
fn data_stays_readable_after_time_wait_is_over() {
    with_isns(|mut host| {
        host.in_state(State::FinWait2);
        host.rx(seg("FP.").seq(1).ack(2).stream(0, 1000)).expect(seg(".").seq(2).ack(1002));
        host.after(300_000).nothing();
        assert_eq!(host.status(), TcpStatus::Open { readable: true, writable: false });
        host.read(&stream(0, 1000)).read_end();
        assert_eq!(host.status(), TcpStatus::Closed);
        host.release().is_empty();
    });
    with_isns(|mut host| {
        host.established().rx(seg("P.").seq(1).ack(1).data(b"x")).rx(seg("R").seq(2));
        host.read_error(TcpError::Reset);
        assert_eq!(host.tcp.write(host.now, host.id(), b"x"), Err(TcpError::Reset));
        host.release().is_empty();
    });
}

#[test]
fn writing_after_shutdown_is_an_error() {
    with_isns(|mut host| {
        host.in_state(State::FinWait1);
        assert_eq!(host.tcp.write(host.now, host.id(), b"x"), Err(TcpError::WriteShutDown));
        host.shutdown().nothing();
    });
}

// ---- TIME-WAIT ----

/// Z07: FreeBSD's table.
#[test]
fn time_wait_answers_as_the_table_says() {
    with_isns(|mut host| {
        host.in_state(State::TimeWait).release();
        let answer = seg(".").seq(2).ack(2);
        // ACK: only exactly RCV.NXT is silent.
        host.rx(seg(".").seq(2).ack(2)).nothing();
        // Half a second between those that carry nothing.
        for seq in [1, 3, 65_000, 70_000] {
            host.pass(500).rx(seg(".").seq(seq).ack(2)).expect(answer.clone()).nothing();
        }
        for seq in [0, 1, 2, 3, 70_000] {
            host.rx(seg("F.").seq(seq).ack(2)).expect(answer.clone());
            host.rx(seg("P.").seq(seq).ack(2).data(b"old")).expect(answer.clone());
            host.pass(500).rx(seg("S.").seq(seq).ack(2)).expect(answer.clone());
            // RFC 1337: a RST does not end it. Without ACK nothing is answered.
            host.rx(seg("R").seq(seq))
                .rx(seg("R.").seq(seq).ack(2))
                .rx(seg("F").seq(seq))
                .nothing();
        }
        for seq in [0, 1, 2] {
            host.pass(500).rx(seg("S").seq(seq)).expect(answer.clone()).nothing();
        }
        assert_eq!(host.counters().tcp_time_wait, 1);
    });
}

/// RFC 5961 §7: what is answered may be an answer, of an end that disagrees.
#[test]
fn time_wait_answers_what_carries_nothing_twice_a_second() {
    with_isns(|mut host| {
        host.in_state(State::TimeWait).release();
        let answer = seg(".").seq(2).ack(2);
        host.rx(seg(".").seq(1).ack(2)).expect(answer.clone());
        for flags in [".", "S", "S.", "."] {
            host.pass(124).rx(seg(flags).seq(1).ack(2)).nothing();
        }
        assert_eq!(host.counters().tcp_challenges_limited, 4);
        // The peer's FIN, or data, is no answer.
        host.rx(seg("F.").seq(1).ack(2)).expect(answer.clone());
        host.pass(4).rx(seg("S").seq(1)).expect(answer.clone()).nothing();
    });
}

/// Z07: only the peer's FIN restarts the wait.
#[test]
fn repeated_fin_restarts_time_wait() {
    with_isns(|mut host| {
        host.in_state(State::TimeWait).release().after(50_000);
        host.rx(seg(".").seq(1).ack(2)).expect(seg(".").seq(2).ack(2)).after(9_999);
        assert_eq!(host.counters().tcp_time_wait, 1);
        host.rx(seg("F.").seq(1).ack(2)).expect(seg(".").seq(2).ack(2)).after(59_999);
        assert_eq!(host.counters().tcp_time_wait, 1);
        host.after(1).is_empty();
    });
}

/// Z07, RFC 6191: a SYN above all that was makes a new connection.
#[test]
fn new_syn_above_the_old_numbers_takes_the_place() {
    with_isns(|mut host| {
        host.in_state(State::TimeWait).release();
        let old = host.host_isn.unwrap_or_default();
        host.rx(seg("S").seq(3).mss(1000));
        let syn_ack = host.next_sent().header;
        assert_eq!(syn_ack.flags, crate::wire::tcp::Flags::SYN | crate::wire::tcp::Flags::ACK);
        assert!(syn_ack.sequence.after(old + 2), "our numbers are above the old ones too");
        assert_eq!(host.counters().tcp_time_wait, 0);
        host.rx(seg(".").seq(4).ack(1)).nothing().accept();
        // An old duplicate is not delivered to the new connection.
        host.rx(seg("P.").seq(1).ack(1).data(b"old")).expect(seg(".").seq(1).ack(4)).would_block();
    });
}

/// RFC 6191: with timestamps, a later clock is enough.
#[test]
fn new_syn_with_a_later_clock_takes_the_place() {
    for (clock, is_new) in [(999, false), (2000, true)] {
        let mut host = Host::new();
        host.established_with(seg("S").mss(1460).ts(1000, 0));
        host.shutdown();
        let fin = host.next_sent().header;
        let echo = fin.options.timestamps.expect("agreed on").value;
        host.rx(seg("F.").seq(1).ack(2).ts(1000, echo));
        assert_eq!(host.next_sent().header.options.timestamps.map(|ts| ts.echo), Some(1000));
        host.release();
        // The numbers are below the old ones.
        host.rx(seg("S").seq(u32::MAX - 5000).ts(clock, 0));
        assert_eq!(host.next_sent().header.flags.0, if is_new { 0x12 } else { 0x10 });
    }
}

/// Z08.
#[test]
fn time_wait_is_capped_and_the_oldest_goes() {
    let limits = Limits { tcp_time_wait: 10, ..Limits::default() };
    let mut host = Host::with_limits(limits);
    host.listen();
    for port in 1..=1000u16 {
        host.rx(seg("S").port(port));
        host.rx(seg(".").port(port).seq(1).ack(1)).accept().release();
        host.rx(seg("F.").port(port).seq(1).ack(2));
        host.out.clear();
    }
    assert_eq!(host.counters().tcp_time_wait, 10);
    assert_eq!(host.counters().tcp_time_wait_evicted, 990);
    host.pass(60_000);
    host.is_empty();
    // None at all is allowed, too.
    let limits = Limits { tcp_time_wait: 0, ..Limits::default() };
    let mut host = Host::with_limits(limits);
    host.in_state(State::TimeWait).release().is_empty();
}

/// Pitfall Z03: LAST-ACK ends with the ACK of FIN, not with one of data; and a window that was
/// closed with data left opens again.
#[test]
fn last_ack_ends_only_with_the_ack_of_fin() {
    with_isns(|mut host| {
        host.in_state(State::CloseWait).write(b"abc").expect(seg("P.").seq(1).ack(2).data(b"abc"));
        host.shutdown().expect(seg("F.").seq(4).ack(2));
        host.rx(seg(".").seq(2).ack(4)).nothing();
        assert_eq!(host.state(), State::LastAck);
        host.rx(seg(".").seq(2).ack(4)).rx(seg(".").seq(2).ack(2)).nothing();
        assert_eq!(host.state(), State::LastAck);
        host.rx(seg(".").seq(2).ack(5)).release().is_empty();
    });
    with_isns(|mut host| {
        host.in_state(State::CloseWait).rx(seg(".").seq(2).ack(1).win(0));
        host.write(b"abc").shutdown().nothing();
        host.rx(seg(".").seq(2).ack(1).win(100)).expect(seg("FP.").seq(1).ack(2).data(b"abc"));
        assert_eq!(host.state(), State::LastAck);
        host.rx(seg(".").seq(2).ack(5)).release().is_empty();
    });
}

/// Pitfall B04: a RST that comes again, in every state: the first ends the connection, once.
#[test]
fn a_reset_that_comes_three_times_frees_once() {
    for state in SYNCHRONIZED.into_iter().chain([State::SynReceived, State::TimeWait]) {
        with_isns(|mut host| {
            host.in_state(state);
            let peer_has_closed = matches!(
                state,
                State::CloseWait | State::Closing | State::LastAck | State::TimeWait
            );
            let next = 1 + u32::from(peer_has_closed);
            for _ in 0..3 {
                host.rx(seg("R").seq(next)).rx(seg("R.").seq(next).ack(1));
            }
            host.out.clear();
            host.release();
            if state == State::TimeWait {
                // A RST does not end it.
                host.after(60_000);
            }
            host.is_empty();
        });
    }
}

/// RFC 9293 §3.4.3, while the table of handshakes is full: a cookie's number is what it is, and where
/// it is not above the old ones the SYN is not taken.
#[test]
fn numbers_of_a_reused_tuple_are_above_the_old_with_a_cookie_too() {
    let (mut taken, mut kept) = (0, 0);
    for isn in 0..16u32 {
        let old = Seq(isn << 28);
        let limits = Limits { tcp_half_open: 2, ..Limits::default() };
        let mut host = Host::with(limits, MTU, 5, old.0);
        host.in_state(State::TimeWait).release();
        // The listener's half of the table is taken.
        host.rx_from(IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1)), seg("S")).pass(1000).out.clear();
        host.rx(seg("S").seq(50_000));
        let answer = host.next_sent().header;
        host.nothing();
        if answer.flags == Flags::SYN | Flags::ACK {
            assert!(answer.sequence.after(old + 2), "{isn}: {:?}", answer.sequence);
            assert_eq!(host.counters().tcp_time_wait_reused, 1);
            taken += 1;
        } else {
            assert_eq!((answer.flags, answer.sequence), (Flags::ACK, old + 2));
            let counters = host.counters();
            assert_eq!((counters.tcp_time_wait, counters.tcp_time_wait_kept), (1, 1));
            // When TIME-WAIT is over the client gets in.
            host.pass(60_000).out.clear();
            host.rx_from(IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1)), seg("S")).out.clear();
            host.rx(seg("S").seq(50_000));
            assert_eq!(host.next_sent().header.flags, Flags::SYN | Flags::ACK);
            kept += 1;
        }
    }
    assert!(taken > 4 && kept > 4, "{taken} {kept}");
}
