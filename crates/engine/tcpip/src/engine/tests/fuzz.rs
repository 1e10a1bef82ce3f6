//! Any bytes at all, and valid frames with bytes changed, in whatever state the stack is: nothing
//! panics, nothing loops, nothing grows past its limit, and the stack still works afterwards.

use super::*;
use crate::wire::ethernet::HEADER_LEN;
use proptest::prelude::*;

const PORT: u16 = 80;

/// H with everything that it can have: sockets of all kinds, a connection to P in whatever state the
/// steps brought it to.
struct World {
    host: Host,
    peer: Host,
    connections: Vec<crate::TcpId>,
    listener: crate::ListenerId,
    socket: UdpId,
    /// P's side.
    peer_connections: Vec<crate::TcpId>,
    peer_listener: crate::ListenerId,
    /// Frames that were seen on the wire; the stuff of mutations.
    seen: Vec<Vec<u8>>,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// H receives any bytes, after a header that brings them to `protocol`.
    Arbitrary {
        layer: u8,
        bytes: Vec<u8>,
    },
    /// H receives a frame that was seen before, with some bytes changed, cut or extended.
    Mutated {
        which: prop::sample::Index,
        changes: Vec<(prop::sample::Index, u8)>,
        cut: u8,
    },
    /// The checksums of the frame are put right first, so that it gets further.
    MutatedButSummed {
        which: prop::sample::Index,
        changes: Vec<(prop::sample::Index, u8)>,
    },
    /// H receives an ICMP error about a frame that was seen before.
    Report {
        which: prop::sample::Index,
        kind: u8,
        code: u8,
        mtu: u16,
    },
    /// Frames pass between H and P, whose program sends back what it gets.
    Exchange,
    Connect,
    /// P connects to H.
    PeerConnects,
    /// P's program ends what it has.
    PeerEnds {
        in_order: bool,
    },
    Write(u16),
    Read(u16),
    Shutdown,
    Release,
    Abort,
    Datagram(u16),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let changes = || prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    prop_oneof![
        3 => (0u8..6, prop::collection::vec(any::<u8>(), 0..80))
            .prop_map(|(layer, bytes)| Step::Arbitrary { layer, bytes }),
        3 => (any::<prop::sample::Index>(), changes(), any::<u8>())
            .prop_map(|(which, changes, cut)| Step::Mutated { which, changes, cut }),
        6 => (any::<prop::sample::Index>(), changes())
            .prop_map(|(which, changes)| Step::MutatedButSummed { which, changes }),
        1 => (any::<prop::sample::Index>(), prop_oneof![Just(3u8), Just(11), Just(12)], 0u8..16, any::<u16>())
            .prop_map(|(which, kind, code, mtu)| Step::Report { which, kind, code, mtu }),
        6 => Just(Step::Exchange),
        1 => Just(Step::Connect),
        1 => Just(Step::PeerConnects),
        1 => any::<bool>().prop_map(|in_order| Step::PeerEnds { in_order }),
        2 => any::<u16>().prop_map(Step::Write),
        2 => any::<u16>().prop_map(Step::Read),
        1 => Just(Step::Shutdown),
        1 => Just(Step::Release),
        1 => Just(Step::Abort),
        1 => (0u16..4000).prop_map(Step::Datagram),
        2 => (0u32..100_000).prop_map(Step::Wait),
    ]
}

/// A second host, P, on H's link.
fn peer_config() -> Config {
    let address =
        AddressConfig::Static { address: P, prefix_len: 24, gateway: Some(GATEWAY), dns: vec![] };
    Config { mac: P_MAC, address, secret: [9; 32], ..config() }
}

impl World {
    fn new() -> World {
        let mut config = config();
        config.limits.tcp_connections = 8;
        config.limits.tcp_half_open = 4;
        config.limits.tcp_time_wait = 4;
        config.limits.neighbours = 8;
        config.limits.neighbours_unresolved = 4;
        config.limits.reassembly_bytes = 80_000;
        config.limits.tcp_total_bytes = 100_000;
        let mut host = Host::with(config);
        let mut peer = Host::with(peer_config());
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        let listener = host.engine.tcp_listen(any, 4).unwrap();
        let peer_listener = peer.engine.tcp_listen(any, 4).unwrap();
        let socket = host.bind(7);
        let mut seen = one_of_each(P, H).to_vec();
        seen.push(arp_request((P_MAC, P), H));
        let (connections, peer_connections) = (Vec::new(), Vec::new());
        let mut world = World {
            host,
            peer,
            connections,
            listener,
            socket,
            peer_connections,
            peer_listener,
            seen,
        };
        world.exchange();
        world
    }

    fn saw(&mut self, frame: Vec<u8>) {
        if self.seen.len() > 200 {
            self.seen.remove(4);
        }
        self.seen.push(frame);
    }

    /// P's program: takes who comes, and sends back what it gets.
    fn run_peer(&mut self) {
        let (now, engine) = (self.peer.now, &mut self.peer.engine);
        while let Some(accepted) = engine.tcp_accept(now, self.peer_listener) {
            self.peer_connections.push(accepted.connection);
        }
        let mut buffer = [0; 3000];
        for id in &self.peer_connections {
            while let Ok(Some(len @ 1..)) = engine.tcp_read(now, *id, &mut buffer) {
                let _ = engine.tcp_write(now, *id, &buffer[..len]);
            }
        }
        while engine.poll_event().is_some() {}
    }

    fn exchange(&mut self) {
        for _ in 0..20 {
            self.run_peer();
            let (from_host, from_peer) = (self.host.sent(), self.peer.sent());
            if from_host.is_empty() && from_peer.is_empty() {
                return;
            }
            for frame in from_host {
                self.peer.receive(&frame);
                // As if P had sent it, so that mutations of it are for H.
                self.saw(turned_round(&frame));
            }
            for frame in from_peer {
                self.host.receive(&frame);
                self.saw(frame);
            }
        }
    }

    fn take(&mut self, step: Step) {
        let now = self.host.now;
        let last = self.connections.last().copied();
        match step {
            Step::Arbitrary { layer, bytes } => self.host.receive(&wrapped(layer, &bytes)),
            Step::Mutated { which, changes, cut } => {
                let mut frame = which.get(&self.seen).clone();
                mutate(&mut frame, &changes, 0);
                match cut {
                    0..40 => frame.truncate(usize::from(cut) * 2),
                    40..60 => frame.extend(vec![cut; usize::from(cut)]),
                    _ => {}
                }
                self.host.receive(&frame);
            }
            Step::MutatedButSummed { which, changes } => {
                let mut frame = which.get(&self.seen).clone();
                mutate(&mut frame, &changes, HEADER_LEN);
                put_sums_right(&mut frame);
                self.host.receive(&frame);
            }
            Step::Report { which, kind, code, mtu } => {
                // What H sent was turned round when it was seen; so it is turned back.
                let quote = turned_round(&self.seen[which.index(self.seen.len())]);
                let quote = quote.get(HEADER_LEN..(HEADER_LEN + 60).min(quote.len()));
                let [high, low] = mtu.to_be_bytes();
                let word = [0, 0, high, low];
                let message = icmpv4::to_bytes(kind, code, word, quote.unwrap_or_default());
                self.host.receive(&ip(GATEWAY, H, PROTOCOL_ICMP, &message));
            }
            Step::PeerConnects => {
                let remote = SocketAddr::from((H, PORT));
                let connection = self.peer.engine.tcp_connect(self.peer.now, remote);
                self.peer_connections.extend(connection);
                self.exchange();
            }
            Step::PeerEnds { in_order } => {
                if let Some(id) = self.peer_connections.pop() {
                    match in_order {
                        true => self.peer.engine.tcp_release(self.peer.now, id),
                        false => self.peer.engine.tcp_abort(self.peer.now, id),
                    }
                }
            }
            Step::Exchange => self.exchange(),
            Step::Connect => {
                let remote = SocketAddr::from((P, PORT));
                self.connections.extend(self.host.engine.tcp_connect(now, remote));
            }
            Step::Write(len) => {
                if let Some(id) = last {
                    let _ = self.host.engine.tcp_write(now, id, &vec![7; usize::from(len)]);
                }
            }
            Step::Read(len) => {
                if let Some(id) = last {
                    let _ = self.host.engine.tcp_read(now, id, &mut vec![7; usize::from(len)]);
                }
            }
            Step::Shutdown => {
                if let Some(id) = last {
                    let _ = self.host.engine.tcp_shutdown(now, id);
                }
            }
            Step::Release => {
                if let Some(id) = self.connections.pop() {
                    self.host.engine.tcp_release(now, id);
                }
            }
            Step::Abort => {
                if let Some(id) = self.connections.pop() {
                    self.host.engine.tcp_abort(now, id);
                }
            }
            Step::Datagram(len) => {
                let to = SocketAddr::from((P, 7));
                let payload = vec![3; usize::from(len)];
                let _ = self.host.engine.udp_send(now, self.socket, to, &payload);
            }
            Step::Wait(milliseconds) => {
                for (_, frame) in self.host.advance(ms(milliseconds.into())) {
                    self.saw(turned_round(&frame));
                    self.peer.receive(&frame);
                }
                for (_, frame) in self.peer.advance(ms(milliseconds.into())) {
                    self.saw(frame.clone());
                    self.host.receive(&frame);
                }
            }
        }
        while let Some(accepted) = self.host.engine.tcp_accept(now, self.listener) {
            self.connections.insert(0, accepted.connection);
        }
        while self.connections.len() > 6 {
            let id = self.connections.remove(0);
            self.host.engine.tcp_release(now, id);
        }
        while self.host.datagram(self.socket).is_some() {}
        assert!(self.host.events().len() < 100);
        self.host.check();
    }
}

/// `frame` as if its destination had sent it to its source.
fn turned_round(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame.len() >= 38 && frame[12..14] == [8, 0] {
        frame[..6].copy_from_slice(&H_MAC.0);
        frame[6..12].copy_from_slice(&P_MAC.0);
        let (source, destination) = frame[26..34].split_at(4);
        let addresses = [destination, source].concat();
        frame[26..34].copy_from_slice(&addresses);
        let ports = [&frame[36..38], &frame[34..36]].concat();
        frame[34..38].copy_from_slice(&ports);
    }
    frame
}

/// `bytes` behind valid headers of so many layers.
fn wrapped(layer: u8, bytes: &[u8]) -> Vec<u8> {
    match layer {
        0 => bytes.to_vec(),
        1 => eth(H_MAC, P_MAC, ethernet::TYPE_ARP, bytes),
        2 => eth(H_MAC, P_MAC, ethernet::TYPE_IPV4, bytes),
        3 => ip(P, H, PROTOCOL_ICMP, bytes),
        4 => ip(P, H, PROTOCOL_UDP, bytes),
        _ => ip(P, H, PROTOCOL_TCP, bytes),
    }
}

fn mutate(frame: &mut [u8], changes: &[(prop::sample::Index, u8)], from: usize) {
    for (at, value) in changes {
        if frame.len() > from {
            let at = from + at.index(frame.len() - from);
            frame[at] = *value;
        }
    }
}

/// Fills in the checksums of an IPv4 frame, as far as its lengths make sense.
fn put_sums_right(frame: &mut [u8]) {
    let Some(packet) = frame.get_mut(HEADER_LEN..).filter(|packet| packet.len() >= 20) else {
        return;
    };
    let header_len = (usize::from(packet[0] & 15) * 4).clamp(20, packet.len());
    packet[10..12].copy_from_slice(&[0, 0]);
    let sum = checksum::checksum(&packet[..header_len]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let total_len = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let protocol = packet[9];
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
    let (source, destination) = (address(12), address(16));
    let end = total_len.clamp(header_len, packet.len());
    let transport = &mut packet[header_len..end];
    let (at, pseudo) = match protocol {
        PROTOCOL_ICMP => (2, checksum::Sum::default()),
        PROTOCOL_UDP => {
            (6, checksum::Sum::of_pseudo_header(source, destination, 17, transport.len()))
        }
        _ => (16, checksum::Sum::of_pseudo_header(source, destination, protocol, transport.len())),
    };
    if let Some(field) = transport.get_mut(at..at + 2) {
        field.copy_from_slice(&[0, 0]);
        let sum = pseudo.then(transport).finish();
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_frame_in_any_state_does_harm(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        // It still serves: whatever came, a stranger's ping is answered once all has calmed down.
        let host = &mut world.host;
        host.advance(secs(1000));
        let stranger = Ipv4Addr::new(10, 0, 0, 200);
        host.introduce(stranger, MacAddress([2, 0, 0, 0, 0, 200]));
        host.receive(&ping(stranger, H, b"still there?"));
        let is_reply = |packet: &SentPacket| {
            packet.destination == stranger && packet.payload[0] == icmpv4::ECHO_REPLY
        };
        let frames = host.sent();
        let has_replied = frames.iter().filter_map(|frame| sent_packet(frame)).any(|p| is_reply(&p));
        prop_assert!(has_replied);
    }
}
