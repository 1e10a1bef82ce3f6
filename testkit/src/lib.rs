//! The simulated world that services are tested in.
#![forbid(unsafe_code)]

pub mod net;
pub mod xen;

/// The examples in docs/testing.md are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/testing.md")]
struct Documentation;
