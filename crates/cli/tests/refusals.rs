//! Bad input: every line of it gets a message that names the thing and what to do, the documented
//! exit code, and nothing is started.

mod support;

use std::net::TcpListener;

use support::{BLOCK, Code, Fixture, PORT, STACK, answer, fata, image_bytes, manifest, run};

/// Were it started, it would say so.
fn web() -> Fixture {
    Fixture::new(&[STACK, BLOCK].join(","), PORT, Code::default().print("booted\n").exit(0))
}

#[test]
fn a_missing_device_is_named_with_its_purpose() {
    let web = web();
    let said = web.run(&[]);
    said.fails(75, &["web needs the block device data", "--block data=FILE", "Holds the pages"]);
    assert_eq!(said.stdout, "");
}

#[test]
fn a_wrong_device_is_refused_with_the_known_ones() {
    let web = web();
    let disk = web.file("disk", 512);
    let block = format!("dta={disk}");
    web.run(&["--block", &block]).fails(75, &["no block device dta", "did you mean data?"]);
    let good = format!("data={disk}");
    web.run(&["--block", &good, "--net", "servce:user"])
        .fails(75, &["no stack device servce", "did you mean service?"]);
    web.run(&["--block", &format!("{good}.nowhere")])
        .fails(74, &["device data", "disk.nowhere", "No such file", "truncate -s 64M"]);
    let odd = format!("data={}", web.file("odd", 1000));
    web.run(&["--block", &odd]).fails(75, &["device data", "1000 bytes", "truncate -s %512"]);
}

#[test]
fn an_unknown_argument_gets_a_suggestion() {
    let web = web();
    let disk = format!("data={}", web.file("disk", 512));
    let words = |argument| ["--block", disk.as_str(), "--", argument];
    web.run(&words("--prot=80")).fails(75, &["no argument --prot", "did you mean --port?"]);
    web.run(&words("--port=https")).fails(75, &["--port=https", "from 0 to 65535"]);
    web.run(&words("--zzz")).fails(75, &["--zzz", "it takes --port=<u16>"]);
}

#[test]
fn words_that_a_boot_command_line_cannot_carry() {
    let plain = Fixture::new(
        "",
        r#"{"name":"motd","type":"String","optional":true}"#,
        Code::default().exit(0),
    );
    plain.run(&["--", "--motd=say \"hi\""]).fails(75, &["--motd=say", "double quote"]);
    plain.run(&["--", "virtio_mmio.device=512@0x1:5"]).fails(75, &["virtio_mmio.device"]);
    let long = format!("--motd={}", "x".repeat(7000));
    plain.run(&["--", &long]).fails(75, &["6144", "block device"]);
}

#[test]
fn what_is_not_an_image_of_ours() {
    run(&["describe", "/bin/sh"]).fails(73, &["/bin/sh", "no Fata manifest", "fata build"]);
    run(&["run", "/bin/sh"]).fails(73, &["/bin/sh", "no Fata manifest"]);
    run(&["describe", "/etc/passwd"]).fails(73, &["/etc/passwd", "not even an ELF"]);
    run(&["describe", "/nonexistent"]).fails(74, &["/nonexistent", "No such file"]);
    run(&["describe", "/tmp"]).fails(73, &["/tmp", "not a file"]);
    let web = web();
    let path = web.path();
    run(&["run", path, "-t", "unix"]).fails(73, &["for virtio, not unix", "fata build -t unix"]);
    run(&["run", path, "--bin", "x"]).fails(2, &["nothing to choose"]);
}

#[test]
fn corrupt_and_truncated_images() {
    let web = web();
    let whole = std::fs::read(&web.image).unwrap();
    for length in [10, 64, 100, whole.len() / 2, whole.len() - 20] {
        std::fs::write(&web.image, &whole[..length]).unwrap();
        run(&["describe", web.path()]).fails(73, &[web.path(), "truncated", "build it again"]);
        web.run(&[]).fails(73, &[web.path(), "truncated"]);
    }
    let broken = image_bytes("{\"fata\":1", Code::default(), &[1; 20]);
    std::fs::write(&web.image, broken).unwrap();
    web.run(&[]).fails(73, &["corrupt image", "manifest does not parse"]);
    let newer = image_bytes("{\"fata\":2}", Code::default(), &[1; 20]);
    std::fs::write(&web.image, newer).unwrap();
    web.run(&[]).fails(73, &["format 2", "update"]);
    let future = image_bytes(&manifest("moon", "", ""), Code::default(), &[1; 20]);
    std::fs::write(&web.image, future).unwrap();
    web.run(&[]).fails(73, &["image for moon", "cannot run"]);
}

#[test]
fn too_little_memory() {
    let plain = Fixture::plain(Code::default().exit(0));
    plain.run(&["--memory", "1M"]).fails(76, &["--memory 1.0 MiB is too small", "at least 2M"]);
    plain.run(&["--memory", "lots"]).fails(2, &["lots", "64M"]);
    plain.run(&["--memory", "0"]).fails(2, &["some memory"]);
    // More than any computer has: QEMU's own words are understood.
    let said = plain.run(&["--memory", "60T".replace('T', "000G").as_str()]);
    assert!(matches!(said.code, Some(76 | 78)), "{said:#?}");
}

#[test]
fn a_port_in_use_is_named_with_its_holder() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let plain = Fixture::new(STACK, "", Code::default().print("booted").exit(0));
    let publish = format!("{port}:443");
    let said = plain.run(&["--publish", &publish]);
    let pid = format!("(process {})", std::process::id());
    said.fails(76, &[&format!("port {port}"), "in use by", &pid, "publish another"]);
    assert_eq!(said.stdout, "");
    plain.run(&["--publish", "https:443"]).fails(2, &["https", "--publish"]);
}

#[test]
fn no_qemu() {
    let plain = Fixture::plain(Code::default().exit(0));
    let empty = tempfile::tempdir().unwrap();
    answer(fata().env("PATH", empty.path()).arg("run").arg(&plain.image))
        .fails(77, &["QEMU is not installed", "apt install qemu-system-x86"]);
    answer(fata().env("FATA_QEMU", "/nonexistent/qemu").arg("run").arg(&plain.image))
        .fails(77, &["/nonexistent/qemu", "FATA_QEMU"]);
    // Asked before anything is built.
    answer(fata().env("PATH", empty.path()).args(["run", "/", "-t", "virtio"]))
        .fails(77, &["QEMU is not installed"]);
}

#[test]
fn a_tap_interface_that_is_not_there() {
    let plain = Fixture::new(STACK, "", Code::default().exit(0));
    plain
        .run(&["--net", "tap=nosuchtap0"])
        .fails(76, &["no network interface nosuchtap0", "ip tuntap add nosuchtap0"]);
    plain.run(&["--net", "tap=lo"]).fails(76, &["lo is not a TAP interface"]);
    plain
        .run(&["--net", "tap=lo", "--publish", "8443:443"])
        .fails(75, &["cannot be published", "address of its own"]);
    plain.run(&["--net", "cable"]).fails(2, &["expected user, tap=INTERFACE"]);
    plain.run(&["--net", "bridge=br0"]).fails(2, &["bridge=br0 is for Xen", "-t xen"]);
}

#[test]
fn no_package() {
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().to_str().unwrap();
    for command in ["build", "run"] {
        run(&[command, path]).fails(80, &[path, "no Cargo.toml", "fata new NAME"]);
    }
    run(&["build", "/nonexistent"]).fails(80, &["/nonexistent", "no such file"]);
    std::fs::write(empty.path().join("Cargo.toml"), "[package\n").unwrap();
    run(&["build", path]).fails(80, &["cargo cannot read", "Cargo.toml"]);
    std::fs::write(empty.path().join("Cargo.toml"), "[workspace]\n").unwrap();
    run(&["build", path]).fails(80, &["is a workspace, not a package"]);
    support::package(empty.path(), "p", "fn main() {}");
    run(&["build", path, "--bin", "q"]).fails(80, &["no binary q", "it has: p"]);
    run(&["build", path, "--example", "e"]).fails(80, &["no example e"]);
    let nothing = tempfile::tempdir().unwrap();
    answer(fata().env("PATH", nothing.path()).args(["build", path]))
        .fails(77, &["cargo is not installed", "rustup.rs"]);
}

#[test]
fn a_wrong_command_line() {
    run(&["biuld"]).fails(2, &["biuld", "build"]);
    run(&["run", "--publsh", "1:1"]).fails(2, &["--publsh", "--publish"]);
    run(&["build", "-t", "vritio"]).fails(2, &["vritio", "virtio"]);
    let web = web();
    run(&["run", web.path(), "--timeout", "0"]).fails(2, &["more than 0"]);
}

#[test]
fn json_failures_are_json() {
    let web = web();
    let said = web.run(&["--json"]);
    said.fails(75, &["needs the block device data"]);
    let value: serde_json::Value = serde_json::from_str(&said.stdout).expect("one JSON object");
    assert_eq!(value["event"], "failed");
    assert_eq!(value["exit_code"], 75);
    assert!(value["error"].as_str().unwrap().contains("data"));
    assert!(value["help"].as_str().unwrap().contains("--block data=FILE"));
}

#[test]
fn no_colour_where_there_is_no_terminal() {
    let web = web();
    assert!(!web.run(&[]).stderr.contains('\x1b'));
    assert!(web.run(&["--color", "always"]).stderr.contains("\x1b[1;31merror\x1b[0m"));
}

#[test]
fn new_does_not_touch_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    run(&["new", path]).fails(80, &[path, "exists already"]);
    let bad = format!("{path}/1st");
    run(&["new", &bad]).fails(80, &["cannot make the package", "1st"]);
    run(&["new", &format!("{path}/ok"), "--fata-path", "/tmp"]).fails(2, &["not the crate fata"]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
}
