//! Where everything starts: a domain's own view of the hypervisor.

use crate::copy::BAD_COPY_ARGUMENT;
use crate::grant::Parts;
use crate::half::{self, Half};
use crate::lock::Lock;
use crate::window::PAGE_BYTES;
use crate::{
    Access, CopyOperation, Counters, DomainId, EventChannel, GrantRef, Granted, HypercallError,
    Mapped, Port, Reservation, ShutdownReason, SpecialPage, Suspended,
};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// The hypervisor, as one domain sees it. Clones are the same.
#[derive(Clone)]
pub struct Hypervisor {
    common: Arc<Common>,
}

/// What everything that a domain owns refers to.
pub(crate) struct Common {
    pub(crate) half: half::Domain,
    counts: Counts,
    /// Pages of dropped grants that another domain still maps.
    waiting: Lock<Vec<Parts>>,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) notifications: AtomicU64,
    pub(crate) grants_made: AtomicU64,
    pub(crate) grants_revoked: AtomicU64,
    pub(crate) copies: AtomicU64,
    pub(crate) maps: AtomicU64,
    pub(crate) unmaps: AtomicU64,
}

impl Common {
    pub(crate) fn count(&self, which: impl FnOnce(&Counts) -> &AtomicU64, by: usize) {
        which(&self.counts).fetch_add(by as u64, Ordering::Relaxed);
    }

    /// Keeps pages until [`Common::retry_waiting`] gets them back.
    pub(crate) fn keep_waiting(&self, parts: Parts) {
        self.waiting.with(|waiting| waiting.push(parts));
    }

    /// Frees the pages that were let go of meanwhile. Looks at each grant that waits; there are
    /// none unless a backend keeps what its frontend took back.
    pub(crate) fn retry_waiting(&self) {
        self.waiting.with(|waiting| {
            for index in (0..waiting.len()).rev() {
                if waiting[index].end(self) {
                    waiting.swap_remove(index).free();
                }
            }
        });
    }
}

impl Hypervisor {
    pub(crate) fn new(half: half::Domain) -> Self {
        let waiting = Lock::new(Vec::new());
        Hypervisor { common: Arc::new(Common { half, counts: Counts::default(), waiting }) }
    }

    /// Which domain this is. (A driver that needs its own number in a path of XenStore asks
    /// XenStore: after a resume it may be another one.)
    pub fn domain_id(&self) -> DomainId {
        self.common.half.domain_id()
    }

    /// Makes an event channel that `remote` may bind to, once it is told the port
    /// (`EVTCHNOP_alloc_unbound`).
    ///
    /// # Errors
    /// Xen's refusal, with `ENOSPC` when the domain has no port left.
    pub fn allocate_unbound(&self, remote: DomainId) -> Result<EventChannel, HypercallError> {
        let end = self.common.half.allocate_unbound(remote)?;
        Ok(EventChannel::new(&self.common, remote, end))
    }

    /// Binds to an event channel that `remote` made for us (`EVTCHNOP_bind_interdomain`). Its line
    /// has fired already, in case the other end notified before we were there.
    ///
    /// # Errors
    /// Xen's refusal: there is no such port, it is not for us, or it is bound.
    pub fn bind_interdomain(
        &self,
        remote: DomainId,
        port: Port,
    ) -> Result<EventChannel, HypercallError> {
        let end = self.common.half.bind_interdomain(remote, port)?;
        Ok(EventChannel::new(&self.common, remote, end))
    }

    /// Grants `remote` the use of `pages` new zeroed pages, which follow each other in our memory.
    ///
    /// # Errors
    /// `ENOMEM` when there is no memory for the pages, or the grant table is full and Xen lets it
    /// grow no more.
    pub fn grant(
        &self,
        remote: DomainId,
        pages: usize,
        access: Access,
    ) -> Result<Granted, HypercallError> {
        Granted::new(&self.common, remote, pages, access)
    }

    /// Maps pages that `remote` granted us, one after the other: all of them or none.
    ///
    /// # Errors
    /// Xen's refusal of the first page that it refused; `ENOMEM` when there are no addresses left;
    /// `EINVAL` for no
    /// pages, and for the domain's own, which cannot be at two addresses.
    pub fn map(
        &self,
        remote: DomainId,
        refs: &[GrantRef],
        access: Access,
    ) -> Result<Mapped, HypercallError> {
        Mapped::new(&self.common, remote, refs, access)
    }

    /// Copies between our memory and granted pages, all in one hypercall (`GNTTABOP_copy`). Each
    /// operation has a status of its own, to be looked at; one that would leave its page is not
    /// done, and says so in its status.
    ///
    /// # Errors
    /// Xen did not look at the operations at all, which is a mistake here or in Xen; each status
    /// that is not 0 then means that the copy was not done.
    pub fn copy(&self, operations: &mut [CopyOperation<'_>]) -> Result<(), HypercallError> {
        let mut good = 0;
        for operation in operations.iter_mut() {
            let end = usize::from(operation.offset) + operation.data.len();
            operation.status = BAD_COPY_ARGUMENT;
            good += usize::from(end <= PAGE_BYTES);
        }
        if good == 0 {
            return Ok(());
        }
        self.common.count(|counts| &counts.copies, good);
        if good == operations.len() {
            return self.common.half.copy(operations);
        }
        // A caller's mistake, and not worth being fast for: the good ones, run by run.
        operations
            .chunk_by_mut(|a, b| is_in_page(a) == is_in_page(b))
            .filter(|run| is_in_page(&run[0]))
            .try_for_each(|run| self.common.half.copy(run))
    }

    /// XenStore's page and its event channel; given out once.
    pub fn store_page(&self) -> Option<(SpecialPage, EventChannel)> {
        self.special(self.common.half.store_page()?)
    }

    /// The console's page and its event channel; given out once.
    pub fn console_page(&self) -> Option<(SpecialPage, EventChannel)> {
        self.special(self.common.half.console_page()?)
    }

    fn special(&self, special: half::Special) -> Option<(SpecialPage, EventChannel)> {
        let (memory, port, line) = special;
        Some((SpecialPage::new(memory), EventChannel::lasting(&self.common, port, line)))
    }

    /// How much memory the domain has and may have.
    pub fn memory(&self) -> Reservation {
        self.common.half.reservation()
    }

    /// Ends the domain.
    pub fn shutdown(&self, reason: ShutdownReason) -> ! {
        self.common.half.shutdown(reason)
    }

    /// Suspends the domain, as the tools asked (`xl save`, `xl migrate`), and returns when it goes
    /// on. Devices must be disconnected before; see [`Suspended`] for what there is afterwards.
    ///
    /// # Errors
    /// Xen's refusal; nothing has changed then.
    pub fn suspend(&self) -> Result<Suspended, HypercallError> {
        self.common.half.suspend()
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        let Common { half, counts, waiting } = &*self.common;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let pages_waiting =
            waiting.with(|waiting| waiting.iter().map(Parts::pages_waiting).sum::<usize>());
        Counters {
            hypercalls: half.hypercalls(),
            notifications: read(&counts.notifications),
            upcalls: half.upcalls(),
            grants_made: read(&counts.grants_made),
            grants_revoked: read(&counts.grants_revoked),
            grants_waiting: pages_waiting as u64,
            copies: read(&counts.copies),
            maps: read(&counts.maps),
            unmaps: read(&counts.unmaps),
        }
    }
}

fn is_in_page(operation: &CopyOperation<'_>) -> bool {
    usize::from(operation.offset) + operation.data.len() <= PAGE_BYTES
}

impl fmt::Debug for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hypervisor({})", self.domain_id())
    }
}
