//! Segments that follow one another are as they would be if each were decided on by itself.

use super::pair::Node;
use super::*;
use crate::simulation::{Dice, End};
use std::collections::VecDeque;

/// All frames that two hosts exchange over a link that loses some: two streams at once, of which one
/// or both last. With `is_broken` nothing ever follows: each frame is asked for behind a call that
/// ends the run. And how often another frame could follow.
fn conversation(configs: [Config; 2], seed: u64, is_broken: bool) -> (Vec<Vec<u8>>, usize) {
    let mut dice = Dice(seed);
    let to_send = [400_000, dice.below(2) as usize * 300_000];
    let [client, server] = configs;
    let mut ends = [Node::new(client, to_send[0]), Node::new(server, to_send[1])];
    let address = ends[1].engine.address().unwrap();
    ends[1].listener = Some(ends[1].engine.tcp_listen((address, 80).into(), 8).unwrap());
    let mut now = Instant::from_millis(10);
    ends[0].connection = Some(ends[0].engine.tcp_connect(now, (address, 80).into()).unwrap());
    let mut wires: [VecDeque<(Instant, Vec<u8>)>; 2] = Default::default();
    let mut frames = Vec::new();
    let (mut steps, mut runs) = (0, 0);
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
                if is_broken {
                    end.engine.handle_timeout(now);
                }
                let Some(frame) = end.transmit(now) else { break };
                end.engine.check(&Limits::default());
                runs += usize::from(end.engine.run.is_some());
                frames.push(frame.clone());
                let loss = if frames.len() > 100 { 2 } else { 0 };
                if !dice.percent(loss) {
                    wires[side].push_back((now + ms(20), frame));
                }
            }
            let wire = &mut wires[1 - side];
            while let Some((_, frame)) = wire.pop_front_if(|(at, _)| *at <= now) {
                ends[side].receive(now, frame);
            }
        }
        now = now + ms(dice.below(3));
    }
    (frames, runs)
}

fn peer_config() -> Config {
    let address = AddressConfig::Static { address: P, prefix_len: 24, gateway: None, dns: vec![] };
    Config { mac: P_MAC, address, secret: [9; 32], ..config() }
}

#[test]
fn the_frames_of_a_run_are_those_that_would_have_been_sent_one_by_one() {
    for seed in 0..12 {
        let configs = || {
            let host = Config { transmit_checksum_offload: seed % 3 == 0, ..config() };
            [host, peer_config()]
        };
        let (whole, runs) = conversation(configs(), seed, false);
        let (broken, _) = conversation(configs(), seed, true);
        assert!(runs > 150, "seed {seed}: only {runs} of {} could follow", whole.len());
        for (at, (ours, theirs)) in whole.iter().zip(&broken).enumerate() {
            assert!(ours == theirs, "seed {seed}: frame {at} is another: {ours:?} {theirs:?}");
        }
        assert_eq!(whole.len(), broken.len(), "seed {seed}");
    }
}
