//! One source, several targets: `fata run` runs it as a process, `fata run -t virtio` as a machine
//! of its own. What it needs from its surroundings stands in `Devices`, and nowhere else.

use axum::{Router, routing::get};
use fata::Stack;

/// Greets whoever asks. (This text, and each field's, appears in `fata describe` and `--help`.)
#[derive(fata::Devices)]
struct Devices {
    /// The network that the service is on.
    service: Stack,

    /// Port for HTTP.
    #[fata(arg, default = 8080)]
    port: u16,

    /// Whom to greet.
    #[fata(arg, default = "world")]
    name: String,
    // A disk would be a field too: `data: fata::Block`, attached with `--block data=FILE`.
}

#[fata::main]
async fn main(devices: Devices) -> std::io::Result<()> {
    let greeting = format!("Hello, {}!\n", devices.name);
    let router = Router::new().route("/", get(|| async { greeting }));

    let listener = devices.service.tcp_listen(devices.port).await?;
    println!("listening on port {}", devices.port);
    axum::serve(listener, router).await
}
