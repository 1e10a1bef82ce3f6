//! Netfront against a backend that lies.

use super::super::pair::*;
use super::*;
use crate::memory::Shared;
use core::task::Waker;
use fata_hypercall::simulation::World;
use fata_hypercall::{Access, Hypervisor, Mapped};
use fata_xenbus::Memory;
use fata_xenbus::ring::core::BackRing;
use fata_xenbus::ring::net::{
    Extra, ExtraInfo, RX_SLOT_BYTES, RxRequest, RxResponse, TX_SLOT_BYTES, TxRequest, TxResponse,
    rx_flags, status,
};
use proptest::prelude::*;

/// A netfront, and what a backend has of it.
struct Lied {
    front: Netfront,
    device: FrontDevice,
    hypervisor: Hypervisor,
    transmit: BackRing<Shared<Mapped>, TX_SLOT_BYTES>,
    receive: BackRing<Shared<Mapped>, RX_SLOT_BYTES>,
    /// The pages of the rings once more, to write into where nobody should.
    pages: [Shared<Mapped>; 2],
    backend: Hypervisor,
}

fn lied() -> Lied {
    let world = World::new();
    let (hypervisor, backend) = (world.domain(FRONT), world.domain(BACK));
    let spec = Spec::full();
    let mut device = FrontDevice::new(spec.front);
    let rings = front_rings(&hypervisor, &device, false);
    let (tx, rx) = rings.refs();
    let map = |grant| Shared(backend.map(FRONT, &[grant], Access::ReadWrite).unwrap());
    let (transmit, receive) = (BackRing::attach(map(tx)), BackRing::attach(map(rx)));
    let pages = [map(tx), map(rx)];
    let front = device.connect(rings, spec.settings).unwrap().unwrap();
    Lied { front, device, hypervisor, transmit, receive, pages, backend }
}

impl Lied {
    fn request(&mut self) -> RxRequest {
        RxRequest::decode(&self.receive.take().unwrap().expect("a page is lent"))
    }

    /// Fills the page of the next request and answers with it.
    fn give(&mut self, bytes: usize, flags: u16) {
        let request = self.request();
        let page = fata_hypercall::GrantRef(request.gref);
        let mapped = self.backend.map(FRONT, &[page], Access::ReadWrite).unwrap();
        Shared(mapped).copy_in(0, &frame(1, 4096));
        let response = RxResponse { id: request.id, offset: 0, flags, status: bytes as i16 };
        self.receive.push(&response.encode());
        self.receive.publish();
    }

    /// The lie was caught: every call fails with the same words, the handshake hears of it, and all
    /// grants are taken back.
    fn must_be_closed(mut self, words: &str) {
        let told = match receive(&mut self.front) {
            Poll::Ready(Err(NicError::Misbehaved(rule))) => rule,
            // It lies where only a sender looks.
            Poll::Pending => {
                let mut sent = Poll::Ready(Ok(true));
                while sent == Poll::Ready(Ok(true)) {
                    sent = send(&mut self.front, &[1; 60]);
                }
                match sent {
                    Poll::Ready(Err(NicError::Misbehaved(rule))) => rule,
                    other => panic!("{words:?} was not caught: {other:?}"),
                }
            }
            other => panic!("{words:?} was not caught: {other:?}"),
        };
        assert!(told.contains(words), "{told:?} does not say {words:?}");
        assert!(told.contains("backend"), "{told:?} names nobody");
        let error = NicError::Misbehaved(told.clone());
        assert_eq!(receive(&mut self.front), Poll::Ready(Err(error.clone())), "final");
        assert_eq!(send(&mut self.front, &[1; 60]), Poll::Ready(Err(error.clone())));
        assert_eq!(self.front.flush(), Err(error));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(self.device.poll_event(&mut cx), Poll::Ready(DeviceEvent::Fault(told)));
        assert!(self.device.disconnect().is_none());
        drop(self.front);
        assert_eq!(self.device.poll_event(&mut cx), Poll::Pending, "it has ended already");
        // The rings are still mapped here; they are kept until they are not.
        assert_eq!(self.hypervisor.counters().grants_waiting, 2);
        drop((self.transmit, self.receive, self.pages));
        let _ = self.hypervisor.grant(BACK, 1, Access::ReadOnly);
        let counters = self.hypervisor.counters();
        assert_eq!(counters.grants_waiting, 0);
        assert_eq!(counters.grants_made, counters.grants_revoked);
    }
}

#[test]
fn an_honest_backend_is_believed() {
    let mut lied = lied();
    lied.give(1514, rx_flags::DATA_VALIDATED);
    let (got, said) = received(&mut lied.front);
    assert_eq!(got, frame(1, 4096)[..1514]);
    assert_eq!(said.checksum, fata_device::Checksum::Verified);
    assert_eq!(send(&mut lied.front, &frame(2, 60)), Poll::Ready(Ok(true)));
    let request = TxRequest::decode(&lied.transmit.take().unwrap().unwrap());
    assert_eq!((request.size, request.flags), (60, 0));
}

#[test]
fn wild_indices_close_the_interface() {
    for wild in [257u32, 1 << 31, u32::MAX] {
        let lied = lied();
        lied.pages[1].store_u32(8, wild);
        lied.must_be_closed("rsp_prod");
    }
    let lied = lied();
    lied.pages[0].store_u32(8, 300);
    lied.must_be_closed("rsp_prod is 300");
}

#[test]
fn lies_about_received_packets_close_the_interface() {
    let answered = |change: &dyn Fn(&mut RxResponse)| {
        let mut lied = lied();
        let request = lied.request();
        let mut response = RxResponse { id: request.id, offset: 0, flags: 0, status: 60 };
        change(&mut response);
        lied.receive.push(&response.encode());
        lied.receive.publish();
        lied
    };
    answered(&|response| response.id = 1)
        .must_be_closed("has the id 1, and the request in its slot 0");
    answered(&|response| response.offset = 4096).must_be_closed("60 bytes at 4096");
    answered(&|response| response.status = 4097).must_be_closed("4097 bytes at 0");
    answered(&|response| response.offset = u16::MAX).must_be_closed("at 65535");
    answered(&|response| response.flags = rx_flags::GSO_PREFIX).must_be_closed("GSO prefix");

    let mut endless = lied();
    for _ in 0..65 {
        endless.give(0, rx_flags::MORE_DATA);
    }
    endless.must_be_closed("more than 64 responses");
    let mut extras = lied();
    extras.give(60, rx_flags::EXTRA_INFO);
    for _ in 0..6 {
        extras.request();
        extras.receive.push(&Extra { info: ExtraInfo::Hash, more: true }.encode());
    }
    extras.receive.publish();
    extras.must_be_closed("more than 5 extras");
}

#[test]
fn lies_about_transmitted_packets_close_the_interface() {
    let answered = |responses: &[TxResponse]| {
        let mut lied = lied();
        for response in responses {
            assert_eq!(send(&mut lied.front, &[1; 60]), Poll::Ready(Ok(true)));
            lied.transmit.take::<TX_SLOT_BYTES>().unwrap().unwrap();
            lied.transmit.push(&response.encode());
        }
        lied.transmit.publish();
        lied
    };
    let to = |id| TxResponse { id, status: status::OKAY };
    answered(&[to(0), to(0)]).must_be_closed("transmit request 0, which is not outstanding");
    answered(&[to(999)]).must_be_closed("transmit request 999");
    answered(&[TxResponse { id: 0, status: status::NULL }]).must_be_closed("extra information");
}

#[test]
fn packets_that_are_not_fit_for_use_are_counted_and_passed_over() {
    let mut lied = lied();
    lied.give(13, 0);
    lied.give(1515, 0);
    lied.give(0, rx_flags::MORE_DATA);
    lied.give(0, 0);
    let request = lied.request();
    let failed = RxResponse { id: request.id, status: status::ERROR, ..RxResponse::default() };
    lied.receive.push(&failed.encode());
    lied.give(1514, 0);
    assert_eq!(received(&mut lied.front).0.len(), 1514);
    assert_eq!(counted(&lied.front.counters(), "receive_unfit"), 4);
    assert_eq!(receive(&mut lied.front), Poll::Pending);
}

/// A packet may arrive in parts: what is missing is waited for.
#[test]
fn a_packet_in_parts_is_put_together() {
    let mut lied = lied();
    lied.give(1000, rx_flags::MORE_DATA);
    assert_eq!(receive(&mut lied.front), Poll::Pending);
    lied.give(400, 0);
    let (got, _) = received(&mut lied.front);
    let page = frame(1, 4096);
    assert_eq!(got, [&page[..1000], &page[..400]].concat());
}

#[test]
fn packets_that_the_backend_refused_are_counted() {
    let mut lied = lied();
    // Until the sender looks for answers.
    for _ in 0..300 {
        assert_eq!(send(&mut lied.front, &[1; 60]), Poll::Ready(Ok(true)));
        let request = TxRequest::decode(&lied.transmit.take().unwrap().unwrap());
        let response = TxResponse { id: request.id, status: status::ERROR };
        lied.transmit.push(&response.encode());
        lied.transmit.publish();
    }
    assert!(counted(&lied.front.counters(), "transmit_failed") > 200);
}

#[test]
fn a_flood_of_unfit_packets_does_not_keep_the_task() {
    let mut lied = lied();
    for _ in 0..256 {
        lied.give(1, 0);
    }
    assert_eq!(receive(&mut lied.front), Poll::Pending);
    assert_eq!(counted(&lied.front.counters(), "receive_unfit"), 256);
}

#[test]
fn an_abandoned_interface_is_heard_of_once() {
    let Lied { front, device, .. } = lied();
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(device.poll_event(&mut cx), Poll::Pending);
    drop(front);
    assert_eq!(device.poll_event(&mut cx), Poll::Ready(DeviceEvent::Close));
    assert_eq!(device.poll_event(&mut cx), Poll::Pending);
    assert!(device.disconnect().is_some(), "what is under way goes on until then");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A backend that writes anything anywhere, at any time, into both rings and all receive pages:
    /// no panic, no hang, and frames of no other length than a frame may have.
    #[test]
    fn any_backend_is_survived(
        steps in prop::collection::vec((0..5u8, 0..1024usize, any::<u32>(), any::<bool>()), 1..120),
    ) {
        let mut lied = lied();
        for (step, at, value, tame) in steps {
            let word = if tame { value % 0x1000 } else { value };
            match step {
                // An index, a little ahead.
                0 => lied.pages[at % 2].store_u32([0, 4, 8, 12][at / 2 % 4], word % 300),
                1 => lied.pages[at % 2].store_u32(64 + at * 4 % 4032, word),
                2 => for _ in 0..at % 8 {
                    if let Ok(Some(request)) = lied.receive.take::<RX_SLOT_BYTES>() {
                        let id = RxRequest::decode(&request).id;
                        let (flags, status) = (word as u16 & 15, (word >> 4) as i16);
                        let response = RxResponse { id, offset: 0, flags, status };
                        lied.receive.push(&response.encode());
                        lied.receive.publish();
                    }
                },
                3 => for _ in 0..at % 8 {
                    if let Ok(Some(request)) = lied.transmit.take::<TX_SLOT_BYTES>() {
                        let id = TxRequest::decode(&request).id;
                        let id = if tame { id } else { word as u16 };
                        lied.transmit.push(&TxResponse { id, status: 0 }.encode());
                        lied.transmit.publish();
                    }
                },
                _ => for _ in 0..at % 40 {
                    if send(&mut lied.front, &[1; 200]) != Poll::Ready(Ok(true)) {
                        break;
                    }
                },
            }
            for _ in 0..300 {
                match receive(&mut lied.front) {
                    Poll::Ready(Ok((frame, _))) => {
                        prop_assert!((14..=65_535).contains(&frame.len()));
                    }
                    _ => break,
                }
            }
        }
    }
}
