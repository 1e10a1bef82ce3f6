//! Ethernet II frames (RFC 894), without FCS.

use super::read_u16;
use crate::config::MacAddress;

/// Length of a frame's header in bytes.
pub(crate) const HEADER_LEN: usize = 14;

/// EtherType of IPv4.
pub(crate) const TYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub(crate) const TYPE_IPV6: u16 = 0x86dd;
/// EtherType of ARP.
pub(crate) const TYPE_ARP: u16 = 0x0806;

/// A frame whose header is whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) destination: MacAddress,
    pub(crate) source: MacAddress,
    pub(crate) ethertype: u16,
    /// What follows the header, padding included.
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a frame; `None` if it is shorter than a header.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (destination, rest) = bytes.split_first_chunk::<6>()?;
        let (source, rest) = rest.split_first_chunk::<6>()?;
        let payload = rest.get(2..)?;
        Some(Frame {
            destination: MacAddress(*destination),
            source: MacAddress(*source),
            ethertype: read_u16(rest, 0),
            payload,
        })
    }
}

/// The header of a frame.
pub(crate) fn header(
    destination: MacAddress,
    source: MacAddress,
    ethertype: u16,
) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..6].copy_from_slice(&destination.0);
    bytes[6..12].copy_from_slice(&source.0);
    bytes[12..].copy_from_slice(&ethertype.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(
            destination: [u8; 6], source: [u8; 6], ethertype: u16, payload: Vec<u8>,
        ) {
            let mut bytes = header(MacAddress(destination), MacAddress(source), ethertype).to_vec();
            bytes.extend(&payload);
            let frame = Frame::parse(&bytes).unwrap();
            prop_assert_eq!(frame.destination.0, destination);
            prop_assert_eq!(frame.source.0, source);
            prop_assert_eq!(frame.ethertype, ethertype);
            prop_assert_eq!(frame.payload, &payload[..]);
        }

        #[test]
        fn fourteen_bytes_are_a_frame_and_fewer_are_none(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            prop_assert_eq!(Frame::parse(&bytes).is_some(), bytes.len() >= HEADER_LEN);
        }
    }
}
