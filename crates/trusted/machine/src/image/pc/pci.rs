//! PCI functions: found on the buses, given to drivers one by one.
//!
//! Configuration space is reached through the two I/O ports of "mechanism 1" (PCI Local Bus 3.0,
//! section 3.2.2.3.2), which q35 and Cloud Hypervisor have, and whose 256 bytes hold everything that
//! a virtio function needs. BARs are where the firmware put them.

use super::super::{cpu, tables};
use super::{apic, vectors};
use crate::pci_config::{
    Bar, COMMAND, COMMAND_MASTER, COMMAND_MEMORY, COMMAND_NO_WIRE, Config, Msix, memory_bar,
};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use fata_shared::interrupt::Line;
use fata_shared::pci::{Address, Function, Identity, PciError};
use fata_shared::registers::Registers;

const ADDRESS_PORT: u16 = 0xcf8;
const DATA_PORT: u16 = 0xcfc;
/// Bytes of configuration space that mechanism 1 reaches.
const CONFIG_BYTES: u16 = 256;
/// Base class of bridges, and the subclass of those to another PCI bus.
const CLASS_BRIDGE: u32 = 0x06;
const CLASS_PCI_BRIDGE: u32 = 0x0604;
/// How deep bridges may lie behind one another: a PC has two levels, a loop has no end.
const BUSES_MAX: usize = 64;

/// The place of a function, and the way to its configuration space.
#[derive(Clone, Copy, Debug)]
struct Place(Address);

impl Place {
    fn select(self, offset: u8) {
        let Address { bus, device, function } = self.0;
        let place = u32::from(bus) << 16 | u32::from(device) << 11 | u32::from(function) << 8;
        // SAFETY: this port only selects a register; one processor, so nothing comes between.
        unsafe { cpu::out_u32(ADDRESS_PORT, 1 << 31 | place | u32::from(offset & !3)) }
    }
}

impl Config for Place {
    fn read(&self, offset: u8) -> u32 {
        self.select(offset);
        // SAFETY: reading configuration space has no effect on memory.
        unsafe { cpu::in_u32(DATA_PORT) }
    }

    fn write(&mut self, offset: u8, value: u32) {
        self.select(offset);
        // SAFETY: what is written is a BAR's own address, the command register, or MSI-X's control
        // word, by this module; or what the function's driver writes to its own function, whose
        // memory accesses stay in the buffers that `fata_shared::dma` gives it (see SOUNDNESS.md).
        unsafe { cpu::out_u32(DATA_PORT, value) }
    }
}

/// Every function that is not a bridge, in the order of the buses. Each is given out once: a second
/// call finds none.
pub(crate) fn scan() -> Vec<Box<dyn Function>> {
    static SCANNED: AtomicBool = AtomicBool::new(false);
    let mut found: Vec<Box<dyn Function>> = Vec::new();
    if SCANNED.swap(true, Ordering::Relaxed) {
        return found;
    }
    let mut buses = alloc::vec![0u8];
    let mut next = 0;
    while let Some(&bus) = buses.get(next) {
        next += 1;
        for device in 0..32 {
            scan_device(bus, device, &mut buses, &mut found);
        }
    }
    found
}

fn scan_device(bus: u8, device: u8, buses: &mut Vec<u8>, found: &mut Vec<Box<dyn Function>>) {
    for function in 0..8 {
        let place = Place(Address { bus, device, function });
        if place.read(0) as u16 == 0xffff {
            if function == 0 {
                return;
            }
            continue;
        }
        let class = place.read(8) >> 8;
        if class >> 8 == CLASS_PCI_BRIDGE {
            // Offset 0x19: the bus behind it. A bus that is known already is not visited again.
            let behind = (place.read(0x18) >> 8) as u8;
            if behind != 0 && !buses.contains(&behind) && buses.len() < BUSES_MAX {
                buses.push(behind);
            }
        } else if class >> 16 != CLASS_BRIDGE {
            found.push(Box::new(PciFunction { place }));
        }
        // Bit 7 of the header type: there are more functions.
        if function == 0 && place.read(0xc) & 1 << 23 == 0 {
            return;
        }
    }
}

#[derive(Debug)]
struct PciFunction {
    place: Place,
}

impl PciFunction {
    fn bar(&mut self, index: u8) -> Result<(Bar, *mut u8), PciError> {
        let bar = memory_bar(&mut self.place, index).ok_or(PciError::NoMemoryBar { index })?;
        let Bar { address, bytes } = bar;
        let unmappable = PciError::Unmappable { index, address, len: bytes };
        if address == 0 {
            return Err(unmappable);
        }
        let base = tables::map_device(address, bytes).ok_or(unmappable)?;
        Ok((bar, base))
    }

    fn command(&mut self, set: u32) {
        // The upper half is status, where a written one clears a bit: zeroes leave it.
        let command = self.place.read(COMMAND) & 0xffff;
        self.place.write(COMMAND, command | set);
    }
}

impl Function for PciFunction {
    fn identity(&self) -> Identity {
        let (id, class) = (self.place.read(0), self.place.read(8));
        Identity {
            vendor: id as u16,
            device: (id >> 16) as u16,
            revision: class as u8,
            class: class >> 8,
            subsystem_id: (self.place.read(0x2c) >> 16) as u16,
        }
    }

    fn address(&self) -> Address {
        self.place.0
    }

    fn read_config_u8(&self, offset: u16) -> u8 {
        (self.read_config_u32(offset & !3) >> (8 * (offset & 3))) as u8
    }

    fn read_config_u16(&self, offset: u16) -> u16 {
        (self.read_config_u32(offset & !3) >> (8 * (offset & 2))) as u16
    }

    fn read_config_u32(&self, offset: u16) -> u32 {
        match u8::try_from(offset) {
            Ok(offset) if u16::from(offset) < CONFIG_BYTES => self.place.read(offset & !3),
            _ => u32::MAX,
        }
    }

    fn write_config_u8(&mut self, offset: u16, value: u8) {
        let Ok(offset) = u8::try_from(offset) else { return };
        self.place.select(offset);
        // SAFETY: as for `Place::write`; the data port's bytes are the register's.
        unsafe { cpu::out_u8(DATA_PORT + u16::from(offset & 3), value) }
    }

    fn write_config_u16(&mut self, offset: u16, value: u16) {
        let Ok(offset) = u8::try_from(offset) else { return };
        self.place.select(offset);
        // SAFETY: as above.
        unsafe { cpu::out_u16(DATA_PORT + u16::from(offset & 2), value) }
    }

    fn write_config_u32(&mut self, offset: u16, value: u32) {
        if let Ok(offset) = u8::try_from(offset) {
            self.place.write(offset & !3, value);
        }
    }

    fn map_bar(&mut self, index: u8) -> Result<Registers, PciError> {
        let (bar, base) = self.bar(index)?;
        // SAFETY: the window is the function's own, mapped as a device's, outside RAM, for ever.
        Ok(unsafe { Registers::new(base, bar.bytes as usize) })
    }

    fn enable_msix(&mut self, count: u16) -> Result<Vec<Line>, PciError> {
        let msix = Msix::read(&self.place).ok_or(PciError::NoMsix)?;
        if count > msix.vectors {
            return Err(PciError::TooFewVectors { wanted: count, available: msix.vectors });
        }
        let (bar, base) = self.bar(msix.bar)?;
        if !msix.fits(bar.bytes) {
            return Err(PciError::NoMsix);
        }
        // SAFETY: as in `map_bar`.
        let table = unsafe { Registers::new(base, bar.bytes as usize) };
        let (first, lines) = vectors::allocate(usize::from(count)).ok_or(PciError::OutOfVectors)?;
        // Memory decoding on, so that the table answers; the wire off, messages are used instead.
        self.command(COMMAND_MEMORY | COMMAND_NO_WIRE);
        let control = self.place.read(msix.capability) & !(Msix::ENABLE | Msix::MASK_ALL);
        self.place.write(msix.capability, control | Msix::ENABLE | Msix::MASK_ALL);
        // Intel SDM volume 3, 11.11: the message's address names the processor, its data the vector.
        let address = 0xfee0_0000 | (apic::id() & 0xff) << 12;
        for entry in 0..msix.vectors {
            let at = msix.offset as usize + usize::from(entry) * Msix::ENTRY_BYTES as usize;
            let masked = u32::from(entry >= count);
            if masked == 0 {
                table.write_u32(at, address);
                table.write_u32(at + 4, 0);
                table.write_u32(at + 8, u32::from(first) + u32::from(entry));
            }
            table.write_u32(at + 12, masked);
        }
        self.place.write(msix.capability, control | Msix::ENABLE);
        Ok(lines)
    }

    fn enable(&mut self) {
        self.command(COMMAND_MEMORY | COMMAND_MASTER);
    }
}
