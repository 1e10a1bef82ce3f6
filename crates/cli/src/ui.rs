//! What the person sees: status lines and a spinner on stderr, colour only on a terminal.
//!
//! stdout belongs to results (a description, JSON, a machine's console); everything that is said
//! *about* the work goes to stderr, so that a pipe carries results alone.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// When to write colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How the tool talks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ui {
    /// Colour on stderr.
    color_stderr: bool,
    /// Colour on stdout.
    color_stdout: bool,
    /// Whether stderr is a terminal, where a spinner may redraw its line.
    terminal: bool,
    /// -1 quiet, 0 ordinary, 1 and more verbose.
    level: i8,
}

impl Ui {
    /// Decides from the flags, the environment and where the streams go.
    pub(crate) fn new(color: Color, quiet: bool, verbose: u8) -> Self {
        let terminal = std::io::stderr().is_terminal();
        // https://no-color.org: set and not empty means no colour.
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let decide = |is_terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && !no_color,
        };
        Self {
            color_stderr: decide(terminal),
            color_stdout: decide(std::io::stdout().is_terminal()),
            terminal,
            level: if quiet { -1 } else { i8::try_from(verbose).unwrap_or(i8::MAX) },
        }
    }

    /// Whether `-v` was given.
    pub(crate) fn verbose(self) -> bool {
        self.level > 0
    }

    /// Whether diagnostics may carry ANSI colours.
    pub(crate) fn color_stderr(self) -> bool {
        self.color_stderr
    }

    /// `text` in bold for stdout.
    pub(crate) fn bold(self, text: &str) -> String {
        paint(self.color_stdout, "1", text)
    }

    /// A line of progress: a verb, then its object. Not shown with `-q`.
    pub(crate) fn status(self, verb: &str, rest: &str) {
        if self.level >= 0 {
            self.line(&format!(
                "{} {rest}",
                paint(self.color_stderr, "1;32", &format!("{verb:>12}"))
            ));
        }
    }

    /// A line for `-v` only.
    pub(crate) fn detail(self, text: &str) {
        if self.verbose() {
            self.line(&paint(self.color_stderr, "2", text));
        }
    }

    /// A warning.
    pub(crate) fn warn(self, text: &str) {
        self.line(&format!("{}: {text}", paint(self.color_stderr, "1;33", "warning")));
    }

    /// The error that ends the tool.
    pub(crate) fn failure(self, failure: &Failure) {
        let label = paint(self.color_stderr, "1;31", "error");
        self.line(&format!("{label}: {failure}"));
    }

    /// Text of another program, such as a compiler's diagnostic, passed on as it is.
    pub(crate) fn raw(self, text: &str) {
        self.line(text.trim_end_matches('\n'));
    }

    /// Writes one line to stderr. A stderr that is gone must not end the work.
    fn line(self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Shows that `what` is being done until the spinner is dropped.
    pub(crate) fn spinner(self, verb: &'static str, what: String) -> Spinner {
        if !self.terminal {
            self.status(verb, &what);
        }
        Spinner {
            ui: self,
            verb,
            what,
            doing: String::new(),
            started: Instant::now(),
            frame: 0,
            drawn: false,
        }
    }
}

fn paint(color: bool, code: &str, text: &str) -> String {
    if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A line on a terminal that shows what goes on and for how long; on anything else, plain lines.
pub(crate) struct Spinner {
    ui: Ui,
    verb: &'static str,
    what: String,
    doing: String,
    started: Instant,
    frame: usize,
    drawn: bool,
}

impl Spinner {
    /// How often `tick` should be called.
    pub(crate) const TICK: Duration = Duration::from_millis(100);

    /// Names the step that goes on now.
    pub(crate) fn doing(&mut self, step: &str) {
        if self.ui.terminal && !self.ui.verbose() {
            // cargo pads its verbs and appends paths; neither has room here.
            let step = step.trim_start().split(" (").next().unwrap_or_default();
            step.clone_into(&mut self.doing);
        } else if self.ui.level >= 0 {
            self.ui.raw(step);
        }
    }

    /// Redraws the line.
    pub(crate) fn tick(&mut self) {
        const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
        if !self.ui.terminal || self.ui.level < 0 {
            return;
        }
        self.frame = (self.frame + 1) % FRAMES.len();
        let verb = paint(self.ui.color_stderr, "1;36", self.verb);
        let doing =
            if self.doing.is_empty() { String::new() } else { format!(" · {}", self.doing) };
        // Cut by hand: a line that wraps cannot be erased with one carriage return.
        let line: String =
            format!("{} {:.0} s{doing}", self.what, self.started.elapsed().as_secs_f32())
                .chars()
                .take(60)
                .collect();
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "\r\x1b[K{:>11} {verb} {line}", FRAMES[self.frame]);
        let _ = stderr.flush();
        self.drawn = true;
    }

    /// Prints text above the spinner.
    pub(crate) fn above(&mut self, text: &str) {
        self.erase();
        self.ui.raw(text);
    }

    fn erase(&mut self) {
        if self.drawn {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K");
            let _ = stderr.flush();
            self.drawn = false;
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.erase();
    }
}

/// Bytes for a person: `812 B`, `2.1 KiB`, `2.1 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Replaces control characters, so that text from a file cannot drive the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(2_200_000), "2.1 MiB");
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn text_from_files_cannot_drive_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\nc");
    }
}
