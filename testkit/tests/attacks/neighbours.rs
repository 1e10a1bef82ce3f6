//! What anybody on the link can say: who is where (ARP, Neighbour Discovery), and who is a router.
//!
//! Whoever claims to be the client or the gateway takes their place: neither protocol has a defence,
//! and there is no such test.

use crate::forge::{self, ARP};
use crate::stage::*;
use fata_device::MacAddress;
use fata_net::Limits;
use std::net::{Ipv4Addr, Ipv6Addr};

const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const ECHO_REQUEST: u8 = 128;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const NO_MAC: MacAddress = MacAddress([0; 6]);

/// Tables that a flood fills.
fn small_tables() -> Limits {
    Limits { neighbours: 64, neighbours_unresolved: 16, ..limits() }
}

// All frames come from one card: answers to cards that no switch has heard of would go to the client
// as well, and fill his link.

/// A host on the link that is not there.
fn neighbour(number: u64) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 70 + (number % 180) as u8)
}

fn neighbour_v6(number: u64) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 9, number as u16)
}

fn send_arp(scene: &mut Scene<'_>, packet: &[u8]) {
    scene.frame(forge::ethernet(VICTIM_MAC, ATTACKER_MAC, ARP, packet));
}

/// Everybody introduces himself.
#[test]
fn arp_requests() {
    let limits = small_tables();
    let day = besiege(Siege {
        price: Price {
            answers_per_frame: 1,
            holds: vec![("neighbours", limits.neighbours as u64)],
            ..Price::default()
        },
        limits,
        ..Siege::new(&mut |scene| {
            for _ in 0..8 {
                let (number, victim) = (scene.number, (NO_MAC, VICTIM));
                send_arp(scene, &forge::arp(1, (ATTACKER_MAC, neighbour(number)), victim));
            }
        })
    });
    assert!(day.counters.arp_replies_sent > 2000 && day.counters.neighbours <= 64);
}

/// Answers that nobody asked for, news about strangers, and claims of the victim's own address: those
/// are denied once in ten seconds (RFC 5227 §2.4).
#[test]
fn arp_lies() {
    let day = besiege(Siege {
        price: Price { answers: 1, ..Price::default() },
        limits: small_tables(),
        ..Siege::new(&mut |scene| {
            for kind in 0..8 {
                let (number, victim) = (scene.number, (VICTIM_MAC, VICTIM));
                let somebody = (ATTACKER_MAC, neighbour(number));
                let packet = match kind % 4 {
                    0 => forge::arp(2, somebody, victim),
                    1 => forge::arp(1, somebody, (NO_MAC, somebody.1)),
                    2 => forge::arp(2, (ATTACKER_MAC, VICTIM), victim),
                    _ => forge::arp(1, (ATTACKER_MAC, VICTIM), (NO_MAC, VICTIM)),
                };
                send_arp(scene, &packet);
            }
        })
    });
    assert!(day.counters.dropped_arp_unsolicited > 1000 && day.counters.arp_conflicts > 1000);
}

#[test]
fn neighbour_solicitations() {
    let limits = small_tables();
    let day = besiege(Siege {
        is_ipv6: true,
        price: Price {
            answers_per_frame: 1,
            // Of each family.
            holds: vec![("neighbours", limits.neighbours as u64)],
            ..Price::default()
        },
        limits,
        ..Siege::new(&mut |scene| {
            for _ in 0..8 {
                let number = scene.number;
                let body = [&VICTIM_V6.octets()[..], &[1, 1], &ATTACKER_MAC.0].concat();
                let source = neighbour_v6(number);
                let kind = NEIGHBOUR_SOLICITATION;
                scene.packet(&forge::icmpv6(source, VICTIM_V6, kind, 0, 0, &body));
            }
        })
    });
    assert!(day.counters.ndp_advertisements_sent > 2000 && day.counters.neighbours <= 64 + 3);
}

/// Advertisements that nobody asked for, of strangers and of the victim's own address.
#[test]
fn neighbour_advertisements() {
    let day = besiege(Siege {
        is_ipv6: true,
        limits: small_tables(),
        ..Siege::new(&mut |scene| {
            for at in 0..8 {
                let number = scene.number;
                let target = if at % 2 == 0 { VICTIM_V6 } else { neighbour_v6(number) };
                let body = [&target.octets()[..], &[2, 1], &ATTACKER_MAC.0].concat();
                // Solicited and override.
                let flags = 0x6000_0000;
                let source = neighbour_v6(number);
                let kind = NEIGHBOUR_ADVERTISEMENT;
                scene.packet(&forge::icmpv6(source, VICTIM_V6, kind, 0, flags, &body));
            }
        })
    });
    assert!(day.counters.ndp_conflicts > 1000);
}

/// Pings from addresses in the prefix that nobody has: each would be asked for.
#[test]
fn a_prefix_full_of_strangers() {
    let limits = small_tables();
    let unresolved = limits.neighbours_unresolved as u64;
    let day = besiege(Siege {
        is_ipv6: true,
        price: Price {
            // Each of `neighbours_unresolved` is asked for at most once a second, the last three
            // times.
            answers: 2 * unresolved,
            answers_per_second: unresolved,
            holds: vec![
                ("neighbours", unresolved),
                ("neighbour_parked_bytes", limits.neighbour_parked_bytes as u64),
            ],
            timers: 3 * unresolved,
            ..Price::default()
        },
        limits,
        ..Siege::new(&mut |scene| {
            for _ in 0..8 {
                let number = scene.number as u16;
                let source = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 9, number);
                let packet = forge::icmpv6(source, VICTIM_V6, ECHO_REQUEST, 0, 7, &[7; 500]);
                scene.packet(&packet);
            }
        })
    });
    assert!(day.counters.dropped_neighbour_table_full > 200);
}

/// Each advertises himself as a router, with a prefix and a name server, and with the worst of what
/// may be said: hosts send packets that no router passes on, ask for neighbours each millisecond.
#[test]
fn router_advertisements() {
    let limits = limits();
    let (addresses, routers) = (limits.ipv6_addresses as u64, limits.ipv6_routers as u64);
    let day = besiege(Siege {
        is_ipv6: true,
        price: Price {
            // Of each new address: a solicitation whether it is somebody's (RFC 4862 §5.4), and, as
            // its group is joined, two reports (RFC 3810 §6.1), of all groups at four to a report. Of
            // each router, whether it hears us, three times (RFC 4861 §10, MAX_UNICAST_SOLICIT).
            answers: addresses * (1 + 2 * addresses.div_ceil(4)) + 3 * routers,
            holds: vec![
                ("ipv6_routers", routers),
                ("ipv6_prefixes", limits.ipv6_prefixes as u64),
                ("ipv6_addresses", addresses),
                ("neighbours", limits.neighbours as u64),
            ],
            // Each address comes to be used, and later is not; each router and prefix goes.
            timers: 8 * (addresses + routers + limits.ipv6_prefixes as u64),
            ..Price::default()
        },
        limits,
        ..Siege::new(&mut |scene| {
            for _ in 0..4 {
                let number = scene.number;
                let prefix = Ipv6Addr::new(0x2001, 0xdb8, 7, number as u16, 0, 0, 0, 0);
                let mut body = [0_u32, 1].map(u32::to_be_bytes).concat();
                let lifetime = 600_u32.to_be_bytes();
                body.extend([3, 4, 64, 0xc0]);
                body.extend([lifetime, lifetime, [0; 4]].concat());
                body.extend(prefix.octets());
                body.extend([25, 3, 0, 0]);
                body.extend(lifetime);
                body.extend(prefix.octets());
                body.extend([1, 1]);
                body.extend(ATTACKER_MAC.0);
                // A hop limit of 1; a router for ten minutes.
                let word = 0x0100_0000 | 600;
                let source = neighbour_v6(number);
                let packet = forge::icmpv6(source, ALL_NODES, ROUTER_ADVERTISEMENT, 0, word, &body);
                // To the group, but in a frame to one host (RFC 6085): it is not to fill other links.
                scene.packet(&packet);
            }
        })
    });
    assert!(day.counters.dropped_ra_limit > 1000);
}
