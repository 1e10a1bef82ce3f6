//! TLS over a listener, as axum takes it.

use crate::identity::Identity;
use fata::{TcpListener, TcpStream};
use rustls::ServerConfig;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A client that has not finished its handshake by then is gone, or means harm.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes at a time. Each holds some 20 KiB, so a crowd of clients that say nothing costs 2.5 MiB.
/// One more takes the place of the oldest: such a crowd must not keep the others waiting.
const HANDSHAKES_MAX: usize = 128;

/// How long to wait when no connection can be accepted, for want of memory or files.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What the server offers: TLS 1.3 and 1.2, HTTP/2 before HTTP/1.1.
pub fn config(identity: Identity) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Hands out connections whose handshake is done. Handshakes run in tasks of their own, so that a
/// slow client keeps nobody waiting.
pub struct Listener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: io::Result<SocketAddr>,
}

impl Listener {
    /// Starts accepting from `tcp`.
    pub fn new(tcp: TcpListener, config: Arc<ServerConfig>) -> Self {
        let local = tcp.local_addr();
        let (done, ready) = mpsc::channel(16);
        tokio::spawn(accept(tcp, TlsAcceptor::from(config), done));
        Listener { ready, local }
    }
}

async fn accept(
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    done: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let mut handshakes: VecDeque<JoinHandle<()>> = VecDeque::new();
    loop {
        let (stream, peer) = match tcp.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::NetworkDown => {
                tracing::error!("the network is gone: {error}");
                return;
            }
            Err(error) => {
                tracing::warn!("accepting a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        handshakes.retain(|handshake| !handshake.is_finished());
        if handshakes.len() == HANDSHAKES_MAX {
            handshakes.pop_front().inspect(JoinHandle::abort);
        }
        let (acceptor, done) = (acceptor.clone(), done.clone());
        handshakes.push_back(tokio::spawn(async move {
            match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                // The receiver is gone when the server is: then so is the connection.
                Ok(Ok(stream)) => drop(done.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!("{peer}: {error}"),
                Err(_) => tracing::debug!("{peer}: no handshake in {HANDSHAKE_TIMEOUT:?}"),
            }
        }));
    }
}

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The network is gone, which was logged; requests in flight may still end.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.local {
            Ok(address) => Ok(*address),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}
