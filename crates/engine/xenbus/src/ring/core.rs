//! Both ends of a ring in shared pages (Xen's `io/ring.h`).
//!
//! A ring is a power of two of slots behind a header of 64 bytes. The frontend writes requests, the
//! backend takes them and writes responses into the same slots; four indices, which only ever
//! grow (and wrap at 2³²), say how far each has come:
//!
//! ```text
//!   rsp_cons ≤ rsp_prod ≤ req_cons ≤ req_prod ≤ rsp_cons + slots
//! ```
//!
//! `req_prod` and `rsp_prod` stand in the header; the other two are private to their end. The other
//! end may write the pages at any moment, so each end keeps what it produced itself in private,
//! loads the other's index once, checks it against the line above, and copies a slot before it
//! looks at it. An index that breaks the line is a [`RingError`] that names the end that lied.
//!
//! **Few notifications.** `req_event` and `rsp_event` say which index the sleeping end waits for.
//! Who produces asks [`publish`](FrontRing::publish) whether that index was passed, and notifies
//! only then; who goes to sleep says what it waits for with [`may_sleep`](FrontRing::may_sleep),
//! which looks once more, because the other end may have produced meanwhile without a notification.

use crate::Memory;
use ::core::fmt;
use ::core::sync::atomic::{Ordering, fence};

/// Offsets in the header, and its size.
const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;
const HEADER_BYTES: usize = 64;

/// The other end wrote an index that cannot be. Final: whatever else stands in the ring is as
/// little to be believed, so the ring is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// The backend's `rsp_prod` passed the requests that were made, or went back.
    ResponseIndex {
        /// What it wrote.
        rsp_prod: u32,
        /// Responses taken so far.
        rsp_cons: u32,
        /// Requests made so far.
        req_prod: u32,
    },
    /// The frontend's `req_prod` asks for more than the ring holds, or went back.
    RequestIndex {
        /// What it wrote.
        req_prod: u32,
        /// Requests taken so far.
        req_cons: u32,
        /// Responses made so far.
        rsp_prod: u32,
        /// Slots in the ring.
        slots: u32,
    },
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            RingError::ResponseIndex { rsp_prod, rsp_cons, req_prod } => write!(
                f,
                "the backend's rsp_prod is {rsp_prod}, which is not between the {rsp_cons} \
                 responses taken and the {req_prod} requests made"
            ),
            RingError::RequestIndex { req_prod, req_cons, rsp_prod, slots } => write!(
                f,
                "the frontend's req_prod is {req_prod}, after {req_cons} requests were taken and \
                 {rsp_prod} answered, in a ring of {slots}"
            ),
        }
    }
}

impl ::core::error::Error for RingError {}

/// How many slots of `slot_bytes` a ring in `ring_bytes` of shared memory has: the greatest power
/// of two that fits (`__RING_SIZE`). 0 if none fits.
pub const fn slot_count(ring_bytes: usize, slot_bytes: usize) -> u32 {
    let fit = ring_bytes.saturating_sub(HEADER_BYTES) / slot_bytes;
    if fit == 0 { 0 } else { 1 << fit.ilog2() }
}

/// The pages, and how slots lie in them. Entries are a whole number of 32-bit words.
#[derive(Debug)]
struct Slots<M, const SLOT_BYTES: usize> {
    memory: M,
    mask: u32,
}

/// Up to this many bytes an entry is copied word by word, which costs less than setting up a copy.
const WORDWISE_BYTES_MAX: usize = 16;

impl<M: Memory, const SLOT_BYTES: usize> Slots<M, SLOT_BYTES> {
    fn new(memory: M) -> Self {
        const { assert!(SLOT_BYTES > 0 && SLOT_BYTES.is_multiple_of(4)) };
        let slots = slot_count(memory.len(), SLOT_BYTES);
        assert!(slots > 0, "a ring of {} bytes has no slot of {SLOT_BYTES}", memory.len());
        Slots { memory, mask: slots - 1 }
    }

    fn count(&self) -> u32 {
        self.mask + 1
    }

    fn offset(&self, index: u32) -> usize {
        HEADER_BYTES + (index & self.mask) as usize * SLOT_BYTES
    }

    fn write<const N: usize>(&self, index: u32, entry: &[u8; N]) {
        const { assert!(N <= SLOT_BYTES && N.is_multiple_of(4)) };
        let offset = self.offset(index);
        if N > WORDWISE_BYTES_MAX {
            return self.memory.copy_in(offset, entry);
        }
        for (at, word) in entry.as_chunks::<4>().0.iter().enumerate() {
            self.memory.store_u32(offset + 4 * at, u32::from_le_bytes(*word));
        }
    }

    fn read<const N: usize>(&self, index: u32) -> [u8; N] {
        const { assert!(N <= SLOT_BYTES && N.is_multiple_of(4)) };
        let offset = self.offset(index);
        let mut entry = [0; N];
        if N > WORDWISE_BYTES_MAX {
            self.memory.copy_out(offset, &mut entry);
            return entry;
        }
        for (at, word) in entry.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *word = self.memory.load_u32(offset + 4 * at).to_le_bytes();
        }
        entry
    }

    /// Publishes a produced index; true if the other end waits for something between the two
    /// (`RING_PUSH_*_AND_CHECK_NOTIFY`).
    fn publish(&self, index_at: usize, event_at: usize, old: u32, new: u32) -> bool {
        // The entries before the index that announces them.
        fence(Ordering::Release);
        self.memory.store_u32(index_at, new);
        // The index before the look at what the other end waits for: it writes that, and then
        // looks at the index.
        self.memory.barrier();
        let event = self.memory.load_u32(event_at);
        new.wrapping_sub(event) < new.wrapping_sub(old)
    }

    /// The other end's index, loaded once; the entries that it announces are loaded after it.
    fn produced(&self, index_at: usize) -> u32 {
        let produced = self.memory.load_u32(index_at);
        fence(Ordering::Acquire);
        produced
    }

    fn wait_for(&self, event_at: usize, event: u32) {
        self.memory.store_u32(event_at, event);
        self.memory.barrier();
    }
}

/// The frontend's end: makes requests, takes responses.
///
/// Invariant: `rsp_cons ≤ rsp_prod ≤ req_prod_published ≤ req_prod ≤ rsp_cons + slots` (wrapping).
#[derive(Debug)]
pub struct FrontRing<M, const SLOT_BYTES: usize> {
    slots: Slots<M, SLOT_BYTES>,
    req_prod: u32,
    req_prod_published: u32,
    rsp_cons: u32,
    /// The last that the backend announced and that was found possible.
    rsp_prod: u32,
}

impl<M: Memory, const SLOT_BYTES: usize> FrontRing<M, SLOT_BYTES> {
    /// An empty ring in pages that the backend does not have yet, or does not look at
    /// (`SHARED_RING_INIT`). The whole of them is written.
    ///
    /// # Panics
    /// If not even one slot fits.
    pub fn new(memory: M) -> Self {
        let slots = Slots::<M, SLOT_BYTES>::new(memory);
        let memory = &slots.memory;
        for at in (0..memory.len() & !7).step_by(8) {
            memory.store_u64(at, 0);
        }
        memory.store_u32(REQ_EVENT, 1);
        memory.store_u32(RSP_EVENT, 1);
        FrontRing { slots, req_prod: 0, req_prod_published: 0, rsp_cons: 0, rsp_prod: 0 }
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.slots.count()
    }

    /// Requests made for which no response was taken yet.
    pub fn outstanding(&self) -> u32 {
        self.req_prod.wrapping_sub(self.rsp_cons)
    }

    /// How many requests can be made now.
    pub fn free(&self) -> u32 {
        self.slots() - self.outstanding()
    }

    /// The slot, counted from 0, that the next request goes to: its number among the slots of the
    /// ring. Some protocols answer a request in the slot of the same number.
    pub fn next_slot(&self) -> u32 {
        self.req_prod & self.slots.mask
    }

    /// Writes a request into the next slot. The backend sees it after [`publish`](Self::publish).
    ///
    /// # Panics
    /// If no slot is [`free`](Self::free).
    pub fn push<const N: usize>(&mut self, request: &[u8; N]) {
        assert!(self.free() > 0, "a request for a ring that is full");
        self.slots.write(self.req_prod, request);
        self.req_prod = self.req_prod.wrapping_add(1);
    }

    /// Requests that [`publish`](Self::publish) would announce.
    pub fn unpublished(&self) -> u32 {
        self.req_prod.wrapping_sub(self.req_prod_published)
    }

    /// Announces all requests made since the last time. True if the backend sleeps until one of
    /// them: it is to be notified.
    pub fn publish(&mut self) -> bool {
        let old = ::core::mem::replace(&mut self.req_prod_published, self.req_prod);
        old != self.req_prod && self.slots.publish(REQ_PROD, REQ_EVENT, old, self.req_prod)
    }

    /// How many responses can be taken now. Loads the backend's index only when all that was
    /// announced before is taken.
    ///
    /// # Errors
    /// [`RingError::ResponseIndex`].
    pub fn responses(&mut self) -> Result<u32, RingError> {
        if self.rsp_prod == self.rsp_cons { self.look() } else { Ok(self.known()) }
    }

    /// As [`responses`](Self::responses), and loads the backend's index in any case.
    ///
    /// # Errors
    /// [`RingError::ResponseIndex`].
    pub fn look(&mut self) -> Result<u32, RingError> {
        let rsp_prod = self.slots.produced(RSP_PROD);
        let ahead = rsp_prod.wrapping_sub(self.rsp_cons);
        // Not more than was announced (of the rest the backend knows no request), and not back.
        if ahead > self.req_prod_published.wrapping_sub(self.rsp_cons) || ahead < self.known() {
            return Err(RingError::ResponseIndex {
                rsp_prod,
                rsp_cons: self.rsp_cons,
                req_prod: self.req_prod_published,
            });
        }
        self.rsp_prod = rsp_prod;
        Ok(ahead)
    }

    fn known(&self) -> u32 {
        self.rsp_prod.wrapping_sub(self.rsp_cons)
    }

    /// Takes the next response with the number of its slot; `None` if there is none.
    ///
    /// # Errors
    /// [`RingError::ResponseIndex`].
    pub fn take<const N: usize>(&mut self) -> Result<Option<(u32, [u8; N])>, RingError> {
        if self.responses()? == 0 {
            return Ok(None);
        }
        let index = self.rsp_cons;
        self.rsp_cons = index.wrapping_add(1);
        Ok(Some((index & self.slots.mask, self.slots.read(index))))
    }

    /// Asks for a notification when `count` more responses are there (at least 1; no more than are
    /// outstanding, or it never comes), and looks again. False: so many are there now.
    ///
    /// # Errors
    /// [`RingError::ResponseIndex`].
    pub fn may_sleep(&mut self, count: u32) -> Result<bool, RingError> {
        self.slots.wait_for(RSP_EVENT, self.rsp_cons.wrapping_add(count.max(1)));
        Ok(self.look()? < count.max(1))
    }

    /// The pages, when the ring is no longer used.
    pub fn into_memory(self) -> M {
        self.slots.memory
    }
}

/// The backend's end: takes requests, makes responses.
///
/// Invariant: `rsp_prod_published ≤ rsp_prod ≤ req_cons ≤ req_prod ≤ rsp_prod + slots` (wrapping).
#[derive(Debug)]
pub struct BackRing<M, const SLOT_BYTES: usize> {
    slots: Slots<M, SLOT_BYTES>,
    req_cons: u32,
    /// The last that the frontend announced and that was found possible.
    req_prod: u32,
    rsp_prod: u32,
    rsp_prod_published: u32,
}

impl<M: Memory, const SLOT_BYTES: usize> BackRing<M, SLOT_BYTES> {
    /// The ring that the frontend made in `memory`. It goes on after the last response that stands
    /// there, as `BACK_RING_ATTACH`: a backend that was restarted does not answer twice.
    ///
    /// # Panics
    /// If not even one slot fits.
    pub fn attach(memory: M) -> Self {
        let slots = Slots::<M, SLOT_BYTES>::new(memory);
        // Whatever it is: it is the number from which both count, and the first request index is
        // checked against it.
        let start = slots.produced(RSP_PROD);
        BackRing {
            slots,
            req_cons: start,
            req_prod: start,
            rsp_prod: start,
            rsp_prod_published: start,
        }
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.slots.count()
    }

    /// Requests taken for which no response was made yet.
    pub fn unanswered(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_prod)
    }

    /// How many requests can be taken now; never more than [`slots`](Self::slots). Loads the
    /// frontend's index only when all that was announced before is taken.
    ///
    /// # Errors
    /// [`RingError::RequestIndex`].
    pub fn requests(&mut self) -> Result<u32, RingError> {
        if self.req_prod == self.req_cons { self.look() } else { Ok(self.known()) }
    }

    /// As [`requests`](Self::requests), and loads the frontend's index in any case: for who needs
    /// more than one request at once.
    ///
    /// # Errors
    /// [`RingError::RequestIndex`].
    pub fn look(&mut self) -> Result<u32, RingError> {
        let req_prod = self.slots.produced(REQ_PROD);
        let in_all = req_prod.wrapping_sub(self.rsp_prod);
        // Not more than the ring holds, and not back behind what it had announced.
        if in_all > self.slots() || in_all < self.req_prod.wrapping_sub(self.rsp_prod) {
            return Err(RingError::RequestIndex {
                req_prod,
                req_cons: self.req_cons,
                rsp_prod: self.rsp_prod,
                slots: self.slots(),
            });
        }
        self.req_prod = req_prod;
        Ok(self.known())
    }

    fn known(&self) -> u32 {
        self.req_prod.wrapping_sub(self.req_cons)
    }

    /// Takes the next request; `None` if there is none.
    ///
    /// # Errors
    /// [`RingError::RequestIndex`].
    pub fn take<const N: usize>(&mut self) -> Result<Option<[u8; N]>, RingError> {
        if self.requests()? == 0 {
            return Ok(None);
        }
        let request = self.slots.read(self.req_cons);
        self.req_cons = self.req_cons.wrapping_add(1);
        Ok(Some(request))
    }

    /// Writes a response into the next slot. The frontend sees it after [`publish`](Self::publish).
    ///
    /// # Panics
    /// If every request taken is answered already.
    pub fn push<const N: usize>(&mut self, response: &[u8; N]) {
        assert!(self.unanswered() > 0, "a response without a request");
        self.slots.write(self.rsp_prod, response);
        self.rsp_prod = self.rsp_prod.wrapping_add(1);
    }

    /// Announces all responses made since the last time. True if the frontend sleeps until one of
    /// them: it is to be notified.
    pub fn publish(&mut self) -> bool {
        let old = ::core::mem::replace(&mut self.rsp_prod_published, self.rsp_prod);
        old != self.rsp_prod && self.slots.publish(RSP_PROD, RSP_EVENT, old, self.rsp_prod)
    }

    /// Asks for a notification when `count` more requests are there (at least 1), and looks again.
    /// False: so many are there now.
    ///
    /// # Errors
    /// [`RingError::RequestIndex`].
    pub fn may_sleep(&mut self, count: u32) -> Result<bool, RingError> {
        self.slots.wait_for(REQ_EVENT, self.req_cons.wrapping_add(count.max(1)));
        Ok(self.look()? < count.max(1))
    }

    /// The pages, when the ring is no longer used.
    pub fn into_memory(self) -> M {
        self.slots.memory
    }
}

#[cfg(test)]
mod tests;
