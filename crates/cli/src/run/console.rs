//! The machine's console on its way to the terminal.
//!
//! Bytes pass as they come and in their order. Behind the lines of a crash report, which hold bare
//! addresses, the names of functions are added; nothing else is changed.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::symbols::{Frame, Symbols, find};

/// How much of a line is looked at. The lines of a crash report are shorter; a program may print
/// lines of any length, which must not cost memory.
const LINE_BYTES_MAX: usize = 256;

/// Finds the names of addresses, for whatever build id a report announces.
pub(crate) struct Symbolizer {
    /// Where symbols may lie: files, or directories of files named after build ids.
    candidates: Vec<PathBuf>,
    /// The build id that holds until a report announces another.
    build_id: Option<String>,
    /// What was found for `build_id`, once it was looked for.
    symbols: Option<Option<Symbols>>,
    /// Build ids that nothing was found for.
    missing: Vec<String>,
}

impl Symbolizer {
    /// Looks in `candidates`; `build_id` is the one of reports that announce none.
    pub(crate) fn new(candidates: Vec<PathBuf>, build_id: Option<String>) -> Self {
        Self { candidates, build_id, symbols: None, missing: Vec::new() }
    }

    /// Build ids that addresses were seen of, but no symbols found.
    pub(crate) fn missing(&self) -> &[String] {
        &self.missing
    }

    fn announce(&mut self, build_id: &str) {
        if self.build_id.as_deref() != Some(build_id) {
            self.build_id = Some(build_id.to_owned());
            self.symbols = None;
        }
    }

    /// The functions at `address`, the innermost first.
    fn names(&mut self, address: u64, is_return: bool) -> Vec<String> {
        let Some(build_id) = &self.build_id else { return Vec::new() };
        let symbols = self.symbols.get_or_insert_with(|| {
            let found = find(build_id, &self.candidates).and_then(|path| Symbols::open(&path).ok());
            if found.is_none() && !self.missing.contains(build_id) {
                self.missing.push(build_id.clone());
            }
            found
        });
        let frames = symbols.as_ref().map(|symbols| symbols.frames(address, is_return));
        shown(&frames.unwrap_or_default())
    }
}

/// Of functions inlined into each other: the innermost, the outermost, and between them those of the
/// program's own sources. An executor's dozen of layers would hide them.
fn shown(frames: &[Frame]) -> Vec<String> {
    let last = frames.len().saturating_sub(1);
    let is_shown = |(index, frame): &(usize, &Frame)| *index == 0 || *index == last || frame.own;
    frames.iter().enumerate().filter(is_shown).map(|(_, frame)| frame.to_string()).collect()
}

/// A line of the machine's that means something to the tool.
#[derive(Debug, PartialEq, Eq)]
enum Report<'a> {
    /// `fata: backtrace of build 0123…`
    Build(&'a str),
    /// `fata:   #0 0x0000000000203412`
    Frame { index: u32, address: u64 },
    /// `fata: exit code 103`
    ExitCode(u8),
}

impl<'a> Report<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.trim_end();
        let rest = line.strip_prefix("fata: ")?;
        if let Some(id) = rest.strip_prefix("backtrace of build ") {
            let is_id = (2..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
            return is_id.then_some(Report::Build(id));
        }
        if let Some(code) = rest.strip_prefix("exit code ") {
            return code.parse().ok().map(Report::ExitCode);
        }
        let (index, address) = rest.trim_start().strip_prefix('#')?.split_once(' ')?;
        let address = u64::from_str_radix(address.trim().strip_prefix("0x")?, 16).ok()?;
        Some(Report::Frame { index: index.parse().ok()?, address })
    }
}

/// Passes console bytes on to `out`.
pub(crate) struct Console<W> {
    out: W,
    symbolizer: Symbolizer,
    /// The line so far, up to [`LINE_BYTES_MAX`].
    line: Vec<u8>,
    /// A carriage return at the end of what came, which may belong to the line's end.
    held_return: bool,
    exit_code: Option<u8>,
}

impl<W: Write> Console<W> {
    /// A console that writes to `out`.
    pub(crate) fn new(out: W, symbolizer: Symbolizer) -> Self {
        Self { out, symbolizer, line: Vec::new(), held_return: false, exit_code: None }
    }

    /// The exit code that the machine announced last. Codes above 126 do not fit QEMU's status.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        self.exit_code
    }

    /// Build ids that no symbols were found for.
    pub(crate) fn missing_symbols(&self) -> &[String] {
        self.symbolizer.missing()
    }

    /// Takes what the machine printed, whatever the cut, and passes it on at once.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.part(&bytes[..end])?;
            self.end_line()?;
            bytes = &bytes[end + 1..];
        }
        self.part(bytes)?;
        self.out.flush()
    }

    /// The end of the stream: a line without an end counts as one.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if let Some(Report::ExitCode(code)) = Report::parse(&self.line) {
            self.exit_code = Some(code);
        }
        self.release()?;
        self.out.flush()
    }

    /// Bytes of one line, without its end.
    fn part(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.release()?;
        let room = LINE_BYTES_MAX - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        // Names go before the line's end, which may be CR LF: hold a CR back, but only in a report,
        // because elsewhere a lone CR redraws a line and must not wait.
        match bytes.split_last() {
            Some((b'\r', rest)) if self.line.starts_with(b"fata: ") => {
                self.held_return = true;
                self.out.write_all(rest)
            }
            _ => self.out.write_all(bytes),
        }
    }

    fn release(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.held_return) { self.out.write_all(b"\r") } else { Ok(()) }
    }

    fn end_line(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let end: &[u8] = if std::mem::take(&mut self.held_return) { b"\r\n" } else { b"\n" };
        let mut names = Vec::new();
        match Report::parse(&line) {
            Some(Report::Build(id)) => self.symbolizer.announce(id),
            Some(Report::ExitCode(code)) => self.exit_code = Some(code),
            Some(Report::Frame { index, address }) => {
                names = self.symbolizer.names(address, index > 0);
            }
            None => {}
        }
        let mut names = names.iter();
        if let Some(name) = names.next() {
            write!(self.out, " {name}")?;
        }
        self.out.write_all(end)?;
        // Functions that were inlined one into the other share an address: one line each.
        for name in names {
            write!(self.out, "fata:                         {name}")?;
            self.out.write_all(end)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn console() -> Console<Vec<u8>> {
        Console::new(Vec::new(), Symbolizer::new(Vec::new(), None))
    }

    #[test]
    fn reports_are_recognised_by_their_exact_shape() {
        let frame = Report::parse(b"fata:   #12 0x0000000000203412\r");
        assert_eq!(frame, Some(Report::Frame { index: 12, address: 0x20_3412 }));
        assert_eq!(Report::parse(b"fata: backtrace of build 00ff"), Some(Report::Build("00ff")));
        assert_eq!(Report::parse(b"fata: exit code 103"), Some(Report::ExitCode(103)));
        for line in [
            "",
            "fata:",
            "fata: exit code 256",
            "fata: backtrace of build ../x",
            "fata:   #x 0x1",
            "fata:   #0 1",
            " fata: exit code 1",
            "fata:   #0 0x11112222333344445",
        ] {
            assert_eq!(Report::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn functions_are_named_behind_their_address() {
        let own = std::env::current_exe().unwrap();
        let id = crate::symbols::build_id_of(&own).unwrap();
        let bytes = std::fs::read(&own).unwrap();
        let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(&*bytes).unwrap();
        let marker = {
            use object::{Object as _, ObjectSymbol as _};
            file.symbols()
                .find(|s| s.name().is_ok_and(|n| n.contains("nearest")))
                .unwrap()
                .address()
        };
        let report =
            format!("fata: backtrace of build {id}\r\nfata:   #0 {marker:#018x}\r\nend\r\n");
        // Whatever the cut, the result is the same.
        let mut whole = Console::new(Vec::new(), Symbolizer::new(vec![own.clone()], None));
        whole.take(report.as_bytes()).unwrap();
        let mut cut = Console::new(Vec::new(), Symbolizer::new(vec![own], None));
        for byte in report.as_bytes() {
            cut.take(&[*byte]).unwrap();
        }
        let text = String::from_utf8(whole.out).unwrap();
        assert!(text.contains("suggest::nearest"), "{text}");
        assert!(text.ends_with("\r\nend\r\n"), "{text}");
        assert_eq!(text.as_bytes(), cut.out);
    }

    #[test]
    fn layers_of_libraries_are_left_out() {
        let frame = |function: &str, own| Frame { function: function.into(), place: None, own };
        let frames = [
            frame("poll", false),
            frame("with", false),
            frame("handler", true),
            frame("enter", false),
            frame("main", false),
        ];
        assert_eq!(shown(&frames), ["poll", "handler", "main"]);
        assert_eq!(shown(&frames[..1]), ["poll"]);
        assert!(shown(&[]).is_empty());
    }

    #[test]
    fn missing_symbols_are_remembered() {
        let mut console = console();
        console.take(b"fata: backtrace of build 0123\nfata:   #0 0x1\nfata:   #1 0x2\n").unwrap();
        assert_eq!(console.missing_symbols(), ["0123"]);
    }

    #[test]
    fn the_last_announced_exit_code_counts() {
        let mut console = console();
        console.take(b"fata: exit code 7\nfata: exit code 200").unwrap();
        assert_eq!(console.exit_code(), Some(7));
        console.finish().unwrap();
        assert_eq!(console.exit_code(), Some(200));
    }

    proptest! {
        #[test]
        fn without_symbols_every_byte_passes_in_order(
            chunks in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..40),
                    Just(b"fata:   #0 0x1\r".to_vec()),
                    Just(b"\nfata: \r".to_vec()),
                ],
                0..12,
            )
        ) {
            let mut console = console();
            for chunk in &chunks {
                console.take(chunk).unwrap();
                prop_assert!(console.line.len() <= LINE_BYTES_MAX);
            }
            console.finish().unwrap();
            prop_assert_eq!(console.out, chunks.concat());
        }
    }
}
