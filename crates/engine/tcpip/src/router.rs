//! [`Router`]: IPv4 between several interfaces (RFC 1812), as a state machine.
//!
//! A frame that is to be passed on is rewritten where it lies, so that whoever moves frames copies it
//! once, into the way out's buffer. What the router says itself (ARP, ICMP, packets that waited for
//! a neighbour, fragments) it hands out as frames of its own.
//!
//! Routes are those to the interfaces' own subnets and static ones. There is no NAT, no routing
//! protocol, no multicast, and IPv6 is not passed on.

mod forward;
mod routes;
#[cfg(test)]
mod tests;

use crate::config::{ConfigError, Lease, Limits, MTU_MAX, MTU_MIN, MacAddress, check_addresses};
use crate::counters::Counters;
use crate::icmp::Limiters;
use crate::limiter::Limiter;
use crate::neighbour::{self, Neighbours, Waiting};
use crate::output::Identifications;
use crate::secret::{Keys, Purpose};
use crate::time::Instant;
use crate::wire::arp::{self, Operation};
use crate::wire::ethernet;
use core::fmt;
use core::num::NonZeroU16;
use routes::Routes;
use std::collections::VecDeque;
use std::net::Ipv4Addr;

pub use forward::Verdict;

/// Most ports at once: far more than a domain has clients, and few enough to be walked through.
const PORTS_MAX: usize = 64;

/// Bytes of frames of its own that wait in one port for its device, before more are dropped.
const OWN_BYTES_MAX: usize = 128 * 1024;

/// What is known of a frame beside its bytes, and must go with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// The transport's checksum is not filled in.
    pub is_checksum_blank: bool,
    /// It is several TCP segments in one, with so much payload each.
    pub mss: Option<NonZeroU16>,
}

/// A frame of the router's own, or one that had to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFrame {
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// What was left undone by whoever sent it.
    pub undone: Undone,
}

/// A frame that waits for a neighbour's address.
struct Parked {
    frame: OwnFrame,
    /// It is somebody else's.
    is_forwarded: bool,
}

impl Waiting for Parked {
    fn bytes(&self) -> usize {
        self.frame.bytes.len()
    }
}

/// An interface of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// The interface's own hardware address; unicast.
    pub mac: MacAddress,
    /// The largest IP packet of the link in bytes, 68 to 65,535.
    pub mtu: usize,
    /// The router's address on this link.
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix in bits, 1 to 32.
    pub prefix_len: u8,
}

/// Why a port or a route was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouterError {
    /// The port's configuration is none.
    Config(ConfigError),
    /// The port's subnet overlaps with that of the port with this address.
    Overlap(Ipv4Addr),
    /// There are 64 ports.
    TooManyPorts,
    /// The route's prefix is longer than 32 bits, or its network has bits beyond the prefix.
    Route {
        /// The network as it was given.
        network: Ipv4Addr,
        /// The prefix as it was given.
        prefix_len: u8,
    },
    /// The gateway of a route cannot be a neighbour: it is one of the router's own addresses, or
    /// no host's.
    Gateway(Ipv4Addr),
    /// There are 1,024 static routes.
    TooManyRoutes,
}

impl fmt::Display for RouterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouterError::Config(error) => error.fmt(f),
            RouterError::Overlap(address) => {
                write!(f, "the subnet overlaps with that of the port with address {address}")
            }
            RouterError::TooManyPorts => write!(f, "a router has at most {PORTS_MAX} ports"),
            RouterError::Route { network, prefix_len } => {
                write!(f, "{network}/{prefix_len} is no network")
            }
            RouterError::Gateway(address) => write!(f, "{address} cannot be a gateway"),
            RouterError::TooManyRoutes => {
                write!(f, "a router has at most {} static routes", routes::ROUTES_MAX)
            }
        }
    }
}

impl std::error::Error for RouterError {}

impl From<ConfigError> for RouterError {
    fn from(error: ConfigError) -> Self {
        RouterError::Config(error)
    }
}

/// One interface.
struct Port {
    config: PortConfig,
    /// The subnet, with the questions that can be asked of it.
    subnet: Lease,
    neighbours: Neighbours<Parked>,
    /// Frames of its own that wait for the device.
    own: VecDeque<OwnFrame>,
    own_bytes: usize,
}

impl Port {
    /// Queues a frame of the router's own; counts it if there is no room.
    fn queue(&mut self, frame: OwnFrame, counters: &mut Counters) {
        if self.own_bytes + frame.bytes.len() > OWN_BYTES_MAX {
            counters.dropped_reply_queue += 1;
            return;
        }
        self.own_bytes += frame.bytes.len();
        self.own.push_back(frame);
    }

    fn queue_arp(&mut self, to: MacAddress, packet: arp::Packet, counters: &mut Counters) {
        let mut bytes = ethernet::header(to, self.config.mac, ethernet::TYPE_ARP).to_vec();
        bytes.extend(packet.to_bytes());
        self.queue(OwnFrame { bytes, undone: Undone::default() }, counters);
    }

    /// Takes what the table of neighbours has to say, as frames.
    fn collect(&mut self, counters: &mut Counters) {
        while let Some(neighbour::Request { target, to }) = self.neighbours.take_request() {
            counters.arp_requests_sent += 1;
            let request = arp::Packet {
                operation: Operation::Request,
                sender_mac: self.config.mac,
                sender: self.config.address,
                target_mac: MacAddress([0; 6]),
                target,
            };
            self.queue_arp(to.unwrap_or(MacAddress::BROADCAST), request, counters);
        }
        while let Some((to, Parked { mut frame, is_forwarded })) = self.neighbours.take_ready() {
            frame.bytes[..6].copy_from_slice(&to.0);
            counters.forwarded_packets += u64::from(is_forwarded);
            self.queue(frame, counters);
        }
    }
}

/// See the module.
///
/// Ports are numbered from 0; a port that is detached leaves its number to the next.
///
/// A method that takes `now` must not be given an earlier time than the call before it.
pub struct Router {
    ports: Vec<Option<Port>>,
    routes: Routes,
    limits: Limits,
    keys: Keys,
    icmp: Limiters,
    /// ARP replies in all: each is a frame that a stranger made us send.
    arp_replies: Limiter,
    identifications: Identifications,
    counters: Counters,
}

impl Router {
    /// A router without ports. Of `limits` those on neighbours and ICMP count, per port and in
    /// all; `secret` as in [`Config`](crate::Config).
    pub fn new(limits: Limits, secret: [u8; 32], now: Instant) -> Router {
        let keys = Keys::new(secret);
        Router {
            ports: Vec::new(),
            routes: Routes::default(),
            icmp: Limiters::new(&limits, &keys, now),
            arp_replies: Limiter::new(
                limits.icmp_echo_replies_per_second,
                keys.random_of(Purpose::IcmpJitter, u64::MAX),
                now,
            ),
            identifications: Identifications::new(&keys),
            limits,
            keys,
            counters: Counters::default(),
        }
    }

    /// Adds a port, announces its address on its link, and returns its number.
    ///
    /// # Errors
    /// [`RouterError`].
    pub fn attach(&mut self, config: PortConfig) -> Result<usize, RouterError> {
        if !config.mac.is_unicast() {
            return Err(ConfigError::MacNotUnicast(config.mac).into());
        }
        if !(MTU_MIN..=MTU_MAX).contains(&config.mtu) {
            return Err(ConfigError::Mtu(config.mtu).into());
        }
        let (address, prefix_len) = (config.address, config.prefix_len);
        let subnet = Lease { address, prefix_len, gateway: None, dns: Vec::new() };
        check_addresses(&subnet)?;
        let overlaps = |port: &&Port| {
            port.subnet.is_on_link(address) || subnet.is_on_link(port.config.address)
        };
        if let Some(port) = self.ports.iter().flatten().find(overlaps) {
            return Err(RouterError::Overlap(port.config.address));
        }
        let number = match self.ports.iter().position(Option::is_none) {
            Some(number) => number,
            None if self.ports.len() >= PORTS_MAX => return Err(RouterError::TooManyPorts),
            None => {
                self.ports.push(None);
                self.ports.len() - 1
            }
        };
        let key = self.keys.key(Purpose::NeighbourTable);
        let mut port = Port {
            neighbours: Neighbours::new(&self.limits, key),
            own: VecDeque::new(),
            own_bytes: 0,
            subnet,
            config,
        };
        let announcement = arp::Packet {
            operation: Operation::Request,
            sender_mac: port.config.mac,
            sender: address,
            target_mac: MacAddress([0; 6]),
            target: address,
        };
        self.counters.arp_requests_sent += 1;
        port.queue_arp(MacAddress::BROADCAST, announcement, &mut self.counters);
        self.ports[number] = Some(port);
        Ok(number)
    }

    /// Removes a port with all that waits in it; nothing if there is none.
    pub fn detach(&mut self, port: usize) {
        if let Some(port) = self.ports.get_mut(port) {
            *port = None;
        }
    }

    /// Sends what is for `network` to the neighbour `gateway`, in whose subnet a port must be by
    /// then. `0.0.0.0` with a prefix of 0 bits is the default route. Replaces the route to the same
    /// network.
    ///
    /// # Errors
    /// [`RouterError`].
    pub fn add_route(
        &mut self,
        network: Ipv4Addr,
        prefix_len: u8,
        gateway: Ipv4Addr,
    ) -> Result<(), RouterError> {
        let is_ours = self.ports.iter().flatten().any(|port| port.config.address == gateway);
        if is_ours || !crate::config::is_host_address(gateway) {
            return Err(RouterError::Gateway(gateway));
        }
        self.routes.add(network, prefix_len, gateway)
    }

    /// Removes the static route to `network`; false if there is none.
    pub fn remove_route(&mut self, network: Ipv4Addr, prefix_len: u8) -> bool {
        self.routes.remove(network, prefix_len)
    }

    /// The configuration of a port.
    pub fn port(&self, port: usize) -> Option<&PortConfig> {
        Some(&self.ports.get(port)?.as_ref()?.config)
    }

    /// Does what is due. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        for number in 0..self.ports.len() {
            let Some(port) = &mut self.ports[number] else { continue };
            port.neighbours.handle_timeout(now, &mut self.counters);
            port.collect(&mut self.counters);
            self.report_failed(now, number);
        }
    }

    /// When `handle_timeout` is due. To be asked after each call of another method.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ports.iter().flatten().filter_map(|port| port.neighbours.poll_timeout()).min()
    }

    /// The next frame of the router's own for a port. To be asked, for every port, after each call
    /// of a `handle_*`.
    pub fn poll_frame(&mut self, port: usize) -> Option<OwnFrame> {
        let port = self.ports.get_mut(port)?.as_mut()?;
        let frame = port.own.pop_front()?;
        port.own_bytes -= frame.bytes.len();
        self.counters.frames_sent += 1;
        self.counters.bytes_sent += frame.bytes.len() as u64;
        Some(frame)
    }

    /// What was counted so far, and the gauges as they stand. Of the engine's counters those of
    /// frames, ARP, IPv4 and ICMP move.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        for port in self.ports.iter().flatten() {
            let (count, bytes) = port.neighbours.gauges();
            counters.neighbours += count as u64;
            counters.neighbour_parked_bytes += bytes as u64;
        }
        counters
    }
}
