//! The file into which dom0's console daemon writes what guests of one name say.
//!
//! It is written by dom0 and read by any number of processes of this computer, so nothing in it
//! ever moves: what is too old becomes a hole (fallocate(2)), and every place stays where it was.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, fallocate};

/// How much of a console is kept, in bytes; what is older goes. A person reads none of that much, and
/// it is small beside a host's memory. dom0's daemon passes on some 300 kB a second at most (60 KiB in
/// every 200 ms, xen/tools/console/daemon/io.c), so that who reads along is a minute away from a gap.
pub(crate) const KEPT_BYTES: u64 = 16 << 20;

/// How much more than that stays in the file, and by how much it grows until the oldest is given back:
/// whoever has just looked how long it is can still read all that is kept.
const SLACK_BYTES: u64 = 1 << 20;

/// The file, from where one guest's part of it begins.
#[derive(Debug)]
pub(crate) struct ConsoleFile {
    path: PathBuf,
    /// Where that part begins: a guest of the same name may have been there.
    start: u64,
    /// What is before this was given back.
    hole: AtomicU64,
}

impl ConsoleFile {
    /// The file, for a guest that has said nothing yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        let start = length(&path);
        Self { path, start, hole: AtomicU64::new(0) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where its end is now.
    pub(crate) fn end(&self) -> u64 {
        length(&self.path)
    }

    /// All that the guest has said and is kept.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes_from(0).1
    }

    /// What the guest has said from a place on, or from the first later one that is kept; with it.
    pub(crate) fn bytes_from(&self, place: u64) -> (u64, Vec<u8>) {
        let end = self.end();
        let place = place.max(self.start).max(end.saturating_sub(KEPT_BYTES));
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(place)).unwrap_or(0)];
        // What can be read is what there is.
        let read = File::open(&self.path).and_then(|file| file.read_exact_at(&mut bytes, place));
        if read.is_err() {
            bytes.clear();
        }
        (place, bytes)
    }

    /// Reads it from the beginning.
    pub(crate) fn follow(&self) -> Follower {
        Follower::new(&self.path, self.start)
    }

    /// Gives back what is older than what is kept. A file system that has no holes keeps it all, which
    /// hurts nobody but itself.
    pub(crate) fn give_back(&self) {
        let old = self.end().saturating_sub(KEPT_BYTES + SLACK_BYTES);
        let hole = self.hole.load(Ordering::Relaxed);
        if old < hole + SLACK_BYTES {
            return;
        }
        if let Ok(file) = File::options().write(true).open(&self.path) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = fallocate(&file, flags, 0, old);
        }
        self.hole.store(old, Ordering::Relaxed);
    }
}

/// Reads a console's file as it grows.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    file: Option<File>,
    place: u64,
    /// What is to be said before what comes next.
    notice: Vec<u8>,
}

impl Follower {
    /// From a place on.
    pub(crate) fn new(path: &Path, place: u64) -> Self {
        Self { path: path.to_owned(), file: None, place, notice: Vec::new() }
    }

    /// What is new, up to the buffer's length; nothing at the end. Whoever reads so slowly that
    /// something is not kept any more is told so in a line.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            // It is there from the first word on.
            file => match File::open(&self.path) {
                Ok(opened) => file.insert(opened),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
                Err(error) => return Err(error),
            },
        };
        let kept = file.metadata()?.len().saturating_sub(KEPT_BYTES);
        if self.place < kept {
            let lost = kept - self.place;
            self.notice = format!("\n[testbed: {lost} bytes were not read in time]\n").into_bytes();
            self.place = kept;
        }
        if !self.notice.is_empty() {
            let length = buffer.len().min(self.notice.len());
            buffer[..length].copy_from_slice(&self.notice[..length]);
            self.notice.drain(..length);
            return Ok(length);
        }
        let length = file.read_at(buffer, self.place)?;
        self.place += length as u64;
        Ok(length)
    }
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;

    /// A console whose guest says a mebibyte at a time; every byte tells which.
    struct Guest {
        _folder: tempfile::TempDir,
        console: ConsoleFile,
    }

    impl Guest {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("guest-web.log");
            std::fs::write(&path, "of the one before\n").unwrap();
            Self { _folder: folder, console: ConsoleFile::new(path) }
        }

        fn says(&self, number: u8) {
            let mut file = File::options().append(true).open(self.console.path()).unwrap();
            file.write_all(&vec![number; 1 << 20]).unwrap();
            self.console.give_back();
        }
    }

    /// How often each mebibyte's byte was read, by the byte.
    fn count(bytes: &[u8]) -> [u32; 256] {
        let mut counts = [0; 256];
        for byte in bytes {
            counts[usize::from(*byte)] += 1;
        }
        counts
    }

    #[test]
    fn a_guest_that_never_stops_talking_fills_no_disk() {
        let guest = Guest::new();
        let mut along = guest.console.follow();
        let mut slow = guest.console.follow();
        let mut buffer = vec![0; 1 << 20];
        for number in 128..168 {
            guest.says(number);
            // Who reads along misses nothing.
            assert_eq!(along.read(&mut buffer).unwrap(), 1 << 20);
            assert_eq!((buffer[0], buffer[(1 << 20) - 1]), (number, number));
            assert_eq!(along.read(&mut buffer).unwrap(), 0);
        }
        let used = guest.console.path().metadata().unwrap().blocks() * 512;
        let most = KEPT_BYTES + 2 * SLACK_BYTES + (64 << 10);
        assert!((KEPT_BYTES..most).contains(&used), "{used} bytes of the disk are used");

        let kept = guest.console.bytes();
        let counts = count(&kept);
        assert_eq!(kept.len() as u64, KEPT_BYTES);
        assert!((152..168).all(|number| counts[number] == 1 << 20), "the newest, whole");

        // Who does not is told, and goes on with what is kept.
        let mut read = Vec::new();
        loop {
            let length = slow.read(&mut buffer[..4096]).unwrap();
            if length == 0 {
                break;
            }
            read.extend(&buffer[..length]);
        }
        let notice = b"\n[testbed: 25165824 bytes were not read in time]\n";
        assert!(read.starts_with(notice));
        assert_eq!(count(&read[notice.len()..]), counts);
    }

    #[test]
    fn only_what_is_new_is_read() {
        let guest = Guest::new();
        assert_eq!(guest.console.bytes(), b"", "the one before is not this one");
        guest.says(1);
        let end = guest.console.end();
        let mut file = File::options().append(true).open(guest.console.path()).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(guest.console.bytes_from(end), (end, b"new".to_vec()));
        assert_eq!(guest.console.bytes_from(end + 99).1, b"");
        let nowhere = ConsoleFile::new("/nonexistent/guest-web.log".into());
        nowhere.give_back();
        assert_eq!(nowhere.bytes(), b"");
        assert_eq!(nowhere.follow().read(&mut [0; 9]).unwrap(), 0, "it may come yet");
    }
}
