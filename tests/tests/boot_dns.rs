//! `examples/dns`, asked by `dig`: as a process on a TAP interface, as a machine behind QEMU's user
//! network and on TAP, and as a guest of Xen.

use fata_testbed::{Guest, Options, Protocol, Testbed, Vif};
use fata_tests::{Machine, Network, build, fata, free_port, output};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

/// Longer than a host and a guest take on a computer that is busy.
const PATIENCE: Duration = Duration::from_secs(180);

const GUEST: &str = "192.0.2.2";

/// Asks a server everything that its example zone can be asked. `dig` runs it with some arguments.
fn ask_everything(dig: &dyn Fn(&[&str]) -> String) {
    let short = |arguments: &[&str]| {
        let text = dig(&[&["+short"], arguments].concat());
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        lines.sort();
        lines
    };
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(short(&[transport, "www.example.test", "A"]), ["192.0.2.80"]);
        assert_eq!(short(&[transport, "WWW.EXAMPLE.TEST", "AAAA"]), ["2001:db8::80"]);
        let chain = short(&[transport, "web.example.test", "A"]);
        assert_eq!(chain, ["192.0.2.80", "www.example.test."]);
        assert_eq!(short(&[transport, "any.pages.example.test", "A"]), ["192.0.2.81"]);
        assert_eq!(short(&[transport, "example.test", "MX"]), ["10 mail.example.test."]);
    }
    let says = |arguments: &[&str], expected: &[&str]| {
        let text = dig(arguments);
        for words in expected {
            assert!(text.contains(words), "dig {arguments:?}: no `{words}` in\n{text}");
        }
    };
    let authority = "example.test.\t\t300\tIN\tSOA";
    says(&["www.example.test", "A"], &["status: NOERROR", "flags: qr aa rd", "udp: 1232"]);
    says(&["nobody.example.test", "A"], &["status: NXDOMAIN", "flags: qr aa", authority]);
    says(&["www.example.test", "TXT"], &["status: NOERROR", "ANSWER: 0", authority]);
    says(
        &["x.child.example.test", "A"],
        &["status: NOERROR", "flags: qr rd", "ns.child.example.test.\t3600\tIN\tA\t203.0.113.53"],
    );
    says(&["+notcp", "www.example.test", "ANY"], &["HINFO\t\"RFC8482\" \"\""]);
    says(&["www.example.com", "A"], &["status: REFUSED"]);
    says(&["example.test", "AXFR"], &["Transfer failed"]);
    says(&["-c", "CH", "version.bind", "TXT"], &["status: REFUSED"]);
    says(&["+opcode=notify", "example.test", "SOA"], &["status: NOTIMP"]);
    says(&["+edns=1", "+noednsnegotiation", "example.test", "SOA"], &["status: BADVERS"]);
    // More than 512 bytes: whole with EDNS, cut off without, and then whole over TCP.
    assert_eq!(short(&["long.example.test", "TXT"]).len(), 6);
    says(&["+noedns", "+ignore", "long.example.test", "TXT"], &["flags: qr aa tc rd", "ANSWER: 0"]);
    says(&["+noedns", "long.example.test", "TXT"], &["retrying in TCP mode", "ANSWER: 6"]);
    // Several questions over one connection.
    let text = dig(&["+tcp", "+keepopen", "+short", "ns1.example.test", "ns2.example.test"]);
    assert!(text.contains("192.0.2.53\n") && text.contains("198.51.100.53\n"), "{text}");
}

/// dig, at a port of this computer.
fn dig_published(port: u16) -> impl Fn(&[&str]) -> String {
    move |arguments| {
        let port = port.to_string();
        let server = ["@127.0.0.1", "-p", &port, "+timeout=10", "+tries=3"];
        output("dig", &[&server, arguments].concat())
    }
}

/// Words for `fata run` that publish both transports.
fn published(port: u16) -> [String; 4] {
    ["--publish".into(), format!("{port}:53"), "--publish".into(), format!("udp:{port}:53")]
}

#[test]
fn dig_gets_every_kind_of_answer_from_a_process_and_a_machine_on_tap() {
    let Some(network) = Network::new("dns", Some("192.0.2.1/24")) else {
        eprintln!("skipped: no network namespace with a TAP can be made here (not root?)");
        return;
    };
    for target in ["unix", "virtio"] {
        let image = build("examples/dns", target);
        let mut command = network.command(fata().get_program().to_str().expect("UTF-8"));
        command.args(["run", "-t", target, "--net", "tap=tap0"]).arg(&image);
        command.arg("--").arg(format!("--service.address={GUEST}/24"));
        let mut running = Machine::spawn(command);
        running.wait_for("listening on port 53");
        ask_everything(&|arguments| {
            let server = format!("@{GUEST}");
            let how = [server.as_str(), "+timeout=10", "+tries=3"];
            network.output("dig", &[&how, arguments].concat())
        });
    }
}

/// The address of `source`'s prefix from which another host answers a ping to all nodes of the link,
/// once it has one.
fn who_answers_all_nodes(network: &Network, source: &str) -> String {
    let words = ["-6", "-n", "-c", "4", "-i", "0.25", "-W", "2", "-I", source, "ff02::1%tap0"];
    let prefix = source.split_once("::").expect("an address that is short").0;
    let is_other = |address: &String| address != source && address.starts_with(prefix);
    let mut text = String::new();
    for _ in 0..30 {
        // Linux answers itself, so that this ends at once; the others' answers are duplicates to it.
        let output = network.command("ping").args(words).output().expect("ping runs");
        text = String::from_utf8_lossy(&output.stdout).into_owned();
        let from =
            |line: &str| Some(line.split_once(" from ")?.1.split_once(": icmp_seq")?.0.to_owned());
        if let Some(address) = text.lines().filter_map(from).find(is_other) {
            return address;
        }
    }
    panic!("nobody else answers: {text}");
}

#[test]
fn dig_gets_every_kind_of_answer_over_ipv6_at_an_address_given_and_one_advertised() {
    let Some(network) = Network::new("dns6", None) else {
        eprintln!("skipped: no network namespace with a TAP can be made here (not root?)");
        return;
    };
    for address in ["2001:db8:5::1/64", "2001:db8:6::1/64", "fe80::1/64"] {
        assert!(network.ip(&["-6", "addr", "add", address, "dev", "tap0", "nodad"]), "{address}");
    }
    let ask = |server: &str| {
        ask_everything(&|arguments| {
            let server = format!("@{server}");
            let how = ["-6", server.as_str(), "+timeout=10", "+tries=3"];
            network.output("dig", &[&how, arguments].concat())
        });
    };
    let image = build("examples/dns", "unix");
    let run = |setting: &str| {
        let mut command = network.command(fata().get_program().to_str().expect("UTF-8"));
        command.args(["run", "-t", "unix", "--net", "tap=tap0"]).arg(&image);
        command.arg("--").arg(setting);
        let mut running = Machine::spawn(command);
        running.wait_for("listening on port 53");
        running
    };
    let running = run("--service.address=2001:db8:5::2/64");
    ask("2001:db8:5::2");
    drop(running);

    let _running = run("--service.address=none");
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("radvd.conf");
    let text = "interface tap0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;
        prefix 2001:db8:6::/64 { }; };";
    std::fs::write(&config, text).expect("a file");
    let forward = "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    network.output("sh", &["-c", forward]);
    let mut radvd = network.command("radvd");
    radvd.args(["--nodaemon", "--logmethod", "stderr", "--config"]).arg(&config);
    radvd.arg("--pidfile").arg(folder.path().join("radvd.pid"));
    let _radvd = Machine::spawn(radvd);
    ask(&who_answers_all_nodes(&network, "2001:db8:6::1"));
}

#[test]
fn dig_gets_every_kind_of_answer_from_xen() {
    let mut guest = Guest::new("dns", build("examples/dns", "xen"));
    guest.command_line = "--service.address=10.0.2.60/24".to_owned();
    guest.native_tsc = true;
    guest.vifs.push(Vif::bridge(fata_testbed::BRIDGE));
    let host = Testbed::start(&Options::default(), &mut |step| println!("{step}"));
    let host = host.expect("the host boots");
    let domain = host.create(&guest).expect("it is created");
    domain.wait_for("listening on port 53", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let [here, there] = [(Ipv4Addr::LOCALHOST, free_port()), (Ipv4Addr::new(10, 0, 2, 60), 53)]
        .map(|(address, port)| SocketAddrV4::new(address, port));
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        host.publish(protocol, here, there).expect("the port is free").keep();
    }
    ask_everything(&dig_published(here.port()));
}

#[test]
fn questions_on_one_connection_are_answered_in_order_and_a_zone_comes_from_a_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("zone");
    let mut text = b"$ORIGIN disk.test.\n$TTL 60\n@ IN SOA ns a 1 2 3 4 5\n@ IN NS ns\n".to_vec();
    for index in 0..10 {
        text.extend(format!("host{index} IN A 192.0.2.{index}\n").bytes());
    }
    text.resize(64 * 1024, 0);
    std::fs::write(&disk, text).expect("a disk");
    let port = free_port();
    let block = format!("zone={}", disk.display());
    let mut command = fata();
    command.args(["run", "-t", "virtio", "--block", &block]).args(published(port));
    let mut running = Machine::spawn({
        command.arg(build("examples/dns", "virtio"));
        command
    });
    running.wait_for("the zone disk.test. has 12 records");
    running.wait_for("listening on port 53");
    let dig = dig_published(port);
    assert_eq!(dig(&["+short", "host7.disk.test"]), "192.0.2.7\n");

    // All questions are sent before an answer is read, and one byte at a time arrives too.
    let question = |index: u8| {
        let mut message = vec![0, index, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 5];
        message.extend(format!("host{index}").bytes());
        message.extend(*b"\x04disk\x04test\0\0\x01\0\x01");
        [&(message.len() as u16).to_be_bytes()[..], &message].concat()
    };
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
    stream.set_nodelay(true).expect("a socket option");
    let all: Vec<u8> = (0..9).flat_map(question).collect();
    stream.write_all(&all).expect("sends");
    for byte in question(9) {
        stream.write_all(&[byte]).expect("sends");
    }
    for index in 0..10 {
        let mut len = [0; 2];
        stream.read_exact(&mut len).expect("a length");
        let mut message = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut message).expect("a message");
        assert_eq!(message[1], index, "in order");
        assert!(message.windows(4).any(|bytes| bytes == [192, 0, 2, index]), "{message:?}");
    }
    // A message longer than any question ends the connection, and no other.
    stream.write_all(&[0xff, 0xff]).expect("sends");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    assert_eq!(dig(&["+tcp", "+short", "host8.disk.test"]), "192.0.2.8\n");
}
