//! What takes a shorter way is what it would be on the long one.

use super::pair::Node;
use super::*;
use crate::engine::flows::Flows;
use crate::simulation::{Dice, End};
use std::collections::VecDeque;

/// Which shortcut two hosts do without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Segments that follow one another: each frame is asked for behind a call that ends the run.
    Runs,
    /// Segments that are expected: no stream is known.
    Flows,
}

/// How often a shorter way was, or could be, taken.
#[derive(Default)]
struct Taken {
    runs: usize,
    flows: usize,
}

/// All frames that two hosts exchange over a link that loses some, doubles others, and corrupts: one
/// stream, or two at once.
fn conversation(configs: [Config; 2], seed: u64, without: Without) -> (Vec<Vec<u8>>, Taken) {
    let mut dice = Dice(seed);
    let to_send = [400_000, dice.below(2) as usize * 300_000];
    let [client, server] = configs;
    let mut ends = [Node::new(client, to_send[0]), Node::new(server, to_send[1])];
    ends.iter_mut().for_each(|end| end.corruption = seed % 4 * 3);
    let address = ends[1].engine.address().unwrap();
    ends[1].listener = Some(ends[1].engine.tcp_listen((address, 80).into(), 8).unwrap());
    let mut now = Instant::from_millis(10);
    ends[0].connection = Some(ends[0].engine.tcp_connect(now, (address, 80).into()).unwrap());
    let mut wires: [VecDeque<(Instant, Vec<u8>)>; 2] = Default::default();
    let mut frames = Vec::new();
    let (mut steps, mut taken) = (0, Taken::default());
    while !(ends[0].has_all(to_send[1]) && ends[1].has_all(to_send[0])) {
        steps += 1;
        assert!(steps < 20_000, "seed {seed}: it does not end");
        for side in [0, 1] {
            let end = &mut ends[side];
            if end.poll_timeout().is_some_and(|deadline| deadline <= now) {
                end.handle_timeout(now);
            }
            // A device that takes a few frames at a time, and sometimes none.
            for _ in 0..dice.below(40) {
                if without == Without::Runs {
                    end.engine.handle_timeout(now);
                }
                let Some(frame) = end.transmit(now) else { break };
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
        now = now + ms(dice.below(3));
    }
    taken.flows = ends.iter().map(|end| end.engine.flows.taken).sum();
    (frames, taken)
}

fn peer_config() -> Config {
    let address = AddressConfig::Static { address: P, prefix_len: 24, gateway: None, dns: vec![] };
    Config { mac: P_MAC, address, secret: [9; 32], ..config() }
}

#[test]
fn both_hosts_send_the_same_frames_whatever_way_segments_take() {
    let mut expected = 0;
    for seed in 0..12 {
        let configs = || {
            let host = Config { transmit_checksum_offload: seed % 3 == 0, ..config() };
            [host, peer_config()]
        };
        let (frames, taken) = conversation(configs(), seed, Without::Nothing);
        assert!(
            taken.runs > 150,
            "seed {seed}: only {} of {} could follow",
            taken.runs,
            frames.len()
        );
        expected += taken.flows;
        for without in [Without::Runs, Without::Flows] {
            let (others, taken) = conversation(configs(), seed, without);
            assert!(without != Without::Flows || taken.flows == 0);
            for (at, (ours, theirs)) in frames.iter().zip(&others).enumerate() {
                assert!(ours == theirs, "seed {seed}: frame {at} is another: {ours:?} {theirs:?}");
            }
            assert_eq!(frames.len(), others.len(), "seed {seed}");
        }
    }
    // Of streams one way; where both hosts send, there is always something new.
    assert!(expected > 500, "{expected}");
}
