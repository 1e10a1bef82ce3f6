//! [`Store`]: XenStore for the rest of the machine.
//!
//! Requests are written to the ring by whoever makes them, and their answers are handed out by one
//! task, which [`Xen::start`](crate::Xen::start) returns. A future that is dropped loses its answer
//! and nothing else: the request is carried out, a transaction that it opened is closed, a watch
//! that it set is taken away.

mod connection;
mod transaction;
mod watch;

pub use fata_xenbus::store::client::Counters as StoreCounters;
pub use fata_xenbus::store::{Access, Errno, Permission, StoreError};
pub use transaction::{Commit, Transaction};
pub use watch::Watch;

use crate::XenError;
use connection::{Answer, Connection};
use core::fmt;
use core::future::poll_fn;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use fata_hypercall::{EventChannel, SpecialPage};
use fata_xenbus::Instant;
use fata_xenbus::store::{Kind, Limits, Misbehaved, Reply, Request, TransactionId};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{
    Notify, OwnedRwLockReadGuard, OwnedSemaphorePermit, RwLock, Semaphore, oneshot, watch as value,
};

/// Requests without an answer, of the whole machine: further ones wait for their turn. Each may
/// take 4112 bytes until xenstored has read it.
const REQUESTS_MAX: u32 = 64;
/// Transactions open at a time, of the whole machine: two fewer than xenstored's quota of ten for
/// a guest, for those whose end is on its way.
const TRANSACTIONS_MAX: usize = 8;
/// Bytes of names that a directory may have: two thousand guests' worth of device directories.
const DIRECTORY_BYTES_MAX: usize = 128 * 1024;
/// How often a directory that changes while its parts are read is begun again.
const DIRECTORY_ATTEMPTS_MAX: u32 = 16;
/// How long xenstored may take to answer what is under way before the machine is suspended: it is
/// what the tools wait for, too.
const QUIESCE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to xenstored. Clones are the same connection.
///
/// Paths that do not begin with a slash begin at this domain's own directory, `/local/domain/<id>`.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Mutex<Connection>,
    requests: Arc<Semaphore>,
    transactions: Arc<Semaphore>,
    began: tokio::time::Instant,
    /// How often devices gave up their rings for a suspension.
    suspensions: AtomicU64,
    /// Told when nothing is on its way.
    idle: Notify,
    /// True while the machine is about to be suspended.
    freezing: value::Sender<bool>,
    /// Read by every handshake whose device may have rings, written by a suspension.
    thawed: Arc<RwLock<()>>,
}

impl Store {
    /// A connection over xenstored's page.
    pub(crate) fn new(page: SpecialPage, event: EventChannel) -> Self {
        let limits = Limits { requests: REQUESTS_MAX as usize, ..Limits::default() };
        let inner = Inner {
            connection: Mutex::new(Connection::new(page, event, limits)),
            requests: Arc::new(Semaphore::new(REQUESTS_MAX as usize)),
            transactions: Arc::new(Semaphore::new(TRANSACTIONS_MAX)),
            began: tokio::time::Instant::now(),
            suspensions: AtomicU64::new(0),
            idle: Notify::new(),
            freezing: value::Sender::new(false),
            thawed: Arc::default(),
        };
        Store { inner: Arc::new(inner) }
    }

    /// Hands out answers until the connection is over.
    pub(crate) async fn serve(self) {
        while self.broken().is_none() {
            let line = self.with(|connection| connection.line());
            poll_fn(|cx| line.poll_fired(cx)).await;
            self.with(|_| ());
        }
    }

    /// Does something with the connection, moves bytes, and wakes whom that concerns.
    fn with<T>(&self, act: impl FnOnce(&mut Connection) -> T) -> T {
        let lock = || self.inner.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let (result, mut wakeups, is_idle) = {
            let mut connection = lock();
            let result = act(&mut connection);
            let wakeups = connection.pump();
            (result, wakeups, connection.is_idle())
        };
        if is_idle {
            self.inner.idle.notify_waiters();
        }
        loop {
            let orphans = wakeups.deliver();
            if orphans.is_empty() {
                return result;
            }
            let mut connection = lock();
            orphans.into_iter().for_each(|id| connection.forget_transaction(id));
            wakeups = connection.pump();
        }
    }

    /// Room for a request, as soon as there is.
    async fn room(&self) -> OwnedSemaphorePermit {
        room(&self.inner.requests).await
    }

    /// Sends a request; its answer comes through the receiver.
    async fn send(
        &self,
        transaction: TransactionId,
        request: &Request<'_>,
    ) -> Result<oneshot::Receiver<Answer>, StoreError> {
        let room = self.room().await;
        self.with(|connection| connection.submit(transaction, request, room))
    }

    async fn receive(&self, answer: oneshot::Receiver<Answer>) -> Answer {
        // The sender goes without a word only when the connection does.
        answer.await.unwrap_or(Err(StoreError::Interrupted))
    }

    async fn ask(&self, transaction: TransactionId, request: &Request<'_>) -> Answer {
        let answer = self.send(transaction, request).await?;
        self.receive(answer).await
    }

    /// As [`ask`](Store::ask), with an error that names request and path.
    async fn request(
        &self,
        transaction: TransactionId,
        path: &str,
        request: Request<'_>,
    ) -> Result<Reply, XenError> {
        let kind = request.kind();
        self.ask(transaction, &request).await.map_err(|error| XenError::store(kind, path, error))
    }

    /// The value of a key; `None` if the key does not exist.
    ///
    /// # Errors
    /// xenstored's refusal (`EACCES` for a key that this domain may not read), or the connection's
    /// end.
    pub async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, XenError> {
        self.read_in(TransactionId::NONE, path).await
    }

    async fn read_in(
        &self,
        transaction: TransactionId,
        path: &str,
    ) -> Result<Option<Vec<u8>>, XenError> {
        match self.request(transaction, path, Request::Read(path)).await {
            Ok(Reply::Value(value)) => Ok(Some(value)),
            Ok(_) => Err(malformed(Kind::Read, path)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The value of a key as text; `None` if the key does not exist.
    ///
    /// # Errors
    /// As [`read`](Store::read), and [`XenError::BadKey`] if the value is not UTF-8.
    pub async fn read_text(&self, path: &str) -> Result<Option<String>, XenError> {
        let Some(value) = self.read(path).await? else { return Ok(None) };
        let bad = |_| XenError::BadKey { path: path.to_owned(), why: "not text" };
        String::from_utf8(value).map(Some).map_err(bad)
    }

    /// Several keys, asked for together and answered in order: one trip to xenstored and back.
    ///
    /// # Errors
    /// Of the first that failed; a key that does not exist is no failure.
    pub async fn read_all(&self, paths: &[String]) -> Result<Vec<Option<Vec<u8>>>, XenError> {
        self.read_each(paths).await?.into_iter().collect()
    }

    /// As [`read_all`](Store::read_all), with each key's own result.
    pub(crate) async fn read_each(
        &self,
        paths: &[String],
    ) -> Result<Vec<Result<Option<Vec<u8>>, XenError>>, XenError> {
        self.read_each_in(TransactionId::NONE, paths).await
    }

    async fn read_each_in(
        &self,
        transaction: TransactionId,
        paths: &[String],
    ) -> Result<Vec<Result<Option<Vec<u8>>, XenError>>, XenError> {
        let mut answers = Vec::with_capacity(paths.len());
        for path in paths {
            let sent = self.send(transaction, &Request::Read(path)).await;
            answers.push(sent.map_err(|error| XenError::store(Kind::Read, path, error))?);
        }
        let mut values = Vec::with_capacity(paths.len());
        for (path, answer) in paths.iter().zip(answers) {
            values.push(match self.receive(answer).await {
                Ok(Reply::Value(value)) => Ok(Some(value)),
                Ok(_) => Err(malformed(Kind::Read, path)),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(XenError::store(Kind::Read, path, error)),
            });
        }
        Ok(values)
    }

    /// Sets a key's value; makes the key, and its parents, if there is none.
    ///
    /// # Errors
    /// xenstored's refusal, or the connection's end.
    pub async fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<(), XenError> {
        let request = Request::Write(path, value.as_ref());
        self.request(TransactionId::NONE, path, request).await.map(drop)
    }

    /// Makes a key with an empty value, unless it exists.
    ///
    /// # Errors
    /// As [`write`](Store::write).
    pub async fn make_directory(&self, path: &str) -> Result<(), XenError> {
        self.request(TransactionId::NONE, path, Request::MakeDirectory(path)).await.map(drop)
    }

    /// Removes a key and all below it. One that does not exist is removed already.
    ///
    /// # Errors
    /// As [`write`](Store::write).
    pub async fn remove(&self, path: &str) -> Result<(), XenError> {
        absent_is_fine(self.request(TransactionId::NONE, path, Request::Remove(path)).await)
    }

    /// The names of a key's children, in xenstored's order; none if the key does not exist.
    ///
    /// # Errors
    /// xenstored's refusal, the connection's end, or [`XenError::DirectoryTooLong`].
    pub async fn list(&self, path: &str) -> Result<Vec<String>, XenError> {
        match self.request(TransactionId::NONE, path, Request::Directory(path)).await {
            Ok(Reply::Names(names)) => Ok(names),
            Ok(_) => Err(malformed(Kind::Directory, path)),
            Err(XenError::Store { error: StoreError::Refused(Errno::TooBig), .. }) => {
                self.list_in_parts(path).await
            }
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn list_in_parts(&self, path: &str) -> Result<Vec<String>, XenError> {
        let too_long = || XenError::DirectoryTooLong { path: path.to_owned() };
        'attempt: for _ in 0..DIRECTORY_ATTEMPTS_MAX {
            let (mut all, mut offset, mut first) = (Vec::new(), 0_u32, None);
            while (offset as usize) < DIRECTORY_BYTES_MAX {
                let request = Request::DirectoryPart(path, offset);
                let reply = self.request(TransactionId::NONE, path, request).await?;
                let Reply::NamesPart { generation, names, bytes, last } = reply else {
                    return Err(malformed(Kind::DirectoryPart, path));
                };
                if *first.get_or_insert(generation) != generation {
                    continue 'attempt;
                }
                all.extend(names);
                if last {
                    return Ok(all);
                }
                offset = offset.saturating_add(bytes);
            }
            return Err(too_long());
        }
        Err(too_long())
    }

    /// Who may do what to a key.
    ///
    /// # Errors
    /// xenstored's refusal, or the connection's end.
    pub async fn permissions(&self, path: &str) -> Result<Vec<Permission>, XenError> {
        let request = Request::GetPermissions(path);
        match self.request(TransactionId::NONE, path, request).await? {
            Reply::Permissions(permissions) => Ok(permissions),
            _ => Err(malformed(Kind::GetPermissions, path)),
        }
    }

    /// Says who may do what to a key: the first entry names its owner (who may do everything) and
    /// what all others may, each further one what one domain may.
    ///
    /// # Errors
    /// xenstored's refusal, or the connection's end.
    pub async fn set_permissions(
        &self,
        path: &str,
        permissions: &[Permission],
    ) -> Result<(), XenError> {
        let request = Request::SetPermissions(path, permissions.to_vec());
        self.request(TransactionId::NONE, path, request).await.map(drop)
    }

    /// This domain's number, as XenStore knows it.
    ///
    /// # Errors
    /// xenstored's refusal, the connection's end, or a key that holds no number.
    pub async fn domain(&self) -> Result<u16, XenError> {
        let bad = || XenError::BadKey { path: "domid".to_owned(), why: "not a domain's number" };
        let text = self.read_text("domid").await?.ok_or_else(bad)?;
        text.parse().map_err(|_| bad())
    }

    /// The time, as the machines of [`fata_xenbus::handshake`] count it: since the connection began.
    pub fn now(&self) -> Instant {
        let nanos = self.inner.began.elapsed().as_nanos();
        Instant(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When a time of [`now`](Store::now) is for tokio.
    pub(crate) fn when(&self, instant: Instant) -> tokio::time::Instant {
        let now = tokio::time::Instant::now();
        // A deadline too far away to be said is as good as a year.
        let year = Duration::from_secs(365 * 24 * 3600);
        let at = self.inner.began.checked_add(Duration::from_nanos(instant.0));
        at.unwrap_or(now + year).min(now + year)
    }

    /// Why the connection is over; `None` while it is not.
    pub fn broken(&self) -> Option<Misbehaved> {
        self.with(|connection| connection.broken())
    }

    /// What the connection has seen.
    pub fn counters(&self) -> StoreCounters {
        self.with(|connection| connection.counters())
    }

    /// Waits until nothing is on its way to or from xenstored, and lets nobody begin anything until
    /// the result is dropped.
    ///
    /// # Errors
    /// xenstored has not answered everything within five seconds.
    pub(crate) async fn quiesce(&self) -> Result<OwnedSemaphorePermit, XenError> {
        let all = async {
            let semaphore = self.inner.requests.clone();
            let rooms = semaphore.acquire_many_owned(REQUESTS_MAX).await;
            let rooms = rooms.expect("the semaphore is never closed");
            // What nobody waits for (the ends of watches and of transactions) takes no room.
            loop {
                let idle = self.inner.idle.notified();
                if self.with(|connection| connection.is_idle()) {
                    return rooms;
                }
                idle.await;
            }
        };
        let silent = || XenError::Device("xenstored does not answer".to_owned());
        tokio::time::timeout(QUIESCE_TIMEOUT, all).await.map_err(|_| silent())
    }

    /// Suspends the machine by `suspend`, whose result says whether to begin the connection again,
    /// and over which page.
    ///
    /// First every handshake's device gives up its rings, and then nothing is asked of XenStore any
    /// more; afterwards, however it went, each handshake hears of it and begins anew.
    pub(crate) async fn around_suspension<T>(
        &self,
        suspend: impl FnOnce() -> (T, Option<Option<(SpecialPage, EventChannel)>>),
    ) -> Result<T, XenError> {
        let inner = &self.inner;
        inner.freezing.send_replace(true);
        let result = async {
            let no_device = tokio::time::timeout(QUIESCE_TIMEOUT, inner.thawed.write());
            let slow = |_| XenError::Device("a device does not let go of its rings".to_owned());
            let no_device = no_device.await.map_err(slow)?;
            let no_request = self.quiesce().await?;
            let (result, connection) = suspend();
            self.with(|connected| {
                // Before the watches fire: who is woken by one asks for it.
                inner.suspensions.fetch_add(1, Ordering::Release);
                if let Some(new) = connection {
                    connected.reconnect(new);
                }
            });
            drop((no_request, no_device));
            Ok(result)
        };
        let result = result.await;
        inner.freezing.send_replace(false);
        result
    }

    /// Tells a handshake when to give its rings up, see [`Thawed`].
    pub(crate) async fn thawed(&self) -> Thawed {
        let signal = self.inner.freezing.subscribe();
        let guard = self.inner.thawed.clone().read_owned().await;
        Thawed { signal, lock: self.inner.thawed.clone(), guard: Some(guard) }
    }

    /// How often the machine was suspended, or nearly: what was connected before is not any more.
    pub(crate) fn suspensions(&self) -> u64 {
        self.inner.suspensions.load(Ordering::Acquire)
    }
}

/// A handshake's permission to have rings.
pub(crate) struct Thawed {
    signal: value::Receiver<bool>,
    lock: Arc<RwLock<()>>,
    guard: Option<OwnedRwLockReadGuard<()>>,
}

impl Thawed {
    /// Waits until the machine is about to be suspended.
    pub(crate) async fn freezing(&mut self) {
        // The sender lives as long as the store, which the handshake has.
        let _ = self.signal.wait_for(|freezing| *freezing).await;
    }

    /// The rings are given up: waits until the machine goes on.
    pub(crate) async fn thaw(&mut self) {
        self.guard = None;
        let _ = self.signal.wait_for(|freezing| !*freezing).await;
        self.guard = Some(self.lock.clone().read_owned().await);
    }
}

/// Room in a semaphore, as soon as there is.
async fn room(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.clone().acquire_owned().await.expect("the semaphore is never closed")
}

fn malformed(kind: Kind, path: &str) -> XenError {
    XenError::store(kind, path, StoreError::MalformedReply { kind })
}

fn absent_is_fine<T>(result: Result<T, XenError>) -> Result<(), XenError> {
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
