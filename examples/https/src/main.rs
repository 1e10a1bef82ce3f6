//! HTTPS: axum behind rustls, TLS 1.3, HTTP/1.1 and HTTP/2.
//!
//! ```text
//! fata run examples/https -t virtio --publish 8443:443
//! curl --insecure https://127.0.0.1:8443/
//! ```
//!
//! With a certificate of your own on a disk:
//!
//! ```text
//! cat certificate.pem key.pem > identity.img && truncate -s 64K identity.img
//! fata run examples/https -t virtio --publish 8443:443 --block identity=identity.img
//! ```
#![forbid(unsafe_code)]

mod connections;
mod identity;
mod metrics;
mod tls;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use fata::{Block, Stack};

/// Serves a page over HTTPS.
#[derive(fata::Devices)]
struct Devices {
    /// The network that is served.
    service: Stack,
    /// Holds a certificate chain and its private key as PEM text. Without it, the program makes a
    /// self-signed certificate at each start.
    identity: Option<Block>,
    /// Port for HTTPS.
    #[fata(arg, default = 443)]
    port: u16,
    /// Name in the self-signed certificate.
    #[fata(arg, default = "localhost")]
    hostname: String,
}

#[fata::main]
async fn main(devices: Devices) -> Result<(), Box<dyn std::error::Error>> {
    let identity = match &devices.identity {
        Some(disk) => identity::from_disk(disk).await?,
        None => {
            tracing::warn!(
                "no disk `identity`: the certificate is self-signed, and browsers will say so"
            );
            identity::self_signed(&devices.hostname)?
        }
    };
    let config = tls::config(identity)?;

    let (stack, of_text, of_json) =
        (devices.service.clone(), devices.service.clone(), devices.service.clone());
    let router = Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/metrics", get(|| async move { metrics::text(&stack) }))
        .route("/connections", get(|| async move { connections::text(&of_text) }))
        .route("/connections.json", get(|| async move { connections::json(&of_json) }));

    let listener = devices.service.tcp_listen(devices.port).await?;
    println!("listening on https port {}", devices.port);
    axum::serve(tls::Listener::new(listener, config), router).await?;
    Ok(())
}
