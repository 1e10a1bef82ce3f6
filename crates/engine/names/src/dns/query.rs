//! [`Query`]: what a stub resolver asks, and what it believes of the answer.

use super::CNAME_CHAIN_MAX;
use super::host_name::HostName;
use super::response::{Data, Header, Record, Response};
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use hickory_proto::op::{Edns, Message, MessageType, OpCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};

/// The largest answer over UDP that is asked for, in bytes: it fits into a packet that nobody has to
/// fragment.
const UDP_PAYLOAD: u16 = 1232;

/// Addresses that are taken from one answer. More is of no use to anybody who connects.
const ADDRESSES_MAX: usize = 32;

/// The longest that an answer is believed. Nobody's addresses are so sure that a day is too short;
/// who makes a mistake does not want to wait longer (RFC 8767 §4 allows a week).
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// The longest that a no is believed (RFC 2308 §5: one to three hours work well).
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(3600);

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4: A records.
    V4,
    /// IPv6: AAAA records (RFC 3596).
    V6,
}

impl Family {
    fn record_type(self) -> RecordType {
        match self {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        }
    }
}

/// What a name server said of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has these addresses, at least one, at most 32.
    Addresses(Vec<IpAddr>),
    /// It is another name for this one, of which the server said nothing.
    Alias(HostName),
    /// It has none of this family.
    NoAddress,
    /// It does not exist.
    NoName,
}

/// An answer, and how long it may be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// What was said.
    pub answer: Answer,
    /// For how long; zero if it may not be remembered.
    pub ttl: Duration,
}

/// Why a message is not used as an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It does not answer the question: another's, a forger's, or no message. The answer may yet
    /// come.
    Unrelated,
    /// It was cut off; over TCP it comes whole.
    Truncated,
    /// The server cannot or will not answer, with this code (RFC 1035 §4.1.1: SERVFAIL is 2, REFUSED
    /// is 5). Another one may.
    Failed(u16),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Unrelated => write!(f, "its answer is none"),
            Unusable::Truncated => write!(f, "its answer is cut off"),
            Unusable::Failed(2) => write!(f, "it failed (SERVFAIL)"),
            Unusable::Failed(5) => write!(f, "it refuses (REFUSED)"),
            Unusable::Failed(code) => write!(f, "it answers with the code {code}"),
        }
    }
}

/// A question to a recursive name server.
#[derive(Clone, Debug)]
pub struct Query {
    id: u16,
    name: Name,
    family: Family,
}

impl Query {
    /// Asks for a name's addresses. `id` is random: with the port it is what a forger must guess
    /// (RFC 5452 §4).
    pub fn new(name: &HostName, family: Family, id: u16) -> Self {
        // A host's name is a name: it was checked for that.
        let mut wire =
            Name::from_labels(name.as_str().split('.').map(str::as_bytes)).unwrap_or_default();
        wire.set_fqdn(true);
        Query { id, name: wire, family }
    }

    /// The message: recursion desired, EDNS with 1,232 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        let kind = self.family.record_type();
        message.add_query(hickory_proto::op::Query::query(self.name.clone(), kind));
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD);
        message.set_edns(edns);
        message.to_vec().unwrap_or_default()
    }

    /// Reads what came back.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn read(&self, bytes: &[u8]) -> Result<Learned, Unusable> {
        let header = Header::read(bytes).filter(|header| header.id == self.id);
        let header = header.ok_or(Unusable::Unrelated)?;
        // Some servers refuse with a header alone (RFC 1035 §4.1.1 on FORMERR). A forger gains
        // nothing: the question is no secret, the id and the port are.
        if let Some(code) = header.failure().filter(|_| header.is_bare()) {
            return Err(Unusable::Failed(code));
        }
        let question = header.question(bytes).ok_or(Unusable::Unrelated)?;
        // RFC 5452 §9.1: everything that can be compared is.
        let (name, kind, class, at) = question;
        let is_ours = name == self.name
            && kind == u16::from(self.family.record_type())
            && class == u16::from(DNSClass::IN);
        if !is_ours {
            return Err(Unusable::Unrelated);
        }
        if let Some(code) = header.failure() {
            return Err(Unusable::Failed(code));
        }
        // Before its records are looked at: the last one may be half there.
        if header.is_truncated {
            return Err(Unusable::Truncated);
        }
        let response = Response::read(&header, bytes, at).ok_or(Unusable::Unrelated)?;
        match response.failure() {
            Some(code) => Err(Unusable::Failed(code)),
            None => Ok(self.learn(&response)),
        }
    }

    /// Follows the aliases in the answer, from the name that was asked for (RFC 1034 §5.3.3). What
    /// else is in the message is not believed.
    fn learn(&self, response: &Response) -> Learned {
        let mut at = self.name.clone();
        let mut ttl = TTL_MAX;
        for _ in 0..=CNAME_CHAIN_MAX {
            let own = || response.answers.iter().filter(|record| record.owner == at);
            let mut addresses = Vec::new();
            for record in own() {
                if let Some(address) = self.address(record)
                    && addresses.len() < ADDRESSES_MAX
                    && !addresses.contains(&address)
                {
                    addresses.push(address);
                    ttl = ttl.min(lifetime(record.ttl));
                }
            }
            if !addresses.is_empty() {
                return Learned { answer: Answer::Addresses(addresses), ttl };
            }
            let alias = own().find_map(|record| match &record.data {
                Data::Alias(target) => Some((target.clone(), record.ttl)),
                Data::Address(_) => None,
            });
            let Some((target, alias_ttl)) = alias else { break };
            ttl = ttl.min(lifetime(alias_ttl));
            at = target;
            // Of these no server knows anything (RFC 6761 §6.3, §6.4), whatever it says.
            let special = host_name(&at).filter(|it| it.is_localhost() || it.is_invalid());
            if let Some(special) = special {
                return Learned { answer: Answer::Alias(special), ttl };
            }
        }
        let negative_ttl = response
            .soa_ttls
            .map(|[own, minimum]| lifetime(own.min(minimum)).min(NEGATIVE_TTL_MAX).min(ttl));
        if response.is_name_error() {
            return Learned { answer: Answer::NoName, ttl: negative_ttl.unwrap_or_default() };
        }
        // An alias of whose target nothing is said, not even that it has nothing, is to be asked.
        let target = host_name(&at).filter(|_| at != self.name);
        match (negative_ttl, target) {
            (None, Some(target)) => Learned { answer: Answer::Alias(target), ttl },
            (negative_ttl, _) => {
                Learned { answer: Answer::NoAddress, ttl: negative_ttl.unwrap_or_default() }
            }
        }
    }

    fn address(&self, record: &Record) -> Option<IpAddr> {
        match record.data {
            Data::Address(address) if address.is_ipv4() == (self.family == Family::V4) => {
                Some(address)
            }
            _ => None,
        }
    }
}

/// A name on the wire as a host's, if it can be one. Not by the name's text, which has marks for what
/// it holds to be unusual.
fn host_name(name: &Name) -> Option<HostName> {
    let labels: Vec<&str> = name.iter().map(core::str::from_utf8).collect::<Result<_, _>>().ok()?;
    HostName::parse(&labels.join(".")).ok()
}

/// RFC 2181 §8: a time to live has 31 bits; more is nothing.
fn lifetime(ttl: u32) -> Duration {
    if ttl >> 31 == 0 { Duration::from_secs(ttl.into()) } else { Duration::ZERO }
}
