//! [`NetSlot`]: interfaces that this guest was given, and the handshake that starts one.

use super::{FrontDevice, FrontRings, FrontSettings, Netfront, NetfrontOptions};
use crate::xenbus::{self, Device, DeviceEvent};
use crate::{Xen, XenError};
use core::fmt;
use core::task::{Context, Poll};
use fata_device::{MacAddress, NicError};
use fata_hypercall::{DomainId, Hypervisor};
use fata_xenbus::handshake::net::{
    Channels, Frontend, FrontendOptions, Offloads, RingsMade, RingsWanted, Settings,
};
use fata_xenbus::handshake::{HandshakeError, Joining, Reason};
use fata_xenbus::ring::net::GsoFamilies;
use tokio::sync::oneshot;

/// How many interfaces are looked at. More than any guest has: libxl itself gives one 8 by default.
const INTERFACES_MAX: usize = 64;

/// What the handshake's task has of an interface.
struct Keeper {
    hypervisor: Hypervisor,
    device: FrontDevice,
    /// Rings that were made and are not connected.
    rings: Option<FrontRings>,
    /// Rings that are not connected any more, until they may be given up.
    old: Option<FrontRings>,
    /// Who waits for the first connection.
    starter: Option<oneshot::Sender<Netfront>>,
    /// Told at the next opportunity.
    fault: Option<String>,
}

impl Device for Keeper {
    type Wanted = RingsWanted;
    type Made = RingsMade;
    type Settings = Settings;

    fn make_rings(&mut self, wanted: RingsWanted) -> Result<RingsMade, String> {
        let backend = DomainId(wanted.backend);
        let split = wanted.split_event_channels;
        let rings = FrontRings::new(&self.hypervisor, backend, split, &self.device)
            .map_err(|error| error.to_string())?;
        let ((tx, rx), (port, receive_port)) = (rings.refs(), rings.ports());
        let channels = match receive_port {
            Some(receive_port) => Channels::Split { tx: port.0, rx: receive_port.0 },
            None => Channels::One(port.0),
        };
        self.rings = Some(rings);
        Ok(RingsMade { tx_ring_ref: tx.0, rx_ring_ref: rx.0, channels })
    }

    fn connect(&mut self, settings: Settings) {
        let Some(rings) = self.rings.take() else { return };
        match self.device.connect(rings, settings_of(&settings)) {
            // If nobody waits for it any more it is dropped, and with that closed.
            Ok(Some(nic)) => drop(self.starter.take().map(|starter| starter.send(nic))),
            Ok(None) => {}
            Err(why) => self.fault = Some(why),
        }
    }

    fn disconnect(&mut self, _: &Reason) {
        self.old = self.device.disconnect();
    }

    fn release(&mut self) {
        self.rings = None;
        self.old = None;
    }

    fn report(&mut self, _: &HandshakeError) {}

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        match self.fault.take() {
            Some(fault) => Poll::Ready(DeviceEvent::Fault(fault)),
            None => self.device.poll_event(cx),
        }
    }
}

fn settings_of(settings: &Settings) -> FrontSettings {
    let Settings { mac, mtu, transmit, .. } = settings;
    FrontSettings {
        mac: MacAddress(*mac),
        mtu: usize::from(*mtu),
        scatter_gather: transmit.scatter_gather,
        segmentation: GsoFamilies { tcpv4: transmit.gso_ipv4, tcpv6: transmit.gso_ipv6 },
        checksum_ipv6: transmit.checksum_ipv6,
    }
}

/// What we can do, but for segmentation.
pub(in super::super) fn offloads(segmentation: bool) -> Offloads {
    Offloads { gso_ipv4: segmentation, gso_ipv6: segmentation, ..Offloads::ALL }
}

/// An interface that this guest was given and that was not started.
#[derive(Clone)]
pub struct NetSlot {
    xen: Xen,
    handle: u32,
}

impl NetSlot {
    /// Its number: `xl`'s first `vif` is 0.
    pub fn handle(&self) -> u32 {
        self.handle
    }

    /// Connects to the interface's backend. To be called in a tokio runtime, where the device's
    /// task stays.
    ///
    /// # Errors
    /// [`XenError::Handshake`], with the state that a backend that does not come is in.
    pub async fn start(&self, options: &NetfrontOptions) -> Result<Netfront, XenError> {
        let path = format!("device/vif/{}", self.handle);
        let device = FrontDevice::new(*options);
        let link = device.link.clone();
        let (starter, started) = oneshot::channel();
        let keeper = Keeper {
            hypervisor: self.xen.hypervisor().clone(),
            device,
            rings: None,
            old: None,
            starter: Some(starter),
            fault: None,
        };
        let joining =
            Joining { connect_nanos: options.connect_nanos, ..Joining::new(path.clone()) };
        let protocol = FrontendOptions {
            transmit: offloads(options.segmentation),
            receive: offloads(options.segmentation),
            split_event_channels: true,
        };
        let store = self.xen.store().clone();
        let task = tokio::spawn(async move {
            let machine = |now| Frontend::new(joining, protocol, now);
            let ended = xenbus::run(store, machine, keeper).await;
            link.end(NicError::Disconnected(match &ended {
                Ok(_) => "it was taken away".into(),
                Err(error) => error.to_string(),
            }));
            ended
        });
        match started.await {
            Ok(nic) => Ok(nic),
            // The keeper is gone: its task says why.
            Err(_) => Err(match task.await {
                Ok(Err(error)) => error,
                Ok(Ok(_)) => XenError::Device(format!("{path} was removed before it was there")),
                Err(lost) => XenError::Device(format!("the task of {path} ended: {lost}")),
            }),
        }
    }
}

impl fmt::Debug for NetSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetSlot({})", self.handle)
    }
}

impl Xen {
    /// The interfaces that the toolstack gave this guest (`device/vif`), by number.
    ///
    /// # Errors
    /// XenStore's. A key that holds nonsense is passed over.
    pub async fn net_frontends(&self) -> Result<Vec<NetSlot>, XenError> {
        let names = self.store().list("device/vif").await?;
        let mut handles: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        handles.sort_unstable();
        handles.dedup();
        handles.truncate(INTERFACES_MAX);
        let slot = |handle| NetSlot { xen: self.clone(), handle };
        Ok(handles.into_iter().map(slot).collect())
    }
}
