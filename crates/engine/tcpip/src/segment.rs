//! Doing in software what a frame's sender left to a device: cutting TCP into segments, and
//! finishing checksums. For whoever hands frames on to an interface that does neither.
//!
//! IPv4 and IPv6, straight on Ethernet. Frames are allegations: a header that contradicts itself or
//! the frame is an [`OffloadError`], and nothing here allocates.

use crate::engine::PartialChecksum;
use crate::wire::checksum::{Sum, checksum};
use crate::wire::ipv4::{PROTOCOL_TCP, PROTOCOL_UDP};
use crate::wire::{ethernet, read_u16, read_u32};
use core::fmt;
use core::num::NonZeroU16;

/// Why a frame cannot be cut, or its checksum not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffloadError {
    /// It is neither IPv4 nor IPv6 straight on Ethernet.
    NotIp,
    /// A header is cut short, or its lengths contradict it or the frame.
    Malformed,
    /// A fragment: its transport header, or the end of its data, is elsewhere.
    Fragment,
    /// Neither TCP nor UDP; to be cut, not TCP.
    Transport,
    /// A SYN or RST with data for several segments: neither may be repeated.
    Flags,
}

impl fmt::Display for OffloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OffloadError::NotIp => "the frame holds no IP packet",
            OffloadError::Malformed => "a header contradicts itself or the frame's length",
            OffloadError::Fragment => "the packet is a fragment",
            OffloadError::Transport => "the packet is of another protocol than TCP and UDP",
            OffloadError::Flags => "a segment with SYN or RST cannot be cut",
        })
    }
}

impl std::error::Error for OffloadError {}

/// Extension headers of IPv6 that are passed over, at most; honest senders use one or two.
const EXTENSIONS_MAX: usize = 8;

const TYPE_IPV6: u16 = 0x86dd;
const IPV6_HEADER_LEN: usize = 40;
const TCP_HEADER_LEN: usize = 20;
const TCP_CHECKSUM: usize = 16;
const UDP_HEADER_LEN: usize = 8;
const UDP_CHECKSUM: usize = 6;
const TCP_FLAGS: usize = 13;
const FLAG_FIN: u8 = 0x01;
const FLAG_SYN: u8 = 0x02;
const FLAG_RST: u8 = 0x04;
const FLAG_PSH: u8 = 0x08;
const FLAG_CWR: u8 = 0x80;

/// Where things are in a frame. All offsets are inside of it.
#[derive(Clone, Copy, Debug)]
struct Layout {
    is_ipv4: bool,
    protocol: u8,
    /// First byte of the transport header, from the frame's start.
    transport: usize,
    /// First byte after the packet: what follows is padding.
    end: usize,
}

impl Layout {
    fn of(frame: &[u8]) -> Result<Layout, OffloadError> {
        let ip = frame.get(ethernet::HEADER_LEN..).ok_or(OffloadError::NotIp)?;
        match read_u16(frame, 12) {
            ethernet::TYPE_IPV4 => Layout::of_ipv4(ip),
            TYPE_IPV6 => Layout::of_ipv6(ip),
            _ => Err(OffloadError::NotIp),
        }
    }

    fn of_ipv4(ip: &[u8]) -> Result<Layout, OffloadError> {
        let header = ip.first_chunk::<20>().ok_or(OffloadError::Malformed)?;
        let header_len = usize::from(header[0] & 15) * 4;
        let len = usize::from(read_u16(header, 2));
        if header[0] >> 4 != 4 || header_len < 20 || len < header_len || len > ip.len() {
            return Err(OffloadError::Malformed);
        }
        // More fragments, or an offset (RFC 791 §3.1).
        if read_u16(header, 6) & 0x3fff != 0 {
            return Err(OffloadError::Fragment);
        }
        Layout { is_ipv4: true, protocol: header[9], transport: header_len, end: len }.checked()
    }

    fn of_ipv6(ip: &[u8]) -> Result<Layout, OffloadError> {
        let header = ip.first_chunk::<IPV6_HEADER_LEN>().ok_or(OffloadError::Malformed)?;
        let end = IPV6_HEADER_LEN + usize::from(read_u16(header, 4));
        if header[0] >> 4 != 6 || end > ip.len() {
            return Err(OffloadError::Malformed);
        }
        let mut protocol = header[6];
        let mut transport = IPV6_HEADER_LEN;
        for _ in 0..EXTENSIONS_MAX {
            match protocol {
                // Hop-by-hop options, routing, destination options (RFC 8200 §4).
                0 | 43 | 60 => {
                    let Some(&[next, len]) = ip.get(transport..transport + 2) else {
                        return Err(OffloadError::Malformed);
                    };
                    protocol = next;
                    transport += 8 + 8 * usize::from(len);
                }
                44 => return Err(OffloadError::Fragment),
                _ => break,
            }
        }
        Layout { is_ipv4: false, protocol, transport, end }.checked()
    }

    /// Checks the transport's own header; so far offsets count from the IP header.
    fn checked(mut self) -> Result<Layout, OffloadError> {
        let header_len = match self.protocol {
            PROTOCOL_TCP => TCP_HEADER_LEN,
            PROTOCOL_UDP => UDP_HEADER_LEN,
            _ => return Err(OffloadError::Transport),
        };
        if self.end < self.transport + header_len {
            return Err(OffloadError::Malformed);
        }
        self.transport += ethernet::HEADER_LEN;
        self.end += ethernet::HEADER_LEN;
        Ok(self)
    }

    /// The pseudo-header's sum for so many bytes of transport header and payload, in a frame with
    /// the same addresses.
    fn pseudo_header(&self, frame: &[u8], len: usize) -> Sum {
        let addresses = if self.is_ipv4 { 26..34 } else { 22..54 };
        // IPv4's has a length of 16 bits and IPv6's one of 32: they add up to the same.
        Sum::default()
            .then(frame.get(addresses).unwrap_or_default())
            .then(&(len as u32).to_be_bytes())
            .then(&[0, self.protocol])
    }

    /// Where the transport's checksum is, from its header's start.
    const fn checksum(&self) -> usize {
        if self.protocol == PROTOCOL_TCP { TCP_CHECKSUM } else { UDP_CHECKSUM }
    }

    /// Writes the transport's checksum field.
    fn store_checksum(&self, frame: &mut [u8], sum: u16) {
        let at = self.transport + self.checksum();
        if let Some(field) = frame.get_mut(at..at + 2) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
    }

    /// Fills in the transport's checksum of a packet that ends at `end`.
    fn finish(&self, frame: &mut [u8]) {
        self.store_checksum(frame, 0);
        let segment = frame.get(self.transport..self.end).unwrap_or_default();
        let sum = self.pseudo_header(frame, segment.len()).then(segment).finish();
        // 0 would say that there is none (RFC 768).
        let sum = if sum == 0 && self.protocol == PROTOCOL_UDP { 0xffff } else { sum };
        self.store_checksum(frame, sum);
    }

    /// Leaves the transport's checksum to a device.
    fn leave(&self, frame: &mut [u8]) -> PartialChecksum {
        let sum = self.pseudo_header(frame, self.end - self.transport).partial();
        self.store_checksum(frame, sum);
        // Headers are far shorter than 64 KiB: eight extensions of 2 KiB at most.
        PartialChecksum { start: self.transport as u16, offset: self.checksum() as u16 }
    }
}

/// Fills in the checksum of a TCP or UDP packet, whatever stands there.
///
/// # Errors
/// [`OffloadError`]; the frame is as it was.
pub fn finish_checksum(frame: &mut [u8]) -> Result<(), OffloadError> {
    Layout::of(frame)?.finish(frame);
    Ok(())
}

/// Prepares a TCP or UDP packet, whatever stands in its checksum's place, for a device that
/// finishes it; also one that the device is to cut.
///
/// # Errors
/// [`OffloadError`]; the frame is as it was.
pub fn leave_checksum(frame: &mut [u8]) -> Result<PartialChecksum, OffloadError> {
    Ok(Layout::of(frame)?.leave(frame))
}

/// A segment that a [`Cutter`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Length of the frame in bytes.
    pub len: usize,
    /// Where the device must finish the checksum, if it was left to it.
    pub partial_checksum: Option<PartialChecksum>,
}

/// Cuts a frame with several TCP segments (RFC 9293 §3.7) into as many frames, one at a time: as
/// Linux's `tcp_gso_segment` and every network card do.
#[derive(Clone, Copy, Debug)]
pub struct Cutter {
    layout: Layout,
    /// Length of all headers.
    headers: usize,
    mss: usize,
    /// Where the next segment's payload begins in the frame.
    next: usize,
    /// Segments written.
    count: u16,
}

impl Cutter {
    /// Checks `frame`, whose segments have `mss` bytes of payload each, the last what is left.
    ///
    /// # Errors
    /// [`OffloadError`].
    pub fn new(frame: &[u8], mss: NonZeroU16) -> Result<Cutter, OffloadError> {
        let layout = Layout::of(frame)?;
        if layout.protocol != PROTOCOL_TCP {
            return Err(OffloadError::Transport);
        }
        let at = |offset: usize| frame.get(layout.transport + offset).copied().unwrap_or_default();
        let header_len = usize::from(at(12) >> 4) * 4;
        let headers = layout.transport + header_len;
        if header_len < TCP_HEADER_LEN || headers > layout.end {
            return Err(OffloadError::Malformed);
        }
        let mss = usize::from(mss.get());
        if layout.end - headers > mss && at(TCP_FLAGS) & (FLAG_SYN | FLAG_RST) != 0 {
            return Err(OffloadError::Flags);
        }
        Ok(Cutter { layout, headers, mss, next: headers, count: 0 })
    }

    /// Length of the longest frame that comes of it.
    pub fn frame_bytes_max(&self) -> usize {
        self.layout.end.min(self.headers + self.mss)
    }

    /// How many frames come of it in all; at least one.
    pub fn segments(&self) -> usize {
        (self.layout.end - self.headers).div_ceil(self.mss).max(1)
    }

    /// Writes the next segment of `frame`, the one that was checked, into `buffer`. With
    /// `is_left` its checksum is left to a device.
    ///
    /// `None` after the last; and if `buffer` is shorter than
    /// [`frame_bytes_max`](Cutter::frame_bytes_max), or `frame` shorter than it was.
    pub fn write_next(&mut self, frame: &[u8], buffer: &mut [u8], is_left: bool) -> Option<Cut> {
        let (headers, end) = (self.headers, self.layout.end);
        if self.next >= end && self.count > 0 {
            return None;
        }
        let payload = frame.get(self.next..end.min(self.next + self.mss))?;
        let len = headers + payload.len();
        let out = buffer.get_mut(..len)?;
        out[..headers].copy_from_slice(frame.get(..headers)?);
        out[headers..].copy_from_slice(payload);

        let done = self.next - headers;
        let is_last = self.next + payload.len() == end;
        let layout = Layout { end: len, ..self.layout };
        let ip_len = len - ethernet::HEADER_LEN;
        let ip = &mut out[ethernet::HEADER_LEN..];
        if layout.is_ipv4 {
            ip[2..4].copy_from_slice(&(ip_len as u16).to_be_bytes());
            let identification = read_u16(ip, 4).wrapping_add(self.count);
            ip[4..6].copy_from_slice(&identification.to_be_bytes());
            ip[10..12].fill(0);
            let sum = checksum(&ip[..layout.transport - ethernet::HEADER_LEN]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            ip[4..6].copy_from_slice(&((ip_len - IPV6_HEADER_LEN) as u16).to_be_bytes());
        }
        let tcp = &mut out[layout.transport..];
        let sequence = read_u32(tcp, 4).wrapping_add(done as u32);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        if !is_last {
            tcp[TCP_FLAGS] &= !(FLAG_FIN | FLAG_PSH);
        }
        if self.count > 0 {
            // The sender's answer to one congestion mark, given once (RFC 3168 §6.1.2).
            tcp[TCP_FLAGS] &= !FLAG_CWR;
        }
        let partial_checksum = if is_left {
            Some(layout.leave(out))
        } else {
            layout.finish(out);
            None
        };
        self.next += payload.len();
        self.count += 1;
        Some(Cut { len, partial_checksum })
    }
}

#[cfg(test)]
mod tests;
