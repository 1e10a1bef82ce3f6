//! From a guest's start to its first HTTP answer.
//!
//! Both are created paused, and the clock runs from `xl unpause`: what libxl does to build a domain
//! is the same for both, and no guest's doing. It is told as a row of its own. The client is in
//! dom0, and asks again at once when it is refused; its kernel asks for the guest's hardware address
//! twenty times a second instead of once, lest the figure be a multiple of a second.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fata_testbed::{Dom0Paths, config_text};

use crate::lab::{GUEST, Lab, System};
use crate::table::Report;

const LIMIT: Duration = Duration::from_secs(240);

pub(crate) fn measure(lab: &Lab, rounds: u32, report: &mut Report) -> Result<()> {
    lab.dom0(
        &format!("echo 50 > /proc/sys/net/ipv4/neigh/{}/retrans_time_ms", fata_testbed::BRIDGE),
        LIMIT,
    )?;
    let mut boots = [Vec::new(), Vec::new()];
    let mut creations = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (index, system) in [System::Fata, System::Linux].into_iter().enumerate() {
            let (created, answered) = once(lab, system)?;
            creations[index].push(created);
            boots[index].push(answered);
        }
    }
    let [ours, linux] = boots;
    report.add("boot to first HTTP answer", "s", false, ours, linux);
    let [ours, linux] = creations;
    report.add("xl create before that", "s", false, ours, linux);
    Ok(())
}

fn once(lab: &Lab, system: System) -> Result<(f64, f64)> {
    let name = format!("boot-{}", system.name());
    let guest = lab.guest(system, &name, "examples/http", GUEST, "--port=80")?;
    let paths = Dom0Paths {
        kernel: lab.testbed.put(&guest.kernel, "kernel")?,
        ramdisk: match &guest.ramdisk {
            Some(ramdisk) => Some(lab.testbed.put(ramdisk, "ramdisk")?),
            None => None,
        },
        disks: Vec::new(),
    };
    let text = config_text(&guest, &paths)?;
    let local = lab.folder().join(format!("{name}.cfg"));
    std::fs::write(&local, text)?;
    let config = lab.testbed.put(&local, "cfg")?;
    let ramdisk = paths.ramdisk.clone().unwrap_or_default();
    let script = format!(
        "set -e; now() {{ cut -d' ' -f1 /proc/uptime; }}
         ip neigh flush dev {bridge} || true
         a=$(now); xl create -q -p {config}; b=$(now); xl unpause {name}
         until wget -q -O /dev/null http://{GUEST}/ 2>/dev/null; do :; done
         c=$(now); echo times $a $b $c; xl destroy {name}
         rm -f {config} {kernel} {ramdisk}",
        bridge = fata_testbed::BRIDGE,
        kernel = paths.kernel,
    );
    let output = lab.dom0(&script, LIMIT)?;
    let line = output.lines().find_map(|line| line.strip_prefix("times "));
    let times: Vec<f64> =
        line.context("no times")?.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [a, b, c] = times[..] else { anyhow::bail!("not understood: {output}") };
    Ok((b - a, c - b))
}
