//! Fata's devices on a Unix host.
//!
//! The same program that boots as an image runs as an ordinary process, because its devices have
//! another implementation here:
//!
//! | device | here |
//! |---|---|
//! | [`Sockets`](fata_device::Sockets) | [`HostSockets`]: the host's own TCP and UDP |
//! | [`Nic`](fata_device::Nic) | [`Tap`]: an Ethernet cable between Fata's stack and the host |
//! | [`Block`](fata_device::Block) | [`FileBlock`]: a file or a block device of the host |
//! | the console's input | [`HostInput`]: standard input |
//!
//! A process has a user in front of it, so every error names the thing that was asked for and
//! says what to do.
//!
//! This crate knows no protocol: `fata-net` runs Fata's stack over a [`Tap`], or hands a
//! program's calls to [`HostSockets`].
#![forbid(unsafe_code)]

mod file_block;
mod host_input;
mod host_sockets;
mod tap;

pub use file_block::FileBlock;
pub use host_input::HostInput;
pub use host_sockets::HostSockets;
pub use tap::Tap;
