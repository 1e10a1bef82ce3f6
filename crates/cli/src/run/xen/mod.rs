//! `fata run -t xen`: a domain of this computer's Xen, or of the testbed's.

pub(crate) mod domain;
mod host;
pub(crate) mod xl;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::child::{self, Signals};
use crate::failure::{Exit, Failure, Result};
use crate::image::Image;
use crate::run::arguments::Arguments;
use crate::run::console_thread::{ConsoleThread, Seen};
use crate::run::devices::Devices;
use crate::run::report::{Reporter, Started};
use crate::run::request::{Link, Memory};
use crate::ui::Ui;
use domain::Domain;
use host::Host;

pub(crate) use host::BRIDGE;

/// How often signals, the deadline and the domain's state are looked at.
const TICK: Duration = Duration::from_millis(200);

/// How long the console of a domain that ended must be silent until all of it counts as read: the
/// console daemon moves a page of it within a turn of its loop, milliseconds.
const DRAINED: Duration = Duration::from_millis(200);

/// How long that silence is waited for at most.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// `--xen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// This computer, which is dom0 of a Xen host
    Host,
    /// A Xen host in QEMU: the one that runs, or one that is started for this run
    Testbed,
}

/// Decides where domains run, before anything is built.
pub(crate) fn choose(ui: Ui, choice: Option<Choice>) -> Result<Choice> {
    match choice {
        Some(Choice::Host) => Host::open(ui).map(|_| Choice::Host),
        Some(Choice::Testbed) => Ok(Choice::Testbed),
        None if host::is_dom0(Path::new("/")) => Host::open(ui).map(|_| Choice::Host),
        None => Ok(Choice::Testbed),
    }
}

/// What a card is connected to that no `--net` names.
pub(crate) fn default_link(place: Choice) -> Link {
    match place {
        Choice::Host => Link::Bridge { bridge: BRIDGE.to_owned() },
        Choice::Testbed => Link::User,
    }
}

/// How a domain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It powered off.
    Poweroff,
    /// It asked for a reboot; also what Xen makes of a triple fault.
    Reboot,
    /// It said that it crashed.
    Crash,
    /// Its watchdog did.
    Watchdog,
    /// Somebody destroyed it.
    Destroyed,
}

/// A domain that was created and is paused. Dropping it destroys it.
pub(crate) trait Running {
    /// Its number.
    fn id(&self) -> &str;
    /// What it prints; once. The stream ends when the domain is destroyed.
    fn console(&mut self) -> Option<Box<dyn Read + Send>>;
    /// Lets it run.
    fn start(&mut self) -> Result<()>;
    /// How it ended, if it has.
    fn poll_end(&mut self) -> Result<Option<End>>;
    /// Destroys it, and ends its console.
    fn destroy(&mut self);
    /// What it said before it had a console, as Xen's log has it.
    fn early_output(&mut self) -> String {
        String::new()
    }
}

/// What is to be run.
pub(crate) struct Plan<'a> {
    pub(crate) image: &'a Image,
    pub(crate) memory: Memory,
    pub(crate) devices: &'a Devices,
    pub(crate) arguments: &'a Arguments,
    /// `--name`.
    pub(crate) name: Option<&'a str>,
}

/// What a run needs beside the plan.
pub(crate) struct Run<'a> {
    pub(crate) ui: Ui,
    pub(crate) signals: &'a mut Signals,
    pub(crate) reporter: Reporter,
    pub(crate) timeout: Option<Duration>,
    pub(crate) symbol_stores: Vec<PathBuf>,
}

/// Runs the image and stays until it ends. Returns the program's exit code.
pub(crate) fn run(run: Run<'_>, place: Choice, plan: &Plan<'_>) -> Result<u8> {
    match place {
        Choice::Host => {
            Host::check(plan.devices)?;
            let host = Host::open(run.ui)?;
            let mut domain = describe(plan, plan.arguments)?;
            run.ui.status("Booting", &booting(plan, "on this Xen host"));
            let created = host.create(&mut domain)?;
            watch(run, plan, &domain, "host", created)
        }
        Choice::Testbed => {
            let what = "the testbed is not there yet";
            Err(Failure::new(Exit::Tool, what))
        }
    }
}

fn describe(plan: &Plan<'_>, arguments: &Arguments) -> Result<Domain> {
    let name = plan.name.unwrap_or(&plan.image.manifest.package);
    Domain::new(plan.image, name, plan.memory, plan.devices, arguments)
}

fn booting(plan: &Plan<'_>, place: &str) -> String {
    let memory = crate::ui::size(plan.memory.bytes);
    format!("{} {place} ({memory})", plan.image.manifest.package)
}

/// Stays with a domain until it ends.
fn watch(
    run: Run<'_>,
    plan: &Plan<'_>,
    domain: &Domain,
    place: &'static str,
    mut running: impl Running,
) -> Result<u8> {
    let Run { ui, signals, reporter, timeout, symbol_stores } = run;
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let (sender, seen) = mpsc::channel();
    let console = running.console().map(|console| {
        ConsoleThread::start(console, plan.image, symbol_stores, reporter, move |seen| {
            let _ = sender.send(seen);
        })
    });
    let stop = |mut running: Box<dyn Running + '_>, console: Option<ConsoleThread>, failure| {
        running.destroy();
        if let Some(console) = console {
            console.join().warn(ui);
        }
        Err(failure)
    };
    running.start()?;
    reporter.started(ui, &Started::on_xen(plan, domain, running.id(), place));
    let mut look = Instant::now();
    let end = loop {
        if let Some(exit) = signals.take() {
            return stop(Box::new(running), console, child::interrupted(exit));
        }
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            let seconds = timeout.unwrap_or_default().as_secs_f64();
            let what = format!("{} did not end within {seconds} s", plan.image.manifest.package);
            return stop(Box::new(running), console, Failure::new(Exit::Timeout, what));
        }
        let wait = deadline.map_or(TICK, |deadline| TICK.min(deadline - now));
        match seen.recv_timeout(wait) {
            Ok(Seen::ReaderGone) => {
                let failure = Failure::new(Exit::Io, "the reader of the console is gone");
                return stop(Box::new(running), console, failure);
            }
            Ok(Seen::Bytes | Seen::Ended) | Err(RecvTimeoutError::Timeout) => {}
            // The console's thread is done: the domain is gone, or soon will be.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
        }
        // A domain that prints much is not looked at more often.
        if now >= look {
            look = now + TICK;
            if let Some(end) = running.poll_end()? {
                break end;
            }
        }
    };
    drain(&seen);
    let early = running.early_output();
    running.destroy();
    let console = console.map(ConsoleThread::join).unwrap_or_default();
    console.warn(ui);
    judge(&plan.image.manifest.package, end, console.exit_code, &early)
}

/// Waits until the console of a domain that ended has been read.
fn drain(seen: &mpsc::Receiver<Seen>) {
    let end = Instant::now() + DRAIN_MAX;
    while Instant::now() < end && matches!(seen.recv_timeout(DRAINED), Ok(Seen::Bytes)) {}
}

/// From the domain's end and the line that it printed to the program's exit code.
fn judge(package: &str, end: End, announced: Option<u8>, early: &str) -> Result<u8> {
    let why = match (end, announced) {
        (End::Poweroff, code) => return Ok(code.unwrap_or(0)),
        (End::Crash, Some(code)) if code != 0 => return Ok(code),
        (End::Crash, _) => "the domain crashed without an exit code",
        (End::Reboot, _) => "the domain asked for a reboot, or was reset by a triple fault",
        (End::Watchdog, _) => "the domain's watchdog ended it",
        (End::Destroyed, _) => "somebody destroyed the domain",
    };
    let failure = Failure::new(Exit::Stopped, format!("{package}: {why}"));
    let early = crate::ui::printable(early);
    let lines: Vec<&str> = early.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(16)..];
    let failure = tail.iter().fold(failure, |failure, line| failure.note(*line));
    Err(failure.help("the console above may say more, and Xen's own log: `xl dmesg`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_and_the_announcement_make_the_exit_code() {
        assert_eq!(judge("web", End::Poweroff, None, "").unwrap(), 0);
        assert_eq!(judge("web", End::Poweroff, Some(7), "").unwrap(), 7);
        assert_eq!(judge("web", End::Crash, Some(103), "").unwrap(), 103);
        for (end, announced) in [
            (End::Crash, None),
            (End::Crash, Some(0)),
            (End::Reboot, Some(0)),
            (End::Watchdog, None),
            (End::Destroyed, Some(3)),
        ] {
            let failure = judge("web", end, announced, "(d1) no memory\n\n").unwrap_err();
            assert_eq!(failure.exit, Exit::Stopped, "{failure}");
            assert_eq!(failure.notes, ["(d1) no memory"]);
        }
    }

    #[test]
    fn a_console_that_is_silent_is_drained() {
        let (sender, seen) = mpsc::channel();
        sender.send(Seen::Bytes).unwrap();
        sender.send(Seen::Bytes).unwrap();
        drop(sender);
        drain(&seen);
        assert!(seen.try_recv().is_err(), "all of it was taken");
    }
}
