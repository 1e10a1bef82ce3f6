//! The least memory that serves, and what QEMU holds of the host's while it serves.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{ANSWER_LIMIT, Plan, first_answer, in_turns, need, serving};
use crate::cancel;
use crate::guest::{Boot, Guest, Machine, Network, System};
use crate::http::{Connection, expect_ok};
use crate::process::{Memory, memory, run_ok};
use crate::report::{Outcome, Row, Target, Unit};
use crate::software::{Example, Shelf};

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// The search begins here: what does not serve with this much is not worth bisecting.
const MEMORY_MIB_MAX: u32 = 256;

/// How many further boots must serve with the memory that the search found: at the edge, luck plays a part.
const CONFIRMATIONS: u32 = 2;

/// "Serves" means this many connections with this many requests each.
const CONNECTIONS: u32 = 4;
const REQUESTS: u32 = 25;

/// Handshakes that an HTTPS service must complete to count as serving.
const HANDSHAKES: u32 = 3;

/// How long a guest that may have too little memory is waited for.
fn starved_limit(system: System) -> Duration {
    match system {
        System::Fata => Duration::from_secs(8),
        System::Linux => Duration::from_secs(40),
    }
}

/// The least memory that serves HTTP, and the least that serves HTTPS.
pub(super) fn rows(plan: &Plan, shelf: &mut Shelf) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (example, limit_mib) in [(Example::Http, 8.0), (Example::Https, 16.0)] {
        for &machine in &plan.machines {
            let what = format!("least memory for {example} on {machine}");
            let (ours, peer) = in_turns(plan, 1, &what, |system| {
                let found =
                    least(MEMORY_MIB_MAX, |mib| serves(shelf, system, machine, example, mib))?;
                Ok(f64::from(found) * MEBIBYTE)
            })?;
            rows.push(Row {
                measure: "memory",
                title: format!("Least memory that serves {}", example.to_string().to_uppercase()),
                machine: Some(machine),
                unit: Unit::Bytes,
                ours,
                peer,
                target: Target::AtMost(limit_mib * MEBIBYTE),
            });
        }
    }
    Ok(rows)
}

/// Finds the least number at which `serves` holds, by bisection below `max`, then makes sure of it.
///
/// # Errors
/// When it does not hold at `max`: then with the reason that `serves` gave.
fn least(max: u32, mut serves: impl FnMut(u32) -> Result<()>) -> Result<u32> {
    serves(max).with_context(|| format!("it does not serve with {max} MiB"))?;
    // It does not serve with `low`, it does with `high`.
    let (mut low, mut high) = (0, max);
    while high - low > 1 {
        let middle = u32::midpoint(low, high);
        match serves(middle) {
            Ok(()) => high = middle,
            Err(_) => low = middle,
        }
        cancel::check()?;
    }
    while high < max {
        if (0..CONFIRMATIONS).all(|_| serves(high).is_ok()) {
            break;
        }
        cancel::check()?;
        high += 1;
    }
    Ok(high)
}

/// Boots with `memory_mib` and makes requests.
fn serves(
    shelf: &mut Shelf,
    system: System,
    machine: Machine,
    example: Example,
    memory_mib: u32,
) -> Result<()> {
    let mut guest = Boot {
        system,
        machine,
        software: &shelf.software(system, example)?,
        network: Network::User,
        memory_mib,
        port: example.port(),
        boot_times: false,
    }
    .start()?;
    let result = guest.wait_listening(starved_limit(system)).and_then(|()| match example {
        Example::Hello => bail!("hello serves nothing"),
        Example::Http => {
            first_answer(&guest)?;
            (0..CONNECTIONS).try_for_each(|_| requests(&guest, REQUESTS))
        }
        Example::Https => (0..HANDSHAKES).try_for_each(|_| handshake(&guest)),
    });
    let verdict = if result.is_ok() { "serves" } else { "does not serve" };
    eprintln!("bench:   {system} on {machine} with {memory_mib} MiB {verdict} {example}");
    result
}

/// Makes requests on one connection.
fn requests(guest: &Guest, count: u32) -> Result<()> {
    // A thousand requests take well under a second; the rest is for a busy host.
    let limit = ANSWER_LIMIT + Duration::from_millis(u64::from(count) * 20);
    let mut connection = Connection::open(guest.address(), limit)?;
    for _ in 0..count {
        cancel::check()?;
        expect_ok(&connection.get("/")?)?;
    }
    Ok(())
}

/// Requests the page over TLS on a new connection.
fn handshake(guest: &Guest) -> Result<()> {
    need("curl", "curl")?;
    let mut command = Command::new("curl");
    // The certificate is signed by itself.
    command.args(["--silent", "--show-error", "--insecure", "--fail", "--tlsv1.3"]);
    command.args(["--retry", "2", "--retry-connrefused", "--retry-delay", "1"]);
    command.args(["--max-time", &ANSWER_LIMIT.as_secs().to_string(), "--output", "/dev/null"]);
    command.arg(format!("https://{}/", guest.address()));
    run_ok(&mut command, "curl", 2 * ANSWER_LIMIT).map(drop)
}

/// Requests that a guest answers before its memory is looked at.
const WARM_UP_REQUESTS: u32 = 1000;

/// QEMU's resident memory with equal `-m`, after a thousand requests.
pub(super) fn resident_rows(plan: &Plan, shelf: &mut Shelf) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &machine in &plan.machines {
        let mut peaks: Vec<(System, f64)> = Vec::new();
        let what = format!("resident memory on {machine}");
        let (ours, peer) = in_turns(plan, plan.load_runs, &what, |system| {
            let software = shelf.software(system, Example::Http)?;
            let guest = serving(plan, system, machine, &software)?;
            requests(&guest, WARM_UP_REQUESTS)?;
            let Memory { resident, peak } = memory(guest.id())?;
            peaks.push((system, peak as f64));
            Ok(resident as f64)
        })?;
        let memory_mib = plan.memory_mib;
        rows.push(Row {
            measure: "resident",
            title: format!("QEMU's resident memory while serving, `-m {memory_mib}`"),
            machine: Some(machine),
            unit: Unit::Bytes,
            ours: ours.clone(),
            peer: peer.clone(),
            target: Target::RatioAtMost(0.25),
        });
        let peak = |wanted: System, resident: Outcome| match resident {
            Outcome::Values(_) => Outcome::Values(
                peaks
                    .iter()
                    .filter(|(system, _)| *system == wanted)
                    .map(|(_, peak)| *peak)
                    .collect(),
            ),
            // Why stands in the row above.
            Outcome::Failed(_) | Outcome::Absent => Outcome::Absent,
        };
        rows.push(Row {
            measure: "resident",
            title: "– at its highest".to_owned(),
            machine: Some(machine),
            unit: Unit::Bytes,
            ours: peak(System::Fata, ours),
            peer: peak(System::Linux, peer),
            target: Target::Seen,
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the search against something that serves from `edge` on.
    fn search(max: u32, edge: u32) -> (Result<u32>, usize) {
        let mut probes = 0;
        let found = least(max, |mib| {
            probes += 1;
            if mib < edge {
                bail!("too little");
            }
            Ok(())
        });
        (found, probes)
    }

    #[test]
    fn the_edge_is_found_wherever_it_is() {
        for edge in 1..=256 {
            let (found, probes) = search(256, edge);
            assert_eq!(found.expect("256 serves"), edge);
            assert!(probes <= 1 + 8 + 2, "{probes} boots for {edge}");
        }
        let error = search(256, 257).0.expect_err("256 does not serve");
        assert!(format!("{error:#}").contains("too little"), "{error:#}");
    }

    #[test]
    fn luck_is_not_enough() {
        // With 5 it serves once, and never again.
        let mut luck = 1;
        let found = least(16, |mib| match mib {
            5 if luck > 0 => {
                luck -= 1;
                Ok(())
            }
            0..=5 => bail!("too little"),
            _ => Ok(()),
        });
        assert_eq!(found.expect("16 serves"), 6);
    }
}
