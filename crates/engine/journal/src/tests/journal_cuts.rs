//! The power fails at every request of a journal's life: every acknowledged operation is performed,
//! at least once, in order.

use super::cuts::for_each_seed;
use super::disk::{SimDisk, Tearing};
use super::{Random, SECTOR_BYTES, V2, failed, payload};
use crate::{Config, Disk, Error, Journal, JournalEvent, Position, Request, RetryPolicy, Shape};
use core::time::Duration;

const OPERATIONS_PER_RUN: usize = 1_000;
const CONFIG: Config =
    Config { item_bytes_max: 1_800, batch_bytes_max: 3_000, fetch_bytes_max: 2_048 };

/// The operation of this number.
fn operation(number: usize) -> Vec<u8> {
    let mut bytes = payload(number, 4 + Random(number as u64).below(150));
    bytes[..4].copy_from_slice(&(number as u32).to_le_bytes());
    bytes
}

fn number_of(operation: &[u8]) -> usize {
    let number = u32::from_le_bytes(operation[..4].try_into().unwrap()) as usize;
    assert_eq!(operation, super::journal_cuts::operation(number), "whole");
    number
}

struct Run {
    random: Random,
    disk: SimDisk,
    shape: Shape,
    tearing: Tearing,
    journal: Journal,
    now: Duration,
    /// Where each operation ends, from number 0 on.
    ends: Vec<Position>,
    /// What the program was told to be durable, and to be performed for good: counted in operations.
    durable: usize,
    settled: usize,
    /// What the program has performed.
    performed: usize,
    /// Where replaying may begin, after a crash.
    is_replaying: bool,
    cuts: usize,
    crashes: usize,
    failures: usize,
}

impl Run {
    fn new(seed: u64, shape: Shape, tearing: Tearing) -> Self {
        let mut random = Random(seed);
        let sector_count = 12 + random.below(12) as u64;
        let disk = SimDisk::new(Disk { sector_bytes: SECTOR_BYTES, sector_count });
        Run {
            journal: Journal::new(disk.size(), shape, CONFIG, RetryPolicy::default()),
            random,
            disk,
            shape,
            tearing,
            now: Duration::ZERO,
            ends: Vec::new(),
            durable: 0,
            settled: 0,
            performed: 0,
            is_replaying: true,
            cuts: 0,
            crashes: 0,
            failures: 0,
        }
    }

    fn go(&mut self) {
        // Some ten thousand are enough.
        for _ in 0..200_000 {
            if self.settled >= OPERATIONS_PER_RUN {
                return;
            }
            for _ in 0..self.random.below(4) {
                let number = self.ends.len();
                if let Ok(end) = self.journal.push(&operation(number)) {
                    self.ends.push(end);
                }
            }
            self.step();
            while let Some(event) = self.journal.poll_event() {
                self.handle(event);
            }
            if self.random.once_in(3) {
                self.perform();
            }
            if let Some(timeout) = self.journal.poll_timeout() {
                self.now = self.now.max(timeout);
                self.journal.handle_timeout(self.now);
            }
        }
        panic!("a run without end");
    }

    /// One request.
    fn step(&mut self) {
        let Some(request) = self.journal.poll_request() else { return };
        self.check_a_cut(&request);
        if self.random.once_in(300) {
            self.crashes += 1;
            if self.random.once_in(2) {
                self.disk = self.disk.after_power_cut(&[&request], &mut self.random, self.tearing);
            } else if self.random.once_in(2) {
                self.disk.run(&request);
            }
            self.journal = Journal::new(self.disk.size(), self.shape, CONFIG, Default::default());
            self.is_replaying = true;
            return;
        }
        let completion = if self.random.once_in(60) {
            self.failures += 1;
            self.disk.fail(&request, &mut self.random, self.tearing);
            failed()
        } else {
            self.disk.run(&request)
        };
        self.journal.handle_completion(self.now, completion);
    }

    fn handle(&mut self, event: JournalEvent) {
        let count = |position| self.ends.iter().take_while(|end| **end <= position).count();
        match event {
            JournalEvent::Durable(position) => self.durable = count(position),
            JournalEvent::Performed(position) => {
                self.settled = count(position);
                assert!(self.settled <= self.performed, "the program did not say so");
            }
            JournalEvent::Started => {
                // What was not acknowledged may be there or not; what follows begins behind it.
                let (durable, settled) = (self.journal.durable(), self.journal.performed());
                let there = count(durable);
                assert!(there >= self.durable, "acknowledged, and gone");
                let before = count(settled);
                assert!((self.settled..=self.performed).contains(&before));
                self.ends.truncate(there);
                (self.durable, self.settled) = (there, before);
            }
            JournalEvent::Perform { .. } => {}
            JournalEvent::DiskFailed(Error::Disk(_)) => {}
            event => panic!("{event:?}"),
        }
    }

    /// Performs some of what is to be performed, or fails at the first of it.
    fn perform(&mut self) {
        let operations = self.journal.operations();
        if self.random.once_in(5) {
            return self.journal.handle_perform_failed(self.now);
        }
        let count = self.random.below(operations.len() + 1);
        for operation in &operations[..count] {
            let number = number_of(&operation.payload);
            if core::mem::take(&mut self.is_replaying) {
                assert_eq!(number, self.settled, "from what is not settled on");
                self.performed = number;
            }
            assert_eq!(number, self.performed, "in order, none left out");
            self.performed += 1;
        }
        self.journal.handle_performed(count);
    }

    /// The power fails now; what is left is replayed to the end.
    fn check_a_cut(&mut self, request: &Request) {
        self.cuts += 1;
        let mut disk = self.disk.after_power_cut(&[request], &mut self.random, self.tearing);
        let mut journal = Journal::new(disk.size(), self.shape, CONFIG, Default::default());
        let mut replayed = Vec::new();
        loop {
            assert!(replayed.len() <= OPERATIONS_PER_RUN, "a replay without end");
            while let Some(request) = journal.poll_request() {
                journal.handle_completion(self.now, disk.run(&request));
            }
            while let Some(event) = journal.poll_event() {
                assert!(!matches!(event, JournalEvent::Stopped(_)), "{event:?}");
            }
            if journal.operations().is_empty() {
                break;
            }
            replayed.extend(journal.operations().iter().map(|item| number_of(&item.payload)));
            journal.handle_performed(journal.operations().len());
        }
        let first = replayed.first().copied().unwrap_or(self.durable);
        assert!(replayed.iter().copied().eq(first..first + replayed.len()), "{replayed:?}");
        if let Some(last) = replayed.last() {
            assert!((self.settled..=self.performed.max(self.settled)).contains(&first));
            assert!((self.durable..=self.ends.len()).contains(&(last + 1)), "all that is durable");
        } else {
            assert!(self.performed >= self.durable, "durable, not performed, and gone");
        }
    }
}

fn run_seeds(name: &str, seeds: u64, shape: Shape, tearing: Tearing) {
    let (mut cuts, mut crashes, mut failures) = (0, 0, 0);
    for_each_seed(name, seeds, |seed| {
        let mut run = Run::new(seed, shape, tearing);
        run.go();
        cuts += run.cuts;
        crashes += run.crashes;
        failures += run.failures;
    });
    println!(
        "{name}: {cuts} cuts of the power, {crashes} crashes, {failures} failed requests survived"
    );
}

#[test]
fn a_cut_at_every_request_of_a_journal() {
    run_seeds("a_cut_at_every_request_of_a_journal", 100, V2, Tearing::AtAnyByte);
}

#[test]
fn a_cut_at_every_request_of_a_journal_in_the_format_of_2015() {
    let name = "a_cut_at_every_request_of_a_journal_in_the_format_of_2015";
    run_seeds(name, 40, Shape::V1, Tearing::Never);
}
