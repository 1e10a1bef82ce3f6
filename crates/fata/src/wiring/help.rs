//! What `--help` prints: the manifest, for people.

use super::spec::Program;
use std::fmt::Write;

/// The whole text. `settings` is a list of the target's device settings with their help.
pub(crate) fn text(package: &str, program: &Program, settings: &[(String, &str)]) -> String {
    let mut out = String::new();
    if !program.about.is_empty() {
        let _ = writeln!(out, "{}\n", program.about);
    }
    let _ = writeln!(out, "Usage: {package} [ARGUMENTS]");
    if !program.devices.is_empty() {
        let _ = writeln!(out, "\nDevices:");
        let rows = program.devices.iter().map(|spec| {
            let optional = if spec.optional { ", optional" } else { "" };
            (format!("{} ({}{optional})", spec.name, spec.kind.as_str()), spec.help.to_string())
        });
        table(&mut out, rows.collect());
    }
    let _ = writeln!(out, "\nArguments:");
    let mut rows: Vec<(String, String)> = program
        .arguments
        .iter()
        .map(|spec| {
            let mut help = spec.help.to_string();
            if let Some(default) = spec.default {
                let _ = write!(help, " [default: {default}]");
            } else if !spec.optional {
                help.push_str(" [required]");
            }
            (format!("--{}=<{}>", spec.name, spec.ty), help)
        })
        .collect();
    rows.extend(settings.iter().map(|(name, help)| (format!("--{name}"), (*help).to_string())));
    rows.push(("--help".to_string(), "Print this text".to_string()));
    table(&mut out, rows);
    out
}

/// Two columns; the first as wide as its widest cell.
fn table(out: &mut String, rows: Vec<(String, String)>) {
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    for (left, right) in rows {
        let right = right.replace('\n', &format!("\n{:width$}", "", width = width + 4));
        let _ = writeln!(out, "  {left:width$}  {right}");
    }
}
