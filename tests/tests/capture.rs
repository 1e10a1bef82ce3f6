//! `fata run --pcap`: what a program and Linux said to each other is in the file, also after Ctrl-C.
//!
//! Needs root and /dev/net/tun; without them it says so and passes.

use fata_pcap::Reader;
use fata_tests::{Machine, Network, build, fata, output};
use std::process::Command;

#[test]
fn a_capture_of_every_target_can_be_read_after_ctrl_c() {
    let Some(network) = Network::new("capture", Some("192.0.2.1/24")) else {
        eprintln!("skipped: no network namespace with a TAP can be made here (not root?)");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    for target in ["unix", "virtio"] {
        let image = build("examples/http", target);
        let capture = folder.path().join(format!("{target}.pcap"));
        let mut command = network.command(fata().get_program().to_str().expect("UTF-8"));
        command.args(["run", "-t", target, "--net", "tap=tap0", "--pcap"]).arg(&capture);
        command.arg(&image).args(["--", "--service.address=192.0.2.2/24"]);
        let mut running = Machine::spawn(command);
        running.wait_for("listening on port 80");
        let page =
            network.output("curl", &["-sS", "--retry", "5", "http://192.0.2.2/bytes?n=200000"]);
        assert!(page.len() > 1000);
        output("kill", &["-INT", &running.id().to_string()]);
        let _ = running.wait();

        let bytes = std::fs::read(&capture).expect("the capture is there");
        let mut reader = Reader::new(&bytes).unwrap_or_else(|error| panic!("{target}: {error}"));
        let (mut questions, mut carried) = (0, 0);
        while let Some(frame) = reader.next_frame().unwrap_or_else(|e| panic!("{target}: {e}")) {
            questions += usize::from(frame.bytes.windows(12).any(|word| word == b"GET /bytes?n"));
            carried += frame.bytes.len();
            assert!(frame.bytes.len() <= 1514, "{target}: as they are on the wire");
            assert_eq!(frame.bytes.len(), frame.original_len as usize);
        }
        assert_eq!(questions, 1, "{target}");
        assert!(carried > 200_000, "{target}: {carried}");
        if Command::new("tshark").arg("--version").output().is_ok() {
            let file = capture.to_str().expect("UTF-8");
            let sum = "tcp.check_checksum:TRUE";
            let wrong = ["-n", "-o", sum, "-r", file, "-Y", "_ws.malformed"];
            assert_eq!(output("tshark", &wrong), "", "{target}");
            // Linux leaves the sums of its own frames to the TAP interface; ours are right.
            let ours = "ip.src == 192.0.2.2 && tcp.checksum.status == 0";
            let wrong = ["-n", "-o", sum, "-r", file, "-Y", ours];
            assert_eq!(output("tshark", &wrong), "", "{target}");
        }
    }
}
