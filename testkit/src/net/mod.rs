//! A network in memory: hosts, links and a switch, in virtual time, from one seed.
//!
//! - [`World`]: whole programs, many hosts at once, on one runtime whose time is virtual;
//! - [`Network`] and [`Lane`]: the switch and one direction of a link, sans-io, for whoever has a
//!   clock of its own;
//! - [`replay`]: plays a capture into a stack, and compares its answers.
//!
//! docs/testing.md shows how a test is written. `FATA_SEED=NUMBER` makes every world of a test run
//! another seed, and `FATA_PCAP=DIRECTORY` leaves a capture of every port.

mod capture;
mod clock;
mod dice;
mod frames;
mod impairments;
mod lane;
mod network;
mod nic;
mod offload;
pub mod replay;
mod words;
mod world;

#[cfg(test)]
mod tests;

pub use capture::{PCAP_DIRECTORY, Recording};
pub use dice::Dice;
pub use frames::fragmentation_needed;
pub use impairments::{Bursts, Impairments, LaneCounters, Link, Lost, Silence, SwitchCounters};
pub use lane::{Fate, Lane};
pub use network::{MtuAnswer, Network, PortId};
pub use nic::{NicOptions, SimulatedNic};
pub use offload::ReceiveChecksum;
pub use words::{IMPAIRMENT_WORDS, parse_duration};
pub use world::{Host, HostBuilder, Port, SEED, World};
