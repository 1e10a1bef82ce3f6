//! [`Client`]: which answer belongs to whom, and which watches have fired.
//!
//! Sans-io. [`submit`](Client::submit) and [`watch`](Client::watch) queue requests;
//! [`output`](Client::output) are bytes for the ring of requests, [`input`](Client::input) takes
//! bytes from the ring of answers; [`poll_event`](Client::poll_event) tells what came of it.
//!
//! A watch says only "look again": however often one fires before somebody looks, it is one bit. So
//! a domain that writes a watched key without end costs us no memory.

use super::error::{Misbehaved, StoreError};
use super::request::{Reply, Request, decode_error, decode_watch_event};
use super::wire::{Assembler, Kind, Message, TransactionId};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};

/// A request that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u32);

/// A watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchToken(u32);

/// How much a [`Client`] remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests without an answer. 64 by default: each may take 4112 bytes until xenstored has read
    /// it, so 257 KiB at the very most; xenstored itself works at 20 of a guest at a time.
    pub requests: usize,
    /// Watches. 128 by default, xenstored's own quota for a guest.
    pub watches: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { requests: 64, watches: 128 }
    }
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request has its answer.
    Answer(RequestId, Result<Reply, StoreError>),
    /// What a watch watches may have changed.
    Fired(WatchToken),
}

/// What a client has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Requests submitted.
    pub requests: u64,
    /// Answers of type `XS_ERROR`.
    pub refusals: u64,
    /// Watch events received.
    pub watch_events: u64,
    /// Of these, events of a watch that had fired already and that nobody had looked at since.
    pub watch_events_coalesced: u64,
    /// Of these, events of no watch of ours: it was removed meanwhile.
    pub watch_events_stray: u64,
    /// Requests not taken because of [`Limits::requests`].
    pub requests_refused: u64,
}

#[derive(Debug)]
struct Watched {
    path: String,
    fired: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    kind: Kind,
    /// Nobody wants the answer.
    abandoned: bool,
    /// Nobody asked: the end of a watch or of a transaction. There are no more of these than were
    /// begun, so they do not count against [`Limits::requests`].
    own: bool,
}

/// The guest's end of a connection to xenstored.
#[derive(Debug)]
pub struct Client {
    limits: Limits,
    last_request: u32,
    last_watch: u32,
    output: VecDeque<u8>,
    input: Assembler,
    /// Invariant: `pending.len() - own + answers.len() <= limits.requests`.
    pending: BTreeMap<u32, Pending>,
    /// How many of `pending` nobody asked for.
    own: usize,
    answers: VecDeque<(RequestId, Result<Reply, StoreError>)>,
    watches: BTreeMap<u32, Watched>,
    /// Invariant: holds exactly the watches whose `fired` is set, each once.
    fired: VecDeque<u32>,
    broken: Option<Misbehaved>,
    counters: Counters,
}

impl Client {
    /// A client that has asked nothing yet.
    pub fn new(limits: Limits) -> Self {
        Client {
            limits,
            last_request: 0,
            last_watch: 0,
            output: VecDeque::new(),
            input: Assembler::new(),
            pending: BTreeMap::new(),
            own: 0,
            answers: VecDeque::new(),
            watches: BTreeMap::new(),
            fired: VecDeque::new(),
            broken: None,
            counters: Counters::default(),
        }
    }

    /// Queues a request. Not for watches: see [`watch`](Client::watch).
    ///
    /// # Errors
    /// See [`StoreError`]; nothing was queued then.
    pub fn submit(
        &mut self,
        transaction: TransactionId,
        request: &Request<'_>,
    ) -> Result<RequestId, StoreError> {
        if let Some(error) = self.broken {
            return Err(error.into());
        }
        if self.pending.len() - self.own + self.answers.len() >= self.limits.requests {
            self.counters.requests_refused += 1;
            return Err(StoreError::TooManyRequests);
        }
        self.queue(transaction, request, false)
    }

    fn queue(
        &mut self,
        transaction: TransactionId,
        request: &Request<'_>,
        own: bool,
    ) -> Result<RequestId, StoreError> {
        let id = self.unused_request();
        let message = request.message(id, transaction)?;
        message.encode(&mut self.output);
        self.last_request = id;
        self.pending.insert(id, Pending { kind: message.kind, abandoned: own, own });
        self.own += usize::from(own);
        self.counters.requests += 1;
        Ok(RequestId(id))
    }

    /// The next number that no unanswered request has. Not 0: that is a watch event's.
    fn unused_request(&self) -> u32 {
        let mut id = self.last_request;
        loop {
            id = id.wrapping_add(1);
            if id != 0 && !self.pending.contains_key(&id) {
                return id;
            }
        }
    }

    /// The answer to a request is not wanted any more: it will be dropped when it comes.
    pub fn abandon(&mut self, request: RequestId) {
        if let Some(pending) = self.pending.get_mut(&request.0) {
            pending.abandoned = true;
        }
        self.answers.retain(|(id, _)| *id != request);
    }

    /// Forgets a transaction whose owner has gone. It may come when there is no room for requests
    /// of others: what is open at xenstored must be closed.
    pub fn forget_transaction(&mut self, transaction: TransactionId) {
        if self.broken.is_none() {
            // It has no path that could be wrong.
            let _ = self.queue(transaction, &Request::TransactionEnd(false), true);
        }
    }

    /// Watches a path and all below it. The watch fires once at once, and from then on after each
    /// change.
    ///
    /// # Errors
    /// See [`StoreError`]. An answer to the request that is an error comes as [`Event::Answer`]:
    /// the watch does not exist then, and [`unwatch`](Client::unwatch) forgets it.
    pub fn watch(&mut self, path: &str) -> Result<(WatchToken, RequestId), StoreError> {
        if self.watches.len() >= self.limits.watches {
            return Err(StoreError::TooManyWatches);
        }
        let mut token = self.last_watch;
        loop {
            token = token.wrapping_add(1);
            if !self.watches.contains_key(&token) {
                break;
            }
        }
        let name = token.to_string();
        let request = self.submit(TransactionId::NONE, &Request::Watch(path, &name))?;
        self.last_watch = token;
        self.watches.insert(token, Watched { path: path.to_string(), fired: false });
        Ok((WatchToken(token), request))
    }

    /// Ends a watch. No [`Event::Fired`] follows for it.
    pub fn unwatch(&mut self, watch: WatchToken) {
        let Some(watched) = self.watches.remove(&watch.0) else { return };
        if watched.fired {
            self.fired.retain(|&token| token != watch.0);
        }
        if self.broken.is_none() {
            // The path was good when the watch was set.
            let name = watch.0.to_string();
            let request = Request::Unwatch(&watched.path, &name);
            let _ = self.queue(TransactionId::NONE, &request, true);
        }
    }

    /// Bytes to be sent, from the oldest on; not necessarily all of them in one slice.
    pub fn output(&self) -> &[u8] {
        let (front, back) = self.output.as_slices();
        if front.is_empty() { back } else { front }
    }

    /// The first `bytes` of [`output`](Client::output) were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.output.drain(..bytes);
        if self.output.is_empty() {
            self.output.shrink_to(4096);
        }
    }

    /// Takes bytes that xenstored sent.
    ///
    /// # Errors
    /// [`Misbehaved`]: the connection is over, as after [`fail`](Client::fail).
    pub fn input(&mut self, mut bytes: &[u8]) -> Result<(), Misbehaved> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        loop {
            let taken = match self.input.take(&mut bytes) {
                Ok(None) => return Ok(()),
                Ok(Some(message)) => self.message(message),
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                self.fail(error);
                return Err(error);
            }
        }
    }

    fn message(&mut self, message: Message) -> Result<(), Misbehaved> {
        if message.kind == Kind::WatchEvent {
            self.watch_event(&message.payload);
            return Ok(());
        }
        let id = message.request;
        let Some(pending) = self.pending.remove(&id) else {
            return Err(Misbehaved::UnknownRequest { id });
        };
        self.own -= usize::from(pending.own);
        let result = if message.kind == Kind::Error {
            self.counters.refusals += 1;
            Err(StoreError::Refused(decode_error(&message.payload)))
        } else if message.kind == pending.kind {
            Reply::decode(message.kind, message.payload)
                .ok_or(StoreError::MalformedReply { kind: message.kind })
        } else {
            let (asked, answered) = (pending.kind, message.kind);
            // Its owner is to hear of it as well.
            self.pending.insert(id, pending);
            self.own += usize::from(pending.own);
            return Err(Misbehaved::WrongKind { asked, answered });
        };
        if !pending.abandoned {
            self.answers.push_back((RequestId(id), result));
        }
        Ok(())
    }

    fn watch_event(&mut self, payload: &[u8]) {
        self.counters.watch_events += 1;
        let token = decode_watch_event(payload).and_then(|(_, token)| token.parse().ok());
        match token.and_then(|token: u32| Some((token, self.watches.get_mut(&token)?))) {
            None => self.counters.watch_events_stray += 1,
            Some((_, watched)) if watched.fired => self.counters.watch_events_coalesced += 1,
            Some((token, watched)) => {
                watched.fired = true;
                self.fired.push_back(token);
            }
        }
    }

    /// What has happened next: answers first, then watches.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some((id, result)) = self.answers.pop_front() {
            return Some(Event::Answer(id, result));
        }
        let token = self.fired.pop_front()?;
        if let Some(watched) = self.watches.get_mut(&token) {
            watched.fired = false;
        }
        Some(Event::Fired(WatchToken(token)))
    }

    /// The connection is over: all requests fail with this error, now and later, and all watches
    /// fire, so that who waits for one finds out.
    pub fn fail(&mut self, error: Misbehaved) {
        if self.broken.replace(error).is_some() {
            return;
        }
        self.abort(&StoreError::Broken(error));
        self.fire_all();
    }

    /// The connection was cut and begins anew, as after the machine was suspended. Requests without
    /// an answer fail with [`StoreError::Interrupted`]; watches are set again and fire, because
    /// nobody knows what changed meanwhile.
    pub fn reconnect(&mut self) {
        if self.broken.is_some() {
            return;
        }
        self.abort(&StoreError::Interrupted);
        self.input = Assembler::new();
        let again: alloc::vec::Vec<_> = self
            .watches
            .iter()
            .map(|(token, watched)| (token.to_string(), watched.path.clone()))
            .collect();
        for (name, path) in again {
            // The path was good when the watch was set.
            let _ = self.queue(TransactionId::NONE, &Request::Watch(&path, &name), true);
        }
        self.fire_all();
    }

    fn abort(&mut self, error: &StoreError) {
        self.output.clear();
        self.own = 0;
        for (id, pending) in core::mem::take(&mut self.pending) {
            if !pending.abandoned {
                self.answers.push_back((RequestId(id), Err(error.clone())));
            }
        }
    }

    fn fire_all(&mut self) {
        for (&token, watched) in &mut self.watches {
            if !watched.fired {
                watched.fired = true;
                self.fired.push_back(token);
            }
        }
    }

    /// True if no request is unanswered and no part of a message is on its way.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.output.is_empty()
    }

    /// Why the connection is over; `None` while it is not.
    pub fn broken(&self) -> Option<Misbehaved> {
        self.broken
    }

    /// What this client has seen.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
