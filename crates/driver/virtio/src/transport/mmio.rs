//! virtio over MMIO (virtio 1.2, section 4.2): the registers of the modern interface, version 2.

use super::{Doorbell, Routes, Transport};
use crate::error::ProbeError;
use fata_shared::dma::{DeviceAddress, DmaRegion};
use fata_shared::interrupt::Line;
use fata_shared::registers::Registers;
use fata_virtq::Layout;

/// "virt", little-endian.
pub(crate) const MAGIC: u32 = 0x7472_6976;
/// The version of the modern interface.
const VERSION: u32 = 2;

/// Register offsets (table 4.1).
pub(crate) mod register {
    pub(crate) const MAGIC_VALUE: usize = 0x000;
    pub(crate) const VERSION: usize = 0x004;
    pub(crate) const DEVICE_ID: usize = 0x008;
    pub(crate) const DEVICE_FEATURES: usize = 0x010;
    pub(crate) const DEVICE_FEATURES_SEL: usize = 0x014;
    pub(crate) const DRIVER_FEATURES: usize = 0x020;
    pub(crate) const DRIVER_FEATURES_SEL: usize = 0x024;
    pub(crate) const QUEUE_SEL: usize = 0x030;
    pub(crate) const QUEUE_SIZE_MAX: usize = 0x034;
    pub(crate) const QUEUE_SIZE: usize = 0x038;
    pub(crate) const QUEUE_READY: usize = 0x044;
    pub(crate) const QUEUE_NOTIFY: usize = 0x050;
    pub(crate) const INTERRUPT_STATUS: usize = 0x060;
    pub(crate) const INTERRUPT_ACK: usize = 0x064;
    pub(crate) const STATUS: usize = 0x070;
    pub(crate) const QUEUE_DESC: usize = 0x080;
    pub(crate) const QUEUE_DRIVER: usize = 0x090;
    pub(crate) const QUEUE_DEVICE: usize = 0x0a0;
    pub(crate) const CONFIG_GENERATION: usize = 0x0fc;
    pub(crate) const CONFIG: usize = 0x100;
}

/// A device behind an MMIO window.
pub(crate) struct Mmio {
    registers: Registers,
    config: Registers,
    line: Line,
}

impl Mmio {
    /// `None`: the slot is empty.
    pub(crate) fn open(registers: Registers, line: Line) -> Result<Option<Self>, ProbeError> {
        // In this order (section 4.2.3.1.1): the magic value, the version, the device.
        let magic = registers.read_u32(register::MAGIC_VALUE);
        if magic != MAGIC {
            return Err(ProbeError::NotVirtio { magic });
        }
        let version = registers.read_u32(register::VERSION);
        // The ID of an empty slot is 0, whatever version the slot is of.
        if registers.read_u32(register::DEVICE_ID) == 0 {
            return Ok(None);
        }
        if version != VERSION {
            return Err(ProbeError::LegacyMmio { version });
        }
        let config_len = registers.len().saturating_sub(register::CONFIG);
        let Some(config) = registers.subwindow(register::CONFIG, config_len) else {
            return Err(ProbeError::BadConfiguration(format!(
                "its register window has only {} bytes",
                registers.len()
            )));
        };
        Ok(Some(Mmio { registers, config, line }))
    }

    fn write_address(&self, offset: usize, address: DeviceAddress) {
        let bits = address.to_bits();
        self.registers.write_u32(offset, bits as u32);
        self.registers.write_u32(offset + 4, (bits >> 32) as u32);
    }
}

impl Transport for Mmio {
    fn device_id(&self) -> u32 {
        self.registers.read_u32(register::DEVICE_ID)
    }

    fn status(&self) -> u8 {
        self.registers.read_u32(register::STATUS) as u8
    }

    fn set_status(&self, status: u8) {
        self.registers.write_u32(register::STATUS, u32::from(status));
    }

    fn offered_features(&self) -> u64 {
        let half = |select: u32| {
            self.registers.write_u32(register::DEVICE_FEATURES_SEL, select);
            u64::from(self.registers.read_u32(register::DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    fn accept_features(&self, features: u64) {
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.registers.write_u32(register::DRIVER_FEATURES_SEL, select);
            self.registers.write_u32(register::DRIVER_FEATURES, half);
        }
    }

    fn route_interrupts(&mut self, _queues: u16) -> Result<Routes, ProbeError> {
        Ok(Routes { lines: vec![self.line.clone()], acknowledge: Some(self.registers.clone()) })
    }

    fn queue_size_max(&self, queue: u16) -> u16 {
        self.registers.write_u32(register::QUEUE_SEL, u32::from(queue));
        // A size that does not fit is not one that the specification allows.
        u16::try_from(self.registers.read_u32(register::QUEUE_SIZE_MAX)).unwrap_or(0)
    }

    fn enable_queue(
        &mut self,
        queue: u16,
        layout: Layout,
        memory: &DmaRegion,
    ) -> Result<Doorbell, ProbeError> {
        self.registers.write_u32(register::QUEUE_SEL, u32::from(queue));
        if self.registers.read_u32(register::QUEUE_READY) != 0 {
            // Section 4.2.3.2: it is in use already, so the device was not reset.
            return Err(ProbeError::NoQueue { queue });
        }
        self.registers.write_u32(register::QUEUE_SIZE, u32::from(layout.size()));
        self.write_address(register::QUEUE_DESC, memory.address(layout.descriptors()));
        self.write_address(register::QUEUE_DRIVER, memory.address(layout.available()));
        self.write_address(register::QUEUE_DEVICE, memory.address(layout.used()));
        self.registers.write_u32(register::QUEUE_READY, 1);
        let registers = self.registers.clone();
        Ok(Doorbell { registers, offset: register::QUEUE_NOTIFY, narrow: false, queue })
    }

    fn config(&self) -> &Registers {
        &self.config
    }

    fn config_generation(&self) -> u32 {
        self.registers.read_u32(register::CONFIG_GENERATION)
    }
}
