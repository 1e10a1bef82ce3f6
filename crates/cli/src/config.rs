//! `fata config`: the file by which somebody else's launcher starts an image, made from the image's
//! manifest.
//!
//! It holds what `fata run` would attach, or a proposal where nothing is named: what lies where on
//! another host is known there.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::build::Target;
use crate::failure::{Exit, Failure, Result};
use crate::image::Image;
use crate::image::manifest::{Device, Manifest};
use crate::run::devices::{self, Attached};
use crate::run::request::{Block, Disk, Memory, Net};
use crate::run::xen::domain::Domain;
use crate::run::{self, arguments, xen};

/// `--for`: who will start the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Launcher {
    /// Xen's xl: `xl create -c FILE`
    Xl,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Request {
    /// The image.
    pub(crate) image: PathBuf,
    /// `--name`.
    pub(crate) name: Option<String>,
    /// `--net`.
    pub(crate) nets: Vec<Net>,
    /// `--block`.
    pub(crate) blocks: Vec<Block>,
    /// `--memory`.
    pub(crate) memory: Option<Memory>,
    /// Words for the program.
    pub(crate) words: Vec<String>,
}

/// The file's text.
pub(crate) fn text(request: &Request, launcher: Launcher) -> Result<String> {
    let Launcher::Xl = launcher;
    let path = std::path::absolute(&request.image)
        .map_err(|error| Failure::io(format!("read {}", request.image.display()), &error))?;
    let image = Image::open(&path)?;
    let manifest = &image.manifest;
    if Target::from_manifest(&manifest.target) != Some(Target::Xen) {
        let what = format!("{} is an image for {}, not for Xen", path.display(), manifest.target);
        return Err(Failure::new(Exit::Image, what).help("build another: fata build -t xen"));
    }
    let arguments = arguments::check(&request.words, manifest, Target::Xen)?;
    let memory = run::memory(&image, request.memory, run::MEMORY_ON_XEN)?;
    let (blocks, proposed) = blocks(manifest, &request.blocks)?;
    let attached = Attached {
        nets: &request.nets,
        blocks: &blocks,
        published: &[],
        default_link: &xen::default_link(xen::Choice::Host),
        files_are_here: false,
    };
    let has_setting = |device: &str, setting: &str| arguments.setting(device, setting).is_some();
    let devices = devices::attach(manifest, Target::Xen, attached, has_setting)?;
    let name = request.name.as_deref().unwrap_or(&manifest.package);
    let domain = Domain::new(&image, name, memory, &devices, &arguments)?;
    let config = xen::xl::config(&domain, |device| comment(manifest, device, &proposed))?;
    Ok(format!("{}{config}", head(manifest, &domain)))
}

/// The disks that are named, with absolute paths, and a proposal for each that is not; with the
/// names of the latter.
fn blocks(manifest: &Manifest, given: &[Block]) -> Result<(Vec<Block>, Vec<String>)> {
    let mut blocks = given.to_vec();
    for block in &mut blocks {
        if let Disk::File(path) = &mut block.disk {
            *path = std::path::absolute(&path)
                .map_err(|error| Failure::io(format!("name {}", path.display()), &error))?;
        }
    }
    let mut proposed = Vec::new();
    for Device { name, .. } in manifest.devices_of("block").filter(|device| !device.optional) {
        if !given.iter().any(|block| block.name == *name) {
            // Where Xen's own documentation keeps disks.
            let file = format!("/var/lib/xen/images/{}-{name}.img", manifest.package);
            let disk = Disk::File(file.into());
            blocks.push(Block { name: name.clone(), disk, read_only: false });
            proposed.push(name.clone());
        }
    }
    Ok((blocks, proposed))
}

/// What stands above the configuration.
fn head(manifest: &Manifest, domain: &Domain) -> String {
    let mut text = format!(
        "{} {}, an image for Xen. Start it: xl create -c FILE\n",
        manifest.package, manifest.version
    );
    text.push_str(&manifest.about);
    text.push('\n');
    if !manifest.arguments.is_empty() {
        let arguments = manifest.arguments.iter().map(|argument| {
            let default = argument.default.as_ref();
            let default = default.map_or_else(String::new, |value| format!(" [{value}]"));
            format!("--{}=<{}>{default}", argument.name, argument.kind)
        });
        let arguments: Vec<String> = arguments.collect();
        let _ = writeln!(text, "Arguments, behind cmdline's others: {}", arguments.join(" "));
    }
    let attached = |name: &str| {
        domain.vifs.iter().any(|vif| vif.device == name)
            || domain.disks.iter().any(|vbd| vbd.device == name)
    };
    for device in manifest.devices_of("block").filter(|device| !attached(&device.name)) {
        let _ = writeln!(text, "Not attached: {}. Add --block {}=FILE", said(device), device.name);
    }
    if domain.driver_domain {
        let _ = writeln!(
            text,
            "It serves other guests: those whose vif or disk says backend={}",
            domain.name
        );
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.fold(String::new(), |text, line| text + "# " + line + "\n")
}

/// What stands above a device.
fn comment(manifest: &Manifest, device: &str, proposed: &[String]) -> Option<String> {
    let device = manifest.devices.iter().find(|known| known.name == device)?;
    let mut text = said(device);
    if proposed.contains(&device.name) {
        text.push_str("\nThe path is a proposal; --block says another.");
    }
    Some(text)
}

fn said(device: &Device) -> String {
    let optional = if device.optional { ", optional" } else { "" };
    let help = if device.help.is_empty() { String::new() } else { format!(": {}", device.help) };
    format!("{} ({}{optional}){}", device.name, device.kind, help.trim_end_matches('.'))
}
