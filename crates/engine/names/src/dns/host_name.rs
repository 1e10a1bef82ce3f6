//! [`HostName`]: a name whose addresses can be asked for.

use core::fmt;

/// The longest name in text, in bytes, without a dot at its end (RFC 1035 §2.3.4: 255 on the wire).
const NAME_MAX: usize = 253;

/// The longest label in bytes.
const LABEL_MAX: usize = 63;

/// A host's fully qualified name: labels of letters, digits, `-` and `_`, in lower case, without the
/// dot at its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// Why a text is no host's name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostNameError {
    /// It is empty, or longer than 253 bytes.
    Length(usize),
    /// A label is empty or longer than 63 bytes.
    Label(usize),
    /// A character that no host's name has. Names in other scripts have a form of letters and digits
    /// (RFC 5891), which whoever shows names to people knows.
    Character(char),
}

impl fmt::Display for HostNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostNameError::Length(len) => write!(f, "a name has 1 to {NAME_MAX} bytes, not {len}"),
            HostNameError::Label(len) => {
                write!(f, "a name's label has 1 to {LABEL_MAX} bytes, not {len}")
            }
            HostNameError::Character(it) => write!(f, "{it:?} cannot be in a host's name"),
        }
    }
}

impl std::error::Error for HostNameError {}

impl HostName {
    /// Reads a name; a dot at its end, and the case of letters, make no difference.
    ///
    /// # Errors
    /// [`HostNameError`].
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() || text.len() > NAME_MAX {
            return Err(HostNameError::Length(text.len()));
        }
        let is_fine = |it: &char| it.is_ascii_alphanumeric() || ['-', '_', '.'].contains(it);
        if let Some(other) = text.chars().find(|it| !is_fine(it)) {
            return Err(HostNameError::Character(other));
        }
        let length = |label: &&str| label.is_empty() || label.len() > LABEL_MAX;
        match text.split('.').find(length) {
            Some(label) => Err(HostNameError::Label(label.len())),
            None => Ok(HostName(text.to_ascii_lowercase())),
        }
    }

    /// The name, without a dot at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for `localhost` and all below it, which is this host and asked of nobody (RFC 6761 §6.3).
    pub fn is_localhost(&self) -> bool {
        self.is_below("localhost")
    }

    /// True for names below `invalid`, none of which exists (RFC 6761 §6.4).
    pub fn is_invalid(&self) -> bool {
        self.is_below("invalid")
    }

    fn is_below(&self, domain: &str) -> bool {
        self.0.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
