//! Hardware virtualisation or emulation?
//!
//! That `/dev/kvm` opens proves little: on machines that are virtual themselves it may open, make a
//! virtual machine, and then stop at the guest's first vector instruction. Only a processor that
//! shows its virtualisation extension (VMX or SVM) to this kernel runs guests at speed.

use crate::failure::{Exit, Failure, Result};
use crate::ui::Ui;

/// `--accel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// Hardware virtualisation where it really works, else emulation.
    #[default]
    Auto,
    /// Emulation.
    Tcg,
    /// Hardware virtualisation.
    Kvm,
}

/// What QEMU is told to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// QEMU's own translation of instructions.
    Tcg,
    /// The processor's virtualisation, through /dev/kvm.
    Kvm,
}

impl Accelerator {
    /// QEMU's name for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Accelerator::Tcg => "tcg",
            Accelerator::Kvm => "kvm",
        }
    }

    /// In words.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Accelerator::Tcg => "emulated",
            Accelerator::Kvm => "hardware virtualisation",
        }
    }
}

/// Decides, from this computer's device file and processor.
pub(crate) fn choose(ui: Ui, choice: Choice) -> Result<Accelerator> {
    if choice == Choice::Tcg {
        return Ok(Accelerator::Tcg);
    }
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    match (choice, opened, has_extension(&cpuinfo)) {
        (Choice::Kvm, Err(error), _) => {
            let what = format!("--accel kvm: /dev/kvm cannot be opened: {error}");
            Err(Failure::new(Exit::Resource, what).help(match error.kind() {
                std::io::ErrorKind::PermissionDenied => "join the group kvm, or use --accel tcg",
                _ => "load the module kvm_intel or kvm_amd, or use --accel tcg",
            }))
        }
        (Choice::Kvm, Ok(_), extension) => {
            if !extension {
                ui.warn(
                    "this processor shows neither vmx nor svm: /dev/kvm opens, but guests may stop",
                );
            }
            Ok(Accelerator::Kvm)
        }
        (_, Ok(_), true) => Ok(Accelerator::Kvm),
        (_, Ok(_), false) => {
            ui.detail("/dev/kvm opens, but the processor shows neither vmx nor svm: emulating");
            Ok(Accelerator::Tcg)
        }
        (_, Err(error), _) => {
            ui.detail(&format!("/dev/kvm: {error}: emulating"));
            Ok(Accelerator::Tcg)
        }
    }
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
        assert!(has_extension("flags : svm\n"));
        assert!(!has_extension("flags\t\t: fpu vmx_something sse svm_lock\n"));
        assert!(!has_extension("vmx flags\t: vnmi preemption_timer vmx\n"));
        assert!(!has_extension(""));
    }

    #[test]
    fn emulation_can_always_be_had() {
        let ui = Ui::new(crate::ui::Color::Never, true, 0);
        assert_eq!(choose(ui, Choice::Tcg).unwrap(), Accelerator::Tcg);
    }
}
