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
