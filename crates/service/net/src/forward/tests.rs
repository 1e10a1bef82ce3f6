//! Forwarders between interfaces of every ability, and frames that need some.

use super::*;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::Waker;
use fata_device::{
    Checksum, IpFamily, MacAddress, Offloads, PartialChecksum, Received, Segmentation, Transmit,
};
use std::collections::VecDeque;
use std::sync::Mutex;

/// What an interface received and sent, seen from outside.
#[derive(Default)]
struct Wire {
    arriving: VecDeque<(Vec<u8>, Received)>,
    sent: Vec<(Vec<u8>, Transmit)>,
    /// Frames that the device takes before it is full.
    room: usize,
    unflushed: usize,
    broken: Option<NicError>,
}

struct TestNic {
    wire: Arc<Mutex<Wire>>,
    offloads: Offloads,
    mtu: usize,
}

fn nic(offloads: Offloads) -> (TestNic, Arc<Mutex<Wire>>) {
    let wire = Arc::new(Mutex::new(Wire { room: 1000, ..Wire::default() }));
    (TestNic { wire: Arc::clone(&wire), offloads, mtu: 1500 }, wire)
}

const NONE: Offloads = Offloads {
    transmit_checksum: false,
    transmit_checksum_ipv6: false,
    segmentation_ipv4: false,
    segmentation_ipv6: false,
    segmented_frame_bytes_max: 0,
};
const SUMS: Offloads = Offloads { transmit_checksum: true, transmit_checksum_ipv6: true, ..NONE };
const ALL: Offloads = Offloads {
    segmentation_ipv4: true,
    segmentation_ipv6: true,
    segmented_frame_bytes_max: FRAME_BYTES_MAX,
    ..SUMS
};

impl Nic for TestNic {
    fn mac(&self) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, 1])
    }
    fn mtu(&self) -> usize {
        self.mtu
    }
    fn offloads(&self) -> Offloads {
        self.offloads
    }
    fn poll_receive(
        &mut self,
        _: &mut Context<'_>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Poll<Result<(), NicError>> {
        let mut wire = self.wire.lock().unwrap();
        if let Some(error) = &wire.broken {
            return Poll::Ready(Err(error.clone()));
        }
        let Some((mut frame, said)) = wire.arriving.pop_front() else { return Poll::Pending };
        drop(wire);
        consume(&mut frame, said);
        Poll::Ready(Ok(()))
    }
    fn poll_transmit(
        &mut self,
        _: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, NicError>> {
        let mut wire = self.wire.lock().unwrap();
        if wire.room == 0 {
            return Poll::Pending;
        }
        let mut buffer = vec![0; (14 + self.mtu).max(self.offloads.segmented_frame_bytes_max)];
        let Some(transmit) = fill(&mut buffer) else { return Poll::Ready(Ok(false)) };
        assert!(transmit.partial_checksum.is_none() || self.offloads.transmit_checksum);
        assert!(transmit.segmentation.is_none() || self.offloads.segmentation_ipv4);
        assert!(transmit.len <= 14 + self.mtu || transmit.segmentation.is_some());
        buffer.truncate(transmit.len);
        wire.sent.push((buffer, transmit));
        wire.room -= 1;
        wire.unflushed += 1;
        Poll::Ready(Ok(true))
    }
    fn flush(&mut self) -> Result<(), NicError> {
        self.wire.lock().unwrap().unflushed = 0;
        Ok(())
    }
}

/// Lets the forwarder run until it has nothing to do.
fn run(forwarder: &mut Forwarder) -> Poll<ForwardError> {
    struct Flag(AtomicU64);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let flag = Arc::new(Flag(AtomicU64::new(1)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut polled = Poll::Pending;
    while polled.is_pending() && flag.0.swap(0, Ordering::Relaxed) > 0 {
        polled = Pin::new(&mut *forwarder).poll(&mut Context::from_waker(&waker));
    }
    polled
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn word_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// TCP over IPv4 or IPv6 with so much payload and a blank checksum.
fn tcp(family: IpFamily, payload: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let len = 20 + payload as u16;
    match family {
        IpFamily::V4 => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + len).to_be_bytes());
            frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            let sum = !word_sum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        IpFamily::V6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([6, 64]);
            frame.extend([0xfd; 16]);
            frame.extend([0xfe; 16]);
        }
    }
    frame.extend([0, 80, 0x80, 0, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x18, 1, 0, 0xab, 0xcd, 0, 0]);
    frame.extend((0..payload).map(|at| (at / 3) as u8));
    frame
}

/// Verifies a frame's TCP checksum, after doing what its transmitter was asked to; returns its
/// payload.
fn payload(family: IpFamily, (mut frame, transmit): (Vec<u8>, Transmit)) -> Vec<u8> {
    let start = if family == IpFamily::V4 { 34 } else { 54 };
    if let Some(PartialChecksum { start: at, offset }) = transmit.partial_checksum {
        assert_eq!((at, offset), (start as u16, 16));
        let sum = !word_sum(&frame[start..]);
        frame[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
    }
    let mut summed = match family {
        IpFamily::V4 => frame[26..34].to_vec(),
        IpFamily::V6 => frame[22..54].to_vec(),
    };
    summed.extend(((frame.len() - start) as u32).to_be_bytes());
    summed.extend([0, 6]);
    summed.extend(&frame[start..]);
    assert_eq!(word_sum(&summed), 0xffff, "the checksum");
    frame.split_off(start + 20)
}

const BLANK: Received = Received { checksum: Checksum::Blank, segmentation: None };

fn large(family: IpFamily) -> Received {
    Received { segmentation: Some(Segmentation { family, mss: 1000 }), ..BLANK }
}

#[test]
fn frames_go_both_ways_in_order_and_are_flushed() {
    let ((left, left_wire), (right, right_wire)) = (nic(NONE), nic(NONE));
    let mut forwarder = Forwarder::new(left, right);
    let frames: Vec<Vec<u8>> = (0..200).map(|n| vec![n as u8; 14 + 7 * n]).collect();
    for frame in &frames {
        left_wire.lock().unwrap().arriving.push_back((frame.clone(), Received::UNVERIFIED));
        right_wire.lock().unwrap().arriving.push_back((frame.clone(), Received::UNVERIFIED));
    }
    assert!(run(&mut forwarder).is_pending());
    for wire in [left_wire, right_wire] {
        let wire = wire.lock().unwrap();
        let sent: Vec<Vec<u8>> = wire.sent.iter().map(|(frame, _)| frame.clone()).collect();
        assert_eq!(sent, frames);
        assert!(
            wire.sent.iter().all(|(frame, transmit)| *transmit == Transmit::complete(frame.len()))
        );
        assert_eq!(wire.unflushed, 0);
    }
    let [left, right] = forwarder.counters();
    assert_eq!((count(&left.frames_in), count(&right.frames_out)), (200, 200));
    assert_eq!(count(&left.bytes_in), count(&right.bytes_out));
}

/// A way out that is full stops its way in, and only that; nothing is dropped.
#[test]
fn a_full_way_out_stops_the_reading() {
    let ((left, left_wire), (right, right_wire)) = (nic(NONE), nic(NONE));
    let mut forwarder = Forwarder::new(left, right);
    right_wire.lock().unwrap().room = 3;
    for number in 0..20u8 {
        let frame = (vec![number; 60], Received::UNVERIFIED);
        left_wire.lock().unwrap().arriving.push_back(frame.clone());
        right_wire.lock().unwrap().arriving.push_back(frame);
    }
    assert!(run(&mut forwarder).is_pending());
    assert_eq!(left_wire.lock().unwrap().arriving.len(), 16, "three sent, and one waits");
    assert_eq!(left_wire.lock().unwrap().sent.len(), 20, "the other direction goes on");
    for _ in 0..17 {
        right_wire.lock().unwrap().room = 1;
        assert!(run(&mut forwarder).is_pending());
    }
    let sent: Vec<u8> = right_wire.lock().unwrap().sent.iter().map(|(frame, _)| frame[0]).collect();
    assert_eq!(sent, (0..20).collect::<Vec<u8>>());
    let [_, right] = forwarder.counters();
    assert_eq!(count(&right.dropped_backlog), 0);
    assert!(count(&right.waited) > 0);
}

#[test]
fn large_frames_leave_as_the_way_out_can() {
    for family in [IpFamily::V4, IpFamily::V6] {
        for (offloads, frames) in [(NONE, 20), (SUMS, 20), (ALL, 1)] {
            let ((left, left_wire), (right, right_wire)) = (nic(NONE), nic(offloads));
            let mut forwarder = Forwarder::new(left, right);
            let frame = tcp(family, 19_500);
            let expected = frame[frame.len() - 19_500..].to_vec();
            for _ in 0..2 {
                left_wire.lock().unwrap().arriving.push_back((frame.clone(), large(family)));
            }
            // Full in the middle of it.
            right_wire.lock().unwrap().room = 7;
            assert!(run(&mut forwarder).is_pending());
            right_wire.lock().unwrap().room = 1000;
            assert!(run(&mut forwarder).is_pending());
            let sent = core::mem::take(&mut right_wire.lock().unwrap().sent);
            assert_eq!(sent.len(), 2 * frames, "{offloads:?}");
            let is_left = offloads.transmit_checksum;
            assert!(
                sent.iter().all(|(_, transmit)| transmit.partial_checksum.is_some() == is_left)
            );
            let joined: Vec<u8> =
                sent.into_iter().flat_map(|frame| payload(family, frame)).collect();
            assert!(joined == [&expected[..], &expected].concat());
            let [_, counters] = forwarder.counters();
            assert_eq!(count(&counters.cut), if frames > 1 { 2 } else { 0 });
            assert_eq!(count(&counters.large_out), if frames > 1 { 0 } else { 2 });
        }
    }
}

#[test]
fn blank_checksums_are_finished_here_or_left_to_the_way_out() {
    for family in [IpFamily::V4, IpFamily::V6] {
        for offloads in [NONE, SUMS, ALL] {
            let ((left, left_wire), (right, right_wire)) = (nic(NONE), nic(offloads));
            let mut forwarder = Forwarder::new(left, right);
            let mut frame = tcp(family, 100);
            left_wire.lock().unwrap().arriving.push_back((frame.clone(), BLANK));
            // A large frame that is one segment is none.
            left_wire.lock().unwrap().arriving.push_back((frame.clone(), large(family)));
            // One that is not blank is left alone.
            frame.push(0);
            left_wire.lock().unwrap().arriving.push_back((frame.clone(), Received::UNVERIFIED));
            assert!(run(&mut forwarder).is_pending());
            let mut sent = core::mem::take(&mut right_wire.lock().unwrap().sent);
            assert_eq!(sent.pop(), Some((frame.clone(), Transmit::complete(frame.len()))));
            assert_eq!(sent.len(), 2);
            for sent in sent {
                assert_eq!(sent.1.segmentation, None);
                assert_eq!(payload(family, sent), &frame[frame.len() - 101..frame.len() - 1]);
            }
            let [_, counters] = forwarder.counters();
            let finished = if offloads.transmit_checksum { 0 } else { 2 };
            assert_eq!(count(&counters.checksums_finished), finished);
        }
    }
}

#[test]
fn frames_that_cannot_leave_are_dropped_for_a_reason() {
    let ((left, left_wire), (right, right_wire)) = (nic(NONE), nic(ALL));
    let mut forwarder = Forwarder::new(left, right);
    let v4 = IpFamily::V4;
    let with_mss = |mss| Received { segmentation: Some(Segmentation { family: v4, mss }), ..BLANK };
    for (frame, said) in [
        (vec![1; 13], Received::UNVERIFIED),
        (tcp(v4, 5000), large(IpFamily::V6)),
        (tcp(v4, 5000), with_mss(0)),
        (vec![1; 100], BLANK),
        // Too long: as it is, and in segments that are.
        (vec![1; 1515], Received::UNVERIFIED),
        (tcp(v4, 5000), with_mss(1461)),
        (vec![2; 1514], Received::UNVERIFIED),
    ] {
        left_wire.lock().unwrap().arriving.push_back((frame, said));
    }
    assert!(run(&mut forwarder).is_pending());
    assert_eq!(right_wire.lock().unwrap().sent.len(), 1);
    let [_, counters] = forwarder.counters();
    assert_eq!(count(&counters.dropped_malformed), 4);
    assert_eq!(count(&counters.dropped_too_long), 2);
}

#[test]
fn the_interface_that_fails_is_named() {
    let ((left, _), (right, right_wire)) = (nic(NONE), nic(NONE));
    let mut forwarder = Forwarder::new(left, right);
    assert!(run(&mut forwarder).is_pending());
    let error = NicError::Disconnected("pulled out".into());
    right_wire.lock().unwrap().broken = Some(error.clone());
    assert_eq!(run(&mut forwarder), Poll::Ready(ForwardError { port: 1, error }));
}
