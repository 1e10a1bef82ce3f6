//! Programs as they are written for images, many at once, in the world.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use fata::Stack;
use fata_testkit::net::{Impairments, Link, World};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Counts its visitors.
#[derive(fata::Devices)]
struct Server {
    /// The network that visitors come from.
    service: Stack,
    /// Port for HTTP.
    #[fata(arg, default = 80)]
    port: u16,
}

async fn serve(devices: Server) -> io::Result<()> {
    let count = |State(count): State<Arc<AtomicU64>>| async move {
        (count.fetch_add(1, Ordering::Relaxed) + 1).to_string()
    };
    let router = Router::new().route("/", get(count)).with_state(Arc::default());
    let listener = devices.service.tcp_listen(devices.port).await?;
    axum::serve(listener, router).await
}

/// Visits a server each minute.
#[derive(fata::Devices)]
struct Visitor {
    /// The network.
    uplink: Stack,
    /// Where the server is.
    #[fata(arg)]
    server: String,
    /// How often to come.
    #[fata(arg, default = 60)]
    visits: u32,
}

async fn visit(devices: Visitor) -> io::Result<u64> {
    let server: SocketAddr = devices.server.parse().expect("an address");
    let mut highest = 0;
    for _ in 0..devices.visits {
        let mut stream = devices.uplink.tcp_connect(server).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, count) = answer.rsplit_once("\r\n\r\n").expect("an answer");
        highest = highest.max(count.parse().expect("a number"));
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    Ok(highest)
}

/// Twenty hosts on links of their own visit a server for three hours.
#[test]
fn a_server_and_twenty_visitors_for_three_hours() {
    World::run(1, |world| async move {
        let server = world.host("server").address(Ipv4Addr::new(10, 1, 0, 1), 16).start();
        tokio::spawn(serve(Server { service: server.stack.clone(), port: 8080 }));
        let visitors: Vec<_> = (0..20_u8)
            .map(|number| {
                let link = Link::symmetric(Impairments {
                    latency: Duration::from_millis(u64::from(number) * 3),
                    loss: 0.01,
                    ..Impairments::default()
                });
                let name = format!("visitor {number}");
                let address = Ipv4Addr::new(10, 1, 1, number);
                let host = world.host(&name).address(address, 16).link(link).start();
                let server = "10.1.0.1:8080".to_string();
                tokio::spawn(visit(Visitor { uplink: host.stack, server, visits: 180 }))
            })
            .collect();
        let mut highest = 0;
        for visitor in visitors {
            highest = highest.max(visitor.await.unwrap().unwrap());
        }
        assert_eq!(highest, 20 * 180, "every visit was counted once");
        assert!(world.now() > Duration::from_secs(3 * 3600));
        assert!(server.stack.counters().tcp_retransmits > 0);
    });
}
