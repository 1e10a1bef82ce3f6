//! The Xen host: a QEMU, and the folder that holds everything about it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::accelerator::{self, Accelerator};
use crate::control::{Control, Output, POLL_INTERVAL};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::places;
use crate::process::Process;
use crate::snapshot::Snapshot;
use crate::system::{self, System};

/// guest_loglvl: what guests write to port 0xe9 is shown, with their number before it.
pub(crate) const XEN_COMMAND_LINE: &str = "console=com1 com1=115200,8n1 dom0_mem=384M,max:384M \
                                           dom0_max_vcpus=1 loglvl=warning guest_loglvl=all/all";

/// Without FSGSBASE: with it, a kernel that Xen runs paravirtualised reads an MSR, which Xen has to
/// emulate, whenever it changes from one thread to another.
pub(crate) const DOM0_COMMAND_LINE: &str = "console=hvc0 quiet loglevel=4 nofsgsbase";

/// The bridge in dom0 that the outer network and guests' interfaces are ports of.
pub const BRIDGE: &str = "xenbr0";

/// dom0's address on the bridge, with its prefix length.
pub const DOM0_ADDRESS: &str = "10.0.2.10/24";

/// The gateway, and what stands for this computer, when QEMU's user network is the outer network.
/// Its name server is at 10.0.2.3, and its DHCP server gives 10.0.2.15 and up.
pub const GATEWAY: &str = "10.0.2.2";

/// How long a host may take from QEMU's start until it takes commands. Alone on an emulated
/// processor it needs ten seconds; this is for a computer that does other things too.
const BOOT_TIME_MAX: Duration = Duration::from_secs(240);

/// How long QEMU has to end by itself after SIGTERM.
const END_TIME_MAX: Duration = Duration::from_secs(5);

/// How a host is to be made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name among the user's hosts; none for one that only its owner uses.
    pub name: Option<String>,
    /// Its memory in MiB, dom0's 384 and Xen's own 100 included.
    pub memory_mib: u32,
    /// How many processors it has. dom0 uses one; with more, guests run beside it and each other.
    pub processors: u32,
    /// What QEMU runs it on.
    pub accelerator: Accelerator,
    /// A TAP interface of this computer that becomes the outer network; without one it is QEMU's
    /// user network, which needs no privileges.
    pub tap: Option<String>,
    /// The QEMU to start.
    pub qemu: PathBuf,
    /// Whether the host goes on when its owner ends. Such a host has a name, and ends with
    /// [`Testbed::stop`].
    pub detached: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: None,
            memory_mib: 1280,
            processors: 1,
            accelerator: Accelerator::default(),
            tap: None,
            qemu: "qemu-system-x86_64".into(),
            detached: false,
        }
    }
}

/// What is written down about a host, for those who attach to it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Record {
    pub(crate) qemu: Process,
    pub(crate) owner: Option<Process>,
    pub(crate) memory_mib: u32,
    pub(crate) accelerator: String,
    pub(crate) tap: Option<String>,
    pub(crate) system: System,
}

/// A running Xen host. Clones are handles of the same host; the last handle of the process that
/// started it ends it, unless it is detached.
#[derive(Clone, Debug)]
pub struct Testbed {
    pub(crate) host: Arc<Host>,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) state: PathBuf,
    pub(crate) control: Control,
    pub(crate) record: Record,
    /// Waits for QEMU; none when the host is somebody else's.
    keeper: Option<JoinHandle<()>>,
}

impl Testbed {
    /// Makes a host and boots it. `progress` is told what is being done, in words.
    ///
    /// # Errors
    /// When packages, programs or memory are missing, the name is taken, or the host does not
    /// come up: with what QEMU, Xen or dom0 said last.
    pub fn start(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        let cache = crate::cache::folder()?;
        let packages = crate::packages::provide(&cache, progress)?;
        let system = system::provide(&cache, packages, progress)?;
        let machine = accelerator::choose(options.accelerator)?;
        let snapshot = Snapshot::of(&cache, options, machine, &system);
        // What was kept may not fit after all; then the host is booted, and kept anew.
        if let Some(snapshot) = snapshot.as_ref().filter(|snapshot| snapshot.exists()) {
            match Host::launch(options, machine, &system, Some(snapshot), progress) {
                Err(error) if error.kind() == Kind::Host => {
                    progress(&format!("the kept host does not continue: {}", error.what()));
                    snapshot.remove()?;
                }
                host => return Ok(Self { host: Arc::new(host?) }),
            }
        }
        let host = Host::launch(options, machine, &system, snapshot.as_ref(), progress)?;
        Ok(Self { host: Arc::new(host) })
    }

    /// Attaches to the host of this name, or, without one, to the only one that has a name. None
    /// when there is no such host.
    pub fn running(name: Option<&str>) -> Option<Self> {
        let mut found = Self::all().ok()?;
        match name {
            Some(name) => found.into_iter().find(|testbed| testbed.name() == name),
            None if found.len() == 1 => found.pop(),
            None => None,
        }
    }

    /// Attaches to the host of this name.
    ///
    /// # Errors
    /// When there is none: with the names of those that there are.
    pub fn find(name: &str) -> Result<Self> {
        let mut all = Self::all()?;
        let names: Vec<_> = all.iter().map(|testbed| testbed.name().to_owned()).collect();
        if let Some(at) = names.iter().position(|found| found == name) {
            return Ok(all.swap_remove(at));
        }
        let error = Error::new(Kind::Usage, format!("no Xen host named {name} is up"));
        Err(error.help(if names.is_empty() {
            "start one: testbed up".to_owned()
        } else {
            format!("those that are: {}", names.join(", "))
        }))
    }

    /// All hosts of this user that have a name and run.
    ///
    /// # Errors
    /// When the folder of hosts cannot be read.
    pub fn all() -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for state in files::list(&places::base()?)? {
            if let Ok(testbed) = Self::attach(&state)
                && !places::is_nameless(testbed.name())
            {
                found.push(testbed);
            }
        }
        Ok(found)
    }

    /// Attaches to the host whose [`state_dir`](Self::state_dir) this is.
    ///
    /// # Errors
    /// When there is none, or it has ended.
    pub fn attach(state: &Path) -> Result<Self> {
        let text = files::read(&state.join("host.json"))?;
        let record: Record = serde_json::from_slice(&text).map_err(|error| {
            Error::new(Kind::Host, format!("{} is no host's folder: {error}", state.display()))
        })?;
        let name = state.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let control = Control::new(state, record.qemu);
        control.check_alive()?;
        if !control.share.join("ready").exists() {
            return Err(Error::new(Kind::Host, format!("the Xen host {name} is still booting")));
        }
        let host = Host { name, state: state.to_owned(), control, record, keeper: None };
        Ok(Self { host: Arc::new(host) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.host.name
    }

    /// The folder that holds everything about it: `xen.log`, `qemu.log`, and `share`, which dom0
    /// sees as `/share`. It goes when the host does.
    pub fn state_dir(&self) -> &Path {
        &self.host.state
    }

    /// Its memory in MiB.
    pub fn memory_mib(&self) -> u32 {
        self.host.record.memory_mib
    }

    /// What it runs on, in QEMU's words: "tcg" or "kvm".
    pub fn accelerator(&self) -> &str {
        &self.host.record.accelerator
    }

    /// The TAP interface that is its outer network; none when that is QEMU's user network.
    pub fn tap(&self) -> Option<&str> {
        self.host.record.tap.as_deref()
    }

    /// QEMU's process number.
    pub fn qemu_id(&self) -> u32 {
        self.host.record.qemu.id()
    }

    /// Debian's kernel, unpacked, for Linux guests.
    pub fn linux_kernel(&self) -> &Path {
        &self.host.record.system.linux
    }

    /// Runs a shell script in dom0, which has busybox, `xl` and the `xenstore-*` programs.
    ///
    /// # Errors
    /// When `timeout` passes (the script and all it started are killed), or the host is gone. A
    /// script that fails is no error: see [`Output::check`].
    pub fn dom0(&self, script: &str, timeout: Duration) -> Result<Output> {
        self.host.control.run(script, timeout)
    }

    /// The names of all guests on the host.
    ///
    /// # Errors
    /// When dom0 does not answer.
    pub fn names(&self) -> Result<Vec<String>> {
        let listed = self.dom0("xl list", Duration::from_secs(60))?.check("list its guests")?;
        let names = listed.text();
        let names = names.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        Ok(names.filter(|name| *name != "Domain-0").map(str::to_owned).collect())
    }

    /// Puts a copy of a file of this computer into the shared folder, under a name that starts
    /// with `stem`; returns its path in dom0.
    ///
    /// # Errors
    /// When the file cannot be read, or the copy not be written.
    pub fn put(&self, file: &Path, stem: &str) -> Result<String> {
        let plain: String = stem
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.+".contains(c) { c } else { '_' })
            .collect();
        let name = format!("{plain}.{}", files::unique());
        let target = self.host.control.share.join("files").join(&name);
        std::fs::copy(file, &target).map_err(|error| {
            Error::io(format!("copy {} into {}", file.display(), target.display()), &error)
        })?;
        Ok(format!("/share/files/{name}"))
    }

    /// Xen's own log so far: its messages, dom0's console, and what guests wrote to port 0xe9.
    pub fn xen_log(&self) -> String {
        let log = std::fs::read(self.host.state.join("xen.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Ends the host, whoever started it.
    ///
    /// # Errors
    /// When its folder cannot be removed.
    pub fn stop(&self) -> Result<()> {
        self.host.end();
        files::remove_folder(&self.host.state)
    }
}

impl Host {
    /// Starts QEMU and waits until dom0 takes commands. With a `snapshot` that exists the host goes
    /// on from there; with one that does not, it is kept on the way.
    fn launch(
        options: &Options,
        machine: accelerator::Machine,
        system: &System,
        snapshot: Option<&Snapshot>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let (name, state) = places::claim(options)?;
        let host = Self::start_qemu(options, machine, system, snapshot, name, &state);
        let host = match host {
            Ok(host) => host,
            Err(error) => {
                // The first error is the one to tell.
                let _ = files::remove_folder(&state);
                return Err(error);
            }
        };
        if let Err(error) = host.come_up(machine, snapshot, progress) {
            host.end();
            let _ = files::remove_folder(&state);
            return Err(error);
        }
        Ok(host)
    }

    fn start_qemu(
        options: &Options,
        machine: accelerator::Machine,
        system: &System,
        snapshot: Option<&Snapshot>,
        name: String,
        state: &Path,
    ) -> Result<Self> {
        Control::prepare(state)?;
        let owner = if options.detached { None } else { Some(Process::this()?) };
        let mut command = command(options, machine, system, state)?;
        if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.exists()) {
            snapshot.continue_from(&mut command);
        }
        let (qemu, keeper) = spawn(command, options.detached)?;
        let record = Record {
            qemu,
            owner,
            memory_mib: options.memory_mib,
            accelerator: machine.accelerator.to_owned(),
            tap: options.tap.clone(),
            system: system.clone(),
        };
        let control = Control::new(state, qemu);
        let host = Self { name, state: state.to_owned(), control, record, keeper };
        let text = serde_json::to_vec_pretty(&host.record).expect("a record is plain data");
        let written = files::write_whole(&state.join("host.json"), &text);
        if written.is_err() {
            host.end();
        }
        written.map(|()| host)
    }

    fn come_up(
        &self,
        machine: accelerator::Machine,
        snapshot: Option<&Snapshot>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let packages = &self.record.system.packages;
        let what = format!("Xen {} and Linux {}", packages.xen_version, packages.kernel_release);
        let share = &self.control.share;
        match snapshot.filter(|snapshot| snapshot.exists()) {
            Some(snapshot) => {
                progress(&format!("continuing {what} from where they had booted"));
                snapshot.wait_until_continued(self)?;
            }
            None => {
                let how = if machine.accelerator == "tcg" { "emulated" } else { "on hardware" };
                progress(&format!("booting {what} ({how})"));
                let log = self.state.join("xen.log");
                self.wait_until(|| last_lines(&log, 4).contains("testbed: waiting"))?;
                if let Some(snapshot) = snapshot {
                    progress("keeping the booted host, for faster starts");
                    // A host that cannot be kept is as good as one that was.
                    if let Err(error) = snapshot.keep(self) {
                        progress(&format!("it cannot be kept: {}", error.what()));
                    }
                }
            }
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.control.ring(&now.unwrap_or_default().as_secs().to_string())?;
        self.wait_until(|| share.join("ready").exists())
    }

    /// Waits until something has happened while the host comes up.
    pub(crate) fn wait_until(&self, mut happened: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + BOOT_TIME_MAX;
        let log = self.state.join("xen.log");
        while !happened() {
            check_interrupted()?;
            self.control.check_alive().map_err(|error| {
                error.help("is there memory for it, and does QEMU start by itself?")
            })?;
            let said = last_lines(&log, 12);
            if said.contains("testbed: failed") {
                return Err(Error::new(Kind::Host, "dom0 does not come up").note(said));
            }
            if Instant::now() >= deadline {
                let what = format!("the Xen host is not up after {} s", BOOT_TIME_MAX.as_secs());
                return Err(Error::new(Kind::Host, what).note(said));
            }
            std::thread::sleep(POLL_INTERVAL * 5);
        }
        Ok(())
    }

    /// Ends QEMU. Returns when it is gone.
    pub(crate) fn end(&self) {
        let qemu = self.record.qemu;
        qemu.signal(Signal::TERM);
        let deadline = Instant::now() + END_TIME_MAX;
        while qemu.is_alive() && Instant::now() < deadline {
            std::thread::sleep(POLL_INTERVAL);
        }
        qemu.signal(Signal::KILL);
        while qemu.is_alive() {
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            self.end();
            // It only waits for QEMU, which has ended.
            let _ = keeper.join();
            // What cannot be removed now is swept by the next host that starts.
            let _ = files::remove_folder(&self.state);
        }
    }
}

/// QEMU's command line.
fn command(
    options: &Options,
    machine: accelerator::Machine,
    system: &System,
    state: &Path,
) -> Result<Command> {
    let path = |path: &Path| -> Result<String> {
        // QEMU reads a comma as the end of a value, and two as one.
        let text = path.to_str().ok_or_else(|| {
            Error::new(Kind::Usage, format!("{} is not a path in UTF-8", path.display()))
        })?;
        Ok(text.replace(',', ",,"))
    };
    let at = |name: &str| path(&state.join(name));
    if let Some(comma) = [&system.linux, &system.dom0].iter().find(|p| {
        // Multiboot modules are words: file, then arguments.
        p.to_string_lossy().contains([',', ' '])
    }) {
        let what = format!("{}: the cache's path must hold no comma and no space", comma.display());
        return Err(Error::new(Kind::Usage, what).help("set FATA_TESTBED_CACHE to another folder"));
    }
    let mut command = if options.detached {
        Command::new(&options.qemu)
    } else {
        // The kernel kills QEMU when the thread that started it ends; see `spawn`.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&options.qemu);
        command
    };
    command.args(["-name", "fata-testbed", "-nodefaults", "-display", "none", "-no-reboot"]);
    command.args(["-machine", "q35", "-accel", machine.accelerator, "-cpu", machine.cpu]);
    command.args(["-smp", &options.processors.to_string()]);
    command.args(["-m", &options.memory_mib.to_string()]);
    command.arg("-kernel").arg(&system.xen);
    command.args(["-append", XEN_COMMAND_LINE]);
    let gateway = match options.tap {
        Some(_) => String::new(),
        None => format!(" testbed.gateway={GATEWAY}"),
    };
    command.arg("-initrd").arg(format!(
        "{} {DOM0_COMMAND_LINE} testbed.address={DOM0_ADDRESS}{gateway},{}",
        system.linux.display(),
        system.dom0.display()
    ));
    command.arg("-serial").arg(format!("file:{}", at("xen.log")?));
    command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", at("qmp")?));
    command.args(["-device", "virtio-serial-pci", "-chardev"]);
    command.arg(format!("pipe,id=bell,path={}", at("bell")?));
    command.args(["-device", "virtserialport,chardev=bell,name=bell", "-fsdev"]);
    command.arg(format!("local,id=share,security_model=none,path={}", at("share")?));
    command.args(["-device", "virtio-9p-pci,fsdev=share,mount_tag=testbed"]);
    command.args(["-device", "virtio-scsi-pci,id=disks", "-netdev"]);
    command.arg(match &options.tap {
        None => format!("user,id=outside,net={GATEWAY}/24"),
        Some(interface) => format!(
            "tap,id=outside,ifname={},script=no,downscript=no",
            interface.replace(',', ",,")
        ),
    });
    command.args(["-device", "virtio-net-pci,netdev=outside,romfile="]);
    let log = state.join("qemu.log");
    let output = std::fs::File::create(&log)
        .and_then(|file| Ok((file.try_clone()?, file)))
        .map_err(|error| Error::io(format!("make {}", log.display()), &error))?;
    command.stdin(Stdio::null()).stdout(output.0).stderr(output.1);
    // Ctrl-C is for the owner, which ends QEMU in its own time.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    Ok(command)
}

/// Starts QEMU. One that is not detached is waited for by a thread, which also starts it, because
/// the kernel ties a child to the thread that forked it: this one lives as long as QEMU does.
fn spawn(mut command: Command, detached: bool) -> Result<(Process, Option<JoinHandle<()>>)> {
    let doing = "start the Xen host";
    let qemu = command.get_args().nth(2).unwrap_or_default().to_string_lossy().into_owned();
    let name = command.get_program().to_string_lossy().into_owned();
    if detached {
        let child =
            command.spawn().map_err(|error| crate::tools::cannot_start(&name, doing, &error))?;
        return Ok((Process::of(child.id())?, None));
    }
    if which(Path::new(&qemu)).is_none() {
        return Err(crate::tools::cannot_start(&qemu, doing, &std::io::ErrorKind::NotFound.into()));
    }
    let (send, receive) = std::sync::mpsc::channel();
    let keeper = std::thread::spawn(move || {
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                // The owner waits for this message.
                let _ = send.send(Err(error));
                return;
            }
        };
        let _ = send.send(Ok(Process::of(child.id())));
        let _ = child.wait();
    });
    match receive.recv().expect("the keeper sends before it ends") {
        Ok(process) => Ok((process?, Some(keeper))),
        Err(error) => Err(crate::tools::cannot_start(&name, doing, &error)),
    }
}

/// The executable `name` on the PATH, or the path itself when it has a slash.
pub(crate) fn which(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return name.exists().then(|| name.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The last lines of a log.
pub(crate) fn last_lines(log: &Path, count: usize) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Set by who wants every wait in this process to end: a program that was interrupted.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on every wait of this crate ends with an error. For signal handlers' threads.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// An error after [`interrupt`].
pub(crate) fn check_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err(Error::new(Kind::Deadline, "interrupted"));
    }
    Ok(())
}
