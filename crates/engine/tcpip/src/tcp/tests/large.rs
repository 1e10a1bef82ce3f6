//! Segments that the device cuts, and segments that arrive several in one.

use super::script::*;
use crate::config::Limits;

/// A host whose device cuts whatever an IP packet holds, with an initial window of ten segments.
fn host() -> Host {
    Host::new().with_large(65_515)
}

#[test]
fn a_large_segment_is_whole_segments_and_a_quarter_of_the_window() {
    let mut host = host();
    host.established().write_stream(0, 50_000);
    // Ten segments may be in flight, so two at a time.
    for at in (0..14_600).step_by(2920) {
        assert_eq!(host.out.front().and_then(|sent| sent.mss), Some(1460));
        host.expect(seg(".").seq(1 + at).ack(1).stream(at as usize, 2920));
    }
    host.nothing();
    // The peer's window counts too: three segments, and no quarter of it is two.
    host.rx(seg(".").seq(1).ack(14_601).win(5000));
    for at in (14_600..18_980).step_by(1460) {
        assert_eq!(host.out.front().and_then(|sent| sent.mss), None);
        host.expect(seg(".").seq(1 + at).ack(1).stream(at as usize, 1460));
    }
}

/// Otherwise each ACK of a small frame lets out another small frame, for as long as the stream lasts.
#[test]
fn a_small_frame_waits_for_the_ack_that_makes_it_large() {
    let mut host = host();
    // What was sent in slow start is acknowledged; the peer's window is sixteen segments.
    host.established().write_stream(0, 90_000);
    let mut acked = 0;
    for edge in [14_600, 37_960] {
        host.out.clear();
        acked = edge;
        host.rx(seg(".").seq(1).ack(1 + acked).win(23_360));
    }
    for _ in 0..4 {
        host.expect(seg(".").seq(1 + acked).ack(1).stream(acked as usize, 5840));
        acked += 5840;
    }
    host.nothing();
    let una = 1 + acked - 23_360;
    for part in [1460, 2920, 4380] {
        host.rx(seg(".").seq(1).ack(una + part).win(23_360)).nothing();
    }
    host.rx(seg(".").seq(1).ack(una + 5840).win(23_360));
    host.expect(seg(".").seq(1 + acked).ack(1).stream(acked as usize, 5840)).nothing();
    // With the whole window free, what is left goes at once, but for what Nagle's algorithm holds.
    host.rx(seg(".").seq(1).ack(1 + acked + 5840).win(23_360));
    let sent: Vec<usize> = host.out.iter().map(|sent| sent.payload.len()).collect();
    assert_eq!(sent, [5840, 5840, 5840, 4380]);
}

#[test]
fn a_device_that_takes_little_gets_little() {
    let mut host = Host::new().with_large(3000);
    host.established().rx(seg(".").seq(1).ack(1).win(65_535)).write_stream(0, 14_600);
    while let Some(sent) = host.out.pop_front() {
        assert_eq!(sent.payload.len(), 2920);
    }
}

#[test]
fn nagle_holds_the_small_end_of_a_large_segment() {
    let mut one = host();
    one.established().write_stream(0, 3000);
    one.expect(seg(".").seq(1).ack(1).stream(0, 2920)).nothing();
    one.rx(seg(".").seq(1).ack(2921)).expect(seg("P.").seq(2921).ack(1).stream(2920, 80));
    // Without it, or with FIN behind, all goes at once, and is pushed.
    let mut two = host();
    two.established().nodelay().write_stream(0, 3000);
    two.expect(seg(".").seq(1).ack(1).stream(0, 2920));
    two.expect(seg("P.").seq(2921).ack(1).stream(2920, 80)).nothing();
}

#[test]
fn fin_and_push_go_with_the_last_segment() {
    let mut host = host();
    host.established().rx(seg(".").seq(1).ack(1).win(0));
    host.write_stream(0, 3000).nothing().shutdown().nothing();
    host.rx(seg(".").seq(1).ack(1).win(65_535));
    host.expect(seg(".").seq(1).ack(1).stream(0, 2920));
    host.expect(seg("FP.").seq(2921).ack(1).stream(2920, 80)).nothing();
}

/// What is lost is sent again segment by segment: on a wire the others have arrived.
#[test]
fn a_loss_is_repaired_by_one_segment() {
    let mut host = host();
    host.established().write_stream(0, 50_000);
    host.out.clear();
    for _ in 0..3 {
        host.rx(seg(".").seq(1).ack(1));
    }
    let again = host.out.iter().find(|sent| sent.header.sequence == host.host_isn.unwrap() + 1);
    assert_eq!(again.map(|sent| (sent.payload.len(), sent.mss)), Some((1460, None)));
    assert_eq!(host.counters().tcp_fast_retransmits, 1);
}

#[test]
fn after_a_timeout_what_is_sent_again_is_counted_by_segments() {
    let mut host = host();
    host.established().write_stream(0, 14_600);
    host.out.clear();
    host.pass(250);
    host.expect(seg(".").seq(1).ack(1).stream(0, 1460)).nothing();
    host.rx(seg(".").seq(1).ack(1461));
    let sent: usize = host.out.drain(..).map(|sent| sent.payload.len()).sum();
    assert_eq!(sent, 2920);
    assert_eq!(host.counters().tcp_retransmits, 3);
}

/// RFC 9293 §3.8.6.3: two full segments are acknowledged at once, however they came.
#[test]
fn several_segments_in_one_count_as_several() {
    with_isns(|mut host| {
        host.established().rx(seg(".").seq(1).ack(1).stream(0, 1000)).nothing();
        host.after(40).expect(seg(".").seq(1).ack(1001));
        host.rx_large(seg(".").seq(1001).ack(1).stream(1000, 3500), 1000);
        host.expect(seg(".").seq(1).ack(4501)).nothing();
        // One segment in a large one's clothes waits, though large ones were seen.
        host.rx_large(seg(".").seq(4501).ack(1).stream(4500, 1000), 1000).nothing();
        host.rx_large(seg(".").seq(5501).ack(1).stream(5500, 1000), 1000);
        host.expect(seg(".").seq(1).ack(6501)).nothing();
        assert_eq!(host.counters().tcp_large_frames_received, 1);
    });
}

/// RFC 5681 §4.2: the sender counts a duplicate ACK for each segment ahead of a gap.
#[test]
fn segments_ahead_of_a_gap_are_each_answered() {
    let mut host = Host::new();
    host.established().rx_large(seg(".").seq(1001).ack(1).stream(1000, 4500), 1000);
    for _ in 0..5 {
        host.expect(seg(".").seq(1).ack(1));
    }
    host.nothing().rx(seg(".").seq(1).ack(1).stream(0, 1000)).expect(seg(".").seq(1).ack(5501));
    // No more than the limit, however many come in one.
    host.rx_large(seg(".").seq(6501).ack(1).stream(6500, 20_000), 100);
    assert_eq!(host.out.len(), 16);
}

#[test]
fn what_exceeds_the_window_is_cut_off() {
    let limits = Limits { tcp_receive_bytes: 4096, ..Limits::default() };
    let mut host = Host::with_limits(limits);
    host.established().rx_large(seg(".").seq(1).ack(1).stream(0, 60_000), 1460);
    let got = host.read_some(60_000);
    assert!((2048..=4096).contains(&got.len()), "{}", got.len());
    assert_eq!(got, stream(0, got.len()));
}

/// A stream of joined arrivals, each `len` bytes, of which the program reads all; how many ACKs.
fn arrive(host: &mut Host, at: &mut usize, arrivals: usize, len: usize) -> usize {
    host.out.clear();
    for _ in 0..arrivals {
        host.rx_large(seg(".").seq(1 + *at as u32).ack(1).stream(*at, len), 1460);
        *at += len;
        assert_eq!(host.read_some(2 * len).len(), len);
    }
    host.out.drain(..).filter(|sent| sent.payload.is_empty()).count()
}

const JOINED: usize = 44 * 1460;

#[test]
fn a_fast_stream_of_joined_arrivals_is_acknowledged_less_often() {
    let mut host = host();
    host.established_with(seg("S").seq(0).win(65_535).mss(1460).shift(7));
    let mut at = 0;
    assert_eq!(arrive(&mut host, &mut at, 16, JOINED), 16, "one each, to begin with");
    // Twice 64,240 is a little short of 128 KiB, and four times of 256.
    assert_eq!(arrive(&mut host, &mut at, 48, JOINED), 16);
    assert_eq!(arrive(&mut host, &mut at, 50, JOINED), 10);
    // What waits goes by the clock.
    assert_eq!(arrive(&mut host, &mut at, 1, JOINED), 0);
    host.pass(3).nothing().pass(1).expect(seg(".").seq(1).ack(1 + at as u32));
    // A pause is none of the stream's fault.
    assert_eq!(arrive(&mut host, &mut at, 50, JOINED), 10);
}

/// Its window is too small for what was tried: it would be slowed down by the clock.
#[test]
fn a_sender_that_stops_for_its_ack_gets_one_for_each_arrival_again() {
    let mut host = host();
    host.established_with(seg("S").seq(0).win(65_535).mss(1460).shift(7));
    let mut at = 0;
    arrive(&mut host, &mut at, 16, JOINED);
    for _ in 0..2 {
        assert_eq!(arrive(&mut host, &mut at, 1, JOINED), 0);
        host.pass(4).expect(seg(".").seq(1).ack(1 + at as u32));
    }
    // And the next trial is four times as far away.
    assert_eq!(arrive(&mut host, &mut at, 64, JOINED), 64);
    assert_eq!(arrive(&mut host, &mut at, 1, JOINED), 0);
}

#[test]
fn a_loss_ends_the_longer_wait_for_an_ack() {
    let mut host = host();
    host.established_with(seg("S").seq(0).win(65_535).mss(1460).shift(7));
    let mut at = 0;
    arrive(&mut host, &mut at, 16, JOINED);
    assert_eq!(arrive(&mut host, &mut at, 1, JOINED), 0);
    let missing = at;
    host.rx_large(seg(".").seq(1 + (at + 1460) as u32).ack(1).stream(at + 1460, 2920), 1460);
    assert!(!host.out.is_empty(), "the sender counts these");
    host.out.clear();
    host.rx(seg(".").seq(1 + missing as u32).ack(1).stream(missing, 1460));
    at += 3 * 1460;
    host.expect(seg(".").seq(1).ack(1 + at as u32));
    host.read_some(10 * JOINED);
    assert_eq!(arrive(&mut host, &mut at, 15, JOINED), 15);
}

/// RFC 9293 §3.8.6.3 for those that no device joins, however many and fast they are.
#[test]
fn single_segments_are_acknowledged_two_by_two_for_ever() {
    let mut host = host();
    host.established_with(seg("S").seq(0).win(65_535).mss(1460).shift(7));
    let mut at = 0;
    assert_eq!(arrive(&mut host, &mut at, 1000, 1460), 500);
}

#[test]
fn no_longer_wait_comes_near_the_end_of_the_window() {
    let limits = Limits {
        tcp_receive_bytes: 150_000,
        tcp_receive_bytes_initial: 150_000,
        ..Limits::default()
    };
    let mut host = Host::with_limits(limits).with_large(65_515);
    host.established_with(seg("S").seq(0).win(65_535).mss(1460).shift(7));
    let mut at = 0;
    arrive(&mut host, &mut at, 40, JOINED);
    // Half of what is left of the window: an arrival each.
    assert_eq!(arrive(&mut host, &mut at, 10, JOINED), 10);
}
