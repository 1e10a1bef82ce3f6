//! What a program sees of its sockets: names for them, and what calls on them return.

use crate::error::TcpError;
use core::time::Duration;
use std::net::SocketAddr;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// A slot's index and its generation: once the object is gone its id is dead for ever, and
        /// a call with it gives an error or nothing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            index: u32,
            generation: u32,
        }

        impl $name {
            pub(crate) const fn new(index: u32, generation: u32) -> Self {
                $name { index, generation }
            }

            /// Index of the slot: dense, so that it can index a table of wakers. Another object may
            /// get it after this one is gone.
            pub const fn index(self) -> usize {
                self.index as usize
            }

            /// Tells apart the objects that had the slot one after the other.
            pub const fn generation(self) -> u32 {
                self.generation
            }
        }
    };
}

id! {
    /// Names a TCP connection.
    TcpId
}
id! {
    /// Names a listening TCP socket.
    ListenerId
}
id! {
    /// Names a UDP socket.
    UdpId
}

/// A connection that `tcp_accept` took from its listener's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The connection, established.
    pub connection: TcpId,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

/// Where a TCP connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpStatus {
    /// The handshake has not ended.
    Connecting,
    /// Established, perhaps closed in one direction.
    Open {
        /// `tcp_read` would not block: there is data, or the peer's FIN was reached.
        readable: bool,
        /// `tcp_write` would not block.
        writable: bool,
    },
    /// Both directions ended in order.
    Closed,
    /// Ended by an error.
    Failed(TcpError),
    /// The id is dead.
    Released,
}

/// When to ask a silent peer whether it is still there (RFC 9293 §3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection ends with [`TcpError::TimedOut`]; at least 1.
    pub probes: u32,
}

/// A UDP datagram that `udp_receive` copied out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Bytes copied into the buffer.
    pub len: usize,
    /// The datagram was longer than the buffer; the rest is lost.
    pub truncated: bool,
    /// Who sent it.
    pub source: SocketAddr,
    /// The address that it was sent to: ours, or a broadcast address.
    pub destination: SocketAddr,
}
