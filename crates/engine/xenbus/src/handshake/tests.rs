//! One end at a time, step by step. Every order of both ends together is in the testkit.

use super::*;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Store = BTreeMap<String, Vec<u8>>;

const BACKEND: &str = "/local/domain/0/backend/vif/3/0";
const SECOND: u64 = 1_000_000_000;

fn set(store: &mut Store, path: &str, value: impl AsRef<[u8]>) {
    store.insert(path.into(), value.as_ref().to_vec());
}

/// What `xl` and netback have written when netback is in InitWait.
fn offered() -> Store {
    let mut store = Store::new();
    for (key, value) in [
        ("device/vif/0/state", "1"),
        ("device/vif/0/backend", BACKEND),
        ("device/vif/0/backend-id", "0"),
        ("device/vif/0/mac", "00:16:3e:01:02:03"),
    ] {
        set(&mut store, key, value);
    }
    for (key, value) in [
        ("state", "2"),
        ("feature-rx-copy", "1"),
        ("feature-sg", "1"),
        ("feature-gso-tcpv4", "1"),
        ("feature-gso-tcpv6", "1"),
        ("feature-split-event-channels", "1"),
    ] {
        set(&mut store, &alloc::format!("{BACKEND}/{key}"), value);
    }
    store
}

fn netfront() -> net::Frontend {
    Frontend::new(Joining::new("device/vif/0"), net::FrontendOptions::default(), Instant(0))
}

fn made() -> net::RingsMade {
    let channels = net::Channels::Split { tx: 5, rx: 6 };
    net::RingsMade { tx_ring_ref: 8, rx_ring_ref: 9, channels }
}

/// Executes a machine's commands against `store` until it has no more. Gives what is not about
/// XenStore.
fn run<M: Handshake>(
    machine: &mut M,
    store: &mut Store,
    now: Instant,
    made: impl Fn() -> Result<M::Made, String>,
) -> Vec<Command<M::Wanted, M::Settings>> {
    let mut told = Vec::new();
    let mut commands = 0;
    while let Some(command) = machine.poll_command() {
        commands += 1;
        assert!(commands < 1000, "{} never rests", machine.state());
        match command {
            Command::Watch(_) => machine.handle(now, Input::Fired),
            Command::Unwatch(_) => {}
            Command::Read(paths) => {
                let values = paths.iter().map(|path| store.get(path).cloned()).collect();
                machine.handle(now, Input::Values(values));
            }
            Command::Write(transaction) => {
                let met = transaction
                    .expect
                    .iter()
                    .all(|(path, value)| value.is_met_by(store.get(path).map(Vec::as_slice)));
                if !met {
                    machine.handle(now, Input::Written(Outcome::Differs));
                    continue;
                }
                for change in transaction.changes {
                    match change {
                        Change::Set(path, value) => drop(store.insert(path, value)),
                        Change::Remove(path) => drop(store.remove(&path)),
                        Change::Permit { .. } => {}
                    }
                }
                machine.handle(now, Input::Written(Outcome::Done));
            }
            Command::MakeRings(wanted) => {
                told.push(Command::MakeRings(wanted));
                machine.handle(now, Input::RingsMade(made()));
            }
            other => told.push(other),
        }
    }
    told
}

fn error_of<W, S>(told: &[Command<W, S>]) -> String {
    match told.last() {
        Some(Command::Ended(Err(error))) => error.to_string(),
        _ => panic!("it did not end with an error"),
    }
}

#[test]
fn netfront_writes_its_rings_and_waits_for_connected() {
    let (mut store, mut machine) = (offered(), netfront());
    let told = run(&mut machine, &mut store, Instant(0), || Ok(made()));
    let wanted = net::RingsWanted { backend: 0, split_event_channels: true };
    assert_eq!(told, [Command::MakeRings(wanted)]);
    let key = |name: &str| store.get(&alloc::format!("device/vif/0/{name}")).map(Vec::as_slice);
    assert_eq!(key("state"), Some(&b"4"[..]));
    assert_eq!(key("tx-ring-ref"), Some(&b"8"[..]));
    assert_eq!(key("event-channel-rx"), Some(&b"6"[..]));
    assert_eq!(key("event-channel"), None);
    assert_eq!(key("request-rx-copy"), Some(&b"1"[..]));

    set(&mut store, &alloc::format!("{BACKEND}/state"), "4");
    machine.handle(Instant(1), Input::Fired);
    let told = run(&mut machine, &mut store, Instant(1), || Ok(made()));
    let [Command::Connect(settings)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(settings.mac, [0, 0x16, 0x3e, 1, 2, 3]);
    assert_eq!(settings.mtu, 1500);
    assert!(settings.transmit.gso_ipv4 && settings.transmit.checksum_ipv4);
    // Not without checksums over IPv6, which this backend does not take.
    assert!(!settings.transmit.gso_ipv6 && !settings.transmit.checksum_ipv6);
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn a_backend_whose_hotplug_script_hangs_is_an_error_that_says_so() {
    let (mut store, mut machine) = (offered(), netfront());
    run(&mut machine, &mut store, Instant(0), || Ok(made()));
    let deadline = machine.poll_timeout().expect("it does not wait for ever");
    assert_eq!(deadline, Instant(60 * SECOND));
    machine.handle(deadline, Input::Timeout);
    let mut told = run(&mut machine, &mut store, deadline, || Ok(made()));
    // netback has mapped the rings and is given its time to let go of them.
    let overdue = machine.poll_timeout().expect("nor now");
    machine.handle(overdue, Input::Timeout);
    told.extend(run(&mut machine, &mut store, overdue, || Ok(made())));
    assert!(matches!(told[0], Command::Release));
    assert_eq!(
        error_of(&told),
        "device/vif/0 is not connected after 60.0 s: backend /local/domain/0/backend/vif/3/0 is \
         InitWait; its hotplug script has not finished (hotplug-status is missing) (unchanged for \
         60.0 s)"
    );
    assert_eq!(store["device/vif/0/state"], b"6");
}

#[test]
fn each_way_not_to_arrive_is_named() {
    type Case<'a> = (&'a dyn Fn(&mut Store), &'a str);
    let cases: [Case<'_>; 4] = [
        (&|store| store.clear(), "the toolstack has not written device/vif/0/backend"),
        (
            &|store| drop(store.remove("device/vif/0/backend-id")),
            "the toolstack has not written device/vif/0/backend and backend-id",
        ),
        (
            &|store| set(store, "/local/domain/0/backend/vif/3/0/state", "1"),
            "is Initialising; is its driver loaded in that domain?",
        ),
        (
            &|store| drop(store.remove("/local/domain/0/backend/vif/3/0/state")),
            "/local/domain/0/backend/vif/3/0 has no state",
        ),
    ];
    for (change, expected) in cases {
        let (mut store, mut machine) = (offered(), netfront());
        change(&mut store);
        let told = run(&mut machine, &mut store, Instant(0), || Ok(made()));
        assert!(told.is_empty(), "{told:?}");
        let deadline = machine.poll_timeout().expect("a deadline");
        machine.handle(deadline, Input::Timeout);
        let error = error_of(&run(&mut machine, &mut store, deadline, || Ok(made())));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn malformed_keys_are_errors_that_name_key_value_and_writer() {
    let cases = [
        ("device/vif/0/mac", "01:00:5e:00:00:01", "the toolstack wrote \"01:00:5e:00:00:01\" into"),
        ("device/vif/0/mtu", "67", "into device/vif/0/mtu; expected an MTU in bytes, 68 to 65535"),
        ("device/vif/0/backend", "../0", "expected the absolute path of the backend"),
        (
            "device/vif/0/backend-id",
            "32752",
            "into device/vif/0/backend-id; expected a domain's id",
        ),
        ("/local/domain/0/backend/vif/3/0/state", "9", "the backend wrote \"9\" into"),
        ("/local/domain/0/backend/vif/3/0/feature-sg", "-1", "expected a decimal number"),
        ("/local/domain/0/backend/vif/3/0/feature-rx-copy", "0", "feature-rx-copy is not 1"),
    ];
    for (path, value, expected) in cases {
        let (mut store, mut machine) = (offered(), netfront());
        set(&mut store, path, value);
        let error = error_of(&run(&mut machine, &mut store, Instant(0), || Ok(made())));
        assert!(error.contains(expected), "{path}: {error}");
    }
}

#[test]
fn an_end_that_is_told_to_meet_itself_says_so() {
    let home = "/local/domain/3/device/vif/0";
    let mut store = offered();
    for (key, value) in [("state", "1"), ("backend", home), ("backend-id", "3")] {
        set(&mut store, &alloc::format!("{home}/{key}"), value);
    }
    let options = net::FrontendOptions::default();
    let mut front: net::Frontend = Frontend::new(Joining::new(home), options, Instant(0));
    let told = run(&mut front, &mut store, Instant(0), || Ok(made()));
    let error = error_of(&told);
    assert!(error.contains("the absolute path of the backend") && error.contains(home), "{error}");

    for (key, value) in [("state", "1"), ("frontend", home), ("frontend-id", "3")] {
        set(&mut store, &alloc::format!("{home}/{key}"), value);
    }
    let options = net::BackendOptions::default();
    let mut back: net::Backend = Backend::new(Serving::new(home), options, Instant(0));
    let told = run(&mut back, &mut store, Instant(0), || Ok(()));
    let said = told.iter().any(|command| match command {
        Command::Report(error) | Command::Ended(Err(error)) => {
            error.to_string().contains("the absolute path of the frontend")
        }
        _ => false,
    });
    assert!(said, "{told:?}");
}

#[test]
fn a_transaction_that_is_refused_is_an_error_with_its_errno() {
    let (mut store, mut machine) = (offered(), netfront());
    loop {
        match machine.poll_command().expect("it wants to write") {
            Command::Watch(_) => machine.handle(Instant(0), Input::Fired),
            Command::Read(paths) => {
                let values = paths.iter().map(|path| store.get(path).cloned()).collect();
                machine.handle(Instant(0), Input::Values(values));
            }
            Command::MakeRings(_) => machine.handle(Instant(0), Input::RingsMade(Ok(made()))),
            Command::Write(_) => break,
            other => panic!("{other:?}"),
        }
    }
    machine.handle(Instant(0), Input::Written(Outcome::Refused(28)));
    let told = run(&mut machine, &mut store, Instant(0), || Ok(made()));
    assert_eq!(told[0], Command::Release);
    assert_eq!(error_of(&told), "device/vif/0: XenStore refused the transaction with errno 28");
}

fn disk() -> block::BackendOptions {
    block::BackendOptions {
        ring_page_order_max: 2,
        persistent: true,
        indirect_segments_max: 32,
        geometry: block::Geometry {
            sectors: 4096,
            sector_bytes: 512,
            physical_sector_bytes: 4096,
            read_only: true,
            cdrom: false,
            removable: false,
        },
        flush: true,
        barrier: false,
        discard: Some(block::Discard {
            granularity_bytes: 4096,
            alignment_bytes: 0,
            secure: false,
        }),
    }
}

#[test]
fn what_blkback_writes_is_what_blkfront_reads() {
    let backend = "/local/domain/0/backend/vbd/3/51712";
    let mut store = Store::new();
    let front = "device/vbd/51712";
    for (key, value) in [("state", "1"), ("backend", backend), ("backend-id", "0")] {
        set(&mut store, &alloc::format!("{front}/{key}"), value);
    }
    let options = disk();
    for (key, value) in options.offer().into_iter().chain(options.details()) {
        set(&mut store, &alloc::format!("{backend}/{key}"), value.expect("all are written"));
    }
    set(&mut store, &alloc::format!("{backend}/state"), "2");
    let joining = Joining::new(front);
    let mut machine: block::Frontend =
        Frontend::new(joining, block::FrontendOptions::default(), Instant(0));
    let made = || Ok(block::RingMade { ring_refs: vec![1, 2, 3, 4], event_channel: 7 });
    run(&mut machine, &mut store, Instant(0), made);
    assert_eq!(store["device/vbd/51712/state"], b"3");
    assert_eq!(store["device/vbd/51712/ring-page-order"], b"2");
    assert_eq!(store["device/vbd/51712/ring-ref3"], b"4");
    set(&mut store, &alloc::format!("{backend}/state"), "4");
    machine.handle(Instant(0), Input::Fired);
    let told = run(&mut machine, &mut store, Instant(0), made);
    let [Command::Connect(settings)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(settings.geometry, options.geometry);
    assert_eq!(settings.discard, options.discard);
    assert!(settings.persistent && settings.flush && !settings.barrier);
    assert_eq!(settings.indirect_segments_max, 32);
    assert_eq!(store["device/vbd/51712/state"], b"4");
}

fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        Just(None),
        proptest::collection::vec(any::<u8>(), 0..24).prop_map(Some),
        (0u64..10).prop_map(|number| Some(number.to_string().into_bytes())),
        any::<u64>().prop_map(|number| Some(number.to_string().into_bytes())),
        Just(Some(BACKEND.into())),
        Just(Some(b"00:16:3e:00:00:01".to_vec())),
    ]
}

/// Drives a machine with arbitrary answers; at most `steps`.
fn shake<M: Handshake>(
    mut machine: M,
    values: &[Option<Vec<u8>>],
    made: impl Fn() -> M::Made,
    steps: usize,
) {
    let mut answers = values.iter().cycle();
    let mut now = Instant(0);
    for step in 0..steps {
        match machine.poll_command() {
            None => {
                now = now.after_nanos(SECOND);
                machine.handle(now, if step % 7 == 0 { Input::Timeout } else { Input::Fired });
            }
            Some(Command::Read(paths)) => {
                let read = paths.iter().map(|_| answers.next().cloned().flatten()).collect();
                machine.handle(now, Input::Values(read));
            }
            Some(Command::Write(_)) => {
                let outcome = match answers.next() {
                    Some(None) => Outcome::Again,
                    Some(Some(value)) if value.len() % 3 == 0 => Outcome::Differs,
                    _ => Outcome::Done,
                };
                machine.handle(now, Input::Written(outcome));
            }
            Some(Command::MakeRings(_)) => machine.handle(now, Input::RingsMade(Ok(made()))),
            Some(Command::Ended(result)) => {
                result.map_err(|error| error.to_string().len()).ok();
                assert!(machine.poll_command().is_none(), "nothing comes after Ended");
            }
            Some(_) => assert!(!machine.state().is_empty()),
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_keys_never_panic(values in proptest::collection::vec(value(), 1..40)) {
        shake(netfront(), &values, made, 300);
        let joining = Joining::new("device/vbd/51712");
        let blkfront: block::Frontend =
            Frontend::new(joining, block::FrontendOptions::default(), Instant(0));
        let ring = || block::RingMade { ring_refs: vec![1, 2, 3, 4], event_channel: 7 };
        shake(blkfront, &values, ring, 300);
        let netback: net::Backend = Backend::new(
            Serving::new("backend/vif/3/0"),
            net::BackendOptions::default(),
            Instant(0),
        );
        shake(netback, &values, || (), 300);
        let blkback: block::Backend =
            Backend::new(Serving::new("backend/vbd/3/51712"), disk(), Instant(0));
        shake(blkback, &values, || (), 300);
        shake(vchan::Client::new(vchan::Calling::new("/x/y", 3), Instant(0)), &values, || (), 300);
    }

    #[test]
    fn numbers_are_what_they_say(number in any::<u64>(), bytes in any::<Vec<u8>>()) {
        prop_assert_eq!(keys::parse_number(number.to_string().as_bytes()), Some(number));
        let text = std::str::from_utf8(&bytes).ok();
        let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let expected = digits.filter(|text| text.len() <= 20).and_then(|text| text.parse().ok());
        prop_assert_eq!(keys::parse_number(&bytes), expected);
    }
}
