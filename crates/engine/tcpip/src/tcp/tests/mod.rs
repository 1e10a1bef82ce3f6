//! Packet traces. Each line says when, what comes in, and what must go out; sequence numbers are
//! relative, and every trace runs with initial numbers on both sides of the wrap.
//!
//! The tests of one state or subject are in one file; a test that comes from a known failure of
//! another stack names it by its id in the project's list of pitfalls (T04, R06 …).

mod blind;
mod closed_and_listen;
mod closing;
mod harness;
mod icmp;
mod large;
mod lifecycle;
mod limits;
mod long;
mod memory;
mod model;
mod receiving;
mod recovery;
mod report;
mod sack_receiving;
mod sack_recovery;
mod script;
mod sending;
mod syn_received;
mod syn_sent;
mod throughput;
mod timestamps;
