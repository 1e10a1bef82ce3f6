//! How two drivers in two domains become one device.
//!
//! The ends of a Xen device find each other in XenStore. Each writes what it can do and a `state`
//! (io/xenbus.h), each watches the other's, and between them there is nobody who keeps order:
//! hotplug scripts finish late, the toolstack writes keys one by one, watches arrive late, twice, or
//! once for many changes, a domain dies in the middle. In 2015 a frontend that had become fast enough
//! sent its first frame after it had called itself Connected and before the backend had, and the
//! frame was lost (docs/start-of-day.md). So the rules are kept here, in machines without I/O and
//! without a clock, and the testkit runs these very machines through every order of events.
//!
//! A machine per kind of device and end: [`net::Frontend`], [`net::Backend`], [`block::Frontend`],
//! [`block::Backend`], [`console::Frontend`], [`vchan::Server`], [`vchan::Client`]. All have the
//! shape of [`Handshake`]:
//!
//! 1. drain [`poll_command`](Handshake::poll_command) and execute the commands in their order;
//! 2. hand in what happens, [`Handshake::handle`]: each [`Command::Read`], [`Command::Write`] and
//!    [`Command::MakeRings`] has exactly one answer, watches may fire at any time;
//! 3. when [`poll_timeout`](Handshake::poll_timeout) has passed, hand in [`Input::Timeout`];
//! 4. again from 1 until [`Command::Ended`].
//!
//! What a machine promises, in every order of events:
//!
//! - [`Command::Connect`] comes only after the other end was seen Connected (or, of a backend, after
//!   the frontend offered its rings), and every `Connect` has its [`Command::Disconnect`];
//! - each [`Command::MakeRings`] that succeeded has one [`Command::Release`] before `Ended`, and while
//!   the other end can be expected to let go of the rings, `Release` waits for it;
//! - nothing comes after `Ended`, and `Ended` comes at the latest when the deadlines have passed;
//! - at most one `Read`, `Write` or `MakeRings` is unanswered at a time;
//! - our rings are published in the same transaction that sees the backend's offer unchanged, so
//!   rings are never offered to a backend that has been replaced in between;
//! - a directory that the toolstack has removed is not written to again.

mod backend;
pub mod block;
pub mod console;
mod error;
mod frontend;
mod keys;
pub mod net;
mod state;
#[cfg(test)]
mod tests;
pub mod vchan;

use crate::Instant;
use alloc::string::String;
use alloc::vec::Vec;
pub use backend::{Backend, BackendProtocol, HotplugStatus, Serving};
pub use error::{HandshakeError, Patience, Writer};
pub use frontend::{Frontend, FrontendProtocol, Joining};
pub use keys::{Key, Keys};
pub use state::XenbusState;

/// One end's handshake, whatever the device: what a runner needs to know.
pub trait Handshake {
    /// What [`Command::MakeRings`] asks for.
    type Wanted;
    /// What was made, as the other end must learn it: grant references and ports.
    type Made;
    /// What the two ends agreed on.
    type Settings;

    /// Takes in what happened at `now`.
    fn handle(&mut self, now: Instant, input: Input<Self::Made>);

    /// The next command, until there is none.
    fn poll_command(&mut self) -> Option<Command<Self::Wanted, Self::Settings>>;

    /// When to hand in [`Input::Timeout`]; `None` while nothing is waited for with a deadline.
    fn poll_timeout(&self) -> Option<Instant>;

    /// What the machine is doing, for logs and errors: one line, in words.
    fn state(&self) -> String;

    /// The device's own directory, such as `device/vif/0`; `None` where there is none (vchan). Errors
    /// are told to the toolstack by its name, see [`HandshakeError::node`].
    fn device(&self) -> Option<&str>;
}

/// What a runner tells a machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input<Made> {
    /// A watch fired, whichever: look again. May be delivered too often and late, but not never.
    Fired,
    /// The answer to [`Command::Read`]: as many values in the same order, `None` for a key that does
    /// not exist (ENOENT) or may not be read (EACCES).
    Values(Vec<Option<Vec<u8>>>),
    /// The answer to [`Command::Write`].
    Written(Outcome),
    /// The answer to [`Command::MakeRings`], or in words why there are none.
    RingsMade(Result<Made, String>),
    /// [`Handshake::poll_timeout`] has passed. Harmless when it has not.
    Timeout,
    /// The program wants the device closed: the machine goes to Closed in good order, then ends.
    Close,
    /// The data path found the other end breaking the ring's rules. In words: which.
    Fault(String),
    /// The domain was suspended and is running again, perhaps on another host: all grants and ports
    /// are void, and the other end is another one. Watches have been set again by the runner, and a
    /// Read, Write or MakeRings under way still gets its answer.
    Resumed,
}

/// What a machine tells a runner to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command<Wanted, Settings> {
    /// Set a watch on a path; each of its events is an [`Input::Fired`]. XenStore fires a new watch
    /// once at once.
    Watch(String),
    /// Take that watch away. Events of it that still come are harmless.
    Unwatch(String),
    /// Read these paths **in this order** (they may be sent in one go): the state comes first, so that
    /// what is read after it is at least as new.
    Read(Vec<String>),
    /// Do this in one transaction, once; the machine decides about another attempt.
    Write(Transaction),
    /// Make the rings (a frontend: allocate and grant), or attach to those of the frontend (a backend:
    /// map and bind). Nothing may be transmitted yet.
    MakeRings(Wanted),
    /// Both ends are there: the device is live. Look at the rings once; the other end may have begun.
    Connect(Settings),
    /// The device is no longer live: leave the rings alone. The reason, in words for a log.
    Disconnect(Reason),
    /// Give the rings up: end the grants or unmap, close the ports.
    Release,
    /// The other end was refused, by this error, and the machine waits for another life of it
    /// (backends only; for a frontend an error is the end).
    Report(HandshakeError),
    /// The machine is done. Drop it.
    Ended(Result<Ending, HandshakeError>),
}

/// Why a device that was live is live no longer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// We were asked to close.
    Asked,
    /// The other end left Connected; `None` when its state is gone, and the domain perhaps too.
    Peer(Option<XenbusState>),
    /// The toolstack removed the device, or said that it will (`online` is 0).
    Removed,
    /// The other end broke a rule.
    Fault(HandshakeError),
    /// The domain was suspended.
    Resumed,
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Reason::Asked => f.write_str("closed as asked"),
            Reason::Peer(Some(state)) => write!(f, "the other end went to {state}"),
            Reason::Peer(None) => f.write_str("the other end is gone"),
            Reason::Removed => f.write_str("the toolstack takes the device away"),
            Reason::Fault(error) => write!(f, "{error}"),
            Reason::Resumed => f.write_str("the domain was suspended"),
        }
    }
}

/// How a machine came to a good end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Closed, as [`Input::Close`] asked.
    Closed,
    /// The device was taken away: by the toolstack, or with the domain of the other end.
    Removed,
}

/// What happens in one XenStore transaction: first look, then write, or else abort.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// Each path and what it must hold, `None` for a key that must be missing. If one differs, nothing
    /// is written: abort, and answer [`Outcome::Differs`].
    pub expect: Vec<(String, Expectation)>,
    /// The changes, in this order.
    pub changes: Vec<Change>,
}

/// What a [`Transaction`] expects of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expectation {
    /// It exists.
    Exists,
    /// It holds exactly this; `None`: it does not exist.
    Holds(Option<Vec<u8>>),
}

impl Expectation {
    /// True if a value that was read is as expected.
    pub fn is_met_by(&self, value: Option<&[u8]>) -> bool {
        match self {
            Expectation::Exists => value.is_some(),
            Expectation::Holds(expected) => expected.as_deref() == value,
        }
    }
}

/// One change of a [`Transaction`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Write the value.
    Set(String, Vec<u8>),
    /// Remove the key and what is below it; one that does not exist (ENOENT) is fine.
    Remove(String),
    /// XS_SET_PERMS: `owner` may do everything, `reader` may read, others nothing.
    Permit {
        /// The node.
        path: String,
        /// Its owner, a domain.
        owner: u16,
        /// The domain that may read it.
        reader: u16,
    },
}

/// How a [`Transaction`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Committed.
    Done,
    /// Somebody else was quicker (EAGAIN): nothing was written.
    Again,
    /// An expectation was not met: nothing was written.
    Differs,
    /// XenStore refused, with this errno (EACCES 13, ENOSPC 28 for a quota, …): nothing was written.
    Refused(i32),
}
