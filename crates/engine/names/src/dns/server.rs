//! [`Server`]: messages in, messages out.

use super::answer::Answer;
use super::rate::{RateLimit, RateLimiter, Verdict};
use super::zone::Zone;
use super::{HEADER_LEN, UDP_PAYLOAD_MIN};
use core::net::IpAddr;
use core::time::Duration;
use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

/// Bits of the header's second word (RFC 1035 §4.1.1).
const QR: u16 = 1 << 15;
const RD: u16 = 1 << 8;
const OPCODE_SHIFT: u32 = 11;

/// What a question came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Whose source anybody may forge, and whose messages have a largest size.
    Udp,
    /// Whose handshake proves the source.
    Tcp,
}

/// Ceilings of what a question can cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest answer over UDP in bytes, however much the client says it takes. Default 1,232:
    /// what fits into any packet that is not fragmented (1,280 bytes of IPv6, less its headers).
    pub udp_payload_bytes: u16,
    /// How many answers a network gets over UDP.
    pub rate: RateLimit,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { udp_payload_bytes: 1232, rate: RateLimit::default() }
    }
}

/// What a server did, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that came over UDP and TCP.
    pub received: u64,
    /// Answers with the code NOERROR, referrals included.
    pub answered: u64,
    /// Answers with NXDOMAIN.
    pub nx_domain: u64,
    /// Names and requests that are not this server's affair: REFUSED.
    pub refused: u64,
    /// What is no question: FORMERR.
    pub malformed: u64,
    /// Operations other than QUERY: NOTIMP.
    pub not_implemented: u64,
    /// EDNS versions other than 0: BADVERS.
    pub bad_version: u64,
    /// Answers that were too large for UDP.
    pub truncated: u64,
    /// Answers that the rate limit turned into "ask over TCP".
    pub rate_truncated: u64,
    /// Answers that the rate limit dropped.
    pub rate_dropped: u64,
    /// Messages too short for a header, and answers, which are never answered.
    pub dropped: u64,
}

impl Counters {
    /// Each counter with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("received", self.received),
            ("answered", self.answered),
            ("nx_domain", self.nx_domain),
            ("refused", self.refused),
            ("malformed", self.malformed),
            ("not_implemented", self.not_implemented),
            ("bad_version", self.bad_version),
            ("truncated", self.truncated),
            ("rate_truncated", self.rate_truncated),
            ("rate_dropped", self.rate_dropped),
            ("dropped", self.dropped),
        ]
        .into_iter()
    }
}

/// An authoritative server for a zone. It never asks anybody anything.
pub struct Server {
    zone: Zone,
    limits: Limits,
    limiter: RateLimiter,
    counters: Counters,
}

impl Server {
    /// A server for `zone`. `key` is secret and another one at each start: it decides which networks
    /// share a rate limit.
    pub fn new(zone: Zone, limits: Limits, key: [u64; 2]) -> Self {
        let limiter = RateLimiter::new(limits.rate, key);
        Server { zone, limits, limiter, counters: Counters::default() }
    }

    /// The zone.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The answer to `request`, if it gets one.
    pub fn respond(
        &mut self,
        now: Duration,
        source: IpAddr,
        transport: Transport,
        request: &[u8],
    ) -> Option<Vec<u8>> {
        self.counters.received += 1;
        let Some(head) = Head::parse(request).filter(|head| !head.is_response()) else {
            // An answer to an answer would go on for ever.
            self.counters.dropped += 1;
            return None;
        };
        let verdict = match transport {
            Transport::Udp => self.limiter.admit(now, source),
            Transport::Tcp => Verdict::Send,
        };
        if verdict == Verdict::Drop {
            self.counters.rate_dropped += 1;
            return None;
        }
        if head.opcode() != OpCode::Query.into() {
            self.counters.not_implemented += 1;
            return Some(head.bare(ResponseCode::NotImp));
        }
        let message = head.is_plausible().then(|| Message::from_vec(request).ok()).flatten();
        let Some((message, query)) =
            message.as_ref().and_then(|message| Some((message, message.queries.first()?)))
        else {
            self.counters.malformed += 1;
            return Some(head.bare(ResponseCode::FormErr));
        };
        if verdict == Verdict::Truncate {
            self.counters.rate_truncated += 1;
            return encode(&self.response(message, query).truncate());
        }
        self.answer(message, query, transport)
    }

    /// A response without an answer.
    fn response(&self, request: &Message, query: &Query) -> Message {
        let mut response = Message::response(request.metadata.id, OpCode::Query);
        response.metadata.recursion_desired = request.metadata.recursion_desired;
        response.add_query(query.clone());
        if request.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(self.limits.udp_payload_bytes);
            response.set_edns(edns);
        }
        response
    }

    fn answer(
        &mut self,
        request: &Message,
        query: &Query,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let mut response = self.response(request, query);
        if request.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            self.counters.bad_version += 1;
            response.metadata.response_code = ResponseCode::BADVERS;
            return encode(&response);
        }
        let is_transfer = matches!(query.query_type, RecordType::AXFR | RecordType::IXFR);
        if query.query_class != DNSClass::IN || is_transfer {
            self.counters.refused += 1;
            response.metadata.response_code = ResponseCode::Refused;
            return encode(&response);
        }
        let answer = self.zone.answer(&query.name, query.query_type);
        match answer.code {
            ResponseCode::NoError => self.counters.answered += 1,
            ResponseCode::NXDomain => self.counters.nx_domain += 1,
            _ => self.counters.refused += 1,
        }
        let Answer { code, is_authoritative, is_referral, answers, authorities, additionals } =
            answer;
        response.metadata.response_code = code;
        response.metadata.authoritative = is_authoritative;
        response.answers = answers;
        response.authorities = authorities;
        response.additionals = additionals;
        let bytes = encode(&response)?;
        let room = match (transport, &request.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => UDP_PAYLOAD_MIN,
            // RFC 6891 §6.2.5: less than 512 means 512.
            (Transport::Udp, Some(edns)) => {
                edns.max_payload().max(UDP_PAYLOAD_MIN).min(self.limits.udp_payload_bytes)
            }
        };
        if bytes.len() <= usize::from(room) {
            return Some(bytes);
        }
        // RFC 2181 §9: what nobody asked for may be left out; RFC 9471: not from a referral.
        if !is_referral && !response.additionals.is_empty() {
            response.additionals.clear();
            let bytes = encode(&response)?;
            if bytes.len() <= usize::from(room) {
                return Some(bytes);
            }
        }
        self.counters.truncated += 1;
        encode(&response.truncate())
    }
}

/// The message as bytes. `None`, if it cannot be one, which no zone makes.
fn encode(message: &Message) -> Option<Vec<u8>> {
    message.to_vec().ok()
}

/// A request's header.
struct Head {
    id: [u8; 2],
    flags: u16,
    /// Questions, answers, authorities, additionals.
    counts: [u16; 4],
}

impl Head {
    fn parse(message: &[u8]) -> Option<Self> {
        let words: [u8; HEADER_LEN] = message.get(..HEADER_LEN)?.try_into().ok()?;
        let word = |index: usize| u16::from_be_bytes([words[2 * index], words[2 * index + 1]]);
        Some(Head {
            id: [words[0], words[1]],
            flags: word(1),
            counts: [word(2), word(3), word(4), word(5)],
        })
    }

    fn is_response(&self) -> bool {
        self.flags & QR != 0
    }

    fn opcode(&self) -> u8 {
        (self.flags >> OPCODE_SHIFT) as u8 & 0xf
    }

    /// One question, and beside it at most EDNS and a signature.
    fn is_plausible(&self) -> bool {
        matches!(self.counts, [1, 0, 0, 0..=2])
    }

    /// A response that is nothing but a header.
    fn bare(&self, code: ResponseCode) -> Vec<u8> {
        let kept = self.flags & (RD | (0xf << OPCODE_SHIFT));
        let flags = QR | kept | u16::from(code.low());
        let mut bytes = self.id.to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend([0; 8]);
        bytes
    }
}
