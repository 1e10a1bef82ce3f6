//! Much data: a GiB each way at once, over one connection, compared by its hash.
//!
//! Linux's end reads and writes in threads of its own, as a program beside us would.

use super::ipv6::{LINUX6, give, with_address};
use super::{FATA, INTERFACE, LINUX, fata, wait_for_link, with_linux};
use fata_net::{AddressConfig, Config, Stack};
use fata_unix::Tap;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BYTES: usize = 1 << 30;
const CHUNK: usize = 256 << 10;
const BLOCK: usize = 4096;

/// What one end sends: noise that is not the other's, and in front of each block its number.
struct Stream {
    chunk: Vec<u8>,
    block: u64,
}

impl Stream {
    fn of(end: u8) -> Stream {
        let noise = (0..CHUNK).map(|at| ((at * at / 7 + at) as u8).wrapping_mul(2 * end + 1));
        Stream { chunk: noise.collect(), block: 0 }
    }

    fn next(&mut self) -> &[u8] {
        for block in self.chunk.chunks_exact_mut(BLOCK) {
            block[..8].copy_from_slice(&self.block.to_be_bytes());
            self.block += 1;
        }
        &self.chunk
    }
}

type Hash = [u8; 32];

async fn send(mut to: impl AsyncWrite + Unpin) -> Hash {
    let (mut stream, mut hash) = (Stream::of(1), Sha256::new());
    for _ in 0..BYTES / CHUNK {
        let chunk = stream.next();
        hash.update(chunk);
        to.write_all(chunk).await.unwrap();
    }
    to.shutdown().await.unwrap();
    hash.finalize().into()
}

/// What was received until its end, and how many bytes that was.
async fn receive(mut from: impl AsyncRead + Unpin) -> (Hash, usize) {
    let (mut buffer, mut hash, mut total) = (vec![0; CHUNK], Sha256::new(), 0);
    loop {
        match from.read(&mut buffer).await.unwrap() {
            0 => return (hash.finalize().into(), total),
            len => {
                hash.update(&buffer[..len]);
                total += len;
            }
        }
    }
}

fn linux_sends(mut to: &std::net::TcpStream) -> Hash {
    let (mut stream, mut hash) = (Stream::of(2), Sha256::new());
    for _ in 0..BYTES / CHUNK {
        let chunk = stream.next();
        hash.update(chunk);
        to.write_all(chunk).unwrap();
    }
    to.shutdown(Shutdown::Write).unwrap();
    hash.finalize().into()
}

fn linux_receives(mut from: &std::net::TcpStream) -> (Hash, usize) {
    let (mut buffer, mut hash, mut total) = (vec![0; CHUNK], Sha256::new(), 0);
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => return (hash.finalize().into(), total),
            len => {
                hash.update(&buffer[..len]);
                total += len;
            }
        }
    }
}

async fn both_ways(fata: fata_net::TcpStream, linux: TcpStream) {
    let linux = linux.into_std().unwrap();
    linux.set_nonblocking(false).unwrap();
    let writes = linux.try_clone().unwrap();
    let linux_sent = tokio::task::spawn_blocking(move || linux_sends(&writes));
    let linux_received = tokio::task::spawn_blocking(move || linux_receives(&linux));
    let (fata_reads, fata_writes) = tokio::io::split(fata);
    let (fata_sent, fata_received, linux_sent, linux_received) =
        tokio::join!(send(fata_writes), receive(fata_reads), linux_sent, linux_received);
    assert_eq!(linux_received.unwrap(), (fata_sent, BYTES), "what Fata sent arrives whole");
    assert_eq!(fata_received, (linux_sent.unwrap(), BYTES), "what Linux sent arrives whole");
    assert_ne!(fata_sent, fata_received.0, "they said different things");
}

#[test]
fn a_gibibyte_each_way_over_ipv4_when_linux_calls() {
    with_linux("transfers::a_gibibyte_each_way_over_ipv4_when_linux_calls", || async {
        let stack = fata();
        let listener = stack.tcp_listen(80).await.unwrap();
        let remote = SocketAddr::from((FATA, 80));
        let (server, client) = tokio::join!(listener.accept(), TcpStream::connect(remote));
        both_ways(server.unwrap().0, client.unwrap()).await;
    });
}

#[test]
fn a_gibibyte_each_way_over_ipv6_when_fata_calls() {
    with_linux("transfers::a_gibibyte_each_way_over_ipv6_when_fata_calls", || async {
        give(LINUX6, 64, INTERFACE);
        let stack = dual_stack(Config::new([7; 32]));
        let remote = SocketAddr::from((LINUX6, 80));
        let listener = TcpListener::bind(remote).await.unwrap();
        let (client, server) = tokio::join!(stack.tcp_connect(remote), listener.accept());
        both_ways(client.unwrap(), server.unwrap().0).await;
    });
}

/// A stack with an address of each family.
pub(super) fn dual_stack(config: Config) -> Stack {
    let address =
        AddressConfig::Static { address: FATA, prefix_len: 24, gateway: Some(LINUX), dns: vec![] };
    let config = Config { address, ipv6: with_address(), ..config };
    let tap = Tap::open(INTERFACE).unwrap();
    let (stack, driver) = Stack::over_nic(Box::new(tap), config).unwrap();
    tokio::spawn(driver);
    wait_for_link();
    stack
}
