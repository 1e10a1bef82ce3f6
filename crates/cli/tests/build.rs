//! Building: what cargo and the linker say, in the tool's words; and whole packages, end to end.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::{
    Answer, BLOCK, answer, eventually, fata, is_gone, manifest, package, run, unix_program,
};

#[test]
fn a_program_that_does_not_compile() {
    let directory = tempfile::tempdir().unwrap();
    package(directory.path(), "wrong", "fn main() { let x: u8 = \"text\"; }");
    let said = run(&["build", "-t", "unix", directory.path().to_str().unwrap()]);
    said.fails(71, &["mismatched types", "src/main.rs:1", "could not build wrong for unix"]);
    assert_eq!(said.stderr.matches("mismatched types").count(), 1, "{said:#?}");
}

#[test]
fn a_program_without_fata_has_no_machine() {
    let directory = tempfile::tempdir().unwrap();
    package(directory.path(), "plain", "fn main() { println!(\"hello\"); }");
    let path = directory.path().to_str().unwrap();
    let said = run(&["build", "-t", "virtio", path]);
    said.fails(72, &["plain does not use fata", "#[fata::main]"]);
    assert!(!said.stderr.contains("undefined symbol"), "{said:#?}");
    let said = run(&["build", "-t", "unix", path]);
    said.fails(73, &["plain is built, but it is not an image", "#[fata::main]"]);
    assert!(!directory.path().join("target/fata/plain.unix").exists(), "it is no image");
}

/// A program for unix that prints its words, `PROGRAM_SAYS`, and exits as it is told.
fn echo_package() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let arguments = r#"{"name":"code","type":"u8","default":"0"},
        {"name":"sleep","type":"bool","optional":true}"#;
    let main = unix_program(
        &manifest("unix", BLOCK, arguments),
        r#"    println!("{:?} {:?}", std::env::args().skip(1).collect::<Vec<_>>(), std::env::var("SAYS"));
    if std::env::args().any(|word| word == "--sleep") { std::thread::park(); }
    let code = std::env::args().find_map(|word| word.strip_prefix("--code=")?.parse().ok());
    std::process::exit(code.unwrap_or(0));"#,
    );
    package(directory.path(), "echo", &main);
    std::fs::write(directory.path().join("disk"), [0; 1024]).unwrap();
    directory
}

#[test]
fn a_process_gets_its_devices_as_arguments_and_passes_its_exit_code_on() {
    let directory = echo_package();
    let path = directory.path().to_str().unwrap();
    let disk = format!("data={path}/disk");
    let words = ["--block", &disk, "--", "SAYS=hi", "--code", "7"];
    let said = answer(fata().args(["run", path]).args(words));
    assert_eq!(said.code, Some(7), "{said:#?}");
    let wanted = format!("[\"--data.file={path}/disk\", \"--code=7\"] Ok(\"hi\")\n");
    assert_eq!(said.stdout, wanted);

    // The image by itself; supervised, because of --json.
    let image = format!("{path}/target/fata/echo.unix");
    let words = ["--json", "--block", &format!("{disk},ro"), "--", "--code=200"];
    let said = answer(fata().args(["run", &image]).args(words));
    assert_eq!(said.code, Some(200), "{said:#?}");
    assert!(said.stderr.contains("--data.read-only"), "{said:#?}");
    let last = said.stdout.lines().last().unwrap();
    assert_eq!(last, r#"{"event":"ended","exit_code":200}"#);

    let image_run =
        |words: &[&str]| answer(fata().args(["run", &image, "--block", &disk]).args(words));
    image_run(&["--timeout", "0.3", "--", "--sleep"]).fails(79, &["did not end within 0.3 s"]);
    image_run(&["--memory", "64M"]).fails(2, &["--memory is for a machine", "-t virtio"]);
    image_run(&["-p", "1:1"]).fails(75, &["has no stack"]);
    image_run(&["--", "--cde=1"]).fails(75, &["did you mean --code?"]);
    answer(fata().args(["run", &image])).fails(75, &["needs the block device data"]);
    signals_reach_the_process(&image, &disk);
}

fn signals_reach_the_process(image: &str, disk: &str) {
    // Without --json the program takes the tool's place; with it, the tool passes the signal on.
    for (words, by_code) in [(&[][..], None), (&["--json"][..], Some(143))] {
        let mut tool = fata()
            .args(["run", image, "--block", disk])
            .args(words)
            .args(["--", "--sleep"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Its first line shows that the program runs.
        let mut out: Box<dyn std::io::Read> = match by_code {
            None => Box::new(tool.stdout.take().unwrap()),
            Some(_) => Box::new(tool.stderr.take().unwrap()),
        };
        assert_eq!(out.read(&mut [0; 1]).unwrap(), 1);
        kill_process(Pid::from_child(&tool), Signal::TERM).unwrap();
        assert_eq!(tool.wait().unwrap().code(), by_code);
    }
}

#[test]
fn cargo_ends_with_the_tool() {
    let directory = tempfile::tempdir().unwrap();
    package(directory.path(), "slow", "fn main() {}");
    // A build script that says who it is and never ends.
    let script = "fn main() { std::fs::write(\"pid\", std::process::id().to_string()).unwrap();\n\
                  std::fs::rename(\"pid\", \"ready\").unwrap(); loop { std::thread::park(); } }";
    std::fs::write(directory.path().join("build.rs"), script).unwrap();
    let tool = fata().args(["build"]).arg(directory.path()).stderr(Stdio::piped()).spawn().unwrap();
    let ready = directory.path().join("ready");
    eventually("the build script runs", || ready.exists());
    let script: u64 = std::fs::read_to_string(ready).unwrap().parse().unwrap();
    kill_process(Pid::from_child(&tool), Signal::INT).unwrap();
    Answer::from(tool.wait_with_output().unwrap()).fails(130, &["interrupted"]);
    eventually("the build script is gone", || is_gone(script));
}

#[test]
fn completions_and_help_for_everyone() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(run(&["completions", shell]).succeeds().contains("fata"));
    }
    assert!(run(&["--help"]).succeeds().contains("Exit codes:"));
    assert!(run(&["run", "--help"]).succeeds().contains("--publish"));
    assert!(run(&["--version"]).succeeds().starts_with("fata 0."));
}

#[test]
fn logs_are_symbolized() {
    // The command itself is a program with symbols.
    let own = env!("CARGO_BIN_EXE_fata");
    let bytes = std::fs::read(own).unwrap();
    let elf = object::read::elf::ElfFile64::<object::LittleEndian>::parse(&*bytes).unwrap();
    let (id, address) = {
        use object::{Object as _, ObjectSymbol as _};
        let id = elf.build_id().unwrap().unwrap();
        let main = elf.symbols().find(|s| s.name().is_ok_and(|n| n.contains("fata8dispatch")));
        (id.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), main.unwrap().address())
    };
    let log = format!("noise\nfata: backtrace of build {id}\nfata:   #0 {address:#018x}\nend\n");
    let symbolize = |words: &[&str], log: &str| {
        let mut child = fata()
            .arg("symbolize")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that refuses its arguments does not wait for its input.
        let _ = child.stdin.take().unwrap().write_all(log.as_bytes());
        Answer::from(child.wait_with_output().unwrap())
    };
    let said = symbolize(&["--symbols", own], &log);
    let text = said.succeeds();
    assert!(
        text.contains("fata::dispatch (crates/cli/src/main.rs:") || text.contains("dispatch"),
        "{text}"
    );
    assert!(text.starts_with("noise\n") && text.ends_with("end\n"), "{text}");
    symbolize(&[], &log.replace(&id, "0123")).fails(73, &["no symbols found for build 0123"]);
    symbolize(&["--symbols", "/nonexistent"], &log).fails(74, &["/nonexistent"]);
}

/// `fata new`, then both targets, from nothing to a booted machine.
#[test]
fn a_new_package_runs_as_a_process_and_as_a_machine() {
    let directory = tempfile::tempdir().unwrap();
    let package = directory.path().join("greeter");
    let package = package.to_str().unwrap();
    // Kept between runs: dependencies are compiled once.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("greeter");
    let fata_here = || {
        let mut command = fata();
        command.env("CARGO_TARGET_DIR", &target);
        command
    };
    let checkout = snapshot();
    let fata_path = checkout.join("crates/fata");
    answer(fata().args(["new", package, "--fata-path"]).arg(fata_path)).succeeds();
    assert!(Path::new(package).join("Cargo.toml").exists());

    let port = free_port().to_string();
    let arguments = [format!("--port={port}"), "--name=you".to_owned()];
    serves(fata_here().args(["run", package, "--"]).args(arguments), &port, "Hello, you!\n");

    let build = || {
        let said = answer(fata_here().args(["build", package, "--json"]));
        let built: serde_json::Value = serde_json::from_str(said.succeeds()).unwrap();
        built
    };
    let built = build();
    let image = built["image"].as_str().unwrap();
    let first = std::fs::read(image).unwrap();
    assert_eq!(built["bytes"], first.len());
    assert!(!contains(&first, package.as_bytes()), "a path of this computer is in the image");
    let checkout = checkout.to_str().unwrap();
    assert!(!contains(&first, checkout.as_bytes()), "the checkout's path is in the image");

    for machine in ["microvm", "q35"] {
        let port = free_port().to_string();
        let publish = format!("{port}:8080");
        let words =
            ["run", image, "--machine", machine, "-p", &publish, "--", "--name", "a machine"];
        serves(fata_here().args(words), &port, "Hello, a machine!\n");
    }
    answer(fata_here().args(["run", image, "--", "--prot=1"])).fails(75, &["--port"]);

    // Linked again, it is the same bit for bit.
    let main = std::fs::File::options().append(true).open(format!("{package}/src/main.rs"));
    main.unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    build();
    assert!(std::fs::read(image).unwrap() == first, "the image is not reproducible");

    symbols_of_a_crash(package, &fata_here);
    a_symbol_that_the_machine_lacks(package, &fata_here);
}

/// Runs `command` until it answers on `port` with `page`, then ends it.
fn serves(command: &mut Command, port: &str, page: &str) {
    let mut tool = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let console = BufReader::new(tool.stdout.take().unwrap());
    let mut lines = console.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("listening")), "it ended: {:?}", tool.wait());
    let mut answer = String::new();
    eventually("an answer", || {
        let Ok(mut stream) = TcpStream::connect(format!("127.0.0.1:{port}")) else { return false };
        answer.clear();
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && !answer.is_empty()
    });
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(page), "{answer}");
    kill_process(Pid::from_child(&tool), Signal::TERM).unwrap();
    tool.wait().unwrap();
}

/// A port that nobody had a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A copy of the checkout, which nobody edits while a test compares builds. Files that are the same
/// already are not written, so that cargo compiles only what changed since the last time.
fn snapshot() -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        if from.is_dir() {
            std::fs::create_dir_all(to).unwrap();
            for entry in std::fs::read_dir(from).unwrap() {
                let name = entry.unwrap().file_name();
                if !name.as_encoded_bytes().starts_with(b".") && name != "target" {
                    copy(&from.join(&name), &to.join(&name));
                }
            }
        } else {
            // An editor's temporary file may be gone again.
            let Ok(bytes) = std::fs::read(from) else { return };
            if std::fs::read(to).ok().as_ref() != Some(&bytes) {
                std::fs::write(to, bytes).unwrap();
            }
        }
    }
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let snapshot = Path::new(env!("CARGO_TARGET_TMPDIR")).join("checkout");
    std::fs::create_dir_all(&snapshot).unwrap();
    for part in ["Cargo.toml", "Cargo.lock", "crates", "examples", "tests"] {
        copy(&checkout.join(part), &snapshot.join(part));
    }
    snapshot
}

/// A function of the C library that no machine will have is named, with who wants it.
fn a_symbol_that_the_machine_lacks(package: &str, fata_here: &dyn Fn() -> Command) {
    let main = Path::new(package).join("src/main.rs");
    let text = std::fs::read_to_string(&main).unwrap();
    let text = text.replace("let listener", "unsafe { no_such_function() }\n    let listener");
    let text = text + "\nunsafe extern \"C\" {\n    fn no_such_function();\n}\n";
    std::fs::write(&main, text).unwrap();
    let said = answer(fata_here().args(["build", package]));
    said.fails(
        72,
        &["no_such_function (wanted by src/main.rs:", "calls a C function", "docs/symbols.md"],
    );
}

/// A panic on the machine is reported with the user's own functions and lines.
fn symbols_of_a_crash(package: &str, fata_here: &dyn Fn() -> Command) {
    let main = Path::new(package).join("src/main.rs");
    let text = std::fs::read_to_string(&main).unwrap();
    let crash =
        "\n#[inline(never)]\nfn stumble(port: u16) {\n    assert!(port == 77, \"stumbled\");\n}\n";
    let text = text.replace("let listener", "stumble(devices.port);\n    let listener") + crash;
    std::fs::write(&main, text).unwrap();
    let said = answer(fata_here().args(["run", package, "-t", "virtio"]));
    assert_eq!(said.code, Some(101), "{said:#?}");
    assert!(said.stdout.contains("greeter::stumble (src/main.rs:"), "{said:#?}");
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
