//! Two stacks on a cable, in virtual time: what a program can rely on.

mod support;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use fata_net::{Limits, PeerAddr, TcpStream};
use fata_testkit::net::Host;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use support::{LEFT, RIGHT, at, pair, pair_with, pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

/// A connection between two new stacks: the stacks, the client's end, the server's end.
async fn connected() -> (Host, Host, TcpStream, TcpStream) {
    let (left, right) = pair();
    let listener = right.stack.tcp_listen(80).await.unwrap();
    let (client, server) = tokio::join!(left.stack.tcp_connect(at(RIGHT, 80)), listener.accept());
    (left, right, client.unwrap(), server.unwrap().0)
}

#[tokio::test(start_paused = true)]
async fn an_echo() {
    let (_left, _right, mut client, mut server) = connected().await;
    assert_eq!(client.peer_addr().unwrap(), at(RIGHT, 80));
    assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
    client.write_all(b"ping").await.unwrap();
    let mut buffer = [0; 4];
    server.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"ping");
    server.write_all(b"pong").await.unwrap();
    client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"pong");
}

#[tokio::test(start_paused = true)]
async fn connections_are_listed() {
    let (left, right, mut client, _server) = connected().await;
    client.write_all(b"unread").await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let names = |sockets: Vec<fata_net::SocketInfo>| {
        let name = |it: &fata_net::SocketInfo| (it.state.name(), it.receive_queue, it.remote);
        sockets.iter().map(name).collect::<Vec<_>>()
    };
    let local = client.local_addr().unwrap();
    assert_eq!(names(right.stack.connections(9)), [("ESTABLISHED", 6, Some(local))]);
    assert_eq!(names(left.stack.connections(9)), [("ESTABLISHED", 0, Some(at(RIGHT, 80)))]);
    assert!(left.stack.connections(0).is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_direction_is_closed_by_itself() {
    let (_left, _right, mut client, mut server) = connected().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(client.write_all(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut question = Vec::new();
    server.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
}

#[tokio::test(start_paused = true)]
async fn many_bytes_in_both_directions_at_once() {
    let (_left, _right, client, server) = connected().await;
    let bytes = pattern(5_000_000);
    let exchange = |stream: TcpStream| {
        let bytes = &bytes;
        async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let write = async {
                writer.write_all(bytes).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let (_, read) = tokio::join!(write, reader.read_to_end(&mut received));
            read.unwrap();
            assert!(received == *bytes);
        }
    };
    tokio::join!(exchange(client), exchange(server));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_connections() {
    let (left, right) = pair();
    let listener = right.stack.tcp_listen(80).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                loop {
                    match stream.read(&mut buffer).await.unwrap() {
                        0 => break,
                        len => stream.write_all(&buffer[..len]).await.unwrap(),
                    }
                }
            });
        }
    });
    let clients: Vec<_> = (0..1000_u32)
        .map(|index| {
            let stack = left.stack.clone();
            tokio::spawn(async move {
                let mut stream = stack.tcp_connect(at(RIGHT, 80)).await.unwrap();
                for round in 0..3 {
                    let message = format!("client {index}, round {round}");
                    stream.write_all(message.as_bytes()).await.unwrap();
                    let mut answer = vec![0; message.len()];
                    stream.read_exact(&mut answer).await.unwrap();
                    assert_eq!(answer, message.as_bytes());
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_for_a_reader_and_memory_does_not_grow() {
    let (left, _right, mut client, mut server) = connected().await;
    let chunk = vec![7; 64 * 1024];
    let mut written = 0;
    // Until nothing moves for a second of virtual time.
    while let Ok(len) = timeout(Duration::from_secs(1), client.write(&chunk)).await {
        written += len.unwrap();
    }
    let limits = Limits::default();
    assert!(written <= limits.tcp_send_bytes + limits.tcp_receive_bytes, "{written}");
    assert!(left.stack.counters().frames_sent > 0);
    let read = async {
        let mut received = vec![0; written];
        server.read_exact(&mut received).await.unwrap();
    };
    let (_, more) = tokio::join!(read, client.write(&chunk));
    assert!(more.unwrap() > 0, "the writer goes on");
}

#[tokio::test(start_paused = true)]
async fn what_was_written_arrives_although_the_stream_was_dropped() {
    let (_left, _right, mut client, mut server) = connected().await;
    let bytes = pattern(100_000);
    client.write_all(&bytes).await.unwrap();
    drop(client);
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert!(received == bytes);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_drains_its_stack_may_end() {
    let (left, _right, mut client, mut server) = connected().await;
    let patience = Duration::from_secs(5);
    let bytes = pattern(200_000);
    client.write_all(&bytes).await.unwrap();
    drop(client);
    let received = tokio::spawn(async move {
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.map(|_| received)
    });
    assert!(left.stack.drain(patience).await, "the peer acknowledged all");
    left.driver.abort();
    assert!(received.await.unwrap().unwrap() == bytes);

    let (left, right, mut client, _server) = connected().await;
    right.driver.abort();
    client.write_all(b"nobody reads this").await.unwrap();
    drop(client);
    assert!(!left.stack.drain(patience).await, "nobody acknowledges");
}

#[tokio::test(start_paused = true)]
async fn unread_data_makes_dropping_a_reset() {
    let (_left, _right, mut client, mut server) = connected().await;
    client.write_all(b"never read").await.unwrap();
    let mut one = [0];
    server.read_exact(&mut one).await.unwrap();
    drop(server);
    let error = client.read(&mut one).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(error.to_string().contains("192.0.2.2:80"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_reset_wakes_the_reader_and_the_writer() {
    let (_left, _right, client, mut server) = connected().await;
    server.write_all(b"hello").await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(client);
    let reads = tokio::spawn(async move {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.map(|_| all)
    });
    // Nobody reads at the other end, so this waits at last.
    let writes = tokio::spawn(async move { writer.write_all(&vec![7; 10_000_000]).await });
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!reads.is_finished() && !writes.is_finished());
    drop(server);
    let errors = [reads.await.unwrap().unwrap_err(), writes.await.unwrap().unwrap_err()];
    assert_eq!(errors.map(|error| error.kind()), [ErrorKind::ConnectionReset; 2]);
}

#[tokio::test(start_paused = true)]
async fn nobody_listens() {
    let (left, _right) = pair();
    let error = left.stack.tcp_connect(at(RIGHT, 81)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains("192.0.2.2:81"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_there() {
    let (left, _right) = pair();
    let nobody = at(Ipv4Addr::new(192, 0, 2, 77), 80);
    let start = Instant::now();
    let error = left.stack.tcp_connect_timeout(nobody, Duration::from_secs(300)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::TimedOut), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(300), "the stack gives up by itself");
    let elsewhere = at(Ipv4Addr::new(198, 51, 100, 1), 80);
    let error = left.stack.tcp_connect(elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{error}");
    let error = left.stack.tcp_connect_timeout(nobody, Duration::from_millis(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("within 5ms"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn dropped_futures_lose_nothing() {
    let (left, right) = pair();
    let listener = right.stack.tcp_listen(80).await.unwrap();
    let moment = Duration::from_millis(10);
    assert!(timeout(moment, listener.accept()).await.is_err());
    let (client, server) = tokio::join!(left.stack.tcp_connect(at(RIGHT, 80)), listener.accept());
    let (mut client, (mut server, _)) = (client.unwrap(), server.unwrap());
    let mut buffer = [0; 4];
    assert!(timeout(moment, server.read(&mut buffer)).await.is_err());
    client.write_all(b"ping").await.unwrap();
    server.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"ping");
    // A connect that is given up leaves nothing behind, and its slot serves the next one.
    let nobody = at(Ipv4Addr::new(192, 0, 2, 77), 80);
    for _ in 0..100 {
        assert!(timeout(moment, left.stack.tcp_connect(nobody)).await.is_err());
    }
    client.write_all(b"pong").await.unwrap();
    server.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"pong");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_listener_refuses_and_its_port_is_free() {
    let (left, right) = pair();
    let listener = right.stack.tcp_listen(80).await.unwrap();
    let error = right.stack.tcp_listen(80).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(":80"), "{error}");
    let mut waiting = left.stack.tcp_connect(at(RIGHT, 80)).await.unwrap();
    drop(listener);
    let error = waiting.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "nobody accepted it");
    let error = left.stack.tcp_connect(at(RIGHT, 80)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    right.stack.tcp_listen(80).await.unwrap();
    let error = right.stack.tcp_listen((Ipv4Addr::new(192, 0, 2, 9), 80)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
}

#[tokio::test(start_paused = true)]
async fn every_task_that_accepts_gets_its_connection() {
    let (left, right) = pair();
    let listener = Arc::new(right.stack.tcp_listen(80).await.unwrap());
    let accepts: Vec<_> = (0..4)
        .map(|_| {
            let listener = listener.clone();
            tokio::spawn(async move { listener.accept().await.unwrap() })
        })
        .collect();
    tokio::task::yield_now().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(left.stack.tcp_connect(at(RIGHT, 80)).await.unwrap());
    }
    for accept in accepts {
        accept.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn datagrams_go_whole() {
    let (left, right) = pair();
    let server = right.stack.udp_bind(53).await.unwrap();
    let client = left.stack.udp_bind(0).await.unwrap();
    let from = at(LEFT, client.local_addr().unwrap().port());
    assert_ne!(from.port(), 0);
    for len in [0, 1, 1472, 1473, 8000] {
        let sent = pattern(len);
        assert_eq!(client.send_to(&sent, at(RIGHT, 53)).await.unwrap(), len);
        let mut buffer = [0; 9000];
        assert_eq!(server.recv_from(&mut buffer).await.unwrap(), (len, from));
        assert!(buffer[..len] == sent);
        server.send_to(&buffer[..len], from).await.unwrap();
        assert_eq!(client.recv_from(&mut buffer[..4]).await.unwrap().0, len.min(4));
    }
    let error = client.send_to(&[0; 65_508], at(RIGHT, 53)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("65508 bytes to 192.0.2.2:53"), "{error}");
    let error = right.stack.udp_bind(53).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(server);
    right.stack.udp_bind(53).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_datagrams_waits_for_the_interface() {
    let (left, right) = pair();
    let server = right.stack.udp_bind(53).await.unwrap();
    let client = left.stack.udp_bind(0).await.unwrap();
    // The neighbour is known from here on; few packets wait for one that is not.
    client.send_to(b"first", at(RIGHT, 53)).await.unwrap();
    let mut buffer = [0; 1500];
    server.recv_from(&mut buffer).await.unwrap();
    let payload = [7; 1400];
    // More than the socket's queue holds: each `send_to` past that waits for its turn.
    for _ in 0..1000 {
        client.send_to(&payload, at(RIGHT, 53)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counters = right.stack.counters();
    assert_eq!(counters.udp_received + counters.dropped_udp_queue, 1001);
    assert!(counters.udp_received > 100);
    for _ in 1..counters.udp_received {
        server.recv_from(&mut buffer).await.unwrap();
    }
    assert!(timeout(Duration::from_secs(1), server.recv_from(&mut buffer)).await.is_err());
}

/// A request over a connection of its own.
async fn request(
    stack: &fata_net::Stack,
    method: &str,
    path: &str,
    body: Vec<u8>,
) -> hyper::Result<(hyper::StatusCode, Bytes)> {
    let stream = stack.tcp_connect(at(RIGHT, 80)).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "right")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

#[tokio::test(start_paused = true)]
async fn axum_serves_over_it_unchanged() {
    let (left, right) = pair();
    let listener = right.stack.tcp_listen(80).await.unwrap();
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route(
            "/who",
            get(|ConnectInfo(PeerAddr(peer)): ConnectInfo<PeerAddr>| async move {
                peer.ip().to_string()
            }),
        )
        .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("a handler panics")
                }
            }),
        );
    let service = router.into_make_service_with_connect_info::<PeerAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    let (status, body) = request(&left.stack, "GET", "/", Vec::new()).await.unwrap();
    assert_eq!((status.as_u16(), &body[..]), (200, &b"hello"[..]));
    let (_, body) = request(&left.stack, "GET", "/who", Vec::new()).await.unwrap();
    assert_eq!(&body[..], b"192.0.2.1");
    let (_, body) = request(&left.stack, "POST", "/length", pattern(1_000_000)).await.unwrap();
    assert_eq!(&body[..], b"1000000");
    assert!(request(&left.stack, "GET", "/panic", Vec::new()).await.is_err());
    let (status, _) = request(&left.stack, "GET", "/", Vec::new()).await.unwrap();
    assert_eq!(status.as_u16(), 200, "the others go on");
}

#[tokio::test(start_paused = true)]
async fn what_tasks_write_in_one_round_goes_out_in_one_batch() {
    let (left, right) = pair();
    let listener = right.stack.tcp_listen(80).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..32 {
        let (client, server) =
            tokio::join!(left.stack.tcp_connect(at(RIGHT, 80)), listener.accept());
        streams.push((client.unwrap(), server.unwrap().0));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (frames, batches) = left.port.sent();
    for (client, _) in &mut streams {
        client.write_all(b"a small request").await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (frames, batches) = (left.port.sent().0 - frames, left.port.sent().1 - batches);
    assert!(frames >= 32 && batches <= 2, "{frames} frames in {batches} batches");
}

#[tokio::test(start_paused = true)]
async fn when_the_interface_fails_everybody_is_told() {
    let (left, right, mut client, mut server) = connected().await;
    let listener = left.stack.tcp_listen(80).await.unwrap();
    let udp = left.stack.udp_bind(53).await.unwrap();
    let stack = left.stack.clone();
    let connect =
        tokio::spawn(async move { stack.tcp_connect(at(Ipv4Addr::new(192, 0, 2, 77), 80)).await });
    let accept = tokio::spawn(async move { listener.accept().await });
    let receive = tokio::spawn(async move { udp.recv_from(&mut [0; 16]).await });
    let read = tokio::spawn(async move { client.read(&mut [0]).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    left.port.unplug("pulled out by a test");
    let expect = |error: std::io::Error| {
        assert_eq!(error.kind(), ErrorKind::NetworkDown);
        assert!(error.to_string().contains("pulled out by a test"), "{error}");
    };
    expect(connect.await.unwrap().unwrap_err());
    expect(accept.await.unwrap().unwrap_err());
    expect(receive.await.unwrap().unwrap_err());
    expect(read.await.unwrap().unwrap_err());
    assert!(left.driver.await.unwrap().to_string().contains("pulled out by a test"));
    expect(left.stack.tcp_listen(81).await.unwrap_err());
    expect(left.stack.ready().await.unwrap_err());

    let read = tokio::spawn(async move { server.read(&mut [0]).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    right.driver.abort();
    let error = read.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkDown);
    assert!(error.to_string().contains("stopped"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn without_a_dhcp_server_connecting_says_so() {
    let (left, _right) = pair_with(|config| fata_net::Config {
        address: fata_net::AddressConfig::Dhcp { hostname: None },
        ..config
    });
    assert_eq!(left.stack.address(), None);
    assert!(timeout(Duration::from_secs(60), left.stack.ready()).await.is_err());
    let error = left.stack.tcp_connect(at(RIGHT, 80)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkDown);
    assert!(error.to_string().contains("DHCP"), "{error}");
    let udp = left.stack.udp_bind(0).await.unwrap();
    let error = udp.send_to(b"", at(RIGHT, 53)).await.unwrap_err();
    assert!(error.to_string().contains("DHCP"), "{error}");
    let _listener = left.stack.tcp_listen(80).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_stack_sleeps() {
    let (left, _right, mut client, mut server) = connected().await;
    client.write_all(b"ping").await.unwrap();
    server.read_exact(&mut [0; 4]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (frames, turns) = (left.port.sent(), left.port.turns());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(left.port.sent(), frames, "nothing is due, so nothing is sent");
    let turns = left.port.turns() - turns;
    assert!(turns <= 5, "nothing is due, so the driver sleeps, but it had {turns} turns");
    // Woken for one thing, it does it and sleeps again.
    let turns = left.port.turns();
    client.write_all(b"ping").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let turns = left.port.turns() - turns;
    assert!((2..=12).contains(&turns), "{turns} turns for one segment");
}

#[tokio::test(start_paused = true)]
async fn keepalive_finds_out_that_the_other_end_is_gone() {
    let (_left, right, mut client, _server) = connected().await;
    client
        .set_keepalive(Some(fata_net::Keepalive {
            idle: Duration::from_secs(10),
            interval: Duration::from_secs(1),
            probes: 3,
        }))
        .unwrap();
    assert!(timeout(Duration::from_secs(100), client.read(&mut [0])).await.is_err(), "it answers");
    right.driver.abort();
    let error =
        timeout(Duration::from_secs(100), client.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_user_timeout_ends_a_connection_that_is_owed_an_answer() {
    let (_left, right, mut client, _server) = connected().await;
    client.set_user_timeout(Some(Duration::from_secs(5))).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    right.driver.abort();
    let silent = timeout(Duration::from_secs(60), client.read(&mut [0])).await;
    assert!(silent.is_err(), "nothing is owed to one that has sent nothing");
    let asked = tokio::time::Instant::now();
    client.write_all(b"question").await.unwrap();
    let answer = timeout(Duration::from_secs(60), client.read(&mut [0])).await;
    assert_eq!(answer.expect("in time").unwrap_err().kind(), ErrorKind::TimedOut);
    let waited = asked.elapsed();
    assert!((5..=6).contains(&waited.as_secs()), "{waited:?}");
}
