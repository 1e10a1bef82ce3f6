//! Pages that two domains share: ours that we grant, theirs that we map, and the two that the tools
//! made (public/grant_table.h).

use crate::half::{self, Half};
use crate::hypervisor::Common;
use crate::window::{Memory, PAGE_BYTES, window};
use crate::{Access, DomainId, GrantRef, HypercallError};
use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;

/// Our pages that another domain may use, until they are revoked.
///
/// They are zeroed when they are granted, so that nothing of what was in memory before leaves the
/// domain, and they go back to the heap only when the other domain can reach them no more.
pub struct Granted {
    common: Arc<Common>,
    remote: DomainId,
    access: Access,
    /// `None` only between giving the parts away and the end of a drop.
    parts: Option<Parts>,
}

/// The pages and the grants of a [`Granted`], or of one that is gone while its pages are still
/// mapped elsewhere.
pub(crate) struct Parts {
    memory: Memory,
    /// One for each page.
    refs: Vec<GrantRef>,
    /// The first of `refs` that has not been ended.
    ended: usize,
}

impl Parts {
    fn layout(pages: usize) -> Option<Layout> {
        Layout::from_size_align(pages.checked_mul(PAGE_BYTES)?, PAGE_BYTES).ok()
    }

    /// Zeroed pages from the heap, granted to nobody yet.
    fn new(pages: usize) -> Option<Parts> {
        let layout = Self::layout(pages).filter(|layout| layout.size() > 0)?;
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // SAFETY: the pages are the parts' own until `free`, and page-aligned; references to them
        // are made by `Granted::bytes_mut` alone, which borrows all of the `Granted`.
        let memory = unsafe { Memory::contiguous(base, layout.size()) };
        Some(Parts { memory, refs: Vec::with_capacity(pages), ended: 0 })
    }

    /// Ends the grants, as far as they can be ended now. True: all are.
    pub(crate) fn end(&mut self, common: &Common) -> bool {
        while let Some(&grant) = self.refs.get(self.ended) {
            if !common.half.end_access(grant) {
                return false;
            }
            self.ended += 1;
            common.count(|counts| &counts.grants_revoked, 1);
        }
        true
    }

    /// How many pages the other domain may still reach.
    pub(crate) fn pages_waiting(&self) -> usize {
        self.refs.len() - self.ended
    }

    /// Gives the pages back to the heap. All grants have been ended.
    pub(crate) fn free(self) {
        debug_assert_eq!(self.pages_waiting(), 0);
        let layout = Self::layout(self.memory.len() / PAGE_BYTES).expect("as when it was made");
        // SAFETY: allocated in `new` with this very layout, and freed only here, which takes the
        // parts. No other domain can reach the pages: every grant has been ended.
        unsafe { dealloc(self.memory.base().as_ptr(), layout) };
    }
}

impl Granted {
    pub(crate) fn new(
        common: &Arc<Common>,
        remote: DomainId,
        pages: usize,
        access: Access,
    ) -> Result<Granted, HypercallError> {
        common.retry_waiting();
        let no_memory = HypercallError::new("a grant of pages", HypercallError::NO_MEMORY);
        let parts = Some(Parts::new(pages).ok_or(no_memory)?);
        let mut granted = Granted { common: common.clone(), remote, access, parts };
        for page in 0..pages {
            let parts = granted.parts.as_mut().expect("just made");
            // SAFETY: `page` is less than the number of pages.
            let place = unsafe { parts.memory.base().add(page * PAGE_BYTES) };
            // An error drops `granted`, which ends the grants that were made.
            parts.refs.push(common.half.grant_page(remote, place, access)?);
            common.count(|counts| &counts.grants_made, 1);
        }
        Ok(granted)
    }

    fn parts(&self) -> &Parts {
        self.parts.as_ref().expect("taken by `drop` and `revoke` alone")
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.parts().memory
    }

    /// The grants, one for each page, in the pages' order.
    pub fn refs(&self) -> &[GrantRef] {
        &self.parts().refs
    }

    /// The domain that may use the pages.
    pub fn remote(&self) -> DomainId {
        self.remote
    }

    /// What that domain may do.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The bytes, if the other domain may only read them; it may do so at any moment, and what it
    /// sees of a write in progress is its own affair. `None` if it may write: then there is no
    /// reference that Rust would allow, and a [`Window`](crate::Window) is the way.
    ///
    /// (There is no `bytes(&self)`: a window stores through `&self`, and would write under it.)
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let memory = self.memory();
        // SAFETY: the pages are ours and initialised. Nobody writes them while the reference lives:
        // the other domain may not, and whoever writes here needs a borrow of `self`.
        (self.access == Access::ReadOnly).then(|| unsafe {
            core::slice::from_raw_parts_mut(memory.base().as_ptr(), memory.len())
        })
    }

    /// Ends the grants and frees the pages.
    ///
    /// # Errors
    /// The pages themselves, when the other domain still maps one of them. Some of the grants may
    /// have been ended: what is left is good for trying again, or for dropping, which keeps the
    /// pages from the heap until the other domain lets go of them.
    pub fn revoke(mut self) -> Result<(), Granted> {
        self.common.retry_waiting();
        let mut parts = self.parts.take().expect("taken by `drop` and `revoke` alone");
        if parts.end(&self.common) {
            parts.free();
            return Ok(());
        }
        self.parts = Some(parts);
        Err(self)
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        let Some(mut parts) = self.parts.take() else { return };
        if parts.end(&self.common) {
            parts.free();
        } else {
            self.common.keep_waiting(parts);
        }
    }
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Granted({} pages to {})", self.refs().len(), self.remote)
    }
}

window!(Granted);

/// Another domain's pages that we map. Dropping it unmaps them.
pub struct Mapped {
    common: Arc<Common>,
    remote: DomainId,
    memory: Memory,
    /// `None` only after `drop`.
    mapping: Option<<half::Domain as Half>::Mapping>,
}

impl Mapped {
    pub(crate) fn new(
        common: &Arc<Common>,
        remote: DomainId,
        refs: &[GrantRef],
        access: Access,
    ) -> Result<Mapped, HypercallError> {
        // A page at two addresses of its own domain is not possible: Xen takes it away from the first,
        // which Rust may have references to.
        let is_own = [common.half.domain_id(), DomainId::SELF].contains(&remote);
        if refs.is_empty() || is_own {
            return Err(HypercallError::new("GNTTABOP_map_grant_ref", HypercallError::INVALID));
        }
        let (memory, mapping) = common.half.map(remote, refs, access)?;
        common.count(|counts| &counts.maps, refs.len());
        Ok(Mapped { common: common.clone(), remote, memory, mapping: Some(mapping) })
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Whose pages they are.
    pub fn remote(&self) -> DomainId {
        self.remote
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            self.common.half.unmap(mapping);
            self.common.count(|counts| &counts.unmaps, self.memory.len() / PAGE_BYTES);
        }
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapped({} pages of {})", self.memory.len() / PAGE_BYTES, self.remote)
    }
}

window!(Mapped);

/// A page that the tools made when they made the domain: XenStore's or the console's. It is shared
/// with the daemon in another domain for as long as the domain lives.
#[derive(Debug)]
pub struct SpecialPage {
    memory: Memory,
}

impl SpecialPage {
    pub(crate) fn new(memory: Memory) -> Self {
        SpecialPage { memory }
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }
}

window!(SpecialPage);
