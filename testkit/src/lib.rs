//! The simulated world that services are tested in.
#![forbid(unsafe_code)]

pub mod net;
pub mod xen;
