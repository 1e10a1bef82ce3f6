//! [`Consumer`]: the end that takes items.

use crate::endpoint::{Endpoint, Progress};
use crate::format::{ITEM_HEADER_BYTES, Layout, Version, item_bytes};
use crate::{Completion, Config, Disk, Error, Machine, Position, Refused, Request, Side};
use std::collections::VecDeque;

/// An item of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What was pushed.
    pub payload: Vec<u8>,
    /// Where it ends: what to advance to when it has been dealt with.
    pub end: Position,
}

/// How the last command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerEvent {
    /// Attached, behind everything that was consumed.
    Attached,
    /// Items may be popped; if there are none, there is nothing new in the ring.
    Fetched,
    /// Everything up to this position is consumed for good, and its space is the producer's.
    Advanced(Position),
    /// The producer's header has been read.
    Refreshed,
    /// The wish that the producer stops, or goes on, is on the disk. It is acknowledged later, see
    /// [`Consumer::is_suspended`].
    Wished,
    /// The command failed. Items that were fetched before the error can be popped. Give the command
    /// again, or detach.
    Failed(Error),
}

/// What a consumer has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerCounters {
    /// Items fetched.
    pub items: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Advances.
    pub advances: u64,
    /// Items that were longer than [`Config::item_bytes_max`].
    pub too_large: u64,
    /// Places of headers that were found damaged: a loss of power may leave one.
    pub damaged_headers: u64,
    /// Commands that failed.
    pub failures: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Attach,
    Fetch,
    Refresh,
    Advance,
    Wish,
}

/// Takes items from a ring. [`attach`](Consumer::attach); then, again and again,
/// [`fetch`](Consumer::fetch), [`pop`](Consumer::pop) all items, deal with them, and
/// [`advance`](Consumer::advance) to the end of the last one. What was popped and not advanced past
/// is fetched again by whoever attaches next.
#[derive(Debug)]
pub struct Consumer {
    end: Endpoint,
    config: Config,
    command: Option<Command>,
    /// Everything before is in `items` and `partial`, or was popped.
    cursor: u64,
    /// The item that goes on at the cursor.
    partial: Option<Partial>,
    items: VecDeque<Item>,
    /// The end of the item that was popped last.
    popped: u64,
    event: Option<ConsumerEvent>,
    counters: ConsumerCounters,
}

/// An item of which a part has been read.
#[derive(Debug)]
struct Partial {
    /// Where the item begins.
    start: u64,
    payload_bytes: usize,
    /// Bytes of the payload and of its padding that have not been read.
    missing: usize,
    payload: Vec<u8>,
}

impl Consumer {
    /// The consuming end of a ring on `disk`; not attached.
    pub fn new(disk: Disk, config: Config) -> Self {
        Consumer {
            end: Endpoint::new(Side::Consumer, disk),
            config,
            command: None,
            cursor: 0,
            partial: None,
            items: VecDeque::new(),
            popped: 0,
            event: None,
            counters: ConsumerCounters::default(),
        }
    }

    /// Finds the ring, in the state that it was left in, by whomever. Ends with
    /// [`ConsumerEvent::Attached`].
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

    /// Reads items that are published; first the producer's header, if all that it is known to have
    /// published has been read. Ends with [`ConsumerEvent::Fetched`].
    ///
    /// # Errors
    /// [`Refused::Busy`], [`Refused::NotAttached`], [`Refused::NotPopped`].
    pub fn fetch(&mut self) -> Result<(), Refused> {
        self.must_be_idle()?;
        let layout = self.end.layout()?;
        if !self.items.is_empty() {
            return Err(Refused::NotPopped);
        }
        self.command = Some(Command::Fetch);
        if self.has_more() {
            self.plan_read(&layout);
        } else {
            self.end.plan_look(&layout);
        }
        Ok(())
    }

    /// Reads the producer's header. Ends with [`ConsumerEvent::Refreshed`].
    ///
    /// # Errors
    /// [`Refused::Busy`], [`Refused::NotAttached`].
    pub fn refresh(&mut self) -> Result<(), Refused> {
        self.must_be_idle()?;
        let layout = self.end.layout()?;
        self.command = Some(Command::Refresh);
        self.end.plan_look(&layout);
        Ok(())
    }

    /// The next item that was fetched.
    pub fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.popped = item.end.0;
        Some(item)
    }

    /// Says that everything up to `position`, where an item that was popped ends, has been dealt
    /// with. Ends with [`ConsumerEvent::Advanced`].
    ///
    /// # Errors
    /// [`Refused::Busy`], [`Refused::NotAttached`], [`Refused::NotPassed`].
    pub fn advance(&mut self, position: Position) -> Result<(), Refused> {
        self.must_be_idle()?;
        let layout = self.end.layout()?;
        if position.0 <= self.end.own().position || position.0 > self.popped {
            return Err(Refused::NotPassed);
        }
        self.command = Some(Command::Advance);
        self.write_header(&layout, |header| header.position = header.position.max(position.0));
        Ok(())
    }

    /// Asks the producer to write nothing, until [`resume`](Consumer::resume). Ends with
    /// [`ConsumerEvent::Wished`]; the producer acknowledges it when it refreshes.
    ///
    /// # Errors
    /// [`Refused::Busy`], [`Refused::NotAttached`], [`Refused::NotAcknowledged`].
    pub fn suspend(&mut self) -> Result<(), Refused> {
        self.wish(true)
    }

    /// Asks the producer to go on. Ends with [`ConsumerEvent::Wished`].
    ///
    /// # Errors
    /// [`Refused::Busy`], [`Refused::NotAttached`], [`Refused::NotAcknowledged`].
    pub fn resume(&mut self) -> Result<(), Refused> {
        self.wish(false)
    }

    fn wish(&mut self, is_suspended: bool) -> Result<(), Refused> {
        self.must_be_idle()?;
        let layout = self.end.layout()?;
        // The producer would not notice a wish that is taken back at once.
        if self.end.own().is_suspended != self.end.peer().is_suspended {
            return Err(Refused::NotAcknowledged);
        }
        self.command = Some(Command::Wish);
        self.write_header(&layout, |header| header.is_suspended = is_suspended);
        Ok(())
    }

    /// Forgets the ring, and what was fetched.
    ///
    /// # Errors
    /// [`Refused::Busy`], [`Refused::NotAttached`].
    pub fn detach(&mut self) -> Result<(), Refused> {
        self.must_be_idle()?;
        self.end.layout()?;
        self.end.detach();
        self.items.clear();
        self.partial = None;
        Ok(())
    }

    /// How the last command ended, once.
    pub fn poll_event(&mut self) -> Option<ConsumerEvent> {
        self.event.take()
    }

    /// No command is under way.
    pub fn is_idle(&self) -> bool {
        self.command.is_none()
    }

    /// More is known to be published than has been fetched.
    pub fn has_more(&self) -> bool {
        self.cursor < self.end.peer().position
    }

    /// The producer has acknowledged that it writes nothing, as far as is known: fetch or refresh to
    /// know more.
    pub fn is_suspended(&self) -> bool {
        self.end.peer().is_suspended
    }

    /// What is consumed for good.
    pub fn consumed(&self) -> Position {
        Position(self.end.own().position)
    }

    /// How far the producer has come, as far as is known.
    pub fn published(&self) -> Position {
        Position(self.end.peer().position)
    }

    /// What has been done.
    pub fn counters(&self) -> ConsumerCounters {
        let Endpoint { damaged_headers, failures, .. } = self.end;
        ConsumerCounters { damaged_headers, failures, ..self.counters }
    }

    pub(crate) fn end_mut(&mut self) -> &mut Endpoint {
        &mut self.end
    }

    fn must_be_idle(&self) -> Result<(), Refused> {
        if self.is_idle() { Ok(()) } else { Err(Refused::Busy) }
    }

    fn write_header(&mut self, layout: &Layout, change: impl FnOnce(&mut crate::format::Header)) {
        match self.end.plan_header(layout, change) {
            Err(error) => self.fail(error),
            Ok(()) if self.end.is_done() => self.finish(),
            Ok(()) => {}
        }
    }

    fn plan_read(&mut self, layout: &Layout) {
        let page = layout.page_of(self.cursor);
        let published = layout.page_after(self.end.peer().position) - page;
        let at_once = (self.config.fetch_bytes_max / layout.page_bytes).max(1) as u64;
        self.end.plan_read(layout, page, layout.contiguous(page, published.min(at_once)));
    }

    fn fail(&mut self, error: Error) {
        self.end.give_up();
        if self.command == Some(Command::Attach) {
            self.end.detach();
        }
        // The next fetch begins with the item that this one did not come to the end of.
        if let Some(partial) = self.partial.take() {
            self.cursor = partial.start;
        }
        self.command = None;
        self.event = Some(ConsumerEvent::Failed(error));
    }

    /// Goes on with the command, knowing what a completion means.
    fn go_on(&mut self, progress: Progress) -> Result<(), Error> {
        let Ok(layout) = self.end.layout() else { return Ok(()) };
        match progress {
            Progress::Attached => {
                self.cursor = self.end.own().position;
                self.popped = self.cursor;
            }
            Progress::Looked if self.command == Some(Command::Fetch) && self.has_more() => {
                self.plan_read(&layout);
            }
            Progress::Pages(page, bytes) => {
                self.read_pages(&layout, page, &bytes)?;
                if self.items.is_empty() && self.has_more() {
                    self.plan_read(&layout);
                }
            }
            Progress::Nothing | Progress::Looked | Progress::PagesFlushed => {}
        }
        Ok(())
    }

    /// Takes the items out of pages, from the cursor on.
    fn read_pages(&mut self, layout: &Layout, first: u64, bytes: &[u8]) -> Result<(), Error> {
        let pages = bytes.chunks_exact(layout.page_bytes);
        for (number, page) in (first..).zip(pages) {
            let read = layout
                .open(number, page)
                .and_then(|used| self.read_page(layout, number, &page[..used]));
            if let Err(what) = read {
                return Err(Error::Corrupt { sector: layout.sector_of(number), what });
            }
        }
        Ok(())
    }

    /// Takes the items out of what is in use of a page, from the cursor on.
    fn read_page(&mut self, layout: &Layout, number: u64, page: &[u8]) -> Result<(), &'static str> {
        let page_start = number * layout.page_bytes as u64;
        // In V1 the last page may hold more than is published.
        let published = self.end.peer().position - page_start;
        let page = &page[..page.len().min(usize::try_from(published).unwrap_or(usize::MAX))];
        let mut offset = layout.offset_of(self.cursor).max(layout.page_header_bytes());
        if offset > page.len() {
            return Err("the page ends before the consumer's position");
        }
        // Behind the page's last item comes the next page.
        let page_end = match layout.version {
            Version::V1 => page_start + page.len() as u64,
            Version::V2 => page_start + layout.page_bytes as u64,
        };
        while offset < page.len() {
            let partial = match &mut self.partial {
                Some(partial) => partial,
                None => {
                    let start = page_start + offset as u64;
                    let partial = self.begin_item(layout, start, &page[offset..])?;
                    offset += ITEM_HEADER_BYTES;
                    self.partial.insert(partial)
                }
            };
            let len = partial.missing.min(page.len() - offset);
            partial.payload.extend_from_slice(&page[offset..offset + len]);
            partial.missing -= len;
            offset += len;
            if partial.missing == 0 {
                let end = if offset < page.len() { page_start + offset as u64 } else { page_end };
                self.end_item(end);
            }
        }
        if self.partial.is_some() && page.len() < layout.page_bytes {
            return Err("an item is longer than what is in use of its pages");
        }
        self.cursor = page_end;
        Ok(())
    }

    /// Reads an item's length, with which `bytes` begin.
    fn begin_item(
        &mut self,
        layout: &Layout,
        start: u64,
        bytes: &[u8],
    ) -> Result<Partial, &'static str> {
        let (length, _) = bytes.split_first_chunk().ok_or("the page ends inside a length")?;
        let payload_bytes = u32::from_le_bytes(*length) as usize;
        if payload_bytes > self.config.item_bytes_max {
            self.counters.too_large += 1;
            return Err("an item is longer than this end takes");
        }
        let bytes = item_bytes(payload_bytes);
        let end = layout.advance(start, bytes).ok_or("an item ends behind the last position")?;
        if end > self.end.peer().position {
            return Err("an item ends behind what is published");
        }
        let missing = bytes as usize - ITEM_HEADER_BYTES;
        Ok(Partial { start, payload_bytes, missing, payload: Vec::new() })
    }

    fn end_item(&mut self, end: u64) {
        let Some(Partial { payload_bytes, mut payload, .. }) = self.partial.take() else { return };
        payload.truncate(payload_bytes);
        self.counters.items += 1;
        self.counters.bytes += payload.len() as u64;
        self.items.push_back(Item { payload, end: Position(end) });
        self.cursor = end;
    }

    fn finish(&mut self) {
        self.event = Some(match self.command.take() {
            Some(Command::Attach) => ConsumerEvent::Attached,
            Some(Command::Fetch) => ConsumerEvent::Fetched,
            Some(Command::Advance) => {
                self.counters.advances += 1;
                ConsumerEvent::Advanced(self.consumed())
            }
            Some(Command::Wish) => ConsumerEvent::Wished,
            Some(Command::Refresh) | None => ConsumerEvent::Refreshed,
        });
    }
}

impl Machine for Consumer {
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
