//! The device's side of split queues (virtio 1.2, section 2.7), over shared memory by address.

use super::Lie;
use fata_shared::simulation;
use std::collections::VecDeque;

/// What stands in a used element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element {
    pub(crate) id: u32,
    pub(crate) written: u32,
}

/// A chain that the driver offered.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) head: u16,
    /// Address, length.
    pub(crate) readable: Vec<(u64, u32)>,
    pub(crate) writable: Vec<(u64, u32)>,
}

impl Chain {
    /// All bytes that the device may read.
    pub(crate) fn read(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for (address, len) in &self.readable {
            let start = all.len();
            all.resize(start + *len as usize, 0);
            simulation::read(*address, &mut all[start..]).expect("the driver lent it");
        }
        all
    }

    pub(crate) fn room(&self) -> usize {
        self.writable.iter().map(|segment| segment.1 as usize).sum()
    }

    /// Writes bytes from the first writable one on; they must fit.
    pub(crate) fn write(&self, mut bytes: &[u8]) {
        for (address, len) in &self.writable {
            let (now, later) = bytes.split_at(bytes.len().min(*len as usize));
            simulation::write(*address, now).expect("the driver lent it");
            bytes = later;
        }
        assert!(bytes.is_empty(), "the model writes past its chain");
    }

    /// Writes the last writable byte: a disk's status.
    pub(crate) fn write_last(&self, byte: u8) {
        let (address, len) = self.writable.last().expect("there is one");
        simulation::write(address + u64::from(*len) - 1, &[byte]).expect("the driver lent it");
    }
}

/// A queue as the device knows it.
#[derive(Default)]
pub(crate) struct Ring {
    pub(crate) size: u16,
    pub(crate) ready: bool,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    taken: u16,
    pub(crate) used_idx: u16,
    used_at_interrupt: u16,
    /// Chains that were taken and not given back.
    pub(crate) held: VecDeque<Chain>,
    pub(crate) notifications: u32,
}

/// All queues of a device.
pub(crate) struct Rings {
    pub(crate) queues: Vec<Ring>,
    pub(crate) event_index: bool,
    pub(crate) lie: Option<Lie>,
}

impl Rings {
    pub(crate) fn new(sizes: &[u16]) -> Self {
        let queues = sizes.iter().map(|size| Ring { size: *size, ..Ring::default() }).collect();
        Rings { queues, event_index: false, lie: None }
    }

    fn u16(address: u64) -> u16 {
        let mut bytes = [0; 2];
        simulation::read(address, &mut bytes).expect("the ring is shared");
        u16::from_le_bytes(bytes)
    }

    fn chain(ring: &Ring, head: u16) -> Chain {
        let mut chain = Chain { head, readable: Vec::new(), writable: Vec::new() };
        let mut index = head;
        loop {
            assert!(index < ring.size, "a descriptor index out of range");
            let mut raw = [0; 16];
            simulation::read(ring.descriptors + 16 * u64::from(index), &mut raw).unwrap();
            let address = u64::from_le_bytes(raw[0..8].try_into().unwrap());
            let len = u32::from_le_bytes(raw[8..12].try_into().unwrap());
            let flags = u16::from_le_bytes(raw[12..14].try_into().unwrap());
            if flags & 2 != 0 {
                chain.writable.push((address, len));
            } else {
                assert!(chain.writable.is_empty(), "readable after writable (2.7.4.2)");
                chain.readable.push((address, len));
            }
            if flags & 1 == 0 {
                return chain;
            }
            index = u16::from_le_bytes(raw[14..16].try_into().unwrap());
            let count = chain.readable.len() + chain.writable.len();
            assert!(count < usize::from(ring.size), "a loop of descriptors");
        }
    }

    /// Takes the next available chain into `held`; if there is none, asks to be notified.
    pub(crate) fn fetch(&mut self, queue: usize) -> bool {
        let ring = &mut self.queues[queue];
        if !ring.ready {
            return false;
        }
        let size = u64::from(ring.size);
        for asked in [false, true] {
            if Self::u16(ring.available + 2) != ring.taken {
                let slot = u64::from(ring.taken) % size;
                let head = Self::u16(ring.available + 4 + 2 * slot);
                let chain = Self::chain(ring, head);
                ring.held.push_back(chain);
                ring.taken = ring.taken.wrapping_add(1);
                return true;
            }
            if !asked {
                let avail_event = ring.used + 4 + 8 * size;
                simulation::write(avail_event, &ring.taken.to_le_bytes()).unwrap();
            }
        }
        false
    }

    /// Gives the oldest chain back.
    pub(crate) fn give_back(&mut self, queue: usize, written: usize) {
        let chain = self.queues[queue].held.pop_front().expect("a chain is held");
        self.put_used(queue, chain.head, written);
    }

    pub(crate) fn put_used(&mut self, queue: usize, head: u16, written: usize) {
        let mut element = Element { id: u32::from(head), written: written as u32 };
        if let Some(lie) = &mut self.lie {
            element = lie(element);
        }
        let ring = &mut self.queues[queue];
        let slot = u64::from(ring.used_idx % ring.size);
        let place = ring.used + 4 + 8 * slot;
        simulation::write(place, &element.id.to_le_bytes()).unwrap();
        simulation::write(place + 4, &element.written.to_le_bytes()).unwrap();
        self.set_used_idx(queue, self.queues[queue].used_idx.wrapping_add(1));
    }

    pub(crate) fn set_used_idx(&mut self, queue: usize, index: u16) {
        let ring = &mut self.queues[queue];
        ring.used_idx = index;
        simulation::write(ring.used + 2, &index.to_le_bytes()).unwrap();
    }

    /// Whether the driver is to be interrupted for what was given back since the last question.
    pub(crate) fn wants_interrupt(&mut self, queue: usize) -> bool {
        let ring = &mut self.queues[queue];
        let (new, old) = (ring.used_idx, ring.used_at_interrupt);
        if !ring.ready || new == old {
            return false;
        }
        ring.used_at_interrupt = new;
        if self.event_index {
            let used_event = ring.available + 4 + 2 * u64::from(ring.size);
            let event = Self::u16(used_event);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            Self::u16(ring.available) & 1 == 0
        }
    }
}
