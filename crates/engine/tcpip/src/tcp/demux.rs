//! From the addresses and ports of a segment to what it belongs to.
//!
//! The cost of a packet must not depend on how many connections there are, nor may a peer that
//! picks its addresses and ports make it so: hence a hash table, keyed with a secret. The tuples
//! themselves live in the objects; the table holds only eight bytes for each.

use crate::secret::Key;
use core::hash::{BuildHasher, Hash, Hasher};
use core::net::{IpAddr, SocketAddr};

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
}

impl Tuple {
    pub(crate) const fn local_addr(&self) -> SocketAddr {
        SocketAddr::new(self.local, self.local_port)
    }

    pub(crate) const fn remote_addr(&self) -> SocketAddr {
        SocketAddr::new(self.remote, self.remote_port)
    }
}

impl Hash for Tuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match (self.local, self.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                state.write_u64(u64::from(local.to_bits()) << 32 | u64::from(remote.to_bits()));
            }
            (local, remote) => {
                local.hash(state);
                remote.hash(state);
            }
        }
        state.write_u32(u32::from(self.local_port) << 16 | u32::from(self.remote_port));
    }
}

/// What a tuple belongs to: an index into one of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Connection(u32),
    HalfOpen(u32),
    TimeWait(u32),
}

const TAG_SHIFT: u32 = 30;
const INDEX_MASK: u32 = (1 << TAG_SHIFT) - 1;

impl Target {
    const fn pack(self) -> u32 {
        match self {
            Target::Connection(index) => index & INDEX_MASK,
            Target::HalfOpen(index) => index & INDEX_MASK | 1 << TAG_SHIFT,
            Target::TimeWait(index) => index & INDEX_MASK | 2 << TAG_SHIFT,
        }
    }

    const fn unpack(packed: u32) -> Target {
        let index = packed & INDEX_MASK;
        match packed >> TAG_SHIFT {
            0 => Target::Connection(index),
            1 => Target::HalfOpen(index),
            _ => Target::TimeWait(index),
        }
    }
}

/// An empty place; no target packs to it, because no tag is 3.
const EMPTY: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Place {
    hash: u32,
    target: u32,
}

const VACANT: Place = Place { hash: 0, target: EMPTY };

/// The hash table: open addressing, linear probing, at most three quarters full, without
/// tombstones (a removal moves the entries behind it up), so that it does not age.
pub(crate) struct Demux {
    key: Key,
    /// A power of two of them, or none.
    places: Vec<Place>,
    len: usize,
}

impl Demux {
    pub(crate) const fn new(key: Key) -> Self {
        Demux { key, places: Vec::new(), len: 0 }
    }

    /// The hash of a tuple, for the other calls.
    pub(crate) fn hash(&self, tuple: &Tuple) -> u32 {
        self.key.hash_one(tuple) as u32
    }

    /// Number of entries.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The first target with this hash that `matches`.
    pub(crate) fn find(
        &self,
        hash: u32,
        mut matches: impl FnMut(Target) -> bool,
    ) -> Option<Target> {
        let mask = self.places.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        // Ends, because a quarter of the places is vacant.
        loop {
            let place = self.places[at];
            if place.target == EMPTY {
                return None;
            }
            if place.hash == hash && matches(Target::unpack(place.target)) {
                return Some(Target::unpack(place.target));
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds an entry. The caller knows that its tuple has none yet.
    pub(crate) fn insert(&mut self, hash: u32, target: Target) {
        if (self.len + 1) * 4 > self.places.len() * 3 {
            self.grow();
        }
        self.put(Place { hash, target: target.pack() });
        self.len += 1;
    }

    /// Puts `new` in the place of `old`, which is there.
    pub(crate) fn replace(&mut self, hash: u32, old: Target, new: Target) {
        if let Some(at) = self.position(hash, old) {
            self.places[at].target = new.pack();
        }
    }

    /// Removes an entry, if it is there.
    pub(crate) fn remove(&mut self, hash: u32, target: Target) {
        let Some(mut hole) = self.position(hash, target) else { return };
        let mask = self.places.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let place = self.places[at];
            if place.target == EMPTY {
                break;
            }
            // An entry may move up to the hole unless its probing starts after the hole.
            let home = place.hash as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.places[hole] = place;
                hole = at;
            }
        }
        self.places[hole] = VACANT;
        self.len -= 1;
    }

    fn position(&self, hash: u32, target: Target) -> Option<usize> {
        let mask = self.places.len().checked_sub(1)?;
        let target = target.pack();
        let mut at = hash as usize & mask;
        while self.places[at].target != EMPTY {
            if self.places[at].target == target {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
        None
    }

    fn put(&mut self, place: Place) {
        let mask = self.places.len() - 1;
        let mut at = place.hash as usize & mask;
        while self.places[at].target != EMPTY {
            at = (at + 1) & mask;
        }
        self.places[at] = place;
    }

    fn grow(&mut self) {
        let len = (self.places.len() * 2).max(16);
        let old = core::mem::replace(&mut self.places, vec![VACANT; len]);
        for place in old.into_iter().filter(|place| place.target != EMPTY) {
            self.put(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{Keys, Purpose};
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn demux() -> Demux {
        Demux::new(Keys::new([7; 32]).key(Purpose::TcpTable))
    }

    #[test]
    fn targets_survive_packing() {
        for target in [Target::Connection(5), Target::HalfOpen(0), Target::TimeWait(INDEX_MASK)] {
            assert_eq!(Target::unpack(target.pack()), target);
        }
    }

    proptest! {
        /// Few hash values, so that runs of occupied places form, wrap and shrink.
        #[test]
        fn behaves_like_a_map(steps in proptest::collection::vec((any::<bool>(), 0u32..64), 0..400)) {
            let mut demux = demux();
            let mut model = HashMap::new();
            for (insert, index) in steps {
                let (hash, target) = (index / 4 * 0x0fff_ffff, Target::Connection(index));
                if insert && !model.contains_key(&index) {
                    demux.insert(hash, target);
                    model.insert(index, hash);
                } else if !insert {
                    demux.remove(hash, target);
                    model.remove(&index);
                }
                prop_assert_eq!(demux.len(), model.len());
                for index in 0..64 {
                    let hash = index / 4 * 0x0fff_ffff;
                    let found = demux.find(hash, |target| target == Target::Connection(index));
                    prop_assert_eq!(found.is_some(), model.contains_key(&index));
                }
            }
        }
    }
}
