//! The target `virtio`: a machine of its own whose devices are virtio's, over MMIO or PCI.

use super::arguments::{Arguments, WiringError};
use super::spec::{DeviceKind, Program};
use super::stack_config;
use crate::{Block, Stack};
use fata_device::Nic;
use fata_machine::{backtrace, console, devices, entropy, idle, time};
use fata_virtio::{Device, VirtioBlock, VirtioNet};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// What the manifest calls this target.
pub const TARGET: &str = "virtio";

/// How long a device's interrupt waits at most while the program keeps the CPU busy.
const BACKSTOP: Duration = Duration::from_millis(1);

/// The machine's devices, found before the program's first random number is drawn.
pub(super) struct Entry {
    devices: Vec<Device>,
}

pub(super) fn enter() -> Entry {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("fata: {panic}");
        backtrace::print();
    }));
    if std::env::var("FATA_BOOT_TIMES").is_ok() {
        println!("fata: main after {} us", time::since_entry_nanos() / 1000);
    }
    let mut found = Vec::new();
    for slot in devices::virtio_mmio() {
        let place = format!("virtio-mmio at {:#x}", slot.address);
        keep(&mut found, place, fata_virtio::mmio::probe(slot.registers, slot.line));
    }
    for function in devices::pci() {
        let place = format!("PCI function {}", function.address());
        keep(&mut found, place, fata_virtio::pci::probe(function));
    }
    for device in &mut found {
        match device {
            Device::Entropy(source) => {
                let mut seed = [0; 32];
                match source.fill(&mut seed) {
                    Ok(()) => entropy::add(&seed),
                    Err(error) => eprintln!("fata: virtio-rng gave no numbers: {error}"),
                }
            }
            Device::Console(_) | Device::Net(_) | Device::Block(_) => {}
        }
    }
    Entry { devices: found }
}

/// Keeps a device that works, and says why another does not. What the program needs of those, the
/// wiring will miss by name.
fn keep<E: std::fmt::Display>(
    found: &mut Vec<Device>,
    place: String,
    probed: Result<Option<Device>, E>,
) {
    match probed {
        Ok(Some(device)) => found.push(device),
        Ok(None) => {}
        Err(error) => eprintln!("fata: {place}: {error}"),
    }
}

pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_time().build()
}

/// The settings of a device of `kind`, with their help.
pub(super) fn settings(kind: DeviceKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        DeviceKind::Stack => &[
            ("address", "dhcp, or A.B.C.D/LEN [default: dhcp]"),
            ("gateway", "With a static address: the router's"),
            ("dns", "With a static address: the resolver's"),
        ],
        DeviceKind::Block => &[],
    }
}

pub(super) struct Target {
    /// One interface for each stack of the manifest, in bus order; taken when its stack is.
    nics: BTreeMap<&'static str, VirtioNet>,
    /// Disks by their serials.
    blocks: BTreeMap<String, VirtioBlock>,
}

impl Target {
    pub(super) async fn new(entry: Entry, program: &'static Program) -> Result<Self, WiringError> {
        let mut stacks = program.devices.iter().filter(|spec| spec.kind == DeviceKind::Stack);
        let mut target = Target { nics: BTreeMap::new(), blocks: BTreeMap::new() };
        for device in entry.devices {
            match device {
                Device::Net(nic) => match stacks.next() {
                    Some(spec) => drop(target.nics.insert(spec.name, nic)),
                    None => eprintln!("fata: the interface {} is not in the manifest", nic.mac()),
                },
                Device::Block(disk) => target.add_disk(disk).await?,
                Device::Entropy(_) => {}
                Device::Console(terminal) => console::attach(terminal.into_sink()),
            }
        }
        tokio::spawn(backstop());
        Ok(target)
    }

    async fn add_disk(&mut self, disk: VirtioBlock) -> Result<(), WiringError> {
        let serial = match disk.serial().await {
            Ok(serial) => serial,
            Err(error) => {
                eprintln!("fata: a disk does not say its name: {error}");
                return Ok(());
            }
        };
        match self.blocks.insert(serial.clone(), disk) {
            None => Ok(()),
            Some(_) => Err(WiringError::Device {
                name: serial.clone(),
                reason: format!("two disks have the serial `{serial}`; give each its own"),
            }),
        }
    }

    /// The machine has such a device.
    pub(super) fn is_attached(&self, name: &str, kind: DeviceKind, _: &Arguments) -> bool {
        match kind {
            DeviceKind::Stack => self.nics.contains_key(name),
            DeviceKind::Block => self.blocks.contains_key(name),
        }
    }

    pub(super) fn stack(&mut self, name: &str, arguments: &Arguments) -> Result<Stack, WiringError> {
        let nic = self.nics.remove(name).ok_or_else(|| WiringError::Device {
            name: name.to_string(),
            reason: "the machine has too few network interfaces: attach a virtio-net for each \
                     stack of the manifest, in its order"
                .to_string(),
        })?;
        stack_config::spawn_stack(name, Box::new(nic), arguments)
    }

    pub(super) fn block(&mut self, name: &str, _: &Arguments) -> Result<Block, WiringError> {
        let disk = self.blocks.remove(name).ok_or_else(|| WiringError::Device {
            name: name.to_string(),
            reason: format!(
                "the machine has no such disk: attach a virtio-blk whose serial is `{name}`{}",
                self.found_disks()
            ),
        })?;
        Ok(Block::new(disk))
    }

    fn found_disks(&self) -> String {
        let serials: Vec<String> = self.blocks.keys().map(|serial| format!("`{serial}`")).collect();
        if serials.is_empty() {
            String::new()
        } else {
            format!(" (there is {})", serials.join(", "))
        }
    }
}

/// Delivers interrupts while the CPU is busy.
///
/// Interrupts are delivered when the machine goes idle and when it leaves idleness. A program that
/// always has something to do would keep devices waiting for ever; so, from the moment the machine
/// leaves idleness, this task looks every millisecond, until it has seen the machine idle again.
async fn backstop() {
    loop {
        idle::until_busy().await;
        let mut seen = idle::times_idle();
        loop {
            tokio::time::sleep(BACKSTOP).await;
            idle::deliver_interrupts();
            if std::mem::replace(&mut seen, idle::times_idle()) != seen {
                break;
            }
        }
    }
}
