use super::*;

/// A client that speaks in whole messages.
struct Client {
    id: ConnectionId,
}

const DIRECTORY: u32 = 1;
const READ: u32 = 2;
const WATCH: u32 = 4;
const START: u32 = 6;
const END: u32 = 7;
const WRITE: u32 = 11;
const RM: u32 = 13;
const SET_PERMS: u32 = 14;
const EVENT: u32 = 15;
const ERROR: u32 = 16;

impl Client {
    /// Sends one request and gives all messages that are there then: (type, payload).
    fn ask(
        &self,
        store: &mut Xenstored,
        kind: u32,
        tx: u32,
        payload: &[u8],
    ) -> Vec<(u32, Vec<u8>)> {
        let mut bytes = Vec::new();
        for word in [kind, 7, tx, payload.len() as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(payload);
        // In two pieces: a ring does not keep messages together.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        store.input(self.id, first).unwrap();
        store.input(self.id, second).unwrap();
        self.messages(store)
    }

    fn messages(&self, store: &mut Xenstored) -> Vec<(u32, Vec<u8>)> {
        let output = store.output(self.id);
        let mut rest = &output[..];
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let word =
                |index: usize| u32::from_le_bytes(rest[4 * index..][..4].try_into().unwrap());
            let (kind, len) = (word(0), word(3) as usize);
            messages.push((kind, rest[16..16 + len].to_vec()));
            rest = &rest[16 + len..];
        }
        messages
    }

    fn one(&self, store: &mut Xenstored, kind: u32, tx: u32, payload: &[u8]) -> (u32, Vec<u8>) {
        let mut messages = self.ask(store, kind, tx, payload);
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }
}

fn guest() -> (Xenstored, Client) {
    let mut store = Xenstored::default();
    store.introduce(3);
    let id = store.connect(3);
    (store, Client { id })
}

fn ok(kind: u32) -> (u32, Vec<u8>) {
    (kind, b"OK\0".to_vec())
}

fn error(name: &str) -> (u32, Vec<u8>) {
    (ERROR, format!("{name}\0").into_bytes())
}

#[test]
fn a_guest_writes_below_its_own_directory_and_reads_what_it_may() {
    let (mut store, client) = guest();
    assert_eq!(client.one(&mut store, WRITE, 0, b"data/a\0hello"), ok(WRITE));
    assert_eq!(client.one(&mut store, READ, 0, b"data/a\0"), (READ, b"hello".to_vec()));
    assert_eq!(store.tree().value("/local/domain/3/data/a"), Some(&b"hello"[..]));
    assert_eq!(client.one(&mut store, DIRECTORY, 0, b"data\0"), (DIRECTORY, b"a\0".to_vec()));
    assert_eq!(client.one(&mut store, READ, 0, b"data/b\0"), error("ENOENT"));
    assert_eq!(client.one(&mut store, WRITE, 0, b"/local/domain/4/x\0y"), error("EACCES"));
    assert_eq!(client.one(&mut store, READ, 0, b"no//path\0"), error("EINVAL"));
    assert_eq!(client.one(&mut store, 99, 0, b"data\0"), error("ENOSYS"));

    store.write("/local/domain/0/backend/vif/3/0/state", "2").unwrap();
    let path = b"/local/domain/0/backend/vif/3/0/state\0";
    assert_eq!(client.one(&mut store, READ, 0, path), error("EACCES"));
    let permissions = Permissions::readable_by(0, 3);
    store.permit("/local/domain/0/backend/vif/3/0/state", permissions).unwrap();
    assert_eq!(client.one(&mut store, READ, 0, path), (READ, b"2".to_vec()));
}

#[test]
fn a_transaction_is_seen_whole_or_not_at_all() {
    let (mut store, client) = guest();
    assert_eq!(client.one(&mut store, START, 0, b"\0"), (START, b"1\0".to_vec()));
    assert_eq!(client.one(&mut store, WRITE, 1, b"data/a\0x"), ok(WRITE));
    assert_eq!(client.one(&mut store, READ, 1, b"data/a\0"), (READ, b"x".to_vec()));
    assert_eq!(client.one(&mut store, READ, 0, b"data/a\0"), error("ENOENT"));
    assert_eq!(client.one(&mut store, END, 1, b"T\0"), ok(END));
    assert_eq!(client.one(&mut store, READ, 0, b"data/a\0"), (READ, b"x".to_vec()));
    assert_eq!(client.one(&mut store, END, 1, b"T\0"), error("ENOENT"));
}

#[test]
fn a_transaction_that_saw_what_somebody_changed_gets_eagain() {
    let (mut store, client) = guest();
    store.write("/local/domain/3/data/a", "1").unwrap();
    store.write("/local/domain/3/data/b", "1").unwrap();
    client.one(&mut store, START, 0, b"\0");
    client.one(&mut store, READ, 1, b"data/a\0");
    client.one(&mut store, WRITE, 1, b"data/c\0mine");
    store.write("/local/domain/3/data/a", "2").unwrap();
    assert_eq!(client.one(&mut store, END, 1, b"T\0"), error("EAGAIN"));
    assert_eq!(store.tree().value("/local/domain/3/data/c"), None);
    // Somebody else's change elsewhere is no conflict, and is kept.
    client.one(&mut store, START, 0, b"\0");
    client.one(&mut store, READ, 2, b"data/a\0");
    client.one(&mut store, WRITE, 2, b"data/c\0mine");
    store.write("/local/domain/3/data/b", "2").unwrap();
    assert_eq!(client.one(&mut store, END, 2, b"T\0"), ok(END));
    assert_eq!(store.tree().value("/local/domain/3/data/b"), Some(&b"2"[..]));
    assert_eq!(store.tree().value("/local/domain/3/data/c"), Some(&b"mine"[..]));
}

#[test]
fn a_watch_fires_when_it_is_set_for_what_is_below_it_and_when_what_is_above_goes() {
    let (mut store, client) = guest();
    let event = |path: &str, token: &str| (EVENT, format!("{path}\0{token}\0").into_bytes());
    let set = client.ask(&mut store, WATCH, 0, b"device/vif\0tok\0");
    assert_eq!(set, [ok(WATCH), event("device/vif", "tok")]);
    assert_eq!(client.one(&mut store, WATCH, 0, b"device/vif\0tok\0"), error("EEXIST"));
    store.write("/local/domain/3/device/vif/0/state", "1").unwrap();
    assert_eq!(client.messages(&mut store), [event("device/vif/0/state", "tok")]);
    store.write("/local/domain/3/device/vifs", "1").unwrap();
    assert_eq!(client.messages(&mut store), []);
    store.remove("/local/domain/3/device").unwrap();
    assert_eq!(client.messages(&mut store), [event("device/vif", "tok")]);
}

#[test]
fn only_the_owner_sets_permissions_and_only_dom0_gives_away() {
    let (mut store, client) = guest();
    client.one(&mut store, WRITE, 0, b"data/ring\0" as &[u8]);
    assert_eq!(client.one(&mut store, SET_PERMS, 0, b"data/ring\0n3\0r9\0"), ok(SET_PERMS));
    let node = store.tree().node("/local/domain/3/data/ring").unwrap();
    assert_eq!(node.permissions, Permissions::readable_by(3, 9));
    assert_eq!(client.one(&mut store, SET_PERMS, 0, b"data/ring\0n9\0"), error("EACCES"));
    assert_eq!(client.one(&mut store, RM, 0, b"data/ring\0"), ok(RM));
    assert_eq!(client.one(&mut store, RM, 0, b"data/ring\0"), ok(RM));
    assert_eq!(client.one(&mut store, RM, 0, b"data/no/ring\0"), error("ENOENT"));
}

#[test]
fn bytes_that_are_no_message_end_the_connection_and_no_more() {
    let (mut store, client) = guest();
    let header: Vec<u8> = [READ, 1, 0, 5000].iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(store.input(client.id, &header), Err(Errno::E2big));
    let again = Client { id: store.connect(3) };
    assert_eq!(again.one(&mut store, WRITE, 0, b"data/a\0x"), ok(WRITE));
}
