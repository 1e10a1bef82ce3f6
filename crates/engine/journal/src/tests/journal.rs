//! The journal: batches, handles, replay, retries.

use super::disk::SimDisk;
use super::{SECTOR_BYTES, V2, disk_with, failed, fetch_all, payload, producer, publish};
use crate::{
    Config, Disk, Error, Journal, JournalEvent, Position, PushError, PushRefused, Request,
    RetryPolicy, Shape,
};
use core::time::Duration;

const NOW: Duration = Duration::from_secs(100);
const RETRY: RetryPolicy =
    RetryPolicy { first: Duration::from_millis(100), max: Duration::from_millis(350) };

fn journal(disk: &SimDisk) -> Journal {
    Journal::new(disk.size(), V2, Config::default(), RETRY)
}

/// Runs requests until there are none, and returns what happened.
fn run(journal: &mut Journal, disk: &mut SimDisk) -> Vec<JournalEvent> {
    for _ in 0..10_000 {
        let Some(request) = journal.poll_request() else {
            return std::iter::from_fn(|| journal.poll_event()).collect();
        };
        assert_eq!(journal.poll_request(), None, "one request at a time");
        journal.handle_completion(NOW, disk.run(&request));
    }
    panic!("a journal that never rests");
}

fn started(disk: &mut SimDisk) -> Journal {
    let mut journal = journal(disk);
    assert_eq!(run(&mut journal, disk), [JournalEvent::Started]);
    journal
}

fn payloads(journal: &Journal) -> Vec<Vec<u8>> {
    journal.operations().iter().map(|item| item.payload.clone()).collect()
}

fn blank() -> SimDisk {
    SimDisk::new(Disk { sector_bytes: SECTOR_BYTES, sector_count: 16 })
}

#[test]
fn an_operation_is_durable_then_performed_then_forgotten() {
    let mut disk = blank();
    let mut journal = started(&mut disk);
    let token = journal.push(b"operation").unwrap();
    let page = Position(512);
    assert!(token <= page);
    let events = run(&mut journal, &mut disk);
    assert_eq!(events, [JournalEvent::Durable(page), JournalEvent::Perform { attempt: 1 }]);
    assert!(journal.durable() >= token && journal.performed() < token);
    assert_eq!(payloads(&journal), [b"operation"]);
    assert_eq!(run(&mut journal, &mut disk), [], "it waits for the program");
    journal.handle_performed(1);
    assert_eq!(run(&mut journal, &mut disk), [JournalEvent::Performed(page)]);
    assert!(journal.performed() >= token);
    assert_eq!(journal.operations(), []);
    // Nothing is replayed.
    let mut journal = started(&mut disk);
    assert_eq!(run(&mut journal, &mut disk), []);
    assert_eq!(journal.counters().replayed, 0);
}

#[test]
fn what_is_pushed_together_or_meanwhile_is_flushed_together() {
    let mut disk = blank();
    let mut journal = started(&mut disk);
    let flushes = disk.flushes;
    for number in 0..10 {
        journal.push(&payload(number, 20)).unwrap();
    }
    let first = journal.poll_request().unwrap();
    // These came while the first batch was under way.
    for number in 10..30 {
        journal.push(&payload(number, 20)).unwrap();
    }
    journal.handle_completion(NOW, disk.run(&first));
    run(&mut journal, &mut disk);
    assert_eq!(disk.flushes - flushes, 4, "two for each batch");
    assert_eq!(journal.counters().producer.publications, 2);
    // Performed are they in the same order.
    let mut performed = 0;
    while performed < 30 {
        for operation in payloads(&journal) {
            assert_eq!(operation, payload(performed, 20));
            performed += 1;
        }
        journal.handle_performed(journal.operations().len());
        run(&mut journal, &mut disk);
    }
}

#[test]
fn nothing_is_read_back_of_headers_that_the_journal_wrote_itself() {
    let mut disk = blank();
    let mut journal = started(&mut disk);
    disk.reads = 0;
    for number in 0..50 {
        journal.push(&payload(number, 20)).unwrap();
        run(&mut journal, &mut disk);
        journal.handle_performed(1);
        run(&mut journal, &mut disk);
    }
    assert_eq!((disk.reads, journal.performed()), (50, Position(50 * 512)));
}

#[test]
fn what_was_not_performed_is_replayed_in_order() {
    let mut disk = blank();
    let mut first = started(&mut disk);
    for number in 0..5 {
        first.push(&payload(number, 30)).unwrap();
    }
    run(&mut first, &mut disk);
    first.handle_performed(2);
    run(&mut first, &mut disk);
    // Performed, but nobody wrote that down.
    first.handle_performed(1);
    drop(first);

    let mut second = journal(&disk);
    let events = run(&mut second, &mut disk);
    assert_eq!(events, [JournalEvent::Started, JournalEvent::Perform { attempt: 1 }]);
    let expected: Vec<_> = (2..5).map(|number| payload(number, 30)).collect();
    assert_eq!(payloads(&second), expected);
    assert_eq!(second.counters().replayed, 3);
    // New ones come after them.
    second.push(b"new").unwrap();
    run(&mut second, &mut disk);
    assert_eq!(payloads(&second), expected);
    second.handle_performed(3);
    run(&mut second, &mut disk);
    assert_eq!(payloads(&second), [b"new"]);
    assert_eq!(second.counters().replayed, 3);
}

#[test]
fn what_fails_to_be_performed_is_tried_again_later_and_ever_later() {
    let mut disk = blank();
    let mut journal = started(&mut disk);
    for number in 0..3 {
        journal.push(&payload(number, 30)).unwrap();
    }
    run(&mut journal, &mut disk);
    journal.handle_performed(1);
    let mut now = NOW;
    for (attempt, wait_ms) in [(2, 100), (3, 200), (4, 350), (5, 350)] {
        journal.handle_perform_failed(now);
        assert_eq!(journal.poll_timeout(), Some(now + Duration::from_millis(wait_ms)));
        now += Duration::from_millis(wait_ms - 1);
        journal.handle_timeout(now);
        assert!(!run(&mut journal, &mut disk).contains(&JournalEvent::Perform { attempt }));
        now += Duration::from_millis(1);
        journal.handle_timeout(now);
        assert_eq!(run(&mut journal, &mut disk), [JournalEvent::Perform { attempt }]);
        assert_eq!(payloads(&journal), [payload(1, 30), payload(2, 30)], "none is left out");
    }
    assert_eq!(journal.counters().perform_failures, 4);
    journal.handle_performed(1);
    journal.handle_perform_failed(now);
    assert_eq!(journal.poll_timeout(), Some(now + RETRY.first), "the next one starts afresh");
    journal.handle_timeout(now + RETRY.first);
    journal.handle_performed(1);
    run(&mut journal, &mut disk);
    assert_eq!((journal.performed(), journal.poll_timeout()), (journal.durable(), None));
    journal.handle_perform_failed(now);
    assert_eq!(journal.poll_timeout(), None, "there is nothing to perform");
    journal.handle_performed(1);
    assert_eq!(run(&mut journal, &mut disk), []);
}

#[test]
fn a_full_journal_takes_more_when_something_was_performed() {
    let mut disk = blank();
    let mut journal = started(&mut disk);
    let refused = loop {
        match journal.push(&payload(0, 300)) {
            Ok(_) => _ = run(&mut journal, &mut disk),
            Err(refused) => break refused,
        }
    };
    let PushRefused::Ring(PushError::RingFull { consume_to }) = refused else {
        panic!("{refused}")
    };
    assert_eq!(journal.performed(), Position(0));
    journal.handle_performed(1);
    assert!(journal.push(b"x").is_err(), "not before it is written down");
    run(&mut journal, &mut disk);
    assert!(journal.performed() >= consume_to);
    journal.push(b"x").unwrap();
}

#[test]
fn a_disk_that_fails_is_asked_again_whatever_it_fails_at() {
    for failing in 0.. {
        let (mut disk, mut requests, mut failures) = (blank(), 0, 0);
        let (mut journal, mut now, mut performed) = (journal(&disk), NOW, Vec::new());
        let mut pushed = 0;
        while journal.performed() < Position(3 * 512) {
            while let Some(request) = journal.poll_request() {
                let fails = requests == failing || requests == failing + 1;
                requests += 1;
                journal.handle_completion(now, if fails { failed() } else { disk.run(&request) });
            }
            while let Some(event) = journal.poll_event() {
                match event {
                    JournalEvent::Perform { .. } => {
                        performed.extend(payloads(&journal));
                        journal.handle_performed(journal.operations().len());
                    }
                    JournalEvent::DiskFailed(error) => {
                        assert_eq!(error, Error::Disk("no luck".into()));
                        failures += 1;
                        // The wait grows while it fails.
                        let wait = RETRY.first * failures;
                        assert_eq!(journal.poll_timeout(), Some(now + wait));
                    }
                    _ => {}
                }
            }
            if let Some(timeout) = journal.poll_timeout() {
                assert_eq!(journal.poll_request(), None, "it waits");
                now = timeout;
                journal.handle_timeout(now);
            } else if pushed < 3 && journal.push(&payload(pushed, 30)).is_ok() {
                pushed += 1;
            }
        }
        let expected: Vec<_> = (0..3).map(|number| payload(number, 30)).collect();
        assert_eq!(performed, expected);
        if failures == 0 {
            assert!(failing > 20, "a journal of three operations makes that many requests");
            return;
        }
    }
}

#[test]
fn a_journal_that_cannot_go_on_says_why_and_keeps_saying_so() {
    let mut disk = blank();
    disk.sector(0)[..6].copy_from_slice(b"\x55file\xaa");
    let mut journal = journal(&disk);
    assert_eq!(journal.push(b"x"), Err(PushRefused::NotStarted));
    let events = run(&mut journal, &mut disk);
    let [JournalEvent::Stopped(error)] = &events[..] else { panic!("{events:?}") };
    assert!(matches!(error, Error::Foreign { sector: 0, .. }), "{error}");
    assert_eq!(journal.push(b"x"), Err(PushRefused::Stopped(error.clone())));
    assert_eq!((journal.poll_request(), journal.poll_timeout()), (None, None));

    let small = SimDisk::new(Disk { sector_bytes: SECTOR_BYTES, sector_count: 5 });
    let mut journal = Journal::new(small.size(), V2, Config::default(), RETRY);
    let error = Error::TooSmall { needed: 6, found: 5 };
    assert_eq!(journal.poll_event(), Some(JournalEvent::Stopped(error)));
}

#[test]
fn operations_before_one_that_is_corrupt_are_performed_first() {
    let mut disk = disk_with(V2, 16);
    let mut end = producer(&mut disk);
    for number in 0..3 {
        end.push(&payload(number, 400)).unwrap();
        publish(&mut end, &mut disk).unwrap();
    }
    disk.sector(7)[100] ^= 1;
    let mut journal = journal(&disk);
    let events = run(&mut journal, &mut disk);
    assert_eq!(events, [JournalEvent::Started, JournalEvent::Perform { attempt: 1 }]);
    assert_eq!(payloads(&journal), [payload(0, 400), payload(1, 400)]);
    journal.handle_performed(2);
    let events = run(&mut journal, &mut disk);
    let error = Error::Corrupt { sector: 7, what: "the page's checksum is wrong" };
    assert_eq!(events, [JournalEvent::Performed(Position(1_024)), JournalEvent::Stopped(error)]);
}

#[test]
fn a_journal_whose_generations_are_used_up_stops() {
    let mut disk = disk_with(V2, 16);
    let mut page = vec![0; SECTOR_BYTES];
    let header = crate::format::Header { generation: u64::MAX, ..Default::default() };
    crate::format::v2::encode_header(&mut page, crate::Side::Producer, header, 0x1dea);
    disk.run(&Request::Write { sector: 2, data: page });
    let mut journal = started(&mut disk);
    journal.push(b"x").unwrap();
    assert_eq!(run(&mut journal, &mut disk), [JournalEvent::Stopped(Error::Exhausted)]);
}

#[test]
fn completions_that_nobody_waits_for_are_ignored() {
    let mut disk = blank();
    let mut journal = started(&mut disk);
    journal.handle_completion(NOW, failed());
    assert_eq!(run(&mut journal, &mut disk), []);
}

#[test]
fn a_ring_of_2015_is_a_journal_too() {
    let mut disk = disk_with(Shape::V1, 16);
    let mut end = producer(&mut disk);
    end.push(b"of a program of 2015").unwrap();
    publish(&mut end, &mut disk).unwrap();
    let mut journal = journal(&disk);
    run(&mut journal, &mut disk);
    assert_eq!(payloads(&journal), [b"of a program of 2015"]);
    journal.handle_performed(1);
    for number in 0..100 {
        journal.push(&payload(number, 100)).unwrap();
        run(&mut journal, &mut disk);
        assert_eq!(payloads(&journal), [payload(number, 100)]);
        journal.handle_performed(1);
        run(&mut journal, &mut disk);
    }
    assert_eq!(fetch_all(&mut super::consumer(&mut disk), &mut disk), Ok(vec![]));
}

#[test]
fn what_is_performed_while_something_is_written_down_is_written_down_next() {
    let mut disk = blank();
    let mut journal = started(&mut disk);
    for number in 0..2 {
        journal.push(&payload(number, 30)).unwrap();
    }
    run(&mut journal, &mut disk);
    journal.handle_performed(1);
    let request = journal.poll_request().unwrap();
    journal.handle_performed(1);
    journal.handle_completion(NOW, disk.run(&request));
    let events = run(&mut journal, &mut disk);
    assert_eq!(events, [JournalEvent::Performed(journal.durable())]);
    assert_eq!(run(&mut journal, &mut disk), []);
    assert_eq!(started(&mut disk).counters().replayed, 0);
}
