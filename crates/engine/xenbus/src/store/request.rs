//! What is inside of messages: requests and their answers, encoded and decoded.
//!
//! Both directions of both, because Fata is also on the other side: the tests' xenstored decodes
//! requests and encodes answers with the same table.

use super::error::{Errno, StoreError};
use super::path;
use super::wire::{Kind, Message, PAYLOAD_BYTES_MAX, TransactionId};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// What domains may do to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing.
    None,
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Read and write it.
    Both,
}

/// One entry of a key's permissions: the first names its owner and what all others may, each
/// further one what one domain may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permission {
    /// What.
    pub access: Access,
    /// Who.
    pub domain: u16,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.access {
            Access::None => 'n',
            Access::Read => 'r',
            Access::Write => 'w',
            Access::Both => 'b',
        };
        write!(f, "{letter}{}", self.domain)
    }
}

impl Permission {
    /// Reads `r7` and its like.
    pub fn parse(text: &[u8]) -> Option<Permission> {
        let (&letter, digits) = text.split_first()?;
        let access = match letter {
            b'n' => Access::None,
            b'r' => Access::Read,
            b'w' => Access::Write,
            b'b' => Access::Both,
            _ => return None,
        };
        Some(Permission { access, domain: decimal(digits)?.try_into().ok()? })
    }
}

/// What a guest asks xenstored. Paths that do not begin with a slash begin at the domain's own
/// directory, `/local/domain/<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The value of a key.
    Read(&'a str),
    /// The names of a key's children.
    Directory(&'a str),
    /// The same in parts: names from this byte of the whole list on.
    DirectoryPart(&'a str, u32),
    /// Who may do what to a key.
    GetPermissions(&'a str),
    /// Sets a value.
    Write(&'a str, &'a [u8]),
    /// Makes a key with an empty value unless it exists.
    MakeDirectory(&'a str),
    /// Removes a key and all below.
    Remove(&'a str),
    /// Says who may do what to a key.
    SetPermissions(&'a str, Vec<Permission>),
    /// Tells, with this token, of changes of a key and all below.
    Watch(&'a str, &'a str),
    /// Ends the watch of this path with this token.
    Unwatch(&'a str, &'a str),
    /// Begins a transaction.
    TransactionStart,
    /// Ends one: true commits it, false forgets it.
    TransactionEnd(bool),
    /// A domain's own directory.
    GetDomainPath(u16),
    /// Does xenstored know the domain?
    IsDomainIntroduced(u16),
    /// Forgets this connection's watches and transactions.
    ResetWatches,
}

impl<'a> Request<'a> {
    /// The message type.
    pub const fn kind(&self) -> Kind {
        match self {
            Request::Read(_) => Kind::Read,
            Request::Directory(_) => Kind::Directory,
            Request::DirectoryPart(..) => Kind::DirectoryPart,
            Request::GetPermissions(_) => Kind::GetPermissions,
            Request::Write(..) => Kind::Write,
            Request::MakeDirectory(_) => Kind::MakeDirectory,
            Request::Remove(_) => Kind::Remove,
            Request::SetPermissions(..) => Kind::SetPermissions,
            Request::Watch(..) => Kind::Watch,
            Request::Unwatch(..) => Kind::Unwatch,
            Request::TransactionStart => Kind::TransactionStart,
            Request::TransactionEnd(_) => Kind::TransactionEnd,
            Request::GetDomainPath(_) => Kind::GetDomainPath,
            Request::IsDomainIntroduced(_) => Kind::IsDomainIntroduced,
            Request::ResetWatches => Kind::ResetWatches,
        }
    }

    /// The message that asks this.
    ///
    /// # Errors
    /// [`StoreError::BadPath`] and [`StoreError::TooLong`]: xenstored would refuse it.
    pub fn message(&self, request: u32, transaction: TransactionId) -> Result<Message, StoreError> {
        let mut payload = Vec::new();
        match self {
            Request::Read(path)
            | Request::Directory(path)
            | Request::GetPermissions(path)
            | Request::MakeDirectory(path)
            | Request::Remove(path) => put_path(&mut payload, path)?,
            Request::DirectoryPart(path, offset) => {
                put_path(&mut payload, path)?;
                put(&mut payload, &offset.to_string());
            }
            Request::Write(path, value) => {
                put_path(&mut payload, path)?;
                payload.extend_from_slice(value);
            }
            Request::SetPermissions(path, permissions) => {
                put_path(&mut payload, path)?;
                for permission in permissions {
                    put(&mut payload, &permission.to_string());
                }
            }
            Request::Watch(path, token) | Request::Unwatch(path, token) => {
                path::check_watch(path)?;
                put(&mut payload, path);
                put(&mut payload, token);
            }
            Request::TransactionStart | Request::ResetWatches => payload.push(0),
            Request::TransactionEnd(commit) => {
                put(&mut payload, if *commit { "T" } else { "F" });
            }
            Request::GetDomainPath(domain) | Request::IsDomainIntroduced(domain) => {
                put(&mut payload, &domain.to_string());
            }
        }
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(StoreError::TooLong { bytes: payload.len() });
        }
        Ok(Message { kind: self.kind(), request, transaction, payload })
    }

    /// Reads a request as xenstored does.
    ///
    /// # Errors
    /// [`Errno::NotImplemented`] for what guests do not ask, [`Errno::Invalid`] for the rest:
    /// what a real xenstored answers.
    pub fn decode(kind: Kind, payload: &'a [u8]) -> Result<Request<'a>, Errno> {
        let request = match kind {
            Kind::Read => Request::Read(only_path(payload)?),
            Kind::Directory => Request::Directory(only_path(payload)?),
            Kind::GetPermissions => Request::GetPermissions(only_path(payload)?),
            Kind::MakeDirectory => Request::MakeDirectory(only_path(payload)?),
            Kind::Remove => Request::Remove(only_path(payload)?),
            Kind::DirectoryPart => {
                let (path, rest) = first_path(payload)?;
                Request::DirectoryPart(path, decimal(only(rest)?).ok_or(Errno::Invalid)?)
            }
            Kind::Write => {
                let (path, value) = first_path(payload)?;
                Request::Write(path, value)
            }
            Kind::SetPermissions => {
                let (path, rest) = first_path(payload)?;
                let permissions = words(rest)
                    .and_then(|words| words.map(Permission::parse).collect::<Option<Vec<_>>>());
                let permissions =
                    permissions.filter(|list| !list.is_empty()).ok_or(Errno::Invalid)?;
                Request::SetPermissions(path, permissions)
            }
            Kind::Watch | Kind::Unwatch => {
                let (path, rest) = first(payload)?;
                let path = text(path)?;
                path::check_watch(path).map_err(|_| Errno::Invalid)?;
                let token = text(only(rest)?)?;
                match kind {
                    Kind::Watch => Request::Watch(path, token),
                    _ => Request::Unwatch(path, token),
                }
            }
            Kind::TransactionStart => Request::TransactionStart,
            Kind::ResetWatches => Request::ResetWatches,
            Kind::TransactionEnd => match only(payload)? {
                b"T" => Request::TransactionEnd(true),
                b"F" => Request::TransactionEnd(false),
                _ => return Err(Errno::Invalid),
            },
            Kind::GetDomainPath => Request::GetDomainPath(domain(payload)?),
            Kind::IsDomainIntroduced => Request::IsDomainIntroduced(domain(payload)?),
            _ => return Err(Errno::NotImplemented),
        };
        Ok(request)
    }
}

/// What xenstored answers to a request that it carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Read`].
    Value(Vec<u8>),
    /// To [`Request::Directory`].
    Names(Vec<String>),
    /// To [`Request::DirectoryPart`].
    NamesPart {
        /// Another number in a later part: the list has changed meanwhile, begin again.
        generation: u64,
        /// Names, in order.
        names: Vec<String>,
        /// Bytes of the whole list that this part covers.
        bytes: u32,
        /// No part follows.
        last: bool,
    },
    /// To [`Request::GetPermissions`].
    Permissions(Vec<Permission>),
    /// To [`Request::TransactionStart`].
    Transaction(TransactionId),
    /// To [`Request::GetDomainPath`].
    Path(String),
    /// To [`Request::IsDomainIntroduced`].
    Introduced(bool),
    /// To all others: it was done.
    Done,
}

impl Reply {
    /// Reads the payload of an answer to a request of type `kind`; `None` if it is not one.
    pub fn decode(kind: Kind, payload: Vec<u8>) -> Option<Reply> {
        let reply = match kind {
            Kind::Read => Reply::Value(payload),
            Kind::Directory => Reply::Names(names(&payload)?),
            Kind::DirectoryPart => return names_part(&payload),
            Kind::GetPermissions => {
                Reply::Permissions(words(&payload)?.map(Permission::parse).collect::<Option<_>>()?)
            }
            Kind::TransactionStart => {
                let id = decimal(only(&payload).ok()?).filter(|&id| id != 0)?;
                Reply::Transaction(TransactionId(id))
            }
            Kind::GetDomainPath => {
                let path = text(only(&payload).ok()?).ok()?;
                path::check(path).ok()?;
                Reply::Path(path.to_string())
            }
            Kind::IsDomainIntroduced => match payload.as_slice() {
                b"T\0" => Reply::Introduced(true),
                b"F\0" => Reply::Introduced(false),
                _ => return None,
            },
            Kind::Write
            | Kind::MakeDirectory
            | Kind::Remove
            | Kind::SetPermissions
            | Kind::Watch
            | Kind::Unwatch
            | Kind::TransactionEnd
            | Kind::ResetWatches => (payload == b"OK\0").then_some(Reply::Done)?,
            _ => return None,
        };
        Some(reply)
    }

    /// The payload of this answer. It may be longer than a message may be: then the answer is
    /// [`Errno::TooBig`].
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        match self {
            Reply::Value(value) => payload.extend_from_slice(value),
            Reply::Names(names) => names.iter().for_each(|name| put(&mut payload, name)),
            Reply::NamesPart { generation, names, last, .. } => {
                put(&mut payload, &generation.to_string());
                names.iter().for_each(|name| put(&mut payload, name));
                if *last {
                    payload.push(0);
                }
            }
            Reply::Permissions(permissions) => {
                permissions.iter().for_each(|entry| put(&mut payload, &entry.to_string()));
            }
            Reply::Transaction(id) => put(&mut payload, &id.0.to_string()),
            Reply::Path(path) => put(&mut payload, path),
            Reply::Introduced(yes) => put(&mut payload, if *yes { "T" } else { "F" }),
            Reply::Done => put(&mut payload, "OK"),
        }
        payload
    }
}

/// The payload of a watch event.
pub fn encode_watch_event(path: &str, token: &str) -> Vec<u8> {
    let mut payload = Vec::with_capacity(path.len() + token.len() + 2);
    put(&mut payload, path);
    put(&mut payload, token);
    payload
}

/// Path and token of a watch event; `None` if the payload is not one.
pub fn decode_watch_event(payload: &[u8]) -> Option<(&str, &str)> {
    let (path, rest) = first(payload).ok()?;
    // A later protocol may append fields: the token is the second.
    let (token, _) = first(rest).ok()?;
    Some((text(path).ok()?, text(token).ok()?))
}

/// The payload of an answer of type [`Kind::Error`].
pub fn encode_error(errno: Errno) -> Vec<u8> {
    let mut payload = Vec::new();
    put(&mut payload, errno.name());
    payload
}

/// Which error the payload of an answer of type [`Kind::Error`] names.
pub fn decode_error(payload: &[u8]) -> Errno {
    Errno::from_name(payload.strip_suffix(&[0]).unwrap_or(payload))
}

fn put(payload: &mut Vec<u8>, word: &str) {
    payload.extend_from_slice(word.as_bytes());
    payload.push(0);
}

fn put_path(payload: &mut Vec<u8>, path: &str) -> Result<(), StoreError> {
    path::check(path)?;
    put(payload, path);
    Ok(())
}

/// The bytes before the first zero byte, and those after it.
fn first(payload: &[u8]) -> Result<(&[u8], &[u8]), Errno> {
    let end = payload.iter().position(|&byte| byte == 0).ok_or(Errno::Invalid)?;
    Ok((&payload[..end], &payload[end + 1..]))
}

fn first_path(payload: &[u8]) -> Result<(&str, &[u8]), Errno> {
    let (path, rest) = first(payload)?;
    let path = text(path)?;
    path::check(path).map_err(|_| Errno::Invalid)?;
    Ok((path, rest))
}

/// The bytes before a zero byte that is the last.
fn only(payload: &[u8]) -> Result<&[u8], Errno> {
    match first(payload)? {
        (word, []) => Ok(word),
        _ => Err(Errno::Invalid),
    }
}

fn only_path(payload: &[u8]) -> Result<&str, Errno> {
    match first_path(payload)? {
        (path, []) => Ok(path),
        _ => Err(Errno::Invalid),
    }
}

fn domain(payload: &[u8]) -> Result<u16, Errno> {
    decimal(only(payload)?).and_then(|id| id.try_into().ok()).ok_or(Errno::Invalid)
}

/// Words that each end with a zero byte.
fn words(payload: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let body = match payload {
        [] => None,
        [body @ .., 0] => Some(body),
        _ => return None,
    };
    Some(body.into_iter().flat_map(|body| body.split(|&byte| byte == 0)))
}

fn names(payload: &[u8]) -> Option<Vec<String>> {
    words(payload)?
        .map(|word| text(word).ok().filter(|word| path::is_name(word)).map(ToString::to_string))
        .collect()
}

/// The last part ends with an empty word.
fn names_part(payload: &[u8]) -> Option<Reply> {
    let (generation, rest) = first(payload).ok()?;
    let generation = text(generation).ok()?.parse().ok()?;
    let (rest, last) = match rest {
        [0] => (&rest[..0], true),
        [body @ .., 0, 0] => (&rest[..body.len() + 1], true),
        _ => (rest, false),
    };
    let names = names(rest)?;
    // A part that leads nowhere would be asked for again for ever.
    if names.is_empty() && !last {
        return None;
    }
    Some(Reply::NamesPart { generation, names, bytes: u32::try_from(rest.len()).ok()?, last })
}

fn text(bytes: &[u8]) -> Result<&str, Errno> {
    core::str::from_utf8(bytes).map_err(|_| Errno::Invalid)
}

/// Decimal digits and nothing else: `u32::from_str` would take a plus sign.
fn decimal(digits: &[u8]) -> Option<u32> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    text(digits).ok()?.parse().ok()
}
