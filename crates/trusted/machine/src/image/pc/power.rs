//! The ways to switch a PC off.

use super::super::cpu::{out_u8, out_u16, out_u32, stop};
use super::super::power::Ending;
use crate::exit_code;
use core::arch::asm;
use core::sync::atomic::{AtomicU16, Ordering};

/// QEMU's `isa-debug-exit`, where `fata run` puts it.
const DEBUG_EXIT_PORT: u16 = 0xf4;

/// PM1a_CNT, when ACPI says where it is; 0 otherwise.
static PM1A_CONTROL_PORT: AtomicU16 = AtomicU16::new(0);

/// Tells where the ACPI power register is.
pub(super) fn set_pm1a_control_port(port: Option<u16>) {
    PM1A_CONTROL_PORT.store(port.unwrap_or(0), Ordering::Relaxed);
}

/// Whether the code of a program that ended by itself must be said on the console.
pub(crate) fn must_say(code: u8) -> bool {
    exit_code::to_port(code).1
}

/// Every way to switch off that is known, the ones that carry the code first.
pub(crate) fn off(code: u8, _ending: Ending) -> ! {
    let (code, _) = exit_code::to_port(code);
    // SAFETY: nothing runs after this; each write ends the machine or does nothing.
    unsafe {
        out_u32(DEBUG_EXIT_PORT, code);
        let port = PM1A_CONTROL_PORT.load(Ordering::Relaxed);
        if port != 0 {
            // SLP_EN with SLP_TYP 0, which is S5 on QEMU's PC and q35 (ACPI 6.5, 4.8.3.2.1; the
            // type is in the DSDT, whose byte code is not worth an interpreter).
            out_u16(port, 1 << 13);
        }
        // Cloud Hypervisor's ACPI shutdown device: SLP_EN, S5.
        out_u8(0x600, 5 << 2 | 1 << 5);
        // The keyboard controller's reset line, which ends a Firecracker or a QEMU with -no-reboot.
        out_u8(0x64, 0xfe);
        // A fault that cannot be delivered: no interrupt table.
        asm!("lidt [{}]", "int3", in(reg) &[0u8; 10], options(nostack));
    }
    stop()
}
