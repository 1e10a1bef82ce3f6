//! Start of day as a model: two ends, a toolstack, and faults, in every order.
//!
//! A [`World`] has a [`Registry`] of keys, two [`Actor`]s and a toolstack. Our ends are the real
//! machines of [`fata_xenbus::handshake`], driven by a [`Driven`]; Linux's are models of its drivers'
//! state machines ([`linux`]), and the backend of consoles is one of QEMU's ([`QemuConsole`]). What the network card does is reduced to one question: was the first
//! frame put on a ring that somebody listens to?
//!
//! What is not a step of its own, and why that leaves nothing out:
//!
//! - A watch's event says no more than "look again", so that only its number and time matter. There are
//!   as many events as changes, but at most two wait at a time: a third would be delivered to an end
//!   that is going to look again anyway. That is coalescing; reordering is then nothing; duplicates
//!   and strays come out of a budget.
//! - A read of many keys is done in pieces: the keys of one directory at once, those of the next
//!   later. [`Grain::Key`] does it key by key.
//! - Time passes only by a deadline that is reached, at any time, the nearest deadline first.
//! - Faults come out of [`Budgets`]: how many of each kind in one schedule.

mod actor;
mod driven;
mod eager;
pub mod linux;
mod qemu;
mod registry;
mod world;

pub use actor::{Act, Actor, Budgets, Condition, Shared, UnderWay};
pub use driven::{Driven, Simulated};
pub use eager::WithoutTheWait;
pub use qemu::QemuConsole;
pub use registry::{Grain, Registry, Wire};
pub use world::{Names, Scenario, Step, Suspension, Tool, World};

#[cfg(test)]
mod tests;
