//! [`Stretch`]: how much may arrive before it is acknowledged.
//!
//! Two full segments, says RFC 9293 §3.8.6.3; a device or a backend that joins segments makes of
//! that an ACK for each joined arrival, 64 KiB at most. For a fast stream that is still the dearest
//! part of receiving: each ACK is a frame, a notification and a wake-up of the sender, who has
//! enough in flight. How much that is a receiver cannot know, so it is tried out: while ACKs are
//! called for by data and not by the clock, they come to stand for twice as much. A sender whose
//! window is smaller stops; then the clock sends the ACK, [`DELAY`] late. If that happens again and
//! again, each arrival is acknowledged as before, and the next trial is further away each time. A
//! loss ends it at once.

use core::time::Duration;

/// If so many segments are there before the second could be acknowledged, they arrived joined. A
/// stream of single ones is acknowledged as the RFC says.
const JOINED_SEGMENTS: u32 = 8;

/// The first trial: two joined arrivals of the usual greatest length.
const FIRST_BYTES: u32 = 128 << 10;

/// The most that waits. More hardly spares anything, and holds up the sender's memory.
const MOST_BYTES: u32 = 256 << 10;

/// ACKs that data called for, before more of it is tried.
const PATIENCE_FIRST: u16 = 16;

/// The same after several failures: at 64 KiB for each a trial is half a gigabyte away.
const PATIENCE_MOST: u16 = 8192;

/// What an ACK by the clock costs, in ACKs that data called for: senders pause for other reasons too.
const EXPIRY_COST: u8 = 16;

/// The most that is saved up for such pauses, and what a trial begins with.
const CREDIT_MOST: u8 = 64;
const CREDIT_FIRST: u8 = 32;

/// Longest wait for data that calls for the ACK. Shorter than the ten milliseconds after which a
/// sender takes the end of its flight for lost (RFC 8985 §7.2).
pub(super) const DELAY: Duration = Duration::from_millis(4);

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Bytes that may wait; 0 while it is two segments.
    bytes: u32,
    /// ACKs that data called for since `bytes` last grew.
    met: u16,
    patience: u16,
    credit: u8,
}

impl Stretch {
    pub(super) const NONE: Stretch =
        Stretch { bytes: 0, met: 0, patience: PATIENCE_FIRST, credit: 0 };

    /// Bytes that call for an ACK, if two segments are `two_segments` of them, and the peer knows of
    /// room for `window` more: it must not come near the end of it for want of an ACK.
    pub(super) fn due(&self, two_segments: u32, window: u32) -> u32 {
        self.bytes.min(window / 2).max(two_segments)
    }

    /// Data called for an ACK: `segments` of it.
    pub(super) fn on_met(&mut self, segments: u32) {
        if segments < JOINED_SEGMENTS {
            return;
        }
        self.credit = (self.credit + 1).min(CREDIT_MOST);
        self.met = self.met.saturating_add(1);
        if self.met >= self.patience && self.bytes < MOST_BYTES {
            self.bytes = (2 * self.bytes).clamp(FIRST_BYTES, MOST_BYTES);
            (self.met, self.credit) = (0, CREDIT_FIRST);
        }
    }

    /// The clock sent the ACK.
    pub(super) fn on_expired(&mut self) {
        self.credit = self.credit.saturating_sub(EXPIRY_COST);
        if self.bytes > 0 && self.credit == 0 {
            let patience = self.patience.saturating_mul(4).min(PATIENCE_MOST);
            *self = Stretch { patience, ..Stretch::NONE };
        }
    }

    /// Something is missing: the sender needs every ACK.
    pub(super) fn on_gap(&mut self) {
        *self = Stretch { patience: self.patience, ..Stretch::NONE };
    }
}
