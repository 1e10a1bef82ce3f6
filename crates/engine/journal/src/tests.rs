//! Tests of the crate, a room for each subject.

mod bytes;
mod create;
mod cuts;
mod disk;
mod errors;
mod hostile;
mod journal;
mod journal_cuts;
mod ring;

use crate::{Completion, Config, Consumer, ConsumerEvent, Create, Created, Disk, Error, Existing};
use crate::{Item, Machine, Position, Producer, ProducerEvent, Shape};
use disk::SimDisk;

const SECTOR_BYTES: usize = 512;

/// Our format with pages of one sector.
const V2: Shape = Shape::V2 { page_bytes: SECTOR_BYTES, identity: 0x1dea };

/// Runs a command to its end.
fn run(machine: &mut dyn Machine, disk: &mut SimDisk) {
    for _ in 0..10_000 {
        let Some(request) = machine.poll_request() else { return };
        assert_eq!(machine.poll_request(), None, "one request at a time");
        machine.handle_completion(disk.run(&request));
    }
    panic!("a command without end");
}

fn try_create(disk: &mut SimDisk, shape: Shape, existing: Existing) -> Result<Created, Error> {
    let mut create = Create::new(disk.size(), shape, existing);
    run(&mut create, disk);
    create.poll_outcome().expect("an outcome")
}

/// A disk with a new ring.
fn disk_with(shape: Shape, sector_count: u64) -> SimDisk {
    let mut disk = SimDisk::new(Disk { sector_bytes: SECTOR_BYTES, sector_count });
    assert_eq!(try_create(&mut disk, shape, Existing::Keep), Ok(Created::New));
    disk
}

fn try_producer(disk: &mut SimDisk, config: Config) -> Result<Producer, Error> {
    let mut producer = Producer::new(disk.size(), config);
    producer.attach().expect("a new one");
    run(&mut producer, disk);
    match producer.poll_event() {
        Some(ProducerEvent::Attached) => Ok(producer),
        Some(ProducerEvent::Failed(error)) => Err(error),
        event => panic!("{event:?}"),
    }
}

fn producer(disk: &mut SimDisk) -> Producer {
    try_producer(disk, Config::default()).expect("attached")
}

fn try_consumer(disk: &mut SimDisk, config: Config) -> Result<Consumer, Error> {
    let mut consumer = Consumer::new(disk.size(), config);
    consumer.attach().expect("a new one");
    run(&mut consumer, disk);
    match consumer.poll_event() {
        Some(ConsumerEvent::Attached) => Ok(consumer),
        Some(ConsumerEvent::Failed(error)) => Err(error),
        event => panic!("{event:?}"),
    }
}

fn consumer(disk: &mut SimDisk) -> Consumer {
    try_consumer(disk, Config::default()).expect("attached")
}

fn publish(producer: &mut Producer, disk: &mut SimDisk) -> Result<Position, Error> {
    producer.publish().expect("something to publish");
    run(producer, disk);
    match producer.poll_event() {
        Some(ProducerEvent::Published(position)) => Ok(position),
        Some(ProducerEvent::Failed(error)) => Err(error),
        event => panic!("{event:?}"),
    }
}

fn refresh(producer: &mut Producer, disk: &mut SimDisk) -> Result<(), Error> {
    producer.refresh().expect("idle");
    run(producer, disk);
    match producer.poll_event() {
        Some(ProducerEvent::Refreshed) => Ok(()),
        Some(ProducerEvent::Failed(error)) => Err(error),
        event => panic!("{event:?}"),
    }
}

/// Fetches once, and pops what is there.
fn fetch(consumer: &mut Consumer, disk: &mut SimDisk) -> Result<Vec<Item>, Error> {
    consumer.fetch().expect("idle");
    run(consumer, disk);
    match consumer.poll_event() {
        Some(ConsumerEvent::Fetched) => Ok(std::iter::from_fn(|| consumer.pop()).collect()),
        Some(ConsumerEvent::Failed(error)) => Err(error),
        event => panic!("{event:?}"),
    }
}

/// Fetches until there is nothing new.
fn fetch_all(consumer: &mut Consumer, disk: &mut SimDisk) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    loop {
        let some = fetch(consumer, disk)?;
        if some.is_empty() {
            return Ok(items);
        }
        items.extend(some);
    }
}

fn advance(
    consumer: &mut Consumer,
    disk: &mut SimDisk,
    position: Position,
) -> Result<Position, Error> {
    consumer.advance(position).expect("a position that was popped");
    run(consumer, disk);
    match consumer.poll_event() {
        Some(ConsumerEvent::Advanced(position)) => Ok(position),
        Some(ConsumerEvent::Failed(error)) => Err(error),
        event => panic!("{event:?}"),
    }
}

/// A payload that tells its number and its length.
fn payload(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|index| (number * 31 + index * 7 + 1) as u8).collect()
}

/// SplitMix64.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `times` times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// A failed request's completion.
fn failed() -> Completion {
    Completion::Failed("no luck".into())
}
