//! IPv6 as an interface speaks it (RFC 4861, RFC 4862): its addresses, its neighbours, its routers,
//! and what it has to say about them.
//!
//! ```text
//!   handle_message ─► addresses (DAD, lifetimes) ─┐
//!                  ─► neighbours (NUD)            ├─► poll_transmit: solicitations, advertisements,
//!                  ─► routers (prefixes, DNS)     ┘                  router solicitations, MLD reports
//! ```
//!
//! Not here yet, but with a place to go: DHCPv6 (beside `solicitation`), temporary addresses (an
//! `Origin`), leaving groups.

mod addresses;
mod neighbours;
mod routers;

pub(crate) use addresses::Change;
#[cfg(test)]
pub(crate) use neighbours::State as NeighbourState;
pub(crate) use routers::is_in;

use crate::config::{Ipv6Config, Limits, MacAddress};
use crate::counters::Counters;
use crate::output::{Header, Packet};
use crate::secret::{Keys, Purpose, Random};
use crate::time::Instant;
use crate::wire::icmpv6::{self, Message};
use crate::wire::ipv6::{HOP_BY_HOP, MTU_MIN, OPTION_ROUTER_ALERT, PROTOCOL_ICMPV6};
use crate::wire::ndp::{self, Neighbour, RouterAdvertisement};
use addresses::{Addresses, Identifiers};
use core::time::Duration;
use neighbours::{Advertisement, Cache, Request};
use routers::Routers;
use std::collections::VecDeque;
use std::net::Ipv6Addr;

/// Hop limit of Neighbour Discovery: it shows that no router has passed the message on (RFC 4861
/// §3.1).
pub(crate) const HOP_LIMIT_NDP: u8 = 255;
/// Hop limit of what we send until a router names another (RFC 8200 leaves it to IANA: 64).
const HOP_LIMIT: u8 = 64;
/// Messages that wait for the device; a flood of solicitations loses the rest.
const MESSAGES_MAX: usize = 64;
/// The first router solicitation leaves within this time, so that hosts that start together do not
/// ask together. RFC 4861 §6.3.7 allows a second; DAD of the link-local address takes one anyway.
const SOLICITATION_DELAY_MS: u32 = 250;
/// RFC 7559 §2: the first interval between solicitations, and the longest.
const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);
const SOLICITATION_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Solicitations after whose time nobody waits for the answer any more: it takes a router at most
/// three and a half of these four seconds (RFC 4861 §6.2.6). We go on asking all the same.
const SOLICITATIONS_PATIENCE: u32 = 1;
/// Reports of a change of groups (RFC 3810 §9.1, the robustness variable).
const REPORTS: u8 = 2;
/// Time until a report is repeated (RFC 3810 §9.11, Unsolicited Report Interval), in milliseconds.
const REPORT_INTERVAL_MS: u32 = 1000;
/// A host of a group answers a query within this time at the latest.
const REPORT_DELAY_MAX: Duration = Duration::from_secs(10);

/// A message of Neighbour Discovery or MLD that arrived, with the right hop limit, code and
/// checksum.
#[derive(Clone, Copy)]
pub(crate) struct Arrived<'a> {
    pub(crate) source: Ipv6Addr,
    pub(crate) destination: Ipv6Addr,
    /// Who sent the frame.
    pub(crate) link_source: MacAddress,
    pub(crate) message: Message<'a>,
}

/// When routers are asked for.
struct Solicitation {
    at: Option<Instant>,
    interval: Duration,
    /// Sent so far.
    sent: u32,
}

/// When groups are reported.
#[derive(Default)]
struct Reports {
    /// Reports of the last change to come, the next at `change_at`.
    changes: u8,
    change_at: Option<Instant>,
    /// A querier waits for an answer.
    answer_at: Option<Instant>,
}

/// See the module.
pub(crate) struct Ipv6 {
    mac: MacAddress,
    /// The device's MTU.
    link_mtu: usize,
    /// What a router made of it.
    mtu: usize,
    hop_limit: u8,
    is_autoconfigured: bool,
    /// Prefixes of configured addresses: they are on the link.
    static_prefixes: Vec<(Ipv6Addr, u8)>,
    static_dns: Vec<Ipv6Addr>,
    pub(crate) addresses: Addresses,
    pub(crate) neighbours: Cache,
    pub(crate) routers: Routers,
    solicitation: Solicitation,
    reports: Reports,
    messages: VecDeque<(MacAddress, Packet)>,
    /// What the engine has yet to be told.
    changes: Vec<Change>,
    /// Neighbours that did not answer, for the choice among configured routes.
    silent: Vec<Ipv6Addr>,
    random: Random,
}

impl Ipv6 {
    pub(crate) fn new(
        mac: MacAddress,
        mtu: usize,
        config: &Ipv6Config,
        limits: &Limits,
        keys: &Keys,
        now: Instant,
    ) -> Self {
        let stable = config.stable_secret.map_or_else(|| keys.clone(), Keys::new);
        let identifiers = Identifiers {
            key: stable.key(Purpose::StableAddress),
            interface: mac.0,
            network_id: config.network_id.clone(),
        };
        let mut random = keys.random(Purpose::NeighbourDiscovery);
        let mut addresses = Addresses::new(
            identifiers,
            keys.random_of(Purpose::NeighbourDiscovery, 1),
            limits.ipv6_addresses,
        );
        addresses.add_link_local(now);
        for (address, prefix_len) in &config.addresses {
            addresses.add_static(now, *address, *prefix_len);
        }
        let first = now + Duration::from_millis(random.below(SOLICITATION_DELAY_MS).into());
        Ipv6 {
            mac,
            link_mtu: mtu,
            mtu,
            hop_limit: HOP_LIMIT,
            is_autoconfigured: config.is_autoconfigured,
            static_prefixes: config.addresses.clone(),
            static_dns: config.dns.clone(),
            addresses,
            neighbours: Cache::new(
                limits,
                keys.key(Purpose::NeighbourTable),
                keys.random_of(Purpose::NeighbourDiscovery, 2),
            ),
            routers: Routers::new(limits),
            solicitation: Solicitation {
                at: config.is_autoconfigured.then_some(first),
                interval: SOLICITATION_INTERVAL,
                sent: 0,
            },
            reports: Reports { changes: REPORTS, change_at: Some(now), answer_at: None },
            messages: VecDeque::new(),
            changes: Vec::new(),
            silent: Vec::new(),
            random,
        }
    }

    /// The largest packet on the link, in bytes.
    pub(crate) const fn mtu(&self) -> usize {
        self.mtu
    }

    /// Hop limit of what we send.
    pub(crate) const fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// Configured and advertised name servers.
    pub(crate) fn dns(&self) -> Vec<Ipv6Addr> {
        self.static_dns.iter().copied().chain(self.routers.servers()).collect()
    }

    /// True if a neighbour can have `address` (RFC 5942 §4: only who is told knows).
    pub(crate) fn is_on_link(&self, now: Instant, address: Ipv6Addr) -> bool {
        address.is_unicast_link_local()
            || self.static_prefixes.iter().any(|(prefix, len)| is_in(address, *prefix, *len))
            || self.routers.is_on_link(now, address)
    }

    /// True if an address, or a router, may still come of what was asked a moment ago.
    pub(crate) fn awaits_source(&self) -> bool {
        let is_asking =
            self.solicitation.at.is_some() && self.solicitation.sent <= SOLICITATIONS_PATIENCE;
        is_asking || self.addresses.has_tentative()
    }

    /// True if packets to the group `address` are for us.
    pub(crate) fn is_member(&self, address: Ipv6Addr) -> bool {
        // All nodes, of the link and of the interface.
        address == ndp::ALL_NODES
            || address == Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1)
            || self.addresses.iter().any(|ours| ndp::solicited_node(ours.address) == address)
    }

    /// What the engine has to be told: which addresses came and went.
    pub(crate) fn take_change(&mut self) -> Option<Change> {
        self.changes.pop()
    }

    /// Takes a neighbour that has stopped to answer.
    pub(crate) fn take_silent(&mut self) -> Option<Ipv6Addr> {
        self.silent.pop()
    }

    /// The device may take a message from now on.
    fn queue(&mut self, to: MacAddress, packet: Packet, counters: &mut Counters) {
        if self.messages.len() < MESSAGES_MAX {
            self.messages.push_back((to, packet));
        } else {
            counters.dropped_reply_queue += 1;
        }
    }

    /// Takes a message of Neighbour Discovery or MLD.
    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        arrived: &Arrived<'_>,
        counters: &mut Counters,
    ) {
        let is_good = match arrived.message.kind {
            icmpv6::NEIGHBOUR_SOLICITATION => self.handle_solicitation(now, arrived, counters),
            icmpv6::NEIGHBOUR_ADVERTISEMENT => self.handle_advertisement(now, arrived, counters),
            icmpv6::ROUTER_ADVERTISEMENT => self.handle_router(now, arrived, counters),
            icmpv6::MLD_QUERY => self.handle_query(now, arrived),
            // From whom could be anybody on the link; our routers say what they must in
            // advertisements.
            icmpv6::REDIRECT => {
                counters.dropped_ndp_redirect += 1;
                true
            }
            // Solicitations are for routers.
            _ => true,
        };
        if !is_good {
            counters.dropped_ndp_invalid += 1;
        }
        self.ensure_solicitation(now);
    }

    /// Without a router we ask for one.
    fn ensure_solicitation(&mut self, now: Instant) {
        if self.is_autoconfigured && self.solicitation.at.is_none() && !self.routers.has_router(now)
        {
            let interval = SOLICITATION_INTERVAL;
            self.solicitation = Solicitation { at: Some(now), interval, sent: 0 };
        }
    }

    /// RFC 4861 §7.1.1, §7.2.3; RFC 4862 §5.4.3. False if it is invalid.
    fn handle_solicitation(
        &mut self,
        now: Instant,
        arrived: &Arrived<'_>,
        counters: &mut Counters,
    ) -> bool {
        let Some(Neighbour { target, options, .. }) = Neighbour::parse(&arrived.message) else {
            return false;
        };
        let &Arrived { source, destination, link_source, .. } = arrived;
        let is_probe = source.is_unspecified();
        let is_bad_probe =
            destination != ndp::solicited_node(target) || options.source_link_layer.is_some();
        if target.is_multicast() || (is_probe && is_bad_probe) {
            return false;
        }
        if !self.addresses.is_ours(target) {
            let is_ours_too = is_probe
                && self.addresses.handle_claim(now, target, options.nonce, &mut self.changes);
            if is_ours_too {
                counters.ndp_duplicates += 1;
                self.report_change(now);
            }
            return true;
        }
        let (to, answer_to, flags) = if is_probe {
            (ndp::group_mac(ndp::ALL_NODES), ndp::ALL_NODES, ndp::FLAG_OVERRIDE)
        } else {
            // Unicast solicitations may come without an address, because we know it.
            let mac = options.source_link_layer.filter(|mac| mac.is_unicast());
            if let Some(mac) = mac {
                self.neighbours.learn(now, source, mac, false, true);
            }
            (mac.unwrap_or(link_source), source, ndp::FLAG_OVERRIDE | ndp::FLAG_SOLICITED)
        };
        let body = ndp::neighbour_body(target, None, Some(self.mac), None);
        let kind = (icmpv6::NEIGHBOUR_ADVERTISEMENT, 0);
        let bytes = icmpv6::to_bytes(target, answer_to, kind, [flags, 0, 0, 0], &body);
        counters.ndp_advertisements_sent += 1;
        self.queue(to, message_packet(target, answer_to, bytes), counters);
        true
    }

    /// RFC 4861 §7.1.2, §7.2.5; RFC 4862 §5.4.4. False if it is invalid.
    fn handle_advertisement(
        &mut self,
        now: Instant,
        arrived: &Arrived<'_>,
        counters: &mut Counters,
    ) -> bool {
        let Some(Neighbour { target, flags, options }) = Neighbour::parse(&arrived.message) else {
            return false;
        };
        let is_solicited = flags & ndp::FLAG_SOLICITED != 0;
        if target.is_multicast() || (arrived.destination.is_multicast() && is_solicited) {
            return false;
        }
        if self.addresses.is_ours(target) {
            counters.ndp_conflicts += 1;
            return true;
        }
        if self.addresses.handle_claim(now, target, None, &mut self.changes) {
            counters.ndp_duplicates += 1;
            self.report_change(now);
            return true;
        }
        let advertisement = Advertisement {
            mac: options.target_link_layer.filter(|mac| mac.is_unicast() && *mac != self.mac),
            is_router: flags & ndp::FLAG_ROUTER != 0,
            is_solicited,
            overrides: flags & ndp::FLAG_OVERRIDE != 0,
        };
        if self.neighbours.advertise(now, target, &advertisement) {
            self.routers.remove_router(target);
        }
        true
    }

    /// RFC 4861 §6.1.2, §6.3.4; RFC 4862 §5.5.3; RFC 8106. False if it is invalid.
    fn handle_router(
        &mut self,
        now: Instant,
        arrived: &Arrived<'_>,
        counters: &mut Counters,
    ) -> bool {
        let router = arrived.source;
        if !router.is_unicast_link_local() {
            return false;
        }
        let Some(advertisement) = RouterAdvertisement::parse(&arrived.message) else {
            return false;
        };
        if !self.is_autoconfigured {
            counters.dropped_ra_unwanted += 1;
            return true;
        }
        counters.ndp_router_advertisements += 1;
        let RouterAdvertisement { hop_limit, lifetime, preference, reachable, retransmit, options } =
            advertisement;
        if hop_limit > 0 {
            self.hop_limit = hop_limit;
        }
        self.neighbours.set_times(reachable, retransmit);
        if let Some(mtu) = options.mtu.and_then(|mtu| usize::try_from(mtu).ok())
            && (MTU_MIN..=self.link_mtu).contains(&mtu)
        {
            self.mtu = mtu;
        }
        let lifetime = Duration::from_secs(lifetime.into());
        if !lifetime.is_zero() && !self.routers.has_router(now) {
            self.changes.push(Change::Ways);
        }
        let mut has_room = self.routers.take_router(now, router, lifetime, preference);
        if let Some(mac) = options.source_link_layer.filter(|mac| mac.is_unicast()) {
            self.neighbours.learn(now, router, mac, has_room && !lifetime.is_zero(), true);
        }
        if !lifetime.is_zero() {
            // RFC 7559 §2.1: from then on there is nothing to ask for.
            self.solicitation.at = None;
        }
        for prefix in &options.prefixes {
            let valid = ndp::lifetime(prefix.valid);
            let is_possible = prefix.prefix_len <= 128
                && !prefix.prefix.is_unicast_link_local()
                && !prefix.prefix.is_multicast()
                && prefix.preferred <= prefix.valid;
            if !is_possible {
                counters.dropped_ra_prefix += 1;
                continue;
            }
            if prefix.is_on_link {
                has_room &= self.routers.take_prefix(now, prefix.prefix, prefix.prefix_len, valid);
            }
            if prefix.is_autonomous {
                // RFC 4862 §5.5.3 (d): with other lengths there is no identifier.
                if prefix.prefix_len != 64 {
                    counters.dropped_ra_prefix += 1;
                    continue;
                }
                let before = self.addresses.iter().count();
                let preferred = ndp::lifetime(prefix.preferred);
                has_room &= self.addresses.take_prefix(now, prefix.prefix, valid, preferred);
                if self.addresses.iter().count() > before {
                    self.report_change(now);
                }
            }
        }
        for (seconds, servers) in &options.dns {
            for server in
                servers.iter().filter(|server| crate::wire::ipv6::is_host_address(**server))
            {
                has_room &= self.routers.take_server(now, *server, ndp::lifetime(*seconds));
            }
        }
        counters.dropped_ra_limit += u64::from(!has_room);
        true
    }

    /// RFC 3810 §5.1.14, §6.2. False if it is invalid.
    fn handle_query(&mut self, now: Instant, arrived: &Arrived<'_>) -> bool {
        if !arrived.source.is_unicast_link_local() || arrived.message.bytes.len() < 24 {
            return false;
        }
        let delay = ndp::mld_response_delay(&arrived.message).min(REPORT_DELAY_MAX);
        let delay_ms = self.random.below((delay.as_millis() as u32).max(1));
        let at = now + Duration::from_millis(delay_ms.into());
        self.reports.answer_at = Some(self.reports.answer_at.map_or(at, |before| before.min(at)));
        true
    }

    /// Tells the link which groups we listen to, soon and again a little later.
    fn report_change(&mut self, now: Instant) {
        self.reports.changes = REPORTS;
        self.reports.change_at = Some(now);
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, counters: &mut Counters) {
        if self.reports.change_at.is_some_and(|at| at <= now) {
            self.reports.changes = self.reports.changes.saturating_sub(1);
            let delay = Duration::from_millis(self.random.below(REPORT_INTERVAL_MS).into());
            self.reports.change_at =
                (self.reports.changes > 0).then(|| now + delay.max(Duration::from_millis(1)));
            self.report_groups(4, counters);
        }
        if self.reports.answer_at.take_if(|at| *at <= now).is_some() {
            self.report_groups(2, counters);
        }
        let mut probes = Vec::new();
        self.addresses.handle_timeout(
            now,
            |address, nonce| probes.push((address, nonce)),
            &mut self.changes,
        );
        for (target, nonce) in probes {
            let (source, group) = (Ipv6Addr::UNSPECIFIED, ndp::solicited_node(target));
            let body = ndp::neighbour_body(target, None, None, Some(nonce));
            let kind = (icmpv6::NEIGHBOUR_SOLICITATION, 0);
            let bytes = icmpv6::to_bytes(source, group, kind, [0; 4], &body);
            counters.ndp_solicitations_sent += 1;
            self.queue(ndp::group_mac(group), message_packet(source, group, bytes), counters);
        }
        self.neighbours.handle_timeout(now, counters);
        while let Some(silent) = self.neighbours.take_silent() {
            self.routers.note_failure(now, silent);
            self.silent.push(silent);
        }
        self.routers.handle_timeout(now);
        self.solicit_routers(now, counters);
    }

    /// Asks for routers if it is time to (RFC 7559).
    fn solicit_routers(&mut self, now: Instant, counters: &mut Counters) {
        self.ensure_solicitation(now);
        if self.solicitation.at.is_none_or(|at| at > now) {
            return;
        }
        // Ten percent of jitter (RFC 7559 §2, as RFC 8415 §15).
        self.solicitation.sent = self.solicitation.sent.saturating_add(1);
        if self.solicitation.sent == SOLICITATIONS_PATIENCE + 1 {
            self.changes.push(Change::Ways);
        }
        let interval = self.solicitation.interval;
        let tenth_ms = (interval.as_millis() / 10) as u32;
        let jitter = Duration::from_millis(self.random.below(2 * tenth_ms).into());
        self.solicitation.at = Some(now + interval * 9 / 10 + jitter);
        self.solicitation.interval = (interval * 2).min(SOLICITATION_INTERVAL_MAX);
        // From the unspecified address while there is none yet, and then without ours.
        let source = self.link_local().unwrap_or(Ipv6Addr::UNSPECIFIED);
        let mac = (!source.is_unspecified()).then_some(self.mac);
        let kind = (icmpv6::ROUTER_SOLICITATION, 0);
        let body = ndp::router_solicitation_body(mac);
        let bytes = icmpv6::to_bytes(source, ndp::ALL_ROUTERS, kind, [0; 4], &body);
        counters.ndp_router_solicitations_sent += 1;
        let to = ndp::group_mac(ndp::ALL_ROUTERS);
        self.queue(to, message_packet(source, ndp::ALL_ROUTERS, bytes), counters);
    }

    fn link_local(&self) -> Option<Ipv6Addr> {
        let mut assigned = self.addresses.assigned().map(|address| address.address);
        assigned.find(|address| address.is_unicast_link_local())
    }

    /// Sends a report of all groups (RFC 3810 §5.2); switches that listen send us their frames.
    fn report_groups(&mut self, kind: u8, counters: &mut Counters) {
        let mut groups: Vec<Ipv6Addr> =
            self.addresses.iter().map(|address| ndp::solicited_node(address.address)).collect();
        groups.sort_unstable();
        groups.dedup();
        if groups.is_empty() {
            return;
        }
        // RFC 3590 §4: before there is an address, from none.
        let source = self.link_local().unwrap_or(Ipv6Addr::UNSPECIFIED);
        let group = ndp::ALL_MLDV2_ROUTERS;
        let (word, body) = ndp::mld_report(kind, &groups);
        let report = icmpv6::to_bytes(source, group, (icmpv6::MLDV2_REPORT, 0), word, &body);
        // Hop-by-hop options with a Router Alert (RFC 2711 §2.1: MLD), padded by two bytes.
        let options = [PROTOCOL_ICMPV6, 0, OPTION_ROUTER_ALERT, 2, 0, 0, 1, 0];
        let payload = [&options[..], &report].concat();
        let header = Header { protocol: HOP_BY_HOP, hop_limit: 1, ..message_header(source, group) };
        counters.mld_reports_sent += 1;
        self.queue(ndp::group_mac(group), Packet::new(header, payload), counters);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [
            self.addresses.poll_timeout(),
            self.neighbours.poll_timeout(),
            self.routers.poll_timeout(),
            self.solicitation.at,
            self.reports.change_at,
            self.reports.answer_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes the next message to send, and whom the frame goes to.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        counters: &mut Counters,
    ) -> Option<(MacAddress, Packet)> {
        if let Some(message) = self.messages.pop_front() {
            return Some(message);
        }
        loop {
            let Request { target, to, source } = self.neighbours.take_request()?;
            // RFC 4861 §7.2.2: from where the packet comes that asks for it, so that the answer
            // finds the way.
            let source = source
                .filter(|source| self.addresses.is_ours(*source))
                .or_else(|| self.addresses.source_for(now, target));
            let Some(source) = source else { continue };
            let group = ndp::solicited_node(target);
            let destination = if to.is_some() { target } else { group };
            let body = ndp::neighbour_body(target, Some(self.mac), None, None);
            let kind = (icmpv6::NEIGHBOUR_SOLICITATION, 0);
            let bytes = icmpv6::to_bytes(source, destination, kind, [0; 4], &body);
            counters.ndp_solicitations_sent += 1;
            let to = to.unwrap_or_else(|| ndp::group_mac(group));
            return Some((to, message_packet(source, destination, bytes)));
        }
    }
}

/// The header of a message of Neighbour Discovery.
fn message_header(source: Ipv6Addr, destination: Ipv6Addr) -> Header {
    Header {
        source: source.into(),
        destination: destination.into(),
        protocol: PROTOCOL_ICMPV6,
        hop_limit: HOP_LIMIT_NDP,
        identification: 0,
        dont_fragment: true,
    }
}

fn message_packet(source: Ipv6Addr, destination: Ipv6Addr, bytes: Vec<u8>) -> Packet {
    Packet::new(message_header(source, destination), bytes)
}
