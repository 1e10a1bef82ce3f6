//! IPv6 headers (RFC 8200): the fixed one, the walk along extension headers, fragment headers.

use super::{read_ipv6, read_u16, read_u32};
use std::net::Ipv6Addr;

/// Length of the fixed header in bytes (RFC 8200 §3).
pub(crate) const HEADER_LEN: usize = 40;
/// Length of a fragment header in bytes (RFC 8200 §4.5).
pub(crate) const FRAGMENT_HEADER_LEN: usize = 8;
/// The least MTU of a link, in bytes (RFC 8200 §5).
pub(crate) const MTU_MIN: usize = 1280;

/// Protocol number of ICMPv6.
pub(crate) const PROTOCOL_ICMPV6: u8 = 58;
/// Next header: hop-by-hop options.
pub(crate) const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// Next header: a fragment header.
pub(crate) const FRAGMENT: u8 = 44;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

const OPTION_PAD1: u8 = 0;
const OPTION_PADN: u8 = 1;
/// Option: Router Alert (RFC 2711), which asks routers, not us.
pub(crate) const OPTION_ROUTER_ALERT: u8 = 5;

/// Most extension headers of a packet. Honest ones have one or two; the number of kinds is below
/// this, and each may come once (RFC 8504 §5.3 lets a host set such a limit).
const EXTENSIONS_MAX: usize = 8;
/// Most options, padding included, of one extension header (RFC 8504 §5.3).
const OPTIONS_MAX: usize = 16;

/// Code of Parameter Problem: a header field is wrong (RFC 4443 §3.4).
pub(crate) const CODE_FIELD: u8 = 0;
/// Code of Parameter Problem: the next header is not known.
pub(crate) const CODE_NEXT_HEADER: u8 = 1;
/// Code of Parameter Problem: the option is not known.
pub(crate) const CODE_OPTION: u8 = 2;

/// Where in the fixed header the next header's number stands.
pub(crate) const NEXT_HEADER_FIELD: usize = 6;

/// A packet whose payload length lies within the bytes that it was read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    /// From the header to the payload's end: the frame's padding is cut off.
    bytes: &'a [u8],
}

/// Where the walk along the extension headers ended. Positions count from the packet's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// At a header that is no extension: `protocol` was found at `field`, its first byte is at
    /// `start`, which may be the packet's end.
    Upper { protocol: u8, field: usize, start: usize },
    /// At a fragment header at `start`, announced at `field`.
    Fragment { field: usize, start: usize },
    /// There is nothing to do: no next header, or an option that asks for silence.
    Silent,
    /// A header does not fit into the packet.
    Malformed,
    /// More headers or options than anybody needs.
    Excessive,
    /// The sender is to be told (Parameter Problem); only a multicast destination may spare him.
    Problem { code: u8, pointer: usize, even_multicast: bool },
}

impl<'a> Packet<'a> {
    /// Reads a packet. `None` if the version is not 6, or header or payload do not fit in `bytes`.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.first()? >> 4 != 6 {
            return None;
        }
        let len = HEADER_LEN + usize::from(read_u16(bytes, 4));
        Some(Packet { bytes: bytes.get(..len)? })
    }

    /// Reads a packet of which an ICMP error quotes the beginning: the payload may be cut short.
    pub(crate) fn parse_quoted(bytes: &'a [u8]) -> Option<Self> {
        if bytes.first()? >> 4 != 6 || bytes.len() < HEADER_LEN {
            return None;
        }
        let len = HEADER_LEN + usize::from(read_u16(bytes, 4));
        Some(Packet { bytes: &bytes[..len.min(bytes.len())] })
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the byte `start`.
    pub(crate) fn from(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..).unwrap_or_default()
    }

    pub(crate) fn source(&self) -> Ipv6Addr {
        read_ipv6(self.bytes, 8)
    }

    pub(crate) fn destination(&self) -> Ipv6Addr {
        read_ipv6(self.bytes, 24)
    }

    /// Walks along the extension headers (RFC 8200 §4) from the fixed header on.
    pub(crate) fn walk(&self) -> Walk {
        self.walk_from(self.bytes[NEXT_HEADER_FIELD], NEXT_HEADER_FIELD, HEADER_LEN)
    }

    /// Walks on from the header `next` at `start`, which was announced at `field`.
    pub(crate) fn walk_from(&self, mut next: u8, mut field: usize, mut start: usize) -> Walk {
        for _ in 0..=EXTENSIONS_MAX {
            match next {
                // RFC 8200 §4.1: these options come first or not at all.
                HOP_BY_HOP if start > HEADER_LEN => {
                    return Walk::Problem {
                        code: CODE_NEXT_HEADER,
                        pointer: field,
                        even_multicast: false,
                    };
                }
                HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING => {}
                FRAGMENT => return Walk::Fragment { field, start },
                NO_NEXT_HEADER => return Walk::Silent,
                protocol => return Walk::Upper { protocol, field, start },
            }
            let Some(&[following, units, _, segments_left]) = self.bytes.get(start..start + 4)
            else {
                return Walk::Malformed;
            };
            let end = start + 8 + 8 * usize::from(units);
            let Some(body) = self.bytes.get(start + 2..end) else { return Walk::Malformed };
            if next != ROUTING {
                if let Some(end) = walk_options(body, start + 2) {
                    return end;
                }
            } else if segments_left > 0 {
                // RFC 8200 §4.4, and RFC 5095 for type 0: we are no waypoint.
                return Walk::Problem {
                    code: CODE_FIELD,
                    pointer: start + 2,
                    even_multicast: false,
                };
            }
            (next, field, start) = (following, start, end);
        }
        Walk::Excessive
    }
}

/// Walks along options (RFC 8200 §4.2), the first at `position`; `None` if all may be passed over.
fn walk_options(mut rest: &[u8], mut position: usize) -> Option<Walk> {
    for _ in 0..OPTIONS_MAX {
        let len = match rest {
            [] => return None,
            [OPTION_PAD1, ..] => 1,
            &[kind, len, ..] if rest.len() >= 2 + usize::from(len) => {
                let problem = |even_multicast| {
                    Some(Walk::Problem { code: CODE_OPTION, pointer: position, even_multicast })
                };
                // What the two highest bits say is for who does not know the option.
                match kind >> 6 {
                    _ if kind == OPTION_PADN || kind == OPTION_ROUTER_ALERT => {}
                    0 => {}
                    1 => return Some(Walk::Silent),
                    2 => return problem(true),
                    _ => return problem(false),
                }
                2 + usize::from(len)
            }
            _ => return Some(Walk::Malformed),
        };
        (rest, position) = (&rest[len..], position + len);
    }
    if rest.is_empty() { None } else { Some(Walk::Excessive) }
}

/// A fragment header (RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// The header that the fragmented part begins with.
    pub(crate) next_header: u8,
    /// Where the fragment belongs, in bytes; a multiple of 8.
    pub(crate) offset: usize,
    pub(crate) more_fragments: bool,
    pub(crate) identification: u32,
}

impl Fragment {
    /// Reads a header; `None` if it is cut short.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..FRAGMENT_HEADER_LEN)?;
        let field = read_u16(header, 2);
        Some(Fragment {
            next_header: header[0],
            offset: usize::from(field & !7),
            more_fragments: field & 1 == 1,
            identification: read_u32(header, 4),
        })
    }

    pub(crate) fn to_bytes(self) -> [u8; FRAGMENT_HEADER_LEN] {
        let field = (self.offset & 0xfff8) as u16 | u16::from(self.more_fragments);
        let [a, b] = field.to_be_bytes();
        let [c, d, e, f] = self.identification.to_be_bytes();
        [self.next_header, 0, a, b, c, d, e, f]
    }
}

/// The fixed header of a packet with `payload_len` bytes behind it, at most 65,535.
pub(crate) fn header(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: u8,
    hop_limit: u8,
    payload_len: usize,
) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[0] = 0x60;
    bytes[4..6].copy_from_slice(&(payload_len as u16).to_be_bytes());
    bytes[NEXT_HEADER_FIELD] = next_header;
    bytes[7] = hop_limit;
    bytes[8..24].copy_from_slice(&source.octets());
    bytes[24..].copy_from_slice(&destination.octets());
    bytes
}

/// True if `address` is a unicast address that a host can have on a link: not `::`, `::1`, a group,
/// or an IPv4 address in disguise (RFC 4291 §2.4, §2.5.5).
pub(crate) fn is_host_address(address: Ipv6Addr) -> bool {
    !address.is_unspecified()
        && !address.is_loopback()
        && !address.is_multicast()
        && address.to_ipv4_mapped().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = header(A, B, next_header, 64, payload.len()).to_vec();
        bytes.extend(payload);
        bytes
    }

    fn walk(next_header: u8, payload: &[u8]) -> Walk {
        Packet::parse(&packet(next_header, payload)).unwrap().walk()
    }

    fn problem(code: u8, pointer: usize) -> Walk {
        Walk::Problem { code, pointer, even_multicast: false }
    }

    /// Pitfall V01.
    #[test]
    fn the_walk_ends_at_the_first_header_that_is_no_extension() {
        assert_eq!(walk(17, &[]), Walk::Upper { protocol: 17, field: 6, start: 40 });
        assert_eq!(walk(200, &[0; 8]), Walk::Upper { protocol: 200, field: 6, start: 40 });
        assert_eq!(walk(59, &[0; 8]), Walk::Silent);
        let options = [17, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(walk(0, &options), Walk::Upper { protocol: 17, field: 40, start: 48 });
        let first = [60, 0, 1, 4, 0, 0, 0, 0];
        let both = [first, options].concat();
        assert_eq!(walk(0, &both), Walk::Upper { protocol: 17, field: 48, start: 56 });
        let fragment = [44, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(walk(60, &fragment), Walk::Fragment { field: 40, start: 48 });
        // Hop-by-hop options behind others.
        let late = [0, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(walk(60, &[late, options].concat()), problem(CODE_NEXT_HEADER, 40));
    }

    /// Pitfall V02.
    #[test]
    fn an_unknown_option_is_treated_as_its_highest_bits_say() {
        for next_header in [0, 60] {
            let of = |kind| walk(next_header, &[17, 0, 1, 0, kind, 2, 0, 0]);
            assert_eq!(of(0x1e), Walk::Upper { protocol: 17, field: 40, start: 48 });
            assert_eq!(of(0x5e), Walk::Silent);
            let loud = Walk::Problem { code: CODE_OPTION, pointer: 44, even_multicast: true };
            assert_eq!(of(0x9e), loud);
            assert_eq!(of(0xde), problem(CODE_OPTION, 44));
        }
    }

    /// Pitfall V03.
    #[test]
    fn chains_of_headers_and_options_are_limited() {
        let header = [60, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(walk(60, &header.repeat(60)), Walk::Excessive);
        let mut padded = vec![17, 124];
        padded.resize(1000, 0);
        assert_eq!(walk(60, &padded), Walk::Excessive);
        // An option that is longer than its header.
        assert_eq!(walk(60, &[17, 0, 30, 5, 0, 0, 0, 0]), Walk::Malformed);
        assert_eq!(walk(60, &[17, 1, 1, 4, 0, 0, 0, 0]), Walk::Malformed);
        assert_eq!(walk(60, &[17]), Walk::Malformed);
    }

    /// Pitfall V04.
    #[test]
    fn a_routing_header_is_passed_over_only_at_its_end() {
        for kind in [0, 2, 4, 253] {
            let of = |left| walk(43, &[17, 0, kind, left, 0, 0, 0, 0]);
            assert_eq!(of(0), Walk::Upper { protocol: 17, field: 40, start: 48 });
            assert_eq!(of(1), problem(CODE_FIELD, 42));
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            source: u128, destination: u128, next_header: u8, hop_limit: u8,
            payload in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let (source, destination) = (source.into(), destination.into());
            let mut bytes =
                header(source, destination, next_header, hop_limit, payload.len()).to_vec();
            bytes.extend(&payload);
            bytes.extend([0xaa; 9]);
            let packet = Packet::parse(&bytes).unwrap();
            prop_assert_eq!(packet.source(), source);
            prop_assert_eq!(packet.destination(), destination);
            prop_assert_eq!(packet.bytes()[7], hop_limit);
            prop_assert_eq!(packet.from(HEADER_LEN), &payload[..]);
            for version in (0..16).filter(|version| *version != 6) {
                bytes[0] = version << 4;
                prop_assert!(Packet::parse(&bytes).is_none());
            }
        }

        #[test]
        fn fragment_headers_survive(
            next_header: u8, units in 0usize..8192, more_fragments: bool, identification: u32,
        ) {
            let fragment =
                Fragment { next_header, offset: units * 8, more_fragments, identification };
            prop_assert_eq!(Fragment::parse(&fragment.to_bytes()), Some(fragment));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), is_likely: bool,
        ) {
            if is_likely && bytes.len() >= HEADER_LEN {
                bytes[0] = 0x60;
                let len = (bytes.len() - HEADER_LEN) as u16;
                bytes[4..6].copy_from_slice(&len.to_be_bytes());
                bytes[6] = [0, 43, 44, 60][usize::from(bytes[6] & 3)];
            }
            for packet in [Packet::parse(&bytes), Packet::parse_quoted(&bytes)].into_iter().flatten() {
                prop_assert!(packet.bytes().len() <= bytes.len());
                match packet.walk() {
                    Walk::Upper { start, field, .. } | Walk::Fragment { start, field } => {
                        prop_assert!(start <= packet.bytes().len() && field < start);
                    }
                    Walk::Problem { pointer, .. } => prop_assert!(pointer < packet.bytes().len()),
                    Walk::Silent | Walk::Malformed | Walk::Excessive => {}
                }
            }
        }
    }
}
