//! QEMU's console backend, as far as a handshake sees it.
//!
//! Consoles beyond the first are QEMU's (`xen-console`), whose backends are driven by one function that
//! looks at both states and does what can be done, again and again (`xen_be_check_state` of its
//! hw/xen). All of it happens on one thread; each write is a step of its own. Beside the frontend's
//! directory QEMU watches its own, and so hears of what it writes itself.

use super::actor::{Act, Actor, Condition, Shared, concerns};
use fata_xenbus::handshake::XenbusState;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Todo {
    /// Looks at both states, and decides what comes next.
    Check,
    /// Writes the state key.
    State(XenbusState),
    /// Reads the frontend's state for the first time.
    Meet,
    /// Reads where the ring is, maps it, and is Connected if that worked.
    Map,
    /// Its directory is gone: so is the device.
    Remove,
}

/// The backend of a console in QEMU.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QemuConsole {
    directory: &'static str,
    frontend: &'static str,
    /// Its own state, as it remembers it; Unknown before it has found the device.
    state: XenbusState,
    /// The frontend's state, as it was when QEMU was told last.
    peer: XenbusState,
    /// Its watch on the frontend is set.
    watching: bool,
    gone: bool,
    todo: VecDeque<Todo>,
    /// Events of the frontend's directory.
    fired: u8,
    /// An event of its own directory.
    own: bool,
    mapped: Option<u32>,
}

impl QemuConsole {
    /// The backend of `directory`, before it has heard of the device.
    pub fn new(directory: &'static str, frontend: &'static str) -> Self {
        QemuConsole {
            directory,
            frontend,
            state: XenbusState::Unknown,
            peer: XenbusState::Unknown,
            watching: false,
            gone: false,
            todo: VecDeque::new(),
            fired: 0,
            own: false,
            mapped: None,
        }
    }

    fn unmap(&mut self, shared: &mut Shared) {
        if let Some(number) = self.mapped.take() {
            shared.wire.ring(number).mapped = false;
        }
    }

    /// `xen_be_check_state`: one turn of its loop.
    fn check(&mut self, shared: &mut Shared) {
        use XenbusState::{
            Closed, Closing, Connected, InitWait, Initialised, Initialising, Unknown,
        };
        if let Closing | Closed = self.peer {
            self.unmap(shared);
            if self.state != self.peer {
                self.todo.push_back(Todo::State(self.peer));
            }
            return;
        }
        match self.state {
            Unknown => {
                let own = shared.registry.state(self.directory);
                let named = shared.registry.get(&format!("{}/frontend", self.directory)).is_some();
                if own == Some(Initialising) && named {
                    self.watching = true;
                    self.todo.extend([Todo::State(Initialising), Todo::Meet, Todo::Check]);
                }
            }
            Initialising => self.todo.extend([Todo::State(InitWait), Todo::Check]),
            InitWait if matches!(self.peer, Initialised | Connected) => {
                self.todo.push_back(Todo::Map);
            }
            Closed if self.peer == Initialising => {
                self.todo.extend([Todo::State(Initialising), Todo::Check]);
            }
            _ => {}
        }
    }

    fn next(&mut self, shared: &mut Shared) {
        let Some(todo) = self.todo.pop_front() else { return };
        match todo {
            Todo::Check => self.check(shared),
            Todo::State(state) => {
                self.state = state;
                shared.registry.set(&format!("{}/state", self.directory), state.as_bytes());
            }
            Todo::Meet => self.meet(shared),
            Todo::Remove => self.destroy(shared),
            Todo::Map => {
                let number = shared.registry.number(&format!("{}/ring-ref", self.frontend));
                let mapped = number.ok_or_else(String::new).and_then(|n| shared.wire.map(n));
                // If not, it stays in InitWait, and tries again when something changes.
                if let Ok(number) = mapped {
                    self.mapped = Some(number);
                    let ring = shared.wire.ring(number);
                    ring.listened = true;
                    ring.delivered |= std::mem::take(&mut ring.posted);
                    self.todo.push_back(Todo::State(XenbusState::Connected));
                }
            }
        }
    }

    fn meet(&mut self, shared: &Shared) {
        self.peer = shared.registry.state(self.frontend).unwrap_or(XenbusState::Unknown);
    }
}

impl Actor for QemuConsole {
    fn acts(&self, shared: &Shared, acts: &mut Vec<Act>) {
        if !self.todo.is_empty() {
            acts.push(Act::Next);
            return;
        }
        if self.gone || shared.registry.state(self.directory).is_none() {
            return;
        }
        if self.fired > 0 {
            acts.push(Act::Fire);
        } else if shared.budgets.strays > 0 && self.watching {
            acts.push(Act::Stray);
        }
        if self.own {
            acts.push(Act::Script);
        }
    }

    fn act(&mut self, act: Act, shared: &mut Shared) -> Result<(), String> {
        match act {
            Act::Next => self.next(shared),
            Act::Script => {
                self.own = false;
                self.todo.push_back(Todo::Check);
            }
            Act::Fire | Act::Stray => {
                match act {
                    Act::Fire => self.fired -= 1,
                    _ => shared.budgets.strays -= 1,
                }
                self.meet(shared);
                self.todo.push_back(Todo::Check);
            }
            _ => {}
        }
        Ok(())
    }

    fn changed(&mut self, path: &str, below: bool, events_max: u8) {
        if self.gone {
            return;
        }
        if below && concerns(path, self.directory, false) {
            self.todo = VecDeque::from([Todo::Remove]);
            return;
        }
        self.own |= concerns(self.directory, path, below);
        if self.watching && concerns(&format!("{}/state", self.frontend), path, below) {
            self.fired = (self.fired + 1).min(events_max);
        }
    }

    fn condition(&self) -> Condition {
        match self.mapped {
            _ if self.gone => Condition::Ended(None),
            Some(ring) if self.state == XenbusState::Connected => Condition::Live(ring),
            _ => Condition::Wants(format!("QEMU's console is {}", self.state)),
        }
    }

    fn describe(&self, act: Act) -> String {
        match (act, self.todo.front()) {
            (Act::Fire, _) => "QEMU is told by a watch to look at the frontend".into(),
            (Act::Script, _) => "QEMU is told by the watch of its own directory".into(),
            (Act::Stray, _) => "QEMU is told by a watch that has nothing to tell".into(),
            (Act::Next, Some(Todo::Check)) => "QEMU looks at both states".into(),
            (Act::Next, Some(Todo::State(state))) => format!("QEMU writes state = {state}"),
            (Act::Next, Some(Todo::Map)) => "QEMU maps the console's ring".into(),
            (Act::Next, Some(Todo::Remove)) => "QEMU removes the console".into(),
            (Act::Next, Some(Todo::Meet)) => "QEMU reads the frontend's state".into(),
            (other, _) => format!("QEMU: {other:?}"),
        }
    }

    fn destroy(&mut self, shared: &mut Shared) {
        self.unmap(shared);
        self.gone = true;
        self.todo.clear();
    }
}
