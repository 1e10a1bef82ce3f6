//! What a program is, as its manifest says it.

use super::{Wiring, WiringError};

/// A program as `#[derive(Devices)]` describes it.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The struct's documentation.
    pub about: &'static str,
    /// Its devices, in the order of the fields.
    pub devices: &'static [DeviceSpec],
    /// Its arguments, in the order of the fields.
    pub arguments: &'static [ArgumentSpec],
}

/// One device of a program.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSpec {
    /// Its name: 1 to 20 bytes.
    pub name: &'static str,
    /// What it is.
    pub kind: DeviceKind,
    /// The program can do without it.
    pub optional: bool,
    /// The field's documentation.
    pub help: &'static str,
}

/// The kinds of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// TCP, UDP and ICMP over a network interface.
    Stack,
    /// A network interface: Ethernet frames.
    Interface,
    /// The interfaces of others, whom the program serves.
    Clients,
    /// A disk.
    Block,
    /// A disk that the program serves to others.
    Export,
    /// A byte stream to a neighbour on the same host.
    Channel,
}

impl DeviceKind {
    /// It is a network card of the machine's: cards are given out in the manifest's order.
    #[cfg_attr(
        not(any(fata_target = "virtio", fata_target = "xen")),
        expect(dead_code, reason = "a process has no cards")
    )]
    pub(crate) const fn is_card(self) -> bool {
        matches!(self, DeviceKind::Stack | DeviceKind::Interface)
    }

    /// As the manifest writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            DeviceKind::Stack => "stack",
            DeviceKind::Interface => "interface",
            DeviceKind::Clients => "clients",
            DeviceKind::Block => "block",
            DeviceKind::Export => "export",
            DeviceKind::Channel => "channel",
        }
    }
}

/// One argument of a program.
#[derive(Clone, Copy, Debug)]
pub struct ArgumentSpec {
    /// Its name, without the dashes.
    pub name: &'static str,
    /// The type, as [`Argument::TYPE`](super::Argument::TYPE) names it.
    pub ty: &'static str,
    /// It may be absent though it has no default.
    pub optional: bool,
    /// Its value when it is not given, as text.
    pub default: Option<&'static str>,
    /// The field's documentation.
    pub help: &'static str,
}

/// A struct that holds all of a program's devices and arguments. Derive it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not derive `fata::Devices`",
    note = "`main` takes one struct with `#[derive(fata::Devices)]`"
)]
pub trait Devices: Sized {
    /// What the program is.
    const PROGRAM: Program;
    /// The manifest in fragments, which together are JSON.
    const MANIFEST: &'static [&'static str];

    /// Takes each field out of the wiring, in order.
    ///
    /// # Errors
    /// The first field's [`WiringError`].
    fn take(wiring: &mut Wiring) -> impl Future<Output = Result<Self, WiringError>>;
}

/// The devices of a program whose `main` takes none.
pub struct NoDevices;

impl Devices for NoDevices {
    const PROGRAM: Program = Program { about: "", devices: &[], arguments: &[] };
    // `#[fata::main]` knows the package's name and writes the manifest itself.
    const MANIFEST: &'static [&'static str] = &[];

    async fn take(_wiring: &mut Wiring) -> Result<Self, WiringError> {
        Ok(NoDevices)
    }
}
