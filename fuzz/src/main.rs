//! The program that `fuzz/run` builds; without libFuzzer, one that plays a script again.
#![forbid(unsafe_code)]
#![cfg_attr(fuzzing, no_main)]

use fata_fuzz::{Input, TARGETS};

/// libFuzzer calls these two: the first once, before it reads its corpus.
#[cfg(fuzzing)]
mod fuzzer {
    use super::*;
    use std::process::exit;
    use std::sync::OnceLock;

    static TARGET: OnceLock<&fata_fuzz::Target> = OnceLock::new();

    /// `FATA_FUZZ_TARGET` names the target, `FATA_FUZZ_SEEDS` the folder for its seeds. Without the
    /// first, lists the targets.
    fn begin() {
        let Ok(name) = std::env::var("FATA_FUZZ_TARGET") else {
            TARGETS.iter().for_each(|target| println!("{}", target.name));
            exit(0);
        };
        let Some(target) = fata_fuzz::find(&name) else {
            eprintln!("there is no target {name}");
            exit(2);
        };
        if let Some(folder) = std::env::var_os("FATA_FUZZ_SEEDS") {
            let folder = std::path::Path::new(&folder);
            for (name, seed) in (target.seeds)() {
                if let Err(error) = std::fs::write(folder.join(&name), seed) {
                    eprintln!("{}: {error}", folder.join(name).display());
                    exit(2);
                }
            }
        }
        TARGET.get_or_init(|| target);
    }

    libfuzzer_sys::fuzz_target!(init: begin(), |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(&mut Input::new(bytes));
        }
    });
}

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;
    let mut arguments = std::env::args().skip(1);
    let Some(target) = arguments.next().and_then(|name| fata_fuzz::find(&name)) else {
        eprintln!("fata-fuzz TARGET FILE … plays scripts that fuzz/run found. The targets:");
        TARGETS.iter().for_each(|target| eprintln!("  {}", target.name));
        return ExitCode::FAILURE;
    };
    for file in arguments {
        match std::fs::read(&file) {
            Ok(bytes) => (target.run)(&mut Input::new(&bytes)),
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::FAILURE;
            }
        }
        println!("{file}: nothing found");
    }
    ExitCode::SUCCESS
}
