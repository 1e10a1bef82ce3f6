//! Pieces of datagrams that do not fit together, or never become whole.

use crate::forge::{self, MORE_FRAGMENTS};
use crate::stage::*;
use std::net::{IpAddr, Ipv6Addr};

/// A piece as an attack wants it.
struct Piece {
    source: u64,
    identification: u32,
    offset: u16,
    more: bool,
    len: usize,
}

fn send(scene: &mut Scene<'_>, is_ipv6: bool, piece: &Piece) {
    let payload = vec![scene.number as u8; piece.len];
    if is_ipv6 {
        let source = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 1, piece.source as u16);
        let Piece { identification, offset, more, .. } = *piece;
        let fragment = forge::ipv6_fragment(forge::UDP, offset, more, identification, &payload);
        let packet = forge::ipv6(source, VICTIM_V6, forge::IPV6_FRAGMENT, 64, &fragment);
        scene.packet(&packet);
    } else {
        let IpAddr::V4(source) = stranger(piece.source) else { return };
        let field = (piece.offset / 8) | if piece.more { MORE_FRAGMENTS } else { 0 };
        let id = (piece.identification as u16, field);
        scene.packet(&forge::ipv4(source, VICTIM, forge::UDP, id, &payload));
    }
}

/// Eight pieces in a millisecond.
fn pieces(is_ipv6: bool, piece: impl Fn(&mut Scene<'_>) -> Piece) -> Day {
    let limits = limits();
    let datagrams = limits.reassembly_datagrams as u64;
    besiege(Siege {
        is_ipv6,
        price: Price {
            // Those that are left when their time is over, if their first piece is there (RFC 792,
            // RFC 4443 §3.3).
            answers: datagrams,
            holds: vec![
                ("reassembly_bytes", limits.reassembly_bytes as u64),
                ("reassembly_datagrams", datagrams),
            ],
            timers: datagrams,
            ..Price::default()
        },
        limits,
        ..Siege::new(&mut |scene| {
            for _ in 0..8 {
                let piece = piece(scene);
                send(scene, is_ipv6, &piece);
            }
        })
    })
}

/// Teardrop and its like: each datagram in pieces that overlap, from a few.
#[test]
fn fragments_that_overlap() {
    for is_ipv6 in [false, true] {
        let day = pieces(is_ipv6, |scene| Piece {
            source: scene.number / 4 % 16,
            identification: scene.number as u32 / 4,
            offset: 8 * scene.dice.below(4) as u16,
            more: scene.number % 4 < 3,
            len: 8 * (1 + scene.dice.below(100) as usize),
        });
        assert!(day.counters.dropped_fragment_overlap > 1000);
        assert!(day.counters.dropped_fragment_limit > 200);
    }
}

/// A first piece of a datagram each, from everybody.
#[test]
fn first_fragments_without_end() {
    for is_ipv6 in [false, true] {
        let day = pieces(is_ipv6, |scene| Piece {
            source: scene.number,
            identification: scene.number as u32,
            offset: 0,
            more: true,
            len: 1400,
        });
        assert!(day.counters.dropped_fragment_limit > 2000);
    }
}

/// The far end of a datagram each, so that a table that made room for the rest would be full at once.
#[test]
fn last_fragments_without_end() {
    for is_ipv6 in [false, true] {
        let day = pieces(is_ipv6, |scene| Piece {
            source: scene.number % 100,
            identification: scene.number as u32,
            offset: 65_000,
            more: false,
            len: 8 + (scene.number % 100) as usize,
        });
        assert!(day.counters.dropped_fragment_limit > 2000);
    }
}
