//! From addresses to functions and lines.
//!
//! A sealed image carries no symbols: its crash report is addresses and a build id. The unstripped
//! program lies beside the image (`IMAGE.debug`) and in `target/fata/symbols/BUILDID.debug`; it is
//! taken only if its build id is the one that crashed.

use std::ops::Range;
use std::path::{Path, PathBuf};

use addr2line::Loader;

use crate::failure::{Exit, Failure, Result};
use crate::image::elf::Elf;
use crate::image::{hex, read_bounded};

/// How many programs `target/fata/symbols` keeps: some days of builds, at ten to twenty MiB each.
const KEPT_MAX: usize = 16;

/// A program's symbols and line table.
pub(crate) struct Symbols {
    loader: Loader,
    /// Where code lies; an address elsewhere has no function, whatever the tables say.
    code: Vec<Range<u64>>,
}

/// One function at an address; several when functions were inlined into another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The function, demangled.
    pub(crate) function: String,
    /// `file:line`, when the line table knows.
    pub(crate) place: Option<String>,
    /// Whether it stands in the workspace that was built, as opposed to a library.
    pub(crate) own: bool,
}

impl std::fmt::Display for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{} ({place})", self.function),
            None => write!(f, "{}", self.function),
        }
    }
}

impl Symbols {
    /// Loads the unstripped program at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let unreadable = |why: &dyn std::fmt::Display| {
            let what = format!("{}: its symbols cannot be read: {why}", path.display());
            Failure::new(Exit::Image, what)
        };
        let bytes = read_bounded(path)?;
        let elf = Elf::parse(&bytes).map_err(|problem| unreadable(&problem.what))?;
        let code = elf.segments().iter().filter(|segment| segment.execute);
        let code = code.map(|code| code.address..code.address + code.memory_bytes).collect();
        let loader = Loader::new(path).map_err(|error| unreadable(&error))?;
        Ok(Self { loader, code })
    }

    /// The functions at `address`, the innermost first; empty when nothing is known.
    ///
    /// Frame 0 of a crash is the instruction itself; the others are return addresses, which may
    /// be the first byte of the next line or function. So they are looked up one byte earlier.
    pub(crate) fn frames(&self, address: u64, is_return: bool) -> Vec<Frame> {
        // An inlining chain is as deep as the program nests; the bound is against a forged table.
        const DEPTH_MAX: usize = 64;
        let probe = if is_return { address.saturating_sub(1) } else { address };
        let mut frames = Vec::new();
        if !self.code.iter().any(|code| code.contains(&probe)) {
            return frames;
        }
        let symbol = self.loader.find_symbol(probe);
        if let Ok(mut found) = self.loader.find_frames(probe) {
            while frames.len() < DEPTH_MAX {
                let Ok(Some(frame)) = found.next() else { break };
                let location = frame.location.and_then(|at| Some((at.file?, at.line?)));
                let own = location.is_some_and(|(file, _)| file.starts_with(OWN));
                let place = location.map(|(file, line)| format!("{}:{line}", short_path(file)));
                // A line table alone names only inlined functions; what they were inlined into is
                // the last frame, and the symbol table has its name.
                let function = frame
                    .function
                    .and_then(|function| Some(short_name(&function.demangle().ok()?)));
                frames.push(Frame { function: function.unwrap_or_default(), place, own });
            }
        }
        match (frames.last_mut(), symbol) {
            (Some(outermost), Some(symbol)) => outermost.function = demangled(symbol),
            (None, Some(symbol)) => {
                frames.push(Frame { function: demangled(symbol), place: None, own: false });
            }
            _ => {}
        }
        frames.retain(|frame| !frame.function.is_empty());
        frames
    }
}

/// What `fata build` puts in place of the path of the workspace that is built.
const OWN: &str = "/src/";

/// A linker's symbol as Rust writes it, without hashes.
fn demangled(symbol: &str) -> String {
    // Generic arguments can fill pages; the beginning says enough.
    const CHARS_MAX: usize = 160;
    let name = format!("{:#}", rustc_demangle::demangle(symbol));
    match name.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}

/// `block_on` of `block_on<long::list, of::types>`: the debug information of an inlined function
/// carries its arguments, which say less than the line behind it.
fn short_name(name: &str) -> String {
    match name.find('<') {
        Some(at) if at > 0 => name[..at].to_owned(),
        _ => name.to_owned(),
    }
}

/// A path without what `fata build` or Rust's own builders put before it (see
/// `build::source_map`): `src/main.rs`, `tokio-1.47.0/src/lib.rs`, `core/src/ptr/mod.rs`.
fn short_path(path: &str) -> &str {
    for prefix in [OWN, "/cargo/registry/", "/cargo/git/", "/dep/"] {
        if let Some(rest) = path.strip_prefix(prefix) {
            return rest;
        }
    }
    if path.starts_with("/rustc/") {
        return path.split_once("/library/").map_or(path, |(_, rest)| rest);
    }
    path
}

/// Where `image`'s own symbols are kept.
pub(crate) fn beside(image: &Path) -> PathBuf {
    let mut path = image.as_os_str().to_owned();
    path.push(".debug");
    PathBuf::from(path)
}

/// The build id of the ELF file at `path`, if it has one.
pub(crate) fn build_id_of(path: &Path) -> Option<String> {
    let bytes = read_bounded(path).ok()?;
    let note = Elf::parse(&bytes).ok()?.note("GNU", 3).ok()??;
    Some(hex(note))
}

/// The file with the symbols of `build_id`: one of `candidates` (files, or directories that
/// `fata build` keeps symbols in), or in the `target/fata/symbols` of a directory above.
pub(crate) fn find(build_id: &str, candidates: &[PathBuf]) -> Option<PathBuf> {
    // The id becomes part of a path, so it must be nothing but hexadecimal digits.
    if build_id.is_empty() || !build_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let file_name = format!("{build_id}.debug");
    let stores = std::env::current_dir().ok().into_iter().flat_map(|directory| {
        let above: Vec<PathBuf> = directory.ancestors().map(Path::to_owned).collect();
        above.into_iter().map(|directory| directory.join("target/fata/symbols"))
    });
    let target_dir = std::env::var_os("CARGO_TARGET_DIR")
        .map(|directory| Path::new(&directory).join("fata/symbols"));
    candidates
        .iter()
        .cloned()
        .chain(target_dir)
        .chain(stores)
        .map(|place| if place.is_dir() { place.join(&file_name) } else { place })
        .find(|file| file.is_file() && build_id_of(file).as_deref() == Some(build_id))
}

/// Keeps `unstripped` under its build id in `store`, and no more than [`KEPT_MAX`] others.
pub(crate) fn keep(store: &Path, build_id: &str, unstripped: &[u8]) -> Result<PathBuf> {
    let path = store.join(format!("{build_id}.debug"));
    std::fs::create_dir_all(store)
        .map_err(|error| Failure::io(format!("create {}", store.display()), &error))?;
    crate::files::write_if_changed(&path, unstripped)?;
    forget_oldest(store, &path);
    Ok(path)
}

/// Symbols are a convenience: that an old file cannot be removed is no reason to fail.
fn forget_oldest(store: &Path, just_written: &Path) {
    let Ok(entries) = std::fs::read_dir(store) else { return };
    let mut kept: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let is_other = path.extension()? == "debug" && path != just_written;
            is_other.then_some((path.metadata().ok()?.modified().ok()?, path))
        })
        .collect();
    kept.sort();
    let surplus = (kept.len() + 1).saturating_sub(KEPT_MAX);
    for (_, path) in kept.into_iter().take(surplus) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_found_by_build_id_alone() {
        let directory = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let Some(id) = build_id_of(&own) else { panic!("the test program has a build id") };
        std::fs::copy(&own, directory.path().join(format!("{id}.debug"))).unwrap();
        let store = directory.path().to_owned();
        assert!(find(&id, std::slice::from_ref(&store)).is_some());
        // A file of the right name with another id is not taken.
        let other = "00".repeat(20);
        std::fs::copy(&own, directory.path().join(format!("{other}.debug"))).unwrap();
        assert_eq!(find(&other, std::slice::from_ref(&store)), None);
        assert_eq!(find("../../etc/passwd", &[store]), None);
    }

    #[test]
    fn the_store_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        for n in 0..KEPT_MAX + 5 {
            keep(directory.path(), &format!("{n:040x}"), b"symbols").unwrap();
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), KEPT_MAX);
    }

    #[test]
    fn addresses_that_are_no_code_have_no_function() {
        let symbols = Symbols::open(&std::env::current_exe().unwrap()).unwrap();
        assert!(symbols.frames(0, false).is_empty());
        assert!(symbols.frames(u64::MAX, true).is_empty());
    }

    #[test]
    fn paths_are_short() {
        assert_eq!(short_path("/src/src/main.rs"), "src/main.rs");
        assert_eq!(short_path("/cargo/registry/a-1.0.0/src/lib.rs"), "a-1.0.0/src/lib.rs");
        assert_eq!(short_path("/rustc/0123/library/core/src/a.rs"), "core/src/a.rs");
        assert_eq!(short_path("/home/me/a.rs"), "/home/me/a.rs");
    }

    #[test]
    fn names_are_short() {
        assert_eq!(demangled("_ZN7greeter7stumble17h0123456789abcdefE"), "greeter::stumble");
        assert_eq!(short_name("block_on<a::b<c>, d>"), "block_on");
        assert_eq!(short_name("<a as b>::c"), "<a as b>::c");
        assert!(demangled(&"x".repeat(1000)).chars().count() <= 161);
    }
}
