//! Captures of the world as Wireshark sees them. Without tshark the test says so and passes.

use fata_pcap::Reader;
use fata_testkit::net::{Impairments, Link, NicOptions, World};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What tshark prints of a capture, with every checksum verified.
fn tshark(capture: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(capture).args(arguments);
    for sum in ["ip.check_checksum", "tcp.check_checksum", "udp.check_checksum"] {
        command.args(["-o", &format!("{sum}:TRUE")]);
    }
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark fails: {words}");
    String::from_utf8(output.stdout).unwrap()
}

/// A transfer over a link that loses, and a fragmentless datagram: the captures of both ports.
fn captures(options: NicOptions) -> [Vec<u8>; 2] {
    World::run(2, |world| async move {
        let link = Link::symmetric(Impairments {
            latency: Duration::from_millis(10),
            rate_bits_per_second: Some(50_000_000),
            loss: 0.01,
            ..Impairments::default()
        });
        let left = world.host("left").nic(options.clone()).link(link).start();
        let right = world.host("right").nic(options).start();
        let recordings = [left.port.record(), right.port.record()];
        let listener = right.stack.tcp_listen(80).await.unwrap();
        let bytes = vec![7; 500_000];
        let send = async {
            let mut stream = left.stack.tcp_connect((right.address, 80)).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        };
        let receive = async {
            let mut received = Vec::new();
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_to_end(&mut received).await.unwrap();
            assert!(received == bytes);
        };
        tokio::join!(send, receive);
        let socket = left.stack.udp_bind(9).await.unwrap();
        socket.send_to(&[1; 999], (right.address, 9).into()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(left.port.to_network().lost_chance > 0);
        recordings.map(|recording| recording.bytes())
    })
}

#[test]
fn wireshark_finds_nothing_wrong_in_a_capture() {
    if Command::new("tshark").arg("--version").output().is_err() {
        let note = "wireshark_finds_nothing_wrong_in_a_capture: SKIPPED: tshark is not installed\n";
        std::io::stderr().write_all(note.as_bytes()).unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for options in [NicOptions::default(), NicOptions::everything()] {
        for (index, bytes) in captures(options).iter().enumerate() {
            let capture = directory.path().join("capture.pcapng");
            std::fs::write(&capture, bytes).unwrap();
            let mut reader = Reader::new(bytes).unwrap();
            let mut frames = 0;
            while reader.next_frame().unwrap().is_some() {
                frames += 1;
            }
            // Status 0 is bad; the severity is that of an error, which Wireshark shows in red.
            let wrong = "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || \
                         udp.checksum.status == 0 || _ws.expert.severity == 8388608";
            assert_eq!(tshark(&capture, &["-Y", wrong]), "");
            let all = tshark(&capture, &["-T", "fields", "-e", "frame.time_epoch"]);
            assert_eq!(all.lines().count(), frames);
            let good = tshark(&capture, &["-Y", "tcp.checksum.status == 1"]);
            assert!(good.lines().count() > 300, "the sums were looked at");
            let times: Vec<f64> = all.lines().map(|time| time.parse().unwrap()).collect();
            assert!(times.is_sorted(), "{times:?}");
            let lost = tshark(&capture, &["-Y", "frame.comment contains \"lost by chance\""]);
            assert_eq!(lost.is_empty(), index == 1, "only the left link loses");
        }
    }
}
