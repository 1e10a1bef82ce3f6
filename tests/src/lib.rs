//! What the tests that boot images share: building one, booting it, reading its console.
//!
//! Every wait has a deadline, and a machine ends with the value that stands for it.

mod network;

pub use network::Network;
pub mod xen;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

/// Long enough for any boot on a busy machine under emulation; a test that takes it has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root")
}

/// The `fata` command, built.
pub fn fata() -> Command {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--release", "--quiet", "-p", "fata-cli"])
            .current_dir(root())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "the fata command does not build");
    });
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    let mut command = Command::new(target.join("release/fata"));
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Builds the package in `folder` for `target`; returns the image's path.
pub fn build(folder: &str, target: &str) -> PathBuf {
    // One at a time: they share cargo's lock anyway, and the second caller finds it done.
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let key = format!("{folder} for {target}");
    if let Some(image) = built.get_or_insert_default().get(&key) {
        return image.clone();
    }
    let output = fata().args(["build", folder, "-t", target, "--json"]).output();
    let output = output.expect("fata runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "fata build {key}: {}\n{errors}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().expect("fata build --json prints JSON");
    let json: serde_json::Value = serde_json::from_str(last).expect("JSON");
    let image = PathBuf::from(json["image"].as_str().expect("the image's path"));
    built.get_or_insert_default().insert(key, image.clone());
    image
}

/// A port of the loopback interface that nobody had a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// A program that `fata run` runs. Ends with this value.
pub struct Machine {
    child: Child,
    lines: Receiver<String>,
    console: String,
}

impl Machine {
    /// Runs `fata run` with `arguments`.
    pub fn run<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Self {
        let mut command = fata();
        command.arg("run").args(arguments);
        Self::spawn(command)
    }

    /// Runs `command` and reads what it prints.
    pub fn spawn(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (sender, lines) = channel();
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("piped")),
            Box::new(child.stderr.take().expect("piped")),
        ];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut line = Vec::new();
                while reader.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
                    let text = String::from_utf8_lossy(&line).trim_end().to_string();
                    line.clear();
                    if sender.send(text).is_err() {
                        return;
                    }
                }
            });
        }
        Machine { child, lines, console: String::new() }
    }

    /// Waits for a line that contains `text`, and returns it.
    ///
    /// # Panics
    /// When the program ends, or the deadline passes, without one.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.keep(&line);
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => {
                    let why = match error {
                        RecvTimeoutError::Timeout => "in time",
                        RecvTimeoutError::Disconnected => "before the end",
                    };
                    panic!("no line with `{text}` {why}; the console:\n{}", self.console);
                }
            }
        }
    }

    /// Waits for the program's end; returns how it ended and all that it printed.
    ///
    /// # Panics
    /// When the deadline passes first.
    #[track_caller]
    pub fn wait(mut self) -> (ExitStatus, String) {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.keep(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("not at its end in time; the console:\n{}", self.console)
                }
            }
        }
        let status = self.child.wait().expect("it was started");
        (status, std::mem::take(&mut self.console))
    }

    /// The process of `fata run`.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What was printed so far, as far as it was waited for.
    pub fn console(&self) -> &str {
        &self.console
    }

    fn keep(&mut self, line: &str) {
        self.console.push_str(line);
        self.console.push('\n');
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        // Politely, so that it takes the machine along; then for good.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::yield_now();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{text}{errors}", output.status);
    text
}
