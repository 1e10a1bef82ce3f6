use super::super::rig::Rig;
use super::disk::DiskEvent;
use super::*;
use fata::MemoryDisk;
use fata_xenbus::ring::block::Status;
use proptest::prelude::*;
use std::pin::pin;
use tokio::task::JoinHandle;

/// A disk of ours, connected to `lent` in another domain.
fn lend(rig: &Rig, lent: impl Block) -> Blkfront {
    let lent: Arc<dyn Block> = Arc::new(lent);
    let disk = Disk::new(32);
    let geometry = Geometry { discard: rig.features.discard.is_some(), ..lent.geometry() };
    rig.connect(&disk, lent);
    Blkfront::new(disk, geometry)
}

const STEP: DiscardSteps = DiscardSteps { granularity: 1, alignment: 0 };

#[tokio::test]
async fn fulfils_the_contract_with_direct_requests() {
    let mut rig = Rig::new();
    rig.features.indirect_segments_max = 0;
    fata_device::contract::block(async || lend(&rig, MemoryDisk::new(1000))).await;
}

#[tokio::test]
async fn fulfils_the_contract_with_indirect_requests() {
    let rig = Rig::new();
    fata_device::contract::block(async || lend(&rig, MemoryDisk::new(1000))).await;
}

#[tokio::test]
async fn fulfils_the_contract_with_discards_barriers_and_a_ring_of_pages() {
    let mut rig = Rig::new();
    rig.features.discard = Some(STEP);
    rig.features.flush = Some(Operation::WriteBarrier);
    (rig.ring_pages, rig.pool_pages) = (4, 256);
    fata_device::contract::block(async || lend(&rig, MemoryDisk::new(5000))).await;
}

#[tokio::test]
async fn fulfils_the_contract_with_a_single_page() {
    let mut rig = Rig::new();
    rig.pool_pages = 1;
    fata_device::contract::block(async || lend(&rig, MemoryDisk::new(200))).await;
}

#[tokio::test]
async fn fulfils_the_contract_of_read_only_disks() {
    let mut rig = Rig::new();
    rig.limits.read_only = true;
    let lent = || MemoryDisk::holding(&[3; 64 * 512]).into_read_only();
    fata_device::contract::block_read_only(async || lend(&rig, lent())).await;
}

/// A disk whose backend is written by hand in the test.
struct ByHand {
    disk: Blkfront,
    ring: fata_xenbus::ring::block::Back<crate::memory::Shared<fata_hypercall::Mapped>>,
    channel: fata_hypercall::EventChannel,
}

fn by_hand(rig: &Rig) -> ByHand {
    let link = rig.link();
    let (refs, port) = link.offer();
    let access = fata_hypercall::Access::ReadWrite;
    let ring = rig.back.map(super::super::rig::FRONT, refs, access).expect("granted");
    let channel = rig.back.bind_interdomain(super::super::rig::FRONT, port).expect("allocated");
    let disk = Disk::new(32);
    disk.connect(link);
    let geometry =
        Geometry { sector_bytes: 512, sector_count: 1 << 20, read_only: false, discard: false };
    let ring = fata_xenbus::ring::block::Back::attach(crate::memory::Shared(ring));
    ByHand { disk: Blkfront::new(disk, geometry), ring, channel }
}

impl ByHand {
    fn answer(&mut self, id: u64, operation: u8, status: Status) {
        self.ring.answer(id, operation, status);
        self.ring.publish();
        self.channel.notify();
    }
}

fn read(disk: &Blkfront, start: u64, count: usize) -> JoinHandle<Result<SectorBuffer, BlockError>> {
    let disk = disk.clone();
    tokio::spawn(async move { disk.read(start, count).await })
}

#[tokio::test]
async fn a_long_read_goes_in_pieces_side_by_side() {
    let mut rig = Rig::new();
    rig.pool_pages = 140;
    let mut hand = by_hand(&rig);
    // 256 pages: the pool is good for two pieces of 64, with a page each that lists them.
    let reading = read(&hand.disk, 0, 2048);
    tokio::task::yield_now().await;
    let mut taken = Vec::new();
    while let Some((id, operation, request)) = hand.ring.take().expect("a good ring") {
        assert!(request.is_ok());
        taken.push((id, operation));
    }
    assert_eq!(taken.len(), 2, "as many as the pages of the pool allow");
    assert!(hand.disk.counters().ring_full > 0);
    for (id, operation) in taken {
        hand.answer(id, operation, Status::Okay);
    }
    assert!(hand.ring.take().expect("a good ring").is_some(), "the rest follows the answers");
    drop(reading);
}

#[tokio::test]
async fn a_refusal_is_an_error_and_the_disk_is_usable() {
    let rig = Rig::new();
    let mut hand = by_hand(&rig);
    for (status, error) in
        [(Status::Error, BlockError::Medium), (Status::NotSupported, BlockError::Medium)]
    {
        let reading = read(&hand.disk, 5, 1);
        tokio::task::yield_now().await;
        let (id, operation, _) = hand.ring.take().expect("a good ring").expect("a request");
        hand.answer(id, operation, status);
        assert_eq!(reading.await.expect("no panic").expect_err("refused"), error);
    }
    let reading = read(&hand.disk, 5, 1);
    tokio::task::yield_now().await;
    let (id, operation, _) = hand.ring.take().expect("a good ring").expect("a request");
    hand.answer(id, operation, Status::Okay);
    assert_eq!(reading.await.expect("no panic").expect("read").len(), 512);
}

#[tokio::test]
async fn a_flush_that_is_refused_does_not_pass_for_one() {
    let rig = Rig::new();
    let mut hand = by_hand(&rig);
    let disk = hand.disk.clone();
    let flushing = tokio::spawn(async move { disk.flush().await });
    tokio::task::yield_now().await;
    let (id, operation, _) = hand.ring.take().expect("a good ring").expect("a request");
    hand.answer(id, operation, Status::NotSupported);
    assert_eq!(flushing.await.expect("no panic"), Err(BlockError::Unsupported("flush")));
}

#[tokio::test]
async fn a_backend_without_caches_needs_no_flush() {
    let mut rig = Rig::new();
    rig.features.flush = None;
    let mut hand = by_hand(&rig);
    assert_eq!(hand.disk.flush().await, Ok(()));
    assert!(hand.ring.take().expect("a good ring").is_none(), "nothing was asked");
}

#[tokio::test]
async fn an_answer_to_nothing_closes_the_disk_by_name() {
    let rig = Rig::new();
    let mut hand = by_hand(&rig);
    let reading = read(&hand.disk, 5, 1);
    tokio::task::yield_now().await;
    assert!(hand.ring.take().expect("a good ring").is_some());
    hand.answer(4711, 0, Status::Okay);
    let error = reading.await.expect("no panic").expect_err("misbehaved");
    let BlockError::Misbehaved(rule) = &error else { panic!("{error}") };
    assert!(rule.contains("answered request 0x1267"), "{rule}");
    assert_eq!(hand.disk.write(0, SectorBuffer::zeroed(512)).await, Err(error.clone()));
    assert_eq!(hand.disk.flush().await, Err(error));
    let mut event = pin!(core::future::poll_fn(|cx| hand.disk.held.disk.poll_event(cx)));
    let event = core::future::poll_fn(|cx| event.as_mut().poll(cx)).await;
    assert!(matches!(event, DiskEvent::Fault(_)), "the handshake hears of it: {event:?}");
}

#[tokio::test]
async fn requests_wait_for_the_next_backend_and_begin_again() {
    let rig = Rig::new();
    let mut hand = by_hand(&rig);
    let writing = tokio::spawn({
        let disk = hand.disk.clone();
        async move { disk.write(9, SectorBuffer::copy_of(&[6; 512 * 100])).await }
    });
    tokio::task::yield_now().await;
    assert!(hand.ring.take().expect("a good ring").is_some(), "it has begun");
    let disk = hand.disk.held.disk.clone();
    drop(disk.disconnect().expect("a ring"));
    tokio::task::yield_now().await;
    assert!(!writing.is_finished());
    let lent: Arc<dyn Block> = Arc::new(MemoryDisk::new(1 << 20));
    rig.connect(&disk, lent.clone());
    assert_eq!(writing.await.expect("no panic"), Ok(()));
    assert_eq!(lent.read(9, 100).await.expect("read")[..], [6; 512 * 100]);
    assert_eq!(hand.disk.counters().connections, 2);
}

#[tokio::test]
async fn a_flush_after_a_lost_backend_says_that_writes_may_be_lost() {
    let rig = Rig::new();
    let disk = lend(&rig, MemoryDisk::new(64));
    disk.write(1, SectorBuffer::zeroed(512)).await.expect("written");
    drop(disk.held.disk.disconnect());
    rig.connect(&disk.held.disk, Arc::new(MemoryDisk::new(64)));
    assert_eq!(disk.flush().await, Err(BlockError::Medium));
    disk.write(1, SectorBuffer::zeroed(512)).await.expect("written");
    assert_eq!(disk.flush().await, Ok(()), "what is written again is durable");
    drop(disk.held.disk.disconnect());
    rig.connect(&disk.held.disk, Arc::new(MemoryDisk::new(64)));
    assert_eq!(disk.flush().await, Ok(()), "nothing was lost");
}

#[tokio::test]
async fn the_end_is_told_to_everybody() {
    let rig = Rig::new();
    let hand = by_hand(&rig);
    let reading = read(&hand.disk, 5, 1);
    tokio::task::yield_now().await;
    hand.disk.held.disk.end(BlockError::Disconnected);
    let ended = reading.await.expect("no panic").map(drop);
    assert_eq!(ended, Err(BlockError::Disconnected));
    assert_eq!(hand.disk.flush().await, Err(BlockError::Disconnected));
}

#[tokio::test]
async fn pages_hold_nothing_that_was_not_written() {
    let rig = Rig::new();
    let mut hand = by_hand(&rig);
    let reading = read(&hand.disk, 0, 8);
    tokio::task::yield_now().await;
    let (_, _, request) = hand.ring.take().expect("a good ring").expect("a request");
    let Ok(fata_xenbus::ring::block::Request::Direct { segments, .. }) = request else {
        panic!("{request:?}")
    };
    let grant = fata_hypercall::GrantRef(segments.as_slice()[0].gref);
    let access = fata_hypercall::Access::ReadWrite;
    let page = rig.back.map(super::super::rig::FRONT, &[grant], access).expect("granted");
    let mut bytes = [1; 4096];
    fata_hypercall::Window::copy_out(&page, 0, &mut bytes);
    assert_eq!(bytes, [0; 4096]);
    drop(reading);
}

proptest! {
    /// Only whole steps inside the range, and all of them.
    #[test]
    fn discards_are_rounded_inwards(
        granularity in 1_u64..20,
        alignment in 0_u64..20,
        start in 0_u64..200,
        len in 0_u64..200,
    ) {
        let alignment = alignment % granularity;
        let whole = DiscardSteps { granularity, alignment }.whole(start..start + len);
        let is_inside = |sector: u64| {
            let Some(behind) = sector.checked_sub(alignment) else { return false };
            let step = alignment + behind / granularity * granularity;
            step >= start && step + granularity <= start + len
        };
        for sector in 0..500 {
            prop_assert_eq!(whole.contains(&sector), is_inside(sector), "sector {}", sector);
        }
    }
}
