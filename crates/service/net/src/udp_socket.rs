//! [`UdpSocket`]: datagrams.

use crate::error;
use crate::readiness::Readiness;
use crate::shared::Shared;
use crate::stack::Stack;
use core::fmt;
use core::task::{Context, Poll, Waker};
use fata_device::DatagramSocket;
use fata_tcpip::UdpId;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// A UDP socket. Any number of tasks may send with it and receive from it. Dropping it closes it.
pub struct UdpSocket {
    readable: Arc<Readiness>,
    writable: Arc<Readiness>,
    kind: Kind,
}

enum Kind {
    Engine { stack: Stack, shared: Arc<Shared>, id: UdpId, local: SocketAddr },
    Sockets { socket: Box<dyn DatagramSocket>, readable: Waker, writable: Waker },
}

impl UdpSocket {
    pub(crate) fn over_engine(
        stack: Stack,
        shared: &Arc<Shared>,
        local: SocketAddr,
    ) -> io::Result<Self> {
        let (readable, writable) = (Arc::<Readiness>::default(), Arc::<Readiness>::default());
        let mut state = shared.lock();
        state.check()?;
        let id = state.engine.udp_bind(local).map_err(|failure| error::bind(failure, local))?;
        let local = state.engine.udp_addr(id).unwrap_or(local);
        let wakers = (Waker::from(Arc::clone(&readable)), Waker::from(Arc::clone(&writable)));
        state.udp.insert(id.index(), wakers);
        drop(state);
        let kind = Kind::Engine { stack, shared: Arc::clone(shared), id, local };
        Ok(UdpSocket { readable, writable, kind })
    }

    pub(crate) fn over_sockets(socket: Box<dyn DatagramSocket>) -> Self {
        let (readable, writable) = (Arc::<Readiness>::default(), Arc::<Readiness>::default());
        let kind = Kind::Sockets {
            socket,
            readable: Waker::from(Arc::clone(&readable)),
            writable: Waker::from(Arc::clone(&writable)),
        };
        UdpSocket { readable, writable, kind }
    }

    /// Address that it is bound to, with the port that was given if 0 was asked for.
    ///
    /// # Errors
    /// The host's, if the sockets are the host's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.kind {
            Kind::Engine { local, .. } => Ok(*local),
            Kind::Sockets { socket, .. } => socket.local_addr(),
        }
    }

    /// Sends one datagram, after waiting for the stack's address if need be, and returns its
    /// length. Dropping the future before it is ready sends nothing.
    ///
    /// # Errors
    /// `InvalidInput` if it is too long or the destination is none, `NetworkUnreachable`,
    /// `NetworkDown`, each naming the destination.
    pub async fn send_to(&self, payload: &[u8], destination: SocketAddr) -> io::Result<usize> {
        let sent = self.writable.wait(|| self.try_send_to(payload, destination)).await;
        match (&self.kind, sent) {
            (Kind::Engine { stack, .. }, Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::NetworkDown | io::ErrorKind::NetworkUnreachable
                ) =>
            {
                stack.ready_to_send(destination).await?;
                self.writable.wait(|| self.try_send_to(payload, destination)).await
            }
            (_, sent) => sent,
        }
    }

    /// Sends one datagram and returns its length. Only the last task that polled is woken.
    ///
    /// # Errors
    /// As [`send_to`](UdpSocket::send_to); `NetworkDown` while the stack has no address.
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        payload: &[u8],
        destination: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.writable.remember(cx.waker());
        self.try_send_to(payload, destination)
    }

    /// Receives one datagram into `buffer`; what does not fit is lost. Returns its length in the
    /// buffer and its source. Dropping the future before it is ready loses nothing.
    ///
    /// # Errors
    /// `NetworkDown` if the network interface failed, or the host's.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.readable.wait(|| self.try_recv_from(buffer)).await
    }

    /// Receives one datagram into `buffer`. Only the last task that polled is woken.
    ///
    /// # Errors
    /// As [`recv_from`](UdpSocket::recv_from).
    pub fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.readable.remember(cx.waker());
        self.try_recv_from(buffer)
    }

    /// Pending: `writable` is going to be woken.
    fn try_send_to(&self, payload: &[u8], destination: SocketAddr) -> Poll<io::Result<usize>> {
        match &self.kind {
            Kind::Engine { shared, id, .. } => shared.act(|state, now| {
                state.check()?;
                match state.engine.udp_send(now, *id, destination, payload) {
                    Ok(true) => {
                        state.want_driver();
                        Poll::Ready(Ok(payload.len()))
                    }
                    Ok(false) => Poll::Pending,
                    Err(failure) => {
                        Poll::Ready(Err(error::send(failure, payload.len(), destination)))
                    }
                }
            }),
            Kind::Sockets { socket, writable, .. } => socket
                .poll_send_to(&mut Context::from_waker(writable), payload, destination)
                .map_ok(|()| payload.len()),
        }
    }

    /// Pending: `readable` is going to be woken.
    fn try_recv_from(&self, buffer: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        match &self.kind {
            Kind::Engine { shared, id, .. } => shared.act(|state, _now| {
                state.check()?;
                match state.engine.udp_receive(*id, buffer) {
                    Some(datagram) => Poll::Ready(Ok((datagram.len, datagram.source))),
                    None => Poll::Pending,
                }
            }),
            Kind::Sockets { socket, readable, .. } => {
                socket.poll_recv_from(&mut Context::from_waker(readable), buffer)
            }
        }
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        if let Kind::Engine { shared, id, .. } = &self.kind {
            // The wakers outlive the lock.
            let _wakers = shared.act(|state, _now| {
                state.engine.udp_close(*id);
                state.udp.remove(id.index())
            });
        }
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local_addr() {
            Ok(local) => write!(f, "UdpSocket({local})"),
            Err(error) => write!(f, "UdpSocket({error})"),
        }
    }
}
