//! An in-memory xenstored.
//!
//! [`Tree`] is what is stored, with permissions. [`Xenstored`] serves it to connections, in the bytes
//! of xs_wire.h: transactions that fail with EAGAIN when somebody else was quicker, watches that fire
//! once when they are set, and for everything below them that is removed. It is written from the
//! protocol's description and shares no code with the client that it tests.

mod server;
#[cfg(test)]
mod tests;
mod tree;

pub use server::{ConnectionId, Limits, Xenstored};
pub use tree::{Errno, Node, Permissions, Tree};
