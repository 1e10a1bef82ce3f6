//! What can go wrong between two ends, with the culprit's name.

use super::XenbusState;
use alloc::format;
use alloc::string::String;
use core::fmt;

/// Longest part of a foreign value that an error quotes, in bytes of the value.
const QUOTED_BYTES_MAX: usize = 48;

/// Who is answerable for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// The toolstack (`xl`), which writes a device's directories.
    Toolstack,
    /// The backend's domain.
    Backend,
    /// The frontend's domain.
    Frontend,
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Writer::Toolstack => "the toolstack",
            Writer::Backend => "the backend",
            Writer::Frontend => "the frontend",
        })
    }
}

/// What was waited for when a deadline passed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Patience {
    /// Our own directory or, for vchan, the keys' directory.
    pub device: String,
    /// What was waited for, as a sentence about the culprit, with its path and its state.
    pub culprit: String,
    /// How long the machine waited in all, in nanoseconds.
    pub waited_nanos: u64,
    /// For how long of that the culprit had not moved, in nanoseconds.
    pub unmoved_nanos: u64,
}

/// Why two ends did not become a device, or are one no longer. Each variant names the culprit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeError {
    /// The deadline passed.
    Deadline(Patience),
    /// A key holds what it must not.
    Malformed {
        /// The key's path.
        key: String,
        /// Its value, escaped and shortened; `None` if it is missing.
        value: Option<String>,
        /// Who writes it.
        writer: Writer,
        /// What it should hold.
        expected: &'static str,
    },
    /// The other end cannot do what we cannot do without.
    Incompatible {
        /// The other end's directory.
        peer: String,
        /// What is missing, in words.
        lacks: &'static str,
    },
    /// The other end closed during or after the handshake.
    PeerClosed {
        /// The other end's directory.
        peer: String,
        /// Its state; `None` if it is gone.
        state: Option<XenbusState>,
    },
    /// The device's directory disappeared before the device was there.
    Removed {
        /// The directory.
        device: String,
    },
    /// The rings could not be made or mapped.
    Rings {
        /// The device's directory.
        device: String,
        /// Why, in words.
        why: String,
    },
    /// The other end broke the rules of the rings.
    Fault {
        /// The other end's directory.
        peer: String,
        /// Which rule, in words.
        what: String,
    },
    /// XenStore refused to write.
    Refused {
        /// The device's directory.
        device: String,
        /// The errno that XenStore gave.
        errno: i32,
    },
}

impl HandshakeError {
    /// Where the error is told to the toolstack, and what is written: the key `error/<device>/error` in
    /// our own directory, with the number of an errno and the words, as Linux does
    /// (`xenbus_dev_error`). `None` if the toolstack has done it itself.
    pub fn node(&self, device: &str) -> Option<(String, String)> {
        // Linux's numbers on x86, which are those of XenStore's errors (io/xs_wire.h) as well.
        let errno = match self {
            HandshakeError::Deadline(_) => 110,        // ETIMEDOUT
            HandshakeError::Malformed { .. } => 22,    // EINVAL
            HandshakeError::Incompatible { .. } => 95, // EOPNOTSUPP
            HandshakeError::PeerClosed { .. } => 104,  // ECONNRESET
            HandshakeError::Rings { .. } => 12,        // ENOMEM
            HandshakeError::Fault { .. } => 71,        // EPROTO
            HandshakeError::Refused { errno, .. } => *errno,
            HandshakeError::Removed { .. } => return None,
        };
        Some((format!("error/{device}/error"), format!("{errno} {self}")))
    }

    /// [`Malformed`](Self::Malformed) with the value made presentable.
    pub(crate) fn malformed(
        key: &str,
        value: Option<&[u8]>,
        writer: Writer,
        expected: &'static str,
    ) -> Self {
        HandshakeError::Malformed { key: key.into(), value: value.map(quote), writer, expected }
    }
}

/// A foreign value as it may stand in a log line: ASCII, escaped, shortened.
fn quote(value: &[u8]) -> String {
    let shown = &value[..value.len().min(QUOTED_BYTES_MAX)];
    let mut text: String =
        shown.iter().flat_map(|byte| core::ascii::escape_default(*byte)).map(char::from).collect();
    if value.len() > QUOTED_BYTES_MAX {
        text.push('…');
    }
    text
}

/// Nanoseconds as seconds with one digit, without floating point.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} s", self.0 / 1_000_000_000, self.0 / 100_000_000 % 10)
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Deadline(Patience { device, culprit, waited_nanos, unmoved_nanos }) => {
                write!(
                    f,
                    "{device} is not connected after {}: {culprit} (unchanged for {})",
                    Seconds(*waited_nanos),
                    Seconds(*unmoved_nanos)
                )
            }
            HandshakeError::Malformed { key, value: Some(value), writer, expected } => {
                write!(f, "{writer} wrote \"{value}\" into {key}; expected {expected}")
            }
            HandshakeError::Malformed { key, value: None, writer, expected } => {
                write!(f, "{writer} has not written {key}; expected {expected}")
            }
            HandshakeError::Incompatible { peer, lacks } => write!(f, "{peer} {lacks}"),
            HandshakeError::PeerClosed { peer, state: Some(state) } => {
                write!(f, "{peer} went to {state}")
            }
            HandshakeError::PeerClosed { peer, state: None } => {
                write!(f, "{peer} disappeared")
            }
            HandshakeError::Removed { device } => {
                write!(f, "{device} was removed by the toolstack")
            }
            HandshakeError::Rings { device, why } => write!(f, "{device}: no rings: {why}"),
            HandshakeError::Fault { peer, what } => write!(f, "{peer} broke the protocol: {what}"),
            HandshakeError::Refused { device, errno } => {
                write!(f, "{device}: XenStore refused the transaction with errno {errno}")
            }
        }
    }
}

impl core::error::Error for HandshakeError {}
