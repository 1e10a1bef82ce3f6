//! The two ends as they are meant to be used: pressure, suspension, crashes, failures of the disk.

use super::disk::SimDisk;
use super::{
    SECTOR_BYTES, V2, advance, consumer, disk_with, failed, fetch, fetch_all, payload, producer,
    publish, refresh, run, try_consumer, try_producer,
};
use crate::{
    Completion, Config, Consumer, ConsumerEvent, Error, Machine, Position, Producer, ProducerEvent,
    PushError, Refused, Request, Shape,
};

/// The lengths and batches of the tests of 2015, which did not vary them in truth; through more than
/// two times the ring.
#[test]
fn every_length_in_every_batch_more_than_twice_around_the_ring() {
    for shape in [Shape::V1, V2, Shape::V2 { page_bytes: 2_048, identity: 1 }] {
        for len in [0, 1, 507, 508, 509, 2_000] {
            for batch in 1..=5 {
                let mut disk = disk_with(shape, 48);
                let (mut producer, mut consumer) = (producer(&mut disk), consumer(&mut disk));
                let (mut pushed, mut popped) = (0, 0);
                while consumer.consumed().to_u64() < 2 * 48 * SECTOR_BYTES as u64 {
                    for _ in 0..batch {
                        producer.push(&payload(pushed, len)).expect("room for a batch");
                        pushed += 1;
                    }
                    publish(&mut producer, &mut disk).unwrap();
                    for item in fetch_all(&mut consumer, &mut disk).unwrap() {
                        assert_eq!(item.payload, payload(popped, len));
                        popped += 1;
                        advance(&mut consumer, &mut disk, item.end).unwrap();
                    }
                    assert_eq!(popped, pushed);
                    refresh(&mut producer, &mut disk).unwrap();
                }
            }
        }
    }
}

/// Fills a ring with items of `len` bytes in one batch, and counts them.
fn capacity(shape: Shape, sectors: u64, len: usize) -> usize {
    let mut disk = disk_with(shape, sectors);
    let config = Config { batch_bytes_max: usize::MAX, ..Config::default() };
    let mut producer = try_producer(&mut disk, config).unwrap();
    let count = (0..).take_while(|number| producer.push(&payload(*number, len)).is_ok()).count();
    assert_eq!(producer.counters().refused_ring_full, 1);
    publish(&mut producer, &mut disk).unwrap();
    let items = fetch_all(&mut consumer(&mut disk), &mut disk).unwrap();
    assert_eq!(items.len(), count);
    count
}

#[test]
fn a_ring_holds_exactly_what_its_pages_hold() {
    // 29 data sectors.
    assert_eq!(capacity(Shape::V1, 32, 508), 29);
    assert_eq!(capacity(Shape::V1, 32, 509), 28, "516 bytes each");
    assert_eq!(capacity(Shape::V1, 32, 0), 29 * 128);
    // 27 data pages with 488 bytes for items.
    assert_eq!(capacity(V2, 32, 484), 27);
    assert_eq!(capacity(V2, 32, 485), 26);
    assert_eq!(capacity(V2, 32, 0), 27 * 122);
    // 3 data pages of 2,048 bytes.
    assert_eq!(capacity(Shape::V2 { page_bytes: 2_048, identity: 1 }, 32, 2_020), 3);
}

#[test]
fn the_longest_item_fits_wherever_the_ring_is() {
    for (shape, longest) in [(Shape::V1, 4 * 512), (V2, 5 * 488 - 4)] {
        let sectors = if shape == Shape::V1 { 8 } else { 10 };
        let mut disk = disk_with(shape, sectors);
        let (mut producer, mut consumer) = (producer(&mut disk), consumer(&mut disk));
        for number in 0..200 {
            // Little ones, so that the longest begins in each place of a page.
            for len in [number % 7 * 4, longest] {
                producer.push(&payload(number, len)).expect("everything has been consumed");
                publish(&mut producer, &mut disk).unwrap();
                let items = fetch_all(&mut consumer, &mut disk).unwrap();
                assert_eq!(items[0].payload, payload(number, len));
                advance(&mut consumer, &mut disk, items[0].end).unwrap();
                refresh(&mut producer, &mut disk).unwrap();
            }
        }
        let refused = producer.push(&payload(0, longest + 1));
        assert_eq!(refused, Err(PushError::TooLarge { max: longest as u64 }));
        assert_eq!(producer.counters().refused_too_large, 1);
    }
}

#[test]
fn nobody_sees_what_is_not_published() {
    let mut disk = disk_with(V2, 32);
    let (mut producer, mut consumer) = (producer(&mut disk), consumer(&mut disk));
    producer.push(b"one").unwrap();
    assert_eq!(fetch(&mut consumer, &mut disk), Ok(Vec::new()));
    assert!(producer.has_unpublished());
    publish(&mut producer, &mut disk).unwrap();
    assert!(!producer.has_unpublished());
    assert_eq!(fetch(&mut consumer, &mut disk).unwrap().len(), 1);
    assert_eq!(producer.publish(), Err(Refused::Nothing));
}

#[test]
fn a_full_ring_says_what_must_be_consumed_first() {
    for shape in [V2, Shape::V1] {
        let mut disk = disk_with(shape, 11);
        let (mut producer, mut consumer) = (producer(&mut disk), consumer(&mut disk));
        let refused = loop {
            match producer.push(&payload(0, 700)) {
                Ok(_) => _ = publish(&mut producer, &mut disk).unwrap(),
                Err(refused) => break refused,
            }
        };
        let PushError::RingFull { consume_to } = refused else { panic!("{refused}") };
        assert!(consume_to > Position(0) && consume_to <= producer.published());
        for item in fetch_all(&mut consumer, &mut disk).unwrap() {
            advance(&mut consumer, &mut disk, item.end).unwrap();
            refresh(&mut producer, &mut disk).unwrap();
            assert_eq!(producer.consumed(), item.end);
            assert_eq!(producer.push(&payload(0, 700)).is_ok(), item.end >= consume_to);
            if item.end >= consume_to {
                break;
            }
        }
    }
}

#[test]
fn a_batch_has_a_ceiling_and_one_item_is_always_taken() {
    let mut disk = disk_with(V2, 64);
    let config = Config { batch_bytes_max: 1_024, item_bytes_max: 2_000, fetch_bytes_max: 1 };
    let mut producer = try_producer(&mut disk, config).unwrap();
    producer.push(&payload(0, 2_000)).unwrap();
    assert_eq!(producer.push(&[]), Err(PushError::BatchFull));
    assert_eq!(producer.push(&payload(0, 2_001)), Err(PushError::TooLarge { max: 2_000 }));
    publish(&mut producer, &mut disk).unwrap();
    for _ in 0..2 {
        producer.push(&payload(1, 480)).unwrap();
    }
    assert_eq!(producer.push(&payload(1, 480)), Err(PushError::BatchFull));
    assert_eq!(producer.counters().refused_batch_full, 2);
    publish(&mut producer, &mut disk).unwrap();
    // A page at a time.
    let mut consumer = try_consumer(&mut disk, config).unwrap();
    disk.reads = 0;
    assert_eq!(fetch(&mut consumer, &mut disk).unwrap().len(), 1);
    assert_eq!((disk.reads, consumer.has_more()), (5, true));
    assert_eq!(fetch_all(&mut consumer, &mut disk).unwrap().len(), 2);
}

#[test]
fn a_consumer_refuses_items_that_are_longer_than_it_takes() {
    let mut disk = disk_with(V2, 64);
    let mut producer = producer(&mut disk);
    producer.push(&payload(0, 100)).unwrap();
    producer.push(&payload(1, 101)).unwrap();
    publish(&mut producer, &mut disk).unwrap();
    let config = Config { item_bytes_max: 100, ..Config::default() };
    let mut consumer = try_consumer(&mut disk, config).unwrap();
    let what = "an item is longer than this end takes";
    let error = Error::Corrupt { sector: 5, what };
    assert_eq!(fetch(&mut consumer, &mut disk), Err(error.clone()));
    assert_eq!(consumer.counters().too_large, 1);
    // What came before it is there.
    assert_eq!(consumer.fetch(), Err(Refused::NotPopped));
    let item = consumer.pop().unwrap();
    assert_eq!((item.payload, consumer.pop()), (payload(0, 100), None));
    advance(&mut consumer, &mut disk, item.end).unwrap();
    // A consumer that takes it goes on there.
    let items = fetch_all(&mut super::consumer(&mut disk), &mut disk).unwrap();
    assert_eq!(items[0].payload, payload(1, 101));
    assert_eq!(fetch(&mut consumer, &mut disk), Err(error));
}

fn wish(consumer: &mut Consumer, disk: &mut SimDisk) -> Option<ConsumerEvent> {
    run(consumer, disk);
    consumer.poll_event()
}

fn refresh_consumer(consumer: &mut Consumer, disk: &mut SimDisk) {
    consumer.refresh().unwrap();
    run(consumer, disk);
    assert_eq!(consumer.poll_event(), Some(ConsumerEvent::Refreshed));
}

#[test]
fn a_suspension_is_acknowledged_and_then_nothing_is_written() {
    for shape in [V2, Shape::V1] {
        let mut disk = disk_with(shape, 32);
        let (mut producer, mut consumer) = (producer(&mut disk), consumer(&mut disk));
        producer.push(b"published").unwrap();
        publish(&mut producer, &mut disk).unwrap();
        producer.push(b"not yet").unwrap();

        consumer.suspend().unwrap();
        assert_eq!(wish(&mut consumer, &mut disk), Some(ConsumerEvent::Wished));
        assert!(!consumer.is_suspended(), "nobody has acknowledged it");
        // Changing one's mind has to wait.
        assert_eq!(consumer.resume(), Err(Refused::NotAcknowledged));

        refresh(&mut producer, &mut disk).unwrap();
        assert!(producer.is_suspended());
        assert_eq!(producer.push(b"no"), Err(PushError::Suspended));
        assert_eq!(producer.publish(), Err(Refused::Suspended));
        assert_eq!(producer.counters().refused_suspended, 1);
        let before = disk.seen.clone();
        refresh(&mut producer, &mut disk).unwrap();
        assert_eq!(disk.seen, before);

        // What is published can be consumed meanwhile.
        refresh_consumer(&mut consumer, &mut disk);
        assert!(consumer.is_suspended());
        let items = fetch_all(&mut consumer, &mut disk).unwrap();
        advance(&mut consumer, &mut disk, items[0].end).unwrap();
        assert_eq!((items.len(), consumer.is_suspended()), (1, true));
        // To suspend once more changes nothing.
        consumer.suspend().unwrap();
        assert_eq!(wish(&mut consumer, &mut disk), Some(ConsumerEvent::Wished));

        consumer.resume().unwrap();
        assert_eq!(wish(&mut consumer, &mut disk), Some(ConsumerEvent::Wished));
        assert_eq!(consumer.suspend(), Err(Refused::NotAcknowledged));
        assert_eq!(producer.push(b"no"), Err(PushError::Suspended));
        refresh(&mut producer, &mut disk).unwrap();
        assert!(!producer.is_suspended());
        publish(&mut producer, &mut disk).unwrap();
        let items = fetch_all(&mut consumer, &mut disk).unwrap();
        assert_eq!(items[0].payload, b"not yet");
        assert!(!consumer.is_suspended());
    }
}

#[test]
fn a_suspension_outlives_both_ends() {
    let mut disk = disk_with(V2, 32);
    let mut first = consumer(&mut disk);
    first.suspend().unwrap();
    wish(&mut first, &mut disk);
    let mut producer = producer(&mut disk);
    assert!(producer.is_suspended(), "attaching acknowledges it");
    producer.detach().unwrap();
    let mut second = consumer(&mut disk);
    assert!(second.is_suspended());
    second.resume().unwrap();
    wish(&mut second, &mut disk);
    let mut producer = super::producer(&mut disk);
    assert!(!producer.is_suspended());
    producer.push(b"on").unwrap();
    publish(&mut producer, &mut disk).unwrap();
}

#[test]
fn who_attaches_goes_on_where_the_one_before_was() {
    for shape in [V2, Shape::V1] {
        let mut disk = disk_with(shape, 32);
        let mut published = 0;
        for round in 0..20 {
            let mut producer = producer(&mut disk);
            for _ in 0..3 {
                producer.push(&payload(published, 100 + round)).unwrap();
                published += 1;
            }
            publish(&mut producer, &mut disk).unwrap();
            // Never published, and lost.
            producer.push(b"lost").unwrap();

            let mut consumer = consumer(&mut disk);
            let items = fetch_all(&mut consumer, &mut disk).unwrap();
            let first = published - items.len();
            for (number, item) in (first..).zip(&items) {
                assert_eq!(item.payload[..90], payload(number, 90));
            }
            // All but the last two, which the next one gets.
            let end = items[items.len() - 3].end;
            advance(&mut consumer, &mut disk, end).unwrap();
            assert_eq!(items.len(), if round == 0 { 3 } else { 5 });
        }
    }
}

#[test]
fn detaching_is_refused_while_something_would_be_lost() {
    let mut disk = disk_with(V2, 32);
    let mut producer = producer(&mut disk);
    assert_eq!(producer.attach(), Err(Refused::Attached));
    producer.push(b"x").unwrap();
    assert_eq!(producer.detach(), Err(Refused::Unpublished));
    producer.publish().unwrap();
    for refused in [producer.detach(), producer.abandon(), producer.refresh(), producer.publish()] {
        assert_eq!(refused, Err(Refused::Busy));
    }
    assert_eq!(producer.attach(), Err(Refused::Busy));
    run(&mut producer, &mut disk);
    producer.push(b"y").unwrap();
    producer.abandon().unwrap();
    for refused in [producer.detach(), producer.abandon(), producer.refresh(), producer.publish()] {
        assert_eq!(refused, Err(Refused::NotAttached));
    }
    assert_eq!(producer.push(b"x"), Err(PushError::NotAttached));
    producer.attach().unwrap();
    run(&mut producer, &mut disk);
    assert_eq!(producer.poll_event(), Some(ProducerEvent::Attached));
    assert!(!producer.has_unpublished());

    let mut consumer = consumer(&mut disk);
    assert_eq!(consumer.attach(), Err(Refused::Attached));
    consumer.fetch().unwrap();
    for refused in [
        consumer.attach(),
        consumer.detach(),
        consumer.fetch(),
        consumer.refresh(),
        consumer.suspend(),
        consumer.advance(Position(1)),
    ] {
        assert_eq!(refused, Err(Refused::Busy));
    }
    run(&mut consumer, &mut disk);
    assert!(consumer.pop().is_some());
    consumer.detach().unwrap();
    for refused in [
        consumer.detach(),
        consumer.fetch(),
        consumer.refresh(),
        consumer.resume(),
        consumer.advance(Position(1)),
    ] {
        assert_eq!(refused, Err(Refused::NotAttached));
    }
    consumer.attach().unwrap();
    run(&mut consumer, &mut disk);
    assert_eq!(fetch_all(&mut consumer, &mut disk).unwrap().len(), 1, "it was not advanced past");
}

#[test]
fn a_consumer_advances_to_what_it_has_popped() {
    let mut disk = disk_with(V2, 32);
    let (mut producer, mut consumer) = (producer(&mut disk), consumer(&mut disk));
    let ends = [(); 3].map(|()| producer.push(b"item").unwrap());
    publish(&mut producer, &mut disk).unwrap();
    consumer.fetch().unwrap();
    run(&mut consumer, &mut disk);
    assert_eq!(consumer.advance(ends[0]), Err(Refused::NotPassed));
    let first = consumer.pop().unwrap();
    assert_eq!(first.end, ends[0]);
    assert_eq!(consumer.advance(ends[1]), Err(Refused::NotPassed));
    assert_eq!(consumer.advance(Position(0)), Err(Refused::NotPassed));
    advance(&mut consumer, &mut disk, first.end).unwrap();
    assert_eq!(consumer.advance(first.end), Err(Refused::NotPassed));
    // Where the producer said that the last one ends, which is before the end of its page.
    while consumer.pop().is_some() {}
    advance(&mut consumer, &mut disk, ends[2]).unwrap();
    let mut other = super::consumer(&mut disk);
    assert_eq!(fetch_all(&mut other, &mut disk), Ok(Vec::new()));
    producer.push(b"next").unwrap();
    publish(&mut producer, &mut disk).unwrap();
    assert_eq!(fetch_all(&mut other, &mut disk).unwrap().len(), 1);
}

#[test]
fn a_command_whose_request_fails_can_be_given_again() {
    for shape in [V2, Shape::V1] {
        let mut disk = disk_with(shape, 32);
        let mut producer = Producer::new(disk.size(), Config::default());
        let mut consumer = Consumer::new(disk.size(), Config::default());
        // Fails each request of a command in turn, and then lets it succeed.
        macro_rules! fail_each {
            ($machine:ident, $command:expr) => {
                for failing in 0.. {
                    $command;
                    let mut completed = 0;
                    while let Some(request) = $machine.poll_request() {
                        let fails = completed == failing;
                        completed += 1;
                        $machine.handle_completion(if fails {
                            failed()
                        } else {
                            disk.run(&request)
                        });
                    }
                    if completed <= failing {
                        break;
                    }
                    let event = format!("{:?}", $machine.poll_event());
                    assert!(event.contains("Failed(Disk"), "{event}");
                }
            };
        }
        fail_each!(producer, producer.attach().unwrap());
        fail_each!(consumer, consumer.attach().unwrap());
        producer.push(b"one").unwrap();
        fail_each!(producer, producer.publish().unwrap());
        assert!(matches!(producer.poll_event(), Some(ProducerEvent::Published(_))));
        fail_each!(consumer, consumer.fetch().unwrap());
        let item = consumer.pop().unwrap();
        fail_each!(consumer, consumer.advance(item.end).unwrap());
        assert_eq!(consumer.poll_event(), Some(ConsumerEvent::Advanced(item.end)));
        fail_each!(consumer, consumer.suspend().unwrap());
        fail_each!(producer, producer.refresh().unwrap());
        assert!(producer.is_suspended());
        assert!(producer.counters().failures > 8 && consumer.counters().failures > 8);
    }
}

/// The header of a publication may have come to the disk although that failed, and somebody may have
/// seen it.
#[test]
fn a_publication_that_failed_is_finished_before_a_suspension_is_acknowledged() {
    let mut disk = disk_with(V2, 32);
    let (mut producer, mut consumer) = (producer(&mut disk), consumer(&mut disk));
    producer.push(b"one").unwrap();
    producer.publish().unwrap();
    loop {
        let request = producer.poll_request().unwrap();
        let completion = disk.run(&request);
        if matches!(request, Request::Write { sector: 1..3, .. }) {
            producer.handle_completion(failed());
            break;
        }
        producer.handle_completion(completion);
    }
    let items = fetch_all(&mut consumer, &mut disk).unwrap();
    advance(&mut consumer, &mut disk, items[0].end).unwrap();
    consumer.suspend().unwrap();
    wish(&mut consumer, &mut disk);
    // The consumer is further than the producer knows to be published, and that is no lie.
    refresh(&mut producer, &mut disk).unwrap();
    refresh_consumer(&mut consumer, &mut disk);
    assert!(!consumer.is_suspended());
    producer.publish().unwrap();
    run(&mut producer, &mut disk);
    assert!(matches!(producer.poll_event(), Some(ProducerEvent::Published(_))));
    refresh(&mut producer, &mut disk).unwrap();
    refresh_consumer(&mut consumer, &mut disk);
    assert!(consumer.is_suspended());
}

#[test]
fn a_publication_is_pages_flush_header_flush() {
    let mut disk = disk_with(V2, 12);
    let mut producer = producer(&mut disk);
    let mut trace = Vec::new();
    for number in 0..3 {
        for _ in 0..2 {
            producer.push(&payload(number, 484)).unwrap();
        }
        producer.push(&payload(number, 10)).unwrap();
        producer.publish().unwrap();
        while let Some(request) = producer.poll_request() {
            trace.push(match &request {
                Request::Read { sector, count } => format!("read {count} at {sector}"),
                Request::Write { sector, data } => {
                    format!("write {} at {sector}", data.len() / 512)
                }
                Request::Flush => "flush".into(),
            });
            producer.handle_completion(disk.run(&request));
        }
        let mut consumer = consumer(&mut disk);
        let items = fetch_all(&mut consumer, &mut disk).unwrap();
        advance(&mut consumer, &mut disk, items[2].end).unwrap();
        refresh(&mut producer, &mut disk).unwrap();
    }
    let expected = [
        "write 3 at 5",
        "flush",
        "write 1 at 1",
        "flush",
        "write 3 at 8",
        "flush",
        "write 1 at 2",
        "flush",
        // Seven data pages: around the ring's end.
        "write 1 at 11",
        "write 2 at 5",
        "flush",
        "write 1 at 1",
        "flush",
    ];
    assert_eq!(trace, expected);
}

#[test]
fn completions_that_nobody_waits_for_are_ignored_and_wrong_ones_are_errors() {
    let mut disk = disk_with(V2, 32);
    let mut producer = producer(&mut disk);
    producer.handle_completion(Completion::Done);
    assert_eq!(producer.poll_event(), None);
    let mut consumer = consumer(&mut disk);
    consumer.handle_completion(failed());
    assert_eq!(consumer.poll_event(), None);
    for wrong in [Completion::Done, Completion::Read(vec![0; 4 * 512 - 1])] {
        producer.refresh().unwrap();
        producer.poll_request().unwrap();
        producer.handle_completion(wrong);
        let event = producer.poll_event();
        assert!(matches!(event, Some(ProducerEvent::Failed(Error::Disk(_)))), "{event:?}");
    }
    producer.push(b"x").unwrap();
    producer.publish().unwrap();
    producer.poll_request().unwrap();
    producer.handle_completion(Completion::Read(vec![]));
    let event = producer.poll_event();
    assert!(matches!(event, Some(ProducerEvent::Failed(Error::Disk(_)))), "{event:?}");
}

/// Somebody may be reading them.
#[test]
fn pages_that_have_been_flushed_are_not_written_again_when_the_header_fails() {
    for failing in 0..4 {
        let mut disk = disk_with(V2, 16);
        let mut producer = producer(&mut disk);
        producer.push(b"one").unwrap();
        producer.publish().unwrap();
        for _ in 0..failing {
            let request = producer.poll_request().unwrap();
            producer.handle_completion(disk.run(&request));
        }
        producer.poll_request().unwrap();
        producer.handle_completion(failed());
        producer.publish().unwrap();
        let first = producer.poll_request().unwrap();
        let writes_pages = matches!(first, Request::Write { sector: 5, .. });
        assert_eq!(writes_pages, failing < 2, "at request {failing}: {first:?}");
        producer.handle_completion(disk.run(&first));
        run(&mut producer, &mut disk);
        assert_eq!(producer.poll_event(), Some(ProducerEvent::Published(Position(512))));
        let items = fetch_all(&mut consumer(&mut disk), &mut disk).unwrap();
        assert_eq!(items[0].payload, b"one");
    }
}
