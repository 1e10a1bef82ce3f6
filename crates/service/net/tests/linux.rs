//! Fata's stack against Linux's, over a TAP interface.
//!
//! Each test runs itself again in a network namespace of its own, which the kernel removes with
//! everything in it when the process ends. In there Linux has the address [`LINUX`] and Fata's stack
//! has [`FATA`] on the other end of the cable. Needs root and /dev/net/tun; without them each test
//! says so and passes.

#[path = "linux/closing.rs"]
mod closing;
#[path = "linux/ipv6.rs"]
mod ipv6;
mod support;
#[path = "linux/transfers.rs"]
mod transfers;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use fata_device::{BoxFuture, ByteStream, DatagramSocket, Listener, Sockets};
use fata_net::{AddressConfig, Config, Stack};
use fata_unix::{HostSockets, Tap};
use std::future::Future;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use support::{at, pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

const LINUX: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FATA: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const INTERFACE: &str = "tap0";
/// Says to the second run of a test that it is the second.
const INSIDE: &str = "FATA_TEST_INSIDE_NAMESPACE";
/// Far longer than any test takes: a hang becomes a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `test` in a namespace with a TAP interface. `name` is the test's own.
fn with_linux<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["tuntap", "add", "dev", INTERFACE, "mode", "tap"]);
        run("ip", &["address", "add", &format!("{LINUX}/24"), "dev", INTERFACE]);
        run("ip", &["link", "set", INTERFACE, "up"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let test = async { tokio::time::timeout(PATIENCE, test()).await };
        runtime.block_on(test).expect("the test does not hang");
        return;
    }
    let may = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) || !Path::new("/dev/net/tun").exists() {
        // Past the test harness, which shows nothing of a test that passes.
        let why = "SKIPPED: needs root (for a network namespace) and /dev/net/tun";
        std::io::stderr().write_all(format!("{name}: {why}\n").as_bytes()).unwrap();
        return;
    }
    let status = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed inside its namespace: {status}");
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} does not run: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}: {words}", output.status);
    output
}

/// A program of Linux's beside the runtime, killed when dropped.
async fn linux(program: &str, arguments: &[&str]) -> String {
    let (program, arguments) = (program.to_string(), arguments.join("\n"));
    let output = tokio::task::spawn_blocking(move || {
        run(&program, &arguments.split('\n').collect::<Vec<_>>())
    });
    String::from_utf8(output.await.unwrap().stdout).unwrap()
}

fn fata() -> Stack {
    let tap = Tap::open(INTERFACE).unwrap();
    let address = AddressConfig::Static {
        address: FATA,
        prefix_len: 24,
        gateway: Some(LINUX),
        dns: Vec::new(),
    };
    let config = Config { address, ..Config::new([7; 32]) };
    let (stack, driver) = Stack::over_nic(Box::new(tap), config).unwrap();
    tokio::spawn(driver);
    wait_for_link();
    stack
}

/// Waits until Linux has noticed that the interface was opened; it drops what it sends before.
fn wait_for_link() {
    let is_up = || {
        let output = run("ip", &["link", "show", "dev", INTERFACE]);
        String::from_utf8_lossy(&output.stdout).contains("state UP")
    };
    assert!((0..10_000).any(|_| is_up()), "Linux notices that the interface is up");
}

#[test]
fn our_client_against_linux() {
    with_linux("our_client_against_linux", || async {
        let stack = fata();
        let listener = TcpListener::bind(at(LINUX, 80)).await.unwrap();
        let bytes = pattern(10 << 20);
        let serve = async {
            let (mut stream, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip(), IpAddr::V4(FATA));
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            stream.write_all(&received).await.unwrap();
        };
        let call = async {
            let mut stream = stack.tcp_connect(at(LINUX, 80)).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            assert!(received == bytes);
        };
        tokio::join!(serve, call);

        drop(listener);
        let error = stack.tcp_connect(at(LINUX, 80)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    });
}

#[test]
fn curl_against_axum() {
    with_linux("curl_against_axum", || async {
        let stack = fata();
        let listener = stack.tcp_listen(80).await.unwrap();
        let bytes = Bytes::from(pattern(20 << 20));
        let (sent, expected) = (bytes.clone(), bytes.clone());
        let router = Router::new()
            .route("/", get(|| async { "hello from Fata" }))
            .route("/bytes", get(move || async move { sent }))
            .route("/same", post(move |body: Bytes| async move { (body == expected).to_string() }))
            .layer(DefaultBodyLimit::disable());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let page = linux("curl", &["-sS", "--fail", "http://192.0.2.2/"]).await;
        assert_eq!(page, "hello from Fata");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        let path = path.to_str().unwrap();
        linux("curl", &["-sS", "--fail", "-o", path, "http://192.0.2.2/bytes"]).await;
        assert!(std::fs::read(path).unwrap() == bytes);
        let upload = format!("@{path}");
        let same = ["-sS", "--fail", "--data-binary", &upload, "http://192.0.2.2/same"];
        assert_eq!(linux("curl", &same).await, "true");
        // Four at a time, each over a connection of its own.
        let many = "-sS --fail -Z --parallel-max 4 -H Connection:close http://192.0.2.2/?[1-200]";
        let pages = linux("curl", &many.split(' ').collect::<Vec<_>>()).await;
        assert_eq!(pages, "hello from Fata".repeat(200));
    });
}

#[test]
fn a_thousand_connections_from_linux() {
    with_linux("a_thousand_connections_from_linux", || async {
        let stack = fata();
        let listener = stack.tcp_listen(7).await.unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut reader, mut writer) = tokio::io::split(stream);
                    tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                    writer.shutdown().await.unwrap();
                });
            }
        });
        let mut clients = Vec::new();
        for index in 0..400_u32 {
            clients.push(tokio::spawn(async move {
                let mut stream = TcpStream::connect(at(FATA, 7)).await.unwrap();
                let message = index.to_be_bytes().repeat(1000);
                stream.write_all(&message).await.unwrap();
                stream.shutdown().await.unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await.unwrap();
                assert!(answer == message);
            }));
        }
        for client in clients {
            client.await.unwrap();
        }
        // One after the other: ports, TIME-WAIT and slots are used again and again.
        for _ in 0..600 {
            let mut stream = TcpStream::connect(at(FATA, 7)).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            let mut answer = [0];
            stream.read_exact(&mut answer).await.unwrap();
        }
    });
}

#[test]
fn resets_in_both_directions() {
    with_linux("resets_in_both_directions", || async {
        let stack = fata();
        let listener = stack.tcp_listen(80).await.unwrap();
        // Linux resets: SO_LINGER 0.
        let (server, client) = tokio::join!(listener.accept(), TcpStream::connect(at(FATA, 80)));
        let (mut server, client) = (server.unwrap().0, client.unwrap());
        client.set_zero_linger().unwrap();
        drop(client);
        let error = server.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        // We reset: data of the peer's was not read.
        let (server, client) = tokio::join!(listener.accept(), TcpStream::connect(at(FATA, 80)));
        let (mut server, mut client) = (server.unwrap().0, client.unwrap());
        client.write_all(b"two").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        drop(server);
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    });
}

#[test]
fn a_small_window_and_small_segments() {
    with_linux("a_small_window_and_small_segments", || async {
        let stack = fata();
        let listener = stack.tcp_listen(80).await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let (server, client) = tokio::join!(listener.accept(), socket.connect(at(FATA, 80)));
        let (mut server, mut client) = (server.unwrap().0, client.unwrap());
        let bytes = pattern(1 << 20);
        let write = async {
            server.write_all(&bytes).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let read = async {
            let mut received = Vec::new();
            let mut buffer = [0; 1000];
            loop {
                match client.read(&mut buffer).await.unwrap() {
                    0 => break,
                    len => received.extend_from_slice(&buffer[..len]),
                }
                // Lets the window close now and then.
                if received.len() % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            assert!(received == bytes);
        };
        tokio::join!(write, read);
    });
}

#[test]
fn datagrams_and_pings_whole_and_in_fragments() {
    with_linux("datagrams_and_pings_whole_and_in_fragments", || async {
        let stack = fata();
        let server = stack.udp_bind(7).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            loop {
                let (len, peer) = server.recv_from(&mut buffer).await.unwrap();
                server.send_to(&buffer[..len], peer).await.unwrap();
            }
        });
        let client = UdpSocket::bind(at(LINUX, 0)).await.unwrap();
        for len in [0, 1, 1472, 1473, 9000, 65_507] {
            let sent = pattern(len);
            client.send_to(&sent, at(FATA, 7)).await.unwrap();
            let mut buffer = vec![0; 65_536];
            let (received, source) = client.recv_from(&mut buffer).await.unwrap();
            assert_eq!((received, source), (len, at(FATA, 7)));
            assert!(buffer[..len] == sent);
        }
        for size in ["56", "4000"] {
            linux("ping", &["-q", "-c", "3", "-i", "0.05", "-W", "5", "-s", size, "192.0.2.2"])
                .await;
        }
        // Nobody is at the port: an ICMP error, which Linux turns into an error of the socket.
        let client = UdpSocket::bind(at(LINUX, 0)).await.unwrap();
        client.connect(at(FATA, 9)).await.unwrap();
        client.send(b"anybody?").await.unwrap();
        let error = client.recv(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

/// Kills the process that it holds.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Starts dnsmasq, and waits until it answers. The pipe of its log stays open for what it says later.
fn dnsmasq<'a>(arguments: impl Iterator<Item = &'a str>) -> (Killed, impl BufRead) {
    let mut dnsmasq = Killed(
        Command::new("dnsmasq")
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("dnsmasq runs"),
    );
    let mut log = BufReader::new(dnsmasq.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("sockets bound") && !line.contains("started, version") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "dnsmasq ended");
    }
    (dnsmasq, log)
}

/// Words for a dnsmasq that has the domain `lan`, and asks nobody.
fn lan() -> Vec<String> {
    let mut words: Vec<String> = "--keep-in-foreground --conf-file=/dev/null --user=root \
        --bind-interfaces --log-facility=- --pid-file= --no-resolv --no-hosts --local=/lan/ \
        --local-ttl=60 --host-record=www.lan,192.0.2.1,2001:db8::80 --cname=alias.lan,www.lan \
        --host-record=down.lan,192.0.2.99,192.0.2.1"
        .split_whitespace()
        .map(str::to_string)
        .collect();
    // More than fits into a datagram.
    words.extend((1..=150).map(|last| format!("--host-record=big.lan,198.51.100.{last}")));
    words
}

/// Resolves what `lan()` has, through `stack`.
async fn resolve_lan(stack: &Stack) {
    let six: IpAddr = "2001:db8::80".parse().unwrap();
    for name in ["www.lan", "ALIAS.lan.", "www.lan"] {
        assert_eq!(stack.resolve(name).await.unwrap(), [six, LINUX.into()], "{name}");
    }
    let error = stack.resolve("nobody.lan").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error = stack.resolve("example.org").await.unwrap_err();
    assert!(error.to_string().contains("REFUSED"), "it asks nobody: {error}");
    let big = stack.resolve("big.lan").await.unwrap();
    assert!(big.len() == 32 && big.iter().all(|it| it.to_string().starts_with("198.51.100.")));
    let counters = stack.resolver_counters();
    assert_eq!((counters.tcp_questions, counters.cache_hits), (1, 2), "{counters:?}");
    assert_eq!((counters.unrelated, counters.timed_out), (0, 0), "{counters:?}");

    // Past an address that nobody has, and one of the family that leads nowhere.
    let listener = TcpListener::bind(at(LINUX, 80)).await.unwrap();
    for name in ["www.lan", "down.lan"] {
        let (client, server) = tokio::join!(stack.tcp_connect_name(name, 80), listener.accept());
        assert_eq!(client.unwrap().peer_addr().unwrap(), at(LINUX, 80));
        server.unwrap();
    }
}

#[test]
fn names_from_dnsmasq_which_dhcp_names() {
    with_linux("names_from_dnsmasq_which_dhcp_names", || async {
        let mut words = lan();
        words.extend(
            "--interface=tap0 --leasefile-ro --no-ping \
             --dhcp-range=192.0.2.50,192.0.2.60,255.255.255.0,1h"
                .split_whitespace()
                .map(str::to_string),
        );
        let _dnsmasq = dnsmasq(words.iter().map(String::as_str));
        let tap = Tap::open(INTERFACE).unwrap();
        let config = Config::new([7; 32]);
        let (stack, driver) = Stack::over_nic(Box::new(tap), config).unwrap();
        tokio::spawn(driver);
        // Nobody waits for the lease here: whoever resolves does.
        resolve_lan(&stack).await;
        assert_eq!(stack.lease().unwrap().dns, [LINUX]);
    });
}

/// The host's sockets with name servers of the test's.
struct Here(HostSockets);

impl Sockets for Here {
    fn tcp_listen(&self, at: SocketAddr) -> BoxFuture<'_, std::io::Result<Box<dyn Listener>>> {
        self.0.tcp_listen(at)
    }

    fn tcp_connect(&self, to: SocketAddr) -> BoxFuture<'_, std::io::Result<Box<dyn ByteStream>>> {
        self.0.tcp_connect(to)
    }

    fn udp_bind(&self, at: SocketAddr) -> BoxFuture<'_, std::io::Result<Box<dyn DatagramSocket>>> {
        self.0.udp_bind(at)
    }

    fn name_servers(&self) -> Vec<SocketAddr> {
        vec![at(Ipv4Addr::LOCALHOST, 53)]
    }
}

#[test]
fn names_from_dnsmasq_over_the_hosts_sockets() {
    with_linux("names_from_dnsmasq_over_the_hosts_sockets", || async {
        let mut words = lan();
        words.push("--interface=lo".to_string());
        let _dnsmasq = dnsmasq(words.iter().map(String::as_str));
        let sockets = Arc::new(Here(HostSockets::new()));
        let stack = Stack::over_sockets(sockets, Ipv4Addr::UNSPECIFIED.into());
        resolve_lan(&stack).await;
    });
}

#[test]
fn an_address_from_dnsmasq() {
    with_linux("an_address_from_dnsmasq", || async {
        let arguments = "--keep-in-foreground --conf-file=/dev/null --port=0 --user=root \
             --interface=tap0 --bind-interfaces --leasefile-ro --log-facility=- --no-ping \
             --dhcp-range=192.0.2.50,192.0.2.60,255.255.255.0,1h --dhcp-option=option:router,192.0.2.1 \
             --dhcp-option=option:dns-server,192.0.2.3 --pid-file=";
        let _dnsmasq = dnsmasq(arguments.split_whitespace());
        // Without waiting for the link: the interface does that by itself.
        let tap = Tap::open(INTERFACE).unwrap();
        let address = AddressConfig::Dhcp { hostname: Some("fata".into()) };
        let config = Config { address, ..Config::new([7; 32]) };
        let (stack, driver) = Stack::over_nic(Box::new(tap), config).unwrap();
        tokio::spawn(driver);
        assert_eq!(stack.address(), None);
        let address = stack.ready().await.unwrap();
        let IpAddr::V4(address) = address else { panic!("{address}") };
        assert!((50..=60).contains(&address.octets()[3]), "{address}");
        let lease = stack.lease().unwrap();
        assert_eq!((lease.address, lease.prefix_len), (address, 24));
        assert_eq!(lease.gateway, Some(LINUX));
        assert_eq!(lease.dns, [Ipv4Addr::new(192, 0, 2, 3)]);
        assert_eq!(stack.counters().dhcp_sent, 2, "DISCOVER and REQUEST, each once");
        // It serves at the address.
        let listener = stack.tcp_listen(80).await.unwrap();
        let (server, client) = tokio::join!(listener.accept(), TcpStream::connect(at(address, 80)));
        client.unwrap().write_all(b"x").await.unwrap();
        server.unwrap().0.read_exact(&mut [0]).await.unwrap();
    });
}

#[test]
fn the_interface_is_ours_alone_and_its_end_is_noticed() {
    with_linux("the_interface_is_ours_alone_and_its_end_is_noticed", || async {
        let tap = Tap::open(INTERFACE).unwrap();
        let error = Tap::open(INTERFACE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        assert!(error.to_string().contains("\"tap0\""), "{error}");
        run("ip", &["tuntap", "add", "dev", "tun0", "mode", "tun"]);
        let error = Tap::open("tun0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");

        let config = Config {
            address: AddressConfig::Static {
                address: FATA,
                prefix_len: 24,
                gateway: None,
                dns: Vec::new(),
            },
            ..Config::new([7; 32])
        };
        let (stack, driver) = Stack::over_nic(Box::new(tap), config).unwrap();
        let driver = tokio::spawn(driver);
        let listener = stack.tcp_listen(80).await.unwrap();
        wait_for_link();
        // Pulled out and plugged in again: nothing but time is lost.
        run("ip", &["link", "set", INTERFACE, "down"]);
        let udp = stack.udp_bind(0).await.unwrap();
        udp.send_to(b"lost", at(LINUX, 9)).await.unwrap();
        run("ip", &["link", "set", INTERFACE, "up"]);
        wait_for_link();
        let (server, client) = tokio::join!(listener.accept(), TcpStream::connect(at(FATA, 80)));
        let (mut server, _client) = (server.unwrap().0, client.unwrap());
        // Gone for good.
        run("ip", &["link", "delete", INTERFACE]);
        let error = driver.await.unwrap();
        assert!(error.to_string().contains("tap0"), "{error}");
        let error = server.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NetworkDown, "{error}");
    });
}
