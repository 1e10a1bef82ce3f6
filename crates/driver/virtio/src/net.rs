//! [`VirtioNet`]: virtio's network device (virtio 1.2, section 5.1) as a [`Nic`].
//!
//! **Buffers.** All are made at start and owned here, as many as the memory budget allows. While
//! the device has one, the queue owns it and nobody can look at it. A received frame is lent to the
//! consumer where the device put it; only one that spans several buffers is joined (copied) first.
//! Where memory allows, a receive buffer is therefore as large as the largest frame of several
//! segments, and there are few of them.
//!
//! **Few exits.** Each notification and each register access leaves the guest, which costs more
//! than handling a frame. So: one notification per batch ([`Nic::flush`]), and with event index
//! only when the device sleeps; no interrupts while frames are there; none for transmission
//! (buffers are reclaimed at the next send) unless all buffers are out. Polling looks at the ring
//! itself, whatever interrupts said.

mod counters;
mod header;
mod transmit;

pub use counters::NetCounters;

use crate::control::{Control, Illness};
use crate::error::ProbeError;
use crate::queue::VirtQueue;
use crate::transport::Transport;
use core::task::{Context, Poll};
use fata_device::{MacAddress, Nic, NicError, Offloads, Received, Transmit};
use fata_shared::dma::{DmaBuffer, LentBuffer};
use fata_virtq::{Segment, Used};
use header::{Families, HEADER_LEN};
use std::sync::Arc;
use transmit::{Buffers, Plan};

/// Feature bits (section 5.1.3).
pub(crate) mod feature {
    pub(crate) const CSUM: u64 = 1 << 0;
    pub(crate) const GUEST_CSUM: u64 = 1 << 1;
    pub(crate) const MTU: u64 = 1 << 3;
    pub(crate) const MAC: u64 = 1 << 5;
    pub(crate) const GUEST_TSO4: u64 = 1 << 7;
    pub(crate) const GUEST_TSO6: u64 = 1 << 8;
    pub(crate) const HOST_TSO4: u64 = 1 << 11;
    pub(crate) const HOST_TSO6: u64 = 1 << 12;
    pub(crate) const MRG_RXBUF: u64 = 1 << 15;
    pub(crate) const STATUS: u64 = 1 << 16;
}

const RECEIVE_QUEUE: u16 = 0;
const TRANSMIT_QUEUE: u16 = 1;

/// The Ethernet header: two addresses and a type.
const ETHERNET_HEADER_LEN: usize = 14;
/// The MTU of Ethernet, where the device says nothing else.
const MTU_DEFAULT: usize = 1500;
/// The least MTU that IPv4 allows (RFC 791).
const MTU_MIN: usize = 68;
/// The longest IP packet without a jumbogram's option, in bytes: what a device cuts at most.
const IP_BYTES_MAX: usize = 65_535;
/// Least memory for receive buffers with which frames of several segments are asked for: such a
/// frame of 64 KiB, and half of the next one.
const SEGMENTED_RECEIVE_BYTES_MIN: usize = 96 * 1024;
/// Size of a receive buffer when frames may span several: holds a whole Ethernet frame, and two
/// make a page.
const MERGEABLE_BUFFER_LEN: usize = 2048;
/// Size of a receive buffer that holds any frame of several segments.
const WHOLE_BUFFER_LEN: usize =
    (HEADER_LEN + ETHERNET_HEADER_LEN + IP_BYTES_MAX).next_multiple_of(64);
/// With fewer of those, batches of small frames are too short.
const WHOLE_BUFFERS_MIN: usize = 8;
/// More of them do not help.
const WHOLE_BUFFERS_MAX: usize = 16;
/// Fewer buffers than this in a direction, and it stalls at every batch.
const BUFFERS_MIN: u16 = 4;
/// More than this never help: it is a whole send window of 64 KiB for five connections at once.
const BUFFERS_MAX: u16 = 256;

/// How much memory a network device may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetOptions {
    /// For receive buffers, in bytes: 8 to 16 of 64 KiB if the device gives TCP segments joined, else 4
    /// to 256 of 2 KiB (more if the MTU asks for it).
    pub receive_bytes: usize,
    /// For transmit buffers, in bytes; 4 to 256 buffers of an MTU and 26 bytes, or half of it for
    /// 4 to 8 buffers of up to 64 KiB if the device cuts TCP segments.
    pub transmit_bytes: usize,
    /// Let the device cut TCP into segments, and take several in one.
    pub segmentation: bool,
}

impl Default for NetOptions {
    /// The most that is of use: a little over 1 MiB for receiving, 1 MiB for transmitting.
    fn default() -> Self {
        NetOptions {
            receive_bytes: WHOLE_BUFFERS_MAX * WHOLE_BUFFER_LEN,
            transmit_bytes: 1024 * 1024,
            segmentation: true,
        }
    }
}

impl NetOptions {
    /// What suits a machine of so many bytes in all: a 64th for each direction, and never more
    /// than the default. (8 MiB: 128 KiB each, 64 receive buffers.)
    pub fn for_memory(total_bytes: u64) -> Self {
        let share = usize::try_from(total_bytes / 64).unwrap_or(usize::MAX);
        let most = NetOptions::default();
        NetOptions {
            receive_bytes: share.min(most.receive_bytes),
            transmit_bytes: share.min(most.transmit_bytes),
            ..most
        }
    }
}

/// A virtio network device.
pub struct VirtioNet {
    control: Control,
    mac: MacAddress,
    mtu: usize,
    /// Frames may span several receive buffers (`VIRTIO_NET_F_MRG_RXBUF`).
    mergeable: bool,
    /// The queues, or why the device was closed.
    state: Result<Queues, NicError>,
    /// What the device may give us, and takes from us, in several segments.
    receive_segments: Families,
    offloads: Offloads,
    /// Transmit buffers that the device does not have.
    free: Buffers,
    /// Where a frame that spans several buffers is joined. At most a frame and a buffer long.
    joined: Vec<u8>,
    counters: Arc<NetCounters>,
}

struct Queues {
    receive: VirtQueue<LentBuffer>,
    transmit: VirtQueue<LentBuffer>,
}

impl VirtioNet {
    pub(crate) fn start(
        transport: Box<dyn Transport>,
        options: &NetOptions,
    ) -> Result<Self, ProbeError> {
        use feature::{CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6};
        use feature::{MAC, MRG_RXBUF, MTU, STATUS};
        let wanted = |offered: u64| {
            let mut wanted = CSUM | GUEST_CSUM | MTU | MAC | MRG_RXBUF | STATUS;
            // Section 5.1.3.1: no segmentation without checksums.
            if offered & CSUM != 0 && options.segmentation {
                wanted |= HOST_TSO4 | HOST_TSO6;
            }
            // Without mergeable buffers each would have to hold 64 KiB.
            let has_room = options.receive_bytes >= SEGMENTED_RECEIVE_BYTES_MIN;
            let takes_several = options.segmentation && has_room;
            if offered & GUEST_CSUM != 0 && offered & MRG_RXBUF != 0 && takes_several {
                wanted |= GUEST_TSO4 | GUEST_TSO6;
            }
            wanted
        };
        let mut control = Control::start_choosing(transport, wanted, 2)?;
        if !control.has(MAC) {
            return Err(ProbeError::MissingFeature("VIRTIO_NET_F_MAC"));
        }
        let has_mtu = control.has(MTU);
        if control.config_len() < if has_mtu { 12 } else { 6 } {
            return Err(ProbeError::BadConfiguration(format!(
                "it has only {} bytes",
                control.config_len()
            )));
        }
        let (mac, mtu) = control.read_config(|config| {
            let mac = MacAddress(core::array::from_fn(|at| config.read_u8(at)));
            (mac, if has_mtu { usize::from(config.read_u16(10)) } else { MTU_DEFAULT })
        })?;
        if !mac.is_unicast() || mac == MacAddress([0; 6]) {
            return Err(ProbeError::BadConfiguration(format!(
                "{mac} is no address of an interface"
            )));
        }
        if mtu < MTU_MIN {
            return Err(ProbeError::BadConfiguration(format!(
                "an MTU of {mtu} is below {MTU_MIN}, the least that IPv4 allows"
            )));
        }
        let mergeable = control.has(MRG_RXBUF);

        // Section 5.1.6.3.1: without mergeable buffers each must hold a whole frame.
        let whole = HEADER_LEN + ETHERNET_HEADER_LEN + mtu;
        let cuts = control.has(HOST_TSO4) || control.has(HOST_TSO6);
        let plan = Plan::new(options.transmit_bytes, mtu, cuts);
        let receive_segments =
            Families { ipv4: control.has(GUEST_TSO4), ipv6: control.has(GUEST_TSO6) };
        let whole_buffers = options.receive_bytes / WHOLE_BUFFER_LEN;
        let takes_several = receive_segments != Families::default();
        let (receive_len, receive_count) = if takes_several && whole_buffers >= WHOLE_BUFFERS_MIN {
            (WHOLE_BUFFER_LEN, whole_buffers.min(WHOLE_BUFFERS_MAX) as u16)
        } else {
            let len = if mergeable { MERGEABLE_BUFFER_LEN } else { whole.max(2048) };
            (len, count_within(options.receive_bytes, len))
        };
        let receive_size = control.queue_size(RECEIVE_QUEUE, 2, receive_count)?;
        let transmit_size = control.queue_size(TRANSMIT_QUEUE, 2, plan.count())?;
        let mut receive = control.queue(RECEIVE_QUEUE, receive_size)?;
        let transmit = control.queue(TRANSMIT_QUEUE, transmit_size)?;
        // With mergeable buffers a whole frame must fit into all of them together (section
        // 5.1.6.3.1); a device with so small a queue cannot have so large an MTU.
        let receive_count = receive_count.min(receive_size);
        if usize::from(receive_count) * receive_len < whole {
            return Err(ProbeError::BadConfiguration(format!(
                "an MTU of {mtu} needs a receive queue of more than {receive_size}"
            )));
        }
        let largest = HEADER_LEN + ETHERNET_HEADER_LEN + IP_BYTES_MAX;
        if takes_several && usize::from(receive_count) * receive_len < largest {
            return Err(ProbeError::BadConfiguration(format!(
                "frames of {largest} bytes, which it offers to deliver, need a receive queue of \
                 more than {receive_size}"
            )));
        }
        for _ in 0..receive_count {
            offer(&mut receive, DmaBuffer::zeroed(receive_len));
        }
        let free = plan.make(transmit_size);
        // The device sums what it is told to sum, whatever it is (section 5.1.6.2).
        let checksum = control.has(CSUM);
        let segmented_frame_bytes_max = free.segmented_frame_bytes_max();
        let cuts = segmented_frame_bytes_max > 0;
        let offloads = Offloads {
            transmit_checksum: checksum,
            transmit_checksum_ipv6: checksum,
            segmentation_ipv4: cuts && control.has(HOST_TSO4),
            segmentation_ipv6: cuts && control.has(HOST_TSO6),
            segmented_frame_bytes_max,
        };

        control.run();
        receive.notify();
        Ok(VirtioNet {
            free,
            receive_segments,
            offloads,
            control,
            mac,
            mtu,
            mergeable,
            state: Ok(Queues { receive, transmit }),
            joined: Vec::new(),
            counters: Arc::default(),
        })
    }

    /// What was counted so far. They go on counting when the driver has been given to a stack.
    pub fn counters(&self) -> Arc<NetCounters> {
        self.counters.clone()
    }

    /// False if the device says that its link is down (section 5.1.4). Reads a register.
    pub fn link_is_up(&self) -> bool {
        if !self.control.has(feature::STATUS) {
            return true;
        }
        self.control.read_config(|config| config.read_u16(6) & 1 != 0).unwrap_or(false)
    }

    /// Closes the device for good, and says why.
    fn close(&mut self, why: NicError) -> NicError {
        let Queues { receive, transmit } =
            match core::mem::replace(&mut self.state, Err(why.clone())) {
                Ok(queues) => queues,
                Err(earlier) => {
                    self.state = Err(earlier.clone());
                    return earlier;
                }
            };
        let quiet = self.control.reset();
        for lent in receive.dismantle(quiet).into_iter().chain(transmit.dismantle(quiet)) {
            // Dropped as it is, its memory is quarantined.
            if quiet {
                drop(lent.take_back());
            }
        }
        self.free.clear();
        why
    }

    fn close_for(&mut self, rule: impl ToString) -> NicError {
        self.close(NicError::Misbehaved(rule.to_string()))
    }

    /// Before sleeping: is the device alive?
    fn check_health(&mut self) -> Result<(), NicError> {
        if !self.control.interrupts().take_attention() {
            return Ok(());
        }
        match self.control.illness() {
            None => Ok(()),
            Some(illness @ Illness::Gone) => {
                Err(self.close(NicError::Disconnected(illness.describe().into())))
            }
            Some(illness @ Illness::NeedsReset) => Err(self.close_for(illness.describe())),
        }
    }

    /// Lends a received frame to `consume` and gives its buffers back. False: there was no frame
    /// that is fit for use, and it was counted.
    fn deliver(
        &mut self,
        first: Used<LentBuffer>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Result<bool, NicError> {
        let receive = match &mut self.state {
            Ok(queues) => &mut queues.receive,
            Err(error) => return Err(error.clone()),
        };
        let written = first.written as usize;
        let mut buffer = first.token.take_back();
        let Some(header) = header::Header::read(&buffer[..written]) else {
            return Err(self.close_for(format_args!(
                "{written} bytes were written to a receive buffer, and the header alone has \
                 {HEADER_LEN}"
            )));
        };
        let checksum = header.checksum(self.control.has(feature::GUEST_CSUM));
        let said = header.segmentation(self.receive_segments);
        let ip_max = if let Ok(Some(_)) = said { IP_BYTES_MAX } else { self.mtu };
        let frame_max = ETHERNET_HEADER_LEN + ip_max;
        let said = said.map(|segmentation| Received { checksum, segmentation });
        let buffers = if self.mergeable { usize::from(header.buffers) } else { 1 };

        let said = if buffers == 1 {
            let frame = &mut buffer[HEADER_LEN..written];
            let is_fit = (ETHERNET_HEADER_LEN..=frame_max).contains(&frame.len());
            let said = said.ok().filter(|_| is_fit);
            if let Some(said) = said {
                consume(frame, said);
            }
            offer(receive, buffer);
            said
        } else {
            // Section 5.1.6.4: 0 is never right, and there are no more than the device had. A frame
            // may well be too long (another host on the wire may have a larger MTU): it is passed
            // over below, not held against the device.
            let had = usize::from(receive.outstanding()) + 1;
            if buffers == 0 || buffers > had {
                return Err(self.close_for(format_args!(
                    "a frame is said to span {buffers} receive buffers, and the device had {had}"
                )));
            }
            self.joined.clear();
            self.joined.extend_from_slice(&buffer[HEADER_LEN..written]);
            offer(receive, buffer);
            for had in 1..buffers {
                // Section 5.1.6.4.1: all are used before the first is announced.
                let taken = match receive.take_used() {
                    Ok(taken) => taken,
                    Err(rule) => return Err(self.close_for(rule)),
                };
                let Some(used) = taken else {
                    return Err(self.close_for(format_args!(
                        "a frame is said to span {buffers} receive buffers, and only {had} came"
                    )));
                };
                let part = used.token.take_back();
                if self.joined.len() <= frame_max {
                    self.joined.extend_from_slice(&part[..used.written as usize]);
                }
                offer(receive, part);
            }
            let is_fit = (ETHERNET_HEADER_LEN..=frame_max).contains(&self.joined.len());
            let said = said.ok().filter(|_| is_fit);
            if let Some(said) = said {
                NetCounters::add(&self.counters.joined, 1);
                consume(&mut self.joined, said);
            }
            said
        };
        let Some(said) = said else {
            NetCounters::add(&self.counters.receive_unfit, 1);
            return Ok(false);
        };
        NetCounters::add(&self.counters.received, 1);
        if said.segmentation.is_some() {
            NetCounters::add(&self.counters.received_segmented, 1);
        }
        Ok(true)
    }

    /// A transmit buffer that the device does not have, if there is one.
    fn free_buffer(&mut self) -> Result<Option<DmaBuffer>, NicError> {
        let transmit = match &mut self.state {
            Ok(queues) => &mut queues.transmit,
            Err(error) => return Err(error.clone()),
        };
        // Always, not only when all are out: a buffer used again soon is still in the cache.
        loop {
            match transmit.take_used() {
                Ok(Some(used)) => self.free.put(used.token.take_back()),
                Ok(None) => return Ok(self.free.take()),
                Err(rule) => return Err(self.close_for(rule)),
            }
        }
    }
}

/// How many buffers of `len` bytes a budget allows.
fn count_within(budget: usize, len: usize) -> u16 {
    (budget / len).clamp(BUFFERS_MIN.into(), BUFFERS_MAX.into()) as u16
}

/// Gives a receive buffer to the device.
fn offer(receive: &mut VirtQueue<LentBuffer>, buffer: DmaBuffer) {
    let lent = buffer.lend();
    let segment = Segment { address: lent.address(), len: lent.len() as u32 };
    if let Err(error) = receive.add(&[], &[segment], lent) {
        // There are no more buffers than descriptors, so it fits; a queue that failed meanwhile
        // is about to be closed, and the buffer goes with it.
        drop(error.token.take_back());
    }
}

impl Nic for VirtioNet {
    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Poll<Result<(), NicError>> {
        // A device that has nothing but unfit frames must not keep us here for ever.
        for _ in 0..BUFFERS_MAX {
            let receive = match &mut self.state {
                Ok(queues) => &mut queues.receive,
                Err(error) => return Poll::Ready(Err(error.clone())),
            };
            match receive.take_used() {
                Ok(Some(used)) => match self.deliver(used, consume) {
                    Ok(true) => return Poll::Ready(Ok(())),
                    Ok(false) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                },
                Ok(None) => {
                    if receive.may_sleep(cx.waker(), 1) {
                        // After the registration: what comes later wakes us.
                        return match self.check_health() {
                            Ok(()) => Poll::Pending,
                            Err(error) => Poll::Ready(Err(error)),
                        };
                    }
                }
                Err(rule) => return Poll::Ready(Err(self.close_for(rule))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, NicError>> {
        let mut buffer = loop {
            match self.free_buffer() {
                Ok(Some(buffer)) => break buffer,
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            let queues = match &mut self.state {
                Ok(queues) => queues,
                Err(error) => return Poll::Ready(Err(error.clone())),
            };
            // Woken once when most are free again, not once for each.
            let most = queues.transmit.outstanding() - queues.transmit.outstanding() / 4;
            if queues.transmit.may_sleep(cx.waker(), most) {
                NetCounters::add(&self.counters.transmit_waits, 1);
                return match self.check_health() {
                    Ok(()) => Poll::Pending,
                    Err(error) => Poll::Ready(Err(error)),
                };
            }
        };
        let Some(transmit) = fill(&mut buffer[HEADER_LEN..]) else {
            self.free.put(buffer);
            return Poll::Ready(Ok(false));
        };
        let len = HEADER_LEN + transmit.len;
        assert!(
            transmit.len >= ETHERNET_HEADER_LEN && len <= buffer.len(),
            "a frame of {} bytes was written into a buffer of {}",
            transmit.len,
            buffer.len() - HEADER_LEN
        );
        header::write(&mut buffer, &transmit);
        let lent = self.free.settle(buffer, len).lend();
        let segment = Segment { address: lent.address(), len: len as u32 };
        let queues = match &mut self.state {
            Ok(queues) => queues,
            Err(error) => return Poll::Ready(Err(error.clone())),
        };
        match queues.transmit.add(&[segment], &[], lent) {
            Ok(()) => {
                NetCounters::add(&self.counters.transmitted, 1);
                if transmit.segmentation.is_some() {
                    NetCounters::add(&self.counters.transmitted_segmented, 1);
                }
                Poll::Ready(Ok(true))
            }
            // There are no more buffers than descriptors: only a queue that failed refuses.
            Err(error) => {
                self.free.put(error.token.take_back());
                Poll::Ready(Err(self.close_for("the transmit queue is closed")))
            }
        }
    }

    fn flush(&mut self) -> Result<(), NicError> {
        match &mut self.state {
            Ok(queues) => {
                queues.transmit.notify();
                queues.receive.notify();
                Ok(())
            }
            Err(error) => Err(error.clone()),
        }
    }
}

impl Drop for VirtioNet {
    fn drop(&mut self) {
        self.close(NicError::Disconnected("the driver was dropped".into()));
    }
}

impl core::fmt::Debug for VirtioNet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VirtioNet")
            .field("mac", &self.mac)
            .field("mtu", &self.mtu)
            .field("mergeable", &self.mergeable)
            .field("closed", &self.state.as_ref().err())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
