//! What an engine is told once, at its start: who it is on the link, and how much it may hold.
//!
//! Every limit is a number with a reason. A limit that was reached shows in [`Counters`](crate::Counters).

use crate::wire::{ethernet, ipv6};
use core::fmt;
use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The smallest MTU that IPv4 allows on a link, in bytes (RFC 791 §3.2, "every internet module must
/// be able to forward a datagram of 68 octets").
pub(crate) const MTU_MIN: usize = 68;

/// The largest IPv4 datagram, in bytes: its total length field has 16 bits (RFC 791 §3.1).
pub(crate) const MTU_MAX: usize = 65_535;

/// An EUI-48 address, first byte on the wire first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address that every interface listens to.
    pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);

    /// True if this address names one interface: the group bit of the first byte is clear, and it
    /// is not all zero.
    pub const fn is_unicast(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        a & 1 == 0 && (a | b | c | d | e | f) != 0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the interface's IPv4 address comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressConfig {
    /// A DHCP server on the link gives it (RFC 2131).
    Dhcp {
        /// Name to tell the server (option 12), at most 63 bytes of letters, digits, `-` and `.`.
        hostname: Option<String>,
    },
    /// There is none: the interface speaks no IPv4.
    Off,
    /// It is given here.
    Static {
        /// The interface's own address; unicast.
        address: Ipv4Addr,
        /// Length of the subnet's prefix in bits, 1 to 32.
        prefix_len: u8,
        /// The router for everything outside the subnet; inside the subnet (unless its prefix has
        /// 32 bits), and not `address`.
        gateway: Option<Ipv4Addr>,
        /// Name servers; the engine only passes them on in [`Lease::dns`].
        dns: Vec<Ipv4Addr>,
    },
}

/// How the interface speaks IPv6, beside a link-local address that it always makes itself. Its
/// identifiers are opaque (RFC 7217): nothing of the hardware shows in an address.
#[derive(Clone, PartialEq, Eq)]
pub struct Ipv6Config {
    /// False: not at all. So it is, too, on a link whose MTU is below 1,280 bytes.
    pub is_enabled: bool,
    /// Routers on the link are asked for prefixes, of which addresses are made (SLAAC, RFC 4862),
    /// and for the way out. False: what they say is ignored.
    pub is_autoconfigured: bool,
    /// Further addresses with the lengths of their prefixes in bits, 1 to 128; the prefix is on the
    /// link. At most 8.
    pub addresses: Vec<(Ipv6Addr, u8)>,
    /// Name servers, beside those that routers name (RFC 8106).
    pub dns: Vec<Ipv6Addr>,
    /// From this secret and the network's id the interface's identifiers are made, so that a host
    /// has the same address on the same network each time (RFC 7217 §5). `None`: from
    /// [`Config::secret`], so that it has another one at each start.
    pub stable_secret: Option<[u8; 32]>,
    /// What tells the network from others, such as its name; may be empty.
    pub network_id: Vec<u8>,
    /// The device finishes the checksums of TCP and UDP over IPv6.
    pub transmit_checksum_offload: bool,
    /// The same as [`Config::segmented_frame_bytes_max`] for TCP over IPv6.
    pub segmented_frame_bytes_max: usize,
}

impl Default for Ipv6Config {
    /// SLAAC, without offloads.
    fn default() -> Self {
        Ipv6Config {
            is_enabled: true,
            is_autoconfigured: true,
            addresses: Vec::new(),
            dns: Vec::new(),
            stable_secret: None,
            network_id: Vec::new(),
            transmit_checksum_offload: false,
            segmented_frame_bytes_max: 0,
        }
    }
}

impl Ipv6Config {
    /// No IPv6.
    pub fn off() -> Self {
        Ipv6Config { is_enabled: false, ..Ipv6Config::default() }
    }
}

impl fmt::Debug for Ipv6Config {
    /// All but the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ipv6Config")
            .field("is_enabled", &self.is_enabled)
            .field("is_autoconfigured", &self.is_autoconfigured)
            .field("addresses", &self.addresses)
            .field("dns", &self.dns)
            .field("network_id", &self.network_id)
            .finish_non_exhaustive()
    }
}

/// A way that the configuration names: what is in a prefix goes to a router on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// The prefix; bits behind its length are 0.
    pub destination: IpAddr,
    /// Its length in bits; 0 is everything.
    pub prefix_len: u8,
    /// The router, of the same family, on the link. For IPv6 that is a link-local address or one in
    /// a configured prefix, or, with autoconfiguration, one that a router's prefix puts there.
    pub gateway: IpAddr,
}

impl fmt::Display for StaticRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} via {}", self.destination, self.prefix_len, self.gateway)
    }
}

/// The interface's IPv4 address and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The interface's own address.
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix in bits.
    pub prefix_len: u8,
    /// The router for everything outside the subnet.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
}

impl Lease {
    /// The subnet's mask as a number in host order.
    const fn mask(prefix_len: u8) -> u32 {
        match prefix_len {
            0 => 0,
            1..=31 => u32::MAX << (32 - prefix_len),
            _ => u32::MAX,
        }
    }

    /// True if `other` is in the interface's subnet.
    pub(crate) fn is_on_link(&self, other: Ipv4Addr) -> bool {
        (self.address.to_bits() ^ other.to_bits()) & Self::mask(self.prefix_len) == 0
    }

    /// The subnet's directed broadcast address. A /31 (RFC 3021) and a /32 have none.
    pub(crate) fn broadcast(&self) -> Option<Ipv4Addr> {
        (self.prefix_len < 31)
            .then(|| Ipv4Addr::from_bits(self.address.to_bits() | !Self::mask(self.prefix_len)))
    }

    /// The subnet's number, which some old hosts use as a broadcast address (RFC 1122 §3.2.1.3).
    pub(crate) fn network(&self) -> Option<Ipv4Addr> {
        (self.prefix_len < 31)
            .then(|| Ipv4Addr::from_bits(self.address.to_bits() & Self::mask(self.prefix_len)))
    }
}

/// How a TCP sender finds out how much the path takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CongestionControl {
    /// RFC 9438: the window follows the time since the last loss. What nearly everybody uses, and on
    /// long fast paths the faster of the two.
    #[default]
    Cubic,
    /// RFC 5681: one segment more for each round trip, half after a loss.
    NewReno,
}

impl core::str::FromStr for CongestionControl {
    type Err = UnknownCongestionControl;

    /// By its name in lower case.
    ///
    /// # Errors
    /// [`UnknownCongestionControl`] for any other name.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "cubic" => Ok(CongestionControl::Cubic),
            "newreno" => Ok(CongestionControl::NewReno),
            _ => Err(UnknownCongestionControl),
        }
    }
}

/// No [`CongestionControl`] has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCongestionControl;

impl fmt::Display for UnknownCongestionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown congestion control; known are cubic and newreno")
    }
}

impl std::error::Error for UnknownCongestionControl {}

/// Ceilings of everything that a peer or a program can make the engine hold or send.
///
/// Counts are numbers of objects, sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections, from the handshake's end to the close's end. Past it, a SYN is dropped and
    /// `tcp_connect` fails. Default 16,384: an idle connection has no buffers, so this is about
    /// 10 MiB of control blocks, for the 10,000 idle clients of a busy server with room to spare.
    pub tcp_connections: usize,
    /// Handshakes that wait for the third segment. Past it, SYN cookies take over. Default 1,024:
    /// at one minute per spoofed SYN a table of any size fills, so it only needs to hold the
    /// honest ones of one round trip (RFC 4987 §3).
    pub tcp_half_open: usize,
    /// Closed connections that linger for 2 MSL. Past it the oldest goes. Default 4,096.
    pub tcp_time_wait: usize,
    /// Length of TIME-WAIT. Default 60 s, twice an MSL of 30 s (RFC 9293 §3.4.1 names two minutes
    /// as MSL and calls it an engineering choice).
    pub tcp_time_wait_duration: Duration,
    /// How long `tcp_connect` tries. Default 180 s (RFC 9293 §3.8.3, MUST-23: at least that).
    pub tcp_connect_timeout: Duration,
    /// How long a peer may owe an answer before its connection ends: the user timeout of RFC 9293
    /// §3.9.1, five minutes by default. A closed window is no silence, as long as probes are
    /// answered.
    pub tcp_user_timeout: Duration,
    /// How long a connection that the program has released waits for the peer's FIN. Default 60 s,
    /// as everywhere: RFC 1122 §4.2.2.13 knows no limit, and every server needs one.
    pub tcp_fin_wait_2_timeout: Duration,
    /// Listening sockets. Default 1,024.
    pub tcp_listeners: usize,
    /// Largest backlog of a listener: connections that are established and not accepted. Default
    /// 1,024; `tcp_listen`'s own number is cut to it.
    pub tcp_accept_backlog: usize,
    /// Received bytes that one connection holds until the program reads them, at most; the receive
    /// window grows up to it with the rate at which the program reads. Default 4 MiB: 330 Mbit/s at
    /// 100 ms.
    pub tcp_receive_bytes: usize,
    /// The receive window that a connection begins with; no more than `tcp_receive_bytes` counts.
    /// Default 1 MiB: 400 Mbit/s at 20 ms; and a sender on the same machine that fills it sleeps and
    /// is woken less than half as often as with 256 KiB, which under Xen is what a stream costs most.
    pub tcp_receive_bytes_initial: usize,
    /// Written bytes that one connection holds until they are acknowledged, at most; it follows the
    /// congestion window, twice as large. Default 4 MiB: see `tcp_receive_bytes`.
    pub tcp_send_bytes: usize,
    /// Written bytes that one connection may hold whatever its congestion window; no more than
    /// `tcp_send_bytes` counts. Default 1 MiB.
    pub tcp_send_bytes_initial: usize,
    /// Received and written bytes that all connections hold together. Past it, windows close and
    /// writes wait; of the last quarter no connection gets more than 16 KiB for either direction.
    /// Default 16 MiB.
    pub tcp_total_bytes: usize,
    /// Separate ranges of out-of-order data that one connection holds. Past it the farthest goes.
    /// Default 256: a loss for every third segment of a window of 1 MiB.
    pub tcp_out_of_order_ranges: usize,
    /// How TCP senders find out how much their paths take. Default CUBIC.
    pub tcp_congestion: CongestionControl,
    /// RSTs per second that answer segments of no connection. Default 200.
    pub tcp_resets_per_second: u32,
    /// UDP sockets. Default 1,024.
    pub udp_sockets: usize,
    /// Received bytes that one UDP socket holds, each datagram counted with a fixed overhead. Past
    /// it the newest datagram is dropped. Default 256 KiB: four datagrams of the largest size.
    pub udp_receive_bytes: usize,
    /// Bytes that one UDP socket has waiting for transmission; and all closed ones together. Past it
    /// `udp_send` says to wait, and what closed sockets leave is dropped. Default 256 KiB.
    pub udp_send_bytes: usize,
    /// Bytes of incomplete datagrams. Past it, one of the source that holds most is dropped.
    /// Default 256 KiB: four datagrams of the largest size.
    pub reassembly_bytes: usize,
    /// Incomplete datagrams. Default 64.
    pub reassembly_datagrams: usize,
    /// Incomplete datagrams of one source. Default 8: what a window of NFS or DNS over UDP needs,
    /// and an eighth of the table.
    pub reassembly_datagrams_per_source: usize,
    /// How long a datagram may stay incomplete. Default 60 s (RFC 1122 §3.3.2 asks 60 s to 120 s).
    pub reassembly_timeout: Duration,
    /// Neighbours whose hardware address is known or asked for, of each family. Default 256: a /24.
    pub neighbours: usize,
    /// Neighbours that were asked for and have not answered, of `neighbours`. Default 64, so that
    /// a scan of the subnet leaves the others their place.
    pub neighbours_unresolved: usize,
    /// Packets that wait for one neighbour's hardware address; the newest are kept (RFC 1122
    /// §2.3.2.2 asks for at least one). Default 3.
    pub neighbour_parked_packets: usize,
    /// Bytes of packets that wait for any neighbour's hardware address. Default 128 KiB: one packet
    /// of 1,500 bytes for each of `neighbours_unresolved`, and some.
    pub neighbour_parked_bytes: usize,
    /// Routers that advertise themselves (RFC 4861 §6.3.4). Past it new ones take the place of those
    /// that do not answer, or are ignored. Default 4: two are needed for one to fail.
    pub ipv6_routers: usize,
    /// Prefixes on the link that routers advertise. Past it a router that answers takes the place of
    /// those that do not, or its share; others are ignored. Default 8: what renumbering and a few
    /// providers need.
    pub ipv6_prefixes: usize,
    /// IPv6 addresses of the interface. Past it advertised prefixes make new ones as it is with
    /// `ipv6_prefixes`. Default 16 (RFC 7934 §7 names as many).
    pub ipv6_addresses: usize,
    /// Destinations whose path takes less than the link. Past it the oldest is forgotten, and found
    /// out again when it is needed. Default 256; none is kept for longer than ten minutes (RFC 8201
    /// §5.3).
    pub path_mtus: usize,
    /// ICMP errors sent per second. Default 100 (RFC 1812 §4.3.2.8 asks for a limit).
    pub icmp_errors_per_second: u32,
    /// ICMP echo replies sent per second. Default 1,000: a flood of pings must not take the
    /// link from TCP.
    pub icmp_echo_replies_per_second: u32,
    /// Bytes of ICMP messages that wait for the device. Default 128 KiB: an echo reply of the
    /// largest size, and some.
    pub reply_queue_bytes: usize,
    /// Bytes of packets to ourselves that wait to be received. Default 1 MiB: the windows of a few
    /// connections.
    pub loopback_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            tcp_connections: 16_384,
            tcp_half_open: 1_024,
            tcp_time_wait: 4_096,
            tcp_time_wait_duration: Duration::from_secs(60),
            tcp_connect_timeout: Duration::from_secs(180),
            tcp_user_timeout: Duration::from_secs(300),
            tcp_fin_wait_2_timeout: Duration::from_secs(60),
            tcp_listeners: 1_024,
            tcp_accept_backlog: 1_024,
            tcp_receive_bytes: 4 * 1024 * 1024,
            tcp_receive_bytes_initial: 1024 * 1024,
            tcp_send_bytes: 4 * 1024 * 1024,
            tcp_send_bytes_initial: 1024 * 1024,
            tcp_total_bytes: 16 * 1024 * 1024,
            tcp_out_of_order_ranges: 256,
            tcp_congestion: CongestionControl::Cubic,
            tcp_resets_per_second: 200,
            udp_sockets: 1_024,
            udp_receive_bytes: 256 * 1024,
            udp_send_bytes: 256 * 1024,
            reassembly_bytes: 256 * 1024,
            reassembly_datagrams: 64,
            reassembly_datagrams_per_source: 8,
            reassembly_timeout: Duration::from_secs(60),
            neighbours: 256,
            neighbours_unresolved: 64,
            neighbour_parked_packets: 3,
            neighbour_parked_bytes: 128 * 1024,
            ipv6_routers: 4,
            ipv6_prefixes: 8,
            ipv6_addresses: 16,
            path_mtus: 256,
            icmp_errors_per_second: 100,
            icmp_echo_replies_per_second: 1_000,
            reply_queue_bytes: 128 * 1024,
            loopback_bytes: 1024 * 1024,
        }
    }
}

/// What an engine is told once, at its start.
#[derive(Clone)]
pub struct Config {
    /// The interface's own hardware address; unicast.
    pub mac: MacAddress,
    /// The largest IP packet of the link in bytes, 68 to 65,535.
    pub mtu: usize,
    /// Where the IPv4 address comes from.
    pub address: AddressConfig,
    /// How IPv6 is spoken.
    pub ipv6: Ipv6Config,
    /// Ways beside the interface's own subnets and its gateway, for both families. At most 64. The
    /// longest prefix wins; of equal ones the first whose router answers.
    pub routes: Vec<StaticRoute>,
    /// Randomness from a cryptographic generator, other at each start. Keys sequence numbers,
    /// ports, cookies, hash tables and transaction ids, each with a key of its own.
    pub secret: [u8; 32],
    /// The device finishes the checksums of TCP and UDP
    /// ([`Transmit::partial_checksum`](crate::Transmit::partial_checksum)).
    pub transmit_checksum_offload: bool,
    /// Length of the longest frame of TCP over IPv4 that the device cuts into segments
    /// ([`Transmit::mss`](crate::Transmit::mss)), in bytes from the Ethernet header on; 0 if it
    /// cuts none. Means nothing without `transmit_checksum_offload`; more than 65,549 bytes (an IP
    /// packet's most) are never asked of it.
    pub segmented_frame_bytes_max: usize,
    /// Ceilings.
    pub limits: Limits,
}

impl fmt::Debug for Config {
    /// All but the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("mac", &self.mac)
            .field("mtu", &self.mtu)
            .field("address", &self.address)
            .field("ipv6", &self.ipv6)
            .field("routes", &self.routes)
            .field("transmit_checksum_offload", &self.transmit_checksum_offload)
            .field("segmented_frame_bytes_max", &self.segmented_frame_bytes_max)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Why a [`Config`] was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The interface's hardware address is a group's, or zero.
    MacNotUnicast(MacAddress),
    /// The MTU is not in 68..=65535 bytes.
    Mtu(usize),
    /// The static address cannot be a host's: unspecified, loopback, multicast, reserved, or its
    /// subnet's number or broadcast address.
    Address(Ipv4Addr),
    /// The prefix's length is not in 1..=32.
    PrefixLen(u8),
    /// The gateway is the interface's own address, outside its subnet, or no host's address.
    Gateway(Ipv4Addr),
    /// The host name is empty, longer than 63 bytes, or has another character than letters, digits,
    /// `-` and `.`.
    Hostname(String),
    /// IPv6 addresses are configured on a link whose MTU, in bytes, is below 1,280 (RFC 8200 §5).
    Ipv6Mtu(usize),
    /// The IPv6 address cannot be a host's, or is there twice.
    Ipv6Address(Ipv6Addr),
    /// The length of this IPv6 address's prefix is not in 1..=128.
    Ipv6PrefixLen(Ipv6Addr, u8),
    /// More than 8 IPv6 addresses, or more than 64 routes; the text names which.
    TooMany(&'static str),
    /// The route cannot be; the text says why.
    Route(StaticRoute, &'static str),
    /// A limit is too small for the engine to work at all; the text names it and its least value.
    Limit(&'static str),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::MacNotUnicast(mac) => {
                write!(f, "{mac} cannot be an interface's hardware address")
            }
            ConfigError::Mtu(mtu) => {
                write!(f, "the MTU of {mtu} bytes is not between {MTU_MIN} and {MTU_MAX}")
            }
            ConfigError::Address(address) => write!(f, "{address} cannot be a host's address"),
            ConfigError::PrefixLen(bits) => {
                write!(f, "the prefix length {bits} is not between 1 and 32")
            }
            ConfigError::Gateway(gateway) => {
                write!(f, "the gateway {gateway} is not another host of the interface's subnet")
            }
            ConfigError::Hostname(name) => write!(f, "{name:?} cannot be a host's name"),
            ConfigError::Ipv6Mtu(mtu) => {
                write!(f, "the MTU of {mtu} bytes is too small for IPv6, which needs 1280")
            }
            ConfigError::Ipv6Address(address) => {
                write!(f, "{address} cannot be a host's address, or is there twice")
            }
            ConfigError::Ipv6PrefixLen(address, bits) => {
                write!(f, "{address}: the prefix length {bits} is not between 1 and 128")
            }
            ConfigError::TooMany(what) => write!(f, "too many {what}"),
            ConfigError::Route(route, why) => write!(f, "the route {route}: {why}"),
            ConfigError::Limit(which) => write!(f, "limit too small: {which}"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// True if `address` can be one host's, anywhere (RFC 1122 §3.2.1.3): not in 0/8, 127/8, 224/4 and
/// 240/4. Whether it is a subnet's broadcast address takes a prefix to say.
pub(crate) fn is_host_address(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

impl Config {
    /// Length of the longest frame that may be left to the device to cut; 0 for none.
    pub(crate) fn segmented_frame_bytes(&self) -> usize {
        self.worthwhile(self.transmit_checksum_offload, self.segmented_frame_bytes_max)
    }

    /// The same for IPv6.
    pub(crate) fn segmented_frame_bytes_ipv6(&self) -> usize {
        let Ipv6Config { transmit_checksum_offload, segmented_frame_bytes_max, .. } = self.ipv6;
        self.worthwhile(transmit_checksum_offload, segmented_frame_bytes_max)
    }

    fn worthwhile(&self, has_checksums: bool, frame_bytes_max: usize) -> usize {
        let most = frame_bytes_max.min(ethernet::HEADER_LEN + MTU_MAX);
        // It must be worth it: else a frame is cut here, by sending less.
        if has_checksums && most > ethernet::HEADER_LEN + self.mtu { most } else { 0 }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`], naming the field.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if !self.mac.is_unicast() {
            return Err(ConfigError::MacNotUnicast(self.mac));
        }
        if !(MTU_MIN..=MTU_MAX).contains(&self.mtu) {
            return Err(ConfigError::Mtu(self.mtu));
        }
        match &self.address {
            AddressConfig::Dhcp { hostname: Some(name) } => {
                let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
                if name.is_empty() || name.len() > 63 || !name.bytes().all(good) {
                    return Err(ConfigError::Hostname(name.clone()));
                }
            }
            AddressConfig::Dhcp { hostname: None } | AddressConfig::Off => {}
            AddressConfig::Static { address, prefix_len, gateway, dns } => {
                check_addresses(&Lease {
                    address: *address,
                    prefix_len: *prefix_len,
                    gateway: *gateway,
                    dns: dns.clone(),
                })?;
            }
        }
        self.check_ipv6()?;
        self.check_routes()?;
        self.limits.check()
    }
}

/// Most IPv6 addresses of a configuration.
const IPV6_ADDRESSES_MAX: usize = 8;
/// Most routes of a configuration: a lookup walks through them.
const ROUTES_MAX: usize = 64;

impl Config {
    /// Whether IPv6 is spoken.
    pub(crate) fn speaks_ipv6(&self) -> bool {
        self.ipv6.is_enabled && self.mtu >= ipv6::MTU_MIN
    }

    fn check_ipv6(&self) -> Result<(), ConfigError> {
        let addresses = &self.ipv6.addresses;
        if !addresses.is_empty() && self.mtu < ipv6::MTU_MIN {
            return Err(ConfigError::Ipv6Mtu(self.mtu));
        }
        if addresses.len() > IPV6_ADDRESSES_MAX {
            return Err(ConfigError::TooMany("IPv6 addresses"));
        }
        for (at, (address, prefix_len)) in addresses.iter().enumerate() {
            let is_twice = addresses[..at].iter().any(|(other, _)| other == address);
            if !ipv6::is_host_address(*address) || is_twice {
                return Err(ConfigError::Ipv6Address(*address));
            }
            if !(1..=128).contains(prefix_len) {
                return Err(ConfigError::Ipv6PrefixLen(*address, *prefix_len));
            }
        }
        Ok(())
    }

    /// RFC 1122 §3.3.1.2: a router is on the link, and of the family that it is for.
    fn check_routes(&self) -> Result<(), ConfigError> {
        if self.routes.len() > ROUTES_MAX {
            return Err(ConfigError::TooMany("routes"));
        }
        for route in &self.routes {
            let failed = |why| Err(ConfigError::Route(*route, why));
            match (route.destination, route.gateway) {
                (IpAddr::V4(destination), IpAddr::V4(gateway)) => {
                    if route.prefix_len > 32 {
                        return failed("a prefix has at most 32 bits");
                    }
                    if destination.to_bits() & !Lease::mask(route.prefix_len) != 0 {
                        return failed("the prefix has bits behind its length");
                    }
                    match &self.address {
                        _ if !is_host_address(gateway) => {
                            return failed("the gateway cannot be a host's address");
                        }
                        AddressConfig::Off => return failed("IPv4 is off"),
                        AddressConfig::Dhcp { .. } => {}
                        AddressConfig::Static { address, prefix_len, .. } => {
                            let shared =
                                (address.to_bits() ^ gateway.to_bits()) & Lease::mask(*prefix_len);
                            if shared != 0 || *address == gateway {
                                return failed("the gateway is not on the link");
                            }
                        }
                    }
                }
                (IpAddr::V6(destination), IpAddr::V6(gateway)) => {
                    if route.prefix_len > 128 {
                        return failed("a prefix has at most 128 bits");
                    }
                    let behind = u128::MAX.checked_shr(route.prefix_len.into()).unwrap_or(0);
                    if destination.to_bits() & behind != 0 {
                        return failed("the prefix has bits behind its length");
                    }
                    if !ipv6::is_host_address(gateway) {
                        return failed("the gateway cannot be a host's address");
                    }
                    if !self.speaks_ipv6() {
                        return failed("IPv6 is off");
                    }
                    let is_on_link = gateway.is_unicast_link_local()
                        || self.ipv6.is_autoconfigured
                        || self
                            .ipv6
                            .addresses
                            .iter()
                            .any(|(address, len)| crate::ipv6::is_in(gateway, *address, *len));
                    let is_own = self.ipv6.addresses.iter().any(|(own, _)| *own == gateway);
                    if !is_on_link || is_own {
                        return failed("the gateway is not on the link");
                    }
                }
                _ => return failed("prefix and gateway are of two families"),
            }
        }
        Ok(())
    }
}

/// Checks that an address, its subnet and its gateway fit together; for a static configuration
/// and for what a DHCP server says.
///
/// # Errors
/// [`ConfigError::PrefixLen`], [`ConfigError::Address`], [`ConfigError::Gateway`].
pub(crate) fn check_addresses(lease: &Lease) -> Result<(), ConfigError> {
    if !(1..=32).contains(&lease.prefix_len) {
        return Err(ConfigError::PrefixLen(lease.prefix_len));
    }
    let is_host = |address: Ipv4Addr| {
        is_host_address(address)
            && lease.broadcast() != Some(address)
            && lease.network() != Some(address)
    };
    if !is_host(lease.address) {
        return Err(ConfigError::Address(lease.address));
    }
    match lease.gateway {
        // RFC 1122 §3.3.1.2: a gateway is reached over the link, so it must be on it. With a prefix
        // of 32 bits (some clouds give one) nothing is on the link but what is named as such.
        Some(gateway)
            if gateway == lease.address
                || !is_host(gateway)
                || (lease.prefix_len < 32 && !lease.is_on_link(gateway)) =>
        {
            Err(ConfigError::Gateway(gateway))
        }
        _ => Ok(()),
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        let least = [
            (self.tcp_receive_bytes >= 2048, "tcp_receive_bytes, at least 2048"),
            (self.tcp_send_bytes >= 2048, "tcp_send_bytes, at least 2048"),
            (self.tcp_receive_bytes_initial >= 2048, "tcp_receive_bytes_initial, at least 2048"),
            (self.tcp_send_bytes_initial >= 2048, "tcp_send_bytes_initial, at least 2048"),
            (self.tcp_receive_bytes <= 1 << 30, "tcp_receive_bytes must be at most 1 GiB"),
            (self.tcp_send_bytes <= 1 << 30, "tcp_send_bytes must be at most 1 GiB"),
            (self.tcp_total_bytes >= 4096, "tcp_total_bytes, at least 4096"),
            (self.tcp_out_of_order_ranges >= 1, "tcp_out_of_order_ranges, at least 1"),
            (self.neighbours >= 4, "neighbours, at least 4"),
            (self.neighbours_unresolved >= 1, "neighbours_unresolved, at least 1"),
            (
                self.neighbours > self.neighbours_unresolved,
                "neighbours, more than neighbours_unresolved",
            ),
            (self.ipv6_addresses > IPV6_ADDRESSES_MAX, "ipv6_addresses, at least 9"),
            (self.neighbour_parked_packets >= 1, "neighbour_parked_packets, at least 1"),
            (self.reply_queue_bytes >= 4096, "reply_queue_bytes, at least 4096"),
        ];
        match least.into_iter().find(|(holds, _)| !holds) {
            Some((_, which)) => Err(ConfigError::Limit(which)),
            None => Ok(()),
        }
    }
}
