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

/// Devices behind MMIO windows (virtio 1.2, section 4.2).
pub mod mmio {
    use super::{Device, Options, ProbeError, start};
    use crate::transport::mmio::Mmio;
    use fata_shared::interrupt::Line;
    use fata_shared::registers::Registers;

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
    use super::{Device, Options, ProbeError, start};
    use crate::transport::pci::Pci;
    use fata_shared::pci::Function;

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
