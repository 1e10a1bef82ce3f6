//! Which program is meant: from a path to a package, and from a package to one of its programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::child::find_program;
use crate::failure::{Exit, Failure, Result};
use crate::suggest::did_you_mean;

/// One program of one package.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The package's Cargo.toml.
    pub(crate) manifest_path: PathBuf,
    /// The package.
    pub(crate) package: String,
    /// The program's own name, which is its file's.
    pub(crate) name: String,
    /// Whether it is an example, as opposed to a binary.
    pub(crate) example: bool,
    /// The workspace's root.
    pub(crate) workspace_root: PathBuf,
    /// cargo's target directory.
    pub(crate) target_directory: PathBuf,
    /// Directories outside the workspace that it takes crates from, each with a crate's name.
    pub(crate) outside: Vec<(String, PathBuf)>,
}

impl Program {
    /// Where `fata build` puts what it makes.
    pub(crate) fn output_directory(&self) -> PathBuf {
        self.target_directory.join("fata")
    }

    /// Where symbols are kept by build id.
    pub(crate) fn symbol_store(&self) -> PathBuf {
        self.output_directory().join("symbols")
    }
}

/// What the command line says about the program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice {
    /// `--bin NAME`.
    pub(crate) bin: Option<String>,
    /// `--example NAME`.
    pub(crate) example: Option<String>,
}

/// The part of `cargo metadata` that is needed.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
    #[serde(default)]
    default_run: Option<String>,
    #[serde(default)]
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    #[serde(default)]
    path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Package {
    fn names(&self, kind: &str) -> Vec<&str> {
        let of_kind = |target: &&Target| target.kind.iter().any(|k| k == kind);
        self.targets.iter().filter(of_kind).map(|target| target.name.as_str()).collect()
    }
}

/// Finds the program that `path` and `choice` mean.
pub(crate) fn find(path: &Path, choice: &Choice) -> Result<Program> {
    let manifest_path = manifest_of(path)?;
    let metadata = metadata(&manifest_path)?;
    let package = metadata.packages.iter().find(|package| package.manifest_path == manifest_path);
    let Some(package) = package else {
        let members = list(metadata.packages.iter().filter_map(|package| {
            let directory = package.manifest_path.parent()?;
            Some(directory.strip_prefix(&metadata.workspace_root).unwrap_or(directory).display())
        }));
        let what = format!("{} is a workspace, not a package", manifest_path.display());
        return Err(Failure::new(Exit::Package, what).help(format!("name one of: {members}")));
    };
    let (name, example) = choose(package, choice)?;
    let outside = outside(&metadata);
    Ok(Program {
        manifest_path,
        package: package.name.clone(),
        name,
        example,
        workspace_root: metadata.workspace_root,
        target_directory: metadata.target_directory,
        outside,
    })
}

/// The directories outside the workspace that its path dependencies lie in: of each, the root of
/// its own workspace, since its siblings are compiled too.
fn outside(metadata: &Metadata) -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    let dependencies = metadata.packages.iter().flat_map(|package| &package.dependencies);
    for (name, path) in dependencies.filter_map(|d| Some((&d.name, d.path.as_ref()?))) {
        if path.starts_with(&metadata.workspace_root) {
            continue;
        }
        let root = path
            .ancestors()
            .filter(|directory| declares_workspace(&directory.join("Cargo.toml")))
            .last()
            .unwrap_or(path);
        if !found.iter().any(|(_, known)| known == root) {
            found.push((name.clone(), root.to_owned()));
        }
    }
    found.sort();
    found
}

/// Whether `manifest` has a `[workspace]` table. Only paths in debug information depend on it, so
/// looking for the line is enough.
fn declares_workspace(manifest: &Path) -> bool {
    std::fs::read_to_string(manifest)
        .is_ok_and(|text| text.lines().any(|line| line.trim_end() == "[workspace]"))
}

/// The Cargo.toml at `path`, with its links resolved as cargo does.
fn manifest_of(path: &Path) -> Result<PathBuf> {
    let file = if path.is_dir() { path.join("Cargo.toml") } else { path.to_owned() };
    if !path.exists() {
        let what = format!("{}: no such file or directory", path.display());
        return Err(Failure::new(Exit::Package, what)
            .help("give the directory of a Cargo package, or an image that `fata build` wrote"));
    }
    if file.file_name().is_none_or(|name| name != "Cargo.toml") || !file.is_file() {
        let what = format!("{} is not a Cargo package: it has no Cargo.toml", path.display());
        return Err(Failure::new(Exit::Package, what)
            .help("change to a package's directory, name one, or make one with `fata new NAME`"));
    }
    file.canonicalize().map_err(|error| Failure::io(format!("read {}", file.display()), &error))
}

fn metadata(manifest_path: &Path) -> Result<Metadata> {
    let output = Command::new(cargo()?)
        .args(["metadata", "--format-version=1", "--no-deps", "--manifest-path"])
        .arg(manifest_path)
        .output()
        .map_err(|error| Failure::io("start cargo", &error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("error: ");
        let what = format!("cargo cannot read {}", manifest_path.display());
        return Err(Failure::new(Exit::Package, what).note(said));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::new(Exit::Internal, format!("cargo metadata's answer does not parse: {error}"))
    })
}

/// cargo, as the environment or the PATH names it.
pub(crate) fn cargo() -> Result<PathBuf> {
    let name = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    find_program(&name).ok_or_else(|| {
        Failure::new(Exit::Tool, format!("{} is not installed", name.display()))
            .help("install Rust: https://rustup.rs")
    })
}

fn choose(package: &Package, choice: &Choice) -> Result<(String, bool)> {
    let (bins, examples) = (package.names("bin"), package.names("example"));
    let named = |name: &str, known: &[&str], kind: &str| {
        if known.contains(&name) {
            return Ok(name.to_owned());
        }
        let near = did_you_mean(name, known.iter().copied());
        let what = format!("package {} has no {kind} {name}{near}", package.name);
        Err(Failure::new(Exit::Package, what).help(if known.is_empty() {
            format!("it has no {kind} at all")
        } else {
            format!("it has: {}", list(known))
        }))
    };
    if let Some(name) = &choice.bin {
        return Ok((named(name, &bins, "binary")?, false));
    }
    if let Some(name) = &choice.example {
        return Ok((named(name, &examples, "example")?, true));
    }
    match (bins.as_slice(), &package.default_run) {
        (_, Some(name)) => Ok((name.clone(), false)),
        ([only], None) => Ok(((*only).to_owned(), false)),
        ([], None) if examples.is_empty() => {
            let what = format!("package {} is a library: it has no program", package.name);
            Err(Failure::new(Exit::Package, what).help("add src/main.rs with #[fata::main]"))
        }
        ([], None) => {
            let what = format!("package {} has no binary", package.name);
            let help = format!("choose an example with --example: {}", list(&examples));
            Err(Failure::new(Exit::Package, what).help(help))
        }
        (several, None) => {
            let what = format!("package {} has {} binaries", package.name, several.len());
            let help = format!("choose one with --bin: {}", list(several));
            Err(Failure::new(Exit::Package, what).help(help))
        }
    }
}

/// `a, b, c`.
pub(crate) fn list(items: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(bins: &[&str], examples: &[&str]) -> Package {
        let target = |kind: &str, name: &&str| Target {
            name: (*name).to_owned(),
            kind: vec![kind.to_owned()],
        };
        Package {
            name: "p".into(),
            manifest_path: "/p/Cargo.toml".into(),
            targets: bins
                .iter()
                .map(|name| target("bin", name))
                .chain(examples.iter().map(|name| target("example", name)))
                .collect(),
            default_run: None,
            dependencies: Vec::new(),
        }
    }

    #[test]
    fn one_binary_needs_no_choice() {
        let none = Choice::default();
        assert_eq!(choose(&package(&["a"], &["e"]), &none).unwrap(), ("a".into(), false));
        let several = choose(&package(&["a", "b"], &[]), &none).unwrap_err();
        assert!(several.help.unwrap().contains("--bin: a, b"));
        let library = choose(&package(&[], &[]), &none).unwrap_err();
        assert!(library.what.contains("library"));
        let examples = choose(&package(&[], &["e"]), &none).unwrap_err();
        assert!(examples.help.unwrap().contains("--example: e"));
    }

    #[test]
    fn a_wrong_choice_lists_the_right_ones() {
        let choice = Choice { bin: Some("server".into()), example: None };
        let failure = choose(&package(&["serve", "send"], &[]), &choice).unwrap_err();
        assert!(failure.what.contains("did you mean serve?"), "{failure}");
        assert!(failure.help.unwrap().contains("serve, send"));
    }

    #[test]
    fn default_run_decides() {
        let mut package = package(&["a", "b"], &[]);
        package.default_run = Some("b".into());
        assert_eq!(choose(&package, &Choice::default()).unwrap(), ("b".into(), false));
    }
}
