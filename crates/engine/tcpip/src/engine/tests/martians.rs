//! TCP is between two hosts: whatever comes from, or goes to, an address that no single host has is
//! dropped in silence, in every state of a connection (pitfall T12; RFC 9293 §3.9.2.3, MUST-57).

use super::*;
use crate::SocketState;
use crate::tcp::Seq;
use crate::wire::ipv6 as ipv6_wire;
use crate::wire::ndp;
use crate::wire::tcp::{self as tcp_wire, Flags};
use std::net::Ipv6Addr;

const H6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const P6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const PORT: u16 = 80;

const SYN: Flags = Flags::SYN;
const RST: Flags = Flags::RST;
const ACK: Flags = Flags::ACK;
const FIN: Flags = Flags::FIN;

/// What P knows of its connection with H: the numbers that come next.
#[derive(Clone, Copy)]
struct Talk {
    ours: IpAddr,
    theirs: IpAddr,
    peer_port: u16,
    host_port: u16,
    sequence: Seq,
    acknowledgment: Seq,
}

impl Talk {
    fn frame(&self, source: IpAddr, destination: IpAddr, flags: Flags, data: &[u8]) -> Vec<u8> {
        let header = tcp_wire::Header {
            source_port: self.peer_port,
            destination_port: self.host_port,
            sequence: self.sequence,
            acknowledgment: if flags.has(ACK) { self.acknowledgment } else { Seq(0) },
            flags,
            window: 65_535,
            options: Default::default(),
        };
        let mut segment = vec![0; header.len()];
        header.emit(&mut segment);
        segment.extend(data);
        segment[16..18].fill(0);
        let sum = checksum::Sum::of_pseudo_header(source, destination, PROTOCOL_TCP, segment.len());
        let sum = sum.then(&segment).finish();
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ip(source, destination, PROTOCOL_TCP, &segment)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut packet =
                    ipv6_wire::header(source, destination, PROTOCOL_TCP, 64, segment.len())
                        .to_vec();
                packet.extend(segment);
                eth(H_MAC, P_MAC, ethernet::TYPE_IPV6, &packet)
            }
            _ => panic!("of one family"),
        }
    }

    /// What P says next.
    fn says(&mut self, host: &mut Host, flags: Flags, data: &[u8]) {
        host.receive(&self.frame(self.theirs, self.ours, flags, data));
        let counts = u32::from(flags.has(SYN)) + u32::from(flags.has(FIN));
        self.sequence += data.len() as u32 + counts;
        self.hears(host);
    }

    /// What H has said.
    fn hears(&mut self, host: &mut Host) {
        for frame in host.sent() {
            let skip = if self.ours.is_ipv4() { 20 } else { 40 };
            let next = frame[14 + if self.ours.is_ipv4() { 9 } else { 6 }];
            if next != PROTOCOL_TCP || frame[12] == 8 && frame[13] == 6 {
                continue;
            }
            let segment = tcp_wire::Segment::parse(&frame[14 + skip..]).unwrap();
            self.host_port = segment.header.source_port;
            self.peer_port = segment.header.destination_port;
            self.acknowledgment = segment.header.sequence + segment.sequence_len();
        }
    }
}

/// H with one socket in `state`, and P's half of it.
fn in_state(state: SocketState, is_ipv6: bool) -> (Host, Talk) {
    let ipv6 = Ipv6Config { addresses: vec![(H6, 64)], ..Ipv6Config::default() };
    let mut host = Host::with(Config { ipv6, ..config() });
    let (ours, theirs) =
        if is_ipv6 { (H6.into(), P6.into()) } else { (IpAddr::V4(H), IpAddr::V4(P)) };
    if is_ipv6 {
        let body = ndp::neighbour_body(H6, Some(P_MAC), None, None);
        let kind = (crate::wire::icmpv6::NEIGHBOUR_SOLICITATION, 0);
        let message = crate::wire::icmpv6::to_bytes(P6, H6, kind, [0; 4], &body);
        let protocol = ipv6_wire::PROTOCOL_ICMPV6;
        let mut packet = ipv6_wire::header(P6, H6, protocol, 255, message.len()).to_vec();
        packet.extend(message);
        host.receive(&eth(H_MAC, P_MAC, ethernet::TYPE_IPV6, &packet));
        assert_eq!(host.sent().len(), 1, "H answers");
    } else {
        host.introduce(P, P_MAC);
    }
    let mut talk = Talk {
        ours,
        theirs,
        peer_port: 40_000,
        host_port: PORT,
        sequence: Seq(7000),
        acknowledgment: Seq(0),
    };
    match state {
        SocketState::Closed => return (host, talk),
        SocketState::SynSent => {
            host.engine.tcp_connect(host.now, SocketAddr::new(theirs, 9)).unwrap();
            talk.hears(&mut host);
        }
        _ => {
            let listener = host.engine.tcp_listen(SocketAddr::new(ours, PORT), 8).unwrap();
            if state != SocketState::Listen {
                talk.says(&mut host, SYN, b"");
            }
            if !matches!(state, SocketState::Listen | SocketState::SynReceived) {
                talk.says(&mut host, ACK, b"");
                let id = host.engine.tcp_accept(host.now, listener).unwrap().connection;
                let shut = |host: &mut Host, talk: &mut Talk| {
                    host.engine.tcp_shutdown(host.now, id).unwrap();
                    talk.hears(host);
                };
                match state {
                    SocketState::FinWait1 => shut(&mut host, &mut talk),
                    SocketState::FinWait2 => {
                        shut(&mut host, &mut talk);
                        talk.says(&mut host, ACK, b"");
                    }
                    SocketState::CloseWait => talk.says(&mut host, FIN | ACK, b""),
                    SocketState::LastAck => {
                        talk.says(&mut host, FIN | ACK, b"");
                        shut(&mut host, &mut talk);
                    }
                    SocketState::Closing => {
                        let before = talk.acknowledgment;
                        shut(&mut host, &mut talk);
                        // Its FIN was underway before ours came.
                        let after = core::mem::replace(&mut talk.acknowledgment, before);
                        talk.says(&mut host, FIN | ACK, b"");
                        talk.acknowledgment = after;
                    }
                    SocketState::TimeWait => {
                        shut(&mut host, &mut talk);
                        talk.says(&mut host, FIN | ACK, b"");
                    }
                    _ => {}
                }
            }
            // Whose handshakes would go with it.
            if !matches!(state, SocketState::Listen | SocketState::SynReceived) {
                host.engine.tcp_close_listener(host.now, listener);
                host.sent();
            }
        }
    }
    (host, talk)
}

const STATES: [SocketState; 11] = [
    SocketState::Closed,
    SocketState::Listen,
    SocketState::SynSent,
    SocketState::SynReceived,
    SocketState::Established,
    SocketState::FinWait1,
    SocketState::FinWait2,
    SocketState::CloseWait,
    SocketState::Closing,
    SocketState::LastAck,
    SocketState::TimeWait,
];

/// A segment of each kind, with the very numbers that H expects.
const SEGMENTS: [(Flags, &[u8]); 7] = [
    (SYN, b""),
    (Flags(SYN.0 | ACK.0), b""),
    (ACK, b""),
    (ACK, b"data"),
    (Flags(FIN.0 | ACK.0), b""),
    (RST, b""),
    (Flags(RST.0 | ACK.0), b""),
];

fn sources(is_ipv6: bool) -> Vec<IpAddr> {
    let texts: &[&str] = if is_ipv6 {
        &["::", "::1", "ff02::1", "ff02::2", "ff0e::1", "2001:db8::1", "::ffff:10.0.0.2"]
    } else {
        &[
            "0.0.0.0",
            "255.255.255.255",
            "10.0.0.255",
            "10.0.0.0",
            "224.0.0.1",
            "239.1.2.3",
            "240.0.0.1",
            "127.0.0.1",
            "10.0.0.1",
        ]
    };
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn destinations(is_ipv6: bool) -> Vec<IpAddr> {
    let texts: &[&str] = if is_ipv6 {
        &["::", "::1", "ff02::1", "ff02::1:ff00:1", "ff0e::1"]
    } else {
        &["0.0.0.0", "255.255.255.255", "10.0.0.255", "10.0.0.0", "224.0.0.1", "127.0.0.1"]
    };
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn no_segment_of_an_impossible_host_is_seen_by_tcp_in_any_state() {
    for is_ipv6 in [false, true] {
        for state in STATES {
            let (mut host, talk) = in_state(state, is_ipv6);
            let sockets = host.engine.tcp_sockets(host.now, 10);
            match state {
                SocketState::Closed => assert!(sockets.is_empty()),
                _ => assert!(sockets.iter().any(|it| it.state == state), "{state}: {sockets:?}"),
            }
            host.events();
            let seen = host.counters().tcp_segments_received;
            let wrong_source = sources(is_ipv6).into_iter().map(|source| (source, talk.ours));
            let wrong_destination =
                destinations(is_ipv6).into_iter().map(|destination| (talk.theirs, destination));
            let right = [(talk.theirs, talk.ours)];
            let pairs: Vec<_> = wrong_source.chain(wrong_destination).chain(right).collect();
            for (source, destination) in pairs {
                for (flags, data) in SEGMENTS {
                    let mut frame = talk.frame(source, destination, flags, data);
                    for to in [H_MAC, MacAddress::BROADCAST, MacAddress([1, 0, 0x5e, 0, 0, 1])] {
                        let is_right = (source, destination) == (talk.theirs, talk.ours);
                        if is_right && to == H_MAC {
                            continue;
                        }
                        frame[..6].copy_from_slice(&to.0);
                        host.receive(&frame);
                        let what = format!("{state}: {source} to {destination}, {flags:?}, {to}");
                        assert!(host.is_silent(), "{what}");
                        assert_eq!(host.events(), [], "{what}");
                        assert_eq!(host.counters().tcp_segments_received, seen, "{what}");
                        assert_eq!(host.engine.tcp_sockets(host.now, 10), sockets, "{what}");
                    }
                }
            }
            // From the right host to the right one, the same is answered.
            let flags = if state == SocketState::SynSent { SYN | ACK } else { SYN };
            host.receive(&talk.frame(talk.theirs, talk.ours, flags, b""));
            assert_eq!(host.counters().tcp_segments_received, seen + 1);
            assert_eq!(host.sent().len(), 1, "{state}");
        }
    }
}
