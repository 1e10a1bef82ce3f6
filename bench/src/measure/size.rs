//! Sizes of what is shipped: an image beside a kernel with its root file system.

use anyhow::Result;

use super::{Plan, in_turns};
use crate::guest::{System, file_bytes};
use crate::report::{Row, Target, Unit};
use crate::software::{Example, Shelf};

const KIBIBYTE: f64 = 1024.0;

/// Bytes of each example, stripped, as `fata build` publishes it; Linux: kernel and root file system.
pub(super) fn rows(plan: &Plan, shelf: &mut Shelf) -> Result<Vec<Row>> {
    let limits = [
        (Example::Hello, 500.0 * KIBIBYTE),
        (Example::Http, 1.5 * KIBIBYTE * KIBIBYTE),
        (Example::Https, 4.0 * KIBIBYTE * KIBIBYTE),
    ];
    let mut rows = Vec::new();
    for (example, limit) in limits {
        let what = format!("size of {example}");
        let (ours, peer) = in_turns(plan, 1, &what, |system: System| {
            let software = shelf.software(system, example)?;
            let mut bytes = file_bytes(&software.kernel)?;
            if let Some(initramfs) = &software.initramfs {
                bytes += file_bytes(initramfs)?;
            }
            Ok(bytes as f64)
        })?;
        rows.push(Row {
            measure: "size",
            title: format!("Size of `{example}` (Linux: kernel and initramfs)"),
            machine: None,
            unit: Unit::Bytes,
            ours,
            peer,
            target: Target::AtMost(limit),
        });
    }
    Ok(rows)
}
