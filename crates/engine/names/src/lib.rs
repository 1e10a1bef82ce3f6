//! Names and addresses as state machines: what a DNS server answers, what a resolver believes and
//! remembers, whom a DHCP server gives which address.
//!
//! Nothing here does I/O or has a clock or randomness of its own. Messages go in with the time,
//! which is a [`Duration`](core::time::Duration) since any fixed moment, and messages come out. What
//! strangers can make it hold is bounded, and what was refused is counted.
//!
//! - [`dns::Server`] answers for a [`dns::Zone`] (RFC 1034, 1035, 2308, 4592, 6891, 7766, 8482);
//! - [`dns::Query`] and [`dns::Cache`] are a stub resolver's half (RFC 1034 §5.3, 2308, 5452);
//! - [`dhcp::Server`] gives out the addresses of a pool (RFC 2131, 2132).
#![forbid(unsafe_code)]

pub mod dhcp;
pub mod dns;
