//! [`Response`]: what a resolver reads of a message, and nothing else of it.
//!
//! Not with hickory-proto's decoder, which takes everything apart: an answer of 64 KiB can make that
//! follow millions of pointers, and one that was cut off within a record is none to it. Here names
//! that nobody needs are passed over, others have as many pointers as labels, and the answer's end
//! is not looked at when its head says enough.

use super::HEADER_LEN;
use core::net::IpAddr;
use hickory_proto::rr::Name;

/// Answers that are looked at. A chain of aliases and all addresses that are taken have some forty;
/// the rest is passed over.
const ANSWERS_MAX: usize = 512;

/// Pointers in a name: no more than it can have labels (RFC 1035 §2.3.4: 255 bytes).
const POINTERS_MAX: usize = 127;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// Responses' error codes that are answers: no error, and no such name (RFC 1035 §4.1.1).
const NO_ERROR: u16 = 0;
const NAME_ERROR: u16 = 3;

/// The header of a response (RFC 1035 §4.1.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) id: u16,
    /// The message was cut off.
    pub(super) is_truncated: bool,
    /// The lower four bits of the code.
    code: u16,
    question_count: u16,
    counts: [u16; 3],
}

impl Header {
    /// Reads it; `None` if the message is no response to a query.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let is_response = head[2] & 0x80 != 0;
        let is_query = head[2] & 0x78 == 0;
        (is_response && is_query).then_some(Header {
            id: word(0),
            is_truncated: head[2] & 2 != 0,
            code: u16::from(head[3] & 0xf),
            question_count: word(4),
            counts: [word(6), word(8), word(10)],
        })
    }

    /// The code, if the server cannot or will not answer.
    pub(super) fn failure(&self) -> Option<u16> {
        Some(self.code).filter(|code| !matches!(*code, NO_ERROR | NAME_ERROR))
    }

    /// Not even the question comes back.
    pub(super) fn is_bare(&self) -> bool {
        self.question_count == 0
    }

    /// Reads the only question; its end follows it.
    pub(super) fn question(&self, bytes: &[u8]) -> Option<(Name, u16, u16, usize)> {
        if self.question_count != 1 {
            return None;
        }
        let (name, at) = name(bytes, HEADER_LEN)?;
        Some((name, word(bytes, at)?, word(bytes, at + 2)?, at + 4))
    }
}

/// An answer that may matter.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) owner: Name,
    /// In seconds, as it came.
    pub(super) ttl: u32,
    pub(super) data: Data,
}

#[derive(Debug)]
pub(super) enum Data {
    Address(IpAddr),
    Alias(Name),
}

/// What follows the question.
#[derive(Debug)]
pub(super) struct Response {
    /// With the bits that are in the OPT record (RFC 6891 §6.1.3).
    code: u16,
    pub(super) answers: Vec<Record>,
    /// The times to live of the SOA record beside a no: its own, and its last field (RFC 2308 §4).
    pub(super) soa_ttls: Option<[u32; 2]>,
}

impl Response {
    /// Reads the records from `at` on; `None` if one is none.
    pub(super) fn read(header: &Header, bytes: &[u8], mut at: usize) -> Option<Self> {
        let mut response = Response { code: header.code, answers: Vec::new(), soa_ttls: None };
        for (section, count) in header.counts.into_iter().enumerate() {
            for _ in 0..count {
                let owner_at = at;
                at = past_name(bytes, at)?;
                let (kind, class) = (word(bytes, at)?, word(bytes, at + 2)?);
                let ttl = u32::from(word(bytes, at + 4)?) << 16 | u32::from(word(bytes, at + 6)?);
                let data_at = at + 10;
                at = data_at + usize::from(word(bytes, at + 8)?);
                let data = bytes.get(data_at..at)?;
                match (section, kind) {
                    (0, TYPE_A | TYPE_AAAA | TYPE_CNAME)
                        if class == CLASS_IN && response.answers.len() < ANSWERS_MAX =>
                    {
                        let data = match kind {
                            TYPE_A => Data::Address(<[u8; 4]>::try_from(data).ok()?.into()),
                            TYPE_AAAA => Data::Address(<[u8; 16]>::try_from(data).ok()?.into()),
                            _ => {
                                let (target, end) = name(bytes, data_at)?;
                                (end == at).then_some(Data::Alias(target))?
                            }
                        };
                        let (owner, _) = name(bytes, owner_at)?;
                        response.answers.push(Record { owner, ttl, data });
                    }
                    (1, TYPE_SOA) if response.soa_ttls.is_none() => {
                        let minimum = u32::from_be_bytes(*data.last_chunk()?);
                        response.soa_ttls = Some([ttl, minimum]);
                    }
                    (2, TYPE_OPT) => response.code |= (ttl >> 24 << 4) as u16,
                    _ => {}
                }
            }
        }
        Some(response)
    }

    /// The code, if the server cannot or will not answer.
    pub(super) fn failure(&self) -> Option<u16> {
        Some(self.code).filter(|code| !matches!(*code, NO_ERROR | NAME_ERROR))
    }

    /// There is no such name.
    pub(super) fn is_name_error(&self) -> bool {
        self.code == NAME_ERROR
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// What stands at a place of a name (RFC 1035 §4.1.4).
enum Part<'a> {
    End,
    Label(&'a [u8]),
    Pointer(usize),
}

fn part(bytes: &[u8], at: usize) -> Option<Part<'_>> {
    match *bytes.get(at)? {
        0 => Some(Part::End),
        len @ 1..=63 => Some(Part::Label(bytes.get(at + 1..)?.get(..usize::from(len))?)),
        192.. => Some(Part::Pointer(usize::from(word(bytes, at)? & 0x3fff))),
        // Reserved.
        _ => None,
    }
}

/// The place after a name, wherever that points to.
fn past_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match part(bytes, at)? {
            Part::End => return Some(at + 1),
            Part::Label(label) => at += 1 + label.len(),
            Part::Pointer(_) => return Some(at + 2),
        }
    }
}

/// A name, and the place after it.
fn name(bytes: &[u8], mut at: usize) -> Option<(Name, usize)> {
    let end = past_name(bytes, at)?;
    let mut labels: Vec<&[u8]> = Vec::new();
    let mut len = 1;
    let mut pointers = 0;
    // Pointers go to where a name was before (RFC 1035 §4.1.4), so there are no loops.
    let mut start = at;
    loop {
        match part(bytes, at)? {
            Part::End => break,
            Part::Label(label) => {
                len += 1 + label.len();
                if len > 255 {
                    return None;
                }
                labels.push(label);
                at += 1 + label.len();
            }
            Part::Pointer(target) => {
                pointers += 1;
                if target >= start || pointers > POINTERS_MAX {
                    return None;
                }
                start = target;
                at = target;
            }
        }
    }
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some((name, end))
}
