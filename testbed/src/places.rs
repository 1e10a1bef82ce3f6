//! Where hosts have their folders: one for each, in one place for each user.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::host::{Options, Record};

/// How the names of hosts begin that nobody named.
const NAMELESS: &str = "process-";

/// Whether a host of this name is its owner's alone.
pub(crate) fn is_nameless(name: &str) -> bool {
    name.starts_with(NAMELESS)
}

/// The user's folder of hosts. Others may not look into it: who can write there commands the
/// hosts.
pub(crate) fn base() -> Result<PathBuf> {
    let user = rustix::process::geteuid();
    let path = std::env::temp_dir().join(format!("fata-testbed-{}", user.as_raw()));
    match std::fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::io(format!("make {}", path.display()), &error));
        }
        _ => {}
    }
    let found = path
        .symlink_metadata()
        .map_err(|error| Error::io(format!("read {}", path.display()), &error))?;
    if !found.is_dir() || found.uid() != user.as_raw() || found.mode() & 0o077 != 0 {
        let what = format!("{} is not a folder of this user's alone", path.display());
        return Err(Error::new(Kind::Resource, what).help("remove it, or set TMPDIR"));
    }
    Ok(path)
}

/// Takes a name and makes its folder. Folders of hosts that have ended are removed on the way.
pub(crate) fn claim(options: &Options) -> Result<(String, PathBuf)> {
    let name = match &options.name {
        Some(name) => {
            crate::guest::check_name(name).map_err(|_| {
                Error::new(Kind::Usage, format!("{name:?} cannot be a host's name"))
            })?;
            if is_nameless(name) {
                let what =
                    format!("{name:?}: names that begin with {NAMELESS} are given by number");
                return Err(Error::new(Kind::Usage, what));
            }
            name.clone()
        }
        None if options.detached => {
            return Err(Error::new(Kind::Usage, "a detached host needs a name"));
        }
        None => format!("{NAMELESS}{}", files::unique()),
    };
    let base = base()?;
    sweep(&base)?;
    let path = base.join(&name);
    match std::fs::create_dir(&path) {
        Ok(()) => Ok((name, path)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let what = format!("a Xen host named {name} is running already");
            Err(Error::new(Kind::Resource, what).help("end it (testbed down), or choose a name"))
        }
        Err(error) => Err(Error::io(format!("make {}", path.display()), &error)),
    }
}

/// Removes what hosts have left whose owners were killed.
fn sweep(base: &Path) -> Result<()> {
    for state in files::list(base)? {
        let record = std::fs::read(state.join("host.json"))
            .ok()
            .and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        let gone = match record {
            Some(record) => !record.qemu.is_alive(),
            // Still being made, or given up in the making: an hour is longer than any start.
            None => state
                .metadata()
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() > 3600)),
        };
        if gone {
            files::remove_folder(&state)?;
        }
    }
    Ok(())
}
