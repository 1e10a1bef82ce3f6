//! [`Transaction`]: several reads and writes that happen at once or not at all.

use super::connection::Answer;
use super::{Store, absent_is_fine, malformed, room};
use crate::XenError;
use core::fmt;
use core::future::Future;
use core::sync::atomic::{AtomicBool, Ordering};
use fata_xenbus::store::{Errno, Kind, Permission, Reply, Request, StoreError, TransactionId};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// How often a transaction that others disturb is tried. Somebody made progress each time, and a
/// device's keys are written a few dozen times in its life: nobody has this much bad luck.
const ATTEMPTS_MAX: u32 = 64;

/// An open transaction. Clones are the same transaction; dropping the last forgets what was
/// written.
#[derive(Clone)]
pub struct Transaction {
    open: Arc<Open>,
}

struct Open {
    store: Store,
    id: TransactionId,
    /// The end has been sent: there is nothing left to forget.
    has_ended: AtomicBool,
    /// The machine's restorations before it was opened: after another one the number may be
    /// somebody else's.
    suspensions: u64,
    _room: OwnedSemaphorePermit,
}

/// A transaction that xenstored is asked to open. If nobody waits any more when it is open, it is
/// closed: a guest may have only ten.
struct Opening {
    store: Store,
    answer: oneshot::Receiver<Answer>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.answer.close();
        if let Ok(Ok(Reply::Transaction(id))) = self.answer.try_recv() {
            self.store.with(|connection| connection.forget_transaction(id));
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Commit {
    /// All that was written is there.
    Done,
    /// Others changed what was read or written (`EAGAIN`): nothing of it is there. Begin again.
    Again,
}

impl Store {
    /// Opens a transaction, when fewer than eight are open in this machine.
    ///
    /// # Errors
    /// xenstored's refusal, or the connection's end.
    pub async fn begin(&self) -> Result<Transaction, XenError> {
        let failed = |error| XenError::store(Kind::TransactionStart, "", error);
        let room = room(&self.inner.transactions).await;
        let answer = self.send(TransactionId::NONE, &Request::TransactionStart).await;
        let mut opening = Opening { store: self.clone(), answer: answer.map_err(failed)? };
        let suspensions = self.suspensions();
        match (&mut opening.answer).await.unwrap_or(Err(StoreError::Interrupted)) {
            Ok(Reply::Transaction(id)) => {
                let (store, has_ended) = (self.clone(), AtomicBool::new(false));
                let open = Open { store, id, has_ended, suspensions, _room: room };
                Ok(Transaction { open: Arc::new(open) })
            }
            Ok(_) => Err(malformed(Kind::TransactionStart, "")),
            Err(error) => Err(failed(error)),
        }
    }

    /// Runs `body` in a transaction and commits it; again from the beginning while other domains
    /// change the same keys. An error of `body` ends it, and nothing was written.
    ///
    /// # Errors
    /// What `body` failed with, xenstored's refusal, [`XenError::TransactionConflicts`] after 64
    /// attempts, or the connection's end.
    ///
    /// # Notes
    /// (`body` gets a clone, for with a reference the future of this could not be sent to another
    /// thread: stable Rust cannot say so of asynchronous closures.)
    pub async fn transaction<T, F>(
        &self,
        mut body: impl FnMut(Transaction) -> F,
    ) -> Result<T, XenError>
    where
        F: Future<Output = Result<T, XenError>>,
    {
        for _ in 0..ATTEMPTS_MAX {
            let attempt = async {
                let transaction = self.begin().await?;
                let result = body(transaction.clone()).await?;
                Ok((result, transaction.commit().await?))
            };
            match attempt.await {
                Ok((result, Commit::Done)) => return Ok(result),
                Ok((_, Commit::Again)) => {}
                Err(XenError::Store {
                    error: StoreError::Refused(Errno::Again) | StoreError::Interrupted,
                    ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(XenError::TransactionConflicts { attempts: ATTEMPTS_MAX })
    }
}

impl Transaction {
    /// As [`Store::read`], in the transaction.
    ///
    /// # Errors
    /// As there.
    pub async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, XenError> {
        self.check(Kind::Read, path)?;
        self.open.store.read_in(self.open.id, path).await
    }

    /// As [`Store::read_all`], in the transaction.
    ///
    /// # Errors
    /// As there.
    pub async fn read_all(&self, paths: &[String]) -> Result<Vec<Option<Vec<u8>>>, XenError> {
        self.read_each(paths).await?.into_iter().collect()
    }

    /// As [`read_all`](Transaction::read_all), with each key's own result.
    pub(crate) async fn read_each(
        &self,
        paths: &[String],
    ) -> Result<Vec<Result<Option<Vec<u8>>, XenError>>, XenError> {
        self.check(Kind::Read, "")?;
        self.open.store.read_each_in(self.open.id, paths).await
    }

    /// As [`Store::write`], in the transaction.
    ///
    /// # Errors
    /// As there.
    pub async fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<(), XenError> {
        self.check(Kind::Write, path)?;
        let request = Request::Write(path, value.as_ref());
        self.open.store.request(self.open.id, path, request).await.map(drop)
    }

    /// As [`Store::remove`], in the transaction.
    ///
    /// # Errors
    /// As there.
    pub async fn remove(&self, path: &str) -> Result<(), XenError> {
        self.check(Kind::Remove, path)?;
        absent_is_fine(self.open.store.request(self.open.id, path, Request::Remove(path)).await)
    }

    /// As [`Store::set_permissions`], in the transaction.
    ///
    /// # Errors
    /// As there.
    pub async fn set_permissions(
        &self,
        path: &str,
        permissions: &[Permission],
    ) -> Result<(), XenError> {
        self.check(Kind::SetPermissions, path)?;
        let request = Request::SetPermissions(path, permissions.to_vec());
        self.open.store.request(self.open.id, path, request).await.map(drop)
    }

    /// Sends a request and does not wait for its answer: for several that go together.
    pub(crate) async fn send(
        &self,
        request: &Request<'_>,
    ) -> Result<oneshot::Receiver<Answer>, StoreError> {
        self.alive()?;
        self.open.store.send(self.open.id, request).await
    }

    fn alive(&self) -> Result<(), StoreError> {
        if self.open.suspensions != self.open.store.suspensions() {
            Err(StoreError::Interrupted)
        } else if self.open.has_ended.load(Ordering::Relaxed) {
            Err(StoreError::Refused(Errno::Invalid))
        } else {
            Ok(())
        }
    }

    fn check(&self, request: Kind, path: &str) -> Result<(), XenError> {
        self.alive().map_err(|error| XenError::store(request, path, error))
    }

    /// Commits: all that was written is there at once, or nothing. Other clones are good for
    /// nothing afterwards.
    ///
    /// # Errors
    /// xenstored's refusal, or the connection's end. Nothing was written then, unless the error is
    /// [`StoreError::Interrupted`].
    pub async fn commit(self) -> Result<Commit, XenError> {
        let answer = match self.send(&Request::TransactionEnd(true)).await {
            Ok(answer) => {
                self.open.has_ended.store(true, Ordering::Relaxed);
                self.open.store.receive(answer).await
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(_) => Ok(Commit::Done),
            Err(StoreError::Refused(Errno::Again)) => Ok(Commit::Again),
            Err(error) => Err(XenError::store(Kind::TransactionEnd, "", error)),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let is_open = !*self.has_ended.get_mut();
        if is_open && self.suspensions == self.store.suspensions() {
            self.store.with(|connection| connection.forget_transaction(self.id));
        }
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transaction({})", self.open.id.0)
    }
}
