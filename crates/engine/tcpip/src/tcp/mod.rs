//! TCP (RFC 9293): all connections of one interface.
//!
//! ```text
//!  handle_segment ─► demux ─┬─► Connection ──┐        the whole state machine
//!                           ├─► HalfOpen     ├─► settle ─► timers · ready list · events
//!                           ├─► TimeWait     │
//!                           └─► Listener / cookie / RST ─► replies
//!  poll_transmit ◄─ replies, then one segment of each ready connection in turn
//! ```
//!
//! The cost of a segment does not depend on the number of connections: one hash table finds its
//! connection, one heap holds the deadlines that are set, one list holds the connections that have
//! something to send. [`Tcp::settle`] alone keeps these in step with a connection after anything
//! has happened to it, and alone ends it; so there is one owner and one exit.
//!
//! An idle connection costs about 660 bytes of heap: its control block of 616, its box in the table,
//! and its places in the demultiplexer and the list of timers. It has no buffers: those grow with
//! what is in them, and go when that has gone.
//!
//! Not here yet, but with a place to go: ECN, pacing and BBR (behind [`congestion::Congestion`]).

mod arrival;
mod calls;
mod congestion;
mod connection;
mod cookie;
mod demux;
mod flight;
mod half_open;
#[cfg(any(test, feature = "fuzzing"))]
mod invariants;
mod isn;
mod listener;
mod memory;
mod ports;
mod rack;
mod ready;
mod receive_buffer;
mod relief;
mod reply;
mod report;
mod rtt;
mod run;
mod send_buffer;
mod seq;
mod slab;
#[cfg(test)]
mod tests;
mod time_wait;
mod timers;

pub(crate) use demux::Tuple;
pub use report::{SocketInfo, SocketOwner, SocketState, Traffic};
pub(crate) use run::Run;
pub(crate) use seq::Seq;

use crate::config::{CongestionControl, Limits};
use crate::counters::Counters;
use crate::error::TcpError;
use crate::event::{Event, Events};
use crate::icmp::IcmpError;
use crate::path_mtu::PathMtus;
use crate::secret::{Keys, Purpose, Random};
use crate::socket::TcpId;
use crate::time::Instant;
use crate::wire::tcp::Quote;
use connection::{Connection, Owner, Recoveries, State, Written};
use core::net::IpAddr;
use core::num::NonZeroU16;
use core::time::Duration;
use demux::{Demux, Target};
use half_open::HalfOpens;
use listener::Listeners;
use memory::Memory;
use ready::Ready;
use reply::Replies;
use slab::Slab;
use std::collections::VecDeque;
use time_wait::TimeWaits;
use timers::Timers;

/// Peers that are named silent at once. Each is named again at its next timeout.
const SILENT_MAX: usize = 64;

/// What every connection goes by.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    mtu: usize,
    /// What routers made of it for IPv6.
    mtu_ipv6: usize,
    /// Bytes of TCP header and payload that fit into a frame that the device cuts, over IPv4; 0 if
    /// it cuts none.
    large_segment_bytes: usize,
    /// The same over IPv6.
    large_segment_bytes_ipv6: usize,
    receive_bytes: usize,
    send_bytes: usize,
    /// What a connection begins with of these.
    receive_bytes_initial: usize,
    send_bytes_initial: usize,
    /// The shift of our window field: the least with which `receive_bytes` fits into it.
    window_shift: u8,
    out_of_order_ranges: usize,
    congestion: CongestionControl,
    connect_timeout: Duration,
    user_timeout: Duration,
    fin_wait_2: Duration,
}

impl Settings {
    fn new(limits: &Limits, mtu: usize, large_segment_bytes: usize) -> Self {
        let receive_bytes = limits.tcp_receive_bytes;
        Settings {
            mtu,
            mtu_ipv6: mtu,
            large_segment_bytes,
            large_segment_bytes_ipv6: 0,
            receive_bytes,
            send_bytes: limits.tcp_send_bytes,
            receive_bytes_initial: limits.tcp_receive_bytes_initial.min(receive_bytes),
            send_bytes_initial: limits.tcp_send_bytes_initial.min(limits.tcp_send_bytes),
            window_shift: (0..14).find(|shift| receive_bytes >> shift <= 65_535).unwrap_or(14),
            out_of_order_ranges: limits.tcp_out_of_order_ranges,
            congestion: limits.tcp_congestion,
            connect_timeout: limits.tcp_connect_timeout,
            user_timeout: limits.tcp_user_timeout,
            fin_wait_2: limits.tcp_fin_wait_2_timeout,
        }
    }

    /// Bytes of TCP header and payload that fit into a frame that the device cuts for a connection;
    /// 0 if it cuts none.
    fn large_segment_bytes(&self, tuple: &Tuple) -> usize {
        if tuple.remote.is_ipv4() {
            self.large_segment_bytes
        } else {
            self.large_segment_bytes_ipv6
        }
    }

    /// The largest segment that the link takes (RFC 9293 §3.7.1): MTU without fixed headers.
    fn mss(&self, tuple: &Tuple) -> u16 {
        let (mtu, headers) = self.mtu_and_headers(tuple);
        mtu.saturating_sub(headers).clamp(1, 65_495) as u16
    }

    /// The link's MTU for the tuple's family, and the length of both fixed headers.
    fn mtu_and_headers(&self, tuple: &Tuple) -> (usize, usize) {
        if tuple.remote.is_ipv4() { (self.mtu, 40) } else { (self.mtu_ipv6, 60) }
    }

    /// The window of a segment with SYN, in bytes: it cannot be scaled.
    fn syn_window(&self) -> u32 {
        self.receive_bytes_initial.min(65_535) as u32
    }
}

/// What connections share.
pub(crate) struct Shared {
    settings: Settings,
    memory: Memory,
    counters: Counters,
    replies: Replies,
    recoveries: Recoveries,
    path_mtus: PathMtus,
}

impl Shared {
    /// The largest segment that the path to the peer takes, as far as is known.
    fn path_mss(&self, now: Instant, tuple: &Tuple) -> u16 {
        let (link_mtu, headers) = self.settings.mtu_and_headers(tuple);
        let mtu = self.path_mtus.get(now, tuple.remote, link_mtu);
        mtu.saturating_sub(headers).clamp(1, 65_495) as u16
    }
}

/// See the module.
pub(crate) struct Tcp {
    shared: Shared,
    events: Events,
    demux: Demux,
    listeners: Listeners,
    half_opens: HalfOpens,
    /// Boxed, so that the table grows without moving them.
    connections: Slab<Box<Connection>>,
    time_waits: TimeWaits,
    /// Deadlines of connections.
    timers: Timers,
    /// Connections with something to send.
    ready: Ready,
    /// The connection whose next segment may be one that it [expects](Self::expects): it has just
    /// received data, and nothing else.
    pub(crate) receiver: Option<TcpId>,
    /// How often something happened to a connection.
    settled: u64,
    /// Peers that have not answered in time, until the engine asks.
    silent: Vec<IpAddr>,
    /// The next turn is a reply's, not a connection's.
    is_reply_turn: bool,
    /// Connections whose writers wait for memory, each once.
    starved: VecDeque<TcpId>,
    origins: isn::Origins,
    cookies: cookie::Cookies,
    ports: ports::Ports,
    random: Random,
    /// When memory was last short and a stalled connection was looked for.
    relieved_at: Option<Instant>,
    /// The same for ranges of out-of-order data.
    ranges_relieved_at: Option<Instant>,
    limits: TableLimits,
}

/// The limits on tables.
struct TableLimits {
    connections: usize,
    half_open: usize,
    time_wait: usize,
    time_wait_duration: Duration,
    listeners: usize,
    accept_backlog: usize,
}

/// A segment that [`Tcp::poll_transmit_behind`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentOut {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Length in bytes, TCP header included.
    pub(crate) len: usize,
    /// Payload of each segment that the device must cut it into, if it must.
    pub(crate) mss: Option<NonZeroU16>,
    /// What may follow it, with the same header but for the number.
    pub(crate) run: Option<Run>,
}

impl Tcp {
    /// TCP on a link whose IP packets have at most `mtu` bytes, and whose device cuts segments of up
    /// to `large_segment_bytes` (0: none), header included.
    pub(crate) fn new(limits: &Limits, keys: Keys, mtu: usize, large_segment_bytes: usize) -> Tcp {
        Tcp {
            shared: Shared {
                settings: Settings::new(limits, mtu, large_segment_bytes),
                memory: Memory::new(limits.tcp_total_bytes),
                counters: Counters::default(),
                replies: Replies::new(limits.tcp_resets_per_second),
                recoveries: Recoveries::default(),
                path_mtus: PathMtus::new(limits.path_mtus, keys.key(Purpose::PathMtuTable)),
            },
            events: Events::default(),
            demux: Demux::new(keys.key(Purpose::TcpTable)),
            listeners: Listeners::default(),
            half_opens: HalfOpens::default(),
            connections: Slab::new(),
            time_waits: TimeWaits::new(),
            timers: Timers::default(),
            ready: Ready::default(),
            receiver: None,
            settled: 0,
            silent: Vec::new(),
            is_reply_turn: true,
            starved: VecDeque::new(),
            origins: isn::Origins::new(&keys),
            cookies: cookie::Cookies::new(&keys),
            ports: ports::Ports::new(&keys),
            random: keys.random(Purpose::TcpPort),
            relieved_at: None,
            ranges_relieved_at: None,
            limits: TableLimits {
                connections: limits.tcp_connections,
                half_open: limits.tcp_half_open,
                time_wait: limits.tcp_time_wait,
                time_wait_duration: limits.tcp_time_wait_duration,
                listeners: limits.tcp_listeners,
                accept_backlog: limits.tcp_accept_backlog,
            },
        }
    }

    /// What was learned of paths.
    pub(crate) const fn path_mtus(&self) -> &PathMtus {
        &self.shared.path_mtus
    }

    /// What was learned of paths, to learn more.
    pub(crate) const fn path_mtus_mut(&mut self) -> &mut PathMtus {
        &mut self.shared.path_mtus
    }

    /// IPv6 packets have at most `mtu` bytes from now on, and frames that the device cuts as many
    /// as these of TCP header and payload (0: it cuts none).
    pub(crate) const fn set_ipv6(&mut self, mtu: usize, large_segment_bytes: usize) {
        self.shared.settings.mtu_ipv6 = mtu;
        self.shared.settings.large_segment_bytes_ipv6 = large_segment_bytes;
    }

    /// Takes a peer that has not answered in time (the retransmission timer expired).
    pub(crate) fn take_silent(&mut self) -> Option<IpAddr> {
        self.silent.pop()
    }

    /// The next event.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// What was counted, and the gauges of now.
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            tcp_connections: self.connections.len() as u64,
            tcp_half_open: self.half_opens.len() as u64,
            tcp_time_wait: self.time_waits.len() as u64,
            tcp_listeners: self.listeners.len() as u64,
            tcp_buffered_bytes: self.shared.memory.bytes() as u64,
            tcp_out_of_order_ranges: self.shared.memory.ranges() as u64,
            ..self.shared.counters
        }
    }

    /// An ICMP error quotes a segment from `source`, ours, to `destination`. `quoted` begins with
    /// the segment's first bytes.
    pub(crate) fn handle_icmp_error(
        &mut self,
        now: Instant,
        error: IcmpError,
        source: IpAddr,
        destination: IpAddr,
        quoted: &[u8],
    ) {
        let connection = Quote::parse(quoted).and_then(|quote| {
            let tuple = Tuple {
                local: source,
                remote: destination,
                local_port: quote.source_port,
                remote_port: quote.destination_port,
            };
            // Handshakes of clients and TIME-WAIT have nothing that an error could change.
            let Some(Target::Connection(index)) = self.find(&tuple).1 else { return None };
            Some((index, quote.sequence))
        });
        let Some((index, sequence)) = connection else {
            self.shared.counters.dropped_icmp_unmatched += 1;
            return;
        };
        if let Some(connection) = self.connections.get_mut(index) {
            connection.on_icmp_error(now, error, sequence, &mut self.shared);
        }
        self.settle(now, index);
    }

    /// The interface has lost `address`: whatever is bound to it is gone.
    pub(crate) fn handle_address_lost(&mut self, now: Instant, address: IpAddr) {
        let of_address = |tuple: &Tuple| tuple.local == address;
        let half_opens: Vec<u32> = self
            .half_opens
            .iter()
            .filter(|(_, entry)| of_address(&entry.tuple))
            .map(|(index, _)| index)
            .collect();
        for index in half_opens {
            self.remove_half_open(index);
        }
        let time_waits: Vec<u32> = self
            .time_waits
            .iter()
            .filter(|(_, entry)| of_address(&entry.tuple))
            .map(|(index, _)| index)
            .collect();
        time_waits.into_iter().for_each(|index| self.remove_time_wait(index));
        let connections: Vec<u32> = self
            .connections
            .iter()
            .filter(|(_, connection)| of_address(&connection.tuple))
            .map(|(index, _)| index)
            .collect();
        for index in connections {
            if let Some(connection) = self.connections.get_mut(index) {
                connection.end(Some(TcpError::AddressLost), &mut self.shared);
            }
            self.settle(now, index);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let deadlines =
            [self.timers.next(), self.half_opens.timers.next(), self.time_waits.next_expiry()];
        deadlines.into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        // Each of these either removes the deadline or moves it past `now`.
        while let Some(index) = self.timers.due(now) {
            if let Some(connection) = self.connections.get_mut(index) {
                let before = connection.unanswered();
                connection.on_timeout(now, &mut self.shared);
                if connection.unanswered() > before && self.silent.len() < SILENT_MAX {
                    self.silent.push(connection.tuple.remote);
                }
                self.settle(now, index);
            } else {
                self.timers.set(index, timers::NEVER);
            }
        }
        while let Some(index) = self.half_opens.timers.due(now) {
            self.on_half_open_timeout(now, index);
        }
        while let Some(index) = self.time_waits.due(now) {
            self.remove_time_wait(index);
        }
    }

    /// [`poll_transmit_behind`](Self::poll_transmit_behind) nothing.
    #[cfg(test)]
    pub(crate) fn poll_transmit(&mut self, now: Instant, segment: &mut [u8]) -> Option<SegmentOut> {
        self.poll_transmit_behind(now, segment, |_| 0)
    }

    /// Writes the next segment, with a zero checksum, into `frame`, as many bytes from its start as
    /// `start` says of its destination's family. Behind these there is room for the largest IP
    /// packet of the link without its header, and for the largest segment that the device cuts.
    pub(crate) fn poll_transmit_behind(
        &mut self,
        now: Instant,
        frame: &mut [u8],
        start: impl Fn(IpAddr) -> usize,
    ) -> Option<SegmentOut> {
        loop {
            // Replies and connections take turns, so that neither starves the other.
            self.is_reply_turn = !self.is_reply_turn;
            if (self.is_reply_turn || self.ready.is_empty())
                && let Some(reply) = self.shared.replies.pop()
            {
                self.shared.counters.tcp_segments_sent += 1;
                let (source, destination) = (reply.tuple.local, reply.tuple.remote);
                let segment = &mut frame[start(destination)..];
                let len = reply.header.emit(segment);
                return Some(SegmentOut { source, destination, len, mss: None, run: None });
            }
            let Some(index) = self.ready.pop() else {
                if self.shared.replies.is_empty() {
                    return None;
                }
                continue;
            };
            // A connection that ended meanwhile is still in the list, or another is in its slot.
            let Some(connection) = self.connections.get_mut(index) else { continue };
            let (source, destination) = (connection.tuple.local, connection.tuple.remote);
            let segment = &mut frame[start(destination)..];
            let written = connection.transmit(now, segment, &mut self.shared);
            self.settle(now, index);
            if let Some(Written { len, payload_len, mss, segments }) = written {
                self.shared.counters.tcp_segments_sent += u64::from(segments);
                let run = self.run(now, index, payload_len);
                return Some(SegmentOut { source, destination, len, mss, run });
            }
        }
    }

    /// The hash of a tuple and what it belongs to.
    fn find(&self, tuple: &Tuple) -> (u32, Option<Target>) {
        let hash = self.demux.hash(tuple);
        let target = self.demux.find(hash, |target| {
            let found = match target {
                Target::Connection(index) => self.connections.get(index).map(|c| &c.tuple),
                Target::HalfOpen(index) => self.half_opens.get(index).map(|entry| &entry.tuple),
                Target::TimeWait(index) => self.time_waits.get(index).map(|entry| &entry.tuple),
            };
            found == Some(tuple)
        });
        (hash, target)
    }

    fn enqueue_if_ready(&mut self, index: u32) {
        let settings = &self.shared.settings;
        if self.connections.get(index).is_some_and(|connection| connection.plan(settings).is_some())
        {
            self.ready.push(index);
        }
    }

    /// Brings timers, ready list, demultiplexer and events in step with a connection to which
    /// something has happened; frees it when it is over and nobody holds it.
    fn settle(&mut self, now: Instant, index: u32) {
        self.settled += 1;
        let Some(connection) = self.connections.get_mut(index) else { return };
        connection.arm_persist(now, &self.shared);
        self.timers.set(index, connection.deadline());
        let changes = core::mem::take(&mut connection.changes);
        let generation = self.connections.generation(index).unwrap_or_default();
        let id = TcpId::new(index, generation);
        let Some(connection) = self.connections.get_mut(index) else { return };
        if connection.owner == Owner::Program {
            if changes.connected {
                self.events.push(Event::TcpConnected(id));
            }
            if changes.readable {
                self.events.push(Event::TcpReadable(id));
            }
            if changes.writable {
                self.events.push(Event::TcpWritable(id));
            }
        }
        if connection.is_over() {
            self.settle_end(now, index, id);
        } else {
            self.enqueue_if_ready(index);
        }
        if self.shared.memory.take_released() {
            while let Some(id) = self.starved.pop_front() {
                if let Some(index) = self.held(id)
                    && let Some(connection) = self.connections.get_mut(index)
                {
                    connection.is_starved = false;
                    self.events.push(Event::TcpWritable(id));
                }
            }
        }
        // Who waits for memory asks for it once; those who hold it may come to be stalled later.
        if self.shared.memory.take_refused() || !self.starved.is_empty() {
            self.relieve(now);
        }
        if self.shared.memory.take_range_refused() {
            self.relieve_ranges(now);
        }
    }

    /// The part of [`settle`](Self::settle) for a connection that is over.
    fn settle_end(&mut self, now: Instant, index: u32, id: TcpId) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        if connection.is_attached {
            connection.is_attached = false;
            let (hash, owner) = (connection.hash, connection.owner);
            if connection.state == State::TimeWait {
                let ack = connection.owes_ack().then(|| connection.last_ack(now, &self.shared));
                let (tuple, entry) = (connection.tuple, connection.time_wait());
                self.enter_time_wait(now, index, entry);
                if let Some(ack) = ack {
                    self.shared.replies.push(tuple, ack, &mut self.shared.counters);
                }
            } else {
                self.demux.remove(hash, Target::Connection(index));
            }
            match owner {
                Owner::Program => self.events.push(Event::TcpClosed(id)),
                Owner::Queue(listener) => {
                    if let Some(listener) = self.listeners.get_mut(listener) {
                        listener.queue.retain(|&queued| queued != id);
                    }
                }
                Owner::Nobody => {}
            }
        }
        let is_held = self
            .connections
            .get(index)
            .is_some_and(|connection| connection.owner == Owner::Program);
        if !is_held && let Some(mut connection) = self.connections.remove(index) {
            connection.clear(&mut self.shared);
            self.timers.set(index, timers::NEVER);
            self.events.forget_tcp(id);
        }
    }

    fn enter_time_wait(&mut self, now: Instant, index: u32, entry: time_wait::TimeWait) {
        let hash = entry.hash;
        let room_for_none = self.limits.time_wait == 0;
        if self.time_waits.len() >= self.limits.time_wait
            && let Some(oldest) = self.time_waits.oldest()
        {
            self.shared.counters.tcp_time_wait_evicted += 1;
            self.remove_time_wait(oldest);
        }
        if room_for_none {
            self.shared.counters.tcp_time_wait_evicted += 1;
            return self.demux.remove(hash, Target::Connection(index));
        }
        let entry = self.time_waits.insert(entry, now + self.limits.time_wait_duration);
        self.demux.replace(hash, Target::Connection(index), Target::TimeWait(entry));
    }

    fn remove_time_wait(&mut self, index: u32) {
        if let Some(entry) = self.time_waits.remove(index) {
            self.demux.remove(entry.hash, Target::TimeWait(index));
        }
    }

    fn remove_half_open(&mut self, index: u32) -> Option<half_open::HalfOpen> {
        let entry = self.half_opens.remove(index)?;
        self.demux.remove(entry.hash, Target::HalfOpen(index));
        if let Some(listener) = self.listeners.get_mut(entry.listener) {
            listener.half_open -= 1;
        }
        Some(entry)
    }
}
