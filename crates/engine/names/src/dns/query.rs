//! [`Query`]: what a stub resolver asks, and what it believes of the answer.

use super::host_name::HostName;
use super::{CNAME_CHAIN_MAX, HEADER_LEN};
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

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
        // Before the message is taken apart: what a forger sends shall cost little.
        let is_candidate = bytes.len() >= HEADER_LEN
            && bytes[..2] == self.id.to_be_bytes()
            && bytes[4..6] == [0, 1];
        let message = is_candidate.then(|| Message::from_vec(bytes).ok()).flatten();
        let message = message.filter(|message| self.is_answered_by(message));
        let message = message.ok_or(Unusable::Unrelated)?;
        match message.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            other => return Err(Unusable::Failed(other.into())),
        }
        if message.metadata.truncation {
            return Err(Unusable::Truncated);
        }
        Ok(self.learn(&message))
    }

    /// RFC 5452 §9.1: everything that can be compared is.
    fn is_answered_by(&self, message: &Message) -> bool {
        let [query] = &message.queries[..] else { return false };
        message.metadata.message_type == MessageType::Response
            && message.metadata.op_code == OpCode::Query
            && query.name == self.name
            && query.query_type == self.family.record_type()
            && query.query_class == DNSClass::IN
    }

    /// Follows the aliases in the answer, from the name that was asked for (RFC 1034 §5.3.3). What
    /// else is in the message is not believed.
    fn learn(&self, message: &Message) -> Learned {
        let mut at = self.name.clone();
        let mut ttl = TTL_MAX;
        for _ in 0..=CNAME_CHAIN_MAX {
            let own = || message.answers.iter().filter(|record| record.name == at);
            let mut addresses = Vec::new();
            for record in own() {
                if let Some(address) = self.address(record).filter(|it| !addresses.contains(it)) {
                    addresses.push(address);
                    ttl = ttl.min(lifetime(record.ttl));
                }
            }
            if !addresses.is_empty() {
                addresses.truncate(ADDRESSES_MAX);
                return Learned { answer: Answer::Addresses(addresses), ttl };
            }
            let alias = own().find_map(|record| match &record.data {
                RData::CNAME(target) => Some((target.0.clone(), record.ttl)),
                _ => None,
            });
            let Some((target, alias_ttl)) = alias else { break };
            ttl = ttl.min(lifetime(alias_ttl));
            at = target;
        }
        let negative_ttl = soa_lifetime(message).map(|soa| soa.min(NEGATIVE_TTL_MAX).min(ttl));
        if message.metadata.response_code == ResponseCode::NXDomain {
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
        match (&record.data, self.family) {
            (RData::A(address), Family::V4) => Some(IpAddr::V4(address.0)),
            (RData::AAAA(address), Family::V6) => Some(IpAddr::V6(address.0)),
            _ => None,
        }
        .filter(|_| record.dns_class == DNSClass::IN)
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

/// How long a no may be remembered (RFC 2308 §5); `None` if it does not say, and so may not.
fn soa_lifetime(message: &Message) -> Option<Duration> {
    message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(lifetime(record.ttl.min(soa.minimum))),
        _ => None,
    })
}
