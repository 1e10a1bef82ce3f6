//! Files of this computer, with errors that name them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::control::POLL_INTERVAL;
use crate::error::{Error, Result};

/// The entries of a folder, sorted.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io(format!("read {}", folder.display()), &error);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    Ok(entries)
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io(format!("read {}", path.display()), &error))
}

/// Writes a file that appears complete or not at all.
pub(crate) fn write_whole(path: &Path, data: &[u8]) -> Result<()> {
    let failed = |error| Error::io(format!("write {}", path.display()), &error);
    // Hidden, so that who lists the folder sees the finished one only.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = path.with_file_name(format!(".{name}.{}", unique()));
    std::fs::write(&unfinished, data).map_err(failed)?;
    std::fs::rename(&unfinished, path).map_err(failed)
}

/// Waits for the lock of a folder, which one at a time holds among all processes, as long as the
/// file that is returned is open.
pub(crate) fn lock_folder(path: &Path) -> Result<std::fs::File> {
    let failed = |error| Error::io(format!("lock {}", path.display()), &error);
    let folder = std::fs::File::open(path).map_err(failed)?;
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
            Err(std::fs::TryLockError::WouldBlock) => {}
        }
        crate::host::check_interrupted()?;
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Makes a folder and its parents.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)
        .map_err(|error| Error::io(format!("make {}", path.display()), &error))
}

/// Removes a folder with all that is in it; one that is not there is fine.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}

/// A word that no other call returns, in this process or another that runs.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A UUID that nothing else has (random(4)).
pub(crate) fn uuid() -> Result<String> {
    let text = read(Path::new("/proc/sys/kernel/random/uuid"))?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}
