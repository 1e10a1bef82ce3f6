//! RAM disk: a storage domain in a screenful. Serves a disk in its own memory to other guests.
//!
//! A guest gets the disk when its configuration says that this one is the backend:
//!
//! ```text
//! disk = ["backend=ramdisk, vdev=xvda, format=raw, access=rw, target=memory"]
//! ```
#![forbid(unsafe_code)]

use fata::{Export, MemoryDisk};
use std::io;

/// Serves a disk in memory to other guests.
#[derive(fata::Devices)]
struct Devices {
    /// Where guests ask for the disk.
    clients: Export,
    /// Size of the disk in MiB.
    #[fata(arg, default = 8)]
    mib: u64,
}

#[fata::main]
async fn main(devices: Devices) -> io::Result<()> {
    let Some(sectors) = devices.mib.checked_mul(2048) else {
        return Err(io::Error::other(format!("--mib={}: too many", devices.mib)));
    };
    println!("serving {} MiB of memory", devices.mib);
    devices.clients.serve(MemoryDisk::new(sectors)).await
}
