//! The target `xen`: a PVH guest whose devices are backends in other domains.

use super::arguments::{Arguments, WiringError};
use super::spec::{DeviceKind, Program};
use super::{machine, stack_config};
use crate::channel::{self, Channel, ChannelStream};
use crate::clients::{self, Client, Clients};
use crate::export::{self, Export};
use crate::{Block, Interface, Stack, shutdown};
use fata_hypercall::{DomainId, Hypervisor, Suspended};
use fata_machine::{console, memory};
use fata_xen::block::{self, BlkbackOptions, BlkfrontOptions, BlockSlot};
use fata_xen::net::{NetBackends, NetSlot, NetbackOptions, Netfront, NetfrontOptions};
use fata_xen::vchan::VchanOptions;
use fata_xen::{Console, ShutdownRequest, Xen, XenError};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

/// What the manifest calls this target.
pub const TARGET: &str = "xen";

/// The hypervisor, for [`counters`].
static HYPERVISOR: OnceLock<Hypervisor> = OnceLock::new();

/// The console, once XenStore has been connected to.
static CONSOLE: OnceLock<Console> = OnceLock::new();

/// Bytes come as they are typed into `xl console`.
pub(crate) const CONSOLE_IS_RAW: bool = true;

/// What is typed into the guest's console.
pub(crate) fn console_source() -> io::Result<Console> {
    let missing =
        || io::Error::new(io::ErrorKind::NotFound, "the tools gave this guest no console");
    CONSOLE.get().cloned().ok_or_else(missing)
}

pub(super) struct Entry {
    hypervisor: Hypervisor,
}

pub(super) fn enter() -> Entry {
    machine::enter();
    let hypervisor = fata_machine::xen::hypervisor();
    let _ = HYPERVISOR.set(hypervisor.clone());
    Entry { hypervisor }
}

pub(super) use machine::runtime;

/// What was done with the hypervisor so far.
pub(crate) fn counters() -> Vec<(&'static str, u64)> {
    let Some(hypervisor) = HYPERVISOR.get() else { return Vec::new() };
    let counters = hypervisor.counters();
    vec![
        ("hypercalls", counters.hypercalls),
        ("notifications", counters.notifications),
        ("upcalls", counters.upcalls),
        ("grants_made", counters.grants_made),
        ("grants_revoked", counters.grants_revoked),
        ("grants_waiting", counters.grants_waiting),
        ("copies", counters.copies),
        ("maps", counters.maps),
        ("unmaps", counters.unmaps),
    ]
}

/// The settings of a device of `kind`, with their help.
pub(super) fn settings(kind: DeviceKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        DeviceKind::Stack => &stack_config::SETTINGS,
        DeviceKind::Block => &[("vdev", "The disk, as Xen names it: xvda, 51712, its file's name")],
        DeviceKind::Channel => &[
            ("peer", "Number of the domain at the other end [required]"),
            ("port", "Name of the channel [default: the device's name]"),
        ],
        DeviceKind::Interface | DeviceKind::Clients | DeviceKind::Export => &[],
    }
}

pub(super) struct Target {
    xen: Xen,
    /// One card for each stack and interface of the manifest, in the order of their numbers.
    nics: BTreeMap<&'static str, NetSlot>,
    disks: Vec<BlockSlot>,
}

impl Target {
    pub(super) async fn new(entry: Entry, program: &'static Program) -> Result<Self, WiringError> {
        let failed = |error: XenError| WiringError::Device {
            name: "XenStore".to_string(),
            reason: error.to_string(),
        };
        tokio::spawn(machine::backstop());
        let (xen, task) = Xen::start(entry.hypervisor).map_err(failed)?;
        tokio::spawn(task);
        attach_console(&xen);
        tokio::spawn(obey(xen.clone()));
        tokio::spawn(report_balloon(xen.clone()));
        let mut found: VecDeque<NetSlot> = xen.net_frontends().await.map_err(failed)?.into();
        let cards = program.devices.iter().filter(|spec| spec.kind.is_card());
        let nics = cards.map_while(|spec| Some((spec.name, found.pop_front()?))).collect();
        for slot in found {
            eprintln!("fata: interface {}: the manifest does not name it", slot.handle());
        }
        let disks = xen.block_frontends().await.map_err(failed)?;
        Ok(Target { xen, nics, disks })
    }

    /// The stack `name`, if the guest has an interface for it.
    pub(super) async fn stack(
        &mut self,
        name: &str,
        arguments: &Arguments,
    ) -> Result<Option<Stack>, WiringError> {
        let segmentation = stack_config::segmentation(name, arguments)?;
        let Some(nic) = self.netfront(name, segmentation).await? else { return Ok(None) };
        stack_config::spawn_stack(name, Box::new(nic), arguments).map(Some)
    }

    /// The interface `name`, if the guest has it.
    pub(super) async fn interface(
        &mut self,
        name: &str,
        _: &Arguments,
    ) -> Result<Option<Interface>, WiringError> {
        Ok(self.netfront(name, true).await?.map(Interface::new))
    }

    async fn netfront(
        &mut self,
        name: &str,
        segmentation: bool,
    ) -> Result<Option<Netfront>, WiringError> {
        let Some(slot) = self.nics.remove(name) else { return Ok(None) };
        let options =
            NetfrontOptions { segmentation, ..NetfrontOptions::for_memory(memory::total_bytes()) };
        slot.start(&options).await.map(Some).map_err(|error| device_error(name, error))
    }

    /// Every guest whose network backend is this one.
    pub(super) async fn clients(
        &mut self,
        _: &str,
        _: &Arguments,
    ) -> Result<Option<Clients>, WiringError> {
        let backends = self.xen.net_backends(NetbackOptions::default());
        Ok(Some(Clients::new(Frontends { backends })))
    }

    /// The disk that `--NAME.vdev` names, or that is called as the device is, or the only one.
    pub(super) async fn block(
        &mut self,
        name: &str,
        arguments: &Arguments,
    ) -> Result<Option<Block>, WiringError> {
        let chosen = match (arguments.setting(name, "vdev"), self.disks.len()) {
            (Some(vdev), _) => block::select(&self.disks, vdev),
            (None, 0) => return Ok(None),
            (None, 1) => Ok(0),
            (None, _) => block::select(&self.disks, name),
        };
        let chosen = chosen.map_err(|error| device_error(name, error))?;
        let slot = self.disks.remove(chosen);
        let disk = slot.start(&BlkfrontOptions::default()).await;
        disk.map(|disk| Some(Block::new(disk))).map_err(|error| device_error(name, error))
    }

    /// Every guest of which a disk's backend is this one.
    pub(super) async fn export(
        &mut self,
        _: &str,
        _: &Arguments,
    ) -> Result<Option<Export>, WiringError> {
        Ok(Some(Export::new(Disks { xen: self.xen.clone() })))
    }

    /// vchan to the domain that the settings name.
    pub(super) async fn channel(
        &mut self,
        name: &str,
        arguments: &Arguments,
    ) -> Result<Option<Channel>, WiringError> {
        let Some(peer) = arguments.setting(name, "peer") else { return Ok(None) };
        let number = peer.parse().map_err(|_| WiringError::Invalid {
            name: format!("{name}.peer"),
            value: peer.to_string(),
            reason: "expected a domain's number, as `xl list` shows it".to_string(),
        })?;
        let port = arguments.setting(name, "port").unwrap_or(name).to_string();
        Ok(Some(Channel::new(Vchan { xen: self.xen.clone(), peer: DomainId(number), port })))
    }

    /// Why the device `name` is missing, and what to do.
    pub(super) fn missing(&self, name: &str, kind: DeviceKind) -> String {
        match kind {
            DeviceKind::Stack | DeviceKind::Interface => {
                "the guest has too few network interfaces: its configuration needs a `vif` for each \
                 stack and interface of the manifest, in their order"
                    .to_string()
            }
            DeviceKind::Block => "the guest has no such disk: its configuration needs one in \
                                  `disk`"
                .to_string(),
            DeviceKind::Channel => format!("it needs to know its neighbour: `--{name}.peer=DOMAIN`"),
            DeviceKind::Clients | DeviceKind::Export => "the guest cannot serve others".to_string(),
        }
    }
}

fn device_error(name: &str, error: XenError) -> WiringError {
    WiringError::Device { name: name.to_string(), reason: error.to_string() }
}

/// Sends what the program prints to the ring that xenconsoled reads, and keeps the console for
/// [`console_source`].
fn attach_console(xen: &Xen) {
    match xen.console() {
        Ok((terminal, task)) => {
            tokio::spawn(task);
            let _ = CONSOLE.set(terminal.clone());
            console::attach(Box::new(move |text| terminal.print(text)));
        }
        Err(error) => eprintln!("fata: {error}"),
    }
}

/// Does what the host asks: ends the program, or suspends the machine.
async fn obey(xen: Xen) {
    let mut requests = match xen.shutdown_requests().await {
        Ok(requests) => requests,
        Err(error) => return tracing::warn!("the host's requests are not heard: {error}"),
    };
    loop {
        match requests.next().await {
            Ok(ShutdownRequest::Suspend) => match xen.suspend().await {
                Ok(Suspended::Resumed) => tracing::info!("resumed"),
                Ok(Suspended::Cancelled) => tracing::info!("the host went on without suspending"),
                Err(error) => tracing::warn!("not suspended: {error}"),
            },
            Ok(request) => {
                tracing::info!("the host asks for {request:?}");
                shutdown::request();
            }
            Err(error) => return tracing::warn!("the host is not heard any more: {error}"),
        }
    }
}

/// Reports what the host would like this guest to need. There is nothing to give back.
async fn report_balloon(xen: Xen) {
    let Ok(mut balloon) = xen.balloon().await else { return };
    while let Ok(target_kib) = balloon.next_target_kib().await {
        tracing::debug!("the host's target for this guest's memory: {target_kib} KiB");
    }
}

/// Guests whose netfront is served by our netback.
struct Frontends {
    backends: NetBackends,
}

impl clients::Source for Frontends {
    fn accept(&mut self) -> Pin<Box<dyn Future<Output = Option<Client>> + Send + '_>> {
        Box::pin(async {
            match self.backends.accept().await {
                Ok(frontend) => {
                    let name = format!("{}, interface {}", frontend.domain, frontend.handle);
                    Some(Client { name, interface: Interface::new(frontend.nic) })
                }
                Err(error) => {
                    tracing::error!("no more clients: {error}");
                    None
                }
            }
        })
    }
}

/// Guests whose blkfront is served by our blkback.
struct Disks {
    xen: Xen,
}

impl export::Server for Disks {
    fn serve(
        self: Box<Self>,
        disk: Arc<dyn fata_device::Block>,
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
        let backends = self.xen.block_backends(disk, BlkbackOptions::default());
        Box::pin(async move { backends.serve().await.map_err(io::Error::other) })
    }
}

/// One end of a vchan.
struct Vchan {
    xen: Xen,
    peer: DomainId,
    port: String,
}

impl channel::End for Vchan {
    fn accept(&self) -> channel::Opening<'_> {
        Box::pin(async {
            let options = VchanOptions::default();
            let vchan = self.xen.vchan_server(self.peer, &self.port, &options).await;
            vchan.map(ChannelStream::new).map_err(io::Error::other)
        })
    }

    fn connect(&self) -> channel::Opening<'_> {
        Box::pin(async {
            let options = VchanOptions::default();
            let vchan = self.xen.vchan_client(self.peer, &self.port, &options).await;
            vchan.map(ChannelStream::new).map_err(io::Error::other)
        })
    }
}
