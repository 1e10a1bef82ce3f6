//! The Domain Name System (RFC 1034, 1035).

mod answer;
mod cache;
mod host_name;
mod master;
mod query;
mod rate;
mod response;
mod server;
mod zone;

pub use cache::{CACHE_ENTRIES_DEFAULT, Cache};
pub use host_name::{HostName, HostNameError};
pub use query::{Answer, Family, Learned, Query, Unusable};
pub use rate::RateLimit;
pub use server::{Counters, Limits, Server, Transport};
pub use zone::{Zone, ZoneError};

/// Length of a message's header in bytes (RFC 1035 §4.1.1).
const HEADER_LEN: usize = 12;

/// The largest message over UDP without EDNS, in bytes (RFC 1035 §4.2.1).
const UDP_PAYLOAD_MIN: u16 = 512;

/// Links of a chain of aliases that are followed. Chains are short (RFC 1034 §3.6.2 asks for none
/// at all); what is longer is a mistake or a loop.
const CNAME_CHAIN_MAX: usize = 8;

#[cfg(test)]
mod resolver_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod zone_tests;
