//! A virtqueue whose device lies.

use crate::{Input, Shared};
use fata_virtq::{Layout, Queue, Rejected, RingMemory, Segment};
use std::collections::BTreeSet;

/// The queue's memory. Strict: the driver loads only what the device writes, and stores only what
/// it writes itself.
struct Memory {
    shared: Shared,
    used: usize,
}

impl Memory {
    fn assert_device_writes(&self, offset: usize) {
        assert!(offset >= self.used, "the driver believes what it wrote itself, at {offset}");
    }

    fn assert_driver_writes(&self, offset: usize) {
        assert!(offset < self.used, "the driver writes what is the device's, at {offset}");
    }
}

impl RingMemory for Memory {
    type Address = u64;
    fn load_u16(&self, offset: usize) -> u16 {
        self.assert_device_writes(offset);
        u16::from_le_bytes(self.shared.get(offset))
    }
    fn load_u32(&self, offset: usize) -> u32 {
        self.assert_device_writes(offset);
        u32::from_le_bytes(self.shared.get(offset))
    }
    fn store_u16(&self, offset: usize, value: u16) {
        self.assert_driver_writes(offset);
        self.shared.set(offset, value.to_le_bytes());
    }
    fn store_u32(&self, offset: usize, value: u32) {
        self.assert_driver_writes(offset);
        self.shared.set(offset, value.to_le_bytes());
    }
    fn store_address(&self, offset: usize, address: u64) {
        self.assert_driver_writes(offset);
        self.shared.set(offset, address.to_le_bytes());
    }
}

/// Whatever the device writes: no panic, each token comes back once, no more bytes are said to be
/// written than may be, and the first lie that is found out is final.
pub fn run(input: &mut Input<'_>) {
    let event_index = input.flag();
    let size = 1u16 << input.below(5);
    let layout = Layout::new(size).expect("a power of two");
    let shared = Shared::new(layout.len());
    shared.write(0, &vec![0; layout.len()]);
    let memory = Memory { shared: shared.clone(), used: layout.used() };
    let mut queue = Queue::new(memory, layout, event_index);

    // What each chain may be written, by its token; and the tokens that are out.
    let mut writable: Vec<u64> = Vec::new();
    let mut out = BTreeSet::new();
    let mut failure = None;
    // The device's own count of what it gave back.
    let mut used = 0u16;
    while !input.is_empty() {
        match input.below(8) {
            0 => {
                let mut segments = |count| -> Vec<Segment<u64>> {
                    (0..count)
                        .map(|_| match input.u8() {
                            255 => Segment { address: 0, len: input.u32() },
                            len => Segment { address: 0, len: u32::from(len) },
                        })
                        .collect()
                };
                let (reads, writes) = (segments(1), segments(2));
                let (reads, writes) = (&reads[..input.below(2)], &writes[..input.below(3)]);
                let token = writable.len();
                let free = queue.free();
                match queue.add(reads, writes, token) {
                    Ok(()) => {
                        assert_eq!(free - queue.free(), (reads.len() + writes.len()) as u16);
                        writable.push(writes.iter().map(|segment| u64::from(segment.len)).sum());
                        out.insert(token);
                    }
                    Err(error) => {
                        assert_eq!((error.token, queue.free()), (token, free));
                        let is_closed = matches!(error.reason, Rejected::Closed(_));
                        assert_eq!(is_closed, failure.is_some());
                    }
                }
            }
            1 | 2 => match queue.take_used() {
                Ok(Some(chain)) => {
                    assert!(failure.is_none(), "a queue that was closed goes on");
                    assert!(u64::from(chain.written) <= writable[chain.token]);
                    assert!(out.remove(&chain.token), "a token twice");
                }
                Ok(None) => assert!(failure.is_none()),
                Err(error) => assert_eq!(*failure.get_or_insert(error), error),
            },
            3 => {
                let _ = (queue.needs_notification(), queue.has_used());
            }
            4 => {
                let _ = queue.enable_interrupts_after(input.u16());
            }
            5 => queue.disable_interrupts(),
            // The device gives a chain back, or says so.
            6 => {
                let element = layout.used() + 4 + 8 * usize::from(used & (size - 1));
                let (id, written) = (input.u8(), input.u8());
                let written = if written == 255 { input.u32() } else { u32::from(written) };
                shared.scribble(element, u32::from(id % 20));
                shared.scribble(element + 4, written);
                used = used.wrapping_add(1);
                shared.set(layout.used() + 2, used.to_le_bytes());
            }
            // The device scribbles: at once, or between two loads of the driver's.
            _ => {
                let (when, at) = (input.below(4), usize::from(input.u16()));
                // Most of what matters is the used index, and what lies behind it.
                let at = if at & 0x8000 == 0 { layout.used() + at % 12 } else { at };
                let word = input.near(u32::from(used) << 16);
                match when {
                    0 => shared.scribble(at, word),
                    loads => shared.trap(loads as u32, at, word),
                }
            }
        }
        assert_eq!(usize::from(queue.outstanding()), out.len());
        assert!(queue.free() <= size);
    }
    let (_, left) = queue.dismantle();
    assert_eq!(left.len(), out.len());
    assert_eq!(left.into_iter().collect::<BTreeSet<_>>(), out, "each token exactly once");
}
