//! IPv6 against Linux's.

use super::{INTERFACE, Killed, LINUX, linux, run, wait_for_link, with_linux};
use crate::support::pattern;
use fata_net::{AddressConfig, Config, Ipv6Config, Stack};
use fata_unix::Tap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

pub(super) const LINUX6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(super) const FATA6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// Linux's too, but on no link.
const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1);

fn at(address: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}

/// Gives Linux an address, at once.
pub(super) fn give(address: Ipv6Addr, len: u8, interface: &str) {
    let address = format!("{address}/{len}");
    run("ip", &["-6", "address", "add", &address, "dev", interface, "nodad"]);
}

/// Waits until Linux may use its link-local address: radvd looks once, and then not for long.
fn wait_for_addresses() {
    let is_ready = || {
        let output = run("ip", &["-6", "address", "show", "dev", INTERFACE]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        std::thread::sleep(Duration::from_millis(20));
        text.contains("scope link") && !text.contains("tentative")
    };
    assert!((0..1_000).any(|_| is_ready()), "Linux finds no duplicate");
}

/// A stack without IPv4.
fn fata(ipv6: Ipv6Config) -> Stack {
    let tap = Tap::open(INTERFACE).unwrap();
    let config = Config { address: AddressConfig::Off, ipv6, ..Config::new([7; 32]) };
    let (stack, driver) = Stack::over_nic(Box::new(tap), config).unwrap();
    tokio::spawn(driver);
    wait_for_link();
    stack
}

pub(super) fn with_address() -> Ipv6Config {
    Ipv6Config { addresses: vec![(FATA6, 64)], is_autoconfigured: false, ..Ipv6Config::default() }
}

#[test]
fn tcp_in_both_roles() {
    with_linux("ipv6::tcp_in_both_roles", || async {
        give(LINUX6, 64, INTERFACE);
        let stack = fata(with_address());
        assert_eq!(stack.ready().await.unwrap(), IpAddr::V6(FATA6));
        let bytes = pattern(10 << 20);
        // Linux calls.
        let listener = stack.tcp_listen(80).await.unwrap();
        let (server, client) = tokio::join!(listener.accept(), TcpStream::connect(at(FATA6, 80)));
        let (server, peer) = server.unwrap();
        assert_eq!(peer.ip(), IpAddr::V6(LINUX6));
        echo_through(server, client.unwrap(), &bytes).await;
        // Fata calls.
        let listener = TcpListener::bind(at(LINUX6, 80)).await.unwrap();
        let (client, server) = tokio::join!(stack.tcp_connect(at(LINUX6, 80)), listener.accept());
        echo_through(client.unwrap(), server.unwrap().0, &bytes).await;
        drop(listener);
        let error = stack.tcp_connect(at(LINUX6, 80)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        // Nobody is at that address, and nowhere is that network.
        let error = stack.tcp_connect(at(FAR, 80)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{error}");
        // Names each other stayed the business of a few questions.
        assert!(stack.counters().ndp_solicitations_sent < 20);
    });
}

/// Sends `bytes` from one to the other and back.
async fn echo_through(fata: impl AsyncReadExt + AsyncWriteExt, linux: TcpStream, bytes: &[u8]) {
    let (mut fata_reads, mut fata_writes) = tokio::io::split(fata);
    let (mut linux_reads, mut linux_writes) = linux.into_split();
    let (mut to_fata, mut to_linux) = (Vec::new(), Vec::new());
    tokio::join!(
        async {
            fata_writes.write_all(bytes).await.unwrap();
            fata_writes.shutdown().await.unwrap();
        },
        async {
            linux_writes.write_all(bytes).await.unwrap();
            linux_writes.shutdown().await.unwrap();
        },
        async { fata_reads.read_to_end(&mut to_fata).await.unwrap() },
        async { linux_reads.read_to_end(&mut to_linux).await.unwrap() },
    );
    assert!(to_fata == bytes && to_linux == bytes);
}

#[test]
fn datagrams_and_pings_whole_and_in_fragments() {
    with_linux("ipv6::datagrams_and_pings_whole_and_in_fragments", || async {
        give(LINUX6, 64, INTERFACE);
        let stack = fata(with_address());
        let server = stack.udp_bind(7).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            loop {
                let (len, peer) = server.recv_from(&mut buffer).await.unwrap();
                server.send_to(&buffer[..len], peer).await.unwrap();
            }
        });
        stack.ready().await.unwrap();
        let client = UdpSocket::bind(at(LINUX6, 0)).await.unwrap();
        for len in [0, 1, 1452, 1453, 2000, 9000, 65_507] {
            let sent = pattern(len);
            client.send_to(&sent, at(FATA6, 7)).await.unwrap();
            let mut buffer = vec![0; 65_536];
            let (received, source) = client.recv_from(&mut buffer).await.unwrap();
            assert_eq!((received, source), (len, at(FATA6, 7)));
            assert!(buffer[..len] == sent);
        }
        for size in ["56", "2000", "4000"] {
            let words = ["-6", "-q", "-c", "3", "-i", "0.05", "-W", "5", "-s", size, "2001:db8::2"];
            linux("ping", &words).await;
        }
        // The link-local address answers too.
        let (local, _) = stack.ipv6_addresses()[0];
        assert!(local.is_unicast_link_local());
        let scoped = format!("{local}%{INTERFACE}");
        linux("ping", &["-6", "-q", "-c", "1", "-W", "5", &scoped]).await;
        let all = format!("ff02::1%{INTERFACE}");
        linux("ping", &["-6", "-q", "-c", "1", "-W", "5", &all]).await;
        // Nobody is at the port.
        let client = UdpSocket::bind(at(LINUX6, 0)).await.unwrap();
        client.connect(at(FATA6, 9)).await.unwrap();
        client.send(b"anybody?").await.unwrap();
        let error = client.recv(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(stack.counters().fragments_sent > 0);
    });
}

#[test]
fn both_families_on_one_listener() {
    with_linux("ipv6::both_families_on_one_listener", || async {
        give(LINUX6, 64, INTERFACE);
        let tap = Tap::open(INTERFACE).unwrap();
        let address = AddressConfig::Static {
            address: super::FATA,
            prefix_len: 24,
            gateway: Some(LINUX),
            dns: Vec::new(),
        };
        let config = Config { address, ipv6: with_address(), ..Config::new([7; 32]) };
        let (stack, driver) = Stack::over_nic(Box::new(tap), config).unwrap();
        tokio::spawn(driver);
        wait_for_link();
        let listener = stack.tcp_listen(80).await.unwrap();
        // What is asked for before there is an address waits for it.
        let server = TcpListener::bind(at(LINUX6, 81)).await.unwrap();
        let (client, accepted) = tokio::join!(stack.tcp_connect(at(LINUX6, 81)), server.accept());
        assert_eq!(client.unwrap().local_addr().unwrap().ip(), IpAddr::V6(FATA6));
        accepted.unwrap();
        for remote in [SocketAddr::from((super::FATA, 80)), at(FATA6, 80)] {
            let (server, client) = tokio::join!(listener.accept(), TcpStream::connect(remote));
            let (mut server, peer) = server.unwrap();
            assert_eq!(peer.is_ipv6(), remote.is_ipv6());
            client.unwrap().write_all(b"x").await.unwrap();
            server.read_exact(&mut [0]).await.unwrap();
        }
    });
}

/// TAHI 3.1: the address is Linux's already.
#[test]
fn an_address_that_linux_has_is_not_used() {
    with_linux("ipv6::an_address_that_linux_has_is_not_used", || async {
        give(FATA6, 64, INTERFACE);
        let stack = fata(with_address());
        let patience = Duration::from_secs(10);
        let counted = async {
            while stack.counters().ndp_duplicates == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(patience, counted).await.expect("Linux defends its address");
        stack.ready().await.unwrap();
        assert!(stack.ipv6_addresses().iter().all(|(address, _)| *address != FATA6));
    });
}

#[test]
fn addresses_routers_and_name_servers_from_radvd() {
    with_linux("ipv6::addresses_routers_and_name_servers_from_radvd", || async {
        // Of the prefix that is advertised, so that Linux knows the way back.
        give(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1), 64, INTERFACE);
        give(FAR, 128, "lo");
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("radvd.conf");
        let pid = folder.path().join("radvd.pid");
        let text = format!(
            "interface {INTERFACE} {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;
               AdvLinkMTU 1400; AdvCurHopLimit 77;
               prefix 2001:db8:1::/64 {{ AdvValidLifetime 3600; AdvPreferredLifetime 1800; }};
               RDNSS 2001:db8::53 {{ }}; }};"
        );
        std::fs::write(&config, text).unwrap();
        let secret = Some([3; 32]);
        let stack = fata(Ipv6Config { stable_secret: secret, ..Ipv6Config::default() });
        wait_for_addresses();
        let radvd = Command::new("radvd")
            .args(["--nodaemon", "--logmethod", "stderr", "--config"])
            .arg(&config)
            .arg("--pidfile")
            .arg(&pid)
            .stderr(Stdio::null())
            .spawn();
        let Ok(radvd) = radvd else {
            std::io::Write::write_all(&mut std::io::stderr(), b"SKIPPED: needs radvd\n").unwrap();
            return;
        };
        let _radvd = Killed(radvd);
        let address = stack.ready().await.unwrap();
        let IpAddr::V6(address) = address else { panic!("{address}") };
        assert_eq!(address.segments()[..4], [0x2001, 0xdb8, 1, 0], "{address}");
        assert_eq!(stack.dns(), ["2001:db8::53".parse::<IpAddr>().unwrap()]);
        // Through the router to an address that is on no link.
        let listener = TcpListener::bind(at(FAR, 80)).await.unwrap();
        let (client, server) = tokio::join!(stack.tcp_connect(at(FAR, 80)), listener.accept());
        let (server, peer) = server.unwrap();
        assert_eq!(peer.ip(), IpAddr::V6(address));
        let bytes = pattern(1 << 20);
        echo_through(client.unwrap(), server, &bytes).await;
        let counters = stack.counters();
        assert_eq!((counters.ipv6_routers, counters.ipv6_prefixes), (1, 1));
        assert_eq!(counters.dropped_ndp_invalid, 0);
        assert!(counters.mld_reports_sent >= 2);
    });
}
