//! Which hardware address a neighbour has (RFC 826), and the packets that wait for the answer.
//!
//! The table is asked for every packet and written to by everybody on the link, so three rules keep
//! it useful (RFC 1122 §2.3.2):
//!
//! - **Asking** is limited per neighbour, one request a second, so that one dead host takes nothing
//!   from the others; the number of unanswered neighbours is limited, so that a scan ends there.
//! - **Waiting** packets are kept per neighbour, the newest few, at least one.
//! - **Forgetting** follows use: an entry in use is confirmed by a unicast request well before it
//!   grows old, and goes on being used meanwhile, so traffic never pauses for ARP. What nobody
//!   uses is not asked about, and is first to go when the table is full. Packets that nobody asked
//!   for never push out an entry in use.

use crate::config::{Limits, MacAddress};
use crate::counters::Counters;
use crate::output::Packet;
use crate::secret::Key;
use crate::time::Instant;
use core::time::Duration;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::Ipv4Addr;

/// Time between two requests to one neighbour (RFC 1122 §2.3.2.1: at most one per second).
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);
/// Requests to a neighbour that never answered, before its packets are dropped.
const REQUESTS: u8 = 3;
/// Age after which an entry in use is confirmed. The table of Linux does so after 15 to 45 s.
const CONFIRM_AFTER: Duration = Duration::from_secs(30);
/// Unicast requests to confirm an entry (RFC 1122 §2.3.2.1 (2)).
const CONFIRM_UNICAST: u8 = 3;
/// Requests to confirm an entry in all; those after the unicast ones are broadcast.
const CONFIRM_REQUESTS: u8 = 6;
/// Age after which an unused entry is not believed any more, even for one packet.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Time without use after which an entry may make room for one that nobody asked for.
const IDLE_AFTER: Duration = Duration::from_secs(60);
/// Silent neighbours that are remembered until somebody asks for them.
const SILENT_MAX: usize = 64;
/// What a waiting packet costs beside its payload, in bytes.
const PACKET_OVERHEAD: usize = 64;

/// What waits for a neighbour: a packet of ours, or one that is being forwarded.
pub(crate) trait Waiting {
    /// Its length, for the limit on bytes.
    fn bytes(&self) -> usize;
}

impl Waiting for Packet {
    fn bytes(&self) -> usize {
        self.payload.len()
    }
}

/// An ARP request to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) target: Ipv4Addr,
    /// `None`: to everybody.
    pub(crate) to: Option<MacAddress>,
}

#[derive(Debug)]
enum State {
    /// Asked for `requests` times, without an answer.
    Unresolved { requests: u8 },
    /// Known; asked for `requests` times since it grew old.
    Resolved { mac: MacAddress, confirmed_at: Instant, requests: u8 },
}

#[derive(Debug)]
struct Entry<P> {
    state: State,
    /// When the next request is due; its entry in `timers`.
    deadline: Option<Instant>,
    /// `None`: never, the neighbour made itself known.
    used_at: Option<Instant>,
    /// Packets that wait, oldest first; empty if resolved.
    parked: VecDeque<P>,
}

/// The neighbours of the interface.
pub(crate) struct Neighbours<P = Packet> {
    entries: HashMap<Ipv4Addr, Entry<P>, Key>,
    unresolved: usize,
    timers: BTreeSet<(Instant, Ipv4Addr)>,
    /// At most one per entry with a deadline.
    requests: VecDeque<Request>,
    /// Packets whose neighbour has answered.
    ready: VecDeque<(MacAddress, P)>,
    /// Packets whose neighbour has not.
    failed: VecDeque<P>,
    /// Neighbours that did not answer, for the choice of routers.
    silent: Vec<Ipv4Addr>,
    /// Bytes of all packets in here.
    bytes: usize,
    entries_max: usize,
    unresolved_max: usize,
    parked_max: usize,
    bytes_max: usize,
}

fn cost(packet: &impl Waiting) -> usize {
    packet.bytes() + PACKET_OVERHEAD
}

impl<P: Waiting> Neighbours<P> {
    pub(crate) fn new(limits: &Limits, key: Key) -> Self {
        Neighbours {
            entries: HashMap::with_hasher(key),
            unresolved: 0,
            timers: BTreeSet::new(),
            requests: VecDeque::new(),
            ready: VecDeque::new(),
            failed: VecDeque::new(),
            silent: Vec::new(),
            bytes: 0,
            entries_max: limits.neighbours,
            unresolved_max: limits.neighbours_unresolved,
            parked_max: limits.neighbour_parked_packets,
            bytes_max: limits.neighbour_parked_bytes,
        }
    }

    /// The hardware address to send to, if it is known.
    pub(crate) fn lookup(&mut self, now: Instant, address: Ipv4Addr) -> Option<MacAddress> {
        let entry = self.entries.get_mut(&address)?;
        entry.used_at = Some(now);
        let State::Resolved { mac, confirmed_at, requests } = &mut entry.state else {
            return None;
        };
        let mac = *mac;
        let age = now.saturating_since(*confirmed_at);
        if age < CONFIRM_AFTER || *requests > 0 {
            return Some(mac);
        }
        if age >= FORGET_AFTER {
            self.remove(address);
            return None;
        }
        *requests = 1;
        self.requests.push_back(Request { target: address, to: Some(mac) });
        self.set_deadline(address, Some(now + REQUEST_INTERVAL));
        Some(mac)
    }

    /// Keeps a packet until `address` has answered, and asks for it if that was not done.
    pub(crate) fn park(
        &mut self,
        now: Instant,
        address: Ipv4Addr,
        packet: P,
        counters: &mut Counters,
    ) {
        if !self.entries.contains_key(&address) {
            if !self.make_room_for_unresolved(now) {
                counters.dropped_neighbour_table_full += 1;
                return;
            }
            let state = State::Unresolved { requests: 1 };
            self.insert(address, state, Some(now));
            self.unresolved += 1;
            self.requests.push_back(Request { target: address, to: None });
            self.set_deadline(address, Some(now + REQUEST_INTERVAL));
        }
        self.bytes += cost(&packet);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.parked.push_back(packet);
            if entry.parked.len() > self.parked_max {
                self.drop_oldest(address, counters);
            }
        }
        while self.bytes > self.bytes_max {
            // RFC 1122 §2.3.2.2: the newest packet of each stays; so the loser is one that has
            // more, or, if nobody has, the one that came last.
            let most = self.entries.iter().max_by_key(|(_, entry)| entry.parked.len());
            let loser = match most {
                Some((loser, entry)) if entry.parked.len() > 1 => *loser,
                _ => address,
            };
            if !self.drop_oldest(loser, counters) {
                break;
            }
        }
    }

    /// Drops the packet that has waited longest for `address`.
    fn drop_oldest(&mut self, address: Ipv4Addr, counters: &mut Counters) -> bool {
        let packet = self.entries.get_mut(&address).and_then(|entry| entry.parked.pop_front());
        let Some(packet) = packet else { return false };
        self.bytes -= cost(&packet);
        counters.dropped_neighbour_parked += 1;
        true
    }

    /// Takes note of what `address` says of itself. If it is not in the table, it is only added
    /// when it spoke to us (`to_us`), and never at the cost of an entry in use.
    pub(crate) fn learn(
        &mut self,
        now: Instant,
        address: Ipv4Addr,
        mac: MacAddress,
        to_us: bool,
    ) -> bool {
        let resolved = State::Resolved { mac, confirmed_at: now, requests: 0 };
        if let Some(entry) = self.entries.get_mut(&address) {
            if matches!(entry.state, State::Unresolved { .. }) {
                self.unresolved -= 1;
            }
            entry.state = resolved;
            let parked = core::mem::take(&mut entry.parked);
            self.ready.extend(parked.into_iter().map(|packet| (mac, packet)));
            self.set_deadline(address, None);
            // What the device has not taken need not be asked any more.
            self.requests.retain(|request| request.target != address);
            return true;
        }
        if !to_us || !self.make_room_for_stranger(now) {
            return false;
        }
        self.insert(address, resolved, None);
        true
    }

    fn insert(&mut self, address: Ipv4Addr, state: State, used_at: Option<Instant>) {
        let entry = Entry { state, deadline: None, used_at, parked: VecDeque::new() };
        self.entries.insert(address, entry);
    }

    /// Makes room for a neighbour that we want to send to.
    fn make_room_for_unresolved(&mut self, now: Instant) -> bool {
        if self.unresolved >= self.unresolved_max {
            // The one that was asked for longest ago, if its second is over: so all together are
            // asked for at most `unresolved_max` times a second.
            let oldest = self
                .entries
                .iter()
                .filter(|(_, entry)| matches!(entry.state, State::Unresolved { .. }))
                .filter_map(|(address, entry)| Some((entry.deadline?, *address)))
                .min();
            match oldest {
                Some((deadline, address)) if deadline <= now => self.remove(address),
                _ => return false,
            }
        }
        self.entries.len() < self.entries_max || self.evict_resolved(|_| true)
    }

    /// Makes room for a neighbour that nobody asked for.
    fn make_room_for_stranger(&mut self, now: Instant) -> bool {
        self.entries.len() < self.entries_max
            || self.evict_resolved(|used_at| match used_at {
                Some(used_at) => now.saturating_since(used_at) >= IDLE_AFTER,
                None => true,
            })
    }

    /// Removes the resolved entry that was not used for longest, if `may_go` agrees.
    fn evict_resolved(&mut self, may_go: impl Fn(Option<Instant>) -> bool) -> bool {
        let idlest = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.state, State::Resolved { .. }))
            .map(|(address, entry)| (entry.used_at, *address))
            .min();
        match idlest {
            Some((used_at, address)) if may_go(used_at) => {
                self.remove(address);
                true
            }
            _ => false,
        }
    }

    fn remove(&mut self, address: Ipv4Addr) {
        self.set_deadline(address, None);
        if let Some(entry) = self.entries.remove(&address) {
            if matches!(entry.state, State::Unresolved { .. }) {
                self.unresolved -= 1;
            }
            self.failed.extend(entry.parked);
        }
        self.requests.retain(|request| request.target != address);
    }

    fn set_deadline(&mut self, address: Ipv4Addr, deadline: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        if let Some(old) = core::mem::replace(&mut entry.deadline, deadline) {
            self.timers.remove(&(old, address));
        }
        if let Some(new) = deadline {
            self.timers.insert((new, address));
        }
    }

    /// Asks again, or gives up.
    pub(crate) fn handle_timeout(&mut self, now: Instant, counters: &mut Counters) {
        while let Some(&(deadline, address)) = self.timers.first()
            && deadline <= now
        {
            let Some(entry) = self.entries.get_mut(&address) else {
                self.timers.pop_first();
                continue;
            };
            let (requests, limit, to) = match &mut entry.state {
                State::Unresolved { requests } => (requests, REQUESTS, None),
                State::Resolved { mac, requests, .. } => {
                    let to = (*requests < CONFIRM_UNICAST).then_some(*mac);
                    (requests, CONFIRM_REQUESTS, to)
                }
            };
            if *requests >= limit {
                counters.neighbour_failures += 1;
                if self.silent.len() < SILENT_MAX {
                    self.silent.push(address);
                }
                self.remove(address);
                continue;
            }
            *requests += 1;
            // A request that the device has not taken yet is not asked twice.
            self.requests.retain(|request| request.target != address);
            self.requests.push_back(Request { target: address, to });
            self.set_deadline(address, Some(now + REQUEST_INTERVAL));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// Takes the next request to send.
    pub(crate) fn take_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// Takes the next packet whose neighbour has answered.
    pub(crate) fn take_ready(&mut self) -> Option<(MacAddress, P)> {
        let (mac, packet) = self.ready.pop_front()?;
        self.bytes -= cost(&packet);
        Some((mac, packet))
    }

    /// Upper layers have had no answer for longer than they should: asks the neighbour at once.
    pub(crate) fn suspect(&mut self, now: Instant, address: Ipv4Addr) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        let State::Resolved { mac, requests, .. } = &mut entry.state else { return };
        if *requests == 0 {
            *requests = 1;
            let to = Some(*mac);
            self.requests.push_back(Request { target: address, to });
            self.set_deadline(address, Some(now + REQUEST_INTERVAL));
        }
    }

    /// Takes the next neighbour that has stopped to answer.
    pub(crate) fn take_silent(&mut self) -> Option<Ipv4Addr> {
        self.silent.pop()
    }

    /// Takes the next packet whose neighbour has not answered.
    pub(crate) fn take_failed(&mut self) -> Option<P> {
        let packet = self.failed.pop_front()?;
        self.bytes -= cost(&packet);
        Some(packet)
    }

    /// Forgets everything: the interface has lost its address.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.timers.clear();
        self.requests.clear();
        self.ready.clear();
        self.failed.clear();
        self.silent.clear();
        self.unresolved = 0;
        self.bytes = 0;
    }

    /// Number of neighbours, and bytes of packets that wait.
    pub(crate) fn gauges(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }
}
