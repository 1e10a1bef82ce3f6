//! The segment that a stream brings nearly always: data that is next, of a peer that has nothing
//! new to say (header prediction, RFC 1323 Appendix, which credits Van Jacobson). What
//! `input.rs` would find and do about it, step by step, is known beforehand.

use super::{Connection, Owner, State};
use crate::tcp::timers::NEVER;
use crate::tcp::{Seq, Shared};
use crate::time::Instant;
use crate::wire::tcp::{Flags, HEADER_LEN, TIMESTAMPS_HEAD, TIMESTAMPS_LEN};

/// A segment that a connection expects. Its checksum is yet to be looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    payload: &'a [u8],
    /// The peer's clock, if timestamps were agreed on.
    clock: Option<u32>,
}

impl Connection {
    /// Everything that was sent is acknowledged, and nothing is missing of what was received: the
    /// next segment may be one that is expected.
    pub(crate) fn is_only_receiving(&self) -> bool {
        matches!(self.state, State::Established | State::FinWait2)
            && self.is_attached
            && self.owner != Owner::Nobody
            && self.una == self.max
            && self.tail.is_none()
            && !self.tail_probe_due
            && self.receive.is_plain()
    }

    /// Reads a segment, if it is the expected one: the next bytes, for which there is room in the
    /// window; with ACK and PSH alone, an acknowledgment and a window that are known
    /// already, and timestamps where they were agreed on and where everybody has them.
    pub(crate) fn expects<'a>(&self, segment: &'a [u8]) -> Option<Expected<'a>> {
        let (fixed, rest) = segment.split_first_chunk::<HEADER_LEN>()?;
        let word = |at| fixed[at..].first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
        let options_len = if self.has_timestamps { TIMESTAMPS_LEN } else { 0 };
        // Data offset, reserved bits, flags, window.
        let offset = ((HEADER_LEN + options_len) as u32 / 4) << 28;
        let flags = u32::from(Flags::ACK.0) << 16;
        let mixed = word(12) & !(u32::from(Flags::PSH.0) << 16);
        let is_expected = self.is_only_receiving()
            && word(4) == self.receive.acknowledge().0
            && word(8) == self.una.0
            && mixed & 0xffff_0000 == offset | flags
            && (mixed & 0xffff) << self.window_shift == self.window;
        if !is_expected {
            return None;
        }
        let (payload, clock) = match self.has_timestamps {
            true => {
                let (options, payload) = rest.split_first_chunk::<TIMESTAMPS_LEN>()?;
                let clock = u32::from_be_bytes(*options[4..].first_chunk()?);
                let is_good = options.first_chunk() == Some(&TIMESTAMPS_HEAD)
                    && !Seq(clock).before(Seq(self.peer_clock.recent()));
                (payload, Some(clock).filter(|_| is_good)?.into())
            }
            false => (rest, None),
        };
        let room = self.edge.since(self.receive.acknowledge()) as usize;
        let fits = payload.len() <= room && !payload.is_empty();
        fits.then_some(Expected { payload, clock })
    }

    /// Takes the segment that was expected, and whose checksum is right. False if there is no memory
    /// for it: nothing has happened.
    pub(crate) fn take_expected(
        &mut self,
        now: Instant,
        expected: Expected<'_>,
        shared: &mut Shared,
    ) -> bool {
        let Expected { payload, clock } = expected;
        let sequence = self.receive.acknowledge();
        self.note_holding(now);
        if !self.receive.append(payload, shared.settings.receive_bytes, &mut shared.memory) {
            return false;
        }
        if let Some(clock) = clock
            && sequence.at_or_before(self.last_ack_sent)
        {
            self.peer_clock.take(now, clock, sequence);
        }
        // No segment that came before is newer: none is ahead of this one.
        (self.window_seq, self.window_ack) = (sequence, self.una);
        self.on_window(now);
        self.active_at = now;
        self.changes.readable = true;
        self.acknowledge_soon(now, payload.len() as u32, u16::MAX);
        if self.keepalive_at != NEVER {
            self.on_sign_of_life(now);
        }
        true
    }
}
