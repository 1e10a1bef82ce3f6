//! The manifest's devices and the command line's, brought together: every device that the image
//! names gets exactly one thing of this computer, and nothing is left over.

mod cards;
mod disks;

use crate::build::Target;
use crate::failure::{Exit, Failure, Result};
use crate::image::manifest::{Device, Manifest};
use crate::package::list;
use crate::run::request::{Block, Link, Mac, Net, Publish};
use crate::suggest::did_you_mean;

pub(crate) use cards::{check_tap, mac_of};

/// Kinds of devices that are a network card: the n-th of them is the machine's n-th card.
const CARDS: [&str; 2] = ["stack", "interface"];

/// A network card, the device it is for and what it is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    /// The device's name.
    pub(crate) device: String,
    /// What the card is to the program.
    pub(crate) role: Role,
    /// Its Ethernet address.
    pub(crate) mac: Mac,
    /// Whether the command line gave that address.
    pub(crate) mac_given: bool,
    /// What it is connected to.
    pub(crate) link: Link,
    /// Ports of this computer that lead to it.
    pub(crate) published: Vec<Publish>,
}

/// What a card is to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// TCP and UDP run over it.
    Stack,
    /// The program moves its frames.
    Interface,
    /// One of those whom the program serves.
    Client,
}

/// All devices of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    /// Network cards: one per stack and interface in the manifest's order, then the clients'.
    pub(crate) cards: Vec<Card>,
    /// Disks, in the manifest's order.
    pub(crate) blocks: Vec<Block>,
    /// The program serves devices to other guests (Xen's `driver_domain`).
    pub(crate) serves: bool,
}

/// What the command line attaches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached<'a> {
    /// `--net`.
    pub(crate) nets: &'a [Net],
    /// `--block`.
    pub(crate) blocks: &'a [Block],
    /// `--publish`.
    pub(crate) published: &'a [Publish],
    /// What a card is connected to that no `--net` names.
    pub(crate) default_link: &'a Link,
    /// The files of the disks are this computer's, and can be looked at.
    pub(crate) files_are_here: bool,
}

/// Matches `attached` with the devices of `manifest`. `settings` knows which settings
/// (`--DEVICE.SETTING`) the program was given.
pub(crate) fn attach(
    manifest: &Manifest,
    target: Target,
    attached: Attached<'_>,
    settings: impl Fn(&str, &str) -> bool,
) -> Result<Devices> {
    for device in &manifest.devices {
        check_kind(manifest, target, device)?;
        check_settings(manifest, target, device, &settings)?;
    }
    let mut cards = cards::cards(manifest, target, attached)?;
    cards::check_connected(manifest, target, &cards, |device, setting| {
        settings(&device.name, setting)
    })?;
    cards::publish(manifest, &mut cards, attached.published)?;
    let serves = target == Target::Xen
        && manifest.devices.iter().any(|device| ["clients", "export"].contains(&&*device.kind));
    Ok(Devices { cards, blocks: disks::disks(manifest, target, attached)?, serves })
}

/// Whether there is such a device on the target.
fn check_kind(manifest: &Manifest, target: Target, device: &Device) -> Result<()> {
    let Device { name, kind, .. } = device;
    let there = match kind.as_str() {
        "stack" | "interface" | "clients" | "block" => true,
        "channel" => target != Target::Virtio,
        "export" => target == Target::Xen,
        _ => {
            let package = &manifest.package;
            let what =
                format!("device {name} of {package} is a {kind}, which this tool cannot attach");
            return Err(refused(what).help("update `fata`"));
        }
    };
    if there || device.optional {
        return Ok(());
    }
    let what = format!(
        "{} needs the device {name}, and the target {} has no {kind}",
        manifest.package,
        target.as_str()
    );
    Err(refused(what).help(match kind.as_str() {
        "channel" => "a channel leads to a neighbour on the same host: use -t xen or -t unix",
        _ => "only a Xen guest serves devices to other guests: use -t xen",
    }))
}

/// Devices that no option attaches, but a setting alone.
fn check_settings(
    manifest: &Manifest,
    target: Target,
    device: &Device,
    settings: &impl Fn(&str, &str) -> bool,
) -> Result<()> {
    let Device { name, optional, help: purpose, .. } = device;
    let (setting, value) = match (device.kind.as_str(), target) {
        ("channel", Target::Xen) => ("peer", "DOMAIN-NUMBER"),
        ("channel", Target::Unix) => ("path", "SOCKET"),
        _ => return Ok(()),
    };
    if *optional || settings(name, setting) {
        return Ok(());
    }
    let what = format!("{} needs to know where its channel {name} leads", manifest.package);
    let mut help = format!("add -- --{name}.{setting}={value}");
    if !purpose.is_empty() {
        help = format!("{help} ({})", purpose.trim_end_matches('.'));
    }
    Err(refused(what).help(help))
}

fn refused(what: String) -> Failure {
    Failure::new(Exit::Refused, what)
}

fn names<'a>(manifest: &'a Manifest, kinds: &'a [&str]) -> Vec<&'a str> {
    let devices = manifest.devices.iter();
    let meant = devices.filter(|device| kinds.contains(&device.kind.as_str()));
    meant.map(|device| device.name.as_str()).collect()
}

/// A device that the image does not have, with those that it has.
fn unknown(manifest: &Manifest, kinds: &[&str], what_for: &str, name: &str) -> Failure {
    let known = names(manifest, kinds);
    let near = did_you_mean(name, known.iter().copied());
    // The first kind stands for the others, which few programs have.
    let kind = kinds.first().copied().unwrap_or_default();
    let what = format!("{} has no {kind} device {name}{near}", manifest.package);
    refused(what).help(if known.is_empty() {
        format!("it has no {kind} device at all: leave out {what_for}")
    } else {
        format!("its {kind} devices: {}", list(known))
    })
}

#[cfg(test)]
mod tests;
