//! XenStore: its wire format, and the client against a xenstored that says anything.

use crate::Input;
use fata_xenbus::store::request::{
    decode_error, decode_watch_event, encode_error, encode_watch_event,
};
use fata_xenbus::store::wire::{Assembler, HEADER_BYTES, PAYLOAD_BYTES_MAX};
use fata_xenbus::store::{
    Access, Client, Errno, Event, Kind, Limits, Message, Permission, Reply, Request, StoreError,
    TransactionId,
};

/// A stream of bytes that arrives in pieces: what is cut out of it does not depend on the pieces,
/// and each message that can be read says the same when it is written again.
pub fn wire(input: &mut Input<'_>) {
    let piece = 1 + input.below(64);
    let stream = input.bytes(usize::MAX);
    let whole = messages(stream, stream.len().max(1));
    assert_eq!(whole, messages(stream, piece), "the pieces matter");
    for message in &whole.0 {
        assert!(message.payload.len() <= PAYLOAD_BYTES_MAX);
        check_message(message);
    }
    // What was cut out is what stood in the stream.
    let mut again = Vec::new();
    whole.0.iter().for_each(|message| message.encode(&mut again));
    assert_eq!(again, stream[..again.len()]);
    assert!(whole.1 || stream.len() - again.len() < HEADER_BYTES + PAYLOAD_BYTES_MAX);
}

/// The messages in a stream, and whether it came to one that cannot be.
fn messages(stream: &[u8], piece: usize) -> (Vec<Message>, bool) {
    let mut assembler = Assembler::new();
    let mut messages = Vec::new();
    for mut piece in stream.chunks(piece) {
        loop {
            match assembler.take(&mut piece) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}

/// Read as a request, as an answer, as a watch event and as an error.
fn check_message(message: &Message) {
    let Message { kind, payload, .. } = message;
    if let Ok(request) = Request::decode(*kind, payload) {
        let again = request.message(1, TransactionId::NONE);
        let again = again.expect("a request that was taken can be made");
        assert_eq!(Request::decode(again.kind, &again.payload), Ok(request));
    }
    if let Some(reply) = Reply::decode(*kind, payload.clone()) {
        let again = reply.encode();
        assert_eq!(Reply::decode(*kind, again), Some(reply));
    }
    if let Some((path, token)) = decode_watch_event(payload) {
        assert_eq!(decode_watch_event(&encode_watch_event(path, token)), Some((path, token)));
    }
    let errno = decode_error(payload);
    assert_eq!(decode_error(&encode_error(errno)), errno);
}

/// A request of each kind, and an answer to it.
pub fn wire_seeds() -> Vec<(String, Vec<u8>)> {
    let permission = Permission { access: Access::Read, domain: 3 };
    let part = Reply::NamesPart { generation: 7, names: vec!["vif".into()], bytes: 4, last: true };
    let conversations = [
        (Request::Read("device/vif/0/state"), Reply::Value(b"4".into())),
        (Request::Directory("device"), Reply::Names(vec!["vif".into(), "vbd".into()])),
        (Request::DirectoryPart("device", 0), part),
        (Request::GetPermissions("data"), Reply::Permissions(vec![permission])),
        (Request::Write("data/key", b"value"), Reply::Done),
        (Request::SetPermissions("data", vec![permission]), Reply::Done),
        (Request::Watch("@releaseDomain", "1"), Reply::Done),
        (Request::TransactionStart, Reply::Transaction(TransactionId(9))),
        (Request::TransactionEnd(true), Reply::Done),
        (Request::GetDomainPath(3), Reply::Path("/local/domain/3".into())),
        (Request::IsDomainIntroduced(3), Reply::Introduced(true)),
    ];
    let seed = |(number, (request, reply)): (usize, &(Request<'_>, Reply))| {
        let mut bytes = vec![number as u8];
        let message = request.message(1, TransactionId::NONE).expect("it is well formed");
        message.encode(&mut bytes);
        let payload = reply.encode();
        Message { kind: request.kind(), request: 1, transaction: TransactionId::NONE, payload }
            .encode(&mut bytes);
        (format!("{:?}", request.kind()), bytes)
    };
    conversations.iter().enumerate().map(seed).collect()
}

/// Requests, watches, and a xenstored that answers truthfully, with nonsense, twice, out of order or
/// with noise: who asked hears of it once, at the latest when the connection has ended.
pub fn client(input: &mut Input<'_>) {
    let limits = Limits { requests: 8, watches: 6 };
    let mut client = Client::new(limits);
    let (mut sent, mut asked) = (Assembler::new(), Vec::new());
    let (mut pending, mut watches) = (Vec::new(), Vec::new());
    while !input.is_empty() {
        match input.below(9) {
            0 => {
                let path = ["device", "@releaseDomain", "a//b"][input.below(3)];
                match client.watch(path) {
                    Ok((token, request)) => {
                        watches.push(token);
                        pending.push(request);
                    }
                    Err(error) => refused(&error, &client),
                }
            }
            1 if !watches.is_empty() => {
                client.unwatch(watches.swap_remove(input.below(watches.len())));
            }
            2 => match input.below(4) {
                0 => {
                    client.reconnect();
                    (sent, asked) = (Assembler::new(), Vec::new());
                }
                1 => client.forget_transaction(TransactionId(input.u32())),
                2 if !pending.is_empty() => {
                    client.abandon(pending.swap_remove(input.below(pending.len())));
                }
                _ => {}
            },
            3 | 4 => {
                let requests = [
                    Request::Read("a"),
                    Request::Directory("/"),
                    Request::DirectoryPart("/", 3),
                    Request::Write("a", input.blob()),
                    Request::TransactionStart,
                    Request::GetPermissions("a"),
                    Request::GetDomainPath(3),
                    Request::Read("not a path"),
                ];
                let request = &requests[input.below(requests.len())];
                match client.submit(TransactionId(3), request) {
                    Ok(request) => pending.push(request),
                    Err(error) => refused(&error, &client),
                }
            }
            // Noise.
            5 => {
                let _ = client.input(input.blob());
            }
            // Watch events, of watches that are there and of others.
            6 => {
                let token = input.below(12).to_string();
                let payload = encode_watch_event("device/vif", &token);
                say(&mut client, Kind::WatchEvent, 0, payload);
            }
            // Xenstored reads what was sent, and answers one of what it read.
            _ => {
                let count = client.output().len().min(usize::from(input.u8()));
                let mut piece = &client.output()[..count];
                while let Ok(Some(message)) = sent.take(&mut piece) {
                    asked.push(message);
                }
                client.sent(count);
                if asked.is_empty() {
                    continue;
                }
                let Message { kind, request, .. } = asked.swap_remove(input.below(asked.len()));
                match input.below(8) {
                    0 => say(&mut client, Kind::Error, request, encode_error(Errno::Again)),
                    1 => say(&mut client, Kind::Error, request, input.blob().into()),
                    2 => {
                        let kind = Kind::ALL[input.below(Kind::ALL.len())];
                        say(&mut client, kind, request, input.blob().into());
                    }
                    3 => say(&mut client, kind, request ^ 1 << input.below(32), b"OK\0".into()),
                    4 | 5 => say(&mut client, kind, request, b"OK\0".into()),
                    _ => say(&mut client, kind, request, input.blob().into()),
                }
            }
        }
        if input.flag() {
            let mut events = 0;
            while let Some(event) = client.poll_event() {
                events += 1;
                assert!(events <= limits.requests + limits.watches, "events without end");
                match event {
                    Event::Answer(id, _) => {
                        let at = pending.iter().position(|request| *request == id);
                        pending.swap_remove(at.expect("an answer that nobody waits for"));
                    }
                    Event::Fired(token) => assert!(watches.contains(&token)),
                }
            }
            // Everybody hears of the end.
            assert!(client.broken().is_none() || pending.is_empty());
        }
        assert!(pending.len() <= limits.requests && watches.len() <= limits.watches);
    }
}

fn say(client: &mut Client, kind: Kind, request: u32, payload: Vec<u8>) {
    let mut bytes = Vec::new();
    Message { kind, request, transaction: TransactionId::NONE, payload }.encode(&mut bytes);
    let before = client.broken();
    assert_eq!(client.input(&bytes).err(), client.broken());
    assert!(before.is_none() || client.broken() == before, "the first error is final");
}

/// A refusal says why, truly.
fn refused(error: &StoreError, client: &Client) {
    match error {
        StoreError::Broken(misbehaved) => assert_eq!(client.broken(), Some(*misbehaved)),
        StoreError::BadPath(_) | StoreError::TooManyRequests | StoreError::TooManyWatches => {}
        other => panic!("{other}"),
    }
}
