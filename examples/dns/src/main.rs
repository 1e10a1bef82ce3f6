//! DNS: an authoritative server for a zone, over UDP and TCP.
//!
//! ```text
//! fata run examples/dns -t virtio --publish udp:5353:53 --publish 5353:53
//! dig @127.0.0.1 -p 5353 www.example.test
//! ```
//!
//! The zone is in master format (RFC 1035 §5): the one in `example.zone`, or what is on the disk
//! `zone`, if there is one:
//!
//! ```text
//! truncate -s 64K zone.img && dd if=my.zone of=zone.img conv=notrunc
//! fata run examples/dns -t virtio --block zone=zone.img …
//! ```
//!
//! What it says is `fata::names::dns::Server`'s business, which does no I/O; this program moves
//! messages, in `tcp.rs` with the limits that connections need.
#![forbid(unsafe_code)]

mod tcp;

use fata::names::dns::{Limits, RateLimit, Server, Transport, Zone};
use fata::{Block, Stack, UdpSocket};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, interval};

/// The largest zone on a disk, in bytes: some ten thousand names, which take ten times that in
/// memory.
const ZONE_BYTES_MAX: usize = 1 << 20;

/// The largest datagram that is a question: a name, EDNS with a few options, a signature.
const REQUEST_BYTES_MAX: usize = 4096;

/// How often the log says what was done, if anything was.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Answers questions about a zone.
#[derive(fata::Devices)]
struct Devices {
    /// The network that is answered.
    service: Stack,
    /// The zone, in master format, from the disk's start to the first zero byte. Without it, the
    /// program's own example.
    zone: Option<Block>,
    /// Port, for UDP and for TCP.
    #[fata(arg, default = 53)]
    port: u16,
    /// Answers a second over UDP to one network (/24 or /56); the others are told to use TCP.
    #[fata(arg, default = 200)]
    rate: u32,
}

/// The server, as both transports ask it.
#[derive(Clone)]
struct Shared {
    server: Arc<Mutex<Server>>,
    epoch: Instant,
}

impl Shared {
    /// The answer to `request`, if it gets one.
    fn respond(&self, source: IpAddr, transport: Transport, request: &[u8]) -> Option<Vec<u8>> {
        let now = self.epoch.elapsed();
        // A panic is a bug of that one answer's; the server's state is counters.
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.respond(now, source, transport, request)
    }

    /// Says now and then what was done.
    async fn report(self) -> io::Result<()> {
        let mut ticks = interval(REPORT_INTERVAL);
        let mut last = fata::names::dns::Counters::default();
        loop {
            ticks.tick().await;
            let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
            let counters = server.counters();
            drop(server);
            if counters != last {
                tracing::info!("{counters:?}");
                last = counters;
            }
        }
    }
}

#[fata::main]
async fn main(devices: Devices) -> Result<(), Box<dyn std::error::Error>> {
    let text = match &devices.zone {
        Some(disk) => from_disk(disk).await?,
        None => include_str!("example.zone").to_string(),
    };
    let zone = Zone::parse(&text, None).map_err(|error| match &devices.zone {
        Some(_) => format!("disk `zone`: {error}"),
        None => error.to_string(),
    })?;
    println!("the zone {} has {} records", zone.origin(), zone.record_count());

    let rate = RateLimit { per_second: devices.rate, burst: devices.rate };
    let secret = RandomState::new();
    let key = [secret.hash_one(0), secret.hash_one(1)];
    let server = Server::new(zone, Limits { rate, ..Limits::default() }, key);
    let shared = Shared { server: Arc::new(Mutex::new(server)), epoch: Instant::now() };

    let socket = devices.service.udp_bind(devices.port).await?;
    let listener = devices.service.tcp_listen(devices.port).await?;
    // Before it has an address, what is sent to it is lost.
    devices.service.ready().await?;
    println!("listening on port {}", devices.port);
    // Whichever fails first ends the program.
    tokio::try_join!(
        serve_udp(socket, shared.clone()),
        tcp::serve(listener, shared.clone()),
        shared.report(),
    )?;
    Ok(())
}

/// Reads the zone's text.
async fn from_disk(disk: &Block) -> Result<String, String> {
    let geometry = disk.geometry();
    let sectors = (ZONE_BYTES_MAX / geometry.sector_bytes).min(geometry.sector_count as usize);
    let data = disk.read(0, sectors).await.map_err(|error| format!("disk `zone`: {error}"))?;
    let len = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    let text =
        std::str::from_utf8(&data[..len]).map_err(|error| format!("disk `zone`: {error}"))?;
    Ok(text.to_string())
}

async fn serve_udp(socket: UdpSocket, shared: Shared) -> io::Result<()> {
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    loop {
        let (len, peer) = socket.recv_from(&mut buffer).await?;
        if let Some(response) = shared.respond(peer.ip(), Transport::Udp, &buffer[..len])
            // An answer that cannot be sent is lost, as datagrams may be.
            && let Err(error) = socket.send_to(&response, peer).await
        {
            tracing::debug!("{peer}: {error}");
        }
    }
}
