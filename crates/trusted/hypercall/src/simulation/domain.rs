//! [`Domain`]: one domain's view of a [`World`].

use super::grants::Mapping;
use super::{DomainState, Special, World};
use crate::half::{self, Half};
use crate::window::{Memory, PAGE_BYTES};
use crate::{
    Access, CopyOperation, DomainId, GrantRef, HypercallError, Port, Reservation, ShutdownReason,
    Suspended,
};
use core::ptr::NonNull;
use fata_shared::interrupt::Line;

/// The simulated half.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    world: World,
    id: DomainId,
}

impl Domain {
    pub(super) fn new(world: World, id: DomainId) -> Self {
        Domain { world, id }
    }

    /// The world, for a call of the hypervisor.
    fn call<R>(&self, make: impl FnOnce(&mut super::State) -> R) -> R {
        let mut state = self.world.lock();
        if let Some(domain) = state.domains.get_mut(&self.id) {
            domain.hypercalls += 1;
        }
        make(&mut state)
    }

    fn take_special(
        &self,
        which: impl FnOnce(&mut DomainState) -> &mut Special,
    ) -> Option<half::Special> {
        let mut state = self.world.lock();
        let special = which(state.get_mut(self.id)?);
        if core::mem::replace(&mut special.taken, true) {
            return None;
        }
        // SAFETY: the page is never freed, and nobody makes a reference to it.
        let memory = unsafe { Memory::contiguous(special.page.0, PAGE_BYTES) };
        Some((memory, special.port, special.line.clone()))
    }
}

impl Half for Domain {
    type Mapping = Mapping;

    fn domain_id(&self) -> DomainId {
        self.id
    }

    fn allocate_unbound(&self, remote: DomainId) -> Result<(Port, Line), HypercallError> {
        self.call(|world| world.allocate_unbound(self.id, remote))
    }

    fn bind_interdomain(
        &self,
        remote: DomainId,
        port: Port,
    ) -> Result<(Port, Line), HypercallError> {
        self.call(|world| world.bind_interdomain(self.id, remote, port))
    }

    fn notify(&self, port: Port) {
        let line = self.call(|world| world.notify(self.id, port));
        if let Some(line) = line {
            line.fire();
        }
    }

    fn is_connected(&self, port: Port) -> bool {
        self.call(|world| world.is_connected(self.id, port))
    }

    fn close(&self, port: Port) {
        self.call(|world| world.close(self.id, port));
    }

    fn grant_page(
        &self,
        remote: DomainId,
        page: NonNull<u8>,
        access: Access,
    ) -> Result<GrantRef, HypercallError> {
        // Not a hypercall: the table is memory.
        self.world.lock().grant_page(self.id, remote, page, access)
    }

    fn end_access(&self, grant: GrantRef) -> bool {
        self.world.lock().end_access(self.id, grant)
    }

    fn map(
        &self,
        remote: DomainId,
        refs: &[GrantRef],
        access: Access,
    ) -> Result<(Memory, Mapping), HypercallError> {
        let (pages, mapping) = self.call(|world| world.map(self.id, remote, refs, access))?;
        // SAFETY: the granter's pages stay allocated until `end_access` has said true, which it does
        // not while the mapping counts. The granter has no reference to them if it lets others
        // write; if it does not, the memory
        // was asked for to be read, and refuses to store.
        let memory = unsafe { Memory::scattered(pages, access == Access::ReadWrite) };
        Ok((memory, mapping))
    }

    fn unmap(&self, mapping: Mapping) {
        self.call(|world| world.unmap(&mapping));
    }

    fn copy(&self, operations: &mut [CopyOperation<'_>]) -> Result<(), HypercallError> {
        self.call(|world| {
            for operation in operations {
                operation.status = world.copy(self.id, operation);
            }
        });
        Ok(())
    }

    fn store_page(&self) -> Option<half::Special> {
        self.take_special(|domain| &mut domain.store)
    }

    fn console_page(&self) -> Option<half::Special> {
        self.take_special(|domain| &mut domain.console)
    }

    fn reservation(&self) -> Reservation {
        let nothing = Reservation { current_pages: 0, maximum_pages: 0 };
        self.call(|world| world.get(self.id).map_or(nothing, |domain| domain.reservation))
    }

    fn shutdown(&self, reason: ShutdownReason) -> ! {
        self.call(|world| {
            if let Some(domain) = world.get_mut(self.id) {
                domain.shutdown = Some(reason);
            }
            world.kill(self.id);
        });
        panic!("{} has shut down: {reason:?}", self.id)
    }

    fn suspend(&self) -> Result<Suspended, HypercallError> {
        self.call(|world| {
            let no_domain = HypercallError::new("SCHEDOP_shutdown", super::events::NO_DOMAIN);
            let domain = world.get(self.id).ok_or(no_domain)?;
            let outcome = domain.suspension;
            // Two ports are the tools'.
            if domain.channels.len() > 2 || world.maps_of(self.id) > 0 {
                let busy = "a suspension with devices connected";
                return Err(HypercallError::new(busy, super::events::BUSY));
            }
            if outcome == Suspended::Resumed {
                world.restore(self.id);
            }
            Ok(outcome)
        })
    }

    fn hypercalls(&self) -> u64 {
        self.world.lock().domains.get(&self.id).map_or(0, |domain| domain.hypercalls)
    }

    fn upcalls(&self) -> u64 {
        self.world.lock().domains.get(&self.id).map_or(0, |domain| domain.upcalls)
    }
}

impl super::State {
    /// What is left of a domain that was saved and restored: its memory and its grants. The tools
    /// have made its two pages anew, with other ports.
    fn restore(&mut self, id: DomainId) {
        let Some(domain) = self.get(id) else { return };
        for port in [domain.store.port, domain.console.port] {
            self.close(id, port);
        }
        let Some(domain) = self.get_mut(id) else { return };
        for special in [&mut domain.store, &mut domain.console] {
            (special.port, special.line) = domain.channels.open_unbound(DomainId(0));
            special.taken = false;
            special.page.clear();
        }
    }
}
