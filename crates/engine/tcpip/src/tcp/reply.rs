//! Segments that belong to no connection, or to one that is gone: RST, SYN-ACK, and what TIME-WAIT
//! answers. They wait here until the link takes them.
//!
//! Whoever makes us send these spends a packet for each, perhaps from a forged address; so the
//! queue is short, and RSTs for segments out of nowhere are limited in rate.

use crate::Counters;
use crate::tcp::{Seq, Tuple};
use crate::time::Instant;
use crate::wire::tcp::{Flags, Header, Options, Segment};
use core::time::Duration;
use std::collections::VecDeque;

/// Segments that wait, at about 100 bytes each. A SYN-ACK or RST that is dropped here is asked for
/// again by the peer.
const QUEUE_MAX: usize = 1024;

/// What carries nothing and is out of place is answered at most this often for each connection,
/// handshake and TIME-WAIT: two ends that disagree must not answer each other for ever (RFC 5961 §7).
const ANSWER_INTERVAL: Duration = Duration::from_millis(500);

/// Whether such a segment may be answered now. `answered_at` is when the last one was; zero if none.
pub(crate) fn may_answer(answered_at: &mut Instant, now: Instant) -> bool {
    let may =
        *answered_at == Instant::ZERO || now.saturating_since(*answered_at) >= ANSWER_INTERVAL;
    if may {
        *answered_at = now;
    }
    may
}

/// A segment without payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    pub(crate) tuple: Tuple,
    pub(crate) header: Header,
}

/// The queue.
pub(crate) struct Replies {
    queue: VecDeque<Reply>,
    limit: RateLimit,
}

impl Replies {
    pub(crate) fn new(limited_per_second: u32) -> Self {
        Replies { queue: VecDeque::new(), limit: RateLimit::new(limited_per_second) }
    }

    pub(crate) fn pop(&mut self) -> Option<Reply> {
        self.queue.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues a segment, unless too many wait.
    pub(crate) fn push(&mut self, tuple: Tuple, header: Header, counters: &mut Counters) {
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(Reply { tuple, header });
        } else {
            counters.dropped_tcp_reply_queue += 1;
        }
    }

    /// As [`push`](Self::push), within the limit on answers to segments out of nowhere.
    pub(crate) fn push_limited(
        &mut self,
        now: Instant,
        tuple: Tuple,
        header: Header,
        counters: &mut Counters,
    ) {
        if self.limit.take(now) {
            self.push(tuple, header, counters);
        } else {
            counters.tcp_replies_limited += 1;
        }
    }

    /// Answers a segment that belongs to nothing (RFC 9293 §3.10.7.1).
    pub(crate) fn reset(
        &mut self,
        now: Instant,
        tuple: Tuple,
        segment: &Segment<'_>,
        counters: &mut Counters,
    ) {
        let arrived = &segment.header;
        // A RST never answers a RST: that would not end.
        if arrived.flags.has(Flags::RST) {
            return;
        }
        let header = if arrived.flags.has(Flags::ACK) {
            reset_header(&tuple, arrived.acknowledgment, None)
        } else {
            reset_header(&tuple, Seq(0), Some(arrived.sequence + segment.sequence_len()))
        };
        self.push_limited(now, tuple, header, counters);
    }
}

/// A RST; with ACK if there is something to acknowledge.
pub(crate) fn reset_header(tuple: &Tuple, sequence: Seq, acknowledgment: Option<Seq>) -> Header {
    Header {
        source_port: tuple.local_port,
        destination_port: tuple.remote_port,
        sequence,
        acknowledgment: acknowledgment.unwrap_or_default(),
        flags: Flags::RST.with_if(Flags::ACK, acknowledgment.is_some()),
        window: 0,
        options: Options::default(),
    }
}

/// A bucket of as many tokens as may be taken in a second.
struct RateLimit {
    per_second: u32,
    /// When the bucket was, or will be, empty: it fills by one token each `1 s / per_second`.
    empty_at: Instant,
}

impl RateLimit {
    const fn new(per_second: u32) -> Self {
        RateLimit { per_second, empty_at: Instant::ZERO }
    }

    /// Takes a token if there is one.
    fn take(&mut self, now: Instant) -> bool {
        const SECOND_NS: u64 = 1_000_000_000;
        if self.per_second == 0 {
            return false;
        }
        // A full bucket has been filling for a second; at the engine's start it is full.
        let full = now.as_nanos().saturating_add(SECOND_NS);
        let empty_at = self.empty_at.as_nanos().max(now.as_nanos());
        let after = empty_at + (SECOND_NS / u64::from(self.per_second)).max(1);
        if after > full {
            return false;
        }
        self.empty_at = Instant::from_nanos(after);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limit_lets_a_burst_of_one_second_through_and_then_the_rate() {
        let mut limit = RateLimit::new(200);
        let mut burst = |ms| (0..10_000).filter(|_| limit.take(Instant::from_millis(ms))).count();
        assert_eq!([burst(0), burst(0), burst(10), burst(1010)], [200, 0, 2, 200]);
        assert!(!RateLimit::new(0).take(Instant::ZERO));
    }
}
