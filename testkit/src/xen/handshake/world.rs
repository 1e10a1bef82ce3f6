//! Both ends, the toolstack, and what must hold.

use super::actor::{Act, Actor, Budgets, Condition, Shared, UnderWay};
use super::linux::Kind;
use super::registry::{Grain, Registry, Wire};
use crate::xen::explore::Model;
use fata_xenbus::Instant;
use std::hash::Hash;

/// Where things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Names {
    /// The frontend's directory.
    pub frontend: &'static str,
    /// The backend's directory, and that of the backend that may take its place.
    pub backends: [&'static str; 2],
}

impl Names {
    /// The frontend's domain's own directory.
    pub const FRONTEND_HOME: &'static str = "/local/domain/3/";
    /// The backend's domain's own directory.
    pub const BACKEND_HOME: &'static str = "/local/domain/0/";
    /// That of the domain that may take its place.
    pub const SECOND_HOME: &'static str = "/local/domain/7/";

    /// The first network interface of domain 3.
    pub const VIF: Names = Names {
        frontend: "/local/domain/3/device/vif/0",
        backends: ["/local/domain/0/backend/vif/3/0", "/local/domain/7/backend/vif/3/0"],
    };

    /// Its first disk.
    pub const VBD: Names = Names {
        frontend: "/local/domain/3/device/vbd/51712",
        backends: ["/local/domain/0/backend/vbd/3/51712", "/local/domain/7/backend/vbd/3/51712"],
    };

    /// Its second console.
    pub const CONSOLE: Names = Names {
        frontend: "/local/domain/3/device/console/1",
        backends: ["/local/domain/0/backend/console/3/1", "/local/domain/7/backend/console/3/1"],
    };
}

/// What may happen in a world.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Which device.
    pub names: Names,
    /// Its kind, for what the hotplug script writes.
    pub kind: Kind,
    /// A script must make the device reachable, and does, late.
    pub hotplug: bool,
    /// The toolstack writes its keys one by one, in any order, and not in one transaction.
    pub key_by_key: bool,
    /// How reads are cut.
    pub grain: Grain,
    /// Faults.
    pub budgets: Budgets,
    /// The frontend's domain may be destroyed.
    pub front_deaths: u8,
    /// What a suspension is, if one may happen.
    pub suspension: Suspension,
    /// Events of watches that wait for one end; more are one. 2 also lets an event be late; 1 makes
    /// the models of faults small enough.
    pub events_max: u8,
}

impl Scenario {
    /// Nothing goes wrong, and the script is late.
    pub fn plain(names: Names, kind: Kind) -> Self {
        Scenario {
            names,
            kind,
            hotplug: true,
            key_by_key: false,
            grain: Grain::Directory,
            budgets: Budgets::default(),
            front_deaths: 0,
            suspension: Suspension::GoesOn,
            events_max: 2,
        }
    }
}

/// What becomes of a domain that is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suspension {
    /// The frontend's domain is saved and restored, here or on another host: all keys are new, and so
    /// is the backend, in the directory of that number.
    Restored(usize),
    /// The frontend's domain goes on where it was (`xl save -c`, or a save that failed), and its
    /// backend has noticed nothing.
    GoesOn,
    /// The same of the backend's domain.
    BackendGoesOn,
}

/// What the toolstack does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Writes the device's keys: all, or the one of this number.
    Create(Option<usize>),
    /// Writes those of them that nobody waits for.
    Begin,
    /// The hotplug script is done.
    Hotplug,
    /// Begins to detach the device: `online` is 0, the backend's state Closing.
    Detach,
    /// Removes the directories of a device that is detached, when the backend is Closed.
    Remove,
    /// The backend's domain dies, and its directory with it.
    Death,
    /// The toolstack names another backend.
    Replace,
    /// The frontend's domain is destroyed.
    DestroyFrontend,
    /// A domain is suspended, and goes on.
    Suspend(UnderWay),
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Of the frontend.
    Front(Act),
    /// Of the backend.
    Back(Act),
    /// Of the toolstack.
    Tool(Tool),
}

/// A device, from `xl create` to its end.
#[derive(Clone, Hash)]
pub struct World<F: Actor, B: Actor> {
    names: Names,
    kind: Kind,
    shared: Shared,
    front: F,
    back: B,
    /// The backend that may take the first one's place.
    spare: Option<B>,
    /// Keys that are still to be written.
    to_create: Vec<(String, String)>,
    key_by_key: bool,
    hotplug: bool,
    replaced: bool,
    detaching: bool,
    front_deaths: u8,
    suspension: Suspension,
    events_max: u8,
}

impl<F: Actor, B: Actor> World<F, B> {
    /// Before anything has happened.
    pub fn new(scenario: &Scenario, front: F, back: B, spare: Option<B>) -> Self {
        let names = scenario.names;
        World {
            names,
            kind: scenario.kind,
            shared: Shared {
                registry: Registry::default(),
                wire: Wire::default(),
                now: Instant(0),
                budgets: scenario.budgets,
                grain: scenario.grain,
                excused: false,
            },
            front,
            back,
            spare,
            to_create: Self::keys(&names, names.backends[0]),
            key_by_key: scenario.key_by_key,
            hotplug: scenario.hotplug,
            replaced: false,
            detaching: false,
            front_deaths: scenario.front_deaths,
            suspension: scenario.suspension,
            events_max: scenario.events_max,
        }
    }

    /// The frontend.
    pub fn front(&self) -> &F {
        &self.front
    }

    /// The backend.
    pub fn back(&self) -> &B {
        &self.back
    }

    fn keys(names: &Names, backend: &str) -> Vec<(String, String)> {
        let domain = if backend == names.backends[0] { "0" } else { "7" };
        let front = |key: &str, value: &str| (format!("{}/{key}", names.frontend), value.into());
        let mut keys = vec![front("mac", "00:16:3e:00:00:01"), front("state", "1")];
        keys.extend([front("backend", backend), front("backend-id", domain)]);
        keys.extend(Self::backend_keys(names, backend));
        keys
    }

    fn backend_keys(names: &Names, directory: &str) -> Vec<(String, String)> {
        let back = |key: &str, value: &str| (format!("{directory}/{key}"), value.into());
        vec![
            back("mac", "00:16:3e:00:00:01"),
            back("online", "1"),
            back("state", "1"),
            back("frontend", names.frontend),
            back("frontend-id", "3"),
        ]
    }

    fn backend_directory(&self) -> &'static str {
        self.names.backends[usize::from(self.replaced)]
    }

    fn tools(&self, steps: &mut Vec<Step>) {
        let backend = self.shared.registry.state(self.backend_directory());
        let mut push = |tool| steps.push(Step::Tool(tool));
        match (self.to_create.len(), self.key_by_key) {
            (0, _) => {}
            (_, false) => push(Tool::Create(None)),
            // The addresses first: they are nobody's race.
            (keys, true) if keys == Self::keys(&self.names, self.names.backends[0]).len() => {
                push(Tool::Begin)
            }
            (keys, true) => (0..keys).for_each(|index| push(Tool::Create(Some(index)))),
        }
        let (name, _) = self.kind.hotplug();
        let script = format!("{}/{name}", self.backend_directory());
        let begun =
            backend.is_some_and(|state| state >= fata_xenbus::handshake::XenbusState::InitWait);
        if self.hotplug && begun && self.shared.registry.get(&script).is_none() {
            push(Tool::Hotplug);
        }
        if !self.to_create.is_empty() {
            return;
        }
        if self.detaching {
            if backend == Some(fata_xenbus::handshake::XenbusState::Closed) {
                push(Tool::Remove);
            }
        } else if self.shared.budgets.detaches > 0 && backend.is_some() {
            push(Tool::Detach);
        }
        if self.spare.is_some() && self.shared.budgets.deaths > 0 && backend.is_some() {
            push(Tool::Death);
        }
        if self.spare.is_some() && backend.is_none() && self.shared.budgets.deaths == 0 {
            push(Tool::Replace);
        }
        if self.front_deaths > 0 {
            push(Tool::DestroyFrontend);
        }
        if self.shared.budgets.suspensions > 0 {
            let ways = match self.suspension {
                Suspension::BackendGoesOn => self.back.suspensions(),
                _ => self.front.suspensions(),
            };
            ways.iter().for_each(|under_way| push(Tool::Suspend(*under_way)));
        }
    }

    fn suspend(&mut self, under_way: UnderWay) -> Result<(), String> {
        let shared = &mut self.shared;
        shared.budgets.suspensions -= 1;
        match self.suspension {
            Suspension::BackendGoesOn => {
                self.back.suspend(under_way, shared);
                self.back.resume(shared)
            }
            Suspension::GoesOn => {
                self.front.suspend(under_way, shared);
                self.front.resume(shared)
            }
            Suspension::Restored(backend) => {
                self.front.suspend(under_way, shared);
                self.back.destroy(shared);
                // What was written before the end is nobody's news any more.
                shared.registry = Registry::default();
                self.replaced = backend != 0;
                for (path, value) in Self::keys(&self.names, self.names.backends[backend]) {
                    shared.registry.set(&path, value);
                }
                if let Some(spare) = self.spare.take() {
                    self.back = spare;
                }
                self.front.resume(shared)
            }
        }
    }

    fn tool(&mut self, tool: Tool) {
        let directory = self.backend_directory();
        let registry = &mut self.shared.registry;
        match tool {
            Tool::Create(None) => {
                for (path, value) in self.to_create.drain(..) {
                    registry.set(&path, value);
                }
            }
            Tool::Begin => {
                let quiet = |path: &str| path.ends_with("/mac") || path.ends_with("/online");
                for (path, value) in self.to_create.iter().filter(|(path, _)| quiet(path)) {
                    registry.set(path, value);
                }
                self.to_create.retain(|(path, _)| !quiet(path));
            }
            Tool::Create(Some(index)) => {
                let (path, value) = self.to_create.remove(index);
                registry.set(&path, value);
            }
            Tool::Hotplug => {
                let (name, value) = self.kind.hotplug();
                registry.set(&format!("{directory}/{name}"), value);
            }
            Tool::Detach => {
                self.shared.budgets.detaches -= 1;
                self.shared.excused = true;
                self.detaching = true;
                registry.set(&format!("{directory}/online"), "0");
                registry.set(&format!("{directory}/state"), "5");
            }
            Tool::Remove => {
                registry.remove(self.names.frontend);
                registry.remove(directory);
            }
            Tool::Death => {
                self.shared.budgets.deaths -= 1;
                self.shared.excused = true;
                registry.remove(directory);
                self.back.destroy(&mut self.shared);
            }
            Tool::Replace => {
                self.replaced = true;
                let directory = self.backend_directory();
                let registry = &mut self.shared.registry;
                for (path, value) in Self::backend_keys(&self.names, directory) {
                    registry.set(&path, value);
                }
                let frontend = self.names.frontend;
                registry.set(&format!("{frontend}/backend"), directory);
                registry.set(&format!("{frontend}/backend-id"), "7");
                if let Some(spare) = self.spare.take() {
                    self.back = spare;
                }
            }
            Tool::DestroyFrontend => {
                self.front_deaths -= 1;
                self.shared.excused = true;
                self.front.destroy(&mut self.shared);
                self.shared.registry.remove(self.names.frontend);
            }
            Tool::Suspend(_) => {}
        }
    }

    fn deliver(&mut self) {
        for (path, below) in self.shared.registry.take_changed() {
            self.front.changed(&path, below, self.events_max);
            self.back.changed(&path, below, self.events_max);
        }
    }

    /// Only the nearest deadline can pass next.
    fn keep_nearest_deadline(&self, steps: &mut Vec<Step>) {
        let deadline = |step: &Step| match step {
            Step::Front(Act::Deadline) => self.front.deadline(),
            Step::Back(Act::Deadline) => self.back.deadline(),
            _ => None,
        };
        let nearest = steps.iter().filter_map(deadline).min();
        steps.retain(|step| !Self::is_patience(step) || deadline(step) == nearest);
    }
}

impl<F: Actor, B: Actor> Model for World<F, B> {
    type Step = Step;

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut acts = Vec::new();
        self.front.acts(&self.shared, &mut acts);
        steps.extend(acts.drain(..).map(Step::Front));
        self.back.acts(&self.shared, &mut acts);
        steps.extend(acts.drain(..).map(Step::Back));
        self.tools(&mut steps);
        self.keep_nearest_deadline(&mut steps);
        steps
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        match *step {
            Step::Front(act) => self.front.act(act, &mut self.shared)?,
            Step::Back(act) => self.back.act(act, &mut self.shared)?,
            Step::Tool(Tool::Suspend(under_way)) => self.suspend(under_way)?,
            Step::Tool(tool) => self.tool(tool),
        }
        self.deliver();
        Ok(())
    }

    fn at_rest(&self) -> Result<(), String> {
        let (front, back) = (self.front.condition(), self.back.condition());
        for (number, ring) in self.shared.wire.rings.iter().enumerate() {
            if matches!(front, Condition::Ended(_)) && ring.granted {
                return Err(format!("the frontend has ended and still grants ring {number}"));
            }
            if matches!(back, Condition::Ended(_)) && ring.mapped {
                return Err(format!("the backend has ended and still maps ring {number}"));
            }
        }
        match (&front, &back) {
            (Condition::Live(a), Condition::Live(b)) if a == b => {
                let ring = self.shared.wire.rings[*a as usize];
                match ring.delivered {
                    true => Ok(()),
                    false => {
                        Err("both ends are connected and the first frame never arrived".into())
                    }
                }
            }
            (Condition::Live(a), Condition::Live(b)) => {
                Err(format!("the frontend is live on ring {a}, the backend on ring {b}"))
            }
            (Condition::Live(_), _) => {
                Err("the frontend is live for ever, and the backend is not there".into())
            }
            (_, Condition::Live(_)) => {
                Err("the backend is live for ever, and the frontend is not there".into())
            }
            (Condition::Wants(front), Condition::Wants(back)) => {
                Err(format!("both ends wait for ever: {front} / {back}"))
            }
            (Condition::Ended(Some(error)), _) | (_, Condition::Ended(Some(error)))
                if !self.shared.excused =>
            {
                Err(format!("nothing went wrong, and yet: {error}"))
            }
            _ if !self.shared.excused => {
                Err(format!("nothing went wrong, and yet {front:?}, {back:?}"))
            }
            _ => Ok(()),
        }
    }

    fn is_patience(step: &Step) -> bool {
        matches!(step, Step::Front(Act::Deadline) | Step::Back(Act::Deadline))
    }

    fn describe(&self, step: &Step) -> String {
        match step {
            Step::Front(act) => self.front.describe(*act),
            Step::Back(act) => self.back.describe(*act),
            Step::Tool(Tool::Create(None)) => "xl writes both directories".into(),
            Step::Tool(Tool::Create(Some(index))) => {
                let (path, value) = &self.to_create[*index];
                format!("xl writes {path} = {value}")
            }
            Step::Tool(Tool::Begin) => "xl writes the addresses".into(),
            Step::Tool(Tool::Hotplug) => "the hotplug script is done, and says so".into(),
            Step::Tool(Tool::Detach) => "xl detaches the device: online = 0, Closing".into(),
            Step::Tool(Tool::Remove) => "xl removes both directories".into(),
            Step::Tool(Tool::Death) => "the backend's domain dies".into(),
            Step::Tool(Tool::Replace) => "xl names another backend".into(),
            Step::Tool(Tool::DestroyFrontend) => "xl destroys the frontend's domain".into(),
            Step::Tool(Tool::Suspend(under_way)) => {
                let what = match self.suspension {
                    Suspension::Restored(_) => "the frontend's domain is saved and restored",
                    Suspension::GoesOn => "the frontend's domain is suspended and goes on",
                    Suspension::BackendGoesOn => "the backend's domain is suspended and goes on",
                };
                format!("{what}; what it asked of XenStore: {under_way:?}")
            }
        }
    }
}
