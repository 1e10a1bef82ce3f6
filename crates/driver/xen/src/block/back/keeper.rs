//! [`Keeper`]: one guest's part of its handshake, and of the ring while there is one.

use super::counters::Counts;
use super::server::{ServeLimits, Server};
use crate::xenbus::{Device, DeviceEvent};
use core::task::{Context, Poll};
use fata_device::Block;
use fata_hypercall::{Access, DomainId, GrantRef, Hypervisor, Port};
use fata_xenbus::handshake::block::{RingOffered, Served};
use fata_xenbus::handshake::{HandshakeError, Reason};
use std::sync::Arc;

/// What the handshake's task has of a guest's disk.
pub(super) struct Keeper {
    hypervisor: Hypervisor,
    disk: Arc<dyn Block>,
    limits: ServeLimits,
    counts: Arc<Counts>,
    server: Option<Server>,
    /// The server may look at its ring.
    is_live: bool,
}

impl Keeper {
    pub(super) fn new(
        hypervisor: Hypervisor,
        disk: Arc<dyn Block>,
        limits: ServeLimits,
        counts: Arc<Counts>,
    ) -> Self {
        Keeper { hypervisor, disk, limits, counts, server: None, is_live: false }
    }
}

impl Device for Keeper {
    type Wanted = RingOffered;
    type Made = ();
    type Settings = Served;

    fn make_rings(&mut self, offered: RingOffered) -> Result<(), String> {
        let frontend = DomainId(offered.frontend);
        let refs: Vec<_> = offered.ring.ring_refs.iter().map(|grant| GrantRef(*grant)).collect();
        let words = |error: fata_hypercall::HypercallError| error.to_string();
        let ring = self.hypervisor.map(frontend, &refs, Access::ReadWrite).map_err(words)?;
        let port = Port(offered.ring.event_channel);
        let channel = self.hypervisor.bind_interdomain(frontend, port).map_err(words)?;
        self.server = Some(Server::new(
            self.hypervisor.clone(),
            ring,
            channel,
            self.disk.clone(),
            self.limits,
            self.counts.clone(),
        ));
        Ok(())
    }

    fn connect(&mut self, _: Served) {
        self.is_live = true;
        self.counts.add(&self.counts.frontends, 1);
    }

    fn disconnect(&mut self, _: &Reason) {
        self.is_live = false;
    }

    fn release(&mut self) {
        // What is at the disk goes on there; its answers have nobody to go to.
        self.server = None;
    }

    fn report(&mut self, _: &HandshakeError) {
        self.counts.add(&self.counts.faults, 1);
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        let Some(server) = self.server.as_mut().filter(|_| self.is_live) else {
            return Poll::Pending;
        };
        let error = core::task::ready!(server.poll(cx));
        self.is_live = false;
        Poll::Ready(DeviceEvent::Fault(error.to_string()))
    }
}
