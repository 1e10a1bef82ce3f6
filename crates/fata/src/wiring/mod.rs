//! The wiring: the one place where a driver meets a service.
//!
//! `#[derive(Devices)]` describes a program as a [`Program`] and knows how to take its devices out
//! of a [`Wiring`]; `#[fata::main]` calls [`run`]. Which drivers a wiring has is the target's
//! affair: `unix.rs` knows the host's sockets and files, `virtio.rs` and `xen.rs` the machine's
//! devices. A program cannot make a [`Wiring`], so it cannot open a device that its manifest does not name.
//!
//! Programs have no business here; the module is public because the macros write code that is.

mod argument;
mod arguments;
mod help;
#[cfg(any(fata_target = "virtio", fata_target = "xen"))]
mod machine;
mod outcome;
mod run;
mod spec;
mod stack_config;

#[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
#[path = "unix.rs"]
mod target;
#[cfg(fata_target = "virtio")]
#[path = "virtio.rs"]
mod target;
#[cfg(fata_target = "xen")]
#[path = "xen.rs"]
mod target;

pub use argument::Argument;
pub use arguments::WiringError;
pub use fata_shared::manifest_note;

pub use outcome::{ByDisplay, ByTermination, Outcome};
pub use run::{Start, run};
pub use spec::{ArgumentSpec, DeviceKind, DeviceSpec, Devices, NoDevices, Program};
pub use target::TARGET;
#[cfg(fata_target = "xen")]
pub(crate) use target::counters as xen_counters;
pub(crate) use target::{CONSOLE_IS_RAW, console_source};

use arguments::Arguments;

/// The devices and arguments that a program's `main` is given, while they are being given.
///
/// There is no way to make one: [`run`] does.
pub struct Wiring {
    program: &'static Program,
    arguments: Arguments,
    target: target::Target,
    /// Every stack that was taken: at the end they are drained.
    stacks: Vec<crate::Stack>,
}

impl Wiring {
    /// The argument `name`, as text given on the command line or as its default.
    ///
    /// # Errors
    /// [`WiringError`] when it is missing or does not parse.
    pub fn argument<A: Argument>(&mut self, name: &'static str) -> Result<A, WiringError> {
        let spec = self.program.arguments.iter().find(|spec| spec.name == name);
        let text = self.arguments.value(name).or(spec.and_then(|spec| spec.default));
        match text {
            Some(text) => A::parse(text).map_err(|reason| WiringError::Invalid {
                name: name.to_string(),
                value: text.to_string(),
                reason,
            }),
            None => A::absent().ok_or(WiringError::MissingArgument { name: name.to_string() }),
        }
    }
}

/// A type that a program can have as a device: [`fata::Stack`](crate::Stack),
/// [`fata::Interface`](crate::Interface), [`fata::Clients`](crate::Clients),
/// [`fata::Block`](crate::Block), [`fata::Export`](crate::Export),
/// [`fata::Channel`](crate::Channel).
///
/// Sealed: a device is what a target's wiring can open.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no device",
    label = "no device",
    note = "devices are `fata::Stack`, `Interface`, `Clients`, `Block`, `Export` and `Channel`; for a value from the command line write `#[fata(arg)]` above the field"
)]
pub trait Device: sealed::Sealed + Sized {
    /// What the manifest calls it.
    const KIND: DeviceKind;
    /// The program can do without it: the type is an `Option`.
    const OPTIONAL: bool = false;

    /// Takes the device `name` out of the wiring; `None` if nothing is attached under the name.
    ///
    /// # Errors
    /// [`WiringError`] when it is attached and does not work.
    fn take_attached(
        wiring: &mut Wiring,
        name: &'static str,
    ) -> impl Future<Output = Result<Option<Self>, WiringError>>;

    /// Takes the device `name` out of the wiring.
    ///
    /// # Errors
    /// [`WiringError`] when the machine has no such device, or it does not work.
    fn take(
        wiring: &mut Wiring,
        name: &'static str,
    ) -> impl Future<Output = Result<Self, WiringError>> {
        async move {
            match Self::take_attached(wiring, name).await? {
                Some(device) => Ok(device),
                None => Err(WiringError::Device {
                    name: name.to_string(),
                    reason: wiring.target.missing(name, Self::KIND),
                }),
            }
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::Stack {}
    impl Sealed for crate::Interface {}
    impl Sealed for crate::Clients {}
    impl Sealed for crate::Block {}
    impl Sealed for crate::Export {}
    impl Sealed for crate::Channel {}
    impl<D: Sealed> Sealed for Option<D> {}
}

impl Device for crate::Stack {
    const KIND: DeviceKind = DeviceKind::Stack;

    async fn take_attached(
        wiring: &mut Wiring,
        name: &'static str,
    ) -> Result<Option<Self>, WiringError> {
        let stack = wiring.target.stack(name, &wiring.arguments).await?;
        wiring.stacks.extend(stack.clone());
        Ok(stack)
    }
}

/// The other kinds of devices: the target opens them, and nothing is left to do.
macro_rules! devices {
    ($($ty:ident $kind:ident $open:ident;)*) => {$(
        impl Device for crate::$ty {
            const KIND: DeviceKind = DeviceKind::$kind;

            async fn take_attached(
                wiring: &mut Wiring,
                name: &'static str,
            ) -> Result<Option<Self>, WiringError> {
                wiring.target.$open(name, &wiring.arguments).await
            }
        }
    )*};
}

devices! {
    Interface Interface interface;
    Clients Clients clients;
    Block Block block;
    Export Export export;
    Channel Channel channel;
}

/// `None` when nothing is attached under the device's name.
impl<D: Device> Device for Option<D> {
    const KIND: DeviceKind = D::KIND;
    const OPTIONAL: bool = true;

    async fn take_attached(
        wiring: &mut Wiring,
        name: &'static str,
    ) -> Result<Option<Self>, WiringError> {
        Ok(Some(D::take_attached(wiring, name).await?))
    }
}
