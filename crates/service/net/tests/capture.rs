//! An interface whose frames are written down.

mod support;

use fata_net::capture::Capturing;
use fata_net::{AddressConfig, Config, Stack};
use fata_pcap::{Direction, Reader};
use fata_testkit::net::{Link, NicOptions, World};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use support::{at, pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

/// A transfer to a stack over a capturing interface: the pieces of the file, and what the world
/// saw at the same place.
fn captured(options: NicOptions) -> (Vec<Vec<u8>>, Vec<u8>) {
    World::run(1, |world| async move {
        let (nic, port) = world.nic("ours", Link::default(), options.clone());
        let seen = port.record();
        let pieces = Arc::new(Mutex::new(Vec::new()));
        let sink = pieces.clone();
        let nic = Capturing::new(nic, "service", move |piece| {
            sink.lock().unwrap().push(piece.to_vec());
        });
        let address =
            AddressConfig::Static { address: OURS, prefix_len: 24, gateway: None, dns: Vec::new() };
        let config = Config { address, ..Config::new([1; 32]) };
        let (stack, driver) = Stack::over_nic(Box::new(nic), config).unwrap();
        tokio::spawn(driver);
        let theirs = world.host("theirs").nic(options).start();
        let listener = stack.tcp_listen(80).await.unwrap();
        let bytes = pattern(300_000);
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            stream.write_all(&received).await.unwrap();
        };
        let call = async {
            let mut stream = theirs.stack.tcp_connect(at(OURS, 80)).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            assert!(received == bytes);
        };
        tokio::join!(serve, call);
        let pieces = pieces.lock().unwrap().clone();
        (pieces, seen.bytes())
    })
}

/// The frames of a capture, as direction and bytes.
fn frames(file: &[u8]) -> Vec<(Option<Direction>, Vec<u8>)> {
    let mut reader = Reader::new(file).unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        frames.push((frame.direction, frame.bytes.to_vec()));
    }
    frames
}

#[test]
fn what_is_written_is_what_passes_the_wire() {
    let (pieces, seen) = captured(NicOptions::default());
    let file = pieces.concat();
    assert_eq!(Reader::new(&file).unwrap().interfaces().len(), 0);
    let (ours, theirs) = (frames(&file), frames(&seen));
    for direction in [Direction::Inbound, Direction::Outbound] {
        let one_way = |frames: &[(Option<Direction>, Vec<u8>)]| -> Vec<Vec<u8>> {
            let those = frames.iter().filter(|(way, _)| *way == Some(direction));
            those.map(|(_, bytes)| bytes.clone()).collect()
        };
        let (ours, theirs) = (one_way(&ours), one_way(&theirs));
        assert!(ours.len() > 200);
        assert!(ours == theirs, "{direction:?}: {} frames, {}", ours.len(), theirs.len());
    }
    // Whatever piece it ends after, the file can be read.
    let mut so_far = Vec::new();
    for piece in &pieces {
        so_far.extend_from_slice(piece);
        frames(&so_far);
    }
}

#[test]
fn large_frames_are_written_whole_with_the_sums_that_they_will_have() {
    let (pieces, _) = captured(NicOptions::everything());
    let frames = frames(&pieces.concat());
    for direction in [Direction::Inbound, Direction::Outbound] {
        let large = frames
            .iter()
            .filter(|(way, frame)| *way == Some(direction) && frame.len() > 1514)
            .count();
        assert!(large > 5, "{direction:?}: {large}");
    }
    for (_, frame) in frames.iter().filter(|(_, frame)| frame[12..14] == [8, 0]) {
        let mut finished = frame.clone();
        fata_tcpip::segment::finish_checksum(&mut finished).unwrap();
        assert!(finished == *frame, "the sum is finished");
    }
}
