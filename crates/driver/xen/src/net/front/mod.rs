//! [`Netfront`]: the guest's end of a network interface.

mod keeper;
mod outbox;
mod rings;

pub use keeper::NetSlot;
pub(super) use keeper::offloads;
pub(super) use rings::FrontRings;

use super::channel::Sleeper;
use super::counters::NetCounters;
use super::link::Link;
use super::{MTU_DEFAULT, MTU_MIN, PAGE_BYTES};
use crate::xenbus::DeviceEvent;
use core::task::{Context, Poll, Waker};
use fata_device::{MacAddress, Nic, NicError, Offloads, Received, Transmit};
use fata_xenbus::ring::net::{GsoFamilies, PACKET_BYTES_MAX};
use std::sync::Arc;

/// How much memory a netfront may use. It is granted to the backend for as long as the interface
/// is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetfrontOptions {
    /// For receiving, in bytes: 32 to 256 pages, a power of two. Fewer than 18 would not hold the
    /// longest packet; more than 256 do not fit into the ring.
    pub receive_bytes: usize,
    /// For transmitting, in bytes: 128 to 512 KiB, in which frames lie one after the other, and up to
    /// 64 KiB more for the last of them to end in.
    pub transmit_bytes: usize,
    /// Let the backend cut TCP into segments, and take several in one.
    pub segmentation: bool,
    /// How long the backend may take to come when the interface is started, in nanoseconds. 60 s: see
    /// [`Joining::connect_nanos`](fata_xenbus::handshake::Joining::connect_nanos).
    pub connect_nanos: u64,
}

/// Receive pages at least and at most, see [`NetfrontOptions::receive_bytes`].
const RECEIVE_PAGES_MIN: usize = 32;
const RECEIVE_PAGES_MAX: usize = 256;
/// Transmit memory at least (the longest frame, and as much again to write the next) and at most
/// (a unit for each slot of the ring).
const TRANSMIT_BYTES_MIN: usize = 128 * 1024;
const TRANSMIT_BYTES_MAX: usize = outbox::IDS * outbox::UNIT_BYTES;

impl Default for NetfrontOptions {
    /// 1 MiB and 512 KiB: as much as the rings can speak of.
    fn default() -> Self {
        NetfrontOptions {
            receive_bytes: RECEIVE_PAGES_MAX * PAGE_BYTES,
            transmit_bytes: TRANSMIT_BYTES_MAX,
            segmentation: true,
            connect_nanos: 60_000_000_000,
        }
    }
}

impl NetfrontOptions {
    /// What suits a machine of so many bytes in all: a 64th for each direction, and never more
    /// than the default. (32 MiB: 512 KiB each.)
    pub fn for_memory(total_bytes: u64) -> Self {
        let share = usize::try_from(total_bytes / 64).unwrap_or(usize::MAX);
        let most = NetfrontOptions::default();
        NetfrontOptions {
            receive_bytes: share.min(most.receive_bytes),
            transmit_bytes: share.min(most.transmit_bytes),
            ..most
        }
    }

    fn receive_pages(&self) -> usize {
        let pages = (self.receive_bytes / PAGE_BYTES).clamp(RECEIVE_PAGES_MIN, RECEIVE_PAGES_MAX);
        1 << pages.ilog2()
    }

    fn transmit_units(&self) -> usize {
        self.transmit_bytes.clamp(TRANSMIT_BYTES_MIN, TRANSMIT_BYTES_MAX) / outbox::UNIT_BYTES
    }
}

/// What was agreed with the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontSettings {
    /// Our address (`mac`, which the toolstack wrote).
    pub mac: MacAddress,
    /// The largest IP packet, in bytes (`mtu`, which the toolstack wrote); 1500 where it is missing.
    pub mtu: usize,
    /// The backend takes packets of several slots (`feature-sg`).
    pub scatter_gather: bool,
    /// The backend cuts these (`feature-gso-tcpv4`, `feature-gso-tcpv6`).
    pub segmentation: GsoFamilies,
    /// The backend finishes checksums of TCP and UDP on IPv6 (`feature-ipv6-csum-offload`). On IPv4
    /// every backend does.
    pub checksum_ipv6: bool,
}

impl FrontSettings {
    /// Nothing beyond what every backend does.
    pub const fn plain(mac: MacAddress) -> Self {
        FrontSettings {
            mac,
            mtu: MTU_DEFAULT,
            scatter_gather: false,
            segmentation: GsoFamilies { tcpv4: false, tcpv6: false },
            checksum_ipv6: false,
        }
    }

    /// The settings with what makes sense of them: an MTU that slots can carry, and segmentation
    /// only of packets that slots can carry.
    fn sane(mut self, options: &NetfrontOptions) -> Self {
        let mtu_max = if self.scatter_gather { PACKET_BYTES_MAX - 18 } else { MTU_DEFAULT };
        self.mtu = self.mtu.clamp(MTU_MIN, mtu_max);
        if !self.scatter_gather || !options.segmentation {
            self.segmentation = GsoFamilies::default();
        }
        // An IPv6 segment's checksum is blank, so who cannot finish one cannot cut.
        self.segmentation.tcpv6 &= self.checksum_ipv6;
        self
    }

    fn offloads(&self) -> Offloads {
        Offloads {
            transmit_checksum: true,
            transmit_checksum_ipv6: self.checksum_ipv6,
            segmentation_ipv4: self.segmentation.tcpv4,
            segmentation_ipv6: self.segmentation.tcpv6,
            segmented_frame_bytes_max: if self.segmentation.any() { PACKET_BYTES_MAX } else { 0 },
        }
    }

    /// Room that a frame may need, in bytes.
    fn frame_bytes_max(&self) -> usize {
        self.offloads().segmented_frame_bytes_max.max(super::ETHERNET_HEADER_BYTES + self.mtu)
    }

    /// What a stack that relies on `self` would miss of `other`; `None` if nothing.
    fn missing_in(&self, other: &FrontSettings) -> Option<&'static str> {
        if self.mac != other.mac {
            Some("another address")
        } else if other.mtu < self.mtu {
            Some("a smaller MTU")
        } else if self.checksum_ipv6 && !other.checksum_ipv6 {
            Some("no checksums of IPv6")
        } else if self.segmentation.tcpv4 && !other.segmentation.tcpv4
            || self.segmentation.tcpv6 && !other.segmentation.tcpv6
        {
            Some("no segmentation")
        } else {
            None
        }
    }
}

/// A network interface whose other end is a netback.
///
/// It outlives its backend: while there is none it waits, and goes on with the next.
pub struct Netfront {
    link: Link<FrontRings>,
    settings: FrontSettings,
    counters: Arc<NetCounters>,
    /// The next received frame; as long as the longest.
    scratch: Box<[u8]>,
}

/// The handshake's view of a [`Netfront`]: what connects it and takes it apart.
#[derive(Debug)]
pub(super) struct FrontDevice {
    link: Link<FrontRings>,
    options: NetfrontOptions,
    /// What the interface was started with.
    settings: Option<FrontSettings>,
    counters: Arc<NetCounters>,
}

impl FrontDevice {
    pub(super) fn new(options: NetfrontOptions) -> Self {
        FrontDevice {
            link: Link::with(Arc::default()),
            options,
            settings: None,
            counters: Arc::default(),
        }
    }

    /// Both ends are connected. The interface, the first time.
    ///
    /// # Errors
    /// In words, if the backend came back with less than a stack relies on by now: the interface
    /// has ended then, with the same words.
    pub(super) fn connect(
        &mut self,
        mut rings: FrontRings,
        settings: FrontSettings,
    ) -> Result<Option<Netfront>, String> {
        let settings = settings.sane(&self.options);
        if let Some(before) = &self.settings
            && let Some(missing) = before.missing_in(&settings)
        {
            let why = format!("the backend came back with {missing}");
            self.link.end(NicError::Disconnected(why.clone()));
            return Err(why);
        }
        let in_use = *self.settings.get_or_insert(settings);
        rings.connect(in_use)?;
        let first = self.counters.connections.load(core::sync::atomic::Ordering::Relaxed) == 0;
        NetCounters::add(&self.counters.connections, 1);
        if !first {
            announce(&mut rings, in_use.mac);
        }
        self.link.connect(rings);
        Ok(first.then(|| Netfront {
            link: self.link.clone(),
            settings: in_use,
            counters: self.counters.clone(),
            scratch: vec![0; PACKET_BYTES_MAX].into_boxed_slice(),
        }))
    }

    /// The interface is not connected any more; it waits for the next connection. The rings.
    pub(super) fn disconnect(&self) -> Option<FrontRings> {
        self.link.disconnect()
    }

    /// Waits for what the interface's user does.
    pub(super) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        self.link.poll_event(cx)
    }
}

/// Bytes of the shortest frame that Ethernet carries, without its checksum.
const FRAME_BYTES_MIN: usize = 60;

/// Says where the interface is now, by a request of RFC 903 that nobody has to answer. The backend is
/// another port of a bridge, or on another host, and until a bridge has seen a frame from there it
/// sends what is for us everywhere else; a program that only answers would wait for long.
fn announce(rings: &mut FrontRings, mac: MacAddress) {
    let mut fill = |frame: &mut [u8]| {
        frame[..FRAME_BYTES_MIN].fill(0);
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&mac.0);
        // Reverse ARP; Ethernet, IPv4, addresses of 6 and 4 bytes, a request for the address of `mac`.
        frame[12..22].copy_from_slice(&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        frame[22..28].copy_from_slice(&mac.0);
        frame[32..38].copy_from_slice(&mac.0);
        Some(Transmit::complete(FRAME_BYTES_MIN))
    };
    // A ring that is new has room. What is wrong with it is found by whoever sends next.
    let sent = rings.poll_transmit(&mut Context::from_waker(Waker::noop()), &mut fill);
    if let Poll::Ready(Ok(true)) = sent {
        rings.flush();
    }
}

impl Netfront {
    /// What was counted so far. They go on counting when the driver has been given to a stack.
    pub fn counters(&self) -> Arc<NetCounters> {
        self.counters.clone()
    }

    /// What was agreed with the backend.
    pub fn settings(&self) -> &FrontSettings {
        &self.settings
    }

    /// Writes an index that cannot be, where the backend finds it.
    #[cfg(test)]
    pub(super) fn break_the_ring(&mut self) {
        if let Ok(Some(rings)) = &mut self.link.lock().rings {
            rings.break_the_ring();
        }
    }
}

impl Nic for Netfront {
    fn mac(&self) -> MacAddress {
        self.settings.mac
    }

    fn mtu(&self) -> usize {
        self.settings.mtu
    }

    fn offloads(&self) -> Offloads {
        self.settings.offloads()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Poll<Result<(), NicError>> {
        let (bytes, received) = {
            let mut state = self.link.lock();
            match &mut state.rings {
                Err(error) => return Poll::Ready(Err(error.clone())),
                Ok(None) => {
                    self.link.wait(Sleeper::Receive, cx);
                    return Poll::Pending;
                }
                Ok(Some(rings)) => match rings.poll_receive(cx, &mut self.scratch) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(frame)) => frame,
                    Poll::Ready(Err(rule)) => return Poll::Ready(Err(state.fail(rule))),
                },
            }
        };
        consume(&mut self.scratch[..bytes], received);
        Poll::Ready(Ok(()))
    }

    fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, NicError>> {
        let mut state = self.link.lock();
        match &mut state.rings {
            Err(error) => Poll::Ready(Err(error.clone())),
            Ok(None) => {
                self.link.wait(Sleeper::Transmit, cx);
                Poll::Pending
            }
            Ok(Some(rings)) => {
                rings.poll_transmit(cx, fill).map(|sent| sent.map_err(|rule| state.fail(rule)))
            }
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

impl Drop for Netfront {
    fn drop(&mut self) {
        self.link.abandon();
    }
}

impl core::fmt::Debug for Netfront {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Netfront").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
