//! Passive handshakes that wait for the client's ACK.
//!
//! Anybody can make us remember a SYN, from any address. So an entry is small and has no buffers,
//! their number is limited ([`crate::Limits::tcp_half_open`]), and past it SYN cookies
//! ([`super::cookie`]) answer without remembering.

use crate::socket::ListenerId;
use crate::tcp::isn::timestamp_clock;
use crate::tcp::slab::Slab;
use crate::tcp::timers::Timers;
use crate::tcp::{Seq, Settings, Tuple};
use crate::time::Instant;
use crate::wire::tcp::{Flags, Header, Options, Timestamps};
use core::time::Duration;

/// SYN-ACKs sent to one client: after 0, 1, 3, 7, 15 and 31 s. Then the entry waits as long again
/// and goes after 63 s.
pub(crate) const TRIES_MAX: u8 = 6;

/// The first interval between two SYN-ACKs; it doubles (RFC 6298 §2.1).
const INTERVAL: Duration = Duration::from_secs(1);

/// A handshake.
pub(crate) struct HalfOpen {
    pub(crate) tuple: Tuple,
    /// The tuple's hash in the demultiplexer.
    pub(crate) hash: u32,
    pub(crate) listener: ListenerId,
    pub(crate) iss: Seq,
    pub(crate) irs: Seq,
    /// The client's MSS option, or what its absence means.
    pub(crate) mss: u16,
    /// The client's window shift, if it offered one.
    pub(crate) window_shift: Option<u8>,
    /// The client takes selective acknowledgments.
    pub(crate) sack_permitted: bool,
    /// The client's clock, if it offered timestamps.
    pub(crate) timestamp: Option<u32>,
    pub(crate) timestamp_offset: u32,
    /// SYN-ACKs sent when the timer came due; those that a duplicate SYN asked for do not count.
    pub(crate) tries: u8,
    pub(crate) began: Instant,
    /// When a doubtful segment was last answered; zero: never.
    pub(crate) answered_at: Instant,
}

impl HalfOpen {
    /// The SYN-ACK: the same at every try, but for the clock.
    pub(crate) fn syn_ack(&self, now: Instant, settings: &Settings) -> Header {
        let clock = timestamp_clock(self.timestamp_offset, now);
        self.answer(self.iss, Flags::SYN | Flags::ACK, clock, settings)
    }

    /// A plain ACK that shows a doubtful client where this handshake stands.
    pub(crate) fn challenge(&self, now: Instant, settings: &Settings) -> Header {
        let clock = timestamp_clock(self.timestamp_offset, now);
        let mut header = self.answer(self.iss + 1, Flags::ACK, clock, settings);
        header.options = Options { timestamps: header.options.timestamps, ..Options::default() };
        // The client, to whom the handshake may be over, takes it as scaled (RFC 7323 §2.3).
        header.window >>= self.window_shift.map_or(0, |_| settings.window_shift);
        header
    }

    /// As [`syn_ack`](Self::syn_ack), with another timestamp: for a cookie.
    pub(crate) fn syn_ack_with_timestamp(&self, value: u32, settings: &Settings) -> Header {
        self.answer(self.iss, Flags::SYN | Flags::ACK, value, settings)
    }

    fn answer(&self, sequence: Seq, flags: Flags, clock: u32, settings: &Settings) -> Header {
        Header {
            source_port: self.tuple.local_port,
            destination_port: self.tuple.remote_port,
            sequence,
            acknowledgment: self.irs + 1,
            flags,
            // Never scaled in a segment with SYN (RFC 7323 §2.2).
            window: settings.syn_window() as u16,
            options: Options {
                mss: Some(settings.mss(&self.tuple)),
                // Only what the client offered (RFC 7323 §1.3).
                window_shift: self.window_shift.map(|_| settings.window_shift),
                sack_permitted: self.sack_permitted,
                timestamps: self.timestamp.map(|echo| Timestamps { value: clock, echo }),
                ..Options::default()
            },
        }
    }

    /// Until when this try waits.
    pub(crate) fn deadline(&self, now: Instant) -> Instant {
        now + INTERVAL * (1 << self.tries.saturating_sub(1).min(TRIES_MAX))
    }
}

/// All handshakes and their timers.
#[derive(Default)]
pub(crate) struct HalfOpens {
    entries: Slab<HalfOpen>,
    pub(crate) timers: Timers,
}

impl HalfOpens {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, index: u32) -> Option<&HalfOpen> {
        self.entries.get(index)
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut HalfOpen> {
        self.entries.get_mut(index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &HalfOpen)> {
        self.entries.iter()
    }

    /// Adds an entry whose first SYN-ACK is sent now.
    pub(crate) fn insert(&mut self, entry: HalfOpen, now: Instant) -> u32 {
        let deadline = entry.deadline(now);
        let (index, _) = self.entries.insert(entry);
        self.timers.set(index, deadline);
        index
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, index: u32) -> Option<HalfOpen> {
        self.timers.set(index, crate::tcp::timers::NEVER);
        self.entries.remove(index)
    }
}
