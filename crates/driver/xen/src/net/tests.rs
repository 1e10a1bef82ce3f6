//! The two ends against each other.

use super::pair::*;
use core::task::{Poll, Waker};
use fata_device::nic::PartialChecksum;
use fata_device::{Checksum, IpFamily, Nic, NicError, Segmentation, Transmit};

/// Each end under the contract, with the other as its wire.
async fn both_ends(spec: &Spec) {
    let Pair { mut front, back, front_device, .. } = pair(spec);
    let (mut wire, task) = NicWire::to(back);
    fata_device::contract::nic(&mut front, &mut wire).await;
    task.abort();
    drop(front_device);
    let Pair { front, mut back, .. } = pair(spec);
    let (mut wire, task) = NicWire::to(front);
    fata_device::contract::nic(&mut back, &mut wire).await;
    task.abort();
}

#[tokio::test]
async fn the_contract_of_nic_on_both_ends() {
    for spec in [Spec::full(), Spec::plain(), Spec { split: false, ..Spec::full() }] {
        for mtu in [1500, 9000, 65_000] {
            both_ends(&spec.mtu(mtu)).await;
        }
    }
}

#[tokio::test]
async fn the_contract_of_nic_in_little_memory() {
    let mut spec = Spec::full();
    spec.front.receive_bytes = 0;
    spec.front.transmit_bytes = 0;
    spec.back.batch_bytes = 0;
    both_ends(&spec).await;
    spec.front.segmentation = false;
    both_ends(&spec).await;
}

#[test]
fn an_mtu_is_what_slots_can_carry() {
    assert_eq!(pair(&Spec::plain().mtu(9000)).front.mtu(), 1500, "without scatter-gather");
    assert_eq!(pair(&Spec::plain().mtu(9000)).back.mtu(), 1500);
    let Pair { front, back, .. } = pair(&Spec::full().mtu(100_000));
    assert_eq!((front.mtu(), back.mtu()), (65_517, 65_517));
    assert_eq!(pair(&Spec::full().mtu(1)).front.mtu(), 68);
}

fn segmented(len: usize, family: IpFamily) -> Transmit {
    Transmit {
        len,
        partial_checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        segmentation: Some(Segmentation { family, mss: 1448 }),
    }
}

/// Frames of every length from the least to the longest cross both ways as they are, with what was
/// said of them; and again, until every place in the buffers was a beginning.
#[test]
fn segmented_frames_of_every_length_cross() {
    let Pair { mut front, mut back, .. } = pair(&Spec::full());
    let check = |from: &mut dyn FnMut(&[u8], Transmit), to: &mut dyn FnMut() -> Got| {
        let mut len = 14;
        for number in 0.. {
            let sent = frame(number, len);
            let family = if number % 2 == 0 { IpFamily::V4 } else { IpFamily::V6 };
            from(&sent, segmented(len, family));
            let (got, said) = to();
            assert!(got == sent, "frame {number} of {len} bytes");
            assert_eq!(said.checksum, Checksum::Blank);
            assert_eq!(said.segmentation, Some(Segmentation { family, mss: 1448 }));
            if len == 65_535 {
                break;
            }
            len = (len + 977).min(65_535);
        }
    };
    assert_eq!(front.offloads().segmented_frame_bytes_max, 65_535);
    for _ in 0..8 {
        check(
            &mut |bytes, transmit| {
                assert_eq!(queue(&mut front, bytes, transmit), Poll::Ready(Ok(true)));
                front.flush().unwrap();
            },
            &mut || received(&mut back),
        );
        check(
            &mut |bytes, transmit| {
                assert_eq!(queue(&mut back, bytes, transmit), Poll::Ready(Ok(true)));
                back.flush().unwrap();
            },
            &mut || received(&mut front),
        );
    }
    assert_eq!(counted(&front.counters(), "transmitted_segmented"), 8 * 69);
    assert_eq!(counted(&front.counters(), "received_segmented"), 8 * 69);
}

#[test]
fn checksums_are_told() {
    let Pair { mut front, mut back, .. } = pair(&Spec::full());
    let blank = Transmit {
        partial_checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        ..Transmit::complete(60)
    };
    for (transmit, said) in
        [(blank, Checksum::Blank), (Transmit::complete(60), Checksum::Unverified)]
    {
        assert_eq!(queue(&mut front, &[1; 60], transmit), Poll::Ready(Ok(true)));
        assert_eq!(queue(&mut back, &[2; 60], transmit), Poll::Ready(Ok(true)));
        front.flush().unwrap();
        back.flush().unwrap();
        assert_eq!(received(&mut back).1.checksum, said);
        assert_eq!(received(&mut front).1.checksum, said);
    }
}

#[test]
fn what_was_not_agreed_is_not_offered() {
    let Pair { front, back, .. } = pair(&Spec::plain());
    let offloads = front.offloads();
    assert!(offloads.transmit_checksum, "every backend does");
    assert!(!offloads.transmit_checksum_ipv6 && !offloads.segmentation_ipv4);
    assert_eq!(offloads.segmented_frame_bytes_max, 0);
    assert_eq!(back.offloads(), fata_device::Offloads::default());
    // Segments need several slots and blank checksums.
    let mut spec = Spec::full();
    spec.settings.checksum_ipv6 = false;
    spec.asked.checksum = false;
    let Pair { front, back, .. } = pair(&spec);
    assert!(front.offloads().segmentation_ipv4 && !front.offloads().segmentation_ipv6);
    assert!(!back.offloads().segmentation_ipv4 && back.offloads().segmentation_ipv6);
}

#[test]
fn a_batch_costs_one_notification_and_one_copy() {
    let Pair { mut front, mut back, back_hypervisor, .. } = pair(&Spec::full());
    let before = back_hypervisor.counters();
    for round in 0..10 {
        for number in 0..50 {
            let sent = queue(&mut front, &frame(number, 1514), Transmit::complete(1514));
            assert_eq!(sent, Poll::Ready(Ok(true)));
        }
        front.flush().unwrap();
        front.flush().unwrap();
        for number in 0..50 {
            assert_eq!(received(&mut back).0, frame(number, 1514));
        }
        assert_eq!(receive(&mut back), Poll::Pending, "it sleeps again");
        assert_eq!(counted(&back.counters(), "copy_batches"), round + 1);
        assert_eq!(notifications(&front.counters()), round + 1, "one, for the sleeper");
    }
    assert_eq!(notifications(&back.counters()), 1, "a new ring asks for the first");
    let after = back_hypervisor.counters();
    assert_eq!(after.hypercalls - before.hypercalls, 10 + 1, "the copies, that one, and no other");
    assert_eq!(after.maps, before.maps, "nothing is mapped for a frame");

    let mut woken = 1;
    for round in 0..10 {
        assert_eq!(receive(&mut front), Poll::Pending);
        front.flush().unwrap();
        for number in 0..50 {
            let sent = queue(&mut back, &frame(number, 1514), Transmit::complete(1514));
            assert_eq!(sent, Poll::Ready(Ok(true)));
        }
        back.flush().unwrap();
        woken += 1;
        for number in 0..50 {
            assert_eq!(received(&mut front).0, frame(number, 1514));
        }
        assert_eq!(counted(&back.counters(), "copy_batches"), 10 + round + 1);
        assert_eq!(notifications(&back.counters()), woken);
    }
    assert_eq!(notifications(&front.counters()), 10, "the sender had pages all the time");
}

/// Grants are made when the interface is connected, and no more.
#[test]
fn no_frame_costs_a_grant() {
    let Pair { mut front, mut back, front_hypervisor, .. } = pair(&Spec::full());
    let made = front_hypervisor.counters().grants_made;
    assert_eq!(made, 2 + 256 + 144, "rings, receive pages, transmit pages");
    for number in 0..2000 {
        assert_eq!(send(&mut front, &frame(number, 1514)), Poll::Ready(Ok(true)));
        assert_eq!(send(&mut back, &frame(number, 1514)), Poll::Ready(Ok(true)));
        assert_eq!(received(&mut front).0, frame(number, 1514));
        assert_eq!(received(&mut back).0, frame(number, 1514));
    }
    let after = front_hypervisor.counters();
    assert_eq!((after.grants_made, after.grants_revoked), (made, 0));
}

#[test]
fn a_sender_whose_buffers_are_all_out_waits_and_is_woken_once() {
    struct Woken(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    for split in [true, false] {
        let Pair { mut front, mut back, .. } = pair(&Spec { split, ..Spec::full() });
        let mut queued = 0;
        while send(&mut front, &[1; 1514]) == Poll::Ready(Ok(true)) {
            queued += 1;
        }
        assert!((200..256).contains(&queued), "{queued}");
        let woken = std::sync::Arc::new(Woken(0.into()));
        let waker = Waker::from(woken.clone());
        let mut cx = core::task::Context::from_waker(&waker);
        assert_eq!(front.poll_transmit(&mut cx, &mut |_| None), Poll::Pending);
        let woken = || woken.0.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(woken(), 0);
        while let Poll::Ready(Ok(_)) = receive(&mut back) {}
        assert_eq!(woken(), 1, "batches were answered, and the last of them woke it");
        assert_eq!(send(&mut front, &[1; 1514]), Poll::Ready(Ok(true)));
    }
}

#[test]
fn a_backend_that_comes_back_is_gone_on_with() {
    let Pair {
        mut front,
        mut back,
        front_hypervisor,
        back_hypervisor,
        mut front_device,
        mut back_device,
        ..
    } = pair(&Spec::full());
    assert_eq!(send(&mut front, &frame(1, 100)), Poll::Ready(Ok(true)));
    assert_eq!(received(&mut back).0, frame(1, 100));

    drop(back_device.disconnect("its domain was killed").expect("rings"));
    let gone = NicError::Disconnected("its domain was killed".into());
    assert_eq!(receive(&mut back), Poll::Ready(Err(gone.clone())));
    assert_eq!(send(&mut back, &[1; 60]), Poll::Ready(Err(gone)));
    drop(front_device.disconnect().expect("rings"));
    assert_eq!(front_hypervisor.counters().grants_waiting, 0);
    assert_eq!(send(&mut front, &[1; 60]), Poll::Pending, "it waits");
    assert_eq!(receive(&mut front), Poll::Pending);

    let rings = front_rings(&front_hypervisor, &front_device, false);
    let mut back = back_device.connect(attach(&back_hypervisor, &rings), Spec::full().asked);
    let again = front_device.connect(rings, Spec::full().settings);
    assert!(matches!(again, Ok(None)), "the interface is the one that there was");
    let announced = received(&mut back).0;
    assert_eq!((&announced[..6], &announced[12..14]), (&[0xff; 6][..], &[0x80, 0x35][..]));
    assert_eq!(send(&mut front, &frame(2, 100)), Poll::Ready(Ok(true)));
    assert_eq!(received(&mut back).0, frame(2, 100));
    assert_eq!(send(&mut back, &frame(3, 100)), Poll::Ready(Ok(true)));
    assert_eq!(received(&mut front).0, frame(3, 100));
    assert_eq!(counted(&front.counters(), "connections"), 2);
}

#[test]
fn a_backend_that_comes_back_with_less_ends_the_interface() {
    let Pair { mut front, front_hypervisor, mut front_device, .. } = pair(&Spec::full());
    front_device.disconnect();
    let rings = front_rings(&front_hypervisor, &front_device, false);
    let refused = front_device.connect(rings, Spec::plain().settings).unwrap_err();
    assert!(refused.contains("came back with"), "{refused}");
    assert_eq!(receive(&mut front), Poll::Ready(Err(NicError::Disconnected(refused))));
}

#[test]
fn everything_is_given_back() {
    let Pair { front, back, front_hypervisor, back_hypervisor, front_device, back_device, .. } =
        pair(&Spec::full());
    drop((back, back_device, front, front_device));
    let counters = front_hypervisor.counters();
    assert_eq!(counters.grants_made, counters.grants_revoked);
    assert_eq!(counters.grants_waiting, 0);
    let counters = back_hypervisor.counters();
    assert_eq!(counters.maps, counters.unmaps);
}
