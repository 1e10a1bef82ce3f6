//! [`Producer`]: the end that adds items.

use crate::endpoint::{Endpoint, Progress};
use crate::format::{ITEM_ALIGNMENT, Layout, item_bytes};
use crate::{Completion, Config, Disk, Error, Machine, Position, Refused, Request, Side};
use core::fmt;

/// How the last command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProducerEvent {
    /// Attached: items may be pushed.
    Attached,
    /// Everything up to this position survives a loss of power, and the consumer sees it.
    Published(Position),
    /// The consumer's header has been read: there may be space, and a suspension or resumption has
    /// been acknowledged.
    Refreshed,
    /// The command failed. Nothing that was pushed is lost; give the command again, or detach.
    Failed(Error),
}

/// Why an item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushError {
    /// Attach first.
    NotAttached,
    /// The item's payload is longer than [`Config::item_bytes_max`], or than the ring can ever hold.
    TooLarge {
        /// Bytes of the longest payload.
        max: u64,
    },
    /// [`Config::batch_bytes_max`] is reached: publish first.
    BatchFull,
    /// The ring is full.
    RingFull {
        /// Where the consumer must have come to, for the item to fit. Refresh until it has.
        consume_to: Position,
    },
    /// The consumer has suspended the ring: refresh until it has resumed it.
    Suspended,
    /// The ring's positions are used up: create a new ring.
    Exhausted,
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PushError::NotAttached => write!(f, "not attached to a ring"),
            PushError::TooLarge { max } => write!(f, "an item has at most {max} bytes"),
            PushError::BatchFull => write!(f, "what was pushed must be published first"),
            PushError::RingFull { consume_to } => {
                write!(f, "the ring is full until it is consumed to {}", consume_to.0)
            }
            PushError::Suspended => write!(f, "the consumer has suspended the ring"),
            PushError::Exhausted => write!(f, "the ring's positions are used up"),
        }
    }
}

impl std::error::Error for PushError {}

/// What a producer has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerCounters {
    /// Items taken.
    pub items: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Publications.
    pub publications: u64,
    /// Items refused for [`PushError::TooLarge`].
    pub refused_too_large: u64,
    /// Items refused for [`PushError::BatchFull`].
    pub refused_batch_full: u64,
    /// Items refused for [`PushError::RingFull`].
    pub refused_ring_full: u64,
    /// Items refused for [`PushError::Suspended`].
    pub refused_suspended: u64,
    /// Places of headers that were found damaged: a loss of power may leave one.
    pub damaged_headers: u64,
    /// Commands that failed.
    pub failures: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Attach,
    Refresh,
    Publish,
}

/// Adds items to a ring. [`attach`](Producer::attach), then [`push`](Producer::push) items and
/// [`publish`](Producer::publish) them together; when the ring is full,
/// [`refresh`](Producer::refresh) from time to time.
#[derive(Debug)]
pub struct Producer {
    end: Endpoint,
    config: Config,
    command: Option<Command>,
    /// What is being published. Kept, as it is, until that has succeeded.
    closed: Option<Closed>,
    /// What is going to be published next.
    open: Batch,
    event: Option<ProducerEvent>,
    counters: ProducerCounters,
}

/// A publication that cannot change any more, because a part of it may have come to the disk.
#[derive(Debug)]
struct Closed {
    batch: Batch,
    /// The position that the header is going to say.
    published: u64,
    /// The pages are on the disk for good.
    is_flushed: bool,
}

impl Producer {
    /// The producing end of a ring on `disk`; not attached.
    pub fn new(disk: Disk, config: Config) -> Self {
        Producer {
            end: Endpoint::new(Side::Producer, disk),
            config,
            command: None,
            closed: None,
            open: Batch::default(),
            event: None,
            counters: ProducerCounters::default(),
        }
    }

    /// Finds the ring, in the state that it was left in, by whomever. Ends with
    /// [`ProducerEvent::Attached`].
    ///
    /// # Errors
    /// [`Refused::Busy`], [`Refused::Attached`].
    pub fn attach(&mut self) -> Result<(), Refused> {
        self.must_be_idle()?;
        if self.end.layout().is_ok() {
            return Err(Refused::Attached);
        }
        self.end.plan_attach();
        self.command = Some(Command::Attach);
        Ok(())
    }

    /// Takes an item into the batch that is published next, in memory. Returns where it is going to
    /// end in the ring.
    ///
    /// # Errors
    /// [`PushError`] says what to do first.
    pub fn push(&mut self, payload: &[u8]) -> Result<Position, PushError> {
        let pushed = self.try_push(payload);
        let counters = &mut self.counters;
        match pushed {
            Ok(_) => {
                counters.items += 1;
                counters.bytes += payload.len() as u64;
            }
            Err(PushError::TooLarge { .. }) => counters.refused_too_large += 1,
            Err(PushError::BatchFull) => counters.refused_batch_full += 1,
            Err(PushError::RingFull { .. }) => counters.refused_ring_full += 1,
            Err(PushError::Suspended) => counters.refused_suspended += 1,
            Err(PushError::NotAttached | PushError::Exhausted) => {}
        }
        pushed
    }

    fn try_push(&mut self, payload: &[u8]) -> Result<Position, PushError> {
        let layout = self.end.layout().map_err(|_| PushError::NotAttached)?;
        if self.is_suspended() {
            return Err(PushError::Suspended);
        }
        let max = layout.payload_bytes_max().min(self.config.item_bytes_max as u64);
        let max = max.min(u64::from(u32::MAX));
        if payload.len() as u64 > max {
            return Err(PushError::TooLarge { max });
        }
        let end = layout.advance(self.open.end(&layout), item_bytes(payload.len()));
        let end = end.filter(|end| layout.published(*end).is_some()).ok_or(PushError::Exhausted)?;
        let page_end = layout.page_after(end);
        let batch_pages = page_end - self.open.first_page;
        if !self.open.is_empty()
            && batch_pages > (self.config.batch_bytes_max / layout.page_bytes) as u64
        {
            return Err(PushError::BatchFull);
        }
        // A page is free when everything in it has been consumed.
        if page_end - layout.page_of(self.end.peer().position) > layout.page_count {
            let consume_to = (page_end - layout.page_count) * layout.page_bytes as u64;
            return Err(PushError::RingFull { consume_to: Position(consume_to) });
        }
        self.open.push(&layout, payload);
        Ok(Position(end))
    }

    /// Writes what was pushed and shows it to the consumer. Ends with [`ProducerEvent::Published`].
    /// Items that are pushed meanwhile belong to the next publication. After a failure this publishes
    /// what failed to be published.
    ///
    /// # Errors
    /// [`Refused::Busy`], [`Refused::NotAttached`], [`Refused::Nothing`], [`Refused::Suspended`].
    pub fn publish(&mut self) -> Result<(), Refused> {
        self.must_be_idle()?;
        let layout = self.end.layout()?;
        if self.closed.is_none() {
            if self.open.is_empty() {
                return Err(Refused::Nothing);
            }
            if self.is_suspended() {
                return Err(Refused::Suspended);
            }
            self.close(&layout);
        }
        let Some(closed) = &self.closed else { return Err(Refused::Nothing) };
        if !closed.is_flushed {
            self.end.plan_pages(&layout, closed.batch.first_page, &closed.batch.bytes);
        }
        self.command = Some(Command::Publish);
        let position = closed.published;
        let planned = self.end.plan_header(&layout, |header| header.position = position);
        if let Err(error) = planned {
            self.fail(error);
        }
        Ok(())
    }

    /// Closes the batch, and begins the next one where it ends.
    fn close(&mut self, layout: &Layout) {
        let end = self.open.end(layout);
        // Each push has seen to it that there is such a position.
        let published = layout.published(end).unwrap_or(end);
        let mut next = Batch { first_page: layout.page_of(published), ..Batch::default() };
        let offset = layout.offset_of(published);
        if offset != 0 {
            let last_page = self.open.bytes.len() - layout.page_bytes;
            next.resume(self.open.bytes[last_page..].to_vec(), offset);
        }
        let mut batch = core::mem::replace(&mut self.open, next);
        layout.seal(batch.first_page, &mut batch.bytes, batch.used);
        self.closed = Some(Closed { batch, published, is_flushed: false });
    }

    /// Reads the consumer's header: what it has consumed, and whether it has suspended the ring,
    /// which is acknowledged unless a publication has failed and must succeed first. Ends with
    /// [`ProducerEvent::Refreshed`].
    ///
    /// # Errors
    /// [`Refused::Busy`], [`Refused::NotAttached`].
    pub fn refresh(&mut self) -> Result<(), Refused> {
        self.must_be_idle()?;
        let layout = self.end.layout()?;
        self.end.plan_look(&layout);
        self.command = Some(Command::Refresh);
        Ok(())
    }

    /// Forgets the ring. Nothing on the disk tells who is attached.
    ///
    /// # Errors
    /// [`Refused::Busy`], [`Refused::NotAttached`], and [`Refused::Unpublished`] while there are items
    /// that would be lost; they are with [`abandon`](Producer::abandon).
    pub fn detach(&mut self) -> Result<(), Refused> {
        self.must_be_idle()?;
        self.end.layout()?;
        if self.has_unpublished() {
            return Err(Refused::Unpublished);
        }
        self.end.detach();
        Ok(())
    }

    /// Drops the items that are not published. A publication that failed may still turn out to have
    /// succeeded: attach again to know. Detaches.
    ///
    /// # Errors
    /// [`Refused::Busy`], [`Refused::NotAttached`].
    pub fn abandon(&mut self) -> Result<(), Refused> {
        self.must_be_idle()?;
        self.end.layout()?;
        (self.closed, self.open) = (None, Batch::default());
        self.end.detach();
        Ok(())
    }

    /// How the last command ended, once.
    pub fn poll_event(&mut self) -> Option<ProducerEvent> {
        self.event.take()
    }

    /// No command is under way.
    pub fn is_idle(&self) -> bool {
        self.command.is_none()
    }

    /// There are items that were pushed and are not published.
    pub fn has_unpublished(&self) -> bool {
        self.closed.is_some() || !self.open.is_empty()
    }

    /// The consumer wants nothing to be written, or the producer has acknowledged that.
    pub fn is_suspended(&self) -> bool {
        self.end.peer().is_suspended || self.end.own().is_suspended
    }

    /// What is published up to here survives a loss of power.
    pub fn published(&self) -> Position {
        Position(self.end.own().position)
    }

    /// How far the consumer has come, as far as is known.
    pub fn consumed(&self) -> Position {
        Position(self.end.peer().position)
    }

    /// What has been done.
    pub fn counters(&self) -> ProducerCounters {
        let Endpoint { damaged_headers, failures, .. } = self.end;
        ProducerCounters { damaged_headers, failures, ..self.counters }
    }

    /// The other end, in the same process, is at `end`.
    pub(crate) fn end_mut(&mut self) -> &mut Endpoint {
        &mut self.end
    }

    fn must_be_idle(&self) -> Result<(), Refused> {
        if self.is_idle() { Ok(()) } else { Err(Refused::Busy) }
    }

    fn fail(&mut self, error: Error) {
        self.end.give_up();
        if self.command == Some(Command::Attach) {
            self.end.detach();
        }
        self.command = None;
        self.event = Some(ProducerEvent::Failed(error));
    }

    /// Goes on with the command, knowing what a completion means.
    fn go_on(&mut self, progress: Progress) -> Result<(), Error> {
        let layout = match (self.end.layout(), progress) {
            // Attaching: the ring has not been found yet.
            (Err(_), _) | (Ok(_), Progress::Nothing) => return Ok(()),
            (Ok(layout), Progress::Attached) => {
                let position = self.end.own().position;
                let page = layout.page_of(position);
                self.open = Batch { first_page: page, ..Batch::default() };
                if layout.offset_of(position) != 0 {
                    self.end.plan_read(&layout, page, 1);
                }
                layout
            }
            (Ok(layout), Progress::Looked) => layout,
            (Ok(layout), Progress::Pages(_, bytes)) => {
                let offset = layout.offset_of(self.end.own().position);
                self.open.resume(bytes, offset);
                return Ok(());
            }
            (Ok(_), Progress::PagesFlushed) => {
                if let Some(closed) = &mut self.closed {
                    closed.is_flushed = true;
                }
                return Ok(());
            }
        };
        // The other's header has just been read. A publication that may have been seen comes first.
        let is_suspended = self.end.peer().is_suspended;
        if self.closed.is_none() {
            self.end.plan_header(&layout, |header| header.is_suspended = is_suspended)?;
        }
        Ok(())
    }

    fn finish(&mut self) {
        self.event = Some(match self.command.take() {
            Some(Command::Attach) => ProducerEvent::Attached,
            Some(Command::Publish) => {
                self.closed = None;
                self.counters.publications += 1;
                ProducerEvent::Published(self.published())
            }
            Some(Command::Refresh) | None => ProducerEvent::Refreshed,
        });
    }
}

impl Machine for Producer {
    fn poll_request(&mut self) -> Option<Request> {
        self.end.poll_request()
    }

    fn handle_completion(&mut self, completion: Completion) {
        let Some(progress) = self.end.complete(completion) else { return };
        match progress.and_then(|progress| self.go_on(progress)) {
            Err(error) => self.fail(error),
            Ok(()) if self.end.is_done() => self.finish(),
            Ok(()) => {}
        }
    }
}

/// Items in the pages that they are going to lie in.
#[derive(Debug, Default)]
struct Batch {
    first_page: u64,
    /// Whole pages.
    bytes: Vec<u8>,
    /// How many of the bytes are in use; the last page may have some to spare.
    used: usize,
    items: u64,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Where the last item ends.
    fn end(&self, layout: &Layout) -> u64 {
        self.first_page * layout.page_bytes as u64 + self.used as u64
    }

    /// Begins inside a page that holds the end of what is published.
    fn resume(&mut self, page: Vec<u8>, used: usize) {
        self.bytes = page;
        self.used = used;
    }

    fn push(&mut self, layout: &Layout, payload: &[u8]) {
        let padding = payload.len().next_multiple_of(ITEM_ALIGNMENT) - payload.len();
        self.append(layout, &(payload.len() as u32).to_le_bytes());
        self.append(layout, payload);
        self.append(layout, &[0; ITEM_ALIGNMENT][..padding]);
        self.items += 1;
    }

    fn append(&mut self, layout: &Layout, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.used == self.bytes.len() {
                self.bytes.resize(self.used + layout.page_bytes, 0);
                self.used += layout.page_header_bytes();
            }
            let len = bytes.len().min(self.bytes.len() - self.used);
            let (now, later) = bytes.split_at(len);
            self.bytes[self.used..self.used + len].copy_from_slice(now);
            self.used += len;
            bytes = later;
        }
    }
}
