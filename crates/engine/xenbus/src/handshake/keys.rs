//! Keys that were read from XenStore, and what they may hold.
//!
//! The other end can write anything into its keys: nothing, megabytes of digits, a number with a
//! sign. A getter takes a value whole or gives an error with the key's path; it never panics, and
//! nothing is kept of a value that was not understood.

use super::{HandshakeError, Writer};
use alloc::string::String;
use alloc::vec::Vec;

/// Which directory a key is in, as seen from the end that reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// In our own directory, written by the toolstack.
    Ours(&'static str),
    /// In the other end's directory, written by it.
    Theirs(&'static str),
    /// In the other end's directory, with a number behind the name (`ring-ref0`).
    TheirsNumbered(&'static str, u32),
}

/// The answer to a read: what each path held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keys {
    entries: Vec<(Key, String, Option<Vec<u8>>)>,
    peer: Option<Writer>,
    peer_path: String,
}

impl Keys {
    pub(crate) fn new(
        peer: Writer,
        peer_path: String,
        paths: impl IntoIterator<Item = (Key, String)>,
        values: Vec<Option<Vec<u8>>>,
    ) -> Self {
        let entries =
            paths.into_iter().zip(values).map(|((key, path), value)| (key, path, value)).collect();
        Keys { entries, peer: Some(peer), peer_path }
    }

    /// Every path with what it held.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.entries.iter().map(|(_, path, value)| (path.as_str(), value.as_deref()))
    }

    /// The path and the value. A key that was not asked for counts as missing.
    fn find(&self, key: &Key) -> (&str, Option<&[u8]>) {
        self.entries
            .iter()
            .find(|(name, ..)| name == key)
            .map_or(("", None), |(_, path, value)| (path.as_str(), value.as_deref()))
    }

    fn writer(&self, key: &Key) -> Writer {
        match key {
            Key::Ours(_) => Writer::Toolstack,
            _ => self.peer.unwrap_or(Writer::Toolstack),
        }
    }

    /// The value as it is.
    pub fn raw(&self, key: Key) -> Option<&[u8]> {
        self.find(&key).1
    }

    /// An error about something that the other end cannot do.
    pub fn lacks(&self, lacks: &'static str) -> HandshakeError {
        HandshakeError::Incompatible { peer: self.peer_path.clone(), lacks }
    }

    /// An error about this key.
    pub fn malformed(&self, key: Key, expected: &'static str) -> HandshakeError {
        let writer = self.writer(&key);
        let (path, value) = self.find(&key);
        HandshakeError::malformed(path, value, writer, expected)
    }

    /// A decimal number; `None` if the key is missing.
    ///
    /// # Errors
    /// Anything but digits, or a number of more than 64 bits.
    pub fn number(&self, key: Key) -> Result<Option<u64>, HandshakeError> {
        let Some(value) = self.raw(key.clone()) else { return Ok(None) };
        match parse_number(value) {
            Some(number) => Ok(Some(number)),
            None => Err(self.malformed(key, "a decimal number")),
        }
    }

    /// A decimal number that must be there and at most `max`; `expected` says so in words.
    ///
    /// # Errors
    /// Missing, malformed or too big.
    pub fn required(
        &self,
        key: Key,
        max: u64,
        expected: &'static str,
    ) -> Result<u64, HandshakeError> {
        match self.raw(key.clone()).and_then(parse_number) {
            Some(number) if number <= max => Ok(number),
            _ => Err(self.malformed(key, expected)),
        }
    }

    /// A decimal number at most `max`, or `default` if the key is missing.
    ///
    /// # Errors
    /// Malformed or too big.
    pub fn optional(
        &self,
        key: Key,
        max: u64,
        default: u64,
        expected: &'static str,
    ) -> Result<u64, HandshakeError> {
        match self.raw(key.clone()) {
            None => Ok(default),
            Some(_) => self.required(key, max, expected),
        }
    }

    /// A feature: missing and 0 are no, any other number is yes.
    ///
    /// # Errors
    /// Not a number.
    pub fn flag(&self, key: Key) -> Result<bool, HandshakeError> {
        Ok(self.number(key)?.is_some_and(|number| number != 0))
    }

    /// A grant reference.
    ///
    /// # Errors
    /// Missing, or not a number of 32 bits.
    pub fn grant(&self, key: Key) -> Result<u32, HandshakeError> {
        self.required(key, u64::from(u32::MAX), "a grant reference, 32 bits in decimal")
            .map(|number| number as u32)
    }

    /// An event channel's port.
    ///
    /// # Errors
    /// Missing, or not a number of 32 bits.
    pub fn port(&self, key: Key) -> Result<u32, HandshakeError> {
        self.required(key, u64::from(u32::MAX), "an event channel's port, 32 bits in decimal")
            .map(|number| number as u32)
    }
}

/// A domain's id: at most `DOMID_FIRST_RESERVED - 1` (xen.h), 0x7fef.
pub(crate) fn parse_domain(value: &[u8]) -> Option<u16> {
    parse_number(value).filter(|id| *id < 0x7ff0).and_then(|id| u16::try_from(id).ok())
}

/// Digits only, at most 64 bits. `str::parse` would let a sign through.
pub(crate) fn parse_number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 20 {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// A path of another end as the toolstack gives it: absolute, of the characters that XenStore allows,
/// at most XENSTORE_ABS_PATH_MAX (3072, xs_wire.h) less room for the keys below it.
pub(crate) fn parse_path(value: &[u8]) -> Option<String> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(byte);
    let fits = (2..=2048).contains(&value.len()) && value[0] == b'/' && value.iter().all(allowed);
    let clean = !value.windows(2).any(|pair| pair == b"//") && !value.ends_with(b"/");
    (fits && clean).then(|| value.iter().map(|byte| char::from(*byte)).collect())
}
