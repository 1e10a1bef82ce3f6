//! [`Failure`]: why a name has no addresses.

use fata_names::dns::Unusable;
use std::fmt;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

/// Why a name has no addresses. Shared by all who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It does not exist.
    NoName,
    /// It has none.
    NoAddress,
    /// Its aliases lead nowhere.
    Aliases,
    /// Nobody can be asked, and why.
    NoServer(String),
    /// The last server that was asked does not answer.
    Silence(SocketAddr),
    /// The last server that was asked has nothing to say.
    Unusable(SocketAddr, Unusable),
    /// The last server could not be asked, and why.
    Unreachable(SocketAddr, String),
    /// Too many questions are on their way.
    TooMany,
}

impl Failure {
    pub(super) fn no_server(why: impl fmt::Display) -> Self {
        Failure::NoServer(why.to_string())
    }

    /// True if the server may answer another time.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Failure::Silence(_) | Failure::Unreachable(..))
    }

    /// The error of whoever wanted `host`.
    pub(crate) fn for_host(&self, host: &str) -> Error {
        let kind = match self {
            Failure::NoName | Failure::NoAddress => ErrorKind::NotFound,
            Failure::Aliases => ErrorKind::InvalidData,
            Failure::NoServer(_) => ErrorKind::NetworkDown,
            Failure::Silence(_) => ErrorKind::TimedOut,
            Failure::Unreachable(..) => ErrorKind::HostUnreachable,
            Failure::TooMany => ErrorKind::QuotaExceeded,
            Failure::Unusable(..) => ErrorKind::Other,
        };
        Error::new(kind, format!("cannot resolve {host}: {self}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoName => write!(f, "there is no such name"),
            Failure::NoAddress => write!(f, "the name has no address"),
            Failure::Aliases => write!(f, "its aliases do not end"),
            Failure::NoServer(why) => f.write_str(why),
            Failure::Silence(server) => write!(f, "the name server {server} does not answer"),
            Failure::Unusable(server, why) => write!(f, "the name server {server}: {why}"),
            Failure::Unreachable(server, why) => {
                write!(f, "the name server {server} cannot be asked: {why}")
            }
            Failure::TooMany => write!(f, "too many questions are on their way"),
        }
    }
}
