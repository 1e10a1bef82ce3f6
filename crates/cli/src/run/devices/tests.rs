//! What is attached, and what is refused.

use super::*;
use crate::run::request::Disk;

/// On virtio, without settings.
fn attach(
    manifest: &Manifest,
    nets: &[Net],
    blocks: &[Block],
    published: &[Publish],
) -> Result<Devices> {
    on(Target::Virtio, manifest, nets, blocks, published, &[])
}

/// On `target`, with the settings that `given` lists as `DEVICE.SETTING`.
fn on(
    target: Target,
    manifest: &Manifest,
    nets: &[Net],
    blocks: &[Block],
    published: &[Publish],
    given: &[&str],
) -> Result<Devices> {
    let attached =
        Attached { nets, blocks, published, default_link: &Link::User, files_are_here: true };
    super::attach(manifest, target, attached, |device, setting| {
        given.contains(&format!("{device}.{setting}").as_str())
    })
}

fn manifest(devices: &str) -> Manifest {
    let text = format!(
        r#"{{"fata":1,"package":"web","version":"1.0.0","target":"virtio","devices":[{devices}]}}"#
    );
    Manifest::parse(text.as_bytes()).unwrap()
}

fn web() -> Manifest {
    manifest(
        r#"{"name":"service","kind":"stack"},{"name":"admin","kind":"stack"},
           {"name":"data","kind":"block","help":"Holds all."}"#,
    )
}

fn disk(name: &str, bytes: u64) -> (tempfile::NamedTempFile, Block) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(bytes).unwrap();
    let block = Block { name: name.into(), disk: Disk::File(file.path().into()), read_only: false };
    (file, block)
}

#[test]
fn every_device_gets_one_thing_in_the_manifests_order() {
    let (_file, block) = disk("data", 1024);
    let nets = ["admin:tap=tap7".parse().unwrap()];
    let published = ["8443:443".parse().unwrap(), "udp:53:53@service".parse().unwrap()];
    let devices = attach(&web(), &nets, std::slice::from_ref(&block), &published).unwrap();
    assert_eq!(devices.blocks, [block]);
    let [service, admin] = devices.cards.as_slice() else { panic!("{devices:?}") };
    assert_eq!((service.device.as_str(), &service.link), ("service", &Link::User));
    assert_eq!(service.published.len(), 2);
    assert_eq!(admin.link, Link::Tap { interface: "tap7".into() });
    assert_ne!(service.mac, admin.mac);
    assert_eq!(service.mac, mac_of("web", "service"));
    assert_eq!(service.mac.0[0] & 3, 2, "unicast and locally administered");
}

#[test]
fn a_missing_device_is_named_with_what_it_is_for() {
    let failure = attach(&web(), &[], &[], &[]).unwrap_err();
    assert_eq!(failure.exit, Exit::Refused);
    let text = failure.to_string();
    assert!(text.contains("needs the block device data"), "{text}");
    assert!(text.contains("--block data=FILE (Holds all)"), "{text}");
}

#[test]
fn an_optional_device_may_be_left_out() {
    let mut manifest = web();
    manifest.devices[2].optional = true;
    assert_eq!(attach(&manifest, &[], &[], &[]).unwrap().blocks, []);
}

#[test]
fn unknown_devices_are_refused_with_the_known_ones() {
    let (_file, block) = disk("dta", 512);
    let text = attach(&web(), &[], &[block], &[]).unwrap_err().to_string();
    assert!(text.contains("did you mean data?") && text.contains("devices: data"), "{text}");
    let net = "servce:user".parse().unwrap();
    let text = attach(&web(), &[net], &[], &[]).unwrap_err().to_string();
    assert!(text.contains("did you mean service?"), "{text}");
    let lonely = manifest("");
    let publish = ["1:1".parse().unwrap()];
    assert!(attach(&lonely, &[], &[], &publish).unwrap_err().what.contains("no stack"));
    let user = ["user".parse().unwrap()];
    assert!(attach(&lonely, &user, &[], &[]).unwrap_err().what.contains("no stack"));
    let (_file, block) = disk("data", 512);
    let failure = attach(&lonely, &[], &[block], &[]).unwrap_err();
    assert!(failure.help.unwrap().contains("leave out --block"));
}

#[test]
fn what_is_given_twice_is_refused() {
    let (_file, block) = disk("data", 512);
    let twice = [block.clone(), block.clone()];
    assert!(attach(&web(), &[], &twice, &[]).unwrap_err().what.contains("twice"));
    let nets = ["tap=t".parse().unwrap()];
    let shared = attach(&web(), &nets, std::slice::from_ref(&block), &[]).unwrap_err();
    assert!(shared.what.contains("share t"), "{shared}");
    let nets = ["user".parse().unwrap(), "user".parse().unwrap()];
    assert!(
        attach(&web(), &nets, std::slice::from_ref(&block), &[])
            .unwrap_err()
            .what
            .contains("twice")
    );
    let ports = ["80:1".parse().unwrap(), "80:2".parse().unwrap()];
    assert!(attach(&web(), &[], &[block], &ports).unwrap_err().what.contains("twice"));
}

#[test]
fn a_tap_has_nothing_to_publish() {
    let (_file, block) = disk("data", 512);
    let nets = ["service:tap=t".parse().unwrap()];
    let ports = ["80:80@service".parse().unwrap()];
    let failure = attach(&web(), &nets, &[block], &ports).unwrap_err();
    assert!(failure.what.contains("address of its own"), "{failure}");
}

#[test]
fn files_that_are_no_disks_are_refused() {
    let attach_one = |block: Block| attach(&web(), &[], &[block], &[]).unwrap_err();
    for bytes in [0, 1, 513] {
        let (_file, block) = disk("data", bytes);
        assert!(attach_one(block).what.contains("sectors"));
    }
    let block =
        |file: &str| Block { name: "data".into(), disk: Disk::File(file.into()), read_only: true };
    assert_eq!(attach_one(block("/nonexistent")).exit, Exit::Io);
    assert!(attach_one(block("/tmp")).what.contains("neither"));
}

#[test]
fn kinds_of_the_future_are_refused_by_name() {
    let future = manifest(r#"{"name":"eye","kind":"camera"}"#);
    assert!(attach(&future, &[], &[], &[]).unwrap_err().what.contains("camera"));
}

/// A TAP interface of a network namespace whose /sys nobody mounted: the outer one's stays.
#[test]
fn a_tap_interface_is_found_in_the_namespace_that_it_is_in() {
    let probe = "ip tuntap add fatatap7 mode tap && ls -d /sys/class/net/fatatap7";
    let make = |script: &str| {
        std::process::Command::new("unshare").args(["--net", "sh", "-c", script]).output()
    };
    match make("ip tuntap add fatatap7 mode tap") {
        Ok(made) if made.status.success() => {}
        _ => return eprintln!("skipped: no network namespace with a TAP can be made (not root?)"),
    }
    assert!(!make(probe).expect("it was made before").status.success(), "/sys is the outer one's");
    // This test, in there.
    let own = std::env::current_exe().expect("a path");
    let script = format!(
        "ip tuntap add fatatap7 mode tap && '{}' --exact --ignored --nocapture {}",
        own.display(),
        "run::devices::tests::check_fatatap7_within_the_namespace"
    );
    let inner = make(&script).expect("it was made before");
    let said = String::from_utf8_lossy(&inner.stdout);
    assert!(inner.status.success() && said.contains("1 passed"), "{inner:?}");
}

#[test]
#[ignore = "a part of a_tap_interface_is_found_in_the_namespace_that_it_is_in"]
fn check_fatatap7_within_the_namespace() {
    check_tap("fatatap7").expect("it is there");
    assert!(check_tap("fatatap8").unwrap_err().what.contains("no network interface fatatap8"));
}

#[test]
fn taps_that_are_none_are_told_apart() {
    assert!(check_tap("lo").unwrap_err().what.contains("not a TAP"));
    let missing = check_tap("nosuchtap0").unwrap_err();
    assert!(missing.help.unwrap().contains("ip tuntap add nosuchtap0"));
}

/// A router: two cards of its own, and those whom it serves.
fn router() -> Manifest {
    manifest(
        r#"{"name":"inner","kind":"interface"},{"name":"downstream","kind":"clients"},
           {"name":"admin","kind":"stack"}"#,
    )
}

fn nets(texts: &[&str]) -> Vec<Net> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn stacks_and_interfaces_share_the_order_and_clients_come_last() {
    let nets = nets(&["inner:tap=t1", "downstream:tap=t2", "downstream:tap=t3"]);
    let devices = attach(&router(), &nets, &[], &[]).unwrap();
    let seen: Vec<_> = devices.cards.iter().map(|card| (card.device.as_str(), card.role)).collect();
    let wanted = [
        ("inner", Role::Interface),
        ("admin", Role::Stack),
        ("downstream", Role::Client),
        ("downstream", Role::Client),
    ];
    assert_eq!(seen, wanted);
    let macs: std::collections::HashSet<Mac> = devices.cards.iter().map(|card| card.mac).collect();
    assert_eq!(macs.len(), 4, "each card has an address of its own");
    assert!(!devices.serves, "there are no driver domains in QEMU");
}

#[test]
fn clients_need_somebody_where_nobody_comes_by_himself() {
    let failure = attach(&router(), &[], &[], &[]).unwrap_err();
    assert!(failure.what.contains("clients downstream"), "{failure}");
    assert!(failure.help.unwrap().contains("--net downstream:tap=INTERFACE for each"));
    let devices = on(Target::Xen, &router(), &[], &[], &[], &[]).unwrap();
    assert_eq!(devices.cards.len(), 2);
    assert!(devices.serves, "it is a driver domain");
    let named = nets(&["downstream:backend=other"]);
    let failure = on(Target::Xen, &router(), &named, &[], &[], &[]).unwrap_err();
    assert!(failure.help.unwrap().contains("backend=NAME"));
}

#[test]
fn on_unix_an_interface_needs_a_tap() {
    let manifest = manifest(r#"{"name":"wire","kind":"interface"}"#);
    let unix = |nets: &[Net], given: &[&str]| on(Target::Unix, &manifest, nets, &[], &[], given);
    let failure = unix(&[], &[]).unwrap_err();
    assert!(failure.help.unwrap().contains("--net wire:tap=INTERFACE"));
    assert_eq!(unix(&[], &["wire.tap"]).unwrap().cards, []);
    assert_eq!(unix(&nets(&["tap=t"]), &[]).unwrap().cards.len(), 1);
    let failure = unix(&nets(&["tap=t,mac=52:54:00:00:00:01"]), &[]).unwrap_err();
    assert!(failure.what.contains("the TAP has the address"), "{failure}");
}

#[test]
fn links_of_xen_are_refused_elsewhere() {
    let stack = manifest(r#"{"name":"service","kind":"stack"}"#);
    for text in ["bridge=xenbr0", "backend=firewall"] {
        let nets = nets(&[text]);
        for target in [Target::Unix, Target::Virtio] {
            let failure = on(target, &stack, &nets, &[], &[], &[]).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.what.contains(text) && failure.what.contains("for Xen"), "{failure}");
        }
        let devices = on(Target::Xen, &stack, &nets, &[], &[], &[]).unwrap();
        assert_eq!(devices.cards[0].link.typed(), text);
        let publish = ["80:80".parse().unwrap()];
        let failure = on(Target::Xen, &stack, &nets, &[], &publish, &[]).unwrap_err();
        assert!(failure.what.contains("address of its own"), "{failure}");
    }
    let disk = manifest(r#"{"name":"data","kind":"block"}"#);
    let served = ["data=backend=store".parse().unwrap()];
    assert_eq!(attach(&disk, &[], &served, &[]).unwrap_err().exit, Exit::Usage);
    assert!(on(Target::Xen, &disk, &[], &served, &[], &[]).is_ok());
}

#[test]
fn kinds_that_a_target_lacks_are_refused_unless_optional() {
    for (kind, lacking) in
        [("channel", &[Target::Virtio][..]), ("export", &[Target::Virtio, Target::Unix])]
    {
        for target in lacking {
            let mut manifest = manifest(&format!(r#"{{"name":"it","kind":"{kind}"}}"#));
            let failure = on(*target, &manifest, &[], &[], &[], &[]).unwrap_err();
            assert!(failure.help.unwrap().contains("-t xen"));
            manifest.devices[0].optional = true;
            assert!(on(*target, &manifest, &[], &[], &[], &[]).is_ok());
        }
    }
}

#[test]
fn a_channel_must_be_told_where_it_leads() {
    let mut manifest = manifest(r#"{"name":"peer","kind":"channel","help":"Who echoes."}"#);
    let xen = |manifest: &Manifest, given: &[&str]| {
        on(Target::Xen, manifest, &[], &[], &[], given).map(|_| ())
    };
    let failure = xen(&manifest, &["peer.port"]).unwrap_err();
    let help = failure.help.unwrap();
    assert!(help.contains("--peer.peer=DOMAIN-NUMBER (Who echoes)"), "{help}");
    xen(&manifest, &["peer.peer"]).unwrap();
    on(Target::Unix, &manifest, &[], &[], &[], &["peer.path"]).unwrap();
    manifest.devices[0].optional = true;
    xen(&manifest, &[]).unwrap();
}

#[test]
fn cards_with_the_same_address_are_refused() {
    let nets = nets(&["service:tap=a,mac=52:54:00:00:00:01", "admin:tap=b,mac=52:54:00:00:00:01"]);
    let (_file, block) = disk("data", 512);
    let failure = attach(&web(), &nets, &[block], &[]).unwrap_err();
    assert!(failure.what.contains("service and admin have the same MAC"), "{failure}");
}
