//! Fata is a library operating system: it links a program with exactly the parts of an operating
//! system that it uses into one sealed image that boots by itself.
//!
//! A program is an ordinary `async` Rust program. What it needs from outside stands in one struct:
//!
//! ```no_run
//! use fata::{Block, Stack};
//!
//! /// Counts its visitors.
//! #[derive(fata::Devices)]
//! struct Devices {
//!     /// The network that visitors come from.
//!     service: Stack,
//!     /// Holds the count.
//!     data: Block,
//!     /// Port that visitors connect to.
//!     #[fata(arg, default = 7000)]
//!     port: u16,
//! }
//!
//! #[fata::main]
//! async fn main(devices: Devices) -> std::io::Result<()> {
//!     let listener = devices.service.tcp_listen(devices.port).await?;
//!     loop {
//!         let (_stream, visitor) = listener.accept().await?;
//!         println!("{visitor} came; the disk has {} sectors", devices.data.geometry().sector_count);
//!     }
//! }
//! ```
//!
//! `fata run` runs it as a Unix process, `fata run -t virtio` boots it in QEMU, `fata run -t xen` on
//! Xen; the source does not change. The struct becomes the image's **manifest**, which `fata describe` prints.
//!
//! Clock, entropy, logs and the console are not devices. They are ambient, through what Rust programs
//! use already: [`std::time`], `tokio::time`, `getrandom`, `tracing` (with `FATA_LOG=debug` among the
//! boot arguments for more of it), `println!`; and [`system::console_input`] for what is typed.
#![forbid(unsafe_code)]

mod block;
mod channel;
mod clients;
mod console;
mod export;
mod interface;
mod log;
mod memory_disk;
mod shutdown;
pub mod system;
pub mod wiring;

pub use block::Block;
pub use channel::{Channel, ChannelStream};
pub use clients::{Client, Clients};
pub use console::ConsoleInput;
pub use export::Export;
pub use fata_macros::{Devices, main};
/// Names and addresses as state machines: an authoritative DNS server, a DHCP server.
pub use fata_names as names;
pub use fata_net::{SocketInfo, SocketOwner, SocketState, Traffic};
pub use fata_net::{Stack, TcpListener, TcpStream, UdpSocket};
/// A bridge of two interfaces, and a router between several.
pub use fata_net::{forward, router};
pub use interface::Interface;
pub use memory_disk::MemoryDisk;
pub use wiring::{Argument, Device, Devices};

/// The device traits, for programs and libraries that are generic over devices.
pub use fata_device as device;
