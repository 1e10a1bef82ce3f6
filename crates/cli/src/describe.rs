//! `fata describe`: what an image says about itself.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use crate::image::seal::bytes_by_kind;
use crate::image::{Image, manifest::Manifest};
use crate::symbols;
use crate::ui::{Ui, size};

/// The description, as `--json` prints it.
#[derive(Serialize)]
pub(crate) struct Description<'a> {
    image: &'a std::path::Path,
    bytes: u64,
    memory_bytes: u64,
    build_id: Option<&'a str>,
    pvh_entry: Option<u32>,
    symbols: Option<PathBuf>,
    manifest: &'a Manifest,
}

impl<'a> Description<'a> {
    /// Describes `image`.
    pub(crate) fn new(image: &'a Image) -> Self {
        let candidates = [symbols::beside(&image.path), image.path.clone()];
        let symbols = image.build_id.as_deref().and_then(|id| {
            // Only a virtio image is stripped of its symbols.
            image.pvh_entry.and_then(|_| symbols::find(id, &candidates[..1]))
        });
        Self {
            image: &image.path,
            bytes: image.bytes.len() as u64,
            memory_bytes: image.loaded_bytes(),
            build_id: image.build_id.as_deref(),
            pvh_entry: image.pvh_entry,
            symbols,
            manifest: &image.manifest,
        }
    }
}

/// The description for a person.
pub(crate) fn text(ui: Ui, image: &Image) -> String {
    let manifest = &image.manifest;
    let description = Description::new(image);
    let mut text = format!(
        "{} · image for {} · {}\n",
        ui.bold(&format!("{} {}", manifest.package, manifest.version)),
        manifest.target,
        size(description.bytes),
    );
    if !manifest.about.is_empty() {
        let _ = writeln!(text, "{}", manifest.about);
    }
    text.push_str(&interface(ui, manifest));
    let _ = writeln!(text, "\n{}", ui.bold("Image"));
    let kinds: Vec<String> = bytes_by_kind(&image.segments)
        .iter()
        .map(|(kind, bytes)| format!("{kind} {}", size(*bytes)))
        .collect();
    let loaded = format!("{} when loaded ({})", size(description.memory_bytes), kinds.join(", "));
    let mut rows = vec![("memory", loaded)];
    rows.push(("build id", description.build_id.unwrap_or("none").to_owned()));
    if let Some(entry) = description.pvh_entry {
        rows.push(("entry", format!("{entry:#x} (PVH)")));
        let symbols = description.symbols.as_ref();
        rows.push((
            "symbols",
            symbols.map_or("not found".into(), |path| path.display().to_string()),
        ));
    }
    text.push_str(&table(&rows));
    text
}

/// Devices and arguments: what a program wants from its surroundings.
pub(crate) fn interface(ui: Ui, manifest: &Manifest) -> String {
    let mut text = String::new();
    if !manifest.devices.is_empty() {
        let _ = writeln!(text, "\n{}", ui.bold("Devices"));
        let rows: Vec<_> = manifest
            .devices
            .iter()
            .map(|device| {
                let optional = if device.optional { ", optional" } else { "" };
                (format!("{} ({}{optional})", device.name, device.kind), device.help.clone())
            })
            .collect();
        text.push_str(&table(&rows));
    }
    if !manifest.arguments.is_empty() {
        let _ = writeln!(text, "\n{}", ui.bold("Arguments"));
        let rows: Vec<_> = manifest
            .arguments
            .iter()
            .map(|argument| {
                let mut help = argument.help.clone();
                if let Some(default) = &argument.default {
                    let _ = write!(help, " [default: {default}]");
                } else if argument.required() {
                    help.push_str(" [required]");
                }
                (format!("--{}=<{}>", argument.name, argument.kind), help)
            })
            .collect();
        text.push_str(&table(&rows));
    }
    text
}

/// Two columns; the first as wide as its widest cell.
fn table(rows: &[(impl AsRef<str>, String)]) -> String {
    let width = rows.iter().map(|(left, _)| left.as_ref().chars().count()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (left, right)| {
        let left = left.as_ref();
        let pad = " ".repeat(width - left.chars().count());
        let indented = right.trim().replace('\n', &format!("\n{:width$}", "", width = width + 4));
        let _ = writeln!(text, "  {left}{pad}  {indented}");
        text
    })
}
