//! What a program calls: one method for each `tcp_*` of [`crate::Engine`].

use super::connection::{Connection, Owner};
use super::demux::Target;
use super::{Shared, Tcp, Tuple, half_open, reply};
use crate::error::{ConnectError, ListenError, TcpError};
use crate::socket::{Accepted, Keepalive, ListenerId, TcpId, TcpStatus};
use crate::time::Instant;
use core::net::{IpAddr, SocketAddr};

impl Tcp {
    /// See `Engine::tcp_listen`.
    pub(crate) fn listen(
        &mut self,
        local: SocketAddr,
        backlog: usize,
    ) -> Result<ListenerId, ListenError> {
        if self.listeners.len() >= self.limits.listeners {
            return Err(ListenError::TooMany);
        }
        let backlog = backlog.clamp(1, self.limits.accept_backlog.max(1));
        self.listeners.insert(local, backlog, self.random.next_u32())
    }

    /// See `Engine::tcp_listener_addr`.
    pub(crate) fn listener_addr(&self, id: ListenerId) -> Option<SocketAddr> {
        self.listeners.get(id).map(|listener| listener.local)
    }

    /// See `Engine::tcp_accept`.
    pub(crate) fn accept(&mut self, _now: Instant, id: ListenerId) -> Option<Accepted> {
        let connection_id = self.listeners.get_mut(id)?.queue.pop_front()?;
        let connection = self.connections.get_mut(connection_id.index() as u32)?;
        connection.owner = Owner::Program;
        let (local, remote) = (connection.tuple.local_addr(), connection.tuple.remote_addr());
        Some(Accepted { connection: connection_id, local, remote })
    }

    /// See `Engine::tcp_close_listener`.
    pub(crate) fn close_listener(&mut self, now: Instant, id: ListenerId) {
        let Some(listener) = self.listeners.remove(id) else { return };
        for child in listener.queue {
            self.end_connection(now, child.index() as u32, None);
        }
        let is_child = |entry: &half_open::HalfOpen| entry.listener == id;
        let half_open: Vec<u32> = self
            .half_opens
            .iter()
            .filter(|(_, entry)| is_child(entry))
            .map(|(index, _)| index)
            .collect();
        for index in half_open {
            if let Some(entry) = self.remove_half_open(index) {
                let reset = reply::reset_header(&entry.tuple, entry.iss + 1, Some(entry.irs + 1));
                self.shared.replies.push(entry.tuple, reset, &mut self.shared.counters);
            }
        }
    }

    /// See `Engine::tcp_connect`; `local` is the address of the interface that leads there.
    pub(crate) fn connect(
        &mut self,
        now: Instant,
        local: IpAddr,
        remote: SocketAddr,
    ) -> Result<TcpId, ConnectError> {
        let address = remote.ip();
        let is_broadcast = address == IpAddr::V4(core::net::Ipv4Addr::BROADCAST);
        let is_host = !address.is_unspecified() && !address.is_multicast() && !is_broadcast;
        if !is_host || remote.port() == 0 {
            return Err(ConnectError::BadAddress(remote));
        }
        if self.connections.len() >= self.limits.connections {
            self.shared.counters.tcp_connections_refused += 1;
            return Err(ConnectError::TooMany);
        }
        let tuple_from = |local_port| Tuple {
            local,
            remote: remote.ip(),
            local_port,
            remote_port: remote.port(),
        };
        let mut search = self.ports.search(local, remote);
        let port = search.find(|&port| {
            !self.listeners.has_port(port) && self.find(&tuple_from(port)).1.is_none()
        });
        self.ports.finish(search);
        let tuple = tuple_from(port.ok_or(ConnectError::NoFreePort)?);
        let hash = self.demux.hash(&tuple);
        let iss = self.origins.sequence(&tuple, now);
        let timestamp_offset = self.origins.timestamp(&tuple);
        let mut connection =
            Connection::open(now, tuple, hash, iss, timestamp_offset, &self.shared);
        connection.limit_to_path(self.shared.path_mss(now, &tuple));
        let (index, generation) = self.connections.insert(Box::new(connection));
        self.demux.insert(hash, Target::Connection(index));
        self.shared.counters.tcp_opened_active += 1;
        self.settle(now, index);
        Ok(TcpId::new(index, generation))
    }

    /// The slot of a connection that the program holds.
    pub(super) fn held(&self, id: TcpId) -> Option<u32> {
        let index = self.connections.check(id.index(), id.generation())?;
        (self.connections.get(index)?.owner == Owner::Program).then_some(index)
    }

    fn held_connection(&self, id: TcpId) -> Option<&Connection> {
        self.connections.get(self.held(id)?).map(Box::as_ref)
    }

    /// Lets `act` change a connection that the program holds, and settles what follows from it.
    fn with_held<R>(
        &mut self,
        now: Instant,
        id: TcpId,
        act: impl FnOnce(&mut Connection, &mut Shared) -> R,
    ) -> Result<R, TcpError> {
        let index = self.held(id).ok_or(TcpError::Released)?;
        let connection = self.connections.get_mut(index).ok_or(TcpError::Released)?;
        let result = act(connection, &mut self.shared);
        self.settle(now, index);
        Ok(result)
    }

    /// See `Engine::tcp_status`.
    pub(crate) fn status(&self, id: TcpId) -> TcpStatus {
        self.held_connection(id)
            .map_or(TcpStatus::Released, |connection| connection.status(&self.shared))
    }

    /// See `Engine::tcp_addresses`.
    pub(crate) fn addresses(&self, id: TcpId) -> Option<(SocketAddr, SocketAddr)> {
        let tuple = &self.held_connection(id)?.tuple;
        Some((tuple.local_addr(), tuple.remote_addr()))
    }

    /// See `Engine::tcp_read`.
    pub(crate) fn read(
        &mut self,
        now: Instant,
        id: TcpId,
        buffer: &mut [u8],
    ) -> Result<Option<usize>, TcpError> {
        let mut filled = 0;
        self.read_with(now, id, buffer.len(), &mut |slice| {
            buffer[filled..filled + slice.len()].copy_from_slice(slice);
            filled += slice.len();
        })
    }

    /// See `Engine::tcp_read_with`.
    pub(crate) fn read_with(
        &mut self,
        now: Instant,
        id: TcpId,
        max: usize,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<usize>, TcpError> {
        self.with_held(now, id, |connection, shared| connection.read(now, max, sink, shared))?
    }

    /// See `Engine::tcp_write`.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        id: TcpId,
        data: &[u8],
    ) -> Result<Option<usize>, TcpError> {
        let index = self.held(id).ok_or(TcpError::Released)?;
        let connection = self.connections.get_mut(index).ok_or(TcpError::Released)?;
        let written = connection.write(now, data, &mut self.shared)?;
        // Refused for want of memory, not of room in the connection's share: nothing that happens
        // to this connection will tell when to try again. (Before `settle`, which may find some.)
        if written.is_none() && connection.starve(&self.shared) {
            self.starved.push_back(id);
        }
        self.settle(now, index);
        Ok(written)
    }

    /// See `Engine::tcp_shutdown`.
    pub(crate) fn shutdown(&mut self, now: Instant, id: TcpId) -> Result<(), TcpError> {
        self.with_held(now, id, |connection, _| connection.shutdown())?
    }

    /// See `Engine::tcp_is_flushed`.
    pub(crate) fn is_flushed(&self, id: TcpId) -> bool {
        self.held_connection(id).is_some_and(Connection::is_flushed)
    }

    /// See `Engine::tcp_release`.
    pub(crate) fn release(&mut self, now: Instant, id: TcpId) {
        if self.with_held(now, id, |connection, shared| connection.release(now, shared)).is_ok() {
            self.events.forget_tcp(id);
        }
    }

    /// See `Engine::tcp_abort`.
    pub(crate) fn abort(&mut self, now: Instant, id: TcpId) {
        if let Some(index) = self.held(id) {
            self.end_connection(now, index, None);
        }
    }

    /// Resets a connection that nobody needs any more.
    pub(super) fn end_connection(&mut self, now: Instant, index: u32, error: Option<TcpError>) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        connection.owner = Owner::Nobody;
        connection.abort(error, &mut self.shared);
        self.settle(now, index);
    }

    /// See `Engine::tcp_set_nodelay`.
    pub(crate) fn set_nodelay(&mut self, id: TcpId, nodelay: bool) {
        // What Nagle's algorithm held back goes out at the connection's next turn; `settle` finds
        // it, and needs the time only to start a timer, for which there is no cause here.
        if let Some(index) = self.held(id)
            && let Some(connection) = self.connections.get_mut(index)
        {
            connection.set_nodelay(nodelay);
            self.enqueue_if_ready(index);
        }
    }

    /// See `Engine::tcp_set_user_timeout`.
    pub(crate) fn set_user_timeout(
        &mut self,
        now: Instant,
        id: TcpId,
        timeout: Option<core::time::Duration>,
    ) {
        let _ = self.with_held(now, id, |connection, shared| {
            connection.set_user_timeout(now, timeout, shared);
        });
    }

    /// See `Engine::tcp_set_keepalive`.
    pub(crate) fn set_keepalive(&mut self, now: Instant, id: TcpId, keepalive: Option<Keepalive>) {
        let _ = self.with_held(now, id, |connection, _| connection.set_keepalive(now, keepalive));
    }
}
