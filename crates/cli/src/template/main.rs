//! One source, several targets: `fata run` runs it as a process, `fata run -t virtio` as a machine
//! of its own. What it needs from its surroundings stands in `Devices`, and nowhere else.

use std::time::Duration;

/// Greets, and counts. (This text appears in `fata describe` and `--help`.)
#[derive(fata::Devices)]
struct Devices {
    /// Whom to greet.
    #[fata(arg, default = "world")]
    name: String,

    /// How often.
    #[fata(arg, default = 3)]
    times: u32,
    // A network and a disk are fields too:
    //
    // /// The network that the service is on.
    // service: fata::Stack,
    // /// Holds the data.
    // data: fata::Block,
}

#[fata::main]
async fn main(devices: Devices) {
    for count in 1..=devices.times {
        tracing::info!(count, "hello, {}", devices.name);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
