//! [`Connection`]: the page that is shared with xenstored, the client that speaks over it, and who
//! waits for what.

use crate::memory::Shared;
use fata_hypercall::{EventChannel, SpecialPage};
use fata_shared::interrupt::Line;
use fata_xenbus::Memory;
use fata_xenbus::ring::bytes::{Layout, Reader, Writer};
use fata_xenbus::store::client::Counters;
use fata_xenbus::store::wire::page;
use fata_xenbus::store::{
    Client, Event, Limits, Misbehaved, Reply, Request, RequestId, StoreError, TransactionId,
    WatchToken,
};
use std::collections::HashMap;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// The answer to a request.
pub(super) type Answer = Result<Reply, StoreError>;

/// Bytes taken from xenstored in one go before others have their turn: 64 rings full. One that
/// writes without end does not keep the machine from its other work.
const BYTES_A_TURN: usize = 64 * 1024;

/// Somebody who waits for an answer.
struct Waiter {
    sender: oneshot::Sender<Answer>,
    /// Room for one request until it is answered, whether or not somebody still waits.
    _room: OwnedSemaphorePermit,
}

/// What is to be done when nobody holds the lock any more, because wakers are arbitrary code.
#[derive(Default)]
#[must_use]
pub(super) struct Wakeups {
    answers: Vec<(Waiter, Answer)>,
    lines: Vec<Line>,
}

impl Wakeups {
    /// Wakes them all. Transactions that xenstored has opened for somebody who waits no more.
    pub(super) fn deliver(self) -> Vec<TransactionId> {
        let mut orphans = Vec::new();
        for (waiter, answer) in self.answers {
            if let Err(Ok(Reply::Transaction(id))) = waiter.sender.send(answer) {
                orphans.push(id);
            }
        }
        self.lines.iter().for_each(Line::fire);
        orphans
    }
}

pub(super) struct Connection {
    client: Client,
    memory: Shared<SpecialPage>,
    event: EventChannel,
    requests: Writer,
    answers: Reader,
    waiters: HashMap<RequestId, Waiter>,
    watches: HashMap<WatchToken, Line>,
}

impl Connection {
    pub(super) fn new(page: SpecialPage, event: EventChannel, limits: Limits) -> Self {
        let memory = Shared(page);
        Connection {
            client: Client::new(limits),
            requests: Writer::attach(&memory, Layout::XENSTORE_REQUESTS),
            answers: Reader::attach(&memory, Layout::XENSTORE_RESPONSES),
            memory,
            event,
            waiters: HashMap::new(),
            watches: HashMap::new(),
        }
    }

    /// Queues a request; [`pump`](Connection::pump) sends it.
    pub(super) fn submit(
        &mut self,
        transaction: TransactionId,
        request: &Request<'_>,
        room: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Answer>, StoreError> {
        let id = self.client.submit(transaction, request)?;
        Ok(self.wait_for(id, room))
    }

    /// Queues a watch: its token, the line that it fires, and the answer.
    pub(super) fn watch(
        &mut self,
        path: &str,
        room: OwnedSemaphorePermit,
    ) -> Result<(WatchToken, Line, oneshot::Receiver<Answer>), StoreError> {
        let (token, id) = self.client.watch(path)?;
        let line = Line::new();
        self.watches.insert(token, line.clone());
        Ok((token, line, self.wait_for(id, room)))
    }

    fn wait_for(&mut self, id: RequestId, room: OwnedSemaphorePermit) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.insert(id, Waiter { sender, _room: room });
        receiver
    }

    pub(super) fn unwatch(&mut self, token: WatchToken) {
        self.client.unwatch(token);
        self.watches.remove(&token);
    }

    pub(super) fn forget_transaction(&mut self, transaction: TransactionId) {
        self.client.forget_transaction(transaction);
    }

    /// Moves bytes both ways, as many as there are and fit.
    pub(super) fn pump(&mut self) -> Wakeups {
        if self.client.broken().is_none() {
            let mut notify = false;
            if let Err(error) = self.exchange(&mut notify) {
                self.client.fail(error);
            }
            if notify {
                self.event.notify();
            }
        }
        let mut wakeups = Wakeups::default();
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Answer(id, answer) => {
                    wakeups.answers.extend(self.waiters.remove(&id).map(|waiter| (waiter, answer)));
                }
                Event::Fired(token) => wakeups.lines.extend(self.watches.get(&token).cloned()),
            }
        }
        wakeups
    }

    fn exchange(&mut self, notify: &mut bool) -> Result<(), Misbehaved> {
        let (memory, mut taken) = (&self.memory, 0);
        let mut bytes = [0; Layout::XENSTORE_RESPONSES.size as usize];
        loop {
            let count = self.answers.read(memory, memory, &mut bytes)?;
            if count == 0 {
                break;
            }
            // xenstored waits for us only while the ring is full. Looked at after our count is
            // there for it to see: one of us sees what the other has done.
            memory.barrier();
            *notify |= self.answers.available(memory)? + count >= bytes.len();
            self.client.input(&bytes[..count])?;
            taken += count;
            if taken >= BYTES_A_TURN {
                self.event.line().fire();
                break;
            }
        }
        self.check_error()?;
        while !self.client.output().is_empty() {
            let count = self.requests.write(memory, memory, self.client.output())?;
            if count == 0 {
                // Full: xenstored notifies when it has read.
                break;
            }
            self.client.sent(count);
            *notify = true;
        }
        Ok(())
    }

    /// What xenstored, if it is one that tells, says of us.
    fn check_error(&self) -> Result<(), Misbehaved> {
        let tells = self.memory.load_u32(page::SERVER_FEATURES) & page::FEATURE_ERROR != 0;
        match self.memory.load_u32(page::ERROR) {
            error if tells && error != 0 => Err(Misbehaved::GaveUp { error }),
            _ => Ok(()),
        }
    }

    /// Begins again: over `new` if the tools made a page anew, and with what its counts say.
    pub(super) fn reconnect(&mut self, new: Option<(SpecialPage, EventChannel)>) {
        // Whoever waits for it takes the new one from now on.
        self.event.line().fire();
        if let Some((page, event)) = new {
            (self.memory, self.event) = (Shared(page), event);
        }
        self.requests = Writer::attach(&self.memory, Layout::XENSTORE_REQUESTS);
        self.answers = Reader::attach(&self.memory, Layout::XENSTORE_RESPONSES);
        self.client.reconnect();
    }

    /// Nothing is on its way: no request, and no answer.
    pub(super) fn is_idle(&self) -> bool {
        self.client.is_idle()
    }

    /// The line that xenstored's events fire.
    pub(super) fn line(&self) -> Line {
        self.event.line().clone()
    }

    pub(super) fn broken(&self) -> Option<Misbehaved> {
        self.client.broken()
    }

    pub(super) fn counters(&self) -> Counters {
        self.client.counters()
    }
}
