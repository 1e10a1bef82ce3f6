use crate::store::path::{self, PathError};
use crate::store::request::{decode_error, decode_watch_event, encode_error, encode_watch_event};
use crate::store::wire::{Assembler, HEADER_BYTES, PAYLOAD_BYTES_MAX};
use crate::store::{
    Access, Errno, Kind, Message, Misbehaved, Permission, Reply, Request, StoreError, TransactionId,
};
use proptest::prelude::*;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

fn bytes(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

#[test]
fn a_read_is_these_bytes() {
    let message = Request::Read("domid").message(3, TransactionId(9)).unwrap();
    assert_eq!(
        bytes(&message),
        b"\x02\0\0\0\x03\0\0\0\x09\0\0\0\x06\0\0\0domid\0",
        "type, req_id, tx_id, len, payload"
    );
}

#[test]
fn requests_have_the_payloads_of_the_protocol() {
    let permissions = vec![
        Permission { access: Access::None, domain: 0 },
        Permission { access: Access::Read, domain: 7 },
    ];
    let table: [(Request<'_>, &[u8]); 12] = [
        (Request::Directory("device"), b"device\0"),
        (Request::DirectoryPart("/", 120), b"/\x00120\0"),
        (Request::Write("a/b", b"v\0w"), b"a/b\0v\0w"),
        (Request::MakeDirectory("a"), b"a\0"),
        (Request::Remove("/a"), b"/a\0"),
        (Request::SetPermissions("a", permissions), b"a\0n0\0r7\0"),
        (Request::Watch("@releaseDomain", "5"), b"@releaseDomain\x005\0"),
        (Request::TransactionStart, b"\0"),
        (Request::TransactionEnd(true), b"T\0"),
        (Request::TransactionEnd(false), b"F\0"),
        (Request::GetDomainPath(12), b"12\0"),
        (Request::ResetWatches, b"\0"),
    ];
    for (request, payload) in table {
        let message = request.message(1, TransactionId::NONE).unwrap();
        assert_eq!(message.payload, payload, "{request:?}");
    }
}

#[test]
fn a_path_from_another_domain_cannot_say_more_than_a_path() {
    let refused = |path| Request::Read(path).message(1, TransactionId::NONE).unwrap_err();
    assert_eq!(refused("a\0b"), StoreError::BadPath(PathError::BadByte(0)));
    assert_eq!(refused("a b"), StoreError::BadPath(PathError::BadByte(b' ')));
    assert_eq!(refused("ä"), StoreError::BadPath(PathError::BadByte(0xc3)));
    assert_eq!(refused(""), StoreError::BadPath(PathError::Empty));
    assert_eq!(refused("a//b"), StoreError::BadPath(PathError::EmptyElement));
    assert_eq!(refused("a/"), StoreError::BadPath(PathError::EmptyElement));
    let long = "x".repeat(2049);
    assert_eq!(refused(&long), StoreError::BadPath(PathError::TooLong { bytes: 2049 }));
    assert!(path::check("/").is_ok());
    assert!(path::check(&std::format!("/{long}")).is_ok());
    assert!(path::check_watch("@introduceDomain").is_ok());
    assert!(path::check_watch("@introduce/Domain").is_err());
}

#[test]
fn a_value_that_does_not_fit_is_not_sent() {
    let value = vec![0; PAYLOAD_BYTES_MAX];
    let write = |path| Request::Write(path, &value[..4094]).message(1, TransactionId::NONE);
    assert!(write("a").is_ok());
    assert_eq!(write("ab"), Err(StoreError::TooLong { bytes: 4097 }));
}

#[test]
fn replies_are_read() {
    let read = |kind, payload: &[u8]| Reply::decode(kind, payload.to_vec());
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(read(Kind::Read, b""), Some(Reply::Value(vec![])));
    assert_eq!(read(Kind::Directory, b""), Some(Reply::Names(vec![])));
    assert_eq!(read(Kind::Directory, b"0\x0010\0"), Some(Reply::Names(names(&["0", "10"]))));
    assert_eq!(read(Kind::TransactionStart, b"17\0"), Some(Reply::Transaction(TransactionId(17))));
    assert_eq!(
        read(Kind::GetDomainPath, b"/local/domain/3\0"),
        Some(Reply::Path("/local/domain/3".to_string()))
    );
    assert_eq!(read(Kind::IsDomainIntroduced, b"T\0"), Some(Reply::Introduced(true)));
    assert_eq!(read(Kind::Write, b"OK\0"), Some(Reply::Done));
    let part = |names, bytes, last| Some(Reply::NamesPart { generation: 7, names, bytes, last });
    assert_eq!(read(Kind::DirectoryPart, b"7\0a\0bc\0"), part(names(&["a", "bc"]), 5, false));
    assert_eq!(read(Kind::DirectoryPart, b"7\0a\0\0"), part(names(&["a"]), 2, true));
    assert_eq!(read(Kind::DirectoryPart, b"7\0\0"), part(vec![], 0, true));
}

#[test]
fn replies_that_make_no_sense_are_none() {
    let bad: [(Kind, &[u8]); 13] = [
        (Kind::Directory, b"a"),
        (Kind::Directory, b"a\0\0"),
        (Kind::Directory, b"../x\0"),
        (Kind::DirectoryPart, b"7\0"),
        (Kind::DirectoryPart, b"seven\0a\0"),
        (Kind::TransactionStart, b"0\0"),
        (Kind::TransactionStart, b"-1\0"),
        (Kind::TransactionStart, b"+1\0"),
        (Kind::TransactionStart, b"99999999999\0"),
        (Kind::GetPermissions, b"x0\0"),
        (Kind::GetPermissions, b"r70000\0"),
        (Kind::Write, b"NO\0"),
        (Kind::WatchEvent, b"a\0b\0"),
    ];
    for (kind, payload) in bad {
        assert_eq!(Reply::decode(kind, payload.to_vec()), None, "{kind} {payload:?}");
    }
}

#[test]
fn errors_have_their_names() {
    for &errno in Errno::ALL {
        assert_eq!(decode_error(&encode_error(errno)), errno);
        assert!(errno.to_string().contains(errno.name()));
    }
    assert_eq!(decode_error(b"EDOOFUS\0"), Errno::Unknown);
    assert_eq!(decode_error(b""), Errno::Unknown);
}

#[test]
fn types_have_their_numbers() {
    assert!(Kind::ALL.iter().all(|&kind| Kind::from_number(kind.number()) == Some(kind)));
    assert_eq!(Kind::from_number(20), None, "XS_RESTRICT is gone");
    assert_eq!(Kind::from_number(23), None);
    assert_eq!(Kind::ResetWatches.number(), 21);
}

#[test]
fn a_length_that_cannot_be_ends_the_stream() {
    let mut header = [0; HEADER_BYTES];
    header[12..].copy_from_slice(&4097_u32.to_le_bytes());
    let refused = Assembler::new().take(&mut &header[..]);
    assert_eq!(refused, Err(Misbehaved::Oversized { bytes: 4097 }));
    header[12..].fill(0);
    header[0] = 200;
    let refused = Assembler::new().take(&mut &header[..]);
    assert_eq!(refused, Err(Misbehaved::UnknownKind { kind: 200 }));
}

fn name() -> impl Strategy<Value = String> {
    // What begins with '@' is a watch's alone, and no path: see `path::check_watch`.
    "[a-zA-Z0-9_-][a-zA-Z0-9_@-]{0,11}"
}

fn any_path() -> impl Strategy<Value = String> {
    (any::<bool>(), prop::collection::vec(name(), 1..5)).prop_map(|(absolute, names)| {
        let joined = names.join("/");
        if absolute { std::format!("/{joined}") } else { joined }
    })
}

fn permissions() -> impl Strategy<Value = Vec<Permission>> {
    let access =
        prop::sample::select(vec![Access::None, Access::Read, Access::Write, Access::Both]);
    prop::collection::vec(
        (access, any::<u16>()).prop_map(|(access, domain)| Permission { access, domain }),
        1..6,
    )
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL)
}

proptest! {
    #[test]
    fn requests_are_read_as_they_were_written(
        path in any_path(),
        token in "[0-9]{1,9}",
        value in prop::collection::vec(any::<u8>(), 0..300),
        permissions in permissions(),
        offset: u32,
        domain: u16,
        commit: bool,
    ) {
        let requests = [
            Request::Read(&path),
            Request::Directory(&path),
            Request::DirectoryPart(&path, offset),
            Request::GetPermissions(&path),
            Request::Write(&path, &value),
            Request::MakeDirectory(&path),
            Request::Remove(&path),
            Request::SetPermissions(&path, permissions),
            Request::Watch(&path, &token),
            Request::Unwatch(&path, &token),
            Request::TransactionStart,
            Request::TransactionEnd(commit),
            Request::GetDomainPath(domain),
            Request::IsDomainIntroduced(domain),
            Request::ResetWatches,
        ];
        for request in requests {
            let message = request.message(1, TransactionId::NONE).unwrap();
            prop_assert_eq!(Request::decode(message.kind, &message.payload), Ok(request));
        }
    }

    #[test]
    fn replies_are_read_as_they_were_written(
        value in prop::collection::vec(any::<u8>(), 0..300),
        names in prop::collection::vec(name(), 1..9),
        permissions in permissions(),
        generation: u64,
        id in 1_u32..,
        path in any_path(),
        yes: bool,
    ) {
        let bytes = names.iter().map(|name| name.len() as u32 + 1).sum();
        let replies = [
            (Kind::Read, Reply::Value(value)),
            (Kind::Directory, Reply::Names(names.clone())),
            (Kind::DirectoryPart, Reply::NamesPart { generation, names, bytes, last: yes }),
            (Kind::GetPermissions, Reply::Permissions(permissions)),
            (Kind::TransactionStart, Reply::Transaction(TransactionId(id))),
            (Kind::GetDomainPath, Reply::Path(path)),
            (Kind::IsDomainIntroduced, Reply::Introduced(yes)),
            (Kind::Remove, Reply::Done),
        ];
        for (kind, reply) in replies {
            prop_assert_eq!(Reply::decode(kind, reply.encode()), Some(reply));
        }
    }

    #[test]
    fn watch_events_are_read_as_they_were_written(path in any_path(), token in "[0-9]{1,9}") {
        let payload = encode_watch_event(&path, &token);
        prop_assert_eq!(decode_watch_event(&payload), Some((path.as_str(), token.as_str())));
    }

    #[test]
    fn arbitrary_payloads_do_no_harm(
        kind in kind(),
        payload in prop::collection::vec(any::<u8>(), 0..200),
        wordy in "([a-z0-9/]{0,3}\0){0,4}",
    ) {
        for payload in [payload, wordy.into_bytes()] {
            let _ = Request::decode(kind, &payload);
            let _ = decode_watch_event(&payload);
            let _ = decode_error(&payload);
            if let Some(Reply::NamesPart { names, bytes, .. }) = Reply::decode(kind, payload.clone()) {
                prop_assert!(bytes as usize <= payload.len());
                prop_assert!(names.iter().all(|name| path::is_name(name)));
            }
        }
    }

    #[test]
    fn messages_are_cut_out_of_any_pieces(
        messages in prop::collection::vec(
            (kind(), any::<u32>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..70)),
            0..6,
        ),
        cuts in prop::collection::vec(1_usize..40, 1..30),
    ) {
        let messages: Vec<Message> = messages
            .into_iter()
            .map(|(kind, request, transaction, payload)| Message {
                kind, request, transaction: TransactionId(transaction), payload,
            })
            .collect();
        let stream: Vec<u8> = messages.iter().flat_map(bytes).collect();
        let (mut assembler, mut got) = (Assembler::new(), Vec::new());
        let (mut rest, mut cuts) = (stream.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (mut piece, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            rest = later;
            while let Some(message) = assembler.take(&mut piece).unwrap() {
                got.push(message);
            }
            prop_assert!(piece.is_empty());
        }
        prop_assert_eq!(got, messages);
    }
}
