//! Guests on a real Xen host to whom things happen: they are saved and restored, typed at, lied to, and
//! left by their neighbours.

use fata_testbed::{Disk, DiskSource, Domain, Guest, Testbed, Vif};
use fata_tests::build;
use fata_tests::xen::{PATIENCE, dom0, guest, host, start, succeeds, turn};
use std::time::{Duration, Instant};

/// One that does a job of `tests/guests`, without devices.
fn worker(name: &str, command_line: &str) -> Guest {
    Guest {
        command_line: command_line.to_owned(),
        ..Guest::new(name, build("tests/guests", "xen"))
    }
}

#[track_caller]
fn wait_for(domain: &Domain, text: &str) {
    domain.wait_for(text, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
}

/// Runs a script in dom0 again and again until it prints `expected`.
#[track_caller]
fn until(host: &Testbed, script: &str, expected: &str) -> String {
    let begin = Instant::now();
    loop {
        let said = dom0(host, script);
        if said.contains(expected) {
            return said;
        }
        assert!(begin.elapsed() < PATIENCE, "{script}: no {expected:?} in {said:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_guest_with_card_and_disk_is_saved_and_restored_and_answers_again() {
    let _turn = turn();
    let host = host();
    dom0(&host, "dd if=/dev/zero of=/tmp/disk bs=1k count=64 2>/dev/null");
    let mut keeper = guest("keeper", "tests/guests", "--job=keep --service.address=10.0.2.60/24");
    let source = DiskSource::Dom0("/tmp/disk".to_owned());
    keeper.disks.push(Disk { vdev: "xvda".to_owned(), source, read_only: false });
    let first = start(&host, &keeper, "keeping on port 7");
    // Where a frame to an interface goes that has just come back is for the bridge to learn; until then
    // QEMU's network hears it too, and answers for whom it does not know.
    let ask = |line: &str, answer: &str| {
        let script = format!("echo {line} | timeout 20 nc -w 10 10.0.2.60 7 2>&1 || true");
        let begin = Instant::now();
        loop {
            let said = dom0(&host, &script);
            if said.trim() == answer {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{line}: {said}");
        }
    };
    ask("put marble", "kept");

    // Suspended, and goes on: its backends have noticed nothing.
    dom0(&host, "xl save -c keeper /tmp/keeper.save && rm /tmp/keeper.save");
    wait_for(&first, "the host went on without suspending");
    ask("get", "marble");

    // Saved, and restored as another domain, with other backends.
    dom0(&host, "xl save keeper /tmp/keeper.save");
    dom0(&host, "xl restore /tmp/keeper.save");
    let second = host.adopt("keeper").expect("it was restored");
    assert_ne!(second.id(), first.id());
    ask("get", "marble");
    ask("put pebble", "kept");
    assert_eq!(dom0(&host, "head -c 6 /tmp/disk"), "pebble", "it is that disk");
    second.shutdown().expect("it is asked");
    succeeds(&second);
}

#[test]
fn what_is_typed_on_the_console_reaches_the_program() {
    let _turn = turn();
    let host = host();
    let talker = start(&host, &worker("talker", "--job=console"), "say something");
    // As the return key does, and as a script does.
    talker.console_write(b"good morning\r").expect("typed");
    wait_for(&talker, "you said \"good morning\"");
    // Three times the ring.
    let long = "abcdefghij".repeat(300);
    talker.console_write(format!("{long}\nshort\n").as_bytes()).expect("typed");
    wait_for(&talker, &format!("you said \"{long}\""));
    wait_for(&talker, "you said \"short\"");
    talker.console_write(b"end\r").expect("typed");
    assert!(succeeds(&talker).contains("that is all"));
}

#[test]
fn a_neighbour_that_is_destroyed_ends_its_stream_and_no_other() {
    let _turn = turn();
    let host = host();
    // Domains are numbered in the order of their creation; nobody else is on this host.
    let probe = host.create(&guest("probe", "examples/hello", "")).expect("it is created").id();
    let (first, second) = (probe + 2, probe + 3);
    let line = format!("--job=accept --neighbour.peer={first} --second.peer={second}");
    let server = start(&host, &worker("server", &line), "waiting for the first");
    let line = format!("--job=connect --neighbour.peer={}", server.id());
    let client = start(&host, &worker("client", &line), "the neighbour says hello");
    assert_eq!((server.id(), client.id()), (probe + 1, first));
    wait_for(&server, "the first says hello");

    client.destroy().expect("it is destroyed");
    wait_for(&server, "the first has gone");
    // It goes on: whoever comes next is served.
    let line = format!("{line} --neighbour.port=second");
    let next = start(&host, &worker("next", &line), "the neighbour says hello");
    assert_eq!(next.id(), second);
    wait_for(&server, "the second says hello");
    let said = String::from_utf8_lossy(&server.console()).into_owned();
    assert_eq!(said.matches("waiting for the first").count(), 2, "{said}");

    server.destroy().expect("it is destroyed");
    wait_for(&next, "the neighbour has gone");
}

#[test]
fn a_guest_that_lies_on_a_ring_loses_its_interface_and_the_others_keep_theirs() {
    let _turn = turn();
    let host = host();
    let mut router = guest("router", "examples/router", "--address=10.0.2.50/24");
    router.driver_domain = true;
    let router = start(&host, &router, "10.0.2.50");
    dom0(&host, "ip route add 10.77.0.0/16 via 10.0.2.50");
    let line = "--service.address=10.77.1.2/24 --service.gateway=10.77.1.1";
    let mut honest = guest("honest", "examples/http", line);
    honest.vifs = vec![Vif::backend("router")];
    let _honest = start(&host, &honest, "listening on");
    let answers = || {
        let page = dom0(&host, "wget -q -O - http://10.77.1.2/");
        assert!(page.contains("Hello from a machine"), "{page}");
    };
    answers();

    let mut liar = worker("liar", &format!("--job=lie --victim={}", router.id()));
    // The first interface is taken by the stack of its manifest, the second by nobody.
    liar.vifs.push(Vif::bridge(fata_testbed::BRIDGE));
    liar.vifs.push(Vif::backend("router"));
    let liar = host.create(&liar).expect("it is created");
    let said = liar.wait_for(" end", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let said = String::from_utf8_lossy(&said).into_owned();
    let rings = said.lines().find_map(|line| line.trim().strip_prefix("rings ")).expect("rings");
    let [transmit, receive, port, _] = rings.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{rings}")
    };
    let frontend = format!("/local/domain/{}/device/vif/1", liar.id());
    let backend = format!("/local/domain/{}/backend/vif/{}/1", router.id(), liar.id());
    let state = format!("xenstore-read {backend}/state");
    until(&host, &state, "2");
    dom0(
        &host,
        &format!(
            "f={frontend}; xenstore-write $f/tx-ring-ref {transmit} $f/rx-ring-ref {receive} \
             $f/event-channel {port} $f/request-rx-copy 1 $f/feature-rx-notify 1 $f/feature-sg 1 \
             $f/state 4"
        ),
    );
    until(&host, &state, "4");
    liar.console_write(b"lie\n").expect("typed");
    wait_for(&liar, "lied");
    wait_for(&router, "refused: ");

    // Said where the toolstack looks, and closed; the neighbour has noticed nothing.
    let node = format!("/local/domain/{}/error/backend/vif/{}/1/error", router.id(), liar.id());
    let told = until(&host, &format!("xenstore-read {node} || true"), "71 ");
    assert!(told.contains(&frontend) && told.contains("req_prod"), "{told}");
    until(&host, &state, "5");
    answers();

    // The toolstack takes the device away: netback removes its directory.
    dom0(&host, &format!("xenstore-write {frontend}/state 6"));
    dom0(&host, &format!("xl network-detach {} 1", liar.id()));
    until(&host, &format!("xenstore-exists {backend} || echo gone"), "gone");
    answers();
}

/// What an administrator may get wrong in a guest's configuration: each time the guest says what, with
/// an exit code, and leaves no trace of a panic.
#[test]
fn a_configuration_that_does_not_fit_the_image_gets_a_message() {
    let _turn = turn();
    let host = host();
    dom0(
        &host,
        "for disk in a b; do dd if=/dev/zero of=/tmp/$disk bs=1k count=64; done 2>/dev/null",
    );
    let disk = |vdev: &str, file: &str| Disk {
        vdev: vdev.to_owned(),
        source: DiskSource::Dom0(format!("/tmp/{file}")),
        read_only: false,
    };
    let plain = |folder: &str, line: &str| {
        let mut guest = guest("wrong", folder, line);
        guest.vifs.clear();
        guest
    };
    let with_disks = |line: &str, disks: &[Disk]| {
        let mut guest = plain("examples/block", line);
        guest.disks = disks.to_vec();
        guest
    };
    let cases = [
        (plain("examples/http", ""), 69, "its configuration needs a `vif`"),
        (plain("examples/block", ""), 69, "its configuration needs one in `disk`"),
        (with_disks("--data.vdev=xvdz", &[disk("xvda", "a")]), 69, "xvdz"),
        (with_disks("", &[disk("xvda", "a"), disk("xvdb", "b")]), 69, "data"),
        (guest("wrong", "examples/http", "--service.address=up"), 2, "service.address"),
        (guest("wrong", "examples/http", "--port=up"), 2, "port"),
        (guest("wrong", "examples/http", "--no-such=up"), 2, "no-such"),
        (plain("examples/channel", ""), 69, "it needs to know its neighbour"),
        (plain("examples/channel", "--neighbour.peer=me"), 2, "a domain's number"),
        (plain("examples/channel", "\"\\ '"), 108, "is never closed"),
    ];
    for (index, (mut guest, code, message)) in cases.into_iter().enumerate() {
        guest.name = format!("wrong{index}");
        let domain = host.create(&guest).expect("it is created");
        let ended = domain.wait(PATIENCE).expect("the host lives").expect("it ends");
        let said = String::from_utf8_lossy(&domain.console()).into_owned();
        assert_eq!(ended.exit_code, Some(code), "{message:?}: {said}");
        assert!(said.contains(message), "{message:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("fata:   0:"), "{said}");
    }
}
