//! [`Outbox`]: a batch of frames for the frontend.
//!
//! The stack writes frames into memory of ours, one behind the other; each is given as many of the
//! frontend's pages as it needs. At the end of the batch all go there in one hypercall, and then
//! the frontend is told.

use super::super::PAGE_BYTES;
use super::super::counters::NetCounters;
use super::inbox::recycled;
use super::rings::{Fault, ReceiveRing};
use fata_hypercall::{CopyData, CopyOperation, DomainId, GrantRef, Hypervisor};
use fata_xenbus::ring::net::{Extra, ExtraInfo, Gso, RxRequest, RxResponse, rx_flags, status};

/// A slot of the receive ring that was taken for a frame.
#[derive(Debug)]
enum Slot {
    /// Bytes of the batch, `at` from its beginning, for this page.
    Data { request: RxRequest, at: usize, bytes: usize, flags: u16 },
    /// How the frame is to be cut.
    Extra(Gso),
}

/// Slots of a ring: more are never taken before they are answered.
const SLOTS_MAX: usize = 256;

pub(super) struct Outbox {
    bytes: Box<[u8]>,
    filled: usize,
    slots: Vec<Slot>,
    operations: Vec<CopyOperation<'static>>,
    frame_bytes_max: usize,
    segmentation: bool,
}

impl Outbox {
    pub(super) fn new(batch_bytes: usize, frame_bytes_max: usize, segmentation: bool) -> Self {
        Outbox {
            bytes: vec![0; batch_bytes.max(frame_bytes_max)].into_boxed_slice(),
            filled: 0,
            slots: Vec::with_capacity(SLOTS_MAX),
            operations: Vec::with_capacity(SLOTS_MAX),
            frame_bytes_max,
            segmentation,
        }
    }

    /// Slots that the longest frame takes.
    pub(super) fn slots_max(&self) -> u32 {
        self.frame_bytes_max.div_ceil(PAGE_BYTES) as u32 + u32::from(self.segmentation)
    }

    /// Room for the longest frame; `None` if the batch must be sent first.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        self.bytes[self.filled..].get_mut(..self.frame_bytes_max)
    }

    /// Adds the first `len` bytes of the [`room`](Self::room) to the batch. The ring has
    /// [`slots_max`](Self::slots_max) requests.
    pub(super) fn add(
        &mut self,
        ring: &mut ReceiveRing,
        len: usize,
        flags: u16,
        gso: Option<Gso>,
    ) -> Result<(), Fault> {
        let (mut at, end) = (self.filled, self.filled + len);
        let mut flags = flags | if gso.is_some() { rx_flags::EXTRA_INFO } else { 0 };
        let mut extra = gso;
        while at < end {
            // There are so many requests: they were counted before the frame was written.
            let Some(request) = ring.take()? else { break };
            let bytes = PAGE_BYTES.min(end - at);
            let more = if at + bytes < end { rx_flags::MORE_DATA } else { 0 };
            let request = RxRequest::decode(&request);
            self.slots.push(Slot::Data { request, at, bytes, flags: flags | more });
            if let Some(gso) = extra.take() {
                ring.take::<8>()?;
                self.slots.push(Slot::Extra(gso));
            }
            flags = 0;
            at += bytes;
        }
        self.filled = end;
        Ok(())
    }

    /// Copies the batch into the frontend's pages and answers its slots. True if there was one.
    pub(super) fn send(
        &mut self,
        ring: &mut ReceiveRing,
        hypervisor: &Hypervisor,
        frontend: DomainId,
        counters: &NetCounters,
    ) -> bool {
        if self.slots.is_empty() {
            return false;
        }
        let mut operations = recycled(core::mem::take(&mut self.operations));
        for slot in &self.slots {
            if let Slot::Data { request, at, bytes, .. } = slot {
                operations.push(CopyOperation {
                    remote: frontend,
                    grant: GrantRef(request.gref),
                    offset: 0,
                    data: CopyData::From(&self.bytes[*at..*at + *bytes]),
                    status: 0,
                });
            }
        }
        NetCounters::add(&counters.copy_batches, 1);
        NetCounters::add(&counters.copies, operations.len());
        // An error of the whole stands in each operation's status too.
        let _ = hypervisor.copy(&mut operations);
        let mut statuses = operations.iter().map(|operation| operation.status);
        let mut failed = 0;
        for slot in &self.slots {
            match slot {
                Slot::Data { request, bytes, flags, .. } => {
                    let copied = statuses.next() == Some(0);
                    failed += usize::from(!copied);
                    let status = if copied { *bytes as i16 } else { status::ERROR };
                    let response = RxResponse { id: request.id, offset: 0, flags: *flags, status };
                    ring.push(&response.encode());
                }
                Slot::Extra(gso) => {
                    let extra = Extra { info: ExtraInfo::Gso(*gso), more: false };
                    ring.push(&extra.encode());
                }
            }
        }
        NetCounters::add(&counters.transmit_failed, failed);
        self.operations = recycled(operations);
        self.slots.clear();
        self.filled = 0;
        true
    }
}
