//! Making a ring on a disk.

use crate::endpoint::read_bytes;
use crate::format::{Header, Layout, Version, header_pages, v1, v2};
use crate::{Completion, Disk, Error, Machine, Request, Side};
use core::ops::Range;
use std::collections::VecDeque;

/// Which ring is to be made. It fills the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One that programs of 2015 read and write.
    V1,
    /// One of ours.
    V2 {
        /// Bytes of a page: a power of two, at least a sector and at most 65,536. Take what the disk
        /// writes at once, 4,096 if in doubt: a smaller one saves space where publications are
        /// small, but tearing one page can then tear its neighbours.
        page_bytes: usize,
        /// Anything that no other ring on this disk had, such as a random number: it tells the pages
        /// of this ring from those of an older one.
        identity: u64,
    },
}

/// What to do with what is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Keep a ring, of whatever shape. Make one if the disk's first pages are blank, or if making
    /// one was cut off there before. Anything else is an error.
    Keep,
    /// Write over it.
    Replace,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// There is a new ring.
    New,
    /// There was a ring, and it is as it was.
    Kept(Version),
}

/// Makes a ring. A loss of power on the way leaves what was there, or no ring, or the new one; then
/// do the same again.
#[derive(Debug)]
pub struct Create {
    disk: Disk,
    existing: Existing,
    layout: Option<Layout>,
    planned: VecDeque<Request>,
    /// How many sectors the request reads that is under way; 0 if it does not read.
    running: Option<usize>,
    /// What is done when everything planned is done.
    created: Created,
    outcome: Option<Result<Created, Error>>,
}

impl Create {
    /// Makes a ring of this shape on `disk`.
    pub fn new(disk: Disk, shape: Shape, existing: Existing) -> Self {
        let layout = match shape {
            Shape::V1 => Layout::filling(disk, Version::V1, disk.sector_bytes, 0),
            Shape::V2 { page_bytes, identity } => {
                Layout::filling(disk, Version::V2, page_bytes, identity)
            }
        };
        let mut create = Create {
            disk,
            existing,
            layout: None,
            planned: VecDeque::new(),
            running: None,
            created: Created::New,
            outcome: None,
        };
        match layout {
            Ok(layout) => {
                create.layout = Some(layout);
                // All that is going to be written over, but the data pages.
                let count =
                    header_pages(layout.version) as usize * layout.page_bytes / disk.sector_bytes;
                create.planned.push_back(Request::Read { sector: 0, count });
            }
            Err(error) => create.outcome = Some(Err(error)),
        }
        create
    }

    /// What was done, once it is done.
    ///
    /// # Errors
    /// [`Error::SectorSize`], [`Error::PageSize`], [`Error::TooSmall`], [`Error::Disk`]; and to keep
    /// what is there, [`Error::Foreign`], [`Error::Future`] and [`Error::Corrupt`].
    pub fn poll_outcome(&mut self) -> Option<Result<Created, Error>> {
        self.outcome.take()
    }

    /// Decides, knowing the pages that will be written over.
    fn decide(&mut self, layout: Layout, found: &[u8]) -> Result<(), Error> {
        let first = first_pages(&layout);
        match self.existing {
            Existing::Keep => match Layout::decode(self.disk, found) {
                Ok(kept) => {
                    // Whoever made it may have been cut off just before it was there for good.
                    self.created = Created::Kept(kept.version);
                    self.planned.push_back(Request::Flush);
                    return Ok(());
                }
                Err(error @ (Error::Blank | Error::Foreign { .. } | Error::Corrupt { .. })) => {
                    check_blank(&layout, found, &first, error)?;
                }
                Err(error) => return Err(error),
            },
            Existing::Replace => {
                // Until the new ring is complete there is none.
                let data = vec![0; layout.page_bytes];
                self.planned.push_back(Request::Write { sector: 0, data });
                self.planned.push_back(Request::Flush);
            }
        }
        let mut data = first;
        let headers = data.split_off(layout.page_bytes);
        let sector = (layout.page_bytes / self.disk.sector_bytes) as u64;
        self.planned.push_back(Request::Write { sector, data: headers });
        self.planned.push_back(Request::Flush);
        self.planned.push_back(Request::Write { sector: 0, data });
        self.planned.push_back(Request::Flush);
        Ok(())
    }
}

impl Machine for Create {
    fn poll_request(&mut self) -> Option<Request> {
        if self.running.is_some() {
            return None;
        }
        let request = self.planned.pop_front()?;
        self.running = Some(match request {
            Request::Read { count, .. } => count,
            Request::Write { .. } | Request::Flush => 0,
        });
        Some(request)
    }

    fn handle_completion(&mut self, completion: Completion) {
        let (Some(reads), Some(layout)) = (self.running.take(), self.layout) else { return };
        let done = read_bytes(reads * self.disk.sector_bytes, completion)
            .and_then(|found| if found.is_empty() { Ok(()) } else { self.decide(layout, &found) });
        match done {
            Err(error) => {
                self.planned.clear();
                self.outcome = Some(Err(error));
            }
            Ok(()) if self.planned.is_empty() => self.outcome = Some(Ok(self.created)),
            Ok(()) => {}
        }
    }
}

/// The pages before those of data, as a new ring has them.
fn first_pages(layout: &Layout) -> Vec<u8> {
    let page_bytes = layout.page_bytes;
    let mut bytes = vec![0; header_pages(layout.version) as usize * page_bytes];
    let (ring, headers) = bytes.split_at_mut(page_bytes);
    match layout.version {
        Version::V1 => {
            ring[..v1::MAGIC.len()].copy_from_slice(v1::MAGIC);
            headers.chunks_exact_mut(page_bytes).for_each(v1::encode_first_header);
        }
        Version::V2 => {
            v2::encode_ring(ring, layout);
            for side in [Side::Producer, Side::Consumer] {
                for generation in 0..2 {
                    let page = v2::header_page(side, generation) as usize - 1;
                    let page = &mut headers[page * page_bytes..][..page_bytes];
                    let header = Header { generation, ..Header::default() };
                    v2::encode_header(page, side, header, layout.identity);
                }
            }
        }
    }
    bytes
}

/// Refuses to write over anything but zeroes and what an earlier attempt left, whole or in part. The
/// error is `otherwise` if it says more about page 0.
fn check_blank(layout: &Layout, found: &[u8], first: &[u8], otherwise: Error) -> Result<(), Error> {
    let pages = found.chunks_exact(layout.page_bytes).zip(first.chunks_exact(layout.page_bytes));
    for (page, (found, first)) in pages.enumerate() {
        let varies: &[Range<usize>] = match (layout.version, page) {
            (Version::V1, _) => &[],
            (Version::V2, 0) => &v2::RING_VARIES,
            (Version::V2, _) => &v2::HEADER_VARIES,
        };
        let is_ours = |(offset, (found, first)): (usize, (&u8, &u8))| {
            *found == 0 || found == first || varies.iter().any(|range| range.contains(&offset))
        };
        if found.iter().zip(first).enumerate().all(is_ours) {
            continue;
        }
        return Err(match otherwise {
            error @ Error::Corrupt { .. } if page == 0 => error,
            _ => foreign(layout, page, found),
        });
    }
    Ok(())
}

/// Names the first thing in a page that is not zero.
fn foreign(layout: &Layout, page: usize, found: &[u8]) -> Error {
    let offset = found.iter().position(|byte| *byte != 0).unwrap_or(0);
    let sector = ((page * layout.page_bytes + offset) / layout.sector_bytes()) as u64;
    let mut first = [0; 16];
    first.iter_mut().zip(&found[offset..]).for_each(|(first, found)| *first = *found);
    Error::Foreign { sector, found: first }
}
