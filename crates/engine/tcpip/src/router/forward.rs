//! What a router does with a frame.

use super::routes::Hop;
use super::{OwnFrame, Parked, Router, Undone};
use crate::config::{MacAddress, is_host_address};
use crate::output::TIME_TO_LIVE;
use crate::reassembly::QUOTE_MAX;
use crate::segment::{self, Cutter};
use crate::time::Instant;
use crate::wire::arp::{self, Operation};
use crate::wire::checksum::checksum;
use crate::wire::ethernet::{self, Frame};
use crate::wire::icmpv4::{self, Message};
use crate::wire::ipv4::{self, Header, Options, PROTOCOL_ICMP, PROTOCOL_UDP, Packet};
use std::net::Ipv4Addr;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The router is done with it.
    Consumed,
    /// Its first `len` bytes, which were rewritten, are to be sent on `port`, with what was undone
    /// when it came still undone.
    Forward {
        /// The port's number.
        port: usize,
        /// Length in bytes; what followed was padding.
        len: usize,
    },
}

impl Router {
    /// Takes a frame that the interface of `port` received. `undone` says what its sender, or the
    /// device, left to others.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        port: usize,
        frame: &mut [u8],
        undone: Undone,
    ) -> Verdict {
        self.counters.frames_received += 1;
        self.counters.bytes_received += frame.len() as u64;
        let Some(Some(own)) = self.ports.get(port) else { return Verdict::Consumed };
        let Some(parsed) = Frame::parse(frame) else {
            self.counters.dropped_ethernet_malformed += 1;
            return Verdict::Consumed;
        };
        let is_ours = parsed.destination == own.config.mac;
        let is_from_another = parsed.source.is_unicast() && parsed.source != own.config.mac;
        if !is_from_another || (!is_ours && parsed.destination.is_unicast()) {
            self.counters.dropped_ethernet_address += 1;
            return Verdict::Consumed;
        }
        match parsed.ethertype {
            ethernet::TYPE_ARP => self.handle_arp(now, port, parsed.payload),
            ethernet::TYPE_IPV4 if is_ours => return self.handle_ipv4(now, port, frame, undone),
            // Not for us, but for all: a router passes on no broadcast (RFC 1812 §5.3.5).
            ethernet::TYPE_IPV4 => self.counters.dropped_ipv4_not_ours += 1,
            _ => self.counters.dropped_ethernet_type += 1,
        }
        Verdict::Consumed
    }

    fn handle_arp(&mut self, now: Instant, number: usize, bytes: &[u8]) {
        let Some(packet) = arp::Packet::parse(bytes) else {
            self.counters.dropped_arp_malformed += 1;
            return;
        };
        let Some(Some(port)) = self.ports.get_mut(number) else { return };
        let ours = port.config.address;
        let subnet = &port.subnet;
        let may_be_neighbour = is_host_address(packet.sender)
            && subnet.broadcast() != Some(packet.sender)
            && subnet.network() != Some(packet.sender)
            && subnet.is_on_link(packet.sender);
        if !packet.sender_mac.is_unicast() || packet.sender_mac == port.config.mac {
            self.counters.dropped_arp_martian += 1;
            return;
        }
        if packet.sender == ours {
            self.counters.arp_conflicts += 1;
            return;
        }
        let to_us = packet.target == ours && packet.operation == Operation::Request;
        let is_probe = packet.sender.is_unspecified();
        if !is_probe && !may_be_neighbour {
            self.counters.dropped_arp_martian += 1;
            return;
        }
        let is_known =
            !is_probe && port.neighbours.learn(now, packet.sender, packet.sender_mac, to_us);
        if to_us && !self.arp_replies.allows(now) {
            self.counters.dropped_reply_queue += 1;
        } else if to_us {
            self.counters.arp_replies_sent += 1;
            let reply = arp::Packet {
                operation: Operation::Reply,
                sender_mac: port.config.mac,
                sender: ours,
                target_mac: packet.sender_mac,
                target: packet.sender,
            };
            port.queue_arp(packet.sender_mac, reply, &mut self.counters);
        } else if !is_known {
            self.counters.dropped_arp_unsolicited += 1;
        }
        port.collect(&mut self.counters);
    }

    fn handle_ipv4(
        &mut self,
        now: Instant,
        number: usize,
        frame: &mut [u8],
        undone: Undone,
    ) -> Verdict {
        let Some(packet) = Packet::parse(&frame[ethernet::HEADER_LEN..]) else {
            self.counters.dropped_ipv4_malformed += 1;
            return Verdict::Consumed;
        };
        if !packet.checksum_is_valid() {
            self.counters.dropped_ipv4_checksum += 1;
            return Verdict::Consumed;
        }
        match packet.options() {
            Options::Harmless => {}
            Options::SourceRoute => {
                self.counters.dropped_ipv4_source_route += 1;
                return Verdict::Consumed;
            }
            Options::Malformed => {
                self.counters.dropped_ipv4_malformed += 1;
                return Verdict::Consumed;
            }
        }
        let (source, destination) = (packet.source(), packet.destination());
        let header_len = packet.header().len();
        let len = ethernet::HEADER_LEN + header_len + packet.payload().len();
        // RFC 1812 §5.3.7: addresses that no packet comes from, or goes to another link for.
        if !is_host_address(source)
            || !is_host_address(destination)
            || self.is_own(source)
            || self.is_broadcast(source)
        {
            self.counters.dropped_ipv4_martian += 1;
            return Verdict::Consumed;
        }
        // RFC 2827: what claims to come from elsewhere is a lie, and nobody would get the answer.
        let is_behind =
            self.routes.lookup(&self.ports, source).is_some_and(|hop| hop.port == number);
        if !is_behind {
            self.counters.dropped_forward_source += 1;
            return Verdict::Consumed;
        }
        if self.is_own(destination) {
            self.handle_local(now, number, &frame[ethernet::HEADER_LEN..len]);
            return Verdict::Consumed;
        }
        // Nothing is passed on to all of a link (RFC 2644).
        if self.is_broadcast(destination) {
            self.counters.dropped_ipv4_not_ours += 1;
            return Verdict::Consumed;
        }
        let time_to_live = packet.header()[8];
        let dont_fragment = packet.header()[6] & 0x40 != 0;
        let refuse = |router: &mut Router, kind, code, word| {
            router.answer(now, number, &frame[ethernet::HEADER_LEN..len], (kind, code), word);
            Verdict::Consumed
        };
        if time_to_live <= 1 {
            self.counters.dropped_forward_ttl += 1;
            return refuse(self, icmpv4::TIME_EXCEEDED, icmpv4::CODE_TIME_TO_LIVE, [0; 4]);
        }
        let Some(hop) = self.routes.lookup(&self.ports, destination) else {
            self.counters.dropped_forward_no_route += 1;
            let code = icmpv4::CODE_NETWORK_UNREACHABLE;
            return refuse(self, icmpv4::DESTINATION_UNREACHABLE, code, [0; 4]);
        };
        let Some(Some(out)) = self.ports.get(hop.port) else { return Verdict::Consumed };
        let mtu = out.config.mtu;
        // What is cut on its way out is as long as what it is cut into.
        let longest = match undone.mss.map(|mss| Cutter::new(frame, mss)) {
            Some(Ok(cutter)) => cutter.frame_bytes_max().min(len),
            Some(Err(_)) => {
                self.counters.dropped_ipv4_malformed += 1;
                return Verdict::Consumed;
            }
            None => len,
        };
        let is_too_big = longest > ethernet::HEADER_LEN + mtu;
        // Options are not taken apart; nobody sends any.
        if is_too_big && (dont_fragment || undone.mss.is_some() || header_len > ipv4::HEADER_LEN) {
            self.counters.dropped_forward_too_big += 1;
            let word = (mtu as u32).to_be_bytes();
            let code = icmpv4::CODE_FRAGMENTATION_NEEDED;
            return refuse(self, icmpv4::DESTINATION_UNREACHABLE, code, word);
        }
        self.rewrite(hop.port, &mut frame[..len], header_len);
        if is_too_big {
            self.send_fragments(now, hop, &mut frame[..len], undone);
            return Verdict::Consumed;
        }
        let Some(Some(out)) = self.ports.get_mut(hop.port) else { return Verdict::Consumed };
        let Some(to) = out.neighbours.lookup(now, hop.next) else {
            let frame = OwnFrame { bytes: frame[..len].to_vec(), undone };
            let parked = Parked { frame, is_forwarded: true };
            out.neighbours.park(now, hop.next, parked, &mut self.counters);
            out.collect(&mut self.counters);
            self.report_failed(now, hop.port);
            return Verdict::Consumed;
        };
        frame[..6].copy_from_slice(&to.0);
        // A look may have found an old entry that is to be confirmed.
        out.collect(&mut self.counters);
        self.counters.forwarded_packets += 1;
        Verdict::Forward { port: hop.port, len }
    }

    fn is_own(&self, address: Ipv4Addr) -> bool {
        self.ports.iter().flatten().any(|port| port.config.address == address)
    }

    /// The address of all of a link of ours, or a link's number.
    fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        self.ports.iter().flatten().any(|port| {
            port.subnet.broadcast() == Some(address) || port.subnet.network() == Some(address)
        })
    }

    /// Makes a frame one of `port`'s, for nobody yet, with one less to live.
    fn rewrite(&self, port: usize, frame: &mut [u8], header_len: usize) {
        let mac = match self.ports.get(port) {
            Some(Some(port)) => port.config.mac,
            _ => MacAddress([0; 6]),
        };
        frame[..6].fill(0);
        frame[6..12].copy_from_slice(&mac.0);
        let header = &mut frame[ethernet::HEADER_LEN..ethernet::HEADER_LEN + header_len];
        header[8] = header[8].saturating_sub(1);
        header[10..12].fill(0);
        let sum = checksum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    /// Cuts a packet into fragments that fit (RFC 791 §3.2) and sends them to `hop`. The packet
    /// has no options, and may be a fragment itself.
    fn send_fragments(&mut self, now: Instant, hop: Hop, frame: &mut [u8], undone: Undone) {
        if undone.is_checksum_blank && segment::finish_checksum(frame).is_err() {
            self.counters.dropped_ipv4_malformed += 1;
            return;
        }
        let (headers, payload) = frame.split_at(ethernet::HEADER_LEN + ipv4::HEADER_LEN);
        let field = u16::from_be_bytes([headers[20], headers[21]]);
        let (base, more_after) = (field & 0x1fff, field & 0x2000 != 0);
        let Some(Some(out)) = self.ports.get_mut(hop.port) else { return };
        // What would end beyond the largest datagram has no place in one (RFC 791 §3.2).
        if usize::from(base) * 8 + payload.len() > usize::from(u16::MAX) {
            self.counters.dropped_fragment_malformed += 1;
            return;
        }
        let room = (out.config.mtu - ipv4::HEADER_LEN) & !7;
        let to = out.neighbours.lookup(now, hop.next);
        let count = payload.len().div_ceil(room);
        for (number, piece) in payload.chunks(room).enumerate() {
            let mut bytes = headers.to_vec();
            let len = (ipv4::HEADER_LEN + piece.len()) as u16;
            bytes[16..18].copy_from_slice(&len.to_be_bytes());
            let is_last = number + 1 == count;
            let offset = base + (number * room / 8) as u16;
            let more = if is_last && !more_after { 0 } else { 0x2000 };
            bytes[20..22].copy_from_slice(&(offset | more).to_be_bytes());
            bytes[24..26].fill(0);
            let sum = checksum(&bytes[ethernet::HEADER_LEN..]);
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            bytes.extend(piece);
            self.counters.fragments_sent += 1;
            let mut own = OwnFrame { bytes, undone: Undone::default() };
            match to {
                Some(to) => {
                    own.bytes[..6].copy_from_slice(&to.0);
                    out.queue(own, &mut self.counters);
                }
                None => {
                    let parked = Parked { frame: own, is_forwarded: is_last };
                    out.neighbours.park(now, hop.next, parked, &mut self.counters);
                }
            }
        }
        self.counters.forwarded_packets += u64::from(to.is_some());
        out.collect(&mut self.counters);
        self.report_failed(now, hop.port);
    }

    /// A packet to one of our own addresses.
    fn handle_local(&mut self, now: Instant, number: usize, ip: &[u8]) {
        let Some(packet) = Packet::parse(ip) else { return };
        if packet.is_fragment() {
            self.counters.dropped_forward_local += 1;
            return;
        }
        match packet.protocol() {
            PROTOCOL_ICMP => {
                let Some(message) = Message::parse(packet.payload()) else {
                    self.counters.dropped_icmp_malformed += 1;
                    return;
                };
                if !message.checksum_is_valid() {
                    self.counters.dropped_icmp_checksum += 1;
                } else if (message.kind, message.code) != (icmpv4::ECHO_REQUEST, 0) {
                    self.counters.dropped_icmp_type += 1;
                } else if !self.icmp.allow_echo_reply(now) {
                    self.counters.icmp_echo_replies_limited += 1;
                } else {
                    self.counters.icmp_echo_replies_sent += 1;
                    let (kind, body) = (icmpv4::ECHO_REPLY, message.body);
                    let reply = icmpv4::to_bytes(kind, 0, message.word, body);
                    self.send_icmp(now, packet.destination(), packet.source(), &reply);
                }
            }
            PROTOCOL_UDP => {
                self.counters.dropped_forward_local += 1;
                // So that traceroute ends here.
                let code = icmpv4::CODE_PORT_UNREACHABLE;
                self.answer(now, number, ip, (icmpv4::DESTINATION_UNREACHABLE, code), [0; 4]);
            }
            _ => self.counters.dropped_forward_local += 1,
        }
    }

    /// Sends an ICMP error about the packet `ip`, which came by `port`, if that is allowed (RFC
    /// 1812 §4.3.2.7).
    fn answer(
        &mut self,
        now: Instant,
        port: usize,
        ip: &[u8],
        (kind, code): (u8, u8),
        word: [u8; 4],
    ) {
        let Some(packet) = Packet::parse_quoted(ip) else { return };
        let is_error = packet.protocol() == PROTOCOL_ICMP
            && packet
                .payload()
                .first()
                .is_none_or(|kind| !matches!(*kind, icmpv4::ECHO_REQUEST | icmpv4::ECHO_REPLY));
        if packet.fragment_offset() != 0 || is_error {
            return;
        }
        let Some(Some(own)) = self.ports.get(port) else { return };
        let (ours, source) = (own.config.address, packet.source());
        if !self.icmp.allow_error(now, source) {
            self.counters.icmp_errors_limited += 1;
            return;
        }
        let quote = &ip[..ip.len().min(QUOTE_MAX)];
        self.counters.icmp_errors_sent += 1;
        self.send_icmp(now, ours, source, &icmpv4::to_bytes(kind, code, word, quote));
    }

    /// Sends an ICMP message of our own.
    fn send_icmp(&mut self, now: Instant, source: Ipv4Addr, destination: Ipv4Addr, message: &[u8]) {
        let Some(hop) = self.routes.lookup(&self.ports, destination) else { return };
        let Some(Some(out)) = self.ports.get_mut(hop.port) else { return };
        if ipv4::HEADER_LEN + message.len() > out.config.mtu {
            // An echo of a packet from a link with a larger MTU: its sender finds out by less.
            self.counters.dropped_forward_too_big += 1;
            return;
        }
        let identification = self.identifications.next(source, destination, PROTOCOL_ICMP) as u16;
        let header = Header {
            source,
            destination,
            protocol: PROTOCOL_ICMP,
            time_to_live: TIME_TO_LIVE,
            identification,
            dont_fragment: false,
        };
        let mac = out.config.mac;
        let mut bytes = ethernet::header(MacAddress([0; 6]), mac, ethernet::TYPE_IPV4).to_vec();
        bytes.extend(header.to_bytes(message.len()));
        bytes.extend(message);
        let mut frame = OwnFrame { bytes, undone: Undone::default() };
        match out.neighbours.lookup(now, hop.next) {
            Some(to) => {
                frame.bytes[..6].copy_from_slice(&to.0);
                out.queue(frame, &mut self.counters);
            }
            None => {
                let parked = Parked { frame, is_forwarded: false };
                out.neighbours.park(now, hop.next, parked, &mut self.counters);
            }
        }
        out.collect(&mut self.counters);
    }

    /// Tells the senders of packets whose next neighbour on `port` does not answer.
    pub(super) fn report_failed(&mut self, now: Instant, port: usize) {
        loop {
            let Some(Some(out)) = self.ports.get_mut(port) else { return };
            let Some(Parked { frame, is_forwarded }) = out.neighbours.take_failed() else { return };
            let ip = frame.bytes.get(ethernet::HEADER_LEN..).unwrap_or_default();
            let Some(packet) = Packet::parse_quoted(ip) else { continue };
            let Some(hop) = self.routes.lookup(&self.ports, packet.source()) else { continue };
            // Ours are answered to nobody.
            if is_forwarded {
                let kind = icmpv4::DESTINATION_UNREACHABLE;
                let code = icmpv4::CODE_HOST_UNREACHABLE;
                self.answer(now, hop.port, ip, (kind, code), [0; 4]);
            }
        }
    }
}
