//! Loss recovery with a peer that tells what has arrived: RFC 6675, RACK-TLP (RFC 8985), PRR (RFC
//! 9937) and what takes it back.

use super::script::*;
use crate::config::{CongestionControl, Limits};
use crate::tcp::connection::State;

/// A connection with SACK and segments of 1000 bytes, whose round trip has taken `rtt_ms`, and of
/// which `count` segments are in flight, no more are written, at most ten.
fn in_flight(host: &mut Host, count: usize, rtt_ms: u64) -> &mut Host {
    host.connect().next_sent();
    host.after(rtt_ms).rx(seg("S.").seq(0).ack(1).mss(1000).sack_ok());
    host.expect(seg(".").seq(1).ack(1)).nothing();
    host.write_stream(0, count * 1000);
    for at in 0..count {
        host.expect(segment(at));
    }
    host.nothing()
}

/// NewReno's window, so that a trace shows halves.
fn halving(host: Host) -> Host {
    let mut host = host;
    host.tcp.shared.settings.congestion = CongestionControl::NewReno;
    host
}

/// Segment number `at` of the stream.
fn segment(at: usize) -> Seg {
    seg(".").seq(1 + at as u32 * 1000).ack(1).stream(at * 1000, 1000)
}

/// An ACK of the segments before `to`, with blocks of segments.
fn ack(to: u32, blocks: &[(u32, u32)]) -> Seg {
    let bytes = |at: u32| 1 + at * 1000;
    let blocks: Vec<_> = blocks.iter().map(|&(from, to)| (bytes(from), bytes(to))).collect();
    seg(".").seq(1).ack(bytes(to)).sack(&blocks)
}

/// packetdrill `fast_retransmit`: three segments ahead of a gap are a loss; what arrived is not
/// sent again.
#[test]
fn three_segments_ahead_of_a_gap_are_a_loss() {
    with_isns(|host| {
        let mut host = halving(host);
        in_flight(&mut host, 10, 100).write_stream(10_000, 10_000).nothing();
        host.after(100);
        // Limited transmit (RFC 3042): a segment for each that has left.
        host.rx(ack(0, &[(1, 2)])).expect(segment(10)).nothing();
        host.rx(ack(0, &[(1, 3)])).expect(segment(11)).nothing();
        host.rx(ack(0, &[(1, 4)])).expect(segment(0)).nothing();
        assert_eq!(host.counters().tcp_fast_retransmits, 1);
        // The rest of the flight arrives: one leaves for two.
        let mut sent = 0;
        for to in 5..=10 {
            host.rx(ack(0, &[(1, to)]));
            sent += host.out.drain(..).count();
        }
        assert!((2..=4).contains(&sent), "{sent}");
        host.after(100).rx(ack(12, &[]));
        assert_eq!(host.congestion_window(), 6000, "half of twelve");
        let counters = host.counters();
        assert_eq!((counters.tcp_retransmits, counters.tcp_retransmit_timeouts), (1, 0));
    });
}

/// packetdrill `fast_retransmit`: the SACK of the last segment only: RACK waits a quarter of the
/// round trip.
#[test]
fn one_segment_ahead_of_a_gap_is_a_loss_after_a_quarter_of_the_round_trip() {
    with_isns(|mut host| {
        in_flight(&mut host, 4, 100).after(100).rx(ack(0, &[(3, 4)])).nothing();
        host.after(25).expect(segment(0)).nothing();
        host.after(100).rx(ack(1, &[(3, 4)])).expect(segment(1)).expect(segment(2)).nothing();
        host.after(100).rx(ack(4, &[])).after(10_000).nothing();
        assert_eq!(host.counters().tcp_retransmit_timeouts, 0);
    });
}

/// Pitfall Q10: what is late by less changes nothing.
#[test]
fn reordering_within_a_quarter_of_the_round_trip_is_no_loss() {
    with_isns(|mut host| {
        in_flight(&mut host, 10, 100).after(100);
        host.rx(ack(0, &[(1, 3)])).nothing().after(24).rx(ack(10, &[])).nothing();
        assert_eq!(host.counters().tcp_retransmits, 0);
        // From now on the path is known to reorder: three ahead of a gap are no loss, time is.
        host.write_stream(10_000, 10_000).out.clear();
        host.after(100).rx(ack(10, &[(11, 20)])).nothing().after(24).nothing();
        host.after(1).expect(segment(10)).nothing();
    });
}

/// The ACK of a receiver that has got these segments, the newest block first.
fn ack_of(got: &[bool], newest: usize) -> Seg {
    let next = got.iter().position(|&got| !got).unwrap_or(got.len());
    let mut blocks = Vec::new();
    let mut at = next;
    while let Some(start) = (at..got.len()).find(|&segment| got[segment]) {
        at = (start..got.len()).find(|&segment| !got[segment]).unwrap_or(got.len());
        blocks.push((start as u32, at as u32));
    }
    blocks.sort_by_key(|&(from, to)| !(from as usize..to as usize).contains(&newest));
    blocks.truncate(4);
    ack(next as u32, &blocks)
}

/// packetdrill `sack`: the order of blocks does not matter, neighbours merge, and exactly what is
/// missing is sent again.
#[test]
fn exactly_the_holes_are_sent_again() {
    // Arrivals, and what is lost once all have come.
    let cases: [(&[usize], &[usize]); 3] = [
        (&[2, 6, 8, 3, 9], &[0, 1, 4, 5, 7]),
        (&[7, 3, 4, 8, 9], &[0, 1, 2, 5, 6]),
        (&[7, 5, 6, 8, 9], &[0, 1, 2, 3, 4]),
    ];
    for (arrivals, lost) in cases {
        with_isns(|mut host| {
            in_flight(&mut host, 10, 100).after(100);
            let mut got = vec![false; 10];
            for &at in arrivals {
                got[at] = true;
                host.rx(ack_of(&got, at));
            }
            let mut again: Vec<usize> = Vec::new();
            // It takes a quarter of a round trip to tell loss from reordering.
            host.pass(25);
            for _ in 0..10 {
                // What goes again arrives a round trip later.
                host.pass(100);
                for sent in core::mem::take(&mut host.out) {
                    let first = sent.header.sequence.since(host.host_isn.unwrap()) as usize / 1000;
                    again.push(first);
                    got[first] = true;
                    host.rx(ack_of(&got, first));
                }
            }
            assert_eq!(again, lost, "{arrivals:?}");
            assert!(host.tcp.is_flushed(host.id()));
            let counters = host.counters();
            assert_eq!((counters.tcp_fast_retransmits, counters.tcp_retransmit_timeouts), (1, 0));
        });
    }
}

/// Pitfall Q07, RFC 8985 §7: the last segment of three is lost: repaired two round trips after it
/// was sent, without a timeout.
#[test]
fn a_lost_tail_is_probed_for() {
    with_isns(|mut host| {
        in_flight(&mut host, 3, 50).after(50).rx(ack(2, &[])).nothing();
        // One segment is left, whose ACK may be delayed.
        host.after(250).expect(segment(2)).nothing();
        host.rx(ack(3, &[])).nothing().after(10_000).nothing();
        let counters = host.counters();
        assert_eq!((counters.tcp_tail_probes, counters.tcp_retransmit_timeouts), (1, 0));
    });
    // All three: the probe of the last tells of the others.
    with_isns(|mut host| {
        in_flight(&mut host, 3, 50).after(100).expect(segment(2)).nothing();
        host.after(50).rx(ack(0, &[(2, 3)])).expect(segment(0)).nothing();
        host.after(50).rx(ack(1, &[(2, 3)])).expect(segment(1)).nothing();
        host.after(50).rx(ack(3, &[])).nothing();
        assert_eq!(host.counters().tcp_retransmit_timeouts, 0);
    });
    // The probe is new data where there is some.
    with_isns(|mut host| {
        in_flight(&mut host, 10, 50).write_stream(10_000, 5000).nothing();
        host.after(100).expect(segment(10)).nothing();
    });
    // A FIN is a tail as well (packetdrill `shutdown`).
    with_isns(|mut host| {
        in_flight(&mut host, 2, 50).shutdown().expect(seg("F.").seq(2001).ack(1)).nothing();
        host.after(100).expect(seg("FP.").seq(1002).ack(1).stream(1001, 999)).nothing();
    });
}

/// RFC 8985 §7.4: a probe that repaired a loss has the window reduced, one that was not needed does
/// not.
#[test]
fn a_loss_that_only_the_probe_has_found_counts() {
    for was_lost in [true, false] {
        with_isns(|host| {
            let mut host = halving(host);
            in_flight(&mut host, 10, 50).after(50).rx(ack(9, &[])).nothing();
            let before = host.congestion_window();
            host.after(250).expect(segment(9)).nothing();
            host.rx(ack(10, &[]));
            if !was_lost {
                host.rx(ack(10, &[(9, 10)]));
            }
            host.write_stream(10_000, 1000).expect(segment(10)).rx(ack(11, &[])).nothing();
            let counters = host.counters();
            assert_eq!(counters.tcp_tail_losses, u64::from(was_lost));
            assert_eq!(host.congestion_window() < before, was_lost);
        });
    }
}

/// One probe, then the timer: RFC 8985 §7.3, and pitfall Q02.
#[test]
fn after_the_probe_comes_the_timeout() {
    with_isns(|mut host| {
        in_flight(&mut host, 3, 50).after(100).expect(segment(2)).nothing();
        // SRTT and 200 ms after the probe.
        host.after(250).expect(segment(0)).nothing();
        host.after(500).expect(segment(0)).nothing();
        assert_eq!(host.congestion_window(), 1000);
        host.rx(ack(1, &[])).expect(segment(1)).expect(segment(2)).nothing();
        assert_eq!(host.counters().tcp_retransmit_timeouts, 2);
    });
}

/// Pitfall Q09: nothing that was reported is forgotten before it is acknowledged; a peer that takes
/// its word back gets it all again.
#[test]
fn a_peer_that_reneges_gets_everything_again() {
    with_isns(|mut host| {
        in_flight(&mut host, 5, 100).after(100).rx(ack(0, &[(1, 5)])).expect(segment(0));
        host.nothing();
        // It has thrown everything else away.
        host.rx(ack(1, &[])).nothing();
        let mut got = vec![false; 5];
        got[0] = true;
        for _ in 0..20 {
            host.pass(300);
            let next = |got: &[bool]| got.iter().position(|&got| !got).unwrap_or(5) as u32;
            for sent in core::mem::take(&mut host.out) {
                let first = sent.header.sequence.since(host.host_isn.unwrap()) as usize / 1000;
                assert_eq!(sent.payload, stream(first * 1000, 1000));
                if first as u32 == next(&got) {
                    got[first] = true;
                }
                host.rx(ack(next(&got), &[]));
            }
        }
        assert!(got.iter().all(|&got| got));
        assert_eq!(host.counters().tcp_sack_reneged, 1);
        assert!(host.tcp.is_flushed(host.id()));
    });
}

/// Pitfall Q08: blocks that cannot be true change nothing, whatever they say.
#[test]
fn lies_are_ignored() {
    let lies: [&[(u32, u32)]; 7] = [
        &[(5001, 3001)],     // Reversed.
        &[(3001, 3001)],     // Empty.
        &[(9001, 12_001)],   // Beyond what was sent.
        &[(20_001, 30_001)], // Never sent.
        &[(1, 1001)],        // What is first, and not acknowledged.
        &[(0x8000_0000, 0x8000_1000)],
        &[(0xffff_0000, 0xffff_ff00)],
    ];
    for lie in lies {
        with_isns(|mut host| {
            in_flight(&mut host, 10, 100).after(100);
            for _ in 0..10 {
                host.rx(seg(".").seq(1).ack(1).sack(lie)).nothing();
            }
            assert_eq!(host.counters().tcp_fast_retransmits, 0, "{lie:?}");
            host.rx(ack(10, &[])).nothing();
            assert!(host.tcp.is_flushed(host.id()));
        });
    }
}

/// Pitfall Q08: ten thousand blocks of one byte: bounded memory and work, and the connection goes on.
#[test]
fn blocks_of_one_byte_are_bounded() {
    let mut host = Host::new();
    in_flight(&mut host, 10, 100).after(100);
    for at in 0..5000u32 {
        let byte = 2 + (at * 7919) % 9990;
        host.rx(seg(".").seq(1).ack(1).sack(&[(byte, byte + 1)]));
    }
    assert!(host.counters().tcp_sack_limited > 1000);
    // Never split below a segment: what is missing before the first block goes whole.
    assert!(host.out.len() < 3000, "{}", host.out.len());
    host.out.clear();
    host.rx(ack(10, &[])).nothing();
    assert!(host.tcp.is_flushed(host.id()));
}

/// packetdrill `fast_recovery`: an ACK below SND.UNA that brings news still counts.
#[test]
fn an_old_ack_with_new_blocks_counts() {
    with_isns(|mut host| {
        in_flight(&mut host, 10, 100).after(100).rx(ack(2, &[])).nothing();
        host.rx(ack(1, &[(4, 7)])).expect(segment(2)).expect(segment(3)).nothing();
    });
}

/// A retransmission that is lost as well is sent again a round trip later, without a timeout: RFC
/// 8985 §3.1.
#[test]
fn a_lost_retransmission_is_noticed() {
    with_isns(|mut host| {
        in_flight(&mut host, 10, 100).write_stream(10_000, 20_000).nothing().after(100);
        host.rx(ack(0, &[(1, 5)])).expect(segment(0));
        let more: Vec<_> = host.out.drain(..).collect();
        host.after(1).rx(ack(0, &[(1, 10)]));
        host.out.clear();
        assert!(more.len() < 4);
        // What was sent after the retransmission arrives, and it does not.
        host.after(100).rx(ack(0, &[(1, 12)])).expect(segment(0));
        assert_eq!(host.counters().tcp_retransmit_timeouts, 0);
    });
}

/// RFC 3708: everything that was sent again had arrived: the window is as before.
#[test]
fn duplicates_undo_a_recovery_that_was_none() {
    with_isns(|mut host| {
        in_flight(&mut host, 10, 100).write_stream(10_000, 40_000).nothing().after(100);
        let before = host.congestion_window();
        for to in 2..=4 {
            host.rx(ack(0, &[(1, to)]));
        }
        assert_eq!(host.counters().tcp_fast_retransmits, 1);
        assert_eq!(host.counters().tcp_retransmits, 1);
        // The first copy arrives after all, then the second.
        host.rx(ack(4, &[]));
        host.rx(ack(10, &[]));
        assert!(host.congestion_window() < before);
        host.out.clear();
        host.after(50).rx(ack(12, &[]));
        host.rx(ack(12, &[(0, 1)]));
        assert_eq!(host.counters().tcp_recoveries_undone, 1);
        assert!(host.congestion_window() >= before);
    });
}

/// RFC 8985 §6.2 steps 3 and 4: a segment that was late, taken for lost and sent again, has shown all
/// the same that the path reorders: from then on it is time that tells of a loss, not the three
/// segments that are ahead of a gap.
#[test]
fn reordering_that_looked_like_a_loss_counts_as_reordering() {
    // How the sender learns it: the peer's timestamps, or a report of the duplicate.
    for has_timestamps in [true, false] {
        with_isns(|mut host| {
            host.connect();
            let clock = |host: &Host| host.out.back().unwrap().header.options.timestamps;
            let syn = clock(&host).unwrap().value;
            host.next_sent();
            let answer = seg("S.").seq(0).ack(1).sack_ok();
            // Segments of 1000 bytes, with the option or without.
            let answer = match has_timestamps {
                true => answer.mss(1012).ts(500, syn),
                false => answer.mss(1000),
            };
            host.after(100).rx(answer);
            host.next_sent();
            host.write_stream(0, 60_000);
            let first = clock(&host).map_or(0, |clock| clock.value);
            let ts = |ack: Seg, echo| if has_timestamps { ack.ts(500, echo) } else { ack };
            host.out.clear();
            host.after(100);
            for to in 2..=4 {
                host.rx(ts(ack(0, &[(1, to)]), first));
            }
            assert_eq!(host.counters().tcp_retransmits, 1);
            // The first copy arrives, and a round trip later the second.
            host.pass(10);
            host.rx(ts(ack(10, &[]), first)).pass(100);
            let again = clock(&host).map_or(0, |clock| clock.value);
            host.rx(ts(ack(12, &[(0, 1)]), again));
            assert_eq!(host.counters().tcp_recoveries_undone, 1);
            host.out.clear();
            // Once more a segment is late, by less than the reordering window.
            for to in 14..=17 {
                host.rx(ts(ack(12, &[(13, to)]), again));
            }
            host.pass(10);
            host.rx(ts(ack(17, &[]), again)).pass(30);
            let counters = host.counters();
            assert_eq!((counters.tcp_fast_retransmits, counters.tcp_retransmits), (1, 1));
        });
    }
}

/// After a timeout a duplicate says nothing about the order of arrivals: perhaps only the ACKs were
/// late.
#[test]
fn a_duplicate_after_a_timeout_is_no_reordering() {
    with_isns(|mut host| {
        in_flight(&mut host, 3, 50).after(100).expect(segment(2)).nothing();
        host.after(250).expect(segment(0)).nothing();
        host.write_stream(3000, 20_000).rx(ack(3, &[])).rx(ack(3, &[(0, 1)]));
        assert_eq!(host.counters().tcp_duplicates_reported, 1);
        host.out.clear();
        for to in 5..=7 {
            host.rx(ack(3, &[(4, to)]));
        }
        // Three ahead of a gap are a loss at once.
        assert_eq!(host.counters().tcp_fast_retransmits, 1);
    });
}

/// A network that doubles packets does not undo a loss: only what was sent again counts.
#[test]
fn duplicates_of_the_network_undo_nothing() {
    with_isns(|mut host| {
        in_flight(&mut host, 10, 100).write_stream(10_000, 40_000).nothing().after(100);
        for to in 2..=4 {
            host.rx(ack(0, &[(1, to)]));
        }
        assert_eq!(host.counters().tcp_retransmits, 1);
        host.rx(ack(0, &[(2, 3), (1, 4)])).rx(ack(0, &[(1, 2), (1, 4)]));
        assert_eq!(host.counters().tcp_duplicates_reported, 2);
        assert_eq!(host.counters().tcp_recoveries_undone, 0);
    });
}

/// RFC 3522: after a timeout, the first ACK answers what was sent before it: nothing is sent again,
/// and the window is as before.
#[test]
fn timestamps_undo_a_timeout_that_was_none() {
    with_isns(|mut host| {
        host.connect();
        let clock = |host: &Host| host.out.back().unwrap().header.options.timestamps.unwrap().value;
        let syn = clock(&host);
        host.next_sent();
        host.after(100);
        host.rx(seg("S.").seq(0).ack(1).mss(1012).sack_ok().ts(500, syn));
        host.next_sent();
        host.write_stream(0, 10_000);
        let first = clock(&host);
        host.out.clear();
        // The path has become slow: the probe, then the timeout.
        host.pass(800);
        assert!(host.counters().tcp_retransmit_timeouts >= 1);
        assert_eq!(host.congestion_window(), 1000);
        host.out.clear();
        host.rx(ack(2, &[]).ts(600, first));
        assert_eq!(host.counters().tcp_recoveries_undone, 1);
        assert!(host.congestion_window() >= 10_000);
        host.nothing().rx(ack(10, &[]).ts(601, first)).nothing();
        assert!(host.tcp.is_flushed(host.id()));
    });
}

/// Pitfall Q05, Q07: FIN is lost like data, in every state that waits for its ACK.
#[test]
fn a_lost_fin_is_sent_again_with_sack() {
    for is_closed_first in [false, true] {
        with_isns(|mut host| {
            in_flight(&mut host, 1, 10).after(10).rx(ack(1, &[])).nothing();
            let acked = if is_closed_first {
                host.rx(seg("F.").seq(1).ack(1001)).expect(seg(".").seq(1001).ack(2));
                2
            } else {
                1
            };
            host.shutdown().expect(seg("F.").seq(1001).ack(acked));
            for gap in [210, 210, 420] {
                host.after(gap).expect(seg("F.").seq(1001).ack(acked)).nothing();
            }
            host.rx(seg(".").seq(acked).ack(1002)).nothing();
            assert!(matches!(host.state(), State::FinWait2 | State::Closed));
        });
    }
}

/// Pitfall T08, and RFC 6675 §5.1: recoveries begin as well after two gigabytes as after none.
#[test]
fn recovery_works_when_the_numbers_have_gone_half_round() {
    // Large segments, so that two gigabytes are few.
    const LEN: u32 = 50_000;
    let limits = Limits {
        tcp_send_bytes: 1 << 24,
        tcp_send_bytes_initial: 1 << 24,
        tcp_total_bytes: 1 << 26,
        ..Limits::default()
    };
    for has_sack in [false, true] {
        let mut host = Host::with(limits.clone(), 60_000, 5, u32::MAX - 5);
        let mut syn = seg("S").mss(LEN as u16).shift(14);
        syn.sack_permitted = has_sack;
        host.established_with(syn);
        let mut at = 0u32;
        let chunk = vec![7; 1 << 23];
        for _ in 0..(1 << 31) / chunk.len() + 2 {
            host.write(&chunk);
            let until = at + chunk.len() as u32;
            while at != until {
                let len: usize = host.out.drain(..).map(|sent| sent.payload.len()).sum();
                assert!(len > 0);
                at += len as u32;
                host.rx(seg(".").seq(1).ack(1 + at).win(u16::MAX));
            }
        }
        host.write(&vec![1; 10 * LEN as usize]).out.clear();
        for to in 2..=5u32 {
            let blocks = [(1 + at + LEN, 1 + at + to * LEN)];
            let ack = seg(".").seq(1).ack(1 + at).win(u16::MAX);
            host.rx(ack.sack(&blocks[..usize::from(has_sack)]));
        }
        assert_eq!(host.counters().tcp_fast_retransmits, 1, "SACK: {has_sack}");
    }
}
