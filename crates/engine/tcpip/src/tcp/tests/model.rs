//! Two hosts and a link that loses, delays, duplicates and reorders, in virtual time; on both ends
//! a program that reads and writes as it likes, and acts only when an event told it to.
//!
//! What must come out: every byte arrives once, in its place, and then the end of the stream; or an
//! error says why not. And afterwards nothing is left.

use super::script::{assert_empty, stream};
use crate::config::Limits;
use crate::error::TcpError;
use crate::event::Event;
use crate::secret::Keys;
use crate::simulation::{Dice, End, Faults, Pair};
use crate::socket::{ListenerId, TcpId, TcpStatus};
use crate::tcp::{Seq, Tcp};
use crate::time::Instant;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::num::NonZeroU16;
use core::time::Duration;
use std::collections::VecDeque;

/// What a program wants of its connection, and how far it is.
#[derive(Clone, Debug, Default)]
struct Program {
    conn: Option<TcpId>,
    to_send: usize,
    sent: usize,
    received: usize,
    expects: usize,
    /// Stops for a while now and then, in this many of a hundred cases.
    laziness: u64,
    /// Does not read before.
    reads_after: Option<Instant>,
    /// Shuts down only after the peer's end.
    is_polite: bool,
    can_read: bool,
    can_write: bool,
    resumes_at: Option<Instant>,
    is_shut: bool,
    saw_end: bool,
    is_done: bool,
    error: Option<TcpError>,
}

/// A host with one program.
pub(crate) struct Node {
    pub(crate) tcp: Tcp,
    limits: Limits,
    listener: Option<ListenerId>,
    program: Program,
    /// The test itself is the program.
    pub(crate) is_manual: bool,
    dice: Dice,
    device: Device,
    /// Segments that the device has cut and not sent yet.
    cut: VecDeque<Wire>,
}

/// What goes over the link: addresses, a segment, and if it is several in one, their payload.
type Wire = (IpAddr, IpAddr, Vec<u8>, Option<NonZeroU16>);

/// What a host's device does with a segment that is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// It takes none.
    Plain,
    /// Cuts it.
    Cuts,
    /// Hands it on as it is: the peer is on the same machine.
    Hands,
}

/// The segments that a device makes of a large one.
fn cut((source, destination, bytes, mss): Wire) -> VecDeque<Wire> {
    let Some(mss) = mss else { return [(source, destination, bytes, None)].into() };
    let (header, payload) = bytes.split_at(usize::from(bytes[12] >> 4) * 4);
    assert!(payload.len() > usize::from(mss.get()), "one segment need not be cut");
    let sequence = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
    let pieces = payload.chunks(mss.get().into()).enumerate();
    let count = pieces.len();
    pieces
        .map(|(number, piece)| {
            let mut segment = header.to_vec();
            let done = number as u32 * u32::from(mss.get());
            segment[4..8].copy_from_slice(&sequence.wrapping_add(done).to_be_bytes());
            if number + 1 < count {
                // Neither FIN nor PSH.
                segment[13] &= !0x09;
            }
            segment.extend(piece);
            (source, destination, segment, None)
        })
        .collect()
}

pub(crate) const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))];

impl Node {
    pub(crate) fn new(which: u8, limits: Limits, mtu: usize, seed: u64) -> Node {
        let mut tcp = Tcp::new(&limits, Keys::new([which; 32]), mtu, 0);
        // Sequence numbers of both wrap in the middle of the transfer.
        tcp.origins.fixed = Some(Seq(u32::MAX - (seed % 20_000) as u32));
        let dice = Dice(seed ^ u64::from(which) << 32);
        Node {
            tcp,
            limits,
            listener: None,
            program: Program::default(),
            is_manual: false,
            dice,
            device: Device::Plain,
            cut: VecDeque::new(),
        }
    }

    /// The host's device takes segments of up to `bytes`.
    fn attach(&mut self, device: Device, bytes: usize) {
        self.device = device;
        let bytes = if device == Device::Plain { 0 } else { bytes };
        self.tcp.shared.settings.large_segment_bytes = bytes;
    }

    fn listen(&mut self) {
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 80);
        self.listener = self.tcp.listen(any, 8).ok();
    }

    fn connect(&mut self, now: Instant) {
        let remote = SocketAddr::new(ADDRESSES[1], 80);
        self.program.conn = self.tcp.connect(now, ADDRESSES[0], remote).ok();
        assert!(self.program.conn.is_some());
    }

    /// The program sees its events, and does what it now can.
    fn run(&mut self, now: Instant) {
        if self.is_manual {
            return;
        }
        while let Some(event) = self.tcp.poll_event() {
            let program = &mut self.program;
            match event {
                Event::Acceptable(listener) => {
                    assert_eq!(Some(listener), self.listener);
                    let accepted = self.tcp.accept(now, listener).expect("as the event said");
                    program.conn = Some(accepted.connection);
                    (program.can_read, program.can_write) = (true, true);
                }
                Event::TcpConnected(id) => {
                    assert_eq!(Some(id), program.conn);
                    program.can_write = true;
                }
                Event::TcpReadable(_) => program.can_read = true,
                Event::TcpWritable(_) => program.can_write = true,
                Event::TcpClosed(id) => {
                    (program.can_read, program.can_write) = (true, true);
                    if let TcpStatus::Failed(error) = self.tcp.status(id) {
                        program.error = Some(error);
                    }
                }
                _ => unreachable!("no such event here"),
            }
        }
        if self.program.resumes_at.is_some_and(|at| at > now) {
            return;
        }
        self.program.resumes_at = None;
        self.act(now);
    }

    fn act(&mut self, now: Instant) {
        let Some(id) = self.program.conn.filter(|_| !self.program.is_done) else { return };
        if self.program.reads_after.is_some_and(|at| at <= now) {
            self.program.reads_after = None;
        }
        let may_read = self.program.reads_after.is_none();
        if self.program.error.is_some() {
            self.tcp.release(now, id);
            self.program.is_done = true;
            return;
        }
        loop {
            let program = &mut self.program;
            let wants_write = program.can_write && program.sent < program.to_send;
            if !(program.can_read && may_read || wants_write) {
                break;
            }
            if self.dice.percent(program.laziness) {
                program.resumes_at = Some(now + Duration::from_millis(1 + self.dice.below(700)));
                return;
            }
            if program.can_read && may_read {
                let mut buffer = vec![0; 1 + self.dice.below(6000) as usize];
                match self.tcp.read(now, id, &mut buffer) {
                    Ok(None) => program.can_read = false,
                    Ok(Some(0)) => (program.can_read, program.saw_end) = (false, true),
                    Ok(Some(count)) => {
                        assert_eq!(buffer[..count], stream(program.received, count), "wrong bytes");
                        program.received += count;
                    }
                    Err(error) => {
                        program.error = Some(error);
                        return self.act(now);
                    }
                }
            }
            if wants_write {
                let count =
                    (1 + self.dice.below(5000) as usize).min(program.to_send - program.sent);
                match self.tcp.write(now, id, &stream(program.sent, count)) {
                    Ok(None) => program.can_write = false,
                    Ok(Some(count)) => program.sent += count,
                    Err(error) => {
                        program.error = Some(error);
                        return self.act(now);
                    }
                }
            }
        }
        let program = &mut self.program;
        let may_shut = program.sent == program.to_send && (program.saw_end || !program.is_polite);
        if may_shut && !program.is_shut {
            program.is_shut = true;
            let _ = self.tcp.shutdown(now, id);
        }
        if program.is_shut && program.saw_end && self.tcp.is_flushed(id) {
            assert_eq!(program.received, program.expects, "the end came early");
            self.tcp.release(now, id);
            program.is_done = true;
        }
    }
}

impl End for Node {
    type Packet = Wire;

    fn receive(&mut self, now: Instant, (source, destination, bytes, mss): Self::Packet) {
        self.tcp.handle_segment(now, source, destination, &bytes, mss);
        self.run(now);
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::Packet> {
        if let Some(segment) = self.cut.pop_front() {
            return Some(segment);
        }
        let mut buffer = vec![0; 65_535];
        let out = self.tcp.poll_transmit(now, &mut buffer)?;
        buffer.truncate(out.len);
        let segment = (out.source, out.destination, buffer, out.mss);
        match self.device {
            Device::Cuts => {
                self.cut = cut(segment);
                self.cut.pop_front()
            }
            Device::Hands => Some(segment),
            Device::Plain => {
                assert_eq!(out.mss, None, "the device does not cut");
                Some(segment)
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.tcp.handle_timeout(now);
        self.run(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let program = &self.program;
        let deadlines = [self.tcp.poll_timeout(), program.resumes_at, program.reads_after];
        deadlines.into_iter().flatten().min()
    }

    fn check(&self, _now: Instant) {
        self.tcp.check(&self.limits);
    }
}

/// A run: what both programs want, and what the link does.
fn run(seed: u64, faults: Faults, mut change: impl FnMut(&mut [Node; 2], &mut Dice)) -> Pair<Node> {
    let mut dice = Dice(seed);
    let mut nodes = [0, 1].map(|which| {
        let limits = Limits {
            tcp_receive_bytes: [2048, 5000, 65_535, 262_144][dice.below(4) as usize],
            tcp_send_bytes: [2048, 7000, 262_144][dice.below(3) as usize],
            // Over such links, five minutes without progress can happen.
            tcp_user_timeout: Duration::from_secs(36_000),
            ..Limits::default()
        };
        let mtu = [576, 1500, 1500, 9000][dice.below(4) as usize];
        Node::new(which, limits, mtu, seed)
    });
    let sizes = [0, 1, 1460, 20_000, 100_000, 400_000];
    for node in &mut nodes {
        node.program = Program {
            to_send: sizes[dice.below(6) as usize],
            laziness: [0, 0, 2, 20][dice.below(4) as usize],
            is_polite: dice.percent(30),
            ..Program::default()
        };
    }
    // Two that wait for each other's end wait for ever.
    if nodes[0].program.is_polite {
        nodes[1].program.is_polite = false;
    }
    nodes[0].program.expects = nodes[1].program.to_send;
    nodes[1].program.expects = nodes[0].program.to_send;
    change(&mut nodes, &mut dice);
    let mut pair = Pair::new(nodes, faults, seed);
    pair.ends[1].listen();
    pair.ends[0].connect(pair.now);
    pair
}

/// Lets a pair run until both programs are done and nothing is left.
fn finish(pair: &mut Pair<Node>, seed: u64, limit: Duration) {
    let until = pair.now + limit;
    while pair.step(until) {}
    for node in &mut pair.ends {
        let program = &node.program;
        assert!(program.is_done, "seed {seed}: stuck with {program:?}");
        assert_empty(&node.tcp);
    }
}

#[test]
fn every_byte_arrives_over_a_clean_link() {
    for seed in 0..60 {
        let delay = Duration::from_millis([0, 1, 40, 300][seed as usize % 4]);
        let mut pair = run(seed, Faults::none(delay), |_, _| {});
        finish(&mut pair, seed, Duration::from_secs(7200));
        for node in &pair.ends {
            assert_eq!(node.program.error, None, "seed {seed}");
            assert_eq!(node.program.received, node.program.expects, "seed {seed}");
            assert_eq!(node.tcp.counters().tcp_retransmit_timeouts, 0, "seed {seed}");
        }
    }
}

#[test]
fn every_byte_arrives_over_a_bad_link() {
    for seed in 1000..1160 {
        let mut dice = Dice(seed);
        let faults = Faults {
            delay: Duration::from_millis(dice.below(120)),
            loss: dice.below(16),
            duplication: dice.below(10),
            reordering: dice.below(40),
            jitter: Duration::from_millis(dice.below(200)),
        };
        let mut pair = run(seed, faults, |_, _| {});
        finish(&mut pair, seed, Duration::from_secs(100_000));
        for node in &pair.ends {
            assert_eq!(node.program.error, None, "seed {seed} {faults:?}");
            assert_eq!(node.program.received, node.program.expects, "seed {seed}");
        }
    }
}

/// Both programs send; the devices of both ends take large segments, in every combination.
#[test]
fn every_byte_arrives_in_large_segments() {
    let devices = [Device::Cuts, Device::Hands, Device::Plain];
    let (mut large, mut clean, mut waits) = (0, 0, 0);
    for seed in 0..180 {
        let mut dice = Dice(seed);
        let is_clean = seed % 2 == 0;
        let percent = |dice: &mut Dice, most| if is_clean { 0 } else { dice.below(most) };
        let faults = Faults {
            delay: Duration::from_millis(dice.below(120)),
            loss: percent(&mut dice, 16),
            duplication: percent(&mut dice, 10),
            reordering: percent(&mut dice, 40),
            jitter: Duration::from_millis(dice.below(200)),
        };
        let mut pair = run(seed, faults, |nodes, dice| {
            for (which, node) in nodes.iter_mut().enumerate() {
                let device = devices[(seed as usize / 2 / if which == 0 { 1 } else { 3 }) % 3];
                node.attach(device, [3000, 20_000, 65_515][dice.below(3) as usize]);
            }
        });
        finish(&mut pair, seed, Duration::from_secs(100_000));
        for node in &pair.ends {
            assert_eq!(node.program.error, None, "seed {seed} {faults:?}");
            assert_eq!(node.program.received, node.program.expects, "seed {seed}");
            let counters = node.tcp.counters();
            large += counters.tcp_large_frames_received;
            if is_clean {
                clean += 1;
                waits += counters.tcp_retransmit_timeouts;
            }
        }
    }
    assert!(large > 300, "{large} segments arrived whole");
    assert!(clean > 100 && waits == 0, "{waits} timeouts over {clean} clean links");
}

/// W05, Z02, S03: every single packet, and every pair of packets, of a short exchange is lost.
#[test]
fn any_two_lost_packets_are_recovered_from() {
    let exchange = |lost: [u64; 2]| {
        let faults = Faults::none(Duration::from_millis(10));
        let mut pair = run(7, faults, |nodes, _| {
            for node in nodes {
                node.program = Program {
                    to_send: 3000,
                    expects: 3000,
                    is_polite: false,
                    ..Program::default()
                };
            }
        });
        pair.loses = Some(Box::new(move |number| lost.contains(&number)));
        finish(
            &mut pair,
            lost[0].wrapping_mul(1000).wrapping_add(lost[1]),
            Duration::from_secs(1000),
        );
        for node in &pair.ends {
            // The last ACK of a handshake that is lost with what follows it can only be told by
            // an error if the client is gone: not here, both wait for the end.
            assert_eq!(node.program.error, None, "lost {lost:?}");
        }
        pair.sent()
    };
    let packets = exchange([u64::MAX; 2]);
    assert!(packets < 40, "{packets}");
    for first in 0..packets + 4 {
        for second in first..packets + 4 {
            exchange([first, second]);
        }
    }
}

/// Q04.
#[test]
fn a_peer_that_vanishes_is_an_error_on_both_sides() {
    for seed in 0..20 {
        let mut pair = run(seed, Faults::none(Duration::from_millis(20)), |nodes, dice| {
            for node in nodes.iter_mut() {
                node.program.to_send = 500_000;
                node.program.expects = 500_000;
                node.program.laziness = [0, 20][dice.below(2) as usize];
            }
        });
        pair.run(Duration::from_millis(200));
        pair.faults.loss = 100;
        finish(&mut pair, seed, Duration::from_secs(40_000));
        for node in &pair.ends {
            assert_eq!(node.program.error, Some(TcpError::TimedOut), "seed {seed}");
        }
    }
}

/// W04: both programs write and do not read, until both windows are closed and both ends probe;
/// then both read, at the same moment or not.
#[test]
fn windows_that_both_close_open_again() {
    for (seed, later_ms) in [(1, 0), (2, 1), (3, 200), (4, 45_000)] {
        for loss in [0, 10] {
            let faults = Faults { loss, ..Faults::none(Duration::from_millis(5)) };
            let mut pair = run(seed, faults, |nodes, _| {
                for (which, node) in nodes.iter_mut().enumerate() {
                    let after = 300_000 + later_ms * which as u64;
                    node.program = Program {
                        to_send: 600_000,
                        expects: 600_000,
                        reads_after: Some(Instant::from_millis(after)),
                        ..Program::default()
                    };
                }
            });
            pair.run(Duration::from_secs(290));
            let counters = pair.ends.each_ref().map(|node| node.tcp.counters());
            assert!(
                counters.iter().all(|counters| counters.tcp_probes_sent > 2),
                "seed {seed} loss {loss} {counters:?}"
            );
            finish(&mut pair, seed, Duration::from_secs(40_000));
            assert!(pair.ends.iter().all(|node| node.program.error.is_none()));
        }
    }
}

/// A link that is down for a while: both ends go on when it is up again.
#[test]
fn an_outage_is_survived() {
    for seconds in [1, 10, 100, 200] {
        let mut pair = run(seconds, Faults::none(Duration::from_millis(20)), |nodes, _| {
            for node in nodes.iter_mut() {
                node.program.to_send = 500_000;
                node.program.expects = 500_000;
                node.program.laziness = 0;
            }
        });
        pair.run(Duration::from_millis(200));
        pair.faults.loss = 100;
        pair.run(Duration::from_secs(seconds));
        pair.faults.loss = 0;
        finish(&mut pair, seconds, Duration::from_secs(3600));
        for node in &pair.ends {
            assert_eq!(node.program.error, None, "{seconds} s");
        }
    }
}

/// A program that resets in the middle: the other is told, and nothing is left.
#[test]
fn a_reset_reaches_the_peer() {
    for seed in 0..40 {
        let faults = Faults { loss: seed % 8, ..Faults::none(Duration::from_millis(20)) };
        let mut pair = run(seed, faults, |nodes, _| {
            for node in nodes.iter_mut() {
                node.program.to_send = 500_000;
                node.program.expects = 500_000;
            }
        });
        pair.run(Duration::from_millis(100 + seed * 10));
        let now = pair.now;
        if let Some(id) = pair.ends[0].program.conn {
            pair.ends[0].tcp.abort(now, id);
            pair.ends[0].program.is_done = true;
        }
        pair.run(Duration::from_secs(40_000));
        let server = &pair.ends[1].program;
        // If the RST was lost, the answer to whatever the server sends next is another.
        let told = matches!(server.error, Some(TcpError::Reset | TcpError::TimedOut));
        assert!(told || server.conn.is_none(), "seed {seed}: {server:?}");
        pair.ends.iter().for_each(|node| assert_empty(&node.tcp));
    }
}
