//! The manifest's devices and the command line's, brought together: every device that the image
//! names gets exactly one thing of this computer, and nothing is left over.

use std::collections::HashSet;
use std::os::unix::fs::FileTypeExt as _;

use crate::digest::fnv1a;
use crate::failure::{Exit, Failure, Result};
use crate::image::manifest::Manifest;
use crate::package::list;
use crate::run::request::{Block, Link, Mac, Net, Publish};
use crate::suggest::did_you_mean;

/// A virtio block device's serial, by which the machine finds it, has 20 bytes (virtio 1.2,
/// section 5.2.6: VIRTIO_BLK_T_GET_ID).
const SERIAL_BYTES_MAX: usize = 20;

/// Size of a sector in bytes (virtio 1.2, section 5.2.4: capacity is in 512-byte sectors).
const SECTOR_BYTES: u64 = 512;

/// A stack and what its network card is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    /// The stack's name.
    pub(crate) stack: String,
    /// Its Ethernet address.
    pub(crate) mac: Mac,
    /// What it is connected to.
    pub(crate) link: Link,
    /// Ports of this computer that lead to it.
    pub(crate) published: Vec<Publish>,
}

/// All devices of one run, in the manifest's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    /// Network cards, one per stack.
    pub(crate) cards: Vec<Card>,
    /// Disks.
    pub(crate) blocks: Vec<Block>,
}

/// Matches `nets`, `blocks` and `published` with the devices of `manifest`.
pub(crate) fn attach(
    manifest: &Manifest,
    nets: &[Net],
    blocks: &[Block],
    published: &[Publish],
) -> Result<Devices> {
    for device in &manifest.devices {
        if !["stack", "block"].contains(&device.kind.as_str()) {
            let what = format!(
                "device {} of {} is a {}, which this tool cannot attach",
                device.name, manifest.package, device.kind
            );
            return Err(refused(what).help("update `fata`"));
        }
    }
    let mut cards = cards(manifest, nets)?;
    publish(manifest, &mut cards, published)?;
    Ok(Devices { cards, blocks: disks(manifest, blocks)? })
}

fn refused(what: String) -> Failure {
    Failure::new(Exit::Refused, what)
}

fn names<'a>(manifest: &'a Manifest, kind: &'a str) -> Vec<&'a str> {
    manifest.devices_of(kind).map(|device| device.name.as_str()).collect()
}

/// A device that the image does not have, with those that it has.
fn unknown(manifest: &Manifest, kind: &str, what_for: &str, name: &str) -> Failure {
    let known = names(manifest, kind);
    let near = did_you_mean(name, known.iter().copied());
    let what = format!("{} has no {kind} device {name}{near}", manifest.package);
    refused(what).help(if known.is_empty() {
        format!("it has no {kind} device at all: leave out {what_for}")
    } else {
        format!("its {kind} devices: {}", list(known))
    })
}

fn cards(manifest: &Manifest, nets: &[Net]) -> Result<Vec<Card>> {
    let stacks = names(manifest, "stack");
    let mut named = HashSet::new();
    for net in nets {
        if stacks.is_empty() {
            let what = format!("{} has no stack: there is nothing to connect", manifest.package);
            return Err(refused(what).help("leave out --net"));
        }
        if let Some(stack) = &net.stack
            && !stacks.contains(&stack.as_str())
        {
            return Err(unknown(manifest, "stack", "--net", stack));
        }
        if !named.insert(net.stack.as_deref()) {
            let whose = net.stack.as_deref().unwrap_or("the stacks");
            let what = format!("--net is given twice for {whose}");
            return Err(refused(what).help("with several stacks: --net STACK:user, STACK:tap=NAME"));
        }
    }
    let link_of = |stack: &str| {
        nets.iter()
            .find(|net| net.stack.as_deref() == Some(stack))
            .or_else(|| nets.iter().find(|net| net.stack.is_none()))
            .map_or(Link::User, |net| net.link.clone())
    };
    let mut interfaces = HashSet::new();
    let mut cards = Vec::new();
    for stack in stacks {
        let link = link_of(stack);
        let mut mac = mac_of(&manifest.package, stack);
        if let Link::Tap { interface, mac: given } = &link {
            if !interfaces.insert(interface.clone()) {
                let what = format!("two stacks of {} share {interface}", manifest.package);
                return Err(refused(what)
                    .help("a TAP interface carries one card: --net STACK:tap=NAME for each"));
            }
            mac = given.unwrap_or(mac);
        }
        cards.push(Card { stack: stack.to_owned(), mac, link, published: Vec::new() });
    }
    Ok(cards)
}

/// A locally administered address that is always the same for this stack of this package, so that a
/// DHCP server gives it the same lease on every boot.
pub(crate) fn mac_of(package: &str, stack: &str) -> Mac {
    let hash = fnv1a(format!("{package}/{stack}").as_bytes()).to_le_bytes();
    // 52:54:00 is the customary prefix of virtual machines; 0x52 has the "local" bit set.
    Mac([0x52, 0x54, 0x00, hash[0], hash[1], hash[2]])
}

fn publish(manifest: &Manifest, cards: &mut [Card], published: &[Publish]) -> Result<()> {
    let mut taken = HashSet::new();
    for publish in published {
        if cards.is_empty() {
            let what = format!("{} has no stack: there is no port to publish", manifest.package);
            return Err(refused(what).help("leave out --publish"));
        }
        let fixed = (publish.protocol, publish.address, publish.host);
        if publish.host != 0 && !taken.insert(fixed) {
            return Err(Failure::new(Exit::Usage, format!("{publish} is published twice")));
        }
        let card = match &publish.stack {
            Some(stack) => cards
                .iter_mut()
                .find(|card| card.stack == *stack)
                .ok_or_else(|| unknown(manifest, "stack", "the @STACK", stack))?,
            None => {
                let user = cards.iter().position(|card| card.link == Link::User).unwrap_or(0);
                &mut cards[user]
            }
        };
        if let Link::Tap { interface, .. } = &card.link {
            let what = format!(
                "port {} cannot be published: {} is on {interface} and has an address of its own",
                publish.host, card.stack
            );
            return Err(refused(what).help("leave out --publish and connect to that address"));
        }
        card.published.push(publish.clone());
    }
    Ok(())
}

fn disks(manifest: &Manifest, blocks: &[Block]) -> Result<Vec<Block>> {
    let wanted = names(manifest, "block");
    for (index, block) in blocks.iter().enumerate() {
        if !wanted.contains(&block.name.as_str()) {
            return Err(unknown(manifest, "block", "--block", &block.name));
        }
        if blocks[..index].iter().any(|earlier| earlier.name == block.name) {
            return Err(refused(format!("--block {} is given twice", block.name)));
        }
    }
    let mut disks = Vec::new();
    for device in manifest.devices_of("block") {
        let name = &device.name;
        if name.len() > SERIAL_BYTES_MAX {
            let what = format!("device {name}: a block device's name has at most 20 bytes");
            return Err(refused(what).help("shorten it in the program with #[fata(name = \"…\")]"));
        }
        let given = blocks.iter().find(|block| block.name == *name);
        if given.is_none() && device.optional {
            continue;
        }
        let Some(block) = given else {
            let what = format!("{} needs the block device {name}", manifest.package);
            let mut help = format!("add --block {name}=FILE");
            if !device.help.is_empty() {
                help = format!("{help} ({})", device.help.trim_end_matches('.'));
            }
            return Err(
                refused(what).help(format!("{help}\n`truncate -s 64M FILE` makes an empty one"))
            );
        };
        check_file(block)?;
        disks.push(block.clone());
    }
    Ok(disks)
}

/// Whether the file can be the disk that it is to be, before QEMU finds out in its own words.
fn check_file(block: &Block) -> Result<()> {
    let Block { name, file, read_only } = block;
    let path = file.display();
    let opened = std::fs::OpenOptions::new().read(true).write(!read_only).open(file);
    let opened = opened.map_err(|error| {
        let failure = Failure::new(Exit::Io, format!("device {name}: cannot open {path}: {error}"));
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                failure.help(format!("`truncate -s 64M {path}` makes an empty disk"))
            }
            std::io::ErrorKind::PermissionDenied if !read_only => {
                failure.help(format!("--block {name}={path},ro opens it for reading only"))
            }
            _ => failure,
        }
    })?;
    let metadata =
        opened.metadata().map_err(|error| Failure::io(format!("read {path}"), &error))?;
    if metadata.file_type().is_block_device() {
        return Ok(());
    }
    if !metadata.is_file() {
        return Err(refused(format!("device {name}: {path} is neither a file nor a disk")));
    }
    if metadata.len() == 0 || metadata.len() % SECTOR_BYTES != 0 {
        let what = format!(
            "device {name}: {path} has {} bytes, which is no whole number of 512-byte sectors",
            metadata.len()
        );
        return Err(refused(what).help(format!("`truncate -s %512 {path}` rounds it up")));
    }
    Ok(())
}

/// Whether a TAP interface of that name is there and may be opened.
pub(crate) fn check_tap(interface: &str) -> Result<()> {
    let unavailable = |what: String| Failure::new(Exit::Resource, what);
    let directory = std::path::Path::new("/sys/class/net").join(interface);
    let create = format!(
        "as root: ip tuntap add {interface} mode tap user $USER && ip link set {interface} up"
    );
    if !directory.exists() {
        return Err(unavailable(format!("there is no network interface {interface}")).help(create));
    }
    if !directory.join("tun_flags").exists() {
        let what = format!("{interface} is not a TAP interface");
        return Err(unavailable(what).help("name another; `ip tuntap` lists those that are"));
    }
    let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    tun.map(|_| ()).map_err(|error| {
        unavailable(format!("{interface} cannot be used: /dev/net/tun: {error}"))
            .help("run as root, or ask for access to /dev/net/tun")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(devices: &str) -> Manifest {
        let text = format!(
            r#"{{"fata":1,"package":"web","version":"1.0.0","target":"virtio","devices":[{devices}]}}"#
        );
        Manifest::parse(text.as_bytes()).unwrap()
    }

    fn web() -> Manifest {
        manifest(
            r#"{"name":"service","kind":"stack"},{"name":"admin","kind":"stack"},
               {"name":"data","kind":"block","help":"Holds all."}"#,
        )
    }

    fn disk(name: &str, bytes: u64) -> (tempfile::NamedTempFile, Block) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        let block = Block { name: name.into(), file: file.path().to_owned(), read_only: false };
        (file, block)
    }

    #[test]
    fn every_device_gets_one_thing_in_the_manifests_order() {
        let (_file, block) = disk("data", 1024);
        let nets = ["admin:tap=tap7".parse().unwrap()];
        let published = ["8443:443".parse().unwrap(), "udp:53:53@service".parse().unwrap()];
        let devices = attach(&web(), &nets, std::slice::from_ref(&block), &published).unwrap();
        assert_eq!(devices.blocks, [block]);
        let [service, admin] = devices.cards.as_slice() else { panic!("{devices:?}") };
        assert_eq!((service.stack.as_str(), &service.link), ("service", &Link::User));
        assert_eq!(service.published.len(), 2);
        assert_eq!(admin.link, Link::Tap { interface: "tap7".into(), mac: None });
        assert_ne!(service.mac, admin.mac);
        assert_eq!(service.mac, mac_of("web", "service"));
        assert_eq!(service.mac.0[0] & 3, 2, "unicast and locally administered");
    }

    #[test]
    fn a_missing_device_is_named_with_what_it_is_for() {
        let failure = attach(&web(), &[], &[], &[]).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        let text = failure.to_string();
        assert!(text.contains("needs the block device data"), "{text}");
        assert!(text.contains("--block data=FILE (Holds all)"), "{text}");
    }

    #[test]
    fn an_optional_device_may_be_left_out() {
        let mut manifest = web();
        manifest.devices[2].optional = true;
        assert_eq!(attach(&manifest, &[], &[], &[]).unwrap().blocks, []);
    }

    #[test]
    fn unknown_devices_are_refused_with_the_known_ones() {
        let (_file, block) = disk("dta", 512);
        let text = attach(&web(), &[], &[block], &[]).unwrap_err().to_string();
        assert!(text.contains("did you mean data?") && text.contains("devices: data"), "{text}");
        let net = "servce:user".parse().unwrap();
        let text = attach(&web(), &[net], &[], &[]).unwrap_err().to_string();
        assert!(text.contains("did you mean service?"), "{text}");
        let lonely = manifest("");
        let publish = ["1:1".parse().unwrap()];
        assert!(attach(&lonely, &[], &[], &publish).unwrap_err().what.contains("no stack"));
        let user = ["user".parse().unwrap()];
        assert!(attach(&lonely, &user, &[], &[]).unwrap_err().what.contains("no stack"));
        let (_file, block) = disk("data", 512);
        let failure = attach(&lonely, &[], &[block], &[]).unwrap_err();
        assert!(failure.help.unwrap().contains("leave out --block"));
    }

    #[test]
    fn what_is_given_twice_is_refused() {
        let (_file, block) = disk("data", 512);
        let twice = [block.clone(), block.clone()];
        assert!(attach(&web(), &[], &twice, &[]).unwrap_err().what.contains("twice"));
        let nets = ["tap=t".parse().unwrap()];
        let shared = attach(&web(), &nets, std::slice::from_ref(&block), &[]).unwrap_err();
        assert!(shared.what.contains("share t"), "{shared}");
        let nets = ["user".parse().unwrap(), "user".parse().unwrap()];
        assert!(
            attach(&web(), &nets, std::slice::from_ref(&block), &[])
                .unwrap_err()
                .what
                .contains("twice")
        );
        let ports = ["80:1".parse().unwrap(), "80:2".parse().unwrap()];
        assert!(attach(&web(), &[], &[block], &ports).unwrap_err().what.contains("twice"));
    }

    #[test]
    fn a_tap_has_nothing_to_publish() {
        let (_file, block) = disk("data", 512);
        let nets = ["service:tap=t".parse().unwrap()];
        let ports = ["80:80@service".parse().unwrap()];
        let failure = attach(&web(), &nets, &[block], &ports).unwrap_err();
        assert!(failure.what.contains("address of its own"), "{failure}");
    }

    #[test]
    fn files_that_are_no_disks_are_refused() {
        let attach_one = |block: Block| attach(&web(), &[], &[block], &[]).unwrap_err();
        for bytes in [0, 1, 513] {
            let (_file, block) = disk("data", bytes);
            assert!(attach_one(block).what.contains("sectors"));
        }
        let block = |file: &str| Block { name: "data".into(), file: file.into(), read_only: true };
        assert_eq!(attach_one(block("/nonexistent")).exit, Exit::Io);
        assert!(attach_one(block("/tmp")).what.contains("neither"));
    }

    #[test]
    fn kinds_of_the_future_are_refused_by_name() {
        let future = manifest(r#"{"name":"eye","kind":"camera"}"#);
        assert!(attach(&future, &[], &[], &[]).unwrap_err().what.contains("camera"));
    }

    #[test]
    fn taps_that_are_none_are_told_apart() {
        assert!(check_tap("lo").unwrap_err().what.contains("not a TAP"));
        let missing = check_tap("nosuchtap0").unwrap_err();
        assert!(missing.help.unwrap().contains("ip tuntap add nosuchtap0"));
    }
}
