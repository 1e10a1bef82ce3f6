//! The benchmark of the network stack: our engine beside smoltcp in one process.
//!
//! Both are driven by the same code through one trait, with the same MTU, buffers, link and clock,
//! and both sum and verify every checksum. A figure that cannot be taken fails the run; one that is
//! bad does not.

#![forbid(unsafe_code)]

mod cost;
mod fata;
mod host;
mod idle;
mod impaired;
mod link;
mod plot;
mod smol;
#[path = "../table.rs"]
mod table;
mod tap;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

use fata::Fata;
use smol::Smoltcp;
use table::Report;

/// Measures our TCP/IP engine beside smoltcp, and prints the figures side by side.
///
/// Needs valgrind, which counts instructions: those are the same in every run. What is in seconds is
/// measured several times, ours and smoltcp in turn.
#[derive(Debug, Parser)]
#[command(name = "bench/run network")]
struct Arguments {
    /// What to measure.
    #[arg(value_enum, default_values_t = [Measure::All])]
    measures: Vec<Measure>,

    /// How often each time is taken.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Seconds of each stream over TAP.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=60))]
    seconds: u8,

    /// Append every figure to FILE, a line of JSON each, with commit and date.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Compare with the last figures of the same name in FILE, written by --json.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,

    /// Write the table to FILE as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Write the plots into FOLDER, as SVG.
    #[arg(long, value_name = "FOLDER")]
    plots: Option<PathBuf>,

    /// Run one thing and print nothing: what valgrind is given to count.
    #[arg(long, value_names = ["STACK", "WHAT", "CONNECTIONS", "COUNT"], num_args = 4, hide = true)]
    once: Option<Vec<String>>,
}

/// A group of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// All of them.
    All,
    /// A stream between two hosts: bytes per second, instructions per segment.
    Bulk,
    /// What a segment costs beside other connections.
    Connections,
    /// A stream over links that lose, reorder and duplicate, in virtual time.
    Impaired,
    /// What an idle connection holds.
    Idle,
    /// Our stack in a Unix process over TAP interfaces, beside Linux's own. Needs root.
    Tap,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match bench(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &Arguments) -> Result<()> {
    if let Some(words) = &arguments.once {
        return once(words);
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = root.parent().context("the benchmark stands in no project")?;
    let wanted = |measure| {
        arguments.measures.contains(&measure) || arguments.measures.contains(&Measure::All)
    };
    let mut report = Report::new(root, "smoltcp", arguments.compare.as_deref())?;
    let plots = arguments.plots.as_deref();
    if wanted(Measure::Bulk) {
        cost::bulk(arguments.rounds, &mut report)?;
    }
    if wanted(Measure::Connections) {
        let curve = cost::connections(arguments.rounds, &mut report)?;
        if let Some(folder) = plots {
            write(&folder.join("connections.svg"), &curve.to_svg())?;
        }
    }
    if wanted(Measure::Impaired) {
        impaired::measure(&mut report)?;
    }
    if wanted(Measure::Idle) {
        idle::measure(&mut report)?;
    }
    let mut reports = vec![report];
    if wanted(Measure::Tap) {
        let mut beside = Report::new(root, "Linux", arguments.compare.as_deref())?;
        tap::measure(arguments.rounds, arguments.seconds, &mut beside)?;
        reports.push(beside);
    }
    let text: Vec<String> =
        reports.iter().filter(|report| !report.is_empty()).map(Report::table).collect();
    let text = text.join("\n");
    print!("{text}");
    if let Some(path) = &arguments.markdown {
        write(path, &text)?;
    }
    if let Some(path) = &arguments.json {
        reports.iter().try_for_each(|report| report.append(path))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn once(words: &[String]) -> Result<()> {
    let [stack, what, connections, count] = words else { anyhow::bail!("four words are needed") };
    let connections = connections.parse().context("CONNECTIONS is a number")?;
    let count = count.parse().context("COUNT is a number")?;
    match stack.as_str() {
        "fata" if what == "idle" => idle::once(),
        "fata" => cost::once::<Fata>(what, connections, count),
        "smoltcp" => cost::once::<Smoltcp>(what, connections, count),
        other => anyhow::bail!("no stack is called {other}"),
    }
}
