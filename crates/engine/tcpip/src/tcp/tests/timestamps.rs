//! Timestamps and PAWS (RFC 7323).

use super::script::*;
use crate::tcp::connection::State;
use crate::wire::tcp::Timestamps;

/// A connection with timestamps; the peer's clock is at 1000.
fn agreed(host: &mut Host) -> &mut Host {
    host.established_with(seg("S").mss(1460).ts(1000, 0))
}

fn last_timestamps(host: &mut Host) -> Timestamps {
    host.next_sent().header.options.timestamps.expect("in every segment")
}

/// T10.
#[test]
fn every_segment_carries_the_clock_and_the_echo() {
    with_isns(|mut host| {
        agreed(&mut host).write(b"x");
        let first = last_timestamps(&mut host);
        assert_eq!(first.echo, 1000);
        host.after(150).rx(seg(".").seq(1).ack(2).ts(1150, first.value));
        host.rx(seg("P.").seq(1).ack(2).ts(1151, first.value).data(b"y")).after(40);
        let ack = last_timestamps(&mut host);
        assert_eq!(ack.echo, 1151);
        assert_eq!(ack.value.wrapping_sub(first.value), 190, "a clock of milliseconds");
        host.shutdown();
        assert_eq!(last_timestamps(&mut host).echo, 1151);
    });
}

#[test]
fn segments_leave_room_for_the_option() {
    with_isns(|mut host| {
        agreed(&mut host).write_stream(0, 2896);
        host.expect(seg(".").seq(1).ack(1).stream(0, 1448));
        host.expect(seg("P.").seq(1449).ack(1).stream(1448, 1448)).nothing();
    });
}

/// T10: what was not offered is not sent.
#[test]
fn without_an_offer_there_are_none() {
    with_isns(|mut host| {
        host.established().write(b"x");
        assert_eq!(host.next_sent().header.options.timestamps, None);
    });
}

/// T09: old is what was sent more than a minute or two, or a quarter of a gibibyte, before.
#[test]
fn old_segment_is_acknowledged_and_dropped() {
    with_isns(|mut host| {
        agreed(&mut host);
        for (minute, data) in [(1, b"abc"), (2, b"def"), (3, b"ghi")] {
            host.pass(64_000);
            let sequence = 1 + 3 * (minute - 1);
            let segment = seg("P.").seq(sequence).ack(1).ts(1000 + minute * 64_000, 0);
            host.rx(segment.data(data)).read(data);
        }
        host.pass(40);
        host.out.clear();
        // The clock of a minute ago.
        let old = 1000 + 2 * 64_000;
        host.rx(seg("P.").seq(10).ack(1).ts(old - 1, 0).data(b"old"))
            .expect(seg(".").seq(1).ack(10));
        host.would_block();
        assert_eq!(host.counters().tcp_timestamp_old, 1);
        host.rx(seg("P.").seq(10).ack(1).ts(old, 0).data(b"new")).read(b"new");
        // RST is exempt.
        host.rx(seg("R").seq(13).ts(1, 0)).nothing().release().is_empty();
    });
}

/// The first of three segments is lost, the third delayed: the first, sent again, overtakes the third.
/// That is new for all that, and the echo goes on from the latest clock.
#[test]
fn a_segment_that_a_retransmission_overtook_is_taken() {
    with_isns(|mut host| {
        host.established_with(seg("S").mss(1460).sack_ok().ts(1000, 0));
        host.rx(seg(".").seq(4).ack(1).ts(1010, 0).data(b"def"));
        host.expect(seg(".").seq(1).ack(1).sack(&[(4, 7)]));
        host.after(30).rx(seg(".").seq(1).ack(1).ts(1040, 0).data(b"abc"));
        host.expect(seg(".").seq(1).ack(7));
        host.rx(seg("P.").seq(7).ack(1).ts(1011, 0).data(b"ghi")).read(b"abcdefghi").after(40);
        assert_eq!(last_timestamps(&mut host).echo, 1040);
        assert_eq!(host.counters().tcp_timestamp_old, 0);
    });
}

/// T09: after 24 days TS.Recent says nothing.
#[test]
fn clock_of_a_peer_that_was_idle_for_long_may_have_wrapped() {
    with_isns(|mut host| {
        agreed(&mut host).after(25 * 24 * 3600 * 1000).nothing();
        host.rx(seg("P.").seq(1).ack(1).ts(900, 0).data(b"abc")).read(b"abc");
    });
}

/// T10: packetdrill `ts_recent`.
#[test]
fn only_an_acceptable_segment_at_the_edge_updates_the_echo() {
    let echo_after = |segment: Seg| {
        let mut host = Host::new();
        agreed(&mut host).rx(segment).pass(100);
        host.out.clear();
        host.write(b"x");
        last_timestamps(&mut host).echo
    };
    assert_eq!(echo_after(seg(".").seq(1).ack(1).ts(2000, 0)), 2000);
    assert_eq!(echo_after(seg(".").seq(5).ack(1).ts(2000, 0).data(b"gap")), 1000);
    assert_eq!(echo_after(seg(".").seq(1).ack(9).ts(2000, 0)), 1000, "acknowledges the future");
    assert_eq!(echo_after(seg(".").seq(0).ack(1).ts(2000, 0)), 1000, "outside of the window");
    assert_eq!(echo_after(seg(".").seq(1).ack(1).ts(999, 0)), 1000, "older");
}

/// RFC 7323 §3.2.
#[test]
fn segment_that_lacks_the_option_is_dropped() {
    with_isns(|mut host| {
        agreed(&mut host).rx(seg("P.").seq(1).ack(1).data(b"abc")).nothing().would_block();
        assert_eq!(host.counters().tcp_timestamp_missing, 1);
        // But not a RST, and a SYN gets its challenge.
        host.rx(seg("S").seq(9)).expect(seg(".").seq(1).ack(1)).rx(seg("R").seq(1)).nothing();
        host.release().is_empty();
    });
}

/// Q03: with timestamps, what was sent twice can be measured.
#[test]
fn timestamps_measure_retransmissions() {
    with_isns(|mut host| {
        agreed(&mut host).write(b"x");
        host.next_sent();
        host.after(200);
        host.next_sent();
        host.after(400);
        let again = last_timestamps(&mut host);
        host.after(20).rx(seg(".").seq(1).ack(2).ts(1020, again.value)).write(b"y");
        host.next_sent();
        // No backoff any more: the first RTO after this measurement is near the first ever.
        host.after(202).pass(5);
        host.expect(seg("P.").seq(2).ack(1).data(b"y")).nothing();
    });
}

#[test]
fn handshakes_refuse_older_clocks() {
    with_isns(|mut host| {
        host.listen().rx(seg("S").ts(1000, 0)).expect(seg("S.").seq(0).ack(1));
        host.rx(seg(".").seq(1).ack(1).ts(999, 0)).expect(seg(".").seq(1).ack(1)).nothing();
        host.rx(seg(".").seq(1).ack(1).ts(1000, 0)).nothing().accept();
        assert_eq!(host.state(), State::Established);
    });
}
