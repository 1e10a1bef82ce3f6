//! The console of a guest that somebody else created.

use std::path::PathBuf;
use std::time::Duration;

use crate::console_file::Follower;
use crate::control::POLL_INTERVAL;
use crate::error::{Error, Kind, Result};
use crate::guest;
use crate::host::{Testbed, check_interrupted};

/// How long dom0 may take to pass on what was typed.
const WRITE_TIME_MAX: Duration = Duration::from_secs(60);

/// How much of what a guest said before is shown, in bytes.
const PAST_BYTES_MAX: u64 = 64 << 10;

/// The console of a guest by name.
#[derive(Clone, Debug)]
pub struct Console {
    testbed: Testbed,
    name: String,
    file: PathBuf,
}

impl Testbed {
    /// The console of a guest that runs.
    ///
    /// # Errors
    /// When there is no such guest.
    pub fn console_of(&self, name: &str) -> Result<Console> {
        guest::check_name(name).map_err(|error| Error::new(Kind::Usage, error.to_string()))?;
        let names = self.names()?;
        if !names.iter().any(|found| found == name) {
            let what = format!("there is no guest {name} on {}", self.name());
            let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Error::new(Kind::Usage, what).help(format!("guests that run: {list}")));
        }
        let file = self.console_path(name);
        Ok(Console { testbed: self.clone(), name: name.to_owned(), file })
    }
}

impl Console {
    /// Types `bytes`.
    ///
    /// # Errors
    /// When the guest is gone, or dom0 does not answer.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let find = format!("$(xl domid {})", self.name);
        write(&self.testbed, &find, &self.name, bytes)
    }

    /// Hands over what the guest said lately, and then what it says, until it is gone.
    ///
    /// # Errors
    /// When the host is gone, or the console's file cannot be read.
    pub fn follow(&self, mut with: impl FnMut(&[u8])) -> Result<()> {
        let failed = |error| Error::io(format!("read {}", self.file.display()), &error);
        let length = self.file.metadata().map_or(0, |metadata| metadata.len());
        let past = length.saturating_sub(PAST_BYTES_MAX);
        let mut follower = Follower::new(&self.file, past);
        let list = self.testbed.host.control.share.join("domains");
        let mut seen = std::fs::read_to_string(&list).unwrap_or_default();
        let mut buffer = [0; 4096];
        loop {
            let length = follower.read(&mut buffer).map_err(failed)?;
            if length > 0 {
                with(&buffer[..length]);
                continue;
            }
            check_interrupted()?;
            self.testbed.host.control.check_alive()?;
            // Something ended: was it this one?
            let now = std::fs::read_to_string(&list).unwrap_or_default();
            if now != seen {
                if !now.lines().any(|line| line.split_whitespace().next() == Some(&self.name)) {
                    return Ok(());
                }
                seen = now;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Types `bytes` on the console of the domain whose number the shell's expression `id` is.
pub(crate) fn write(testbed: &Testbed, id: &str, name: &str, bytes: &[u8]) -> Result<()> {
    // Octal, so that no byte means anything to the shell.
    let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    let script = format!(
        "tty=$(xenstore-read /local/domain/{id}/console/tty) && [ -c \"$tty\" ] && \
         printf '{octal}' >\"$tty\""
    );
    let doing = format!("write to the console of {name}");
    testbed.dom0(&script, WRITE_TIME_MAX)?.check(&doing).map(drop)
}
