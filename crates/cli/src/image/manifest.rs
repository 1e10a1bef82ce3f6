//! The manifest: what an image needs and takes, as JSON in an ELF note.
//!
//! Written by `#[derive(fata::Devices)]`; everything that attaches devices or writes launcher files
//! goes by it. It comes out of a file, so it is checked as input: names are restricted, counts and
//! lengths bounded, texts cannot drive a terminal.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::ui::printable;

/// The largest manifest that is read: far above 64 devices and 256 arguments with generous help.
const BYTES_MAX: usize = 256 * 1024;
/// The most devices. A machine has fewer slots; the number only bounds the work.
const DEVICES_MAX: usize = 64;
/// The most arguments.
const ARGUMENTS_MAX: usize = 256;
/// The longest name.
const NAME_BYTES_MAX: usize = 64;

/// What an image says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Version of the format.
    pub(crate) fata: u32,
    /// The package that the program comes from.
    pub(crate) package: String,
    /// The package's version.
    pub(crate) version: String,
    /// `unix`, `virtio` or `xen`.
    pub(crate) target: String,
    /// What the program does.
    #[serde(default)]
    pub(crate) about: String,
    /// Devices in the order of the program's struct.
    #[serde(default)]
    pub(crate) devices: Vec<Device>,
    /// Arguments in the order of the program's struct.
    #[serde(default)]
    pub(crate) arguments: Vec<Argument>,
}

/// A device that the program needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Device {
    /// Its name, which `--block` and `--net` use.
    pub(crate) name: String,
    /// `stack` or `block`; later formats may know more.
    pub(crate) kind: String,
    /// Whether the program starts without it.
    #[serde(default)]
    pub(crate) optional: bool,
    /// What it is for.
    #[serde(default)]
    pub(crate) help: String,
}

/// An argument that the program takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Argument {
    /// Its name, given as `--name`.
    pub(crate) name: String,
    /// Its type, as Rust calls it.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Whether it may be left out though it has no default.
    #[serde(default)]
    pub(crate) optional: bool,
    /// Its value when it is not given.
    #[serde(default)]
    pub(crate) default: Option<String>,
    /// What it is for.
    #[serde(default)]
    pub(crate) help: String,
}

impl Manifest {
    /// Reads and checks a manifest; the error says what is wrong with it.
    pub(crate) fn parse(note: &[u8]) -> Result<Self, String> {
        if note.len() > BYTES_MAX {
            return Err(format!("its manifest has {} bytes", note.len()));
        }
        /// Only the version, which decides whether the rest can be understood.
        #[derive(Deserialize)]
        struct Version {
            fata: u32,
        }
        // serde_json bounds its recursion, so a deeply nested text is an error and no overflow.
        let malformed = |error| format!("its manifest does not parse: {error}");
        let Version { fata } = serde_json::from_slice(note).map_err(malformed)?;
        if fata != 1 {
            return Err(format!(
                "its manifest has format {fata}; this tool reads 1: update `fata`"
            ));
        }
        let mut manifest: Self = serde_json::from_slice(note).map_err(malformed)?;
        manifest.check()?;
        manifest.clean();
        Ok(manifest)
    }

    /// Devices of one kind, in order.
    pub(crate) fn devices_of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Device> {
        self.devices.iter().filter(move |device| device.kind == kind)
    }

    fn check(&self) -> Result<(), String> {
        if self.devices.len() > DEVICES_MAX || self.arguments.len() > ARGUMENTS_MAX {
            let (devices, arguments) = (self.devices.len(), self.arguments.len());
            return Err(format!("its manifest names {devices} devices, {arguments} arguments"));
        }
        let device_names = self.devices.iter().map(|device| ("device", device.name.as_str()));
        let argument_names = self.arguments.iter().map(|arg| ("argument", arg.name.as_str()));
        let mut seen = HashSet::new();
        for (what, name) in device_names.chain(argument_names) {
            if !is_name(name) {
                return Err(format!("its manifest names a {what} {:?}", printable(name)));
            }
            if !seen.insert((what, name)) {
                return Err(format!("its manifest names the {what} {name} twice"));
            }
        }
        for (what, text) in
            [("package", &self.package), ("version", &self.version), ("target", &self.target)]
        {
            if text.is_empty() || text.len() > 256 || text.contains(char::is_control) {
                return Err(format!("its manifest's {what} is {:?}", printable(text)));
            }
        }
        for device in &self.devices {
            if !is_name(&device.kind) {
                let kind = printable(&device.kind);
                return Err(format!("its manifest says device {} is a {kind:?}", device.name));
            }
        }
        Ok(())
    }

    /// Makes free text harmless to a terminal.
    fn clean(&mut self) {
        self.about = printable(&self.about);
        for device in &mut self.devices {
            device.help = printable(&device.help);
        }
        for argument in &mut self.arguments {
            argument.kind = printable(&argument.kind);
            argument.help = printable(&argument.help);
            argument.default = argument.default.as_deref().map(printable);
        }
    }
}

impl Argument {
    /// Whether the program refuses to start without it.
    pub(crate) fn required(&self) -> bool {
        !self.optional && self.default.is_none() && self.kind != "bool"
    }
}

/// Names go into command lines, QEMU options and file names: letters, digits, `-` and `_` only,
/// a letter or `_` first.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse(text.as_bytes())
    }

    const HTTPS: &str = r#"{"fata":1,"package":"https","version":"0.1.0","target":"virtio",
        "about":"Serves.","devices":[{"name":"service","kind":"stack","help":"The network."},
        {"name":"data","kind":"block","help":"Holds."}],"arguments":[{"name":"port","type":"u16",
        "default":"443","help":"Port."},{"name":"host","type":"String","default":null}]}"#;

    #[test]
    fn reads_what_the_derive_writes() {
        let manifest = parse(HTTPS).unwrap();
        assert_eq!(manifest.package, "https");
        assert_eq!(manifest.devices_of("block").count(), 1);
        assert!(!manifest.arguments[0].required());
        assert!(manifest.arguments[1].required());
    }

    #[test]
    fn newer_formats_and_fields() {
        assert!(parse(r#"{"fata":2,"whatever":1}"#).unwrap_err().contains("update"));
        let more = HTTPS.replacen("\"fata\":1", "\"fata\":1,\"color\":\"blue\"", 1);
        assert_eq!(parse(&more).unwrap(), parse(HTTPS).unwrap());
    }

    #[test]
    fn refuses_names_that_could_be_something_else() {
        for name in ["", "a b", "a,b", "-a", "a=b", "a\\u001b", "../a"] {
            let text = HTTPS.replace("\"data\"", &format!("\"{name}\""));
            assert!(parse(&text).is_err(), "{name:?} was accepted");
        }
        assert!(parse(&HTTPS.replace("\"data\"", "\"service\"")).unwrap_err().contains("twice"));
    }

    #[test]
    fn texts_cannot_drive_the_terminal() {
        let text = HTTPS.replace("Holds.", "\\u001b[2JHolds.");
        assert_eq!(parse(&text).unwrap().devices[1].help, "\u{fffd}[2JHolds.");
    }

    #[test]
    fn counts_are_bounded() {
        let many: Vec<String> =
            (0..65).map(|n| format!(r#"{{"name":"d{n}","kind":"block"}}"#)).collect();
        let text = format!(
            r#"{{"fata":1,"package":"p","version":"1","target":"unix","devices":[{}]}}"#,
            many.join(",")
        );
        assert!(parse(&text).unwrap_err().contains("65 devices"));
        assert!(Manifest::parse(&vec![b' '; BYTES_MAX + 1]).unwrap_err().contains("bytes"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Manifest::parse(&bytes);
        }

        #[test]
        fn damaged_manifests_never_panic(at in 0..HTTPS.len(), byte in any::<u8>()) {
            let mut bytes = HTTPS.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = Manifest::parse(&bytes);
        }

        #[test]
        fn round_trip(name in "[a-z][a-z0-9_-]{0,20}", help in "[ -~äλ]{0,40}") {
            let mut manifest = parse(HTTPS).unwrap();
            manifest.devices[1] = Device {
                name: format!("x{name}"),
                kind: "block".into(),
                optional: false,
                help,
            };
            let text = serde_json::to_vec(&manifest).unwrap();
            prop_assert_eq!(Manifest::parse(&text).unwrap(), manifest);
        }
    }
}
