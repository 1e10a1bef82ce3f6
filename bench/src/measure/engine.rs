//! What the TCP/IP engine spends on a request beside idle connections, in instructions.
//!
//! Instructions and not seconds: they are the same on every machine and in every run. Valgrind counts them.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Plan, need};
use crate::cancel;
use crate::process::run;
use crate::report::{Outcome, Row, Target, Unit};
use crate::software::Shelf;

/// Requests by which the longer of two runs is longer.
const REQUESTS: u64 = 2000;

/// Idle connections beside the one that is used.
const FEW: u64 = 1;
const MANY: u64 = 10_000;

/// What a request may cost beside many connections, as a multiple of what it costs beside one.
const GROWTH_MAX: f64 = 1.1;

/// Building, and running under valgrind, which is some fifty times slower.
const LIMIT: Duration = Duration::from_secs(1200);

/// Instructions a request with 1 and with 10,000 idle connections.
pub(super) fn rows(_plan: &Plan, shelf: &mut Shelf) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for connections in [FEW, MANY] {
        let cost = instructions_per_request(shelf, connections);
        cancel::check()?;
        match &cost {
            Ok(cost) => eprintln!("bench: engine, {connections} connections: {cost:.1}"),
            Err(error) => eprintln!("bench: engine, {connections} connections: {error:#}"),
        }
        let target = match rows.first().map(|few| &few.ours) {
            Some(Outcome::Values(few)) => Target::AtMost(few[0] * GROWTH_MAX),
            _ => Target::Seen,
        };
        rows.push(Row {
            measure: "engine",
            title: match connections {
                FEW => "Engine's instructions a request beside one idle connection".to_owned(),
                many => format!("– beside {many} idle connections"),
            },
            machine: None,
            unit: Unit::Instructions,
            ours: Outcome::from_runs(&[cost]),
            peer: Outcome::Absent,
            target,
        });
    }
    Ok(rows)
}

/// The difference of two runs, so that what it takes to set up the connections cancels out.
fn instructions_per_request(shelf: &Shelf, connections: u64) -> Result<f64> {
    need("valgrind", "valgrind")?;
    let short = instructions(shelf, connections, REQUESTS)?;
    let long = instructions(shelf, connections, 2 * REQUESTS)?;
    let more = long.checked_sub(short).context("more requests took fewer instructions")?;
    Ok(more as f64 / REQUESTS as f64)
}

/// Runs the engine's example under valgrind.
fn instructions(shelf: &Shelf, connections: u64, requests: u64) -> Result<u64> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER",
            "valgrind --tool=callgrind --callgrind-out-file=/dev/null",
        )
        .args(["run", "--quiet", "--release", "--package", "fata-tcpip"])
        .args(["--example", "idle_connections", "--"])
        .args([connections.to_string(), requests.to_string()])
        .current_dir(shelf.root());
    let output = run(&mut command, "the engine's example under valgrind", LIMIT)?;
    let collected = output.status.success().then(|| parse_collected(&output.stderr)).flatten();
    collected.with_context(|| {
        let last: Vec<&str> = output.stderr.lines().rev().take(4).collect();
        format!("valgrind counted nothing ({}): {}", output.status, last.join(" | "))
    })
}

/// Reads callgrind's total: `==123== Collected : 456`.
fn parse_collected(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.split_once("== Collected :"))?;
    line.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read() {
        let text = "==12== Events    : Ir\n==12== Collected : 123456789\n==12== \n";
        assert_eq!(parse_collected(text), Some(123_456_789));
        assert_eq!(parse_collected("==12== Collected : many"), None);
        assert_eq!(parse_collected("error: no example target"), None);
    }
}
