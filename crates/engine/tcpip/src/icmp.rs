//! ICMP errors: what those of others mean (RFC 1122 §3.2.2), and when we may send one.

use crate::config::Limits;
use crate::limiter::Limiter;
use crate::secret::{Key, Keys, Purpose};
use crate::time::Instant;
use crate::wire::{icmpv4, icmpv6};
use std::net::IpAddr;

/// What an ICMP error says about a packet of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IcmpError {
    /// Code 0, 6, 8 or 11: the network cannot be reached. Soft (RFC 1122 §4.2.3.9).
    NetworkUnreachable,
    /// Code 1, 5, 7 or 12: the host cannot be reached. Soft.
    HostUnreachable,
    /// Code 2: the host does not know the protocol. Hard.
    ProtocolUnreachable,
    /// Code 3: nobody is at the port. Hard.
    PortUnreachable,
    /// Code 4: the packet is larger than a link's MTU and may not be fragmented (RFC 1191).
    FragmentationNeeded {
        /// MTU of the link in bytes; 0 if the router does not say.
        mtu: u16,
    },
    /// Code 9, 10 or 13: prohibited. Hard in RFC 1122, but often forged or transient.
    Prohibited,
    /// Time to live or reassembly time exceeded. Soft.
    TimeExceeded,
    /// Parameter problem. Soft (RFC 1122 §4.2.3.9).
    ParameterProblem,
    /// Not from the network: the neighbour does not answer ARP. Soft.
    NeighbourUnreachable,
}

impl IcmpError {
    /// What a message means; `None` if it is no error or one to ignore: Source Quench (RFC 6633),
    /// Redirect (from whom could be anybody: we have one router), or unknown.
    pub(crate) fn from_message(message: &icmpv4::Message<'_>) -> Option<Self> {
        Some(match (message.kind, message.code) {
            (icmpv4::DESTINATION_UNREACHABLE, code) => match code {
                0 | 6 | 8 | 11 => IcmpError::NetworkUnreachable,
                1 | 5 | 7 | 12 => IcmpError::HostUnreachable,
                2 => IcmpError::ProtocolUnreachable,
                3 => IcmpError::PortUnreachable,
                4 => IcmpError::FragmentationNeeded { mtu: message.next_hop_mtu() },
                9 | 10 | 13 => IcmpError::Prohibited,
                _ => return None,
            },
            (icmpv4::TIME_EXCEEDED, 0 | 1) => IcmpError::TimeExceeded,
            (icmpv4::PARAMETER_PROBLEM, _) => IcmpError::ParameterProblem,
            _ => return None,
        })
    }
}

impl IcmpError {
    /// What a message of ICMPv6 means (RFC 4443 §3); `None` if it is no error or an unknown one.
    pub(crate) fn from_message_v6(message: &icmpv6::Message<'_>) -> Option<Self> {
        Some(match (message.kind, message.code) {
            (icmpv6::DESTINATION_UNREACHABLE, code) => match code {
                0 | 2 => IcmpError::NetworkUnreachable,
                3 => IcmpError::HostUnreachable,
                4 => IcmpError::PortUnreachable,
                1 | 5 | 6 => IcmpError::Prohibited,
                _ => return None,
            },
            // Whatever its code (RFC 4443 §3.2).
            (icmpv6::PACKET_TOO_BIG, _) => IcmpError::FragmentationNeeded {
                mtu: u16::try_from(message.mtu()).unwrap_or(u16::MAX),
            },
            (icmpv6::TIME_EXCEEDED, 0 | 1) => IcmpError::TimeExceeded,
            // The next header is not known: for the first header, that is the protocol.
            (icmpv6::PARAMETER_PROBLEM, 1) => IcmpError::ProtocolUnreachable,
            (icmpv6::PARAMETER_PROBLEM, _) => IcmpError::ParameterProblem,
            _ => return None,
        })
    }
}

/// Number of groups that destinations of errors fall into.
const GROUPS: usize = 64;

/// Limits what we send to strangers: errors in all, errors to each group of destinations, and echo
/// replies.
pub(crate) struct Limiters {
    errors: Limiter,
    /// So that one stranger cannot spend everybody's errors.
    errors_by_group: Vec<Limiter>,
    echo_replies: Limiter,
    key: Key,
}

impl Limiters {
    pub(crate) fn new(limits: &Limits, keys: &Keys, now: Instant) -> Self {
        let key = keys.key(Purpose::IcmpJitter);
        let limiter = |per_second, which: u64| {
            Limiter::new(per_second, keys.random_of(Purpose::IcmpJitter, which), now)
        };
        let per_group = limits.icmp_errors_per_second.div_ceil(4);
        Limiters {
            errors: limiter(limits.icmp_errors_per_second, 0),
            echo_replies: limiter(limits.icmp_echo_replies_per_second, 1),
            errors_by_group: (0..GROUPS as u64).map(|at| limiter(per_group, 2 + at)).collect(),
            key,
        }
    }

    /// True if an error may be sent to `destination`.
    pub(crate) fn allow_error(&mut self, now: Instant, destination: impl Into<IpAddr>) -> bool {
        let group = self.key.prf(&destination.into()) as usize % GROUPS;
        // The group first: a stranger who has spent his share takes nothing from the others.
        self.errors_by_group.get_mut(group).is_some_and(|group| group.allows(now))
            && self.errors.allows(now)
    }

    /// True if an echo reply may be sent.
    pub(crate) fn allow_echo_reply(&mut self, now: Instant) -> bool {
        self.echo_replies.allows(now)
    }
}
