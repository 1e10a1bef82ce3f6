//! The processor's instructions that Rust has no word for.
//!
//! Each function is one instruction, or the few that must not be separated.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};
use core::sync::atomic::{AtomicBool, Ordering};

/// Writes a byte to an I/O port.
///
/// # Safety
/// The write must not make a device touch memory that it was not given.
pub(crate) unsafe fn out_u8(port: u16, value: u8) {
    // SAFETY: the caller answers for what the device does; the instruction touches no memory.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
    }
}

/// Writes two bytes to an I/O port.
///
/// # Safety
/// As for [`out_u8`].
#[cfg(fata_target = "virtio")]
pub(crate) unsafe fn out_u16(port: u16, value: u16) {
    // SAFETY: as for `out_u8`.
    unsafe {
        asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags))
    }
}

/// Writes four bytes to an I/O port.
///
/// # Safety
/// As for [`out_u8`].
#[cfg(fata_target = "virtio")]
pub(crate) unsafe fn out_u32(port: u16, value: u32) {
    // SAFETY: as for `out_u8`.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags))
    }
}

/// Reads a byte from an I/O port.
///
/// # Safety
/// As for [`out_u8`]: reading a port can have effects too.
#[cfg(fata_target = "virtio")]
pub(crate) unsafe fn in_u8(port: u16) -> u8 {
    let value;
    // SAFETY: as for `out_u8`.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    }
    value
}

/// Reads four bytes from an I/O port.
///
/// # Safety
/// As for [`in_u8`].
#[cfg(fata_target = "virtio")]
pub(crate) unsafe fn in_u32(port: u16) -> u32 {
    let value;
    // SAFETY: as for `out_u8`.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags))
    }
    value
}

/// Reads a model-specific register.
///
/// # Safety
/// The processor must have the register, else it faults.
pub(crate) unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller knows that the register exists; reading it touches no memory.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The processor must have the register, and what the value switches on must be sound.
pub(crate) unsafe fn write_msr(register: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: the caller answers for the effect. Not `nomem`: some registers change what memory is.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") low, in("edx") high,
            options(nostack, preserves_flags));
    }
}

/// `CPUID`, subleaf 0.
pub(crate) fn cpuid(leaf: u32) -> CpuidResult {
    __cpuid(leaf)
}

/// `CPUID` with a subleaf.
pub(crate) fn cpuid_count(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// What signs a leaf of a hypervisor, and the highest of its leaves; `None` outside of a virtual
/// machine. The leaves of the first begin at 0x4000_0000.
pub(crate) fn hypervisor(leaf: u32) -> Option<([u8; 12], u32)> {
    let is_virtual = cpuid(1).ecx & 1 << 31 != 0;
    let found = is_virtual.then(|| cpuid(leaf))?;
    let mut signature = [0; 12];
    for (place, word) in signature.chunks_exact_mut(4).zip([found.ebx, found.ecx, found.edx]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    Some((signature, found.eax))
}

/// Whether QEMU emulates the processor, on which other things are fast. Nothing is wrong if it is not
/// noticed.
pub(crate) static IS_EMULATED: AtomicBool = AtomicBool::new(false);

/// Finds out whether QEMU emulates the processor: it says so as a hypervisor, or, where one that it
/// runs hides that (Xen), by the processor's name.
fn find_emulation() {
    const NAME_LEAF: u32 = 0x8000_0002;
    let name = cpuid(NAME_LEAF);
    let has_name = cpuid(0x8000_0000).eax >= NAME_LEAF;
    let is_named = [name.eax, name.ebx].map(u32::to_le_bytes).as_flattened() == b"QEMU TCG";
    let is_signed =
        hypervisor(0x4000_0000).is_some_and(|(signature, _)| &signature == b"TCGTCGTCGTCG");
    IS_EMULATED.store(is_signed || has_name && is_named, Ordering::Relaxed);
}

/// The time-stamp counter, not read before what stands before it (Intel SDM volume 2, RDTSC).
pub(crate) fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has both instructions, and neither touches memory.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    }
}

/// The address whose access faulted last.
pub(crate) fn fault_address() -> u64 {
    let address;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) }
    address
}

/// The current frame pointer.
#[inline(always)]
pub(crate) fn frame_pointer() -> u64 {
    let pointer;
    // SAFETY: reading a register has no effect.
    unsafe { asm!("mov {}, rbp", out(reg) pointer, options(nomem, nostack, preserves_flags)) }
    pointer
}

/// Stops for ever, interrupts off.
#[cfg(fata_target = "virtio")]
pub(crate) fn stop() -> ! {
    loop {
        // SAFETY: nothing runs after this on purpose.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

/// Lets the interrupts that are pending be taken, and no other: they are off before and after.
#[cfg(fata_target = "virtio")]
pub(crate) fn take_pending_interrupts() {
    // SAFETY: handlers run on stacks of their own and touch only the table of pending vectors (see
    // `traps`); not `nomem`, because that table is memory. `sti` takes effect after the next
    // instruction, hence the `nop`.
    unsafe { asm!("sti", "nop", "cli", options(nostack)) }
}

/// Sleeps until an interrupt, takes it, and returns with interrupts off.
///
/// `sti` holds interrupts back for one instruction, so one that became pending at any time before
/// ends the `hlt` at once (Intel SDM volume 2, STI): there is no gap in which it could be lost.
#[cfg(fata_target = "virtio")]
pub(crate) fn sleep_until_interrupt() {
    // SAFETY: handlers run on stacks of their own and touch only what says that there was an
    // interrupt (see `traps`); not `nomem`, because that is memory.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) }
}

/// Lets the program use AVX, where the processor has it: `ring` and others choose their code by it.
/// Also switches on what else costs nothing and guards something.
pub(crate) fn enable_features() {
    find_emulation();
    let features = cpuid(1);
    const XSAVE: u32 = 1 << 26;
    const AVX: u32 = 1 << 28;
    if features.ecx & (XSAVE | AVX) != XSAVE | AVX {
        return;
    }
    // x87, SSE, AVX, and the AVX-512 states when all three are there (Intel SDM volume 1, 13.3).
    let supported = cpuid_count(0xd, 0);
    let mut wanted = 0b111;
    if supported.eax & 0xe0 == 0xe0 {
        wanted |= 0xe0;
    }
    // SAFETY: the processor says that it has XSAVE, and that these states may be enabled. Nothing
    // saves them: there is one context, and handlers do not touch vector registers.
    unsafe {
        asm!("mov rax, cr4", "or rax, 0x40000", "mov cr4, rax", out("rax") _, options(nomem, nostack));
        asm!("xsetbv", in("ecx") 0, in("eax") supported.eax & wanted, in("edx") 0,
            options(nomem, nostack));
    }
}
