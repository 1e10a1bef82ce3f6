//! Addresses: tried, made, chosen, lost.

use super::*;

/// What H asks at its start, and when.
fn start(config: Config) -> (Host, Vec<(Instant, Vec<u8>)>) {
    let mut host = Host::just_started(config);
    host.engine.handle_timeout(host.now);
    let frames = host.sent();
    let now = host.now;
    (host, frames.into_iter().map(|frame| (now, frame)).collect())
}

fn probes(frames: &[Vec<u8>]) -> Vec<Sent6> {
    let mut asked = messages(frames, icmpv6::NEIGHBOUR_SOLICITATION);
    asked.retain(|asked| asked.source.is_unspecified());
    asked
}

fn nonce_of(sent: &Sent6) -> ndp::Nonce {
    let message = Message::parse(&sent.payload).unwrap();
    ndp::Neighbour::parse(&message).unwrap().options.nonce.unwrap()
}

fn probe(mac: MacAddress, target: Ipv6Addr, nonce: Option<ndp::Nonce>) -> Vec<u8> {
    let body = ndp::neighbour_body(target, None, None, nonce);
    let addresses = (Ipv6Addr::UNSPECIFIED, ndp::solicited_node(target));
    nd(mac, addresses, icmpv6::NEIGHBOUR_SOLICITATION, [0; 4], &body)
}

/// Pitfalls N03, A08.
#[test]
fn an_address_is_tried_for_a_second_and_not_used_before() {
    let (mut host, frames_at_start) = start(config6());
    let asked = probes(&frames(frames_at_start));
    let mut targets: Vec<Ipv6Addr> = asked.iter().map(target_of).collect();
    targets.retain(|target| !target.is_unicast_link_local());
    assert_eq!((asked.len(), targets), (2, vec![H6]), "the link-local one and the configured one");
    assert!(asked.iter().all(|asked| asked.destination == ndp::solicited_node(target_of(asked))));
    assert!(host.engine.ipv6_addresses().is_empty());
    // Nobody may use it, and nobody is answered.
    let socket = host.bind(7);
    let to = SocketAddr::from((P6, 9));
    assert!(host.engine.udp_send(host.now, socket, to, b"x").is_err());
    host.receive(&ping6(P6, H6, b"x"));
    host.receive(&solicitation(P6, P_MAC, H6));
    assert!(host.is_silent());
    let sent = frames(host.advance(ms(999)));
    assert!(sent.iter().filter_map(|frame| sent6(frame)).all(|sent| sent.source.is_unspecified()));
    assert!(!host.has_address(H6));
    host.advance(ms(1));
    assert!(host.has_address(H6));
    assert!(host.events().contains(&Event::AddressChanged));
}

/// Pitfall N03.
#[test]
fn an_address_that_another_host_has_or_wants_is_not_used() {
    let claims: [fn() -> Vec<u8>; 3] = [
        || probe(P_MAC, H6, None),
        || probe(P_MAC, H6, Some([9; 6])),
        || advertisement(P_MAC, H6, ndp::ALL_NODES, ndp::FLAG_OVERRIDE),
    ];
    for claim in claims {
        let (mut host, _) = start(config6());
        host.advance(ms(500));
        host.receive(&claim());
        host.advance(secs(5));
        assert!(!host.has_address(H6));
        assert_eq!(host.counters().ndp_duplicates, 1);
        assert_eq!(host.engine.ipv6_addresses().len(), 1, "the link-local one is another matter");
        host.receive(&ping6(P6, H6, b"x"));
        assert!(host.is_silent());
    }
    // Malformed claims are none.
    let (mut host, _) = start(config6());
    host.receive(&solicitation(Ipv6Addr::UNSPECIFIED, P_MAC, H6));
    host.receive(&probe(P_MAC, P6, None));
    host.advance(secs(5));
    assert!(host.has_address(H6));
}

/// Pitfall N03.
#[test]
fn the_probe_of_another_host_for_our_address_is_answered_to_all() {
    let mut host = host6();
    host.receive(&probe(P_MAC, H6, Some([9; 6])));
    let answers = messages(&host.sent(), icmpv6::NEIGHBOUR_ADVERTISEMENT);
    assert_eq!(answers.len(), 1);
    assert_eq!((answers[0].destination, answers[0].source), (ndp::ALL_NODES, H6));
    let message = Message::parse(&answers[0].payload).unwrap();
    assert_eq!(message.word[0], ndp::FLAG_OVERRIDE, "it was not asked by name");
    assert!(host.has_address(H6));
    // Later claims are counted, and change nothing (RFC 4862 §5.4: it is tried once).
    host.receive(&advertisement(P_MAC, H6, ndp::ALL_NODES, ndp::FLAG_OVERRIDE));
    assert!(host.has_address(H6));
    assert_eq!(host.counters().ndp_conflicts, 1);
}

/// Pitfall N04.
#[test]
fn our_own_probe_that_comes_back_is_no_conflict() {
    let (mut host, frames_at_start) = start(config6());
    let asked = probes(&frames(frames_at_start));
    for asked in &asked {
        // Through a link that mirrors, with another hardware address.
        host.receive(&probe(P_MAC, target_of(asked), Some(nonce_of(asked))));
    }
    host.advance(secs(2));
    assert_eq!(host.engine.ipv6_addresses().len(), 2);
    assert_ne!(nonce_of(&asked[0]), nonce_of(&asked[1]));
}

/// Pitfall N15.
#[test]
fn identifiers_say_nothing_of_the_hardware_and_stay_on_their_network() {
    let of = |secret: Option<u8>, network: &str, seed: u8, prefix| {
        let mut config = config6();
        config.secret = [seed; 32];
        config.ipv6.stable_secret = secret.map(|secret| [secret; 32]);
        config.ipv6.network_id = network.as_bytes().to_vec();
        let mut host = Host::with(config);
        host.receive(&Ra::new().prefix(prefix, 64, 0x40, 3600, 3600).frame());
        host.advance(secs(3));
        host.address_in(prefix).unwrap()
    };
    let other = Ipv6Addr::new(0x2001, 0xdb8, 0x78, 0, 0, 0, 0, 0);
    let identifier = |address: Ipv6Addr| address.to_bits() as u64;
    let address = of(Some(1), "net", 1, PREFIX);
    assert_eq!(address, of(Some(1), "net", 2, PREFIX), "the same after the next start");
    assert_ne!(identifier(address), identifier(of(Some(1), "net", 1, other)));
    assert_ne!(address, of(Some(1), "other", 1, PREFIX));
    assert_ne!(address, of(Some(2), "net", 1, PREFIX));
    assert_ne!(of(None, "", 1, PREFIX), of(None, "", 2, PREFIX));
    let eui64 = 0x0000_00ff_fe00_0001_u64;
    assert_ne!(identifier(address) & 0x00ff_ffff_ffff_ffff, eui64);
}

/// TAHI 3.2.7, RFC 7217 §6.
#[test]
fn a_conflict_over_a_made_address_makes_another() {
    let mut host = host6();
    host.receive(&Ra::new().prefix(PREFIX, 64, 0x40, 3600, 3600).frame());
    let mut tried = Vec::new();
    for _ in 0..4 {
        let asked = probes(&frames(host.advance(ms(600))));
        assert_eq!(asked.len(), 1);
        tried.push(target_of(&asked[0]));
        host.receive(&advertisement(P_MAC, tried[tried.len() - 1], ndp::ALL_NODES, 0));
    }
    tried.dedup();
    assert_eq!(tried.len(), 4, "one, and three more");
    assert!(probes(&frames(host.advance(secs(5)))).is_empty());
    assert_eq!(host.address_in(PREFIX), None);
}

/// Pitfall V07.
#[test]
fn groups_are_reported_twice_and_to_whoever_asks() {
    let (mut host, at_start) = start(config6());
    let mut reports = frames(at_start);
    reports.extend(frames(host.advance(secs(3))));
    let reports = messages(&reports, icmpv6::MLDV2_REPORT);
    assert_eq!(reports.len(), 2);
    for report in &reports {
        assert_eq!((report.destination, report.hop_limit), (ndp::ALL_MLDV2_ROUTERS, 1));
        assert_eq!(report.payload[6..8], [0, 2]);
        let group = ndp::solicited_node(H6).octets();
        assert!(report.payload.windows(16).any(|bytes| bytes == group));
    }
    // The report is behind a Router Alert.
    for (code, most) in [(1000u16, ms(1000)), (0, ms(1))] {
        let [high, low] = code.to_be_bytes();
        let body = [&[0; 16][..], &[0, 0, 0, 0]].concat();
        let query =
            icmpv6::to_bytes(R6, ndp::ALL_NODES, (icmpv6::MLD_QUERY, 0), [high, low, 0, 0], &body);
        host.receive(&frame6(R_MAC, &packet6(R6, ndp::ALL_NODES, PROTOCOL_ICMPV6, 1, &query)));
        let answers = messages(&frames(host.advance(most)), icmpv6::MLDV2_REPORT);
        assert_eq!(answers.len(), 1, "{code}");
        assert_eq!(answers[0].payload[8], 2, "as things are, not a change");
        assert!(answers[0].source.is_unicast_link_local());
    }
}

/// Pitfall I11: RFC 6724 §5's rules, as far as they apply to one interface.
#[test]
fn the_source_suits_the_destination() {
    let mut config = config6();
    let unique_local = "fd00::1".parse().unwrap();
    let second = "2001:db8:0:1::1".parse().unwrap();
    config.ipv6.addresses = vec![(H6, 64), (unique_local, 64), (second, 64)];
    let mut host = Host::with(config);
    host.receive(&Ra::new().prefix(PREFIX, 64, 0x40, 3600, 0).frame());
    host.advance(secs(3));
    let deprecated = host.address_in(PREFIX).unwrap();
    let link_local = host.address_in("fe80::".parse().unwrap()).unwrap();
    let source = |to: &str| {
        let now = host.now;
        host.engine.ipv6.as_ref().unwrap().addresses.source_for(now, to.parse().unwrap()).unwrap()
    };
    assert_eq!(source("2001:db8::99"), H6, "rule 8: the longest prefix");
    assert_eq!(source("2001:db8:0:1::99"), second);
    assert_eq!(source(&second.to_string()), second, "rule 1");
    assert_eq!(source("fe80::99"), link_local, "rule 2: the smallest scope that is enough");
    assert_eq!(source("ff02::1"), link_local);
    assert_eq!(source("ff0e::1"), H6);
    assert_eq!(source("fd77::1"), unique_local, "rule 6: the label");
    assert_eq!(source("2001:db8:77::99"), H6, "rule 3: not {deprecated}, which is deprecated");
    assert_eq!(source(&deprecated.to_string()), deprecated);
}

/// Pitfalls X08, N10.
#[test]
fn the_end_of_an_address_ends_its_flows_and_no_others() {
    let mut host = host6();
    let peer = "2001:db8:77::2".parse::<Ipv6Addr>().unwrap();
    host.receive(&Ra::new().prefix(PREFIX, 64, 0xc0, 60, 60).frame());
    host.advance(secs(3));
    host.introduce6(P6, P_MAC);
    let now = host.now;
    let doomed = host.engine.tcp_connect(now, SocketAddr::from((peer, 80))).unwrap();
    let safe = host.engine.tcp_connect(now, SocketAddr::from((P6, 80))).unwrap();
    let old = host.engine.tcp_connect(now, SocketAddr::from((P, 80))).unwrap();
    let ours = host.engine.tcp_addresses(doomed).unwrap().0.ip();
    assert_eq!(Some(ours), host.address_in(PREFIX).map(Into::into));
    host.advance(secs(58));
    use crate::error::TcpError;
    use crate::socket::TcpStatus;
    let status = |host: &Host, id| host.engine.tcp_status(id);
    assert_eq!(status(&host, doomed), TcpStatus::Failed(TcpError::AddressLost));
    assert_eq!(status(&host, safe), TcpStatus::Connecting);
    assert_eq!(status(&host, old), TcpStatus::Connecting);
    assert!(host.events().contains(&Event::TcpClosed(doomed)));
}

/// Pitfalls I12, L08.
#[test]
fn what_cannot_be_configured_is_refused_by_name() {
    let check = |change: &dyn Fn(&mut Config)| {
        let mut config = config6();
        change(&mut config);
        Engine::new(config, Instant::ZERO).err()
    };
    let route = |destination: &str, prefix_len, gateway: &str| StaticRoute {
        destination: destination.parse().unwrap(),
        prefix_len,
        gateway: gateway.parse().unwrap(),
    };
    for good in [
        route("192.0.2.0", 24, "10.0.0.9"),
        route("2001:db8:5::", 48, "fe80::9"),
        route("::", 0, "2001:db8::9"),
    ] {
        assert_eq!(check(&|config| config.routes = vec![good]), None, "{good}");
    }
    for bad in [
        route("192.0.2.0", 24, "fe80::9"),
        route("2001:db8:5::", 48, "10.0.0.9"),
        route("192.0.2.0", 24, "192.0.2.1"),
        route("192.0.2.1", 24, "10.0.0.9"),
        route("192.0.2.0", 33, "10.0.0.9"),
        route("192.0.2.0", 24, "10.0.0.1"),
        route("2001:db8:5::1", 48, "fe80::9"),
        route("2001:db8:5::", 129, "fe80::9"),
        route("2001:db8:5::", 48, "ff02::2"),
        route("2001:db8:5::", 48, "2001:db8::1"),
    ] {
        let error = check(&|config| config.routes = vec![bad]);
        assert!(matches!(error, Some(ConfigError::Route(named, _)) if named == bad), "{bad}");
        assert!(error.unwrap().to_string().contains(&bad.to_string()));
    }
    let address = |text: &'static str, len| {
        move |config: &mut Config| {
            config.ipv6.addresses = vec![(text.parse().unwrap(), len)];
        }
    };
    for bad in ["::", "::1", "ff02::1", "::ffff:10.0.0.1"] {
        let error = check(&address(bad, 64));
        assert_eq!(error, Some(ConfigError::Ipv6Address(bad.parse().unwrap())));
    }
    assert_eq!(check(&address("2001:db8::1", 0)), Some(ConfigError::Ipv6PrefixLen(H6, 0)));
    assert_eq!(check(&address("2001:db8::1", 129)), Some(ConfigError::Ipv6PrefixLen(H6, 129)));
    assert_eq!(check(&|config| config.mtu = 1279), Some(ConfigError::Ipv6Mtu(1279)));
    assert_eq!(check(&|config| config.mtu = 1280), None);
    // Without addresses a small link just has no IPv6.
    let mut config = config6();
    (config.mtu, config.ipv6.addresses) = (1279, vec![]);
    let mut host = Host::with(config);
    assert!(host.engine.ipv6_addresses().is_empty());
    let error = host.engine.tcp_connect(host.now, SocketAddr::from((P6, 80)));
    assert!(matches!(error, Err(crate::error::ConnectError::NoRoute(_))));
}

#[test]
fn each_family_works_without_the_other() {
    let only_v6 = Config { address: AddressConfig::Off, ..config6() };
    let mut host = Host::with(only_v6);
    assert_eq!(host.engine.address(), Some(H6.into()));
    host.introduce6(P6, P_MAC);
    host.receive(&ping6(P6, H6, b"x"));
    assert_eq!(messages(&host.sent(), icmpv6::ECHO_REPLY).len(), 1);
    host.receive(&arp_request((P_MAC, P), H));
    host.receive(&ping(P, H, b"x"));
    assert!(host.is_silent());
    let v4 = host.engine.tcp_connect(host.now, SocketAddr::from((P, 80)));
    assert!(matches!(v4, Err(crate::error::ConnectError::NoRoute(_))));

    let mut host = Host::new();
    host.receive(&solicitation(P6, P_MAC, H6));
    host.receive(&ping6(P6, H6, b"x"));
    assert!(host.is_silent());
    let mut quiet = Host::just_started(config());
    assert!(frames(quiet.advance(secs(100))).iter().all(|frame| sent6(frame).is_none()));
}

#[test]
fn a_listener_on_every_address_takes_both_families() {
    let mut host = host6();
    host.introduce(P, P_MAC);
    host.introduce6(P6, P_MAC);
    host.engine.tcp_listen("0.0.0.0:80".parse().unwrap(), 8).unwrap();
    host.receive(&syn(P, H));
    assert!(sent_packet(&host.sent()[0]).is_some());
    let mut segment = [0; 20];
    segment[..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
    segment[12..16].copy_from_slice(&[0x50, 0x02, 0xff, 0xff]);
    let sum = checksum::Sum::of_pseudo_header(P6, H6, PROTOCOL_TCP, 20).then(&segment);
    segment[16..18].copy_from_slice(&sum.finish().to_be_bytes());
    host.receive(&ip6(P6, H6, PROTOCOL_TCP, &segment));
    let answer = sent6(&host.sent()[0]).unwrap();
    assert_eq!((answer.protocol, answer.destination), (PROTOCOL_TCP, P6));
    // The MSS that we take: the MTU without both headers (pitfalls P06, T03).
    let options = &answer.payload[20..];
    assert_eq!(options[..4], [2, 4, 0x05, 0xa0], "1440");
    assert_eq!(host.counters().tcp_half_open, 2);
}

/// Pitfall V06: there is one interface, so a link-local address needs no zone.
#[test]
fn all_of_fe80_with_ten_bits_is_on_the_link() {
    let mut host = host6();
    let socket = host.bind(9);
    for neighbour in ["fe80::5", "fe80:1234::5", "febf:ffff::5"] {
        let neighbour: Ipv6Addr = neighbour.parse().unwrap();
        host.receive(&solicitation(neighbour, P_MAC, H6));
        let sent = host.sends_to(socket, neighbour).unwrap();
        assert_eq!(sent.to, P_MAC);
        assert!(sent.source.is_unicast_link_local());
        let scoped = std::net::SocketAddrV6::new(neighbour, 9, 0, 7);
        assert_eq!(host.engine.udp_send(host.now, socket, scoped.into(), b"x"), Ok(true));
    }
    let to = SocketAddr::from(("fec0::5".parse::<Ipv6Addr>().unwrap(), 9));
    assert!(host.engine.udp_send(host.now, socket, to, b"x").is_err(), "no way there");
}
