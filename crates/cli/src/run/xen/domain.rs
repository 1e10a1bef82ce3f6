//! What is run, as Xen sees it: a domain with virtual interfaces and disks.
//!
//! A pure function of image, devices and arguments, for `fata run` as for `fata config`.

use std::path::{Path, PathBuf};

use fata_testbed::{AtEnd, DiskSource, Dom0Paths, Guest, VifLink};

use crate::failure::{Exit, Failure, Result};
use crate::image::Image;
use crate::run::arguments::Arguments;
use crate::run::boot_line::boot_line;
use crate::run::devices::{Devices, mac_of};
use crate::run::request::{Block, Disk, Link, Mac, Memory};

/// A guest to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Domain {
    /// Its name, by which other guests and xl's commands call it.
    pub(crate) name: String,
    /// The image.
    pub(crate) kernel: PathBuf,
    /// The program's words, as the machine splits them.
    pub(crate) command_line: String,
    /// Memory in MiB, Xen's unit.
    pub(crate) memory_mib: u64,
    /// Network interfaces, in the order in which the program takes them.
    pub(crate) vifs: Vec<Vif>,
    /// Disks.
    pub(crate) disks: Vec<Vbd>,
    /// It serves network interfaces or disks to other guests.
    pub(crate) driver_domain: bool,
}

/// A virtual interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vif {
    /// The manifest's name of the device.
    pub(crate) device: String,
    /// Its Ethernet address.
    pub(crate) mac: Mac,
    /// What it is connected to.
    pub(crate) link: Link,
}

/// A virtual block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vbd {
    /// The manifest's name of the device.
    pub(crate) device: String,
    /// Xen's name of the disk: `xvda`.
    pub(crate) vdev: String,
    /// What holds the sectors.
    pub(crate) disk: Disk,
    /// Writes are refused.
    pub(crate) read_only: bool,
}

impl Domain {
    /// Describes a domain called `name`.
    pub(crate) fn new(
        image: &Image,
        name: &str,
        memory: Memory,
        devices: &Devices,
        arguments: &Arguments,
    ) -> Result<Self> {
        let mut arguments = arguments.clone();
        let disks = vbds(&devices.blocks, &mut arguments)?;
        let vifs = devices.cards.iter().map(|card| Vif {
            device: card.device.clone(),
            // Of the domain's name, not the package's: two runs of one package share a network here.
            mac: if card.mac_given { card.mac } else { mac_of(name, &card.device) },
            link: card.link.clone(),
        });
        Ok(Self {
            name: name.to_owned(),
            kernel: image.path.clone(),
            command_line: boot_line(&arguments)?,
            memory_mib: memory.bytes.div_ceil(1 << 20),
            vifs: vifs.collect(),
            disks,
            driver_domain: devices.serves,
        })
    }
}

impl Domain {
    /// The same as the testbed takes it. `user` is what stands for links that lead outside by
    /// themselves: a bridge; where there is none, they are refused.
    pub(crate) fn guest(&self, user: Option<&str>) -> Result<Guest> {
        let mut guest = Guest::new(&*self.name, &*self.kernel);
        guest.command_line.clone_from(&self.command_line);
        guest.memory_mib = self.memory_mib;
        guest.driver_domain = self.driver_domain;
        for vif in &self.vifs {
            let link = match (&vif.link, user) {
                (Link::Bridge { bridge }, _) => VifLink::Bridge(bridge.clone()),
                (Link::Backend { domain }, _) => VifLink::Backend(domain.clone()),
                (Link::User | Link::Tap { .. }, Some(bridge)) => VifLink::Bridge(bridge.into()),
                (Link::User | Link::Tap { .. }, None) => {
                    let what = format!("--net {}: a Xen host has no such link", vif.link.typed());
                    return Err(Failure::new(Exit::Refused, what).help(
                        "use bridge=BRIDGE or backend=DOMAIN, or the testbed: --xen testbed",
                    ));
                }
            };
            let mac = Some(vif.mac.0);
            guest.vifs.push(fata_testbed::Vif {
                mac,
                link,
                mtu: None,
                script: None,
                capture: None,
            });
        }
        for vbd in &self.disks {
            guest.disks.push(fata_testbed::Disk {
                vdev: vbd.vdev.clone(),
                source: match vbd.disk.clone() {
                    Disk::File(file) => DiskSource::File(file),
                    Disk::Backend { domain, target } => DiskSource::Backend { domain, target },
                },
                read_only: vbd.read_only,
            });
        }
        Ok(guest)
    }

    /// The text that xl reads, where `at_end` says what becomes of the domain, on a host whose paths
    /// are this computer's.
    pub(crate) fn xl_config(&self, at_end: AtEnd) -> Result<String> {
        let mut guest = self.guest(None)?;
        guest.at_end = at_end;
        let paths = Dom0Paths {
            kernel: utf8(&self.kernel)?,
            ramdisk: None,
            disks: self.disks.iter().map(|vbd| vbd.disk.target()).collect::<Result<_>>()?,
        };
        fata_testbed::config_text(&guest, &paths)
            .map_err(|error| Failure::new(Exit::Refused, error.to_string()))
    }
}

impl Disk {
    /// What xl calls the target.
    fn target(&self) -> Result<String> {
        match self {
            Disk::Backend { target, .. } => Ok(target.clone()),
            Disk::File(file) => {
                let absolute = std::path::absolute(file)
                    .map_err(|error| Failure::io(format!("find {}", file.display()), &error))?;
                utf8(&absolute)
            }
        }
    }
}

fn utf8(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| {
        let what = format!("{}: a configuration is UTF-8, this path is not", path.display());
        Failure::new(Exit::Refused, what)
    })?;
    Ok(text.to_owned())
}

/// Gives every disk a name of Xen's, and tells the program, to whom the manifest's name means the
/// disk of that name. A `--NAME.vdev=` of the caller's is kept.
fn vbds(blocks: &[Block], arguments: &mut Arguments) -> Result<Vec<Vbd>> {
    let mut vbds: Vec<Vbd> = Vec::new();
    for block in blocks {
        let given = arguments.setting(&block.name, "vdev").map(str::to_owned);
        let vdev = match given {
            Some(vdev) => checked(&block.name, vdev)?,
            None => String::new(),
        };
        if let Some(other) = vbds.iter().find(|other| !vdev.is_empty() && other.vdev == vdev) {
            let what = format!("{} and {} are both to be {vdev}", other.device, block.name);
            return Err(Failure::new(Exit::Refused, what).help("give each disk a vdev of its own"));
        }
        let Block { name, disk, read_only } = block.clone();
        vbds.push(Vbd { device: name, vdev, disk, read_only });
    }
    for index in 0..vbds.len() {
        if vbds[index].vdev.is_empty() {
            let free = ('a'..='z')
                .map(|letter| format!("xvd{letter}"))
                .find(|vdev| vbds.iter().all(|vbd| vbd.vdev != *vdev));
            let Some(vdev) = free else {
                let what = format!("{} disks are more than xvda to xvdz", vbds.len());
                return Err(Failure::new(Exit::Refused, what));
            };
            let name = format!("{}.vdev", vbds[index].device);
            arguments.words.push(format!("--{name}={vdev}"));
            arguments.values.push((name, vdev.clone()));
            vbds[index].vdev = vdev;
        }
    }
    Ok(vbds)
}

/// Xen's names of whole disks. Its numbers and partitions exist, but who writes a file for xl can
/// do without.
fn checked(device: &str, vdev: String) -> Result<String> {
    let letters = vdev.strip_prefix("xvd").unwrap_or_default();
    if (1..=2).contains(&letters.len()) && letters.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Ok(vdev);
    }
    let what = format!("--{device}.vdev={vdev}: Xen calls disks xvda, xvdb and so on");
    Err(Failure::new(Exit::Refused, what).help("leave it out: the first free name is taken"))
}

/// `wanted`, or with a number behind it when that is taken.
pub(crate) fn free_name(wanted: &str, taken: &[String]) -> String {
    let free = |name: &String| !taken.contains(name);
    let numbered = (2..).map(|number| format!("{wanted}-{number}"));
    // Names are finitely many, numbers are not: one is free.
    std::iter::once(wanted.to_owned()).chain(numbered).find(free).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::devices::{Card, Role};

    fn blocks(texts: &[&str]) -> Vec<Block> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn named(blocks: &[Block], given: &[(&str, &str)]) -> Result<(Vec<String>, Vec<String>)> {
        let values = given.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut arguments = Arguments { values, ..Arguments::default() };
        let vbds = vbds(blocks, &mut arguments)?;
        Ok((vbds.into_iter().map(|vbd| vbd.vdev).collect(), arguments.words))
    }

    #[test]
    fn disks_are_named_in_order_around_those_that_are_given() {
        let blocks = blocks(&["a=/a", "b=/b,ro", "c=backend=store"]);
        let (vdevs, words) = named(&blocks, &[]).unwrap();
        assert_eq!(vdevs, ["xvda", "xvdb", "xvdc"]);
        assert_eq!(words, ["--a.vdev=xvda", "--b.vdev=xvdb", "--c.vdev=xvdc"]);
        let (vdevs, words) = named(&blocks, &[("b.vdev", "xvda")]).unwrap();
        assert_eq!(vdevs, ["xvdb", "xvda", "xvdc"]);
        assert_eq!(words, ["--a.vdev=xvdb", "--c.vdev=xvdc"], "the given one is told already");
    }

    #[test]
    fn names_that_are_none_or_taken_are_refused() {
        let blocks = blocks(&["a=/a", "b=/b"]);
        for vdev in ["", "xvd", "sda", "xvda1", "xvdA", "51712", "xvdaaa"] {
            let failure = named(&blocks, &[("a.vdev", vdev)]).unwrap_err();
            assert!(failure.what.contains("--a.vdev="), "{failure}");
        }
        let twice = named(&blocks, &[("a.vdev", "xvdb"), ("b.vdev", "xvdb")]).unwrap_err();
        assert!(twice.what.contains("a and b are both to be xvdb"), "{twice}");
    }

    #[test]
    fn more_disks_than_letters_are_refused() {
        let many = |count: usize| -> Vec<Block> {
            (0..count).map(|n| format!("d{n}=/f").parse().unwrap()).collect()
        };
        assert_eq!(named(&many(26), &[]).unwrap().0[25], "xvdz");
        assert!(named(&many(27), &[]).is_err());
    }

    #[test]
    fn two_domains_of_one_package_have_addresses_of_their_own() {
        let image = crate::image::tests::virtio_image();
        let card = |mac_given| Card {
            device: "service".into(),
            role: Role::Stack,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mac_given,
            link: Link::User,
            published: vec![],
        };
        let devices =
            Devices { cards: vec![card(false), card(true)], blocks: vec![], serves: true };
        let domain = |name: &str| {
            let memory = Memory { bytes: (32 << 20) + 1 };
            Domain::new(&image, name, memory, &devices, &Arguments::default()).unwrap()
        };
        let (first, second) = (domain("web"), domain("web-2"));
        assert_eq!(first.vifs[0].mac, mac_of("web", "service"), "as on virtio");
        assert_ne!(first.vifs[0].mac, second.vifs[0].mac);
        assert_eq!(first.vifs[1].mac, Mac([2, 0, 0, 0, 0, 1]), "what was asked for");
        assert!(first.driver_domain);
        assert_eq!(first.memory_mib, 33, "Xen counts in MiB: rounded up");
    }

    #[test]
    fn taken_names_get_a_number() {
        let taken = ["web".to_owned(), "web-2".to_owned()];
        assert_eq!(free_name("web", &taken), "web-3");
        assert_eq!(free_name("dns", &taken), "dns");
    }
}
