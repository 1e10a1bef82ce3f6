//! What a network card does for a stack: finishing checksums, cutting large frames, and joining
//! small ones.

use super::frames::{self, ACK, ETHERNET_BYTES, PSH, Transport, sum, u16_at, u32_at};
use core::num::NonZeroU16;
use fata_device::{Checksum, IpFamily, PartialChecksum, Received, Segmentation};
use fata_tcpip::segment::Cutter;
use std::collections::VecDeque;

/// What a card says of the transport's checksum of frames that it received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceiveChecksum {
    /// Nothing.
    #[default]
    Unverified,
    /// That it verified those that are right, as cards do.
    Verified,
    /// Of those that are right, nothing either: it makes them blank, as a host does with frames
    /// that never left it.
    Blank,
}

/// Finishes a checksum as a device does that knows nothing of protocols (virtio 1.2, section
/// 5.1.6.2).
///
/// # Panics
/// If the place is outside of the frame: the stack broke its contract.
pub(crate) fn finish(frame: &mut [u8], partial: PartialChecksum) {
    let start = usize::from(partial.start);
    let at = start + usize::from(partial.offset);
    assert!(start <= frame.len() && at + 2 <= frame.len(), "{partial:?} is outside of the frame");
    // UDP's sum of nought says that there is none (RFC 768): it is sent as its complement.
    let checksum = match !sum(&frame[start..]) {
        0 if partial.offset == 6 => 0xffff,
        checksum => checksum,
    };
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Cuts a large frame into those that go onto the wire.
///
/// # Panics
/// If it cannot be cut: the stack broke its contract.
pub(crate) fn cut(frame: &[u8], segmentation: Segmentation) -> Vec<Vec<u8>> {
    let mss = NonZeroU16::new(segmentation.mss).expect("a segment carries at least a byte");
    let mut cutter = Cutter::new(frame, mss)
        .unwrap_or_else(|error| panic!("a frame that the device is to cut: {error}"));
    let mut segments = Vec::with_capacity(cutter.segments());
    let mut buffer = vec![0; cutter.frame_bytes_max()];
    while let Some(cut) = cutter.write_next(frame, &mut buffer, false) {
        segments.push(buffer[..cut.len].to_vec());
    }
    segments
}

/// Takes the next frame from `queue` as a card hands it over.
pub(crate) fn take(
    queue: &mut VecDeque<Vec<u8>>,
    checksum: ReceiveChecksum,
    joins: bool,
) -> Option<(Vec<u8>, Received)> {
    let mut frame = queue.pop_front()?;
    if joins && let Some((joined, segmentation)) = join(&frame, queue) {
        let received = Received { checksum: Checksum::Blank, segmentation: Some(segmentation) };
        return Some((joined, received));
    }
    let intact = Transport::of(&frame).filter(|transport| transport.is_intact(&frame));
    let checksum = match (checksum, intact) {
        (ReceiveChecksum::Unverified, _) | (_, None) => Checksum::Unverified,
        (ReceiveChecksum::Verified, Some(_)) => Checksum::Verified,
        (ReceiveChecksum::Blank, Some(transport)) => {
            let sum = transport.pseudo_header(&frame);
            let at = transport.checksum_at();
            frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            Checksum::Blank
        }
    };
    Some((frame, Received { checksum, segmentation: None }))
}

/// A segment that may be joined with others: nothing but data, acknowledged.
fn joinable(frame: &[u8]) -> Option<Transport> {
    let transport = Transport::of(frame)?;
    let plain_ip = !transport.is_ipv4 || frame[ETHERNET_BYTES] == 0x45;
    let is_data = transport.is_tcp()
        && transport.payload_bytes() > 0
        && transport.flags(frame) & !PSH == ACK
        && transport.is_intact(frame);
    (plain_ip && is_data).then_some(transport)
}

/// True if `next` goes on where `first`, of which `joined` bytes of payload are there, ends: all but
/// the sequence number, the push flag and what is different in every packet is the same.
fn goes_on(first: (&[u8], &Transport), joined: usize, next: (&[u8], &Transport)) -> bool {
    let ((a, one), (b, two)) = (first, next);
    let addresses = if one.is_ipv4 { 26..34 } else { 22..54 };
    let sequence = u32_at(a, one.header + 4).wrapping_add(joined as u32);
    one.is_ipv4 == two.is_ipv4
        && one.payload == two.payload
        && a[..12] == b[..12]
        && a[addresses.clone()] == b[addresses]
        // Type of service and, for IPv6, the flow label.
        && a[15] == b[15]
        // Ports, acknowledgement, window, urgent pointer and options.
        && a[one.header..one.header + 4] == b[two.header..two.header + 4]
        && a[one.header + 8..one.header + 13] == b[two.header + 8..two.header + 13]
        && a[one.header + 14..one.header + 16] == b[two.header + 14..two.header + 16]
        && a[one.header + 18..one.payload] == b[two.header + 18..two.payload]
        && u32_at(b, two.header + 4) == sequence
}

/// Joins `first` with those of `queue` that go on behind it, as receive offload does (Linux's GRO).
fn join(first: &[u8], queue: &mut VecDeque<Vec<u8>>) -> Option<(Vec<u8>, Segmentation)> {
    let head = joinable(first)?;
    let mss = head.payload_bytes();
    let mut joined = first[..head.end].to_vec();
    let mut is_open = head.flags(first) & PSH == 0;
    let mut count = 1;
    while is_open {
        let Some(next) = queue.front() else { break };
        let Some(transport) = joinable(next) else { break };
        let payload = &next[transport.payload..transport.end];
        let fits = joined.len() + payload.len() <= ETHERNET_BYTES + 65_535;
        let so_far = joined.len() - head.payload;
        let same = goes_on((first, &head), so_far, (next, &transport));
        if !fits || !same || payload.len() > mss {
            break;
        }
        joined.extend_from_slice(payload);
        let push = transport.flags(next) & PSH;
        joined[head.header + 13] |= push;
        // A short one, or one that is pushed, is the last.
        is_open = payload.len() == mss && push == 0;
        queue.pop_front();
        count += 1;
    }
    if count == 1 {
        return None;
    }
    let len = joined.len() - ETHERNET_BYTES;
    if head.is_ipv4 {
        joined[16..18].copy_from_slice(&(len as u16).to_be_bytes());
        frames::fill_ipv4_checksum(&mut joined);
    } else {
        joined[18..20].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    }
    let whole = Transport { end: joined.len(), ..head };
    let sum = whole.pseudo_header(&joined);
    let at = whole.checksum_at();
    joined[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    debug_assert_eq!(u16_at(&joined, at), sum);
    let family = if head.is_ipv4 { IpFamily::V4 } else { IpFamily::V6 };
    Some((joined, Segmentation { family, mss: mss as u16 }))
}
