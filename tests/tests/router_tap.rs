//! `examples/router` and `examples/forward` between Linux hosts, each in a network namespace of its
//! own: as a process on TAP interfaces, and as a machine whose cards cut and take large frames.
//!
//! Needs root and /dev/net/tun; without them it says so and passes.

use fata_tests::{Machine, build, fata};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Network namespaces, which go with this value.
struct Namespaces(Vec<String>);

impl Namespaces {
    /// So many; in the first, as many TAP interfaces `tap0`, `tap1` … `None` where they cannot be
    /// made.
    fn new(test: &str, count: usize) -> Option<Self> {
        let name = |at| format!("fata-{test}-{}-{at}", std::process::id());
        let namespaces = Namespaces((0..count).map(name).collect());
        let made = namespaces.0.iter().all(|name| {
            ip(&["netns", "add", name]) && ip(&["-n", name, "link", "set", "lo", "up"])
        });
        let with_taps = made
            && (0..count).all(|at| {
                namespaces.ip(0, &["tuntap", "add", "dev", &format!("tap{at}"), "mode", "tap"])
            });
        with_taps.then_some(namespaces)
    }

    fn ip(&self, at: usize, arguments: &[&str]) -> bool {
        ip(&[&["-n", &self.0[at]], arguments].concat())
    }

    /// Moves the interface `tap{at}` to its host, and gives it an address and a default route.
    fn host(&self, at: usize, address: &str, gateway: Option<&str>) {
        let tap = format!("tap{at}");
        assert!(at == 0 || self.ip(0, &["link", "set", &tap, "netns", &self.0[at]]));
        assert!(self.ip(at, &["addr", "add", address, "dev", &tap]));
        assert!(self.ip(at, &["link", "set", &tap, "up"]));
        if let Some(gateway) = gateway {
            assert!(self.ip(at, &["route", "add", "default", "via", gateway]));
        }
    }

    /// `program`, to be run in a namespace.
    fn command(&self, at: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0[at], program]).stdin(Stdio::null());
        command
    }

    /// Runs `fata run` in a namespace.
    fn run(&self, at: usize, arguments: &[&str]) -> Machine {
        let mut command = self.command(at, fata().get_program().to_str().expect("UTF-8"));
        command.arg("run").args(arguments);
        Machine::spawn(command)
    }

    /// What a shell's line prints in a namespace.
    #[track_caller]
    fn output(&self, at: usize, line: &str) -> String {
        let output = self.command(at, "sh").args(["-c", line]).output().expect("ip runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {text}{errors}");
        text
    }

    /// Moves `len` bytes each way between a client and the HTTP server at `address`, and compares
    /// their hashes.
    fn transfer(&self, client: usize, address: &str, len: usize) {
        let down = format!("curl -sS --max-time 100 'http://{address}/bytes?n={len}' | sha256sum");
        let direct =
            format!("curl -sS --max-time 100 'http://127.0.0.1/bytes?n={len}' | sha256sum");
        assert_eq!(self.output(client, &down), self.output(0, &direct));
        let sum = self.output(0, &format!("head -c {len} /dev/zero | sha256sum"));
        let up = format!(
            "head -c {len} /dev/zero \
             | curl -sS --max-time 100 -T - -X POST 'http://{address}/sink?sha256=1'"
        );
        let answer = self.output(client, &up);
        let sum = sum.split_whitespace().next().expect("a hash");
        assert!(answer.contains(sum), "{answer}");
    }

    /// An HTTP server on the first host.
    fn serve(&self) -> Machine {
        let image = build("examples/http", "unix");
        let image = image.to_str().expect("UTF-8");
        let mut server = self.run(0, &[image, "--", "--service.address=0.0.0.0"]);
        server.wait_for("listening on port 80");
        server
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            ip(&["netns", "del", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> bool {
    let output = Command::new("ip").args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

fn image(example: &str, target: &str) -> PathBuf {
    build(&format!("examples/{example}"), target)
}

const SKIPPED: &str = "skipped: no network namespace with a TAP can be made here (not root?)";

#[test]
fn clients_reach_the_network_and_each_other_through_the_router() {
    for target in ["unix", "virtio"] {
        let image = image("router", target);
        let image = image.to_str().expect("UTF-8");
        let Some(hosts) = Namespaces::new(&format!("router-{target}"), 3) else {
            eprintln!("{SKIPPED}");
            return;
        };
        let mut router = hosts.run(
            0,
            &match target {
                "unix" => vec![
                    image,
                    "--",
                    "--uplink.tap=tap0",
                    "--clients.taps=tap1,tap2",
                    "--address=192.0.2.2/24",
                ],
                _ => vec![
                    "-t",
                    "virtio",
                    "--net",
                    "uplink:tap=tap0",
                    "--net",
                    "clients:tap=tap1",
                    "--net",
                    "clients:tap=tap2",
                    image,
                    "--",
                    "--address=192.0.2.2/24",
                ],
            },
        );
        router.wait_for("10.77.1.1/24");
        router.wait_for("10.77.2.1/24");
        hosts.host(0, "192.0.2.1/24", None);
        assert!(hosts.ip(0, &["route", "add", "10.77.0.0/16", "via", "192.0.2.2"]));
        hosts.host(1, "10.77.1.2/24", Some("10.77.1.1"));
        hosts.host(2, "10.77.2.2/24", Some("10.77.2.1"));
        let _server = hosts.serve();

        for (from, to) in [(1, "192.0.2.1"), (1, "10.77.2.2"), (2, "10.77.1.2"), (0, "10.77.2.2")] {
            let ping = hosts.output(from, &format!("ping -c 3 -i 0.2 -W 5 {to}"));
            assert!(ping.contains("3 received"), "{target}: {ping}");
        }
        // The router answers for itself, and for what it cannot do.
        let ping = hosts.output(1, "ping -c 1 -W 5 10.77.1.1");
        assert!(ping.contains("1 received"), "{target}: {ping}");
        let ping = hosts.output(1, "ping -c 1 -W 5 -t 1 10.77.2.2 || true");
        assert!(ping.contains("Time to live exceeded"), "{target}: {ping}");
        let ping = hosts.output(1, "ping -c 1 -W 5 198.51.100.1 || true");
        assert!(ping.contains("Net Unreachable"), "{target}: {ping}");
        for client in [1, 2] {
            hosts.transfer(client, "192.0.2.1", 20 << 20);
        }
    }
}

#[test]
fn a_forwarder_is_a_cable() {
    for target in ["unix", "virtio"] {
        let image = image("forward", target);
        let image = image.to_str().expect("UTF-8");
        let Some(hosts) = Namespaces::new(&format!("forward-{target}"), 2) else {
            eprintln!("{SKIPPED}");
            return;
        };
        let mut forwarder = hosts.run(
            0,
            &match target {
                "unix" => {
                    vec![image, "--", "--left.tap=tap0", "--right.tap=tap1", "--interval=1"]
                }
                _ => vec![
                    "-t",
                    "virtio",
                    "--net",
                    "left:tap=tap0",
                    "--net",
                    "right:tap=tap1",
                    image,
                    "--",
                    "--interval=1",
                ],
            },
        );
        forwarder.wait_for("forwarding between");
        hosts.host(0, "192.0.2.1/24", None);
        hosts.host(1, "192.0.2.2/24", None);
        let _server = hosts.serve();
        let ping = hosts.output(1, "ping -c 3 -i 0.2 -W 5 192.0.2.1");
        assert!(ping.contains("3 received"), "{target}: {ping}");
        hosts.transfer(1, "192.0.2.1", 20 << 20);
        let rates = forwarder.wait_for("frames/s");
        assert!(rates.contains("0 dropped"), "{target}: {rates}");
    }
}
