//! Programs of this computer, run to their end.

use std::process::Command;

use crate::error::{Error, Kind, Result};

/// Runs `command` and returns what it printed. `doing` completes "cannot …".
pub(crate) fn output(command: &mut Command, kind: Kind, doing: &str) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| cannot_start(&name, doing, &error))?;
    if !output.status.success() {
        let what = format!("cannot {doing}: {name} ended with {}", output.status);
        return Err(Error::new(kind, what).note(String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The error of a program that does not even start.
pub(crate) fn cannot_start(name: &str, doing: &str, error: &std::io::Error) -> Error {
    if error.kind() != std::io::ErrorKind::NotFound {
        return Error::io(format!("{doing}: start {name}"), error);
    }
    let what = format!("cannot {doing}: {name} is not installed");
    let help = match name {
        "apt-cache" | "apt-get" | "dpkg-deb" => {
            "the Xen host is made of Debian's packages, through apt: use Debian, or a chroot of it"
        }
        "qemu-system-x86_64" => "apt-get install qemu-system-x86",
        "setpriv" => "apt-get install util-linux",
        _ => "install it",
    };
    Error::new(Kind::Tool, what).help(help)
}
