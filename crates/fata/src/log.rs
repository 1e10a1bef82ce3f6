//! The `tracing` subscriber of programs that bring none: one line an event, to standard error.
//!
//! Our own, and not `tracing-subscriber`, because it is part of every image: that crate's registry,
//! formats and filters cost more than the rest of a small program. A program that wants them says
//! `#[fata::main(log = false)]` and installs what it likes.
//!
//! `FATA_LOG=LEVEL` (`error`, `warn`, `info`, `debug`, `trace` or `off`; `info` without it) sets
//! what is shown.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::Instant;
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::{Dispatch, Event, LevelFilter, Metadata, Subscriber, dispatcher};

struct Console {
    level: LevelFilter,
    start: Instant,
}

/// Installs the subscriber, unless there is one already.
pub(crate) fn install() {
    let (level, complaint) = level(std::env::var("FATA_LOG").ok().as_deref());
    let console = Console { level, start: Instant::now() };
    // An error means that somebody was first, whose choice stands.
    let _ = dispatcher::set_global_default(Dispatch::new(console));
    if let Some(complaint) = complaint {
        eprintln!("{complaint}");
    }
}

/// The level that `FATA_LOG` asks for, and what is wrong with it.
fn level(text: Option<&str>) -> (LevelFilter, Option<String>) {
    match text.map(str::parse) {
        None => (LevelFilter::INFO, None),
        Some(Ok(level)) => (level, None),
        Some(Err(_)) => (
            LevelFilter::INFO,
            Some(format!(
                "FATA_LOG={}: expected off, error, warn, info, debug or trace; taking info",
                text.unwrap_or_default()
            )),
        ),
    }
}

impl Subscriber for Console {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let elapsed = self.start.elapsed();
        let mut line = Line(String::new());
        let _ = write!(
            line.0,
            "[{:>5}.{:06}] {:<5} {}:",
            elapsed.as_secs(),
            elapsed.subsec_micros(),
            event.metadata().level(),
            event.metadata().target()
        );
        event.record(&mut line);
        line.0.push('\n');
        // There is nobody to tell when the console is gone.
        let _ = std::io::stderr().write_all(line.0.as_bytes());
    }

    // Spans are not shown, so they need no identities of their own.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
    fn current_span(&self) -> Current {
        Current::none()
    }
}

/// An event's line as it grows, a field at a time.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let start = self.0.len();
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
        // A value may come from the network: it must not forge lines or drive the terminal.
        if self.0[start..].contains(|c: char| c.is_control()) {
            let escaped: String = self.0[start..]
                .chars()
                .flat_map(|c| {
                    let escape = c.is_control().then(|| c.escape_default());
                    let plain = (!c.is_control()).then_some(c);
                    escape.into_iter().flatten().chain(plain)
                })
                .collect();
            self.0.truncate(start);
            self.0.push_str(&escaped);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.record_debug(field, &format_args!("{value}")),
            _ => self.record_debug(field, &value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_does_not_parse_is_named() {
        assert_eq!(level(None), (LevelFilter::INFO, None));
        assert_eq!(level(Some("off")).0, LevelFilter::OFF);
        assert_eq!(level(Some("debug")).0, LevelFilter::DEBUG);
        let (level, complaint) = level(Some("loud"));
        assert_eq!(level, LevelFilter::INFO);
        assert!(complaint.is_some_and(|complaint| complaint.contains("loud")));
    }
}
