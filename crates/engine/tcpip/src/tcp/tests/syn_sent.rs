//! SYN-SENT (RFC 9293 §3.10.7.3) and simultaneous open (§3.5).

use super::script::*;
use crate::config::Limits;
use crate::error::{ConnectError, TcpError};
use crate::event::Event;
use crate::socket::TcpStatus;
use crate::tcp::connection::State;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[test]
fn active_open_offers_everything_and_connects() {
    with_isns(|mut host| {
        host.connect();
        let syn = host.next_sent().header;
        assert_eq!(syn.flags.0, 2);
        assert_eq!((syn.window, syn.options.mss), (65_535, Some(1460)));
        assert_eq!(syn.options.window_shift, Some(7), "4 MiB need seven bits more");
        assert!(syn.options.timestamps.is_some());
        assert_eq!(host.status(), TcpStatus::Connecting);
        host.rx(seg("S.").seq(0).ack(1).mss(1000)).expect(seg(".").seq(1).ack(1)).nothing();
        let id = host.id();
        assert!(host.had_event(Event::TcpConnected(id)));
        assert_eq!(host.status(), TcpStatus::Open { readable: false, writable: true });
    });
}

/// S01.
#[test]
fn unacceptable_ack_gets_a_reset_and_changes_nothing() {
    for flags in ["S.", ".", "F.", "P.", "SF."] {
        with_isns(|mut host| {
            host.in_state(State::SynSent);
            for ack in [0, u32::MAX, 2] {
                host.rx(seg(flags).seq(0).ack(ack)).expect(seg("R").seq(ack)).nothing();
            }
            host.rx(seg("S.").seq(0).ack(1)).expect(seg(".").seq(1).ack(1)).nothing();
        });
    }
}

/// S02.
#[test]
fn only_a_reset_with_a_good_ack_refuses() {
    with_isns(|mut host| {
        host.in_state(State::SynSent);
        host.rx(seg("R").seq(0)).rx(seg("R").seq(99)).nothing();
        host.rx(seg("R.").seq(0).ack(0)).rx(seg("R.").seq(0).ack(2)).nothing();
        host.rx(seg("F").seq(0)).rx(seg("F.").seq(0).ack(1)).rx(seg(".").seq(0).ack(1)).nothing();
        assert_eq!(host.status(), TcpStatus::Connecting);
        host.rx(seg("R.").seq(0).ack(1)).nothing();
        assert_eq!(host.status(), TcpStatus::Failed(TcpError::Refused));
        let id = host.id();
        assert!(host.had_event(Event::TcpClosed(id)));
        host.read_error(TcpError::Refused).release().is_empty();
    });
}

/// S05.
#[test]
fn syn_is_repeated_with_backoff_and_given_up_after_three_minutes() {
    with_isns(|mut host| {
        host.connect();
        let first = host.next_sent().header;
        for gap in [1, 2, 4, 8, 16, 32, 60] {
            host.after(gap * 1000);
            let mut again = host.next_sent().header;
            // T06: the same offer each time; only the clock goes on.
            again.options.timestamps = first.options.timestamps;
            assert_eq!(again, first);
        }
        host.after(56_999);
        assert_eq!(host.status(), TcpStatus::Connecting);
        host.after(1).nothing();
        assert_eq!(host.status(), TcpStatus::Failed(TcpError::TimedOut));
        host.release().is_empty();
    });
}

/// S05: after a lost SYN the window is one segment, and the timer 3 s without a measurement.
#[test]
fn lost_syn_starts_slowly() {
    with_isns(|mut host| {
        host.in_state(State::SynSent).after(1000).expect(seg("S").seq(0));
        host.rx(seg("S.").seq(0).ack(1).mss(1000)).expect(seg(".").seq(1).ack(1));
        host.write_stream(0, 3000).expect(seg(".").seq(1).ack(1).stream(0, 1000)).nothing();
        host.after(3000).expect(seg(".").seq(1).ack(1).stream(0, 1000)).nothing();
    });
}

/// S04.
#[test]
fn data_written_before_the_handshake_goes_with_its_end() {
    with_isns(|mut host| {
        host.connect().write(b"early").expect(seg("S").seq(0)).nothing();
        host.rx(seg("S.").seq(0).ack(1).mss(1000));
        host.expect(seg("P.").seq(1).ack(1).data(b"early")).nothing();
    });
}

/// S04.
#[test]
fn data_and_fin_in_the_syn_ack_are_taken() {
    with_isns(|mut host| {
        host.in_state(State::SynSent);
        host.rx(seg("SFP.").seq(0).ack(1).data(b"hi")).expect(seg(".").seq(1).ack(4)).nothing();
        host.read(b"hi").read_end();
        assert_eq!(host.state(), State::CloseWait);
    });
}

#[test]
fn fin_queued_in_syn_sent_follows_the_handshake() {
    with_isns(|mut host| {
        host.in_state(State::SynSent).shutdown().nothing();
        host.rx(seg("S.").seq(0).ack(1)).expect(seg("F.").seq(1).ack(1)).nothing();
        assert_eq!(host.state(), State::FinWait1);
    });
}

#[test]
fn release_in_syn_sent_is_silent_and_the_late_answer_gets_a_reset() {
    with_isns(|mut host| {
        host.in_state(State::SynSent).release().is_empty();
        host.rx(seg("S.").seq(0).ack(1)).expect(seg("R").seq(1)).is_empty();
    });
}

/// S03.
#[test]
fn simultaneous_open_keeps_its_numbers() {
    with_isns(|mut host| {
        host.in_state(State::SynSent).write(b"x");
        host.rx(seg("S").seq(0).mss(1000)).expect(seg("S.").seq(0).ack(1)).nothing();
        assert_eq!(host.status(), TcpStatus::Connecting);
        // The peer's SYN-ACK repeats its SYN.
        host.rx(seg("S.").seq(0).ack(1)).expect(seg("P.").seq(1).ack(1).data(b"x")).nothing();
        assert_eq!(host.state(), State::Established);
    });
}

/// S03: each of the packets is lost in turn.
#[test]
fn simultaneous_open_survives_losses() {
    with_isns(|mut host| {
        // Our SYN-ACK is lost: it comes again.
        host.in_state(State::SynReceived).after(1000).expect(seg("S.").seq(0).ack(1)).nothing();
        // The peer's SYN-ACK is lost: its plain ACK does as well.
        host.rx(seg(".").seq(1).ack(1)).nothing();
        assert_eq!(host.state(), State::Established);
    });
    with_isns(|mut host| {
        // Our SYN is lost, and so the peer sends its SYN again.
        host.in_state(State::SynReceived).rx(seg("S").seq(0)).expect(seg("S.").seq(0).ack(1));
        host.rx(seg("S.").seq(0).ack(1)).nothing();
        assert_eq!(host.state(), State::Established);
    });
}

/// S06.
#[test]
fn impossible_destinations_fail_at_once() {
    let mut host = Host::new();
    let v4 = |a, b, c, d, port| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port);
    for remote in
        [v4(0, 0, 0, 0, 1), v4(224, 0, 0, 1, 1), v4(255, 255, 255, 255, 1), v4(10, 0, 0, 2, 0)]
    {
        assert_eq!(host.tcp.connect(host.now, HOST, remote), Err(ConnectError::BadAddress(remote)));
    }
    let v6 = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 1);
    assert_eq!(host.tcp.connect(host.now, HOST, v6), Err(ConnectError::BadAddress(v6)));
    host.is_empty();
}

/// T04.
#[test]
fn window_shift_is_used_only_if_both_offer_it() {
    // The peer offers none: neither side shifts.
    with_isns(|mut host| {
        host.in_state(State::SynSent);
        host.rx(seg("S.").seq(0).ack(1).win(1000).mss(1460))
            .expect(seg(".").seq(1).ack(1).win(65_535));
        host.write_stream(0, 3000).expect(seg(".").seq(1).ack(1).stream(0, 1000)).nothing();
    });
    // The peer offers 4: its window counts sixteenfold from the segment after its SYN on.
    with_isns(|mut host| {
        host.in_state(State::SynSent);
        host.nodelay().rx(seg("S.").seq(0).ack(1).win(1000).mss(1460).shift(4));
        // 1 MiB shifted by 7, but for the room for rounding: 64 units of up to 127 bytes.
        host.expect(seg(".").seq(1).ack(1).win((1_048_576u32 - 64 * 127).div_ceil(128) as u16));
        host.write_stream(0, 3000).expect(seg(".").seq(1).ack(1).stream(0, 1000)).nothing();
        host.rx(seg(".").seq(1).ack(1001).win(125))
            .expect(seg(".").seq(1001).ack(1).stream(1000, 1460));
        host.expect(seg("P.").seq(2461).ack(1).stream(2460, 540)).nothing();
    });
}

/// T04: no shift that a peer can say makes us take more than the buffer, or send nonsense.
#[test]
fn every_window_shift_and_buffer_agree() {
    for receive_bytes in [2048, 65_535, 65_536, 1 << 20, 1 << 30] {
        for shift in [None, Some(0), Some(7), Some(14), Some(15), Some(255)] {
            let limits = Limits {
                tcp_receive_bytes: receive_bytes,
                tcp_total_bytes: usize::MAX,
                ..Limits::default()
            };
            let mut host = Host::with(limits, MTU, 77, 99);
            host.in_state(State::SynSent);
            let mut syn_ack = seg("S.").seq(0).ack(1).mss(1460);
            syn_ack.shift = shift;
            host.rx(syn_ack);
            let ack = host.next_sent().header;
            let shift_ours = (0..15).find(|s| receive_bytes >> s <= 65_535).unwrap_or(14);
            let window = if shift.is_some() {
                usize::from(ack.window) << shift_ours
            } else {
                ack.window.into()
            };
            assert!(window <= receive_bytes && window >= receive_bytes.min(65_535) / 2, "{window}");
            // A byte beyond what was offered is not taken.
            host.rx(seg(".").seq(1 + window as u32).ack(1).data(b"!"));
            host.expect(seg(".").seq(1).ack(1));
            assert_eq!(host.counters().tcp_out_of_order_ranges, 0);
        }
    }
}

#[test]
fn connections_that_fail_leave_nothing() {
    let mut host = Host::new();
    for _ in 0..1000 {
        host.in_state(State::SynSent).rx(seg("R.").seq(0).ack(1)).nothing().release();
    }
    host.is_empty();
}
