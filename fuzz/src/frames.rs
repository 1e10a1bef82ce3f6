//! Frames as a fuzzer wants them: written from the RFCs and not with the engine's codecs, so that
//! what the engine sends is judged by somebody else. A family of addresses more is one function more
//! in [`repair`] and in [`check`].

/// A hardware address.
pub type Mac = [u8; 6];
/// An IPv4 address.
pub type Ipv4 = [u8; 4];
/// An IPv6 address.
pub type Ipv6 = [u8; 16];

/// EtherType of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const TYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;

/// IP protocol numbers.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// IPv6's extension headers (RFC 8200 §4.1): hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// A routing header.
pub const ROUTING: u8 = 43;
/// A fragment header.
pub const FRAGMENT: u8 = 44;
/// Options for the destination.
pub const DESTINATION_OPTIONS: u8 = 60;

/// Bytes of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;

/// TCP's flags.
pub mod flags {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// ACK.
    pub const ACK: u8 = 16;
}

/// A frame.
pub fn ethernet(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from[..], &ethertype.to_be_bytes()[..], payload].concat()
}

/// An ARP packet (RFC 826): 1 asks, 2 answers.
pub fn arp(operation: u16, sender: (Mac, Ipv4), target: (Mac, Ipv4)) -> Vec<u8> {
    let fixed = [0, 1, 8, 0, 6, 4];
    let operation = operation.to_be_bytes();
    let parts: [&[u8]; 6] = [&fixed, &operation, &sender.0, &sender.1, &target.0, &target.1];
    parts.concat()
}

/// What stands in an IPv4 header.
#[derive(Clone, Copy, Debug)]
pub struct Ip<'a> {
    /// Source address.
    pub source: Ipv4,
    /// Destination address.
    pub destination: Ipv4,
    /// Protocol number.
    pub protocol: u8,
    /// Identification.
    pub identification: u16,
    /// Flags (`DF` is 0x4000, `MF` 0x2000) and offset in units of eight bytes.
    pub fragment: u16,
    /// Time to live.
    pub time_to_live: u8,
    /// Options: filled up to four bytes, forty at most.
    pub options: &'a [u8],
}

impl Ip<'_> {
    /// An ordinary packet.
    pub const fn new(source: Ipv4, destination: Ipv4, protocol: u8) -> Self {
        let (identification, fragment, time_to_live, options) = (1, 0, 64, &[]);
        Ip { source, destination, protocol, identification, fragment, time_to_live, options }
    }

    /// The packet, with sums that [`repair`] has to fill in.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let options = &self.options[..self.options.len().min(40)];
        let header_len = 20 + options.len().next_multiple_of(4);
        let len = (header_len + payload.len()).min(65_535);
        let mut packet = vec![0x40 | (header_len / 4) as u8, 0];
        packet.extend((len as u16).to_be_bytes());
        packet.extend(self.identification.to_be_bytes());
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([self.time_to_live, self.protocol, 0, 0]);
        packet.extend(self.source);
        packet.extend(self.destination);
        packet.extend(options);
        packet.resize(header_len, 0);
        packet.extend(&payload[..len - header_len]);
        packet
    }
}

/// What stands in an IPv6 header, and in the extension headers behind it.
#[derive(Clone, Copy, Debug)]
pub struct Ip6<'a> {
    /// Source address.
    pub source: Ipv6,
    /// Destination address.
    pub destination: Ipv6,
    /// Protocol number of what comes behind the extension headers.
    pub protocol: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Extension headers: what each is called, and what follows its first two bytes, filled up to
    /// the eight that headers are measured in.
    pub extensions: &'a [(u8, &'a [u8])],
}

impl Ip6<'_> {
    /// An ordinary packet.
    pub const fn new(source: Ipv6, destination: Ipv6, protocol: u8) -> Self {
        Ip6 { source, destination, protocol, hop_limit: 64, extensions: &[] }
    }

    /// The packet, with sums that [`repair`] has to fill in.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let kinds = self.extensions.iter().map(|(kind, _)| *kind).chain([self.protocol]);
        let mut kinds = kinds.collect::<Vec<u8>>().into_iter();
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, kinds.next().unwrap_or(0), self.hop_limit];
        packet.extend(self.source);
        packet.extend(self.destination);
        for ((_, body), following) in self.extensions.iter().zip(kinds) {
            let body = &body[..body.len().min(2046)];
            let len = (2 + body.len()).next_multiple_of(8);
            let end = packet.len() + len;
            packet.extend([following, (len / 8 - 1) as u8]);
            packet.extend(body);
            packet.resize(end, 0);
        }
        packet.extend(payload);
        packet.truncate(40 + 65_535);
        let len = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        packet
    }
}

/// The hardware address of a group (RFC 2464 §7).
pub const fn group_mac(group: Ipv6) -> Mac {
    [0x33, 0x33, group[12], group[13], group[14], group[15]]
}

/// The group that hosts with this address listen to (RFC 4291 §2.7.1).
pub const fn solicited_node(address: Ipv6) -> Ipv6 {
    let [.., a, b, c] = address;
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]
}

/// A TCP segment without its sum. Options are filled up to four bytes, forty at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment<'a> {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// [`flags`].
    pub flags: u8,
    /// Window, not scaled.
    pub window: u16,
    /// Options.
    pub options: &'a [u8],
    /// Data.
    pub payload: &'a [u8],
}

impl Segment<'_> {
    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let options = &self.options[..self.options.len().min(40)];
        let header_len = 20 + options.len().next_multiple_of(4);
        let mut bytes = Vec::with_capacity(header_len + self.payload.len());
        bytes.extend(self.source.to_be_bytes());
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledgment.to_be_bytes());
        bytes.extend([((header_len / 4) << 4) as u8, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(options);
        bytes.resize(header_len, 0);
        bytes.extend(self.payload);
        bytes
    }
}

/// A UDP datagram without its sum.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len()) as u16;
    let header = [source, destination, len, 0].map(u16::to_be_bytes).concat();
    [&header[..], payload].concat()
}

/// An ICMP message without its sum.
pub fn icmp(kind: u8, code: u8, word: [u8; 4], body: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0][..], &word, body].concat()
}

/// The one's complement sum of pieces, of which all but the last have an even length (RFC 1071).
fn sum(pieces: &[&[u8]]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u64 = pieces.iter().flat_map(|piece| piece.chunks(2)).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// Where the parts of an IP packet are, in its frame.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// True: IPv4, false: IPv6.
    pub is_ipv4: bool,
    /// Protocol of the transport.
    pub protocol: u8,
    /// First byte of the transport header.
    pub transport: usize,
    /// First byte after the packet.
    pub end: usize,
    /// Not the whole of a datagram.
    pub is_fragment: bool,
}

/// Finds the parts, if the lengths make sense. IPv6's extension headers are passed over; where one
/// does not fit, it is the transport.
pub fn parts(frame: &[u8]) -> Option<Parts> {
    let half = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let first = *frame.get(14)?;
    let parts = match (half(12)?, first >> 4) {
        (TYPE_IPV4, 4) => Parts {
            is_ipv4: true,
            protocol: *frame.get(23)?,
            transport: 14 + usize::from(first & 15) * 4,
            end: 14 + usize::from(half(16)?),
            is_fragment: half(20)? & 0x3fff != 0,
        },
        (TYPE_IPV6, 6) => {
            let end = 54 + usize::from(half(18)?);
            let mut parts = Parts {
                is_ipv4: false,
                protocol: *frame.get(20)?,
                transport: 54,
                end,
                is_fragment: false,
            };
            while let HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS = parts.protocol
                && !parts.is_fragment
            {
                let at = parts.transport;
                let Some(&[following, units, high, low]) = frame.get(at..at + 4) else { break };
                let is_fragment = parts.protocol == FRAGMENT;
                let len = if is_fragment { 8 } else { 8 + 8 * usize::from(units) };
                if at + len > end {
                    break;
                }
                (parts.protocol, parts.transport) = (following, at + len);
                // The offset, and that more follows.
                parts.is_fragment = is_fragment && u16::from_be_bytes([high, low]) & 0xfff9 != 0;
            }
            parts
        }
        _ => return None,
    };
    let least = if parts.is_ipv4 { 34 } else { 54 };
    let fits = least <= parts.transport && parts.transport <= parts.end && parts.end <= frame.len();
    fits.then_some(parts)
}

/// The sum of a packet's pseudo-header and transport; a right one is 0xffff.
fn transport_sum(frame: &[u8], parts: &Parts) -> u16 {
    let transport = &frame[parts.transport..parts.end];
    let len = (transport.len() as u32).to_be_bytes();
    let protocol = [0, parts.protocol];
    match (parts.is_ipv4, parts.protocol) {
        (true, ICMP) => sum(&[transport]),
        (true, _) => sum(&[&frame[26..34], &len, &protocol, transport]),
        (false, _) => sum(&[&frame[22..54], &len, &protocol, transport]),
    }
}

/// Where the transport's sum stands, counted from its header.
const fn sum_offset(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP => Some(6),
        ICMP | ICMPV6 => Some(2),
        _ => None,
    }
}

/// Puts every sum right that has a place, so that a fuzzer gets past the checks of sums.
pub fn repair(frame: &mut [u8]) {
    let Some(parts) = parts(frame) else { return };
    if parts.is_ipv4 {
        frame[24..26].fill(0);
        let sum = !sum(&[&frame[14..parts.transport]]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let Some(offset) = sum_offset(parts.protocol) else { return };
    let at = parts.transport + offset;
    if parts.is_fragment || at + 2 > parts.end {
        return;
    }
    frame[at..at + 2].fill(0);
    let sum = match (!transport_sum(frame, &parts), parts.protocol) {
        (0, UDP) => 0xffff,
        (sum, _) => sum,
    };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Asserts that a frame that was sent is one: its lengths are its own, its sums are right, and its
/// IP packet is not longer than `mtu`.
pub fn check(frame: &[u8], mtu: usize) {
    check_forwarded(frame, mtu);
    let parts = parts(frame).filter(|parts| !parts.is_fragment);
    if let Some(parts) = parts.filter(|parts| sum_offset(parts.protocol).is_some()) {
        assert_eq!(transport_sum(frame, &parts), 0xffff, "the transport's sum is wrong");
    }
}

/// As [`check`], but for what is in the packet: it may be somebody else's.
pub fn check_forwarded(frame: &[u8], mtu: usize) {
    assert!((ETHERNET_BYTES..=ETHERNET_BYTES + mtu).contains(&frame.len()), "{}", frame.len());
    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    if ethertype == TYPE_ARP {
        return assert_eq!(frame.len(), ETHERNET_BYTES + 28);
    }
    let parts = parts(frame).expect("what is sent is ARP or IP");
    assert_eq!(parts.end, frame.len(), "the packet ends where the frame ends");
    if parts.is_ipv4 {
        assert_eq!(sum(&[&frame[14..parts.transport]]), 0xffff, "the header's sum is wrong");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> Vec<u8> {
        Segment { source: 1, destination: 2, payload: b"odd", ..Segment::default() }.bytes()
    }

    #[test]
    fn what_was_repaired_is_right_and_one_flipped_bit_shows() {
        let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let messages =
            [(TCP, segment()), (UDP, udp(1, 2, b"odd")), (ICMP, icmp(8, 0, [0; 4], b"odd"))];
        for (protocol, message) in messages {
            let packet = Ip { options: &[1], ..Ip::new(a, b, protocol) }.packet(&message);
            let mut frame = ethernet([2; 6], [4; 6], TYPE_IPV4, &packet);
            repair(&mut frame);
            check(&frame, 1500);
            frame[30] ^= 1;
            assert!(std::panic::catch_unwind(|| check(&frame, 1500)).is_err());
        }
        let (a, b) = ([7; 16], [8; 16]);
        let messages =
            [(TCP, segment()), (UDP, udp(1, 2, b"odd")), (ICMPV6, icmp(128, 0, [0; 4], b"odd"))];
        let chain: [(u8, &[u8]); 3] =
            [(HOP_BY_HOP, &[1, 8]), (FRAGMENT, &[0, 0, 1, 2, 3, 4]), (DESTINATION_OPTIONS, &[1])];
        for (protocol, message) in messages {
            for extensions in [&[][..], &chain[..1], &chain] {
                let packet = Ip6 { extensions, ..Ip6::new(a, b, protocol) }.packet(&message);
                let mut frame = ethernet([2; 6], [4; 6], TYPE_IPV6, &packet);
                repair(&mut frame);
                check(&frame, 1500);
                let parts = parts(&frame).expect("a packet");
                assert_eq!(frame.len() - parts.transport, message.len());
                assert_eq!(parts.protocol, protocol);
                frame[30] ^= 1;
                assert!(std::panic::catch_unwind(|| check(&frame, 1500)).is_err());
            }
        }
    }

    #[test]
    fn a_later_fragment_has_no_sum() {
        for field in [1, 8] {
            let extensions: [(u8, &[u8]); 1] = [(FRAGMENT, &[0, field, 1, 2, 3, 4])];
            let packet = Ip6 { extensions: &extensions, ..Ip6::new([7; 16], [8; 16], UDP) };
            let before = ethernet([2; 6], [4; 6], TYPE_IPV6, &packet.packet(&udp(1, 2, b"odd")));
            let mut frame = before.clone();
            repair(&mut frame);
            assert!(parts(&frame).is_some_and(|parts| parts.is_fragment) && frame == before);
        }
    }

    #[test]
    fn any_bytes_can_be_repaired() {
        for len in 0..200 {
            for first in [0x45, 0x4f, 0x60] {
                let mut frame = vec![first; len];
                if let Some(ethertype) = frame.get_mut(12..14) {
                    let ethertype_of = if first == 0x60 { TYPE_IPV6 } else { TYPE_IPV4 };
                    ethertype.copy_from_slice(&ethertype_of.to_be_bytes());
                }
                repair(&mut frame);
            }
        }
    }
}
