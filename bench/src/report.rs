//! What was measured, beside the peer and the target, as a table for people, as Markdown and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::guest::Machine;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Written as seconds or milliseconds, whichever reads better.
    Seconds,
    /// Events a second.
    PerSecond,
    /// Megabits a second.
    MegabitsPerSecond,
    /// Bytes, written as KiB or MiB.
    Bytes,
    /// Hundredths of one processor.
    PercentOfCore,
    /// Instructions that a processor executed.
    Instructions,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::PerSecond => "1/s",
            Self::MegabitsPerSecond => "Mbit/s",
            Self::Bytes => "bytes",
            Self::PercentOfCore => "% of a core",
            Self::Instructions => "instructions",
        }
    }

    /// A number with its unit, in three or four significant digits.
    fn write(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 0.0995 => format!("{:.1} ms", value * 1e3),
            Self::Seconds if value < 0.9995 => format!("{:.0} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
            Self::PerSecond => format!("{}/s", grouped(value)),
            Self::MegabitsPerSecond => format!("{} Mbit/s", grouped(value)),
            Self::Bytes if value < 1024.0 * 1024.0 => format!("{:.0} KiB", value / 1024.0),
            Self::Bytes if value < 99.5 * 1024.0 * 1024.0 => {
                format!("{:.1} MiB", value / (1024.0 * 1024.0)).replace(".0 MiB", " MiB")
            }
            Self::Bytes => format!("{:.0} MiB", value / (1024.0 * 1024.0)),
            Self::PercentOfCore => format!("{value:.1} %"),
            Self::Instructions => grouped(value),
        }
    }
}

/// A rounded number with a comma between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 && digits != "0" { format!("-{text}") } else { text }
}

/// What one side of a row came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// One value for each run, at least one, all finite.
    Values(Vec<f64>),
    /// Why there is no value.
    Failed(String),
    /// Nobody asked, or the measure has no meaning for this side.
    Absent,
}

impl Outcome {
    /// Values, or the failure that stopped them; a failure outweighs the values before it.
    pub(crate) fn from_runs(runs: &[anyhow::Result<f64>]) -> Self {
        if let Some(error) = runs.iter().find_map(|run| run.as_ref().err()) {
            return Self::Failed(format!("{error:#}"));
        }
        let values: Vec<f64> = runs.iter().flatten().copied().collect();
        if values.is_empty() {
            Self::Absent
        } else if values.iter().all(|value| value.is_finite()) {
            Self::Values(values)
        } else {
            Self::Failed("a value is not finite".to_owned())
        }
    }

    fn summary(&self) -> Option<Summary> {
        match self {
            Self::Values(values) => Summary::of(values),
            Self::Failed(_) | Self::Absent => None,
        }
    }

    fn write(&self, unit: Unit) -> String {
        match (self, self.summary()) {
            (_, Some(summary)) if summary.runs == 1 || summary.min == summary.max => {
                unit.write(summary.median)
            }
            (_, Some(summary)) => format!(
                "{} [{}–{}]",
                unit.write(summary.median),
                unit.write(summary.min),
                unit.write(summary.max)
            ),
            (Self::Failed(_), None) => "failed".to_owned(),
            (_, None) => "–".to_owned(),
        }
    }

    fn to_json(&self) -> Value {
        match (self, self.summary()) {
            (Self::Values(values), Some(summary)) => json!({
                "median": summary.median,
                "min": summary.min,
                "max": summary.max,
                "values": values,
            }),
            (Self::Failed(why), _) => json!({ "error": why }),
            _ => Value::Null,
        }
    }
}

/// The order statistics that the table shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) runs: usize,
}

impl Summary {
    /// `None` for no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { median, min, max, runs: sorted.len() })
    }
}

/// What the project wants of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// Nothing in particular: the row is there to be seen.
    Seen,
    /// Ours divided by the peer's is at most this.
    RatioAtMost(f64),
    /// Ours divided by the peer's is at least this.
    RatioAtLeast(f64),
    /// Ours is at most this.
    AtMost(f64),
    /// Ours is more than this.
    MoreThan(f64),
}

/// How a figure stands against its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The target is reached.
    Met,
    /// It is not.
    Short,
    /// There is a target, but not what it takes to judge.
    Unmeasured,
    /// There is no target.
    None,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Short => "short",
            Self::Unmeasured => "not measured",
            Self::None => "",
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Met => "✓ met",
            Self::Short => "✗ short",
            Self::Unmeasured => "? not measured",
            Self::None => "",
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// The measurement that it belongs to, by its name on the command line.
    pub(crate) measure: &'static str,
    pub(crate) title: String,
    /// `None` where the machine does not matter.
    pub(crate) machine: Option<Machine>,
    pub(crate) unit: Unit,
    pub(crate) ours: Outcome,
    pub(crate) peer: Outcome,
    pub(crate) target: Target,
}

impl Row {
    /// Ours divided by the peer's, by medians.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (ours, peer) = (self.ours.summary()?.median, self.peer.summary()?.median);
        (peer > 0.0).then(|| ours / peer)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let ours = self.ours.summary().map(|summary| summary.median);
        let holds = match self.target {
            Target::Seen => return Verdict::None,
            Target::RatioAtMost(limit) => self.ratio().map(|ratio| ratio <= limit),
            Target::RatioAtLeast(limit) => self.ratio().map(|ratio| ratio >= limit),
            Target::AtMost(limit) => ours.map(|ours| ours <= limit),
            Target::MoreThan(limit) => ours.map(|ours| ours > limit),
        };
        match holds {
            Some(true) => Verdict::Met,
            Some(false) => Verdict::Short,
            None => Verdict::Unmeasured,
        }
    }

    fn write_target(&self) -> String {
        match self.target {
            Target::Seen => String::new(),
            // A twentieth reads better than 0.05.
            Target::RatioAtMost(limit) if limit < 1.0 => format!("≤ 1/{:.0} of Linux", 1.0 / limit),
            Target::RatioAtMost(limit) => format!("≤ {limit} × Linux"),
            Target::RatioAtLeast(limit) => format!("≥ {limit} × Linux"),
            Target::AtMost(limit) => format!("≤ {}", self.unit.write(limit)),
            Target::MoreThan(limit) => format!("> {}", self.unit.write(limit)),
        }
    }

    fn write_ratio(&self) -> String {
        match self.ratio() {
            None => String::new(),
            Some(ratio) if ratio >= 0.5 => format!("{ratio:.2}"),
            Some(ratio) if ratio >= 0.1 => format!("1/{:.1}", 1.0 / ratio),
            Some(ratio) if ratio > 0.0 => format!("1/{:.0}", 1.0 / ratio),
            Some(_) => "0".to_owned(),
        }
    }

    fn machine_name(&self) -> String {
        self.machine.map(|machine| machine.to_string()).unwrap_or_default()
    }

    fn cells(&self) -> [String; 6] {
        [
            self.title.clone(),
            self.machine_name(),
            self.ours.write(self.unit),
            self.peer.write(self.unit),
            self.write_ratio(),
            self.write_target(),
        ]
    }

    fn to_json(&self) -> Value {
        json!({
            "measure": self.measure,
            "title": self.title,
            "machine": self.machine.map(|machine| machine.to_string()),
            "unit": self.unit.name(),
            "fata": self.ours.to_json(),
            "linux": self.peer.to_json(),
            "ratio": self.ratio(),
            "target": match self.target {
                Target::Seen => Value::Null,
                Target::RatioAtMost(limit) => json!({ "ratio_at_most": limit }),
                Target::RatioAtLeast(limit) => json!({ "ratio_at_least": limit }),
                Target::AtMost(limit) => json!({ "at_most": limit }),
                Target::MoreThan(limit) => json!({ "more_than": limit }),
            },
            "verdict": match self.verdict() {
                Verdict::None => Value::Null,
                verdict => json!(verdict.word()),
            },
        })
    }
}

/// Under what circumstances the figures came about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setting {
    pub(crate) qemu: String,
    /// The peer's kernel; empty if no peer was measured.
    pub(crate) kernel: String,
    pub(crate) processors: usize,
    pub(crate) memory_mib: u32,
    /// The command line that made them.
    pub(crate) command: String,
}

impl Setting {
    fn sentence(&self) -> String {
        let peer = if self.kernel.is_empty() {
            String::new()
        } else {
            format!(" Linux is Debian's {} with the same program as its init.", self.kernel)
        };
        format!(
            "QEMU {} under software emulation (`-accel tcg -cpu max,-erms -smp 1`, {} MiB unless memory is what is \
             measured), load generator on the same {} processors.{peer} Median [lowest–highest].",
            self.qemu, self.memory_mib, self.processors
        )
    }
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) setting: Setting,
    pub(crate) rows: Vec<Row>,
}

const HEADINGS: [&str; 6] = ["Measure", "Machine", "Fata", "Linux", "Ratio", "Target"];

impl Report {
    /// For a terminal.
    pub(crate) fn table(&self) -> String {
        let rows: Vec<[String; 6]> = self.rows.iter().map(Row::cells).collect();
        let widths: Vec<usize> = (0..HEADINGS.len())
            .map(|column| {
                let cells = rows.iter().map(|row| row[column].chars().count());
                cells.chain([HEADINGS[column].len()]).max().unwrap_or_default()
            })
            .collect();
        let mut text = String::new();
        let mut line = |cells: &[String], end: &str| {
            let padded: Vec<String> =
                cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            let whole = format!("{}  {end}", padded.join("  "));
            text.push_str(whole.trim_end());
            text.push('\n');
        };
        line(&HEADINGS.map(str::to_owned), "");
        for (cells, row) in rows.iter().zip(&self.rows) {
            line(cells, row.verdict().mark());
        }
        for failure in self.failures() {
            writeln!(text, "{failure}").expect("a String takes all");
        }
        writeln!(text, "{}", self.setting.sentence()).expect("a String takes all");
        text
    }

    /// For the README.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("| {} | |\n|---|---|--:|--:|--:|---|---|\n", HEADINGS.join(" | "));
        for row in &self.rows {
            let cells = row.cells().map(|cell| cell.replace('|', "\\|"));
            writeln!(text, "| {} | {} |", cells.join(" | "), row.verdict().mark())
                .expect("a String takes all");
        }
        writeln!(text, "\n{}", self.setting.sentence()).expect("a String takes all");
        writeln!(text, "Made by `{}`.", self.setting.command).expect("a String takes all");
        text
    }

    /// For programs. `fata_bench` is the version of this shape.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "fata_bench": 1,
            "setting": {
                "qemu": self.setting.qemu,
                "accelerator": "tcg",
                "kernel": self.setting.kernel,
                "processors": self.setting.processors,
                "memory_mib": self.setting.memory_mib,
                "command": self.setting.command,
            },
            "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        })
    }

    /// A sentence for each figure that could not be taken.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for row in &self.rows {
            for (side, outcome) in [("fata", &row.ours), ("linux", &row.peer)] {
                if let Outcome::Failed(why) = outcome {
                    let machine = row.machine_name();
                    let place = [row.title.as_str(), &machine, side]
                        .into_iter()
                        .filter(|word| !word.is_empty())
                        .collect::<Vec<_>>()
                        .join(", ");
                    failures.push(format!("failed: {place}: {why}"));
                }
            }
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn row(ours: &[f64], peer: &[f64], target: Target) -> Row {
        let outcome = |values: &[f64]| match values {
            [] => Outcome::Absent,
            values => Outcome::Values(values.to_vec()),
        };
        Row {
            measure: "boot",
            title: "First HTTP answer".to_owned(),
            machine: Some(Machine::Q35),
            unit: Unit::Seconds,
            ours: outcome(ours),
            peer: outcome(peer),
            target,
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let median = |values: &[f64]| Summary::of(values).map(|summary| summary.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let summary = Summary::of(&[5.0, 1.0]).expect("two values");
        assert_eq!((summary.min, summary.max, summary.runs), (1.0, 5.0, 2));
    }

    #[test]
    fn verdicts_follow_targets() {
        let verdict = |ours: &[f64], peer: &[f64], target| row(ours, peer, target).verdict();
        assert_eq!(verdict(&[1.0], &[20.0], Target::RatioAtMost(0.05)), Verdict::Met);
        assert_eq!(verdict(&[1.1], &[20.0], Target::RatioAtMost(0.05)), Verdict::Short);
        assert_eq!(verdict(&[3.0], &[2.0], Target::RatioAtLeast(1.5)), Verdict::Met);
        assert_eq!(verdict(&[3.0], &[], Target::RatioAtLeast(1.5)), Verdict::Unmeasured);
        assert_eq!(verdict(&[3.0], &[0.0], Target::RatioAtLeast(1.5)), Verdict::Unmeasured);
        assert_eq!(verdict(&[8.0], &[], Target::AtMost(8.0)), Verdict::Met);
        assert_eq!(verdict(&[12e3], &[], Target::MoreThan(12e3)), Verdict::Short);
        assert_eq!(verdict(&[1.0], &[1.0], Target::Seen), Verdict::None);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(Unit::Seconds.write(0.0421), "42.1 ms");
        assert_eq!(Unit::Seconds.write(0.218), "218 ms");
        assert_eq!(Unit::Seconds.write(6.314), "6.31 s");
        assert_eq!(Unit::PerSecond.write(12_044.4), "12,044/s");
        assert_eq!(Unit::Bytes.write(500.0 * 1024.0), "500 KiB");
        assert_eq!(Unit::Bytes.write(8.0 * 1024.0 * 1024.0), "8 MiB");
        assert_eq!(Unit::Bytes.write(1.5 * 1024.0 * 1024.0), "1.5 MiB");
        assert_eq!(Unit::Bytes.write(245.0 * 1024.0 * 1024.0), "245 MiB");
        assert_eq!(grouped(-1234.0), "-1,234");
        assert_eq!(grouped(-0.2), "0");
    }

    #[test]
    fn the_tables_show_value_ratio_and_mark() {
        let report = Report {
            setting: Setting { command: "./bench/run".to_owned(), ..Setting::default() },
            rows: vec![
                row(&[0.2, 0.3, 0.25], &[6.0], Target::RatioAtMost(0.05)),
                row(&[0.2], &[], Target::Seen),
            ],
        };
        let markdown = report.markdown();
        let expected = "| First HTTP answer | q35 | 250 ms [200 ms–300 ms] | 6.00 s | 1/24 | ≤ 1/20 of Linux | ✓ met |";
        assert!(markdown.lines().any(|line| line == expected), "{markdown}");
        let columns = |line: &str| line.matches('|').count();
        let head: Vec<usize> = markdown.lines().take(4).map(columns).collect();
        assert_eq!(head, [8, 8, 8, 8], "{markdown}");
        assert!(report.table().contains("1/24"), "{}", report.table());
    }

    #[test]
    fn json_has_every_value() {
        let mut failing = row(&[0.2], &[], Target::Seen);
        failing.peer = Outcome::from_runs(&[Ok(1.0), Err(anyhow!("it would not boot"))]);
        let rows = vec![row(&[0.5, 0.25], &[5.0], Target::RatioAtMost(0.05)), failing];
        let report = Report { setting: Setting::default(), rows };
        let value = report.to_json();
        assert_eq!(value["fata_bench"], 1);
        let first = &value["rows"][0];
        assert_eq!(first["fata"]["values"], json!([0.5, 0.25]));
        assert_eq!(first["linux"]["median"], 5.0);
        assert_eq!(first["target"]["ratio_at_most"], 0.05);
        assert_eq!(first["verdict"], "short");
        assert_eq!(first["machine"], "q35");
        let second = &value["rows"][1];
        assert_eq!(second["linux"]["error"], "it would not boot");
        assert_eq!(second["verdict"], Value::Null);
        assert_eq!(report.failures().len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn grouping_loses_no_digit(value in 0_u32..) {
            proptest::prop_assert_eq!(grouped(f64::from(value)).replace(',', ""), value.to_string());
        }

        #[test]
        fn the_median_is_bounded(values in proptest::collection::vec(-1e9_f64..1e9, 1..20)) {
            let summary = Summary::of(&values).expect("at least one value");
            proptest::prop_assert!(summary.min <= summary.median && summary.median <= summary.max);
        }
    }
}
