//! `/metrics`, in Prometheus's text format.

use fata::Stack;
use std::fmt::Write;

/// Memory, and all that the network stack counts.
pub fn text(stack: &Stack) -> String {
    let mut out = String::new();
    if let Some(memory) = fata::system::memory() {
        let _ = writeln!(out, "fata_memory_total_bytes {}", memory.total_bytes);
        let _ = writeln!(out, "fata_memory_used_bytes {}", memory.used_bytes);
    }
    for (name, value) in stack.counters().iter() {
        let _ = writeln!(out, "fata_net_{name} {value}");
    }
    for (name, value) in stack.resolver_counters().iter() {
        let _ = writeln!(out, "fata_resolver_{name} {value}");
    }
    out
}
