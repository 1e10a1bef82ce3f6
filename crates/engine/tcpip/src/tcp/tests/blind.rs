//! Attackers off the path (RFC 5961), and whatever flags anybody sends.

use super::script::*;
use crate::error::TcpError;
use crate::event::Event;
use crate::socket::TcpStatus;
use crate::tcp::connection::State;
use crate::wire::tcp::{Flags, Segment};

/// RCV.NXT in a state of [`SYNCHRONIZED`].
fn next(state: State) -> u32 {
    u32::from(matches!(state, State::CloseWait | State::Closing | State::LastAck)) + 1
}

/// SND.NXT in a state of [`SYNCHRONIZED`].
fn sent(state: State) -> u32 {
    if matches!(state, State::Established | State::CloseWait) { 1 } else { 2 }
}

/// B01: FreeBSD's four places, in every state.
#[test]
fn reset_counts_only_at_exactly_the_next_number() {
    for state in SYNCHRONIZED {
        for flags in ["R", "R."] {
            with_isns(|mut host| {
                host.in_state(state);
                let (nxt, edge) = (next(state), 65_536);
                // Outside on both sides: silent.
                host.rx(seg(flags).seq(nxt - 1)).rx(seg(flags).seq(edge + 1)).nothing();
                // Inside: a challenge.
                for seq in [nxt + 1, edge - 1] {
                    host.rx(seg(flags).seq(seq))
                        .expect(seg(".").seq(sent(state)).ack(nxt))
                        .nothing();
                }
                assert_eq!(host.state(), state);
                host.rx(seg(flags).seq(nxt)).nothing();
                let id = host.id();
                assert!(host.had_event(Event::TcpClosed(id)));
                let ended = match state {
                    State::Closing | State::LastAck => TcpStatus::Closed,
                    _ => TcpStatus::Failed(TcpError::Reset),
                };
                assert_eq!(host.status(), ended);
                // B04: once more changes nothing, nor does it after the connection is gone.
                host.rx(seg(flags).seq(nxt)).nothing().release().rx(seg(flags).seq(nxt)).is_empty();
            });
        }
    }
}

/// B02.
#[test]
fn syn_is_challenged_wherever_it_is() {
    for state in SYNCHRONIZED {
        for flags in ["S", "S.", "SF", "SFP."] {
            with_isns(|mut host| {
                host.in_state(state);
                let nxt = next(state);
                for seq in [0, nxt, nxt + 100, 65_535, 70_000] {
                    host.rx(seg(flags).seq(seq).ack(1));
                    host.expect(seg(".").seq(sent(state)).ack(nxt)).nothing();
                }
                assert_eq!(host.state(), state);
            });
        }
    }
}

/// B02: a peer that has restarted asks on the same ports, and gets through by its own RST.
#[test]
fn peer_that_restarted_connects_again_at_once() {
    with_isns(|mut host| {
        host.established();
        host.peer_isn += 777_777;
        host.rx(seg("S"));
        let challenge = host.next_sent().header;
        assert_eq!(challenge.flags, Flags::ACK);
        // The peer knows nothing of a connection: RST at the number that we acknowledge.
        let reset = seg("R").seq(challenge.acknowledgment.0.wrapping_sub(host.peer_isn.0));
        host.rx(reset).nothing();
        assert_eq!(host.status(), TcpStatus::Failed(TcpError::Reset));
        host.rx(seg("S")).expect(seg("S.").seq(0).ack(1)).nothing();
    });
}

/// B03.
#[test]
fn challenges_are_limited_per_connection() {
    let mut host = Host::new();
    host.established();
    let mut challenges = |port: Option<u16>| {
        for _ in 0..1000 {
            let mut syn = seg("S").seq(100);
            syn.remote_port = port;
            host.rx(syn);
        }
        let count = host.out.len();
        host.out.clear();
        host.pass(1000);
        count
    };
    assert_eq!(challenges(None), 10);
    assert_eq!([challenges(None), challenges(None), challenges(None)], [0; 3]);
    challenges(None);
    assert_eq!(challenges(None), 10, "five seconds later");
    assert_eq!(host.counters().tcp_challenges_sent, 20);
}

/// T11: all 256 flag bytes, in every state, at every edge: never a panic, never data where none
/// may be, and RST only where it belongs.
#[test]
fn every_combination_of_flags_in_every_state() {
    let states = [
        State::SynSent,
        State::SynReceived,
        State::Established,
        State::FinWait1,
        State::FinWait2,
        State::CloseWait,
        State::Closing,
        State::LastAck,
        State::TimeWait,
        State::Closed,
    ];
    for state in states {
        for flags in 0..=255u8 {
            for (seq, ack) in [(0, 0), (1, 1), (2, 2), (1, 2), (2, 1), (65_536, 1), (u32::MAX, 3)] {
                for data in [&b""[..], b"x", b"hello"] {
                    let mut host = Host::with(Default::default(), MTU, u32::MAX, u32::MAX - 1);
                    host.in_state(state);
                    host.rx(Seg {
                        flags,
                        seq,
                        ack: Some(ack),
                        data: data.to_vec(),
                        ..Seg::default()
                    });
                    let flags = Flags(flags);
                    for sent in &host.out {
                        assert!(!flags.has(Flags::RST) || !sent.header.flags.has(Flags::RST));
                        assert!(
                            !sent.header.flags.has(Flags::FIN) || sent.header.flags.has(Flags::ACK)
                        );
                    }
                    // Without ACK, SYN and RST nothing may change in a synchronized state.
                    if SYNCHRONIZED.contains(&state) && flags.0 & 0x16 == 0 {
                        assert_eq!(host.state(), state);
                    }
                    host.out.clear();
                    host.pass(1_000_000);
                    host.out.clear();
                }
            }
        }
    }
}

/// X03: segments that were right, with any one byte changed to anything, in every state.
#[test]
fn mutated_segments_never_break_an_invariant() {
    for state in SYNCHRONIZED {
        let mut host = Host::with(Default::default(), MTU, u32::MAX - 2, u32::MAX - 3);
        host.in_state(state);
        let mut bytes = vec![0; 32];
        let header = crate::wire::tcp::Header {
            source_port: PEER_PORT,
            destination_port: host.port,
            sequence: host.peer_isn + next(state),
            acknowledgment: host.host_isn.unwrap_or_default() + 1,
            flags: Flags::ACK | Flags::PSH,
            window: 1000,
            options: crate::wire::tcp::Options {
                timestamps: Some(Default::default()),
                ..Default::default()
            },
        };
        header.emit(&mut bytes);
        bytes.extend_from_slice(b"payload");
        assert!(Segment::parse(&bytes).is_ok());
        for at in 4..bytes.len() {
            for value in 0..=255 {
                let mut mutated = bytes.clone();
                mutated[at] = value;
                host.rx_bytes(PEER, &mutated);
                host.pass(7);
                host.out.clear();
            }
        }
    }
}
