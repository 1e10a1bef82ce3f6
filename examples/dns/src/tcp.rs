//! DNS over TCP (RFC 7766): messages with their length in front, as many as a client likes, one
//! after the other.

use crate::Shared;
use fata::names::dns::Transport;
use fata::{TcpListener, TcpStream};
use std::cmp::Reverse;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// Connections at a time. Each holds a few kilobytes while it is idle.
const CONNECTIONS_MAX: usize = 256;

/// Connections of one network at a time: eight networks keep nobody out. RFC 7766 §6.2.2 asks a
/// client for one.
const CONNECTIONS_PER_NETWORK_MAX: usize = 32;

/// Bits that name a network, those of the rate over UDP: one site's. Of IPv6 it has so many addresses
/// that a limit for each would be none.
const PREFIX_BITS_V4: u32 = 24;
const PREFIX_BITS_V6: u32 = 56;

/// How long a client may take for its next question, or to take an answer (RFC 7766 §6.2.3: "of the
/// order of a few seconds").
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest question in bytes. A name has 255; what is longer than this is none.
const REQUEST_BYTES_MAX: usize = 4096;

/// How long to wait when no connection can be accepted, for want of memory or files.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A network's number, of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    V4(u32),
    V6(u128),
}

impl Network {
    fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(address) => Network::V4(address.to_bits() >> (32 - PREFIX_BITS_V4)),
            IpAddr::V6(address) => Network::V6(address.to_bits() >> (128 - PREFIX_BITS_V6)),
        }
    }
}

/// Who is connected.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<Vec<Connection>>>);

struct Connection {
    network: Network,
    /// Since when it waits for its client's next question; `None` while it answers one.
    idle_since: Option<Instant>,
    /// Tells it that another one has its place. Shared with [`Place`], which is known by it.
    evicted: Arc<Notify>,
}

/// A connection's place among them.
struct Place {
    clients: Clients,
    evicted: Arc<Notify>,
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        // Nothing is half done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection. Where there is none, the one that has been idle for longest
    /// makes way: one of the same network if that has too many, else one of the network that has
    /// most, so that nobody's many connections push out somebody's one.
    fn admit(&self, now: Instant, client: IpAddr) -> Option<Place> {
        let network = Network::of(client);
        let mut all = self.lock();
        let count = |network| all.iter().filter(|other| other.network == network).count();
        let is_network_full = count(network) >= CONNECTIONS_PER_NETWORK_MAX;
        if is_network_full || all.len() >= CONNECTIONS_MAX {
            let (at, _) = all
                .iter()
                .enumerate()
                .filter(|(_, other)| !is_network_full || other.network == network)
                .filter_map(|(at, other)| {
                    let rank = (count(other.network), Reverse(other.idle_since?));
                    Some((at, rank))
                })
                .max_by_key(|(_, rank)| *rank)?;
            all.swap_remove(at).evicted.notify_one();
        }
        let evicted = Arc::new(Notify::new());
        let own = Arc::clone(&evicted);
        all.push(Connection { network, idle_since: Some(now), evicted: own });
        drop(all);
        Some(Place { clients: self.clone(), evicted })
    }
}

impl Place {
    fn set_idle_since(&self, since: Option<Instant>) {
        let mut all = self.clients.lock();
        if let Some(own) = all.iter_mut().find(|it| Arc::ptr_eq(&it.evicted, &self.evicted)) {
            own.idle_since = since;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.lock().retain(|other| !Arc::ptr_eq(&other.evicted, &self.evicted));
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
        let Some(place) = clients.admit(Instant::now(), peer.ip()) else {
            turned_away += 1;
            tracing::debug!("{peer}: too many connections, {turned_away} were turned away");
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, peer, &shared, &place).await {
                tracing::debug!("{peer}: {error}");
            }
        });
    }
}

/// Answers one client's questions, in their order.
async fn converse(
    mut stream: TcpStream,
    peer: SocketAddr,
    shared: &Shared,
    place: &Place,
) -> io::Result<()> {
    loop {
        place.set_idle_since(Some(Instant::now()));
        let request = tokio::select! {
            request = timeout(IDLE_TIMEOUT, read(&mut stream)) => request??,
            () = place.evicted.notified() => None,
        };
        let Some(request) = request else { break };
        place.set_idle_since(None);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// A client of the network 2001:db8:0:`network`00::/56, in a /64 of its own.
    fn client(network: u16, number: u16) -> IpAddr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, network << 8 | number & 0xff, 0, 0, 0, number).into()
    }

    fn is_evicted(place: &Place) -> bool {
        !place.clients.lock().iter().any(|it| Arc::ptr_eq(&it.evicted, &place.evicted))
    }

    /// Connections that come a second apart.
    fn connect(clients: &Clients, now: &mut Instant, who: IpAddr) -> Option<Place> {
        *now += Duration::from_secs(1);
        clients.admit(*now, who)
    }

    #[test]
    fn a_network_full_of_idle_connections_keeps_nobody_out() {
        let (clients, mut now) = (Clients::default(), Instant::now());
        let mut connect = |who| connect(&clients, &mut now, who);
        let other = connect(Ipv4Addr::new(192, 0, 2, 1).into()).expect("a place");
        let flood: Vec<Place> =
            (0..272).map(|number| connect(client(1, number)).expect("a place")).collect();
        assert_eq!(clients.lock().len(), 1 + CONNECTIONS_PER_NETWORK_MAX);
        let (gone, stay) = flood.split_at(272 - CONNECTIONS_PER_NETWORK_MAX);
        assert!(gone.iter().all(is_evicted), "the oldest go");
        assert!(!stay.iter().any(is_evicted) && !is_evicted(&other));
        assert!(connect(Ipv4Addr::new(192, 0, 2, 2).into()).is_some());
        drop(flood);
        assert_eq!(clients.lock().len(), 1);
    }

    #[test]
    fn when_all_places_are_taken_the_largest_network_gives_one() {
        let (clients, mut now) = (Clients::default(), Instant::now());
        let mut connect = |who| connect(&clients, &mut now, who);
        let one = connect(client(0, 1)).expect("a place");
        let mut many: Vec<Place> = Vec::new();
        for network in 1..9 {
            for number in 0..CONNECTIONS_PER_NETWORK_MAX as u16 {
                many.extend(connect(client(network, number)));
            }
        }
        assert_eq!(clients.lock().len(), CONNECTIONS_MAX);
        assert!(!is_evicted(&one), "it is the oldest, and its network's only one");
        let late = connect(client(20, 1)).expect("a place");
        assert_eq!(clients.lock().len(), CONNECTIONS_MAX);
        assert!(!is_evicted(&one) && !is_evicted(&late));
    }

    #[test]
    fn who_is_being_answered_is_not_cut_off() {
        let (clients, mut now) = (Clients::default(), Instant::now());
        let mut connect = |who| connect(&clients, &mut now, who);
        let busy: Vec<Place> = (0..CONNECTIONS_PER_NETWORK_MAX as u16)
            .map(|number| connect(client(1, number)).expect("a place"))
            .collect();
        for place in &busy {
            place.set_idle_since(None);
        }
        assert!(connect(client(1, 99)).is_none());
        busy[7].set_idle_since(Some(Instant::now()));
        assert!(connect(client(1, 99)).is_some() && is_evicted(&busy[7]));
        assert!(connect(client(2, 1)).is_some(), "another network");
    }

    #[tokio::test(start_paused = true)]
    async fn an_evicted_connection_hears_of_it_though_it_was_not_listening() {
        let clients = Clients::default();
        let first = clients.admit(Instant::now(), client(1, 0)).expect("a place");
        let _others: Vec<_> = (1..=CONNECTIONS_PER_NETWORK_MAX as u16)
            .map(|number| clients.admit(Instant::now() + Duration::from_secs(1), client(1, number)))
            .collect();
        timeout(IDLE_TIMEOUT, first.evicted.notified()).await.expect("at once");
    }
}
