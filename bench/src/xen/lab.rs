//! The Xen host, and the programs that run on it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fata_testbed::{Domain, Guest, Linux, Options, Testbed, Vif};
use serde_json::Value;

/// Where guests are on the bridge.
pub(crate) const GUEST: &str = "10.0.2.60";
/// The second of two.
pub(crate) const OTHER: &str = "10.0.2.61";
/// dom0 on the bridge.
pub(crate) const DOM0: &str = "10.0.2.10";
/// How long a guest may take to say what is waited for: a Linux on a busy emulated machine needs
/// half a minute.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Who runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Fata,
    Linux,
}

impl System {
    pub(crate) fn name(self) -> &'static str {
        match self {
            System::Fata => "fata",
            System::Linux => "linux",
        }
    }
}

pub(crate) struct Lab {
    pub(crate) testbed: Testbed,
    root: PathBuf,
    folder: PathBuf,
    built: RefCell<HashMap<String, PathBuf>>,
}

impl Lab {
    pub(crate) fn start(root: &Path) -> Result<Self> {
        let folder = root.join(".cache/bench/xen");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        // Two processors: dom0 has one for itself, as on a host that is set up with care.
        let options = Options { processors: 2, memory_mib: 2048, ..Options::default() };
        let testbed = Testbed::start(&options, &mut |step| eprintln!("bench: {step}"))?;
        Ok(Lab { testbed, root: root.to_owned(), folder, built: RefCell::default() })
    }

    /// Builds the package in `package` for `system`; for Linux a static program.
    pub(crate) fn build(&self, package: &str, system: System) -> Result<PathBuf> {
        let key = format!("{package} for {}", system.name());
        if let Some(path) = self.built.borrow().get(&key) {
            return Ok(path.clone());
        }
        eprintln!("bench: building {key}");
        let target: &[&str] = match system {
            System::Fata => &["-t", "xen"],
            System::Linux => &["-t", "unix", "--static"],
        };
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        command.args(["run", "--release", "--quiet", "-p", "fata-cli", "--", "build", package]);
        command.args(target).arg("--json").current_dir(&self.root);
        let output = command.output().context("cargo does not run")?;
        if !output.status.success() {
            bail!("{key} does not build:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().last().context("fata build --json printed nothing")?;
        let json: Value = serde_json::from_str(line).context("fata build --json")?;
        let path = PathBuf::from(json["image"].as_str().context("no image is named")?);
        self.built.borrow_mut().insert(key, path.clone());
        Ok(path)
    }

    /// A program in dom0's shared folder: its path there.
    pub(crate) fn in_dom0(&self, package: &str) -> Result<String> {
        let key = format!("{package} in dom0");
        if let Some(path) = self.built.borrow().get(&key) {
            return Ok(path.display().to_string());
        }
        let path = self.build(package, System::Linux)?;
        let inside = self.testbed.put(&path, "program")?;
        self.dom0(&format!("chmod 755 {inside}"), Duration::from_secs(20))?;
        self.built.borrow_mut().insert(key, inside.clone().into());
        Ok(inside)
    }

    /// Runs a script in dom0 and returns what it printed.
    pub(crate) fn dom0(&self, script: &str, limit: Duration) -> Result<String> {
        let output = self.testbed.dom0(script, limit)?;
        if output.status != 0 {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("dom0: status {}: {script}\n{}{errors}", output.status, output.text());
        }
        Ok(output.text())
    }

    /// A guest that runs the package with `arguments` at `address`, with an interface on the bridge.
    pub(crate) fn guest(
        &self,
        system: System,
        name: &str,
        package: &str,
        address: &str,
        arguments: &str,
    ) -> Result<Guest> {
        let mut guest = match system {
            System::Fata => Guest {
                command_line: format!(
                    "--service.address={address}/24 --service.gateway=10.0.2.2 {arguments}"
                ),
                memory_mib: 32,
                ..Guest::new(name, self.build(package, system)?)
            },
            System::Linux => {
                let program = std::fs::read(self.build(package, system)?)?;
                let script = format!(
                    "ifconfig eth0 {address} netmask 255.255.255.0 up\n\
                     exec /service --service.address={} {arguments}\n",
                    // A client of the host's sockets binds to the address that it is told.
                    if arguments.contains("drive") { address } else { "0.0.0.0" }
                );
                let linux = Linux::new(script).with_file("service", 0o755, program);
                linux.guest(&self.testbed, name, &self.folder)?
            }
        };
        guest.native_tsc = true;
        guest.vifs.push(interface(address));
        Ok(guest)
    }

    /// Creates `guest` and waits until it says `ready`.
    pub(crate) fn start_guest(&self, guest: &Guest, ready: &str) -> Result<Domain> {
        match self.start_once(guest, ready) {
            // Under emulation any guest may end so, Debian's as ours: in one of some hundred starts.
            Err(error) if format!("{error:#}").contains("Triple fault") => {
                eprintln!("bench: {} ended with a triple fault; once more", guest.name);
                self.start_once(guest, ready)
            }
            started => started,
        }
    }

    fn start_once(&self, guest: &Guest, ready: &str) -> Result<Domain> {
        let domain = self.testbed.create(guest)?;
        domain.wait_for(ready, PATIENCE)?;
        Ok(domain)
    }

    /// Where files for the host may be written.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// An interface on the bridge. Whoever has the address has the same hardware address too: dom0 may
/// know it of an earlier guest, and a frame to one that is gone goes everywhere, QEMU's user network
/// included, which answers for anybody.
pub(crate) fn interface(address: &str) -> Vif {
    let last = address.rsplit('.').next().and_then(|octet| octet.parse().ok()).unwrap_or(0);
    Vif::bridge(fata_testbed::BRIDGE).with_mac([0, 0x16, 0x3e, 0, 0, last])
}

/// The lines of JSON in a console's or a program's output.
pub(crate) fn json_lines(text: &str) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| line.find('{').map(|at| line[at..].trim()));
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
}
