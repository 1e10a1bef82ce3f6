//! What routers advertise (RFC 4861 §6.3): themselves, prefixes on the link, name servers; all of
//! it bounded, because anybody on the link can say it (RFC 6104).
//!
//! What is full takes nothing new, so that a flood does not push out what was there before; but what
//! was there before may be the flood. So routers that have not answered when they were asked give
//! way to others, and what they say gives way to what is said by those who have: a [trusted](Routers::is_trusted)
//! router is one to whom packets are known to get.

use crate::config::Limits;
use crate::time::Instant;
use core::time::Duration;
use std::net::Ipv6Addr;

/// How long a router that did not answer is used only if there is no other.
const FAILED_FOR: Duration = Duration::from_secs(60);
/// Most name servers (RFC 8106 §5.3.1 asks for at least three).
const SERVERS_MAX: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Router {
    address: Ipv6Addr,
    until: Instant,
    preference: i8,
    /// It did not answer, and has not since.
    failed_at: Option<Instant>,
    /// It has answered, and did whenever it was asked since.
    has_answered: bool,
    /// Something that it said was refused before it had answered.
    was_refused: bool,
}

/// A prefix whose addresses are on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    bits: u128,
    len: u8,
    /// `None`: for ever.
    until: Option<Instant>,
    /// Who says so.
    router: Ipv6Addr,
}

/// A name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Server {
    address: Ipv6Addr,
    /// `None`: for ever.
    until: Option<Instant>,
    /// Who says so.
    router: Ipv6Addr,
}

/// See the module.
pub(crate) struct Routers {
    routers: Vec<Router>,
    prefixes: Vec<Prefix>,
    servers: Vec<Server>,
    routers_max: usize,
    prefixes_max: usize,
}

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0)
}

/// Which entry of a full table gives way to one of `newcomer`, a trusted router's: the newest of
/// those whose router is not trusted, or else of the router that has most, if that is more than the
/// newcomer would have. So each of a few routers has its share. `owners` says of each entry, the
/// oldest first, whose it is; `None`: it stays.
pub(super) fn gives_way(
    owners: impl Iterator<Item = Option<Ipv6Addr>> + Clone,
    newcomer: Ipv6Addr,
    is_trusted: impl Fn(Ipv6Addr) -> bool,
) -> Option<usize> {
    if !is_trusted(newcomer) {
        return None;
    }
    let count = |router| owners.clone().filter(|owner| *owner == Some(router)).count();
    let entries = owners.clone().enumerate();
    let (index, owner) = entries
        .filter_map(|(index, owner)| Some((index, owner?)))
        .max_by_key(|&(index, owner)| (!is_trusted(owner), count(owner), index))?;
    (!is_trusted(owner) || count(owner) > count(newcomer) + 1).then_some(index)
}

/// True if `address` is in the prefix of `len` bits that `prefix` begins with.
pub(crate) fn is_in(address: Ipv6Addr, prefix: Ipv6Addr, len: u8) -> bool {
    (address.to_bits() ^ prefix.to_bits()) & mask(len) == 0
}

impl Routers {
    pub(crate) fn new(limits: &Limits) -> Self {
        Routers {
            routers: Vec::new(),
            prefixes: Vec::new(),
            servers: Vec::new(),
            routers_max: limits.ipv6_routers,
            prefixes_max: limits.ipv6_prefixes,
        }
    }

    /// A router says how long it is one; false if there is no room for it. One that did not answer
    /// makes room.
    pub(crate) fn take_router(
        &mut self,
        now: Instant,
        address: Ipv6Addr,
        lifetime: Duration,
        preference: i8,
    ) -> bool {
        let at = self.routers.iter().position(|router| router.address == address);
        match at {
            Some(at) if lifetime.is_zero() => {
                self.routers.remove(at);
            }
            Some(at) => {
                let router = &mut self.routers[at];
                (router.until, router.preference) = (now + lifetime, preference);
            }
            None if lifetime.is_zero() => {}
            None => {
                if self.routers.len() >= self.routers_max {
                    let failed = self.routers.iter().enumerate();
                    let failed = failed.filter_map(|(at, router)| Some((router.failed_at?, at)));
                    let Some((_, at)) = failed.min() else { return false };
                    self.routers.remove(at);
                }
                self.routers.push(Router {
                    address,
                    until: now + lifetime,
                    preference,
                    failed_at: None,
                    has_answered: false,
                    was_refused: false,
                });
            }
        }
        true
    }

    /// Addresses of all routers.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.routers.iter().map(|router| router.address)
    }

    /// Not everything that `router` said was taken.
    pub(crate) fn note_refused(&mut self, router: Ipv6Addr) {
        for router in self.routers.iter_mut().filter(|known| known.address == router) {
            router.was_refused = !router.has_answered;
        }
    }

    /// Routers to ask whether they hear us: those that never were, if there is a choice to make or
    /// something was refused; and `speaker`, who has just been heard, if it did not answer the last
    /// time.
    pub(crate) fn to_ask(&self, speaker: Ipv6Addr) -> Vec<Ipv6Addr> {
        let is_contested = self.routers.len() > 1;
        let wanted = self.routers.iter().filter(|router| match router.failed_at {
            Some(_) => router.address == speaker,
            None => !router.has_answered && (is_contested || router.was_refused),
        });
        wanted.map(|router| router.address).collect()
    }

    /// A neighbour has answered when it was asked. True if what it says is to be heard once more:
    /// it may be taken now.
    pub(crate) fn note_answer(&mut self, address: Ipv6Addr) -> bool {
        let mut is_wanted = false;
        for router in self.routers.iter_mut().filter(|router| router.address == address) {
            (router.has_answered, router.failed_at) = (true, None);
            is_wanted |= core::mem::take(&mut router.was_refused);
        }
        is_wanted
    }

    /// A router to which packets are known to get.
    pub(crate) fn is_trusted(&self, now: Instant, address: Ipv6Addr) -> bool {
        let mut alive = self.routers.iter().filter(|router| router.until > now);
        alive.any(|router| router.address == address && router.has_answered)
    }

    /// A neighbour is no router (any more).
    pub(crate) fn remove_router(&mut self, address: Ipv6Addr) {
        self.routers.retain(|router| router.address != address);
    }

    /// A neighbour does not answer.
    pub(crate) fn note_failure(&mut self, now: Instant, address: Ipv6Addr) {
        for router in self.routers.iter_mut().filter(|router| router.address == address) {
            (router.failed_at, router.has_answered) = (Some(now), false);
        }
    }

    /// The router for what is not on the link (RFC 4861 §6.3.6, RFC 4191 §3.2): of those that have
    /// answered the most preferred; if there is none, of those that may; if none does, the one that
    /// was found silent first.
    pub(crate) fn default_router(&self, now: Instant) -> Option<Ipv6Addr> {
        let alive = self.routers.iter().filter(|router| router.until > now);
        let rank = |router: &&Router| {
            let failed = router.failed_at.filter(|at| now.saturating_since(*at) < FAILED_FOR);
            let is_hopeful = failed.is_none();
            (is_hopeful, core::cmp::Reverse(failed), router.has_answered, router.preference)
        };
        // The first of equals, so that a flow stays where it is.
        let best =
            alive.reduce(|best, other| if rank(&other) > rank(&best) { other } else { best });
        best.map(|router| router.address)
    }

    /// There is a router.
    pub(crate) fn has_router(&self, now: Instant) -> bool {
        self.routers.iter().any(|router| router.until > now)
    }

    /// There is a router that has not just been found silent.
    pub(crate) fn has_hopeful_router(&self, now: Instant) -> bool {
        let is_silent = |at| now.saturating_since(at) < FAILED_FOR;
        let mut alive = self.routers.iter().filter(|router| router.until > now);
        alive.any(|router| !router.failed_at.is_some_and(is_silent))
    }

    /// `router` says that a prefix is on the link for so long; false if there is no room for it.
    pub(crate) fn take_prefix(
        &mut self,
        now: Instant,
        router: Ipv6Addr,
        (prefix, len): (Ipv6Addr, u8),
        valid: Option<Duration>,
    ) -> bool {
        let bits = prefix.to_bits() & mask(len);
        let until = valid.map(|valid| now + valid);
        let is_over = valid == Some(Duration::ZERO);
        let at = self.prefixes.iter().position(|known| (known.bits, known.len) == (bits, len));
        match at {
            Some(at) if is_over => {
                self.prefixes.remove(at);
            }
            Some(at) => {
                let is_trusted = self.is_trusted(now, router);
                let known = &mut self.prefixes[at];
                known.until = until;
                if is_trusted {
                    known.router = router;
                }
            }
            None if is_over => {}
            None => {
                if self.prefixes.len() >= self.prefixes_max {
                    let owners = self.prefixes.iter().map(|prefix| Some(prefix.router));
                    let is_trusted = |router| self.is_trusted(now, router);
                    let Some(at) = gives_way(owners, router, is_trusted) else { return false };
                    self.prefixes.remove(at);
                }
                self.prefixes.push(Prefix { bits, len, until, router });
            }
        }
        true
    }

    /// True if a router says that `address` is on the link.
    pub(crate) fn is_on_link(&self, now: Instant, address: Ipv6Addr) -> bool {
        self.prefixes.iter().any(|prefix| {
            prefix.until.is_none_or(|until| until > now)
                && is_in(address, Ipv6Addr::from_bits(prefix.bits), prefix.len)
        })
    }

    /// `router` says that a name server may be used for so long (RFC 8106 §5.1); false if there is
    /// no room for it.
    pub(crate) fn take_server(
        &mut self,
        now: Instant,
        router: Ipv6Addr,
        address: Ipv6Addr,
        lifetime: Option<Duration>,
    ) -> bool {
        let until = lifetime.map(|lifetime| now + lifetime);
        let at = self.servers.iter().position(|server| server.address == address);
        match at {
            Some(at) if lifetime == Some(Duration::ZERO) => {
                self.servers.remove(at);
            }
            Some(at) => {
                let is_trusted = self.is_trusted(now, router);
                let known = &mut self.servers[at];
                known.until = until;
                if is_trusted {
                    known.router = router;
                }
            }
            None if lifetime == Some(Duration::ZERO) => {}
            None => {
                if self.servers.len() >= SERVERS_MAX {
                    let owners = self.servers.iter().map(|server| Some(server.router));
                    let is_trusted = |router| self.is_trusted(now, router);
                    let Some(at) = gives_way(owners, router, is_trusted) else { return false };
                    self.servers.remove(at);
                }
                self.servers.push(Server { address, until, router });
            }
        }
        true
    }

    /// The name servers of now.
    pub(crate) fn servers(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.servers.iter().map(|server| server.address)
    }

    /// Forgets what has run out; true if a name server has.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.routers.retain(|router| router.until > now);
        self.prefixes.retain(|prefix| prefix.until.is_none_or(|until| until > now));
        let before = self.servers.len();
        self.servers.retain(|server| server.until.is_none_or(|until| until > now));
        self.servers.len() < before
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let routers = self.routers.iter().map(|router| router.until);
        let prefixes = self.prefixes.iter().filter_map(|prefix| prefix.until);
        let servers = self.servers.iter().filter_map(|server| server.until);
        routers.chain(prefixes).chain(servers).min()
    }

    /// Numbers of routers and prefixes.
    pub(crate) fn gauges(&self) -> (usize, usize) {
        (self.routers.len(), self.prefixes.len())
    }
}
