//! Netback against a frontend that lies, stalls or vanishes.

use super::super::pair::*;
use super::*;
use crate::memory::Shared;
use core::task::Waker;
use fata_hypercall::simulation::World;
use fata_hypercall::{Access, EventChannel, Granted, Hypervisor, Window};
use fata_xenbus::ring::core::FrontRing;
use fata_xenbus::ring::net::{
    Extra, ExtraInfo, Gso, GsoFamily, RX_SLOT_BYTES, RxRequest, RxResponse, TX_SLOT_BYTES,
    TxRequest, TxResponse, status, tx_flags,
};
use proptest::prelude::*;

/// A netback, and a frontend that is written by hand.
struct Lied {
    world: World,
    back: Netback,
    device: BackDevice,
    hypervisor: Hypervisor,
    transmit: FrontRing<Shared<Granted>, TX_SLOT_BYTES>,
    receive: FrontRing<Shared<Granted>, RX_SLOT_BYTES>,
    /// A page to transmit from, and one to receive into.
    pages: Granted,
    _event: EventChannel,
}

fn lied_with(asked: BackSettings) -> Lied {
    let world = World::new();
    let (front, hypervisor) = (world.domain(FRONT), world.domain(BACK));
    let grant = |pages| front.grant(BACK, pages, Access::ReadWrite).unwrap();
    let (tx, rx, pages) = (grant(1), grant(1), grant(2));
    let refs = (tx.refs()[0], rx.refs()[0]);
    let event = front.allocate_unbound(BACK).unwrap();
    let transmit = FrontRing::new(Shared(tx));
    let receive = FrontRing::new(Shared(rx));
    pages.copy_in(0, &frame(1, 4096));
    let rings = BackRings::attach(&hypervisor, FRONT, refs, (event.port(), None)).unwrap();
    let mut device = BackDevice::new(NetbackOptions::default());
    let back = device.connect(rings, asked);
    Lied { world, back, device, hypervisor, transmit, receive, pages, _event: event }
}

fn lied() -> Lied {
    lied_with(Spec::full().asked)
}

impl Lied {
    fn request(&self, size: u16, flags: u16) -> TxRequest {
        TxRequest { gref: self.pages.refs()[0].0, offset: 0, flags, id: 7, size }
    }

    fn push(&mut self, requests: &[TxRequest]) {
        for request in requests {
            self.transmit.push(&request.encode());
        }
        self.transmit.publish();
    }

    fn push_raw(&mut self, slots: &[[u8; TX_SLOT_BYTES]]) {
        slots.iter().for_each(|slot| self.transmit.push(slot));
        self.transmit.publish();
    }

    fn answers(&mut self) -> Vec<(u16, i16)> {
        core::iter::from_fn(|| self.transmit.take().unwrap())
            .map(|(_, answer)| TxResponse::decode(&answer))
            .map(|TxResponse { id, status }| (id, status))
            .collect()
    }

    fn lend(&mut self, count: u16) {
        for id in 0..count {
            self.receive.push(&RxRequest { id, gref: self.pages.refs()[1].0 }.encode());
        }
        self.receive.publish();
    }

    fn must_be_closed(mut self, words: &str) {
        let told = match receive(&mut self.back) {
            Poll::Ready(Err(NicError::Misbehaved(rule))) => rule,
            other => panic!("{words:?} was not caught: {other:?}"),
        };
        assert!(told.contains(words), "{told:?} does not say {words:?}");
        assert!(told.contains("frontend"), "{told:?} names nobody");
        let error = NicError::Misbehaved(told.clone());
        assert_eq!(receive(&mut self.back), Poll::Ready(Err(error.clone())), "final");
        assert_eq!(send(&mut self.back, &[1; 60]), Poll::Ready(Err(error)));
        let counters = self.hypervisor.counters();
        assert_eq!(counters.maps, counters.unmaps, "nothing of it is mapped any more");
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(self.device.poll_event(&mut cx), Poll::Ready(DeviceEvent::Fault(told)));
        drop(self.back);
        // Its end is no wish to close the device: the frontend may come again.
        assert_eq!(self.device.poll_event(&mut cx), Poll::Pending);
        assert!(self.device.disconnect("over").is_none());
    }
}

use tx_flags::{CSUM_BLANK, EXTRA_INFO, MORE_DATA};

#[test]
fn an_honest_frontend_is_believed() {
    let mut lied = lied();
    let request = lied.request(1514, CSUM_BLANK);
    lied.push(&[request]);
    let (got, said) = received(&mut lied.back);
    assert_eq!(got, frame(1, 4096)[..1514]);
    assert_eq!(said.checksum, fata_device::Checksum::Blank);
    assert_eq!(lied.answers(), [(7, status::OKAY)]);
    lied.lend(20);
    assert_eq!(send(&mut lied.back, &frame(2, 100)), Poll::Ready(Ok(true)));
    let (_, response) = lied.receive.take().unwrap().unwrap();
    let expected = RxResponse { id: 0, offset: 0, flags: 0, status: 100 };
    assert_eq!(RxResponse::decode(&response), expected);
    let mut got = [0; 101];
    lied.pages.copy_out(4096, &mut got);
    assert_eq!(got[..100], frame(2, 100));
    assert_eq!(got[100], 0, "and nothing else of our memory");
}

#[test]
fn wild_indices_close_the_connection() {
    for wild in [257u32, 1 << 31, u32::MAX] {
        let lied = lied();
        let page = lied.transmit.into_memory();
        fata_xenbus::Memory::store_u32(&page, 0, wild);
        let transmit =
            FrontRing::new(Shared(lied.hypervisor.grant(FRONT, 1, Access::ReadWrite).unwrap()));
        Lied { transmit, ..lied }.must_be_closed("req_prod");
    }
}

#[test]
fn slots_that_nobody_could_go_on_after_close_the_connection() {
    let mut beyond = lied();
    let request = TxRequest { offset: 4000, ..beyond.request(97, 0) };
    beyond.push(&[request]);
    beyond.must_be_closed("97 bytes at 4000");

    let mut endless = lied();
    let request = endless.request(4000, MORE_DATA);
    endless.push(&[request; 21]);
    endless.must_be_closed("more than 20 requests");

    let mut extras = lied();
    let first = extras.request(99, EXTRA_INFO).encode();
    let more = Extra { info: ExtraInfo::Hash, more: true }.encode_tx();
    extras.push_raw(&[[first].as_slice(), &[more; 6]].concat());
    extras.must_be_closed("more than 5 extras");

    let mut unknown = lied();
    let first = unknown.request(99, EXTRA_INFO).encode();
    unknown.push_raw(&[first, [0xff; TX_SLOT_BYTES]]);
    unknown.must_be_closed("unknown type 255");
}

/// A packet that is no good is answered, slot for slot, and what follows it arrives.
#[test]
fn packets_that_are_not_fit_are_answered_and_passed_over() {
    let good = |lied: &Lied| TxRequest { id: 99, ..lied.request(60, 0) }.encode();
    let gso = |more| {
        let info = ExtraInfo::Gso(Gso { family: GsoFamily::TcpV4, size: 1000 });
        Extra { info, more }.encode_tx()
    };
    let error = (7, status::ERROR);
    let null = (0, status::NULL);
    let check = |slots: &dyn Fn(&Lied) -> Vec<[u8; TX_SLOT_BYTES]>, answers: &[(u16, i16)]| {
        let mut lied = lied();
        let slots = [slots(&lied), vec![good(&lied)]].concat();
        lied.push_raw(&slots);
        assert_eq!(received(&mut lied.back).0, frame(1, 60), "the next is not lost");
        assert_eq!(lied.answers(), [answers, &[(99, status::OKAY)]].concat());
        assert_eq!(counted(&lied.back.counters(), "receive_unfit"), 1);
    };
    // Too short; longer than the MTU; parts that are longer than the whole.
    check(&|lied| vec![lied.request(13, 0).encode()], &[error]);
    check(&|lied| vec![lied.request(1515, 0).encode()], &[(7, status::DROPPED)]);
    let longer =
        |lied: &Lied| vec![lied.request(100, MORE_DATA).encode(), lied.request(101, 0).encode()];
    check(&longer, &[error, error]);
    // A grant that is none, and one of somebody else's.
    let bad_grant =
        |gref| move |lied: &Lied| vec![TxRequest { gref, ..lied.request(60, 0) }.encode()];
    check(&bad_grant(9999), &[error]);
    check(&bad_grant(u32::MAX), &[error]);
    // One bad page spoils the packet, and nothing of it is seen.
    let half = |lied: &Lied| {
        let rest = TxRequest { gref: 9999, ..lied.request(100, 0) };
        vec![lied.request(200, MORE_DATA).encode(), rest.encode()]
    };
    check(&half, &[error, error]);
    // Segments without a blank checksum; twice; multicast, which was not offered.
    let unblank = |lied: &Lied| vec![lied.request(60, EXTRA_INFO).encode(), gso(false)];
    check(&unblank, &[error, null]);
    let twice = |lied: &Lied| {
        vec![lied.request(60, EXTRA_INFO | CSUM_BLANK).encode(), gso(true), gso(false)]
    };
    check(&twice, &[error, null, null]);
    let multicast = Extra { info: ExtraInfo::Multicast(true, [1; 6]), more: false }.encode_tx();
    check(&|lied| vec![lied.request(60, EXTRA_INFO).encode(), multicast], &[error, null]);
    let many = |lied: &Lied| {
        let mut slots = vec![lied.request(4000, MORE_DATA).encode()];
        slots.extend([lied.request(10, MORE_DATA).encode(); 17]);
        slots.push(lied.request(10, 0).encode());
        slots
    };
    check(&many, &[error; 19]);
}

#[test]
fn a_packet_in_parts_is_waited_for() {
    let mut lied = lied();
    let (first, second) = (lied.request(1000, MORE_DATA), lied.request(400, 0));
    lied.push(&[first]);
    assert_eq!(receive(&mut lied.back), Poll::Pending);
    assert_eq!(lied.answers(), []);
    lied.push(&[second]);
    let page = frame(1, 4096);
    assert_eq!(received(&mut lied.back).0, [&page[..600], &page[..400]].concat());
    assert_eq!(lied.answers().len(), 2);
}

/// Packets that stay the same length, while their bytes change as they are read.
#[test]
fn what_was_copied_does_not_change_any_more() {
    let mut lied = lied();
    let request = lied.request(60, 0);
    lied.push(&[request; 2]);
    assert_eq!(received(&mut lied.back).0, frame(1, 60));
    lied.pages.copy_in(0, &[0xee; 60]);
    assert_eq!(received(&mut lied.back).0, frame(1, 60), "both were copied at once");
}

#[tokio::test(start_paused = true)]
async fn a_frontend_that_lends_no_pages_is_waited_for_and_then_dropped_for() {
    let mut lied = lied();
    let started = tokio::time::Instant::now();
    let mut cx = Context::from_waker(Waker::noop());
    let mut fill = |_: &mut [u8]| Some(Transmit::complete(60));
    assert_eq!(lied.back.poll_transmit(&mut cx, &mut fill), Poll::Pending);
    let sent = core::future::poll_fn(|cx| lied.back.poll_transmit(cx, &mut fill)).await;
    assert_eq!(sent, Ok(true), "taken");
    assert!(started.elapsed() >= NetbackOptions::default().stall);
    for _ in 0..100 {
        assert_eq!(send(&mut lied.back, &[1; 60]), Poll::Ready(Ok(true)));
    }
    assert_eq!(counted(&lied.back.counters(), "transmit_stalled"), 101, "and dropped");
    let request = lied.request(60, 0);
    lied.push(&[request]);
    assert_eq!(received(&mut lied.back).0, frame(1, 60), "what it sends still arrives");
    // It goes on where it stopped.
    lied.lend(20);
    assert_eq!(send(&mut lied.back, &[1; 60]), Poll::Ready(Ok(true)));
    assert!(lied.receive.take::<8>().unwrap().is_some());
    assert_eq!(counted(&lied.back.counters(), "transmit_stalled"), 101);
    // And is waited for again.
    for _ in 0..3 {
        let _ = send(&mut lied.back, &[1; 60]);
    }
    assert_eq!(send(&mut lied.back, &[1; 60]), Poll::Pending);
}

#[test]
fn pages_that_cannot_be_written_are_reported() {
    let mut lied = lied();
    for id in 0..20 {
        lied.receive.push(&RxRequest { id, gref: 9999 }.encode());
    }
    lied.receive.publish();
    assert_eq!(send(&mut lied.back, &[1; 60]), Poll::Ready(Ok(true)));
    let (_, response) = lied.receive.take().unwrap().unwrap();
    assert_eq!(RxResponse::decode(&response).status, status::ERROR);
    assert_eq!(counted(&lied.back.counters(), "transmit_failed"), 1);
}

#[test]
fn a_domain_that_dies_leaves_nothing_behind() {
    let mut lied = lied();
    let request = lied.request(60, 0);
    lied.push(&[request]);
    lied.lend(40);
    let queued = queue(&mut lied.back, &[1; 60], Transmit::complete(60));
    assert_eq!(queued, Poll::Ready(Ok(true)));
    lied.world.kill(FRONT);
    // Xen refuses the copies; that is all.
    assert_eq!(lied.back.flush(), Ok(()));
    assert_eq!(receive(&mut lied.back), Poll::Pending);
    assert_eq!(counted(&lied.back.counters(), "transmit_failed"), 1);
    drop(lied.device.disconnect("its domain is gone"));
    assert!(matches!(receive(&mut lied.back), Poll::Ready(Err(NicError::Disconnected(_)))));
    let counters = lied.hypervisor.counters();
    assert_eq!(counters.maps, counters.unmaps);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A frontend that writes anything anywhere, at any time, into both rings: no panic, no hang,
    /// and packets of no other length than a packet may have.
    #[test]
    fn any_frontend_is_survived(
        steps in prop::collection::vec((0..6u8, any::<u64>(), any::<u32>(), any::<bool>()), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let mut lied = lied();
        let refs: Vec<u32> = lied.pages.refs().iter().map(|grant| grant.0).collect();
        for (step, at, value, tame) in steps {
            let entry = TxRequest {
                gref: if tame { refs[at as usize % 2] } else { value },
                offset: if tame { 0 } else { (at >> 16) as u16 },
                flags: value as u16 & 15,
                id: (at >> 32) as u16,
                size: (at >> 48) as u16 & if tame { 0x0fff } else { 0xffff },
            };
            match step {
                0..=2 => if lied.transmit.free() > 0 {
                    lied.push(&[entry]);
                },
                3 => if lied.transmit.free() > 0 {
                    let mut slot = entry.encode();
                    slot[..3].copy_from_slice(&[(at % 6) as u8, (at >> 8) as u8 & 1, 9]);
                    lied.push_raw(&[slot]);
                },
                4 => if lied.receive.free() > 0 {
                    lied.receive.push(&RxRequest { id: at as u16, gref: entry.gref }.encode());
                    lied.receive.publish();
                },
                _ => {
                    let _ = queue(&mut lied.back, &[1; 200], Transmit::complete(200));
                    let _ = lied.back.flush();
                }
            }
            for _ in 0..300 {
                match receive(&mut lied.back) {
                    Poll::Ready(Ok((frame, _))) => {
                        prop_assert!((14..=65_535).contains(&frame.len()));
                    }
                    _ => break,
                }
            }
            while let Ok(Some(_)) = lied.transmit.take::<4>() {}
            while let Ok(Some(_)) = lied.receive.take::<8>() {}
        }
    }
}
