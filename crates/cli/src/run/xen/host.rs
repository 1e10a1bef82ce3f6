//! A Xen host that this computer is: dom0 drives itself, through `xl`.
//!
//! The domain is created paused, its console is connected, then it runs: nothing that it prints is
//! lost. xl leaves no process behind (`-e`), so a domain that ended stays there with its reason
//! until it was read, and is destroyed by us.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Output, Stdio};

use fata_testbed::AtEnd;

use crate::child::{self, Guard, Tethered, tethered};
use crate::failure::{Exit, Failure, Result};
use crate::run::pcap::Capture;
use crate::run::xen::capture::{self, Dumps};
use crate::run::xen::domain::Domain;
use crate::run::xen::said::explain;
use crate::run::xen::{End, Running, WORK_TICK};
use crate::ui::Ui;

/// The bridge that xl's own default names, and Debian's and Xen's documentation make.
pub(crate) const BRIDGE: &str = "xenbr0";

/// Whether the computer whose files are below `root` is a Xen host's dom0.
pub(crate) fn is_dom0(root: &Path) -> bool {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    // xenfs says it in a word; without it, dom0 is the domain whose UUID is nil.
    read("proc/xen/capabilities").split_ascii_whitespace().any(|word| word == "control_d")
        || (read("sys/hypervisor/type").trim() == "xen"
            && read("sys/hypervisor/uuid").trim() == "00000000-0000-0000-0000-000000000000")
}

/// This computer as a Xen host.
pub(crate) struct Host {
    ui: Ui,
    xl: PathBuf,
}

impl Host {
    /// Finds `xl`, and whether it may be used.
    pub(crate) fn open(ui: Ui) -> Result<Self> {
        if !is_dom0(Path::new("/")) {
            let what = "this computer is no Xen host: it is not dom0";
            return Err(Failure::new(Exit::Resource, what)
                .help("use --xen testbed, which starts a Xen host in QEMU"));
        }
        let xl = child::find_program(OsStr::new("xl")).ok_or_else(|| {
            Failure::new(Exit::Tool, "xl is not installed")
                .help("Debian and Ubuntu: apt install xen-utils; it comes with Xen")
        })?;
        Ok(Self { ui, xl })
    }

    /// The names of all domains.
    pub(super) fn names(&self, check: &dyn Fn() -> Result<()>) -> Result<Vec<String>> {
        let listed = text(&self.xl_while(check, &["list"])?.stdout);
        let names = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }

    /// Creates the domain, paused, unless `check` fails before; then nothing is left of it.
    pub(super) fn create(
        &self,
        domain: &Domain,
        captures: &[Capture],
        check: &dyn Fn() -> Result<()>,
    ) -> Result<HostDomain> {
        let tcpdump = capture::find(captures)?;
        // By this a domain that was made by half is told from another of its name.
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
            .map_err(|error| Failure::io("read /proc/sys/kernel/random/uuid", &error))?;
        let uuid = uuid.trim();
        let config = format!("{}uuid = \"{uuid}\"\n", domain.xl_config(AtEnd::Preserve)?);
        self.ui.detail(&config);
        // Private: a command line may hold what others need not read.
        let written = tempfile::Builder::new()
            .prefix("fata-")
            .suffix(".cfg")
            .tempfile()
            .and_then(|mut file| file.write_all(config.as_bytes()).map(|()| file));
        let file = written.map_err(|error| Failure::io("write a configuration for xl", &error))?;
        let path = file.path().to_string_lossy().into_owned();
        self.xl_while(check, &["create", "-q", "-e", "-p", &path]).inspect_err(|_| {
            // The first failure is the one to tell.
            let list = self.xl(&["list", "-v"]).map(|output| text(&output.stdout));
            if let Some(id) = id_of(&list.unwrap_or_default(), uuid) {
                let _ = self.xl(&["destroy", id]);
            }
        })?;
        drop(file);
        let id = text(&self.xl(&["domid", &domain.name])?.stdout).trim().to_owned();
        // By its number, which no later domain gets.
        let destroy = [self.xl.as_os_str(), OsStr::new("destroy"), OsStr::new(&id)];
        let guard = Guard::start(&destroy)?;
        let mut command = tethered(&self.xl);
        // It ends when its input does: a pipe that nobody writes to stays open.
        command.args(["console", &id]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        let mut console = Tethered::spawn(command, "xl console")?;
        let output = console.streams().stdout.take();
        let input = console.streams().stdin.take();
        let host = Self { ui: self.ui, xl: self.xl.clone() };
        let guard = Some(guard);
        let dumps = Dumps::default();
        // From here on it is destroyed, whatever fails.
        let mut created = HostDomain { host, id, console, output, _input: input, guard, dumps };
        created.dumps.start(&tcpdump, &created.id, captures)?;
        Ok(created)
    }

    /// Runs xl to its end; what it said is in the failure.
    fn xl(&self, words: &[&str]) -> Result<Output> {
        self.xl_while(&|| Ok(()), words)
    }

    /// The same, which ends xl as soon as `check` fails.
    fn xl_while(&self, check: &dyn Fn() -> Result<()>, words: &[&str]) -> Result<Output> {
        let failed = |error: std::io::Error| Failure::io("start xl", &error);
        let mut command = tethered(&self.xl);
        command.args(words);
        self.ui.detail(&child::typed(&command));
        // Files, which are full at no time, and which nothing that xl leaves behind keeps open.
        let (mut stdout, mut stderr) =
            (tempfile::tempfile().map_err(failed)?, tempfile::tempfile().map_err(failed)?);
        command.stdout(stdout.try_clone().map_err(failed)?);
        command.stderr(stderr.try_clone().map_err(failed)?);
        let mut xl = Tethered::spawn(command, "xl")?;
        let status = loop {
            if let Some(status) = xl.try_wait()? {
                break status;
            }
            // Dropping it ends it.
            check()?;
            std::thread::sleep(WORK_TICK);
        };
        let read = |file: &mut File| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(failed)?;
            Ok(bytes)
        };
        let output = Output { status, stdout: read(&mut stdout)?, stderr: read(&mut stderr)? };
        if output.status.success() {
            return Ok(output);
        }
        let said = text(&output.stderr);
        let verb = words.first().copied().unwrap_or_default();
        Err(explain(&format!("xl {verb}"), &said))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A domain of this computer; dropping it destroys it.
pub(crate) struct HostDomain {
    host: Host,
    id: String,
    console: Tethered,
    output: Option<std::process::ChildStdout>,
    /// Held open, see where it is made.
    _input: Option<ChildStdin>,
    /// Destroys the domain should this process die.
    guard: Option<Guard>,
    /// What captures its cards.
    dumps: Dumps,
}

impl Running for HostDomain {
    fn id(&self) -> &str {
        &self.id
    }

    fn console(&mut self) -> Option<Box<dyn Read + Send>> {
        self.output.take().map(|output| Box::new(output) as Box<dyn Read + Send>)
    }

    fn start(&mut self) -> Result<()> {
        self.host.xl(&["unpause", &self.id]).map(|_| ())
    }

    fn poll_end(&mut self) -> Result<Option<End>> {
        let mut command = tethered(&self.host.xl);
        command.args(["list", "-v", &self.id]);
        let output = command.output().map_err(|error| Failure::io("start xl", &error))?;
        if !output.status.success() {
            return Ok(Some(End::Destroyed));
        }
        Ok(ended(&text(&output.stdout), &self.id))
    }

    fn destroy(&mut self) {
        if let Some(guard) = self.guard.take() {
            if !self.dumps.is_empty() {
                // So that its last frames are captured before its interfaces go.
                let _ = self.host.xl(&["pause", &self.id]);
                self.dumps.end();
            }
            // It is gone already when somebody else destroyed it.
            let _ = self.host.xl(&["destroy", &self.id]);
            guard.dismiss();
            self.console.end();
        }
    }

    fn capture_troubles(&mut self) -> Vec<String> {
        self.dumps.troubles()
    }
}

impl Drop for HostDomain {
    fn drop(&mut self) {
        self.destroy();
    }
}

/// The number of the domain with this UUID, from `xl list -v`. It may not have a name yet.
fn id_of<'a>(list: &'a str, uuid: &str) -> Option<&'a str> {
    list.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let id = fields.nth(1)?;
        fields.any(|field| field == uuid).then_some(id)
    })
}

/// How domain `id` ended, from `xl list -v`: name, id, memory, CPUs, state, seconds, UUID and the
/// reason of the shutdown in hexadecimal (Xen's sched.h: SHUTDOWN_*).
fn ended(list: &str, id: &str) -> Option<End> {
    let fields = list.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&id)).then_some(fields)
    });
    let Some(fields) = fields else { return Some(End::Destroyed) };
    let state = fields.get(4)?;
    if !state.contains(['s', 'c']) {
        return state.contains('d').then_some(End::Destroyed);
    }
    Some(match *fields.get(7)? {
        "0" => End::Poweroff,
        "1" => End::Reboot,
        "3" => End::Crash,
        "4" => End::Watchdog,
        // 2 is a suspension that somebody asked for, 5 a soft reset: neither is an end of ours.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIST: &str = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason-Code\tSecurity Label
web                                          4    32     1     STATE       0.1 b6e27dec-e6ef-11f1-b3cd-525400123456        REASON                -
";

    #[test]
    fn the_end_is_read_from_xls_list() {
        let end = |state: &str, reason: &str| {
            ended(&LIST.replace("STATE", state).replace("REASON", reason), "4")
        };
        assert_eq!(end("r-----", "-"), None);
        assert_eq!(end("-b----", "-"), None);
        assert_eq!(end("---s--", "0"), Some(End::Poweroff));
        assert_eq!(end("---s--", "1"), Some(End::Reboot));
        assert_eq!(end("----c-", "3"), Some(End::Crash));
        assert_eq!(end("---s--", "4"), Some(End::Watchdog));
        assert_eq!(end("---s--", "2"), None, "it is suspended");
        assert_eq!(end("-----d", "-"), Some(End::Destroyed));
        assert_eq!(ended(LIST, "5"), Some(End::Destroyed), "it is not in the list");
    }

    #[test]
    fn a_domain_without_a_name_is_found_by_its_uuid() {
        let half = LIST.replace("web ", "(null) ").replace("b6e27dec", "b6e27ded");
        let list = format!("{LIST}{}", half.lines().last().unwrap().replacen(" 4 ", " 5 ", 1));
        assert_eq!(id_of(&list, "b6e27ded-e6ef-11f1-b3cd-525400123456"), Some("5"));
        assert_eq!(id_of(&list, "b6e27dec-e6ef-11f1-b3cd-525400123456"), Some("4"));
        assert_eq!(id_of(&list, "b6e27dee-e6ef-11f1-b3cd-525400123456"), None);
    }

    #[test]
    fn dom0_is_told_from_other_domains_and_from_ordinary_computers() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert!(!is_dom0(root.path()));
        write("sys/hypervisor/type", "xen\n");
        write("sys/hypervisor/uuid", "b6e27dec-e6ef-11f1-b3cd-525400123456\n");
        assert!(!is_dom0(root.path()), "a guest");
        write("sys/hypervisor/uuid", "00000000-0000-0000-0000-000000000000\n");
        assert!(is_dom0(root.path()));
        write("sys/hypervisor/type", "kvm\n");
        assert!(!is_dom0(root.path()));
        write("proc/xen/capabilities", "\n");
        assert!(!is_dom0(root.path()));
        write("proc/xen/capabilities", "control_d\n");
        assert!(is_dom0(root.path()));
    }

    proptest! {
        #[test]
        fn any_list_is_survived(list in "[ -~\n\t]{0,300}") {
            let _ = (ended(&list, "4"), id_of(&list, "a"));
        }
    }
}
