//! Receiving: the window, reassembly, acknowledgments.

use super::script::*;
use crate::config::Limits;
use crate::event::Event;
use crate::tcp::connection::State;

fn small(receive_bytes: usize) -> Host {
    Host::with_limits(Limits { tcp_receive_bytes: receive_bytes, ..Limits::default() })
}

/// R15.
#[test]
fn second_full_segment_is_acknowledged_at_once_and_an_odd_one_after_a_delay() {
    with_isns(|mut host| {
        host.established();
        host.rx(seg(".").seq(1).ack(1).stream(0, 1460)).nothing();
        host.rx(seg(".").seq(1461).ack(1).stream(1460, 1460)).expect(seg(".").seq(1).ack(2921));
        host.rx(seg(".").seq(2921).ack(1).stream(2920, 1460)).nothing();
        host.after(40).expect(seg(".").seq(1).ack(4381)).nothing();
        host.after(10_000).nothing();
    });
}

/// R15: at once for a gap, for its filling, and for FIN.
#[test]
fn gap_fill_and_fin_are_acknowledged_at_once() {
    with_isns(|mut host| {
        host.established();
        host.rx(seg(".").seq(4).ack(1).data(b"def")).expect(seg(".").seq(1).ack(1)).nothing();
        host.rx(seg(".").seq(7).ack(1).data(b"ghi")).expect(seg(".").seq(1).ack(1)).nothing();
        host.rx(seg(".").seq(1).ack(1).data(b"abc")).expect(seg(".").seq(1).ack(10)).nothing();
        host.rx(seg("F.").seq(10).ack(1)).expect(seg(".").seq(1).ack(11)).nothing();
        host.read(b"abcdefghi").read_end();
    });
}

#[test]
fn acknowledgment_rides_on_data() {
    with_isns(|mut host| {
        host.established();
        host.rx(seg("P.").seq(1).ack(1).data(b"ping")).nothing();
        host.write(b"pong").expect(seg("P.").seq(1).ack(5).data(b"pong")).nothing();
        host.rx(seg(".").seq(5).ack(5)).after(1000).nothing();
    });
}

/// R01.
#[test]
fn segments_around_both_edges_are_trimmed_or_refused() {
    // Window 65,535 from 1 on; bytes 1..=10 have arrived.
    let trace = |seq: u32, len: usize, answer: Option<u32>, taken: &[u8]| {
        with_isns(|mut host| {
            host.established();
            host.rx(seg(".").seq(1).ack(1).stream(0, 10));
            host.read(&stream(0, 10));
            host.pass(100).out.clear();
            host.rx(seg(".")
                .seq(seq)
                .ack(1)
                .stream(seq.wrapping_sub(1) as usize & 0xfff_ffff, len));
            match answer {
                Some(ack) => host.expect(seg(".").seq(1).ack(ack)).nothing(),
                None => host.nothing(),
            };
            if taken.is_empty() {
                host.would_block();
            } else {
                host.read(taken);
            }
        });
    };
    trace(1, 10, Some(11), b""); // All of it old.
    trace(1, 11, Some(12), &stream(10, 1)); // One byte new.
    trace(11, 5, None, &stream(10, 5)); // All of it new: a delayed ACK.
    trace(10, 1, Some(11), b"");
    trace(65_546, 1, Some(11), b""); // The first byte beyond the right edge.
    trace(70_000, 100, Some(11), b"");
}

/// R01: one that hangs over both edges.
#[test]
fn segment_larger_than_the_window_is_cut_on_both_sides() {
    let mut host = small(2048);
    host.established();
    host.rx(seg(".").seq(1).ack(1).stream(0, 1000)).rx(seg(".").seq(501).ack(1).stream(500, 3000));
    host.out.clear();
    assert_eq!(host.read_some(5000), stream(0, 2048));
}

/// R02, R03.
#[test]
fn duplicate_data_and_fin_are_each_acknowledged() {
    with_isns(|mut host| {
        host.established().rx(seg("F.").seq(1).ack(1).data(b"abc")).expect(seg(".").seq(1).ack(5));
        for _ in 0..20 {
            host.after(100).rx(seg("F.").seq(1).ack(1).data(b"abc")).expect(seg(".").seq(1).ack(5));
            host.nothing();
        }
    });
}

/// R03, R04.
#[test]
fn empty_segments_outside_the_window_are_answered_twice_a_second() {
    with_isns(|mut host| {
        host.established();
        // A keepalive or window probe each 0.6 s: each is answered.
        for _ in 0..5 {
            host.after(600).rx(seg(".").seq(0).ack(1)).expect(seg(".").seq(1).ack(1)).nothing();
        }
        // A storm is not.
        host.after(500);
        let mut answers = 0;
        for _ in 0..1000 {
            host.rx(seg(".").seq(0).ack(1));
            answers += host.out.len();
            host.out.clear();
            host.pass(1);
        }
        assert_eq!(answers, 2);
    });
}

/// R05.
#[test]
fn closed_window_still_takes_ack_reset_and_fin() {
    let fill = |host: &mut Host| {
        host.established().write(b"ours").expect(seg("P.").seq(1).ack(1).data(b"ours"));
        host.rx(seg(".").seq(1).ack(1).stream(0, 1460));
        host.rx(seg(".").seq(1461).ack(1).stream(1460, 588));
        host.pass(40);
        let last = host.out.pop_back().expect("an ACK").header;
        assert_eq!(last.window, 0);
        host.out.clear();
    };
    let mut host = small(2048);
    fill(&mut host);
    // Data at the edge does not fit, but its ACK counts.
    host.rx(seg(".").seq(2049).ack(5).data(b"more")).expect(seg(".").seq(5).ack(2049).win(0));
    host.nothing().after(10_000).nothing();
    assert_eq!(host.read_some(5000), stream(0, 2048));
    let mut host = small(2048);
    fill(&mut host);
    host.rx(seg("F.").seq(2049).ack(5)).expect(seg(".").seq(5).ack(2050)).nothing();
    assert_eq!(host.state(), State::CloseWait);
    let mut host = small(2048);
    fill(&mut host);
    host.rx(seg("R").seq(2049)).nothing().release().is_empty();
}

/// R06.
#[test]
fn fin_beyond_the_window_does_not_end_a_truncated_stream() {
    let mut host = small(2048);
    host.established();
    host.rx(seg("F.").seq(1).ack(1).stream(0, 2148)).expect(seg(".").seq(1).ack(2049).win(0));
    assert_eq!(host.read_some(5000), stream(0, 2048));
    host.expect(seg(".").seq(1).ack(2049)).would_block();
    host.rx(seg("F.").seq(2049).ack(1).stream(2048, 100)).expect(seg(".").seq(1).ack(2150));
    host.read(&stream(2048, 100)).read_end();
}

/// R07.
#[test]
fn fin_out_of_order_is_remembered_and_nothing_follows_it() {
    with_isns(|mut host| {
        host.established();
        host.rx(seg("F.").seq(4).ack(1).data(b"de")).expect(seg(".").seq(1).ack(1));
        host.rx(seg(".").seq(7).ack(1).data(b"junk")).expect(seg(".").seq(1).ack(1));
        host.rx(seg(".").seq(1).ack(1).data(b"abc")).expect(seg(".").seq(1).ack(7)).nothing();
        host.rx(seg(".").seq(7).ack(1).data(b"junk")).read(b"abcde").read_end();
    });
    // FIN alone, ahead of all data; then a second FIN elsewhere, which does not count.
    with_isns(|mut host| {
        host.established().rx(seg("F.").seq(6).ack(1)).expect(seg(".").seq(1).ack(1));
        host.rx(seg("F.").seq(3).ack(1)).expect(seg(".").seq(1).ack(1));
        host.rx(seg(".").seq(1).ack(1).data(b"abcde")).expect(seg(".").seq(1).ack(7));
        host.read(b"abcde").read_end();
    });
}

/// FreeBSD's `reordering-*`: five growing segments and FIN in every order.
#[test]
fn every_order_of_five_segments_gives_the_same_stream() {
    let pieces = [(1u32, 1usize), (2, 2), (4, 4), (8, 8), (16, 16)];
    let mut order = [0usize, 1, 2, 3, 4];
    fn permute(order: &mut [usize; 5], at: usize, act: &mut impl FnMut(&[usize; 5])) {
        if at == order.len() {
            return act(order);
        }
        for other in at..order.len() {
            order.swap(at, other);
            permute(order, at + 1, act);
            order.swap(at, other);
        }
    }
    permute(&mut order, 0, &mut |order| {
        let mut host = Host::with(Limits::default(), MTU, u32::MAX - 10, 0);
        host.established();
        for &index in order {
            let (seq, len) = pieces[index];
            let flags = if index == 4 { "F." } else { "." };
            host.rx(seg(flags).seq(seq).ack(1).stream(seq as usize - 1, len));
        }
        host.pass(40);
        let last = host.out.pop_back().expect("an ACK").header;
        assert_eq!(last.acknowledgment, host.peer_isn + 33, "order {order:?}");
        host.out.clear();
        host.read(&stream(0, 31)).read_end();
    });
}

/// R12, R13, R14.
#[test]
fn window_tells_the_truth_and_opens_in_steps_that_are_worth_it() {
    let mut host = small(8192);
    host.established();
    for piece in 0..8u32 {
        host.rx(seg(".").seq(1 + piece * 1024).ack(1).stream(piece as usize * 1024, 1024));
    }
    let windows: Vec<u16> = host.out.drain(..).map(|sent| sent.header.window).collect();
    assert_eq!(windows, [6144, 4096, 2048, 0]);
    // Byte by byte nothing is offered before a full segment fits; then at once.
    for _ in 0..1459 {
        host.read_some(1);
        host.nothing();
    }
    host.read_some(1);
    host.expect(seg(".").seq(1).ack(8193).win(1460)).nothing();
    // A probe at the edge is answered with the window as it is.
    host.rx(seg(".").seq(8192).ack(1)).expect(seg(".").seq(1).ack(8193).win(1460)).nothing();
    // All of it: more than twice what the peer knows of.
    host.read_some(100_000);
    host.expect(seg(".").seq(1).ack(8193).win(8192)).nothing();
}

/// R11.
#[test]
fn right_edge_never_moves_back() {
    for shift in [0, 7, 14] {
        let mut host = Host::with(Limits::default(), MTU, u32::MAX - 5000, 7);
        host.established_with(seg("S").mss(1460).shift(shift).ts(1, 0));
        let (mut edge, mut next) = (65_536u32, 1u32);
        for step in 0..3000u32 {
            let len = [1, 2, 129, 1448][step as usize % 4];
            host.rx(seg(".").seq(next).ack(1).ts(1 + step, 0).stream(next as usize - 1, len));
            next += len as u32;
            if step % 3 == 0 {
                host.read_some(1 + step as usize % 500);
            }
            for sent in host.out.drain(..) {
                let acked = sent.header.acknowledgment.since(host.peer_isn);
                let right = acked + (u32::from(sent.header.window) << 3);
                assert!(right >= edge, "the edge fell from {edge} to {right}");
                edge = right;
            }
            if edge.saturating_sub(next) < 2000 {
                break;
            }
        }
        // What lies at the very edge that was promised is taken.
        host.rx(seg(".").seq(edge - 1).ack(1).ts(9999, 0).data(b"!"));
        assert_eq!(host.counters().tcp_out_of_order_ranges, 1);
    }
}

/// R08, R09.
#[test]
fn islands_are_bounded_and_the_head_always_gets_in() {
    let limits = Limits { tcp_out_of_order_ranges: 16, ..Limits::default() };
    let mut host = Host::with_limits(limits);
    host.established();
    for island in 1..=100u32 {
        host.rx(seg(".").seq(1 + island * 2).ack(1).stream(island as usize * 2, 1));
        assert!(host.counters().tcp_out_of_order_ranges <= 16);
    }
    assert_eq!(host.counters().dropped_tcp_no_room, 84);
    host.out.clear();
    host.rx(seg(".").seq(1).ack(1).stream(0, 2)).expect(seg(".").seq(1).ack(4)).nothing();
    host.read(&stream(0, 3));
}

/// R17.
#[test]
fn ack_of_what_was_never_sent_or_is_long_gone_is_answered_and_ignored() {
    with_isns(|mut host| {
        host.established().write(b"abc").expect(seg("P.").seq(1).ack(1).data(b"abc"));
        host.rx(seg(".").seq(1).ack(5)).expect(seg(".").seq(4).ack(1)).nothing();
        host.rx(seg(".").seq(1).ack(1u32.wrapping_sub(65_537)))
            .expect(seg(".").seq(4).ack(1))
            .nothing();
        // Old, but not too old: nothing.
        host.rx(seg(".").seq(1).ack(0)).nothing();
        host.after(200).expect(seg("P.").seq(1).ack(1).data(b"abc"));
    });
}

/// T11.
#[test]
fn segment_without_ack_is_dropped() {
    for state in SYNCHRONIZED {
        with_isns(|mut host| {
            host.in_state(state);
            let next = if matches!(state, State::CloseWait | State::Closing | State::LastAck) {
                2
            } else {
                1
            };
            host.rx(seg("").seq(next).data(b"x")).rx(seg("P").seq(next).data(b"x"));
            host.rx(seg("F").seq(next)).nothing();
            assert_eq!(host.state(), state);
        });
    }
}

/// T13.
#[test]
fn urgent_data_stays_in_line() {
    with_isns(|mut host| {
        host.established();
        host.rx(seg("UP.").seq(1).ack(1).data(b"abc")).read(b"abc");
    });
}

/// L07 is the IP layer's; here, a payload of one byte is one byte.
#[test]
fn every_arrival_of_data_is_an_event() {
    let mut host = Host::new();
    host.established();
    let id = host.id();
    for at in 0..10u32 {
        host.rx(seg("P.").seq(1 + at).ack(1).stream(at as usize, 1));
        assert!(host.had_event(Event::TcpReadable(id)));
    }
    assert!(!host.had_event(Event::TcpReadable(id)));
    host.rx(seg("F.").seq(11).ack(1));
    assert!(host.had_event(Event::TcpReadable(id)));
}
