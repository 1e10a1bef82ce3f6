//! The server: a zone with one of everything, asked everything.

use super::*;
use core::net::IpAddr;
use core::time::Duration;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use proptest::prelude::*;
use std::sync::{Mutex, PoisonError};

const ZONE: &str = r#"
$ORIGIN example.test.
$TTL 3600
@       IN SOA ns1 admin 7 7200 900 1209600 300
        IN NS  ns1
        IN NS  ns2.elsewhere.invalid.
        IN MX  10 mail
ns1     IN A   192.0.2.53
ns1     IN AAAA 2001:db8::53
mail    IN A   192.0.2.25
www     IN A   192.0.2.80
www     IN A   192.0.2.81
www     IN TXT "hello"
alias   IN CNAME www
alias2  IN CNAME alias
outside IN CNAME www.elsewhere.invalid.
broken  IN CNAME nobody
loop1   IN CNAME loop2
loop2   IN CNAME loop1
*.wild  IN A   192.0.2.99
*.wild  IN MX  5 mail
real.wild IN TXT "not the wildcard's"
a.deep.empty IN A 192.0.2.7
child   IN NS  ns.child
child   IN NS  ns1
ns.child IN A  192.0.2.100
_http._tcp IN SRV 0 5 80 www
"#;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 9));

fn zone() -> Zone {
    Zone::parse(ZONE, None).unwrap()
}

fn server() -> Server {
    Server::new(zone(), Limits::default(), [1, 2])
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn question(text: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

fn send(server: &mut Server, transport: Transport, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    let response = server.respond(Duration::ZERO, CLIENT, transport, &bytes).unwrap();
    let response = Message::from_vec(&response).unwrap();
    assert_eq!(response.metadata.id, message.metadata.id);
    assert_eq!(response.metadata.message_type, MessageType::Response);
    assert!(response.metadata.recursion_desired && !response.metadata.recursion_available);
    response
}

/// Asks over UDP, with EDNS.
fn ask(text: &str, kind: RecordType) -> Message {
    send(&mut server(), Transport::Udp, &with_edns(question(text, kind), 1232))
}

fn text_of(records: &[hickory_proto::rr::Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| format!("{} {} {}", record.name, record.record_type(), record.data))
        .collect()
}

#[track_caller]
fn assert_no(response: &Message, code: ResponseCode) {
    assert_eq!(response.metadata.response_code, code);
    assert!(response.metadata.authoritative);
    let [soa] = &response.authorities[..] else { panic!("{:?}", response.authorities) };
    assert_eq!(soa.record_type(), RecordType::SOA);
    assert_eq!(soa.ttl, 300, "RFC 2308 §3: the lesser of the SOA's TTL and its minimum");
}

#[test]
fn a_name_that_exists_is_answered_whatever_its_case() {
    let response = ask("WWW.eXample.test.", RecordType::A);
    assert_eq!(response.metadata.response_code, ResponseCode::NoError);
    assert!(response.metadata.authoritative && !response.metadata.truncation);
    let mut answers = text_of(&response.answers);
    answers.sort();
    assert_eq!(answers, ["WWW.eXample.test. A 192.0.2.80", "WWW.eXample.test. A 192.0.2.81"]);
    assert_eq!(response.queries[0].name.to_ascii(), "WWW.eXample.test.", "the case comes back");
}

#[test]
fn the_zones_own_records_come_with_the_addresses_they_need() {
    let response = ask("example.test.", RecordType::NS);
    assert_eq!(response.answers.len(), 2);
    let additionals = text_of(&response.additionals);
    assert_eq!(
        additionals,
        ["ns1.example.test. A 192.0.2.53", "ns1.example.test. AAAA 2001:db8::53"]
    );
    let response = ask("example.test.", RecordType::MX);
    assert_eq!(text_of(&response.additionals), ["mail.example.test. A 192.0.2.25"]);
    let response = ask("_http._tcp.example.test.", RecordType::SRV);
    assert_eq!(response.additionals.len(), 2);
    let response = ask("example.test.", RecordType::SOA);
    assert_eq!(response.answers.len(), 1);
}

#[test]
fn a_name_without_the_type_and_an_empty_name_have_no_data() {
    assert_no(&ask("www.example.test.", RecordType::AAAA), ResponseCode::NoError);
    // Nothing is there but names below it (RFC 4592 §2.2.2).
    assert_no(&ask("empty.example.test.", RecordType::A), ResponseCode::NoError);
    assert_no(&ask("deep.empty.example.test.", RecordType::A), ResponseCode::NoError);
}

#[test]
fn a_name_that_does_not_exist_is_nx_domain() {
    for text in ["nobody.example.test.", "x.www.example.test.", "b.deep.empty.example.test."] {
        assert_no(&ask(text, RecordType::A), ResponseCode::NXDomain);
    }
}

#[test]
fn aliases_are_followed_to_their_end() {
    let response = ask("alias2.example.test.", RecordType::TXT);
    assert_eq!(
        text_of(&response.answers),
        [
            "alias2.example.test. CNAME alias.example.test.",
            "alias.example.test. CNAME www.example.test.",
            "www.example.test. TXT hello",
        ]
    );
    // Asked for itself, an alias is a record like others.
    assert_eq!(ask("alias2.example.test.", RecordType::CNAME).answers.len(), 1);
    // Out of the zone: the alias alone.
    let response = ask("outside.example.test.", RecordType::A);
    assert_eq!(response.metadata.response_code, ResponseCode::NoError);
    assert_eq!((response.answers.len(), response.authorities.len()), (1, 0));
    // To a name that does not exist (RFC 6604 §3), and to one without the type.
    let response = ask("broken.example.test.", RecordType::A);
    assert_eq!(response.answers.len(), 1);
    assert_no(&response, ResponseCode::NXDomain);
    let response = ask("alias.example.test.", RecordType::AAAA);
    assert_eq!(response.answers.len(), 1);
    assert_no(&response, ResponseCode::NoError);
}

#[test]
fn a_loop_of_aliases_ends() {
    let response = ask("loop1.example.test.", RecordType::A);
    assert_eq!(response.answers.len(), 2, "each once");
    let mut text = ZONE.to_string();
    for link in 0..50 {
        text += &format!("link{link} IN CNAME link{}\n", link + 1);
    }
    let long = Server::new(Zone::parse(&text, None).unwrap(), Limits::default(), [1, 2]);
    let mut long = long;
    let response = send(&mut long, Transport::Tcp, &question("link0.example.test.", RecordType::A));
    assert_eq!(response.answers.len(), CNAME_CHAIN_MAX);
}

#[test]
fn a_wildcard_stands_for_names_that_do_not_exist_and_for_no_other() {
    let response = ask("any.thing.wild.example.test.", RecordType::A);
    assert_eq!(text_of(&response.answers), ["any.thing.wild.example.test. A 192.0.2.99"]);
    // RFC 4592 §2.2.1: what exists hides it, with all below.
    assert_no(&ask("real.wild.example.test.", RecordType::A), ResponseCode::NoError);
    assert_no(&ask("x.real.wild.example.test.", RecordType::A), ResponseCode::NXDomain);
    assert_no(&ask("any.wild.example.test.", RecordType::TXT), ResponseCode::NoError);
    assert_no(&ask("wild.example.test.", RecordType::A), ResponseCode::NoError);
    // Asked for literally.
    assert_eq!(ask("*.wild.example.test.", RecordType::A).answers.len(), 1);
}

#[test]
fn below_a_cut_the_asker_is_referred_with_glue() {
    for text in ["child.example.test.", "www.child.example.test.", "ns.child.example.test."] {
        let response = ask(text, RecordType::A);
        assert_eq!(response.metadata.response_code, ResponseCode::NoError);
        assert!(!response.metadata.authoritative, "{text}");
        assert_eq!((response.answers.len(), response.authorities.len()), (0, 2), "{text}");
        assert!(response.authorities.iter().all(|record| record.record_type() == RecordType::NS));
        let glue = text_of(&response.additionals);
        assert!(glue.contains(&"ns.child.example.test. A 192.0.2.100".to_string()), "{glue:?}");
        assert!(glue.contains(&"ns1.example.test. A 192.0.2.53".to_string()), "{glue:?}");
    }
    // What the parent itself says of the cut (RFC 4035 §3.1.4.1): it is not signed.
    assert_no(&ask("child.example.test.", RecordType::DS), ResponseCode::NoError);
}

#[test]
fn any_gets_a_small_answer() {
    let response = ask("www.example.test.", RecordType::ANY);
    let [record] = &response.answers[..] else { panic!("{:?}", response.answers) };
    assert!(matches!(&record.data, RData::HINFO(data) if *data.cpu == *b"RFC8482"));
    assert_no(&ask("nobody.example.test.", RecordType::ANY), ResponseCode::NXDomain);
}

#[test]
fn what_is_not_ours_is_refused() {
    let mut server = server();
    let mut refused = |message: &Message| {
        let response = send(&mut server, Transport::Tcp, message);
        assert_eq!(response.metadata.response_code, ResponseCode::Refused, "{message}");
        assert!(!response.metadata.authoritative && response.answers.is_empty());
    };
    refused(&question("www.elsewhere.invalid.", RecordType::A));
    refused(&question(".", RecordType::NS));
    refused(&question("test.", RecordType::NS));
    refused(&question("example.test.", RecordType::AXFR));
    refused(&question("example.test.", RecordType::IXFR));
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].query_class = DNSClass::CH;
    refused(&chaos);
    assert_eq!(server.counters().refused, 6);
}

#[test]
fn other_operations_are_not_implemented() {
    let mut server = server();
    for opcode in [OpCode::Status, OpCode::Notify, OpCode::Update, OpCode::from_u8(7)] {
        let mut message = question("example.test.", RecordType::SOA);
        message.metadata.op_code = opcode;
        let bytes = message.to_vec().unwrap();
        let response = server.respond(Duration::ZERO, CLIENT, Transport::Udp, &bytes).unwrap();
        assert_eq!(response[..2], bytes[..2]);
        assert_eq!(response[2] >> 3 & 0xf, u8::from(opcode));
        assert_eq!((response[2] >> 7, response[3] & 0xf), (1, 4));
    }
    assert_eq!(server.counters().not_implemented, 4);
}

#[test]
fn what_is_no_question_is_a_format_error_and_an_answer_is_not_answered() {
    let mut server = server();
    let good = question("www.example.test.", RecordType::A).to_vec().unwrap();
    let mut respond = |bytes: &[u8]| server.respond(Duration::ZERO, CLIENT, Transport::Udp, bytes);
    let is_format_error = |response: Option<Vec<u8>>| {
        response.is_some_and(|response| response.len() == 12 && response[3] & 0xf == 1)
    };
    // Cut anywhere after the header.
    for len in 12..good.len() {
        assert!(is_format_error(respond(&good[..len])), "{len}");
    }
    for len in 0..12 {
        assert_eq!(respond(&good[..len]), None, "{len}");
    }
    // No question, two, a record where none belongs.
    for (at, count) in [(5, 0), (5, 2), (7, 1), (9, 1), (11, 3)] {
        let mut bad = good.clone();
        bad[at] = count;
        assert!(is_format_error(respond(&bad)), "byte {at} is {count}");
    }
    // A name that points at itself.
    let mut bad = good[..12].to_vec();
    bad.extend([0xc0, 12, 0, 1, 0, 1]);
    assert!(is_format_error(respond(&bad)));
    let mut answer = good.clone();
    answer[2] |= 0x80;
    assert_eq!(respond(&answer), None);
    assert_eq!(server.counters().dropped, 13);
}

#[test]
fn edns_is_answered_with_edns_and_its_version_is_checked() {
    let mut server = server();
    let plain = send(&mut server, Transport::Udp, &question("www.example.test.", RecordType::A));
    assert!(plain.edns.is_none(), "RFC 6891 §6.1.1: who does not say EDNS hears none");
    let mut message = with_edns(question("www.example.test.", RecordType::A), 4096);
    let response = send(&mut server, Transport::Udp, &message);
    assert_eq!(response.edns.as_ref().unwrap().max_payload(), 1232);
    message.edns.as_mut().unwrap().set_version(1);
    let response = send(&mut server, Transport::Udp, &message);
    // 16 has two names (RFC 8945 §5.2).
    assert_eq!(u16::from(response.metadata.response_code), 16);
    assert!(response.answers.is_empty());
    assert_eq!(server.counters().bad_version, 1);
}

/// A server for a zone with a name that has `count` TXT records of 200 bytes.
fn with_many(count: usize) -> Server {
    let mut text = ZONE.to_string();
    for index in 0..count {
        text += &format!("many IN TXT \"{index:0>200}\"\n");
    }
    Server::new(Zone::parse(&text, None).unwrap(), Limits::default(), [1, 2])
}

#[test]
fn what_exceeds_the_clients_size_is_truncated_and_whole_over_tcp() {
    let mut server = with_many(5);
    let message = question("many.example.test.", RecordType::TXT);
    let response = send(&mut server, Transport::Udp, &message);
    assert!(response.metadata.truncation && response.answers.is_empty());
    let response = send(&mut server, Transport::Udp, &with_edns(message.clone(), 100));
    assert!(response.metadata.truncation, "less than 512 is 512");
    let response = send(&mut server, Transport::Udp, &with_edns(message.clone(), 1232));
    assert_eq!((response.metadata.truncation, response.answers.len()), (false, 5));
    let response = send(&mut server, Transport::Tcp, &message);
    assert_eq!((response.metadata.truncation, response.answers.len()), (false, 5));
    assert_eq!(server.counters().truncated, 2);
    // However much the client says that it takes.
    let mut server = with_many(20);
    let response = send(&mut server, Transport::Udp, &with_edns(message.clone(), u16::MAX));
    assert!(response.metadata.truncation);
    let response = send(&mut server, Transport::Tcp, &message);
    assert_eq!(response.answers.len(), 20);
}

#[test]
fn additional_addresses_go_before_an_answer_is_truncated() {
    let mut text = ZONE.to_string();
    for index in 0..6 {
        text += &format!("big IN MX 10 host{index}-{:a<50}\n", "");
        for address in 0..2 {
            text += &format!("host{index}-{:a<50} IN A 192.0.2.{address}\n", "");
        }
    }
    let mut server = Server::new(Zone::parse(&text, None).unwrap(), Limits::default(), [1, 2]);
    let message = question("big.example.test.", RecordType::MX);
    let response = send(&mut server, Transport::Udp, &message);
    assert!(!response.metadata.truncation);
    assert_eq!((response.answers.len(), response.additionals.len()), (6, 0));
    let response = send(&mut server, Transport::Tcp, &message);
    assert_eq!((response.answers.len(), response.additionals.len()), (6, 12));
}

#[test]
fn a_network_gets_its_rate_over_udp_and_the_rest_is_told_to_use_tcp() {
    let mut server = server();
    let bytes = question("www.example.test.", RecordType::A).to_vec().unwrap();
    let (mut whole, mut truncated, mut dropped) = (0, 0, 0);
    // A second's flood of 10,000 questions from all over one network.
    for index in 0..10_000_u32 {
        let now = Duration::from_micros(u64::from(index) * 100);
        let source = IpAddr::from([203, 0, 113, index as u8]);
        match server.respond(now, source, Transport::Udp, &bytes) {
            None => dropped += 1,
            Some(response) => match Message::from_vec(&response).unwrap().metadata.truncation {
                true => {
                    assert!(response.len() <= bytes.len(), "it is no amplifier");
                    truncated += 1;
                }
                false => whole += 1,
            },
        }
    }
    assert!((395..=405).contains(&whole), "a burst of 200, and 200 in the second: {whole}");
    assert!((4790..=4810).contains(&truncated) && (4790..=4810).contains(&dropped));
    assert_eq!(server.counters().rate_dropped, dropped);
    assert_eq!(server.counters().rate_truncated, truncated);
    // Somebody else's is untouched, and so is the same network's TCP.
    let now = Duration::from_secs(1);
    for (source, transport) in [("198.51.100.9", Transport::Udp), ("203.0.113.9", Transport::Tcp)] {
        let response = server.respond(now, source.parse().unwrap(), transport, &bytes).unwrap();
        assert_eq!(Message::from_vec(&response).unwrap().answers.len(), 2);
    }
    // A pause later the network is answered again.
    let now = Duration::from_secs(3);
    let response = server.respond(now, [203, 0, 113, 9].into(), Transport::Udp, &bytes).unwrap();
    assert_eq!(Message::from_vec(&response).unwrap().answers.len(), 2);
}

#[test]
fn a_text_that_is_no_zone_is_an_error_that_names_the_culprit() {
    let error = |text: &str| Zone::parse(text, None).unwrap_err().to_string();
    let head = "$ORIGIN z.test.\n$TTL 60\n@ IN SOA a b 1 2 3 4 5\n";
    assert!(error("$ORIGIN z.test.\n$TTL 5\nwww IN A 999.0.0.1\n").contains("line 3"));
    assert!(error("$ORIGIN z.test.\n$TTL 5\nwww IN A 192.0.2.1\n").contains("SOA"));
    assert!(error(head).contains("NS record"));
    let outside = format!("{head}@ IN NS a\nwww.other.test. IN A 192.0.2.1\n");
    assert!(error(&outside).contains("www.other.test."), "{}", error(&outside));
    let both = format!("{head}@ IN NS a\nx IN CNAME y\nx IN A 192.0.2.1\n");
    assert!(error(&both).contains("x.z.test."), "{}", error(&both));
    for include in ["$INCLUDE other.zone", "$include /etc/hostname"] {
        let text = format!("{head}@ IN NS a\n{include}\n");
        assert!(error(&text).contains("includes a file"), "{}", error(&text));
    }
    assert!(Zone::parse("", None).is_err());
}

/// The answer of a server that has all the time in the world.
fn respond_unhurriedly(transport: Transport, bytes: &[u8]) -> Option<Vec<u8>> {
    static SERVER: Mutex<Option<(Server, Duration)>> = Mutex::new(None);
    let mut shared = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    let (server, now) = shared.get_or_insert_with(|| (server(), Duration::ZERO));
    *now += Duration::from_secs(1);
    server.respond(*now, CLIENT, transport, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_get_a_decodable_answer_or_none(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        tcp in any::<bool>(),
    ) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        if let Some(response) = respond_unhurriedly(transport, &bytes) {
            let response = Message::from_vec(&response).unwrap();
            prop_assert_eq!(response.metadata.id.to_be_bytes(), [bytes[0], bytes[1]]);
            prop_assert_eq!(response.metadata.message_type, MessageType::Response);
        }
    }

    #[test]
    fn a_question_with_bytes_changed_gets_a_decodable_answer_within_its_size(
        labels in proptest::collection::vec("[a-z]{1,6}|\\*", 0..4),
        kind in any::<u8>(),
        payload in any::<u16>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let text = format!("{}{}example.test.", labels.join("."), if labels.is_empty() { "" } else { "." });
        let message = with_edns(question(&text, RecordType::from(u16::from(kind))), payload);
        let mut bytes = message.to_vec().unwrap();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(response) = respond_unhurriedly(Transport::Udp, &bytes) {
            prop_assert!(response.len() <= 1232);
            Message::from_vec(&response).unwrap();
        }
    }
}
