//! What an interface has to say about itself and its neighbours. What it says of its own accord is made
//! when the device takes it, and leaves before the answers for which others ask.

use super::Ipv6;
use super::neighbours::Request;
use crate::config::MacAddress;
use crate::counters::Counters;
use crate::output::{Header, Packet};
use crate::time::Instant;
use crate::wire::icmpv6;
use crate::wire::ipv6::{HOP_BY_HOP, OPTION_ROUTER_ALERT, PROTOCOL_ICMPV6};
use crate::wire::ndp;
use std::net::Ipv6Addr;

/// Hop limit of Neighbour Discovery: it shows that no router has passed the message on (RFC 4861
/// §3.1).
pub(crate) const HOP_LIMIT_NDP: u8 = 255;

/// Kinds of records in a report (RFC 3810 §5.2.12): the groups that there are, and those that have
/// just come to be.
const MODE_IS_EXCLUDE: u8 = 2;
const CHANGE_TO_EXCLUDE_MODE: u8 = 4;

/// What is to be said as soon as the device takes it; each once, however long that takes.
#[derive(Default)]
pub(super) struct Due {
    pub(super) solicitation: bool,
    pub(super) change_report: bool,
    pub(super) answer_report: bool,
}

impl Ipv6 {
    fn link_local(&self) -> Option<Ipv6Addr> {
        let mut assigned = self.addresses.assigned().map(|address| address.address);
        assigned.find(|address| address.is_unicast_link_local())
    }

    /// A solicitation of routers: from the unspecified address while there is none yet, and then
    /// without ours.
    fn router_solicitation(&self) -> (MacAddress, Packet) {
        let source = self.link_local().unwrap_or(Ipv6Addr::UNSPECIFIED);
        let mac = (!source.is_unspecified()).then_some(self.mac);
        let kind = (icmpv6::ROUTER_SOLICITATION, 0);
        let body = ndp::router_solicitation_body(mac);
        let bytes = icmpv6::to_bytes(source, ndp::ALL_ROUTERS, kind, [0; 4], &body);
        (ndp::group_mac(ndp::ALL_ROUTERS), message_packet(source, ndp::ALL_ROUTERS, bytes))
    }

    /// A report of all groups, if there are any (RFC 3810 §5.2); switches that listen send us their
    /// frames.
    fn group_report(&self, kind: u8) -> Option<(MacAddress, Packet)> {
        let mut groups: Vec<Ipv6Addr> =
            self.addresses.iter().map(|address| ndp::solicited_node(address.address)).collect();
        groups.sort_unstable();
        groups.dedup();
        if groups.is_empty() {
            return None;
        }
        // RFC 3590 §4: before there is an address, from none.
        let source = self.link_local().unwrap_or(Ipv6Addr::UNSPECIFIED);
        let group = ndp::ALL_MLDV2_ROUTERS;
        let (word, body) = ndp::mld_report(kind, &groups);
        let report = icmpv6::to_bytes(source, group, (icmpv6::MLDV2_REPORT, 0), word, &body);
        // Hop-by-hop options with a Router Alert (RFC 2711 §2.1: MLD), padded by two bytes.
        let options = [PROTOCOL_ICMPV6, 0, OPTION_ROUTER_ALERT, 2, 0, 0, 1, 0];
        let payload = [&options[..], &report].concat();
        let header = Header { protocol: HOP_BY_HOP, hop_limit: 1, ..message_header(source, group) };
        Some((ndp::group_mac(group), Packet::new(header, payload)))
    }

    /// What we say of our own accord: groups first, or the answer to a probe may not find us.
    fn take_due(&mut self, now: Instant, counters: &mut Counters) -> Option<(MacAddress, Packet)> {
        let change = core::mem::take(&mut self.due.change_report).then_some(CHANGE_TO_EXCLUDE_MODE);
        let answer = || core::mem::take(&mut self.due.answer_report).then_some(MODE_IS_EXCLUDE);
        if let Some(kind) = change.or_else(answer)
            && let Some(report) = self.group_report(kind)
        {
            counters.mld_reports_sent += 1;
            return Some(report);
        }
        if let Some((target, nonce)) = self.addresses.take_probe(now) {
            let (source, group) = (Ipv6Addr::UNSPECIFIED, ndp::solicited_node(target));
            let body = ndp::neighbour_body(target, None, None, Some(nonce));
            let kind = (icmpv6::NEIGHBOUR_SOLICITATION, 0);
            let bytes = icmpv6::to_bytes(source, group, kind, [0; 4], &body);
            counters.ndp_solicitations_sent += 1;
            return Some((ndp::group_mac(group), message_packet(source, group, bytes)));
        }
        core::mem::take(&mut self.due.solicitation).then(|| {
            counters.ndp_router_solicitations_sent += 1;
            self.router_solicitation()
        })
    }

    /// Takes the next message to send, and whom the frame goes to.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        counters: &mut Counters,
    ) -> Option<(MacAddress, Packet)> {
        // What others ask for comes last: there is no end to it.
        if let Some(message) = self.take_due(now, counters) {
            return Some(message);
        }
        while let Some(Request { target, to, source }) = self.neighbours.take_request() {
            // RFC 4861 §7.2.2: from where the packet comes that asks for it, so that the answer
            // finds the way.
            let source = source
                .filter(|source| self.addresses.is_ours(*source))
                .or_else(|| self.addresses.source_for(now, target));
            let Some(source) = source else { continue };
            let group = ndp::solicited_node(target);
            let destination = if to.is_some() { target } else { group };
            let body = ndp::neighbour_body(target, Some(self.mac), None, None);
            let kind = (icmpv6::NEIGHBOUR_SOLICITATION, 0);
            let bytes = icmpv6::to_bytes(source, destination, kind, [0; 4], &body);
            counters.ndp_solicitations_sent += 1;
            let to = to.unwrap_or_else(|| ndp::group_mac(group));
            return Some((to, message_packet(source, destination, bytes)));
        }
        self.answers.pop_front()
    }
}

/// The header of a message of Neighbour Discovery.
fn message_header(source: Ipv6Addr, destination: Ipv6Addr) -> Header {
    Header {
        source: source.into(),
        destination: destination.into(),
        protocol: PROTOCOL_ICMPV6,
        hop_limit: HOP_LIMIT_NDP,
        identification: 0,
        dont_fragment: true,
    }
}

pub(super) fn message_packet(source: Ipv6Addr, destination: Ipv6Addr, bytes: Vec<u8>) -> Packet {
    Packet::new(message_header(source, destination), bytes)
}
