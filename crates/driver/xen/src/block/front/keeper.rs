//! [`Keeper`]: a disk's part of its handshake.

use super::disk::{Disk, DiskEvent};
use super::link::Link;
use super::{Blkfront, BlkfrontOptions, features_of, geometry_of};
use crate::xenbus::{self, Device, DeviceEvent};
use crate::{Xen, XenError};
use core::task::{Context, Poll};
use fata_device::{BlockError, Geometry};
use fata_hypercall::{DomainId, Hypervisor};
use fata_xenbus::handshake::block::{self as handshake, RingMade, RingWanted, Settings};
use fata_xenbus::handshake::{HandshakeError, Joining, Reason};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What the handshake's task has of a disk.
struct Keeper {
    hypervisor: Hypervisor,
    disk: Arc<Disk>,
    handle: u16,
    options: BlkfrontOptions,
    /// The ring that was made, while it is not the disk's.
    link: Option<Link>,
    /// The ring that was taken from the disk, until it may be given up.
    old: Option<Box<Link>>,
    /// Who waits for the first connection.
    starter: Option<oneshot::Sender<Geometry>>,
    geometry: Option<Geometry>,
    /// Told at the next opportunity.
    fault: Option<String>,
}

impl Device for Keeper {
    type Wanted = RingWanted;
    type Made = RingMade;
    type Settings = Settings;

    fn make_rings(&mut self, wanted: RingWanted) -> Result<RingMade, String> {
        let pages = 1 << wanted.ring_page_order;
        let backend = DomainId(wanted.backend);
        let link =
            Link::new(&self.hypervisor, backend, self.handle, pages, self.options.pool_pages)
                .map_err(|error| error.to_string())?;
        let (refs, port) = link.offer();
        let made = RingMade {
            ring_refs: refs.iter().map(|grant| grant.0).collect(),
            event_channel: port.0,
        };
        self.link = Some(link);
        Ok(made)
    }

    fn connect(&mut self, settings: Settings) {
        let Some(mut link) = self.link.take() else { return };
        let geometry = geometry_of(&settings);
        if self.geometry.is_some_and(|before| before != geometry) {
            // The program was told something else, and lives by it.
            let what = "the disk came back with another size or other abilities".to_owned();
            self.disk.end(BlockError::Misbehaved(what.clone()));
            self.fault = Some(what);
            return;
        }
        self.geometry = Some(geometry);
        link.agree(features_of(&settings), self.options.segments_max.into());
        self.disk.connect(link);
        if let Some(starter) = self.starter.take()
            && starter.send(geometry).is_err()
        {
            // Nobody waits for the disk any more.
            self.disk.abandon();
        }
    }

    fn disconnect(&mut self, _: &Reason) {
        self.old = self.disk.disconnect();
    }

    fn release(&mut self) {
        self.link = None;
        self.old = None;
    }

    fn report(&mut self, _: &HandshakeError) {}

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(DeviceEvent::Fault(fault));
        }
        self.disk.poll_event(cx).map(|event| match event {
            DiskEvent::Fault(fault) => DeviceEvent::Fault(fault.to_string()),
            DiskEvent::Abandoned => DeviceEvent::Close,
        })
    }
}

impl Blkfront {
    /// Connects to the backend of the device in `path`, whose number is `vdev`.
    pub(in super::super) async fn start(
        xen: &Xen,
        path: String,
        vdev: u32,
        options: &BlkfrontOptions,
    ) -> Result<Self, XenError> {
        let disk = Disk::new(options.requests_max);
        let (starter, started) = oneshot::channel();
        let keeper = Keeper {
            hypervisor: xen.hypervisor().clone(),
            disk: disk.clone(),
            // No backend looks at it, and the numbers of new disks are longer than it is.
            handle: vdev as u16,
            options: *options,
            link: None,
            old: None,
            starter: Some(starter),
            geometry: None,
            fault: None,
        };
        let joining =
            Joining { connect_nanos: options.connect_nanos, ..Joining::new(path.clone()) };
        let ring_page_order_max = options.ring_page_order_max;
        let protocol = handshake::FrontendOptions { ring_page_order_max, persistent: true };
        let store = xen.store().clone();
        let ending = disk.clone();
        let task = tokio::spawn(async move {
            let machine = |now| handshake::Frontend::new(joining, protocol, now);
            let ended = xenbus::run(store, machine, keeper).await;
            ending.end(BlockError::Disconnected);
            ended
        });
        match started.await {
            Ok(geometry) => Ok(Blkfront::new(disk, geometry)),
            // The keeper is gone: its task says why.
            Err(_) => Err(match task.await {
                Ok(Err(error)) => error,
                Ok(Ok(_)) => XenError::Device(format!("{path} was removed before it was there")),
                Err(lost) => XenError::Device(format!("the task of {path} ended: {lost}")),
            }),
        }
    }
}
