//! A domain is suspended at any moment of a handshake. Nothing went wrong, so both ends must come to be
//! connected again.

use super::others::{blkback, blkfront, disk, linux_blkback};
use super::*;

fn suspended(suspension: Suspension) -> Scenario {
    let mut scenario = Scenario::plain(Names::VIF, Kind::Net);
    scenario.budgets.suspensions = 1;
    scenario.suspension = suspension;
    scenario.events_max = 1;
    scenario
}

#[test]
fn netfront_is_restored_to_the_same_paths() {
    let scenario = suspended(Suspension::Restored(0));
    let world = World::new(&scenario, netfront(), linux_netback(0), Some(linux_netback(0)));
    holds("netfront is restored, same paths", &world);
}

#[test]
fn netfront_is_restored_to_another_backend() {
    let scenario = suspended(Suspension::Restored(1));
    let world = World::new(&scenario, netfront(), linux_netback(0), Some(linux_netback(1)));
    holds("netfront is restored, another backend", &world);
}

#[test]
fn netfront_goes_on_beside_a_netback_that_has_noticed_nothing() {
    let scenario = suspended(Suspension::GoesOn);
    holds("netfront goes on", &World::new(&scenario, netfront(), linux_netback(0), None));
}

#[test]
fn our_netback_goes_on_beside_our_netfront() {
    let mut scenario = suspended(Suspension::BackendGoesOn);
    scenario.hotplug = false;
    holds("netback goes on", &World::new(&scenario, netfront(), netback(), None));
}

#[test]
fn blkfront_is_restored_and_goes_on() {
    let block = |suspension| {
        disk(|scenario| {
            scenario.budgets.suspensions = 1;
            scenario.suspension = suspension;
            scenario.events_max = 1;
        })
    };
    let scenario = block(Suspension::Restored(0));
    let world = World::new(&scenario, blkfront(), linux_blkback(), Some(linux_blkback()));
    holds("blkfront is restored", &world);
    let scenario = block(Suspension::GoesOn);
    holds("blkfront goes on", &World::new(&scenario, blkfront(), linux_blkback(), None));
    let mut scenario = block(Suspension::BackendGoesOn);
    scenario.hotplug = false;
    holds("blkback goes on", &World::new(&scenario, blkfront(), blkback(), None));
}
