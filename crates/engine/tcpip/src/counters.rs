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
    /// Frames of a protocol other than ARP and IPv4.
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
    /// Packets of ours for which there is no route.
    dropped_ipv4_no_route,
    /// Packets of ours to our own address or to the loopback network, looped back inside.
    loopback_packets,
    /// Packets of ours to ourselves dropped because too many wait.
    dropped_loopback_queue,

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
    /// UDP datagrams whose checksum is wrong.
    dropped_udp_checksum,
    /// UDP datagrams to a port that nobody listens on.
    dropped_udp_no_port,
    /// UDP datagrams dropped because their socket's queue is full.
    dropped_udp_queue,
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
}
