//! The words of the interface: who, what, why, how many.

use core::fmt;

/// A domain: a guest, or domain 0, the one that runs the tools (`domid_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u16);

/// A page that a domain lets another one use: an index into the granting domain's table
/// (`grant_ref_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantRef(pub u32);

/// An end of an event channel: a number of the domain that has that end (`evtchn_port_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u32);

impl DomainId {
    /// "The domain that asks" (`DOMID_SELF`), to Xen.
    pub(crate) const SELF: DomainId = DomainId(0x7ff0);
}

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "domain {}", self.0)
    }
}

/// The bare number, as XenStore's keys have it.
impl fmt::Display for GrantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The bare number, as XenStore's keys have it.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the domain that a page is granted to may do with it; and, to who maps a page, what it asks
/// to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// To read.
    ReadOnly,
    /// To read and to write.
    ReadWrite,
}

/// Why a domain ends (`SHUTDOWN_*`, public/sched.h). The tools act on it: `on_poweroff`,
/// `on_reboot` and `on_crash` of `xl.cfg(5)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShutdownReason {
    /// It is done.
    Poweroff,
    /// It wants to be started again.
    Reboot,
    /// It died.
    Crash,
}

impl ShutdownReason {
    /// Xen's number.
    pub const fn to_bits(self) -> u32 {
        match self {
            ShutdownReason::Poweroff => 0,
            ShutdownReason::Reboot => 1,
            ShutdownReason::Crash => 3,
        }
    }
}

/// What became of a domain that suspended itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suspended {
    /// It goes on in a new domain, here or elsewhere: every event channel, grant and mapping of
    /// before is gone, and XenStore is empty but for what the tools wrote. Devices start again.
    Resumed,
    /// The suspension was taken back: it is the domain that it was. The tools reset its connection
    /// to XenStore, and backends stayed; so devices go on, and watches are set again.
    Cancelled,
}

/// How much memory a domain has, and may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reservation {
    /// Pages of 4096 bytes that it has now (`XENMEM_current_reservation`).
    pub current_pages: u64,
    /// Pages that it may have at most (`XENMEM_maximum_reservation`).
    pub maximum_pages: u64,
}

/// What was done so far; every number but those of waiting and current things only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Calls of the hypervisor, of every kind.
    pub hypercalls: u64,
    /// Notifications sent: each is a hypercall too.
    pub notifications: u64,
    /// Interrupts with which Xen said that an event is pending.
    pub upcalls: u64,
    /// Pages granted.
    pub grants_made: u64,
    /// Grants ended.
    pub grants_revoked: u64,
    /// Pages whose owner here is gone while the other domain still maps them: kept out of the heap
    /// until it does not. Tried again whenever something is granted or revoked.
    pub grants_waiting: u64,
    /// Pages of other domains that were copied to or from, however much of them.
    pub copies: u64,
    /// Pages of other domains mapped.
    pub maps: u64,
    /// Pages of other domains unmapped.
    pub unmaps: u64,
}
