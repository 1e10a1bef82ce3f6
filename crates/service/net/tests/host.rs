//! The same sockets over the host's: a program cannot tell.

mod support;

use fata_net::Stack;
use fata_unix::HostSockets;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use support::{at, pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn stack() -> Stack {
    Stack::over_sockets(Arc::new(HostSockets::new()), IpAddr::V4(LOOPBACK))
}

#[test]
fn all_types_may_cross_threads() {
    fn crosses<T: Send + Sync + Unpin + std::fmt::Debug>() {}
    crosses::<Stack>();
    crosses::<fata_net::TcpListener>();
    crosses::<fata_net::TcpStream>();
    crosses::<fata_net::UdpSocket>();
    fn is_sent<T: Send>() {}
    is_sent::<fata_net::Driver>();
}

#[tokio::test]
async fn an_echo_and_a_half_close() {
    let stack = stack();
    assert_eq!(stack.ready().await.unwrap(), IpAddr::V4(LOOPBACK));
    let listener = stack.tcp_listen(0).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (mut stream, peer) = listener.accept().await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), peer);
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        stream.write_all(&received).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let client = async {
        let stream = stack.tcp_connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_keepalive(Some(fata_net::Keepalive::default())).unwrap();
        stream.set_user_timeout(Some(Duration::from_secs(30))).unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let sent = pattern(1_000_000);
        let write = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(write, reader.read_to_end(&mut received));
        read.unwrap();
        assert!(received == sent);
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn every_task_that_accepts_gets_its_connection() {
    let stack = stack();
    let listener = Arc::new(stack.tcp_listen((LOOPBACK, 0)).await.unwrap());
    let address = listener.local_addr().unwrap();
    let accepts: Vec<_> = (0..4)
        .map(|_| {
            let listener = listener.clone();
            tokio::spawn(async move { listener.accept().await.unwrap() })
        })
        .collect();
    tokio::task::yield_now().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(stack.tcp_connect(address).await.unwrap());
    }
    for accept in accepts {
        accept.await.unwrap();
    }
}

#[tokio::test]
async fn every_task_that_receives_gets_its_datagram() {
    let stack = stack();
    let server = Arc::new(stack.udp_bind(0).await.unwrap());
    let client = stack.udp_bind(0).await.unwrap();
    let receives: Vec<_> = (0..4)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 16];
                server.recv_from(&mut buffer).await.unwrap()
            })
        })
        .collect();
    tokio::task::yield_now().await;
    for _ in 0..4 {
        let sent = client.send_to(b"datagram", server.local_addr().unwrap()).await.unwrap();
        assert_eq!(sent, 8);
    }
    for receive in receives {
        assert_eq!(receive.await.unwrap(), (8, client.local_addr().unwrap()));
    }
}

#[tokio::test]
async fn errors_name_the_address_and_have_the_right_kind() {
    let stack = stack();
    let listener = stack.tcp_listen(0).await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = stack.tcp_listen(address.port()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    drop(listener);
    let error = stack.tcp_connect_timeout(address, Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let error = stack.udp_bind(at(Ipv4Addr::new(203, 0, 113, 1), 0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
}
