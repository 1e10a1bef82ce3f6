//! HTTP: a small service on axum, unchanged from what it would be on any other system.
//!
//! ```text
//! fata run examples/http -t virtio --publish 8080:80
//! curl http://127.0.0.1:8080/
//! ```
#![forbid(unsafe_code)]

mod pattern;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use fata::Stack;
use fata::device::Keepalive;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use std::io;
use std::time::Duration;

/// When a silent client is asked whether it is still there: one that vanished is gone in two minutes,
/// and does not hold its connection for ever.
const KEEPALIVE: Keepalive =
    Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(15), probes: 4 };

/// How long a client may owe an answer to what it was sent.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves a page, as many bytes as you like, and a place to send yours to.
#[derive(fata::Devices)]
struct Devices {
    /// The network that is served.
    service: Stack,
    /// Port for HTTP.
    #[fata(arg, default = 80)]
    port: u16,
}

#[fata::main]
async fn main(devices: Devices) -> io::Result<()> {
    let router = Router::new()
        .route("/", get(|| async { "Hello from a machine that is nothing but this program.\n" }))
        .route("/bytes", get(bytes))
        .route("/sink", post(sink))
        .route("/panic", get(panic));
    let listener = devices.service.tcp_listen(devices.port).await?;
    // A connection that cannot be told this is one that has ended.
    let listener = listener.tap_io(|stream| {
        if let Err(error) =
            stream.set_keepalive(Some(KEEPALIVE)).and(stream.set_user_timeout(Some(USER_TIMEOUT)))
        {
            tracing::debug!("{error}");
        }
    });
    println!("listening on port {}", devices.port);
    axum::serve(listener, router).await
}

/// `GET /bytes?n=N`: N bytes of a pattern in which a lost or swapped piece shows.
async fn bytes(uri: Uri) -> Response {
    match query(&uri, "n").map(str::parse) {
        Some(Ok(len)) => {
            let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
            (kind, Body::new(pattern::Pattern::new(len))).into_response()
        }
        _ => (StatusCode::BAD_REQUEST, "say how many: /bytes?n=1000\n").into_response(),
    }
}

/// `POST /sink`: counts what it is sent; with `?sha256=1` hashes it too.
async fn sink(request: Request) -> Response {
    let mut hash = (query(request.uri(), "sha256") == Some("1")).then(Sha256::new);
    let mut total = 0_u64;
    let mut body = request.into_body();
    // A frame at a time: the body may be larger than the machine.
    while let Some(frame) = body.frame().await {
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => {
                total += data.len() as u64;
                if let Some(hash) = &mut hash {
                    hash.update(&data);
                }
            }
            Ok(Err(_trailers)) => {}
            Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        }
    }
    let json = match hash {
        Some(hash) => format!("{{\"bytes\":{total},\"sha256\":\"{:x}\"}}\n", hash.finalize()),
        None => format!("{{\"bytes\":{total}}}\n"),
    };
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

/// `GET /panic`: a bug in a handler. It ends its connection, and no other.
async fn panic() -> StatusCode {
    let answers: Vec<StatusCode> = Vec::new();
    answers[std::hint::black_box(0)]
}

/// The value of `name` in the address's query.
fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}
