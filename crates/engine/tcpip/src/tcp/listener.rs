//! Listening sockets and the queues of connections that wait to be accepted.

use crate::error::ListenError;
use crate::socket::{ListenerId, TcpId};
use crate::tcp::ports;
use crate::tcp::slab::Slab;
use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, VecDeque};

/// A listening socket.
pub(crate) struct Listener {
    pub(crate) local: SocketAddr,
    /// Most connections that wait to be accepted.
    pub(crate) backlog: usize,
    /// Established, not accepted; the oldest first. All of them exist.
    pub(crate) queue: VecDeque<TcpId>,
    /// Handshakes of this listener.
    pub(crate) half_open: usize,
}

/// The addresses that mean all addresses of the interface, of both families.
const ANY: [IpAddr; 2] =
    [IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED)];

/// All listening sockets. Finding one costs O(log n).
#[derive(Default)]
pub(crate) struct Listeners {
    entries: Slab<Listener>,
    by_address: BTreeMap<(u16, IpAddr), u32>,
}

impl Listeners {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Listener> {
        self.entries.iter().map(|(_, listener)| listener)
    }

    pub(crate) fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.entries.get(self.entries.check(id.index(), id.generation())?)
    }

    pub(crate) fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        let index = self.entries.check(id.index(), id.generation())?;
        self.entries.get_mut(index)
    }

    /// The listener for `port` on `address`: one bound to that address before one bound to all.
    pub(crate) fn find(&self, address: IpAddr, port: u16) -> Option<ListenerId> {
        let mut candidates = [address].into_iter().chain(ANY);
        let index =
            candidates.find_map(|address| self.by_address.get(&(port, address)).copied())?;
        Some(ListenerId::new(index, self.entries.generation(index)?))
    }

    /// Whether any listener has this port, on whatever address.
    pub(crate) fn has_port(&self, port: u16) -> bool {
        let lowest = IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED);
        self.by_address.range((port, lowest)..).next().is_some_and(|(&(found, _), _)| found == port)
    }

    /// Adds a listener; port 0 takes the first free one from 1024 on, starting at a place that
    /// `start` decides.
    pub(crate) fn insert(
        &mut self,
        mut local: SocketAddr,
        backlog: usize,
        start: u32,
    ) -> Result<ListenerId, ListenError> {
        if local.port() == 0 {
            let port = (0..ports::COUNT)
                .map(|step| ports::FIRST + (start.wrapping_add(step) % ports::COUNT) as u16)
                .find(|&port| !self.has_port(port))
                .ok_or(ListenError::NoFreePort)?;
            local.set_port(port);
        }
        let key = (local.port(), local.ip());
        let clashes = match key.1.is_unspecified() {
            true => ANY.iter().any(|any| self.by_address.contains_key(&(key.0, *any))),
            false => self.by_address.contains_key(&key),
        };
        if clashes {
            return Err(ListenError::InUse(local));
        }
        let listener = Listener { local, backlog, queue: VecDeque::new(), half_open: 0 };
        let (index, generation) = self.entries.insert(listener);
        self.by_address.insert(key, index);
        Ok(ListenerId::new(index, generation))
    }

    pub(crate) fn remove(&mut self, id: ListenerId) -> Option<Listener> {
        let index = self.entries.check(id.index(), id.generation())?;
        let listener = self.entries.remove(index)?;
        self.by_address.remove(&(listener.local.port(), listener.local.ip()));
        Some(listener)
    }
}
