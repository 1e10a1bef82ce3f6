//! [`Zone`]: the names that a server is the authority for.

use super::master::{self, Entry};
use core::fmt;
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use std::collections::BTreeMap;

/// The records of one name, by type.
pub(super) type Node = BTreeMap<RecordType, Vec<Record>>;

/// A zone: all names under an origin, down to where other zones begin (RFC 1034 §4.2).
#[derive(Debug)]
pub struct Zone {
    origin: LowerName,
    soa: Record,
    /// Every name that exists, those without records in between included (RFC 4592 §2.2.2).
    nodes: BTreeMap<LowerName, Node>,
    record_count: usize,
}

/// Why a text is no zone. Lines are counted from one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ZoneError {
    /// It is not in master format.
    Syntax {
        /// Where.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// What this server does not do: another directive, a record of a type that it would have to
    /// know more of.
    Unsupported {
        /// Where.
        line: usize,
        /// What it is.
        what: String,
    },
    /// It includes another file (`$INCLUDE`), and there are none here.
    Include {
        /// Where.
        line: usize,
    },
    /// It has no SOA record.
    NoSoa,
    /// It has more than one SOA record.
    ManySoa {
        /// Where the second one is.
        line: usize,
    },
    /// The origin has no NS record (RFC 1034 §4.2.1).
    NoNameServer,
    /// A name outside the zone.
    Outside {
        /// Where.
        line: usize,
        /// The name.
        name: Name,
    },
    /// A record that is not of class IN.
    Class {
        /// Where.
        line: usize,
        /// Its name.
        name: Name,
    },
    /// An alias that has other records too, or two targets (RFC 1034 §3.6.2, RFC 2181 §10.1).
    AliasWithRecords {
        /// Where the second record of the name is.
        line: usize,
        /// The name.
        name: Name,
    },
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ZoneError::Syntax { line, why } => write!(f, "line {line} of the zone: {why}"),
            ZoneError::Unsupported { line, what } => {
                write!(f, "line {line} of the zone: not supported here is {what}")
            }
            ZoneError::Include { line } => write!(
                f,
                "line {line} of the zone includes a file: there are none here, put its text in \
                 the line's place"
            ),
            ZoneError::NoSoa => write!(f, "the zone has no SOA record"),
            ZoneError::ManySoa { line } => {
                write!(f, "line {line} of the zone: a second SOA record")
            }
            ZoneError::NoNameServer => write!(f, "the zone has no NS record at its origin"),
            ZoneError::Outside { line, name } => {
                write!(f, "line {line} of the zone: {name} is outside of it")
            }
            ZoneError::Class { line, name } => {
                write!(f, "line {line} of the zone: {name} has a record that is not of class IN")
            }
            ZoneError::AliasWithRecords { line, name } => write!(
                f,
                "line {line} of the zone: {name} is an alias (CNAME), and so has no other record"
            ),
        }
    }
}

impl std::error::Error for ZoneError {}

impl Zone {
    /// Reads a zone in master format (RFC 1035 §5), with records of unknown types as RFC 3597 writes
    /// them. `origin` is needed if the text does not begin with `$ORIGIN`. A text takes some ten times
    /// its length in memory; its length is the caller's to bound.
    ///
    /// # Errors
    /// [`ZoneError`], naming the line.
    pub fn parse(text: &str, origin: Option<Name>) -> Result<Zone, ZoneError> {
        Zone::from_entries(master::read(text, origin)?)
    }

    fn from_entries(entries: Vec<Entry>) -> Result<Zone, ZoneError> {
        // The origin is where the SOA is, wherever `$ORIGIN` has moved to since.
        let is_soa = |entry: &&Entry| entry.1.record_type() == RecordType::SOA;
        let mut soas = entries.iter().filter(is_soa);
        let mut soa = soas.next().ok_or(ZoneError::NoSoa)?.1.clone();
        if let Some((line, _)) = soas.next() {
            return Err(ZoneError::ManySoa { line: *line });
        }
        // RFC 2308 §3: what is not there is remembered for the lesser of the two.
        if let RData::SOA(data) = &soa.data {
            soa.ttl = soa.ttl.min(data.minimum);
        }
        let origin = LowerName::new(&soa.name);
        let mut zone = Zone { soa, nodes: BTreeMap::new(), record_count: 0, origin };
        for (line, record) in entries {
            zone.insert(line, record)?;
        }
        for set in zone.nodes.values_mut().flat_map(BTreeMap::values_mut) {
            // RFC 2181 §5: no record is there twice, and a set has one time to live: the least.
            set.sort_by(|one, other| one.data.cmp(&other.data));
            set.dedup_by(|one, other| one.data == other.data);
            let ttl = set.iter().map(|record| record.ttl).min().unwrap_or_default();
            set.iter_mut().for_each(|record| record.ttl = ttl);
            zone.record_count += set.len();
        }
        let has_server = zone.node(&zone.origin).is_some_and(|n| n.contains_key(&RecordType::NS));
        if has_server { Ok(zone) } else { Err(ZoneError::NoNameServer) }
    }

    fn insert(&mut self, line: usize, record: Record) -> Result<(), ZoneError> {
        let mut name = LowerName::new(&record.name);
        if !self.origin.zone_of(&name) {
            return Err(ZoneError::Outside { line, name: record.name });
        }
        let kind = record.record_type();
        let node = self.nodes.entry(name.clone()).or_default();
        if let Some(alias) = node.get(&RecordType::CNAME) {
            // Twice the same is once.
            return if alias.iter().any(|alias| alias.data == record.data) {
                Ok(())
            } else {
                Err(ZoneError::AliasWithRecords { line, name: record.name })
            };
        }
        if kind == RecordType::CNAME && !node.is_empty() {
            return Err(ZoneError::AliasWithRecords { line, name: record.name });
        }
        node.entry(kind).or_default().push(record);
        while name != self.origin {
            name = name.base_name();
            self.nodes.entry(name.clone()).or_default();
        }
        Ok(())
    }

    /// The zone's uppermost name.
    pub fn origin(&self) -> &LowerName {
        &self.origin
    }

    /// Number of its records.
    pub fn record_count(&self) -> usize {
        self.record_count
    }

    /// The record that goes with every "no": with the time that the no may be remembered.
    pub(super) fn soa(&self) -> &Record {
        &self.soa
    }

    /// What exactly this name has; `None` if it does not exist.
    pub(super) fn node(&self, name: &LowerName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The uppermost name on the way from the origin (exclusive) to `name` that belongs to another
    /// zone, with its name servers. For DS records the cut itself is still ours (RFC 4035 §3.1.4.1).
    pub(super) fn cut(&self, name: &LowerName, kind: RecordType) -> Option<&[Record]> {
        let mut cut = None;
        let mut at = name.clone();
        while at != self.origin && !at.is_root() {
            if let Some(servers) = self.node(&at).and_then(|node| node.get(&RecordType::NS))
                && !(kind == RecordType::DS && at == *name)
            {
                cut = Some(servers.as_slice());
            }
            at = at.base_name();
        }
        cut
    }

    /// The wildcard that stands for `name`, which does not exist: that of its closest encloser (RFC
    /// 4592 §3.3.1).
    pub(super) fn wildcard(&self, name: &LowerName) -> Option<&Node> {
        let mut next_closer = name.clone();
        loop {
            let encloser = next_closer.base_name();
            if self.nodes.contains_key(&encloser) {
                return self.node(&next_closer.into_wildcard());
            }
            if encloser.is_root() {
                return None;
            }
            next_closer = encloser;
        }
    }
}
