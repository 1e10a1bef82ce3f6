//! [`Sockets`]: a TCP and UDP service that exists already, such as a Unix host's.
//!
//! `fata-net` runs its own stack over a [`Nic`](crate::Nic), or hands a program's calls to a
//! [`Sockets`]; the program cannot tell which.

use crate::BoxFuture;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};

/// How a silent connection is asked whether its other end still lives (RFC 9293, section 3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which the first probe is sent. A Unix host counts in whole seconds.
    pub idle: Duration,
    /// Time between two probes. A Unix host counts in whole seconds.
    pub interval: Duration,
    /// Number of probes without an answer after which the connection fails with `TimedOut`.
    pub probes: u8,
}

impl Default for Keepalive {
    /// Two hours of silence, as RFC 9293 (MUST-28) demands of a default, then nine probes 75
    /// seconds apart, as Linux and the BSDs have it.
    fn default() -> Self {
        Keepalive {
            idle: Duration::from_secs(2 * 60 * 60),
            interval: Duration::from_secs(75),
            probes: 9,
        }
    }
}

/// A stream of bytes in both directions, closed in each direction by itself
/// (`poll_shutdown` sends FIN, reading goes on).
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {
    /// Address of this end.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// Address of the other end.
    fn peer_addr(&self) -> io::Result<SocketAddr>;
    /// Sends small segments at once (true), or lets them gather while data is in flight (false).
    fn set_nodelay(&self, nodelay: bool) -> io::Result<()>;
    /// Probes the other end while the connection is silent (`Some`), or never (`None`, the
    /// default).
    fn set_keepalive(&self, keepalive: Option<Keepalive>) -> io::Result<()>;
    /// How long the other end may owe an answer before the connection ends (RFC 9293 §3.9.1, the
    /// user timeout); `None` is the host's default.
    fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;
}

/// A listening TCP socket.
pub trait Listener: Send + Sync + 'static {
    /// Address that it listens on, with the port that was given if 0 was asked for.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// The next connection. Only the last waker that polled is woken.
    fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Box<dyn ByteStream>, SocketAddr)>>;
}

/// A UDP socket. Sending and receiving remember one waker each, the last one that polled.
pub trait DatagramSocket: Send + Sync + 'static {
    /// Address that it is bound to.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// Sends one datagram.
    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        payload: &[u8],
        destination: SocketAddr,
    ) -> Poll<io::Result<()>>;
    /// Receives one datagram into `buffer`; what does not fit is lost. Returns its length in the
    /// buffer and its source.
    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>>;
}

/// A service that opens sockets.
pub trait Sockets: Send + Sync + 'static {
    /// Opens a listening TCP socket on `address` (port 0: any free one).
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`, each naming the address.
    fn tcp_listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// Connects to `remote`.
    ///
    /// # Errors
    /// `ConnectionRefused`, `TimedOut`, `NetworkUnreachable`, `HostUnreachable` …
    fn tcp_connect(&self, remote: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>>;

    /// Opens a UDP socket on `address` (port 0: any free one).
    ///
    /// # Errors
    /// As [`tcp_listen`](Sockets::tcp_listen).
    fn udp_bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn DatagramSocket>>>;

    /// The recursive name servers that the host is configured with, in the order in which they are
    /// to be asked. None by default.
    fn name_servers(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
}
