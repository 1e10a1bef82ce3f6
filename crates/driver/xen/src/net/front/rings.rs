//! [`FrontRings`]: the rings of one connection, with the pages that they speak of.

use super::super::channel::{Channel, Sleeper, Sleepers};
use super::super::counters::NetCounters;
use super::super::{ETHERNET_HEADER_BYTES, PAGE_BYTES, checksum, gso, segmentation};
use super::outbox::{AnswerError, Outbox};
use super::{FrontSettings, NetfrontOptions};
use crate::memory::Shared;
use core::fmt;
use core::task::{Context, Poll};
use fata_device::{Received, Transmit};
use fata_hypercall::{
    Access, DomainId, EventChannel, GrantRef, Granted, HypercallError, Hypervisor, Port, Window,
};
use fata_xenbus::ring::core::{FrontRing, RingError};
use fata_xenbus::ring::net::{
    Extra, ExtraInfo, GsoFamilies, PACKET_BYTES_MAX, RX_SLOT_BYTES, RxRequest, TX_SLOT_BYTES,
    TxResponse, rx_flags, tx_flags,
};
use fata_xenbus::ring::net_receive::{ReceiveAssembler, ReceiveError, ReceiveSlot, ReceivedPacket};
use std::sync::Arc;

/// What the backend did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Ring(RingError),
    Receive(ReceiveError),
    Answer(AnswerError),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Ring(error) => error.fmt(f),
            Fault::Receive(error) => error.fmt(f),
            Fault::Answer(error) => error.fmt(f),
        }
    }
}

impl From<RingError> for Fault {
    fn from(error: RingError) -> Self {
        Fault::Ring(error)
    }
}

/// Packets that are not fit for use, or slots that bring nothing, are passed over so often before
/// other tasks get their turn: a whole ring.
const SLOTS_AT_ONCE_MAX: usize = 256;

/// The rings of a connection. They are made before it, so that the backend can be told of them, and
/// stay until it has ended.
pub(in super::super) struct FrontRings {
    transmit: FrontRing<Shared<Granted>, TX_SLOT_BYTES>,
    receive: FrontRing<Shared<Granted>, RX_SLOT_BYTES>,
    refs: (GrantRef, GrantRef),
    transmit_event: Channel,
    /// Its own channel, if the backend offered to split them.
    receive_event: Option<Channel>,
    /// Where the backend puts frames: a slot's page is the one of the slot's number, modulo their
    /// count, which divides the number of slots. A page is lent again as soon as its bytes were
    /// copied.
    pool: Granted,
    assembler: ReceiveAssembler,
    /// `None` before the connection.
    outbox: Option<Outbox>,
    mtu: usize,
    backend: DomainId,
    hypervisor: Hypervisor,
    options: NetfrontOptions,
    counters: Arc<NetCounters>,
    #[cfg(test)]
    broken: Option<Shared<Granted>>,
}

impl FrontRings {
    /// Grants a ring for each direction and the pages for receiving, and makes the event channels.
    /// Receive buffers are offered already: a backend may fill them as soon as it is connected.
    pub(in super::super) fn new(
        hypervisor: &Hypervisor,
        backend: DomainId,
        split_channels: bool,
        device: &super::FrontDevice,
    ) -> Result<Self, HypercallError> {
        let options = device.options;
        let sleepers: &Arc<Sleepers> = device.link.sleepers();
        let ring_page = || hypervisor.grant(backend, 1, Access::ReadWrite);
        let (transmit, receive) = (ring_page()?, ring_page()?);
        let refs = (transmit.refs()[0], receive.refs()[0]);
        let pool = hypervisor.grant(backend, options.receive_pages(), Access::ReadWrite)?;
        let event = || hypervisor.allocate_unbound(backend);
        let transmit_event = Channel::new(event()?, sleepers);
        let receive_event = match split_channels {
            true => Some(Channel::new(event()?, sleepers)),
            false => None,
        };
        let asked = GsoFamilies { tcpv4: options.segmentation, tcpv6: options.segmentation };
        let mut rings = FrontRings {
            transmit: FrontRing::new(Shared(transmit)),
            receive: FrontRing::new(Shared(receive)),
            refs,
            transmit_event,
            receive_event,
            pool,
            assembler: ReceiveAssembler::new(asked),
            outbox: None,
            mtu: 0,
            backend,
            hypervisor: hypervisor.clone(),
            options,
            counters: device.counters.clone(),
            #[cfg(test)]
            broken: None,
        };
        (0..rings.pool.refs().len()).for_each(|_| rings.lend_page());
        // Nobody is there to be notified yet.
        rings.receive.publish();
        Ok(rings)
    }

    /// The grants of the transmit and of the receive ring.
    pub(in super::super) fn refs(&self) -> (GrantRef, GrantRef) {
        self.refs
    }

    /// The ports for the transmit ring, and for the receive ring if it has its own.
    pub(in super::super) fn ports(&self) -> (Port, Option<Port>) {
        let port = |channel: &Channel| EventChannel::port(channel.event());
        (port(&self.transmit_event), self.receive_event.as_ref().map(port))
    }

    /// Both ends are connected: makes room for frames to transmit.
    pub(super) fn connect(&mut self, settings: FrontSettings) -> Result<(), String> {
        let frame = settings.frame_bytes_max();
        let units = self.options.transmit_units();
        let pages = Outbox::pages_needed(units, frame);
        let pages = self
            .hypervisor
            .grant(self.backend, pages, Access::ReadOnly)
            .map_err(|error| error.to_string())?;
        self.outbox = Some(Outbox::new(pages, units, frame));
        self.mtu = settings.mtu;
        // The backend may have looked before it was ready to act on what it saw.
        self.transmit_event.event().notify();
        if let Some(channel) = &self.receive_event {
            channel.event().notify();
        }
        Ok(())
    }

    fn receive_event(&self) -> &Channel {
        self.receive_event.as_ref().unwrap_or(&self.transmit_event)
    }

    /// Offers the page of the next slot to the backend.
    fn lend_page(&mut self) {
        let slot = self.receive.next_slot();
        let page = slot as usize % self.pool.refs().len();
        let request = RxRequest { id: slot as u16, gref: self.pool.refs()[page].0 };
        self.receive.push(&request.encode());
    }

    /// The next frame, copied into `scratch`: its length and what is said of it.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<(usize, Received), Fault>> {
        for _ in 0..SLOTS_AT_ONCE_MAX {
            match self.take_slot(scratch) {
                Ok(Some(Some(frame))) => return Poll::Ready(Ok(frame)),
                Ok(Some(None)) => {}
                Ok(None) => match self.may_sleep_until_received(cx) {
                    Ok(true) => return Poll::Pending,
                    Ok(false) => {}
                    Err(fault) => return Poll::Ready(Err(fault)),
                },
                Err(fault) => return Poll::Ready(Err(fault)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn may_sleep_until_received(&mut self, cx: &Context<'_>) -> Result<bool, Fault> {
        // Whoever sleeps lends what he has.
        self.publish_receive();
        let channel = self.receive_event.as_ref().unwrap_or(&self.transmit_event);
        channel.wake_on_event(Sleeper::Receive, cx);
        Ok(self.receive.may_sleep(1)?)
    }

    /// Takes the next response; the frame, if it was its last. `None`: there is no response.
    fn take_slot(
        &mut self,
        scratch: &mut [u8],
    ) -> Result<Option<Option<(usize, Received)>>, Fault> {
        let Some((slot, entry)) = self.receive.take()? else { return Ok(None) };
        let (held, packet) = self.assembler.feed(slot as u16, &entry).map_err(Fault::Receive)?;
        if let ReceiveSlot::Data { offset, bytes, at } = held {
            let page = slot as usize % self.pool.refs().len();
            self.pool.copy_out(page * PAGE_BYTES + offset, &mut scratch[at..at + bytes]);
        }
        self.lend_page();
        // The backend must not run out of pages while a long batch is read.
        if self.receive.unpublished() as usize * 4 >= self.pool.refs().len() {
            self.publish_receive();
        }
        Ok(Some(packet.and_then(|packet| self.judge(packet))))
    }

    /// What the stack is to be told of a packet; `None` if it is not to see it.
    fn judge(&self, packet: ReceivedPacket) -> Option<(usize, Received)> {
        let ReceivedPacket { bytes, flags, gso, .. } = packet;
        let most = if gso.is_some() { PACKET_BYTES_MAX } else { ETHERNET_HEADER_BYTES + self.mtu };
        let counters = &self.counters;
        if !packet.fit || !(ETHERNET_HEADER_BYTES..=most).contains(&bytes) {
            NetCounters::add(&counters.receive_unfit, 1);
            return None;
        }
        let blank = flags & rx_flags::CSUM_BLANK != 0;
        NetCounters::add(&counters.received, 1);
        NetCounters::add(&counters.received_bytes, bytes);
        NetCounters::add(&counters.received_blank, usize::from(blank));
        NetCounters::add(&counters.received_segmented, usize::from(gso.is_some()));
        let checksum = checksum(blank, flags & rx_flags::DATA_VALIDATED != 0);
        Some((bytes, Received { checksum, segmentation: gso.map(segmentation) }))
    }

    fn publish_receive(&mut self) {
        if self.receive.unpublished() > 0 {
            let sleeps = self.receive.publish();
            self.receive_event().notify_if(sleeps, &self.counters);
        }
    }

    /// As [`Nic::poll_transmit`](fata_device::Nic::poll_transmit).
    pub(super) fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, Fault>> {
        match self.make_room(cx) {
            Ok(true) => {}
            Ok(false) => return Poll::Pending,
            Err(fault) => return Poll::Ready(Err(fault)),
        }
        let outbox = self.outbox.as_mut().expect("connected");
        let room = outbox.room().expect("just made");
        let Some(transmit) = fill(room) else { return Poll::Ready(Ok(false)) };
        let Transmit { len, partial_checksum, segmentation } = transmit;
        assert!(
            (ETHERNET_HEADER_BYTES..=room.len()).contains(&len),
            "a frame of {len} bytes was written into a buffer of {}",
            room.len()
        );
        let mut flags = 0;
        if partial_checksum.is_some() {
            flags |= tx_flags::CSUM_BLANK | tx_flags::DATA_VALIDATED;
        }
        let mut extra = segmentation.map(|segmentation| {
            flags |= tx_flags::EXTRA_INFO;
            Extra { info: ExtraInfo::Gso(gso(segmentation)), more: false }.encode_tx()
        });
        let ring = &mut self.transmit;
        outbox.send(len, flags, usize::from(extra.is_some()), |request| {
            ring.push(&request.encode());
            if let Some(extra) = extra.take() {
                ring.push(&extra);
            }
        });
        let counters = &self.counters;
        NetCounters::add(&counters.transmitted, 1);
        NetCounters::add(&counters.transmitted_bytes, len);
        NetCounters::add(&counters.transmitted_blank, usize::from(partial_checksum.is_some()));
        NetCounters::add(&counters.transmitted_segmented, usize::from(segmentation.is_some()));
        Poll::Ready(Ok(true))
    }

    /// Takes answers until there is room for the longest frame. False: the task is woken when there
    /// may be.
    fn make_room(&mut self, cx: &Context<'_>) -> Result<bool, Fault> {
        loop {
            let outbox = self.outbox.as_mut().expect("connected");
            // Only when it is needed: looking for answers touches memory that the backend writes.
            if self.transmit.free() >= outbox.slots_max() && outbox.room().is_some() {
                return Ok(true);
            }
            if let Some((_, entry)) = self.transmit.take()? {
                let mut failed = 0;
                let mut next = Some(entry);
                while let Some(entry) = next {
                    let taken = outbox.answer(TxResponse::decode(&entry)).map_err(Fault::Answer)?;
                    failed += usize::from(!taken);
                    next = self.transmit.take()?.map(|(_, entry)| entry);
                }
                NetCounters::add(&self.counters.transmit_failed, failed);
                continue;
            }
            // The backend answers only what it was told of.
            self.publish_transmit();
            self.transmit_event.wake_on_event(Sleeper::Transmit, cx);
            // Woken once when most are free again, not once for each.
            let outstanding = self.transmit.outstanding();
            if self.transmit.may_sleep(outstanding - outstanding / 4)? {
                // Some may have come, fewer than were asked for: enough perhaps.
                if self.transmit.responses()? == 0 {
                    NetCounters::add(&self.counters.transmit_waits, 1);
                    return Ok(false);
                }
            }
        }
    }

    fn publish_transmit(&mut self) {
        if self.transmit.unpublished() > 0 {
            let sleeps = self.transmit.publish();
            self.transmit_event.notify_if(sleeps, &self.counters);
        }
    }

    /// As [`Nic::flush`](fata_device::Nic::flush).
    pub(super) fn flush(&mut self) {
        self.publish_transmit();
        self.publish_receive();
    }
}

#[cfg(test)]
impl FrontRings {
    /// Puts another ring with a wild index in the place of the one that the backend has.
    pub(super) fn break_the_ring(&mut self) {
        use fata_xenbus::Memory;
        let spare = self.hypervisor.grant(self.backend, 1, Access::ReadWrite).expect("a page");
        let ring = core::mem::replace(&mut self.transmit, FrontRing::new(Shared(spare)));
        let page = ring.into_memory();
        page.store_u32(0, 0x8000_0000);
        self.transmit_event.event().notify();
        // It stays granted.
        self.broken = Some(page);
    }
}

impl fmt::Debug for FrontRings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FrontRings { backend, refs, outbox, .. } = self;
        write!(f, "FrontRings(with {backend}, {refs:?}, {outbox:?})")
    }
}
