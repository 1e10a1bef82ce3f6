//! Frames that no honest host sends, byte by byte. Written apart from the stack's own codecs, so that
//! a slip there is not repeated here.

use fata_device::MacAddress;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const IPV6_FRAGMENT: u8 = 44;
pub(crate) const ICMPV6: u8 = 58;

/// "More fragments follow", in the field of IPv4 that has the offset in its low 13 bits.
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;

/// RFC 9293 §3.1.
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// The one's complement sum of big-endian words (RFC 1071), the last padded with a zero byte.
fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    let mut total: u64 = bytes.chunks(2).map(word).sum();
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

/// Writes a transport's checksum, which covers the addresses, at `at`.
fn finish(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    mut payload: Vec<u8>,
    at: usize,
) -> Vec<u8> {
    payload[at..at + 2].fill(0);
    let octets = |address| match address {
        IpAddr::V4(v4) => Ipv4Addr::octets(&v4).to_vec(),
        IpAddr::V6(v6) => Ipv6Addr::octets(&v6).to_vec(),
    };
    let len = (payload.len() as u32).to_be_bytes();
    let pseudo = [octets(source), octets(destination), len.to_vec(), vec![0, 0, 0, protocol]];
    let checksum = !sum(&[&pseudo.concat(), &payload]);
    payload[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    payload
}

pub(crate) fn ethernet(to: MacAddress, from: MacAddress, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &kind.to_be_bytes(), payload].concat()
}

/// An ARP packet (RFC 826): 1 asks, 2 answers.
pub(crate) fn arp(
    kind: u8,
    sender: (MacAddress, Ipv4Addr),
    target: (MacAddress, Ipv4Addr),
) -> Vec<u8> {
    let fixed = [0, 1, 8, 0, 6, 4, 0, kind];
    let [sender, target] = [sender, target].map(|(mac, ip)| [&mac.0[..], &ip.octets()].concat());
    [&fixed[..], &sender, &target].concat()
}

/// An IPv4 packet; `fragment` is the field with flags and offset.
pub(crate) fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    (identification, fragment): (u16, u16),
    payload: &[u8],
) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + payload.len() as u16).to_be_bytes());
    header.extend(identification.to_be_bytes());
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    let checksum = !sum(&[&header]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&header[..], payload].concat()
}

/// An IPv6 packet.
pub(crate) fn ipv6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: u8,
    hop_limit: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((payload.len() as u16).to_be_bytes());
    header.extend([next_header, hop_limit]);
    header.extend(source.octets());
    header.extend(destination.octets());
    [&header[..], payload].concat()
}

/// A packet of either family, whole.
pub(crate) fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ipv4(source, destination, protocol, (0, 0), payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ipv6(source, destination, protocol, 64, payload)
        }
        _ => panic!("a packet has addresses of one family"),
    }
}

/// A fragment header (RFC 8200 §4.5) and what is behind it. `offset` counts in bytes.
pub(crate) fn ipv6_fragment(next: u8, offset: u16, more: bool, id: u32, payload: &[u8]) -> Vec<u8> {
    let field = offset | u16::from(more);
    [&[next, 0][..], &field.to_be_bytes(), &id.to_be_bytes(), payload].concat()
}

/// A TCP segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segment {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

impl Segment {
    /// Its bytes, behind an IP header.
    pub(crate) fn packet(&self, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 1);
        let mut bytes = [self.source_port, self.destination_port].map(u16::to_be_bytes).concat();
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledgment.to_be_bytes());
        bytes.extend([(5 + options.len() as u8 / 4) << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(options);
        bytes.extend(&self.data);
        ip(source, destination, TCP, &finish(source, destination, TCP, bytes, 16))
    }

    /// What follows it in the sequence space.
    pub(crate) fn end(&self) -> u32 {
        let flags = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.sequence.wrapping_add(self.data.len() as u32 + flags)
    }

    /// An option with timestamps (RFC 7323 §3.2), aligned as most write it.
    pub(crate) fn with_timestamps(mut self, (value, echo): (u32, u32)) -> Segment {
        self.options.extend([1, 1, 8, 10]);
        self.options.extend([value, echo].map(u32::to_be_bytes).concat());
        self
    }

    /// The timestamps, if they stand where [`with_timestamps`](Self::with_timestamps) writes them.
    pub(crate) fn timestamps(&self) -> Option<(u32, u32)> {
        let (head, rest) = self.options.split_first_chunk::<4>()?;
        (*head == [1, 1, 8, 10]).then_some(())?;
        let long = |at| Some(u32::from_be_bytes(rest.get(at..at + 4)?.try_into().ok()?));
        Some((long(0)?, long(4)?))
    }

    /// The segment in an Ethernet frame, and between whom, if there is a whole one.
    pub(crate) fn of_frame(frame: &[u8]) -> Option<(IpAddr, IpAddr, Segment)> {
        let packet = frame.get(14..)?;
        let (source, destination, protocol, bytes) = match word(frame, 12)? {
            IPV4 if word(packet, 6)? & 0x3fff == 0 => {
                let header = usize::from(packet[0] & 15) * 4;
                let bytes = packet.get(header..usize::from(word(packet, 2)?))?;
                let address =
                    |at| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
                (address(12)?, address(16)?, packet[9], bytes)
            }
            IPV6 => {
                let bytes = packet.get(40..40 + usize::from(word(packet, 4)?))?;
                let address =
                    |at| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
                (address(8)?, address(24)?, packet[6], bytes)
            }
            _ => return None,
        };
        if protocol != TCP {
            return None;
        }
        let header = usize::from(bytes.get(12)? >> 4) * 4;
        let long = |at| Some(u32::from(word(bytes, at)?) << 16 | u32::from(word(bytes, at + 2)?));
        let segment = Segment {
            source_port: word(bytes, 0)?,
            destination_port: word(bytes, 2)?,
            sequence: long(4)?,
            acknowledgment: long(8)?,
            flags: bytes[13],
            window: word(bytes, 14)?,
            options: bytes.get(20..header)?.to_vec(),
            data: bytes.get(header..)?.to_vec(),
        };
        Some((source, destination, segment))
    }
}

/// A UDP datagram, without IP's header.
pub(crate) fn udp(source: (IpAddr, u16), destination: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes =
        [source.1, destination.1, 8 + payload.len() as u16].map(u16::to_be_bytes).concat();
    bytes.extend([0, 0]);
    bytes.extend(payload);
    finish(source.0, destination.0, UDP, bytes, 6)
}

/// An ICMP message; `word` is what is behind its checksum.
pub(crate) fn icmp(kind: u8, code: u8, word: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(word.to_be_bytes());
    bytes.extend(body);
    let checksum = !sum(&[&bytes]);
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// The same for IPv6, in its packet.
pub(crate) fn icmpv6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    kind: u8,
    code: u8,
    word: u32,
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(word.to_be_bytes());
    bytes.extend(body);
    let bytes = finish(source.into(), destination.into(), ICMPV6, bytes, 2);
    // Neighbour Discovery takes nothing that came through a router (RFC 4861 §7.1).
    ipv6(source, destination, ICMPV6, 255, &bytes)
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
