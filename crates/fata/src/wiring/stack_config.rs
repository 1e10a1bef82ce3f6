//! A stack over a network interface: its settings on the command line, and its start.

use super::arguments::{Arguments, WiringError};
use crate::Stack;
use fata_device::Nic;
use fata_net::{AddressConfig, Config, CongestionControl, Ipv6Config, Limits, StaticRoute};
use std::net::{IpAddr, Ipv6Addr};

/// Settings that every stack of ours has, whatever its interface, with their help.
pub(super) const LIMITS_HELP: &str = "What the stack may use: NAME=NUMBER,…; see docs/limits.md";

pub(super) const ROUTE_HELP: &str = "Ways beside these: PREFIX/LEN via ROUTER,…";
pub(super) const IPV6_HELP: &str =
    "auto (addresses of what routers advertise), static, off [default: auto]";
pub(super) const SECRET_HELP: &str =
    "64 hexadecimal digits: the same IPv6 addresses at each start (RFC 7217)";

/// The help of the setting that chooses a congestion control.
pub(super) const CONGESTION_HELP: &str =
    "How TCP finds out how much a path takes: cubic, newreno [default: cubic]";

/// Settings of a stack over a card of the machine's, with their help.
#[cfg_attr(
    not(any(fata_target = "virtio", fata_target = "xen")),
    expect(dead_code, reason = "a process has a choice of its own")
)]
pub(super) const SETTINGS: [(&str, &str); 9] = [
    ("address", "dhcp, none, A.B.C.D/LEN, X::Y/LEN; several with commas [default: dhcp]"),
    ("gateway", "With static addresses: the routers'"),
    ("dns", "With static addresses: the resolvers'"),
    ("route", ROUTE_HELP),
    ("ipv6", IPV6_HELP),
    ("ipv6-secret", SECRET_HELP),
    ("limits", LIMITS_HELP),
    ("congestion", CONGESTION_HELP),
    ("segmentation", "Leave cutting TCP into segments to the other end: on, off [default: on]"),
];

/// Whether the device `name` is to cut TCP into segments, and to give us several in one.
#[cfg_attr(
    not(any(fata_target = "virtio", fata_target = "xen")),
    expect(dead_code, reason = "a process has a choice of its own")
)]
pub(super) fn segmentation(name: &str, arguments: &Arguments) -> Result<bool, WiringError> {
    match arguments.setting(name, "segmentation") {
        None | Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(WiringError::Invalid {
            name: format!("{name}.segmentation"),
            value: other.to_string(),
            reason: "expected on or off".to_string(),
        }),
    }
}

/// Builds the stack that the settings of device `name` describe, and starts its task.
pub(super) fn spawn_stack(
    name: &str,
    nic: Box<dyn Nic>,
    arguments: &Arguments,
) -> Result<Stack, WiringError> {
    let failed = |reason| WiringError::Device { name: name.to_string(), reason };
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| failed(format!("no random numbers: {error}")))?;
    let mac = nic.mac();
    let Addressing { ipv4, ipv6, routes } = addressing(name, arguments)?;
    let config = Config {
        address: ipv4,
        ipv6,
        routes,
        limits: limits(name, arguments, crate::system::memory().map(|memory| memory.total_bytes))?,
        ..Config::new(secret)
    };
    let (stack, task) = Stack::over_nic(nic, config)
        .map_err(|error| failed(format!("its stack does not start: {error}")))?;
    let owner = name.to_string();
    tokio::spawn(async move {
        let error = task.await;
        tracing::error!("device `{owner}`: {error}; its sockets are closed");
    });
    let (owner, ready) = (name.to_string(), stack.clone());
    tokio::spawn(async move {
        if let Ok(address) = ready.ready().await {
            tracing::info!("device `{owner}` ({mac}) has the address {address}");
        }
    });
    Ok(stack)
}

/// The limits that the settings ask for. On a machine with little memory, all connections together
/// may have a quarter of it; the rest is the program's.
fn limits(
    name: &str,
    arguments: &Arguments,
    memory_bytes: Option<u64>,
) -> Result<Limits, WiringError> {
    let mut limits = Limits::default();
    if let Some(bytes) = memory_bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
        // A connection costs the stack half a kilobyte and a program that serves it some ten.
        limits.tcp_connections = limits.tcp_connections.min(bytes / 8192);
        limits.tcp_time_wait = limits.tcp_time_wait.min(bytes / 8192);
        limits.tcp_total_bytes = limits.tcp_total_bytes.min(bytes / 4);
        limits.reassembly_bytes = limits.reassembly_bytes.min(bytes / 64);
        limits.loopback_bytes = limits.loopback_bytes.min(bytes / 64);
    }
    let text = arguments.setting(name, "limits").unwrap_or_default();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        let invalid = |reason: String| WiringError::Invalid {
            name: format!("{name}.limits"),
            value: text.to_string(),
            reason,
        };
        let pair = word.split_once('=').and_then(|(key, text)| Some((key, text.parse().ok()?)));
        let (key, number): (&str, usize) =
            pair.ok_or_else(|| invalid(format!("`{word}`: expected NAME=NUMBER")))?;
        let place = place(&mut limits, key).ok_or_else(|| {
            invalid(format!("`{key}`: unknown; known are: {}", LIMIT_NAMES.join(", ")))
        })?;
        *place = number;
    }
    if let Some(text) = arguments.setting(name, "congestion") {
        limits.tcp_congestion =
            text.parse::<CongestionControl>().map_err(|error| WiringError::Invalid {
                name: format!("{name}.congestion"),
                value: text.to_string(),
                reason: format!("{error}"),
            })?;
    }
    Ok(limits)
}

/// The limits that have a setting, as users write them.
const LIMIT_NAMES: [&str; 13] = [
    "connections",
    "half-open",
    "time-wait",
    "listeners",
    "backlog",
    "receive-bytes",
    "send-bytes",
    "total-bytes",
    "udp-sockets",
    "udp-receive-bytes",
    "udp-send-bytes",
    "reassembly-bytes",
    "neighbours",
];

/// Where the limit `key` stands.
fn place<'a>(limits: &'a mut Limits, key: &str) -> Option<&'a mut usize> {
    Some(match key {
        "connections" => &mut limits.tcp_connections,
        "half-open" => &mut limits.tcp_half_open,
        "time-wait" => &mut limits.tcp_time_wait,
        "listeners" => &mut limits.tcp_listeners,
        "backlog" => &mut limits.tcp_accept_backlog,
        "receive-bytes" => &mut limits.tcp_receive_bytes,
        "send-bytes" => &mut limits.tcp_send_bytes,
        "total-bytes" => &mut limits.tcp_total_bytes,
        "udp-sockets" => &mut limits.udp_sockets,
        "udp-receive-bytes" => &mut limits.udp_receive_bytes,
        "udp-send-bytes" => &mut limits.udp_send_bytes,
        "reassembly-bytes" => &mut limits.reassembly_bytes,
        "neighbours" => &mut limits.neighbours,
        _ => return None,
    })
}

/// How the settings name addresses, routers and name servers.
#[derive(Debug)]
struct Addressing {
    ipv4: AddressConfig,
    ipv6: Ipv6Config,
    routes: Vec<StaticRoute>,
}

/// The addresses that the settings ask for: DHCP's, and what IPv6's routers advertise, unless some
/// are given.
fn addressing(name: &str, arguments: &Arguments) -> Result<Addressing, WiringError> {
    let invalid = |setting: &str, value: &str, reason: &str| WiringError::Invalid {
        name: format!("{name}.{setting}"),
        value: value.to_string(),
        reason: reason.to_string(),
    };
    let list = |setting: &str| {
        let text = arguments.setting(name, setting).unwrap_or_default();
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>()
    };
    let addresses_of = |setting: &str| {
        let parse = |word: &str| {
            let expected = "expected addresses such as 192.0.2.1 or 2001:db8::1";
            word.parse::<IpAddr>().map_err(|_| invalid(setting, word, expected))
        };
        list(setting).into_iter().map(parse).collect::<Result<Vec<_>, _>>()
    };
    let mut ipv6 = match arguments.setting(name, "ipv6") {
        None | Some("auto") => Ipv6Config::default(),
        Some("static") => Ipv6Config { is_autoconfigured: false, ..Ipv6Config::default() },
        Some("off") => Ipv6Config::off(),
        Some(other) => return Err(invalid("ipv6", other, "expected auto, static or off")),
    };
    if let Some(text) = arguments.setting(name, "ipv6-secret") {
        let secret = parse_secret(text);
        // Not the value: it is a secret.
        let why = "expected 64 hexadecimal digits";
        ipv6.stable_secret = Some(secret.ok_or_else(|| invalid("ipv6-secret", "…", why))?);
    }
    // What is listed is what is used; nothing listed is DHCP.
    let words = list("address");
    let (mut ipv4, mut has_dhcp) = (None, words.is_empty());
    for word in &words {
        let expected = "expected dhcp, none, or an address and a prefix length such as \
                        192.0.2.2/24 or 2001:db8::2/64";
        match *word {
            "dhcp" => has_dhcp = true,
            "none" => {}
            _ => match parse_prefix(word).ok_or_else(|| invalid("address", word, expected))? {
                (IpAddr::V4(_), 33..) => {
                    return Err(invalid("address", word, "a prefix has at most 32 bits"));
                }
                (IpAddr::V4(address), len) if ipv4.is_none() => ipv4 = Some((address, len)),
                (IpAddr::V4(_), _) => {
                    return Err(invalid("address", word, "a stack has one IPv4 address"));
                }
                (IpAddr::V6(_), _) if !ipv6.is_enabled => {
                    return Err(invalid("address", word, "IPv6 is off"));
                }
                (IpAddr::V6(address), len) => ipv6.addresses.push((address, len)),
            },
        }
    }
    if has_dhcp && ipv4.is_some() {
        let text = arguments.setting(name, "address").unwrap_or_default();
        return Err(invalid("address", text, "either dhcp or an IPv4 address"));
    }
    let (mut gateway, mut dns, mut routes) = (None, Vec::new(), Vec::new());
    for address in addresses_of("gateway")? {
        match address {
            IpAddr::V4(address) if ipv4.is_some() && gateway.is_none() => gateway = Some(address),
            IpAddr::V4(_) => {
                let why = "one goes with a static IPv4 address; DHCP brings its own";
                return Err(invalid("gateway", &address.to_string(), why));
            }
            IpAddr::V6(_) => routes.push(StaticRoute {
                destination: Ipv6Addr::UNSPECIFIED.into(),
                prefix_len: 0,
                gateway: address,
            }),
        }
    }
    for address in addresses_of("dns")? {
        match address {
            IpAddr::V4(address) if ipv4.is_some() => dns.push(address),
            IpAddr::V4(_) => {
                let why = "it goes with a static IPv4 address";
                return Err(invalid("dns", &address.to_string(), why));
            }
            IpAddr::V6(address) => ipv6.dns.push(address),
        }
    }
    for word in list("route") {
        let parsed = word.split_once(" via ").and_then(|(prefix, gateway)| {
            let (destination, prefix_len) = parse_prefix(prefix.trim())?;
            let gateway = gateway.trim().parse().ok()?;
            Some(StaticRoute { destination, prefix_len, gateway })
        });
        let expected = "expected PREFIX/LEN via ROUTER, such as 198.51.100.0/24 via 192.0.2.1";
        routes.push(parsed.ok_or_else(|| invalid("route", word, expected))?);
    }
    let ipv4 = match ipv4 {
        Some((address, prefix_len)) => AddressConfig::Static { address, prefix_len, gateway, dns },
        None if has_dhcp => AddressConfig::Dhcp { hostname: None },
        None => AddressConfig::Off,
    };
    Ok(Addressing { ipv4, ipv6, routes })
}

/// An address and a prefix's length.
fn parse_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, len) = text.split_once('/')?;
    Some((address.parse().ok()?, len.parse().ok()?))
}

/// 64 hexadecimal digits.
fn parse_secret(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.try_into().ok().filter(|_| digits.len() == 64)
}

#[cfg(test)]
mod tests {
    use super::super::spec::Program;
    use super::*;
    use std::net::Ipv4Addr;

    fn parse_all(words: &[&str]) -> Result<Addressing, WiringError> {
        let program = Program { about: "", devices: &[], arguments: &[] };
        let settings = ["address", "gateway", "dns", "route", "ipv6", "ipv6-secret"];
        let settings = settings.map(|setting| format!("n.{setting}"));
        let words = words.iter().map(|word| word.to_string());
        addressing("n", &Arguments::parse(words, &program, &settings).unwrap())
    }

    fn parse(words: &[&str]) -> Result<AddressConfig, WiringError> {
        parse_all(words).map(|addressing| addressing.ipv4)
    }

    #[test]
    fn both_families_are_what_is_listed() {
        let all = parse_all(&[]).unwrap();
        assert!(all.ipv6.is_enabled && all.ipv6.is_autoconfigured && all.routes.is_empty());
        let all = parse_all(&[
            "--n.address=10.0.0.2/24,2001:db8::2/64,fd00::2/48",
            "--n.gateway=10.0.0.1,fe80::1",
            "--n.dns=10.0.0.53,2001:db8::53",
            "--n.route=198.51.100.0/24 via 10.0.0.9,2001:db8:5::/48 via fe80::9",
            "--n.ipv6=static",
            &format!("--n.ipv6-secret={}", "0f".repeat(32)),
        ])
        .unwrap();
        assert!(matches!(all.ipv4, AddressConfig::Static { gateway: Some(_), .. }));
        assert!(!all.ipv6.is_autoconfigured);
        assert_eq!(all.ipv6.addresses[0], ("2001:db8::2".parse().unwrap(), 64));
        assert_eq!(all.ipv6.addresses[1], ("fd00::2".parse().unwrap(), 48));
        assert_eq!(all.ipv6.dns, ["2001:db8::53".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(all.ipv6.stable_secret, Some([0x0f; 32]));
        let routes: Vec<String> = all.routes.iter().map(StaticRoute::to_string).collect();
        assert_eq!(
            routes,
            ["::/0 via fe80::1", "198.51.100.0/24 via 10.0.0.9", "2001:db8:5::/48 via fe80::9"]
        );
        // Of one family only.
        assert_eq!(parse(&["--n.address=2001:db8::2/64"]).unwrap(), AddressConfig::Off);
        assert_eq!(parse(&["--n.address=none"]).unwrap(), AddressConfig::Off);
        assert!(matches!(
            parse(&["--n.address=dhcp,2001:db8::2/64"]),
            Ok(AddressConfig::Dhcp { .. })
        ));
        assert!(!parse_all(&["--n.ipv6=off"]).unwrap().ipv6.is_enabled);
    }

    #[test]
    fn dhcp_unless_an_address_is_given() {
        assert!(matches!(parse(&[]), Ok(AddressConfig::Dhcp { .. })));
        assert!(matches!(parse(&["--n.address=dhcp"]), Ok(AddressConfig::Dhcp { .. })));
        let fixed = parse(&["--n.address=10.0.0.2/24", "--n.gateway=10.0.0.1"]);
        let Ok(AddressConfig::Static { address, prefix_len: 24, gateway, .. }) = fixed else {
            panic!("{fixed:?}");
        };
        assert_eq!(address, Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
    }

    fn parse_limits(text: &str, memory_bytes: u64) -> Result<Limits, WiringError> {
        let program = Program { about: "", devices: &[], arguments: &[] };
        let words = [format!("--n.limits={text}")];
        let arguments = Arguments::parse(words, &program, &["n.limits".to_string()]).unwrap();
        limits("n", &arguments, Some(memory_bytes))
    }

    #[test]
    fn limits_follow_the_memory_and_then_the_settings() {
        let plenty = parse_limits("", 1 << 34).unwrap();
        assert_eq!(plenty.tcp_total_bytes, Limits::default().tcp_total_bytes);
        assert_eq!(parse_limits("", 8 << 20).unwrap().tcp_total_bytes, 2 << 20);
        let given = parse_limits("total-bytes=100000,backlog=7", 8 << 20).unwrap();
        assert_eq!((given.tcp_total_bytes, given.tcp_accept_backlog), (100_000, 7));
        for name in LIMIT_NAMES {
            assert!(parse_limits(&format!("{name}=1"), 1 << 30).is_ok(), "{name}");
        }
    }

    #[test]
    fn congestion_control_is_chosen_by_name() {
        let parse = |word: &str| {
            let program = Program { about: "", devices: &[], arguments: &[] };
            let settings = ["n.congestion".to_string()];
            let arguments = Arguments::parse([word.to_string()], &program, &settings).unwrap();
            limits("n", &arguments, None).map(|limits| limits.tcp_congestion)
        };
        assert_eq!(parse("--n.congestion=newreno").ok(), Some(CongestionControl::NewReno));
        assert_eq!(parse("--n.congestion=cubic").ok(), Some(CongestionControl::Cubic));
        let error = parse("--n.congestion=bbr").unwrap_err().to_string();
        assert!(error.contains("n.congestion") && error.contains("newreno"), "{error}");
    }

    #[test]
    fn a_limit_that_does_not_exist_is_named_with_those_that_do() {
        let error = parse_limits("conections=3", 1 << 30).unwrap_err().to_string();
        assert!(error.contains("`conections`") && error.contains("connections,"), "{error}");
        assert!(parse_limits("backlog=x", 1 << 30).unwrap_err().to_string().contains("backlog=x"));
    }

    #[test]
    fn a_wrong_address_is_named_with_what_would_be_right() {
        for (words, named) in [
            (&["--n.address=10.0.0.2"][..], "n.address=10.0.0.2"),
            (&["--n.address=10.0.0.2/33"][..], "32 bits"),
            (&["--n.address=10.0.0.2/24", "--n.gateway=x"][..], "n.gateway=x"),
            (&["--n.gateway=10.0.0.1"][..], "static"),
            (&["--n.dns=10.0.0.1"][..], "static"),
            (&["--n.address=10.0.0.2/24,10.0.0.3/24"][..], "one IPv4 address"),
            (&["--n.address=dhcp,10.0.0.3/24"][..], "either"),
            (&["--n.address=2001:db8::1"][..], "n.address=2001:db8::1"),
            (&["--n.address=2001:db8::1/64", "--n.ipv6=off"][..], "IPv6 is off"),
            (&["--n.ipv6=perhaps"][..], "n.ipv6=perhaps"),
            (&["--n.ipv6-secret=12"][..], "64 hexadecimal"),
            (&["--n.route=10.1.0.0/16"][..], "via"),
            (&["--n.route=10.1.0.0/16 via x"][..], "n.route=10.1.0.0/16 via x"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
