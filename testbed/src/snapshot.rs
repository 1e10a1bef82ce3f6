//! A booted host, kept, so that the next start takes a second instead of ten.
//!
//! dom0 boots in the same way every time, up to the moment at which it mounts the shared folder
//! and takes commands. There its whole state is written to a file, through QEMU's migration, and a
//! later QEMU continues from it. No guest runs at that moment, so nothing of nested virtualisation
//! is in the file but the registers that switch it on. What must not be the same twice is told to
//! dom0 when it goes on: the time. (Randomness is: the next host's domains have the same UUIDs. The
//! emulated processor's RDRAND, which guests seed themselves from, is this computer's.)

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::accelerator::Machine;
use crate::cache::Key;
use crate::control::POLL_INTERVAL;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::host::{DOM0_COMMAND_LINE, Host, Options, XEN_COMMAND_LINE, which};
use crate::qmp;
use crate::system::System;

/// How many kept hosts stay in the cache, each of some 200 MB: those of two or three sizes of
/// memory that somebody uses today. The oldest goes.
const KEPT_MAX: usize = 4;

/// How long the state may take to be written or read.
const TRANSFER_TIME_MAX: Duration = Duration::from_secs(60);

/// The state of a booted host, which may be kept already or not.
#[derive(Debug)]
pub(crate) struct Snapshot {
    cache: PathBuf,
    file: PathBuf,
}

impl Snapshot {
    /// The snapshot of a host that is made of exactly this. None where hosts are not kept: on real
    /// processors, which boot fast and do not let everything of themselves be carried over.
    pub(crate) fn of(
        cache: &Path,
        options: &Options,
        machine: Machine,
        system: &System,
    ) -> Option<Self> {
        if machine.accelerator != "tcg" || std::env::var_os("FATA_TESTBED_FRESH").is_some() {
            return None;
        }
        // Another QEMU may not read this one's state, and says so late or never.
        let qemu = which(&options.qemu)?.metadata().ok()?;
        let made = format!(
            "{} {machine:?} {XEN_COMMAND_LINE} {DOM0_COMMAND_LINE} {} {} {} {} {:?}",
            system.key,
            options.memory_mib,
            options.processors,
            options.tap.is_some(),
            qemu.len(),
            qemu.modified().ok()?
        );
        let key = Key::of([made.as_bytes()]);
        Some(Self { cache: cache.to_owned(), file: cache.join(format!("kept-{key}")) })
    }

    /// Whether it is there.
    pub(crate) fn exists(&self) -> bool {
        self.file.is_file()
    }

    /// Removes it.
    pub(crate) fn remove(&self) -> Result<()> {
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", self.file.display()), &error))
            }
            _ => Ok(()),
        }
    }

    /// Lets QEMU begin with the state.
    pub(crate) fn continue_from(&self, command: &mut Command) {
        command.arg("-incoming").arg(format!("exec:cat {}", quoted(&self.file)));
    }

    /// Waits until QEMU has read the state, and starts the processor.
    pub(crate) fn wait_until_continued(&self, host: &Host) -> Result<()> {
        let socket = host.state.join("qmp");
        host.wait_until(|| socket.exists())?;
        let read = poll(|| {
            let status = qmp::execute(&socket, "query-status", json!({}))?;
            Ok(status.get("status").is_some_and(|status| status != "inmigrate"))
        });
        // A QEMU that does not understand the state ends.
        read.map_err(|error| match host.control.check_alive() {
            Err(gone) => gone,
            Ok(()) => Error::new(Kind::Host, error.what()),
        })?;
        qmp::execute(&socket, "cont", json!({})).map(drop)
    }

    /// Writes the state of a host that waits, and lets it go on.
    pub(crate) fn keep(&self, host: &Host) -> Result<()> {
        let socket = host.state.join("qmp");
        let unfinished = self.cache.join(format!(".kept.{}", files::unique()));
        qmp::execute(&socket, "stop", json!({}))?;
        let written = write(&socket, &unfinished);
        // In any case: a host that was not kept is still wanted.
        let went_on = qmp::execute(&socket, "cont", json!({}));
        let kept = written.and_then(|()| {
            std::fs::rename(&unfinished, &self.file)
                .map_err(|error| Error::io(format!("write {}", self.file.display()), &error))
        });
        if kept.is_err() {
            let _ = std::fs::remove_file(&unfinished);
        }
        self.prune();
        went_on.and(kept)
    }

    /// Removes the oldest of too many.
    fn prune(&self) {
        let mut kept: Vec<_> = files::list(&self.cache)
            .unwrap_or_default()
            .into_iter()
            .filter(|path| {
                path.file_name().unwrap_or_default().as_encoded_bytes().starts_with(b"kept-")
            })
            .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
            .collect();
        kept.sort();
        for (_, path) in &kept[..kept.len().saturating_sub(KEPT_MAX)] {
            // Another process may be removing it too.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn write(socket: &Path, file: &Path) -> Result<()> {
    // The default, 128 MB/s, is for networks.
    let fast = json!({ "max-bandwidth": 8_u64 << 30 });
    qmp::execute(socket, "migrate-set-parameters", fast)?;
    let uri = format!("exec:cat >{}", quoted(file));
    qmp::execute(socket, "migrate", json!({ "uri": uri }))?;
    poll(|| {
        let state = qmp::execute(socket, "query-migrate", json!({}))?;
        match state.get("status").and_then(Value::as_str) {
            Some("completed") => Ok(true),
            Some("failed" | "cancelled") => {
                let why = state.get("error-desc").and_then(Value::as_str).unwrap_or("no reason");
                Err(Error::new(Kind::Host, format!("QEMU cannot write its state: {why}")))
            }
            _ => Ok(false),
        }
    })
}

/// Asks until the answer is yes.
fn poll(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + TRANSFER_TIME_MAX;
    while !done()? {
        crate::host::check_interrupted()?;
        if Instant::now() >= deadline {
            let what = "QEMU takes too long to read or write its state";
            return Err(Error::new(Kind::Host, what));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}
