//! The frames of guests' interfaces, into files of this computer.
//!
//! dom0's tcpdump reads an interface's end in dom0 and writes into the shared folder; a thread here
//! moves what comes there into the file that was asked for, so that it can be read at any time. The
//! guest is created paused and runs when every tcpdump listens: its first frame is in the file. When
//! it ends it is paused, so that its last frames are there before its interfaces go.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::guest::{Guest, VifLink};

/// tcpdump's words, of which `-i INTERFACE` is left to say: frames whole and as they come, to its
/// standard output, which it needs no rights for when it has given up its own. Its buffer of 16 MiB
/// (`-B`, in KiB) is 256 of the largest frames that Linux passes uncut, 64 KiB; when they come
/// faster than dom0's one processor writes them, it says how many it lost: [`frames_lost`].
pub const TCPDUMP_WORDS: &str = "-n -U --immediate-mode -B 16384 -s 262144 -w -";

/// What tcpdump says when no frame can escape it any more.
pub const TCPDUMP_LISTENS: &str = "listening on";

/// How often what was captured is moved on. A frame is in the file within some of these.
const MOVE_INTERVAL: Duration = Duration::from_millis(20);

/// How much of what was moved is kept in the shared folder, in bytes: giving it back is a system
/// call, and the folder may be in memory.
const KEPT_BYTES_MAX: u64 = 4 << 20;

/// How many frames escaped, by what tcpdump said at its end: "3 packets dropped by kernel".
pub fn frames_lost(said: &str) -> u64 {
    let counts = said.lines().filter_map(|line| {
        let (count, what) = line.trim().split_once(' ')?;
        let dropped = what.starts_with("packet") && what.contains("dropped by");
        dropped.then(|| count.parse::<u64>().ok())?
    });
    counts.fold(0, u64::saturating_add)
}

/// The captures of one guest. Dropping them moves what is there and ends.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    running: Vec<Capture>,
    troubles: Vec<String>,
}

#[derive(Debug)]
struct Capture {
    /// The interface's place among the guest's.
    vif: usize,
    /// tcpdump's output, in the shared folder.
    shared: PathBuf,
    /// The file that was asked for.
    file: PathBuf,
    stop: Arc<AtomicBool>,
    mover: Option<JoinHandle<std::io::Result<()>>>,
}

impl Captures {
    /// Makes the files of all interfaces of `guest` that are to be captured.
    pub(crate) fn prepare(guest: &Guest, share: &Path) -> Result<Self> {
        let mut captures = Self::default();
        for (place, vif) in guest.vifs.iter().enumerate() {
            let Some(file) = &vif.capture else { continue };
            if let VifLink::Backend(domain) = &vif.link {
                let what = format!("interface {place} is served by {domain}, not by dom0");
                return Err(Error::new(Kind::Usage, what).help("capture where it is served"));
            }
            let shared = share.join("files").join(format!("frames.{}", files::unique()));
            let made = |path: &Path| {
                let mut options = File::options();
                options
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(path)
                    .map_err(|error| Error::io(format!("write {}", path.display()), &error))
            };
            let (from, to) = (made(&shared)?, made(file)?);
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = stop.clone();
            let mover = std::thread::spawn(move || move_on(&from, to, &stopped));
            let mover = Some(mover);
            let file = file.clone();
            captures.running.push(Capture { vif: place, shared, file, stop, mover });
        }
        Ok(captures)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// A script that captures the interfaces of the domain `$id`, which is paused, and lets it go.
    pub(crate) fn start_script(&self) -> String {
        let mut script = String::new();
        for Capture { vif, shared, .. } in &self.running {
            let name = shared.file_name().unwrap_or_default().to_string_lossy();
            writeln!(
                script,
                "tcpdump {TCPDUMP_WORDS} -i vif$id.{vif} >/share/files/{name} \
                 2>/run/capture.$id.{vif}.said & echo $! >/run/capture.$id.{vif}.pid"
            )
            .expect("a String takes everything");
        }
        if !script.is_empty() {
            write!(
                script,
                "for pid in /run/capture.$id.*.pid; do\n\
                 said=${{pid%.pid}}.said\n\
                 until grep -q '{TCPDUMP_LISTENS}' $said; do\n\
                 [ -e /proc/$(cat $pid)/exe ] && usleep 20000 && continue\n\
                 cat $said >&2; xl destroy $id; exit 1\n\
                 done; done\n\
                 xl unpause $id || exit\n"
            )
            .expect("a String takes everything");
        }
        script
    }

    /// A script that ends the captures of domain `id`, which it pauses, and prints what tcpdump
    /// said of them. A frame takes milliseconds from the interface into the file. A process that has
    /// ended and was not waited for has no `exe` any more.
    pub(crate) fn stop_script(id: u16) -> String {
        format!(
            "xl pause {id} 2>/dev/null; usleep 100000\n\
             for pid in /run/capture.{id}.*.pid; do\n\
             tries=0\n\
             while readlink /proc/$(cat $pid)/exe | grep -q tcpdump; do\n\
             signal=TERM; [ $tries -lt 250 ] || signal=KILL; [ $tries -lt 500 ] || break\n\
             kill -$signal $(cat $pid); tries=$((tries + 1)); usleep 20000\n\
             done; done\n\
             cat /run/capture.{id}.*.said; rm -f /run/capture.{id}.*\n"
        )
    }

    /// Moves the rest, after tcpdump has ended; `said` is what it said.
    pub(crate) fn finish(&mut self, said: &str) {
        let lost = frames_lost(said);
        if lost > 0 {
            self.troubles.push(format!("{lost} frames came too fast to be captured"));
        }
        for mut capture in std::mem::take(&mut self.running) {
            if let Err(error) = capture.end() {
                self.troubles.push(format!("{} is not whole: {error}", capture.file.display()));
            }
        }
    }

    /// What is missing in the files, in words.
    pub(crate) fn troubles(&self) -> &[String] {
        &self.troubles
    }
}

impl Capture {
    fn end(&mut self) -> std::io::Result<()> {
        self.stop.store(true, Ordering::Release);
        let moved = self.mover.take().map_or(Ok(()), |mover| {
            mover.join().unwrap_or_else(|_| Err(std::io::Error::other("its thread died")))
        });
        // It goes with the host at the latest.
        let _ = std::fs::remove_file(&self.shared);
        moved
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Who wants to know has called `finish`.
        let _ = self.end();
    }
}

/// Moves what is written into `from` to the end of `to`, until all is moved and `stop` is set.
fn move_on(mut from: &File, mut to: File, stop: &AtomicBool) -> std::io::Result<()> {
    let (mut moved, mut given_back) = (0, 0);
    loop {
        let last = stop.load(Ordering::Acquire);
        moved += std::io::copy(&mut from, &mut to)?;
        if moved - given_back > KEPT_BYTES_MAX {
            given_back = moved;
            // A file system that cannot give it back keeps it until the end.
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = fallocate(from, hole, 0, moved);
        }
        if last {
            return Ok(());
        }
        std::thread::sleep(MOVE_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Vif;

    #[test]
    fn what_was_moved_is_given_back_while_tcpdump_writes_on() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (shared, file) = (folder.path().join("shared"), folder.path().join("web.pcap"));
        let bytes: Vec<u8> = (0..=2 * KEPT_BYTES_MAX).map(|i| (i % 251) as u8).collect();
        std::fs::write(&shared, &bytes).unwrap();
        let from = File::options().read(true).write(true).open(&shared).unwrap();
        let to = File::create(&file).unwrap();
        let all = AtomicBool::new(true);
        move_on(&from, to.try_clone().unwrap(), &all).unwrap();
        let kept = shared.metadata().unwrap();
        assert_eq!(kept.len(), bytes.len() as u64);
        assert!(kept.blocks() * 512 < KEPT_BYTES_MAX, "{} blocks", kept.blocks());
        let mut tcpdump = File::options().append(true).open(&shared).unwrap();
        std::io::Write::write_all(&mut tcpdump, b"end").unwrap();
        move_on(&from, to, &all).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), [&bytes[..], b"end"].concat());
    }

    #[test]
    fn the_end_of_a_guest_moves_the_rest_and_tells_what_is_missing() {
        let share = tempfile::tempdir().unwrap();
        files::make_folder(&share.path().join("files")).unwrap();
        let file = share.path().join("web.pcap");
        let mut guest = Guest::new("web", "/kernel");
        guest.vifs.push(Vif::bridge("xenbr0"));
        guest.vifs.push(Vif { capture: Some(file.clone()), ..Vif::bridge("xenbr0") });
        let mut captures = Captures::prepare(&guest, share.path()).unwrap();
        let script = captures.start_script();
        assert!(script.contains("-i vif$id.1 ") && !script.contains("vif$id.0"), "{script}");
        let shared = captures.running[0].shared.clone();
        std::fs::write(&shared, b"frames").unwrap();
        captures.finish("3 packets captured\n1 packet dropped by kernel\n");
        assert_eq!(captures.troubles(), ["1 frames came too fast to be captured"]);
        assert_eq!(std::fs::read(&file).unwrap(), b"frames");
        assert!(!shared.exists() && captures.is_empty());
    }

    #[test]
    fn an_interface_that_dom0_does_not_serve_is_refused() {
        let mut guest = Guest::new("web", "/kernel");
        guest.vifs.push(Vif { capture: Some("/x".into()), ..Vif::backend("router") });
        let error = Captures::prepare(&guest, Path::new("/")).unwrap_err();
        assert!(error.kind() == Kind::Usage && error.what().contains("router"), "{error}");
    }

    #[test]
    fn losses_are_those_that_tcpdump_counts() {
        let said = "tcpdump: listening on vif1.0, link-type EN10MB (Ethernet)\n\
                    17 packets captured\n20 packets received by filter\n3 packets dropped by kernel\n\
                    2 packets dropped by interface\nnonsense dropped by kernel\n";
        assert_eq!((frames_lost(said), frames_lost("")), (5, 0));
    }
}
