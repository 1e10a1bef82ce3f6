//! Packets on their way out: what they are, how they are cut into fragments, how they are queued.

use crate::config::MacAddress;
use crate::secret::{Key, Keys, Purpose};
use crate::wire::{ethernet, ipv4, ipv6};
use core::num::NonZeroU16;
use std::collections::VecDeque;
use std::net::IpAddr;

/// Length of the IP header that we write for `address`'s family, in bytes.
pub(crate) const fn ip_header_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => ipv4::HEADER_LEN,
        IpAddr::V6(_) => ipv6::HEADER_LEN,
    }
}

/// Where the payload of a packet of `address`'s family starts in a frame.
pub(crate) const fn payload_start(address: IpAddr) -> usize {
    ethernet::HEADER_LEN + ip_header_len(address)
}

/// Time to live of what we send (RFC 1700's default).
pub(crate) const TIME_TO_LIVE: u8 = 64;

/// What the header of a packet of ours says. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    /// Time to live, or hop limit.
    pub(crate) hop_limit: u8,
    /// For fragments; IPv4's has 16 bits.
    pub(crate) identification: u32,
    /// Only in IPv4, where routers may fragment too.
    pub(crate) dont_fragment: bool,
}

impl Header {
    /// Writes Ethernet's and IP's header for the `payload_len` bytes that belong at `offset` of the
    /// whole payload, to the start of `frame`; returns where the payload belongs.
    pub(crate) fn write(
        &self,
        from: MacAddress,
        to: MacAddress,
        payload_len: usize,
        offset: usize,
        more: bool,
        frame: &mut [u8],
    ) -> usize {
        let (link, rest) = frame.split_at_mut(ethernet::HEADER_LEN);
        match (self.source, self.destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                link.copy_from_slice(&ethernet::header(to, from, ethernet::TYPE_IPV6));
                let is_fragment = offset > 0 || more;
                let (next, extra) = match is_fragment {
                    true => (ipv6::FRAGMENT, ipv6::FRAGMENT_HEADER_LEN),
                    false => (self.protocol, 0),
                };
                rest[..ipv6::HEADER_LEN].copy_from_slice(&ipv6::header(
                    source,
                    destination,
                    next,
                    self.hop_limit,
                    extra + payload_len,
                ));
                if is_fragment {
                    let fragment = ipv6::Fragment {
                        next_header: self.protocol,
                        offset,
                        more_fragments: more,
                        identification: self.identification,
                    };
                    rest[ipv6::HEADER_LEN..ipv6::HEADER_LEN + extra]
                        .copy_from_slice(&fragment.to_bytes());
                }
                ethernet::HEADER_LEN + ipv6::HEADER_LEN + extra
            }
            (source, destination) => {
                link.copy_from_slice(&ethernet::header(to, from, ethernet::TYPE_IPV4));
                let v4 = |address| match address {
                    IpAddr::V4(address) => address,
                    IpAddr::V6(_) => std::net::Ipv4Addr::UNSPECIFIED,
                };
                let header = ipv4::Header {
                    source: v4(source),
                    destination: v4(destination),
                    protocol: self.protocol,
                    time_to_live: self.hop_limit,
                    identification: self.identification as u16,
                    dont_fragment: self.dont_fragment,
                };
                rest[..ipv4::HEADER_LEN].copy_from_slice(&header.to_fragment_bytes(
                    payload_len,
                    offset,
                    more,
                ));
                ethernet::HEADER_LEN + ipv4::HEADER_LEN
            }
        }
    }
}

/// A datagram: complete, checksums included, but for the choice of a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    /// TCP for the device to cut into segments with so much payload: never into fragments. The
    /// checksum holds the pseudo-header's sum.
    pub(crate) mss: Option<NonZeroU16>,
}

impl Packet {
    /// A datagram that goes out as it is, or in fragments.
    pub(crate) const fn new(header: Header, payload: Vec<u8>) -> Self {
        Packet { header, payload, mss: None }
    }

    /// Writes the datagram, or the fragment of it that begins at byte `offset` of the payload, as a
    /// frame into `buffer`, which has `14 + mtu` bytes at least, or has room for all of it if the
    /// device is to cut it. Returns the frame's length and, if
    /// there is more, the offset at which it begins.
    pub(crate) fn write(
        &self,
        from: MacAddress,
        to: MacAddress,
        mtu: usize,
        offset: usize,
        buffer: &mut [u8],
    ) -> (usize, Option<usize>) {
        let rest = self.payload.get(offset..).unwrap_or_default();
        let header_len = ip_header_len(self.header.destination);
        let is_whole = offset == 0 && (self.mss.is_some() || header_len + rest.len() <= mtu);
        let extra = match self.header.destination {
            IpAddr::V6(_) if !is_whole => ipv6::FRAGMENT_HEADER_LEN,
            _ => 0,
        };
        let room = if is_whole { rest.len() } else { mtu - header_len - extra };
        // RFC 791 §3.2, RFC 8200 §4.5: all fragments but the last carry a multiple of 8 bytes.
        let len = if rest.len() <= room { rest.len() } else { room & !7 };
        let more = len < rest.len();
        let start = self.header.write(from, to, len, offset, more, buffer);
        buffer[start..start + len].copy_from_slice(&rest[..len]);
        (start + len, more.then_some(offset + len))
    }
}

/// Packets that wait, bounded in bytes.
#[derive(Default)]
pub(crate) struct Queue {
    packets: VecDeque<Packet>,
    bytes: usize,
    bytes_max: usize,
}

/// What a waiting packet costs beside its payload, in bytes.
const PACKET_OVERHEAD: usize = 64;

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Queue { packets: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds a packet; false if there is no room for it.
    #[must_use]
    pub(crate) fn push(&mut self, packet: Packet) -> bool {
        let cost = packet.payload.len() + PACKET_OVERHEAD;
        if self.bytes + cost > self.bytes_max {
            return false;
        }
        self.bytes += cost;
        self.packets.push_back(packet);
        true
    }

    pub(crate) fn pop(&mut self) -> Option<Packet> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.payload.len() + PACKET_OVERHEAD;
        Some(packet)
    }

    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Drops what is from `address`, which the interface has lost.
    pub(crate) fn forget(&mut self, address: IpAddr) {
        self.packets.retain(|packet| packet.header.source != address);
        let cost = |packet: &Packet| packet.payload.len() + PACKET_OVERHEAD;
        self.bytes = self.packets.iter().map(cost).sum();
    }

    /// Asserts that the count of bytes is right, and within its limit.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn check(&self) {
        let cost = |packet: &Packet| packet.payload.len() + PACKET_OVERHEAD;
        assert_eq!(self.bytes, self.packets.iter().map(cost).sum());
        assert!(self.bytes <= self.bytes_max);
    }
}

/// Number of counters of identifications.
const COUNTERS: usize = 256;

/// Identifications of datagrams that may be fragmented: a counter for each group of destinations,
/// with a keyed offset for each destination, so that two destinations say nothing of each other
/// and a datagram's successor does not share its identification (RFC 7739 §5.3, RFC 6864 §4.3).
pub(crate) struct Identifications {
    key: Key,
    counters: [u32; COUNTERS],
}

impl Identifications {
    pub(crate) fn new(keys: &Keys) -> Self {
        Identifications { key: keys.key(Purpose::IpIdentification), counters: [0; COUNTERS] }
    }

    /// The identification of the next datagram from `source` to `destination`.
    pub(crate) fn next(
        &mut self,
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
        protocol: u8,
    ) -> u32 {
        let hash = self.key.prf(&(source.into(), destination.into(), protocol));
        let counter = &mut self.counters[(hash >> 32) as usize % COUNTERS];
        *counter = counter.wrapping_add(1);
        (hash as u32).wrapping_add(*counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    fn packet(payload: Vec<u8>) -> Packet {
        let header = Header {
            source: Ipv4Addr::new(10, 0, 0, 1).into(),
            destination: Ipv4Addr::new(10, 0, 0, 2).into(),
            protocol: 17,
            hop_limit: 64,
            identification: 7,
            dont_fragment: false,
        };
        Packet::new(header, payload)
    }

    /// Pitfall I14.
    #[test]
    fn identifications_differ_from_datagram_to_datagram_and_between_destinations() {
        let mut ids = Identifications::new(&Keys::new([1; 32]));
        let of = |ids: &mut Identifications, last| {
            let source = Ipv4Addr::new(10, 0, 0, 1);
            ids.next(source, Ipv4Addr::new(10, 0, 0, last), 17) as u16
        };
        let first: Vec<u16> = (0..1000).map(|_| of(&mut ids, 2)).collect();
        let distinct: std::collections::HashSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), 1000);
        let starts: std::collections::HashSet<u16> =
            (3..53).map(|last| of(&mut ids, last)).collect();
        let spread = starts.iter().max().unwrap() - starts.iter().min().unwrap();
        assert!(spread > 20_000, "{spread}");
    }

    #[test]
    fn a_queue_refuses_what_exceeds_its_bytes() {
        let mut queue = Queue::new(1000);
        assert!(queue.push(packet(vec![0; 800])));
        assert!(!queue.push(packet(vec![0; 800])));
        assert!(queue.pop().is_some());
        assert!(queue.push(packet(vec![0; 936])));
        assert!(!queue.push(packet(vec![])));
        queue.forget(packet(vec![]).header.source);
        assert!(queue.is_empty() && queue.push(packet(vec![0; 900])));
    }

    proptest! {
        /// Pitfall F10.
        #[test]
        fn an_independent_reader_gets_the_bytes_of_the_fragments_back(
            mtu in 68usize..1500, len in 0usize..9000,
        ) {
            let payload: Vec<u8> = (0..len).map(|at| (at * 7 + at / 251) as u8).collect();
            let packet = packet(payload.clone());
            let mut buffer = vec![0; 14 + mtu];
            let (mut whole, mut offset) = (vec![None; len], 0);
            let end = loop {
                let (frame_len, next) = packet.write(MAC, MAC, mtu, offset, &mut buffer);
                prop_assert!(frame_len <= 14 + mtu);
                let read = ipv4::Packet::parse(&buffer[14..frame_len]).unwrap();
                prop_assert!(read.checksum_is_valid());
                prop_assert_eq!(read.identification(), 7);
                prop_assert_eq!(read.fragment_offset(), offset);
                prop_assert_eq!(read.more_fragments(), next.is_some());
                for (at, byte) in read.payload().iter().enumerate() {
                    prop_assert!(whole[offset + at].replace(*byte).is_none());
                }
                let Some(next) = next else { break offset + read.payload().len() };
                prop_assert_eq!(read.payload().len() % 8, 0);
                offset = next;
            };
            prop_assert_eq!(end, len);
            prop_assert_eq!(whole.into_iter().map(Option::unwrap).collect::<Vec<u8>>(), payload);
        }
    }
}
