//! What the hypervisor says about time.
//!
//! A hypervisor sets bit 31 of CPUID 1 ECX and signs leaf 0x4000_0000.

use super::super::cpu;
use super::clock::EMULATED_APIC_HERTZ;
use crate::pvclock::PvClock;
use core::sync::atomic::{Ordering, fence};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// QEMU's software emulation.
    Tcg,
    Kvm,
    Xen,
    Other,
}

/// Who runs us, with the highest of its leaves.
fn identify() -> Option<(Kind, u32)> {
    let (signature, highest) = cpu::hypervisor(0x4000_0000)?;
    let kind = match &signature {
        b"TCGTCGTCGTCG" => Kind::Tcg,
        b"KVMKVMKVM\0\0\0" => Kind::Kvm,
        b"XenVMMXenVMM" => Kind::Xen,
        _ => Kind::Other,
    };
    Some((kind, highest))
}

/// The TSC's frequency, if the hypervisor tells it.
pub(super) fn tsc_hertz() -> Option<u64> {
    let (kind, highest) = identify()?;
    if kind == Kind::Xen && highest >= 0x4000_0003 {
        // Xen, public/arch-x86/cpuid.h: leaf 3, subleaf 0, ECX is the guest's TSC in kHz.
        let khz = cpu::cpuid_count(0x4000_0003, 0).ecx;
        return (khz > 0).then_some(u64::from(khz) * 1000);
    }
    if kind == Kind::Kvm
        && let Some(hertz) = kvm_tsc_hertz()
    {
        return Some(hertz);
    }
    // VMware's timing leaf, which KVM and QEMU can give too: TSC in kHz.
    let khz =
        if highest >= 0x4000_0010 && kind != Kind::Tcg { cpu::cpuid(0x4000_0010).eax } else { 0 };
    (khz > 0).then_some(u64::from(khz) * 1000)
}

/// The APIC timer's frequency, if it is known by who emulates it.
pub(super) fn apic_hertz() -> Option<u64> {
    let (kind, highest) = identify()?;
    match kind {
        Kind::Tcg => Some(EMULATED_APIC_HERTZ),
        Kind::Kvm if highest >= 0x4000_0010 && cpu::cpuid(0x4000_0010).ebx > 0 => {
            Some(u64::from(cpu::cpuid(0x4000_0010).ebx) * 1000)
        }
        Kind::Kvm => Some(EMULATED_APIC_HERTZ),
        Kind::Xen | Kind::Other => None,
    }
}

/// `pvclock_vcpu_time_info` (Linux, Documentation/virt/kvm/x86/msr.rst).
#[repr(C, align(32))]
#[derive(Clone, Copy, Default)]
struct VcpuTime {
    version: u32,
    pad: u32,
    tsc_timestamp: u64,
    system_time: u64,
    tsc_to_system_mul: u32,
    tsc_shift: i8,
    flags: u8,
    pad_2: [u8; 2],
}

impl VcpuTime {
    fn line(&self) -> PvClock {
        PvClock {
            tsc_timestamp: self.tsc_timestamp,
            system_time: self.system_time,
            tsc_to_system_mul: self.tsc_to_system_mul,
            tsc_shift: self.tsc_shift,
        }
    }
}

/// `pvclock_wall_clock`.
#[repr(C, align(4))]
#[derive(Clone, Copy, Default)]
struct WallClock {
    version: u32,
    seconds: u32,
    nanos: u32,
}

const MSR_KVM_WALL_CLOCK_NEW: u32 = 0x4b56_4d00;
const MSR_KVM_SYSTEM_TIME_NEW: u32 = 0x4b56_4d01;

/// Whether KVM offers the new kvmclock registers (leaf 0x4000_0001 EAX bit 3).
fn has_kvmclock() -> bool {
    matches!(identify(), Some((Kind::Kvm, highest)) if highest >= 0x4000_0001)
        && cpu::cpuid(0x4000_0001).eax & 1 << 3 != 0
}

/// One reading of what KVM says about this processor's time.
fn kvm_vcpu_time() -> Option<VcpuTime> {
    if !has_kvmclock() {
        return None;
    }
    let mut place = VcpuTime::default();
    let pointer = &raw mut place;
    // SAFETY: the register exists; KVM writes the structure at this (physical = virtual) address
    // from the first write on until the second, which takes bit 0 away; both are in this call.
    let time = unsafe {
        cpu::write_msr(MSR_KVM_SYSTEM_TIME_NEW, pointer as u64 | 1);
        fence(Ordering::SeqCst);
        let time = pointer.read_volatile();
        cpu::write_msr(MSR_KVM_SYSTEM_TIME_NEW, 0);
        time
    };
    // An odd version is an update in progress; none can be while the processor itself runs here.
    (time.version & 1 == 0 && time.tsc_to_system_mul > 0).then_some(time)
}

fn kvm_tsc_hertz() -> Option<u64> {
    kvm_vcpu_time()?.line().tsc_hertz()
}

/// The wall clock in nanoseconds since 1970, if KVM gives one.
pub(super) fn kvm_wall_nanos() -> Option<u64> {
    let time = kvm_vcpu_time()?;
    let mut place = WallClock::default();
    let pointer = &raw mut place;
    // SAFETY: KVM fills the structure once, while the register is written.
    let wall = unsafe {
        cpu::write_msr(MSR_KVM_WALL_CLOCK_NEW, pointer as u64);
        fence(Ordering::SeqCst);
        pointer.read_volatile()
    };
    // The wall clock is that of the host's boot; the system time runs since then.
    let boot = u64::from(wall.seconds) * 1_000_000_000 + u64::from(wall.nanos);
    (wall.seconds > 0).then(|| boot.saturating_add(time.line().nanos(cpu::ticks())))
}
