//! Servers of names and of addresses, and any client.

use crate::Input;
use core::time::Duration;
use fata_names::dhcp::{Config, Pool};
use fata_names::dns::{Limits, Transport, Zone};
use fata_names::{dhcp, dns};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

const ZONE: &str = "$ORIGIN example.test.\n$TTL 3600\n\
    @ IN SOA ns1 admin 7 7200 900 1209600 300\n  IN NS ns1\n  IN MX 10 mail\n\
    ns1 IN A 192.0.2.53\nmail IN A 192.0.2.25\nwww IN A 192.0.2.80\nwww IN TXT \"hello\"\n\
    alias IN CNAME www\nloop1 IN CNAME loop2\nloop2 IN CNAME loop1\n\
    *.wild IN A 192.0.2.99\na.deep.empty IN A 192.0.2.7\nchild IN NS ns.child\n\
    ns.child IN A 192.0.2.100\n_http._tcp IN SRV 0 5 80 www\n";

const LABELS: [&str; 14] = [
    "example", "test", "www", "alias", "loop1", "wild", "deep", "empty", "child", "ns", "*",
    "_tcp", "WwW", "nobody",
];

/// A DNS server. Whatever is asked: an answer is one, to this question, and no longer than may be;
/// and it is never itself answered.
pub fn dns(input: &mut Input<'_>) {
    let zone = Zone::parse(ZONE, None).expect("a zone");
    let limits = Limits::default();
    let mut server = dns::Server::new(zone, limits, [1, 2]);
    let mut now = Duration::ZERO;
    while !input.is_empty() {
        let mut request = if input.below(4) == 0 { input.blob().to_vec() } else { query(input) };
        for _ in 0..input.below(3) {
            let at = usize::from(input.u8()) % request.len().max(1);
            if let Some(byte) = request.get_mut(at) {
                *byte = input.u8();
            }
        }
        let source = IpAddr::from([198, 51, 100 + input.u8() % 3, 9]);
        let (transport, most) = match input.below(3) {
            0 => (Transport::Tcp, 65_535),
            _ => (Transport::Udp, usize::from(limits.udp_payload_bytes)),
        };
        now += Duration::from_millis(u64::from(input.u8()));
        if let Some(answer) = server.respond(now, source, transport, &request) {
            assert!((12..=most).contains(&answer.len()), "{} bytes", answer.len());
            assert_eq!(answer[..2], request[..2], "to another question");
            assert!(answer[2] & 0x80 != 0 && request[2] & 0x80 == 0);
            assert_eq!(server.respond(now, source, Transport::Tcp, &answer), None, "for ever");
        }
    }
}

/// A question that is well formed.
fn query(input: &mut Input<'_>) -> Vec<u8> {
    let has_edns = input.flag();
    let mut bytes = vec![0x12, input.u8(), 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(has_edns)];
    for _ in 0..input.below(6) {
        let label = match input.below(LABELS.len() + 1) {
            at if at < LABELS.len() => LABELS[at].as_bytes(),
            _ => {
                let blob = input.blob();
                &blob[..blob.len().min(63)]
            }
        };
        if !label.is_empty() {
            bytes.push(label.len() as u8);
            bytes.extend(label);
        }
    }
    if input.below(4) != 3 {
        bytes.extend(b"\x07example\x04test");
    }
    let kind = [1, 2, 5, 6, 12, 15, 16, 28, 33, 251, 252, 255, 41, u16::from(input.u8())];
    bytes.push(0);
    bytes.extend(kind[input.below(kind.len())].to_be_bytes());
    bytes.extend([0, if input.below(8) == 7 { input.u8() } else { 1 }]);
    if has_edns {
        bytes.extend([0, 0, 41]);
        bytes.extend(input.u16().to_be_bytes());
        bytes.extend([0, input.u8() & 1, 0, 0]);
        let option = input.blob();
        bytes.extend((option.len() as u16).to_be_bytes());
        bytes.extend(option);
    }
    bytes
}

/// A DHCP server. Whatever clients say: no address is leased twice, none that is not the pool's, and
/// what is remembered is not more than the pool has.
pub fn dhcp(input: &mut Input<'_>) {
    let first = Ipv4Addr::new(10, 0, 0, 10);
    let last = Ipv4Addr::new(10, 0, 0, 10 + input.below(8) as u8);
    let router = Some(Ipv4Addr::new(10, 0, 0, 254));
    let pool = Pool { first, last, prefix_len: 24, router };
    let me = Ipv4Addr::new(10, 0, 0, 1);
    let mut config = Config::new(me, pool);
    config.lease = Duration::from_secs(60);
    config.dns = vec![me];
    config.domain = Some("example.test".into());
    let mut server = dhcp::Server::new(config, [1, 2]).expect("a configuration that can be");
    let is_in_pool = |address: Ipv4Addr| (first..=last).contains(&address);
    let addresses = usize::from(last.octets()[3] - first.octets()[3]) + 1;
    let mut now = Duration::ZERO;
    while !input.is_empty() {
        let mut message = request(input, me);
        for _ in 0..input.below(3) {
            let at = usize::from(input.u16()) % message.len();
            message[at] = input.u8();
        }
        let cut = input.below(4) * input.below(100);
        message.truncate(message.len().saturating_sub(cut));
        now += Duration::from_millis(u64::from(input.u16()));
        if let Some(reply) = server.handle(now, &message) {
            let bytes = &reply.bytes;
            assert!(bytes.len() >= 240 && bytes[0] == 2, "no reply");
            assert_eq!((&bytes[4..8], &bytes[28..34]), (&message[4..8], &message[28..34]));
            let yours = Ipv4Addr::from([bytes[16], bytes[17], bytes[18], bytes[19]]);
            assert!(yours.is_unspecified() || is_in_pool(yours), "{yours} is not the pool's");
        }
        let leases: Vec<_> = server.leases(now).collect();
        let leased: BTreeSet<_> = leases.iter().map(|lease| lease.address).collect();
        let clients: BTreeSet<_> = leases.iter().map(|lease| &lease.client).collect();
        assert!(leases.len() <= addresses && leased.len() == leases.len());
        assert_eq!(clients.len(), leases.len(), "two leases of one client");
        assert!(leased.iter().all(|address| is_in_pool(*address)));
    }
}

/// A client's message.
fn request(input: &mut Input<'_>, server: Ipv4Addr) -> Vec<u8> {
    let client = input.u8() % 12;
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[7] = client;
    let which = input.u8();
    let address = Ipv4Addr::new(10, 0, input.u8() & 1, 9 + input.u8() % 10).octets();
    if which & 1 != 0 {
        bytes[12..16].copy_from_slice(&address);
    }
    if which & 2 != 0 {
        bytes[24..28].copy_from_slice(&[10, 0, input.u8() & 1, 254]);
    }
    bytes[10] = which & 0x80;
    bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, client]);
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, 1 + input.u8() % 8]);
    if which & 4 != 0 {
        bytes.extend([50, 4]);
        bytes.extend(address);
    }
    if which & 8 != 0 {
        bytes.extend([54, 4]);
        bytes.extend(server.octets());
    }
    if which & 16 != 0 {
        let name = input.blob();
        bytes.extend([61, name.len() as u8]);
        bytes.extend(name);
    }
    if which & 32 != 0 {
        bytes.extend(input.blob());
    }
    bytes.push(255);
    bytes
}
