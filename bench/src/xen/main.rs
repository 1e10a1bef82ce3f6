//! The benchmark on Xen: our guests and Debian's, side by side on the same Xen host.
//!
//! The host is the testbed's, so everybody can run this. Both kinds of guests run the same programs
//! (`bench/programs`, `examples/http`), and dom0 runs them too where it is the other end; what
//! differs is what is under the program. A figure that cannot be taken fails the run; one that is
//! bad does not.

#![forbid(unsafe_code)]

mod boot;
mod first;
mod forward;
mod lab;
mod streams;
#[path = "../table.rs"]
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

use lab::Lab;
use table::Report;

/// Measures our guests beside Debian's on a Xen host in QEMU, and prints the figures side by side.
///
/// Needs qemu-system-x86_64 and apt. All of it takes about half an hour under emulation; leave the
/// machine alone meanwhile.
#[derive(Debug, Parser)]
#[command(name = "bench/run xen")]
struct Arguments {
    /// What to measure.
    #[arg(value_enum, default_values_t = [Measure::All])]
    measures: Vec<Measure>,

    /// How often each stream is measured, and each system booted.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Seconds of each stream.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=60))]
    seconds: u8,

    /// Boots that connect at once: half of them with load on the host.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=10000))]
    boots: u32,

    /// Append every figure to FILE, a line of JSON each, with commit and date.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Compare with the last figures of the same name in FILE, written by --json.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,

    /// Write the table to FILE as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// A group of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// All of them.
    All,
    /// Guests that connect the moment they start: is the first frame answered?
    First,
    /// From the start of a guest to its first HTTP answer.
    Boot,
    /// Streams, requests and connections between dom0 and a guest.
    Tcp,
    /// The same between two guests, and over vchan.
    Guests,
    /// Streams between dom0 and our guest, without one optimisation after the other.
    Parts,
    /// Frames forwarded between two interfaces.
    Forward,
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
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = root.parent().context("the benchmark stands in no project")?;
    let wanted = |measure| {
        arguments.measures.contains(&measure) || arguments.measures.contains(&Measure::All)
    };
    let mut report = Report::new(root, "Debian guest", arguments.compare.as_deref())?;
    let lab = Lab::start(root)?;
    if wanted(Measure::First) {
        first::measure(&lab, arguments.boots, &mut report)?;
    }
    if wanted(Measure::Boot) {
        boot::measure(&lab, arguments.rounds, &mut report)?;
    }
    if wanted(Measure::Tcp) {
        streams::with_dom0(&lab, arguments.rounds, arguments.seconds, &mut report)?;
    }
    if wanted(Measure::Guests) {
        streams::between_guests(&lab, arguments.rounds, arguments.seconds, &mut report)?;
    }
    if wanted(Measure::Parts) {
        streams::parts(&lab, arguments.rounds, arguments.seconds, &mut report)?;
    }
    if wanted(Measure::Forward) {
        forward::measure(&lab, arguments.rounds, arguments.seconds, &mut report)?;
    }
    print!("{}", report.table());
    if let Some(path) = &arguments.markdown {
        std::fs::write(path, report.table())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &arguments.json {
        report.append(path)?;
    }
    Ok(())
}
