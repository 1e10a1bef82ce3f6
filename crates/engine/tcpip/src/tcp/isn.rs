//! Numbers that an attacker off the path must not guess: initial sequence numbers (RFC 6528) and
//! the origins of the timestamp clocks (RFC 7323 §5.4).

use crate::secret::{Key, Keys, Purpose};
use crate::tcp::{Seq, Tuple};
use crate::time::Instant;

/// Keys for both.
pub(crate) struct Origins {
    sequence: Key,
    timestamp: Key,
    /// What tests want the next sequence numbers to be, to cross the wrap where they choose.
    #[cfg(test)]
    pub(crate) fixed: Option<Seq>,
}

impl Origins {
    pub(crate) fn new(keys: &Keys) -> Self {
        Origins {
            sequence: keys.key(Purpose::TcpSequence),
            timestamp: keys.key(Purpose::TcpTimestamp),
            #[cfg(test)]
            fixed: None,
        }
    }

    /// The ISN of a connection that begins at `now`: a clock that ticks every 4 µs (RFC 9293
    /// §3.4.1, MUST-8), from an origin that is the tuple's own and secret (MUST-9).
    pub(crate) fn sequence(&self, tuple: &Tuple, now: Instant) -> Seq {
        #[cfg(test)]
        if let Some(fixed) = self.fixed {
            return fixed;
        }
        let clock = (now.as_nanos() / 4_000) as u32;
        Seq(clock.wrapping_add(self.sequence.prf(tuple) as u32))
    }

    /// Where the tuple's timestamp clock begins: its own, so that it shows neither how long the
    /// machine is up nor which connections are of one machine, and grows from one connection of
    /// the tuple to the next, as PAWS and RFC 6191 need.
    pub(crate) fn timestamp(&self, tuple: &Tuple) -> u32 {
        self.timestamp.prf(tuple) as u32
    }
}

/// The timestamp clock: milliseconds since `offset` (RFC 7323 §5.4 asks for 1 ms to 1 s).
pub(crate) const fn timestamp_clock(offset: u32, now: Instant) -> u32 {
    ((now.as_nanos() / 1_000_000) as u32).wrapping_add(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr};

    fn tuple(remote_port: u16) -> Tuple {
        let (local, remote) =
            (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
        Tuple { local, remote, local_port: 80, remote_port }
    }

    /// C07.
    #[test]
    fn sequence_numbers_of_a_tuple_follow_the_clock() {
        let origins = Origins::new(&Keys::new([1; 32]));
        let first = origins.sequence(&tuple(1), Instant::ZERO);
        let second = origins.sequence(&tuple(1), Instant::from_millis(1000));
        assert_eq!(second.since(first), 250_000);
    }

    /// C07, X06.
    #[test]
    fn sequence_numbers_of_other_tuples_and_secrets_are_spread() {
        let mut seen: Vec<u32> = Vec::new();
        for secret in [[1; 32], [2; 32]] {
            let origins = Origins::new(&Keys::new(secret));
            seen.extend((0..50_000).map(|port| origins.sequence(&tuple(port), Instant::ZERO).0));
        }
        let mut buckets = [0u32; 256];
        seen.iter().for_each(|isn| buckets[(isn >> 24) as usize] += 1);
        // 390 expected in each; six standard deviations are 118.
        assert!(buckets.iter().all(|&count| count.abs_diff(390) < 118), "{buckets:?}");
        seen.sort_unstable();
        seen.dedup();
        // The birthday bound expects 1.2 collisions among 100,000.
        assert!(seen.len() > 99_980);
    }

    #[test]
    fn timestamp_clocks_of_other_tuples_are_unrelated() {
        let origins = Origins::new(&Keys::new([1; 32]));
        assert_ne!(origins.timestamp(&tuple(1)), origins.timestamp(&tuple(2)));
        let offset = origins.timestamp(&tuple(1));
        let clock = |ms| timestamp_clock(offset, Instant::from_millis(ms));
        assert_eq!(clock(1500).wrapping_sub(clock(500)), 1000);
    }
}
