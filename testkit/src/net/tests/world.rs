//! Whole stacks in the world.

use super::super::*;
use core::time::Duration;
use fata_pcap::{Direction, Reader};
use std::io::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Bytes that show one lost, doubled or out of place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 15) as u8).collect()
}

/// Sends `len` bytes from one host to another, and says how long it took.
async fn transfer(world: &World, from: &Host, to: &Host, len: usize) -> Duration {
    let listener = to.stack.tcp_listen(80).await.unwrap();
    let began = world.now();
    let sent = pattern(len);
    let receive = async {
        let mut received = Vec::new();
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_to_end(&mut received).await.unwrap();
        received
    };
    let send = async {
        let mut stream = from.stack.tcp_connect((to.address, 80)).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let (received, ()) = tokio::join!(receive, send);
    assert!(received == sent, "{} bytes of {len}", received.len());
    world.now() - began
}

#[test]
fn the_time_of_frames_is_exact_to_the_nanosecond() {
    let latency = Duration::from_nanos(123_456);
    World::run(1, |world| async move {
        let link = Link::symmetric(Impairments::latency(latency));
        let client = world.host("client").link(link.clone()).start();
        let server = world.host("server").link(link).start();
        let seen = client.port.record();
        let listener = server.stack.tcp_listen(80).await.unwrap();
        let connect = client.stack.tcp_connect((server.address, 80));
        let (stream, _) = tokio::join!(connect, listener.accept());
        stream.unwrap();
        let bytes = seen.bytes();
        let mut reader = Reader::new(&bytes).unwrap();
        let mut times = Vec::new();
        while let Some(frame) = reader.next_frame().unwrap() {
            let ethertype = &frame.bytes[12..14];
            times.push((frame.at_nanos, frame.direction.unwrap(), ethertype[1]));
        }
        // An announcement of each host; a question, four links to the answer, a SYN, four more.
        let round = 4 * 123_456;
        let wanted = [
            (0, Direction::Outbound, 6),
            (0, Direction::Outbound, 6),
            (round / 2, Direction::Inbound, 6),
            (round, Direction::Inbound, 6),
            (round, Direction::Outbound, 0),
            (2 * round, Direction::Inbound, 0),
        ];
        assert_eq!(times[..6], wanted, "{times:?}");
    });
}

#[test]
fn timers_fire_at_their_millisecond_however_frames_divide_it() {
    World::run(1, |world| async move {
        let link = Link::symmetric(Impairments {
            latency: Duration::from_micros(77),
            rate_bits_per_second: Some(100_000_000),
            ..Default::default()
        });
        let left = world.host("left").link(link.clone()).start();
        let right = world.host("right").link(link).start();
        let ticks = async {
            for at in 1..=200 {
                tokio::time::sleep_until(tokio::time::Instant::now() + ms(1)).await;
                let now = world.now();
                assert!(now >= ms(at) && now < ms(at) + ms(1), "tick {at} came at {now:?}");
                // To the next whole millisecond, so that the next tick is one.
                let rest = Duration::from_nanos(u64::from(now.subsec_nanos()) % 1_000_000);
                assert_eq!(rest, Duration::ZERO, "tokio's timers fire at whole milliseconds");
            }
        };
        tokio::join!(ticks, transfer(&world, &left, &right, 1_000_000));
    });
}

#[test]
fn a_link_carries_its_rate_and_not_more() {
    World::run(1, |world| async move {
        let link = Link::symmetric(Impairments {
            rate_bits_per_second: Some(100_000_000),
            queue_bytes: 10_000_000,
            ..Default::default()
        });
        let left = world.host("left").link(link).start();
        let right = world.host("right").start();
        let sender = left.stack.udp_bind(9).await.unwrap();
        let receiver = right.stack.udp_bind(9).await.unwrap();
        let mut buffer = [0; 1500];
        // The neighbour is known from here on.
        sender.send_to(b"first", (right.address, 9).into()).await.unwrap();
        receiver.recv_from(&mut buffer).await.unwrap();
        let began = world.now();
        for _ in 0..100 {
            sender.send_to(&[7; 1222], (right.address, 9).into()).await.unwrap();
            receiver.recv_from(&mut buffer).await.unwrap();
        }
        // 1250 bytes with their headers: 100 µs each.
        assert_eq!(world.now() - began, ms(10));
        let took = transfer(&world, &left, &right, 2_000_000).await;
        assert!(16e6 / took.as_secs_f64() < 100e6, "{took:?}");
    });
}

/// Everything that a bad link does at once, and yet every byte arrives; and the same seed does it
/// again, frame by frame.
#[test]
fn a_seed_replays_a_whole_run_and_another_seed_is_another_run() {
    let run = |seed| {
        World::run(seed, |world| async move {
            let bad = Impairments {
                latency: ms(5),
                jitter: ms(2),
                loss: 0.02,
                duplication: 0.02,
                reordering: 0.02,
                reordering_delay: ms(3),
                corruption: 0.01,
                trailing_bytes_max: 9,
                ..Default::default()
            };
            let left = world.host("left").link(Link::symmetric(bad)).start();
            let right = world.host("right").start();
            let seen = left.port.record();
            transfer(&world, &left, &right, 300_000).await;
            let counters = left.port.to_network();
            for (name, count) in counters.iter().filter(|(name, _)| !name.starts_with("lost_")) {
                assert!(count > 0 || name == "queue_bytes_max", "{name} did not happen");
            }
            assert!(counters.lost_chance > 0);
            seen.bytes()
        })
    };
    let first = run(3);
    assert!(first == run(3), "the same seed, the same frames at the same times");
    assert!(first != run(4));
}

#[test]
fn an_hour_without_a_network_is_survived_in_no_time() {
    World::run(1, |world| async move {
        let left = world.host("left").start();
        let right = world.host("right").start();
        let listener = right.stack.tcp_listen(80).await.unwrap();
        let connect = left.stack.tcp_connect((right.address, 80));
        let (client, server) = tokio::join!(connect, listener.accept());
        let (mut client, mut server) = (client.unwrap(), server.unwrap().0);
        // Off for a minute: the stack's retransmissions bridge it.
        left.port.set_up_at(world.now() + ms(5), false);
        left.port.set_up_at(world.now() + ms(60_000), true);
        tokio::time::sleep(ms(10)).await;
        client.write_all(b"still there?").await.unwrap();
        let mut buffer = [0; 12];
        server.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"still there?");
        assert!(world.now() > ms(60_000));
        assert!(left.port.to_network().lost_link_down > 3);
        // For an hour: TCP gives up and says so.
        left.port.set_up(false);
        client.write_all(b"and now?").await.unwrap();
        let error = timeout(ms(3_600_000), client.read(&mut buffer)).await.unwrap().unwrap_err();
        let gave_up = [ErrorKind::TimedOut, ErrorKind::HostUnreachable];
        assert!(gave_up.contains(&error.kind()), "{error}");
    });
}

#[test]
fn a_torn_network_heals() {
    World::run(1, |world| async move {
        let [a, b, c] = ["a", "b", "c"].map(|name| world.host(name).start());
        let _listeners = [a.stack.tcp_listen(80).await, b.stack.tcp_listen(80).await];
        world.partition(&[&[&a.port], &[&b.port, &c.port]]);
        c.stack.tcp_connect((b.address, 80)).await.unwrap();
        assert!(timeout(ms(10_000), c.stack.tcp_connect((a.address, 80))).await.is_err());
        assert!(world.counters().lost_partition > 0);
        world.heal();
        c.stack.tcp_connect((a.address, 80)).await.unwrap();
    });
}

#[test]
fn every_kind_of_card_carries_a_transfer() {
    let kinds = [ReceiveChecksum::Unverified, ReceiveChecksum::Verified, ReceiveChecksum::Blank];
    let all = kinds.into_iter().flat_map(|receive_checksum| {
        [false, true].map(|helps| NicOptions {
            receive_checksum,
            joins_segments: helps,
            ..if helps { NicOptions::everything() } else { NicOptions::default() }
        })
    });
    for options in all {
        World::run(5, |world| async move {
            let link =
                Link::symmetric(Impairments { loss: 0.005, latency: ms(1), ..Default::default() });
            let left = world.host("left").nic(options.clone()).link(link).start();
            let right = world.host("right").nic(options).start();
            transfer(&world, &left, &right, 1_000_000).await;
            transfer(&world, &right, &left, 1_000_000).await;
            assert_eq!(left.stack.counters().dropped_tcp_checksum, 0);
        });
    }
}

#[test]
fn a_stack_that_leaves_its_frames_loses_them_and_they_are_counted() {
    World::run(1, |world| async move {
        let left = world.host("left").start();
        let options = NicOptions { receive_ring_frames: 4, ..Default::default() };
        let (nic, port) = world.nic("nobody", Link::default(), options);
        let socket = left.stack.udp_bind(0).await.unwrap();
        // Ten questions for neighbours that do not exist.
        for last in 100..110 {
            socket
                .send_to(b"?", (core::net::Ipv4Addr::new(192, 0, 2, last), 9).into())
                .await
                .unwrap();
        }
        tokio::time::sleep(ms(1)).await;
        let arrived = port.from_network().frames_arrived;
        assert!(arrived >= 10, "{arrived}");
        assert_eq!(port.lost_ring(), arrived - 4);
        drop(nic);
    });
}

#[test]
fn a_flipped_bit_is_told_in_the_receivers_capture() {
    World::run(1, |world| async move {
        let left = world.host("left").start();
        let right = world.host("right").start();
        let seen = right.port.record();
        let (sender, _receiver) =
            (left.stack.udp_bind(9).await.unwrap(), right.stack.udp_bind(9).await.unwrap());
        sender.send_to(b"whole", (right.address, 9).into()).await.unwrap();
        tokio::time::sleep(ms(5)).await;
        let impairments = Impairments { corruption: 1.0, ..Impairments::default() };
        let from_network = Link { from_network: impairments, ..right.port.link() };
        right.port.set_link(from_network);
        for _ in 0..3 {
            sender.send_to(b"flipped", (right.address, 9).into()).await.unwrap();
            tokio::time::sleep(ms(5)).await;
        }
        let bytes = seen.bytes();
        let mut reader = Reader::new(&bytes).unwrap();
        let mut told = 0;
        while let Some(frame) = reader.next_frame().unwrap() {
            let is_told = frame.comment == "a bit of it was flipped on the way";
            assert!(is_told || frame.comment.is_empty(), "{}", frame.comment);
            assert!(!is_told || frame.direction == Some(Direction::Inbound));
            told += u64::from(is_told);
        }
        assert_eq!((told, right.port.from_network().corrupted), (3, 3));
    });
}

#[test]
fn a_capture_says_what_the_link_did() {
    World::run(1, |world| async move {
        let lossy = Impairments { loss: 0.2, latency: ms(1), ..Default::default() };
        let left = world.host("left").start();
        let right = world.host("right").start();
        let seen = left.port.record();
        let sockets =
            [left.stack.udp_bind(9).await.unwrap(), right.stack.udp_bind(9).await.unwrap()];
        for _ in 0..200 {
            sockets[0].send_to(b"to", (right.address, 9).into()).await.unwrap();
            sockets[1].send_to(b"fro", (left.address, 9).into()).await.unwrap();
            tokio::time::sleep(ms(5)).await;
            // From now on: the neighbours know each other.
            left.port.set_link(Link::symmetric(lossy.clone()));
        }
        let bytes = seen.bytes();
        let mut reader = Reader::new(&bytes).unwrap();
        let (mut lost_here, mut lost_before, mut frames) = (0, 0, [0, 0]);
        while let Some(frame) = reader.next_frame().unwrap() {
            match frame.direction.unwrap() {
                Direction::Outbound => {
                    frames[0] += 1;
                    lost_here += u64::from(frame.comment == "lost by chance");
                }
                Direction::Inbound => {
                    frames[1] += 1;
                    lost_before += frame.dropped_before;
                    let says = frame.comment.contains("lost by chance");
                    assert_eq!(frame.dropped_before > 0, says, "{}", frame.comment);
                }
            }
        }
        assert_eq!(reader.interfaces()[0].name, "left");
        let (to, from) = (left.port.to_network(), left.port.from_network());
        assert!(to.lost_chance > 20 && from.lost_chance > 20);
        assert_eq!((frames[0], lost_here), (to.frames_sent, to.lost_chance));
        assert_eq!(frames[1], from.frames_arrived);
        assert!(lost_before <= from.lost_chance && lost_before + 5 > from.lost_chance);
    });
}

#[test]
#[should_panic(expected = "the program hangs")]
fn a_program_that_waits_for_what_never_comes_fails() {
    World::run(1, |_| core::future::pending::<()>());
}

#[tokio::test(start_paused = true)]
async fn a_world_in_a_runtime_of_somebody_elses_counts_milliseconds() {
    let world = World::new(1);
    let link = Link::symmetric(Impairments::latency(ms(5)));
    let left = world.host("left").link(link).start();
    let right = world.host("right").start();
    let took = transfer(&world, &left, &right, 10_000).await;
    assert!(took >= ms(25) && took < ms(60), "{took:?}");
    assert_eq!(took.subsec_nanos() % 1_000_000, 0);
}
