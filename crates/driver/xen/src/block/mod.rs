//! Disks: [`Blkfront`] uses one that another domain has, [`BlockBackends`] lends one of ours.

mod back;
mod front;
mod names;
#[cfg(test)]
mod rig;
mod slots;

pub use back::{BlkbackCounters, BlkbackOptions, BlockBackends};
pub use front::{Blkfront, BlkfrontCounters, BlkfrontOptions};
pub use names::{DiskName, select};
pub use slots::BlockSlot;
#[cfg(test)]
mod tests;
