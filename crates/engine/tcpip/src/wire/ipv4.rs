//! IPv4 headers (RFC 791 §3.1).

use super::checksum::{Sum, checksum};
use super::{read_ipv4, read_u16};
use std::net::Ipv4Addr;

/// Length of a header without options in bytes.
pub(crate) const HEADER_LEN: usize = 20;

/// Protocol number of ICMP.
pub(crate) const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of TCP.
pub(crate) const PROTOCOL_TCP: u8 = 6;
/// Protocol number of UDP.
pub(crate) const PROTOCOL_UDP: u8 = 17;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

/// Option: end of the list.
const OPTION_END: u8 = 0;
/// Option: nothing.
const OPTION_NOTHING: u8 = 1;
/// Option: loose source route.
const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
/// Option: strict source route.
const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;

/// A packet whose header and total length lie within the bytes that it was read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    /// The header, 20 to 60 bytes.
    header: &'a [u8],
    /// What follows it, up to the total length: the frame's padding is cut off.
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet. `None` if the version is not 4, the header is shorter than 20 bytes, or the
    /// header or the total length does not fit into `bytes` or each other.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, total_len) = Self::parse_header(bytes)?;
        let payload = bytes.get(header.len()..total_len)?;
        Some(Packet { header, payload })
    }

    /// Reads a packet of which an ICMP error quotes the beginning: the payload may be cut short.
    pub(crate) fn parse_quoted(bytes: &'a [u8]) -> Option<Self> {
        let (header, total_len) = Self::parse_header(bytes)?;
        let payload = &bytes[header.len()..total_len.min(bytes.len()).max(header.len())];
        Some(Packet { header, payload })
    }

    fn parse_header(bytes: &'a [u8]) -> Option<(&'a [u8], usize)> {
        let first = *bytes.first()?;
        if first >> 4 != 4 {
            return None;
        }
        let header_len = usize::from(first & 0x0f) * 4;
        let total_len = usize::from(read_u16(bytes, 2));
        if header_len < HEADER_LEN || total_len < header_len {
            return None;
        }
        Some((bytes.get(..header_len)?, total_len))
    }

    pub(crate) fn header(&self) -> &'a [u8] {
        self.header
    }

    pub(crate) fn payload(&self) -> &'a [u8] {
        self.payload
    }

    pub(crate) fn identification(&self) -> u16 {
        read_u16(self.header, 4)
    }

    pub(crate) fn more_fragments(&self) -> bool {
        read_u16(self.header, 6) & MORE_FRAGMENTS != 0
    }

    /// Where the payload belongs in the whole datagram's, in bytes.
    pub(crate) fn fragment_offset(&self) -> usize {
        usize::from(read_u16(self.header, 6) & 0x1fff) * 8
    }

    /// The payload is not the whole datagram's.
    pub(crate) fn is_fragment(&self) -> bool {
        self.more_fragments() || self.fragment_offset() != 0
    }

    pub(crate) fn protocol(&self) -> u8 {
        self.header[9]
    }

    pub(crate) fn source(&self) -> Ipv4Addr {
        read_ipv4(self.header, 12)
    }

    pub(crate) fn destination(&self) -> Ipv4Addr {
        read_ipv4(self.header, 16)
    }

    /// The header's checksum is right.
    pub(crate) fn checksum_is_valid(&self) -> bool {
        Sum::default().then(self.header).is_valid()
    }

    /// The options are a well-formed list that has no source route. The walk ends at the first
    /// option whose length cannot be.
    pub(crate) fn options(&self) -> Options {
        let mut rest = &self.header[HEADER_LEN..];
        loop {
            match rest {
                [] | [OPTION_END, ..] => return Options::Harmless,
                [OPTION_NOTHING, tail @ ..] => rest = tail,
                [OPTION_LOOSE_SOURCE_ROUTE | OPTION_STRICT_SOURCE_ROUTE, ..] => {
                    return Options::SourceRoute;
                }
                // An option's length counts its own two bytes; a shorter one would not advance.
                [_, len, ..] if *len >= 2 && usize::from(*len) <= rest.len() => {
                    rest = &rest[usize::from(*len)..];
                }
                _ => return Options::Malformed,
            }
        }
    }
}

/// What the options of a header amount to for a host that obeys none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Options {
    /// None, or ones that may be ignored (RFC 1122 §3.2.1.8).
    Harmless,
    /// A loose or strict source route.
    SourceRoute,
    /// An option whose length cannot be.
    Malformed,
}

/// A header to write; without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) time_to_live: u8,
    pub(crate) identification: u16,
    pub(crate) dont_fragment: bool,
}

impl Header {
    /// The header of a datagram that is not fragmented, with `payload_len` bytes (which with the
    /// header are at most 65,535).
    pub(crate) fn to_bytes(self, payload_len: usize) -> [u8; HEADER_LEN] {
        self.to_fragment_bytes(payload_len, 0, false)
    }

    /// The header of the fragment that begins at byte `offset`, a multiple of 8, of the payload.
    pub(crate) fn to_fragment_bytes(
        self,
        payload_len: usize,
        offset: usize,
        more_fragments: bool,
    ) -> [u8; HEADER_LEN] {
        let total_len = (HEADER_LEN + payload_len) as u16;
        let mut flags = (offset / 8) as u16;
        if self.dont_fragment {
            flags |= DONT_FRAGMENT;
        }
        if more_fragments {
            flags |= MORE_FRAGMENTS;
        }
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = 0x45;
        bytes[2..4].copy_from_slice(&total_len.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.identification.to_be_bytes());
        bytes[6..8].copy_from_slice(&flags.to_be_bytes());
        bytes[8] = self.time_to_live;
        bytes[9] = self.protocol;
        bytes[12..16].copy_from_slice(&self.source.octets());
        bytes[16..].copy_from_slice(&self.destination.octets());
        let sum = checksum(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_pair_of_header_and_total_length_is_read_within_the_bytes_or_refused() {
        for header_words in 0..16u8 {
            for total_len in 0..=80u16 {
                let mut bytes = [0xaa; 60];
                bytes[0] = 0x40 | header_words;
                bytes[2..4].copy_from_slice(&total_len.to_be_bytes());
                let header_len = usize::from(header_words) * 4;
                let total_len = usize::from(total_len);
                let possible = header_len >= 20 && total_len >= header_len && total_len <= 60;
                let packet = Packet::parse(&bytes);
                assert_eq!(packet.is_some(), possible, "{header_len} of {total_len}");
                if let Some(packet) = packet {
                    assert_eq!(packet.payload().len(), total_len - header_len);
                    let _ = packet.options();
                }
            }
        }
    }

    #[test]
    fn other_versions_and_nothing_at_all_are_refused() {
        assert!(Packet::parse(&[]).is_none());
        for version in (0..16).filter(|version| *version != 4) {
            let mut bytes = [0; 20];
            bytes[0] = version << 4 | 5;
            bytes[3] = 20;
            assert!(Packet::parse(&bytes).is_none());
        }
    }

    #[test]
    fn a_source_route_is_found_behind_other_options_and_bad_lengths_end_the_walk() {
        let options = |options: &[u8]| {
            let mut bytes = vec![0; 60];
            bytes[0] = 0x4f;
            bytes[3] = 60;
            bytes[20..20 + options.len()].copy_from_slice(options);
            Packet::parse(&bytes).unwrap().options()
        };
        assert_eq!(options(&[]), Options::Harmless);
        assert_eq!(options(&[1, 1, 131, 3, 4]), Options::SourceRoute);
        assert_eq!(options(&[7, 4, 4, 0, 137, 3, 4]), Options::SourceRoute);
        assert_eq!(options(&[0, 137, 3, 4]), Options::Harmless);
        assert_eq!(options(&[7, 0]), Options::Malformed);
        assert_eq!(options(&[7, 1]), Options::Malformed);
        assert_eq!(options(&[7, 41]), Options::Malformed);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            source: u32, destination: u32, protocol: u8, time_to_live: u8, identification: u16,
            dont_fragment: bool, units in 0usize..8192, more_fragments: bool,
            payload in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let header = Header {
                source: Ipv4Addr::from_bits(source), destination: Ipv4Addr::from_bits(destination),
                protocol, time_to_live, identification, dont_fragment,
            };
            let mut bytes =
                header.to_fragment_bytes(payload.len(), units * 8, more_fragments).to_vec();
            bytes.extend(&payload);
            bytes.extend([0xaa; 9]);
            let packet = Packet::parse(&bytes).unwrap();
            prop_assert!(packet.checksum_is_valid());
            prop_assert_eq!(packet.source(), header.source);
            prop_assert_eq!(packet.destination(), header.destination);
            prop_assert_eq!(packet.protocol(), protocol);
            prop_assert_eq!(packet.identification(), identification);
            prop_assert_eq!(packet.fragment_offset(), units * 8);
            prop_assert_eq!(packet.more_fragments(), more_fragments);
            prop_assert_eq!(packet.payload(), &payload[..]);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..100), version_4: bool,
        ) {
            if version_4 && let Some(first) = bytes.first_mut() {
                *first = 0x40 | *first & 0x0f;
            }
            for packet in [Packet::parse(&bytes), Packet::parse_quoted(&bytes)].into_iter().flatten() {
                let _ = (packet.options(), packet.checksum_is_valid(), packet.is_fragment());
                let _ = (packet.source(), packet.destination(), packet.protocol());
                prop_assert!(packet.header().len() + packet.payload().len() <= bytes.len());
            }
        }
    }
}
