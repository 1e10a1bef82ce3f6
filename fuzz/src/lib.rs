//! Fuzz targets for the engines.
//!
//! A target is a plain function that reads a script from bytes ([`Input`]) and plays an adversary by
//! it: a device that owns the shared page, a host that sends any frame, a XenStore that holds
//! anything. It panics if the engine does, or breaks a promise.
//!
//! The same functions run in three ways: `fuzz/run` lets libFuzzer look for scripts, guided by
//! coverage; `cargo test -p fata-fuzz` plays those that are kept in `corpus/`; and
//! `cargo run -p fata-fuzz -- TARGET FILE` plays one, in a debugger if need be.
#![forbid(unsafe_code)]

pub mod frames;
mod input;
mod memory;
pub mod targets;

pub use input::Input;
pub use memory::Shared;
use targets::{
    block, codecs, engine, handshake, names, net, pair, pcap, ring, rings, router, segment, store,
    vchan, virtq,
};

/// A target.
#[derive(Debug)]
pub struct Target {
    /// What `fuzz/run` calls it, and the name of its folder in `corpus/`.
    pub name: &'static str,
    /// Plays a script.
    pub run: fn(&mut Input<'_>),
    /// Scripts to begin with, by name: what the codecs themselves write.
    pub seeds: fn() -> Vec<(String, Vec<u8>)>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "store_wire", run: store::wire, seeds: store::wire_seeds },
    Target { name: "store_client", run: store::client, seeds: Vec::new },
    Target { name: "handshake", run: handshake::run, seeds: Vec::new },
    Target { name: "ring_core", run: rings::core, seeds: Vec::new },
    Target { name: "ring_bytes", run: rings::bytes, seeds: Vec::new },
    Target { name: "ring_transmit", run: net::transmit, seeds: Vec::new },
    Target { name: "ring_receive", run: net::receive, seeds: Vec::new },
    Target { name: "ring_block", run: block::run, seeds: Vec::new },
    Target { name: "vchan", run: vchan::run, seeds: Vec::new },
    Target { name: "virtq", run: virtq::run, seeds: Vec::new },
    Target { name: "tcpip_codecs", run: codecs::run, seeds: codecs::seeds },
    Target { name: "tcpip_segment", run: segment::run, seeds: segment::seeds },
    Target { name: "tcpip_engine", run: engine::run, seeds: engine::seeds },
    Target { name: "tcpip_dhcp", run: engine::dhcp, seeds: Vec::new },
    Target { name: "tcpip_pair", run: pair::run, seeds: Vec::new },
    Target { name: "tcpip_pair6", run: pair::run_6, seeds: Vec::new },
    Target { name: "tcpip_router", run: router::run, seeds: Vec::new },
    Target { name: "names_dns", run: names::dns, seeds: Vec::new },
    Target { name: "names_dhcp", run: names::dhcp, seeds: Vec::new },
    Target { name: "names_resolver", run: names::resolver, seeds: names::resolver_seeds },
    Target { name: "names_zone", run: names::zone, seeds: names::zone_seeds },
    Target { name: "journal_ring", run: ring::run, seeds: Vec::new },
    Target { name: "pcap", run: pcap::run, seeds: pcap::seeds },
];

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
