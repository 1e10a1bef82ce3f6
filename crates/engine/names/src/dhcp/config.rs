//! What a server is told once: which addresses it gives, for how long, and what goes with them.

use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;

/// Addresses of all pools together. Each costs at most 300 bytes once it is given, whatever its client
/// says of itself (`tests/dhcp_memory.rs` counts); and a search for a free one looks at each.
const POOL_ADDRESSES_MAX: u32 = 16_384;

/// Name servers and routers that fit into an answer with everything else (RFC 2131 §2: clients take
/// 312 bytes of options).
const LIST_MAX: usize = 8;

/// The shortest lease. At half of it a client asks again.
const LEASE_MIN: Duration = Duration::from_secs(10);

/// The longest lease: what is longer than 2^32 - 2 seconds is for ever (RFC 2131 §3.3), and this
/// server gives nothing away.
const LEASE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Addresses of one subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// First address that is given.
    pub first: Ipv4Addr,
    /// Last address that is given.
    pub last: Ipv4Addr,
    /// Length of the subnet's prefix in bits, 1 to 30.
    pub prefix_len: u8,
    /// The clients' router, in the subnet and outside the pool.
    pub router: Option<Ipv4Addr>,
}

impl Pool {
    pub(super) fn mask(&self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix_len))
    }

    /// True if `address` is in the pool's subnet.
    pub(super) fn is_on_link(&self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.first.to_bits()) & self.mask() == 0
    }

    /// True if `address` is one that the pool gives.
    pub(super) fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Number of addresses.
    pub(super) fn len(&self) -> u32 {
        self.last.to_bits() - self.first.to_bits() + 1
    }
}

/// What a server gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The server's own address, by which clients name it.
    pub server: Ipv4Addr,
    /// One pool for each subnet: that of the server's own link, and those behind relays.
    pub pools: Vec<Pool>,
    /// Name servers, eight at most.
    pub dns: Vec<Ipv4Addr>,
    /// The clients' domain, 1 to 63 bytes.
    pub domain: Option<String>,
    /// How long an address is given for. Between ten seconds and a year.
    pub lease: Duration,
    /// How long an offered address waits for its client's request. Short, so that whoever asks and
    /// never takes holds nothing (RFC 2131 §3.1 leaves it open). Default 10 s, twice what a client
    /// waits for other offers.
    pub offer_hold: Duration,
    /// How long an address that its client found taken is not given. Default 10 minutes.
    pub decline_hold: Duration,
    /// Answers a second to clients that have no lease, and at once after a pause. Those that have
    /// one are answered in any case. Default 100: a building after a power cut is served in a
    /// minute, and who invents clients is held to it.
    pub strangers_per_second: u32,
}

impl Config {
    /// A server at `server` for one pool, with leases of an hour.
    pub fn new(server: Ipv4Addr, pool: Pool) -> Self {
        Config {
            server,
            pools: vec![pool],
            dns: Vec::new(),
            domain: None,
            lease: Duration::from_secs(3600),
            offer_hold: Duration::from_secs(10),
            decline_hold: Duration::from_secs(600),
            strangers_per_second: 100,
        }
    }

    /// Checks what a server cannot do without.
    ///
    /// # Errors
    /// [`ConfigError`], naming the setting.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let mut total = 0_u32;
        for (index, pool) in self.pools.iter().enumerate() {
            let fail = |why| Err(ConfigError::Pool { pool: pool.clone(), why });
            if !(1..=30).contains(&pool.prefix_len) {
                return fail("the prefix has 1 to 30 bits");
            }
            if pool.first > pool.last {
                return fail("it ends before it begins");
            }
            if !pool.is_on_link(pool.last) {
                return fail("it leaves its subnet");
            }
            let network = pool.first.to_bits() & pool.mask();
            let broadcast = network | !pool.mask();
            if pool.first.to_bits() == network || pool.last.to_bits() == broadcast {
                return fail("it has the subnet's number or its broadcast address");
            }
            if pool.contains(self.server) {
                return fail("it has the server's own address");
            }
            if pool.router.is_some_and(|it| !pool.is_on_link(it) || pool.contains(it)) {
                return fail("its router is in the subnet, and not in the pool");
            }
            if self.pools[..index].iter().any(|other| other.is_on_link(pool.first)) {
                return fail("another pool has the same subnet");
            }
            total = total.saturating_add(pool.len());
        }
        if total == 0 || total > POOL_ADDRESSES_MAX {
            return Err(ConfigError::Addresses { total, most: POOL_ADDRESSES_MAX });
        }
        if self.dns.len() > LIST_MAX {
            return Err(ConfigError::Dns { count: self.dns.len(), most: LIST_MAX });
        }
        if self.domain.as_ref().is_some_and(|name| !(1..=63).contains(&name.len())) {
            return Err(ConfigError::Domain);
        }
        if !(LEASE_MIN..=LEASE_MAX).contains(&self.lease) {
            return Err(ConfigError::Lease(self.lease));
        }
        Ok(())
    }
}

/// Why a server cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A pool that is none.
    Pool {
        /// The pool.
        pool: Pool,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No addresses, or more than a server keeps.
    Addresses {
        /// How many.
        total: u32,
        /// How many it keeps.
        most: u32,
    },
    /// More name servers than fit into an answer.
    Dns {
        /// How many.
        count: usize,
        /// How many fit.
        most: usize,
    },
    /// The domain is empty or longer than 63 bytes.
    Domain,
    /// A lease that is too short or too long.
    Lease(Duration),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Pool { pool, why } => {
                write!(f, "pool {} to {}/{}: {why}", pool.first, pool.last, pool.prefix_len)
            }
            ConfigError::Addresses { total, most } => {
                write!(f, "the pools have {total} addresses: 1 to {most} are possible")
            }
            ConfigError::Dns { count, most } => {
                write!(f, "{count} name servers: at most {most} fit into an answer")
            }
            ConfigError::Domain => write!(f, "the domain has 1 to 63 bytes"),
            ConfigError::Lease(lease) => write!(
                f,
                "a lease of {} s: {} s to {} s are possible",
                lease.as_secs(),
                LEASE_MIN.as_secs(),
                LEASE_MAX.as_secs()
            ),
        }
    }
}

impl std::error::Error for ConfigError {}
