//! Disks: which file becomes which block device, and whether it can.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use super::{Attached, names, refused, unknown};
use crate::build::Target;
use crate::failure::{Exit, Failure, Result};
use crate::image::manifest::Manifest;
use crate::run::request::{Block, Disk};

/// A virtio block device's serial, by which the machine finds it, has 20 bytes (virtio 1.2,
/// section 5.2.6: VIRTIO_BLK_T_GET_ID).
const SERIAL_BYTES_MAX: usize = 20;

/// Size of a sector in bytes (virtio 1.2, section 5.2.4: capacity is in 512-byte sectors; Xen's
/// io/blkif.h says the same).
const SECTOR_BYTES: u64 = 512;

/// The disks of `manifest`, in its order.
pub(super) fn disks(
    manifest: &Manifest,
    target: Target,
    attached: Attached<'_>,
) -> Result<Vec<Block>> {
    let Attached { blocks, files_are_here, .. } = attached;
    let wanted = names(manifest, &["block"]);
    for (index, block) in blocks.iter().enumerate() {
        if !wanted.contains(&block.name.as_str()) {
            return Err(unknown(manifest, &["block"], "--block", &block.name));
        }
        if blocks[..index].iter().any(|earlier| earlier.name == block.name) {
            return Err(refused(format!("--block {} is given twice", block.name)));
        }
    }
    let mut disks = Vec::new();
    for device in manifest.devices_of("block") {
        let name = &device.name;
        if target == Target::Virtio && name.len() > SERIAL_BYTES_MAX {
            let what = format!("device {name}: a block device's name has at most 20 bytes");
            return Err(refused(what).help("shorten it in the program with #[fata(name = \"…\")]"));
        }
        let given = blocks.iter().find(|block| block.name == *name);
        if given.is_none() && device.optional {
            continue;
        }
        let Some(block) = given else {
            let what = format!("{} needs the block device {name}", manifest.package);
            let mut help = format!("add --block {name}=FILE");
            if !device.help.is_empty() {
                help = format!("{help} ({})", device.help.trim_end_matches('.'));
            }
            return Err(
                refused(what).help(format!("{help}\n`truncate -s 64M FILE` makes an empty one"))
            );
        };
        match &block.disk {
            Disk::File(_) if !files_are_here => {}
            Disk::File(file) => check_file(name, file, block.read_only)?,
            Disk::Backend { .. } if target == Target::Xen => {}
            Disk::Backend { domain, .. } => {
                let what = format!(
                    "--block {name}=backend={domain} is for Xen, not for {}",
                    target.as_str()
                );
                return Err(Failure::new(Exit::Usage, what)
                    .help(format!("a file of that name is {name}=./backend={domain}")));
            }
        }
        disks.push(block.clone());
    }
    Ok(disks)
}

/// Whether the file can be the disk that it is to be, before QEMU finds out in its own words.
fn check_file(name: &str, file: &Path, read_only: bool) -> Result<()> {
    let path = file.display();
    let opened = std::fs::OpenOptions::new().read(true).write(!read_only).open(file);
    let opened = opened.map_err(|error| {
        let failure = Failure::new(Exit::Io, format!("device {name}: cannot open {path}: {error}"));
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                failure.help(format!("`truncate -s 64M {path}` makes an empty disk"))
            }
            std::io::ErrorKind::PermissionDenied if !read_only => {
                failure.help(format!("--block {name}={path},ro opens it for reading only"))
            }
            _ => failure,
        }
    })?;
    let metadata =
        opened.metadata().map_err(|error| Failure::io(format!("read {path}"), &error))?;
    if metadata.file_type().is_block_device() {
        return Ok(());
    }
    if !metadata.is_file() {
        return Err(refused(format!("device {name}: {path} is neither a file nor a disk")));
    }
    if metadata.len() == 0 || metadata.len() % SECTOR_BYTES != 0 {
        let what = format!(
            "device {name}: {path} has {} bytes, which is no whole number of 512-byte sectors",
            metadata.len()
        );
        return Err(refused(what).help(format!("`truncate -s %512 {path}` rounds it up")));
    }
    Ok(())
}
