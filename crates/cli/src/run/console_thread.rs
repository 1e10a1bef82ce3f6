//! The thread that passes a machine's console on, whatever runs the machine.

use std::io::Read;
use std::path::PathBuf;
use std::thread::JoinHandle;

use crate::image::Image;
use crate::run::console::{Console, Symbolizer};
use crate::run::report::Reporter;
use crate::symbols;
use crate::ui::Ui;

/// What the thread reports while it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Bytes came and were passed on.
    Bytes,
    /// The console cannot be passed on: its reader is gone. Said once.
    ReaderGone,
    /// All of the console has been passed on.
    Ended,
}

/// What is known when the console has ended.
#[derive(Debug, Default)]
pub(crate) struct ConsoleEnd {
    /// The exit code that the machine announced.
    pub(crate) exit_code: Option<u8>,
    /// Build ids that addresses were seen of, but no symbols found.
    pub(crate) missing_symbols: Vec<String>,
}

impl ConsoleEnd {
    /// Says which symbols were missing.
    pub(crate) fn warn(&self, ui: Ui) {
        for build_id in &self.missing_symbols {
            ui.warn(&format!(
                "no symbols for build {build_id}: `fata symbolize --symbols FILE` takes them"
            ));
        }
    }
}

/// The thread.
pub(crate) struct ConsoleThread(JoinHandle<ConsoleEnd>);

impl ConsoleThread {
    /// Starts to pass on what `machine` says. Symbols lie beside `image` or in `symbol_stores`.
    pub(crate) fn start(
        machine: impl Read + Send + 'static,
        image: &Image,
        symbol_stores: Vec<PathBuf>,
        reporter: Reporter,
        report: impl FnMut(Seen) + Send + 'static,
    ) -> Self {
        let mut candidates = vec![symbols::beside(&image.path)];
        candidates.extend(symbol_stores);
        let symbolizer = Symbolizer::new(candidates, image.build_id.clone());
        let console = Console::new(reporter.console(), symbolizer);
        Self(std::thread::spawn(move || pass(machine, console, report)))
    }

    /// Waits for the console's end.
    pub(crate) fn join(self) -> ConsoleEnd {
        self.0.join().unwrap_or_default()
    }
}

fn pass(
    mut machine: impl Read,
    mut console: Console<Box<dyn std::io::Write + Send>>,
    mut report: impl FnMut(Seen),
) -> ConsoleEnd {
    let mut buffer = vec![0; 16 * 1024];
    let mut reader_gone = false;
    loop {
        match machine.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                if console.take(&buffer[..count]).is_err() && !reader_gone {
                    reader_gone = true;
                    report(Seen::ReaderGone);
                }
                report(Seen::Bytes);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let _ = console.finish();
    report(Seen::Ended);
    ConsoleEnd {
        exit_code: console.exit_code(),
        missing_symbols: console.missing_symbols().to_vec(),
    }
}
