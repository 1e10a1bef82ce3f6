//! A device that lies. Whatever it writes, nothing panics, no token appears twice or is lost, and
//! after the first lie that is caught the queue stays closed.

use super::*;
use proptest::prelude::*;

/// A queue of 4 with two chains out, `a` of 1 descriptor (16 writable bytes) and `b` of 2.
fn lied_to() -> (Queue<Memory, char>, Device, u32, u32) {
    let (mut queue, mut device) = pair(4, false);
    queue.add(&[], &[segment(0, 16)], 'a').unwrap();
    queue.add(&[segment(0, 8)], &[segment(8, 8)], 'b').unwrap();
    device.take();
    let (a, b) = (u32::from(device.held[0].head), u32::from(device.held[1].head));
    (queue, device, a, b)
}

fn closed_by(queue: &mut Queue<Memory, char>, failure: DeviceMisbehaved) {
    assert_eq!(queue.take_used(), Err(failure));
    assert_eq!(queue.take_used(), Err(failure), "final");
    let refused = queue.add(&[segment(0, 1)], &[], 'c').unwrap_err();
    assert_eq!(refused, AddError { reason: Rejected::Closed(failure), token: 'c' });
}

#[test]
fn an_unknown_id_closes_the_queue() {
    let (mut queue, mut device, ..) = lied_to();
    device.give_back_element(4, 0);
    closed_by(&mut queue, DeviceMisbehaved::UnknownId { id: 4, size: 4 });
    // The upper half of the id counts too.
    let (mut queue, mut device, a, _) = lied_to();
    device.give_back_element(a | 0x1_0000, 0);
    closed_by(&mut queue, DeviceMisbehaved::UnknownId { id: a | 0x1_0000, size: 4 });
}

#[test]
fn a_chain_given_back_twice_closes_the_queue() {
    let (mut queue, mut device, a, _) = lied_to();
    device.give_back_element(a, 0);
    device.give_back_element(a, 0);
    assert_eq!(queue.take_used().unwrap().unwrap().token, 'a');
    closed_by(&mut queue, DeviceMisbehaved::NotOutstanding { id: a as u16 });
    assert_eq!(queue.dismantle().1, ['b']);
}

#[test]
fn the_middle_of_a_chain_is_no_chain() {
    let (mut queue, mut device, _, b) = lied_to();
    device.give_back_element(b + 1, 0);
    closed_by(&mut queue, DeviceMisbehaved::NotOutstanding { id: b as u16 + 1 });
}

#[test]
fn writing_more_than_is_writable_closes_the_queue() {
    let (mut queue, mut device, _, b) = lied_to();
    device.give_back_element(b, 9);
    closed_by(&mut queue, DeviceMisbehaved::WroteTooMuch { written: 9, writable: 8 });
    let mut left = queue.dismantle().1;
    left.sort_unstable();
    assert_eq!(left, ['a', 'b'], "the device may still have both");
}

#[test]
fn an_index_that_moves_too_far_or_back_closes_the_queue() {
    for index in [3, 0xffff] {
        let (mut queue, device, ..) = lied_to();
        device.memory.set(device.layout.used_idx(), u16::to_le_bytes(index));
        closed_by(&mut queue, DeviceMisbehaved::IndexTooFar { moved: index, outstanding: 2 });
    }
}

#[test]
fn scribbling_over_what_the_driver_wrote_changes_nothing() {
    let (mut queue, mut device, a, b) = lied_to();
    for byte in &device.memory.bytes[..device.layout.used()] {
        byte.set(0xff);
    }
    device.give_back_element(b, 8);
    device.give_back_element(a, 16);
    assert_eq!(queue.take_used(), Ok(Some(Used { token: 'b', written: 8 })));
    assert_eq!(queue.take_used(), Ok(Some(Used { token: 'a', written: 16 })));
    assert_eq!(queue.free(), 4);
    for token in ['c', 'd', 'e', 'f'] {
        queue.add(&[], &[segment(0, 1)], token).unwrap();
    }
}

#[derive(Clone, Debug)]
enum Act {
    Add { readable: usize, writable: usize },
    Take,
    Notify,
    Enable(u16),
    Disable,
    Scribble { at: usize, value: u8 },
    Element { id: u32, written: u32 },
    Honest(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0usize..3, 0usize..3).prop_map(|(readable, writable)| Act::Add { readable, writable }),
        4 => Just(Act::Take),
        1 => Just(Act::Notify),
        1 => any::<u16>().prop_map(Act::Enable),
        1 => Just(Act::Disable),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(at, value)| Act::Scribble { at, value }),
        1 => (0u32..10, 0u32..40).prop_map(|(id, written)| Act::Element { id, written }),
        4 => any::<usize>().prop_map(Act::Honest),
    ]
}

proptest! {
    #[test]
    fn whatever_the_device_writes(
        event_index: bool,
        size in (0u32..4).prop_map(|power| 1u16 << power),
        acts in prop::collection::vec(act(), 0..200),
    ) {
        let (mut queue, mut device) = pair::<usize>(size, event_index);
        let mut added = 0usize;
        let mut out = Vec::new();
        let mut back = Vec::new();
        let mut failure = None;
        for act in acts {
            match act {
                Act::Add { readable, writable } => {
                    let segments = [segment(0, 10); 3];
                    match queue.add(&segments[..readable], &segments[..writable], added) {
                        Ok(()) => {
                            out.push(10 * writable as u32);
                            added += 1;
                        }
                        Err(error) => prop_assert_eq!(error.token, added),
                    }
                }
                Act::Take => match queue.take_used() {
                    Ok(Some(used)) => {
                        prop_assert!(failure.is_none());
                        prop_assert!(used.written <= out[used.token]);
                        back.push(used.token);
                    }
                    Ok(None) => prop_assert!(failure.is_none()),
                    Err(error) => prop_assert_eq!(*failure.get_or_insert(error), error),
                },
                Act::Notify => {
                    queue.needs_notification();
                }
                Act::Enable(count) => {
                    let _ = queue.enable_interrupts_after(count);
                }
                Act::Disable => queue.disable_interrupts(),
                Act::Scribble { at, value } => {
                    let cell = &device.memory.bytes[at % device.memory.bytes.len()];
                    cell.set(value);
                }
                Act::Element { id, written } => device.give_back_element(id, written),
                Act::Honest(at) => {
                    // From the queue's own books: scribbles may have ruined what the device sees.
                    let at = (at % usize::from(size)) as u32;
                    device.give_back_element(at, 0);
                }
            }
            prop_assert!(queue.free() <= size);
        }
        let outstanding = usize::from(queue.outstanding());
        let (_, left) = queue.dismantle();
        prop_assert_eq!(left.len(), outstanding);
        back.extend(left);
        back.sort_unstable();
        prop_assert_eq!(back, (0..added).collect::<Vec<_>>(), "each token exactly once");
    }
}
