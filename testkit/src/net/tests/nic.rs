//! The cards.

use super::super::*;
use core::future::poll_fn;
use core::task::Poll;
use fata_device::contract::{self, Wire};
use fata_device::{Checksum, Nic, PartialChecksum, Received, Transmit};
use std::collections::VecDeque;
use std::task::{Context, Waker};

/// A card at another port, as the other end of a wire.
struct Opposite {
    nic: SimulatedNic,
}

impl Wire for Opposite {
    fn send(&mut self, frame: &[u8]) {
        send(&mut self.nic, frame, None);
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        receive(&mut self.nic).map(|(frame, _)| frame)
    }
}

fn send(nic: &mut SimulatedNic, frame: &[u8], partial_checksum: Option<PartialChecksum>) {
    let sent = nic.poll_transmit(&mut Context::from_waker(Waker::noop()), &mut |buffer| {
        buffer[..frame.len()].copy_from_slice(frame);
        Some(Transmit { len: frame.len(), partial_checksum, segmentation: None })
    });
    assert_eq!(sent, Poll::Ready(Ok(true)));
    nic.flush().unwrap();
}

fn receive(nic: &mut SimulatedNic) -> Option<(Vec<u8>, Received)> {
    let mut got = None;
    let _ = nic.poll_receive(&mut Context::from_waker(Waker::noop()), &mut |frame, received| {
        got = Some((frame.to_vec(), received));
    });
    got
}

fn two(world: &World, options: NicOptions) -> [SimulatedNic; 2] {
    ["left", "right"].map(|name| world.nic(name, Link::default(), options.clone()).0)
}

#[test]
fn a_card_of_the_world_keeps_the_contract() {
    for options in [
        NicOptions::default(),
        NicOptions::everything(),
        NicOptions { mtu: 9000, receive_checksum: ReceiveChecksum::Blank, ..Default::default() },
    ] {
        World::run(1, |world| async move {
            let [mut nic, opposite] = two(&world, options);
            contract::nic(&mut nic, &mut Opposite { nic: opposite }).await;
        });
    }
}

#[test]
fn a_card_that_is_unplugged_fails_for_ever_and_wakes_who_waits() {
    World::run(1, |world| async move {
        let (mut nic, port) = world.nic("nic", Link::default(), NicOptions::default());
        let waits = async move {
            let error = poll_fn(|cx| nic.poll_receive(cx, &mut |_, _| {})).await.unwrap_err();
            (error, nic)
        };
        let (_, (error, mut nic)) = tokio::join!(async { port.unplug("the dog") }, waits);
        assert!(error.to_string().contains("the dog"), "{error}");
        assert!(nic.flush().is_err());
    });
}

/// A TCP segment over IPv4 with the right sums, between the two cards.
fn segment(sequence: u32, payload: &[u8], flags: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let len = (40 + payload.len() as u16).to_be_bytes();
    frame.extend([0x45, 0, len[0], len[1], 0, 1, 0x40, 0, 64, 6, 0, 0]);
    frame.extend([192, 0, 2, 1, 192, 0, 2, 2]);
    frame.extend([0, 80, 0x12, 0x34]);
    frame.extend(sequence.to_be_bytes());
    frame.extend([0, 0, 0, 1, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(payload);
    frames::fill_ipv4_checksum(&mut frame);
    let transport = frames::Transport::of(&frame).unwrap();
    let sum = frames::add(transport.pseudo_header(&frame), frames::sum(&frame[34..]));
    frame[50..52].copy_from_slice(&(!sum).to_be_bytes());
    assert!(frames::Transport::of(&frame).unwrap().is_intact(&frame));
    frame
}

#[test]
fn a_partial_checksum_is_finished_before_the_wire() {
    World::run(1, |world| async move {
        let options = NicOptions { transmit_checksum: true, ..Default::default() };
        let [mut left, mut right] = two(&world, options);
        let whole = segment(1, b"payload", 0x18);
        let mut partial = whole.clone();
        let sum = frames::Transport::of(&whole).unwrap().pseudo_header(&whole);
        partial[50..52].copy_from_slice(&sum.to_be_bytes());
        send(&mut left, &partial, Some(PartialChecksum { start: 34, offset: 16 }));
        assert_eq!(receive(&mut right).unwrap(), (whole, Received::UNVERIFIED));
    });
}

#[test]
fn what_a_card_says_of_a_checksum_is_true() {
    let whole = segment(1, b"payload", 0x18);
    let mut broken = whole.clone();
    broken[60] ^= 1;
    let take = |frame: &[u8], says| {
        let mut queue = VecDeque::from([frame.to_vec()]);
        offload::take(&mut queue, says, false).unwrap()
    };
    for says in [ReceiveChecksum::Unverified, ReceiveChecksum::Verified, ReceiveChecksum::Blank] {
        let (frame, received) = take(&broken, says);
        assert_eq!((frame, received.checksum), (broken.clone(), Checksum::Unverified));
    }
    let (frame, received) = take(&whole, ReceiveChecksum::Verified);
    assert_eq!((frame, received.checksum), (whole.clone(), Checksum::Verified));
    let (frame, received) = take(&whole, ReceiveChecksum::Blank);
    assert_eq!(received.checksum, Checksum::Blank);
    assert!(frame[..50] == whole[..50] && frame[50..52] != whole[50..52]);
}

#[test]
fn segments_that_go_on_are_joined_and_others_are_not() {
    let parts = [&[1; 100][..], &[2; 100], &[3; 100], &[4; 50]];
    let start = 0xffff_ff80_u32; // past the end of the sequence space
    let mut queue: VecDeque<_> = parts
        .iter()
        .enumerate()
        .map(|(at, part)| segment(start.wrapping_add(100 * at as u32), part, 0x10))
        .collect();
    // Behind the short one, and out of order.
    queue.push_back(segment(start.wrapping_add(350), &[5; 100], 0x10));
    queue.push_back(segment(9, &[6; 100], 0x10));
    let mut take = || offload::take(&mut queue, ReceiveChecksum::Unverified, true);
    let (frame, received) = take().unwrap();
    let cut = received.segmentation.unwrap();
    assert_eq!((received.checksum, cut.mss), (Checksum::Blank, 100));
    assert_eq!(frame[54..], parts.concat());
    assert_eq!(frame[16..18], 390_u16.to_be_bytes(), "IPv4's length");
    assert_eq!(frames::sum(&frame[14..34]), 0xffff, "IPv4's checksum");
    // Cutting makes what was joined.
    let again = offload::cut(&frame, cut);
    assert_eq!(again.iter().map(|segment| &segment[54..]).collect::<Vec<_>>(), parts);
    assert_eq!(again[1][38..42], start.wrapping_add(100).to_be_bytes());
    assert!(again.iter().all(|cut| frames::Transport::of(cut).unwrap().is_intact(cut)));
    for sequence in [start.wrapping_add(350), 9] {
        let (frame, received) = take().unwrap();
        assert_eq!((&frame[38..42], received.segmentation), (&sequence.to_be_bytes()[..], None));
    }
    assert!(take().is_none());

    // A push ends it; a SYN, a FIN, a broken sum and another acknowledgement are left alone.
    let first = || segment(0, &[1; 100], 0x10);
    let mut other_ack = segment(100, &[2; 100], 0x10);
    other_ack[45] ^= 1;
    for (second, joins) in [
        (segment(100, &[2; 100], 0x18), true),
        (segment(100, &[2; 101], 0x10), false),
        (segment(100, &[2; 100], 0x11), false),
        (segment(100, &[2; 100], 0x12), false),
        (segment(100, &[], 0x10), false),
        (segment(99, &[2; 100], 0x10), false),
        (other_ack, false),
    ] {
        let mut queue = VecDeque::from([first(), second]);
        let (_, received) = offload::take(&mut queue, ReceiveChecksum::Unverified, true).unwrap();
        assert_eq!(received.segmentation.is_some(), joins, "{queue:?}");
    }
    let mut queue = VecDeque::from([segment(0, &[1; 100], 0x18), segment(100, &[1; 100], 0x10)]);
    let (_, received) = offload::take(&mut queue, ReceiveChecksum::Unverified, true).unwrap();
    assert_eq!(received.segmentation, None, "the first was pushed");
}
