//! The frontend's end, whatever the device.
//!
//! ```text
//!            backend InitWait          transaction done          backend Connected
//!   Seeking ────────────────▶ Making ────────────────▶ Published ────────────────▶ Connected
//!      ▲                                                   │ it closes                │ it closes,
//!      │ we write Initialising                             ▼                          ▼ we close
//!   Closing{Again} ◀──────────────────────────────────────────────────────────── Closing{End} ─▶ Ended
//! ```
//!
//! Three rules carry the proof that no frame is sent too early.
//!
//! 1. Rings are published only in a transaction in which the backend *is* in InitWait. So a Connected
//!    that is seen later is an answer to these rings, and not left over from an earlier life.
//! 2. After rings have been published, by us or by an earlier life of us, they are taken back by
//!    Closing and Closed, and Closed waits for the backend's own: one that has not answered may still
//!    be about to map them.
//! 3. Only then comes the next life, with Initialising.

mod ending;

use super::keys::{parse_domain, parse_path};
use super::{
    Change, Command, Ending, Expectation, Handshake, HandshakeError, Input, Key, Keys, Outcome,
    Patience, Reason, Transaction, Writer, XenbusState,
};
use crate::Instant;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::hash::Hash;

/// What differs between the kinds of frontends.
pub trait FrontendProtocol {
    /// What rings must be made.
    type Wanted: Clone + Debug + Eq + Hash;
    /// The rings that were made.
    type Made: Clone + Debug + Eq + Hash;
    /// What the backend's offer and our options come to.
    type Agreed: Clone + Debug + Eq + Hash;
    /// What the device knows when it is live.
    type Settings: Clone + Debug + Eq + Hash;

    /// The state that says "here are my rings": Initialised or Connected.
    const PUBLISHED: XenbusState;
    /// What to read when the backend is in InitWait.
    const OFFER: &'static [Key];
    /// What to read when the backend is Connected.
    const DETAILS: &'static [Key];

    /// Makes of the offer what rings to make, and what will be said.
    ///
    /// # Errors
    /// A key is malformed, or the backend cannot do what we need.
    fn negotiate(
        &self,
        backend: u16,
        offer: &Keys,
    ) -> Result<(Self::Wanted, Self::Agreed), HandshakeError>;

    /// Our keys, by name; `None` removes a key that an earlier life may have left.
    fn publish(&self, agreed: &Self::Agreed, made: &Self::Made) -> Vec<(String, Option<Vec<u8>>)>;

    /// The device's settings, when the backend is Connected.
    ///
    /// # Errors
    /// A key is malformed.
    fn settle(
        &self,
        agreed: &Self::Agreed,
        details: &Keys,
    ) -> Result<Self::Settings, HandshakeError>;
}

/// Where a frontend is, and how patient it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Joining {
    /// Our directory, such as `device/vif/0`.
    pub device: String,
    /// How long a first connection, and the first after a resume, may take, in nanoseconds.
    ///
    /// 60 s: libxl itself gives a backend 10 s to reach InitWait and a hotplug script 40 s
    /// (LIBXL_INIT_TIMEOUT, LIBXL_HOTPLUG_TIMEOUT); after that it will not come.
    pub connect_nanos: u64,
    /// How long the backend may take to let go of the rings when we close, in nanoseconds.
    ///
    /// 10 s, which is what libxl allows (LIBXL_DESTROY_TIMEOUT). Then we end without it; pages that it
    /// still maps stay out of use.
    pub close_nanos: u64,
    /// How often a backend may close on us before that is the answer. 4: what an earlier life has left
    /// costs one, a driver domain that is restarted closes once or twice; one that refuses us for a
    /// reason closes every time.
    pub attempts_max: u8,
    /// After the device was live once and its backend closed: wait for the next one, without a
    /// deadline. Otherwise that is the end.
    pub reconnect: bool,
}

impl Joining {
    /// A connection that lived shorter than this counts as a failed attempt, so that a backend that
    /// connects and closes again and again is given up.
    const LIVED_NANOS_MIN: u64 = 1_000_000_000;

    /// The defaults, for this directory.
    pub fn new(device: impl Into<String>) -> Self {
        Joining {
            device: device.into(),
            connect_nanos: 60_000_000_000,
            close_nanos: 10_000_000_000,
            attempts_max: 4,
            reconnect: true,
        }
    }

    fn path(&self, key: &str) -> String {
        format!("{}/{key}", self.device)
    }
}

/// What the toolstack writes into our directory, in any order and perhaps late. Watched, and read in
/// this order.
const OWN_KEYS: [&str; 3] = ["state", "backend", "backend-id"];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    path: String,
    domain: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Waiting for a backend in InitWait. `kicked`: we have written Initialising in this life.
    Seeking {
        kicked: bool,
    },
    /// The offer is known or being read, and rings are being made.
    Making,
    /// Our rings are in XenStore; waiting for the backend to be Connected.
    Published,
    /// Live.
    Connected,
    /// Taking back what was published. `closed`: our Closed is written. `overdue`: the backend is
    /// waited for no longer, only XenStore.
    Closing {
        goal: Goal,
        closed: bool,
        overdue: bool,
    },
    Ended,
}

/// What comes after Closed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Goal {
    Again,
    End(Result<Ending, HandshakeError>),
}

/// The one command whose answer is outstanding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Pending {
    Nothing,
    Look,
    Offer,
    Details,
    Rings,
    Write(Step, Transaction),
    /// An answer that no longer matters: the domain was suspended meanwhile.
    Void,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Initialising,
    Publish,
    Confirm,
    Closing,
    Closed,
}

/// What the last look saw of the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct View {
    peer_state: Option<XenbusState>,
    hotplug: Option<bool>,
}

/// A frontend's handshake: see the [module](super) for its use, and [`Joining`] for its limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frontend<P: FrontendProtocol> {
    protocol: P,
    joining: Joining,
    phase: Phase,
    pending: Pending,
    /// A watch has fired since the last look began.
    dirty: bool,
    commands: VecDeque<Command<P::Wanted, P::Settings>>,
    /// The backend that our directory names; its state is watched.
    peer: Option<Peer>,
    view: View,
    /// Our directory has been seen: if it is missing from now on, it was removed.
    seen: bool,
    offer: Keys,
    agreed: Option<P::Agreed>,
    made: Option<P::Made>,
    settings: Option<P::Settings>,
    /// `MakeRings` succeeded, and `Release` has not come.
    rings: bool,
    /// XenStore says where our rings are.
    published: bool,
    attempts: u8,
    started: Instant,
    moved: Instant,
    /// When the device became live, while it is.
    live_since: Option<Instant>,
    /// The device was live once.
    lived: bool,
    deadline: Option<Instant>,
}

impl<P: FrontendProtocol> Frontend<P> {
    /// A frontend that begins at `now`.
    pub fn new(joining: Joining, protocol: P, now: Instant) -> Self {
        let watches = OWN_KEYS.map(|key| Command::Watch(joining.path(key)));
        let commands = VecDeque::from(watches);
        let deadline = Some(now.after_nanos(joining.connect_nanos));
        Frontend {
            protocol,
            joining,
            phase: Phase::Seeking { kicked: false },
            pending: Pending::Nothing,
            dirty: false,
            commands,
            peer: None,
            view: View::default(),
            seen: false,
            offer: Keys::default(),
            agreed: None,
            made: None,
            settings: None,
            rings: false,
            published: false,
            attempts: 0,
            started: now,
            moved: now,
            live_since: None,
            lived: false,
            deadline,
        }
    }

    // What is read.

    /// Looks again if something has changed and nothing is under way.
    fn look(&mut self) {
        if self.phase == Phase::Ended || self.pending != Pending::Nothing || !self.dirty {
            return;
        }
        self.dirty = false;
        let mut paths = Vec::from(OWN_KEYS.map(|key| self.joining.path(key)));
        if let Some(peer) = &self.peer {
            paths.push(format!("{}/state", peer.path));
            if self.phase == Phase::Published {
                paths.push(format!("{}/hotplug-status", peer.path));
            }
        }
        self.pending = Pending::Look;
        self.commands.push_back(Command::Read(paths));
    }

    fn looked(&mut self, now: Instant, values: Vec<Option<Vec<u8>>>) {
        let mut values = values.into_iter();
        let mut next = || values.next().flatten();
        let (own, backend, backend_id) = (next(), next(), next());
        let (peer_state, hotplug) = (next(), next());
        if own.is_none() && backend.is_none() && self.seen {
            return self.removed();
        }
        self.seen |= own.is_some() || backend.is_some();
        if let (Phase::Closing { goal: Goal::End(verdict), .. }, true) =
            (&self.phase, own.is_none() || backend.is_none() || backend_id.is_none())
        {
            // There is nobody to tell.
            let verdict = verdict.clone();
            return self.finish(verdict);
        }
        match self.find_peer(now, backend.as_deref(), backend_id.as_deref()) {
            Ok(true) => {}
            // Not there yet, or another one: its watch fires at once, and then we look again.
            Ok(false) => return,
            Err(error) => {
                return match self.phase.clone() {
                    // There is nobody to tell any more.
                    Phase::Closing { goal: Goal::End(verdict), .. } => self.finish(verdict),
                    _ => self.close(now, Goal::End(Err(error))),
                };
            }
        }
        let own = own.as_deref().map(XenbusState::parse);
        let peer_state = match peer_state.as_deref().map(|value| (value, XenbusState::parse(value)))
        {
            None => None,
            Some((_, Some(state))) => Some(state),
            // That was said already, and is no answer to Closing.
            Some((_, None)) if matches!(self.phase, Phase::Closing { goal: Goal::End(_), .. }) => {
                Some(XenbusState::Unknown)
            }
            Some((value, None)) => {
                let path = self.peer_path("state");
                let expected = "a state, 0 to 8";
                let error =
                    HandshakeError::malformed(&path, Some(value), Writer::Backend, expected);
                return self.close(now, Goal::End(Err(error)));
            }
        };
        let hotplug = (self.phase == Phase::Published).then_some(hotplug.is_some());
        if peer_state != self.view.peer_state {
            self.moved = now;
        }
        self.view = View { peer_state, hotplug };
        // Our own state is late as well, or was removed without its directory: nothing can be written.
        let Some(own) = own else { return };
        self.decide(now, own.unwrap_or(XenbusState::Unknown));
    }

    /// Learns from our directory who the backend is. True if it is known and still the same.
    fn find_peer(
        &mut self,
        now: Instant,
        backend: Option<&[u8]>,
        backend_id: Option<&[u8]>,
    ) -> Result<bool, HandshakeError> {
        let (Some(backend), Some(backend_id)) = (backend, backend_id) else { return Ok(false) };
        let wrong = |key, value, expected| {
            let path = self.joining.path(key);
            HandshakeError::malformed(&path, Some(value), Writer::Toolstack, expected)
        };
        // Our own directory is no other end: we would be watching ourselves.
        let path = parse_path(backend)
            .filter(|path| *path != self.joining.device)
            .ok_or_else(|| wrong("backend", backend, "the absolute path of the backend"))?;
        let domain = parse_domain(backend_id)
            .ok_or_else(|| wrong("backend-id", backend_id, "a domain's id"))?;
        let peer = Peer { path, domain };
        if self.peer.as_ref() == Some(&peer) {
            return Ok(true);
        }
        let watch = format!("{}/state", peer.path);
        if let Some(old) = self.peer.replace(peer) {
            // The toolstack has given us another backend. What the old one had of us is taken back at
            // once: it is not the one that would answer.
            self.commands.push_back(Command::Unwatch(format!("{}/state", old.path)));
            self.disconnect(Reason::Peer(None));
            self.release();
            if !matches!(self.phase, Phase::Closing { goal: Goal::End(_), .. }) {
                self.phase = Phase::Seeking { kicked: false };
            }
        }
        self.view = View::default();
        self.moved = now;
        self.commands.push_back(Command::Watch(watch));
        Ok(false)
    }

    // What is decided.

    /// Acts on what a look has shown: our own state, and `self.view`.
    fn decide(&mut self, now: Instant, own: XenbusState) {
        use XenbusState::{Closed, Closing, Connected, InitWait, Initialised, Initialising};
        let peer = self.view.peer_state;
        match &mut self.phase {
            Phase::Seeking { kicked } => match peer {
                // Rings of an earlier life may be mapped, or about to be.
                _ if matches!(own, Initialised | Connected | Closing) => self.peer_closed(now),
                Some(Initialised | Connected | Closing) => self.peer_closed(now),
                Some(Closed) if !*kicked => {
                    *kicked = true;
                    self.write(Step::Initialising);
                }
                _ if own != Initialising => {
                    *kicked = true;
                    self.write(Step::Initialising);
                }
                Some(InitWait) => {
                    // If it closes from here on, it needs another Initialising.
                    *kicked = false;
                    self.read_keys(P::OFFER, Pending::Offer);
                }
                _ => {}
            },
            Phase::Making => {}
            Phase::Published => match peer {
                Some(Connected) if P::DETAILS.is_empty() => self.settle(now, Keys::default()),
                Some(Connected) => self.read_keys(P::DETAILS, Pending::Details),
                Some(Closing | Closed) | None => self.peer_closed(now),
                _ => {}
            },
            Phase::Connected => match peer {
                Some(Connected | XenbusState::Reconfiguring | XenbusState::Reconfigured) => {}
                _ => self.peer_closed(now),
            },
            Phase::Closing { goal, closed, overdue } => {
                // What was never published needs nobody's leave.
                let alone = *overdue || (!self.published && matches!(goal, Goal::End(_)));
                match (*closed, peer) {
                    // Nothing else will do: a backend in InitWait may be on its way to Connected, with
                    // the rings that it read of before it learned that we are Closed.
                    (true, Some(Closed) | None) => self.closed(),
                    (true, _) if alone => self.closed(),
                    (true, _) => {}
                    (false, Some(Closing | Closed) | None) => self.write(Step::Closed),
                    (false, _) if alone => self.write(Step::Closed),
                    (false, _) if own != Closing => self.write(Step::Closing),
                    // Its Closing is not waited for. A blkback whose script was late goes to Connected
                    // after it, and if that is all that is seen of it, each waits for the other.
                    (false, _) => self.write(Step::Closed),
                }
            }
            Phase::Ended => {}
        }
    }

    /// The backend went away from rings that it had, was offered, or was offered in an earlier life.
    /// Every such round counts: two ends that answer each other's last word but one could dance for
    /// ever.
    fn peer_closed(&mut self, now: Instant) {
        let state = self.view.peer_state;
        let live_nanos = self.live_since.map(|since| now.0.saturating_sub(since.0));
        if live_nanos.is_some_and(|nanos| nanos >= Joining::LIVED_NANOS_MIN) {
            self.attempts = 0;
        }
        self.attempts = self.attempts.saturating_add(1);
        self.disconnect(Reason::Peer(state));
        let gone = live_nanos.is_some() && !self.joining.reconnect;
        let goal = if gone || self.attempts >= self.joining.attempts_max {
            Goal::End(Err(HandshakeError::PeerClosed { peer: self.peer_path_only(), state }))
        } else {
            Goal::Again
        };
        self.close(now, goal);
    }

    fn read_keys(&mut self, keys: &'static [Key], pending: Pending) {
        let paths = keys.iter().map(|key| self.path_of(key)).collect();
        self.pending = pending;
        self.commands.push_back(Command::Read(paths));
    }

    fn keys(&self, keys: &'static [Key], values: Vec<Option<Vec<u8>>>) -> Keys {
        let paths = keys.iter().map(|key| (key.clone(), self.path_of(key)));
        Keys::new(Writer::Backend, self.peer_path_only(), paths, values)
    }

    fn negotiate(&mut self, now: Instant, values: Vec<Option<Vec<u8>>>) {
        let Some(peer) = &self.peer else { return };
        let offer = self.keys(P::OFFER, values);
        match self.protocol.negotiate(peer.domain, &offer) {
            Ok((wanted, agreed)) => {
                self.offer = offer;
                self.agreed = Some(agreed);
                self.phase = Phase::Making;
                self.pending = Pending::Rings;
                self.commands.push_back(Command::MakeRings(wanted));
            }
            Err(error) => self.close(now, Goal::End(Err(error))),
        }
    }

    fn settle(&mut self, now: Instant, details: Keys) {
        let Some(agreed) = &self.agreed else { return };
        match self.protocol.settle(agreed, &details) {
            Ok(settings) if P::PUBLISHED == XenbusState::Connected => {
                self.settings = Some(settings);
                self.connect(now);
            }
            Ok(settings) => {
                self.settings = Some(settings);
                self.write(Step::Confirm);
            }
            Err(error) => self.close(now, Goal::End(Err(error))),
        }
    }

    fn connect(&mut self, now: Instant) {
        let Some(settings) = self.settings.take() else { return };
        self.phase = Phase::Connected;
        self.live_since = Some(now);
        self.lived = true;
        self.deadline = None;
        self.commands.push_back(Command::Connect(settings));
    }

    // What is written.

    fn write(&mut self, step: Step) {
        let (Some(peer), true) = (&self.peer, self.pending == Pending::Nothing) else { return };
        // A directory that was removed, or belongs to another backend now, is not written to.
        let mut expect = vec![
            (self.joining.path("state"), Expectation::Exists),
            (self.joining.path("backend"), Expectation::Holds(Some(peer.path.clone().into()))),
        ];
        let peer_is = |state: XenbusState| {
            let value = Some(state.as_bytes().to_vec());
            (format!("{}/state", peer.path), Expectation::Holds(value))
        };
        let mut changes = Vec::new();
        let state = match step {
            Step::Initialising => XenbusState::Initialising,
            Step::Closing => XenbusState::Closing,
            Step::Closed => XenbusState::Closed,
            Step::Confirm => {
                expect.push(peer_is(XenbusState::Connected));
                XenbusState::Connected
            }
            Step::Publish => {
                let (Some(agreed), Some(made)) = (&self.agreed, &self.made) else { return };
                expect.push(peer_is(XenbusState::InitWait));
                expect.extend(self.offer.iter().map(|(path, value)| {
                    (path.into(), Expectation::Holds(value.map(<[u8]>::to_vec)))
                }));
                for (name, value) in self.protocol.publish(agreed, made) {
                    let path = self.joining.path(&name);
                    changes.push(match value {
                        Some(value) => Change::Set(path, value),
                        None => Change::Remove(path),
                    });
                }
                P::PUBLISHED
            }
        };
        changes.push(Change::Set(self.joining.path("state"), state.as_bytes().to_vec()));
        let transaction = Transaction { expect, changes };
        self.pending = Pending::Write(step, transaction.clone());
        self.commands.push_back(Command::Write(transaction));
    }

    fn written(&mut self, now: Instant, step: Step, transaction: Transaction, outcome: Outcome) {
        // Look again whatever happened: what the next step depends on may have changed since the look
        // that led to this one.
        self.dirty = true;
        if step == Step::Publish && outcome == Outcome::Done {
            self.published = true;
        }
        match (outcome, step, &mut self.phase) {
            (Outcome::Refused(errno), ..) => {
                let device = self.joining.device.clone();
                let error = HandshakeError::Refused { device, errno };
                if matches!(self.phase, Phase::Closing { .. }) {
                    // Not even that may be written: there is nothing more to be polite about.
                    return self.finish(Err(error));
                }
                self.close(now, Goal::End(Err(error)));
            }
            // Nobody has moved us on meanwhile: once more, the same.
            (Outcome::Again, Step::Publish, Phase::Making)
            | (Outcome::Again, Step::Confirm, Phase::Published)
            | (Outcome::Again, Step::Initialising, Phase::Seeking { .. })
            | (Outcome::Again, Step::Closing | Step::Closed, Phase::Closing { .. }) => {
                self.pending = Pending::Write(step, transaction.clone());
                self.commands.push_back(Command::Write(transaction));
            }
            (Outcome::Done, Step::Publish, Phase::Making) => self.phase = Phase::Published,
            (Outcome::Differs, Step::Publish, Phase::Making) => {
                // The backend has changed its mind. These rings fit an offer that is no more.
                self.release();
                self.phase = Phase::Seeking { kicked: false };
            }
            (Outcome::Done, Step::Confirm, Phase::Published) => self.connect(now),
            (Outcome::Done, Step::Closed, Phase::Closing { closed, .. }) => *closed = true,
            _ => {}
        }
    }

    // Small things.

    fn peer_path_only(&self) -> String {
        self.peer.as_ref().map(|peer| peer.path.clone()).unwrap_or_default()
    }

    fn peer_path(&self, key: &str) -> String {
        format!("{}/{key}", self.peer_path_only())
    }

    fn path_of(&self, key: &Key) -> String {
        match key {
            Key::Ours(name) => self.joining.path(name),
            Key::Theirs(name) => self.peer_path(name),
            Key::TheirsNumbered(name, number) => self.peer_path(&format!("{name}{number}")),
        }
    }

    fn rings_made(&mut self, now: Instant, made: Result<P::Made, String>) {
        match (made, &self.phase) {
            (Ok(made), Phase::Making) => {
                self.rings = true;
                self.made = Some(made);
                self.write(Step::Publish);
            }
            (Err(why), Phase::Making) => {
                let device = self.joining.device.clone();
                self.close(now, Goal::End(Err(HandshakeError::Rings { device, why })));
            }
            // Too late: nobody was told of them.
            (Ok(_), _) => {
                self.commands.push_back(Command::Release);
            }
            (Err(_), _) => {}
        }
        if let Phase::Closing { goal: Goal::End(verdict), closed: true, .. } = &self.phase {
            let verdict = verdict.clone();
            self.finish(verdict);
        }
    }

    fn resumed(&mut self, now: Instant) {
        self.disconnect(Reason::Resumed);
        self.release();
        self.pending = match self.pending {
            Pending::Nothing => Pending::Nothing,
            Pending::Rings => Pending::Rings,
            _ => Pending::Void,
        };
        self.view = View::default();
        (self.started, self.moved) = (now, now);
        self.attempts = 0;
        if let Phase::Closing { goal: Goal::End(verdict), .. } = &self.phase {
            let verdict = verdict.clone();
            return self.finish(verdict);
        }
        self.phase = Phase::Seeking { kicked: false };
        self.deadline = Some(now.after_nanos(self.joining.connect_nanos));
        self.dirty = true;
    }
}

impl<P: FrontendProtocol> Handshake for Frontend<P> {
    type Wanted = P::Wanted;
    type Made = P::Made;
    type Settings = P::Settings;

    fn handle(&mut self, now: Instant, input: Input<P::Made>) {
        if self.phase == Phase::Ended {
            return;
        }
        match input {
            Input::Fired => self.dirty = true,
            Input::Values(values) => {
                match core::mem::replace(&mut self.pending, Pending::Nothing) {
                    Pending::Look => self.looked(now, values),
                    Pending::Offer if matches!(self.phase, Phase::Seeking { .. }) => {
                        self.negotiate(now, values);
                    }
                    Pending::Details if self.phase == Phase::Published => {
                        let details = self.keys(P::DETAILS, values);
                        self.settle(now, details);
                    }
                    _ => {}
                }
            }
            Input::Written(outcome) => {
                let pending = core::mem::replace(&mut self.pending, Pending::Nothing);
                if let Pending::Write(step, transaction) = pending {
                    self.written(now, step, transaction, outcome);
                }
            }
            Input::RingsMade(made) => {
                self.pending = Pending::Nothing;
                self.rings_made(now, made);
            }
            Input::Timeout => self.timeout(now),
            Input::Close => self.close(now, Goal::End(Ok(Ending::Closed))),
            Input::Fault(what) => {
                let peer = self.peer_path_only();
                self.close(now, Goal::End(Err(HandshakeError::Fault { peer, what })));
            }
            Input::Resumed => self.resumed(now),
        }
        self.look();
    }

    fn poll_command(&mut self) -> Option<Command<P::Wanted, P::Settings>> {
        self.commands.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    fn device(&self) -> Option<&str> {
        Some(&self.joining.device)
    }

    fn state(&self) -> String {
        let device = &self.joining.device;
        let peer = match (&self.peer, self.view.peer_state) {
            (None, _) => String::from("no backend yet"),
            (Some(peer), None) => format!("backend {} without a state", peer.path),
            (Some(peer), Some(state)) => format!("backend {} {state}", peer.path),
        };
        let phase = match self.phase {
            Phase::Seeking { .. } => "waits for its backend",
            Phase::Making => "makes rings",
            Phase::Published => "has offered its rings",
            Phase::Connected => "is connected",
            Phase::Closing { .. } => "is closing",
            Phase::Ended => "has ended",
        };
        format!("{device} {phase}; {peer}")
    }
}
