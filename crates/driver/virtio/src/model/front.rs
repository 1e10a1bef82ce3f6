//! The registers of a model: virtio-mmio, or a PCI function with its capabilities.

use super::{Inner, Model, kinds::Kind};
use crate::transport::mmio::{MAGIC, register};
use crate::transport::pci::common;
use crate::{Device, Options, ProbeError};
use fata_shared::interrupt::Line;
use fata_shared::pci::{Address, Function, Identity, PciError};
use fata_shared::registers::Registers;
use fata_shared::simulation::RegisterModel;
use std::sync::Arc;

/// How a model is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bus {
    Mmio,
    Pci,
}

/// Attaches a model and starts the driver for it.
pub(crate) fn probe<K: Kind>(
    model: &Model<K>,
    bus: Bus,
    options: &Options,
) -> Result<Option<Device>, ProbeError> {
    match bus {
        Bus::Mmio => {
            let line = Line::new();
            let mut inner = model.inner();
            inner.lines = vec![line.clone()];
            inner.pending = vec![false];
            drop(inner);
            let registers = Registers::simulated(Arc::new(MmioFront(model.clone())), 0x200);
            crate::mmio::probe_with(registers, line, options)
        }
        Bus::Pci => crate::pci::probe_with(Box::new(PciFront::new(model.clone())), options),
    }
}

fn set_half(value: &mut u64, high: bool, half: u32) {
    let shift = if high { 32 } else { 0 };
    *value = *value & !(0xffff_ffff << shift) | u64::from(half) << shift;
}

struct MmioFront<K>(Model<K>);

impl<K: Kind> RegisterModel for MmioFront<K> {
    fn read(&self, offset: usize, width: usize) -> u64 {
        let mut inner = self.0.inner();
        if offset >= register::CONFIG {
            return inner.read_config(offset - register::CONFIG, width);
        }
        assert_eq!(width, 4, "section 4.2.2.2: registers are 32 bits wide");
        let queue = inner.selects[2] as usize;
        u64::from(match offset {
            register::MAGIC_VALUE => MAGIC,
            register::VERSION => 2,
            register::DEVICE_ID => inner.spec.device_id,
            register::DEVICE_FEATURES => (inner.spec.features >> (32 * inner.selects[0])) as u32,
            register::QUEUE_SIZE_MAX => {
                inner.spec.queue_sizes.get(queue).copied().unwrap_or(0).into()
            }
            register::QUEUE_READY => {
                inner.rings.queues.get(queue).is_some_and(|ring| ring.ready).into()
            }
            register::INTERRUPT_STATUS => {
                inner.interrupt_status_reads += 1;
                inner.interrupt_status
            }
            register::STATUS => inner.status.into(),
            register::CONFIG_GENERATION => inner.generation(),
            _ => panic!("the driver reads register {offset:#x}"),
        })
    }

    fn write(&self, offset: usize, width: usize, value: u64) {
        assert_eq!(width, 4, "section 4.2.2.2: registers are 32 bits wide");
        let value = value as u32;
        let mut inner = self.0.inner();
        let queue = inner.selects[2] as usize;
        match offset {
            register::DEVICE_FEATURES_SEL => inner.selects[0] = value,
            register::DRIVER_FEATURES_SEL => inner.selects[1] = value,
            register::DRIVER_FEATURES => {
                let high = inner.selects[1] == 1;
                set_half(&mut inner.accepted, high, value);
            }
            register::QUEUE_SEL => inner.selects[2] = value,
            register::QUEUE_SIZE => inner.rings.queues[queue].size = value as u16,
            register::QUEUE_READY => inner.rings.queues[queue].ready = value == 1,
            register::QUEUE_NOTIFY => notified(&mut inner, value as usize),
            register::INTERRUPT_ACK => inner.interrupt_status &= !value,
            register::STATUS => inner.set_status(value as u8),
            offset => {
                let ring = &mut inner.rings.queues[queue];
                let high = offset % 8 == 4;
                match offset - offset % 8 {
                    register::QUEUE_DESC => set_half(&mut ring.descriptors, high, value),
                    register::QUEUE_DRIVER => set_half(&mut ring.available, high, value),
                    register::QUEUE_DEVICE => set_half(&mut ring.used, high, value),
                    _ => panic!("the driver writes register {offset:#x}"),
                }
            }
        }
    }
}

fn notified<K: Kind>(inner: &mut Inner<K>, queue: usize) {
    inner.rings.queues[queue].notifications += 1;
    inner.handle(queue);
}

/// Where the structures lie in BAR 4.
const COMMON: usize = 0x0000;
const NOTIFY: usize = 0x1000;
const CONFIG: usize = 0x2000;
const BAR_LEN: usize = 0x3000;
const NOTIFY_MULTIPLIER: usize = 4;

pub(crate) struct PciFront<K> {
    model: Model<K>,
    pub(crate) config: [u8; 256],
    /// What stands behind the BAR instead of the model.
    pub(crate) other_bar: Option<Registers>,
    enabled: bool,
}

impl<K: Kind> PciFront<K> {
    pub(crate) fn new(model: Model<K>) -> Self {
        let inner = model.inner();
        let mut config = [0; 256];
        config[0x06] = 1 << 4;
        config[0x34] = 0x40;
        let notify_len = inner.spec.notify_len;
        let config_len = inner.spec.config.len() as u32;
        drop(inner);
        let structures = [
            (1, COMMON as u32, common::LEN as u32),
            (2, NOTIFY as u32, notify_len),
            (4, CONFIG as u32, config_len),
        ];
        let mut at = 0x40;
        for (kind, offset, len) in structures {
            config[at] = 9;
            config[at + 1] = at as u8 + 20;
            config[at + 2] = 20;
            config[at + 3] = kind;
            config[at + 4] = 4;
            config[at + 8..at + 12].copy_from_slice(&offset.to_le_bytes());
            config[at + 12..at + 16].copy_from_slice(&len.to_le_bytes());
            config[at + 16] = NOTIFY_MULTIPLIER as u8;
            at += 20;
        }
        config[at - 20 + 1] = 0;
        PciFront { model, config, other_bar: None, enabled: false }
    }
}

impl<K: Kind> Function for PciFront<K> {
    fn identity(&self) -> Identity {
        let device = 0x1040 + self.model.inner().spec.device_id as u16;
        Identity { vendor: 0x1af4, device, revision: 1, class: 0, subsystem_id: 0x1100 }
    }
    fn address(&self) -> Address {
        Address { bus: 0, device: 4, function: 0 }
    }
    fn read_config_u8(&self, offset: u16) -> u8 {
        self.config.get(usize::from(offset)).copied().unwrap_or(0xff)
    }
    fn read_config_u16(&self, offset: u16) -> u16 {
        assert_eq!(offset % 2, 0);
        u16::from_le_bytes([self.read_config_u8(offset), self.read_config_u8(offset + 1)])
    }
    fn read_config_u32(&self, offset: u16) -> u32 {
        assert_eq!(offset % 4, 0);
        let [a, b] = self.read_config_u16(offset).to_le_bytes();
        let [c, d] = self.read_config_u16(offset + 2).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
    fn write_config_u8(&mut self, offset: u16, _: u8) {
        panic!("the driver writes configuration space at {offset:#x}");
    }
    fn write_config_u16(&mut self, offset: u16, _: u16) {
        panic!("the driver writes configuration space at {offset:#x}");
    }
    fn write_config_u32(&mut self, offset: u16, _: u32) {
        panic!("the driver writes configuration space at {offset:#x}");
    }
    fn map_bar(&mut self, index: u8) -> Result<Registers, PciError> {
        assert!(self.enabled, "the function does not answer yet");
        if index != 4 {
            return Err(PciError::NoMemoryBar { index });
        }
        if let Some(bar) = &self.other_bar {
            return Ok(bar.clone());
        }
        Ok(Registers::simulated(Arc::new(BarFront(self.model.clone())), BAR_LEN))
    }
    fn enable_msix(&mut self, vectors: u16) -> Result<Vec<Line>, PciError> {
        let mut inner = self.model.inner();
        let available = inner.spec.vectors;
        if available == 0 {
            return Err(PciError::NoMsix);
        }
        if vectors > available {
            return Err(PciError::TooFewVectors { wanted: vectors, available });
        }
        let lines: Vec<Line> = (0..vectors).map(|_| Line::new()).collect();
        inner.lines = lines.clone();
        inner.pending = vec![false; usize::from(vectors)];
        inner.vectors.fill(0xffff);
        Ok(lines)
    }
    fn enable(&mut self) {
        self.enabled = true;
    }
}

struct BarFront<K>(Model<K>);

impl<K: Kind> RegisterModel for BarFront<K> {
    fn read(&self, offset: usize, width: usize) -> u64 {
        let mut inner = self.0.inner();
        let queue = inner.selects[2] as usize;
        match offset {
            CONFIG.. => inner.read_config(offset - CONFIG, width),
            common::DEVICE_FEATURE => {
                u64::from((inner.spec.features >> (32 * inner.selects[0])) as u32)
            }
            common::CONFIG_MSIX_VECTOR => inner.vectors[0].into(),
            common::DEVICE_STATUS => inner.status.into(),
            common::CONFIG_GENERATION => u64::from(inner.generation() as u8),
            common::QUEUE_SIZE => inner.spec.queue_sizes.get(queue).copied().unwrap_or(0).into(),
            common::QUEUE_MSIX_VECTOR => inner.vectors[1 + queue].into(),
            common::QUEUE_NOTIFY_OFF => queue as u64,
            _ => panic!("the driver reads {width} bytes at {offset:#x} of the BAR"),
        }
    }

    fn write(&self, offset: usize, width: usize, value: u64) {
        let mut inner = self.0.inner();
        let queue = inner.selects[2] as usize;
        match offset {
            NOTIFY..CONFIG => {
                assert_eq!((width, offset - NOTIFY), (2, value as usize * NOTIFY_MULTIPLIER));
                notified(&mut inner, value as usize);
            }
            common::DEVICE_FEATURE_SELECT => inner.selects[0] = value as u32,
            common::DRIVER_FEATURE_SELECT => inner.selects[1] = value as u32,
            common::DRIVER_FEATURE => {
                let high = inner.selects[1] == 1;
                set_half(&mut inner.accepted, high, value as u32);
            }
            common::CONFIG_MSIX_VECTOR => inner.vectors[0] = value as u16,
            common::DEVICE_STATUS => inner.set_status(value as u8),
            common::QUEUE_SELECT => inner.selects[2] = value as u32,
            common::QUEUE_SIZE => inner.rings.queues[queue].size = value as u16,
            common::QUEUE_MSIX_VECTOR => inner.vectors[1 + queue] = value as u16,
            common::QUEUE_ENABLE => inner.rings.queues[queue].ready = value == 1,
            32..56 => {
                assert_eq!(width, 4, "section 4.1.3.1: 64-bit fields in two halves");
                let ring = &mut inner.rings.queues[queue];
                let high = offset % 8 == 4;
                match offset - offset % 8 {
                    common::QUEUE_DESC => set_half(&mut ring.descriptors, high, value as u32),
                    common::QUEUE_DRIVER => set_half(&mut ring.available, high, value as u32),
                    _ => set_half(&mut ring.used, high, value as u32),
                }
            }
            _ => panic!("the driver writes {width} bytes at {offset:#x} of the BAR"),
        }
    }
}
