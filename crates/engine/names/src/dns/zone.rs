//! [`Zone`]: the names that a server is the authority for.

use core::fmt;
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};
use hickory_proto::serialize::txt::Parser;
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

/// Why a text is no zone.
#[derive(Debug)]
#[non_exhaustive]
pub enum ZoneError {
    /// It is not in master format; what the parser says.
    Syntax(String),
    /// It includes another file (`$INCLUDE`), and there are none here.
    Include,
    /// Neither the text (`$ORIGIN`) nor the caller names the origin, or it has no SOA record.
    NoSoa,
    /// The origin has more than one SOA record.
    ManySoa,
    /// The origin has no NS record (RFC 1034 §4.2.1).
    NoNameServer,
    /// A name outside the zone.
    Outside(Name),
    /// A record that is not of class IN.
    Class(Name),
    /// An alias that has other records too, or two targets (RFC 1034 §3.6.2).
    AliasWithRecords(Name),
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ZoneError::Syntax(why) => write!(f, "the zone is not in master format: {why}"),
            ZoneError::Include => write!(f, "the zone includes a file: there are none here"),
            ZoneError::NoSoa => write!(f, "the zone has no SOA record at its origin"),
            ZoneError::ManySoa => write!(f, "the zone has more than one SOA record"),
            ZoneError::NoNameServer => write!(f, "the zone has no NS record at its origin"),
            ZoneError::Outside(name) => write!(f, "{name} is outside the zone"),
            ZoneError::Class(name) => write!(f, "{name} has a record that is not of class IN"),
            ZoneError::AliasWithRecords(name) => {
                write!(f, "{name} is an alias (CNAME) and has another record")
            }
        }
    }
}

impl std::error::Error for ZoneError {}

impl Zone {
    /// Reads a zone in master format (RFC 1035 §5). `origin` is needed if the text does not begin
    /// with `$ORIGIN`.
    ///
    /// # Errors
    /// [`ZoneError`], naming the name.
    pub fn parse(text: &str, origin: Option<Name>) -> Result<Zone, ZoneError> {
        // The parser would open it.
        if text.to_ascii_uppercase().contains("$INCLUDE") {
            return Err(ZoneError::Include);
        }
        let (_, sets) = Parser::new(text, None, origin)
            .parse()
            .map_err(|error| ZoneError::Syntax(error.to_string()))?;
        let records: Vec<Record> =
            sets.values().flat_map(|set| set.records_without_rrsigs()).cloned().collect();
        Zone::from_records(records)
    }

    fn from_records(records: Vec<Record>) -> Result<Zone, ZoneError> {
        // The origin is where the SOA is, wherever `$ORIGIN` has moved to since.
        let is_soa = |record: &&Record| record.record_type() == RecordType::SOA;
        let mut soas = records.iter().filter(is_soa);
        let mut soa = soas.next().ok_or(ZoneError::NoSoa)?.clone();
        if soas.next().is_some() {
            return Err(ZoneError::ManySoa);
        }
        // RFC 2308 §3: what is not there is remembered for the lesser of the two.
        if let RData::SOA(data) = &soa.data {
            soa.ttl = soa.ttl.min(data.minimum);
        }
        let origin = LowerName::new(&soa.name);
        let mut zone = Zone { soa, nodes: BTreeMap::new(), record_count: records.len(), origin };
        for record in records {
            if record.dns_class != DNSClass::IN {
                return Err(ZoneError::Class(record.name));
            }
            zone.insert(record)?;
        }
        for node in zone.nodes.values() {
            if let Some([alias, rest @ ..]) = node.get(&RecordType::CNAME).map(Vec::as_slice)
                && (node.len() > 1 || !rest.is_empty())
            {
                return Err(ZoneError::AliasWithRecords(alias.name.clone()));
            }
        }
        let has_server = zone.node(&zone.origin).is_some_and(|n| n.contains_key(&RecordType::NS));
        if has_server { Ok(zone) } else { Err(ZoneError::NoNameServer) }
    }

    fn insert(&mut self, record: Record) -> Result<(), ZoneError> {
        let mut name = LowerName::new(&record.name);
        if !self.origin.zone_of(&name) {
            return Err(ZoneError::Outside(record.name));
        }
        let node = self.nodes.entry(name.clone()).or_default();
        node.entry(record.record_type()).or_default().push(record);
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
