//! The benchmark: our images and a Linux guest with the same program, side by side on the same QEMU.
//!
//! It exists so that every claim about speed and size in this project can be repeated by one command. It judges
//! nobody by the clock: a figure short of its target is marked in the table and the exit code stays 0. What makes it
//! fail (exit code 1) is a figure that could not be taken at all.

#![forbid(unsafe_code)]

mod cancel;
mod cpio;
mod guest;
mod http;
mod lab;
mod linux;
mod measure;
mod process;
mod report;
mod software;
mod wrk;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::guest::{Machine, System};
use crate::http::Direction;
use crate::measure::{Measure, Plan};
use crate::report::{Report, Setting};
use crate::software::{Given, Shelf};

/// Boots our images and a Linux guest with the same program on the same QEMU, and prints the figures side by side.
///
/// Needs qemu-system-x86_64, wrk, curl, valgrind, iproute2, binutils and apt (bench/run installs them). Downloads Debian's kernel
/// once, unpacked under .cache/, never installed. All of it takes about half an hour; for figures worth keeping, leave
/// the machine alone meanwhile.
///
/// Exit codes: 0 every figure was taken, whatever it is; 1 a figure could not be taken; 2 wrong usage; 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// What to measure.
    #[arg(value_enum, default_value = "all")]
    measures: Vec<Measure>,

    /// Boots for each figure about booting.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,

    /// Boots for each figure about load, resident memory and idleness.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    load_runs: u32,

    /// Length of one run of wrk.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Size of a bulk transfer.
    #[arg(long, value_name = "MIB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1024))]
    bulk: u64,

    /// Memory of each guest, unless memory is what is measured.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    memory: u32,

    /// Few and short runs, to see that everything works: the figures mean little.
    #[arg(long)]
    quick: bool,

    /// Measure only this system (may be repeated).
    #[arg(long, value_enum, value_name = "SYSTEM")]
    system: Vec<System>,

    /// Measure only on this machine (may be repeated).
    #[arg(long, value_enum, value_name = "MACHINE")]
    machine: Vec<Machine>,

    /// Boot FILE instead of building NAME (hello, http, https) for virtio.
    #[arg(long, value_name = "NAME=FILE")]
    image: Vec<Given>,

    /// Give Linux FILE, a static program, instead of building NAME for unix.
    #[arg(long, value_name = "NAME=FILE")]
    program: Vec<Given>,

    /// Write every value to FILE as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the table to FILE as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    #[command(subcommand)]
    inside: Option<Inside>,
}

/// What the benchmark starts of itself inside a network namespace.
#[derive(Debug, Subcommand)]
enum Inside {
    /// Moves bytes and prints how long it took.
    #[command(hide = true)]
    Transfer { direction: Direction, address: SocketAddr, bytes: u64, limit_seconds: u64 },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = cancel::install().and_then(|()| match &arguments.inside {
        Some(Inside::Transfer { direction, address, bytes, limit_seconds }) => {
            let limit = Duration::from_secs(*limit_seconds);
            http::transfer(*direction, *address, *bytes, limit).map(|transfer| {
                println!("{}", transfer.to_json());
                ExitCode::SUCCESS
            })
        }
        None => bench(&arguments),
    });
    if cancel::requested() {
        eprintln!("bench: interrupted");
        return ExitCode::from(cancel::EXIT_STATUS);
    }
    result.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn bench(arguments: &Arguments) -> Result<ExitCode> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = root.parent().context("the benchmark stands in no project")?.to_owned();
    let mut shelf = Shelf::new(root, arguments.image.clone(), arguments.program.clone());
    let plan = plan(arguments)?;
    let setting = Setting {
        qemu: guest::qemu_version()?,
        kernel: String::new(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        memory_mib: plan.memory_mib,
        command: command_line(),
    };
    let mut report = Report { setting, rows: Vec::new() };
    measure::run(&plan, &mut shelf, |rows| report.rows.extend(rows))?;
    report.setting.kernel = shelf.kernel_release().to_owned();

    print!("{}", report.table());
    if let Some(path) = &arguments.json {
        write(path, &format!("{:#}\n", report.to_json()))?;
    }
    if let Some(path) = &arguments.markdown {
        write(path, &report.markdown())?;
    }
    let whole = report.failures().is_empty();
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plan(arguments: &Arguments) -> Result<Plan> {
    // What is not named is all.
    let or_all = |systems: &[System]| match systems {
        [] => vec![System::Fata, System::Linux],
        systems => systems.to_vec(),
    };
    let machines = match arguments.machine.as_slice() {
        [] => vec![Machine::Q35, Machine::Microvm],
        machines => machines.to_vec(),
    };
    let quick = arguments.quick;
    let few = |runs: u32| if quick { 1 } else { runs };
    Ok(Plan {
        measures: arguments.measures.clone(),
        systems: or_all(&arguments.system),
        machines,
        runs: few(arguments.runs),
        load_runs: few(arguments.load_runs),
        load_duration: Duration::from_secs(if quick { 2 } else { arguments.seconds }),
        idle_duration: Duration::from_secs(if quick { 3 } else { 10 }),
        bulk_bytes: if quick { 16 << 20 } else { arguments.bulk << 20 },
        memory_mib: arguments.memory,
        own_program: std::env::current_exe().context("cannot find our own program")?,
    })
}

/// How the reader makes the same table.
fn command_line() -> String {
    let words: Vec<String> = std::env::args().skip(1).collect();
    format!("./bench/run {}", words.join(" ")).trim_end().to_owned()
}

fn write(path: &PathBuf, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn measures_are_named_one_by_one() {
        let arguments = Arguments::try_parse_from(["bench", "boot", "idle", "--runs", "7"]);
        let arguments = arguments.expect("it is good");
        assert_eq!(arguments.measures, [Measure::Boot, Measure::Idle]);
        assert_eq!(plan(&arguments).expect("we know ourselves").runs, 7);
        assert!(Arguments::try_parse_from(["bench", "boost"]).is_err());
        assert!(Arguments::try_parse_from(["bench", "--runs", "0"]).is_err());
    }

    #[test]
    fn quick_is_quick() {
        let arguments = Arguments::try_parse_from(["bench", "--quick"]).expect("it is good");
        let plan = plan(&arguments).expect("we know ourselves");
        assert_eq!((plan.runs, plan.load_runs), (1, 1));
        assert_eq!(arguments.measures, [Measure::All]);
    }
}
