//! What is stored: nodes with values and permissions.

use std::collections::BTreeMap;

/// An errno as xenstored spells it in an XS_ERROR message (`xsd_errors`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Errno {
    /// The request is malformed.
    Einval,
    /// Permission denied.
    Eacces,
    /// A watch that exists already.
    Eexist,
    /// No such node.
    Enoent,
    /// A quota is used up.
    Enospc,
    /// A request that is unknown here.
    Enosys,
    /// The transaction lost against somebody else's.
    Eagain,
    /// A name or value is too big.
    E2big,
    /// Too many transactions or watches.
    Equota,
}

impl Errno {
    /// The name in the message.
    pub fn name(self) -> &'static str {
        match self {
            Errno::Einval => "EINVAL",
            Errno::Eacces => "EACCES",
            Errno::Eexist => "EEXIST",
            Errno::Enoent => "ENOENT",
            Errno::Enospc => "ENOSPC",
            Errno::Enosys => "ENOSYS",
            Errno::Eagain => "EAGAIN",
            Errno::E2big => "E2BIG",
            Errno::Equota => "ENOSPC",
        }
    }
}

/// Who may do what with a node: xs_permissions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Permissions {
    /// May do everything.
    pub owner: u16,
    /// What those may who are not named: `n`, `r`, `w` or `b`.
    pub others: u8,
    /// Those who are named, each with `n`, `r`, `w` or `b`.
    pub named: Vec<(u16, u8)>,
}

impl Permissions {
    /// Owned by a domain, and nobody else's.
    pub fn of(owner: u16) -> Self {
        Permissions { owner, others: b'n', named: Vec::new() }
    }

    /// The same, and one other domain may read.
    pub fn readable_by(owner: u16, reader: u16) -> Self {
        Permissions { owner, others: b'n', named: vec![(reader, b'r')] }
    }

    fn letter(&self, domain: u16) -> u8 {
        if domain == 0 || domain == self.owner {
            return b'b';
        }
        self.named
            .iter()
            .find(|(named, _)| *named == domain)
            .map_or(self.others, |(_, letter)| *letter)
    }

    /// True if this domain may read.
    pub fn may_read(&self, domain: u16) -> bool {
        matches!(self.letter(domain), b'r' | b'b')
    }

    /// True if this domain may write.
    pub fn may_write(&self, domain: u16) -> bool {
        matches!(self.letter(domain), b'w' | b'b')
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its value.
    pub value: Vec<u8>,
    /// Its permissions.
    pub permissions: Permissions,
}

/// All nodes, by absolute path. The root is always there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node { value: Vec::new(), permissions: Permissions::of(0) };
        Tree { nodes: BTreeMap::from([("/".into(), root)]) }
    }
}

/// The path of the node above; the root's is the root.
fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(slash) => &path[..slash],
    }
}

/// True if `path` is `ancestor` or below it.
pub(super) fn is_within(path: &str, ancestor: &str) -> bool {
    ancestor == "/"
        || path == ancestor
        || (path.starts_with(ancestor) && path.as_bytes().get(ancestor.len()) == Some(&b'/'))
}

impl Tree {
    /// The node at a path, whoever asks.
    pub fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The value at a path, whoever asks.
    pub fn value(&self, path: &str) -> Option<&[u8]> {
        self.node(path).map(|node| node.value.as_slice())
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// False: the root is always there.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The node that a domain may read.
    ///
    /// # Errors
    /// ENOENT, EACCES.
    pub fn read(&self, domain: u16, path: &str) -> Result<&Node, Errno> {
        // Whether a node exists is told only to those who may read what is above it.
        let node = self.nodes.get(path).ok_or_else(|| self.missing(domain, path))?;
        node.permissions.may_read(domain).then_some(node).ok_or(Errno::Eacces)
    }

    fn missing(&self, domain: u16, path: &str) -> Errno {
        let above = self.closest(path);
        if above.permissions.may_read(domain) { Errno::Enoent } else { Errno::Eacces }
    }

    /// The closest node that exists, above a path or at it.
    fn closest(&self, path: &str) -> &Node {
        let mut path = path;
        loop {
            if let Some(node) = self.nodes.get(path) {
                return node;
            }
            path = parent(path);
        }
    }

    /// Makes the node and those above it that are missing. False if it was there.
    ///
    /// # Errors
    /// EACCES.
    pub fn make(&mut self, domain: u16, path: &str) -> Result<bool, Errno> {
        if self.nodes.contains_key(path) {
            return Ok(false);
        }
        let above = self.closest(path).permissions.clone();
        if !above.may_write(domain) {
            return Err(Errno::Eacces);
        }
        // A new node has the permissions of the one above it; but what a guest makes is its own.
        let owner = if domain == 0 { above.owner } else { domain };
        let permissions = Permissions { owner, ..above };
        let mut missing = path;
        while !self.nodes.contains_key(missing) {
            let node = Node { value: Vec::new(), permissions: permissions.clone() };
            self.nodes.insert(missing.into(), node);
            missing = parent(missing);
        }
        Ok(true)
    }

    /// Writes a value, and makes the node if it is missing.
    ///
    /// # Errors
    /// EACCES.
    pub fn write(&mut self, domain: u16, path: &str, value: &[u8]) -> Result<(), Errno> {
        self.make(domain, path)?;
        let node = self.nodes.get_mut(path).ok_or(Errno::Enoent)?;
        if !node.permissions.may_write(domain) {
            return Err(Errno::Eacces);
        }
        node.value = value.into();
        Ok(())
    }

    /// Removes a node and all below it. One that is missing is fine if the one above it is there.
    ///
    /// # Errors
    /// EINVAL for the root, EACCES, ENOENT.
    pub fn remove(&mut self, domain: u16, path: &str) -> Result<(), Errno> {
        if path == "/" {
            return Err(Errno::Einval);
        }
        let Some(node) = self.nodes.get(path) else {
            let above = self.nodes.get(parent(path)).ok_or(Errno::Enoent)?;
            return above.permissions.may_write(domain).then_some(()).ok_or(Errno::Eacces);
        };
        if !node.permissions.may_write(domain) {
            return Err(Errno::Eacces);
        }
        self.nodes.retain(|other, _| !is_within(other, path));
        Ok(())
    }

    /// The names of the nodes directly below one.
    ///
    /// # Errors
    /// ENOENT, EACCES.
    pub fn list(&self, domain: u16, path: &str) -> Result<Vec<&str>, Errno> {
        self.read(domain, path)?;
        Ok(self
            .nodes
            .keys()
            .filter(|other| other.as_str() != "/" && parent(other) == path)
            .map(|other| &other[other.rfind('/').map_or(0, |slash| slash + 1)..])
            .collect())
    }

    /// Sets a node's permissions.
    ///
    /// # Errors
    /// ENOENT, EACCES: only the owner may, and only dom0 may give a node away.
    pub fn permit(
        &mut self,
        domain: u16,
        path: &str,
        permissions: Permissions,
    ) -> Result<(), Errno> {
        let node = self.nodes.get_mut(path).ok_or(Errno::Enoent)?;
        let owner = node.permissions.owner;
        if domain != 0 && (domain != owner || permissions.owner != owner) {
            return Err(Errno::Eacces);
        }
        node.permissions = permissions;
        Ok(())
    }

    /// The paths whose nodes differ between two trees.
    pub(super) fn differences<'a>(&'a self, other: &'a Tree) -> Vec<&'a str> {
        let changed = self.nodes.iter().filter(|(path, node)| other.nodes.get(*path) != Some(node));
        let added = other.nodes.keys().filter(|path| !self.nodes.contains_key(*path));
        changed.map(|(path, _)| path).chain(added).map(String::as_str).collect()
    }
}
