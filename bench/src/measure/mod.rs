//! The measurements. Each boots what it needs, one machine at a time, and gives rows of the table.
//!
//! Where a measurement is repeated the two systems take turns, so that whatever else the host does meets both.

mod boot;
mod engine;
mod idle;
mod load;
mod memory;
mod size;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cancel;
use crate::guest::{Boot, Guest, Machine, Network, Software, System};
use crate::http::{Connection, expect_ok};
use crate::report::{Outcome, Row};
use crate::software::{Example, Shelf};

/// A measurement, by its name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Measure {
    /// All of them.
    All,
    /// Time from QEMU's start to the first HTTP answer.
    Boot,
    /// Time from the kernel's entry to the program.
    Entry,
    /// Requests a second with 1, 8 and 64 connections that stay open.
    Requests,
    /// Requests a second, each on a new connection.
    Connections,
    /// Bulk transfer in both directions.
    Bulk,
    /// Least memory that serves HTTP and HTTPS.
    Memory,
    /// QEMU's resident memory while serving.
    Resident,
    /// Processor time of an idle guest.
    Idle,
    /// Sizes of the images.
    Size,
    /// Instructions that the TCP/IP engine spends on a request beside idle connections.
    Engine,
}

/// How long and how often to measure.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) measures: Vec<Measure>,
    pub(crate) systems: Vec<System>,
    pub(crate) machines: Vec<Machine>,
    /// Boots for each figure that is about booting.
    pub(crate) runs: u32,
    /// Boots for each figure that is about load.
    pub(crate) load_runs: u32,
    /// How long one run of the load generator lasts.
    pub(crate) load_duration: Duration,
    /// How long an idle guest is watched.
    pub(crate) idle_duration: Duration,
    /// Size of a bulk transfer.
    pub(crate) bulk_bytes: u64,
    /// Memory of a guest, unless memory is what is measured.
    pub(crate) memory_mib: u32,
    /// Our own program, to be started inside a namespace.
    pub(crate) own_program: PathBuf,
}

impl Plan {
    fn wants(&self, measure: Measure) -> bool {
        self.measures.contains(&measure) || self.measures.contains(&Measure::All)
    }
}

/// Takes every measurement of the plan. `done` sees the rows of each as soon as they are there.
///
/// # Errors
/// Only when interrupted: what goes wrong with one measurement is written into its rows.
pub(crate) fn run(plan: &Plan, shelf: &mut Shelf, mut done: impl FnMut(Vec<Row>)) -> Result<()> {
    type Take = fn(&Plan, &mut Shelf) -> Result<Vec<Row>>;
    let takes: [(&[Measure], Take); 8] = [
        (&[Measure::Size], size::rows),
        (&[Measure::Boot], boot::rows),
        (&[Measure::Entry], boot::entry_rows),
        (&[Measure::Requests, Measure::Connections, Measure::Bulk], load::rows),
        (&[Measure::Memory], memory::rows),
        (&[Measure::Resident], memory::resident_rows),
        (&[Measure::Idle], idle::rows),
        (&[Measure::Engine], engine::rows),
    ];
    for (measures, take) in takes {
        if measures.iter().any(|&measure| plan.wants(measure)) {
            done(take(plan, shelf)?);
        }
    }
    Ok(())
}

/// How long a guest may take until its service listens.
fn listening_limit(system: System) -> Duration {
    match system {
        // A thousand times what it should need on a busy host.
        System::Fata => Duration::from_secs(20),
        System::Linux => Duration::from_secs(90),
    }
}

/// Longest wait for an answer from a service that listens.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Boots the HTTP service and waits until it has answered one request, over QEMU's user network.
fn serving(plan: &Plan, system: System, machine: Machine, software: &Software) -> Result<Guest> {
    let mut guest = Boot {
        system,
        machine,
        software,
        network: Network::User,
        memory_mib: plan.memory_mib,
        port: Example::Http.port(),
        boot_times: false,
    }
    .start()?;
    guest.wait_listening(listening_limit(system))?;
    first_answer(&guest)?;
    Ok(guest)
}

/// Requests the page until there is an answer.
fn first_answer(guest: &Guest) -> Result<()> {
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        let answer = Connection::open(guest.address(), ANSWER_LIMIT)
            .and_then(|mut connection| connection.get("/"));
        match answer {
            Ok(response) => return expect_ok(&response),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).context("the service listens but does not answer");
            }
            Err(_) => cancel::sleep(Duration::from_millis(1))?,
        }
    }
}

/// Takes turns: `take` is called for each system in each round. Gives the outcome for ours and for the peer.
///
/// A system that fails is not asked again.
fn in_turns(
    plan: &Plan,
    rounds: u32,
    what: &str,
    mut take: impl FnMut(System) -> Result<f64>,
) -> Result<(Outcome, Outcome)> {
    let mut runs: Vec<(System, Vec<Result<f64>>)> =
        plan.systems.iter().map(|&system| (system, Vec::new())).collect();
    for round in 1..=rounds {
        for (system, runs) in &mut runs {
            if runs.iter().any(Result::is_err) {
                continue;
            }
            let result = take(*system);
            cancel::check()?;
            match &result {
                Ok(value) => eprintln!("bench: {what}, {system}, {round} of {rounds}: {value:.4}"),
                Err(error) => eprintln!("bench: {what}, {system}, {round} of {rounds}: {error:#}"),
            }
            runs.push(result);
        }
    }
    let outcome = |wanted: System| {
        runs.iter()
            .find(|(system, _)| *system == wanted)
            .map_or(Outcome::Absent, |(_, runs)| Outcome::from_runs(runs))
    };
    Ok((outcome(System::Fata), outcome(System::Linux)))
}

/// Refuses a measurement whose tool is missing, naming the package that has it.
fn need(program: &str, package: &str) -> Result<()> {
    if !crate::process::on_path(program) {
        bail!("{program} is not installed (on Debian: apt-get install {package})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(systems: &[System]) -> Plan {
        Plan {
            measures: vec![Measure::All],
            systems: systems.to_vec(),
            machines: vec![Machine::Q35],
            runs: 1,
            load_runs: 1,
            load_duration: Duration::from_secs(1),
            idle_duration: Duration::from_secs(1),
            bulk_bytes: 1,
            memory_mib: 64,
            own_program: PathBuf::new(),
        }
    }

    #[test]
    fn systems_take_turns_and_a_failing_one_is_left_alone() {
        let mut order = Vec::new();
        let plan = plan(&[System::Fata, System::Linux]);
        let (ours, peer) = in_turns(&plan, 3, "test", |system| {
            order.push(system);
            match system {
                System::Fata if order.len() > 1 => bail!("it broke"),
                _ => Ok(1.0),
            }
        })
        .expect("nobody interrupts");
        use System::{Fata, Linux};
        assert_eq!(order, [Fata, Linux, Fata, Linux, Linux]);
        assert_eq!(ours, Outcome::Failed("it broke".to_owned()));
        assert_eq!(peer, Outcome::Values(vec![1.0; 3]));
    }

    #[test]
    fn a_system_that_nobody_asked_for_is_absent() {
        let plan = plan(&[System::Linux]);
        let (ours, _) = in_turns(&plan, 1, "test", |_| Ok(1.0)).expect("nobody interrupts");
        assert_eq!(ours, Outcome::Absent);
    }
}
