//! The I/O APICs: from a device's wire to a vector of the processor.
//!
//! Only virtio-mmio devices use wires here; PCI devices send messages (MSI-X). A wire is taken as
//! edge-triggered, active high, which is what QEMU's microvm and Firecracker signal: the line rises
//! when the device has something to say and falls when the driver has acknowledged all of it. 82093AA
//! data sheet, section 3.

use super::super::cell::OneCpu;
use super::super::tables;
use super::apic;
use crate::acpi::Platform;
use alloc::vec::Vec;

/// Where the first I/O APIC is when nobody says otherwise, on every PC and on microvm.
const DEFAULT_ADDRESS: u64 = 0xfec0_0000;
/// Where QEMU's microvm has a second one (24 more wires), when it has.
const MICROVM_SECOND_ADDRESS: u64 = 0xfec1_0000;

const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;
const MASKED: u32 = 1 << 16;

struct IoApic {
    registers: *mut u32,
    gsi_base: u32,
    pins: u32,
}

// SAFETY: the pointer is to a device's registers, used through `OneCpu` alone.
unsafe impl Send for IoApic {}

impl IoApic {
    fn read(&self, register: u32) -> u32 {
        // SAFETY: `find` mapped the page; register select is at 0, the window at 0x10.
        unsafe {
            self.registers.write_volatile(register);
            self.registers.byte_add(0x10).read_volatile()
        }
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: as in `read`. What is written are redirections to vectors with handlers.
        unsafe {
            self.registers.write_volatile(register);
            self.registers.byte_add(0x10).write_volatile(value);
        }
    }

    /// Maps the controller and masks its pins; `None` when nothing answers there.
    fn find(address: u64, gsi_base: u32) -> Option<IoApic> {
        let registers = tables::map_device(address, 4096)?.cast();
        let mut found = IoApic { registers, gsi_base, pins: 0 };
        let version = found.read(VERSION);
        // Bits 16 to 23: the highest pin. An empty place reads all ones or all zeroes.
        found.pins = (version >> 16 & 0xff) + 1;
        if version & 0xff == 0 || version == u32::MAX {
            return None;
        }
        for pin in 0..found.pins {
            found.write(REDIRECTION + 2 * pin, MASKED);
        }
        Some(found)
    }
}

static IO_APICS: OneCpu<Vec<IoApic>> = OneCpu::new(Vec::new());

/// Finds the controllers: those that ACPI names, else those that are where they usually are.
pub(crate) fn init(platform: &Platform) {
    let mut found = Vec::new();
    for io_apic in platform.io_apics() {
        found.extend(IoApic::find(io_apic.address, io_apic.gsi_base));
    }
    if found.is_empty() {
        found.extend(IoApic::find(DEFAULT_ADDRESS, 0));
        let first_pins = found.first().map_or(0, |first| first.pins);
        if first_pins > 0 {
            found.extend(IoApic::find(MICROVM_SECOND_ADDRESS, first_pins));
        }
    }
    IO_APICS.with(|place| *place = found);
}

/// Sends global system interrupt `gsi` to `vector`. False when no controller has that wire.
pub(crate) fn route(gsi: u32, vector: u8) -> bool {
    let destination = apic::id();
    IO_APICS.with(|io_apics| {
        let Some((io_apic, pin)) = io_apics.iter().find_map(|io_apic| {
            let pin = gsi.checked_sub(io_apic.gsi_base)?;
            (pin < io_apic.pins).then_some((io_apic, pin))
        }) else {
            return false;
        };
        // Physical destination in the upper word; fixed, edge, active high, unmasked in the lower.
        io_apic.write(REDIRECTION + 2 * pin + 1, destination << 24);
        io_apic.write(REDIRECTION + 2 * pin, u32::from(vector));
        true
    })
}
