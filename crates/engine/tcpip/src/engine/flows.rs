//! Frames of streams that come in: those that look as the last one of the stream did are known to be
//! for us, and for which connection. Only what differs from frame to frame is looked at: lengths,
//! checksums, and what TCP [expects](crate::tcp::Tcp::expects). Everything else goes the long way.

use super::{Engine, FrameChecksum};
use crate::socket::TcpId;
use crate::time::Instant;
use crate::wire::checksum::Sum;
use crate::wire::ipv4::PROTOCOL_TCP;
use crate::wire::{ethernet, ipv4, ipv6, read_u16};
use std::net::IpAddr;

/// Bytes of a frame that are compared: the headers of Ethernet and IPv6, and TCP's ports, padded.
const COMPARED: usize = 64;

/// Streams that are remembered. One whose place another takes goes the long way, once.
const FLOWS: usize = 8;

/// Where both ports are in an IPv4 packet, and a part of the source in an IPv6 one: enough to tell
/// streams apart.
const PLACE_OFFSET: usize = 34;

/// A stream's frames.
#[derive(Clone, Copy)]
struct Flow {
    id: TcpId,
    /// What stands in each of them, and where that is: else zero in both.
    same: [u8; COMPARED],
    mask: [u8; COMPARED],
    source: IpAddr,
    /// The sum of the addresses and the protocol.
    pseudo_header: Sum,
    /// The sum of IPv4's header, as far as it is the same.
    header: Sum,
}

/// See the module.
#[derive(Default)]
pub(super) struct Flows {
    places: [Option<Box<Flow>>; FLOWS],
    /// Frames that took the short way.
    #[cfg(test)]
    pub(super) taken: usize,
}

fn place(frame: &[u8; COMPARED]) -> usize {
    let bytes = frame[PLACE_OFFSET..].first_chunk().map_or(0, |word| u32::from_ne_bytes(*word));
    let folded = bytes ^ (bytes >> 16);
    (folded ^ (folded >> 8)) as usize % FLOWS
}

impl Flow {
    /// The flow of a frame that was found to be a whole packet for a connection; `None` if it is none
    /// that could be told by its first bytes.
    fn of(frame: &[u8; COMPARED], id: TcpId) -> Option<Flow> {
        let mut mask = [0xff; COMPARED];
        let ip = ethernet::HEADER_LEN;
        let (source, destination) = match read_u16(frame, 12) {
            // Without options, and no fragment.
            ethernet::TYPE_IPV4 if frame[ip] == 0x45 && read_u16(frame, ip + 6) & 0x3fff == 0 => {
                // Length and identification; checksum; what follows the ports.
                mask[ip + 2..ip + 6].fill(0);
                mask[ip + 10..ip + 12].fill(0);
                mask[ip + ipv4::HEADER_LEN + 4..].fill(0);
                let packet = ipv4::Packet::parse_quoted(&frame[ip..])?;
                (IpAddr::V4(packet.source()), IpAddr::V4(packet.destination()))
            }
            ethernet::TYPE_IPV6 if frame[ip + ipv6::NEXT_HEADER_FIELD] == PROTOCOL_TCP => {
                mask[ip + 4..ip + 6].fill(0);
                mask[ip + ipv6::HEADER_LEN + 4..].fill(0);
                let packet = ipv6::Packet::parse_quoted(&frame[ip..])?;
                (IpAddr::V6(packet.source()), IpAddr::V6(packet.destination()))
            }
            _ => return None,
        };
        let mut same = *frame;
        same.iter_mut().zip(&mask).for_each(|(byte, mask)| *byte &= mask);
        Some(Flow {
            id,
            same,
            mask,
            source,
            pseudo_header: Sum::of_pseudo_header(source, destination, PROTOCOL_TCP, 0),
            header: Sum::default().then(&same[ip..ip + ipv4::HEADER_LEN]),
        })
    }

    /// Whether a frame is of the stream.
    fn has(&self, frame: &[u8; COMPARED]) -> bool {
        let mut differ = 0;
        for ((byte, mask), same) in frame.iter().zip(&self.mask).zip(&self.same) {
            differ |= (byte & mask) ^ same;
        }
        differ == 0
    }

    /// The segment in a frame of the stream, and the sum of its pseudo-header; `None` if the packet is
    /// not whole, or its own sum is wrong.
    fn segment<'a>(&self, frame: &'a [u8]) -> Option<(&'a [u8], Sum)> {
        let ip = ethernet::HEADER_LEN;
        let (start, len) = if self.source.is_ipv4() {
            let len = read_u16(frame, ip + 2);
            let sum = self.header.then_word(len).then_word(read_u16(frame, ip + 4));
            if !sum.then_word(read_u16(frame, ip + 10)).is_valid() {
                return None;
            }
            (ip + ipv4::HEADER_LEN, len.checked_sub(ipv4::HEADER_LEN as u16)?)
        } else {
            (ip + ipv6::HEADER_LEN, read_u16(frame, ip + 4))
        };
        let segment = frame.get(start..start + usize::from(len))?;
        Some((segment, self.pseudo_header.then_word(len)))
    }
}

impl Flows {
    /// The frame brought data to a connection that only receives: so may the next ones of its kind.
    pub(super) fn learn(&mut self, frame: &[u8], id: TcpId) {
        let Some(frame) = frame.first_chunk() else { return };
        let known = &mut self.places[place(frame)];
        if !known.as_ref().is_some_and(|flow| flow.id == id && flow.has(frame)) {
            *known = Flow::of(frame, id).map(Box::new);
        }
    }
}

impl Engine {
    /// Takes a frame, if it brings what a stream expects next. False: nothing has happened.
    pub(super) fn receive_expected(
        &mut self,
        now: Instant,
        frame: &[u8],
        checksum: FrameChecksum,
    ) -> bool {
        let Some(start) = frame.first_chunk() else { return false };
        let Some(flow) = &self.flows.places[place(start)] else { return false };
        if !flow.has(start) {
            return false;
        }
        let Some((segment, sum)) = flow.segment(frame) else { return false };
        let Some(expected) = self.tcp.expects(flow.id, segment) else { return false };
        // A wrong one is counted on the long way.
        if checksum == FrameChecksum::Unverified && !sum.then(segment).is_valid() {
            return false;
        }
        let source = flow.source;
        if !self.tcp.take_expected(now, flow.id, expected) {
            return false;
        }
        #[cfg(test)]
        {
            self.flows.taken += 1;
        }
        if source.is_ipv6() {
            self.confirm(now, source);
        }
        true
    }
}
