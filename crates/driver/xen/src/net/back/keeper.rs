//! [`NetBackends`]: serves the interfaces of other guests.
//!
//! The toolstack writes a directory `backend/vif/<guest>/<handle>` for each interface that a guest
//! was given from here. Each is a handshake in a task of its own; each connection that comes of it
//! is a [`Netback`]. What one guest does wrong ends its connection, and it may come again.

use super::{BackDevice, BackRings, BackSettings, Netback, NetbackOptions};
use crate::net::front::offloads;
use crate::xenbus::{self, Device, DeviceEvent};
use crate::{Xen, XenError};
use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};
use fata_hypercall::{DomainId, GrantRef, Hypervisor, Port};
use fata_xenbus::handshake::net::{
    Backend, BackendOptions, Channels, RingsMade, RingsOffered, Settings,
};
use fata_xenbus::handshake::{Ending, HandshakeError, Reason, Serving};
use fata_xenbus::ring::net::GsoFamilies;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinSet;

/// Where the toolstack writes who is to be served.
const DIRECTORY: &str = "backend/vif";

/// An interface of a guest's: the names in its directory.
type Name = (u16, u32);

/// Another guest's interface, connected.
#[derive(Debug)]
pub struct FrontendNic {
    /// Whose it is.
    pub domain: DomainId,
    /// Which of its interfaces.
    pub handle: u32,
    /// Our end of it.
    pub nic: Netback,
}

/// Connections that nobody has accepted yet; one for each interface, the last.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<WaitingState>>);

#[derive(Default)]
struct WaitingState {
    nics: BTreeMap<Name, Netback>,
    waker: Option<Waker>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, WaitingState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, name: Name, nic: Netback) {
        // An earlier connection that nobody wanted has ended; it is dropped outside the lock.
        let (_earlier, waker) = {
            let mut state = self.lock();
            (state.nics.insert(name, nic), state.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll_next(&self, cx: &Context<'_>) -> Poll<(Name, Netback)> {
        let mut state = self.lock();
        match state.nics.pop_first() {
            Some(next) => Poll::Ready(next),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// What the handshake's task has of a guest's interface.
struct Keeper {
    hypervisor: Hypervisor,
    name: Name,
    device: BackDevice,
    /// Rings that were attached and are not connected.
    rings: Option<BackRings>,
    /// Rings that are not connected any more, until they may be given up.
    old: Option<BackRings>,
    waiting: Waiting,
}

impl Device for Keeper {
    type Wanted = RingsOffered;
    type Made = ();
    type Settings = Settings;

    fn make_rings(&mut self, offered: RingsOffered) -> Result<(), String> {
        let RingsMade { tx_ring_ref, rx_ring_ref, channels } = offered.rings;
        let refs = (GrantRef(tx_ring_ref), GrantRef(rx_ring_ref));
        let ports = match channels {
            Channels::One(port) => (Port(port), None),
            Channels::Split { tx, rx } => (Port(tx), Some(Port(rx))),
        };
        let frontend = DomainId(offered.frontend);
        let rings = BackRings::attach(&self.hypervisor, frontend, refs, ports)
            .map_err(|error| error.to_string())?;
        self.rings = Some(rings);
        Ok(())
    }

    fn connect(&mut self, settings: Settings) {
        let Some(rings) = self.rings.take() else { return };
        let nic = self.device.connect(rings, settings_of(&settings));
        self.waiting.insert(self.name, nic);
    }

    fn disconnect(&mut self, reason: &Reason) {
        self.old = self.device.disconnect(&reason.to_string());
    }

    fn release(&mut self) {
        self.rings = None;
        self.old = None;
    }

    fn report(&mut self, _: &HandshakeError) {}

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        self.device.poll_event(cx)
    }
}

fn settings_of(settings: &Settings) -> BackSettings {
    let Settings { peer, transmit, .. } = settings;
    BackSettings {
        frontend: DomainId(*peer),
        scatter_gather: transmit.scatter_gather,
        segmentation: GsoFamilies { tcpv4: transmit.gso_ipv4, tcpv6: transmit.gso_ipv6 },
        checksum: transmit.checksum_ipv4,
        checksum_ipv6: transmit.checksum_ipv6,
    }
}

/// The interfaces of other guests that this one serves.
pub struct NetBackends {
    xen: Xen,
    options: NetbackOptions,
    watch: Option<crate::Watch>,
    known: BTreeSet<Name>,
    /// Their directories were no good; they are looked at again when something has changed.
    failed: Vec<Name>,
    tasks: JoinSet<(Name, Result<Ending, XenError>)>,
    waiting: Waiting,
}

impl Xen {
    /// Serves the interfaces that the toolstack gave other guests from this one (`backend=` in their
    /// `vif`), from the first [`accept`](NetBackends::accept) on, until what this returned is
    /// dropped.
    pub fn net_backends(&self, options: NetbackOptions) -> NetBackends {
        NetBackends {
            xen: self.clone(),
            options,
            watch: None,
            known: BTreeSet::new(),
            failed: Vec::new(),
            tasks: JoinSet::new(),
            waiting: Waiting::default(),
        }
    }
}

enum Happened {
    Connected(Name, Netback),
    Ended(Result<(Name, Result<Ending, XenError>), tokio::task::JoinError>),
    Fired,
}

impl NetBackends {
    /// The next interface that is connected. One that comes back after its guest closed it, broke a
    /// rule, or was started again, is a new one. To be called in a tokio runtime, again and again:
    /// new guests are seen while it waits. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// XenStore's end.
    pub async fn accept(&mut self) -> Result<FrontendNic, XenError> {
        if self.watch.is_none() {
            self.watch = Some(self.xen.store().watch(DIRECTORY).await?);
            self.admit().await?;
        }
        loop {
            let happened = poll_fn(|cx| self.poll_happened(cx)).await?;
            match happened {
                Happened::Connected((domain, handle), nic) => {
                    return Ok(FrontendNic { domain: DomainId(domain), handle, nic });
                }
                Happened::Fired => {
                    for name in self.failed.drain(..) {
                        self.known.remove(&name);
                    }
                }
                Happened::Ended(Ok((_, Err(lost)))) if self.xen.store().broken().is_some() => {
                    return Err(lost);
                }
                Happened::Ended(Ok((name, Err(_)))) => self.failed.push(name),
                // The toolstack took it away, and may have made it anew meanwhile.
                Happened::Ended(Ok((name, Ok(_)))) => {
                    self.known.remove(&name);
                }
                Happened::Ended(Err(lost)) => {
                    return Err(XenError::Device(format!("a task of netback ended: {lost}")));
                }
            }
            self.admit().await?;
        }
    }

    fn poll_happened(&mut self, cx: &mut Context<'_>) -> Poll<Result<Happened, XenError>> {
        if let Poll::Ready((name, nic)) = self.waiting.poll_next(cx) {
            return Poll::Ready(Ok(Happened::Connected(name, nic)));
        }
        if let Poll::Ready(Some(ended)) = self.tasks.poll_join_next(cx) {
            return Poll::Ready(Ok(Happened::Ended(ended)));
        }
        match &mut self.watch {
            Some(watch) => watch.poll_next(cx).map(|fired| fired.map(|()| Happened::Fired)),
            None => Poll::Pending,
        }
    }

    /// Begins to serve what is there and is not served.
    async fn admit(&mut self) -> Result<(), XenError> {
        for guest in self.numbers(DIRECTORY).await? {
            for handle in self.numbers(&format!("{DIRECTORY}/{guest}")).await? {
                if self.tasks.len() >= self.options.frontends_max {
                    return Ok(());
                }
                if self.known.insert((guest, handle)) {
                    self.begin((guest, handle));
                }
            }
        }
        Ok(())
    }

    /// The names in a directory that are numbers.
    async fn numbers<N: core::str::FromStr>(&self, path: &str) -> Result<Vec<N>, XenError> {
        let names = self.xen.store().list(path).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Serves one interface, from its handshake to its end.
    fn begin(&mut self, name: Name) {
        let (guest, handle) = name;
        let offer = BackendOptions {
            transmit: offloads(true),
            receive: offloads(self.options.segmentation),
            split_event_channels: true,
            mtu: u16::try_from(self.options.mtu).unwrap_or(u16::MAX),
        };
        let keeper = Keeper {
            hypervisor: self.xen.hypervisor().clone(),
            name,
            device: BackDevice::new(self.options),
            rings: None,
            old: None,
            waiting: self.waiting.clone(),
        };
        let path = format!("{DIRECTORY}/{guest}/{handle}");
        let serving = Serving::new(path.clone());
        let machine = move |now| Backend::new(serving, offer, now);
        let task = xenbus::serve(self.xen.store().clone(), path, machine, keeper);
        self.tasks.spawn(async move { (name, task.await) });
    }
}

impl fmt::Debug for NetBackends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetBackends").field("options", &self.options).finish_non_exhaustive()
    }
}
