//! Plays every script that is kept: the seeds that the codecs write, and what lies in `corpus/`,
//! where each finding of a fuzzer stays when its cause is gone.

use fata_fuzz::{Input, TARGETS};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The files of a folder, by name; none if there is no folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn every_script_that_is_kept_is_survived() {
    let mut failed = Vec::new();
    for target in TARGETS {
        let kept = files(&corpus().join(target.name)).into_iter().map(|path| {
            let bytes = std::fs::read(&path).expect("readable");
            (path.display().to_string(), bytes)
        });
        let seeds = (target.seeds)().into_iter();
        let seeds = seeds.map(|(name, bytes)| (format!("the seed {name}"), bytes));
        for (name, bytes) in kept.chain(seeds) {
            let play = AssertUnwindSafe(|| (target.run)(&mut Input::new(&bytes)));
            if catch_unwind(play).is_err() {
                failed.push(format!("{}: {name}", target.name));
            }
        }
    }
    assert!(
        failed.is_empty(),
        "play one with `cargo run -p fata-fuzz -- TARGET FILE`: {failed:#?}"
    );
}

#[test]
fn an_empty_script_and_one_of_noise_are_survived() {
    for target in TARGETS {
        (target.run)(&mut Input::new(&[]));
        // SplitMix64, so that every run has the same.
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (word ^ (word >> 27)) as u8
        };
        for len in [1, 10, 100, 1000] {
            let bytes: Vec<u8> = (0..len).map(|_| noise()).collect();
            (target.run)(&mut Input::new(&bytes));
        }
    }
}

/// A folder that no target has is never played.
#[test]
fn every_folder_is_a_targets() {
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), TARGETS.len(), "two targets of one name");
    for folder in files(&corpus()) {
        let name = folder.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(names.contains(name), "there is no target {name}");
    }
}
