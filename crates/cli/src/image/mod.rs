//! Images: what a sealed file holds, read from a file that may be anything.
//!
//! An image is an ELF whose notes say everything: the PVH note boots it, the build id finds its
//! symbols, Fata's note holds the manifest. Section headers are not needed, and a sealed image has
//! none. Nothing that a file says is believed before it was checked against the file's length.

pub(crate) mod elf;
pub(crate) mod manifest;
pub(crate) mod seal;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure, Result};
use elf::Elf;
use manifest::Manifest;

/// The largest file that is taken for an image. Unstripped programs of a hundred crates have some
/// 200 MiB; a disk image given by mistake is refused before it is read.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 30;

/// An image, read whole and checked.
#[derive(Debug)]
pub(crate) struct Image {
    /// Where it was read.
    pub(crate) path: PathBuf,
    /// The file.
    pub(crate) bytes: Vec<u8>,
    /// What it says about itself.
    pub(crate) manifest: Manifest,
    /// GNU build id in hexadecimal.
    pub(crate) build_id: Option<String>,
    /// The PVH entry's physical address; an image for `unix` has none.
    pub(crate) pvh_entry: Option<u32>,
    /// What is loaded, in the order of the file.
    pub(crate) segments: Vec<elf::Segment>,
}

impl Image {
    /// Reads and checks the image at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bytes = read_bounded(path)?;
        Self::parse(path, bytes).map_err(|problem| {
            let help = if problem.foreign {
                "an image is what `fata build` writes: a program with #[fata::main]"
            } else {
                "build it again with `fata build`, or copy it again from where it came"
            };
            Failure::new(Exit::Image, format!("{}: {}", path.display(), problem.what)).help(help)
        })
    }

    fn parse(path: &Path, bytes: Vec<u8>) -> std::result::Result<Self, Problem> {
        let elf = Elf::parse(&bytes)?;
        seal::check(&bytes)?;
        let note = elf.note("Fata", 1)?.ok_or_else(|| Problem {
            foreign: true,
            what: "an ELF, but not an image of ours: it holds no Fata manifest".into(),
        })?;
        let manifest = Manifest::parse(note).map_err(Problem::corrupt)?;
        let build_id = elf.note("GNU", 3)?.filter(|id| !id.is_empty()).map(hex);
        let pvh_entry = match elf.note("Xen", 18)? {
            None => None,
            // Xen and QEMU accept 4 or 8 bytes; our linker script writes 4.
            Some([a, b, c, d, rest @ ..]) if rest.iter().all(|byte| *byte == 0) => {
                Some(u32::from_le_bytes([*a, *b, *c, *d]))
            }
            Some(_) => return Err(Problem::corrupt("its PVH note is malformed")),
        };
        if ["virtio", "xen"].contains(&manifest.target.as_str()) && pvh_entry.is_none() {
            let what = format!("its manifest says {}, but it has no PVH entry", manifest.target);
            return Err(Problem::corrupt(what));
        }
        let segments = elf.segments().to_vec();
        Ok(Self { path: path.to_owned(), manifest, build_id, pvh_entry, segments, bytes })
    }

    /// Bytes of memory that the loaded image takes, from its first page to its last.
    pub(crate) fn loaded_bytes(&self) -> u64 {
        let start = self.segments.iter().map(|segment| segment.address).min().unwrap_or(0);
        self.end_address().saturating_sub(start)
    }

    /// The first address behind the loaded image.
    pub(crate) fn end_address(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.address + segment.memory_bytes)
            .max()
            .unwrap_or(0)
    }
}

/// Reads a regular file of at most [`FILE_BYTES_MAX`].
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let reading = || format!("read {}", path.display());
    let file = std::fs::File::open(path).map_err(|error| Failure::io(reading(), &error))?;
    let metadata = file.metadata().map_err(|error| Failure::io(reading(), &error))?;
    if !metadata.is_file() {
        return Err(Failure::new(Exit::Image, format!("{}: not a file", path.display())));
    }
    let too_large = || {
        let what = format!("{}: too large to be an image (over 1 GiB)", path.display());
        Failure::new(Exit::Image, what)
    };
    if metadata.len() > FILE_BYTES_MAX {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read: the bound is on what is read, not on what was promised.
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io(reading(), &error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large());
    }
    Ok(bytes)
}

/// What is wrong with a file that should be an image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// It never was one of ours, as opposed to a damaged one.
    pub(crate) foreign: bool,
    /// In words, to stand behind the file's name.
    pub(crate) what: String,
}

impl Problem {
    pub(crate) fn corrupt(what: impl std::fmt::Display) -> Self {
        Self { foreign: false, what: format!("corrupt image: {what}") }
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
pub(crate) mod tests;
