//! One run of an image in QEMU, from the checks before it to the exit code after it.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ChildStderr, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::child::{self, Signals, Tethered, tethered};
use crate::failure::{Exit, Failure, Result};
use crate::run::accel::Accelerator;
use crate::run::console_thread::{ConsoleEnd, ConsoleThread, Seen};
use crate::run::control;
use crate::run::qemu::{self, Plan};
use crate::run::report::{Reporter, Started};
use crate::ui::{Ui, printable};

/// QEMU's name on the PATH; FATA_QEMU names another.
const QEMU: &str = "qemu-system-x86_64";

/// How often signals and the deadline are looked at.
const TICK: Duration = Duration::from_millis(50);

/// How much of QEMU's own words is kept, for when it fails.
const STDERR_BYTES_MAX: u64 = 64 * 1024;

/// What to do when a machine stops that hardware runs.
const KVM_HELP: &str = "hardware virtualisation does not work here: use --accel tcg";

/// Finds QEMU, or says which package has it.
pub(crate) fn find_qemu() -> Result<std::path::PathBuf> {
    let named = std::env::var_os("FATA_QEMU").filter(|name| !name.is_empty());
    let name = named.clone().unwrap_or_else(|| OsString::from(QEMU));
    child::find_program(&name).ok_or_else(|| {
        let failure =
            Failure::new(Exit::Tool, format!("QEMU is not installed: no {}", name.display()));
        failure.help(if named.is_some() {
            "the environment variable FATA_QEMU names it; correct it, or unset it"
        } else {
            "Debian and Ubuntu: apt install qemu-system-x86\n\
             Fedora: dnf install qemu-system-x86-core    Arch: pacman -S qemu-system-x86"
        })
    })
}

/// What the threads around QEMU report.
enum Happening {
    Control(control::Event),
    /// All of the console has been passed on.
    ConsoleEnded,
    /// The console could not be passed on: its reader is gone.
    ReaderGone,
}

/// Everything that a run needs beside the plan.
pub(crate) struct Run<'a> {
    pub(crate) ui: Ui,
    pub(crate) signals: &'a mut Signals,
    pub(crate) reporter: &'a Reporter,
    pub(crate) timeout: Option<Duration>,
    /// Where symbols may lie, beside the image's own.
    pub(crate) symbol_stores: Vec<std::path::PathBuf>,
}

/// Boots the machine and stays until it ends. Returns the program's exit code.
pub(crate) fn run(run: Run<'_>, mut plan: Plan<'_>) -> Result<u8> {
    let Run { ui, signals, reporter, timeout, symbol_stores } = run;
    let qemu = find_qemu()?;
    let (control, qemus_control) =
        control::pair().map_err(|error| Failure::io("make a socket for QEMU", &error))?;
    plan.control_fd = qemus_control.as_raw_fd();
    let mut command = tethered(&qemu);
    command.args(qemu::command_line(&plan)?);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    ui.detail(&child::typed(&command));

    let started = Instant::now();
    let deadline = timeout.and_then(|timeout| started.checked_add(timeout));
    let mut machine = Tethered::spawn(command, "QEMU")?;
    drop(qemus_control); // so that its end closes when QEMU's does
    let (sender, happenings) = mpsc::channel();
    let threads = Threads::start(&mut machine, control, &sender, reporter, &plan, symbol_stores);
    drop(sender);

    let mut watch = Watch { ran: false, shutdown: None };
    let status = loop {
        if let Some(exit) = signals.take() {
            machine.end();
            threads.join();
            return Err(child::interrupted(exit));
        }
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            machine.end();
            threads.join();
            let seconds = timeout.unwrap_or_default().as_secs_f64();
            let what = format!("{} did not end within {seconds} s", plan.image.manifest.package);
            return Err(Failure::new(Exit::Timeout, what));
        }
        let wait = deadline.map_or(TICK, |deadline| TICK.min(deadline - now));
        match happenings.recv_timeout(wait) {
            Ok(Happening::Control(control::Event::Running)) => {
                watch.ran = true;
                reporter.started(ui, &Started::in_qemu(&plan, machine.id()));
            }
            Ok(Happening::Control(control::Event::Halted)) => {
                machine.end();
                let (said, _) = threads.join();
                return Err(halted(&plan, &said));
            }
            Ok(Happening::Control(control::Event::Shutdown(reason))) => {
                watch.shutdown = Some(reason);
            }
            Ok(Happening::ReaderGone) => {
                machine.end();
                threads.join();
                return Err(Failure::new(Exit::Io, "the reader of the console is gone"));
            }
            Ok(Happening::ConsoleEnded) | Err(RecvTimeoutError::Timeout) => {}
            // All threads are done, so QEMU has closed its streams.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(1)),
        }
        if let Some(status) = machine.try_wait()? {
            break status;
        }
    };
    let (said, console) = threads.join();
    watch.drain(&happenings, |watch| {
        if watch.ran {
            reporter.started(ui, &Started::in_qemu(&plan, machine.id()));
        }
    });
    if !said.trim().is_empty() && watch.ran {
        ui.detail(said.trim_end());
    }
    console.warn(ui);
    watch.judge(&plan, status, console.exit_code, &said)
}

/// What was seen of the machine.
struct Watch {
    /// It ran: QEMU had set up everything.
    ran: bool,
    /// QEMU's reason for a shutdown.
    shutdown: Option<String>,
}

impl Watch {
    /// Takes what the threads reported while QEMU was ending.
    fn drain(&mut self, happenings: &mpsc::Receiver<Happening>, newly_ran: impl Fn(&Self)) {
        let ran_before = self.ran;
        for happening in happenings.try_iter() {
            match happening {
                Happening::Control(control::Event::Running) => self.ran = true,
                Happening::Control(control::Event::Shutdown(reason)) => {
                    self.shutdown = Some(reason);
                }
                _ => {}
            }
        }
        if !ran_before {
            newly_ran(self);
        }
    }

    /// From QEMU's status to the program's exit code.
    fn judge(
        &self,
        plan: &Plan<'_>,
        status: ExitStatus,
        announced: Option<u8>,
        said: &str,
    ) -> Result<u8> {
        if let Some(signal) = status.signal() {
            let what = format!("QEMU was killed by signal {signal}");
            return Err(with_words(Failure::new(Exit::Machine, what), said).help(
                match plan.accelerator {
                    Accelerator::Kvm => KVM_HELP,
                    Accelerator::Tcg => "if this computer ran out of memory, lower --memory",
                },
            ));
        }
        let status = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
        if !self.ran {
            return Err(did_not_start(status, said));
        }
        match (status & 1 == 1).then_some(status >> 1) {
            // Codes above 126 do not fit; the machine prints them.
            Some(127) => Ok(announced.filter(|code| *code >= 127).unwrap_or(127)),
            Some(code) => Ok(code),
            None => {
                let package = &plan.image.manifest.package;
                let why = match self.shutdown.as_deref() {
                    Some("guest-reset") => "the machine reset itself (a triple fault?)",
                    Some("guest-shutdown") => "the machine powered off without an exit code",
                    Some("guest-panic") => "the machine reported a panic",
                    _ => "the machine stopped without an exit code",
                };
                let failure = Failure::new(Exit::Stopped, format!("{package}: {why}"));
                Err(with_words(failure, said).help(
                    "the console above may say more; with --memory 1G, was there too little memory?",
                ))
            }
        }
    }
}

/// Adds what QEMU said.
fn with_words(failure: Failure, said: &str) -> Failure {
    let said = printable(said);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    // The cause stands last; TCG's warnings about missing CPU features stand first.
    let tail = &lines[lines.len().saturating_sub(8)..];
    tail.iter().fold(failure, |failure, line| {
        failure.note(line.trim_start_matches(QEMU).trim_start_matches(": "))
    })
}

/// QEMU ended before the machine ran: in most cases something of this computer was not to be had.
fn did_not_start(status: u8, said: &str) -> Failure {
    if status == Exit::Internal.code() {
        return with_words(Failure::new(Exit::Internal, "QEMU could not be started"), said);
    }
    let failure = |exit, what: &str| with_words(Failure::new(exit, what), said);
    if said.contains("Could not set up host forwarding rule") {
        failure(Exit::Resource, "a published port is in use").help("publish another port")
    } else if said.contains("Failed to get") && said.contains("lock") {
        failure(Exit::Resource, "a block device's file is in use by another machine")
            .help("end that machine, or give both the file read-only: --block NAME=FILE,ro")
    } else if said.contains("could not configure /dev/net/tun") {
        failure(Exit::Resource, "the TAP interface cannot be used").help(
            "is it in use by another machine, or owned by another user? `ip -details tuntap` shows",
        )
    } else if said.contains("Cannot allocate memory") || said.contains("cannot set up guest memory")
    {
        failure(Exit::Resource, "this computer has too little free memory for the machine")
            .help("ask for less with --memory")
    } else if said.contains("network backend 'user' is not compiled") {
        failure(Exit::Tool, "this QEMU has no user networking").help("use --net tap=NAME")
    } else {
        failure(Exit::Machine, "QEMU failed before the machine ran")
            .help("-v shows its command line")
    }
}

/// QEMU halted the machine because it cannot run it.
fn halted(plan: &Plan<'_>, said: &str) -> Failure {
    let what = format!("QEMU cannot run {} any further", plan.image.manifest.package);
    let failure = with_words(Failure::new(Exit::Machine, what), said);
    match plan.accelerator {
        Accelerator::Kvm => failure.help(KVM_HELP),
        Accelerator::Tcg => failure,
    }
}

/// The threads that serve QEMU's streams.
struct Threads {
    console: Option<ConsoleThread>,
    stderr: Option<JoinHandle<String>>,
    control: JoinHandle<()>,
}

impl Threads {
    fn start(
        machine: &mut Tethered,
        control: std::os::unix::net::UnixStream,
        sender: &Sender<Happening>,
        reporter: &Reporter,
        plan: &Plan<'_>,
        symbol_stores: Vec<std::path::PathBuf>,
    ) -> Self {
        let streams = machine.streams();
        let console = streams.stdout.take().map(|stdout| {
            let sender = sender.clone();
            ConsoleThread::start(stdout, plan.image, symbol_stores, *reporter, move |seen| {
                let happening = match seen {
                    Seen::Bytes => return,
                    Seen::ReaderGone => Happening::ReaderGone,
                    Seen::Ended => Happening::ConsoleEnded,
                };
                let _ = sender.send(happening);
            })
        });
        let stderr =
            streams.stderr.take().map(|stderr| std::thread::spawn(move || collect(stderr)));
        let sender = sender.clone();
        let control = std::thread::spawn(move || {
            // An error here is QEMU's end, of which its status says more.
            let _ = control::follow(control, |event| {
                let _ = sender.send(Happening::Control(event));
            });
        });
        Self { console, stderr, control }
    }

    /// Waits for them; QEMU has ended, so its streams have too.
    fn join(self) -> (String, ConsoleEnd) {
        let console = self.console.map(ConsoleThread::join);
        let said = self.stderr.and_then(|thread| thread.join().ok());
        let _ = self.control.join();
        (said.unwrap_or_default(), console.unwrap_or_default())
    }
}

/// Keeps the first [`STDERR_BYTES_MAX`] and reads on, so that QEMU never waits for a reader.
fn collect(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let _ = (&mut stderr).take(STDERR_BYTES_MAX).read_to_end(&mut kept);
    let _ = std::io::copy(&mut stderr, &mut std::io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}
