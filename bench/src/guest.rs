//! One virtual machine: how QEMU is told to start it, and what it says on its console.
//!
//! Both systems get the same words: machine type, processor, memory, accelerator, devices. They differ in the kernel
//! and in the options of `microvm` that each needs (Linux finds its devices there through ACPI, our images through
//! the command line).

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cancel;
use crate::lab::{self, Lab};
use crate::process::{Owned, dies_with_us};

/// What a service prints once its socket listens. User networking accepts connections long before a guest does, so
/// a probe that starts earlier measures QEMU.
pub(crate) const LISTENING: &str = "listening on ";

/// Longest console line that is kept, in bytes; the rest of it is dropped.
const LINE_BYTES_MAX: u64 = 4096;
/// Console lines kept to explain a failure.
const LINES_KEPT: usize = 12;
/// Lines that may wait for us; a guest that prints faster is held back by its pipe.
const LINES_QUEUED: usize = 1024;

/// The guest's and our address on QEMU's user network, whose host side QEMU plays.
const USER_GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const USER_HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// What runs in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum System {
    /// One of our images.
    Fata,
    /// Debian's kernel with the same program as its init.
    Linux,
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fata => "fata",
            Self::Linux => "linux",
        })
    }
}

/// QEMU's machine type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Machine {
    /// A PC with PCI Express and SeaBIOS.
    Q35,
    /// The minimal machine with virtio-mmio.
    Microvm,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Q35 => "q35",
            Self::Microvm => "microvm",
        })
    }
}

/// What QEMU loads.
#[derive(Debug, Clone)]
pub(crate) struct Software {
    /// Our image, or Linux's kernel.
    pub(crate) kernel: PathBuf,
    /// Linux's root file system.
    pub(crate) initramfs: Option<PathBuf>,
}

/// How the guest is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Network<'a> {
    /// QEMU's own user network, with one forwarded port.
    User,
    /// The TAP device in a namespace.
    Tap(&'a Lab),
}

/// One boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Boot<'a> {
    pub(crate) system: System,
    pub(crate) machine: Machine,
    pub(crate) software: &'a Software,
    pub(crate) network: Network<'a>,
    pub(crate) memory_mib: u32,
    /// The port that the program is told to listen on.
    pub(crate) port: u16,
    /// Asks our image to print how long it took to reach `main`.
    pub(crate) boot_times: bool,
}

impl Boot<'_> {
    /// Starts QEMU.
    pub(crate) fn start(&self) -> Result<Guest> {
        let (mut command, address) = match self.network {
            Network::User => (
                dies_with_us("qemu-system-x86_64"),
                SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?),
            ),
            Network::Tap(lab) => {
                (lab.command("qemu-system-x86_64"), SocketAddrV4::new(lab::GUEST, self.port))
            }
        };
        command.args(self.arguments(address.port()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (sender, lines) = sync_channel(LINES_QUEUED);
        let started = Instant::now();
        let mut process = Owned::spawn(&mut command, "qemu-system-x86_64")?;
        let child = process.child_mut();
        forward(child.stdout.take(), sender.clone());
        forward(child.stderr.take(), sender);
        Ok(Guest {
            process,
            lines,
            recent: VecDeque::new(),
            started,
            address: address.into(),
            system: self.system,
            machine: self.machine,
        })
    }

    /// QEMU's arguments; `forwarded` is our end of the forwarded port.
    fn arguments(&self, forwarded: u16) -> Vec<String> {
        let mut arguments: Vec<String> = [
            "-M",
            match (self.machine, self.system) {
                (Machine::Q35, _) => Q35,
                (Machine::Microvm, System::Fata) => FATA_MICROVM,
                (Machine::Microvm, System::Linux) => LINUX_MICROVM,
            },
            "-accel",
            "tcg",
            "-cpu",
            // With ERMS, Linux copies with REP MOVSB, which is emulated byte by byte.
            "max,-erms",
            "-smp",
            "1",
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-chardev",
            "stdio,id=console,signal=off",
            "-serial",
            "chardev:console",
        ]
        .map(str::to_owned)
        .into();
        let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
        add("-m", format!("{}M", self.memory_mib));
        add("-kernel", self.software.kernel.display().to_string());
        if let Some(initramfs) = &self.software.initramfs {
            add("-initrd", initramfs.display().to_string());
        }
        add("-append", self.command_line());
        add(
            "-netdev",
            match self.network {
                Network::User => format!(
                    "user,id=net,hostfwd=tcp:127.0.0.1:{forwarded}-{USER_GUEST}:{}",
                    self.port
                ),
                Network::Tap(_) => {
                    format!("tap,id=net,ifname={},script=no,downscript=no", lab::TAP)
                }
            },
        );
        match self.machine {
            Machine::Q35 => {
                add("-device", "virtio-net-pci,netdev=net,disable-legacy=on".to_owned());
                add("-device", "virtio-rng-pci,disable-legacy=on".to_owned());
            }
            Machine::Microvm => {
                add("-global", "virtio-mmio.force-legacy=false".to_owned());
                add("-device", "virtio-net-device,netdev=net".to_owned());
                add("-device", "virtio-rng-device".to_owned());
            }
        }
        if self.system == System::Fata {
            add("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04".to_owned());
        }
        arguments
    }

    /// The words that the guest reads. Addresses are static: what a DHCP server takes is not the guest's doing.
    fn command_line(&self) -> String {
        let (guest, host) = match self.network {
            Network::User => (USER_GUEST, USER_HOST),
            Network::Tap(_) => (lab::GUEST, lab::HOST),
        };
        let port = self.port;
        match self.system {
            System::Fata => {
                let times = if self.boot_times { "FATA_BOOT_TIMES=1 " } else { "" };
                format!(
                    "{times}--service.address={guest}/24 --service.gateway={host} --port={port}"
                )
            }
            System::Linux => {
                let clock = match self.machine {
                    Machine::Q35 => String::new(),
                    Machine::Microvm => clock_hint(),
                };
                format!(
                    "console=ttyS0 quiet panic=-1 {clock}address={guest}/24 gateway={host} -- \
                     --service.address=0.0.0.0 --port={port}"
                )
            }
        }
    }
}

/// A PC without the devices that nobody asked for, as `fata run` starts it.
const Q35: &str = "q35,usb=off,smbus=off,sata=off";
/// The options with which `fata run` starts `microvm`.
const FATA_MICROVM: &str =
    "microvm,x-option-roms=off,pit=off,pic=off,rtc=on,isa-serial=on,acpi=off";
/// Debian's virtio_mmio finds its devices through ACPI only. Without option ROMs the kernel is loaded faster.
const LINUX_MICROVM: &str = "microvm,x-option-roms=off,pit=on,pic=on,rtc=on,isa-serial=on,acpi=on";

/// Tells Linux on `microvm` how fast the time stamp counter runs, which under emulation is the host's.
///
/// Without it Linux compares the counter with the PIT, finds on a busy host that they disagree, has no other reference
/// on this machine, and waits for ever for a clock that ticks.
fn clock_hint() -> String {
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    parse_kilohertz(&processors).map_or(String::new(), |khz| format!("tsc_early_khz={khz} "))
}

/// The first processor's frequency in `/proc/cpuinfo`.
fn parse_kilohertz(processors: &str) -> Option<u32> {
    let line = processors.lines().find_map(|line| line.strip_prefix("cpu MHz"))?;
    let megahertz: f64 = line.trim_start().strip_prefix(':')?.trim().parse().ok()?;
    let kilohertz = megahertz * 1e3;
    // What the kernel can take for a frequency: 1 MHz to 100 GHz.
    (1e3..=1e8).contains(&kilohertz).then_some(kilohertz as u32)
}

/// A running machine; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Guest {
    process: Owned,
    lines: Receiver<(Instant, String)>,
    recent: VecDeque<String>,
    started: Instant,
    address: SocketAddr,
    system: System,
    machine: Machine,
}

impl Guest {
    /// QEMU's process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// When QEMU was started.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Where its service is reached from our side of the network.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the console line that says that the service listens.
    pub(crate) fn wait_listening(&mut self, limit: Duration) -> Result<()> {
        self.wait_line(LISTENING, limit).map(drop)
    }

    /// Waits for a console line that contains `text`; gives the line.
    ///
    /// # Errors
    /// When it does not come in time, the machine ends, or its kernel says that it cannot go on.
    pub(crate) fn wait_line(&mut self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            cancel::check()?;
            match self.lines.recv_timeout(cancel::STEP) {
                Ok((_, line)) => {
                    if line.contains(text) {
                        return Ok(line);
                    }
                    let fatal = FATAL.iter().any(|fatal| line.contains(fatal));
                    if self.recent.len() == LINES_KEPT {
                        self.recent.pop_front();
                    }
                    self.recent.push_back(line);
                    if fatal {
                        bail!("{}", self.story("gave up"));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Both streams are closed: it is ending.
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.process.wait(Duration::from_secs(5))?;
                    bail!("{}", self.story(&format!("ended ({status})")));
                }
            }
            if Instant::now() >= deadline {
                let what = format!("did not print {text:?} within {} s", limit.as_secs());
                bail!("{}", self.story(&what));
            }
        }
    }

    fn story(&self, what: &str) -> String {
        let lines: Vec<&str> = self.recent.iter().map(String::as_str).collect();
        let said = if lines.is_empty() { "nothing".to_owned() } else { lines.join(" | ") };
        format!("the {} guest on {} {what}; its console said: {said}", self.system, self.machine)
    }
}

/// What a kernel says when waiting longer is in vain.
const FATAL: [&str; 5] = [
    "Kernel panic",
    "System halted",
    "System is deadlocked on memory",
    "fata: exit code",
    "fata: out of memory",
];

/// Sends a stream's lines, with the time of each, until it ends.
fn forward(stream: Option<impl Read + Send + 'static>, sender: SyncSender<(Instant, String)>) {
    let Some(stream) = stream else { return };
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            // Once nobody waits any more, go on reading: a full pipe would stop the guest.
            let _ = sender.try_send((Instant::now(), text));
        }
    });
}

/// A port of the loopback interface that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot find a free port")?;
    Ok(listener.local_addr().context("cannot find a free port")?.port())
}

/// The version of QEMU, such as `7.2.22 (Debian …)`.
pub(crate) fn qemu_version() -> Result<String> {
    let mut command = Command::new("qemu-system-x86_64");
    let text = crate::process::run_ok(
        command.arg("--version"),
        "qemu-system-x86_64 --version",
        Duration::from_secs(20),
    )?;
    let line = text.lines().next().unwrap_or_default();
    Ok(line.trim_start_matches("QEMU emulator version ").to_owned())
}

/// The size of a file in bytes.
pub(crate) fn file_bytes(path: &Path) -> Result<u64> {
    let metadata =
        std::fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    Ok(metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(system: System, machine: Machine, software: &Software) -> Boot<'_> {
        let network = Network::User;
        Boot { system, machine, software, network, memory_mib: 64, port: 80, boot_times: false }
    }

    /// The words by which two boots differ.
    fn difference(machine: Machine) -> (Vec<String>, Vec<String>) {
        let software = Software { kernel: "k".into(), initramfs: None };
        let [ours, theirs] = [System::Fata, System::Linux]
            .map(|system| boot(system, machine, &software).arguments(1));
        let only = |a: &[String], b: &[String]| {
            a.iter().filter(|word| !b.contains(word)).cloned().collect::<Vec<_>>()
        };
        (only(&ours, &theirs), only(&theirs, &ours))
    }

    #[test]
    fn both_systems_get_the_same_machine() {
        let (ours, theirs) = difference(Machine::Q35);
        assert_eq!(ours.len(), 2, "the command line and the exit port: {ours:?}");
        assert_eq!(theirs.len(), 1, "the command line: {theirs:?}");
        let (ours, theirs) = difference(Machine::Microvm);
        assert_eq!(
            (ours.len(), theirs.len()),
            (3, 2),
            "and microvm's options: {ours:?} {theirs:?}"
        );
    }

    #[test]
    fn the_frequency_is_read() {
        let text = "processor\t: 0\ncpu MHz\t\t: 2596.126\ncpu MHz\t\t: 1.0\n";
        assert_eq!(parse_kilohertz(text), Some(2_596_126));
        assert_eq!(parse_kilohertz("cpu MHz\t\t: inf\n"), None);
        assert_eq!(parse_kilohertz("cpu MHz\t\t: -3\n"), None);
        assert_eq!(parse_kilohertz("model name : x\n"), None);
    }

    #[test]
    fn a_guest_that_cannot_start_says_why() {
        let software = Software { kernel: "/nonexistent/kernel".into(), initramfs: None };
        let mut command = Command::new("sh");
        command.args(["-c", "echo cannot load >&2"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Owned::spawn(&mut command, "sh").expect("there is a shell");
        let (sender, lines) = sync_channel(4);
        forward(process.child_mut().stderr.take(), sender);
        let mut guest = Guest {
            process,
            lines,
            recent: VecDeque::new(),
            started: Instant::now(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            system: boot(System::Linux, Machine::Q35, &software).system,
            machine: Machine::Q35,
        };
        let error = guest.wait_listening(Duration::from_secs(20)).expect_err("it never listens");
        assert!(error.to_string().contains("cannot load"), "{error}");
    }
}
