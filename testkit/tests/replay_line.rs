//! What a failing run leaves behind: its seed, the line that repeats it, captures.
//!
//! The tests run this program again, with a test that fails when it is told to.

use fata_pcap::{Direction, Reader};
use fata_testkit::net::World;
use std::path::Path;
use std::process::{Command, Output};

const FAILS: &str = "FATA_TESTKIT_FAILS";

/// Fails if it is told to; else it is a world in which a connection is made.
#[test]
fn a_world_that_may_fail() {
    World::run_each(3..6, |world| async move {
        let (left, right) = (world.host("left").start(), world.host("the right").start());
        let listener = right.stack.tcp_listen(80).await.unwrap();
        let connect = left.stack.tcp_connect((right.address, 80));
        let (client, server) = tokio::join!(connect, listener.accept());
        client.unwrap();
        server.unwrap();
        assert!(
            std::env::var_os(FAILS).is_none() || world.seed() == 3,
            "the test was told to fail"
        );
    });
}

fn run_again(fails: bool, seed: Option<&str>, captures: Option<&Path>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["a_world_that_may_fail", "--exact", "--nocapture"]);
    command.env_remove("FATA_SEED").env_remove("FATA_PCAP").env("CARGO_PKG_NAME", "fata-testkit");
    if fails {
        command.env(FAILS, "1");
    }
    command.envs(seed.map(|seed| ("FATA_SEED", seed)));
    command.envs(captures.map(|directory| ("FATA_PCAP", directory)));
    command.output().unwrap()
}

#[test]
fn a_failing_run_prints_the_line_that_repeats_it() {
    let output = run_again(true, None, None);
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr);
    let line = "FATA_SEED=4 cargo test -p fata-testkit a_world_that_may_fail -- --exact";
    assert!(words.contains("told to fail") && words.contains(line), "{words}");
    assert!(run_again(true, Some("3"), None).status.success(), "another seed");
    let output = run_again(true, Some("18446744073709551615"), None);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.contains("seed was 18446744073709551615"), "{words}");
}

#[test]
fn a_seed_that_is_none_is_named() {
    let output = run_again(false, Some("seven"), None);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.contains("FATA_SEED=seven"), "{words}");
}

#[test]
fn captures_of_every_port_are_left_where_they_are_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let captures = directory.path().join("made/for/it");
    // The last run fails: its captures are whole all the same.
    assert!(!run_again(true, Some("9"), Some(&captures)).status.success());
    assert!(run_again(false, None, Some(&captures)).status.success());
    let mut names: Vec<_> = std::fs::read_dir(&captures)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let wanted: Vec<_> = [3, 4, 5, 9]
        .iter()
        .flat_map(|seed| ["left", "the_right"].map(|port| (seed, port)))
        .map(|(seed, port)| format!("a_world_that_may_fail.{seed}.{port}.pcapng"))
        .collect();
    assert_eq!(names, wanted);
    for name in names {
        let bytes = std::fs::read(captures.join(&name)).unwrap();
        let mut reader = Reader::new(&bytes).unwrap();
        let mut frames = [0, 0];
        while let Some(frame) =
            reader.next_frame().unwrap_or_else(|error| panic!("{name}: {error}"))
        {
            frames[usize::from(frame.direction == Some(Direction::Inbound))] += 1;
        }
        assert!(frames[0] >= 3 && frames[1] >= 3, "{name}: {frames:?}");
    }
}
