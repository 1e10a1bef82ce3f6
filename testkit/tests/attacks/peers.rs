//! Peers who have a connection and abuse it.

use crate::forge::{ACK, Segment};
use crate::peer::{Peer, Peers, say};
use crate::stage::*;
use fata_net::Limits;

/// An MSS of 1,460 and SACK.
const ORDINARY: [u8; 6] = [2, 4, 5, 180, 4, 2];
/// The segments in which the service sends its half mebibyte to one peer.
const SEGMENTS: u64 = (TRANSFER_BYTES as u64).div_ceil(1460) + 2;
/// When the program gives up who is silent, a FIN or a RST, or the last data, goes until
/// `tcp_user_timeout` of 300 s: after 200 ms at least, then twice as long each time up to 60 s.
const FAREWELLS: u64 = 13;
/// So it goes with data that is not acknowledged, and probes of a closed window, before that.
const UNACKNOWLEDGED: u64 = 13;
/// What one peer can make the victim hold of what is sent to it.
const SEND_BYTES: u64 = CONNECTION_BYTES as u64 / 2;

/// Those of `peers` who have a connection, one after the other, eight in a millisecond.
fn eight<'a>(peers: &'a Peers, scene: &Scene<'_>) -> Vec<&'a Peer> {
    let ready: Vec<&Peer> = peers.all.iter().filter(|peer| peer.is_established).collect();
    let start = scene.number as usize;
    (0..8).filter_map(|at| ready.get((start + at) % ready.len().max(1)).copied()).collect()
}

/// `count` peers who ask for the half mebibyte.
fn askers(count: u16, window: u16, options: &[u8]) -> Peers {
    let mut peers = Peers::new(count, PORT);
    (peers.window, peers.options, peers.request) = (window, options.to_vec(), REQUEST.to_vec());
    peers
}

/// What `count` of them cost who answers.
fn price(count: u64) -> Price {
    Price {
        // What was asked for; for each acknowledgement, whatever it says, a segment more than what it
        // says has arrived may go (RFC 6937 §3), or one for which it opens the window, or a
        // challenge; and probes of closed windows.
        answers: count * (SEGMENTS + UNACKNOWLEDGED + FAREWELLS),
        answers_per_frame: 1,
        holds: vec![
            ("tcp_connections", count),
            ("tcp_half_open", count),
            ("tcp_buffered_bytes", count * SEND_BYTES),
        ],
        timers: count * (UNACKNOWLEDGED + FAREWELLS),
        ..Price::default()
    }
}

/// Blocks of what has not arrived, and of what was never sent; acknowledgements of what cannot have
/// arrived, and back again.
#[test]
fn lies_about_what_arrived() {
    let count = 4;
    let mut peers = askers(count, 65_535, &ORDINARY);
    let count = u64::from(count);
    let day = besiege(Siege {
        price: price(count),
        ..Siege::new(&mut |scene| {
            peers.turn(scene);
            peers.connect(scene, 1);
            for peer in eight(&peers, scene) {
                let mut segment = peer.segment(ACK, 65_535);
                let back = scene.dice.below(4000) as u32;
                segment.acknowledgment = match scene.dice.below(8) {
                    0 => peer.theirs.wrapping_add(1460 * (1 + back % 8)),
                    1 => peer.theirs,
                    _ => peer.theirs.wrapping_sub(back),
                };
                segment.options = vec![1, 1, 5, 26];
                for _ in 0..3 {
                    let start = peer
                        .theirs
                        .wrapping_add(5_000)
                        .wrapping_sub(scene.dice.below(20_000) as u32);
                    let end = start.wrapping_add(scene.dice.below(3000) as u32);
                    segment.options.extend([start, end].map(u32::to_be_bytes).concat());
                }
                say(scene, &segment);
            }
        })
    });
    assert!(day.counters.tcp_sack_invalid > 50 && day.counters.tcp_challenges_limited > 100);
}

/// Segments of a byte each would cost forty of header for one: `PEER_MSS_MIN` is 216.
#[test]
fn tiny_segments() {
    let count = 2;
    let mut peers = askers(count, 65_535, &[2, 4, 0, 1, 4, 2]);
    let count = u64::from(count);
    besiege(Siege {
        price: Price {
            answers: count * (TRANSFER_BYTES as u64 / 216 + 2 + UNACKNOWLEDGED + FAREWELLS),
            holds: vec![
                ("tcp_connections", count),
                ("tcp_half_open", count),
                ("tcp_buffered_bytes", count * SEND_BYTES),
            ],
            timers: count * (UNACKNOWLEDGED + FAREWELLS),
            ..Price::default()
        },
        ..Siege::new(&mut |scene| {
            peers.turn(scene);
            peers.connect(scene, 1);
            for peer in eight(&peers, scene) {
                say(scene, &peer.segment(ACK, 65_535));
            }
        })
    });
}

/// A window that is closed, one of a byte, and ones that are taken back.
#[test]
fn window_tricks() {
    for (windows, is_closed) in
        [([0, 0], true), ([1, 1], false), ([65_535, 0], true), ([20_000, 3], false)]
    {
        let count = 20;
        let mut peers = askers(count, windows[0], &ORDINARY);
        let count = u64::from(count);
        let day = besiege(Siege {
            price: price(count),
            ..Siege::new(&mut |scene| {
                peers.turn(scene);
                peers.connect(scene, 1);
                let start = scene.number as usize;
                for (at, peer) in eight(&peers, scene).into_iter().enumerate() {
                    say(scene, &peer.segment(ACK, windows[(start + at) / 7 % 2]));
                }
            })
        });
        assert_eq!(day.counters.tcp_probes_sent > 0, is_closed);
    }
}

/// As many closed windows as it takes to hold all memory that there is for connections.
#[test]
fn closed_windows_until_memory_is_short() {
    until_memory_is_short(0);
}

/// Windows of a byte, and each byte is acknowledged: sockstress.
#[test]
fn windows_of_a_byte_until_memory_is_short() {
    until_memory_is_short(1);
}

fn until_memory_is_short(window: u16) {
    let limits = Limits { tcp_total_bytes: 4 << 20, ..limits() };
    let total = limits.tcp_total_bytes as u64;
    let count = 60;
    let mut peers = askers(count, window, &ORDINARY);
    let count = u64::from(count);
    let day = besiege(Siege {
        is_client_first: true,
        price: Price {
            answers: count * (SEGMENTS + UNACKNOWLEDGED + FAREWELLS),
            answers_per_frame: 1,
            holds: vec![
                ("tcp_connections", count),
                ("tcp_half_open", count),
                ("tcp_buffered_bytes", total - CONNECTION_BYTES as u64),
            ],
            timers: count * (UNACKNOWLEDGED + FAREWELLS),
            ..Price::default()
        },
        // What is left are buffers of 16 KiB (`LAST_RING_MAX`): one goes in a round trip of 17 ms,
        // or of 62 ms while the client's own data fills its link, and perhaps a delayed ACK of 40 ms
        // (`ACK_DELAY`); there are 32.
        share_percent: 12,
        limits,
        ..Siege::new(&mut |scene| {
            peers.turn(scene);
            peers.connect(scene, 4);
            for peer in eight(&peers, scene) {
                say(scene, &peer.segment(ACK, window));
            }
        })
    });
    assert_eq!((day.counters.tcp_opened_passive, day.counters.tcp_buffered_bytes), (count + 2, 0));
}

/// Every second byte of the window, one in a segment: what costs most to remember.
#[test]
fn crumbs_out_of_order() {
    let limits = limits();
    let count = 10;
    let ranges = u64::from(count) * limits.tcp_out_of_order_ranges as u64;
    let mut peers = askers(count, 65_535, &ORDINARY);
    peers.request.clear();
    let count = u64::from(count);
    let mut crumb = 0;
    let day = besiege(Siege {
        price: Price {
            // Each is acknowledged at once (RFC 5681 §4.2).
            answers: count * FAREWELLS,
            answers_per_frame: 1,
            holds: vec![
                ("tcp_connections", count),
                ("tcp_half_open", count),
                ("tcp_out_of_order_ranges", ranges),
                ("tcp_buffered_bytes", count * limits.tcp_receive_bytes as u64),
            ],
            timers: count * FAREWELLS,
            ..Price::default()
        },
        limits,
        ..Siege::new(&mut |scene| {
            peers.turn(scene);
            peers.connect(scene, 1);
            for peer in eight(&peers, scene) {
                crumb += 2;
                let offset = crumb / 20 * 2 % 60_000;
                let sequence = peer.next.wrapping_add(2 + offset);
                say(scene, &Segment { sequence, data: vec![b'x'], ..peer.segment(ACK, 65_535) });
            }
        })
    });
    assert!(day.counters.tcp_out_of_order > 2000);
    // The farthest goes when there are too many; what never fits is what the counter counts.
    assert!(day.counters.dropped_tcp_no_room > 0, "the limit is met");
}
