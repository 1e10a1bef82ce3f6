//! Processor time of a guest that has nothing to do: QEMU's own, user and system, over some seconds.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Plan, in_turns, serving};
use crate::cancel;
use crate::process::cpu_seconds;
use crate::report::{Row, Target, Unit};
use crate::software::{Example, Shelf};

/// From the first answer on, a guest may finish what booting left over.
const SETTLING: Duration = Duration::from_secs(2);

/// The share of one processor that an idle service uses.
pub(super) fn rows(plan: &Plan, shelf: &mut Shelf) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &machine in &plan.machines {
        let what = format!("idle on {machine}");
        let (ours, peer) = in_turns(plan, plan.load_runs, &what, |system| {
            let software = shelf.software(system, Example::Http)?;
            let guest = serving(plan, system, machine, &software)?;
            cancel::sleep(SETTLING)?;
            let (start, used_before) = (Instant::now(), cpu_seconds(guest.id())?);
            cancel::sleep(plan.idle_duration)?;
            let used = cpu_seconds(guest.id())? - used_before;
            Ok(used / start.elapsed().as_secs_f64() * 100.0)
        })?;
        rows.push(Row {
            measure: "idle",
            title: format!(
                "Processor time of an idle service over {} s",
                plan.idle_duration.as_secs()
            ),
            machine: Some(machine),
            unit: Unit::PercentOfCore,
            ours,
            peer,
            target: Target::AtMost(3.0),
        });
    }
    Ok(rows)
}
