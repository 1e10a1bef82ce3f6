//! ICMP messages (RFC 792).

use super::checksum::{Sum, checksum};

/// Length of a message's header in bytes.
pub(crate) const HEADER_LEN: usize = 8;

pub(crate) const ECHO_REPLY: u8 = 0;
pub(crate) const DESTINATION_UNREACHABLE: u8 = 3;
pub(crate) const ECHO_REQUEST: u8 = 8;
pub(crate) const TIME_EXCEEDED: u8 = 11;
pub(crate) const PARAMETER_PROBLEM: u8 = 12;

/// Code of Destination Unreachable: there is no route.
pub(crate) const CODE_NETWORK_UNREACHABLE: u8 = 0;
/// Code of Destination Unreachable: the last link's neighbour does not answer.
pub(crate) const CODE_HOST_UNREACHABLE: u8 = 1;
/// Code of Destination Unreachable: too large for the next link, and not to be fragmented.
pub(crate) const CODE_FRAGMENTATION_NEEDED: u8 = 4;
/// Code of Time Exceeded: in transit.
pub(crate) const CODE_TIME_TO_LIVE: u8 = 0;
/// Code of Destination Unreachable: nobody is at the port.
pub(crate) const CODE_PORT_UNREACHABLE: u8 = 3;
/// Code of Destination Unreachable: the protocol is not known.
pub(crate) const CODE_PROTOCOL_UNREACHABLE: u8 = 2;
/// Code of Time Exceeded: fragments are missing.
pub(crate) const CODE_REASSEMBLY: u8 = 1;

/// A message whose header is whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    bytes: &'a [u8],
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

    /// The message's checksum is right.
    pub(crate) fn checksum_is_valid(&self) -> bool {
        Sum::default().then(self.bytes).is_valid()
    }

    /// The MTU in a Destination Unreachable of code 4 (RFC 1191 §4); 0 from old routers.
    pub(crate) fn next_hop_mtu(&self) -> u16 {
        u16::from_be_bytes([self.word[2], self.word[3]])
    }
}

/// Writes a message with its checksum.
pub(crate) fn to_bytes(kind: u8, code: u8, word: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend([kind, code, 0, 0]);
    bytes.extend(word);
    bytes.extend(body);
    let sum = checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(kind: u8, code: u8, word: [u8; 4], body: Vec<u8>) {
            let bytes = to_bytes(kind, code, word, &body);
            let message = Message::parse(&bytes).unwrap();
            prop_assert!(message.checksum_is_valid());
            prop_assert_eq!((message.kind, message.code, message.word), (kind, code, word));
            prop_assert_eq!(message.body, &body[..]);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(message) = Message::parse(&bytes) {
                let _ = (message.checksum_is_valid(), message.next_hop_mtu());
            }
        }
    }
}
