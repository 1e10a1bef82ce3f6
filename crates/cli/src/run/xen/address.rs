//! Addresses for guests of the testbed whose ports are published.
//!
//! A forward of QEMU's leads to an address, which must be known before the guest is. So such a stack
//! gets a static one instead of asking DHCP, from a range of its own. Several runs share a testbed;
//! each holds a lock on a file per address, and the kernel lets go of it however a run ends.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::failure::{Exit, Failure, Result};
use crate::run::arguments::Arguments;
use crate::run::devices::{Card, Devices};

/// The last numbers of the addresses: above those that QEMU's DHCP gives (15 to 30) and those that
/// people write down (50 and up, as examples do).
const NUMBERS: std::ops::RangeInclusive<u8> = 100..=199;

/// The testbed's network, see QEMU's user networking.
const NETWORK: [u8; 3] = [10, 0, 2];
/// Its prefix length.
const PREFIX: u8 = 24;
/// Its router.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Its resolver.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// An address that is this run's as long as this lives.
#[derive(Debug)]
pub(super) struct Lease {
    /// The stack that has it.
    pub(super) stack: String,
    /// The address.
    pub(super) address: Ipv4Addr,
    /// Keeps the lock; none for an address that the command line gave.
    _lock: Option<File>,
}

/// Gives every stack with published ports an address, and the program the settings that say so.
/// `directory` holds the locks.
pub(super) fn assign(
    directory: &Path,
    devices: &Devices,
    arguments: &mut Arguments,
) -> Result<Vec<Lease>> {
    let published = devices.cards.iter().filter(|card| !card.published.is_empty());
    let mut leases = Vec::new();
    for Card { device: stack, .. } in published {
        let lease = match arguments.setting(stack, "address") {
            Some(given) => {
                Lease { stack: stack.clone(), address: parse(stack, given)?, _lock: None }
            }
            None => {
                let lease = take(directory, stack)?;
                let settings = [
                    ("address", format!("{}/{PREFIX}", lease.address)),
                    ("gateway", GATEWAY.to_string()),
                    ("dns", RESOLVER.to_string()),
                ];
                for (setting, value) in settings {
                    if arguments.setting(stack, setting).is_none() {
                        arguments.words.push(format!("--{stack}.{setting}={value}"));
                        arguments.values.push((format!("{stack}.{setting}"), value));
                    }
                }
                lease
            }
        };
        leases.push(lease);
    }
    Ok(leases)
}

/// The address in a setting `A.B.C.D/LEN`.
fn parse(stack: &str, given: &str) -> Result<Ipv4Addr> {
    let (address, prefix) = given.split_once('/').unwrap_or((given, ""));
    if let Ok(address) = address.parse::<Ipv4Addr>()
        && prefix.parse::<u8>().is_ok_and(|prefix| prefix <= 32)
    {
        return Ok(address);
    }
    let what = format!("--{stack}.address={given}: a published port needs an address to lead to");
    Err(Failure::new(Exit::Refused, what)
        .help(format!("leave it out, or give A.B.C.D/LEN: --{stack}.address=10.0.2.50/24")))
}

/// The first address that nobody holds.
fn take(directory: &Path, stack: &str) -> Result<Lease> {
    for number in NUMBERS {
        let path = directory.join(format!("address-{number}"));
        let failed =
            |error: &std::io::Error| Failure::io(format!("lock {}", path.display()), error);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => {
                let [a, b, c] = NETWORK;
                let address = Ipv4Addr::new(a, b, c, number);
                return Ok(Lease { stack: stack.to_owned(), address, _lock: Some(file) });
            }
            Err(std::fs::TryLockError::WouldBlock) => {}
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(&error)),
        }
    }
    let what = "all hundred addresses for published stacks of this testbed are taken";
    Err(Failure::new(Exit::Resource, what).help("end some guests, or start another testbed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::devices::Role;
    use crate::run::request::{Link, Mac};

    fn devices(published: &[&str]) -> Devices {
        let card = |device: &str, published: Vec<_>| Card {
            device: device.into(),
            role: Role::Stack,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mac_given: false,
            link: Link::User,
            published,
        };
        let ports = published.iter().map(|text| text.parse().unwrap()).collect();
        Devices { cards: vec![card("service", ports), card("quiet", vec![])], ..Devices::default() }
    }

    #[test]
    fn published_stacks_get_addresses_that_nobody_else_has() {
        let directory = tempfile::tempdir().unwrap();
        let (mut first, mut second) = (Arguments::default(), Arguments::default());
        let devices = devices(&["8080:80", "udp:53:53"]);
        let held = assign(directory.path(), &devices, &mut first).unwrap();
        assert_eq!(held.len(), 1, "the other stack asks DHCP");
        assert_eq!((held[0].stack.as_str(), held[0].address), ("service", [10, 0, 2, 100].into()));
        assert_eq!(
            first.words,
            [
                "--service.address=10.0.2.100/24",
                "--service.gateway=10.0.2.2",
                "--service.dns=10.0.2.3"
            ]
        );
        let others = assign(directory.path(), &devices, &mut second).unwrap();
        assert_eq!(others[0].address, Ipv4Addr::new(10, 0, 2, 101));
        drop(held);
        let again = assign(directory.path(), &devices, &mut Arguments::default()).unwrap();
        assert_eq!(again[0].address, Ipv4Addr::new(10, 0, 2, 100), "it was given back");
    }

    #[test]
    fn an_address_of_the_command_lines_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let given = |address: &str| {
            let values = vec![("service.address".to_owned(), address.to_owned())];
            let mut arguments = Arguments { values, ..Arguments::default() };
            assign(directory.path(), &devices(&["8080:80"]), &mut arguments)
                .map(|leases| (leases[0].address, arguments.words))
        };
        let (address, words) = given("10.0.2.50/24").unwrap();
        assert_eq!((address, words), (Ipv4Addr::new(10, 0, 2, 50), vec![]));
        for wrong in ["dhcp", "10.0.2.50", "10.0.2.50/33", "fe80::1/64", ""] {
            let failure = given(wrong).unwrap_err();
            assert!(failure.help.unwrap().contains("leave it out"), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_finitely_many() {
        let directory = tempfile::tempdir().unwrap();
        let held: Vec<Lease> = NUMBERS.map(|_| take(directory.path(), "s").unwrap()).collect();
        assert_eq!(take(directory.path(), "s").unwrap_err().exit, Exit::Resource);
        drop(held);
        take(directory.path(), "s").unwrap();
    }
}
