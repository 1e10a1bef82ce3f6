//! The real hypercalls.
