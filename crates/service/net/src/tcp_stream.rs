//! [`TcpStream`]: one connection.

use crate::error;
use crate::shared::{Direction, Shared};
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use fata_device::{ByteStream, Keepalive};
use fata_tcpip::{TcpId, TcpStatus};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A TCP connection: a stream of bytes in both directions, each closed by itself.
///
/// - Reading 0 bytes means that the peer has sent all that it will (FIN).
/// - `poll_shutdown` sends FIN after what was written; reading goes on.
/// - `poll_flush` does nothing: what was written is sent without it.
/// - Dropping it closes it in the background: what was written still arrives. If data that the peer
///   sent was not read, the peer gets RST instead, so that it does not believe that it was (RFC
///   2525, section 2.17).
///
/// Use `tokio::io::split` to read and write from two tasks.
pub struct TcpStream(Kind);

enum Kind {
    Engine { shared: Arc<Shared>, id: TcpId, local: SocketAddr, remote: SocketAddr },
    Sockets(Box<dyn ByteStream>),
}

impl TcpStream {
    pub(crate) fn over_engine(
        shared: &Arc<Shared>,
        id: TcpId,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Self {
        TcpStream(Kind::Engine { shared: Arc::clone(shared), id, local, remote })
    }

    pub(crate) fn over_sockets(stream: Box<dyn ByteStream>) -> Self {
        TcpStream(Kind::Sockets(stream))
    }

    pub(crate) async fn connect(shared: &Arc<Shared>, remote: SocketAddr) -> io::Result<Self> {
        // From here on dropping the stream, and so this future, gives the attempt up.
        let stream = shared.act(|state, now| {
            state.check()?;
            let id = state
                .engine
                .tcp_connect(now, remote)
                .map_err(|failure| error::connect(failure, remote))?;
            state.want_driver();
            let (local, remote) = state.engine.tcp_addresses(id).unwrap_or((remote, remote));
            io::Result::Ok(TcpStream::over_engine(shared, id, local, remote))
        })?;
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    fn poll_handshake(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Kind::Engine { shared, id, remote, .. } = &self.0 else {
            return Poll::Ready(Ok(()));
        };
        shared.act(|state, _now| {
            state.check()?;
            match state.engine.tcp_status(*id) {
                TcpStatus::Connecting => {
                    state.wait_for_stream(*id, Direction::Write, cx.waker());
                    Poll::Pending
                }
                TcpStatus::Failed(failure) => Poll::Ready(Err(error::handshake(failure, *remote))),
                // Closed again already: reading says so.
                _ => Poll::Ready(Ok(())),
            }
        })
    }

    /// Address of this end.
    ///
    /// # Errors
    /// The host's, if the sockets are the host's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Engine { local, .. } => Ok(*local),
            Kind::Sockets(stream) => stream.local_addr(),
        }
    }

    /// Address of the other end.
    ///
    /// # Errors
    /// The host's, if the sockets are the host's.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Engine { remote, .. } => Ok(*remote),
            Kind::Sockets(stream) => stream.peer_addr(),
        }
    }

    /// Sends small segments at once (true), or lets them gather while data is in flight (false, the
    /// default: Nagle's algorithm).
    ///
    /// # Errors
    /// `NetworkDown` if the network interface failed, or the host's.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match &self.0 {
            Kind::Engine { shared, id, .. } => shared.act(|state, _now| {
                state.check()?;
                state.engine.tcp_set_nodelay(*id, nodelay);
                state.want_driver();
                Ok(())
            }),
            Kind::Sockets(stream) => stream.set_nodelay(nodelay),
        }
    }

    /// Probes the other end while the connection is silent (`Some`), or never (`None`, the
    /// default).
    ///
    /// # Errors
    /// `NetworkDown` if the network interface failed, or the host's.
    pub fn set_keepalive(&self, keepalive: Option<Keepalive>) -> io::Result<()> {
        match &self.0 {
            Kind::Engine { shared, id, .. } => shared.act(|state, now| {
                state.check()?;
                let keepalive = keepalive.map(|keepalive| fata_tcpip::Keepalive {
                    idle: keepalive.idle,
                    interval: keepalive.interval,
                    probes: u32::from(keepalive.probes),
                });
                state.engine.tcp_set_keepalive(now, *id, keepalive);
                state.want_driver();
                Ok(())
            }),
            Kind::Sockets(stream) => stream.set_keepalive(keepalive),
        }
    }

    /// How long the other end may owe an answer to what was sent before the connection ends with
    /// `TimedOut` (RFC 9293 §3.9.1, the user timeout); `None` is the default: the limit
    /// `tcp_user_timeout`, or the host's.
    ///
    /// # Errors
    /// `NetworkDown` if the network interface failed, or the host's.
    pub fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.0 {
            Kind::Engine { shared, id, .. } => shared.act(|state, now| {
                state.check()?;
                state.engine.tcp_set_user_timeout(now, *id, timeout);
                state.want_driver();
                Ok(())
            }),
            Kind::Sockets(stream) => stream.set_user_timeout(timeout),
        }
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (shared, id, remote) = match &mut self.0 {
            Kind::Engine { shared, id, remote, .. } => (shared, *id, *remote),
            Kind::Sockets(stream) => return Pin::new(stream).poll_read(cx, buffer),
        };
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        shared.act(|state, now| {
            state.check()?;
            let room = buffer.remaining();
            let sink = &mut |bytes: &[u8]| buffer.put_slice(bytes);
            match state.engine.tcp_read_with(now, id, room, sink) {
                Ok(Some(_)) => {
                    // The window may have opened.
                    state.want_driver();
                    Poll::Ready(Ok(()))
                }
                Ok(None) => {
                    state.wait_for_stream(id, Direction::Read, cx.waker());
                    Poll::Pending
                }
                Err(failure) => Poll::Ready(Err(error::stream(failure, remote))),
            }
        })
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (shared, id, remote) = match &mut self.0 {
            Kind::Engine { shared, id, remote, .. } => (shared, *id, *remote),
            Kind::Sockets(stream) => return Pin::new(stream).poll_write_vectored(cx, slices),
        };
        shared.act(|state, now| {
            state.check()?;
            let mut written = 0;
            for slice in slices.iter().filter(|slice| !slice.is_empty()) {
                match state.engine.tcp_write(now, id, slice) {
                    Ok(Some(len)) => {
                        written += len;
                        state.want_driver();
                        if len < slice.len() {
                            break;
                        }
                    }
                    Ok(None) if written == 0 => {
                        state.wait_for_stream(id, Direction::Write, cx.waker());
                        return Poll::Pending;
                    }
                    Err(failure) if written == 0 => {
                        return Poll::Ready(Err(error::stream(failure, remote)));
                    }
                    // The next call says so.
                    Ok(None) | Err(_) => break,
                }
            }
            Poll::Ready(Ok(written))
        })
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Engine { .. } => true,
            Kind::Sockets(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Engine { .. } => Poll::Ready(Ok(())),
            Kind::Sockets(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Engine { shared, id, remote, .. } => shared.act(|state, now| {
                state.check()?;
                state.want_driver();
                Poll::Ready(
                    state
                        .engine
                        .tcp_shutdown(now, *id)
                        .map_err(|failure| error::stream(failure, *remote)),
                )
            }),
            Kind::Sockets(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        if let Kind::Engine { shared, id, .. } = &self.0 {
            shared.act(|state, now| {
                state.engine.tcp_release(now, *id);
                state.want_driver();
                state.forget_stream(*id);
            });
        }
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.local_addr(), self.peer_addr()) {
            (Ok(local), Ok(peer)) => write!(f, "TcpStream({local} to {peer})"),
            (Err(error), _) | (_, Err(error)) => write!(f, "TcpStream({error})"),
        }
    }
}
