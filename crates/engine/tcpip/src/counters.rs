//! What an engine counts: every frame that came or went, and every reason to drop one.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters since the engine's start and, where the text says "now", gauges.
        ///
        /// A field that starts with `dropped_` counts input that was thrown away for one reason.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Each counter's name and value.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// The sum, field by field: each part of the engine counts for itself.
            pub(crate) fn plus(&self, other: &Counters) -> Counters {
                Counters { $($name: self.$name.wrapping_add(other.$name),)* }
            }
        }
    };
}

counters! {
    /// Frames given to `handle_frame`.
    frames_received,
    /// Bytes of those frames.
    bytes_received,
    /// Frames taken from `poll_transmit`.
    frames_sent,
    /// Bytes of those frames.
    bytes_sent,

    /// Frames shorter than an Ethernet header.
    dropped_ethernet_malformed,
    /// Frames for another interface, or from a group address or our own.
    dropped_ethernet_address,
    /// Frames of a protocol other than ARP, IPv4 and IPv6.
    dropped_ethernet_type,

    /// ARP requests sent, probes included.
    arp_requests_sent,
    /// ARP replies sent.
    arp_replies_sent,
    /// ARP packets cut short, or not about IPv4 over Ethernet.
    dropped_arp_malformed,
    /// ARP packets from an impossible sender.
    dropped_arp_martian,
    /// ARP packets that concern neither us nor anyone whom we talk to.
    dropped_arp_unsolicited,
    /// ARP packets in which somebody else claims our address.
    arp_conflicts,
    /// Neighbours that did not answer.
    neighbour_failures,
    /// Packets dropped because the table of neighbours is full of ones in use.
    dropped_neighbour_table_full,
    /// Packets dropped because too many wait for their neighbour's hardware address.
    dropped_neighbour_parked,
    /// Neighbours in the table, now.
    neighbours,
    /// Bytes that wait for a neighbour's hardware address, now.
    neighbour_parked_bytes,

    /// IPv4 packets whose header contradicts itself or the frame.
    dropped_ipv4_malformed,
    /// IPv4 packets whose header's checksum is wrong.
    dropped_ipv4_checksum,
    /// IPv4 packets from an address that no host can have, or from our own.
    dropped_ipv4_martian,
    /// IPv4 packets for another host.
    dropped_ipv4_not_ours,
    /// IPv4 packets with a source route (RFC 7126 §4.3).
    dropped_ipv4_source_route,
    /// IPv4 packets of a protocol other than TCP, UDP and ICMP.
    dropped_ipv4_protocol,
    /// Packets of ours, of either family, for which there is no route.
    dropped_ip_no_route,
    /// IPv6 packets whose header contradicts itself or the frame, or whose extension headers do.
    dropped_ipv6_malformed,
    /// IPv6 packets from an address that no host can have, or from our own.
    dropped_ipv6_martian,
    /// IPv6 packets for another host, or a group that we are not of.
    dropped_ipv6_not_ours,
    /// IPv6 packets with more extension headers or options than anybody needs.
    dropped_ipv6_extension_limit,
    /// IPv6 packets with a header or option that we do not know, or have no use for.
    dropped_ipv6_header,

    /// Neighbour Solicitations sent, those of duplicate address detection included.
    ndp_solicitations_sent,
    /// Neighbour Advertisements sent.
    ndp_advertisements_sent,
    /// Router Solicitations sent.
    ndp_router_solicitations_sent,
    /// Router Advertisements taken.
    ndp_router_advertisements,
    /// Addresses that turned out to be another host's before we used them.
    ndp_duplicates,
    /// Advertisements of others of an address that we use.
    ndp_conflicts,
    /// Messages of Neighbour Discovery or MLD that break its rules: hop limit, code, length,
    /// options, addresses, or in fragments (RFC 4861 §7.1, RFC 6980).
    dropped_ndp_invalid,
    /// Redirects, which are not obeyed.
    dropped_ndp_redirect,
    /// Router Advertisements while addresses are not autoconfigured.
    dropped_ra_unwanted,
    /// Prefixes of Router Advertisements that cannot be.
    dropped_ra_prefix,
    /// Hop limits of Router Advertisements that are too small to be believed.
    dropped_ra_hop_limit,
    /// Router Advertisements of which not all was taken, because a limit is reached.
    dropped_ra_limit,
    /// Reports of groups sent (MLDv2).
    mld_reports_sent,
    /// IPv6 addresses of the interface, now.
    ipv6_addresses,
    /// IPv6 routers known, now.
    ipv6_routers,
    /// IPv6 prefixes on the link, now.
    ipv6_prefixes,
    /// Destinations whose path takes less than the link, now.
    path_mtus,
    /// Errors that lowered the MTU of a path.
    path_mtu_lowered,
    /// Errors about an MTU that no honest router names (RFC 8201 §4).
    dropped_path_mtu,

    /// Packets of ours to our own address or to the loopback network, looped back inside.
    loopback_packets,
    /// Packets of ours to ourselves dropped because too many wait.
    dropped_loopback_queue,

    /// Packets that a router passed on.
    forwarded_packets,
    /// Packets to pass on whose time to live has ended.
    dropped_forward_ttl,
    /// Packets to pass on from an address that is not behind the interface they came from (RFC
    /// 2827).
    dropped_forward_source,
    /// Packets to pass on that are larger than the next link allows, and may not be fragmented.
    dropped_forward_too_big,
    /// Packets to pass on whose destination no route leads to.
    dropped_forward_no_route,
    /// Packets that a router got for itself and has no use for.
    dropped_forward_local,

    /// Fragments received.
    fragments_received,
    /// Fragments sent.
    fragments_sent,
    /// Datagrams put together from fragments.
    datagrams_reassembled,
    /// Fragments whose offset or length is impossible.
    dropped_fragment_malformed,
    /// Datagrams dropped because their fragments overlap.
    dropped_fragment_overlap,
    /// Fragments that came again, byte for byte in the same place.
    dropped_fragment_duplicate,
    /// Datagrams dropped to stay within the limits of reassembly.
    dropped_fragment_limit,
    /// Datagrams that stayed incomplete for too long.
    reassembly_timeouts,
    /// Incomplete datagrams, now.
    reassembly_datagrams,
    /// Bytes of incomplete datagrams, now.
    reassembly_bytes,

    /// ICMP messages that are cut short.
    dropped_icmp_malformed,
    /// ICMP messages whose checksum is wrong.
    dropped_icmp_checksum,
    /// ICMP messages of a type or code that a host ignores (RFC 1122 §3.2.2; Redirect, Source
    /// Quench, and unknown ones).
    dropped_icmp_type,
    /// ICMP errors that quote nothing of ours.
    dropped_icmp_unmatched,
    /// ICMP errors received and passed on to the flow that they quote.
    icmp_errors_received,
    /// Echo replies sent.
    icmp_echo_replies_sent,
    /// Echo requests to a broadcast address (RFC 1122 §3.2.2.6 lets them be ignored).
    dropped_icmp_broadcast,
    /// Echo requests that the limit left unanswered.
    icmp_echo_replies_limited,
    /// ICMP errors sent.
    icmp_errors_sent,
    /// ICMP errors that the limit kept back.
    icmp_errors_limited,
    /// Replies (ARP, ICMP) dropped because too many wait for the device.
    dropped_reply_queue,

    /// UDP datagrams delivered to a socket's queue.
    udp_received,
    /// UDP datagrams sent.
    udp_sent,
    /// UDP datagrams whose length is impossible.
    dropped_udp_malformed,
    /// UDP datagrams whose checksum is wrong, or missing over IPv6.
    dropped_udp_checksum,
    /// UDP datagrams to a port that nobody listens on.
    dropped_udp_no_port,
    /// UDP datagrams dropped because their socket's queue is full.
    dropped_udp_queue,
    /// Datagrams that a socket had taken to send when it was closed, dropped because closed sockets
    /// have left too many.
    dropped_udp_orphan,
    /// UDP sockets, now.
    udp_sockets,
    /// Bytes in the queues of UDP sockets, now.
    udp_queued_bytes,

    /// DHCP messages sent.
    dhcp_sent,
    /// DHCP messages received and acted on.
    dhcp_received,
    /// DHCP messages cut short, not for us, of another exchange, or not expected.
    dropped_dhcp,
    /// Addresses declined because another host has them.
    dhcp_declined,
    /// Leases that ran out.
    dhcp_leases_expired,

    /// TCP segments whose checksum is wrong.
    dropped_tcp_checksum,
    /// TCP segments received, those with a wrong checksum not counted; those that came in one frame
    /// counted one by one.
    tcp_segments_received,
    /// TCP segments sent; those that the device cuts counted one by one.
    tcp_segments_sent,
    /// Frames of several TCP segments, received or looped back.
    tcp_large_frames_received,
    /// Frames of several TCP segments, sent for the device to cut.
    tcp_large_frames_sent,
    /// TCP segments cut short, or with a port or a header length that is impossible.
    dropped_tcp_malformed,
    /// TCP segments to a port that nobody listens on, or of no connection to one that somebody does.
    dropped_tcp_no_port,
    /// TCP segments for a listener with flags that open nothing.
    dropped_tcp_flags,
    /// RSTs, SYN-ACKs and ACKs of no connection dropped because too many wait for the device.
    dropped_tcp_reply_queue,
    /// RSTs and ACKs of no connection that the limit kept back.
    tcp_replies_limited,
    /// Payloads dropped because their connection, or all together, hold too much.
    dropped_tcp_no_room,
    /// Connections opened by us.
    tcp_opened_active,
    /// Connections opened by peers, handshake complete.
    tcp_opened_passive,
    /// SYNs, completed handshakes and `tcp_connect`s refused because there are too many connections.
    tcp_connections_refused,
    /// Completed handshakes that had to wait because their listener's queue was full.
    tcp_accept_queue_full,
    /// SYNs that came again.
    tcp_duplicate_syns,
    /// SYNs answered with a cookie.
    tcp_cookies_sent,
    /// Connections opened with a cookie.
    tcp_cookies_accepted,
    /// Handshakes given up because the client's ACK did not come.
    tcp_half_open_timeouts,
    /// Connections reset by us.
    tcp_aborted,
    /// RSTs received and obeyed.
    tcp_resets_received,
    /// Connections given up because the peer did not answer.
    tcp_timeouts,
    /// Connections reset because memory ran short.
    tcp_reset_for_memory,
    /// Connections reset because data came after the program had released them.
    tcp_data_after_release,
    /// Segments sent again.
    tcp_retransmits,
    /// Expiries of the retransmission timer.
    tcp_retransmit_timeouts,
    /// Losses found by what arrived after them; the window was reduced once for each.
    tcp_fast_retransmits,
    /// Tail loss probes sent (RFC 8985).
    tcp_tail_probes,
    /// Losses that a tail loss probe found and repaired.
    tcp_tail_losses,
    /// Reductions of the window that were undone, because nothing was lost.
    tcp_recoveries_undone,
    /// Duplicates that peers reported (RFC 2883).
    tcp_duplicates_reported,
    /// SACK blocks that cannot be true.
    tcp_sack_invalid,
    /// SACK blocks that were ignored because too much is remembered already.
    tcp_sack_limited,
    /// Peers that threw away what they had said had arrived.
    tcp_sack_reneged,
    /// Partial ACKs in fast recovery.
    tcp_partial_acks,
    /// Probes of closed windows and of silent peers sent.
    tcp_probes_sent,
    /// Segments sent with nothing but an ACK.
    tcp_pure_acks_sent,
    /// Ranges of out-of-order data that were given up for the connections of others.
    tcp_out_of_order_shed,
    /// Segments that arrived out of order.
    tcp_out_of_order,
    /// Segments outside of the receive window.
    tcp_unacceptable,
    /// Segments dropped because their timestamp is old (PAWS).
    tcp_timestamp_old,
    /// Segments dropped because they lack the timestamp that was agreed on.
    tcp_timestamp_missing,
    /// Challenge ACKs sent (RFC 5961).
    tcp_challenges_sent,
    /// Challenge ACKs, and answers to segments outside of the window, that the limit kept back.
    tcp_challenges_limited,
    /// Connections whose segments became smaller, because a router said so or because full ones got
    /// lost in silence.
    tcp_path_mtu_lowered,
    /// Those of them for which no router said so.
    tcp_black_holes,
    /// TIME-WAIT entries that went early because there were too many.
    tcp_time_wait_evicted,
    /// SYNs that were not taken in place of a TIME-WAIT entry, because the cookie for them would have
    /// had older numbers.
    tcp_time_wait_kept,
    /// TIME-WAIT entries that a new connection took the place of (RFC 6191).
    tcp_time_wait_reused,
    /// Connections, now: from the handshake's end until nothing of them is left but TIME-WAIT.
    tcp_connections,
    /// Passive handshakes that wait for the client's ACK, now.
    tcp_half_open,
    /// TIME-WAIT entries, now.
    tcp_time_wait,
    /// Listening sockets, now.
    tcp_listeners,
    /// Bytes of memory in the buffers of all connections, now.
    tcp_buffered_bytes,
    /// Ranges of out-of-order data of all connections, now.
    tcp_out_of_order_ranges,
}
