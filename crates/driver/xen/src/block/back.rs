//! [`BlockBackends`]: lends a disk of ours to other guests.

mod counters;
mod server;

pub use counters::BlkbackCounters;
pub(super) use counters::Counts;
pub(super) use server::{ServeLimits, Server};

#[cfg(test)]
mod tests;
