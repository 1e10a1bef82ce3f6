//! Start of day, in every order. The numbers that each test prints are told in docs/start-of-day.md.

use super::*;
use crate::xen::explore::{Report, explore};
use fata_xenbus::Instant;
use fata_xenbus::handshake::{Backend, Frontend, Joining, Serving, net};
use linux::{Kind, LinuxBackend, LinuxFrontend};

mod faults;
mod others;
mod start_of_day;
mod suspensions;

/// More states than any test here has: one that needs more has grown by accident.
const STATES_MAX: usize = 400_000;

fn net_frontend() -> net::Frontend {
    Frontend::new(Joining::new("device/vif/0"), net::FrontendOptions::default(), Instant(0))
}

fn netfront() -> Driven<net::Frontend> {
    Driven::new("netfront", Names::FRONTEND_HOME, net_frontend()).unwrap()
}

fn netback() -> Driven<net::Backend> {
    let serving = Serving::new("backend/vif/3/0");
    let machine = Backend::new(serving, net::BackendOptions::default(), Instant(0));
    Driven::new("netback", Names::BACKEND_HOME, machine).unwrap()
}

fn linux_netback(index: usize) -> LinuxBackend {
    LinuxBackend::new(Kind::Net, Names::VIF.backends[index], Names::VIF.frontend)
}

fn linux_netfront() -> LinuxFrontend {
    LinuxFrontend::new(Kind::Net, Names::VIF.frontend)
}

/// Explores, says how much it was, and fails with a story.
fn holds<F: Actor, B: Actor>(name: &str, world: &World<F, B>) -> Report {
    let begun = std::time::Instant::now();
    let report = explore(world, STATES_MAX);
    println!("{name}: {report}; {:.1?}", begun.elapsed());
    if let Some(failure) = &report.failure {
        panic!("{name}:\n{failure}");
    }
    report
}
