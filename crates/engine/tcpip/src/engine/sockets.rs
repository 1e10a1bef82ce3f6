//! What a program calls: checks addresses, then hands on to TCP and UDP.

use super::Engine;
use super::transmit::Route;
use crate::config::is_host_address;
use crate::error::{BindError, ConnectError, ListenError, SendError, TcpError};
use crate::output::{Header, Packet};
use crate::socket::{Accepted, Datagram, Keepalive, ListenerId, TcpId, TcpStatus, UdpId};
use crate::time::Instant;
use crate::wire::ipv4::PROTOCOL_UDP;
use crate::wire::{dhcp, ipv6, udp};
use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address as the engine knows it: an IPv4 address in IPv6's clothes without these (RFC 4291
/// §2.5.5.2), and without scope, for there is one interface.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// True if `address` can be one host's, ourselves included.
fn is_host(address: IpAddr) -> bool {
    address.is_loopback()
        || match address {
            IpAddr::V4(address) => is_host_address(address),
            IpAddr::V6(address) => ipv6::is_host_address(address),
        }
}

impl Engine {
    /// True if packets to `address` are for us.
    fn is_ours(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.lease.as_ref().is_some_and(|l| l.address == address),
            IpAddr::V6(address) => {
                self.ipv6.as_ref().is_some_and(|ipv6| ipv6.addresses.is_ours(address))
            }
        }
    }

    /// True if the interface has, or may get, an address of `address`'s family.
    fn speaks(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.dhcp.is_some() || self.lease.is_some(),
            IpAddr::V6(_) => self.ipv6.is_some(),
        }
    }

    /// True if sockets may be bound to `address`: any of ours.
    fn is_bindable(&self, address: IpAddr) -> bool {
        address.is_unspecified() || address.is_loopback() || self.is_ours(address)
    }

    /// The address that a packet to `destination` is sent from: for IPv4 there is one choice (RFC
    /// 1122 §3.3.4.3), for IPv6 RFC 6724 chooses.
    pub(super) fn source_for(&self, now: Instant, destination: IpAddr) -> Option<IpAddr> {
        match destination {
            IpAddr::V4(address) if address.is_loopback() => Some(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(address) if address.is_loopback() => Some(Ipv6Addr::LOCALHOST.into()),
            IpAddr::V4(_) => self.lease.as_ref().map(|lease| lease.address.into()),
            IpAddr::V6(address) => {
                let ipv6 = self.ipv6.as_ref()?;
                ipv6.addresses.source_for(now, address).map(IpAddr::V6)
            }
        }
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
        let local = canonical(local);
        if !self.is_bindable(local.ip()) {
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
        let remote = canonical(remote);
        let address = remote.ip();
        if !is_host(address) || remote.port() == 0 {
            return Err(ConnectError::BadAddress(remote));
        }
        let no_source = || match self.speaks(address) {
            true => ConnectError::NoAddress,
            false => ConnectError::NoRoute(remote),
        };
        let local = self.source_for(now, address).ok_or_else(no_source)?;
        match self.route(now, address) {
            Route::Neighbour(_) | Route::Loopback => self.tcp.connect(now, local, remote),
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

    /// How long the peer may owe an answer before the connection ends (the user timeout of RFC 9293
    /// §3.9.1); `None` is [`Limits::tcp_user_timeout`](crate::Limits::tcp_user_timeout), the default.
    pub fn tcp_set_user_timeout(&mut self, now: Instant, id: TcpId, timeout: Option<Duration>) {
        self.tcp.set_user_timeout(now, id, timeout);
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
        let local = canonical(local);
        if !self.is_bindable(local.ip()) {
            return Err(BindError::NotOurs(local));
        }
        if self.dhcp.is_some() && local.port() == dhcp::CLIENT_PORT {
            return Err(BindError::InUse(local));
        }
        self.udp.bind(local)
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
        now: Instant,
        id: UdpId,
        destination: SocketAddr,
        payload: &[u8],
    ) -> Result<bool, SendError> {
        let local = self.udp.local(id).ok_or(SendError::Closed)?;
        let destination = canonical(destination);
        let address = destination.ip();
        let is_broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
        let is_sendable = is_host(address) || address.is_multicast() || is_broadcast;
        if !is_sendable || destination.port() == 0 {
            return Err(SendError::BadAddress(destination));
        }
        if payload.len() > udp::PAYLOAD_MAX {
            return Err(SendError::TooLong { len: payload.len() });
        }
        let source = match local.ip() {
            ip if ip.is_unspecified() => match self.source_for(now, address) {
                Some(source) => source,
                None if self.speaks(address) => return Err(SendError::NoAddress),
                None => return Err(SendError::NoRoute(destination)),
            },
            // What is bound to the loopback address stays inside, and nothing else goes there.
            ip if ip.is_loopback() != (self.route(now, address) == Route::Loopback) => {
                return Err(SendError::NoRoute(destination));
            }
            ip if ip.is_ipv4() != address.is_ipv4() => return Err(SendError::NoRoute(destination)),
            ip if !self.is_bindable(ip) => return Err(SendError::NoAddress),
            ip => ip,
        };
        if self.route(now, address) == Route::None {
            return Err(SendError::NoRoute(destination));
        }
        let len = udp::HEADER_LEN + payload.len();
        if !self.udp.reserve(id, len)? {
            return Ok(false);
        }
        let mut datagram = Vec::with_capacity(len);
        datagram.extend(udp::header(local.port(), destination.port(), payload.len()));
        datagram.extend(payload);
        let header = Header {
            source,
            destination: address,
            protocol: PROTOCOL_UDP,
            // RFC 1112 §6.1: what goes to a group stays on the link unless asked otherwise.
            hop_limit: if address.is_multicast() { 1 } else { self.hop_limit(address) },
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

    /// Closes a socket. The id is dead afterwards. What [`udp_send`](Self::udp_send) has taken is sent
    /// all the same: of all closed sockets together as much as one may hold
    /// ([`Limits::udp_send_bytes`](crate::Limits::udp_send_bytes)), and the rest is counted.
    pub fn udp_close(&mut self, id: UdpId) {
        self.udp.close(id, &mut self.counters);
    }
}
