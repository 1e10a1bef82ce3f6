//! The command line.

use fata_testkit::net::{IMPAIRMENT_WORDS, Impairments, parse_duration};
use std::path::PathBuf;
use std::time::Duration;

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(crate) struct Arguments {
    /// The two interfaces: left, right.
    pub(crate) taps: [String; 2],
    /// What happens to frames from the left, and from the right.
    pub(crate) impairments: [Impairments; 2],
    pub(crate) seed: u64,
    pub(crate) json: bool,
    pub(crate) pcap: Option<PathBuf>,
    pub(crate) duration: Option<Duration>,
}

pub(crate) fn help() -> String {
    let mut text = String::from(
        "A bad link between two TAP interfaces, in real time. Ends with Ctrl-C, and then says what \
         it did.\n\n\
         Usage: impair --left.tap NAME --right.tap NAME [OPTION VALUE]…\n\n",
    );
    for (name, help) in IMPAIRMENT_WORDS {
        text.push_str(&format!("  --{name:<10} {help}\n"));
    }
    text.push_str(
        "\nEach is for both directions; --to-right.NAME and --to-left.NAME are for one.\n\n  \
         --seed       Decides all chances [default: 1]\n  \
         --pcap       Writes what passes both interfaces into this file, as pcapng\n  \
         --duration   Ends after so long, such as 10s\n  \
         --json       Prints the counters as JSON\n",
    );
    text
}

impl Arguments {
    /// `None` if help was asked for.
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Option<Self>, String> {
        let mut arguments = Arguments {
            taps: [String::new(), String::new()],
            impairments: [Impairments::default(), Impairments::default()],
            seed: 1,
            json: false,
            pcap: None,
            duration: None,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let option = word
                .strip_prefix("--")
                .ok_or_else(|| format!("{word:?}: expected an option, which begins with --"))?;
            match option {
                "help" => return Ok(None),
                "json" => {
                    arguments.json = true;
                    continue;
                }
                _ => {}
            }
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name.to_string(), value.to_string()),
                None => {
                    let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
                    (option.to_string(), value)
                }
            };
            arguments.set(&name, value).map_err(|error| format!("--{name}: {error}"))?;
        }
        for (side, tap) in ["left", "right"].iter().zip(&arguments.taps) {
            if tap.is_empty() {
                return Err(format!("--{side}.tap is missing: which TAP interface?"));
            }
        }
        Ok(Some(arguments))
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "left.tap" => self.taps[0] = value,
            "right.tap" => self.taps[1] = value,
            "seed" => {
                self.seed =
                    value.parse().map_err(|_| format!("{value:?} is no number of 64 bits"))?;
            }
            "pcap" => self.pcap = Some(value.into()),
            "duration" => self.duration = Some(parse_duration(&value)?),
            _ => {
                let (sides, name) = match name.split_once('.') {
                    Some(("to-right", name)) => (0..1, name),
                    Some(("to-left", name)) => (1..2, name),
                    _ => (0..2, name),
                };
                for side in sides {
                    self.impairments[side].set(name, &value)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Arguments>, String> {
        Arguments::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn both_directions_or_one() {
        let line = "--left.tap a --right.tap=b --delay 25ms --to-right.loss 1% --seed 7 --json";
        let arguments = parse(line).unwrap().unwrap();
        assert_eq!(arguments.taps, ["a", "b"]);
        assert_eq!(arguments.impairments[1], Impairments::latency(Duration::from_millis(25)));
        assert_eq!(arguments.impairments[0].loss, 0.01);
        assert!(arguments.json && arguments.seed == 7);
        assert_eq!(parse("--help"), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, named) in [
            ("", "--left.tap"),
            ("--left.tap a", "--right.tap"),
            ("--left.tap", "needs a value"),
            ("x", "\"x\""),
            ("--loss 200%", "--loss"),
            ("--to-right.los 1%", "los"),
            ("--up.loss 1%", "up.loss"),
            ("--seed x", "--seed"),
            ("--duration 5", "--duration"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn help_names_every_impairment() {
        assert!(IMPAIRMENT_WORDS.iter().all(|(name, _)| help().contains(&format!("--{name}"))));
    }
}
