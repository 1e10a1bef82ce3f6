//! What is attached to the machine, for drivers to probe.

use super::super::cell::OneCpu;
use super::super::console::say;
use super::super::tables;
use super::{io_apic, pci, vectors};
use crate::command_line::MmioDevice;
use alloc::boxed::Box;
use alloc::vec::Vec;
use fata_shared::interrupt::Line;
use fata_shared::pci::Function;
use fata_shared::registers::Registers;

static MMIO: OneCpu<Vec<MmioDevice>> = OneCpu::new(Vec::new());

/// Notes what the command line says.
pub(crate) fn set_mmio(devices: &[MmioDevice]) {
    MMIO.with(|place| place.extend_from_slice(devices));
}

/// A place on the virtio-mmio bus. QEMU announces all its places, most of them empty: the device id
/// in the registers says whether somebody is there.
#[derive(Debug)]
pub struct MmioSlot {
    /// The device's registers.
    pub registers: Registers,
    /// Fires when the device interrupts.
    pub line: Line,
    /// Physical address of the registers.
    pub address: u64,
    /// Its global system interrupt.
    pub gsi: u32,
}

/// The places on the virtio-mmio bus that the command line names, each given out once: a second call
/// finds none. A place that cannot be mapped or wired is left out, with a line on the console.
pub fn virtio_mmio() -> Vec<MmioSlot> {
    let devices = MMIO.with(core::mem::take);
    devices.iter().filter_map(open_slot).collect()
}

fn open_slot(device: &MmioDevice) -> Option<MmioSlot> {
    let MmioDevice { bytes, address, gsi } = *device;
    let Some(base) = tables::map_device(address, bytes) else {
        say!("virtio_mmio.device at {address:#x} cannot be mapped: it overlaps memory");
        return None;
    };
    let (vector, mut lines) = vectors::allocate(1)?;
    if !io_apic::route(gsi, vector) {
        say!("virtio_mmio.device at {address:#x}: no I/O APIC has interrupt {gsi}");
        return None;
    }
    // SAFETY: the window is mapped as a device's registers, lies outside RAM, and is given out once.
    let registers = unsafe { Registers::new(base, bytes as usize) };
    Some(MmioSlot { registers, line: lines.pop()?, address, gsi })
}

/// Every function on the PCI buses that is not a bridge.
pub fn pci() -> Vec<Box<dyn Function>> {
    pci::scan()
}
