//! Somebody who is not on the way between the two and forges what one of them says. He knows the
//! addresses and ports, and guesses the numbers, as well as that can be done.

use crate::forge::{self, ACK, RST, SYN, Segment};
use crate::sight::Sight;
use crate::stage::*;
use std::net::IpAddr;

/// Challenge ACKs of a connection: 10 in five seconds (RFC 5961 §7; `CHALLENGES_MAX` of the engine's
/// `connection/input.rs`). An attack of less than five seconds can meet two such periods.
const CHALLENGES: u64 = 20;
/// Answers in a second to segments outside of the window that carry nothing (`ANSWER_INTERVAL`).
const ANSWERS_PER_SECOND: u64 = 2;

/// A number in the window behind what the client has sent, but not exactly the next.
fn in_window(scene: &mut Scene<'_>, sight: Sight) -> u32 {
    sight.next.wrapping_add(1 + scene.dice.below(CONNECTION_BYTES as u64 / 4) as u32)
}

/// Who the honest connection's ends are.
fn ends(is_ipv6: bool) -> (IpAddr, IpAddr) {
    match is_ipv6 {
        true => (CLIENT_V6.into(), VICTIM_V6.into()),
        false => (CLIENT.into(), VICTIM.into()),
    }
}

/// Eight segments in a millisecond that the client has not sent: of all `flags` in turn, in the
/// window and anywhere.
fn spray(price: Price, is_ipv6: bool, flags: &[u8], data: &[u8]) -> Day {
    let (client, victim) = ends(is_ipv6);
    besiege(Siege {
        is_ipv6,
        price,
        ..Siege::new(&mut |scene| {
            let Some(sight) = scene.honest() else { return };
            for number in 0..8 {
                let anywhere = scene.dice.roll() as u32;
                let sequence = if number % 2 == 0 { in_window(scene, sight) } else { anywhere };
                let mut segment = Segment {
                    source_port: sight.port,
                    destination_port: PORT,
                    sequence,
                    acknowledgment: scene.dice.roll() as u32,
                    flags: flags[number / 2 % flags.len()],
                    window: 65_535,
                    data: data.to_vec(),
                    ..Segment::default()
                };
                if number < 4 {
                    // Half of them are old (RFC 7323 §5.3).
                    segment = segment.with_timestamps((scene.dice.roll() as u32, 0));
                }
                scene.packet(&segment.packet(client, victim));
            }
        })
    })
}

#[test]
fn resets_over_the_window() {
    for is_ipv6 in [false, true] {
        let price = Price { answers: CHALLENGES, ..Price::default() };
        let day = spray(price, is_ipv6, &[RST, RST | ACK], b"");
        assert!(day.counters.tcp_challenges_limited > 500);
        assert_eq!(day.counters.tcp_resets_received, 0);
    }
}

#[test]
fn syns_over_the_window() {
    let price = Price { answers: CHALLENGES, ..Price::default() };
    let day = spray(price, false, &[SYN, SYN | ACK], b"");
    assert!(day.counters.tcp_challenges_limited > 500);
}

/// Data in the window with a wrong acknowledgement gets a challenge. What is outside, or old, may be
/// a retransmission whose acknowledgement was lost, and must get one (RFC 9293 §3.10.7.4).
#[test]
fn data_over_the_window() {
    let price = Price { answers: CHALLENGES, answers_per_frame: 1, ..Price::default() };
    let day = spray(price, false, &[ACK], &[b'!'; 1000]);
    assert!(day.counters.tcp_challenges_limited > 100);
    assert!(day.counters.tcp_unacceptable > 100 && day.counters.tcp_timestamp_missing > 1000);
}

#[test]
fn acknowledgements_out_of_step() {
    let price =
        Price { answers: CHALLENGES, answers_per_second: ANSWERS_PER_SECOND, ..Price::default() };
    let day = spray(price, false, &[ACK], b"");
    assert!(day.counters.tcp_challenges_limited > 500);
}

/// The client is in TIME-WAIT when somebody begins a connection in his name. He answers the SYN-ACK, as
/// he must, and is answered: neither may do so without end.
#[test]
fn syns_in_the_name_of_who_has_gone() {
    let mut port = None;
    besiege(Siege {
        price: Price {
            // SYN-ACKs of one handshake, and two answers a second until it ends after 63 s.
            answers: 6 + ANSWERS_PER_SECOND * 63,
            holds: vec![("tcp_half_open", 1)],
            // As many of the client's.
            timers: 2 * (6 + ANSWERS_PER_SECOND * 63),
            ..Price::default()
        },
        ..Siege::new(&mut |scene| {
            let honest = scene.honest().map(|sight| sight.port);
            port = honest.or(port);
            let (None, Some(source_port)) = (honest, port) else { return };
            for _ in 0..8 {
                let sequence = scene.dice.roll() as u32;
                let (destination_port, flags) = (PORT, SYN);
                let syn = Segment {
                    source_port,
                    destination_port,
                    sequence,
                    flags,
                    ..Segment::default()
                };
                scene.packet(&syn.packet(CLIENT.into(), VICTIM.into()));
            }
        })
    });
}

/// Both ends of a connection are made to disagree: each gets a byte that the other has not sent. Each
/// tells the other that he is wrong, and would for ever (Joncheray, *A simple active attack against
/// TCP*, 1995). Old acknowledgements of both, mirrored, keep it going.
#[test]
fn acknowledgements_without_end() {
    let mut is_injected = false;
    let day = besiege(Siege {
        price: Price {
            // Each end has both kinds of answers, and the victim's answer to the client's counts.
            // When the connection is given up the client's FIN comes 12 times, and is answered.
            answers: CHALLENGES + 12,
            answers_per_second: ANSWERS_PER_SECOND,
            ..Price::default()
        },
        ..Siege::new(&mut |scene| {
            let Some(sight) = scene.sights.get(&IDLE_PORT).copied() else { return };
            let of_client = Segment {
                source_port: sight.port,
                destination_port: IDLE_PORT,
                sequence: sight.next,
                acknowledgment: sight.expected,
                flags: ACK,
                window: 1000,
                ..Segment::default()
            };
            let of_victim = Segment {
                source_port: IDLE_PORT,
                destination_port: sight.port,
                sequence: sight.expected,
                acknowledgment: sight.next,
                ..of_client.clone()
            };
            let (value, echo) = sight.timestamps;
            let of_client = of_client.with_timestamps((value, echo));
            let of_victim = of_victim.with_timestamps((echo, value));
            let ends =
                [(of_client, CLIENT, VICTIM, VICTIM_MAC), (of_victim, VICTIM, CLIENT, CLIENT_MAC)];
            for (mut segment, from, to, mac) in ends {
                let old = segment.sequence.wrapping_sub(1);
                if is_injected {
                    segment.sequence = old;
                } else {
                    segment.data = b"!".to_vec();
                }
                let packet = segment.packet(from.into(), to.into());
                scene.frame(forge::ethernet(mac, ATTACKER_MAC, forge::IPV4, &packet));
            }
            is_injected = true;
        })
    });
    assert!(day.counters.tcp_challenges_limited > 100);
}

/// What the victim is said to have sent: the beginning of a segment of the honest connection's.
fn quote(scene: &mut Scene<'_>, sight: Sight, sequence: Option<u32>) -> Segment {
    Segment {
        source_port: PORT,
        destination_port: sight.port,
        sequence: sequence.unwrap_or(scene.dice.roll() as u32),
        ..Segment::default()
    }
}

/// Errors of every kind about the honest connection, with numbers that are guessed: nothing comes of
/// any.
#[test]
fn icmp_errors_by_guess() {
    let day = besiege(Siege::new(&mut |scene| {
        let Some(sight) = scene.honest() else { return };
        for _ in 0..8 {
            let quoted = quote(scene, sight, None).packet(VICTIM.into(), CLIENT.into());
            let kind = [3, 3, 4, 5, 11, 12][scene.dice.below(6) as usize];
            let (code, mtu) = (scene.dice.below(16) as u8, scene.dice.below(1500) as u32);
            let message = forge::icmp(kind, code, mtu, &quoted[..28]);
            let from = stranger(scene.number);
            scene.packet(&forge::ip(from, VICTIM.into(), forge::ICMP, &message));
        }
    }));
    assert_eq!(day.counters.path_mtu_lowered, 0);
    assert!(day.counters.dropped_icmp_unmatched > 500 && day.counters.dropped_icmp_type > 200);
}

#[test]
fn icmpv6_errors_by_guess() {
    let day = besiege(Siege {
        is_ipv6: true,
        ..Siege::new(&mut |scene| {
            let Some(sight) = scene.honest() else { return };
            for _ in 0..8 {
                let quoted = quote(scene, sight, None).packet(VICTIM_V6.into(), CLIENT_V6.into());
                let kind = [1, 2, 2, 3, 4][scene.dice.below(5) as usize];
                let (code, mtu) = (scene.dice.below(8) as u8, scene.dice.below(1500) as u32);
                let from = "2001:db8::bad".parse().unwrap();
                let packet = forge::icmpv6(from, VICTIM_V6, kind, code, mtu, &quoted);
                scene.packet(&packet);
            }
        })
    });
    assert_eq!(day.counters.path_mtu_lowered, 0);
    assert!(day.counters.dropped_icmp_unmatched > 500);
}

/// Errors about what is in flight, as if the attacker had guessed that: hard ones, and ones that say
/// that packets of 68 bytes are too big. The connection goes on, with packets of 552 bytes (1,280 over
/// IPv6), and what was in flight goes once more.
#[test]
fn icmp_errors_that_know_the_numbers() {
    // `path_mtu::IPV4_MIN` and RFC 8200 §5, without the headers of IP, TCP and timestamps.
    for (is_ipv6, payload) in [(false, 552 - 52), (true, 1280 - 72)] {
        let (client, victim) = ends(is_ipv6);
        let day = besiege(Siege {
            is_ipv6,
            price: Price {
                // What the server sends in smaller segments, and what may be in flight of it again.
                answers: ((TRANSFER_BYTES + CONNECTION_BYTES / 2) / payload) as u64,
                holds: vec![("path_mtus", 1)],
                ..Price::default()
            },
            // A tenth for headers of 66 bytes (86) for each 500 (1,208) and not 1,448 (1,428), and a round trip
            // for what goes again, beside what always may be.
            share_percent: 75,
            ..Siege::new(&mut |scene| {
                let Some(sight) = scene.honest() else { return };
                for number in 0..8_u32 {
                    let sequence = sight.expected.wrapping_add(1448 * number);
                    let quoted = quote(scene, sight, Some(sequence)).packet(victim, client);
                    let mtu = if is_ipv6 { 1280 } else { 68 };
                    if is_ipv6 {
                        let (kind, code) = [(2, 0), (1, 1), (1, 4), (4, 1)][number as usize % 4];
                        let from = "2001:db8::bad".parse().unwrap();
                        let packet = forge::icmpv6(from, VICTIM_V6, kind, code, mtu, &quoted);
                        scene.packet(&packet);
                    } else {
                        let code = [2, 3, 4, 13][number as usize % 4];
                        let message = forge::icmp(3, code, mtu, &quoted[..28]);
                        let from = stranger(scene.number);
                        scene.packet(&forge::ip(from, victim, forge::ICMP, &message));
                    }
                }
            })
        });
        assert_eq!(day.counters.path_mtu_lowered, 1, "it can be guessed right here");
    }
}

/// A datagram's errors need no number: about whoever was never written to, they fill a table; about
/// the client, they make the segments of his next connection small.
#[test]
fn icmp_errors_about_datagrams() {
    let limits = limits();
    let day = besiege(Siege {
        price: Price {
            answers: (TRANSFER_BYTES / (552 - 52)) as u64,
            holds: vec![("path_mtus", limits.path_mtus as u64)],
            // Each is forgotten at its time.
            timers: limits.path_mtus as u64,
            ..Price::default()
        },
        // A tenth for headers, as above; slow start begins with segments a third as large, and needs two
        // round trips more.
        share_percent: 75,
        limits,
        ..Siege::new(&mut |scene| {
            for _ in 0..8 {
                let is_about_client = scene.number % 8 == 0;
                let about = if is_about_client { CLIENT.into() } else { stranger(scene.number) };
                let datagram = forge::udp((VICTIM.into(), DATAGRAM_PORT), (about, 4000), b"");
                let quoted = forge::ip(VICTIM.into(), about, forge::UDP, &datagram);
                let message = forge::icmp(3, 4, 68, &quoted);
                let from = stranger(scene.number);
                scene.packet(&forge::ip(from, VICTIM.into(), forge::ICMP, &message));
            }
        })
    });
    assert!(day.counters.path_mtu_lowered > 1000);
}
