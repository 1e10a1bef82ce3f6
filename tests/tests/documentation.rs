//! The documentation says what the tools do: its commands exist, its first steps work.

use fata_tests::{Machine, build, fata, free_port, output, root};
use std::path::Path;

/// Every line of the documentation, and of the programs' own, that calls `fata`.
fn documented_commands() -> Vec<(String, String)> {
    let files = output("git", &["-C", root().to_str().expect("UTF-8"), "ls-files", "*.md", "*.rs"]);
    let mut commands = Vec::new();
    for file in files.lines().filter(|file| file.ends_with(".md") || file.starts_with("examples/"))
    {
        let text = std::fs::read_to_string(root().join(file)).expect("readable");
        for line in text.lines() {
            let line = line.trim_start_matches("//!").trim().trim_start_matches("$ ");
            if line.starts_with("fata ") {
                commands.push((file.to_string(), line.to_string()));
            }
        }
    }
    commands
}

#[test]
fn commands_and_options_in_the_documentation_exist() {
    let commands = documented_commands();
    assert!(commands.len() >= 8, "found only {commands:?}");
    for (file, line) in commands {
        // What follows `--` is the program's, and what follows `#` is said to the reader.
        let line = line.split(" #").next().expect("a first part");
        let mut words = line.split_whitespace().skip(1).take_while(|word| *word != "--");
        let Some(command) = words.next() else { continue };
        if command.starts_with('-') || command.chars().all(|c| c.is_ascii_uppercase()) {
            continue;
        }
        let help = fata().args([command, "--help"]).output().expect("fata runs");
        assert!(help.status.success(), "{file}: `fata {command}` does not exist: {line}");
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        for option in words.filter(|word| word.starts_with('-')) {
            let option = option.split('=').next().expect("a first part");
            assert!(help.contains(option), "{file}: `fata {command}` has no {option}: {line}");
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let files = output("git", &["-C", root().to_str().expect("UTF-8"), "ls-files", "*.md"]);
    for file in files.lines() {
        let text = std::fs::read_to_string(root().join(file)).expect("readable");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().expect("a first part");
            if path.is_empty() || path.contains("://") {
                continue;
            }
            let folder = root().join(file).parent().expect("a folder").to_path_buf();
            assert!(folder.join(path).exists(), "{file}: the link {link} leads nowhere");
        }
    }
}

#[test]
fn the_first_steps_of_the_readme_work() {
    let folder = std::env::temp_dir().join(format!("fata-first-steps-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let _cleaned = Cleaned(&folder);
    let run = |arguments: &[&str]| {
        let result = fata().current_dir(&folder).args(arguments).output().expect("fata runs");
        let text = String::from_utf8_lossy(&result.stdout).into_owned();
        let errors = String::from_utf8_lossy(&result.stderr).into_owned();
        assert!(result.status.success(), "fata {arguments:?}: {}\n{text}{errors}", result.status);
        text
    };
    run(&["new", "greeter", "--fata-path", root().join("crates/fata").to_str().expect("UTF-8")]);
    run(&["build", "greeter", "-t", "virtio"]);

    let port = free_port();
    let mut command = fata();
    command.current_dir(&folder);
    command.args(["run", "greeter", "-t", "virtio", "--publish", &format!("{port}:8080")]);
    let mut machine = Machine::spawn(command);
    machine.wait_for("listening");
    let page = output("curl", &["-sS", "--max-time", "30", &format!("http://127.0.0.1:{port}/")]);
    assert!(!page.is_empty());

    let described = run(&["describe", "greeter/target/fata/greeter.virtio"]);
    assert!(described.contains("greeter") && described.contains("port"), "{described}");
}

/// The tool checks settings before anything runs, from a list of its own: one that a program knows and
/// the tool does not could not be given.
#[test]
fn every_setting_in_a_programs_help_is_one_that_the_tool_takes() {
    for program in ["examples/http", "examples/forward", "examples/block"] {
        let image = build(program, "unix");
        let settings: Vec<String> = output(image.to_str().expect("UTF-8"), &["--help"])
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|word| word.starts_with("--") && word.contains('.'))
            .map(|setting| format!("{setting}=1"))
            .collect();
        assert!(settings.len() >= 2, "{program} has settings: {settings:?}");
        // With --help the tool checks the words, and runs nothing.
        let mut command = fata();
        command.args(["run", "-t", "unix"]).arg(&image).args(["--", "--help"]).args(&settings);
        let result = command.output().expect("fata runs");
        let errors = String::from_utf8_lossy(&result.stderr);
        assert!(result.status.success(), "{program} {settings:?}: {errors}");
    }
}

struct Cleaned<'a>(&'a Path);

impl Drop for Cleaned<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0);
    }
}
