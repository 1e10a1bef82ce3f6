//! [`Nic`]: a network interface that moves Ethernet frames.

use core::fmt;
use core::task::{Context, Poll};

/// An EUI-48 address, first byte on the wire first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address that every interface listens to.
    pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);

    /// True if this address names one interface (the group bit of the first byte is clear).
    pub const fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the device says of the transport checksum of a frame that it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing: whoever reads the frame must verify the sum in it.
    Unverified,
    /// The sum in the frame was verified (virtio `VIRTIO_NET_HDR_F_DATA_VALID`).
    Verified,
    /// The frame never left this host, so its sum is not filled in, and its data is as good as the
    /// memory that it was copied from (virtio `VIRTIO_NET_HDR_F_NEEDS_CSUM`). Whoever forwards the
    /// frame must fill the sum in.
    Blank,
}

/// The family of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A frame that holds more TCP payload than one packet may: whoever puts it on a wire cuts it.
///
/// Its IP and TCP headers are those of the first segment, but for the IP length, which is that of
/// the whole; the TCP checksum field holds the pseudo-header's sum (Linux's
/// `SKB_GSO_TCPV4`/`TCPV6`, virtio 1.2 section 5.1.6.2, Xen's `XEN_NETIF_EXTRA_TYPE_GSO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Whether the segments are IPv4's or IPv6's.
    pub family: IpFamily,
    /// TCP payload of each segment but the last, in bytes; at least 1.
    pub mss: u16,
}

/// What the device says of a frame beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Whether the transport checksum was looked at.
    pub checksum: Checksum,
    /// The frame is several TCP segments in one, and may be longer than `14 + mtu`. Whoever hands
    /// it on must hand this on too, or cut it.
    pub segmentation: Option<Segmentation>,
}

impl Received {
    /// An ordinary frame of which the device says nothing.
    pub const UNVERIFIED: Received =
        Received { checksum: Checksum::Unverified, segmentation: None };
}

/// A frame that was written into a transmit buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Length of the whole frame in bytes, from the Ethernet header on, without FCS.
    pub len: usize,
    /// Where the device must finish an Internet checksum, if it must. Only allowed when
    /// [`Offloads::transmit_checksum`] (for IPv6, [`Offloads::transmit_checksum_ipv6`]) is set.
    pub partial_checksum: Option<PartialChecksum>,
    /// The device must cut the frame into segments. Only allowed when the [`Offloads`] name the
    /// family, and together with `partial_checksum`.
    pub segmentation: Option<Segmentation>,
}

impl Transmit {
    /// An ordinary frame of `len` bytes, complete as it stands.
    pub const fn complete(len: usize) -> Self {
        Transmit { len, partial_checksum: None, segmentation: None }
    }
}

/// A checksum left to the device: it sums the frame from `start` to its end and writes the
/// complement at `start + offset`, where the pseudo-header's sum stands already (virtio 1.2,
/// section 5.1.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// First byte that is summed, counted from the start of the frame.
    pub start: u16,
    /// Where the sum belongs, counted from `start`.
    pub offset: u16,
}

/// The work that a device takes off the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The device finishes TCP's and UDP's checksum on IPv4 frames with
    /// [`Transmit::partial_checksum`].
    pub transmit_checksum: bool,
    /// The same on IPv6 frames.
    pub transmit_checksum_ipv6: bool,
    /// The device cuts TCP over IPv4.
    pub segmentation_ipv4: bool,
    /// The device cuts TCP over IPv6.
    pub segmentation_ipv6: bool,
    /// Length of the longest frame that it cuts, in bytes from the Ethernet header on; at most
    /// 65,549 (an IP packet's 65,535 and the header). 0 if it cuts none.
    pub segmented_frame_bytes_max: usize,
}

/// Why an interface stopped. Final: every later call returns an error too.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NicError {
    /// The device broke the rules of its interface; the text says which rule. It was reset and
    /// closed, because nothing that it says can be believed any more.
    Misbehaved(String),
    /// The device is gone: unplugged, or the host closed it; the text says what was seen.
    Disconnected(String),
}

impl fmt::Display for NicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NicError::Misbehaved(rule) => {
                write!(f, "the network device broke its contract: {rule}")
            }
            NicError::Disconnected(what) => write!(f, "the network device is gone: {what}"),
        }
    }
}

impl std::error::Error for NicError {}

/// A network interface: Ethernet frames, without FCS, in and out.
///
/// **Buffers.** The driver owns all buffers. It lends them, for the length of one call, to a
/// closure that reads a received frame or writes one to transmit. So a frame is copied once in
/// each direction (between the socket's buffer and the device's), and a future that is dropped
/// never leaves a device writing into memory that was freed.
///
/// **Waking.** A method that returns [`Poll::Pending`] has stored the task's waker and wakes it
/// when calling again may succeed. Receive and transmit remember one waker each, the last one.
///
/// **Errors** are final.
pub trait Nic: Send + 'static {
    /// The interface's own address; unicast.
    fn mac(&self) -> MacAddress;

    /// The largest IP packet that fits into a frame, in bytes: 68 to 65,535. A frame is at most
    /// 14 bytes longer, unless it is to be cut ([`Segmentation`]).
    fn mtu(&self) -> usize;

    /// The work that the device takes off the stack. Does not change while the device lives.
    fn offloads(&self) -> Offloads;

    /// Lends the next received frame to `consume`, then gives its buffer back to the device.
    ///
    /// The frame is the device's allegation: `consume` must check all of it. Frames arrive in the
    /// order in which the device delivered them. `Ready(Ok(()))` means that `consume` was called
    /// once.
    ///
    /// # Errors
    /// [`NicError`], finally.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Poll<Result<(), NicError>>;

    /// Lends a buffer to `fill`, and queues the frame that it wrote. The buffer has at least
    /// `14 + mtu` bytes, and at least [`Offloads::segmented_frame_bytes_max`].
    ///
    /// `fill` returns `None` when it has nothing to send; the buffer is taken back and the call
    /// returns `Ready(Ok(false))`. `Pending` means that all buffers are with the device; `fill`
    /// was not called. The device may not see the frame before [`flush`](Nic::flush).
    ///
    /// # Errors
    /// [`NicError`], finally.
    fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, NicError>>;

    /// Tells the device about all frames queued and all receive buffers given back since the last
    /// call, with as few notifications as its interface allows. To be called once at the end of
    /// each batch.
    ///
    /// # Errors
    /// [`NicError`], finally.
    fn flush(&mut self) -> Result<(), NicError>;
}
