//! The testbed: a Xen host in QEMU, which the crate `fata-testbed` makes of Debian's packages.
//!
//! One that runs already is used, and goes on afterwards; else one is started and ends with the run.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::mpsc::{self, RecvTimeoutError};

use fata_testbed::{BRIDGE, Kind, Options, Published, Reason, Testbed};

use crate::child::{self, Signals};
use crate::failure::{Exit, Failure, Result};
use crate::run::arguments::Arguments;
use crate::run::devices::Devices;
use crate::run::pcap::Capture;
use crate::run::request::{Link, Protocol};
use crate::run::xen::address::{self, Lease};
use crate::run::xen::domain::Domain;
use crate::run::xen::said::{explain, name_taken};
use crate::run::xen::{End, Running};
use crate::ui::{Spinner, Ui};

/// The testbed that a run uses, and what of it the run holds.
pub(super) struct Bed {
    testbed: Testbed,
    leases: Vec<Lease>,
    published: Vec<Published>,
}

impl Bed {
    /// Finds the testbed that runs, called `name` if that is given, or starts one.
    pub(super) fn open(
        ui: Ui,
        signals: &mut Signals,
        name: Option<&str>,
        devices: &Devices,
    ) -> Result<Self> {
        let tap = tap(devices)?;
        let testbed = match (running(name)?, tap) {
            (Some(testbed), None) => {
                ui.status("Using", &format!("the Xen host {} in QEMU", testbed.name()));
                testbed
            }
            (Some(testbed), Some(tap)) if name.is_some() => {
                let what = format!("--net tap={tap}: the testbed {} runs already", testbed.name());
                return Err(Failure::new(Exit::Refused, what)
                    .help("leave out its name, and another is started on that interface"));
            }
            (_, tap) => start(ui, signals, tap)?,
        };
        Ok(Self { testbed, leases: Vec::new(), published: Vec::new() })
    }

    /// In words.
    pub(super) fn describe(&self) -> String {
        let emulated = if self.testbed.accelerator() == "tcg" { "emulated" } else { "on hardware" };
        format!("on Xen in QEMU ({emulated})")
    }

    /// Gives the stacks whose ports are published addresses, and leads the ports there.
    pub(super) fn publish(&mut self, devices: &Devices, arguments: &mut Arguments) -> Result<()> {
        self.leases = address::assign(self.testbed.state_dir(), devices, arguments)?;
        for card in &devices.cards {
            let lease = self.leases.iter().find(|lease| lease.stack == card.device);
            let Some(address) = lease.map(|lease| lease.address) else { continue };
            for publish in &card.published {
                let protocol = match publish.protocol {
                    Protocol::Tcp => fata_testbed::Protocol::Tcp,
                    Protocol::Udp => fata_testbed::Protocol::Udp,
                };
                let host = SocketAddrV4::new(publish.address, publish.host);
                let guest = SocketAddrV4::new(address, publish.guest);
                self.published.push(self.testbed.publish(protocol, host, guest).map_err(failure)?);
            }
        }
        Ok(())
    }

    /// The addresses of the stacks whose ports are published.
    pub(super) fn addresses(&self) -> Vec<(String, Ipv4Addr)> {
        self.leases.iter().map(|lease| (lease.stack.clone(), lease.address)).collect()
    }

    /// The names of all guests.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        self.testbed.names().map_err(failure)
    }

    /// Creates the domain, which then runs.
    pub(super) fn create(&self, domain: &Domain, captures: &[Capture]) -> Result<BedDomain> {
        let mut guest = domain.guest(Some(BRIDGE))?;
        for capture in captures {
            guest.vifs[capture.card].capture = Some((&capture.file).into());
        }
        let domain = self.testbed.create(&guest).map_err(|error| match error.kind() {
            // What dom0's xl said stands in the notes.
            Kind::Guest => explain("xl create", &error.notes().join("\n")),
            Kind::NameTaken => name_taken(),
            _ => failure(error),
        })?;
        Ok(BedDomain { id: domain.id().to_string(), domain })
    }
}

/// The one TAP interface that cards are on: it is in front of the bridge, so it carries them all.
fn tap(devices: &Devices) -> Result<Option<&str>> {
    let mut found: Option<&str> = None;
    for card in &devices.cards {
        let Link::Tap { interface } = &card.link else { continue };
        match found {
            Some(other) if other != interface => {
                let what = format!("--net tap={other}, tap={interface}: the testbed takes one");
                return Err(Failure::new(Exit::Refused, what)
                    .help("it is in front of a bridge, and carries all cards: name it for each"));
            }
            _ => found = Some(interface),
        }
    }
    let user = devices.cards.iter().any(|card| card.link == Link::User);
    match found {
        Some(tap) if user => {
            let what = format!("--net tap={tap}, user: all cards of the testbed share a network");
            Err(Failure::new(Exit::Refused, what).help(format!("use --net tap={tap} for all")))
        }
        found => Ok(found),
    }
}

/// The testbed that runs, if one does.
fn running(name: Option<&str>) -> Result<Option<Testbed>> {
    if let Some(name) = name {
        return Testbed::running(Some(name)).map(Some).ok_or_else(|| {
            Failure::new(Exit::Resource, format!("there is no testbed {name}"))
                .help(format!("start it: testbed up --name {name}"))
        });
    }
    let mut found = Testbed::all().map_err(failure)?;
    if found.len() > 1 {
        let names: Vec<&str> = found.iter().map(Testbed::name).collect();
        let what = format!("several testbeds run: {}", names.join(", "));
        return Err(Failure::new(Exit::Refused, what).help("choose one: --xen testbed=NAME"));
    }
    Ok(found.pop())
}

/// Starts a testbed, and shows what goes on: at first that is minutes of fetching and unpacking,
/// later ten seconds of booting.
fn start(ui: Ui, signals: &mut Signals, tap: Option<&str>) -> Result<Testbed> {
    let mut spinner = ui.spinner("Starting", "a Xen host in QEMU".to_owned());
    let mut options = Options { tap: tap.map(str::to_owned), ..Options::default() };
    if let Some(qemu) = std::env::var_os("FATA_QEMU").filter(|name| !name.is_empty()) {
        options.qemu = qemu.into();
    }
    enum Step {
        Doing(String),
        Done(Box<fata_testbed::Result<Testbed>>),
    }
    let (sender, steps) = mpsc::channel();
    let starter = std::thread::spawn(move || {
        let mut progress = |step: &str| {
            let _ = sender.send(Step::Doing(step.to_owned()));
        };
        let started = Testbed::start(&options, &mut progress);
        let _ = sender.send(Step::Done(Box::new(started)));
    });
    let mut interrupted = None;
    let started = loop {
        match steps.recv_timeout(Spinner::TICK) {
            Ok(Step::Doing(step)) => spinner.doing(&step),
            Ok(Step::Done(started)) => break *started,
            Err(RecvTimeoutError::Timeout) => spinner.tick(),
            Err(RecvTimeoutError::Disconnected) => {
                let what = "starting a Xen host ended without a result";
                return Err(Failure::new(Exit::Internal, what));
            }
        }
        if let Some(exit) = signals.take() {
            if interrupted.is_some() {
                // Asked twice: what is left in files is swept by the next one that starts.
                return Err(child::interrupted(exit));
            }
            interrupted = Some(exit);
            fata_testbed::interrupt();
        }
    };
    // It has sent its last word.
    let _ = starter.join();
    drop(spinner);
    match interrupted {
        Some(exit) => Err(child::interrupted(exit)),
        None => started.map_err(failure),
    }
}

/// The testbed's error as ours.
fn failure(error: fata_testbed::Error) -> Failure {
    let exit = match error.kind() {
        Kind::Usage => Exit::Refused,
        Kind::Tool | Kind::Packages => Exit::Tool,
        Kind::Resource | Kind::NameTaken => Exit::Resource,
        Kind::Host | Kind::Guest | Kind::Deadline => Exit::Machine,
        Kind::Io => Exit::Io,
    };
    let failure = Failure::new(exit, error.what());
    let failure = error
        .notes()
        .iter()
        .fold(failure, |failure, note| failure.note(crate::ui::printable(note)));
    match error.help_line() {
        Some(help) => failure.help(help),
        None => failure,
    }
}

/// A domain of the testbed.
pub(super) struct BedDomain {
    id: String,
    domain: fata_testbed::Domain,
}

impl Running for BedDomain {
    fn id(&self) -> &str {
        &self.id
    }

    fn console(&mut self) -> Option<Box<dyn Read + Send>> {
        Some(Box::new(self.domain.console_reader()))
    }

    fn start(&mut self) -> Result<()> {
        // It runs since it was created; its console is a file, so nothing was missed.
        Ok(())
    }

    fn poll_end(&mut self) -> Result<Option<End>> {
        let ended = self.domain.try_end().map_err(failure)?;
        Ok(ended.map(|ended| match ended.reason {
            Reason::Poweroff => End::Poweroff,
            Reason::Reboot => End::Reboot,
            Reason::Crash => End::Crash,
            Reason::Watchdog => End::Watchdog,
            Reason::Destroyed => End::Destroyed,
            _ => End::Other,
        }))
    }

    fn destroy(&mut self) {
        // A testbed that does not answer takes its guests with it.
        let _ = self.domain.destroy();
    }

    fn capture_troubles(&mut self) -> Vec<String> {
        self.domain.capture_troubles()
    }

    fn early_output(&mut self) -> String {
        self.domain.early_output()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::devices::{Card, Role};
    use crate::run::request::Mac;

    fn devices(links: &[Link]) -> Devices {
        let card = |link: &Link| Card {
            device: "s".into(),
            role: Role::Stack,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mac_given: true,
            link: link.clone(),
            published: vec![],
        };
        Devices { cards: links.iter().map(card).collect(), ..Devices::default() }
    }

    #[test]
    fn one_tap_carries_all_cards() {
        let on = |interface: &str| Link::Tap { interface: interface.into() };
        let backend = Link::Backend { domain: "firewall".into() };
        assert_eq!(tap(&devices(&[Link::User, backend.clone()])).unwrap(), None);
        assert_eq!(tap(&devices(&[on("t"), backend, on("t")])).unwrap(), Some("t"));
        assert!(tap(&devices(&[on("t"), on("u")])).unwrap_err().what.contains("takes one"));
        assert!(tap(&devices(&[Link::User, on("t")])).unwrap_err().what.contains("share"));
    }
}
