//! The `testbed` command: it leaves nothing behind, whatever ends it.

mod common;

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than a host takes to boot on a computer that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(300);

/// A command on hosts in a folder that is one test's alone.
fn testbed(words: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
    command.args(words).env("TMPDIR", folder);
    command
}

fn output(words: &[&str], folder: &Path) -> Output {
    testbed(words, folder).output().unwrap()
}

/// The folders of hosts below `folder`.
fn hosts(folder: &Path) -> Vec<PathBuf> {
    let entries = |path: &Path| -> Vec<PathBuf> {
        let Ok(found) = std::fs::read_dir(path) else { return Vec::new() };
        found.flatten().map(|entry| entry.path()).collect()
    };
    let bases = entries(folder).into_iter().filter(|path| path.is_dir());
    bases.flat_map(|base| entries(&base)).collect()
}

/// The process number of the QEMU of the host whose folder this is.
fn qemu_of(host: &Path) -> u64 {
    let record = std::fs::read(host.join("host.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    record["qemu"]["id"].as_u64().unwrap()
}

fn is_alive(process: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

fn signal(name: &str, child: &Child) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[track_caller]
fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Starts a guest that stays; returns when it is there, with its host's folder.
fn start_guest(name: &str, folder: &Path) -> (Child, PathBuf) {
    let image = folder.join("stay.elf");
    std::fs::write(&image, common::bare_program("here\n", common::STAY)).unwrap();
    let words = ["run", "--guest", name, "--timeout", "3000", image.to_str().unwrap()];
    let child = testbed(&words, folder).stderr(Stdio::null()).spawn().unwrap();
    let running = |host: &PathBuf| {
        std::fs::read_dir(host.join("owners")).is_ok_and(|mut owners| owners.next().is_some())
    };
    wait_until("the guest", || hosts(folder).iter().any(running));
    let host = hosts(folder).into_iter().find(running).unwrap();
    (child, host)
}

/// What there is of a guest in its host's folder.
fn left_of(guest: &str, host: &Path) -> Vec<String> {
    let folders = ["owners", "share/files"].map(|folder| std::fs::read_dir(host.join(folder)));
    let names = folders.into_iter().flat_map(|folder| folder.unwrap().flatten());
    let names = names.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.trim_start_matches('.').starts_with(guest)).collect()
}

#[test]
fn an_interrupted_command_takes_its_host_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, host) = start_guest("guest", folder.path());
    let qemu = qemu_of(&host);
    signal("-INT", &child);
    assert_ne!(child.wait().unwrap().code(), Some(0));
    assert!(!is_alive(qemu) && hosts(folder.path()).is_empty());
}

#[test]
fn so_does_a_killed_one_and_the_next_sweeps() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, host) = start_guest("guest", folder.path());
    let qemu = qemu_of(&host);
    signal("-KILL", &child);
    child.wait().unwrap();
    wait_until("QEMU's end", || !is_alive(qemu));
    assert_eq!(hosts(folder.path()), [host]);

    // A host that is left running: its guests go with who ran them.
    let up = output(&["up", "--name", "left", "--json"], folder.path());
    assert!(up.status.success(), "{up:?}");
    let hosts = hosts(folder.path());
    assert_eq!(hosts.len(), 1, "what the killed one left was swept: {hosts:?}");
    let qemu = qemu_of(&hosts[0]);
    let again = output(&["up", "--name", "left"], folder.path());
    assert_eq!(again.status.code(), Some(76), "{again:?}");

    let run = |name: &str, more: &[&str]| {
        let image = folder.path().join("stay.elf");
        let image = image.to_str().unwrap().to_owned();
        let words = ["run", "--name", "left", "--guest", name, "--timeout"];
        let words = [&words[..], more, &[&image]].concat();
        testbed(&words, folder.path()).stderr(Stdio::null()).spawn().unwrap()
    };
    // One that nobody has at this moment.
    let port = &TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let guests = || {
        let status = output(&["status", "--json"], folder.path());
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        status["guests"].clone()
    };
    let mut first = run("first", &["3000"]);
    wait_until("the first guest", || guests() == serde_json::json!(["first"]));
    signal("-KILL", &first);
    first.wait().unwrap();
    assert_eq!(guests(), serde_json::json!(["first"]), "nobody was there to end it");
    let mut second = run("second", &["3000", "--publish", &format!("{port}-10.0.2.77:80")]);
    wait_until("the second guest alone", || guests() == serde_json::json!(["second"]));
    assert!(TcpStream::connect(port).is_ok(), "its port is published as long as it runs");
    signal("-TERM", &second);
    assert_ne!(second.wait().unwrap().code(), Some(0));
    assert!(TcpStream::connect(port).is_err(), "its port is free again");
    assert_eq!(left_of("second", &hosts[0]), [""; 0]);
    assert_eq!(guests(), serde_json::json!([]));

    // The deadline comes before the guest does, and nothing is left of either.
    let mut late = run("late", &["0.3"]);
    assert_eq!(late.wait().unwrap().code(), Some(79));
    assert_eq!(guests(), serde_json::json!([]));
    assert_eq!(left_of("late", &hosts[0]), [""; 0]);

    let words = ["exec", "--name", "left", "--timeout", "3000", "sleep 70703"];
    let mut sleeper = testbed(&words, folder.path()).stderr(Stdio::null()).spawn().unwrap();
    let sleeps = || {
        let words = ["exec", "--name", "left", "--", "ps | grep -q 'sleep 7070[3]'"];
        output(&words, folder.path()).status.success()
    };
    wait_until("the command in dom0", sleeps);
    signal("-INT", &sleeper);
    assert_ne!(sleeper.wait().unwrap().code(), Some(0));
    assert!(!sleeps(), "an interrupted command ends in dom0 too");
    let of_it = format!("{}-", sleeper.id());
    let results = std::fs::read_dir(hosts[0].join("share/out")).unwrap().flatten();
    let results = results.filter(|file| file.file_name().to_string_lossy().starts_with(&of_it));
    assert_eq!(results.count(), 0, "its results are gone");

    let exec = output(&["exec", "--name", "left", "--", "echo $((6 * 7)); exit 5"], folder.path());
    assert_eq!((exec.status.code(), &*exec.stdout), (Some(5), &b"42\n"[..]));
    let down = output(&["down", "--name", "left"], folder.path());
    assert!(down.status.success() && !is_alive(qemu), "{down:?}");
    let gone = output(&["exec", "--name", "left", "true"], folder.path());
    assert_eq!(gone.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("no Xen host named left"), "{gone:?}");
}

/// Each is refused with a message that names it, before a host is booted, and without a trace.
#[test]
fn what_cannot_be_is_refused_before_a_host_is_booted() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let image = &write("good.elf", &common::bare_program("here\n", common::STAY));
    let text = &write("text", b"not a kernel");
    let elsewhere = &folder.path().join("nowhere").to_str().unwrap().to_owned();
    let here = folder.path().to_str().unwrap();
    let disk = &format!("xvda={elsewhere}");
    let disks = ["--disk", &format!("xvda={image}"), "--disk", &format!("xvda={image}")];
    let cases: &[(&[&str], u8, &str)] = &[
        (&["run"], 2, "<IMAGE>"),
        (&["run", elsewhere], 74, "nowhere"),
        (&["run", text], 2, "is no kernel"),
        (&["run", here], 2, "is a folder"),
        (&["run", "--ramdisk", elsewhere, image], 74, "nowhere"),
        (&["run", "--disk", disk, image], 74, "nowhere"),
        (&["run", "--disk", "xvda", image], 2, "VDEV=FILE is needed"),
        (&[&["run"], &disks[..], &[image]].concat(), 2, "two disks are called xvda"),
        (&["run", "--memory", "0", image], 2, "memory must be"),
        (&["run", "--memory", "much", image], 2, "--memory"),
        (&["run", "--guest", "two words", image], 2, "two words"),
        (&["run", "--cmdline", "a\nb", image], 2, "control character"),
        (&["run", "--no-such", image], 2, "--no-such"),
        (&["up", "--name", "../up"], 2, "../up"),
        (&["up", "--processors", "0"], 2, "--processors"),
        (&["exec", "--name", "none", "true"], 2, "no Xen host named none"),
        (&["console", "--name", "none", "guest"], 2, "no Xen host named none"),
        (&["down", "--name", "none"], 2, "no Xen host named none"),
        (&["publish", "nowhere", "10.0.2.15:80"], 2, "nowhere"),
        (&["no-such-command"], 2, "no-such-command"),
    ];
    for (words, code, message) in cases {
        let output = output(words, folder.path());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some((*code).into()), "{words:?}: {said}");
        assert!(said.contains(message), "{words:?}: {said}");
        let trace = ["panicked", "RUST_BACKTRACE", "booting", "continuing"];
        assert!(!trace.iter().any(|word| said.contains(word)), "{words:?}: {said}");
    }
    assert_eq!(hosts(folder.path()), [""; 0].map(PathBuf::from));
}
