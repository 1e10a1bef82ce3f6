//! UDP datagrams (RFC 768).

use super::checksum::Sum;
use super::ipv4::PROTOCOL_UDP;
use super::read_u16;
use std::net::IpAddr;

/// Length of a header in bytes.
pub(crate) const HEADER_LEN: usize = 8;

/// Where the checksum stands in the header.
pub(crate) const CHECKSUM_OFFSET: usize = 6;

/// The most bytes that a datagram over IPv4 carries: 65,535 less two headers. Over IPv6 it is 20
/// more (RFC 8200 §3 counts the payload alone), which nobody misses.
pub(crate) const PAYLOAD_MAX: usize = 65_535 - super::ipv4::HEADER_LEN - HEADER_LEN;

/// A datagram whose header is whole and whose length lies within the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram<'a> {
    /// Header and payload.
    bytes: &'a [u8],
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads a datagram; `None` if the length is below 8 or above what there is.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let len = usize::from(read_u16(bytes, 4));
        let bytes = bytes.get(..len)?;
        let payload = bytes.get(HEADER_LEN..)?;
        Some(Datagram {
            bytes,
            source_port: read_u16(bytes, 0),
            destination_port: read_u16(bytes, 2),
            payload,
        })
    }

    /// The sender computed no checksum (RFC 768: the field is zero).
    pub(crate) fn has_no_checksum(&self) -> bool {
        read_u16(self.bytes, CHECKSUM_OFFSET) == 0
    }

    /// The checksum is right, or the sender computed none; which over IPv6 it must (RFC 8200
    /// §8.1).
    pub(crate) fn checksum_is_valid(
        &self,
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
    ) -> bool {
        let (source, destination) = (source.into(), destination.into());
        if self.has_no_checksum() {
            return source.is_ipv4();
        }
        Sum::of_pseudo_header(source, destination, PROTOCOL_UDP, self.bytes.len())
            .then(self.bytes)
            .is_valid()
    }
}

/// A header whose checksum field is zero.
pub(crate) fn header(source_port: u16, destination_port: u16, payload_len: usize) -> [u8; 8] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..2].copy_from_slice(&source_port.to_be_bytes());
    bytes[2..4].copy_from_slice(&destination_port.to_be_bytes());
    bytes[4..6].copy_from_slice(&((HEADER_LEN + payload_len) as u16).to_be_bytes());
    bytes
}

/// The checksum of a whole datagram whose checksum field is zero.
pub(crate) fn checksum(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    datagram: &[u8],
) -> u16 {
    let sum = Sum::of_pseudo_header(source, destination, PROTOCOL_UDP, datagram.len())
        .then(datagram)
        .finish();
    // RFC 768: a sum of zero is sent as all ones, because zero says that there is none.
    if sum == 0 { 0xffff } else { sum }
}

/// A datagram with its checksum.
pub(crate) fn to_bytes(
    (source, source_port): (impl Into<IpAddr>, u16),
    (destination, destination_port): (impl Into<IpAddr>, u16),
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    bytes.extend(header(source_port, destination_port, payload.len()));
    bytes.extend(payload);
    let sum = checksum(source, destination, &bytes);
    bytes[CHECKSUM_OFFSET..HEADER_LEN].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    /// Pitfall L03.
    #[test]
    fn a_checksum_of_zero_is_sent_as_all_ones() {
        let plain = to_bytes((A, 1), (B, 2), &[0, 0]);
        let sum = read_u16(&plain, CHECKSUM_OFFSET);
        // The payload that takes the rest of the sum makes it zero.
        let bytes = to_bytes((A, 1), (B, 2), &sum.to_be_bytes());
        assert_eq!(read_u16(&bytes, CHECKSUM_OFFSET), 0xffff);
        assert!(Datagram::parse(&bytes).unwrap().checksum_is_valid(A, B));
    }

    #[test]
    fn a_length_below_eight_or_above_the_payload_is_refused() {
        let good = to_bytes((A, 1), (B, 2), b"four");
        for len in 0..20u16 {
            let mut bytes = good.clone();
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            assert_eq!(Datagram::parse(&bytes).is_some(), (8..=12).contains(&len), "{len}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_one_flipped_bit_shows(
            source_port: u16, destination_port: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            bit: proptest::sample::Index,
        ) {
            let mut bytes = to_bytes((A, source_port), (B, destination_port), &payload);
            {
                let datagram = Datagram::parse(&bytes).unwrap();
                prop_assert!(datagram.checksum_is_valid(A, B));
                prop_assert_eq!(datagram.source_port, source_port);
                prop_assert_eq!(datagram.destination_port, destination_port);
                prop_assert_eq!(datagram.payload, &payload[..]);
            }
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Some(datagram) = Datagram::parse(&bytes)
                && read_u16(&bytes, CHECKSUM_OFFSET) != 0
            {
                prop_assert!(!datagram.checksum_is_valid(A, B));
            }
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(datagram) = Datagram::parse(&bytes) {
                let _ = datagram.checksum_is_valid(A, B);
            }
        }
    }
}
