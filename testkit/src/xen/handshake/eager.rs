//! The frontend of 2015, before the wait.

use super::driven::Simulated;
use super::registry::Wire;
use fata_xenbus::Instant;
use fata_xenbus::handshake::{Change, Command, Handshake, Input, Outcome, net};
use std::collections::VecDeque;

/// Our netfront with one rule taken out: it calls itself live as soon as it has written that it is
/// Connected, and does not wait for the backend to say the same. That is how mirage-net-xen began a
/// device until its release 1.4.1.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WithoutTheWait {
    machine: net::Frontend,
    commands: VecDeque<Command<net::RingsWanted, ()>>,
    publishing: bool,
    live: bool,
}

impl WithoutTheWait {
    /// Takes the rule out of a machine.
    pub fn new(machine: net::Frontend) -> Self {
        WithoutTheWait { machine, commands: VecDeque::new(), publishing: false, live: false }
    }

    fn pull(&mut self) {
        while let Some(command) = self.machine.poll_command() {
            let command = match command {
                Command::Write(transaction) => {
                    let connected = |change: &Change| {
                        matches!(change, Change::Set(path, value)
                            if path.ends_with("/state") && value == b"4")
                    };
                    self.publishing = transaction.changes.iter().any(connected);
                    Command::Write(transaction)
                }
                Command::Connect(_) if self.live => continue,
                Command::Connect(_) => {
                    self.live = true;
                    Command::Connect(())
                }
                Command::Disconnect(_) if !self.live => continue,
                Command::Disconnect(reason) => {
                    self.live = false;
                    Command::Disconnect(reason)
                }
                Command::Release => {
                    if std::mem::take(&mut self.live) {
                        let reason = fata_xenbus::handshake::Reason::Asked;
                        self.commands.push_back(Command::Disconnect(reason));
                    }
                    Command::Release
                }
                Command::Watch(path) => Command::Watch(path),
                Command::Unwatch(path) => Command::Unwatch(path),
                Command::Read(paths) => Command::Read(paths),
                Command::MakeRings(wanted) => Command::MakeRings(wanted),
                Command::Report(error) => Command::Report(error),
                Command::Ended(verdict) => Command::Ended(verdict),
            };
            self.commands.push_back(command);
        }
    }
}

impl Handshake for WithoutTheWait {
    type Wanted = net::RingsWanted;
    type Made = net::RingsMade;
    type Settings = ();

    fn handle(&mut self, now: Instant, input: Input<net::RingsMade>) {
        let published = self.publishing && input == Input::Written(Outcome::Done);
        if matches!(input, Input::Written(_)) {
            self.publishing = false;
        }
        self.machine.handle(now, input);
        if published && !self.live {
            self.live = true;
            self.commands.push_back(Command::Connect(()));
        }
        self.pull();
    }

    fn poll_command(&mut self) -> Option<Command<net::RingsWanted, ()>> {
        self.pull();
        self.commands.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    fn state(&self) -> String {
        self.machine.state()
    }

    fn device(&self) -> Option<&str> {
        self.machine.device()
    }
}

impl Simulated for WithoutTheWait {
    const FRONT: bool = true;

    fn make(wire: &mut Wire, wanted: &net::RingsWanted) -> Result<(u32, net::RingsMade), String> {
        net::Frontend::make(wire, wanted)
    }
}
