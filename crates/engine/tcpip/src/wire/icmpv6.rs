//! ICMPv6 messages (RFC 4443).

use super::checksum::Sum;
use super::ipv6::PROTOCOL_ICMPV6;
use super::read_u32;
use std::net::Ipv6Addr;

/// Length of a message's header in bytes.
pub(crate) const HEADER_LEN: usize = 8;
/// Where the checksum stands.
const CHECKSUM_OFFSET: usize = 2;

pub(crate) const DESTINATION_UNREACHABLE: u8 = 1;
pub(crate) const PACKET_TOO_BIG: u8 = 2;
pub(crate) const TIME_EXCEEDED: u8 = 3;
pub(crate) const PARAMETER_PROBLEM: u8 = 4;
pub(crate) const ECHO_REQUEST: u8 = 128;
pub(crate) const ECHO_REPLY: u8 = 129;
pub(crate) const MLD_QUERY: u8 = 130;
pub(crate) const ROUTER_SOLICITATION: u8 = 133;
pub(crate) const ROUTER_ADVERTISEMENT: u8 = 134;
pub(crate) const NEIGHBOUR_SOLICITATION: u8 = 135;
pub(crate) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
pub(crate) const REDIRECT: u8 = 137;
pub(crate) const MLDV2_REPORT: u8 = 143;

/// Code of Destination Unreachable: nobody is at the port.
pub(crate) const CODE_PORT_UNREACHABLE: u8 = 4;
/// Code of Time Exceeded: fragments are missing.
pub(crate) const CODE_REASSEMBLY: u8 = 1;

/// Messages below are errors (RFC 4443 §2.1).
pub(crate) const FIRST_INFORMATIONAL: u8 = 128;

/// A message whose header is whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// The second word of the header, whose meaning depends on the kind.
    pub(crate) word: [u8; 4],
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a message; `None` if it is shorter than a header.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&[kind, code, _, _, a, b, c, d], body) = bytes.split_first_chunk::<HEADER_LEN>()?;
        Some(Message { bytes, kind, code, word: [a, b, c, d], body })
    }

    /// The message's checksum, over the pseudo-header too (RFC 4443 §2.3), is right.
    pub(crate) fn checksum_is_valid(&self, source: Ipv6Addr, destination: Ipv6Addr) -> bool {
        Sum::of_pseudo_header(source, destination, PROTOCOL_ICMPV6, self.bytes.len())
            .then(self.bytes)
            .is_valid()
    }

    /// The MTU in a Packet Too Big (RFC 4443 §3.2).
    pub(crate) fn mtu(&self) -> u32 {
        read_u32(&self.word, 0)
    }
}

/// Writes a message with its checksum.
pub(crate) fn to_bytes(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    (kind, code): (u8, u8),
    word: [u8; 4],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend([kind, code, 0, 0]);
    bytes.extend(word);
    bytes.extend(body);
    let sum = Sum::of_pseudo_header(source, destination, PROTOCOL_ICMPV6, bytes.len())
        .then(&bytes)
        .finish();
    bytes[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_and_one_flipped_bit_shows(
            source: u128, destination: u128, kind: u8, code: u8, word: [u8; 4],
            body in proptest::collection::vec(any::<u8>(), 0..100), bit: proptest::sample::Index,
        ) {
            let (source, destination) = (source.into(), destination.into());
            let mut bytes = to_bytes(source, destination, (kind, code), word, &body);
            let message = Message::parse(&bytes).unwrap();
            prop_assert!(message.checksum_is_valid(source, destination));
            prop_assert_eq!((message.kind, message.code, message.word), (kind, code, word));
            prop_assert_eq!(message.body, &body[..]);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!Message::parse(&bytes).unwrap().checksum_is_valid(source, destination));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let message = Message::parse(&bytes);
            prop_assert_eq!(message.is_some(), bytes.len() >= HEADER_LEN);
            if let Some(message) = message {
                let _ = message.mtu();
            }
        }
    }
}
