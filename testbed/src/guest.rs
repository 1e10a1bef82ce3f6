//! A guest, and the configuration that `xl create` reads for it.
//!
//! The text is made in one place, for the testbed and for every other Xen host. Names, paths and
//! command lines come from outside: each is checked for what it may hold, and quoted, so that none
//! can say more than it is.

use std::fmt;
use std::fmt::Write as _;
use std::path::PathBuf;

/// A PVH guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name on the host: letters, digits and `-_.+`, at most [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Its kernel, an ELF file with a PVH entry, on this computer.
    pub kernel: PathBuf,
    /// Its initial RAM file system, on this computer.
    pub ramdisk: Option<PathBuf>,
    /// Its command line.
    pub command_line: String,
    /// Its memory, in MiB.
    pub memory_mib: u64,
    /// How far its memory may grow, in MiB; as much as `memory_mib` when there is none.
    pub memory_max_mib: Option<u64>,
    /// How many processors it has.
    pub vcpus: u32,
    /// Its network interfaces, in order.
    pub vifs: Vec<Vif>,
    /// Its disks, in order.
    pub disks: Vec<Disk>,
    /// Whether it may serve devices to other guests.
    pub driver_domain: bool,
    /// Whether it reads the processor's time-stamp counter itself (`tsc_mode = "native"`). Where
    /// the counter is not known to be invariant, as on an emulated processor, Xen otherwise
    /// answers every reading in the processor's place, which costs a guest most of its speed.
    pub native_tsc: bool,
    /// What Xen does with it when it has ended.
    pub at_end: AtEnd,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vif {
    /// Its Ethernet address; Xen chooses one when there is none.
    pub mac: Option<[u8; 6]>,
    /// Where its other end is.
    pub link: VifLink,
    /// Its MTU in bytes; the bridge's when there is none.
    pub mtu: Option<u16>,
    /// The hotplug script in the host's folder of scripts; `vif-bridge` when there is none.
    pub script: Option<String>,
    /// A file of this computer that gets its frames, as pcap: the testbed's dom0 captures them.
    pub capture: Option<PathBuf>,
}

/// Where an interface's other end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VifLink {
    /// A port of this bridge in dom0.
    Bridge(String),
    /// Served by the guest of this name.
    Backend(String),
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its name in the guest, such as `xvda`.
    pub vdev: String,
    /// What it consists of.
    pub source: DiskSource,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

/// What a disk consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskSource {
    /// A file on this computer. The testbed lends the file itself where it can, see
    /// `Testbed::put`; a Xen host that is this computer uses it where it lies.
    File(PathBuf),
    /// A file or block device in dom0.
    Dom0(String),
    /// Something that the guest of this name serves under the name `target`.
    Backend {
        /// The guest.
        domain: String,
        /// What it is to serve, as it calls it.
        target: String,
    },
}

/// What Xen does with a guest that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtEnd {
    /// It stays, so that who watches it learns why, and destroys it.
    #[default]
    Preserve,
    /// It is gone at once.
    Destroy,
    /// What xl does when nothing is said: a guest that asks for a reboot starts again.
    Default,
}

/// Longest name of a guest, in bytes: it becomes part of file names in dom0.
pub const NAME_BYTES_MAX: usize = 64;

/// Longest command line, in bytes. Our images read so much; Linux on x86 reads the first 2047. Xen
/// passes on what it gets.
pub const COMMAND_LINE_BYTES_MAX: usize = 8192;

/// Something in a guest that cannot be said to Xen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for ConfigError {}

impl Guest {
    /// A guest with one processor, 32 MiB, and no devices.
    pub fn new(name: impl Into<String>, kernel: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            kernel: kernel.into(),
            ramdisk: None,
            command_line: String::new(),
            memory_mib: 32,
            memory_max_mib: None,
            vcpus: 1,
            vifs: Vec::new(),
            disks: Vec::new(),
            driver_domain: false,
            native_tsc: false,
            at_end: AtEnd::default(),
        }
    }
}

impl Vif {
    /// A port of dom0's bridge of this name.
    pub fn bridge(name: impl Into<String>) -> Self {
        Self {
            mac: None,
            link: VifLink::Bridge(name.into()),
            mtu: None,
            script: None,
            capture: None,
        }
    }

    /// An interface that the guest of this name serves.
    pub fn backend(domain: impl Into<String>) -> Self {
        Self {
            mac: None,
            link: VifLink::Backend(domain.into()),
            mtu: None,
            script: None,
            capture: None,
        }
    }

    /// With this Ethernet address.
    #[must_use]
    pub fn with_mac(mut self, mac: [u8; 6]) -> Self {
        self.mac = Some(mac);
        self
    }
}

/// Checks that `name` can be a guest's name.
///
/// # Errors
/// A sentence that says what a name consists of.
pub fn check_name(name: &str) -> Result<(), ConfigError> {
    // Digits alone would be taken for a number of a domain.
    let fine = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
        && name.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !name.starts_with(['-', '.']);
    let what = "a name has letters, digits and -_.+, a letter among them, at most 64 in all";
    refuse_unless(fine, || format!("guest {name:?}: {what}"))
}

/// The text for `xl create`. `kernel`, `ramdisk` and the files of disks are as dom0 sees them, so
/// whoever gives the text to a Xen host has put them there; on a host that is this computer they
/// are the same paths, made absolute.
///
/// # Errors
/// What in the guest cannot be said in such a text, by name.
pub fn config_text(guest: &Guest, paths: &Dom0Paths) -> Result<String, ConfigError> {
    check_name(&guest.name)?;
    let fault = |what: &str| ConfigError { what: format!("guest {}: {what}", guest.name) };
    if guest.memory_mib == 0 || guest.memory_mib > 1 << 24 {
        return Err(fault("memory must be from 1 MiB to 16 TiB"));
    }
    if guest.memory_max_mib.is_some_and(|max| max < guest.memory_mib || max > 1 << 24) {
        return Err(fault("its memory cannot grow to less than it starts with"));
    }
    if guest.vcpus == 0 || guest.vcpus > 128 {
        return Err(fault("it must have from 1 to 128 processors"));
    }
    if guest.command_line.len() > COMMAND_LINE_BYTES_MAX {
        return Err(fault("its command line is longer than 8192 bytes"));
    }
    if guest.disks.len() != paths.disks.len() {
        return Err(fault("a path in dom0 must be given for each of its disks"));
    }
    let mut text = String::new();
    let mut key = |name: &str, value: String| {
        writeln!(text, "{name} = {value}").expect("a String takes everything");
    };
    let quoted = |what: &str, value: &str| {
        quote(value).ok_or_else(|| fault(&format!("{what} holds a control character")))
    };
    key("name", quoted("its name", &guest.name)?);
    key("type", "\"pvh\"".into());
    key("kernel", quoted("its kernel's path", absolute(&paths.kernel, &fault)?)?);
    if let Some(ramdisk) = &paths.ramdisk {
        key("ramdisk", quoted("its RAM disk's path", absolute(ramdisk, &fault)?)?);
    }
    key("cmdline", quoted("its command line", &guest.command_line)?);
    key("memory", guest.memory_mib.to_string());
    if let Some(max) = guest.memory_max_mib {
        key("maxmem", max.to_string());
    }
    key("vcpus", guest.vcpus.to_string());
    if guest.driver_domain {
        key("driver_domain", "1".into());
    }
    if guest.native_tsc {
        key("tsc_mode", "\"native\"".into());
    }
    let vifs: Result<Vec<_>, _> = guest.vifs.iter().map(|vif| vif_text(vif, &fault)).collect();
    let vifs = vifs?;
    if !vifs.is_empty() {
        key("vif", format!("[ {} ]", vifs.join(", ")));
    }
    let mut disks = Vec::new();
    for (index, (disk, path)) in guest.disks.iter().zip(&paths.disks).enumerate() {
        if guest.disks[..index].iter().any(|other| other.vdev == disk.vdev) {
            return Err(fault(&format!("two disks are called {}", disk.vdev)));
        }
        disks.push(quoted("a disk's path", &disk_text(disk, path, &fault)?)?);
    }
    if !disks.is_empty() {
        key("disk", format!("[ {} ]", disks.join(", ")));
    }
    let action = match guest.at_end {
        AtEnd::Preserve => Some("\"preserve\""),
        AtEnd::Destroy => Some("\"destroy\""),
        AtEnd::Default => None,
    };
    for event in ["on_poweroff", "on_reboot", "on_crash", "on_watchdog"] {
        if let Some(action) = action {
            key(event, action.into());
        }
    }
    Ok(text)
}

/// Where the files of a guest are in dom0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dom0Paths {
    /// The kernel.
    pub kernel: String,
    /// The initial RAM file system.
    pub ramdisk: Option<String>,
    /// What each disk consists of, in order: a path, or a name that its backend knows.
    pub disks: Vec<String>,
}

fn vif_text(vif: &Vif, fault: &dyn Fn(&str) -> ConfigError) -> Result<String, ConfigError> {
    let mut words = Vec::new();
    if let Some(mac) = vif.mac {
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(fault("an interface's address is a group's, or zero"));
        }
        let bytes: Vec<_> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        words.push(format!("mac={}", bytes.join(":")));
    }
    match &vif.link {
        VifLink::Bridge(bridge) => {
            // IFNAMSIZ of Linux is 16, with the zero at the end.
            let fine = plain(bridge) && bridge.len() < 16;
            refuse_unless(fine, || format!("{bridge:?} cannot be a bridge's name"))?;
            words.push(format!("bridge={bridge}"));
        }
        VifLink::Backend(domain) => {
            check_domain(domain)?;
            words.push(format!("backend={domain}"));
        }
    }
    if let Some(mtu) = vif.mtu {
        // RFC 791: every module must take 68 bytes.
        refuse_unless(mtu >= 68, || format!("an MTU of {mtu} is below IPv4's least, 68"))?;
        words.push(format!("mtu={mtu}"));
    }
    if let Some(script) = &vif.script {
        refuse_unless(plain(script), || format!("{script:?} cannot be a script's name"))?;
        words.push(format!("script={script}"));
    }
    Ok(format!("\"{}\"", words.join(",")))
}

fn disk_text(
    disk: &Disk,
    path: &str,
    fault: &dyn Fn(&str) -> ConfigError,
) -> Result<String, ConfigError> {
    let fine = plain(&disk.vdev) && disk.vdev.len() <= 16;
    refuse_unless(fine, || format!("{:?} cannot be a disk's name, as xvda is", disk.vdev))?;
    let access = if disk.read_only { "ro" } else { "rw" };
    let mut text = format!("format=raw,vdev={},access={access}", disk.vdev);
    match &disk.source {
        DiskSource::Backend { domain, .. } => {
            check_domain(domain)?;
            write!(text, ",backend={domain},backendtype=phy").expect("a String takes everything");
        }
        DiskSource::File(_) | DiskSource::Dom0(_) => {
            absolute(path, fault)?;
        }
    }
    if path.is_empty() {
        return Err(fault(&format!("disk {} consists of nothing", disk.vdev)));
    }
    // The last key takes all that follows, commas included.
    write!(text, ",target={path}").expect("a String takes everything");
    Ok(text)
}

fn absolute<'a>(
    path: &'a str,
    fault: &dyn Fn(&str) -> ConfigError,
) -> Result<&'a str, ConfigError> {
    if path.starts_with('/') {
        Ok(path)
    } else {
        Err(fault(&format!("{path:?} is not an absolute path in dom0")))
    }
}

/// A guest's name, or dom0's.
fn check_domain(name: &str) -> Result<(), ConfigError> {
    if name == "Domain-0" { Ok(()) } else { check_name(name) }
}

/// Whether `word` cannot mean anything but itself in a list of keys and values.
fn plain(word: &str) -> bool {
    !word.is_empty()
        && !word.starts_with(['-', '.'])
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn refuse_unless(fine: bool, what: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if fine { Ok(()) } else { Err(ConfigError { what: what() }) }
}

/// A string as xl reads it: in double quotes, with `\` before `"` and `\`. There is no safe way to
/// write control characters (xl's own `\x` has errors), so they are refused.
fn quote(value: &str) -> Option<String> {
    if value.chars().any(char::is_control) {
        return None;
    }
    Some(format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests;
