//! Keys and random numbers, all derived from the secret that the engine was given.
//!
//! One key per purpose: whatever a peer learns from the numbers of one kind (it sees sequence
//! numbers, ports, DHCP transaction ids) says nothing about those of another (RFC 4086, RFC 6528).

use core::hash::{BuildHasher, Hash, Hasher};
use siphasher::sip::{SipHasher13, SipHasher24};
use siphasher::sip128::{Hasher128, SipHasher24 as SipHasher24Wide};

/// What a key is for. No two purposes share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// The hash tables of TCP.
    TcpTable,
    /// Initial sequence numbers (RFC 6528).
    TcpSequence,
    /// Offsets of TCP timestamps (RFC 7323 §5.4).
    TcpTimestamp,
    /// SYN cookies (RFC 4987 §3.6).
    TcpCookie,
    /// Ports that `tcp_connect` and `tcp_listen` pick (RFC 6056).
    TcpPort,
    /// Other choices of TCP: jitter of rate limits.
    TcpJitter,
    /// The hash table of neighbours.
    NeighbourTable,
    /// The hash table of incomplete datagrams.
    ReassemblyTable,
    /// The hash table of UDP sockets.
    UdpTable,
    /// Ports that `udp_bind` picks.
    UdpPort,
    /// Identifications of datagrams that may be fragmented (RFC 7739 §5.3).
    IpIdentification,
    /// Interface identifiers of IPv6 (RFC 7217).
    StableAddress,
    /// Jitter and nonces of Neighbour Discovery.
    NeighbourDiscovery,
    /// The hash table of path MTUs.
    PathMtuTable,
    /// Transaction ids of DHCP.
    DhcpTransaction,
    /// Jitter of DHCP's retries.
    DhcpJitter,
    /// Jitter of the limit on ICMP.
    IcmpJitter,
}

/// The engine's secret, from which keys are derived.
#[derive(Clone)]
pub(crate) struct Keys {
    secret: [u8; 32],
}

impl Keys {
    /// Derives keys from `secret`.
    pub(crate) const fn new(secret: [u8; 32]) -> Self {
        Keys { secret }
    }

    /// The key for one purpose: SipHash-2-4 with 128 bits of output, keyed with half of the secret,
    /// of the purpose and the other half.
    pub(crate) fn key(&self, purpose: Purpose) -> Key {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&self.secret[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let mut hasher = SipHasher24Wide::new_with_keys(word(0), word(8));
        hasher.write_u64(word(16));
        hasher.write_u64(word(24));
        hasher.write_u32(purpose as u32);
        let hash = hasher.finish128();
        Key { first: hash.h1, second: hash.h2 }
    }

    /// A stream of random numbers for one purpose.
    pub(crate) fn random(&self, purpose: Purpose) -> Random {
        Random { key: self.key(purpose), drawn: 0 }
    }

    /// The stream numbered `which` of several for one purpose.
    pub(crate) fn random_of(&self, purpose: Purpose, which: u64) -> Random {
        let key = self.key(purpose);
        let key = Key { first: key.prf(&(which, 0u8)), second: key.prf(&(which, 1u8)) };
        Random { key, drawn: 0 }
    }
}

/// A key for one purpose. As a [`BuildHasher`] (SipHash-1-3) it keys a hash table, so that a peer
/// who chooses addresses and ports cannot choose collisions.
#[derive(Clone)]
pub(crate) struct Key {
    first: u64,
    second: u64,
}

impl Key {
    /// A pseudo-random function of `input`: SipHash-2-4 with this key.
    pub(crate) fn prf(&self, input: &impl Hash) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.first, self.second);
        input.hash(&mut hasher);
        hasher.finish()
    }
}

impl BuildHasher for Key {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.first, self.second)
    }
}

/// A stream of random numbers: the keyed function of a counter.
#[derive(Clone)]
pub(crate) struct Random {
    key: Key,
    drawn: u64,
}

impl Random {
    /// The next number.
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        self.key.prf(&self.drawn)
    }

    /// The next number.
    pub(crate) fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// The next number below `bound`, or 0 if `bound` is 0; with a bias below 2^-32.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_purposes_or_secrets_share_a_value() {
        let mut seen = HashSet::new();
        for secret in [[1; 32], [2; 32]] {
            let keys = Keys::new(secret);
            for purpose in [Purpose::TcpSequence, Purpose::TcpPort, Purpose::DhcpTransaction] {
                let mut random = keys.random(purpose);
                for _ in 0..100 {
                    assert!(seen.insert(random.next_u64()));
                }
            }
        }
    }

    #[test]
    fn each_half_of_the_secret_counts() {
        let base = Keys::new([0; 32]).key(Purpose::TcpTable).prf(&0u8);
        for byte in 0..32 {
            let mut secret = [0; 32];
            secret[byte] = 1;
            assert_ne!(Keys::new(secret).key(Purpose::TcpTable).prf(&0u8), base, "byte {byte}");
        }
    }

    #[test]
    fn below_stays_below() {
        let mut random = Keys::new([7; 32]).random(Purpose::IcmpJitter);
        for bound in [0, 1, 2, 3, 1000, u32::MAX] {
            for _ in 0..100 {
                assert!(random.below(bound) < bound.max(1));
            }
        }
    }
}
