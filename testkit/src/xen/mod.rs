//! Xen without Xen: what the handshakes meet.
//!
//! - [`store`]: an in-memory xenstored, for tests of clients;
//! - [`explore`]: runs a model through every order in which its events can happen;
//! - [`handshake`]: the models: the real machines of [`fata_xenbus::handshake`], Linux's drivers as far
//!   as they matter here, a toolstack, and faults.
//!
//! docs/start-of-day.md tells the story.

pub mod explore;
pub mod handshake;
pub mod store;
