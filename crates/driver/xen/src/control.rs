//! What the host asks of a guest through XenStore: to end, to suspend, to need less memory.

use crate::store::Watch;
use crate::{Xen, XenError};

/// Where the tools write what they want (`docs/misc/xenstore-paths.pandoc`).
const SHUTDOWN: &str = "control/shutdown";
/// What the tools may ask, and the key that says so.
const FEATURES: [&str; 3] =
    ["control/feature-poweroff", "control/feature-reboot", "control/feature-suspend"];
const TARGET: &str = "memory/target";

/// What the tools want of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShutdownRequest {
    /// End: `xl shutdown`.
    Poweroff,
    /// End, to be started again: `xl reboot`.
    Reboot,
    /// End without switching off; for a guest without a power switch the same as `Poweroff`.
    Halt,
    /// Suspend: `xl save`, `xl migrate`. See [`Xen::suspend`].
    Suspend,
}

impl ShutdownRequest {
    /// What the key's value means; `None` for what this guest does not do.
    fn parse(value: &[u8]) -> Option<Self> {
        match value {
            b"poweroff" => Some(ShutdownRequest::Poweroff),
            b"reboot" => Some(ShutdownRequest::Reboot),
            b"halt" => Some(ShutdownRequest::Halt),
            b"suspend" => Some(ShutdownRequest::Suspend),
            _ => None,
        }
    }
}

/// The tools' requests to end, as they come.
#[derive(Debug)]
pub struct ShutdownRequests {
    xen: Xen,
    watch: Watch,
    /// The machine's restorations after which the tools were told what it does.
    offered: u64,
}

impl Xen {
    /// Tells the tools that this guest ends and suspends when asked, and hears of it when they ask.
    ///
    /// # Errors
    /// XenStore's.
    pub async fn shutdown_requests(&self) -> Result<ShutdownRequests, XenError> {
        let watch = self.store().watch(SHUTDOWN).await?;
        let offered = self.store().suspensions();
        self.offer().await?;
        Ok(ShutdownRequests { xen: self.clone(), watch, offered })
    }

    async fn offer(&self) -> Result<(), XenError> {
        for feature in FEATURES {
            match self.store().write(feature, "1").await {
                // Tools that do not know the key did not let us write it.
                Err(XenError::Store { error: crate::store::StoreError::Refused(_), .. }) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// How much memory the tools want this guest to have.
    ///
    /// # Errors
    /// XenStore's.
    pub async fn balloon(&self) -> Result<Balloon, XenError> {
        let watch = self.store().watch(TARGET).await?;
        Ok(Balloon { xen: self.clone(), watch, reported: None })
    }
}

impl ShutdownRequests {
    /// The next request, which was acknowledged: the tools know that somebody has heard it. What
    /// this guest does not do is acknowledged as well, and not reported.
    ///
    /// # Errors
    /// XenStore's.
    pub async fn next(&mut self) -> Result<ShutdownRequest, XenError> {
        loop {
            self.watch.next().await?;
            let suspensions = self.xen.store().suspensions();
            if self.offered != suspensions {
                self.xen.offer().await?;
                self.offered = suspensions;
            }
            if let Some(request) = self.take().await? {
                return Ok(request);
            }
        }
    }

    /// Takes the request out of the key: whoever sees it empty knows that it was heard.
    async fn take(&self) -> Result<Option<ShutdownRequest>, XenError> {
        let value = self
            .xen
            .store()
            .transaction(async |transaction| {
                let value = transaction.read(SHUTDOWN).await?.unwrap_or_default();
                if !value.is_empty() {
                    transaction.write(SHUTDOWN, "").await?;
                }
                Ok(value)
            })
            .await?;
        Ok(ShutdownRequest::parse(&value))
    }
}

/// How much memory the tools want this guest to have: `xl mem-set`. Reported, and not obeyed: a
/// guest of a few megabytes has nothing to give back.
#[derive(Debug)]
pub struct Balloon {
    xen: Xen,
    watch: Watch,
    reported: Option<u64>,
}

impl Balloon {
    /// Waits until the target differs from what this last said, and says it, in KiB.
    ///
    /// # Errors
    /// XenStore's, or [`XenError::BadKey`].
    pub async fn next_target_kib(&mut self) -> Result<u64, XenError> {
        loop {
            self.watch.next().await?;
            let Some(text) = self.xen.store().read_text(TARGET).await? else { continue };
            let bad = |_| XenError::BadKey { path: TARGET.to_owned(), why: "not a number of KiB" };
            let target = text.trim().parse().map_err(bad)?;
            if self.reported.replace(target) != Some(target) {
                return Ok(target);
            }
        }
    }
}

#[cfg(test)]
mod tests;
