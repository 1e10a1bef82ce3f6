//! Fragments put together (RFC 791 §3.2, RFC 815, RFC 8200 §4.5), under limits; both families'
//! together.
//!
//! Anybody can send fragments that are never completed, so what is incomplete is bounded: in
//! bytes, in datagrams, in datagrams of one source, and in time from the first arrival (RFC 1122
//! §3.3.2). Past a limit the source that holds most loses its oldest, so that a flood does not stop
//! others.
//!
//! Fragments that overlap are the tool of attacks (teardrop; filters that see another datagram than
//! the host). As RFC 5722 does for IPv6, one overlap drops the whole datagram, and the pieces of it
//! that come later too. A piece that comes twice, byte for byte, is ignored.

use crate::config::Limits;
use crate::counters::Counters;
use crate::secret::Key;
use crate::time::Instant;
use crate::wire::ipv4::{self, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP};
use crate::wire::ipv6::{self, PROTOCOL_ICMPV6};
use core::time::Duration;
use std::collections::HashMap;
use std::net::IpAddr;

/// What an incomplete datagram costs beside its buffers, in bytes.
const ENTRY_OVERHEAD: usize = 256;
/// Bytes of an expired datagram that an ICMP error quotes at most (RFC 1812 §4.3.2.3: an error has
/// at most 576 bytes).
pub(crate) const QUOTE_MAX: usize = 576 - ipv4::HEADER_LEN - crate::wire::icmpv4::HEADER_LEN;

/// What makes fragments pieces of one datagram (RFC 791 §3.2; RFC 8200 §4.5, where the protocol is
/// no part of it, and is 0 here).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    identification: u32,
}

struct Entry {
    /// When it expires: a fixed time after its first fragment came.
    deadline: Instant,
    /// Order of arrival.
    serial: u64,
    /// Header of the fragment at offset 0; empty until it came.
    header: Vec<u8>,
    /// The payload as far as it came, holes zero.
    payload: Vec<u8>,
    /// One bit for each 8 bytes of the payload that came.
    have: Vec<u64>,
    /// Number of bits set in `have`.
    have_units: usize,
    /// Length of the whole payload; known once the last fragment came.
    len: Option<usize>,
    /// Fragments overlapped: nothing is kept, and the rest is not taken.
    is_dropped: bool,
}

impl Entry {
    fn cost(&self) -> usize {
        ENTRY_OVERHEAD + self.header.capacity() + self.payload.capacity() + self.have.capacity() * 8
    }

    fn has(&self, unit: usize) -> bool {
        self.have.get(unit / 64).is_some_and(|word| word >> (unit % 64) & 1 == 1)
    }

    fn set(&mut self, unit: usize) {
        if self.have.len() <= unit / 64 {
            self.have.resize(unit / 64 + 1, 0);
        }
        self.have[unit / 64] |= 1 << (unit % 64);
        self.have_units += 1;
    }

    fn is_complete(&self) -> bool {
        !self.header.is_empty() && self.len.is_some_and(|len| self.have_units == len.div_ceil(8))
    }

    fn give_up(&mut self) {
        (self.header, self.payload, self.have) = (Vec::new(), Vec::new(), Vec::new());
        self.is_dropped = true;
    }

    /// Adds a piece that is consistent with itself.
    fn add(&mut self, fragment: &Fragment<'_>) -> Piece {
        let (piece, start) = (fragment.payload, fragment.offset);
        let end = start + piece.len();
        let is_last = !fragment.more;
        let units = start / 8..end.div_ceil(8);
        let had = units.clone().filter(|unit| self.has(*unit)).count();
        if had == units.len() && self.payload.get(start..end) == Some(piece) {
            // RFC 815 would merge it; the same bytes again change nothing, unless it says anew
            // where the datagram ends.
            if !is_last || self.len == Some(end) {
                return Piece::Duplicate;
            }
        }
        let contradicts_end = match self.len {
            Some(len) => end > len || is_last,
            None => is_last && end < self.payload.len(),
        };
        if had > 0 || contradicts_end {
            return Piece::Overlap;
        }
        if is_last {
            self.len = Some(end);
        }
        if start == 0 {
            self.header = fragment.header.to_vec();
        }
        if self.payload.len() < end {
            self.payload.resize(end, 0);
        }
        self.payload[start..end].copy_from_slice(piece);
        for unit in units {
            self.set(unit);
        }
        Piece::Added
    }
}

/// A fragment of either family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// What the fragmented part holds.
    pub(crate) protocol: u8,
    pub(crate) identification: u32,
    /// Where the payload belongs, in bytes; a multiple of 8.
    pub(crate) offset: usize,
    /// It is not the last.
    pub(crate) more: bool,
    /// The headers that are repeated in each fragment: IPv4's; or IPv6's with what comes before the
    /// fragment header, whose number they do not contain any more.
    pub(crate) header: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// A fragment of IPv4.
    pub(crate) fn of_ipv4(packet: &ipv4::Packet<'a>) -> Self {
        Fragment {
            source: packet.source().into(),
            destination: packet.destination().into(),
            protocol: packet.protocol(),
            identification: packet.identification().into(),
            offset: packet.fragment_offset(),
            more: packet.more_fragments(),
            header: packet.header(),
            payload: packet.payload(),
        }
    }

    /// Whether a fragment of this length can be where it says: the end of the whole is below 64
    /// KiB, and pieces meet at multiples of 8 bytes.
    pub(crate) fn is_possible(&self) -> bool {
        let len = self.payload.len();
        let headers = if self.source.is_ipv4() { ipv4::HEADER_LEN } else { 0 };
        len > 0
            && (!self.more || len.is_multiple_of(8))
            && self.offset + len <= 65_535 - headers
            && (self.offset > 0 || len >= transport_header_len(self.protocol))
    }
}

enum Piece {
    Added,
    Duplicate,
    Overlap,
}

/// What there is too little of.
#[derive(Clone, Copy)]
enum Short {
    Bytes,
    Datagrams,
}

/// A datagram that is whole again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// The header of the fragment at offset 0.
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// A datagram whose time is up.
pub(crate) struct Expired {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// The beginning of the first fragment, header included; empty if that did not come.
    pub(crate) quote: Vec<u8>,
}

/// Datagrams that are incomplete.
pub(crate) struct Reassembly {
    entries: HashMap<Id, Entry, Key>,
    /// What all entries cost together.
    bytes: usize,
    /// The earliest deadline.
    deadline: Option<Instant>,
    serial: u64,
    bytes_max: usize,
    datagrams_max: usize,
    per_source_max: usize,
    timeout: Duration,
}

/// Bytes of a first fragment that a transport needs to be recognised (RFC 1858 §4, RFC 7112).
pub(crate) const fn transport_header_len(protocol: u8) -> usize {
    match protocol {
        PROTOCOL_TCP => 20,
        PROTOCOL_UDP | PROTOCOL_ICMP | PROTOCOL_ICMPV6 => 8,
        _ => 0,
    }
}

impl Reassembly {
    pub(crate) fn new(limits: &Limits, key: Key) -> Self {
        Reassembly {
            entries: HashMap::with_hasher(key),
            bytes: 0,
            deadline: None,
            serial: 0,
            bytes_max: limits.reassembly_bytes,
            datagrams_max: limits.reassembly_datagrams,
            per_source_max: limits.reassembly_datagrams_per_source,
            timeout: limits.reassembly_timeout,
        }
    }

    /// Takes a fragment; gives the datagram that it completes.
    pub(crate) fn handle_fragment(
        &mut self,
        now: Instant,
        fragment: &Fragment<'_>,
        counters: &mut Counters,
    ) -> Option<Datagram> {
        counters.fragments_received += 1;
        if !fragment.is_possible() {
            counters.dropped_fragment_malformed += 1;
            return None;
        }
        let id = Id {
            source: fragment.source,
            destination: fragment.destination,
            protocol: if fragment.source.is_ipv4() { fragment.protocol } else { 0 },
            identification: fragment.identification,
        };
        if !self.entries.contains_key(&id) {
            self.insert(now, id, counters);
        }
        let entry = self.entries.get_mut(&id)?;
        if entry.is_dropped {
            counters.dropped_fragment_overlap += 1;
            return None;
        }
        let cost_before = entry.cost();
        match entry.add(fragment) {
            Piece::Added => {}
            Piece::Duplicate => counters.dropped_fragment_duplicate += 1,
            Piece::Overlap => {
                counters.dropped_fragment_overlap += 1;
                entry.give_up();
            }
        }
        self.bytes = self.bytes - cost_before + entry.cost();
        if entry.is_complete() {
            let mut entry = self.remove(id)?;
            // RFC 791 §3.2, RFC 8200 §4.5: the header is the first fragment's, the length the
            // whole's.
            let (at, counted) = if id.source.is_ipv4() { (2, 0) } else { (4, ipv6::HEADER_LEN) };
            let len = (entry.header.len() + entry.payload.len()).saturating_sub(counted);
            let (Ok(len), Some(field)) = (u16::try_from(len), entry.header.get_mut(at..at + 2))
            else {
                counters.dropped_fragment_malformed += 1;
                return None;
            };
            field.copy_from_slice(&len.to_be_bytes());
            counters.datagrams_reassembled += 1;
            return Some(Datagram { header: entry.header, payload: entry.payload });
        }
        while self.bytes > self.bytes_max && self.evict(Short::Bytes, counters) {}
        None
    }

    fn insert(&mut self, now: Instant, id: Id, counters: &mut Counters) {
        let of_source = self.entries.keys().filter(|other| other.source == id.source).count();
        if of_source >= self.per_source_max {
            self.evict_from(id.source, counters);
        }
        while self.entries.len() >= self.datagrams_max && self.evict(Short::Datagrams, counters) {}
        let entry = Entry {
            deadline: now + self.timeout,
            serial: self.serial,
            header: Vec::new(),
            payload: Vec::new(),
            have: Vec::new(),
            have_units: 0,
            len: None,
            is_dropped: false,
        };
        self.serial += 1;
        self.bytes += entry.cost();
        self.deadline = Some(self.deadline.map_or(entry.deadline, |old| old.min(entry.deadline)));
        self.entries.insert(id, entry);
    }

    /// Drops the oldest datagram of `source`.
    fn evict_from(&mut self, source: IpAddr, counters: &mut Counters) -> bool {
        let oldest = self
            .entries
            .iter()
            .filter(|(id, _)| id.source == source)
            .min_by_key(|(_, entry)| entry.serial)
            .map(|(id, _)| *id);
        let Some(id) = oldest else { return false };
        self.remove(id);
        counters.dropped_fragment_limit += 1;
        true
    }

    /// Drops the oldest datagram of the source that has most of what is short; of several such
    /// sources, of the one that has it longest: a flood of single pieces from invented sources
    /// pushes out its own beginning, and spares whoever sends the rest within a moment.
    fn evict(&mut self, short: Short, counters: &mut Counters) -> bool {
        let mut by_source: HashMap<IpAddr, (usize, u64), Key> =
            HashMap::with_hasher(self.entries.hasher().clone());
        for (id, entry) in &self.entries {
            let (held, oldest) = by_source.entry(id.source).or_insert((0, u64::MAX));
            *held += match short {
                Short::Bytes => entry.cost(),
                Short::Datagrams => 1,
            };
            *oldest = (*oldest).min(entry.serial);
        }
        let loser = by_source
            .into_iter()
            .max_by_key(|(_, (held, oldest))| (*held, core::cmp::Reverse(*oldest)));
        match loser {
            Some((source, _)) => self.evict_from(source, counters),
            None => false,
        }
    }

    fn remove(&mut self, id: Id) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.bytes -= entry.cost();
        if self.deadline == Some(entry.deadline) {
            self.deadline = self.entries.values().map(|entry| entry.deadline).min();
        }
        Some(entry)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes a datagram whose time is up.
    pub(crate) fn take_expired(
        &mut self,
        now: Instant,
        counters: &mut Counters,
    ) -> Option<Expired> {
        if self.deadline? > now {
            return None;
        }
        let (id, _) = self.entries.iter().min_by_key(|(_, entry)| entry.deadline)?;
        let id = *id;
        let entry = self.remove(id)?;
        counters.reassembly_timeouts += 1;
        let mut quote = entry.header;
        if !quote.is_empty() {
            // Only what came of the first fragment: the bytes up to the first hole.
            let units = (0..).take_while(|unit| {
                entry.have.get(unit / 64).is_some_and(|word| word >> (unit % 64) & 1 == 1)
            });
            let len = (units.count() * 8)
                .min(entry.payload.len())
                .min(QUOTE_MAX.saturating_sub(quote.len()));
            quote.extend(&entry.payload[..len]);
        }
        Some(Expired { source: id.source, destination: id.destination, quote })
    }

    /// Forgets what is for `address`, which the interface has lost.
    pub(crate) fn forget(&mut self, address: IpAddr) {
        let lost: Vec<Id> =
            self.entries.keys().filter(|id| id.destination == address).copied().collect();
        for id in lost {
            self.remove(id);
        }
    }

    /// Number of incomplete datagrams, and what they cost in bytes.
    pub(crate) fn gauges(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }
}
