//! ARP (RFC 826) as an interface speaks it: answering, listening, defending its address (RFC 5227).

use super::{Engine, Transmit};
use crate::config::{Lease, MacAddress, is_host_address};
use crate::neighbour;
use crate::time::Instant;
use crate::wire::arp::{LEN, Operation, Packet};
use crate::wire::ethernet;
use core::time::Duration;
use std::collections::VecDeque;
use std::net::Ipv4Addr;

/// Replies that wait for the device; a flood of requests loses the rest.
const REPLIES_MAX: usize = 64;
/// How long after the probe another host's claim makes us give up a new address.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// Time between announcements (RFC 5227 §1.1, ANNOUNCE_INTERVAL).
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// Announcements of a new address (RFC 5227 §1.1, ANNOUNCE_NUM).
const ANNOUNCEMENTS: u8 = 2;
/// Least time between two defences of the address (RFC 5227 §1.1, DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// What an interface has to say in ARP, beside its requests for neighbours.
#[derive(Default)]
pub(super) struct Arp {
    /// Replies, and whom they go to.
    replies: VecDeque<(MacAddress, Ipv4Addr)>,
    /// A probe for a new address is due.
    is_probe_due: bool,
    is_announcement_due: bool,
    /// Announcements to come, the next one at `announce_at`.
    announcements: u8,
    announce_at: Option<Instant>,
    defended_at: Option<Instant>,
}

impl Arp {
    /// Probes for a new address once, and announces it if nobody objects.
    pub(super) fn start_probing(&mut self, now: Instant) {
        self.is_probe_due = true;
        self.announcements = ANNOUNCEMENTS;
        self.announce_at = Some(now + PROBE_WAIT);
        self.defended_at = None;
    }

    /// Another host's claim of the address wins for now.
    fn is_probing(&self) -> bool {
        self.announcements == ANNOUNCEMENTS
    }

    /// Falls silent: the interface has lost its address.
    pub(super) fn stop(&mut self) {
        *self = Arp::default();
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.announce_at
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.announce_at.is_some_and(|at| at <= now) {
            self.is_announcement_due = true;
            self.announcements = self.announcements.saturating_sub(1);
            self.announce_at = (self.announcements > 0).then(|| now + ANNOUNCE_INTERVAL);
        }
    }

    /// Claims the address again, unless that was done a moment ago: two hosts that both insist must
    /// not flood the link (RFC 5227 §2.4(c)).
    fn defend(&mut self, now: Instant) {
        if self.defended_at.is_none_or(|at| now.saturating_since(at) >= DEFEND_INTERVAL) {
            self.defended_at = Some(now);
            self.is_announcement_due = true;
        }
    }
}

impl Engine {
    /// Takes an ARP packet.
    pub(super) fn handle_arp(&mut self, now: Instant, bytes: &[u8]) {
        let Some(packet) = Packet::parse(bytes) else {
            self.counters.dropped_arp_malformed += 1;
            return;
        };
        let Some(lease) = &self.lease else {
            self.counters.dropped_arp_unsolicited += 1;
            return;
        };
        let ours = lease.address;
        if !packet.sender_mac.is_unicast() || packet.sender_mac == self.mac {
            self.counters.dropped_arp_martian += 1;
            return;
        }
        if packet.sender == ours {
            self.counters.arp_conflicts += 1;
            self.handle_conflict(now);
            return;
        }
        let to_us = packet.target == ours && packet.operation == Operation::Request;
        if packet.sender.is_unspecified() {
            // A probe (RFC 5227 §2.1.1) teaches nothing, but is answered.
            match to_us {
                true => self.reply(packet.sender_mac, packet.sender),
                false => self.counters.dropped_arp_unsolicited += 1,
            }
            return;
        }
        if !may_be_neighbour(lease, packet.sender) {
            self.counters.dropped_arp_martian += 1;
            return;
        }
        // RFC 826: what is known is updated whoever is asked; what is new is noted if we are.
        let is_known = self.neighbours.learn(now, packet.sender, packet.sender_mac, to_us);
        if to_us {
            self.reply(packet.sender_mac, packet.sender);
        } else if !is_known {
            self.counters.dropped_arp_unsolicited += 1;
        }
    }

    fn reply(&mut self, to: MacAddress, target: Ipv4Addr) {
        if self.arp.replies.len() >= REPLIES_MAX {
            self.counters.dropped_reply_queue += 1;
        } else {
            self.arp.replies.push_back((to, target));
        }
    }

    /// Somebody else claims our address.
    fn handle_conflict(&mut self, now: Instant) {
        if self.arp.is_probing()
            && let Some(client) = &mut self.dhcp
        {
            // RFC 2131 §3.1(5): the server gave an address that is taken.
            let change = client.handle_conflict(now, &mut self.counters);
            self.apply(now, change);
        } else {
            self.arp.defend(now);
        }
    }

    /// Writes the next ARP packet as a frame.
    pub(super) fn transmit_arp(&mut self, buffer: &mut [u8]) -> Option<Transmit> {
        let ours = self.lease.as_ref()?.address;
        let request = |sender, target| Packet {
            operation: Operation::Request,
            sender_mac: self.mac,
            sender,
            target_mac: MacAddress([0; 6]),
            target,
        };
        let (to, packet) = if let Some((to, target)) = self.arp.replies.pop_front() {
            self.counters.arp_replies_sent += 1;
            let operation = Operation::Reply;
            let reply =
                Packet { operation, sender_mac: self.mac, sender: ours, target_mac: to, target };
            (to, reply)
        } else if core::mem::take(&mut self.arp.is_probe_due) {
            self.counters.arp_requests_sent += 1;
            (MacAddress::BROADCAST, request(Ipv4Addr::UNSPECIFIED, ours))
        } else if core::mem::take(&mut self.arp.is_announcement_due) {
            self.counters.arp_requests_sent += 1;
            (MacAddress::BROADCAST, request(ours, ours))
        } else {
            let neighbour::Request { target, to } = self.neighbours.take_request()?;
            self.counters.arp_requests_sent += 1;
            (to.unwrap_or(MacAddress::BROADCAST), request(ours, target))
        };
        let len = ethernet::HEADER_LEN + LEN;
        let (header, rest) = buffer.split_at_mut(ethernet::HEADER_LEN);
        header.copy_from_slice(&ethernet::header(to, self.mac, ethernet::TYPE_ARP));
        rest[..LEN].copy_from_slice(&packet.to_bytes());
        Some(Transmit::complete(len))
    }
}

/// True if a host on the link can have `address`. One outside the subnet may be a router that we
/// were told of; the table of neighbours takes it only if we asked.
fn may_be_neighbour(lease: &Lease, address: Ipv4Addr) -> bool {
    is_host_address(address)
        && lease.broadcast() != Some(address)
        && lease.network() != Some(address)
}
