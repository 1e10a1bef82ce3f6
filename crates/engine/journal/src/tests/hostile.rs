//! Another end that is broken or lies, a disk that loses and misdirects writes: an error that names
//! the sector, and the end is as it was.

use super::disk::SimDisk;
use super::{
    SECTOR_BYTES, V2, advance, consumer, disk_with, fetch, fetch_all, payload, producer, publish,
    refresh, try_consumer, try_producer,
};
use crate::format::{Header, Layout, v2};
use crate::{Config, Error, Position, Shape, Side};
use proptest::prelude::*;

/// Writes a header as the other end might.
fn lie(disk: &mut SimDisk, side: Side, generation: u64, position: u64) {
    let layout = layout_of(disk);
    disk.run(&layout.write_header(side, Header { generation, position, is_suspended: false }));
}

fn layout_of(disk: &mut SimDisk) -> Layout {
    let sector = disk.sector(0).to_vec();
    Layout::decode(disk.size(), &sector).unwrap()
}

fn misbehaved(side: Side, sector: u64, what: &'static str) -> Error {
    Error::Misbehaved { side, sector, what }
}

/// A ring of 11 data pages with two publications, of which one was consumed; and both ends.
fn used_ring(shape: Shape) -> (SimDisk, crate::Producer, crate::Consumer) {
    let mut disk = disk_with(shape, 16);
    let (mut producer, mut consumer) = (producer(&mut disk), consumer(&mut disk));
    for number in 0..2 {
        producer.push(&payload(number, 600)).unwrap();
        publish(&mut producer, &mut disk).unwrap();
    }
    consumer.fetch().unwrap();
    super::run(&mut consumer, &mut disk);
    let end = consumer.pop().unwrap().end;
    advance(&mut consumer, &mut disk, end).unwrap();
    while consumer.pop().is_some() {}
    refresh(&mut producer, &mut disk).unwrap();
    (disk, producer, consumer)
}

#[test]
fn a_consumer_that_lies_is_named_and_not_believed() {
    let lies = [
        (4, 4_096, "more was consumed than published"),
        (4, 1_024 + 20, "no item can begin at its position"),
        (4, 1_024 + 26, "no item can begin at its position"),
        (4, 512, "its position went back"),
        (0, 1_024, "it is an older one than before"),
        (4, u64::MAX, "no item can begin at its position"),
    ];
    for (generation, position, what) in lies {
        let (mut disk, mut producer, _) = used_ring(V2);
        let before = producer.consumed();
        if generation == 0 {
            // Both places, or the other one would be believed.
            lie(&mut disk, Side::Consumer, 1, 1_024);
        }
        lie(&mut disk, Side::Consumer, generation, position);
        let sector = 3 + generation % 2;
        let (generation, sector) = if generation == 0 { (1, 4) } else { (generation, sector) };
        let error = misbehaved(Side::Consumer, sector, what);
        assert_eq!(refresh(&mut producer, &mut disk), Err(error), "{generation} {position}");
        assert_eq!(producer.consumed(), before);
        producer.push(b"still at work").unwrap();
        assert!(publish(&mut producer, &mut disk).is_ok());
    }
}

#[test]
fn a_producer_that_lies_is_named_and_not_believed() {
    let lies = [
        (4, 2_048 + 512 * 64, "more is published than the ring can hold"),
        (4, 2_048 + 24, "no item can begin at its position"),
        (4, 512, "its position went back"),
        (3, 4_096, "it changed, and is no later one"),
        (u64::MAX, u64::MAX - 511, "more is published than the ring can hold"),
    ];
    for (generation, position, what) in lies {
        let (mut disk, _, mut consumer) = used_ring(V2);
        lie(&mut disk, Side::Producer, generation, position);
        let error = misbehaved(Side::Producer, 1 + generation % 2, what);
        assert_eq!(fetch(&mut consumer, &mut disk), Err(error), "{generation} {position}");
        assert_eq!((consumer.has_more(), consumer.pop()), (false, None));
    }
}

#[test]
fn the_same_lies_in_the_format_of_2015() {
    let lies = [
        (Side::Consumer, 5_000, "more was consumed than published"),
        (Side::Consumer, 606, "no item can begin at its position"),
        (Side::Consumer, 0, "its position went back"),
        (Side::Consumer, u64::MAX - 3, "its position is larger than any"),
        (Side::Producer, 604 + 13 * 512 + 4, "more is published than the ring can hold"),
        (Side::Producer, 604, "its position went back"),
        (Side::Producer, 1_210, "no item can begin at its position"),
        (Side::Producer, 1 << 63, "its position is larger than any"),
    ];
    for (side, position, what) in lies {
        let (mut disk, mut producer, mut consumer) = used_ring(Shape::V1);
        lie(&mut disk, side, 0, position);
        let (read, sector) = match side {
            Side::Consumer => (refresh(&mut producer, &mut disk), 2),
            Side::Producer => (fetch(&mut consumer, &mut disk).map(|_| ()), 1),
        };
        assert_eq!(read, Err(misbehaved(side, sector, what)), "{position}");
    }
    for sector in [1, 2] {
        let (mut disk, ..) = used_ring(Shape::V1);
        disk.sector(sector)[8] = 3;
        let what = "a header's flag is neither 1 nor 2";
        let error = try_consumer(&mut disk, Config::default()).err();
        assert_eq!(error, Some(Error::Corrupt { sector, what }));
        assert!(try_producer(&mut disk, Config::default()).is_err());
    }
}

#[test]
fn headers_that_do_not_fit_each_other_keep_everybody_from_attaching() {
    let mut disk = disk_with(V2, 16);
    lie(&mut disk, Side::Consumer, 2, 512);
    let what = "more was consumed than published";
    let error = try_producer(&mut disk, Config::default()).err();
    assert_eq!(error, Some(misbehaved(Side::Consumer, 3, what)));
    let error = try_consumer(&mut disk, Config::default()).err();
    assert_eq!(error, Some(misbehaved(Side::Producer, 2, what)));
}

#[test]
fn a_header_of_which_both_copies_are_damaged_is_read_again_and_then_an_error() {
    let (mut disk, mut producer, _) = used_ring(V2);
    disk.sector(3)[16] ^= 1;
    disk.sector(4)[16] ^= 1;
    disk.reads = 0;
    let what = "both copies of the header are damaged";
    assert_eq!(refresh(&mut producer, &mut disk), Err(Error::Corrupt { sector: 3, what }));
    assert_eq!(disk.reads, 3);
    // The other end was in the middle of writing it.
    producer.refresh().unwrap();
    let request = crate::Machine::poll_request(&mut producer).unwrap();
    let torn = disk.run(&request);
    crate::Machine::handle_completion(&mut producer, torn);
    disk.sector(4)[16] ^= 1;
    disk.sector(3)[16] ^= 1;
    super::run(&mut producer, &mut disk);
    assert_eq!(producer.poll_event(), Some(crate::ProducerEvent::Refreshed));
}

#[test]
fn a_header_of_which_one_copy_is_damaged_is_counted() {
    let (mut disk, ..) = used_ring(V2);
    // The older of the producer's two: generations 2 and 3.
    disk.sector(1)[8] ^= 1;
    let producer = producer(&mut disk);
    assert_eq!((producer.published(), producer.counters().damaged_headers), (Position(2_048), 1));
    assert_eq!(consumer(&mut disk).counters().damaged_headers, 1);
}

#[test]
fn a_header_that_was_written_elsewhere_is_not_believed() {
    let (mut disk, ..) = used_ring(V2);
    let producers = disk.sector(2).to_vec();
    // The producer's latest, at the consumer's place and at its own other place.
    for sector in [1, 3] {
        let mut disk = disk.clone();
        disk.sector(sector).copy_from_slice(&producers);
        assert_eq!(super::producer(&mut disk).counters().damaged_headers, 1, "at {sector}");
    }
}

#[test]
fn a_second_producer_or_consumer_is_found_out() {
    for shape in [V2, Shape::V1] {
        let (mut disk, mut first, mut first_consumer) = used_ring(shape);
        let mut second = producer(&mut disk);
        second.push(b"mine").unwrap();
        publish(&mut second, &mut disk).unwrap();
        let error = refresh(&mut first, &mut disk).unwrap_err();
        assert!(matches!(error, Error::Usurped { side: Side::Producer, sector: 1..3 }), "{error}");
        let mut second = consumer(&mut disk);
        let items = fetch_all(&mut second, &mut disk).unwrap();
        advance(&mut second, &mut disk, items[0].end).unwrap();
        let error = fetch(&mut first_consumer, &mut disk).unwrap_err();
        assert!(matches!(error, Error::Usurped { side: Side::Consumer, sector: 2..5 }), "{error}");
    }
}

#[test]
fn an_end_whose_last_header_the_disk_lost_says_so() {
    let (mut disk, mut producer, _) = used_ring(V2);
    disk.sector(2)[0] ^= 1;
    let what = "the last header of this end is gone";
    assert_eq!(refresh(&mut producer, &mut disk), Err(Error::Corrupt { sector: 2, what }));
}

/// A ring with one publication of three pages.
fn three_pages() -> SimDisk {
    let mut disk = disk_with(V2, 16);
    let mut producer = producer(&mut disk);
    producer.push(&payload(0, 100)).unwrap();
    producer.push(&payload(1, 1_200)).unwrap();
    publish(&mut producer, &mut disk).unwrap();
    disk
}

fn corrupt(sector: u64, what: &'static str) -> Error {
    Error::Corrupt { sector, what }
}

#[test]
fn pages_that_the_disk_lost_or_wrote_elsewhere_are_named() {
    let mut disk = three_pages();
    let read = |disk: &mut SimDisk| fetch(&mut consumer(disk), disk).unwrap_err();
    let pages: Vec<Vec<u8>> = (5..8).map(|sector| disk.sector(sector).to_vec()).collect();
    disk.sector(6).copy_from_slice(&pages[0]);
    assert_eq!(read(&mut disk), corrupt(6, "the page is an older one, or belongs elsewhere"));
    disk.sector(6).fill(0);
    assert_eq!(read(&mut disk), corrupt(6, "the page's checksum is wrong"));
    // What is whole before it is there, and what is not comes again.
    let mut end = consumer(&mut disk);
    end.fetch().unwrap();
    super::run(&mut end, &mut disk);
    assert_eq!(end.pop().unwrap().payload, payload(0, 100));
    assert_eq!(fetch(&mut end, &mut disk), Err(corrupt(6, "the page's checksum is wrong")));
    disk.sector(6).copy_from_slice(&pages[1]);
    assert_eq!(fetch(&mut end, &mut disk).unwrap()[0].payload, payload(1, 1_200));
}

/// A producer that seals what is wrong.
fn reseal(disk: &mut SimDisk, page: u64, used: usize, change: impl FnOnce(&mut [u8])) {
    let identity = layout_of(disk).identity;
    let sector = disk.sector(5 + page);
    change(sector);
    v2::seal(sector, page, used, identity);
}

#[test]
fn lengths_that_lie_are_errors() {
    let cases: [(u64, usize, u64, u32, &str); 7] = [
        // Page and bytes in use of it; where the length lies, and the length.
        (0, 512, 24, 1 << 20, "an item ends behind what is published"),
        (0, 512, 24, (1 << 20) + 1, "an item is longer than this end takes"),
        (0, 512, 24, u32::MAX, "an item is longer than this end takes"),
        (0, 500, 24, 600, "an item is longer than what is in use of its pages"),
        (0, 20, 24, 100, "the page's length in use is impossible"),
        (0, 516, 24, 100, "the page's length in use is impossible"),
        (0, 510, 24, 100, "the page's length in use is impossible"),
    ];
    for (page, used, offset, length, what) in cases {
        let mut disk = three_pages();
        reseal(&mut disk, page, used, |sector| {
            let offset = offset as usize;
            sector[offset..offset + 4].copy_from_slice(&length.to_le_bytes());
        });
        let error = fetch_all(&mut consumer(&mut disk), &mut disk).unwrap_err();
        assert_eq!(error, corrupt(5 + page, what), "{used} {length}");
    }
}

#[test]
fn a_consumers_position_behind_its_page_is_an_error() {
    let mut disk = three_pages();
    lie(&mut disk, Side::Consumer, 2, 2 * 512 + 508);
    let error = fetch(&mut consumer(&mut disk), &mut disk).unwrap_err();
    assert_eq!(error, corrupt(7, "the page ends before the consumer's position"));
}

#[test]
fn an_item_that_ends_behind_the_last_position_is_an_error() {
    let mut disk = disk_with(V2, 16);
    let first = u64::MAX / 512 - 1;
    for side in [Side::Producer, Side::Consumer] {
        let position = if side == Side::Producer { (first + 1) * 512 } else { first * 512 };
        lie(&mut disk, side, 2, position);
    }
    let layout = layout_of(&mut disk);
    let sector = disk.sector(layout.sector_of(first));
    sector[24..28].copy_from_slice(&100_000_u32.to_le_bytes());
    v2::seal(sector, first, 512, layout.identity);
    let error = fetch(&mut consumer(&mut disk), &mut disk).unwrap_err();
    let sector = layout.sector_of(first);
    assert_eq!(error, corrupt(sector, "an item ends behind the last position"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is on the disk, both ends come to an end, within their memory.
    #[test]
    fn whatever_is_on_the_disk_nobody_panics_or_goes_on_for_ever(
        is_v1: bool,
        writes in prop::collection::vec((0_u64..16, 0_usize..64, any::<u64>(), 0_u8..3), 0..12),
        headers in prop::collection::vec((any::<bool>(), 0_u64..6, 0_u64..9_000), 0..4),
    ) {
        let shape = if is_v1 { Shape::V1 } else { V2 };
        let (mut disk, mut producer, mut consumer) = used_ring(shape);
        for (is_producer, generation, position) in headers {
            let side = if is_producer { Side::Producer } else { Side::Consumer };
            lie(&mut disk, side, if is_v1 { 0 } else { generation }, position / 4 * 4);
        }
        let identity = if is_v1 { 0 } else { layout_of(&mut disk).identity };
        for (sector, word, value, seals) in writes {
            let offset = word * 8;
            let bytes = disk.sector(sector);
            bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
            // As whoever lies on purpose would.
            if seals > 0 && sector >= 5 {
                v2::seal(bytes, sector - 5, SECTOR_BYTES - 4 * usize::from(seals - 1), identity);
            }
        }
        let config = Config { item_bytes_max: 2_000, ..Config::default() };
        for mut end in [Some(consumer), try_consumer(&mut disk, config).ok()].into_iter().flatten() {
            for _ in 0..40 {
                match fetch(&mut end, &mut disk) {
                    Ok(items) if items.is_empty() => break,
                    Ok(items) => prop_assert!(items.len() <= 16 * 128),
                    Err(_) => break,
                }
            }
        }
        let _ = refresh(&mut producer, &mut disk);
        for mut end in [Some(producer), try_producer(&mut disk, config).ok()].into_iter().flatten() {
            while end.push(&payload(0, 300)).is_ok() {}
            if end.has_unpublished() && !end.is_suspended() {
                let _ = publish(&mut end, &mut disk);
            }
        }
        consumer = crate::Consumer::new(disk.size(), config);
        drop(consumer);
    }
}
