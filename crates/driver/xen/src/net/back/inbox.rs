//! [`Inbox`]: a batch of packets that the frontend transmitted.
//!
//! As many packets as there are, up to a bound, are copied from the frontend's pages in one
//! hypercall; then all of their slots are answered, and the packets are lent to the stack one by
//! one. After the copy nothing of the frontend's is looked at any more.

use super::super::counters::NetCounters;
use super::super::{ETHERNET_HEADER_BYTES, checksum, segmentation};
use super::rings::{Fault, TransmitRing};
use core::ops::Range;
use fata_device::Received;
use fata_hypercall::{CopyData, CopyOperation, DomainId, GrantRef, Hypervisor};
use fata_xenbus::ring::net::{
    DATA_SLOTS_MAX, GsoFamilies, PACKET_BYTES_MAX, TxRequest, TxResponse, status, tx_flags,
};
use fata_xenbus::ring::net_transmit::{TransmitAssembler, TransmitPacket};

/// Pieces of packets in a batch at most: the slots of a ring, and a packet that was begun before.
const PIECES_MAX: usize = 256 + 32;

/// A packet of the batch.
#[derive(Debug)]
struct Packet {
    /// Its bytes in the batch; empty if it is not to be taken.
    bytes: Range<usize>,
    /// Its requests, in `Inbox::pieces`.
    pieces: Range<usize>,
    extras: usize,
    /// How its requests are answered. Anything but okay, and it is not lent.
    status: i16,
    received: Received,
}

pub(super) struct Inbox {
    bytes: Box<[u8]>,
    pieces: Vec<TxRequest>,
    packets: Vec<Packet>,
    /// The first packet that was not lent yet.
    next: usize,
    assembler: TransmitAssembler,
    operations: Vec<CopyOperation<'static>>,
    /// The longest packet that is not to be cut.
    frame_bytes_max: usize,
}

impl Inbox {
    pub(super) fn new(batch_bytes: usize, families: GsoFamilies, mtu: usize) -> Self {
        Inbox {
            bytes: vec![0; batch_bytes.max(PACKET_BYTES_MAX)].into_boxed_slice(),
            pieces: Vec::with_capacity(PIECES_MAX),
            packets: Vec::with_capacity(PIECES_MAX),
            next: 0,
            assembler: TransmitAssembler::new(families),
            operations: Vec::with_capacity(PIECES_MAX),
            frame_bytes_max: ETHERNET_HEADER_BYTES + mtu,
        }
    }

    /// Lends the next packet of the batch; false if all were lent.
    pub(super) fn lend(
        &mut self,
        consume: &mut dyn FnMut(&mut [u8], Received),
        counters: &NetCounters,
    ) -> bool {
        while let Some(packet) = self.packets.get(self.next) {
            self.next += 1;
            if packet.status != status::OKAY {
                NetCounters::add(&counters.receive_unfit, 1);
                continue;
            }
            let blank = packet.received.checksum == fata_device::Checksum::Blank;
            let segmented = packet.received.segmentation.is_some();
            NetCounters::add(&counters.received, 1);
            NetCounters::add(&counters.received_bytes, packet.bytes.len());
            NetCounters::add(&counters.received_blank, usize::from(blank));
            NetCounters::add(&counters.received_segmented, usize::from(segmented));
            consume(&mut self.bytes[packet.bytes.clone()], packet.received);
            return true;
        }
        false
    }

    /// Takes the next batch from the ring and answers it. False: there was not one whole packet.
    pub(super) fn fetch(
        &mut self,
        ring: &mut TransmitRing,
        hypervisor: &Hypervisor,
        frontend: DomainId,
        counters: &NetCounters,
    ) -> Result<bool, Fault> {
        self.read(ring)?;
        if self.packets.is_empty() {
            return Ok(false);
        }
        self.copy(hypervisor, frontend, counters);
        self.answer(ring);
        Ok(true)
    }

    /// Reads what is to be done from the ring.
    fn read(&mut self, ring: &mut TransmitRing) -> Result<(), Fault> {
        self.next = 0;
        self.packets.clear();
        self.pieces.clear();
        let mut filled = 0;
        // Only at the beginning of a packet is it known that there is room for all of it; the slots
        // of one that was begun are no more than the ring has.
        while self.assembler.is_within_packet()
            || filled + PACKET_BYTES_MAX <= self.bytes.len()
                && self.pieces.len() + DATA_SLOTS_MAX + 2 <= PIECES_MAX
        {
            let Some(slot) = ring.take()? else { return Ok(()) };
            let Some(packet) = self.assembler.feed(&slot).map_err(Fault::Transmit)? else {
                continue;
            };
            let (packet, requests) = plan(packet, filled, self.pieces.len(), self.frame_bytes_max);
            self.pieces.extend_from_slice(requests);
            filled = filled.max(packet.bytes.end);
            self.packets.push(packet);
        }
        Ok(())
    }

    /// Copies the bytes of all packets of the batch, and notes which could not be copied.
    fn copy(&mut self, hypervisor: &Hypervisor, frontend: DomainId, counters: &NetCounters) {
        let mut operations = recycled(core::mem::take(&mut self.operations));
        let mut rest = &mut self.bytes[..];
        let taken = |packet: &&Packet| packet.status == status::OKAY;
        for packet in self.packets.iter().filter(taken) {
            for piece in &self.pieces[packet.pieces.clone()] {
                let into;
                (into, rest) = rest.split_at_mut(usize::from(piece.size));
                if !into.is_empty() {
                    operations.push(CopyOperation {
                        remote: frontend,
                        grant: GrantRef(piece.gref),
                        offset: piece.offset,
                        data: CopyData::Into(into),
                        status: 0,
                    });
                }
            }
        }
        if !operations.is_empty() {
            NetCounters::add(&counters.copy_batches, 1);
            NetCounters::add(&counters.copies, operations.len());
            // An error of the whole stands in each operation's status too.
            let _ = hypervisor.copy(&mut operations);
        }
        let mut statuses = operations.iter().map(|operation| operation.status);
        for packet in self.packets.iter_mut().filter(|packet| packet.status == status::OKAY) {
            let pieces = self.pieces[packet.pieces.clone()].iter();
            let copied = pieces
                .filter(|piece| piece.size > 0)
                .fold(true, |copied, _| statuses.next() == Some(0) && copied);
            if !copied {
                packet.status = status::ERROR;
            }
        }
        self.operations = recycled(operations);
    }

    /// Answers every slot of the batch.
    fn answer(&self, ring: &mut TransmitRing) {
        for packet in &self.packets {
            let mut extras = packet.extras;
            for request in &self.pieces[packet.pieces.clone()] {
                ring.push(&TxResponse { id: request.id, status: packet.status }.encode());
                // They stand behind the first request.
                for _ in 0..core::mem::take(&mut extras) {
                    ring.push(&TxResponse { id: 0, status: status::NULL }.encode());
                }
            }
        }
    }
}

/// What is to be done with a packet.
fn plan(
    packet: &TransmitPacket,
    filled: usize,
    first_piece: usize,
    frame_bytes_max: usize,
) -> (Packet, &[TxRequest]) {
    let requests = packet.requests();
    let status = if packet.fault().is_some() {
        status::ERROR
    } else if packet.gso().is_none() && packet.bytes() > frame_bytes_max {
        status::DROPPED
    } else {
        status::OKAY
    };
    let bytes = if status == status::OKAY { packet.bytes() } else { 0 };
    let flags = packet.flags();
    let checksum =
        checksum(flags & tx_flags::CSUM_BLANK != 0, flags & tx_flags::DATA_VALIDATED != 0);
    let planned = Packet {
        bytes: filled..filled + bytes,
        pieces: first_piece..first_piece + requests.len(),
        extras: packet.extras(),
        status,
        received: Received { checksum, segmentation: packet.gso().map(segmentation) },
    };
    (planned, requests)
}

/// The same allocation for operations on other bytes.
pub(super) fn recycled<'b>(mut operations: Vec<CopyOperation<'_>>) -> Vec<CopyOperation<'b>> {
    operations.clear();
    // Empty, so nothing is converted; collecting in place keeps the allocation.
    operations.into_iter().map(|_| unreachable!("it is empty")).collect()
}
