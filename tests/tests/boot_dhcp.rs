//! `examples/dhcp`, asked by `udhcpc` and `dhclient`: as a process and as a machine on a TAP
//! interface, and as a guest of Xen beside a Linux guest.

use fata_testbed::{Guest, Linux, Options, Testbed, Vif};
use fata_tests::{Machine, Network, build, fata};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// What the server is told.
const ARGUMENTS: [&str; 7] = [
    "--service.address=10.0.0.1/24",
    "--first=10.0.0.100",
    "--last=10.0.0.109",
    "--router=10.0.0.254",
    "--dns=10.0.0.53",
    "--domain=example.test",
    "--lease=120",
];

/// What both clients run with what they got: it is told to the test, and to nobody else.
const SCRIPT: &str = "#!/bin/sh
{ echo \"event=${1:-$reason}\"; set; } > \"$(dirname \"$0\")/result.new\"
mv \"$(dirname \"$0\")/result.new\" \"$(dirname \"$0\")/result-${1:-$reason}\"
";

/// The variables that the client's script had at `event`.
fn variables(folder: &Path, event: &str) -> HashMap<String, String> {
    let file = folder.join(format!("result-{event}"));
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    std::fs::remove_file(file).expect("it was there");
    let variables = text.lines().filter_map(|line| line.split_once('='));
    variables
        .map(|(name, value)| (name.to_string(), value.trim_matches('\'').to_string()))
        .collect()
}

#[test]
fn linux_clients_get_renew_and_give_back_addresses_on_tap() {
    let Some(network) = Network::new("dhcp", None) else {
        eprintln!("skipped: no network namespace with a TAP can be made here (not root?)");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(file("script"), SCRIPT).expect("a script");
    assert!(std::process::Command::new("chmod").args(["+x", &file("script")]).status().is_ok());
    for target in ["unix", "virtio"] {
        let image = build("examples/dhcp", target);
        let mut command = network.command(fata().get_program().to_str().expect("UTF-8"));
        command.args(["run", "-t", target, "--net", "tap=tap0"]).arg(&image);
        command.arg("--").args(ARGUMENTS);
        let mut running = Machine::spawn(command);
        running.wait_for("giving 10.0.0.100 to 10.0.0.109");

        // udhcpc takes unicast, and broadcast if it says so.
        let udhcpc = |more: &[&str]| {
            let script = file("script");
            let how = ["-f", "-i", "tap0", "-n", "-q", "-t", "8", "-T", "3", "-s", &script];
            network.output("udhcpc", &[&how, more].concat());
            variables(folder.path(), "bound")
        };
        let lease = udhcpc(&[]);
        let address = lease["ip"].clone();
        assert!(address.starts_with("10.0.0.10"), "{lease:?}");
        for (name, value) in [
            ("subnet", "255.255.255.0"),
            ("router", "10.0.0.254"),
            ("dns", "10.0.0.53"),
            ("domain", "example.test"),
            ("lease", "120"),
            ("serverid", "10.0.0.1"),
        ] {
            assert_eq!(lease.get(name).map(String::as_str), Some(value), "{name}: {lease:?}");
        }
        assert_eq!(udhcpc(&["-B"])["ip"], address, "the same client, by broadcast");
        let other = udhcpc(&["-C", "-x", "0x3d:ff010203"])["ip"].clone();
        assert_ne!(other, address, "another client");
        // It asks for what somebody else has, and gets something else.
        let third = udhcpc(&["-C", "-x", "0x3d:ff040506", "-r", &other])["ip"].clone();
        assert!(third != other && third != address, "{third}");
        // For what nobody has, and gets it.
        let mut free = (100..110).map(|last| format!("10.0.0.{last}"));
        let free = free.rfind(|it| ![&address, &other, &third].contains(&it)).unwrap();
        assert_eq!(udhcpc(&["-C", "-x", "0x3d:ff070809", "-r", &free])["ip"], free);

        // The address works.
        assert!(network.ip(&["addr", "add", &format!("{address}/24"), "dev", "tap0"]));
        let ping = network.output("ping", &["-c", "2", "-i", "0.2", "-W", "10", "10.0.0.1"]);
        assert!(ping.contains(" 0% packet loss"), "{ping}");
        assert!(network.ip(&["addr", "flush", "dev", "tap0"]));

        // dhclient: other options, another way to ask; it gives the address back.
        let dhclient = |more: &[&str]| {
            let (script, leases, pid) = (file("script"), file("leases"), file("pid"));
            let how = ["-sf", &script, "-lf", &leases, "-pf", &pid];
            network.output("dhclient", &[&how, more, &["tap0"]].concat());
        };
        dhclient(&["-1", "-v"]);
        let lease = variables(folder.path(), "BOUND");
        assert_eq!(lease["new_subnet_mask"], "255.255.255.0", "{lease:?}");
        assert_eq!(lease["new_routers"], "10.0.0.254");
        assert_eq!(lease["new_domain_name_servers"], "10.0.0.53");
        assert_eq!(lease["new_dhcp_lease_time"], "120");
        assert!(lease["new_ip_address"].starts_with("10.0.0.10"), "{lease:?}");
        dhclient(&["-r", "-v"]);
        // After it boots again it asks whether its address is still right, or for another.
        let _ = std::fs::remove_file(file("result-RELEASE"));
        dhclient(&["-1", "-v"]);
        let again = ["BOUND", "REBOOT"]
            .into_iter()
            .find(|event| folder.path().join(format!("result-{event}")).exists());
        let again = variables(folder.path(), again.expect("an address"));
        assert_eq!(again["new_ip_address"], lease["new_ip_address"]);
        dhclient(&["-x", "-v"]);
        let _ = std::fs::remove_file(file("leases"));
    }
}

#[test]
fn a_linux_guest_gets_its_address_from_ours_on_xen() {
    const PATIENCE: Duration = Duration::from_secs(180);
    // Before the host is there: building takes its time.
    let image = build("examples/dhcp", "xen");
    let host = Testbed::start(&Options::default(), &mut |step| println!("{step}"));
    let host = host.expect("the host boots");
    // A bridge of their own: on the other one QEMU gives addresses.
    let script = "ip link add link0 type bridge forward_delay 0 && ip link set link0 up";
    assert_eq!(host.dom0(script, PATIENCE).expect("dom0 answers").status, 0);
    let mut server = Guest::new("dhcp", image);
    server.command_line = ARGUMENTS.join(" ");
    server.native_tsc = true;
    server.vifs.push(Vif::bridge("link0"));
    let server = host.create(&server).expect("it is created");
    server.wait_for("giving 10.0.0.100", PATIENCE).unwrap_or_else(|error| panic!("{error}"));

    let folder = tempfile::tempdir().expect("a folder");
    let script = "echo '#!/bin/sh
            [ \"$1\" = bound ] || exit 0
            ifconfig eth0 $ip netmask $subnet up
            echo got $ip $subnet $router $dns $domain $lease' > /tmp/script
        chmod +x /tmp/script; ifconfig eth0 up
        udhcpc -f -i eth0 -n -q -t 10 -T 5 -s /tmp/script && ping -c 3 -W 20 10.0.0.1";
    let mut linux = Linux::new(script).guest(&host, "linux", folder.path()).expect("a guest");
    linux.vifs.push(Vif::bridge("link0"));
    let domain = host.create(&linux).expect("it is created");
    let ended = domain.wait(PATIENCE).expect("the host lives");
    let console = String::from_utf8_lossy(&domain.console()).into_owned();
    assert_eq!(ended.and_then(|ended| ended.exit_code), Some(0), "{console}");
    let rest = "255.255.255.0 10.0.0.254 10.0.0.53 example.test 120";
    assert!(console.contains("got 10.0.0.10") && console.contains(rest), "{console}");
    assert!(console.contains(" 0% packet loss"), "{console}");
}
