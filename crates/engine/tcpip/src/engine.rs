//! [`Engine`]: the parts put together, and nothing but that.
//!
//! Input goes through `engine/input.rs` (Ethernet, IPv4, ICMP, UDP) and `engine/arp.rs` up to the
//! sockets; output goes through `engine/transmit.rs` down to frames; `engine/sockets.rs` is what a
//! program calls.

mod arp;
mod input;
#[cfg(any(test, feature = "fuzzing"))]
mod invariants;
mod link;
mod report;
mod sockets;
mod transmit;

#[cfg(test)]
mod tests;

use crate::config::{AddressConfig, Config, ConfigError, Lease, MacAddress};
use crate::counters::Counters;
use crate::dhcp;
use crate::event::{Event, Events};
use crate::icmp::{IcmpError, Limiters};
use crate::neighbour::Neighbours;
use crate::output::{Identifications, Packet, Queue, payload_start};
use crate::reassembly::Reassembly;
use crate::secret::{Keys, Purpose};
use crate::tcp::Tcp;
use crate::time::Instant;
use crate::udp::Udp;
use crate::wire::ipv4;
use core::num::NonZeroU16;
use std::net::{IpAddr, Ipv4Addr};

/// What the device says of the transport checksum of a frame that it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameChecksum {
    /// Nothing: the sum in the frame is verified here.
    Unverified,
    /// The device verified the sum in the frame.
    Verified,
    /// The frame never left this host, so its sum is not filled in, and its data is trusted.
    Blank,
}

/// A frame that was written into the buffer given to `poll_transmit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Length of the frame in bytes, from the Ethernet header on, without FCS.
    pub len: usize,
    /// Where the device must finish a checksum; only with
    /// [`Config::transmit_checksum_offload`].
    pub partial_checksum: Option<PartialChecksum>,
    /// The device must cut the frame into TCP segments with so many bytes of payload each (the last
    /// with what is left); only up to [`Config::segmented_frame_bytes_max`], and together with
    /// `partial_checksum`.
    pub mss: Option<NonZeroU16>,
}

impl Transmit {
    /// An ordinary frame of `len` bytes, complete as it stands.
    pub(crate) const fn complete(len: usize) -> Self {
        Transmit { len, partial_checksum: None, mss: None }
    }
}

/// A checksum left to the device: the complement of the sum of the frame from `start` to its end,
/// to be written at `start + offset`, where the pseudo-header's sum stands already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// First byte that is summed, counted from the start of the frame.
    pub start: u16,
    /// Where the sum belongs, counted from `start`.
    pub offset: u16,
}

/// The stack of one interface.
///
/// A method that takes `now` must not be given an earlier time than the call before it.
pub struct Engine {
    mac: MacAddress,
    /// The largest IP packet in bytes.
    mtu: usize,
    transmit_checksum_offload: bool,
    /// Length of the longest frame that the device cuts; 0 if it cuts none.
    segmented_frame_bytes: usize,
    /// `None` until DHCP gives an address.
    lease: Option<Lease>,
    arp: arp::Arp,
    neighbours: Neighbours,
    reassembly: Reassembly,
    icmp: Limiters,
    udp: Udp,
    tcp: Tcp,
    dhcp: Option<dhcp::Client>,
    /// ICMP messages that wait for the device.
    replies: Queue,
    /// Packets to ourselves; received by the next `handle_timeout`, which is due at once.
    loopback: Queue,
    /// A datagram that is being sent in fragments, and where its next one begins.
    fragmenting: Option<(MacAddress, Packet, usize)>,
    identifications: Identifications,
    /// UDP has the next turn, otherwise TCP.
    is_udps_turn: bool,
    /// Events of everything but TCP, which has its own queue.
    events: Events,
    /// Counters of everything but TCP, which has its own.
    counters: Counters,
}

impl Engine {
    /// A stack for an interface that starts at `now`.
    ///
    /// # Errors
    /// [`ConfigError`], naming the field.
    pub fn new(config: Config, now: Instant) -> Result<Engine, ConfigError> {
        config.check()?;
        let limits = &config.limits;
        let keys = Keys::new(config.secret);
        let mut engine = Engine {
            mac: config.mac,
            mtu: config.mtu,
            transmit_checksum_offload: config.transmit_checksum_offload,
            segmented_frame_bytes: config.segmented_frame_bytes(),
            lease: None,
            arp: arp::Arp::default(),
            neighbours: Neighbours::new(limits, keys.key(Purpose::NeighbourTable)),
            reassembly: Reassembly::new(limits, keys.key(Purpose::ReassemblyTable)),
            icmp: Limiters::new(limits, &keys, now),
            udp: Udp::new(limits, &keys),
            dhcp: None,
            replies: Queue::new(limits.reply_queue_bytes),
            loopback: Queue::new(limits.loopback_bytes),
            fragmenting: None,
            identifications: Identifications::new(&keys),
            is_udps_turn: false,
            events: Events::default(),
            counters: Counters::default(),
            tcp: Tcp::new(
                limits,
                keys.clone(),
                config.mtu,
                config
                    .segmented_frame_bytes()
                    .saturating_sub(payload_start(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
            ),
        };
        match config.address {
            AddressConfig::Static { address, prefix_len, gateway, dns } => {
                engine.set_lease(now, Lease { address, prefix_len, gateway, dns });
            }
            AddressConfig::Dhcp { hostname } => {
                let client = dhcp::Client::new(config.mac, hostname, config.mtu, &keys, now);
                engine.dhcp = Some(client);
            }
        }
        Ok(engine)
    }

    /// Does what is due. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.receive_loopback(now);
        if let Some(client) = &mut self.dhcp {
            let change = client.handle_timeout(now, &mut self.counters);
            self.apply(now, change);
        }
        self.arp.handle_timeout(now);
        self.neighbours.handle_timeout(now, &mut self.counters);
        self.report_failed_neighbours(now);
        while let Some(expired) = self.reassembly.take_expired(now, &mut self.counters) {
            self.report_expired_datagram(now, &expired);
        }
        self.tcp.handle_timeout(now);
    }

    /// When `handle_timeout` is due; at once if it is in the past. To be asked after each call of
    /// another method.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.loopback.is_empty() {
            return Some(Instant::ZERO);
        }
        let earlier = |a: Option<Instant>, b: Option<Instant>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (deadline, None) | (None, deadline) => deadline,
        };
        let mut deadline = earlier(self.tcp.poll_timeout(), self.neighbours.poll_timeout());
        deadline = earlier(deadline, self.arp.poll_timeout());
        deadline = earlier(deadline, self.reassembly.poll_timeout());
        earlier(deadline, self.dhcp.as_ref().and_then(dhcp::Client::poll_timeout))
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.tcp.poll_event().or_else(|| self.events.pop())
    }

    /// What was counted so far, and the gauges as they stand.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.plus(&self.tcp.counters());
        let as_u64 = |(count, bytes): (usize, usize)| (count as u64, bytes as u64);
        (counters.neighbours, counters.neighbour_parked_bytes) = as_u64(self.neighbours.gauges());
        (counters.reassembly_datagrams, counters.reassembly_bytes) =
            as_u64(self.reassembly.gauges());
        (counters.udp_sockets, counters.udp_queued_bytes) = as_u64(self.udp.gauges());
        counters
    }

    /// The interface's address and what came with it, once it has one.
    pub fn lease(&self) -> Option<Lease> {
        self.lease.clone()
    }

    /// Uses an address from now on.
    fn set_lease(&mut self, now: Instant, lease: Lease) {
        if self.lease.as_ref() == Some(&lease) {
            return;
        }
        if let Some(old) = &self.lease
            && old.address != lease.address
        {
            self.lose_lease(now);
        }
        if self.lease.is_none() {
            self.arp.start_probing(now);
        }
        self.lease = Some(lease);
        self.events.push(Event::AddressChanged);
    }

    /// Stops using the address: everything that is bound to it ends (RFC 2131 §4.4.5).
    fn lose_lease(&mut self, now: Instant) {
        let Some(lease) = self.lease.take() else { return };
        let address = IpAddr::V4(lease.address);
        self.tcp.handle_address_lost(now, address);
        self.udp.handle_address_lost(address, &mut self.events);
        self.neighbours.clear();
        self.reassembly.forget(address);
        self.replies.forget(address);
        self.fragmenting.take_if(|(_, packet, _)| packet.header.source == address);
        self.arp.stop();
        self.events.push(Event::AddressChanged);
    }

    /// Does what the DHCP client decided.
    fn apply(&mut self, now: Instant, change: Option<dhcp::Change>) {
        match change {
            Some(dhcp::Change::Bound(lease)) => self.set_lease(now, lease),
            Some(dhcp::Change::Lost) => self.lose_lease(now),
            None => {}
        }
    }

    /// Tells TCP that a neighbour did not answer, as a router would (RFC 1122 §2.3.2.2).
    fn report_failed_neighbours(&mut self, now: Instant) {
        while let Some(Packet { header, payload, .. }) = self.neighbours.take_failed() {
            if header.protocol == ipv4::PROTOCOL_TCP {
                self.tcp.handle_icmp_error(
                    now,
                    IcmpError::NeighbourUnreachable,
                    header.source,
                    header.destination,
                    &payload,
                );
            }
        }
    }
}
