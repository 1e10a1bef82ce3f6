//! DHCP: gives the addresses of a pool to whoever asks on the link, or through a relay.
//!
//! ```text
//! ip tuntap add dev tap0 mode tap && ip link set tap0 up
//! fata run examples/dhcp -t virtio --net tap=tap0 -- --service.address=10.0.0.1/24 \
//!     --first=10.0.0.100 --last=10.0.0.199
//! udhcpc -f -i tap0
//! ```
//!
//! What is given to whom is `fata::names::dhcp::Server`'s business, which does no I/O; this program
//! moves messages. On unix it needs a TAP interface, too: over the host's sockets it has no address of
//! its own, and nothing can be sent to a client that has none yet.
#![forbid(unsafe_code)]

use fata::names::dhcp::{CLIENT_PORT, Config, Counters, Destination, Pool, SERVER_PORT, Server};
use fata::{Stack, UdpSocket};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The longest message that is read, in bytes: what fits into a frame. Clients send some 300.
const MESSAGE_BYTES_MAX: usize = 1500;

/// How often the log says what was done, if anything was.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Gives the addresses of a pool.
#[derive(fata::Devices)]
struct Devices {
    /// The network whose clients are served. Its address must be given (`--service.address`): who
    /// gives addresses cannot ask for one.
    service: Stack,
    /// First address of the pool, in the network's subnet.
    #[fata(arg)]
    first: Ipv4Addr,
    /// Last address of the pool.
    #[fata(arg)]
    last: Ipv4Addr,
    /// The clients' router.
    #[fata(arg)]
    router: Option<Ipv4Addr>,
    /// The clients' name server.
    #[fata(arg)]
    dns: Option<Ipv4Addr>,
    /// The clients' domain.
    #[fata(arg)]
    domain: Option<String>,
    /// How long an address is given for, in seconds.
    #[fata(arg, default = 3600)]
    lease: u32,
}

#[fata::main]
async fn main(devices: Devices) -> Result<(), Box<dyn std::error::Error>> {
    let stack = &devices.service;
    let lease = stack.lease().ok_or(
        "the service has no address of its own, and who gives addresses cannot ask for one: say \
         --service.address=ADDRESS/BITS; and on unix --net tap=INTERFACE, because over the host's \
         sockets nobody without an address can be answered",
    )?;
    let pool = Pool {
        first: devices.first,
        last: devices.last,
        prefix_len: lease.prefix_len,
        router: devices.router,
    };
    let config = Config {
        dns: devices.dns.into_iter().collect(),
        domain: devices.domain.clone(),
        lease: Duration::from_secs(devices.lease.into()),
        ..Config::new(lease.address, pool)
    };
    let secret = RandomState::new();
    let server = Server::new(config, [secret.hash_one(0), secret.hash_one(1)])?;
    let socket = stack.udp_bind(SERVER_PORT).await?;
    println!("giving {} to {}", devices.first, devices.last);
    serve(stack, &socket, server).await?;
    Ok(())
}

/// Answers messages until the network is gone.
async fn serve(stack: &Stack, socket: &UdpSocket, mut server: Server) -> io::Result<()> {
    let epoch = Instant::now();
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let mut ticks = interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = Counters::default();
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received?,
            _ = ticks.tick() => {
                if server.counters() != reported {
                    reported = server.counters();
                    let leases = server.leases(epoch.elapsed()).count();
                    tracing::info!(leases, "{reported:?}");
                }
                continue;
            }
        };
        let (len, peer) = received;
        let Some(reply) = server.handle(epoch.elapsed(), &buffer[..len]) else { continue };
        tracing::debug!("{peer}: {:?}", reply.destination);
        let destination = resolve(stack, reply.destination);
        // A reply that cannot be sent is lost, as datagrams may be; the client asks again.
        if let Err(error) = socket.send_to(&reply.bytes, destination).await {
            tracing::warn!("{error}");
        }
    }
}

/// Where a reply is sent.
fn resolve(stack: &Stack, destination: Destination) -> SocketAddr {
    let (address, port) = match destination {
        Destination::Relay(relay) => (relay, SERVER_PORT),
        Destination::Client(client) => (client, CLIENT_PORT),
        Destination::Link { address, mac } => {
            let mac = fata::device::MacAddress(mac);
            match stack.set_neighbour(IpAddr::V4(address), mac) {
                Ok(()) => (address, CLIENT_PORT),
                // RFC 2131 §4.1: where unicast is not possible, a broadcast does.
                Err(error) => {
                    tracing::debug!("{error}");
                    (Ipv4Addr::BROADCAST, CLIENT_PORT)
                }
            }
        }
        Destination::Broadcast => (Ipv4Addr::BROADCAST, CLIENT_PORT),
    };
    SocketAddr::new(address.into(), port)
}
