//! `fata run -t xen`: a domain of this computer's Xen, or of the testbed's.

mod address;
mod capture;
pub(crate) mod domain;
mod host;
mod said;
mod testbed;

use std::cell::RefCell;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::child::Signals;
use crate::failure::{Exit, Failure, Result};
use crate::image::Image;
use crate::run::arguments::Arguments;
use crate::run::console_thread::{ConsoleThread, Seen};
use crate::run::devices::Devices;
use crate::run::pcap::Capture;
use crate::run::report::{Reporter, Started};
use crate::run::request::{Link, Memory, domain_name};
use crate::ui::Ui;
use domain::{Domain, free_name};
use host::{BRIDGE, Host};
use testbed::Bed;

/// How often signals, the deadline and the domain's state are looked at.
const TICK: Duration = Duration::from_millis(200);

/// How often it is looked whether work that blocks is done: a domain is created in a second.
const WORK_TICK: Duration = Duration::from_millis(5);

/// How long the console of a domain that ended must be silent until all of it counts as read: the
/// console daemon moves a page of it within a turn of its loop, milliseconds.
const DRAINED: Duration = Duration::from_millis(200);

/// How long that silence is waited for at most.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// How many others may be faster with a name. Each loss means that one of them has got it, so this is
/// more than a host has room for domains that start at once.
const RACES_MAX: u32 = 100;

/// `--xen`: where domains run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// This computer, which is dom0 of a Xen host.
    Host,
    /// A Xen host in QEMU: of this name, or the one that runs, or one that is started for this run.
    Testbed(Option<String>),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "host" => Ok(Choice::Host),
            None if text == "testbed" => Ok(Choice::Testbed(None)),
            Some(("testbed", name)) => domain_name(name).map(|name| Choice::Testbed(Some(name))),
            _ => Err("expected host, testbed or testbed=NAME".to_owned()),
        }
    }
}

/// Decides where domains run, before anything is built.
pub(crate) fn choose(ui: Ui, choice: Option<&Choice>) -> Result<Choice> {
    match choice {
        Some(Choice::Host) => Host::open(ui).map(|_| Choice::Host),
        Some(testbed) => Ok(testbed.clone()),
        None if host::is_dom0(Path::new("/")) => Host::open(ui).map(|_| Choice::Host),
        None => Ok(Choice::Testbed(None)),
    }
}

/// What a card is connected to that no `--net` names.
pub(crate) fn default_link(place: &Choice) -> Link {
    match place {
        Choice::Host => Link::Bridge { bridge: BRIDGE.to_owned() },
        Choice::Testbed(_) => Link::User,
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
    /// For a reason that Xen has and we do not.
    Other,
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
    /// What is missing in the files of captured cards, in words, after [`destroy`](Self::destroy).
    fn capture_troubles(&mut self) -> Vec<String>;
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
    /// Cards whose frames go into files.
    pub(crate) captures: &'a [Capture],
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
pub(crate) fn run(run: Run<'_>, place: &Choice, plan: &Plan<'_>) -> Result<u8> {
    let ui = run.ui;
    let booting = |place: &str| {
        let (package, memory) = (&plan.image.manifest.package, plan.memory.bytes);
        ui.status("Booting", &format!("{package} {place} ({})", crate::ui::size(memory)));
    };
    match place {
        Choice::Host => {
            let host = Host::open(ui)?;
            booting("on this Xen host");
            let mut limits = Limits::new(run.signals, run.timeout, &plan.image.manifest.package);
            // Both closures ask it, one after the other.
            let asked = RefCell::new(&mut limits);
            let check = &|| asked.borrow_mut().check();
            let (domain, created) = plan.create(
                plan.arguments,
                || host.names(check),
                |domain| host.create(domain, plan.captures, check),
            )?;
            let about = Created { domain: &domain, place: "host", addresses: &[] };
            watch(ui, limits, run.reporter, run.symbol_stores, plan, about, created)
        }
        Choice::Testbed(name) => {
            let mut bed = Bed::open(ui, run.signals, name.as_deref(), plan.devices)?;
            let mut arguments = plan.arguments.clone();
            bed.publish(plan.devices, &mut arguments)?;
            booting(&bed.describe());
            let mut limits = Limits::new(run.signals, run.timeout, &plan.image.manifest.package);
            let create = || {
                plan.create(&arguments, || bed.names(), |domain| bed.create(domain, plan.captures))
            };
            let (domain, created) =
                unless_ended(|| limits.check(), create, fata_testbed::interrupt)?;
            let addresses = bed.addresses();
            let about = Created { domain: &domain, place: "testbed", addresses: &addresses };
            watch(ui, limits, run.reporter, run.symbol_stores, plan, about, created)
        }
    }
}

impl Plan<'_> {
    /// Creates the domain: under the name that `--name` gave, else under the package's, with a
    /// number behind it when that is taken.
    fn create<R>(
        &self,
        arguments: &Arguments,
        names: impl Fn() -> Result<Vec<String>>,
        create: impl Fn(&Domain) -> Result<R>,
    ) -> Result<(Domain, R)> {
        let domain =
            |name: &str| Domain::new(self.image, name, self.memory, self.devices, arguments);
        if let Some(name) = self.name {
            let domain = domain(name)?;
            let created = create(&domain)?;
            return Ok((domain, created));
        }
        create_numbered(&self.image.manifest.package, names()?, |name| {
            let domain = domain(name)?;
            let created = create(&domain)?;
            Ok((domain, created))
        })
    }
}

/// Creates what is called `wanted`, with a number behind it as long as the name is `taken`.
fn create_numbered<R>(
    wanted: &str,
    mut taken: Vec<String>,
    mut create: impl FnMut(&str) -> Result<R>,
) -> Result<R> {
    let mut races = RACES_MAX;
    loop {
        let name = free_name(wanted, &taken);
        match create(&name) {
            // Another run was faster. Its domain may be on its way, so that no list has it yet.
            Err(failure) if said::is_name_taken(&failure) && races > 0 => {
                races -= 1;
                taken.push(name);
            }
            created => return created,
        }
    }
}

/// What ends a run before its program does, from the domain's creation on.
struct Limits<'a> {
    signals: &'a mut Signals,
    timeout: Duration,
    /// None when there is no `--timeout`, or it is in no time that a clock shows.
    deadline: Option<Instant>,
    package: &'a str,
}

impl<'a> Limits<'a> {
    fn new(signals: &'a mut Signals, timeout: Option<Duration>, package: &'a str) -> Self {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Self { signals, timeout: timeout.unwrap_or_default(), deadline, package }
    }

    /// A failure when the run is to end now.
    fn check(&mut self) -> Result<()> {
        self.signals.check()?;
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let seconds = self.timeout.as_secs_f64();
            let what = format!("{} did not end within {seconds} s", self.package);
            return Err(Failure::new(Exit::Timeout, what));
        }
        Ok(())
    }

    /// How long may be waited until the next look.
    fn wait(&self) -> Duration {
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        self.deadline.map_or(TICK, |deadline| TICK.min(left(deadline)))
    }
}

/// Does `work`, which blocks, until it is done. As soon as `check` fails, `interrupt` is to end the
/// work; what it has made all the same is dropped.
fn unless_ended<T: Send>(
    mut check: impl FnMut() -> Result<()>,
    work: impl FnOnce() -> Result<T> + Send,
    interrupt: impl FnOnce(),
) -> Result<T> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(work);
        let ended = loop {
            if worker.is_finished() {
                break Ok(());
            }
            if let Err(failure) = check() {
                interrupt();
                break Err(failure);
            }
            std::thread::sleep(WORK_TICK);
        };
        let done = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ended.and(done)
    })
}

/// What was created.
#[derive(Clone, Copy)]
pub(crate) struct Created<'a> {
    pub(crate) domain: &'a Domain,
    /// `host` or `testbed`.
    pub(crate) place: &'static str,
    /// Stacks with the addresses that they were given.
    pub(crate) addresses: &'a [(String, Ipv4Addr)],
}

/// Stays with a domain until it ends.
fn watch(
    ui: Ui,
    mut limits: Limits<'_>,
    reporter: Reporter,
    symbol_stores: Vec<PathBuf>,
    plan: &Plan<'_>,
    created: Created<'_>,
    mut running: impl Running,
) -> Result<u8> {
    let (sender, seen) = mpsc::channel();
    let console = running.console().map(|console| {
        ConsoleThread::start(console, plan.image, symbol_stores, reporter, move |seen| {
            let _ = sender.send(seen);
        })
    });
    let stop = |mut running: Box<dyn Running + '_>, console: Option<ConsoleThread>, failure| {
        destroy(&mut *running, ui);
        if let Some(console) = console {
            console.join().warn(ui);
        }
        Err(failure)
    };
    running.start()?;
    reporter.started(ui, &Started::on_xen(plan, created, running.id()));
    let mut look = Instant::now();
    let end = loop {
        if let Err(failure) = limits.check() {
            return stop(Box::new(running), console, failure);
        }
        let now = Instant::now();
        let wait = limits.wait();
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
    destroy(&mut running, ui);
    let console = console.map(ConsoleThread::join).unwrap_or_default();
    console.warn(ui);
    judge(&plan.image.manifest.package, end, console.exit_code, &early)
}

/// Destroys the domain, and tells what is missing of its frames.
fn destroy(running: &mut dyn Running, ui: Ui) {
    running.destroy();
    for trouble in running.capture_troubles() {
        ui.warn(&format!("the capture is not complete: {trouble}"));
    }
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
        (End::Other, _) => "the domain ended for a reason that is none of ours",
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
    fn a_name_that_others_take_at_the_same_time_gets_the_next_number() {
        let created = |faster: u32| {
            let mut tried = Vec::new();
            let created = create_numbered("web", vec!["web-2".to_owned()], |name| {
                tried.push(name.to_owned());
                if tried.len() as u64 <= faster.into() { Err(said::name_taken()) } else { Ok(()) }
            });
            (created, tried)
        };
        assert_eq!(created(0).1, ["web"]);
        assert_eq!(created(2).1, ["web", "web-3", "web-4"]);
        assert_eq!(created(RACES_MAX).0.map_err(|failure| failure.exit), Ok(()));
        assert_eq!(created(u32::MAX).0.unwrap_err().exit, Exit::Resource, "it ends");
        let mut tries = 0;
        let other = create_numbered("web", vec![], |_| {
            tries += 1;
            Err::<(), _>(Failure::new(Exit::Machine, "something else"))
        });
        assert_eq!((other.unwrap_err().exit, tries), (Exit::Machine, 1));
    }

    #[test]
    fn work_that_blocks_is_ended_and_what_it_made_is_dropped() {
        struct Made<'a>(&'a std::sync::atomic::AtomicU32);
        impl Drop for Made<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let dropped = &std::sync::atomic::AtomicU32::new(0);
        let gone = || dropped.load(std::sync::atomic::Ordering::SeqCst);
        let made = unless_ended(|| Ok(()), || Ok(Made(dropped)), || unreachable!()).unwrap();
        assert_eq!(gone(), 0, "nothing ended it");
        drop(made);

        // It waits for as long as nobody interrupts it, and then is as good as done.
        let (interrupt, interrupted) = mpsc::channel();
        let mut looks = 0;
        let check = || {
            looks += 1;
            if looks < 3 { Ok(()) } else { Err(Failure::new(Exit::Timeout, "late")) }
        };
        let work = move || {
            interrupted.recv().unwrap();
            Ok(Made(dropped))
        };
        let ended = unless_ended(check, work, || interrupt.send(()).unwrap());
        assert_eq!(ended.map(drop).unwrap_err().exit, Exit::Timeout);
        assert_eq!(gone(), 2, "what it made went with it");
    }

    #[test]
    fn a_host_is_this_computer_or_a_testbed() {
        assert_eq!("host".parse(), Ok(Choice::Host));
        assert_eq!("testbed".parse(), Ok(Choice::Testbed(None)));
        assert_eq!("testbed=me".parse(), Ok(Choice::Testbed(Some("me".into()))));
        for text in ["", "xen", "host=me", "testbed=", "testbed=a b"] {
            assert!(text.parse::<Choice>().is_err(), "{text} was accepted");
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
