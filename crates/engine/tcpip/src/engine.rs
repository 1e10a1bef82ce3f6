//! [`Engine`]: the parts put together, and nothing but that.

use crate::config::{Config, ConfigError, Lease};
use crate::counters::Counters;
use crate::error::{ConnectError, ListenError, TcpError};
use crate::event::{Event, Events};
use crate::secret::Keys;
use crate::socket::{Accepted, Keepalive, ListenerId, TcpId, TcpStatus};
use crate::tcp::Tcp;
use crate::time::Instant;
use std::net::SocketAddr;

/// What the device says of the transport checksum of a frame that it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameChecksum {
    /// Nothing: the sum in the frame is verified here.
    Unverified,
    /// The device verified the sum in the frame.
    Verified,
    /// The frame never left this host, so its sum is not filled in, and its data is trusted.
    Blank,
}

/// A frame that was written into the buffer given to `poll_transmit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Length of the frame in bytes, from the Ethernet header on, without FCS.
    pub len: usize,
    /// Where the device must finish a checksum; only with
    /// [`Config::transmit_checksum_offload`].
    pub partial_checksum: Option<PartialChecksum>,
}

/// A checksum left to the device: the complement of the sum of the frame from `start` to its end,
/// to be written at `start + offset`, where the pseudo-header's sum stands already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// First byte that is summed, counted from the start of the frame.
    pub start: u16,
    /// Where the sum belongs, counted from `start`.
    pub offset: u16,
}

/// The stack of one interface.
pub struct Engine {
    tcp: Tcp,
    /// Events of everything but TCP, which has its own queue.
    events: Events,
    /// Counters of everything but TCP, which has its own.
    counters: Counters,
}

impl Engine {
    /// A stack for an interface that starts at `now`.
    ///
    /// # Errors
    /// [`ConfigError`], naming the field.
    pub fn new(config: Config, _now: Instant) -> Result<Engine, ConfigError> {
        config.check()?;
        let keys = Keys::new(config.secret);
        Ok(Engine {
            tcp: Tcp::new(&config.limits, keys, config.mtu),
            events: Events::default(),
            counters: Counters::default(),
        })
    }

    /// Takes a frame.
    pub fn handle_frame(&mut self, _now: Instant, _frame: &[u8], _checksum: FrameChecksum) {}

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tcp.handle_timeout(now);
    }

    /// Writes the next frame into `buffer`, of at least `14 + mtu` bytes.
    pub fn poll_transmit(&mut self, _now: Instant, _buffer: &mut [u8]) -> Option<Transmit> {
        None
    }

    /// When `handle_timeout` is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.tcp.poll_timeout()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop().or_else(|| self.tcp.poll_event())
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters.plus(&self.tcp.counters())
    }

    /// The address and what came with it.
    pub fn lease(&self) -> Option<Lease> {
        None
    }
}

/// TCP.
impl Engine {
    /// Opens a listening socket.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn tcp_listen(&mut self, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError> {
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

    /// Starts a connection to `remote`.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn tcp_connect(&mut self, now: Instant, remote: SocketAddr) -> Result<TcpId, ConnectError> {
        let _ = (now, remote);
        Err(ConnectError::NoAddress)
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
    pub fn tcp_read(&mut self, now: Instant, id: TcpId, buffer: &mut [u8]) -> Result<Option<usize>, TcpError> {
        self.tcp.read(now, id, buffer)
    }

    /// Takes bytes of `data` for sending. `None`: there is no room yet.
    ///
    /// # Errors
    /// [`TcpError`].
    pub fn tcp_write(&mut self, now: Instant, id: TcpId, data: &[u8]) -> Result<Option<usize>, TcpError> {
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
