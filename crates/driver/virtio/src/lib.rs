//! Drivers for virtio devices, without a line of `unsafe`: network, disk, entropy and console, over
//! MMIO (microvm, Firecracker) and modern PCI (q35, Cloud Hypervisor).
//!
//! [`mmio::probe`] and [`pci::probe`] find out what a device is and start its driver:
//!
//! | device | driver | implements |
//! |---|---|---|
//! | network (type 1) | [`VirtioNet`] | [`fata_device::Nic`] |
//! | block (type 2) | [`VirtioBlock`] | [`fata_device::Block`] |
//! | console (type 3) | [`VirtioConsole`] | |
//! | entropy (type 4) | [`VirtioRng`] | |
//!
//! No driver needs a task of its own, a clock or an allocation per packet. What a device says is
//! an allegation: the queue's part is checked by `fata-virtq`, the rest here. A device that breaks
//! a rule is reset and closed with an error that names the rule; memory that it may still have is
//! freed only if it confirmed the reset.
//!
//! The specification is virtio 1.2 (OASIS, 2022). Its legacy interface is refused, with words.
#![forbid(unsafe_code)]

mod blk;
mod console;
mod control;
mod error;
mod interrupts;
#[cfg(test)]
mod model;
mod net;
mod queue;
mod rng;
mod transport;

pub use blk::{BlockOptions, VirtioBlock};
pub use console::{ConsoleError, VirtioConsole};
pub use error::ProbeError;
pub use net::{NetCounters, NetOptions, VirtioNet};
pub use rng::{RngError, VirtioRng};

use transport::Transport;

/// A device with a driver that was started.
#[derive(Debug)]
#[non_exhaustive]
#[allow(
    clippy::large_enum_variant,
    reason = "few are made, and each is taken apart where it was made"
)]
pub enum Device {
    /// A network interface.
    Net(VirtioNet),
    /// A disk.
    Block(VirtioBlock),
    /// A source of entropy.
    Entropy(VirtioRng),
    /// A console.
    Console(VirtioConsole),
}

/// How much memory drivers may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// For each network device.
    pub net: NetOptions,
    /// For each disk.
    pub block: BlockOptions,
}

/// A device that was found and not yet started: its driver is still to be chosen.
///
/// A program that starts only the kinds of devices that it uses is linked with their drivers alone;
/// [`mmio::probe`] and [`pci::probe`] need them all.
pub struct Slot {
    transport: Box<dyn Transport>,
}

/// What a device is, as far as there are drivers here (virtio 1.2, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceType {
    /// A network interface.
    Net,
    /// A disk.
    Block,
    /// A console.
    Console,
    /// A source of entropy.
    Entropy,
    /// Another device, with its number.
    Other(u32),
}

impl Slot {
    /// What the device is.
    pub fn device_type(&self) -> DeviceType {
        match self.transport.device_id() {
            device_type::NET => DeviceType::Net,
            device_type::BLOCK => DeviceType::Block,
            device_type::CONSOLE => DeviceType::Console,
            device_type::ENTROPY => DeviceType::Entropy,
            id => DeviceType::Other(id),
        }
    }

    /// Starts the driver of a network interface.
    ///
    /// # Errors
    /// [`ProbeError`]; the device was reset. Also when it is something else.
    pub fn start_net(self, options: &NetOptions) -> Result<VirtioNet, ProbeError> {
        VirtioNet::start(self.of_type(device_type::NET)?, options)
    }

    /// Starts the driver of a disk.
    ///
    /// # Errors
    /// As [`start_net`](Slot::start_net).
    pub fn start_block(self, options: &BlockOptions) -> Result<VirtioBlock, ProbeError> {
        VirtioBlock::start(self.of_type(device_type::BLOCK)?, options)
    }

    /// Starts the driver of a console.
    ///
    /// # Errors
    /// As [`start_net`](Slot::start_net).
    pub fn start_console(self) -> Result<VirtioConsole, ProbeError> {
        VirtioConsole::start(self.of_type(device_type::CONSOLE)?)
    }

    /// Starts the driver of a source of entropy.
    ///
    /// # Errors
    /// As [`start_net`](Slot::start_net).
    pub fn start_entropy(self) -> Result<VirtioRng, ProbeError> {
        VirtioRng::start(self.of_type(device_type::ENTROPY)?)
    }

    fn of_type(self, id: u32) -> Result<Box<dyn Transport>, ProbeError> {
        match self.transport.device_id() {
            actual if actual == id => Ok(self.transport),
            actual => Err(ProbeError::UnsupportedType { id: actual }),
        }
    }
}

/// Devices behind MMIO windows (virtio 1.2, section 4.2).
pub mod mmio {
    use super::{Device, Options, ProbeError, Slot, start};
    use crate::transport::mmio::Mmio;
    use fata_shared::interrupt::Line;
    use fata_shared::registers::Registers;

    /// Looks for a device behind `registers`, which fires `line`, without starting it. `None`: the
    /// slot is empty.
    ///
    /// # Errors
    /// [`ProbeError`] when the registers are not those of a modern virtio device.
    pub fn find(registers: Registers, line: Line) -> Result<Option<Slot>, ProbeError> {
        let transport = Mmio::open(registers, line)?;
        Ok(transport.map(|transport| Slot { transport: Box::new(transport) }))
    }

    /// Starts the driver of the device behind `registers`, which fires `line`. `None`: the slot is
    /// empty.
    ///
    /// # Errors
    /// [`ProbeError`]; the device was reset, or was never touched.
    pub fn probe(registers: Registers, line: Line) -> Result<Option<Device>, ProbeError> {
        probe_with(registers, line, &Options::default())
    }

    /// As [`probe`], within `options`.
    ///
    /// # Errors
    /// As [`probe`].
    pub fn probe_with(
        registers: Registers,
        line: Line,
        options: &Options,
    ) -> Result<Option<Device>, ProbeError> {
        match Mmio::open(registers, line)? {
            Some(transport) => start(Box::new(transport), options).map(Some),
            None => Ok(None),
        }
    }
}

/// Devices behind PCI functions (virtio 1.2, section 4.1).
pub mod pci {
    use super::{Device, Options, ProbeError, Slot, start};
    use crate::transport::pci::Pci;
    use fata_shared::pci::Function;

    /// Looks whether `function` is a virtio device, without starting it. `None`: it is none, and was
    /// left alone.
    ///
    /// # Errors
    /// [`ProbeError`] when it is one and breaks virtio's rules for PCI, or is a legacy one.
    pub fn find(function: Box<dyn Function>) -> Result<Option<Slot>, ProbeError> {
        let transport = Pci::open(function)?;
        Ok(transport.map(|transport| Slot { transport: Box::new(transport) }))
    }

    /// Starts the driver of the device behind `function`. `None`: it is no virtio device, and was
    /// left alone.
    ///
    /// # Errors
    /// [`ProbeError`]; the device was reset, or was never touched.
    pub fn probe(function: Box<dyn Function>) -> Result<Option<Device>, ProbeError> {
        probe_with(function, &Options::default())
    }

    /// As [`probe`], within `options`.
    ///
    /// # Errors
    /// As [`probe`].
    pub fn probe_with(
        function: Box<dyn Function>,
        options: &Options,
    ) -> Result<Option<Device>, ProbeError> {
        match Pci::open(function)? {
            Some(transport) => start(Box::new(transport), options).map(Some),
            None => Ok(None),
        }
    }
}

/// Device types (section 5).
mod device_type {
    pub(crate) const NET: u32 = 1;
    pub(crate) const BLOCK: u32 = 2;
    pub(crate) const CONSOLE: u32 = 3;
    pub(crate) const ENTROPY: u32 = 4;
}

fn start(transport: Box<dyn Transport>, options: &Options) -> Result<Device, ProbeError> {
    match transport.device_id() {
        device_type::NET => VirtioNet::start(transport, &options.net).map(Device::Net),
        device_type::BLOCK => VirtioBlock::start(transport, &options.block).map(Device::Block),
        device_type::CONSOLE => VirtioConsole::start(transport).map(Device::Console),
        device_type::ENTROPY => VirtioRng::start(transport).map(Device::Entropy),
        id => Err(ProbeError::UnsupportedType { id }),
    }
}
