//! SYN-RECEIVED: of a client, as a half-open entry, and by a simultaneous open.

use super::script::*;
use crate::error::TcpError;
use crate::socket::TcpStatus;
use crate::tcp::connection::State;

/// S05, C02.
#[test]
fn syn_ack_is_repeated_and_the_client_given_up() {
    with_isns(|mut host| {
        host.listen().rx(seg("S").seq(0).mss(1000)).expect(seg("S.").seq(0).ack(1));
        for gap in [1, 2, 4, 8, 16] {
            host.after(gap * 1000).expect(seg("S.").seq(0).ack(1).mss(1460).win(65_535)).nothing();
        }
        host.after(32_000).is_empty();
        assert_eq!(host.counters().tcp_half_open_timeouts, 1);
    });
}

/// S08.
#[test]
fn only_an_exact_reset_ends_a_handshake() {
    for flags in ["R", "R."] {
        with_isns(|mut host| {
            host.listen().rx(seg("S").seq(0)).expect(seg("S.").seq(0).ack(1));
            // Outside on the left, and on the right: silent. Inside: a challenge.
            host.rx(seg(flags).seq(0).ack(1)).rx(seg(flags).seq(65_537).ack(1)).nothing();
            host.rx(seg(flags).seq(2).ack(1)).expect(seg(".").seq(1).ack(1));
            host.pass(500);
            host.rx(seg(flags).seq(65_536).ack(1)).expect(seg(".").seq(1).ack(1)).nothing();
            // The handshake goes on.
            host.rx(seg(".").seq(1).ack(1)).nothing().accept();
        });
        with_isns(|mut host| {
            host.listen().rx(seg("S").seq(0)).expect(seg("S.").seq(0).ack(1));
            host.rx(seg(flags).seq(1).ack(1)).is_empty();
            host.rx(seg("S").seq(0)).expect(seg("S.").seq(0).ack(1));
        });
    }
}

/// S08.
#[test]
fn another_syn_is_challenged() {
    with_isns(|mut host| {
        host.listen().rx(seg("S").seq(0)).expect(seg("S.").seq(0).ack(1));
        host.rx(seg("S").seq(5000)).expect(seg(".").seq(1).ack(1)).nothing();
        // A client that has really restarted answers the challenge by RST, and tries again.
        host.rx(seg("R").seq(1)).is_empty();
        host.peer_isn += 5000;
        host.rx(seg("S").seq(0)).expect(seg("S.").seq(0).ack(1)).nothing();
    });
}

/// RFC 5961 §7: somebody guesses, or the other end is in TIME-WAIT and answers each answer.
#[test]
fn doubtful_segments_for_a_handshake_are_answered_twice_a_second() {
    with_isns(|mut host| {
        host.listen().rx(seg("S").seq(0)).expect(seg("S.").seq(0).ack(1));
        host.rx(seg("R").seq(2)).expect(seg(".").seq(1).ack(1));
        for doubtful in [seg("R").seq(3), seg("S").seq(5000), seg(".").seq(70_000).ack(1)] {
            host.pass(166).rx(doubtful).nothing();
        }
        assert_eq!(host.counters().tcp_challenges_sent, 1);
        assert_eq!(host.counters().tcp_challenges_limited, 3);
        host.pass(2).rx(seg("S").seq(5000)).expect(seg(".").seq(1).ack(1)).nothing();
        host.rx(seg(".").seq(1).ack(1)).nothing().accept();
    });
}

/// RFC 7323 §2.3: to a client that has had the SYN-ACK, the handshake is over, and it scales what the
/// challenge says. Unscaled it would promise far more than there is.
#[test]
fn a_challenge_for_a_handshake_scales_its_window() {
    with_isns(|mut host| {
        host.listen().rx(seg("S").seq(0).shift(7).mss(1460));
        host.expect(seg("S.").seq(0).ack(1).win(65_535).shift(7));
        host.rx(seg("R").seq(2)).expect(seg(".").seq(1).ack(1).win(65_535 >> 7));
    });
    with_isns(|mut host| {
        host.listen().rx(seg("S").seq(0)).expect(seg("S.").seq(0).ack(1).win(65_535));
        host.rx(seg("R").seq(2)).expect(seg(".").seq(1).ack(1).win(65_535));
    });
}

#[test]
fn wrong_ack_gets_a_reset_and_the_handshake_goes_on() {
    with_isns(|mut host| {
        host.listen().rx(seg("S").seq(0)).expect(seg("S.").seq(0).ack(1));
        for ack in [0, 2, u32::MAX] {
            host.rx(seg(".").seq(1).ack(ack)).expect(seg("R").seq(ack)).nothing();
        }
        host.rx(seg(".").seq(1).ack(1)).nothing().accept();
    });
}

/// S04, C03: whatever comes with the ACK, or instead of it, counts.
#[test]
fn third_segment_may_carry_data_and_fin() {
    with_isns(|mut host| {
        host.listen().rx(seg("S").seq(0)).expect(seg("S.").seq(0).ack(1));
        host.rx(seg("FP.").seq(1).ack(1).data(b"all")).expect(seg(".").seq(1).ack(5)).nothing();
        host.accept().read(b"all").read_end();
    });
    // The ACK was lost, and so was the first data: what comes is ahead of a gap.
    with_isns(|mut host| {
        host.listen().rx(seg("S").seq(0)).expect(seg("S.").seq(0).ack(1));
        host.rx(seg("P.").seq(4).ack(1).data(b"def")).expect(seg(".").seq(1).ack(1)).nothing();
        host.accept().would_block();
        host.rx(seg("P.").seq(1).ack(1).data(b"abc")).expect(seg(".").seq(1).ack(7)).nothing();
        host.read(b"abcdef");
    });
}

/// S09.
#[test]
fn data_beyond_the_window_of_the_syn_ack_is_refused() {
    with_isns(|mut host| {
        host.listen().rx(seg("S").seq(0).shift(7).mss(1460));
        host.expect(seg("S.").seq(0).ack(1).win(65_535).shift(7));
        host.rx(seg(".").seq(65_536).ack(1).data(&[1; 100]))
            .expect(seg(".").seq(1).ack(1))
            .nothing();
        assert_eq!(host.counters().tcp_half_open, 1, "that was no good ACK");
        host.rx(seg(".").seq(1).ack(1)).nothing().accept();
    });
}

/// K: `ack_to_retransmitted_segment`.
#[test]
fn syn_without_ack_flag_or_data_without_ack_completes_nothing() {
    with_isns(|mut host| {
        host.listen().rx(seg("S").seq(0)).expect(seg("S.").seq(0).ack(1));
        host.rx(seg("").seq(1)).rx(seg("P").seq(1).data(b"x")).rx(seg("F").seq(1)).nothing();
        assert_eq!(host.counters().tcp_half_open, 1);
    });
}

/// S07.
#[test]
fn release_in_simultaneous_open_resets() {
    with_isns(|mut host| {
        host.in_state(State::SynReceived).release().expect(seg("R.").seq(1).ack(1)).is_empty();
    });
}

/// S07.
#[test]
fn shutdown_in_simultaneous_open_waits_for_the_ack_of_the_syn() {
    with_isns(|mut host| {
        host.in_state(State::SynReceived).shutdown().nothing();
        // The SYN-ACK was lost: it comes again as it was.
        host.after(1000).expect(seg("S.").seq(0).ack(1)).nothing();
        host.rx(seg(".").seq(1).ack(1)).expect(seg("F.").seq(1).ack(1)).nothing();
        assert_eq!(host.state(), State::FinWait1);
        host.rx(seg(".").seq(1).ack(2)).nothing();
        assert_eq!(host.state(), State::FinWait2);
    });
}

/// S08.
#[test]
fn reset_in_simultaneous_open_refuses_only_if_exact() {
    with_isns(|mut host| {
        host.in_state(State::SynReceived);
        host.rx(seg("R").seq(0)).rx(seg("R").seq(65_537)).nothing();
        host.rx(seg("R").seq(2)).expect(seg("S.").seq(0).ack(1)).nothing();
        host.rx(seg("R").seq(1)).nothing();
        assert_eq!(host.status(), TcpStatus::Failed(TcpError::Refused));
        host.release().is_empty();
    });
}

/// The client's answer is measured: the first RTO fits the path.
#[test]
fn round_trip_of_the_handshake_sets_the_timer() {
    with_isns(|mut host| {
        host.listen().rx(seg("S").seq(0).mss(1460)).expect(seg("S.").seq(0).ack(1)).after(100);
        host.rx(seg(".").seq(1).ack(1)).nothing().accept();
        host.write(b"x").expect(seg("P.").seq(1).ack(1).data(b"x"));
        // SRTT 100 ms, RTTVAR 50 ms.
        host.after(300).expect(seg("P.").seq(1).ack(1).data(b"x")).nothing();
    });
}

/// S05: the SYN-ACK was lost, so the first flight is one segment, and its timer 3 s.
#[test]
fn lost_syn_ack_starts_slowly() {
    with_isns(|mut host| {
        host.listen().rx(seg("S").mss(1000)).expect(seg("S.").seq(0).ack(1));
        host.after(1000).expect(seg("S.").seq(0).ack(1)).rx(seg(".").seq(1).ack(1)).accept();
        host.write_stream(0, 3000).expect(seg(".").seq(1).ack(1).stream(0, 1000)).nothing();
        host.after(3000).expect(seg(".").seq(1).ack(1).stream(0, 1000)).nothing();
    });
}

/// Pitfall T06: a SYN-ACK that is sent again offers what the first one did, and the window that it
/// promised counts.
#[test]
fn a_syn_ack_that_is_sent_again_is_the_same() {
    with_isns(|mut host| {
        host.listen().rx(seg("S").mss(1400).shift(7).ts(500, 0).sack_ok());
        let first = host.next_sent().header;
        host.after(1000);
        let again = host.next_sent().header;
        let mut expected = first;
        let clock = |header: &crate::wire::tcp::Header| header.options.timestamps.unwrap();
        expected.options.timestamps = again.options.timestamps;
        assert_eq!(again, expected, "but for the clock");
        assert_eq!(clock(&again).value.wrapping_sub(clock(&first).value), 1000);
        assert_eq!(clock(&again).echo, 500);
        host.rx(seg(".").seq(1).ack(1).ts(501, clock(&again).value)).accept();
        // Beyond 64 KiB: both ends shift.
        let mut at = 0;
        while at < 100_000 {
            host.rx(seg(".").seq(1 + at).ack(1).ts(502, 0).stream(at as usize, 1000));
            at += 1000;
        }
        assert_eq!(host.read_some(200_000), stream(0, 100_000));
    });
}
