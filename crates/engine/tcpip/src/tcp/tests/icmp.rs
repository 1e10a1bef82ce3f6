//! ICMP errors (RFC 5927, RFC 9293 §3.9.2.2).

use super::script::*;
use crate::error::{TcpError, Unreachable};
use crate::icmp::IcmpError;
use crate::socket::TcpStatus;
use crate::tcp::connection::State;

const ALL: [IcmpError; 8] = [
    IcmpError::NetworkUnreachable,
    IcmpError::HostUnreachable,
    IcmpError::ProtocolUnreachable,
    IcmpError::PortUnreachable,
    IcmpError::Prohibited,
    IcmpError::TimeExceeded,
    IcmpError::ParameterProblem,
    IcmpError::NeighbourUnreachable,
];

/// I07.
#[test]
fn hard_error_ends_a_handshake_and_a_soft_one_explains_its_timeout() {
    let hard = [
        (IcmpError::PortUnreachable, TcpError::Refused),
        (IcmpError::ProtocolUnreachable, TcpError::Unreachable(Unreachable::Protocol)),
        (IcmpError::Prohibited, TcpError::Unreachable(Unreachable::Prohibited)),
    ];
    for (error, result) in hard {
        with_isns(|mut host| {
            host.in_state(State::SynSent).rx_icmp(error, 0).nothing();
            assert_eq!(host.status(), TcpStatus::Failed(result));
            host.release().is_empty();
        });
    }
    with_isns(|mut host| {
        host.in_state(State::SynSent).rx_icmp(IcmpError::HostUnreachable, 0);
        assert_eq!(host.status(), TcpStatus::Connecting);
        host.pass(180_000);
        let result = TcpError::Unreachable(Unreachable::Host);
        assert_eq!(host.status(), TcpStatus::Failed(result));
    });
}

/// I07.
#[test]
fn no_error_ends_an_established_connection() {
    for state in SYNCHRONIZED {
        for error in ALL {
            with_isns(|mut host| {
                host.in_state(state);
                if state == State::Established {
                    host.write(b"x").next_sent();
                }
                host.rx_icmp(error, 1).nothing();
                assert_eq!(host.state(), state);
            });
        }
    }
}

/// I06.
#[test]
fn error_about_what_is_not_in_flight_is_ignored() {
    with_isns(|mut host| {
        host.in_state(State::SynSent);
        for seq in [1, 2, u32::MAX, 1 << 30] {
            host.rx_icmp(IcmpError::PortUnreachable, seq);
        }
        assert_eq!(host.status(), TcpStatus::Connecting);
        // A quote that is cut short, or of another connection.
        for quote in [&b""[..], &[0; 7], &[9; 8]] {
            let error = IcmpError::PortUnreachable;
            host.tcp.handle_icmp_error(host.now, error, HOST, PEER, quote);
        }
        assert_eq!(host.counters().dropped_icmp_unmatched, 7);
        assert_eq!(host.status(), TcpStatus::Connecting);
    });
}

/// Pitfall P01, FreeBSD `rcv-icmp`: the segment goes out again at once, smaller.
#[test]
fn fragmentation_needed_lowers_the_segment_and_resends_at_once() {
    with_isns(|mut host| {
        host.established().write_stream(0, 2920);
        host.expect(seg(".").seq(1).ack(1).stream(0, 1460));
        host.expect(seg("P.").seq(1461).ack(1).stream(1460, 1460)).nothing();
        host.rx_icmp(IcmpError::FragmentationNeeded { mtu: 1292 }, 1);
        host.expect(seg(".").seq(1).ack(1).stream(0, 1252));
        host.expect(seg(".").seq(1253).ack(1).stream(1252, 1252));
        host.expect(seg("P.").seq(2505).ack(1).stream(2504, 416)).nothing();
        // Never larger again by the same way, and never below the floor.
        host.rx_icmp(IcmpError::FragmentationNeeded { mtu: 1400 }, 1).nothing();
        host.rx_icmp(IcmpError::FragmentationNeeded { mtu: 68 }, 1);
        assert_eq!(host.next_sent().payload.len(), 512);
        host.out.clear();
        host.rx_icmp(IcmpError::FragmentationNeeded { mtu: 0 }, 1).nothing();
    });
}

#[test]
fn fragmentation_needed_for_a_number_that_was_never_sent_changes_nothing() {
    with_isns(|mut host| {
        host.established().write(b"x").next_sent();
        host.rx_icmp(IcmpError::FragmentationNeeded { mtu: 600 }, 2).nothing();
        assert_eq!(host.counters().tcp_path_mtu_lowered, 0);
    });
}

/// Pitfalls P01, P03: with SACK as well everything goes again at once, and neither the window nor
/// the timer changes: it was size and not congestion.
#[test]
fn what_was_too_big_goes_again_and_costs_nothing() {
    for has_sack in [false, true] {
        with_isns(|mut host| {
            let mut syn = seg("S").mss(1460);
            syn.sack_permitted = has_sack;
            host.established_with(syn).write_stream(0, 2920);
            assert_eq!(host.out.drain(..).count(), 2);
            let window = host.congestion_window();
            host.rx_icmp(IcmpError::FragmentationNeeded { mtu: 1300 }, 1);
            host.expect(seg(".").seq(1).ack(1).stream(0, 1260));
            let mut sent = 1260;
            while let Some(again) = host.out.pop_front() {
                assert_eq!(again.payload, stream(sent, again.payload.len()));
                assert!(again.payload.len() <= 1260);
                sent += again.payload.len();
            }
            assert_eq!(sent, 2920, "SACK: {has_sack}");
            assert_eq!(host.congestion_window(), window);
            // The timer runs from now on, and is not backed off.
            host.after(199).nothing();
            host.rx(seg(".").seq(1).ack(2921)).nothing();
            let counters = host.counters();
            assert_eq!((counters.tcp_retransmit_timeouts, counters.tcp_fast_retransmits), (0, 0));
        });
    }
}

/// Pitfall P02: whatever size an error names: not below the floor, never larger.
#[test]
fn no_error_makes_segments_tiny_or_larger() {
    for (mtu, payload) in [(0, 536), (1, 512), (67, 512), (552, 512), (1279, 1239), (9000, 1460)] {
        with_isns(|mut host| {
            host.established().write_stream(0, 1460).next_sent();
            host.rx_icmp(IcmpError::FragmentationNeeded { mtu }, 1);
            host.out.clear();
            host.rx(seg(".").seq(1).ack(1461)).write_stream(1460, 1460);
            assert_eq!(host.next_sent().payload.len(), payload, "MTU {mtu}");
        });
    }
}

/// Pitfall P05: what is known of a path is kept with the connection that uses it: errors about
/// others leave nothing.
#[test]
fn forged_errors_about_no_connection_leave_nothing() {
    let mut host = Host::new();
    host.established();
    for port in 1..10_000u16 {
        let mut quote = port.to_be_bytes().to_vec();
        quote.extend([0x9c, 0x40, 0, 0, 0, 1]);
        let error = IcmpError::FragmentationNeeded { mtu: 600 };
        host.tcp.handle_icmp_error(host.now, error, HOST, PEER, &quote);
    }
    assert_eq!(host.counters().tcp_path_mtu_lowered, 0);
    assert!(host.counters().dropped_icmp_unmatched >= 9998);
    host.write_stream(0, 1460);
    assert_eq!(host.next_sent().payload.len(), 1460);
}

/// RFC 1191 §6.3: after ten minutes the first size is tried again.
#[test]
fn the_first_size_is_tried_again_after_ten_minutes() {
    with_isns(|mut host| {
        host.established().write_stream(0, 1460).next_sent();
        host.rx_icmp(IcmpError::FragmentationNeeded { mtu: 1000 }, 1).out.clear();
        host.rx(seg(".").seq(1).ack(1461)).after(599_000).write_stream(0, 960);
        assert_eq!(host.next_sent().payload.len(), 960);
        host.rx(seg(".").seq(1).ack(2421)).after(2_000).write_stream(0, 1460);
        assert_eq!(host.next_sent().payload.len(), 1460);
    });
}
