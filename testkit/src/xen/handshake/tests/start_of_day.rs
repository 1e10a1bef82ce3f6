//! The race of 2015, and that it is gone.

use super::*;

#[test]
fn connecting_at_once_with_a_static_address_loses_the_first_arp_request_without_the_wait() {
    let scenario = Scenario::plain(Names::VIF, Kind::Net);
    let eager = WithoutTheWait::new(net_frontend());
    let eager = Driven::new("netfront", Names::FRONTEND_HOME, eager).unwrap();
    let without = explore(&World::new(&scenario, eager, linux_netback(0), None), STATES_MAX);
    println!("without the wait: {without}");
    let failure = without.failure.as_ref().expect("without the wait, frames are lost");
    println!("{failure}");
    assert!(failure.what.contains("the first frame is lost"), "{}", failure.what);
    assert!(without.failing < without.interleavings, "some schedules hid it, then as now");

    let with = holds("with the wait", &World::new(&scenario, netfront(), linux_netback(0), None));
    assert_eq!(with.failing, 0);
}

#[test]
fn our_netfront_meets_linux_netback() {
    let mut scenario = Scenario::plain(Names::VIF, Kind::Net);
    scenario.grain = Grain::Key;
    scenario.budgets.conflicts = 2;
    scenario.budgets.strays = 2;
    holds("netfront, Linux's netback", &World::new(&scenario, netfront(), linux_netback(0), None));
}

#[test]
fn linux_netfront_meets_our_netback() {
    let mut scenario = Scenario::plain(Names::VIF, Kind::Net);
    scenario.budgets.conflicts = 2;
    scenario.budgets.strays = 2;
    holds("Linux's netfront, netback", &World::new(&scenario, linux_netfront(), netback(), None));
}

#[test]
fn our_netfront_meets_our_netback() {
    let mut scenario = Scenario::plain(Names::VIF, Kind::Net);
    scenario.hotplug = false;
    scenario.budgets.conflicts = 1;
    scenario.budgets.strays = 1;
    holds("netfront, netback", &World::new(&scenario, netfront(), netback(), None));
}

#[test]
fn keys_come_late_and_in_any_order() {
    let mut scenario = Scenario::plain(Names::VIF, Kind::Net);
    scenario.key_by_key = true;
    holds("late keys, Linux's netback", &World::new(&scenario, netfront(), linux_netback(0), None));
}
