//! What is made once and kept: unpacked packages, file systems made of them.
//!
//! Every entry is a folder whose name says what it was made from, and which appears complete or
//! not at all, so two processes may make the same one side by side.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::files;

/// Stands for the bytes that something was made from. FNV-1a, 64 bits: it tells versions apart and
/// protects nothing; the packages' checksums are apt's business.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Key(String);

impl Key {
    /// The key of these parts, in this order.
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for part in parts {
            // The length, so that ("a", "bc") and ("ab", "c") differ.
            for byte in (part.len() as u64).to_le_bytes().iter().chain(part) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        Self(format!("{hash:016x}"))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The cache's folder: `$FATA_TESTBED_CACHE`, or `fata/testbed` in the user's cache folder.
pub(crate) fn folder() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let path = if let Some(path) = variable("FATA_TESTBED_CACHE") {
        PathBuf::from(path)
    } else if let Some(path) = variable("XDG_CACHE_HOME") {
        Path::new(&path).join("fata/testbed")
    } else if let Some(path) = variable("HOME") {
        Path::new(&path).join(".cache/fata/testbed")
    } else {
        return Err(Error::new(Kind::Usage, "there is no place for the cache: HOME is not set")
            .help("set FATA_TESTBED_CACHE to a folder"));
    };
    let path = std::path::absolute(&path)
        .map_err(|error| Error::io(format!("find {}", path.display()), &error))?;
    files::make_folder(&path)?;
    Ok(path)
}

/// The entry `name`, made by `make` in a folder of its own when it is not there.
pub(crate) fn fill(
    cache: &Path,
    name: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let path = cache.join(name);
    if path.is_dir() {
        return Ok(path);
    }
    let unfinished = cache.join(format!(".{name}.{}", files::unique()));
    files::remove_folder(&unfinished)?;
    files::make_folder(&unfinished)?;
    let made = make(&unfinished).and_then(|()| match std::fs::rename(&unfinished, &path) {
        Err(error) if !path.is_dir() => Err(Error::io(format!("make {}", path.display()), &error)),
        // Another process was faster; its entry is as good.
        _ => Ok(()),
    });
    if made.is_err() || unfinished.exists() {
        files::remove_folder(&unfinished)?;
    }
    made.map(|()| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_parts_apart() {
        let key = |parts: &[&str]| Key::of(parts.iter().map(|part| part.as_bytes()));
        assert_eq!(key(&["a", "bc"]), key(&["a", "bc"]));
        assert_ne!(key(&["a", "bc"]), key(&["ab", "c"]));
    }

    #[test]
    fn an_entry_appears_complete_or_not_at_all() {
        let cache = tempfile::tempdir().unwrap();
        let failed = fill(cache.path(), "x", |folder| {
            std::fs::write(folder.join("half"), "").unwrap();
            Err(Error::new(Kind::Io, "no"))
        });
        assert!(failed.is_err());
        assert_eq!(files::list(cache.path()).unwrap(), Vec::<PathBuf>::new());
        let made = fill(cache.path(), "x", |folder| {
            std::fs::write(folder.join("whole"), "").unwrap();
            Ok(())
        });
        assert!(made.unwrap().join("whole").exists());
        fill(cache.path(), "x", |_| panic!("it is there already")).unwrap();
    }
}
