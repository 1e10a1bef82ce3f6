//! The interface's IPv6 addresses: where they come from, whether somebody else has them (duplicate
//! address detection, RFC 4862 §5.4, with RFC 7527's nonce), how long they live, and which one a
//! packet is sent from (RFC 6724).

use super::neighbours::RETRANS_TIMER;
use super::routers::gives_way;
use crate::secret::{Key, Random};
use crate::time::Instant;
use crate::wire::ndp::Nonce;
use core::time::Duration;
use std::net::Ipv6Addr;

/// Solicitations of duplicate address detection (RFC 4862 §5.1, DupAddrDetectTransmits).
const DAD_TRANSMITS: u8 = 1;
/// Addresses that are tried for one prefix before it is left alone (RFC 7217 §6, IDGEN_RETRIES).
const IDGEN_RETRIES: u8 = 3;
/// What a lifetime is cut to at most by an advertisement that proves nothing (RFC 4862 §5.5.3 (e)).
const TWO_HOURS: Duration = Duration::from_secs(7200);

/// Where an address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Made here of fe80::/64; the number of conflicts so far.
    LinkLocal(u8),
    /// Made here of a router's prefix; the number of conflicts so far.
    Autoconfigured(u8),
    /// Configured.
    Static,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody may use it yet: that nobody else has it is found out by `deadline`, if so many
    /// `probes` have left; while one `is_due`, nothing is found out.
    Tentative { probes: u8, is_due: bool, deadline: Instant, nonce: Nonce },
    /// Ours.
    Assigned,
}

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) address: Ipv6Addr,
    pub(crate) prefix_len: u8,
    pub(crate) origin: Origin,
    /// Whose prefix it was made of.
    router: Option<Ipv6Addr>,
    state: State,
    /// `None`: for ever.
    preferred_until: Option<Instant>,
    /// `None`: for ever.
    valid_until: Option<Instant>,
}

impl Address {
    /// It may be used.
    pub(crate) const fn is_assigned(&self) -> bool {
        matches!(self.state, State::Assigned)
    }

    fn is_deprecated(&self, now: Instant) -> bool {
        self.preferred_until.is_some_and(|until| until <= now)
    }
}

/// What became of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It may be used from now on.
    Assigned(Ipv6Addr),
    /// It is gone.
    Lost(Ipv6Addr),
    /// Somebody else has it.
    Duplicate(Ipv6Addr),
    /// Addresses are as they were; but there is another router, or there will be none.
    Ways,
}

/// Reserved for subnet anycast addresses (RFC 2526, RFC 5453).
const RESERVED_IDENTIFIERS: core::ops::RangeInclusive<u64> =
    0xfdff_ffff_ffff_ff80..=0xfdff_ffff_ffff_ffff;

/// How interface identifiers are made (RFC 7217 §5).
pub(crate) struct Identifiers {
    pub(crate) key: Key,
    /// Tells the interface from others of the host.
    pub(crate) interface: [u8; 6],
    /// Tells the network from others, if that is known.
    pub(crate) network_id: Vec<u8>,
}

impl Identifiers {
    /// The address with `prefix`, of 64 bits, and how often one was drawn, `conflicts` included.
    fn address(&self, prefix: Ipv6Addr, mut conflicts: u8) -> (Ipv6Addr, u8) {
        loop {
            let input = (prefix.octets(), self.interface, &self.network_id[..], conflicts);
            let identifier = self.key.prf(&input);
            // RFC 5453: 0 is the subnet-router anycast address.
            let is_reserved = identifier == 0 || RESERVED_IDENTIFIERS.contains(&identifier);
            if !is_reserved || conflicts == u8::MAX {
                let bits = prefix.to_bits() & !u128::from(u64::MAX) | u128::from(identifier);
                return (Ipv6Addr::from_bits(bits), conflicts);
            }
            conflicts += 1;
        }
    }
}

/// See the module.
pub(crate) struct Addresses {
    list: Vec<Address>,
    identifiers: Identifiers,
    random: Random,
    addresses_max: usize,
}

/// fe80::/64 (RFC 4291 §2.5.6).
const LINK_LOCAL_PREFIX: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);

impl Addresses {
    pub(crate) fn new(identifiers: Identifiers, random: Random, addresses_max: usize) -> Self {
        Addresses { list: Vec::new(), identifiers, random, addresses_max }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Address> {
        self.list.iter()
    }

    /// Some are still being tried.
    pub(crate) fn has_tentative(&self) -> bool {
        self.list.iter().any(|address| !address.is_assigned())
    }

    /// Those that may be used.
    pub(crate) fn assigned(&self) -> impl Iterator<Item = &Address> {
        self.list.iter().filter(|address| address.is_assigned())
    }

    fn nonce(&mut self) -> Nonce {
        let [_, _, nonce @ ..] = self.random.next_u64().to_be_bytes();
        nonce
    }

    /// Adds an address that is to be tried after `delay`; false if there are too many.
    fn add(
        &mut self,
        now: Instant,
        delay: Duration,
        (address, prefix_len): (Ipv6Addr, u8),
        (origin, router): (Origin, Option<Ipv6Addr>),
        (preferred_until, valid_until): (Option<Instant>, Option<Instant>),
    ) -> bool {
        if self.list.len() >= self.addresses_max {
            return false;
        }
        let (deadline, nonce) = (now + delay, self.nonce());
        let state = State::Tentative { probes: 0, is_due: false, deadline, nonce };
        self.list.push(Address {
            address,
            prefix_len,
            origin,
            router,
            state,
            preferred_until,
            valid_until,
        });
        true
    }

    /// Adds the link-local address.
    pub(crate) fn add_link_local(&mut self, now: Instant) {
        let (address, drawn) = self.identifiers.address(LINK_LOCAL_PREFIX, 0);
        self.add(
            now,
            Duration::ZERO,
            (address, 64),
            (Origin::LinkLocal(drawn), None),
            (None, None),
        );
    }

    /// Adds a configured address.
    pub(crate) fn add_static(&mut self, now: Instant, address: Ipv6Addr, prefix_len: u8) {
        self.add(now, Duration::ZERO, (address, prefix_len), (Origin::Static, None), (None, None));
    }

    /// Takes an autonomous prefix of 64 bits from a router (RFC 4862 §5.5.3); false if there is no
    /// room for its address. Room is made at the cost of those whose router is not trusted, or has
    /// more than its share.
    pub(crate) fn take_prefix(
        &mut self,
        now: Instant,
        prefix: Ipv6Addr,
        (valid, preferred): (Option<Duration>, Option<Duration>),
        (router, is_trusted): (Ipv6Addr, &dyn Fn(Ipv6Addr) -> bool),
        changes: &mut Vec<Change>,
    ) -> bool {
        let until = |lifetime: Option<Duration>| lifetime.map(|lifetime| now + lifetime);
        let known = self.list.iter_mut().find(|known| {
            matches!(known.origin, Origin::Autoconfigured(_))
                && (known.address.to_bits() ^ prefix.to_bits()) >> 64 == 0
        });
        if let Some(known) = known {
            known.preferred_until = until(preferred);
            if is_trusted(router) {
                known.router = Some(router);
            }
            let left = known.valid_until.map(|at| at.saturating_since(now));
            let is_longer = match (valid, left) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(valid), Some(left)) => valid > left,
            };
            // The two-hour rule: one that is not authenticated can shorten, but not end.
            if is_longer || valid.is_some_and(|valid| valid > TWO_HOURS) {
                known.valid_until = until(valid);
            } else if left.is_none_or(|left| left > TWO_HOURS) {
                known.valid_until = Some(now + TWO_HOURS);
            }
            return true;
        }
        if valid == Some(Duration::ZERO) {
            return true;
        }
        if self.list.len() >= self.addresses_max {
            let owners = self.list.iter().map(|address| address.router);
            let Some(at) = gives_way(owners, router, is_trusted) else { return false };
            changes.push(Change::Lost(self.list.remove(at).address));
        }
        let (address, drawn) = self.identifiers.address(prefix, 0);
        // RFC 4862 §5.4.2: many hosts hear one advertisement; they should not ask all at once.
        let delay = Duration::from_millis(self.random.below(500).into());
        self.add(
            now,
            delay,
            (address, 64),
            (Origin::Autoconfigured(drawn), Some(router)),
            (until(preferred), until(valid)),
        )
    }

    /// The deadline of whatever happens next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let of = |address: &Address| {
            let tentative = match address.state {
                State::Tentative { deadline, is_due, .. } => (!is_due).then_some(deadline),
                State::Assigned => None,
            };
            [tentative, address.valid_until].into_iter().flatten().min()
        };
        self.list.iter().filter_map(of).min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, changes: &mut Vec<Change>) {
        self.list.retain(|address| {
            let is_valid = address.valid_until.is_none_or(|until| until > now);
            if !is_valid {
                changes.push(Change::Lost(address.address));
            }
            is_valid
        });
        for address in &mut self.list {
            match &mut address.state {
                State::Tentative { is_due, deadline, .. } if *is_due || *deadline > now => {}
                State::Tentative { probes, is_due, .. } if *probes < DAD_TRANSMITS => {
                    *is_due = true
                }
                State::Tentative { .. } => {
                    address.state = State::Assigned;
                    changes.push(Change::Assigned(address.address));
                }
                State::Assigned => {}
            }
        }
    }

    /// Takes an address to ask for, and the nonce to do so with. The answer has time from now on: a
    /// probe that waits for the device has asked nobody.
    pub(crate) fn take_probe(&mut self, now: Instant) -> Option<(Ipv6Addr, Nonce)> {
        self.list.iter_mut().find_map(|address| match &mut address.state {
            State::Tentative { probes, is_due: is_due @ true, deadline, nonce } => {
                *is_due = false;
                *probes += 1;
                *deadline = now + RETRANS_TIMER;
                Some((address.address, *nonce))
            }
            _ => None,
        })
    }

    /// Another host asks whether it may have `target`, or says that it has. If we are still asking
    /// too, it is neither's (RFC 4862 §5.4.3, §5.4.4), unless `nonce` is our own: then it was our
    /// own voice (RFC 7527 §4.2). True if `target` was tentative and is given up.
    pub(crate) fn handle_claim(
        &mut self,
        now: Instant,
        target: Ipv6Addr,
        claim: Option<Nonce>,
        changes: &mut Vec<Change>,
    ) -> bool {
        let at = self.list.iter().position(|address| address.address == target);
        let Some(at) = at else { return false };
        let State::Tentative { nonce, .. } = self.list[at].state else { return false };
        if claim == Some(nonce) {
            return false;
        }
        let lost = self.list.remove(at);
        changes.push(Change::Duplicate(target));
        let (again, prefix): (fn(u8) -> Origin, _) = match lost.origin {
            Origin::LinkLocal(_) => (Origin::LinkLocal, LINK_LOCAL_PREFIX),
            Origin::Autoconfigured(_) => (Origin::Autoconfigured, target),
            Origin::Static => return true,
        };
        let (Origin::LinkLocal(conflicts) | Origin::Autoconfigured(conflicts)) = lost.origin else {
            return true;
        };
        if conflicts < IDGEN_RETRIES {
            // RFC 7217 §6: the next one in the row.
            let (address, drawn) = self.identifiers.address(prefix, conflicts + 1);
            let delay = Duration::from_millis(self.random.below(500).into());
            let lifetimes = (lost.preferred_until, lost.valid_until);
            self.add(now, delay, (address, 64), (again(drawn), lost.router), lifetimes);
        }
        true
    }

    /// True if `address` may be used by us.
    pub(crate) fn is_ours(&self, address: Ipv6Addr) -> bool {
        self.assigned().any(|ours| ours.address == address)
    }

    /// The address that packets to `destination` are sent from (RFC 6724 §5).
    pub(crate) fn source_for(&self, now: Instant, destination: Ipv6Addr) -> Option<Ipv6Addr> {
        let rank = |candidate: &&Address| {
            let address = candidate.address;
            let (scope, wanted) = (scope(address), scope(destination));
            (
                // Rule 1: the destination itself.
                address == destination,
                // Rule 2: the smallest scope that is large enough, else the largest.
                if scope >= wanted {
                    100 - i32::from(scope - wanted)
                } else {
                    i32::from(scope) - 100
                },
                // Rule 3.
                !candidate.is_deprecated(now),
                // Rule 6.
                label(address) == label(destination),
                // Rule 8, of the prefix alone.
                common_prefix(address, destination).min(candidate.prefix_len),
                // Else the one that came first.
                core::cmp::Reverse(self.list.iter().position(|other| other == *candidate)),
            )
        };
        self.assigned().max_by_key(rank).map(|address| address.address)
    }
}

/// RFC 4007 §4, RFC 6724 §3.1; unique local addresses are global here.
fn scope(address: Ipv6Addr) -> u8 {
    let octets = address.octets();
    if octets[0] == 0xff {
        octets[1] & 0xf
    } else if address.is_unicast_link_local() || address.is_loopback() {
        2
    } else {
        14
    }
}

/// The label of RFC 6724 §2.1's table.
fn label(address: Ipv6Addr) -> u8 {
    let [a, b, ..] = address.segments();
    match (a, b) {
        _ if address.is_loopback() => 0,
        (0x2002, _) => 2,
        (0x2001, 0) => 5,
        (0x3ffe, _) => 12,
        (0xfec0..=0xfeff, _) => 11,
        (0xfc00..=0xfdff, _) => 13,
        (0, 0) => 3,
        _ => 1,
    }
}

/// Leading bits that two addresses share.
fn common_prefix(a: Ipv6Addr, b: Ipv6Addr) -> u8 {
    (a.to_bits() ^ b.to_bits()).leading_zeros() as u8
}
