//! [`Router`]: IPv4 between interfaces that come and go.
//!
//! ```text
//!   program ──► Router ──► state machine (fata_tcpip::router) ◄── RouterDriver ──► Nic, Nic, …
//!               attach, routes                                     one task
//! ```
//!
//! A frame is copied once, from one device's buffer into the other's. If the way out is full it
//! waits in that port's backlog, of fixed size; past it frames are dropped and counted, so that a
//! port that stalls takes nothing from the others.

use crate::driver::frame_checksum;
use crate::forward::{BATCH_FRAMES, FRAME_BYTES_MAX, Port, PortCounters};
use core::convert::Infallible;
use core::fmt;
use core::num::NonZeroU16;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use fata_device::{Checksum, IpFamily, Nic, NicError, Received, Segmentation};
use fata_tcpip::router::{OwnFrame, Undone, Verdict};
use fata_tcpip::{Counters, FrameChecksum, Instant, Limits, MacAddress};
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tokio::time::Sleep;

pub use fata_tcpip::router::RouterError;

/// What a router is told once, at its start.
#[derive(Clone)]
pub struct RouterConfig {
    /// Randomness from a cryptographic generator, other at each start.
    pub secret: [u8; 32],
    /// Of these, those on neighbours count for each port, and those on ICMP in all.
    pub limits: Limits,
    /// Bytes of frames that wait in each port while its device is full; at least one frame of
    /// 64 KiB. Default 128 KiB: two of them, or eighty of an Ethernet's.
    pub backlog_bytes: usize,
}

impl RouterConfig {
    /// The defaults. `secret` comes from a cryptographic generator: with it identifications and
    /// what is answered when could be guessed.
    pub fn new(secret: [u8; 32]) -> Self {
        RouterConfig { secret, limits: Limits::default(), backlog_bytes: 128 * 1024 }
    }
}

impl fmt::Debug for RouterConfig {
    /// All but the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterConfig")
            .field("limits", &self.limits)
            .field("backlog_bytes", &self.backlog_bytes)
            .finish_non_exhaustive()
    }
}

/// An IPv4 router. Clones are the same router.
#[derive(Clone)]
pub struct Router {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The engine's [`Instant::ZERO`].
    epoch: tokio::time::Instant,
    backlog_bytes: usize,
}

struct State {
    engine: fata_tcpip::router::Router,
    /// Ports that the driver has not taken over yet, or is to close.
    changes: Vec<Change>,
    driver: Option<Waker>,
}

enum Change {
    Attach { number: usize, port: Box<Port>, gone: oneshot::Sender<NicError> },
    Detach { number: usize },
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.epoch.elapsed()
    }
}

/// An interface of a [`Router`]. It stays attached when this is dropped.
#[derive(Debug)]
pub struct RouterPort {
    number: usize,
    counters: Arc<PortCounters>,
    gone: oneshot::Receiver<NicError>,
}

impl RouterPort {
    /// The port's number: the least that was free.
    pub fn number(&self) -> usize {
        self.number
    }

    /// What went through it.
    pub fn counters(&self) -> Arc<PortCounters> {
        Arc::clone(&self.counters)
    }

    /// Waits until the interface has failed, or was detached. By then the port's number and
    /// address are free.
    pub async fn gone(self) -> NicError {
        let stopped = |_| NicError::Disconnected("the router was stopped".into());
        self.gone.await.unwrap_or_else(stopped)
    }
}

impl Router {
    /// A router without interfaces. The [`RouterDriver`] must be spawned. To be called inside a
    /// tokio runtime whose time is enabled.
    pub fn new(config: RouterConfig) -> (Router, RouterDriver) {
        let engine = fata_tcpip::router::Router::new(config.limits, config.secret, Instant::ZERO);
        let shared = Arc::new(Shared {
            state: Mutex::new(State { engine, changes: Vec::new(), driver: None }),
            epoch: tokio::time::Instant::now(),
            backlog_bytes: config.backlog_bytes.max(FRAME_BYTES_MAX),
        });
        let driver = RouterDriver {
            shared: Arc::clone(&shared),
            ports: Vec::new(),
            alarm: None,
            turned_back: Vec::new(),
        };
        (Router { shared }, driver)
    }

    /// Attaches an interface with an address and a subnet of its own.
    ///
    /// # Errors
    /// [`RouterError`], naming what is wrong.
    pub fn attach(
        &self,
        nic: impl Nic,
        address: Ipv4Addr,
        prefix_len: u8,
    ) -> Result<RouterPort, RouterError> {
        let (sender, gone) = oneshot::channel();
        let mac = MacAddress(nic.mac().0);
        let config = fata_tcpip::router::PortConfig { mac, mtu: nic.mtu(), address, prefix_len };
        let waker;
        let (number, counters) = {
            let mut state = self.shared.lock();
            let number = state.engine.attach(config)?;
            let port = Box::new(Port::new(Box::new(nic), self.shared.backlog_bytes));
            let counters = Arc::clone(port.counters());
            state.changes.push(Change::Attach { number, port, gone: sender });
            waker = state.driver.take();
            (number, counters)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(RouterPort { number, counters, gone })
    }

    /// Detaches an interface and drops it, with what waits in it. Nothing if there is none.
    pub fn detach(&self, port: usize) {
        let waker = {
            let mut state = self.shared.lock();
            if state.engine.port(port).is_none() {
                return;
            }
            state.engine.detach(port);
            state.changes.push(Change::Detach { number: port });
            state.driver.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Sends what is for `network` to the neighbour `gateway`. `0.0.0.0` with a prefix of 0 bits is
    /// the default route. Replaces the route to the same network.
    ///
    /// # Errors
    /// [`RouterError`].
    pub fn add_route(
        &self,
        network: Ipv4Addr,
        prefix_len: u8,
        gateway: Ipv4Addr,
    ) -> Result<(), RouterError> {
        self.shared.lock().engine.add_route(network, prefix_len, gateway)
    }

    /// Removes the static route to `network`; false if there is none.
    pub fn remove_route(&self, network: Ipv4Addr, prefix_len: u8) -> bool {
        self.shared.lock().engine.remove_route(network, prefix_len)
    }

    /// What was counted since the start, and why packets were dropped.
    pub fn counters(&self) -> Counters {
        self.shared.lock().engine.counters()
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Router")
    }
}

/// The task that moves a router's frames; to be spawned. It does not end: an interface that fails
/// is detached, and [`RouterPort::gone`] says why.
#[must_use = "a router without its driver passes nothing on"]
pub struct RouterDriver {
    shared: Arc<Shared>,
    /// At the number of each.
    ports: Vec<Option<Attached>>,
    /// Wakes the task at the engine's deadline, or earlier.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Frames that leave by the port that they came by.
    turned_back: Vec<OwnFrame>,
}

struct Attached {
    port: Box<Port>,
    gone: oneshot::Sender<NicError>,
}

impl fmt::Debug for RouterDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouterDriver({} ports)", self.ports.iter().flatten().count())
    }
}

/// What is still to be done with a frame, in the engine's words.
fn undone(said: Received) -> Undone {
    Undone {
        is_checksum_blank: frame_checksum(said.checksum) == FrameChecksum::Blank,
        mss: said.segmentation.and_then(|segmentation| NonZeroU16::new(segmentation.mss)),
    }
}

/// And in the device's. The engine passes on nothing but IPv4.
fn received(undone: Undone) -> Received {
    Received {
        checksum: if undone.is_checksum_blank { Checksum::Blank } else { Checksum::Unverified },
        segmentation: undone.mss.map(|mss| Segmentation { family: IpFamily::V4, mss: mss.get() }),
    }
}

impl RouterDriver {
    fn take_changes(&mut self, state: &mut State) {
        for change in state.changes.drain(..) {
            match change {
                Change::Attach { number, port, gone } => {
                    while self.ports.len() <= number {
                        self.ports.push(None);
                    }
                    self.ports[number] = Some(Attached { port, gone });
                }
                Change::Detach { number } => {
                    if let Some(Some(attached)) = self.ports.get_mut(number).map(Option::take) {
                        let error = NicError::Disconnected("it was detached".into());
                        let _ = attached.gone.send(error);
                    }
                }
            }
        }
    }

    /// A port whose interface failed leaves the router.
    fn fail(&mut self, state: &mut State, number: usize, error: NicError) {
        state.engine.detach(number);
        if let Some(Some(attached)) = self.ports.get_mut(number).map(Option::take) {
            // Nobody may be listening.
            let _ = attached.gone.send(error);
        }
    }

    /// Takes a batch from one port, and sends what is to be passed on. True if there was any.
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        waker: &Waker,
        state: &mut State,
        now: Instant,
        number: usize,
    ) -> bool {
        // Its own place is empty meanwhile, so that the others can be reached.
        let Some(mut from) = self.ports.get_mut(number).and_then(Option::take) else {
            return false;
        };
        let mut progress = false;
        let mut failed = None;
        for _ in 0..BATCH_FRAMES {
            let (ports, turned_back) = (&mut self.ports, &mut self.turned_back);
            let polled = from.port.poll_receive(cx, &mut |frame, said| {
                let undone = undone(said);
                let verdict = state.engine.handle_frame(now, number, frame, undone);
                let Verdict::Forward { port, len } = verdict else { return };
                if port == number {
                    turned_back.push(OwnFrame { bytes: frame[..len].to_vec(), undone });
                } else if let Some(Some(to)) = ports.get_mut(port) {
                    let mut cx = Context::from_waker(waker);
                    if let Err(error) = to.port.send(&mut cx, &mut frame[..len], received(undone)) {
                        failed = Some((port, error));
                    }
                }
            });
            for mut frame in self.turned_back.drain(..) {
                let said = received(frame.undone);
                if let Err(error) = from.port.send(cx, &mut frame.bytes, said) {
                    failed = Some((number, error));
                }
            }
            match polled {
                Poll::Ready(Ok(())) => progress = true,
                Poll::Ready(Err(error)) => failed = Some((number, error)),
                Poll::Pending => break,
            }
            if failed.is_some() {
                break;
            }
        }
        self.ports[number] = Some(from);
        if let Some((port, error)) = failed {
            self.fail(state, port, error);
        }
        progress
    }

    /// Sends what waits in one port, and what the router says itself there.
    fn transmit(&mut self, cx: &mut Context<'_>, state: &mut State, number: usize) -> bool {
        let Some(Some(attached)) = self.ports.get_mut(number) else { return false };
        let port = &mut attached.port;
        let mut progress = false;
        let mut send = || -> Result<(), NicError> {
            // The router's own wait where they are until there is room.
            while port.poll_drain(cx)?.is_ready()
                && let Some(mut frame) = state.engine.poll_frame(number)
            {
                port.send(cx, &mut frame.bytes, received(frame.undone))?;
                progress = true;
            }
            port.flush()
        };
        if let Err(error) = send() {
            self.fail(state, number, error);
        }
        progress
    }
}

impl Future for RouterDriver {
    type Output = Infallible;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Infallible> {
        let driver = &mut *self;
        let shared = Arc::clone(&driver.shared);
        let now = shared.now();
        let waker = cx.waker().clone();
        let mut state = shared.lock();
        let _last = state.driver.take();
        driver.take_changes(&mut state);
        let mut progress = false;
        for number in 0..driver.ports.len() {
            progress |= driver.receive(cx, &waker, &mut state, now, number);
        }
        if state.engine.poll_timeout().is_some_and(|deadline| deadline <= now) {
            state.engine.handle_timeout(now);
        }
        for number in 0..driver.ports.len() {
            progress |= driver.transmit(cx, &mut state, number);
        }
        let deadline = state.engine.poll_timeout();
        if progress {
            drop(state);
            // Again, behind the tasks that are runnable: frames that came meanwhile need no
            // interrupt.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        state.driver = Some(waker);
        drop(state);
        if let Some(deadline) = deadline {
            let deadline = shared.epoch + deadline.saturating_since(Instant::ZERO);
            let alarm =
                driver.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if alarm.is_elapsed() || deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            if alarm.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}
