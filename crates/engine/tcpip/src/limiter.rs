//! A token bucket: how often the engine answers strangers.

use crate::secret::Random;
use crate::time::Instant;
use core::time::Duration;

/// Part of a second's allowance that may be used at once.
const BURST_SHARE: u64 = 5;

/// Nanotokens in a token: the bucket counts in them so that nothing is lost to rounding.
const TOKEN: u64 = 1_000_000_000;

/// Lets at most `per_second` things happen in any second.
///
/// A limit that is exact and shared by all is a side channel: whoever spends it to the last token
/// learns what else was answered (CVE-2020-25705). So each thing costs one or two tokens at random.
pub(crate) struct Limiter {
    /// Nanotokens gained per nanosecond are tokens gained per second.
    rate: u64,
    /// Nanotokens that the bucket holds.
    burst: u64,
    level: u64,
    filled_at: Instant,
    random: Random,
}

impl Limiter {
    /// A full bucket.
    pub(crate) fn new(per_second: u32, random: Random, now: Instant) -> Self {
        let per_second = u64::from(per_second);
        // In any second at most burst + rate = per_second tokens are spent.
        let burst = per_second.div_ceil(BURST_SHARE) * TOKEN;
        Limiter {
            rate: per_second - per_second.div_ceil(BURST_SHARE),
            burst,
            level: burst,
            filled_at: now,
            random,
        }
    }

    /// True if it may happen now.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_since(self.filled_at);
        let gained = if elapsed >= Duration::from_secs(60) {
            self.burst
        } else {
            (elapsed.as_nanos() as u64).saturating_mul(self.rate)
        };
        self.filled_at = self.filled_at.max(now);
        self.level = self.level.saturating_add(gained).min(self.burst);
        if self.level < TOKEN {
            return false;
        }
        let cost = TOKEN * (1 + self.random.next_u64() % 2);
        self.level = self.level.saturating_sub(cost);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{Keys, Purpose};

    fn limiter(per_second: u32) -> Limiter {
        Limiter::new(per_second, Keys::new([1; 32]).random(Purpose::IcmpJitter), Instant::ZERO)
    }

    #[test]
    fn no_second_exceeds_the_limit_and_a_quiet_one_refills() {
        let mut limiter = limiter(100);
        let allowed = |limiter: &mut Limiter, from_ms: u64| {
            (0..10_000u64)
                .filter(|i| limiter.allows(Instant::from_nanos(from_ms * 1_000_000 + i * 100_000)))
                .count()
        };
        let first = allowed(&mut limiter, 0);
        assert!((40..=100).contains(&first), "{first}");
        let later = allowed(&mut limiter, 400 * 86_400_000);
        assert!((40..=100).contains(&later), "{later}");
    }

    #[test]
    fn zero_allows_nothing_and_one_allows_something() {
        assert!(!limiter(0).allows(Instant::from_millis(5000)));
        assert!(limiter(1).allows(Instant::ZERO));
    }

    #[test]
    fn what_is_left_tells_nothing_exact() {
        let left = |seed| {
            let random = Keys::new([seed; 32]).random(Purpose::IcmpJitter);
            let mut limiter = Limiter::new(100, random, Instant::ZERO);
            (0..100).take_while(|_| limiter.allows(Instant::ZERO)).count()
        };
        assert!((0..10).map(left).collect::<std::collections::HashSet<_>>().len() > 1);
    }
}
