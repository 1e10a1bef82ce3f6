//! A real machine, driven by a model of the runner.

use super::actor::{Act, Actor, Condition, Shared, UnderWay, concerns};
use super::registry::{Grain, Wire};
use fata_xenbus::Instant;
use fata_xenbus::handshake::{
    self, Command, Ending, Handshake, HandshakeError, Input, Outcome, Transaction, block, console,
    net, vchan,
};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hash::Hash;

/// A machine whose rings can be made in a [`Wire`].
pub trait Simulated: Handshake<Wanted: Clone + Hash, Made: Clone + Hash> + Clone + Hash {
    /// It is the end that grants, and transmits the first frame.
    const FRONT: bool;

    /// Makes the rings: their number, and the answer.
    ///
    /// # Errors
    /// Why there are none, in words.
    fn make(wire: &mut Wire, wanted: &Self::Wanted) -> Result<(u32, Self::Made), String>;
}

impl Simulated for net::Frontend {
    const FRONT: bool = true;

    fn make(wire: &mut Wire, wanted: &net::RingsWanted) -> Result<(u32, net::RingsMade), String> {
        let ring = wire.grant();
        let channels = match wanted.split_event_channels {
            true => net::Channels::Split { tx: ring, rx: ring },
            false => net::Channels::One(ring),
        };
        Ok((ring, net::RingsMade { tx_ring_ref: ring, rx_ring_ref: ring, channels }))
    }
}

impl Simulated for net::Backend {
    const FRONT: bool = false;

    fn make(wire: &mut Wire, offered: &net::RingsOffered) -> Result<(u32, ()), String> {
        Ok((wire.map(offered.rings.tx_ring_ref)?, ()))
    }
}

impl Simulated for block::Frontend {
    const FRONT: bool = true;

    fn make(wire: &mut Wire, wanted: &block::RingWanted) -> Result<(u32, block::RingMade), String> {
        let ring = wire.grant();
        let ring_refs = vec![ring; 1 << wanted.ring_page_order];
        Ok((ring, block::RingMade { ring_refs, event_channel: ring }))
    }
}

impl Simulated for block::Backend {
    const FRONT: bool = false;

    fn make(wire: &mut Wire, offered: &block::RingOffered) -> Result<(u32, ()), String> {
        Ok((wire.map(offered.ring.ring_refs[0])?, ()))
    }
}

impl Simulated for console::Frontend {
    const FRONT: bool = true;

    fn make(wire: &mut Wire, _: &console::RingWanted) -> Result<(u32, console::RingMade), String> {
        let ring = wire.grant();
        Ok((ring, console::RingMade { ring_ref: ring, port: ring }))
    }
}

impl Simulated for vchan::Server {
    const FRONT: bool = true;

    fn make(wire: &mut Wire, _: &vchan::RingsWanted) -> Result<(u32, vchan::RingsMade), String> {
        let ring = wire.grant();
        // A stream keeps what is written before the other end is there.
        wire.ring(ring).listened = true;
        Ok((ring, vchan::RingsMade { ring_ref: ring, event_channel: ring }))
    }
}

impl Simulated for vchan::Client {
    const FRONT: bool = false;

    fn make(wire: &mut Wire, offered: &vchan::RingsOffered) -> Result<(u32, ()), String> {
        Ok((wire.map(offered.rings.ring_ref)?, ()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Outstanding<W> {
    Nothing,
    Read(Vec<String>, Vec<Option<Vec<u8>>>),
    Write(Transaction),
    Make(W),
    /// Answered before the domain was suspended, and not yet heard of.
    Values(Vec<Option<Vec<u8>>>),
    Written(Outcome),
}

/// A machine with its runner: executes commands, and holds the machine to its promises.
#[derive(Clone, Hash)]
pub struct Driven<M: Simulated> {
    name: &'static str,
    /// Where the domain's own directory is, for relative paths.
    home: &'static str,
    machine: M,
    /// The machine as it was at the beginning: what a crash brings back.
    start: Box<M>,
    outstanding: Outstanding<M::Wanted>,
    watches: BTreeSet<String>,
    /// Events of watches that wait to be delivered.
    fired: u8,
    ring: Option<u32>,
    live: bool,
    transmitted: bool,
    ended: Option<Result<Ending, HandshakeError>>,
}

impl<M: Simulated> Driven<M> {
    /// A machine that was just made. `home` is its domain's directory, with a slash at its end.
    ///
    /// # Errors
    /// The machine begins with a broken promise.
    pub fn new(name: &'static str, home: &'static str, machine: M) -> Result<Self, String> {
        let start = Box::new(machine.clone());
        let mut driven = Driven {
            name,
            home,
            machine,
            start,
            outstanding: Outstanding::Nothing,
            watches: BTreeSet::new(),
            fired: 0,
            ring: None,
            live: false,
            transmitted: false,
            ended: None,
        };
        driven.drain(&mut Wire::default())?;
        Ok(driven)
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<&Result<Ending, HandshakeError>> {
        self.ended.as_ref()
    }

    fn absolute(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => path.into(),
            false => format!("{}{path}", self.home),
        }
    }

    fn hand_in(
        &mut self,
        now: Instant,
        input: Input<M::Made>,
        wire: &mut Wire,
    ) -> Result<(), String> {
        self.machine.handle(now, input);
        self.drain(wire)
    }

    /// Executes the commands, and checks that each may come now.
    fn drain(&mut self, wire: &mut Wire) -> Result<(), String> {
        while let Some(command) = self.machine.poll_command() {
            let name = self.name;
            let broken = |what: &str| Err(format!("{name} breaks a promise: {what}"));
            if self.ended.is_some() {
                return broken("a command after Ended");
            }
            let free = matches!(self.outstanding, Outstanding::Nothing);
            match command {
                Command::Watch(path) => {
                    let path = self.absolute(&path);
                    if !self.watches.insert(path) {
                        return broken("the same watch twice");
                    }
                    self.fired = (self.fired + 1).min(2);
                }
                Command::Unwatch(path) => {
                    let path = self.absolute(&path);
                    if !self.watches.remove(&path) {
                        return broken("no such watch to take away");
                    }
                }
                Command::Read(paths) if free => {
                    let paths = paths.iter().map(|path| self.absolute(path)).collect();
                    self.outstanding = Outstanding::Read(paths, Vec::new());
                }
                Command::Write(transaction) if free => {
                    let transaction = self.absolute_transaction(transaction);
                    self.outstanding = Outstanding::Write(transaction);
                }
                Command::MakeRings(_) if self.ring.is_some() => {
                    return broken("MakeRings before Release");
                }
                Command::MakeRings(wanted) if free => {
                    self.outstanding = Outstanding::Make(wanted);
                }
                Command::Read(_) | Command::Write(_) | Command::MakeRings(_) => {
                    return broken("two commands at once are to be answered");
                }
                Command::Connect(_) => self.connect(wire)?,
                Command::Disconnect(_) if self.live => self.live = false,
                Command::Disconnect(_) => return broken("Disconnect without Connect"),
                Command::Release if self.live => return broken("Release while connected"),
                Command::Release => match self.ring.take() {
                    Some(ring) if M::FRONT => wire.ring(ring).granted = false,
                    Some(ring) => wire.ring(ring).mapped = false,
                    None => return broken("Release without rings"),
                },
                Command::Report(_) => {}
                Command::Ended(verdict) => {
                    if self.live || self.ring.is_some() {
                        return broken("Ended with rings");
                    }
                    if let Some(watch) = self.watches.first() {
                        return broken(&format!("Ended with a watch on {watch}"));
                    }
                    // The runner drops what is outstanding with the machine.
                    self.outstanding = Outstanding::Nothing;
                    self.fired = 0;
                    self.ended = Some(verdict);
                }
            }
        }
        Ok(())
    }

    /// The rings go: a runner does that before a suspension, Xen when a domain dies.
    fn give_up_rings(&self, wire: &mut Wire) {
        if let Some(ring) = self.ring {
            match M::FRONT {
                true => wire.ring(ring).granted = false,
                false => wire.ring(ring).mapped = false,
            }
        }
    }

    fn connect(&mut self, wire: &mut Wire) -> Result<(), String> {
        let Some(ring) = self.ring.filter(|_| !self.live) else {
            return Err(format!("{} breaks a promise: Connect without rings", self.name));
        };
        self.live = true;
        self.transmitted = false;
        if !M::FRONT {
            let ring = wire.ring(ring);
            ring.listened = true;
            // A backend looks at the rings when it connects.
            ring.delivered |= std::mem::take(&mut ring.posted);
        }
        Ok(())
    }

    fn absolute_transaction(&self, transaction: Transaction) -> Transaction {
        use handshake::Change;
        let expect =
            transaction.expect.into_iter().map(|(path, value)| (self.absolute(&path), value));
        let changes = transaction.changes.into_iter().map(|change| match change {
            Change::Set(path, value) => Change::Set(self.absolute(&path), value),
            Change::Remove(path) => Change::Remove(self.absolute(&path)),
            Change::Permit { path, owner, reader } => {
                Change::Permit { path: self.absolute(&path), owner, reader }
            }
        });
        Transaction { expect: expect.collect(), changes: changes.collect() }
    }

    /// Answers the next piece of a read; all of it gives the machine its answer.
    fn read(&mut self, shared: &mut Shared) -> Result<(), String> {
        if self.read_piece(shared) { self.answer(shared) } else { Ok(()) }
    }

    /// What was answered reaches the machine.
    fn answer(&mut self, shared: &mut Shared) -> Result<(), String> {
        let input = match std::mem::replace(&mut self.outstanding, Outstanding::Nothing) {
            Outstanding::Values(values) => Input::Values(values),
            Outstanding::Written(outcome) => Input::Written(outcome),
            other => {
                self.outstanding = other;
                return Ok(());
            }
        };
        self.hand_in(shared.now, input, &mut shared.wire)
    }

    /// Answers the next piece of a read; true when that was all of it.
    fn read_piece(&mut self, shared: &Shared) -> bool {
        let Outstanding::Read(paths, values) = &mut self.outstanding else { return false };
        let directory = |path: &String| path.rfind('/').map(|slash| path[..slash].to_owned());
        let first = paths.get(values.len()).and_then(directory);
        while let Some(path) = paths.get(values.len()) {
            if directory(path) != first {
                break;
            }
            values.push(shared.registry.get(path).map(<[u8]>::to_vec));
            if shared.grain == Grain::Key {
                break;
            }
        }
        if values.len() < paths.len() {
            return false;
        }
        self.outstanding = Outstanding::Values(std::mem::take(values));
        true
    }

    fn commit(&mut self, outcome: Option<Outcome>, shared: &mut Shared) -> Result<(), String> {
        let outstanding = std::mem::replace(&mut self.outstanding, Outstanding::Nothing);
        let Outstanding::Write(transaction) = outstanding else { return Ok(()) };
        let outcome = outcome.unwrap_or_else(|| match shared.registry.commit(&transaction) {
            true => Outcome::Done,
            false => Outcome::Differs,
        });
        self.hand_in(shared.now, Input::Written(outcome), &mut shared.wire)
    }

    fn make(&mut self, shared: &mut Shared) -> Result<(), String> {
        let outstanding = std::mem::replace(&mut self.outstanding, Outstanding::Nothing);
        let Outstanding::Make(wanted) = outstanding else { return Ok(()) };
        let made = M::make(&mut shared.wire, &wanted).map(|(ring, made)| {
            self.ring = Some(ring);
            made
        });
        self.hand_in(shared.now, Input::RingsMade(made), &mut shared.wire)
    }

    fn transmit(&mut self, wire: &mut Wire) -> Result<(), String> {
        let Some(number) = self.ring else { return Ok(()) };
        self.transmitted = true;
        let ring = wire.ring(number);
        if !ring.listened {
            return Err(format!(
                "the first frame is lost: {} put it on a ring that no backend has listened to yet",
                self.name
            ));
        }
        match ring.mapped {
            true => ring.delivered = true,
            // It listened once, and went away: the frame waits, and is lost with the ring.
            false => ring.posted = true,
        }
        Ok(())
    }

    fn crash(&mut self, shared: &mut Shared) -> Result<(), String> {
        self.destroy(shared);
        let fresh = Driven::new(self.name, self.home, (*self.start).clone())?;
        *self = fresh;
        Ok(())
    }
}

impl<M: Simulated> Actor for Driven<M> {
    fn acts(&self, shared: &Shared, acts: &mut Vec<Act>) {
        let budgets = &shared.budgets;
        if M::FRONT && budgets.crashes > 0 {
            acts.push(Act::Crash);
        }
        if self.ended.is_some() {
            return;
        }
        match &self.outstanding {
            Outstanding::Nothing => {}
            Outstanding::Read(..) => acts.push(Act::Read),
            Outstanding::Write(_) => {
                acts.push(Act::Commit);
                if budgets.conflicts > 0 {
                    acts.push(Act::Conflict);
                }
            }
            Outstanding::Values(_) | Outstanding::Written(_) => acts.push(Act::Answer),
            Outstanding::Make(_) => {
                acts.push(Act::Make);
                if budgets.ring_failures > 0 {
                    acts.push(Act::MakeFails);
                }
            }
        }
        if self.fired > 0 {
            acts.push(Act::Fire);
        } else if budgets.strays > 0 {
            acts.push(Act::Stray);
        }
        if self.live && M::FRONT && !self.transmitted {
            acts.push(Act::Transmit);
        }
        if budgets.closes > 0 && M::FRONT {
            acts.push(Act::Close);
        }
        if budgets.faults > 0 && self.live {
            acts.push(Act::Fault);
        }
        if budgets.deadlines && self.machine.poll_timeout().is_some() {
            acts.push(Act::Deadline);
        }
    }

    fn act(&mut self, act: Act, shared: &mut Shared) -> Result<(), String> {
        let now = shared.now;
        match act {
            Act::Read => self.read(shared),
            Act::Commit => self.commit(None, shared),
            Act::Conflict => {
                shared.budgets.conflicts -= 1;
                self.commit(Some(Outcome::Again), shared)
            }
            Act::Answer => self.answer(shared),
            Act::Make => self.make(shared),
            Act::MakeFails => {
                shared.budgets.ring_failures -= 1;
                shared.excused = true;
                self.outstanding = Outstanding::Nothing;
                let failed = Err("no memory".into());
                self.hand_in(now, Input::RingsMade(failed), &mut shared.wire)
            }
            Act::Fire => {
                self.fired -= 1;
                self.hand_in(now, Input::Fired, &mut shared.wire)
            }
            Act::Stray => {
                shared.budgets.strays -= 1;
                self.hand_in(now, Input::Fired, &mut shared.wire)
            }
            Act::Deadline => {
                shared.now = self.machine.poll_timeout().unwrap_or(now).max(now);
                shared.excused = true;
                let now = shared.now;
                self.hand_in(now, Input::Timeout, &mut shared.wire)
            }
            Act::Transmit => self.transmit(&mut shared.wire),
            Act::Close => {
                shared.budgets.closes -= 1;
                shared.excused = true;
                self.transmitted = true;
                self.hand_in(now, Input::Close, &mut shared.wire)
            }
            Act::Fault => {
                shared.budgets.faults -= 1;
                shared.excused = true;
                self.hand_in(now, Input::Fault("a wild index".into()), &mut shared.wire)
            }
            Act::Crash => {
                shared.budgets.crashes -= 1;
                shared.excused = true;
                self.crash(shared)
            }
            Act::Script | Act::Probe | Act::Next | Act::GiveUp | Act::Drop | Act::Reload => Ok(()),
        }
    }

    fn changed(&mut self, path: &str, below: bool, events_max: u8) {
        let fires = self.watches.iter().filter(|watch| concerns(watch, path, below)).count();
        self.fired = (self.fired + fires.min(2) as u8).min(events_max);
    }

    fn deadline(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    fn condition(&self) -> Condition {
        match (&self.ended, self.ring) {
            (Some(Ok(_)), _) => Condition::Ended(None),
            (Some(Err(error)), _) => Condition::Ended(Some(error.to_string())),
            (None, Some(ring)) if self.live => Condition::Live(ring),
            (None, _) => Condition::Wants(self.machine.state()),
        }
    }

    fn describe(&self, act: Act) -> String {
        let name = self.name;
        match act {
            Act::Read => {
                let Outstanding::Read(paths, values) = &self.outstanding else {
                    return format!("{name} reads");
                };
                let mut text = format!("{name} reads");
                for path in &paths[values.len()..] {
                    write!(text, " {}", shorten(path)).ok();
                }
                text
            }
            Act::Commit => {
                let Outstanding::Write(transaction) = &self.outstanding else {
                    return format!("{name} writes");
                };
                let mut text = format!("{name} writes");
                for change in &transaction.changes {
                    if let handshake::Change::Set(path, value) = change {
                        let value = String::from_utf8_lossy(value);
                        write!(text, " {} = {value}", shorten(path)).ok();
                    }
                }
                text
            }
            Act::Conflict => format!("{name}'s transaction gets EAGAIN"),
            Act::Answer => format!("{name} hears an answer from before the suspension"),
            Act::Make if M::FRONT => format!("{name} makes its rings and grants them"),
            Act::Make => format!("{name} maps the frontend's rings"),
            Act::MakeFails => format!("{name} cannot make its rings"),
            Act::Fire => format!("{name} is told by a watch to look again"),
            Act::Stray => format!("{name} is told by a watch that has nothing to tell"),
            Act::Deadline => format!("{name}'s deadline passes"),
            Act::Transmit => format!("{name} TRANSMITS its first frame: who has the gateway?"),
            Act::Close => format!("{name} is asked to close"),
            Act::Fault => format!("{name} finds the other end lying"),
            Act::Crash => format!("{name}'s domain crashes and boots again"),
            other => format!("{name}: {other:?}"),
        }
    }

    fn destroy(&mut self, shared: &mut Shared) {
        self.give_up_rings(&mut shared.wire);
        (self.ring, self.live) = (None, false);
        self.watches.clear();
        self.fired = 0;
        self.outstanding = Outstanding::Nothing;
        self.ended.get_or_insert(Ok(Ending::Removed));
    }

    fn suspensions(&self) -> &'static [UnderWay] {
        match &self.outstanding {
            _ if self.ended.is_some() => &[],
            Outstanding::Read(..) => &[UnderWay::Later, UnderWay::Answered],
            Outstanding::Write(_) => &[UnderWay::Answered, UnderWay::Void],
            _ => &[UnderWay::Later],
        }
    }

    fn suspend(&mut self, under_way: UnderWay, shared: &mut Shared) {
        self.give_up_rings(&mut shared.wire);
        match (under_way, &self.outstanding) {
            (UnderWay::Answered, Outstanding::Read(..)) => while !self.read_piece(shared) {},
            (UnderWay::Answered, Outstanding::Write(transaction)) => {
                let done = shared.registry.commit(transaction);
                let outcome = if done { Outcome::Done } else { Outcome::Differs };
                if let (Some(ring), false) = (self.ring, M::FRONT) {
                    // If it has said that it is Connected it was, for as long as that took. What was put
                    // on the ring since is lost with it, as when any backend ends.
                    shared.wire.ring(ring).listened |= done;
                }
                self.outstanding = Outstanding::Written(outcome);
            }
            (UnderWay::Void, Outstanding::Write(_)) => {
                self.outstanding = Outstanding::Written(Outcome::Again);
            }
            _ => {}
        }
    }

    fn resume(&mut self, shared: &mut Shared) -> Result<(), String> {
        // Its commands to disconnect and to release change nothing any more.
        self.hand_in(shared.now, Input::Resumed, &mut shared.wire)?;
        if self.live || self.ring.is_some() {
            return Err(format!("{} breaks a promise: rings that outlive a suspension", self.name));
        }
        // Every watch is set again, and fires.
        self.fired = self.fired.max(1);
        Ok(())
    }
}

/// The last two parts of a path, which say enough in a story.
pub(super) fn shorten(path: &str) -> &str {
    let mut slashes = path.rmatch_indices('/').map(|(index, _)| index);
    slashes.next();
    let Some(_) = slashes.next() else { return path };
    slashes.next().map_or(path, |slash| &path[slash + 1..])
}
