//! `fata config`: the file by which somebody else's launcher starts an image, made from the image's
//! manifest.
//!
//! It holds what `fata run` would attach, or a proposal where nothing is named: what lies where on
//! another host is known there.

use std::fmt::Write as _;
use std::path::PathBuf;

use fata_testbed::AtEnd;

use crate::build::Target;
use crate::failure::{Exit, Failure, Result};
use crate::image::Image;
use crate::image::manifest::{Device, Manifest};
use crate::package::list;
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
        default_link: &xen::default_link(&xen::Choice::Host),
        files_are_here: false,
    };
    let has_setting = |device: &str, setting: &str| arguments.setting(device, setting).is_some();
    let devices = devices::attach(manifest, Target::Xen, attached, has_setting)?;
    let name = request.name.as_deref().unwrap_or(&manifest.package);
    let domain = Domain::new(&image, name, memory, &devices, &arguments)?;
    // This file is for a machine that is to stay: a reboot that it asks for is a reboot.
    let config = domain.xl_config(AtEnd::Destroy)?;
    let config = config.replace("on_reboot = \"destroy\"", "on_reboot = \"restart\"");
    Ok(format!("{}{config}", head(manifest, &domain, &proposed)))
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

/// What stands above the configuration, as comments: who needs which of its lines.
fn head(manifest: &Manifest, domain: &Domain, proposed: &[String]) -> String {
    let (package, version) = (&manifest.package, &manifest.version);
    let mut text = format!("{package} {version}, an image for Xen. Start it: xl create -c FILE\n");
    text.push_str(&manifest.about);
    text.push('\n');
    if !manifest.arguments.is_empty() {
        let arguments = manifest.arguments.iter().map(|argument| {
            let default = argument.default.as_ref();
            let default = default.map_or_else(String::new, |value| format!(" [{value}]"));
            format!("--{}=<{}>{default}", argument.name, argument.kind)
        });
        let _ = writeln!(text, "Its arguments, for cmdline: {}", list(arguments));
    }
    let device = |name: &str| {
        let device = manifest.devices.iter().find(|device| device.name == name);
        device.map_or_else(String::new, said)
    };
    for (index, vif) in domain.vifs.iter().enumerate() {
        let _ = writeln!(text, "vif {}: {}", index + 1, device(&vif.device));
    }
    for vbd in &domain.disks {
        let _ = writeln!(text, "disk {}: {}", vbd.vdev, device(&vbd.device));
        if proposed.contains(&vbd.device) {
            let _ = writeln!(
                text,
                "  Its path is a proposal; --block {}=FILE says another.",
                vbd.device
            );
        }
    }
    let attached = |name: &str| domain.disks.iter().any(|vbd| vbd.device == name);
    for device in manifest.devices_of("block").filter(|device| !attached(&device.name)) {
        let _ = writeln!(text, "no disk: {}", said(device));
        let _ = writeln!(text, "  --block {}=FILE attaches one.", device.name);
    }
    if domain.driver_domain {
        let name = &domain.name;
        let _ = writeln!(text, "It serves the guests whose vif or disk says backend={name}.");
    }
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines.fold(String::new(), |text, line| text + "# " + line + "\n")
}

fn said(device: &Device) -> String {
    let optional = if device.optional { ", optional" } else { "" };
    let help = if device.help.is_empty() { String::new() } else { format!(": {}", device.help) };
    format!("{} ({}{optional}){}", device.name, device.kind, help.trim_end_matches('.'))
        .replace('\n', " ")
}
