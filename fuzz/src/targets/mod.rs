//! The targets, a room each.

pub mod block;
pub mod codecs;
pub mod handshake;
pub mod net;
pub mod rings;
pub mod store;
pub mod vchan;
pub mod virtq;
