//! To be completed.
use alloc::{boxed::Box, vec::Vec};
use fata_shared::pci::Function;
pub(crate) fn scan() -> Vec<Box<dyn Function>> {
    Vec::new()
}
