//! The end of the domain.

use super::super::power::Ending;
use super::console;
use fata_hypercall::{ShutdownReason, image};

/// Whether the code of a program that ended by itself must be said on the console: Xen carries none.
pub(crate) fn must_say(code: u8) -> bool {
    code != 0
}

/// Ends the domain, once the console's daemon has read what was said. A death is a crash to Xen, so
/// that `on_crash` of the domain's configuration applies.
pub(crate) fn off(_code: u8, ending: Ending) -> ! {
    console::drain();
    image::shutdown(match ending {
        Ending::Done => ShutdownReason::Poweroff,
        Ending::Death => ShutdownReason::Crash,
    })
}
