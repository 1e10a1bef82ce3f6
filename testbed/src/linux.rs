//! Linux guests: Debian's kernel and a shell, as peers to talk to and to be measured against.

use std::path::{Path, PathBuf};

use crate::cpio::Tree;
use crate::error::Result;
use crate::files;
use crate::guest::Guest;
use crate::host::Testbed;
use crate::system::{Busybox, Modules, shell};

const INIT: &str = include_str!("../dom0/guest-init");

/// A Linux guest that runs one shell script and switches itself off. The script's exit status is
/// the guest's exit code; its console is the script's terminal.
///
/// The guest has busybox, and the modules for Xen's interfaces (`eth0` …) and disks (`xvda` …).
#[derive(Clone, Debug)]
pub struct Linux {
    script: String,
    files: Vec<(String, u32, Vec<u8>)>,
    modules: Vec<String>,
}

impl Linux {
    /// A guest that runs `script` with busybox's shell.
    pub fn new(script: impl Into<String>) -> Self {
        let modules = ["xen-netfront", "xen-blkfront"].map(str::to_owned).to_vec();
        Self { script: script.into(), files: Vec::new(), modules }
    }

    /// With a file at `path`, with permission bits such as 0o755.
    #[must_use]
    pub fn with_file(mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_owned(), mode, data.into()));
        self
    }

    /// With another of the kernel's modules, loaded before the script runs.
    #[must_use]
    pub fn with_module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// The guest, named `name`, with 128 MiB of memory; its initial file system is written to `folder`.
    ///
    /// # Errors
    /// When a module is unknown, or the file system cannot be written.
    pub fn guest(&self, testbed: &Testbed, name: &str, folder: &Path) -> Result<Guest> {
        let packages = &testbed.host.record.system.packages;
        let busybox = Busybox::of(packages);
        let mut tree = Tree::default();
        shell(&mut tree, &busybox)?;
        tree.file("init", 0o755, INIT);
        tree.file("program", 0o755, self.script.as_str());
        let names: Vec<_> = self.modules.iter().map(String::as_str).collect();
        let order = Modules::of(packages)?.add(&mut tree, &names, &busybox)?;
        tree.file("modules/order", 0o644, order);
        for (path, mode, data) in &self.files {
            tree.file(path, *mode, data.clone());
        }
        let ramdisk: PathBuf = folder.join(format!("{name}.cpio"));
        files::write_whole(&ramdisk, &tree.archive())?;
        Ok(Guest {
            ramdisk: Some(ramdisk),
            command_line: "console=hvc0 quiet loglevel=4".into(),
            memory_mib: 128,
            ..Guest::new(name, testbed.linux_kernel())
        })
    }
}
