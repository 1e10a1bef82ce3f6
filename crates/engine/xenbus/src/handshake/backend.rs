//! The backend's end, whatever the device.
//!
//! ```text
//!   Starting ─▶ Waiting ──────────────▶ Attaching ───────────▶ Connected
//!      ▲        we are in InitWait;      its keys are read,      │ the frontend closes, is reset,
//!      │        the frontend offers      its rings mapped        │ lies, or vanishes
//!      │        rings                                            ▼
//!      └── Idle ◀──────────────────────────────────────────── Closing ─▶ Ended
//!          we are Closed; the frontend begins again              the toolstack or we want the end
//! ```
//!
//! A frontend is never believed: its keys are read after its state, and the transaction in which we
//! say Connected sees the same keys again, so what was mapped is what it offers. One that writes
//! nonsense is reported and closed, and may come back with Initialising; that costs it a write for
//! each of ours. One that is deleted takes the device with it.

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

/// What differs between the kinds of backends.
pub trait BackendProtocol {
    /// The rings that the frontend offers.
    type Offered: Clone + Debug + Eq + Hash;
    /// What the device knows when it is live.
    type Settings: Clone + Debug + Eq + Hash;

    /// The states in which a frontend has offered its rings.
    const OFFERED: &'static [XenbusState];
    /// What to read then.
    const REQUEST: &'static [Key];

    /// What is written before InitWait: what we can do. `None` removes a key.
    fn offer(&self) -> Vec<(String, Option<Vec<u8>>)>;

    /// Makes of the frontend's keys what rings to attach to.
    ///
    /// # Errors
    /// A key is malformed, or the frontend cannot do what we need.
    fn accept(
        &self,
        frontend: u16,
        request: &Keys,
    ) -> Result<(Self::Offered, Self::Settings), HandshakeError>;

    /// What is written together with Connected.
    fn details(&self) -> Vec<(String, Option<Vec<u8>>)>;
}

/// Whether somebody else must make the device reachable before it is Connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HotplugStatus {
    /// Nobody: the device is served in this very program.
    Ignored,
    /// A hotplug script, which says `connected` in the key `hotplug-status`. So it is in dom0.
    Awaited,
}

/// Where a backend is, and how patient it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Serving {
    /// Our directory, such as `backend/vif/3/0`.
    pub device: String,
    /// Whether a hotplug script is waited for.
    pub hotplug: HotplugStatus,
    /// How long that script may take, in nanoseconds. 40 s, as in libxl (LIBXL_HOTPLUG_TIMEOUT).
    pub hotplug_nanos: u64,
    /// How long a frontend may take to close when we want to, in nanoseconds. 10 s, as in libxl
    /// (LIBXL_DESTROY_TIMEOUT): then we are Closed without it.
    pub close_nanos: u64,
}

impl Serving {
    /// The defaults, for this directory.
    pub fn new(device: impl Into<String>) -> Self {
        Serving {
            device: device.into(),
            hotplug: HotplugStatus::Ignored,
            hotplug_nanos: 40_000_000_000,
            close_nanos: 10_000_000_000,
        }
    }

    fn path(&self, key: &str) -> String {
        format!("{}/{key}", self.device)
    }
}

/// What the toolstack writes into our directory. Watched, and read in this order; the state of the
/// frontend follows.
const OWN_KEYS: [&str; 5] = ["state", "frontend", "frontend-id", "online", "hotplug-status"];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    path: String,
    domain: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Our directory is being learned, and what an earlier life has left in it.
    Starting,
    /// We are in InitWait; the frontend may offer rings.
    Waiting,
    /// Its keys are read, its rings mapped.
    Attaching,
    /// Live.
    Connected,
    /// Going to Closed; then Idle, or the end.
    Closing {
        end: Option<Result<Ending, HandshakeError>>,
        overdue: bool,
    },
    /// We are Closed, and wait for a frontend that begins again.
    Idle,
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Pending {
    Nothing,
    Look,
    Request,
    Rings,
    Write(Step, Transaction),
    /// An answer that no longer matters: the domain was suspended meanwhile.
    Void,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Offer,
    Connected,
    Closing,
    Closed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct View {
    own: Option<XenbusState>,
    peer_state: Option<XenbusState>,
    hotplug: bool,
    offline: bool,
}

/// A backend's handshake: see the [module](super) for its use, and [`Serving`] for its limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend<P: BackendProtocol> {
    protocol: P,
    serving: Serving,
    phase: Phase,
    pending: Pending,
    /// A watch has fired since the last look began.
    dirty: bool,
    commands: VecDeque<Command<P::Offered, P::Settings>>,
    /// The frontend that our directory names; its state is watched.
    peer: Option<Peer>,
    view: View,
    /// Our directory has been seen: if it is missing from now on, it was removed.
    seen: bool,
    /// The frontend's state has been seen: if it is missing from now on, the frontend is gone.
    met: bool,
    request: Keys,
    settings: Option<P::Settings>,
    /// `MakeRings` succeeded, and `Release` has not come.
    rings: bool,
    waiting_since: Instant,
    deadline: Option<Instant>,
}

impl<P: BackendProtocol> Backend<P> {
    /// A backend that begins now.
    pub fn new(serving: Serving, protocol: P, now: Instant) -> Self {
        let commands = OWN_KEYS.map(|key| Command::Watch(serving.path(key)));
        Backend {
            protocol,
            serving,
            phase: Phase::Starting,
            pending: Pending::Nothing,
            dirty: false,
            commands: VecDeque::from(commands),
            peer: None,
            view: View::default(),
            seen: false,
            met: false,
            request: Keys::default(),
            settings: None,
            rings: false,
            waiting_since: now,
            deadline: None,
        }
    }

    // What is read.

    fn look(&mut self) {
        if self.phase == Phase::Ended || self.pending != Pending::Nothing || !self.dirty {
            return;
        }
        self.dirty = false;
        let mut paths = Vec::from(OWN_KEYS.map(|key| self.serving.path(key)));
        if let Some(peer) = &self.peer {
            paths.push(format!("{}/state", peer.path));
        }
        self.pending = Pending::Look;
        self.commands.push_back(Command::Read(paths));
    }

    fn looked(&mut self, now: Instant, values: Vec<Option<Vec<u8>>>) {
        let mut values = values.into_iter();
        let mut next = || values.next().flatten();
        let (own, frontend, frontend_id) = (next(), next(), next());
        let (online, hotplug, peer_state) = (next(), next(), next());
        if own.is_none() && frontend.is_none() {
            if self.seen {
                self.disconnect(Reason::Removed);
                self.finish(Ok(Ending::Removed));
            }
            return;
        }
        self.seen = true;
        if let (Phase::Closing { end: Some(verdict), .. }, true) =
            (&self.phase, own.is_none() || frontend.is_none() || frontend_id.is_none())
        {
            // There is nobody to tell.
            let verdict = verdict.clone();
            return self.finish(verdict);
        }
        match self.find_peer(frontend.as_deref(), frontend_id.as_deref()) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                return match self.phase.clone() {
                    // There is nobody to tell any more.
                    Phase::Closing { end: Some(verdict), .. } => self.finish(verdict),
                    _ => self.close(now, Some(Err(error))),
                };
            }
        }
        // A frontend whose state is no state is one that does not know what it wants.
        let peer_state =
            peer_state.map(|value| XenbusState::parse(&value).unwrap_or(XenbusState::Unknown));
        self.met |= peer_state.is_some();
        self.view = View {
            own: own.map(|value| XenbusState::parse(&value).unwrap_or(XenbusState::Unknown)),
            peer_state,
            hotplug: hotplug.as_deref() == Some(b"connected"),
            offline: online.as_deref() == Some(b"0"),
        };
        // Our own state is late as well: nothing can be written.
        if self.view.own.is_some() {
            self.decide(now);
        }
    }

    /// Learns from our directory who the frontend is. True if it is known and still the same.
    fn find_peer(
        &mut self,
        frontend: Option<&[u8]>,
        frontend_id: Option<&[u8]>,
    ) -> Result<bool, HandshakeError> {
        let (Some(frontend), Some(frontend_id)) = (frontend, frontend_id) else {
            return Ok(false);
        };
        let wrong = |key, value, expected| {
            let path = self.serving.path(key);
            HandshakeError::malformed(&path, Some(value), Writer::Toolstack, expected)
        };
        // Our own directory is no other end: we would be watching ourselves.
        let path = parse_path(frontend)
            .filter(|path| *path != self.serving.device)
            .ok_or_else(|| wrong("frontend", frontend, "the absolute path of the frontend"))?;
        let domain = parse_domain(frontend_id)
            .ok_or_else(|| wrong("frontend-id", frontend_id, "a domain's id"))?;
        let peer = Peer { path, domain };
        if self.peer.as_ref() == Some(&peer) {
            return Ok(true);
        }
        let watch = format!("{}/state", peer.path);
        if let Some(old) = self.peer.replace(peer) {
            self.commands.push_back(Command::Unwatch(format!("{}/state", old.path)));
            self.disconnect(Reason::Peer(None));
            self.release();
            self.met = false;
            if !matches!(self.phase, Phase::Closing { .. }) {
                self.phase = Phase::Starting;
            }
        }
        self.commands.push_back(Command::Watch(watch));
        Ok(false)
    }

    // What is decided.

    fn decide(&mut self, now: Instant) {
        use XenbusState::{Closed, Closing, Connected, Initialised, Initialising};
        let View { own: Some(own), peer_state: peer, hotplug, offline } = self.view.clone() else {
            return;
        };
        let gone = self.met && peer.is_none();
        if (gone || offline) && !matches!(self.phase, Phase::Closing { end: Some(_), .. }) {
            let reason = if gone { Reason::Peer(None) } else { Reason::Removed };
            self.disconnect(reason);
            return self.close(now, Some(Ok(Ending::Removed)));
        }
        match &self.phase {
            Phase::Starting => match (peer, own) {
                (None, _) => {}
                (Some(Closing | Closed), _) => self.close(now, None),
                // A life before this one was Connected: the frontend must learn that it is over.
                (Some(_), Initialised | Connected) => self.close(now, None),
                // That life has ended in order; only a frontend that begins is served.
                (Some(Initialising), _) => self.write(Step::Offer),
                (Some(_), Closing | Closed) => self.phase = Phase::Idle,
                (Some(_), _) => self.write(Step::Offer),
            },
            Phase::Waiting => match peer {
                Some(Closing | Closed) => self.close(now, None),
                Some(state) if P::OFFERED.contains(&state) => {
                    if hotplug || self.serving.hotplug == HotplugStatus::Ignored {
                        self.deadline = None;
                        let keys = P::REQUEST.iter().map(|key| self.path_of(key)).collect();
                        self.pending = Pending::Request;
                        self.commands.push_back(Command::Read(keys));
                    } else if self.deadline.is_none() {
                        self.waiting_since = now;
                        self.deadline = Some(now.after_nanos(self.serving.hotplug_nanos));
                    }
                }
                _ => {}
            },
            Phase::Attaching => {}
            Phase::Connected => match peer {
                Some(Connected) => {}
                Some(state) if P::OFFERED.contains(&state) => {}
                // It has begun again without closing: its old rings are void.
                Some(state @ (Initialising | XenbusState::InitWait | XenbusState::Unknown)) => {
                    self.disconnect(Reason::Peer(Some(state)));
                    self.release();
                    self.write(Step::Offer);
                }
                Some(XenbusState::Reconfiguring | XenbusState::Reconfigured) => {}
                state => {
                    self.disconnect(Reason::Peer(state));
                    self.close(now, None);
                }
            },
            Phase::Closing { overdue, .. } => match peer {
                Some(Closed | Initialising | XenbusState::InitWait | XenbusState::Unknown)
                | None => self.write(Step::Closed),
                Some(_) if *overdue => self.write(Step::Closed),
                Some(_) if own != Closing => self.write(Step::Closing),
                Some(_) => {}
            },
            Phase::Idle if peer == Some(Initialising) => self.write(Step::Offer),
            Phase::Idle | Phase::Ended => {}
        }
    }

    fn accept(&mut self, now: Instant, values: Vec<Option<Vec<u8>>>) {
        let Some(peer) = &self.peer else { return };
        let paths = P::REQUEST.iter().map(|key| (key.clone(), self.path_of(key)));
        let request = Keys::new(Writer::Frontend, peer.path.clone(), paths, values);
        match self.protocol.accept(peer.domain, &request) {
            Ok((offered, settings)) => {
                self.request = request;
                self.settings = Some(settings);
                self.phase = Phase::Attaching;
                self.pending = Pending::Rings;
                self.commands.push_back(Command::MakeRings(offered));
            }
            Err(error) => self.refuse(now, error),
        }
    }

    /// The frontend is at fault: it is told to close, and may come again.
    fn refuse(&mut self, now: Instant, error: HandshakeError) {
        self.disconnect(Reason::Fault(error.clone()));
        self.commands.push_back(Command::Report(error));
        self.close(now, None);
    }

    fn rings_made(&mut self, now: Instant, made: Result<(), String>) {
        match (made, &self.phase) {
            (Ok(()), Phase::Attaching) => {
                self.rings = true;
                self.write(Step::Connected);
            }
            (Err(why), Phase::Attaching) => {
                let device = self.peer_path();
                self.refuse(now, HandshakeError::Rings { device, why });
            }
            // Too late.
            (Ok(()), _) => self.commands.push_back(Command::Release),
            (Err(_), _) => {}
        }
        if let Phase::Closing { end: Some(verdict), overdue: true } = &self.phase {
            let verdict = verdict.clone();
            self.finish(verdict);
        }
    }

    // What is written.

    fn write(&mut self, step: Step) {
        let (Some(peer), true) = (&self.peer, self.pending == Pending::Nothing) else { return };
        let mut expect = vec![
            (self.serving.path("state"), Expectation::Exists),
            (self.serving.path("frontend"), Expectation::Holds(Some(peer.path.clone().into()))),
        ];
        let (state, keys) = match step {
            Step::Offer => (XenbusState::InitWait, self.protocol.offer()),
            Step::Connected => {
                let Some(seen) = self.view.peer_state else { return };
                let value = Some(seen.as_bytes().to_vec());
                expect.push((format!("{}/state", peer.path), Expectation::Holds(value)));
                expect.extend(self.request.iter().map(|(path, value)| {
                    (path.into(), Expectation::Holds(value.map(<[u8]>::to_vec)))
                }));
                (XenbusState::Connected, self.protocol.details())
            }
            Step::Closing => (XenbusState::Closing, Vec::new()),
            Step::Closed => (XenbusState::Closed, Vec::new()),
        };
        let mut changes: Vec<_> = keys
            .into_iter()
            .map(|(name, value)| match value {
                Some(value) => Change::Set(self.serving.path(&name), value),
                None => Change::Remove(self.serving.path(&name)),
            })
            .collect();
        changes.push(Change::Set(self.serving.path("state"), state.as_bytes().to_vec()));
        let transaction = Transaction { expect, changes };
        self.pending = Pending::Write(step, transaction.clone());
        self.commands.push_back(Command::Write(transaction));
    }

    fn written(&mut self, now: Instant, step: Step, transaction: Transaction, outcome: Outcome) {
        self.dirty = true;
        let due = match step {
            Step::Offer => !matches!(self.phase, Phase::Closing { .. }),
            Step::Connected => self.phase == Phase::Attaching,
            Step::Closing | Step::Closed => matches!(self.phase, Phase::Closing { .. }),
        };
        match (outcome, step) {
            (Outcome::Refused(errno), _) => {
                let device = self.serving.device.clone();
                let error = Err(HandshakeError::Refused { device, errno });
                match &self.phase {
                    Phase::Closing { .. } => self.finish(error),
                    _ => self.close(now, Some(error)),
                }
            }
            (Outcome::Again, _) if due => {
                self.pending = Pending::Write(step, transaction.clone());
                self.commands.push_back(Command::Write(transaction));
            }
            (Outcome::Done, Step::Offer) if due => self.phase = Phase::Waiting,
            (Outcome::Done, Step::Connected) if due => {
                let Some(settings) = self.settings.take() else { return };
                self.phase = Phase::Connected;
                self.commands.push_back(Command::Connect(settings));
            }
            (Outcome::Differs, Step::Connected) if due => {
                // The frontend has changed its mind while we mapped its rings.
                self.release();
                self.phase = Phase::Waiting;
            }
            (Outcome::Done, Step::Closed) => {
                self.deadline = None;
                if let Phase::Closing { end, .. } = &self.phase {
                    match end.clone() {
                        Some(verdict) => self.finish(verdict),
                        None => self.phase = Phase::Idle,
                    }
                }
            }
            _ => {}
        }
    }

    // How it ends.

    fn close(&mut self, now: Instant, end: Option<Result<Ending, HandshakeError>>) {
        if self.phase == Phase::Ended {
            return;
        }
        self.disconnect(match &end {
            Some(Err(error)) => Reason::Fault(error.clone()),
            Some(Ok(Ending::Removed)) => Reason::Removed,
            _ => Reason::Asked,
        });
        // We only map what is the frontend's: that needs nobody's leave.
        self.release();
        if let (Some(verdict), None) = (&end, &self.peer) {
            return self.finish(verdict.clone());
        }
        match &mut self.phase {
            Phase::Closing { end: under_way, .. } => {
                if under_way.is_none() {
                    *under_way = end;
                }
            }
            _ => {
                self.phase = Phase::Closing { end, overdue: false };
                self.deadline = Some(now.after_nanos(self.serving.close_nanos));
            }
        }
        self.dirty = true;
    }

    fn timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.deadline = None;
        match &mut self.phase {
            Phase::Waiting => {
                let waited_nanos = now.0.saturating_sub(self.waiting_since.0);
                let error = HandshakeError::Deadline(Patience {
                    device: self.serving.device.clone(),
                    culprit: format!(
                        "its hotplug script has not written connected into {}",
                        self.serving.path("hotplug-status")
                    ),
                    waited_nanos,
                    unmoved_nanos: waited_nanos,
                });
                self.close(now, Some(Err(error)));
            }
            Phase::Closing { overdue, .. } => {
                // Without the frontend, then: only XenStore is waited for.
                *overdue = true;
                self.dirty = true;
            }
            _ => {}
        }
    }

    fn disconnect(&mut self, reason: Reason) {
        if self.phase == Phase::Connected {
            self.commands.push_back(Command::Disconnect(reason));
            self.phase = Phase::Starting;
        }
    }

    fn release(&mut self) {
        if self.rings {
            self.commands.push_back(Command::Release);
        }
        self.rings = false;
        self.settings = None;
    }

    fn finish(&mut self, verdict: Result<Ending, HandshakeError>) {
        if self.pending == Pending::Rings {
            // The answer is near, and rings must not be left behind: `rings_made` comes here again.
            self.phase = Phase::Closing { end: Some(verdict), overdue: true };
            return;
        }
        self.release();
        self.commands.extend(OWN_KEYS.map(|key| Command::Unwatch(self.serving.path(key))));
        if let Some(peer) = &self.peer {
            self.commands.push_back(Command::Unwatch(format!("{}/state", peer.path)));
        }
        self.commands.push_back(Command::Ended(verdict));
        self.phase = Phase::Ended;
        self.pending = Pending::Nothing;
        self.deadline = None;
    }

    fn resumed(&mut self, now: Instant) {
        self.disconnect(Reason::Resumed);
        self.release();
        self.pending = match self.pending {
            Pending::Nothing => Pending::Nothing,
            Pending::Rings => Pending::Rings,
            _ => Pending::Void,
        };
        if let Phase::Closing { end: Some(verdict), .. } = &self.phase {
            let verdict = verdict.clone();
            return self.finish(verdict);
        }
        self.phase = Phase::Starting;
        self.waiting_since = now;
        self.met = false;
        self.deadline = None;
        self.dirty = true;
    }

    // Small things.

    fn peer_path(&self) -> String {
        self.peer.as_ref().map(|peer| peer.path.clone()).unwrap_or_default()
    }

    fn path_of(&self, key: &Key) -> String {
        match key {
            Key::Ours(name) => self.serving.path(name),
            Key::Theirs(name) => format!("{}/{name}", self.peer_path()),
            Key::TheirsNumbered(name, number) => format!("{}/{name}{number}", self.peer_path()),
        }
    }
}

impl<P: BackendProtocol> Handshake for Backend<P> {
    type Wanted = P::Offered;
    type Made = ();
    type Settings = P::Settings;

    fn handle(&mut self, now: Instant, input: Input<()>) {
        if self.phase == Phase::Ended {
            return;
        }
        match input {
            Input::Fired => self.dirty = true,
            Input::Values(values) => {
                match core::mem::replace(&mut self.pending, Pending::Nothing) {
                    Pending::Look => self.looked(now, values),
                    Pending::Request if self.phase == Phase::Waiting => self.accept(now, values),
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
            Input::Close => self.close(now, Some(Ok(Ending::Closed))),
            Input::Fault(what) => {
                let peer = self.peer_path();
                self.refuse(now, HandshakeError::Fault { peer, what });
            }
            Input::Resumed => self.resumed(now),
        }
        self.look();
    }

    fn poll_command(&mut self) -> Option<Command<P::Offered, P::Settings>> {
        self.commands.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    fn device(&self) -> Option<&str> {
        Some(&self.serving.device)
    }

    fn state(&self) -> String {
        let device = &self.serving.device;
        let peer = match (&self.peer, self.view.peer_state) {
            (None, _) => String::from("no frontend yet"),
            (Some(peer), None) => format!("frontend {} without a state", peer.path),
            (Some(peer), Some(state)) => format!("frontend {} {state}", peer.path),
        };
        let phase = match self.phase {
            Phase::Starting => "starts",
            Phase::Waiting if self.deadline.is_some() => "waits for its hotplug script",
            Phase::Waiting => "waits for the frontend's rings",
            Phase::Attaching => "maps the frontend's rings",
            Phase::Connected => "is connected",
            Phase::Closing { .. } => "is closing",
            Phase::Idle => "waits for the frontend to begin again",
            Phase::Ended => "has ended",
        };
        format!("{device} {phase}; {peer}")
    }
}
