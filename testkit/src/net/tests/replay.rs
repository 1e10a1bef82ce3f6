//! Captures that are played into stacks.

use super::super::replay::*;
use super::super::*;
use core::time::Duration;
use fata_device::{MacAddress, Nic, Transmit};
use fata_net::{AddressConfig, Config, Ipv6Config, Stack};
use fata_pcap::{Note, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: u16 = 7;

/// Answers one connection with what it sends.
async fn echo(stack: Stack) {
    let listener = stack.tcp_listen(PORT).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    stream.write_all(&received).await.unwrap();
    stream.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
}

/// What a server saw, its address and its card's.
struct Captured {
    bytes: Vec<u8>,
    address: core::net::Ipv4Addr,
    secret: [u8; 32],
}

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// When IPv6 looks for routers is left to chance, beside which no conversation repeats bit by bit.
fn ipv4_only(config: Config) -> Config {
    Config { ipv6: Ipv6Config::off(), ..config }
}

fn capture() -> Captured {
    World::run(1, |world| async move {
        let link = Link::symmetric(Impairments {
            latency: Duration::from_millis(5),
            loss: 0.05,
            ..Impairments::default()
        });
        let mut secret = [0; 32];
        let keep = &mut secret;
        let server = world.host("server").config(|config| {
            *keep = config.secret;
            ipv4_only(config)
        });
        let server = server.start();
        let client = world.host("client").link(link).start();
        let seen = server.port.record();
        tokio::spawn(echo(server.stack.clone()));
        let mut stream = client.stack.tcp_connect((server.address, PORT)).await.unwrap();
        stream.write_all(&[7; 20_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, [7; 20_000]);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(client.port.to_network().lost_chance > 0, "so that there is something to repair");
        Captured { bytes: seen.bytes(), address: server.address, secret }
    })
}

/// Plays a capture into a new server.
fn play(
    captured: &Captured,
    secret: [u8; 32],
    options: ReplayOptions,
) -> Result<(usize, usize), Mismatch> {
    World::run(1, |_| async move {
        let (replay, verdict) = Replay::new(&captured.bytes, MAC, options).unwrap();
        let address = AddressConfig::Static {
            address: captured.address,
            prefix_len: 24,
            gateway: None,
            dns: Vec::new(),
        };
        let (stack, driver) =
            Stack::over_nic(Box::new(replay), ipv4_only(Config { address, ..Config::new(secret) }))
                .unwrap();
        tokio::spawn(driver);
        tokio::spawn(echo(stack));
        verdict.wait().await
    })
}

#[test]
fn a_stack_answers_a_capture_of_itself_bit_by_bit() {
    let captured = capture();
    let (played, answered) = play(&captured, captured.secret, ReplayOptions::default())
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(played > 10 && answered > 10, "{played} {answered}");
}

#[test]
fn another_secret_is_another_sequence_and_the_same_conversation() {
    let captured = capture();
    let options = ReplayOptions { mask: Mask::INDIVIDUAL, ..ReplayOptions::default() };
    play(&captured, [9; 32], options).unwrap_or_else(|error| panic!("{error}"));
    let mismatch = play(&captured, [9; 32], ReplayOptions::default()).unwrap_err();
    assert!(mismatch.expected.is_some() && mismatch.sent.is_some(), "{mismatch}");
}

/// The capture with its frames changed.
fn changed(
    captured: &Captured,
    change: impl Fn(usize, fata_pcap::Direction, &mut Vec<u8>) -> bool,
) -> Captured {
    let mut reader = fata_pcap::Reader::new(&captured.bytes).unwrap();
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, "test");
    let interface = writer.interface(&mut bytes, "server");
    let mut number = 0;
    while let Some(frame) = reader.next_frame().unwrap() {
        number += 1;
        let mut content = frame.bytes.to_vec();
        let direction = frame.direction.unwrap();
        if change(number, direction, &mut content) {
            let note = Note::default();
            writer.frame(&mut bytes, interface, frame.at_nanos, &content, direction, &note);
        }
    }
    Captured { bytes, ..*captured }
}

#[test]
fn another_answer_one_too_many_and_one_that_is_missing_are_named() {
    use fata_pcap::Direction::Outbound;
    let captured = capture();
    let is_data = |frame: &[u8]| frame.len() > 500;
    let played = |captured| play(&captured, captured.secret, ReplayOptions::default());
    let wrong = changed(&captured, |_, direction, frame| {
        if direction == Outbound && is_data(frame) {
            frame[400] ^= 1;
        }
        true
    });
    let mismatch = played(wrong).unwrap_err();
    assert!(mismatch.to_string().contains("differ at byte 400"), "{mismatch}");
    // Without its last answers, the stack sends too much for the capture, but for the end.
    let fewer = changed(&captured, |_, direction, frame| direction != Outbound || !is_data(frame));
    let mismatch = played(fewer).unwrap_err();
    assert!(mismatch.sent.is_some_and(|sent| is_data(&sent)));
    let more = {
        let mut more = changed(&captured, |_, _, _| true);
        let mut writer = Writer::new(&mut more.bytes, "test");
        let interface = writer.interface(&mut more.bytes, "server");
        let note = Note::default();
        writer.frame(&mut more.bytes, interface, 1, &[0xff; 60], Outbound, &note);
        more
    };
    let mismatch = played(more).unwrap_err();
    assert!(mismatch.sent.is_none() && mismatch.to_string().contains("was not sent"), "{mismatch}");
}

#[test]
fn each_pace_plays_a_question_that_needs_no_time() {
    // Three questions for the owner of an address, an hour apart.
    let captured = World::run(1, |world| async move {
        let server =
            world.host("server").config(|config| ipv4_only(Config { secret: [1; 32], ..config }));
        let server = server.start();
        let seen = server.port.record();
        let (mut asker, _) = world.nic("asker", Link::default(), NicOptions::default());
        let from = asker.mac().0;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            let mut question = [&[0xff; 6][..], &from, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
            question.extend([&from[..], &[192, 0, 2, 9], &[0; 6], &[192, 0, 2, 1]].concat());
            core::future::poll_fn(|cx| {
                asker.poll_transmit(cx, &mut |buffer| {
                    buffer[..question.len()].copy_from_slice(&question);
                    Some(Transmit::complete(question.len()))
                })
            })
            .await
            .unwrap();
            asker.flush().unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Captured { bytes: seen.bytes(), address: server.address, secret: [1; 32] }
    });
    for pace in [Pace::Recorded, Pace::Answers] {
        let options = ReplayOptions { pace, ..ReplayOptions::default() };
        let (played, answered) = play(&captured, [1; 32], options).unwrap();
        // The server announced itself, too.
        assert!(played == 3 && answered > 3, "{pace:?}: {played} {answered}");
    }
    // At once, nothing is waited for: not even for what the capture does not have.
    let is_inbound = |direction| direction == fata_pcap::Direction::Inbound;
    let questions = changed(&captured, |_, direction, _| is_inbound(direction));
    let options = ReplayOptions { pace: Pace::AtOnce, ..ReplayOptions::default() };
    assert_eq!(play(&questions, [1; 32], options), Ok((3, 0)));
    let mismatch = play(&questions, [1; 32], ReplayOptions::default()).unwrap_err();
    assert!(mismatch.to_string().contains("that the capture does not have"), "{mismatch}");
}

#[test]
fn what_cannot_be_played_is_named() {
    let refuse = |bytes: &[u8]| {
        World::run(1, |_| async move {
            Replay::new(bytes, MAC, ReplayOptions::default()).map(drop).unwrap_err()
        })
    };
    assert!(matches!(refuse(b"nothing"), ReplayError::Broken(_)));
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, "test");
    let interface = writer.interface(&mut bytes, "x");
    assert_eq!(refuse(&bytes), ReplayError::Empty);
    let inbound = fata_pcap::Direction::Inbound;
    writer.frame(&mut bytes, interface, 1, &[0; 13], inbound, &Note::default());
    assert_eq!(refuse(&bytes), ReplayError::NotEthernet(1));
    // Classic pcap: a snapped frame, and a link that is no Ethernet.
    let pcap = |link: u32, kept: u32| {
        let header =
            [0xa1b2_c3d4, 0, 0, 0, 96, link, 1, 0, kept, 60].map(u32::to_le_bytes).concat();
        [header, vec![0; kept as usize]].concat()
    };
    assert_eq!(refuse(&pcap(1, 20)), ReplayError::Cut(1));
    assert_eq!(refuse(&pcap(113, 60)), ReplayError::NotEthernet(1));
}
