//! Which local port a connection gets (RFC 6056).

use crate::secret::{Key, Keys, Purpose};
use core::net::{IpAddr, SocketAddr};

/// The first port that is given out (RFC 6056 §3.2: all from 1024 on).
pub(crate) const FIRST: u16 = 1024;

/// How many are given out: 1024 to 65535.
pub(crate) const COUNT: u32 = 65_536 - FIRST as u32;

/// Counters of algorithm 4; more of them hide more of how many connections we open.
const COUNTERS: usize = 64;

/// "Double-Hash Port Selection", RFC 6056 §3.3.4: for each destination, ports go up by one from a
/// secret start, so that a port is used again as late as possible and a stranger cannot tell which
/// is next.
pub(crate) struct Ports {
    key: Key,
    counters: [u32; COUNTERS],
}

impl Ports {
    pub(crate) fn new(keys: &Keys) -> Self {
        let mut random = keys.random(Purpose::TcpJitter);
        Ports {
            key: keys.key(Purpose::TcpPort),
            counters: [(); COUNTERS].map(|()| random.below(COUNT)),
        }
    }

    /// The ports towards `remote` in the order in which they are to be tried, each once.
    pub(crate) fn search(&self, local: IpAddr, remote: SocketAddr) -> Search {
        let hash = self.key.prf(&(local, remote.ip(), remote.port()));
        let counter = (hash >> 32) as usize % COUNTERS;
        Search { offset: hash as u32, counter, at: self.counters[counter], left: COUNT }
    }

    /// The next search with the same counter goes on after this one.
    pub(crate) fn finish(&mut self, search: Search) {
        self.counters[search.counter] = search.at;
    }
}

/// Ports to try.
pub(crate) struct Search {
    offset: u32,
    counter: usize,
    at: u32,
    left: u32,
}

impl Iterator for Search {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.left = self.left.checked_sub(1)?;
        let step = (self.offset % COUNT + self.at % COUNT) % COUNT;
        self.at = (self.at + 1) % COUNT;
        Some(FIRST + step as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const LOCAL: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1));

    fn remote(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 80))
    }

    /// C08.
    #[test]
    fn every_port_is_found_and_then_none() {
        let mut ports = Ports::new(&Keys::new([3; 32]));
        let mut taken = HashSet::new();
        for _ in 0..COUNT {
            let mut search = ports.search(LOCAL, remote(2));
            let port = search.next().expect("one is left");
            assert!(port >= FIRST && taken.insert(port), "used again as late as possible");
            ports.finish(search);
        }
        assert_eq!(taken.len(), COUNT as usize);
        assert_eq!(ports.search(LOCAL, remote(2)).count(), COUNT as usize);
    }

    /// C08.
    #[test]
    fn starts_differ_by_destination_and_secret() {
        let first = |secret: u8, host| {
            Ports::new(&Keys::new([secret; 32])).search(LOCAL, remote(host)).next()
        };
        let starts: HashSet<_> = (0..8).flat_map(|s| (0..8).map(move |h| first(s, h))).collect();
        assert!(starts.len() > 60, "{starts:?}");
    }
}
