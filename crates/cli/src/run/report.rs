//! What `fata run --json` prints: one JSON object per line, on stdout; the console then goes to
//! stderr.

use std::io::Write as _;
use std::net::Ipv4Addr;

use serde::Serialize;

use crate::image::Image;
use crate::run::devices::{Devices, Role};
use crate::run::request::{Mac, Publish};
use crate::run::{qemu, xen};
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
    image: &'a std::path::Path,
    target: &'a str,
    /// The machine, by the words of who runs it.
    #[serde(flatten)]
    machine: Machine<'a>,
    memory_bytes: u64,
    stacks: Vec<StartedStack<'a>>,
}

/// What the machine is to who runs it.
#[derive(Serialize)]
#[serde(untagged)]
enum Machine<'a> {
    Qemu {
        /// Process to watch or to kill.
        pid: u32,
        machine: &'static str,
        accelerator: &'static str,
    },
    Xen {
        /// `host` or `testbed`.
        xen: &'static str,
        /// The domain's name.
        domain: &'a str,
        /// Its number.
        domain_id: &'a str,
    },
}

#[derive(Serialize)]
struct StartedStack<'a> {
    name: &'a str,
    mac: String,
    /// Where Xen's testbed gave it one.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Ipv4Addr>,
    published: &'a [Publish],
}

impl<'a> Started<'a> {
    /// What `plan` became in QEMU.
    pub(crate) fn in_qemu(plan: &'a qemu::Plan<'_>, pid: u32) -> Self {
        let machine = Machine::Qemu {
            pid,
            machine: plan.machine.as_str(),
            accelerator: plan.accelerator.as_str(),
        };
        let macs = plan.devices.cards.iter().map(|card| card.mac);
        Self::new(plan.image, machine, plan.memory.bytes, plan.devices, macs)
    }

    /// What `plan` became as a domain of Xen's.
    pub(crate) fn on_xen(
        plan: &'a xen::Plan<'_>,
        created: xen::Created<'a>,
        domain_id: &'a str,
    ) -> Self {
        let xen::Created { domain, place, addresses } = created;
        let machine = Machine::Xen { xen: place, domain: &domain.name, domain_id };
        let macs = domain.vifs.iter().map(|vif| vif.mac);
        let memory_bytes = domain.memory_mib << 20;
        let mut started = Self::new(plan.image, machine, memory_bytes, plan.devices, macs);
        for stack in &mut started.stacks {
            let given = addresses.iter().find(|(name, _)| name == stack.name);
            stack.address = given.map(|(_, address)| *address);
        }
        started
    }

    fn new(
        image: &'a Image,
        machine: Machine<'a>,
        memory_bytes: u64,
        devices: &'a Devices,
        macs: impl Iterator<Item = Mac>,
    ) -> Self {
        let stacks = devices.cards.iter().zip(macs).filter(|(card, _)| card.role == Role::Stack);
        let stacks = stacks.map(|(card, mac)| StartedStack {
            name: &card.device,
            mac: mac.to_string(),
            address: None,
            published: &card.published,
        });
        Self {
            event: "started",
            image: &image.path,
            target: &image.manifest.target,
            machine,
            memory_bytes,
            stacks: stacks.collect(),
        }
    }
}

impl Reporter {
    /// Where the console goes.
    pub(crate) fn console(self) -> Box<dyn std::io::Write + Send> {
        if self.json { Box::new(std::io::stderr()) } else { Box::new(std::io::stdout()) }
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
