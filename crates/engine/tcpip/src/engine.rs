//! [`Engine`]: the parts put together, and nothing but that.
//!
//! Input goes through `engine/input.rs` (Ethernet, IPv4, UDP), `engine/ipv6.rs`, `engine/icmp.rs` and
//! `engine/arp.rs` up to the sockets; output goes through `engine/transmit.rs` down to frames; `engine/sockets.rs` is what a
//! program calls.

mod arp;
mod flows;
mod icmp;
mod input;
#[cfg(any(test, feature = "fuzzing"))]
mod invariants;
mod ipv6;
mod link;
mod report;
mod run;
mod sockets;
mod transmit;

#[cfg(test)]
mod tests;

use crate::config::{AddressConfig, Config, ConfigError, Lease, MacAddress};
use crate::counters::Counters;
use crate::dhcp;
use crate::event::{Event, Events};
use crate::icmp::{IcmpError, Limiters};
use crate::ipv6::{Change, Ipv6};
use crate::neighbour::Neighbours;
use crate::output::{Identifications, Packet, Queue, payload_start};
use crate::reassembly::Reassembly;
use crate::routes::Routes;
use crate::secret::{Keys, Purpose};
use crate::tcp::Tcp;
use crate::time::Instant;
use crate::udp::Udp;
use crate::wire::ipv4;
use core::num::NonZeroU16;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// with what is left); only up to [`Config::segmented_frame_bytes_max`] (that of
    /// [`Ipv6Config`](crate::Ipv6Config) for IPv6), and together with
    /// `partial_checksum`.
    pub mss: Option<NonZeroU16>,
    /// The packet is IPv6's.
    pub is_ipv6: bool,
}

impl Transmit {
    /// An ordinary frame of `len` bytes, complete as it stands.
    pub(crate) const fn complete(len: usize) -> Self {
        Transmit { len, partial_checksum: None, mss: None, is_ipv6: false }
    }
}

/// For lengths of IPv4's headers.
const ANY_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// For lengths of IPv6's headers.
const ANY_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// A checksum left to the device: the complement of the sum of the frame from `start` to its end,
/// to be written at `start + offset`, where the pseudo-header's sum stands already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// First byte that is summed, counted from the start of the frame.
    pub start: u16,
    /// Where the sum belongs, counted from `start`.
    pub offset: u16,
}

/// A datagram that is being sent in fragments.
struct Fragmenting {
    to: MacAddress,
    packet: Packet,
    /// The most bytes of a fragment, headers included.
    mtu: usize,
    /// Where in the payload the next fragment begins.
    offset: usize,
}

/// The stack of one interface.
///
/// A method that takes `now` must not be given an earlier time than the call before it.
pub struct Engine {
    mac: MacAddress,
    /// The largest IP packet in bytes.
    mtu: usize,
    transmit_checksum_offload: bool,
    /// The same for IPv6.
    transmit_checksum_offload_ipv6: bool,
    /// Length of the longest frame that the device cuts; 0 if it cuts none.
    segmented_frame_bytes: usize,
    /// `None` until DHCP gives an address.
    lease: Option<Lease>,
    arp: arp::Arp,
    neighbours: Neighbours,
    /// `None`: IPv6 is not spoken.
    ipv6: Option<Box<Ipv6>>,
    /// Ways that the configuration names.
    routes: Routes,
    /// Bytes of TCP header and payload over IPv6 that the device cuts; 0 if it cuts none.
    large_segment_bytes_ipv6: usize,
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
    fragmenting: Option<Fragmenting>,
    identifications: Identifications,
    /// Streams that come in.
    flows: flows::Flows,
    /// TCP segments that may follow the last frame.
    run: Option<run::Run>,
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
            transmit_checksum_offload_ipv6: config.ipv6.transmit_checksum_offload,
            segmented_frame_bytes: config
                .segmented_frame_bytes()
                .max(config.segmented_frame_bytes_ipv6()),
            lease: None,
            arp: arp::Arp::default(),
            neighbours: Neighbours::new(limits, keys.key(Purpose::NeighbourTable)),
            ipv6: config.speaks_ipv6().then(|| {
                Box::new(Ipv6::new(config.mac, config.mtu, &config.ipv6, limits, &keys, now))
            }),
            routes: Routes::new(config.routes.clone()),
            large_segment_bytes_ipv6: config
                .segmented_frame_bytes_ipv6()
                .saturating_sub(payload_start(ANY_IPV6)),
            reassembly: Reassembly::new(limits, keys.key(Purpose::ReassemblyTable)),
            icmp: Limiters::new(limits, &keys, now),
            udp: Udp::new(limits, &keys),
            dhcp: None,
            replies: Queue::new(limits.reply_queue_bytes),
            loopback: Queue::new(limits.loopback_bytes),
            fragmenting: None,
            identifications: Identifications::new(&keys),
            flows: flows::Flows::default(),
            run: None,
            is_udps_turn: false,
            events: Events::default(),
            counters: Counters::default(),
            tcp: Tcp::new(
                limits,
                keys.clone(),
                config.mtu,
                config.segmented_frame_bytes().saturating_sub(payload_start(ANY_IPV4)),
            ),
        };
        match config.address {
            AddressConfig::Static { address, prefix_len, gateway, dns } => {
                engine.set_lease(now, Lease { address, prefix_len, gateway, dns });
            }
            AddressConfig::Off => {}
            AddressConfig::Dhcp { hostname } => {
                let client = dhcp::Client::new(config.mac, hostname, config.mtu, &keys, now);
                engine.dhcp = Some(client);
            }
        }
        engine.tcp.set_ipv6(engine.mtu, engine.large_segment_bytes_ipv6);
        Ok(engine)
    }

    /// Does what is due. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run = None;
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
        self.handle_ipv6_timeout(now);
        self.tcp.path_mtus_mut().handle_timeout(now);
        self.tcp.handle_timeout(now);
        while let Some(peer) = self.tcp.take_silent() {
            self.suspect(now, peer);
        }
    }

    /// TCP's segments to `peer` are not answered: perhaps the way there is gone.
    fn suspect(&mut self, now: Instant, peer: IpAddr) {
        if let transmit::Route::Neighbour(next) = self.route(now, peer) {
            match (next, &mut self.ipv6) {
                (IpAddr::V4(next), _) => self.neighbours.suspect(now, next),
                (IpAddr::V6(next), Some(ipv6)) => ipv6.neighbours.suspect(now, next),
                (IpAddr::V6(_), None) => {}
            }
        }
    }

    /// TCP's segments to `peer` are answered, so whoever passes them on is there.
    fn confirm(&mut self, now: Instant, peer: IpAddr) {
        if peer.is_ipv6()
            && let transmit::Route::Neighbour(IpAddr::V6(next)) = self.route(now, peer)
            && let Some(ipv6) = &mut self.ipv6
        {
            ipv6.neighbours.confirm(now, next);
        }
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
        deadline = earlier(deadline, self.ipv6.as_ref().and_then(|ipv6| ipv6.poll_timeout()));
        deadline = earlier(deadline, self.reassembly.poll_timeout());
        deadline = earlier(deadline, self.tcp.path_mtus().poll_timeout());
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
        counters.path_mtus = self.tcp.path_mtus().len() as u64;
        if let Some(ipv6) = &self.ipv6 {
            let (neighbours, bytes) = as_u64(ipv6.neighbours.gauges());
            counters.neighbours += neighbours;
            counters.neighbour_parked_bytes += bytes;
            counters.ipv6_addresses = ipv6.addresses.iter().count() as u64;
            (counters.ipv6_routers, counters.ipv6_prefixes) = as_u64(ipv6.routers.gauges());
        }
        counters
    }

    /// The interface's IPv4 address and what came with it, once it has one.
    pub fn lease(&self) -> Option<Lease> {
        self.lease.clone()
    }

    /// The IPv6 addresses that may be used now, with the lengths of their prefixes in bits; none
    /// whose uniqueness is still being found out.
    pub fn ipv6_addresses(&self) -> Vec<(Ipv6Addr, u8)> {
        let of = |ipv6: &Ipv6| {
            ipv6.addresses.assigned().map(|ours| (ours.address, ours.prefix_len)).collect()
        };
        self.ipv6.as_deref().map(of).unwrap_or_default()
    }

    /// The address by which others know the interface best: IPv4's, else one of IPv6's; a
    /// link-local one only if the configuration leaves nothing better to wait for.
    pub fn address(&self) -> Option<IpAddr> {
        let ipv4 = self.lease.as_ref().map(|lease| lease.address.into());
        ipv4.or_else(|| {
            let ipv6 = self.ipv6.as_ref()?;
            let may_be_local = self.dhcp.is_none() && !ipv6.awaits_source();
            let mut addresses = ipv6.addresses.assigned().map(|ours| ours.address);
            let is_good = |address: &Ipv6Addr| !address.is_unicast_link_local();
            let global = addresses.find(is_good);
            let local = ipv6.addresses.assigned().next().filter(|_| may_be_local);
            global.or(local.map(|ours| ours.address)).map(IpAddr::V6)
        })
    }

    /// True if there is no way to `destination` yet, but there may be one soon: an address or a
    /// router was asked for.
    /// [`Event::AddressChanged`] tells when to look again.
    pub fn awaits_way(&self, now: Instant, destination: IpAddr) -> bool {
        let has_way = self.source_for(now, destination).is_some()
            && self.route(now, destination) != transmit::Route::None;
        !has_way
            && match destination {
                IpAddr::V4(_) => self.dhcp.is_some() && self.lease.is_none(),
                IpAddr::V6(_) => self.ipv6.as_ref().is_some_and(|ipv6| ipv6.awaits_source()),
            }
    }

    /// The name servers that the configuration, a DHCP server and routers name.
    pub fn dns(&self) -> Vec<IpAddr> {
        let ipv4 = self.lease.iter().flat_map(|lease| &lease.dns).map(|server| (*server).into());
        let ipv6 = self.ipv6.as_deref().map(Ipv6::dns).unwrap_or_default();
        ipv4.chain(ipv6.into_iter().map(IpAddr::V6)).collect()
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
        self.flows = flows::Flows::default();
        self.events.push(Event::AddressChanged);
    }

    /// Stops using the address: everything that is bound to it ends (RFC 2131 §4.4.5).
    fn lose_lease(&mut self, now: Instant) {
        let Some(lease) = self.lease.take() else { return };
        self.neighbours.clear();
        self.arp.stop();
        self.forget(now, lease.address.into());
    }

    /// An address is gone, and what is bound to it with it; the other addresses' flows go on.
    fn forget(&mut self, now: Instant, address: IpAddr) {
        self.tcp.handle_address_lost(now, address);
        self.udp.handle_address_lost(address, &mut self.events);
        self.reassembly.forget(address);
        self.replies.forget(address);
        self.fragmenting.take_if(|fragmenting| fragmenting.packet.header.source == address);
        self.events.push(Event::AddressChanged);
    }

    /// Does what is due of IPv6, and takes over what became of addresses and links.
    fn handle_ipv6_timeout(&mut self, now: Instant) {
        let Some(ipv6) = &mut self.ipv6 else { return };
        ipv6.handle_timeout(now, &mut self.counters);
        while let Some(silent) = self.ipv6.as_mut().and_then(|ipv6| ipv6.take_silent()) {
            self.routes.note_failure(now, silent.into());
        }
        self.take_ipv6_changes(now);
        self.report_failed_neighbours(now);
    }

    fn take_ipv6_changes(&mut self, now: Instant) {
        let Some(ipv6) = &mut self.ipv6 else { return };
        self.tcp.set_ipv6(ipv6.mtu(), self.large_segment_bytes_ipv6);
        while let Some(change) = self.ipv6.as_mut().and_then(|ipv6| ipv6.take_change()) {
            match change {
                Change::Assigned(_) | Change::Ways => self.events.push(Event::AddressChanged),
                // Nobody has used it yet.
                Change::Duplicate(_) => {}
                Change::Lost(address) => {
                    if let Some(ipv6) = &mut self.ipv6 {
                        ipv6.neighbours.forget(address);
                    }
                    self.forget(now, address.into());
                }
            }
        }
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
        while let Some(silent) = self.neighbours.take_silent() {
            self.routes.note_failure(now, silent.into());
        }
        loop {
            let failed = self.neighbours.take_failed();
            let failed =
                failed.or_else(|| self.ipv6.as_mut().and_then(|v6| v6.neighbours.take_failed()));
            let Some(Packet { header, payload, .. }) = failed else { return };
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
