//! Disks, consoles, and streams between guests.

use super::*;
use crate::xen::explore::Model;
use fata_xenbus::handshake::vchan::{Calling, Client, Listening, Server};
use fata_xenbus::handshake::{block, console};

pub(super) fn blkfront() -> Driven<block::Frontend> {
    let joining = Joining::new("device/vbd/51712");
    let machine = Frontend::new(joining, block::FrontendOptions::default(), Instant(0));
    Driven::new("blkfront", Names::FRONTEND_HOME, machine).unwrap()
}

pub(super) fn blkback() -> Driven<block::Backend> {
    let options = block::BackendOptions {
        ring_page_order_max: 1,
        persistent: true,
        indirect_segments_max: 64,
        geometry: block::Geometry {
            sectors: 8,
            sector_bytes: 512,
            physical_sector_bytes: 512,
            read_only: false,
            cdrom: false,
            removable: false,
        },
        flush: true,
        barrier: false,
        discard: None,
    };
    let machine = Backend::new(Serving::new("backend/vbd/3/51712"), options, Instant(0));
    Driven::new("blkback", Names::BACKEND_HOME, machine).unwrap()
}

pub(super) fn linux_blkback() -> LinuxBackend {
    LinuxBackend::new(Kind::Block, Names::VBD.backends[0], Names::VBD.frontend)
}

pub(super) fn linux_blkfront() -> LinuxFrontend {
    LinuxFrontend::new(Kind::Block, Names::VBD.frontend)
}

pub(super) fn disk(change: impl FnOnce(&mut Scenario)) -> Scenario {
    let mut scenario = Scenario::plain(Names::VBD, Kind::Block);
    change(&mut scenario);
    scenario
}

#[test]
fn our_blkfront_meets_linux_blkback() {
    let scenario = disk(|scenario| {
        scenario.budgets.conflicts = 1;
        scenario.budgets.strays = 1;
    });
    holds("blkfront, Linux's blkback", &World::new(&scenario, blkfront(), linux_blkback(), None));
    let scenario = disk(|scenario| scenario.budgets.give_ups = 1);
    holds("blkback gives up", &World::new(&scenario, blkfront(), linux_blkback(), None));
    let scenario = disk(|scenario| scenario.budgets.detaches = 1);
    holds("blkback is detached", &World::new(&scenario, blkfront(), linux_blkback(), None));
}

#[test]
fn linux_blkfront_meets_our_blkback() {
    let scenario = disk(|scenario| {
        scenario.hotplug = false;
        scenario.budgets.strays = 1;
        scenario.budgets.conflicts = 1;
    });
    holds("Linux's blkfront, blkback", &World::new(&scenario, linux_blkfront(), blkback(), None));
    let scenario = disk(|scenario| {
        scenario.hotplug = false;
        scenario.budgets.crashes = 1;
    });
    holds("Linux's blkfront crashes", &World::new(&scenario, linux_blkfront(), blkback(), None));
}

#[test]
fn our_blkfront_meets_our_blkback() {
    let scenario = disk(|scenario| scenario.hotplug = false);
    holds("blkfront, blkback", &World::new(&scenario, blkfront(), blkback(), None));
}

fn console() -> Driven<console::Frontend> {
    let machine = Frontend::new(Joining::new("device/console/1"), console::Protocol, Instant(0));
    Driven::new("console", Names::FRONTEND_HOME, machine).unwrap()
}

fn qemu(index: usize) -> QemuConsole {
    QemuConsole::new(Names::CONSOLE.backends[index], Names::CONSOLE.frontend)
}

fn terminal(change: impl FnOnce(&mut Scenario)) -> Scenario {
    let mut scenario = Scenario::plain(Names::CONSOLE, Kind::Net);
    scenario.hotplug = false;
    change(&mut scenario);
    scenario
}

#[test]
fn a_console_meets_qemu() {
    let scenario = terminal(|scenario| {
        scenario.budgets.conflicts = 2;
        scenario.budgets.strays = 2;
        scenario.grain = Grain::Key;
    });
    holds("console, QEMU", &World::new(&scenario, console(), qemu(0), None));
    let scenario = terminal(|scenario| scenario.key_by_key = true);
    holds("console, keys one by one", &World::new(&scenario, console(), qemu(0), None));
}

#[test]
fn a_console_and_everything_that_can_go_wrong_with_it() {
    let faulty = |name: &str, change: fn(&mut Scenario)| {
        let scenario = terminal(change);
        let spare = match scenario.suspension {
            Suspension::Restored(index) => qemu(index),
            _ => qemu(1),
        };
        holds(name, &World::new(&scenario, console(), qemu(0), Some(spare)));
    };
    faulty("console, deadlines", |scenario| scenario.budgets.deadlines = true);
    faulty("console, no ring", |scenario| scenario.budgets.ring_failures = 1);
    faulty("console, lies", |scenario| scenario.budgets.faults = 1);
    faulty("console, closed", |scenario| {
        scenario.budgets.closes = 1;
        scenario.budgets.deadlines = true;
    });
    faulty("console, its guest crashes", |scenario| scenario.budgets.crashes = 1);
    faulty("console, its backend's domain dies", |scenario| scenario.budgets.deaths = 1);
    faulty("console, restored", |scenario| {
        scenario.budgets.suspensions = 1;
        scenario.suspension = Suspension::Restored(0);
    });
}

const PATH: &str = "/local/domain/3/data/vchan/7/echo";

fn vchan_server() -> Driven<Server> {
    let machine = Server::new(Listening::new(PATH, 3, 7));
    Driven::new("vchan server", Names::FRONTEND_HOME, machine).unwrap()
}

fn vchan_client() -> Driven<Client> {
    let machine = Client::new(Calling::new(PATH, 3), Instant(0));
    Driven::new("vchan client", Names::SECOND_HOME, machine).unwrap()
}

fn stream(change: impl FnOnce(&mut Scenario)) -> Scenario {
    let mut scenario = Scenario::plain(Names::VIF, Kind::Net);
    scenario.hotplug = false;
    change(&mut scenario);
    scenario
}

#[test]
fn vchan_client_meets_server() {
    let scenario = stream(|scenario| {
        scenario.budgets.conflicts = 2;
        scenario.budgets.strays = 2;
        scenario.budgets.crashes = 1;
        scenario.grain = Grain::Key;
    });
    let world = World::new(&scenario, vchan_server(), vchan_client(), None);
    // A client of a server that crashes keeps a stream that is dead, which the shared page says, and
    // not XenStore. So only broken promises are looked for, not where both come to rest.
    let report = explore(&Restless(world), STATES_MAX);
    println!("vchan: {report}");
    assert!(report.failure.is_none(), "{}", report.failure.unwrap());
}

#[test]
fn a_vchan_client_without_a_server_names_what_is_missing() {
    let scenario = stream(|scenario| scenario.budgets.deadlines = true);
    let mut shared_world = World::new(&scenario, vchan_server(), vchan_client(), None);
    shared_world.take(&Step::Back(Act::Deadline)).unwrap();
    let error = shared_world.back().ended().expect("it ends").as_ref().unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "vchan {PATH} is not connected after 60.0 s: domain 3 has not written {PATH}/ring-ref \
             and event-channel (unchanged for 60.0 s)"
        )
    );
}

/// A world in which every rest is allowed.
#[derive(Clone, Hash)]
struct Restless<M: Model>(M);

impl<M: Model> Model for Restless<M> {
    type Step = M::Step;

    fn steps(&self) -> Vec<M::Step> {
        self.0.steps()
    }

    fn take(&mut self, step: &M::Step) -> Result<(), String> {
        self.0.take(step)
    }

    fn at_rest(&self) -> Result<(), String> {
        Ok(())
    }

    fn is_patience(step: &M::Step) -> bool {
        M::is_patience(step)
    }

    fn describe(&self, step: &M::Step) -> String {
        self.0.describe(step)
    }
}
