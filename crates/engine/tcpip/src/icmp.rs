//! ICMP errors as the transports see them.

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
