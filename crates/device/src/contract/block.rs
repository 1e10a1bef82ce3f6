//! The contract of [`Block`], sentence by sentence.

use super::yield_once;
use crate::block::{Block, BlockError, Geometry, SectorBuffer};
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

/// The least number of sectors of a disk that is to be tested.
const SECTORS_MIN: u64 = 64;

/// Runs the contract of [`Block`] on disks that `make` gives: writable ones of at least 64 sectors,
/// whose contents are overwritten. It may give the same disk again and again.
///
/// # Panics
/// Naming the sentence, if a disk breaks the contract.
pub async fn block<B: Block>(make: impl AsyncFn() -> B) {
    geometry_is_sane_and_constant(&make().await).await;
    what_was_written_is_read(&make().await).await;
    neighbours_of_a_write_stay(&make().await).await;
    sectors_not_on_the_disk_are_refused(&make().await).await;
    lengths_that_are_no_whole_sectors_are_refused(&make().await).await;
    the_disk_is_as_usable_after_a_callers_error(&make().await).await;
    requests_in_flight_together_all_take_effect(&make().await).await;
    a_read_beside_a_write_sees_old_or_new(&make().await).await;
    a_dropped_future_leaves_the_disk_usable(&make().await).await;
    one_that_was_awaited_takes_effect_first(&make().await).await;
    flush_succeeds(&make().await).await;
    discard_does_or_says_that_it_does_not(&make().await).await;
    the_whole_disk_at_once(&make().await).await;
}

/// Runs the contract of [`Block`] for a read-only disk of at least 64 sectors.
///
/// # Panics
/// Naming the sentence, if the disk breaks the contract.
pub async fn block_read_only<B: Block>(make: impl AsyncFn() -> B) {
    let disk = make().await;
    geometry_is_sane_and_constant(&disk).await;
    assert!(disk.geometry().read_only, "the suite is for a read-only disk");
    sectors_not_on_the_disk_are_refused_for_reading(&disk).await;
    let before = disk.read(0, 2).await.expect("a read-only disk is read");
    let data = filled(&disk.geometry(), 1, 0xa5);
    let refused = disk.write(0, data).await;
    assert_eq!(refused, Err(BlockError::ReadOnly), "writes are refused with ReadOnly");
    let discarded = disk.discard(0, 1).await;
    assert_eq!(discarded, Err(BlockError::ReadOnly), "discards are refused with ReadOnly");
    assert_eq!(disk.flush().await, Ok(()), "a read-only disk has nothing to flush");
    let after = disk.read(0, 2).await.expect("as usable as before");
    assert_eq!(before[..], after[..], "nothing was written");
}

/// `count` sectors of one byte, each sector's first 8 bytes counting up.
fn filled(geometry: &Geometry, count: usize, byte: u8) -> SectorBuffer {
    let mut buffer = SectorBuffer::zeroed(count * geometry.sector_bytes);
    buffer.fill(byte);
    for (at, sector) in buffer.chunks_mut(geometry.sector_bytes).enumerate() {
        sector[..8].copy_from_slice(&(at as u64).to_le_bytes());
    }
    buffer
}

/// Polls a future once and says what it had to say.
async fn poll_once<F: Future>(mut future: core::pin::Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Polls all until all are done.
async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match core::pin::Pin::new(future).poll(cx) {
                    Poll::Ready(ready) => *output = Some(ready),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

async fn geometry_is_sane_and_constant<B: Block>(disk: &B) {
    let geometry = disk.geometry();
    assert!(
        geometry.sector_bytes.is_power_of_two() && geometry.sector_bytes >= 512,
        "a sector is a power of two, at least 512: {geometry:?}"
    );
    assert!(geometry.sector_count >= SECTORS_MIN, "the suite needs 64 sectors: {geometry:?}");
    let _ = disk.read(0, 1).await;
    assert_eq!(disk.geometry(), geometry, "the geometry does not change while the device lives");
}

async fn what_was_written_is_read<B: Block>(disk: &B) {
    let geometry = disk.geometry();
    for (start, count) in [(0, 1), (1, 7), (geometry.sector_count - 3, 3)] {
        let data = filled(&geometry, count, 0x5a ^ start as u8);
        let written = disk.write(start, SectorBuffer::copy_of(&data)).await;
        assert_eq!(written, Ok(()), "{count} sectors at {start} are on the disk");
        let read = disk.read(start, count).await.expect("they are read");
        assert_eq!(read[..], data[..], "a write whose future returned Ok is seen by later reads");
        let aligned = read.as_ptr().addr().is_multiple_of(SectorBuffer::ALIGNMENT);
        assert!(aligned, "the first byte lies at a multiple of 512");
    }
}

async fn neighbours_of_a_write_stay<B: Block>(disk: &B) {
    let geometry = disk.geometry();
    disk.write(8, filled(&geometry, 5, 0x11)).await.expect("written");
    disk.write(10, filled(&geometry, 1, 0x22)).await.expect("written");
    let read = disk.read(8, 5).await.expect("read");
    let mut expected = filled(&geometry, 5, 0x11);
    let sector = geometry.sector_bytes;
    expected[2 * sector..3 * sector].copy_from_slice(&filled(&geometry, 1, 0x22));
    assert_eq!(read[..], expected[..], "a write touches its sectors and no others");
}

/// Ranges that are not all on the disk.
fn outside(geometry: &Geometry) -> [(u64, u64); 5] {
    let end = geometry.sector_count;
    [(end, 1), (end - 1, 2), (end + 1, 1), (u64::MAX, 1), (u64::MAX - 1, 3)]
}

async fn sectors_not_on_the_disk_are_refused_for_reading<B: Block>(disk: &B) {
    let geometry = disk.geometry();
    let sector_count = geometry.sector_count;
    for (start, count) in outside(&geometry) {
        let refused = disk.read(start, count as usize).await.map(drop);
        let expected = Err(BlockError::OutOfRange { start, count, sector_count });
        assert_eq!(refused, expected, "the sectors are not all on the disk");
    }
    let refused = disk.read(0, usize::MAX).await.map(drop);
    assert!(
        matches!(refused, Err(BlockError::OutOfRange { .. })),
        "the sectors are not all on the disk, and no memory is asked for them: {refused:?}"
    );
}

async fn sectors_not_on_the_disk_are_refused<B: Block>(disk: &B) {
    sectors_not_on_the_disk_are_refused_for_reading(disk).await;
    let geometry = disk.geometry();
    let sector_count = geometry.sector_count;
    let last = geometry.sector_count - 1;
    disk.write(last, filled(&geometry, 1, 0x33)).await.expect("written");
    for (start, count) in outside(&geometry) {
        let data = filled(&geometry, count as usize, 0x44);
        let refused = disk.write(start, data).await;
        let expected = Err(BlockError::OutOfRange { start, count, sector_count });
        assert_eq!(refused, expected, "the sectors are not all on the disk");
    }
    let read = disk.read(last, 1).await.expect("read");
    assert_eq!(read[..], filled(&geometry, 1, 0x33)[..], "OutOfRange: nothing was written");
}

async fn lengths_that_are_no_whole_sectors_are_refused<B: Block>(disk: &B) {
    let geometry = disk.geometry();
    let sector_bytes = geometry.sector_bytes;
    disk.write(0, filled(&geometry, 2, 0x55)).await.expect("written");
    for len in [0, 1, sector_bytes - 1, sector_bytes + 1] {
        let mut data = SectorBuffer::zeroed(len);
        data.fill(0x66);
        let refused = disk.write(0, data).await;
        let expected = Err(BlockError::Unaligned { len, sector_bytes });
        assert_eq!(refused, expected, "the length is zero or no whole number of sectors");
    }
    let refused = disk.read(0, 0).await.map(drop);
    assert_eq!(refused, Err(BlockError::Unaligned { len: 0, sector_bytes }), "count is at least 1");
    let read = disk.read(0, 2).await.expect("read");
    assert_eq!(read[..], filled(&geometry, 2, 0x55)[..], "Unaligned: nothing was written");
}

async fn the_disk_is_as_usable_after_a_callers_error<B: Block>(disk: &B) {
    for _ in 0..100 {
        assert!(disk.read(u64::MAX, 1).await.is_err());
    }
    what_was_written_is_read(disk).await;
}

async fn requests_in_flight_together_all_take_effect<B: Block>(disk: &B) {
    let geometry = disk.geometry();
    let writes = (0..SECTORS_MIN)
        .map(|sector| disk.write(sector, filled(&geometry, 1, sector as u8)))
        .collect();
    for (sector, written) in join_all(writes).await.into_iter().enumerate() {
        assert_eq!(written, Ok(()), "sector {sector}");
    }
    let reads = (0..SECTORS_MIN).map(|sector| disk.read(sector, 1)).collect();
    for (sector, read) in join_all(reads).await.into_iter().enumerate() {
        let read = read.expect("read");
        let expected = filled(&geometry, 1, sector as u8);
        assert_eq!(read[..], expected[..], "each request gets its own sector's data");
    }
}

async fn a_read_beside_a_write_sees_old_or_new<B: Block>(disk: &B) {
    let geometry = disk.geometry();
    let (old, new) = (filled(&geometry, 8, 0x0f), filled(&geometry, 8, 0xf0));
    for _ in 0..16 {
        disk.write(4, SectorBuffer::copy_of(&old)).await.expect("written");
        let mut write = disk.write(4, SectorBuffer::copy_of(&new));
        let mut read = disk.read(4, 8);
        let (mut written, mut seen) = (None, None);
        poll_fn(|cx| {
            if written.is_none()
                && let Poll::Ready(result) = write.as_mut().poll(cx)
            {
                written = Some(result);
            }
            if seen.is_none()
                && let Poll::Ready(result) = read.as_mut().poll(cx)
            {
                seen = Some(result);
            }
            if written.is_some() && seen.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        written.expect("done").expect("written");
        let seen = seen.expect("done").expect("read");
        let bytes = seen.iter().zip(old.iter().zip(new.iter()));
        for (seen, (old, new)) in bytes {
            assert!(seen == old || seen == new, "for each byte, the old data or the new");
        }
    }
}

async fn a_dropped_future_leaves_the_disk_usable<B: Block>(disk: &B) {
    let geometry = disk.geometry();
    let (old, new) = (filled(&geometry, 4, 0x01), filled(&geometry, 4, 0x02));
    disk.write(20, SectorBuffer::copy_of(&old)).await.expect("written");
    // More than a queue holds, so that slots of dropped requests must come back.
    for _ in 0..300 {
        {
            let mut write = pin!(disk.write(20, SectorBuffer::copy_of(&new)));
            let _ = poll_once(write.as_mut()).await;
            let mut read = pin!(disk.read(20, 4));
            let _ = poll_once(read.as_mut()).await;
        }
        drop(disk.read(20, 4));
        yield_once().await;
    }
    let read = disk.read(20, 4).await.expect("read");
    let whole = read.chunks(geometry.sector_bytes);
    for (at, sector) in whole.enumerate() {
        let of = |data: &SectorBuffer| {
            sector == &data[at * geometry.sector_bytes..(at + 1) * geometry.sector_bytes]
        };
        assert!(of(&old) || of(&new), "a dropped write leaves old data or new");
    }
    what_was_written_is_read(disk).await;
}

async fn one_that_was_awaited_takes_effect_first<B: Block>(disk: &B) {
    let geometry = disk.geometry();
    for round in 0..32 {
        disk.write(30, filled(&geometry, 3, round)).await.expect("written");
        let read = disk.read(30, 3).await.expect("read");
        assert_eq!(
            read[..],
            filled(&geometry, 3, round)[..],
            "one that was awaited takes effect before one that is made afterwards"
        );
    }
}

async fn flush_succeeds<B: Block>(disk: &B) {
    let geometry = disk.geometry();
    assert_eq!(disk.flush().await, Ok(()), "with nothing written");
    disk.write(2, filled(&geometry, 2, 0x77)).await.expect("written");
    assert_eq!(disk.flush().await, Ok(()), "with something written");
    let read = disk.read(2, 2).await.expect("read");
    assert_eq!(read[..], filled(&geometry, 2, 0x77)[..], "a flush changes no data");
}

async fn discard_does_or_says_that_it_does_not<B: Block>(disk: &B) {
    let geometry = disk.geometry();
    let sector_count = geometry.sector_count;
    disk.write(39, filled(&geometry, 25, 0x88)).await.expect("written");
    let discarded = disk.discard(40, 23).await;
    if !geometry.discard {
        let unsupported = matches!(discarded, Err(BlockError::Unsupported(_)));
        assert!(unsupported, "Unsupported without Geometry::discard: {discarded:?}");
        return;
    }
    assert_eq!(discarded, Ok(()));
    let expected = filled(&geometry, 25, 0x88);
    let sector = geometry.sector_bytes;
    let before = disk.read(39, 1).await.expect("read");
    assert_eq!(before[..], expected[..sector], "the sector before is not discarded");
    let after = disk.read(63, 1).await.expect("read");
    assert_eq!(after[..], expected[24 * sector..], "the sector behind is not discarded");
    disk.read(40, 23).await.expect("discarded sectors can be read");
    for (start, count) in outside(&geometry) {
        let refused = disk.discard(start, count).await;
        let expected = Err(BlockError::OutOfRange { start, count, sector_count });
        assert_eq!(refused, expected, "the sectors are not all on the disk");
    }
    let refused = disk.discard(0, 0).await;
    let expected = Err(BlockError::Unaligned { len: 0, sector_bytes: geometry.sector_bytes });
    assert_eq!(refused, expected, "no sectors are no positive number of them");
}

async fn the_whole_disk_at_once<B: Block>(disk: &B) {
    let geometry = disk.geometry();
    // A disk that is too large for the tests' memory is tested at its start.
    let count = geometry.sector_count.min(1 << 16) as usize;
    let data = filled(&geometry, count, 0x99);
    disk.write(0, SectorBuffer::copy_of(&data)).await.expect("written");
    let read = disk.read(0, count).await.expect("read");
    assert!(read[..] == data[..], "a long request is a request");
}
