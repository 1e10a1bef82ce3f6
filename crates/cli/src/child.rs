//! Child processes that cannot outlive the tool.
//!
//! Every program that the tool starts gets a process group of its own and is *tethered*: the kernel
//! kills it when the tool dies, however that happens, SIGKILL included. std offers no safe way to
//! set a parent-death signal between fork and exec, so the tool starts *itself* as the child; that
//! second copy sets the signal, makes sure that its parent is still there, and becomes the program
//! (exec keeps the setting). Ctrl-C then reaches only the tool, which ends the group in its own time.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getppid, kill_process_group, set_parent_process_death_signal};

use crate::failure::{Exit, Failure, Result};

/// First argument of the tool when it is to become another program.
const TETHER: &str = "__tether";

/// First argument of the tool when it is to guard something.
const GUARD: &str = "__guard";

/// What a [`Guard`] is told when there is nothing to guard any more.
const DISMISSED: u8 = b'.';

/// How long a program has to end by itself after SIGTERM. QEMU writes out its disks' caches.
const GRACE: Duration = Duration::from_secs(3);

/// If this process was started by [`tethered`], becomes the program; returns only otherwise.
pub(crate) fn become_tethered() {
    let mut words = std::env::args_os().skip(1);
    if words.next().as_deref() != Some(OsStr::new(TETHER)) {
        return;
    }
    let failure = |what: String| -> ! {
        // The parent shows what a failed child says.
        eprintln!("{what}");
        std::process::exit(i32::from(Exit::Internal.code()))
    };
    let parent = words.next().and_then(|word| word.to_str()?.parse::<i32>().ok());
    let (Some(parent), Some(program)) = (parent, words.next()) else {
        failure(format!("{TETHER} is for the tool's own use"));
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        failure(format!("cannot tie {} to the tool: {error}", program.display()));
    }
    // The parent may have died before the signal was set; then nobody waits for this program.
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        std::process::exit(i32::from(Exit::Internal.code()));
    }
    let error = Command::new(&program).args(words).exec();
    failure(format!("cannot start {}: {error}", program.display()));
}

/// If this process was started by [`Guard::start`], guards; returns only otherwise.
pub(crate) fn become_guard() {
    let mut words = std::env::args_os().skip(1);
    if words.next().as_deref() != Some(OsStr::new(GUARD)) {
        return;
    }
    let mut said = Vec::new();
    // An error is an end, too.
    let _ = std::io::Read::read_to_end(&mut std::io::stdin(), &mut said);
    if said != [DISMISSED]
        && let Some(program) = words.next()
    {
        let _ = Command::new(program).args(words).stdin(Stdio::null()).status();
    }
    std::process::exit(0);
}

/// A process that cleans up when the tool dies, for what is no process and so cannot be tethered,
/// such as a domain of a Xen host.
///
/// It waits for the end of a pipe, which the kernel closes however the tool ends.
pub(crate) struct Guard {
    child: Child,
}

impl Guard {
    /// Runs `command` when this process ends without [`dismiss`](Self::dismiss).
    pub(crate) fn start(command: &[&OsStr]) -> Result<Self> {
        let mut guard = Command::new("/proc/self/exe");
        guard.arg(GUARD).args(command).process_group(0);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child =
            guard.spawn().map_err(|error| Failure::io("start a process that cleans up", &error))?;
        Ok(Self { child })
    }

    /// There is nothing to clean up any more.
    pub(crate) fn dismiss(mut self) {
        if let Some(mut pipe) = self.child.stdin.take() {
            // A guard that is gone needs no word.
            let _ = std::io::Write::write_all(&mut pipe, &[DISMISSED]);
        }
        let _ = self.child.wait();
    }
}

/// A command that starts `program` tethered. Call it, and spawn it, on the main thread: the kernel
/// ties a child to the *thread* that forked it.
pub(crate) fn tethered(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(TETHER).arg(std::process::id().to_string()).arg(program);
    command.process_group(0).stdin(Stdio::null());
    command
}

/// `command`, which [`tethered`] made, as one would type it without the tether.
pub(crate) fn typed(command: &Command) -> String {
    let words = command.get_args().skip(2).map(|word| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:@+%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            // A shell's single quotes keep everything but themselves.
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A tethered child; dropping it ends its whole process group.
pub(crate) struct Tethered {
    child: Child,
    status: Option<ExitStatus>,
}

impl Tethered {
    /// Starts `command`, which [`tethered`] made. `name` is for the error.
    pub(crate) fn spawn(mut command: Command, name: &str) -> Result<Self> {
        let child = command.spawn().map_err(|error| {
            Failure::new(Exit::Internal, format!("cannot start a process for {name}: {error}"))
        })?;
        Ok(Self { child, status: None })
    }

    /// The child's process id, also its process group's.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its streams.
    pub(crate) fn streams(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it has.
    pub(crate) fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self
                .child
                .try_wait()
                .map_err(|error| Failure::io("wait for a child process", &error))?;
        }
        Ok(self.status)
    }

    /// Sends `signal` to its process group.
    pub(crate) fn signal(&mut self, signal: Signal) {
        // Only while it has not been waited for: afterwards the id may be another process's.
        if self.status.is_none()
            && let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            // A group that is gone already is what was wanted.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Ends it: SIGTERM, time to clean up, SIGKILL. Returns when it is gone.
    pub(crate) fn end(&mut self) {
        if matches!(self.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if !matches!(self.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.signal(Signal::KILL);
        self.status = self.child.wait().ok();
    }
}

impl Drop for Tethered {
    fn drop(&mut self) {
        self.end();
    }
}

/// The signals that end the tool, as they come.
pub(crate) struct Signals(signal_hook::iterator::Signals);

impl Signals {
    /// From now on SIGINT, SIGTERM and SIGHUP are noted and no longer kill.
    pub(crate) fn watch() -> Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).map(Self).map_err(|error| {
            Failure::new(Exit::Internal, format!("cannot watch for signals: {error}"))
        })
    }

    /// A signal that came since the last call.
    pub(crate) fn take(&mut self) -> Option<Exit> {
        use signal_hook::consts::{SIGHUP, SIGTERM};
        self.0.pending().next().map(|signal| match signal {
            SIGHUP => Exit::HungUp,
            SIGTERM => Exit::Terminated,
            _ => Exit::Interrupted,
        })
    }

    /// An error when a signal came.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.take().map_or(Ok(()), |exit| Err(interrupted(exit)))
    }
}

/// The failure that a signal makes.
pub(crate) fn interrupted(exit: Exit) -> Failure {
    Failure::new(
        exit,
        match exit {
            Exit::Terminated => "terminated",
            Exit::HungUp => "the terminal is gone",
            _ => "interrupted",
        },
    )
}

/// The executable `name` on the PATH, or the path itself when it has a slash.
pub(crate) fn find_program(name: &OsStr) -> Option<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let executable = |path: &std::path::Path| {
        path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if name.as_encoded_bytes().contains(&b'/') {
        let path = std::path::PathBuf::from(name);
        return executable(&path).then_some(path);
    }
    let path: OsString = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| executable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_a_shell_takes_them() {
        let mut command = tethered("qemu");
        command.args(["-m", "64k", "a b", "it's", ""]);
        assert_eq!(typed(&command), "qemu -m 64k 'a b' 'it'\\''s' ''");
    }

    #[test]
    fn programs_are_found_on_the_path_or_by_their_path() {
        let shell = find_program(OsStr::new("sh")).expect("every Unix has sh on its PATH");
        assert_eq!(find_program(shell.as_os_str()), Some(shell));
        assert_eq!(find_program(OsStr::new("no-such-program-here")), None);
        // A file that nobody may execute is no program.
        assert_eq!(find_program(OsStr::new("/proc/self/cmdline")), None);
    }
}
