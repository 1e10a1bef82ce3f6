//! DNS over TCP (RFC 7766): messages with their length in front, as many as a client likes, one
//! after the other.

use crate::Shared;
use fata::names::dns::Transport;
use fata::{TcpListener, TcpStream};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// Connections at a time. Each holds a few kilobytes while it is idle.
const CONNECTIONS_MAX: usize = 256;

/// Connections of one client at a time: with fewer clients than that nobody is kept out. RFC 7766
/// §6.2.2 asks clients for one.
const CONNECTIONS_PER_CLIENT_MAX: usize = 16;

/// How long a client may take for its next question, or to take an answer (RFC 7766 §6.2.3: "of the
/// order of a few seconds").
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest question in bytes. A name has 255; what is longer than this is none.
const REQUEST_BYTES_MAX: usize = 4096;

/// How long to wait when no connection can be accepted, for want of memory or files.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Who is connected how often.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection's place among them.
struct Place {
    clients: Clients,
    client: IpAddr,
}

impl Clients {
    fn admit(&self, client: IpAddr) -> Option<Place> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = clients.values().sum();
        let own = clients.get(&client).copied().unwrap_or(0);
        if total >= CONNECTIONS_MAX || own >= CONNECTIONS_PER_CLIENT_MAX {
            return None;
        }
        clients.insert(client, own + 1);
        Some(Place { clients: self.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// Answers connections until the network is gone.
pub(crate) async fn serve(listener: TcpListener, shared: Shared) -> io::Result<()> {
    let clients = Clients::default();
    let mut turned_away = 0_u64;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::NetworkDown => return Err(error),
            Err(error) => {
                tracing::warn!("accepting a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = clients.admit(peer.ip()) else {
            turned_away += 1;
            tracing::debug!("{peer}: too many connections, {turned_away} were turned away");
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, peer, &shared).await {
                tracing::debug!("{peer}: {error}");
            }
            drop(place);
        });
    }
}

/// Answers one client's questions, in their order.
async fn converse(mut stream: TcpStream, peer: SocketAddr, shared: &Shared) -> io::Result<()> {
    while let Some(request) = timeout(IDLE_TIMEOUT, read(&mut stream)).await?? {
        let Some(response) = shared.respond(peer.ip(), Transport::Tcp, &request) else {
            // What is no question over UDP is passed over; here its sender is told to go.
            break;
        };
        let Ok(len) = u16::try_from(response.len()) else { break };
        let mut message = len.to_be_bytes().to_vec();
        message.extend(response);
        timeout(IDLE_TIMEOUT, stream.write_all(&message)).await??;
    }
    timeout(IDLE_TIMEOUT, stream.shutdown()).await?
}

/// The next message; `None` if the client has closed its side between two.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 2];
    if stream.read(&mut len[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut len[1..]).await?;
    let len = usize::from(u16::from_be_bytes(len));
    if len > REQUEST_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("a message of {len} bytes")));
    }
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
