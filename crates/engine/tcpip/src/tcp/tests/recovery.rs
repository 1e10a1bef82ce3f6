//! Loss recovery and the congestion window.

use super::script::*;
use crate::config::CongestionControl;
use crate::error::TcpError;
use crate::socket::TcpStatus;

/// A connection with segments of 1000 bytes, of which `count` are in flight.
fn in_flight(host: &mut Host, count: usize) -> &mut Host {
    host.established_with(seg("S").mss(1000)).write_stream(0, count * 1000);
    for at in 0..count.min(10) {
        host.expect(segment(at));
    }
    host.nothing()
}

/// Segment number `at` of the stream.
fn segment(at: usize) -> Seg {
    let last = seg(".").seq(1 + at as u32 * 1000).ack(1);
    last.stream(at * 1000, 1000)
}

fn ack(at: usize) -> Seg {
    seg(".").seq(1).ack(1 + at as u32 * 1000)
}

/// Q12.
#[test]
fn first_flight_is_ten_segments() {
    with_isns(|mut host| {
        host.established_with(seg("S").mss(1000)).write_stream(0, 50_000);
        for at in 0..10 {
            host.expect(segment(at));
        }
        host.nothing();
    });
}

#[test]
fn slow_start_sends_two_segments_for_each_that_is_acknowledged() {
    with_isns(|mut host| {
        host.established_with(seg("S").mss(1000)).write_stream(0, 100_000);
        host.out.clear();
        host.rx(ack(1)).expect(segment(10)).expect(segment(11)).nothing();
        host.rx(ack(3)).expect(segment(12)).expect(segment(13)).expect(segment(14));
        host.expect(segment(15)).nothing();
        // An update of the window is no ACK of anything.
        host.rx(ack(3).win(60_000)).nothing();
        assert_eq!(host.congestion_window(), 13_000);
    });
}

/// Q07: limited transmit, then fast retransmit, then the end of recovery.
#[test]
fn third_duplicate_sends_the_lost_segment_again() {
    with_isns(|mut host| {
        host.tcp.shared.settings.congestion = CongestionControl::NewReno;
        in_flight(&mut host, 10).write_stream(10_000, 20_000).nothing();
        host.rx(ack(0)).expect(segment(10)).nothing();
        host.rx(ack(0)).expect(segment(11)).nothing();
        host.rx(ack(0)).expect(segment(0)).nothing();
        assert_eq!(host.congestion_window(), 9000, "half of twelve, and three that have left");
        for _ in 0..3 {
            host.rx(ack(0)).nothing();
        }
        host.rx(ack(0)).expect(segment(12)).nothing();
        host.rx(ack(12)).expect(segment(13)).nothing();
        assert_eq!(host.congestion_window(), 2000, "no burst: what is in flight and one more");
        assert_eq!(host.counters().tcp_fast_retransmits, 1);
        assert_eq!(host.counters().tcp_retransmit_timeouts, 0);
    });
}

/// Q07: two holes in one window, no timeout.
#[test]
fn partial_ack_sends_the_next_hole_at_once() {
    with_isns(|mut host| {
        in_flight(&mut host, 10);
        host.rx(ack(0)).rx(ack(0)).nothing().rx(ack(0)).expect(segment(0)).nothing();
        for _ in 0..5 {
            host.rx(ack(0)).nothing();
        }
        host.rx(ack(4)).expect(segment(4)).nothing();
        host.rx(ack(10)).nothing();
        assert_eq!(host.counters().tcp_partial_acks, 1);
        assert_eq!(host.counters().tcp_retransmit_timeouts, 0);
        assert!(host.tcp.is_flushed(host.id()));
    });
}

/// Q06.
#[test]
fn only_bare_repetitions_count_as_duplicates() {
    with_isns(|mut host| {
        in_flight(&mut host, 5);
        // Another window each time; data; neither counts.
        for window in 0..9 {
            host.rx(ack(0).win(50_000 + window)).nothing();
        }
        for at in 0..9u32 {
            host.rx(seg(".").seq(1 + at).ack(1).data(b"x").win(50_008));
        }
        host.rx(seg("F.").seq(10).ack(1).win(50_008));
        assert_eq!(host.counters().tcp_fast_retransmits, 0);
        assert_eq!(host.counters().tcp_retransmits, 0);
    });
    // Hundreds of them overflow nothing.
    with_isns(|mut host| {
        in_flight(&mut host, 5);
        for _ in 0..1000 {
            host.rx(ack(0));
        }
        assert_eq!(host.counters().tcp_fast_retransmits, 1);
        assert_eq!(host.counters().tcp_retransmits, 1);
    });
}

/// RFC 6582 §3.2 step 1: duplicates of what was in flight at a timeout start no second recovery.
#[test]
fn duplicates_after_a_timeout_do_not_halve_again() {
    with_isns(|mut host| {
        in_flight(&mut host, 10).after(200).expect(segment(0)).nothing();
        host.rx(ack(0)).rx(ack(0)).rx(ack(0)).rx(ack(0));
        assert_eq!(host.counters().tcp_fast_retransmits, 0);
    });
}

/// Q01, Q02.
#[test]
fn timeout_backs_off_to_a_minute_and_gives_up_after_five() {
    with_isns(|mut host| {
        host.established().write(b"x").expect(seg("P.").seq(1).ack(1).data(b"x"));
        let mut elapsed = 0;
        for gap in [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000, 60_000]
        {
            // An ACK of nothing new does not put the timer off.
            host.after(gap / 2).rx(seg(".").seq(1).ack(1)).nothing();
            host.after(gap / 2).expect(seg("P.").seq(1).ack(1).data(b"x")).nothing();
            elapsed += gap;
        }
        host.after(300_000 - elapsed).expect(seg("R.").seq(2).ack(1)).nothing();
        assert_eq!(host.status(), TcpStatus::Failed(TcpError::TimedOut));
        host.release().is_empty();
    });
}

/// Q14.
#[test]
fn timeout_restarts_from_one_segment_and_halves_once() {
    with_isns(|mut host| {
        in_flight(&mut host, 10).after(200).expect(segment(0)).nothing();
        assert_eq!(host.congestion_window(), 1000);
        host.after(400).expect(segment(0)).after(800).expect(segment(0)).nothing();
        // Everything that was in flight is sent again, two for each ACK.
        host.rx(ack(1)).expect(segment(1)).expect(segment(2)).nothing();
        host.rx(ack(3)).expect(segment(3)).expect(segment(4)).expect(segment(5)).expect(segment(6));
        host.nothing();
        // Halved once from ten: slow start ends at five.
        host.rx(ack(5)).expect(segment(7)).expect(segment(8)).expect(segment(9)).nothing();
        assert_eq!(host.congestion_window(), 6000);
        host.rx(ack(10)).nothing();
    });
}

/// What arrived all the same is not sent again.
#[test]
fn ack_of_more_than_was_resent_jumps_ahead() {
    with_isns(|mut host| {
        in_flight(&mut host, 10).after(200).expect(segment(0)).nothing();
        host.rx(ack(8)).expect(segment(8)).expect(segment(9)).nothing();
    });
}

/// W05: an ACK that goes out while lost data is sent again has the highest number sent.
#[test]
fn pure_ack_after_a_timeout_has_the_highest_number() {
    with_isns(|mut host| {
        in_flight(&mut host, 10).after(200).expect(segment(0));
        host.rx(seg(".").seq(5).ack(1).data(b"x")).expect(seg(".").seq(10_001).ack(1)).nothing();
    });
}

/// Q02, Q03: without timestamps, what was sent twice is not measured, and the timer stays backed
/// off until something that was sent once is acknowledged.
#[test]
fn karns_algorithm_keeps_the_backoff() {
    with_isns(|mut host| {
        in_flight(&mut host, 1).after(200).expect(segment(0)).after(400).expect(segment(0));
        host.rx(ack(1)).nothing();
        host.write_stream(1000, 1000).expect(segment(1)).nothing();
        host.after(800).expect(segment(1)).nothing();
        host.rx(ack(2)).nothing().write_stream(2000, 1000).expect(segment(2));
        // Now one goes through: the measurement ends the backoff.
        host.after(10).rx(ack(3)).write_stream(3000, 1000).expect(segment(3));
        host.after(201).nothing();
        host.pass(20);
        host.expect(segment(3)).nothing();
    });
}

/// Q13.
#[test]
fn pause_shrinks_the_window_to_the_initial_one() {
    with_isns(|mut host| {
        host.established_with(seg("S").mss(1000)).write_stream(0, 30_000);
        host.out.clear();
        host.rx(ack(5)).rx(ack(10)).rx(ack(20)).rx(ack(30));
        host.out.clear();
        assert!(host.congestion_window() > 20_000);
        host.after(60_000).write_stream(30_000, 60_000);
        assert_eq!(host.out.len(), 10);
    });
}

/// Q13: a program that sends little earns nothing.
#[test]
fn trickle_does_not_grow_the_window() {
    let mut host = Host::new();
    host.established_with(seg("S").mss(1000)).nodelay();
    for at in 0..1000u32 {
        host.write(b"x").expect(seg("P.").seq(1 + at).ack(1).data(b"x"));
        host.rx(seg(".").seq(1).ack(2 + at)).after(50);
    }
    assert_eq!(host.congestion_window(), 10_000);
}

/// Q05.
#[test]
fn lost_fin_is_sent_again_in_every_closing_state() {
    use crate::tcp::connection::State;
    for state in [State::FinWait1, State::Closing, State::LastAck] {
        with_isns(|mut host| {
            host.in_state(state);
            let acked = if state == State::FinWait1 { 1 } else { 2 };
            for gap in [200, 400, 800] {
                host.after(gap).expect(seg("F.").seq(1).ack(acked)).nothing();
            }
            host.rx(seg(".").seq(acked).ack(2)).nothing();
            let over = host.state();
            assert!(matches!(over, State::FinWait2 | State::TimeWait | State::Closed), "{over:?}");
        });
    }
}
