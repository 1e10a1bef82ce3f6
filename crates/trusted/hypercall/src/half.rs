//! What each half of the crate must be able to do: the mechanisms, with no bookkeeping.
//!
//! The public types own, count and give back; a half only does what it is told. It is shared by
//! clones and used through `&self`.

use crate::window::Memory;
use crate::{
    Access, CopyOperation, DomainId, GrantRef, HypercallError, Port, Reservation, ShutdownReason,
    Suspended,
};
use core::ptr::NonNull;
use fata_shared::interrupt::Line;

#[cfg(fata_target = "xen")]
pub(crate) use crate::image::Domain;
#[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
pub(crate) use crate::simulation::Domain;

/// What a half knows of a page that the tools made for a domain: XenStore's, or the console's.
pub(crate) type Special = (Memory, Port, Line);

/// A domain's own view of the hypervisor.
pub(crate) trait Half: Clone + Send + Sync + 'static {
    /// What it takes to unmap what was mapped.
    type Mapping: Send + Sync;

    fn domain_id(&self) -> DomainId;

    /// A new port that `remote` may bind to, and the line that it fires.
    fn allocate_unbound(&self, remote: DomainId) -> Result<(Port, Line), HypercallError>;

    /// A new port, bound to `port` of `remote`, and the line that it fires. It has fired already:
    /// the other end may have notified before there was anybody to hear it.
    fn bind_interdomain(
        &self,
        remote: DomainId,
        port: Port,
    ) -> Result<(Port, Line), HypercallError>;

    /// Notifies the other end. A port without another end swallows it.
    fn notify(&self, port: Port);

    /// Whether `port` has another end.
    fn is_connected(&self, port: Port) -> bool;

    /// Closes `port`: its line does not fire any more, its number may be given out again.
    fn close(&self, port: Port);

    /// Grants `remote` the page at `page`, which stays mapped and unmoved until
    /// [`Half::end_access`] has said true.
    fn grant_page(
        &self,
        remote: DomainId,
        page: NonNull<u8>,
        access: Access,
    ) -> Result<GrantRef, HypercallError>;

    /// Ends a grant, if the other domain does not map the page at the moment. True: it cannot map
    /// it again, and `grant` may be given out again. False: nothing has changed.
    fn end_access(&self, grant: GrantRef) -> bool;

    /// Maps `refs` of `remote`, one after the other; all or none.
    fn map(
        &self,
        remote: DomainId,
        refs: &[GrantRef],
        access: Access,
    ) -> Result<(Memory, Self::Mapping), HypercallError>;

    /// Unmaps. Nobody uses the memory any more.
    fn unmap(&self, mapping: Self::Mapping);

    /// Does the copies, each of which is at most a page and does not leave the other domain's; sets
    /// each one's status.
    fn copy(&self, operations: &mut [CopyOperation<'_>]) -> Result<(), HypercallError>;

    /// XenStore's page and port; `None` when asked again, or when there is none.
    fn store_page(&self) -> Option<Special>;

    /// The console's.
    fn console_page(&self) -> Option<Special>;

    fn reservation(&self) -> Reservation;

    fn shutdown(&self, reason: ShutdownReason) -> !;

    fn suspend(&self) -> Result<Suspended, HypercallError>;

    /// Calls of the hypervisor so far.
    fn hypercalls(&self) -> u64;

    /// Upcalls so far.
    fn upcalls(&self) -> u64;
}
