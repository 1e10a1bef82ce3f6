//! `fata symbolize`: names for the addresses in a console's log.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use crate::failure::{Exit, Failure, Result};
use crate::run::console::{Console, Symbolizer};
use crate::ui::Ui;

/// Copies stdin to stdout, with names added. Fails when a report's symbols are nowhere.
pub(crate) fn symbolize(ui: Ui, candidates: Vec<PathBuf>) -> Result<()> {
    for path in &candidates {
        if !path.exists() {
            let what = format!("--symbols {}: no such file or directory", path.display());
            return Err(Failure::new(Exit::Io, what));
        }
    }
    // A file that is named is taken for reports that announce no build id, too.
    let build_id = match candidates.as_slice() {
        [only] if only.is_file() => crate::symbols::build_id_of(only),
        _ => None,
    };
    ui.detail(&format!("symbols: {candidates:?} and target/fata/symbols"));
    let mut console = Console::new(std::io::stdout(), Symbolizer::new(candidates, build_id));
    let mut stdin = std::io::stdin().lock();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = stdin.read(&mut buffer).map_err(|error| Failure::io("read stdin", &error))?;
        if count == 0 {
            break;
        }
        console.take(&buffer[..count]).map_err(|error| Failure::io("write to stdout", &error))?;
    }
    console.finish().map_err(|error| Failure::io("write to stdout", &error))?;
    let _ = std::io::stdout().flush();
    match console.missing_symbols() {
        [] => Ok(()),
        missing => {
            let what = format!("no symbols found for build {}", missing.join(", "));
            Err(Failure::new(Exit::Image, what).help(
                "name the unstripped program with --symbols; `fata build` keeps it as IMAGE.debug",
            ))
        }
    }
}
