//! [`Netback`]: the end of another guest's network interface.

mod inbox;
mod keeper;
mod outbox;
mod rings;

pub use keeper::{FrontendNic, NetBackends};
pub(super) use rings::BackRings;

use super::channel::Sleeper;
use super::counters::NetCounters;
use super::link::Link;
use super::{MTU_DEFAULT, MTU_MIN};
use crate::xenbus::DeviceEvent;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use fata_device::{MacAddress, Nic, NicError, Offloads, Received, Transmit};
use fata_hypercall::DomainId;
use fata_xenbus::ring::net::{GsoFamilies, PACKET_BYTES_MAX};
use std::sync::Arc;
use tokio::time::Sleep;

/// What a netback offers, and how much of its own it gives to one frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetbackOptions {
    /// Our own address on the link. The same on every link will do: each is a wire of its own.
    pub mac: MacAddress,
    /// The largest IP packet on the link, in bytes.
    pub mtu: usize,
    /// Frames are copied in batches of so many bytes, in each direction: 64 KiB to 1 MiB. All in
    /// one batch cost one hypercall.
    pub batch_bytes: usize,
    /// A frontend that has lent no page for so long is not waited for any longer: frames for it are
    /// dropped until it does.
    pub stall: Duration,
    /// Take packets of several segments from the frontend.
    pub segmentation: bool,
    /// How many interfaces are served at once; others wait until one ends.
    pub frontends_max: usize,
}

/// Bounds of [`NetbackOptions::batch_bytes`].
const BATCH_BYTES_MIN: usize = 64 * 1024;
const BATCH_BYTES_MAX: usize = 1024 * 1024;

impl Default for NetbackOptions {
    /// Linux's address for a vif; batches of 192 KiB: two or three packets of the largest, a hundred
    /// ordinary ones; a second, in which every frontend that runs has long been scheduled; 32
    /// interfaces, whose batches make 12 MiB.
    fn default() -> Self {
        NetbackOptions {
            mac: MacAddress([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]),
            mtu: MTU_DEFAULT,
            batch_bytes: 192 * 1024,
            stall: Duration::from_secs(1),
            segmentation: true,
            frontends_max: 32,
        }
    }
}

impl NetbackOptions {
    fn batch_bytes(&self) -> usize {
        self.batch_bytes.clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX)
    }

    /// What the frontend may send to be cut.
    fn offered(&self) -> GsoFamilies {
        GsoFamilies { tcpv4: self.segmentation, tcpv6: self.segmentation }
    }
}

/// What the frontend asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackSettings {
    /// Whose interface it is.
    pub frontend: DomainId,
    /// It takes packets of several slots (`feature-sg`).
    pub scatter_gather: bool,
    /// It takes these uncut (`feature-gso-tcpv4`, `feature-gso-tcpv6`).
    pub segmentation: GsoFamilies,
    /// It takes TCP and UDP over IPv4 with blank checksums (no `feature-no-csum-offload`).
    pub checksum: bool,
    /// The same over IPv6 (`feature-ipv6-csum-offload`).
    pub checksum_ipv6: bool,
}

impl BackSettings {
    /// Only what every frontend does.
    pub const fn plain(frontend: DomainId) -> Self {
        BackSettings {
            frontend,
            scatter_gather: false,
            segmentation: GsoFamilies { tcpv4: false, tcpv6: false },
            checksum: false,
            checksum_ipv6: false,
        }
    }

    /// The settings with what makes sense of them: segments are cut from packets with blank
    /// checksums in several slots.
    fn sane(mut self) -> Self {
        self.segmentation.tcpv4 &= self.scatter_gather && self.checksum;
        self.segmentation.tcpv6 &= self.scatter_gather && self.checksum_ipv6;
        self
    }

    fn offloads(&self) -> Offloads {
        Offloads {
            transmit_checksum: self.checksum,
            transmit_checksum_ipv6: self.checksum_ipv6,
            segmentation_ipv4: self.segmentation.tcpv4,
            segmentation_ipv6: self.segmentation.tcpv6,
            segmented_frame_bytes_max: if self.segmentation.any() { PACKET_BYTES_MAX } else { 0 },
        }
    }

    /// The MTU of the link: a frontend without scatter-gather takes what fits into a page.
    fn mtu(&self, options: &NetbackOptions) -> usize {
        let most = if self.scatter_gather { PACKET_BYTES_MAX - 18 } else { MTU_DEFAULT };
        options.mtu.clamp(MTU_MIN, most)
    }
}

/// A network interface whose other end is another guest's netfront. It lives as long as that one's
/// connection.
pub struct Netback {
    link: Link<BackRings>,
    settings: BackSettings,
    mac: MacAddress,
    mtu: usize,
    counters: Arc<NetCounters>,
    /// Fires when the frontend has lent no page for [`NetbackOptions::stall`].
    stall: Option<Pin<Box<Sleep>>>,
    stall_after: Duration,
    stalled: bool,
}

/// The handshake's view of the connections of one frontend.
#[derive(Debug)]
pub(super) struct BackDevice {
    options: NetbackOptions,
    /// The connection that there is now.
    link: Option<Link<BackRings>>,
}

impl BackDevice {
    pub(super) fn new(options: NetbackOptions) -> Self {
        BackDevice { options, link: None }
    }

    /// Both ends are connected: the interface of this connection.
    pub(super) fn connect(&mut self, mut rings: BackRings, settings: BackSettings) -> Netback {
        let settings = settings.sane();
        let (link, counters) = (Link::with(rings.sleepers().clone()), Arc::default());
        let mtu = settings.mtu(&self.options);
        rings.connect(settings, &self.options, &counters);
        NetCounters::add(&counters.connections, 1);
        link.connect(rings);
        self.link = Some(link.clone());
        Netback {
            link,
            settings,
            mac: self.options.mac,
            mtu,
            counters,
            stall: None,
            stall_after: self.options.stall,
            stalled: false,
        }
    }

    /// The connection has ended, and its interface with it. The rings.
    pub(super) fn disconnect(&mut self, why: &str) -> Option<BackRings> {
        let link = self.link.take()?;
        let rings = link.disconnect();
        link.end(NicError::Disconnected(why.into()));
        rings
    }

    /// Waits for what the interface's user does; for ever while nothing is connected.
    pub(super) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        self.link.as_ref().map_or(Poll::Pending, |link| link.poll_event(cx))
    }
}

impl Netback {
    /// What was counted so far. They go on counting when the driver has been given to a stack.
    pub fn counters(&self) -> Arc<NetCounters> {
        self.counters.clone()
    }

    /// What the frontend asked for.
    pub fn settings(&self) -> &BackSettings {
        &self.settings
    }

    /// The frontend lends no pages: waits for it, but not for ever. Ready: long enough.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stalled {
            return Poll::Ready(());
        }
        let after = self.stall_after;
        let sleep = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
        core::task::ready!(sleep.as_mut().poll(cx));
        self.stalled = true;
        Poll::Ready(())
    }
}

impl Nic for Netback {
    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn offloads(&self) -> Offloads {
        self.settings.offloads()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Poll<Result<(), NicError>> {
        let mut state = self.link.lock();
        match &mut state.rings {
            Err(error) => Poll::Ready(Err(error.clone())),
            Ok(None) => {
                self.link.wait(Sleeper::Receive, cx);
                Poll::Pending
            }
            Ok(Some(rings)) => {
                rings.poll_receive(cx, consume).map(|got| got.map_err(|rule| state.fail(rule)))
            }
        }
    }

    fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, NicError>> {
        {
            let mut state = self.link.lock();
            match &mut state.rings {
                Err(error) => return Poll::Ready(Err(error.clone())),
                Ok(None) => {
                    self.link.wait(Sleeper::Transmit, cx);
                    return Poll::Pending;
                }
                Ok(Some(rings)) => match rings.poll_transmit(cx, fill) {
                    Poll::Ready(Ok(sent)) => {
                        self.stalled = false;
                        self.stall = None;
                        return Poll::Ready(Ok(sent));
                    }
                    Poll::Ready(Err(rule)) => return Poll::Ready(Err(state.fail(rule))),
                    Poll::Pending => {}
                },
            }
        }
        core::task::ready!(self.poll_stalled(cx));
        match &mut self.link.lock().rings {
            Ok(Some(rings)) => Poll::Ready(Ok(rings.drop_frame(fill))),
            Ok(None) => Poll::Ready(Ok(false)),
            Err(error) => Poll::Ready(Err(error.clone())),
        }
    }

    fn flush(&mut self) -> Result<(), NicError> {
        match &mut self.link.lock().rings {
            Ok(Some(rings)) => rings.flush(),
            Ok(None) => {}
            Err(error) => return Err(error.clone()),
        }
        Ok(())
    }
}

impl Drop for Netback {
    fn drop(&mut self) {
        self.link.abandon();
    }
}

impl core::fmt::Debug for Netback {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Netback").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
