//! [`Transaction`]: several reads and writes that happen at once or not at all.

use super::connection::Answer;
use super::{Store, absent_is_fine, malformed, room};
use crate::XenError;
use core::fmt;
use fata_xenbus::store::{Errno, Kind, Permission, Reply, Request, StoreError, TransactionId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// How often a transaction that others disturb is tried. Somebody made progress each time, and a
/// device's keys are written a few dozen times in its life: nobody has this much bad luck.
const ATTEMPTS_MAX: u32 = 64;

/// An open transaction. Dropping it forgets what was written.
pub struct Transaction {
    store: Store,
    /// [`TransactionId::NONE`] once it has ended.
    id: TransactionId,
    /// The machine's suspensions before it was opened: after another one the number may be
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
                Ok(Transaction { store: self.clone(), id, suspensions, _room: room })
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
    pub async fn transaction<T>(
        &self,
        mut body: impl AsyncFnMut(&Transaction) -> Result<T, XenError>,
    ) -> Result<T, XenError> {
        for _ in 0..ATTEMPTS_MAX {
            let attempt = async {
                let transaction = self.begin().await?;
                let result = body(&transaction).await?;
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
        self.store.read_in(self.id, path).await
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
        self.store.read_each_in(self.id, paths).await
    }

    /// As [`Store::write`], in the transaction.
    ///
    /// # Errors
    /// As there.
    pub async fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<(), XenError> {
        self.check(Kind::Write, path)?;
        let request = Request::Write(path, value.as_ref());
        self.store.request(self.id, path, request).await.map(drop)
    }

    /// As [`Store::remove`], in the transaction.
    ///
    /// # Errors
    /// As there.
    pub async fn remove(&self, path: &str) -> Result<(), XenError> {
        self.check(Kind::Remove, path)?;
        absent_is_fine(self.store.request(self.id, path, Request::Remove(path)).await)
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
        self.store.request(self.id, path, request).await.map(drop)
    }

    /// Sends a request and does not wait for its answer: for several that go together.
    pub(crate) async fn send(
        &self,
        request: &Request<'_>,
    ) -> Result<oneshot::Receiver<Answer>, StoreError> {
        self.alive()?;
        self.store.send(self.id, request).await
    }

    fn alive(&self) -> Result<(), StoreError> {
        let same = self.suspensions == self.store.suspensions();
        if same { Ok(()) } else { Err(StoreError::Interrupted) }
    }

    fn check(&self, request: Kind, path: &str) -> Result<(), XenError> {
        self.alive().map_err(|error| XenError::store(request, path, error))
    }

    /// Commits: all that was written is there at once, or nothing.
    ///
    /// # Errors
    /// xenstored's refusal, or the connection's end. Nothing was written then, unless the error is
    /// [`StoreError::Interrupted`].
    pub async fn commit(mut self) -> Result<Commit, XenError> {
        let answer = self.send(&Request::TransactionEnd(true)).await;
        let answer = match answer {
            Ok(answer) => {
                // Sent: there is nothing left to forget, whatever becomes of this future.
                self.id = TransactionId::NONE;
                self.store.receive(answer).await
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

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.id != TransactionId::NONE && self.alive().is_ok() {
            self.store.with(|connection| connection.forget_transaction(self.id));
        }
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transaction({})", self.id.0)
    }
}
