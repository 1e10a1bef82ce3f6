//! A router, and any frames on its links.

use crate::Input;
use crate::frames::{self, Ip, Ipv4, Mac, Segment};
use core::time::Duration;
use fata_tcpip::router::{PortConfig, Router, Undone, Verdict};
use fata_tcpip::{Instant, Limits, MacAddress};
use std::collections::VecDeque;
use std::num::NonZeroU16;

/// Ports that a script knows; the last is not attached at first.
const PORTS: usize = 3;

fn router_mac(port: usize) -> Mac {
    [2, 0, 0, 0, 1, port as u8]
}

fn host_mac(port: usize) -> Mac {
    [2, 0, 0, 0, 2, port as u8]
}

/// The router is .1 on each link, a host .2.
fn address(port: usize, host: u8) -> Ipv4 {
    [10, 1 + port as u8, 0, host]
}

fn mtu(port: usize) -> usize {
    [1500, 576, 9000][port]
}

fn limits() -> Limits {
    Limits {
        neighbours: 5,
        neighbours_unresolved: 2,
        neighbour_parked_bytes: 6000,
        ..Limits::default()
    }
}

struct World {
    router: Router,
    now: Instant,
    attached: [bool; PORTS],
    /// Frames that went out lately.
    seen: VecDeque<Vec<u8>>,
    /// Hosts answer ARP.
    answers: bool,
}

/// Whatever comes on whichever port: what goes out is right, what waits is bounded.
pub fn run(input: &mut Input<'_>) {
    let now = Instant::from_millis(1000);
    let router = Router::new(limits(), [7; 32], now);
    let attached = [false; PORTS];
    let mut world = World { router, now, attached, seen: VecDeque::new(), answers: true };
    world.attach(0);
    world.attach(1);
    while !input.is_empty() {
        world.step(input);
        world.settle();
    }
    // All that waits for somebody is given up in time.
    world.answers = false;
    world.wait(Duration::from_secs(600));
    assert_eq!(world.router.counters().neighbour_parked_bytes, 0);
}

impl World {
    fn attach(&mut self, port: usize) {
        if self.attached[port] {
            return;
        }
        let config = PortConfig {
            mac: MacAddress(router_mac(port)),
            mtu: mtu(port),
            address: address(port, 1).into(),
            prefix_len: 24,
        };
        // The numbers are those of the free ports; a script attaches the lowest first.
        let lowest = self.attached.iter().position(|is| !is);
        if lowest == Some(port) {
            assert_eq!(self.router.attach(config), Ok(port));
            self.attached[port] = true;
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let port = input.below(PORTS);
        match input.below(12) {
            0..5 => {
                let frame = self.packet(input, port);
                self.receive(input, port, frame);
            }
            5 => {
                let sender = match input.below(4) {
                    3 => input.u32().to_be_bytes(),
                    2 => address(port, 1),
                    _ => address(port, 2),
                };
                let operation = 1 + input.below(2) as u16;
                let target = (router_mac(port), address(port, 1));
                let packet = frames::arp(operation, (host_mac(port), sender), target);
                let to = if input.flag() { [0xff; 6] } else { router_mac(port) };
                let frame = frames::ethernet(to, host_mac(port), frames::TYPE_ARP, &packet);
                self.receive(input, port, frame);
            }
            6 if !self.seen.is_empty() => {
                let mut frame = self.seen[input.below(self.seen.len())].clone();
                frame[..6].copy_from_slice(&router_mac(port));
                frame[6..12].copy_from_slice(&host_mac(port));
                for _ in 0..1 + input.below(4) {
                    let at = 12 + input.below(frame.len().min(80) - 12);
                    frame[at] = input.u8();
                }
                frames::repair(&mut frame);
                self.receive(input, port, frame);
            }
            7 => {
                let ethertype = [frames::TYPE_IPV4, frames::TYPE_ARP, frames::TYPE_IPV6];
                let ethertype = ethertype[input.below(3)];
                let bytes = input.blob();
                let mut frame =
                    frames::ethernet(router_mac(port), host_mac(port), ethertype, bytes);
                frames::repair(&mut frame);
                self.receive(input, port, frame);
            }
            8 => match input.below(4) {
                0 => self.attach(port),
                1 => {
                    self.router.detach(port);
                    self.attached[port] = false;
                }
                2 => self.answers = input.flag(),
                _ => {
                    let (network, gateway) = (input.u32().to_be_bytes(), address(port, 2));
                    let prefix_len = input.u8() % 34;
                    let bits = u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32)));
                    let network = u32::from_be_bytes(network) & bits.unwrap_or(0);
                    let network = network.to_be_bytes().into();
                    let added = self.router.add_route(network, prefix_len, gateway.into());
                    assert_eq!(added.is_ok(), prefix_len <= 32);
                    if input.flag() && added.is_ok() {
                        assert!(self.router.remove_route(network, prefix_len));
                    }
                }
            },
            _ => self.wait(Duration::from_millis(u64::from(input.u8()) * 10)),
        }
    }

    /// A packet of a host, mostly to another one.
    fn packet(&self, input: &mut Input<'_>, port: usize) -> Vec<u8> {
        let to = input.below(PORTS);
        let destination = match input.below(8) {
            5 => address(to, 1),
            6 => address(to, 255),
            7 => input.u32().to_be_bytes(),
            _ => address(to, 2 + input.u8() % 4),
        };
        let source = match input.below(8) {
            7 => input.u32().to_be_bytes(),
            _ => address(port, 2),
        };
        let options = if input.below(8) == 7 { input.bytes(8) } else { &[] };
        let payload = vec![input.u8(); input.len(8000)];
        let (protocol, transport) = match input.below(3) {
            0 => (frames::UDP, frames::udp(9, 7, &payload)),
            1 => (frames::ICMP, frames::icmp(input.u8() % 16, 0, [0; 4], &payload)),
            _ => {
                let segment =
                    Segment { flags: input.u8(), payload: &payload, ..Segment::default() };
                (frames::TCP, segment.bytes())
            }
        };
        let ip = Ip {
            time_to_live: input.u8() % 4 + 1,
            fragment: [0, 0x4000, 0x2000, 0x2001][input.below(4)],
            options,
            ..Ip::new(source, destination, protocol)
        };
        let packet = ip.packet(&transport);
        let ethertype = frames::TYPE_IPV4;
        let mut frame = frames::ethernet(router_mac(port), host_mac(port), ethertype, &packet);
        frames::repair(&mut frame);
        frame
    }

    fn receive(&mut self, input: &mut Input<'_>, port: usize, mut frame: Vec<u8>) {
        let undone = Undone {
            is_checksum_blank: input.below(8) == 7,
            mss: NonZeroU16::new(u16::from(input.u8() & 1) * input.u16()),
        };
        let before = frame.clone();
        match self.router.handle_frame(self.now, port, &mut frame, undone) {
            Verdict::Consumed => {}
            Verdict::Forward { port: to, len } => {
                assert!(self.attached[port] && self.attached[to] && len <= frame.len());
                frame.truncate(len);
                assert_eq!(frame[6..12], router_mac(to), "from another interface");
                assert_eq!(frame[22] + 1, before[22], "one hop more");
                let most = if undone.mss.is_some() { 65_535 } else { mtu(to) };
                self.look_at(frame, most);
            }
        }
        self.settle();
    }

    /// What goes out, by either way. What the router says itself is right in every part.
    fn look_at(&mut self, frame: Vec<u8>, mtu: usize) {
        frames::check_forwarded(&frame, mtu);
        let is_own = (0..PORTS).any(|port| frame[26..30] == address(port, 1));
        if is_own && frame[12..14] == [8, 0] && frame[23] == frames::ICMP {
            frames::check(&frame, mtu);
        }
        self.seen.push_back(frame);
        if self.seen.len() > 24 {
            self.seen.pop_front();
        }
    }

    fn settle(&mut self) {
        let mut asked = Vec::new();
        for port in 0..PORTS {
            let mut count = 0;
            while let Some(own) = self.router.poll_frame(port) {
                count += 1;
                assert!(count < 2000, "the router does not stop sending");
                let frame = own.bytes;
                assert_eq!(frame[6..12], router_mac(port));
                if frame[12..14] == [8, 6] && frame[20..22] == [0, 1] {
                    asked.push((port, [frame[38], frame[39], frame[40], frame[41]]));
                }
                let most = if own.undone.mss.is_some() { 65_535 } else { mtu(port) };
                self.look_at(frame, most);
            }
        }
        let counters = self.router.counters();
        let (limits, ports) = (limits(), PORTS as u64);
        assert!(counters.neighbours <= limits.neighbours as u64 * ports);
        assert!(counters.neighbour_parked_bytes <= limits.neighbour_parked_bytes as u64 * ports);
        for (port, target) in asked {
            if self.answers && target == address(port, 2) {
                let us = (router_mac(port), address(port, 1));
                let packet = frames::arp(2, (host_mac(port), target), us);
                let ethertype = frames::TYPE_ARP;
                let mut frame =
                    frames::ethernet(router_mac(port), host_mac(port), ethertype, &packet);
                let verdict =
                    self.router.handle_frame(self.now, port, &mut frame, Undone::default());
                assert_eq!(verdict, Verdict::Consumed);
                self.settle();
            }
        }
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(deadline) = self.router.poll_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(deadline);
            self.router.handle_timeout(self.now);
            let next = self.router.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a deadline that stays");
            self.settle();
        }
        self.now = end;
    }
}
