//! How the tool fails: one type that says what happened, to what, and what to do, with the exit
//! code that a script can act on.
//!
//! Every failure of the tool's own lies in 70..=81, so that none collides with a machine's death
//! (101..=108), with a shell's 128 + signal, or with the small codes that programs like to use. A
//! program may of course exit with 75 too; `--json` tells the two apart.

use std::fmt;

/// Why the tool ended, as a process exit code. `docs/cli.md` holds the same table, and a test
/// compares the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The command line does not parse, or asks for what cannot be.
    Usage = 2,
    /// A defect of the tool itself.
    Internal = 70,
    /// cargo could not build the package.
    Build = 71,
    /// The program needs a C symbol that the machine does not have.
    Symbols = 72,
    /// The file is not an image of ours, or is corrupt or truncated.
    Image = 73,
    /// A file or stream of this computer could not be read or written.
    Io = 74,
    /// The image's manifest refuses what it was given: device or argument, missing or unknown.
    Refused = 75,
    /// Something of this computer is taken or not permitted: port, TAP interface, KVM, memory.
    Resource = 76,
    /// A program that the tool needs is not installed.
    Tool = 77,
    /// QEMU or the Xen host failed by itself; the image did not run, or not to its end.
    Machine = 78,
    /// `--timeout` passed before the program ended.
    Timeout = 79,
    /// No Cargo package here, or several programs to choose from.
    Package = 80,
    /// The machine stopped without an exit code: a reset, a triple fault, a crash.
    Stopped = 81,
    /// SIGHUP ended the tool, and all that it had started.
    HungUp = 129,
    /// SIGINT (Ctrl-C) did.
    Interrupted = 130,
    /// SIGTERM did.
    Terminated = 143,
}

impl Exit {
    /// Every code, in ascending order, with the words of the documentation.
    pub(crate) const TABLE: [(Exit, &'static str); 16] = [
        (Exit::Usage, "the command line is wrong"),
        (Exit::Internal, "a defect of the tool itself"),
        (Exit::Build, "cargo could not build the package"),
        (Exit::Symbols, "the program needs a C symbol that the machine does not have"),
        (Exit::Image, "not an image of ours, or a corrupt or truncated one"),
        (Exit::Io, "a file or stream could not be read or written"),
        (Exit::Refused, "a device or argument is missing, unknown or malformed"),
        (Exit::Resource, "a port, TAP interface, KVM or memory is taken, missing or too small"),
        (Exit::Tool, "a needed program (QEMU, cargo) is not installed"),
        (Exit::Machine, "QEMU or the Xen host itself failed"),
        (Exit::Timeout, "--timeout passed before the program ended"),
        (Exit::Package, "no Cargo package here, or several programs to choose from"),
        (Exit::Stopped, "the machine stopped without an exit code (reset or triple fault)"),
        (Exit::HungUp, "ended by SIGHUP, with all that it had started"),
        (Exit::Interrupted, "ended by SIGINT (Ctrl-C), with all that it had started"),
        (Exit::Terminated, "ended by SIGTERM, with all that it had started"),
    ];

    /// The code as the shell sees it.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

/// An error for the person at the terminal.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What happened, to what: one sentence without a full stop.
    pub(crate) what: String,
    /// Further lines that explain, such as what another program said.
    pub(crate) notes: Vec<String>,
    /// What to do about it.
    pub(crate) help: Option<String>,
}

/// The result of nearly everything here.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure that says `what` and ends the tool with `exit`.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), notes: Vec::new(), help: None }
    }

    /// Adds a line that explains.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Says what to do.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// An error of this computer's files: `doing` names the act and the path.
    pub(crate) fn io(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(Exit::Io, format!("cannot {doing}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        for note in &self.notes {
            write!(f, "\n  {}", note.replace('\n', "\n  "))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {}", help.replace('\n', "\n        "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_codes_collide_with_nothing() {
        for (exit, _) in Exit::TABLE {
            let code = exit.code();
            assert!(code == 2 || (70..=99).contains(&code) || code > 128, "{exit:?} is {code}");
            assert!(!(101..=108).contains(&code), "{exit:?} is a machine's death");
        }
        assert!(Exit::TABLE.is_sorted_by_key(|(exit, _)| exit.code()));
    }

    #[test]
    fn display_indents_notes_and_help() {
        let failure = Failure::new(Exit::Io, "it broke").note("first\nsecond").help("mend it");
        assert_eq!(failure.to_string(), "it broke\n  first\n  second\n  help: mend it");
    }
}
