//! Ten thousand connections, closed in every order; and then nothing is left of them.

use super::ipv6::{FATA6, LINUX6, give};
use super::transfers::dual_stack;
use super::{FATA, INTERFACE, LINUX, with_linux};
use crate::support::pattern;
use fata_net::{Config, Counters, Limits};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

const CONNECTIONS: usize = 10_000;
/// Connections that are open at the same time.
const AT_ONCE: usize = 250;
/// What is sent after the other end was closed: more than one segment.
const AFTERWARDS: usize = 3000;

/// Who closes, and how.
#[derive(Clone, Copy, Debug)]
enum Order {
    FataFirst,
    LinuxFirst,
    /// Neither waits for the other.
    BothAtOnce,
    /// Fata ends its direction, and data comes back for long after that.
    FataHalfCloses,
    LinuxHalfCloses,
    LinuxResets,
    /// Fata lets go of what Linux sent without having read it, which is a reset (RFC 2525 §2.17).
    FataDropsUnread,
    /// Fata lets go of everything that was read while its own data is underway: it arrives.
    FataDropsUnsent,
}

const ORDERS: [Order; 8] = [
    Order::FataFirst,
    Order::LinuxFirst,
    Order::BothAtOnce,
    Order::FataHalfCloses,
    Order::LinuxHalfCloses,
    Order::LinuxResets,
    Order::FataDropsUnread,
    Order::FataDropsUnsent,
];

/// `first` closes; `second`, which sees it, sends `afterwards` bytes and closes.
async fn close_in_turn<F, S>(mut first: F, mut second: S, afterwards: usize)
where
    F: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    first.shutdown().await.unwrap();
    assert_eq!(second.read(&mut [0]).await.unwrap(), 0, "the end");
    second.write_all(&pattern(afterwards)).await.unwrap();
    second.shutdown().await.unwrap();
    let mut received = Vec::new();
    first.read_to_end(&mut received).await.unwrap();
    assert!(received == pattern(afterwards));
}

async fn close(order: Order, mut fata: fata_net::TcpStream, mut linux: TcpStream) {
    let mut byte = [0];
    match order {
        Order::FataFirst => close_in_turn(fata, linux, 0).await,
        Order::LinuxFirst => close_in_turn(linux, fata, 0).await,
        Order::FataHalfCloses => close_in_turn(fata, linux, AFTERWARDS).await,
        Order::LinuxHalfCloses => close_in_turn(linux, fata, AFTERWARDS).await,
        Order::BothAtOnce => {
            let (ours, theirs) = tokio::join!(fata.shutdown(), linux.shutdown());
            ours.unwrap();
            theirs.unwrap();
            assert_eq!(fata.read(&mut byte).await.unwrap(), 0);
            assert_eq!(linux.read(&mut byte).await.unwrap(), 0);
        }
        Order::LinuxResets => {
            linux.set_zero_linger().unwrap();
            drop(linux);
            let error = fata.read(&mut byte).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
        Order::FataDropsUnread => {
            linux.write_all(b"two").await.unwrap();
            fata.read_exact(&mut byte).await.unwrap();
            drop(fata);
            let error = linux.read(&mut byte).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
        Order::FataDropsUnsent => {
            fata.write_all(&pattern(AFTERWARDS)).await.unwrap();
            drop(fata);
            let mut received = Vec::new();
            linux.read_to_end(&mut received).await.unwrap();
            assert!(received == pattern(AFTERWARDS));
        }
    }
}

/// What a connection holds, anywhere in the stack.
fn gauges(counters: &Counters) -> [(&'static str, u64); 7] {
    [
        ("connections", counters.tcp_connections),
        ("half-open", counters.tcp_half_open),
        ("TIME-WAIT", counters.tcp_time_wait),
        ("listeners", counters.tcp_listeners),
        ("buffered bytes", counters.tcp_buffered_bytes),
        ("out-of-order ranges", counters.tcp_out_of_order_ranges),
        ("parked bytes", counters.neighbour_parked_bytes),
    ]
}

#[test]
fn ten_thousand_connections_closed_in_every_order_leave_nothing() {
    let name = "closing::ten_thousand_connections_closed_in_every_order_leave_nothing";
    with_linux(name, || async {
        give(LINUX6, 64, INTERFACE);
        // So that the test need not wait for a minute; the length is nobody else's business.
        let time_wait = Duration::from_secs(1);
        let limits = Limits { tcp_time_wait_duration: time_wait, ..Limits::default() };
        let stack = dual_stack(Config { limits, ..Config::new([7; 32]) });
        let ours = stack.tcp_listen(80).await.unwrap();
        let mut theirs = Vec::new();
        for address in [IpAddr::from(LINUX), IpAddr::from(LINUX6)] {
            theirs.push(TcpListener::bind(SocketAddr::from((address, 80))).await.unwrap());
        }
        let (mut opened, mut by_linux, mut orphans) = (0, 0, 0);
        while opened < CONNECTIONS {
            let mut closing = JoinSet::new();
            for _ in 0..AT_ONCE - 10 {
                let order = ORDERS[opened % ORDERS.len()];
                let family = opened / ORDERS.len() % 2;
                let (fata, linux) = if (opened / ORDERS.len() / 2).is_multiple_of(2) {
                    by_linux += 1;
                    let remote = [IpAddr::from(FATA), IpAddr::from(FATA6)][family];
                    let client = TcpStream::connect((remote, 80));
                    let (server, client) = tokio::join!(ours.accept(), client);
                    (server.unwrap().0, client.unwrap())
                } else {
                    let remote = theirs[family].local_addr().unwrap();
                    let client = stack.tcp_connect(remote);
                    let (client, server) = tokio::join!(client, theirs[family].accept());
                    (client.unwrap(), server.unwrap().0)
                };
                closing.spawn(close(order, fata, linux));
                opened += 1;
            }
            // And of a listener's that nobody accepts.
            let listener = stack.tcp_listen(81).await.unwrap();
            let mut children = Vec::new();
            for _ in 0..10 {
                let socket = TcpSocket::new_v4().unwrap();
                children.push(socket.connect(SocketAddr::from((FATA, 81))).await.unwrap());
                opened += 1;
                orphans += 1;
            }
            drop(listener);
            for mut child in children {
                let error = child.read(&mut [0]).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            }
            while let Some(closed) = closing.join_next().await {
                closed.unwrap();
            }
        }
        drop(ours);
        let counters = stack.counters();
        assert_eq!(opened, CONNECTIONS);
        // Of the orphans, some end before the last step of their handshake has come.
        let passive = by_linux..=by_linux + orphans;
        assert!(passive.contains(&counters.tcp_opened_passive), "{passive:?}, {counters:?}");
        assert_eq!(counters.tcp_opened_active, CONNECTIONS as u64 - by_linux - orphans);
        assert!(counters.tcp_time_wait > 0, "whoever closes first waits: {counters:?}");
        for _ in 0..100 {
            if gauges(&stack.counters()).iter().all(|(_, value)| *value == 0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let left = gauges(&stack.counters());
        assert!(left.iter().all(|(_, value)| *value == 0), "{left:?}");
        assert!(stack.connections(10).is_empty(), "{:?}", stack.connections(10));
    });
}
