//! What routers advertise (RFC 4861 §6.3): themselves, prefixes on the link, name servers; all of
//! it bounded, because anybody on the link can say it (RFC 6104). What is full takes nothing new,
//! so that a flood does not push out what was there before.

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
    failed_at: Option<Instant>,
}

/// A prefix whose addresses are on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    bits: u128,
    len: u8,
    /// `None`: for ever.
    until: Option<Instant>,
}

/// See the module.
pub(crate) struct Routers {
    routers: Vec<Router>,
    prefixes: Vec<Prefix>,
    /// Name servers, and until when.
    servers: Vec<(Ipv6Addr, Option<Instant>)>,
    routers_max: usize,
    prefixes_max: usize,
}

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0)
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

    /// A router says how long it is one; false if there is no room for it.
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
            None if self.routers.len() >= self.routers_max => return false,
            None => {
                let until = now + lifetime;
                self.routers.push(Router { address, until, preference, failed_at: None });
            }
        }
        true
    }

    /// A neighbour is no router (any more).
    pub(crate) fn remove_router(&mut self, address: Ipv6Addr) {
        self.routers.retain(|router| router.address != address);
    }

    /// A neighbour does not answer.
    pub(crate) fn note_failure(&mut self, now: Instant, address: Ipv6Addr) {
        for router in self.routers.iter_mut().filter(|router| router.address == address) {
            router.failed_at = Some(now);
        }
    }

    /// The router for what is not on the link (RFC 4861 §6.3.6, RFC 4191 §3.2): the most preferred
    /// of those that answer; if none does, the one that was found silent first.
    pub(crate) fn default_router(&self, now: Instant) -> Option<Ipv6Addr> {
        let alive = self.routers.iter().filter(|router| router.until > now);
        let rank = |router: &&Router| {
            let failed = router.failed_at.filter(|at| now.saturating_since(*at) < FAILED_FOR);
            (failed.is_none(), core::cmp::Reverse(failed), router.preference)
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

    /// A prefix is on the link for so long; false if there is no room for it.
    pub(crate) fn take_prefix(
        &mut self,
        now: Instant,
        prefix: Ipv6Addr,
        len: u8,
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
            Some(at) => self.prefixes[at].until = until,
            None if is_over => {}
            None if self.prefixes.len() >= self.prefixes_max => return false,
            None => self.prefixes.push(Prefix { bits, len, until }),
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

    /// A name server may be used for so long (RFC 8106 §5.1); false if there is no room for it.
    pub(crate) fn take_server(
        &mut self,
        now: Instant,
        server: Ipv6Addr,
        lifetime: Option<Duration>,
    ) -> bool {
        let until = lifetime.map(|lifetime| now + lifetime);
        let at = self.servers.iter().position(|(known, _)| *known == server);
        match at {
            Some(at) if lifetime == Some(Duration::ZERO) => {
                self.servers.remove(at);
            }
            Some(at) => self.servers[at].1 = until,
            None if lifetime == Some(Duration::ZERO) => {}
            None if self.servers.len() >= SERVERS_MAX => return false,
            None => self.servers.push((server, until)),
        }
        true
    }

    /// The name servers of now.
    pub(crate) fn servers(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.servers.iter().map(|(server, _)| *server)
    }

    /// Forgets what has run out; true if a name server has.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.routers.retain(|router| router.until > now);
        self.prefixes.retain(|prefix| prefix.until.is_none_or(|until| until > now));
        let before = self.servers.len();
        self.servers.retain(|(_, until)| until.is_none_or(|until| until > now));
        self.servers.len() < before
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let routers = self.routers.iter().map(|router| router.until);
        let prefixes = self.prefixes.iter().filter_map(|prefix| prefix.until);
        let servers = self.servers.iter().filter_map(|(_, until)| *until);
        routers.chain(prefixes).chain(servers).min()
    }

    /// Numbers of routers and prefixes.
    pub(crate) fn gauges(&self) -> (usize, usize) {
        (self.routers.len(), self.prefixes.len())
    }
}
