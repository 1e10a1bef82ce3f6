//! QEMU's command line: a pure function of what is to be run.
//!
//! A machine has a serial console, an exit device, a source of entropy, and what the manifest
//! names; no defaults, no firmware menus, no display. Every device sits on an explicit slot, network
//! cards first and in the manifest's order, because the machine takes the n-th card for the n-th
//! stack.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::failure::{Exit, Failure, Result};
use crate::image::Image;
use crate::run::accel::Accelerator;
use crate::run::arguments::Arguments;
use crate::run::boot_line::boot_line;
use crate::run::devices::{Card, Devices};
use crate::run::pcap::Capture;
use crate::run::request::{Disk, Link, Memory};

/// The machine's I/O port that ends QEMU with status (code << 1) | 1.
const EXIT_PORT: &str = "isa-debug-exit,iobase=0xf4,iosize=0x04";

/// `--machine`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Machine {
    /// QEMU's minimal machine: virtio over MMIO, no PCI, boots fastest.
    #[default]
    Microvm,
    /// A PC with PCI Express: virtio over PCI.
    Q35,
}

impl Machine {
    /// QEMU's name for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Machine::Microvm => "microvm",
            Machine::Q35 => "q35",
        }
    }

    /// How many devices it takes.
    fn slots(self) -> usize {
        match self {
            // Without ACPI, QEMU gives it eight virtio-mmio transports.
            Machine::Microvm => 8,
            // PCI slots 2 to 30; 0 is the host bridge, 31 the chipset.
            Machine::Q35 => 29,
        }
    }
}

/// What is to be run, and on what.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The image.
    pub(crate) image: &'a Image,
    /// The kind of machine.
    pub(crate) machine: Machine,
    /// Emulation or hardware.
    pub(crate) accelerator: Accelerator,
    /// The machine's memory.
    pub(crate) memory: Memory,
    /// What is attached.
    pub(crate) devices: &'a Devices,
    /// `--pcap`.
    pub(crate) captures: &'a [Capture],
    /// The program's words.
    pub(crate) arguments: &'a Arguments,
    /// The file descriptor that QEMU's control protocol (QMP) speaks on.
    pub(crate) control_fd: i32,
}

/// QEMU's arguments for `plan`. The machine is stopped until the control protocol says "cont".
pub(crate) fn command_line(plan: &Plan<'_>) -> Result<Vec<OsString>> {
    let Plan { image, machine, devices, .. } = plan;
    check_slots(plan)?;
    let mut line = Line(Vec::new());
    line.pair("-name", format!("fata-{}", plain(&image.manifest.package)));
    line.pair(
        "-machine",
        match machine {
            Machine::Microvm => {
                "microvm,x-option-roms=off,pit=off,pic=off,rtc=on,isa-serial=on,acpi=off"
            }
            Machine::Q35 => "q35,usb=off,smbus=off,sata=off",
        },
    );
    line.pair("-accel", plan.accelerator.as_str());
    line.pair(
        "-cpu",
        match plan.accelerator {
            Accelerator::Tcg => "max",
            Accelerator::Kvm => "host",
        },
    );
    line.pair("-m", format!("{}k", plan.memory.bytes / 1024));
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot", "-S"] {
        line.word(flag);
    }
    line.pair("-display", "none");
    line.pair("-chardev", "stdio,id=console,signal=off");
    line.pair("-serial", "chardev:console");
    line.pair("-chardev", format!("socket,id=control,fd={}", plan.control_fd));
    line.pair("-mon", "chardev=control,mode=control");
    line.pair("-device", EXIT_PORT);
    if *machine == Machine::Microvm {
        // virtio 1.x registers; the transport's default is the layout of before the standard.
        line.pair("-global", "virtio-mmio.force-legacy=false");
    }
    let mut slots = 0..machine.slots();
    let mut slot = || place(*machine, slots.next().unwrap_or_default());
    let virtio = |kind: &str| match machine {
        Machine::Microvm => format!("virtio-{kind}-device"),
        Machine::Q35 => format!("virtio-{kind}-pci,disable-legacy=on"),
    };
    for (index, card) in devices.cards.iter().enumerate() {
        let id = format!("net{index}");
        let capture = plan.captures.iter().find(|capture| capture.card == index);
        line.pair("-netdev", netdev(card, &id, capture.is_some())?);
        if let Some(Capture { file, .. }) = capture {
            // Frames are as long as IP packets at most; QEMU cuts at 64 KiB by itself.
            let file = file.replace(',', ",,");
            line.pair(
                "-object",
                format!("filter-dump,id=pcap{index},netdev={id},maxlen=65550,file={file}"),
            );
        }
        let device = format!("{},netdev={id},mac={},{}", virtio("net"), card.mac, slot());
        line.pair("-device", device);
    }
    for (index, block) in devices.blocks.iter().enumerate() {
        let id = format!("block{index}");
        let Disk::File(file) = &block.disk else { continue };
        line.pair("-blockdev", blockdev(&id, file, block.read_only)?);
        let (kind, name) = (virtio("blk"), &block.name);
        line.pair("-device", format!("{kind},drive={id},serial={name},{}", slot()));
    }
    line.pair("-device", format!("{},{}", virtio("rng"), slot()));
    line.word("-kernel");
    line.0.push(image.path.clone().into());
    let words = boot_line(plan.arguments)?;
    if !words.is_empty() {
        line.pair("-append", words);
    }
    Ok(line.0)
}

/// Words in the making.
struct Line(Vec<OsString>);

impl Line {
    fn word(&mut self, word: &str) {
        self.0.push(word.into());
    }

    fn pair(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.into());
        self.0.push(value.into().into());
    }
}

fn check_slots(plan: &Plan<'_>) -> Result<()> {
    let needed = plan.devices.cards.len() + plan.devices.blocks.len() + 1;
    let (machine, slots) = (plan.machine, plan.machine.slots());
    if needed <= slots {
        return Ok(());
    }
    let what = format!(
        "{} has {needed} devices with the source of entropy; a {} takes {slots}",
        plan.image.manifest.package,
        machine.as_str()
    );
    let failure = Failure::new(Exit::Refused, what);
    Err(if machine == Machine::Microvm { failure.help("use --machine q35") } else { failure })
}

/// Where the device in `slot` sits.
fn place(machine: Machine, slot: usize) -> String {
    match machine {
        Machine::Microvm => format!("bus=virtio-mmio-bus.{slot}"),
        Machine::Q35 => format!("addr={:#x}", slot + 2),
    }
}

fn netdev(card: &Card, id: &str, is_captured: bool) -> Result<String> {
    Ok(match &card.link {
        Link::User => {
            let forwards = card.published.iter().map(|publish| {
                let (protocol, address) = (publish.protocol, publish.address);
                format!(",hostfwd={protocol}:{address}:{}-:{}", publish.host, publish.guest)
            });
            format!("user,id={id}{}", forwards.collect::<String>())
        }
        Link::Tap { interface } => {
            // A comma would begin another option; QEMU takes two for one.
            let interface = interface.replace(',', ",,");
            // QEMU before 8.0 dumps the header with which offloads are told as part of the frame, so
            // a card that is captured does without them.
            let plain = if is_captured { ",vnet_hdr=off" } else { "" };
            format!("tap,id={id},ifname={interface},script=no,downscript=no{plain}")
        }
        Link::Bridge { .. } | Link::Backend { .. } => {
            // They were refused with the devices.
            let what = format!("QEMU has no link {}", card.link.typed());
            return Err(Failure::new(Exit::Internal, what));
        }
    })
}

/// A disk as JSON, where a comma in a path needs no care.
fn blockdev(id: &str, file: &std::path::Path, read_only: bool) -> Result<String> {
    let absolute: PathBuf = std::path::absolute(file)
        .map_err(|error| Failure::io(format!("read {}", file.display()), &error))?;
    let Some(filename) = absolute.to_str() else {
        let what = format!("{}: QEMU takes only UTF-8 paths", file.display());
        return Err(Failure::new(Exit::Usage, what));
    };
    let driver = if is_block_device(&absolute) { "host_device" } else { "file" };
    Ok(serde_json::json!({
        "driver": "raw",
        "node-name": id,
        "read-only": read_only,
        "discard": "unmap",
        "file": { "driver": driver, "filename": filename, "read-only": read_only, "discard": "unmap" },
    })
    .to_string())
}

fn is_block_device(path: &std::path::Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// Letters, digits, `-` and `_`; everything else could be QEMU's syntax.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::virtio_image;
    use crate::run::devices::{Role, mac_of};

    fn devices() -> Devices {
        let card = |device: &str, link, published| Card {
            device: device.into(),
            role: Role::Stack,
            mac: mac_of("web", device),
            mac_given: false,
            link,
            published,
        };
        let tap = Link::Tap { interface: "tap,0".into() };
        Devices {
            cards: vec![
                card("service", Link::User, vec!["udp:0.0.0.0:53:5353".parse().unwrap()]),
                card("admin", tap, vec![]),
            ],
            blocks: vec!["data=/tmp/a,b.img,ro".parse().unwrap()],
            serves: false,
        }
    }

    fn line(machine: Machine, devices: &Devices, arguments: &Arguments) -> Result<Vec<String>> {
        captured_line(machine, devices, arguments, &[])
    }

    fn captured_line(
        machine: Machine,
        devices: &Devices,
        arguments: &Arguments,
        captures: &[Capture],
    ) -> Result<Vec<String>> {
        let image = virtio_image();
        let plan = Plan {
            image: &image,
            machine,
            accelerator: Accelerator::Tcg,
            memory: "64M".parse().unwrap(),
            devices,
            arguments,
            captures,
            control_fd: 5,
        };
        Ok(command_line(&plan)?.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn microvm_has_cards_first_and_explicit_slots() {
        let line = line(Machine::Microvm, &devices(), &Arguments::default()).unwrap();
        let devices: Vec<&str> = line
            .windows(2)
            .filter(|pair| pair[0] == "-device")
            .map(|pair| pair[1].as_str())
            .collect();
        let mac = mac_of("web", "service");
        assert_eq!(
            devices[1],
            format!("virtio-net-device,netdev=net0,mac={mac},bus=virtio-mmio-bus.0")
        );
        assert!(devices[2].ends_with("bus=virtio-mmio-bus.1"));
        assert_eq!(devices[3], "virtio-blk-device,drive=block0,serial=data,bus=virtio-mmio-bus.2");
        assert_eq!(devices[4], "virtio-rng-device,bus=virtio-mmio-bus.3");
        let all = line.join(" ");
        assert!(all.contains("user,id=net0,hostfwd=udp:0.0.0.0:53-:5353"), "{all}");
        assert!(all.contains("ifname=tap,,0,script=no"), "{all}");
        assert!(all.contains(r#""filename":"/tmp/a,b.img""#), "{all}");
        assert!(all.contains("-m 65536k"), "{all}");
        assert!(!all.contains("-append"), "{all}");
    }

    #[test]
    fn a_card_that_is_captured_has_a_dump_and_leaves_nothing_to_this_computer() {
        let captures = [Capture { card: 1, file: "/tmp/a,b.pcap".into() }];
        let arguments = Arguments::default();
        let line = captured_line(Machine::Q35, &devices(), &arguments, &captures).unwrap();
        let dumps: Vec<_> = line.iter().filter(|word| word.starts_with("filter-dump")).collect();
        let wanted = "filter-dump,id=pcap1,netdev=net1,maxlen=65550,file=/tmp/a,,b.pcap";
        assert_eq!(dumps, [wanted]);
        let all = line.join(" ");
        assert!(all.contains("downscript=no,vnet_hdr=off -object filter-dump"), "{all}");
    }

    #[test]
    fn q35_is_modern_pci() {
        let line = line(Machine::Q35, &devices(), &Arguments::default()).unwrap().join(" ");
        assert!(line.contains("virtio-net-pci,disable-legacy=on,netdev=net0"), "{line}");
        assert!(line.contains("serial=data,addr=0x4"), "{line}");
        assert!(line.contains("virtio-rng-pci,disable-legacy=on,addr=0x5"), "{line}");
    }

    #[test]
    fn a_full_machine_says_what_to_do() {
        let mut many = devices();
        many.blocks = (0..9).map(|n| format!("d{n}=/f").parse().unwrap()).collect();
        let failure = line(Machine::Microvm, &many, &Arguments::default()).unwrap_err();
        assert_eq!(failure.help.as_deref(), Some("use --machine q35"));
        assert!(line(Machine::Q35, &many, &Arguments::default()).is_ok());
    }
}
