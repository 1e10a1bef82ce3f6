//! `axum::serve(listener, router)` with a [`TcpListener`].

use crate::tcp_listener::TcpListener;
use crate::tcp_stream::TcpStream;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use core::time::Duration;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// Pause after the host could not accept, mostly for want of files: time for some connections to
/// end. The same as axum's own.
const PAUSE: Duration = Duration::from_secs(1);

impl Listener for TcpListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    /// Never fails. If the network interface failed there will be no more connections, so it waits
    /// for ever; the stack's [`Driver`](crate::Driver) reports why.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match TcpListener::accept(self).await {
                Ok(accepted) => return accepted,
                Err(error) if error.kind() == ErrorKind::NetworkDown => pending().await,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

/// The client's address, for axum's `ConnectInfo<PeerAddr>`:
/// `router.into_make_service_with_connect_info::<PeerAddr>()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

impl Connected<IncomingStream<'_, TcpListener>> for PeerAddr {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        PeerAddr(*stream.remote_addr())
    }
}
