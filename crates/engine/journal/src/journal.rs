//! [`Journal`]: operations that are performed at least once, in order, whatever happens.

use crate::{
    Completion, Config, Consumer, ConsumerCounters, ConsumerEvent, Create, Disk, Error, Existing,
    Item, Machine, Position, Producer, ProducerCounters, ProducerEvent, PushError, Request, Shape,
};
use core::fmt;
use core::time::Duration;

/// How long to wait before what failed is tried again: longer after each failure in a row, and
/// there is no last time, because an operation that is left out would break the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// After the first failure; twice as long after each more. Default 100 ms.
    pub first: Duration,
    /// At most so long. Default 5 s, the journal's interval of 2015.
    pub max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy { first: Duration::from_millis(100), max: Duration::from_secs(5) }
    }
}

/// What happened in a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalEvent {
    /// Operations may be pushed. Those that were not performed before are performed first.
    Started,
    /// Operations that end here or before survive a loss of power: what a program waits for that
    /// flushes.
    Durable(Position),
    /// [`Journal::operations`] are to be performed, in order.
    Perform {
        /// 1, and one more after each failure in a row.
        attempt: u32,
    },
    /// Operations that end here or before have been performed and are not performed again: what a
    /// program waits for that syncs.
    Performed(Position),
    /// The disk failed. The journal tries again.
    DiskFailed(Error),
    /// The journal cannot go on: what is on the disk is no ring, or wrong. Nothing was lost that was
    /// not wrong before.
    Stopped(Error),
}

/// Why an operation was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushRefused {
    /// Wait for [`JournalEvent::Started`].
    NotStarted,
    /// The journal cannot go on; this is why.
    Stopped(Error),
    /// The ring does not take it now, or never. [`PushError::BatchFull`] is over with the next
    /// [`JournalEvent::Durable`], [`PushError::RingFull`] after a [`JournalEvent::Performed`].
    Ring(PushError),
}

impl fmt::Display for PushRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PushRefused::NotStarted => write!(f, "the journal has not started yet"),
            PushRefused::Stopped(error) => write!(f, "the journal has stopped: {error}"),
            PushRefused::Ring(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PushRefused {}

/// What a journal has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalCounters {
    /// Of the end that writes operations.
    pub producer: ProducerCounters,
    /// Of the end that reads them.
    pub consumer: ConsumerCounters,
    /// Operations that were there at the start and were handed out to be performed, again or not.
    pub replayed: u64,
    /// Failures to perform operations.
    pub perform_failures: u64,
}

/// Who asks the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Create,
    Producer,
    Consumer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Creating,
    AttachingProducer,
    AttachingConsumer,
    Running,
    Stopped(Error),
}

/// A journal on a disk of its own: it writes operations down before they are performed.
///
/// ```text
/// push ─► batch ─► pages, flush, header, flush ─► Durable ─► Perform ─► performed()
///                                                               ▲          │
///            failed(): wait, and once more ─────────────────────┘          ▼
///                                               Performed ◄─ header, flush
/// ```
///
/// Operations that are pushed while a batch is on its way make the next one, so a busy journal
/// flushes twice for many operations, and an idle one at once for one. Performed they are *at least
/// once*: after a crash those since the last [`Performed`](JournalEvent::Performed) are performed
/// again, so they must be idempotent.
///
/// Run it so: give the requests of [`poll_request`](Journal::poll_request) to the disk, act on
/// [`poll_event`](Journal::poll_event), and wait for a completion, a push, or
/// [`poll_timeout`](Journal::poll_timeout). Times are since any fixed moment.
#[derive(Debug)]
pub struct Journal {
    disk: Disk,
    shape: Shape,
    retry: RetryPolicy,
    state: State,
    create: Create,
    producer: Producer,
    consumer: Consumer,
    /// Whose command is under way. One at a time: a flush that fails fails for everything that was
    /// written since the last one, whoever wrote it, and so has to fail for whoever wrote it.
    commanded: Option<Asker>,
    /// A request of it is.
    is_waiting: bool,
    /// Whose command was the last one: the other's turn comes first.
    last: Asker,
    /// Handed out, and not all performed.
    operations: Vec<Item>,
    /// What is performed and has not been advanced past.
    performed: Option<Position>,
    /// What was published before the start.
    published_before: Position,
    disk_backoff: Backoff,
    perform_backoff: Backoff,
    events: Events,
    replayed: u64,
    perform_failures: u64,
}

/// Those that have not been polled; later ones include earlier ones.
#[derive(Debug, Default)]
struct Events {
    is_started: bool,
    durable: Option<Position>,
    perform: Option<u32>,
    performed: Option<Position>,
    disk_failed: Option<Error>,
    stopped: Option<Error>,
}

impl Journal {
    /// The journal on `disk`, which is made with this shape if the disk is blank. Starts, and
    /// replays what was not performed. A ring that another consumer has suspended takes nothing until
    /// that one resumes it.
    pub fn new(disk: Disk, shape: Shape, config: Config, retry: RetryPolicy) -> Self {
        let mut journal = Journal {
            disk,
            shape,
            retry,
            state: State::Creating,
            create: Create::new(disk, shape, Existing::Keep),
            producer: Producer::new(disk, config),
            consumer: Consumer::new(disk, config),
            commanded: None,
            is_waiting: false,
            last: Asker::Consumer,
            operations: Vec::new(),
            performed: None,
            published_before: Position(0),
            disk_backoff: Backoff::default(),
            perform_backoff: Backoff::default(),
            events: Events::default(),
            replayed: 0,
            perform_failures: 0,
        };
        // A disk that is too small says so at once.
        journal.handle_events(Duration::ZERO);
        journal
    }

    /// Takes an operation. It is durable once [`JournalEvent::Durable`] has come to the position that
    /// is returned, and performed once [`JournalEvent::Performed`] has.
    ///
    /// # Errors
    /// [`PushRefused`] says what to wait for.
    pub fn push(&mut self, operation: &[u8]) -> Result<Position, PushRefused> {
        match &self.state {
            State::Running => self.producer.push(operation).map_err(PushRefused::Ring),
            State::Stopped(error) => Err(PushRefused::Stopped(error.clone())),
            _ => Err(PushRefused::NotStarted),
        }
    }

    /// The operations that are to be performed, in order; none before [`JournalEvent::Perform`].
    pub fn operations(&self) -> &[Item] {
        &self.operations
    }

    /// The first `count` of the [`operations`](Journal::operations) have been performed, and are not
    /// among them any more.
    pub fn handle_performed(&mut self, count: usize) {
        let count = count.min(self.operations.len());
        if let Some(item) = self.operations.drain(..count).next_back() {
            self.performed = Some(item.end);
            self.perform_backoff.reset();
        }
    }

    /// The first of the [`operations`](Journal::operations) failed. There is another
    /// [`JournalEvent::Perform`] later.
    pub fn handle_perform_failed(&mut self, now: Duration) {
        if !self.operations.is_empty() {
            self.perform_failures += 1;
            self.perform_backoff.fail(self.retry, now);
        }
    }

    /// When [`handle_timeout`](Journal::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let timeouts = [self.disk_backoff.until, self.perform_backoff.until];
        timeouts.into_iter().flatten().min()
    }

    /// Goes on with what waited for this time.
    pub fn handle_timeout(&mut self, now: Duration) {
        // Then requests are polled again.
        self.disk_backoff.is_over(now);
        if self.perform_backoff.is_over(now) {
            self.events.perform = Some(self.perform_backoff.failures + 1);
        }
    }

    /// What happened; `None` when everything has been told. `Durable` and `Performed` tell of the
    /// furthest position.
    pub fn poll_event(&mut self) -> Option<JournalEvent> {
        let events = &mut self.events;
        if core::mem::take(&mut events.is_started) {
            return Some(JournalEvent::Started);
        }
        let disk_failed = events.disk_failed.take().map(JournalEvent::DiskFailed);
        disk_failed
            .or_else(|| events.durable.take().map(JournalEvent::Durable))
            .or_else(|| events.performed.take().map(JournalEvent::Performed))
            .or_else(|| events.perform.take().map(|attempt| JournalEvent::Perform { attempt }))
            .or_else(|| events.stopped.take().map(JournalEvent::Stopped))
    }

    /// The next request for the disk; one is under way at a time.
    pub fn poll_request(&mut self) -> Option<Request> {
        if self.is_waiting || self.disk_backoff.until.is_some() {
            return None;
        }
        if self.commanded.is_none() {
            self.commanded = self.begin_command();
            // One that failed at once did so for good, and does not wait.
            self.handle_events(Duration::ZERO);
        }
        let request = self.machine(self.commanded?).poll_request()?;
        self.is_waiting = true;
        Some(request)
    }

    /// What became of the request that [`poll_request`](Journal::poll_request) gave last. Ignored if
    /// there is none.
    pub fn handle_completion(&mut self, now: Duration, completion: Completion) {
        if let (true, Some(asker)) = (core::mem::take(&mut self.is_waiting), self.commanded) {
            self.machine(asker).handle_completion(completion);
            self.handle_events(now);
        }
    }

    /// Everything up to here survives a loss of power.
    pub fn durable(&self) -> Position {
        self.producer.published()
    }

    /// Everything up to here has been performed, and is not performed again.
    pub fn performed(&self) -> Position {
        self.consumer.consumed()
    }

    /// What has been done.
    pub fn counters(&self) -> JournalCounters {
        JournalCounters {
            producer: self.producer.counters(),
            consumer: self.consumer.counters(),
            replayed: self.replayed,
            perform_failures: self.perform_failures,
        }
    }

    fn machine(&mut self, asker: Asker) -> &mut dyn Machine {
        match asker {
            Asker::Create => &mut self.create,
            Asker::Producer => &mut self.producer,
            Asker::Consumer => &mut self.consumer,
        }
    }

    /// Gives a command to an end that has something to do, and says to which. What failed before is
    /// given again in this way, too.
    fn begin_command(&mut self) -> Option<Asker> {
        let askers = match (&self.state, self.last) {
            (State::Stopped(_), _) => return None,
            (State::Creating, _) => return Some(Asker::Create),
            (State::AttachingProducer, _) => {
                return self.producer.attach().ok().map(|()| Asker::Producer);
            }
            (State::AttachingConsumer, _) => {
                return self.consumer.attach().ok().map(|()| Asker::Consumer);
            }
            (State::Running, Asker::Producer) => [Asker::Consumer, Asker::Producer],
            (State::Running, _) => [Asker::Producer, Asker::Consumer],
        };
        let asker = askers.into_iter().find(|asker| self.begins(*asker))?;
        self.last = asker;
        Some(asker)
    }

    /// Gives an end a command, if it has something to do.
    fn begins(&mut self, asker: Asker) -> bool {
        let begun = match (asker, self.performed) {
            (Asker::Create, _) => return false,
            (Asker::Producer, _) => self.producer.publish(),
            (Asker::Consumer, Some(position)) => self.consumer.advance(position),
            (Asker::Consumer, None) if self.operations.is_empty() && self.consumer.has_more() => {
                self.consumer.fetch()
            }
            (Asker::Consumer, None) => return false,
        };
        begun.is_ok()
    }

    /// What the machines' commands ended with.
    fn handle_events(&mut self, now: Duration) {
        match self.create.poll_outcome() {
            Some(Ok(_)) => self.succeed(State::AttachingProducer),
            Some(Err(error)) => {
                self.fail(now, error);
                self.create = Create::new(self.disk, self.shape, Existing::Keep);
            }
            None => {}
        }
        match self.producer.poll_event() {
            Some(ProducerEvent::Attached) => self.succeed(State::AttachingConsumer),
            Some(ProducerEvent::Published(position)) => {
                self.succeed(State::Running);
                self.events.durable = Some(position);
                let header = self.producer.end_mut().own();
                self.consumer.end_mut().tell_peer(header);
            }
            Some(ProducerEvent::Failed(error)) => self.fail(now, error),
            Some(ProducerEvent::Refreshed) | None => {}
        }
        match self.consumer.poll_event() {
            Some(ConsumerEvent::Attached) => {
                self.succeed(State::Running);
                self.events.is_started = true;
                self.published_before = self.consumer.published();
            }
            Some(ConsumerEvent::Fetched) => {
                self.succeed(State::Running);
                self.take_operations();
            }
            Some(ConsumerEvent::Advanced(position)) => {
                self.succeed(State::Running);
                self.events.performed = Some(position);
                self.performed = self.performed.filter(|performed| *performed > position);
                let header = self.consumer.end_mut().own();
                self.producer.end_mut().tell_peer(header);
            }
            Some(ConsumerEvent::Failed(error)) => {
                // Those before the one that is wrong are performed first; then it fails again.
                self.take_operations();
                if self.operations.is_empty() || matches!(error, Error::Disk(_)) {
                    self.fail(now, error);
                } else {
                    self.commanded = None;
                }
            }
            Some(ConsumerEvent::Refreshed | ConsumerEvent::Wished) | None => {}
        }
    }

    fn take_operations(&mut self) {
        let is_none = self.operations.is_empty();
        while let Some(item) = self.consumer.pop() {
            self.replayed += u64::from(item.end <= self.published_before);
            self.operations.push(item);
        }
        if is_none && !self.operations.is_empty() {
            self.events.perform = Some(1);
        }
    }

    /// A command succeeded: the disk works.
    fn succeed(&mut self, state: State) {
        self.state = state;
        self.commanded = None;
        self.disk_backoff.reset();
    }

    fn fail(&mut self, now: Duration, error: Error) {
        self.commanded = None;
        if matches!(error, Error::Disk(_)) {
            self.disk_backoff.fail(self.retry, now);
            self.events.disk_failed = Some(error);
        } else {
            self.state = State::Stopped(error.clone());
            self.events.stopped = Some(error);
        }
    }
}

/// Failures in a row, and what they make wait.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    until: Option<Duration>,
}

impl Backoff {
    fn fail(&mut self, policy: RetryPolicy, now: Duration) {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now.saturating_add(policy.first.saturating_mul(factor).min(policy.max)));
    }

    /// True once, when the wait is over.
    fn is_over(&mut self, now: Duration) -> bool {
        self.until.take_if(|until| *until <= now).is_some()
    }

    fn reset(&mut self) {
        *self = Backoff::default();
    }
}
