//! What models do with the chains they get: network, disk, entropy, console.

use super::{Model, Rings, Spec};
use std::collections::{BTreeSet, VecDeque};

/// A device type.
pub(crate) trait Kind: Send + 'static {
    /// A chain of `queue` was fetched: it is the last of those held.
    fn serve(&mut self, queue: usize, rings: &mut Rings);
    /// The features that the driver accepted.
    fn negotiated(&mut self, _features: u64) {}
    /// The device was reset.
    fn reset(&mut self) {}
}

/// A network interface; the wire is two lists.
#[derive(Default)]
pub(crate) struct NetKind {
    /// What the driver sent: header, frame.
    pub(crate) sent: VecDeque<([u8; 12], Vec<u8>)>,
    /// Frames that wait for receive buffers.
    arriving: VecDeque<([u8; 12], Vec<u8>)>,
    mergeable: bool,
    /// Sent chains are kept instead of given back.
    pub(crate) keep_sent: bool,
}

pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

impl NetKind {
    /// All features that the driver knows, on queues of 256, with an MTU of 1500.
    pub(crate) fn spec() -> Spec {
        let features = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 15 | 1 << 16;
        // Segmentation in both directions and families.
        let features = features | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12;
        let mut config = MAC.to_vec();
        config.extend([1, 0, 1, 0]);
        config.extend(1500u16.to_le_bytes());
        Spec::new(1, features, config, &[256, 256])
    }

    /// Lets a frame arrive; its header's number of buffers is filled in.
    pub(crate) fn inject(model: &Model<Self>, header: [u8; 12], frame: &[u8]) {
        model.act(|kind, rings| {
            kind.arriving.push_back((header, frame.to_vec()));
            kind.fill(rings);
        });
    }

    fn fill(&mut self, rings: &mut Rings) {
        while let Some((header, frame)) = self.arriving.front() {
            let bytes = [&header[..], frame].concat();
            let held = &rings.queues[0].held;
            let mut room = 0;
            let mut count = 0;
            while room < bytes.len() && count < held.len() && (count == 0 || self.mergeable) {
                room += held[count].room();
                count += 1;
            }
            if room < bytes.len() {
                return;
            }
            let mut bytes = bytes;
            if bytes[10..12] == [0, 0] {
                bytes[10..12].copy_from_slice(&(count as u16).to_le_bytes());
            }
            let mut rest = &bytes[..];
            for _ in 0..count {
                let chain = &rings.queues[0].held[0];
                let (now, later) = rest.split_at(rest.len().min(chain.room()));
                chain.write(now);
                rings.give_back(0, now.len());
                rest = later;
            }
            self.arriving.pop_front();
        }
    }
}

impl Kind for NetKind {
    fn serve(&mut self, queue: usize, rings: &mut Rings) {
        if queue == 0 {
            self.fill(rings);
            return;
        }
        let bytes = rings.queues[1].held.back().unwrap().read();
        let (header, frame) = bytes.split_at(12);
        self.sent.push_back((header.try_into().unwrap(), frame.to_vec()));
        if !self.keep_sent {
            rings.give_back(1, 0);
        }
    }

    fn negotiated(&mut self, features: u64) {
        self.mergeable = features & 1 << 15 != 0;
    }
}

/// A disk in memory.
pub(crate) struct DiskKind {
    pub(crate) bytes: Vec<u8>,
    /// Sectors that report an error of the medium.
    pub(crate) broken: BTreeSet<u64>,
    /// Finished requests are given back in the opposite order, this many at a time.
    pub(crate) reverse: usize,
    /// Requests seen: type, sector, length of data.
    pub(crate) log: Vec<(u32, u64, usize)>,
    /// The status that every request gets, instead of the right one.
    pub(crate) status: Option<u8>,
    /// The length of the longest segment and the most segments seen.
    pub(crate) segments_seen: (u32, usize),
}

impl DiskKind {
    pub(crate) fn new(sectors: usize) -> Self {
        DiskKind {
            bytes: vec![0; sectors * 512],
            broken: BTreeSet::new(),
            reverse: 1,
            log: Vec::new(),
            status: None,
            segments_seen: (0, 0),
        }
    }

    /// `size_max` and `seg_max` only count with their features.
    pub(crate) fn spec(&self, features: u64, size_max: u32, seg_max: u32, blk_size: u32) -> Spec {
        let mut config = vec![0; 60];
        config[0..8].copy_from_slice(&(self.bytes.len() as u64 / 512).to_le_bytes());
        config[8..12].copy_from_slice(&size_max.to_le_bytes());
        config[12..16].copy_from_slice(&seg_max.to_le_bytes());
        config[20..24].copy_from_slice(&blk_size.to_le_bytes());
        config[36..40].copy_from_slice(&16u32.to_le_bytes());
        config[40..44].copy_from_slice(&1u32.to_le_bytes());
        Spec::new(2, features, config, &[64])
    }

    fn answer(&mut self, chain: &super::Chain) -> usize {
        let input = chain.read();
        let kind = u32::from_le_bytes(input[0..4].try_into().unwrap());
        let sector = u64::from_le_bytes(input[8..16].try_into().unwrap());
        let data = &input[16..];
        let room = chain.room() - 1;
        self.log.push((kind, sector, data.len().max(room)));
        let longest = chain.readable.iter().chain(&chain.writable).map(|s| s.1).max().unwrap();
        let count = chain.readable.len() + chain.writable.len();
        self.segments_seen.0 = self.segments_seen.0.max(longest);
        self.segments_seen.1 = self.segments_seen.1.max(count);
        let start = sector as usize * 512;
        let touched = sector..sector + (data.len().max(room) as u64).div_ceil(512);
        let status = match kind {
            0 | 1 if self.broken.iter().any(|broken| touched.contains(broken)) => 1,
            0 => {
                chain.write(&self.bytes[start..start + room]);
                0
            }
            1 => {
                self.bytes[start..start + data.len()].copy_from_slice(data);
                0
            }
            4 => 0,
            8 => {
                chain.write(b"disk-of-the-model");
                0
            }
            11 => {
                let sector = u64::from_le_bytes(data[0..8].try_into().unwrap()) as usize;
                let count = u32::from_le_bytes(data[8..12].try_into().unwrap()) as usize;
                assert!(count <= 16, "more than max_discard_sectors");
                self.bytes[sector * 512..(sector + count) * 512].fill(0);
                0
            }
            _ => 2,
        };
        match self.status {
            Some(0xff) => {}
            status_forced => chain.write_last(status_forced.unwrap_or(status)),
        }
        room + 1
    }
}

impl Kind for DiskKind {
    fn serve(&mut self, _queue: usize, rings: &mut Rings) {
        if rings.queues[0].held.len() < self.reverse {
            return;
        }
        while let Some(chain) = rings.queues[0].held.pop_back() {
            let written = self.answer(&chain);
            rings.put_used(0, chain.head, written);
        }
    }
}

/// Entropy that counts up.
#[derive(Default)]
pub(crate) struct RngKind {
    next: u8,
    /// Bytes given per request at most.
    pub(crate) stingy: Option<usize>,
}

impl RngKind {
    pub(crate) fn spec() -> Spec {
        Spec::new(4, 0, Vec::new(), &[8])
    }
}

impl Kind for RngKind {
    fn serve(&mut self, _queue: usize, rings: &mut Rings) {
        let chain = rings.queues[0].held.back().unwrap();
        let count = chain.room().min(self.stingy.unwrap_or(usize::MAX));
        let bytes: Vec<u8> = (0..count).map(|at| self.next.wrapping_add(at as u8)).collect();
        self.next = self.next.wrapping_add(count as u8);
        chain.write(&bytes);
        rings.give_back(0, count);
    }
}

/// A console; the terminal is two lists.
#[derive(Default)]
pub(crate) struct ConsoleKind {
    pub(crate) shown: Vec<u8>,
    typed: VecDeque<u8>,
    /// The host does not read: output is kept.
    pub(crate) stuck: bool,
}

impl ConsoleKind {
    pub(crate) fn spec() -> Spec {
        Spec::new(3, 1, vec![80, 0, 25, 0, 1, 0, 0, 0], &[16, 16])
    }

    pub(crate) fn type_in(model: &Model<Self>, bytes: &[u8]) {
        model.act(|kind, rings| {
            kind.typed.extend(bytes);
            kind.fill(rings);
        });
    }

    fn fill(&mut self, rings: &mut Rings) {
        while !self.typed.is_empty() {
            let Some(chain) = rings.queues[0].held.front() else { return };
            let count = self.typed.len().min(chain.room());
            let bytes: Vec<u8> = self.typed.drain(..count).collect();
            chain.write(&bytes);
            rings.give_back(0, count);
        }
    }
}

impl Kind for ConsoleKind {
    fn serve(&mut self, queue: usize, rings: &mut Rings) {
        if queue == 0 {
            self.fill(rings);
        } else if !self.stuck {
            self.shown.extend(rings.queues[1].held.back().unwrap().read());
            rings.give_back(1, 0);
        }
    }
}
