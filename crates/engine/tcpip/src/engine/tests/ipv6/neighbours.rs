//! Neighbours: asked for, believed, doubted, forgotten.

use super::*;
use crate::ipv6::NeighbourState as State;

fn state(host: &Host, address: Ipv6Addr) -> Option<(State, MacAddress)> {
    host.engine.ipv6.as_ref().unwrap().neighbours.state(host.now, address)
}

fn solicitations(frames: &[Vec<u8>]) -> Vec<Sent6> {
    messages(frames, icmpv6::NEIGHBOUR_SOLICITATION)
}

/// Pitfall N06.
#[test]
fn a_packet_asks_for_its_next_hop_from_its_own_source() {
    let mut host = host6();
    let socket = host.bind(9);
    host.sent();
    host.udp_send6(socket, P6, b"x");
    let asked = solicitations(&host.sent());
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].source, asked[0].destination), (H6, ndp::solicited_node(P6)));
    assert_eq!((asked[0].to, asked[0].hop_limit), (ndp::group_mac(ndp::solicited_node(P6)), 255));
    assert_eq!(target_of(&asked[0]), P6);
    // Off the link: the router is asked for.
    host.receive(&Ra { options: vec![], ..Ra::new() }.frame());
    host.udp_send6(socket, FAR, b"x");
    let asked = solicitations(&host.sent());
    assert_eq!((asked.len(), target_of(&asked[0])), (1, R6));
    assert_eq!(asked[0].source, H6);
    // Three times, a second apart; then it is over.
    let more = host.advance(secs(10));
    let of_p: Vec<_> = more
        .iter()
        .filter(|(_, frame)| {
            let asked = solicitations(std::slice::from_ref(frame));
            asked.first().is_some_and(|asked| target_of(asked) == P6)
        })
        .collect();
    assert_eq!(of_p.len(), 2);
    assert_eq!(of_p[1].0.saturating_since(of_p[0].0), secs(1));
    assert_eq!(state(&host, P6), None);
}

/// Pitfalls A02, N06.
#[test]
fn packets_wait_for_their_neighbour_and_the_last_of_each_leaves() {
    let mut host = host6();
    let socket = host.bind(9);
    let other = Ipv6Addr::from_bits(P6.to_bits() + 1);
    for number in 0..100u8 {
        host.udp_send6(socket, P6, &[number]);
        host.udp_send6(socket, other, &[number]);
        host.sent();
    }
    let other_mac = MacAddress([2, 0, 0, 0, 0, 3]);
    let flags = ndp::FLAG_SOLICITED | ndp::FLAG_OVERRIDE;
    host.receive(&advertisement(P_MAC, P6, H6, flags));
    host.receive(&advertisement(other_mac, other, H6, flags));
    let sent: Vec<Sent6> = host.sent().iter().filter_map(|frame| sent6(frame)).collect();
    for (address, mac) in [(P6, P_MAC), (other, other_mac)] {
        let last = sent.iter().rfind(|sent| sent.destination == address).unwrap();
        assert_eq!((last.payload[8], last.to), (99, mac));
    }
    assert_eq!(host.counters().neighbour_parked_bytes, 0);
}

/// Pitfall N07.
#[test]
fn a_stale_neighbour_is_used_then_asked_then_given_up() {
    let mut host = host6();
    let socket = host.bind(9);
    host.introduce6(P6, P_MAC);
    assert_eq!(state(&host, P6), Some((State::Stale, P_MAC)));
    assert_eq!(host.sends_to(socket, P6).unwrap().to, P_MAC);
    assert_eq!(state(&host, P6), Some((State::Delay, P_MAC)));
    let asked = host.advance(ms(4_999));
    assert!(solicitations(&frames(asked)).is_empty());
    let asked = host.advance(ms(1));
    let asked = solicitations(&frames(asked));
    assert_eq!((asked[0].to, asked[0].destination), (P_MAC, P6), "asked itself, not its group");
    // It answers.
    host.receive(&advertisement(P_MAC, P6, H6, ndp::FLAG_SOLICITED));
    assert!(matches!(state(&host, P6), Some((State::Reachable { .. }, P_MAC))));
    // 15 s to 45 s later nobody knows, and it is asked again; this time in vain.
    host.advance(secs(46));
    assert!(host.sends_to(socket, P6).is_some());
    let asked = frames(host.advance(secs(9)));
    assert_eq!(solicitations(&asked).len(), 3);
    assert_eq!(state(&host, P6), None);
    // The next packet asks the group.
    host.udp_send6(socket, P6, b"x");
    assert_eq!(solicitations(&host.sent())[0].destination, ndp::solicited_node(P6));
}

/// Pitfall N07.
#[test]
fn progress_of_tcp_spares_the_questions() {
    let mut host = host6();
    host.introduce6(P6, P_MAC);
    let ipv6 = host.engine.ipv6.as_mut().unwrap();
    ipv6.neighbours.confirm(host.now, P6);
    assert!(matches!(state(&host, P6), Some((State::Reachable { .. }, _))));
    let socket = host.bind(9);
    let mut asked = 0;
    for _ in 0..100 {
        assert!(host.sends_to(socket, P6).is_some());
        host.engine.ipv6.as_mut().unwrap().neighbours.confirm(host.now, P6);
        asked += solicitations(&frames(host.advance(secs(7)))).len();
    }
    assert_eq!(asked, 0);
    // What is unknown is not made known by it.
    host.engine.ipv6.as_mut().unwrap().neighbours.confirm(host.now, FAR);
    assert_eq!(state(&host, FAR), None);
}

/// Pitfall N05: the table of RFC 4861 §7.2.5, each state with each set of flags.
#[test]
fn advertisements_change_what_the_table_says_they_change() {
    let other_mac = MacAddress([2, 0, 0, 0, 0, 3]);
    for in_state in ["incomplete", "reachable", "stale", "delay", "probe", "none"] {
        for flags in (0..8u8).map(|bits| bits << 5) {
            for (mac, is_other) in [(P_MAC, false), (other_mac, true)] {
                let mut host = host6();
                let socket = host.bind(9);
                match in_state {
                    "none" => {}
                    "incomplete" => host.udp_send6(socket, P6, b"x"),
                    _ => host.introduce6(P6, P_MAC),
                }
                match in_state {
                    "reachable" => {
                        host.receive(&advertisement(P_MAC, P6, H6, ndp::FLAG_SOLICITED));
                    }
                    "delay" | "probe" => {
                        host.sends_to(socket, P6).unwrap();
                        host.advance(if in_state == "probe" { ms(5_100) } else { secs(1) });
                    }
                    _ => {}
                }
                host.sent();
                let before = state(&host, P6);
                // A group is never told that it asked.
                host.receive(&advertisement(mac, P6, H6, flags));
                let after = state(&host, P6);
                let (solicited, overrides) =
                    (flags & ndp::FLAG_SOLICITED != 0, flags & ndp::FLAG_OVERRIDE != 0);
                let name = format!("{in_state} {flags:x} {is_other}: {before:?} {after:?}");
                let is_reachable =
                    |mac| matches!(after, Some((State::Reachable { .. }, known)) if known == mac);
                match in_state {
                    "none" => assert_eq!(after, None, "{name}"),
                    "incomplete" if solicited => assert!(is_reachable(mac), "{name}"),
                    // The packet that waited is sent to a stale entry.
                    "incomplete" => assert_eq!(after, Some((State::Delay, mac)), "{name}"),
                    "reachable" if is_other && !overrides => {
                        assert_eq!(after, Some((State::Stale, P_MAC)), "{name}");
                    }
                    _ if is_other && !overrides => assert_eq!(after, before, "{name}"),
                    _ if solicited => assert!(is_reachable(mac), "{name}"),
                    _ if is_other => assert_eq!(after, Some((State::Stale, mac)), "{name}"),
                    _ => assert_eq!(after, before, "{name}"),
                }
            }
        }
    }
}

/// Pitfall N05.
#[test]
fn a_router_that_says_it_is_none_is_none() {
    let mut host = host6();
    host.receive(&Ra::new().frame());
    assert_eq!(host.counters().ipv6_routers, 1);
    host.receive(&advertisement(R_MAC, R6, H6, ndp::FLAG_SOLICITED | ndp::FLAG_ROUTER));
    assert_eq!(host.counters().ipv6_routers, 1);
    host.receive(&advertisement(R_MAC, R6, H6, ndp::FLAG_SOLICITED));
    assert_eq!(host.counters().ipv6_routers, 0);
}

/// Pitfall N01.
#[test]
fn one_flaw_voids_a_message() {
    let flawed = |source, destination, kind, body: &[u8], flaw: &str| {
        let mut bytes = icmpv6::to_bytes(source, destination, (kind, 0), [0; 4], body);
        let mut limit = 255;
        match flaw {
            "code" => bytes = icmpv6::to_bytes(source, destination, (kind, 1), [0; 4], body),
            "sum" => bytes[2] ^= 1,
            "hop limit" => limit = 254,
            "short" => {
                bytes = icmpv6::to_bytes(source, destination, (kind, 0), [0; 4], &body[..7]);
            }
            "option of length 0" => {
                let mut body = body.to_vec();
                body.extend([1, 0, 0, 0, 0, 0, 0, 0]);
                bytes = icmpv6::to_bytes(source, destination, (kind, 0), [0; 4], &body);
            }
            "group as target" => {
                let mut body = body.to_vec();
                body[..16].copy_from_slice(&ndp::ALL_NODES.octets());
                bytes = icmpv6::to_bytes(source, destination, (kind, 0), [0; 4], &body);
            }
            _ => {}
        }
        frame6(P_MAC, &packet6(source, destination, PROTOCOL_ICMPV6, limit, &bytes))
    };
    let asks = ndp::neighbour_body(H6, Some(P_MAC), None, None);
    let says = ndp::neighbour_body(P6, None, Some(P_MAC), None);
    let ra = Ra::new().body();
    let flaws = ["code", "sum", "hop limit", "short", "option of length 0", "group as target", ""];
    for flaw in flaws {
        let is_good = flaw.is_empty();
        let mut host = host6();
        host.receive(&flawed(P6, H6, icmpv6::NEIGHBOUR_SOLICITATION, &asks, flaw));
        assert_eq!(state(&host, P6).is_some(), is_good, "{flaw}");
        assert_eq!(host.is_silent(), !is_good, "{flaw}");

        let mut host = host6();
        let socket = host.bind(9);
        host.udp_send6(socket, P6, b"x");
        host.sent();
        host.receive(&flawed(P6, H6, icmpv6::NEIGHBOUR_ADVERTISEMENT, &says, flaw));
        let is_known = !matches!(state(&host, P6), Some((State::Incomplete(_), _)));
        assert_eq!(is_known, is_good, "{flaw}");

        if flaw != "group as target" {
            let mut host = host6();
            host.receive(&flawed(R6, ndp::ALL_NODES, icmpv6::ROUTER_ADVERTISEMENT, &ra, flaw));
            assert_eq!(host.counters().ndp_router_advertisements > 0, is_good, "{flaw}");
        }
    }
    // A probe that says who asks, or that asks another group than the target's.
    let mut host = host6();
    let none = Ipv6Addr::UNSPECIFIED;
    host.receive(&solicitation(none, P_MAC, H6));
    let body = ndp::neighbour_body(H6, None, None, None);
    host.receive(&nd(P_MAC, (none, ndp::ALL_NODES), icmpv6::NEIGHBOUR_SOLICITATION, [0; 4], &body));
    assert!(host.is_silent());
    // An answer for everybody that nobody can have asked for.
    let flags = ndp::FLAG_SOLICITED | ndp::FLAG_OVERRIDE;
    host.receive(&advertisement(P_MAC, P6, ndp::ALL_NODES, flags));
    assert_eq!(host.counters().dropped_ndp_invalid, 3);
}

/// Pitfall I16.
#[test]
fn redirects_change_nothing() {
    let mut host = host6();
    let socket = host.bind(9);
    host.receive(&Ra::new().frame());
    assert_eq!(host.sends_to(socket, FAR).unwrap().to, R_MAC);
    let body = [P6.octets(), FAR.octets()].concat();
    host.receive(&nd(R_MAC, (R6, H6), icmpv6::REDIRECT, [0; 4], &body));
    assert_eq!(host.sends_to(socket, FAR).unwrap().to, R_MAC);
    assert_eq!(host.counters().dropped_ndp_redirect, 1);
}

/// Pitfalls N08, A01, A04.
#[test]
fn a_scan_of_the_prefix_fills_a_part_of_the_table_and_no_flow_is_hurt() {
    let mut host = host6();
    let socket = host.bind(9);
    host.receive(&Ra::new().frame());
    host.introduce6(P6, P_MAC);
    host.receive(&advertisement(P_MAC, P6, H6, ndp::FLAG_SOLICITED));
    assert!(host.sends_to(socket, FAR).is_some());
    let prefix = H6.to_bytes_prefix();
    for number in 0..20_000u32 {
        host.now = host.now + Duration::from_micros(500);
        let target = Ipv6Addr::from_bits(prefix | 0x1_0000_0000 | u128::from(number));
        host.udp_send6(socket, target, b"scan");
        host.sent();
        // And strangers who make themselves known.
        let stranger = Ipv6Addr::from_bits(prefix | 0x2_0000_0000 | u128::from(number));
        host.receive(&solicitation(stranger, MacAddress([2, 9, 9, 9, 9, 9]), H6));
        if number % 50 == 0 {
            assert_eq!(host.sends_to(socket, P6).unwrap().to, P_MAC);
            assert_eq!(host.sends_to(socket, FAR).unwrap().to, R_MAC);
            host.engine.handle_timeout(host.now);
            host.receive(&advertisement(P_MAC, P6, H6, ndp::FLAG_SOLICITED));
            host.receive(&advertisement(R_MAC, R6, H6, ndp::FLAG_SOLICITED | ndp::FLAG_ROUTER));
        }
    }
    assert!(host.counters().neighbours <= 256);
}

/// What a host whose memory is full of waiting packets still does.
#[test]
fn waiting_packets_are_bounded_in_bytes() {
    let mut host = host6();
    let socket = host.bind(9);
    let prefix = H6.to_bytes_prefix();
    for number in 0..60u32 {
        for _ in 0..5 {
            let target = Ipv6Addr::from_bits(prefix | 0x1_0000_0000 | u128::from(number));
            host.udp_send6(socket, target, &[0; 30_000]);
            host.sent();
        }
    }
    assert!(host.counters().dropped_neighbour_parked > 0);
    host.receive(&ping6(P6, H6, b"x"));
    host.introduce6(P6, P_MAC);
    host.receive(&ping6(P6, H6, b"x"));
    assert!(!messages(&host.sent(), icmpv6::ECHO_REPLY).is_empty());
}

trait Prefix {
    fn to_bytes_prefix(&self) -> u128;
}

impl Prefix for Ipv6Addr {
    /// Its first 64 bits.
    fn to_bytes_prefix(&self) -> u128 {
        self.to_bits() & !u128::from(u64::MAX)
    }
}
