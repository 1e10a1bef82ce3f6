//! Missing C symbols: from the linker's words to a message that names symbol and culprit.
//!
//! An image has no libc. When a crate calls a function that the machine does not supply, the link
//! fails; the linker says so in its own dialect, which this module reads.

use crate::failure::{Exit, Failure};

/// The most symbols that are listed; the first few show what is the matter.
const LISTED_MAX: usize = 12;

/// A symbol that nothing defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Undefined {
    /// The C symbol.
    pub(crate) symbol: String,
    /// The crate that wants it, where the linker's words tell.
    pub(crate) wanted_by: Option<String>,
}

/// The undefined symbols that a linker's output names, each once, in its order.
pub(crate) fn parse(text: &str) -> Vec<Undefined> {
    let mut found: Vec<Undefined> = Vec::new();
    for line in text.lines() {
        if let Some(symbol) = undefined_in(line) {
            if !found.iter().any(|known| known.symbol == symbol) {
                found.push(Undefined { symbol, wanted_by: None });
            }
        } else if let (Some(last), Some(reference)) =
            (found.last_mut(), line.trim_start().strip_prefix(">>>"))
        {
            // The first reference that tells the crate will do.
            if last.wanted_by.is_none() {
                last.wanted_by = crate_in(reference);
            }
        }
    }
    found
}

/// lld: `error: undefined symbol: NAME`; GNU ld: ``undefined reference to `NAME'``.
fn undefined_in(line: &str) -> Option<String> {
    let after = |marker: &str| line.split_once(marker).map(|(_, rest)| rest);
    let name = match after("undefined symbol: ") {
        Some(rest) => rest,
        None => after("undefined reference to `")?.split('\'').next()?,
    };
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Who wants it, by lld's `referenced by FILE:LINE (PATH:LINE)` or `OBJECT:(FUNCTION)`: a crate, or
/// the place itself when it is in the workspace that is built.
fn crate_in(reference: &str) -> Option<String> {
    // A path in the registry says name and version; our remapping shortens its beginning.
    for marker in ["/registry/src/", "/cargo/registry/"] {
        if let Some((_, rest)) = reference.split_once(marker) {
            let versioned = rest.split('/').find(|part| split_version(part).is_some())?;
            let (name, version) = split_version(versioned)?;
            return Some(format!("{name} {version}"));
        }
    }
    if let Some((_, rest)) = reference.split_once("/rustc/") {
        let library = rest.split("/library/").nth(1)?.split('/').next()?;
        return Some(format!("Rust's own {library}"));
    }
    if let Some((_, place)) = reference.split_once(".rs:").and(reference.rsplit_once('(')) {
        let place = place.trim_end_matches(')');
        return Some(place.trim_start_matches("/src/").trim_start_matches("/dep/").to_owned());
    }
    let function = reference.split_once(":(")?.1.trim_end_matches(')');
    let path = function.rsplit_once(".text.").map_or(function, |(_, symbol)| symbol);
    let path = rustc_demangle::demangle(path).to_string();
    let name: String = path
        .trim_start_matches(|c: char| !c.is_ascii_alphabetic() && c != '_')
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    (path.contains("::") && !name.is_empty()).then_some(name)
}

/// `socket2-0.5.10` as name and version.
fn split_version(directory: &str) -> Option<(&str, &str)> {
    directory.match_indices('-').map(|(at, _)| (&directory[..at], &directory[at + 1..])).find(
        |(name, version)| {
            !name.is_empty()
                && version.starts_with(|c: char| c.is_ascii_digit())
                && version.contains('.')
        },
    )
}

/// The message for `symbols`, which the program `name` needs.
pub(crate) fn failure(name: &str, symbols: &[Undefined]) -> Failure {
    // Without our machine not even the memory functions are there.
    let has_machine = !symbols.iter().any(|s| matches!(s.symbol.as_str(), "malloc" | "memcpy"));
    if !has_machine {
        let what = format!("{name} does not use fata, so there is no machine to link it with");
        return Failure::new(Exit::Symbols, what).help(
            "depend on the crate fata and write #[fata::main] above async fn main; \
             `fata new NAME` shows how",
        );
    }
    let count = match symbols.len() {
        1 => "a C function".to_owned(),
        many => format!("{many} C functions"),
    };
    let what = format!("{name} calls {count} that the machine does not have");
    let mut failure = Failure::new(Exit::Symbols, what);
    for undefined in symbols.iter().take(LISTED_MAX) {
        failure = failure.note(match &undefined.wanted_by {
            Some(culprit) => format!("{} (wanted by {culprit})", undefined.symbol),
            None => undefined.symbol.clone(),
        });
    }
    if symbols.len() > LISTED_MAX {
        failure = failure.note(format!("… and {} more", symbols.len() - LISTED_MAX));
    }
    failure.help(
        "an image has no libc: leave out the crate or the feature that calls them.\n\
         docs/symbols.md lists what the machine has, and what to use in place of the rest",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LLD: &str = "\
rust-lld: error: undefined symbol: socket
>>> referenced by unix.rs:841 (/cargo/registry/socket2-0.5.10/src/sys/unix.rs:841)
>>>               hello.0abc-cgu.0.rcgu.o:(socket2::sys::socket::h0011223344556677)
>>> referenced 3 more times

rust-lld: error: undefined symbol: getaddrinfo
>>> referenced by hello.0abc-cgu.0.rcgu.o:(std::net::lookup::h0011223344556677)
rust-lld: error: undefined symbol: socket
";

    #[test]
    fn lld_names_symbol_and_crate() {
        let found = parse(LLD);
        let pairs: Vec<_> =
            found.iter().map(|u| (u.symbol.as_str(), u.wanted_by.as_deref())).collect();
        assert_eq!(pairs, [("socket", Some("socket2 0.5.10")), ("getaddrinfo", Some("std"))]);
        let failure = failure("hello", &found);
        assert_eq!(failure.exit, Exit::Symbols);
        let text = failure.to_string();
        assert!(text.contains("socket (wanted by socket2 0.5.10)"), "{text}");
        assert!(text.contains("docs/symbols.md"), "{text}");
    }

    #[test]
    fn gnu_ld_is_understood() {
        let found = parse("x.o: in function `f':\n(.text+0x5): undefined reference to `flock'\n");
        assert_eq!(found, [Undefined { symbol: "flock".into(), wanted_by: None }]);
    }

    #[test]
    fn std_is_named_as_such() {
        let line = ">>> referenced by unix.rs:1 (/rustc/0123/library/std/src/sys/fs/unix.rs:1)";
        assert_eq!(crate_in(line).unwrap(), "Rust's own std");
    }

    #[test]
    fn ones_own_sources_are_named_by_file_and_line() {
        assert_eq!(crate_in(" referenced by a.rs:2 (src/a.rs:2)").unwrap(), "src/a.rs:2");
        assert_eq!(crate_in(" referenced by a.rs:2 (/src/x/a.rs:2)").unwrap(), "x/a.rs:2");
        assert_eq!(crate_in(" referenced by a.rs:2 (/dep/fata/a.rs:2)").unwrap(), "fata/a.rs:2");
    }

    #[test]
    fn a_program_without_fata_is_told_so() {
        let found = parse("error: undefined symbol: malloc\nerror: undefined symbol: write\n");
        assert!(failure("plain", &found).to_string().contains("does not use fata"));
    }

    #[test]
    fn long_lists_are_cut() {
        let text: String = (0..40).map(|n| format!("error: undefined symbol: f{n}\n")).collect();
        let text = failure("p", &parse(&text)).to_string();
        assert!(text.contains("40 C functions") && text.contains("… and 28 more"), "{text}");
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(error: undefined symbol: |>>> |[a-z:(./-]|\\PC|\n){0,60}") {
            let _ = parse(&text);
        }
    }
}
