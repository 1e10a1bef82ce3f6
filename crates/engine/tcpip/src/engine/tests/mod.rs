//! The engine as a black box: frames in, frames out, with the time explicit.
//!
//! `H` is the host under test, 10.0.0.1/24 with a router at 10.0.0.254; `P` a peer that the test
//! plays, 10.0.0.2.

mod arp;
mod dhcp;
mod fragments;
mod fuzz;
mod icmp;
mod ipv4;
mod ipv6;
mod link;
mod martians;
mod pair;

mod shortcuts;
mod udp;

use super::*;
use crate::config::{ConfigError, Ipv6Config, Limits, StaticRoute};
use crate::socket::UdpId;
use crate::wire::arp::Operation;
use crate::wire::ethernet::{self, Frame};
use crate::wire::ipv4::{Header, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP};
use crate::wire::{arp as arp_wire, checksum, icmpv4, udp as udp_wire};
use core::time::Duration;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

const H: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const P: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const H_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const P_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

/// A configuration of H.
fn config() -> Config {
    Config {
        mac: H_MAC,
        mtu: 1500,
        address: AddressConfig::Static {
            address: H,
            prefix_len: 24,
            gateway: Some(GATEWAY),
            dns: vec![],
        },
        ipv6: Ipv6Config::off(),
        routes: vec![],
        secret: [7; 32],
        transmit_checksum_offload: false,
        segmented_frame_bytes_max: 0,
        limits: Limits::default(),
    }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The host under test and its time.
struct Host {
    engine: Engine,
    now: Instant,
    limits: Limits,
    mtu: usize,
}

impl Host {
    /// H, ten seconds after its start: it has announced itself.
    fn new() -> Host {
        Host::with(config())
    }

    fn with(config: Config) -> Host {
        let mut host = Host::just_started(config);
        host.advance(secs(10));
        host
    }

    fn just_started(config: Config) -> Host {
        let (limits, mtu) = (config.limits.clone(), config.mtu);
        let now = Instant::from_millis(1000);
        Host { engine: Engine::new(config, now).unwrap(), now, limits, mtu }
    }

    /// Lets H receive a frame, and checks that it stays within its means.
    fn receive(&mut self, frame: &[u8]) {
        self.receive_with(frame, FrameChecksum::Unverified);
    }

    fn receive_with(&mut self, frame: &[u8], checksum: FrameChecksum) {
        self.engine.handle_frame(self.now, frame, checksum);
        self.check();
    }

    /// What must hold at any time: memory within the limits, and TCP's invariants.
    fn check(&self) {
        self.engine.check(&self.limits);
    }

    /// All frames that H has to send now.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.send_one() {
            frames.push(frame);
            assert!(frames.len() < 100_000, "sends for ever");
        }
        frames
    }

    /// The next frame that H sends now; its checksum finished, as a device would.
    fn send_one(&mut self) -> Option<Vec<u8>> {
        let mut buffer = vec![0xcc; 14 + self.mtu];
        let transmit = self.engine.poll_transmit(self.now, &mut buffer)?;
        buffer.truncate(transmit.len);
        if let Some(PartialChecksum { start, offset }) = transmit.partial_checksum {
            let (start, at) = (usize::from(start), usize::from(start + offset));
            let sum = checksum::checksum(&buffer[start..]);
            buffer[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        Some(buffer)
    }

    fn is_silent(&mut self) -> bool {
        self.sent().is_empty()
    }

    /// Lets time pass, from one deadline that H names to the next; returns what it sent, and when.
    fn advance(&mut self, duration: Duration) -> Vec<(Instant, Vec<u8>)> {
        let end = self.now + duration;
        let mut frames: Vec<_> = self.sent().into_iter().map(|frame| (self.now, frame)).collect();
        let mut steps = 0;
        while let Some(deadline) = self.engine.poll_timeout()
            && deadline <= end
        {
            self.now = self.now.max(deadline);
            self.engine.handle_timeout(self.now);
            frames.extend(self.sent().into_iter().map(|frame| (self.now, frame)));
            self.check();
            steps += 1;
            assert!(steps < 100_000, "a deadline that stays: {deadline:?}");
        }
        self.now = end;
        frames
    }

    fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.engine.poll_event()).collect()
    }

    fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// Lets H learn P's hardware address: P asks for H's.
    fn introduce(&mut self, address: Ipv4Addr, mac: MacAddress) {
        self.sent();
        self.receive(&arp_request((mac, address), H));
        assert_eq!(self.sent().len(), 1, "H answers");
    }

    fn bind(&mut self, port: u16) -> UdpId {
        self.engine.udp_bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).unwrap()
    }

    /// The payload of the next datagram at `id`.
    fn datagram(&mut self, id: UdpId) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        let datagram = self.engine.udp_receive(id, &mut buffer)?;
        assert!(!datagram.truncated);
        buffer.truncate(datagram.len);
        Some(buffer)
    }

    fn udp_send(&mut self, id: UdpId, to: Ipv4Addr, payload: &[u8]) {
        let to = SocketAddr::from((to, 9));
        assert_eq!(self.engine.udp_send(self.now, id, to, payload), Ok(true));
    }
}

fn eth(destination: MacAddress, source: MacAddress, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet::header(destination, source, ethertype).to_vec();
    frame.extend(payload);
    frame
}

fn arp(operation: Operation, sender: (MacAddress, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let packet = arp_wire::Packet {
        operation,
        sender_mac: sender.0,
        sender: sender.1,
        target_mac: H_MAC,
        target,
    };
    let to = if operation == Operation::Request { MacAddress::BROADCAST } else { H_MAC };
    eth(to, sender.0, ethernet::TYPE_ARP, &packet.to_bytes())
}

fn arp_request(sender: (MacAddress, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    arp(Operation::Request, sender, target)
}

fn arp_reply(sender: (MacAddress, Ipv4Addr)) -> Vec<u8> {
    arp(Operation::Reply, sender, H)
}

fn header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Header {
    Header {
        source,
        destination,
        protocol,
        time_to_live: 64,
        identification: 99,
        dont_fragment: false,
    }
}

/// The same as the engine's own packets have it.
fn output_header(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    protocol: u8,
    identification: u32,
) -> crate::output::Header {
    crate::output::Header {
        source: source.into(),
        destination: destination.into(),
        protocol,
        hop_limit: 64,
        identification,
        dont_fragment: false,
    }
}

/// A frame from P with a packet.
fn ip(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = header(source, destination, protocol).to_bytes(payload.len()).to_vec();
    packet.extend(payload);
    eth(H_MAC, P_MAC, ethernet::TYPE_IPV4, &packet)
}

/// A frame from P with a datagram from port 9.
fn udp(source: Ipv4Addr, destination: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let datagram = udp_wire::to_bytes((source, 9), (destination, port), payload);
    ip(source, destination, PROTOCOL_UDP, &datagram)
}

/// A frame from P with an echo request.
fn ping(source: Ipv4Addr, destination: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    let message = icmpv4::to_bytes(icmpv4::ECHO_REQUEST, 0, [1, 2, 3, 4], body);
    ip(source, destination, PROTOCOL_ICMP, &message)
}

/// A frame from P with a SYN to port 80.
fn syn(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut segment = [0; 20];
    segment[..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
    segment[12..16].copy_from_slice(&[0x50, 0x02, 0xff, 0xff]);
    let sum = checksum::Sum::of_pseudo_header(source, destination, PROTOCOL_TCP, 20).then(&segment);
    segment[16..18].copy_from_slice(&sum.finish().to_be_bytes());
    ip(source, destination, PROTOCOL_TCP, &segment)
}

/// One of each: a SYN, a ping, a datagram to a closed port.
fn one_of_each(source: Ipv4Addr, destination: Ipv4Addr) -> [Vec<u8>; 3] {
    [syn(source, destination), ping(source, destination, b"x"), udp(source, destination, 7, b"x")]
}

/// A packet that H sent, its header's and transport's checksums verified.
#[derive(Clone, Debug)]
struct SentPacket {
    to: MacAddress,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    payload: Vec<u8>,
}

fn sent_packet(frame: &[u8]) -> Option<SentPacket> {
    let frame = Frame::parse(frame)?;
    assert_eq!(frame.source, H_MAC);
    if frame.ethertype != ethernet::TYPE_IPV4 {
        return None;
    }
    let packet = crate::wire::ipv4::Packet::parse(frame.payload).unwrap();
    assert!(packet.checksum_is_valid());
    if !packet.is_fragment() {
        assert!(transport_checksum_is_valid(
            packet.source(),
            packet.destination(),
            packet.protocol(),
            packet.payload()
        ));
    }
    Some(SentPacket {
        to: frame.destination,
        source: packet.source(),
        destination: packet.destination(),
        protocol: packet.protocol(),
        payload: packet.payload().to_vec(),
    })
}

fn transport_checksum_is_valid(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    payload: &[u8],
) -> bool {
    let pseudo = checksum::Sum::of_pseudo_header(source, destination, protocol, payload.len());
    match protocol {
        PROTOCOL_ICMP => checksum::Sum::default().then(payload).is_valid(),
        _ => pseudo.then(payload).is_valid(),
    }
}

/// An ARP packet that H sent, and to whom.
fn sent_arp(frame: &[u8]) -> Option<(MacAddress, arp_wire::Packet)> {
    let frame = Frame::parse(frame)?;
    let packet = arp_wire::Packet::parse(frame.payload)?;
    (frame.ethertype == ethernet::TYPE_ARP).then_some((frame.destination, packet))
}

/// The targets of the ARP requests in `frames`.
fn arp_targets(frames: &[Vec<u8>]) -> Vec<Ipv4Addr> {
    frames
        .iter()
        .filter_map(|frame| sent_arp(frame))
        .filter(|(_, packet)| packet.operation == Operation::Request)
        .map(|(_, packet)| packet.target)
        .collect()
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address} is not IPv4"),
    }
}

/// A task may be moved to another thread with the engine that it drives.
#[test]
fn an_engine_can_be_sent_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Engine>();
}
