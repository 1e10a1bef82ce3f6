//! Stacks that reach each other through a router, in virtual time.

mod support;

use core::sync::atomic::Ordering;
use core::time::Duration;
use fata_device::NicError;
use fata_net::router::{Router, RouterConfig, RouterPort};
use fata_testkit::net::{Host, Link, NicOptions, Port, World};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use support::{at, pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The router's address on link `number`, and the host's.
fn router_on(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, number, 1)
}

fn host_on(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, number, 2)
}

/// A host on link `number`, with the router as its gateway.
fn attach(router: &Router, number: u8) -> (Host, RouterPort, Port) {
    let world = World::new(number.into());
    let (ours, plug) = world.nic("router", Link::default(), NicOptions::default());
    let port = router.attach(ours, router_on(number), 24).unwrap();
    let host = world.host("host").address(host_on(number), 24).gateway(router_on(number)).start();
    (host, port, plug)
}

fn router() -> Router {
    let (router, driver) = Router::new(RouterConfig::new([5; 32]));
    tokio::spawn(driver);
    router
}

/// Moves `len` bytes from one host to the other.
async fn transfer(from: &Host, to: &Host, to_number: u8, len: usize) {
    let listener = to.stack.tcp_listen(80).await.unwrap();
    let sent = pattern(len);
    let received = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        received
    };
    let sending = async {
        let mut stream = from.stack.tcp_connect(at(host_on(to_number), 80)).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let ((), received) = tokio::join!(sending, received);
    assert!(received == sent, "{} bytes of {len}", received.len());
}

#[tokio::test(start_paused = true)]
async fn three_hosts_reach_each_other_through_a_router() {
    let router = router();
    let hosts = [1, 2, 3].map(|number| attach(&router, number));
    for (from, to) in [(0, 1), (1, 0), (2, 0), (1, 2)] {
        transfer(&hosts[from].0, &hosts[to].0, to as u8 + 1, 300_000).await;
    }
    let counters = router.counters();
    assert!(counters.forwarded_packets > 800, "{counters:?}");
    for (name, count) in counters.iter() {
        // Hosts announce themselves to everybody.
        let is_expected = name == "dropped_arp_unsolicited";
        assert!(is_expected || !name.starts_with("dropped_") || count == 0, "{name}: {count}");
    }
    for (number, (_, port, _)) in hosts.iter().enumerate() {
        assert_eq!(port.number(), number);
        let counters = port.counters();
        assert!(counters.bytes_in.load(Ordering::Relaxed) > 10_000);
        assert_eq!(counters.dropped_backlog.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_not_there_is_named_unreachable() {
    let router = router();
    let (one, ..) = attach(&router, 1);
    let (_two, ..) = attach(&router, 2);
    // There is no such link, and on a link no such host.
    for missing in [Ipv4Addr::new(10, 0, 9, 9), Ipv4Addr::new(10, 0, 2, 9)] {
        let connecting = one.stack.tcp_connect(at(missing, 80));
        let error = tokio::time::timeout(Duration::from_secs(300), connecting).await;
        let error = error.expect("it is told, or gives up").unwrap_err();
        let told = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
        assert!(told.contains(&error.kind()), "{missing}: {error}");
    }
    assert!(router.counters().icmp_errors_sent > 0);
}

#[tokio::test(start_paused = true)]
async fn a_port_that_fails_leaves_the_others_alone_and_may_come_back() {
    let router = router();
    let (one, ..) = attach(&router, 1);
    let (two, ..) = attach(&router, 2);
    let (_three, port, plug) = attach(&router, 3);
    let (spare, _) = World::new(7).nic("spare", Link::default(), NicOptions::default());
    assert!(router.attach(spare, router_on(3), 24).is_err(), "there is one");
    plug.unplug("the cable broke");
    let error = port.gone().await;
    assert_eq!(error, NicError::Disconnected("the cable broke".into()));
    transfer(&one, &two, 2, 100_000).await;
    // The same subnet, behind another cable.
    let (three, port, _) = attach(&router, 3);
    assert_eq!(port.number(), 2);
    transfer(&three, &one, 1, 100_000).await;
    router.detach(port.number());
    let error = port.gone().await.to_string();
    assert!(error.contains("detached"), "{error}");
}
