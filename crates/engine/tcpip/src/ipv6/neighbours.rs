//! The neighbour cache (RFC 4861 §5, §7): which hardware address a neighbour has, whether it is
//! still there, and the packets that wait for the answer.
//!
//! ```text
//!            park                    answer                 30 s           packet sent
//!   (none) ───────► INCOMPLETE ───────────────► REACHABLE ───────► STALE ─────────────► DELAY
//!                      │ 3 × 1 s                    ▲                                     │ 5 s
//!                      ▼                            └── answer, or TCP's progress ──── PROBE ──► (none)
//!                   (none)                                                                3 × 1 s
//! ```
//!
//! The link of an IPv6 host is larger than any table, so what strangers can do is bounded (RFC 6583):
//! only packets of ours and solicitations for us make entries; those that nobody answers are few,
//! and are the first to go; an entry in use never goes for a stranger.

use crate::config::{Limits, MacAddress};
use crate::counters::Counters;
use crate::output::Packet;
use crate::secret::{Key, Random};
use crate::time::Instant;
use core::time::Duration;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::Ipv6Addr;

/// Solicitations to a group for a neighbour that never answered (RFC 4861 §10).
const MAX_MULTICAST_SOLICIT: u8 = 3;
/// Solicitations to a neighbour that used to answer (RFC 4861 §10).
const MAX_UNICAST_SOLICIT: u8 = 3;
/// How long a packet that was sent to a stale entry may be answered by upper layers (RFC 4861 §10).
const DELAY_FIRST_PROBE_TIME: Duration = Duration::from_secs(5);
/// REACHABLE_TIME of RFC 4861 §10, before its jitter.
const REACHABLE_TIME: Duration = Duration::from_secs(30);
/// RETRANS_TIMER of RFC 4861 §10.
pub(super) const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// What a router may make of the times above: else one lie would silence or flood us.
const REACHABLE_TIME_MAX: Duration = Duration::from_secs(3600);
const RETRANS_TIMER_RANGE: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(10));
/// Time without use after which an entry may make room for one that nobody asked for.
const IDLE_AFTER: Duration = Duration::from_secs(60);
/// A router is asked whether it hears us within this time.
const ASK_DELAY_MS: u32 = 500;
/// Silent neighbours that are remembered until somebody asks for them.
const SILENT_MAX: usize = 64;
/// What a waiting packet costs beside its payload, in bytes.
const PACKET_OVERHEAD: usize = 64;

/// A solicitation to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) target: Ipv6Addr,
    /// `None`: to the target's group.
    pub(crate) to: Option<MacAddress>,
    /// Where the packet comes from that asks for it (RFC 4861 §7.2.2), if one does.
    pub(crate) source: Option<Ipv6Addr>,
}

/// RFC 4861 §7.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Asked for so often.
    Incomplete(u8),
    Reachable {
        until: Instant,
    },
    Stale,
    Delay,
    /// Asked for so often.
    Probe(u8),
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Meaningless while incomplete.
    mac: MacAddress,
    /// When the next solicitation is due; its entry in `timers`.
    deadline: Option<Instant>,
    /// `None`: never, the neighbour made itself known.
    used_at: Option<Instant>,
    /// Packets that wait, oldest first; empty unless incomplete.
    parked: VecDeque<Packet>,
}

/// What an advertisement says (RFC 4861 §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Advertisement {
    pub(crate) mac: Option<MacAddress>,
    pub(crate) is_router: bool,
    pub(crate) is_solicited: bool,
    pub(crate) overrides: bool,
}

/// See the module.
pub(crate) struct Cache {
    entries: HashMap<Ipv6Addr, Entry, Key>,
    incomplete: usize,
    /// Routers in use: few, and known to be some because their advertisements were taken. That a
    /// neighbour says of itself to be a router protects nobody.
    routers: Vec<Ipv6Addr>,
    timers: BTreeSet<(Instant, Ipv6Addr)>,
    /// At most one per entry with a deadline.
    requests: VecDeque<Request>,
    /// Packets whose neighbour has answered.
    ready: VecDeque<(MacAddress, Packet)>,
    /// Packets whose neighbour has not.
    failed: VecDeque<Packet>,
    /// Neighbours that did not answer, for the choice of routers.
    silent: Vec<Ipv6Addr>,
    /// Bytes of all packets in here.
    bytes: usize,
    reachable_time: Duration,
    retrans_timer: Duration,
    random: Random,
    entries_max: usize,
    incomplete_max: usize,
    parked_max: usize,
    bytes_max: usize,
}

fn cost(packet: &Packet) -> usize {
    packet.payload.len() + PACKET_OVERHEAD
}

impl Cache {
    pub(crate) fn new(limits: &Limits, key: Key, random: Random) -> Self {
        Cache {
            entries: HashMap::with_hasher(key),
            incomplete: 0,
            routers: Vec::new(),
            timers: BTreeSet::new(),
            requests: VecDeque::new(),
            ready: VecDeque::new(),
            failed: VecDeque::new(),
            silent: Vec::new(),
            bytes: 0,
            reachable_time: REACHABLE_TIME,
            retrans_timer: RETRANS_TIMER,
            random,
            entries_max: limits.neighbours,
            incomplete_max: limits.neighbours_unresolved,
            parked_max: limits.neighbour_parked_packets,
            bytes_max: limits.neighbour_parked_bytes,
        }
    }

    /// Takes over a router's times, in milliseconds; 0 says nothing (RFC 4861 §6.3.4).
    pub(crate) fn set_times(&mut self, reachable: u32, retransmit: u32) {
        if reachable > 0 {
            self.reachable_time = Duration::from_millis(reachable.into()).min(REACHABLE_TIME_MAX);
        }
        if retransmit > 0 {
            let (least, most) = RETRANS_TIMER_RANGE;
            self.retrans_timer = Duration::from_millis(retransmit.into()).clamp(least, most);
        }
    }

    /// These are the routers from now on.
    pub(crate) fn set_routers(&mut self, routers: impl Iterator<Item = Ipv6Addr>) {
        self.routers.clear();
        self.routers.extend(routers);
    }

    /// Asks `address` soon whether it hears us. True if it has just shown that it does.
    pub(crate) fn ask(&mut self, now: Instant, address: Ipv6Addr) -> bool {
        // Many hosts hear one router; they should not ask together.
        let delay = Duration::from_millis(self.random.below(ASK_DELAY_MS).into());
        if let Some(entry) = self.entries.get_mut(&address) {
            match entry.state {
                State::Reachable { until } if now < until => return true,
                State::Reachable { .. } | State::Stale => {
                    entry.state = State::Delay;
                    self.set_deadline(address, Some(now + delay));
                }
                State::Incomplete(_) | State::Delay | State::Probe(_) => {}
            }
        } else if self.make_room_for_incomplete(now) {
            self.insert_incomplete(now, address, None, None);
        }
        false
    }

    /// The hardware address to send to, if it is known.
    pub(crate) fn lookup(&mut self, now: Instant, address: Ipv6Addr) -> Option<MacAddress> {
        let entry = self.entries.get_mut(&address)?;
        entry.used_at = Some(now);
        let mac = entry.mac;
        match entry.state {
            State::Incomplete(_) => return None,
            State::Reachable { until } if now < until => {}
            // What follows the end of REACHABLE is STALE, and a packet sent then starts DELAY.
            State::Reachable { .. } | State::Stale => {
                entry.state = State::Delay;
                self.set_deadline(address, Some(now + DELAY_FIRST_PROBE_TIME));
            }
            State::Delay | State::Probe(_) => {}
        }
        Some(mac)
    }

    /// Keeps a packet until `address` has answered, and asks for it if that was not done.
    pub(crate) fn park(
        &mut self,
        now: Instant,
        address: Ipv6Addr,
        packet: Packet,
        counters: &mut Counters,
    ) {
        if !self.entries.contains_key(&address) {
            if !self.make_room_for_incomplete(now) {
                counters.dropped_neighbour_table_full += 1;
                return;
            }
            let source = match packet.header.source {
                std::net::IpAddr::V6(source) => Some(source),
                std::net::IpAddr::V4(_) => None,
            };
            self.insert_incomplete(now, address, source, Some(now));
        }
        self.bytes += cost(&packet);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.parked.push_back(packet);
            if entry.parked.len() > self.parked_max {
                self.drop_oldest(address, counters);
            }
        }
        while self.bytes > self.bytes_max {
            // The newest packet of each stays; so the loser is one that has more, or, if nobody
            // has, the one that came last.
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
    fn drop_oldest(&mut self, address: Ipv6Addr, counters: &mut Counters) -> bool {
        let packet = self.entries.get_mut(&address).and_then(|entry| entry.parked.pop_front());
        let Some(packet) = packet else { return false };
        self.bytes -= cost(&packet);
        counters.dropped_neighbour_parked += 1;
        true
    }

    /// Takes note of the hardware address that `address` says it has, in a message that proves
    /// nothing about the way to it (RFC 4861 §7.2.3, §6.3.4). What is not in the table is only added
    /// if `may_add`, and never at the cost of an entry in use.
    pub(crate) fn learn(
        &mut self,
        now: Instant,
        address: Ipv6Addr,
        mac: MacAddress,
        may_add: bool,
    ) {
        if let Some(entry) = self.entries.get_mut(&address) {
            if matches!(entry.state, State::Incomplete(_)) || entry.mac != mac {
                self.resolve(address, mac, State::Stale);
            }
        } else if may_add && self.make_room_for_stranger(now) {
            self.insert(address, State::Stale, mac, None);
        }
    }

    /// Takes an advertisement (RFC 4861 §7.2.5). True if it is believed where it says that `address`
    /// is no router.
    pub(crate) fn advertise(
        &mut self,
        now: Instant,
        address: Ipv6Addr,
        advertisement: &Advertisement,
    ) -> bool {
        let Advertisement { mac, is_router, is_solicited, overrides } = *advertisement;
        let reachable = self.reachable_from(now);
        let Some(entry) = self.entries.get_mut(&address) else { return false };
        let confirmed = if is_solicited { reachable } else { State::Stale };
        if matches!(entry.state, State::Incomplete(_)) {
            let Some(mac) = mac else { return false };
            self.resolve(address, mac, confirmed);
            return false;
        }
        let is_other = mac.is_some_and(|mac| mac != entry.mac);
        if is_other && !overrides {
            if matches!(entry.state, State::Reachable { .. }) {
                entry.state = State::Stale;
                self.set_deadline(address, None);
            }
            return false;
        }
        let mac = mac.unwrap_or(entry.mac);
        if is_solicited || is_other {
            self.resolve(address, mac, confirmed);
        }
        !is_router
    }

    /// Upper layers know that `address` receives what we send (RFC 4861 §7.3.1).
    pub(crate) fn confirm(&mut self, now: Instant, address: Ipv6Addr) {
        let Some(entry) = self.entries.get(&address) else { return };
        match entry.state {
            State::Incomplete(_) => {}
            // Not for every segment: half of the time is early enough.
            State::Reachable { until } if until.saturating_since(now) > self.reachable_time / 2 => {
            }
            _ => {
                let mac = entry.mac;
                let reachable = self.reachable_from(now);
                self.resolve(address, mac, reachable);
            }
        }
    }

    /// Upper layers have had no answer for longer than they should: asks the neighbour at once.
    pub(crate) fn suspect(&mut self, now: Instant, address: Ipv6Addr) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        if matches!(entry.state, State::Reachable { .. } | State::Stale | State::Delay) {
            entry.state = State::Probe(1);
            let to = Some(entry.mac);
            self.requests.push_back(Request { target: address, to, source: None });
            self.set_deadline(address, Some(now + self.retrans_timer));
        }
    }

    /// REACHABLE from now on, for a time that is another one for each host (RFC 4861 §6.3.2).
    fn reachable_from(&mut self, now: Instant) -> State {
        let half = self.reachable_time / 2;
        let jitter_ms = self.random.below((half.as_millis() as u32).saturating_mul(2));
        State::Reachable { until: now + half + Duration::from_millis(jitter_ms.into()) }
    }

    /// The hardware address is known: sends what waits for it.
    fn resolve(&mut self, address: Ipv6Addr, mac: MacAddress, state: State) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        if matches!(entry.state, State::Incomplete(_)) {
            self.incomplete -= 1;
        }
        (entry.state, entry.mac) = (state, mac);
        let parked = core::mem::take(&mut entry.parked);
        if !parked.is_empty() && state == State::Stale {
            // Sent to a stale entry.
            entry.state = State::Delay;
        }
        let delay_from = entry.used_at.filter(|_| entry.state == State::Delay);
        self.ready.extend(parked.into_iter().map(|packet| (mac, packet)));
        self.set_deadline(address, delay_from.map(|at| at + DELAY_FIRST_PROBE_TIME));
        // What the device has not taken need not be asked any more.
        self.requests.retain(|request| request.target != address);
    }

    fn insert(
        &mut self,
        address: Ipv6Addr,
        state: State,
        mac: MacAddress,
        used_at: Option<Instant>,
    ) {
        let parked = VecDeque::new();
        let entry = Entry { state, mac, deadline: None, used_at, parked };
        self.entries.insert(address, entry);
    }

    /// An entry for who is to be asked for, from `source` if it is given. There is room for it.
    fn insert_incomplete(
        &mut self,
        now: Instant,
        address: Ipv6Addr,
        source: Option<Ipv6Addr>,
        used_at: Option<Instant>,
    ) {
        self.insert(address, State::Incomplete(1), MacAddress([0; 6]), used_at);
        self.incomplete += 1;
        self.set_deadline(address, Some(now + self.retrans_timer));
        self.requests.push_back(Request { target: address, to: None, source });
    }

    /// Makes room for a neighbour that we want to send to.
    fn make_room_for_incomplete(&mut self, now: Instant) -> bool {
        if self.incomplete >= self.incomplete_max {
            // The one that was asked for longest ago, if its second is over: so all together are
            // asked for at most `incomplete_max` times a second.
            let oldest = self
                .entries
                .iter()
                .filter(|(_, entry)| matches!(entry.state, State::Incomplete(_)))
                .filter_map(|(address, entry)| Some((entry.deadline?, *address)))
                .min();
            match oldest {
                Some((deadline, address)) if deadline <= now => self.remove(address),
                _ => return false,
            }
        }
        self.entries.len() < self.entries_max || self.evict(|_| true)
    }

    /// Makes room for a neighbour that nobody asked for.
    fn make_room_for_stranger(&mut self, now: Instant) -> bool {
        self.entries.len() < self.entries_max
            || self.evict(|entry| {
                entry.used_at.is_none_or(|at| now.saturating_since(at) >= IDLE_AFTER)
            })
    }

    /// Removes the resolved entry that was not used for longest, of those that may go. Routers may
    /// not: all depends on them.
    fn evict(&mut self, may_go: impl Fn(&Entry) -> bool) -> bool {
        let idlest = self
            .entries
            .iter()
            .filter(|(_, entry)| !matches!(entry.state, State::Incomplete(_)) && may_go(entry))
            .filter(|(address, _)| !self.routers.contains(address))
            .map(|(address, entry)| (entry.used_at, *address))
            .min();
        match idlest {
            Some((_, address)) => {
                self.remove(address);
                true
            }
            None => false,
        }
    }

    fn remove(&mut self, address: Ipv6Addr) {
        self.set_deadline(address, None);
        if let Some(entry) = self.entries.remove(&address) {
            if matches!(entry.state, State::Incomplete(_)) {
                self.incomplete -= 1;
            }
            self.failed.extend(entry.parked);
        }
        self.requests.retain(|request| request.target != address);
    }

    fn set_deadline(&mut self, address: Ipv6Addr, deadline: Option<Instant>) {
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
            let (asked, to) = match entry.state {
                State::Incomplete(asked) => (asked, None),
                State::Probe(asked) => (asked, Some(entry.mac)),
                State::Delay => (0, Some(entry.mac)),
                State::Reachable { .. } | State::Stale => {
                    self.set_deadline(address, None);
                    continue;
                }
            };
            let most = if to.is_some() { MAX_UNICAST_SOLICIT } else { MAX_MULTICAST_SOLICIT };
            if asked >= most {
                counters.neighbour_failures += 1;
                if self.silent.len() < SILENT_MAX {
                    self.silent.push(address);
                }
                self.remove(address);
                continue;
            }
            entry.state =
                if to.is_some() { State::Probe(asked + 1) } else { State::Incomplete(asked + 1) };
            let source = entry.parked.front().and_then(|packet| match packet.header.source {
                std::net::IpAddr::V6(source) => Some(source),
                std::net::IpAddr::V4(_) => None,
            });
            // A request that the device has not taken yet is not asked twice.
            self.requests.retain(|request| request.target != address);
            self.requests.push_back(Request { target: address, to, source });
            self.set_deadline(address, Some(now + self.retrans_timer));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// Takes the next solicitation to send.
    pub(crate) fn take_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// Takes the next packet whose neighbour has answered.
    pub(crate) fn take_ready(&mut self) -> Option<(MacAddress, Packet)> {
        let (mac, packet) = self.ready.pop_front()?;
        self.bytes -= cost(&packet);
        Some((mac, packet))
    }

    /// Takes the next packet whose neighbour has not answered.
    pub(crate) fn take_failed(&mut self) -> Option<Packet> {
        let packet = self.failed.pop_front()?;
        self.bytes -= cost(&packet);
        Some(packet)
    }

    /// Takes the next neighbour that has stopped to answer.
    pub(crate) fn take_silent(&mut self) -> Option<Ipv6Addr> {
        self.silent.pop()
    }

    /// Drops packets from `address`, which the interface has lost.
    pub(crate) fn forget(&mut self, address: Ipv6Addr) {
        let is_other = |packet: &Packet| packet.header.source != address;
        for entry in self.entries.values_mut() {
            entry.parked.retain(is_other);
        }
        self.ready.retain(|(_, packet)| is_other(packet));
        self.failed.retain(is_other);
        let parked = self.entries.values().flat_map(|entry| &entry.parked);
        let ready = self.ready.iter().map(|(_, packet)| packet);
        self.bytes = parked.chain(ready).chain(&self.failed).map(cost).sum();
    }

    /// Number of neighbours, and bytes of packets that wait.
    pub(crate) fn gauges(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    /// The state of an entry, the end of REACHABLE counted in.
    #[cfg(test)]
    pub(crate) fn state(&self, now: Instant, address: Ipv6Addr) -> Option<(State, MacAddress)> {
        let entry = self.entries.get(&address)?;
        match entry.state {
            State::Reachable { until } if until <= now => Some((State::Stale, entry.mac)),
            state => Some((state, entry.mac)),
        }
    }
}
