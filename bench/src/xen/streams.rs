//! Streams, requests and connections: through netfront to dom0, between two guests, over vchan.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::lab::{DOM0, GUEST, Lab, OTHER, PATIENCE, System, json_lines};
use crate::table::Report;

const PACKAGE: &str = "bench/programs/traffic";
const READY: &str = "listening on";
const TESTS: &str = "send,receive,requests,connections";

/// Figures by name, a value for each round; for both systems.
type Figures = BTreeMap<String, [Vec<f64>; 2]>;

/// What a line of the driver's says, under `prefix`.
fn collect(figures: &mut Figures, prefix: &str, index: usize, line: &Value) -> Result<()> {
    let Some(test) = line["test"].as_str() else { return Ok(()) };
    if let Some(error) = line["error"].as_str() {
        bail!("{prefix}, {test}: {error}");
    }
    let mut keep = |name: String, value: Option<f64>| {
        if let Some(value) = value {
            figures.entry(name).or_default()[index].push(value);
        }
    };
    match test {
        "requests" | "channel-requests" | "connections" => {
            keep(format!("{prefix} {test}"), line["per_s"].as_f64());
        }
        _ => keep(format!("{prefix} {test}"), line["mbit_per_s"].as_f64()),
    }
    let mib = line["bytes"].as_f64().map(|bytes| bytes / 1048576.0);
    if let (Some(mib), Some(events)) = (mib, line["events"].as_f64()) {
        keep(format!("{prefix} {test}: notifications to dom0 a MiB"), Some(events / mib));
    }
    Ok(())
}

fn add(report: &mut Report, figures: Figures) {
    for (name, [ours, linux]) in figures {
        let (unit, more_is_better) = match () {
            () if name.contains("a MiB") => ("", false),
            () if name.contains("requests") || name.contains("connections") => ("/s", true),
            () => ("Mbit/s", true),
        };
        report.add(&name, unit, more_is_better, ours, linux);
    }
}

/// Our guest without one of the things that make it fast, and with all of them: the name of the
/// row, and the settings of its stack.
const PARTS: [(&str, &str); 3] = [
    ("all", ""),
    ("without segmentation", "--service.segmentation=off"),
    ("windows of 256 KiB", "--service.limits=receive-bytes=262144,send-bytes=262144"),
];

/// What each optimisation is worth: both streams with dom0, one after the other in every round, so
/// that the machine's moods hit all alike. The column of the Debian guest stays empty.
pub(crate) fn parts(lab: &Lab, rounds: u32, seconds: u8, report: &mut Report) -> Result<()> {
    let driver = lab.in_dom0(PACKAGE)?;
    let mut rows: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for (part, settings) in PARTS {
            let arguments = format!("--role=serve {settings}");
            let guest = lab.guest(System::Fata, "parts", PACKAGE, GUEST, &arguments)?;
            let domain = lab.start_guest(&guest, READY)?;
            let script = format!(
                "{driver} --role=drive --service.address={DOM0} --target={GUEST} \
                 --tests=send,receive --seconds={seconds}"
            );
            let output = lab.dom0(&script, Duration::from_secs(u64::from(seconds) * 2 + 120))?;
            for line in json_lines(&output) {
                let (Some(test), Some(rate)) = (line["test"].as_str(), line["mbit_per_s"].as_f64())
                else {
                    bail!("{part}: no figure: {line}");
                };
                rows.entry(format!("dom0 {test}, {part}")).or_default().push(rate);
            }
            let mut counters = BTreeMap::new();
            for line in json_lines(&String::from_utf8_lossy(&domain.console())) {
                keep_counters(&mut counters, &line);
            }
            for (name, values) in counters {
                rows.entry(format!("{name}, {part}")).or_default().extend(values);
            }
        }
    }
    for (name, values) in rows {
        let is_rate = name.starts_with("dom0");
        report.add(&name, if is_rate { "Mbit/s" } else { "" }, is_rate, values, Vec::new());
    }
    Ok(())
}

/// dom0 drives, a guest serves.
pub(crate) fn with_dom0(lab: &Lab, rounds: u32, seconds: u8, report: &mut Report) -> Result<()> {
    let driver = lab.in_dom0(PACKAGE)?;
    let limit = Duration::from_secs(u64::from(seconds) * 3 + 120);
    let mut figures = Figures::new();
    let mut counters: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for (index, system) in [System::Fata, System::Linux].into_iter().enumerate() {
            let name = format!("serve-{}", system.name());
            let guest = lab.guest(system, &name, PACKAGE, GUEST, "--role=serve")?;
            let domain = lab.start_guest(&guest, READY)?;
            for test in TESTS.split(',') {
                // How often dom0 was interrupted by the guest meanwhile, whoever the guest is.
                let script = format!(
                    "events() {{ awk '/vif/ {{ for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) s += $i }} \
                     END {{ print s + 0 }}' /proc/interrupts; }}
                     a=$(events)
                     {driver} --role=drive --service.address={DOM0} --target={GUEST} --tests={test} \
                     --seconds={seconds}
                     b=$(events); echo events $((b - a))"
                );
                let output = lab.dom0(&script, limit)?;
                let events = output.lines().find_map(|line| line.strip_prefix("events "));
                let mut lines = json_lines(&output);
                let line = lines.pop().with_context(|| format!("no figure: {output}"))?;
                let mut line = line;
                line["events"] = events.and_then(|text| text.parse::<f64>().ok()).into();
                collect(&mut figures, "dom0", index, &line)?;
            }
            if system == System::Fata {
                let console = String::from_utf8_lossy(&domain.console()).into_owned();
                for line in json_lines(&console) {
                    keep_counters(&mut counters, &line);
                }
            }
        }
    }
    add(report, figures);
    for (name, values) in counters {
        report.add(&name, "", false, values, Vec::new());
    }
    Ok(())
}

/// What our guest counted, per mebibyte.
fn keep_counters(counters: &mut BTreeMap<String, Vec<f64>>, line: &Value) {
    let (Some(server), Some(bytes)) = (line["server"].as_str(), line["bytes"].as_f64()) else {
        return;
    };
    for (key, what) in [
        ("notifications", "notifications sent"),
        ("upcalls", "interrupts taken"),
        ("grants_made", "pages granted"),
        ("hypercalls", "hypercalls"),
    ] {
        if let Some(count) = line[key].as_f64() {
            let name = format!("our guest as {server}: {what} a MiB");
            counters.entry(name).or_default().push(count / (bytes / 1048576.0));
        }
    }
}

/// One guest drives, another serves: over TCP, and for ours over vchan.
pub(crate) fn between_guests(
    lab: &Lab,
    rounds: u32,
    seconds: u8,
    report: &mut Report,
) -> Result<()> {
    let mut figures = Figures::new();
    for round in 0..rounds {
        let mut last = 0;
        for (index, system) in [System::Linux, System::Fata].into_iter().enumerate() {
            let index = 1 - index;
            let name = format!("serve-{}", system.name());
            let guest = lab.guest(system, &name, PACKAGE, GUEST, "--role=serve")?;
            let server = lab.start_guest(&guest, READY)?;
            let arguments =
                format!("--role=drive --target={GUEST} --tests={TESTS} --seconds={seconds}");
            let name = format!("drive-{}", system.name());
            let guest = lab.guest(system, &name, PACKAGE, OTHER, &arguments)?;
            let driver = lab.start_guest(&guest, "done")?;
            for line in json_lines(&String::from_utf8_lossy(&driver.console())) {
                collect(&mut figures, "guests", index, &line)?;
            }
            last = driver.id();
            drop((server, driver));
        }
        // Domains are numbered in the order of their creation, and each must know the other.
        let serve = format!("--role=serve --neighbour.peer={}", last + 2);
        let guest = lab.guest(System::Fata, "vchan-serve", PACKAGE, GUEST, &serve)?;
        let server = lab.start_guest(&guest, READY)?;
        let drive = format!(
            "--role=drive --neighbour.peer={} --tests=channel-send,channel-requests --seconds={seconds}",
            last + 1
        );
        let guest = lab.guest(System::Fata, "vchan-drive", PACKAGE, OTHER, &drive)?;
        let driver = lab.testbed.create(&guest)?;
        if (server.id(), driver.id()) != (last + 1, last + 2) {
            bail!("round {round}: somebody else creates guests on this host");
        }
        driver.wait_for("done", PATIENCE)?;
        for line in json_lines(&String::from_utf8_lossy(&driver.console())) {
            collect(&mut figures, "guests", 0, &line)?;
        }
    }
    add(report, figures);
    Ok(())
}
