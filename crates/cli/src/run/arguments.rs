//! The program's own words, checked against its manifest before anything boots.
//!
//! The rules are the program's (`fata::wiring`): words of the form NAME=value in front are its
//! environment; `--name=value` and `--name value` are arguments; `--DEVICE.SETTING=value` sets up a
//! device. Here a slip costs a millisecond and gets a suggestion.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::build::Target;
use crate::failure::{Exit, Failure, Result};
use crate::image::manifest::Manifest;
use crate::suggest::did_you_mean;

/// The words, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// NAME=value words.
    pub(crate) environment: Vec<(String, String)>,
    /// All other words, in order, each argument as one word: `--name value` becomes `--name=value`,
    /// so that no value stands alone where it could be taken for something else.
    pub(crate) words: Vec<String>,
    /// Names and values of the arguments among them.
    pub(crate) values: Vec<(String, String)>,
    /// Whether `--help` is asked for.
    pub(crate) help: bool,
}

impl Arguments {
    /// The value of the setting `--DEVICE.SETTING`, if it is given.
    pub(crate) fn setting(&self, device: &str, setting: &str) -> Option<&str> {
        let is_it = |name: &str| {
            let rest = name.strip_prefix(device).and_then(|rest| rest.strip_prefix('.'));
            rest == Some(setting)
        };
        self.values.iter().find(|(name, _)| is_it(name)).map(|(_, value)| value.as_str())
    }
}

/// Settings of every stack, on every target.
const OF_STACKS: &[&str] =
    &["address", "gateway", "dns", "route", "ipv6", "ipv6-secret", "limits", "congestion"];

/// Settings that a device of `kind` takes on `target`.
fn settings(kind: &str, target: Target) -> impl Iterator<Item = &'static str> {
    let of_all = if kind == "stack" { OF_STACKS } else { &[] };
    let of_target: &[&str] = match (kind, target) {
        ("stack", Target::Unix) => &["tap", "pcap"],
        ("stack", Target::Virtio | Target::Xen) => &["segmentation"],
        ("interface", Target::Unix) => &["tap", "pcap"],
        ("clients", Target::Unix) => &["taps"],
        ("block", Target::Unix) => &["file", "read-only"],
        ("block", Target::Xen) => &["vdev"],
        ("channel", Target::Unix) => &["path"],
        ("channel", Target::Xen) => &["peer", "port"],
        _ => &[],
    };
    of_all.iter().chain(of_target).copied()
}

/// Sorts `words` and checks them against `manifest`.
pub(crate) fn check(words: &[String], manifest: &Manifest, target: Target) -> Result<Arguments> {
    let known = known(manifest, target);
    let mut arguments = Arguments::default();
    let mut words = words.iter().peekable();
    while let Some((name, value)) = words.peek().and_then(|word| environment_word(word)) {
        if name == "virtio_mmio.device" {
            break;
        }
        arguments.environment.push((name.to_owned(), value.to_owned()));
        words.next();
    }
    while let Some(word) = words.next() {
        if word == "--help" || word == "-h" {
            arguments.words.push(word.clone());
            arguments.help = true;
            continue;
        }
        let Some(rest) = word.strip_prefix("--") else {
            return Err(stray(word, manifest));
        };
        let (name, value) = match rest.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (rest, None),
        };
        if !known.iter().any(|known| known == name) {
            return Err(unknown(name, manifest, &known));
        }
        let kind = manifest.arguments.iter().find(|a| a.name == name).map(|a| a.kind.as_str());
        let is_flag = kind == Some("bool") || name.ends_with(".read-only");
        let value = match value {
            Some(value) => value,
            None if is_flag => String::new(),
            None => match words.next_if(|next| !next.starts_with("--")) {
                Some(value) => value.clone(),
                None => {
                    let what = format!("argument --{name} of {} needs a value", manifest.package);
                    return Err(refused(what).help(format!("write --{name}=VALUE")));
                }
            },
        };
        if let Some(expected) = kind.and_then(|kind| mismatch(kind, &value)) {
            let what = format!("--{name}={value}: {} expects {expected}", manifest.package);
            return Err(refused(what).help(help_line(manifest)));
        }
        if arguments.values.iter().any(|(known, _)| known == name) {
            return Err(refused(format!("argument --{name} is given twice")));
        }
        arguments.words.push(match value.as_str() {
            "" if is_flag => format!("--{name}"),
            value => format!("--{name}={value}"),
        });
        arguments.values.push((name.to_owned(), value));
    }
    if !arguments.help {
        check_required(&arguments, manifest)?;
    }
    Ok(arguments)
}

fn check_required(arguments: &Arguments, manifest: &Manifest) -> Result<()> {
    for argument in manifest.arguments.iter().filter(|argument| argument.required()) {
        if !arguments.values.iter().any(|(name, _)| *name == argument.name) {
            let name = &argument.name;
            let what = format!("{} needs the argument --{name}", manifest.package);
            let mut help = format!("add -- --{name}=<{}>", argument.kind);
            if !argument.help.is_empty() {
                help = format!("{help} ({})", argument.help.trim_end_matches('.'));
            }
            return Err(refused(what).help(help));
        }
    }
    Ok(())
}

/// Everything that may stand behind `--`.
fn known(manifest: &Manifest, target: Target) -> Vec<String> {
    let arguments = manifest.arguments.iter().map(|argument| argument.name.clone());
    let settings = manifest.devices.iter().flat_map(|device| {
        let settings = settings(&device.kind, target);
        settings.map(move |setting| format!("{}.{setting}", device.name))
    });
    arguments.chain(settings).collect()
}

/// NAME=value, where NAME is an identifier: what the machine and a shell take for environment.
pub(crate) fn environment_word(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let identifier = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    identifier.then_some((name, value))
}

fn refused(what: String) -> Failure {
    Failure::new(Exit::Refused, what)
}

fn stray(word: &str, manifest: &Manifest) -> Failure {
    let what = format!("{} does not take {word:?}", manifest.package);
    if environment_word(word).is_some() {
        return refused(what).help("words NAME=value, for the environment, stand before arguments");
    }
    refused(what).help("its arguments are written --NAME=VALUE")
}

fn unknown(name: &str, manifest: &Manifest, known: &[String]) -> Failure {
    // A tool's own option behind `--` is a frequent slip.
    const OURS: [&str; 11] = [
        "net", "publish", "block", "memory", "accel", "machine", "timeout", "target", "json",
        "xen", "name",
    ];
    let near = did_you_mean(name, known.iter().map(String::as_str));
    let near = near.replacen("did you mean ", "did you mean --", 1);
    let what = format!("{} has no argument --{name}{near}", manifest.package);
    let failure = refused(what);
    if near.is_empty() && OURS.contains(&name) {
        return failure.help(format!("--{name} is an option of fata: put it before the --"));
    }
    failure.help(help_line(manifest))
}

fn help_line(manifest: &Manifest) -> String {
    let names: Vec<String> = manifest
        .arguments
        .iter()
        .map(|argument| format!("--{}=<{}>", argument.name, argument.kind))
        .collect();
    if names.is_empty() {
        format!("{} takes no arguments of its own", manifest.package)
    } else {
        format!("it takes {}", names.join(", "))
    }
}

/// What a value of type `kind` would be, if `text` is none. Types that the tool does not know are
/// left to the program.
fn mismatch(kind: &str, text: &str) -> Option<&'static str> {
    fn unless<T: std::str::FromStr>(text: &str, expected: &'static str) -> Option<&'static str> {
        text.parse::<T>().is_err().then_some(expected)
    }
    match kind {
        "u8" => unless::<u8>(text, "a whole number from 0 to 255"),
        "u16" => unless::<u16>(text, "a whole number from 0 to 65535"),
        "u32" => unless::<u32>(text, "a whole number from 0 to 4294967295"),
        "u64" | "usize" => unless::<u64>(text, "a whole number, not negative"),
        "i32" => unless::<i32>(text, "a whole number of 32 bits"),
        "i64" => unless::<i64>(text, "a whole number"),
        "f64" => unless::<f64>(text, "a number"),
        "IpAddr" => unless::<IpAddr>(text, "an IP address"),
        "Ipv4Addr" => unless::<Ipv4Addr>(text, "an IPv4 address"),
        "Ipv6Addr" => unless::<Ipv6Addr>(text, "an IPv6 address"),
        "SocketAddr" => unless::<SocketAddr>(text, "an address and a port, such as 192.0.2.1:443"),
        "bool" => (!["", "true", "yes", "false", "no"].contains(&text)).then_some("true or false"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn manifest() -> Manifest {
        Manifest::parse(
            br#"{"fata":1,"package":"web","version":"1.0.0","target":"virtio","devices":[
            {"name":"service","kind":"stack"},{"name":"data","kind":"block"}],"arguments":[
            {"name":"port","type":"u16","default":"443"},{"name":"loud","type":"bool"},
            {"name":"motd","type":"String","optional":true}]}"#,
        )
        .unwrap()
    }

    fn words(words: &[&str]) -> Result<Arguments> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        check(&words, &manifest(), Target::Virtio)
    }

    #[test]
    fn sorts_environment_and_arguments() {
        let given = words(&["RUST_LOG=debug", "--port", "80", "--loud", "--motd=a b"]).unwrap();
        assert_eq!(given.environment, [("RUST_LOG".into(), "debug".into())]);
        assert_eq!(given.words, ["--port=80", "--loud", "--motd=a b"]);
        assert_eq!(given.values[0], ("port".into(), "80".into()));
        assert_eq!(words(&[]).unwrap(), Arguments::default());
    }

    #[test]
    fn slips_get_a_suggestion() {
        for (given, named) in [
            (&["--prot=1"][..], "did you mean --port?"),
            (&["--port=70000"], "from 0 to 65535"),
            (&["--port"], "needs a value"),
            (&["--port=1", "--port=2"], "twice"),
            (&["--loud=maybe"], "true or false"),
            (&["serve"], "\"serve\""),
            (&["--block", "data=x"], "option of fata"),
            (&["--port=1", "A=b"], "before arguments"),
            (&["--service.adress=dhcp"], "--service.address"),
        ] {
            let failure = words(given).unwrap_err();
            assert_eq!(failure.exit, Exit::Refused);
            assert!(failure.to_string().contains(named), "{given:?}: {failure}");
        }
    }

    #[test]
    fn files_are_a_setting_on_unix_only() {
        let given = ["--data.file=x".to_owned(), "--data.read-only".to_owned()];
        assert!(check(&given, &manifest(), Target::Unix).is_ok());
        assert!(check(&given, &manifest(), Target::Virtio).is_err());
    }

    #[test]
    fn a_disk_is_named_as_xen_names_it_on_xen_only() {
        let given = ["--data.vdev=xvdb".to_owned()];
        let arguments = check(&given, &manifest(), Target::Xen).unwrap();
        assert_eq!(arguments.setting("data", "vdev"), Some("xvdb"));
        assert_eq!(arguments.setting("data", "file"), None);
        assert_eq!(arguments.setting("da", "vdev"), None);
        assert!(check(&given, &manifest(), Target::Virtio).is_err());
    }

    #[test]
    fn what_has_no_default_is_required() {
        let mut manifest = manifest();
        manifest.arguments[2].optional = false;
        let failure = check(&[], &manifest, Target::Virtio).unwrap_err();
        assert!(failure.to_string().contains("--motd"), "{failure}");
        assert!(check(&["--help".to_owned()], &manifest, Target::Virtio).unwrap().help);
    }

    proptest! {
        #[test]
        fn arbitrary_words_never_panic(given in proptest::collection::vec("(--)?\\PC{0,12}", 0..5)) {
            let _ = check(&given, &manifest(), Target::Virtio);
        }
    }
}
