//! What a program can ask about the machine or the process that it runs on.

use crate::ConsoleInput;

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All that the program could use: the machine's heap, or the host's memory.
    pub total_bytes: u64,
    /// What it uses now.
    pub used_bytes: u64,
}

/// Memory now; `None` when the host does not say.
pub fn memory() -> Option<Memory> {
    implementation::memory()
}

/// What the machine has counted since it started, by name: how often it was idle, and on Xen its
/// hypercalls, notifications and grants. Empty for a process.
pub fn counters() -> Vec<(&'static str, u64)> {
    implementation::counters()
}

/// The target that the program was built for: `unix`, `virtio` or `xen`.
pub const TARGET: &str = crate::wiring::TARGET;

/// Waits until the host asks the program to end (`xl shutdown`).
///
/// A program that has not called this is ended at once when the host asks, as if its `main` had
/// returned; one that has is given 30 s. On targets whose hosts do not ask it waits for ever.
pub async fn shutdown_requested() {
    crate::shutdown::requested().await;
}

/// What is typed on the console: standard input of a process, the guest's console on Xen (`xl
/// console`), a virtio console. To be called in `main` or a task.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// use tokio::io::{AsyncBufReadExt, BufReader};
///
/// let mut lines = BufReader::new(fata::system::console_input()?).lines();
/// while let Some(line) = lines.next_line().await? {
///     println!("you said {line}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`ResourceBusy`](std::io::ErrorKind::ResourceBusy) while another [`ConsoleInput`] is open;
/// [`NotFound`](std::io::ErrorKind::NotFound) on a machine without a console that can be read, such as
/// one on virtio with nothing but a serial port.
pub fn console_input() -> std::io::Result<ConsoleInput> {
    ConsoleInput::open(crate::wiring::console_source, crate::wiring::CONSOLE_IS_RAW)
}

#[cfg(not(any(fata_target = "virtio", fata_target = "xen")))]
mod implementation {
    use super::Memory;

    pub(super) fn memory() -> Option<Memory> {
        let kib = |path: &str, key: &str| {
            let text = std::fs::read_to_string(path).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Some(Memory {
            total_bytes: kib("/proc/meminfo", "MemTotal:")? * 1024,
            used_bytes: kib("/proc/self/status", "VmRSS:")? * 1024,
        })
    }

    pub(super) fn counters() -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

#[cfg(any(fata_target = "virtio", fata_target = "xen"))]
mod implementation {
    use super::Memory;
    use fata_machine::{idle, memory};

    pub(super) fn memory() -> Option<Memory> {
        Some(Memory { total_bytes: memory::total_bytes(), used_bytes: memory::used_bytes() })
    }

    pub(super) fn counters() -> Vec<(&'static str, u64)> {
        #[allow(unused_mut)]
        let mut counters =
            vec![("times_idle", idle::times_idle()), ("allocations", memory::allocations())];
        #[cfg(fata_target = "xen")]
        counters.extend(crate::wiring::xen_counters());
        counters
    }
}
