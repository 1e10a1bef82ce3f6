//! The whole of TCP/IP: any frame, in any state.
//!
//! The host under test, H, is 10.0.0.1/24, and has addresses of IPv6 if the script says so; everybody
//! else on its link is the adversary, who sees what H sends, so that most of what it says is nearly
//! right: sums are right, sequence numbers are near those that H expects, ICMP errors quote what H
//! has sent.

mod ipv6;

pub use ipv6::seeds;

use crate::Input;
use crate::frames::{self, Ip, Ipv4, Ipv6, Mac, Segment, flags};
use core::time::Duration;
use fata_tcpip::{
    AddressConfig, Config, Counters, Engine, FrameChecksum, Instant, Ipv6Config, Keepalive, Limits,
    ListenerId, MacAddress, TcpId, UdpId, fuzzing, segment,
};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU16;

const H: Ipv4 = [10, 0, 0, 1];
const H_MAC: Mac = [2, 0, 0, 0, 0, 1];
const BROADCAST: Mac = [0xff; 6];
const PORTS: [u16; 4] = [80, 7, 68, 5000];

/// Others on the link, and one behind the router, which is the last of the neighbours.
const OTHERS: [Ipv4; 5] =
    [[10, 0, 0, 2], [10, 0, 0, 3], [10, 0, 0, 4], [10, 0, 0, 254], [192, 0, 2, 7]];

fn mac_of(other: usize) -> Mac {
    [2, 0, 0, 0, 1, other.min(3) as u8]
}

/// Ceilings so low that a short script reaches each.
fn limits() -> Limits {
    Limits {
        tcp_connections: 6,
        tcp_half_open: 2,
        tcp_time_wait: 2,
        tcp_listeners: 2,
        tcp_accept_backlog: 2,
        tcp_receive_bytes: 4096,
        tcp_send_bytes: 4096,
        tcp_total_bytes: 12_000,
        tcp_out_of_order_ranges: 4,
        udp_sockets: 3,
        udp_receive_bytes: 4096,
        udp_send_bytes: 4096,
        reassembly_bytes: 20_000,
        reassembly_datagrams: 4,
        reassembly_datagrams_per_source: 2,
        neighbours: 5,
        neighbours_unresolved: 2,
        neighbour_parked_bytes: 6000,
        reply_queue_bytes: 6000,
        loopback_bytes: 10_000,
        ipv6_routers: 2,
        ipv6_prefixes: 2,
        ipv6_addresses: 9,
        path_mtus: 2,
        ..Limits::default()
    }
}

/// Frames that one call may lead to: all that the limits let wait, in the smallest of frames.
const FRAMES_MAX: usize = 5000;

/// Deadlines in an hour: keepalives every second, and retransmissions.
const DEADLINES_MAX: usize = 50_000;

/// What the adversary knows of a connection, from what H has sent on it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    other: usize,
    /// H's address, if it is one of IPv6.
    local: Option<Ipv6>,
    /// The adversary's port and H's.
    ports: (u16, u16),
    /// What H expects next: H's last acknowledgment number.
    next: u32,
    /// The end of what H has sent.
    end: u32,
    /// H's clock, if it sends timestamps.
    clock: Option<u32>,
}

struct World {
    engine: Engine,
    now: Instant,
    limits: Limits,
    mtu: usize,
    /// Length of the longest frame that H leaves to be cut, or 0.
    large: usize,
    listeners: Vec<ListenerId>,
    sockets: Vec<UdpId>,
    connections: Vec<TcpId>,
    /// Frames that H sent lately.
    sent: VecDeque<Vec<u8>>,
    seen: VecDeque<Seen>,
    /// Transaction of H's last DHCP message.
    transaction: [u8; 4],
    /// The device takes no frames.
    is_full: bool,
    /// Neighbours answer ARP and Neighbour Discovery.
    answers: bool,
    /// H's addresses of IPv6, as far as it asked whether somebody has them; none if it speaks IPv4
    /// alone.
    own: Vec<Ipv6>,
    buffer: Vec<u8>,
}

/// Kinds of steps: over IPv4 and of the program, and with those over IPv6.
const KINDS: usize = 24;
const KINDS_6: usize = KINDS + ipv6::KINDS;

/// H with a static address.
pub fn run(input: &mut Input<'_>) {
    play(input);
}

/// Returns what H has counted.
fn play(input: &mut Input<'_>) -> Counters {
    let which = input.u8();
    let gateway = (which & 1 != 0).then(|| OTHERS[3].into());
    let address = AddressConfig::Static { address: H.into(), prefix_len: 24, gateway, dns: vec![] };
    let (ipv6, kinds) = match which & 2 {
        0 => (Ipv6Config::off(), KINDS),
        _ => (ipv6::config(which), KINDS_6),
    };
    let mut world = World::new(input, address, ipv6);
    world.greet();
    while !input.is_empty() {
        world.step(input, kinds);
    }
    world.end(true)
}

/// H asks for its address, and the adversary is its DHCP server.
pub fn dhcp(input: &mut Input<'_>) {
    let hostname = input.flag().then(|| "fata".to_owned());
    let mut world = World::new(input, AddressConfig::Dhcp { hostname }, Ipv6Config::off());
    while !input.is_empty() {
        match input.below(4) {
            0 => world.step(input, KINDS),
            1 => world.wait(Duration::from_millis(1 + 10 * u64::from(input.u8()))),
            2 => world.wait(Duration::from_secs(u64::from(input.u16() >> 4))),
            _ => world.dhcp_message(input),
        }
    }
    world.end(false);
}

/// A frame from `other` to H, or to that of its addresses; its sums are right.
fn frame_to(other: usize, local: Option<Ipv6>, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (ethertype, packet) = match local {
        None => (frames::TYPE_IPV4, Ip::new(OTHERS[other], H, protocol).packet(payload)),
        Some(local) => (frames::TYPE_IPV6, ipv6::from(other, local, protocol).packet(payload)),
    };
    let mut frame = frames::ethernet(H_MAC, mac_of(other), ethertype, &packet);
    frames::repair(&mut frame);
    frame
}

impl World {
    fn new(input: &mut Input<'_>, address: AddressConfig, mut ipv6: Ipv6Config) -> World {
        // IPv6 has links of 1,280 bytes and more.
        let mtus = if ipv6.is_enabled { [1500, 1280, 1300, 9000] } else { [1500, 68, 576, 9000] };
        let mtu = mtus[input.below(4)];
        let transmit_checksum_offload = input.flag();
        let large = [0, 5000, 65_549][input.below(3)];
        ipv6.transmit_checksum_offload = transmit_checksum_offload;
        ipv6.segmented_frame_bytes_max = large;
        let limits = limits();
        let config = Config {
            mac: MacAddress(H_MAC),
            mtu,
            address,
            ipv6,
            routes: vec![],
            secret: [7; 32],
            transmit_checksum_offload,
            segmented_frame_bytes_max: large,
            limits: limits.clone(),
        };
        let now = Instant::from_millis(1000);
        let mut engine = Engine::new(config, now).expect("a configuration that can be");
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let listeners = vec![engine.tcp_listen(any(PORTS[0]), 2).expect("the first")];
        let sockets = vec![engine.udp_bind(any(PORTS[1])).expect("the first")];
        let large = if transmit_checksum_offload { large } else { 0 };
        World {
            engine,
            now,
            limits,
            mtu,
            large,
            listeners,
            sockets,
            connections: Vec::new(),
            sent: VecDeque::new(),
            seen: VecDeque::new(),
            transaction: [0; 4],
            is_full: false,
            answers: true,
            own: Vec::new(),
            buffer: vec![0xcc; (14 + mtu).max(large)],
        }
    }

    /// Two neighbours ask for H's hardware address, so that H knows theirs.
    fn greet(&mut self) {
        self.wait(Duration::from_secs(10));
        for (other, address) in OTHERS.into_iter().enumerate().take(2) {
            let packet = frames::arp(1, (mac_of(other), address), ([0; 6], H));
            self.receive(&frames::ethernet(BROADCAST, mac_of(other), frames::TYPE_ARP, &packet));
        }
        self.greet_6();
    }

    fn receive(&mut self, frame: &[u8]) {
        self.receive_as(frame, FrameChecksum::Unverified, None);
    }

    fn receive_as(&mut self, frame: &[u8], checksum: FrameChecksum, mss: Option<NonZeroU16>) {
        self.engine.handle_large_frame(self.now, frame, checksum, mss);
        self.settle();
    }

    /// A frame from `other` with an IP packet, its sums right.
    fn receive_ip(&mut self, other: usize, ip: &Ip<'_>, payload: &[u8]) {
        let packet = ip.packet(payload);
        let mut frame = frames::ethernet(H_MAC, mac_of(other), frames::TYPE_IPV4, &packet);
        frames::repair(&mut frame);
        self.receive(&frame);
    }

    /// After each call: what H has to say is taken, and the invariants hold.
    fn settle(&mut self) {
        fuzzing::check_engine(&self.engine, &self.limits);
        if self.is_full {
            return;
        }
        let mut count = 0;
        let (mut asked, mut asked_6) = (Vec::new(), Vec::new());
        while let Some(transmit) = self.engine.poll_transmit(self.now, &mut self.buffer) {
            count += 1;
            assert!(count < FRAMES_MAX, "H does not stop sending");
            assert!(transmit.mss.is_none() || transmit.len <= self.large);
            let most = if transmit.mss.is_some() { self.large } else { self.mtu };
            let mut frame = self.buffer[..transmit.len].to_vec();
            if transmit.partial_checksum.is_some() {
                segment::finish_checksum(&mut frame).expect("TCP or UDP");
            }
            frames::check(&frame, most);
            assert_eq!(frame[6..12], H_MAC);
            self.look_at(&frame);
            if frame[12..14] == [8, 6] && frame[20..22] == [0, 1] {
                asked.push([frame[38], frame[39], frame[40], frame[41]]);
            }
            asked_6.extend(ipv6::asks_for(&frame));
            self.sent.push_back(frame);
            if self.sent.len() > 24 {
                self.sent.pop_front();
            }
        }
        let mut events = 0;
        while self.engine.poll_event().is_some() {
            events += 1;
            assert!(events < 1000, "events without end");
        }
        fuzzing::check_engine(&self.engine, &self.limits);
        let answered = asked.iter().filter(|_| self.answers);
        let who = |target: &Ipv4| OTHERS[..4].iter().position(|other| other == target);
        let replies: Vec<_> = answered.filter_map(who).collect();
        for other in replies {
            let packet = frames::arp(2, (mac_of(other), OTHERS[other]), (H_MAC, H));
            self.receive(&frames::ethernet(H_MAC, mac_of(other), frames::TYPE_ARP, &packet));
        }
        for (source, target) in asked_6 {
            self.answer_6(source, target);
        }
    }

    /// What the adversary learns from a frame of H's.
    fn look_at(&mut self, frame: &[u8]) {
        let Some(parts) = frames::parts(frame) else { return };
        let transport = &frame[parts.transport..parts.end];
        let half = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| transport[at + byte]));
        if parts.is_fragment {
            return;
        }
        let (other, local) = if parts.is_ipv4 {
            if parts.protocol == frames::UDP && half(2) == 67 {
                self.transaction.copy_from_slice(&transport[12..16]);
            }
            (OTHERS.iter().position(|other| frame[30..34] == *other), None)
        } else {
            self.look_at_6(frame);
            ipv6::ends(frame)
        };
        let Some(other) = other else { return };
        if parts.protocol != frames::TCP {
            return;
        }
        let header_len = usize::from(transport[12] >> 4) * 4;
        let bits = transport[13];
        let len = transport.len() - header_len
            + usize::from(bits & flags::SYN != 0)
            + usize::from(bits & flags::FIN != 0);
        let options = &transport[20..header_len];
        let clock = options.windows(2).position(|pair| pair == [8, 10]).map(|at| word(22 + at));
        let ports = (half(2), half(0));
        let end = word(4).wrapping_add(len as u32);
        let is_same = |seen: &Seen| (seen.other, seen.local, seen.ports) == (other, local, ports);
        match self.seen.iter_mut().find(|seen| is_same(seen)) {
            Some(seen) => {
                (seen.next, seen.end) = (word(8), end);
                seen.clock = clock.or(seen.clock);
            }
            None => {
                self.seen.push_back(Seen { other, local, ports, next: word(8), end, clock });
                if self.seen.len() > 12 {
                    self.seen.pop_front();
                }
            }
        }
    }

    /// Lets time pass, from one deadline of H's to the next.
    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut deadlines = 0;
        self.settle();
        while let Some(deadline) = self.engine.poll_timeout().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.engine.handle_timeout(self.now);
            self.settle();
            deadlines += 1;
            assert!(deadlines < DEADLINES_MAX, "deadlines without end");
        }
        self.now = end;
    }

    fn connection(&self, input: &mut Input<'_>) -> Option<TcpId> {
        let at = input.below(self.connections.len().clamp(1, 256));
        self.connections.get(at).copied()
    }

    fn step(&mut self, input: &mut Input<'_>, kinds: usize) {
        match input.below(kinds) {
            0..6 => self.segment(input),
            6 => self.syn(input),
            7 => self.datagram(input),
            8 => self.echo_or_error(input),
            9 => self.fragment(input),
            10 => self.arp(input),
            11 => self.mutated(input),
            12 => self.anything(input),
            13..15 => self.wait(Duration::from_millis(u64::from(input.u8()) * 4)),
            15 => self.wait(Duration::from_millis(u64::from(input.u16()) * 8)),
            16 => self.device(input),
            17 => self.dhcp_message(input),
            18 => self.udp_call(input),
            19 => self.listener_call(input),
            20..KINDS => self.tcp_call(input),
            kind => self.step_6(input, kind - KINDS),
        }
        self.settle();
        while self.connections.len() > 6 {
            let id = self.connections.remove(0);
            self.engine.tcp_release(self.now, id);
        }
    }

    /// A segment on a connection that H knows, nearly right.
    fn segment(&mut self, input: &mut Input<'_>) {
        if self.seen.is_empty() {
            return self.syn(input);
        }
        let seen = self.seen[input.below(self.seen.len())];
        let menu =
            [flags::ACK, flags::ACK, flags::ACK | flags::FIN, flags::RST, flags::SYN | flags::ACK];
        let bits = match input.below(8) {
            which if which < menu.len() => menu[which],
            5 => flags::RST | flags::ACK,
            6 => flags::SYN,
            _ => input.u8(),
        };
        // 8 is what `near` adds nothing for: a script of eights is a good peer.
        let (sequence, acknowledgment) = (input.near(seen.next), input.near(seen.end));
        let window = match input.below(4) {
            0 => 65_535,
            1 => 0,
            _ => input.u16(),
        };
        let mut options = Vec::new();
        match (input.below(8), seen.clock) {
            (7, _) => options.extend(input.bytes(12)),
            (_, None) => {}
            (wrong, Some(clock)) => {
                let value = if wrong == 6 { input.u32() } else { self.now.as_nanos() as u32 >> 20 };
                options.extend([1, 1, 8, 10]);
                options.extend(value.to_be_bytes());
                options.extend(input.near(clock).to_be_bytes());
            }
        }
        let payload = vec![input.u8(); input.len(3000)];
        let segment = Segment {
            source: seen.ports.0,
            destination: seen.ports.1,
            sequence,
            acknowledgment,
            flags: bits,
            window,
            options: &options,
            payload: &payload,
        };
        let frame = frame_to(seen.other, seen.local, frames::TCP, &segment.bytes());
        let mss = NonZeroU16::new(input.u16()).filter(|_| payload.len() > 1000);
        self.receive_as(&frame, FrameChecksum::Unverified, mss);
    }

    fn syn(&mut self, input: &mut Input<'_>) {
        self.syn_to(input, None);
    }

    /// A SYN to H, or to that of its addresses.
    fn syn_to(&mut self, input: &mut Input<'_>, local: Option<Ipv6>) {
        let other = input.below(OTHERS.len());
        let which = input.u8();
        let mut options = Vec::new();
        if which & 1 != 0 {
            options.extend([2, 4]);
            options.extend(input.u16().to_be_bytes());
        }
        if which & 2 != 0 {
            options.extend([1, 3, 3, input.u8()]);
        }
        if which & 4 != 0 {
            options.extend([1, 1, 4, 2]);
        }
        if which & 8 != 0 {
            options.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0]);
        }
        let segment = Segment {
            source: 1024 + u16::from(input.u8() % 8),
            destination: PORTS[input.below(2) * 3],
            sequence: input.u32(),
            flags: flags::SYN,
            window: input.u16(),
            options: &options,
            payload: input.bytes(usize::from(which >> 7) * 10),
            ..Segment::default()
        };
        self.receive(&frame_to(other, local, frames::TCP, &segment.bytes()));
    }

    fn datagram(&mut self, input: &mut Input<'_>) {
        let other = input.below(OTHERS.len());
        let destination = [H, [10, 0, 0, 255], [255; 4], [127, 0, 0, 1]][input.below(4)];
        let port = PORTS[input.below(PORTS.len())];
        let payload = vec![input.u8(); input.len(9000)];
        let ip = Ip::new(OTHERS[other], destination, frames::UDP);
        self.receive_ip(other, &ip, &frames::udp(9, port, &payload));
    }

    /// An echo request, or an error about what H has sent.
    fn echo_or_error(&mut self, input: &mut Input<'_>) {
        let other = input.below(OTHERS.len());
        let ip = Ip::new(OTHERS[other], H, frames::ICMP);
        if self.sent.is_empty() || input.below(4) == 0 {
            let body = vec![7; input.len(9000)];
            return self.receive_ip(other, &ip, &frames::icmp(8, 0, [1, 2, 3, 4], &body));
        }
        let about = &self.sent[input.below(self.sent.len())];
        let mut quote = about[14..about.len().min(14 + 20 + usize::from(input.u8()))].to_vec();
        if input.flag() && !quote.is_empty() {
            let at = input.below(quote.len().min(256));
            quote[at] = input.u8();
        }
        let kind = [3, 3, 11, 12, 4, 5][input.below(6)];
        let [high, low] = input.u16().to_be_bytes();
        let message = frames::icmp(kind, input.u8() % 16, [0, 0, high, low], &quote);
        self.receive_ip(other, &ip, &message);
    }

    fn fragment(&mut self, input: &mut Input<'_>) {
        let other = input.below(3);
        let more = if input.flag() { 0x2000 } else { 0 };
        let fragment = match input.below(8) {
            7 => input.u16(),
            offset => more | offset as u16,
        };
        let len = input.len(4000);
        let len = if input.below(4) == 3 { len } else { len & !7 };
        let payload = vec![input.u8() & 1; len];
        let ip = Ip {
            identification: input.u8().into(),
            fragment,
            ..Ip::new(OTHERS[other], H, [frames::UDP, frames::ICMP, frames::TCP][input.below(3)])
        };
        self.receive_ip(other, &ip, &payload);
    }

    fn arp(&mut self, input: &mut Input<'_>) {
        let other = input.below(OTHERS.len());
        let sender = match input.below(8) {
            6 => H,
            7 => [10, 0, 0, input.u8()],
            _ => OTHERS[other],
        };
        let mac = if input.below(8) == 7 { [3; 6] } else { mac_of(other) };
        let target = [H, OTHERS[1], sender][input.below(3)];
        let packet = frames::arp(1 + input.below(2) as u16, (mac, sender), (H_MAC, target));
        let to = if input.flag() { BROADCAST } else { H_MAC };
        self.receive(&frames::ethernet(to, mac_of(other), frames::TYPE_ARP, &packet));
    }

    /// A frame of H's, sent back to it with some bytes changed.
    fn mutated(&mut self, input: &mut Input<'_>) {
        if self.sent.is_empty() {
            return;
        }
        let mut frame = self.sent[input.below(self.sent.len())].clone();
        let (to, from) = (frame[6..12].to_vec(), mac_of(0));
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&from);
        if frame.len() >= 38 && frame[12..14] == [8, 0] {
            let turned = [&frame[30..34], &frame[26..30], &frame[36..38], &frame[34..36]].concat();
            frame[26..38].copy_from_slice(&turned);
        }
        if frame.len() >= 58 && frame[12..14] == [0x86, 0xdd] {
            let turned = [&frame[38..54], &frame[22..38], &frame[56..58], &frame[54..56]].concat();
            frame[22..58].copy_from_slice(&turned);
        }
        for _ in 0..1 + input.below(4) {
            let at = 12 + input.below(frame.len().min(80) - 12);
            frame[at] = input.u8();
        }
        let len = frame.len();
        match input.below(8) {
            6 => frame.truncate(input.below(len.min(256))),
            7 => frame.resize(len + input.below(60), 0),
            _ => {}
        }
        if input.below(4) != 3 {
            frames::repair(&mut frame);
        }
        self.receive(&frame);
    }

    /// Any bytes behind as many layers of headers as the script wants.
    fn anything(&mut self, input: &mut Input<'_>) {
        let mac = mac_of(0);
        let layer = input.below(8);
        let bytes = input.blob();
        let ip = |protocol| Ip::new(OTHERS[0], H, protocol);
        let eth = |ethertype, payload: &[u8]| frames::ethernet(H_MAC, mac, ethertype, payload);
        let mut frame = match layer {
            0 => bytes.to_vec(),
            1 => eth(frames::TYPE_ARP, bytes),
            2 => eth(frames::TYPE_IPV4, bytes),
            3 => eth(frames::TYPE_IPV6, bytes),
            4 => {
                let (options, payload) = bytes.split_at(bytes.len().min(8));
                let ip = Ip { options, time_to_live: 1, ..ip(frames::UDP) };
                eth(frames::TYPE_IPV4, &ip.packet(payload))
            }
            5 => eth(frames::TYPE_IPV4, &ip(frames::ICMP).packet(bytes)),
            6 => eth(frames::TYPE_IPV4, &ip(frames::TCP).packet(bytes)),
            _ => eth(frames::TYPE_IPV4, &ip(input.u8()).packet(bytes)),
        };
        frames::repair(&mut frame);
        let checksums = [FrameChecksum::Unverified, FrameChecksum::Verified, FrameChecksum::Blank];
        let checksum = checksums[input.below(3)];
        self.receive_as(&frame, checksum, NonZeroU16::new(u16::from(input.u8())));
    }

    /// The device is full or takes frames again; neighbours fall silent or answer again.
    fn device(&mut self, input: &mut Input<'_>) {
        match input.below(4) {
            0 => self.is_full = true,
            1 => self.answers = false,
            2 => self.answers = true,
            _ => self.is_full = false,
        }
    }

    fn dhcp_message(&mut self, input: &mut Input<'_>) {
        let mut message = vec![0; 240];
        message[..3].copy_from_slice(&[2, 1, 6]);
        let transaction = match input.below(8) {
            7 => input.u32().to_be_bytes(),
            _ => self.transaction,
        };
        message[4..8].copy_from_slice(&transaction);
        let address = match input.below(4) {
            3 => input.u32().to_be_bytes(),
            _ => H,
        };
        message[16..20].copy_from_slice(&address);
        message[28..34].copy_from_slice(&H_MAC);
        message[236..].copy_from_slice(&[99, 130, 83, 99]);
        let kind = [2, 5, 6, 2, 5][input.below(5)];
        message.extend([53, 1, kind, 54, 4]);
        message.extend(OTHERS[3]);
        let which = input.u8();
        if which & 1 == 0 {
            message.extend([1, 4, 255, 255, 255, 0]);
        }
        if which & 2 == 0 {
            message.extend([3, 4]);
            message.extend(if which & 16 == 0 { OTHERS[3] } else { input.u32().to_be_bytes() });
        }
        if which & 4 == 0 {
            message.extend([51, 4]);
            message.extend(u32::from(input.u16()).to_be_bytes());
        }
        if which & 8 != 0 {
            message.extend([58 + (which >> 7), 4]);
            message.extend(input.u32().to_be_bytes());
        }
        if which & 32 != 0 {
            message.extend(input.blob());
        }
        message.push(255);
        let destination = if input.flag() { H } else { [255; 4] };
        let ip = Ip::new(OTHERS[3], destination, frames::UDP);
        self.receive_ip(3, &ip, &frames::udp(67, 68, &message));
    }

    fn udp_call(&mut self, input: &mut Input<'_>) {
        let any = SocketAddr::from(([0, 0, 0, 0], PORTS[input.below(PORTS.len())]));
        match input.below(6) {
            0 => self.sockets.extend(self.engine.udp_bind(any)),
            1 if !self.sockets.is_empty() => {
                self.engine.udp_close(self.sockets.remove(input.below(self.sockets.len())));
            }
            2 => {
                let mut buffer = vec![0; input.len(9000)];
                for socket in &self.sockets {
                    let _ = self.engine.udp_receive(*socket, &mut buffer);
                }
            }
            _ => {
                let Some(socket) = self.sockets.first() else { return };
                let to = match input.below(8) {
                    5 => [127, 0, 0, 1],
                    6 => [255; 4],
                    7 => input.u32().to_be_bytes(),
                    other => OTHERS[other.min(4)],
                };
                let payload = vec![3; input.len(65_535)];
                let to = SocketAddr::from((to, PORTS[input.below(2)]));
                let _ = self.engine.udp_send(self.now, *socket, to, &payload);
            }
        }
    }

    fn listener_call(&mut self, input: &mut Input<'_>) {
        match input.below(4) {
            0 => {
                let address = [[0, 0, 0, 0], H, [127, 0, 0, 1]][input.below(3)];
                let local = SocketAddr::from((address, PORTS[input.below(PORTS.len())]));
                self.listeners.extend(self.engine.tcp_listen(local, input.below(4)));
            }
            1 if !self.listeners.is_empty() => {
                let id = self.listeners.remove(input.below(self.listeners.len()));
                self.engine.tcp_close_listener(self.now, id);
            }
            _ => {
                for id in &self.listeners {
                    let accepted = self.engine.tcp_accept(self.now, *id);
                    self.connections.extend(accepted.map(|accepted| accepted.connection));
                }
            }
        }
    }

    fn tcp_call(&mut self, input: &mut Input<'_>) {
        let now = self.now;
        let call = input.below(10);
        let id = self.connection(input);
        match (call, id) {
            (0, _) | (_, None) => {
                let to = match input.below(8) {
                    5 => [127, 0, 0, 1],
                    6 => H,
                    7 => input.u32().to_be_bytes(),
                    other => OTHERS[other.min(4)],
                };
                let remote = SocketAddr::from((to, PORTS[input.below(2) * 3]));
                self.connections.extend(self.engine.tcp_connect(now, remote));
            }
            (1 | 2, Some(id)) => {
                let _ = self.engine.tcp_write(now, id, &vec![5; input.len(8000)]);
            }
            (3 | 4, Some(id)) => {
                let _ = self.engine.tcp_read(now, id, &mut vec![0; input.len(8000)]);
            }
            (5, Some(id)) => {
                let _ = self.engine.tcp_shutdown(now, id);
            }
            (6, Some(id)) => {
                self.connections.retain(|other| *other != id);
                self.engine.tcp_release(now, id);
            }
            (7, Some(id)) => {
                self.connections.retain(|other| *other != id);
                self.engine.tcp_abort(now, id);
            }
            (8, Some(id)) => {
                self.engine.tcp_set_nodelay(id, input.flag());
                let _ = (self.engine.tcp_is_flushed(id), self.engine.tcp_addresses(id));
            }
            (_, Some(id)) => {
                let seconds = Duration::from_secs(1 + u64::from(input.u8()));
                let keepalive = Keepalive { idle: seconds, interval: seconds, probes: 3 };
                self.engine.tcp_set_keepalive(now, id, input.flag().then_some(keepalive));
            }
        }
    }

    /// Whatever came: once all is released and has had its time, nothing is left of it; and H still
    /// answers.
    fn end(mut self, is_static: bool) -> Counters {
        (self.is_full, self.answers) = (false, true);
        for id in std::mem::take(&mut self.connections) {
            self.engine.tcp_release(self.now, id);
        }
        for id in std::mem::take(&mut self.listeners) {
            self.engine.tcp_close_listener(self.now, id);
        }
        for id in std::mem::take(&mut self.sockets) {
            self.engine.udp_close(id);
        }
        self.wait(Duration::from_secs(1200));
        let counters = self.engine.counters();
        assert_eq!((counters.tcp_connections, counters.tcp_half_open), (0, 0), "connections");
        assert_eq!((counters.tcp_time_wait, counters.tcp_buffered_bytes), (0, 0), "bytes of TCP");
        assert_eq!((counters.udp_sockets, counters.udp_queued_bytes), (0, 0), "bytes of UDP");
        assert_eq!((counters.reassembly_datagrams, counters.reassembly_bytes), (0, 0));
        assert_eq!(counters.neighbour_parked_bytes, 0, "packets that nobody waits for");
        if !is_static {
            return counters;
        }
        self.end_6();
        let (stranger, mac) = ([10, 0, 0, 200], [2, 0, 0, 0, 0, 200]);
        let packet = frames::arp(1, (mac, stranger), ([0; 6], H));
        self.receive(&frames::ethernet(BROADCAST, mac, frames::TYPE_ARP, &packet));
        self.sent.clear();
        let ping = Ip::new(stranger, H, frames::ICMP).packet(&frames::icmp(8, 0, [0; 4], b"?"));
        let mut frame = frames::ethernet(H_MAC, mac, frames::TYPE_IPV4, &ping);
        frames::repair(&mut frame);
        self.receive(&frame);
        let is_reply = |frame: &Vec<u8>| frame[30..34] == stranger && frame[34] == 0;
        assert!(self.sent.iter().any(is_reply), "H does not answer any more");
        counters
    }
}
