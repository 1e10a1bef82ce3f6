//! The `fata` command: builds, runs and describes sealed images.
//!
//! [`args`] is the command line, [`failure`] how things fail; [`package`], [`build`] and [`image`]
//! lead from a Cargo package to a sealed ELF and back; [`run`] is QEMU, Xen and processes; [`config`]
//! writes what other launchers read; [`child`] makes sure that nothing outlives the tool. docs/cli.md is the reference for users.

#![forbid(unsafe_code)]

mod args;
mod build;
mod child;
mod config;
mod describe;
mod digest;
mod failure;
mod files;
mod image;
mod new;
mod package;
mod run;
mod suggest;
mod symbolize;
mod symbols;
mod ui;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};

use args::{Building, Cli, Command};
use child::Signals;
use failure::{Failure, Result};
use package::Choice;
use ui::Ui;

fn main() -> ExitCode {
    child::become_tethered();
    child::become_guard();
    build::become_linker();
    let cli = Cli::parse();
    let ui = Ui::new(cli.global.color, cli.global.quiet, cli.global.verbose);
    let json = match &cli.command {
        Command::Build(build) => build.json,
        Command::Run(run) => run.json,
        Command::Describe(describe) => describe.json,
        _ => false,
    };
    match dispatch(ui, cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if json {
                run::report::print_json(&serde_json::json!({
                    "event": "failed",
                    "exit_code": failure.exit.code(),
                    "error": failure.what,
                    "notes": failure.notes,
                    "help": failure.help,
                }));
            }
            ui.failure(&failure);
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Runs the command. Returns the exit code, which only `run` has another than 0 of.
fn dispatch(ui: Ui, command: Command) -> Result<u8> {
    match command {
        Command::New(args) => new::new(ui, &args.path, args.fata_path.as_deref()).map(|()| 0),
        Command::Build(args) => {
            let mut signals = Signals::watch()?;
            let (choice, mut options) = building(args.building);
            options.output = args.output;
            let program = package::find(&args.path, &choice)?;
            let built = build::build(ui, &mut signals, &program, args.target, &options)?;
            if args.json {
                run::report::print_json(&built);
            }
            Ok(0)
        }
        Command::Run(args) => {
            let mut signals = Signals::watch()?;
            let (choice, build) = building(args.building);
            let request = run::Request {
                path: args.path,
                target: args.target,
                choice,
                build,
                machine: args.machine,
                nets: args.nets,
                published: args.published,
                blocks: args.blocks,
                pcap: args.pcap,
                memory: args.memory,
                accel: args.accel,
                xen: args.xen,
                name: args.name,
                timeout: args.timeout.map(Duration::from_secs_f64),
                words: args.words,
                json: args.json,
            };
            run::run(ui, &mut signals, &request)
        }
        Command::Describe(args) => {
            let image = image::Image::open(&args.image)?;
            if args.json {
                run::report::print_json(&describe::Description::new(&image));
            } else {
                print(&describe::text(ui, &image))?;
            }
            Ok(0)
        }
        Command::Config(args) => {
            let request = config::Request {
                image: args.image,
                name: args.name,
                nets: args.nets,
                blocks: args.blocks,
                memory: args.memory,
                words: args.words,
            };
            let text = config::text(&request, args.launcher)?;
            match args.output {
                Some(path) => files::write(&path, text.as_bytes(), false)?,
                None => print(&text)?,
            }
            Ok(0)
        }
        Command::Symbolize(args) => symbolize::symbolize(ui, args.symbols).map(|()| 0),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "fata", &mut script);
            print(&String::from_utf8_lossy(&script))?;
            Ok(0)
        }
    }
}

/// Prints a result to stdout. `println!` would panic when a reader such as `head` is gone.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::io("write to stdout", &error))
        }
        _ => Ok(()),
    }
}

fn building(args: Building) -> (Choice, build::Options) {
    let Building { bin, example, locked, offline, static_libc } = args;
    let options = build::Options { output: None, static_libc, locked, offline };
    (Choice { bin, example }, options)
}
