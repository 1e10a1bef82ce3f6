//! ICMP (RFC 792, RFC 1122 §3.2.2): echoes, and errors of and about others, for both families where
//! they agree.

use super::Engine;
use super::input::Received;
use crate::icmp::IcmpError;
use crate::output::{Header, Packet};
use crate::path_mtu;
use crate::reassembly::{Expired, QUOTE_MAX};
use crate::time::Instant;
use crate::wire::icmpv4::{self, Message};
use crate::wire::ipv4::{self, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP};
use crate::wire::{icmpv6, ipv6, read_u16};
use std::net::{IpAddr, SocketAddr};

impl Engine {
    pub(super) fn handle_icmp(&mut self, now: Instant, received: Received<'_>) {
        let Some(message) = Message::parse(received.payload) else {
            self.counters.dropped_icmp_malformed += 1;
            return;
        };
        // Devices know TCP's and UDP's sums, not this one.
        if !message.checksum_is_valid() {
            self.counters.dropped_icmp_checksum += 1;
            return;
        }
        if (message.kind, message.code) == (icmpv4::ECHO_REQUEST, 0) {
            self.answer_echo(now, received, &message);
        } else if let Some(error) = IcmpError::from_message(&message) {
            self.handle_icmp_error(now, error, received, &message);
        } else {
            self.counters.dropped_icmp_type += 1;
        }
    }

    /// RFC 1122 §3.2.2.6: the reply carries what the request did.
    fn answer_echo(&mut self, now: Instant, received: Received<'_>, message: &Message<'_>) {
        if received.is_broadcast {
            self.counters.dropped_icmp_broadcast += 1;
        } else if !self.icmp.allow_echo_reply(now) {
            self.counters.icmp_echo_replies_limited += 1;
        } else {
            let payload = icmpv4::to_bytes(icmpv4::ECHO_REPLY, 0, message.word, message.body);
            if self.queue_icmp(received.destination, received.source, payload) {
                self.counters.icmp_echo_replies_sent += 1;
            }
        }
    }

    /// Passes an error on to the flow of ours that it quotes, if it does (RFC 5927 §4.1).
    fn handle_icmp_error(
        &mut self,
        now: Instant,
        error: IcmpError,
        received: Received<'_>,
        message: &Message<'_>,
    ) {
        let quoted = ipv4::Packet::parse_quoted(message.body)
            // Only the first fragment has ports, and only what we sent is our business.
            .filter(|quoted| quoted.fragment_offset() == 0)
            .filter(|quoted| quoted.source() == received.destination && !received.is_broadcast)
            .filter(|quoted| quoted.payload().len() >= 8);
        let is_matched = quoted.is_some_and(|quoted| {
            let (source, destination) = (quoted.source().into(), quoted.destination().into());
            self.pass_error(now, error, source, destination, quoted.protocol(), quoted.payload())
        });
        self.count_error(is_matched);
    }

    pub(super) fn count_error(&mut self, is_matched: bool) {
        if is_matched {
            self.counters.icmp_errors_received += 1;
        } else {
            self.counters.dropped_icmp_unmatched += 1;
        }
    }

    /// Passes an error on to the flow from `source`, ours, to `destination` that it quotes. False
    /// if there is none.
    pub(super) fn pass_error(
        &mut self,
        now: Instant,
        error: IcmpError,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        quoted: &[u8],
    ) -> bool {
        let mtu = match error {
            IcmpError::FragmentationNeeded { mtu } => match (mtu, destination) {
                // RFC 8201 §4: no honest router says so.
                (_, IpAddr::V6(_)) if usize::from(mtu) < ipv6::MTU_MIN => {
                    self.counters.dropped_path_mtu += 1;
                    return true;
                }
                // A router of before RFC 1191 names no size; 576 always was the next plateau.
                (0, _) => Some(576),
                (_, IpAddr::V4(_)) => Some(usize::from(mtu).max(path_mtu::IPV4_MIN)),
                (_, IpAddr::V6(_)) => Some(usize::from(mtu)),
            },
            _ => None,
        };
        let is_believed = match protocol {
            PROTOCOL_TCP => {
                let before = self.tcp.counters().tcp_path_mtu_lowered;
                self.tcp.handle_icmp_error(now, error, source, destination, quoted);
                self.tcp.counters().tcp_path_mtu_lowered > before
            }
            // Our UDP sockets have no peer, so that no other error can be theirs (RFC 1122
            // §4.1.3.3).
            PROTOCOL_UDP => {
                let port = read_u16(quoted, 0);
                if !self.udp.has_receiver(SocketAddr::new(source, port)) {
                    return false;
                }
                true
            }
            _ => return false,
        };
        if let Some(mtu) = mtu.filter(|_| is_believed) {
            let link_mtu = self.link_mtu(destination);
            let is_news = self.tcp.path_mtus_mut().lower(now, destination, mtu, link_mtu);
            self.counters.path_mtu_lowered += u64::from(is_news);
        }
        true
    }

    /// Tells the sender that nobody is at the port, if that is allowed.
    pub(super) fn answer_port_unreachable(&mut self, now: Instant, received: Received<'_>) {
        if received.source.is_ipv6() {
            let kind = (icmpv6::DESTINATION_UNREACHABLE, icmpv6::CODE_PORT_UNREACHABLE);
            self.answer_error_v6(now, received, kind, 0);
        } else {
            self.answer_unreachable(now, received, icmpv4::CODE_PORT_UNREACHABLE);
        }
    }

    /// Sends Destination Unreachable, if that is allowed (RFC 1122 §3.2.2).
    pub(super) fn answer_unreachable(&mut self, now: Instant, received: Received<'_>, code: u8) {
        if received.is_broadcast {
            return;
        }
        let len = received.payload.len().min(QUOTE_MAX.saturating_sub(received.header.len()));
        let mut quote = received.header.to_vec();
        quote.extend(&received.payload[..len]);
        let kind = icmpv4::DESTINATION_UNREACHABLE;
        self.send_icmp_error(now, received.destination, received.source, (kind, code), &quote);
    }

    /// Sends Time Exceeded for a datagram that stayed incomplete, if its first fragment came (RFC
    /// 1122 §3.3.2).
    pub(super) fn report_expired_datagram(&mut self, now: Instant, expired: &Expired) {
        if expired.destination.is_ipv6() {
            return self.report_expired_datagram_v6(now, expired);
        }
        let is_ours = self.lease.as_ref().is_some_and(|lease| lease.address == expired.destination);
        // Byte 9 of a header is the protocol: no error about what may be an error.
        let protocol = expired.quote.get(9).copied();
        if is_ours && protocol.is_some_and(|protocol| protocol != PROTOCOL_ICMP) {
            let kind = (icmpv4::TIME_EXCEEDED, icmpv4::CODE_REASSEMBLY);
            self.send_icmp_error(now, expired.destination, expired.source, kind, &expired.quote);
        }
    }

    fn send_icmp_error(
        &mut self,
        now: Instant,
        source: IpAddr,
        destination: IpAddr,
        (kind, code): (u8, u8),
        quote: &[u8],
    ) {
        if !self.icmp.allow_error(now, destination) {
            self.counters.icmp_errors_limited += 1;
            return;
        }
        if self.queue_icmp(source, destination, icmpv4::to_bytes(kind, code, [0; 4], quote)) {
            self.counters.icmp_errors_sent += 1;
        }
    }

    /// Queues an ICMP message; false if there is no room.
    fn queue_icmp(&mut self, source: IpAddr, destination: IpAddr, payload: Vec<u8>) -> bool {
        self.queue_message(source, destination, PROTOCOL_ICMP, payload)
    }

    /// Queues a message of ICMP or ICMPv6; false if there is no room.
    pub(super) fn queue_message(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        payload: Vec<u8>,
    ) -> bool {
        let identification = self.identifications.next(source, destination, protocol);
        let header = Header {
            source,
            destination,
            protocol,
            hop_limit: self.hop_limit(destination),
            identification,
            dont_fragment: false,
        };
        let has_room = self.replies.push(Packet::new(header, payload));
        if !has_room {
            self.counters.dropped_reply_queue += 1;
        }
        has_room
    }
}
