//! [`Channel`]: a byte stream to a neighbour on the same host.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A way to one neighbour on the same host, without a network: vchan between two Xen guests, a Unix
/// socket between two processes.
///
/// One side calls [`accept`](Channel::accept), the other [`connect`](Channel::connect), in either
/// order.
#[derive(Clone)]
pub struct Channel {
    end: std::sync::Arc<dyn End>,
}

/// A channel that is being opened.
pub(crate) type Opening<'a> = Pin<Box<dyn Future<Output = io::Result<ChannelStream>> + Send + 'a>>;

/// How a target opens channels.
pub(crate) trait End: Send + Sync {
    /// Serves one connection.
    fn accept(&self) -> Opening<'_>;
    /// Makes one.
    fn connect(&self) -> Opening<'_>;
}

impl Channel {
    #[cfg_attr(fata_target = "virtio", expect(dead_code, reason = "virtio has no neighbours"))]
    pub(crate) fn new(end: impl End + 'static) -> Self {
        Channel { end: std::sync::Arc::new(end) }
    }

    /// Waits until the neighbour connects.
    ///
    /// # Errors
    /// The target's; the text says what failed and on whose side.
    pub async fn accept(&self) -> io::Result<ChannelStream> {
        self.end.accept().await
    }

    /// Connects to the neighbour, waiting until it serves.
    ///
    /// # Errors
    /// As [`accept`](Channel::accept).
    pub async fn connect(&self) -> io::Result<ChannelStream> {
        self.end.connect().await
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel")
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An open [`Channel`]. When the neighbour is gone, reads end (`Ok(0)`) and writes fail with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe).
pub struct ChannelStream {
    stream: Box<dyn Duplex>,
}

impl ChannelStream {
    #[cfg_attr(fata_target = "virtio", expect(dead_code, reason = "virtio has no neighbours"))]
    pub(crate) fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        ChannelStream { stream: Box::new(stream) }
    }
}

impl AsyncRead for ChannelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ChannelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl fmt::Debug for ChannelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelStream")
    }
}
