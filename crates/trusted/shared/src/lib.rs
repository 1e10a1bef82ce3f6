//! The windows that Fata's safe drivers look through.
//!
//! Memory that a device or another domain may write at any moment, device registers, and interrupt
//! lines, each as a type whose safe methods cannot break Rust's rules whatever the other side does.
//! Everything here is made by the machine (or a test) and used by drivers.
//!
//! See `SOUNDNESS.md` for the argument.
