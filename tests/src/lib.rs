//! What the tests that boot images share.
