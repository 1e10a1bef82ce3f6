//! Making a ring: on what, over what, and what is left when it is cut off.

use super::disk::{SimDisk, Tearing};
use super::{
    Random, SECTOR_BYTES, V2, consumer, disk_with, failed, fetch_all, payload, producer, publish,
    try_consumer, try_create, try_producer,
};
use crate::{Create, Created, Disk, Error, Existing, Machine, Request, Shape, Version};

fn blank(sector_count: u64) -> SimDisk {
    SimDisk::new(Disk { sector_bytes: SECTOR_BYTES, sector_count })
}

#[test]
fn a_ring_that_is_there_is_kept_whatever_its_format() {
    for (made, version) in [(V2, Version::V2), (Shape::V1, Version::V1)] {
        let mut disk = disk_with(made, 16);
        let mut end = producer(&mut disk);
        end.push(b"still there").unwrap();
        publish(&mut end, &mut disk).unwrap();
        for asked in [V2, Shape::V1] {
            let flushes = disk.flushes;
            let kept = try_create(&mut disk, asked, Existing::Keep);
            assert_eq!(kept, Ok(Created::Kept(version)));
            assert_eq!(disk.flushes, flushes + 1, "whoever made it may not have come to that");
        }
        let items = fetch_all(&mut consumer(&mut disk), &mut disk).unwrap();
        assert_eq!(items[0].payload, b"still there");
    }
}

#[test]
fn a_ring_is_replaced_when_that_is_asked_for() {
    for (made, asked) in [(V2, Shape::V1), (Shape::V1, V2), (V2, V2)] {
        let mut disk = disk_with(made, 16);
        let mut end = producer(&mut disk);
        end.push(b"gone").unwrap();
        publish(&mut end, &mut disk).unwrap();
        assert_eq!(try_create(&mut disk, asked, Existing::Replace), Ok(Created::New));
        assert_eq!(fetch_all(&mut consumer(&mut disk), &mut disk), Ok(Vec::new()));
    }
}

/// The pages of the ring before have the same numbers, and whole checksums.
#[test]
fn pages_of_the_ring_before_are_not_believed() {
    let mut disk = disk_with(V2, 16);
    let mut end = producer(&mut disk);
    end.push(b"of the ring before").unwrap();
    publish(&mut end, &mut disk).unwrap();
    let page = disk.sector(5).to_vec();
    let other = Shape::V2 { page_bytes: SECTOR_BYTES, identity: 0xbad };
    try_create(&mut disk, other, Existing::Replace).unwrap();
    let mut end = producer(&mut disk);
    end.push(b"of this ring").unwrap();
    publish(&mut end, &mut disk).unwrap();
    // The disk lost the write.
    disk.sector(5).copy_from_slice(&page);
    let error = fetch_all(&mut consumer(&mut disk), &mut disk).unwrap_err();
    assert_eq!(error, Error::Corrupt { sector: 5, what: "the page belongs to another ring" });
}

#[test]
fn what_is_no_ring_is_not_written_over() {
    // A boot sector, a file system whose first sectors are blank, and a partition table.
    for (sector, offset) in [(0, 0), (2, 56), (0, 446)] {
        let mut disk = blank(64);
        disk.sector(sector)[offset..offset + 2].copy_from_slice(&[0x53, 0xef]);
        let before = disk.seen.clone();
        let shape = Shape::V2 { page_bytes: 4_096, identity: 1 };
        let error = try_create(&mut disk, shape, Existing::Keep).unwrap_err();
        let Error::Foreign { sector: named, found } = error.clone() else { panic!("{error:?}") };
        assert_eq!((named, &found[..2]), (sector, &[0x53, 0xef][..]));
        assert!(error.to_string().contains("Existing::Replace"), "{error}");
        assert_eq!(disk.seen, before);
        assert_eq!(try_create(&mut disk, shape, Existing::Replace), Ok(Created::New));
    }
}

#[test]
fn attaching_to_what_is_no_ring_says_what_was_found() {
    let mut disk = blank(16);
    assert_eq!(try_producer(&mut disk, Default::default()).err(), Some(Error::Blank));
    disk.sector(0)[..5].copy_from_slice(b"hello");
    let error = try_consumer(&mut disk, Default::default()).err().unwrap();
    assert!(error.to_string().contains("hello"), "{error}");
}

#[test]
fn a_ring_of_the_future_is_left_alone() {
    let mut disk = disk_with(V2, 16);
    disk.sector(0)[16] = 3;
    let future = Error::Future { found: 3, known: 2 };
    assert_eq!(try_producer(&mut disk, Default::default()).err(), Some(future.clone()));
    assert_eq!(try_create(&mut disk, V2, Existing::Keep), Err(future));
    disk.sector(0)[16] = 1;
    let error = try_create(&mut disk, V2, Existing::Keep).unwrap_err();
    assert!(matches!(error, Error::Corrupt { sector: 0, .. }), "{error}");
}

#[test]
fn a_ring_that_says_that_it_has_no_pages_is_corrupt() {
    let mut disk = disk_with(V2, 16);
    let sector = disk.sector(0);
    sector[24..32].fill(0);
    let checksum = crate::checksum::crc32c(&sector[..60]);
    sector[60..64].copy_from_slice(&checksum.to_le_bytes());
    let error = try_consumer(&mut disk, Default::default()).err();
    assert_eq!(error, Some(Error::Corrupt { sector: 0, what: "the ring has no pages" }));
}

#[test]
fn disks_and_pages_for_which_there_is_no_ring() {
    for (shape, enough) in [(Shape::V1, 4), (V2, 6), (pages(1_024), 12), (pages(4_096), 48)] {
        let error = try_create(&mut blank(enough - 1), shape, Existing::Keep).unwrap_err();
        assert_eq!(error, Error::TooSmall { needed: enough, found: enough - 1 });
        assert_eq!(try_create(&mut blank(enough), shape, Existing::Keep), Ok(Created::New));
    }
    for page_bytes in [0, 256, 768, 131_072] {
        let error = try_create(&mut blank(16), pages(page_bytes), Existing::Keep).unwrap_err();
        assert_eq!(error, Error::PageSize { page_bytes, sector_bytes: SECTOR_BYTES });
    }
    for sector_bytes in [0, 1, 256, 520, 131_072] {
        let disk = Disk { sector_bytes, sector_count: 100 };
        let outcome = Create::new(disk, V2, Existing::Keep).poll_outcome();
        assert_eq!(outcome, Some(Err(Error::SectorSize { sector_bytes })));
    }
}

fn pages(page_bytes: usize) -> Shape {
    Shape::V2 { page_bytes, identity: 5 }
}

#[test]
fn a_disk_that_shrank_is_too_small_and_one_that_grew_is_not_used_further() {
    let mut disk = disk_with(V2, 16);
    let mut end = producer(&mut disk);
    for number in 0..11 {
        end.push(&payload(number, 400)).unwrap();
    }
    publish(&mut end, &mut disk).unwrap();
    disk.resize(12);
    let error = try_consumer(&mut disk, Default::default()).err();
    assert_eq!(error, Some(Error::TooSmall { needed: 16, found: 12 }));
    disk.resize(20);
    let mut disk = disk_with(V2, 16);
    let mut end = producer(&mut disk);
    for number in 0..11 {
        end.push(&payload(number, 400)).unwrap();
    }
    publish(&mut end, &mut disk).unwrap();
    disk.resize(32);
    assert_eq!(fetch_all(&mut consumer(&mut disk), &mut disk).unwrap().len(), 11);
}

#[test]
fn a_ring_with_smaller_pages_than_the_disks_sectors_is_refused() {
    let mut disk = disk_with(V2, 64);
    let size = Disk { sector_bytes: 4_096, sector_count: 8 };
    let mut large = SimDisk::new(size);
    large.seen.copy_from_slice(&disk.seen);
    let error = try_producer(&mut large, Default::default()).err();
    assert_eq!(error, Some(Error::PageSize { page_bytes: 512, sector_bytes: 4_096 }));
    assert_eq!(disk.sector(0)[..4], *b"fata");
}

#[test]
fn a_creation_that_is_cut_off_is_done_again() {
    let mut cuts = 0;
    for seed in 0..200 {
        for (shape, tearing) in [
            (V2, Tearing::AtAnyByte),
            (pages(2_048), Tearing::AtAnyByte),
            (Shape::V1, Tearing::Never),
        ] {
            let mut random = Random(seed);
            let mut disk = blank(64);
            let mut create = Create::new(disk.size(), shape, Existing::Keep);
            while let Some(request) = create.poll_request() {
                cuts += 1;
                let mut left = disk.after_power_cut(&[&request], &mut random, tearing);
                // With another random number, as whoever starts again would have.
                let again = match shape {
                    Shape::V1 => Shape::V1,
                    Shape::V2 { page_bytes, .. } => Shape::V2 { page_bytes, identity: seed },
                };
                assert!(try_create(&mut left, again, Existing::Keep).is_ok(), "seed {seed}");
                assert_eq!(fetch_all(&mut consumer(&mut left), &mut left), Ok(Vec::new()));
                create.handle_completion(disk.run(&request));
            }
        }
    }
    println!("{cuts} creations cut off and done again");
}

#[test]
fn a_replacement_that_is_cut_off_leaves_the_old_ring_none_or_the_new_one() {
    let mut before = disk_with(V2, 16);
    let mut end = producer(&mut before);
    end.push(b"old").unwrap();
    publish(&mut end, &mut before).unwrap();
    let (mut olds, mut nones, mut news) = (0, 0, 0);
    for seed in 0..200 {
        let (mut random, mut disk) = (Random(seed), before.clone());
        let mut create = Create::new(disk.size(), pages(SECTOR_BYTES), Existing::Replace);
        while let Some(request) = create.poll_request() {
            let mut left = disk.after_power_cut(&[&request], &mut random, Tearing::AtAnyByte);
            let read = try_consumer(&mut left, Default::default())
                .and_then(|mut end| fetch_all(&mut end, &mut left));
            match read.as_deref() {
                Ok([item]) if item.payload == b"old" => olds += 1,
                Ok([]) => news += 1,
                Ok(items) => panic!("{items:?}"),
                Err(Error::Blank | Error::Foreign { .. } | Error::Corrupt { sector: 0, .. }) => {
                    nones += 1;
                    let again = try_create(&mut left, pages(SECTOR_BYTES), Existing::Replace);
                    assert_eq!(again, Ok(Created::New));
                }
                Err(error) => panic!("{error}"),
            }
            create.handle_completion(disk.run(&request));
        }
    }
    assert!(olds > 0 && nones > 0 && news > 0);
}

#[test]
fn a_disk_that_fails_ends_the_creation() {
    for step in 0..5 {
        let mut disk = blank(16);
        let mut create = Create::new(disk.size(), V2, Existing::Keep);
        for _ in 0..step {
            let request = create.poll_request().unwrap();
            assert_eq!(create.poll_request(), None, "one at a time");
            create.handle_completion(disk.run(&request));
            assert_eq!(create.poll_outcome(), None);
        }
        create.poll_request().unwrap();
        create.handle_completion(failed());
        assert_eq!(create.poll_request(), None);
        assert_eq!(create.poll_outcome(), Some(Err(Error::Disk("no luck".into()))));
        create.handle_completion(failed());
        assert_eq!(create.poll_outcome(), None, "nothing was under way");
        let again = try_create(&mut disk, V2, Existing::Keep);
        let is_there = Created::Kept(Version::V2);
        assert_eq!(again, Ok(if step == 4 { is_there } else { Created::New }));
    }
}

#[test]
fn the_ring_is_described_when_everything_else_is_flushed() {
    let mut disk = blank(16);
    let mut create = Create::new(disk.size(), V2, Existing::Keep);
    let mut trace = Vec::new();
    while let Some(request) = create.poll_request() {
        trace.push(match &request {
            Request::Read { sector, count } => format!("read {count} at {sector}"),
            Request::Write { sector, data } => format!("write {} at {sector}", data.len() / 512),
            Request::Flush => "flush".into(),
        });
        create.handle_completion(disk.run(&request));
    }
    assert_eq!(trace, ["read 5 at 0", "write 4 at 1", "flush", "write 1 at 0", "flush"]);
}
