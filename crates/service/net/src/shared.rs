//! [`Shared`]: the engine and everybody who waits for it, under one lock.

use crate::readiness::Readiness;
use core::fmt;
use core::task::Waker;
use fata_device::NicError;
use fata_tcpip::{Engine, Event, Instant, TcpId};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// What a stack's sockets and its driver share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// The engine's [`Instant::ZERO`].
    epoch: tokio::time::Instant,
}

/// The state under the lock. Nobody awaits, and nobody wakes a task, while holding it.
pub(crate) struct State {
    /// The stack itself.
    pub(crate) engine: Engine,
    /// Why the driver ended; from then on every call fails with it.
    pub(crate) stopped: Option<NicError>,
    /// The driver's waker while it sleeps; `None` while it is going to be polled anyway.
    pub(crate) driver: Option<Waker>,
    /// Something may have become ready for the driver: frames to send, another deadline.
    driver_wanted: bool,
    /// Wakers to drop once the lock is released: the last one of a task may drop the task, and
    /// with it a socket that asks for the lock.
    discarded: Vec<Waker>,
    /// Who waits for a connection, at its id's index.
    streams: Vec<StreamWakers>,
    /// The [`Readiness`] of each listener, at its id's index.
    pub(crate) listeners: Table<Waker>,
    /// The readiness to receive and to send of each UDP socket, at its id's index.
    pub(crate) udp: Table<(Waker, Waker)>,
    /// Wakes everybody who waits for the address.
    address: Waker,
}

/// The tasks that wait for one connection: `AsyncRead` and `AsyncWrite` have one task each.
#[derive(Default)]
struct StreamWakers {
    read: Option<Waker>,
    /// Also that of the task that connects.
    write: Option<Waker>,
}

/// Which of a connection's two tasks waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// A sparse vector.
pub(crate) struct Table<T>(Vec<Option<T>>);

impl<T> Table<T> {
    pub(crate) fn insert(&mut self, index: usize, value: T) {
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(value);
    }

    pub(crate) fn remove(&mut self, index: usize) -> Option<T> {
        self.0.get_mut(index)?.take()
    }

    fn get(&self, index: usize) -> Option<&T> {
        self.0.get(index)?.as_ref()
    }
}

impl Shared {
    pub(crate) fn new(
        engine: Engine,
        epoch: tokio::time::Instant,
        address: Arc<Readiness>,
    ) -> Self {
        Shared {
            state: Mutex::new(State {
                engine,
                stopped: None,
                driver: None,
                driver_wanted: false,
                discarded: Vec::new(),
                streams: Vec::new(),
                listeners: Table(Vec::new()),
                udp: Table(Vec::new()),
                address: Waker::from(address),
            }),
            epoch,
        }
    }

    /// The time as the engine counts it.
    pub(crate) fn now(&self) -> Instant {
        let nanos = tokio::time::Instant::now().saturating_duration_since(self.epoch).as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The runtime's name for the engine's `instant`.
    pub(crate) fn runtime_instant(&self, instant: Instant) -> tokio::time::Instant {
        self.epoch + instant.saturating_since(Instant::ZERO)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            // A task panicked inside the engine, which is then in no known state: say so to
            // everybody, rather than compute with it.
            let mut state = poisoned.into_inner();
            state.stopped.get_or_insert_with(|| {
                NicError::Disconnected("the stack panicked, and was stopped".into())
            });
            state
        })
    }

    /// Lets `act` work on the state, then wakes the driver if there is something for it
    /// ([`State::want_driver`]).
    pub(crate) fn act<R>(&self, act: impl FnOnce(&mut State, Instant) -> R) -> R {
        let now = self.now();
        let mut state = self.lock();
        let result = act(&mut state, now);
        let driver =
            if std::mem::take(&mut state.driver_wanted) { state.driver.take() } else { None };
        let discarded = std::mem::take(&mut state.discarded);
        drop(state);
        drop(discarded);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl State {
    /// Fails once the driver has ended.
    pub(crate) fn check(&self) -> io::Result<()> {
        match &self.stopped {
            None => Ok(()),
            Some(error) => Err(io::Error::new(io::ErrorKind::NetworkDown, error.clone())),
        }
    }

    /// Asks for a turn of the driver after this call.
    pub(crate) fn want_driver(&mut self) {
        self.driver_wanted = true;
    }

    /// Wakes `waker` when the connection may be read or written.
    pub(crate) fn wait_for_stream(&mut self, id: TcpId, direction: Direction, waker: &Waker) {
        if self.streams.len() <= id.index() {
            self.streams.resize_with(id.index() + 1, StreamWakers::default);
        }
        let wakers = &mut self.streams[id.index()];
        let slot = match direction {
            Direction::Read => &mut wakers.read,
            Direction::Write => &mut wakers.write,
        };
        if !slot.as_ref().is_some_and(|last| last.will_wake(waker)) {
            self.discarded.extend(slot.replace(waker.clone()));
        }
    }

    /// Forgets who waits for a connection whose id is dead, so that the next one in its slot does
    /// not inherit them.
    pub(crate) fn forget_stream(&mut self, id: TcpId) {
        if let Some(wakers) = self.streams.get_mut(id.index()) {
            self.discarded.extend(wakers.read.take());
            self.discarded.extend(wakers.write.take());
        }
    }

    /// Moves the wakers of all events into `woken`, to be woken once the lock is released.
    pub(crate) fn take_events(&mut self, woken: &mut Vec<Waker>) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::TcpReadable(id) => woken.extend(self.stream_waker(id, Direction::Read)),
                Event::TcpWritable(id) => woken.extend(self.stream_waker(id, Direction::Write)),
                Event::TcpConnected(id) | Event::TcpClosed(id) => {
                    woken.extend(self.stream_waker(id, Direction::Read));
                    woken.extend(self.stream_waker(id, Direction::Write));
                }
                Event::Acceptable(id) => woken.extend(self.listeners.get(id.index()).cloned()),
                Event::UdpReadable(id) => {
                    woken.extend(self.udp.get(id.index()).map(|(receive, _)| receive.clone()));
                }
                Event::UdpWritable(id) => {
                    woken.extend(self.udp.get(id.index()).map(|(_, send)| send.clone()));
                }
                Event::AddressChanged => woken.push(self.address.clone()),
            }
        }
    }

    fn stream_waker(&mut self, id: TcpId, direction: Direction) -> Option<Waker> {
        let wakers = self.streams.get_mut(id.index())?;
        match direction {
            Direction::Read => wakers.read.take(),
            Direction::Write => wakers.write.take(),
        }
    }

    /// Moves the wakers of everybody into `woken`: there is bad news for all.
    pub(crate) fn take_everybody(&mut self, woken: &mut Vec<Waker>) {
        for wakers in &mut self.streams {
            woken.extend(wakers.read.take());
            woken.extend(wakers.write.take());
        }
        woken.extend(self.listeners.0.iter().flatten().cloned());
        for (receive, send) in self.udp.0.iter().flatten() {
            woken.extend([receive.clone(), send.clone()]);
        }
        woken.push(self.address.clone());
    }
}
