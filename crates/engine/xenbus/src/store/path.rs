//! What a path in XenStore may be (`docs/misc/xenstore.txt`).
//!
//! Checked before anything is sent, because a path often holds something that another domain wrote
//! (`backend` is such a key): a zero byte in it would let that domain say more than a path.

use core::fmt;

/// Longest absolute path in bytes (`XENSTORE_ABS_PATH_MAX`).
pub const ABSOLUTE_BYTES_MAX: usize = 3072;
/// Longest path in bytes that begins at the domain's own directory (`XENSTORE_REL_PATH_MAX`).
pub const RELATIVE_BYTES_MAX: usize = 2048;

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It has no bytes.
    Empty,
    /// It has more bytes than xenstored takes.
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A byte that is not a letter, a digit or one of `-/_@`.
    BadByte(u8),
    /// Two slashes in a row, or one at its end.
    EmptyElement,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathError::Empty => f.write_str("an empty path"),
            PathError::TooLong { bytes } => write!(f, "a path of {bytes} bytes is too long"),
            PathError::BadByte(byte) => {
                write!(f, "'{}' may not stand in a path", byte.escape_ascii())
            }
            PathError::EmptyElement => f.write_str("a path with an empty element"),
        }
    }
}

impl core::error::Error for PathError {}

/// Checks a path, absolute or relative to the domain's own directory.
///
/// # Errors
/// [`PathError`] says what xenstored would refuse it for.
pub fn check(path: &str) -> Result<(), PathError> {
    let bytes = path.as_bytes();
    let absolute = bytes.first() == Some(&b'/');
    let most = if absolute { ABSOLUTE_BYTES_MAX } else { RELATIVE_BYTES_MAX };
    if bytes.is_empty() {
        return Err(PathError::Empty);
    }
    if bytes.len() > most {
        return Err(PathError::TooLong { bytes: bytes.len() });
    }
    if let Some(&bad) = bytes.iter().find(|&&byte| !is_name_byte(byte) && byte != b'/') {
        return Err(PathError::BadByte(bad));
    }
    if bytes.len() > 1 && (path.ends_with('/') || path.contains("//")) {
        return Err(PathError::EmptyElement);
    }
    Ok(())
}

/// Checks a path that is to be watched: as [`check`], or `@introduceDomain` and its like, which
/// begin with `@`.
///
/// # Errors
/// As [`check`].
pub fn check_watch(path: &str) -> Result<(), PathError> {
    match path.strip_prefix('@') {
        Some(special) if special.contains('/') => Err(PathError::BadByte(b'/')),
        _ => check(path),
    }
}

/// True if `name` can be one element of a path.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= RELATIVE_BYTES_MAX && name.bytes().all(is_name_byte)
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@')
}
