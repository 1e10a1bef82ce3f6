//! Neighbour Discovery's messages (RFC 4861 §4): what comes behind ICMPv6's header, and options.

use super::icmpv6::Message;
use super::{read_ipv6, read_u16, read_u32};
use crate::config::MacAddress;
use core::time::Duration;
use std::net::Ipv6Addr;

const OPTION_SOURCE_LINK_LAYER: u8 = 1;
const OPTION_TARGET_LINK_LAYER: u8 = 2;
const OPTION_PREFIX: u8 = 3;
const OPTION_MTU: u8 = 5;
const OPTION_NONCE: u8 = 14;
const OPTION_RDNSS: u8 = 25;

/// Flag of a Neighbour Advertisement: the sender is a router.
pub(crate) const FLAG_ROUTER: u8 = 0x80;
/// Flag of a Neighbour Advertisement: it answers a solicitation.
pub(crate) const FLAG_SOLICITED: u8 = 0x40;
/// Flag of a Neighbour Advertisement: it replaces what was known.
pub(crate) const FLAG_OVERRIDE: u8 = 0x20;

/// Name servers of one option that are looked at, at most.
const SERVERS_MAX: usize = 8;

/// A random number that marks a solicitation as its sender's own (RFC 3971 §5.3.2, RFC 7527).
pub(crate) type Nonce = [u8; 6];

/// A time in seconds that may be infinite (RFC 4861 §4.6.2): `None`.
pub(crate) fn lifetime(seconds: u32) -> Option<Duration> {
    (seconds != u32::MAX).then(|| Duration::from_secs(seconds.into()))
}

/// A prefix that a router announces (RFC 4861 §4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrefixInformation {
    pub(crate) prefix: Ipv6Addr,
    pub(crate) prefix_len: u8,
    /// L: its addresses are on the link.
    pub(crate) is_on_link: bool,
    /// A: addresses may be made of it.
    pub(crate) is_autonomous: bool,
    /// In seconds; `u32::MAX` is for ever.
    pub(crate) valid: u32,
    /// In seconds; `u32::MAX` is for ever.
    pub(crate) preferred: u32,
}

/// What the options of a message say. Unknown ones are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) source_link_layer: Option<MacAddress>,
    pub(crate) target_link_layer: Option<MacAddress>,
    pub(crate) mtu: Option<u32>,
    pub(crate) nonce: Option<Nonce>,
    pub(crate) prefixes: Vec<PrefixInformation>,
    /// Name servers, and for how many seconds (RFC 8106 §5.1).
    pub(crate) dns: Vec<(u32, Vec<Ipv6Addr>)>,
}

impl Options {
    /// Reads options; `None` if one has no length or does not fit (RFC 4861 §6.1, §7.1: the whole
    /// message is void). An option that is only odd is passed over.
    pub(crate) fn parse(mut bytes: &[u8]) -> Option<Options> {
        let mut options = Options::default();
        while !bytes.is_empty() {
            let &[kind, units, ..] = bytes else { return None };
            let len = usize::from(units) * 8;
            if len == 0 || len > bytes.len() {
                return None;
            }
            let (option, rest) = bytes.split_at(len);
            bytes = rest;
            let mac = || option.get(2..8).and_then(|mac| <[u8; 6]>::try_from(mac).ok());
            match (kind, len) {
                (OPTION_SOURCE_LINK_LAYER, 8) => options.source_link_layer = mac().map(MacAddress),
                (OPTION_TARGET_LINK_LAYER, 8) => options.target_link_layer = mac().map(MacAddress),
                (OPTION_NONCE, 8) => options.nonce = mac(),
                (OPTION_MTU, 8) => options.mtu = Some(read_u32(option, 4)),
                (OPTION_PREFIX, 32) => options.prefixes.push(PrefixInformation {
                    prefix_len: option[2],
                    is_on_link: option[3] & 0x80 != 0,
                    is_autonomous: option[3] & 0x40 != 0,
                    valid: read_u32(option, 4),
                    preferred: read_u32(option, 8),
                    prefix: read_ipv6(option, 16),
                }),
                // One address or more: an odd number of units (RFC 8106 §5.3.1).
                (OPTION_RDNSS, 24..) if units % 2 == 1 => {
                    let servers = option[8..].chunks_exact(16).map(|bytes| read_ipv6(bytes, 0));
                    options.dns.push((read_u32(option, 4), servers.take(SERVERS_MAX).collect()));
                }
                _ => {}
            }
        }
        Some(options)
    }
}

/// What a router announces beside options (RFC 4861 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouterAdvertisement {
    /// 0: it does not say.
    pub(crate) hop_limit: u8,
    /// How long it is a default router, in seconds; 0: it is none.
    pub(crate) lifetime: u16,
    /// RFC 4191 §2.1: 1 high, 0 medium, -1 low.
    pub(crate) preference: i8,
    /// In milliseconds; 0: it does not say.
    pub(crate) reachable: u32,
    /// In milliseconds; 0: it does not say.
    pub(crate) retransmit: u32,
    pub(crate) options: Options,
}

/// A solicitation or an advertisement of a neighbour (RFC 4861 §4.3, §4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    /// Flags of an advertisement.
    pub(crate) flags: u8,
    pub(crate) target: Ipv6Addr,
    pub(crate) options: Options,
}

impl RouterAdvertisement {
    /// Reads what is behind the header; `None` if it is cut short or has a bad option.
    pub(crate) fn parse(message: &Message<'_>) -> Option<Self> {
        let [hop_limit, flags, a, b] = message.word;
        let options = message.body.get(8..)?;
        let lifetime = u16::from_be_bytes([a, b]);
        Some(RouterAdvertisement {
            hop_limit,
            lifetime,
            preference: match flags >> 3 & 3 {
                1 => 1,
                3 => -1,
                // "10" is reserved, to be taken as medium.
                _ => 0,
            },
            reachable: read_u32(message.body, 0),
            retransmit: read_u32(message.body, 4),
            options: Options::parse(options)?,
        })
    }
}

impl Neighbour {
    /// Reads what is behind the header; `None` if it is cut short or has a bad option.
    pub(crate) fn parse(message: &Message<'_>) -> Option<Self> {
        Some(Neighbour {
            flags: message.word[0],
            options: Options::parse(message.body.get(16..)?)?,
            target: read_ipv6(message.body, 0),
        })
    }
}

/// What is behind the header of a solicitation or advertisement about `target`.
pub(crate) fn neighbour_body(
    target: Ipv6Addr,
    source_link_layer: Option<MacAddress>,
    target_link_layer: Option<MacAddress>,
    nonce: Option<Nonce>,
) -> Vec<u8> {
    let mut bytes = target.octets().to_vec();
    let options = [
        (OPTION_SOURCE_LINK_LAYER, source_link_layer.map(|mac| mac.0)),
        (OPTION_TARGET_LINK_LAYER, target_link_layer.map(|mac| mac.0)),
        (OPTION_NONCE, nonce),
    ];
    for (kind, value) in options {
        if let Some(value) = value {
            bytes.extend([kind, 1]);
            bytes.extend(value);
        }
    }
    bytes
}

/// What is behind the header of a router solicitation.
pub(crate) fn router_solicitation_body(source_link_layer: Option<MacAddress>) -> Vec<u8> {
    source_link_layer
        .map_or(Vec::new(), |mac| [&[OPTION_SOURCE_LINK_LAYER, 1][..], &mac.0].concat())
}

/// The group that hosts with an address that ends like `address` listen to (RFC 4291 §2.7.1).
pub(crate) const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a as u16, (b as u16) << 8 | c as u16)
}

/// All nodes of the link (RFC 4291 §2.7.1).
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers of the link.
pub(crate) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// All routers of the link that speak MLDv2 (RFC 3810 §5.2.14).
pub(crate) const ALL_MLDV2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// The hardware address of a group (RFC 2464 §7).
pub(crate) fn group_mac(group: Ipv6Addr) -> MacAddress {
    let [.., a, b, c, d] = group.octets();
    MacAddress([0x33, 0x33, a, b, c, d])
}

/// How long a querier's response code asks us to spread reports over (RFC 3810 §5.1.3).
pub(crate) fn mld_response_delay(query: &Message<'_>) -> Duration {
    let code = read_u16(&query.word, 0);
    let is_version_1 = query.bytes.len() < 28;
    let milliseconds = if code < 0x8000 || is_version_1 {
        u64::from(code)
    } else {
        (u64::from(code & 0x0fff) | 0x1000) << ((code >> 12 & 7) + 3)
    };
    Duration::from_millis(milliseconds)
}

/// A report that we listen to `groups`, from whatever source (RFC 3810 §5.2), as body and word.
/// `kind`: 2 in answer to a query (MODE_IS_EXCLUDE), 4 for a change (CHANGE_TO_EXCLUDE_MODE).
pub(crate) fn mld_report(kind: u8, groups: &[Ipv6Addr]) -> ([u8; 4], Vec<u8>) {
    let mut body = Vec::with_capacity(groups.len() * 20);
    for group in groups {
        body.extend([kind, 0, 0, 0]);
        body.extend(group.octets());
    }
    let [high, low] = (groups.len() as u16).to_be_bytes();
    ([0, 0, high, low], body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::icmpv6;
    use proptest::prelude::*;

    const TARGET: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 1, 2, 0x3334, 0x5678);

    #[test]
    fn groups_follow_from_addresses() {
        assert_eq!(solicited_node(TARGET), "ff02::1:ff34:5678".parse::<Ipv6Addr>().unwrap());
        assert_eq!(group_mac(ALL_ROUTERS), MacAddress([0x33, 0x33, 0, 0, 0, 2]));
    }

    /// Pitfall N02.
    #[test]
    fn unknown_options_are_passed_over_and_one_without_length_voids_the_message() {
        let known = [1, 1, 2, 0, 0, 0, 0, 9];
        let unknown = [200, 2, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1];
        let odd_servers = [25, 2, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0];
        let all = [&unknown[..], &odd_servers, &known].concat();
        let options = Options::parse(&all).unwrap();
        assert_eq!(options.source_link_layer, Some(MacAddress([2, 0, 0, 0, 0, 9])));
        assert!(options.dns.is_empty());
        assert_eq!(Options::parse(&[&known[..], &[9, 0, 0, 0, 0, 0, 0, 0]].concat()), None);
        assert_eq!(Options::parse(&known[..7]), None);
        assert_eq!(Options::parse(&[known[0], 2, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Options::parse(&[]), Some(Options::default()));
    }

    /// Pitfall V08.
    #[test]
    fn response_codes_of_queriers_are_decoded() {
        let delay = |code: u16, len: usize| {
            let [high, low] = code.to_be_bytes();
            let bytes = [&[130, 0, 0, 0, high, low, 0, 0][..], &vec![0; len - 8]].concat();
            mld_response_delay(&Message::parse(&bytes).unwrap()).as_millis()
        };
        for code in [0, 127, 128, 255, 10_000, 0x7fff] {
            assert_eq!(delay(code, 28), u128::from(code));
        }
        assert_eq!(delay(0x8000, 28), 0x1000 << 3);
        assert_eq!(delay(0xffff, 28), 0x1fff << 10);
        assert_eq!(delay(0xffff, 24), 0xffff, "version 1 has no exponent");
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(target: u128, source: [u8; 6], own: [u8; 6], nonce: Nonce, flags: u8) {
            let (target, source, own) = (target.into(), MacAddress(source), MacAddress(own));
            let body = neighbour_body(target, Some(source), Some(own), Some(nonce));
            let kind = (icmpv6::NEIGHBOUR_SOLICITATION, 0);
            let bytes = icmpv6::to_bytes(TARGET, TARGET, kind, [flags, 0, 0, 0], &body);
            let message = Neighbour::parse(&Message::parse(&bytes).unwrap()).unwrap();
            prop_assert_eq!((message.flags, message.target), (flags, target));
            prop_assert_eq!(message.options.source_link_layer, Some(source));
            prop_assert_eq!(message.options.target_link_layer, Some(own));
            prop_assert_eq!(message.options.nonce, Some(nonce));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(
            kind in 130u8..144, mut body in proptest::collection::vec(any::<u8>(), 0..200), is_likely: bool,
        ) {
            if is_likely {
                // Lengths that lead from option to option.
                for at in (1..body.len()).step_by(8) {
                    body[at] = 1 + body[at] % 4;
                }
            }
            let bytes = icmpv6::to_bytes(TARGET, TARGET, (kind, 0), [1, 2, 3, 4], &body);
            let message = Message::parse(&bytes).unwrap();
            let _ = (RouterAdvertisement::parse(&message), Neighbour::parse(&message));
            let _ = mld_response_delay(&message);
        }
    }
}
