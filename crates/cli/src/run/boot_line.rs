//! The boot command line, by which a machine gets its words.

use crate::failure::{Exit, Failure, Result};
use crate::run::arguments::Arguments;

/// The longest list of words for the program. The machine reads 8192 bytes of command line, of which
/// QEMU itself takes about 50 per device.
const BYTES_MAX: usize = 6144;

/// The command line for `arguments`: words split at whitespace, double quotes group.
pub(crate) fn boot_line(arguments: &Arguments) -> Result<String> {
    let environment = arguments.environment.iter().map(|(name, value)| format!("{name}={value}"));
    let mut line = String::new();
    for word in environment.chain(arguments.words.iter().cloned()) {
        if word.contains('"') {
            let what = format!("{word}: a boot command line cannot hold a double quote");
            return Err(Failure::new(Exit::Refused, what));
        }
        if word.starts_with("virtio_mmio.device=") {
            let what = format!("{word}: this word is the machine's own");
            return Err(Failure::new(Exit::Refused, what).help("leave it out"));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        if word.is_empty() || word.contains(char::is_whitespace) {
            line.push('"');
            line.push_str(&word);
            line.push('"');
        } else {
            line.push_str(&word);
        }
    }
    if line.len() > BYTES_MAX {
        let what = format!("the arguments have {} bytes, a machine takes {BYTES_MAX}", line.len());
        return Err(Failure::new(Exit::Refused, what).help("put long texts into a block device"));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arguments(words: &[&str]) -> Arguments {
        Arguments {
            environment: vec![("RUST_LOG".into(), "a b".into())],
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            ..Arguments::default()
        }
    }

    #[test]
    fn words_are_grouped_by_quotes() {
        let line = boot_line(&arguments(&["--port=80", "--motd=hello world", ""])).unwrap();
        assert_eq!(line, "\"RUST_LOG=a b\" --port=80 \"--motd=hello world\" \"\"");
        assert!(boot_line(&arguments(&["--a=\""])).unwrap_err().what.contains("double quote"));
        assert!(boot_line(&arguments(&["virtio_mmio.device=1"])).unwrap_err().what.contains("own"));
        assert!(boot_line(&arguments(&[&"x".repeat(7000)])).unwrap_err().what.contains("6144"));
    }

    proptest! {
        #[test]
        fn words_survive_the_machines_splitting(
            words in proptest::collection::vec("--[a-z]{1,5}=[a-z =.,é]{0,8}", 0..5)
        ) {
            // The machine's rule, in miniature: a quote switches grouping, whitespace ends a word.
            let given = Arguments { words: words.clone(), ..Arguments::default() };
            let (mut split, mut word, mut quoted) = (Vec::new(), String::new(), false);
            for c in boot_line(&given).unwrap().chars().chain([' ']) {
                match c {
                    '"' => quoted = !quoted,
                    c if c.is_whitespace() && !quoted => {
                        if !word.is_empty() { split.push(std::mem::take(&mut word)); }
                    }
                    c => word.push(c),
                }
            }
            prop_assert_eq!(split, words);
        }
    }
}
