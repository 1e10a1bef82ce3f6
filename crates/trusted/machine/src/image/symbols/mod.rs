//! The C symbols that `std` and its kin are linked against.
//!
//! There is no libc in an image. What a Rust program still calls by a C name is here, grouped by what
//! it is about, each with the meaning that it has on this machine; `docs/symbols.md` is the list.
//! What this machine does not have (files, threads, processes, signals) fails with the errno that
//! the C standard, POSIX or Linux gives for "there is none", so that `std` returns an ordinary `Err`.
//!
//! Signatures and constants are those of Linux on x86-64, because that is the target that the program
//! was compiled for.

pub(crate) mod environment;
mod errno;
mod file;
mod math;
mod memory;
mod process;
mod string;
mod thread;
mod time;
mod unwind;
