//! Copies between our memory and another domain's granted pages (`GNTTABOP_copy`).
//!
//! Xen moves the bytes: nothing is mapped, so nothing has to be unmapped on every processor, and the
//! other domain cannot change what has been copied. It is how a backend takes and gives frames.

use crate::{DomainId, GrantRef};

/// One copy. Several go to Xen in one call, see
/// [`Hypervisor::copy`](crate::Hypervisor::copy).
#[derive(Debug)]
pub struct CopyOperation<'a> {
    /// Whose page it is.
    pub remote: DomainId,
    /// Which of its pages.
    pub grant: GrantRef,
    /// Where in that page, in bytes. With the data's length at most 4096: a copy does not leave
    /// the page.
    pub offset: u16,
    /// Our side, and the direction. At most a page.
    pub data: CopyData<'a>,
    /// What Xen says about this copy: a `GNTST_*`, 0 when it was done; anything else and the bytes
    /// may be anything. In words: [`grant_status_words`](crate::grant_status_words).
    pub status: i16,
}

/// Our side of a copy.
#[derive(Debug)]
pub enum CopyData<'a> {
    /// Into these bytes, from the other domain's page.
    Into(&'a mut [u8]),
    /// From these bytes, into the other domain's page.
    From(&'a [u8]),
}

impl CopyData<'_> {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            CopyData::Into(bytes) => bytes.len(),
            CopyData::From(bytes) => bytes.len(),
        }
    }

    /// True if nothing is to be copied.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `GNTST_bad_copy_arg`: what an operation that leaves its page is answered, by us or by Xen.
pub(crate) const BAD_COPY_ARGUMENT: i16 = -10;
