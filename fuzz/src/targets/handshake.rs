//! The machines by which two ends find each other, fed with any contents of XenStore.

use crate::Input;
use fata_xenbus::Instant;
use fata_xenbus::handshake::{
    Backend, Change, Command, Frontend, Handshake, Input as Happens, Joining, Outcome, Serving,
    Transaction, block, console, net, vchan,
};
use std::collections::{BTreeMap, BTreeSet};

const FRONTEND: &str = "/local/domain/3/device/vif/0";
const BACKEND: &str = "/local/domain/0/backend/vif/3/0";

/// What keys may hold, well-formed and not.
const VALUES: &[&[u8]] = &[
    b"0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
    b"7",
    b"8",
    b"16",
    b"512",
    b"4096",
    b"32751",
    b"32752",
    b"65535",
    b"4294967295",
    b"4294967296",
    b"18446744073709551616",
    b"-1",
    b"+1",
    b"04",
    b"",
    b"connected",
    b"00:16:3e:01:02:03",
    b"01:16:3e:01:02:03",
    b"r",
    b"w",
    b"x86_64-abi",
    b"x86_32-abi",
    b"\xff\0",
    FRONTEND.as_bytes(),
    BACKEND.as_bytes(),
    b"/local/domain/0/backend/vif/../0",
    b"relative/path",
];

/// Plays one of the machines, both ends of each kind of device.
pub fn run(input: &mut Input<'_>) {
    let joining = Joining {
        attempts_max: 1 + input.below(4) as u8,
        reconnect: input.flag(),
        ..Joining::new(FRONTEND)
    };
    let serving = Serving::new(BACKEND);
    let now = Instant(0);
    let geometry = block::Geometry {
        sectors: 1000,
        sector_bytes: 512,
        physical_sector_bytes: 4096,
        read_only: false,
        cdrom: false,
        removable: false,
    };
    match input.below(7) {
        0 => {
            let machine = net::Frontend::new(joining, net::FrontendOptions::default(), now);
            let made = |input: &mut Input<'_>| net::RingsMade {
                tx_ring_ref: input.u32(),
                rx_ring_ref: 9,
                channels: net::Channels::Split { tx: 5, rx: 6 },
            };
            play(input, machine, made, |settings: &net::Settings| {
                assert!(settings.mtu >= 68 && settings.mac[0] & 1 == 0);
                let transmit = settings.transmit;
                assert!(!transmit.gso_ipv4 || (transmit.checksum_ipv4 && transmit.scatter_gather));
                assert!(!transmit.gso_ipv6 || (transmit.checksum_ipv6 && transmit.scatter_gather));
            });
        }
        1 => {
            let machine = Backend::new(serving, net::BackendOptions::default(), now);
            play(
                input,
                machine,
                |_| (),
                |settings: &net::Settings| {
                    assert!(settings.mac[0] & 1 == 0);
                },
            );
        }
        2 => {
            let options = block::FrontendOptions { ring_page_order_max: 2, persistent: true };
            let made = |input: &mut Input<'_>| block::RingMade {
                ring_refs: vec![input.u32(); 1 << input.below(3)],
                event_channel: 7,
            };
            play(
                input,
                Frontend::new(joining, options, now),
                made,
                |settings: &block::Settings| {
                    assert!(settings.ring_page_order <= 2);
                    let geometry = &settings.geometry;
                    assert!(geometry.sector_bytes.is_power_of_two());
                    assert!((512..=4096).contains(&geometry.sector_bytes));
                },
            );
        }
        3 => {
            let options = block::BackendOptions {
                ring_page_order_max: 2,
                persistent: true,
                indirect_segments_max: 256,
                geometry,
                flush: true,
                barrier: false,
                discard: None,
            };
            play(input, Backend::new(serving, options, now), |_| (), |_| {});
        }
        4 => {
            let made = |input: &mut Input<'_>| console::RingMade { ring_ref: input.u32(), port: 7 };
            let machine = Frontend::new(joining, console::Protocol, now);
            play(input, machine, made, |_| {});
        }
        5 => {
            let machine = vchan::Server::new(vchan::Listening::new("data/vchan", 3, 4));
            let made = |input: &mut Input<'_>| vchan::RingsMade {
                ring_ref: input.u32(),
                event_channel: 7,
            };
            play(input, machine, made, |()| {});
        }
        _ => {
            let calling = vchan::Calling::new("/local/domain/3/data/vchan", 3);
            play(input, vchan::Client::new(calling, now), |_| (), |()| {});
        }
    }
}

/// The keys that are there when all goes well, from either end.
fn store() -> BTreeMap<String, Vec<u8>> {
    let keys = [
        (FRONTEND, "state", "1"),
        (FRONTEND, "backend", BACKEND),
        (FRONTEND, "backend-id", "0"),
        (FRONTEND, "mac", "00:16:3e:01:02:03"),
        (FRONTEND, "tx-ring-ref", "8"),
        (FRONTEND, "rx-ring-ref", "9"),
        (FRONTEND, "event-channel", "5"),
        (FRONTEND, "ring-ref", "8"),
        (FRONTEND, "request-rx-copy", "1"),
        (BACKEND, "state", "2"),
        (BACKEND, "frontend", FRONTEND),
        (BACKEND, "frontend-id", "3"),
        (BACKEND, "mac", "00:16:3e:01:02:03"),
        (BACKEND, "online", "1"),
        (BACKEND, "feature-rx-copy", "1"),
        (BACKEND, "feature-sg", "1"),
        (BACKEND, "feature-gso-tcpv4", "1"),
        (BACKEND, "sectors", "1000"),
        (BACKEND, "sector-size", "512"),
        (BACKEND, "info", "0"),
        ("/local/domain/3/data/vchan", "ring-ref", "8"),
        ("/local/domain/3/data/vchan", "event-channel", "5"),
    ];
    let path = |(directory, key, value): &(&str, &str, &str)| {
        (format!("{directory}/{key}"), value.as_bytes().to_vec())
    };
    keys.iter().map(path).collect()
}

/// What the runner owes the machine.
enum Owed {
    Nothing,
    Read(Vec<String>),
    Write(Transaction),
    Rings,
}

/// A machine, its runner, and what the machine has promised.
struct Played<M: Handshake> {
    machine: M,
    now: Instant,
    store: BTreeMap<String, Vec<u8>>,
    /// Every path that the machine has named: what an adversary changes.
    paths: Vec<String>,
    watches: BTreeSet<String>,
    owed: Owed,
    has_rings: bool,
    is_live: bool,
    has_ended: bool,
    check: fn(&M::Settings),
}

/// Most commands that one input may lead to: far more than any does.
const COMMANDS_MAX: usize = 64;

fn play<M: Handshake>(
    input: &mut Input<'_>,
    machine: M,
    made: fn(&mut Input<'_>) -> M::Made,
    check: fn(&M::Settings),
) {
    let mut played = Played {
        machine,
        now: Instant(0),
        store: store(),
        paths: Vec::new(),
        watches: BTreeSet::new(),
        owed: Owed::Nothing,
        has_rings: false,
        is_live: false,
        has_ended: false,
        check,
    };
    played.drain();
    while !input.is_empty() && !played.has_ended {
        match input.below(10) {
            0..4 => played.answer(input, made),
            4 => played.hand_in(Happens::Fired),
            5 => {
                if let Some(deadline) = played.machine.poll_timeout() {
                    let early = u64::from(input.u8() & 1);
                    played.now = played.now.max(Instant(deadline.0.saturating_sub(early)));
                }
                played.hand_in(Happens::Timeout);
            }
            6 => {
                played.now = played.now.after_nanos(u64::from(input.u32()));
                played.hand_in(Happens::Timeout);
            }
            7 => match input.below(6) {
                0 => played.hand_in(Happens::Close),
                1 => played.hand_in(Happens::Fault("an index that cannot be".into())),
                2 => played.hand_in(Happens::Resumed),
                _ => played.hand_in(Happens::Fired),
            },
            _ => {
                // Somebody changes a key, and its watch may fire.
                if !played.paths.is_empty() {
                    let path = played.paths[input.below(played.paths.len())].clone();
                    match input.below(VALUES.len() + 2) {
                        at if at < VALUES.len() => {
                            played.store.insert(path, VALUES[at].to_vec());
                        }
                        at if at == VALUES.len() => drop(played.store.remove(&path)),
                        _ => drop(played.store.insert(path, input.blob().to_vec())),
                    }
                }
                if input.flag() {
                    played.hand_in(Happens::Fired);
                }
            }
        }
    }
    // However it stands: asked to close, with time, and with the watches fired that are due (a new
    // one always is), it ends.
    let silence = &mut Input::new(&[]);
    played.hand_in(Happens::Close);
    for _ in 0..100 {
        played.answer(silence, made);
        if played.has_ended {
            return;
        }
        if let Some(deadline) = played.machine.poll_timeout() {
            played.now = played.now.max(deadline);
        }
        played.hand_in(Happens::Timeout);
        played.hand_in(Happens::Fired);
    }
    assert!(played.has_ended, "{} for ever", played.machine.state());
}

impl<M: Handshake> Played<M> {
    fn hand_in(&mut self, input: Happens<M::Made>) {
        self.machine.handle(self.now, input);
        self.drain();
    }

    /// Takes the commands, and checks that each may come now.
    fn drain(&mut self) {
        let mut count = 0;
        while let Some(command) = self.machine.poll_command() {
            count += 1;
            assert!(count <= COMMANDS_MAX, "{} never rests", self.machine.state());
            assert!(!self.has_ended, "a command after Ended");
            let is_free = matches!(self.owed, Owed::Nothing);
            match command {
                Command::Watch(path) => {
                    self.name([path.clone()]);
                    assert!(self.watches.insert(path), "the same watch twice");
                }
                Command::Unwatch(path) => {
                    assert!(self.watches.remove(&path), "no such watch to take away");
                }
                Command::Read(paths) => {
                    assert!(is_free, "two at once are to be answered");
                    self.name(paths.clone());
                    self.owed = Owed::Read(paths);
                }
                Command::Write(transaction) => {
                    assert!(is_free, "two at once are to be answered");
                    self.name(transaction.expect.iter().map(|(path, _)| path.clone()));
                    self.owed = Owed::Write(transaction);
                }
                Command::MakeRings(_) => {
                    assert!(is_free, "two at once are to be answered");
                    assert!(!self.has_rings, "MakeRings before Release");
                    self.owed = Owed::Rings;
                }
                Command::Connect(settings) => {
                    assert!(self.has_rings && !self.is_live, "Connect without rings, or twice");
                    (self.check)(&settings);
                    self.is_live = true;
                }
                Command::Disconnect(_) => {
                    assert!(self.is_live, "Disconnect without Connect");
                    self.is_live = false;
                }
                Command::Release => {
                    assert!(self.has_rings && !self.is_live, "Release while live, or of nothing");
                    self.has_rings = false;
                }
                Command::Report(error) => drop(error.to_string()),
                Command::Ended(verdict) => {
                    if let Err(error) = verdict {
                        drop(error.to_string());
                    }
                    assert!(!self.is_live && !self.has_rings, "Ended with rings");
                    assert!(self.watches.is_empty(), "Ended with watches");
                    self.has_ended = true;
                    self.owed = Owed::Nothing;
                }
            }
        }
    }

    /// Remembers paths that were named, up to as many as a byte can choose from.
    fn name(&mut self, paths: impl IntoIterator<Item = String>) {
        for path in paths {
            if !self.paths.contains(&path) && self.paths.len() < 256 {
                self.paths.push(path);
            }
        }
    }

    /// Gives the machine what it waits for: mostly the truth, so that it gets on. An input that is
    /// over says nothing but the truth.
    fn answer(&mut self, input: &mut Input<'_>, made: fn(&mut Input<'_>) -> M::Made) {
        match std::mem::replace(&mut self.owed, Owed::Nothing) {
            Owed::Nothing => {}
            Owed::Read(paths) => {
                let mut values: Vec<_> =
                    paths.iter().map(|path| self.store.get(path).cloned()).collect();
                if input.below(8) == 7 && !values.is_empty() {
                    let at = input.below(values.len().min(256));
                    values[at] = input.flag().then(|| input.blob().to_vec());
                }
                self.hand_in(Happens::Values(values));
            }
            Owed::Write(transaction) => {
                let outcome = match input.below(8) {
                    7 => Outcome::Again,
                    6 => Outcome::Differs,
                    5 => Outcome::Refused(i32::from(input.u8())),
                    _ => self.carry_out(transaction),
                };
                self.hand_in(Happens::Written(outcome));
            }
            Owed::Rings => {
                let made = match input.below(4) {
                    3 => Err("no memory".into()),
                    _ => Ok(made(input)),
                };
                self.has_rings = made.is_ok();
                self.hand_in(Happens::RingsMade(made));
            }
        }
    }

    fn carry_out(&mut self, transaction: Transaction) -> Outcome {
        let is_met = transaction
            .expect
            .iter()
            .all(|(path, value)| value.is_met_by(self.store.get(path).map(Vec::as_slice)));
        if !is_met {
            return Outcome::Differs;
        }
        for change in transaction.changes {
            match change {
                Change::Set(path, value) => drop(self.store.insert(path, value)),
                Change::Remove(path) => drop(self.store.remove(&path)),
                Change::Permit { .. } => {}
            }
        }
        Outcome::Done
    }
}
