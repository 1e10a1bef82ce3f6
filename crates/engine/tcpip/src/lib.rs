//! Fata's TCP/IP as a state machine.
//!
//! [`Engine`] is the whole stack of one interface: it owns no device, no clock and no source of
//! randomness. Frames and the time go in through `handle_*`; frames, the next deadline and events
//! come out of `poll_*`:
//!
//! ```text
//!               handle_frame(now, frame)        handle_timeout(now)
//!                          │                            │
//!    tcp_* udp_* calls ──► Engine { ARP · NDP · IP · ICMP · UDP · DHCP · TCP }
//!                          │                            │
//!      poll_transmit(now, buffer)     poll_timeout()    poll_event()
//! ```
//!
//! After every call of `handle_*` or of a socket's method, drain `poll_transmit` and `poll_event`,
//! then wait until `poll_timeout`. Everything that a peer says is checked and bounded; nothing that
//! arrives can panic, loop or grow memory beyond [`Config`]'s limits.
//!
//! Read first: RFC 9293 (TCP), RFC 1122 (hosts), RFC 791, RFC 826, RFC 2131; RFC 8200 (IPv6), RFC
//! 4861, RFC 4862.
#![forbid(unsafe_code)]

mod config;
mod counters;
mod dhcp;
mod engine;
mod error;
mod event;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod icmp;
mod ipv6;
mod limiter;
mod neighbour;
mod output;
mod path_mtu;
mod reassembly;
pub mod router;
mod routes;
mod secret;
pub mod segment;
#[cfg(test)]
mod simulation;
mod socket;
mod tcp;
mod time;
mod udp;
mod wire;

pub use config::{
    AddressConfig, Config, ConfigError, CongestionControl, Ipv6Config, Lease, Limits, MacAddress,
    StaticRoute, UnknownCongestionControl,
};
pub use counters::Counters;
pub use engine::{Engine, FrameChecksum, PartialChecksum, Transmit};
pub use error::{BindError, ConnectError, ListenError, SendError, TcpError, Unreachable};
pub use event::Event;
pub use socket::{Accepted, Datagram, Keepalive, ListenerId, TcpId, TcpStatus, UdpId};
pub use tcp::{SocketInfo, SocketOwner, SocketState, Traffic};
pub use time::Instant;
