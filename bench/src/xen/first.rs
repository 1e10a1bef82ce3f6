//! Guests that connect the moment they start, with a static address: the race of 2015.
//!
//! Each must be answered within 900 ms of its first frame, which is before anything is sent again,
//! so one that is answered lost nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fata_testbed::Guest;

use crate::lab::{self, DOM0, GUEST, Lab, PATIENCE, System};
use crate::table::Report;

/// Keeps dom0's processor busy while guests are created and served.
const LOAD_ON: &str = "(while [ ! -e /tmp/idle ]; do :; done) >/dev/null 2>&1 & true";

pub(crate) fn measure(lab: &Lab, boots: u32, report: &mut Report) -> Result<()> {
    let image = lab.build("examples/first-frame", System::Fata)?;
    let limit = Duration::from_secs(20);
    let mut micros = Vec::new();
    let mut requests = Vec::new();
    for number in 0..boots {
        let loaded = number >= boots / 2;
        if number == boots / 2 {
            lab.dom0(&format!("rm -f /tmp/idle; {LOAD_ON}"), limit)?;
        }
        let mut guest = Guest {
            command_line: format!("--target={DOM0}:1 --service.address={GUEST}/24"),
            memory_mib: 16,
            native_tsc: true,
            ..Guest::new(format!("first-{number}"), &image)
        };
        guest.vifs.push(lab::interface(GUEST));
        let domain = lab.testbed.create(&guest)?;
        let ended = domain.wait(PATIENCE)?;
        let console = String::from_utf8_lossy(&domain.console()).into_owned();
        let load = if loaded { "with" } else { "without" };
        let line = console.lines().find(|line| line.contains("answered after"));
        let Some(line) = line else {
            bail!("boot {number} of {boots}, {load} load: {ended:?}\n{console}");
        };
        let numbers: Vec<f64> =
            line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [us, arp, retransmitted] = numbers[..] else { bail!("not understood: {line}") };
        if retransmitted != 0.0 {
            bail!("boot {number}, {load} load: something was sent again: {line}");
        }
        micros.push(us / 1000.0);
        requests.push(arp);
        if (number + 1) % 10 == 0 {
            eprintln!("bench: {} of {boots} boots answered", number + 1);
        }
    }
    lab.dom0("touch /tmp/idle", limit).context("ending the load")?;
    report.add("first frames answered", "boots", true, vec![f64::from(boots)], Vec::new());
    report.add("connect to answer", "ms", false, micros, Vec::new());
    report.add("ARP requests of a boot", "", false, requests, Vec::new());
    Ok(())
}
