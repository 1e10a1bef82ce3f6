//! Writing files so that a reader never sees half of one, and cargo never sees a needless change.

use std::io::Write as _;
use std::path::Path;

use crate::failure::{Failure, Result};

/// Writes `bytes` to `path` unless the file already holds them. Returns whether it wrote.
///
/// The new content goes into a file beside it, which then takes the name: whoever opens `path`
/// meanwhile sees the old file or the new one.
pub(crate) fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool> {
    let same_length = path.metadata().is_ok_and(|metadata| metadata.len() == bytes.len() as u64);
    if same_length && std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    write(path, bytes, false)?;
    Ok(true)
}

/// Writes `bytes` to `path`, replacing it at once.
pub(crate) fn write(path: &Path, bytes: &[u8], executable: bool) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |error| Failure::io(format!("write {}", path.display()), &error);
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = Path::new(&beside);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(if executable { 0o777 } else { 0o666 })
        .open(beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(beside, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(beside);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_file_keeps_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert!(write_if_changed(&path, b"one").unwrap());
        assert!(!write_if_changed(&path, b"one").unwrap());
        assert!(write_if_changed(&path, b"two").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_names_the_path() {
        let failure = write(Path::new("/nonexistent/file"), b"", false).unwrap_err();
        assert!(failure.what.contains("/nonexistent/file"), "{failure}");
    }
}
