//! One end, real or modelled.

use super::registry::{Grain, Registry, Wire};
use fata_xenbus::Instant;
use std::hash::Hash;

/// What an end can do next, or what can happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Its next piece of a read is answered.
    Read,
    /// Its transaction is committed, or aborted because something is not as expected.
    Commit,
    /// Its transaction gets EAGAIN.
    Conflict,
    /// Its rings are made or mapped.
    Make,
    /// Its rings cannot be made.
    MakeFails,
    /// A watch's event is delivered.
    Fire,
    /// Its hotplug script's watch is delivered.
    Script,
    /// A watch's event is delivered twice, or one that had been on its way.
    Stray,
    /// Its deadline has passed.
    Deadline,
    /// An answer from before a suspension reaches it.
    Answer,
    /// It puts its first frame on the ring.
    Transmit,
    /// Its program closes the device.
    Close,
    /// Its data path finds the other end lying.
    Fault,
    /// Its domain crashes, and another kernel starts in it: nobody has cleaned up.
    Crash,
    /// Its driver is loaded and probes the device.
    Probe,
    /// It does the next thing that it has decided to do.
    Next,
    /// Its driver gives up: xenbus_dev_fatal, which goes to Closing.
    GiveUp,
    /// It goes to Closed at once.
    Drop,
    /// Its driver is unloaded in good order, and may be loaded again.
    Reload,
}

/// How many of each fault may happen in one schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budgets {
    /// EAGAIN.
    pub conflicts: u8,
    /// Duplicated or stray watch events.
    pub strays: u8,
    /// Rings that cannot be made.
    pub ring_failures: u8,
    /// The frontend's program closes the device.
    pub closes: u8,
    /// A data path finds the other end lying.
    pub faults: u8,
    /// The frontend's domain crashes and starts again.
    pub crashes: u8,
    /// The backend gives up: Closing.
    pub give_ups: u8,
    /// The backend goes straight to Closed.
    pub drops: u8,
    /// The backend's driver is unloaded and loaded again.
    pub reloads: u8,
    /// The toolstack detaches the device.
    pub detaches: u8,
    /// The backend's domain dies, and the toolstack makes another.
    pub deaths: u8,
    /// A domain is suspended and goes on.
    pub suspensions: u8,
    /// Deadlines may pass.
    pub deadlines: bool,
}

/// What both ends share.
#[derive(Clone, Debug, Hash)]
pub struct Shared {
    /// The keys.
    pub registry: Registry,
    /// The rings.
    pub wire: Wire,
    /// The time.
    pub now: Instant,
    /// Faults that may still happen.
    pub budgets: Budgets,
    /// How reads are cut.
    pub grain: Grain,
    /// Something has happened that excuses an error: a fault, or a deadline that passed.
    pub excused: bool,
}

/// What becomes of a request to XenStore that is under way when its domain is suspended. XenStore is
/// quiet then: what has been sent has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnderWay {
    /// There is none, or it is sent when the domain goes on.
    Later,
    /// It was carried out, and the answer is heard when the domain goes on.
    Answered,
    /// It is a transaction that is not carried out: begun before, it is void, and one that was not
    /// begun belongs to the life before.
    Void,
}

/// What an end is, when it rests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is live, on this ring.
    Live(u32),
    /// It is not live, and wants to be.
    Wants(String),
    /// It is not live, and does not want to be, or cannot.
    Abstains,
    /// It has come to an end, and what of it was an error.
    Ended(Option<String>),
}

/// One end.
pub trait Actor: Clone + Hash {
    /// What can happen to it.
    fn acts(&self, shared: &Shared, acts: &mut Vec<Act>);

    /// Lets it happen.
    ///
    /// # Errors
    /// An invariant is broken, in words.
    fn act(&mut self, act: Act, shared: &mut Shared) -> Result<(), String>;

    /// A path has changed; with `below`, it was removed with all below it.
    /// At most `events_max` events wait to be delivered; more are one.
    fn changed(&mut self, path: &str, below: bool, events_max: u8);

    /// When its deadline passes.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// What it is.
    fn condition(&self) -> Condition;

    /// What an act is, in words.
    fn describe(&self, act: Act) -> String;

    /// Its domain is destroyed.
    fn destroy(&mut self, shared: &mut Shared);

    /// How its domain can be suspended now; in no way, unless it says so.
    fn suspensions(&self) -> &'static [UnderWay] {
        &[]
    }

    /// Its domain is suspended: it lets go of its rings.
    fn suspend(&mut self, _under_way: UnderWay, _shared: &mut Shared) {}

    /// Its domain goes on.
    ///
    /// # Errors
    /// An invariant is broken, in words.
    fn resume(&mut self, _shared: &mut Shared) -> Result<(), String> {
        Ok(())
    }
}

/// True if a change of `path` is one for a watch of `watched`.
pub(super) fn concerns(watched: &str, path: &str, below: bool) -> bool {
    let within = |path: &str, ancestor: &str| {
        path == ancestor
            || (path.starts_with(ancestor) && path.as_bytes().get(ancestor.len()) == Some(&b'/'))
    };
    within(path, watched) || (below && within(watched, path))
}
