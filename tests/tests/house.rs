//! The house's rules: which layer may know which, where `unsafe` may stand, how long a file may be.
//!
//! The folder is the layer, and the layer is the trust (ARCHITECTURE.md). What is checked here
//! cannot drift.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a crate in a folder may depend on. Nothing else of ours is allowed.
const ARROWS: &[(Layer, &[Layer])] = &[
    (Layer::Device, &[]),
    (Layer::Engine, &[]),
    (Layer::Trusted, &[Layer::Trusted]),
    (Layer::Driver, &[Layer::Device, Layer::Engine, Layer::Trusted]),
    (Layer::Service, &[Layer::Device, Layer::Engine, Layer::Service]),
    (Layer::Macros, &[]),
    // The wiring is the one place that introduces a driver to a service.
    (
        Layer::Fata,
        &[
            Layer::Device,
            Layer::Engine,
            Layer::Trusted,
            Layer::Driver,
            Layer::Service,
            Layer::Macros,
        ],
    ),
    (Layer::Cli, &[Layer::Testbed]),
    (Layer::Testbed, &[]),
    (Layer::Program, &[Layer::Fata]),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Device,
    Engine,
    Trusted,
    Driver,
    Service,
    Macros,
    Fata,
    Cli,
    /// Examples, and the programs that the tests boot.
    Program,
    /// A Xen host in QEMU, for the tool and the tests.
    Testbed,
    /// Host tools and tests, which ship nothing.
    Tool,
}

fn layer_of(folder: &Path) -> Option<Layer> {
    let parts: Vec<_> = folder.iter().map(|part| part.to_str().unwrap_or_default()).collect();
    Some(match parts[..] {
        ["crates", "device"] => Layer::Device,
        ["crates", "engine", _] => Layer::Engine,
        ["crates", "trusted", _] => Layer::Trusted,
        ["crates", "driver", _] => Layer::Driver,
        ["crates", "service", _] => Layer::Service,
        ["crates", "fata-macros"] => Layer::Macros,
        ["crates", "fata"] => Layer::Fata,
        ["crates", "cli"] => Layer::Cli,
        ["examples", _] | ["tests", "programs"] => Layer::Program,
        ["testbed"] => Layer::Testbed,
        // A guest that lies to its neighbours may know what no program may.
        ["bench", ..] | ["fuzz"] | ["tests"] | ["tests", "guests"] | ["testkit"] => Layer::Tool,
        _ => return None,
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_path_buf()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

/// Every crate of the workspace: its name, folder and metadata.
fn packages(metadata: &Value) -> Vec<(&str, PathBuf, &Value)> {
    let root = root();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
            let folder = manifest.parent().expect("a folder");
            let folder = folder.strip_prefix(&root).unwrap_or(folder).to_path_buf();
            (package["name"].as_str().expect("a name"), folder, package)
        })
        .collect()
}

#[test]
fn arrows_point_down_only() {
    let metadata = metadata();
    let packages = packages(&metadata);
    let mut layers = BTreeMap::new();
    for (name, folder, _) in &packages {
        let layer = layer_of(folder)
            .unwrap_or_else(|| panic!("{name}: no layer for the folder {}", folder.display()));
        layers.insert(*name, layer);
    }
    let mut wrong = Vec::new();
    for (name, _, package) in &packages {
        let layer = layers[name];
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == layer) else { continue };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"].as_str().expect("a name");
            // Tests may use what they like; what ships may not.
            if !dependency["kind"].is_null() {
                continue;
            }
            if let Some(target) = layers.get(to).filter(|target| !allowed.contains(target)) {
                wrong.push(format!("{name} ({layer:?}) knows {to} ({target:?})"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that ARCHITECTURE.md forbids:\n{}", wrong.join("\n"));
}

#[test]
fn engines_do_no_input_or_output() {
    const FORBIDDEN: &[(&str, &str)] = &[
        ("std::time::Instant::now", "take `now` as an argument"),
        ("SystemTime", "take the time as an argument"),
        ("std::thread", "an engine is a state machine"),
        ("std::fs", "an engine does no I/O"),
        ("TcpStream::connect", "an engine does no I/O"),
        ("tokio::", "an engine knows no runtime"),
        ("getrandom", "take secrets as an argument"),
    ];
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("crates/engine")) {
        let text = std::fs::read_to_string(&path).expect("readable");
        for (word, instead) in FORBIDDEN {
            if text.contains(word) && !is_test_file(&path) {
                wrong.push(format!("{}: `{word}`: {instead}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_in_trusted_crates_only() {
    let mut wrong = Vec::new();
    for (name, folder, package) in packages(&metadata()) {
        let trusted = layer_of(&folder) == Some(Layer::Trusted);
        for target in package["targets"].as_array().expect("targets") {
            let kind = target["kind"][0].as_str().expect("a kind");
            let source = Path::new(target["src_path"].as_str().expect("a path"));
            let text = std::fs::read_to_string(source).expect("readable");
            let forbids = text.contains("#![forbid(unsafe_code)]");
            let shipped = ["lib", "proc-macro", "bin"].contains(&kind);
            let exempt = trusted || folder.starts_with("tests");
            if shipped && !exempt && !forbids {
                wrong.push(format!("{name}: {} lacks #![forbid(unsafe_code)]", source.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    // Clippy checks the blocks (`undocumented_unsafe_blocks` is denied for the workspace); this
    // checks that the crates which may use them take part, and have their chapter.
    let soundness = std::fs::read_to_string(root().join("SOUNDNESS.md")).expect("SOUNDNESS.md");
    for (name, folder, _) in packages(&metadata()) {
        if layer_of(&folder) != Some(Layer::Trusted) {
            continue;
        }
        assert!(soundness.contains(&format!("`{name}`")), "SOUNDNESS.md has no chapter on {name}");
        let manifest = std::fs::read_to_string(root().join(&folder).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} opts out of the lints");
    }
}

#[test]
fn a_file_is_a_room() {
    const LINES_MAX: usize = 800;
    let mut wrong = Vec::new();
    for folder in ["crates", "examples", "bench", "fuzz", "tests"] {
        for path in rust_files(&root().join(folder)).into_iter().filter(|path| !is_test_file(path))
        {
            let text = std::fs::read_to_string(&path).expect("readable");
            let lines =
                text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("").lines().count();
            if lines > LINES_MAX {
                wrong.push(format!("{}: {lines} lines: is it two rooms?", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_undone_and_nothing_tells_where_it_was_written() {
    const WORDS: &[&str] = &["TO\u{44}O", "FIX\u{4d}E", "todo!(", "unimplemented!("];
    let mut wrong = Vec::new();
    for path in tracked_files() {
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue };
        for word in WORDS.iter().filter(|word| text.contains(**word)) {
            if !path.ends_with("house.rs") {
                wrong.push(format!("{path}: {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn tracked_files() -> Vec<String> {
    let output =
        Command::new("git").arg("ls-files").current_dir(root()).output().expect("git runs");
    String::from_utf8_lossy(&output.stdout).lines().map(String::from).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn is_test_file(path: &Path) -> bool {
    let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
    parts.iter().any(|part| matches!(*part, "tests" | "tests.rs" | "testing" | "examples"))
}
