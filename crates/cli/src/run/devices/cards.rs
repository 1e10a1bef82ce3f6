//! Network cards: which device gets which, what each is connected to, which ports lead to it.

use std::collections::{BTreeSet, HashSet};

use super::{Attached, CARDS, Card, Role, names, refused, unknown};
use crate::build::Target;
use crate::digest::fnv1a;
use crate::failure::{Exit, Failure, Result};
use crate::image::manifest::{Device, Manifest};
use crate::run::request::{Link, Mac, Net, Publish};

/// Every device that `--net` can name.
const CONNECTED: [&str; 3] = ["stack", "interface", "clients"];

/// The cards of `manifest`'s devices, those of its clients last.
pub(super) fn cards(
    manifest: &Manifest,
    target: Target,
    attached: Attached<'_>,
) -> Result<Vec<Card>> {
    let nets = attached.nets;
    check_nets(manifest, target, nets)?;
    let mut cards = Vec::new();
    for device in manifest.devices.iter().filter(|device| CARDS.contains(&device.kind.as_str())) {
        let net = nets
            .iter()
            .find(|net| net.device.as_deref() == Some(&device.name))
            .or_else(|| nets.iter().find(|net| net.device.is_none()));
        let link = net.map_or(attached.default_link, |net| &net.link);
        let role = if device.kind == "stack" { Role::Stack } else { Role::Interface };
        if target == Target::Unix && role == Role::Interface && *link == Link::User {
            // The host's sockets move no frames; a setting may name the TAP, or the program do
            // without.
            continue;
        }
        cards.push(card(manifest, &device.name, role, link, net.and_then(|net| net.mac)));
    }
    for device in manifest.devices_of("clients") {
        let theirs = nets.iter().filter(|net| net.device.as_deref() == Some(&device.name));
        for (index, net) in theirs.enumerate() {
            let name = format!("{}/{index}", device.name);
            let mut card = card(manifest, &name, Role::Client, &net.link, net.mac);
            card.device.clone_from(&device.name);
            cards.push(card);
        }
    }
    check_shared(manifest, target, &cards)?;
    Ok(cards)
}

fn card(manifest: &Manifest, name: &str, role: Role, link: &Link, mac: Option<Mac>) -> Card {
    Card {
        device: name.to_owned(),
        role,
        mac: mac.unwrap_or_else(|| mac_of(&manifest.package, name)),
        mac_given: mac.is_some(),
        link: link.clone(),
        published: Vec::new(),
    }
}

/// Each `--net` names something that the image has, once, and something that the target has.
fn check_nets(manifest: &Manifest, target: Target, nets: &[Net]) -> Result<()> {
    let known = names(manifest, &CONNECTED);
    let clients = names(manifest, &["clients"]);
    let mut named = HashSet::new();
    for net in nets {
        if known.is_empty() {
            let what = format!("{} has no stack: there is nothing to connect", manifest.package);
            return Err(refused(what).help("leave out --net"));
        }
        if let Some(device) = &net.device
            && !known.contains(&device.as_str())
        {
            return Err(unknown(manifest, &CONNECTED, "--net", device));
        }
        let device = net.device.as_deref();
        let is_clients = device.is_some_and(|device| clients.contains(&device));
        // Clients are as many as are named.
        if !is_clients && !named.insert(device) {
            let whose = device.unwrap_or("the stacks");
            let what = format!("--net is given twice for {whose}");
            return Err(refused(what).help("with several stacks: --net STACK:user, STACK:tap=NAME"));
        }
        if is_clients && target == Target::Xen {
            let whose = device.unwrap_or_default();
            let what = format!("--net {whose}: on Xen the clients come by themselves");
            return Err(refused(what).help(
                "start them with --net backend=NAME, where NAME is what --name calls this guest",
            ));
        }
        check_link(target, net)?;
    }
    Ok(())
}

/// The target has such a link.
fn check_link(target: Target, net: &Net) -> Result<()> {
    let typed = net.link.typed();
    match (&net.link, target) {
        (Link::Bridge { .. } | Link::Backend { .. }, Target::Unix | Target::Virtio) => {
            let what = format!("--net {typed} is for Xen, not for {}", target.as_str());
            Err(Failure::new(Exit::Usage, what).help("use -t xen, or --net tap=INTERFACE"))
        }
        (_, Target::Unix) if net.mac.is_some() => {
            let what = format!("--net {typed},mac=…: on unix the TAP has the address");
            Err(Failure::new(Exit::Usage, what).help("leave out the mac="))
        }
        _ => Ok(()),
    }
}

/// A TAP interface carries one card. In front of Xen's bridge it carries all.
fn check_shared(manifest: &Manifest, target: Target, cards: &[Card]) -> Result<()> {
    let mut interfaces = HashSet::new();
    for card in cards {
        if let Link::Tap { interface } = &card.link
            && target != Target::Xen
            && !interfaces.insert(interface)
        {
            let what = format!("two stacks of {} share {interface}", manifest.package);
            return Err(refused(what)
                .help("a TAP interface carries one card: --net STACK:tap=NAME for each"));
        }
    }
    for (index, card) in cards.iter().enumerate() {
        if let Some(other) = cards[..index].iter().find(|other| other.mac == card.mac) {
            let what =
                format!("{} and {} have the same MAC {}", other.device, card.device, card.mac);
            return Err(refused(what).help("give each its own: --net DEVICE:LINK,mac=MAC"));
        }
    }
    Ok(())
}

/// The devices that need a card's other end and have none: an interface on unix without a TAP, and
/// clients that nobody named. `has_setting` tells what settings give them.
pub(super) fn check_connected(
    manifest: &Manifest,
    target: Target,
    cards: &[Card],
    has_setting: impl Fn(&Device, &str) -> bool,
) -> Result<()> {
    for device in manifest.devices.iter().filter(|device| !device.optional) {
        let (name, package) = (&device.name, &manifest.package);
        let (setting, help) = match (device.kind.as_str(), target) {
            ("interface", Target::Unix) => ("tap", format!("add --net {name}:tap=INTERFACE")),
            ("clients", Target::Unix) => {
                ("taps", format!("add --net {name}:tap=INTERFACE for each client"))
            }
            ("clients", Target::Virtio) => {
                ("", format!("add --net {name}:tap=INTERFACE for each client"))
            }
            _ => continue,
        };
        if !cards.iter().any(|card| card.device == *name) && !has_setting(device, setting) {
            let what =
                format!("{package} needs something to connect its {} {name} to", device.kind);
            return Err(refused(what).help(help));
        }
    }
    Ok(())
}

/// A locally administered address that is always the same for this device of this package, so that
/// a DHCP server gives it the same lease on every boot.
pub(crate) fn mac_of(package: &str, device: &str) -> Mac {
    let hash = fnv1a(format!("{package}/{device}").as_bytes()).to_le_bytes();
    // 52:54:00 is the customary prefix of virtual machines; 0x52 has the "local" bit set.
    Mac([0x52, 0x54, 0x00, hash[0], hash[1], hash[2]])
}

/// Leads the published ports to their stacks.
pub(super) fn publish(
    manifest: &Manifest,
    cards: &mut [Card],
    published: &[Publish],
) -> Result<()> {
    let mut taken = HashSet::new();
    for publish in published {
        let fixed = (publish.protocol, publish.address, publish.host);
        if publish.host != 0 && !taken.insert(fixed) {
            return Err(Failure::new(Exit::Usage, format!("{publish} is published twice")));
        }
        let mut stacks = cards.iter_mut().filter(|card| card.role == Role::Stack);
        let card = match &publish.stack {
            Some(name) => stacks
                .find(|card| card.device == *name)
                .ok_or_else(|| unknown(manifest, &["stack"], "the @STACK", name))?,
            None => {
                let mut stacks: Vec<&mut Card> = stacks.collect();
                if stacks.is_empty() {
                    let package = &manifest.package;
                    let what = format!("{package} has no stack: there is no port to publish");
                    return Err(refused(what).help("leave out --publish"));
                }
                let user = stacks.iter().position(|card| card.link == Link::User).unwrap_or(0);
                stacks.swap_remove(user)
            }
        };
        if card.link != Link::User {
            let what = format!(
                "port {} cannot be published: {} is on {} and has an address of its own",
                publish.host,
                card.device,
                card.link.typed()
            );
            return Err(refused(what).help("leave out --publish and connect to that address"));
        }
        card.published.push(publish.clone());
    }
    Ok(())
}

/// Whether a TAP interface of that name is there and may be opened.
pub(crate) fn check_tap(interface: &str) -> Result<()> {
    let unavailable = |what: String| Failure::new(Exit::Resource, what);
    let create = format!(
        "as root: ip tuntap add {interface} mode tap user $USER && ip link set {interface} up"
    );
    // Of this process' network namespace. /sys/class/net is that of whoever mounted it, which is
    // another one under a plain `unshare --net`.
    let devices = "/proc/self/net/dev";
    let listed = std::fs::read_to_string(devices).map_err(|error| {
        unavailable(format!("cannot list network interfaces: {devices}: {error}"))
    })?;
    let here: BTreeSet<&str> = interfaces(&listed).collect();
    if !here.contains(interface) {
        return Err(unavailable(format!("there is no network interface {interface}")).help(create));
    }
    // What kind it is only /sys says; where that is another namespace's, opening the interface will
    // tell.
    let directory = std::path::Path::new("/sys/class/net");
    let is_ours = std::fs::read_dir(directory).is_ok_and(|entries| {
        let names = entries.flatten().filter(|entry| entry.path().is_dir());
        let names: BTreeSet<String> =
            names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.iter().map(String::as_str).eq(here.iter().copied())
    });
    if is_ours && !directory.join(interface).join("tun_flags").exists() {
        let what = format!("{interface} is not a TAP interface");
        return Err(unavailable(what).help("name another; `ip tuntap` lists those that are"));
    }
    let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    tun.map(|_| ()).map_err(|error| {
        unavailable(format!("{interface} cannot be used: /dev/net/tun: {error}"))
            .help("run as root, or ask for access to /dev/net/tun")
    })
}

/// The names in a text as that of /proc/net/dev: two lines of headings, then `  NAME: numbers`.
fn interfaces(text: &str) -> impl Iterator<Item = &str> {
    text.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim())
}
