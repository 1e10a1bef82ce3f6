//! What a full pool costs. In a process of its own, whose memory is counted.

use core::net::Ipv4Addr;
use core::time::Duration;
use fata_names::dhcp::{Config, Pool, Server};

const CLIENTS: u32 = 16_384;

/// What the documentation of the pools' ceiling says, in bytes.
const BYTES_PER_CLIENT: u64 = 300;

/// Memory that this process has touched, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// A message of the kind (RFC 2132 §9.6) of a client with an identifier of `id_len` bytes, in pieces
/// (RFC 3396).
fn message(kind: u8, number: u32, id_len: usize, address: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[30..34].copy_from_slice(&number.to_be_bytes());
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, kind]);
    if let Some(address) = address {
        bytes.extend([50, 4]);
        bytes.extend(address);
        bytes.extend([54, 4, 10, 0, 0, 1]);
    }
    let mut id = number.to_be_bytes().to_vec();
    id.resize(id_len, 7);
    for piece in id.chunks(255) {
        bytes.extend([61, piece.len() as u8]);
        bytes.extend(piece);
    }
    bytes.push(255);
    bytes
}

#[test]
fn a_full_pool_of_clients_with_the_longest_identifiers_costs_what_is_said() {
    let pool = Pool {
        first: Ipv4Addr::new(10, 0, 1, 0),
        last: Ipv4Addr::new(10, 0, 64, 255),
        prefix_len: 16,
        router: None,
    };
    let config =
        Config { strangers_per_second: 1000, ..Config::new(Ipv4Addr::new(10, 0, 0, 1), pool) };
    let mut server = Server::new(config, [1, 2]).unwrap();
    let mut now = Duration::ZERO;
    let before = resident();
    for number in 0..CLIENTS {
        now += Duration::from_millis(3);
        // A kilobyte is not kept.
        assert!(server.handle(now, &message(1, number, 1000, None)).is_none());
        let offer = server.handle(now, &message(1, number, 135, None)).expect("an offer");
        let address: [u8; 4] = offer.bytes[16..20].try_into().unwrap();
        // Twice: what is renewed is still kept once.
        for _ in 0..2 {
            server.handle(now, &message(3, number, 135, Some(address))).expect("an answer");
        }
    }
    let cost = resident().saturating_sub(before) / u64::from(CLIENTS);
    assert_eq!(server.leases(now).count(), CLIENTS as usize);
    assert_eq!(server.counters().dropped_client_id, u64::from(CLIENTS));
    assert!((100..=BYTES_PER_CLIENT).contains(&cost), "{cost} bytes for each client");
}
