//! Xen's hypercalls, event channels and grant tables as a safe interface.
#![cfg_attr(not(test), no_std)]

extern crate alloc;
