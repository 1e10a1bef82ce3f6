//! Block: writes a pattern to the sectors of a disk, flushes it, reads it back and compares.
//!
//! ```text
//! truncate -s 1M disk
//! fata run examples/block -t virtio --block data=disk
//! ```
#![forbid(unsafe_code)]

use fata::Block;
use fata::device::{BlockError, SectorBuffer};

/// Overwrites the first sectors of a disk and verifies them.
#[derive(fata::Devices)]
struct Devices {
    /// The disk. What is on it is lost.
    data: Block,
    /// How many sectors to write.
    #[fata(arg, default = 64)]
    sectors: usize,
    /// Verify what an earlier run wrote, and write nothing.
    #[fata(arg)]
    verify: bool,
}

#[fata::main]
async fn main(devices: Devices) -> Result<(), String> {
    let disk = devices.data;
    let geometry = disk.geometry();
    println!("{} sectors of {} bytes", geometry.sector_count, geometry.sector_bytes);
    // A program says what it needs, instead of failing half way.
    if devices.sectors as u64 > geometry.sector_count {
        return Err(format!("{} sectors do not fit on the disk", devices.sectors));
    }

    if !devices.verify {
        for sector in 0..devices.sectors {
            let data = SectorBuffer::copy_of(&pattern(sector, geometry.sector_bytes));
            disk.write(sector as u64, data)
                .await
                .map_err(|error| explain("writing", sector, error))?;
        }
        // Without this, a loss of power may take what was written.
        disk.flush().await.map_err(|error| format!("flushing: {error}"))?;
        println!("wrote {} sectors", devices.sectors);
    }

    for sector in 0..devices.sectors {
        let data =
            disk.read(sector as u64, 1).await.map_err(|error| explain("reading", sector, error))?;
        if *data != *pattern(sector, geometry.sector_bytes) {
            return Err(format!("sector {sector} does not hold what was written"));
        }
    }
    println!("verified {} sectors", devices.sectors);

    // A wrong request is an error that says what is wrong with it; the disk works on.
    match disk.read(geometry.sector_count, 1).await {
        Err(error @ BlockError::OutOfRange { .. }) => println!("refused, as it should be: {error}"),
        other => return Err(format!("a read past the end gave {other:?}")),
    }
    Ok(())
}

/// Different in every sector, so that one in the wrong place shows.
fn pattern(sector: usize, len: usize) -> Vec<u8> {
    (0..len).map(|index| (sector.wrapping_mul(31) + index) as u8).collect()
}

fn explain(doing: &str, sector: usize, error: BlockError) -> String {
    format!("{doing} sector {sector}: {error}")
}
