//! Files of this computer as disks of the host, and of its guests.
//!
//! A file becomes a SCSI disk of QEMU while the host runs, so it is used where it lies: nothing is
//! copied, flushes reach it, what is discarded is given back, and QEMU's lock on it keeps two
//! guests from writing the same file.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::control::POLL_INTERVAL;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::host::Testbed;
use crate::qmp;

/// How long dom0 may take to notice a disk that came or went.
const NOTICE_TIME_MAX: Duration = Duration::from_secs(30);

/// A file that is a disk of the host, until this is dropped.
#[derive(Debug)]
pub(crate) struct Attached {
    testbed: Testbed,
    name: String,
    path: String,
}

/// Makes a disk of `file`; returns when dom0 has it.
pub(crate) fn attach(testbed: &Testbed, file: &Path, read_only: bool) -> Result<Attached> {
    let absolute = std::path::absolute(file)
        .map_err(|error| Error::io(format!("find {}", file.display()), &error))?;
    let metadata = absolute
        .metadata()
        .map_err(|error| Error::io(format!("read {}", absolute.display()), &error))?;
    if !metadata.is_file() || metadata.len() == 0 {
        let what = format!("{} is not a file with something in it", file.display());
        return Err(Error::new(Kind::Usage, what));
    }
    let text = absolute.to_str().ok_or_else(|| {
        Error::new(Kind::Usage, format!("{} is not a path in UTF-8", absolute.display()))
    })?;
    let socket = testbed.host.state.join("qmp");
    // Also the serial number by which dom0 finds it: at most 36 characters, QEMU's limit.
    let name = format!("disk{}", files::unique());
    let doing = |error: Error| error.note(format!("to lend {} to a guest", file.display()));
    let node = json!({
        "driver": "raw", "node-name": name, "read-only": read_only, "discard": "unmap",
        "file": { "driver": "file", "filename": text },
    });
    qmp::execute(&socket, "blockdev-add", node).map_err(doing)?;
    // From here on it is taken away again, whatever fails.
    let mut attached =
        Attached { testbed: testbed.clone(), name: name.clone(), path: String::new() };
    let device = json!({
        "driver": "scsi-hd", "bus": "disks.0", "drive": name, "id": name, "serial": name,
    });
    qmp::execute(&socket, "device_add", device).map_err(doing)?;
    let script = format!(
        "tries=0\n\
         while [ $tries -lt 500 ]; do\n\
         for page in /sys/block/sd*/device/vpd_pg80; do\n\
         if grep -aq '{name}$' \"$page\" 2>/dev/null; then\n\
         disk=${{page%/device/vpd_pg80}}; disk=/dev/${{disk##*/}}\n\
         [ -b $disk ] && {{ echo $disk; exit 0; }}\n\
         fi\n\
         done\n\
         tries=$((tries + 1)); usleep 20000\n\
         done\n\
         exit 1\n"
    );
    let doing = format!("find the disk of {}", file.display());
    let found = testbed.dom0(&script, NOTICE_TIME_MAX)?.check(&doing)?.text();
    found.trim().clone_into(&mut attached.path);
    Ok(attached)
}

impl Attached {
    /// The block device in dom0.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

/// How long dom0 may take to let go of a disk; on an emulated processor it takes a tenth of a second.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(10);

impl Drop for Attached {
    fn drop(&mut self) {
        let socket = self.testbed.host.state.join("qmp");
        // When the host is gone, so is the disk.
        if qmp::execute(&socket, "device_del", json!({ "id": self.name })).is_err() {
            return;
        }
        // dom0 lets go of a disk in its own time, and QEMU of the file only then: whoever uses the
        // file next must find it free.
        let deadline = Instant::now() + RELEASE_TIME_MAX;
        let delete = || qmp::execute(&socket, "blockdev-del", json!({ "node-name": self.name }));
        while delete().is_err() && Instant::now() < deadline {
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}
