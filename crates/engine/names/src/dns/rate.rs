//! [`RateLimiter`]: how often a network is answered.
//!
//! Who forges the source of a question makes its owner receive the answers. So a network gets only
//! so many a second over UDP; over TCP, whose handshake proves the source, it gets any number.

use core::hash::Hasher;
use core::net::IpAddr;
use core::time::Duration;
use siphasher::sip::SipHasher13;

/// Networks that are told apart. Two that share a slot share its rate: which ones do is secret, so
/// that nobody can choose a victim; 16 KiB keep a hundred busy networks apart nine times in ten.
const SLOTS: usize = 1024;

/// Bits that name a network: what one forger's victim, or one site, has. Those of other servers'
/// response rate limiting.
const PREFIX_BITS_V4: u32 = 24;
const PREFIX_BITS_V6: u32 = 56;

/// How many answers over UDP a network gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Answers a second to one network (/24 or /56), in the long run.
    pub per_second: u32,
    /// Answers at once after a pause.
    pub burst: u32,
}

impl Default for RateLimit {
    /// 200 a second, and as many at once: ten times what a busy resolver asks of one server, and
    /// too little to be worth forging (200 answers of 1,232 bytes are 2 Mbit/s at the most).
    fn default() -> Self {
        RateLimit { per_second: 200, burst: 200 }
    }
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    /// Send "ask over TCP", which is no larger than the question.
    Truncate,
    Drop,
}

/// A network's answers, as the time by which all would have been earned (GCRA).
#[derive(Clone, Copy, Default)]
struct Slot {
    earned_at: Duration,
    refused: u32,
}

pub(super) struct RateLimiter {
    slots: Vec<Slot>,
    key: [u64; 2],
    interval: Duration,
    /// How far ahead of the time a network may be.
    allowance: Duration,
}

impl RateLimiter {
    pub(super) fn new(limit: RateLimit, key: [u64; 2]) -> Self {
        let interval = Duration::from_secs(1) / limit.per_second.max(1);
        let allowance = interval * limit.burst.max(1);
        RateLimiter { slots: vec![Slot::default(); SLOTS], key, interval, allowance }
    }

    fn slot(&mut self, source: IpAddr) -> &mut Slot {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        match source {
            IpAddr::V4(address) => {
                hasher.write_u32(address.to_bits() >> (32 - PREFIX_BITS_V4));
            }
            IpAddr::V6(address) => {
                hasher.write_u128(address.to_bits() >> (128 - PREFIX_BITS_V6));
            }
        }
        &mut self.slots[hasher.finish() as usize % SLOTS]
    }

    /// Counts an answer to `source`. Of those that are too many every second one is to be sent
    /// truncated: an honest resolver there comes back over TCP.
    pub(super) fn admit(&mut self, now: Duration, source: IpAddr) -> Verdict {
        let (interval, allowance) = (self.interval, self.allowance);
        let slot = self.slot(source);
        let earned_at = slot.earned_at.max(now) + interval;
        if earned_at <= now + allowance {
            slot.earned_at = earned_at;
            return Verdict::Send;
        }
        slot.refused = slot.refused.wrapping_add(1);
        if slot.refused.is_multiple_of(2) { Verdict::Truncate } else { Verdict::Drop }
    }
}
