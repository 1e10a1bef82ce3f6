//! One error for the whole testbed: what happened, to what, and what to do.

use std::fmt;

/// What kind of thing went wrong, for callers who act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was asked for cannot be: a malformed name, option or guest.
    Usage,
    /// A program that is needed is not installed on this computer.
    Tool,
    /// Debian's packages cannot be found, fetched or unpacked.
    Packages,
    /// Something of this computer is taken or not permitted: a port, a TAP interface, KVM.
    Resource,
    /// A guest of this name is there already.
    NameTaken,
    /// The Xen host does not start, or has ended.
    Host,
    /// The Xen host refuses a guest, or a command in dom0 fails.
    Guest,
    /// A deadline has passed.
    Deadline,
    /// A file or stream of this computer cannot be read or written.
    Io,
}

/// An error for a person: one sentence, notes that explain, and what to do.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    notes: Vec<String>,
    help: Option<String>,
}

/// The result of nearly everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that says `what` happened, to what: one sentence without a full stop.
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), notes: Vec::new(), help: None }
    }

    /// An error of this computer's files: `doing` names the act and the path.
    pub(crate) fn io(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(Kind::Io, format!("cannot {doing}: {error}"))
    }

    /// Adds a line that explains; an empty one is left out.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        let note = note.into();
        let note = note.trim_end();
        if !note.is_empty() {
            self.notes.push(note.to_owned());
        }
        self
    }

    /// Says what to do about it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What happened, to what, in one sentence.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Lines that explain, such as what another program said.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What to do about it, when something can be done.
    pub fn help_line(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        for note in &self.notes {
            write!(f, "\n  {}", note.replace('\n', "\n  "))?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
