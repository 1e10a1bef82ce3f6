//! A stub resolver's half: names, what is believed of answers, what is remembered.

use super::*;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

fn host(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn query() -> Query {
    Query::new(&host("www.example.test"), Family::V4, 0x1234)
}

fn a(owner: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A(Ipv4Addr::new(192, 0, 2, last))))
}

fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let data = SOA::new(name("a.test."), name("b.test."), 1, 2, 3, 4, minimum);
    Record::from_rdata(name("example.test."), ttl, RData::SOA(data))
}

/// An answer to `query()` with these records.
fn response(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
    let mut message = Message::from_vec(&query().to_bytes()).unwrap();
    message.metadata.message_type = MessageType::Response;
    message.metadata.response_code = code;
    message.answers = answers;
    message.authorities = authorities;
    message
}

fn read(message: &Message) -> Result<Learned, Unusable> {
    query().read(&message.to_vec().unwrap())
}

fn addresses(last: &[u8]) -> Answer {
    Answer::Addresses(last.iter().map(|it| IpAddr::from([192, 0, 2, *it])).collect())
}

#[test]
fn a_hosts_name_has_letters_digits_hyphens_and_underscores() {
    assert_eq!(host("WWW.Example.Test.").as_str(), "www.example.test");
    assert_eq!(host("_http._tcp.a-1").as_str(), "_http._tcp.a-1");
    let label = "x".repeat(63);
    assert!(HostName::parse(&label).is_ok());
    assert_eq!(HostName::parse(&format!("{label}x")), Err(HostNameError::Label(64)));
    let long = [&label[..], &label, &label, &label[..61]].join(".");
    assert!(HostName::parse(&long).is_ok());
    assert_eq!(HostName::parse(&format!("x{long}")), Err(HostNameError::Length(254)));
    for (text, error) in [
        ("", HostNameError::Length(0)),
        (".", HostNameError::Length(0)),
        ("a..b", HostNameError::Label(0)),
        (".a", HostNameError::Label(0)),
        ("a b", HostNameError::Character(' ')),
        ("münchen.example", HostNameError::Character('ü')),
        ("a/b", HostNameError::Character('/')),
        ("a\0", HostNameError::Character('\0')),
    ] {
        assert_eq!(HostName::parse(text), Err(error), "{text:?}");
    }
    assert!(host("localhost").is_localhost() && host("a.localhost.").is_localhost());
    assert!(!host("notlocalhost").is_localhost() && !host("localhost.test").is_localhost());
    assert!(host("x.invalid").is_invalid() && !host("invalid.test").is_invalid());
}

#[test]
fn a_question_desires_recursion_and_says_its_size() {
    let message = Message::from_vec(&query().to_bytes()).unwrap();
    assert_eq!((message.metadata.id, message.metadata.op_code), (0x1234, OpCode::Query));
    assert!(message.metadata.recursion_desired);
    assert_eq!(message.queries[0].name, name("www.example.test."));
    assert_eq!(message.queries[0].query_type, RecordType::A);
    assert_eq!(message.edns.unwrap().max_payload(), 1232);
    let six = Query::new(&host("x.test"), Family::V6, 1).to_bytes();
    assert_eq!(Message::from_vec(&six).unwrap().queries[0].query_type, RecordType::AAAA);
}

#[test]
fn addresses_are_believed_for_the_shortest_of_their_times() {
    let records = vec![a("www.example.test.", 300, 1), a("WWW.example.TEST.", 60, 2)];
    let learned = read(&response(ResponseCode::NoError, records, vec![])).unwrap();
    assert_eq!(learned, Learned { answer: addresses(&[1, 2]), ttl: secs(60) });
    for (ttl, expected) in [(0, 0), (86_400, 86_400), (86_401, 86_400), (1 << 31, 0), (u32::MAX, 0)]
    {
        let records = vec![a("www.example.test.", ttl, 1)];
        let learned = read(&response(ResponseCode::NoError, records, vec![])).unwrap();
        assert_eq!(learned.ttl, secs(expected), "{ttl}");
    }
}

#[test]
fn aliases_are_followed_in_any_order_and_what_else_is_there_is_not_believed() {
    let records = vec![
        a("c.test.", 500, 9),
        cname("b.test.", 100, "c.test."),
        a("other.test.", 500, 66),
        cname("www.example.test.", 200, "b.test."),
        Record::from_rdata(name("c.test."), 5, RData::AAAA(AAAA(std::net::Ipv6Addr::LOCALHOST))),
    ];
    let learned = read(&response(ResponseCode::NoError, records, vec![])).unwrap();
    assert_eq!(learned, Learned { answer: addresses(&[9]), ttl: secs(100) });
    let foreign = vec![a("other.test.", 500, 66)];
    let learned = read(&response(ResponseCode::NoError, foreign, vec![])).unwrap();
    assert_eq!(learned.answer, Answer::NoAddress);
}

#[test]
fn an_alias_without_more_is_to_be_asked_for_and_a_loop_ends() {
    let records = vec![cname("www.example.test.", 200, "elsewhere.test.")];
    let learned = read(&response(ResponseCode::NoError, records.clone(), vec![])).unwrap();
    assert_eq!(learned, Learned { answer: Answer::Alias(host("elsewhere.test")), ttl: secs(200) });
    // A name that hickory-proto's text form would mark.
    let odd = vec![cname("www.example.test.", 9, "x.test.")];
    let mut odd = response(ResponseCode::NoError, odd, vec![]);
    odd.answers[0].data = RData::CNAME(CNAME(Name::from_labels([&b"-a"[..], b"_b"]).unwrap()));
    assert_eq!(read(&odd).unwrap().answer, Answer::Alias(host("-a._b")));
    // The server says that there is no more.
    let learned = read(&response(ResponseCode::NoError, records, vec![soa(50, 90)])).unwrap();
    assert_eq!(learned, Learned { answer: Answer::NoAddress, ttl: secs(50) });
    let records =
        vec![cname("www.example.test.", 9, "b.test."), cname("b.test.", 9, "www.example.test.")];
    let learned = read(&response(ResponseCode::NoError, records, vec![])).unwrap();
    assert!(matches!(learned.answer, Answer::Alias(_) | Answer::NoAddress), "{learned:?}");
    let mut chain = vec![cname("www.example.test.", 9, "n0.test.")];
    chain.extend((0..50).map(|n| cname(&format!("n{n}.test."), 9, &format!("n{}.test.", n + 1))));
    chain.push(a("n50.test.", 9, 1));
    let learned = read(&response(ResponseCode::NoError, chain, vec![])).unwrap();
    assert!(matches!(learned.answer, Answer::Alias(_)), "the rest is another question");
}

#[test]
fn a_no_is_believed_as_long_as_its_soa_says() {
    let no = |code, authorities| read(&response(code, vec![], authorities)).unwrap();
    let learned = no(ResponseCode::NXDomain, vec![soa(300, 60)]);
    assert_eq!(learned, Learned { answer: Answer::NoName, ttl: secs(60) });
    let learned = no(ResponseCode::NoError, vec![soa(30, 60)]);
    assert_eq!(learned, Learned { answer: Answer::NoAddress, ttl: secs(30) });
    assert_eq!(no(ResponseCode::NXDomain, vec![soa(1 << 20, 1 << 20)]).ttl, secs(3600));
    assert_eq!(no(ResponseCode::NXDomain, vec![]).ttl, secs(0), "RFC 2308 §5: not remembered");
}

#[test]
fn what_does_not_answer_the_question_is_unrelated() {
    let good = response(ResponseCode::NoError, vec![a("www.example.test.", 9, 1)], vec![]);
    assert!(read(&good).is_ok());
    let change = |change: &dyn Fn(&mut Message)| {
        let mut bad = good.clone();
        change(&mut bad);
        assert_eq!(read(&bad), Err(Unusable::Unrelated), "{bad}");
    };
    change(&|bad| bad.metadata.id ^= 1);
    change(&|bad| bad.metadata.message_type = MessageType::Query);
    change(&|bad| bad.metadata.op_code = OpCode::Notify);
    change(&|bad| bad.queries[0].name = name("wwx.example.test."));
    change(&|bad| bad.queries[0].query_type = RecordType::AAAA);
    change(&|bad| bad.queries[0].query_class = hickory_proto::rr::DNSClass::CH);
    change(&|bad| bad.queries.clear());
    change(&|bad| bad.queries.push(bad.queries[0].clone()));
    let bytes = good.to_vec().unwrap();
    for len in 0..bytes.len() {
        assert_eq!(query().read(&bytes[..len]), Err(Unusable::Unrelated), "{len}");
    }
}

#[test]
fn a_cut_answer_and_a_failure_are_told_apart() {
    let mut cut = response(ResponseCode::NoError, vec![], vec![]);
    cut.metadata.truncation = true;
    assert_eq!(read(&cut), Err(Unusable::Truncated));
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::FormErr] {
        let failed = response(code, vec![], vec![]);
        assert_eq!(read(&failed), Err(Unusable::Failed(code.into())));
    }
}

#[test]
fn a_refusal_of_a_header_alone_is_one_and_a_yes_is_none() {
    for code in 0..16_u8 {
        let bare = [0x12, 0x34, 0x81, 0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0];
        let expected = match code {
            0 | 3 => Unusable::Unrelated,
            code => Unusable::Failed(code.into()),
        };
        assert_eq!(query().read(&bare), Err(expected), "{code}");
        // Another's, a question, another operation.
        for (at, value) in [(1, 0x35), (2, 0x01), (2, 0xa1)] {
            let mut other = bare;
            other[at] = value;
            assert_eq!(query().read(&other), Err(Unusable::Unrelated), "{code} {at}");
        }
    }
}

#[test]
fn an_answer_that_is_cut_within_a_record_is_cut() {
    let records = vec![a("www.example.test.", 9, 1), a("www.example.test.", 9, 2)];
    let mut cut = response(ResponseCode::NoError, records, vec![]);
    cut.edns = None;
    cut.metadata.truncation = true;
    let bytes = cut.to_vec().unwrap();
    let question_end = 12 + 18 + 4;
    for len in question_end..=bytes.len() {
        assert_eq!(query().read(&bytes[..len]), Err(Unusable::Truncated), "{len}");
    }
    for len in 0..question_end {
        assert_eq!(query().read(&bytes[..len]), Err(Unusable::Unrelated), "{len}");
    }
}

#[test]
fn the_whole_code_counts() {
    let mut answer = response(ResponseCode::BADVERS, vec![a("www.example.test.", 9, 1)], vec![]);
    answer.edns.get_or_insert_default().set_rcode_high(1);
    assert_eq!(read(&answer), Err(Unusable::Failed(16)));
}

#[test]
fn an_alias_to_localhost_or_into_invalid_is_followed_by_nobodys_word() {
    for target in ["localhost.", "a.localhost.", "x.invalid."] {
        let records = vec![cname("www.example.test.", 60, target), a(target, 60, 66)];
        let learned = read(&response(ResponseCode::NoError, records, vec![soa(9, 9)])).unwrap();
        let expected = Answer::Alias(host(target));
        assert_eq!(learned, Learned { answer: expected, ttl: secs(60) });
    }
}

/// An answer whose only record's owner is `pointers` pointers, one to the next, the last one to the
/// question's name; after `chains` other records with the same owner, of a type that nobody reads.
fn chained(pointers: u16, chains: u16) -> Vec<u8> {
    let mut bytes = query().to_bytes();
    bytes.truncate(12 + 18 + 4);
    bytes[2] |= 0x80;
    bytes[6..12].copy_from_slice(&[0, 0, 0, 0, 0, 0]);
    bytes[6..8].copy_from_slice(&(2 + chains).to_be_bytes());
    // Of a private type (RFC 6895 §3.1): the chain.
    bytes.extend([0, 0xff, 0x10, 0, 1, 0, 0, 0, 0]);
    bytes.extend((2 * (pointers - 1)).to_be_bytes());
    let mut last = 12_u16;
    for _ in 1..pointers {
        let at = bytes.len() as u16;
        bytes.extend((0xc000 | last).to_be_bytes());
        last = at;
    }
    for _ in 0..chains {
        bytes.extend((0xc000 | last).to_be_bytes());
        bytes.extend([0xff, 0x10, 0, 1, 0, 0, 0, 0, 0, 1, 9]);
    }
    bytes.extend((0xc000 | last).to_be_bytes());
    bytes.extend([0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1]);
    bytes
}

#[test]
fn a_name_has_no_more_pointers_than_labels_and_what_nobody_needs_is_not_followed() {
    let learned = Learned { answer: addresses(&[1]), ttl: secs(9) };
    assert_eq!(query().read(&chained(127, 0)), Ok(learned.clone()));
    assert_eq!(query().read(&chained(127, 4000)), Ok(learned));
    assert_eq!(query().read(&chained(128, 0)), Err(Unusable::Unrelated));
    assert_eq!(query().read(&chained(8000, 3000)), Err(Unusable::Unrelated));
    // To itself, and forwards.
    for target in [45_u16, 60] {
        let mut circle = chained(1, 0);
        let owner = circle.len() - 16;
        circle[owner..owner + 2].copy_from_slice(&(0xc000 | target).to_be_bytes());
        assert_eq!(query().read(&circle), Err(Unusable::Unrelated), "{target}");
    }
}

#[test]
fn of_many_answers_the_first_512_are_looked_at() {
    for (before, expected) in [(511, addresses(&[1])), (512, Answer::NoAddress)] {
        let mut records = vec![a("other.test.", 9, 9); before];
        records.push(a("www.example.test.", 9, 1));
        let learned = read(&response(ResponseCode::NoError, records, vec![])).unwrap();
        assert_eq!(learned.answer, expected, "{before}");
    }
}

#[test]
fn what_is_remembered_grows_old_and_stays_within_its_limit() {
    let mut cache = Cache::new(100);
    let learned = |ttl| Learned { answer: addresses(&[1]), ttl: secs(ttl) };
    cache.insert(secs(10), host("a.test"), Family::V4, &learned(60));
    assert_eq!(cache.get(secs(69), &host("a.test"), Family::V4), Some(&addresses(&[1])));
    assert_eq!(cache.get(secs(70), &host("a.test"), Family::V4), None);
    assert_eq!(cache.get(secs(69), &host("a.test"), Family::V6), None, "another question");
    // What may not be remembered replaces what was.
    cache.insert(secs(11), host("a.test"), Family::V4, &learned(0));
    assert_eq!(cache.get(secs(11), &host("a.test"), Family::V4), None);
    for number in 0..1000 {
        cache.insert(
            secs(20),
            host(&format!("n{number}.test")),
            Family::V4,
            &learned(1000 + number),
        );
        assert!(cache.len() <= 100);
    }
    assert_eq!(cache.evicted(), 900);
    assert!(cache.get(secs(20), &host("n999.test"), Family::V4).is_some());
    assert!(
        cache.get(secs(20), &host("n0.test"), Family::V4).is_none(),
        "it would have gone first"
    );
    // The old go before the young are evicted.
    cache.insert(secs(5000), host("b.test"), Family::V4, &learned(10));
    assert_eq!((cache.len(), cache.evicted()), (1, 900));
}

proptest! {
    #[test]
    fn arbitrary_answers_do_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        with_question in any::<bool>(),
    ) {
        let mut message = bytes;
        if with_question {
            let mut start = query().to_bytes();
            start.truncate(12 + 18 + 4);
            start[2] |= 0x80;
            // As many records as the rest says.
            start.extend(&message);
            start[7] = message.first().copied().unwrap_or(0);
            message = start;
        }
        if let Ok(Learned { answer: Answer::Addresses(list), .. }) = query().read(&message) {
            prop_assert!((1..=32).contains(&list.len()));
        }
    }

    #[test]
    fn a_name_that_is_read_is_read_again_as_itself(text in "[a-zA-Z0-9_.-]{0,80}") {
        if let Ok(name) = HostName::parse(&text) {
            prop_assert_eq!(HostName::parse(name.as_str()), Ok(name.clone()));
            let query = Query::new(&name, Family::V6, 7).to_bytes();
            let asked = &Message::from_vec(&query).unwrap().queries[0].name;
            let labels: Vec<_> = asked.iter().map(|it| core::str::from_utf8(it).unwrap()).collect();
            prop_assert_eq!(labels.join("."), name.as_str());
        }
    }
}
