//! What takes a shorter way is what it would be on the long one.

use super::*;
use crate::config::Ipv6Config;
use crate::engine::flows::Flows;
use crate::simulation::Dice;
use crate::socket::{ListenerId, TcpId};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};

const H6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const P6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// When both hosts have their addresses.
const BEGIN: Instant = Instant::from_millis(5000);

/// Which shortcut two hosts do without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Segments that follow one another: each is decided on by itself.
    Runs,
    /// Segments that are expected: no stream is known.
    Flows,
}

/// How often a shorter way was, or could be, taken.
#[derive(Clone, Copy, Default)]
struct Taken {
    runs: usize,
    flows: usize,
}

/// What two hosts have to say to each other.
#[derive(Clone, Copy)]
struct Talk {
    /// Over IPv4, over IPv6, or the streams by turns.
    families: &'static [IpAddr],
    /// Streams at once, each begun a little later than the one before.
    streams: usize,
    /// Bytes of each that the client sends, and that the server sends.
    lens: [usize; 2],
}

/// One end of a stream.
#[derive(Default)]
struct Stream {
    id: Option<TcpId>,
    sent: usize,
    is_shut: bool,
    received: Vec<u8>,
    saw_end: bool,
}

/// A host and its program, which sends so many bytes and the end on each stream, and reads.
struct Talker {
    engine: Engine,
    listener: Option<ListenerId>,
    streams: Vec<Stream>,
    to_send: usize,
    /// Flips a bit in this many of a thousand frames that arrive.
    corruption: u64,
    dice: Dice,
}

fn byte(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

impl Talker {
    fn new(config: Config, to_send: usize, corruption: u64) -> Talker {
        let engine = Engine::new(config, Instant::ZERO).unwrap();
        Talker { engine, listener: None, streams: vec![], to_send, corruption, dice: Dice(1) }
    }

    fn run(&mut self, now: Instant) {
        while self.engine.poll_event().is_some() {}
        while let Some(listener) = self.listener
            && let Some(accepted) = self.engine.tcp_accept(now, listener)
        {
            self.streams.push(Stream { id: Some(accepted.connection), ..Stream::default() });
        }
        for stream in &mut self.streams {
            let Some(id) = stream.id else { continue };
            let mut buffer = [0; 4000];
            while !stream.saw_end
                && let Ok(Some(count)) = self.engine.tcp_read(now, id, &mut buffer)
            {
                stream.received.extend(&buffer[..count]);
                stream.saw_end = count == 0;
            }
            while stream.sent < self.to_send {
                let end = self.to_send.min(stream.sent + 3000);
                let data: Vec<u8> = (stream.sent..end).map(byte).collect();
                let Ok(Some(count)) = self.engine.tcp_write(now, id, &data) else { break };
                stream.sent += count;
            }
            if stream.sent == self.to_send && !stream.is_shut {
                stream.is_shut = self.engine.tcp_shutdown(now, id).is_ok();
            }
        }
    }

    fn receive(&mut self, now: Instant, mut frame: Vec<u8>) {
        if self.dice.below(1000) < self.corruption {
            let bit = self.dice.below(frame.len() as u64 * 8) as usize;
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        self.engine.handle_frame(now, &frame, FrameChecksum::Unverified);
        self.run(now);
    }

    fn transmit(&mut self, now: Instant, without: Without) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 14 + 1500];
        let transmit = match without {
            Without::Runs => self.engine.transmit_long(now, &mut buffer)?,
            Without::Nothing | Without::Flows => self.engine.poll_transmit(now, &mut buffer)?,
        };
        buffer.truncate(transmit.len);
        if let Some(PartialChecksum { start, offset }) = transmit.partial_checksum {
            let (start, at) = (usize::from(start), usize::from(start + offset));
            let sum = checksum::checksum(&buffer[start..]);
            buffer[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        Some(buffer)
    }

    /// Each stream has brought all of `len` bytes, and its end.
    fn has_all(&self, streams: usize, len: usize) -> bool {
        let is_whole = |stream: &Stream| {
            let received = stream.received.iter().enumerate();
            stream.saw_end
                && stream.received.len() == len
                && received.into_iter().all(|(at, value)| *value == byte(at))
        };
        self.streams.len() == streams && self.streams.iter().all(is_whole)
    }
}

/// All frames that two hosts exchange over a link that loses some, doubles others, and corrupts.
fn conversation(
    talk: Talk,
    configs: [Config; 2],
    seed: u64,
    without: Without,
) -> (Vec<Vec<u8>>, Taken) {
    let mut dice = Dice(seed);
    let [client, server] = configs;
    let corruption = seed % 4 * 3;
    let mut ends = [
        Talker::new(client, talk.lens[0], corruption),
        Talker::new(server, talk.lens[1], corruption),
    ];
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
    ends[1].listener = Some(ends[1].engine.tcp_listen(any, 8).unwrap());
    let mut wires: [VecDeque<(Instant, Vec<u8>)>; 2] = Default::default();
    let mut frames = Vec::new();
    let (mut steps, mut taken) = (0, Taken::default());
    let mut now = Instant::from_millis(10);
    while !(ends[0].has_all(talk.streams, talk.lens[1])
        && ends[1].has_all(talk.streams, talk.lens[0]))
    {
        steps += 1;
        assert!(steps < 40_000, "seed {seed}: it does not end");
        let begun = ends[0].streams.len();
        if begun < talk.streams && now >= BEGIN + ms(30 * begun as u64) {
            let remote = (talk.families[begun % talk.families.len()], 80).into();
            let id = Some(ends[0].engine.tcp_connect(now, remote).unwrap());
            ends[0].streams.push(Stream { id, ..Stream::default() });
        }
        for side in [0, 1] {
            let end = &mut ends[side];
            if end.engine.poll_timeout().is_some_and(|deadline| deadline <= now) {
                end.engine.handle_timeout(now);
                end.run(now);
            }
            // A device that takes a few frames at a time, and sometimes none.
            for _ in 0..dice.below(40) {
                let Some(frame) = end.transmit(now, without) else { break };
                end.engine.check(&Limits::default());
                taken.runs += usize::from(end.engine.run.is_some());
                frames.push(frame.clone());
                let loss = if frames.len() > 100 { 2 } else { 0 };
                if dice.percent(loss) {
                    wires[side].push_back((now + ms(20), frame.clone()));
                }
                if !dice.percent(loss) {
                    wires[side].push_back((now + ms(20), frame));
                }
            }
            let wire = &mut wires[1 - side];
            while let Some((_, frame)) = wire.pop_front_if(|(at, _)| *at <= now) {
                if without == Without::Flows {
                    ends[side].engine.flows = Flows::default();
                }
                ends[side].receive(now, frame);
                ends[side].engine.check(&Limits::default());
            }
        }
        now = now + if now < BEGIN { ms(100) } else { ms(dice.below(3)) };
    }
    taken.flows = ends.iter().map(|end| end.engine.flows.taken).sum();
    (frames, taken)
}

fn configs(seed: u64) -> [Config; 2] {
    let address = AddressConfig::Static { address: P, prefix_len: 24, gateway: None, dns: vec![] };
    let ipv6 = |address| Ipv6Config { addresses: vec![(address, 64)], ..Ipv6Config::default() };
    let transmit_checksum_offload = seed.is_multiple_of(3);
    [
        Config { transmit_checksum_offload, ipv6: ipv6(H6), ..config() },
        Config { mac: P_MAC, address, ipv6: ipv6(P6), secret: [9; 32], ..config() },
    ]
}

/// The same talk with each of the ways, which all lead to the same frames.
fn every_way(talk: Talk, seed: u64) -> Taken {
    same_without(&[Without::Runs, Without::Flows], talk, seed)
}

fn same_without(ways: &[Without], talk: Talk, seed: u64) -> Taken {
    let (frames, most) = conversation(talk, configs(seed), seed, Without::Nothing);
    for &without in ways {
        let (others, taken) = conversation(talk, configs(seed), seed, without);
        assert!(without != Without::Flows || taken.flows == 0);
        for (at, (ours, theirs)) in frames.iter().zip(&others).enumerate() {
            assert!(ours == theirs, "seed {seed}: frame {at} is another: {ours:?} {theirs:?}");
        }
        assert_eq!(frames.len(), others.len(), "seed {seed}");
    }
    most
}

const FAMILIES: [&[IpAddr]; 3] =
    [&[IpAddr::V4(P)], &[IpAddr::V6(P6)], &[IpAddr::V4(P), IpAddr::V6(P6)]];

#[test]
fn a_stream_is_the_same_frames_whatever_way_its_segments_take() {
    for families in &FAMILIES[..2] {
        let talk = Talk { families, streams: 1, lens: [300_000, 0] };
        let mut flows = 0;
        for seed in 0..6 {
            let taken = every_way(talk, seed);
            assert!(taken.runs > 100, "seed {seed}: only {} could follow", taken.runs);
            flows += taken.flows;
        }
        assert!(flows > 200, "{families:?}: {flows}");
    }
}

/// Where both hosts send, there is always something new: hardly a segment is expected. But many follow
/// one another.
#[test]
fn a_stream_each_way_is_the_same_frames_whatever_way_its_segments_take() {
    for families in &FAMILIES[..2] {
        let talk = Talk { families, streams: 1, lens: [200_000, 150_000] };
        for seed in 10..14 {
            let taken = every_way(talk, seed);
            assert!(taken.runs > 50, "seed {seed}: only {} could follow", taken.runs);
        }
    }
}

/// Streams take turns, of both families; a turn is as long as a run. Where several streams go both ways
/// at once, runs can change whose turn is next (four streams, seed 22), so that frames cannot be
/// compared one by one; there, it is the ways of what arrives that are.
#[test]
fn streams_side_by_side_are_the_same_frames_whatever_way_their_segments_take() {
    for (streams, lens) in [(3, [80_000, 0]), (3, [0, 80_000]), (4, [60_000, 40_000])] {
        for families in FAMILIES {
            let mut all = Taken::default();
            for seed in 20..23 {
                let talk = Talk { families, streams, lens };
                let goes_one_way = lens.contains(&0);
                let taken = match goes_one_way {
                    true => every_way(talk, seed),
                    false => same_without(&[Without::Flows], talk, seed),
                };
                all = Taken { runs: all.runs + taken.runs, flows: all.flows + taken.flows };
            }
            assert!(all.runs > 50, "{families:?} {streams} {lens:?}: {}", all.runs);
            assert!(
                all.flows > 50 || lens.iter().all(|len| *len > 0),
                "{families:?}: {}",
                all.flows
            );
        }
    }
}
