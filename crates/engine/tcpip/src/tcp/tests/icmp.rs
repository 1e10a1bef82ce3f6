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

/// FreeBSD `rcv-icmp`: the segment goes out again at once, smaller.
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
