//! What `fata run --json` prints: one JSON object per line, on stdout; the console then goes to
//! stderr.

use std::io::Write as _;

use serde::Serialize;

use crate::run::machine::console_writer;
use crate::run::qemu::Plan;
use crate::run::request::Publish;
use crate::ui::Ui;

/// Reports the course of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reporter {
    /// Whether `--json` was given.
    pub(crate) json: bool,
}

/// The machine runs.
#[derive(Serialize)]
pub(crate) struct Started<'a> {
    event: &'static str,
    /// Process to watch or to kill.
    pid: u32,
    image: &'a std::path::Path,
    target: &'a str,
    machine: &'static str,
    accelerator: &'static str,
    memory_bytes: u64,
    stacks: Vec<StartedStack<'a>>,
}

#[derive(Serialize)]
struct StartedStack<'a> {
    name: &'a str,
    mac: String,
    published: &'a [Publish],
}

impl<'a> Started<'a> {
    /// What `plan` became.
    pub(crate) fn new(plan: &'a Plan<'_>, pid: u32) -> Self {
        let stacks = plan.devices.cards.iter().map(|card| StartedStack {
            name: &card.stack,
            mac: card.mac.to_string(),
            published: &card.published,
        });
        Self {
            event: "started",
            pid,
            image: &plan.image.path,
            target: &plan.image.manifest.target,
            machine: plan.machine.as_str(),
            accelerator: plan.accelerator.as_str(),
            memory_bytes: plan.memory.bytes,
            stacks: stacks.collect(),
        }
    }
}

impl Reporter {
    /// Where the console goes.
    pub(crate) fn console(self) -> Box<dyn std::io::Write + Send> {
        console_writer(self.json)
    }

    /// The machine runs.
    pub(crate) fn started(self, ui: Ui, started: &Started<'_>) {
        if self.json {
            self.line(started);
        }
        for stack in &started.stacks {
            for publish in stack.published {
                let to = format!("{} port {}", stack.name, publish.guest);
                ui.status("Publishing", &format!("{publish} → {to}"));
            }
        }
    }

    /// The program ended with `code`.
    pub(crate) fn ended(self, ui: Ui, code: u8) {
        if self.json {
            self.line(&serde_json::json!({ "event": "ended", "exit_code": code }));
        }
        if code != 0 {
            let meaning = death(code).map_or_else(String::new, |death| format!(" ({death})"));
            ui.status("Ended", &format!("with exit code {code}{meaning}"));
        }
    }

    fn line(self, value: &impl Serialize) {
        print_json(value);
    }
}

/// Prints `value` as one line on stdout. A stdout that is gone is no reason to stop a machine.
pub(crate) fn print_json(value: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(value) {
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }
}

/// How a machine died, by its exit code. Programs may use these codes too; the console tells.
fn death(code: u8) -> Option<&'static str> {
    Some(match code {
        101 => "panic",
        102 => "out of memory",
        103 => "page fault",
        104 => "stack overflow",
        105 => "double fault",
        106 => "exception",
        107 => "no entropy",
        108 => "boot refused",
        _ => return None,
    })
}
