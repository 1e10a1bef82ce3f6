//! The grant table of one domain, and what others do with it (public/grant_table.h, version 1).

use super::{SharedPage, State};
use crate::window::PAGE_BYTES;
use crate::{Access, CopyData, CopyOperation, DomainId, GrantRef, HypercallError};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ptr::NonNull;

/// `GNTST_bad_domain`.
const BAD_DOMAIN: i16 = -2;
/// `GNTST_bad_gntref`.
const BAD_REFERENCE: i16 = -3;
/// `GNTST_permission_denied`.
const PERMISSION_DENIED: i16 = -8;
/// `GNTST_bad_copy_arg`.
const BAD_COPY_ARGUMENT: i16 = -10;

/// The first entry that the tools do not reserve (`GNTTAB_NR_RESERVED_ENTRIES`).
const FIRST: u32 = 8;

struct Grant {
    page: SharedPage,
    remote: DomainId,
    access: Access,
    /// How often it is mapped.
    maps: usize,
    /// The domain lives and lets it be mapped and copied.
    valid: bool,
}

/// Entries are not used again while others are left, so that a stale reference is an error and not
/// somebody else's page.
pub(super) struct GrantTable {
    grants: BTreeMap<GrantRef, Grant>,
    next: u32,
}

impl Default for GrantTable {
    fn default() -> Self {
        GrantTable { grants: BTreeMap::new(), next: FIRST }
    }
}

impl GrantTable {
    /// That of a domain which takes the number of one that was killed.
    ///
    /// Pages of the dead one that are still mapped stay: its drivers may ask for them.
    pub(super) fn successor(&self) -> GrantTable {
        let kept = self.grants.iter().filter(|(grant, _)| grant.0 >= FIRST);
        let grants = kept.map(|(&grant, entry)| (grant, Grant { ..*entry })).collect();
        GrantTable { grants, next: self.next }
    }

    pub(super) fn insert_reserved(&mut self, grant: GrantRef, remote: DomainId, page: SharedPage) {
        self.grants
            .insert(grant, Grant { page, remote, access: Access::ReadWrite, maps: 0, valid: true });
    }

    pub(super) fn mappings(&self) -> usize {
        self.grants.iter().filter(|(grant, _)| grant.0 >= FIRST).map(|(_, entry)| entry.maps).sum()
    }

    pub(super) fn in_force(&self) -> usize {
        self.grants.range(GrantRef(FIRST)..).filter(|(_, entry)| entry.valid).count()
    }

    /// Nobody maps or copies any of these from now on; what is mapped stays.
    pub(super) fn invalidate(&mut self) {
        self.grants.values_mut().for_each(|entry| entry.valid = false);
    }

    /// The entry, if `user` may use it in this way.
    fn usable(
        &mut self,
        grant: GrantRef,
        user: DomainId,
        access: Access,
    ) -> Result<&mut Grant, i16> {
        let entry = self.grants.get_mut(&grant);
        let entry =
            entry.filter(|entry| entry.valid && entry.remote == user).ok_or(BAD_REFERENCE)?;
        if access == Access::ReadWrite && entry.access == Access::ReadOnly {
            return Err(PERMISSION_DENIED);
        }
        Ok(entry)
    }
}

/// What is mapped, and where it has to be given back.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(super) granter: DomainId,
    mapper: DomainId,
    pub(super) refs: Vec<GrantRef>,
}

impl State {
    pub(super) fn grant_page(
        &mut self,
        id: DomainId,
        remote: DomainId,
        page: NonNull<u8>,
        access: Access,
    ) -> Result<GrantRef, HypercallError> {
        let no_memory = HypercallError::new("a grant of pages", HypercallError::NO_MEMORY);
        let domain = self.domains.get_mut(&id).ok_or(no_memory)?;
        let (valid, limit) = (domain.alive, domain.limits.grants);
        let table = &mut domain.grants;
        // Two of the reserved entries are in the list.
        if table.grants.len() + FIRST as usize - 2 >= limit {
            return Err(no_memory);
        }
        let grant = GrantRef(table.next);
        table.next += 1;
        table
            .grants
            .insert(grant, Grant { page: SharedPage(page), remote, access, maps: 0, valid });
        Ok(grant)
    }

    pub(super) fn end_access(&mut self, id: DomainId, grant: GrantRef) -> bool {
        let Some(domain) = self.domains.get_mut(&id) else { return true };
        match domain.grants.grants.get(&grant) {
            Some(entry) if entry.maps > 0 => false,
            _ => {
                domain.grants.grants.remove(&grant);
                true
            }
        }
    }

    pub(super) fn map(
        &mut self,
        id: DomainId,
        granter: DomainId,
        refs: &[GrantRef],
        access: Access,
    ) -> Result<(Vec<NonNull<u8>>, Mapping), HypercallError> {
        let refused =
            |status: i16| HypercallError::new("GNTTABOP_map_grant_ref", i32::from(status));
        self.get(id).ok_or(refused(BAD_DOMAIN))?;
        let table = &mut self.get_mut(granter).ok_or(refused(BAD_DOMAIN))?.grants;
        let mut pages = Vec::with_capacity(refs.len());
        for &grant in refs {
            pages.push(table.usable(grant, id, access).map_err(refused)?.page.0);
        }
        for &grant in refs {
            table.usable(grant, id, access).map_err(refused)?.maps += 1;
        }
        let mapping = Mapping { granter, mapper: id, refs: refs.to_vec() };
        if let Some(mapper) = self.domains.get_mut(&id) {
            mapper.maps += refs.len();
        }
        Ok((pages, mapping))
    }

    /// Pages of others that a domain maps.
    pub(super) fn maps_of(&self, id: DomainId) -> usize {
        self.domains.get(&id).map_or(0, |domain| domain.maps)
    }

    pub(super) fn unmap(&mut self, mapping: &Mapping) {
        if let Some(mapper) = self.domains.get_mut(&mapping.mapper) {
            // Less than what it gives back has a namesake of one that was killed.
            mapper.maps = mapper.maps.saturating_sub(mapping.refs.len());
        }
        let Some(domain) = self.domains.get_mut(&mapping.granter) else { return };
        for grant in &mapping.refs {
            if let Some(entry) = domain.grants.grants.get_mut(grant) {
                entry.maps -= 1;
            }
        }
    }

    /// One copy; its status.
    pub(super) fn copy(&mut self, id: DomainId, operation: &mut CopyOperation<'_>) -> i16 {
        let (offset, len) = (usize::from(operation.offset), operation.data.len());
        if offset + len > PAGE_BYTES {
            return BAD_COPY_ARGUMENT;
        }
        if self.get(id).is_none() {
            return BAD_DOMAIN;
        }
        let Some(granter) = self.get_mut(operation.remote) else { return BAD_DOMAIN };
        let access = match operation.data {
            CopyData::Into(_) => Access::ReadOnly,
            CopyData::From(_) => Access::ReadWrite,
        };
        let page = match granter.grants.usable(operation.grant, id, access) {
            Ok(entry) => entry.page.0,
            Err(status) => return status,
        };
        // SAFETY: `offset` is in the page, or one past it.
        let theirs = unsafe { page.as_ptr().add(offset) };
        match &mut operation.data {
            // SAFETY: a page that is in a grant table is allocated until `end_access` has taken it
            // out, which the locked world keeps from happening now; the range lies in it. `copy`
            // and not `copy_nonoverlapping`: a domain may grant to itself.
            CopyData::Into(bytes) => unsafe { theirs.copy_to(bytes.as_mut_ptr(), len) },
            // SAFETY: as above; the granter allows writing, so it has no reference to the page.
            CopyData::From(bytes) => unsafe { theirs.copy_from(bytes.as_ptr(), len) },
        }
        0
    }
}
