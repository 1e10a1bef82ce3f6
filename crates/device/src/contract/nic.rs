//! The contract of [`Nic`], sentence by sentence.

use super::yield_once;
use crate::nic::{Nic, Received, Transmit};
use core::future::poll_fn;
use core::task::Poll;

/// The other end of the wire that a [`Nic`] under test is attached to.
pub trait Wire {
    /// Sends a frame to the interface. If there is no room for it, it may be lost.
    fn send(&mut self, frame: &[u8]);

    /// The next frame that the interface sent and that belongs to the test, if it is there. A wire
    /// that takes real time may wait a little.
    fn receive(&mut self) -> Option<Vec<u8>>;
}

/// How often the other end is looked at before a frame is called lost.
const LOOKS_MAX: usize = 10_000;

/// The EtherType that is set aside for local experiments (IEEE 802): no stack answers to it.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

/// Runs the contract of [`Nic`] on an interface that is attached to `wire`. Both are fresh:
/// nothing was sent or received yet.
///
/// # Panics
/// Naming the sentence, if the interface breaks the contract.
pub async fn nic(nic: &mut impl Nic, wire: &mut impl Wire) {
    what_it_says_of_itself_is_sane_and_constant(nic);
    what_is_sent_arrives(nic, wire).await;
    nothing_to_send_takes_no_buffer(nic, wire).await;
    what_arrives_is_received_once_and_in_order(nic, wire).await;
    a_sleeping_receiver_is_woken(nic, wire).await;
    more_than_all_buffers_go_through(nic, wire).await;
    the_largest_frame_goes_both_ways(nic, wire).await;
    what_it_says_of_itself_is_sane_and_constant(nic);
}

/// A frame to `nic` or from it, of `payload` bytes that begin with a number.
fn frame(nic: &impl Nic, number: u32, payload: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload);
    frame.extend_from_slice(&nic.mac().0);
    frame.extend_from_slice(&[0x02, 0, 0, 0, 0, 0x99]);
    frame.extend_from_slice(&EXPERIMENTAL);
    frame.extend_from_slice(&number.to_be_bytes());
    frame.extend((frame.len()..14 + payload).map(|at| (at as u32 ^ number) as u8));
    frame
}

fn is_ours(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&EXPERIMENTAL)
}

fn what_it_says_of_itself_is_sane_and_constant(nic: &impl Nic) {
    assert!(nic.mac().is_unicast(), "the interface's own address is unicast: {}", nic.mac());
    let mtu = nic.mtu();
    assert!((68..=65_535).contains(&mtu), "the MTU is 68 to 65,535: {mtu}");
    assert_eq!(nic.mtu(), mtu);
    let offloads = nic.offloads();
    assert_eq!(nic.offloads(), offloads, "offloads do not change while the device lives");
    assert!(offloads.segmented_frame_bytes_max <= 14 + 65_535, "no IP packet is longer");
    assert!(
        offloads.segmented_frame_bytes_max > 0
            || !(offloads.segmentation_ipv4 || offloads.segmentation_ipv6),
        "a device that cuts says how long a frame may be"
    );
    assert!(
        (offloads.transmit_checksum || !offloads.segmentation_ipv4)
            && (offloads.transmit_checksum_ipv6 || !offloads.segmentation_ipv6),
        "a frame to be cut has a partial checksum, which the device must take"
    );
}

/// Sends one frame, waiting for a buffer if it must.
async fn transmit(nic: &mut impl Nic, frame: &[u8]) {
    let (mtu, large) = (nic.mtu(), nic.offloads().segmented_frame_bytes_max);
    let sent = poll_fn(|cx| {
        let polled = nic.poll_transmit(cx, &mut |buffer| {
            assert!(buffer.len() >= 14 + mtu, "a buffer has at least 14 + mtu bytes");
            assert!(buffer.len() >= large, "and at least segmented_frame_bytes_max");
            buffer[..frame.len()].copy_from_slice(frame);
            Some(Transmit::complete(frame.len()))
        });
        if polled.is_pending() {
            // The device may not see a frame before the flush; so it cannot give buffers back.
            nic.flush().expect("flush");
        }
        polled
    })
    .await;
    assert_eq!(sent, Ok(true), "the frame was queued");
}

/// The next frame of the test's own that the interface receives.
async fn receive(nic: &mut impl Nic) -> Vec<u8> {
    loop {
        let mut calls = 0;
        let mut got = Vec::new();
        poll_fn(|cx| {
            let polled = nic.poll_receive(cx, &mut |frame, received: Received| {
                calls += 1;
                assert_eq!(received.segmentation, None, "the test sends ordinary frames");
                got = frame.to_vec();
            });
            if polled.is_pending() {
                assert_eq!(calls, 0, "Pending means that consume was not called");
                nic.flush().expect("flush");
            }
            polled
        })
        .await
        .expect("receive");
        assert_eq!(calls, 1, "Ready(Ok(())) means that consume was called once");
        if is_ours(&got) {
            return got;
        }
    }
}

async fn arrives(wire: &mut impl Wire) -> Option<Vec<u8>> {
    for _ in 0..LOOKS_MAX {
        match wire.receive() {
            Some(frame) if is_ours(&frame) => return Some(frame),
            Some(_) => {}
            None => yield_once().await,
        }
    }
    None
}

async fn what_is_sent_arrives(nic: &mut impl Nic, wire: &mut impl Wire) {
    for number in 0..20 {
        let sent = frame(nic, number, 46 + number as usize * 70);
        transmit(nic, &sent).await;
        nic.flush().expect("flush");
        let seen = arrives(wire).await.expect("flush tells the device about all frames queued");
        assert_eq!(seen, sent, "the frame that fill wrote is what is sent");
    }
}

async fn nothing_to_send_takes_no_buffer(nic: &mut impl Nic, wire: &mut impl Wire) {
    for _ in 0..2000 {
        let nothing = poll_fn(|cx| nic.poll_transmit(cx, &mut |_| None)).await;
        assert_eq!(nothing, Ok(false), "fill returned None: the buffer is taken back");
    }
    nic.flush().expect("flush");
    let sent = frame(nic, 77, 100);
    transmit(nic, &sent).await;
    nic.flush().expect("flush");
    assert_eq!(arrives(wire).await, Some(sent), "and nothing was sent for it");
}

async fn what_arrives_is_received_once_and_in_order(nic: &mut impl Nic, wire: &mut impl Wire) {
    for round in 0..50 {
        let frames: Vec<_> = (0..3).map(|at| frame(nic, 3 * round + at, 60)).collect();
        frames.iter().for_each(|frame| wire.send(frame));
        for frame in frames {
            assert_eq!(receive(nic).await, frame, "in the order in which they were delivered");
        }
    }
}

async fn a_sleeping_receiver_is_woken(nic: &mut impl Nic, wire: &mut impl Wire) {
    for number in 0..20 {
        let expected = frame(nic, number, 200);
        let mut to_send = Some(expected.clone());
        let mut got = None;
        poll_fn(|cx| {
            loop {
                let polled = nic.poll_receive(cx, &mut |frame, _| got = Some(frame.to_vec()));
                if polled.is_pending() {
                    nic.flush().expect("flush");
                    // Only now that it sleeps; from here on its waker alone calls us again.
                    if let Some(frame) = to_send.take() {
                        wire.send(&frame);
                    }
                    return Poll::Pending;
                }
                if got.as_deref().is_some_and(is_ours) {
                    return Poll::Ready(());
                }
            }
        })
        .await;
        assert_eq!(got, Some(expected), "the waker that was stored is woken");
    }
}

async fn more_than_all_buffers_go_through(nic: &mut impl Nic, wire: &mut impl Wire) {
    for number in 0..2000 {
        let sent = frame(nic, number, 300);
        transmit(nic, &sent).await;
        if number % 50 == 49 {
            nic.flush().expect("flush");
            for expected in number - 49..=number {
                let seen = arrives(wire).await.expect("all frames are sent");
                assert_eq!(seen, frame(nic, expected, 300), "each once, in order");
            }
        }
        if number % 3 == 0 {
            let arriving = frame(nic, number, 300);
            wire.send(&arriving);
            assert_eq!(receive(nic).await, arriving, "buffers that were lent come back");
        }
    }
}

async fn the_largest_frame_goes_both_ways(nic: &mut impl Nic, wire: &mut impl Wire) {
    let largest = frame(nic, 1, nic.mtu());
    transmit(nic, &largest).await;
    nic.flush().expect("flush");
    assert_eq!(arrives(wire).await.as_ref(), Some(&largest), "a frame of 14 + mtu is sent");
    wire.send(&largest);
    assert_eq!(receive(nic).await, largest, "a frame of 14 + mtu is received");
}
