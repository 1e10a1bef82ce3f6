//! A stack over a network interface: its settings on the command line, and its start.

use super::arguments::{Arguments, WiringError};
use crate::Stack;
use fata_device::Nic;
use fata_net::{AddressConfig, Config, Limits};
use std::net::Ipv4Addr;

/// Settings that every stack of ours has, whatever its interface, with their help.
pub(super) const LIMITS_HELP: &str = "What the stack may use: NAME=NUMBER,…; see docs/limits.md";

/// Settings of a stack over a card of the machine's, with their help.
#[cfg_attr(
    not(any(fata_target = "virtio", fata_target = "xen")),
    expect(dead_code, reason = "a process has a choice of its own")
)]
pub(super) const SETTINGS: [(&str, &str); 5] = [
    ("address", "dhcp, or A.B.C.D/LEN [default: dhcp]"),
    ("gateway", "With a static address: the router's"),
    ("dns", "With a static address: the resolver's"),
    ("limits", LIMITS_HELP),
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
    let config = Config {
        address: address(name, arguments)?,
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

/// The address that the settings ask for: DHCP, unless one is given.
fn address(name: &str, arguments: &Arguments) -> Result<AddressConfig, WiringError> {
    let invalid = |setting: &str, value: &str, reason: &str| WiringError::Invalid {
        name: format!("{name}.{setting}"),
        value: value.to_string(),
        reason: reason.to_string(),
    };
    let one = |setting: &str| match arguments.setting(name, setting) {
        None => Ok(None),
        Some(text) => text
            .parse::<Ipv4Addr>()
            .map(Some)
            .map_err(|_| invalid(setting, text, "expected an IPv4 address such as 192.0.2.1")),
    };
    let (gateway, dns) = (one("gateway")?, one("dns")?);
    match arguments.setting(name, "address") {
        None | Some("dhcp") => match (gateway, dns) {
            (None, None) => Ok(AddressConfig::Dhcp { hostname: None }),
            (Some(address), _) => Err(invalid(
                "gateway",
                &address.to_string(),
                "it goes with a static address; DHCP brings its own",
            )),
            (None, Some(address)) => {
                Err(invalid("dns", &address.to_string(), "it goes with a static address"))
            }
        },
        Some(text) => {
            let expected = "expected dhcp, or an address and a prefix length such as 192.0.2.2/24";
            let parsed = text
                .split_once('/')
                .and_then(|(address, len)| Some((address.parse().ok()?, len.parse().ok()?)));
            let (address, prefix_len): (Ipv4Addr, u8) =
                parsed.ok_or_else(|| invalid("address", text, expected))?;
            if prefix_len > 32 {
                return Err(invalid("address", text, "a prefix has at most 32 bits"));
            }
            Ok(AddressConfig::Static {
                address,
                prefix_len,
                gateway,
                dns: dns.into_iter().collect(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::Program;
    use super::*;

    fn parse(words: &[&str]) -> Result<AddressConfig, WiringError> {
        let program = Program { about: "", devices: &[], arguments: &[] };
        let settings = ["n.address", "n.gateway", "n.dns"].map(String::from);
        let words = words.iter().map(|word| word.to_string());
        address("n", &Arguments::parse(words, &program, &settings).unwrap())
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
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
