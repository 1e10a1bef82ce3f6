//! From QEMU's start to the first answer, and from the kernel's entry to the program.

use anyhow::{Context, Result};

use super::{Plan, in_turns, listening_limit, serving};
use crate::guest::{Boot, Machine, Network, Software, System};
use crate::linux::INIT_MARK;
use crate::report::{Outcome, Row, Target, Unit};
use crate::software::{Example, Shelf};

/// The console line by which an image tells its own time to `main`, when asked to.
const MAIN_MARK: &str = "fata: main after ";

/// What the project wants of the time to the first answer, as a part of Linux's.
fn boot_target(machine: Machine) -> Target {
    match machine {
        Machine::Q35 => Target::RatioAtMost(1.0 / 20.0),
        Machine::Microvm => Target::RatioAtMost(1.0 / 40.0),
    }
}

/// Time from QEMU's start to the first HTTP answer.
pub(super) fn rows(plan: &Plan, shelf: &mut Shelf) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &machine in &plan.machines {
        let what = format!("first answer on {machine}");
        let (ours, peer) = in_turns(plan, plan.runs, &what, |system| {
            let software = shelf.software(system, Example::Http)?;
            first_answer_seconds(plan, system, machine, &software)
        })?;
        rows.push(Row {
            measure: "boot",
            title: "QEMU's start to the first HTTP answer".to_owned(),
            machine: Some(machine),
            unit: Unit::Seconds,
            ours: ours.clone(),
            peer,
            target: boot_target(machine),
        });
        if plan.systems.contains(&System::Linux) {
            rows.push(unpacked_row(plan, shelf, machine, ours)?);
        }
    }
    Ok(rows)
}

/// The same with a peer that need not unpack its kernel: more than half of its time is xz under emulation.
fn unpacked_row(plan: &Plan, shelf: &mut Shelf, machine: Machine, ours: Outcome) -> Result<Row> {
    let only_linux = Plan { systems: vec![System::Linux], ..plan.clone() };
    let what = format!("first answer on {machine}, kernel unpacked beforehand");
    let (_, peer) = in_turns(&only_linux, plan.runs, &what, |system| {
        let mut software = shelf.software(system, Example::Http)?;
        let unpacked = shelf.linux()?.kernel_unpacked.clone();
        software.kernel = unpacked.context("Linux's kernel could not be unpacked")?;
        first_answer_seconds(plan, system, machine, &software)
    })?;
    Ok(Row {
        // Why ours failed stands in the row above.
        ours: if matches!(ours, Outcome::Values(_)) { ours } else { Outcome::Absent },
        measure: "boot",
        title: "– Linux's kernel unpacked beforehand".to_owned(),
        machine: Some(machine),
        unit: Unit::Seconds,
        peer,
        target: Target::Seen,
    })
}

fn first_answer_seconds(
    plan: &Plan,
    system: System,
    machine: Machine,
    software: &Software,
) -> Result<f64> {
    let guest = serving(plan, system, machine, software)?;
    Ok(guest.started().elapsed().as_secs_f64())
}

/// Time from the kernel's entry to the program, by each guest's own clock.
pub(super) fn entry_rows(plan: &Plan, shelf: &mut Shelf) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &machine in &plan.machines {
        let what = format!("entry to main on {machine}");
        let (ours, peer) = in_turns(plan, plan.runs, &what, |system| {
            let mut guest = Boot {
                system,
                machine,
                software: &shelf.software(system, Example::Http)?,
                network: Network::User,
                memory_mib: plan.memory_mib,
                port: Example::Http.port(),
                boot_times: true,
            }
            .start()?;
            let mark = match system {
                System::Fata => MAIN_MARK,
                System::Linux => INIT_MARK,
            };
            let line = guest.wait_line(mark, listening_limit(system))?;
            parse_seconds(&line, mark)
                .with_context(|| format!("the guest's line {line:?} has no time in it"))
        })?;
        rows.push(Row {
            measure: "entry",
            title: "Kernel's entry to the program's `main` (guest's clock; Linux: to init)"
                .to_owned(),
            machine: Some(machine),
            unit: Unit::Seconds,
            ours,
            peer,
            target: Target::AtMost(0.010),
        });
    }
    Ok(rows)
}

/// Reads the time behind `mark`: a number and `us` or `s`.
fn parse_seconds(line: &str, mark: &str) -> Option<f64> {
    let (_, rest) = line.split_once(mark)?;
    let mut words = rest.split_whitespace();
    let number: f64 = words.next()?.parse().ok()?;
    let seconds = match words.next()? {
        "us" => number / 1e6,
        "s" => number,
        _ => return None,
    };
    (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_guests_are_read() {
        assert_eq!(parse_seconds("fata: main after 3500 us", MAIN_MARK), Some(0.0035));
        assert_eq!(parse_seconds("[x] bench: init after 1.95 s", INIT_MARK), Some(1.95));
        assert_eq!(parse_seconds("fata: main after ten us", MAIN_MARK), None);
        assert_eq!(parse_seconds("fata: main after 3500", MAIN_MARK), None);
        assert_eq!(parse_seconds("fata: main after inf us", MAIN_MARK), None);
    }

    #[test]
    fn targets_are_those_of_the_project() {
        assert_eq!(boot_target(Machine::Q35), Target::RatioAtMost(0.05));
        assert_eq!(boot_target(Machine::Microvm), Target::RatioAtMost(0.025));
    }
}
