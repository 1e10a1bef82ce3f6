//! Child processes that always end: by their own doing, at a deadline, or with their owner.
//!
//! A process is only ever ended through the handle that started it, so by its id; nothing is looked up by name.

use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cancel;

/// Most bytes kept of one stream of a tool: what we run prints a few kilobytes; more is read and dropped.
const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// Clock ticks a second in `/proc/PID/stat`. The kernel's `USER_HZ` is part of its interface and 100 on x86-64.
const USER_HZ: f64 = 100.0;

/// A process that is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Owned {
    child: std::process::Child,
    name: String,
}

impl Owned {
    /// Starts `command`; `name` is how errors call it.
    pub(crate) fn spawn(command: &mut Command, name: &str) -> Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name} ({:?})", command.get_program()))?;
        Ok(Self { child, name: name.to_owned() })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child_mut(&mut self) -> &mut std::process::Child {
        &mut self.child
    }

    /// The status, if it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Waits for its end; past the deadline, or when interrupted, ends it and fails.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            cancel::check()?;
            if Instant::now() >= deadline {
                self.end();
                bail!("{} did not end within {} s", self.name, limit.as_secs());
            }
            std::thread::sleep(cancel::STEP);
        }
    }

    /// Ends it now, if it still runs.
    pub(crate) fn end(&mut self) {
        // Both fail only for a process that has already been waited for, which is what we want of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.end();
    }
}

/// A command whose process the kernel kills when we die without a chance to do it ourselves.
pub(crate) fn dies_with_us(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// What a tool said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a tool to its end within `limit`, whatever its status.
pub(crate) fn run(command: &mut Command, name: &str, limit: Duration) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Owned::spawn(command, name)?;
    let (stdout, stderr) = {
        let child = process.child_mut();
        (collect(child.stdout.take()), collect(child.stderr.take()))
    };
    let status = process.wait(limit)?;
    let text = |reader: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    Ok(Output { status, stdout: text(stdout), stderr: text(stderr) })
}

/// Runs a tool that must succeed; gives its standard output.
pub(crate) fn run_ok(command: &mut Command, name: &str, limit: Duration) -> Result<String> {
    let output = run(command, name, limit)?;
    if !output.status.success() {
        bail!("{name} failed ({}): {}", output.status, tail(&output.stderr, &output.stdout));
    }
    Ok(output.stdout)
}

/// The last lines of the first stream that has any.
fn tail(stderr: &str, stdout: &str) -> String {
    let text = if stderr.trim().is_empty() { stdout } else { stderr };
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(6)..].join(" | ")
}

fn collect(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut chunk = [0; 8192];
        let Some(mut stream) = stream else { return kept };
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            let room = OUTPUT_BYTES_MAX - kept.len();
            kept.extend_from_slice(&chunk[..count.min(room)]);
        }
        kept
    })
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident now (`VmRSS`).
    pub(crate) resident: u64,
    /// Most that was ever resident (`VmHWM`).
    pub(crate) peak: u64,
}

/// Reads `/proc/PID/status`.
pub(crate) fn memory(id: u32) -> Result<Memory> {
    let path = format!("/proc/{id}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_memory(&status).with_context(|| format!("{path} names no resident memory"))
}

fn parse_memory(status: &str) -> Option<Memory> {
    let kibibytes = |key: &str| -> Option<u64> {
        let rest = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        rest.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let bytes = |key| kibibytes(key)?.checked_mul(1024);
    Some(Memory { resident: bytes("VmRSS")?, peak: bytes("VmHWM")? })
}

/// Processor time that a process and all its threads have used, in seconds (user and system).
pub(crate) fn cpu_seconds(id: u32) -> Result<f64> {
    let path = format!("/proc/{id}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_cpu_seconds(&stat).with_context(|| format!("{path} has an unknown shape"))
}

fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is the name in parentheses and may itself hold spaces and parentheses: proc(5).
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user as f64 + system as f64) / USER_HZ)
}

/// Finds a program on `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&directories)
        // Debian keeps `ip` where an ordinary user's PATH may not look.
        .chain([Path::new("/usr/sbin").to_owned(), Path::new("/sbin").to_owned()])
        .any(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tqemu\nVmPeak:\t  900 kB\nVmHWM:\t  245000 kB\nVmRSS:\t  244000 kB\n";
        let expected = Memory { resident: 244_000 * 1024, peak: 245_000 * 1024 };
        assert_eq!(parse_memory(status), Some(expected));
        assert_eq!(parse_memory("Name:\tkthreadd\n"), None);
        assert_eq!(parse_memory("VmHWM: x kB\nVmRSS: 1 kB\n"), None);
    }

    #[test]
    fn cpu_time_survives_a_hostile_name() {
        let stat = "7 (a) S (b) R 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 4 0 1";
        assert_eq!(parse_cpu_seconds(stat), Some(3.0));
        assert_eq!(parse_cpu_seconds("7 (x) R 1 2"), None);
        assert_eq!(parse_cpu_seconds(""), None);
    }

    #[test]
    fn our_own_figures_are_readable() {
        let own = memory(std::process::id()).expect("this process has a status");
        assert!(own.peak >= own.resident && own.resident > 0);
        assert!(cpu_seconds(std::process::id()).expect("this process has a stat") >= 0.0);
    }

    #[test]
    fn a_tool_that_outlives_its_limit_is_ended() {
        let error = run(Command::new("cat").arg("/dev/zero"), "cat", Duration::from_millis(30))
            .expect_err("cat never ends by itself");
        assert!(error.to_string().contains("did not end"), "{error}");
    }

    #[test]
    fn a_failure_tells_what_the_tool_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]);
        let error =
            run_ok(&mut command, "sh", Duration::from_secs(20)).expect_err("it exits with 3");
        assert!(error.to_string().contains("no such thing"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}") {
            let _ = parse_memory(&text);
            let _ = parse_cpu_seconds(&text);
        }
    }
}
