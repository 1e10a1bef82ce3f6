//! What a request costs beside many idle connections: two engines back to back, in virtual time.
//!
//! ```text
//! cargo build --release -p fata-tcpip --example idle_connections
//! valgrind --tool=callgrind target/release/examples/idle_connections CONNECTIONS REQUESTS
//! ```
//!
//! The instructions of one request with its response, both hosts together, are the difference
//! between two runs with the same CONNECTIONS, divided by the difference of their REQUESTS.

use fata_tcpip::{
    AddressConfig, Config, Engine, FrameChecksum, Instant, Ipv6Config, Limits, MacAddress, TcpId,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

const MTU: usize = 1500;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const REQUEST: [u8; 100] = [b'q'; 100];
const RESPONSE: [u8; 1000] = [b'r'; 1000];

fn host(address: Ipv4Addr) -> Engine {
    let last = address.octets()[3];
    let config = Config {
        mac: MacAddress([2, 0, 0, 0, 0, last]),
        mtu: MTU,
        address: AddressConfig::Static { address, prefix_len: 24, gateway: None, dns: vec![] },
        ipv6: Ipv6Config::off(),
        routes: vec![],
        secret: [last; 32],
        transmit_checksum_offload: false,
        segmented_frame_bytes_max: 0,
        limits: Limits::default(),
    };
    Engine::new(config, Instant::ZERO).expect("a sound configuration")
}

/// Two hosts on one link.
struct Link {
    server: Engine,
    client: Engine,
    now: Instant,
}

impl Link {
    /// Carries frames until neither host has one.
    fn settle(&mut self) {
        let mut buffer = [0; 14 + MTU];
        loop {
            let mut is_idle = true;
            for is_server in [true, false] {
                let (from, to) = match is_server {
                    true => (&mut self.server, &mut self.client),
                    false => (&mut self.client, &mut self.server),
                };
                while let Some(transmit) = from.poll_transmit(self.now, &mut buffer) {
                    to.handle_frame(self.now, &buffer[..transmit.len], FrameChecksum::Unverified);
                    is_idle = false;
                }
            }
            if is_idle {
                return;
            }
        }
    }

    /// Lets a millisecond pass.
    fn tick(&mut self) {
        self.now = Instant::from_nanos(self.now.as_nanos() + 1_000_000);
        for engine in [&mut self.server, &mut self.client] {
            if engine.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
                engine.handle_timeout(self.now);
            }
            while engine.poll_event().is_some() {}
        }
        self.settle();
    }

    /// One request and its response, on a connection's two ends.
    fn exchange(&mut self, server: TcpId, client: TcpId) {
        let mut buffer = [0; 2000];
        let written = self.client.tcp_write(self.now, client, &REQUEST);
        assert_eq!(written, Ok(Some(REQUEST.len())));
        self.settle();
        assert_eq!(self.server.tcp_read(self.now, server, &mut buffer), Ok(Some(REQUEST.len())));
        let written = self.server.tcp_write(self.now, server, &RESPONSE);
        assert_eq!(written, Ok(Some(RESPONSE.len())));
        self.settle();
        assert_eq!(self.client.tcp_read(self.now, client, &mut buffer), Ok(Some(RESPONSE.len())));
        self.tick();
    }
}

fn main() -> ExitCode {
    let arguments: Vec<usize> = std::env::args().skip(1).flat_map(|word| word.parse()).collect();
    let [connections @ 1..=16_000, requests] = arguments[..] else {
        eprintln!("usage: idle_connections CONNECTIONS REQUESTS (1 to 16000 connections)");
        return ExitCode::from(2);
    };
    let now = Instant::from_millis(1);
    let mut link = Link { server: host(SERVER), client: host(CLIENT), now };
    let address = SocketAddr::from((SERVER, 80));
    let listener = link.server.tcp_listen(address, 1000).expect("the port is free");
    let mut pairs = Vec::new();
    for _ in 0..connections {
        let client = link.client.tcp_connect(link.now, address).expect("a free port");
        link.settle();
        let accepted = link.server.tcp_accept(link.now, listener).expect("a whole handshake");
        pairs.push((accepted.connection, client));
        link.tick();
    }
    // Past the delayed acknowledgments and announcements of the beginning.
    for _ in 0..5000 {
        link.tick();
    }
    let (server, client) = pairs[0];
    for _ in 0..requests {
        link.exchange(server, client);
    }
    println!(
        "{connections} connections, {requests} requests, {} frames",
        link.server.counters().frames_sent + link.client.counters().frames_sent
    );
    ExitCode::SUCCESS
}
