//! The numbers with which a machine ends.
//!
//! `fata run` hands them on as its own exit status, so they are a contract with scripts. A program's
//! own codes are its own; these are what the machine says when the program cannot.

/// The program panicked in `main`. (Rust's own convention.)
pub const PANIC: u8 = 101;
/// Memory ran out.
pub const OUT_OF_MEMORY: u8 = 102;
/// The program touched memory that is not there, or in a way that its page forbids.
pub const PAGE_FAULT: u8 = 103;
/// The stack ran into its guard page.
pub const STACK_OVERFLOW: u8 = 104;
/// A fault while the processor was delivering another.
pub const DOUBLE_FAULT: u8 = 105;
/// Any other exception of the processor.
pub const EXCEPTION: u8 = 106;
/// Random numbers were asked for and there is no source of entropy.
pub const NO_ENTROPY: u8 = 107;
/// The machine could not be set up: too little memory, a command line that does not parse, no clock.
pub const BOOT_REFUSED: u8 = 108;

/// The largest code that QEMU's `isa-debug-exit` carries: the process ends with `code << 1 | 1` in
/// eight bits. Larger ones are said on the console, and this one is sent.
pub const DIRECT_MAX: u8 = 126;

/// What is written to the port for `code`, and whether the console must say the code.
pub const fn to_port(code: u8) -> (u32, bool) {
    if code <= DIRECT_MAX { (code as u32, false) } else { (DIRECT_MAX as u32 + 1, true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_do_not_fit_are_said_aloud() {
        assert_eq!(to_port(0), (0, false));
        assert_eq!(to_port(126), (126, false));
        assert_eq!(to_port(127), (127, true));
        assert_eq!(to_port(255), (127, true));
    }
}
