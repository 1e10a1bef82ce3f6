//! The target xen, as far as it goes without a Xen host: what is refused before one is asked for, and
//! the configuration that `fata config` writes.

mod support;

use support::{BLOCK, Code, Fixture, PORT, STACK, answer, fata, run};

const ROUTER: &str = r#"{"name":"inner","kind":"interface","help":"The inner network."},
    {"name":"downstream","kind":"clients","help":"Whom it serves."}"#;

fn web() -> Fixture {
    Fixture::on("xen", &[STACK, BLOCK].join(","), PORT, Code::default())
}

#[test]
fn a_missing_device_is_refused_without_a_host() {
    web().run(&[]).fails(75, &["web needs the block device data", "--block data=FILE"]);
}

#[test]
fn options_of_other_targets_are_refused() {
    let web = web();
    web.run(&["--machine", "q35"]).fails(2, &["--machine is not for xen", "-t virtio"]);
    web.run(&["--accel", "kvm"]).fails(2, &["--accel is not for xen"]);
    web.run(&["--name", "a b"]).fails(2, &["no name of a domain"]);
    let plain = Fixture::plain(Code::default().exit(0));
    plain.run(&["--xen", "testbed"]).fails(2, &["--xen is not for virtio", "-t xen"]);
    plain.run(&["--name", "web"]).fails(2, &["--name is not for virtio"]);
}

#[test]
fn a_computer_that_is_no_xen_host_is_told_so() {
    if std::path::Path::new("/proc/xen/capabilities").exists() {
        return; // here it would be one
    }
    let plain = Fixture::on("xen", "", "", Code::default());
    plain.run(&["--xen", "host"]).fails(76, &["is no Xen host", "--xen testbed"]);
    // Asked before anything is built.
    answer(fata().args(["run", "/", "-t", "xen", "--xen", "host"])).fails(76, &["is no Xen host"]);
}

#[test]
fn clients_come_to_xen_by_themselves() {
    let router = Fixture::on("xen", ROUTER, "", Code::default());
    router
        .run(&["--net", "downstream:backend=other"])
        .fails(75, &["the clients come by themselves", "backend=NAME"]);
}

#[test]
fn a_configuration_proposes_what_is_not_named() {
    let web = web();
    let said = run(&["config", web.path()]);
    let text = said.succeeds();
    let kernel = format!("kernel = \"{}\"", web.path());
    for line in [
        "# web 0.1.0, an image for Xen. Start it: xl create -c FILE",
        "# Serves pages.",
        "# Its arguments, for cmdline: --port=<u16> [443]",
        "# vif 1: service (stack): The network",
        "# disk xvda: data (block): Holds the pages",
        "#   Its path is a proposal; --block data=FILE says another.",
        "name = \"web\"",
        "type = \"pvh\"",
        &kernel,
        "cmdline = \"--data.vdev=xvda\"",
        "memory = 32",
        "on_reboot = \"restart\"",
        "on_crash = \"destroy\"",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line:?} in {text}");
    }
    let disk = "format=raw,vdev=xvda,access=rw,target=/var/lib/xen/images/web-data.img";
    assert!(text.contains(disk), "{text}");
    assert!(text.contains(",bridge=xenbr0\""), "{text}");
    assert!(!text.contains("driver_domain"), "{text}");
}

#[test]
fn a_configuration_holds_what_is_named() {
    let web = web();
    let file = web.directory.path().join("web.cfg");
    let words = [
        "config",
        web.path(),
        "--name",
        "shop",
        "--memory",
        "64M",
        "--block",
        "data=/dev/vg/a \"b\",ro",
        "--net",
        "service:backend=firewall,mac=00:16:3e:00:00:07",
        "-o",
        file.to_str().unwrap(),
        "--",
        "RUST_LOG=debug",
        "--port=80",
        "--service.address=192.0.2.2/24",
    ];
    assert_eq!(run(&words).succeeds(), "");
    let text = std::fs::read_to_string(file).unwrap();
    for words in [
        "name = \"shop\"\n",
        "memory = 64\n",
        "cmdline = \"RUST_LOG=debug --port=80 --service.address=192.0.2.2/24 --data.vdev=xvda\"\n",
        "\"mac=00:16:3e:00:00:07,backend=firewall\"",
        "\"format=raw,vdev=xvda,access=ro,target=/dev/vg/a \\\"b\\\"\"",
    ] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    assert!(!text.contains("proposal"), "{text}");
}

#[test]
fn who_serves_others_is_a_driver_domain() {
    let router = Fixture::on("xen", ROUTER, "", Code::default());
    let said = run(&["config", router.path()]);
    let text = said.succeeds();
    assert!(text.contains("driver_domain = 1"), "{text}");
    assert!(text.contains("backend=web"), "{text}");
    assert_eq!(text.matches("bridge=xenbr0").count(), 1, "clients are no vifs: {text}");
}

#[test]
fn a_configuration_is_refused_for_what_it_cannot_hold() {
    let web = web();
    let config = |words: &[&str]| run(&[&["config", web.path()], words].concat());
    config(&["--net", "user"]).fails(75, &["--net user", "bridge=BRIDGE"]);
    config(&["--block", "dta=/f"]).fails(75, &["no block device dta", "did you mean data?"]);
    config(&["--", "--prot=1"]).fails(75, &["did you mean --port?"]);
    config(&["--", "--data.vdev=sda"]).fails(75, &["--data.vdev=sda", "xvda"]);
    config(&["--for", "vmware"]).fails(2, &["vmware", "xl"]);
    config(&["--", "A=b\nc"]).fails(75, &["command line", "control character"]);
    config(&["-o", "/nonexistent/web.cfg"]).fails(74, &["/nonexistent/web.cfg"]);
    let virtio = Fixture::plain(Code::default());
    run(&["config", virtio.path()]).fails(73, &["for virtio, not for Xen", "-t xen"]);
}

#[test]
fn a_text_of_the_manifest_cannot_become_configuration() {
    let stack = r#"{"name":"service","kind":"stack","help":"Net\nkernel = '/evil'"}"#;
    let image = Fixture::on("xen", stack, "", Code::default());
    let said = run(&["config", image.path()]);
    let kernels = said.succeeds().lines().filter(|line| line.trim().starts_with("kernel"));
    assert_eq!(kernels.count(), 1, "{said:#?}");
}
