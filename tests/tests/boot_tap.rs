//! A booted image on a TAP interface, in a network namespace of the test's own: no user networking
//! in between, so this is our stack against Linux's.
//!
//! Needs root and /dev/net/tun; without them it says so and passes.

use fata_tests::{Machine, Network, build, fata};
use std::process::{Command, Stdio};

const HOST: &str = "192.0.2.1/24";
const GUEST: &str = "192.0.2.2";

#[test]
fn http_over_tap_under_load_and_a_hundred_mebibytes_each_way() {
    let Some(network) = Network::new("tap", Some(HOST)) else {
        eprintln!("skipped: no network namespace with a TAP can be made here (not root?)");
        return;
    };
    let image = build("examples/http", "virtio");
    for machine in ["microvm", "q35"] {
        let mut command = network.command(fata().get_program().to_str().expect("UTF-8"));
        command.args(["run", "-t", "virtio", "--machine", machine, "--net", "tap=tap0"]);
        command.arg(&image).arg("--").arg(format!("--service.address={GUEST}/24"));
        let mut running = Machine::spawn(command);
        running.wait_for("listening on port 80");
        let address = format!("http://{GUEST}");

        let ping = network.output("ping", &["-c", "3", "-i", "0.2", "-W", "5", GUEST]);
        assert!(ping.contains("3 received"), "{ping}");

        let wrk = network.output("wrk", &["-t1", "-c64", "-d5", &format!("{address}/")]);
        assert!(!wrk.contains("Socket errors") && !wrk.contains("Non-2xx"), "{wrk}");

        // The rest does not depend on the bus; hashing is slow under emulation.
        if machine != "microvm" {
            continue;
        }

        // Down: what the program says that it sent is what arrived, to the last bit.
        let len = 100 << 20;
        let script = format!("curl -sS --max-time 120 '{address}/bytes?n={len}' | sha256sum");
        let received = network.output("sh", &["-c", &script]);
        assert_eq!(received.split_whitespace().next(), Some(pattern_sha256(len).as_str()));

        // Up: the program hashes what it receives.
        let script = format!(
            "head -c {len} /dev/zero | curl -sS --max-time 240 -T - -X POST '{address}/sink?sha256=1'"
        );
        let answer = network.output("sh", &["-c", &script]);
        let zeros = network.output("sh", &["-c", &format!("head -c {len} /dev/zero | sha256sum")]);
        let zeros = zeros.split_whitespace().next().expect("a hash");
        assert!(answer.contains(&format!("\"bytes\":{len}")) && answer.contains(zeros), "{answer}");
    }
}

#[test]
fn http_over_ipv6_at_an_address_given_and_at_the_one_that_every_host_makes() {
    let Some(network) = Network::new("tap6", None) else {
        eprintln!("skipped: no network namespace with a TAP can be made here (not root?)");
        return;
    };
    for address in ["2001:db8:7::1/64", "fe80::1/64"] {
        assert!(network.ip(&["-6", "addr", "add", address, "dev", "tap0", "nodad"]), "{address}");
    }
    let image = build("examples/http", "virtio");
    let mut command = network.command(fata().get_program().to_str().expect("UTF-8"));
    command.args(["run", "-t", "virtio", "--net", "tap=tap0"]).arg(&image);
    command.arg("--").arg("--service.address=2001:db8:7::2/64");
    let mut running = Machine::spawn(command);
    running.wait_for("listening on port 80");

    let len = 10 << 20;
    let fetch = |host: &str| {
        let retry = "--retry 20 --retry-delay 1 --retry-all-errors --max-time 120";
        let script = format!("curl -6 -sS -g {retry} 'http://[{host}]/bytes?n={len}' | sha256sum");
        let received = network.output("sh", &["-c", &script]);
        assert_eq!(
            received.split_whitespace().next(),
            Some(pattern_sha256(len).as_str()),
            "{host}"
        );
    };
    fetch("2001:db8:7::2");
    // As Linux knows it now, its link-local address is among the neighbours.
    let ping =
        ["-6", "-n", "-c", "3", "-i", "0.5", "-W", "5", "-I", "fe80::1%tap0", "ff02::1%tap0"];
    let _ = network.output("ping", &ping);
    let neighbours = network.output("ip", &["-6", "neigh", "show", "dev", "tap0"]);
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let local = neighbours.lines().filter_map(first).find(|host| host.starts_with("fe80:"));
    let local = local.unwrap_or_else(|| panic!("no link-local neighbour: {neighbours}"));
    fetch(&format!("{local}%tap0"));
}

/// The hash of the first `len` bytes of the pattern that `examples/http` documents.
fn pattern_sha256(len: usize) -> String {
    let mut state: u32 = 1;
    let block: Vec<u8> = (0..65_521)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum runs");
    let mut input = child.stdin.take().expect("piped");
    let mut remaining = len;
    while remaining > 0 {
        let piece = remaining.min(block.len());
        std::io::Write::write_all(&mut input, &block[..piece]).expect("sha256sum reads");
        remaining -= piece;
    }
    drop(input);
    let output = child.wait_with_output().expect("sha256sum ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().expect("a hash").to_string()
}
