//! Servers of names and of addresses, and any client.

use crate::Input;
use core::time::Duration;
use fata_names::dhcp::{Config, Pool};
use fata_names::dns::{
    Answer, Family, HostName, Limits, Query, Transport, Unusable, Zone, ZoneError,
};
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

const HOST: &str = "www.example.test";
const QUERY_ID: u16 = 0x1234;

fn query_of(family: Family) -> Query {
    Query::new(&HostName::parse(HOST).expect("a name"), family, QUERY_ID)
}

/// A resolver's reader of answers. Whatever comes back: what is believed is of the family that was
/// asked for, bounded, and believed no longer than may be; what is cut off is no answer.
pub fn resolver(input: &mut Input<'_>) {
    let how = input.u8();
    let family = if how & 1 == 0 { Family::V4 } else { Family::V6 };
    let query = query_of(family);
    let mut message = Vec::new();
    if how & 2 == 0 {
        // The right question, and then anything.
        message = query.to_bytes();
        message.truncate(12 + HOST.len() + 2 + 4);
        message[2] = 0x80 | input.u8();
        message[3] = input.u8();
        for count in message[6..12].chunks_mut(2) {
            count.copy_from_slice(&u16::from(input.u8() % 16).to_be_bytes());
        }
    }
    message.extend(input.bytes(usize::MAX));
    let is_cut = message.get(2).is_some_and(|flags| flags & 2 != 0);
    match query.read(&message) {
        Ok(learned) => {
            assert!(!is_cut);
            let longest = match &learned.answer {
                Answer::Addresses(addresses) => {
                    assert!((1..=32).contains(&addresses.len()));
                    let unique: BTreeSet<_> = addresses.iter().collect();
                    assert_eq!(unique.len(), addresses.len());
                    assert!(addresses.iter().all(|it| it.is_ipv4() == (family == Family::V4)));
                    24 * 3600
                }
                Answer::Alias(name) => {
                    assert_ne!(name.as_str(), HOST);
                    24 * 3600
                }
                Answer::NoAddress | Answer::NoName => 3600,
            };
            assert!(learned.ttl <= Duration::from_secs(longest), "{learned:?}");
        }
        Err(Unusable::Truncated) => assert!(is_cut),
        Err(Unusable::Failed(code)) => assert!(code < 1 << 12 && code != 0 && code != 3),
        Err(Unusable::Unrelated) => {}
    }
}

/// What our server answers, and a chain of aliases.
pub fn resolver_seeds() -> Vec<(String, Vec<u8>)> {
    let zone = "$ORIGIN example.test.\n$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n";
    let zones = [
        ("addresses", "www A 192.0.2.1\nwww A 192.0.2.2\nwww AAAA 2001:db8::1\n"),
        ("aliases", "www CNAME a\na CNAME b\nb A 192.0.2.3\nb AAAA 2001:db8::3\n"),
        ("alias_elsewhere", "www CNAME a.other.test.\n"),
        ("no_address", "www TXT x\n"),
        ("no_name", ""),
    ];
    let mut seeds = Vec::new();
    for (name, more) in zones {
        for (family, how) in [(Family::V4, 2), (Family::V6, 3)] {
            let zone = Zone::parse(&format!("{zone}{more}"), None).expect("a zone");
            let mut server = dns::Server::new(zone, Limits::default(), [1, 2]);
            let question = query_of(family).to_bytes();
            let source = IpAddr::from([198, 51, 100, 9]);
            let answer = server.respond(Duration::ZERO, source, Transport::Tcp, &question);
            let script = [vec![how], answer.expect("an answer")].concat();
            seeds.push((format!("{name}_{how}"), script));
        }
    }
    seeds
}

/// Words of zones.
const WORDS: [&str; 48] = [
    " ",
    "\t",
    "\n",
    "\n",
    "(",
    ")",
    ";",
    "\"",
    "\\",
    "\\#",
    "@",
    ".",
    "*",
    "$ORIGIN",
    "$TTL",
    "$INCLUDE",
    "IN",
    "CH",
    "A",
    "AAAA",
    "CAA",
    "CERT",
    "CNAME",
    "DNAME",
    "DS",
    "HINFO",
    "HTTPS",
    "MX",
    "NAPTR",
    "NS",
    "OPENPGPKEY",
    "PTR",
    "SMIMEA",
    "SOA",
    "SRV",
    "SSHFP",
    "SVCB",
    "TLSA",
    "TXT",
    "TYPE65280",
    "TYPE1",
    "CSYNC",
    "192.0.2.1",
    "2001:db8::1",
    "alpn=h2",
    "1h",
    "\\200",
    "4294967296",
];

/// A zone's text. It is a zone, which answers, or an error in one of its lines.
pub fn zone(input: &mut Input<'_>) {
    let mut text = String::new();
    if input.flag() {
        text.push_str("$ORIGIN example.test.\n$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\n");
        while !input.is_empty() {
            match input.below(WORDS.len() + 8) {
                at if at < WORDS.len() => text.push_str(WORDS[at]),
                _ => text.push_str(&String::from_utf8_lossy(input.blob())),
            }
            if input.flag() {
                text.push(' ');
            }
        }
    } else {
        text.push_str(&String::from_utf8_lossy(input.bytes(usize::MAX)));
    }
    match Zone::parse(&text, None) {
        Ok(zone) => {
            assert!(zone.record_count() >= 2);
            let mut server = dns::Server::new(zone, Limits::default(), [1, 2]);
            for kind in [1_u16, 2, 6, 16, 28, 65_280] {
                let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                question.extend(b"\x07example\x04test\0");
                question.extend(kind.to_be_bytes());
                question.extend([0, 1]);
                let source = IpAddr::from([198, 51, 100, 9]);
                let answer = server.respond(Duration::ZERO, source, Transport::Tcp, &question);
                assert!(answer.is_some(), "what was read cannot be sent");
            }
        }
        Err(
            ZoneError::Syntax { line, .. }
            | ZoneError::Unsupported { line, .. }
            | ZoneError::Include { line }
            | ZoneError::Outside { line, .. }
            | ZoneError::Class { line, .. }
            | ZoneError::AliasWithRecords { line, .. },
        ) => assert!((1..=text.split('\n').count()).contains(&line), "line {line}"),
        Err(_) => {}
    }
}

/// The zone that the server's target has, and one with more.
pub fn zone_seeds() -> Vec<(String, Vec<u8>)> {
    let rich = "$ORIGIN example.test.\n$TTL 1h\n@ SOA ns h ( 1 2 ; comment\n 3 4 5 )\n@ NS ns\n\
                x 1D IN TXT ( \"a\" \"b;c\" )\nz CAA 0 issue \"le\"\nt TYPE65280 \\# 2 ff00\n\
                h HTTPS 1 . alpn=\"h2,h3\" ipv4hint=192.0.2.4\nk SSHFP 1 1 0102\n\
                l TLSA 3 1 1 00\nn NAPTR 1 1 \"u\" \"E\" \"!\" .\nd DS \\# 4 00010802\n\
                o OPENPGPKEY AA==\nc CERT 1 1 1 AA==\nq HINFO a b\n$ORIGIN sub\ns CSYNC 1 1 A\n";
    let seed = |name: &str, text: &str| (name.to_string(), [&[0], text.as_bytes()].concat());
    vec![seed("small", ZONE), seed("rich", rich)]
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
