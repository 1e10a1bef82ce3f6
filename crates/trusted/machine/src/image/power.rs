//! The end of the machine, with a number.

use super::board;
use super::console::say;
use crate::exit_code;

/// How it came to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The program is done, or the machine refused to start it.
    Done,
    /// Something broke.
    Death,
}

/// Switches the machine off. In QEMU the process ends with status `code << 1 | 1`; what cannot be
/// handed on like that is said on the console.
pub fn exit(code: u8) -> ! {
    if board::power::must_say(code) {
        say!("exit code {code}");
    }
    board::power::off(code, Ending::Done)
}

/// The same, after a death: the code is always said.
pub(crate) fn die(code: u8) -> ! {
    say!("exit code {code}");
    board::power::off(code, Ending::Death)
}

/// Ends the boot, saying why.
pub(crate) fn refuse(why: core::fmt::Arguments<'_>) -> ! {
    say!("cannot boot: {why}");
    say!("exit code {}", exit_code::BOOT_REFUSED);
    board::power::off(exit_code::BOOT_REFUSED, Ending::Done)
}
