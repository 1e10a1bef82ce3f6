//! The examples, booted, against real clients: `curl`, `openssl`, `nghttp`, `python3`.

use fata_tests::{Machine, build, fata, free_port, output};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The machines that an image boots on: virtio over MMIO, and over PCI.
const MACHINES: [&str; 2] = ["microvm", "q35"];

/// Boots an example with `extra` words after the options, and waits for `line`.
#[track_caller]
fn boot(example: &str, options: &[&str], words: &[&str], line: &str) -> Machine {
    let image = build(&format!("examples/{example}"), "virtio");
    let mut arguments: Vec<String> = ["-t", "virtio"].map(String::from).to_vec();
    arguments.extend(options.iter().map(|option| option.to_string()));
    arguments.push(image.to_str().expect("UTF-8").to_string());
    if !words.is_empty() {
        arguments.push("--".to_string());
        arguments.extend(words.iter().map(|word| word.to_string()));
    }
    let mut machine = Machine::run(arguments);
    machine.wait_for(line);
    machine
}

#[test]
fn hello_logs_waits_and_ends_on_every_machine() {
    for machine in MACHINES {
        let machine = boot("hello", &["--machine", machine], &[], "hello from virtio");
        let (status, console) = machine.wait();
        for line in ["150 ms have passed", "count=3", "goodbye"] {
            assert!(console.contains(line), "no `{line}` in:\n{console}");
        }
        assert_eq!(status.code(), Some(0), "{console}");
    }
}

#[test]
fn hello_is_small() {
    let image = build("examples/hello", "virtio");
    let bytes = image.metadata().expect("it was built").len();
    // With std's symboliser it would be 215 KB bigger: then a new std calls it in another way, and
    // `fata build` (crates/cli/src/build/linker.rs) must learn that.
    assert!(bytes <= 500 << 10, "hello takes {bytes} bytes");
}

#[test]
fn hello_runs_as_a_process_too() {
    // Built first, because building has no deadline.
    build("examples/hello", "unix");
    let (status, console) = Machine::run(["examples/hello", "-t", "unix"]).wait();
    assert!(console.contains("hello from unix") && console.contains("goodbye"), "{console}");
    assert_eq!(status.code(), Some(0), "{console}");
}

#[test]
fn what_is_piped_into_a_process_is_its_console_input() {
    let program = build("tests/guests", "unix");
    let mut command = Command::new(program);
    command.arg("--job=console").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut typed = child.stdin.take().expect("piped");
    typed.write_all(b"good morning\nend\n").expect("it reads");
    let ended = child.wait_with_output().expect("it ends");
    drop(typed);
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(said.contains("you said \"good morning\"") && said.contains("that is all"), "{said}");
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn what_is_typed_into_a_virtio_console_reaches_the_program_and_a_serial_port_is_not_read() {
    let image = build("tests/guests", "virtio");
    let image = image.to_str().expect("UTF-8");
    let arguments = ["run", "-t", "virtio", "--machine", "q35", image, "--", "--job=console"];
    let (status, console) = Machine::run(&arguments[1..]).wait();
    assert!(console.contains("the machine has no virtio console"), "{console}");
    assert_eq!(status.code(), Some(1), "{console}");

    // The same machine with a console: `fata run` has no word for one, so QEMU gets it from a script.
    let folder = tempfile::tempdir().expect("a folder");
    let (script, socket) = (folder.path().join("qemu"), folder.path().join("console"));
    let text = format!(
        "#!/bin/sh\nexec qemu-system-x86_64 \"$@\" -device virtio-serial-pci -device virtconsole,chardev=typed \
         -chardev socket,id=typed,server=on,wait=off,path={}\n",
        socket.display()
    );
    std::fs::write(&script, text).expect("written");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, executable).expect("its own file");
    let mut command = fata();
    command.args(arguments).env("FATA_QEMU", &script);
    let mut machine = Machine::spawn(command);
    machine.wait_for("say something");
    let mut typed = std::os::unix::net::UnixStream::connect(&socket).expect("QEMU listens");
    // As the return key does, and as a script does; more than the driver's buffers hold, too.
    let long = "abcdefghij".repeat(200);
    typed.write_all(format!("good morning\r{long}\nend\n").as_bytes()).expect("typed");
    let (status, console) = machine.wait();
    assert!(console.contains("you said \"good morning\""), "{console}");
    assert!(console.contains(&format!("you said \"{long}\"")), "{console}");
    assert_eq!(status.code(), Some(0), "{console}");
}

#[test]
fn the_memory_of_a_small_machine_is_enough_for_hello() {
    let (status, console) = boot("hello", &["--memory", "8M"], &[], "hello from virtio").wait();
    assert_eq!(status.code(), Some(0), "{console}");
}

#[test]
fn echo_sends_back_over_tcp_and_udp_and_half_closes() {
    for machine in MACHINES {
        let (tcp, udp) = (free_port(), free_port());
        let (tcp_word, udp_word) = (format!("{tcp}:7"), format!("udp:{udp}:7"));
        let options = ["--machine", machine, "--publish", &tcp_word, "--publish", &udp_word];
        let _machine =
            boot("echo", &options, &["--service.limits=backlog=7"], "listening on port 7");

        let mut stream = TcpStream::connect(("127.0.0.1", tcp)).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
        let sent: Vec<u8> = (0..200_000_u32).map(|index| (index * 7) as u8).collect();
        let mut writer = stream.try_clone().expect("a second handle");
        let writing = std::thread::spawn({
            let sent = sent.clone();
            move || {
                writer.write_all(&sent).expect("sends");
                writer.shutdown(Shutdown::Write).expect("half-closes");
            }
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("receives until the end");
        writing.join().expect("sent all");
        assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());

        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
        // An empty datagram is a datagram too.
        for len in [0, 1, 1400] {
            let datagram = vec![len as u8; len];
            socket.send_to(&datagram, ("127.0.0.1", udp)).expect("sends");
            let mut buffer = [0; 2048];
            let received = socket.recv(&mut buffer).expect("an answer");
            assert_eq!(&buffer[..received], &datagram[..]);
        }
    }
}

#[test]
fn block_writes_flushes_and_verifies_and_the_file_holds_it() {
    let folder = tempdir();
    for machine in MACHINES {
        let disk = folder.join(format!("disk-{machine}"));
        std::fs::write(&disk, vec![0; 1 << 20]).expect("a disk");
        let block = format!("data={}", disk.display());
        let options = ["--machine", machine, "--block", &block];
        let (status, console) = boot("block", &options, &[], "verified 64 sectors").wait();
        assert!(console.contains("refused, as it should be"), "{console}");
        assert_eq!(status.code(), Some(0), "{console}");
        let data = std::fs::read(&disk).expect("the disk");
        assert_eq!(&data[512 * 3..512 * 3 + 2], &[93, 94], "sector 3 of the file");

        // A second machine finds what the first one wrote; so does a process.
        let (status, console) =
            boot("block", &options, &["--verify"], "verified 64 sectors").wait();
        assert_eq!(status.code(), Some(0), "{console}");
        build("examples/block", "unix");
        let arguments =
            ["examples/block", "-t", "unix", "--block", block.as_str(), "--", "--verify"];
        let (status, console) = Machine::run(arguments).wait();
        assert_eq!(status.code(), Some(0), "{console}");
    }
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn https_serves_the_same_page_on_every_target() {
    let mut pages = Vec::new();
    for machine in MACHINES {
        let port = free_port();
        let publish = format!("{port}:443");
        let options = ["--machine", machine, "--publish", &publish];
        let _machine = boot("https", &options, &[], "listening on https port 443");
        let address = format!("https://127.0.0.1:{port}/");

        // TLS 1.3, HTTP/2 and HTTP/1.1.
        let page =
            output("curl", &["-sSk", "--max-time", "30", "--http1.1", "--tlsv1.3", &address]);
        let write = "%{http_version}";
        let version = output(
            "curl",
            &["-sSk", "--max-time", "30", "--http2", "-o", "/dev/null", "-w", write, &address],
        );
        assert_eq!(version, "2");
        let metrics = output("curl", &["-sSk", "--max-time", "30", &format!("{address}metrics")]);
        assert!(metrics.contains("fata_memory_used_bytes "), "{metrics}");
        assert!(metrics.contains("fata_net_"), "{metrics}");
        // The connection that asks is in the list itself.
        let list = output("curl", &["-sSk", "--max-time", "30", &format!("{address}connections")]);
        for words in ["LISTEN", "0.0.0.0:443", "ESTABLISHED", "program"] {
            assert!(list.contains(words), "{list}");
        }
        let list =
            output("curl", &["-sSk", "--max-time", "30", &format!("{address}connections.json")]);
        let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
        let own = list.as_array().expect("an array").iter();
        let own = own.filter(|socket| socket["state"] == "ESTABLISHED").count();
        assert!(own >= 1 && list[0]["mss"].is_null(), "{list}");
        pages.push(page);
    }
    build("examples/https", "unix");
    let port = free_port();
    let arguments = ["examples/https", "-t", "unix", "--", &format!("--port={port}")];
    let mut process = Machine::run(arguments);
    process.wait_for("listening on https port");
    let address = format!("https://127.0.0.1:{port}/");
    pages.push(output("curl", &["-sSk", "--max-time", "30", &address]));
    assert!(pages[0].contains("FATA"), "{}", pages[0]);
    assert!(pages.iter().all(|page| *page == pages[0]));
}

#[test]
fn https_takes_its_certificate_from_a_disk() {
    let folder = tempdir();
    let file = |name: &str| folder.join(name).display().to_string();
    output(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=disk.test",
            "-addext",
            "subjectAltName=DNS:disk.test",
            "-keyout",
            &file("key"),
            "-out",
            &file("certificate"),
        ],
    );
    let mut identity = std::fs::read(file("certificate")).expect("a certificate");
    identity.extend(std::fs::read(file("key")).expect("a key"));
    identity.resize(64 * 1024, 0);
    std::fs::write(file("identity"), identity).expect("a disk");

    let port = free_port();
    let (publish, block) = (format!("{port}:443"), format!("identity={}", file("identity")));
    let options = ["--publish", &publish, "--block", &block];
    let _machine = boot("https", &options, &[], "listening on https port 443");
    // The client trusts this certificate alone, and checks the name.
    let page = output(
        "curl",
        &[
            "-sS",
            "--max-time",
            "30",
            "--cacert",
            &file("certificate"),
            "--resolve",
            &format!("disk.test:{port}:127.0.0.1"),
            &format!("https://disk.test:{port}/"),
        ],
    );
    assert!(page.contains("FATA"), "{page}");
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn a_handler_that_panics_ends_its_connection_and_no_other() {
    let port = free_port();
    let publish = format!("{port}:80");
    let mut machine = boot("http", &["--publish", &publish], &[], "listening on port 80");

    // A keep-alive connection that was there before …
    let mut other = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    other.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
    let request = b"GET / HTTP/1.1\r\nHost: fata\r\n\r\n";
    other.write_all(request).expect("sends");
    let mut buffer = [0; 4096];
    let len = other.read(&mut buffer).expect("an answer");
    assert!(buffer[..len].starts_with(b"HTTP/1.1 200"));

    let failed = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "30", &format!("http://127.0.0.1:{port}/panic")])
        .output()
        .expect("curl runs");
    assert!(!failed.status.success(), "the connection of a panicking handler ends");
    machine.wait_for("index out of bounds");

    // … goes on, and so do new ones.
    other.write_all(request).expect("sends");
    let len = other.read(&mut buffer).expect("an answer");
    assert!(buffer[..len].starts_with(b"HTTP/1.1 200"));
    let page = output("curl", &["-sS", "--max-time", "30", &format!("http://127.0.0.1:{port}/")]);
    assert!(page.starts_with("Hello"), "{page}");
}

/// A folder of this test's own.
fn tempdir() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("fata-test-{}-{count}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}
