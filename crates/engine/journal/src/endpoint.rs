//! What both ends of a ring do: find it, read headers and believe them, write their own.

use crate::format::{Header, Headers, Layout, Version};
use crate::{Completion, Disk, Error, Refused, Request, Side};
use std::collections::VecDeque;

/// How often headers are read before they are said to be corrupt. One of an end's two may be in the
/// middle of being written; both only if the other end wrote twice while they were read.
const HEADER_READS_MAX: u32 = 3;

/// A request, and what its completion means.
#[derive(Debug)]
struct Step {
    request: Request,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Nothing,
    /// Sector 0 was read.
    Layout,
    /// Both headers were read, for the so-manieth time.
    Headers(Layout, u32),
    /// What was read of the headers has been flushed.
    Believe(Layout, Headers),
    /// Data pages were read, from this one on.
    Pages(u64),
    /// Data pages that were written have been flushed.
    PagesFlushed,
    /// This header was written.
    HeaderWritten(Header),
    /// This header has been flushed.
    HeaderFlushed(Header),
}

/// The request that is under way.
#[derive(Debug)]
struct Running {
    /// How many sectors it reads; 0 if it does not read.
    reads: usize,
    then: Then,
}

/// What a completion means for the end whose command it is part of.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Nothing of note.
    Nothing,
    /// The layout and both headers are known.
    Attached,
    /// The other's header is as it was, or as it is believed now.
    Looked,
    /// Data pages, from this one on.
    Pages(u64, Vec<u8>),
    /// Data pages that were written are on the disk for good.
    PagesFlushed,
}

/// One end: the ring as it is known, and the requests of the command that is under way.
#[derive(Debug)]
pub(crate) struct Endpoint {
    side: Side,
    disk: Disk,
    layout: Option<Layout>,
    /// This end's header, as it is on the disk for good.
    own: Header,
    /// A header that may have come to the disk, because writing or flushing it failed. Whoever saw
    /// it relies on it, so it is written again, unchanged, before another.
    unsure: Option<Header>,
    /// The other end's header, flushed.
    peer: Header,
    steps: VecDeque<Step>,
    running: Option<Running>,
    /// Places of headers that were found damaged.
    pub(crate) damaged_headers: u64,
    /// Commands that failed.
    pub(crate) failures: u64,
}

impl Endpoint {
    pub(crate) fn new(side: Side, disk: Disk) -> Self {
        Endpoint {
            side,
            disk,
            layout: None,
            own: Header::default(),
            unsure: None,
            peer: Header::default(),
            steps: VecDeque::new(),
            running: None,
            damaged_headers: 0,
            failures: 0,
        }
    }

    /// The ring that this end is attached to.
    pub(crate) fn layout(&self) -> Result<Layout, Refused> {
        self.layout.ok_or(Refused::NotAttached)
    }

    /// This end's header, as it is on the disk for good.
    pub(crate) fn own(&self) -> Header {
        self.own
    }

    /// The other end's header, as far as it is believed.
    pub(crate) fn peer(&self) -> Header {
        self.peer
    }

    /// Takes the other end's header from the other end itself, which has flushed it.
    pub(crate) fn tell_peer(&mut self, header: Header) {
        self.peer = header;
    }

    /// Forgets the ring.
    pub(crate) fn detach(&mut self) {
        self.layout = None;
        self.unsure = None;
    }

    /// Nothing is planned or under way.
    pub(crate) fn is_done(&self) -> bool {
        self.running.is_none() && self.steps.is_empty()
    }

    /// Plans to find the ring.
    pub(crate) fn plan_attach(&mut self) {
        self.plan(Request::Read { sector: 0, count: 1 }, Then::Layout);
    }

    /// Plans to read the headers.
    pub(crate) fn plan_look(&mut self, layout: &Layout) {
        self.plan(layout.read_headers(), Then::Headers(*layout, 1));
    }

    /// Plans to read data pages, which are contiguous.
    pub(crate) fn plan_read(&mut self, layout: &Layout, page: u64, count: u64) {
        self.plan(layout.read_pages(page, count), Then::Pages(page));
    }

    /// Plans to write whole data pages from `page` on, no more than the ring has, and to flush.
    pub(crate) fn plan_pages(&mut self, layout: &Layout, page: u64, bytes: &[u8]) {
        let count = (bytes.len() / layout.page_bytes) as u64;
        let before_end = layout.contiguous(page, count) as usize * layout.page_bytes;
        let (head, tail) = bytes.split_at(before_end);
        let write = |page, bytes: &[u8]| Request::Write {
            sector: layout.sector_of(page),
            data: bytes.to_vec(),
        };
        self.plan(write(page, head), Then::Nothing);
        if !tail.is_empty() {
            self.plan(write(0, tail), Then::Nothing);
        }
        self.plan(Request::Flush, Then::PagesFlushed);
    }

    /// Plans to change this end's header, and to flush it.
    pub(crate) fn plan_header(
        &mut self,
        layout: &Layout,
        change: impl FnOnce(&mut Header),
    ) -> Result<(), Error> {
        let mut latest = self.own;
        if let Some(unsure) = self.unsure {
            self.plan_header_write(layout, unsure);
            latest = unsure;
        }
        let mut next = latest;
        change(&mut next);
        if next != latest {
            next.generation = layout.next_generation(latest).ok_or(Error::Exhausted)?;
            self.plan_header_write(layout, next);
        }
        Ok(())
    }

    fn plan_header_write(&mut self, layout: &Layout, header: Header) {
        self.plan(layout.write_header(self.side, header), Then::HeaderWritten(header));
        self.plan(Request::Flush, Then::HeaderFlushed(header));
    }

    fn plan(&mut self, request: Request, then: Then) {
        self.steps.push_back(Step { request, then });
    }

    /// As [`Machine::poll_request`](crate::Machine::poll_request).
    pub(crate) fn poll_request(&mut self) -> Option<Request> {
        if self.running.is_some() {
            return None;
        }
        let step = self.steps.pop_front()?;
        if let Then::HeaderWritten(header) = step.then {
            // From here on somebody may see it.
            self.unsure = Some(header);
        }
        let reads = match step.request {
            Request::Read { count, .. } => count,
            Request::Write { .. } | Request::Flush => 0,
        };
        self.running = Some(Running { reads, then: step.then });
        Some(step.request)
    }

    /// What a completion means; `None` if nothing is under way. After an error nothing is planned.
    pub(crate) fn complete(&mut self, completion: Completion) -> Option<Result<Progress, Error>> {
        let Running { reads, then } = self.running.take()?;
        let bytes = read_bytes(reads * self.disk.sector_bytes, completion);
        Some(bytes.and_then(|bytes| self.go_on(then, bytes)))
    }

    /// Ends the command, which failed: the rest of it is not done.
    pub(crate) fn give_up(&mut self) {
        self.steps.clear();
        self.failures += 1;
    }

    fn go_on(&mut self, then: Then, bytes: Vec<u8>) -> Result<Progress, Error> {
        match then {
            Then::Nothing | Then::HeaderWritten(_) => {}
            Then::Layout => {
                let layout = Layout::decode(self.disk, &bytes)?;
                self.plan_look(&layout);
            }
            Then::Headers(layout, reads) => return self.handle_headers(layout, reads, &bytes),
            Then::Believe(layout, headers) => return Ok(self.believe(layout, &headers)),
            Then::Pages(page) => return Ok(Progress::Pages(page, bytes)),
            Then::PagesFlushed => return Ok(Progress::PagesFlushed),
            Then::HeaderFlushed(header) => {
                self.own = header;
                self.unsure = None;
            }
        }
        Ok(Progress::Nothing)
    }

    fn handle_headers(
        &mut self,
        layout: Layout,
        reads: u32,
        bytes: &[u8],
    ) -> Result<Progress, Error> {
        let mut headers = match layout.decode_headers(bytes) {
            Err(Error::Corrupt { .. }) if reads < HEADER_READS_MAX => {
                self.plan(layout.read_headers(), Then::Headers(layout, reads + 1));
                return Ok(Progress::Nothing);
            }
            headers => headers?,
        };
        self.damaged_headers += u64::from(headers.damaged);
        if self.layout.is_some() {
            self.check_own(&layout, headers.of(self.side))?;
            self.check_peer(&layout, headers.of(self.side.other()))?;
            // The other end may have acted on what is not sure to have come to the disk.
            *headers.of_mut(self.side) = self.unsure.unwrap_or(self.own);
        }
        layout.check(&headers, self.side.other())?;
        if self.layout.is_some() && headers.of(self.side.other()) == self.peer {
            return Ok(Progress::Looked);
        }
        // What this end does next relies on it. It must not be gone after a loss of power.
        self.plan(Request::Flush, Then::Believe(layout, headers));
        Ok(Progress::Nothing)
    }

    /// This end's header is what it wrote itself, or tried to.
    fn check_own(&self, layout: &Layout, found: Header) -> Result<(), Error> {
        let (side, sector) = (self.side, layout.sector_of_header(self.side, found.generation));
        if found == self.own || Some(found) == self.unsure {
            Ok(())
        } else if layout.version == Version::V2 && found.generation < self.own.generation {
            let sector = layout.sector_of_header(side, self.own.generation);
            Err(Error::Corrupt { sector, what: "the last header of this end is gone" })
        } else {
            Err(Error::Usurped { side, sector })
        }
    }

    /// The other end's header is the one that is known, or a later one.
    fn check_peer(&self, layout: &Layout, found: Header) -> Result<(), Error> {
        let (known, side) = (self.peer, self.side.other());
        let what = if found.generation < known.generation {
            "it is an older one than before"
        } else if found.position < known.position {
            "its position went back"
        } else if layout.version == Version::V2
            && found.generation == known.generation
            && found != known
        {
            "it changed, and is no later one"
        } else {
            return Ok(());
        };
        let sector = layout.sector_of_header(side, found.generation);
        Err(Error::Misbehaved { side, sector, what })
    }

    fn believe(&mut self, layout: Layout, headers: &Headers) -> Progress {
        self.peer = headers.of(self.side.other());
        if self.layout.is_some() {
            return Progress::Looked;
        }
        self.layout = Some(layout);
        self.own = headers.of(self.side);
        Progress::Attached
    }
}

/// The bytes that a request read, of which there must be `expected`; none if it read nothing.
pub(crate) fn read_bytes(expected: usize, completion: Completion) -> Result<Vec<u8>, Error> {
    match completion {
        Completion::Failed(text) => Err(Error::Disk(text)),
        Completion::Read(bytes) if bytes.len() == expected && expected > 0 => Ok(bytes),
        Completion::Done if expected == 0 => Ok(Vec::new()),
        Completion::Read(bytes) => {
            let found = bytes.len();
            Err(Error::Disk(format!("it read {found} bytes where {expected} were asked for")))
        }
        Completion::Done => Err(Error::Disk("it read nothing".into())),
    }
}
