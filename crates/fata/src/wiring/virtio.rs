//! The target `virtio`: a machine of its own whose devices are virtio's, over MMIO or PCI.

use super::arguments::{Arguments, WiringError};
use super::spec::{DeviceKind, Program};
use super::stack_config;
use crate::{Block, Stack};
use fata_machine::{backtrace, console, devices, entropy, idle, memory, time};
use fata_virtio::{BlockOptions, DeviceType, NetOptions, ProbeError, Slot, VirtioBlock};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// What the manifest calls this target.
pub const TARGET: &str = "virtio";

/// How long the machine waits for its entropy device at start. A host answers in microseconds, or
/// has nothing to give.
const ENTROPY_TIMEOUT_NANOS: u64 = 200_000_000;

/// How long a device's interrupt waits at most while the program keeps the CPU busy.
const BACKSTOP_MIN: Duration = Duration::from_millis(1);
/// How long it waits at most when the program begins to: sixteen wake-ups a second, a thousandth of
/// a core under emulation, are what this costs an idle machine.
const BACKSTOP_MAX: Duration = Duration::from_millis(64);

/// The machine's devices, found before the program's first random number is drawn.
pub(super) struct Entry {
    nics: VecDeque<Found>,
    disks: Vec<Found>,
}

/// A device that was found, and where. Its driver starts when the program takes it: so an image is
/// linked with the drivers of what it uses, and a device that it does not use is left alone.
struct Found {
    place: String,
    slot: Slot,
}

pub(super) fn enter() -> Entry {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("fata: {panic}");
        backtrace::print();
    }));
    if std::env::var("FATA_BOOT_TIMES").is_ok() {
        println!("fata: main after {} us", time::since_entry_nanos() / 1000);
    }
    let mut entry = Entry { nics: VecDeque::new(), disks: Vec::new() };
    let mut slots = devices::virtio_mmio();
    // QEMU names them from the last to the first; an interface's place in the manifest is its place
    // on the bus.
    slots.sort_by_key(|slot| slot.address);
    for device in slots {
        let place = format!("virtio-mmio at {:#x}", device.address);
        entry.add(place, fata_virtio::mmio::find(device.registers, device.line));
    }
    for function in devices::pci() {
        let place = format!("PCI function {}", function.address());
        entry.add(place, fata_virtio::pci::find(function));
    }
    entry
}

impl Entry {
    /// Keeps a device that can be used, and says why another cannot. What the program needs of
    /// those, the wiring will miss by name.
    fn add(&mut self, place: String, found: Result<Option<Slot>, ProbeError>) {
        let started = match found {
            Ok(None) => return,
            Ok(Some(slot)) => match slot.device_type() {
                DeviceType::Net => return self.nics.push_back(Found { place, slot }),
                DeviceType::Block => return self.disks.push(Found { place, slot }),
                DeviceType::Console => attach_console(slot),
                DeviceType::Entropy => seed(slot),
                // Whatever it is, no program of ours can name it.
                _ => return,
            },
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = started {
            eprintln!("fata: {place}: {error}");
        }
    }
}

/// Sends what the program prints to a virtio console too.
fn attach_console(slot: Slot) -> Result<(), String> {
    let terminal = slot.start_console().map_err(|error| error.to_string())?;
    console::attach(Box::new(move |text| terminal.write(text) == text.len()));
    Ok(())
}

/// Gives the machine's generator what an entropy device has, before the program draws its first
/// random number.
fn seed(slot: Slot) -> Result<(), String> {
    let mut source = slot.start_entropy().map_err(|error| error.to_string())?;
    let deadline = time::monotonic_nanos() + ENTROPY_TIMEOUT_NANOS;
    let mut seed = [0; 32];
    source
        .fill_polling(&mut seed, || time::monotonic_nanos() < deadline)
        .map_err(|error| error.to_string())?;
    entropy::add(&seed);
    Ok(())
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
            ("limits", stack_config::LIMITS_HELP),
        ],
        DeviceKind::Block => &[],
    }
}

pub(super) struct Target {
    /// One interface for each stack of the manifest, in bus order; taken when its stack is.
    nics: BTreeMap<&'static str, Found>,
    /// Disks that nobody has asked for their names yet.
    unnamed: Vec<Found>,
    /// Disks by their serials.
    disks: BTreeMap<String, VirtioBlock>,
}

impl Target {
    pub(super) fn new(mut entry: Entry, program: &'static Program) -> Self {
        let stacks = program.devices.iter().filter(|spec| spec.kind == DeviceKind::Stack);
        let nics = stacks.map_while(|spec| Some((spec.name, entry.nics.pop_front()?))).collect();
        for Found { place, .. } in entry.nics {
            eprintln!("fata: {place}: a network interface that the manifest does not name");
        }
        tokio::spawn(backstop());
        Target { nics, unnamed: entry.disks, disks: BTreeMap::new() }
    }

    /// The stack `name`, if the machine has an interface for it.
    pub(super) async fn stack(
        &mut self,
        name: &str,
        arguments: &Arguments,
    ) -> Result<Option<Stack>, WiringError> {
        let Some(Found { place, slot }) = self.nics.remove(name) else { return Ok(None) };
        let options = NetOptions::for_memory(memory::total_bytes());
        let nic = slot.start_net(&options).map_err(|error| WiringError::Device {
            name: name.to_string(),
            reason: format!("{place}: {error}"),
        })?;
        stack_config::spawn_stack(name, Box::new(nic), arguments).map(Some)
    }

    /// The disk `name`, if the machine has it.
    pub(super) async fn block(
        &mut self,
        name: &str,
        _: &Arguments,
    ) -> Result<Option<Block>, WiringError> {
        for Found { place, slot } in std::mem::take(&mut self.unnamed) {
            match named_disk(slot).await {
                Err(error) => eprintln!("fata: {place}: {error}"),
                Ok((serial, disk)) => {
                    if self.disks.insert(serial.clone(), disk).is_some() {
                        let reason = "two disks have this serial; give each its own".to_string();
                        return Err(WiringError::Device { name: serial, reason });
                    }
                }
            }
        }
        Ok(self.disks.remove(name).map(Block::new))
    }

    /// Why the device `name` is missing, and what to do.
    pub(super) fn missing(&self, name: &str, kind: DeviceKind) -> String {
        match kind {
            DeviceKind::Stack => "the machine has too few network interfaces: attach a virtio-net \
                                  for each stack of the manifest, in its order"
                .to_string(),
            DeviceKind::Block => {
                let others: Vec<String> =
                    self.disks.keys().map(|serial| format!("`{serial}`")).collect();
                let others = if others.is_empty() { "none" } else { &others.join(", ") };
                format!(
                    "the machine has no such disk: attach a virtio-blk whose serial is `{name}` \
                     (other disks there: {others})"
                )
            }
        }
    }
}

/// Starts a disk and asks for its serial, which is its name.
async fn named_disk(slot: Slot) -> Result<(String, VirtioBlock), String> {
    let disk = slot.start_block(&BlockOptions::default()).map_err(|error| error.to_string())?;
    let serial = disk.serial().await.map_err(|error| error.to_string())?;
    Ok((serial, disk))
}

/// Delivers interrupts while the CPU is busy.
///
/// Interrupts are delivered when the machine goes idle and when it leaves idleness. A program that
/// always has something to do would keep devices waiting for ever; so this task looks, every
/// millisecond as long as it never finds that the machine was idle meanwhile, and otherwise less and
/// less often, so that an idle machine stays idle.
async fn backstop() {
    let mut pause = BACKSTOP_MIN;
    loop {
        let seen = idle::times_idle();
        tokio::time::sleep(pause).await;
        idle::deliver_interrupts();
        // Its own sleep makes an idle machine idle once more; so, on such a machine, it backs off.
        let was_idle = idle::times_idle() != seen;
        pause = if was_idle { (pause * 2).min(BACKSTOP_MAX) } else { BACKSTOP_MIN };
    }
}
