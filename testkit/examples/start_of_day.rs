//! The minimal example of a race between netfront and netback.
//!
//! ```text
//! cargo run -p fata-testkit --example start_of_day              the shortest schedule that loses a frame
//! cargo run -p fata-testkit --example start_of_day 0.1.1.0.0.2  any schedule, told step by step
//! ```
//!
//! docs/start-of-day.md tells what this is about.

use fata_testkit::xen::explore::{Schedule, explore, replay};
use fata_testkit::xen::handshake::linux::{Kind, LinuxBackend};
use fata_testkit::xen::handshake::{Driven, Names, Scenario, WithoutTheWait, World};
use fata_xenbus::Instant;
use fata_xenbus::handshake::{Frontend, Joining, net};
use std::process::ExitCode;

/// More than the example has: it is small.
const STATES_MAX: usize = 100_000;

fn main() -> ExitCode {
    match run(std::env::args().nth(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("start_of_day: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(schedule: Option<String>) -> Result<(), String> {
    let netfront = || {
        let joining = Joining::new("device/vif/0");
        Frontend::new(joining, net::FrontendOptions::default(), Instant(0))
    };
    let netback = || LinuxBackend::new(Kind::Net, Names::VIF.backends[0], Names::VIF.frontend);
    let scenario = Scenario::plain(Names::VIF, Kind::Net);
    let eager = WithoutTheWait::new(netfront());
    let eager = Driven::new("netfront", Names::FRONTEND_HOME, eager)?;
    let without = World::new(&scenario, eager, netback(), None);

    if let Some(text) = schedule {
        let schedule: Schedule = text.parse()?;
        println!("{}", replay(&without, &schedule));
        return Ok(());
    }

    let lost = explore(&without, STATES_MAX);
    println!("A netfront that does not wait until netback is Connected: {lost}.");
    if let Some(failure) = &lost.failure {
        println!("The shortest of them:\n{failure}");
    }

    let patient = Driven::new("netfront", Names::FRONTEND_HOME, netfront())?;
    let kept = explore(&World::new(&scenario, patient, netback(), None), STATES_MAX);
    println!("\nFata's netfront, which waits: {kept}, none of which loses a frame.");
    match kept.failure {
        None => Ok(()),
        Some(failure) => Err(failure.to_string()),
    }
}
