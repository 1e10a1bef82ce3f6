//! A ring on a disk whose other end lies, and whose disk changes what it holds.

use crate::Input;
use fata_journal::{
    Completion, Config, Consumer, ConsumerEvent, Create, Disk, Existing, Journal, JournalEvent,
    Machine, Position, Producer, ProducerEvent, Request, RetryPolicy, Shape,
};
use std::collections::VecDeque;
use std::time::Duration;

const SECTOR_BYTES: usize = 512;
const SECTOR_COUNT: u64 = 24;
const CONFIG: Config =
    Config { item_bytes_max: 2_000, batch_bytes_max: 4_096, fetch_bytes_max: 2_048 };

/// A disk in memory.
struct Memory {
    bytes: Vec<u8>,
    /// How many requests are done before one fails.
    fails_after: Option<u8>,
}

impl Memory {
    fn size() -> Disk {
        Disk { sector_bytes: SECTOR_BYTES, sector_count: SECTOR_COUNT }
    }

    fn run(&mut self, request: &Request) -> Completion {
        match &mut self.fails_after {
            Some(0) => {
                self.fails_after = None;
                return Completion::Failed("asked to".into());
            }
            Some(left) => *left -= 1,
            None => {}
        }
        match request {
            // Out of range is a panic: nobody may ask for that.
            Request::Read { sector, count } => {
                assert!(*count > 0);
                let start = *sector as usize * SECTOR_BYTES;
                Completion::Read(self.bytes[start..start + count * SECTOR_BYTES].to_vec())
            }
            Request::Write { sector, data } => {
                assert!(!data.is_empty() && data.len().is_multiple_of(SECTOR_BYTES));
                let start = *sector as usize * SECTOR_BYTES;
                self.bytes[start..start + data.len()].copy_from_slice(data);
                Completion::Done
            }
            Request::Flush => Completion::Done,
        }
    }

    /// Runs a command to its end, which there must be.
    fn drive(&mut self, machine: &mut dyn Machine) {
        for _ in 0..200 {
            let Some(request) = machine.poll_request() else { return };
            machine.handle_completion(self.run(&request));
        }
        panic!("a command without end");
    }

    fn page(&mut self, page: usize, page_bytes: usize) -> &mut [u8] {
        let pages = self.bytes.len() / page_bytes;
        &mut self.bytes[page % pages * page_bytes..][..page_bytes]
    }
}

/// CRC-32C, bit by bit: what makes a lie of the other end's whole.
fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut sum = !0_u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg());
        }
    }
    (!sum).to_le_bytes()
}

/// A position or a generation, near one of those that are in use.
fn near(input: &mut Input<'_>, around: u64) -> u64 {
    match input.u8() {
        255 => input.u64(),
        254 => around.wrapping_add(u64::from(input.u16())),
        253 => around.wrapping_sub(u64::from(input.u16())),
        252 => u64::MAX - u64::from(input.u16()),
        step => around.wrapping_add(4 * u64::from(step)).wrapping_sub(128),
    }
}

/// What an end that lies writes, with every checksum right: a header, a page's head, or the length
/// of an item.
fn lie(input: &mut Input<'_>, disk: &mut Memory, is_v1: bool, page_bytes: usize) {
    let around = |bytes: &[u8], at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    if input.flag() {
        let page = disk.page(1 + input.below(if is_v1 { 2 } else { 4 }), page_bytes);
        for _ in 0..=input.below(2) {
            let at = if is_v1 { 0 } else { [8, 16][input.below(2)] };
            let word = near(input, around(page, at));
            page[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        if input.below(4) == 0 {
            page[if is_v1 { 8 } else { 25 }] = input.u8() % 4;
        }
        if !is_v1 {
            let sum = crc32c(&page[..60]);
            page[60..64].copy_from_slice(&sum);
        }
    } else {
        let page = disk.page(if is_v1 { 3 } else { 5 } + input.below(32), page_bytes);
        let at = match input.below(4) {
            0 => 4,
            1 => 16,
            _ => usize::from(input.u8()) * 4 % (page_bytes - 4),
        };
        let length = input.near(u32::from(page[at]) | u32::from(page[at + 1]) << 8);
        page[at..at + 4].copy_from_slice(&length.to_le_bytes());
        if !is_v1 {
            let sum = crc32c(&page[4..]);
            page[..4].copy_from_slice(&sum);
        }
    }
}

/// Whatever lies on the disk: no panic, no request outside, every command ends, what is fetched at
/// once is bounded; and as long as nobody lies, items arrive once, in order.
pub fn run(input: &mut Input<'_>) {
    let is_v1 = input.flag();
    let page_bytes = if is_v1 { SECTOR_BYTES } else { SECTOR_BYTES << input.below(2) };
    let shape = if is_v1 { Shape::V1 } else { Shape::V2 { page_bytes, identity: 7 } };
    let mut disk =
        Memory { bytes: vec![0; SECTOR_BYTES * SECTOR_COUNT as usize], fails_after: None };
    disk.drive(&mut Create::new(Memory::size(), shape, Existing::Keep));
    let mut producer = Producer::new(Memory::size(), CONFIG);
    let mut consumer = Consumer::new(Memory::size(), CONFIG);
    let (mut is_honest, mut number) = (true, 0_u8);
    // What was pushed and not popped, and what was popped last.
    let (mut pushed, mut popped) = (VecDeque::new(), Position::default());
    while !input.is_empty() {
        match input.below(16) {
            0 => _ = producer.attach(),
            1 => _ = consumer.attach(),
            2..5 => {
                let payload = vec![number; input.len(2_100)];
                if producer.push(&payload).is_ok() {
                    number = number.wrapping_add(1);
                    pushed.push_back(payload);
                }
            }
            5 | 6 => _ = producer.publish(),
            7 => _ = producer.refresh(),
            8 | 9 => _ = consumer.fetch(),
            10 | 11 => _ = consumer.advance(popped),
            12 => _ = if input.flag() { consumer.suspend() } else { consumer.resume() },
            13 => disk.fails_after = Some(input.u8() % 8),
            14 => {
                is_honest = false;
                lie(input, &mut disk, is_v1, page_bytes);
            }
            _ => {
                is_honest = false;
                let at = usize::from(input.u16()) % disk.bytes.len();
                disk.bytes[at] ^= input.u8();
            }
        }
        disk.drive(&mut producer);
        disk.drive(&mut consumer);
        let failed = matches!(producer.poll_event(), Some(ProducerEvent::Failed(error))
            if is_honest && !matches!(error, fata_journal::Error::Disk(_)));
        let other_failed = matches!(consumer.poll_event(), Some(ConsumerEvent::Failed(error))
            if is_honest && !matches!(error, fata_journal::Error::Disk(_)));
        assert!(!failed && !other_failed, "nobody lied");
        let mut bytes = 0;
        while let Some(item) = consumer.pop() {
            bytes += item.payload.len();
            assert!(item.payload.len() <= CONFIG.item_bytes_max);
            assert!(item.end > popped, "backwards");
            popped = item.end;
            if is_honest {
                assert_eq!(pushed.pop_front(), Some(item.payload), "in order, and whole");
            }
        }
        assert!(bytes <= CONFIG.fetch_bytes_max + CONFIG.item_bytes_max);
    }
    replay(&mut disk, shape);
}

/// A journal over whatever is left ends with replaying it, or stops.
fn replay(disk: &mut Memory, shape: Shape) {
    disk.fails_after = None;
    let mut journal = Journal::new(Memory::size(), shape, CONFIG, RetryPolicy::default());
    // Each item takes at least four bytes of the ring.
    for _ in 0..SECTOR_COUNT as usize * SECTOR_BYTES {
        match journal.poll_request() {
            Some(request) => {
                let completion = disk.run(&request);
                journal.handle_completion(Duration::ZERO, completion);
            }
            None if journal.operations().is_empty() => {
                while let Some(event) = journal.poll_event() {
                    assert!(!matches!(event, JournalEvent::DiskFailed(_)));
                }
                return;
            }
            None => journal.handle_performed(journal.operations().len()),
        }
    }
    panic!("a replay without end");
}
