//! The runner: carries out what the machines of [`fata_xenbus::handshake`] decide.
//!
//! Every decision about XenStore is a machine's, so that the testkit can run the machine through
//! every order of events. What is left here is to do as told: watches, reads and transactions go to
//! the [`Store`], rings are the [`Device`]'s, deadlines are tokio's. A driver spawns [`run`] as a
//! task and keeps the other half of its [`Device`].

use crate::XenError;
use crate::store::{Access, Commit, Errno, Permission, Store, StoreError, Thawed, Watch};
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use fata_xenbus::Instant;
use fata_xenbus::handshake::{
    Change, Command, Ending, Handshake, HandshakeError, Input, Outcome, Reason, Transaction,
};
use fata_xenbus::store::{Kind, Request};
use std::collections::HashMap;

/// A driver's part of a handshake: its rings.
///
/// For one device there may be several rounds, each after the other end came anew: `make_rings`,
/// then `connect` and `disconnect`, then `release`. Each `make_rings` that succeeded has one
/// `release`, each `connect` one `disconnect` before it; unless the task is dropped, and the device
/// with it.
pub(crate) trait Device: Send {
    /// What the rings must be like.
    type Wanted: Send;
    /// What the other end must learn of them.
    type Made: Send;
    /// What was agreed on.
    type Settings: Send;

    /// Makes the rings (a frontend: allocates and grants) or attaches to the other end's (a
    /// backend: maps and binds). Nothing is transmitted yet.
    ///
    /// # Errors
    /// In words, for the text of the device's error.
    fn make_rings(&mut self, wanted: Self::Wanted) -> Result<Self::Made, String>;

    /// Both ends are there: the device is live. The other end may have begun already.
    fn connect(&mut self, settings: Self::Settings);

    /// The device is no longer live: the rings are not touched any more.
    fn disconnect(&mut self, reason: &Reason);

    /// Gives the rings up.
    fn release(&mut self);

    /// The other end was refused, and the device waits for its next life (backends only).
    fn report(&mut self, error: &HandshakeError);

    /// What the data path has to say; not asked again after [`DeviceEvent::Close`].
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<DeviceEvent>;
}

/// What happened to a device's data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeviceEvent {
    /// The other end broke a rule of the rings, in words.
    Fault(String),
    /// The device is not wanted any more.
    Close,
}

/// Runs a handshake, which `machine` begins, until the device has ended.
///
/// If the connection to XenStore is lost, a device that is live stays so until it is closed: it
/// needs XenStore for nothing but its end.
///
/// # Errors
/// The handshake's, or the loss of the connection to XenStore.
pub(crate) async fn run<H, D>(
    store: Store,
    machine: impl FnOnce(Instant) -> H,
    device: D,
) -> Result<Ending, XenError>
where
    H: Handshake<Wanted = D::Wanted, Made = D::Made, Settings = D::Settings>,
    D: Device,
{
    let thawed = store.thawed().await;
    let machine = machine(store.now());
    let suspensions = store.suspensions();
    let watches = HashMap::new();
    let (has_rings, is_live, is_closing) = (false, false, false);
    let mut runner = Runner {
        store,
        machine,
        device,
        watches,
        thawed,
        suspensions,
        has_rings,
        is_live,
        is_closing,
    };
    match runner.run().await {
        Ok(result) => Ok(result?),
        Err(lost) => {
            runner.end_without_store().await;
            Err(lost)
        }
    }
}

/// As [`run`] a backend's handshake, and then what `xl devd` does in a driver domain that is Linux: if
/// the toolstack wants no more of the device, it waits until the device's directory is gone.
///
/// # Errors
/// As [`run`].
pub(crate) async fn serve<H, D>(
    store: Store,
    path: String,
    machine: impl FnOnce(Instant) -> H,
    device: D,
) -> Result<Ending, XenError>
where
    H: Handshake<Wanted = D::Wanted, Made = D::Made, Settings = D::Settings>,
    D: Device,
{
    let ended = run(store.clone(), machine, device).await?;
    if store.read(&format!("{path}/online")).await?.is_some_and(|online| online == b"0") {
        store.remove(&path).await?;
    }
    Ok(ended)
}

/// A request to XenStore that the machine waits for.
type Executing = Pin<Box<dyn Future<Output = Result<Executed, XenError>> + Send>>;

enum Executed {
    Watching(Watch),
    Values(Vec<Option<Vec<u8>>>),
    Written(Outcome),
    Told,
}

enum Happened {
    Executed(Result<Executed, XenError>),
    Device(DeviceEvent),
    Fired,
    Timeout,
    Freezing,
}

struct Runner<H, D> {
    store: Store,
    machine: H,
    device: D,
    watches: HashMap<String, Watch>,
    thawed: Thawed,
    /// The machine's suspensions that the handshake has heard of.
    suspensions: u64,
    has_rings: bool,
    is_live: bool,
    is_closing: bool,
}

impl<H, D> Runner<H, D>
where
    H: Handshake<Wanted = D::Wanted, Made = D::Made, Settings = D::Settings>,
    D: Device,
{
    /// The outer error is the loss of XenStore, the inner one the handshake's.
    async fn run(&mut self) -> Result<Result<Ending, HandshakeError>, XenError> {
        let mut executing = None;
        loop {
            while executing.is_none() {
                match self.machine.poll_command() {
                    None => break,
                    Some(Command::Ended(result)) => {
                        if let Err(error) = &result
                            && let Some(telling) = self.tell(error)
                        {
                            telling.await?;
                        }
                        return Ok(result);
                    }
                    Some(command) => executing = self.execute(command),
                }
            }
            let happened = self.wait(&mut executing).await;
            if matches!(happened, Happened::Freezing) {
                self.give_up_rings();
                self.thawed.thaw().await;
            }
            let now = self.store.now();
            if self.suspensions != self.store.suspensions() {
                self.suspensions = self.store.suspensions();
                self.machine.handle(now, Input::Resumed);
            }
            let input = match happened {
                Happened::Executed(executed) => {
                    executing = None;
                    match executed? {
                        Executed::Watching(watch) => {
                            self.watches.insert(watch.path().to_owned(), watch);
                            continue;
                        }
                        Executed::Values(values) => Input::Values(values),
                        Executed::Written(outcome) => Input::Written(outcome),
                        Executed::Told => continue,
                    }
                }
                Happened::Device(DeviceEvent::Fault(rule)) => Input::Fault(rule),
                Happened::Device(DeviceEvent::Close) => {
                    self.is_closing = true;
                    Input::Close
                }
                Happened::Fired => Input::Fired,
                Happened::Timeout => Input::Timeout,
                Happened::Freezing => continue,
            };
            self.machine.handle(now, input);
        }
    }

    /// Does what can be done at once; what cannot is to be waited for.
    fn execute(&mut self, command: Command<D::Wanted, D::Settings>) -> Option<Executing> {
        let store = self.store.clone();
        match command {
            Command::Watch(path) => {
                return Some(Box::pin(
                    async move { store.watch(&path).await.map(Executed::Watching) },
                ));
            }
            Command::Read(paths) => return Some(Box::pin(read(store, paths))),
            Command::Write(transaction) => {
                let life = store.suspensions();
                return Some(Box::pin(write(store, transaction, life)));
            }
            Command::Unwatch(path) => drop(self.watches.remove(&path)),
            Command::MakeRings(wanted) => {
                let made = self.device.make_rings(wanted);
                self.has_rings = made.is_ok();
                self.machine.handle(self.store.now(), Input::RingsMade(made));
            }
            Command::Connect(settings) => {
                self.is_live = true;
                self.device.connect(settings);
            }
            // Before a suspension both have been done already.
            Command::Disconnect(reason) => {
                if core::mem::take(&mut self.is_live) {
                    self.device.disconnect(&reason);
                }
            }
            Command::Release => {
                if core::mem::take(&mut self.has_rings) {
                    self.device.release();
                }
            }
            Command::Report(error) => {
                tracing::warn!("refused: {error}");
                self.device.report(&error);
                return self.tell(&error);
            }
            Command::Ended(_) => unreachable!("the end is the caller's"),
        }
        None
    }

    /// Tells the toolstack of an error, which cannot do anything about it but show it: so it does not
    /// matter if it cannot be told.
    fn tell(&self, error: &HandshakeError) -> Option<Executing> {
        let (path, text) = error.node(self.machine.device()?)?;
        let store = self.store.clone();
        Some(Box::pin(async move {
            if let Err(error) = store.write(&path, text).await {
                tracing::debug!("not told to the toolstack: {error}");
            }
            Ok(Executed::Told)
        }))
    }

    async fn wait(&mut self, executing: &mut Option<Executing>) -> Happened {
        let deadline = self.machine.poll_timeout().map(|at| self.store.when(at));
        let mut timer = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let mut freezing = core::pin::pin!(self.thawed.freezing());
        poll_fn(|cx| {
            if freezing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Happened::Freezing);
            }
            if let Some(executing) = executing
                && let Poll::Ready(executed) = executing.as_mut().poll(cx)
            {
                return Poll::Ready(Happened::Executed(executed));
            }
            if !self.is_closing
                && let Poll::Ready(event) = self.device.poll_event(cx)
            {
                return Poll::Ready(Happened::Device(event));
            }
            let mut has_fired = false;
            for watch in self.watches.values_mut() {
                match watch.poll_next(cx) {
                    Poll::Ready(Ok(())) => has_fired = true,
                    Poll::Ready(Err(lost)) => return Poll::Ready(Happened::Executed(Err(lost))),
                    Poll::Pending => {}
                }
            }
            if has_fired {
                return Poll::Ready(Happened::Fired);
            }
            match &mut timer {
                Some(timer) => timer.as_mut().poll(cx).map(|()| Happened::Timeout),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// The machine is about to be suspended, and Xen asks for no rings then. The handshake hears of
    /// it afterwards.
    fn give_up_rings(&mut self) {
        if core::mem::take(&mut self.is_live) {
            self.device.disconnect(&Reason::Resumed);
        }
        if core::mem::take(&mut self.has_rings) {
            self.device.release();
        }
    }

    /// XenStore is lost: the rings go, after the device was live for as long as it is wanted.
    async fn end_without_store(&mut self) {
        if self.is_live && !self.is_closing {
            poll_fn(|cx| self.device.poll_event(cx)).await;
        }
        if self.is_live {
            self.device.disconnect(&Reason::Asked);
        }
        if self.has_rings {
            self.device.release();
        }
    }
}

async fn read(store: Store, paths: Vec<String>) -> Result<Executed, XenError> {
    loop {
        match read_in(&store, None, &paths).await {
            Ok(values) => return Ok(Executed::Values(values)),
            // Suspended meanwhile: the connection is a new one.
            Err(XenError::Store { error: StoreError::Interrupted, .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Values, `None` for what does not exist or may not be read.
async fn read_in(
    store: &Store,
    transaction: Option<&crate::store::Transaction>,
    paths: &[String],
) -> Result<Vec<Option<Vec<u8>>>, XenError> {
    let values = match transaction {
        Some(transaction) => transaction.read_each(paths).await?,
        None => store.read_each(paths).await?,
    };
    let unreadable = StoreError::Refused(Errno::AccessDenied);
    values
        .into_iter()
        .map(|value| match value {
            Err(XenError::Store { error, .. }) if error == unreadable => Ok(None),
            other => other,
        })
        .collect()
}

/// Carries a transaction out, unless the machine was suspended since the handshake decided on it, in
/// its `life`: it may say where rings are that are no more.
async fn write(store: Store, wanted: Transaction, life: u64) -> Result<Executed, XenError> {
    let outcome = match attempt(&store, &wanted, life).await {
        Ok(outcome) => outcome,
        Err(XenError::Store { error, .. }) => match error {
            StoreError::Interrupted | StoreError::Refused(Errno::Again) => Outcome::Again,
            StoreError::Refused(errno) => Outcome::Refused(errno.number()),
            StoreError::BadPath(_) | StoreError::TooLong { .. } => {
                Outcome::Refused(Errno::Invalid.number())
            }
            error => return Err(XenError::store(Kind::TransactionEnd, "", error)),
        },
        Err(error) => return Err(error),
    };
    Ok(Executed::Written(outcome))
}

/// One attempt at a transaction. An error leaves nothing written.
async fn attempt(store: &Store, wanted: &Transaction, life: u64) -> Result<Outcome, XenError> {
    let transaction = store.begin().await?;
    if store.suspensions() != life {
        return Ok(Outcome::Again);
    }
    let (paths, expected): (Vec<_>, Vec<_>) = wanted.expect.iter().cloned().unzip();
    let values = read_in(store, Some(&transaction), &paths).await?;
    if !expected.iter().zip(&values).all(|(expected, value)| expected.is_met_by(value.as_deref())) {
        return Ok(Outcome::Differs);
    }
    // All changes go out together; each has its answer.
    let mut answers = Vec::with_capacity(wanted.changes.len());
    for change in &wanted.changes {
        let (path, request) = request(change);
        let sent = transaction.send(&request).await;
        let kind = request.kind();
        answers.push((kind, path, sent.map_err(|error| XenError::store(kind, path, error))?));
    }
    for (kind, path, answer) in answers {
        match answer.await.unwrap_or(Err(StoreError::Interrupted)) {
            Err(error) if !(kind == Kind::Remove && error.is_not_found()) => {
                return Err(XenError::store(kind, path, error));
            }
            _ => {}
        }
    }
    Ok(match transaction.commit().await? {
        Commit::Done => Outcome::Done,
        Commit::Again => Outcome::Again,
    })
}

fn request(change: &Change) -> (&str, Request<'_>) {
    match change {
        Change::Set(path, value) => (path, Request::Write(path, value)),
        Change::Remove(path) => (path, Request::Remove(path)),
        Change::Permit { path, owner, reader } => {
            let permissions = vec![
                Permission { access: Access::None, domain: *owner },
                Permission { access: Access::Read, domain: *reader },
            ];
            (path, Request::SetPermissions(path, permissions))
        }
    }
}

#[cfg(test)]
mod tests;
