//! Resolving names in virtual time: a stack that asks, and one on the other end of the cable that
//! answers with our own server.

mod support;

use fata_names::dns::{Limits, Server, Transport, Zone};
use fata_net::{AddressConfig, Config, Stack};
use fata_testkit::net::{Host, World};
use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{LEFT, RIGHT, at};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

const ZONE: &str = r#"
$ORIGIN example.test.
$TTL 60
@       IN SOA ns admin 7 7200 900 1209600 30
        IN NS  ns
ns      IN A   192.0.2.2
www     IN A   192.0.2.2
        IN A   192.0.2.77
        IN AAAA 2001:db8::80
alias   IN CNAME www
many    IN CNAME www.example.test.
outside IN CNAME www.elsewhere.invalid.
text    IN TXT "no address"
local   IN CNAME localhost.
down    IN A   192.0.2.77
$TTL 0
never   IN A   192.0.2.9
"#;

/// Answers from a server, as they went out: how many over UDP, and over TCP.
#[derive(Clone)]
struct NameServer {
    server: Arc<Mutex<Server>>,
    seen: Arc<Mutex<(u64, u64)>>,
}

impl NameServer {
    fn new() -> Self {
        NameServer::with(ZONE)
    }

    fn with(text: &str) -> Self {
        let zone = Zone::parse(text, None).unwrap();
        let server = Arc::new(Mutex::new(Server::new(zone, Limits::default(), [1, 2])));
        NameServer { server, seen: Arc::default() }
    }

    fn respond(&self, source: IpAddr, transport: Transport, request: &[u8]) -> Vec<u8> {
        let mut server = self.server.lock().unwrap();
        server.respond(Duration::ZERO, source, transport, request).unwrap()
    }

    fn seen(&self) -> (u64, u64) {
        *self.seen.lock().unwrap()
    }

    /// Answers on `stack`, each question over UDP after `delay`.
    async fn serve(self, stack: Stack, delay: Duration) {
        let socket = stack.udp_bind(53).await.unwrap();
        let listener = stack.tcp_listen(53).await.unwrap();
        let udp = async {
            let mut buffer = [0; 4096];
            loop {
                let (len, peer) = socket.recv_from(&mut buffer).await.unwrap();
                self.seen.lock().unwrap().0 += 1;
                let response = self.respond(peer.ip(), Transport::Udp, &buffer[..len]);
                sleep(delay).await;
                socket.send_to(&response, peer).await.unwrap();
            }
        };
        let tcp = async {
            loop {
                let (mut stream, peer) = listener.accept().await.unwrap();
                self.seen.lock().unwrap().1 += 1;
                let mut request = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut request).await.unwrap();
                let response = self.respond(peer.ip(), Transport::Tcp, &request);
                stream.write_u16(response.len() as u16).await.unwrap();
                stream.write_all(&response).await.unwrap();
            }
        };
        tokio::join!(udp, tcp);
    }
}

/// LEFT, which has these name servers, and RIGHT.
fn hosts(dns: &[Ipv4Addr]) -> (Host, Host) {
    hosts_in(&World::new(1), dns)
}

fn hosts_in(world: &World, dns: &[Ipv4Addr]) -> (Host, Host) {
    let with_dns = |config: Config| Config {
        address: AddressConfig::Static {
            address: LEFT,
            prefix_len: 24,
            gateway: None,
            dns: dns.to_vec(),
        },
        ..config
    };
    (world.host("left").config(with_dns).start(), world.host("right").start())
}

/// LEFT with RIGHT as its name server.
fn served() -> (Host, Host, NameServer) {
    let (left, right) = hosts(&[RIGHT]);
    let server = NameServer::new();
    tokio::spawn(server.clone().serve(right.stack.clone(), Duration::ZERO));
    (left, right, server)
}

fn v4(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

async fn error_of<T: std::fmt::Debug>(
    ask: impl Future<Output = std::io::Result<T>>,
) -> (ErrorKind, String) {
    let error = ask.await.unwrap_err();
    (error.kind(), error.to_string())
}

#[tokio::test(start_paused = true)]
async fn both_families_are_asked_for_and_remembered_as_long_as_they_may() {
    let (left, _right, server) = served();
    let six: IpAddr = "2001:db8::80".parse().unwrap();
    let mut addresses = left.stack.resolve("WWW.example.test.").await.unwrap();
    assert_eq!(addresses.remove(0), six, "IPv6 first");
    addresses.sort();
    assert_eq!(addresses, [v4(2), v4(77)]);
    assert_eq!(server.seen(), (2, 0));
    sleep(Duration::from_secs(59)).await;
    assert_eq!(left.stack.resolve("www.example.test").await.unwrap().len(), 3);
    assert_eq!(server.seen(), (2, 0));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(left.stack.resolve("www.example.test").await.unwrap().len(), 3);
    assert_eq!(server.seen(), (4, 0));
    // What may not be remembered is asked each time; that there is no IPv6 address, once.
    for questions in [6, 7, 8] {
        assert_eq!(left.stack.resolve("never.example.test").await.unwrap(), [v4(9)]);
        assert_eq!(server.seen(), (questions, 0));
    }
    let counters = left.stack.resolver_counters();
    assert_eq!((counters.questions, counters.cache_hits), (8, 4));
    assert_eq!((counters.cache_entries, counters.failed), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_no_is_remembered_too() {
    let (left, _right, server) = served();
    for _ in 0..3 {
        let (kind, text) = error_of(left.stack.resolve("nobody.example.test")).await;
        assert_eq!(kind, ErrorKind::NotFound);
        assert_eq!(text, "cannot resolve nobody.example.test: there is no such name");
        let (kind, text) = error_of(left.stack.resolve("text.example.test")).await;
        assert_eq!((kind, text.contains("has no address")), (ErrorKind::NotFound, true));
    }
    assert_eq!(server.seen(), (4, 0));
    sleep(Duration::from_secs(31)).await;
    error_of(left.stack.resolve("nobody.example.test")).await;
    assert_eq!(server.seen(), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn aliases_are_followed_and_one_that_leads_nowhere_is_an_error() {
    let (left, _right, _server) = served();
    assert_eq!(left.stack.resolve("alias.example.test").await.unwrap().len(), 3);
    let (kind, _) = error_of(left.stack.resolve("outside.example.test")).await;
    assert_eq!(kind, ErrorKind::NotFound, "nothing below `invalid` exists");
}

#[tokio::test(start_paused = true)]
async fn what_needs_no_server_asks_none() {
    let (left, _right, server) = served();
    assert_eq!(left.stack.resolve("192.0.2.9").await.unwrap(), [v4(9)]);
    assert_eq!(left.stack.resolve("[2001:db8::1]").await.unwrap().len(), 1);
    let own = left.stack.resolve("a.localhost").await.unwrap();
    assert!(own.len() == 2 && own.iter().all(IpAddr::is_loopback), "{own:?}");
    assert_eq!(error_of(left.stack.resolve("x.invalid")).await.0, ErrorKind::NotFound);
    for text in ["", "a..b", "a b", "münchen"] {
        let (kind, words) = error_of(left.stack.resolve(text)).await;
        assert_eq!(kind, ErrorKind::InvalidInput, "{text}");
        assert!(words.contains(&format!("{text:?}")), "{words}");
    }
    assert_eq!(server.seen(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_who_ask_at_once_ask_once() {
    let (left, right) = hosts(&[RIGHT]);
    let server = NameServer::new();
    tokio::spawn(server.clone().serve(right.stack.clone(), Duration::from_millis(100)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let stack = left.stack.clone();
        tasks.spawn(async move { stack.resolve("www.example.test").await.map(|all| all.len()) });
    }
    for answer in tasks.join_all().await {
        assert_eq!(answer.unwrap(), 3);
    }
    assert_eq!(server.seen(), (2, 0));
    assert_eq!(left.stack.resolver_counters().joined, 198);
    // When the one that asks gives up, one of the others goes on.
    let (first, second) = (left.stack.clone(), left.stack.clone());
    let impatient = tokio::spawn(async move {
        tokio::time::timeout(Duration::from_millis(10), first.resolve("alias.example.test")).await
    });
    let patient = tokio::spawn(async move { second.resolve("alias.example.test").await });
    assert!(impatient.await.unwrap().is_err());
    assert_eq!(patient.await.unwrap().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_given_up_leaves_nothing_behind() {
    let (left, _right) = hosts(&[RIGHT]);
    for number in 0..1000 {
        let name = format!("n{number}.example.test");
        let ask = left.stack.resolve(&name);
        assert!(tokio::time::timeout(Duration::from_millis(10), ask).await.is_err());
    }
    let counters = left.stack.resolver_counters();
    assert_eq!((counters.too_many, counters.questions), (0, 2000));
    assert_eq!(left.stack.counters().udp_sockets, 0);
}

#[tokio::test(start_paused = true)]
async fn questions_at_a_time_are_limited() {
    let (left, _right) = hosts(&[RIGHT]);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let stack = left.stack.clone();
        tasks.spawn(async move { stack.resolve(&format!("n{number}.example.test")).await });
    }
    let mut kinds: Vec<ErrorKind> = Vec::new();
    while let Some(answer) = tasks.join_next().await {
        kinds.push(answer.unwrap().unwrap_err().kind());
    }
    assert_eq!(kinds.iter().filter(|kind| **kind == ErrorKind::QuotaExceeded).count(), 72);
    assert_eq!(left.stack.resolver_counters().too_many, 144);
    assert_eq!(left.stack.counters().udp_sockets, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_fit_comes_over_tcp() {
    let mut text = ZONE.to_string();
    for last in 0..200 {
        text += &format!("big IN A 198.51.100.{last}\n");
    }
    let (left, right) = hosts(&[RIGHT]);
    let server = NameServer::with(&text);
    tokio::spawn(server.clone().serve(right.stack.clone(), Duration::ZERO));
    let addresses = left.stack.resolve("big.example.test").await.unwrap();
    assert_eq!(addresses.len(), 32, "more is of no use");
    assert_eq!(server.seen(), (2, 1));
    assert_eq!(left.stack.resolver_counters().tcp_questions, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_cut_within_a_record_is_fetched_over_tcp() {
    let (left, right) = hosts(&[RIGHT]);
    let server = NameServer::new();
    let cutting = server.clone();
    let stack = right.stack.clone();
    tokio::spawn(async move {
        let socket = stack.udp_bind(53).await.unwrap();
        let mut buffer = [0; 4096];
        loop {
            let (len, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let mut response = cutting.respond(peer.ip(), Transport::Tcp, &buffer[..len]);
            response[2] |= 2;
            // The OPT record has 11 bytes; five of the last answer, or of the SOA record, go too.
            response.truncate(response.len() - 16);
            socket.send_to(&response, peer).await.unwrap();
        }
    });
    let stack = right.stack.clone();
    tokio::spawn(async move {
        let listener = stack.tcp_listen(53).await.unwrap();
        loop {
            let (mut stream, peer) = listener.accept().await.unwrap();
            let mut request = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut request).await.unwrap();
            let response = server.respond(peer.ip(), Transport::Tcp, &request);
            stream.write_u16(response.len() as u16).await.unwrap();
            stream.write_all(&response).await.unwrap();
        }
    });
    assert_eq!(left.stack.resolve("www.example.test").await.unwrap().len(), 3);
    assert_eq!(left.stack.resolver_counters().tcp_questions, 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_with_a_header_alone_is_left_at_once() {
    let world = World::new(1);
    let first = Ipv4Addr::new(192, 0, 2, 9);
    let (left, right) = hosts_in(&world, &[first, RIGHT]);
    let bare = world.host("bare").address(first, 24).start();
    let server = NameServer::new();
    tokio::spawn(server.clone().serve(right.stack.clone(), Duration::ZERO));
    tokio::spawn(async move {
        let socket = bare.stack.udp_bind(53).await.unwrap();
        let mut buffer = [0; 4096];
        loop {
            let (_, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let mut refusal = buffer[..12].to_vec();
            refusal[2..].copy_from_slice(&[0x81, 0x85, 0, 0, 0, 0, 0, 0, 0, 0]);
            socket.send_to(&refusal, peer).await.unwrap();
        }
    });
    let begun = Instant::now();
    assert_eq!(left.stack.resolve("www.example.test").await.unwrap().len(), 3);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(server.seen(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_alias_to_localhost_is_this_stack_and_asked_of_nobody() {
    let (left, _right, server) = served();
    let own = left.stack.resolve("local.example.test").await.unwrap();
    assert!(own.len() == 2 && own.iter().all(IpAddr::is_loopback), "{own:?}");
    assert_eq!(server.seen(), (2, 0), "for the alias, not for what it leads to");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_waited_for_and_the_next_one_asked() {
    // Nobody has the first one's address.
    let (left, right) = hosts(&[Ipv4Addr::new(192, 0, 2, 99), RIGHT]);
    let server = NameServer::new();
    tokio::spawn(server.clone().serve(right.stack.clone(), Duration::ZERO));
    let begun = Instant::now();
    assert_eq!(left.stack.resolve("www.example.test").await.unwrap().len(), 3);
    assert_eq!(begun.elapsed().as_millis(), 1000);
    assert_eq!(left.stack.resolver_counters().timed_out, 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_datagram_is_sent_again_and_silence_ends() {
    let (left, right) = hosts(&[RIGHT]);
    let begun = Instant::now();
    let socket = right.stack.udp_bind(53).await.unwrap();
    let questions = async {
        let (mut buffer, mut ports, mut ids) = ([0; 512], Vec::new(), Vec::new());
        loop {
            let (_, peer) = socket.recv_from(&mut buffer).await.unwrap();
            ports.push((begun.elapsed().as_millis(), peer.port()));
            ids.push([buffer[0], buffer[1]]);
            if ports.len() == 6 {
                return (ports, ids);
            }
        }
    };
    let (answer, (ports, mut ids)) =
        tokio::join!(error_of(left.stack.resolve("www.example.test")), questions);
    assert_eq!(answer.0, ErrorKind::TimedOut);
    assert!(answer.1.contains("192.0.2.2:53 does not answer"), "{}", answer.1);
    assert_eq!(begun.elapsed().as_millis(), 7000);
    let times: Vec<_> = ports.iter().map(|(time, _)| *time).collect();
    assert_eq!(times, [0, 0, 1000, 1000, 3000, 3000]);
    // RFC 5452 §9.2: each has another port and another id.
    let mut ports: Vec<_> = ports.iter().map(|(_, port)| *port).collect();
    ports.sort_unstable();
    ports.dedup();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ports.len(), 6);
    assert!(ids.len() >= 5, "two of six are the same once in 4,000 runs: {ids:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_left_for_the_next_one_at_once() {
    // Of `other.test` the server knows nothing: it refuses.
    let (left, right, server) = served();
    let begun = Instant::now();
    let (kind, text) = error_of(left.stack.resolve("www.other.test")).await;
    assert_eq!(kind, ErrorKind::Other);
    assert!(text.contains("192.0.2.2:53: it refuses (REFUSED)"), "{text}");
    assert_eq!((begun.elapsed().as_millis(), server.seen()), (0, (2, 0)));
    drop(right);
}

#[tokio::test(start_paused = true)]
async fn forged_answers_are_counted_and_not_believed() {
    let (left, right) = hosts(&[RIGHT]);
    let socket = right.stack.udp_bind(53).await.unwrap();
    let other = right.stack.udp_bind(5353).await.unwrap();
    let server = NameServer::new();
    let forge = async {
        let mut buffer = [0; 4096];
        for _ in 0..2 {
            let (len, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let honest = server.respond(peer.ip(), Transport::Udp, &buffer[..len]);
            // From another port, with another id, for another question, and no message at all.
            other.send_to(&honest, peer).await.unwrap();
            for (at, bit) in [(1, 1), (13, 1), (2, 0x80)] {
                let mut forged = honest.clone();
                forged[at] ^= bit;
                socket.send_to(&forged, peer).await.unwrap();
            }
            socket.send_to(b"", peer).await.unwrap();
            socket.send_to(&honest, peer).await.unwrap();
        }
    };
    let (answer, ()) = tokio::join!(left.stack.resolve("www.example.test"), forge);
    assert_eq!(answer.unwrap().len(), 3);
    assert_eq!(left.stack.resolver_counters().unrelated, 10);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_forgeries_ends_the_try_and_another_port_is_asked_from() {
    let (left, right) = hosts(&[RIGHT]);
    let socket = right.stack.udp_bind(53).await.unwrap();
    let server = NameServer::new();
    let flood = async {
        let mut buffer = [0; 4096];
        let mut first: Option<SocketAddr> = None;
        for _ in 0..2 {
            let (len, peer) = socket.recv_from(&mut buffer).await.unwrap();
            first.get_or_insert(peer);
            for _ in 0..100 {
                socket.send_to(b"forged", peer).await.unwrap();
            }
            let honest = server.respond(peer.ip(), Transport::Udp, &buffer[..len]);
            socket.send_to(&honest, peer).await.unwrap();
        }
    };
    let (answer, ()) = tokio::join!(error_of(left.stack.resolve("www.example.test")), flood);
    assert!(answer.1.contains("its answer is none"), "{}", answer.1);
    assert_eq!(left.stack.resolver_counters().unrelated, 64);
}

#[tokio::test(start_paused = true)]
async fn without_a_name_server_the_error_says_so() {
    let (left, _right) = hosts(&[]);
    let (kind, text) = error_of(left.stack.resolve("www.example.test")).await;
    assert_eq!(kind, ErrorKind::NetworkDown);
    assert!(text.contains("no name server is known"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_host_is_connected_to_by_its_name_past_addresses_that_do_not_answer() {
    let (left, right, _server) = served();
    let listener = right.stack.tcp_listen(80).await.unwrap();
    let begun = Instant::now();
    // 192.0.2.77 is nobody's; IPv6 leads nowhere.
    let (client, server) =
        tokio::join!(left.stack.tcp_connect_name("www.example.test", 80), listener.accept());
    assert_eq!(client.unwrap().peer_addr().unwrap(), at(RIGHT, 80));
    drop(server.unwrap());
    assert!(begun.elapsed() <= Duration::from_millis(260), "{:?}", begun.elapsed());
    let refused = error_of(left.stack.tcp_connect_name("ns.example.test", 81)).await;
    assert_eq!(refused.0, ErrorKind::ConnectionRefused, "{}", refused.1);
    assert!(refused.1.contains("cannot connect to ns.example.test"), "{}", refused.1);
    let missing = error_of(left.stack.tcp_connect_name("nobody.example.test", 80)).await;
    assert_eq!(missing.0, ErrorKind::NotFound);
    // The attempts that lost are gone.
    sleep(Duration::from_secs(300)).await;
    assert_eq!(left.stack.counters().tcp_connections, 0);
}
