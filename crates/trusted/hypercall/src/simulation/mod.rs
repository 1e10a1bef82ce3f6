//! Several domains in the process of a test, on host builds only.
//!
//! A [`World`] is the hypervisor: it keeps every domain's grant table and event channels and answers
//! as Xen answers. Each domain gets a [`Hypervisor`], the same type that an image gets, and what one
//! domain grants and another maps are the same bytes. So a real netfront meets a real netback, with
//! real rings between them, and a driver that uses a stale grant, writes through a read-only one, or
//! frees what the other end still maps fails its test instead of passing by luck.
//!
//! Nothing is simulated of *time*: an event fires the other end's line during
//! [`notify`](crate::EventChannel::notify), and what is stored is there at once.
//!
//! ```
//! use fata_hypercall::{Access, DomainId, Window, simulation::World};
//!
//! let world = World::new();
//! let (front, back) = (world.domain(DomainId(5)), world.domain(DomainId(0)));
//! let page = front.grant(DomainId(0), 1, Access::ReadWrite)?;
//! let theirs = back.map(DomainId(5), page.refs(), Access::ReadWrite)?;
//! theirs.store_u32(8, 0x5847);
//! assert_eq!(page.load_u32(8), 0x5847);
//! # Ok::<(), fata_hypercall::HypercallError>(())
//! ```

mod domain;
mod events;
mod grants;

pub(crate) use domain::Domain;

use crate::window::PAGE_BYTES;
use crate::{DomainId, GrantRef, Hypervisor, Port, ShutdownReason, Suspended};
use alloc::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;
use events::Channels;
use fata_shared::interrupt::Line;
use grants::GrantTable;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `GNTTAB_RESERVED_CONSOLE`: the entry under which domain 0 maps a domain's console page.
pub const CONSOLE_GRANT: GrantRef = GrantRef(0);
/// `GNTTAB_RESERVED_XENSTORE`: the entry under which domain 0 maps a domain's XenStore page.
pub const STORE_GRANT: GrantRef = GrantRef(1);

/// How much a domain may have of what Xen limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainLimits {
    /// Entries of its grant table: 16384, as many as 32 frames hold, Xen's default.
    pub grants: usize,
    /// Its ports: 4095, as many as the two-level interface has on x86-64, but for port 0.
    pub ports: usize,
}

impl Default for DomainLimits {
    fn default() -> Self {
        DomainLimits { grants: 16384, ports: 4095 }
    }
}

/// What the toolstack tells the daemons of a new domain, and they connect with: domain 0
/// [maps](Hypervisor::map) the grant and [binds](Hypervisor::bind_interdomain) the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// XenStore's page and port.
    pub store: (GrantRef, Port),
    /// The console's page and port.
    pub console: (GrantRef, Port),
}

/// The hypervisor of a test. Clones are the same world.
#[derive(Clone, Default)]
pub struct World {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    domains: BTreeMap<DomainId, DomainState>,
}

struct DomainState {
    limits: DomainLimits,
    channels: Channels,
    grants: GrantTable,
    store: Special,
    console: Special,
    /// Pages of others that it maps.
    maps: usize,
    hypercalls: u64,
    upcalls: u64,
    alive: bool,
    shutdown: Option<ShutdownReason>,
    suspension: Suspended,
    reservation: crate::Reservation,
}

/// A page that the tools made.
struct Special {
    page: SharedPage,
    port: Port,
    line: Line,
    /// The domain has asked for it.
    taken: bool,
}

/// Where a page lies that two domains of the test share.
#[derive(Clone, Copy)]
struct SharedPage(NonNull<u8>);

// SAFETY: an address; who reads or writes there answers for it (`grants`, `crate::window`).
unsafe impl Send for SharedPage {}

impl SharedPage {
    /// A zeroed page that is never freed: a test's window on it may outlive the world.
    fn lasting() -> SharedPage {
        let layout = Layout::from_size_align(PAGE_BYTES, PAGE_BYTES).expect("a page");
        // SAFETY: the layout's size is not zero.
        let page = unsafe { alloc_zeroed(layout) };
        SharedPage(NonNull::new(page).unwrap_or_else(|| handle_alloc_error(layout)))
    }
}

impl SharedPage {
    /// Zeroes the page.
    fn clear(self) {
        for byte in 0..PAGE_BYTES {
            // SAFETY: a byte of the page, which is allocated and to which there is no reference.
            unsafe { self.0.add(byte).write_volatile(0) };
        }
    }
}

impl World {
    /// A world without domains.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new domain. A number may be used again once the domain that had it was
    /// [killed](World::kill).
    ///
    /// # Panics
    /// If the domain exists: clone the `Hypervisor` that was given out for it.
    pub fn domain(&self, id: DomainId) -> Hypervisor {
        self.domain_with(id, DomainLimits::default())
    }

    /// As [`domain`](World::domain), with limits that a test can reach.
    ///
    /// # Panics
    /// If the domain exists.
    pub fn domain_with(&self, id: DomainId, limits: DomainLimits) -> Hypervisor {
        let mut state = self.lock();
        let before = state.domains.get(&id);
        assert!(before.is_none_or(|before| !before.alive), "{id} exists already");
        // Numbers of a namesake that was killed stay used: its drivers may still hold some.
        let mut channels = before.map_or_else(Channels::default, |old| old.channels.successor());
        let mut grants = before.map_or_else(GrantTable::default, |old| old.grants.successor());
        let mut special = |grant: GrantRef| {
            let page = SharedPage::lasting();
            let (port, line) = channels.open_unbound(DomainId(0));
            grants.insert_reserved(grant, DomainId(0), page);
            Special { page, port, line, taken: false }
        };
        let (store, console) = (special(STORE_GRANT), special(CONSOLE_GRANT));
        let domain = DomainState {
            limits,
            channels,
            grants,
            store,
            console,
            maps: 0,
            hypercalls: 0,
            upcalls: 0,
            alive: true,
            shutdown: None,
            suspension: Suspended::Cancelled,
            reservation: crate::Reservation { current_pages: 8192, maximum_pages: 8192 },
        };
        state.domains.insert(id, domain);
        drop(state);
        Hypervisor::new(Domain::new(self.clone(), id))
    }

    /// How the daemons in domain 0 reach the domain's special pages.
    ///
    /// # Panics
    /// If there is no such domain.
    pub fn introduction(&self, id: DomainId) -> Introduction {
        let state = self.lock();
        let domain = state.get(id).unwrap_or_else(|| panic!("{id} does not exist"));
        Introduction {
            store: (STORE_GRANT, domain.store.port),
            console: (CONSOLE_GRANT, domain.console.port),
        }
    }

    /// The domain dies: its ports close (other ends stay, unbound and silent), and nobody can map
    /// or copy to its pages any more. What the dead domain's drivers still hold goes on to exist,
    /// for the sake of the test's memory, and does nothing; what it maps of others counts as mapped
    /// until they are dropped, as in Xen until the domain is torn down.
    pub fn kill(&self, id: DomainId) {
        self.lock().kill(id);
    }

    /// Why a domain ended itself; `None` if it did not.
    pub fn shutdown_reason(&self, id: DomainId) -> Option<ShutdownReason> {
        self.lock().domains.get(&id)?.shutdown
    }

    /// What the domain's next [`suspend`](Hypervisor::suspend) comes back with;
    /// [`Suspended::Cancelled`] unless said otherwise. If it is [`Suspended::Resumed`], the tools
    /// have made XenStore's page and the console's anew, with [other ports](World::introduction).
    pub fn set_suspension(&self, id: DomainId, outcome: Suspended) {
        if let Some(domain) = self.lock().domains.get_mut(&id) {
            domain.suspension = outcome;
        }
    }

    /// Grants of `granter` that are mapped somewhere now, counted once for each mapping: what a test
    /// looks at to see that everything was given back.
    pub fn mappings(&self, granter: DomainId) -> usize {
        self.lock().domains.get(&granter).map_or(0, |domain| domain.grants.mappings())
    }

    /// Grants of a domain that are in force, without the two that the tools made.
    pub fn grants(&self, granter: DomainId) -> usize {
        self.lock().domains.get(&granter).map_or(0, |domain| domain.grants.in_force())
    }

    /// Ports that a domain has open, without the two that the tools made.
    pub fn ports(&self, id: DomainId) -> usize {
        self.lock().domains.get(&id).map_or(0, |domain| domain.channels.len().saturating_sub(2))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A domain that lives.
    fn get(&self, id: DomainId) -> Option<&DomainState> {
        self.domains.get(&id).filter(|domain| domain.alive)
    }

    fn get_mut(&mut self, id: DomainId) -> Option<&mut DomainState> {
        self.domains.get_mut(&id).filter(|domain| domain.alive)
    }

    fn kill(&mut self, id: DomainId) {
        let Some(domain) = self.get_mut(id) else { return };
        domain.alive = false;
        let ports: Vec<Port> = domain.channels.ports().collect();
        for port in ports {
            self.close(id, port);
        }
        if let Some(domain) = self.domains.get_mut(&id) {
            domain.grants.invalidate();
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().domains.keys()).finish()
    }
}

#[cfg(test)]
mod tests;
