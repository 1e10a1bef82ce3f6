//! [`BackRings`]: a frontend's rings, mapped.

use super::super::channel::{Channel, Sleeper, Sleepers};
use super::super::counters::NetCounters;
use super::super::{ETHERNET_HEADER_BYTES, gso};
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::{BackSettings, NetbackOptions};
use crate::memory::Shared;
use core::fmt;
use core::task::{Context, Poll};
use fata_device::{Received, Transmit};
use fata_hypercall::{Access, DomainId, GrantRef, HypercallError, Hypervisor, Mapped, Port};
use fata_xenbus::ring::core::{BackRing, RingError};
use fata_xenbus::ring::net::{RX_SLOT_BYTES, TX_SLOT_BYTES, rx_flags};
use fata_xenbus::ring::net_transmit::TransmitError;
use std::sync::Arc;

pub(super) type TransmitRing = BackRing<Shared<Mapped>, TX_SLOT_BYTES>;
pub(super) type ReceiveRing = BackRing<Shared<Mapped>, RX_SLOT_BYTES>;

/// What the frontend did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Ring(RingError),
    Transmit(TransmitError),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Ring(error) => error.fmt(f),
            Fault::Transmit(error) => error.fmt(f),
        }
    }
}

impl From<RingError> for Fault {
    fn from(error: RingError) -> Self {
        Fault::Ring(error)
    }
}

/// Batches without a packet that is fit for use are passed over so often before other tasks get
/// their turn.
const BATCHES_AT_ONCE_MAX: usize = 4;

/// A frontend's rings, mapped, with its event channels bound. Nobody looks at them before the
/// connection.
pub(in super::super) struct BackRings {
    hypervisor: Hypervisor,
    frontend: DomainId,
    /// What it transmits and we receive.
    transmit: TransmitRing,
    /// What it lends and we transmit to.
    receive: ReceiveRing,
    transmit_event: Channel,
    /// Its own, if the frontend split them.
    receive_event: Option<Channel>,
    sleepers: Arc<Sleepers>,
    /// There while the interface is connected.
    live: Option<Live>,
}

struct Live {
    inbox: Inbox,
    outbox: Outbox,
    counters: Arc<NetCounters>,
}

impl BackRings {
    /// Maps the rings and binds the ports that the frontend wrote.
    pub(in super::super) fn attach(
        hypervisor: &Hypervisor,
        frontend: DomainId,
        (transmit, receive): (GrantRef, GrantRef),
        (transmit_port, receive_port): (Port, Option<Port>),
    ) -> Result<Self, HypercallError> {
        let sleepers = Arc::default();
        let map = |page| hypervisor.map(frontend, &[page], Access::ReadWrite);
        let bind = |port| {
            hypervisor.bind_interdomain(frontend, port).map(|event| Channel::new(event, &sleepers))
        };
        Ok(BackRings {
            transmit: BackRing::attach(Shared(map(transmit)?)),
            receive: BackRing::attach(Shared(map(receive)?)),
            transmit_event: bind(transmit_port)?,
            receive_event: receive_port.map(bind).transpose()?,
            hypervisor: hypervisor.clone(),
            frontend,
            sleepers,
            live: None,
        })
    }

    pub(super) fn sleepers(&self) -> &Arc<Sleepers> {
        &self.sleepers
    }

    /// Both ends are connected: makes room for the batches.
    pub(super) fn connect(
        &mut self,
        settings: BackSettings,
        options: &NetbackOptions,
        counters: &Arc<NetCounters>,
    ) {
        let mtu = settings.mtu(options);
        let frame = settings.offloads().segmented_frame_bytes_max.max(ETHERNET_HEADER_BYTES + mtu);
        let batch = options.batch_bytes();
        self.live = Some(Live {
            inbox: Inbox::new(batch, options.offered(), mtu),
            outbox: Outbox::new(batch, frame, settings.segmentation.any()),
            counters: counters.clone(),
        });
    }

    /// As [`Nic::poll_receive`](fata_device::Nic::poll_receive).
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Poll<Result<(), Fault>> {
        let Some(live) = &mut self.live else { return Poll::Pending };
        for _ in 0..BATCHES_AT_ONCE_MAX {
            if live.inbox.lend(consume, &live.counters) {
                return Poll::Ready(Ok(()));
            }
            let Live { inbox, counters, .. } = live;
            match inbox.fetch(&mut self.transmit, &self.hypervisor, self.frontend, counters) {
                Ok(true) => {
                    let sleeps = self.transmit.publish();
                    self.transmit_event.notify_if(sleeps, counters);
                }
                Ok(false) => {
                    self.transmit_event.wake_on_event(Sleeper::Receive, cx);
                    match self.transmit.may_sleep(1) {
                        Ok(true) => return Poll::Pending,
                        Ok(false) => {}
                        Err(error) => return Poll::Ready(Err(error.into())),
                    }
                }
                Err(fault) => return Poll::Ready(Err(fault)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// As [`Nic::poll_transmit`](fata_device::Nic::poll_transmit).
    pub(super) fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, Fault>> {
        let Some(live) = &mut self.live else { return Poll::Pending };
        let channel = self.receive_event.as_ref().unwrap_or(&self.transmit_event);
        let needed = live.outbox.slots_max();
        while self.receive.requests()? < needed && self.receive.look()? < needed {
            // A frontend lends its pages again when it has read them.
            live.send(&mut self.receive, &self.hypervisor, self.frontend, channel);
            channel.wake_on_event(Sleeper::Transmit, cx);
            if self.receive.may_sleep(needed)? {
                NetCounters::add(&live.counters.transmit_waits, 1);
                return Poll::Pending;
            }
        }
        if live.outbox.room().is_none() {
            live.send(&mut self.receive, &self.hypervisor, self.frontend, channel);
        }
        let room = live.outbox.room().expect("an empty batch has room for any frame");
        let Some(transmit) = fill(room) else { return Poll::Ready(Ok(false)) };
        let Transmit { len, partial_checksum, segmentation } = transmit;
        assert!(
            (ETHERNET_HEADER_BYTES..=room.len()).contains(&len),
            "a frame of {len} bytes was written into a buffer of {}",
            room.len()
        );
        let flags = match partial_checksum {
            Some(_) => rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED,
            None => 0,
        };
        live.outbox.add(&mut self.receive, len, flags, segmentation.map(gso))?;
        let counters = &live.counters;
        NetCounters::add(&counters.transmitted, 1);
        NetCounters::add(&counters.transmitted_bytes, len);
        NetCounters::add(&counters.transmitted_blank, usize::from(partial_checksum.is_some()));
        NetCounters::add(&counters.transmitted_segmented, usize::from(segmentation.is_some()));
        Poll::Ready(Ok(true))
    }

    /// Takes a frame and drops it.
    pub(super) fn drop_frame(
        &mut self,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> bool {
        let Some(live) = &mut self.live else { return false };
        // The batch was sent before anybody waited.
        let dropped = live.outbox.room().and_then(fill).is_some();
        NetCounters::add(&live.counters.transmit_stalled, usize::from(dropped));
        dropped
    }

    /// As [`Nic::flush`](fata_device::Nic::flush).
    pub(super) fn flush(&mut self) {
        if let Some(live) = &mut self.live {
            let channel = self.receive_event.as_ref().unwrap_or(&self.transmit_event);
            live.send(&mut self.receive, &self.hypervisor, self.frontend, channel);
        }
    }
}

impl Live {
    /// Sends the batch, if there is one, and tells the frontend.
    fn send(
        &mut self,
        ring: &mut ReceiveRing,
        hypervisor: &Hypervisor,
        frontend: DomainId,
        channel: &Channel,
    ) {
        if self.outbox.send(ring, hypervisor, frontend, &self.counters) {
            channel.notify_if(ring.publish(), &self.counters);
        }
    }
}

impl fmt::Debug for BackRings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transmit, receive) = (self.transmit.unanswered(), self.receive.unanswered());
        write!(f, "BackRings(of {}, unanswered: {transmit}, {receive})", self.frontend)
    }
}
