//! [`Keeper`]: a channel's part of its handshake.

use super::end::{End, Shared, UserEvent};
use crate::memory::Shared as Pages;
use crate::xenbus::{Device, DeviceEvent};
use core::task::{Context, Poll};
use core::time::Duration;
use fata_hypercall::{
    Access, DomainId, EventChannel, GrantRef, Granted, HypercallError, Hypervisor, Mapped, Port,
};
use fata_xenbus::handshake::vchan::{RingsMade, RingsOffered, RingsWanted};
use fata_xenbus::handshake::{HandshakeError, Reason};
use fata_xenbus::vchan::{Description, Endpoint, Orders, Side, format, is_offered};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior};

/// How often we look whether the other domain is still there. Xen tells nobody when a domain at the
/// other end of an event channel is destroyed. A second: as long as anybody who waits for a guest
/// that was destroyed would care, and one hypercall.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// The server's side, with the sizes of its rings.
pub(super) struct Server(pub(super) Orders);

/// The client's side.
pub(super) struct Client;

/// What the handshake's task has of a channel.
pub(super) struct Keeper<Role> {
    hypervisor: Hypervisor,
    shared: Arc<Shared>,
    role: Role,
    /// Who waits for the channel.
    opener: Option<oneshot::Sender<()>>,
    look_after: Option<Interval>,
}

impl<Role> Keeper<Role> {
    pub(super) fn new(
        hypervisor: Hypervisor,
        shared: Arc<Shared>,
        role: Role,
        opener: oneshot::Sender<()>,
    ) -> Self {
        Keeper { hypervisor, shared, role, opener: Some(opener), look_after: None }
    }

    fn begin(&mut self) {
        let mut look_after = tokio::time::interval(LOOK_AFTER);
        look_after.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.look_after = Some(look_after);
        if let Some(opener) = self.opener.take() {
            // Nobody waits any more: then the channel was dropped, which is the next event.
            let _ = opener.send(());
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        if let Some(look_after) = &mut self.look_after {
            while look_after.poll_tick(cx).is_ready() {
                self.shared.look_after_peer();
            }
        }
        self.shared.poll_event(cx).map(|event| match event {
            UserEvent::Fault(rule) => DeviceEvent::Fault(rule),
            UserEvent::Abandoned => DeviceEvent::Close,
        })
    }
}

impl Keeper<Server> {
    fn make(&self, client: DomainId) -> Result<(RingsMade, End, EventChannel), HypercallError> {
        let Server(orders) = self.role;
        // The client may write all of them, as libvchan's client asks for when it maps them.
        let grant = |pages| self.hypervisor.grant(client, pages, Access::ReadWrite);
        let ring = |pages| (pages > 0).then(|| grant(pages)).transpose();
        let (left, right) = orders.pages();
        let (interface, left, right) = (Pages(grant(1)?), ring(left)?, ring(right)?);
        let refs = |ring: &Option<Granted>| -> Vec<u32> {
            ring.iter().flat_map(|ring| ring.refs()).map(|grant| grant.0).collect()
        };
        format(&interface, orders, &refs(&left), &refs(&right));
        let channel = self.hypervisor.allocate_unbound(client)?;
        let ring_ref = interface.0.refs()[0].0;
        let made = RingsMade { ring_ref, event_channel: channel.port().0 };
        let (left, right) = (left.map(Pages), right.map(Pages));
        let endpoint = Endpoint::new(Side::Server, orders, interface, left, right);
        Ok((made, End::Server(endpoint), channel))
    }
}

impl Device for Keeper<Server> {
    type Wanted = RingsWanted;
    type Made = RingsMade;
    type Settings = ();

    fn make_rings(&mut self, wanted: RingsWanted) -> Result<RingsMade, String> {
        let (made, end, channel) =
            self.make(DomainId(wanted.client)).map_err(|error| error.to_string())?;
        self.shared.open(end, channel);
        Ok(made)
    }

    fn connect(&mut self, (): ()) {
        self.begin();
    }

    fn disconnect(&mut self, _: &Reason) {
        self.shared.leave();
    }

    fn release(&mut self) {
        drop(self.shared.end());
    }

    fn report(&mut self, _: &HandshakeError) {}

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        self.poll(cx)
    }
}

impl Keeper<Client> {
    fn attach(&self, offered: &RingsOffered) -> Result<(End, EventChannel), String> {
        let server = DomainId(offered.server);
        let words = |error: HypercallError| error.to_string();
        let map = |refs: &[u32], access| -> Result<Mapped, String> {
            let refs: Vec<_> = refs.iter().map(|grant| GrantRef(*grant)).collect();
            self.hypervisor.map(server, &refs, access).map_err(words)
        };
        let interface = Pages(map(&[offered.rings.ring_ref], Access::ReadWrite)?);
        if !is_offered(&interface) {
            return Err("its server has left".to_owned());
        }
        let Description { orders, left, right } =
            Description::read(&interface).map_err(|error| error.to_string())?;
        let ring = |refs: &[u32], access| {
            (!refs.is_empty()).then(|| map(refs, access).map(Pages)).transpose()
        };
        let left = ring(&left, Access::ReadWrite)?;
        let right = ring(&right, Access::ReadOnly)?;
        let port = Port(offered.rings.event_channel);
        let channel = self.hypervisor.bind_interdomain(server, port).map_err(words)?;
        let endpoint = Endpoint::new(Side::Client, orders, interface, left, right);
        Ok((End::Client(endpoint), channel))
    }
}

impl Device for Keeper<Client> {
    type Wanted = RingsOffered;
    type Made = ();
    type Settings = ();

    fn make_rings(&mut self, offered: RingsOffered) -> Result<(), String> {
        let (end, channel) = self.attach(&offered)?;
        self.shared.open(end, channel);
        Ok(())
    }

    fn connect(&mut self, (): ()) {
        self.begin();
    }

    fn disconnect(&mut self, _: &Reason) {
        self.shared.leave();
    }

    fn release(&mut self) {
        drop(self.shared.end());
    }

    fn report(&mut self, _: &HandshakeError) {}

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        self.poll(cx)
    }
}
