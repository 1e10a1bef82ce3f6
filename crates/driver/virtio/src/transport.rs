//! How a device is reached: the registers that every virtio device has, whatever its bus.

pub(crate) mod mmio;
pub(crate) mod pci;

use crate::error::ProbeError;
use fata_shared::dma::DmaRegion;
use fata_shared::interrupt::Line;
use fata_shared::registers::Registers;
use fata_virtq::Layout;

/// The registers of virtio 1.2, section 4, minus the bus that they lie on.
pub(crate) trait Transport: Send {
    /// The device type (section 5).
    fn device_id(&self) -> u32;
    /// The status bits (section 2.1).
    fn status(&self) -> u8;
    /// Sets the status bits; 0 resets the device.
    fn set_status(&self, status: u8);
    /// The features that the device offers (section 2.2).
    fn offered_features(&self) -> u64;
    /// The features that the driver accepts.
    fn accept_features(&self, features: u64);
    /// Routes the interrupts of so many queues and of configuration changes.
    fn route_interrupts(&mut self, queues: u16) -> Result<Routes, ProbeError>;
    /// The largest size of a queue; 0 if the device does not have it.
    fn queue_size_max(&self, queue: u16) -> u16;
    /// Tells the device where a queue lies and switches it on. Interrupts must have been routed.
    fn enable_queue(
        &mut self,
        queue: u16,
        layout: Layout,
        memory: &DmaRegion,
    ) -> Result<Doorbell, ProbeError>;
    /// The registers that are the device type's own.
    fn config(&self) -> &Registers;
    /// Changes whenever those registers did (section 2.5).
    fn config_generation(&self) -> u32;
}

/// Which line says what.
pub(crate) struct Routes {
    /// Either one line for everything, or one for configuration changes and then one per queue.
    pub(crate) lines: Vec<Line>,
    /// The virtio-mmio registers at which an interrupt is acknowledged. Without them (MSI-X) no
    /// register is touched.
    pub(crate) acknowledge: Option<Registers>,
}

/// Where a queue's notifications go (section 4.1.5.2, section 4.2.3.3).
pub(crate) struct Doorbell {
    registers: Registers,
    offset: usize,
    /// The write is 2 bytes wide (PCI), not 4 (MMIO).
    narrow: bool,
    queue: u16,
}

impl Doorbell {
    /// Tells the device to look at the queue.
    pub(crate) fn ring(&self) {
        if self.narrow {
            self.registers.write_u16(self.offset, self.queue);
        } else {
            self.registers.write_u32(self.offset, u32::from(self.queue));
        }
    }
}

#[cfg(test)]
mod tests;
