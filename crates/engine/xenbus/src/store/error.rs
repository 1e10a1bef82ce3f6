//! [`StoreError`]: what can go wrong between a guest and xenstored, and whose fault it is.

use super::path::PathError;
use super::wire::Kind;
use crate::ring::bytes::IndexError;
use core::fmt;

macro_rules! errnos {
    ($($name:ident $number:literal $text:literal $words:literal;)*) => {
        /// The errors that xenstored answers with, by their names on the wire (`xsd_errors` in
        /// `io/xs_wire.h`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Errno {
            $(#[doc = $words] $name,)*
            /// A name that `xs_wire.h` does not have.
            Unknown,
        }

        impl Errno {
            /// All that have a name on the wire.
            pub const ALL: &'static [Errno] = &[$(Errno::$name),*];

            /// The name on the wire, without the zero byte that ends it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Errno::$name => $text,)*
                    Errno::Unknown => "an error without a known name",
                }
            }

            /// The number that Xen and Linux give this error (public/errno.h); `EIO`'s for one
            /// without a known name.
            pub const fn number(self) -> i32 {
                match self {
                    $(Errno::$name => $number,)*
                    Errno::Unknown => 5,
                }
            }

            /// The error that a name on the wire stands for.
            pub fn from_name(name: &[u8]) -> Errno {
                $(if name == $text.as_bytes() { return Errno::$name; })*
                Errno::Unknown
            }

            const fn words(self) -> &'static str {
                match self {
                    $(Errno::$name => $words,)*
                    Errno::Unknown => "xenstored named an error that the protocol does not have",
                }
            }
        }
    };
}

errnos! {
    Invalid 22 "EINVAL" "the request makes no sense to it";
    AccessDenied 13 "EACCES" "this domain may not do that to this key";
    Exists 17 "EEXIST" "it exists already";
    IsDirectory 21 "EISDIR" "it is a directory";
    NotFound 2 "ENOENT" "there is no such key";
    NoMemory 12 "ENOMEM" "it has no memory";
    NoSpace 28 "ENOSPC" "this domain has used up what it may store";
    InputOutput 5 "EIO" "it could not do it";
    NotEmpty 39 "ENOTEMPTY" "the directory is not empty";
    NotImplemented 38 "ENOSYS" "it does not know this request";
    ReadOnly 30 "EROFS" "this connection may only read";
    Busy 16 "EBUSY" "this domain has too many transactions open";
    Again 11 "EAGAIN" "somebody else changed the same keys: begin the transaction again";
    IsConnected 106 "EISCONN" "it is connected already";
    TooBig 7 "E2BIG" "the answer or the value is too long";
    NotPermitted 1 "EPERM" "this domain may not do that";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Errno::Unknown => f.write_str(self.words()),
            _ => write!(f, "{} ({})", self.words(), self.name()),
        }
    }
}

/// xenstored broke the rules in a way that leaves no telling where its next message begins. The
/// connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaved {
    /// A message that says it is longer than `XENSTORE_PAYLOAD_MAX`.
    Oversized {
        /// What its header says, in bytes.
        bytes: u32,
    },
    /// A message type that the protocol does not have.
    UnknownKind {
        /// What its header says.
        kind: u32,
    },
    /// An answer of another type than its request.
    WrongKind {
        /// What was asked.
        asked: Kind,
        /// What the answer says it is.
        answered: Kind,
    },
    /// An answer to a request that nobody made.
    UnknownRequest {
        /// The request that it says it answers.
        id: u32,
    },
    /// Counts in the shared page that no sequence of correct steps leads to.
    Ring(IndexError),
    /// The shared page says that xenstored has given the connection up.
    GaveUp {
        /// Why: a `XENSTORE_ERROR_*`, 1 communication, 2 the ring's indices, 3 the protocol.
        error: u32,
    },
}

impl fmt::Display for Misbehaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("xenstored ")?;
        match self {
            Misbehaved::Oversized { bytes } => {
                write!(f, "sent a message of {bytes} bytes, where 4096 is the most")
            }
            Misbehaved::UnknownKind { kind } => {
                write!(f, "sent a message of the unknown type {kind}")
            }
            Misbehaved::WrongKind { asked, answered } => {
                write!(f, "sent an answer of type {answered} to a request of type {asked}")
            }
            Misbehaved::UnknownRequest { id } => {
                write!(f, "sent an answer to request {id}, which nobody made")
            }
            Misbehaved::Ring(error) => write!(f, "broke the ring: {error}"),
            Misbehaved::GaveUp { error } => {
                write!(f, "gave the connection up, with error {error}")
            }
        }
    }
}

impl core::error::Error for Misbehaved {}

impl From<IndexError> for Misbehaved {
    fn from(error: IndexError) -> Self {
        Misbehaved::Ring(error)
    }
}

/// Why a request to XenStore failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// xenstored refused, and says why.
    Refused(Errno),
    /// The answer to one request could not be read; the connection goes on.
    MalformedReply {
        /// What the request was.
        kind: Kind,
    },
    /// The path is not one. Nothing was sent.
    BadPath(PathError),
    /// Path and value together do not fit in a message. Nothing was sent.
    TooLong {
        /// Their length in bytes.
        bytes: usize,
    },
    /// As many requests are unanswered as may be ([`Limits::requests`](super::Limits)). Nothing was
    /// sent; an answer makes room.
    TooManyRequests,
    /// As many watches are set as may be ([`Limits::watches`](super::Limits)).
    TooManyWatches,
    /// The machine was suspended before the answer came. Whether the request was carried out is
    /// unknown; an open transaction is gone.
    Interrupted,
    /// The connection is over.
    Broken(Misbehaved),
}

impl StoreError {
    /// True if the error says that the key does not exist.
    pub fn is_not_found(&self) -> bool {
        *self == StoreError::Refused(Errno::NotFound)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Refused(errno) => write!(f, "xenstored refuses: {errno}"),
            StoreError::MalformedReply { kind } => {
                write!(f, "xenstored's answer to {kind} cannot be read")
            }
            StoreError::BadPath(error) => error.fmt(f),
            StoreError::TooLong { bytes } => {
                write!(f, "path and value have {bytes} bytes, where 4096 is the most")
            }
            StoreError::TooManyRequests => {
                f.write_str("too many requests wait for xenstored's answer")
            }
            StoreError::TooManyWatches => f.write_str("too many watches"),
            StoreError::Interrupted => f.write_str("the machine was suspended before the answer"),
            StoreError::Broken(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for StoreError {}

impl From<Misbehaved> for StoreError {
    fn from(error: Misbehaved) -> Self {
        StoreError::Broken(error)
    }
}

impl From<PathError> for StoreError {
    fn from(error: PathError) -> Self {
        StoreError::BadPath(error)
    }
}
