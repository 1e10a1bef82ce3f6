//! Faults: everything that is not a broken promise is allowed, but nobody waits for ever.

use super::*;

fn faulty(change: impl FnOnce(&mut Scenario)) -> Scenario {
    let mut scenario = Scenario::plain(Names::VIF, Kind::Net);
    scenario.events_max = 1;
    change(&mut scenario);
    scenario
}

#[test]
fn deadlines() {
    let scenario = faulty(|scenario| scenario.budgets.deadlines = true);
    holds("deadlines", &World::new(&scenario, netfront(), linux_netback(0), None));
}

#[test]
fn the_backend_gives_up() {
    let scenario = faulty(|scenario| {
        scenario.budgets.give_ups = 1;
    });
    holds("the backend gives up", &World::new(&scenario, netfront(), linux_netback(0), None));
}

#[test]
fn the_backend_goes_straight_to_closed() {
    let scenario = faulty(|scenario| {
        scenario.budgets.drops = 1;
    });
    holds("straight to Closed", &World::new(&scenario, netfront(), linux_netback(0), None));
}

#[test]
fn the_backends_driver_is_reloaded() {
    let scenario = faulty(|scenario| {
        scenario.budgets.reloads = 1;
    });
    holds("reloads", &World::new(&scenario, netfront(), linux_netback(0), None));
}

#[test]
fn the_frontends_domain_crashes() {
    let scenario = faulty(|scenario| {
        scenario.budgets.crashes = 1;
        scenario.events_max = 2;
    });
    holds("frontend crashes", &World::new(&scenario, netfront(), linux_netback(0), None));
}

#[test]
fn the_program_closes_the_device() {
    let scenario = faulty(|scenario| {
        scenario.budgets.closes = 1;
        scenario.budgets.deadlines = true;
    });
    holds("close", &World::new(&scenario, netfront(), linux_netback(0), None));
}

#[test]
fn the_toolstack_detaches_the_device() {
    let scenario = faulty(|scenario| scenario.budgets.detaches = 1);
    holds("detach", &World::new(&scenario, netfront(), linux_netback(0), None));
}

#[test]
fn the_backends_domain_dies_and_another_takes_its_place() {
    let scenario = faulty(|scenario| {
        scenario.budgets.deaths = 1;
    });
    let spare = Some(linux_netback(1));
    holds("backend dies", &World::new(&scenario, netfront(), linux_netback(0), spare));
}

#[test]
fn rings_cannot_be_made() {
    let scenario = faulty(|scenario| scenario.budgets.ring_failures = 1);
    holds("no rings", &World::new(&scenario, netfront(), linux_netback(0), None));
}

#[test]
fn the_other_end_lies() {
    let scenario = faulty(|scenario| scenario.budgets.faults = 1);
    holds("lies", &World::new(&scenario, netfront(), linux_netback(0), None));
}

#[test]
fn our_netback_and_a_linux_frontend_that_crashes() {
    let scenario = faulty(|scenario| scenario.budgets.crashes = 1);
    holds("frontend crashes", &World::new(&scenario, linux_netfront(), netback(), None));
}

#[test]
fn our_netback_and_a_linux_frontend_that_is_unloaded() {
    let scenario = faulty(|scenario| scenario.budgets.closes = 1);
    holds("frontend unloaded", &World::new(&scenario, linux_netfront(), netback(), None));
}

#[test]
fn our_netback_and_a_frontend_that_is_destroyed() {
    let scenario = faulty(|scenario| scenario.front_deaths = 1);
    holds("frontend destroyed", &World::new(&scenario, linux_netfront(), netback(), None));
}

#[test]
fn our_netback_is_detached() {
    let scenario = faulty(|scenario| scenario.budgets.detaches = 1);
    holds("detach", &World::new(&scenario, linux_netfront(), netback(), None));
}
