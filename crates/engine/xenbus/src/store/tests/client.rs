use crate::store::request::{encode_error, encode_watch_event};
use crate::store::wire::{Assembler, HEADER_BYTES};
use crate::store::{
    Client, Errno, Event, Kind, Limits, Message, Misbehaved, Reply, Request, StoreError,
    TransactionId,
};
use std::string::{String, ToString};
use std::vec::Vec;

/// A client, and what it has sent.
struct Wire {
    client: Client,
    sent: Assembler,
}

impl Wire {
    fn new(limits: Limits) -> Self {
        Wire { client: Client::new(limits), sent: Assembler::new() }
    }

    /// The messages that the client has sent since last asked.
    fn requests(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while !self.client.output().is_empty() {
            // In pieces, as a ring takes them.
            let count = self.client.output().len().min(7);
            let mut piece = &self.client.output()[..count];
            while let Some(message) = self.sent.take(&mut piece).expect("our own messages") {
                messages.push(message);
            }
            self.client.sent(count);
        }
        messages
    }

    fn one_request(&mut self) -> Message {
        let mut messages = self.requests();
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }

    fn answer(&mut self, kind: Kind, request: u32, payload: &[u8]) -> Result<(), Misbehaved> {
        let transaction = TransactionId::NONE;
        let mut bytes = Vec::new();
        Message { kind, request, transaction, payload: payload.to_vec() }.encode(&mut bytes);
        self.client.input(&bytes)
    }

    fn fire(&mut self, path: &str, token: &str) {
        let payload = encode_watch_event(path, token);
        self.answer(Kind::WatchEvent, 0, &payload).expect("a good event");
    }

    fn read(&mut self, path: &str) -> u32 {
        self.client.submit(TransactionId::NONE, &Request::Read(path)).expect("room");
        self.one_request().request
    }

    /// Sets a watch that xenstored accepts; its token on the wire.
    fn watch(&mut self, path: &str) -> (crate::store::WatchToken, String) {
        let (token, id) = self.client.watch(path).expect("room");
        let sent = self.one_request();
        let (_, name) = crate::store::request::decode_watch_event(&sent.payload).unwrap();
        let name = name.to_string();
        self.answer(Kind::Watch, sent.request, b"OK\0").unwrap();
        assert_eq!(self.client.poll_event(), Some(Event::Answer(id, Ok(Reply::Done))));
        (token, name)
    }
}

#[test]
fn answers_find_their_requests_in_any_order() {
    let mut wire = Wire::new(Limits::default());
    let ids: Vec<_> = ["a", "b", "c"]
        .map(|path| wire.client.submit(TransactionId(4), &Request::Read(path)).unwrap())
        .to_vec();
    let sent = wire.requests();
    assert!(sent.iter().all(|message| message.transaction == TransactionId(4)));
    for (at, payload) in [(2, b"C"), (0, b"A")] {
        wire.answer(Kind::Read, sent[at].request, payload).unwrap();
    }
    wire.answer(Kind::Error, sent[1].request, &encode_error(Errno::NotFound)).unwrap();
    let value = |bytes: &[u8]| Ok(Reply::Value(bytes.to_vec()));
    assert_eq!(wire.client.poll_event(), Some(Event::Answer(ids[2], value(b"C"))));
    assert_eq!(wire.client.poll_event(), Some(Event::Answer(ids[0], value(b"A"))));
    let refused = Err(StoreError::Refused(Errno::NotFound));
    assert_eq!(wire.client.poll_event(), Some(Event::Answer(ids[1], refused)));
    assert_eq!(wire.client.poll_event(), None);
}

#[test]
fn no_more_requests_wait_than_may() {
    let mut wire = Wire::new(Limits { requests: 2, ..Limits::default() });
    let first = wire.read("a");
    wire.read("b");
    let refused = wire.client.submit(TransactionId::NONE, &Request::Read("c"));
    assert_eq!(refused, Err(StoreError::TooManyRequests));
    assert_eq!(wire.client.watch("c"), Err(StoreError::TooManyRequests));
    assert_eq!(wire.client.counters().requests_refused, 2);
    wire.answer(Kind::Read, first, b"").unwrap();
    assert_eq!(
        wire.client.submit(TransactionId::NONE, &Request::Read("c")),
        Err(StoreError::TooManyRequests),
        "an answer that nobody has taken takes memory too"
    );
    assert!(wire.client.poll_event().is_some());
    wire.read("c");
}

#[test]
fn a_watch_that_fires_without_end_is_one_bit() {
    let mut wire = Wire::new(Limits::default());
    let (token, name) = wire.watch("device/vif/0");
    for _ in 0..10_000 {
        wire.fire("/local/domain/0/backend/vif/7/0/state", &name);
    }
    assert_eq!(wire.client.poll_event(), Some(Event::Fired(token)));
    assert_eq!(wire.client.poll_event(), None);
    assert_eq!(wire.client.counters().watch_events_coalesced, 9_999);
    wire.fire("x", &name);
    assert_eq!(wire.client.poll_event(), Some(Event::Fired(token)), "one that came after the look");
}

#[test]
fn a_watch_that_was_removed_is_not_heard_of() {
    let mut wire = Wire::new(Limits { watches: 1, ..Limits::default() });
    let (token, name) = wire.watch("a");
    assert_eq!(wire.client.watch("b"), Err(StoreError::TooManyWatches));
    wire.fire("a", &name);
    wire.client.unwatch(token);
    let sent = wire.one_request();
    assert_eq!((sent.kind, sent.payload.as_slice()), (Kind::Unwatch, b"a\x001\0".as_slice()));
    wire.fire("a", &name);
    wire.answer(Kind::Unwatch, sent.request, b"OK\0").unwrap();
    assert_eq!(wire.client.poll_event(), None);
    assert_eq!(wire.client.counters().watch_events_stray, 1);
    wire.client.unwatch(token);
    assert!(wire.requests().is_empty());
    wire.watch("b");
}

#[test]
fn ends_of_watches_take_no_room_from_requests() {
    let mut wire = Wire::new(Limits { requests: 2, watches: 10 });
    let tokens: Vec<_> = (0..10).map(|_| wire.watch("a").0).collect();
    tokens.into_iter().for_each(|token| wire.client.unwatch(token));
    let ends = wire.requests();
    assert_eq!(ends.len(), 10);
    wire.read("b");
    wire.read("c");
    let refused = wire.client.submit(TransactionId::NONE, &Request::Read("d"));
    assert_eq!(refused, Err(StoreError::TooManyRequests));
    for end in ends {
        wire.answer(Kind::Unwatch, end.request, b"OK\0").unwrap();
    }
    let refused = wire.client.submit(TransactionId::NONE, &Request::Read("d"));
    assert_eq!(refused, Err(StoreError::TooManyRequests), "and they give none back");
}

#[test]
fn events_that_say_nothing_are_counted() {
    let mut wire = Wire::new(Limits::default());
    wire.watch("a");
    for payload in [b"".as_slice(), b"a\0", b"a\0x\0", b"\xff\x001\0", b"a\x0099\0"] {
        wire.answer(Kind::WatchEvent, 0, payload).unwrap();
    }
    assert_eq!(wire.client.counters().watch_events_stray, 5);
    assert_eq!(wire.client.poll_event(), None);
}

#[test]
fn a_request_that_nobody_waits_for_is_dropped_when_it_is_answered() {
    let mut wire = Wire::new(Limits::default());
    let id = wire.client.submit(TransactionId::NONE, &Request::Read("a")).unwrap();
    wire.client.abandon(id);
    let sent = wire.one_request();
    wire.answer(Kind::Read, sent.request, b"secret").unwrap();
    assert_eq!(wire.client.poll_event(), None);
}

#[test]
fn a_forgotten_transaction_is_ended_even_without_room() {
    let mut wire = Wire::new(Limits { requests: 1, ..Limits::default() });
    wire.read("a");
    wire.client.forget_transaction(TransactionId(31));
    let sent = wire.one_request();
    assert_eq!((sent.kind, sent.transaction), (Kind::TransactionEnd, TransactionId(31)));
    assert_eq!(sent.payload, b"F\0");
}

#[test]
fn lies_end_the_connection_and_everybody_hears_why() {
    type Lie = fn(&mut Wire, u32) -> Result<(), Misbehaved>;
    let lies: [Lie; 4] = [
        |wire, id| wire.answer(Kind::Read, id + 1, b""),
        |wire, id| wire.answer(Kind::Write, id, b"OK\0"),
        |wire, _| wire.client.input(&[0xff; HEADER_BYTES]),
        |wire, _| wire.client.input(&[99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for lie in lies {
        let mut wire = Wire::new(Limits::default());
        let (token, _) = wire.watch("w");
        let id = wire.client.submit(TransactionId::NONE, &Request::Read("a")).unwrap();
        let request = wire.one_request().request;
        let error = lie(&mut wire, request).expect_err("a lie");
        assert!(error.to_string().starts_with("xenstored sent"), "{error}");
        let failed = Err(StoreError::Broken(error));
        assert_eq!(wire.client.poll_event(), Some(Event::Answer(id, failed)));
        assert_eq!(wire.client.poll_event(), Some(Event::Fired(token)));
        assert_eq!(wire.client.poll_event(), None);
        let later = wire.client.submit(TransactionId::NONE, &Request::Read("a"));
        assert_eq!(later, Err(StoreError::Broken(error)));
        assert_eq!(wire.client.broken(), Some(error));
        wire.client.unwatch(token);
        assert!(wire.client.output().is_empty());
    }
}

#[test]
fn an_answer_that_cannot_be_read_fails_its_request_alone() {
    let mut wire = Wire::new(Limits::default());
    let id = wire.client.submit(TransactionId::NONE, &Request::TransactionStart).unwrap();
    let request = wire.one_request().request;
    wire.answer(Kind::TransactionStart, request, b"soon\0").unwrap();
    let failed = Err(StoreError::MalformedReply { kind: Kind::TransactionStart });
    assert_eq!(wire.client.poll_event(), Some(Event::Answer(id, failed)));
    wire.read("a");
}

#[test]
fn after_a_suspension_requests_have_failed_and_watches_are_set_again() {
    let mut wire = Wire::new(Limits::default());
    let (token, name) = wire.watch("device");
    let id = wire.client.submit(TransactionId::NONE, &Request::Read("a")).unwrap();
    // Half an answer and half a request have gone over the old connection.
    wire.client.sent(5);
    wire.client.input(&[2, 0, 0]).unwrap();
    wire.client.reconnect();
    assert_eq!(wire.client.poll_event(), Some(Event::Answer(id, Err(StoreError::Interrupted))));
    assert_eq!(wire.client.poll_event(), Some(Event::Fired(token)));
    let sent = wire.one_request();
    assert_eq!((sent.kind, sent.payload.as_slice()), (Kind::Watch, b"device\x001\0".as_slice()));
    wire.answer(Kind::Watch, sent.request, b"OK\0").unwrap();
    assert_eq!(wire.client.poll_event(), None);
    wire.fire("device", &name);
    assert_eq!(wire.client.poll_event(), Some(Event::Fired(token)));
    wire.read("b");
}
