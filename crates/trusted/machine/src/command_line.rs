//! What the boot command line says: to the machine, and to the program.
//!
//! The line is one string from the loader. It is split at whitespace; double quotes group. A word
//! `NAME=value` becomes an environment variable, `virtio_mmio.device=…` (which QEMU's microvm and
//! Firecracker append for each device) is the machine's own, every other word is an argument of the
//! program. A word that does not parse ends the boot with an error that names it: a machine that
//! starts with half of what it was told is worse than one that does not start.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The longest line that is read. QEMU and Firecracker append about 50 bytes per device and Linux
/// itself takes 2048; a line that is longer is refused, not cut.
pub const LENGTH_MAX: usize = 8192;

/// A window of registers on the virtio-mmio bus, as `virtio_mmio.device=SIZE@ADDRESS:IRQ` says
/// (Linux, Documentation/admin-guide/kernel-parameters.txt).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioDevice {
    /// Bytes of registers.
    pub bytes: u64,
    /// Their physical address.
    pub address: u64,
    /// The global system interrupt that the device raises.
    pub gsi: u32,
}

/// A command line, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The program's arguments, without the program's name.
    pub arguments: Vec<String>,
    /// `NAME=value` words, in order.
    pub environment: Vec<String>,
    /// The devices on the virtio-mmio bus, in order.
    pub mmio_devices: Vec<MmioDevice>,
}

/// Why a command line is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLineError {
    /// It is longer than [`LENGTH_MAX`].
    TooLong,
    /// It is not UTF-8, from this byte on.
    NotUtf8 {
        /// Index of the first byte that is wrong.
        at: usize,
    },
    /// A double quote is opened and not closed.
    UnbalancedQuote {
        /// The word, from its first letter to the end of the line.
        word: String,
    },
    /// A `virtio_mmio.device` word is not `SIZE@ADDRESS:IRQ`.
    BadMmioDevice {
        /// The whole word.
        word: String,
    },
    /// A word holds a zero byte, which no C string can carry.
    ZeroByte,
}

impl fmt::Display for CommandLineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the command line is longer than {LENGTH_MAX} bytes"),
            Self::NotUtf8 { at } => write!(f, "byte {at} of the command line is not UTF-8"),
            Self::UnbalancedQuote { word } => {
                write!(f, "the quote in `{word}` on the command line is never closed")
            }
            Self::BadMmioDevice { word } => {
                write!(f, "`{word}` on the command line is not virtio_mmio.device=SIZE@ADDRESS:IRQ")
            }
            Self::ZeroByte => write!(f, "the command line holds a zero byte"),
        }
    }
}

impl core::error::Error for CommandLineError {}

impl CommandLine {
    /// Reads a line.
    ///
    /// # Errors
    /// See [`CommandLineError`].
    pub fn parse(line: &[u8]) -> Result<Self, CommandLineError> {
        if line.len() > LENGTH_MAX {
            return Err(CommandLineError::TooLong);
        }
        let line = str::from_utf8(line)
            .map_err(|error| CommandLineError::NotUtf8 { at: error.valid_up_to() })?;
        if line.contains('\0') {
            return Err(CommandLineError::ZeroByte);
        }
        let mut parsed = CommandLine::default();
        let mut rest = line.trim_start();
        while !rest.is_empty() {
            let (word, after) = split_word(rest)?;
            parsed.take(word)?;
            rest = after.trim_start();
        }
        Ok(parsed)
    }

    fn take(&mut self, word: String) -> Result<(), CommandLineError> {
        if let Some(device) = word.strip_prefix("virtio_mmio.device=") {
            match parse_mmio_device(device) {
                Some(device) => self.mmio_devices.push(device),
                None => return Err(CommandLineError::BadMmioDevice { word }),
            }
        } else if is_assignment(&word) {
            self.environment.push(word);
        } else {
            self.arguments.push(word);
        }
        Ok(())
    }
}

/// The first word of a line that begins with one, its quotes taken away, and what follows.
fn split_word(line: &str) -> Result<(String, &str), CommandLineError> {
    let mut word = String::new();
    let mut quoted = false;
    for (at, letter) in line.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            letter if letter.is_whitespace() && !quoted => return Ok((word, &line[at..])),
            letter => word.push(letter),
        }
    }
    if quoted {
        return Err(CommandLineError::UnbalancedQuote { word: line.into() });
    }
    Ok((word, ""))
}

/// Whether a word is `NAME=…` with a name that a shell would take.
fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// `512@0xfeb00000:5`, with an optional `:ID` that Linux gives the platform device.
fn parse_mmio_device(text: &str) -> Option<MmioDevice> {
    let (bytes, place) = text.split_once('@')?;
    let mut place = place.split(':');
    let device = MmioDevice {
        bytes: parse_size(bytes)?,
        address: parse_number(place.next()?)?,
        gsi: parse_number(place.next()?)?.try_into().ok()?,
    };
    if let Some(id) = place.next() {
        parse_number(id)?;
    }
    let end = device.address.checked_add(device.bytes)?;
    let sane = device.bytes > 0 && device.address > 0 && end <= crate::memory_map::ADDRESS_LIMIT;
    (place.next().is_none() && sane).then_some(device)
}

/// A number with Linux's `memparse` suffixes: `512`, `0x200`, `4K`.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    parse_number(digits)?.checked_mul(1 << shift)
}

fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        None if !text.starts_with('+') => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> CommandLine {
        CommandLine::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn words_go_to_the_program_its_environment_and_the_machine() {
        let line = "--port=8443 RUST_LOG=info  \tgo virtio_mmio.device=512@0xfeb00e00:12 a=b-c";
        let parsed = parse(line);
        assert_eq!(parsed.arguments, ["--port=8443", "go"]);
        assert_eq!(parsed.environment, ["RUST_LOG=info", "a=b-c"]);
        assert_eq!(parsed.mmio_devices, [MmioDevice { bytes: 512, address: 0xfeb0_0e00, gsi: 12 }]);
    }

    #[test]
    fn firecracker_writes_sizes_with_a_suffix() {
        let parsed = parse("virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=1@1:2:3");
        assert_eq!(parsed.mmio_devices[0].bytes, 4096);
        assert_eq!(parsed.mmio_devices.len(), 2);
    }

    #[test]
    fn quotes_group_and_may_be_empty() {
        let parsed = parse(r#"--motto="hello there" "" MOTD="two words" "1=2""#);
        assert_eq!(parsed.arguments, ["--motto=hello there", "", "1=2"]);
        assert_eq!(parsed.environment, ["MOTD=two words"]);
        assert_eq!(parse("   "), CommandLine::default());
    }

    #[test]
    fn what_does_not_parse_is_named() {
        let error = CommandLine::parse(br#"fine --motto="hello there"#).unwrap_err();
        assert!(error.to_string().contains(r#"`--motto="hello there`"#), "{error}");
        for device in [
            "",
            "512",
            "512@",
            "512@x:1",
            "512@1",
            "0@1:1",
            "1@0:1",
            "1@1:1:1:1",
            "+1@1:1",
            "1@0x+1:1",
            "99999999999G@1:1",
            "1@0xffffffffffffffff:1",
            "1@1:99999999999",
        ] {
            let word = format!("virtio_mmio.device={device}");
            let error = CommandLine::parse(word.as_bytes()).unwrap_err();
            assert_eq!(error, CommandLineError::BadMmioDevice { word: word.clone() });
            assert!(error.to_string().contains(&word));
        }
        assert_eq!(CommandLine::parse(b"ab\xff"), Err(CommandLineError::NotUtf8 { at: 2 }));
        assert_eq!(CommandLine::parse(b"a\0b"), Err(CommandLineError::ZeroByte));
    }

    #[test]
    fn a_line_at_the_limit_is_read_and_one_past_it_refused() {
        assert!(CommandLine::parse(&[b'x'; LENGTH_MAX]).is_ok());
        let error = CommandLine::parse(&[b'x'; LENGTH_MAX + 1]);
        assert_eq!(error, Err(CommandLineError::TooLong));
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(words in prop::collection::vec("-[a-z= ]{0,9}", 0..6)) {
            let line = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(parse(&line).arguments, words);
        }

        #[test]
        fn arbitrary_bytes_never_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = CommandLine::parse(&line);
        }
    }
}
