//! [`Outbox`]: where frames are written that the backend is to read.
//!
//! Its pages are granted once, for reading only, so that the stack may write frames right where the
//! backend fetches them: no copy, no grant per frame. It is used round and round in units of half a
//! page. A frame takes as many units as it needs, one after the other, and gives them back when the
//! backend has answered all of its requests; answers may come in any order, units come back in the
//! order in which they were taken.
//!
//! A frame's length is known only when it has been written, so room is made for the longest. So that
//! a long frame needs no luck near the end, there is a tail: a frame may *begin* anywhere before it,
//! and end in it.
//!
//! ```text
//!  | unit 0 | 1 | … frames under way … | head → | … | units-1 | tail … |
//! ```

use super::super::PAGE_BYTES;
use core::fmt;
use fata_hypercall::Granted;
use fata_xenbus::ring::net::{TxRequest, TxResponse, status, tx_flags};
use std::collections::VecDeque;

/// Half a page: a whole Ethernet frame, and two to a page.
pub(super) const UNIT_BYTES: usize = 2048;
/// Requests under way at most: the slots of a ring of one page. Ids are below.
pub(super) const IDS: usize = 256;

/// An answer that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerError {
    /// To no request.
    Id(u16),
    /// `XEN_NETIF_RSP_NULL`, and there are no slots without a request left.
    Null,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::Id(id) => write!(
                f,
                "the backend answered the transmit request {id}, which is not outstanding"
            ),
            AnswerError::Null => f.write_str(
                "the backend answered more slots of extra information than it was given",
            ),
        }
    }
}

/// A frame that the backend has.
#[derive(Clone, Copy, Debug)]
struct Sent {
    units: u16,
    /// Requests of it without an answer.
    pending: u16,
}

pub(super) struct Outbox {
    pages: Granted,
    /// Where frames may begin.
    units: usize,
    /// Room that is made for a frame, in bytes.
    frame_bytes_max: usize,
    /// Where the next frame begins, in units.
    head: usize,
    /// Units, without those of the tail, of frames under way.
    used: usize,
    /// Frames under way, the oldest first, and the number of the oldest.
    sent: VecDeque<Sent>,
    oldest: u32,
    /// Whose request has this id: the frame's number, which wraps.
    owners: [Option<u32>; IDS],
    free_ids: Vec<u16>,
    /// Slots of extra information without an answer.
    extras: usize,
}

impl Outbox {
    /// How many pages are needed for frames of `frame_bytes_max` to begin anywhere in `units`.
    pub(super) fn pages_needed(units: usize, frame_bytes_max: usize) -> usize {
        let tail = frame_bytes_max.div_ceil(UNIT_BYTES) - 1;
        ((units + tail) * UNIT_BYTES).div_ceil(PAGE_BYTES)
    }

    /// `pages` are granted for reading only, and as many as [`Outbox::pages_needed`] says.
    pub(super) fn new(pages: Granted, units: usize, frame_bytes_max: usize) -> Self {
        assert!(units * UNIT_BYTES >= frame_bytes_max);
        Outbox {
            pages,
            units,
            frame_bytes_max,
            head: 0,
            used: 0,
            sent: VecDeque::with_capacity(IDS),
            oldest: 0,
            owners: [None; IDS],
            free_ids: (0..IDS as u16).rev().collect(),
            extras: 0,
        }
    }

    /// Slots that the longest frame takes, if it is cut (one more, for how).
    pub(super) fn slots_max(&self) -> u32 {
        // It may begin in the middle of a page.
        (UNIT_BYTES + self.frame_bytes_max).div_ceil(PAGE_BYTES) as u32 + 1
    }

    /// Room for the longest frame; `None` if there is not so much.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        // What reaches into the tail is not in the way of the beginning: whoever used the tail last
        // began where this frame begins or later, and so was taken back before.
        let needed = self.frame_bytes_max.div_ceil(UNIT_BYTES).min(self.units - self.head);
        if self.units - self.used < needed {
            return None;
        }
        let start = self.head * UNIT_BYTES;
        let bytes = self.pages.bytes_mut().expect("granted for reading only");
        Some(&mut bytes[start..start + self.frame_bytes_max])
    }

    /// Sends the first `len` bytes of the [`room`](Self::room): calls `push` with each request, the
    /// first with the given flags, and counts `extras` slots after the first that are no requests.
    pub(super) fn send(
        &mut self,
        len: usize,
        flags: u16,
        extras: usize,
        mut push: impl FnMut(TxRequest),
    ) {
        let frame = self.oldest.wrapping_add(self.sent.len() as u32);
        let (mut at, end) = (self.head * UNIT_BYTES, self.head * UNIT_BYTES + len);
        let mut pending = 0;
        while at < end {
            let piece = (PAGE_BYTES - at % PAGE_BYTES).min(end - at);
            let id = self.free_ids.pop().expect("as many ids as slots");
            self.owners[usize::from(id)] = Some(frame);
            let more = if at + piece < end { tx_flags::MORE_DATA } else { 0 };
            let (flags, size) = if pending == 0 { (flags, len) } else { (0, piece) };
            push(TxRequest {
                gref: self.pages.refs()[at / PAGE_BYTES].0,
                offset: (at % PAGE_BYTES) as u16,
                flags: flags | more,
                id,
                size: size as u16,
            });
            pending += 1;
            at += piece;
        }
        let units = len.div_ceil(UNIT_BYTES).min(self.units - self.head);
        self.sent.push_back(Sent { units: units as u16, pending });
        self.used += units;
        self.head = (self.head + units) % self.units;
        self.extras += extras;
    }

    /// Takes an answer. True if a request was answered, and the frame was taken; false if the
    /// backend did not take it.
    pub(super) fn answer(&mut self, response: TxResponse) -> Result<bool, AnswerError> {
        if response.status == status::NULL {
            self.extras = self.extras.checked_sub(1).ok_or(AnswerError::Null)?;
            return Ok(true);
        }
        let refused = AnswerError::Id(response.id);
        let owner = self.owners.get_mut(usize::from(response.id)).ok_or(refused)?;
        let frame = owner.take().ok_or(refused)?;
        self.free_ids.push(response.id);
        // A frame whose requests are not all answered has not been taken back, so it is there.
        self.sent[frame.wrapping_sub(self.oldest) as usize].pending -= 1;
        while let Some(Sent { units, pending: 0 }) = self.sent.front() {
            self.used -= usize::from(*units);
            self.sent.pop_front();
            self.oldest = self.oldest.wrapping_add(1);
        }
        Ok(response.status == status::OKAY)
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outbox { units, used, .. } = self;
        write!(f, "Outbox({used} of {units} units, {} frames)", self.sent.len())
    }
}

#[cfg(test)]
mod tests;
