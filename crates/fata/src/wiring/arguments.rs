//! The program's command line: arguments, and settings of devices.
//!
//! Our own, and not clap, which every host tool here uses: this parser is linked into every image,
//! and clap alone is bigger than the whole of `hello`.

use super::spec::{ArgumentSpec, Program};
use std::collections::BTreeMap;
use std::fmt;

/// Why a program cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WiringError {
    /// A word of the command line names nothing that the program knows.
    Unknown {
        /// The word.
        word: String,
        /// What the program knows.
        known: Vec<String>,
    },
    /// The same argument twice.
    Repeated {
        /// Its name.
        name: String,
    },
    /// An argument without a value.
    NoValue {
        /// Its name.
        name: String,
    },
    /// A value that does not parse.
    Invalid {
        /// The argument's or setting's name.
        name: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An argument that must be given was not.
    MissingArgument {
        /// Its name.
        name: String,
    },
    /// A device that the manifest names is not there, or does not work.
    Device {
        /// Its name.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl fmt::Display for WiringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WiringError::Unknown { word, known } if known.is_empty() => {
                write!(f, "unknown argument `{word}`: the program takes none")
            }
            WiringError::Unknown { word, known } => {
                write!(f, "unknown argument `{word}`; known are: {}", known.join(", "))
            }
            WiringError::Repeated { name } => write!(f, "argument `--{name}` is given twice"),
            WiringError::NoValue { name } => {
                write!(f, "argument `--{name}` needs a value: `--{name}=VALUE`")
            }
            WiringError::Invalid { name, value, reason } => {
                write!(f, "argument `--{name}={value}`: {reason}")
            }
            WiringError::MissingArgument { name } => {
                write!(f, "argument `--{name}=VALUE` is missing")
            }
            WiringError::Device { name, reason } => write!(f, "device `{name}`: {reason}"),
        }
    }
}

impl std::error::Error for WiringError {}

/// The command line, split into names and values and checked against what the program knows.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    values: BTreeMap<String, String>,
    /// `--help` was among them.
    pub(crate) help: bool,
}

impl Arguments {
    /// Parses `words`. `settings` lists the target's device settings as `DEVICE.SETTING`.
    pub(crate) fn parse(
        words: impl IntoIterator<Item = String>,
        program: &Program,
        settings: &[String],
    ) -> Result<Self, WiringError> {
        let mut arguments = Arguments::default();
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            if word == "--help" || word == "-h" {
                arguments.help = true;
                continue;
            }
            let unknown =
                || WiringError::Unknown { word: word.clone(), known: known(program, settings) };
            let stripped = word.strip_prefix("--").ok_or_else(unknown)?;
            let (name, value) = match stripped.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (stripped, None),
            };
            let spec = program.arguments.iter().find(|spec| spec.name == name);
            let is_setting = settings.iter().any(|setting| setting == name);
            if spec.is_none() && !is_setting {
                return Err(unknown());
            }
            let value = match value {
                Some(value) => value,
                None if is_flag(spec) || is_flag_setting(name) => String::new(),
                None => words
                    .next_if(|next| !next.starts_with("--"))
                    .ok_or_else(|| WiringError::NoValue { name: name.to_string() })?,
            };
            if arguments.values.insert(name.to_string(), value).is_some() {
                return Err(WiringError::Repeated { name: name.to_string() });
            }
        }
        Ok(arguments)
    }

    /// The text given for the argument `name`.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The text given for `--DEVICE.SETTING`.
    pub(crate) fn setting(&self, device: &str, setting: &str) -> Option<&str> {
        self.value(&format!("{device}.{setting}"))
    }

    /// True if `--DEVICE.SETTING` was given, alone or with a word for true.
    #[cfg_attr(
        any(fata_target = "virtio", fata_target = "xen"),
        expect(dead_code, reason = "only files have such a setting")
    )]
    pub(crate) fn flag(&self, device: &str, setting: &str) -> Result<bool, WiringError> {
        let text = self.setting(device, setting);
        text.map_or(Ok(false), <bool as super::Argument>::parse).map_err(|reason| {
            let value = text.unwrap_or_default().to_string();
            WiringError::Invalid { name: format!("{device}.{setting}"), value, reason }
        })
    }
}

/// `--name` without a value is allowed.
fn is_flag(spec: Option<&ArgumentSpec>) -> bool {
    spec.is_some_and(|spec| spec.ty == "bool")
}

fn is_flag_setting(name: &str) -> bool {
    name.ends_with(".read-only")
}

fn known(program: &Program, settings: &[String]) -> Vec<String> {
    let arguments = program.arguments.iter().map(|spec| format!("--{}", spec.name));
    arguments.chain(settings.iter().map(|setting| format!("--{setting}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROGRAM: Program = Program {
        about: "",
        devices: &[],
        arguments: &[
            ArgumentSpec {
                name: "port",
                ty: "u16",
                optional: false,
                default: Some("80"),
                help: "",
            },
            ArgumentSpec { name: "loud", ty: "bool", optional: true, default: None, help: "" },
        ],
    };

    fn parse(words: &[&str]) -> Result<Arguments, WiringError> {
        let settings = ["data.file".to_string(), "data.read-only".to_string()];
        Arguments::parse(words.iter().map(|word| word.to_string()), &PROGRAM, &settings)
    }

    #[test]
    fn values_follow_an_equals_sign_or_stand_in_the_next_word() {
        let arguments = parse(&["--port=1", "--loud", "--data.file", "x=y"]).unwrap();
        assert_eq!(arguments.value("port"), Some("1"));
        assert_eq!(arguments.value("loud"), Some(""));
        assert_eq!(arguments.setting("data", "file"), Some("x=y"));
        assert_eq!(parse(&["--port", "2"]).unwrap().value("port"), Some("2"));
    }

    #[test]
    fn an_unknown_word_is_named_with_what_is_known() {
        let error = parse(&["--prot=1"]).unwrap_err().to_string();
        assert!(error.contains("--prot=1") && error.contains("--port"), "{error}");
        assert!(matches!(parse(&["port"]), Err(WiringError::Unknown { .. })));
    }

    #[test]
    fn a_missing_value_and_a_repetition_are_errors() {
        assert_eq!(parse(&["--port"]).unwrap_err(), WiringError::NoValue { name: "port".into() });
        assert!(matches!(parse(&["--port", "--loud"]), Err(WiringError::NoValue { .. })));
        assert!(matches!(parse(&["--port=1", "--port=1"]), Err(WiringError::Repeated { .. })));
    }

    #[test]
    fn help_is_known_to_every_program() {
        assert!(parse(&["--port=1", "--help"]).unwrap().help);
    }

    proptest! {
        #[test]
        fn arbitrary_words_never_panic(words in proptest::collection::vec(".*", 0..6)) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let _ = parse(&words);
        }
    }
}
