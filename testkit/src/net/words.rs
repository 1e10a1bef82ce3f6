//! Impairments as people type them.

use super::impairments::{Bursts, Impairments, Silence};
use core::time::Duration;

/// What [`Impairments::set`] understands, with help.
pub const IMPAIRMENT_WORDS: [(&str, &str); 12] = [
    ("delay", "Time that a frame takes, such as 25ms"),
    ("jitter", "Up to so much more, such as 2ms"),
    ("rate", "Bits per second, such as 100M"),
    ("queue", "Bytes that wait when there is a rate, such as 150k"),
    ("loss", "Frames lost, such as 1%"),
    ("bursts", "BEGIN/END[/LOSS]: frames lost in bursts, such as 0.5%/25%/100%"),
    ("silence", "BYTES/TIME: all is lost for so long after so many bytes, such as 1M/1s"),
    ("ack-loss", "Pure acknowledgements lost, such as 10%"),
    ("duplicate", "Frames that arrive twice, such as 1%"),
    ("reorder", "SHARE/TIME: so many take so much longer, such as 1%/5ms"),
    ("corrupt", "Frames with a bit flipped, such as 0.1%"),
    ("mtu", "The largest IP packet that passes, in bytes"),
];

fn wrong(text: &str, expected: &str) -> String {
    format!("{text:?}: expected {expected}")
}

/// Reads a time such as `25ms`, `100us` or `1.5s`.
///
/// # Errors
/// The text, and what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = "a time such as 25ms, 100us or 1.5s";
    let at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(|| wrong(text, expected))?;
    let (number, unit) = text.split_at(at);
    let per_second = match unit {
        "s" => 1.0,
        "ms" => 1e3,
        "us" => 1e6,
        "ns" => 1e9,
        _ => return Err(wrong(text, expected)),
    };
    let number: f64 = number.parse().map_err(|_| wrong(text, expected))?;
    Duration::try_from_secs_f64(number / per_second).map_err(|_| wrong(text, expected))
}

/// `1%`, or `0.01`.
fn probability(text: &str) -> Result<f64, String> {
    let expected = "a share such as 1% or 0.01";
    let (number, divisor) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| wrong(text, expected))?;
    let share = number / divisor;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(wrong(text, expected)) }
}

/// `1500`, `150k`, `100M`: powers of ten.
fn number(text: &str) -> Result<u64, String> {
    let expected = "a number such as 1500, 150k or 100M";
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    number.ok_or_else(|| wrong(text, expected))
}

fn size(text: &str) -> Result<usize, String> {
    usize::try_from(number(text)?).map_err(|_| wrong(text, "a smaller number"))
}

impl Impairments {
    /// Sets one impairment as it is typed: `name` is one of [`IMPAIRMENT_WORDS`].
    ///
    /// # Errors
    /// The word that is wrong, and what was expected.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let pair = |expected| text.split_once('/').ok_or_else(|| wrong(text, expected));
        match name {
            "delay" => self.latency = parse_duration(text)?,
            "jitter" => self.jitter = parse_duration(text)?,
            "rate" => self.rate_bits_per_second = Some(number(text)?),
            "queue" => self.queue_bytes = size(text)?,
            "loss" => self.loss = probability(text)?,
            "bursts" => {
                let (begin, rest) = pair("BEGIN/END[/LOSS]")?;
                let (end, loss) = rest.split_once('/').unwrap_or((rest, "100%"));
                let [begin, end, loss] =
                    [probability(begin)?, probability(end)?, probability(loss)?];
                self.bursts = Some(Bursts { begin, end, loss });
            }
            "silence" => {
                let (bytes, time) = pair("BYTES/TIME")?;
                self.silence =
                    Some(Silence { every_bytes: number(bytes)?, lasts: parse_duration(time)? });
            }
            "ack-loss" => self.ack_loss = probability(text)?,
            "duplicate" => self.duplication = probability(text)?,
            "reorder" => {
                let (share, time) = pair("SHARE/TIME")?;
                (self.reordering, self.reordering_delay) =
                    (probability(share)?, parse_duration(time)?);
            }
            "corrupt" => self.corruption = probability(text)?,
            "mtu" => self.mtu = Some(size(text)?),
            _ => return Err(format!("there is no impairment {name:?}")),
        }
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_word_of_the_help_sets_what_it_says() {
        for (name, help) in IMPAIRMENT_WORDS {
            let example = help.rsplit_once("such as ").map_or("1400", |(_, example)| example);
            let mut impairments = Impairments::default();
            impairments.set(name, example).unwrap();
            assert_ne!(impairments, Impairments { queue_bytes: 0, ..Impairments::default() });
            assert!(name == "queue" || impairments != Impairments::default(), "{name} {example}");
        }
        let mut all = Impairments::default();
        for (name, text) in [("delay", "1.5ms"), ("loss", "0.02"), ("bursts", "1%/50%")] {
            all.set(name, text).unwrap();
        }
        assert_eq!((all.latency, all.loss), (Duration::from_micros(1500), 0.02));
        assert_eq!(all.bursts, Some(Bursts { begin: 0.01, end: 0.5, loss: 1.0 }));
        all.set("rate", "2G").unwrap();
        assert_eq!(all.rate_bits_per_second, Some(2_000_000_000));
    }

    #[test]
    fn a_word_that_is_wrong_is_named() {
        for (name, text) in [
            ("delay", "25"),
            ("delay", "-1ms"),
            ("delay", "1h"),
            ("loss", "101%"),
            ("loss", "x"),
            ("rate", "99999999999G"),
            ("reorder", "1%"),
            ("silence", "0/1s"),
            ("rate", "0"),
            ("colour", "red"),
        ] {
            let error = Impairments::default().set(name, text).unwrap_err();
            assert!(!error.is_empty(), "{name} {text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_words_never_panic(which in 0..IMPAIRMENT_WORDS.len(), text in "\\PC{0,12}") {
            let _ = Impairments::default().set(IMPAIRMENT_WORDS[which].0, &text);
        }
    }
}
