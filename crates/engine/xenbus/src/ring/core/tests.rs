use super::*;
use crate::ring::simulation::SharedMemory;
use alloc::collections::VecDeque;
use proptest::prelude::*;

const SLOT: usize = 12;
type Front = FrontRing<SharedMemory, SLOT>;
type Back = BackRing<SharedMemory, SLOT>;

fn pair() -> (Front, Back, SharedMemory) {
    let memory = SharedMemory::new(4096);
    let front = Front::new(memory.clone());
    (front, Back::attach(memory.clone()), memory)
}

fn entry(number: u32) -> [u8; SLOT] {
    let mut entry = [0; SLOT];
    entry[..4].copy_from_slice(&number.to_le_bytes());
    entry[8..].copy_from_slice(&(!number).to_le_bytes());
    entry
}

#[test]
fn slots_are_counted_as_xen_counts_them() {
    // netif's transmit and receive rings, blkif's ring of one page and of four.
    assert_eq!(slot_count(4096, 12), 256);
    assert_eq!(slot_count(4096, 8), 256);
    assert_eq!(slot_count(4096, 112), 32);
    assert_eq!(slot_count(4 * 4096, 112), 128);
    assert_eq!(slot_count(64, 8), 0);
}

#[test]
fn a_new_ring_is_what_shared_ring_init_makes() {
    let (_, _, memory) = pair();
    let words: alloc::vec::Vec<u32> = (0..1024).map(|at| memory.load_u32(4 * at)).collect();
    assert_eq!(words[..4], [0, 1, 0, 1]);
    assert!(words[4..].iter().all(|word| *word == 0), "nothing else is told");
}

#[test]
fn requests_and_responses_cross_in_order_and_wrap() {
    let (mut front, mut back, _) = pair();
    for round in 0..100u32 {
        let numbers = round * 100..round * 100 + 100;
        numbers.clone().for_each(|number| front.push(&entry(number)));
        assert_eq!(back.requests(), Ok(0), "not before they are published");
        front.publish();
        for number in numbers.clone() {
            assert_eq!(back.take(), Ok(Some(entry(number))));
            back.push(&entry(!number));
        }
        assert_eq!(back.take::<SLOT>(), Ok(None));
        assert_eq!(front.take::<SLOT>(), Ok(None));
        back.publish();
        for number in numbers {
            assert_eq!(front.take(), Ok(Some((number % 256, entry(!number)))));
        }
        assert_eq!(front.free(), 256);
    }
}

#[test]
fn who_does_not_sleep_is_not_notified() {
    let (mut front, mut back, _) = pair();
    front.push(&entry(0));
    assert!(front.publish(), "a new ring's backend sleeps");
    front.push(&entry(1));
    assert!(!front.publish(), "it is awake");
    assert!(!front.publish(), "and there is nothing new");
    while let Ok(Some(request)) = back.take::<SLOT>() {
        back.push(&request);
    }
    assert_eq!(back.may_sleep(1), Ok(true));
    front.push(&entry(2));
    assert_eq!(back.may_sleep(1), Ok(true), "not published yet");
    assert!(front.publish());
    assert_eq!(back.may_sleep(1), Ok(false), "the last look finds it");

    assert_eq!(front.may_sleep(2), Ok(true));
    assert!(back.publish());
    assert_eq!(front.may_sleep(2), Ok(false));
    assert_eq!(front.may_sleep(3), Ok(true), "three were asked for, and two are there");
    back.take::<SLOT>().unwrap();
    back.push(&entry(2));
    assert!(back.publish(), "that is the third");
    assert_eq!(front.may_sleep(3), Ok(false), "the index is loaded again");
}

#[test]
fn a_full_ring_says_so() {
    let (mut front, mut back, _) = pair();
    (0..256).for_each(|number| front.push(&entry(number)));
    assert_eq!((front.free(), front.outstanding(), front.unpublished()), (0, 256, 256));
    front.publish();
    assert_eq!(back.requests(), Ok(256));
    back.take::<SLOT>().unwrap();
    back.push(&entry(0));
    back.publish();
    front.take::<SLOT>().unwrap();
    assert_eq!(front.free(), 1);
}

#[test]
fn a_backend_that_starts_again_goes_on_after_the_last_response() {
    let (mut front, mut back, memory) = pair();
    front.push(&entry(0));
    front.push(&entry(1));
    front.publish();
    back.take::<SLOT>().unwrap();
    back.push(&entry(0));
    back.publish();
    let mut back = Back::attach(memory);
    assert_eq!(back.take(), Ok(Some(entry(1))));
}

#[test]
fn wild_indices_are_errors_that_name_the_end() {
    let (mut front, mut back, memory) = pair();
    (0..3).for_each(|number| front.push(&entry(number)));
    front.publish();
    for wild in [4, 1000, u32::MAX, 1 << 31] {
        memory.store_u32(RSP_PROD, wild);
        let error = front.take::<SLOT>().unwrap_err();
        assert_eq!(error, RingError::ResponseIndex { rsp_prod: wild, rsp_cons: 0, req_prod: 3 });
        assert!(alloc::format!("{error}").contains("the backend's rsp_prod"));
        assert_eq!(front.may_sleep(1), Err(error));
    }
    for wild in [257, 1 << 31, u32::MAX] {
        memory.store_u32(REQ_PROD, wild);
        let error = back.take::<SLOT>().unwrap_err();
        let slots = 256;
        assert_eq!(
            error,
            RingError::RequestIndex { req_prod: wild, req_cons: 0, rsp_prod: 0, slots }
        );
        assert!(alloc::format!("{error}").contains("the frontend's req_prod"));
    }
    memory.store_u32(RSP_PROD, 2);
    assert_eq!(front.look(), Ok(2));
    memory.store_u32(RSP_PROD, 1);
    assert!(front.look().is_err(), "an index never goes back");
    memory.store_u32(REQ_PROD, 3);
    assert_eq!(back.look(), Ok(3));
    memory.store_u32(REQ_PROD, 2);
    assert!(back.look().is_err(), "an index never goes back");
}

/// A response to a request that was written, but not announced, cannot be one.
#[test]
fn responses_to_what_was_not_published_are_errors() {
    let (mut front, _, memory) = pair();
    front.push(&entry(0));
    memory.store_u32(RSP_PROD, 1);
    assert!(front.take::<SLOT>().is_err());
}

proptest! {
    /// Two honest ends in any order of steps: each request arrives once, in order, and whoever
    /// sleeps is notified when there is something for it.
    #[test]
    fn nobody_sleeps_for_ever(steps in prop::collection::vec((0..6u8, 1..40u32), 1..300)) {
        let (mut front, mut back, _) = pair();
        let (mut made, mut taken, mut answered) = (0u32, 0u32, 0u32);
        let mut pending = VecDeque::new();
        // A frontend that sleeps waits for responses; a backend, for requests.
        let (mut front_wakes_at, mut back_wakes_at) = (None, None);
        for (step, count) in steps {
            match step {
                0 => for _ in 0..count.min(front.free()) {
                    front.push(&entry(made));
                    made += 1;
                },
                1 => {
                    let published = front.unpublished() > 0;
                    let notify = front.publish();
                    if let Some(at) = back_wakes_at && published && made >= at {
                        prop_assert!(notify, "the backend sleeps until {at} of {made}");
                        back_wakes_at = None;
                    }
                }
                2 => for _ in 0..count {
                    let Some(request) = back.take::<SLOT>().unwrap() else { break };
                    prop_assert_eq!(request, entry(taken));
                    pending.push_back(taken);
                    taken += 1;
                    back_wakes_at = None;
                },
                3 => for _ in 0..count.min(pending.len() as u32) {
                    back.push(&entry(pending.pop_front().unwrap()));
                },
                4 => {
                    let before = back.rsp_prod_published;
                    let notify = back.publish();
                    let rsp_prod = back.rsp_prod;
                    if let Some(at) = front_wakes_at && before != rsp_prod && rsp_prod >= at {
                        prop_assert!(notify, "the frontend sleeps until {at} of {rsp_prod}");
                        front_wakes_at = None;
                    }
                }
                _ => {
                    while let Some((_, response)) = front.take::<SLOT>().unwrap() {
                        prop_assert_eq!(response, entry(answered));
                        answered += 1;
                    }
                    if front.outstanding() > 0 && front.may_sleep(1).unwrap() {
                        front_wakes_at = Some(front.rsp_cons + 1);
                    }
                    let look = back.requests().unwrap();
                    if look == 0 && back.may_sleep(1).unwrap() {
                        back_wakes_at = Some(back.req_cons + 1);
                    }
                }
            }
            prop_assert!(front.outstanding() <= 256 && back.unanswered() <= 256);
        }
    }

    /// Whatever stands in the pages, and however it changes: no panic, and never more entries than
    /// the ring has slots.
    #[test]
    fn an_end_survives_any_memory(
        writes in prop::collection::vec((0..4096usize / 4, any::<u32>(), any::<bool>()), 1..200),
    ) {
        let (mut front, _, memory) = pair();
        (0..100).for_each(|number| front.push(&entry(number)));
        front.publish();
        let mut back = Back::attach(memory.clone());
        for (at, value, near) in writes {
            let at = if near { at % 4 } else { at };
            memory.store_u32(4 * at, if near { value % 300 } else { value });
            let mut count = 0;
            while let Ok(Some(_)) = front.take::<4>() {
                count += 1;
            }
            while let Ok(Some(_)) = back.take::<SLOT>() {
                back.push(&[0; 4]);
                count += 1;
                prop_assert!(count <= 2 * 256 + 256);
            }
            front.publish();
            back.publish();
            let _ = (front.may_sleep(1), back.may_sleep(1));
        }
    }
}
