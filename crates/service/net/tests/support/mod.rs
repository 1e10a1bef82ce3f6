//! Stacks in the simulated world.
#![allow(dead_code, reason = "each test file uses its part")]

use fata_net::Config;
use fata_testkit::net::{Host, World};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub(crate) const LEFT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const RIGHT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Two stacks, [`LEFT`] and [`RIGHT`], on one cable.
pub(crate) fn pair() -> (Host, Host) {
    pair_with(|config| config)
}

/// [`pair`] with another configuration for both.
pub(crate) fn pair_with(adjust: impl Fn(Config) -> Config) -> (Host, Host) {
    let world = World::new(1);
    let host = |name| world.host(name).config(&adjust).start();
    let (left, right) = (host("left"), host("right"));
    assert_eq!((left.address, right.address), (LEFT, RIGHT));
    (left, right)
}

/// `address:port`.
pub(crate) fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address), port)
}

/// Bytes that show a byte lost, doubled or out of place: 4 KiB of noise again and again, each time
/// with its number in front.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    const NOISE: usize = 4096;
    let noise: Vec<u8> = (0..NOISE).map(|at| (at * at / 7 + at) as u8).collect();
    let mut bytes = Vec::with_capacity(len + NOISE);
    for number in 0..len.div_ceil(NOISE) as u64 {
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&noise[8..]);
    }
    bytes.truncate(len);
    bytes
}
