//! What the tests of the command share: running it, and images that are made by hand.
//!
//! A hand-made image is a real one: QEMU boots it, it prints and exits in a dozen instructions of
//! 32-bit code. So every path through `fata run` is tested with the real QEMU, and needs no compiler.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The command, with nothing of the caller's environment that would change its answers.
pub fn fata() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fata"));
    for name in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "FATA_QEMU", "CARGO"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the command with `words` to its end.
pub fn run(words: &[&str]) -> Answer {
    answer(fata().args(words))
}

/// Runs `command` to its end.
pub fn answer(command: &mut Command) -> Answer {
    Answer::from(command.output().expect("the command starts"))
}

/// What a run of the command said.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Answer {
    /// Asserts the exit code, and that stderr has every one of `words`.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(self.stderr.contains("error: "), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:#?}");
        }
    }

    /// Asserts success and returns stdout.
    #[track_caller]
    pub fn succeeds(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:#?}");
        &self.stdout
    }
}

/// A manifest; `devices` and `arguments` are JSON.
pub fn manifest(target: &str, devices: &str, arguments: &str) -> String {
    format!(
        r#"{{"fata":1,"package":"web","version":"0.1.0","target":"{target}","about":"Serves pages.","devices":[{devices}],"arguments":[{arguments}]}}"#
    )
}

pub const STACK: &str = r#"{"name":"service","kind":"stack","help":"The network."}"#;
pub const BLOCK: &str = r#"{"name":"data","kind":"block","help":"Holds the pages."}"#;
pub const PORT: &str = r#"{"name":"port","type":"u16","default":"443","help":"Port for HTTPS."}"#;

/// A guest's instructions, in 32-bit protected mode as PVH enters it.
#[derive(Default)]
pub struct Code(Vec<u8>);

impl Code {
    /// Writes `text` to COM1.
    pub fn print(mut self, text: &str) -> Self {
        for byte in text.bytes() {
            // mov al, byte; mov edx, 0x3f8; out dx, al
            self.0.extend([0xb0, byte, 0xba, 0xf8, 0x03, 0, 0, 0xee]);
        }
        self
    }

    /// Ends the machine: QEMU exits with (code << 1) | 1.
    pub fn exit(mut self, code: u8) -> Self {
        // mov al, code; mov edx, 0xf4; out dx, al
        self.0.extend([0xb0, code, 0xba, 0xf4, 0, 0, 0, 0xee]);
        self
    }

    /// Faults without a handler: the processor resets.
    pub fn triple_fault(mut self) -> Self {
        self.0.extend([0x0f, 0x0b]); // ud2, and no IDT
        self
    }

    /// Sleeps for good.
    pub fn halt(mut self) -> Self {
        self.0.extend([0xfa, 0xf4, 0xeb, 0xfd]); // cli; hlt; jmp to the hlt
        self
    }
}

fn note(owner: &str, kind: u32, desc: &[u8]) -> Vec<u8> {
    let name = [owner.as_bytes(), b"\0"].concat();
    let mut bytes = Vec::new();
    for word in [name.len() as u32, desc.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    for part in [name.as_slice(), desc] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The bytes of an image: a segment of code at 1 MiB, and a segment per note.
pub fn image_bytes(manifest: &str, code: Code, build_id: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x10_0000;
    const SEGMENTS: usize = 4;
    let entry = BASE + (64 + 56 * SEGMENTS) as u64;
    let notes = [
        note("Xen", 18, &(entry as u32).to_le_bytes()),
        note("GNU", 3, build_id),
        note("Fata", 1, manifest.as_bytes()),
    ];
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]); // ET_EXEC, EM_X86_64, EV_CURRENT
    file.extend(entry.to_le_bytes());
    file.extend(64u64.to_le_bytes()); // program headers
    file.extend(0u64.to_le_bytes()); // no section headers
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, SEGMENTS as u8, 0, 0, 0, 0, 0, 0, 0]);
    let mut body = Vec::new();
    let parts = [
        (1u32, 5u32, code.0),
        (4, 4, notes[0].clone()),
        (4, 4, notes[1].clone()),
        (4, 4, notes[2].clone()),
    ];
    for (kind, flags, bytes) in parts {
        body.resize(body.len().next_multiple_of(4), 0);
        let offset = (64 + 56 * SEGMENTS + body.len()) as u64;
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        let length = bytes.len() as u64;
        for field in [offset, BASE + offset, BASE + offset, length, length, 4] {
            file.extend(field.to_le_bytes());
        }
        body.extend(bytes);
    }
    // QEMU reads the entry as eight bytes.
    body.extend([0; 8]);
    file.extend(body);
    file
}

/// A directory with an image in it.
pub struct Fixture {
    pub directory: tempfile::TempDir,
    pub image: PathBuf,
}

impl Fixture {
    /// An image for virtio with these devices and arguments.
    pub fn new(devices: &str, arguments: &str, code: Code) -> Self {
        Self::on("virtio", devices, arguments, code)
    }

    /// An image for `target`.
    pub fn on(target: &str, devices: &str, arguments: &str, code: Code) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let image = directory.path().join(format!("web.{target}"));
        let bytes = image_bytes(&manifest(target, devices, arguments), code, &[0xab; 20]);
        std::fs::write(&image, bytes).expect("the image is written");
        Self { directory, image }
    }

    /// A program without devices.
    pub fn plain(code: Code) -> Self {
        Self::new("", "", code)
    }

    pub fn path(&self) -> &str {
        self.image.to_str().expect("UTF-8")
    }

    /// A file of zeros beside the image.
    pub fn file(&self, name: &str, bytes: u64) -> String {
        let path = self.directory.path().join(name);
        std::fs::File::create(&path).and_then(|file| file.set_len(bytes)).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// `fata run IMAGE words`, to its end.
    pub fn run(&self, words: &[&str]) -> Answer {
        answer(fata().arg("run").arg(&self.image).args(words))
    }
}

/// Waits until `condition` holds; a condition that never does fails the test.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::yield_now();
    }
}

/// Whether the process has ended (it may not have been waited for).
pub fn is_gone(pid: u64) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(_) => true,
        Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])),
    }
}

/// A Cargo package without dependencies.
pub fn package(directory: &Path, name: &str, main: &str) {
    std::fs::create_dir_all(directory.join("src")).expect("a directory");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n"
    );
    std::fs::write(directory.join("Cargo.toml"), manifest).expect("Cargo.toml");
    std::fs::write(directory.join("src/main.rs"), main).expect("main.rs");
}

/// A program for unix that carries `manifest` as `#[fata::main]` would put it, and runs `body`.
pub fn unix_program(manifest: &str, body: &str) -> String {
    let note = note("Fata", 1, manifest.as_bytes());
    format!(
        "#[used]\n#[unsafe(link_section = \".note.fata\")]\n\
         static NOTE: Note = Note(*b\"{}\");\n\
         #[repr(C, align(4))]\nstruct Note([u8; {}]);\n\
         fn main() {{\n{body}\n}}\n",
        note.escape_ascii(),
        note.len(),
    )
}
