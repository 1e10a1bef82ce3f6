//! The machine is a PC, or what of one a small virtual machine has: a serial port, an APIC or two,
//! ACPI tables, clocks. Its devices are virtio's.

mod apic;
mod clock;
pub mod devices;
mod hypervisor;
mod interrupts;
mod io_apic;
mod pci;
pub(crate) mod power;
pub(crate) mod serial;
mod vectors;

pub(crate) use clock::Clocks;
pub(crate) use interrupts::interrupt_handler;
pub(crate) use serial as port;

pub(crate) use super::cpu::sleep_until_interrupt;

use super::cpu;
use super::entry::BOOT_MAPPED_END;
use crate::acpi::{self, Platform};
use crate::command_line::CommandLine;
use crate::memory_map::{MemoryMap, Region};

/// What is learnt of the machine while the loader's memory is still there. Valid when all zeroes.
pub(crate) struct Board {
    scratch: [u8; acpi::SCRATCH_BYTES],
    platform: Platform,
}

impl Board {
    /// Reads what ACPI says.
    pub(crate) fn early(&mut self, rsdp: u64, _ram: &mut MemoryMap) -> Result<(), &'static str> {
        self.platform = Platform::read(&BootMemory, rsdp, &mut self.scratch);
        Ok(())
    }

    /// Pages outside RAM that are mapped as data from the start: none.
    pub(crate) fn pages(&self) -> &[Region] {
        &[]
    }

    /// Starts the interrupt controllers, and finds the clocks.
    pub(crate) fn start(&self) -> Result<Clocks, &'static str> {
        power::set_pm1a_control_port(self.platform.pm1a_control_port);
        mask_legacy_interrupts();
        apic::init()?;
        io_apic::init(&self.platform);
        Clocks::find(&self.platform)
    }
}

/// Notes the devices that the command line names.
pub(crate) fn set_command_line(line: &CommandLine) {
    devices::set_mmio(&line.mmio_devices);
}

/// Takes the interrupts that are pending and fires their lines.
pub(crate) fn deliver_interrupts() -> bool {
    cpu::take_pending_interrupts();
    vectors::deliver()
}

/// Physical memory as `boot.s` maps it.
struct BootMemory;

impl acpi::Memory for BootMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        let fits = address > 0
            && address.checked_add(bytes.len() as u64).is_some_and(|end| end <= BOOT_MAPPED_END);
        if fits {
            // SAFETY: the range is mapped (all below 4 GiB is), and nobody writes there meanwhile.
            // A place without memory reads as all ones.
            unsafe {
                core::ptr::copy_nonoverlapping(
                    address as *const u8,
                    bytes.as_mut_ptr(),
                    bytes.len(),
                );
            }
        }
        fits
    }
}

/// The two 8259s, where there are any, must not put their vectors among the exceptions.
fn mask_legacy_interrupts() {
    // SAFETY: the mask registers of the PC's interrupt controllers, or nobody.
    unsafe {
        cpu::out_u8(0x21, 0xff);
        cpu::out_u8(0xa1, 0xff);
    }
}
