//! vchan: a byte stream between two guests (io/libxenvchan.h).
//!
//! There are no states here. The server makes the rings and writes where they are, below a path that
//! both know; the client waits for the keys, and maps. All else is said in the shared page: `srv_live`,
//! `cli_live`. So what can go wrong is that the keys are missing, late, or left over from a server
//! that is no more: then mapping fails, and the client waits for others.

use super::keys::parse_number;
use super::{
    Change, Command, Ending, Expectation, Handshake, HandshakeError, Input, Outcome, Patience,
    Reason, Transaction, Writer,
};
use crate::Instant;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// What the server is asked to make: the shared page and its rings, granted to the client, and an
/// unbound event channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingsWanted {
    /// The domain to grant to.
    pub client: u16,
}

/// What the server made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingsMade {
    /// The grant of the shared page, which holds the grants of the others.
    pub ring_ref: u32,
    /// The event channel's port.
    pub event_channel: u32,
}

/// What the client is asked to map and bind. It must refuse a page whose `srv_live` is 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingsOffered {
    /// The domain whose they are.
    pub server: u16,
    /// Its grant and port.
    pub rings: RingsMade,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listening {
    /// The directory of the keys, absolute or our own, such as `data/vchan/7/name`.
    pub path: String,
    /// Our own domain, which owns the keys.
    pub server: u16,
    /// The client's domain, which may read them.
    pub client: u16,
    /// How long closing may take, in nanoseconds: 1 s, since nobody but XenStore takes part.
    pub close_nanos: u64,
}

impl Listening {
    /// The defaults, for these.
    pub fn new(path: impl Into<String>, server: u16, client: u16) -> Self {
        Listening { path: path.into(), server, client, close_nanos: 1_000_000_000 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ServerPhase {
    Making,
    Publishing,
    Connected,
    Closing(Result<Ending, HandshakeError>),
    Ended,
}

/// A server's handshake.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    listening: Listening,
    phase: ServerPhase,
    /// The transaction or the rings that are outstanding.
    outstanding: Option<Transaction>,
    making: bool,
    made: Option<RingsMade>,
    published: bool,
    commands: VecDeque<Command<RingsWanted, ()>>,
    deadline: Option<Instant>,
}

impl Server {
    /// A server that begins at once.
    pub fn new(listening: Listening) -> Self {
        let wanted = RingsWanted { client: listening.client };
        Server {
            listening,
            phase: ServerPhase::Making,
            outstanding: None,
            making: true,
            made: None,
            published: false,
            commands: VecDeque::from([Command::MakeRings(wanted)]),
            deadline: None,
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.listening.path)
    }

    fn write(&mut self, transaction: Transaction) {
        self.outstanding = Some(transaction.clone());
        self.commands.push_back(Command::Write(transaction));
    }

    fn publish(&mut self) {
        let Some(made) = &self.made else { return };
        let mut changes = Vec::new();
        for (name, value) in [("ring-ref", made.ring_ref), ("event-channel", made.event_channel)] {
            let path = self.key(name);
            changes.push(Change::Set(path.clone(), value.to_string().into_bytes()));
            let Listening { server: owner, client: reader, .. } = self.listening;
            changes.push(Change::Permit { path, owner, reader });
        }
        self.write(Transaction { expect: Vec::new(), changes });
    }

    /// Takes the keys away, unless they are another server's by now.
    fn retract(&mut self) {
        let Some(made) = &self.made else { return };
        let ours = Expectation::Holds(Some(made.ring_ref.to_string().into_bytes()));
        self.write(Transaction {
            expect: vec![(self.key("ring-ref"), ours)],
            changes: vec![
                Change::Remove(self.key("ring-ref")),
                Change::Remove(self.key("event-channel")),
            ],
        });
    }

    fn close(&mut self, now: Instant, reason: Reason, verdict: Result<Ending, HandshakeError>) {
        if matches!(self.phase, ServerPhase::Closing(_)) {
            return;
        }
        if self.phase == ServerPhase::Connected {
            self.commands.push_back(Command::Disconnect(reason));
        }
        self.phase = ServerPhase::Closing(verdict);
        self.deadline = Some(now.after_nanos(self.listening.close_nanos));
        self.advance();
    }

    /// Goes on closing, if nothing is outstanding.
    fn advance(&mut self) {
        let ServerPhase::Closing(verdict) = &self.phase else { return };
        if self.outstanding.is_some() || self.making {
            return;
        }
        if self.published {
            self.retract();
        } else {
            let verdict = verdict.clone();
            self.finish(verdict);
        }
    }

    fn finish(&mut self, verdict: Result<Ending, HandshakeError>) {
        if self.made.take().is_some() {
            self.commands.push_back(Command::Release);
        }
        self.commands.push_back(Command::Ended(verdict));
        self.phase = ServerPhase::Ended;
        self.deadline = None;
    }

    fn written(&mut self, now: Instant, outcome: Outcome) {
        let Some(transaction) = self.outstanding.take() else { return };
        match (outcome, &self.phase) {
            // A publication that has not happened is taken back by not repeating it.
            (Outcome::Again, ServerPhase::Publishing | ServerPhase::Closing(_))
                if self.published || self.phase == ServerPhase::Publishing =>
            {
                return self.write(transaction);
            }
            (Outcome::Done, ServerPhase::Publishing) => {
                self.published = true;
                self.phase = ServerPhase::Connected;
                self.commands.push_back(Command::Connect(()));
            }
            (Outcome::Refused(errno), ServerPhase::Publishing) => {
                let error = HandshakeError::Refused { device: self.listening.path.clone(), errno };
                self.close(now, Reason::Fault(error.clone()), Err(error));
            }
            // Published while we decided to close: to be retracted. Retracted: done.
            (Outcome::Done, ServerPhase::Closing(_)) => self.published = !self.published,
            (_, ServerPhase::Closing(_)) => self.published = false,
            _ => {}
        }
        self.advance();
    }
}

impl Handshake for Server {
    type Wanted = RingsWanted;
    type Made = RingsMade;
    type Settings = ();

    fn handle(&mut self, now: Instant, input: Input<RingsMade>) {
        if self.phase == ServerPhase::Ended {
            return;
        }
        match input {
            Input::Fired | Input::Values(_) => {}
            Input::RingsMade(Ok(made)) => {
                self.making = false;
                self.made = Some(made);
                if self.phase == ServerPhase::Making {
                    self.phase = ServerPhase::Publishing;
                    self.publish();
                }
                self.advance();
            }
            Input::RingsMade(Err(why)) => {
                self.making = false;
                let error = HandshakeError::Rings { device: self.listening.path.clone(), why };
                self.close(now, Reason::Fault(error.clone()), Err(error));
                self.advance();
            }
            Input::Written(outcome) => self.written(now, outcome),
            Input::Timeout => {
                let overdue = self.deadline.is_some_and(|deadline| now >= deadline);
                if let (ServerPhase::Closing(verdict), true, false) =
                    (&self.phase, overdue, self.making)
                {
                    let verdict = verdict.clone();
                    self.finish(verdict);
                }
            }
            Input::Close => self.close(now, Reason::Asked, Ok(Ending::Closed)),
            Input::Fault(what) => {
                let peer = format!("vchan client in domain {}", self.listening.client);
                let error = HandshakeError::Fault { peer, what };
                self.close(now, Reason::Fault(error.clone()), Err(error));
            }
            // The client is in another world: this stream is over.
            Input::Resumed => self.close(now, Reason::Resumed, Ok(Ending::Removed)),
        }
    }

    fn poll_command(&mut self) -> Option<Command<RingsWanted, ()>> {
        self.commands.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    fn device(&self) -> Option<&str> {
        None
    }

    fn state(&self) -> String {
        let phase = match self.phase {
            ServerPhase::Making => "makes rings",
            ServerPhase::Publishing => "writes its keys",
            ServerPhase::Connected => "is there",
            ServerPhase::Closing(_) => "is closing",
            ServerPhase::Ended => "has ended",
        };
        format!("vchan server {} {phase}", self.listening.path)
    }
}

/// Where a client is to find its server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Calling {
    /// The directory of the keys, such as `/local/domain/3/data/vchan/7/name`.
    pub path: String,
    /// The server's domain.
    pub server: u16,
    /// How long the server may take to appear, in nanoseconds: 60 s, as a device may (see
    /// [`Joining`](super::Joining)).
    pub connect_nanos: u64,
}

impl Calling {
    /// The defaults, for these.
    pub fn new(path: impl Into<String>, server: u16) -> Self {
        Calling { path: path.into(), server, connect_nanos: 60_000_000_000 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ClientPhase {
    Waiting,
    Mapping,
    Connected,
    /// Closed while rings were being mapped: their answer is waited for.
    Closing(Result<Ending, HandshakeError>),
    Ended,
}

/// A client's handshake.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    calling: Calling,
    phase: ClientPhase,
    commands: VecDeque<Command<RingsOffered, ()>>,
    dirty: bool,
    reading: bool,
    /// Keys that could not be mapped, and why: only others are tried.
    stale: Option<(RingsMade, String)>,
    offered: Option<RingsMade>,
    started: Instant,
    moved: Instant,
    deadline: Option<Instant>,
}

const KEYS: [&str; 2] = ["ring-ref", "event-channel"];

impl Client {
    /// A client that begins at `now`.
    pub fn new(calling: Calling, now: Instant) -> Self {
        let watches = KEYS.map(|name| Command::Watch(format!("{}/{name}", calling.path)));
        let deadline = Some(now.after_nanos(calling.connect_nanos));
        Client {
            calling,
            phase: ClientPhase::Waiting,
            commands: VecDeque::from(watches),
            dirty: false,
            reading: false,
            stale: None,
            offered: None,
            started: now,
            moved: now,
            deadline,
        }
    }

    fn paths(&self) -> [String; 2] {
        KEYS.map(|name| format!("{}/{name}", self.calling.path))
    }

    fn look(&mut self) {
        if self.phase == ClientPhase::Waiting && self.dirty && !self.reading {
            self.dirty = false;
            self.reading = true;
            self.commands.push_back(Command::Read(self.paths().into()));
        }
    }

    fn looked(&mut self, values: &[Option<Vec<u8>>]) -> Result<(), HandshakeError> {
        let [Some(ring_ref), Some(port)] = values else { return Ok(()) };
        let number = |name: &str, value: &Vec<u8>, expected| {
            parse_number(value).and_then(|number| u32::try_from(number).ok()).ok_or_else(|| {
                let key = format!("{}/{name}", self.calling.path);
                HandshakeError::malformed(&key, Some(value), Writer::Backend, expected)
            })
        };
        let rings = RingsMade {
            ring_ref: number("ring-ref", ring_ref, "a grant reference, 32 bits in decimal")?,
            event_channel: number("event-channel", port, "a port, 32 bits in decimal")?,
        };
        if self.stale.as_ref().is_some_and(|(stale, _)| *stale == rings) {
            return Ok(());
        }
        self.phase = ClientPhase::Mapping;
        self.offered = Some(rings.clone());
        let server = self.calling.server;
        self.commands.push_back(Command::MakeRings(RingsOffered { server, rings }));
        Ok(())
    }

    fn finish(&mut self, reason: Reason, verdict: Result<Ending, HandshakeError>) {
        match self.phase {
            ClientPhase::Mapping => {
                self.phase = ClientPhase::Closing(verdict);
                self.deadline = None;
                return;
            }
            ClientPhase::Closing(_) | ClientPhase::Ended => return,
            ClientPhase::Connected => {
                self.commands.push_back(Command::Disconnect(reason));
                self.commands.push_back(Command::Release);
            }
            ClientPhase::Waiting => {
                self.commands.extend(self.paths().map(Command::Unwatch));
            }
        }
        self.end(verdict);
    }

    fn end(&mut self, verdict: Result<Ending, HandshakeError>) {
        self.commands.push_back(Command::Ended(verdict));
        self.phase = ClientPhase::Ended;
        self.deadline = None;
    }

    fn rings_made(&mut self, now: Instant, made: Result<(), String>) {
        match (made, &self.phase) {
            (Ok(()), ClientPhase::Mapping) => {
                self.phase = ClientPhase::Connected;
                self.deadline = None;
                self.commands.extend(self.paths().map(Command::Unwatch));
                self.commands.push_back(Command::Connect(()));
            }
            (Err(why), ClientPhase::Mapping) => {
                self.stale = self.offered.take().map(|rings| (rings, why));
                self.moved = now;
                self.phase = ClientPhase::Waiting;
            }
            (made, ClientPhase::Closing(verdict)) => {
                let verdict = verdict.clone();
                if made.is_ok() {
                    self.commands.push_back(Command::Release);
                }
                self.commands.extend(self.paths().map(Command::Unwatch));
                self.end(verdict);
            }
            _ => {}
        }
    }

    fn deadline_error(&self, now: Instant) -> HandshakeError {
        let Calling { path, server, .. } = &self.calling;
        let culprit = match &self.stale {
            None => format!("domain {server} has not written {path}/ring-ref and event-channel"),
            Some((_, why)) => format!("what domain {server} wrote there cannot be used: {why}"),
        };
        HandshakeError::Deadline(Patience {
            device: format!("vchan {path}"),
            culprit,
            waited_nanos: now.0.saturating_sub(self.started.0),
            unmoved_nanos: now.0.saturating_sub(self.moved.0),
        })
    }
}

impl Handshake for Client {
    type Wanted = RingsOffered;
    type Made = ();
    type Settings = ();

    fn handle(&mut self, now: Instant, input: Input<()>) {
        if self.phase == ClientPhase::Ended {
            return;
        }
        match input {
            Input::Fired => self.dirty = true,
            Input::Values(values) => {
                self.reading = false;
                if self.phase == ClientPhase::Waiting
                    && let Err(error) = self.looked(&values)
                {
                    self.finish(Reason::Fault(error.clone()), Err(error));
                }
            }
            Input::Written(_) => {}
            Input::RingsMade(made) => self.rings_made(now, made),
            Input::Timeout => {
                if self.deadline.is_some_and(|deadline| now >= deadline) {
                    let error = self.deadline_error(now);
                    self.finish(Reason::Fault(error.clone()), Err(error));
                }
            }
            Input::Close => self.finish(Reason::Asked, Ok(Ending::Closed)),
            Input::Fault(what) => {
                let peer = format!("vchan server in domain {}", self.calling.server);
                let error = HandshakeError::Fault { peer, what };
                self.finish(Reason::Fault(error.clone()), Err(error));
            }
            Input::Resumed => match self.phase {
                ClientPhase::Waiting => self.dirty = true,
                _ => self.finish(Reason::Resumed, Ok(Ending::Removed)),
            },
        }
        self.look();
    }

    fn poll_command(&mut self) -> Option<Command<RingsOffered, ()>> {
        self.commands.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    fn device(&self) -> Option<&str> {
        None
    }

    fn state(&self) -> String {
        let phase = match self.phase {
            ClientPhase::Waiting => "waits for its server's keys",
            ClientPhase::Mapping => "maps the server's rings",
            ClientPhase::Connected => "is connected",
            ClientPhase::Closing(_) => "is closing",
            ClientPhase::Ended => "has ended",
        };
        format!("vchan client {} {phase}", self.calling.path)
    }
}
