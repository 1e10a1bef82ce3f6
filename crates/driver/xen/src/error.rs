//! [`XenError`]: why something on Xen did not work, and where.

use core::fmt;
use fata_hypercall::HypercallError;
use fata_xenbus::handshake::HandshakeError;
use fata_xenbus::store::{Kind, StoreError};

/// Why a device, or a request to XenStore, failed. The text names the culprit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum XenError {
    /// Xen refused a hypercall.
    Hypercall(HypercallError),
    /// A request to XenStore failed.
    Store {
        /// What was asked.
        request: Kind,
        /// Of which path; empty if the request has none.
        path: String,
        /// Why it failed.
        error: StoreError,
    },
    /// Other domains changed the same keys during each of many attempts at a transaction.
    TransactionConflicts {
        /// How often it was tried.
        attempts: u32,
    },
    /// A list of names in XenStore that is too long, or changed while each of its parts was read.
    DirectoryTooLong {
        /// The directory.
        path: String,
    },
    /// The two ends of a device did not come together, or came apart.
    Handshake(HandshakeError),
    /// The tools gave the guest no such page, or it was taken before.
    NoPage(&'static str),
    /// A key in the guest's own directory holds what it must not.
    BadKey {
        /// Its path.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A device could not be chosen or used; in words.
    Device(String),
}

impl XenError {
    /// True if the error says that the key does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, XenError::Store { error, .. } if error.is_not_found())
    }

    pub(crate) fn store(request: Kind, path: &str, error: impl Into<StoreError>) -> Self {
        XenError::Store { request, path: path.to_owned(), error: error.into() }
    }
}

impl fmt::Display for XenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            XenError::Hypercall(error) => error.fmt(f),
            XenError::Store { request, path, error } if path.is_empty() => {
                write!(f, "{request}: {error}")
            }
            XenError::Store { request, path, error } => write!(f, "{request} of {path}: {error}"),
            XenError::TransactionConflicts { attempts } => write!(
                f,
                "a transaction of XenStore met other domains' changes in each of {attempts} attempts"
            ),
            XenError::DirectoryTooLong { path } => {
                write!(f, "{path} in XenStore has too many names, or they change without end")
            }
            XenError::Handshake(error) => error.fmt(f),
            XenError::NoPage(which) => write!(f, "the tools gave this guest no page for {which}"),
            XenError::BadKey { path, why } => write!(f, "{path} in XenStore is {why}"),
            XenError::Device(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for XenError {}

impl From<HypercallError> for XenError {
    fn from(error: HypercallError) -> Self {
        XenError::Hypercall(error)
    }
}

impl From<HandshakeError> for XenError {
    fn from(error: HandshakeError) -> Self {
        XenError::Handshake(error)
    }
}
