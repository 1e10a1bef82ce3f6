//! Commands for dom0.
//!
//! A command is a script in the shared folder; dom0's agent runs it and puts its output and its
//! exit status there (`dom0/agent`). All that is needed beside the folder is a way to say that
//! there is something new: a byte in a FIFO that QEMU shows to dom0 as a serial port. So commands
//! run side by side, from as many processes as like, and nobody has to speak in turn.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::process::Process;

/// How often the shared folder is looked at. A look is a system call or two; dom0, on an emulated
/// processor, needs some ten milliseconds for the shortest of commands.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(4);

/// How much of a command's output is read, in bytes, of each stream.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;

/// How long a command's processes have to be gone after they were killed.
const KILL_TIME_MAX: Duration = Duration::from_secs(20);

/// What a command in dom0 has printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status: 0 for success, 128 and a signal's number for one that was killed.
    pub status: u8,
    /// Its standard output, at most 16 MiB of it.
    pub stdout: Vec<u8>,
    /// Its standard error, at most 16 MiB of it.
    pub stderr: Vec<u8>,
}

impl Output {
    /// The standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Success, or an error that says what the command said. `doing` completes "dom0 cannot …".
    ///
    /// # Errors
    /// When the command's status is not 0.
    pub fn check(self, doing: &str) -> Result<Self> {
        if self.status == 0 {
            return Ok(self);
        }
        let what = format!("dom0 cannot {doing} (status {})", self.status);
        Err(Error::new(Kind::Guest, what).note(String::from_utf8_lossy(&self.stderr)))
    }
}

/// The control channel of one host.
#[derive(Debug)]
pub(crate) struct Control {
    /// The folder that dom0 sees as /share.
    pub(crate) share: PathBuf,
    bell: PathBuf,
    qemu: Process,
}

impl Control {
    pub(crate) fn new(state: &Path, qemu: Process) -> Self {
        Self { share: state.join("share"), bell: state.join("bell.in"), qemu }
    }

    /// Makes the folders and FIFOs that QEMU and dom0 find.
    pub(crate) fn prepare(state: &Path) -> Result<()> {
        for folder in ["in", "run", "out", "console", "files"] {
            files::make_folder(&state.join("share").join(folder))?;
        }
        for name in ["bell.in", "bell.out"] {
            let path = state.join(name);
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
                .map_err(|error| Error::io(format!("make {}", path.display()), &error.into()))?;
        }
        Ok(())
    }

    /// An error when the host is gone.
    pub(crate) fn check_alive(&self) -> Result<()> {
        if self.qemu.is_alive() {
            return Ok(());
        }
        let state = self.share.parent().unwrap_or(&self.share);
        let log = std::fs::read(state.join("qemu.log")).unwrap_or_default();
        Err(Error::new(Kind::Host, "the Xen host has ended")
            .note(String::from_utf8_lossy(&log))
            .note(crate::host::last_lines(&state.join("xen.log"), 12)))
    }

    /// Runs a shell script in dom0. Whatever ends it early, a deadline or an interruption, it and all
    /// it started are killed, and nothing of it is left in the shared folder.
    pub(crate) fn run(&self, script: &str, timeout: Duration) -> Result<Output> {
        crate::host::check_interrupted()?;
        self.run_until(script, timeout, crate::host::check_interrupted)
    }

    /// The same for a script that cleans up: an interruption does not end it.
    pub(crate) fn clean_up(&self, script: &str, timeout: Duration) -> Result<Output> {
        self.run_until(script, timeout, || Ok(()))
    }

    fn run_until(
        &self,
        script: &str,
        timeout: Duration,
        interrupted: impl Fn() -> Result<()>,
    ) -> Result<Output> {
        let deadline = Instant::now() + timeout;
        let id = self.submit(script)?;
        let why = match self.collect(&id, deadline, interrupted) {
            Ok(Some(output)) => return Ok(output),
            Ok(None) => {
                let what =
                    format!("a command in dom0 took longer than {} s", timeout.as_secs_f32());
                Error::new(Kind::Deadline, what).note(script.lines().next().unwrap_or_default())
            }
            Err(error) => error,
        };
        // When the host is gone, so is the script. That it could not be killed is not what the caller
        // asks for.
        let _ = self.kill(&id);
        Err(why)
    }

    /// Kills a script's whole process group, and removes its files.
    fn kill(&self, id: &str) -> Result<()> {
        let deadline = Instant::now() + KILL_TIME_MAX;
        // One that dom0 has not taken yet is taken back; else its group is there in a moment.
        if std::fs::remove_file(self.share.join("in").join(id)).is_ok() {
            return Ok(());
        }
        let file = self.share.join("run").join(format!("{id}.pid"));
        let group = || std::fs::read_to_string(&file).ok()?.trim().parse::<u32>().ok();
        let ended = || self.share.join("out").join(format!("{id}.rc")).exists();
        let mut killer = None;
        while Instant::now() < deadline && !ended() {
            match group() {
                Some(group) => {
                    // Its number is known a moment before it is a group.
                    let kill = format!("kill -9 -{group}");
                    killer = Some(self.submit(&format!("{kill} || {{ sleep 1; {kill}; }}"))?);
                    break;
                }
                None => {
                    self.check_alive()?;
                    std::thread::sleep(POLL_INTERVAL);
                }
            }
        }
        // The results are what `collect` takes away.
        for id in killer.as_deref().into_iter().chain([id]) {
            let _ = self.collect(id, deadline, || Ok(()))?;
        }
        Ok(())
    }

    /// Gives dom0 a script; its id tells where the results will be.
    pub(crate) fn submit(&self, script: &str) -> Result<String> {
        self.check_alive()?;
        let id = files::unique();
        files::write_whole(&self.share.join("in").join(&id), script.as_bytes())?;
        self.ring("").map(|()| id)
    }

    /// Says a line on the bell.
    pub(crate) fn ring(&self, line: &str) -> Result<()> {
        // Without waiting: QEMU holds the FIFO open as long as it lives, and when it is full there
        // are rings enough in it.
        let rung = std::fs::OpenOptions::new()
            .write(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(&self.bell)
            .and_then(|mut bell| {
                std::io::Write::write_all(&mut bell, format!("{line}\n").as_bytes())
            });
        match rung {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                self.check_alive()?;
                Err(Error::io(format!("write to {}", self.bell.display()), &error))
            }
            _ => Ok(()),
        }
    }

    /// The results of a script, none when the deadline passes before it ends; an error as soon as
    /// `interrupted` is one.
    fn collect(
        &self,
        id: &str,
        deadline: Instant,
        interrupted: impl Fn() -> Result<()>,
    ) -> Result<Option<Output>> {
        let path = |kind: &str| self.share.join("out").join(format!("{id}.{kind}"));
        loop {
            if let Ok(status) = std::fs::read_to_string(path("rc")) {
                let read = |kind| -> Result<Vec<u8>> {
                    use std::io::Read as _;
                    let path = path(kind);
                    let failed = |error| Error::io(format!("read {}", path.display()), &error);
                    let file = std::fs::File::open(&path).map_err(failed)?;
                    let mut bytes = Vec::new();
                    file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
                    Ok(bytes)
                };
                let output = Output {
                    status: status.trim().parse().unwrap_or(u8::MAX),
                    stdout: read("out")?,
                    stderr: read("err")?,
                };
                for kind in ["out", "err", "rc"] {
                    // Left over, it costs a name in a folder that goes with the host.
                    let _ = std::fs::remove_file(path(kind));
                }
                return Ok(Some(output));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            interrupted()?;
            self.check_alive()?;
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests;
