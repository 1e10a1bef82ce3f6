//! Frames forwarded between two interfaces, at given rates and sizes: what was measured of MirageOS
//! in 2015, with a Linux bridge in a guest beside it.
//!
//! dom0 has two bridges. On each is a TAP interface of a generator, which sends into one and counts
//! what comes out of the other, and an interface of the guest, which joins the two.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fata_testbed::{Guest, Linux, Vif};

use crate::lab::{Lab, System, json_lines};
use crate::table::Report;

const RATES: [u32; 2] = [1000, 0];
const SIZES: [usize; 3] = [60, 200, 1514];

pub(crate) fn measure(lab: &Lab, rounds: u32, seconds: u8, report: &mut Report) -> Result<()> {
    let generator = lab.in_dom0("bench/programs/frames")?;
    let limit = Duration::from_secs(u64::from(seconds) + 120);
    lab.dom0(
        "for i in 1 2; do brctl addbr br$i 2>/dev/null || true
         ip tuntap add dev tap$i mode tap 2>/dev/null || tunctl -t tap$i
         brctl addif br$i tap$i; ip link set br$i up; ip link set tap$i up; done",
        limit,
    )?;
    let kinds = SIZES.into_iter().flat_map(|size| RATES.map(|rate| (size, rate)));
    let kinds: Vec<(usize, u32)> = kinds.collect();
    // For each kind: frames that arrived and their mean delay, ours and the Debian guest's.
    let mut found: Vec<[[Vec<f64>; 2]; 2]> = vec![Default::default(); kinds.len()];
    for _ in 0..rounds {
        for (index, system) in [System::Fata, System::Linux].into_iter().enumerate() {
            let guest = forwarder(lab, system)?;
            let domain = lab.start_guest(&guest, "forwarding")?;
            for ((size, rate), [received, delays]) in kinds.iter().zip(&mut found) {
                let script = format!(
                    "{generator} --left.tap=tap1 --right.tap=tap2 --rate={rate} --size={size} \
                     --seconds={seconds}"
                );
                let output = lab.dom0(&script, limit)?;
                let line = json_lines(&output).pop().with_context(|| output.clone())?;
                received[index].extend(line["received_per_s"].as_f64());
                delays[index].extend(line["mean_delay_us"].as_f64());
            }
            drop(domain);
        }
    }
    for ((size, rate), [[ours, linux], delays]) in kinds.into_iter().zip(found) {
        let what = if rate == 0 { "as many as go".to_owned() } else { format!("{rate}/s") };
        report.add(&format!("forwarded, {size} bytes, {what}"), "/s", true, ours, linux);
        let [ours, linux] = delays;
        report.add(&format!("mean delay, {size} bytes, {what}"), "us", false, ours, linux);
    }
    Ok(())
}

fn forwarder(lab: &Lab, system: System) -> Result<Guest> {
    let name = format!("forward-{}", system.name());
    let mut guest = match system {
        System::Fata => {
            Guest { memory_mib: 32, ..Guest::new(name, lab.build("examples/forward", system)?) }
        }
        System::Linux => Linux::new(
            "brctl addbr br0; brctl addif br0 eth0; brctl addif br0 eth1
             for i in eth0 eth1 br0; do ip link set $i up; done
             echo forwarding; sleep 86400",
        )
        .with_module("bridge")
        .guest(&lab.testbed, &name, lab.folder())?,
    };
    guest.native_tsc = true;
    guest.vifs = vec![Vif::bridge("br1"), Vif::bridge("br2")];
    Ok(guest)
}
