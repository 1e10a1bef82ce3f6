use super::*;
use crate::{Access, CopyData, CopyOperation, HypercallError, Window};
use core::task::{Context, Poll, Waker};
use proptest::prelude::*;
use std::string::ToString;
use std::vec;

const FRONT: DomainId = DomainId(7);
const BACK: DomainId = DomainId(0);

fn pair() -> (World, Hypervisor, Hypervisor) {
    let world = World::new();
    let (front, back) = (world.domain(FRONT), world.domain(BACK));
    (world, front, back)
}

fn copy_out(from: &Hypervisor, remote: DomainId, grant: GrantRef, bytes: &mut [u8]) -> i16 {
    let data = CopyData::Into(bytes);
    let mut operation = [CopyOperation { remote, grant, offset: 0, data, status: 1 }];
    from.copy(&mut operation).expect("a copy's refusal is in its status");
    operation[0].status
}

#[test]
fn what_one_domain_grants_and_another_maps_are_the_same_bytes() {
    let (_, front, back) = pair();
    let ours = front.grant(BACK, 3, Access::ReadWrite).unwrap();
    // Another order: each page is on its own.
    let refs: Vec<GrantRef> = ours.refs().iter().rev().copied().collect();
    let theirs = back.map(FRONT, &refs, Access::ReadWrite).unwrap();
    assert_eq!((ours.len(), theirs.len()), (3 * PAGE_BYTES, 3 * PAGE_BYTES));
    let mut page = vec![1; 3 * PAGE_BYTES];
    theirs.copy_out(0, &mut page);
    assert!(page.iter().all(|&byte| byte == 0), "granted pages are zeroed");
    ours.store_u64(2 * PAGE_BYTES + 8, 0x1122_3344_5566_7788);
    assert_eq!(theirs.load_u64(8), 0x1122_3344_5566_7788);
    theirs.copy_in(PAGE_BYTES - 2, b"over the edge");
    let mut edge = [0; 2];
    ours.copy_out(3 * PAGE_BYTES - 2, &mut edge);
    assert_eq!(&edge, b"ov");
    let mut rest = [0; 11];
    ours.copy_out(PAGE_BYTES, &mut rest);
    assert_eq!(&rest, b"er the edge");
}

#[test]
fn pages_are_given_back_only_when_nobody_maps_them() {
    let (world, front, back) = pair();
    let page = front.grant(BACK, 1, Access::ReadWrite).unwrap();
    let first = back.map(FRONT, page.refs(), Access::ReadOnly).unwrap();
    let second = back.map(FRONT, page.refs(), Access::ReadWrite).unwrap();
    assert_eq!(world.mappings(FRONT), 2);
    let page = page.revoke().expect_err("mapped twice");
    drop(first);
    drop(page.revoke().expect_err("mapped once"));
    assert_eq!(front.counters().grants_waiting, 1);
    second.store_u8(0, 1);
    drop(second);
    assert_eq!(front.grant(BACK, 1, Access::ReadWrite).unwrap().revoke().map_err(|_| ()), Ok(()));
    assert_eq!(front.counters().grants_waiting, 0);
    assert_eq!((world.mappings(FRONT), world.grants(FRONT)), (0, 0));
}

#[test]
fn a_reference_of_somebody_else_or_of_before_is_refused() {
    let (world, front, back) = pair();
    let other = world.domain(DomainId(9));
    let page = front.grant(BACK, 1, Access::ReadWrite).unwrap();
    let bad = |domain: &Hypervisor, remote, refs: &[GrantRef]| {
        domain.map(remote, refs, Access::ReadOnly).expect_err("not theirs").errno
    };
    assert_eq!(bad(&other, FRONT, page.refs()), -3);
    assert_eq!(bad(&back, DomainId(9), page.refs()), -3);
    assert_eq!(bad(&back, FRONT, &[page.refs()[0], GrantRef(4711)]), -3);
    assert_eq!(bad(&back, DomainId(1234), page.refs()), -2);
    assert_eq!(world.mappings(FRONT), 0, "all or none");
    assert_eq!(copy_out(&other, FRONT, page.refs()[0], &mut [0; 4]), -3);
    let stale = page.refs()[0];
    page.revoke().unwrap();
    assert_eq!(bad(&back, FRONT, &[stale]), -3);
    assert_eq!(copy_out(&back, FRONT, stale, &mut [0; 4]), -3);
}

#[test]
fn a_page_to_read_is_not_written() {
    let (_, front, back) = pair();
    let mut page = front.grant(BACK, 1, Access::ReadOnly).unwrap();
    page.bytes_mut().expect("nobody else may write").fill(5);
    let refused = back.map(FRONT, page.refs(), Access::ReadWrite).expect_err("read-only");
    assert!(refused.to_string().contains("does not permit"), "{refused}");
    let theirs = back.map(FRONT, page.refs(), Access::ReadOnly).unwrap();
    assert_eq!(theirs.load_u8(4095), 5);
    let written = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| theirs.store_u8(0, 1)));
    assert!(written.is_err(), "a page fault, on a real Xen");
    let data = CopyData::From(&[1, 2, 3]);
    let grant = page.refs()[0];
    let mut operation = [CopyOperation { remote: FRONT, grant, offset: 0, data, status: 1 }];
    back.copy(&mut operation).unwrap();
    assert_eq!(operation[0].status, -8);
    let mut writable = front.grant(BACK, 1, Access::ReadWrite).unwrap();
    assert!(writable.bytes_mut().is_none());
}

#[test]
fn copies_have_a_status_each() {
    let (_, front, back) = pair();
    let page = front.grant(BACK, 1, Access::ReadWrite).unwrap();
    page.copy_in(100, b"payload");
    let grant = page.refs()[0];
    let (mut got, mut beyond) = ([0; 7], [0; 8]);
    let mut operations = [
        CopyOperation {
            remote: FRONT,
            grant,
            offset: 100,
            data: CopyData::Into(&mut got),
            status: 1,
        },
        CopyOperation {
            remote: FRONT,
            grant,
            offset: 4089,
            data: CopyData::Into(&mut beyond),
            status: 1,
        },
        CopyOperation {
            remote: FRONT,
            grant: GrantRef(3),
            offset: 0,
            data: CopyData::From(b"x"),
            status: 1,
        },
        CopyOperation {
            remote: FRONT,
            grant,
            offset: 4088,
            data: CopyData::From(b"the end."),
            status: 1,
        },
    ];
    back.copy(&mut operations).unwrap();
    assert_eq!(operations.each_ref().map(|operation| operation.status), [0, -10, -3, 0]);
    assert_eq!(&got, b"payload");
    let mut end = [0; 8];
    page.copy_out(4088, &mut end);
    assert_eq!(&end, b"the end.");
    assert_eq!(back.counters().copies, 3);
}

#[test]
fn events_fire_the_other_end_and_nobody_else() {
    let (_, front, back) = pair();
    let ours = front.allocate_unbound(BACK).unwrap();
    ours.notify();
    assert!(!ours.is_connected());
    let theirs = back.bind_interdomain(FRONT, ours.port()).unwrap();
    assert!(theirs.line().take_fired(), "who binds looks once");
    assert!(!theirs.line().take_fired());
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(ours.line().poll_fired(&mut cx), Poll::Pending);
    theirs.notify();
    theirs.notify();
    assert_eq!(ours.line().poll_fired(&mut cx), Poll::Ready(()));
    assert_eq!(ours.line().poll_fired(&mut cx), Poll::Pending);
    assert!(!theirs.line().take_fired());
    ours.notify();
    assert!(theirs.line().take_fired());
    assert_eq!((front.counters().upcalls, back.counters().upcalls), (2, 1));
}

#[test]
fn closing_one_end_leaves_the_other_silent_and_bindable() {
    let (world, front, back) = pair();
    let ours = front.allocate_unbound(BACK).unwrap();
    let theirs = back.bind_interdomain(FRONT, ours.port()).unwrap();
    let bound = back.bind_interdomain(FRONT, ours.port()).expect_err("bound already");
    assert_eq!(bound.errno, HypercallError::INVALID);
    drop(theirs);
    assert!(!ours.is_connected());
    ours.notify();
    let again = back.bind_interdomain(FRONT, ours.port()).unwrap();
    again.line().take_fired();
    ours.notify();
    assert!(again.line().take_fired());
    let port = ours.port();
    drop(ours);
    again.notify();
    assert!(back.bind_interdomain(FRONT, port).is_err());
    assert_eq!((world.ports(FRONT), world.ports(BACK)), (0, 1));
}

#[test]
fn only_the_domain_that_a_port_is_for_binds_it() {
    let (world, front, _) = pair();
    let other = world.domain(DomainId(9));
    let ours = front.allocate_unbound(BACK).unwrap();
    assert_eq!(other.bind_interdomain(FRONT, ours.port()).expect_err("not for 9").errno, 22);
    assert_eq!(other.bind_interdomain(DomainId(99), Port(1)).expect_err("no 99").errno, 3);
}

#[test]
fn a_domain_that_dies_takes_its_ports_and_grants_with_it() {
    let (world, front, back) = pair();
    let page = front.grant(BACK, 1, Access::ReadWrite).unwrap();
    let mapped = back.map(FRONT, page.refs(), Access::ReadWrite).unwrap();
    let ours = front.allocate_unbound(BACK).unwrap();
    let theirs = back.bind_interdomain(FRONT, ours.port()).unwrap();
    world.kill(FRONT);
    assert!(!theirs.is_connected());
    theirs.notify();
    ours.notify();
    assert!(!ours.line().take_fired());
    // Mapped before, and still there: Xen keeps a dying domain's pages for who maps them.
    mapped.store_u8(0, 1);
    assert_eq!(copy_out(&back, FRONT, page.refs()[0], &mut [0; 4]), -2);
    assert!(back.map(FRONT, page.refs(), Access::ReadOnly).is_err());
    assert!(front.allocate_unbound(BACK).is_err());
    // The next one of this number has none of it.
    let reborn = world.domain(FRONT);
    assert_eq!(copy_out(&back, FRONT, page.refs()[0], &mut [0; 4]), -3);
    let fresh = reborn.grant(BACK, 1, Access::ReadWrite).unwrap();
    assert_ne!(fresh.refs(), page.refs());
    drop(page);
    drop(mapped);
    assert_eq!(world.mappings(FRONT), 0);
}

#[test]
fn the_tools_pages_reach_domain_zero() {
    let (world, front, back) = pair();
    let introduction = world.introduction(FRONT);
    for (special, (grant, port)) in
        [(front.store_page(), introduction.store), (front.console_page(), introduction.console)]
    {
        let (page, channel) = special.expect("asked for the first time");
        let theirs = back.map(FRONT, &[grant], Access::ReadWrite).unwrap();
        let event = back.bind_interdomain(FRONT, port).unwrap();
        page.store_u32(2052, 99);
        channel.notify();
        assert!(event.line().take_fired());
        assert_eq!(theirs.load_u32(2052), 99);
        event.notify();
        assert!(channel.line().take_fired());
    }
    assert!(front.store_page().is_none() && front.console_page().is_none());
}

#[test]
fn limits_are_reached_and_named() {
    let world = World::new();
    let small = world.domain_with(FRONT, DomainLimits { grants: 10, ports: 4 });
    let _back = world.domain(BACK);
    let refused = small.grant(BACK, 3, Access::ReadOnly).expect_err("entries for two");
    assert_eq!(refused.errno, HypercallError::NO_MEMORY);
    assert_eq!(world.grants(FRONT), 0, "what was granted was taken back");
    let _pages = small.grant(BACK, 2, Access::ReadOnly).unwrap();
    let _one = small.allocate_unbound(BACK).unwrap();
    let _two = small.allocate_unbound(BACK).unwrap();
    assert_eq!(small.allocate_unbound(BACK).expect_err("two are the tools'").errno, 28);
}

#[test]
fn a_domain_with_devices_connected_is_not_suspended() {
    let (_world, front, back) = pair();
    let theirs = back.grant(FRONT, 1, Access::ReadWrite).unwrap();
    let port = front.allocate_unbound(BACK).unwrap();
    assert_eq!(front.suspend().map_err(|error| error.errno), Err(16));
    drop(port);
    let mapped = front.map(BACK, theirs.refs(), Access::ReadWrite).unwrap();
    assert_eq!(front.suspend().map_err(|error| error.errno), Err(16));
    drop(mapped);
    assert_eq!(front.suspend(), Ok(Suspended::Cancelled));
}

#[test]
fn a_restored_domain_has_its_grants_and_new_pages_of_the_tools() {
    let (world, front, back) = pair();
    let page = front.grant(BACK, 1, Access::ReadWrite).unwrap();
    let (store, _) = front.store_page().unwrap();
    store.store_u32(2048, 77);
    let (grant, before) = world.introduction(FRONT).store;
    world.set_suspension(FRONT, Suspended::Resumed);
    assert_eq!(front.suspend(), Ok(Suspended::Resumed));
    assert!(back.map(FRONT, page.refs(), Access::ReadOnly).is_ok());
    let (_, after) = world.introduction(FRONT).store;
    assert_ne!(before, after);
    assert!(back.bind_interdomain(FRONT, before).is_err());
    let (store, event) = front.store_page().expect("to be asked for again");
    assert_eq!(store.load_u32(2048), 0);
    back.bind_interdomain(FRONT, after).unwrap().notify();
    assert!(event.line().take_fired());
    assert!(back.map(FRONT, &[grant], Access::ReadWrite).is_ok());
}

#[test]
fn a_domain_says_why_it_ends() {
    let (world, front, _) = pair();
    let end = core::panic::AssertUnwindSafe(|| front.shutdown(ShutdownReason::Reboot));
    assert!(std::panic::catch_unwind(end).is_err());
    assert_eq!(world.shutdown_reason(FRONT), Some(ShutdownReason::Reboot));
    assert!(front.allocate_unbound(BACK).is_err());
}

proptest! {
    /// Whatever a domain asks with numbers that it made up, it reaches only what was granted to it.
    #[test]
    fn made_up_numbers_reach_nothing(
        refs in prop::collection::vec(0_u32..40, 1..6),
        port in 0_u32..20,
        remote in 0_u16..12,
        offset: u16,
        len in 0_usize..5000,
    ) {
        let (world, front, back) = pair();
        let thief = world.domain(DomainId(9));
        let secret = front.grant(BACK, 4, Access::ReadWrite).unwrap();
        secret.copy_in(0, &[0x55; 4 * PAGE_BYTES]);
        let _bell = front.allocate_unbound(BACK).unwrap();
        let refs: Vec<GrantRef> = refs.into_iter().map(GrantRef).collect();
        prop_assert!(thief.map(DomainId(remote), &refs, Access::ReadOnly).is_err());
        prop_assert!(thief.bind_interdomain(DomainId(remote), Port(port)).is_err());
        let mut loot = vec![0; len];
        let data = CopyData::Into(&mut loot);
        let remote = DomainId(remote);
        let mut operation = [CopyOperation { remote, grant: refs[0], offset, data, status: 0 }];
        thief.copy(&mut operation).unwrap();
        prop_assert_ne!(operation[0].status, 0);
        prop_assert!(loot.iter().all(|&byte| byte == 0));
        drop(back);
    }
}
