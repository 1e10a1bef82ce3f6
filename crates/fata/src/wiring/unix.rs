//! The target `unix`: an ordinary process over the host's sockets, TAP interfaces and files.

use super::arguments::{Arguments, WiringError};
use super::spec::{DeviceKind, Program};
use super::stack_config;
use crate::channel::{self, Channel, ChannelStream};
use crate::clients::{Client, Clients, Listed};
use crate::{Block, Export, Interface, Stack};
use fata_device::Nic;
use fata_net::capture::Capturing;
use fata_unix::{FileBlock, HostInput, HostSockets, Tap};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};

/// What the manifest calls this target.
pub const TARGET: &str = "unix";

/// A terminal makes lines of what is typed.
pub(crate) const CONSOLE_IS_RAW: bool = false;

/// What is typed, or piped into the process.
pub(crate) fn console_source() -> io::Result<HostInput> {
    HostInput::standard()
}

/// Nothing was done before the runtime started.
pub(super) struct Entry;

pub(super) fn enter() -> Entry {
    Entry
}

pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// The settings of a device of `kind`, with their help.
pub(super) fn settings(kind: DeviceKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        DeviceKind::Stack => &[
            (
                "address",
                "Address of the host to bind to [default: 127.0.0.1]; with .tap: dhcp, none, \
                 A.B.C.D/LEN, X::Y/LEN; several with commas",
            ),
            ("tap", "Run Fata's own stack over this TAP interface"),
            ("gateway", "With .tap: the routers' addresses"),
            ("dns", "With .tap: the resolvers' addresses"),
            ("route", stack_config::ROUTE_HELP),
            ("ipv6", stack_config::IPV6_HELP),
            ("ipv6-secret", stack_config::SECRET_HELP),
            ("limits", stack_config::LIMITS_HELP),
            ("congestion", stack_config::CONGESTION_HELP),
            ("pcap", "With .tap: write what passes the interface into this file, as pcapng"),
        ],
        DeviceKind::Block => {
            &[("file", "The file that holds the disk [required]"), ("read-only", "Refuse writes")]
        }
        DeviceKind::Interface => &[
            ("tap", "The TAP interface [required]"),
            ("pcap", "Write what passes the interface into this file, as pcapng"),
        ],
        DeviceKind::Clients => &[("taps", "TAP interfaces, one for each client: NAME,NAME…")],
        DeviceKind::Channel => &[("path", "The Unix socket [required]")],
        DeviceKind::Export => &[],
    }
}

pub(super) struct Target;

impl Target {
    pub(super) async fn new(_entry: Entry, _program: &Program) -> Result<Self, WiringError> {
        Ok(Target)
    }

    /// The stack `name`; the host's sockets are always there.
    pub(super) async fn stack(
        &mut self,
        name: &str,
        arguments: &Arguments,
    ) -> Result<Option<Stack>, WiringError> {
        match arguments.setting(name, "tap") {
            Some(interface) => over_tap(name, interface, arguments).map(Some),
            None => over_host(name, arguments).map(Some),
        }
    }

    /// The interface `name`, if a TAP interface was named for it.
    pub(super) async fn interface(
        &mut self,
        name: &str,
        arguments: &Arguments,
    ) -> Result<Option<Interface>, WiringError> {
        let Some(interface) = arguments.setting(name, "tap") else { return Ok(None) };
        let tap = open_tap(name, interface)?;
        Ok(Some(match arguments.setting(name, "pcap") {
            Some(file) => Interface::new(capturing(name, tap, file)?),
            None => Interface::new(tap),
        }))
    }

    /// A client for each TAP interface that was named.
    pub(super) async fn clients(
        &mut self,
        name: &str,
        arguments: &Arguments,
    ) -> Result<Option<Clients>, WiringError> {
        let Some(taps) = arguments.setting(name, "taps") else { return Ok(None) };
        let mut clients = VecDeque::new();
        for tap in taps.split(',').filter(|tap| !tap.is_empty()) {
            let interface = Interface::new(open_tap(name, tap)?);
            clients.push_back(Client { name: tap.to_string(), interface });
        }
        Ok(Some(Clients::new(Listed(clients))))
    }

    /// A process has no guests beside it.
    pub(super) async fn export(
        &mut self,
        _: &str,
        _: &Arguments,
    ) -> Result<Option<Export>, WiringError> {
        Ok(None)
    }

    /// The channel `name`, if a socket was named for it.
    pub(super) async fn channel(
        &mut self,
        name: &str,
        arguments: &Arguments,
    ) -> Result<Option<Channel>, WiringError> {
        let path = arguments.setting(name, "path");
        Ok(path.map(|path| Channel::new(Socket { path: path.into() })))
    }

    /// The disk `name`, if a file was named for it.
    pub(super) async fn block(
        &mut self,
        name: &str,
        arguments: &Arguments,
    ) -> Result<Option<Block>, WiringError> {
        let Some(path) = arguments.setting(name, "file") else { return Ok(None) };
        let read_only = arguments.flag(name, "read-only")?;
        let file = FileBlock::open(Path::new(path), read_only).map_err(|error| {
            let reason = format!("the file `{path}` does not serve as a disk: {error}");
            WiringError::Device { name: name.to_string(), reason }
        })?;
        Ok(Some(Block::new(file)))
    }

    /// Why the device `name` is missing, and what to do.
    pub(super) fn missing(&self, name: &str, kind: DeviceKind) -> String {
        match kind {
            DeviceKind::Stack => "the host has no sockets".to_string(),
            DeviceKind::Block => {
                format!("it needs a file: `--{name}.file=PATH`, or `fata run --block {name}=PATH`")
            }
            DeviceKind::Interface => format!("it needs a TAP interface: `--{name}.tap=INTERFACE`"),
            DeviceKind::Clients => format!("it needs TAP interfaces: `--{name}.taps=NAME,NAME…`"),
            DeviceKind::Channel => format!("it needs a Unix socket: `--{name}.path=PATH`"),
            DeviceKind::Export => {
                "a process serves disks to no guests; build the program for Xen".to_string()
            }
        }
    }
}

fn over_host(name: &str, arguments: &Arguments) -> Result<Stack, WiringError> {
    for setting in
        ["gateway", "dns", "route", "ipv6", "ipv6-secret", "limits", "congestion", "pcap"]
    {
        if let Some(value) = arguments.setting(name, setting) {
            return Err(WiringError::Invalid {
                name: format!("{name}.{setting}"),
                value: value.to_string(),
                reason: format!(
                    "the host's sockets are used, which the host routes; it goes with --{name}.tap"
                ),
            });
        }
    }
    let bind = match arguments.setting(name, "address") {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(text) => text.parse().map_err(|_| WiringError::Invalid {
            name: format!("{name}.address"),
            value: text.to_string(),
            reason: "expected an IP address of this host, such as 127.0.0.1 or 0.0.0.0".to_string(),
        })?,
    };
    Ok(Stack::over_sockets(Arc::new(HostSockets::new()), bind))
}

fn over_tap(name: &str, interface: &str, arguments: &Arguments) -> Result<Stack, WiringError> {
    let tap = open_tap(name, interface)?;
    let nic: Box<dyn Nic> = match arguments.setting(name, "pcap") {
        Some(file) => Box::new(capturing(name, tap, file)?),
        None => Box::new(tap),
    };
    stack_config::spawn_stack(name, nic, arguments)
}

/// A capture of `tap` into a new file. Each batch of frames is written at once, as a process is
/// ended by signals that let it do nothing more.
fn capturing(name: &str, tap: Tap, file: &str) -> Result<Capturing<Tap>, WiringError> {
    let mut open = File::create(file).map(Some).map_err(|error| WiringError::Device {
        name: name.to_string(),
        reason: format!("the capture `{file}` cannot be written: {error}"),
    })?;
    let (owner, path) = (name.to_string(), file.to_string());
    Ok(Capturing::new(tap, name, move |blocks| {
        let Some(file) = &mut open else { return };
        // A network that works matters more than its capture: a full disk ends that, and is told.
        if let Err(error) = file.write_all(blocks) {
            tracing::error!("device `{owner}`: the capture {path} ends here: {error}");
            open = None;
        }
    }))
}

fn open_tap(name: &str, interface: &str) -> Result<Tap, WiringError> {
    Tap::open(interface).map_err(|error| WiringError::Device {
        name: name.to_string(),
        reason: format!("the TAP interface `{interface}` does not open: {error}"),
    })
}

/// A Unix socket as a [`Channel`].
struct Socket {
    path: PathBuf,
}

/// How often a socket that nobody serves yet is tried again.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

impl Socket {
    fn explain(&self, doing: &str, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{doing} {}: {error}", self.path.display()))
    }
}

impl channel::End for Socket {
    fn accept(&self) -> channel::Opening<'_> {
        Box::pin(async {
            // A socket that an earlier process left would refuse the bind; one that is served is
            // not ours to take.
            if UnixStream::connect(&self.path).await.is_err() {
                let _ = std::fs::remove_file(&self.path);
            }
            let failed = |error: io::Error| self.explain("serving", &error);
            let listener = UnixListener::bind(&self.path).map_err(failed)?;
            let (stream, _) = listener.accept().await.map_err(failed)?;
            let _ = std::fs::remove_file(&self.path);
            Ok(ChannelStream::new(stream))
        })
    }

    fn connect(&self) -> channel::Opening<'_> {
        Box::pin(async {
            loop {
                match UnixStream::connect(&self.path).await {
                    Ok(stream) => return Ok(ChannelStream::new(stream)),
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                        ) =>
                    {
                        tokio::time::sleep(CONNECT_PAUSE).await;
                    }
                    Err(error) => return Err(self.explain("connecting to", &error)),
                }
            }
        })
    }
}
