//! Formats: views over bytes that may hold anything.
//!
//! A view's `parse` checks every length and offset that its accessors use and returns `None` for
//! bytes that cannot be what they claim; after that no accessor can panic. Nothing here copies, and
//! nothing here decides: what a value means is the business of the module that asked.

pub(crate) mod tcp;
