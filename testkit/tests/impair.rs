//! `impair` between two Linuxes, and between Linux and Fata.
//!
//! Each test runs itself again in a network namespace of its own, where the left interface stays; the
//! right one moves into the namespace of a process that does nothing, or under a bridge that leads to
//! our stack. Both namespaces go with their processes. Needs root and /dev/net/tun; without them each
//! test says so and passes.

use fata_net::{AddressConfig, Config, Ipv6Config, Stack};
use fata_pcap::{Direction, Reader};
use fata_unix::Tap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Says to the second run of a test that it is the second.
const INSIDE: &str = "FATA_TEST_INSIDE_NAMESPACE";

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("{program} does not run: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {}: {words}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A process that is killed with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `test` in a namespace of its own. `name` is the test's.
fn in_namespace(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let may = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) || !Path::new("/dev/net/tun").exists() {
        let why = "SKIPPED: needs root (for a network namespace) and /dev/net/tun";
        std::io::stderr().write_all(format!("{name}: {why}\n").as_bytes()).unwrap();
        return;
    }
    let status = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed inside its namespace: {status}");
}

/// `impair` between the interfaces `left` and `right`.
struct Relay {
    impair: Killed,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Relay {
    fn start(options: &str) -> Relay {
        for side in ["left", "right"] {
            run("ip", &format!("tuntap add dev {side} mode tap"));
        }
        let mut impair = Command::new(env!("CARGO_BIN_EXE_impair"))
            .args("--left.tap left --right.tap right".split(' '))
            .args(options.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(impair.stdout.take().unwrap());
        let impair = Killed(impair);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Relay { impair, stdout }
    }

    /// Ends it, as Ctrl-C does: what it printed.
    fn interrupt(mut self) -> String {
        run("kill", &format!("-INT {}", self.impair.0.id()));
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        assert!(self.impair.0.wait().unwrap().success());
        text
    }
}

/// Two namespaces, 192.0.2.1 and 192.0.2.2, with `impair` between them.
struct Between {
    relay: Relay,
    _right: Killed,
}

impl Between {
    fn start(options: &str) -> Between {
        let relay = Relay::start(options);
        let right = Killed(
            Command::new("unshare").args(["--net", "sleep", "600"]).spawn().expect("unshare runs"),
        );
        let process = right.0.id();
        // Until unshare has unshared.
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = format!("/proc/{process}/ns/net");
        while std::fs::read_link(&theirs).unwrap() == ours {
            std::thread::yield_now();
        }
        run("ip", &format!("link set right netns {process}"));
        run("ip", "address add 192.0.2.1/24 dev left");
        run("ip", "link set left up");
        run("nsenter", &format!("-n -t {process} ip address add 192.0.2.2/24 dev right"));
        run("nsenter", &format!("-n -t {process} ip link set right up"));
        Between { relay, _right: right }
    }

    fn interrupt(self) -> String {
        self.relay.interrupt()
    }
}

/// A counter of the JSON that `impair` prints.
fn counter(json: &str, direction: &str, name: &str) -> u64 {
    let (_, of_direction) = json.split_once(&format!("\"{direction}\":{{")).expect(json);
    let (of_direction, _) = of_direction.split_once('}').expect(json);
    let (_, value) = of_direction.split_once(&format!("\"{name}\":")).expect(json);
    value.split(',').next().unwrap().parse().expect(json)
}

#[test]
fn a_ping_takes_twice_the_delay() {
    in_namespace("a_ping_takes_twice_the_delay", || {
        let folder = tempfile::tempdir().unwrap();
        let capture = folder.path().join("both.pcapng");
        let options = format!("--delay 25ms --json --pcap {}", capture.display());
        let between = Between::start(&options);
        // The first ones meet links that Linux has not noticed yet.
        let said = run("ping", "-n -c 20 -i 0.05 -W 5 192.0.2.2");
        let times: Vec<f64> = said
            .lines()
            .filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok())
            .collect();
        assert!(times.len() >= 10, "{said}");
        let least = times.iter().copied().fold(f64::MAX, f64::min);
        assert!(times.iter().all(|time| *time >= 50.0), "{said}");
        // A machine that is busy makes it longer, but hardly every time.
        assert!(least < 65.0, "{said}");

        let json = between.interrupt();
        for direction in ["to_right", "to_left"] {
            assert!(counter(&json, direction, "frames_arrived") >= 10, "{json}");
            assert_eq!(counter(&json, direction, "lost_chance"), 0);
        }
        // What went in on the left came out on the right, 25 ms later.
        let bytes = std::fs::read(&capture).unwrap();
        let mut reader = Reader::new(&bytes).unwrap();
        let mut underway = Vec::new();
        let mut carried = 0;
        while let Some(frame) = reader.next_frame().unwrap() {
            match (frame.interface, frame.direction.unwrap()) {
                (0, Direction::Inbound) => underway.push((frame.at_nanos, frame.bytes.to_vec())),
                (1, Direction::Outbound) => {
                    let (at, sent) = underway.remove(0);
                    assert!(sent == frame.bytes && frame.at_nanos >= at + 24_900_000);
                    carried += 1;
                }
                _ => {}
            }
        }
        assert_eq!(carried, counter(&json, "to_right", "frames_arrived"));
    });
}

#[test]
fn one_direction_may_lose_all() {
    in_namespace("one_direction_may_lose_all", || {
        let between = Between::start("--to-left.loss 100% --json --seed 7");
        let ping = "-n -c 3 -i 0.05 -W 1 192.0.2.2".split(' ');
        let output = Command::new("ping").args(ping).output().unwrap();
        assert!(!output.status.success(), "no answer comes");
        let json = between.interrupt();
        assert!(counter(&json, "to_right", "frames_arrived") > 0, "{json}");
        assert_eq!(counter(&json, "to_left", "frames_arrived"), 0);
        assert!(counter(&json, "to_left", "lost_chance") > 0);
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_impair"))
        .args("--left.tap fata-none-1 --right.tap fata-none-2".split(' '))
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.contains("fata-none-1"), "{words}");
}

const LINUX: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
const FATA: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 0, 2, 2), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));
/// What each end sends to the other.
const BYTES: usize = 10 << 20;

/// Linux with [`LINUX`] on the left, and our stack with [`FATA`] behind a bridge on the right.
fn fata_on_the_right() -> Stack {
    let set = |name: &str, value: &str| {
        std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
    };
    run("ip", "link set lo up");
    run("ip", "link add bridge type bridge");
    // Linux would answer for its addresses there as well: past `impair`.
    set("ipv4/conf/bridge/arp_ignore", "8");
    run("ip", "tuntap add dev tap mode tap");
    for name in ["bridge", "right", "tap"] {
        set(&format!("ipv6/conf/{name}/disable_ipv6"), "1");
    }
    for name in ["right", "tap"] {
        run("ip", &format!("link set {name} master bridge"));
    }
    run("ip", &format!("address add {}/24 dev left", LINUX[0]));
    run("ip", &format!("address add {}/64 dev left nodad", LINUX[1]));
    for name in ["right", "tap", "bridge", "left"] {
        run("ip", &format!("link set {name} up"));
    }
    let (address, address6) = FATA;
    let ipv6 = Ipv6Config {
        addresses: vec![(address6, 64)],
        is_autoconfigured: false,
        ..Ipv6Config::default()
    };
    let address = AddressConfig::Static { address, prefix_len: 24, gateway: None, dns: vec![] };
    let config = Config { address, ipv6, ..Config::new([7; 32]) };
    let (stack, driver) = Stack::over_nic(Box::new(Tap::open("tap").unwrap()), config).unwrap();
    tokio::spawn(driver);
    stack
}

/// Bytes of one end; none is where its neighbour could be.
fn bytes(end: usize) -> Vec<u8> {
    (0..BYTES).map(|at| (at * 31 + end * 7 + (at >> 8) * 11 + (at >> 16)) as u8).collect()
}

/// Sends all of `out` while it receives; whether what came is `expected`.
async fn exchange(stream: impl AsyncRead + AsyncWrite, out: &[u8], expected: &[u8]) -> bool {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut received = Vec::with_capacity(expected.len());
    let send = async {
        writer.write_all(out).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let receive = async { reader.read_to_end(&mut received).await.unwrap() };
    tokio::join!(send, receive);
    received == expected
}

#[test]
fn every_byte_arrives_between_fata_and_linux_over_a_bad_link() {
    in_namespace("every_byte_arrives_between_fata_and_linux_over_a_bad_link", || {
        let relay = Relay::start(
            "--loss 1% --reorder 5%/2ms --duplicate 1% --corrupt 0.5% --seed 1 --json",
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let transfers = async {
            let stack = fata_on_the_right();
            let (ours, theirs) = (bytes(1), bytes(2));
            for remote in LINUX.map(|address| SocketAddr::new(address, 80)) {
                // Fata calls.
                let listener = TcpListener::bind(remote).await.unwrap();
                let (fata, linux) = tokio::join!(stack.tcp_connect(remote), listener.accept());
                let (fata, linux) = (fata.unwrap(), linux.unwrap().0);
                let (fata_has, linux_has) =
                    tokio::join!(exchange(fata, &ours, &theirs), exchange(linux, &theirs, &ours));
                assert!(fata_has && linux_has, "{remote}: {fata_has} {linux_has}");
            }
            // Linux calls.
            let listener = stack.tcp_listen(80).await.unwrap();
            let fata = SocketAddr::from((FATA.0, 80));
            let (fata, linux) = tokio::join!(listener.accept(), TcpStream::connect(fata));
            let (fata, linux) = (fata.unwrap().0, linux.unwrap());
            let (fata_has, linux_has) =
                tokio::join!(exchange(fata, &ours, &theirs), exchange(linux, &theirs, &ours));
            assert!(fata_has && linux_has, "Linux called: {fata_has} {linux_has}");
            let counters = stack.counters();
            assert!(counters.dropped_tcp_checksum > 0, "bits were flipped: {counters:?}");
            assert!(counters.tcp_fast_retransmits > 0 && counters.tcp_out_of_order > 0);
        };
        let patience = Duration::from_secs(120);
        let transfers = async { tokio::time::timeout(patience, transfers).await };
        runtime.block_on(transfers).expect("every byte arrives in time");
        // It all went that way.
        let json = relay.interrupt();
        for direction in ["to_right", "to_left"] {
            assert!(counter(&json, direction, "bytes_arrived") > 3 * BYTES as u64, "{json}");
            for kind in ["lost_chance", "reordered", "duplicated", "corrupted"] {
                assert!(counter(&json, direction, kind) > 10, "{kind}: {json}");
            }
        }
    });
}
