//! Two whole stacks on a bad link: ARP, IPv4, TCP and UDP together, over frames.

use super::*;
use crate::error::TcpError;
use crate::segment::Cutter;
use crate::simulation::{Dice, End, Faults, Pair};
use crate::socket::{ListenerId, TcpId, TcpStatus};
use std::collections::VecDeque;

const PORT: u16 = 80;

/// A host on the link, and its program: it sends `to_send` bytes and the end, and receives what
/// comes.
pub(super) struct Node {
    pub(super) engine: Engine,
    pub(super) mtu: usize,
    pub(super) listener: Option<ListenerId>,
    pub(super) connection: Option<TcpId>,
    pub(super) to_send: usize,
    pub(super) sent: usize,
    pub(super) is_shut: bool,
    pub(super) received: Vec<u8>,
    pub(super) saw_end: bool,
    pub(super) error: Option<TcpError>,
    /// Flips a bit in this many of a thousand frames.
    pub(super) corruption: u64,
    pub(super) dice: Dice,
    /// A router before this host passes no larger IP packet, and says so.
    pub(super) narrow: Option<usize>,
    /// What the router says.
    pub(super) reports: Vec<Vec<u8>>,
    pub(super) largest_seen: usize,
    /// Frames that the device has cut and not sent yet.
    pub(super) cut: VecDeque<Vec<u8>>,
}

/// The bytes of a stream.
fn byte(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

impl Node {
    pub(super) fn new(config: Config, to_send: usize) -> Node {
        let mtu = config.mtu;
        let engine = Engine::new(config, Instant::ZERO).unwrap();
        Node {
            engine,
            mtu,
            listener: None,
            connection: None,
            to_send,
            sent: 0,
            is_shut: false,
            received: Vec::new(),
            saw_end: false,
            error: None,
            corruption: 0,
            dice: Dice(1),
            narrow: None,
            reports: Vec::new(),
            largest_seen: 0,
            cut: VecDeque::new(),
        }
    }

    fn run(&mut self, now: Instant) {
        while self.engine.poll_event().is_some() {}
        if let Some(listener) = self.listener
            && let Some(accepted) = self.engine.tcp_accept(now, listener)
        {
            self.connection = Some(accepted.connection);
        }
        let Some(id) = self.connection else { return };
        match self.engine.tcp_status(id) {
            TcpStatus::Connecting => return,
            TcpStatus::Failed(error) => self.error = Some(error),
            TcpStatus::Open { .. } | TcpStatus::Closed | TcpStatus::Released => {}
        }
        let mut buffer = [0; 4000];
        while !self.saw_end
            && let Ok(Some(count)) = self.engine.tcp_read(now, id, &mut buffer)
        {
            self.received.extend(&buffer[..count]);
            self.saw_end = count == 0;
        }
        while self.sent < self.to_send {
            let end = self.to_send.min(self.sent + 3000);
            let data: Vec<u8> = (self.sent..end).map(byte).collect();
            match self.engine.tcp_write(now, id, &data) {
                Ok(Some(count)) => self.sent += count,
                Ok(None) | Err(_) => return,
            }
        }
        if !self.is_shut {
            self.is_shut = self.engine.tcp_shutdown(now, id).is_ok();
        }
    }

    pub(super) fn has_all(&self, len: usize) -> bool {
        self.saw_end
            && self.received.len() == len
            && self.received.iter().enumerate().all(|(at, value)| *value == byte(at))
    }
}

impl End for Node {
    type Packet = Vec<u8>;

    fn receive(&mut self, now: Instant, mut frame: Vec<u8>) {
        if self.dice.below(1000) < self.corruption {
            let bit = self.dice.below(frame.len() as u64 * 8) as usize;
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        if let Some(narrow) = self.narrow.filter(|narrow| frame.len() > 14 + narrow) {
            let word = (narrow as u32).to_be_bytes();
            let is_ipv6 = frame[14] >> 4 == 6;
            let report = if is_ipv6 {
                ipv6::too_big_for(&frame[14..], word)
            } else {
                // RFC 1191 §4: the header and eight bytes of what did not fit.
                let message =
                    icmpv4::to_bytes(icmpv4::DESTINATION_UNREACHABLE, 4, word, &frame[14..42]);
                ip(GATEWAY, H, PROTOCOL_ICMP, &message)
            };
            self.reports.push(report);
            return;
        }
        self.largest_seen = self.largest_seen.max(frame.len() - 14);
        self.engine.handle_frame(now, &frame, FrameChecksum::Unverified);
        self.run(now);
    }

    fn transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(report) = self.reports.pop() {
            return Some(report);
        }
        if let Some(frame) = self.cut.pop_front() {
            return Some(frame);
        }
        let mut buffer = vec![0; 65_549];
        let transmit = self.engine.poll_transmit(now, &mut buffer)?;
        buffer.truncate(transmit.len);
        if let Some(mss) = transmit.mss {
            assert!(transmit.partial_checksum.is_some());
            let mut cutter = Cutter::new(&buffer, mss).unwrap();
            let mut frame = vec![0; 14 + self.mtu];
            while let Some(cut) = cutter.write_next(&buffer, &mut frame, false) {
                self.cut.push_back(frame[..cut.len].to_vec());
            }
            assert!(self.cut.len() > 1);
            return self.cut.pop_front();
        }
        assert!(transmit.len <= 14 + self.mtu);
        if let Some(PartialChecksum { start, offset }) = transmit.partial_checksum {
            let (start, at) = (usize::from(start), usize::from(start + offset));
            let sum = checksum::checksum(&buffer[start..]);
            buffer[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        Some(buffer)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.engine.handle_timeout(now);
        self.run(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.engine.poll_timeout()
    }
}

fn peer_config() -> Config {
    let address = AddressConfig::Static { address: P, prefix_len: 24, gateway: None, dns: vec![] };
    Config { mac: P_MAC, address, secret: [9; 32], ..config() }
}

/// H connects to P over such a link.
fn pair(faults: Faults, configs: [Config; 2], to_send: [usize; 2], seed: u64) -> Pair<Node> {
    let [host, peer] = configs;
    let ends = [Node::new(host, to_send[0]), Node::new(peer, to_send[1])];
    let mut pair = Pair::new(ends, faults, seed);
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    pair.ends[1].listener = Some(pair.ends[1].engine.tcp_listen(any, 8).unwrap());
    let now = pair.now;
    let remote = SocketAddr::from((P, PORT));
    pair.ends[0].connection = Some(pair.ends[0].engine.tcp_connect(now, remote).unwrap());
    pair
}

#[test]
fn a_megabyte_each_way_arrives_whole_over_a_good_link() {
    for (offload, large) in [(false, 65_549), (true, 0), (true, 5000), (true, 65_549)] {
        let host = Config {
            transmit_checksum_offload: offload,
            segmented_frame_bytes_max: large,
            ..config()
        };
        let faults = Faults::none(ms(10));
        let mut pair = pair(faults, [host, peer_config()], [1_000_000, 1_000_000], 1);
        pair.run(secs(10));
        assert!(pair.ends[0].has_all(1_000_000) && pair.ends[1].has_all(1_000_000));
        let sent = pair.ends[0].engine.counters().tcp_large_frames_sent;
        assert_eq!(sent > 0, offload && large > 0);
        for end in &pair.ends {
            let counters = end.engine.counters();
            let dropped: Vec<_> = counters
                .iter()
                .filter(|(name, value)| name.starts_with("dropped_") && *value > 0)
                // Each announces its address to whoever knows it.
                .filter(|(name, _)| *name != "dropped_arp_unsolicited")
                .collect();
            assert!(dropped.is_empty(), "{dropped:?}");
        }
    }
}

#[test]
fn a_link_that_loses_repeats_reorders_and_corrupts_changes_no_byte() {
    for seed in 0..5 {
        let faults =
            Faults { delay: ms(20), loss: 3, duplication: 2, reordering: 10, jitter: ms(30) };
        let host = Config {
            transmit_checksum_offload: true,
            segmented_frame_bytes_max: if seed % 2 == 0 { 65_549 } else { 0 },
            ..config()
        };
        let mut pair = pair(faults, [host, peer_config()], [200_000, 100_000], seed);
        for end in &mut pair.ends {
            end.corruption = 20;
        }
        pair.run(secs(600));
        let [host, peer] = &pair.ends;
        assert!(host.has_all(100_000), "seed {seed}: {} {:?}", host.received.len(), host.error);
        assert!(peer.has_all(200_000), "seed {seed}: {} {:?}", peer.received.len(), peer.error);
        let corrupt = peer.engine.counters();
        assert!(corrupt.dropped_tcp_checksum + corrupt.dropped_ipv4_checksum > 0);
    }
}

#[test]
fn a_connection_to_ourselves_carries_data_without_a_frame() {
    for address in [H, Ipv4Addr::LOCALHOST] {
        let mut node = Node::new(config(), 500_000);
        let mut now = Instant::from_millis(10_000);
        node.engine.handle_timeout(now);
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        let listener = node.engine.tcp_listen(any, 8).unwrap();
        node.connection = node.engine.tcp_connect(now, SocketAddr::from((address, PORT))).ok();
        let mut other = None;
        let (mut echoed, mut buffer) = (0, [0; 5000]);
        for _ in 0..20_000 {
            while let Some(frame) = node.transmit(now) {
                assert!(sent_arp(&frame).is_some(), "nothing but the announcement leaves");
            }
            let Some(deadline) = node.engine.poll_timeout() else { break };
            now = now.max(deadline);
            node.engine.handle_timeout(now);
            node.run(now);
            let accepted = node.engine.tcp_accept(now, listener);
            other = other.or(accepted.map(|accepted| accepted.connection));
            if let Some(id) = other {
                while let Ok(Some(count @ 1..)) = node.engine.tcp_read(now, id, &mut buffer) {
                    assert!(
                        buffer[..count].iter().enumerate().all(|(i, b)| *b == byte(echoed + i))
                    );
                    echoed += count;
                }
            }
            if echoed == 500_000 {
                break;
            }
        }
        assert_eq!(echoed, 500_000, "to {address}");
        assert!(now < Instant::from_millis(12_000), "without waiting for timers: {now:?}");
    }
}

#[test]
fn a_neighbour_that_does_not_answer_ends_the_attempt_to_connect() {
    let mut host = Host::new();
    let id = host.engine.tcp_connect(host.now, SocketAddr::from((P, PORT))).unwrap();
    let frames = host.advance(secs(300));
    assert!(frames.iter().all(|(_, frame)| sent_packet(frame).is_none()));
    assert!(matches!(host.engine.tcp_status(id), TcpStatus::Failed(_)));
    assert!(host.events().contains(&Event::TcpClosed(id)));
}

#[test]
fn queues_filled_to_the_brim_leave_room_for_arp_and_a_handshake() {
    let mut pair = pair(Faults::none(ms(1)), [config(), peer_config()], [10, 10], 1);
    let now = pair.now;
    let engine = &mut pair.ends[1].engine;
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let sockets: Vec<_> = (1000..1010).map(|port| engine.udp_bind(any(port)).unwrap()).collect();
    let fill = |engine: &mut Engine| {
        for socket in &sockets {
            for last in 50..250 {
                let to = SocketAddr::from((Ipv4Addr::new(10, 0, 0, last), 9));
                while engine.udp_send(now, *socket, to, &[0; 60_000]).unwrap() {}
            }
        }
        for number in 0..500u16 {
            let stranger = Ipv4Addr::new(10, 0, 0, 100 + (number % 100) as u8);
            let mut fragment = header(stranger, P, PROTOCOL_UDP);
            fragment.identification = number;
            let mut packet = fragment.to_fragment_bytes(1400, 2800, true).to_vec();
            packet.extend([0; 1400]);
            let frame = eth(P_MAC, MacAddress([2, 1, 1, 1, 1, 1]), ethernet::TYPE_IPV4, &packet);
            engine.handle_frame(now, &frame, FrameChecksum::Unverified);
        }
    };
    fill(engine);
    pair.run(secs(5));
    assert!(pair.ends[0].has_all(10) && pair.ends[1].has_all(10));
}

#[test]
fn a_device_that_refuses_now_and_then_changes_nothing_but_the_time() {
    // Each end may send one frame per millisecond: what is not taken stays where it was.
    let mut pair = pair(Faults::none(ms(1)), [config(), peer_config()], [50_000, 0], 1);
    let mut in_flight: Vec<(usize, Vec<u8>)> = Vec::new();
    for millisecond in 1..5000 {
        let now = Instant::from_millis(millisecond);
        for (to, frame) in core::mem::take(&mut in_flight) {
            pair.ends[to].receive(now, frame);
        }
        for (which, end) in pair.ends.iter_mut().enumerate() {
            end.handle_timeout(now);
            in_flight.extend(end.transmit(now).map(|frame| (1 - which, frame)));
        }
    }
    assert!(pair.ends[1].has_all(50_000), "{}", pair.ends[1].received.len());
}

#[test]
fn a_connection_ends_with_an_error_when_the_address_is_lost() {
    use crate::dhcp::Change;
    let mut pair = pair(Faults::none(ms(1)), [config(), peer_config()], [0, 0], 1);
    pair.ends[0].is_shut = true;
    pair.ends[1].is_shut = true;
    pair.run(ms(100));
    let (now, node) = (pair.now, &mut pair.ends[0]);
    let id = node.connection.unwrap();
    assert!(matches!(node.engine.tcp_status(id), TcpStatus::Open { .. }));
    node.engine.apply(now, Some(Change::Lost));
    assert_eq!(node.engine.tcp_status(id), TcpStatus::Failed(TcpError::AddressLost));
    let events: Vec<_> = core::iter::from_fn(|| node.engine.poll_event()).collect();
    assert!(events.contains(&Event::TcpClosed(id)));
    assert!(events.contains(&Event::AddressChanged));
    let remote = SocketAddr::from((P, PORT));
    assert!(node.engine.tcp_connect(now, remote).is_err());
}

#[test]
fn ten_thousand_idle_connections_change_nothing_about_the_eleventh_thousand() {
    // Instructions are counted elsewhere (examples/idle_connections.rs); this shows that it works.
    let mut configs = [config(), peer_config()];
    for config in &mut configs {
        config.limits.tcp_accept_backlog = 20_000;
    }
    let mut pair = pair(Faults::none(ms(1)), configs, [1000, 1000], 1);
    pair.run(secs(1));
    let now = pair.now;
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 81));
    pair.ends[1].engine.tcp_listen(any, 20_000).unwrap();
    let remote = SocketAddr::from((P, 81));
    for _ in 0..10_000 {
        pair.ends[0].engine.tcp_connect(now, remote).unwrap();
    }
    pair.run(secs(30));
    assert!(pair.ends[0].engine.counters().tcp_connections >= 10_000);
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 82));
    pair.ends[1].listener = Some(pair.ends[1].engine.tcp_listen(any, 8).unwrap());
    let now = pair.now;
    for node in &mut pair.ends {
        (node.connection, node.sent, node.is_shut) = (None, 0, false);
        (node.received, node.saw_end) = (Vec::new(), false);
    }
    let remote = SocketAddr::from((P, 82));
    pair.ends[0].connection = pair.ends[0].engine.tcp_connect(now, remote).ok();
    pair.run(secs(1));
    assert!(pair.ends[0].has_all(1000) && pair.ends[1].has_all(1000));
}

#[test]
fn a_narrow_link_behind_a_router_is_found_and_kept_to() {
    let mut pair = pair(Faults::none(ms(10)), [config(), peer_config()], [300_000, 0], 1);
    pair.ends[1].narrow = Some(1300);
    pair.run(secs(5));
    assert!(pair.ends[1].has_all(300_000), "{}", pair.ends[1].received.len());
    assert_eq!(pair.ends[1].largest_seen, 1300);
    let counters = pair.ends[0].engine.counters();
    assert!((1..=12).contains(&counters.icmp_errors_received), "{counters:?}");
    assert_eq!(counters.tcp_retransmit_timeouts, 0);
}

#[test]
fn after_idle_months_a_transfer_goes_at_full_speed() {
    for days in [30, 60, 400] {
        let mut pair = pair(Faults::none(ms(10)), [config(), peer_config()], [0, 0], 1);
        pair.ends[0].is_shut = true;
        pair.ends[1].is_shut = true;
        pair.run(secs(1));
        let frames = pair.sent();
        pair.run(secs(days * 86_400));
        assert!(pair.sent() <= frames + 10, "an idle connection is silent");
        for end in &mut pair.ends {
            (end.to_send, end.is_shut) = (300_000, false);
        }
        let now = pair.now;
        pair.ends[0].run(now);
        pair.ends[1].run(now);
        pair.run(secs(3));
        assert!(pair.ends.iter().all(|end| end.has_all(300_000)), "after {days} days");
    }
}

/// A neighbour is forgotten in the middle of a transfer: what waits for it is still for the device
/// to cut, and goes out as such.
#[test]
fn a_large_segment_that_waits_for_a_neighbour_is_cut_afterwards() {
    let host =
        Config { transmit_checksum_offload: true, segmented_frame_bytes_max: 65_549, ..config() };
    let mut pair = pair(Faults::none(ms(1)), [host, peer_config()], [100_000, 0], 1);
    while pair.ends[0].sent == 0 {
        assert!(pair.step(Instant::from_millis(1000)));
    }
    let before = pair.ends[0].engine.counters().tcp_large_frames_sent;
    pair.ends[0].engine.neighbours.clear();
    pair.run(secs(10));
    assert!(pair.ends[1].has_all(100_000), "{} bytes", pair.ends[1].received.len());
    let counters = pair.ends[0].engine.counters();
    assert!(counters.tcp_large_frames_sent > before);
    assert_eq!(counters.fragments_sent, 0, "TCP is never sent in fragments");
}
