//! [`Watch`]: hears of changes of a key.

use super::Store;
use crate::XenError;
use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll};
use fata_shared::interrupt::Line;
use fata_xenbus::store::{Kind, StoreError, WatchToken};

/// Hears of changes of a key and of all below it; taken away when it is dropped.
///
/// It says only "look again": changes that come before anybody looks are one, and there may have
/// been none. It says so once at the beginning, and after the machine was suspended.
pub struct Watch {
    store: Store,
    path: String,
    token: WatchToken,
    line: Line,
}

impl Store {
    /// Watches a key, which need not exist, and all below it; or `@introduceDomain` and
    /// `@releaseDomain`, for domains that come and go.
    ///
    /// # Errors
    /// xenstored's refusal (`E2BIG` above its quota of 128 watches of a guest), or the connection's
    /// end.
    pub async fn watch(&self, path: &str) -> Result<Watch, XenError> {
        let refused = |error| XenError::store(Kind::Watch, path, error);
        let room = self.room().await;
        let (token, line, answer) =
            self.with(|connection| connection.watch(path, room)).map_err(refused)?;
        // From here on a drop takes it away.
        let watch = Watch { store: self.clone(), path: path.to_owned(), token, line };
        match self.receive(answer).await {
            // Suspended before the answer, and set again since.
            Ok(_) | Err(StoreError::Interrupted) => Ok(watch),
            Err(error) => Err(refused(error)),
        }
    }
}

impl Watch {
    /// What is watched.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Waits until something may have changed since this was last asked.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn next(&mut self) -> Result<(), XenError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Watch::next). Only the last task that polled is woken.
    ///
    /// # Errors
    /// The connection is over.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), XenError>> {
        if self.line.poll_fired(cx).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(match self.store.broken() {
            None => Ok(()),
            Some(error) => {
                // For whoever asks again.
                self.line.fire();
                Err(XenError::store(Kind::Watch, &self.path, error))
            }
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.store.with(|connection| connection.unwatch(self.token));
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("path", &self.path).finish_non_exhaustive()
    }
}
