//! What a bulk transfer reaches over a bad link, in virtual time: 100 Mbit/s, MTU 1500, a queue of
//! 150 kB or one bandwidth-delay product, random loss of data.
//!
//! What is sent again includes what the queue has no room for, each time that the window outgrows it.
//!
//! The bounds are the ones that a Linux sender was measured to keep on such links, with a margin;
//! below them timers, SACK or RACK do not do their work. `cargo test throughput -- --nocapture`
//! prints the table.

use crate::config::{CongestionControl, Limits};
use crate::secret::Keys;
use crate::simulation::{Dice, End, Faults, Pair};
use crate::socket::{ListenerId, TcpId};
use crate::tcp::Tcp;
use crate::tcp::tests::model::ADDRESSES;
use crate::time::Instant;
use core::net::SocketAddr;
use core::num::NonZeroU16;
use core::time::Duration;
use std::collections::VecDeque;

const RATE_BITS: u64 = 100_000_000;

/// Bytes of Ethernet and IP headers around a segment; preamble and gap do not count.
const HEADERS: u64 = 20;

type Wire = (usize, Vec<u8>);

/// A host with its end of the link: what it sends waits in a queue for the link.
struct Station {
    tcp: Tcp,
    which: usize,
    listener: Option<ListenerId>,
    connection: Option<TcpId>,
    sends: bool,
    received: u64,
    queue: VecDeque<Wire>,
    queued_bytes: u64,
    queue_max: u64,
    free_at: Instant,
    /// The link is free, and the next packet is about to be taken.
    is_link_due: bool,
    dice: Dice,
    /// Of what arrives with data, in millionths: lost, sent twice.
    loss_ppm: u64,
    /// Larger packets do not arrive, and nobody says so.
    packet_max: usize,
    scratch: Vec<u8>,
}

impl Station {
    fn new(which: usize, limits: &Limits, queue_max: u64, seed: u64) -> Station {
        Station {
            tcp: Tcp::new(limits, Keys::new([which as u8; 32]), 1500, 0),
            which,
            listener: None,
            connection: None,
            sends: false,
            received: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            queue_max,
            free_at: Instant::ZERO,
            is_link_due: false,
            dice: Dice(seed ^ ((which as u64) << 40)),
            loss_ppm: 0,
            packet_max: usize::MAX,
            scratch: vec![0x5a; 65_535],
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
        let received = &mut self.received;
        let mut sink = |slice: &[u8]| *received += slice.len() as u64;
        while let Ok(Some(1..)) = self.tcp.read_with(now, id, 1 << 20, &mut sink) {}
        while self.sends && matches!(self.tcp.write(now, id, &self.scratch), Ok(Some(_))) {}
    }
}

impl End for Station {
    type Packet = Wire;

    fn receive(&mut self, now: Instant, (from, bytes): Wire) {
        let header_len = usize::from(bytes[12] >> 4) * 4;
        if bytes.len() + HEADERS as usize > self.packet_max {
            return;
        }
        if bytes.len() > header_len && self.dice.below(1_000_000) < self.loss_ppm {
            return;
        }
        let (source, destination) = (ADDRESSES[from], ADDRESSES[self.which]);
        self.tcp.handle_segment(now, source, destination, &bytes, None::<NonZeroU16>);
        self.run(now);
    }

    fn transmit(&mut self, now: Instant) -> Option<Wire> {
        while let Some(out) = self.tcp.poll_transmit(now, &mut self.scratch) {
            let len = out.len as u64 + HEADERS;
            if self.queued_bytes + len <= self.queue_max {
                self.queued_bytes += len;
                self.queue.push_back((self.which, self.scratch[..out.len].to_vec()));
            }
        }
        if self.free_at > now {
            return None;
        }
        self.is_link_due = false;
        let packet = self.queue.pop_front()?;
        let len = packet.1.len() as u64 + HEADERS;
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

/// One transfer.
#[derive(Clone, Copy, Debug)]
struct Path {
    rtt: Duration,
    loss_ppm: u64,
    /// This many of a hundred are late by up to `jitter`.
    reordering: u64,
    jitter: Duration,
    duplication: u64,
    control: CongestionControl,
    length: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    mbit_s: f64,
    /// Segments sent again, of all segments sent, in per cent.
    resent: f64,
    timeouts: u64,
    recoveries: u64,
    undone: u64,
}

impl Path {
    fn new(rtt_us: u64, loss_ppm: u64) -> Path {
        Path {
            rtt: Duration::from_micros(rtt_us),
            loss_ppm,
            reordering: 0,
            jitter: Duration::ZERO,
            duplication: 0,
            control: CongestionControl::Cubic,
            // Long enough for the steady state to outweigh the first slow start; where nothing is
            // lost there are most packets.
            length: Duration::from_millis(match (rtt_us, loss_ppm) {
                (..1_000, _) => 1_500,
                (..100_000, 0) => 3_000,
                (..100_000, _) => 8_000,
                (_, 0) => 20_000,
                _ => 40_000,
            }),
        }
    }

    fn pair(self, seed: u64) -> Pair<Station> {
        let product = RATE_BITS / 8 * self.rtt.as_micros() as u64 / 1_000_000;
        let limits = Limits { tcp_congestion: self.control, ..Limits::default() };
        let ends = [0, 1].map(|which| Station::new(which, &limits, product.max(150_000), seed));
        let faults = Faults {
            duplication: self.duplication,
            reordering: self.reordering,
            jitter: self.jitter,
            ..Faults::none(self.rtt / 2)
        };
        let mut pair = Pair::new(ends, faults, seed);
        let address = SocketAddr::new(ADDRESSES[1], 80);
        pair.ends[1].listener = pair.ends[1].tcp.listen(address, 8).ok();
        pair.ends[0].connection = pair.ends[0].tcp.connect(pair.now, ADDRESSES[0], address).ok();
        pair.ends[0].sends = true;
        pair.ends[1].loss_ppm = self.loss_ppm;
        pair
    }

    fn run(self, seed: u64) -> Outcome {
        let mut pair = self.pair(seed);
        pair.run(self.length);
        let counters = pair.ends[0].tcp.counters();
        Outcome {
            mbit_s: pair.ends[1].received as f64 * 8.0 / self.length.as_secs_f64() / 1e6,
            resent: counters.tcp_retransmits as f64 * 100.0 / counters.tcp_segments_sent as f64,
            timeouts: counters.tcp_retransmit_timeouts,
            recoveries: counters.tcp_fast_retransmits,
            undone: counters.tcp_recoveries_undone,
        }
    }

    /// The mean of three seeds; of one where there is no chance in it.
    fn mean(self) -> Outcome {
        let is_certain = self.loss_ppm + self.reordering + self.duplication == 0;
        let seeds = if is_certain { 1..=1 } else { 1..=3 };
        let runs: Vec<Outcome> = seeds.map(|seed| self.run(seed)).collect();
        let count = runs.len() as f64;
        Outcome {
            mbit_s: runs.iter().map(|run| run.mbit_s).sum::<f64>() / count,
            resent: runs.iter().map(|run| run.resent).sum::<f64>() / count,
            timeouts: runs.iter().map(|run| run.timeouts).sum(),
            recoveries: runs.iter().map(|run| run.recoveries).sum(),
            undone: runs.iter().map(|run| run.undone).sum(),
        }
    }
}

/// Checks rows of a path, the least Mbit/s and the most that may be sent again in per cent; and
/// prints the table.
fn check(rows: &[(Path, f64, f64)]) {
    let mut failures = Vec::new();
    for &(path, least, resent_most) in rows {
        let outcome = path.mean();
        let Outcome { mbit_s, resent, timeouts, recoveries, undone } = outcome;
        eprintln!(
            "| {:?} | {:.1} % loss, {} % late by {:?}, {} % twice | {:?} | {mbit_s:.2} | ≥ {least} \
             | {resent:.2} % | {timeouts} | {recoveries} | {undone} |",
            path.rtt,
            path.loss_ppm as f64 / 10_000.0,
            path.reordering,
            path.jitter,
            path.duplication,
            path.control,
        );
        if mbit_s < least || resent > resent_most {
            failures.push(format!("{path:?}: {outcome:?}, expected {least}, {resent_most} %"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Pitfalls Q03, Q07, Q10.
#[test]
fn throughput_on_a_short_path() {
    check(&[
        (Path::new(100, 0), 95.0, 1.5),
        (Path::new(100, 1_000), 94.0, 1.2),
        (Path::new(100, 10_000), 90.0, 1.6),
        (Path::new(100, 30_000), 75.0, 3.6),
        (Path::new(100, 50_000), 40.0, 6.0),
    ]);
}

#[test]
fn throughput_at_ten_milliseconds() {
    check(&[
        (Path::new(10_000, 0), 93.0, 0.8),
        (Path::new(10_000, 1_000), 40.0, 0.6),
        (Path::new(10_000, 10_000), 11.0, 1.6),
        (Path::new(10_000, 30_000), 5.0, 3.6),
        (Path::new(10_000, 50_000), 3.5, 6.0),
    ]);
}

#[test]
fn throughput_at_a_hundred_milliseconds() {
    check(&[
        (Path::new(100_000, 0), 85.0, 0.5),
        (Path::new(100_000, 1_000), 4.5, 0.8),
        (Path::new(100_000, 10_000), 1.2, 1.6),
        (Path::new(100_000, 30_000), 0.55, 4.0),
        (Path::new(100_000, 50_000), 0.42, 6.5),
    ]);
}

/// Pitfall Q10: what only arrives late, or twice, is no loss.
#[test]
fn throughput_with_reordering_and_duplicates() {
    let late = |rtt_us, reordering, jitter_ms| Path {
        reordering,
        jitter: Duration::from_millis(jitter_ms),
        ..Path::new(rtt_us, 0)
    };
    check(&[
        (late(10_000, 1, 1), 90.0, 1.2),
        (late(10_000, 1, 5), 88.0, 1.2),
        (late(10_000, 5, 5), 85.0, 1.2),
        (late(10_000, 25, 2), 85.0, 1.2),
        (Path { duplication: 1, ..Path::new(10_000, 0) }, 93.0, 1.0),
        (Path { duplication: 5, ..Path::new(10_000, 0) }, 90.0, 1.0),
    ]);
}

/// Both algorithms; NewReno's bound is a little lower.
#[test]
fn throughput_with_newreno() {
    let newreno = |rtt_us, loss_ppm| Path {
        control: CongestionControl::NewReno,
        ..Path::new(rtt_us, loss_ppm)
    };
    check(&[
        (newreno(10_000, 0), 93.0, 0.8),
        (newreno(10_000, 1_000), 30.0, 0.6),
        (newreno(10_000, 10_000), 9.0, 1.5),
        (newreno(10_000, 30_000), 3.5, 4.5),
    ]);
}

/// Pitfall P04: a path that swallows what is longer than 1300 bytes, in silence.
#[test]
fn a_path_that_swallows_full_segments_is_found_out() {
    for rtt_us in [1_000, 50_000] {
        let mut pair = Path::new(rtt_us, 0).pair(1);
        pair.ends[1].packet_max = 1300;
        let until = pair.now + Duration::from_secs(15);
        while pair.ends[1].received < 1_000_000 && pair.step(until) {}
        assert!(pair.ends[1].received >= 1_000_000, "{} bytes", pair.ends[1].received);
        assert_eq!(pair.ends[0].tcp.counters().tcp_black_holes, 1);
        // The path is repaired: after ten minutes, segments are full again.
        pair.ends[1].packet_max = usize::MAX;
        pair.ends[0].sends = false;
        pair.run(Duration::from_secs(601));
        let (bytes, segments) = {
            let node = &pair.ends[0];
            (pair.ends[1].received, node.tcp.counters().tcp_segments_sent)
        };
        pair.ends[0].sends = true;
        pair.ends[0].run(pair.now);
        pair.run(Duration::from_secs(1));
        let sent = pair.ends[0].tcp.counters().tcp_segments_sent - segments;
        assert!((pair.ends[1].received - bytes) / sent > 1400);
    }
}

/// An outage is no black hole: when the path is back, segments are full.
#[test]
fn an_outage_does_not_make_segments_small() {
    for seconds in [20, 100] {
        let mut pair = Path::new(20_000, 0).pair(1);
        pair.run(Duration::from_secs(1));
        pair.ends[1].packet_max = 0;
        pair.run(Duration::from_secs(seconds));
        pair.ends[1].packet_max = usize::MAX;
        pair.run(Duration::from_secs(60));
        let (bytes, segments) =
            (pair.ends[1].received, pair.ends[0].tcp.counters().tcp_segments_sent);
        pair.run(Duration::from_secs(1));
        let sent = pair.ends[0].tcp.counters().tcp_segments_sent - segments;
        assert!(sent > 1000 && (pair.ends[1].received - bytes) / sent > 1400);
    }
}
