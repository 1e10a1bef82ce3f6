//! A server of the Dynamic Host Configuration Protocol for IPv4 (RFC 2131, 2132).

mod config;
mod counters;
mod leases;
mod reply;
mod server;
mod wire;

pub use config::{Config, ConfigError, Pool};
pub use counters::Counters;
pub use leases::Lease;
pub use reply::{Destination, Reply};
pub use server::Server;

#[cfg(test)]
mod tests;

/// The port that servers, and relays, listen on.
pub const SERVER_PORT: u16 = 67;

/// The port that clients listen on.
pub const CLIENT_PORT: u16 = 68;
