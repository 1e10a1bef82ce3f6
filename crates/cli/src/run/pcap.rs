//! `--pcap`: which card is captured into which file.
//!
//! On unix the program writes the frames of its TAP interfaces, as pcapng. On virtio QEMU does
//! (`filter-dump`), as pcap, which every tool reads that reads pcapng. On Xen tcpdump does in dom0, on
//! the other end of the guest's interface, as pcap too.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::build::Target;
use crate::failure::{Exit, Failure, Result};
use crate::run::devices::{Card, Role};
use crate::run::request::Link;

/// A card, by its place among the devices' cards, and the file that its frames go into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Capture {
    /// The card's place.
    pub(crate) card: usize,
    /// The file.
    pub(crate) file: String,
}

/// The captures that `--pcap FILE` asks for: into FILE itself if there is one card, else into a
/// file for each, with the device's name in front of FILE's extension. The files are made, so that
/// one that cannot be written is told before anything runs.
pub(crate) fn captures(
    target: Target,
    cards: &[Card],
    pcap: Option<&Path>,
) -> Result<Vec<Capture>> {
    let Some(path) = pcap else { return Ok(Vec::new()) };
    let captured: Vec<usize> =
        (0..cards.len()).filter(|card| can_capture(target, &cards[*card])).collect();
    if captured.is_empty() {
        return Err(nothing_to_capture(target, cards));
    }
    let mut captures = Vec::new();
    for card in &captured {
        let file = if captured.len() == 1 { path.into() } else { named(path, cards, *card) };
        File::create(&file).map_err(|error| {
            Failure::io(format!("write the capture {}", file.display()), &error)
        })?;
        let file = file.to_str().ok_or_else(|| {
            let what = format!("{}: arguments are UTF-8, this path is not", file.display());
            Failure::new(Exit::Usage, what)
        })?;
        captures.push(Capture { card: *card, file: file.to_owned() });
    }
    Ok(captures)
}

fn can_capture(target: Target, card: &Card) -> bool {
    match target {
        Target::Virtio => true,
        // Clients are not the program's own network; their TAP interfaces are this computer's.
        Target::Unix => matches!(card.link, Link::Tap { .. }) && card.role != Role::Client,
        // An interface that another guest serves has no end in dom0.
        Target::Xen => !matches!(card.link, Link::Backend { .. }),
    }
}

/// FILE with the device's name in it, and its number where several cards are for one device.
fn named(path: &Path, cards: &[Card], card: usize) -> PathBuf {
    let device = &cards[card].device;
    let of_device = |card: &&Card| card.device == *device;
    let label = if cards.iter().filter(of_device).count() == 1 {
        device.clone()
    } else {
        format!("{device}-{}", cards[..card].iter().filter(of_device).count())
    };
    let extension = path.extension().map_or(String::new(), |e| format!(".{}", e.display()));
    let stem = path.file_stem().unwrap_or_default().display().to_string();
    path.with_file_name(format!("{stem}.{label}{extension}"))
}

fn nothing_to_capture(target: Target, cards: &[Card]) -> Failure {
    let refused = |what: &str| Failure::new(Exit::Refused, format!("--pcap: {what}"));
    match target {
        _ if cards.is_empty() => refused("the program has no network card, so there are no frames"),
        Target::Unix => {
            refused("the stacks are the host's sockets, whose frames a process cannot see")
                .help("use Fata's own stack, --net tap=INTERFACE, or another target, -t virtio")
        }
        Target::Virtio | Target::Xen => {
            refused("the cards are served by another guest: their frames do not pass through dom0")
                .help("capture that guest's cards, or put these on a bridge: --net bridge=NAME")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::devices::mac_of;

    fn card(device: &str, role: Role, link: Link) -> Card {
        let mac = mac_of("p", device);
        Card { device: device.into(), role, mac, mac_given: false, link, published: vec![] }
    }

    fn tap(name: &str) -> Link {
        Link::Tap { interface: name.into() }
    }

    fn files(target: Target, cards: &[Card], path: &Path) -> Result<Vec<(usize, String)>> {
        let captures = captures(target, cards, Some(path))?;
        let name = |file: &str| file.rsplit_once('/').unwrap().1.to_owned();
        Ok(captures.iter().map(|capture| (capture.card, name(&capture.file))).collect())
    }

    #[test]
    fn one_card_has_the_file_and_several_have_one_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.pcapng");
        let cards = [
            card("outside", Role::Stack, Link::User),
            card("inside", Role::Interface, tap("t0")),
            card("guests", Role::Client, tap("t1")),
            card("guests", Role::Client, tap("t2")),
        ];
        let one = files(Target::Unix, &cards, &path).unwrap();
        assert_eq!(one, [(1, "web.pcapng".to_owned())], "the one that is a TAP of the program's");
        let all: Vec<String> = files(Target::Virtio, &cards, &path)
            .unwrap()
            .into_iter()
            .map(|(_, file)| file)
            .collect();
        let wanted = [
            "web.outside.pcapng",
            "web.inside.pcapng",
            "web.guests-0.pcapng",
            "web.guests-1.pcapng",
        ];
        assert_eq!(all, wanted);
        assert!(wanted.iter().all(|name| folder.path().join(name).exists()), "they are made");
        let bare = files(Target::Virtio, &cards[..2], &folder.path().join("web")).unwrap();
        assert_eq!(bare[0].1, "web.outside");
        let mut cards = cards;
        cards[1].link = Link::Backend { domain: "router".into() };
        let dom0s: Vec<usize> =
            files(Target::Xen, &cards, &path).unwrap().into_iter().map(|(card, _)| card).collect();
        assert_eq!(dom0s, [0, 2, 3], "one that another guest serves has no end in dom0");
        assert_eq!(captures(Target::Xen, &cards, None).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_captured_is_said_with_what_can() {
        let user = [card("service", Role::Stack, Link::User)];
        let path = Path::new("/dev/null/x");
        let failure = captures(Target::Unix, &user, Some(path)).unwrap_err();
        assert!(failure.what.contains("host's sockets") && failure.help.unwrap().contains("tap="));
        let backend = Link::Backend { domain: "router".into() };
        let served = [card("service", Role::Stack, backend)];
        let failure = captures(Target::Xen, &served, Some(path)).unwrap_err();
        assert!(failure.what.contains("dom0") && failure.help.unwrap().contains("bridge="));
        let failure = captures(Target::Virtio, &[], Some(path)).unwrap_err();
        assert!(failure.what.contains("no network card"));
        let failure = captures(Target::Virtio, &user, Some(path)).unwrap_err();
        assert_eq!(failure.exit, Exit::Io);
    }
}
