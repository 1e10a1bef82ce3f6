//! What the world must understand of frames: where TCP is in them, and whether sums are right.
//!
//! Written apart from the stack's own code on purpose: a slip there is not repeated here.

/// Bytes of an Ethernet header without a VLAN tag.
pub(crate) const ETHERNET_BYTES: usize = 14;

const TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// TCP's flags (RFC 9293, section 3.1).
pub(crate) const ACK: u8 = 0x10;
pub(crate) const PSH: u8 = 0x08;

/// A TCP segment or UDP datagram straight in IPv4 or IPv6, no fragment. Offsets count from the
/// frame's start, and all are inside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transport {
    pub(crate) is_ipv4: bool,
    pub(crate) protocol: u8,
    /// Where the transport's header begins.
    pub(crate) header: usize,
    /// Where its payload begins.
    pub(crate) payload: usize,
    /// Where the packet ends; behind it is padding.
    pub(crate) end: usize,
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

impl Transport {
    pub(crate) fn of(frame: &[u8]) -> Option<Transport> {
        let ip = frame.get(ETHERNET_BYTES..)?;
        let (is_ipv4, protocol, header, end) = match frame.get(12..14)?.try_into().ok()? {
            TYPE_IPV4 => {
                let len = usize::from(u16_at(ip, 2));
                let header = usize::from(ip.first()? & 15) * 4;
                // A fragment has no transport header of its own (RFC 791, section 3.1).
                if ip[0] >> 4 != 4 || header < 20 || u16_at(ip, 6) & 0x3fff != 0 {
                    return None;
                }
                (true, *ip.get(9)?, header, len)
            }
            TYPE_IPV6 => {
                if ip.first()? >> 4 != 6 {
                    return None;
                }
                (false, *ip.get(6)?, 40, 40 + usize::from(u16_at(ip, 4)))
            }
            _ => return None,
        };
        if end > ip.len() {
            return None;
        }
        let header_bytes = match protocol {
            TCP => usize::from(ip.get(header + 12)? >> 4) * 4,
            UDP => 8,
            _ => return None,
        };
        if (protocol == TCP && header_bytes < 20) || header + header_bytes > end {
            return None;
        }
        let [header, end] = [header, end].map(|at| at + ETHERNET_BYTES);
        Some(Transport { is_ipv4, protocol, header, payload: header + header_bytes, end })
    }

    pub(crate) fn is_tcp(&self) -> bool {
        self.protocol == TCP
    }

    /// TCP's flags.
    pub(crate) fn flags(&self, frame: &[u8]) -> u8 {
        frame.get(self.header + 13).copied().unwrap_or_default()
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.end - self.payload
    }

    /// Where the transport's checksum stands.
    pub(crate) fn checksum_at(&self) -> usize {
        self.header + if self.is_tcp() { 16 } else { 6 }
    }

    /// The one's complement sum of the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1).
    pub(crate) fn pseudo_header(&self, frame: &[u8]) -> u16 {
        let addresses = if self.is_ipv4 { &frame[26..34] } else { &frame[22..54] };
        let len = (self.end - self.header) as u32;
        let rest = [&len.to_be_bytes()[..], &[0, self.protocol]].concat();
        add(sum(addresses), sum(&rest))
    }

    /// True if the transport's checksum is right, or UDP's is left out over IPv4.
    pub(crate) fn is_intact(&self, frame: &[u8]) -> bool {
        let left_out = !self.is_tcp() && self.is_ipv4 && u16_at(frame, self.checksum_at()) == 0;
        let total = add(self.pseudo_header(frame), sum(&frame[self.header..self.end]));
        left_out || total == 0xffff
    }
}

/// One's complement addition (RFC 1071).
pub(crate) fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// The one's complement sum of big-endian words, the last padded with a zero byte.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let mut total: u64 = bytes
        .chunks(2)
        .map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0)))
        .sum();
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

/// Writes IPv4's header checksum; the header begins at `ETHERNET_BYTES` and has no options.
pub(crate) fn fill_ipv4_checksum(frame: &mut [u8]) {
    let header = ETHERNET_BYTES..ETHERNET_BYTES + 20;
    frame[24..26].fill(0);
    let checksum = !sum(&frame[header]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

/// True for a TCP segment that carries nothing but an acknowledgement.
pub(crate) fn is_pure_ack(frame: &[u8]) -> bool {
    Transport::of(frame).is_some_and(|transport| {
        transport.is_tcp() && transport.payload_bytes() == 0 && transport.flags(frame) & 0x17 == ACK
    })
}

/// The answer of a router to a packet that is too large for the link behind it (RFC 792,
/// "Destination Unreachable" with code 4, and the link's MTU as RFC 1191, section 4 has it). `None`
/// if there is none: for what is no IPv4, may be fragmented, is an ICMP error itself, or was for
/// more than one.
pub fn fragmentation_needed(
    frame: &[u8],
    mtu: usize,
    router_mac: [u8; 6],
    router: std::net::Ipv4Addr,
) -> Option<Vec<u8>> {
    const ICMP: u8 = 1;
    let ip = frame.get(ETHERNET_BYTES..)?;
    let header = usize::from(ip.first()? & 15) * 4;
    let is_error = *ip.get(9)? == ICMP && !matches!(*ip.get(header)?, 0 | 8);
    let may_fragment = ip[6] & 0x40 == 0;
    if frame[12..14] != TYPE_IPV4 || frame[0] & 1 == 1 || is_error || may_fragment {
        return None;
    }
    // The header and the first 64 bits (RFC 792).
    let quoted = ip.get(..header + 8)?;
    let mut icmp = vec![3, 4, 0, 0, 0, 0];
    icmp.extend_from_slice(&u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes());
    icmp.extend_from_slice(quoted);
    let checksum = !sum(&icmp);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut answer = [&frame[6..12], &router_mac, &TYPE_IPV4].concat();
    answer.extend_from_slice(&[0x45, 0]);
    answer.extend_from_slice(&(20 + icmp.len() as u16).to_be_bytes());
    answer.extend_from_slice(&[0, 0, 0, 0, 64, ICMP, 0, 0]);
    answer.extend_from_slice(&router.octets());
    answer.extend_from_slice(&ip[12..16]);
    fill_ipv4_checksum(&mut answer);
    answer.extend_from_slice(&icmp);
    Some(answer)
}
