//! A stack over a network interface: its settings on the command line, and its start.

use super::arguments::{Arguments, WiringError};
use crate::Stack;
use fata_device::Nic;
use fata_net::{AddressConfig, Config};
use std::net::Ipv4Addr;

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
    let config = Config { address: address(name, arguments)?, ..Config::new(secret) };
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
