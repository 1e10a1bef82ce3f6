//! A network namespace with one TAP device: the wire between the load generator and a guest.
//!
//! The namespace has no name. It lives as long as the process that holds it, a `cat` that reads from a pipe of ours:
//! when this value is dropped, or when we die in whatever way, the pipe closes, `cat` ends, and the kernel removes
//! the namespace and the TAP device in it. There is nothing to clean up and nothing that could be left behind.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cancel;
use crate::process::{Owned, run_ok};

/// The TAP device that a guest is attached to.
pub(crate) const TAP: &str = "tap0";
/// Our end of the wire.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The guest's end of the wire.
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

const TOOL_LIMIT: Duration = Duration::from_secs(10);

/// The namespace.
#[derive(Debug)]
pub(crate) struct Lab {
    holder: Owned,
    as_root: bool,
}

impl Lab {
    /// Makes the namespace and brings the TAP device up.
    ///
    /// # Errors
    /// When the kernel refuses: an ordinary user needs unprivileged user namespaces.
    pub(crate) fn new() -> Result<Self> {
        let as_root = is_root()?;
        let mut command = Command::new("unshare");
        if !as_root {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--net", "--", "cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let holder = Owned::spawn(&mut command, "the namespace's holder")?;
        let mut lab = Self { holder, as_root };
        lab.wait_until_unshared()?;
        let host = format!("{HOST}/24");
        for arguments in [
            &["link", "set", "lo", "up"][..],
            &["tuntap", "add", "dev", TAP, "mode", "tap"],
            &["addr", "add", &host, "dev", TAP],
            &["link", "set", TAP, "up"],
        ] {
            let what = format!("ip {}", arguments.join(" "));
            run_ok(lab.command("ip").args(arguments), &what, TOOL_LIMIT).with_context(|| {
                let hint = if as_root { "" } else { "; /dev/net/tun may be root's: run as root" };
                format!("cannot make the TAP device{hint}")
            })?;
        }
        Ok(lab)
    }

    /// A command that runs `program` inside the namespace, as a direct child: its id is the program's.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        if !self.as_root {
            command.args(["--preserve-credentials", "--user"]);
        }
        command.args(["--net", "--target", &self.holder.id().to_string(), "--"]);
        // Inside, because entering a user namespace clears the signal.
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// `unshare` becomes `cat` only after it has left our namespace.
    fn wait_until_unshared(&mut self) -> Result<()> {
        let deadline = Instant::now() + TOOL_LIMIT;
        let path = format!("/proc/{}/comm", self.holder.id());
        loop {
            if let Some(status) = self.holder.ended()? {
                bail!(
                    "cannot make a network namespace (unshare: {status}); run as root, or allow \
                     unprivileged user namespaces"
                );
            }
            if std::fs::read_to_string(&path).is_ok_and(|name| name.trim() == "cat") {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the network namespace was not made within {} s", TOOL_LIMIT.as_secs());
            }
            cancel::sleep(cancel::STEP)?;
        }
    }
}

/// Whether we run as root, by the owner of our own entry in `/proc`.
pub(crate) fn is_root() -> Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let owner = std::fs::metadata(Path::new("/proc/self")).context("cannot look at /proc/self")?;
    Ok(owner.uid() == 0)
}
