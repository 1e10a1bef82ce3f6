//! What a program calls: checks addresses, then hands on to TCP and UDP.

use super::Engine;
use super::transmit::Route;
use crate::config::is_host_address;
use crate::error::{BindError, ConnectError, ListenError, SendError, TcpError};
use crate::output::{Packet, TIME_TO_LIVE};
use crate::socket::{Accepted, Datagram, Keepalive, ListenerId, TcpId, TcpStatus, UdpId};
use crate::time::Instant;
use crate::wire::ipv4::{Header, PROTOCOL_UDP};
use crate::wire::{dhcp, udp};
use std::net::{Ipv4Addr, SocketAddr};

impl Engine {
    /// True if sockets may be bound to `address`: any of ours.
    fn is_bindable(&self, address: Ipv4Addr) -> bool {
        address.is_unspecified()
            || address.is_loopback()
            || self.lease.as_ref().is_some_and(|lease| lease.address == address)
    }

    /// The address that a packet to `destination` is sent from (RFC 1122 §3.3.4.3: with one
    /// address per network there is one choice).
    fn source_for(&self, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        if destination.is_loopback() {
            return Some(Ipv4Addr::LOCALHOST);
        }
        self.lease.as_ref().map(|lease| lease.address)
    }
}

/// TCP. Except for the ids that they name, these calls say nothing of other connections.
impl Engine {
    /// Opens a listening socket on `local`; port 0 lets the engine pick one, the unspecified address
    /// means each that the interface will have. At most `backlog` connections wait for
    /// [`tcp_accept`](Engine::tcp_accept).
    ///
    /// # Errors
    /// [`ListenError`], naming the address.
    pub fn tcp_listen(
        &mut self,
        local: SocketAddr,
        backlog: usize,
    ) -> Result<ListenerId, ListenError> {
        let SocketAddr::V4(local_v4) = local else { return Err(ListenError::Ipv6(local)) };
        if !self.is_bindable(*local_v4.ip()) {
            return Err(ListenError::NotOurs(local));
        }
        self.tcp.listen(local, backlog)
    }

    /// Address and port of a listener.
    pub fn tcp_listener_addr(&self, id: ListenerId) -> Option<SocketAddr> {
        self.tcp.listener_addr(id)
    }

    /// Takes a connection from a listener's queue.
    pub fn tcp_accept(&mut self, now: Instant, id: ListenerId) -> Option<Accepted> {
        self.tcp.accept(now, id)
    }

    /// Closes a listener; connections in its queue are reset.
    pub fn tcp_close_listener(&mut self, now: Instant, id: ListenerId) {
        self.tcp.close_listener(now, id);
    }

    /// Starts a connection to `remote`. [`Event::TcpConnected`](crate::Event::TcpConnected) or
    /// [`Event::TcpClosed`](crate::Event::TcpClosed) tells how it ended.
    ///
    /// # Errors
    /// [`ConnectError`], if it cannot even be tried.
    pub fn tcp_connect(&mut self, now: Instant, remote: SocketAddr) -> Result<TcpId, ConnectError> {
        let SocketAddr::V4(remote_v4) = remote else { return Err(ConnectError::Ipv6(remote)) };
        let address = *remote_v4.ip();
        let is_connectable = address.is_loopback() || is_host_address(address);
        if !is_connectable || remote.port() == 0 {
            return Err(ConnectError::BadAddress(remote));
        }
        let local = self.source_for(address).ok_or(ConnectError::NoAddress)?;
        match self.route(address) {
            Route::Neighbour(_) | Route::Loopback => self.tcp.connect(now, local.into(), remote),
            // RFC 9293 §3.9.2.3 (MUST-46): not to a broadcast address.
            Route::Group(_) => Err(ConnectError::BadAddress(remote)),
            Route::None => Err(ConnectError::NoRoute(remote)),
        }
    }

    /// Where a connection stands.
    pub fn tcp_status(&self, id: TcpId) -> TcpStatus {
        self.tcp.status(id)
    }

    /// Local and remote address of a connection.
    pub fn tcp_addresses(&self, id: TcpId) -> Option<(SocketAddr, SocketAddr)> {
        self.tcp.addresses(id)
    }

    /// Copies received bytes into `buffer`. `None`: there are none yet. `Some(0)` (for a buffer that
    /// is not empty): the peer has sent FIN.
    ///
    /// # Errors
    /// [`TcpError`].
    pub fn tcp_read(
        &mut self,
        now: Instant,
        id: TcpId,
        buffer: &mut [u8],
    ) -> Result<Option<usize>, TcpError> {
        self.tcp.read(now, id, buffer)
    }

    /// [`tcp_read`](Engine::tcp_read) that lends at most `max` received bytes to `sink`, in order
    /// and in at most two pieces, for a caller whose own memory is not initialised.
    ///
    /// # Errors
    /// [`TcpError`].
    pub fn tcp_read_with(
        &mut self,
        now: Instant,
        id: TcpId,
        max: usize,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<usize>, TcpError> {
        self.tcp.read_with(now, id, max, sink)
    }

    /// Takes bytes of `data` for sending; returns how many. `None`: there is no room yet.
    ///
    /// # Errors
    /// [`TcpError`].
    pub fn tcp_write(
        &mut self,
        now: Instant,
        id: TcpId,
        data: &[u8],
    ) -> Result<Option<usize>, TcpError> {
        self.tcp.write(now, id, data)
    }

    /// Sends FIN after the data written so far; reading goes on.
    ///
    /// # Errors
    /// [`TcpError`].
    pub fn tcp_shutdown(&mut self, now: Instant, id: TcpId) -> Result<(), TcpError> {
        self.tcp.shutdown(now, id)
    }

    /// True if all that was written, and FIN if any, is acknowledged.
    pub fn tcp_is_flushed(&self, id: TcpId) -> bool {
        self.tcp.is_flushed(id)
    }

    /// The program has no more use for the connection: closes it in the background, by RST if
    /// received data was never read (RFC 2525 §2.17). The id is dead afterwards.
    pub fn tcp_release(&mut self, now: Instant, id: TcpId) {
        self.tcp.release(now, id);
    }

    /// Resets the connection. The id is dead afterwards.
    pub fn tcp_abort(&mut self, now: Instant, id: TcpId) {
        self.tcp.abort(now, id);
    }

    /// Sends small segments at once (true), or gathers them while data is in flight (false).
    pub fn tcp_set_nodelay(&mut self, id: TcpId, nodelay: bool) {
        self.tcp.set_nodelay(id, nodelay);
    }

    /// Asks a silent peer now and then whether it is still there; `None` (the default) does not.
    pub fn tcp_set_keepalive(&mut self, now: Instant, id: TcpId, keepalive: Option<Keepalive>) {
        self.tcp.set_keepalive(now, id, keepalive);
    }
}

/// UDP.
impl Engine {
    /// Opens a socket on `local`; port 0 lets the engine pick one, the unspecified address means
    /// each that the interface will have.
    ///
    /// # Errors
    /// [`BindError`], naming the address.
    pub fn udp_bind(&mut self, local: SocketAddr) -> Result<UdpId, BindError> {
        let SocketAddr::V4(local_v4) = local else { return Err(BindError::Ipv6(local)) };
        if !self.is_bindable(*local_v4.ip()) {
            return Err(BindError::NotOurs(local));
        }
        if self.dhcp.is_some() && local.port() == dhcp::CLIENT_PORT {
            return Err(BindError::InUse(local));
        }
        self.udp.bind(local_v4)
    }

    /// Address and port of a socket.
    pub fn udp_addr(&self, id: UdpId) -> Option<SocketAddr> {
        self.udp.local(id)
    }

    /// Queues a datagram. False: there is no room;
    /// [`Event::UdpWritable`](crate::Event::UdpWritable) tells when to try again. A datagram that
    /// exceeds the MTU goes in fragments.
    ///
    /// # Errors
    /// [`SendError`], if it cannot be sent at all.
    pub fn udp_send(
        &mut self,
        _now: Instant,
        id: UdpId,
        destination: SocketAddr,
        payload: &[u8],
    ) -> Result<bool, SendError> {
        let local = self.udp.source(id, Ipv4Addr::UNSPECIFIED)?;
        let SocketAddr::V4(to) = destination else { return Err(SendError::Ipv6(destination)) };
        let address = *to.ip();
        let is_sendable = is_host_address(address)
            || address.is_loopback()
            || address.is_multicast()
            || address.is_broadcast();
        if !is_sendable || to.port() == 0 {
            return Err(SendError::BadAddress(destination));
        }
        if payload.len() > udp::PAYLOAD_MAX {
            return Err(SendError::TooLong { len: payload.len() });
        }
        let source = match local.ip() {
            ip if ip.is_unspecified() => self.source_for(address).ok_or(SendError::NoAddress)?,
            // What is bound to the loopback address stays inside, and nothing else goes there.
            ip if ip.is_loopback() != (self.route(address) == Route::Loopback) => {
                return Err(SendError::NoRoute(destination));
            }
            ip if !self.is_bindable(*ip) => return Err(SendError::NoAddress),
            ip => *ip,
        };
        if self.route(address) == Route::None {
            return Err(SendError::NoRoute(destination));
        }
        let len = udp::HEADER_LEN + payload.len();
        if !self.udp.reserve(id, len)? {
            return Ok(false);
        }
        let mut datagram = Vec::with_capacity(len);
        datagram.extend(udp::header(local.port(), to.port(), payload.len()));
        datagram.extend(payload);
        let header = Header {
            source,
            destination: address,
            protocol: PROTOCOL_UDP,
            // RFC 1112 §6.1: what goes to a group stays on the link unless asked otherwise.
            time_to_live: if address.is_multicast() { 1 } else { TIME_TO_LIVE },
            // Drawn when it is sent.
            identification: 0,
            dont_fragment: false,
        };
        self.udp.send(id, Packet::new(header, datagram));
        Ok(true)
    }

    /// Copies the oldest received datagram into `buffer`; what does not fit is lost.
    pub fn udp_receive(&mut self, id: UdpId, buffer: &mut [u8]) -> Option<Datagram> {
        self.udp.receive(id, buffer)
    }

    /// Closes a socket. The id is dead afterwards.
    pub fn udp_close(&mut self, id: UdpId) {
        self.udp.close(id);
    }
}
