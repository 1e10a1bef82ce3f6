//! An entry of the grant table, version 1 (`grant_entry_v1`, public/grant_table.h).
//!
//! ```text
//! u16 flags | u16 domain | u32 frame
//! ```
//! We write domain and frame, then the flags; Xen sets two of the flags while the other domain uses
//! the page, and so does the end of a grant depend on a compare-and-exchange of the flags.

use crate::Access;
use core::sync::atomic::{AtomicU16, Ordering};

/// Bytes of an entry.
pub(crate) const BYTES: usize = 8;
/// Entries that the tools use: the console's and XenStore's grants are among them
/// (`GNTTAB_NR_RESERVED_ENTRIES`).
pub(crate) const RESERVED: u32 = 8;

/// `GTF_permit_access`.
const PERMIT_ACCESS: u16 = 1;
/// `GTF_readonly`.
const READ_ONLY: u16 = 1 << 2;
/// `GTF_reading`: it is mapped, or a copy from it goes on.
const READING: u16 = 1 << 3;
/// `GTF_writing`: it is mapped to be written, or a copy to it goes on.
const WRITING: u16 = 1 << 4;

/// The flags that grant a page.
pub(crate) const fn flags(access: Access) -> u16 {
    match access {
        Access::ReadOnly => PERMIT_ACCESS | READ_ONLY,
        Access::ReadWrite => PERMIT_ACCESS,
    }
}

/// The flags as they were when nobody used the page.
pub(crate) const fn without_use(flags: u16) -> u16 {
    flags & !(READING | WRITING)
}

/// Ends a grant, unless the page is in use.
pub(crate) fn end(flags: &AtomicU16) -> bool {
    // Xen sets a flag of use by compare-and-exchange too: one of us comes first.
    flags
        .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |flags| {
            (without_use(flags) == flags).then_some(0)
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_ends_only_when_nobody_uses_the_page() {
        for access in [Access::ReadOnly, Access::ReadWrite] {
            for used in [READING, WRITING, READING | WRITING] {
                let entry = AtomicU16::new(flags(access) | used);
                assert!(!end(&entry));
                assert_eq!(entry.load(Ordering::Relaxed), flags(access) | used);
                assert_eq!(without_use(flags(access) | used), flags(access));
            }
            let entry = AtomicU16::new(flags(access));
            assert!(end(&entry));
            assert_eq!(entry.load(Ordering::Relaxed), 0);
        }
    }
}
