//! The fata command.
fn main() {}
