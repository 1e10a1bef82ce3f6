//! What the guests run: the examples, sealed for `virtio` by the `fata` command, and the same sources built for
//! `unix`, which is what Linux runs as its init.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::guest::{Software, System};
use crate::linux::Linux;
use crate::process::run_ok;

/// A first build compiles every crate of a TLS server, on a small machine.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

const STRIP_LIMIT: Duration = Duration::from_secs(60);

/// An example that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Example {
    /// Logs and timers, no network.
    Hello,
    /// A service on axum.
    Http,
    /// The same behind TLS 1.3.
    Https,
}

impl Example {
    /// The port that it is told to listen on.
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Hello | Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "hello",
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// A file that stands for an example, given on the command line as `NAME=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    example: Example,
    file: PathBuf,
}

impl std::str::FromStr for Given {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, file) = text.split_once('=').context("it is not NAME=FILE")?;
        let example = <Example as clap::ValueEnum>::from_str(name, false)
            .map_err(|_| anyhow!("{name:?} is none of hello, http, https"))?;
        if !Path::new(file).is_file() {
            bail!("there is no file {file}");
        }
        Ok(Self { example, file: file.into() })
    }
}

/// Builds and remembers what the guests run.
#[derive(Debug)]
pub(crate) struct Shelf {
    root: PathBuf,
    cache: PathBuf,
    images: Vec<Given>,
    programs: Vec<Given>,
    linux: Option<Linux>,
    ready: BTreeMap<(System, Example), Software>,
}

impl Shelf {
    /// `root` is the project's; `images` and `programs` are used instead of building.
    pub(crate) fn new(root: PathBuf, images: Vec<Given>, programs: Vec<Given>) -> Self {
        let cache = root.join(".cache").join("bench");
        Self { root, cache, images, programs, linux: None, ready: BTreeMap::new() }
    }

    /// What `system` boots to run `example`.
    pub(crate) fn software(&mut self, system: System, example: Example) -> Result<Software> {
        if let Some(software) = self.ready.get(&(system, example)) {
            return Ok(software.clone());
        }
        let software = match system {
            System::Fata => {
                let given = self.images.iter().find(|given| given.example == example);
                let kernel = match given {
                    Some(given) => given.file.clone(),
                    None => self.build(example, &["--target", "virtio"])?,
                };
                Software { kernel, initramfs: None }
            }
            System::Linux => {
                let given = self.programs.iter().find(|given| given.example == example);
                let program = match given {
                    Some(given) => given.file.clone(),
                    None => self.build(example, &["--target", "unix", "--static"])?,
                };
                let content = self.stripped(&program, example)?;
                let initramfs = self.cache.join(format!("initramfs-{example}.cpio"));
                let linux = self.linux()?;
                let archive = linux.initramfs(&content);
                let kernel = linux.kernel.clone();
                std::fs::write(&initramfs, archive)
                    .with_context(|| format!("cannot write {}", initramfs.display()))?;
                Software { kernel, initramfs: Some(initramfs) }
            }
        };
        self.ready.insert((system, example), software.clone());
        Ok(software)
    }

    /// The peer's parts.
    pub(crate) fn linux(&mut self) -> Result<&Linux> {
        let linux = match self.linux.take() {
            Some(linux) => linux,
            None => Linux::prepare(&self.cache)?,
        };
        Ok(self.linux.insert(linux))
    }

    /// The peer's kernel, if it was needed so far.
    pub(crate) fn kernel_release(&self) -> &str {
        self.linux.as_ref().map_or("", |linux| &linux.release)
    }

    /// The project's root.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The program without its symbols, which the peer need not carry either.
    fn stripped(&self, program: &Path, example: Example) -> Result<Vec<u8>> {
        std::fs::create_dir_all(&self.cache)
            .with_context(|| format!("cannot create {}", self.cache.display()))?;
        let stripped = self.cache.join(format!("program-{example}"));
        let mut command = Command::new("strip");
        command.arg("-o").arg(&stripped).arg(program);
        run_ok(&mut command, &format!("strip {}", program.display()), STRIP_LIMIT)?;
        std::fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))
    }

    /// Runs `fata build`, which prints one JSON object.
    fn build(&self, example: Example, options: &[&str]) -> Result<PathBuf> {
        eprintln!("bench: fata build {} examples/{example}", options.join(" "));
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .args(["run", "--quiet", "--release", "--package", "fata-cli", "--bin", "fata", "--"])
            .args(["build", "--json"])
            .args(options)
            .arg(format!("examples/{example}"))
            .current_dir(&self.root);
        let text = run_ok(&mut command, &format!("fata build of {example}"), BUILD_LIMIT)?;
        parse_built(&text)
            .with_context(|| format!("fata build of {example} named no image: {text}"))
    }
}

/// Finds the image in what `fata build --json` prints.
fn parse_built(text: &str) -> Option<PathBuf> {
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    // One line, or one object over several.
    let value: Value = serde_json::from_str(line).or_else(|_| serde_json::from_str(text)).ok()?;
    Some(PathBuf::from(value["image"].as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_in_what_fata_prints() {
        let expected = Some(PathBuf::from("/t/http"));
        assert_eq!(parse_built("{\"image\":\"/t/http\",\"bytes\":7}\n"), expected);
        assert_eq!(parse_built("{\n  \"image\": \"/t/http\"\n}\n"), expected);
        assert_eq!(parse_built("{\"error\":\"no such package\"}"), None);
        assert_eq!(parse_built(""), None);
    }

    #[test]
    fn a_given_file_must_exist_and_be_for_an_example() {
        let own = std::env::current_exe().expect("this is a program");
        let own = own.to_str().expect("with a readable path");
        let given: Given = format!("https={own}").parse().expect("it exists");
        assert_eq!(given.example, Example::Https);
        assert!(format!("gopher={own}").parse::<Given>().is_err());
        assert!("http=/nonexistent/file".parse::<Given>().is_err());
        assert!("http".parse::<Given>().is_err());
    }
}
