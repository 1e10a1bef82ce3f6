//! Names: a caching stub resolver (RFC 1034 §5.3.1), the same over either kind of stack.
//!
//! It asks the name servers that the stack knows of, from the lease or the host's configuration, and
//! believes what [`fata_names::dns::Query`] does. What is asked for twice at a time is asked once.
//! Nothing here is linked into a program that resolves no names.

mod counters;
mod exchange;
mod failure;

pub use counters::ResolverCounters;

use crate::stack::Stack;
use exchange::Exchange;
pub(crate) use failure::Failure;
use fata_names::dns::{
    Answer, CACHE_ENTRIES_DEFAULT, Cache, Family, HostName, Learned, Query, Unusable,
};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Questions on their way at a time. Each has a socket, and lasts seconds at the worst; a program
/// that wants more at once is told so.
const QUESTIONS_MAX: usize = 256;

/// Name servers that are asked, the first ones: others' resolvers know no more than three either.
const SERVERS_MAX: usize = 3;

/// How long a server is waited for, each time it is asked. A local one answers in milliseconds, and
/// asks others itself, which takes a second at times; whoever loses a datagram waits for one of
/// these.
const PATIENCE: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Aliases that are asked for one after the other, beyond those that one answer follows.
const ALIASES_MAX: usize = 8;

/// What a stack knows of names, and whom it is asking.
pub(crate) struct Resolver {
    state: Mutex<State>,
    epoch: Instant,
    /// What ids are drawn from: std's hash with keys from the system's generator is a pseudorandom
    /// function of a counter.
    secret: RandomState,
}

struct State {
    cache: Cache,
    flights: BTreeMap<(HostName, Family), Arc<Flight>>,
    counters: ResolverCounters,
    /// Ids drawn so far.
    drawn: u64,
}

/// A question on its way. Whoever waits longest asks it; if the one that does is dropped, another
/// one goes on.
type Flight = OnceCell<Result<Learned, Failure>>;

/// One of those who wait for a flight. The last one takes it off the list.
struct Passenger<'a> {
    resolver: &'a Resolver,
    key: (HostName, Family),
    flight: Arc<Flight>,
}

impl Drop for Passenger<'_> {
    fn drop(&mut self) {
        let mut state = self.resolver.lock();
        // The list's and ours: nobody gets another one while the lock is held.
        let is_last = Arc::strong_count(&self.flight) <= 2;
        let is_listed =
            state.flights.get(&self.key).is_some_and(|it| Arc::ptr_eq(it, &self.flight));
        if is_listed && (is_last || self.flight.initialized()) {
            state.flights.remove(&self.key);
        }
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Resolver {
            state: Mutex::new(State {
                cache: Cache::new(CACHE_ENTRIES_DEFAULT),
                flights: BTreeMap::new(),
                counters: ResolverCounters::default(),
                drawn: 0,
            }),
            epoch: Instant::now(),
            secret: RandomState::new(),
        }
    }
}

impl Resolver {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is half done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, count: impl FnOnce(&mut ResolverCounters)) {
        count(&mut self.lock().counters);
    }

    fn id(&self) -> u16 {
        let mut state = self.lock();
        state.drawn += 1;
        self.secret.hash_one(state.drawn) as u16
    }

    pub(crate) fn counters(&self) -> ResolverCounters {
        let state = self.lock();
        ResolverCounters {
            cache_entries: state.cache.len() as u64,
            cache_evicted: state.cache.evicted(),
            ..state.counters
        }
    }

    /// A name's addresses of one family, none if it has none.
    async fn addresses(
        &self,
        stack: &Stack,
        name: &HostName,
        family: Family,
    ) -> Result<Vec<IpAddr>, Failure> {
        let mut name = name.clone();
        for _ in 0..=ALIASES_MAX {
            // Here, because an alias may lead to them, too: they are asked of nobody.
            if name.is_localhost() {
                let own = match family {
                    Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
                    Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
                };
                return Ok(vec![own]);
            }
            if name.is_invalid() {
                return Err(Failure::NoName);
            }
            match self.answer(stack, &name, family).await? {
                Answer::Addresses(addresses) => return Ok(addresses),
                Answer::NoAddress => return Ok(Vec::new()),
                Answer::NoName => return Err(Failure::NoName),
                Answer::Alias(target) => name = target,
            }
        }
        Err(Failure::Aliases)
    }

    /// What is remembered of a name, or what a server says.
    async fn answer(
        &self,
        stack: &Stack,
        name: &HostName,
        family: Family,
    ) -> Result<Answer, Failure> {
        let passenger = {
            let now = self.epoch.elapsed();
            let mut state = self.lock();
            if let Some(answer) = state.cache.get(now, name, family).cloned() {
                state.counters.cache_hits += 1;
                return Ok(answer);
            }
            let key = (name.clone(), family);
            let flight = match state.flights.get(&key).cloned() {
                Some(flight) => {
                    state.counters.joined += 1;
                    flight
                }
                None if state.flights.len() >= QUESTIONS_MAX => {
                    state.counters.too_many += 1;
                    return Err(Failure::TooMany);
                }
                None => {
                    let flight = Arc::<Flight>::default();
                    state.flights.insert(key.clone(), Arc::clone(&flight));
                    flight
                }
            };
            Passenger { resolver: self, key, flight }
        };
        let ask = || self.ask(stack, name, family);
        passenger.flight.get_or_init(ask).await.clone().map(|learned| learned.answer)
    }

    /// Asks the stack's name servers, one after the other, until one answers.
    async fn ask(
        &self,
        stack: &Stack,
        name: &HostName,
        family: Family,
    ) -> Result<Learned, Failure> {
        let servers = stack.name_servers().await.map_err(Failure::no_server)?;
        let mut failure = Failure::no_server("no name server is known");
        for patience in PATIENCE {
            let mut is_silent = false;
            for server in servers.iter().take(SERVERS_MAX) {
                let query = Query::new(name, family, self.id());
                match (Exchange { resolver: self, stack, server: *server, query })
                    .run(patience)
                    .await
                {
                    Ok(learned) => {
                        let now = self.epoch.elapsed();
                        self.lock().cache.insert(now, name.clone(), family, &learned);
                        return Ok(learned);
                    }
                    Err(why) => {
                        is_silent |= why.is_silence();
                        failure = why;
                    }
                }
            }
            // Who says no says it again.
            if !is_silent {
                break;
            }
        }
        self.count(|counters| counters.failed += 1);
        Err(failure)
    }
}

/// Names.
impl Stack {
    /// The addresses of a host, of both families, IPv6 first; the stack's name servers are asked if
    /// they are not remembered. An address in text stands for itself. Dropping the future gives up.
    ///
    /// A name is taken as it stands: there is no list of domains to complete it, and no file of
    /// hosts. `localhost`, and all below it, is this stack.
    ///
    /// # Errors
    /// `InvalidInput` if it is no name; `NotFound` if there is no such name, or it has no address;
    /// `TimedOut` if no server answers, after seven seconds for each; `NetworkDown` if none is known
    /// …, each naming the host.
    pub async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let name = match target(host)? {
            Target::Address(address) => return Ok(vec![address]),
            Target::Name(name) => name,
        };
        let resolver = self.resolver();
        let (six, four) = tokio::join!(
            resolver.addresses(self, &name, Family::V6),
            resolver.addresses(self, &name, Family::V4),
        );
        merge(host, six, four)
    }

    /// What the resolver counted since the stack's start, and what it remembers.
    pub fn resolver_counters(&self) -> ResolverCounters {
        self.resolver().counters()
    }

    /// A name's addresses of one family.
    pub(crate) async fn resolve_family(
        &self,
        name: &HostName,
        family: Family,
    ) -> Result<Vec<IpAddr>, Failure> {
        self.resolver().addresses(self, name, family).await
    }
}

/// What a program means by a text.
pub(crate) enum Target {
    Address(IpAddr),
    Name(HostName),
}

pub(crate) fn target(host: &str) -> io::Result<Target> {
    // As URLs have it (RFC 3986 §3.2.2).
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Ok(Target::Address(address));
    }
    HostName::parse(host).map(Target::Name).map_err(|why| {
        io::Error::new(ErrorKind::InvalidInput, format!("cannot resolve {host:?}: {why}"))
    })
}

/// Both families' addresses; an error if there is none.
pub(crate) fn merge(
    host: &str,
    six: Result<Vec<IpAddr>, Failure>,
    four: Result<Vec<IpAddr>, Failure>,
) -> io::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    let mut failure = Failure::NoAddress;
    // That of the family that more hosts have is the better reason.
    for answer in [six, four] {
        match answer {
            Ok(more) => addresses.extend(more),
            Err(why) => failure = why,
        }
    }
    if addresses.is_empty() { Err(failure.for_host(host)) } else { Ok(addresses) }
}

/// The port of name servers.
pub(crate) const PORT: u16 = 53;

/// A server at its usual port.
pub(crate) fn server(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, PORT)
}
