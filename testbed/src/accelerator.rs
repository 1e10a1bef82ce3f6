//! Hardware virtualisation or emulation?
//!
//! A Xen host runs guests itself, so hardware must offer virtualisation *inside* its virtual
//! machines. That `/dev/kvm` opens proves nothing of the kind; the processor's flags and the
//! module's parameter do.

use crate::error::{Error, Kind, Result};

/// What QEMU is to run the host on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// Hardware where nested virtualisation really works, else emulation.
    #[default]
    Auto,
    /// QEMU's translation of instructions, which knows AMD's virtualisation (SVM).
    Tcg,
    /// The processor's own virtualisation, nested.
    Kvm,
}

/// What the choice makes of QEMU's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// For `-accel`.
    pub(crate) accelerator: &'static str,
    /// For `-cpu`.
    pub(crate) cpu: &'static str,
}

/// The emulated processor. SVM with nested paging is what Xen needs for PVH guests; RDRAND saves
/// dom0 and every guest two seconds of waiting for randomness. The others are what programs find
/// on any processor of the last ten years. Left out because this emulation and Xen do not get along:
/// AVX (Xen hangs at its first steps), SMEP and SMAP (dom0 crashes), RDTSCP (Xen, which intercepts
/// it where the clock is not known to be invariant, takes it for RDTSC and ends the guest).
const EMULATED_CPU: &str = "qemu64,+svm,+npt,+rdrand,+fsgsbase,+ssse3,+sse4.1,+sse4.2,\
                            +popcnt,+aes,+pclmulqdq,+movbe,+bmi1,+bmi2,+adx";

/// Decides, from this computer's device file and processor.
pub(crate) fn choose(choice: Accelerator) -> Result<Machine> {
    let emulated = Machine { accelerator: "tcg", cpu: EMULATED_CPU };
    let kvm = Machine { accelerator: "kvm", cpu: "host" };
    if choice == Accelerator::Tcg {
        return Ok(emulated);
    }
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let nested = ["kvm_intel", "kvm_amd"].iter().any(|module| {
        let path = format!("/sys/module/{module}/parameters/nested");
        std::fs::read_to_string(path).is_ok_and(|value| is_on(&value))
    });
    let works = has_extension(&cpuinfo) && nested;
    match (choice, opened) {
        (Accelerator::Kvm, Err(error)) => {
            let what = format!("/dev/kvm cannot be opened: {error}");
            Err(Error::new(Kind::Resource, what).help("emulate instead: --accel tcg"))
        }
        (Accelerator::Kvm, Ok(_)) => Ok(kvm),
        (_, Ok(_)) if works => Ok(kvm),
        _ => Ok(emulated),
    }
}

/// A module's boolean parameter, as the kernel prints it.
fn is_on(value: &str) -> bool {
    matches!(value.trim(), "1" | "Y" | "y")
}

/// Whether the processor's flags in /proc/cpuinfo hold `vmx` (Intel) or `svm` (AMD).
fn has_extension(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "flags")
        .any(|(_, flags)| flags.split_ascii_whitespace().any(|f| f == "vmx" || f == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_flag_itself_counts() {
        assert!(has_extension("processor\t: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(!has_extension("flags\t\t: fpu vmx_something sse svm_lock\n"));
        assert!(!has_extension("vmx flags\t: vnmi\n"));
        assert!(is_on("Y\n") && is_on("1\n") && !is_on("0\n") && !is_on(""));
    }

    #[test]
    fn emulation_can_always_be_had() {
        assert_eq!(choose(Accelerator::Tcg).unwrap().accelerator, "tcg");
    }
}
