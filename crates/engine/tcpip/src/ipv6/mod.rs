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
mod output;
mod routers;

pub(crate) use addresses::Change;
#[cfg(test)]
pub(crate) use neighbours::State as NeighbourState;
pub(crate) use output::HOP_LIMIT_NDP;
pub(crate) use routers::is_in;

use crate::config::{Ipv6Config, Limits, MacAddress};
use crate::counters::Counters;
use crate::output::Packet;
use crate::secret::{Keys, Purpose, Random};
use crate::time::Instant;
use crate::wire::icmpv6::{self, Message};
use crate::wire::ipv6::MTU_MIN;
use crate::wire::ndp::{self, Neighbour, RouterAdvertisement};
use addresses::{Addresses, Identifiers};
use core::time::Duration;
use neighbours::{Advertisement, Cache};
use output::{Due, message_packet};
use routers::Routers;
use std::collections::VecDeque;
use std::net::Ipv6Addr;

/// Hop limit of what we send until a router names another (RFC 8200 leaves it to IANA: 64), and the
/// least that is believed: with a small one, from anybody on the link, nothing of what we send would
/// get beyond a few routers (CVE-2015-2922), and no honest router gains by it.
const HOP_LIMIT: u8 = 64;
/// The shortest prefix that is believed to be on the link: no registry gives a provider less than a
/// /32, and somebody who says that of ::/0 would have us look for the whole world on the link.
const ON_LINK_LEN_MIN: u8 = 32;
/// Answers that wait for the device; a flood of solicitations loses the rest. What we say of our own
/// accord does not wait with them: it is made when the device takes it.
const ANSWERS_MAX: usize = 64;
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
    due: Due,
    answers: VecDeque<(MacAddress, Packet)>,
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
            due: Due::default(),
            answers: VecDeque::new(),
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

    /// Without a router, or if none answers, we ask for one.
    fn ensure_solicitation(&mut self, now: Instant) {
        let has_router = self.routers.has_hopeful_router(now);
        if self.is_autoconfigured && self.solicitation.at.is_none() && !has_router {
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
                self.neighbours.learn(now, source, mac, true);
            }
            (mac.unwrap_or(link_source), source, ndp::FLAG_OVERRIDE | ndp::FLAG_SOLICITED)
        };
        let body = ndp::neighbour_body(target, None, Some(self.mac), None);
        let kind = (icmpv6::NEIGHBOUR_ADVERTISEMENT, 0);
        let bytes = icmpv6::to_bytes(target, answer_to, kind, [flags, 0, 0, 0], &body);
        if self.answers.len() < ANSWERS_MAX {
            counters.ndp_advertisements_sent += 1;
            self.answers.push_back((to, message_packet(target, answer_to, bytes)));
        } else {
            counters.dropped_reply_queue += 1;
        }
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
            self.neighbours.set_routers(self.routers.addresses());
        }
        if is_solicited {
            self.note_answer(now, target);
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
        match hop_limit {
            0 => {}
            HOP_LIMIT.. => self.hop_limit = hop_limit,
            _ => counters.dropped_ra_hop_limit += 1,
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
            self.neighbours.learn(now, router, mac, true);
        }
        self.neighbours.set_routers(self.routers.addresses());
        if !lifetime.is_zero() && self.routers.has_hopeful_router(now) {
            // RFC 7559 §2.1: from then on there is nothing to ask for.
            self.solicitation.at = None;
        }
        for prefix in &options.prefixes {
            let valid = ndp::lifetime(prefix.valid);
            let is_possible = prefix.prefix_len <= 128
                && !prefix.prefix.is_unicast_link_local()
                && !prefix.prefix.is_multicast()
                && prefix.preferred <= prefix.valid
                && !(prefix.is_on_link && prefix.prefix_len < ON_LINK_LEN_MIN);
            if !is_possible {
                counters.dropped_ra_prefix += 1;
                continue;
            }
            if prefix.is_on_link {
                has_room &= self.routers.take_prefix(
                    now,
                    router,
                    (prefix.prefix, prefix.prefix_len),
                    valid,
                );
            }
            if prefix.is_autonomous {
                // RFC 4862 §5.5.3 (d): with other lengths there is no identifier.
                if prefix.prefix_len != 64 {
                    counters.dropped_ra_prefix += 1;
                    continue;
                }
                let before = (self.addresses.iter().count(), self.changes.len());
                let preferred = ndp::lifetime(prefix.preferred);
                has_room &= self.addresses.take_prefix(
                    now,
                    prefix.prefix,
                    (valid, preferred),
                    (router, &|router| self.routers.is_trusted(now, router)),
                    &mut self.changes,
                );
                if (self.addresses.iter().count(), self.changes.len()) != before {
                    self.report_change(now);
                }
            }
        }
        for (seconds, servers) in &options.dns {
            for server in
                servers.iter().filter(|server| crate::wire::ipv6::is_host_address(**server))
            {
                has_room &= self.routers.take_server(now, router, *server, ndp::lifetime(*seconds));
            }
        }
        if !has_room {
            counters.dropped_ra_limit += 1;
            self.routers.note_refused(router);
        }
        for candidate in self.routers.to_ask(router) {
            if self.neighbours.ask(now, candidate) {
                self.note_answer(now, candidate);
            }
        }
        true
    }

    /// A neighbour has answered: if it is a router, and what it said was refused while nobody knew
    /// whether it would, it is to say it again.
    fn note_answer(&mut self, now: Instant, neighbour: Ipv6Addr) {
        if self.routers.note_answer(neighbour) {
            let interval = SOLICITATION_INTERVAL;
            self.solicitation = Solicitation { at: Some(now), interval, sent: 0 };
        }
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
            self.due.change_report = true;
        }
        if self.reports.answer_at.take_if(|at| *at <= now).is_some() {
            self.due.answer_report = true;
        }
        self.addresses.handle_timeout(now, &mut self.changes);
        self.neighbours.handle_timeout(now, counters);
        while let Some(silent) = self.neighbours.take_silent() {
            self.routers.note_failure(now, silent);
            self.silent.push(silent);
        }
        self.routers.handle_timeout(now);
        self.neighbours.set_routers(self.routers.addresses());
        self.solicit_routers(now);
    }

    /// Asks for routers if it is time to (RFC 7559).
    fn solicit_routers(&mut self, now: Instant) {
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
        self.due.solicitation = true;
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
}
