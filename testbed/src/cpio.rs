//! Initial RAM file systems, in the "newc" format of cpio.
//!
//! The kernel unpacks such an archive into its first file system (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst). Writing one takes a page of code
//! and, unlike making the same tree on disk, no privileges: owner, mode and device numbers are
//! only figures in it.

use std::collections::BTreeMap;

/// What stands in the tree under a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File { mode: u32, data: Vec<u8> },
    Link { target: String },
}

/// A tree of files that becomes an archive. Parents are made when they are missing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    /// By path, without a slash at either end. A parent sorts before what is in it.
    nodes: BTreeMap<String, Node>,
}

/// File type bits of a mode, as `stat` shows them.
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

impl Tree {
    /// An empty folder.
    pub(crate) fn folder(&mut self, path: &str) {
        self.insert(path, Node::Folder);
    }

    /// A file with permission bits such as 0o755. Replaces what was there.
    pub(crate) fn file(&mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) {
        self.insert(path, Node::File { mode: mode & 0o7777, data: data.into() });
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.insert(path, Node::Link { target: target.to_owned() });
    }

    /// Whether something stands under `path`.
    pub(crate) fn contains(&self, path: &str) -> bool {
        self.nodes.contains_key(path.trim_matches('/'))
    }

    fn insert(&mut self, path: &str, node: Node) {
        let path = path.trim_matches('/');
        debug_assert!(!path.is_empty() && !path.contains("//"), "not a path of an archive: {path}");
        for (slash, _) in path.match_indices('/') {
            self.nodes.entry(path[..slash].to_owned()).or_insert(Node::Folder);
        }
        // A folder that is asked for again keeps what it is, a link to a folder included.
        if node != Node::Folder || !self.nodes.contains_key(path) {
            self.nodes.insert(path.to_owned(), node);
        }
    }

    /// The archive. The same tree gives the same bytes: times are zero, inodes are counted.
    pub(crate) fn archive(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, node)) in (1..).zip(&self.nodes) {
            let (mode, data): (u32, &[u8]) = match node {
                Node::Folder => (S_IFDIR | 0o755, &[]),
                Node::File { mode, data } => (S_IFREG | mode, data),
                Node::Link { target } => (S_IFLNK | 0o777, target.as_bytes()),
            };
            entry(&mut out, number, mode, path, data);
        }
        entry(&mut out, 0, 0, TRAILER, &[]);
        out
    }
}

/// One entry: the header of 13 hexadecimal fields, the name, the data, each padded to four bytes.
fn entry(out: &mut Vec<u8>, inode: u32, mode: u32, name: &str, data: &[u8]) {
    let links = if mode & S_IFDIR == S_IFDIR { 2 } else { 1 };
    let size = u32::try_from(data.len()).expect("files of an archive are below 4 GiB");
    let name_size = u32::try_from(name.len() + 1).expect("paths are short");
    // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name's size,
    // checksum.
    let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(data);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads an archive back: (mode, name, data) of each entry before the trailer.
    fn read(archive: &[u8]) -> Vec<(u32, String, Vec<u8>)> {
        let mut at = 0;
        let mut entries = Vec::new();
        loop {
            let header = &archive[at..at + 110];
            assert_eq!(&header[..6], b"070701");
            let field = |index: usize| {
                let text = &header[6 + index * 8..14 + index * 8];
                u32::from_str_radix(std::str::from_utf8(text).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = &archive[at + 110..at + 110 + name_size - 1];
            assert_eq!(archive[at + 109 + name_size], 0, "names end with a zero");
            let data = (at + 110 + name_size).next_multiple_of(4);
            at = (data + size).next_multiple_of(4);
            let name = String::from_utf8(name.to_vec()).unwrap();
            if name == TRAILER {
                assert_eq!(at, archive.len());
                return entries;
            }
            entries.push((mode, name, archive[data..data + size].to_vec()));
        }
    }

    #[test]
    fn parents_come_first_and_links_stay() {
        let mut tree = Tree::default();
        tree.file("/a/b/c", 0o755, "x");
        tree.link("/a/d", "b");
        tree.folder("a");
        assert!(tree.contains("/a/b") && !tree.contains("b"));
        let entries = read(&tree.archive());
        let names: Vec<_> = entries.iter().map(|(mode, name, _)| (*mode, name.as_str())).collect();
        assert_eq!(
            names,
            [(0o40755, "a"), (0o40755, "a/b"), (0o100_755, "a/b/c"), (0o120_777, "a/d")]
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            files in proptest::collection::btree_map("[a-z]{1,9}", any::<Vec<u8>>(), 0..9),
        ) {
            let mut tree = Tree::default();
            for (name, data) in &files {
                tree.file(name, 0o644, data.clone());
            }
            let read: BTreeMap<_, _> =
                read(&tree.archive()).into_iter().map(|(_, name, data)| (name, data)).collect();
            prop_assert_eq!(read, files);
        }
    }
}
