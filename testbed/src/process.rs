//! Processes of this computer, told apart even when their numbers are used again.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Kind, Result};

/// A process: its number, and when it started, in clock ticks since the computer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Process {
    id: u32,
    started: u64,
}

impl Process {
    /// The process `id`, which exists: a child that was not waited for yet, or this one.
    pub(crate) fn of(id: u32) -> Result<Self> {
        let started = started(id).ok_or_else(|| {
            Error::new(Kind::Host, format!("process {id} ended as soon as it was started"))
        })?;
        Ok(Self { id, started })
    }

    /// This process.
    pub(crate) fn this() -> Result<Self> {
        Self::of(std::process::id())
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        started(self.id) == Some(self.started)
    }

    /// Sends it a signal, if it still runs.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Some(id) = i32::try_from(self.id).ok().and_then(Pid::from_raw)
        {
            // That it is gone in the meantime is what was wanted.
            let _ = kill_process(id, signal);
        }
    }
}

/// When a process started (proc(5), /proc/PID/stat, field 22); none for one that has ended, even
/// if nobody has waited for it yet.
fn started(id: u32) -> Option<u64> {
    let stat =
        std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_has_ended() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("cat is there");
        let process = Process::of(child.id()).unwrap();
        assert!(process.is_alive() && Process::this().unwrap().is_alive());
        assert!(!Process { started: process.started + 1, ..process }.is_alive());
        process.signal(Signal::KILL);
        child.wait().unwrap();
        assert!(!process.is_alive());
        assert!(Process::of(child.id()).is_err());
    }
}
