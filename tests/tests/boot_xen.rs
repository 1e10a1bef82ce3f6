//! Images on a real Xen host, which the testbed boots: Linux's backends serve our frontends, our
//! backends serve Linux's frontends and ours, and everything is looked at from outside.

use fata_pcap::Reader;
use fata_testbed::{Disk, DiskSource, Guest, Linux, Testbed, Vif};
use fata_tests::xen::{PATIENCE, dom0, guest, host, start, succeeds, turn};
use fata_tests::{Machine, build, fata, free_port, output};
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;

/// Runs an image with `fata run`, on a host of its own though another may be up.
fn run(arguments: &[&str]) -> (Machine, TempDir) {
    let hosts = tempfile::tempdir().expect("a folder for the host");
    let mut command = fata();
    command.arg("run").args(arguments).env("TMPDIR", hosts.path());
    (Machine::spawn(command), hosts)
}

#[test]
fn https_answers_outside_through_the_bridge() {
    let _turn = turn();
    let port = free_port();
    let publish = format!("{port}:443");
    let image = build("examples/https", "xen");
    let image = image.to_str().expect("UTF-8");
    let (mut machine, _hosts) = run(&["--publish", &publish, image]);
    machine.wait_for("listening on");
    machine.wait_for("has the address");
    let url = format!("https://127.0.0.1:{port}/");
    let page =
        output("curl", &["-sSk", "--retry", "5", "--retry-all-errors", "--max-time", "30", &url]);
    assert!(page.contains("<title>Fata</title>"), "{page}");
}

#[test]
fn a_capture_has_the_first_frame_and_the_last_after_ctrl_c() {
    let _turn = turn();
    let port = free_port();
    let publish = format!("{port}:80");
    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("http.pcap");
    let file = capture.to_str().expect("UTF-8");
    let image = build("examples/http", "xen");
    let image = image.to_str().expect("UTF-8");
    let (mut machine, _hosts) = run(&["--publish", &publish, "--pcap", file, image]);
    machine.wait_for("listening on port 80");
    let url = format!("http://127.0.0.1:{port}/bytes?n=200000");
    let page = output("curl", &["-sS", "--retry", "5", "--retry-all-errors", "-m", "30", &url]);
    assert!(page.len() > 1000);
    output("kill", &["-INT", &machine.id().to_string()]);
    let (_, console) = machine.wait();
    assert!(!console.contains("the capture is not complete"), "{console}");

    let bytes = std::fs::read(&capture).expect("the capture is there");
    let mut reader = Reader::new(&bytes).expect("a capture");
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame().expect("a whole frame") {
        assert_eq!(frame.bytes.len(), frame.original_len as usize);
        frames.push(frame.bytes.to_vec());
    }
    // RFC 5227: before all else a machine probes for its address, once here, by ARP without a sender's.
    let is_probe = |frame: &&Vec<u8>| frame[12..14] == [8, 6] && frame[28..32] == [0; 4];
    let probe = frames.iter().find(is_probe).expect("the machine's first frame");
    let from_it = |frame: &&Vec<u8>| frame[6..12] == probe[6..12];
    assert_eq!(frames.iter().find(from_it), Some(probe));
    let is_question = |frame: &&Vec<u8>| frame.windows(12).any(|word| word == b"GET /bytes?n");
    assert_eq!(frames.iter().filter(is_question).count(), 1);
    assert!(frames.iter().filter(from_it).map(Vec::len).sum::<usize>() > 200_000);
    // What was acknowledged and is not in the file would be called so.
    let missing = "_ws.malformed || tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment";
    assert_eq!(output("tshark", &["-n", "-r", file, "-Y", missing]), "");
}

#[test]
fn hello_speaks_on_the_console_and_a_crash_has_its_code() {
    let _turn = turn();
    let image = build("examples/hello", "xen");
    let (machine, _hosts) = run(&[image.to_str().expect("UTF-8")]);
    let (status, console) = machine.wait();
    assert!(status.success() && console.contains("hello from xen"), "{status}\n{console}");
    let image = build("tests/programs", "xen");
    let image = image.to_str().expect("UTF-8");
    let (machine, _hosts) = run(&[image, "--", "--way=page-fault"]);
    let (status, console) = machine.wait();
    assert_eq!(status.code(), Some(103), "{console}");
    assert!(console.contains("page fault") && console.contains("read_nothing"), "{console}");
}

#[test]
fn a_disk_holds_what_was_written_and_a_read_only_one_refuses() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk");
    std::fs::write(&disk, vec![0; 1 << 20]).expect("a disk");
    let block = format!("data={}", disk.display());
    let image = build("examples/block", "xen");
    let image = image.to_str().expect("UTF-8");
    let (machine, _hosts) = run(&["--block", &block, image]);
    let (status, console) = machine.wait();
    assert!(status.success() && console.contains("verified 64 sectors"), "{status}\n{console}");
    // Sector 3, as the program fills it.
    let bytes = std::fs::read(&disk).expect("the disk");
    assert_eq!(bytes[3 * 512..][..4], [93, 94, 95, 96]);
    let read_only = format!("{block},ro");
    let (machine, _hosts) = run(&["--block", &read_only, image]);
    let (status, console) = machine.wait();
    assert!(!status.success() && console.contains("the disk is read-only"), "{console}");
}

#[test]
fn the_first_frame_is_answered_by_every_boot_with_and_without_load() {
    let _turn = turn();
    let host = host();
    for boot in 0..6 {
        if boot == 3 {
            dom0(&host, "(while [ ! -e /tmp/idle ]; do :; done) >/dev/null 2>&1 & true");
        }
        let arguments = "--target=10.0.2.10:1 --service.address=10.0.2.60/24";
        let first = guest(&format!("first{boot}"), "examples/first-frame", arguments);
        let console = succeeds(&host.create(&first).expect("it is created"));
        assert!(console.contains("0 retransmissions"), "boot {boot}: {console}");
    }
    dom0(&host, "touch /tmp/idle");
}

#[test]
fn neighbours_talk_over_vchan() {
    let _turn = turn();
    let host = host();
    let image = build("examples/channel", "xen");
    // Domains are numbered in the order of their creation; nobody else is on this host.
    let probe = host.create(&guest("probe", "examples/hello", "")).expect("it is created").id();
    let words = "vchan-".repeat(2000);
    let program = |name: &str, peer: u16, more: &str| Guest {
        command_line: format!("--neighbour.peer={peer} {more}"),
        ..Guest::new(name, &image)
    };
    let echo = start(&host, &program("echo", probe + 2, ""), "waiting for a neighbour");
    let short = host
        .create(&program("talk", probe + 1, &format!("--say={}", &words[..600])))
        .expect("it is created");
    assert_eq!((echo.id(), short.id()), (probe + 1, probe + 2));
    assert!(succeeds(&short).contains(&format!("the neighbour answers: {}", &words[..600])));
    assert!(succeeds(&echo).contains("echoed 600 bytes"));
}

#[test]
fn a_storage_domain_serves_linux_and_us() {
    let _turn = turn();
    let host = host();
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Guest::new("ramdisk", build("examples/ramdisk", "xen"));
    server.driver_domain = true;
    server.command_line = "--mib=4".to_owned();
    let _server = start(&host, &server, "serving 4 MiB");
    let disk = |vdev: &str| Disk {
        vdev: vdev.to_owned(),
        source: DiskSource::Backend { domain: "ramdisk".to_owned(), target: "memory".to_owned() },
        read_only: false,
    };
    let mut ours = Guest::new("ours", build("examples/block", "xen"));
    ours.disks.push(disk("xvda"));
    let console = succeeds(&host.create(&ours).expect("it is created"));
    assert!(console.contains("verified 64 sectors"), "{console}");
    // Linux reads what we wrote, sector 3, and writes all of the disk.
    let script = "dd if=/dev/xvda bs=512 skip=3 count=1 2>/dev/null | od -An -tu1 -N4
        dd if=/dev/zero of=/dev/xvda bs=64k count=64 conv=fsync 2>/dev/null && echo written
        dd if=/dev/xvda bs=64k 2>/dev/null | tr -d '\\000' | wc -c";
    let mut linux = Linux::new(script).guest(&host, "linux", folder.path()).expect("a guest");
    linux.disks.push(disk("xvda"));
    let console = succeeds(&host.create(&linux).expect("it is created"));
    // Between the kernel's own lines.
    let mut lines = console.lines().map(str::trim);
    for expected in ["93  94  95  96", "written", "0"] {
        assert!(lines.any(|line| line == expected), "no {expected:?} in its place: {console}");
    }
}

/// Gives the guest's interface 0 another backend, as a toolstack would.
fn relink(host: &Testbed, frontend: u16, backend: u16) {
    dom0(
        host,
        &format!(
            "f=/local/domain/{frontend}/device/vif/0
             b=/local/domain/{backend}/backend/vif/{frontend}/0
             xenstore-write $b/frontend $f $b/frontend-id {frontend} $b/online 1 $b/handle 0 \
                 $b/mac $(xenstore-read $f/mac) $b/state 1
             xenstore-chmod -r $b n{backend} r{frontend}
             xenstore-chmod -r $f n{frontend} r{backend}
             xenstore-write $f/backend-id {backend} $f/backend $b"
        ),
    );
}

#[test]
fn a_router_serves_linux_and_us_and_is_replaced_in_the_middle_of_a_transfer() {
    let _turn = turn();
    let host = host();
    let folder = tempfile::tempdir().expect("a folder");
    let router = || {
        let mut router = guest("router", "examples/router", "--address=10.0.2.50/24");
        router.driver_domain = true;
        router
    };
    let first = start(&host, &router(), "10.0.2.50");
    dom0(&host, "ip route add 10.77.0.0/16 via 10.0.2.50");

    // Ours behind it.
    let mut ours = guest(
        "ours",
        "examples/http",
        "--service.address=10.77.1.2/24 --service.gateway=10.77.1.1",
    );
    ours.vifs = vec![Vif::backend("router")];
    let ours = start(&host, &ours, "listening on");
    let page = dom0(&host, "wget -q -O - http://10.77.1.2/");
    assert!(page.contains("Hello from a machine"), "{page}");

    // Linux behind it.
    dom0(&host, "mkdir -p /tmp/www && echo from dom0 > /tmp/www/page && httpd -h /tmp/www -p 8000");
    let script = "ifconfig eth0 10.77.2.2 netmask 255.255.255.0 up; route add default gw 10.77.2.1
        ping -c 3 -W 20 10.77.2.1 && ping -c 3 -W 20 10.0.2.10
        wget -q -O - http://10.0.2.10:8000/page
        wget -q -O - http://10.77.1.2/bytes?n=3000000 | wc -c";
    let mut linux = Linux::new(script).guest(&host, "linux", folder.path()).expect("a guest");
    linux.vifs.push(Vif::backend("router"));
    let console = succeeds(&host.create(&linux).expect("it is created"));
    assert_eq!(console.matches(" 0% packet loss").count(), 2, "{console}");
    assert!(console.contains("from dom0") && console.contains("3000000"), "{console}");

    // The router dies while dom0 downloads; another takes its place; the download goes on.
    let undisturbed = dom0(&host, &format!("{DOWNLOAD}\ndownload /tmp/whole; cat /tmp/whole.sum"));
    dom0(&host, &format!("{DOWNLOAD}\n(download /tmp/part) > /dev/null 2>&1 & true"));
    let begin = Instant::now();
    while dom0(&host, "wc -c < /tmp/part || echo 0").trim().parse::<u64>().unwrap_or(0) < 1 << 20 {
        assert!(begin.elapsed() < PATIENCE, "the download does not begin");
    }
    first.destroy().expect("it is destroyed");
    let sum = || dom0(&host, "cat /tmp/part.sum 2>/dev/null; true");
    assert_eq!(sum(), "", "the router died too late: the download was over");
    let second = start(&host, &router(), "10.0.2.50");
    relink(&host, ours.id(), second.id());
    let begin = Instant::now();
    while sum().is_empty() {
        assert!(
            begin.elapsed() < PATIENCE,
            "the download does not go on; the guest: {}\nthe router: {}",
            String::from_utf8_lossy(&ours.console()),
            String::from_utf8_lossy(&second.console())
        );
    }
    assert_eq!(sum(), undisturbed);
}

/// Downloads 32 MiB of a pattern into `$1`, and leaves length and hash in `$1.sum`. Not by wget:
/// busybox's gives up when nothing has come for a second.
const DOWNLOAD: &str = r"download() {
    mkfifo $1.in; nc 10.77.1.2 80 < $1.in > $1 & exec 3> $1.in
    printf 'GET /bytes?n=33554432 HTTP/1.0\r\n\r\n' >&3; wait $!; exec 3>&-
    (tail -c 33554432 $1 | wc -c; tail -c 33554432 $1 | sha256sum) > $1.new; rm $1; mv $1.new $1.sum
}";

#[test]
fn a_host_that_asks_is_obeyed() {
    let _turn = turn();
    let host = host();
    let image = Path::new("examples/http").to_str().expect("UTF-8");
    let service = guest("asked", image, "--service.address=10.0.2.60/24");
    let domain = start(&host, &service, "listening on");
    domain.shutdown().expect("it is asked");
    let console = succeeds(&domain);
    assert!(console.contains("the host asks for Poweroff"), "{console}");
}
