//! Captures on a Xen host that this computer is: a tcpdump for each card, on the card's end in dom0.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Stdio};
use std::time::Duration;

use fata_testbed::{TCPDUMP_LISTENS, TCPDUMP_WORDS, frames_lost};

use crate::child::{self, Tethered, tethered};
use crate::failure::{Exit, Failure, Result};
use crate::run::pcap::Capture;
use crate::ui::printable;

/// How long tcpdump is given for the last frames of a domain that stands still: it needs
/// milliseconds to write what it was shown.
const LAST_FRAMES_TIME: Duration = Duration::from_millis(100);

/// How much of what tcpdump says is read, in bytes: it says a few lines.
const SAID_BYTES_MAX: u64 = 16 * 1024;

/// Finds tcpdump, if there is something to capture.
pub(super) fn find(captures: &[Capture]) -> Result<PathBuf> {
    if captures.is_empty() {
        return Ok(PathBuf::new());
    }
    child::find_program(OsStr::new("tcpdump")).ok_or_else(|| {
        Failure::new(Exit::Tool, "--pcap: tcpdump is not installed in dom0")
            .help("Debian and Ubuntu: apt install tcpdump")
    })
}

/// The captures of a domain.
#[derive(Default)]
pub(super) struct Dumps {
    running: Vec<Dump>,
    troubles: Vec<String>,
}

struct Dump {
    file: String,
    tcpdump: Tethered,
    said: BufReader<std::io::Take<ChildStderr>>,
}

impl Dumps {
    /// Captures the cards of the domain `id`, which is paused. Returns when no frame can escape.
    pub(super) fn start(&mut self, tcpdump: &Path, id: &str, captures: &[Capture]) -> Result<()> {
        for Capture { card, file } in captures {
            let output = File::create(file)
                .map_err(|error| Failure::io(format!("write the capture {file}"), &error))?;
            let mut command = tethered(tcpdump);
            command.args(TCPDUMP_WORDS.split(' ')).args(["-i", &format!("vif{id}.{card}")]);
            command.stdout(output).stderr(Stdio::piped());
            let mut tcpdump = Tethered::spawn(command, "tcpdump")?;
            let stderr = tcpdump.streams().stderr.take().expect("it is piped");
            let mut said = BufReader::new(stderr.take(SAID_BYTES_MAX));
            let mut all = String::new();
            while !all.contains(TCPDUMP_LISTENS) {
                let read = said.read_line(&mut all);
                if !read.is_ok_and(|bytes| bytes > 0) {
                    let what = format!("tcpdump cannot capture vif{id}.{card}");
                    let failure = Failure::new(Exit::Resource, what);
                    return Err(all
                        .lines()
                        .fold(failure, |failure, line| failure.note(printable(line))));
                }
            }
            self.running.push(Dump { file: file.clone(), tcpdump, said });
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Ends the captures of a domain that stands still.
    pub(super) fn end(&mut self) {
        std::thread::sleep(LAST_FRAMES_TIME);
        for mut dump in std::mem::take(&mut self.running) {
            dump.tcpdump.end();
            let mut said = String::new();
            // What it could not say is not known to be lost.
            let _ = dump.said.read_to_string(&mut said);
            let (file, lost) = (&dump.file, frames_lost(&said));
            if lost > 0 {
                self.troubles.push(format!("{lost} frames came too fast for {file}"));
            } else if !said.contains("captured") {
                let last = printable(said.lines().last().unwrap_or("it was killed"));
                self.troubles.push(format!("tcpdump ended early, {file}: {last}"));
            }
        }
    }

    /// What is missing in the files, in words.
    pub(super) fn troubles(&mut self) -> Vec<String> {
        std::mem::take(&mut self.troubles)
    }
}
