//! The target `virtio`: a machine of its own whose devices are virtio's, over MMIO or PCI.

use super::arguments::{Arguments, WiringError};
use super::spec::{DeviceKind, Program};
use super::{machine, stack_config};
use crate::clients::{Client, Clients, Listed};
use crate::{Block, Channel, Export, Interface, Stack};
use fata_machine::{console, devices, entropy, memory, time};
use fata_virtio::{
    BlockOptions, DeviceType, NetOptions, ProbeError, Slot, VirtioBlock, VirtioConsole, VirtioNet,
};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// What the manifest calls this target.
pub const TARGET: &str = "virtio";

/// How long the machine waits for its entropy device at start. A host answers in microseconds, or
/// has nothing to give.
const ENTROPY_TIMEOUT_NANOS: u64 = 200_000_000;

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
    machine::enter();
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

impl Found {
    /// Starts the driver of a card, for the device `name`.
    fn start_net(self, name: &str, segmentation: bool) -> Result<VirtioNet, WiringError> {
        let options = NetOptions { segmentation, ..NetOptions::for_memory(memory::total_bytes()) };
        self.slot.start_net(&options).map_err(|error| WiringError::Device {
            name: name.to_string(),
            reason: format!("{}: {error}", self.place),
        })
    }
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

/// The virtio console, if there is one: of several the first that was found.
static CONSOLE: OnceLock<VirtioConsole> = OnceLock::new();

/// Bytes come as they are typed at the other end.
pub(crate) const CONSOLE_IS_RAW: bool = true;

/// What is typed into the virtio console. The serial port, which every machine has, is not read: it
/// has no interrupt here.
pub(crate) fn console_source() -> io::Result<ConsoleReader> {
    let missing = "the machine has no virtio console, and its serial port is not read";
    let console = CONSOLE.get().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, missing))?;
    Ok(ConsoleReader(console.clone()))
}

/// A virtio console as tokio reads.
pub(crate) struct ConsoleReader(VirtioConsole);

impl AsyncRead for ConsoleReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(self.0.poll_read(cx, buffer.initialize_unfilled()));
        buffer.advance(read.map_err(io::Error::other)?);
        Poll::Ready(Ok(()))
    }
}

/// Sends what the program prints to a virtio console too.
fn attach_console(slot: Slot) -> Result<(), String> {
    let terminal = slot.start_console().map_err(|error| error.to_string())?;
    let _ = CONSOLE.set(terminal.clone());
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

pub(super) use machine::runtime;

/// The settings of a device of `kind`, with their help.
pub(super) fn settings(kind: DeviceKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        DeviceKind::Stack => &stack_config::SETTINGS,
        _ => &[],
    }
}

pub(super) struct Target {
    /// One card for each stack and interface of the manifest, in bus order; taken when that is.
    nics: BTreeMap<&'static str, Found>,
    /// The cards that the manifest does not name.
    others: Vec<Found>,
    /// Disks that nobody has asked for their names yet.
    unnamed: Vec<Found>,
    /// Disks by their serials.
    disks: BTreeMap<String, VirtioBlock>,
}

impl Target {
    pub(super) async fn new(
        mut entry: Entry,
        program: &'static Program,
    ) -> Result<Self, WiringError> {
        let cards = program.devices.iter().filter(|spec| spec.kind.is_card());
        let nics = cards.map_while(|spec| Some((spec.name, entry.nics.pop_front()?))).collect();
        if !program.devices.iter().any(|spec| spec.kind == DeviceKind::Clients) {
            for Found { place, .. } in &entry.nics {
                eprintln!("fata: {place}: a network interface that the manifest does not name");
            }
        }
        tokio::spawn(machine::backstop());
        let others = entry.nics.into();
        Ok(Target { nics, others, unnamed: entry.disks, disks: BTreeMap::new() })
    }

    /// The stack `name`, if the machine has an interface for it.
    pub(super) async fn stack(
        &mut self,
        name: &str,
        arguments: &Arguments,
    ) -> Result<Option<Stack>, WiringError> {
        let Some(found) = self.nics.remove(name) else { return Ok(None) };
        let nic = found.start_net(name, stack_config::segmentation(name, arguments)?)?;
        stack_config::spawn_stack(name, Box::new(nic), arguments).map(Some)
    }

    /// The interface `name`, if the machine has a card for it.
    pub(super) async fn interface(
        &mut self,
        name: &str,
        _: &Arguments,
    ) -> Result<Option<Interface>, WiringError> {
        let Some(found) = self.nics.remove(name) else { return Ok(None) };
        Ok(Some(Interface::new(found.start_net(name, true)?)))
    }

    /// A client for each card that is left.
    pub(super) async fn clients(
        &mut self,
        name: &str,
        _: &Arguments,
    ) -> Result<Option<Clients>, WiringError> {
        let mut clients = VecDeque::new();
        for found in std::mem::take(&mut self.others) {
            let place = found.place.clone();
            let interface = Interface::new(found.start_net(name, true)?);
            clients.push_back(Client { name: place, interface });
        }
        Ok(Some(Clients::new(Listed(clients))))
    }

    /// There are no guests beside this one.
    pub(super) async fn export(
        &mut self,
        _: &str,
        _: &Arguments,
    ) -> Result<Option<Export>, WiringError> {
        Ok(None)
    }

    /// There are no guests beside this one.
    pub(super) async fn channel(
        &mut self,
        _: &str,
        _: &Arguments,
    ) -> Result<Option<Channel>, WiringError> {
        Ok(None)
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
            DeviceKind::Stack | DeviceKind::Interface => {
                "the machine has too few network interfaces: attach a virtio-net for each stack \
                 and interface of the manifest, in their order"
                    .to_string()
            }
            DeviceKind::Clients => "the machine has no network interfaces to spare".to_string(),
            DeviceKind::Export | DeviceKind::Channel => {
                "a virtio machine knows no guests beside it; build the program for Xen".to_string()
            }
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
