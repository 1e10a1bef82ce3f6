//! Drivers for Xen's devices, both ends of each.
#![forbid(unsafe_code)]
