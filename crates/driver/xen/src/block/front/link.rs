//! [`Link`]: a ring to a backend, the pages that data goes through, and the pieces in flight.
//!
//! The pages are granted once and used again and again. A backend with `feature-persistent` maps each
//! of them once and keeps it, so that a request costs a copy and no hypercall; any other backend maps
//! and unmaps them for each request, or lets Xen copy, and for us nothing is different. What the
//! caller's buffer holds never lies in a page that the backend can reach; what it reads comes into a
//! page first, and is copied once the backend has said that it is done.

use super::job::{Job, Kind};
use crate::memory::Shared;
use core::ops::Range;
use fata_device::BlockError;
use fata_hypercall::{
    Access, DomainId, EventChannel, GrantRef, Granted, HypercallError, Hypervisor, PAGE_BYTES, Port,
};
use fata_xenbus::Memory;
use fata_xenbus::ring::block::{
    DIRECT_SEGMENTS_MAX, DirectSegments, Front, FrontError, INDIRECT_PAGE_SEGMENTS,
    INDIRECT_PAGES_MAX, Operation, Request, SECTOR_BYTES, Segment, Status,
};

/// What the backend can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// Segments of an indirect request; 0 if there are none.
    pub indirect_segments_max: usize,
    /// How writes are made durable: [`Operation::FlushDiskcache`], [`Operation::WriteBarrier`], or
    /// by being answered.
    pub flush: Option<Operation>,
    /// Discards are possible, in whole steps.
    pub discard: Option<DiscardSteps>,
}

/// Which discards do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiscardSteps {
    /// Size of a step in sectors of 512 bytes, at least 1.
    pub granularity: u64,
    /// Where the first step begins, in sectors of 512 bytes; less than a step.
    pub alignment: u64,
}

impl DiscardSteps {
    /// The whole steps in `sectors`; empty if there is none.
    pub(super) fn whole(&self, sectors: Range<u64>) -> Range<u64> {
        let DiscardSteps { granularity, alignment } = *self;
        let up = sectors.start.saturating_sub(alignment).div_ceil(granularity);
        let start = alignment + up * granularity;
        let down = sectors.end.checked_sub(alignment).map_or(0, |behind| behind / granularity);
        let end = alignment + down * granularity;
        start..end.max(start)
    }
}

/// Granted pages, given out one by one.
#[derive(Debug)]
struct Pool {
    pages: Shared<Granted>,
    /// The last given back first: the backend's memory of it is the freshest.
    free: Vec<u16>,
}

impl Pool {
    fn gref(&self, page: u16) -> u32 {
        self.pages.0.refs()[usize::from(page)].0
    }
}

/// A part of a job that is at the backend.
#[derive(Debug, Default)]
struct Piece {
    job: u16,
    /// Which of the job's bytes.
    bytes: Range<usize>,
    /// The pages that they go through, in order.
    pages: Vec<u16>,
    /// The page with the segments of an indirect request.
    indirect: Option<u16>,
}

/// What came of an attempt to send the next piece of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Launch {
    /// A piece was sent.
    Sent,
    /// The ring or the pool is full: after the next answer.
    Full,
    /// There is nothing to send: the job is done.
    Nothing,
}

/// A piece that came back.
pub(super) struct Landed {
    /// Its job.
    pub job: u16,
    /// What became of it.
    pub status: Status,
    piece: Piece,
}

/// A ring to a backend.
#[derive(Debug)]
pub(crate) struct Link {
    channel: EventChannel,
    front: Front<Shared<Granted>>,
    ring_refs: Vec<GrantRef>,
    pool: Pool,
    /// By the ring's tokens.
    pieces: Vec<Piece>,
    /// Empty lists of pages, so that none is allocated for each piece.
    spare_lists: Vec<Vec<u16>>,
    features: Features,
    segments_max: usize,
}

impl Link {
    /// A ring of `ring_pages` to `backend`, with `pool_pages` for data; nothing is sent yet.
    pub(crate) fn new(
        hypervisor: &Hypervisor,
        backend: DomainId,
        handle: u16,
        ring_pages: usize,
        pool_pages: u16,
    ) -> Result<Self, HypercallError> {
        let ring = hypervisor.grant(backend, ring_pages, Access::ReadWrite)?;
        let ring_refs = ring.refs().to_vec();
        let pool_pages = pool_pages.max(1);
        let pages = hypervisor.grant(backend, pool_pages.into(), Access::ReadWrite)?;
        let channel = hypervisor.allocate_unbound(backend)?;
        let front = Front::new(Shared(ring), handle);
        let pieces = (0..front.capacity()).map(|_| Piece::default()).collect();
        let pool = Pool { pages: Shared(pages), free: (0..pool_pages).rev().collect() };
        let features = Features::default();
        let spare_lists = Vec::new();
        Ok(Link { channel, front, ring_refs, pool, pieces, spare_lists, features, segments_max: 1 })
    }

    /// What the backend must learn.
    pub(crate) fn offer(&self) -> (&[GrantRef], Port) {
        (&self.ring_refs, self.channel.port())
    }

    /// Takes in what the backend can do. `segments_max` bounds what we make of it.
    pub(crate) fn agree(&mut self, features: Features, segments_max: usize) {
        self.features = features;
        let pages = self.pool.pages.len() / PAGE_BYTES;
        // An indirect request needs a page for its segments besides.
        let indirect = features
            .indirect_segments_max
            .min(segments_max)
            .min(INDIRECT_PAGE_SEGMENTS)
            .min(pages.saturating_sub(1));
        let direct = DIRECT_SEGMENTS_MAX.min(segments_max).min(pages);
        self.segments_max = indirect.max(direct).max(1);
    }

    pub(super) fn features(&self) -> &Features {
        &self.features
    }

    pub(super) fn channel(&self) -> &EventChannel {
        &self.channel
    }

    /// Announces what was sent; true if the backend was notified.
    pub(super) fn publish(&mut self) -> bool {
        let notify = self.front.publish();
        if notify {
            self.channel.notify();
        }
        notify
    }

    pub(super) fn may_sleep(&mut self) -> Result<bool, FrontError> {
        self.front.may_sleep()
    }

    /// Sends the next piece of `job`, whose number is `number`. It is announced by
    /// [`publish`](Link::publish).
    pub(super) fn launch(&mut self, number: u16, job: &mut Job) -> Launch {
        if job.is_launched() {
            return Launch::Nothing;
        }
        if self.front.free() == 0 {
            return Launch::Full;
        }
        let piece = match job.kind {
            Kind::Read | Kind::Write => {
                let Some(piece) = self.send_data(number, job) else { return Launch::Full };
                piece
            }
            Kind::Flush => {
                let Some(operation) = self.features.flush else {
                    job.launched_all();
                    return Launch::Nothing;
                };
                let segments = DirectSegments::default();
                let request = Request::Direct { operation, sector_number: 0, segments };
                (self.front.push(&request), Piece { job: number, ..Piece::default() })
            }
            Kind::Discard { sectors } => {
                let steps = self.features.discard;
                let all = job.sector..job.sector + sectors;
                let whole = steps.map_or(0..0, |steps| steps.whole(all));
                if whole.is_empty() {
                    // It is a hint, and there is nothing here that the disk could do with it.
                    job.launched_all();
                    return Launch::Nothing;
                }
                let nr_sectors = whole.end - whole.start;
                let request =
                    Request::Discard { sector_number: whole.start, nr_sectors, secure: false };
                (self.front.push(&request), Piece { job: number, ..Piece::default() })
            }
        };
        let (token, piece) = piece;
        job.sent(piece.bytes.len());
        self.pieces[usize::from(token)] = piece;
        Launch::Sent
    }

    /// Makes a request of as much of a job as one takes.
    fn send_data(&mut self, number: u16, job: &Job) -> Option<(u16, Piece)> {
        let start = job.launched;
        let rest = job.len() - start;
        let count = rest.div_ceil(PAGE_BYTES).min(self.segments_max);
        let is_indirect = count > DIRECT_SEGMENTS_MAX;
        if self.pool.free.len() < count + usize::from(is_indirect) {
            return None;
        }
        let bytes = start..start + rest.min(count * PAGE_BYTES);
        let taken = self.pool.free.len() - count;
        let mut pages = self.spare_lists.pop().unwrap_or_default();
        pages.extend(self.pool.free.drain(taken..));
        let is_write = job.kind == Kind::Write;
        let data = &job.data()[bytes.clone()];
        let operation = if is_write { Operation::Write } else { Operation::Read };
        let sector_number = job.sector + start as u64 / SECTOR_BYTES;
        let chunks = data.chunks(PAGE_BYTES).zip(&pages);
        let segments = chunks.map(|(chunk, page)| {
            if is_write {
                self.pool.pages.copy_in(usize::from(*page) * PAGE_BYTES, chunk);
            }
            let last_sect = (chunk.len() as u64 / SECTOR_BYTES) as u8 - 1;
            Segment { gref: self.pool.gref(*page), first_sect: 0, last_sect }
        });
        let (request, indirect) = if is_indirect {
            let page = *self.pool.free.last()?;
            let at = usize::from(page) * PAGE_BYTES;
            for (index, segment) in segments.enumerate() {
                let word = u64::from_le_bytes(segment.encode());
                self.pool.pages.store_u64(at + index * Segment::BYTES, word);
            }
            let mut indirect_grefs = [0; INDIRECT_PAGES_MAX];
            indirect_grefs[0] = self.pool.gref(page);
            self.pool.free.pop();
            let nr_segments = count as u16;
            let request =
                Request::Indirect { operation, sector_number, nr_segments, indirect_grefs };
            (request, Some(page))
        } else {
            let mut direct = [Segment::default(); DIRECT_SEGMENTS_MAX];
            direct.iter_mut().zip(segments).for_each(|(place, segment)| *place = segment);
            let segments = DirectSegments::new(&direct[..count])?;
            (Request::Direct { operation, sector_number, segments }, None)
        };
        Some((self.front.push(&request), Piece { job: number, bytes, pages, indirect }))
    }

    /// The next piece that came back.
    pub(super) fn land(&mut self) -> Result<Option<Landed>, FrontError> {
        let Some((token, status)) = self.front.take()? else { return Ok(None) };
        let piece = core::mem::take(&mut self.pieces[usize::from(token)]);
        Ok(Some(Landed { job: piece.job, status, piece }))
    }

    /// Copies what a piece brought into its job's buffer, if it brought something, and gives its
    /// pages back to the pool.
    pub(super) fn unload(&mut self, landed: Landed, job: Option<&mut Job>) {
        let Landed { status, piece, .. } = landed;
        if let Some(job) = job.filter(|job| job.kind == Kind::Read && status == Status::Okay) {
            let data = &mut job.data_mut()[piece.bytes.clone()];
            for (chunk, page) in data.chunks_mut(PAGE_BYTES).zip(&piece.pages) {
                self.pool.pages.copy_out(usize::from(*page) * PAGE_BYTES, chunk);
            }
        }
        self.pool.free.extend(piece.indirect);
        let mut pages = piece.pages;
        self.pool.free.extend(pages.drain(..).rev());
        self.spare_lists.push(pages);
    }
}

/// How a backend's refusal is told.
pub(super) fn refusal(kind: Kind, status: Status) -> Option<BlockError> {
    match (status, kind) {
        (Status::Okay, _) => None,
        (Status::NotSupported, Kind::Flush) => Some(BlockError::Unsupported("flush")),
        (Status::NotSupported, Kind::Discard { .. }) => Some(BlockError::Unsupported("discard")),
        _ => Some(BlockError::Medium),
    }
}
