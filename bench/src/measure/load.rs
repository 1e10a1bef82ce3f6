//! Requests, connections and bulk data over a TAP device.
//!
//! Never over QEMU's user network: that is a TCP/IP stack of its own, which would be what is measured.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Measure, Plan, listening_limit, need};
use crate::cancel;
use crate::guest::{Boot, Guest, Machine, Network, System};
use crate::http::{Direction, Transfer};
use crate::lab::Lab;
use crate::process::run_ok;
use crate::report::{Outcome, Row, Target, Unit};
use crate::software::{Example, Shelf};
use crate::wrk;

/// One figure that is taken from a guest under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Requests a second over this many connections that stay open.
    Requests(u32),
    /// Requests a second, each on a connection of its own.
    NewConnections,
    Download,
    Upload,
}

/// Connections that are opened at the same time where each serves one request.
const NEW_CONNECTIONS_AT_ONCE: u32 = 8;

const PARTS: [Part; 6] = [
    Part::Requests(1),
    Part::Requests(8),
    Part::Requests(64),
    Part::NewConnections,
    Part::Download,
    Part::Upload,
];

impl Part {
    fn measure(self) -> Measure {
        match self {
            Self::Requests(_) => Measure::Requests,
            Self::NewConnections => Measure::Connections,
            Self::Download | Self::Upload => Measure::Bulk,
        }
    }

    fn row(self, plan: &Plan, machine: Machine, ours: Outcome, peer: Outcome) -> Row {
        let mebibytes = plan.bulk_bytes >> 20;
        let (measure, title, unit, target) = match self {
            // More than the best peer serves on one connection under the same emulation.
            Self::Requests(1) => (
                "requests",
                "Requests, `wrk -t1 -c1`".to_owned(),
                Unit::PerSecond,
                Target::MoreThan(12e3),
            ),
            Self::Requests(64) => (
                "requests",
                "Requests, `wrk -t1 -c64`".to_owned(),
                Unit::PerSecond,
                Target::RatioAtLeast(1.5),
            ),
            Self::Requests(connections) => (
                "requests",
                format!("Requests, `wrk -t1 -c{connections}`"),
                Unit::PerSecond,
                Target::Seen,
            ),
            Self::NewConnections => (
                "connections",
                format!("Requests, each on a new connection, {NEW_CONNECTIONS_AT_ONCE} at a time"),
                Unit::PerSecond,
                Target::Seen,
            ),
            Self::Download => (
                "bulk",
                format!("Guest sends {mebibytes} MiB (SHA-256 checked)"),
                Unit::MegabitsPerSecond,
                Target::RatioAtLeast(2.0),
            ),
            Self::Upload => (
                "bulk",
                format!("Guest receives {mebibytes} MiB (SHA-256 checked)"),
                Unit::MegabitsPerSecond,
                Target::RatioAtLeast(2.0),
            ),
        };
        Row { measure, title, machine: Some(machine), unit, ours, peer, target }
    }

    fn take(self, plan: &Plan, lab: &Lab, guest: &Guest) -> Result<f64> {
        let address = guest.address();
        match self {
            Self::Requests(connections) => {
                wrk::load(lab, address, connections, true, plan.load_duration)
            }
            Self::NewConnections => {
                wrk::load(lab, address, NEW_CONNECTIONS_AT_ONCE, false, plan.load_duration)
            }
            Self::Download => transfer(plan, lab, guest, Direction::Download, plan.bulk_bytes),
            Self::Upload => transfer(plan, lab, guest, Direction::Upload, plan.bulk_bytes),
        }
    }
}

/// The slowest transfer that is waited for, in bytes a second; the guest hashes in software, under emulation.
const TRANSFER_BYTES_PER_SECOND_MIN: u64 = 2 << 20;

/// Starts this program again inside the namespace to move the bytes.
fn transfer(
    plan: &Plan,
    lab: &Lab,
    guest: &Guest,
    direction: Direction,
    bytes: u64,
) -> Result<f64> {
    let limit = Duration::from_secs(20 + bytes / TRANSFER_BYTES_PER_SECOND_MIN);
    let mut command = lab.command(&plan.own_program);
    command.arg("transfer").arg(match direction {
        Direction::Download => "download",
        Direction::Upload => "upload",
    });
    command.arg(guest.address().to_string()).arg(bytes.to_string());
    command.arg(limit.as_secs().to_string());
    let text = run_ok(&mut command, "the transfer", limit + Duration::from_secs(20))?;
    let transfer = Transfer::from_json(&text).context("the transfer printed something new")?;
    Ok(transfer.megabits_per_second())
}

type Results = BTreeMap<(System, Part), Vec<Result<f64>>>;

/// Requests a second, connections a second, megabits a second: as many of them as the plan wants.
pub(super) fn rows(plan: &Plan, shelf: &mut Shelf) -> Result<Vec<Row>> {
    let parts: Vec<Part> = PARTS.into_iter().filter(|part| plan.wants(part.measure())).collect();
    let mut rows = Vec::new();
    for &machine in &plan.machines {
        let mut results = Results::new();
        for round in 1..=plan.load_runs {
            for &system in &plan.systems {
                eprintln!("bench: load on {machine}, {system}, {round} of {}", plan.load_runs);
                round_of(plan, shelf, machine, system, &parts, &mut results);
                cancel::check()?;
            }
        }
        for &part in &parts {
            let outcome = |system: System| {
                results
                    .get(&(system, part))
                    .map_or(Outcome::Absent, |runs| Outcome::from_runs(runs))
            };
            rows.push(part.row(plan, machine, outcome(System::Fata), outcome(System::Linux)));
        }
    }
    Ok(rows)
}

/// One boot, and every part on it that has not failed before.
fn round_of(
    plan: &Plan,
    shelf: &mut Shelf,
    machine: Machine,
    system: System,
    parts: &[Part],
    results: &mut Results,
) {
    let mut booted: Option<Result<(Guest, Lab)>> = None;
    for &part in parts {
        let runs = results.entry((system, part)).or_default();
        if runs.iter().any(Result::is_err) || cancel::requested() {
            continue;
        }
        let ready = booted.get_or_insert_with(|| boot(plan, shelf, machine, system));
        let result = match ready {
            Ok((guest, lab)) => part.take(plan, lab, guest),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        match &result {
            Ok(value) => eprintln!("bench:   {part:?}: {value:.0}"),
            Err(error) => eprintln!("bench:   {part:?}: {error:#}"),
        }
        if result.is_err() {
            // What comes after must not suffer from what this one left behind.
            booted = None;
        }
        runs.push(result);
    }
}

fn boot(plan: &Plan, shelf: &mut Shelf, machine: Machine, system: System) -> Result<(Guest, Lab)> {
    need("wrk", "wrk")?;
    let software = shelf.software(system, Example::Http)?;
    let lab = Lab::new()?;
    let mut guest = Boot {
        system,
        machine,
        software: &software,
        network: Network::Tap(&lab),
        memory_mib: plan.memory_mib,
        port: Example::Http.port(),
        boot_times: false,
    }
    .start()?;
    guest.wait_listening(listening_limit(system))?;
    transfer(plan, &lab, &guest, Direction::Download, 1)
        .context("the service listens but does not answer")?;
    Ok((guest, lab))
}
