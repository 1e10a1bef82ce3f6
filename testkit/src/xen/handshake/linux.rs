//! Linux's drivers, as far as a handshake sees them.
//!
//! Written from their behaviour: netback's and blkback's `frontend_changed`, netfront's and blkfront's
//! `netback_changed` and `blkback_changed`, and what they do when they are unloaded or restarted. All
//! that they do happens on one thread (xenwatch), so that an event is looked at when everything that
//! the last one led to is done; and each write is a step of its own.

use super::actor::{Act, Actor, Condition, Shared, concerns};
use super::driven::shorten;
use fata_xenbus::handshake::XenbusState;
use std::collections::VecDeque;

/// Which kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// netfront, netback.
    Net,
    /// blkfront, blkback.
    Block,
}

impl Kind {
    /// What a backend needs of its hotplug script: a key, and what it must hold.
    pub(super) fn hotplug(self) -> (&'static str, &'static str) {
        match self {
            Kind::Net => ("hotplug-status", "connected"),
            Kind::Block => ("physical-device", "7:0"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Todo {
    /// What it can do, before InitWait.
    Features,
    /// The state key.
    State(XenbusState),
    /// Reads where the rings are and maps them; then waits for the script.
    Map,
    /// Lets go of the rings.
    Unmap,
    /// Says Connected, if the script is done (blkback: with the disk's properties).
    Announce,
    /// Is no more.
    Unregister,
    /// Makes rings, having read what the backend can do.
    Grant,
    /// Where the rings are.
    Publish,
    /// Takes the rings back.
    Revoke,
    /// Puts its first frame or request on the ring.
    Transmit,
}

/// netback or blkback.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinuxBackend {
    kind: Kind,
    directory: &'static str,
    frontend: &'static str,
    probed: bool,
    /// The device is unregistered, the driver unloaded, or the domain dead.
    gone: bool,
    /// `be->state` of netback, `dev->state` of blkback.
    state: XenbusState,
    /// Connected as soon as the script is done.
    deferred: bool,
    todo: VecDeque<Todo>,
    fired: u8,
    /// The watch of its hotplug script has fired.
    script: bool,
    mapped: Option<u32>,
    /// It says Connected, and takes what is on the ring.
    listening: bool,
}

impl LinuxBackend {
    /// The backend of `directory`, before its driver is loaded.
    pub fn new(kind: Kind, directory: &'static str, frontend: &'static str) -> Self {
        LinuxBackend {
            kind,
            directory,
            frontend,
            probed: false,
            gone: false,
            state: XenbusState::Initialising,
            deferred: false,
            todo: VecDeque::new(),
            fired: 0,
            script: false,
            mapped: None,
            listening: false,
        }
    }

    fn go(&mut self, state: XenbusState) {
        if self.state == state {
            return;
        }
        self.state = state;
        // As long as the script is waited for, netback keeps its state to itself. blkback does not, and
        // is Connected when the script is done, though it was Closing.
        if !self.deferred || self.kind == Kind::Block {
            self.todo.push_back(Todo::State(state));
        }
    }

    fn disconnect(&mut self) {
        self.deferred = false;
        self.todo.push_back(Todo::Unmap);
    }

    /// `set_backend_state` of netback: the way from one state to another.
    fn set_net(&mut self, wanted: XenbusState) {
        use XenbusState::{Closed, Closing, Connected, InitWait, Initialising};
        while self.state != wanted {
            match (self.state, wanted) {
                (Initialising, InitWait | Connected | Closing) => self.go(InitWait),
                (Initialising, _) => self.go(Closed),
                (Closed, InitWait | Connected) => self.go(InitWait),
                (Closed, _) => self.go(Closing),
                (InitWait, Connected) => {
                    self.todo.push_back(Todo::Map);
                    self.state = Connected;
                    self.deferred = true;
                    self.todo.push_back(Todo::Announce);
                }
                (InitWait, _) => self.go(Closing),
                (Connected, _) => {
                    self.disconnect();
                    self.go(Closing);
                }
                _ => self.go(Closed),
            }
        }
    }

    fn frontend_changed(&mut self, state: XenbusState, online: bool) {
        use XenbusState::{
            Closed, Closing, Connected, InitWait, Initialised, Initialising, Unknown,
        };
        match (self.kind, state) {
            (Kind::Net, Initialising) => self.set_net(InitWait),
            (Kind::Net, Connected) => self.set_net(Connected),
            (Kind::Net, Closing) => self.set_net(Closing),
            (Kind::Net, Closed) => self.set_net(Closed),
            (Kind::Block, Initialising) if self.state == Closed => self.go(InitWait),
            (Kind::Block, Initialised | Connected) if self.state != Connected => {
                self.disconnect();
                self.todo.push_back(Todo::Map);
                self.deferred = true;
                self.todo.push_back(Todo::Announce);
            }
            (Kind::Block, Closing) => self.go(Closing),
            (Kind::Block, Closed) => {
                self.disconnect();
                self.go(Closed);
            }
            _ => {}
        }
        if state == Unknown || (state == Closed && !online) {
            if self.kind == Kind::Net {
                self.set_net(Closed);
            } else {
                self.disconnect();
            }
            self.todo.push_back(Todo::Unregister);
        }
    }

    fn fire(&mut self, shared: &Shared) {
        let key = |name: &str| format!("{}/{name}", self.directory);
        let state = shared.registry.state(self.frontend).unwrap_or(XenbusState::Unknown);
        let online = shared.registry.get(&key("online")) != Some(b"0");
        self.frontend_changed(state, online);
    }

    fn next(&mut self, shared: &mut Shared) {
        let Some(todo) = self.todo.pop_front() else { return };
        let key = |name: &str| format!("{}/{name}", self.directory);
        let registry = &mut shared.registry;
        // A directory that was removed is not written to: xenbus_switch_state looks first.
        let there = registry.get(&key("state")).is_some();
        match todo {
            Todo::Features if self.kind == Kind::Net && there => {
                for (name, value) in [("feature-rx-copy", "1"), ("feature-sg", "1")] {
                    registry.set(&key(name), value);
                }
                registry.set(&key("feature-split-event-channels"), "1");
            }
            Todo::Features => {}
            Todo::State(state) => {
                if there {
                    registry.set(&key("state"), state.as_bytes());
                }
                if state != XenbusState::Connected {
                    self.listening = false;
                }
            }
            Todo::Map => {
                let ring = |name: &str| registry.number(&format!("{}/{name}", self.frontend));
                let number = match self.kind {
                    Kind::Net => ring("tx-ring-ref"),
                    Kind::Block => ring("ring-ref").or_else(|| ring("ring-ref0")),
                };
                let mapped = number.ok_or_else(String::new).and_then(|n| shared.wire.map(n));
                match mapped {
                    Ok(number) => self.mapped = Some(number),
                    Err(_) => {
                        // xenbus_dev_fatal
                        self.deferred = false;
                        self.todo.clear();
                        self.state = XenbusState::Connected;
                        self.go(XenbusState::Closing);
                    }
                }
            }
            Todo::Unmap => {
                if let Some(number) = self.mapped.take() {
                    shared.wire.ring(number).mapped = false;
                }
                self.listening = false;
            }
            Todo::Announce => {
                let (name, value) = self.kind.hotplug();
                let ready = registry.get(&key(name)) == Some(value.as_bytes());
                if let (true, true, true, Some(number)) = (ready, self.deferred, there, self.mapped)
                {
                    self.deferred = false;
                    self.state = XenbusState::Connected;
                    if self.kind == Kind::Block {
                        for (name, value) in
                            [("sectors", "8"), ("sector-size", "512"), ("info", "0")]
                        {
                            registry.set(&key(name), value);
                        }
                    }
                    registry.set(&key("state"), XenbusState::Connected.as_bytes());
                    self.listening = true;
                    let ring = shared.wire.ring(number);
                    // What was put on the ring while it was away, after it had listened, is still there.
                    ring.delivered |= ring.listened && std::mem::take(&mut ring.posted);
                    ring.listened = true;
                }
            }
            Todo::Unregister => self.gone = true,
            Todo::Grant | Todo::Publish | Todo::Revoke | Todo::Transmit => {}
        }
    }
}

impl Actor for LinuxBackend {
    fn acts(&self, shared: &Shared, acts: &mut Vec<Act>) {
        let there = shared.registry.state(self.directory).is_some();
        if !self.todo.is_empty() && !self.gone {
            acts.push(Act::Next);
            return;
        }
        if self.gone || !there {
            return;
        }
        if !self.probed {
            // The bus looks for the other end first (`read_otherend_details`).
            let known = |key| shared.registry.get(&format!("{}/{key}", self.directory)).is_some();
            let front = shared.registry.state(self.frontend).is_some();
            if known("frontend") && known("frontend-id") && front {
                acts.push(Act::Probe);
            }
            return;
        }
        if self.script {
            acts.push(Act::Script);
        }
        if self.fired > 0 {
            acts.push(Act::Fire);
        } else if shared.budgets.strays > 0 {
            acts.push(Act::Stray);
        }
        if shared.budgets.give_ups > 0 {
            acts.push(Act::GiveUp);
        }
        if shared.budgets.drops > 0 {
            acts.push(Act::Drop);
        }
        if shared.budgets.reloads > 0 {
            acts.push(Act::Reload);
        }
    }

    fn act(&mut self, act: Act, shared: &mut Shared) -> Result<(), String> {
        match act {
            Act::Probe => {
                self.probed = true;
                self.state = XenbusState::Initialising;
                self.todo.push_back(Todo::Features);
                self.go(XenbusState::InitWait);
                self.fired = 1;
            }
            Act::Next => self.next(shared),
            Act::Script => {
                self.script = false;
                if self.deferred {
                    self.todo.push_back(Todo::Announce);
                }
            }
            Act::Fire => {
                self.fired -= 1;
                self.fire(shared);
            }
            Act::Stray => {
                shared.budgets.strays -= 1;
                self.fire(shared);
            }
            Act::GiveUp | Act::Drop => {
                match act {
                    Act::GiveUp => shared.budgets.give_ups -= 1,
                    _ => shared.budgets.drops -= 1,
                }
                shared.excused = true;
                self.disconnect();
                self.go(match act {
                    Act::GiveUp => XenbusState::Closing,
                    _ => XenbusState::Closed,
                });
            }
            Act::Reload => {
                shared.budgets.reloads -= 1;
                shared.excused = true;
                self.disconnect();
                self.go(XenbusState::Closing);
                self.go(XenbusState::Closed);
                // Unloaded; loaded again, it probes when it is done with this.
                self.probed = false;
                while !self.todo.is_empty() {
                    self.next(shared);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn changed(&mut self, path: &str, below: bool, events_max: u8) {
        if !self.probed || self.gone {
            return;
        }
        if below && concerns(path, self.directory, false) {
            self.todo = VecDeque::from([Todo::Unmap, Todo::Unregister]);
            return;
        }
        let (hotplug, _) = self.kind.hotplug();
        if concerns(&format!("{}/state", self.frontend), path, below) {
            self.fired = (self.fired + 1).min(events_max);
        }
        self.script |= concerns(&format!("{}/{hotplug}", self.directory), path, below);
    }

    fn condition(&self) -> Condition {
        match self.mapped {
            _ if self.gone => Condition::Ended(None),
            Some(ring) if self.listening => Condition::Live(ring),
            _ if self.deferred => Condition::Abstains,
            _ => Condition::Wants(format!("{:?} is {}", self.kind, self.state)),
        }
    }

    fn describe(&self, act: Act) -> String {
        let name = match self.kind {
            Kind::Net => "netback",
            Kind::Block => "blkback",
        };
        match act {
            Act::Probe => format!("{name}'s driver finds the device"),
            Act::Fire => format!("{name} is told by a watch to look again"),
            Act::Script => format!("{name} learns that its hotplug script is done"),
            Act::Stray => format!("{name} is told by a watch that has nothing to tell"),
            Act::Next => match self.todo.front() {
                Some(Todo::Features) => format!("{name} writes what it can do"),
                Some(Todo::State(state)) => format!("{name} writes state = {state}"),
                Some(Todo::Map) => format!("{name} maps the frontend's rings"),
                Some(Todo::Unmap) => format!("{name} unmaps the frontend's rings"),
                Some(Todo::Announce) => {
                    format!("{name} writes state = Connected, if its hotplug script is done")
                }
                Some(Todo::Unregister) => format!("{name} unregisters the device"),
                other => format!("{name}: {other:?}"),
            },
            Act::GiveUp => format!("{name} fails, and goes to Closing"),
            Act::Drop => format!("{name} goes straight to Closed"),
            Act::Reload => format!("{name}'s driver is unloaded"),
            other => format!("{name}: {other:?}"),
        }
    }

    fn destroy(&mut self, shared: &mut Shared) {
        if let Some(number) = self.mapped.take() {
            shared.wire.ring(number).mapped = false;
        }
        self.listening = false;
        self.gone = true;
        self.todo.clear();
    }
}

/// What a frontend is in the middle of, when it is not simply following the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Errand {
    None,
    /// Unloading: wait for the backend's Closing, then for its Closed.
    Leave,
    /// A new kernel finds what an old one has left (`xenbus_reset_frontend`).
    Reset,
}

/// netfront or blkfront.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinuxFrontend {
    kind: Kind,
    directory: &'static str,
    probed: bool,
    gone: bool,
    state: XenbusState,
    errand: Errand,
    todo: VecDeque<Todo>,
    fired: u8,
    ring: Option<u32>,
    live: bool,
}

impl LinuxFrontend {
    /// The frontend of `directory`, before its kernel has booted.
    pub fn new(kind: Kind, directory: &'static str) -> Self {
        LinuxFrontend {
            kind,
            directory,
            probed: false,
            gone: false,
            state: XenbusState::Initialising,
            errand: Errand::None,
            todo: VecDeque::new(),
            fired: 0,
            ring: None,
            live: false,
        }
    }

    fn backend(&self, shared: &Shared) -> Option<String> {
        let path = shared.registry.get(&format!("{}/backend", self.directory))?;
        String::from_utf8(path.to_vec()).ok()
    }

    fn backend_state(&self, shared: &Shared) -> XenbusState {
        self.backend(shared)
            .and_then(|path| shared.registry.state(&path))
            .unwrap_or(XenbusState::Unknown)
    }

    fn go(&mut self, state: XenbusState) {
        if self.state != state {
            self.state = state;
            self.todo.push_back(Todo::State(state));
        }
    }

    fn backend_changed(&mut self, state: XenbusState) {
        use XenbusState::{
            Closed, Closing, Connected, InitWait, Initialised, Initialising, Unknown,
        };
        match (self.errand, state) {
            (Errand::Leave, Closing) if matches!(self.state, Closing | Closed) => self.go(Closed),
            (Errand::Leave, Closed | Unknown) => {
                self.go(Closed);
                self.todo.push_back(Todo::Revoke);
                self.todo.push_back(Todo::Unregister);
            }
            (Errand::Leave, InitWait | Initialising) => {
                self.go(Closed);
                self.todo.push_back(Todo::Revoke);
                self.todo.push_back(Todo::Unregister);
            }
            (Errand::Leave, _) => self.go(Closing),
            (Errand::Reset, Initialised | Connected) => self.go(Closing),
            (Errand::Reset, Closing) => self.go(Closed),
            (Errand::Reset, _) => {
                self.errand = Errand::None;
                // Written even if it is what is there: the backend must be told.
                self.state = Initialising;
                self.todo.push_back(Todo::State(Initialising));
                self.fired = self.fired.max(1);
            }
            (Errand::None, InitWait) if self.state == Initialising => {
                self.todo.extend([Todo::Grant, Todo::Publish]);
                match self.kind {
                    Kind::Net => {
                        self.go(Connected);
                        // Its queues are on from here: it does not wait either.
                        self.todo.push_back(Todo::Transmit);
                    }
                    Kind::Block => self.go(Initialised),
                }
            }
            (Errand::None, Connected) if self.kind == Kind::Block && self.state == Initialised => {
                self.go(Connected);
                self.todo.push_back(Todo::Transmit);
            }
            (Errand::None, Closing | Closed) if !matches!(self.state, Closed | Initialising) => {
                self.todo.push_back(Todo::Revoke);
                self.go(Closed);
            }
            (Errand::None, Closing) => self.go(Closed),
            _ => {}
        }
    }

    fn next(&mut self, shared: &mut Shared) {
        let Some(todo) = self.todo.pop_front() else { return };
        let key = |name: &str| format!("{}/{name}", self.directory);
        let there = shared.registry.get(&key("state")).is_some();
        match todo {
            Todo::State(state) if there => shared.registry.set(&key("state"), state.as_bytes()),
            Todo::Grant => {
                self.ring = Some(shared.wire.grant());
            }
            Todo::Publish if there => {
                let number = self.ring.unwrap_or_default().to_string();
                let names: &[&str] = match self.kind {
                    Kind::Net => &["tx-ring-ref", "rx-ring-ref", "event-channel"],
                    Kind::Block => &["ring-ref", "event-channel"],
                };
                for name in names {
                    shared.registry.set(&key(name), &number);
                }
                if self.kind == Kind::Net {
                    for name in ["request-rx-copy", "feature-rx-notify", "feature-sg"] {
                        shared.registry.set(&key(name), "1");
                    }
                }
            }
            Todo::Transmit => {
                self.live = true;
                if let Some(number) = self.ring {
                    let ring = shared.wire.ring(number);
                    match ring.mapped && ring.listened {
                        true => ring.delivered = true,
                        false => ring.posted = true,
                    }
                }
            }
            Todo::Revoke => {
                if let Some(number) = self.ring.take() {
                    shared.wire.ring(number).granted = false;
                }
                self.live = false;
            }
            Todo::Unregister => self.gone = true,
            _ => {}
        }
    }
}

impl Actor for LinuxFrontend {
    fn acts(&self, shared: &Shared, acts: &mut Vec<Act>) {
        let there = shared.registry.state(self.directory).is_some();
        if shared.budgets.crashes > 0 && self.probed && there {
            acts.push(Act::Crash);
        }
        if !self.todo.is_empty() && !self.gone {
            acts.push(Act::Next);
            return;
        }
        if self.gone || !there {
            return;
        }
        if !self.probed {
            let known = |key| shared.registry.get(&format!("{}/{key}", self.directory)).is_some();
            let back =
                self.backend(shared).is_some_and(|path| shared.registry.state(&path).is_some());
            if known("backend-id") && back {
                acts.push(Act::Probe);
            }
            return;
        }
        if self.fired > 0 {
            acts.push(Act::Fire);
        } else if shared.budgets.strays > 0 {
            acts.push(Act::Stray);
        }
        if shared.budgets.closes > 0 && self.errand == Errand::None {
            acts.push(Act::Close);
        }
    }

    fn act(&mut self, act: Act, shared: &mut Shared) -> Result<(), String> {
        match act {
            Act::Probe => {
                self.probed = true;
                self.fired = 1;
                let left = shared.registry.state(self.directory);
                if left.is_some_and(|state| state != XenbusState::Initialising) {
                    self.errand = Errand::Reset;
                    self.state = left.unwrap_or(XenbusState::Unknown);
                }
            }
            Act::Next => self.next(shared),
            Act::Fire => {
                self.fired -= 1;
                self.backend_changed(self.backend_state(shared));
            }
            Act::Stray => {
                shared.budgets.strays -= 1;
                self.backend_changed(self.backend_state(shared));
            }
            Act::Close => {
                shared.budgets.closes -= 1;
                shared.excused = true;
                self.errand = Errand::Leave;
                self.backend_changed(self.backend_state(shared));
            }
            Act::Crash => {
                shared.budgets.crashes -= 1;
                shared.excused = true;
                self.destroy(shared);
                *self = LinuxFrontend::new(self.kind, self.directory);
            }
            _ => {}
        }
        Ok(())
    }

    fn changed(&mut self, path: &str, below: bool, events_max: u8) {
        if below && concerns(path, self.directory, false) {
            if self.probed && !self.gone {
                self.todo = VecDeque::from([Todo::Revoke, Todo::Unregister]);
            }
            return;
        }
        // The backend's state, wherever that is: a model has no other directory that ends so.
        let backend = path.contains("/backend/") && (below || path.ends_with("/state"));
        if self.probed && !self.gone && backend {
            self.fired = (self.fired + 1).min(events_max);
        }
    }

    fn condition(&self) -> Condition {
        match self.ring {
            _ if self.gone => Condition::Ended(None),
            Some(ring) if self.live => Condition::Live(ring),
            // It follows the backend to Closed, and stays there.
            _ if self.state == XenbusState::Closed && self.errand == Errand::None => {
                Condition::Abstains
            }
            _ => Condition::Wants(format!("{:?} frontend is {}", self.kind, self.state)),
        }
    }

    fn describe(&self, act: Act) -> String {
        let name = match self.kind {
            Kind::Net => "Linux's netfront",
            Kind::Block => "Linux's blkfront",
        };
        match act {
            Act::Probe => format!("{name} finds {}", shorten(self.directory)),
            Act::Fire => format!("{name} is told by a watch to look again"),
            Act::Stray => format!("{name} is told by a watch that has nothing to tell"),
            Act::Next => match self.todo.front() {
                Some(Todo::State(state)) => format!("{name} writes state = {state}"),
                Some(Todo::Grant) => format!("{name} makes its rings"),
                Some(Todo::Publish) => format!("{name} writes where its rings are"),
                Some(Todo::Transmit) => format!("{name} transmits"),
                Some(Todo::Revoke) => format!("{name} takes its rings back"),
                other => format!("{name}: {other:?}"),
            },
            Act::Close => format!("{name} is unloaded"),
            Act::Crash => format!("{name}'s domain crashes and boots again"),
            other => format!("{name}: {other:?}"),
        }
    }

    fn destroy(&mut self, shared: &mut Shared) {
        if let Some(number) = self.ring.take() {
            shared.wire.ring(number).granted = false;
        }
        self.live = false;
        self.gone = true;
        self.todo.clear();
    }
}
