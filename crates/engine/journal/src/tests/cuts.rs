//! The power fails at every request of a run: what was acknowledged is there, in order, and each
//! publication and each advance happened whole or not at all.

use super::disk::{SimDisk, Tearing};
use super::{
    Random, SECTOR_BYTES, advance, disk_with, failed, fetch_all, publish, refresh, try_consumer,
    try_producer,
};
use crate::{
    Config, Consumer, ConsumerEvent, Error, Machine, Position, Producer, ProducerEvent, PushError,
    Request, Shape, Side,
};

const ITEMS_PER_RUN: usize = 1_000;
/// Ways to lose power that are tried at each request.
const CUTS_PER_REQUEST: usize = 2;

/// So that a batch and a fetch are a few pages only.
const CONFIG: Config =
    Config { item_bytes_max: 1_800, batch_bytes_max: 3_000, fetch_bytes_max: 2_048 };

/// Something that may have happened: counted in items, and where that is in the ring.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    items: usize,
    position: u64,
}

/// One end's state: what was acknowledged, and what was begun since, each later than the one before.
#[derive(Clone, Debug, Default)]
struct Edge {
    acknowledged: Mark,
    begun: Vec<Mark>,
}

impl Edge {
    fn latest(&self) -> Mark {
        self.begun.last().copied().unwrap_or(self.acknowledged)
    }

    /// What it turned out to be.
    fn find(&self, position: u64) -> Mark {
        assert!(position >= self.acknowledged.position, "{position} of {self:?}");
        let begun = self.begun.iter().rev().find(|mark| mark.position <= position);
        Mark { position, ..*begun.unwrap_or(&self.acknowledged) }
    }

    fn settle(&mut self, mark: Mark) {
        self.acknowledged = mark;
        self.begun.clear();
    }
}

/// Two ends, each with one request under way at a time, and the disk takes them in any order.
struct Run {
    random: Random,
    disk: SimDisk,
    tearing: Tearing,
    producer: Producer,
    consumer: Consumer,
    /// The producer's request that is under way, and the consumer's.
    running: [Option<Request>; 2],
    published: Edge,
    consumed: Edge,
    /// Items pushed so far, and where the last one ends.
    pushed: Mark,
    /// Items popped so far, and where the last one ends.
    popped: Mark,
    cuts: usize,
    crashes: usize,
    failures: usize,
}

/// The item of this number: the number itself, and a length that follows from it.
fn item(number: usize) -> Vec<u8> {
    let len = match Random(number as u64).below(16) {
        0 => 0,
        1 => 508,
        2 => 488,
        3 => Random(!(number as u64)).below(CONFIG.item_bytes_max + 1),
        _ => Random(!(number as u64)).below(120),
    };
    let mut bytes = super::payload(number, len);
    let number = (number as u32).to_le_bytes();
    bytes.iter_mut().zip(number).for_each(|(byte, number)| *byte = number);
    bytes
}

impl Run {
    fn new(seed: u64, shape: Shape, tearing: Tearing) -> Self {
        let mut random = Random(seed);
        let sectors = match shape {
            Shape::V1 => 3 + 6 + random.below(12),
            Shape::V2 { page_bytes, .. } => page_bytes / SECTOR_BYTES * (5 + 6 + random.below(12)),
        };
        let mut disk = disk_with(shape, sectors as u64);
        Run {
            producer: try_producer(&mut disk, CONFIG).unwrap(),
            consumer: try_consumer(&mut disk, CONFIG).unwrap(),
            running: [None, None],
            random,
            disk,
            tearing,
            published: Edge::default(),
            consumed: Edge::default(),
            pushed: Mark::default(),
            popped: Mark::default(),
            cuts: 0,
            crashes: 0,
            failures: 0,
        }
    }

    fn go(&mut self) {
        // Some ten thousand are enough.
        for _ in 0..200_000 {
            if self.consumed.acknowledged.items >= ITEMS_PER_RUN {
                return;
            }
            let side = if self.random.once_in(2) { Side::Producer } else { Side::Consumer };
            if self.running[side as usize].is_some() {
                self.complete(side);
            } else if let Some(request) = self.machine(side).poll_request() {
                self.running[side as usize] = Some(request);
                for _ in 0..CUTS_PER_REQUEST {
                    self.check_a_cut();
                }
                self.maybe_crash(side);
            } else {
                match side {
                    Side::Producer => self.go_on_producing(),
                    Side::Consumer => self.go_on_consuming(),
                }
            }
        }
        panic!("a run without end");
    }

    fn machine(&mut self, side: Side) -> &mut dyn Machine {
        match side {
            Side::Producer => &mut self.producer,
            Side::Consumer => &mut self.consumer,
        }
    }

    /// The disk does what a side has asked for, or fails.
    fn complete(&mut self, side: Side) {
        let Some(request) = self.running[side as usize].take() else { return };
        if let (Request::Read { .. }, Some(other)) = (&request, &self.running[1 - side as usize]) {
            // It sees a part of what the other one is writing.
            if let (Request::Write { .. }, true) = (other, self.random.once_in(2)) {
                self.disk.fail(other, &mut self.random, self.tearing);
            }
        }
        // A flush that failed tells nobody but who asked for it.
        let can_fail = !matches!(request, Request::Flush) || self.is_idle(side.other());
        let completion = if can_fail && self.random.once_in(60) {
            self.disk.fail(&request, &mut self.random, self.tearing);
            failed()
        } else {
            self.disk.run(&request)
        };
        self.machine(side).handle_completion(completion);
    }

    fn is_idle(&self, side: Side) -> bool {
        match side {
            Side::Producer => self.producer.is_idle(),
            Side::Consumer => self.consumer.is_idle(),
        }
    }

    /// Sometimes the power fails, and sometimes one end crashes, and the run goes on with others.
    fn maybe_crash(&mut self, side: Side) {
        match self.random.below(150) {
            0 => {
                let running: Vec<_> = self.running.iter().flatten().collect();
                self.disk = self.disk.after_power_cut(&running, &mut self.random, self.tearing);
                self.begin_producer();
                self.begin_consumer();
            }
            1 => {
                // The disk goes on with what it was asked for, and comes to some point with it.
                let request = self.running[side as usize].take();
                if let Some(request @ Request::Write { .. }) = request {
                    self.disk.fail(&request, &mut self.random, self.tearing);
                }
                match side {
                    Side::Producer => self.begin_producer(),
                    Side::Consumer => self.begin_consumer(),
                }
            }
            _ => return,
        }
        self.crashes += 1;
    }

    fn go_on_producing(&mut self) {
        match self.producer.poll_event() {
            Some(ProducerEvent::Published(position)) => {
                let mark = self.published.find(position.to_u64());
                assert_eq!(mark.items, self.published.latest().items);
                self.published.settle(mark);
            }
            Some(ProducerEvent::Refreshed) => {}
            Some(ProducerEvent::Failed(Error::Disk(_))) => self.failures += 1,
            Some(event) => panic!("{event:?}"),
            None => match self.random.below(50) {
                0..25 => self.push(),
                25..40 => self.publish(),
                40..49 => self.producer.refresh().unwrap(),
                _ => {
                    self.producer.abandon().unwrap();
                    self.begin_producer();
                }
            },
        }
    }

    fn push(&mut self) {
        for _ in 0..self.random.below(6) {
            match self.producer.push(&item(self.pushed.items)) {
                Ok(position) => {
                    self.pushed.items += 1;
                    self.pushed.position = position.to_u64();
                }
                Err(PushError::BatchFull | PushError::RingFull { .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn publish(&mut self) {
        if self.published.begun.is_empty() {
            if !self.producer.has_unpublished() {
                return;
            }
            self.published.begun.push(self.pushed);
        }
        // What failed before is published as it was, and nothing else.
        self.producer.publish().unwrap();
    }

    fn go_on_consuming(&mut self) {
        while let Some(popped) = self.consumer.pop() {
            assert_eq!(popped.payload, item(self.popped.items), "in order, and whole");
            self.popped.items += 1;
            self.popped.position = popped.end.to_u64();
            assert!(self.popped.items <= self.published.latest().items, "never published");
        }
        match self.consumer.poll_event() {
            Some(ConsumerEvent::Advanced(position)) => {
                let mark = self.consumed.find(position.to_u64());
                let begun = self.consumed.latest();
                assert_eq!((mark.items, mark.position), (begun.items, begun.position));
                self.consumed.settle(mark);
            }
            Some(ConsumerEvent::Fetched) => {}
            Some(ConsumerEvent::Failed(Error::Disk(_))) => self.failures += 1,
            Some(event) => panic!("{event:?}"),
            None => match self.random.below(50) {
                0..25 => self.consumer.fetch().unwrap(),
                25..49 if self.popped.items > self.consumed.acknowledged.items => {
                    self.consumed.begun.push(self.popped);
                    self.consumer.advance(Position(self.popped.position)).unwrap();
                }
                25..49 => {}
                _ => {
                    self.consumer.detach().unwrap();
                    self.begin_consumer();
                }
            },
        }
    }

    /// A new producer on the disk as it is.
    fn begin_producer(&mut self) {
        self.running[Side::Producer as usize] = None;
        self.producer = try_producer(&mut self.disk, CONFIG).unwrap();
        let published = self.published.find(self.producer.published().to_u64());
        self.published.settle(published);
        self.pushed = published;
    }

    /// A new consumer on the disk as it is.
    fn begin_consumer(&mut self) {
        self.running[Side::Consumer as usize] = None;
        self.consumer = try_consumer(&mut self.disk, CONFIG).unwrap();
        let consumed = self.consumed.find(self.consumer.consumed().to_u64());
        self.consumed.settle(consumed);
        self.popped = consumed;
    }

    /// The power fails now. What is left is looked at, and the run goes on as if it had not.
    fn check_a_cut(&mut self) {
        self.cuts += 1;
        let running: Vec<_> = self.running.iter().flatten().collect();
        let mut disk = self.disk.after_power_cut(&running, &mut self.random, self.tearing);
        let mut consumer = try_consumer(&mut disk, CONFIG).expect("the consumer attaches");
        let producer = try_producer(&mut disk, CONFIG).expect("the producer attaches");
        let published = self.published.find(producer.published().to_u64());
        let consumed = self.consumed.find(consumer.consumed().to_u64());
        let items = fetch_all(&mut consumer, &mut disk).expect("nothing is corrupt");
        assert_eq!(items.len(), published.items - consumed.items, "all, and no more");
        for (number, found) in (consumed.items..).zip(&items) {
            assert_eq!(found.payload, item(number), "in order, and whole");
        }
        if self.random.once_in(16) {
            check_it_goes_on(producer, consumer, disk, published.items);
        }
    }
}

/// A ring is as good as new after a cut.
fn check_it_goes_on(
    mut producer: Producer,
    mut consumer: Consumer,
    mut disk: SimDisk,
    published: usize,
) {
    if consumer.published() > consumer.consumed() {
        let end = consumer.published();
        assert_eq!(advance(&mut consumer, &mut disk, end), Ok(end));
    }
    refresh(&mut producer, &mut disk).unwrap();
    producer.push(&item(published)).unwrap();
    publish(&mut producer, &mut disk).unwrap();
    let items = fetch_all(&mut consumer, &mut disk).unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].payload, item(published));
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

/// Runs a test with as many seeds as `FATA_SEEDS` says, `count` by default, or with `FATA_SEED`
/// alone.
pub(super) fn for_each_seed(name: &str, count: u64, mut test: impl FnMut(u64)) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect(name));
    let seeds = match number("FATA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FATA_SEEDS").unwrap_or(count),
    };
    for seed in seeds {
        let test = std::panic::AssertUnwindSafe(|| test(seed));
        if let Err(panic) = std::panic::catch_unwind(test) {
            eprintln!("To see this again:\n  FATA_SEED={seed} cargo test -p fata-journal {name}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_cut_at_every_request_of_our_format() {
    run_seeds("a_cut_at_every_request_of_our_format", 100, super::V2, Tearing::AtAnyByte);
}

#[test]
fn a_cut_at_every_request_of_our_format_with_pages_of_many_sectors() {
    let name = "a_cut_at_every_request_of_our_format_with_pages_of_many_sectors";
    let shape = Shape::V2 { page_bytes: 4 * SECTOR_BYTES, identity: 1 };
    run_seeds(name, 40, shape, Tearing::AtAnyByte);
}

/// The format of 2015 asks for sectors that are written whole.
#[test]
fn a_cut_at_every_request_of_the_format_of_2015() {
    run_seeds("a_cut_at_every_request_of_the_format_of_2015", 40, Shape::V1, Tearing::Never);
}
