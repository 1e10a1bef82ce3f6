//! DHCP messages as a client reads and writes them (RFC 2131 §2, options of RFC 2132).
//!
//! Our own codec, because a client needs a dozen options and images must stay small: the one that
//! everybody uses, dhcproto, adds 250 KB to a program that reads a message. The rules that
//! servers make use of are all here: an option may be split into several (RFC 3396), and may spill
//! over into the fields `file` and `sname` (option 52).

use super::{read_ipv4, read_u32};
use crate::config::MacAddress;
use std::net::Ipv4Addr;

/// UDP port of servers.
pub(crate) const SERVER_PORT: u16 = 67;
/// UDP port of clients.
pub(crate) const CLIENT_PORT: u16 = 68;

/// Length of the fixed part, up to the magic cookie.
const FIXED_LEN: usize = 236;
/// Where the options start.
const OPTIONS_START: usize = FIXED_LEN + 4;
/// Says that options follow (RFC 2131 §3).
const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];
/// A message is padded to the length of BOOTP's, because relays drop shorter ones (RFC 1542 §2.1).
const LEN_MIN: usize = 300;
/// Addresses that are kept of a list; a server may send 63.
const LIST_MAX: usize = 4;

const OPTION_PAD: u8 = 0;
const OPTION_SUBNET_MASK: u8 = 1;
const OPTION_ROUTERS: u8 = 3;
const OPTION_NAME_SERVERS: u8 = 6;
const OPTION_HOST_NAME: u8 = 12;
const OPTION_REQUESTED_ADDRESS: u8 = 50;
const OPTION_LEASE_TIME: u8 = 51;
const OPTION_OVERLOAD: u8 = 52;
const OPTION_MESSAGE_TYPE: u8 = 53;
const OPTION_SERVER_ID: u8 = 54;
const OPTION_PARAMETER_LIST: u8 = 55;
const OPTION_MAX_MESSAGE_LEN: u8 = 57;
const OPTION_RENEWAL_TIME: u8 = 58;
const OPTION_REBINDING_TIME: u8 = 59;
const OPTION_END: u8 = 255;

/// What a client asks to be told, in this order.
const PARAMETERS: [u8; 6] = [
    OPTION_SUBNET_MASK,
    OPTION_ROUTERS,
    OPTION_NAME_SERVERS,
    OPTION_LEASE_TIME,
    OPTION_RENEWAL_TIME,
    OPTION_REBINDING_TIME,
];

/// What a message is (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum MessageType {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
}

/// A message from a server, as far as a client cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) message_type: MessageType,
    pub(crate) transaction: u32,
    /// The hardware address that the message is for.
    pub(crate) client: MacAddress,
    /// The address that the server gives (`yiaddr`).
    pub(crate) address: Ipv4Addr,
    /// The server's name for itself (option 54).
    pub(crate) server: Option<Ipv4Addr>,
    pub(crate) subnet_mask: Option<Ipv4Addr>,
    pub(crate) routers: Vec<Ipv4Addr>,
    pub(crate) name_servers: Vec<Ipv4Addr>,
    /// Seconds; `u32::MAX` is for ever.
    pub(crate) lease_time: Option<u32>,
    pub(crate) renewal_time: Option<u32>,
    pub(crate) rebinding_time: Option<u32>,
}

/// The fields of a message that hold options.
struct OptionFields<'a> {
    fields: [&'a [u8]; 3],
}

impl<'a> OptionFields<'a> {
    /// Finds the fields; `None` if the message is too short or has no options.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.get(FIXED_LEN..OPTIONS_START)? != MAGIC_COOKIE {
            return None;
        }
        let mut fields = OptionFields { fields: [bytes.get(OPTIONS_START..)?, &[], &[]] };
        // RFC 2131 §4.1: the options field is read first, then `file`, then `sname`.
        let overload = fields.get(OPTION_OVERLOAD).first().copied().unwrap_or(0);
        if overload & 1 != 0 {
            fields.fields[1] = bytes.get(108..236)?;
        }
        if overload & 2 != 0 {
            fields.fields[2] = bytes.get(44..108)?;
        }
        Some(fields)
    }

    /// The value of an option: all its parts, one after the other (RFC 3396 §7). Empty if it is
    /// absent. A part that runs past its field ends the walk of that field.
    fn get(&self, wanted: u8) -> Vec<u8> {
        let mut value = Vec::new();
        for mut rest in self.fields {
            loop {
                match rest {
                    [OPTION_PAD, tail @ ..] => rest = tail,
                    [] | [OPTION_END, ..] | [_] => break,
                    [code, len, tail @ ..] => {
                        let Some((part, tail)) = tail.split_at_checked(usize::from(*len)) else {
                            break;
                        };
                        if *code == wanted {
                            value.extend(part);
                        }
                        rest = tail;
                    }
                }
            }
        }
        value
    }

    fn get_u32(&self, wanted: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(wanted).try_into().ok()?))
    }

    fn get_address(&self, wanted: u8) -> Option<Ipv4Addr> {
        self.get_u32(wanted).map(Ipv4Addr::from_bits)
    }

    fn get_addresses(&self, wanted: u8) -> Vec<Ipv4Addr> {
        let value = self.get(wanted);
        value.chunks_exact(4).map(|bytes| read_ipv4(bytes, 0)).take(LIST_MAX).collect()
    }
}

impl Reply {
    /// Reads a server's message; `None` if it is cut short, not a reply for Ethernet, or of a type
    /// that servers do not send.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let options = OptionFields::parse(bytes)?;
        // BOOTREPLY, Ethernet, addresses of 6 bytes.
        if bytes[..3] != [2, 1, 6] {
            return None;
        }
        let message_type = match options.get(OPTION_MESSAGE_TYPE)[..] {
            [2] => MessageType::Offer,
            [5] => MessageType::Ack,
            [6] => MessageType::Nak,
            _ => return None,
        };
        let mut client = [0; 6];
        client.copy_from_slice(&bytes[28..34]);
        Some(Reply {
            message_type,
            transaction: read_u32(bytes, 4),
            client: MacAddress(client),
            address: read_ipv4(bytes, 16),
            server: options.get_address(OPTION_SERVER_ID),
            subnet_mask: options.get_address(OPTION_SUBNET_MASK),
            routers: options.get_addresses(OPTION_ROUTERS),
            name_servers: options.get_addresses(OPTION_NAME_SERVERS),
            lease_time: options.get_u32(OPTION_LEASE_TIME),
            renewal_time: options.get_u32(OPTION_RENEWAL_TIME),
            rebinding_time: options.get_u32(OPTION_REBINDING_TIME),
        })
    }
}

/// A client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) message_type: MessageType,
    pub(crate) transaction: u32,
    /// Seconds since the client began to ask.
    pub(crate) seconds: u16,
    pub(crate) client: MacAddress,
    /// The client's address if it has one and answers ARP for it (`ciaddr`).
    pub(crate) address: Option<Ipv4Addr>,
    /// The address that the client asks for (option 50).
    pub(crate) requested: Option<Ipv4Addr>,
    /// The server that the client chose (option 54).
    pub(crate) server: Option<Ipv4Addr>,
    pub(crate) host_name: Option<&'a str>,
    /// The longest message that the client takes, in bytes; at least 576.
    pub(crate) message_len_max: u16,
}

impl Request<'_> {
    /// The message's bytes: at least 300.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; OPTIONS_START];
        // BOOTREQUEST, Ethernet, addresses of 6 bytes.
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&self.transaction.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.seconds.to_be_bytes());
        if let Some(address) = self.address {
            bytes[12..16].copy_from_slice(&address.octets());
        }
        bytes[28..34].copy_from_slice(&self.client.0);
        bytes[FIXED_LEN..].copy_from_slice(&MAGIC_COOKIE);

        let mut option = |code: u8, value: &[u8]| {
            bytes.extend([code, value.len() as u8]);
            bytes.extend(value);
        };
        option(OPTION_MESSAGE_TYPE, &[self.message_type as u8]);
        if let Some(address) = self.requested {
            option(OPTION_REQUESTED_ADDRESS, &address.octets());
        }
        if let Some(server) = self.server {
            option(OPTION_SERVER_ID, &server.octets());
        }
        // RFC 2131 table 5: a DECLINE carries nothing else.
        if self.message_type != MessageType::Decline {
            option(OPTION_MAX_MESSAGE_LEN, &self.message_len_max.to_be_bytes());
            option(OPTION_PARAMETER_LIST, &PARAMETERS);
            if let Some(name) = self.host_name {
                option(OPTION_HOST_NAME, name.as_bytes());
            }
        }
        bytes.push(OPTION_END);
        bytes.resize(bytes.len().max(LEN_MIN), OPTION_PAD);
        bytes
    }

    /// The transaction and `secs` of a client's message, for tests that play a server.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn parse_for_test(bytes: &[u8]) -> Option<TestRequest> {
        let options = OptionFields::parse(bytes)?;
        Some(TestRequest {
            message_type: *options.get(OPTION_MESSAGE_TYPE).first()?,
            transaction: read_u32(bytes, 4),
            seconds: super::read_u16(bytes, 8),
            address: read_ipv4(bytes, 12),
            requested: options.get_address(OPTION_REQUESTED_ADDRESS),
            server: options.get_address(OPTION_SERVER_ID),
            host_name: options.get(OPTION_HOST_NAME),
        })
    }
}

/// A client's message as a test's server reads it.
#[cfg(any(test, feature = "fuzzing"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestRequest {
    pub(crate) message_type: u8,
    pub(crate) transaction: u32,
    pub(crate) seconds: u16,
    pub(crate) address: Ipv4Addr,
    pub(crate) requested: Option<Ipv4Addr>,
    pub(crate) server: Option<Ipv4Addr>,
    pub(crate) host_name: Vec<u8>,
}

/// What a test's server puts into a reply.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn test_reply(
    transaction: u32,
    client: MacAddress,
    address: Ipv4Addr,
    options: &[(u8, &[u8])],
) -> Vec<u8> {
    let mut bytes = vec![0; OPTIONS_START];
    bytes[..3].copy_from_slice(&[2, 1, 6]);
    bytes[4..8].copy_from_slice(&transaction.to_be_bytes());
    bytes[16..20].copy_from_slice(&address.octets());
    bytes[28..34].copy_from_slice(&client.0);
    bytes[FIXED_LEN..].copy_from_slice(&MAGIC_COOKIE);
    for (code, value) in options {
        bytes.extend([*code, value.len() as u8]);
        bytes.extend(*value);
    }
    bytes.push(OPTION_END);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

    #[test]
    fn an_offer_is_read() {
        let bytes = test_reply(
            7,
            MAC,
            ADDRESS,
            &[
                (53, &[2]),
                (54, &[10, 0, 0, 1]),
                (1, &[255, 255, 255, 0]),
                (3, &[10, 0, 0, 1, 10, 0, 0, 2]),
                (6, &[1, 1, 1, 1, 8, 8, 8, 8]),
                (51, &[0, 0, 14, 16]),
            ],
        );
        let reply = Reply::parse(&bytes).unwrap();
        assert_eq!(reply.message_type, MessageType::Offer);
        assert_eq!((reply.transaction, reply.client, reply.address), (7, MAC, ADDRESS));
        assert_eq!(reply.server, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(reply.subnet_mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
        assert_eq!(reply.routers, [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]);
        assert_eq!(reply.name_servers, [Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(8, 8, 8, 8)]);
        assert_eq!((reply.lease_time, reply.renewal_time), (Some(3600), None));
    }

    #[test]
    fn a_split_option_is_put_together_and_overloaded_fields_are_read() {
        let mut bytes = test_reply(
            7,
            MAC,
            ADDRESS,
            &[(53, &[5]), (52, &[3]), (3, &[10, 0]), (0, &[]), (3, &[0, 1])],
        );
        // The pad has no length: what was written as one is two pads.
        bytes[108..116].copy_from_slice(&[51, 4, 0, 0, 0, 60, 255, 0]);
        bytes[44..52].copy_from_slice(&[54, 4, 10, 0, 0, 9, 255, 0]);
        let reply = Reply::parse(&bytes).unwrap();
        assert_eq!(reply.routers, [Ipv4Addr::new(10, 0, 0, 1)]);
        assert_eq!(reply.lease_time, Some(60));
        assert_eq!(reply.server, Some(Ipv4Addr::new(10, 0, 0, 9)));
    }

    #[test]
    fn a_missing_end_and_long_lists_do_no_harm() {
        let list = [10; 252];
        let mut bytes = test_reply(7, MAC, ADDRESS, &[(53, &[5]), (6, &list), (6, &list)]);
        bytes.pop();
        bytes.push(51);
        let reply = Reply::parse(&bytes).unwrap();
        assert_eq!(reply.name_servers.len(), LIST_MAX);
        assert_eq!(reply.lease_time, None);
    }

    proptest! {
        #[test]
        fn a_request_is_read_back(
            transaction: u32, seconds: u16, requested: Option<u32>, server: Option<u32>,
            host_name in proptest::option::of("[a-z]{1,63}"),
        ) {
            let requested = requested.map(Ipv4Addr::from_bits);
            let server = server.map(Ipv4Addr::from_bits);
            let bytes = Request {
                message_type: MessageType::Request, transaction, seconds, client: MAC,
                address: Some(ADDRESS), requested, server, host_name: host_name.as_deref(),
                message_len_max: 1500,
            }.to_bytes();
            prop_assert!(bytes.len() >= LEN_MIN);
            let read = Request::parse_for_test(&bytes).unwrap();
            prop_assert_eq!(read, TestRequest {
                message_type: 3, transaction, seconds, address: ADDRESS, requested, server,
                host_name: host_name.unwrap_or_default().into_bytes(),
            });
        }

        #[test]
        fn arbitrary_options_are_read_or_refused(
            options in proptest::collection::vec(any::<u8>(), 0..400),
            fields: [u8; 32],
            len in 0usize..800,
        ) {
            let mut bytes = test_reply(1, MAC, ADDRESS, &[(53, &[5]), (52, &[3])]);
            bytes.pop();
            bytes.extend(options);
            bytes[44..76].copy_from_slice(&fields);
            bytes[108..140].copy_from_slice(&fields);
            let _ = Reply::parse(&bytes);
            bytes.truncate(len);
            let _ = Reply::parse(&bytes);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Reply::parse(&bytes);
        }
    }
}
