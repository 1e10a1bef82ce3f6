use super::super::rig::{BACK, FRONT, Rig};
use super::server::{ROUNDS_MAX, Server};
use super::*;
use crate::memory::Shared;
use fata::MemoryDisk;
use fata_device::{Block, BlockError, BoxFuture, Geometry, SectorBuffer};
use fata_hypercall::{Access, EventChannel, Granted, Window};
use fata_xenbus::ring::block::{
    DirectSegments, Front, INDIRECT_PAGES_MAX, Operation, Request, SLOT_BYTES, Segment, Status,
};
use fata_xenbus::ring::core::{FrontRing, RingError};
use proptest::prelude::*;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// A frontend that is written by hand in the test, with two pages of data.
struct ByHand {
    ring: Front<Shared<Granted>>,
    channel: EventChannel,
    pages: Granted,
    server: Server,
}

fn by_hand(rig: &Rig, lent: Arc<dyn Block>) -> ByHand {
    let ring = rig.front.grant(BACK, 1, Access::ReadWrite).expect("memory");
    let channel = rig.front.allocate_unbound(BACK).expect("a port");
    let mapped = rig.back.map(FRONT, ring.refs(), Access::ReadWrite).expect("granted");
    let theirs = rig.back.bind_interdomain(FRONT, channel.port()).expect("allocated");
    let ring = Front::new(Shared(ring), 0);
    let pages = rig.front.grant(BACK, 2, Access::ReadWrite).expect("memory");
    let back = rig.back.clone();
    let server = Server::new(back, mapped, theirs, lent, rig.limits, rig.counts.clone());
    ByHand { ring, channel, pages, server }
}

impl ByHand {
    /// A segment in page 0 or 1.
    fn segment(&self, page: usize, first_sect: u8, last_sect: u8) -> Segment {
        Segment { gref: self.pages.refs()[page].0, first_sect, last_sect }
    }

    fn direct(&self, operation: Operation, sector_number: u64, segments: &[Segment]) -> Request {
        let segments = DirectSegments::new(segments).expect("few");
        Request::Direct { operation, sector_number, segments }
    }

    fn indirect(&self, operation: Operation, nr_segments: u16, page: u32) -> Request {
        let mut indirect_grefs = [0; INDIRECT_PAGES_MAX];
        indirect_grefs[0] = page;
        Request::Indirect { operation, sector_number: 0, nr_segments, indirect_grefs }
    }

    fn poll(&mut self) -> Option<RingError> {
        match self.server.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(error) => Some(error),
            Poll::Pending => None,
        }
    }

    /// Makes one request and returns the answer, which a disk in memory has at once.
    fn ask(&mut self, request: &Request) -> Status {
        let token = self.ring.push(request);
        self.ring.publish();
        self.channel.notify();
        assert_eq!(self.poll(), None);
        let (answered, status) = self.ring.take().expect("a good ring").expect("an answer");
        assert_eq!(answered, token);
        status
    }
}

fn filled(disk: &MemoryDisk) {
    for sector in 0..disk.geometry().sector_count {
        let data = SectorBuffer::copy_of(&[sector as u8; 512]);
        let writing = disk.write(sector, data);
        let mut writing = std::pin::pin!(writing);
        let polled = writing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready());
    }
}

#[test]
fn sectors_go_where_their_segments_say() {
    let rig = Rig::new();
    let disk = MemoryDisk::new(64);
    filled(&disk);
    let mut hand = by_hand(&rig, Arc::new(disk));
    let segments = [hand.segment(0, 6, 7), hand.segment(1, 0, 0)];
    let read = hand.direct(Operation::Read, 10, &segments);
    assert_eq!(hand.ask(&read), Status::Okay);
    assert_eq!(hand.pages.load_u8(6 * 512), 10);
    assert_eq!(hand.pages.load_u8(7 * 512 + 511), 11);
    assert_eq!(hand.pages.load_u8(4096), 12);
    assert_eq!(hand.pages.load_u8(5 * 512 + 511), 0, "nothing beside them");
    assert_eq!(hand.pages.load_u8(4096 + 512), 0, "nothing beside them");
    let counters = rig.counts.read();
    assert_eq!((counters.requests, counters.bytes_read, counters.copies), (1, 3 * 512, 2));
}

#[test]
fn requests_that_are_wrong_are_refused_and_nothing_happens() {
    let rig = Rig::new();
    let disk = Arc::new(MemoryDisk::new(64));
    let mut hand = by_hand(&rig, disk.clone());
    hand.pages.copy_in(0, &[0xee; 4096]);
    let good = hand.segment(0, 0, 7);
    let wrong_page = Segment { gref: 9999, ..good };
    let ring_only = [wrong_page, Segment { gref: u32::MAX, ..good }];
    let write = Operation::Write;
    for request in [
        hand.direct(write, 57, &[good]),
        hand.direct(write, 64, &[good]),
        hand.direct(write, u64::MAX, &[good]),
        hand.direct(write, u64::MAX / 512, &[good]),
        hand.direct(write, 0, &ring_only),
        hand.direct(write, 0, &[good, wrong_page]),
        hand.direct(Operation::Read, 0, &[wrong_page]),
        hand.direct(Operation::Read, 0, &[good, wrong_page]),
        hand.direct(Operation::WriteBarrier, 0, &[wrong_page]),
        hand.direct(Operation::FlushDiskcache, 60, &[good]),
        hand.indirect(write, 65, good.gref),
        hand.indirect(write, 1, 9999),
        // The page that is to hold segments is full of 0xee, which are no sectors.
        hand.indirect(write, 1, good.gref),
        Request::Discard { sector_number: 60, nr_sectors: 5, secure: false },
        Request::Discard { sector_number: 1, nr_sectors: u64::MAX, secure: false },
        Request::Discard { sector_number: 1, nr_sectors: 0, secure: false },
    ] {
        assert_eq!(hand.ask(&request), Status::Error, "{request:?}");
    }
    assert_eq!(disk.bytes_in_use(), 0, "nothing was written");
    assert_eq!(rig.counts.read().refused, 16);
    let read = hand.direct(Operation::Read, 0, &[good]);
    assert_eq!(hand.ask(&read), Status::Okay, "and the next is served");
}

#[test]
fn a_frontend_cannot_write_what_it_may_only_read() {
    let mut rig = Rig::new();
    rig.limits.read_only = true;
    let disk = Arc::new(MemoryDisk::new(64));
    let mut hand = by_hand(&rig, disk.clone());
    let good = hand.segment(0, 0, 7);
    let discard = Request::Discard { sector_number: 0, nr_sectors: 8, secure: false };
    for operation in [Operation::Write, Operation::WriteBarrier, Operation::FlushDiskcache] {
        let request = hand.direct(operation, 0, &[good]);
        assert_eq!(hand.ask(&request), Status::Error);
    }
    assert_eq!(hand.ask(&discard), Status::Error);
    assert_eq!(disk.bytes_in_use(), 0);
    let flush = hand.direct(Operation::FlushDiskcache, u64::MAX, &[]);
    assert_eq!(hand.ask(&flush), Status::Okay);
}

/// Linux writes -1 as the first sector of a flush without data.
#[test]
fn a_flush_without_data_may_name_any_sector() {
    let rig = Rig::new();
    let mut hand = by_hand(&rig, Arc::new(MemoryDisk::new(64)));
    for operation in [Operation::FlushDiskcache, Operation::WriteBarrier] {
        let flush = hand.direct(operation, u64::MAX, &[]);
        assert_eq!(hand.ask(&flush), Status::Okay);
    }
}

#[test]
fn wild_indices_end_the_frontend_by_name() {
    let rig = Rig::new();
    let mut hand = by_hand(&rig, Arc::new(MemoryDisk::new(64)));
    let wild = rig.front.grant(BACK, 1, Access::ReadWrite).expect("memory");
    wild.store_u32(0, 33);
    let mapped = rig.back.map(FRONT, wild.refs(), Access::ReadWrite).expect("granted");
    let channel = rig.front.allocate_unbound(BACK).expect("a port");
    let theirs = rig.back.bind_interdomain(FRONT, channel.port()).expect("allocated");
    let disk: Arc<dyn Block> = Arc::new(MemoryDisk::new(64));
    let back = rig.back.clone();
    hand.server = Server::new(back, mapped, theirs, disk, rig.limits, rig.counts.clone());
    let error = hand.poll().expect("more than fits");
    assert!(error.to_string().starts_with("the frontend's req_prod is 33"), "{error}");
}

/// A frontend may name its own ring as the page to read into. Then the disk's bytes are its indices.
#[test]
fn a_frontend_that_reads_into_its_own_ring_hurts_nobody_else() {
    let rig = Rig::new();
    let disk = MemoryDisk::new(64);
    filled(&disk);
    let disk: Arc<dyn Block> = Arc::new(disk);
    let memory = rig.front.grant(BACK, 1, Access::ReadWrite).expect("memory");
    let channel = rig.front.allocate_unbound(BACK).expect("a port");
    let mapped = rig.back.map(FRONT, memory.refs(), Access::ReadWrite).expect("granted");
    let theirs = rig.back.bind_interdomain(FRONT, channel.port()).expect("allocated");
    let segment = Segment { gref: memory.refs()[0].0, first_sect: 0, last_sect: 7 };
    let mut ring = Front::new(Shared(memory), 0);
    let segments = DirectSegments::new(&[segment]).expect("one");
    let (operation, sector_number) = (Operation::Read, 32);
    ring.push(&Request::Direct { operation, sector_number, segments });
    ring.publish();
    let back = rig.back.clone();
    let mut server =
        Server::new(back, mapped, theirs, disk.clone(), rig.limits, rig.counts.clone());
    let Poll::Ready(error) = server.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("its indices are full of 32s");
    };
    assert!(error.to_string().starts_with("the frontend's req_prod"), "{error}");
    let mut hand = by_hand(&rig, disk);
    let good = [hand.segment(0, 0, 0)];
    let read = hand.direct(Operation::Read, 9, &good);
    assert_eq!(hand.ask(&read), Status::Okay);
    assert_eq!(hand.pages.load_u8(0), 9);
}

/// A disk that does nothing until it is told to, and writes down what it was asked.
struct Slow {
    disk: MemoryDisk,
    go: Notify,
    log: std::sync::Mutex<Vec<String>>,
}

impl Slow {
    fn new() -> Arc<Self> {
        Arc::new(Slow { disk: MemoryDisk::new(64), go: Notify::new(), log: Default::default() })
    }

    fn note(&self, what: String) {
        self.log.lock().expect("no panic").push(what);
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().expect("no panic").clone()
    }
}

struct SlowBlock(Arc<Slow>);

impl Block for SlowBlock {
    fn geometry(&self) -> Geometry {
        self.0.disk.geometry()
    }
    fn read(&self, start: u64, count: usize) -> BoxFuture<'_, Result<SectorBuffer, BlockError>> {
        self.0.note(format!("read {start}"));
        Box::pin(async move {
            self.0.go.notified().await;
            self.0.disk.read(start, count).await
        })
    }
    fn write(&self, start: u64, data: SectorBuffer) -> BoxFuture<'_, Result<(), BlockError>> {
        self.0.note(format!("write {start}"));
        Box::pin(async move {
            self.0.go.notified().await;
            self.0.disk.write(start, data).await
        })
    }
    fn flush(&self) -> BoxFuture<'_, Result<(), BlockError>> {
        self.0.note("flush".into());
        Box::pin(core::future::ready(Ok(())))
    }
    fn discard(&self, start: u64, count: u64) -> BoxFuture<'_, Result<(), BlockError>> {
        self.0.disk.discard(start, count)
    }
}

#[test]
fn a_barrier_waits_for_all_before_it_and_all_behind_it_wait() {
    let rig = Rig::new();
    let slow = Slow::new();
    let mut hand = by_hand(&rig, Arc::new(SlowBlock(slow.clone())));
    let segment = [hand.segment(0, 0, 0)];
    for (operation, sector) in [
        (Operation::Write, 1),
        (Operation::Write, 2),
        (Operation::WriteBarrier, 3),
        (Operation::Write, 4),
    ] {
        let request = hand.direct(operation, sector, &segment);
        hand.ring.push(&request);
    }
    hand.ring.publish();
    hand.poll();
    assert_eq!(slow.log(), ["write 1", "write 2"]);
    slow.go.notify_one();
    hand.poll();
    assert_eq!(slow.log().len(), 2, "one is still at the disk");
    slow.go.notify_one();
    hand.poll();
    assert_eq!(slow.log()[2..], ["flush", "write 3"]);
    slow.go.notify_one();
    hand.poll();
    assert_eq!(slow.log()[4..], ["flush", "write 4"]);
    slow.go.notify_one();
    hand.poll();
    let mut answers = 0;
    while let Some((_, status)) = hand.ring.take().expect("a good ring") {
        assert_eq!(status, Status::Okay);
        answers += 1;
    }
    assert_eq!(answers, 4);
}

#[test]
fn what_is_over_the_limits_waits_in_the_ring() {
    let mut rig = Rig::new();
    (rig.limits.requests_max, rig.limits.bytes_max) = (3, 1 << 20);
    let slow = Slow::new();
    let mut hand = by_hand(&rig, Arc::new(SlowBlock(slow.clone())));
    let segment = [hand.segment(0, 0, 0)];
    for sector in 0..10 {
        let request = hand.direct(Operation::Read, sector, &segment);
        hand.ring.push(&request);
    }
    hand.ring.publish();
    hand.poll();
    assert_eq!(slow.log().len(), 3);
    for _ in 0..10 {
        slow.go.notify_one();
        hand.poll();
    }
    assert_eq!(slow.log().len(), 10);

    (rig.limits.requests_max, rig.limits.bytes_max) = (32, 4096);
    let slow = Slow::new();
    let mut hand = by_hand(&rig, Arc::new(SlowBlock(slow.clone())));
    let page = [hand.segment(0, 0, 7)];
    for _ in 0..3 {
        let request = hand.direct(Operation::Read, 0, &page);
        hand.ring.push(&request);
    }
    hand.ring.publish();
    hand.poll();
    assert_eq!(slow.log().len(), 1, "a page is at the disk, and no more are allowed");
}

#[test]
fn a_frontend_that_vanishes_leaves_the_disk_to_the_next() {
    let rig = Rig::new();
    let disk = Arc::new(MemoryDisk::new(64));
    let mut hand = by_hand(&rig, disk.clone());
    let segment = hand.segment(0, 0, 0);
    hand.pages.store_u8(0, 0x77);
    let write = hand.direct(Operation::Write, 5, &[segment]);
    assert_eq!(hand.ask(&write), Status::Okay);
    let read = hand.direct(Operation::Read, 5, &[segment]);
    hand.ring.push(&read);
    hand.ring.publish();
    rig.world.kill(FRONT);
    // Its ring is still mapped; its pages are gone.
    assert_eq!(hand.poll(), None);
    drop(hand);
    let rig = Rig { world: rig.world.clone(), front: rig.world.domain(FRONT), ..rig };
    let mut hand = by_hand(&rig, disk);
    let segment = hand.segment(1, 0, 0);
    let read = hand.direct(Operation::Read, 5, &[segment]);
    assert_eq!(hand.ask(&read), Status::Okay);
    assert_eq!(hand.pages.load_u8(4096), 0x77);
}

proptest! {
    /// A frontend that fills its ring with anything: each request is answered or the ring is closed,
    /// nothing panics, and nothing outside the disk or the granted pages is touched.
    #[test]
    fn a_frontend_that_writes_anything_gets_answers(
        slots in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), SLOT_BYTES), 0_u8..8, 0_u8..13, 0_u64..80, 0_u32..40),
            1..32,
        ),
        segments in prop::collection::vec((0_u32..40, 0_u8..9, 0_u8..9), 0..20),
    ) {
        let rig = Rig::new();
        let disk: Arc<dyn Block> = Arc::new(MemoryDisk::new(64));
        let memory = rig.front.grant(BACK, 1, Access::ReadWrite).expect("memory");
        let channel = rig.front.allocate_unbound(BACK).expect("a port");
        let mapped = rig.back.map(FRONT, memory.refs(), Access::ReadWrite).expect("granted");
        let theirs = rig.back.bind_interdomain(FRONT, channel.port()).expect("allocated");
        let pages = rig.front.grant(BACK, 4, Access::ReadWrite).expect("memory");
        for (at, (gref, first, last)) in segments.iter().enumerate() {
            let segment = Segment { gref: *gref, first_sect: *first, last_sect: *last };
            pages.copy_in(at * Segment::BYTES, &segment.encode());
        }
        let own = memory.refs()[0].0;
        let mut ring = FrontRing::<_, SLOT_BYTES>::new(Shared(memory));
        let count = slots.len();
        for (bytes, operation, segments, sector, gref) in slots {
            let mut slot: [u8; SLOT_BYTES] = bytes.try_into().unwrap();
            slot[0] = operation;
            slot[1] = segments;
            // Its own ring is another test's.
            let gref = if gref == own { own + 1 } else { gref };
            slot[16..24].copy_from_slice(&sector.to_le_bytes());
            for at in (24..SLOT_BYTES).step_by(8) {
                slot[at..at + 4].copy_from_slice(&gref.to_le_bytes());
                slot[at + 4] &= 7;
                slot[at + 5] &= 7;
            }
            ring.push(&slot);
        }
        ring.publish();
        let back = rig.back.clone();
        let counts = rig.counts.clone();
        let mut server = Server::new(back, mapped, theirs, disk, rig.limits, counts);
        for _ in 0..10 {
            let polled = server.poll(&mut Context::from_waker(Waker::noop()));
            prop_assert!(polled.is_pending());
        }
        let mut answers = 0;
        while ring.take::<16>().expect("a good ring").is_some() {
            answers += 1;
        }
        prop_assert_eq!(answers, count);
    }
}

/// It is on another processor, and puts a wrong request where the last one was refused, for ever.
#[test]
fn a_frontend_that_is_refused_without_end_leaves_the_others_their_turn() {
    use fata_xenbus::Memory;
    use std::sync::atomic::{AtomicBool, Ordering};
    const MARK: u32 = 0x1234_5678;
    let rig = Rig::new();
    let ring = rig.front.grant(BACK, 1, Access::ReadWrite).expect("memory");
    let channel = rig.front.allocate_unbound(BACK).expect("a port");
    let mapped = rig.back.map(FRONT, ring.refs(), Access::ReadWrite).expect("granted");
    let spy = Shared(rig.back.map(FRONT, ring.refs(), Access::ReadWrite).expect("granted"));
    let theirs = rig.back.bind_interdomain(FRONT, channel.port()).expect("allocated");
    let _front = Front::new(Shared(ring), 0);
    let disk: Arc<dyn Block> = Arc::new(MemoryDisk::new(64));
    let counts = rig.counts.clone();
    let mut server = Server::new(rig.back.clone(), mapped, theirs, disk, rig.limits, counts);
    let stop = Arc::new(AtomicBool::new(false));
    let attacker = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let slot = |index: u32| 64 + (index % 32) as usize * SLOT_BYTES;
            let arm = |index: u32| {
                (0..SLOT_BYTES).step_by(4).for_each(|at| spy.store_u32(slot(index) + at, 0xff));
                spy.store_u32(slot(index) + 8, MARK);
            };
            (0..32).for_each(arm);
            spy.store_u32(0, 32);
            let mut next = 32_u32;
            while !stop.load(Ordering::Relaxed) {
                if spy.load_u32(slot(next) + 8) != MARK {
                    arm(next);
                    next = next.wrapping_add(1);
                    spy.store_u32(0, next);
                }
            }
        }
    });
    let most = (ROUNDS_MAX * rig.limits.requests_max) as u64;
    let mut refused = 0;
    for _ in 0..200 {
        if server.poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            break;
        }
        let before = core::mem::replace(&mut refused, rig.counts.read().refused);
        assert!(refused - before <= most, "{} in one turn", refused - before);
    }
    stop.store(true, Ordering::Relaxed);
    attacker.join().unwrap();
}
