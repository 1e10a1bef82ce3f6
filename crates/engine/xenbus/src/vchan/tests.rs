use super::*;
use crate::ring::simulation::SharedMemory;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::string::ToString;
use std::vec;

type End = Endpoint<SharedMemory, SharedMemory>;

struct Pair {
    interface: SharedMemory,
    server: End,
    client: End,
}

fn pair(left: u16, right: u16) -> Pair {
    let orders = Orders::new(left, right).unwrap();
    let interface = SharedMemory::new(PAGE_BYTES);
    let (left_pages, right_pages) = orders.pages();
    let grants = |pages, first| (0..pages as u32).map(|at| first + at).collect::<Vec<_>>();
    format(&interface, orders, &grants(left_pages, 100), &grants(right_pages, 1000));
    let ring = |pages: usize| (pages > 0).then(|| SharedMemory::new(pages * PAGE_BYTES));
    let (left, right) = (ring(left_pages), ring(right_pages));
    let server =
        Endpoint::new(Side::Server, orders, interface.clone(), left.clone(), right.clone());
    assert!(!server.has_met());
    let described = Description::read(&interface).unwrap();
    assert_eq!(described.left, grants(left_pages, 100));
    assert_eq!(described.right, grants(right_pages, 1000));
    let client = Endpoint::new(Side::Client, described.orders, interface.clone(), left, right);
    assert!(server.has_met() && !server.is_peer_gone());
    Pair { interface, server, client }
}

fn bytes(progress: Result<Progress, VchanError>) -> (usize, bool) {
    match progress {
        Ok(Progress::Bytes { count, notify }) => (count, notify),
        other => panic!("{other:?}"),
    }
}

/// Against `struct vchan_interface`, byte by byte.
#[test]
fn an_interface_lies_as_in_the_header() {
    let interface = SharedMemory::new(PAGE_BYTES);
    format(&interface, Orders::new(10, 13).unwrap(), &[], &[0x0403_0201, 0x0807_0605]);
    let mut page = vec![0; PAGE_BYTES];
    interface.copy_out(0, &mut page);
    let mut expected = vec![0; 16];
    expected.extend([10, 0, 13, 0, 2, 1, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expected.resize(PAGE_BYTES, 0);
    assert_eq!(page, expected);
}

#[test]
fn small_rings_lie_in_the_interface_and_large_ones_do_not() {
    for (left, right) in [(10, 11), (11, 10), (10, 12), (12, 11), (12, 12), (14, 20)] {
        let mut ends = pair(left, right);
        let data = vec![0x11; 3000];
        let (count, notify) = bytes(ends.client.write(&data));
        assert_eq!(count, 3000.min(1 << left));
        assert!(notify, "the server has been waiting from the beginning");
        let (count, _) = bytes(ends.server.write(&[0x22; 3000]));
        assert_eq!(count, 3000.min(1 << right));
        let mut read = vec![0; 3000];
        let (count, _) = bytes(ends.server.read(&mut read));
        assert_eq!(read[..count], data[..count], "neither ring overlaps the other or the header");
        let (count, _) = bytes(ends.client.read(&mut read));
        assert!(read[..count].iter().all(|byte| *byte == 0x22));
        assert_eq!(
            Description::read(&ends.interface).unwrap().orders.bytes(),
            (1 << left, 1 << right)
        );
    }
}

#[test]
fn impossible_orders_are_refused() {
    let impossible = [(10, 10), (11, 11), (9, 12), (12, 0), (21, 12), (12, 21), (u16::MAX, 12)];
    for (left, right) in impossible {
        let interface = SharedMemory::new(PAGE_BYTES);
        interface.store_u16(LEFT_ORDER, left);
        interface.store_u16(RIGHT_ORDER, right);
        let error = Description::read(&interface).expect_err("impossible");
        assert_eq!(error, VchanError::Orders { left, right });
        assert!(error.to_string().starts_with("the vchan server"));
    }
}

#[test]
fn rings_are_chosen_for_what_is_to_find_room() {
    assert_eq!(Orders::for_bytes(0, 0), Orders { left: 10, right: 12 });
    assert_eq!(Orders::for_bytes(1025, 1024), Orders { left: 11, right: 10 });
    assert_eq!(Orders::for_bytes(65536, 65537), Orders { left: 16, right: 17 });
    assert_eq!(Orders::for_bytes(usize::MAX, 1 << 20), Orders { left: 20, right: 20 });
    let largest = Orders::for_bytes(usize::MAX, usize::MAX).pages();
    assert!(GRANTS + 4 * (largest.0 + largest.1) <= PAGE_BYTES, "the grants fit");
}

#[test]
fn who_does_not_wait_is_not_notified() {
    let mut ends = pair(12, 12);
    assert!(bytes(ends.client.write(b"one")).1, "the server waits");
    assert!(!bytes(ends.client.write(b"two")).1, "it was notified");
    let mut read = [0; 10];
    assert_eq!(bytes(ends.server.read(&mut read)), (6, false), "nobody waits for room");
    assert!(!bytes(ends.client.write(b"three")).1, "the server has not asked");
    assert_eq!(bytes(ends.server.read(&mut read)), (5, false));
    assert_eq!(ends.server.read(&mut read), Ok(Progress::Wait));
    assert!(bytes(ends.client.write(b"four")).1, "now it has");
}

#[test]
fn a_writer_that_waits_is_woken_when_half_of_the_ring_is_free() {
    let mut ends = pair(12, 12);
    assert_eq!(bytes(ends.client.write(&[1; 5000])).0, 4096);
    assert_eq!(ends.client.write(&[1; 904]), Ok(Progress::Wait));
    let mut read = [0; 2000];
    assert_eq!(bytes(ends.server.read(&mut read)), (2000, false));
    assert_eq!(bytes(ends.server.read(&mut read[..48])), (48, true));
    assert_eq!(bytes(ends.server.read(&mut read[..1])), (1, false), "once");
    assert_eq!(bytes(ends.client.write(&[1; 904])).0, 904);
}

#[test]
fn what_was_written_before_leaving_is_read() {
    let mut ends = pair(12, 12);
    ends.server.write(b"last words").unwrap();
    ends.server.leave();
    assert!(ends.client.is_peer_gone());
    let mut read = [0; 4];
    assert_eq!(bytes(ends.client.read(&mut read)).0, 4);
    assert_eq!(ends.client.write(b"?"), Ok(Progress::Gone));
    let mut read = [0; 100];
    assert_eq!(bytes(ends.client.read(&mut read)).0, 6);
    assert_eq!(ends.client.read(&mut read), Ok(Progress::Gone));
    assert_eq!(ends.client.read(&mut read), Ok(Progress::Gone));
}

#[test]
fn a_lying_end_is_named() {
    let mut ends = pair(12, 12);
    ends.interface.store_u32(LEFT.0, 5000);
    let error = ends.server.read(&mut [0; 10]).expect_err("more than the ring holds");
    assert!(error.to_string().starts_with("the vchan client broke"), "{error}");
    ends.interface.store_u32(LEFT.1, 1);
    let error = ends.client.write(&[0; 5000]).expect_err("read what was not written");
    assert!(error.to_string().starts_with("the vchan server broke"), "{error}");
}

proptest! {
    /// Two ends that sleep when they are told to, and are woken when the other is told to notify:
    /// everything arrives in order, and they never both sleep with work to do.
    #[test]
    fn everything_arrives_and_nobody_sleeps_for_ever(
        order in 10_u16..14,
        total in 1_usize..60_000,
        steps in prop::collection::vec((any::<bool>(), 1_usize..3000), 1..60),
    ) {
        let mut ends = pair(order, 12);
        let (mut sent, mut received) = (0_usize, 0_usize);
        let (mut reader_sleeps, mut writer_sleeps) = (false, false);
        let mut steps = steps.iter().cycle();
        let mut expected = VecDeque::new();
        while received < total {
            prop_assert!(!(reader_sleeps && (writer_sleeps || sent == total)), "both sleep");
            let (write, count) = *steps.next().unwrap();
            if write && !writer_sleeps && sent < total {
                let data: Vec<u8> =
                    (sent..total.min(sent + count)).map(|at| (at * 7) as u8).collect();
                match ends.client.write(&data).unwrap() {
                    Progress::Bytes { count, notify } => {
                        sent += count;
                        expected.extend(&data[..count]);
                        reader_sleeps &= !notify;
                    }
                    Progress::Wait => writer_sleeps = true,
                    Progress::Gone => prop_assert!(false),
                }
            } else if !reader_sleeps {
                let mut data = vec![0; count];
                match ends.server.read(&mut data).unwrap() {
                    Progress::Bytes { count, notify } => {
                        received += count;
                        let wanted: Vec<u8> = expected.drain(..count).collect();
                        prop_assert_eq!(&data[..count], &wanted[..]);
                        writer_sleeps &= !notify;
                    }
                    Progress::Wait => reader_sleeps = true,
                    Progress::Gone => prop_assert!(false),
                }
            } else if !writer_sleeps && sent < total {
                // The step was for the sleeper; the other one's turn comes.
                let data: Vec<u8> = (sent..=sent).map(|at| (at * 7) as u8).collect();
                if let Progress::Bytes { count, notify } = ends.client.write(&data).unwrap() {
                    sent += count;
                    expected.extend(&data[..count]);
                    reader_sleeps &= !notify;
                } else {
                    writer_sleeps = true;
                }
            }
        }
    }

    /// An interface full of anything: an end over it never panics and never reads more than it may.
    #[test]
    fn arbitrary_interfaces_do_no_harm(
        words in prop::collection::vec((0_usize..64, any::<u32>()), 0..40),
        side in prop::sample::select(&[Side::Client, Side::Server][..]),
    ) {
        let orders = Orders::new(10, 12).unwrap();
        let interface = SharedMemory::new(PAGE_BYTES);
        format(&interface, orders, &[], &[1]);
        let right = SharedMemory::new(PAGE_BYTES);
        let mut end: End = Endpoint::new(side, orders, interface.clone(), None, Some(right));
        for (at, word) in words {
            interface.store_u32(at % 8 * 4, word);
            let mut into = vec![0; word as usize % 9000];
            if let Ok(Progress::Bytes { count, .. }) = end.read(&mut into) {
                prop_assert!(count <= 4096);
            }
            if let Ok(Progress::Bytes { count, .. }) = end.write(&into) {
                prop_assert!(count <= 4096);
            }
            let _ = Description::read(&interface);
            let _ = end.has_met();
        }
    }
}
