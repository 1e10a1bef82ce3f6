//! IPv6 from the wire (RFC 8200), and ICMPv6 (RFC 4443) but for what is Neighbour Discovery's.

use super::input::Received;
use super::{Engine, FrameChecksum};
use crate::config::MacAddress;
use crate::icmp::IcmpError;
use crate::ipv6::{Arrived, HOP_LIMIT_NDP};
use crate::reassembly::{Expired, Fragment};
use crate::time::Instant;
use crate::wire::ethernet::Frame;
use crate::wire::icmpv6::{self, Message};
use crate::wire::ipv6::{
    CODE_FIELD, CODE_NEXT_HEADER, FRAGMENT_HEADER_LEN, Fragment as FragmentHeader, HEADER_LEN,
    MTU_MIN, NEXT_HEADER_FIELD, PROTOCOL_ICMPV6, Packet, Walk, is_host_address,
};
use core::num::NonZeroU16;
use std::net::{IpAddr, Ipv6Addr};

/// Bytes of a packet that an error quotes at most: the whole is no larger than any link's MTU (RFC
/// 4443 §2.4 (c)).
const QUOTE_MAX: usize = MTU_MIN - HEADER_LEN - icmpv6::HEADER_LEN;

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy)]
struct Context {
    link_source: MacAddress,
    /// The frame or the packet was for a group.
    is_group: bool,
    checksum: FrameChecksum,
    mss: Option<NonZeroU16>,
    is_fragmented: bool,
}

impl Engine {
    pub(super) fn handle_ipv6(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        is_group_frame: bool,
        checksum: FrameChecksum,
        mss: Option<NonZeroU16>,
    ) {
        let Some(ipv6) = &self.ipv6 else {
            self.counters.dropped_ethernet_type += 1;
            return;
        };
        let Some(packet) = Packet::parse(frame.payload) else {
            self.counters.dropped_ipv6_malformed += 1;
            return;
        };
        let (source, destination) = (packet.source(), packet.destination());
        // Nobody is at these addresses (RFC 4291 §2.5), ours among them (LAND). From none comes what
        // asks for addresses; it is for a group.
        let is_possible = match source.is_unspecified() {
            true => destination.is_multicast(),
            // But that somebody else says to be us is worth to be noticed.
            false if ipv6.addresses.is_ours(source) => is_neighbour_advertisement(&packet),
            false => is_host_address(source),
        };
        if !is_possible || destination.is_loopback() || destination.is_unspecified() {
            self.counters.dropped_ipv6_martian += 1;
            return;
        }
        let is_for_us = match destination.is_multicast() {
            true => ipv6.is_member(destination),
            false => ipv6.addresses.is_ours(destination),
        };
        if !is_for_us {
            self.counters.dropped_ipv6_not_ours += 1;
            return;
        }
        if is_group_frame && !destination.is_multicast() {
            self.counters.dropped_ipv6_martian += 1;
            return;
        }
        let context = Context {
            link_source: frame.source,
            is_group: destination.is_multicast(),
            checksum,
            mss,
            is_fragmented: false,
        };
        self.handle_ipv6_packet(now, packet, context);
    }

    fn handle_ipv6_packet(&mut self, now: Instant, packet: Packet<'_>, context: Context) {
        match packet.walk() {
            Walk::Upper { protocol, field, start } => {
                self.handle_upper(now, packet, (protocol, field, start), context);
            }
            Walk::Fragment { field, start } if !context.is_fragmented => {
                self.handle_fragment_v6(now, packet, (field, start), context);
            }
            // A fragment of a fragment is nothing.
            Walk::Fragment { .. } | Walk::Malformed => self.counters.dropped_ipv6_malformed += 1,
            Walk::Silent => self.counters.dropped_ipv6_header += 1,
            Walk::Excessive => self.counters.dropped_ipv6_extension_limit += 1,
            Walk::Problem { code, pointer, even_multicast } => {
                self.counters.dropped_ipv6_header += 1;
                if !context.is_group || even_multicast {
                    self.answer_problem(now, packet, code, pointer);
                }
            }
        }
    }

    fn handle_upper(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        (protocol, protocol_field, start): (u8, usize, usize),
        context: Context,
    ) {
        let source = packet.source();
        if source.is_unspecified() && protocol != PROTOCOL_ICMPV6 {
            self.counters.dropped_ipv6_martian += 1;
            return;
        }
        let received = Received {
            source: source.into(),
            destination: packet.destination().into(),
            protocol,
            header: &packet.bytes()[..start],
            payload: packet.from(start),
            checksum: context.checksum,
            mss: context.mss,
            link_source: context.link_source,
            protocol_field,
            is_fragmented: context.is_fragmented,
            is_broadcast: context.is_group,
        };
        self.handle_datagram(now, received);
    }

    /// RFC 8200 §4.5.
    fn handle_fragment_v6(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        (field, start): (usize, usize),
        context: Context,
    ) {
        let Some(fragment) = FragmentHeader::parse(packet.from(start)) else {
            self.counters.dropped_ipv6_malformed += 1;
            return;
        };
        let payload = packet.from(start + FRAGMENT_HEADER_LEN);
        // What comes before the fragment header, which now names what comes behind it.
        let mut header = packet.bytes()[..start].to_vec();
        header[field] = fragment.next_header;
        // What the device says of a fragment says nothing of the datagram (RFC 4963).
        let checksum = FrameChecksum::Unverified;
        let context = Context { is_fragmented: true, checksum, mss: None, ..context };
        if fragment.offset == 0 && !fragment.more_fragments {
            // Whole by itself, whatever else has its identification (RFC 6946 §4).
            let len = (header.len() + payload.len() - HEADER_LEN) as u16;
            header[4..6].copy_from_slice(&len.to_be_bytes());
            header.extend(payload);
            if let Some(packet) = Packet::parse(&header) {
                self.handle_ipv6_packet(now, packet, context);
            }
            return;
        }
        if fragment.more_fragments && !payload.len().is_multiple_of(8) {
            self.counters.dropped_fragment_malformed += 1;
            if !context.is_group {
                // The payload length is what is wrong.
                self.answer_problem(now, packet, CODE_FIELD, 4);
            }
            return;
        }
        if header.len() - HEADER_LEN + fragment.offset + payload.len() > 65_535 {
            self.counters.dropped_fragment_malformed += 1;
            if !context.is_group {
                self.answer_problem(now, packet, CODE_FIELD, start + 2);
            }
            return;
        }
        // RFC 7112 §5: all headers are in the first fragment, so that whoever looks at it alone
        // sees the same as we do.
        let behind = start + FRAGMENT_HEADER_LEN;
        let protocol = match packet.walk_from(fragment.next_header, start, behind) {
            _ if fragment.offset > 0 => Some(fragment.next_header),
            Walk::Upper { protocol, start: upper, .. } => {
                let len = crate::reassembly::transport_header_len(protocol);
                (packet.from(upper).len() >= len).then_some(protocol)
            }
            // The whole will be answered, once it is whole.
            Walk::Problem { .. } | Walk::Silent => Some(fragment.next_header),
            Walk::Fragment { .. } | Walk::Malformed | Walk::Excessive => None,
        };
        if protocol.is_none() {
            self.counters.dropped_fragment_malformed += 1;
            return;
        }
        let fragment = Fragment {
            source: packet.source().into(),
            destination: packet.destination().into(),
            // The length of its header was looked at.
            protocol: 0,
            identification: fragment.identification,
            offset: fragment.offset,
            more: fragment.more_fragments,
            header: &header,
            payload,
        };
        let whole = self.reassembly.handle_fragment(now, &fragment, &mut self.counters);
        let Some(whole) = whole else { return };
        let bytes = [whole.header, whole.payload].concat();
        if let Some(packet) = Packet::parse(&bytes) {
            self.handle_ipv6_packet(now, packet, context);
        }
    }

    pub(super) fn handle_icmpv6(&mut self, now: Instant, received: Received<'_>) {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (received.source, received.destination)
        else {
            return;
        };
        let Some(message) = Message::parse(received.payload) else {
            self.counters.dropped_icmp_malformed += 1;
            return;
        };
        // Devices know TCP's and UDP's sums, not this one.
        if !message.checksum_is_valid(source, destination) {
            self.counters.dropped_icmp_checksum += 1;
            return;
        }
        let hop_limit = received.header.get(7).copied().unwrap_or(0);
        match message.kind {
            icmpv6::ROUTER_SOLICITATION..=icmpv6::REDIRECT | icmpv6::MLD_QUERY => {
                // RFC 4861 §6.1, §7.1, §8.1: no router has passed it on. MLD has a hop limit of 1
                // (RFC 3810 §5). RFC 6980 §5: fragments would hide it from who guards the link.
                let wanted = if message.kind == icmpv6::MLD_QUERY { 1 } else { HOP_LIMIT_NDP };
                let is_query = message.kind == icmpv6::MLD_QUERY;
                let is_good = hop_limit == wanted
                    && !received.is_fragmented
                    && (is_query || message.code == 0);
                match &mut self.ipv6 {
                    Some(ipv6) if is_good => {
                        let link_source = received.link_source;
                        let arrived = Arrived { source, destination, link_source, message };
                        ipv6.handle_message(now, &arrived, &mut self.counters);
                        self.take_ipv6_changes(now);
                    }
                    _ => self.counters.dropped_ndp_invalid += 1,
                }
            }
            _ if source.is_unspecified() => self.counters.dropped_ipv6_martian += 1,
            icmpv6::ECHO_REQUEST if message.code == 0 => {
                self.answer_echo_v6(now, received, source, &message);
            }
            _ => match IcmpError::from_message_v6(&message) {
                Some(error) => self.handle_icmpv6_error(now, error, received, &message),
                None => self.counters.dropped_icmp_type += 1,
            },
        }
    }

    /// RFC 4443 §4.2: the reply carries what the request did; to a group, from the address that we
    /// would choose.
    fn answer_echo_v6(
        &mut self,
        now: Instant,
        received: Received<'_>,
        peer: Ipv6Addr,
        message: &Message<'_>,
    ) {
        let ours = match received.destination {
            IpAddr::V6(ours) if !received.is_broadcast => Some(ours),
            _ => self.ipv6.as_ref().and_then(|ipv6| ipv6.addresses.source_for(now, peer)),
        };
        let Some(ours) = ours else { return };
        if !self.icmp.allow_echo_reply(now) {
            self.counters.icmp_echo_replies_limited += 1;
            return;
        }
        let kind = (icmpv6::ECHO_REPLY, 0);
        let payload = icmpv6::to_bytes(ours, peer, kind, message.word, message.body);
        if self.queue_message(ours.into(), peer.into(), PROTOCOL_ICMPV6, payload) {
            self.counters.icmp_echo_replies_sent += 1;
        }
    }

    /// Passes an error on to the flow of ours that it quotes, if it does (RFC 5927 §4.1).
    fn handle_icmpv6_error(
        &mut self,
        now: Instant,
        error: IcmpError,
        received: Received<'_>,
        message: &Message<'_>,
    ) {
        let is_matched = Packet::parse_quoted(message.body)
            .filter(|quoted| IpAddr::V6(quoted.source()) == received.destination)
            .and_then(|quoted| {
                let (protocol, start) = match quoted.walk() {
                    Walk::Upper { protocol, start, .. } => (protocol, start),
                    // Only the first fragment has ports, and we send no other headers before it.
                    Walk::Fragment { start, .. } => {
                        let fragment = FragmentHeader::parse(quoted.from(start))?;
                        let start = start + FRAGMENT_HEADER_LEN;
                        (fragment.offset == 0).then_some((fragment.next_header, start))?
                    }
                    _ => return None,
                };
                let payload = quoted.from(start);
                (payload.len() >= 8).then(|| {
                    let (source, destination) =
                        (quoted.source().into(), quoted.destination().into());
                    self.pass_error(now, error, source, destination, protocol, payload)
                })
            });
        self.count_error(is_matched.unwrap_or(false));
    }

    /// The upper layer's protocol is not known (RFC 8200 §4: it is a next header like others).
    pub(super) fn answer_unknown_protocol_v6(&mut self, now: Instant, received: Received<'_>) {
        let kind = (icmpv6::PARAMETER_PROBLEM, CODE_NEXT_HEADER);
        let pointer = received.protocol_field as u32;
        self.answer_error_v6(now, received, kind, pointer);
    }

    /// Sends an error about a datagram, if that is allowed (RFC 4443 §2.4 (e)).
    pub(super) fn answer_error_v6(
        &mut self,
        now: Instant,
        received: Received<'_>,
        kind: (u8, u8),
        word: u32,
    ) {
        if received.is_broadcast {
            return;
        }
        let quote = [received.header, received.payload].concat();
        self.send_icmpv6_error(now, received.source, received.destination, kind, word, &quote);
    }

    /// Tells the sender of a packet what is wrong with its headers.
    fn answer_problem(&mut self, now: Instant, packet: Packet<'_>, code: u8, pointer: usize) {
        let (source, destination) = (packet.source().into(), packet.destination().into());
        let kind = (icmpv6::PARAMETER_PROBLEM, code);
        self.send_icmpv6_error(now, source, destination, kind, pointer as u32, packet.bytes());
    }

    /// Sends Time Exceeded for a datagram that stayed incomplete, if its first fragment came (RFC
    /// 8200 §4.5).
    pub(super) fn report_expired_datagram_v6(&mut self, now: Instant, expired: &Expired) {
        if !expired.quote.is_empty() && !expired.destination.is_multicast() {
            let kind = (icmpv6::TIME_EXCEEDED, icmpv6::CODE_REASSEMBLY);
            let (source, destination) = (expired.source, expired.destination);
            self.send_icmpv6_error(now, source, destination, kind, 0, &expired.quote);
        }
    }

    /// Sends an error to `to` about `quote`, a packet that was for `about`.
    fn send_icmpv6_error(
        &mut self,
        now: Instant,
        to: IpAddr,
        about: IpAddr,
        kind: (u8, u8),
        word: u32,
        quote: &[u8],
    ) {
        let (IpAddr::V6(to), IpAddr::V6(about)) = (to, about) else { return };
        if to.is_unspecified() || to.is_multicast() || is_about_error(quote) {
            return;
        }
        let ours = match about.is_multicast() {
            true => self.ipv6.as_ref().and_then(|ipv6| ipv6.addresses.source_for(now, to)),
            false => Some(about),
        };
        let Some(ours) = ours else { return };
        if !self.icmp.allow_error(now, to) {
            self.counters.icmp_errors_limited += 1;
            return;
        }
        let quote = &quote[..quote.len().min(QUOTE_MAX)];
        let payload = icmpv6::to_bytes(ours, to, kind, word.to_be_bytes(), quote);
        if self.queue_message(ours.into(), to.into(), PROTOCOL_ICMPV6, payload) {
            self.counters.icmp_errors_sent += 1;
        }
    }
}

/// True if a packet holds nothing but a Neighbour Advertisement.
fn is_neighbour_advertisement(packet: &Packet<'_>) -> bool {
    let advertisement = [icmpv6::NEIGHBOUR_ADVERTISEMENT];
    packet.bytes()[NEXT_HEADER_FIELD] == PROTOCOL_ICMPV6
        && packet.from(HEADER_LEN).starts_with(&advertisement)
}

/// True if a packet is, or may be, an ICMPv6 error or a redirect: nothing is said about these (RFC
/// 4443 §2.4 (e.1), (e.2)).
fn is_about_error(quote: &[u8]) -> bool {
    let Some(packet) = Packet::parse_quoted(quote) else { return true };
    // As far as the headers can be read; what follows an unknown one is no ICMPv6 of ours.
    let mut next = (packet.bytes()[NEXT_HEADER_FIELD], HEADER_LEN);
    for _ in 0..16 {
        let (protocol, start) = next;
        next = match protocol {
            PROTOCOL_ICMPV6 => {
                let kind = packet.from(start).first();
                return kind.is_none_or(|kind| {
                    *kind < icmpv6::FIRST_INFORMATIONAL || *kind == icmpv6::REDIRECT
                });
            }
            0 | 43 | 60 => match packet.from(start) {
                [following, units, ..] => (*following, start + 8 + 8 * usize::from(*units)),
                _ => return false,
            },
            44 => match FragmentHeader::parse(packet.from(start)) {
                Some(fragment) if fragment.offset == 0 => (fragment.next_header, start + 8),
                // A later fragment of who knows what.
                Some(fragment) => return fragment.next_header == PROTOCOL_ICMPV6,
                None => return false,
            },
            _ => return false,
        };
    }
    true
}
