//! The target `unix`: an ordinary process over the host's sockets, TAP interfaces and files.

use super::arguments::{Arguments, WiringError};
use super::spec::{DeviceKind, Program};
use super::stack_config;
use crate::{Block, Stack};
use fata_unix::{FileBlock, HostSockets, Tap};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

/// What the manifest calls this target.
pub const TARGET: &str = "unix";

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
                "Address of the host to bind to [default: 127.0.0.1]; with .tap: dhcp or A.B.C.D/LEN",
            ),
            ("tap", "Run Fata's own stack over this TAP interface"),
            ("gateway", "With .tap: the router's address"),
            ("dns", "With .tap: the resolver's address"),
            ("limits", stack_config::LIMITS_HELP),
        ],
        DeviceKind::Block => {
            &[("file", "The file that holds the disk [required]"), ("read-only", "Refuse writes")]
        }
    }
}

pub(super) struct Target;

impl Target {
    pub(super) fn new(_entry: Entry, _program: &Program) -> Self {
        Target
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
        }
    }
}

fn over_host(name: &str, arguments: &Arguments) -> Result<Stack, WiringError> {
    for setting in ["gateway", "dns", "limits"] {
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
    let tap = Tap::open(interface).map_err(|error| WiringError::Device {
        name: name.to_string(),
        reason: format!("the TAP interface `{interface}` does not open: {error}"),
    })?;
    stack_config::spawn_stack(name, Box::new(tap), arguments)
}
