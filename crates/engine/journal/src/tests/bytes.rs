//! The formats, byte for byte: that of 2015 as its description has it, and ours as `format/v2.rs`
//! has it; and what codecs promise.

use super::disk::{SimDisk, Tearing};
use super::{
    Random, SECTOR_BYTES, V2, advance, consumer, disk_with, fetch_all, payload, producer, publish,
    refresh, run,
};
use crate::checksum::crc32c;
use crate::format::{Header, ITEM_ALIGNMENT, Layout, Version, v2};
use crate::{Disk, Error, Position, Shape, Side};
use proptest::prelude::*;

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// A ring as a program of 2015 leaves it, with two items of which the first was consumed: written
/// down from the description of the format, without any of our code.
fn ring_of_2015() -> SimDisk {
    let mut disk = SimDisk::new(Disk { sector_bytes: 512, sector_count: 8 });
    disk.sector(0)[..30].copy_from_slice(b"mirage shared-block-device 1.0");
    // The producer has published up to byte 532, and acknowledges no suspension.
    let producer = disk.sector(1);
    producer[..9].copy_from_slice(&[0x14, 0x02, 0, 0, 0, 0, 0, 0, 2]);
    let text = b"queue used by client; producer = 532; suspend_ack = false";
    producer[128..128 + text.len()].copy_from_slice(text);
    // The consumer is at byte 12, and wants no suspension.
    let consumer = disk.sector(2);
    consumer[..9].copy_from_slice(&[12, 0, 0, 0, 0, 0, 0, 0, 2]);
    let text = b"queue used by client; consumer = 12; suspend = false";
    consumer[128..128 + text.len()].copy_from_slice(text);
    // "hello": five bytes, padded to eight, behind a length of four.
    let first = disk.sector(3);
    first[..12].copy_from_slice(&[5, 0, 0, 0, b'h', b'e', b'l', b'l', b'o', 0, 0, 0]);
    // 513 bytes of 'x': 496 in this sector, and 17 in the next, with three of padding.
    first[12..16].copy_from_slice(&[0x01, 0x02, 0, 0]);
    first[16..].fill(b'x');
    disk.sector(4)[..17].fill(b'x');
    disk
}

#[test]
fn a_ring_of_2015_is_read() {
    let mut disk = ring_of_2015();
    let mut consumer = consumer(&mut disk);
    let items = fetch_all(&mut consumer, &mut disk).unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!((&items[0].payload[..], items[0].end), (&[b'x'; 513][..], Position(532)));
    advance(&mut consumer, &mut disk, items[0].end).unwrap();
    assert_eq!(disk.sector(2)[..9], [0x14, 0x02, 0, 0, 0, 0, 0, 0, 2]);
    let text = b"unknown used by fata; consumer = 532; suspend = false\0";
    assert_eq!(disk.sector(2)[128..128 + text.len()], text[..]);
}

#[test]
fn a_ring_of_2015_is_written_as_it_was_then() {
    let mut disk = ring_of_2015();
    let mut producer = producer(&mut disk);
    assert_eq!(producer.push(b"abcd"), Ok(Position(540)));
    assert_eq!(disk.sector(1)[..2], [0x14, 0x02], "nobody sees it before it is published");
    publish(&mut producer, &mut disk).unwrap();
    let mut sector = [0; 512];
    // What was there stays; the item comes behind it.
    sector[..17].fill(b'x');
    sector[20..28].copy_from_slice(&[4, 0, 0, 0, b'a', b'b', b'c', b'd']);
    assert_eq!(disk.sector(4), sector);
    assert_eq!(disk.sector(1)[..9], [0x1c, 0x02, 0, 0, 0, 0, 0, 0, 2]);
    let text = b"unknown used by fata; producer = 540; suspend_ack = false\0";
    assert_eq!(disk.sector(1)[128..128 + text.len()], text[..]);
}

#[test]
fn a_ring_of_2015_is_made_as_it_was_then() {
    let mut disk = disk_with(Shape::V1, 4);
    let mut sectors = [[0; 512]; 4];
    sectors[0][..30].copy_from_slice(b"mirage shared-block-device 1.0");
    sectors[1][8] = 2;
    sectors[2][8] = 2;
    for (number, sector) in (0..).zip(sectors) {
        assert_eq!(disk.sector(number), sector, "sector {number}");
    }
}

#[test]
fn a_suspension_of_2015_is_acknowledged() {
    let mut disk = ring_of_2015();
    disk.sector(2)[8] = 1;
    let mut producer = producer(&mut disk);
    assert!(producer.is_suspended());
    assert_eq!(disk.sector(1)[8], 1, "attaching acknowledges it");
    disk.sector(2)[8] = 2;
    refresh(&mut producer, &mut disk).unwrap();
    assert_eq!((producer.is_suspended(), disk.sector(1)[8]), (false, 2));
}

/// The ends of 2015 let the ring's last item end in the sector in which its first one begins.
#[test]
fn a_full_ring_of_2015_is_read_to_its_end() {
    let mut disk = SimDisk::new(Disk { sector_bytes: 512, sector_count: 5 });
    disk.sector(0)[..30].copy_from_slice(b"mirage shared-block-device 1.0");
    // Two data sectors; published from byte 100 to byte 1,124: one item of 1,020 bytes.
    disk.sector(1)[..9].copy_from_slice(&[0x64, 0x04, 0, 0, 0, 0, 0, 0, 2]);
    disk.sector(2)[..9].copy_from_slice(&[100, 0, 0, 0, 0, 0, 0, 0, 2]);
    let content = payload(1, 1_020);
    disk.sector(3)[100..104].copy_from_slice(&[0xfc, 0x03, 0, 0]);
    disk.sector(3)[104..].copy_from_slice(&content[..408]);
    disk.sector(4).copy_from_slice(&content[408..920]);
    disk.sector(3)[..100].copy_from_slice(&content[920..]);
    let items = fetch_all(&mut consumer(&mut disk), &mut disk).unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].payload, content);
}

#[test]
fn our_format_is_what_its_description_says() {
    let mut disk = disk_with(Shape::V2 { page_bytes: 1_024, identity: 0x0102_0304_0506_0708 }, 40);
    let identity = [8, 7, 6, 5, 4, 3, 2, 1];
    let ring = disk.sector(0).to_vec();
    assert_eq!(&ring[..16], b"fata shared ring");
    assert_eq!(ring[16..24], [2, 0, 0, 0, 0, 4, 0, 0], "version 2, pages of 1,024 bytes");
    assert_eq!(u64_at(&ring, 24), 15, "twenty pages, five of which are not for data");
    assert_eq!(ring[32..40], identity);
    assert_eq!(ring[60..64], crc32c(&ring[..60]).to_le_bytes());

    let mut producer = producer(&mut disk);
    producer.push(b"hello").unwrap();
    assert_eq!(publish(&mut producer, &mut disk), Ok(Position(1_024)));
    // The second header after the ring was made: generation 2, in the first place.
    let header = disk.sector(2).to_vec();
    assert_eq!(header[..8], identity);
    assert_eq!((u64_at(&header, 8), u64_at(&header, 16)), (2, 1_024));
    assert_eq!(header[24..26], [1, 0], "the producer, which is not suspended");
    assert_eq!(header[60..64], crc32c(&header[..60]).to_le_bytes());
    let before = disk.sector(4).to_vec();
    assert_eq!((u64_at(&before, 8), u64_at(&before, 16)), (1, 0), "the one before is still there");
    let page = [disk.sector(10).to_vec(), disk.sector(11).to_vec()].concat();
    assert_eq!(page[..4], crc32c(&page[4..]).to_le_bytes());
    assert_eq!(page[4..8], [36, 0, 0, 0]);
    assert_eq!(page[8..16], identity);
    assert_eq!(u64_at(&page, 16), 0);
    assert_eq!(page[24..36], [5, 0, 0, 0, b'h', b'e', b'l', b'l', b'o', 0, 0, 0]);
    assert!(page[36..].iter().all(|byte| *byte == 0));
}

/// Torn at any byte, a header is the old one or the new one.
#[test]
fn a_header_that_is_torn_anywhere_leaves_one_that_is_whole() {
    let size = Disk { sector_bytes: 512, sector_count: 16 };
    let layout = Layout::filling(size, Version::V2, 512, 7).unwrap();
    let mut disk = disk_with(Shape::V2 { page_bytes: 512, identity: 7 }, 16);
    let old = Header { generation: 1, position: 0, is_suspended: false };
    let new = Header { generation: 2, position: 0x1_0203_0400, is_suspended: true };
    let crate::Request::Write { sector, data } = layout.write_header(Side::Producer, new) else {
        panic!("a write");
    };
    let before = disk.sector(sector).to_vec();
    for at in 0..=512 {
        for torn in [[&data[..at], &before[at..]].concat(), [&before[..at], &data[at..]].concat()] {
            disk.sector(sector).copy_from_slice(&torn);
            let headers: Vec<u8> = (1..5).flat_map(|sector| disk.sector(sector).to_vec()).collect();
            let found = layout.decode_headers(&headers).unwrap().producer;
            assert!(found == old || found == new, "torn at {at}: {found:?}");
            assert_eq!(found == new, torn[..64] == data[..64], "torn at {at}");
        }
    }
}

/// Torn at any byte, a data page is whole or is said not to be.
#[test]
fn a_page_that_is_torn_anywhere_is_noticed() {
    let mut new = payload(3, 512);
    let mut old = payload(4, 512);
    v2::seal(&mut new, 12, 512, 7);
    v2::seal(&mut old, 4, 512, 7);
    for at in 0..=512 {
        for torn in [[&new[..at], &old[at..]].concat(), [&old[..at], &new[at..]].concat()] {
            assert_eq!(v2::open(&torn, 12, 7).is_ok(), torn == new, "torn at {at}");
        }
    }
}

/// Every bit of everything that is read.
#[test]
fn a_bit_that_flips_is_noticed() {
    let mut disk = disk_with(V2, 8);
    let mut producer = producer(&mut disk);
    producer.push(&payload(0, 900)).unwrap();
    publish(&mut producer, &mut disk).unwrap();
    for sector in [0, 5, 6] {
        let used = if sector == 0 { 64 } else { 512 };
        for bit in 0..used * 8 {
            let mut disk = disk.clone();
            disk.sector(sector)[bit / 8] ^= 1 << (bit % 8);
            let read = super::try_consumer(&mut disk, Default::default())
                .and_then(|mut consumer| fetch_all(&mut consumer, &mut disk));
            assert!(read.is_err(), "bit {bit} of sector {sector}");
        }
    }
}

#[test]
fn positions_near_the_last_one_do_not_wrap() {
    let size = Disk { sector_bytes: 512, sector_count: 16 };
    let layout = Layout::filling(size, Version::V2, 512, 7).unwrap();
    let last_page = u64::MAX - 511;
    assert_eq!(layout.advance(last_page, 484), Some(u64::MAX - 3));
    assert_eq!(layout.advance(last_page, 488), None);
    assert_eq!(layout.advance(u64::MAX, u64::MAX), None);
    assert_eq!(layout.published(last_page), Some(last_page));
    assert_eq!(layout.published(last_page + 24), None);
    let layout = Layout::filling(size, Version::V1, 512, 0).unwrap();
    assert_eq!(layout.advance(i64::MAX as u64 - 7, 4), Some(i64::MAX as u64 - 3));
    assert_eq!(layout.advance(i64::MAX as u64 - 7, 8), None);
}

/// A ring with this position in both headers, whatever was there before.
fn ring_at(shape: Shape, position: u64, generation: u64) -> SimDisk {
    let mut disk = disk_with(shape, 16);
    let layout = Layout::decode(disk.size(), disk.sector(0)).unwrap();
    for side in [Side::Producer, Side::Consumer] {
        let header = Header { generation, position, is_suspended: false };
        disk.run(&layout.write_header(side, header));
    }
    if let Shape::V1 = shape {
        disk.run(&crate::Request::Flush);
    }
    disk
}

#[test]
fn a_ring_at_its_last_positions_is_used_to_the_end_and_then_says_so() {
    let page_before_last = u64::MAX - 1_023;
    let mut disk = ring_at(V2, page_before_last - 512, 4);
    let (mut producer, mut consumer) = (producer(&mut disk), consumer(&mut disk));
    let mut published = 0;
    let refused = loop {
        match producer.push(&payload(published, 100)) {
            Ok(_) => {
                publish(&mut producer, &mut disk).unwrap();
                published += 1;
            }
            Err(refused) => break refused,
        }
    };
    assert_eq!((published, refused), (2, crate::PushError::Exhausted));
    assert_eq!(producer.published(), Position(u64::MAX - 511));
    let items = fetch_all(&mut consumer, &mut disk).unwrap();
    assert_eq!(items.len(), 2);
    advance(&mut consumer, &mut disk, items[1].end).unwrap();
    assert_eq!(consumer.consumed(), producer.published());

    let mut disk = ring_at(Shape::V1, i64::MAX as u64 - 11, 0);
    let mut producer = super::producer(&mut disk);
    producer.push(&[1, 2, 3, 4]).unwrap();
    assert_eq!(publish(&mut producer, &mut disk), Ok(Position(i64::MAX as u64 - 3)));
    assert_eq!(producer.push(&[]), Err(crate::PushError::Exhausted));
}

#[test]
fn generations_that_are_used_up_are_an_error() {
    let mut disk = ring_at(V2, 512, u64::MAX);
    let mut producer = producer(&mut disk);
    producer.push(b"one too many").unwrap();
    assert_eq!(publish(&mut producer, &mut disk), Err(Error::Exhausted));
    let mut consumer = consumer(&mut disk);
    consumer.suspend().unwrap();
    run(&mut consumer, &mut disk);
    assert_eq!(
        consumer.poll_event(),
        Some(crate::ConsumerEvent::Failed(Error::Exhausted)),
        "nor can the consumer write another"
    );
}

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::V1),
        Just(V2),
        Just(Shape::V2 { page_bytes: 4 * SECTOR_BYTES, identity: 9 })
    ]
}

proptest! {
    #[test]
    fn what_is_pushed_is_popped(
        shape in shapes(),
        batches in prop::collection::vec(prop::collection::vec(0_usize..1_500, 1..6), 1..12),
        fetch_bytes_max in 1_usize..5_000,
    ) {
        let mut disk = disk_with(shape, 20 * 4);
        let mut producer = producer(&mut disk);
        let config = crate::Config { fetch_bytes_max, ..Default::default() };
        let mut consumer = super::try_consumer(&mut disk, config).unwrap();
        for batch in batches {
            let mut ends = Vec::new();
            for (number, len) in batch.iter().enumerate() {
                ends.push(producer.push(&payload(number, *len)).unwrap());
            }
            let published = publish(&mut producer, &mut disk).unwrap();
            prop_assert!(ends.is_sorted() && *ends.last().unwrap() <= published);
            let items = fetch_all(&mut consumer, &mut disk).unwrap();
            prop_assert_eq!(items.len(), batch.len());
            for (number, (item, len)) in items.iter().zip(&batch).enumerate() {
                prop_assert_eq!(&item.payload, &payload(number, *len));
                // Both ends agree where it ends, but for what is left of its page.
                prop_assert!(item.end >= ends[number]);
                prop_assert!(number + 1 == items.len() || item.end < ends[number + 1]);
            }
            advance(&mut consumer, &mut disk, items.last().unwrap().end).unwrap();
            prop_assert_eq!(consumer.consumed(), producer.published());
            refresh(&mut producer, &mut disk).unwrap();
        }
    }

    #[test]
    fn headers_are_read_as_they_were_written(
        is_v1: bool,
        generation in 0..u64::MAX,
        position: u64,
        is_suspended: bool,
        is_producer: bool,
    ) {
        let (side, shape) = (
            if is_producer { Side::Producer } else { Side::Consumer },
            if is_v1 { Shape::V1 } else { V2 },
        );
        let mut disk = disk_with(shape, 16);
        let layout = Layout::decode(disk.size(), disk.sector(0)).unwrap();
        // A new ring has generations 0 and 1.
        let generation = if is_v1 { 0 } else { generation.max(2) };
        let header = Header { generation, position, is_suspended };
        disk.run(&layout.write_header(side, header));
        let crate::Completion::Read(bytes) = disk.run(&layout.read_headers()) else {
            panic!("a read");
        };
        let headers = layout.decode_headers(&bytes).unwrap();
        prop_assert_eq!(headers.of(side), header);
        prop_assert_eq!(headers.of(side.other()).position, 0);
        prop_assert_eq!(headers.damaged, 0);
    }

    #[test]
    fn arbitrary_bytes_are_a_ring_or_an_error(
        mut bytes in prop::collection::vec(any::<u8>(), 512 * 5),
        magic in 0_usize..3,
        page in 0_u64..4,
    ) {
        let magics: [&[u8]; 3] = [b"", b"fata shared ring\x02\0\0\0", b"mirage shared-block-device 1.0"];
        bytes[..magics[magic].len()].copy_from_slice(magics[magic]);
        let size = Disk { sector_bytes: 512, sector_count: 16 };
        if let Ok(layout) = Layout::decode(size, &bytes[..512])
            && let Ok(headers) = layout.decode_headers(&bytes[512..])
        {
            let _ = layout.check(&headers, Side::Producer);
        }
        prop_assert!(v2::open(&bytes[512..1_024], page, 7).is_err());
        v2::seal(&mut bytes[512..1_024], page, 512, 7);
        prop_assert_eq!(v2::open(&bytes[512..1_024], page, 7), Ok(512));
    }

    /// The stream's arithmetic, against counting byte by byte.
    #[test]
    fn advancing_passes_over_page_headers(
        shape in shapes(),
        steps in prop::collection::vec(0_u64..3_000, 1..6),
    ) {
        let (version, page_bytes) = match shape {
            Shape::V1 => (Version::V1, 512),
            Shape::V2 { page_bytes, .. } => (Version::V2, page_bytes),
        };
        let size = Disk { sector_bytes: 512, sector_count: 400 };
        let layout = Layout::filling(size, version, page_bytes, 1).unwrap();
        let (mut position, mut counted) = (0, 0);
        for step in steps {
            let step = step.next_multiple_of(ITEM_ALIGNMENT as u64);
            position = layout.advance(position, step).unwrap();
            for _ in 0..step {
                if layout.offset_of(counted) == 0 {
                    counted += layout.page_header_bytes() as u64;
                }
                counted += 1;
            }
            prop_assert_eq!(position, counted);
        }
    }

    /// Whatever a loss of power leaves of a publication: the old, the new, or a page that is
    /// noticed.
    #[test]
    fn a_torn_publication_is_not_seen(seed: u64, lens in prop::collection::vec(0_usize..900, 1..4)) {
        let mut disk = disk_with(V2, 16);
        let mut producer = producer(&mut disk);
        for len in &lens {
            producer.push(&payload(1, *len)).unwrap();
        }
        producer.publish().unwrap();
        let mut random = Random(seed);
        while let Some(request) = crate::Machine::poll_request(&mut producer) {
            let mut left = disk.after_power_cut(&[&request], &mut random, Tearing::AtAnyByte);
            let items = fetch_all(&mut consumer(&mut left), &mut left).unwrap();
            prop_assert!(items.is_empty() || items.len() == lens.len());
            crate::Machine::handle_completion(&mut producer, disk.run(&request));
        }
    }
}
