//! Why a call on a socket failed: one type per operation, each naming the culprit.

use core::fmt;
use std::net::SocketAddr;

/// Why a remote host cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unreachable {
    /// No route: not in the subnet, and there is no gateway.
    NoRoute,
    /// The neighbour that the route leads to does not answer ARP.
    Neighbour,
    /// A router says that the network cannot be reached.
    Network,
    /// A router says that the host cannot be reached.
    Host,
    /// The host says that nobody is at the port.
    Port,
    /// The host does not know the protocol.
    Protocol,
    /// A router or a host forbids it.
    Prohibited,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unreachable::NoRoute => "no route to the host",
            Unreachable::Neighbour => "the host or its router does not answer ARP",
            Unreachable::Network => "a router reports that the network is unreachable",
            Unreachable::Host => "a router reports that the host is unreachable",
            Unreachable::Port => "the host reports that the port is unreachable",
            Unreachable::Protocol => "the host reports that it does not know the protocol",
            Unreachable::Prohibited => "a router reports that the traffic is prohibited",
        })
    }
}

/// Why a TCP connection failed, or a call on it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TcpError {
    /// The peer reset the connection.
    Reset,
    /// The peer refused the connection: nobody listens on the port.
    Refused,
    /// The peer did not answer for too long.
    TimedOut,
    /// The peer cannot be reached.
    Unreachable(Unreachable),
    /// The interface lost the address that the connection was bound to.
    AddressLost,
    /// The connection was reset here because memory ran short.
    OutOfMemory,
    /// The handshake has not ended.
    NotConnected,
    /// This end has shut down its side for writing.
    WriteShutDown,
    /// The id is of a connection that was released or aborted.
    Released,
}

impl fmt::Display for TcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TcpError::Reset => f.write_str("the peer reset the connection"),
            TcpError::Refused => f.write_str("the peer refused the connection"),
            TcpError::TimedOut => f.write_str("the peer did not answer for too long"),
            TcpError::Unreachable(why) => why.fmt(f),
            TcpError::AddressLost => f.write_str("the interface lost the connection's address"),
            TcpError::OutOfMemory => f.write_str("reset because the memory for TCP ran short"),
            TcpError::NotConnected => f.write_str("the connection is not established"),
            TcpError::WriteShutDown => f.write_str("this end has shut down its side"),
            TcpError::Released => f.write_str("the connection was released"),
        }
    }
}

impl std::error::Error for TcpError {}

/// Why `tcp_listen` failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListenError {
    /// Another listener has this address and port.
    InUse(SocketAddr),
    /// Not an address of this interface.
    NotOurs(SocketAddr),
    /// All ports that the engine may pick are taken.
    NoFreePort,
    /// The limit on listeners is reached.
    TooMany,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::InUse(address) => write!(f, "{address} is in use"),
            ListenError::NotOurs(address) => write!(f, "{address} is not an address of this host"),
            ListenError::NoFreePort => f.write_str("no port is free"),
            ListenError::TooMany => f.write_str("the limit on listening sockets is reached"),
        }
    }
}

impl std::error::Error for ListenError {}

/// Why `tcp_connect` failed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectError {
    /// The remote address cannot be a host's, or the port is 0.
    BadAddress(SocketAddr),
    /// The interface has no address of the family yet.
    NoAddress,
    /// There is no route to the host.
    NoRoute(SocketAddr),
    /// All ports towards this remote address are taken.
    NoFreePort,
    /// The limit on connections is reached.
    TooMany,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::BadAddress(address) => write!(f, "{address} cannot be connected to"),
            ConnectError::NoAddress => f.write_str("the interface has no address yet"),
            ConnectError::NoRoute(address) => write!(f, "no route to {address}"),
            ConnectError::NoFreePort => f.write_str("no port is free"),
            ConnectError::TooMany => f.write_str("the limit on connections is reached"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Why `udp_bind` failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BindError {
    /// Another socket has this address and port.
    InUse(SocketAddr),
    /// Not an address of this interface.
    NotOurs(SocketAddr),
    /// All ports that the engine may pick are taken.
    NoFreePort,
    /// The limit on UDP sockets is reached.
    TooMany,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::InUse(address) => write!(f, "{address} is in use"),
            BindError::NotOurs(address) => write!(f, "{address} is not an address of this host"),
            BindError::NoFreePort => f.write_str("no port is free"),
            BindError::TooMany => f.write_str("the limit on UDP sockets is reached"),
        }
    }
}

impl std::error::Error for BindError {}

/// Why `udp_send` failed. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendError {
    /// The payload has more bytes than a UDP datagram can hold: 65,507 over IPv4.
    TooLong {
        /// The payload's length in bytes.
        len: usize,
    },
    /// The destination cannot be sent to: unspecified, reserved, or port 0.
    BadAddress(SocketAddr),
    /// The interface has no address of the family yet.
    NoAddress,
    /// There is no route to the destination.
    NoRoute(SocketAddr),
    /// The id is of a socket that was closed.
    Closed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::TooLong { len } => {
                write!(f, "{len} bytes are too many for a datagram")
            }
            SendError::BadAddress(address) => write!(f, "{address} cannot be sent to"),
            SendError::NoAddress => f.write_str("the interface has no address yet"),
            SendError::NoRoute(address) => write!(f, "no route to {address}"),
            SendError::Closed => f.write_str("the socket was closed"),
        }
    }
}

impl std::error::Error for SendError {}
