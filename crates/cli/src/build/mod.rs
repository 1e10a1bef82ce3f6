//! `fata build`: from a package to an image.

mod cargo;
mod linker;
mod recipe;
mod undefined;

pub(crate) use linker::become_linker;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::child::{Signals, tethered, typed};
use crate::failure::{Exit, Failure, Result};
use crate::image::seal::seal;
use crate::image::{Image, Problem, read_bounded};
use crate::package::Program;
use crate::ui::{Ui, size};
use crate::{files, package, symbols};

/// What an image is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Target {
    /// An ordinary process over the host's sockets and files.
    Unix,
    /// A virtual machine with virtio devices: QEMU and its kin.
    Virtio,
    /// A PVH guest of a Xen host.
    Xen,
}

impl Target {
    /// As the manifest and the command line write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Target::Unix => "unix",
            Target::Virtio => "virtio",
            Target::Xen => "xen",
        }
    }

    /// The target is a machine, and what is built for it a sealed image without a libc.
    pub(crate) fn is_machine(self) -> bool {
        self != Target::Unix
    }

    /// The target of a manifest, when this tool knows it.
    pub(crate) fn from_manifest(name: &str) -> Option<Self> {
        [Target::Unix, Target::Virtio, Target::Xen]
            .into_iter()
            .find(|target| target.as_str() == name)
    }
}

/// How to build, beside what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Where the image goes instead of `target/fata`.
    pub(crate) output: Option<PathBuf>,
    /// Link the C library into a `unix` image, so that it runs on any Linux.
    pub(crate) static_libc: bool,
    /// Cargo.lock must not change.
    pub(crate) locked: bool,
    /// No network.
    pub(crate) offline: bool,
}

/// What was built.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Built {
    /// The image.
    pub(crate) image: PathBuf,
    /// The unstripped program, for symbols.
    pub(crate) symbols: Option<PathBuf>,
    /// The package's name.
    pub(crate) package: String,
    /// The target's name.
    pub(crate) target: &'static str,
    /// The image's size in bytes.
    pub(crate) bytes: u64,
    /// GNU build id, hexadecimal.
    pub(crate) build_id: Option<String>,
}

/// Builds `program` for `target`.
pub(crate) fn build(
    ui: Ui,
    signals: &mut Signals,
    program: &Program,
    target: Target,
    options: &Options,
) -> Result<Built> {
    let executable = compile(ui, signals, program, target, options)?;
    let built = match target {
        Target::Unix => publish_unix(program, &executable, options)?,
        Target::Virtio | Target::Xen => publish_sealed(program, &executable, target, options)?,
    };
    let about = match (&built.symbols, &built.build_id) {
        (Some(_), Some(id)) => format!(", build id {}", &id[..id.len().min(12)]),
        _ => String::new(),
    };
    ui.status("Built", &format!("{} ({}{about})", built.image.display(), size(built.bytes)));
    Ok(built)
}

/// Runs cargo and returns the executable that it made.
fn compile(
    ui: Ui,
    signals: &mut Signals,
    program: &Program,
    target: Target,
    options: &Options,
) -> Result<PathBuf> {
    let what = format!("{} for {}", program.name, target.as_str());
    let mut command = tethered(package::cargo()?);
    command.arg("build").arg("--manifest-path").arg(&program.manifest_path);
    command.args([if program.example { "--example" } else { "--bin" }, &program.name]);
    let format = if ui.color_stderr() { "json-diagnostic-rendered-ansi" } else { "json" };
    command.arg("--message-format").arg(format);
    for (flag, wanted) in [("--locked", options.locked), ("--offline", options.offline)] {
        if wanted {
            command.arg(flag);
        }
    }
    let directory = program.output_directory();
    let flags = match target {
        Target::Virtio | Target::Xen => {
            let link = recipe::LinkFiles::write(&directory.join("link"))?;
            for (key, value) in recipe::PROFILE {
                command.arg("--config");
                command.arg(format!("profile.{}.{key}={value}", recipe::PROFILE_NAME));
            }
            command.args(["--profile", recipe::PROFILE_NAME]);
            Some(recipe::rustflags(target.as_str(), &link, &source_map(program)))
        }
        Target::Unix => {
            command.arg("--release");
            options.static_libc.then(|| {
                let mut flags: Vec<OsString> = vec!["-Ctarget-feature=+crt-static".into()];
                flags.extend(recipe::remap_flags(&source_map(program)));
                flags
            })
        }
    };
    if let Some(flags) = flags {
        // A target directory of its own: other flags in the same one would throw away, each time,
        // what the user's ordinary builds made.
        let own = match target {
            Target::Virtio | Target::Xen => target.as_str(),
            Target::Unix => "unix-static",
        };
        command.args(["--target", recipe::RUST_TARGET, "--target-dir"]).arg(directory.join(own));
        command.env("CARGO_ENCODED_RUSTFLAGS", recipe::encode(&flags));
        command.env_remove("RUSTFLAGS");
    }
    ui.detail(&typed(&command));
    let spinner = ui.spinner("Building", what.clone());
    match cargo::run(ui, signals, spinner, command)? {
        Ok(finished) => {
            let found = finished.executables.into_iter().find(|(name, _)| *name == program.name);
            found.map(|(_, path)| path).ok_or_else(|| {
                Failure::new(Exit::Internal, format!("cargo built {what}, but named no executable"))
            })
        }
        Err(failed) => {
            let undefined = undefined::parse(&failed.linker_output);
            if target.is_machine() && !undefined.is_empty() {
                ui.detail(&failed.linker_rendered);
                return Err(undefined::failure(&program.name, &undefined));
            }
            if !failed.linker_rendered.is_empty() {
                ui.raw(&failed.linker_rendered);
            }
            Err(cargo::failure(&what))
        }
    }
}

/// Paths of this computer and what stands for them in the program: the same sources give the same
/// image, whoever builds it and wherever. [`symbols`] shortens the right-hand sides again.
fn source_map(program: &Program) -> Vec<(PathBuf, String)> {
    // rustc takes the last prefix that matches: from the general to the special.
    let mut map = vec![(program.workspace_root.clone(), "/src".to_owned())];
    for (name, directory) in &program.outside {
        map.push((directory.clone(), format!("/dep/{name}")));
    }
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    if let Some(home) = home {
        map.push((home.join("git/checkouts"), "/cargo/git".to_owned()));
        // Below it, a directory per registry, whose name depends on the registry's address.
        let mut registries: Vec<PathBuf> = std::fs::read_dir(home.join("registry/src"))
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        registries.sort();
        map.extend(registries.into_iter().map(|path| (path, "/cargo/registry".to_owned())));
    }
    map
}

fn publish_unix(program: &Program, executable: &Path, options: &Options) -> Result<Built> {
    let bytes = read_bounded(executable)?;
    let path = output_path(program, Target::Unix, options)?;
    files::write(&path, &bytes, true)?;
    let image = open_own(program, &path)?;
    Ok(built(program, Target::Unix, &image, None))
}

fn publish_sealed(
    program: &Program,
    executable: &Path,
    target: Target,
    options: &Options,
) -> Result<Built> {
    let unstripped = read_bounded(executable)?;
    let sealed = seal(&unstripped).map_err(|problem: Problem| {
        let what = format!("what the linker made cannot be sealed: {}", problem.what);
        Failure::new(Exit::Internal, what)
    })?;
    let path = output_path(program, target, options)?;
    files::write(&path, &sealed, true)?;
    let image = open_own(program, &path)?;
    let symbols = symbols::beside(&path);
    files::write_if_changed(&symbols, &unstripped)?;
    if let Some(id) = &image.build_id {
        symbols::keep(&program.symbol_store(), id, &unstripped)?;
    }
    Ok(built(program, target, &image, Some(symbols)))
}

fn built(program: &Program, target: Target, image: &Image, symbols: Option<PathBuf>) -> Built {
    Built {
        image: image.path.clone(),
        symbols,
        package: program.package.clone(),
        target: target.as_str(),
        bytes: image.bytes.len() as u64,
        build_id: image.build_id.clone(),
    }
}

fn output_path(program: &Program, target: Target, options: &Options) -> Result<PathBuf> {
    let default =
        || program.output_directory().join(format!("{}.{}", program.name, target.as_str()));
    let path = options.output.clone().unwrap_or_else(default);
    let absolute = std::path::absolute(&path)
        .map_err(|error| Failure::io(format!("write {}", path.display()), &error))?;
    if let Some(parent) = absolute.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|error| Failure::io(format!("create {}", parent.display()), &error))?;
    }
    Ok(absolute)
}

/// Reads back what was just written, as everybody will: an image that cannot be described is none.
fn open_own(program: &Program, path: &Path) -> Result<Image> {
    Image::open(path).map_err(|failure| {
        // Nothing is left that looks like an image and is not.
        let _ = std::fs::remove_file(path);
        let what = format!("{} is built, but it is not an image: {}", program.name, failure.what);
        Failure::new(Exit::Image, what)
            .help("depend on the crate fata and write #[fata::main] above async fn main")
    })
}
