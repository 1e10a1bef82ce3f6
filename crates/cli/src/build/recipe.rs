//! The link recipe: how an ordinary program becomes an image without a libc.
//!
//! The program is compiled for the host's own Linux target and linked by our script. rustc insists
//! on `-lc` and its kin; a directory of empty archives stands in for them, so that every C symbol
//! which the machine does not supply is a link error that names it. `libgcc.a` and `libgcc_eh.a`
//! stay the real ones: they are the unwinder.
//!
//! All of it goes through the environment and `--config`, for this one build: the user's own
//! Cargo.toml, `.cargo/config.toml` and target directory are not touched.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::linker;
use crate::failure::{Failure, Result};
use crate::files::write_if_changed;

/// The Rust target of every image. Naming it keeps our flags away from build scripts and macros.
pub(crate) const RUST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where everything lies in memory and in the file.
const LINKER_SCRIPT: &str = include_str!("../../link/image.ld");

/// The libraries that rustc asks the linker for, less the unwinder's.
const EMPTY_ARCHIVES: [&str; 7] =
    ["libc.a", "libutil.a", "librt.a", "libpthread.a", "libm.a", "libdl.a", "libgcc_s.a"];

/// An `ar` archive without members.
const EMPTY_ARCHIVE: &[u8] = b"!<arch>\n";

/// The profile of an image, laid over the user's `release`: (key, value as TOML).
pub(crate) const PROFILE: [(&str, &str); 9] = [
    ("inherits", "\"release\""),
    ("opt-level", "3"),
    // One unit and fat LTO: the linker can drop whatever is not used, and order is deterministic.
    ("lto", "\"fat\""),
    ("codegen-units", "1"),
    ("incremental", "false"),
    // A panicking task must end alone.
    ("panic", "\"unwind\""),
    // For the backtraces that the host resolves; none of it stays in the sealed image.
    ("debug", "\"line-tables-only\""),
    ("split-debuginfo", "\"off\""),
    ("strip", "\"none\""),
];

/// The profile's name.
pub(crate) const PROFILE_NAME: &str = "fata";

/// The files that the linker needs, in place.
pub(crate) struct LinkFiles {
    script: PathBuf,
    empty: PathBuf,
    linker: PathBuf,
}

impl LinkFiles {
    /// Writes them below `directory`, only where they differ.
    pub(crate) fn write(directory: &Path) -> Result<Self> {
        let empty = directory.join("empty");
        std::fs::create_dir_all(&empty)
            .map_err(|error| Failure::io(format!("create {}", empty.display()), &error))?;
        // cargo does not look into the script, so its name says what is in it: a tool with another
        // script then links anew.
        let digest = crate::digest::fnv1a(LINKER_SCRIPT.as_bytes());
        let script = directory.join(format!("image-{digest:016x}.ld"));
        write_if_changed(&script, LINKER_SCRIPT.as_bytes())?;
        for name in EMPTY_ARCHIVES {
            write_if_changed(&empty.join(name), EMPTY_ARCHIVE)?;
        }
        let linker = link_to_self(directory)?;
        Ok(Self { script, empty, linker })
    }
}

/// This tool, below `directory`, under the name by which it is [`linker`].
fn link_to_self(directory: &Path) -> Result<PathBuf> {
    let own =
        std::env::current_exe().map_err(|error| Failure::io("find the tool itself", &error))?;
    let path = directory.join(linker::NAME);
    if std::fs::read_link(&path).is_ok_and(|old| old == own) {
        return Ok(path);
    }
    // Made beside it and renamed: another build may be linking.
    let beside = directory.join(format!("{}.{}.tmp", linker::NAME, std::process::id()));
    std::os::unix::fs::symlink(&own, &beside)
        .and_then(|()| std::fs::rename(&beside, &path))
        .map_err(|error| Failure::io(format!("create {}", path.display()), &error))?;
    Ok(path)
}

/// rustc's flags for an image of `target`. `remaps` are pairs of a path and what stands for it.
pub(crate) fn rustflags(
    target: &str,
    link: &LinkFiles,
    remaps: &[(PathBuf, String)],
) -> Vec<OsString> {
    let mut flags: Vec<OsString> = [
        "-Ctarget-feature=+crt-static",
        "-Crelocation-model=static",
        // The machine walks frames without reading tables.
        "-Cforce-frame-pointers=yes",
        "-Clink-arg=-nostdlib",
        "-Clink-arg=-nostartfiles",
        "-Clink-arg=-Wl,--gc-sections",
        // All missing symbols are named, not the first twenty.
        "-Clink-arg=-Wl,--error-limit=0",
        "-Clink-arg=-Wl,--build-id=sha1",
        "-Clink-arg=-Wl,-z,norelro",
        "-Clink-arg=-Wl,-z,noexecstack",
    ]
    .map(OsString::from)
    .into();
    flags.push(format!("--cfg=fata_target=\"{target}\"").into());
    flags.push(joined("-Clinker=", &link.linker));
    flags.push(joined("-Clink-arg=-L", &link.empty));
    flags.push(joined("-Clink-arg=-Wl,-T,", &link.script));
    flags.extend(remap_flags(remaps));
    flags
}

/// `--remap-path-prefix` for each pair: neither the image nor its symbols say where they were made.
pub(crate) fn remap_flags(remaps: &[(PathBuf, String)]) -> Vec<OsString> {
    remaps
        .iter()
        .map(|(from, to)| {
            let mut flag = joined("--remap-path-prefix=", from);
            flag.push("=");
            flag.push(to);
            flag
        })
        .collect()
}

/// Flags as cargo takes them in CARGO_ENCODED_RUSTFLAGS, where spaces in paths do no harm.
pub(crate) fn encode(flags: &[OsString]) -> OsString {
    flags.join(OsString::from("\x1f").as_os_str())
}

fn joined(flag: &str, path: &Path) -> OsString {
    let mut whole = OsString::from(flag);
    whole.push(path);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_files_are_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let first = LinkFiles::write(directory.path()).unwrap();
        let written = first.script.metadata().unwrap().modified().unwrap();
        let second = LinkFiles::write(directory.path()).unwrap();
        assert_eq!(second.script.metadata().unwrap().modified().unwrap(), written);
        assert_eq!(std::fs::read(second.empty.join("libc.a")).unwrap(), b"!<arch>\n");
        // The unwinder must be the real one.
        assert!(!second.empty.join("libgcc_eh.a").exists());
    }

    #[test]
    fn flags_survive_spaces() {
        let link = LinkFiles {
            script: "/a b/image.ld".into(),
            empty: "/a b/empty".into(),
            linker: "/a b/fata-linker".into(),
        };
        let flags = rustflags("virtio", &link, &[("/home/me".into(), "/src".into())]);
        let encoded = encode(&flags);
        let encoded = encoded.to_str().unwrap();
        let words: Vec<&str> = encoded.split('\x1f').collect();
        assert!(words.contains(&"-Clink-arg=-Wl,-T,/a b/image.ld"));
        assert!(words.contains(&"--remap-path-prefix=/home/me=/src"));
        assert!(words.contains(&"--cfg=fata_target=\"virtio\""));
    }
}
