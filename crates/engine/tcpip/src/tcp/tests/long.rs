//! What shows only after more bytes than sequence numbers, or with several flows at once; in virtual
//! time.

use super::model::ADDRESSES;
use crate::config::Limits;
use crate::secret::Keys;
use crate::simulation::{Dice, End, Faults, Pair};
use crate::socket::{ListenerId, TcpId};
use crate::tcp::Tcp;
use crate::time::Instant;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// Stream positions that are so far apart have the same byte, and no power of two does.
const PERIOD: usize = 65_521;

/// A host that sends as many bytes as it receives on one connection, and looks at each.
struct Torrent {
    tcp: Tcp,
    which: usize,
    listener: Option<ListenerId>,
    connection: Option<TcpId>,
    total: u64,
    sent: u64,
    received: u64,
    saw_end: bool,
    /// Twice the period, so that a piece of it starts anywhere.
    pattern: Vec<u8>,
    scratch: Vec<u8>,
}

impl Torrent {
    fn new(which: usize, limits: &Limits, total: u64) -> Torrent {
        Torrent {
            tcp: Tcp::new(limits, Keys::new([which as u8; 32]), 65_535, 0),
            which,
            listener: None,
            connection: None,
            total,
            sent: 0,
            received: 0,
            saw_end: false,
            pattern: (0..2 * PERIOD).map(|at| ((at % PERIOD * 31) >> 3) as u8).collect(),
            scratch: vec![0; 65_535],
        }
    }

    fn run(&mut self, now: Instant) {
        while self.tcp.poll_event().is_some() {}
        if let Some(listener) = self.listener
            && let Some(accepted) = self.tcp.accept(now, listener)
        {
            self.connection = Some(accepted.connection);
        }
        let Some(id) = self.connection else { return };
        let (received, pattern) = (&mut self.received, &self.pattern);
        let mut sink = |mut slice: &[u8]| {
            while !slice.is_empty() {
                let at = (*received % PERIOD as u64) as usize;
                let (piece, rest) = slice.split_at(slice.len().min(PERIOD));
                assert!(piece == &pattern[at..at + piece.len()], "wrong near byte {received}");
                *received += piece.len() as u64;
                slice = rest;
            }
        };
        while let Ok(Some(count)) = self.tcp.read_with(now, id, 1 << 20, &mut sink) {
            self.saw_end |= count == 0;
            if count == 0 {
                break;
            }
        }
        while self.sent < self.total {
            let at = (self.sent % PERIOD as u64) as usize;
            let len = (self.total - self.sent).min(PERIOD as u64) as usize;
            let Ok(Some(count)) = self.tcp.write(now, id, &self.pattern[at..at + len]) else {
                return;
            };
            self.sent += count as u64;
            if self.sent == self.total {
                let _ = self.tcp.shutdown(now, id);
            }
        }
    }
}

impl End for Torrent {
    type Packet = Vec<u8>;

    fn receive(&mut self, now: Instant, bytes: Vec<u8>) {
        let (source, destination) = (ADDRESSES[1 - self.which], ADDRESSES[self.which]);
        self.tcp.handle_segment(now, source, destination, &bytes, None);
        self.run(now);
    }

    fn transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        let out = self.tcp.poll_transmit(now, &mut self.scratch)?;
        Some(self.scratch[..out.len].to_vec())
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.tcp.handle_timeout(now);
        self.run(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.tcp.poll_timeout()
    }
}

/// T08: more than four gigabytes each way, at once, on one connection, with loss. Every byte is
/// looked at.
#[test]
fn five_gigabytes_each_way_arrive_whole() {
    const TOTAL: u64 = 5_000_000_000;
    let limits = Limits::default();
    let ends = [0, 1].map(|which| Torrent::new(which, &limits, TOTAL));
    let mut pair = Pair::new(ends, Faults::none(Duration::from_micros(500)), 8);
    pair.loses = Some(Box::new(|number| number % 2999 == 2998));
    let address = SocketAddr::new(ADDRESSES[1], 80);
    pair.ends[1].listener = pair.ends[1].tcp.listen(address, 8).ok();
    pair.ends[0].connection = pair.ends[0].tcp.connect(pair.now, ADDRESSES[0], address).ok();
    let until = pair.now + Duration::from_secs(3600);
    while !pair.ends.iter().all(|end| end.saw_end) && pair.step(until) {}
    for end in &pair.ends {
        assert_eq!((end.received, end.saw_end), (TOTAL, true));
        assert!(end.tcp.counters().tcp_retransmits > 5, "something was lost");
        let timeouts = end.tcp.counters().tcp_retransmit_timeouts;
        assert!(timeouts < 5, "losses are found as well after four gigabytes: {timeouts}");
    }
}

const RATE_BITS: u64 = 100_000_000;
const HEADERS: u64 = 20;

/// One end of a shared bottleneck: what it sends waits in a queue for the link.
struct Crowd {
    tcp: Tcp,
    which: usize,
    listener: Option<ListenerId>,
    senders: Vec<TcpId>,
    /// Bytes received, by connection.
    received: BTreeMap<TcpId, u64>,
    queue: VecDeque<Vec<u8>>,
    queued_bytes: u64,
    queue_max: u64,
    free_at: Instant,
    is_link_due: bool,
    scratch: Vec<u8>,
}

impl Crowd {
    fn new(which: usize, limits: &Limits, queue_max: u64) -> Crowd {
        Crowd {
            tcp: Tcp::new(limits, Keys::new([which as u8; 32]), 1500, 0),
            which,
            listener: None,
            senders: Vec::new(),
            received: BTreeMap::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            queue_max,
            free_at: Instant::ZERO,
            is_link_due: false,
            scratch: vec![0x5a; 65_535],
        }
    }

    fn run(&mut self, now: Instant) {
        while self.tcp.poll_event().is_some() {}
        if let Some(listener) = self.listener {
            while let Some(accepted) = self.tcp.accept(now, listener) {
                self.received.insert(accepted.connection, 0);
            }
        }
        for (&id, received) in &mut self.received {
            let mut sink = |slice: &[u8]| *received += slice.len() as u64;
            while let Ok(Some(1..)) = self.tcp.read_with(now, id, 1 << 20, &mut sink) {}
        }
        for &id in &self.senders {
            while let Ok(Some(_)) = self.tcp.write(now, id, &self.scratch) {}
        }
    }
}

impl End for Crowd {
    type Packet = Vec<u8>;

    fn receive(&mut self, now: Instant, bytes: Vec<u8>) {
        let (source, destination) = (ADDRESSES[1 - self.which], ADDRESSES[self.which]);
        self.tcp.handle_segment(now, source, destination, &bytes, None);
        self.run(now);
    }

    fn transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        while let Some(out) = self.tcp.poll_transmit(now, &mut self.scratch) {
            let len = out.len as u64 + HEADERS;
            if self.queued_bytes + len <= self.queue_max {
                self.queued_bytes += len;
                self.queue.push_back(self.scratch[..out.len].to_vec());
            }
        }
        if self.free_at > now {
            return None;
        }
        self.is_link_due = false;
        let packet = self.queue.pop_front()?;
        let len = packet.len() as u64 + HEADERS;
        self.queued_bytes -= len;
        self.free_at = now + Duration::from_nanos(len * 8 * 1_000_000_000 / RATE_BITS);
        Some(packet)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.is_link_due = self.free_at <= now;
        if self.tcp.poll_timeout().is_some_and(|at| at <= now) {
            self.tcp.handle_timeout(now);
        }
        self.run(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let is_waiting = !self.queue.is_empty() && !self.is_link_due;
        let link = is_waiting.then_some(self.free_at);
        [self.tcp.poll_timeout(), link].into_iter().flatten().min()
    }
}

/// Jain's index: 1 if all have the same, 1/n if one has all.
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(a, b), x| (a + x, b + x * x));
    sum * sum / (shares.len() as f64 * squares)
}

/// Flows that begin one after the other, the first when it has the link to itself, share it: Jain's
/// index over the last two thirds of the time is at least 0.9, and the link is full.
#[test]
fn flows_on_one_link_share_it() {
    for flows in [2, 4, 16] {
        let round_trip = Duration::from_millis(20);
        let product = RATE_BITS / 8 * 20 / 1000;
        let limits = Limits { tcp_total_bytes: 64 << 20, ..Limits::default() };
        let ends = [0, 1].map(|which| Crowd::new(which, &limits, product));
        let mut pair = Pair::new(ends, Faults::none(round_trip / 2), 4);
        let address = SocketAddr::new(ADDRESSES[1], 80);
        pair.ends[1].listener = pair.ends[1].tcp.listen(address, 64).ok();
        let mut dice = Dice(flows);
        for _ in 0..flows {
            let now = pair.now;
            let id = pair.ends[0].tcp.connect(now, ADDRESSES[0], address).expect("a port is free");
            pair.ends[0].senders.push(id);
            pair.run(Duration::from_millis(300 + dice.below(400)));
        }
        pair.run(Duration::from_secs(10));
        let before = pair.ends[1].received.clone();
        let seconds = 20;
        pair.run(Duration::from_secs(seconds));
        let share = |(id, bytes): (&TcpId, &u64)| (bytes - before[id]) as f64;
        let shares: Vec<f64> = pair.ends[1].received.iter().map(share).collect();
        let mbit_s = shares.iter().sum::<f64>() * 8.0 / seconds as f64 / 1e6;
        let index = jain(&shares);
        eprintln!("{flows} flows: {mbit_s:.1} Mbit/s, Jain's index {index:.3}");
        assert!(index >= 0.9, "{flows} flows: {index} of {shares:?}");
        assert!(mbit_s >= 90.0, "{flows} flows: {mbit_s}");
    }
}
