//! The entries of a network device's two rings (Xen's `io/netif.h`).
//!
//! *Transmit* and *receive* are the frontend's words: on the transmit ring it asks the backend to
//! take packets, on the receive ring it lends pages for packets to come. A packet may take several
//! slots. What stands between its first and its second may be [`Extra`] information instead of
//! data, one slot each. [`net_transmit`](super::net_transmit) and
//! [`net_receive`](super::net_receive) know what sequences of slots are packets.

/// Size of a slot on the transmit ring.
pub const TX_SLOT_BYTES: usize = 12;
/// Size of a slot on the receive ring.
pub const RX_SLOT_BYTES: usize = 8;
/// Size of a page, hence the most that a slot carries. Requests do not cross a page.
pub const PAGE_BYTES: usize = 4096;
/// The longest packet, Ethernet header and all: its size is said in 16 bits (`XEN_NETIF_MAX_TX_SIZE`).
pub const PACKET_BYTES_MAX: usize = 65_535;
/// So many slots with data every backend takes for one packet (`XEN_NETIF_NR_SLOTS_MIN`).
pub const DATA_SLOTS_MAX: usize = 18;

/// Flags of a [`TxRequest`] (`XEN_NETTXF_*`).
pub mod tx_flags {
    /// The transport checksum is to be filled in; the pseudo-header's sum stands there.
    pub const CSUM_BLANK: u16 = 1 << 0;
    /// The transport checksum needs no verification.
    pub const DATA_VALIDATED: u16 = 1 << 1;
    /// The packet goes on in another request.
    pub const MORE_DATA: u16 = 1 << 2;
    /// An [`Extra`](super::Extra) follows in the next slot.
    pub const EXTRA_INFO: u16 = 1 << 3;
}

/// Flags of a [`RxResponse`] (`XEN_NETRXF_*`): not the same bits as [`tx_flags`].
pub mod rx_flags {
    /// The transport checksum needs no verification.
    pub const DATA_VALIDATED: u16 = 1 << 0;
    /// The transport checksum is blank, and to be filled in by whoever forwards the packet.
    pub const CSUM_BLANK: u16 = 1 << 1;
    /// The packet goes on in another response.
    pub const MORE_DATA: u16 = 1 << 2;
    /// An [`Extra`](super::Extra) follows in the next slot.
    pub const EXTRA_INFO: u16 = 1 << 3;
    /// The response is no packet, but says how the next is to be cut: the way of Linux before
    /// 3.10, which a frontend must have asked for (`feature-gso-tcpv4-prefix`). Ours do not.
    pub const GSO_PREFIX: u16 = 1 << 4;
}

/// Statuses of a [`TxResponse`], and of a [`RxResponse`] where there is no data (`XEN_NETIF_RSP_*`).
pub mod status {
    /// The packet was taken.
    pub const OKAY: i16 = 0;
    /// The packet is bad, or could not be read.
    pub const ERROR: i16 = -1;
    /// The packet was dropped.
    pub const DROPPED: i16 = -2;
    /// The slot held no request, but extra information.
    pub const NULL: i16 = 1;
}

/// `netif_tx_request`: part of a packet, in a page of the frontend's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxRequest {
    /// The page's grant.
    pub gref: u32,
    /// First byte in the page.
    pub offset: u16,
    /// [`tx_flags`].
    pub flags: u16,
    /// Stands in the response again.
    pub id: u16,
    /// Bytes; in a packet's first request, of the whole packet.
    pub size: u16,
}

impl TxRequest {
    /// As it stands in the ring.
    pub fn encode(&self) -> [u8; TX_SLOT_BYTES] {
        let mut entry = [0; TX_SLOT_BYTES];
        entry[..4].copy_from_slice(&self.gref.to_le_bytes());
        entry[4..6].copy_from_slice(&self.offset.to_le_bytes());
        entry[6..8].copy_from_slice(&self.flags.to_le_bytes());
        entry[8..10].copy_from_slice(&self.id.to_le_bytes());
        entry[10..].copy_from_slice(&self.size.to_le_bytes());
        entry
    }

    /// What stands in the ring; every sequence of bytes is a request.
    pub fn decode(entry: &[u8; TX_SLOT_BYTES]) -> Self {
        let &[a, b, c, d, offset0, offset1, flags0, flags1, id0, id1, size0, size1] = entry;
        TxRequest {
            gref: u32::from_le_bytes([a, b, c, d]),
            offset: u16::from_le_bytes([offset0, offset1]),
            flags: u16::from_le_bytes([flags0, flags1]),
            id: u16::from_le_bytes([id0, id1]),
            size: u16::from_le_bytes([size0, size1]),
        }
    }
}

/// `netif_tx_response`: what became of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxResponse {
    /// The request's; says nothing if the status is [`status::NULL`].
    pub id: u16,
    /// [`status`].
    pub status: i16,
}

impl TxResponse {
    /// As it stands in the ring.
    pub fn encode(&self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.id.to_le_bytes(), self.status.to_le_bytes());
        [a, b, c, d]
    }

    /// What stands in the ring.
    pub fn decode(&[a, b, c, d]: &[u8; 4]) -> Self {
        TxResponse { id: u16::from_le_bytes([a, b]), status: i16::from_le_bytes([c, d]) }
    }
}

/// `netif_rx_request`: a page of the frontend's for a packet, or a part of one, to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxRequest {
    /// Stands in the response again.
    pub id: u16,
    /// The page's grant.
    pub gref: u32,
}

impl RxRequest {
    /// As it stands in the ring.
    pub fn encode(&self) -> [u8; RX_SLOT_BYTES] {
        let ([a, b], [c, d, e, f]) = (self.id.to_le_bytes(), self.gref.to_le_bytes());
        [a, b, 0, 0, c, d, e, f]
    }

    /// What stands in the ring.
    pub fn decode(&[a, b, _, _, c, d, e, f]: &[u8; RX_SLOT_BYTES]) -> Self {
        RxRequest { id: u16::from_le_bytes([a, b]), gref: u32::from_le_bytes([c, d, e, f]) }
    }
}

/// `netif_rx_response`: a page was filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxResponse {
    /// The request's.
    pub id: u16,
    /// First byte in the page.
    pub offset: u16,
    /// [`rx_flags`].
    pub flags: u16,
    /// Bytes if it is not negative, a [`status`] if it is.
    pub status: i16,
}

impl RxResponse {
    /// As it stands in the ring.
    pub fn encode(&self) -> [u8; RX_SLOT_BYTES] {
        let ([a, b], [c, d]) = (self.id.to_le_bytes(), self.offset.to_le_bytes());
        let ([e, f], [g, h]) = (self.flags.to_le_bytes(), self.status.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }

    /// What stands in the ring.
    pub fn decode(&[a, b, c, d, e, f, g, h]: &[u8; RX_SLOT_BYTES]) -> Self {
        RxResponse {
            id: u16::from_le_bytes([a, b]),
            offset: u16::from_le_bytes([c, d]),
            flags: u16::from_le_bytes([e, f]),
            status: i16::from_le_bytes([g, h]),
        }
    }
}

/// How a packet is to be cut (`XEN_NETIF_GSO_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoFamily {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
}

/// Which families of packets are to be cut: what was agreed (`feature-gso-tcpv4`,
/// `feature-gso-tcpv6`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GsoFamilies {
    /// TCP over IPv4.
    pub tcpv4: bool,
    /// TCP over IPv6.
    pub tcpv6: bool,
}

impl GsoFamilies {
    /// True if packets of this family may be cut.
    pub const fn has(self, family: GsoFamily) -> bool {
        match family {
            GsoFamily::TcpV4 => self.tcpv4,
            GsoFamily::TcpV6 => self.tcpv6,
        }
    }

    /// True if any may be.
    pub const fn any(self) -> bool {
        self.tcpv4 || self.tcpv6
    }
}

/// A packet that is several TCP segments in one (`XEN_NETIF_EXTRA_TYPE_GSO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What it is cut as.
    pub family: GsoFamily,
    /// TCP payload of each segment but the last, in bytes; at least 1.
    pub size: u16,
}

/// `netif_extra_info`: what does not fit into a request or response. Takes a slot of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraInfo {
    /// The packet is to be cut.
    Gso(Gso),
    /// A multicast address that the frontend wants (true) or no longer wants. Not a packet's.
    Multicast(bool, [u8; 6]),
    /// The packet's hash, from which its queue was chosen.
    Hash,
    /// Headroom that was left for XDP.
    Xdp,
}

/// An [`ExtraInfo`], and whether another follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extra {
    /// What it says.
    pub info: ExtraInfo,
    /// Another follows in the next slot (`XEN_NETIF_EXTRA_FLAG_MORE`).
    pub more: bool,
}

/// Types of extra information (`XEN_NETIF_EXTRA_TYPE_*`).
const EXTRA_GSO: u8 = 1;
const EXTRA_MULTICAST_ADD: u8 = 2;
const EXTRA_MULTICAST_DEL: u8 = 3;
const EXTRA_HASH: u8 = 4;
const EXTRA_XDP: u8 = 5;
const EXTRA_FLAG_MORE: u8 = 1;
/// `XEN_NETIF_GSO_TYPE_*`.
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 2;

/// Extra information of a type that this protocol does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraError {
    /// Not one of `XEN_NETIF_EXTRA_TYPE_*`. What it means for the slots after it is not known.
    Type(u8),
    /// Not one of `XEN_NETIF_GSO_TYPE_*`, or segments of no bytes.
    Gso {
        /// `u.gso.type`.
        kind: u8,
        /// `u.gso.size`.
        size: u16,
        /// Whether another extra follows.
        more: bool,
    },
}

impl Extra {
    /// As it stands in a slot of the receive ring; on the transmit ring it is followed by zeroes.
    pub fn encode(&self) -> [u8; RX_SLOT_BYTES] {
        let mut entry = [0; RX_SLOT_BYTES];
        entry[1] = u8::from(self.more) * EXTRA_FLAG_MORE;
        match self.info {
            ExtraInfo::Gso(Gso { family, size }) => {
                entry[0] = EXTRA_GSO;
                entry[2..4].copy_from_slice(&size.to_le_bytes());
                entry[4] = match family {
                    GsoFamily::TcpV4 => GSO_TCPV4,
                    GsoFamily::TcpV6 => GSO_TCPV6,
                };
            }
            ExtraInfo::Multicast(wanted, address) => {
                entry[0] = if wanted { EXTRA_MULTICAST_ADD } else { EXTRA_MULTICAST_DEL };
                entry[2..].copy_from_slice(&address);
            }
            ExtraInfo::Hash => entry[0] = EXTRA_HASH,
            ExtraInfo::Xdp => entry[0] = EXTRA_XDP,
        }
        entry
    }

    /// As it stands in a slot of the transmit ring.
    pub fn encode_tx(&self) -> [u8; TX_SLOT_BYTES] {
        let mut entry = [0; TX_SLOT_BYTES];
        entry[..RX_SLOT_BYTES].copy_from_slice(&self.encode());
        entry
    }

    /// What stands in a slot.
    ///
    /// # Errors
    /// [`ExtraError`], if the type or the kind of segmentation is none that this protocol has.
    pub fn decode(entry: &[u8; RX_SLOT_BYTES]) -> Result<Self, ExtraError> {
        let &[kind, flags, a, b, c, d, e, f] = entry;
        let more = flags & EXTRA_FLAG_MORE != 0;
        let info = match kind {
            EXTRA_GSO => {
                let size = u16::from_le_bytes([a, b]);
                let family = match c {
                    GSO_TCPV4 => GsoFamily::TcpV4,
                    GSO_TCPV6 => GsoFamily::TcpV6,
                    _ => return Err(ExtraError::Gso { kind: c, size, more }),
                };
                if size == 0 {
                    return Err(ExtraError::Gso { kind: c, size, more });
                }
                ExtraInfo::Gso(Gso { family, size })
            }
            EXTRA_MULTICAST_ADD | EXTRA_MULTICAST_DEL => {
                ExtraInfo::Multicast(kind == EXTRA_MULTICAST_ADD, [a, b, c, d, e, f])
            }
            EXTRA_HASH => ExtraInfo::Hash,
            EXTRA_XDP => ExtraInfo::Xdp,
            _ => return Err(ExtraError::Type(kind)),
        };
        Ok(Extra { info, more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_lie_as_in_netif_h() {
        let request = TxRequest { gref: 0x0403_0201, offset: 5, flags: 7, id: 9, size: 0x0c0b };
        assert_eq!(request.encode(), [1, 2, 3, 4, 5, 0, 7, 0, 9, 0, 11, 12]);
        assert_eq!(TxResponse { id: 0x0201, status: -2 }.encode(), [1, 2, 0xfe, 0xff]);
        assert_eq!(RxRequest { id: 1, gref: 0x0807_0605 }.encode(), [1, 0, 0, 0, 5, 6, 7, 8]);
        let response = RxResponse { id: 1, offset: 3, flags: 5, status: 1514 };
        assert_eq!(response.encode(), [1, 0, 3, 0, 5, 0, 0xea, 5]);
        let gso = ExtraInfo::Gso(Gso { family: GsoFamily::TcpV6, size: 1440 });
        let extra = Extra { info: gso, more: true };
        assert_eq!(extra.encode(), [1, 1, 0xa0, 5, 2, 0, 0, 0]);
        assert_eq!(extra.encode_tx(), [1, 1, 0xa0, 5, 2, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn extras_that_no_header_names_are_errors() {
        assert_eq!(Extra::decode(&[0; 8]), Err(ExtraError::Type(0)));
        assert_eq!(Extra::decode(&[6, 0, 0, 0, 0, 0, 0, 0]), Err(ExtraError::Type(6)));
        let unknown = ExtraError::Gso { kind: 3, size: 1, more: true };
        assert_eq!(Extra::decode(&[1, 1, 1, 0, 3, 0, 0, 0]), Err(unknown));
        let endless = ExtraError::Gso { kind: 1, size: 0, more: false };
        assert_eq!(Extra::decode(&[1, 0, 0, 0, 1, 0, 0, 0]), Err(endless));
    }

    proptest! {
        #[test]
        fn every_entry_is_read_as_it_was_written(a: [u8; 12], b: [u8; 8], c: [u8; 4]) {
            prop_assert_eq!(TxRequest::decode(&a).encode(), a);
            prop_assert_eq!(RxResponse::decode(&b).encode(), b);
            prop_assert_eq!(TxResponse::decode(&c).encode(), c);
            let request = RxRequest::decode(&b);
            prop_assert_eq!(RxRequest::decode(&request.encode()), request);
            if let Ok(extra) = Extra::decode(&b) {
                prop_assert_eq!(Extra::decode(&extra.encode()), Ok(extra));
            }
        }

        #[test]
        fn every_extra_is_read_as_it_was_written(kind in 1..6u8, more: bool, rest: [u8; 6]) {
            let [a, b, c, d, e, f] = rest;
            if let Ok(extra) = Extra::decode(&[kind, u8::from(more), a, b, c, d, e, f]) {
                prop_assert_eq!(extra.more, more);
                prop_assert_eq!(Extra::decode(&extra.encode()), Ok(extra));
            } else {
                prop_assert_eq!(kind, 1);
            }
        }
    }
}
