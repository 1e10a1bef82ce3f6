//! What was measured, as a table, as lines of JSON, and beside an earlier run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// One row: a figure of ours, and of the peer's where there is one.
struct Row {
    name: String,
    unit: &'static str,
    /// Larger is better.
    more_is_better: bool,
    ours: Vec<f64>,
    peers: Vec<f64>,
}

pub(crate) struct Report {
    rows: Vec<Row>,
    /// Whom ours stands beside, as the table calls it.
    peer: &'static str,
    commit: String,
    earlier: BTreeMap<String, f64>,
}

impl Report {
    /// A report about the project at `root` beside `peer`; figures in `compare` stand beside the new
    /// ones.
    pub(crate) fn new(root: &Path, peer: &'static str, compare: Option<&Path>) -> Result<Self> {
        let git = Command::new("git")
            .args(["describe", "--always", "--dirty"])
            .current_dir(root)
            .output()
            .context("git does not run")?;
        let commit = String::from_utf8_lossy(&git.stdout).trim().to_owned();
        let mut earlier = BTreeMap::new();
        if let Some(path) = compare {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            for (number, line) in text.lines().enumerate() {
                let line: Value = serde_json::from_str(line)
                    .with_context(|| format!("{}, line {}", path.display(), number + 1))?;
                if let (Some(name), Some(value)) = (line["name"].as_str(), line["fata"].as_f64()) {
                    earlier.insert(name.to_owned(), value);
                }
            }
        }
        Ok(Report { rows: Vec::new(), peer, commit, earlier })
    }

    /// Nothing was measured.
    #[allow(dead_code, reason = "one of the two programs that have this file asks")]
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn add(
        &mut self,
        name: &str,
        unit: &'static str,
        more_is_better: bool,
        ours: Vec<f64>,
        peers: Vec<f64>,
    ) {
        let row = Row { name: name.to_owned(), unit, more_is_better, ours, peers };
        let (ours, theirs) = (number(median(&row.ours)), number(median(&row.peers)));
        eprintln!("bench: {name}: {ours} {unit}, {} {theirs} {unit}", self.peer);
        self.rows.push(row);
    }

    /// All rows as a Markdown table.
    pub(crate) fn table(&self) -> String {
        let compared = !self.earlier.is_empty();
        let mut text = format!("| figure | ours | {} | ratio |", self.peer);
        text.push_str(if compared { " earlier | change |\n" } else { "\n" });
        text.push_str("|---|---|---|---|");
        text.push_str(if compared { "---|---|\n" } else { "\n" });
        for row in &self.rows {
            let (ours, peers) = (median(&row.ours), median(&row.peers));
            let ratio = match (ours, peers) {
                (Some(ours), Some(peers)) if row.more_is_better && peers > 0.0 => {
                    format!("{:.2}x", ours / peers)
                }
                (Some(ours), Some(peers)) if ours > 0.0 && !row.more_is_better => {
                    format!("1/{:.1}", peers / ours)
                }
                _ => "–".to_owned(),
            };
            let _ = write!(
                text,
                "| {} | {} | {} | {ratio} |",
                row.name,
                side(&row.ours, row.unit),
                side(&row.peers, row.unit)
            );
            if compared {
                match (ours, self.earlier.get(&row.name)) {
                    (Some(ours), Some(&old)) if old != 0.0 => {
                        let change = (ours / old - 1.0) * 100.0;
                        let _ =
                            write!(text, " {} {} | {change:+.0} % |", number(Some(old)), row.unit);
                    }
                    _ => text.push_str(" – | – |"),
                }
            }
            text.push('\n');
        }
        text
    }

    /// Appends a line of JSON for each row.
    pub(crate) fn append(&self, path: &Path) -> Result<()> {
        let date = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        for row in &self.rows {
            let line = json!({
                "name": row.name,
                "unit": row.unit,
                "fata": median(&row.ours),
                "peer": self.peer,
                "peers": median(&row.peers),
                "fata_runs": row.ours,
                "peers_runs": row.peers,
                "commit": self.commit,
                "unix_time": date,
            });
            writeln!(file, "{line}").with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// The median with the range, where there are several values.
fn side(values: &[f64], unit: &str) -> String {
    let Some(middle) = median(values) else { return "–".to_owned() };
    let (least, most) =
        values.iter().fold((f64::MAX, f64::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    if least == most {
        return format!("{} {unit}", number(Some(middle)));
    }
    let (middle, least, most) = (number(Some(middle)), number(Some(least)), number(Some(most)));
    format!("{middle} {unit} [{least}–{most}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_median_its_range_and_its_ratio() {
        let mut report = Report {
            rows: Vec::new(),
            peer: "Debian guest",
            commit: String::new(),
            earlier: BTreeMap::new(),
        };
        report.add("stream", "Mbit/s", true, vec![300.0, 100.0, 200.0], vec![100.0]);
        report.add("boot", "s", false, vec![0.5], vec![5.0]);
        let table = report.table();
        assert!(
            table.contains("| stream | 200 Mbit/s [100–300] | 100 Mbit/s | 2.00x |"),
            "{table}"
        );
        assert!(table.contains("| boot | 0.50 s | 5.00 s | 1/10.0 |"), "{table}");
    }

    #[test]
    fn an_earlier_run_stands_beside_the_new_one() {
        let earlier = BTreeMap::from([("stream".to_owned(), 100.0)]);
        let mut report =
            Report { rows: Vec::new(), peer: "Debian guest", commit: String::new(), earlier };
        report.add("stream", "Mbit/s", true, vec![150.0], Vec::new());
        assert!(report.table().contains("| 100 Mbit/s | +50 % |"), "{}", report.table());
    }
}
