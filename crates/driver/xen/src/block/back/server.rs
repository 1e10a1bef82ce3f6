//! [`Server`]: one frontend's ring, served from a disk.
//!
//! A round takes what stands in the ring, fetches what the requests point to (segments of indirect
//! requests, data to be written) with one hypercall each, asks the disk, and answers with one
//! hypercall for all data that was read. Nothing of the frontend's is mapped but the ring: Xen
//! copies, checks the references, and the frontend cannot change what was copied.
//!
//! What one frontend can cost is bounded: so many requests and so many bytes at the disk at once,
//! and what is over that waits in the ring.

use super::counters::Counts;
use crate::memory::Shared;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use fata_device::block::check_range;
use fata_device::{Block, BlockError, Geometry, SectorBuffer};
use fata_hypercall::{
    CopyData, CopyOperation, DomainId, EventChannel, GrantRef, Hypervisor, Mapped, PAGE_BYTES,
};
use fata_xenbus::ring::block::{
    Back, INDIRECT_PAGE_SEGMENTS, Operation, Request, RequestError, SECTOR_BYTES, Segment, Status,
};
use fata_xenbus::ring::core::RingError;
use std::sync::Arc;

/// What one frontend may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServeLimits {
    /// Requests at the disk at once.
    pub requests_max: usize,
    /// Bytes of theirs, beyond which no more requests are taken. The last that is taken may go
    /// over it by its own length.
    pub bytes_max: usize,
    /// Segments of an indirect request, as offered.
    pub indirect_segments_max: usize,
    /// The frontend may only read.
    pub read_only: bool,
}

/// What the disk is doing for a request, until it is done: what was read, if something was.
type Work = Pin<Box<dyn Future<Output = Result<Option<SectorBuffer>, BlockError>> + Send>>;

/// A request that was taken and found good.
struct Job {
    id: u64,
    /// The byte that the answer repeats.
    wire_operation: u8,
    operation: Operation,
    sector_number: u64,
    segments: Vec<Segment>,
    /// Of a discard.
    nr_sectors: u64,
}

impl Job {
    fn bytes(&self) -> usize {
        self.segments.iter().map(Segment::len).sum()
    }
}

/// A job at the disk.
struct Running {
    job: Job,
    work: Work,
    bytes: usize,
}

/// One frontend's ring, served from a disk, until the ring is broken.
pub(crate) struct Server {
    hypervisor: Hypervisor,
    frontend: DomainId,
    channel: EventChannel,
    ring: Back<Shared<Mapped>>,
    disk: Arc<dyn Block>,
    geometry: Geometry,
    limits: ServeLimits,
    running: Vec<Running>,
    running_bytes: usize,
    /// A barrier that waits for all that is running, or runs itself: nothing else is taken.
    barrier: Option<Job>,
    has_barrier: bool,
    /// Finished reads whose data has to be copied to the frontend.
    read: Vec<(Job, SectorBuffer)>,
    counts: Arc<Counts>,
}

/// Rounds in a row before others get their turn.
pub(super) const ROUNDS_MAX: usize = 16;

impl Server {
    pub(crate) fn new(
        hypervisor: Hypervisor,
        ring: Mapped,
        channel: EventChannel,
        disk: Arc<dyn Block>,
        limits: ServeLimits,
        counts: Arc<Counts>,
    ) -> Self {
        let frontend = ring.remote();
        let geometry = disk.geometry();
        Server {
            hypervisor,
            frontend,
            channel,
            ring: Back::attach(Shared(ring)),
            geometry,
            disk,
            limits,
            running: Vec::new(),
            running_bytes: 0,
            barrier: None,
            has_barrier: false,
            read: Vec::new(),
            counts,
        }
    }

    /// Serves. `Ready` only when the frontend broke the rules of the ring, and never to be polled
    /// again then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RingError> {
        for _ in 0..ROUNDS_MAX {
            let taken = match self.take() {
                Ok(taken) => taken,
                Err(error) => return Poll::Ready(error),
            };
            let any_taken = taken.is_some();
            self.start(taken.unwrap_or_default());
            let any_done = self.advance(cx);
            self.start_barrier(cx);
            self.deliver();
            if self.ring.publish() {
                self.channel.notify();
                self.counts.add(&self.counts.notifications, 1);
            }
            if any_taken || any_done {
                continue;
            }
            // What waits in the ring because of a limit is looked at when something is done, and the
            // disk wakes us then.
            if self.is_full() {
                return Poll::Pending;
            }
            match self.ring.may_sleep() {
                Ok(true) if self.channel.line().poll_fired(cx).is_pending() => {
                    return Poll::Pending;
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(error),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_full(&self) -> bool {
        self.has_barrier
            || self.running.len() >= self.limits.requests_max
            || self.running_bytes >= self.limits.bytes_max
    }

    /// Takes requests as far as the limits allow; those that are wrong are answered. `None`: there
    /// were none.
    ///
    /// Wrong ones count too, for this turn: a frontend on another processor can put a new one where
    /// the last was as fast as it is refused, and the other tasks would never have theirs.
    fn take(&mut self) -> Result<Option<Vec<Job>>, RingError> {
        let (mut jobs, mut indirect) = (Vec::new(), Vec::new());
        let mut taken = 0;
        let mut bytes = self.running_bytes;
        while !self.has_barrier
            && taken < self.limits.requests_max
            && self.running.len() + jobs.len() + indirect.len() < self.limits.requests_max
            && bytes < self.limits.bytes_max
        {
            let Some((id, wire_operation, request)) = self.ring.take()? else { break };
            taken += 1;
            self.counts.add(&self.counts.requests, 1);
            let request = request.and_then(|request| self.check_offered(request));
            let request = match request {
                Ok(request) => request,
                Err(error) => {
                    self.answer(id, wire_operation, error.status());
                    continue;
                }
            };
            let mut job = Job {
                id,
                wire_operation,
                operation: request.operation(),
                sector_number: 0,
                segments: Vec::new(),
                nr_sectors: 0,
            };
            match request {
                Request::Direct { sector_number, segments, .. } => {
                    job.sector_number = sector_number;
                    job.segments.extend_from_slice(segments.as_slice());
                    bytes += job.bytes();
                    self.has_barrier = job.operation == Operation::WriteBarrier;
                    if self.has_barrier {
                        self.barrier = Some(job);
                    } else {
                        jobs.push(job);
                    }
                }
                Request::Discard { sector_number, nr_sectors, .. } => {
                    (job.sector_number, job.nr_sectors) = (sector_number, nr_sectors);
                    jobs.push(job);
                }
                Request::Indirect { sector_number, nr_segments, indirect_grefs, .. } => {
                    job.sector_number = sector_number;
                    // As much as they can be, until they are fetched.
                    bytes += usize::from(nr_segments) * PAGE_BYTES;
                    indirect.push((job, nr_segments, indirect_grefs));
                }
            }
        }
        if !indirect.is_empty() {
            self.fetch_segments(&mut jobs, indirect);
        }
        Ok((taken > 0).then_some(jobs))
    }

    fn check_offered(&self, request: Request) -> Result<Request, RequestError> {
        match request {
            Request::Indirect { nr_segments, .. }
                if usize::from(nr_segments) > self.limits.indirect_segments_max =>
            {
                Err(RequestError::TooManySegments(nr_segments))
            }
            request => Ok(request),
        }
    }

    /// Copies the segments of indirect requests, once.
    fn fetch_segments(&mut self, jobs: &mut Vec<Job>, indirect: Vec<(Job, u16, [u32; 8])>) {
        let total: usize = indirect.iter().map(|(_, count, _)| usize::from(*count)).sum();
        let mut wire = vec![0; total * Segment::BYTES];
        let mut operations = Vec::new();
        let mut rest = &mut wire[..];
        for (_, count, grefs) in &indirect {
            let (bytes, behind) = rest.split_at_mut(usize::from(*count) * Segment::BYTES);
            rest = behind;
            let pages = bytes.chunks_mut(INDIRECT_PAGE_SEGMENTS * Segment::BYTES).zip(grefs);
            operations.extend(pages.map(|(page, gref)| CopyOperation {
                remote: self.frontend,
                grant: GrantRef(*gref),
                offset: 0,
                data: CopyData::Into(page),
                status: 0,
            }));
        }
        let copied = self.hypervisor.copy(&mut operations);
        let mut statuses: Vec<_> = operations.iter().map(|operation| operation.status).collect();
        if copied.is_err() {
            statuses.fill(-1);
        }
        drop(operations);
        self.counts.add(&self.counts.copies, statuses.len());
        let mut rest = &wire[..];
        let mut statuses = statuses.into_iter();
        for (mut job, count, _) in indirect {
            let (bytes, behind) = rest.split_at(usize::from(count) * Segment::BYTES);
            rest = behind;
            let pages = Request::indirect_pages(count);
            // Counted, and so all taken: the next request's are next.
            let failed = statuses.by_ref().take(pages).filter(|status| *status != 0).count();
            let segments = bytes.as_chunks().0.iter().map(Segment::decode);
            match segments.collect::<Result<Vec<_>, _>>() {
                Ok(segments) if failed == 0 => {
                    job.segments = segments;
                    jobs.push(job);
                }
                _ => self.answer(job.id, job.wire_operation, Status::Error),
            }
        }
    }

    /// Checks jobs against the disk, fetches what they write, and gives them to the disk.
    fn start(&mut self, jobs: Vec<Job>) {
        let mut good = Vec::with_capacity(jobs.len());
        for job in jobs {
            match self.check(&job) {
                Ok(()) => good.push(job),
                Err(status) => self.answer(job.id, job.wire_operation, status),
            }
        }
        for (job, data) in self.fetch_data(good) {
            let work = self.work(&job, data);
            let bytes = job.bytes();
            self.running_bytes += bytes;
            self.running.push(Running { job, work, bytes });
        }
    }

    /// What of the disk a job is about: the first of its sectors and how many, in the disk's own
    /// size. `None` if the job is not made of whole sectors, or of too many.
    fn sectors(&self, job: &Job) -> Option<(u64, u64)> {
        let is_order = matches!(job.operation, Operation::FlushDiskcache | Operation::WriteBarrier);
        if is_order && job.segments.is_empty() {
            // Linux puts -1 where the first sector of no sectors would stand.
            return Some((0, 0));
        }
        let sector_bytes = self.geometry.sector_bytes as u64;
        let bytes = match job.operation {
            Operation::Discard => job.nr_sectors.checked_mul(SECTOR_BYTES)?,
            _ => job.bytes() as u64,
        };
        let start = job.sector_number.checked_mul(SECTOR_BYTES)?;
        let is_whole = start.is_multiple_of(sector_bytes) && bytes.is_multiple_of(sector_bytes);
        is_whole.then_some((start / sector_bytes, bytes / sector_bytes))
    }

    fn check(&self, job: &Job) -> Result<(), Status> {
        let (start, count) = self.sectors(job).ok_or(Status::Error)?;
        let is_change = match job.operation {
            Operation::Read => false,
            Operation::Write | Operation::Discard => true,
            // Without data they only order, and a disk that is only read is always in order.
            Operation::WriteBarrier | Operation::FlushDiskcache => count > 0,
        };
        if is_change && (self.limits.read_only || self.geometry.read_only) {
            return Err(Status::Error);
        }
        if job.operation == Operation::Discard && !self.geometry.discard {
            return Err(Status::NotSupported);
        }
        if job.operation == Operation::Discard && count == 0 {
            return Err(Status::Error);
        }
        check_range(&self.geometry, start, count).map_err(|_| Status::Error)
    }

    /// Copies what the jobs write, with one hypercall. Those whose pages are no good are answered.
    fn fetch_data(&mut self, jobs: Vec<Job>) -> Vec<(Job, Option<SectorBuffer>)> {
        let has_data = |job: &Job| job.operation != Operation::Read && !job.segments.is_empty();
        let mut buffers: Vec<_> = jobs
            .iter()
            .map(|job| has_data(job).then(|| SectorBuffer::zeroed(job.bytes())))
            .collect();
        let mut operations = Vec::new();
        for (job, buffer) in jobs.iter().zip(&mut buffers) {
            let Some(buffer) = buffer else { continue };
            let mut rest = &mut buffer[..];
            for segment in &job.segments {
                let (page, behind) = rest.split_at_mut(segment.len());
                rest = behind;
                operations.push(self.copy_of(segment, CopyData::Into(page)));
            }
        }
        let good = self.copy(operations, jobs.iter().filter(|job| has_data(job)));
        let mut good = good.into_iter();
        let mut fetched = Vec::with_capacity(jobs.len());
        for (job, buffer) in jobs.into_iter().zip(buffers) {
            if buffer.is_none() || good.next() == Some(true) {
                fetched.push((job, buffer));
            } else {
                self.answer(job.id, job.wire_operation, Status::Error);
            }
        }
        fetched
    }

    fn copy_of<'a>(&self, segment: &Segment, data: CopyData<'a>) -> CopyOperation<'a> {
        CopyOperation {
            remote: self.frontend,
            grant: GrantRef(segment.gref),
            offset: segment.offset() as u16,
            data,
            status: 0,
        }
    }

    /// Does the copies of these jobs' segments, in their order; says for each job whether all of
    /// its own succeeded.
    fn copy<'j>(
        &self,
        mut operations: Vec<CopyOperation<'_>>,
        jobs: impl Iterator<Item = &'j Job>,
    ) -> Vec<bool> {
        if operations.is_empty() {
            return Vec::new();
        }
        self.counts.add(&self.counts.copies, operations.len());
        let copied = self.hypervisor.copy(&mut operations).is_ok();
        let mut statuses = operations.iter().map(|operation| operation.status);
        jobs.map(|job| {
            let of_job = statuses.by_ref().take(job.segments.len());
            of_job.fold(copied, |good, status| good && status == 0)
        })
        .collect()
    }

    /// What the disk has to do for a job. The job was checked.
    fn work(&self, job: &Job, data: Option<SectorBuffer>) -> Work {
        let disk = self.disk.clone();
        let (start, count) = self.sectors(job).unwrap_or_default();
        match job.operation {
            Operation::Read => {
                Box::pin(async move { disk.read(start, count as usize).await.map(Some) })
            }
            Operation::Write => Box::pin(async move {
                if let Some(data) = data {
                    disk.write(start, data).await?;
                }
                Ok(None)
            }),
            Operation::FlushDiskcache => Box::pin(async move {
                // What was answered before is durable before the data is written.
                disk.flush().await?;
                if let Some(data) = data {
                    disk.write(start, data).await?;
                }
                Ok(None)
            }),
            Operation::WriteBarrier => Box::pin(async move {
                disk.flush().await?;
                if let Some(data) = data {
                    disk.write(start, data).await?;
                    disk.flush().await?;
                }
                Ok(None)
            }),
            Operation::Discard => {
                Box::pin(async move { disk.discard(start, count).await.map(|()| None) })
            }
        }
    }

    /// Polls what the disk is doing; answers what is done, and keeps what was read for
    /// [`deliver`](Server::deliver). True if something was done.
    fn advance(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.running.len();
        let mut at = 0;
        while at < self.running.len() {
            let Poll::Ready(outcome) = self.running[at].work.as_mut().poll(cx) else {
                at += 1;
                continue;
            };
            let Running { job, bytes, .. } = self.running.swap_remove(at);
            self.running_bytes -= bytes;
            self.has_barrier &= job.operation != Operation::WriteBarrier;
            match outcome {
                Ok(Some(data)) => self.read.push((job, data)),
                Ok(None) => {
                    if job.operation != Operation::Discard {
                        self.counts.add(&self.counts.bytes_written, bytes);
                    }
                    self.answer(job.id, job.wire_operation, Status::Okay);
                }
                Err(BlockError::Unsupported(_)) => {
                    self.answer(job.id, job.wire_operation, Status::NotSupported);
                }
                Err(_) => self.answer(job.id, job.wire_operation, Status::Error),
            }
        }
        self.running.len() < before
    }

    /// Begins the barrier when all before it is done.
    fn start_barrier(&mut self, cx: &mut Context<'_>) {
        if !self.running.is_empty() {
            return;
        }
        if let Some(barrier) = self.barrier.take() {
            self.start(vec![barrier]);
            // Refused: nothing is to be waited for.
            self.has_barrier = !self.running.is_empty();
            self.advance(cx);
        }
    }

    /// Copies what was read to the frontend, with one hypercall, and answers.
    fn deliver(&mut self) {
        if self.read.is_empty() {
            return;
        }
        let read = core::mem::take(&mut self.read);
        let mut operations = Vec::new();
        for (job, data) in &read {
            let mut rest = &data[..];
            for segment in &job.segments {
                let (page, behind) = rest.split_at(segment.len());
                rest = behind;
                operations.push(self.copy_of(segment, CopyData::From(page)));
            }
        }
        let good = self.copy(operations, read.iter().map(|(job, _)| job));
        for ((job, data), good) in read.into_iter().zip(good) {
            self.counts.add(&self.counts.bytes_read, data.len());
            let status = if good { Status::Okay } else { Status::Error };
            self.answer(job.id, job.wire_operation, status);
        }
    }

    fn answer(&mut self, id: u64, wire_operation: u8, status: Status) {
        if status != Status::Okay {
            self.counts.add(&self.counts.refused, 1);
        }
        self.ring.answer(id, wire_operation, status);
    }
}
