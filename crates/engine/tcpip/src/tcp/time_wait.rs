//! TIME-WAIT: what stays of a connection until its last segments have left the network.
//!
//! An entry is small, has no buffers, and waits in a queue in the order of expiry, because all wait
//! equally long. Past the limit the oldest goes: a port that is free a little early beats a table
//! that a busy client can grow.

use crate::tcp::slab::Slab;
use crate::tcp::{Seq, Tuple};
use crate::time::Instant;

/// No neighbour in the queue.
const NONE: u32 = u32::MAX;

/// What stays of a connection.
pub(crate) struct TimeWait {
    pub(crate) tuple: Tuple,
    /// The tuple's hash in the demultiplexer.
    pub(crate) hash: u32,
    /// SND.NXT.
    pub(crate) send_next: Seq,
    /// RCV.NXT, the peer's FIN included.
    pub(crate) receive_next: Seq,
    /// With timestamps: the origin of our clock and the peer's last value.
    pub(crate) timestamps: Option<(u32, u32)>,
    /// When a segment without data was last answered; zero: never.
    pub(crate) answered_at: Instant,
    expires: Instant,
    previous: u32,
    next: u32,
}

impl TimeWait {
    /// An entry; its place in the queue is found by [`TimeWaits::insert`].
    pub(crate) const fn new(
        tuple: Tuple,
        hash: u32,
        send_next: Seq,
        receive_next: Seq,
        timestamps: Option<(u32, u32)>,
    ) -> Self {
        let expires = Instant::ZERO;
        TimeWait {
            tuple,
            hash,
            send_next,
            receive_next,
            timestamps,
            answered_at: Instant::ZERO,
            expires,
            previous: NONE,
            next: NONE,
        }
    }
}

/// All entries, and the queue through them.
pub(crate) struct TimeWaits {
    entries: Slab<TimeWait>,
    oldest: u32,
    newest: u32,
}

impl TimeWaits {
    pub(crate) const fn new() -> Self {
        TimeWaits { entries: Slab::new(), oldest: NONE, newest: NONE }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, index: u32) -> Option<&TimeWait> {
        self.entries.get(index)
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut TimeWait> {
        self.entries.get_mut(index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &TimeWait)> {
        self.entries.iter()
    }

    /// When the oldest expires.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.entries.get(self.oldest).map(|entry| entry.expires)
    }

    /// The oldest entry, if there is one.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.entries.get(self.oldest).map(|_| self.oldest)
    }

    /// The oldest entry, if it has expired.
    pub(crate) fn due(&self, now: Instant) -> Option<u32> {
        self.entries.get(self.oldest).filter(|entry| entry.expires <= now).map(|_| self.oldest)
    }

    /// Adds an entry. `expires` is not before that of any other.
    pub(crate) fn insert(&mut self, entry: TimeWait, expires: Instant) -> u32 {
        let (index, _) = self.entries.insert(entry);
        self.append(index, expires);
        index
    }

    /// Lets an entry wait until `expires`, which is not before that of any other.
    pub(crate) fn restart(&mut self, index: u32, expires: Instant) {
        if self.unlink(index) {
            self.append(index, expires);
        }
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, index: u32) -> Option<TimeWait> {
        self.unlink(index);
        self.entries.remove(index)
    }

    fn append(&mut self, index: u32, expires: Instant) {
        let newest = core::mem::replace(&mut self.newest, index);
        match self.entries.get_mut(newest) {
            Some(entry) => entry.next = index,
            None => self.oldest = index,
        }
        if let Some(entry) = self.entries.get_mut(index) {
            (entry.expires, entry.previous, entry.next) = (expires, newest, NONE);
        }
    }

    fn unlink(&mut self, index: u32) -> bool {
        let Some(entry) = self.entries.get(index) else { return false };
        let (previous, next) = (entry.previous, entry.next);
        match self.entries.get_mut(previous) {
            Some(entry) => entry.next = next,
            None => self.oldest = next,
        }
        match self.entries.get_mut(next) {
            Some(entry) => entry.previous = previous,
            None => self.newest = previous,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr};

    fn entry(remote_port: u16) -> TimeWait {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let tuple = Tuple { local: any, remote: any, local_port: 1, remote_port };
        TimeWait::new(tuple, 0, Seq(0), Seq(0), None)
    }

    fn ports(waits: &mut TimeWaits, now: Instant) -> Vec<u16> {
        let mut ports = Vec::new();
        while let Some(index) = waits.due(now) {
            ports.extend(waits.remove(index).map(|entry| entry.tuple.remote_port));
        }
        ports
    }

    /// Z08.
    #[test]
    fn an_entry_takes_at_most_a_hundred_bytes() {
        assert!(size_of::<TimeWait>() <= 100, "{}", size_of::<TimeWait>());
    }

    #[test]
    fn entries_expire_in_order_and_a_restarted_one_last() {
        let mut waits = TimeWaits::new();
        let indices: Vec<u32> =
            (1..=4).map(|n| waits.insert(entry(n), Instant::from_millis(n.into()))).collect();
        waits.restart(indices[1], Instant::from_millis(6));
        waits.restart(indices[0], Instant::from_millis(7));
        waits.remove(indices[2]);
        assert_eq!(waits.next_expiry(), Some(Instant::from_millis(4)));
        assert_eq!(ports(&mut waits, Instant::from_millis(3)), [0; 0]);
        assert_eq!(ports(&mut waits, Instant::from_millis(6)), [4, 2]);
        assert_eq!(ports(&mut waits, Instant::from_millis(7)), [1]);
        assert_eq!((waits.len(), waits.oldest(), waits.next_expiry()), (0, None, None));
        waits.insert(entry(9), Instant::from_millis(9));
        assert_eq!(ports(&mut waits, Instant::from_millis(9)), [9]);
    }
}
