//! Many who want something: connections, answers, room in a queue.

use crate::forge::{self, ACK, SYN, Segment};
use crate::peer::Peers;
use crate::stage::*;
use fata_net::{Counters, Limits};
use std::net::{IpAddr, Ipv4Addr};

/// SYN-ACKs of a half-open connection beside the first, and how often it is looked at: after 1, 3, 7,
/// 15, 31 and 63 s (`TRIES_MAX` of the engine's `half_open.rs`).
const SYN_ACKS_AGAIN: u64 = 5;
const HALF_OPEN_TIMERS: u64 = SYN_ACKS_AGAIN + 1;

/// What one listener may have of `tcp_half_open`: a half.
const fn half_open_of_listener(limits: &Limits) -> u64 {
    limits.tcp_half_open as u64 / 2
}

fn syn(scene: &mut Scene<'_>, from: IpAddr) {
    let segment = Segment {
        source_port: 1024 + (scene.number % 60_000) as u16,
        destination_port: PORT,
        sequence: scene.dice.roll() as u32,
        flags: SYN,
        window: 65_535,
        ..Segment::default()
    };
    scene.packet(&segment.packet(from, VICTIM.into()));
}

/// The honest client connects when the half of the table that one listener may use is full, and gets
/// in with a cookie.
#[test]
fn syns_from_strangers() {
    let limits = limits();
    let half_open = half_open_of_listener(&limits);
    let day = besiege(Siege {
        price: Price {
            // A cookie for each, but what is remembered is answered again; and the gateway, as it is
            // in use, is asked once in 30 s whether it is there (`CONFIRM_AFTER`).
            answers_per_frame: 1,
            answers: half_open * SYN_ACKS_AGAIN + 4,
            holds: vec![("tcp_half_open", half_open)],
            timers: half_open * HALF_OPEN_TIMERS,
            ..Price::default()
        },
        limits,
        ..Siege::new(&mut |scene| (0..8).for_each(|_| syn(scene, stranger(scene.number))))
    });
    assert!(day.counters.tcp_cookies_sent > 1000 && day.counters.tcp_cookies_accepted == 1);
    assert_eq!(day.counters.tcp_half_open_timeouts, half_open);
}

/// The same from addresses on the link that nobody has.
#[test]
fn syns_from_neighbours_who_are_not_there() {
    let limits = limits();
    let half_open = half_open_of_listener(&limits);
    let unresolved = limits.neighbours_unresolved as u64;
    let day = besiege(Siege {
        price: Price {
            // `neighbours_unresolved` are asked for in a second. When SYN-ACKs are sent again, those
            // that are not asked for are asked for again, three times each.
            answers_per_second: unresolved,
            answers: unresolved * 3 * SYN_ACKS_AGAIN,
            holds: vec![
                ("tcp_half_open", half_open),
                ("neighbours", unresolved),
                ("neighbour_parked_bytes", limits.neighbour_parked_bytes as u64),
            ],
            timers: half_open * HALF_OPEN_TIMERS,
            ..Price::default()
        },
        limits,
        ..Siege::new(&mut |scene| {
            for _ in 0..4 {
                let last = 70 + (scene.number % 180) as u8;
                syn(scene, Ipv4Addr::new(192, 0, 2, last).into());
            }
        })
    });
    assert!(day.counters.neighbour_failures > unresolved);
}

/// Whoever gets in and then says nothing. The program accepts him: up to `tcp_connections`.
#[test]
fn connections_that_are_accepted_and_left_idle() {
    let limits = Limits { tcp_connections: 400, ..limits() };
    let most = limits.tcp_connections as u64;
    let mut peers = Peers::new(800, PORT);
    let day = besiege(Siege {
        is_client_first: true,
        price: Price {
            // A SYN-ACK each, and in the end a FIN, which nobody acknowledges: sent again after
            // 200 ms at least, then twice as long each time up to 60 s, until `tcp_user_timeout` of
            // 300 s: 12 times. Before the last, the neighbour is asked whether he is there.
            answers_per_frame: 1,
            answers: most * 13 + 16,
            // Four begin in a millisecond, and it takes them one more to end the handshake.
            holds: vec![("tcp_connections", most), ("tcp_half_open", 8)],
            timers: most * 13,
            ..Price::default()
        },
        limits,
        ..Siege::new(&mut |scene| {
            peers.turn(scene);
            peers.connect(scene, 4);
        })
    });
    assert!(day.counters.tcp_connections_refused > 300);
    assert!(peers.established() > 390);
}

/// Whoever gets in where the program never accepts: up to the listener's queue, and then the half of
/// the half-open table.
#[test]
fn connections_that_nobody_accepts() {
    let limits = Limits { tcp_accept_backlog: 64, ..limits() };
    let backlog = limits.tcp_accept_backlog as u64;
    let half_open = half_open_of_listener(&limits);
    let mut peers = Peers::new(1000, IDLE_PORT);
    let day = besiege(Siege {
        price: Price {
            // When the listener is closed, those in its queue are reset.
            answers_per_frame: 1,
            answers: backlog + half_open * SYN_ACKS_AGAIN,
            holds: vec![("tcp_connections", backlog), ("tcp_half_open", half_open)],
            timers: half_open * HALF_OPEN_TIMERS,
            ..Price::default()
        },
        limits,
        ..Siege::new(&mut |scene| {
            peers.turn(scene);
            peers.connect(scene, 4);
        })
    });
    assert!(day.counters.tcp_accept_queue_full > 400);
}

/// An attack that is answered at some rate, or not at all.
struct Flood {
    per_second: u32,
    holds: Vec<(&'static str, u64)>,
    /// What shows that the limit was reached.
    limited: fn(&Counters) -> u64,
}

impl Flood {
    /// Eight frames in a millisecond.
    fn begin(self, packet: impl Fn(&mut Scene<'_>, IpAddr) -> Vec<u8>) {
        let day = besiege(Siege {
            price: Price {
                answers_per_second: self.per_second.into(),
                holds: self.holds,
                ..Price::default()
            },
            ..Siege::new(&mut |scene| {
                for _ in 0..8 {
                    let bytes = packet(scene, stranger(scene.number));
                    scene.packet(&bytes);
                }
            })
        });
        let limited = (self.limited)(&day.counters);
        assert!(limited > 2000, "{limited} frames met the limit");
    }
}

#[test]
fn datagrams_to_a_closed_port() {
    let limited = |counters: &Counters| counters.icmp_errors_limited;
    let per_second = limits().icmp_errors_per_second;
    Flood { per_second, holds: vec![], limited }.begin(|_, from| {
        let datagram = forge::udp((from, 4000), (VICTIM.into(), 9999), &[7; 600]);
        forge::ip(from, VICTIM.into(), forge::UDP, &datagram)
    });
}

#[test]
fn datagrams_to_a_socket_that_nobody_reads() {
    let limited = |counters: &Counters| counters.dropped_udp_queue;
    let holds = vec![("udp_queued_bytes", limits().udp_receive_bytes as u64)];
    Flood { per_second: 0, holds, limited }.begin(|scene, from| {
        let len = [0, 1, 600, 1400][scene.number as usize % 4];
        let datagram = forge::udp((from, 4000), (VICTIM.into(), DATAGRAM_PORT), &vec![7; len]);
        forge::ip(from, VICTIM.into(), forge::UDP, &datagram)
    });
}

#[test]
fn pings() {
    let limited = |counters: &Counters| counters.icmp_echo_replies_limited;
    let per_second = limits().icmp_echo_replies_per_second;
    Flood { per_second, holds: vec![], limited }.begin(|scene, from| {
        let message = forge::icmp(8, 0, scene.number as u32, &[7; 1000]);
        forge::ip(from, VICTIM.into(), forge::ICMP, &message)
    });
}

#[test]
fn segments_of_no_connection() {
    let limited = |counters: &Counters| counters.tcp_replies_limited;
    let per_second = limits().tcp_resets_per_second;
    Flood { per_second, holds: vec![], limited }.begin(|scene, from| {
        let kinds = [(PORT, ACK), (4000, ACK), (4000, SYN), (PORT, SYN | ACK)];
        let (port, flags) = kinds[scene.number as usize % kinds.len()];
        let segment = Segment {
            source_port: 1 + scene.number as u16,
            destination_port: port,
            sequence: scene.dice.roll() as u32,
            acknowledgment: scene.dice.roll() as u32,
            flags,
            ..Segment::default()
        };
        segment.packet(from, VICTIM.into())
    });
}
