//! Zones in master format: what is read, and what is refused with its line.

use super::*;
use core::net::IpAddr;
use core::time::Duration;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use proptest::prelude::*;

/// Five lines.
const HEAD: &str = "$ORIGIN example.test.\n$TTL 3600\n@ IN SOA ns1 h 1 2 3 4 5\n@ IN NS ns1\n\
                    ns1 IN A 192.0.2.1\n";

fn parse(more: &str) -> Result<Zone, ZoneError> {
    Zone::parse(&format!("{HEAD}{more}"), None)
}

fn error(more: &str) -> String {
    match parse(more) {
        Ok(zone) => panic!("{more:?} is a zone of {} records", zone.record_count()),
        Err(error) => error.to_string(),
    }
}

/// What is answered about a name below `example.test`, as text and times to live.
fn ask(more: &str, name: &str, kind: RecordType) -> Vec<(RData, u32)> {
    let zone = parse(more).unwrap_or_else(|error| panic!("{more:?}: {error}"));
    let mut server = Server::new(zone, Limits::default(), [1, 2]);
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(format!("{name}.example.test.")).unwrap();
    question.add_query(Query::query(name, kind));
    let source = IpAddr::from([198, 51, 100, 9]);
    let bytes = question.to_vec().unwrap();
    let response = server.respond(Duration::ZERO, source, Transport::Tcp, &bytes).unwrap();
    let answers = Message::from_vec(&response).unwrap().answers;
    answers.into_iter().map(|record| (record.data, record.ttl)).collect()
}

/// The strings of the TXT record `x`.
fn strings(more: &str) -> Vec<Vec<u8>> {
    match &ask(more, "x", RecordType::TXT)[..] {
        [(RData::TXT(text), _)] => text.txt_data.iter().map(|it| it.to_vec()).collect(),
        other => panic!("{more:?}: {other:?}"),
    }
}

#[test]
fn records_of_all_kinds_are_read() {
    for (more, kind) in [
        ("x IN A 192.0.2.9\n", RecordType::A),
        ("x\tA\t192.0.2.9 ; comment\r\n", RecordType::A),
        ("$TTL 1h\nx 1D IN A 192.0.2.9", RecordType::A),
        ("x IN 1D AAAA ::1\n", RecordType::AAAA),
        ("x in cname @\n", RecordType::CNAME),
        ("x MX 10 @\n", RecordType::MX),
        ("x MX ( 10 ; a comment\n   mail )\n", RecordType::MX),
        ("x NS elsewhere.test.\n", RecordType::NS),
        ("x PTR a\\.b\n", RecordType::PTR),
        ("x SRV 0 5 80 ns1\n", RecordType::SRV),
        ("x CAA 0 issue \"ca.test; account=1\"\n", RecordType::CAA),
        ("x HTTPS 1 . alpn=\"h2,h3\" ipv4hint=192.0.2.7\n", RecordType::HTTPS),
        ("x SSHFP 1 1 0102030405060708090a0b0c0d0e0f1011121314\n", RecordType::SSHFP),
        ("x TLSA 3 1 1 00ff\n", RecordType::TLSA),
        ("x NAPTR 1 1 \"u\" \"E2U+sip\" \"!^.*$!sip:a@b!\" .\n", RecordType::NAPTR),
        ("x HINFO \"an i386\" \"UNIX\"\n", RecordType::HINFO),
        ("x TYPE65280 \\# 4 0a00 0001\n", RecordType::from(65280)),
        ("x DS \\# 6 ( 3039\n 0d02\n ffff )\n", RecordType::DS),
        ("x A \\# 4 c0000209\n", RecordType::A),
        ("x TYPE1 \\# 4 c0000209\n", RecordType::A),
    ] {
        let answers = ask(more, "x", kind);
        // A cut's servers are a referral, and no answer.
        let expected = usize::from(kind != RecordType::NS);
        assert_eq!(answers.len(), expected, "{more:?}");
        assert!(answers.iter().all(|(data, _)| data.record_type() == kind), "{more:?}");
    }
    let relative = ask("x MX 10 @\n", "x", RecordType::MX);
    assert!(
        matches!(&relative[..], [(RData::MX(mx), 3600)] if mx.exchange.to_ascii() == "example.test.")
    );
    let known = ask("x TYPE1 \\# 4 c0000209\n", "x", RecordType::A);
    assert!(matches!(&known[..], [(RData::A(address), _)] if address.0.octets() == [192, 0, 2, 9]));
    assert!(parse("x TYPE65280 \\# 0\n").is_ok(), "RFC 3597 §5: it may be empty");
    // `$ORIGIN` is relative, too, and the owner of the entry before goes on.
    let nested = "$ORIGIN sub\na A 192.0.2.3\n  TXT \"its\"\n";
    assert_eq!(ask(nested, "a.sub", RecordType::TXT).len(), 1);
}

#[test]
fn strings_are_read_as_they_are_written() {
    let bytes = |texts: &[&[u8]]| texts.iter().map(|it| it.to_vec()).collect::<Vec<_>>();
    assert_eq!(
        strings("x TXT ( \"one\"\n \"t;w)o\" ) three\n"),
        bytes(&[b"one", b"t;w)o", b"three"])
    );
    assert_eq!(strings("x TXT \"see $INCLUDE\"\n"), bytes(&[b"see $INCLUDE"]));
    assert_eq!(strings("x TXT \"\\200\\\"\\\\\" a\\;b \"\"\n"), bytes(&[b"\xc8\"\\", b"a;b", b""]));
    assert_eq!(strings("x TXT \"two\nlines\"\n"), bytes(&[b"two\nlines"]));
    assert_eq!(strings("x TXT @\n"), bytes(&[b"@"]));
    let long = "y".repeat(255);
    assert_eq!(strings(&format!("x TXT {long} \"{long}\"\n")), bytes(&[long.as_bytes(); 2]));
}

#[test]
fn what_is_no_record_is_refused_with_its_line() {
    let long = format!("\nx IN TXT \"{}\"\n", "y".repeat(256));
    let longer = format!("x HINFO a \"{}\"\n", "y".repeat(256));
    let most = format!("x TYPE65280 \\# 65000 {}\n", "00".repeat(65_000));
    for (more, line, why) in [
        (long.as_str(), 7, "a string of 256 bytes: write several of 255"),
        (&longer, 6, "HINFO"),
        (&most, 6, "65000 bytes are more than an answer holds"),
        ("x IN A 192.0.2\n", 6, "A: "),
        ("\n; nothing\n\nx IN A\n", 9, "A: it has no data"),
        ("x IN\n", 6, "has no type"),
        ("x IN TXT \"two\nlines\"\ny IN A 1\n", 8, "A: "),
        ("x IN TXT (\n \"a\"\n \"b\" )\ny IN A 1\n", 9, "A: "),
        ("x IN TXT \"unclosed\nx A 1.1.1.1\n", 6, "quotation mark"),
        ("\nx IN TXT ( a\nx A 1.1.1.1\n", 7, "a parenthesis begins that does not end"),
        ("x IN A 192.0.2.1 )\n", 6, "a parenthesis ends that did not begin"),
        ("x IN TXT a\\\n", 6, "nothing follows a backslash"),
        ("x IN TXT \"\\300\"\n", 6, "\\300 is no byte"),
        ("x IN TXT \"\\30\"\n", 6, "three digits follow a backslash"),
        ("x IN CAA 0 issue \"\\200\"\n", 6, "not UTF-8"),
        ("x 2147483648 IN A 192.0.2.1\n", 6, "2147483648 is no time to live"),
        ("$TTL 99999999999999999999\n", 6, "no time to live"),
        ("$TTL\n", 6, "$TTL takes a time"),
        ("$ORIGIN a. b.\n", 6, "$ORIGIN takes a name"),
        ("x TYPE65280 \\# 3 0a00\n", 6, "4 digits for 3 bytes"),
        ("x TYPE65280 \\# 2 0a0g\n", 6, "hexadecimal"),
        ("x A \\# 3 010203\n", 6, "A: "),
        ("x A \\# 5 0102030405\n", 6, "A: "),
        ("x CH TXT a\n", 6, "not of class IN"),
        ("www.other.test. A 192.0.2.1\n", 6, "is outside of it"),
        ("@ IN SOA ns1 h 1 2 3 4 5\n", 6, "a second SOA record"),
        ("\n$INCLUDE /etc/hostname\n", 7, "includes a file"),
        ("$include x\n", 6, "includes a file"),
        ("c CNAME a\nc CNAME b\n", 7, "c.example.test. is an alias"),
        ("c CNAME a\nc A 192.0.2.1\n", 7, "c.example.test. is an alias"),
        ("c A 192.0.2.1\nC CNAME a\n", 7, "c.example.test. is an alias"),
    ] {
        let error = error(more);
        assert!(error.contains(&format!("line {line} of the zone")), "{more:?}: {error}");
        assert!(error.contains(why), "{more:?}: {error}");
    }
}

#[test]
fn what_the_server_does_not_do_is_named_with_its_line() {
    for (more, what) in [
        ("d DNAME other.test.\n", "the record type DNAME"),
        ("d TYPE39 \\# 1 00\n", "the record type TYPE39"),
        ("x LOC 51 30 12.748 N 0 7 39.612 W 0.00m\n", "the record type LOC"),
        ("x DS 1 8 2 00\n", "DS in words: write its data as \\# LENGTH HEX"),
        ("x TYPE65280 a b\n", "in words"),
        ("x RRSIG a\n", "the record type RRSIG"),
        ("x TYPE255 \\# 0\n", "the record type TYPE255"),
        ("x NONSENSE a\n", "the record type NONSENSE"),
        ("$GENERATE 1-3 h$ A 192.0.2.$\n", "the directive $GENERATE"),
    ] {
        let error = error(more);
        assert!(error.contains("line 6 of the zone: not supported here is"), "{more:?}: {error}");
        assert!(error.contains(what), "{more:?}: {error}");
    }
}

#[test]
fn a_set_has_no_record_twice_and_one_time_to_live() {
    let more = "x 60 A 192.0.2.1\nX 30 A 192.0.2.2\nx 90 A 192.0.2.1\nc CNAME a\nc CNAME a\n";
    let answers = ask(more, "x", RecordType::A);
    assert_eq!(answers.iter().map(|(_, ttl)| *ttl).collect::<Vec<_>>(), [30, 30]);
    assert_eq!(parse(more).unwrap().record_count(), 3 + 2 + 1);
    assert_eq!(ask("x 2147483647 A 192.0.2.1\n", "x", RecordType::A)[0].1, i32::MAX as u32);
}

#[test]
fn a_text_without_an_origin_or_an_owner_is_refused() {
    let error = |text: &str| Zone::parse(text, None).unwrap_err().to_string();
    assert!(error("foo IN A 192.0.2.1").contains("line 1 of the zone: there is no $ORIGIN"));
    assert!(error("$ORIGIN a.\n IN A 192.0.2.1").contains("the first record has no name"));
    assert!(error("$ORIGIN a.\n@ A 192.0.2.1").contains("no time to live"));
    let text = "@ 5 SOA a b 1 2 3 4 5\n@ NS a\n";
    let zone = Zone::parse(text, Some(Name::from_ascii("z.test").unwrap())).unwrap();
    assert_eq!(zone.origin().to_string(), "z.test.");
    // Without the dot, before there is another one, it is what was meant.
    let zone = Zone::parse(&format!("$ORIGIN z.test\n{text}"), None).unwrap();
    assert_eq!(zone.origin().to_string(), "z.test.");
}

/// A zone with much of what there is.
const RICH: &str = "x 1D IN TXT ( \"a\" \"b;c\" )\ny MX 10 @\n_s._tcp SRV 0 5 80 ns1\n\
                    z CAA 0 issue \"le\"\nh HTTPS 1 . alpn=h2 ipv4hint=192.0.2.4\nk SSHFP 1 1 0102\n\
                    l TLSA 3 1 1 00\nn NAPTR 1 1 \"u\" \"E\" \"!\" .\nd DS \\# 4 00010802\n\
                    o OPENPGPKEY AA==\nc CERT 1 1 1 AA==\nq HINFO a b\nt TYPE65280 \\# 1 ff\n";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_damaged_zone_is_a_zone_or_an_error_with_a_line_of_it(
        damages in proptest::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..8, prop::sample::select(vec![
                "", "\"", "(", ")", ";", "\n", "\\", "$", "$ORIGIN ", "@", ".", " ", "\t", "IN",
                "99999999999", "\\255", "\\999", "=", "*", "é", "\0", "1h", "alpn=", "::", "\\#",
                "key1=", "TYPE1",
            ])),
            1..5,
        ),
    ) {
        let mut text: Vec<char> = HEAD.chars().chain(RICH.chars()).collect();
        for (index, removed, inserted) in damages {
            let at = index.index(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(ZoneError::Syntax { line, .. } | ZoneError::Unsupported { line, .. }) =
            Zone::parse(&text, None)
        {
            prop_assert!((1..=text.split('\n').count()).contains(&line));
        }
    }
}
