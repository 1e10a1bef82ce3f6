//! The targets, a room each.

pub mod block;
pub mod codecs;
pub mod engine;
pub mod handshake;
pub mod names;
pub mod net;
pub mod pair;
pub mod pcap;
pub mod ring;
pub mod rings;
pub mod router;
pub mod segment;
pub mod store;
pub mod vchan;
pub mod virtq;
