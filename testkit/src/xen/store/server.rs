//! The tree, served over connections in the bytes of xs_wire.h.

use super::tree::{Errno, Permissions, Tree, is_within};
use std::collections::{BTreeMap, BTreeSet};

/// `enum xsd_sockmsg_type` of xs_wire.h, as far as it is served.
mod kind {
    pub(super) const DIRECTORY: u32 = 1;
    pub(super) const READ: u32 = 2;
    pub(super) const GET_PERMS: u32 = 3;
    pub(super) const WATCH: u32 = 4;
    pub(super) const UNWATCH: u32 = 5;
    pub(super) const TRANSACTION_START: u32 = 6;
    pub(super) const TRANSACTION_END: u32 = 7;
    pub(super) const GET_DOMAIN_PATH: u32 = 10;
    pub(super) const WRITE: u32 = 11;
    pub(super) const MKDIR: u32 = 12;
    pub(super) const RM: u32 = 13;
    pub(super) const SET_PERMS: u32 = 14;
    pub(super) const WATCH_EVENT: u32 = 15;
    pub(super) const ERROR: u32 = 16;
    pub(super) const RESET_WATCHES: u32 = 21;
}

/// Bytes of `struct xsd_sockmsg`: type, request, transaction, length.
const HEADER_BYTES: usize = 16;
/// XENSTORE_PAYLOAD_MAX of xs_wire.h.
const PAYLOAD_BYTES_MAX: usize = 4096;

/// A connection: a guest's ring, or a process of dom0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u32);

/// What a guest may use up, with the defaults of C xenstored.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nodes that a domain may own.
    pub nodes_max: usize,
    /// Bytes of a value.
    pub value_bytes_max: usize,
    /// Watches of a connection.
    pub watches_max: usize,
    /// Transactions that a connection may have open.
    pub transactions_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { nodes_max: 1000, value_bytes_max: 2048, watches_max: 128, transactions_max: 10 }
    }
}

struct Transaction {
    /// The tree as it was when the transaction began, and with what it has done since.
    before: Tree,
    tree: Tree,
    /// What it has read: whoever changes one of these meanwhile makes it fail.
    read: BTreeSet<String>,
    wrote: bool,
    fires: Vec<Fire>,
}

#[derive(Clone)]
struct Fire {
    path: String,
    /// Watches below the path fire too: it was removed with all that was in it.
    below: bool,
}

#[derive(Default)]
struct Connection {
    domain: u16,
    input: Vec<u8>,
    output: Vec<u8>,
    /// (path as the client wrote it, token), with the absolute path.
    watches: Vec<(String, Vec<u8>, String)>,
    transactions: BTreeMap<u32, Transaction>,
    transactions_begun: u32,
}

/// An in-memory xenstored: see the [module](super).
#[derive(Default)]
pub struct Xenstored {
    tree: Tree,
    connections: BTreeMap<ConnectionId, Connection>,
    connections_made: u32,
    limits: Limits,
}

type Answer = Result<Vec<u8>, Errno>;

impl Xenstored {
    /// An empty one, but for the root.
    pub fn new(limits: Limits) -> Self {
        Xenstored { limits, ..Xenstored::default() }
    }

    /// Makes what a toolstack makes for a guest: `/local/domain/<id>`, its own.
    pub fn introduce(&mut self, domain: u16) {
        self.change(|tree| {
            for part in ["", "/device", "/backend", "/data", "/control", "/error"] {
                let path = format!("/local/domain/{domain}{part}");
                tree.write(0, &path, b"")?;
                tree.permit(0, &path, Permissions::of(domain))?;
            }
            Ok(vec!["@introduceDomain".into()])
        })
        .ok();
    }

    /// Removes what `introduce` made, and the domain's connections.
    pub fn release(&mut self, domain: u16) {
        self.connections.retain(|_, connection| connection.domain != domain);
        self.remove(&format!("/local/domain/{domain}")).ok();
        self.fire(&[Fire { path: "@releaseDomain".into(), below: false }]);
    }

    /// A new connection of a domain.
    pub fn connect(&mut self, domain: u16) -> ConnectionId {
        self.connections_made += 1;
        let id = ConnectionId(self.connections_made);
        self.connections.insert(id, Connection { domain, ..Connection::default() });
        id
    }

    /// The connection ends; its watches and transactions with it.
    pub fn disconnect(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
    }

    /// What is stored.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Writes as dom0 does (`xenstore-write`), and fires watches.
    ///
    /// # Errors
    /// None that a valid path can give.
    pub fn write(&mut self, path: &str, value: impl AsRef<[u8]>) -> Result<(), Errno> {
        self.change(|tree| {
            tree.write(0, path, value.as_ref())?;
            Ok(vec![path.into()])
        })
    }

    /// Writes several keys as dom0 in one transaction.
    ///
    /// # Errors
    /// None that valid paths can give.
    pub fn write_all(&mut self, keys: &[(String, String)]) -> Result<(), Errno> {
        self.change(|tree| {
            for (path, value) in keys {
                tree.write(0, path, value.as_bytes())?;
            }
            Ok(keys.iter().map(|(path, _)| path.clone()).collect())
        })
    }

    /// Removes as dom0 does (`xenstore-rm`), and fires watches.
    ///
    /// # Errors
    /// EINVAL, ENOENT.
    pub fn remove(&mut self, path: &str) -> Result<(), Errno> {
        self.tree.remove(0, path)?;
        self.fire(&[Fire { path: path.into(), below: true }]);
        Ok(())
    }

    /// Sets permissions as dom0 does (`xenstore-chmod`).
    ///
    /// # Errors
    /// ENOENT.
    pub fn permit(&mut self, path: &str, permissions: Permissions) -> Result<(), Errno> {
        self.change(|tree| {
            tree.permit(0, path, permissions)?;
            Ok(vec![path.into()])
        })
    }

    fn change(
        &mut self,
        change: impl FnOnce(&mut Tree) -> Result<Vec<String>, Errno>,
    ) -> Result<(), Errno> {
        let mut tree = self.tree.clone();
        let fires: Vec<_> =
            change(&mut tree)?.into_iter().map(|path| Fire { path, below: false }).collect();
        self.tree = tree;
        self.fire(&fires);
        Ok(())
    }

    /// Takes in bytes from a client, in pieces of any size, and answers all whole requests.
    ///
    /// # Errors
    /// The client has announced a payload that is too long: the real one ends the connection too.
    pub fn input(&mut self, id: ConnectionId, bytes: &[u8]) -> Result<(), Errno> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        connection.input.extend_from_slice(bytes);
        while let Some(connection) = self.connections.get_mut(&id) {
            let Some(header) = connection.input.first_chunk::<HEADER_BYTES>() else { break };
            let word = |index: usize| {
                u32::from_le_bytes(header[4 * index..][..4].try_into().expect("four bytes"))
            };
            let (kind, request, transaction, len) = (word(0), word(1), word(2), word(3) as usize);
            if len > PAYLOAD_BYTES_MAX {
                self.connections.remove(&id);
                return Err(Errno::E2big);
            }
            if connection.input.len() < HEADER_BYTES + len {
                break;
            }
            let message: Vec<u8> = connection.input.drain(..HEADER_BYTES + len).collect();
            let mut fires = Vec::new();
            let answer = self.serve(id, kind, transaction, &message[HEADER_BYTES..], &mut fires);
            self.answer(id, kind, request, transaction, answer);
            self.fire(&fires);
            if kind == kind::WATCH {
                self.fire_new_watch(id);
            }
        }
        Ok(())
    }

    /// Takes out what the client is to read.
    pub fn output(&mut self, id: ConnectionId) -> Vec<u8> {
        self.connections
            .get_mut(&id)
            .map(|connection| std::mem::take(&mut connection.output))
            .unwrap_or_default()
    }

    fn answer(&mut self, id: ConnectionId, kind: u32, request: u32, tx: u32, answer: Answer) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (kind, payload) = match answer {
            Ok(payload) => (kind, payload),
            Err(errno) => (kind::ERROR, [errno.name().as_bytes(), b"\0"].concat()),
        };
        put(&mut connection.output, kind, request, tx, &payload);
    }

    fn serve(
        &mut self,
        id: ConnectionId,
        kind: u32,
        tx: u32,
        payload: &[u8],
        fires: &mut Vec<Fire>,
    ) -> Answer {
        let limits = self.limits;
        let connection = self.connections.get_mut(&id).ok_or(Errno::Einval)?;
        let domain = connection.domain;
        match kind {
            kind::WATCH => return connection.watch(payload, &limits),
            kind::UNWATCH => return connection.unwatch(payload),
            kind::RESET_WATCHES => {
                connection.watches.clear();
                connection.transactions.clear();
                return Ok(b"OK\0".to_vec());
            }
            kind::TRANSACTION_START => {
                if tx != 0 || payload != b"\0" {
                    return Err(Errno::Einval);
                }
                return connection.begin(&self.tree, &limits);
            }
            kind::TRANSACTION_END => {
                let ended = connection.transactions.remove(&tx).ok_or(Errno::Enoent)?;
                return match payload {
                    b"F\0" => Ok(b"OK\0".to_vec()),
                    b"T\0" => self.commit(ended, fires),
                    _ => Err(Errno::Einval),
                };
            }
            kind::GET_DOMAIN_PATH => {
                let domain = text(payload)?.parse::<u16>().map_err(|_| Errno::Einval)?;
                return Ok(format!("/local/domain/{domain}\0").into_bytes());
            }
            _ => {}
        }
        if tx == 0 {
            let mut touched = Vec::new();
            let before = self.tree.clone();
            let answer = serve_node(&mut self.tree, domain, kind, payload, fires, &mut touched);
            return match answer {
                Ok(answer) if within_quota(&before, &self.tree, domain, &limits) => Ok(answer),
                Ok(_) => {
                    self.tree = before;
                    fires.clear();
                    Err(Errno::Enospc)
                }
                Err(errno) => Err(errno),
            };
        }
        let transaction = connection.transactions.get_mut(&tx).ok_or(Errno::Enoent)?;
        let mut own_fires = Vec::new();
        let mut touched = Vec::new();
        let answer =
            serve_node(&mut transaction.tree, domain, kind, payload, &mut own_fires, &mut touched);
        transaction.read.extend(touched);
        transaction.wrote |= !own_fires.is_empty();
        transaction.fires.extend(own_fires);
        answer
    }

    /// Makes a transaction's changes everybody's, unless somebody has changed what it saw.
    fn commit(&mut self, ended: Transaction, fires: &mut Vec<Fire>) -> Answer {
        let meanwhile = ended.before.differences(&self.tree);
        if meanwhile.iter().any(|path| ended.read.contains(*path)) {
            return Err(Errno::Eagain);
        }
        if ended.wrote {
            // What it has changed is put over what others have changed elsewhere.
            let mut tree = self.tree.clone();
            for path in ended.before.differences(&ended.tree) {
                match ended.tree.node(path) {
                    None => {
                        tree.remove(0, path).ok();
                    }
                    Some(node) => {
                        tree.write(0, path, &node.value)?;
                        tree.permit(0, path, node.permissions.clone())?;
                    }
                }
            }
            self.tree = tree;
            fires.extend(ended.fires);
        }
        Ok(b"OK\0".to_vec())
    }

    fn fire(&mut self, fires: &[Fire]) {
        for fire in fires {
            for connection in self.connections.values_mut() {
                let domain = connection.domain;
                for (written, token, watched) in &connection.watches {
                    let above = is_within(&fire.path, watched);
                    let is_concerned = above || (fire.below && is_within(watched, &fire.path));
                    if !is_concerned {
                        continue;
                    }
                    // Nobody learns of a node that he may not read.
                    let path = if above { &fire.path } else { watched };
                    let hidden =
                        self.tree.node(path).is_some_and(|node| !node.permissions.may_read(domain));
                    if hidden {
                        continue;
                    }
                    // As the client spoke of it: relative to its own directory, or not.
                    let home = format!("/local/domain/{domain}/");
                    let told = match written.starts_with(['/', '@']) {
                        true => path.as_str(),
                        false => path.strip_prefix(&home).unwrap_or(path),
                    };
                    let payload = [told.as_bytes(), b"\0", token, b"\0"].concat();
                    put(&mut connection.output, kind::WATCH_EVENT, 0, 0, &payload);
                }
            }
        }
    }

    /// A watch that was just set fires once, so that a client can look for the first time.
    fn fire_new_watch(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some((written, token, _)) =
            connection.watches.last_mut().filter(|watch| watch.2.ends_with('\0'))
        else {
            return;
        };
        let payload = [written.as_bytes(), b"\0", token, b"\0"].concat();
        put(&mut connection.output, kind::WATCH_EVENT, 0, 0, &payload);
        if let Some((_, _, absolute)) = connection.watches.last_mut() {
            absolute.pop();
        }
    }
}

impl Connection {
    fn watch(&mut self, payload: &[u8], limits: &Limits) -> Answer {
        let [path, token] = two(payload)?;
        let written = text(path)?.to_owned();
        let absolute = match written.as_str() {
            "@introduceDomain" | "@releaseDomain" => written.clone(),
            _ => absolute(self.domain, &written)?,
        };
        if self.watches.iter().any(|(other, known, _)| *other == written && known == token) {
            return Err(Errno::Eexist);
        }
        if self.watches.len() >= limits.watches_max && self.domain != 0 {
            return Err(Errno::Equota);
        }
        // The NUL, which no path has, marks it as new until it has fired.
        self.watches.push((written, token.into(), absolute + "\0"));
        Ok(b"OK\0".to_vec())
    }

    fn unwatch(&mut self, payload: &[u8]) -> Answer {
        let [path, token] = two(payload)?;
        let path = text(path)?;
        let found = self
            .watches
            .iter()
            .position(|(written, known, _)| written == path && known == token)
            .ok_or(Errno::Enoent)?;
        self.watches.remove(found);
        Ok(b"OK\0".to_vec())
    }

    fn begin(&mut self, tree: &Tree, limits: &Limits) -> Answer {
        if self.transactions.len() >= limits.transactions_max && self.domain != 0 {
            return Err(Errno::Equota);
        }
        self.transactions_begun += 1;
        let transaction = Transaction {
            before: tree.clone(),
            tree: tree.clone(),
            read: BTreeSet::new(),
            wrote: false,
            fires: Vec::new(),
        };
        self.transactions.insert(self.transactions_begun, transaction);
        Ok(format!("{}\0", self.transactions_begun).into_bytes())
    }
}

/// A request about a node. What was looked at goes into `touched`, what was changed into `fires`.
fn serve_node(
    tree: &mut Tree,
    domain: u16,
    kind: u32,
    payload: &[u8],
    fires: &mut Vec<Fire>,
    touched: &mut Vec<String>,
) -> Answer {
    let (name, rest) = match kind {
        kind::WRITE | kind::SET_PERMS => {
            let nul = payload.iter().position(|byte| *byte == 0).ok_or(Errno::Einval)?;
            (&payload[..=nul], &payload[nul + 1..])
        }
        _ => (payload, &[][..]),
    };
    let path = absolute(domain, text(name)?)?;
    touched.push(path.clone());
    let fire = |below| Fire { path: path.clone(), below };
    match kind {
        kind::READ => Ok(tree.read(domain, &path)?.value.clone()),
        kind::DIRECTORY => {
            let names = tree.list(domain, &path)?;
            Ok(names.iter().flat_map(|name| name.bytes().chain([0])).collect())
        }
        kind::GET_PERMS => {
            let permissions = &tree.read(domain, &path)?.permissions;
            let first = (permissions.owner, permissions.others);
            Ok([first]
                .iter()
                .chain(&permissions.named)
                .flat_map(|(id, letter)| format!("{}{id}\0", char::from(*letter)).into_bytes())
                .collect())
        }
        kind::WRITE => {
            if rest.len() > Limits::default().value_bytes_max && domain != 0 {
                return Err(Errno::Enospc);
            }
            tree.write(domain, &path, rest)?;
            fires.push(fire(false));
            Ok(b"OK\0".to_vec())
        }
        kind::MKDIR => {
            if tree.make(domain, &path)? {
                fires.push(fire(false));
            }
            Ok(b"OK\0".to_vec())
        }
        kind::RM => {
            let there = tree.node(&path).is_some();
            tree.remove(domain, &path)?;
            if there {
                fires.push(fire(true));
            }
            Ok(b"OK\0".to_vec())
        }
        kind::SET_PERMS => {
            let mut entries = rest.split_inclusive(|byte| *byte == 0).map(|entry| {
                let entry = text(entry)?;
                let letter = entry.bytes().next().filter(|l| b"nrwb".contains(l));
                let id = entry.get(1..).and_then(|id| id.parse().ok());
                letter.zip(id).ok_or(Errno::Einval)
            });
            let (others, owner) = entries.next().ok_or(Errno::Einval)??;
            let named = entries
                .map(|entry| entry.map(|(letter, id)| (id, letter)))
                .collect::<Result<Vec<_>, _>>()?;
            tree.permit(domain, &path, Permissions { owner, others, named })?;
            fires.push(fire(false));
            Ok(b"OK\0".to_vec())
        }
        _ => Err(Errno::Enosys),
    }
}

fn within_quota(before: &Tree, after: &Tree, domain: u16, limits: &Limits) -> bool {
    domain == 0 || after.len() <= before.len() || after.len() <= limits.nodes_max
}

fn put(output: &mut Vec<u8>, kind: u32, request: u32, tx: u32, payload: &[u8]) {
    for word in [kind, request, tx, payload.len() as u32] {
        output.extend_from_slice(&word.to_le_bytes());
    }
    output.extend_from_slice(payload);
}

/// A text that ends with its only NUL.
fn text(bytes: &[u8]) -> Result<&str, Errno> {
    let (&0, text) = bytes.split_last().ok_or(Errno::Einval)? else { return Err(Errno::Einval) };
    let text = std::str::from_utf8(text).map_err(|_| Errno::Einval)?;
    (!text.contains('\0')).then_some(text).ok_or(Errno::Einval)
}

/// Two texts: the first with its NUL, the second without.
fn two(payload: &[u8]) -> Result<[&[u8]; 2], Errno> {
    let nul = payload.iter().position(|byte| *byte == 0).ok_or(Errno::Einval)?;
    let (first, second) = payload.split_at(nul + 1);
    let (&0, second) = second.split_last().ok_or(Errno::Einval)? else {
        return Err(Errno::Einval);
    };
    Ok([first, second])
}

/// The path from the root: a relative one begins at the domain's own directory.
fn absolute(domain: u16, path: &str) -> Result<String, Errno> {
    let path = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/local/domain/{domain}/{path}"),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte);
    let clean = path == "/" || (!path.ends_with('/') && !path.contains("//"));
    let fits = path.len() <= 3072;
    (clean && fits && path.bytes().all(allowed)).then_some(path).ok_or(Errno::Einval)
}
