//! Traffic: both ends of a network measurement.
//!
//! `--role=serve` answers; `--role=drive` measures and prints a line of JSON for each test. The same
//! source is our guest, a process in another guest's Linux, and a process in the host's Linux, so
//! what differs between two figures is the system below it.
//!
//! | test | port | what happens |
//! |---|---|---|
//! | `send` | 5001 | the driver writes for some seconds; the server answers how much arrived |
//! | `receive` | 5002 | the server writes for as many seconds as the driver asks |
//! | `requests` | 5003 | one byte there, one byte back, one at a time |
//! | `connections` | 5004 | connect, be closed, again |
//! | `channel` | – | as `send` and `requests`, over the channel |
#![forbid(unsafe_code)]

mod drive;
mod serve;

use fata::{Channel, Stack};
use std::io;
use std::net::Ipv4Addr;

/// Bytes of one write and of one read.
const CHUNK_BYTES: usize = 64 * 1024;
/// Seconds that a server writes or reads at most, whatever a driver asks.
const SECONDS_MAX: u8 = 120;

/// Measures a network, or is measured.
#[derive(fata::Devices)]
struct Devices {
    /// The network that is measured.
    service: Stack,
    /// The neighbour, for the test `channel`.
    neighbour: Option<Channel>,
    /// serve or drive.
    #[fata(arg, default = "serve")]
    role: String,
    /// The server's address.
    #[fata(arg)]
    target: Option<Ipv4Addr>,
    /// Tests to drive, separated by commas.
    #[fata(arg, default = "send,receive,requests,connections")]
    tests: String,
    /// Seconds that each test takes.
    #[fata(arg, default = 5)]
    seconds: u8,
    /// How often all of them are repeated.
    #[fata(arg, default = 1)]
    rounds: u32,
}

#[fata::main]
async fn main(devices: Devices) -> io::Result<()> {
    match devices.role.as_str() {
        "serve" => serve::run(&devices).await,
        "drive" => drive::run(&devices).await,
        other => Err(io::Error::other(format!("--role={other}: expected serve or drive"))),
    }
}

/// The counters of the machine below, now, as JSON members that begin with a comma.
fn counters_json(before: &[(&'static str, u64)]) -> String {
    let now = fata::system::counters();
    now.iter()
        .map(|(name, value)| {
            let old = before.iter().find(|(other, _)| other == name).map_or(0, |(_, old)| *old);
            format!(",\"{name}\":{}", value.saturating_sub(old))
        })
        .collect()
}
