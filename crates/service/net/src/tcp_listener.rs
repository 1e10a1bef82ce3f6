//! [`TcpListener`]: connections that come in.

use crate::error;
use crate::readiness::Readiness;
use crate::shared::Shared;
use crate::tcp_stream::TcpStream;
use core::fmt;
use core::task::{Context, Poll, Waker};
use fata_device::Listener;
use fata_tcpip::ListenerId;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Connections that are established and wait to be accepted, at most; as many as tokio asks of a
/// host. Past it a stack answers with silence, and the client tries again.
const BACKLOG: usize = 1024;

/// A listening TCP socket. Any number of tasks may accept from it. Dropping it closes it;
/// connections that nobody accepted are reset.
///
/// `axum::serve` takes it (feature `axum`).
pub struct TcpListener {
    readiness: Arc<Readiness>,
    kind: Kind,
}

enum Kind {
    Engine { shared: Arc<Shared>, id: ListenerId, local: SocketAddr },
    Sockets { listener: Box<dyn Listener>, waker: Waker },
}

impl TcpListener {
    pub(crate) fn over_engine(shared: &Arc<Shared>, local: SocketAddr) -> io::Result<Self> {
        let readiness = Arc::new(Readiness::default());
        let mut state = shared.lock();
        state.check()?;
        let id = state
            .engine
            .tcp_listen(local, BACKLOG)
            .map_err(|failure| error::listen(failure, local))?;
        let local = state.engine.tcp_listener_addr(id).unwrap_or(local);
        state.listeners.insert(id.index(), Waker::from(Arc::clone(&readiness)));
        drop(state);
        Ok(TcpListener { readiness, kind: Kind::Engine { shared: Arc::clone(shared), id, local } })
    }

    pub(crate) fn over_sockets(listener: Box<dyn Listener>) -> Self {
        let readiness = Arc::new(Readiness::default());
        let waker = Waker::from(Arc::clone(&readiness));
        TcpListener { readiness, kind: Kind::Sockets { listener, waker } }
    }

    /// Address that it listens on, with the port that was given if 0 was asked for.
    ///
    /// # Errors
    /// The host's, if the sockets are the host's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.kind {
            Kind::Engine { local, .. } => Ok(*local),
            Kind::Sockets { listener, .. } => listener.local_addr(),
        }
    }

    /// The next connection, and the address of its other end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `NetworkDown` if the network interface failed; what the host says, such as too many open
    /// files.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.readiness.wait(|| self.try_accept()).await
    }

    /// The next connection. Only the last task that polled is woken.
    ///
    /// # Errors
    /// As [`accept`](TcpListener::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.readiness.remember(cx.waker());
        self.try_accept()
    }

    /// Pending: the readiness is going to be woken.
    fn try_accept(&self) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        match &self.kind {
            Kind::Engine { shared, id, .. } => shared.act(|state, now| {
                state.check()?;
                let Some(accepted) = state.engine.tcp_accept(now, *id) else {
                    return Poll::Pending;
                };
                let stream = TcpStream::over_engine(
                    shared,
                    accepted.connection,
                    accepted.local,
                    accepted.remote,
                );
                Poll::Ready(Ok((stream, accepted.remote)))
            }),
            Kind::Sockets { listener, waker } => listener
                .poll_accept(&mut Context::from_waker(waker))
                .map_ok(|(stream, peer)| (TcpStream::over_sockets(stream), peer)),
        }
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        if let Kind::Engine { shared, id, .. } = &self.kind {
            // The waker outlives the lock.
            let _waker = shared.act(|state, now| {
                state.engine.tcp_close_listener(now, *id);
                state.want_driver();
                state.listeners.remove(id.index())
            });
        }
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local_addr() {
            Ok(local) => write!(f, "TcpListener({local})"),
            Err(error) => write!(f, "TcpListener({error})"),
        }
    }
}
