//! What the tests on a real Xen share: a host, and guests on it.

use crate::build;
use fata_testbed::{Domain, Guest, Options, Testbed, Vif};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longer than anything here takes on a computer that is busy.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// One host at a time: each wants more than a gigabyte and a processor.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host of the test's own.
///
/// # Panics
/// It does not boot.
pub fn host() -> Testbed {
    Testbed::start(&Options::default(), &mut |step| println!("{step}")).expect("the host boots")
}

/// Runs a script in dom0, and returns what it printed.
///
/// # Panics
/// It fails.
#[track_caller]
pub fn dom0(host: &Testbed, script: &str) -> String {
    let output = host.dom0(script, PATIENCE).expect("dom0 answers");
    assert_eq!(
        output.status,
        0,
        "{script}\n{}{}",
        output.text(),
        String::from_utf8_lossy(&output.stderr)
    );
    output.text()
}

/// A guest of ours with an interface on the bridge.
pub fn guest(name: &str, folder: &str, command_line: &str) -> Guest {
    let mut guest = Guest {
        command_line: command_line.to_owned(),
        native_tsc: true,
        ..Guest::new(name, build(folder, "xen"))
    };
    guest.vifs.push(Vif::bridge(fata_testbed::BRIDGE));
    guest
}

/// Creates `guest` and waits until it says `ready`.
///
/// # Panics
/// It does not.
#[track_caller]
pub fn start(host: &Testbed, guest: &Guest, ready: &str) -> Domain {
    let domain = host.create(guest).expect("it is created");
    domain.wait_for(ready, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    domain
}

/// Waits for the guest's end, which must be a good one; returns all that it said.
///
/// # Panics
/// It does not end, or not well.
#[track_caller]
pub fn succeeds(domain: &Domain) -> String {
    let ended = domain.wait(PATIENCE).expect("the host lives");
    let console = String::from_utf8_lossy(&domain.console()).into_owned();
    assert_eq!(ended.and_then(|ended| ended.exit_code), Some(0), "{}: {console}", domain.name());
    console
}
