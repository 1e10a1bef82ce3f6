//! The engine's errors as `io::Error`: a kind that programs act on, and a text that names the
//! address and what happened.

use fata_tcpip::{BindError, ConnectError, ListenError, SendError, TcpError, Unreachable};
use std::fmt::Display;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

fn unreachable_kind(why: Unreachable) -> ErrorKind {
    match why {
        Unreachable::NoRoute | Unreachable::Network => ErrorKind::NetworkUnreachable,
        Unreachable::Port | Unreachable::Protocol => ErrorKind::ConnectionRefused,
        Unreachable::Prohibited => ErrorKind::PermissionDenied,
        _ => ErrorKind::HostUnreachable,
    }
}

fn tcp_kind(error: TcpError) -> ErrorKind {
    match error {
        TcpError::Reset => ErrorKind::ConnectionReset,
        TcpError::Refused => ErrorKind::ConnectionRefused,
        TcpError::TimedOut => ErrorKind::TimedOut,
        TcpError::Unreachable(why) => unreachable_kind(why),
        TcpError::OutOfMemory => ErrorKind::OutOfMemory,
        TcpError::NotConnected | TcpError::Released => ErrorKind::NotConnected,
        TcpError::WriteShutDown => ErrorKind::BrokenPipe,
        _ => ErrorKind::ConnectionAborted,
    }
}

/// A connection that was established failed.
pub(crate) fn stream(error: TcpError, remote: SocketAddr) -> Error {
    Error::new(tcp_kind(error), format!("TCP connection with {remote}: {error}"))
}

/// A connection was not established.
pub(crate) fn handshake(error: TcpError, remote: SocketAddr) -> Error {
    cannot_connect(tcp_kind(error), remote, error)
}

/// A connection could not even be asked for.
pub(crate) fn connect(error: ConnectError, remote: SocketAddr) -> Error {
    let kind = match error {
        ConnectError::NoAddress => ErrorKind::NetworkDown,
        ConnectError::NoRoute(_) => ErrorKind::NetworkUnreachable,
        ConnectError::NoFreePort => ErrorKind::AddrInUse,
        ConnectError::TooMany => ErrorKind::QuotaExceeded,
        _ => ErrorKind::InvalidInput,
    };
    cannot_connect(kind, remote, error)
}

pub(crate) fn cannot_connect(kind: ErrorKind, remote: SocketAddr, why: impl Display) -> Error {
    Error::new(kind, format!("cannot connect to {remote}: {why}"))
}

pub(crate) fn listen(error: ListenError, local: SocketAddr) -> Error {
    let kind = match error {
        ListenError::InUse(_) | ListenError::NoFreePort => ErrorKind::AddrInUse,
        ListenError::NotOurs(_) => ErrorKind::AddrNotAvailable,
        ListenError::TooMany => ErrorKind::QuotaExceeded,
        _ => ErrorKind::InvalidInput,
    };
    Error::new(kind, format!("cannot listen for TCP connections on {local}: {error}"))
}

pub(crate) fn bind(error: BindError, local: SocketAddr) -> Error {
    let kind = match error {
        BindError::InUse(_) | BindError::NoFreePort => ErrorKind::AddrInUse,
        BindError::NotOurs(_) => ErrorKind::AddrNotAvailable,
        BindError::TooMany => ErrorKind::QuotaExceeded,
        _ => ErrorKind::InvalidInput,
    };
    Error::new(kind, format!("cannot open a UDP socket on {local}: {error}"))
}

pub(crate) fn send(error: SendError, len: usize, destination: SocketAddr) -> Error {
    let kind = match error {
        SendError::NoAddress => ErrorKind::NetworkDown,
        SendError::NoRoute(_) => ErrorKind::NetworkUnreachable,
        SendError::Closed => ErrorKind::NotConnected,
        _ => ErrorKind::InvalidInput,
    };
    Error::new(kind, format!("cannot send {len} bytes to {destination}: {error}"))
}
