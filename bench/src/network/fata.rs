//! Our engine.

use std::net::{Ipv4Addr, SocketAddr};

use fata_tcpip::{
    AddressConfig, Config, Engine, FrameChecksum, Instant, Ipv6Config, Limits, ListenerId,
    MacAddress, TcpId,
};

use crate::host::{Connection, Host, MTU, PORT};

pub(crate) struct Fata {
    engine: Engine,
    listener: Option<ListenerId>,
    backlog: usize,
    connections: Vec<TcpId>,
}

/// An engine at `address`/24, without offloads, and with IPv4 alone: what smoltcp is given.
pub(crate) fn engine(address: Ipv4Addr, limits: Limits) -> Engine {
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
        limits,
    };
    Engine::new(config, Instant::ZERO).expect("a sound configuration")
}

impl Host for Fata {
    const NAME: &'static str = "Fata";

    fn new(address: Ipv4Addr, connections: usize, buffer_bytes: usize) -> Self {
        let limits = Limits {
            tcp_receive_bytes: buffer_bytes,
            tcp_send_bytes: buffer_bytes,
            tcp_accept_backlog: connections.max(16),
            ..Limits::default()
        };
        let engine = engine(address, limits);
        Fata { engine, listener: None, backlog: connections.max(16), connections: Vec::new() }
    }

    fn listen(&mut self) {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        self.listener = Some(self.engine.tcp_listen(any, self.backlog).expect("the port is free"));
    }

    fn connect(&mut self, now: u64, server: Ipv4Addr) -> Connection {
        let remote = SocketAddr::from((server, PORT));
        let id = self.engine.tcp_connect(Instant::from_nanos(now), remote).expect("a free port");
        self.connections.push(id);
        self.connections.len() - 1
    }

    fn accept(&mut self, now: u64) -> Option<Connection> {
        let accepted = self.engine.tcp_accept(Instant::from_nanos(now), self.listener?)?;
        self.connections.push(accepted.connection);
        Some(self.connections.len() - 1)
    }

    fn write(&mut self, now: u64, connection: Connection, bytes: &[u8]) -> usize {
        let id = self.connections[connection];
        match self.engine.tcp_write(Instant::from_nanos(now), id, bytes) {
            Ok(written) => written.unwrap_or(0),
            Err(error) => panic!("{}: {error}", Self::NAME),
        }
    }

    fn read(&mut self, now: u64, connection: Connection, buffer: &mut [u8]) -> usize {
        let id = self.connections[connection];
        match self.engine.tcp_read(Instant::from_nanos(now), id, buffer) {
            Ok(read) => read.unwrap_or(0),
            Err(error) => panic!("{}: {error}", Self::NAME),
        }
    }

    fn receive(&mut self, now: u64, frame: &[u8]) {
        self.engine.handle_frame(Instant::from_nanos(now), frame, FrameChecksum::Unverified);
    }

    fn transmit(&mut self, now: u64, buffer: &mut [u8]) -> Option<usize> {
        let transmit = self.engine.poll_transmit(Instant::from_nanos(now), buffer);
        // Events are looked at once a turn, as the service does.
        if transmit.is_none() {
            while self.engine.poll_event().is_some() {}
        }
        transmit.map(|transmit| transmit.len)
    }

    fn poll_timeout(&mut self, _: u64) -> Option<u64> {
        self.engine.poll_timeout().map(Instant::as_nanos)
    }

    fn handle_timeout(&mut self, now: u64) {
        self.engine.handle_timeout(Instant::from_nanos(now));
        while self.engine.poll_event().is_some() {}
    }
}
