//! What comes from the wire: Ethernet, IPv4, UDP, up to the sockets.
//!
//! Each step checks what it reads and drops, with a counter, what cannot be or is not for us.

use super::{Engine, FrameChecksum};
use crate::config::{MacAddress, is_host_address};
use crate::output::Packet;
use crate::reassembly::Fragment;
use crate::time::Instant;
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{self, Frame};
use crate::wire::icmpv4;
use crate::wire::ipv4::{self, Options, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP};
use crate::wire::ipv6::PROTOCOL_ICMPV6;
use crate::wire::{dhcp, udp};
use core::num::NonZeroU16;
use std::net::{IpAddr, SocketAddr};

/// A datagram that is whole and for us.
#[derive(Clone, Copy)]
pub(super) struct Received<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    /// The IP header, extensions included, for an ICMP error to quote.
    pub(super) header: &'a [u8],
    pub(super) payload: &'a [u8],
    /// What is known of the transport's checksum.
    pub(super) checksum: FrameChecksum,
    /// Several TCP segments in one, with so much payload each.
    pub(super) mss: Option<NonZeroU16>,
    /// Who sent the frame.
    pub(super) link_source: MacAddress,
    /// Where in `header` the protocol stands; only for IPv6.
    pub(super) protocol_field: usize,
    /// It came in fragments.
    pub(super) is_fragmented: bool,
    /// The datagram, or the frame that brought it, was for more than us: nothing may be answered
    /// with an error (RFC 1122 §3.2.2).
    pub(super) is_broadcast: bool,
}

impl Engine {
    /// Takes a frame that the interface received.
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8], checksum: FrameChecksum) {
        self.handle_large_frame(now, frame, checksum, None);
    }

    /// Takes a frame in which the device, or a peer on this host, has put several TCP segments of
    /// one connection, with `mss` bytes of payload each (the last with what is left). It may be as
    /// long as an IP packet can be. Without `mss` it is an ordinary frame.
    pub fn handle_large_frame(
        &mut self,
        now: Instant,
        frame: &[u8],
        checksum: FrameChecksum,
        mss: Option<NonZeroU16>,
    ) {
        self.run = None;
        self.counters.frames_received += 1;
        self.counters.bytes_received += frame.len() as u64;
        if mss.is_none() && self.receive_expected(now, frame, checksum) {
            return;
        }
        self.handle_any(now, frame, checksum, mss);
        if let Some(id) = self.tcp.receiver.take() {
            self.flows.learn(frame, id);
        }
    }

    /// Takes a frame of any kind.
    fn handle_any(
        &mut self,
        now: Instant,
        frame: &[u8],
        checksum: FrameChecksum,
        mss: Option<NonZeroU16>,
    ) {
        let Some(frame) = Frame::parse(frame) else {
            self.counters.dropped_ethernet_malformed += 1;
            return;
        };
        let is_ours = frame.destination == self.mac;
        let is_from_another = frame.source.is_unicast() && frame.source != self.mac;
        if !is_from_another || (!is_ours && frame.destination.is_unicast()) {
            self.counters.dropped_ethernet_address += 1;
            return;
        }
        match frame.ethertype {
            ethernet::TYPE_IPV4 => self.handle_ipv4(now, &frame, !is_ours, checksum, mss),
            ethernet::TYPE_IPV6 => self.handle_ipv6(now, &frame, !is_ours, checksum, mss),
            ethernet::TYPE_ARP => self.handle_arp(now, frame.payload),
            _ => self.counters.dropped_ethernet_type += 1,
        }
    }

    fn handle_ipv4(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        is_group_frame: bool,
        checksum: FrameChecksum,
        mss: Option<NonZeroU16>,
    ) {
        let link_source = frame.source;
        let Some(packet) = ipv4::Packet::parse(frame.payload) else {
            self.counters.dropped_ipv4_malformed += 1;
            return;
        };
        // No device offloads this one, so no flag speaks for it.
        if !packet.checksum_is_valid() {
            self.counters.dropped_ipv4_checksum += 1;
            return;
        }
        match packet.options() {
            Options::Harmless => {}
            Options::SourceRoute => {
                self.counters.dropped_ipv4_source_route += 1;
                return;
            }
            Options::Malformed => {
                self.counters.dropped_ipv4_malformed += 1;
                return;
            }
        }
        let (source, destination) = (packet.source(), packet.destination());
        if self.handle_unbound_dhcp(now, &packet, checksum) {
            return;
        }
        let Some(lease) = &self.lease else {
            self.counters.dropped_ipv4_not_ours += 1;
            return;
        };
        // RFC 1122 §3.2.1.3: addresses that no packet on a wire comes from, ours among them (LAND).
        if (!is_host_address(source) && !self.is_from_host_without_address(&packet))
            || source == lease.address
            || lease.broadcast() == Some(source)
            || lease.network() == Some(source)
            || destination.is_loopback()
        {
            self.counters.dropped_ipv4_martian += 1;
            return;
        }
        let is_broadcast = destination.is_broadcast() || lease.broadcast() == Some(destination);
        if !is_broadcast && destination != lease.address {
            self.counters.dropped_ipv4_not_ours += 1;
            return;
        }
        // RFC 1122 §3.3.6: a broadcast frame with a unicast packet is somebody's mistake or attack.
        if !is_broadcast && is_group_frame {
            self.counters.dropped_ipv4_martian += 1;
            return;
        }
        if packet.is_fragment() {
            let fragment = Fragment::of_ipv4(&packet);
            let whole = self.reassembly.handle_fragment(now, &fragment, &mut self.counters);
            let Some(whole) = whole else { return };
            let received = Received {
                source: source.into(),
                destination: destination.into(),
                protocol: packet.protocol(),
                header: &whole.header,
                payload: &whole.payload,
                // What the device says of a fragment says nothing of the datagram (RFC 4963).
                checksum: FrameChecksum::Unverified,
                mss: None,
                link_source,
                protocol_field: 0,
                is_fragmented: true,
                is_broadcast,
            };
            self.handle_datagram(now, received);
        } else {
            let received = Received {
                source: source.into(),
                destination: destination.into(),
                protocol: packet.protocol(),
                header: packet.header(),
                payload: packet.payload(),
                checksum,
                mss,
                link_source,
                protocol_field: 0,
                is_fragmented: false,
                is_broadcast,
            };
            self.handle_datagram(now, received);
        }
    }

    /// Takes a DHCP server's message while there is no address: it may be sent to the address that
    /// we are going to get (RFC 2131 §4.1). False if the packet is none.
    fn handle_unbound_dhcp(
        &mut self,
        now: Instant,
        packet: &ipv4::Packet<'_>,
        checksum: FrameChecksum,
    ) -> bool {
        let is_unbound = self.dhcp.as_ref().is_some_and(|client| client.is_unbound());
        if !is_unbound || packet.protocol() != PROTOCOL_UDP || packet.is_fragment() {
            return false;
        }
        let Some(datagram) = udp::Datagram::parse(packet.payload()) else { return false };
        if (datagram.source_port, datagram.destination_port)
            != (dhcp::SERVER_PORT, dhcp::CLIENT_PORT)
        {
            return false;
        }
        if checksum == FrameChecksum::Unverified
            && !datagram.checksum_is_valid(packet.source(), packet.destination())
        {
            self.counters.dropped_udp_checksum += 1;
            return true;
        }
        self.handle_dhcp(now, datagram.payload);
        true
    }

    fn handle_dhcp(&mut self, now: Instant, payload: &[u8]) {
        if let Some(client) = &mut self.dhcp {
            let change = client.handle_message(now, payload, &mut self.counters);
            self.apply(now, change);
        }
    }

    /// Receives what we sent to ourselves: as many packets as there are now, so that two sockets
    /// that answer each other do not keep the caller here.
    pub(super) fn receive_loopback(&mut self, now: Instant) {
        for _ in 0..self.loopback.len() {
            let Some(Packet { header, payload, mss }) = self.loopback.pop() else { return };
            let mut bytes = [0; 128];
            let start = header.write(self.mac, self.mac, payload.len(), 0, false, &mut bytes);
            let received = Received {
                source: header.source,
                destination: header.destination,
                protocol: header.protocol,
                header: &bytes[ethernet::HEADER_LEN..start],
                payload: &payload,
                checksum: FrameChecksum::Blank,
                mss,
                link_source: self.mac,
                protocol_field: crate::wire::ipv6::NEXT_HEADER_FIELD,
                is_fragmented: false,
                is_broadcast: false,
            };
            self.handle_datagram(now, received);
        }
    }

    pub(super) fn handle_datagram(&mut self, now: Instant, received: Received<'_>) {
        match received.protocol {
            PROTOCOL_TCP => self.handle_tcp(now, received),
            PROTOCOL_UDP => self.handle_udp(now, received),
            PROTOCOL_ICMP if received.source.is_ipv4() => self.handle_icmp(now, received),
            PROTOCOL_ICMPV6 if received.source.is_ipv6() => self.handle_icmpv6(now, received),
            _ if received.source.is_ipv6() => {
                self.counters.dropped_ipv6_header += 1;
                self.answer_unknown_protocol_v6(now, received);
            }
            _ => {
                self.counters.dropped_ipv4_protocol += 1;
                self.answer_unreachable(now, received, icmpv4::CODE_PROTOCOL_UNREACHABLE);
            }
        }
    }

    fn handle_tcp(&mut self, now: Instant, received: Received<'_>) {
        let Received { source, destination, payload, .. } = received;
        // RFC 9293 §3.9.2.3 (MUST-57): TCP is between two hosts.
        if received.is_broadcast {
            self.counters.dropped_ipv4_martian += 1;
            return;
        }
        if received.checksum == FrameChecksum::Unverified {
            let sum = Sum::of_pseudo_header(source, destination, PROTOCOL_TCP, payload.len());
            if !sum.then(payload).is_valid() {
                self.counters.dropped_tcp_checksum += 1;
                return;
            }
        }
        if self.tcp.handle_segment(now, source, destination, payload, received.mss) {
            self.confirm(now, source);
        }
    }

    fn handle_udp(&mut self, now: Instant, received: Received<'_>) {
        let Some(datagram) = udp::Datagram::parse(received.payload) else {
            self.counters.dropped_udp_malformed += 1;
            return;
        };
        // RFC 8200 §8.1: over IPv6 there must be one, whatever a device says of it.
        let lacks_sum = received.source.is_ipv6()
            && received.checksum != FrameChecksum::Blank
            && datagram.has_no_checksum();
        if lacks_sum
            || received.checksum == FrameChecksum::Unverified
                && !datagram.checksum_is_valid(received.source, received.destination)
        {
            self.counters.dropped_udp_checksum += 1;
            return;
        }
        let source = SocketAddr::new(received.source, datagram.source_port);
        let destination = SocketAddr::new(received.destination, datagram.destination_port);
        if self.dhcp.is_some() && destination.is_ipv4() && destination.port() == dhcp::CLIENT_PORT {
            match source.port() {
                dhcp::SERVER_PORT => self.handle_dhcp(now, datagram.payload),
                _ => self.counters.dropped_dhcp += 1,
            }
            return;
        }
        let is_taken = self.udp.deliver(
            source,
            destination,
            datagram.payload,
            &mut self.events,
            &mut self.counters,
        );
        if !is_taken {
            self.counters.dropped_udp_no_port += 1;
            self.answer_port_unreachable(now, received);
        }
    }
}
