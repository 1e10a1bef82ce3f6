//! One run of cargo: its messages as they come, its progress on one line, the program it made.

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};

use serde::Deserialize;

use crate::child::{Signals, Tethered};
use crate::failure::{Exit, Failure, Result};
use crate::ui::{Spinner, Ui};

/// What came out of a run of cargo that did not fail.
pub(crate) struct Finished {
    /// Every executable that it named: target's name and path.
    pub(crate) executables: Vec<(String, PathBuf)>,
}

/// A run that failed: the diagnostics have been shown, except the linker's.
pub(crate) struct Failed {
    /// All that the linker said.
    pub(crate) linker_output: String,
    /// The linker's diagnostic as rustc renders it, for when it is not understood.
    pub(crate) linker_rendered: String,
}

/// One line of either stream.
enum Line {
    Message(String),
    Said(String),
}

/// The part of cargo's JSON messages that is needed.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    message: Option<Diagnostic>,
    #[serde(default)]
    target: Option<Target>,
    #[serde(default)]
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Diagnostic {
    message: String,
    #[serde(default)]
    rendered: Option<String>,
    #[serde(default)]
    children: Vec<Child>,
}

#[derive(Deserialize)]
struct Child {
    message: String,
}

/// Runs `command` (a tethered cargo with JSON messages) to its end.
pub(crate) fn run(
    ui: Ui,
    signals: &mut Signals,
    mut spinner: Spinner,
    mut command: Command,
) -> Result<std::result::Result<Finished, Failed>> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut cargo = Tethered::spawn(command, "cargo")?;
    let lines = {
        let (sender, lines) = mpsc::channel();
        let streams = cargo.streams();
        if let Some(stdout) = streams.stdout.take() {
            forward(stdout, sender.clone(), Line::Message);
        }
        if let Some(stderr) = streams.stderr.take() {
            forward(stderr, sender, Line::Said);
        }
        lines
    };
    let mut executables = Vec::new();
    let mut failed = Failed { linker_output: String::new(), linker_rendered: String::new() };
    loop {
        match lines.recv_timeout(Spinner::TICK) {
            Ok(Line::Said(line)) => said(&mut spinner, &failed, &line),
            Ok(Line::Message(line)) => {
                // Build scripts' output and messages of newer cargos are none of ours.
                if let Ok(message) = serde_json::from_str::<Message>(&line) {
                    take(&mut spinner, message, &mut executables, &mut failed);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        spinner.tick();
        signals.check()?; // dropping `cargo` ends it
    }
    let status = loop {
        if let Some(status) = cargo.try_wait()? {
            break status;
        }
        signals.check()?;
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    drop(spinner);
    ui.detail(&format!("cargo ended with {status}"));
    Ok(if status.success() { Ok(Finished { executables }) } else { Err(failed) })
}

/// The failure of a build whose diagnostics have been shown.
pub(crate) fn failure(what: &str) -> Failure {
    Failure::new(Exit::Build, format!("cargo could not build {what}"))
        .help("the diagnostics above say why")
}

fn forward(
    stream: impl Read + Send + 'static,
    sender: mpsc::Sender<Line>,
    wrap: fn(String) -> Line,
) {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match stream.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    if sender.send(wrap(text)).is_err() {
                        break;
                    }
                }
            }
        }
    });
}

/// cargo's own words: progress goes to the spinner, the rest is shown.
fn said(spinner: &mut Spinner, failed: &Failed, line: &str) {
    const PROGRESS: [&str; 15] = [
        "Compiling",
        "Building",
        "Downloading",
        "Downloaded",
        "Updating",
        "Locking",
        "Fresh",
        "Adding",
        "Blocking",
        "Checking",
        "Dirty",
        "Running",
        "Removing",
        "Downgrading",
        "Finished",
    ];
    let trimmed = line.trim_start();
    if PROGRESS.iter().any(|verb| trimmed.starts_with(verb)) {
        if !trimmed.starts_with("Finished") && !trimmed.starts_with("Fresh") {
            spinner.doing(line);
        }
    } else if !trimmed.is_empty() && failed.linker_output.is_empty() {
        spinner.above(line);
    }
}

fn take(
    spinner: &mut Spinner,
    message: Message,
    executables: &mut Vec<(String, PathBuf)>,
    failed: &mut Failed,
) {
    match (message.reason.as_str(), message.message, message.target) {
        ("compiler-artifact", _, Some(target)) => {
            if let Some(path) = message.executable {
                executables.push((target.name, path));
            }
        }
        ("compiler-message", Some(diagnostic), _) => {
            let rendered = diagnostic.rendered.unwrap_or_default();
            if diagnostic.message.starts_with("linking with") {
                failed.linker_rendered.push_str(&rendered);
                failed.linker_output.push_str(&diagnostic.message);
                for child in diagnostic.children {
                    failed.linker_output.push('\n');
                    failed.linker_output.push_str(&child.message);
                }
            } else if !failed.linker_output.is_empty() && rendered.contains("aborting due to") {
                // The tail of a diagnostic that is told in other words.
            } else if !rendered.is_empty() {
                spinner.above(&rendered);
            }
        }
        _ => {}
    }
}
