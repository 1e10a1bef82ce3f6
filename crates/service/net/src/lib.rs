//! Sockets for Fata programs.
//!
//! A program gets a [`Stack`] and opens sockets on it. Below it is either Fata's own TCP/IP over a
//! network interface, or the host's sockets; the program cannot tell which:
//!
//! ```text
//!   program ──► Stack ──┬──► Engine (fata-tcpip) ◄── Driver ──► Nic       an image, or a TAP
//!   TcpListener         │
//!   TcpStream           └──► Sockets ───────────────────────► the host    an ordinary process
//!   UdpSocket
//! ```
//!
//! The sockets are what programs for tokio expect: [`TcpStream`] is `AsyncRead` and `AsyncWrite`,
//! and `axum::serve` takes a [`TcpListener`] (feature `axum`, on by default).
//!
//! # How it runs
//! The engine is a state machine under a mutex. A socket's method locks it, acts, unlocks it and
//! wakes the [`Driver`], the one task that moves frames between the engine and the interface. The
//! lock is never held across an `await`. Because the driver's turn comes behind the tasks that were
//! runnable before, all that they wrote goes to the device in one batch, with one notification.
#![forbid(unsafe_code)]

#[cfg(feature = "axum")]
mod axum;
pub mod capture;
mod connect_name;
mod driver;
mod error;
pub mod forward;
mod readiness;
mod resolve;
pub mod router;
mod shared;
mod stack;
mod tcp_listener;
mod tcp_stream;
mod udp_socket;

#[cfg(feature = "axum")]
pub use crate::axum::PeerAddr;
pub use driver::Driver;
pub use fata_device::Keepalive;
pub use fata_tcpip::{
    AddressConfig, ConfigError, CongestionControl, Counters, Ipv6Config, Lease, Limits, StaticRoute,
};
pub use fata_tcpip::{SocketInfo, SocketOwner, SocketState, Traffic};
pub use resolve::ResolverCounters;
pub use stack::{BindAddress, Config, Stack};
pub use tcp_listener::TcpListener;
pub use tcp_stream::TcpStream;
pub use udp_socket::UdpSocket;
