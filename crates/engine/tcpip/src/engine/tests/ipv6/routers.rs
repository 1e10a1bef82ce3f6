//! Routers: asked for, believed within limits, replaced.

use super::*;

fn solicited(timed: &[(Instant, Vec<u8>)]) -> Vec<(Instant, Sent6)> {
    let of = |(at, frame): &(Instant, Vec<u8>)| {
        let asked = messages(std::slice::from_ref(frame), icmpv6::ROUTER_SOLICITATION).pop()?;
        Some((*at, asked))
    };
    timed.iter().filter_map(of).collect()
}

/// Pitfall N14, TAHI 2.2.
#[test]
fn routers_are_asked_for_ever_more_rarely_until_one_answers() {
    let mut host = Host::just_started(config6());
    let asked = solicited(&host.advance(secs(3 * 3600)));
    assert!((9..=16).contains(&asked.len()), "{}", asked.len());
    assert!(asked[0].0 <= Instant::from_millis(1250), "soon");
    assert!(asked[0].1.source.is_unspecified(), "there is no address yet");
    assert!(asked[1].1.source.is_unicast_link_local());
    assert!(asked.iter().all(|(_, asked)| asked.destination == ndp::ALL_ROUTERS));
    let gaps: Vec<u64> =
        asked.windows(2).map(|two| two[1].0.saturating_since(two[0].0).as_secs()).collect();
    assert!((3..=5).contains(&gaps[0]) && gaps[1] > gaps[0] && *gaps.last().unwrap() <= 3960);
    // A router that is no default router does not end the questions; one that is, does.
    host.receive(&Ra { lifetime: 0, ..Ra::new() }.frame());
    assert!(!solicited(&host.advance(secs(7200))).is_empty());
    host.receive(&Ra::new().frame());
    assert!(solicited(&host.advance(secs(1700))).is_empty());
    // Its lifetime ends: the questions begin anew.
    assert!(solicited(&host.advance(secs(200))).len() > 2);
}

/// Pitfall N14.
#[test]
fn only_a_neighbour_is_a_router_and_lifetime_0_ends_it() {
    let mut host = host6();
    host.receive(&Ra { router: FAR, ..Ra::new() }.frame());
    assert_eq!(host.counters().ipv6_routers, 0);
    host.receive(&Ra::new().frame());
    assert_eq!(host.counters().ipv6_routers, 1);
    host.receive(&Ra { lifetime: 0, ..Ra::new() }.frame());
    assert_eq!(host.counters().ipv6_routers, 0);
    let socket = host.bind(9);
    let to = SocketAddr::from((FAR, 9));
    assert!(host.engine.udp_send(host.now, socket, to, b"x").is_err(), "no way");
}

/// Pitfall N09.
#[test]
fn a_flood_of_advertisements_fills_no_more_than_the_tables() {
    let mut host = host6();
    let socket = host.bind(9);
    host.receive(&Ra::new().prefix(PREFIX, 64, 0xc0, 3600, 3600).frame());
    host.advance(secs(3));
    let ours = host.address_in(PREFIX).unwrap();
    for number in 0..10_000u32 {
        let prefix = Ipv6Addr::from_bits(0x3000 << 112 | u128::from(number) << 64);
        let mut ra = Ra::from(number as u16).prefix(prefix, 64, 0xc0, 3600, 3600);
        // And a name server each.
        ra.options.extend([25, 3, 0, 0, 0, 0, 0x10, 0]);
        ra.options.extend(Ipv6Addr::from_bits(prefix.to_bits() | 0x53).octets());
        host.receive(&ra.frame());
    }
    let counters = host.counters();
    assert_eq!(counters.ipv6_routers, 4);
    assert_eq!(counters.ipv6_prefixes, 8);
    assert_eq!(counters.ipv6_addresses, 16);
    assert_eq!(host.engine.dns().len(), 4);
    assert!(counters.neighbours <= 256);
    assert!(counters.dropped_ra_limit > 9_000);
    // What was there first is there still.
    host.advance(secs(3));
    assert!(host.has_address(ours) && host.has_address(H6));
    assert_eq!(host.sends_to(socket, FAR).unwrap().to, R_MAC);
}

/// Pitfall N10.
#[test]
fn no_advertisement_ends_an_address_within_two_hours() {
    for (left, said, then) in [
        (86_400, 0, 7200),
        (86_400, 3600, 7200),
        (86_400, 7201, 7201),
        (3600, 0, 3600),
        (3600, 1800, 3600),
        (3600, 3601, 3601),
        (u32::MAX, 0, 7200),
    ] {
        let mut host = host6();
        host.receive(&Ra::new().prefix(PREFIX, 64, 0x40, left, 1000).frame());
        host.advance(secs(3));
        // From a fresh moment, so that `left` is what is left.
        host.receive(&Ra::new().prefix(PREFIX, 64, 0x40, left, 1000).frame());
        host.receive(&Ra::new().prefix(PREFIX, 64, 0x40, said, said.min(1000)).frame());
        host.advance(secs(then - 4));
        let name = format!("{left} {said}");
        assert!(host.address_in(PREFIX).is_some(), "{name}");
        host.advance(secs(5));
        assert!(host.address_in(PREFIX).is_none(), "{name}");
    }
}

/// Pitfall N11.
#[test]
fn an_address_of_a_prefix_says_nothing_of_who_is_on_the_link() {
    let neighbour = "2001:db8:77::2".parse().unwrap();
    let mut host = host6();
    let socket = host.bind(9);
    host.receive(&Ra::new().prefix(PREFIX, 64, 0x40, 3600, 3600).frame());
    host.advance(secs(3));
    assert!(host.address_in(PREFIX).is_some());
    assert_eq!(host.sends_to(socket, neighbour).unwrap().to, R_MAC);
    // And the other way round.
    let mut host = host6();
    let socket = host.bind(9);
    host.receive(&Ra::new().prefix(PREFIX, 64, 0x80, 3600, 3600).frame());
    host.advance(secs(3));
    assert!(host.address_in(PREFIX).is_none());
    assert!(host.sends_to(socket, neighbour).is_none());
    host.receive(&advertisement(P_MAC, neighbour, H6, ndp::FLAG_SOLICITED));
    assert_eq!(sent6(&host.sent()[0]).unwrap().to, P_MAC);
}

/// Pitfall N12.
#[test]
fn prefixes_that_cannot_be_make_no_address() {
    let link_local = "fe80::".parse().unwrap();
    for (prefix, len, valid, preferred) in [
        (link_local, 64, 3600, 3600),
        ("ff00::".parse().unwrap(), 64, 3600, 3600),
        (PREFIX, 63, 3600, 3600),
        (PREFIX, 65, 3600, 3600),
        (PREFIX, 129, 3600, 3600),
        (PREFIX, 64, 3600, 3601),
        (PREFIX, 64, 0, 0),
    ] {
        let mut host = host6();
        host.receive(&Ra::new().prefix(prefix, len, 0x40, valid, preferred).frame());
        host.advance(secs(3));
        assert_eq!(host.engine.ipv6_addresses().len(), 2, "{prefix}/{len} {valid} {preferred}");
    }
    // Bits behind the length are masked, and for ever is for ever.
    let mut host = host6();
    let odd = "2001:db8:77::dead:beef".parse().unwrap();
    host.receive(&Ra::new().prefix(odd, 64, 0xc0, u32::MAX, u32::MAX).frame());
    host.advance(secs(3));
    let ours = host.address_in(PREFIX).unwrap();
    host.advance(secs(86_400 * 400));
    assert!(host.has_address(ours));
    let now = host.now;
    let ipv6 = host.engine.ipv6.as_ref().unwrap();
    assert_eq!(ipv6.addresses.source_for(now, "2001:db8:77::5".parse().unwrap()), Some(ours));
}

/// Pitfall N13.
#[test]
fn what_routers_say_of_the_link_is_obeyed_within_reason() {
    let mut host = host6();
    host.introduce6(P6, P_MAC);
    let socket = host.bind(9);
    let hop_limit = |host: &mut Host| host.sends_to(socket, P6).unwrap().hop_limit;
    assert_eq!(hop_limit(&mut host), 64);
    host.receive(&Ra { hop_limit: 128, lifetime: 0, ..Ra::new() }.frame());
    assert_eq!(hop_limit(&mut host), 128, "from one that is no default router, too");
    host.receive(&Ra::new().frame());
    assert_eq!(hop_limit(&mut host), 128, "0 says nothing");
    // CVE-2015-2922: with a small one nothing would get far.
    for small in [1, 17, 63] {
        host.receive(&Ra { hop_limit: small, lifetime: 0, ..Ra::from(66) }.frame());
        assert_eq!(hop_limit(&mut host), 128, "{small} is not believed");
    }
    assert_eq!(host.counters().dropped_ra_hop_limit, 3);
    host.receive(&Ra { hop_limit: 64, ..Ra::new() }.frame());
    assert_eq!(hop_limit(&mut host), 64, "an honest router takes a large one back");
    for (said, then) in [(1279, 1500), (1400, 1400), (9000, 1400), (1280, 1280), (0, 1280)] {
        host.receive(&Ra::new().mtu(said).frame());
        host.udp_send6(socket, P6, &[0; 5000]);
        let largest = host.sent().iter().map(Vec::len).max().unwrap() - 14;
        assert!(largest <= then && largest > then - 8, "{said}: {largest}");
    }
    // IPv4 on the same link is not concerned.
    host.introduce(P, P_MAC);
    host.udp_send(socket, P, &[0; 1472]);
    assert_eq!(host.sent().len(), 1);
}

#[test]
fn routers_are_ignored_where_addresses_are_not_to_come_from_them() {
    let mut config = config6();
    config.ipv6.is_autoconfigured = false;
    let mut host = Host::just_started(config);
    assert!(solicited(&host.advance(secs(100))).is_empty());
    host.receive(&Ra::new().prefix(PREFIX, 64, 0xc0, 3600, 3600).frame());
    host.advance(secs(3));
    assert_eq!(host.engine.ipv6_addresses().len(), 2);
    assert_eq!((host.counters().ipv6_routers, host.counters().dropped_ra_unwanted), (0, 1));
}

/// Pitfall I13.
#[test]
fn a_flow_moves_to_another_router_within_ten_seconds_of_the_firsts_end() {
    let mut host = host6();
    let other = Ra::from(2);
    host.receive(&Ra::new().frame());
    host.receive(&other.frame());
    let reply = |host: &mut Host, mac, router| {
        let flags = ndp::FLAG_SOLICITED | ndp::FLAG_ROUTER;
        host.receive(&advertisement(mac, router, H6, flags));
    };
    reply(&mut host, R_MAC, R6);
    reply(&mut host, other.mac, other.router);
    // The SYN goes to the first router, which is gone.
    host.engine.tcp_connect(host.now, SocketAddr::from((FAR, 80))).unwrap();
    let sent = host.advance(secs(10));
    let to = |mac| {
        sent.iter().any(|(_, frame)| {
            sent6(frame).is_some_and(|sent| sent.protocol == PROTOCOL_TCP && sent.to == mac)
        })
    };
    assert!(to(R_MAC));
    assert!(to(other.mac), "the flow moves");
    // The first one comes back.
    host.receive(&Ra { lifetime: 0, ..other.clone() }.frame());
    let socket = host.bind(9);
    host.udp_send6(socket, FAR, b"x");
    let asked = messages(&host.sent(), icmpv6::NEIGHBOUR_SOLICITATION);
    assert_eq!(target_of(&asked[0]), R6, "the only one is tried, silent or not");
}

/// Pitfall I13, for IPv4.
#[test]
fn a_flow_over_ipv4_moves_to_another_configured_router() {
    let second = Ipv4Addr::new(10, 0, 0, 253);
    let default = StaticRoute {
        destination: Ipv4Addr::UNSPECIFIED.into(),
        prefix_len: 0,
        gateway: second.into(),
    };
    let mut host = Host::with(Config { routes: vec![default], ..config() });
    host.introduce(GATEWAY, R_MAC);
    let second_mac = MacAddress([2, 0, 0, 0, 0, 0xfd]);
    host.introduce(second, second_mac);
    let far = SocketAddr::from(([192, 0, 2, 9], 80));
    host.engine.tcp_connect(host.now, far).unwrap();
    let mut macs = Vec::new();
    for _ in 0..20 {
        for frame in frames(host.advance(ms(500))) {
            if let Some((to, packet)) = sent_arp(&frame)
                && packet.target == second
            {
                let _ = to;
                host.receive(&arp_reply((second_mac, second)));
            }
            macs.extend(sent_packet(&frame).map(|sent| sent.to));
        }
    }
    assert_eq!(macs[0], R_MAC);
    assert!(macs.contains(&second_mac), "{macs:?}");
    // The longest prefix comes first, whatever the gateway.
    let narrow = StaticRoute {
        destination: Ipv4Addr::new(192, 0, 2, 0).into(),
        prefix_len: 24,
        gateway: second.into(),
    };
    let mut host = Host::with(Config { routes: vec![narrow], ..config() });
    host.introduce(GATEWAY, R_MAC);
    host.introduce(second, second_mac);
    let socket = host.bind(9);
    host.udp_send(socket, Ipv4Addr::new(192, 0, 2, 9), b"x");
    host.udp_send(socket, Ipv4Addr::new(192, 0, 3, 9), b"x");
    let to: Vec<MacAddress> =
        host.sent().iter().filter_map(|frame| sent_packet(frame)).map(|sent| sent.to).collect();
    assert_eq!(to, [second_mac, R_MAC]);
}

#[test]
fn name_servers_come_and_go_with_their_lifetimes() {
    let mut config = config6();
    config.ipv6.dns = vec![P6];
    let mut host = Host::with(config);
    let server = "2001:db8::53".parse::<Ipv6Addr>().unwrap();
    let with = |lifetime: u32| {
        let mut ra = Ra::new();
        ra.options.extend([25, 3, 0, 0]);
        ra.options.extend(lifetime.to_be_bytes());
        ra.options.extend(server.octets());
        ra.frame()
    };
    host.receive(&with(60));
    assert_eq!(host.engine.dns(), [P6, server].map(std::net::IpAddr::V6));
    host.advance(secs(61));
    assert_eq!(host.engine.dns(), [std::net::IpAddr::V6(P6)]);
    host.receive(&with(u32::MAX));
    host.advance(secs(86_400));
    assert_eq!(host.engine.dns().len(), 2);
    host.receive(&with(0));
    assert_eq!(host.engine.dns().len(), 1);
}
