//! `testbed`: a Xen host on the command line.

#![forbid(unsafe_code)]

mod arguments;
mod commands;

use std::process::ExitCode;

use clap::Parser as _;
use fata_testbed::Kind;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    // Ctrl-C ends what was started: every wait ends with an error, and what is owned is dropped.
    let interrupts = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM];
    let mut signals = match signal_hook::iterator::Signals::new(interrupts) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("testbed: cannot watch for signals: {error}");
            return ExitCode::from(70);
        }
    };
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            fata_testbed::interrupt();
        }
    });
    match commands::execute(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if arguments.json {
                let value = serde_json::json!({
                    "error": error.what(), "notes": error.notes(), "help": error.help_line(),
                });
                println!("{value}");
            }
            eprintln!("testbed: {error}");
            ExitCode::from(match error.kind() {
                Kind::Usage => 2,
                Kind::Io => 74,
                Kind::Resource | Kind::NameTaken => 76,
                Kind::Tool | Kind::Packages => 77,
                Kind::Host | Kind::Guest => 78,
                Kind::Deadline => 79,
            })
        }
    }
}
