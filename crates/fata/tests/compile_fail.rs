//! What must not compile, with the words that say so.
//!
//! `TRYBUILD=overwrite cargo test -p fata` writes the expected messages anew, which a new rustc may
//! word differently; read them before you commit them.

#[test]
fn devices_cannot_be_opened_and_mistakes_are_shown_at_the_field() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
