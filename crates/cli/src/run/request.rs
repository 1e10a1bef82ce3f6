//! What `--net`, `--publish`, `--block` and `--memory` mean.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use crate::image::manifest::is_name;

/// `--net [DEVICE:]user` or `--net [DEVICE:]tap=INTERFACE[,mac=MAC]`, and on Xen
/// `bridge=BRIDGE[,mac=MAC]` and `backend=DOMAIN[,mac=MAC]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Net {
    /// The stack or interface it is for; without, every one that no other `--net` names.
    pub(crate) device: Option<String>,
    /// What its network card is connected to.
    pub(crate) link: Link,
    /// The card's address, when the one made from the names would collide.
    pub(crate) mac: Option<Mac>,
}

/// What a network card is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// QEMU's user networking: outgoing connections, and ports that are published.
    User,
    /// A TAP interface of this computer.
    Tap {
        /// Its name.
        interface: String,
    },
    /// A bridge of a Xen host's dom0.
    Bridge {
        /// Its name.
        bridge: String,
    },
    /// A Xen guest that serves network cards: a driver domain.
    Backend {
        /// Its name.
        domain: String,
    },
}

impl Link {
    /// As `--net` writes it.
    pub(crate) fn typed(&self) -> String {
        match self {
            Link::User => "user".to_owned(),
            Link::Tap { interface } => format!("tap={interface}"),
            Link::Bridge { bridge } => format!("bridge={bridge}"),
            Link::Backend { domain } => format!("backend={domain}"),
        }
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no Ethernet address such as 52:54:00:12:34:56");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        // IEEE 802: the lowest bit of the first octet marks a group, which no card can be.
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(format!("{text} is a group's address; a card's first octet is even"));
        }
        Ok(Self(bytes))
    }
}

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A MAC has colons too: the device's name ends at a colon before any `=`.
        let head = text.split('=').next().unwrap_or(text);
        let (device, rest) = match head.split_once(':') {
            Some((device, _)) => (Some(device), &text[device.len() + 1..]),
            None => (None, text),
        };
        if let Some(device) = device.filter(|device| !is_name(device)) {
            return Err(format!("{device:?} is no name of a stack or an interface"));
        }
        let (link, mac) = match rest.split_once(',') {
            None => (rest, None),
            Some((link, option)) => {
                let mac = option.strip_prefix("mac=").ok_or("behind the comma: mac=MAC")?;
                (link, Some(mac.parse()?))
            }
        };
        let link = match link.split_once('=') {
            None if link == "user" => Link::User,
            Some(("tap", name)) => Link::Tap { interface: interface_name(name)? },
            Some(("bridge", name)) => Link::Bridge { bridge: interface_name(name)? },
            Some(("backend", domain)) => Link::Backend { domain: domain_name(domain)? },
            _ => {
                return Err("expected user, tap=INTERFACE, bridge=BRIDGE or backend=DOMAIN".into());
            }
        };
        Ok(Self { device: device.map(str::to_owned), link, mac })
    }
}

/// A name that Linux gives to a network interface.
fn interface_name(name: &str) -> Result<String, String> {
    // IFNAMSIZ is 16 with the final NUL.
    let valid = (1..16).contains(&name.len())
        && !name.contains(|c: char| c.is_whitespace() || c == '/' || c.is_control());
    if valid {
        Ok(name.to_owned())
    } else {
        Err(format!("{name:?} is no name of a network interface"))
    }
}

/// A domain's name: what xl's configuration carries without quoting, and what xenstore
/// and file names take.
pub(crate) fn domain_name(name: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 64;
    let valid = (1..=BYTES_MAX).contains(&name.len())
        && !name.starts_with(['-', '.'])
        // Digits alone would be a domain's number, which is another one's after a restart.
        && name.bytes().any(|byte| byte.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte));
    if valid {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "{name:?} is no name of a domain: letters, digits, - _ . and +, a letter among them, at most 64"
        ))
    }
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// `--publish [udp:][ADDRESS:]HOST:GUEST[@STACK]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Publish {
    /// The transport.
    pub(crate) protocol: Protocol,
    /// The address of this computer that is listened on.
    pub(crate) address: Ipv4Addr,
    /// The port of this computer; 0 takes a free one.
    pub(crate) host: u16,
    /// The machine's port.
    pub(crate) guest: u16,
    /// The stack, when there are several.
    pub(crate) stack: Option<String>,
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, stack) = match text.rsplit_once('@') {
            Some((_, stack)) if !is_name(stack) => {
                return Err(format!("{stack:?} is no name of a stack"));
            }
            Some((rest, stack)) => (rest, Some(stack.to_owned())),
            None => (text, None),
        };
        let (protocol, rest) = match rest.split_once(':') {
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            Some(("udp", rest)) => (Protocol::Udp, rest),
            _ => (Protocol::Tcp, rest),
        };
        let port = |what: &str, text: &str| {
            // u16's parser takes a leading plus, which is nobody's port.
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| text.parse::<u16>().ok()).flatten();
            number.ok_or_else(|| format!("{what} {text:?} is not a number from 0 to 65535"))
        };
        let parts: Vec<&str> = rest.split(':').collect();
        let (address, host, guest) = match parts.as_slice() {
            [host, guest] => (Ipv4Addr::LOCALHOST, host, guest),
            [address, host, guest] => {
                let address = address
                    .parse()
                    .map_err(|_| format!("{address:?} is not an IPv4 address of this computer"))?;
                (address, host, guest)
            }
            _ => return Err("expected HOST:GUEST, such as 8443:443 or udp:5353:53".to_owned()),
        };
        let (host, guest) = (port("the host's port", host)?, port("the machine's port", guest)?);
        if guest == 0 {
            return Err("the machine's port cannot be 0".to_owned());
        }
        Ok(Self { protocol, address, host, guest, stack })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", self.protocol, self.address, self.host)
    }
}

/// `--block NAME=FILE[,ro]`, and on Xen `--block NAME=backend=DOMAIN[/DISK][,ro]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The device's name in the manifest.
    pub(crate) name: String,
    /// What holds the sectors.
    pub(crate) disk: Disk,
    /// Writes are refused.
    pub(crate) read_only: bool,
}

/// What holds a block device's sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// A file, or a disk of this computer.
    File(PathBuf),
    /// A disk that another Xen guest serves: a driver domain.
    Backend {
        /// The guest's name.
        domain: String,
        /// What that guest calls the disk.
        target: String,
    },
}

impl FromStr for Block {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, disk)) = text.split_once('=') else {
            return Err("expected NAME=FILE, where NAME is a block device of the image".to_owned());
        };
        if !is_name(name) {
            return Err(format!("{name:?} is no name of a device"));
        }
        let (disk, read_only) = match disk.strip_suffix(",ro") {
            Some(disk) => (disk, true),
            None => (disk, false),
        };
        if disk.is_empty() {
            return Err(format!("which file? {name}=FILE"));
        }
        // A file of that name is still to be had, as ./backend=….
        let disk = match disk.strip_prefix("backend=") {
            None => Disk::File(PathBuf::from(disk)),
            Some(backend) => {
                let (domain, target) = backend.split_once('/').unwrap_or((backend, name));
                if target.is_empty() || target.contains(char::is_control) {
                    return Err(format!("{target:?} is no name of a disk"));
                }
                Disk::Backend { domain: domain_name(domain)?, target: target.to_owned() }
            }
        };
        Ok(Self { name: name.to_owned(), disk, read_only })
    }
}

/// `--memory 64M`: bytes, as a whole number of KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Memory {
    /// Size in bytes.
    pub(crate) bytes: u64,
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const KIB: u64 = 1024;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = match unit.to_ascii_lowercase().as_str() {
            "k" | "kib" => KIB,
            "" | "m" | "mib" => KIB * KIB,
            "g" | "gib" => KIB * KIB * KIB,
            _ => {
                return Err("expected a size such as 64M, 512K or 1G (a bare number is MiB)".into());
            }
        };
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        match bytes {
            Some(0) => Err("a machine needs some memory".to_owned()),
            // What x86-64's four-level page tables can address (48 bits, half for each sign).
            Some(bytes) if bytes > 1 << 46 => Err("more than 64 TiB".to_owned()),
            Some(bytes) => Ok(Self { bytes }),
            None => Err(format!("{text:?} is not a size such as 64M")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn publish_takes_protocol_address_and_stack() {
        let parsed: Publish = "8443:443".parse().unwrap();
        assert_eq!((parsed.protocol, parsed.host, parsed.guest), (Protocol::Tcp, 8443, 443));
        assert_eq!(parsed.address, Ipv4Addr::LOCALHOST);
        let parsed: Publish = "udp:0.0.0.0:5353:53@dns".parse().unwrap();
        assert_eq!((parsed.protocol, parsed.address), (Protocol::Udp, Ipv4Addr::UNSPECIFIED));
        assert_eq!(parsed.stack.as_deref(), Some("dns"));
        assert_eq!("tcp:0:80".parse::<Publish>().unwrap().host, 0);
    }

    #[test]
    fn publish_refuses_what_is_no_port() {
        for (text, named) in [
            ("8443", "HOST:GUEST"),
            ("70000:443", "70000"),
            ("8443:0", "cannot be 0"),
            ("8443:https", "https"),
            ("+1:2", "+1"),
            ("a:b:1:2", "HOST:GUEST"),
            ("localhost:1:2", "localhost"),
            ("1:2@", "stack"),
            ("", "HOST:GUEST"),
        ] {
            let error = text.parse::<Publish>().unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn net_takes_user_and_tap() {
        let user: Net = "user".parse().unwrap();
        assert_eq!(user, Net { device: None, link: Link::User, mac: None });
        let tap: Net = "service:tap=tap0,mac=52:54:00:00:00:02".parse().unwrap();
        assert_eq!(tap.device.as_deref(), Some("service"));
        assert_eq!(tap.mac, Some(Mac([0x52, 0x54, 0, 0, 0, 2])));
        assert_eq!(tap.link, Link::Tap { interface: "tap0".into() });
        for text in [
            "",
            "tap",
            "tap=",
            "tap=a/b",
            "tap=aaaaaaaaaaaaaaaa",
            "bridge",
            "bridge=",
            "user=x",
            "backend=",
            "backend=-f",
            "backend=a b",
            "backend=12",
            "backend=a,bridge=b",
            "a b:user",
            "tap=t,mac=53:54:00:00:00:02",
            "tap=t,mac=1",
            "tap=t,up",
        ] {
            assert!(text.parse::<Net>().is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn net_takes_a_bridge_and_a_driver_domain() {
        for text in ["user", "tap=tap0", "bridge=xenbr0", "backend=firewall", "backend=a-12"] {
            let net: Net = format!("service:{text},mac=00:16:3e:00:00:01").parse().unwrap();
            assert_eq!(net.link.typed(), text);
            assert_eq!(net.mac, Some(Mac([0, 0x16, 0x3e, 0, 0, 1])));
        }
    }

    #[test]
    fn block_takes_commas_in_paths() {
        let block: Block = "data=/tmp/a,b=c.img,ro".parse().unwrap();
        assert_eq!(block.disk, Disk::File("/tmp/a,b=c.img".into()));
        assert!(block.read_only);
        for text in ["data", "data=", "=f", "a b=f", "data=,ro", "data=backend=", "d=backend=a/"] {
            assert!(text.parse::<Block>().is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn block_takes_the_disk_of_a_driver_domain() {
        let disk = |text: &str| text.parse::<Block>().unwrap().disk;
        let of = |target: &str| Disk::Backend { domain: "store".into(), target: target.into() };
        assert_eq!(disk("data=backend=store"), of("data"));
        assert_eq!(disk("data=backend=store/pool/a,ro"), of("pool/a"));
        assert_eq!(disk("data=./backend=store"), Disk::File("./backend=store".into()));
    }

    #[test]
    fn memory_has_units() {
        let mib = |text: &str| text.parse::<Memory>().map(|memory| memory.bytes >> 20);
        assert_eq!(mib("64"), Ok(64));
        assert_eq!(mib("64M"), Ok(64));
        assert_eq!(mib("65536k"), Ok(64));
        assert_eq!(mib("1GiB"), Ok(1024));
        for text in ["", "M", "0", "64X", "-1", "1.5G", "99999999999999999999", "1024T", "999999G"]
        {
            assert!(mib(text).is_err(), "{text} was accepted");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Publish>();
            let _ = text.parse::<Net>();
            let _ = text.parse::<Block>();
            let _ = text.parse::<Memory>();
            let _ = text.parse::<Mac>();
        }

        #[test]
        fn ports_round_trip(host: u16, guest in 1..=u16::MAX, udp: bool) {
            let protocol = if udp { "udp" } else { "tcp" };
            let parsed: Publish = format!("{protocol}:{host}:{guest}").parse().unwrap();
            prop_assert_eq!((parsed.host, parsed.guest), (host, guest));
            prop_assert_eq!(parsed.protocol.to_string(), protocol);
        }

        #[test]
        fn macs_round_trip(mut bytes: [u8; 6]) {
            bytes[0] = (bytes[0] & !1) | 2;
            prop_assert_eq!(Mac(bytes).to_string().parse::<Mac>().unwrap(), Mac(bytes));
        }
    }
}
