//! Formats: views over bytes that may hold anything.
//!
//! A view's `parse` checks every length and offset that its accessors use and returns `None` for
//! bytes that cannot be what they claim; after that no accessor can panic. Nothing here copies, and
//! nothing here decides: what a value means is the business of the module that asked.

pub(crate) mod arp;
pub(crate) mod checksum;
pub(crate) mod dhcp;
pub(crate) mod ethernet;
pub(crate) mod icmpv4;
pub(crate) mod icmpv6;
pub(crate) mod ipv4;
pub(crate) mod ipv6;
pub(crate) mod ndp;
pub(crate) mod tcp;
pub(crate) mod udp;

use std::net::{Ipv4Addr, Ipv6Addr};

/// The big-endian number at `at`; 0 past the end, so that no caller can panic.
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    }
}

/// The big-endian number at `at`; 0 past the end.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// The IPv6 address at `at`; `::` past the end.
fn read_ipv6(bytes: &[u8], at: usize) -> Ipv6Addr {
    match bytes.get(at..at + 16).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()) {
        Some(octets) => Ipv6Addr::from(octets),
        None => Ipv6Addr::UNSPECIFIED,
    }
}

/// The IPv4 address at `at`; 0.0.0.0 past the end.
fn read_ipv4(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(read_u32(bytes, at))
}
