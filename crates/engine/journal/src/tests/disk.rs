//! A disk with a cache that a loss of power empties, in every way that the disk's contract allows.

use super::Random;
use crate::{Completion, Disk, Request};
use std::collections::BTreeMap;

/// What a loss of power may do to a sector that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tearing {
    /// The old or the new.
    Never,
    /// The old up to some byte and then the new, or the other way round.
    AtAnyByte,
}

/// The disk. Reads see what was written; a loss of power leaves what was flushed, and of each sector
/// that was written since any of its versions, or two of them torn.
#[derive(Clone, Debug)]
pub(super) struct SimDisk {
    size: Disk,
    /// What reads see.
    pub(super) seen: Vec<u8>,
    /// What was flushed.
    flushed: Vec<u8>,
    /// For each sector that was written since, what was written, in order.
    written: BTreeMap<usize, Vec<Vec<u8>>>,
    pub(super) reads: usize,
    pub(super) flushes: usize,
}

impl SimDisk {
    pub(super) fn new(size: Disk) -> Self {
        let bytes = vec![0; size.sector_bytes * size.sector_count as usize];
        SimDisk {
            size,
            seen: bytes.clone(),
            flushed: bytes,
            written: BTreeMap::new(),
            reads: 0,
            flushes: 0,
        }
    }

    pub(super) fn size(&self) -> Disk {
        self.size
    }

    /// Makes the disk one of `sector_count`, as its owner might.
    pub(super) fn resize(&mut self, sector_count: u64) {
        self.size.sector_count = sector_count;
        for bytes in [&mut self.seen, &mut self.flushed] {
            bytes.resize(self.size.sector_bytes * sector_count as usize, 0);
        }
    }

    /// The bytes of a sector, to be looked at or changed behind everybody's back.
    pub(super) fn sector(&mut self, sector: u64) -> &mut [u8] {
        let start = sector as usize * self.size.sector_bytes;
        &mut self.seen[start..start + self.size.sector_bytes]
    }

    /// Does what is asked.
    pub(super) fn run(&mut self, request: &Request) -> Completion {
        match request {
            Request::Read { sector, count } => {
                assert!(*count > 0, "a read of nothing");
                self.reads += 1;
                let start = *sector as usize * self.size.sector_bytes;
                let len = count * self.size.sector_bytes;
                Completion::Read(self.seen[start..start + len].to_vec())
            }
            Request::Write { sector, data } => {
                assert!(!data.is_empty() && data.len().is_multiple_of(self.size.sector_bytes));
                for (index, bytes) in data.chunks(self.size.sector_bytes).enumerate() {
                    self.write_sector(*sector as usize + index, bytes);
                }
                Completion::Done
            }
            Request::Flush => {
                self.flushes += 1;
                self.flushed.copy_from_slice(&self.seen);
                self.written.clear();
                Completion::Done
            }
        }
    }

    fn write_sector(&mut self, sector: usize, bytes: &[u8]) {
        let start = sector * self.size.sector_bytes;
        self.seen[start..start + bytes.len()].copy_from_slice(bytes);
        self.written.entry(sector).or_default().push(bytes.to_vec());
    }

    /// Fails at what is asked, or is seen in the middle of it: of a write, some sectors are written
    /// and some are torn; of a flush,
    /// some of what was written is lost, and is seen to be.
    pub(super) fn fail(&mut self, request: &Request, random: &mut Random, tearing: Tearing) {
        match request {
            Request::Read { .. } => {}
            Request::Write { sector, data } => {
                for (index, new) in data.chunks(self.size.sector_bytes).enumerate() {
                    let sector = *sector + index as u64;
                    let old = self.sector(sector).to_vec();
                    let bytes = mix(&old, new, random, tearing);
                    self.write_sector(sector as usize, &bytes);
                }
            }
            Request::Flush => {
                let left = self.after_power_cut(&[], random, tearing);
                for sector in core::mem::take(&mut self.written).into_keys() {
                    let start = sector * self.size.sector_bytes;
                    let range = start..start + self.size.sector_bytes;
                    self.flushed[range.clone()].copy_from_slice(&left.flushed[range.clone()]);
                    self.seen[range.clone()].copy_from_slice(&left.flushed[range]);
                }
            }
        }
    }

    /// The disk after a loss of power, while `running` were under way.
    pub(super) fn after_power_cut(
        &self,
        running: &[&Request],
        random: &mut Random,
        tearing: Tearing,
    ) -> SimDisk {
        let mut left = self.clone();
        for request in running {
            if let Request::Write { .. } = request {
                left.run(request);
            }
        }
        // The two ends of what is possible are tried more often than chance would.
        let everything = random.below(4);
        for (sector, versions) in core::mem::take(&mut left.written) {
            let start = sector * self.size.sector_bytes;
            let kept = &mut left.flushed[start..start + self.size.sector_bytes];
            let count = match everything {
                0 => 0,
                1 => versions.len(),
                _ => random.below(versions.len() + 1),
            };
            if let Some(last) = versions[..count].last() {
                kept.copy_from_slice(last);
            }
            if let Some(next) = versions.get(count).filter(|_| everything > 1) {
                let bytes = mix(kept, next, random, tearing);
                kept.copy_from_slice(&bytes);
            }
        }
        left.seen.copy_from_slice(&left.flushed);
        left
    }
}

/// The old, the new, or a part of each.
fn mix(old: &[u8], new: &[u8], random: &mut Random, tearing: Tearing) -> Vec<u8> {
    let at = match tearing {
        Tearing::Never => random.below(2) * new.len(),
        Tearing::AtAnyByte => random.below(new.len() + 1),
    };
    let (first, second) = if random.once_in(2) { (old, new) } else { (new, old) };
    [&first[..at], &second[at..]].concat()
}
