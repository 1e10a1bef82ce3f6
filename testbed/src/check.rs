//! Guests that are checked before there is a host.

use crate::error::{Error, Kind, Result};
use crate::guest::{DiskSource, Dom0Paths, Guest, config_text};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Where a Linux kernel says that it is one, and how (Documentation/arch/x86/boot.rst, `header`).
const LINUX_HEADER: (u64, &[u8; 4]) = (0x202, b"HdrS");

impl Guest {
    /// Finds what is wrong with the guest as far as that can be known without a host, so that none is
    /// booted in vain: what cannot be said to Xen, files that are missing, a kernel that is none.
    ///
    /// # Errors
    /// What is wrong, with the name of the file.
    pub fn check(&self) -> Result<()> {
        let usage = |what: String| Error::new(Kind::Usage, what);
        // The places in dom0 are not known yet, and no fault of anybody's.
        let place = "/".to_owned();
        let disks = self.disks.iter().map(|_| place.clone()).collect();
        let paths = Dom0Paths { kernel: place.clone(), ramdisk: None, disks };
        config_text(self, &paths).map_err(|error| usage(error.to_string()))?;
        if !is_kernel(&self.kernel)? {
            let what = "is no kernel: neither an ELF file nor a Linux kernel";
            return Err(usage(format!("{} {what}", self.kernel.display())));
        }
        let disks = self.disks.iter().filter_map(|disk| match &disk.source {
            DiskSource::File(file) => Some(file),
            _ => None,
        });
        for file in self.ramdisk.iter().chain(disks) {
            open(file)?;
        }
        Ok(())
    }
}

fn open(file: &Path) -> Result<File> {
    let failed = |error| Error::io(format!("read {}", file.display()), &error);
    let opened = File::open(file).map_err(failed)?;
    if opened.metadata().map_err(failed)?.is_dir() {
        return Err(Error::new(Kind::Usage, format!("{} is a folder", file.display())));
    }
    Ok(opened)
}

/// Whether a file looks like something that Xen can boot.
fn is_kernel(file: &Path) -> Result<bool> {
    let mut opened = open(file)?;
    let mut starts_with = |offset, expected: &[u8; 4]| {
        let mut bytes = [0; 4];
        let read = opened.seek(SeekFrom::Start(offset)).and_then(|_| opened.read_exact(&mut bytes));
        read.is_ok() && bytes == *expected
    };
    Ok(starts_with(0, b"\x7fELF") || starts_with(LINUX_HEADER.0, LINUX_HEADER.1))
}
