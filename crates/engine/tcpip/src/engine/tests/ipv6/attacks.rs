//! What somebody on the link can say, and how the honest are served all the same. `R6` is an honest
//! router; what invented ones say, nobody says again.

use super::*;

/// Lets time pass on a link where the `honest` routers answer who asks for them; returns what H sent.
fn live(host: &mut Host, duration: Duration, honest: &[Ra]) -> Vec<Sent6> {
    let (end, mut all) = (host.now + duration, Vec::new());
    while host.now < end {
        for sent in frames(host.advance(ms(50))).iter().filter_map(|frame| sent6(frame)) {
            if sent.protocol == PROTOCOL_ICMPV6 && sent.payload[0] == icmpv6::ROUTER_SOLICITATION {
                honest.iter().for_each(|router| host.receive(&router.frame()));
            }
            let asked = |router: &&Ra| {
                sent.protocol == PROTOCOL_ICMPV6
                    && sent.payload[0] == icmpv6::NEIGHBOUR_SOLICITATION
                    && target_of(&sent) == router.router
            };
            if let Some(router) = honest.iter().find(asked) {
                let flags = ndp::FLAG_ROUTER | ndp::FLAG_SOLICITED | ndp::FLAG_OVERRIDE;
                host.receive(&advertisement(router.mac, router.router, sent.source, flags));
            }
            all.push(sent);
        }
    }
    all
}

/// A neighbour that H has never heard of is asked for as soon as there is a packet for it.
fn asks_for_a_new_neighbour(host: &mut Host, socket: UdpId) -> bool {
    let new = Ipv6Addr::from_bits(P6.to_bits() + 1);
    host.sent();
    host.udp_send6(socket, new, b"x");
    messages(&host.sent(), icmpv6::NEIGHBOUR_SOLICITATION).iter().any(|sent| target_of(sent) == new)
}

/// N07: that a neighbour says of itself to be a router does not make it stay.
#[test]
fn neighbours_that_say_they_are_routers_leave_room_for_others() {
    let mut host = host6();
    let socket = host.bind(9);
    host.receive(&Ra::new().frame());
    for number in 0..600u16 {
        let mac = MacAddress([2, 0, 0, 7, (number >> 8) as u8, number as u8]);
        let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 7, number);
        host.receive(&solicitation(address, mac, H6));
        host.receive(&advertisement(mac, address, H6, ndp::FLAG_ROUTER | ndp::FLAG_OVERRIDE));
        host.sent();
    }
    assert_eq!(host.counters().neighbours, 256, "the table is full");
    assert!(asks_for_a_new_neighbour(&mut host, socket));
    assert_eq!(host.counters().dropped_neighbour_table_full, 0);
    // The router that is one has stayed, though it was not used for longer than any of them.
    assert_eq!(host.sends_to(socket, FAR).unwrap().to, R_MAC);
}

/// The same with advertisements of routers that are none a second later.
#[test]
fn routers_whose_time_is_over_leave_room_for_others() {
    let mut host = host6();
    let socket = host.bind(9);
    for round in 0..70u16 {
        for number in 0..4 {
            host.receive(&Ra { lifetime: 1, ..Ra::from(round * 4 + number) }.frame());
        }
        host.advance(secs(2));
    }
    assert_eq!(host.counters().ipv6_routers, 0);
    assert!(asks_for_a_new_neighbour(&mut host, socket));
    assert_eq!(host.counters().dropped_neighbour_table_full, 0);
}

/// N09: whoever floods first and goes away keeps the honest router out for seconds, not for hours.
#[test]
fn invented_routers_give_way_to_one_that_answers() {
    let mut host = host6();
    let socket = host.bind(9);
    (0..4).for_each(|n| host.receive(&Ra { lifetime: 9000, ..Ra::from(100 + n) }.frame()));
    host.receive(&Ra::new().frame());
    assert_eq!(host.counters().dropped_ra_limit, 1, "there is no room yet");
    live(&mut host, secs(6), &[Ra::new()]);
    assert_eq!(host.sends_to(socket, FAR).unwrap().to, R_MAC);
    assert_eq!(host.counters().ipv6_routers, 4);
    // It stays, though the others go on to say that they are routers, and preferred ones at that.
    for _ in 0..100 {
        for number in 0..8 {
            let preferred = Ra { lifetime: 9000, ..Ra::from(100 + number) };
            let mut word = preferred.word();
            word[1] = 0x08;
            let addresses = (preferred.router, ndp::ALL_NODES);
            let kind = icmpv6::ROUTER_ADVERTISEMENT;
            host.receive(&nd(preferred.mac, addresses, kind, word, &preferred.body()));
        }
        live(&mut host, ms(500), &[Ra::new()]);
        assert_eq!(host.sends_to(socket, FAR).unwrap().to, R_MAC);
    }
}

/// Where all routers are honest, and answer, the preferred one is used (RFC 4191 §3.2).
#[test]
fn a_preferred_router_is_used_once_it_has_answered() {
    let mut host = host6();
    let socket = host.bind(9);
    let second = Ra::from(2);
    host.receive(&Ra::new().frame());
    live(&mut host, secs(3), &[Ra::new()]);
    let mut word = second.word();
    word[1] = 0x08;
    let addresses = (second.router, ndp::ALL_NODES);
    host.receive(&nd(second.mac, addresses, icmpv6::ROUTER_ADVERTISEMENT, word, &second.body()));
    live(&mut host, secs(3), &[Ra::new(), second.clone()]);
    assert_eq!(host.sends_to(socket, FAR).unwrap().to, second.mac);
}

/// N09: the same for what they say. Prefixes that nobody routes, and name servers that nobody is, for
/// ever; and then the honest ones.
#[test]
fn invented_prefixes_and_servers_give_way_to_those_of_a_router_that_answers() {
    let mut host = host6();
    let server = |ra: &mut Ra, address: Ipv6Addr| {
        ra.options.extend([25, 3, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        ra.options.extend(address.octets());
    };
    for number in 0..20u128 {
        let prefix = Ipv6Addr::from_bits(0x3000 << 112 | number << 64);
        let mut ra = Ra { lifetime: 0, ..Ra::from(66) };
        ra = ra.prefix(prefix, 64, 0xc0, u32::MAX, u32::MAX);
        server(&mut ra, Ipv6Addr::from_bits(prefix.to_bits() | 0x53));
        host.receive(&ra.frame());
    }
    host.advance(secs(7 * 86_400));
    let mut honest = Ra::new().prefix(PREFIX, 64, 0xc0, 3600, 3600);
    let resolver = Ipv6Addr::from_bits(PREFIX.to_bits() | 0x53);
    server(&mut honest, resolver);
    host.receive(&honest.frame());
    assert!(host.address_in(PREFIX).is_none(), "nobody knows yet who is honest");
    live(&mut host, secs(4), std::slice::from_ref(&honest));
    assert!(host.address_in(PREFIX).is_some());
    assert!(host.engine.dns().contains(&resolver.into()));
    let ipv6 = host.engine.ipv6.as_ref().unwrap();
    assert!(ipv6.is_on_link(host.now, resolver));
    assert!(host.has_address(H6), "what is configured is nobody's to take");
    let counters = host.counters();
    assert_eq!((counters.ipv6_addresses, counters.ipv6_prefixes), (16, 8), "the bounds stay");
}

/// ::/0 on the link would have us ask the link for the whole world; a few shorter ones, too.
#[test]
fn the_whole_world_is_not_on_the_link() {
    let mut host = host6();
    let socket = host.bind(9);
    host.receive(&Ra::new().frame());
    for len in 0..32 {
        let prefix =
            Ipv6Addr::from_bits(FAR.to_bits() >> (128 - len).min(127) << (128 - len).min(127));
        host.receive(
            &Ra { lifetime: 0, ..Ra::from(66) }.prefix(prefix, len, 0x80, 3600, 3600).frame(),
        );
    }
    assert_eq!((host.counters().dropped_ra_prefix, host.counters().ipv6_prefixes), (32, 0));
    assert_eq!(host.sends_to(socket, FAR).unwrap().to, R_MAC);
    host.receive(&Ra::new().prefix(PREFIX, 32, 0x80, 3600, 3600).frame());
    assert_eq!(host.counters().ipv6_prefixes, 1);
}

/// A03: an address is used when nobody has answered the question for it, and not when nobody could.
#[test]
fn a_flood_of_solicitations_does_not_swallow_our_own_probe() {
    let mut host = host6();
    host.receive(&Ra::new().prefix(PREFIX, 64, 0xc0, 3600, 3600).frame());
    let (mut probed, mut reported) = (Vec::new(), 0);
    for _ in 0..400 {
        host.now = host.now + ms(5);
        for number in 0..80u8 {
            let mac = MacAddress([2, 0, 0, 7, 0, number]);
            let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 7, number.into());
            host.receive(&solicitation(source, mac, H6));
        }
        host.engine.handle_timeout(host.now);
        let sent = host.sent();
        reported += messages(&sent, icmpv6::MLDV2_REPORT).len();
        let asked = messages(&sent, icmpv6::NEIGHBOUR_SOLICITATION);
        probed.extend(asked.iter().filter(|sent| sent.source.is_unspecified()).map(target_of));
    }
    assert!(host.counters().dropped_reply_queue > 1000);
    assert_eq!(probed, [host.address_in(PREFIX).expect("two seconds are enough")]);
    assert_eq!(reported, 2, "its group is reported, too");
}

/// A device that takes nothing has asked nobody.
#[test]
fn an_address_whose_probe_has_not_left_is_not_used() {
    let mut host = Host::just_started(config6());
    for _ in 0..10 {
        host.now = host.now + secs(1);
        host.engine.handle_timeout(host.now);
    }
    assert!(host.engine.ipv6_addresses().is_empty());
    let sent = host.sent();
    assert_eq!(messages(&sent, icmpv6::NEIGHBOUR_SOLICITATION).len(), 2);
    assert_eq!(messages(&sent, icmpv6::ROUTER_SOLICITATION).len(), 1, "once, however late");
    host.advance(ms(999));
    assert!(host.engine.ipv6_addresses().is_empty());
    host.advance(ms(1));
    assert_eq!(host.engine.ipv6_addresses().len(), 2);
}
