//! Captures of a port, in virtual time.

use super::lane::Fate;
use core::fmt;
use core::time::Duration;
use fata_pcap::{Direction, InterfaceId, Note, Writer};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Names a directory that every world writes a pcapng file for each of its ports into.
pub const PCAP_DIRECTORY: &str = "FATA_PCAP";

/// Where the blocks of a capture go.
pub(crate) type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// Writes what passes one port. The frames that the host sent are there as it sent them, with a
/// comment where the link lost or changed them; of those for the host, the ones that arrived, and
/// how many were lost before each.
pub(crate) struct Capture {
    writer: Writer,
    interface: InterfaceId,
    sink: Sink,
    /// The blocks of one call.
    blocks: Vec<u8>,
    /// Frames for the host that were lost since the last one that arrived, and how the last of
    /// them was.
    lost: u64,
    last_lost: Option<Fate>,
}

impl Capture {
    pub(crate) fn new(port: &str, mut sink: Sink) -> Capture {
        let mut blocks = Vec::new();
        let mut writer = Writer::new(&mut blocks, "fata-testkit");
        let interface = writer.interface(&mut blocks, port);
        sink(&blocks);
        Capture { writer, interface, sink, blocks, lost: 0, last_lost: None }
    }

    fn write(&mut self, now: Duration, frame: &[u8], direction: Direction, note: &Note) {
        self.blocks.clear();
        let at_nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.writer.frame(&mut self.blocks, self.interface, at_nanos, frame, direction, note);
        (self.sink)(&self.blocks);
    }

    /// The host sent `frame`, and the link decided its fate.
    pub(crate) fn sent(&mut self, now: Duration, frame: &[u8], fate: Fate) {
        let note = Note { comment: fate.to_string(), dropped_before: 0 };
        self.write(now, frame, Direction::Outbound, &note);
    }

    /// The link to the host lost a frame.
    pub(crate) fn lost(&mut self, fate: Fate) {
        self.lost += 1;
        self.last_lost = Some(fate);
    }

    /// `frame` arrived at the host, perhaps with a bit flipped by the link to it.
    pub(crate) fn arrived(&mut self, now: Duration, frame: &[u8], is_corrupted: bool) {
        let before = self.last_lost.take();
        let lost = before
            .map(|fate| format!("before this one, {} for this port: the last {fate}", self.lost));
        let corrupted = is_corrupted.then(|| "a bit of it was flipped on the way".to_string());
        let words: Vec<String> = [corrupted, lost].into_iter().flatten().collect();
        let comment = words.join("; ");
        let note = Note { comment, dropped_before: std::mem::take(&mut self.lost) };
        self.write(now, frame, Direction::Inbound, &note);
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("writer", &self.writer).finish_non_exhaustive()
    }
}

impl fmt::Display for Fate {
    /// What happened to the frame, in words; nothing if it gets through as it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(lost) = self.lost {
            return write!(f, "{lost}");
        }
        let mut words = Vec::new();
        if self.is_corrupted {
            words.push("a bit of it is flipped".to_string());
        }
        if self.is_duplicated {
            words.push("it arrives twice".to_string());
        }
        if self.is_reordered {
            words.push("it may be overtaken".to_string());
        }
        if self.trailing_bytes > 0 {
            words.push(format!("{} bytes are added", self.trailing_bytes));
        }
        f.write_str(&words.join(", "))
    }
}

/// A capture in memory: what a port saw since it was begun.
#[derive(Clone, Debug, Default)]
pub struct Recording(Arc<Mutex<Vec<u8>>>);

impl Recording {
    /// The pcapng file so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub(crate) fn sink(&self) -> Sink {
        let bytes = self.0.clone();
        Box::new(move |blocks| {
            bytes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend_from_slice(blocks);
        })
    }
}

/// A sink that writes into a new file. What is written is there when the sink is dropped.
///
/// # Panics
/// Naming the file, if it cannot be written: whoever asks for a capture wants it.
pub(crate) fn file_sink(path: PathBuf) -> Sink {
    let fail = |path: &Path, error: std::io::Error| -> ! {
        panic!("the capture {} cannot be written: {error}", path.display())
    };
    let mut file = match File::create(&path) {
        Ok(file) => BufWriter::new(file),
        Err(error) => fail(&path, error),
    };
    Box::new(move |blocks| {
        if let Err(error) = file.write_all(blocks) {
            fail(&path, error);
        }
    })
}

/// Where the capture of `port` in the world of `seed` goes, if [`PCAP_DIRECTORY`] asks for any. The
/// file is named for the test that runs, too.
pub(crate) fn asked_for(seed: u64, port: &str) -> Option<PathBuf> {
    let directory = std::env::var_os(PCAP_DIRECTORY).filter(|value| !value.is_empty())?;
    // The harness names a test's thread for it.
    let thread = std::thread::current();
    let name = format!("{}.{seed}.{port}.pcapng", thread.name().unwrap_or("world"));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name = name.replace("::", "-").replace(|c: char| !is_plain(c), "_");
    let directory = PathBuf::from(directory);
    std::fs::create_dir_all(&directory).unwrap_or_else(|error| {
        panic!("{PCAP_DIRECTORY}: the directory {} cannot be made: {error}", directory.display())
    });
    Some(directory.join(name))
}
