//! ARP for IPv4 over Ethernet (RFC 826).

use super::{read_ipv4, read_u16};
use crate::config::MacAddress;
use std::net::Ipv4Addr;

/// Length of a packet in bytes.
pub(crate) const LEN: usize = 28;

/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const PREFIX: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Request,
    Reply,
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) operation: Operation,
    pub(crate) sender_mac: MacAddress,
    pub(crate) sender: Ipv4Addr,
    pub(crate) target_mac: MacAddress,
    pub(crate) target: Ipv4Addr,
}

impl Packet {
    /// Reads a packet; `None` if it is cut short, of other address families, or of another
    /// operation than request and reply. Bytes that follow are the frame's padding.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..LEN)?;
        if bytes[..6] != PREFIX {
            return None;
        }
        let operation = match read_u16(bytes, 6) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        let mac = |at: usize| {
            let mut mac = [0; 6];
            mac.copy_from_slice(&bytes[at..at + 6]);
            MacAddress(mac)
        };
        Some(Packet {
            operation,
            sender_mac: mac(8),
            sender: read_ipv4(bytes, 14),
            target_mac: mac(18),
            target: read_ipv4(bytes, 24),
        })
    }

    /// The packet's bytes.
    pub(crate) fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..6].copy_from_slice(&PREFIX);
        bytes[7] = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        bytes[8..14].copy_from_slice(&self.sender_mac.0);
        bytes[14..18].copy_from_slice(&self.sender.octets());
        bytes[18..24].copy_from_slice(&self.target_mac.0);
        bytes[24..].copy_from_slice(&self.target.octets());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(
            request: bool, sender_mac: [u8; 6], sender: u32, target_mac: [u8; 6], target: u32,
            padding in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let packet = Packet {
                operation: if request { Operation::Request } else { Operation::Reply },
                sender_mac: MacAddress(sender_mac),
                sender: Ipv4Addr::from_bits(sender),
                target_mac: MacAddress(target_mac),
                target: Ipv4Addr::from_bits(target),
            };
            let mut bytes = packet.to_bytes().to_vec();
            bytes.extend(padding);
            prop_assert_eq!(Packet::parse(&bytes), Some(packet));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Packet::parse(&bytes);
        }
    }

    #[test]
    fn other_families_and_cut_packets_are_refused() {
        let good = Packet {
            operation: Operation::Reply,
            sender_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            sender: Ipv4Addr::new(10, 0, 0, 1),
            target_mac: MacAddress([2, 0, 0, 0, 0, 2]),
            target: Ipv4Addr::new(10, 0, 0, 2),
        }
        .to_bytes();
        for byte in 0..8 {
            let mut bad = good;
            bad[byte] ^= 0x10;
            assert_eq!(Packet::parse(&bad), None, "byte {byte}");
        }
        for len in 0..LEN {
            assert_eq!(Packet::parse(&good[..len]), None, "{len} bytes");
        }
    }
}
