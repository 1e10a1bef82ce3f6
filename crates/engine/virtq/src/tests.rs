//! The engine against a device that follows the rules and one that does not.

mod adversarial;
mod model;

use crate::{AddError, DeviceMisbehaved, Layout, Queue, Rejected, RingMemory, Segment, Used};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::cell::Cell;

/// Memory that both sides write. Strict: the driver may load only what the device writes.
#[derive(Clone)]
struct Memory {
    bytes: Rc<[Cell<u8>]>,
    used: usize,
}

impl Memory {
    fn new(layout: Layout) -> Self {
        Memory { bytes: vec![Cell::new(0); layout.len()].into(), used: layout.used() }
    }

    fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        core::array::from_fn(|at| self.bytes[offset + at].get())
    }

    fn set<const N: usize>(&self, offset: usize, bytes: [u8; N]) {
        for (at, byte) in bytes.into_iter().enumerate() {
            self.bytes[offset + at].set(byte);
        }
    }
}

impl RingMemory for Memory {
    type Address = u64;
    fn load_u16(&self, offset: usize) -> u16 {
        assert!(
            offset >= self.used && offset.is_multiple_of(2),
            "driver reads back its own at {offset}"
        );
        u16::from_le_bytes(self.get(offset))
    }
    fn load_u32(&self, offset: usize) -> u32 {
        assert!(
            offset >= self.used && offset.is_multiple_of(4),
            "driver reads back its own at {offset}"
        );
        u32::from_le_bytes(self.get(offset))
    }
    fn store_u16(&self, offset: usize, value: u16) {
        assert!(
            offset < self.used && offset.is_multiple_of(2),
            "driver writes the device's at {offset}"
        );
        self.set(offset, value.to_le_bytes());
    }
    fn store_u32(&self, offset: usize, value: u32) {
        assert!(
            offset < self.used && offset.is_multiple_of(4),
            "driver writes the device's at {offset}"
        );
        self.set(offset, value.to_le_bytes());
    }
    fn store_address(&self, offset: usize, address: u64) {
        assert!(
            offset < self.used && offset.is_multiple_of(8),
            "driver writes the device's at {offset}"
        );
        self.set(offset, address.to_le_bytes());
    }
}

/// A chain as the device sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    head: u16,
    /// Address, length, writable.
    segments: Vec<(u64, u32, bool)>,
}

impl Chain {
    fn writable(&self) -> u32 {
        self.segments.iter().filter(|segment| segment.2).map(|segment| segment.1).sum()
    }
}

/// The device's side of the queue, written from the specification and not from the driver's side.
struct Device {
    memory: Memory,
    layout: Layout,
    event_index: bool,
    taken: u16,
    used: u16,
    used_at_interrupt: u16,
    held: VecDeque<Chain>,
}

impl Device {
    fn new(memory: Memory, layout: Layout, event_index: bool) -> Self {
        Device {
            memory,
            layout,
            event_index,
            taken: 0,
            used: 0,
            used_at_interrupt: 0,
            held: VecDeque::new(),
        }
    }

    fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.memory.get(offset))
    }

    fn chain(&self, head: u16) -> Chain {
        let mut segments = Vec::new();
        let mut index = head;
        loop {
            let place = self.layout.descriptor(index);
            let flags = self.u16(place + 12);
            segments.push((
                u64::from_le_bytes(self.memory.get(place)),
                u32::from_le_bytes(self.memory.get(place + 8)),
                flags & 2 != 0,
            ));
            assert!(segments.len() <= usize::from(self.layout.size()), "chain is a loop");
            if flags & 1 == 0 {
                return Chain { head, segments };
            }
            index = self.u16(place + 14);
        }
    }

    /// Takes all that is available.
    fn take(&mut self) -> usize {
        let available = self.u16(self.layout.available_idx());
        let count = available.wrapping_sub(self.taken);
        assert!(count <= self.layout.size());
        for _ in 0..count {
            let head = self.u16(self.layout.available_element(self.taken));
            let chain = self.chain(head);
            self.held.push_back(chain);
            self.taken = self.taken.wrapping_add(1);
        }
        usize::from(count)
    }

    /// Asks for a notification and looks again, as a device does before it sleeps.
    fn sleep(&mut self) {
        loop {
            self.memory.set(self.layout.avail_event(), self.taken.to_le_bytes());
            if self.take() == 0 {
                return;
            }
        }
    }

    /// Gives the chain at `at` of those held back.
    fn give_back(&mut self, at: usize, written: u32) {
        let chain = self.held.remove(at).unwrap();
        self.give_back_element(u32::from(chain.head), written);
    }

    fn give_back_element(&mut self, id: u32, written: u32) {
        let element = self.layout.used_element(self.used);
        self.memory.set(element, id.to_le_bytes());
        self.memory.set(element + 4, written.to_le_bytes());
        self.used = self.used.wrapping_add(1);
        self.memory.set(self.layout.used_idx(), self.used.to_le_bytes());
    }

    /// Whether the driver wants to be interrupted for what was given back since the last question.
    fn interrupts(&mut self) -> bool {
        let old = core::mem::replace(&mut self.used_at_interrupt, self.used);
        if self.used == old {
            return false;
        }
        if self.event_index {
            let event = self.u16(self.layout.used_event());
            self.used.wrapping_sub(event).wrapping_sub(1) < self.used.wrapping_sub(old)
        } else {
            self.u16(self.layout.available_flags()) & 1 == 0
        }
    }
}

fn pair<T>(size: u16, event_index: bool) -> (Queue<Memory, T>, Device) {
    let layout = Layout::new(size).unwrap();
    let memory = Memory::new(layout);
    let device = Device::new(memory.clone(), layout, event_index);
    (Queue::new(memory, layout, event_index), device)
}

fn segment(address: u64, len: u32) -> Segment<u64> {
    Segment { address, len }
}

#[test]
fn a_chain_goes_to_the_device_and_comes_back() {
    let (mut queue, mut device) = pair(4, false);
    queue.add(&[segment(0x1000, 16)], &[segment(0x2000, 512), segment(0x3000, 1)], "disk").unwrap();
    assert_eq!((queue.free(), queue.outstanding()), (1, 1));
    assert!(queue.needs_notification());
    assert!(!queue.needs_notification(), "the answer counts once");
    assert_eq!(queue.take_used(), Ok(None));

    assert_eq!(device.take(), 1);
    assert_eq!(
        device.held[0].segments,
        [(0x1000, 16, false), (0x2000, 512, true), (0x3000, 1, true)]
    );
    device.give_back(0, 513);
    assert_eq!(queue.take_used(), Ok(Some(Used { token: "disk", written: 513 })));
    assert_eq!(queue.take_used(), Ok(None));
    assert_eq!((queue.free(), queue.outstanding()), (4, 0));
}

#[test]
fn a_full_queue_gives_the_token_back() {
    let (mut queue, mut device) = pair(2, false);
    queue.add(&[segment(1, 1)], &[], 1).unwrap();
    let error = queue.add(&[segment(1, 1)], &[segment(2, 1)], 2).unwrap_err();
    assert_eq!(error, AddError { reason: Rejected::Full, token: 2 });
    device.take();
    device.give_back(0, 0);
    queue.take_used().unwrap().unwrap();
    queue.add(&[segment(1, 1)], &[segment(2, 1)], 2).unwrap();
}

#[test]
fn a_chain_that_can_never_fit_is_malformed() {
    let (mut queue, _device) = pair(2, false);
    let big = segment(0, u32::MAX);
    let cases: [(&[_], &[_]); 5] = [
        (&[], &[]),
        (&[segment(0, 0)], &[]),
        (&[segment(0, 1), segment(0, 1)], &[segment(0, 1)]),
        (&[big], &[segment(0, 1)]),
        (&[], &[big, segment(0, 1)]),
    ];
    for (readable, writable) in cases {
        assert_eq!(queue.add(readable, writable, ()).unwrap_err().reason, Rejected::Malformed);
    }
    queue.add(&[big], &[], ()).unwrap();
}

#[test]
fn chains_come_back_in_the_devices_order() {
    let (mut queue, mut device) = pair(8, true);
    for token in 0..8 {
        queue.add(&[], &[segment(token * 64, 64)], token).unwrap();
    }
    device.take();
    for at in [7, 0, 3, 3, 0] {
        device.give_back(at, at as u32);
    }
    let order: Vec<_> = core::iter::from_fn(|| queue.take_used().unwrap())
        .map(|used| (used.token, used.written))
        .collect();
    assert_eq!(order, [(7, 7), (0, 0), (4, 3), (5, 3), (1, 0)]);
    let (_memory, mut left) = queue.dismantle();
    left.sort_unstable();
    assert_eq!(left, [2, 3, 6]);
}

#[test]
fn without_event_index_flags_decide() {
    let (mut queue, mut device) = pair(4, false);
    let offer = |queue: &mut Queue<Memory, ()>| queue.add(&[], &[segment(0, 1)], ()).unwrap();

    offer(&mut queue);
    device.memory.set(device.layout.used_flags(), 1u16.to_le_bytes());
    assert!(!queue.needs_notification(), "the device asked for none");
    device.memory.set(device.layout.used_flags(), 0u16.to_le_bytes());
    offer(&mut queue);
    assert!(queue.needs_notification());

    device.take();
    device.give_back(0, 0);
    assert!(!device.interrupts(), "disabled at first");
    assert!(queue.enable_interrupts(), "something is there already");
    queue.take_used().unwrap().unwrap();
    assert!(!queue.enable_interrupts());
    device.give_back(0, 0);
    assert!(device.interrupts());
    queue.take_used().unwrap().unwrap();
    queue.disable_interrupts();
    offer(&mut queue);
    device.take();
    device.give_back(0, 0);
    assert!(!device.interrupts());
}

#[test]
fn with_event_index_only_the_wanted_element_interrupts() {
    let (mut queue, mut device) = pair(8, true);
    for token in 0..6 {
        queue.add(&[], &[segment(0, 1)], token).unwrap();
    }
    device.take();
    device.give_back(0, 0);
    assert!(!device.interrupts(), "disabled at first");
    queue.take_used().unwrap().unwrap();

    assert!(!queue.enable_interrupts_after(3));
    for (given, interrupted) in [(1, false), (2, false), (3, true), (4, false)] {
        device.give_back(0, 0);
        assert_eq!(device.interrupts(), interrupted, "element {given}");
    }
    assert!(queue.enable_interrupts_after(3), "four are there");
    while queue.take_used().unwrap().is_some() {}
    // One is left: more than that cannot be waited for.
    assert!(!queue.enable_interrupts_after(9));
    device.give_back(0, 0);
    assert!(device.interrupts());
}

#[test]
fn with_event_index_a_polling_device_is_not_notified() {
    let (mut queue, mut device) = pair(8, true);
    device.sleep();
    queue.add(&[], &[segment(0, 1)], 0).unwrap();
    assert!(queue.needs_notification(), "it sleeps");
    device.take();
    queue.add(&[], &[segment(0, 1)], 1).unwrap();
    assert!(!queue.needs_notification(), "it is awake: it has not asked since");
    device.sleep();
    assert_eq!(device.held.len(), 2);
    queue.add(&[], &[segment(0, 1)], 2).unwrap();
    queue.add(&[], &[segment(0, 1)], 3).unwrap();
    assert!(queue.needs_notification(), "once for the batch");
}

#[test]
fn indices_wrap_around() {
    let (mut queue, mut device) = pair(4, true);
    let mut interrupts = 0u32;
    for round in 0..70_000u32 {
        queue.add(&[], &[segment(0, 4)], round).unwrap();
        device.take();
        device.give_back(0, round % 5);
        interrupts += u32::from(device.interrupts());
        let used = queue.take_used().unwrap().unwrap();
        assert_eq!((used.token, used.written), (round, round % 5));
    }
    assert!(interrupts <= 2, "disabled interrupts came {interrupts} times");
}

#[test]
fn errors_name_the_rule() {
    let told = |error: DeviceMisbehaved| format!("{error}");
    assert_eq!(
        told(DeviceMisbehaved::WroteTooMuch { written: 9, writable: 8 }),
        "a used element says that 9 bytes were written where 8 may be"
    );
    assert!(told(DeviceMisbehaved::UnknownId { id: 70, size: 8 }).contains("descriptor 70"));
    assert!(told(DeviceMisbehaved::NotOutstanding { id: 7 }).contains("descriptor 7"));
    let moved = DeviceMisbehaved::IndexTooFar { moved: 6, outstanding: 5 };
    assert!(told(moved).contains("moved by 6"));
}
