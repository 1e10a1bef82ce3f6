//! Runs in the real QEMU: exit codes, consoles, and that nothing is left running.

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::{BLOCK, Code, Fixture, STACK, answer, eventually, fata, is_gone};

#[test]
fn the_programs_exit_code_is_passed_on() {
    for code in [0, 1, 42, 101, 126] {
        let plain = Fixture::plain(Code::default().print("hello\r\n").exit(code));
        let said = plain.run(&[]);
        assert_eq!(said.code, Some(i32::from(code)), "{said:#?}");
        assert_eq!(said.stdout, "hello\r\n");
    }
}

#[test]
fn codes_that_do_not_fit_qemus_status_are_read_from_the_console() {
    let code = Code::default().print("fata: exit code 200\n").exit(127);
    assert_eq!(Fixture::plain(code).run(&[]).code, Some(200));
    assert_eq!(Fixture::plain(Code::default().exit(127)).run(&[]).code, Some(127));
    // A line that only looks like it changes nothing when the code fits.
    let code = Code::default().print("fata: exit code 200\n").exit(3);
    assert_eq!(Fixture::plain(code).run(&[]).code, Some(3));
}

#[test]
fn a_death_is_explained_by_its_code() {
    let said = Fixture::plain(Code::default().exit(103)).run(&[]);
    assert_eq!(said.code, Some(103));
    assert!(said.stderr.contains("exit code 103 (page fault)"), "{said:#?}");
}

#[test]
fn both_machines_boot_with_every_device_attached() {
    let fixture =
        Fixture::new(&[STACK, BLOCK].join(","), support::PORT, Code::default().print("up").exit(0));
    let disk = format!("data={}", fixture.file("a,b disk", 4096));
    for machine in ["microvm", "q35"] {
        let words = ["--machine", machine, "--block", &disk, "-p", "0:443", "-p", "udp:0:53"];
        let said = fixture.run(&[&words[..], &["--", "RUST_LOG=debug", "--port=1"]].concat());
        assert_eq!(said.succeeds(), "up");
        assert!(said.stderr.contains("→ service port 443"), "{said:#?}");
    }
}

#[test]
fn a_machine_without_an_exit_code_is_told_apart() {
    let said = Fixture::plain(Code::default().print("so far\n").triple_fault()).run(&[]);
    said.fails(81, &["reset itself"]);
    assert_eq!(said.stdout, "so far\n");
}

#[test]
fn qemus_own_failure_is_told_apart() {
    let plain = Fixture::plain(Code::default().exit(0));
    // Status 1 is also the program's success.
    answer(fata().env("FATA_QEMU", "/bin/false").arg("run").arg(&plain.image))
        .fails(78, &["QEMU failed before the machine ran"]);
    // A disk that another machine writes to.
    let fixture = Fixture::new(BLOCK, "", Code::default().print("up\n").halt());
    let disk = format!("data={}", fixture.file("disk", 4096));
    let first = Running::start(&fixture, &["--block", &disk]);
    fixture.run(&["--block", &disk]).fails(76, &["in use by another machine", ",ro"]);
    first.end(Signal::TERM, 143);
}

#[test]
fn the_timeout_ends_the_machine() {
    let plain = Fixture::plain(Code::default().print("forever\n").halt());
    let said = plain.run(&["--timeout", "0.5", "--json"]);
    said.fails(79, &["did not end within 0.5 s"]);
    let started: serde_json::Value =
        serde_json::from_str(said.stdout.lines().next().unwrap()).unwrap();
    assert!(is_gone(started["pid"].as_u64().unwrap()));
}

/// A machine that runs until it is ended.
struct Running {
    tool: Child,
    qemu: u64,
}

impl Running {
    fn start(fixture: &Fixture, words: &[&str]) -> Self {
        let mut tool = fata()
            .args(["run", "--json"])
            .arg(&fixture.image)
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(tool.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let started: serde_json::Value = serde_json::from_str(&line).expect("it started");
        assert_eq!(started["event"], "started", "{started}");
        Self { tool, qemu: started["pid"].as_u64().unwrap() }
    }

    fn signal(&self, signal: Signal) {
        let tool = Pid::from_raw(i32::try_from(self.tool.id()).unwrap()).unwrap();
        kill_process(tool, signal).unwrap();
    }

    #[track_caller]
    fn end(mut self, signal: Signal, code: i32) {
        assert!(!is_gone(self.qemu));
        self.signal(signal);
        assert_eq!(self.tool.wait().unwrap().code(), Some(code));
        assert!(is_gone(self.qemu), "QEMU is still running");
    }
}

#[test]
fn signals_end_the_machine_with_the_tool() {
    let plain = Fixture::plain(Code::default().halt());
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        Running::start(&plain, &[]).end(signal, code);
    }
}

#[test]
fn the_machine_dies_even_with_a_tool_that_is_killed() {
    let plain = Fixture::plain(Code::default().halt());
    let mut running = Running::start(&plain, &[]);
    running.signal(Signal::KILL);
    running.tool.wait().unwrap();
    eventually("QEMU dies with the tool", || is_gone(running.qemu));
    assert_eq!(std::fs::read_dir(plain.directory.path()).unwrap().count(), 1, "nothing is left");
}

#[test]
fn a_closed_stdin_is_no_reason_to_end() {
    let plain = Fixture::plain(Code::default().print("still here\n").exit(5));
    let script = "exec \"$0\" run \"$1\" <&-";
    let output = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_fata"), plain.path()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(output.stdout, b"still here\n");
}

#[test]
fn a_reader_that_leaves_ends_the_machine() {
    let plain = Fixture::plain(Code::default().print(&"line\n".repeat(50)).halt());
    let mut tool = fata()
        .args(["run", "-q"])
        .arg(&plain.image)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(tool.stdout.take());
    let said = support::Answer::from(tool.wait_with_output().unwrap());
    said.fails(74, &["reader of the console is gone"]);
}

#[test]
fn addresses_without_symbols_are_passed_on_with_a_warning() {
    let report = "fata: backtrace of build abababababababababababababababababababab\n\
                  fata:   #0 0x0000000000203412\n";
    let said = Fixture::plain(Code::default().print(report).exit(103)).run(&[]);
    assert_eq!(said.stdout, report);
    assert!(said.stderr.contains("no symbols for build abab"), "{said:#?}");
}

#[test]
fn help_is_answered_without_booting() {
    let fixture = Fixture::new(BLOCK, support::PORT, Code::default().print("booted").exit(1));
    let said = fixture.run(&["--", "--help"]);
    let text = said.succeeds();
    assert!(text.contains("Serves pages.") && text.contains("--port=<u16>"), "{text}");
    assert!(!text.contains("booted"));
}

#[test]
fn describe_tells_everything() {
    let fixture = Fixture::new(&[STACK, BLOCK].join(","), support::PORT, Code::default().exit(0));
    let said = support::run(&["describe", fixture.path()]);
    let text = said.succeeds();
    let wanted = [
        "web 0.1.0 · image for virtio",
        "Serves pages.",
        "service (stack)  The network.",
        "data (block)     Holds the pages.",
        "--port=<u16>  Port for HTTPS. [default: 443]",
        &"ab".repeat(20),
    ];
    for wanted in wanted {
        assert!(text.contains(wanted), "no {wanted:?} in {text}");
    }
    let said = support::run(&["describe", "--json", fixture.path()]);
    let value: serde_json::Value = serde_json::from_str(said.succeeds()).unwrap();
    assert_eq!(value["build_id"], "ab".repeat(20));
    assert_eq!(value["manifest"]["devices"][1]["name"], "data");
}
