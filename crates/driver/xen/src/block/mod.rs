//! Disks: [`Blkfront`] uses one that another domain has, [`BlockBackends`] lends one of ours.

mod back;
mod front;
mod names;
#[cfg(test)]
mod rig;

pub use back::BlkbackCounters;
pub use front::{Blkfront, BlkfrontCounters, BlkfrontOptions};
pub use names::{DiskName, select};
