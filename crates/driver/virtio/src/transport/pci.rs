//! virtio over PCI (virtio 1.2, section 4.1): the capabilities of the modern interface, and MSI-X.
//!
//! INTx is not spoken: its line is shared between functions, level-triggered and needs a register
//! read per interrupt, and every virtual machine monitor of the last decade has MSI-X.

use super::{Doorbell, Routes, Transport};
use crate::error::ProbeError;
use fata_shared::dma::{DeviceAddress, DmaRegion};
use fata_shared::pci::{Function, PciError};
use fata_shared::registers::Registers;
use fata_virtq::Layout;

/// Red Hat's vendor ID, that of all virtio devices (section 4.1.2).
const VENDOR: u16 = 0x1af4;
/// Device IDs of transitional devices: 0x1000 to 0x103f.
const TRANSITIONAL: core::ops::RangeInclusive<u16> = 0x1000..=0x103f;
/// Device IDs of modern devices: 0x1040 plus the device type, to 0x107f.
const MODERN: core::ops::RangeInclusive<u16> = 0x1040..=0x107f;

/// Status register of the configuration space; bit 4: there is a list of capabilities.
const PCI_STATUS: u16 = 0x06;
const PCI_STATUS_CAPABILITIES: u16 = 1 << 4;
/// Where the list of capabilities begins.
const PCI_CAPABILITIES: u16 = 0x34;
/// Capabilities lie behind the 64-byte header, 4-byte aligned: there is room for no more than this.
const CAPABILITIES_MAX: usize = (256 - 64) / 4;
/// Capability ID: vendor-specific.
const CAPABILITY_VENDOR: u8 = 0x09;

/// `cfg_type` of a capability (section 4.1.4).
const TYPE_COMMON: u8 = 1;
const TYPE_NOTIFY: u8 = 2;
const TYPE_DEVICE: u8 = 4;

/// No vector (section 4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;

/// Offsets in the common configuration (section 4.1.4.3).
pub(crate) mod common {
    pub(crate) const DEVICE_FEATURE_SELECT: usize = 0;
    pub(crate) const DEVICE_FEATURE: usize = 4;
    pub(crate) const DRIVER_FEATURE_SELECT: usize = 8;
    pub(crate) const DRIVER_FEATURE: usize = 12;
    pub(crate) const CONFIG_MSIX_VECTOR: usize = 16;
    pub(crate) const DEVICE_STATUS: usize = 20;
    pub(crate) const CONFIG_GENERATION: usize = 21;
    pub(crate) const QUEUE_SELECT: usize = 22;
    pub(crate) const QUEUE_SIZE: usize = 24;
    pub(crate) const QUEUE_MSIX_VECTOR: usize = 26;
    pub(crate) const QUEUE_ENABLE: usize = 28;
    pub(crate) const QUEUE_NOTIFY_OFF: usize = 30;
    pub(crate) const QUEUE_DESC: usize = 32;
    pub(crate) const QUEUE_DRIVER: usize = 40;
    pub(crate) const QUEUE_DEVICE: usize = 48;
    /// Length of the fields up to here.
    pub(crate) const LEN: usize = 56;
}

/// A device behind a PCI function.
pub(crate) struct Pci {
    function: Box<dyn Function>,
    device_id: u32,
    common: Registers,
    notify: Registers,
    notify_multiplier: u32,
    config: Registers,
    /// How many vectors there are: 1 for everything, or one per queue and one more. 0: not routed.
    vectors: u16,
}

/// What a virtio capability says (section 4.1.4).
#[derive(Clone, Copy)]
struct Capability {
    at: u16,
    bar: u8,
    offset: u32,
    len: u32,
}

impl Pci {
    /// `None`: the function is no virtio device.
    pub(crate) fn open(mut function: Box<dyn Function>) -> Result<Option<Self>, ProbeError> {
        let identity = function.identity();
        if identity.vendor != VENDOR {
            return Ok(None);
        }
        let device_id = if MODERN.contains(&identity.device) {
            u32::from(identity.device - 0x1040)
        } else if TRANSITIONAL.contains(&identity.device) {
            // Section 4.1.2.3: a transitional device says its type in the subsystem ID.
            u32::from(identity.subsystem_id)
        } else {
            return Ok(None);
        };
        let [common, notify, device] = find_capabilities(function.as_ref());
        let Some(common_at) = common else {
            return Err(ProbeError::LegacyDevice);
        };
        let notify_at = notify.ok_or(ProbeError::BadCapability("notification"))?;

        function.enable();
        let common = map(function.as_mut(), common_at)?
            .filter(|window| window.len() >= common::LEN)
            .ok_or(ProbeError::BadCapability("common configuration"))?;
        let notify =
            map(function.as_mut(), notify_at)?.ok_or(ProbeError::BadCapability("notification"))?;
        // `notify_off_multiplier` follows the capability (section 4.1.4.4).
        let notify_multiplier = function.read_config_u32(notify_at.at.saturating_add(16));
        let config = match device {
            Some(capability) => map(function.as_mut(), capability)?
                .ok_or(ProbeError::BadCapability("device configuration"))?,
            // Devices like rng have none.
            None => common.subwindow(0, 0).ok_or(ProbeError::BadCapability("configuration"))?,
        };
        Ok(Some(Pci { function, device_id, common, notify, notify_multiplier, config, vectors: 0 }))
    }

    fn select(&self, queue: u16) {
        self.common.write_u16(common::QUEUE_SELECT, queue);
    }

    /// Section 4.1.3.1: 64-bit fields are written as two halves.
    fn write_address(&self, offset: usize, address: DeviceAddress) {
        let bits = address.to_bits();
        self.common.write_u32(offset, bits as u32);
        self.common.write_u32(offset + 4, (bits >> 32) as u32);
    }
}

/// The first usable capability of each type that is needed: common, notify, device (section
/// 4.1.4.2: the first that is understood). The list is the device's allegation: it may be a ring.
fn find_capabilities(function: &dyn Function) -> [Option<Capability>; 3] {
    let mut found = [None; 3];
    if function.read_config_u16(PCI_STATUS) & PCI_STATUS_CAPABILITIES == 0 {
        return found;
    }
    let mut at = u16::from(function.read_config_u8(PCI_CAPABILITIES) & !3);
    for _ in 0..CAPABILITIES_MAX {
        if at < 0x40 {
            break;
        }
        let header = function.read_config_u32(at);
        let [id, next, _len, kind] = header.to_le_bytes();
        if id == CAPABILITY_VENDOR && at <= 256 - 20 {
            let capability = Capability {
                at,
                bar: function.read_config_u8(at + 4),
                offset: function.read_config_u32(at + 8),
                len: function.read_config_u32(at + 12),
            };
            let slot = match kind {
                TYPE_COMMON => Some(0),
                TYPE_NOTIFY => Some(1),
                TYPE_DEVICE => Some(2),
                _ => None,
            };
            // Section 4.1.4.1: capabilities with a reserved BAR must be ignored.
            if let Some(slot) = slot
                && capability.bar <= 5
                && found[slot].is_none()
            {
                found[slot] = Some(capability);
            }
        }
        at = u16::from(next & !3);
    }
    found
}

/// The window that a capability describes; `None` if its BAR does not hold it.
fn map(
    function: &mut dyn Function,
    capability: Capability,
) -> Result<Option<Registers>, ProbeError> {
    let bar = function.map_bar(capability.bar)?;
    Ok(bar.subwindow(capability.offset as usize, capability.len as usize))
}

impl Transport for Pci {
    fn device_id(&self) -> u32 {
        self.device_id
    }

    fn status(&self) -> u8 {
        self.common.read_u8(common::DEVICE_STATUS)
    }

    fn set_status(&self, status: u8) {
        self.common.write_u8(common::DEVICE_STATUS, status);
    }

    fn offered_features(&self) -> u64 {
        let half = |select: u32| {
            self.common.write_u32(common::DEVICE_FEATURE_SELECT, select);
            u64::from(self.common.read_u32(common::DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    fn accept_features(&self, features: u64) {
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.common.write_u32(common::DRIVER_FEATURE_SELECT, select);
            self.common.write_u32(common::DRIVER_FEATURE, half);
        }
    }

    fn route_interrupts(&mut self, queues: u16) -> Result<Routes, ProbeError> {
        let lines = match self.function.enable_msix(queues + 1) {
            // Sharing one is allowed, and better than refusing (section 4.1.5.1.2).
            Err(PciError::TooFewVectors { .. } | PciError::OutOfVectors) => {
                self.function.enable_msix(1)?
            }
            other => other?,
        };
        self.vectors = lines.len() as u16;
        self.common.write_u16(common::CONFIG_MSIX_VECTOR, 0);
        if self.common.read_u16(common::CONFIG_MSIX_VECTOR) == NO_VECTOR {
            return Err(ProbeError::VectorRefused { queue: None });
        }
        Ok(Routes { lines, acknowledge: None })
    }

    fn queue_size_max(&self, queue: u16) -> u16 {
        self.select(queue);
        self.common.read_u16(common::QUEUE_SIZE)
    }

    fn enable_queue(
        &mut self,
        queue: u16,
        layout: Layout,
        memory: &DmaRegion,
    ) -> Result<Doorbell, ProbeError> {
        self.select(queue);
        // Where the doorbell is: the device's allegation; outside the window nobody would answer.
        let notify_off = u64::from(self.common.read_u16(common::QUEUE_NOTIFY_OFF));
        let offset = notify_off * u64::from(self.notify_multiplier);
        let offset = usize::try_from(offset)
            .ok()
            .filter(|offset| offset % 2 == 0 && offset.saturating_add(2) <= self.notify.len())
            .ok_or(ProbeError::BadCapability("notification"))?;
        let vector = if self.vectors > 1 { queue + 1 } else { 0 };
        self.common.write_u16(common::QUEUE_MSIX_VECTOR, vector);
        if self.common.read_u16(common::QUEUE_MSIX_VECTOR) == NO_VECTOR {
            return Err(ProbeError::VectorRefused { queue: Some(queue) });
        }
        self.common.write_u16(common::QUEUE_SIZE, layout.size());
        self.write_address(common::QUEUE_DESC, memory.address(layout.descriptors()));
        self.write_address(common::QUEUE_DRIVER, memory.address(layout.available()));
        self.write_address(common::QUEUE_DEVICE, memory.address(layout.used()));
        self.common.write_u16(common::QUEUE_ENABLE, 1);
        Ok(Doorbell { registers: self.notify.clone(), offset, narrow: true, queue })
    }

    fn config(&self) -> &Registers {
        &self.config
    }

    fn config_generation(&self) -> u32 {
        u32::from(self.common.read_u8(common::CONFIG_GENERATION))
    }
}
