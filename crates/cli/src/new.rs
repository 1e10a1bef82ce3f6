//! `fata new`: a package to start from.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Exit, Failure, Result};
use crate::ui::Ui;
use crate::{files, package};

/// The program of a new package.
const MAIN: &str = include_str!("template/main.rs");

/// Makes the package at `path`.
pub(crate) fn new(ui: Ui, path: &Path, fata_path: Option<&Path>) -> Result<()> {
    let dependency = dependency(fata_path)?;
    if path.exists() {
        let what = format!("{} exists already", path.display());
        return Err(Failure::new(Exit::Package, what).help("choose another name"));
    }
    // cargo knows what a name may be, joins a workspace that surrounds it, and starts a repository.
    let output = Command::new(package::cargo()?)
        .args(["new", "--quiet", "--bin"])
        .arg(path)
        .output()
        .map_err(|error| Failure::io("start cargo", &error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let what = format!("cargo cannot make the package {}", path.display());
        return Err(
            Failure::new(Exit::Package, what).note(said.trim().trim_start_matches("error: "))
        );
    }
    let fill = || -> Result<()> {
        let manifest = path.join("Cargo.toml");
        let mut text = std::fs::read_to_string(&manifest)
            .map_err(|error| Failure::io(format!("read {}", manifest.display()), &error))?;
        if !text.ends_with("[dependencies]\n") {
            text.push_str("\n[dependencies]\n");
        }
        text.push_str(&dependency);
        files::write(&manifest, text.as_bytes(), false)?;
        files::write(&path.join("src/main.rs"), MAIN.as_bytes(), false)
    };
    if let Err(failure) = fill() {
        // Nothing half-made is left; the directory was not there before.
        let _ = std::fs::remove_dir_all(path);
        return Err(failure);
    }
    ui.status("Created", &path.display().to_string());
    let path = path.display();
    ui.status("Try", &format!("fata run {path}, then curl http://127.0.0.1:8080/"));
    ui.status(
        "Or",
        &format!("fata run {path} -t virtio --publish 8080:8080, the same as a machine"),
    );
    Ok(())
}

/// The `[dependencies]` of a new package.
fn dependency(fata_path: Option<&Path>) -> Result<String> {
    let fata = match fata_path {
        Some(path) => {
            let absolute = path
                .canonicalize()
                .map_err(|error| Failure::io(format!("find {}", path.display()), &error))?;
            if !is_fata(&absolute) {
                let what = format!("{} is not the crate fata", path.display());
                return Err(Failure::new(Exit::Usage, what)
                    .help("name the directory crates/fata of a checkout"));
            }
            Some(absolute)
        }
        None => checkout(),
    };
    let fata = match fata.as_deref().map(toml_string) {
        Some(Some(path)) => format!("fata = {{ path = {path} }}"),
        Some(None) => {
            return Err(Failure::new(Exit::Usage, "the path of the crate fata is not UTF-8"));
        }
        None => format!("fata = \"{}\"", env!("CARGO_PKG_VERSION")),
    };
    Ok(format!(
        "{fata}\n\
         axum = {{ version = \"0.8\", default-features = false, features = [\"http1\", \"tokio\"] }}\n"
    ))
}

/// The crate fata of the checkout that this tool was built from, if it is still there.
fn checkout() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fata").canonicalize().ok()?;
    is_fata(&path).then_some(path)
}

fn is_fata(directory: &Path) -> bool {
    std::fs::read_to_string(directory.join("Cargo.toml"))
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "name = \"fata\""))
}

/// `path` as a basic string of TOML.
fn toml_string(path: &Path) -> Option<String> {
    // JSON's escapes are a part of TOML's, except that TOML wants DEL escaped as well.
    serde_json::to_string(path.to_str()?).ok().map(|text| text.replace('\u{7f}', "\\u007f"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_toml() {
        assert_eq!(toml_string(Path::new("/a \"b\"")).unwrap(), "\"/a \\\"b\\\"\"");
    }

    #[test]
    fn a_directory_that_is_not_fata_is_refused() {
        let failure = dependency(Some(Path::new("/"))).unwrap_err();
        assert!(failure.what.contains("not the crate fata"), "{failure}");
        assert_eq!(dependency(Some(Path::new("/nonexistent"))).unwrap_err().exit, Exit::Io);
    }

    #[test]
    fn the_checkout_is_found() {
        assert!(dependency(None).unwrap().starts_with("fata = { path = \""));
    }
}
