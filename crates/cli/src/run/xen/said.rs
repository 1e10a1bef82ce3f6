//! What `xl` says when it fails, as what happened and what to do.
//!
//! Its words are libxl's trace of how far it came: the cause stands first, and behind it what it
//! cleared away. It is shown where the cause is not known for sure; else a sentence says it all.

use crate::failure::{Exit, Failure};
use crate::ui::printable;

/// Two runs may take the same name at once; one of them finds out only from xl.
const NAME_TAKEN: &str = "another domain has this name";

/// Whether that is what happened.
pub(super) fn is_name_taken(failure: &Failure) -> bool {
    failure.what == NAME_TAKEN
}

/// The failure of who comes second.
pub(super) fn name_taken() -> Failure {
    Failure::new(Exit::Resource, NAME_TAKEN).help("give it another: --name NAME")
}

/// What xl said, as what happened.
pub(super) fn explain(doing: &str, said: &str) -> Failure {
    // What xl says while it clears away a domain that it could not make.
    const AFTERMATH: [&str; 3] =
        ["Non-existant domain", "Unable to destroy guest", "Destruction of domain failed"];
    let lines = said.lines().map(str::trim).filter(|line| {
        !line.is_empty() && !AFTERMATH.iter().any(|aftermath| line.ends_with(aftermath))
    });
    let notes: Vec<String> = lines.map(printable).collect();
    let failure = |exit, what: String| {
        let tail = &notes[notes.len().saturating_sub(8)..];
        tail.iter().fold(Failure::new(exit, what), |failure, line| failure.note(line))
    };
    if said.contains("Permission denied") || said.contains("must be root") {
        failure(Exit::Resource, format!("{doing} is not permitted")).help("run as root")
    } else if ["not enough free memory", "failed to free memory", "Out of memory"]
        .iter()
        .any(|words| said.contains(words))
    {
        failure(Exit::Resource, "this Xen host has too little free memory".to_owned())
            .help("ask for less with --memory; `xl info` shows what is free")
    } else if said.contains("Unable to set nic defaults") {
        Failure::new(Exit::Resource, "there is no such driver domain")
            .help("start the domain first that --net backend= names; `xl list` shows those there")
    } else if said.contains("unable to add vif devices") {
        failure(Exit::Resource, "a network interface could not be connected".to_owned())
            .help(
                "is there such a bridge? `ip link show type bridge`; --net bridge=NAME names it\n\
                 with --net backend=DOMAIN: does that domain serve interfaces (a `Clients` device)?",
            )
    } else if said.contains("Unable to set disk defaults") {
        Failure::new(Exit::Resource, "there is no such storage domain")
            .help("start the domain first that --block NAME=backend= names")
    } else if said.contains("unable to add disk devices") {
        failure(Exit::Resource, "a disk could not be attached".to_owned())
    } else if said.contains("already exists") {
        name_taken()
    } else {
        failure(Exit::Machine, format!("{doing} failed")).help("-v shows its command lines")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn xls_words_become_ours() {
        for (said, exit, notes) in [
            ("libxl: error: Domain 15:unable to add vif devices", Exit::Resource, 1),
            ("libxl: error: Domain 16:Unable to set nic defaults for nic 0", Exit::Resource, 0),
            ("libxl: error: Domain 16:Unable to set disk defaults for disk 0", Exit::Resource, 0),
            ("xc: error: panic: xc_dom_boot_mem_init: Out of memory", Exit::Resource, 1),
            ("ERROR: Can't open hypervisor interface: Permission denied", Exit::Resource, 1),
            ("libxl: error: not enough free memory", Exit::Resource, 1),
            ("domain with name \"web\" already exists", Exit::Resource, 0),
            ("libxl: error: something else\x1b[2J", Exit::Machine, 1),
        ] {
            let failure = explain("create", said);
            assert_eq!(failure.exit, exit, "{failure}");
            assert!(!failure.to_string().contains('\x1b'));
            assert_eq!(failure.notes.len(), notes, "{failure}");
            let aftermath = format!("{said}\nlibxl: error: Domain 14:Non-existant domain\n");
            assert_eq!(explain("create", &aftermath).notes, failure.notes);
        }
    }

    #[test]
    fn a_taken_name_is_known_again() {
        let said = "libxl: error: Domain 11:Domain with name \"web\" already exists.";
        assert!(is_name_taken(&explain("xl create", said)));
        assert!(!is_name_taken(&explain("xl create", "libxl: error: else")));
    }

    proptest! {
        #[test]
        fn any_words_are_survived(said in any::<String>()) {
            let _ = explain("xl", &said).to_string();
        }
    }
}
